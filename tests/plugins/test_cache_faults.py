"""What a cache makes of faults: near heals or is passed over, far is believed, nothing turns into absence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobService,
    CorruptBlobError,
    UnavailableError,
)
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore
from castore.faults import READS, WRITES
from castore.testing import HELLO, P3M, FaultyService
from castore_cache.service import CacheBlobService
from castore_memory.service import MemoryBlobService

BIG = P3M.data + P3M.data[: 2 << 20]
"""More than what a cache fetches whole."""
BIG_DIGEST = B3Digest.of(BIG)


def capabilities(service: BlobService) -> Any:
    return service.capability(ChunkStore) or service.capability(ChunkSource)


class TestHealing:
    """What near has lost or spoilt comes from far again."""

    @pytest.fixture
    def warm(self, cache: CacheBlobService, far_store: Any) -> CacheBlobService:
        cache.read(P3M.digest)
        cache.read(HELLO.digest)
        far_store.take_requests()
        return cache

    @pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
    def test_a_chunk_of_a_list(
        self, warm: CacheBlobService, near: Any, near_store: Any, far_store: Any, key_of: Any, damage: str
    ) -> None:
        """A damaged or missing chunk is fetched from far, alone, and is good in near afterwards."""
        key = key_of("chunks", near.chunks(P3M.digest)[3].digest)
        good = near_store.objects[key]
        damaged = {
            "flip": good[:1000] + bytes([good[1000] ^ 1]) + good[1001:],
            "truncate": good[:-1],
            "empty": b"",
        }
        if damage == "remove":
            del near_store.objects[key]
        else:
            near_store.objects[key] = damaged[damage]
        assert warm.read(P3M.digest) == P3M.data
        assert far_store.requests == [("GET", key)]
        assert near_store.objects[key] == good
        far_store.take_requests()
        assert warm.read(P3M.digest) == P3M.data
        assert far_store.take_requests() == []

    @pytest.mark.parametrize("damage", ["spoil", "remove"])
    def test_a_blob_of_one_chunk(
        self, warm: CacheBlobService, near_store: Any, far_store: Any, key_of: Any, damage: str
    ) -> None:
        """So is the only chunk of a small blob, whose index is still there."""
        key = key_of("chunks", HELLO.digest)
        good = near_store.objects[key]
        if damage == "remove":
            del near_store.objects[key]
        else:
            near_store.objects[key] = b"spoilt"
        assert warm.read(HELLO.digest) == HELLO.data
        assert far_store.take_requests() == ["GET blobs", "GET chunks"]
        assert near_store.objects[key] == good

    def test_a_bad_index_is_passed_over(
        self, warm: CacheBlobService, near_store: Any, far_store: Any, key_of: Any
    ) -> None:
        """With a damaged index in near, far's is used; the chunks still come from near."""
        near_store.objects[key_of("blobs", P3M.digest)] = b"\xff"
        assert warm.read(P3M.digest) == P3M.data
        assert far_store.take_requests() == ["GET blobs"]
        assert len(warm.chunks(P3M.digest) or ()) == 8

    def test_what_far_lacks_too_is_corrupt(
        self, warm: CacheBlobService, near: Any, near_store: Any, far_store: Any, key_of: Any
    ) -> None:
        """If far has not the chunk either, near's fault is told: neither absence nor a missing chunk."""
        key = key_of("chunks", near.chunks(P3M.digest)[3].digest)
        near_store.objects[key] = b"spoilt"
        del far_store.objects[key]
        with pytest.raises(CorruptBlobError, match="not a zstd frame") as caught:
            warm.read(P3M.digest)
        assert caught.value.key == key
        near_store.objects[key_of("chunks", HELLO.digest)] = b"spoilt"
        far_store.objects.clear()
        with pytest.raises(CorruptBlobError, match=key_of("chunks", HELLO.digest)):
            warm.read(HELLO.digest)


