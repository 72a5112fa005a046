"""Chunks that are read from any child and written to all, and how long what is written lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from castore import B3Digest, CastoreError, ChunkMeta
from castore.composites.members import Member, no_answer
from castore.composites.union import held
from castore.contract.capabilities import ChunkSource, ChunkStore, Durable
from castore.threads.pool import Pool
from castore_mirror.writing import Faults, collect_all

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

_REMEMBERED: Final = 100_000


class StoreInAll(ChunkStore):
    """Reads chunks through *source*, and writes them to the stores of all children.

    What enough children have taken is taken. A child that missed a chunk does not get the index of a blob
    that needs it, for the blob would be there and incomplete; it is healed afterwards.
    """

    def __init__(
        self,
        name: str,
        source: ChunkSource,
        stores: Sequence[tuple[Member, ChunkStore]],
        *,
        quorum: int,
        missed: Callable[[Member, B3Digest], object],
        pool: Pool,
    ) -> None:
        self._name = name
        self._source = source
        self._stores = stores
        self._quorum = quorum
        self._missed = missed
        self._pool = pool
        self.high_latency = source.high_latency
        self._behind = {member: _Behind() for member, _ in stores}

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether any child has a chunk."""
        return self._source.has_chunk(digest)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk of any child, `None` if it is absent."""
        return self._source.get_chunk(digest, size)

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where a child keeps a chunk."""
        return self._source.chunk_key(digest)

    def claim_chunk(self, digest: B3Digest) -> bool:
        """Tell whether all children that answer have a chunk, and enough of them answer."""
        faults: Faults = []
        for member, store in self._stores:
            try:
                if not member.call(lambda entry=store: entry.claim_chunk(digest)):  # type: ignore[misc]
                    return False
            except CastoreError as error:
                faults.append((member, error))
        self._settle(faults)
        self._note(faults, digest)
        return True

    def claim_blob(self, digest: B3Digest) -> bool:
        """Tell whether all children have a whole blob; one that fails leaves it to the writer to find out."""
        for member, store in self._stores:
            try:
                if not member.call(lambda entry=store: entry.claim_blob(digest)):  # type: ignore[misc]
                    return False
            except CastoreError:
                return False
        return True

    @contextmanager
    def _held(self) -> Iterator[None]:
        with ExitStack() as stack:
            for member, store in self._stores:
                # A child that cannot hold may lose chunks; that is found when they are read, and healed.
                with suppress(CastoreError):
                    stack.enter_context(held(member, store))
            yield

    def hold(self) -> AbstractContextManager[None]:
        """Keep what is put or claimed from collectors of garbage, at all children."""
        return self._held()

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Store a chunk at all children."""
        if any(member.timeout is not None for member, _ in self._stores):
            faults = self._put(digest, bytes(data))
        else:
            # A thread may keep its last task a moment longer, but no hold on the caller's buffer by it.
            with memoryview(data) as shared:
                faults = self._put(digest, shared)
        # First: who goes on without this chunk, as another mirror does, may still put the index of its blob.
        self._note(faults, digest)
        self._settle(faults)

    def _put(self, digest: B3Digest, data: Buffer) -> Faults:
        return self._at_all(lambda store: store.put_chunk(digest, data), self._stores)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible at all children that have its chunks."""
        wanted = {meta.digest for meta in chunks} or {digest}
        able, faults = [], []
        for member, store in self._stores:
            try:
                if member.call(lambda entry=member, at=store: self._behind[entry].has_all(at, wanted)):  # type: ignore[misc]
                    able.append((member, store))
                    continue
                error: CastoreError = CastoreError("it has missed some of the chunks")
            except CastoreError as fault:
                error = fault
            faults.append((member, error))
        faults += self._at_all(lambda store: store.put_index(digest, chunks), able)
        self._settle(faults)
        for member, _ in faults:
            self._missed(member, digest)

    def _at_all(self, ask: Callable[[ChunkStore], T], stores: Sequence[tuple[Member, ChunkStore]]) -> Faults:
        begun = [
            (member, member.begin(lambda entry=store: ask(entry), self._pool))  # type: ignore[misc]
            for member, store in stores
        ]
        return collect_all(begun)[1]

    def _settle(self, faults: Faults) -> None:
        if len(self._stores) - len(faults) < self._quorum:
            raise no_answer(self._name, faults)

    def _note(self, faults: Faults, digest: B3Digest) -> None:
        for member, _ in faults:
            self._behind[member].add(digest)


class _Behind:
    """The chunks that a child may have missed."""

    def __init__(self) -> None:
        self._digests: set[B3Digest] = set()
        self._any = False

    def add(self, digest: B3Digest) -> None:
        if len(self._digests) < _REMEMBERED:
            self._digests.add(digest)
        else:
            self._any = True

    def has_all(self, store: ChunkStore, wanted: set[B3Digest]) -> bool:
        """Tell whether the child has all chunks that it may have missed."""
        doubtful = wanted if self._any else wanted & self._digests
        for digest in doubtful:
            # Claimed, as a child with children of its own may have it where indexes are not put.
            if not store.claim_chunk(digest):
                return False
            self._digests.discard(digest)
        return True


class DurableByQuorum(Durable):
    """What survives at one child at least of any that may have made up the quorum."""

    def __init__(self, durability: Literal["process", "full"]) -> None:
        self._durability = durability

    @property
    def durability(self) -> Literal["process", "full"]:
        """The weakest promise that any quorum of children keeps."""
        return self._durability


def durability_of(members: Sequence[Member], quorum: int) -> Durable | None:
    """Return what a write that *quorum* of the children acknowledged survives, `None` if nothing is sure."""
    stated = [member.service.capability(Durable) for member in members]
    levels = [None if entry is None else entry.durability for entry in stated]
    # Of any `quorum` children one is durable if those that are not are fewer.
    if sum(level != "full" for level in levels) < quorum:
        return DurableByQuorum("full")
    if sum(level is None for level in levels) < quorum:
        return DurableByQuorum("process")
    return None
