"""The fallback: who is asked, what breaks in the middle, what is copied, and what it can do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobNotFoundError,
    BlobService,
    BlobWriter,
    Composition,
    CorruptBlobError,
    MissingChunkError,
    UnavailableError,
)
from castore.composites.members import Member
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
)
from castore.contract.upkeep import Inventory, Sweepable
from castore.faults import READS
from castore.streams.readers import BytesReader
from castore.testing import HELLO, P3M, FaultyService
from castore.threads.pool import Pool
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService

BIG = P3M.data + P3M.data[: 2 << 20]
"""More than what is read whole when it has no chunks."""
BIG_DIGEST = B3Digest.of(BIG)


def fallback(*services: BlobService, **settings: Any) -> FallbackBlobService:
    members = [Member(name, service) for name, service in zip("abc", services, strict=False)]
    return FallbackBlobService(members, name="root", **settings)


class TestOrder:
    """Who is asked, and who is not."""

    def test_a_hit_asks_nobody_else(self) -> None:
        first, second = (FaultyService(MemoryBlobService()) for _ in range(2))
        first.write(HELLO.data)
        service = fallback(first, second)
        second.calls.clear()
        assert service.read(HELLO.digest) == HELLO.data
        assert service.has(HELLO.digest)
        assert service.missing([HELLO.digest]) == set()
        assert second.calls == []

    def test_the_second_is_asked_only_for_the_rest(self, store: Any, blobs_of: Any) -> None:
        """`missing` goes on with what the first lacks; for nothing nobody is asked."""
        first, second = MemoryBlobService(), FaultyService(MemoryBlobService())
        here, there, nowhere = first.write(b"here"), second.write(b"there"), B3Digest.of(b"nowhere")
        asked: list[set[B3Digest]] = []
        missing = second.missing
        second.missing = lambda digests: asked.append(set(digests)) or missing(digests)  # type: ignore[method-assign,func-returns-value]
        assert fallback(first, second).missing([here, there, nowhere]) == {nowhere}
        assert fallback(first, second).missing([]) == set()
        assert asked == [{there, nowhere}]

    def test_an_error_that_is_final(self) -> None:
        """With `on_error = "fail"` the member's own error is the answer, and nobody else is asked."""
        first, second = FaultyService(MemoryBlobService(), READS, instance="first"), MemoryBlobService()
        digest = second.write(b"data")
        service = FallbackBlobService([Member("a", first, final=True), Member("b", second)])
        calls: list[Callable[[], object]] = [
            lambda: service.has(digest),
            lambda: service.missing([digest]),
            lambda: service.chunks(digest),
            lambda: service.open_read(digest),
        ]
        for call in calls:
            with pytest.raises(UnavailableError, match=r"^`first` is unavailable"):
                call()
        first.failing.clear()
        assert service.read(digest) == b"data"

    def test_the_error_has_all_causes(self) -> None:
        """By the names of the members, in the message and as errors."""
        first, second = (
            FaultyService(MemoryBlobService(), READS, instance=name) for name in ("first", "a deeper one")
        )
        service = FallbackBlobService([Member("first", first), Member("second", second)], name="root")
        with pytest.raises(UnavailableError) as caught:
            service.has(HELLO.digest)
        assert caught.value.message == (
            "`root` is unavailable: `first`: told to fail at missing; "
            "`second`: `a deeper one` is unavailable: told to fail at missing"
        )
        assert set(caught.value.causes) == {"first", "second"}
        assert isinstance(caught.value.causes["first"], UnavailableError)

    @pytest.mark.parametrize(("keeps", "operation"), [(True, "put_indexes"), (False, "writer.close")])
    def test_writes_go_to_one(self, keeps: bool, operation: str) -> None:
        """By default the first; its failure is not made up for elsewhere; whether or not it keeps chunks."""
        first = FaultyService(MemoryBlobService(), instance="first", capabilities=keeps)
        second = MemoryBlobService()
        digest = fallback(first, second).write(b"data")
        assert first.has(digest)
        assert not second.has(digest)
        digest = fallback(first, second, write_to="b").write(b"other")
        assert not first.has(digest)
        assert second.has(digest)
        first.failing = {operation}
        with pytest.raises(UnavailableError, match="`first`"):
            fallback(first, second).write(b"third")
        assert not second.has(B3Digest.of(b"third"))

    def test_each_verdict_is_on_one_digest(self) -> None:
        """An error that is final is that of what only later members have; what was found stays found."""
        first, second = MemoryBlobService(), FaultyService(MemoryBlobService(), {"get_chunks"}, instance="b")
        third = MemoryBlobService()
        here, there = first.write(b"here"), third.write(b"there")
        members = [Member("a", first), Member("b", second, final=True), Member("c", third)]
        source = FallbackBlobService(members).capability(ChunkSource)
        assert source is not None
        found = source.get_chunks({here: None, there: 5})
        assert found[here] == b"here"
        assert isinstance(found[there], UnavailableError)
        with pytest.raises(UnavailableError, match=r"^`b` is unavailable"):
            source.get_chunks({there: 5})
        second.failing.clear()
        assert source.get_chunks({here: None, there: 5}) == {here: b"here", there: b"there"}