class TestSpoiltPieces:
    """What a near without chunks has wrong."""

    @pytest.mark.parametrize("deletes", [True, False])
    def test_a_large_blob(self, smallest: Any, far: Any, deletes: bool) -> None:
        """Its last piece is held back; a near that can delete drops it, and then far's is read, and kept."""

        class Deleting(smallest, BlobDeleter):  # type: ignore[misc]
            def delete(self, digest: B3Digest) -> bool:
                return self.blobs.pop(digest, None) is not None

        near = Deleting() if deletes else smallest()
        near.blobs[BIG_DIGEST] = BIG[:-1] + b"?"
        far.write(BIG)
        cache = CacheBlobService(near, far, write="far")
        with cache.open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            assert reader.read(len(BIG) - 70_000) == BIG[:-70_000]
            for _ in range(2):
                with pytest.raises(CorruptBlobError) as caught:
                    reader.read()
                assert caught.value.expected == BIG_DIGEST
        if deletes:
            assert cache.read(BIG_DIGEST) == BIG
            assert near.blobs[BIG_DIGEST] == BIG

    def test_a_small_blob(self, smallest: Any, far: Any, far_store: Any) -> None:
        """It is checked before a byte is used, and replaced by far's."""
        near = smallest()
        near.blobs[HELLO.digest] = b"Hello World?"
        far.write(HELLO.data)
        cache = CacheBlobService(near, far)
        assert cache.read(HELLO.digest) == HELLO.data
        far_store.take_requests()
        assert cache.read(HELLO.digest) == HELLO.data
        assert far_store.take_requests() == []

    def test_a_blob_that_ends_early(self, smallest: Any, far: Any) -> None:
        """Far goes on where near has no more, though it said so."""

        class Short(smallest):  # type: ignore[misc]
            def open_read(self, digest: B3Digest) -> Any:
                reader = super().open_read(digest)
                if reader is not None and digest == BIG_DIGEST:
                    reader.piece_at = lambda position: memoryview(BIG[position : 5 << 19][:50_000])
                    reader.read = lambda size: bytes(reader.piece_at(reader._position))[:size]
                    reader.seek = lambda position: setattr(reader, "_position", position)
                return reader

        near = Short()
        near.write(BIG)
        far.write(BIG)
        assert CacheBlobService(near, far).read(BIG_DIGEST) == BIG


class TestNearFails:
    """A near that fails is logged and passed over, as far as reading goes."""

    @pytest.fixture(params=["near", "far", "both"])
    def write(self, request: Any) -> Any:
        return request.param

    @pytest.mark.parametrize("operation", [*sorted(READS - {"list_blobs"}), "all"])
    @pytest.mark.parametrize("inner", ["memory", "smallest"])
    def test_reads(
        self, smallest: Any, far: Any, caplog: Any, operation: str, inner: str, write: Any
    ) -> None:
        """Whatever near fails at, blobs that far has are read, and found."""
        near = FaultyService(MemoryBlobService() if inner == "memory" else smallest(), instance="broken")
        far.write(P3M.data)
        far.write(HELLO.data)
        for data in (HELLO.data, P3M.data):
            near.write(data)
        near.failing |= (READS | WRITES) if operation == "all" else {operation}
        cache = CacheBlobService(near, far, write=write, name="the-cache")
        for blob in (HELLO, P3M):
            assert cache.read(blob.digest) == blob.data
            assert cache.has(blob.digest) is True
            assert cache.missing([blob.digest]) == set()
            assert cache.chunks(blob.digest) is not None
            assert capabilities(cache).get_chunk(HELLO.digest) == HELLO.data
            assert capabilities(cache).get_chunk(HELLO.digest, 12) == HELLO.data
        if operation in near.calls or operation == "all":
            record = caplog.records[0]
            assert (record.name, record.levelname) == ("castore_cache", "WARNING")
            assert record.getMessage().startswith("`the-cache`: near failed and is passed over: `broken`")

    def test_in_the_middle_of_a_blob(self, smallest: Any, far: Any, caplog: Any) -> None:
        """Where near fails after it has given some of a blob, far goes on from there."""
        inner = smallest()
        inner.write(BIG)
        far.write(BIG)
        near = FaultyService(inner, instance="broken")
        with CacheBlobService(near, far).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            got = reader.read(1_000_000)
            near.failing |= READS | WRITES
            got += reader.read(1_000_000)
            assert reader.tell() == 2_000_000
            reader.seek(3_000_000)
            assert reader.read(10) == BIG[3_000_000:3_000_010]
            reader.seek(2_000_000)
            got += reader.read()
        assert got == BIG
        assert "told to fail at reader.read" in caplog.text

    @pytest.mark.parametrize("damaged", [b"\0", BIG + b"more"])
    def test_in_the_middle_of_a_blob_of_another_size(self, smallest: Any, damaged: bytes) -> None:
        """What near has is not far's blob: it does not go on there, and is corrupt."""
        inner, far = MemoryBlobService(), smallest()
        digest = far.write(b"" if len(damaged) == 1 else BIG)
        inner._chunks[digest] = damaged
        near = FaultyService(inner, instance="broken")
        with CacheBlobService(near, far).open_read(digest) as reader:  # type: ignore[union-attr]
            near.failing = {"reader.read"}
            with pytest.raises(CorruptBlobError, match=f"has {len(damaged)} bytes in near"):
                reader.read()

    def test_in_the_middle_of_what_far_lacks(self, smallest: Any, far: Any) -> None:
        """If far has not the blob, near's error is the answer, and the position stays."""
        inner = smallest()
        inner.write(BIG)
        near = FaultyService(inner, instance="broken")
        with CacheBlobService(near, far).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            reader.read(1_000_000)
            near.failing |= READS
            with pytest.raises(UnavailableError, match="`broken`"):
                reader.read(1_000_000)
            assert reader.tell() == 1_000_000
            near.failing.clear()
            assert reader.read() == BIG[1_000_000:]

    @pytest.mark.parametrize("operation", sorted(WRITES))
    @pytest.mark.parametrize("inner", ["memory", "smallest"])
    def test_filling(self, smallest: Any, far: Any, caplog: Any, operation: str, inner: str) -> None:
        """A near that cannot keep what is read does not harm the read, and gets no half blob."""
        behind = MemoryBlobService() if inner == "memory" else smallest()
        near = FaultyService(behind, {operation}, instance="broken")
        whole = smallest()
        for data in (HELLO.data, P3M.data, BIG):
            far.write(data)
            whole.write(data)
        for service in (far, whole):
            cache = CacheBlobService(near, service)
            for data in (HELLO.data, P3M.data, BIG):
                assert cache.read(B3Digest.of(data)) == data
        if operation in near.calls:
            assert "near failed and is passed over: `broken`" in caplog.text
        for data in (HELLO.data, P3M.data, BIG):
            digest = B3Digest.of(data)
            assert not behind.has(digest) or behind.read(digest) == data

    def test_absence(self, far: Any, write: Any) -> None:
        """What far lacks may be in a near that alone is written to: then its error is the answer."""
        near = FaultyService(MemoryBlobService(), READS, instance="broken")
        cache = CacheBlobService(near, far, write=write)
        calls: dict[str, Callable[[], object]] = {
            "has": lambda: cache.has(HELLO.digest),
            "missing": lambda: HELLO.digest not in cache.missing([HELLO.digest]),
            "chunks": lambda: cache.chunks(HELLO.digest),
            "open_read": lambda: cache.open_read(HELLO.digest),
            "get_chunk": lambda: capabilities(cache).get_chunk(HELLO.digest),
            "get_chunk, sized": lambda: capabilities(cache).get_chunk(HELLO.digest, 12),
        }
        for name, call in calls.items():
            if write == "near":
                with pytest.raises(UnavailableError, match="`broken`"):
                    call()
            else:
                assert not call(), name

    def test_missing_of_what_far_has(self, far: Any) -> None:
        """Near's error is no answer where far knows them all."""
        far.write(HELLO.data)
        cache = CacheBlobService(FaultyService(MemoryBlobService(), READS), far)
        assert cache.missing([HELLO.digest]) == set()


