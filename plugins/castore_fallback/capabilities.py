"""Chunks that are read from any child and written to one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from castore import B3Digest, ChunkMeta
from castore.composites.members import Member
from castore.composites.union import held
from castore.contract.capabilities import ChunkSource, ChunkStore

if TYPE_CHECKING:
    from typing_extensions import Buffer


class StoreInOne(ChunkStore):
    """Reads chunks through *source*, and writes them to the *store* of one child."""

    def __init__(self, source: ChunkSource, member: Member, store: ChunkStore) -> None:
        self._source = source
        self._child = member
        self._store = store
        self.high_latency = source.high_latency

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
        """Tell whether the child that is written to has a chunk, so that it need not be sent."""
        return self._child.call(lambda: self._store.claim_chunk(digest))

    def claim_blob(self, digest: B3Digest) -> bool:
        """Tell whether the child that is written to has a whole blob."""
        return self._child.call(lambda: self._store.claim_blob(digest))

    def hold(self) -> AbstractContextManager[None]:
        """Keep what is put or claimed there from collectors of garbage."""
        return held(self._child, self._store)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Store a chunk there."""
        # A call that is given up may look at the bytes long after the caller uses its buffer again.
        kept = data if self._child.timeout is None else bytes(data)
        self._child.call(lambda: self._store.put_chunk(digest, kept))

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible there."""
        self._child.call(lambda: self._store.put_index(digest, chunks))

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        """Make several blobs visible there."""
        self._child.call(lambda: self._store.put_indexes(blobs))
