"""Chunks that are read from any member and written to one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from castore import B3Digest, ChunkMeta
from castore.composites.members import Member, periods, periods_of
from castore.composites.timed_writing import copies_of, leased
from castore.contract.capabilities import ChunkSource, ChunkStore
from castore.format.chunking import Chunker
from castore.threads.pool import Pool
from castore.wrapping.sourced import SourcedChunks

if TYPE_CHECKING:
    from typing_extensions import Buffer


class StoreInOne(SourcedChunks, ChunkStore):
    """Reads chunks through *source*, and writes them to the *store* of one member."""

    def __init__(self, source: ChunkSource, member: Member, store: ChunkStore) -> None:
        super().__init__(source)
        self._member = member
        self._store = store
        # With a timeout a call mostly waits for its end, on a thread that is none of the pool.
        self.high_latency = store.high_latency or member.timeout is not None
        self.round = store.round

    @property
    def pool(self) -> Pool:
        """The pool of the store, or what it has for tasks that mostly wait."""
        return self._store.pool.io_pool if self.high_latency else self._store.pool

    def new_chunker(self) -> Chunker:
        """Return what cuts as the store does."""
        return self._store.new_chunker()

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that the member that is written to has, so that they need not be sent."""
        wanted = digests if isinstance(digests, Collection) else list(digests)
        return self._member.call(lambda: self._store.claim(wanted), periods=periods(len(wanted)))

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return those of which the member that is written to has all."""
        return self._member.call(lambda: self._store.claim_blobs(blobs), periods=periods(len(blobs)))

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Store chunks there."""
        if self._member.timeout is None:
            self._member.call(lambda: self._store.put_chunks(chunks))
            return
        kept = copies_of(chunks)
        self._member.call(lambda: self._store.put_chunks(kept), periods=periods_of(map(len, kept.values())))

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible there."""
        self._member.call(lambda: self._store.put_indexes(blobs), periods=periods(len(blobs)))

    @contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        """Enter with such a store over what that member leases."""
        with leased(self._member, self._store, brief=brief) as store:
            yield StoreInOne(self._source, self._member, store)