class TestFarFails:
    """An error of far is raised, and is never taken for absence."""

    @pytest.mark.parametrize("write", ["near", "far", "both"])
    def test_what_near_lacks(self, near: Any, far: Any, write: Any) -> None:
        """Every question that near cannot answer is far's error."""
        far.write(HELLO.data)
        probe = FaultyService(far, READS, instance="far")
        cache = CacheBlobService(near, probe, write=write)
        lister = cache.capability(BlobLister)
        assert lister is not None
        calls: list[Callable[[], object]] = [
            lambda: cache.has(HELLO.digest),
            lambda: cache.missing([HELLO.digest]),
            lambda: cache.chunks(HELLO.digest),
            lambda: cache.open_read(HELLO.digest),
            lambda: cache.read(HELLO.digest),
            lambda: capabilities(cache).get_chunk(HELLO.digest),
            lambda: capabilities(cache).get_chunk(HELLO.digest, 12),
            lambda: list(lister.list_blobs()),
        ]
        for call in calls:
            with pytest.raises(UnavailableError, match="`far` is unavailable"):
                call()
        near.write(HELLO.data)
        assert cache.read(HELLO.digest) == HELLO.data

    def test_in_the_middle_of_a_blob(self, near: Any, far: Any, near_store: Any) -> None:
        """Where far fails after some chunks, those stay in near, and a later read goes on with the others."""
        far.write(P3M.data)
        probe = FaultyService(far, instance="far")
        cache = CacheBlobService(near, probe)
        with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            reader.read(1_000_000)
            probe.failing |= READS
            with pytest.raises(UnavailableError, match="`far`"):
                reader.read()
            assert reader.tell() == 1_000_000
        assert near.has(P3M.digest) is False
        probe.failing.clear()
        probe.calls.clear()
        assert cache.read(P3M.digest) == P3M.data
        assert probe.calls.count("get_chunks") == 6

    def test_in_the_middle_of_a_copy(self, smallest: Any, near: Any) -> None:
        """Where a far without chunks fails, near gets nothing of what it would have been."""
        far = smallest()
        far.write(BIG)
        probe = FaultyService(far, instance="far")
        with CacheBlobService(near, probe).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            reader.read(3 << 20)
            probe.failing |= READS
            with pytest.raises(UnavailableError, match="`far`"):
                reader.read()
            probe.failing.clear()
            assert reader.read() == BIG[3 << 20 :]
        assert not near.has(BIG_DIGEST) or near.read(BIG_DIGEST) == BIG
