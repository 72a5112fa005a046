"""The `lru` type: bounds that hold, what goes first, what stays, and what is true after a restart."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castore_lru.config
from castore import (
    B3Digest,
    BlobService,
    BuildError,
    ChunkMeta,
    ClosedError,
    Composition,
    CompositionError,
    MissingChunkError,
    UnavailableError,
    UnsupportedError,
    from_url,
)
from castore.contract.capabilities import BlobDeleter, ChunkStore, EvictionEvents, FrameStore
from castore.contract.upkeep import Evictable, Inventory, Pinning, StoredItem, Sweepable
from castore.faults.service import FaultyService
from castore.testing import EMPTY, HELLO
from castore.threads.deadlines import Clock
from castore.threads.pool import Pool
from castore_lru import accounts, journal
from castore_lru.bounds import Amount, Bounds, Excess
from castore_lru.service import LruBlobService
from castore_memory.service import MemoryBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.locations import open_store
from castore_objectstore.service import ObjectStoreBlobService
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService
from castore_wrappers.breaker.service import BreakerService
from castore_wrappers.read_only.service import ReadOnlyService


def change(file: Path, statement: str) -> None:
    """Change a journal by another hand."""
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute(statement)


class Hand(Clock):
    """A clock that is set by hand; it starts when the test does, as the times of files do."""

    def __init__(self) -> None:
        self.time = time.time()

    def now(self) -> float:
        return self.time


def folder_in(folder: Path, durability: Any = "process", **options: Any) -> ObjectStoreBlobService:
    store = LocalObjectStore(folder / "store", instance="store", durability=durability)
    return ObjectStoreBlobService(store, avg_chunk_size=512, pool=Pool(0), **options)


def bucket() -> ObjectStoreBlobService:
    store = open_store("memory:", {}, base=Path("/"), instance="bucket")
    return ObjectStoreBlobService(store, avg_chunk_size=512, pool=Pool(0))


def sqlite_in(folder: Path) -> SqliteBlobService:
    database = Database(folder / "blobs.sqlite", instance="rows", durability="process")
    return SqliteBlobService(database, avg_chunk_size=512, pool=Pool(0))


CHILDREN: dict[str, Callable[[Path], BlobService]] = {
    "memory": lambda _: MemoryBlobService(),
    "folder": folder_in,
    "folder that defers": lambda folder: folder_in(folder, "full"),
    "bucket": lambda _: bucket(),
    "sqlite": sqlite_in,
    "behind a wrapper": lambda folder: BreakerService(folder_in(folder)),
}


@pytest.fixture(params=CHILDREN)
def child(request: pytest.FixtureRequest, tmp_path: Path) -> BlobService:
    return CHILDREN[request.param](tmp_path)


@pytest.fixture
def hand() -> Hand:
    return Hand()


def noise(size: int, seed: int) -> bytes:
    """Bytes that cannot be compressed."""
    return random.Random(seed).randbytes(size)


def meta_of(data: bytes) -> ChunkMeta:
    return ChunkMeta(B3Digest.of(data), len(data))


def items_of(service: BlobService) -> list[StoredItem]:
    kind = service.capability(Evictable)
    assert kind is not None
    return [item for item in kind.stored_items() if not item.foreign]


def bytes_of(service: BlobService) -> int:
    return sum(item.size or 0 for item in items_of(service))


def right_or_absent(service: BlobService, digest: B3Digest, data: bytes) -> bool:
    """Whether a blob is there; then it is right, and else there is no trace of it."""
    reader = service.open_read(digest)
    if reader is None:
        assert service.chunks(digest) is None
        return False
    with reader:
        assert reader.read() == data
    return True


def bounded(child: BlobService, clock: Clock | None = None, **bounds: Any) -> LruBlobService:
    if clock is None:
        return LruBlobService(child, Bounds(**bounds), name="near")
    return LruBlobService(child, Bounds(**bounds), name="near", clock=clock)


class TestBudgets:
    def test_bytes(self, child: BlobService) -> None:
        """What is there never takes more; what was written last is there."""
        with bounded(child, max_bytes=20_000) as service:
            for seed in range(30):
                data = noise(3000, seed)
                digest = service.write(data)
                assert bytes_of(child) <= 20_000
                assert service.read(digest) == data
            assert service.gauges()["evictions"] > 0
            assert service.gauges()["bytes"] <= 20_000

    def test_entries(self, child: BlobService) -> None:
        with bounded(child, max_entries=20) as service:
            for seed in range(30):
                service.write(noise(100, seed))
                assert len(items_of(child)) <= 20
            assert len(items_of(child)) > 10

    def test_the_low_watermark(self, child: BlobService) -> None:
        """Once something has to go, more goes: then nothing has to for a while."""
        with bounded(child, max_bytes=10_000, low_watermark=0.5) as service:
            evictions = []
            for seed in range(100):
                service.write(noise(200, seed))
                evictions.append(service.gauges()["evictions"])
            steps = [after - before for before, after in itertools.pairwise(evictions)]
            assert steps.count(0) > 3 * (len(steps) - steps.count(0))
            assert max(steps) >= 20

    def test_age(self, child: BlobService, hand: Hand) -> None:
        """What is not used gets too old; a use makes it young again. `has` is no use."""
        with bounded(child, hand, max_age=100.0) as service:
            old, used, asked = (service.write(noise(300, seed)) for seed in range(3))
            hand.time += 60
            service.read(used)
            assert service.has(asked)
            hand.time += 60
            assert [service.has(digest) for digest in (old, used, asked)] == [False, True, False]
            hand.time += 60
            assert service.open_read(used) is None

    def test_free_space(self, tmp_path: Path) -> None:
        """The file system has to have so much left; when others fill it, this one makes way."""
        service = folder_in(tmp_path)
        space = {"free": 100_000}
        used = lambda: space["free"] - bytes_of(service)  # noqa: E731
        service.free_bytes = used  # type: ignore[method-assign]
        with bounded(service, min_free=80_000) as lru:
            for seed in range(20):
                lru.write(noise(3000, seed))
                assert used() >= 80_000
            assert used() < 90_000
            space["free"] -= 10_000
            lru.write(noise(3000, 99))
            assert used() >= 80_000
            space["free"] = 0
            with pytest.raises(UnavailableError, match="no room for"):
                lru.write(noise(3000, 100))

    def test_a_blob_that_is_too_large(self, child: BlobService) -> None:
        """It is refused, nothing of it can be seen, and what else there is stays usable."""
        with bounded(child, max_bytes=10_000) as service:
            with pytest.raises(UnsupportedError, match="can never fit within max_bytes = 10000"):
                service.write(noise(30_000, 1))
            assert service.open_read(B3Digest.of(noise(30_000, 1))) is None
            assert service.gauges()["pinned"] == 0
            assert service.read(service.write(noise(5000, 2))) == noise(5000, 2)
            assert bytes_of(child) <= 10_000

    def test_the_largest_that_fits_memory(self) -> None:
        child = MemoryBlobService()
        with bounded(child, max_bytes=1000) as service:
            service.write(noise(1000, 1))
            assert service.has(service.write(noise(1000, 2)))
            with pytest.raises(UnsupportedError):
                service.write(noise(1001, 3))
            assert bytes_of(child) == 1000

    def test_several_bounds_at_once(self, tmp_path: Path, hand: Hand) -> None:
        child = folder_in(tmp_path)
        with bounded(child, hand, max_bytes=50_000, max_entries=40, max_age=1000.0) as service:
            for seed in range(50):
                hand.time += 10
                service.write(noise(1 + seed * 100, seed))
                assert bytes_of(child) <= 50_000
                assert len(items_of(child)) <= 40
            hand.time += 1001
            assert service.evict() > 0
            assert items_of(child) == []


class TestOrder:
    def test_what_was_not_used_for_longest_goes_first(self, child: BlobService, hand: Hand) -> None:
        with bounded(child, hand, max_bytes=3200, low_watermark=1.0) as service:
            blobs = [noise(200, seed) for seed in range(10)]
            digests = []
            for data in blobs:
                hand.time += 1
                digests.append(service.write(data))
            hand.time += 1
            service.read(digests[0])
            hand.time += 1
            for seed in range(10, 17):
                hand.time += 1
                service.write(noise(200, seed))
            there = [service.has(digest) for digest in digests]
            assert there[0]
            assert there == [True, *sorted(there[1:])]
            assert not there[1]

    def test_an_index_goes_before_its_chunks(self, tmp_path: Path) -> None:
        """At no moment is there an index without all of its chunks."""
        child = folder_in(tmp_path)
        seen = []
        remove = child.remove

        def looking(items: Any) -> None:
            remove(items)
            for digest in child.list_blobs():
                metas = child.chunks(digest) or ()
                seen.append([child.has_chunk(meta.digest) for meta in metas])
            remove([])

        child.remove = looking  # type: ignore[method-assign]
        with bounded(child, max_bytes=20_000) as service:
            for seed in range(20):
                service.write(noise(5000, seed))
        assert seen
        assert all(all(whole) for whole in seen)

    def test_a_shared_chunk_takes_all_its_blobs_along(self, tmp_path: Path, hand: Hand) -> None:
        """A blob whose chunk is gone is absent, however lately its index was used."""
        child = folder_in(tmp_path)
        shared = noise(4000, 1)
        with bounded(child, hand, max_bytes=1 << 20, max_age=100.0) as service:
            first, second = service.write(shared + b"1"), service.write(shared + b"2")
            hand.time += 90
            # Only the indexes are used by opening.
            for digest in (first, second):
                reader = service.open_read(digest)
                assert reader is not None
                reader.close()
            hand.time += 20
            assert not service.has(first)
            assert not service.has(second)
            assert service.chunks(first) is None
            assert items_of(child) == []

    @pytest.mark.parametrize("blobs", [True, False])
    def test_a_claim_is_a_use(self, child: BlobService, hand: Hand, blobs: bool) -> None:
        with bounded(child, hand, max_entries=5, low_watermark=1.0) as service:
            store = service.capability(ChunkStore)
            assert store is not None
            first = service.write(noise(200, 1))
            hand.time += 1
            second = service.write(noise(200, 2))
            hand.time += 1
            with store.lease() as leased:
                assert leased.claim_blobs({first: ()}) if blobs else leased.claim((first,))
            service.write(noise(200, 3))
            assert [service.has(digest) for digest in (first, second)] == [True, False]

    def test_a_chunk_that_is_a_blob_of_several_outlives_its_list(self, tmp_path: Path, hand: Hand) -> None:
        """The list goes with the chunks in it; it itself is young, and goes in its turn."""
        child = folder_in(tmp_path)
        data = noise(4000, 1)
        with bounded(child, hand, max_age=150.0) as service:
            digest = service.write(data)
            store = service.capability(ChunkStore)
            assert store is not None
            hand.time += 100
            store.put_chunk(digest, data)
            hand.time += 100
            assert service.evict() > 1
            assert [item.kind for item in items_of(child)] == ["chunk"]
            assert service.read(digest) == data
            assert service.gauges()["entries"] == 1
            hand.time += 400
            assert service.evict() == 1
            assert items_of(child) == []
            assert service._space._journal.connection.execute("SELECT * FROM parts").fetchall() == []

    def test_a_blob_is_gone_when_its_chunk_is(self, child: BlobService) -> None:
        """However blobs share chunks, each is right or absent at any time."""
        parts = [noise(1500, seed) for seed in range(8)]
        stored: dict[B3Digest, bytes] = {}
        rand = random.Random(3)
        with bounded(child, max_bytes=15_000) as service:
            for _ in range(35):
                data = b"".join(rand.sample(parts, rand.randint(1, 4)))
                stored[service.write(data)] = data
                for digest, content in rand.sample(sorted(stored.items()), min(5, len(stored))):
                    right_or_absent(service, digest, content)
                assert bytes_of(child) <= 15_000


class TestPins:
    def test_an_open_reader_keeps_its_blob(self, child: BlobService) -> None:
        """Read slowly to its end, while everything else is evicted."""
        data = noise(6000, 1)
        with bounded(child, max_bytes=14_000) as service:
            reader = service.open_read(service.write(data))
            assert reader is not None
            read = bytearray()
            for seed in range(2, 30):
                read += reader.read(250)
                service.write(noise(2000, seed))
                assert bytes_of(child) <= 14_000
            assert read + reader.read() == data
            reader.close()
            for seed in range(30, 40):
                service.write(noise(2000, seed))
            assert service.gauges()["pinned"] == 0
            assert not service.has(B3Digest.of(data))

    def test_a_reader_that_is_forgotten_lets_go(self, tmp_path: Path) -> None:
        with bounded(folder_in(tmp_path), max_bytes=1 << 20) as service:
            reader = service.open_read(service.write(noise(6000, 1)))
            assert service.gauges()["pinned"] > 0
            del reader
            gc.collect()
            assert service.gauges()["pinned"] == 0

    def test_pinned_by_the_capability(self, child: BlobService) -> None:
        """Before it is there, and until the context ends, also for a chunk alone."""
        data = noise(4000, 1)
        with bounded(child, max_bytes=12_000) as service:
            pinning = service.capability(Pinning)
            assert pinning is not None
            with pinning.pin({B3Digest.of(data)}):
                service.write(data)
                for seed in range(2, 20):
                    service.write(noise(2000, seed))
                assert service.read(B3Digest.of(data)) == data
                assert service.gauges()["pinned"] == 1
            for seed in range(20, 40):
                service.write(noise(2000, seed))
            assert not service.has(B3Digest.of(data))

    def test_no_room_beside_what_is_pinned(self, child: BlobService) -> None:
        """A clear error, and nothing of what was refused; there is room again afterwards."""
        with bounded(child, max_bytes=10_000) as service:
            pinning = service.capability(Pinning)
            assert pinning is not None
            with pinning.pin({service.write(noise(7000, 1))}):
                with pytest.raises(UnavailableError, match=r"`near` is unavailable: no room for .*pinned"):
                    service.write(noise(7000, 2))
                assert not service.has(B3Digest.of(noise(7000, 2)))
                assert service.read(B3Digest.of(noise(7000, 1))) == noise(7000, 1)
            service.write(noise(7000, 2))

    def test_what_is_written_stays_until_it_is_complete(self, child: BlobService) -> None:
        """A slow writer's chunks survive others' evictions."""
        data = noise(6000, 1)
        with bounded(child, max_bytes=20_000) as service, service.open_write() as writer:
            for start in range(0, 6000, 500):
                writer.write(data[start : start + 500])
                service.write(noise(2500, start + 7))
            digest = writer.close()
            assert service.read(digest) == data

    def test_what_a_writer_has_claimed_stays(self, child: BlobService) -> None:
        """Told that a chunk is there, it need not send it: it must be there when the index comes."""
        chunks = [noise(700, seed) for seed in range(4)]
        whole = b"".join(chunks)
        with bounded(child, max_bytes=9000) as service:
            store = service.capability(ChunkStore)
            assert store is not None
            metas = []
            with store.lease() as leased:
                for number, chunk in enumerate(chunks):
                    digest = B3Digest.of(chunk)
                    if number % 2:
                        leased.put_chunk(digest, chunk)
                    assert leased.claim_chunk(digest) is bool(number % 2)
                    if not number % 2:
                        leased.put_chunk(digest, chunk)
                    metas.append(meta_of(chunk))
                    for seed in range(10):
                        service.write(noise(900, seed + 100 * number + 1000))
                leased.put_index(B3Digest.of(whole), metas)
            assert service.read(B3Digest.of(whole)) == whole
            assert service.gauges()["pinned"] == 0

    def test_an_index_never_comes_after_its_chunk_is_evicted(self, child: BlobService) -> None:
        """Without a lease that can happen; then it is refused, by name, and can be stored again."""
        chunks = [noise(700, seed) for seed in range(3)]
        whole = b"".join(chunks)
        metas = [meta_of(chunk) for chunk in chunks]
        with bounded(child, max_bytes=5000) as service:
            store = service.capability(ChunkStore)
            assert store is not None
            for chunk in chunks:
                store.put_chunk(B3Digest.of(chunk), chunk)
            for seed in range(10, 20):
                service.write(noise(900, seed))
            with pytest.raises(UnavailableError, match=f"chunk {metas[0].digest} was evicted before blob"):
                store.put_index(B3Digest.of(whole), metas)
            assert not service.has(B3Digest.of(whole))
            with store.lease() as leased:
                for chunk in chunks:
                    leased.put_chunk(B3Digest.of(chunk), chunk)
                leased.put_index(B3Digest.of(whole), metas)
            assert service.read(B3Digest.of(whole)) == whole

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_nothing_goes_while_an_index_is_put(self, tmp_path: Path, moment: str) -> None:
        """Neither it nor its chunks, without any lease, and also if it was there before."""
        chunks = [noise(700, seed) for seed in range(3)]
        whole = b"".join(chunks)
        metas = [meta_of(chunk) for chunk in chunks]
        child = folder_in(tmp_path)
        put_indexes = child.put_indexes
        other = bounded(folder_in(tmp_path), max_bytes=1)

        def putting(blobs: Any) -> None:
            if moment == "before":
                other.evict()
            put_indexes(blobs)
            if moment == "after":
                other.evict()

        with bounded(child, max_bytes=1 << 20) as service, other:
            store = service.capability(ChunkStore)
            assert store is not None
            for time_ in ("first", "second"):
                for chunk in chunks:
                    store.put_chunk(B3Digest.of(chunk), chunk)
                # The other one is not to know these as being written any more.
                service.gauges()
                child.put_indexes = putting if time_ == "second" else put_indexes  # type: ignore[method-assign]
                store.put_index(B3Digest.of(whole), metas)
            assert service.read(B3Digest.of(whole)) == whole

    def test_an_aborted_writer_lets_go(self, child: BlobService) -> None:
        with bounded(child, max_bytes=10_000) as service:
            writer = service.open_write()
            writer.write(noise(6000, 1))
            writer.abort()
            for seed in range(2, 12):
                service.write(noise(5000, seed))
            assert service.gauges()["pinned"] == 0

    def test_a_writer_that_is_forgotten_lets_go(self, child: BlobService) -> None:
        with bounded(child, max_bytes=10_000) as service:
            writer = service.open_write()
            writer.write(noise(6000, 1))
            del writer
            gc.collect()
            for seed in range(2, 12):
                service.write(noise(5000, seed))
            assert service.gauges()["pinned"] == 0


class TestRestart:
    def test_the_budget_holds_after_a_restart(self, tmp_path: Path) -> None:
        """Filled, opened again and filled more: what three caches of today get wrong."""
        for kind in ("folder", "folder that defers", "sqlite"):
            place = tmp_path / kind
            for start in (0, 10, 20):
                child = CHILDREN[kind](place)
                with child, bounded(child, max_bytes=20_000) as service:
                    for seed in range(start, start + 10):
                        service.write(noise(3000, seed))
                        assert bytes_of(child) <= 20_000
                    assert service.gauges()["bytes"] == bytes_of(child)
                    assert service.read(B3Digest.of(noise(3000, start + 9))) == noise(3000, start + 9)

    def test_real_bytes_on_disk(self, tmp_path: Path) -> None:
        for start in (0, 20, 40):
            child = folder_in(tmp_path)
            with bounded(child, max_bytes=20_000) as service:
                for seed in range(start, start + 20):
                    service.write(noise(3000, seed))
            files = [path for path in (tmp_path / "store").rglob("*/b3/*/*") if path.is_file()]
            assert 10_000 < sum(path.stat().st_size for path in files) <= 20_000

    def test_how_lately_something_was_used_is_known_after_a_restart(self, tmp_path: Path, hand: Hand) -> None:
        digests = []
        with bounded(folder_in(tmp_path), hand, max_bytes=1 << 20) as service:
            for seed in range(4):
                hand.time += 1
                digests.append(service.write(noise(100, seed)))
        hand.time += 1
        with bounded(folder_in(tmp_path), hand, max_bytes=1 << 20) as service:
            # One that only reads notes it, too.
            service.read(digests[0])
        with bounded(folder_in(tmp_path), hand, max_entries=4) as service:
            hand.time += 1
            service.write(noise(100, 9))
            assert [service.has(digest) for digest in digests] == [True, False, False, False]

    def test_a_smaller_budget_holds_at_once(self, tmp_path: Path) -> None:
        with bounded(folder_in(tmp_path), max_bytes=1 << 20) as service:
            for seed in range(20):
                service.write(noise(3000, seed))
        child = folder_in(tmp_path)
        with bounded(child, max_bytes=9000) as service:
            service.evict()
            assert bytes_of(child) <= 9000
            assert service.gauges()["bytes"] == bytes_of(child)

    def test_a_store_that_was_there_before(self, child: BlobService) -> None:
        """Blobs that were put without it count, can be read, and go."""
        blobs = {child.write(noise(3000, seed)): noise(3000, seed) for seed in range(10)}
        with bounded(child, max_bytes=20_000) as service:
            service.evict()
            assert bytes_of(child) <= 20_000
            # Not more than needs to; which blobs that spares is open where many have the same time.
            assert bytes_of(child) > 10_000
            found = [right_or_absent(service, digest, data) for digest, data in blobs.items()]
            assert sum(found) <= 6

    def test_a_lost_journal_is_made_anew(self, tmp_path: Path) -> None:
        for damage in ("remove", "noise", "of another version"):
            with bounded(folder_in(tmp_path), max_bytes=20_000) as service:
                for seed in range(10):
                    service.write(noise(3000, seed))
            file = tmp_path / "store" / "lru" / "journal.sqlite"
            if damage == "remove":
                file.unlink()
            elif damage == "noise":
                file.write_bytes(noise(5000, 1))
            else:
                data = bytearray(file.read_bytes())
                data[63] = 99
                file.write_bytes(data)
            child = folder_in(tmp_path)
            with bounded(child, max_bytes=20_000) as service:
                service.write(noise(3000, 99))
                assert bytes_of(child) <= 20_000
                assert service.gauges()["bytes"] == bytes_of(child)

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM facts", "DELETE FROM facts WHERE name = 'scanned'", "UPDATE facts SET value = 'x'",
            "DELETE FROM totals", "INSERT INTO totals VALUES (0, 0)", "UPDATE totals SET size = 'much'",
            "DROP TABLE parts", "DROP TRIGGER item_goes", "DROP VIEW written",
            "CREATE TRIGGER more AFTER INSERT ON items BEGIN DELETE FROM items; END",
        ],
    )  # fmt: skip
    def test_a_journal_that_somebody_has_changed_is_made_anew(self, tmp_path: Path, statement: str) -> None:
        """What is always in it and is not there now, and what is never."""
        with bounded(folder_in(tmp_path), max_bytes=20_000) as service:
            service.write(noise(3000, 1))
        change(tmp_path / "store/lru/journal.sqlite", statement)
        child = folder_in(tmp_path)
        with bounded(child, max_bytes=20_000) as service:
            for seed in range(10):
                service.write(noise(3000, seed))
            assert bytes_of(child) <= 20_000
            assert service.gauges()["bytes"] == bytes_of(child)

    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO owners VALUES ('../../../victim')",
            "INSERT INTO owners VALUES ('../../victim')",
            "INSERT INTO owners VALUES ('victim')", "INSERT INTO owners VALUES (x'2e2e2f')",
            "INSERT INTO owners VALUES ('')", "INSERT INTO owners VALUES ('.')",
            "INSERT INTO owners VALUES (7)",
            "INSERT INTO owners VALUES ('0b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a')",
        ],
    )  # fmt: skip
    def test_names_of_owners_are_no_paths(self, tmp_path: Path, statement: str) -> None:
        """Whatever the journal says, no file goes but one that is empty and has the name of an owner."""
        with bounded(folder_in(tmp_path), max_bytes=20_000) as service:
            service.write(noise(3000, 1))
        lru = tmp_path / "store/lru"
        victims = [tmp_path / "victim", lru.parent / "victim", lru / "victim", lru / "owners/victim"]
        victims += [lru / "owners/0b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a"]
        for victim in victims:
            victim.write_bytes(b"mine" if "-" in victim.name else b"")
        change(lru / "journal.sqlite", statement)
        with bounded(folder_in(tmp_path), max_bytes=20_000) as service:
            service.write(noise(3000, 2))
        assert [victim for victim in victims if not victim.exists()] == []
        with contextlib.closing(sqlite3.connect(lru / "journal.sqlite")) as database:
            assert database.execute("SELECT * FROM owners").fetchall() == []

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE items SET digest = x'01' WHERE digest = (SELECT min(digest) FROM items)",
            "UPDATE items SET digest = 'text' WHERE digest = (SELECT min(digest) FROM items)",
            "DELETE FROM totals",
            "DELETE FROM facts",
            (
                "INSERT INTO holds (owner, kind, digests, sizes, size, entries, since)"
                " VALUES ('0b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a', 1, x'0102', '[1]', 5, 1, 0.0)"
            ),
        ],
    )
    def test_rows_that_are_none_are_an_error_of_the_journal(self, tmp_path: Path, statement: str) -> None:
        """While it is open; none of Python's own."""
        with contextlib.suppress(UnavailableError), bounded(folder_in(tmp_path), max_bytes=8_000) as service:
            service.write(noise(3000, 1))
            change(tmp_path / "store/lru/journal.sqlite", statement)
            change(
                tmp_path / "store/lru/journal.sqlite",
                "INSERT INTO owners VALUES ('0b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a')",
            )
            for seed in range(2, 6):
                with contextlib.suppress(UnavailableError):
                    service.write(noise(3000, seed))

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOLCK])
    def test_where_files_cannot_be_locked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """It keeps its bounds as if it were alone."""

        def flock(descriptor: int, mode: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        for _ in range(2):
            child = folder_in(tmp_path)
            with bounded(child, max_bytes=20_000) as service:
                for seed in range(10):
                    service.write(noise(3000, seed))
                assert bytes_of(child) <= 20_000
                assert service.read(B3Digest.of(noise(3000, 9))) == noise(3000, 9)

    def test_another_service_in_this_process_ends_no_lock(self, tmp_path: Path) -> None:
        """As it would if it opened and closed the journal: another process could take it for closed then."""
        file = tmp_path / "store/lru/journal.sqlite"
        program = (
            "import fcntl, sys; file = open(sys.argv[1], 'r+b');"
            "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)"
        )

        def is_open() -> bool:
            done = subprocess.run([sys.executable, "-c", program, file], check=False, capture_output=True)
            return done.returncode != 0

        with bounded(folder_in(tmp_path), max_bytes=20_000) as first:
            first.write(noise(3000, 1))
            assert is_open()
            with bounded(folder_in(tmp_path), max_bytes=20_000) as second:
                second.write(noise(3000, 2))
            assert is_open()
        assert not is_open()

    def test_the_database_of_another_program_stays(self, tmp_path: Path) -> None:
        """It is refused as it is, byte for byte."""
        file = tmp_path / "store/lru/journal.sqlite"
        file.parent.mkdir(parents=True)
        change(file, "CREATE TABLE theirs (a)")
        before = file.read_bytes()
        with bounded(folder_in(tmp_path), max_bytes=8_000) as service:
            with pytest.raises(UnavailableError, match=r"database of another program.*journal\.sqlite"):
                service.write(b"?")
            assert file.read_bytes() == before

    def test_what_is_no_database_is_moved_aside(self, tmp_path: Path) -> None:
        """It may be what a power cut has left of a journal, or anybody's."""
        file = tmp_path / "store/lru/journal.sqlite"
        file.parent.mkdir(parents=True)
        for number in (1, 2):
            file.write_bytes(b"notes %d" % number)
            with bounded(folder_in(tmp_path), max_bytes=8_000) as service:
                service.write(b"?")
            assert file.with_name(f"journal.sqlite~{number}").read_bytes() == b"notes %d" % number

    @pytest.mark.parametrize("where", ["files", "journal"])
    def test_times_to_come_keep_nothing(self, tmp_path: Path, where: str) -> None:
        """A clock was wrong: what was stored then goes in its turn, and not last of all."""
        to_come = time.time() + 1e8
        child = folder_in(tmp_path)
        if where == "files":
            for seed in range(3):
                child.write(noise(3000, seed))
            for path in (tmp_path / "store").rglob("*"):
                os.utime(path, (to_come, to_come))
        else:
            with bounded(child, max_bytes=20_000) as service:
                for seed in range(3):
                    service.write(noise(3000, seed))
            change(tmp_path / "store/lru/journal.sqlite", f"UPDATE items SET used = {to_come}")
        with bounded(folder_in(tmp_path), max_bytes=14_000) as service:
            new = [service.write(noise(3000, seed)) for seed in range(10, 13)]
            assert not service.missing(new)

    def test_after_the_machine_was_started_anew_all_is_looked_through(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A power cut may have kept an index and lost a chunk; and it may have damaged the journal."""
        data = noise(5000, 1)
        with bounded(folder_in(tmp_path), max_bytes=1 << 20) as service:
            digest = service.write(data)
            metas = service.chunks(digest)
            assert metas
        child = folder_in(tmp_path)
        child.remove([StoredItem("chunk", child.chunk_key(metas[1].digest), metas[1].digest)])
        for module in (accounts, journal):
            monkeypatch.setattr(module, "boot_id", lambda: "another start")
        with bounded(child, max_bytes=1 << 20) as service:
            service.evict()
            assert not service.has(digest)
            assert service.gauges()["bytes"] == bytes_of(child)

    def test_what_was_removed_behind_its_back_is_found_out_within_a_day(
        self, tmp_path: Path, hand: Hand
    ) -> None:
        child = folder_in(tmp_path)
        with bounded(child, hand, max_bytes=1 << 20) as service:
            for seed in range(5):
                service.write(noise(3000, seed))
        child.remove([item for item in items_of(child) if item.kind == "index" or hash(item.digest) % 2])
        hand.time += 86401
        with bounded(child, hand, max_bytes=1 << 20) as service:
            service.evict()
            assert service.gauges()["bytes"] == bytes_of(child)
            assert service.gauges()["entries"] == len(items_of(child))

    def test_using_it_after_close_opens_it_again(self, tmp_path: Path) -> None:
        service = bounded(folder_in(tmp_path), max_bytes=1 << 20)
        digest = service.write(noise(3000, 1))
        service.close()
        service.close()
        assert service.read(digest) == noise(3000, 1)
        service.write(noise(3000, 2))
        service.close()

    def test_a_write_that_another_thread_closes_it_under_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whichever of its steps the other one's end comes before."""
        service = bounded(folder_in(tmp_path), max_bytes=1 << 20)
        service.write(noise(3000, 1))
        accounts = service._space._accounts
        owner, opened, left = accounts._owner, accounts.open, [0]

        def closed_meanwhile() -> bool:
            found = opened()
            left[0] -= 1
            if left[0] == 0:
                accounts._owner = None
            return found

        monkeypatch.setattr(accounts, "open", closed_meanwhile)
        refused = 0
        for step in range(1, 6):
            left[0] = step
            try:
                service.write(noise(3000, 1 + step))
            except ClosedError:
                refused += 1
            accounts._owner = owner
        assert refused >= 2
        monkeypatch.undo()
        service.close()

    def test_two_threads_may_close_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other one's end comes after this one has begun, and neither fails."""
        service = bounded(folder_in(tmp_path), max_bytes=1 << 20)
        service.write(noise(3000, 1))
        flush = service._space._flush

        def closed_meanwhile() -> None:
            service._space._accounts.close()
            service._space._accounts.owner  # noqa: B018 - as a flush that has something asks for it
            flush()

        monkeypatch.setattr(service._space, "_flush", closed_meanwhile)
        service.close()


class TestAccounts:
    def test_the_gauges_are_what_is_there(self, child: BlobService) -> None:
        with bounded(child, max_bytes=1 << 20) as service:
            assert service.gauges() == {"bytes": 0, "entries": 0, "evictions": 0, "pinned": 0}
            for seed in range(5):
                service.write(noise(2000, seed))
            service.write(b"")
            there = {"bytes": bytes_of(child), "entries": len(items_of(child))}
            assert service.gauges() == {**there, "evictions": 0, "pinned": 0}

    def test_storing_again_changes_nothing(self, child: BlobService) -> None:
        with bounded(child, max_bytes=1 << 20) as service:
            service.write(noise(3000, 1))
            before = service.gauges()
            service.write(noise(3000, 1))
            assert service.gauges() == before

    def test_reading_makes_no_folder(self, tmp_path: Path) -> None:
        with bounded(folder_in(tmp_path), max_bytes=1000, max_age=1.0) as service:
            assert not service.has(HELLO.digest)
            assert service.open_read(HELLO.digest) is None
            assert service.open_read(EMPTY.digest) is not None
            assert service.missing([HELLO.digest]) == {HELLO.digest}
            assert service.gauges()["bytes"] == 0
        assert list(tmp_path.iterdir()) == []

    def test_what_is_swept_set_aside_or_put_as_a_frame_counts(self, tmp_path: Path) -> None:
        child = folder_in(tmp_path)
        with bounded(child, max_bytes=1 << 20) as service:
            first, second = service.write(noise(100, 1)), service.write(noise(100, 2))
            frames, sweeps = service.capability(FrameStore), service.capability(Sweepable)
            inventory = service.capability(Inventory)
            assert frames is not None
            assert sweeps is not None
            assert inventory is not None
            frame = frames.get_frames((first,))[first]
            assert isinstance(frame, bytes)
            frames.put_frames({first: frame})
            assert service.gauges()["bytes"] == bytes_of(child)
            for item in list(inventory.list_items()):
                if item.digest == first:
                    inventory.set_aside(item)
            assert service.gauges()["bytes"] == bytes_of(child) > 0
            assert len(list(sweeps.sweep(items_of(child), older_than=3e9))) == 2
            assert service.gauges()["entries"] == 0
            assert not service.has(second)

    def test_what_is_deleted_does_not_count(self) -> None:
        class Deleting(MemoryBlobService, BlobDeleter):
            def delete(self, digest: B3Digest) -> bool:
                self._chunks.pop(digest, None)
                return self._indexes.pop(digest, None) is not None

        with bounded(Deleting(), max_bytes=1000) as service:
            deleter = service.capability(BlobDeleter)
            assert deleter is not None
            digest = service.write(noise(900, 1))
            assert deleter.delete(digest)
            assert not deleter.delete(digest)
            assert service.gauges()["bytes"] == 0

    def test_evictions_are_told(self, child: BlobService) -> None:
        """Each digest that is absent by that, and nothing after one has stopped listening."""
        with bounded(child, max_bytes=8000) as service:
            events = service.capability(EvictionEvents)
            assert events is not None
            gone: list[B3Digest] = []
            stop = events.on_evict(gone.append)
            digests = [service.write(noise(1500, seed)) for seed in range(20)]
            assert {digest for digest in digests if not service.has(digest)} <= set(gone)
            assert not {digest for digest in digests if service.has(digest)} & set(gone)
            stop()
            stop()
            count = len(gone)
            for seed in range(20, 30):
                service.write(noise(1500, seed))
            assert len(gone) == count

    def test_a_put_that_fails_leaves_the_accounts_right(self, tmp_path: Path) -> None:
        """Whatever the store has kept of it."""
        child = FaultyService(folder_in(tmp_path))
        with bounded(child, max_bytes=1 << 20) as service:
            store = service.capability(ChunkStore)
            assert store is not None
            for failing in ({"put_chunks"}, {"put_indexes"}):
                child.failing = failing
                with pytest.raises(UnavailableError):
                    service.write(noise(5000, len(failing)))
                child.failing = set()
                assert service.gauges()["bytes"] == bytes_of(child)
                assert service.gauges()["pinned"] == 0

    def test_an_eviction_that_fails_is_an_error_and_no_more(self, tmp_path: Path) -> None:
        child = FaultyService(folder_in(tmp_path))
        with bounded(child, max_bytes=10_000) as service:
            service.write(noise(6000, 1))
            child.failing = {"remove"}
            with pytest.raises(UnavailableError):
                service.write(noise(6000, 2))
            child.failing = set()
            service.write(noise(6000, 3))
            assert service.gauges()["bytes"] == bytes_of(child) <= 10_000
            assert service.read(B3Digest.of(noise(6000, 3))) == noise(6000, 3)

    def test_a_chunk_that_is_lost_otherwise_is_an_error(self, tmp_path: Path) -> None:
        """Only what was evicted is absent: a store that has lost something must say so."""
        child = folder_in(tmp_path)
        with bounded(child, max_bytes=1 << 20) as service:
            digest = service.write(noise(5000, 1))
            metas = service.chunks(digest)
            assert metas
            child.remove([StoredItem("chunk", child.chunk_key(metas[1].digest), metas[1].digest)])
            with pytest.raises(MissingChunkError):
                service.read(digest)

    def test_a_blob_that_came_another_way_is_taken_note_of(self, tmp_path: Path) -> None:
        """Or refused as a whole if a chunk of it is not there."""
        child = folder_in(tmp_path)
        with bounded(child, max_bytes=1 << 20) as service:
            service.write(b"opens it")
            digest = child.write(noise(5000, 1))
            assert service.read(digest) == noise(5000, 1)
            assert service.gauges()["bytes"] == bytes_of(child)
            other = child.write(noise(5000, 2))
            metas = child.chunks(other)
            assert metas
            child.remove([StoredItem("chunk", child.chunk_key(metas[1].digest), metas[1].digest)])
            assert service.open_read(other) is None
            assert not service.has(other)

    def test_has_waits_for_nobody(self, tmp_path: Path) -> None:
        """Not while another process has the lock."""
        with bounded(folder_in(tmp_path), max_bytes=1 << 20) as service:
            digest = service.write(b"there")
            descriptor = os.open(tmp_path / "store" / "lru" / "lock", os.O_RDWR)
            with contextlib.closing(os.fdopen(descriptor)):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                assert service.has(digest)
                assert service.missing([digest]) == set()
                assert service.chunks(digest) == ()
                assert service.read(digest) == b"there"

    def test_a_lock_that_is_never_released_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal, "_TURN_SECONDS", 0.01)
        with bounded(folder_in(tmp_path), max_bytes=1 << 20) as service:
            service.write(b"there")
            descriptor = os.open(tmp_path / "store" / "lru" / "lock", os.O_RDWR)
            with contextlib.closing(os.fdopen(descriptor)):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                with pytest.raises(UnavailableError, match=r"another process has had .*/lock locked"):
                    service.write(b"more")
            service.write(b"more")


class TestBounds:
    """The arithmetic, by itself."""

    def test_what_has_to_go(self) -> None:
        bounds = Bounds(max_bytes=100, max_entries=10, min_free=50)
        there, coming = Amount(90, 9), Amount(10, 1)
        assert bounds.excess(there, coming, 60, 0) == Excess()
        assert bounds.excess(there, Amount(11, 2), 61, 0) == Excess(1, 1)
        assert bounds.excess(there, coming, 55, 0) == Excess(5, 0)
        assert Bounds(max_age=5).excess(there, coming, None, 12) == Excess(cutoff=7)

    def test_what_goes_as_well(self) -> None:
        bounds = Bounds(max_bytes=100, max_entries=10, min_free=50, low_watermark=0.8)
        assert bounds.wanted(Amount(90, 9), 70, 0) == Excess(10, 1)
        assert bounds.wanted(Amount(10, 1), 45, 0) == Excess(15, 0)

    def test_when_enough_is_gone(self) -> None:
        excess = Excess(10, 2, 5.0)
        assert not excess.met(Amount(10, 1), 9.0)
        assert not excess.met(Amount(9, 2), 9.0)
        assert not excess.met(Amount(10, 2), 4.0)
        assert excess.met(Amount(10, 2), 5.0)


@pytest.fixture
def config() -> Callable[..., Any]:
    def load(inner: Any = "&kept", **fields: Any) -> Composition:
        root = {"type": "lru", "inner": inner, **fields}
        tables = {"root": root, "kept": {"type": "memory"}}
        return Composition.from_mapping({"blobservices": tables})

    return load


class TestConfig:
    def test_its_example(self, tmp_path: Path) -> None:
        text = textwrap.dedent((castore_lru.config.__doc__ or "").partition("::\n")[2])
        (tmp_path / "composition.toml").write_text(text)
        with Composition.from_toml(tmp_path / "composition.toml") as stores:
            assert isinstance(stores.blobs(), LruBlobService)

    def test_sizes_and_durations_have_units(self, config: Callable[..., Any]) -> None:
        with config(max_bytes="512 MiB", max_age="7 d", max_entries=5, low_watermark=1) as stores:
            assert isinstance(stores.blobs(), LruBlobService)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "nothing is bounded: set `max_bytes`, `max_entries`, `max_age` or `min_free`"),
            ({"low_watermark": 0.5}, "nothing is bounded"),
            ({"max_bytes": 0}, "expected 1 to"),
            ({"max_bytes": 1, "low_watermark": 1.5}, "expected 0 to 1"),
            ({"max_age": "7 days"}, "did you mean `d`?"),
            ({"max_byte": 5}, "did you mean `max_bytes`?"),
        ],
    )
    def test_a_mistake_is_explained(
        self, config: Callable[..., Any], fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(CompositionError) as caught:
            config(**fields)
        assert message in str(caught.value)

    def test_around_something_that_cannot_remove(self) -> None:
        """It is refused when it is built, with the reason; and so is one around another `lru`."""
        for inner in (ReadOnlyService(MemoryBlobService()), bounded(MemoryBlobService(), max_bytes=5)):
            with pytest.raises(UnsupportedError, match="`near` cannot keep this service within bounds: it"):
                bounded(inner, max_bytes=5)

    def test_free_space_where_there_is_none(self, config: Callable[..., Any]) -> None:
        with config(min_free="1 GiB") as stores, pytest.raises(BuildError, match="leave out `min_free`"):
            stores.blobs()

    def test_no_url(self) -> None:
        with pytest.raises(CompositionError, match="lru"):
            from_url("lru:memory:")
