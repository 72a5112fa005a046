"""Marking, for a collection: reading the indexes of what is to stay, to know the chunks that they need.

That is most of what a collection waits for, and it only reads: threads of this process do it, or tasks that
run elsewhere (`castore.upkeep.spread("mark", ...)`). A task takes some digests and returns one sorted run of
those that they need, 32 bytes each. The collection itself lists, condemns and removes, in one process.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import attrs

from castore.contract.blobs import BlobService, ChunkMeta
from castore.digest import B3Digest
from castore.errors import BadIndexError, CorruptBlobError, UnavailableError
from castore.threads.pool import Pool

_MOST_BLOBS: Final = 1024
"""So many indexes are read by a task."""

_MOST_MARKS: Final = 1 << 17
"""A task of as many different chunks leaves other blobs to the next one: a run has 4 MiB, or one blob."""

_SIZE: Final = 32


@attrs.frozen
class Needs:
    """What some blobs need.

    Attributes:
        blobs: Those whose indexes were read, in the order in which they were given.
        absent: Those of them that are not there.
        needed: The digests of the chunks that the others need, as bytes.
    """

    blobs: Sequence[B3Digest]
    absent: frozenset[B3Digest]
    needed: Iterable[bytes]


class Marker(Protocol):
    """Reads indexes for a collection."""

    def __call__(self, blobs: Iterable[B3Digest]) -> Iterator[Needs]:
        """Yield what the *blobs* need: each of them once, in their order.

        Raises `BadIndexError` for an index that cannot be read, and `UnavailableError`.
        """


@attrs.frozen
class LocalMarker:
    """Reads the indexes of a service with the threads of a pool."""

    service: BlobService
    pool: Pool

    def __call__(self, blobs: Iterable[B3Digest]) -> Iterator[Needs]:
        """Yield what each blob needs."""
        for digest, chunks in self.pool.map(self._read, blobs):
            if chunks is None:
                yield Needs([digest], frozenset([digest]), ())
            else:
                yield Needs([digest], frozenset(), (meta.digest for meta in chunks))

    def _read(self, digest: B3Digest) -> tuple[B3Digest, Sequence[ChunkMeta] | None]:
        return digest, chunks_to_keep(self.service, digest)


def chunks_to_keep(service: BlobService, digest: B3Digest) -> Sequence[ChunkMeta] | None:
    """Return the chunks of a blob that is to stay; raise `BadIndexError` if nobody knows them."""
    try:
        return service.chunks(digest)
    except CorruptBlobError as error:
        raise BadIndexError(
            f"{error.message}; it is to stay, and nobody knows which chunks it needs, so no chunk was"
            " removed: mend the store first, with `castore verify`",
            expected=digest,
            found=error.found,
        ) from error


# -- elsewhere --


@attrs.frozen
class Run:
    """What a task returns.

    Attributes:
        count: How many of its blobs it has read, from the first one on; at least one.
        absent: Which of these are not there, by their places.
        needed: The digests of the chunks of the others: sorted, each once, one after the other.
        proved: Whether the blob is there that proves that it is the same store, if one was named.
    """

    count: int
    absent: tuple[int, ...]
    needed: bytes
    proved: bool = True


def read_run(
    service: BlobService, blobs: Sequence[B3Digest], pool: Pool, proof: B3Digest | None = None
) -> Run:
    """Return what *blobs* need, or the first of them, if those need very much."""
    proved = proof is None or service.has(proof)
    marks: set[bytes] = set()
    absent = []
    count = 0
    for found in LocalMarker(service, pool)(blobs):
        if found.absent:
            absent.append(count)
        marks.update(map(bytes, found.needed))
        count += 1
        if len(marks) >= _MOST_MARKS:
            break
    return Run(count, tuple(absent), b"".join(sorted(marks)), proved)


@attrs.frozen
class SpreadMarker:
    """Has tasks read the indexes of a service, some of them ahead of what is asked for.

    A run that does not come ends the collection, with what the engine raises. A worker may see another store
    under the same name, with the same blobs cut in another way: so where it is to *prove* that, each tells
    whether it sees a blob of random bytes that is stored for that. What it does not find is looked for here,
    too.
    """

    name: str
    here: LocalMarker
    submit: Callable[[B3Digest | None, Sequence[B3Digest]], Any]
    ahead: int
    prove: bool

    def __call__(self, blobs: Iterable[B3Digest]) -> Iterator[Needs]:
        """Yield what the blobs of each task need."""
        remaining = iter(blobs)
        tasks: deque[tuple[Sequence[B3Digest], Any]] = deque()
        proof: B3Digest | None = None
        try:
            while True:
                while len(tasks) < self.ahead and (some := list(islice(remaining, _MOST_BLOBS))):
                    if self.prove and proof is None:
                        proof = self.here.service.write(secrets.token_bytes(32))
                    tasks.append((some, self.submit(proof, some)))
                if not tasks:
                    return
                asked, task = tasks.popleft()
                try:
                    run: Run = task.result()
                finally:
                    _let_go(task)
                if run.count < len(asked):
                    rest = asked[run.count :]
                    tasks.appendleft((rest, self.submit(proof, rest)))
                yield from self._marks(asked[: run.count], run, proof)
        finally:
            for _, task in tasks:
                _let_go(task)

    def _marks(self, blobs: Sequence[B3Digest], run: Run, proof: B3Digest | None) -> Iterator[Needs]:
        if proof is not None and not run.proved:
            if self.here.service.has(proof):
                raise UnavailableError(
                    self.name,
                    f"a worker sees another store by this name: it lacks {proof}, which was stored just"
                    " now to find that out",
                )
            # It was young garbage, and is gone by now: nothing is proved.
            yield from self.here(blobs)
            return
        absent = frozenset(blobs[place] for place in run.absent)
        for found in self.here(sorted(absent)):
            if not found.absent:
                raise UnavailableError(
                    self.name,
                    f"a worker does not see {found.blobs[0]}, which is there; is it kept in memory, or in a"
                    " folder of this machine alone?",
                )
        needed = (run.needed[place : place + _SIZE] for place in range(0, len(run.needed), _SIZE))
        yield Needs(blobs, absent, needed)


def _let_go(task: Any) -> None:
    """Let an engine forget a task: it runs for nothing, or what it has brought is here."""
    cancel = getattr(task, "cancel", None)
    if cancel is not None:
        cancel()
