"""Lists of chunks that take 40 bytes for each."""

from __future__ import annotations

import pickle
import random
import tracemalloc

import pytest

from castore import B3Digest, ChunkMeta
from castore.contract.chunk_list import ChunkList

METAS = tuple(ChunkMeta(B3Digest.of(bytes([n])), n + 1) for n in range(10))


def test_a_list_is_a_sequence_of_its_chunks() -> None:
    chunks = ChunkList(METAS)
    assert chunks == METAS
    assert METAS == chunks  # noqa: SIM300 - asked the other way round
    assert list(chunks) == list(METAS)
    assert (len(chunks), chunks[0], chunks[-1], chunks[2:5]) == (10, METAS[0], METAS[-1], METAS[2:5])
    assert METAS[3] in chunks
    assert chunks != METAS[:-1]
    assert chunks != (*METAS[:-1], METAS[0])
    assert chunks != "text"
    with pytest.raises(IndexError, match="no chunk 10 of 10"):
        chunks[10]
    assert pickle.loads(pickle.dumps(chunks)) == METAS
    assert (ChunkList().size, len(ChunkList())) == (0, 0)
    assert repr(chunks) == "<ChunkList of 10 chunks, 55 bytes>"


def test_a_chunk_is_found_from_anywhere() -> None:
    """Also one that is there twice, and never one that two digests make up between them."""
    chunks = ChunkList((*METAS, METAS[3]))
    assert [chunks.find(METAS[3].digest, start) for start in (0, 3, 4, 10)] == [3, 3, 10, 10]
    assert chunks.find(METAS[0].digest, 5) == 0
    assert chunks.find(B3Digest.of(b"not there")) is None
    apart = b"".join(bytes(meta.digest) for meta in METAS[:2])[7:39]
    assert chunks.find(B3Digest(apart)) is None


@pytest.mark.parametrize("count", [1, 1000, 70_000])
def test_different_chunks_are_counted(count: int) -> None:
    dice = random.Random(count)
    digests = [dice.randbytes(32) for _ in range(count)]
    chunks = ChunkList()
    chunks.add([*digests, *digests[::2]], [1] * (count + len(digests[::2])))
    assert chunks.count_distinct() == count


def test_a_chunk_takes_less_than_64_bytes() -> None:
    digest = bytes(32)
    tracemalloc.start()
    chunks = ChunkList()
    for _ in range(100):
        chunks.add([digest] * 1000, [1000] * 1000)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 64 * len(chunks)
