"""`packed`: many chunks in one object, records last, and nothing lost that was acknowledged."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import castore
from castore import B3Digest, BlobService, ChunkMeta, CorruptChunkError, UnavailableError
from castore.contract.capabilities import BlobLister, ChunkStore, FrameStore
from castore.contract.upkeep import DigestRange, StoredItem
from castore.format import frames, packs
from castore.threads.pool import Pool
from castore.upkeep import collect, copy, verify
from castore_objectstore.fsspec_store import FsspecObjectStore
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.looks import PACKS
from castore_objectstore.object_store import StoredObject
from castore_objectstore.packed import known, table
from castore_objectstore.packed.service import PackedBlobService, PackInventory, packs_in
from castore_objectstore.packed.table import Row, Table
from castore_objectstore.packed.writing import Work


def opened(folder: Path, **query: object) -> BlobService:
    options = "&".join(f"{name}={value}" for name, value in {"durability": "process", **query}.items())
    return castore.from_url(f"packed+file:{folder}?{options}")


def packs_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("packs/*/*"))


def files(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%d" % number * (number % 90 + 1))
    return paths


class Counted(LocalObjectStore):
    """Counts what is asked of it, and fails to put what it is told to."""

    def __init__(self, root: Path, **kwargs: Any) -> None:
        super().__init__(root, instance="store", durability="process", layout=PACKS, **kwargs)
        self.calls: list[tuple[str, str]] = []
        self.fails = False

    def get_range(self, key: str, offset: int, count: int) -> bytes | None:
        self.calls.append(("range", key))
        return super().get_range(key, offset, count)

    def put_pieces(self, key: str, pieces: Any) -> None:
        if self.fails:
            raise UnavailableError("store", "no room")
        self.calls.append(("put", key))
        super().put_pieces(key, pieces)

    def count(self, call: str, prefix: str = "packs/") -> int:
        return sum(name == call and key.startswith(prefix) for name, key in self.calls)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[Counted, PackedBlobService]]:
    store = Counted(tmp_path / "store")
    service = PackedBlobService(store, instance="store", pack_size=1 << 20, avg_chunk_size=4096)
    yield store, service
    store.fails = False
    service.close()


class TestLayout:
    def test_many_small_files_are_one_pack_in_their_order(self, tmp_path: Path) -> None:
        """1,000 files: one pack, whose frames come in the order of the files; any zstd opens it."""
        paths = files(tmp_path / "in", 1000)
        with opened(tmp_path / "store") as blobs:
            digests = list(blobs.put_files(paths))
        (pack,) = packs_of(tmp_path / "store")
        data = pack.read_bytes()
        assert B3Digest.of(data).hex() == pack.name
        assert len(pack.parent.name) == 10
        assert json.loads((tmp_path / "store/format").read_bytes()) == {
            "format": "castore-packed",
            "version": 1,
        }
        footer = packs.decode_footer(data[-packs.footer_length(data, len(data)) :], len(data))
        in_pack = [entry.digest for entry in sorted(footer.entries, key=lambda entry: entry.offset)]
        assert in_pack == list(dict.fromkeys(digests))
        assert {record.digest for record in footer.records} == set(digests)
        if shutil.which("zstd"):
            out = subprocess.run(["zstd", "-dcq"], input=data, check=True, capture_output=True).stdout
            assert out == b"".join(path.read_bytes() for path in paths)

    def test_nothing_new_puts_nothing(self, tmp_path: Path) -> None:
        paths = files(tmp_path / "in", 300)
        for _ in range(2):
            with opened(tmp_path / "store") as blobs:
                digests = list(blobs.put_files(paths))
                assert [blobs.read(digest) for digest in digests] == [path.read_bytes() for path in paths]
        assert len(packs_of(tmp_path / "store")) == 1

    def test_calls(self, counted: tuple[Counted, PackedBlobService], tmp_path: Path) -> None:
        """One small blob is one put; reading 600 of one pack is one read."""
        store, service = counted
        service.write(b"small")
        assert store.count("put") == 1
        digests = list(service.put_files(files(tmp_path / "in", 600)))
        assert store.count("put") == 2
        store.calls.clear()
        found = dict(service.read_many(digests))
        assert len(found) == len(set(digests))
        assert store.count("range") <= 2

    def test_records_of_many_blobs_are_read_together(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        """Fifty blobs with lists are claimed with one read of their pack, and so when they are put again."""
        store, service = counted
        parts = {B3Digest.of(data): data for data in (b"%d" % number * 200 for number in range(100))}
        lists = {}
        for one, two in zip(list(parts)[::2], list(parts)[1::2], strict=True):
            whole = parts[one] + parts[two]
            lists[B3Digest.of(whole)] = [ChunkMeta(each, len(parts[each])) for each in (one, two)]
        service.put_chunks(parts)
        service.put_indexes(lists)
        fresh = PackedBlobService(store, instance="fresh")
        assert fresh.missing(lists) == set()
        store.calls.clear()
        assert fresh.claim_blobs(dict.fromkeys(lists)) == lists.keys()
        assert store.count("range") == 1
        store.calls.clear()
        fresh.put_indexes(lists)
        assert [call for call, _ in store.calls] == ["range"]

    def test_a_pack_that_was_cut_since_it_was_looked_at_is_not_counted_on(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        """What was in it is stored anew."""
        store, service = counted
        data = random.Random(2).randbytes(3000)
        service.write(data)
        (path,) = packs_of(Path(str(store.folder)))
        os.truncate(path, 2000)
        digest = service.write(data)
        assert PackedBlobService(store, instance="fresh").read(digest) == data

    def test_a_large_blob_is_several_packs_with_the_record_in_the_last(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        store, service = counted
        data = b"".join(B3Digest.of(b"%d" % number) for number in range(150_000))
        digest = service.write(data)
        assert store.count("put") >= 4
        *others, last = [key for call, key in store.calls if call == "put" and key.startswith("packs/")]
        for key, expected in [(last, 1), *((key, 0) for key in others)]:
            size = (Path(str(store.folder)) / key).stat().st_size
            footer = PackedBlobService(store, instance="x")._known.read_footer(key, size)
            assert footer is not None
            assert len(footer.records) == expected
        assert service.read(digest) == data

    def test_another_layout_is_refused(self, tmp_path: Path) -> None:
        """Neither type takes the other's folder for an empty one."""
        with opened(tmp_path / "packs") as blobs:
            digest = blobs.write(b"x")
        with castore.from_url(f"objectstore+file:{tmp_path / 'packs'}") as blobs:
            with pytest.raises(UnavailableError, match="store of type `packed`"):
                blobs.has(digest)
            with pytest.raises(UnavailableError, match="store of type `packed`"):
                blobs.write(b"y")
        with castore.from_url(f"objectstore+file:{tmp_path / 'objects'}") as blobs:
            blobs.write(b"x")
        with opened(tmp_path / "objects") as blobs, pytest.raises(UnavailableError, match="`objectstore`"):
            blobs.write(b"y")

    def test_a_newer_store_is_refused(self, tmp_path: Path) -> None:
        with opened(tmp_path / "store") as blobs:
            digest = blobs.write(b"x")
        (tmp_path / "store/format").write_text('{"format": "castore-packed", "version": 2}')
        with opened(tmp_path / "store") as blobs:
            with pytest.raises(UnavailableError, match="use a newer castore"):
                blobs.has(digest)
            with pytest.raises(UnavailableError, match="use a newer castore"):
                blobs.write(b"y")


