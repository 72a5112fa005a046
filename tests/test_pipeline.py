"""The pipeline beside the sequential program: the same bytes, cuts, chunks and index at any size of the pool.

The sequential program is written here once more, from the format alone: cut, hash, compress, list.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import B3Digest, ChunkMeta
from castore.chunks import pipeline
from castore.chunks import read_ahead as reading
from castore.chunks import writer as writing
from castore.format import blob_index, frames
from castore.format.chunking import BUNDLED_CHUNKERS, Chunker
from castore.threads.pool import Pool
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

POOLS = {size: Pool(size) for size in range(9)}


@pytest.fixture(scope="module", autouse=True)
def _close_pools() -> Iterator[None]:
    yield
    for pool in POOLS.values():
        pool.close()


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of some KiB go through all that larger ones do: many segments, many runs."""
    monkeypatch.setattr(pipeline, "_SEGMENT_SIZE", 8 << 10)
    monkeypatch.setattr(pipeline, "_JOB_SIZE", 3 << 10)
    monkeypatch.setattr(writing, "_FIRST_SIZE", 1 << 10)
    monkeypatch.setattr(reading, "_RUN_SIZE", 3 << 10)
    monkeypatch.setattr(reading, "_MOST_AHEAD", 20 << 10)
    monkeypatch.setattr(reading, "_MOST_AT_HAND", 5 << 10)


def sequential(data: bytes, chunker: Chunker, level: int) -> dict[str, bytes]:
    """Return the objects that a store has when *data* is its only blob, by their keys."""
    metas = []
    objects = {}
    start = 0
    for length in chunker.cut(memoryview(data)):
        chunk = data[start : start + length]
        start += length
        digest = B3Digest.of(chunk)
        metas.append(ChunkMeta(digest, length))
        objects[_key("chunks", digest)] = frames.compress(chunk, level)
    digest = B3Digest.of(data)
    objects[_key("blobs", digest)] = blob_index.encode(metas if len(metas) > 1 else [])
    return objects


def _key(folder: str, digest: B3Digest) -> str:
    return f"{folder}/b3/{str(digest)[:4]}/{digest}"


def stored(folder: Path) -> dict[str, bytes]:
    """Return the objects that are in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in ("blobs", "chunks")
        for path in (folder / top).rglob("*")
        if path.is_file()
    }


def content(size: int, seed: int, repeats: int) -> bytes:
    """Return bytes some stretches of which come again, and which compress a little."""
    chance = random.Random(seed)
    part = bytes(chance.choices(range(64), k=size // repeats)) if size else b""
    return (part * (repeats + 1))[:size]


def in_pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    stream = io.BytesIO(data)
    while True:
        for size in sizes:
            piece = stream.read(size)
            if not piece:
                return
            yield piece


@given(
    size=st.one_of(st.integers(0, 3000), st.integers(0, 200_000)),
    seed=st.integers(0, 1000),
    repeats=st.integers(1, 5),
    avg_size=st.sampled_from([512, 777, 1024, 4096]),
    chunker=st.sampled_from(sorted(BUNDLED_CHUNKERS)),
    level=st.sampled_from([1, 3]),
    pool=st.sampled_from(sorted(POOLS)),
    pieces=st.lists(st.integers(1, 50_000), min_size=1, max_size=5),
    durability=st.sampled_from(["process", "full"]),
)
@settings(max_examples=150, deadline=None)
def test_the_pipeline_does_what_the_sequential_program_does(
    size: int,
    seed: int,
    repeats: int,
    avg_size: int,
    chunker: str,
    level: int,
    pool: int,
    pieces: list[int],
    durability: str,
) -> None:
    """However it is written, and by however many threads; and the bytes come back, however they are read."""
    data = content(size, seed, repeats)
    cutter = BUNDLED_CHUNKERS[chunker]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "store")
        service = ObjectStoreBlobService(
            LocalObjectStore(folder, instance="root", durability=durability),  # type: ignore[arg-type]
            chunker=cutter,
            avg_chunk_size=avg_size,
            compression_level=level,
            pool=POOLS[pool],
        )
        with service:
            with service.open_write() as writer:
                for piece in in_pieces(data, pieces):
                    writer.write(piece)
                digest = writer.close()
            assert digest == B3Digest.of(data)
            expected = sequential(data, cutter(avg_size), level)
            assert stored(folder) == expected

            file = Path(name, "file")
            file.write_bytes(data)
            assert service.put_file(file) == digest
            assert list(service.put_files([file, file])) == [digest, digest]
            assert stored(folder) == expected

            reader = service.open_read(digest)
            assert reader is not None
            with reader:
                assert b"".join(iter(lambda: reader.read1(pieces[0]), b"")) == data
            reader = service.open_read(digest)
            assert reader is not None
            with reader:
                assert reader.read() == data
