"""What a collection removes and what it leaves, alone and beside writers that do their worst."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BadIndexError,
    BlobNotFoundError,
    BlobService,
    ChunkMeta,
    UnavailableError,
    UnsupportedError,
)
from castore.chunks import pipeline
from castore.chunks import writer as chunked_writer
from castore.contract.upkeep import StoredItem
from castore.threads.pool import Pool
from castore.upkeep import Collected, MissingRootsError, collect
from castore_memory.service import MemoryBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

FRESH = 40.0
GRACE = 100.0
LONG_AGO = 1_000_000.0
RANDOM = random.Random(3)


def data(size: int = 3000) -> bytes:
    return RANDOM.randbytes(size)


class Place:
    """A store in a folder, and services over it that cut small chunks."""

    def __init__(self, folder: Path, durability: Any = "process") -> None:
        self.folder = folder
        self.durability = durability
        self.blobs = self.service()

    def store(self) -> LocalObjectStore:
        return LocalObjectStore(
            self.folder, instance="files", durability=self.durability, fresh_seconds=FRESH
        )

    def service(self, store: LocalObjectStore | None = None, workers: int = 0) -> ObjectStoreBlobService:
        store = store or self.store()
        return ObjectStoreBlobService(store, avg_chunk_size=512, pool=Pool(workers))

    def put(self, *, shared: bytes = b"", size: int = 3000) -> B3Digest:
        """Store a blob long ago."""
        digest = self.blobs.write(shared + data(size))
        self.age()
        return digest

    def age(self, to: float = LONG_AGO) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file():
                os.utime(path, (to, to))

    @property
    def files(self) -> set[str]:
        names = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        return names - {"castore.lock"}

    def files_of(self, *digests: B3Digest) -> set[str]:
        """The files that these blobs are made of."""
        names = set()
        for digest in digests:
            names.add(f"blobs/b3/{digest.hex()[:4]}/{digest.hex()}")
            for meta in self.blobs.chunks(digest) or [ChunkMeta(digest, 0)]:
                names.add(f"chunks/b3/{meta.digest.hex()[:4]}/{meta.digest.hex()}")
        return names


@pytest.fixture(params=["process", "full"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return Place(tmp_path / "store", request.param)


def run(service: BlobService, *roots: B3Digest, **options: Any) -> Collected:
    return collect(service, roots, **{"grace_seconds": GRACE, "no_roots": True, **options})


class Interfering(ObjectStoreBlobService):
    """Does something of a test's, once, at a moment of a collection."""

    def __init__(self, store: LocalObjectStore, moment: str, act: Callable[[], object]) -> None:
        super().__init__(store, avg_chunk_size=512, pool=Pool(0))
        self.moment = moment
        self.act = act

    def reach(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            self.act()

    def leased_since(self) -> float | None:
        since = super().leased_since()
        self.reach("leases read")
        return since

    def list_items(self) -> Iterator[StoredItem]:
        self.reach("listing")
        kinds = set()
        for item in super().list_items():
            if item.kind == "chunk" and "chunk" not in kinds:
                self.reach("indexes listed")
            kinds.add(item.kind)
            yield item

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        items = list(items)
        self.reach(f"sweeping {items[0].kind}")
        yield from super().sweep(items, older_than=older_than)
        self.reach(f"swept {items[0].kind}")


MOMENTS = [
    "leases read",
    "listing",
    "indexes listed",
    "sweeping index",
    "swept index",
    "sweeping chunk",
    "swept chunk",
]


class TestWhatGoes:
    def test_what_no_root_reaches(self, place: Place) -> None:
        """The blobs that are roots stay, with chunks that others share; all else that is old goes."""
        shared = data(4000)
        kept, small, empty = place.put(shared=shared), place.put(size=10), place.put(size=0)
        gone, small_gone = place.put(shared=shared), place.put(size=11)
        stays, goes = place.files_of(kept, small, empty) & place.files, place.files_of(gone, small_gone)
        assert stays & goes

        collected = run(place.blobs, kept, small, empty)

        assert place.files == stays
        assert all(place.blobs.read(digest) for digest in (kept, small))
        assert not place.blobs.has(gone)
        assert collected.roots == 3
        assert collected.gone["index"].count == 2
        assert collected.gone["chunk"].count == len(goes - stays) - 2
        assert collected.kept("index").count == 3
        assert collected.kept("chunk").count == len(stays) - 3

    def test_a_second_run_finds_nothing(self, place: Place) -> None:
        kept = place.put()
        place.put()
        run(place.blobs, kept)

        again = run(place.blobs, kept)

        assert [amount.count for amount in again.gone.values()] == [0, 0, 0]

    def test_a_chunk_can_be_a_root(self, place: Place) -> None:
        """Then it stays, and the blob that it was a part of goes."""
        chunk = (place.blobs.chunks(place.put()) or ())[0].digest

        run(place.blobs, chunk)

        assert place.files == {place.blobs.chunk_key(chunk)}

    @pytest.mark.parametrize("young", [False, True])
    def test_the_chunk_that_is_the_whole_blob_stays(self, place: Place, young: bool) -> None:
        """Readers prefer it to the chunks that the index lists, one of which may be damaged."""
        content = data(5000)
        blob = place.blobs.write(content)
        damaged = place.folder / place.blobs.chunk_key((place.blobs.chunks(blob) or ())[1].digest)
        place.blobs.put_chunks({blob: content})
        place.blobs.flush()
        place.age()
        damaged.write_bytes(b"?")
        if young:
            os.utime(place.folder / place.blobs.index_key(blob))

        run(place.blobs, *([] if young else [blob]))

        assert place.blobs.find_chunks([blob]) == {blob}
        assert place.service().read(blob) == content

    def test_what_is_young_stays(self, place: Place) -> None:
        """It counts as a root, with its old chunks; so do chunks of no blob that are young themselves."""
        old = place.put()
        index = place.folder / f"blobs/b3/{old.hex()[:4]}/{old.hex()}"
        os.utime(index)
        place.blobs.put_chunk(B3Digest.of(b"alone"), b"alone")
        place.blobs.put_indexes({})
        before = place.files

        run(place.blobs)

        assert place.files == before

    @pytest.mark.parametrize(("age", "goes"), [(GRACE + FRESH + 20, True), (GRACE + FRESH - 20, False)])
    def test_the_grace_time(self, place: Place, age: float, goes: bool) -> None:
        """It counts from the last put or claim, and what a claim may have left as it was is added."""
        place.put()
        place.age(time.time() - age)

        for dry_run in (True, False):
            collected = run(place.blobs, dry_run=dry_run)
            assert (collected.gone["index"].count, collected.gone["chunk"].count > 0) == (goes, goes)
        assert (place.files == set()) is goes

    def test_the_clock_is_the_callers(self, place: Place) -> None:
        """Seen from a year later everything is old."""
        place.blobs.write(data())

        run(place.blobs, clock=lambda: time.time() + 365 * 86400)

        assert place.files == set()

    def test_a_rehearsal_removes_nothing_and_tells_the_same(self, place: Place) -> None:
        kept = place.put()
        place.put()
        before = place.files
        told: list[StoredItem] = []
        really: list[StoredItem] = []
        now = time.time()

        would = run(place.blobs, kept, dry_run=True, on_gone=told.append, clock=lambda: now)
        assert place.files == before
        assert run(place.blobs, kept, on_gone=really.append, clock=lambda: now) == would
        assert {item.key for item in told} == {item.key for item in really} == before - place.files

    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_many_at_once(self, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Threads and batches change nothing."""
        monkeypatch.setattr("castore.upkeep.collecting._BATCH", 3)
        place = Place(tmp_path)
        digests = [place.put() for _ in range(12)]
        stays = place.files_of(*digests[:6])
        pool = Pool(workers)

        run(place.blobs, *digests[:6], pool=pool)

        pool.close()
        assert place.files == stays

    def test_progress_is_the_bytes_that_were_looked_at(self, place: Place) -> None:
        place.put()
        sizes = sum((place.folder / name).stat().st_size for name in place.files)
        seen: list[int] = []

        run(place.blobs, progress=seen.append)

        assert sum(seen) == sizes


class TestResidue:
    def test_left_over_files_go_when_they_are_old(self, place: Place) -> None:
        kept = place.put()
        folder = place.folder / f"chunks/b3/{kept.hex()[:4]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{kept.hex()}#1").write_bytes(b"old")
        (place.folder / "blobs/b3/0000").mkdir()
        (place.folder / f"blobs/b3/0000/{'0' * 64}#7").write_bytes(b"old, too")
        place.age()
        young = folder / f"{kept.hex()}#2"
        young.write_bytes(b"young")

        collected = run(place.blobs, kept)

        assert [name for name in place.files if "#" in name] == [str(young.relative_to(place.folder))]
        assert (collected.gone["residue"].count, collected.gone["residue"].size) == (2, 11)

    def test_strangers_files_are_left(self, place: Place) -> None:
        """What castore never wrote it does not remove: a note, a chunk in a folder not its own."""
        place.put()
        (place.folder / "chunks/b3/README").write_bytes(b"do not remove")
        (place.folder / f"chunks/b3/{'0' * 64}").write_bytes(b"moved by somebody")
        place.age()

        run(place.blobs)

        assert place.files == {"chunks/b3/README", f"chunks/b3/{'0' * 64}"}

    def test_other_folders_are_not_looked_at(self, place: Place) -> None:
        """What verification has put into quarantine stays there."""
        place.put()
        (place.folder / "quarantine").mkdir()
        (place.folder / "quarantine/chunk").touch()
        place.age()

        run(place.blobs)

        assert place.files == {"quarantine/chunk"}


class TestRefusals:
    def test_without_roots(self, place: Place) -> None:
        place.put()
        before = place.files
        with pytest.raises(ValueError, match="no_roots"):
            collect(place.blobs, ())
        assert place.files == before

    def test_a_root_that_is_not_there(self, place: Place) -> None:
        """Nothing is removed; all of them are named."""
        kept = place.put()
        place.put()
        before = place.files
        strangers = sorted(B3Digest.of(bytes([number])) for number in range(3))

        with pytest.raises(MissingRootsError, match=f"{strangers[0]} and 2 more") as caught:
            run(place.blobs, kept, *strangers)

        assert place.files == before
        assert isinstance(caught.value, BlobNotFoundError)
        assert (caught.value.digest, caught.value.digests) == (strangers[0], strangers)
        with pytest.raises(MissingRootsError, match="no root is there") as caught:
            collect(place.blobs, strangers, ignore_missing_roots=True)
        assert caught.value.none_there
        assert place.files == before
        collected = collect(place.blobs, [kept, *strangers], ignore_missing_roots=True)
        assert collected.missing == strangers
        assert place.files == place.files_of(kept)

    def test_a_service_that_cannot_be_swept(self) -> None:
        with pytest.raises(UnsupportedError, match="cannot be swept"):
            run(MemoryBlobService())

    @pytest.mark.parametrize("grace", [-1.0, float("nan")])
    def test_a_grace_time_that_is_none(self, place: Place, grace: float) -> None:
        with pytest.raises(ValueError, match="grace time"):
            run(place.blobs, grace_seconds=grace)

    @pytest.mark.parametrize("young", [False, True])
    def test_a_damaged_index_that_is_to_stay(self, place: Place, young: bool) -> None:
        """A root, or a young one: nothing is removed, for it may need any chunk."""
        damaged = place.put()
        place.put()
        index = place.folder / f"blobs/b3/{damaged.hex()[:4]}/{damaged.hex()}"
        index.write_bytes(b"\xff")
        place.age()
        if young:
            os.utime(index)
        before = place.files

        with pytest.raises(BadIndexError, match="castore verify"):
            run(place.blobs, *(() if young else [damaged]))

        assert place.files == before

    def test_a_damaged_index_that_goes(self, place: Place) -> None:
        """Nobody needs to read it."""
        damaged = place.put()
        (place.folder / f"blobs/b3/{damaged.hex()[:4]}/{damaged.hex()}").write_bytes(b"\xff")
        place.age()

        run(place.blobs)

        assert place.files == set()

    def test_a_damaged_index_that_was_claimed_since(self, place: Place) -> None:
        """No chunk is removed: it is to stay now."""
        damaged = place.put()
        index = place.folder / f"blobs/b3/{damaged.hex()[:4]}/{damaged.hex()}"
        index.write_bytes(b"\xff")
        place.age()
        before = place.files

        with pytest.raises(BadIndexError, match="castore verify"):
            run(Interfering(place.store(), "sweeping index", lambda: os.utime(index)))

        assert place.files == before

    def test_a_store_that_fails(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """What could not be read is no reason to remove anything."""
        kept = place.put()
        place.put()
        before = place.files

        def fail(*_: object) -> bytes:
            raise UnavailableError("files", "the disk is gone")

        store = place.store()
        monkeypatch.setattr(store, "get", fail)
        monkeypatch.setattr(store, "read_into", fail)
        with pytest.raises(UnavailableError):
            run(place.service(store), kept)
        assert place.files == before


class TestWriters:
    """Each of them stores a blob at each moment of a collection, and afterwards it is there."""

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_a_blob_whose_garbage_is_being_collected(self, place: Place, moment: str) -> None:
        """Its old chunks and its old index are there, or half gone: it is stored again, and stays."""
        content = data()
        digest = place.blobs.write(content)
        place.put()
        place.age()

        run(Interfering(place.store(), moment, lambda: place.service().write(content)))

        assert place.blobs.read(digest) == content
        assert place.files == place.files_of(digest)

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_a_blob_that_shares_chunks_with_garbage(self, place: Place, moment: str) -> None:
        """The chunks that it finds there are not sent again."""
        shared = data(20_000)
        place.put(shared=shared)
        content = shared + data()

        run(Interfering(place.store(), moment, lambda: place.service().write(content)))

        assert place.blobs.read(B3Digest.of(content)) == content

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_a_writer_slower_than_the_grace_time(
        self, place: Place, moment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it has stored is old when the collection begins; its blob appears at any moment of that."""
        monkeypatch.setattr(pipeline, "_SEGMENT_SIZE", 1)
        monkeypatch.setattr(chunked_writer, "_FIRST_SIZE", 100)
        place.put()
        garbage = place.files
        content = data(20_000)
        writing = place.service()
        writer = writing.open_write()
        writer.write(content)
        if place.durability == "full":
            # As if so much had been written that it was flushed.
            writing._store._staging.publish()  # type: ignore[attr-defined]
        # Hours later:
        place.age(time.time() - 40_000)
        for name in garbage:
            os.utime(place.folder / name, (LONG_AGO, LONG_AGO))

        collected = run(Interfering(place.store(), moment, writer.close))

        assert collected.leased_since is not None
        assert collected.gone["index"].count == 1
        assert place.blobs.read(B3Digest.of(content)) == content

    def test_that_writer_without_its_lease(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """It loses its chunks: so the test above is one of leases."""
        monkeypatch.setattr(pipeline, "_SEGMENT_SIZE", 1)
        monkeypatch.setattr(chunked_writer, "_FIRST_SIZE", 100)
        place.put()
        content = data(20_000)
        store = place.store()
        monkeypatch.setattr(store, "lease", super(LocalObjectStore, store).lease)
        writer = place.service(store).open_write()
        writer.write(content)
        if place.durability == "full":
            store._staging.publish()  # type: ignore[union-attr]
        place.age(time.time() - 40_000)

        run(place.blobs)
        writer.close()

        with pytest.raises(Exception, match="missing"):
            place.blobs.read(B3Digest.of(content))

    def test_a_lease_that_was_taken_after_they_were_read(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its chunks come later than the cutoff, and stay, though their index is nowhere yet."""
        monkeypatch.setattr(pipeline, "_SEGMENT_SIZE", 1)
        monkeypatch.setattr(chunked_writer, "_FIRST_SIZE", 100)
        shared = data(20_000)
        place.put(shared=shared)
        content = shared + data(20_000)
        writer = place.service().open_write()

        run(Interfering(place.store(), "leases read", lambda: writer.write(content)), grace_seconds=0)
        writer.close()

        assert place.blobs.read(B3Digest.of(content)) == content

    def test_two_collections_at_once(self, place: Place) -> None:
        """One runs within the other: both end well, and what both keep is there."""
        kept = place.put()
        place.put()
        for moment in MOMENTS:
            place.put()
            inner: list[Collected] = []

            def other(inner: list[Collected] = inner) -> None:
                inner.append(run(place.service(), kept))

            outer = run(Interfering(place.store(), moment, other), kept)
            assert outer.gone["index"].count + inner[0].gone["index"].count >= 1
            assert place.files == place.files_of(kept)

    def test_indexes_go_before_chunks_and_for_good(self, place: Place) -> None:
        """At no moment is there an index whose chunks are gone; what is swept is flushed in between."""
        place.put()
        steps: list[str] = []

        class Watching(Interfering):
            def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
                for item in super().sweep(items, older_than=older_than):
                    steps.append(item.kind)
                    yield item

        store = place.store()
        flush = store.flush

        def flushing(last: Sequence[Any] = ()) -> None:
            steps.append("flush")
            flush(last)

        store.flush = flushing  # type: ignore[method-assign]
        run(Watching(store, "", lambda: None))

        order = [step for before, step in zip(["", *steps], steps, strict=False) if step != before]
        assert order == ["index", "flush", "chunk", "flush"]


class TestSweepsAndLocks:
    """The moment between looking at the time of a file and removing it."""

    @pytest.fixture
    def inside(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], threading.Thread]:
        """Run something in a thread, begun in that moment; the sweep goes on when it has had its chance."""

        def arrange(act: Callable[[], object]) -> threading.Thread:
            thread = threading.Thread(target=act)
            unlink = os.unlink

            def unlinking(path: Any, **options: Any) -> None:
                if "#" not in str(path) and threading.current_thread() is threading.main_thread():
                    monkeypatch.setattr(os, "unlink", unlink)
                    thread.start()
                    thread.join(1)
                unlink(path, **options)

            monkeypatch.setattr(os, "unlink", unlinking)
            return thread

        return arrange

    def test_a_chunk_that_is_claimed_in_that_moment(self, tmp_path: Path, inside: Any) -> None:
        """The claim waits, and then says that there is none."""
        place = Place(tmp_path)
        content = b"a chunk"
        digest = place.blobs.write(content)
        place.age()
        claims: list[bool] = []
        thread = inside(lambda: claims.append(place.service().claim_chunk(digest)))
        listed = [item for item in place.blobs.list_items() if item.kind == "chunk"]

        assert list(place.blobs.sweep(listed, older_than=time.time())) == listed
        thread.join(10)
        assert claims == [False]

    @pytest.mark.parametrize("durability", ["process", "full"])
    def test_a_file_that_is_replaced_in_that_moment(
        self, tmp_path: Path, inside: Any, durability: Any
    ) -> None:
        """The new one comes after the removal of the old one, and stays."""
        place = Place(tmp_path, durability)
        digest = place.blobs.write(b"a chunk")
        place.age()

        def put() -> None:
            service = place.service()
            service.put_chunk(digest, b"a chunk")
            service.put_indexes({})

        thread = inside(put)
        listed = [item for item in place.blobs.list_items() if item.kind == "chunk"]

        assert list(place.blobs.sweep(listed, older_than=time.time())) == listed
        thread.join(10)
        assert place.blobs.get_chunk(digest) == b"a chunk"

    @pytest.mark.parametrize("durability", ["process", "full"])
    def test_a_damaged_index_that_is_replaced_in_that_moment(
        self, tmp_path: Path, inside: Any, durability: Any
    ) -> None:
        """A blob that was acknowledged is there."""
        place = Place(tmp_path, durability)
        content = data()
        digest = place.blobs.write(content)
        (tmp_path / f"blobs/b3/{digest.hex()[:4]}/{digest.hex()}").write_bytes(b"\xff")
        place.age()
        thread = inside(lambda: place.service().write(content))

        run(place.blobs)

        thread.join(10)
        assert place.blobs.read(digest) == content
