"""Collecting garbage in packs: what is rooted stays at any moment, the rest goes, and space comes back."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import B3Digest, BlobService, ChunkMeta, CorruptBlobError, UnavailableError
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Sweepable
from castore.format import packs
from castore.threads.pool import Pool
from castore.upkeep import Collected, collect, repair, verify
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.looks import PACKS
from castore_objectstore.object_store import StoredObject
from castore_objectstore.packed.service import SweepablePacks

DAY = 86400.0


class Watched(LocalObjectStore):
    """Calls somebody before each thing that it does, with its name and the key."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, instance="store", durability="process", layout=PACKS)
        self.before: Callable[[str, str], object] = lambda call, key: None

    def put_pieces(self, key: str, pieces: Any) -> None:
        self.before("put", key)
        super().put_pieces(key, pieces)
        self.before("after put", key)

    def sweep(self, objects: Iterable[StoredObject], older_than: float) -> Iterator[StoredObject]:
        for each in objects:
            self.before("sweep", each.key)
            yield from super().sweep((each,), older_than)

    def claim(self, key: str, *args: Any) -> bool:
        self.before("claim", key)
        return super().claim(key, *args)

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.before("remove", key)
            super().remove((key,))

    def list(self, prefix: str, **kwargs: Any) -> Iterator[StoredObject]:
        self.before("list", prefix)
        yield from super().list(prefix, **kwargs)


def opened(folder: Path, **kwargs: Any) -> SweepablePacks:
    options = {"pack_size": 64 << 10, "avg_chunk_size": 1024, "pool": Pool(0), **kwargs}
    return SweepablePacks(Watched(folder), instance="store", **options)


def store_of(service: SweepablePacks) -> Watched:
    assert isinstance(service._store, Watched)
    return service._store


def grow_old(folder: Path) -> None:
    """Let everything be two days older."""
    for path in folder.rglob("*"):
        if path.is_file():
            seconds = path.stat().st_mtime - 2 * DAY
            os.utime(path, (seconds, seconds))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("packs/*/*"))


def collected(service: BlobService, roots: Iterable[B3Digest], **kwargs: Any) -> Collected:
    return collect(service, roots, grace_seconds=DAY, no_roots=True, **kwargs)


def require(folder: Path, there: dict[B3Digest, bytes], gone: Iterable[B3Digest] = ()) -> None:
    """Fail unless a service that knows nothing yet finds some blobs, and does not find others."""
    service = opened(folder)
    for digest, data in there.items():
        assert service.read(digest) == data
    assert service.missing(gone) == set(gone)
    assert verify(service).findings == []


def data_of(number: int, size: int = 3000) -> bytes:
    return random.Random(number).randbytes(size)


def put(service: BlobService, numbers: Iterable[int], size: int = 3000) -> dict[B3Digest, bytes]:
    return {service.write(data_of(number, size)): data_of(number, size) for number in numbers}


def put_together(service: SweepablePacks, blobs: Iterable[bytes]) -> dict[B3Digest, bytes]:
    """Put blobs into as few packs as can be."""
    found = {B3Digest.of(data): data for data in blobs}
    with service.lease(brief=True) as leased:
        leased.put_chunks(found)
        leased.put_indexes(dict.fromkeys(found, ()))
    return found


def store_twice(folder: Path, blobs: Iterable[bytes]) -> dict[B3Digest, bytes]:
    """Have two services store the same at once."""
    found = {B3Digest.of(data): data for data in blobs}
    services = [opened(folder), opened(folder)]
    with services[0].lease(brief=True) as one, services[1].lease(brief=True) as two:
        one.put_chunks(found)
        # In another order, as packs of the same bytes are one.
        two.put_chunks(dict(reversed(found.items())))
        for service in services:
            # Neither looks for what the other one has by now.
            service._claim_records = lambda *_: {}  # type: ignore[method-assign]
        for each in (one, two):
            each.put_indexes(dict.fromkeys(found, ()))
    return found


