"""Several services, of which the first that has a blob gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from castore import B3Digest, BlobReader, BlobWriter
from castore.composites.failover_reading import FailoverChunks, open_with_failover
from castore.composites.members import Found, Member, MemberHealth, Members
from castore.composites.service import MembersBlobService
from castore.composites.timed_writing import open_timed
from castore.composites.union import UnionDeleter, UnionLister
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable
from castore.threads.pool import Pool
from castore_fallback.capabilities import StoreInOne
from castore_fallback.copying import Keeper

P = TypeVar("P")


class FallbackBlobService(MembersBlobService):
    """Asks its members in order; the first that has a blob gives it.

    A member that fails, or has a blob but corrupt, is passed over, unless it is `final`: then its error is
    the answer. A blob is absent if all members say so. A read that breaks goes on at the next member that has
    the blob, at the same position.

    Arguments:
        members: In the order in which they are asked.
        write_to: The name of the one that takes new blobs; by default the first.
        copy_to: The name of the one that gets what later ones had; by default none.
        pool: Where chunks are fetched ahead; without them none are.
        name: That of the instance, for errors.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        write_to: str | None = None,
        copy_to: str | None = None,
        pool: Pool | None = None,
        name: str = "fallback",
    ) -> None:
        by_name = {member.name: member for member in members}
        super().__init__(Members(name, members))
        self._target = members[0] if write_to is None else by_name[write_to]
        self._keeper = None if copy_to is None else Keeper(by_name[copy_to], name)
        watch = None if self._keeper is None else self._keeper.keep_missed
        self._source = FailoverChunks(self._members, watch=watch)
        self._pool = self._members.pool(pool)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk at the first member that has it."""
        keeper = self._keeper
        if keeper is None:
            return open_with_failover(self._members, digest, pool=self._pool)
        opened: list[Found[Any]] = []

        def watch(found: Mapping[B3Digest, Found[Any]]) -> None:
            for answer in found.values():
                if opened:
                    keeper.mend(answer, lambda: self._open_beside(keeper.target, digest))
                else:
                    opened.append(answer)

        reader = open_with_failover(self._members, digest, watch=watch, mended=keeper.target, pool=self._pool)
        if reader is None or not keeper.lacks(opened[0]):
            return reader
        return keeper.keeping(reader, opened[0])

    def _open_beside(self, target: Member, digest: B3Digest) -> BlobReader | None:
        others = [member for member in self._members.all if member is not target]
        return open_with_failover(Members(self._members.name, others), digest, pool=self._pool)

    def open_write(self) -> BlobWriter:
        """Start a new blob at the member that takes them."""
        return open_timed(self._target)

    def health(self) -> tuple[MemberHealth, ...]:
        """Return how the members have been doing, in their order."""
        return tuple(member.health() for member in self._members.all)

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability if its members make it possible.

        Chunks can always be read. They can be written, and what is written lasts, as the member that takes
        new blobs has it. Listing and deleting needs it of all members.
        """
        answer: Any = None
        if kind is ChunkSource:
            answer = self._source
        elif kind is ChunkStore:
            store = self._target.service.capability(ChunkStore)
            answer = None if store is None else StoreInOne(self._source, self._target, store)
        elif kind is Durable:
            answer = self._target.service.capability(Durable)
        elif kind is BlobLister:
            listers = self._members.all_with(BlobLister)
            answer = None if listers is None else UnionLister(listers)
        elif kind is BlobDeleter:
            deleters = self._members.all_with(BlobDeleter)
            answer = None if deleters is None else UnionDeleter(self._members.name, deleters)
        found: P | None = answer
        return found

    def close(self) -> None:
        """End the threads that watch deadlines."""
        self._members.close()