class TestSeveral:
    def test_what_another_process_puts_is_found_at_once(self, tmp_path: Path) -> None:
        with opened(tmp_path / "store") as one, opened(tmp_path / "store") as two:
            for number in range(40):
                data = b"blob %d" % number
                writer, reader = (one, two) if number % 2 else (two, one)
                assert not reader.has(B3Digest.of(data))
                digest = writer.write(data)
                assert reader.has(digest)
                assert reader.read(digest) == data

    def test_a_pack_that_is_gone_is_not_there(self, tmp_path: Path) -> None:
        """Its blobs are absent, and are stored anew."""
        with opened(tmp_path / "store") as blobs:
            digest = blobs.write(b"x" * 100)
            kept = blobs.write(b"y" * 100)
            for path in packs_of(tmp_path / "store"):
                if b"CASPEND" in path.read_bytes() and bytes(digest) in path.read_bytes():
                    path.unlink()
            assert blobs.open_read(digest) is None
            assert not blobs.has(digest)
            assert blobs.read(kept) == b"y" * 100
            assert blobs.write(b"x" * 100) == digest
            assert blobs.read(digest) == b"x" * 100

    def test_writers_at_once(self, tmp_path: Path) -> None:
        """Threads that write blobs of any size read them all back, also with another service."""
        store = tmp_path / "store"

        def write(number: int) -> tuple[B3Digest, bytes]:
            data = b"".join(B3Digest.of(b"%d-%d" % (number, each)) for each in range(number * 97 % 4000))
            return service.write(data), data

        with opened(store, pack_size="64 KiB", avg_chunk_size=2048) as service:
            with ThreadPoolExecutor(8) as threads:
                found = list(threads.map(write, range(60)))
            assert all(service.read(digest) == data for digest, data in found)
        with opened(store) as again:
            assert all(again.read(digest) == data for digest, data in found)
            assert verify(again).findings == []

    def test_a_child_of_a_fork_goes_on(self, tmp_path: Path) -> None:
        """What waits it may store as well as its parent."""
        with opened(tmp_path / "store") as blobs:
            store = blobs.capability(ChunkStore)
            assert store is not None
            digest = B3Digest.of(b"waits")
            store.put_chunks({digest: b"waits"})
            child = multiprocessing.get_context("fork").Process(
                target=store.put_indexes, args=({digest: ()},)
            )
            child.start()
            child.join(60)
            assert child.exitcode == 0
        with opened(tmp_path / "store") as again:
            lister = again.capability(BlobLister)
            assert lister is not None
            assert list(lister.list_blobs()) == [digest]

    @pytest.mark.parametrize("leased", [False, True])
    def test_a_child_of_a_fork_stores_what_waits_for_a_call_of_its_parent(
        self, counted: tuple[Counted, PackedBlobService], leased: bool
    ) -> None:
        """A thread of the parent was at a call; what came behind it is stored before a record needs it."""
        store, service = counted
        data = b"waits" * 50
        digest = B3Digest.of(data)
        with service.lease() as lease:
            work = lease._work if leased else service._packer.common  # type: ignore[attr-defined]
            service._packer.take_ticket(work)
            (lease if leased else service).put_chunks({digest: data})
            child = multiprocessing.get_context("fork").Process(target=service.write, args=(data,))
            child.start()
            child.join(60)
            assert child.exitcode == 0
            with opened(Path(str(store.folder))) as again:
                assert again.read(digest) == data

    def test_a_child_of_a_fork_keeps_what_was_just_moved(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        """A thread of the parent was moving what waits to its pack."""
        store, service = counted
        data = b"waits" * 50
        digest = B3Digest.of(data)
        work = Work()
        ticket = service._packer.take_ticket(work)
        service._packer.take_ticket(work)
        service._packer.add(work, ticket + 1, [(digest, frames.compress(data), len(data))])
        work.parked.clear()
        child = multiprocessing.get_context("fork").Process(target=service.write, args=(data,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        with opened(Path(str(store.folder))) as again:
            assert again.read(digest) == data


class TestWaiting:
    def test_a_record_comes_after_all_that_it_counts_on(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        """Chunks that another lease has put, and not stored yet, are stored with the blob that needs them."""
        store, service = counted
        parts = [bytes([number]) * 3000 for number in range(2)]
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        blob = B3Digest.of(b"".join(parts))
        with service.lease() as one, service.lease() as two:
            one.put_chunks({metas[0].digest: parts[0]})
            assert two.claim([metas[0].digest]) == {metas[0].digest}
            two.put_chunks({metas[1].digest: parts[1]})
            two.put_indexes({blob: metas})
            fresh = PackedBlobService(Counted(Path(str(store.folder))), instance="fresh")
            assert fresh.read(blob) == b"".join(parts)
            fresh.close()

    def test_what_was_claimed_of_another_lasts_once_no_index_was_put(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        store, service = counted
        digest = B3Digest.of(b"x" * 500)
        with service.lease() as one, service.lease() as two:
            one.put_chunks({digest: b"x" * 500})
            assert two.claim([digest])
            two.put_indexes({})
            assert store.count("put") == 1

    def test_no_record_without_chunks_after_a_failure(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        """A pack that could not be stored waits on; the next call stores it before its record."""
        store, service = counted
        part = b"p" * 700
        digest = B3Digest.of(part)
        service.put_chunks({digest: part})
        store.fails = True
        for _ in range(2):
            with pytest.raises(UnavailableError, match="no room"):
                service.put_indexes({digest: ()})
        assert service.get_chunk(digest) == part
        store.fails = False
        service.put_indexes({digest: ()})
        fresh = PackedBlobService(Counted(Path(str(store.folder))), instance="fresh")
        assert fresh.read(digest) == part
        fresh.close()

    def test_another_list_takes_the_place_of_the_first(self, tmp_path: Path) -> None:
        """Also for those who open the store later."""
        parts = [bytes([number]) * 3000 for number in range(3)]
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        whole = b"".join(parts)
        blob = B3Digest.of(whole)
        wrong = [metas[0], metas[2], metas[1]]
        with opened(tmp_path / "store") as blobs:
            store = blobs.capability(ChunkStore)
            assert store is not None
            store.put_chunks(dict(zip((meta.digest for meta in metas), parts, strict=True)))
            store.put_indexes({blob: wrong})
            store.put_indexes({blob: metas})
            assert list(blobs.chunks(blob) or ()) == metas
        for _ in range(3):
            with opened(tmp_path / "store") as again:
                assert again.read(blob) == whole

    def test_lists_that_take_turns(self, tmp_path: Path) -> None:
        """A list that comes back after another one has replaced it counts again: its pack has a new name."""
        parts = [bytes([number]) * 3000 for number in range(3)]
        one, two, three = (ChunkMeta(B3Digest.of(part), len(part)) for part in parts)
        joined = ChunkMeta(B3Digest.of(parts[1] + parts[2]), 6000)
        whole = b"".join(parts)
        blob = B3Digest.of(whole)
        with opened(tmp_path / "store") as blobs:
            store = blobs.capability(ChunkStore)
            assert store is not None
            store.put_chunks({B3Digest.of(part): part for part in [*parts, parts[1] + parts[2]]})
            for turn in range(5):
                metas = [one, joined] if turn % 2 else [one, two, three]
                store.put_indexes({blob: metas})
                assert blobs.has(blob)
                assert list(blobs.chunks(blob) or ()) == metas
                assert blobs.read(blob) == whole
                with opened(tmp_path / "store") as fresh:
                    assert fresh.has(blob)
                    assert fresh.read(blob) == whole

    def test_two_who_cut_otherwise(self, tmp_path: Path) -> None:
        """Two services with chunks of other sizes write the same blob in turn; it is there all the time."""
        data = random.Random(1).randbytes(300_000)
        with (
            opened(tmp_path / "store", avg_chunk_size="64 KiB") as one,
            opened(tmp_path / "store", avg_chunk_size="16 KiB") as two,
        ):
            for turn in range(7):
                digest = (two if turn % 2 else one).write(data)
                with opened(tmp_path / "store") as fresh:
                    for each in (one, two, fresh):
                        assert each.has(digest)
                        assert each.read(digest) == data

    def test_what_is_parked_is_stored_before_it_is_counted_on(
        self, counted: tuple[Counted, PackedBlobService]
    ) -> None:
        """A call that began earlier has not ended: what others have put behind it is stored all the same."""
        store, service = counted
        data = b"x" * 500
        digest = B3Digest.of(data)
        late = B3Digest.of(b"late")
        fresh = PackedBlobService(Counted(Path(str(store.folder))), instance="fresh")
        with service.lease() as lease:
            work = lease._work  # type: ignore[attr-defined]
            ticket = service._packer.take_ticket(work)
            lease.put_chunks({digest: data})
            service.write(data)
            assert fresh.read(digest) == data
            service._packer.add(work, ticket, [(late, frames.compress(b"late"), 4)])
            lease.put_indexes({late: ()})
        assert fresh.read(late) == b"late"
        fresh.close()


class TestDamage:
    def test_a_footer_that_is_damaged_loses_no_chunk(self, tmp_path: Path) -> None:
        """The chunks are found by their frames; what one reads is what was put."""
        with opened(tmp_path / "store") as blobs:
            digests = list(blobs.put_files(files(tmp_path / "in", 50)))
        (path,) = packs_of(tmp_path / "store")
        path.write_bytes(path.read_bytes()[:-100])
        with opened(tmp_path / "store") as blobs:
            for number, digest in enumerate(digests):
                assert blobs.read(digest) == b"%d" % number * (number % 90 + 1)

    def test_any_byte_of_a_footer(self, tmp_path: Path) -> None:
        """`verify` names the pack, whichever byte is damaged; the chunk is read as it was put."""
        path = files(tmp_path / "in", 2)[1]
        with opened(tmp_path / "store") as blobs:
            (digest,) = blobs.put_files([path])
        (pack,) = packs_of(tmp_path / "store")
        whole = pack.read_bytes()
        for at in range(len(whole) - packs.footer_length(whole, len(whole)), len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at % 8
            pack.write_bytes(damaged)
            with opened(tmp_path / "store") as blobs:
                with pytest.raises(UnavailableError, match=rf"packs/\d+/{pack.name}: .*bring the pack back"):
                    verify(blobs)
                assert blobs.read(digest) == path.read_bytes()
        pack.write_bytes(whole)
        with opened(tmp_path / "store") as blobs:
            assert verify(blobs).findings == []

    def test_a_list_that_may_lack_blobs_says_so(self, tmp_path: Path) -> None:
        """Nobody takes it for whole; all that is known is copied before."""
        with opened(tmp_path / "store") as blobs:
            lost = blobs.write(b"x" * 50)
            (pack,) = packs_of(tmp_path / "store")
            kept = [blobs.write(b"y%d" % number) for number in range(9)]
        pack.write_bytes(pack.read_bytes()[:-3])
        with opened(tmp_path / "store") as blobs, castore.from_url("memory:") as target:
            with pytest.raises(UnavailableError, match=r"may lack some.*bring the pack back"):
                verify(blobs)
            with pytest.raises(UnavailableError, match="may lack some"):
                copy(blobs, target)
            assert target.missing(kept) == set()
            assert blobs.read(lost) == b"x" * 50
            pack.rename(tmp_path / "away")
            assert blobs.write(b"x" * 50) == lost
            assert verify(blobs).findings == []

    def test_no_damage_gives_a_wrong_byte(self, tmp_path: Path) -> None:
        """Of packs that are cut, turned, swapped or gone: right bytes, an error, or nothing."""
        chance = random.Random(5)
        store, whole = tmp_path / "store", tmp_path / "whole"
        contents = [chance.randbytes(chance.choice([5, 300, 9000])) for _ in range(30)]
        with opened(whole, pack_size="64 KiB", avg_chunk_size=1024) as blobs:
            by_digest = {blobs.write(data): data for data in contents}
        for _ in range(60):
            shutil.copytree(whole, store)
            path, other = chance.sample(packs_of(store), 2)
            data = bytearray(path.read_bytes())
            at = chance.randrange(len(data))
            kind = chance.choice(["cut", "turn", "gone", "swap", "zero"])
            if kind == "turn":
                data[at] ^= 1 << chance.randrange(8)
            elif kind == "zero":
                data[at : at + 40] = bytes(len(data[at : at + 40]))
            path.write_bytes(data[:at] if kind == "cut" else other.read_bytes() if kind == "swap" else data)
            if kind == "gone":
                path.unlink()
            with opened(store) as blobs:
                for digest, found in blobs.read_many(by_digest):
                    with contextlib.suppress(castore.CastoreError):
                        read = found.read() if isinstance(found, castore.BlobReader) else found
                        assert read in (None, by_digest[digest]) or isinstance(read, castore.CastoreError)
                for data_ in contents:
                    blobs.write(data_)
            # What is gone, or cut short, was stored anew; what is only damaged was claimed as it is.
            with opened(store) as blobs:
                for digest, expected in by_digest.items():
                    try:
                        assert blobs.read(digest) == expected
                    except castore.CorruptBlobError:
                        assert kind in ("turn", "zero", "swap")
            shutil.rmtree(store)

    def test_a_chunk_that_is_damaged_is_taken_from_another_pack(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 8
        with opened(tmp_path / "store") as blobs:
            digest = blobs.write(data)
        (first,) = packs_of(tmp_path / "store")
        damaged = bytearray(first.read_bytes())
        damaged[60] ^= 255
        first.write_bytes(damaged)
        with opened(tmp_path / "store") as blobs:
            with pytest.raises(castore.CorruptBlobError):
                blobs.read(digest)
            assert {finding.digest for finding in verify(blobs).findings} == {digest}
            store = blobs.capability(ChunkStore)
            assert store is not None
            store.put_chunks({digest: data})
            store.put_indexes({})
            assert blobs.read(digest) == data
        with opened(tmp_path / "store") as blobs:
            assert blobs.read(digest) == data

    def test_a_pack_that_is_put_again_takes_the_place_of_a_damaged_one(self, tmp_path: Path) -> None:
        """It has the name of that one; the service that had seen the damage believes the new one."""
        data = b"x" * 500
        digest = B3Digest.of(data)

        def put(blobs: BlobService) -> None:
            store = blobs.capability(ChunkStore)
            assert store is not None
            store.put_chunks({digest: data})
            store.put_indexes({})

        with opened(tmp_path / "store") as blobs:
            put(blobs)
        (path,) = packs_of(tmp_path / "store")
        whole = path.read_bytes()
        for damaged in (whole[:30], whole[:30] + bytes(20) + whole[50:-1] + b"?"):
            path.write_bytes(damaged)
            with opened(tmp_path / "store") as blobs, opened(tmp_path / "store") as other:
                assert not blobs.has(digest)
                assert not other.has(digest)
                put(blobs)
                assert path.read_bytes() == whole
                for each in (blobs, other):
                    assert each.has(digest)
                    assert each.read(digest) == data

    def test_a_pack_is_lost_while_somebody_looks(self, counted: tuple[Counted, PackedBlobService]) -> None:
        """Two find out at once that it is gone; neither hinders the other."""
        store, service = counted
        service.write(b"a" * 99)
        (path,) = packs_of(Path(str(store.folder)))
        path.unlink()
        known = service._known
        others: list[Thread] = []

        class Slow(dict[str, Any]):
            def pop(self, *args: Any) -> Any:
                for pack in list(self.values()):
                    others.append(Thread(target=known.lose, args=(pack,)))
                    others[-1].start()
                    others[-1].join(0.1)
                return super().pop(*args)

        known._by_key = Slow(known._by_key)
        known.look_anew()
        assert len(others) == 1
        for other in others:
            other.join(60)
        assert known.all_packs() == []

    def test_a_frame_with_other_bytes(self, tmp_path: Path) -> None:
        """A whole frame in the place of another one is no chunk of that digest."""
        with opened(tmp_path / "store") as blobs:
            store = blobs.capability(FrameStore)
            indexes = blobs.capability(ChunkStore)
            assert store is not None
            assert indexes is not None
            digest = B3Digest.of(b"right")
            store.put_frames({digest: frames.compress(b"wrong")})
            indexes.put_indexes({digest: ()})
            with pytest.raises(CorruptChunkError):
                blobs.read(digest)


class TestUpkeep:
    def test_copies_move_frames_unchanged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """To packs and back; nothing is compressed again."""
        data = b"".join(B3Digest.of(b"%d" % number) for number in range(30_000))
        with (
            castore.from_url(f"objectstore+file:{tmp_path / 'a'}?compression_level=9") as source,
            opened(tmp_path / "store") as packed,
            castore.from_url(f"objectstore+file:{tmp_path / 'b'}") as target,
        ):
            digests = [source.write(data), source.write(b"small" * 50)]
            monkeypatch.setattr(frames, "compress", None)
            monkeypatch.setattr(frames, "compress_each", None)
            copy(source, packed, pool=Pool(0))
            copy(packed, target, pool=Pool(0))
            assert [target.read(digest) for digest in digests] == [data, b"small" * 50]
        for path in (tmp_path / "a").glob("chunks/b3/*/*"):
            assert (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes() == path.read_bytes()

    def test_a_chunk_of_several_frames_becomes_one(self, tmp_path: Path) -> None:
        with opened(tmp_path / "store") as blobs:
            store, indexes = blobs.capability(FrameStore), blobs.capability(ChunkStore)
            assert store is not None
            assert indexes is not None
            digest = B3Digest.of(b"onetwo")
            store.put_frames({digest: frames.compress(b"one") + frames.compress(b"two")})
            indexes.put_indexes({digest: ()})
            frame = store.get_frames((digest,))[digest]
            assert isinstance(frame, bytes)
            assert frames.is_single(frame)
            assert blobs.read(digest) == b"onetwo"

    def test_where_listings_may_be_old_it_is_not_collected_and_says_so(self, tmp_path: Path) -> None:
        with castore.from_url(f"packed+simplecache::file://{tmp_path}") as blobs:
            digest = blobs.write(b"x")
            with pytest.raises(castore.UnsupportedError, match="`castore copy`"):
                collect(blobs, [digest])


class TestTable:
    @given(st.lists(st.integers(0, 300), max_size=80), st.tuples(*[st.none() | st.integers(0, 300)] * 2))
    def test_a_range(self, numbers: list[int], bounds: tuple[int | None, int | None]) -> None:
        """It has those rows that are in it, in order, whether they are young or in runs."""

        def digest(number: int) -> B3Digest:
            return B3Digest((number << 240).to_bytes(32, "big"))

        rows = [Row(digest(number), at, at, 1, 1) for at, number in enumerate(numbers)]
        part = DigestRange(*(None if bound is None else digest(bound) for bound in bounds))
        for most in (1 << 14, 7):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(table, "_YOUNG", most)
                kept = Table()
                for row in rows:
                    kept.add((row,))
            assert list(kept.within(part)) == sorted(row for row in rows if row.digest in part)


class TestDurability:
    def test_a_pack_has_its_name_when_its_bytes_are_on_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """First the file is flushed, then it gets its name, then that is flushed; then the call returns."""
        steps: list[str] = []
        fsync, replace = os.fsync, os.replace

        def place(path: Path) -> str:
            return "/".join(path.relative_to(tmp_path).parts[1:3]) + ("/..." if path.is_file() else "")

        def note_fsync(descriptor: int) -> None:
            steps.append(f"flush {place(Path(f'/proc/self/fd/{descriptor}').readlink())}")
            fsync(descriptor)

        def note_replace(source: str, target: str) -> None:
            steps.append(f"rename {place(Path(source))}")
            replace(source, target)

        with opened(tmp_path / "store", durability="full") as blobs:
            monkeypatch.setattr(os, "fsync", note_fsync)
            monkeypatch.setattr(os, "replace", note_replace)
            blobs.write(b"first")
            first = list(steps)
            steps.clear()
            blobs.write(b"second")
            monkeypatch.undo()
        (hour,) = (path.name for path in (tmp_path / "store/packs").iterdir())
        folder = f"packs/{hour}"
        alone = [f"flush {folder}/...", f"rename {folder}/...", f"flush {folder}"]
        assert steps == alone
        # The first one also has to keep the names of its folders; before it there is `format`.
        at = first.index(alone[0])
        assert first[at : at + 3] == alone
        assert "flush packs" in first[at + 3 :]

    @pytest.mark.parametrize("refused", ["packs", "store"])
    def test_a_folder_whose_name_was_not_flushed_is_flushed_by_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
    ) -> None:
        """The first write fails, as the disk refuses once; no other one is done before that name is kept."""
        flushed: list[str] = []
        fsync = os.fsync
        broken = [refused]

        def flush(descriptor: int) -> None:
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
            if name in broken and (name == "packs" or "packs" in flushed):
                broken.remove(name)
                raise OSError(errno.EIO, "Input/output error")
            flushed.append(name)
            fsync(descriptor)

        with opened(tmp_path / "store", durability="full") as blobs:
            monkeypatch.setattr(os, "fsync", flush)
            with pytest.raises(UnavailableError):
                blobs.write(b"first")
            assert not broken
            flushed.clear()
            blobs.write(b"second")
            assert refused in flushed
            flushed.clear()
            blobs.write(b"third")
            assert refused not in flushed
            monkeypatch.undo()


class Asked(FsspecObjectStore):
    """A bucket in memory, of which each request would take its time, and is counted."""

    def __init__(self) -> None:
        super().__init__("memory:", {}, instance="bucket")
        self.high_latency = True
        self.calls: Counter[str] = Counter()
        self.afters: list[str | None] = []

    def put(self, key: str, data: bytes) -> None:
        self.calls["put"] += 1
        super().put(key, data)

    def get_range(self, key: str, offset: int, count: int) -> bytes | None:
        self.calls["range"] += 1
        return super().get_range(key, offset, count)

    def list(self, prefix: str, **kwargs: Any) -> Iterator[StoredObject]:
        self.calls["list"] += 1
        self.afters.append(kwargs.get("after"))
        return super().list(prefix, **kwargs)


class TestBucket:
    def test_requests(self, tmp_path: Path) -> None:
        """3,000 files are three packs, a lease for each; nothing new puts no more; one file is one put."""
        paths = files(tmp_path / "in", 3000)
        store = Asked()
        digests = list(PackedBlobService(store, instance="bucket").put_files(paths))
        assert store.calls["put"] == 4 + 3
        assert store.calls["list"] <= 4
        store.calls.clear()
        again = PackedBlobService(store, instance="bucket")
        assert list(again.put_files(paths)) == digests
        assert store.calls["put"] == 3
        store.calls.clear()
        assert len(dict(again.read_many(digests))) == len(set(digests))
        assert store.calls["range"] <= 8
        # At once, and when it is time to look again: then what is under `dead/`, and the packs.
        for number, looked in enumerate((again._known._looked, float("-inf"))):
            store.calls.clear()
            again._known._looked = looked
            again.write(b"one more %d" % number)
            assert store.calls["put"] == 1
            assert store.calls["list"] <= 2
        assert store.calls["list"] == 2
        # Only those are listed that can be news.
        assert store.afters[-1] is not None

    def test_a_listing_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In 32 parts it is the same, and asks as often; what another one puts is in the next one."""
        monkeypatch.setattr(known, "_LOOK_SECONDS", 3600.0)
        store = Asked()
        first, other = (packs_in(store, instance=name) for name in ("bucket", "other"))
        assert isinstance(first, PackInventory)
        for number in range(40):
            first.write(b"%d" % number * 50)
        parts = DigestRange.parts(32)

        def listed(items: Iterable[StoredItem]) -> list[tuple[str, str]]:
            return sorted((item.kind, item.key) for item in items)

        store.calls.clear()
        whole = listed(first.list_items())
        asked = store.calls.copy()
        assert len(whole) == 80
        store.calls.clear()
        assert listed(item for part in parts for item in first.list_items_in(part)) == whole
        assert store.calls == asked
        other.write(b"of another one")
        assert len(listed(item for part in parts for item in first.list_items_in(part))) == 82
        # A process that has only some of the parts looks once, too.
        late = packs_in(store, instance="late")
        assert isinstance(late, PackInventory)
        store.calls.clear()
        list(late.list_items_in(parts[1]))
        once = store.calls["list"]
        for part in parts[2:]:
            list(late.list_items_in(part))
        assert store.calls["list"] == once > 0
        late._known._looked_at_all = float("-inf")
        list(late.list_items_in(parts[1]))
        assert store.calls["list"] == 2 * once

    def test_a_bucket(self, tmp_path: Path) -> None:
        """Over HTTP, from a server of S3: 600 files are two objects, and another service reads them."""
        pytest.importorskip("s3fs")
        boto3 = pytest.importorskip("boto3")
        server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        try:
            host, port = server.get_host_and_port()
            options = {"key": "an-id", "secret": "a-key", "endpoint_url": f"http://{host}:{port}"}
            client = boto3.client(
                "s3",
                region_name="us-east-1",
                endpoint_url=options["endpoint_url"],
                aws_access_key_id="an-id",
                aws_secret_access_key="a-key",
            )
            client.create_bucket(Bucket="bucket")
            table = {
                "type": "packed",
                "object_store_url": "s3://bucket/pre/fix",
                "object_store_options": options,
            }
            mapping = {"blobservices": {"root": table}}
            paths = files(tmp_path / "in", 600)
            large = b"".join(B3Digest.of(b"%d" % number) for number in range(40_000))
            with castore.Composition.from_mapping(mapping) as stores:
                digests = list(stores.blobs().put_files(paths))
            keys = [each["Key"] for each in client.list_objects_v2(Bucket="bucket")["Contents"]]
            assert sorted(key.split("/")[2] for key in keys) == ["format", "packs"]
            with castore.Composition.from_mapping(mapping) as stores:
                blobs = stores.blobs()
                assert list(blobs.put_files(paths)) == digests
                found = dict(blobs.read_many(digests))
                assert [found[digest] for digest in digests] == [path.read_bytes() for path in paths]
                assert blobs.read(blobs.write(large)) == large
                assert verify(blobs).findings == []
            assert len(client.list_objects_v2(Bucket="bucket")["Contents"]) == 3
        finally:
            server.stop()
