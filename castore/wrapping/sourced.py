"""Chunks that come from a source: the base of what does more with them, or writes others elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.digest import B3Digest


class SourcedChunks(ChunkSource):
    """Reads chunks through *source*.

    A `ChunkStore` that also inherits from this says by itself where it writes.
    """

    def __init__(self, source: ChunkSource) -> None:
        self._source = source
        self.high_latency = source.high_latency

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that the source has."""
        return self._source.find_chunks(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks from there."""
        return self._source.get_chunks(sizes)

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where the source keeps a chunk."""
        return self._source.chunk_key(digest)
