"""What a service has, in numbers that add up."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import castore
from castore import B3Digest, BlobService, ChunkMeta, UnavailableError, UnsupportedError
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.contract.upkeep import Inventory, StoredItem
from castore.upkeep import Totals, total

BEGINNING = random.Random(1).randbytes(1 << 20)
LARGE = (BEGINNING, BEGINNING + random.Random(2).randbytes(1 << 20))


@pytest.fixture(params=["objectstore+file:{}", "objectstore+memory:", "sqlite:{}/blobs.sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobService:
    """An empty store that lists what it keeps item by item."""
    return castore.from_url(request.param.format(tmp_path))


def test_the_numbers_add_up(store: BlobService) -> None:
    """Blobs with and without finer chunks, one that shares, one that is empty, one chunk of no blob."""
    for data in (*LARGE, b"small", b""):
        store.write(data)
    chunks = store.capability(ChunkStore)
    chunks.put_chunk(B3Digest.of(b"loose"), b"loose")
    chunks.put_indexes({})
    metas = {meta for data in LARGE for meta in store.chunks(B3Digest.of(data))}
    seen: list[int] = []

    totals = total(store, progress=seen.append)

    items = list(store.capability(Inventory).list_items())
    assert (totals.blobs, totals.unreadable) == (4, 0)
    assert totals.blob_bytes == sum(seen) == sum(map(len, LARGE)) + 5
    assert totals.chunks == len(metas) + 1
    assert totals.chunk_bytes == sum(meta.size for meta in metas) + 5
    assert totals.loose_chunks == 1
    assert totals.stored_bytes == sum(item.size for item in items)
    assert totals.used_bytes + totals.loose_bytes == sum(i.size for i in items if i.kind == "chunk")
    assert 1.2 < totals.deduplication < 1.6
    assert 0.9 < totals.compression <= 1.0


def test_an_empty_store_has_no_ratios(store: BlobService) -> None:
    """Nothing is divided by nothing."""
    totals = total(store)

    assert (totals.blobs, totals.chunks, totals.stored_bytes) == (0, 0, 0)
    assert (totals.deduplication, totals.compression) == (None, None)


def test_a_service_that_only_lists_tells_no_bytes_stored(tmp_path: Path) -> None:
    """As a composite does; nor does `memory`."""
    with castore.from_url("memory:") as service:
        for data in LARGE:
            service.write(data)
        totals = total(service)

    assert (totals.blobs, totals.blob_bytes) == (2, sum(map(len, LARGE)))
    assert (totals.stored_bytes, totals.compression, totals.loose_chunks) == (None, None, None)
    assert totals.deduplication > 1.2


def test_a_blob_whose_size_is_not_known_is_counted_apart(tmp_path: Path) -> None:
    """One with an index that is none, one whose only chunk is gone."""
    store = castore.from_url(f"objectstore+file:{tmp_path}")
    store.write(b"right")
    large, small = store.write(LARGE[0]), store.write(b"small")
    (tmp_path / "blobs/b3" / str(large)[:4] / str(large)).write_bytes(b"no index")
    (tmp_path / "chunks/b3" / str(small)[:4] / str(small)).unlink()

    totals = total(store)

    assert (totals.blobs, totals.blob_bytes, totals.unreadable) == (1, 5, 2)
    assert totals.loose_chunks > 1


class Endless(BlobService, BlobLister, Inventory):
    """A service of very many blobs, made up as they are asked for."""

    def __init__(self, count: int, fails: bool = False) -> None:
        self.count = count
        self.fails = fails

    def list_blobs(self) -> Iterator[B3Digest]:
        return (B3Digest.of(b"%d" % number) for number in range(self.count))

    def list_items(self) -> Iterator[StoredItem]:
        for digest in self.list_blobs():
            yield StoredItem("index", f"blobs/{digest}", digest, 100)
        for digest in self.list_blobs():
            for meta in self.chunks(digest):
                yield StoredItem("chunk", f"chunks/{meta.digest}", meta.digest, 50)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta]:
        if self.fails:
            raise UnavailableError("endless", "gone")
        return [ChunkMeta(B3Digest.of(digest + end), 100) for end in (b"1", b"2")]

    def set_aside(self, item: StoredItem) -> str:
        raise NotImplementedError

    has = open_read = open_write = None


def test_memory_does_not_grow_with_the_service() -> None:
    """120,000 chunks would take more than 12 MB in a set."""
    tracemalloc.start()
    try:
        totals = total(Endless(60_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert totals == Totals(60_000, 12_000_000, 0, 120_000, 12_000_000, 6_000_000, 0, 0, 6_000_000, 0)
    assert peak < 6_000_000


def test_a_service_that_answers_no_more_ends_it() -> None:
    """The rest would fare no better."""
    with pytest.raises(UnavailableError, match="gone"):
        total(Endless(10_000, fails=True))


def test_a_service_that_lists_nothing_is_refused() -> None:
    """There is no other way."""
    stores = castore.Composition.from_mapping({"blobservices": {"root": {"type": "error"}}})
    with stores, pytest.raises(UnsupportedError, match="lists neither"):
        total(stores.blobs())
