"""Reading through members that cut differently, or of which one keeps no chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobReader, BlobService, CorruptBlobError, MissingChunkError, UnavailableError
from castore.composites.failover_reading import FailoverChunks
from castore.composites.members import Member, Members
from castore.contract.capabilities import ChunkStore
from castore.faults import READS, FaultyService
from castore.format.chunking import FastCdc2020
from castore.testing import P3M
from castore.threads.pool import Pool
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.healing import HealingQueue
from castore_mirror.service import MirrorBlobService
from castore_objectstore.locations import open_store
from castore_objectstore.service import ObjectStoreBlobService


class Cutting(MemoryBlobService):
    """Cuts into chunks of another average size than others; counts how often blobs are opened."""

    def __init__(self, average: int) -> None:
        super().__init__()
        self.average = average
        self.opened = 0

    def new_chunker(self) -> FastCdc2020:
        return FastCdc2020(self.average)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        self.opened += 1
        return super().open_read(digest)


def failover(first: BlobService, second: BlobService) -> FailoverChunks:
    """Return the chunks of P3M as *first* has cut it, through both."""
    members = Members("root", [Member("a", first), Member("b", second)])
    chunks = first.chunks(P3M.digest)
    assert chunks
    return FailoverChunks(members, blob=P3M.digest, chunks=chunks)


@pytest.fixture
def cut() -> tuple[Cutting, Cutting]:
    """Two that have P3M in chunks of different sizes."""
    stores = Cutting(64 << 10), Cutting(256 << 10)
    for store in stores:
        store.write(P3M.data)
        store.opened = 0
    return stores


def test_chunks_are_cut_out_of_another_cut_by_one_reader(cut: Any) -> None:
    """Also those that lie apart; a chunk that is there at the other needs no cutting."""
    first, second = cut
    metas = list(dict.fromkeys(first.chunks(P3M.digest)))
    wanted = metas[::2]
    for meta in wanted:
        del first._chunks[meta.digest]
    found = failover(first, second).get_chunks({meta.digest: meta.size for meta in metas})
    assert all(isinstance(data, bytes) for data in found.values())
    assert {digest: B3Digest.of(data) for digest, data in found.items()} == {
        meta.digest: meta.digest for meta in metas
    }
    assert second.opened == 1


@pytest.mark.parametrize("damage", ["shorter", "other", "gone", "down"])
def test_each_chunk_has_its_own_fault(cut: Any, damage: str) -> None:
    """Where the other cannot give it; the rest are had all the same."""
    first, second = cut
    metas = list(dict.fromkeys(first.chunks(P3M.digest)))
    lost, had = [metas[0], metas[-1]], metas[1:-1]
    for meta in lost:
        del first._chunks[meta.digest]
    behind: BlobService = second
    if damage == "down":
        behind = FaultyService(second, READS, instance="b")
    elif damage == "gone":
        second._indexes.clear()
        second._chunks.clear()
    else:
        # A blob of this name that is another one.
        data = P3M.data[:1000] if damage == "shorter" else P3M.data[::-1]
        chunks = second.chunks(second.write(data))
        second._indexes[P3M.digest] = chunks
        if not chunks:
            second._chunks[P3M.digest] = data
    found = failover(first, behind).get_chunks({meta.digest: meta.size for meta in metas})
    assert all(found[meta.digest] == first._chunks[meta.digest] for meta in had)
    faults = [found.get(meta.digest) for meta in lost]
    kind = {"down": UnavailableError, "gone": MissingChunkError}.get(damage, CorruptBlobError)
    assert all(isinstance(fault, kind) for fault in faults)


DATA: Final = {size: P3M.data[:size] for size in (0, 10, 100_000, 1_500_000, len(P3M.data))}
KINDS: Final = (str(64 << 10), str(2 << 20), "memory", "whole")
"""Object stores by their average size of a chunk, one in memory, and one that keeps no chunks."""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[[str], BlobService]]:
    """Make services of these kinds."""
    made: list[BlobService] = []

    def make(kind: str) -> BlobService:
        if kind == "memory":
            return MemoryBlobService()
        if kind == "whole":
            return FaultyService(MemoryBlobService(), capabilities=False)
        store = open_store(f"file:{tmp_path / str(len(made))}", {}, base=tmp_path, instance="store")
        made.append(ObjectStoreBlobService(store, avg_chunk_size=int(kind), pool=Pool(0)))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.mark.parametrize("kinds", [*itertools.permutations(KINDS, 2)], ids="-".join)
def test_members_that_cut_differently(places: Any, kinds: tuple[str, str]) -> None:
    """A mirror of them stores and reads; each alone has all of it, cut as the first one does."""
    services = [places(kind) for kind in kinds]
    members = [Member(name, service) for name, service in zip("ab", services, strict=True)]
    queue = HealingQueue(limit=0)
    mirror = MirrorBlobService(members, write_quorum=2, miss_quorum=1, queue=queue)
    store = mirror.capability(ChunkStore)
    assert (store is None) == ("whole" in kinds)
    blobs = {mirror.write(data): data for data in DATA.values()}
    for reader in (mirror, *services, FallbackBlobService(members)):
        assert {digest: reader.read(digest) for digest in blobs} == blobs
        assert reader.missing(blobs) == set()
    if store is not None:
        assert [services[0].chunks(digest) for digest in blobs] == [
            services[1].chunks(digest) for digest in blobs
        ]
        # The one that has it from the other claims it as its own.
        assert all(service.capability(ChunkStore).claim_blobs(dict.fromkeys(blobs)) for service in services)
    mirror.close()


@pytest.mark.parametrize("kinds", [*itertools.combinations(KINDS, 2)], ids="-".join)
def test_a_fallback_reads_what_each_has_cut_in_its_own_way(places: Any, kinds: tuple[str, str]) -> None:
    """Also when the first breaks in the middle of a blob."""
    first, second = (FaultyService(places(kind), instance=kind) for kind in kinds)
    data = P3M.data + P3M.data[:2_000_000]
    digest = first.write(data)
    assert second.write(data) == digest
    service = FallbackBlobService([Member("a", first), Member("b", second)])
    reader = service.open_read(digest)
    assert reader is not None
    with reader:
        got = reader.read(3_000_000)
        first.failing |= READS
        assert got + reader.read() == data
