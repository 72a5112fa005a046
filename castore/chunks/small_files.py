"""Many small files stored together, with few flushes.

The thread that asks reads the files, hashes them and looks which of them the store has; the workers compress
and write those that are new. Of a small file there is more Python than there are bytes, and threads that each
did all of it would mostly wait for each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from castore.chunks.writer import store_if_new
from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkStore
from castore.contract.inputs import read_beginning
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.threads.pool import Pool, Task

if TYPE_CHECKING:
    from collections.abc import Callable

Path: TypeAlias = "str | os.PathLike[str]"
Progress: TypeAlias = "Callable[[int], object] | None"

_FILES_PER_JOB: Final = 32
"""A job for each file would cost more than the file."""

_FILES_PER_ROUND: Final = 1024
"""After so many files their indexes are put and their digests reported, while the next ones are read."""

_MOST_WAITING: Final = 16 << 20
"""How many bytes of a round may wait to be stored."""


@attrs.frozen
class _Small:
    """A file that is stored but for its index."""

    digest: B3Digest
    size: int


_Large: TypeAlias = None
_Outcome: TypeAlias = "_Small | SourceError | _Large"


class _Round:
    """Files that are stored together, and what keeps their chunks from collectors of garbage meanwhile."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.outcomes: list[_Outcome] = []
        self.known: set[B3Digest] = set()
        """The digests of blobs that need no index any more."""
        self.holding = ExitStack()
        self._storing: deque[tuple[Task[None], int]] = deque()
        self._bytes_waiting = 0
        self.indexing: Task[None] | None = None

    def add(self, task: Task[None], size: int) -> None:
        """Take note of a task that stores *size* bytes; wait for others if they are too many."""
        self._storing.append((task, size))
        self._bytes_waiting += size
        while self._bytes_waiting > _MOST_WAITING:
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        task, size = self._storing.popleft()
        self._bytes_waiting -= size
        task.result()

    def wait(self) -> None:
        """Wait until all is stored."""
        while self._storing:
            self._wait_for_one()

    @property
    def lacking(self) -> set[B3Digest]:
        """The digests of those small ones that need an index."""
        small = {outcome.digest for outcome in self.outcomes if isinstance(outcome, _Small)}
        return small - self.known

    def end(self) -> None:
        """Drop what is not done."""
        if self.indexing is not None:
            self.indexing.drop()
        while self._storing:
            self._storing.pop()[0].drop()
        self.holding.close()


class SmallFiles:
    """Stores the files of a list that are no larger than *limit* bytes, the smallest that could be cut.

    Arguments:
        service: Stores the larger ones, one by one.
        store: Where chunks and indexes go.
        pool: Store what is new.
        limit: Up to how many bytes a file is one chunk.
        waits: Whether the store takes its time to answer, so that many should be asked for at once.
    """

    def __init__(
        self,
        service: BlobService,
        store: ChunkStore,
        pool: Pool,
        *,
        limit: int,
        high_latency: bool = False,
    ) -> None:
        self._service = service
        self._store = store
        self._pool = pool
        self._limit = limit
        self._high_latency = high_latency

    def put(self, paths: Iterable[Path], progress: Progress) -> Iterator[B3Digest | SourceError]:
        """Yield the digest of each file in order, or the error of one that cannot be read."""
        remaining = iter(paths)
        under_way: deque[_Round] = deque()
        try:
            while True:
                upcoming = _Round(list(islice(remaining, _FILES_PER_ROUND)))
                under_way.append(upcoming)
                # While the indexes of the round before are put, and flushed.
                self._store_files(upcoming)
                if len(under_way) > 1:
                    done = under_way[0]
                    assert done.indexing is not None
                    done.indexing.result()
                    under_way.popleft().end()
                    for path, outcome in zip(done.paths, done.outcomes, strict=True):
                        yield self._finish(path, outcome, progress)
                if not upcoming.paths:
                    return
                upcoming.indexing = self._pool.submit(partial(self._put_indexes, upcoming))
        finally:
            for round_ in under_way:
                round_.end()

    def _store_files(self, round_: _Round) -> None:
        """Read the files, and let those that are new be stored."""
        if len(round_.paths) > _FILES_PER_JOB:
            # A few files have their indexes before anything could be taken for garbage.
            round_.holding.enter_context(self._store.hold())
        step = 1 if self._high_latency else _FILES_PER_JOB
        for start in range(0, len(round_.paths), step):
            found: dict[B3Digest, bytes] = {}
            for path in round_.paths[start : start + step]:
                round_.outcomes.append(self._read(path, found))
            if not self._high_latency:
                known = self._store.claim_chunks(found)
                for digest in known:
                    del found[digest]
                round_.known |= self._store.claim_indexes([(digest, ()) for digest in known])
            if found:
                task = self._pool.submit(partial(self._store_chunks, found))
                round_.add(task, sum(map(len, found.values())))

    def _read(self, path: Path, found: dict[B3Digest, bytes]) -> _Outcome:
        """Read a file, and add it to what was *found* if it is small and not empty."""
        try:
            data = read_beginning(path, self._limit + 1)
        except SourceError as error:
            return error
        if len(data) > self._limit:
            return None
        digest = B3Digest.of(data)
        if data:
            found[digest] = data
        return _Small(digest, len(data))

    def _store_chunks(self, chunks: dict[B3Digest, bytes]) -> None:
        if not self._high_latency:
            self._store.put_chunks(chunks)
            return
        for digest, data in chunks.items():
            store_if_new(self._store, digest, memoryview(data))

    def _put_indexes(self, round_: _Round) -> None:
        round_.wait()
        self._store.put_indexes([(digest, ()) for digest in round_.lacking])

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
