"""Several services that hold the same blobs, of which some may fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from castore import B3Digest, BlobReader, BlobWriter
from castore.chunks.writer import ChunkedWriter
from castore.composites.failover_reading import FailoverChunks, open_with_failover
from castore.composites.hedging import Hedge
from castore.composites.members import Found, Member, MemberHealth, Members
from castore.composites.service import MembersBlobService
from castore.composites.union import UnionDeleter, UnionLister
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable
from castore.threads.pool import Pool
from castore_mirror.capabilities import StoreInAll, durability_of
from castore_mirror.healing import HealingQueue
from castore_mirror.mending import Mender
from castore_mirror.writing import MirrorWriter

P = TypeVar("P")


class MirrorBlobService(MembersBlobService):
    """Writes to all of its members, and reads from the first that has a blob.

    A blob is stored when *write_quorum* members have it, and absent when *miss_quorum* members say so and
    none has it; together they are more than all, so that what was stored is never called absent. What a
    member has missed, or is found to lack or to have corrupt, is copied to it in the background.

    Arguments:
        members: In the order in which they are read; new blobs are cut as the first one does.
        write_quorum: How many must have a blob for it to be stored.
        miss_quorum: How many must say that a blob is absent.
        hedge: When to ask the next member before the last has answered; `None`: never.
        queue: What waits to be copied.
        read_repair: Whether reads tell the queue what they find missing or corrupt.
        pool: Where members without a timeout are written to, and chunks fetched ahead.
        name: That of the instance, for errors.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        write_quorum: int,
        miss_quorum: int,
        hedge: Hedge | None = None,
        queue: HealingQueue | None = None,
        read_repair: bool = True,
        pool: Pool | None = None,
        name: str = "mirror",
    ) -> None:
        if not write_quorum + miss_quorum > len(members):
            raise ValueError("what was stored could be called absent: the quorums must be more than all")
        self._name = name
        super().__init__(Members(name, members, misses=miss_quorum, hedge=hedge))
        self._quorum = write_quorum
        self._pool = self._members.pool(pool)
        self._queue = HealingQueue(name) if queue is None else queue
        self._watch = self._repair if read_repair else None
        self._queue.start(Mender(name, members).heal)
        self._source = FailoverChunks(self._members, watch=self._watch)
        self._store = self._chunk_store()

    @property
    def queue(self) -> HealingQueue:
        """The blobs that wait to be copied."""
        return self._queue

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk at the first member that has it."""
        return open_with_failover(self._members, digest, watch=self._watch, pool=self._pool)

    def open_write(self) -> BlobWriter:
        """Start a new blob at all members: in chunks, if all of them keep some."""
        if self._store is not None:
            return ChunkedWriter(self._store)
        return MirrorWriter(
            self._name,
            self._members.all,
            quorum=self._quorum,
            missed=self._queue.add,
            pool=self._pool,
        )

    def health(self) -> tuple[MemberHealth, ...]:
        """Return how the members have been doing, in their order, and what they have missed."""
        return tuple(member.health(self._queue.waiting(member)) for member in self._members.all)

    def gauges(self) -> Mapping[str, float]:
        """Return how many blobs wait to be copied, what became of others, and how the members are."""
        health = self.health()
        return {
            "to_heal": sum(member.to_heal for member in health),
            "healed": self._queue.healed,
            "dropped": self._queue.dropped,
            "failing": sum(1 for member in health if member.failures),
            "abandoned": sum(member.abandoned for member in health),
            "is_degraded": float(not all(member.ok for member in health)),
        }

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability if its members make it possible.

        Chunks can always be read. What is written is durable if any members that make up a quorum keep it.
        All other capabilities take that of all members.
        """
        answer: Any = None
        if kind is ChunkSource:
            answer = self._source
        elif kind is ChunkStore:
            answer = self._store
        elif kind is Durable:
            answer = durability_of(self._members.all, self._quorum)
        elif kind is BlobLister:
            listers = self._members.all_with(BlobLister)
            answer = None if listers is None else UnionLister(listers)
        elif kind is BlobDeleter:
            deleters = self._members.all_with(BlobDeleter)
            answer = None if deleters is None else _Deleter(self._name, deleters, self._queue)
        found: P | None = answer
        return found

    def _chunk_store(self) -> ChunkStore | None:
        stores = self._members.all_with(ChunkStore)
        if stores is None:
            return None
        return StoreInAll(
            self._name,
            self._source,
            stores,
            quorum=self._quorum,
            missed=self._queue.add,
            pool=self._pool,
        )

    def _repair(self, found: Mapping[B3Digest, Found[Any]]) -> None:
        """Let what members lack, or have wrong, be copied to them; those that failed may have it."""
        for digest, answer in found.items():
            for member in answer.votes.missed:
                self._queue.add(member, digest)
            for member in answer.votes.corrupt:
                self._queue.add(member, digest, "corrupt")

    def close(self) -> None:
        """Copy what is due, as long as the deadline allows; end the threads."""
        self._queue.close()
        self._members.close()


class _Deleter(UnionDeleter):
    def __init__(self, name: str, members: Any, queue: HealingQueue) -> None:
        super().__init__(name, members)
        self._queue = queue

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob everywhere, also where it was to be copied."""
        self._queue.forget(digest)
        return super().delete(digest)