class TestInTheMiddle:
    """A read that breaks goes on elsewhere, at the same position, with bytes that were checked."""

    @pytest.fixture
    def stores(self, store: Any) -> list[Any]:
        return [type(store)(name) for name in "abc"]

    @pytest.fixture
    def cut(self, stores: Any, blobs_of: Any) -> list[BlobService]:
        """Three object stores that cut blobs at different places; the first two have one."""
        services = [
            blobs_of(store, avg_chunk_size=size)
            for store, size in zip(stores, (65536, 262144, 65536), strict=True)
        ]
        for service in services[:2]:
            service.write(P3M.data)
        return services

    def test_of_a_blob_in_chunks(self, cut: Any, stores: Any) -> None:
        """The next member need not have cut the blob alike."""
        with fallback(*cut).open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            got = reader.read(1_000_000)
            stores[0].failing = lambda verb, key: True
            got += reader.read(1_000_000)
            assert reader.tell() == 2_000_000
            got += reader.read()
        assert got == P3M.data

    @pytest.mark.parametrize("damage", ["spoil", "remove"])
    def test_of_a_chunk_that_is_not_right(self, cut: Any, stores: Any, key_of: Any, damage: str) -> None:
        """One chunk comes from elsewhere; no byte of the damaged one is seen."""
        chunks = cut[0].chunks(P3M.digest)
        key = key_of("chunks", chunks[3].digest)
        if damage == "spoil":
            stores[0].objects[key] = b"spoilt"
        else:
            del stores[0].objects[key]
        assert fallback(*cut).read(P3M.digest) == P3M.data
        with fallback(*cut).open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            start = sum(meta.size for meta in chunks[:3])
            reader.seek(start + 5)
            assert reader.read(10) == P3M.data[start + 5 : start + 15]

    def test_of_a_chunk_beneath_another_fallback(self, cut: Any, stores: Any, key_of: Any) -> None:
        """Asked for the chunk alone, that one cannot take it out of the blob; asked for the blob it can."""
        stores[0].objects[key_of("chunks", cut[0].chunks(P3M.digest)[3].digest)] = b"spoilt"
        assert fallback(fallback(*cut[:2]), cut[2]).read(P3M.digest) == P3M.data

    def test_a_chunk_that_nobody_has_right(self, cut: Any, stores: Any, key_of: Any) -> None:
        """Corrupt stays corrupt, what is gone is a missing chunk, who cannot be asked is unavailable."""
        key = key_of("chunks", cut[0].chunks(P3M.digest)[3].digest)
        stores[1].objects.clear()
        good = stores[0].objects[key]
        stores[0].objects[key] = b"spoilt"
        service = fallback(*cut)
        with pytest.raises(CorruptBlobError, match="not a zstd frame"):
            service.read(P3M.digest)
        del stores[0].objects[key]
        with pytest.raises(MissingChunkError, match=str(P3M.digest)):
            service.read(P3M.digest)
        stores[1].failing = lambda verb, key: True
        with pytest.raises(UnavailableError, match="`b`: no route"):
            service.read(P3M.digest)
        stores[0].objects[key] = good
        assert service.read(P3M.digest) == P3M.data

    def test_who_fails_is_asked_last_from_then_on(self, cut: Any, stores: Any) -> None:
        """A member that is slow to fail does not slow down each chunk."""
        with fallback(*cut).open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            reader.read(1_000_000)
            stores[0].failing = lambda verb, key: True
            stores[0].requests.clear()
            reader.read()
        assert len(stores[0].requests) == 1

    def test_chunks_are_fetched_ahead(self, cut: Any, stores: Any) -> None:
        """As from the member itself; what fails there in the meantime comes from the next one."""
        workers = Pool(2)
        members = [Member(name, service) for name, service in zip("ab", cut, strict=False)]
        service = FallbackBlobService(members, pool=workers)
        with service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            got = reader.read(200_000)
            stores[0].failing = lambda verb, key: True
            assert got + reader.read() == P3M.data
        asked: set[str] = set()
        third = threading.Event()

        def note(verb: str, key: str) -> bool:
            if key.startswith("chunks"):
                asked.add(key)
            if len(asked) > 2:
                third.set()
            return False

        stores[0].failing = note
        with service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            for meta in cut[0].chunks(P3M.digest)[:2]:
                reader.read(meta.size)
            assert third.wait(30)
        workers.close()

    def test_a_list_that_is_forged(self, cut: Any, stores: Any, key_of: Any) -> None:
        """Chunks that make up another blob are found out, and the next member is read, also from then on."""
        other = BIG[100:]
        cut[0].write(other)
        stores[0].objects[key_of("blobs", P3M.digest)] = stores[0].objects[
            key_of("blobs", B3Digest.of(other))
        ]
        service = fallback(*cut)
        with pytest.raises(CorruptBlobError, match="was wrong, and what was read by it is not of this blob"):
            list(service.open(P3M.digest))
        assert service.read(P3M.digest) == P3M.data
        assert fallback(*cut).read(P3M.digest) == P3M.data
        with pytest.raises(CorruptBlobError, match="the chunks of its index make up"):
            fallback(cut[0]).read(P3M.digest)

    def test_of_a_large_blob_in_one_piece(self, smallest: Any) -> None:
        """Where there are no chunks to check, size and position are the same, and so is the digest."""
        first, second = smallest(), smallest()
        first.write(BIG)
        second.write(BIG)
        probe = FaultyService(first, instance="a", capabilities=False)
        with fallback(probe, second).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            got = reader.read(1_000_000)
            probe.failing |= READS
            got += reader.read(1_000_000)
            reader.seek(3_000_000)
            assert reader.read(10) == BIG[3_000_000:3_000_010]
            reader.seek(2_000_000)
            assert got + reader.read() == BIG

    def test_a_large_blob_that_is_not_what_it_should_be(self, smallest: Any) -> None:
        """Read from the start, its last piece is held back."""
        liar = smallest()
        liar.blobs[BIG_DIGEST] = BIG[:-1] + b"?"
        with fallback(liar, MemoryBlobService()).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            assert reader.read(4_000_000) == BIG[:4_000_000]
            with pytest.raises(CorruptBlobError, match="its bytes have the digest"):
                reader.read()
            with pytest.raises(CorruptBlobError):
                reader.read()

    def test_another_size_in_the_middle(self, smallest: Any) -> None:
        """The next member has a blob of that name, but shorter: no byte of it is used."""
        first, liar = smallest(), smallest()
        first.write(BIG)
        liar.blobs[BIG_DIGEST] = BIG[:-1]
        probe = FaultyService(first, instance="a", capabilities=False)
        with fallback(probe, liar).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            reader.read(1_000_000)
            probe.failing |= READS
            with pytest.raises(UnavailableError, match=r"`b`: blob .* has 5242879 bytes in `b`"):
                reader.read(1_000_000)
            assert reader.tell() == 1_000_000
            probe.failing.clear()
            assert reader.read() == BIG[1_000_000:]

    def test_a_small_blob_that_is_not_what_it_should_be(self, smallest: Any) -> None:
        """It is checked whole before a byte of it is used: the next member has it right."""
        liar, second = smallest(), MemoryBlobService()
        liar.blobs[HELLO.digest] = b"Hello World?"
        with pytest.raises(CorruptBlobError):
            fallback(liar, second).read(HELLO.digest)
        second.write(HELLO.data)
        assert fallback(liar, second).read(HELLO.digest) == HELLO.data

    def test_chunks_by_themselves(self, cut: Any, stores: Any, key_of: Any) -> None:
        """The capability to read chunks passes over what fails, too, and tells sizes that are wrong."""
        meta = cut[0].chunks(P3M.digest)[0]
        cut[2].capability(ChunkStore).put_chunk(meta.digest, P3M.data[: meta.size])
        stores[0].objects[key_of("chunks", meta.digest)] = b"spoilt"
        source = fallback(*cut).capability(ChunkSource)
        assert source is not None
        for size in (None, meta.size):
            assert source.get_chunk(meta.digest, size) == P3M.data[: meta.size]
        with pytest.raises(CorruptBlobError):
            source.get_chunk(meta.digest, meta.size + 1)
        assert source.chunk_key(meta.digest) == key_of("chunks", meta.digest)


