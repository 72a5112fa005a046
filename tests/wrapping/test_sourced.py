"""Chunks that come from a source."""

from __future__ import annotations

from castore.testing import CHUNKS
from castore.wrapping.sourced import SourcedChunks
from castore_memory.service import MemoryBlobService


def test_all_comes_from_the_source() -> None:
    source = MemoryBlobService()
    chunk, other = CHUNKS[:2]
    source.put_chunk(chunk.digest, chunk.data)
    sourced = SourcedChunks(source)
    assert sourced.find_chunks([chunk.digest, other.digest]) == {chunk.digest}
    assert sourced.get_chunks({chunk.digest: None, other.digest: None}) == {chunk.digest: chunk.data}
    assert sourced.chunk_key(chunk.digest) == source.chunk_key(chunk.digest)
    assert not sourced.high_latency


def test_it_waits_as_the_source_does() -> None:
    source = MemoryBlobService()
    source.high_latency = True
    assert SourcedChunks(source).high_latency