class TestWhatGoes:
    def test_half_of_it_goes_and_its_space_comes_back(self, tmp_path: Path) -> None:
        """One run: at most 1.15 times what stays is stored; at most twice what is freed is written."""
        service = opened(tmp_path)
        blobs: dict[B3Digest, bytes] = {}
        for start in range(0, 400, 20):
            blobs |= put_together(service, (data_of(number) for number in range(start, start + 20)))
        chance = random.Random(4)
        roots = dict(chance.sample(sorted(blobs.items()), 200))
        grow_old(tmp_path)
        before, written = size_of(tmp_path), [0]

        def note(call: str, key: str) -> None:
            if call == "after put" and key.startswith("packs/"):
                written[0] += (tmp_path / key).stat().st_size

        store_of(service).before = note
        found = collected(service, roots)
        assert found.gone["index"].count == 200
        assert size_of(tmp_path) <= 1.15 * 200 * 3100
        assert written[0] <= 2 * (before - size_of(tmp_path))
        require(tmp_path, roots, blobs.keys() - roots.keys())
        for digest, data in roots.items():
            assert service.read(digest) == data

    def test_all_of_it_goes(self, tmp_path: Path) -> None:
        """No pack is left, and what was said of their records goes with the next run."""
        service = opened(tmp_path)
        blobs = put(service, range(20), size=9000)
        grow_old(tmp_path)
        found = collected(service, ())
        assert found.gone["index"].count == 20
        assert size_of(tmp_path) == 0
        require(tmp_path, {}, blobs)
        collected(opened(tmp_path), ())
        assert list(tmp_path.glob("dead/*/*")) == []

    def test_what_is_young_stays(self, tmp_path: Path) -> None:
        """Blobs, and the old chunks that they share with others."""
        service = opened(tmp_path)
        old = put(service, range(3), size=40_000)
        grow_old(tmp_path)
        young = {}
        for data in old.values():
            more = data + b"more"
            young[service.write(more)] = more
        found = collected(service, ())
        assert found.too_new["index"].count >= 3
        require(tmp_path, young)

    def test_what_was_put_since_somebody_has_a_lease_stays(self, tmp_path: Path) -> None:
        """However long ago that is."""
        service = opened(tmp_path)
        with service.lease() as leased:
            leased.put_chunks({B3Digest.of(b"waits"): b"waits"})
            leased.put_indexes({})
            # The lease is older than the pack, and both are older than the grace time.
            grow_old(tmp_path)
            grow_old(tmp_path / "leases")
            found = collected(opened(tmp_path), ())
            assert found.leased_since is not None
            leased.put_indexes({B3Digest.of(b"waits"): ()})
        require(tmp_path, {B3Digest.of(b"waits"): b"waits"})

    def test_two_who_stored_the_same(self, tmp_path: Path) -> None:
        """Afterwards there is little more than one copy."""
        kept = store_twice(tmp_path, [data_of(number) for number in range(100)])
        assert size_of(tmp_path) > 1.9 * 100 * 3000
        grow_old(tmp_path)
        collected(opened(tmp_path), kept)
        assert size_of(tmp_path) <= 1.02 * 100 * 3100
        require(tmp_path, kept)

    def test_small_packs_are_written_together(self, tmp_path: Path) -> None:
        service = opened(tmp_path)
        blobs = put(service, range(60), size=2000)
        assert len(list(tmp_path.glob("packs/*/*"))) == 60
        grow_old(tmp_path)
        collected(service, blobs)
        assert len(list(tmp_path.glob("packs/*/*"))) <= 4
        require(tmp_path, blobs)

    def test_a_pack_with_little_waste_stays(self, tmp_path: Path) -> None:
        """Only its records go; nothing is written again."""
        service = opened(tmp_path)
        blobs = put_together(service, (data_of(number, 1000) for number in range(60)))
        (lost, *_), (pack,) = blobs, tmp_path.glob("packs/*/*")
        grow_old(tmp_path)
        collected(service, blobs.keys() - {lost})
        assert list(tmp_path.glob("packs/*/*")) == [pack]
        assert lost not in set(opened(tmp_path).list_blobs())

    def test_a_rehearsal_changes_nothing(self, tmp_path: Path) -> None:
        service = opened(tmp_path)
        blobs = put(service, range(5))
        grow_old(tmp_path)
        found = collected(service, (), dry_run=True)
        assert found.gone["index"].count == 5
        require(tmp_path, blobs)

    def test_what_killed_writers_have_left_goes(self, tmp_path: Path) -> None:
        service = opened(tmp_path)
        blobs = put(service, range(2))
        (first, *_) = tmp_path.glob("packs/*/*")
        for left in (f"{first}#1", f"{tmp_path}/dead/2026010203/{'a' * 64}#7"):
            Path(left).parent.mkdir(parents=True, exist_ok=True)
            Path(left).write_bytes(b"half")
        stranger = first.with_name("notes.txt")
        stranger.write_text("mine")
        grow_old(tmp_path)
        found = collected(service, blobs)
        assert found.gone["residue"].count == 2
        assert stranger.read_text() == "mine"
        require(tmp_path, blobs)

    @given(data=st.data())
    @settings(max_examples=25, deadline=None)
    def test_any_history(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Puts, runs with other roots, and time, in any order: what is rooted is there, the rest is not."""
        folder = tmp_path_factory.mktemp("store")
        service = opened(folder, pack_size=8192)
        known: dict[B3Digest, bytes] = {}
        steps = data.draw(
            st.lists(st.sampled_from(["put", "put", "many", "gc", "old", "reopen"]), max_size=12)
        )
        for step in [*steps, "old", "gc"]:
            if step == "put":
                # Neighbours begin alike, and share chunks.
                number = data.draw(st.integers(0, 8))
                blob = data_of(number // 3, 4000) + bytes([number])
                known[service.write(blob)] = blob
            elif step == "many":
                numbers = data.draw(st.sets(st.integers(100, 120), min_size=1))
                known |= put_together(service, (data_of(each, 700) for each in numbers))
            elif step == "old":
                grow_old(folder)
            elif step == "reopen":
                service = opened(folder, pack_size=8192)
            else:
                roots = data.draw(st.sets(st.sampled_from(sorted(known)))) if known else set()
                collected(service, roots)
                for root in roots:
                    assert service.read(root) == known[root]
                known = {each: known[each] for each in known.keys() - opened(folder).missing(known)}
        require(folder, {root: known[root] for root in roots})
        assert set(opened(folder).list_blobs()) == roots


class TestBesideOthers:
    def test_a_writer_claims_a_chunk_before_its_pack_is_removed(self, tmp_path: Path) -> None:
        """The pack stays: its time is looked at again in the moment of removal."""
        service, writer = opened(tmp_path), opened(tmp_path)
        put(service, [1], size=30_000)
        grow_old(tmp_path)
        more = data_of(1, 30_000) + b"more"
        written: list[B3Digest] = []

        def meanwhile(call: str, key: str) -> None:
            if call == "sweep" and not written:
                written.append(writer.write(more))

        store_of(service).before = meanwhile
        collected(service, ())
        assert written
        require(tmp_path, {written[0]: more})

    def test_a_writer_claims_a_record_before_it_is_buried(self, tmp_path: Path) -> None:
        """It counts on: the time of its pack is looked at once nobody can claim it."""
        service, writer = opened(tmp_path), opened(tmp_path)
        blobs = put(service, [1, 2])
        grow_old(tmp_path)
        again = []
        items = [item for item in service.list_items() if item.kind == "index"]
        again += [writer.write(data) for data in blobs.values()]
        sweepable = service.capability(Sweepable)
        assert sweepable is not None
        assert list(sweepable.sweep(items, older_than=max(item.modified or 0 for item in items) + DAY)) == []
        assert set(again) == blobs.keys()
        require(tmp_path, blobs)

    def test_a_record_is_buried_between_the_look_and_the_claim(self, tmp_path: Path) -> None:
        """The writer looks after its claim, and stores the record anew."""
        service, writer = opened(tmp_path), opened(tmp_path)
        kept = put_together(service, (data_of(number, 400) for number in range(120)))
        going = next(iter(kept))
        assert writer.has(going)
        grow_old(tmp_path)
        done: list[Collected] = []

        def meanwhile(call: str, key: str) -> None:
            if call == "claim" and not done:
                done.append(collected(service, [each for each in kept if each != going]))

        store_of(writer).before = meanwhile
        assert writer.write(kept[going]) == going
        assert done
        require(tmp_path, kept)
        # Its chunk alone can be read, too.
        assert set(opened(tmp_path).list_blobs()) == kept.keys()

    @pytest.mark.parametrize("first", [False, True])
    def test_two_collectors_with_two_copies(self, tmp_path: Path, first: bool) -> None:
        """Neither removes the copy that the other one relies on, whichever each takes for the best."""
        kept = store_twice(tmp_path, [data_of(number) for number in range(20)])
        grow_old(tmp_path)
        one, two = opened(tmp_path), opened(tmp_path)
        turn_round(one if first else two)
        done: list[Collected] = []

        def meanwhile(call: str, key: str) -> None:
            if call == "sweep" and not done:
                done.append(collected(two, kept))

        store_of(one).before = meanwhile
        collected(one, kept)
        assert done
        require(tmp_path, kept)

    def test_a_reader_that_knows_the_old_packs(self, tmp_path: Path) -> None:
        """It finds the new ones, at any moment."""
        service, reader = opened(tmp_path), opened(tmp_path)
        blobs = put(service, range(12), size=5000) | put_together(service, map(data_of, range(50, 70)))
        roots = dict(list(blobs.items())[::2])
        assert reader.missing(blobs) == set()
        grow_old(tmp_path)
        moments = []

        def meanwhile(call: str, key: str) -> None:
            if key.startswith("dead/"):
                return  # Lists of packs wait for it.
            moments.append(call)
            for each in (reader, opened(tmp_path)):
                for digest, found in each.read_many(roots):
                    assert (found if isinstance(found, bytes) else found.read()) == roots[digest]  # type: ignore[union-attr]
                assert each.missing(roots) == set()

        store_of(service).before = meanwhile
        collected(service, roots)
        assert "sweep" in moments
        for digest, data in roots.items():
            assert reader.read(digest) == data

    def test_a_writer_that_knows_the_old_packs(self, tmp_path: Path) -> None:
        """It claims what is in the new ones, and looks no more often than it must."""
        service, writer = opened(tmp_path), opened(tmp_path)
        roots = put(service, range(60), size=2000)
        chunks = [meta.digest for root in roots for meta in service.chunks(root) or ()]
        assert writer.missing(roots) == set()
        grow_old(tmp_path)
        collected(service, roots)
        looks = []
        store_of(writer).before = lambda call, key: looks.append(key) if call == "list" else None
        assert writer.claim(chunks) == set(chunks)
        assert looks.count("packs/") == 1
        assert writer.claim([B3Digest.of(b"absent")]) == set()
        assert looks.count("packs/") <= 2
        assert writer.claim_blobs(dict.fromkeys(roots)) == roots.keys()

    def test_a_pack_that_goes_while_it_is_looked_at(self, tmp_path: Path) -> None:
        """It was listed, and is gone when its end is to be read: then there is a new one, not listed yet."""
        service, reader = opened(tmp_path), opened(tmp_path)
        roots = put(service, range(60), size=2000)
        grow_old(tmp_path)
        right = reader._known.read_footer
        done: list[Collected] = []

        def read(key: str, size: int) -> Any:
            if not done:
                done.append(collected(service, roots))
            return right(key, size)

        reader._known.read_footer = read  # type: ignore[method-assign]
        assert reader.missing(roots) == set()
        assert len(done) == 1

    def test_a_list_of_packs_waits_for_a_removal(self, tmp_path: Path) -> None:
        """Else it may lack both the old pack and the new one, which comes into a folder already read."""
        service = opened(tmp_path)
        put(service, range(3))
        grow_old(tmp_path)
        collected(service, ())
        store = store_of(service)
        with store.steady() as steady:
            assert steady
            descriptor = os.open(tmp_path / "castore.lock", os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
        listed = []

        def note(call: str, key: str) -> None:
            if call == "list" and key == "packs/":
                descriptor = os.open(tmp_path / "castore.lock", os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    listed.append("steady")
                else:
                    listed.append("alone")
                os.close(descriptor)

        store.before = note
        service._known.look_anew()
        assert listed == ["steady"]


def turn_round(service: SweepablePacks) -> None:
    """Let a service take the oldest place of all for the best."""
    right = service._sweeping._chunks_by_digest
    records = service._sweeping._records_by_digest
    service._sweeping._chunks_by_digest = lambda garbage: (rows[::-1] for rows in right(garbage))  # type: ignore[method-assign]
    service._sweeping._records_by_digest = lambda: (rows[::-1] for rows in records())  # type: ignore[method-assign]


class _KilledError(BaseException):
    pass


class TestEnds:
    def test_a_collector_that_is_killed_at_any_moment(self, tmp_path: Path) -> None:
        """Before and after each thing that it does: all roots are there, and the next run ends its work."""
        moment = 0
        while True:
            folder = tmp_path / str(moment)
            service = opened(folder)
            blobs = put(service, range(6), size=5000) | put_together(service, map(data_of, range(50, 70)))
            roots = dict(list(blobs.items())[::2])
            grow_old(folder)
            left = [moment]

            def count(call: str, key: str, left: list[int] = left) -> None:
                if call in ("put", "after put", "sweep", "claim", "remove"):
                    if not left[0]:
                        raise _KilledError
                    left[0] -= 1

            store_of(service).before = count
            try:
                collected(service, roots)
            except _KilledError:
                pass
            else:
                break
            require(folder, roots)
            grow_old(folder)
            grow_old(folder)
            collected(opened(folder), roots)
            require(folder, roots, blobs.keys() - roots.keys())
            assert size_of(folder) <= 1.3 * sum(map(len, roots.values()))
            moment += 1
        assert moment > 8

    @pytest.mark.parametrize("prefix", ["packs/", "dead/"])
    def test_an_error_in_a_list_removes_nothing(self, tmp_path: Path, prefix: str) -> None:
        service = opened(tmp_path)
        put(service, range(4))
        grow_old(tmp_path)
        calls = []

        def fail(call: str, key: str) -> None:
            calls.append(call)
            if call == "list" and key == prefix:
                raise UnavailableError("store", "no answer")

        store_of(service).before = fail
        before = size_of(tmp_path)
        with pytest.raises(UnavailableError, match="no answer"):
            collected(service, ())
        assert size_of(tmp_path) == before
        assert "sweep" not in calls

    def test_a_damaged_footer_removes_nothing(self, tmp_path: Path) -> None:
        """Nobody knows which chunks the blobs of that pack need."""
        service = opened(tmp_path)
        put(service, range(4))
        (first, *_) = tmp_path.glob("packs/*/*")
        first.write_bytes(first.read_bytes()[:-5])
        grow_old(tmp_path)
        before = size_of(tmp_path)
        with pytest.raises(UnavailableError, match="may lack some"):
            collected(opened(tmp_path), ())
        assert size_of(tmp_path) == before

    def test_a_pack_with_a_damaged_chunk_stays(self, tmp_path: Path) -> None:
        """What is right in it is written anew all the same, and readable."""
        service = opened(tmp_path)
        blobs = put_together(service, map(data_of, range(20)))
        (path,) = tmp_path.glob("packs/*/*")
        data = bytearray(path.read_bytes())
        data[40] ^= 255
        path.write_bytes(data)
        roots = list(blobs)[:5]
        grow_old(tmp_path)
        collected(service, roots)
        assert path.exists()
        damaged = B3Digest.of(data_of(0))
        reader = opened(tmp_path)
        assert [reader.read(digest) for digest in roots if digest != damaged]

    def test_the_copy_that_is_right_stays(self, tmp_path: Path) -> None:
        """Of two packs the newer one would stay; a chunk is damaged in it, so the other one is read."""
        service, other = opened(tmp_path), opened(tmp_path)
        kept = put_together(service, map(data_of, range(10)))
        (first,) = tmp_path.glob("packs/*/*")
        put_together(other, map(data_of, range(10)))
        for path in tmp_path.glob("packs/*/*"):
            if path != first:
                data = bytearray(path.read_bytes())
                data[40] ^= 255
                path.write_bytes(data)
        grow_old(tmp_path)
        for _ in range(2):
            collected(opened(tmp_path), kept)
            service = opened(tmp_path)
            for digest, data_ in kept.items():
                assert service.read(digest) == data_
            grow_old(tmp_path)


class TestRepair:
    def test_damaged_chunks_come_from_another_service(self, tmp_path: Path) -> None:
        """Only what was hit is fetched; the pack is moved away, and all else of it is in a new one."""
        service, other = opened(tmp_path / "a"), opened(tmp_path / "b")
        blobs = put_together(service, map(data_of, range(30)))
        large = put(service, [99], size=60_000)
        put_together(other, blobs.values())
        put(other, [99], size=60_000)
        for path in (tmp_path / "a").glob("packs/*/*"):
            damaged = bytearray(path.read_bytes())
            for at in (30, 9000):
                damaged[at] ^= 255
            path.write_bytes(damaged)
        service = opened(tmp_path / "a")
        report = verify(service)
        assert report.findings
        found = list(repair(service, other, report.findings))
        assert [mending.message for mending in found if not mending.mended] == []
        require(tmp_path / "a", blobs | large)
        assert list((tmp_path / "a/quarantine").rglob("*"))

    def test_another_list(self, tmp_path: Path) -> None:
        """A record that is moved away counts no more, and its blob is absent."""
        service = opened(tmp_path)
        parts = [b"a" * 3000, b"b" * 2000]
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        blob = B3Digest.of(b"".join(parts))
        store = service.capability(ChunkStore)
        assert store is not None
        store.put_chunks({B3Digest.of(part): part for part in parts})
        store.put_indexes({blob: metas})
        (item,) = [item for item in service.list_items() if item.kind == "index"]
        assert service.set_aside(item).startswith("dead/")
        assert not service.has(blob)
        assert not opened(tmp_path).has(blob)
        assert service.find_chunks([meta.digest for meta in metas]) == {meta.digest for meta in metas}

    @pytest.mark.parametrize("seeds", [range(15), pytest.param(range(15, 400), marks=pytest.mark.long)])
    def test_any_bit_of_any_frame(self, tmp_path: Path, seeds: Iterable[int]) -> None:
        """No wrong byte comes out; damage is named, and mended from another service; nothing is lost."""
        whole, other = opened(tmp_path / "whole"), opened(tmp_path / "other")
        for each in (whole, other):
            blobs = put_together(each, (data_of(number, 700) for number in range(60)))
            blobs |= put(each, range(100, 106), size=30_000)
        for seed in seeds:
            chance, folder = random.Random(seed), tmp_path / str(seed)
            shutil.copytree(tmp_path / "whole", folder)
            path = chance.choice(sorted(folder.glob("packs/*/*")))
            data = bytearray(path.read_bytes())
            data[chance.randrange(24, len(data) - packs.footer_length(data, len(data)))] ^= 16
            path.write_bytes(data)
            service = opened(folder)
            bad = []
            for digest, expected in blobs.items():
                try:
                    assert service.read(digest) == expected
                except CorruptBlobError:
                    bad.append(digest)
            findings = verify(service).findings
            assert set(bad) <= {finding.digest for finding in findings} | {each.blob for each in findings}
            list(repair(service, other, findings))
            require(folder, blobs)
            # A chunk that is a whole blob can be read without its record, too.
            assert set(opened(folder).list_blobs()) == blobs.keys()
            shutil.rmtree(folder)