class Hanging(BlobService):
    """Keeps no chunks; hangs where it is told to, and remembers what was closed and aborted."""

    def __init__(self) -> None:
        self.kept = MemoryBlobService()
        self.at = ""
        self.hung = threading.Event()
        self.released = threading.Event()
        self.ended: list[str] = []
        self.taken: list[bytes] = []
        self.over = threading.Event()

    def meet(self, operation: str) -> None:
        if operation == self.at:
            self.hung.set()
            self.released.wait(30)

    def end(self, how: str) -> None:
        self.ended.append(how)
        self.over.set()

    def has(self, digest: B3Digest) -> bool:
        return self.kept.has(digest)

    def open_read(self, digest: B3Digest) -> Any:
        reader = OwnReader(self, self.kept.read(digest)) if self.kept.has(digest) else None
        self.meet("open_read")
        return reader

    def open_write(self) -> BlobWriter:
        return OwnWriter(self, self.kept.open_write())


class OwnReader(BytesReader):
    def __init__(self, service: Hanging, data: bytes) -> None:
        super().__init__(data)
        self.service = service

    def piece_at(self, position: int) -> memoryview:
        self.service.meet("read")
        return super().piece_at(position)

    def close(self) -> None:
        if not self.closed:
            self.service.end("reader closed")
        super().close()


