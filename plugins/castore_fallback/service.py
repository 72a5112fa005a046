"""Several services, of which the first that has a blob gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.composites.failover_reading import RelayedChunks, open_relayed
from castore.composites.members import Child, ChildHealth, Children, Found
from castore.composites.timed_writing import open_bounded
from castore.composites.union import AskingForMany, JoinedDeleter, JoinedLister
from castore.contract.capabilities import (
    BatchExistence,
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
)
from castore.threads.pool import Workers
from castore_fallback.copying import Copier
from castore_fallback.powers import StoreInOne

P = TypeVar("P")


class FallbackBlobService(BlobService):
    """Asks its children in order; the first that has a blob gives it.

    A child that fails, or has a blob but corrupt, is passed over, unless it is `final`: then its error is the
    answer. A blob is absent if all children say so. A read that breaks goes on at the next child that has the
    blob, at the same position.

    Arguments:
        children: In the order in which they are asked.
        write_to: The name of the one that takes new blobs; by default the first.
        copy_to: The name of the one that gets what later ones had; by default none.
        workers: Where chunks are fetched ahead; without them none are.
        name: That of the instance, for errors.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        write_to: str | None = None,
        copy_to: str | None = None,
        workers: Workers | None = None,
        name: str = "fallback",
    ) -> None:
        by_name = {child.name: child for child in children}
        self._children = Children(name, children)
        self._target = children[0] if write_to is None else by_name[write_to]
        self._copier = None if copy_to is None else Copier(by_name[copy_to], name)
        self._source = RelayedChunks(self._children)
        self._workers = self._children.pool(workers)

    def has(self, digest: B3Digest) -> bool:
        """Tell whether a child has a blob or chunk."""
        return self._children.first(lambda child: child.service.has(digest) or None) is not None

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that no child has; each is asked only for what those before it lack."""
        return self._children.missing(digests)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks as the first child that has the blob does."""
        found = self._children.first(lambda child: child.service.chunks(digest))
        return None if found is None else found.value

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk at the first child that has it."""
        copier = self._copier
        if copier is None:
            return open_relayed(self._children, digest, workers=self._workers)
        answers: list[Found[Any]] = []
        reader = open_relayed(self._children, digest, watch=answers.append, workers=self._workers)
        if reader is None or copier.target not in answers[0].tally.missed:
            return reader
        return copier.copying(reader)

    def open_write(self) -> BlobWriter:
        """Start a new blob at the child that takes them."""
        return open_bounded(self._target)

    def health(self) -> tuple[ChildHealth, ...]:
        """Return how the children have been doing, in their order."""
        return tuple(child.health() for child in self._children.all)

    def capability(self, power: Callable[..., P]) -> P | None:
        """Return a power if its children make it possible.

        Chunks can always be read. They can be written, and what is written lasts, as the child that takes
        new blobs has it. Listing, deleting and asking for many at once needs it of all children.
        """
        answer: Any = None
        if power is ChunkSource:
            answer = self._source
        elif power is ChunkStore:
            store = self._target.service.capability(ChunkStore)
            answer = None if store is None else StoreInOne(self._source, self._target, store)
        elif power is Durable:
            answer = self._target.service.capability(Durable)
        elif power is BlobLister:
            listers = self._children.all_with(BlobLister)
            answer = None if listers is None else JoinedLister(listers)
        elif power is BlobDeleter:
            deleters = self._children.all_with(BlobDeleter)
            answer = None if deleters is None else JoinedDeleter(self._children.name, deleters)
        elif power is BatchExistence:
            answer = None if self._children.all_with(BatchExistence) is None else AskingForMany(self.missing)
        found: P | None = answer
        return found

    def close(self) -> None:
        """End the threads that watch deadlines."""
        self._children.close()
