"""Many small files stored together: several to a job of the pool, and one flush for all of a round."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import islice
from typing import Final, TypeAlias

import attrs

from castore.blobservice import BlobService
from castore.capabilities import ChunkStore
from castore.chunked_writer import store_if_new
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.sources import open_source
from castore.workers import Task, Workers

Path: TypeAlias = "str | os.PathLike[str]"
Progress: TypeAlias = "Callable[[int], object] | None"

_FILES_PER_JOB: Final = 32
"""A job for each file would cost more than the file."""

_FILES_PER_ROUND: Final = 1024
"""After so many files their indexes are put and their digests reported, while the next ones are stored."""


@attrs.frozen
class _Small:
    """A file that is stored but for its index."""

    digest: B3Digest
    size: int


_Large: TypeAlias = None
_Outcome: TypeAlias = "_Small | SourceError | _Large"


class _Round:
    """Files that are stored together, and what keeps their chunks from collectors of garbage meanwhile."""

    def __init__(self, paths: Sequence[Path], hold: AbstractContextManager[None]) -> None:
        self.paths = paths
        self.tasks: list[Task[list[_Outcome]]] = []
        self._holding = ExitStack()
        self._holding.enter_context(hold)

    def outcomes(self) -> list[_Outcome]:
        """Wait for all of them."""
        found: list[_Outcome] = []
        while self.tasks:
            found += self.tasks.pop(0).result()
        return found

    def end(self) -> None:
        """Drop what is not done."""
        while self.tasks:
            self.tasks.pop().drop()
        self._holding.close()


class SmallFiles:
    """Stores the files of a list that are no larger than *limit* bytes, the smallest that could be cut.

    Arguments:
        service: Stores the larger ones, one by one.
        store: Where chunks and indexes go.
        workers: Read, hash and store.
        limit: Up to how many bytes a file is one chunk.
        files_per_job: How many files a worker is given at a time.
    """

    def __init__(
        self,
        service: BlobService,
        store: ChunkStore,
        workers: Workers,
        *,
        limit: int,
        files_per_job: int = _FILES_PER_JOB,
    ) -> None:
        self._service = service
        self._store = store
        self._workers = workers
        self._limit = limit
        self._files_per_job = files_per_job

    def put(self, paths: Iterable[Path], progress: Progress) -> Iterator[B3Digest | SourceError]:
        """Yield the digest of each file in order, or the error of one that cannot be read."""
        remaining = iter(paths)
        under_way = deque([self._begin(remaining)])
        try:
            while under_way[0].paths:
                round_ = under_way[0]
                outcomes = round_.outcomes()
                # While the indexes are put, and flushed, the chunks of the next round go to the store.
                under_way.append(self._begin(remaining))
                small = {outcome.digest for outcome in outcomes if isinstance(outcome, _Small)}
                self._store.put_indexes([(digest, ()) for digest in small])
                under_way.popleft().end()
                for path, outcome in zip(round_.paths, outcomes, strict=True):
                    yield self._finish(path, outcome, progress)
        finally:
            for round_ in under_way:
                round_.end()

    def _begin(self, remaining: Iterator[Path]) -> _Round:
        """Submit the next files."""
        paths = list(islice(remaining, _FILES_PER_ROUND))
        # A few files have their indexes before anything could be taken for garbage.
        round_ = _Round(paths, self._store.hold() if len(paths) > _FILES_PER_JOB else nullcontext())
        step = self._files_per_job
        for start in range(0, len(paths), step):
            round_.tasks.append(self._submit(paths[start : start + step]))
        return round_

    def _submit(self, paths: Sequence[Path]) -> Task[list[_Outcome]]:
        return self._workers.submit(lambda: [self._store_one(path) for path in paths])

    def _store_one(self, path: Path) -> _Outcome:
        try:
            with open_source(path) as source:
                data = source.read_up_to(self._limit + 1)
        except SourceError as error:
            return error
        if len(data) > self._limit:
            return None
        digest = B3Digest.of(data)
        if data:
            store_if_new(self._store, digest, memoryview(data))
        return _Small(digest, len(data))

    def _finish(self, path: Path, outcome: _Outcome, progress: Progress) -> B3Digest | SourceError:
        if outcome is None:
            try:
                return self._service.put_file(path, progress=progress)
            except SourceError as error:
                return error
        if isinstance(outcome, SourceError):
            return outcome
        if progress is not None:
            progress(outcome.size)
        return outcome.digest