class OwnWriter(BlobWriter):
    def __init__(self, service: Hanging, writer: BlobWriter) -> None:
        self.service = service
        self.writer = writer

    def write(self, data: Any, /) -> int:
        self.service.meet("write")
        self.service.taken.append(bytes(data))
        return self.writer.write(data)

    def close(self) -> B3Digest:
        self.service.meet("close")
        return self.writer.close()

    def abort(self) -> None:
        self.writer.abort()
        self.service.end("writer aborted")


class HangingStore(MemoryBlobService):
    """Keeps chunks; hangs where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.at = ""
        self.released = threading.Event()
        self.over = threading.Event()
        self.has_put = threading.Event()

    def meet(self, operation: str) -> None:
        if operation == self.at:
            self.released.wait(30)

    def chunks(self, digest: B3Digest) -> Any:
        self.meet("chunks")
        return super().chunks(digest)

    def get_chunks(self, sizes: Any) -> Any:
        self.meet("get_chunks")
        return super().get_chunks(sizes)

    def claim(self, digests: Any) -> set[B3Digest]:
        self.meet("claim")
        return super().claim(digests)

    def put_chunks(self, chunks: Any) -> None:
        self.meet("put_chunks")
        super().put_chunks(chunks)
        self.has_put.set()

    def put_indexes(self, blobs: Any) -> None:
        self.meet("put_indexes")
        super().put_indexes(blobs)

    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        self.meet("lease")
        yield self
        self.over.set()


class TestHangs:
    """A member that hangs is waited for as long as its timeout, and what it held is released in the end."""

    @pytest.fixture
    def hanging(self) -> Iterator[Hanging]:
        service = Hanging()
        yield service
        service.released.set()

    @pytest.fixture
    def chunked(self) -> Iterator[HangingStore]:
        service = HangingStore()
        yield service
        service.released.set()

    def service_over(self, hanging: BlobService) -> FallbackBlobService:
        second = MemoryBlobService()
        for data in (BIG, HELLO.data):
            hanging.write(data)
            second.write(data)
        return FallbackBlobService([Member("slow", hanging, timeout=0.25), Member("b", second)], name="root")

    @pytest.mark.parametrize("at", ["open_read", "read"])
    @pytest.mark.parametrize("data", [HELLO.data, BIG], ids=["small", "big"])
    def test_a_read(self, hanging: Hanging, at: str, data: bytes) -> None:
        """The next member gives the blob; the reader that hung is closed once it comes back."""
        service = self.service_over(hanging)
        hanging.at = at
        hanging.ended.clear()
        hanging.over.clear()
        assert service.read(B3Digest.of(data)) == data
        assert hanging.hung.is_set()
        assert hanging.ended == []
        hanging.released.set()
        assert hanging.over.wait(30)
        assert hanging.ended == ["reader closed"]

    @pytest.mark.parametrize("at", ["chunks", "get_chunks"])
    def test_a_read_in_chunks(self, chunked: HangingStore, at: str) -> None:
        service = self.service_over(chunked)
        chunked.at = at
        assert service.read(BIG_DIGEST) == BIG
        source = service.capability(ChunkSource)
        assert source is not None
        assert source.get_chunk(HELLO.digest) == HELLO.data

    @pytest.mark.parametrize("at", ["write", "close"])
    def test_a_write(self, hanging: Hanging, at: str) -> None:
        """It fails; the writer that hung is aborted once it comes back; the buffer may be used again."""
        service = self.service_over(hanging)
        hanging.at = at
        buffer = bytearray(b"data")
        writer = service.open_write()
        if at == "close":
            writer.write(buffer)
        step = writer.close if at == "close" else lambda: writer.write(buffer)
        with pytest.raises(UnavailableError, match=r"`slow` is unavailable: no answer within 0.25 s"):
            step()
        buffer[:] = b"????"
        writer.abort()
        assert hanging.ended == []
        hanging.released.set()
        assert hanging.over.wait(30)
        assert hanging.ended == ["writer aborted"]
        assert hanging.taken[-1] == b"data"
        assert hanging.has(B3Digest.of(b"data")) is (at == "close")
        assert not hanging.has(B3Digest.of(b"????"))

    @pytest.mark.parametrize("at", ["claim", "put_chunks", "put_indexes"])
    def test_a_write_in_chunks(self, chunked: HangingStore, at: str) -> None:
        """It fails; what is still put when the buffer is used again are the bytes that were there."""
        service = self.service_over(chunked)
        chunked.at = at
        buffer = bytearray(b"data")
        chunked.has_put.clear()
        with pytest.raises(UnavailableError, match=r"`slow` is unavailable: no answer within 0.25 s"):
            service.write(buffer)
        buffer[:] = b"????"
        if at == "put_chunks":
            chunked.released.set()
            assert chunked.has_put.wait(30)
            assert chunked.get_chunk(B3Digest.of(b"data")) == b"data"

    def test_leasing(self, chunked: HangingStore) -> None:
        """What hangs when chunks are to be kept is given up as well, and let go of in the end."""
        store = self.service_over(chunked).capability(ChunkStore)
        assert store is not None
        chunked.over.clear()
        with store.lease() as leased:
            assert not chunked.over.is_set()
            leased.put_chunk(B3Digest.of(b"leased"), b"leased")
            chunked.over.clear()
        assert chunked.over.is_set()
        assert chunked.get_chunk(B3Digest.of(b"leased")) == b"leased"
        chunked.over.clear()
        chunked.at = "lease"
        with pytest.raises(UnavailableError, match="`slow`"), store.lease():
            pass
        chunked.released.set()
        assert chunked.over.wait(30)

    def test_health_tells(self, hanging: Hanging) -> None:
        service = self.service_over(hanging)
        assert all(member.ok for member in service.health())
        hanging.at = "open_read"
        service.read(HELLO.digest)
        slow, other = service.health()
        assert (slow.name, slow.ok, slow.failures, slow.abandoned) == ("slow", False, 1, 1)
        assert slow.last_error == "`slow` is unavailable: no answer within 0.25 s"
        assert other.ok
        hanging.released.set()
        service._members.all[0].timeout = 30
        service.has(HELLO.digest)
        assert service.health()[0].failures == 0


class TestCopying:
    """With `copy_to`, what later members had is kept by an earlier one."""

    def test_of_a_read_from_start_to_end(self, smallest: Any, far: Any, caplog: Any) -> None:
        for source in (far, smallest()):
            for data in (HELLO.data, P3M.data, BIG, b""):
                digest = source.write(data)
                target = MemoryBlobService()
                service = fallback(target, source, copy_to="a")
                assert service.read(digest) == data
                assert target.read(digest) == data
                assert service.read(digest) == data
        assert caplog.text == ""

    @pytest.mark.parametrize("keeps", [True, False])
    def test_of_many_read_together(self, keeps: bool) -> None:
        """Small blobs are kept with two calls for each batch that is read, if the target keeps chunks."""
        target = FaultyService(MemoryBlobService(), instance="a", capabilities=keeps)
        source = MemoryBlobService()
        blobs = {source.write(b"%d" % number): b"%d" % number for number in range(40)}
        service = fallback(target, source, copy_to="a")
        assert dict(service.read_many(blobs)) == blobs
        assert sorted(target._service.list_blobs()) == sorted(blobs)  # type: ignore[attr-defined]
        batches = target.calls.count("get_chunks")
        assert [target.calls.count(name) for name in ("put_chunks", "put_indexes")] == [batches] * 2
        target.calls.clear()
        assert dict(service.read_many(blobs)) == blobs
        assert "put_chunks" not in target.calls

    def test_a_target_that_fails_harms_no_reader_of_many(self, caplog: Any) -> None:
        target = FaultyService(MemoryBlobService(), {"put_chunks"}, instance="a")
        source = MemoryBlobService()
        digest = source.write(b"data")
        assert dict(fallback(target, source, copy_to="a").read_many([digest])) == {digest: b"data"}
        assert "nothing was copied to `a`" in caplog.records[0].getMessage()

    def test_line_by_line(self, far: Any) -> None:
        """However small the steps are."""
        data = b"line\n" * 300_000
        digest = far.write(data)
        target = MemoryBlobService()
        with fallback(target, far, copy_to="a").open_read(digest) as reader:  # type: ignore[union-attr]
            assert sum(1 for _ in reader) == 300_000
        assert target.read(digest) == data

    def test_not_of_a_part(self, far: Any) -> None:
        """Of a blob in chunks that is not read from start to end nothing is kept."""
        digest = far.write(P3M.data)
        target = MemoryBlobService()
        service = fallback(target, far, copy_to="a")
        with service.open_read(digest) as reader:  # type: ignore[union-attr]
            reader.read(1_000_000)
        with service.open_read(digest) as reader:  # type: ignore[union-attr]
            reader.seek(2_000_000)
            reader.read()
        assert list(target.list_blobs()) == []

    def test_not_of_what_is_corrupt(self, smallest: Any) -> None:
        """The last piece never came, so nothing is kept."""
        liar, target = smallest(), MemoryBlobService()
        liar.blobs[BIG_DIGEST] = BIG[:-1] + b"?"
        with pytest.raises(CorruptBlobError):
            fallback(target, liar, copy_to="a").read(BIG_DIGEST)
        assert list(target.list_blobs()) == []

    def test_only_to_an_earlier_one(self) -> None:
        """What an earlier member had is not copied to a later one, which was not asked."""
        first, second = MemoryBlobService(), MemoryBlobService()
        digest = first.write(b"data")
        assert fallback(first, second, copy_to="b").read(digest) == b"data"
        assert not second.has(digest)

    @pytest.mark.parametrize("operation", ["open_write", "writer.write", "writer.close"])
    @pytest.mark.parametrize("data", [HELLO.data, P3M.data], ids=["small", "cut"])
    def test_a_target_that_fails_harms_no_reader(
        self, far: Any, caplog: Any, operation: str, data: bytes
    ) -> None:
        target = FaultyService(MemoryBlobService(), {operation}, instance="a")
        digest = far.write(data)
        assert fallback(target, far, copy_to="a").read(digest) == data
        assert caplog.records[0].getMessage() == (
            f"`root`: nothing was copied to `a`: `a` is unavailable: told to fail at {operation}"
        )
        assert not target.has(digest)


class Deleting(MemoryBlobService, BlobDeleter, Durable):
    """Has more capabilities than most."""

    durability = "process"

    def delete(self, digest: B3Digest) -> bool:
        return None not in (self._indexes.pop(digest, None), self._chunks.pop(digest, None))


class TestCapabilities:
    """None is lost and none is faked."""

    def test_what_takes_the_capability_of_all(self, smallest: Any) -> None:
        for kind in (BlobLister, BlobDeleter):
            assert isinstance(fallback(Deleting(), Deleting()).capability(kind), kind)
            assert fallback(Deleting(), smallest()).capability(kind) is None
            assert fallback(smallest(), Deleting()).capability(kind) is None

    def test_what_takes_the_capability_of_the_one_that_is_written_to(self, smallest: Any) -> None:
        for kind in (ChunkStore, Durable):
            assert isinstance(fallback(Deleting(), smallest()).capability(kind), kind)
            assert fallback(smallest(), Deleting()).capability(kind) is None
            assert isinstance(fallback(smallest(), Deleting(), write_to="b").capability(kind), kind)

    def test_chunks_can_always_be_read(self, smallest: Any) -> None:
        assert isinstance(fallback(smallest()).capability(ChunkSource), ChunkSource)

    def test_what_is_never_there(self) -> None:
        """What concerns single stores, or comes unchecked so that the next one could not be asked instead."""
        for kind in (Inventory, Sweepable, FrameStore, EvictionEvents):
            assert fallback(Deleting(), Deleting()).capability(kind) is None

    def test_the_list_has_what_any_member_has_once(self) -> None:
        """If one of them fails so does the list: it would be short."""
        first, second = MemoryBlobService(), FaultyService(MemoryBlobService(), instance="b")
        digests = {first.write(b"1"), first.write(b"2"), second.write(b"2"), second.write(b"3")}
        lister = fallback(first, second).capability(BlobLister)
        assert lister is not None
        assert sorted(lister.list_blobs()) == sorted(digests)
        second.failing.add("list_blobs")
        with pytest.raises(UnavailableError, match="`b`"):
            list(lister.list_blobs())

    def test_a_blob_is_deleted_everywhere(self) -> None:
        """Or the error says where it may still be."""
        first, second = Deleting(), Deleting()
        service = fallback(first, second)
        deleter = service.capability(BlobDeleter)
        assert deleter is not None
        digest = second.write(b"data")
        assert deleter.delete(digest) is True
        assert deleter.delete(digest) is False
        first.write(b"data")
        second.write(b"data")
        broken = FaultyService(first, {"delete"}, instance="a")
        deleter = fallback(broken, second).capability(BlobDeleter)
        assert deleter is not None
        with pytest.raises(UnavailableError, match="`a`: told to fail at delete"):
            deleter.delete(digest)
        assert not second.has(digest)

    def test_chunks_are_written_to_one(self) -> None:
        """A chunk that another member has is not taken for one that the target need not get."""
        first, second = MemoryBlobService(), MemoryBlobService()
        store = fallback(first, second).capability(ChunkStore)
        assert store is not None
        digest = second.write(b"chunk")
        assert store.has_chunk(digest)
        assert not store.claim_chunk(digest)
        with store.lease() as leased:
            leased.put_chunk(digest, b"chunk")
            leased.put_index(digest, ())
        assert store.claim_chunk(digest)
        assert first.read(digest) == b"chunk"


def test_as_a_composition() -> None:
    """Entries of both forms, and the names that they go by."""
    tables = {
        "root": {
            "type": "fallback",
            "services": ["&one", {"ref": "&two", "timeout": "30 s", "on_error": "fail"}, "memory:"],
            "write_to": "two",
            "copy_to": "one",
        },
        "one": {"type": "memory"},
        "two": {"type": "memory"},
    }
    with Composition.from_mapping({"blobservices": tables}) as stores:
        root = stores.blobs()
        assert isinstance(root, FallbackBlobService)
        digest = root.write(b"data")
        assert stores.blobs("two").has(digest)
        assert not stores.blobs("one").has(digest)
        assert root.read(digest) == b"data"
        assert stores.blobs("one").has(digest)
        assert [member.name for member in root.health()] == ["one", "two", "services[2]"]
        with pytest.raises(BlobNotFoundError):
            root.read(HELLO.digest)
