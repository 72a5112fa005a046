"""Several services that hold the same blobs, of which some may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.composites.failover_reading import RelayedChunks, open_relayed
from castore.composites.hedging import Hedge
from castore.composites.members import Child, ChildHealth, Children, Found
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
from castore_mirror.healing import HealingQueue
from castore_mirror.mending import Mender
from castore_mirror.powers import StoreInAll, durability_of
from castore_mirror.writing import MirrorWriter

P = TypeVar("P")


class MirrorBlobService(BlobService):
    """Writes to all of its children, and reads from the first that has a blob.

    A blob is stored when *write_quorum* children have it, and absent when *miss_quorum* children say so and
    none has it; together they are more than all, so that what was stored is never called absent. What a child
    has missed, or is found to lack or to have corrupt, is copied to it in the background.

    Arguments:
        children: In the order in which they are read.
        write_quorum: How many must have a blob for it to be stored.
        miss_quorum: How many must say that a blob is absent.
        hedge: When to ask the next child before the last has answered; `None`: never.
        queue: What waits to be copied.
        read_repair: Whether reads tell the queue what they find missing or corrupt.
        workers: Where children without a timeout are written to, and chunks fetched ahead.
        name: That of the instance, for errors.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        write_quorum: int,
        miss_quorum: int,
        hedge: Hedge | None = None,
        queue: HealingQueue | None = None,
        read_repair: bool = True,
        workers: Workers | None = None,
        name: str = "mirror",
    ) -> None:
        if not write_quorum + miss_quorum > len(children):
            raise ValueError("what was stored could be called absent: the quorums must be more than all")
        self._name = name
        self._children = Children(name, children, misses=miss_quorum, hedge=hedge)
        self._quorum = write_quorum
        self._workers = self._children.pool(workers)
        self._queue = HealingQueue(name) if queue is None else queue
        self._watch = self._repair if read_repair else None
        self._queue.start(Mender(name, children).heal)
        self._source = RelayedChunks(self._children)

    @property
    def queue(self) -> HealingQueue:
        """The blobs that wait to be copied."""
        return self._queue

    def has(self, digest: B3Digest) -> bool:
        """Tell whether a child has a blob or chunk."""
        return self._children.first(lambda child: child.service.has(digest) or None) is not None

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are absent; each child is asked only for what those before it lack."""
        return self._children.missing(digests)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks as the first child that has the blob does."""
        found = self._children.first(lambda child: child.service.chunks(digest))
        return None if found is None else found.value

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk at the first child that has it."""
        watch = self._watch
        if watch is None:
            return open_relayed(self._children, digest, workers=self._workers)
        return open_relayed(
            self._children, digest, watch=lambda found: watch(digest, found), workers=self._workers
        )

    def open_write(self) -> BlobWriter:
        """Start a new blob at all children."""
        return MirrorWriter(
            self._name,
            self._children.all,
            quorum=self._quorum,
            missed=self._queue.add,
            workers=self._workers,
        )

    def health(self) -> tuple[ChildHealth, ...]:
        """Return how the children have been doing, in their order, and what they have missed."""
        return tuple(child.health(self._queue.waiting(child)) for child in self._children.all)

    def gauges(self) -> Mapping[str, float]:
        """Return how many blobs wait to be copied, what became of others, and how the children are."""
        health = self.health()
        return {
            "to_heal": sum(child.to_heal for child in health),
            "healed": self._queue.healed,
            "dropped": self._queue.dropped,
            "failing": sum(1 for child in health if child.failures),
            "abandoned": sum(child.abandoned for child in health),
            "is_degraded": float(not all(child.ok for child in health)),
        }

    def capability(self, power: Callable[..., P]) -> P | None:
        """Return a power if its children make it possible.

        Chunks can always be read. What is written is durable if any children that make up a quorum keep it.
        All other powers take that of all children.
        """
        answer: Any = None
        if power is ChunkSource:
            answer = self._source
        elif power is ChunkStore:
            answer = self._chunk_store()
        elif power is Durable:
            answer = durability_of(self._children.all, self._quorum)
        elif power is BlobLister:
            listers = self._children.all_with(BlobLister)
            answer = None if listers is None else JoinedLister(listers)
        elif power is BlobDeleter:
            deleters = self._children.all_with(BlobDeleter)
            answer = None if deleters is None else _Deleter(self._name, deleters, self._queue)
        elif power is BatchExistence:
            answer = None if self._children.all_with(BatchExistence) is None else AskingForMany(self.missing)
        found: P | None = answer
        return found

    def _chunk_store(self) -> ChunkStore | None:
        stores = self._children.all_with(ChunkStore)
        if stores is None:
            return None
        return StoreInAll(
            self._name,
            self._source,
            stores,
            quorum=self._quorum,
            missed=self._queue.add,
            workers=self._workers,
        )

    def _repair(self, digest: B3Digest, found: Found[Any]) -> None:
        """Let what children lack, or have wrong, be copied to them; those that failed may have it."""
        for child in found.tally.missed:
            self._queue.add(child, digest)
        for child in found.tally.corrupt:
            self._queue.add(child, digest, "corrupt")

    def close(self) -> None:
        """Copy what is due, as long as the deadline allows; end the threads."""
        self._queue.close()
        self._children.close()


class _Deleter(JoinedDeleter):
    def __init__(self, name: str, children: Any, queue: HealingQueue) -> None:
        super().__init__(name, children)
        self._queue = queue

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob everywhere, also where it was to be copied."""
        self._queue.forget(digest)
        return super().delete(digest)
