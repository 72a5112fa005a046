"""What stands around a service sees each operation, loses no capability, and costs no copy."""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    SourceError,
    UnavailableError,
    WriterClosedError,
    from_url,
)
from castore.contract.capabilities import (
    BatchExistence,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
)
from castore.contract.upkeep import Sweepable
from castore.streams.readers import BytesReader
from castore.testing import CHUNKS, HELLO, P3M
from castore.wrapping.forwarding import ForwardingReader, ForwardingWriter, forwarded_capability, pieces_of
from castore.wrapping.wrapper import WrapperService
from castore_memory.service import MemoryBlobService


class Noting(WrapperService):
    """Notes the operations, fails at those of `failing`, as often as `times` says."""

    def __init__(self, inner: BlobService, *failing: str) -> None:
        super().__init__(inner)
        self.failing = set(failing)
        self.noted: list[str] = []

    def around(self, operation: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.noted.append(operation)
        if operation in self.failing:
            raise UnavailableError("noting", operation)
        return call(*args, **kwargs)

    def take(self) -> list[str]:
        taken, self.noted = self.noted, []
        return taken


@pytest.fixture
def chunked() -> Iterator[BlobService]:
    """A service that keeps blobs in chunks."""
    with from_url("objectstore+memory:") as service:
        yield service


def kind(service: BlobService, which: Callable[..., Any]) -> Any:
    found = service.capability(which)
    assert found is not None
    return found


class TestOperations:
    @pytest.fixture
    def noting(self, chunked: BlobService) -> Noting:
        return Noting(chunked)

    def test_of_the_service(self, noting: Noting) -> None:
        """Each method is an operation of its name; what is made of them is no operation by itself."""
        digest = noting.write(P3M.data)
        assert noting.take() == ["open_write", "writer.write", "writer.close"]
        assert noting.has(digest) is True
        assert len(noting.chunks(digest) or ()) == 8
        assert noting.missing([digest, HELLO.digest]) == {HELLO.digest}
        assert noting.open_read(HELLO.digest) is None
        assert noting.take() == ["has", "chunks", "missing", "open_read"]
        assert noting.read(digest) == P3M.data
        assert noting.take() == ["open_read", *["reader.read"] * 8]

    def test_of_powers(self, noting: Noting) -> None:
        """So is each method of a capability; what it only states about itself is none."""
        chunk = CHUNKS[0]
        store = kind(noting, ChunkStore)
        with store.hold():
            assert store.claim_chunk(chunk.digest) is False
            store.put_chunk(chunk.digest, chunk.data)
            store.put_indexes([(chunk.digest, ())])
        assert store.get_chunk(chunk.digest, chunk.size) == chunk.data
        assert noting.take() == ["hold", "claim_chunk", "put_chunk", "put_indexes", "get_chunk"]
        assert store.chunk_key(chunk.digest).startswith("chunks/b3/")
        assert kind(noting, FrameStore).frame_format == "zstd"
        assert kind(noting, Durable).durability in {"process", "full"}
        assert noting.take() == []
        assert list(kind(noting, BlobLister).list_blobs()) == [chunk.digest]
        items = list(kind(noting, Sweepable).list_items())
        assert [item.kind for item in items] == ["index", "chunk"]
        assert list(kind(noting, Sweepable).sweep(items, older_than=0.0)) == []
        assert noting.take() == ["list_blobs", "list_items", "sweep"]

    @pytest.mark.parametrize("operation", ["has", "chunks", "missing", "open_read", "open_write"])
    def test_that_fail_do_not_reach_the_service(self, operation: str) -> None:
        """An operation that `around` does not do is not done."""
        inner = Noting(MemoryBlobService())
        outer = Noting(inner, operation)
        arguments = {"open_write": (), "missing": ([HELLO.digest],)}.get(operation, (HELLO.digest,))
        with pytest.raises(UnavailableError, match=operation):
            getattr(outer, operation)(*arguments)
        assert inner.noted == []

    def test_missing_may_be_asked_again(self) -> None:
        """What was given as an iterator is there a second time."""

        class Twice(WrapperService):
            def around(self, operation: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
                call(*args, **kwargs)
                return call(*args, **kwargs)

        assert Twice(MemoryBlobService()).missing(iter([HELLO.digest])) == {HELLO.digest}


class TestPowers:
    def test_are_those_within(self) -> None:
        """A wrapper has what is within, as an object of that capability alone, and the same one each time."""
        wrapped = WrapperService(MemoryBlobService())
        source = wrapped.capability(ChunkSource)
        assert isinstance(source, ChunkSource)
        assert not isinstance(source, ChunkStore)
        assert wrapped.capability(ChunkSource) is source
        assert wrapped.capability(Durable) is None

    def test_the_class_of_a_service_is_no_power(self) -> None:
        """A wrapper is what it is, and does not pose as what is within."""
        wrapped = WrapperService(MemoryBlobService())
        assert wrapped.capability(MemoryBlobService) is None
        assert wrapped.capability(WrapperService) is wrapped

    def test_of_strangers(self) -> None:
        """A capability that castore has never heard of goes through as well."""

        class Rewinding(ABC):
            @property
            @abstractmethod
            def speed(self) -> int: ...

            @abstractmethod
            def rewind(self, times: int, *, fast: bool = False) -> str: ...

            @abstractmethod
            def _motor(self) -> None: ...

        class Tape(MemoryBlobService, Rewinding):
            speed = 7

            def _motor(self) -> None: ...

            def rewind(self, times: int, *, fast: bool = False) -> str:
                return f"{times} {fast}"

        noting = Noting(Tape())
        found = kind(noting, Rewinding)
        assert isinstance(found, Rewinding)
        assert (found.speed, found.rewind(2, fast=True)) == (7, "2 True")
        assert noting.noted == ["rewind"]

    def test_batches_and_evictions(self) -> None:
        """These two have methods of their own kind: one is the service's, the other only subscribes."""

        class Evicting(MemoryBlobService, EvictionEvents, BatchExistence):  # type: ignore[misc]
            def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
                callback(HELLO.digest)
                return lambda: None

        noting = Noting(Evicting())
        told: list[B3Digest] = []
        kind(noting, EvictionEvents).on_evict(told.append)
        assert (told, noting.take()) == ([HELLO.digest], [])
        assert kind(noting, BatchExistence).missing(iter([HELLO.digest])) == {HELLO.digest}
        assert noting.take() == ["missing"]


class Listing(BlobLister):
    """Lists two blobs; the first attempts fail, before any of them."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.begun = 0

    def list_blobs(self) -> Iterator[B3Digest]:
        self.begun += 1
        if self.begun <= self.failures:
            raise UnavailableError("listing", "not now")
        yield HELLO.digest
        yield P3M.digest


class TestIterators:
    def test_begin_when_they_are_iterated(self) -> None:
        """Asking for a list does nothing; no item is lost."""
        listing = Listing()
        iterator = forwarded_capability(
            BlobLister, listing, WrapperService(MemoryBlobService()).around
        ).list_blobs()
        assert listing.begun == 0
        assert list(iterator) == [HELLO.digest, P3M.digest]
        assert listing.begun == 1

    def test_can_be_tried_again(self) -> None:
        """Each attempt begins a list of its own: none is mistaken for one that has ended."""

        def twice(operation: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(UnavailableError):
                return call(*args, **kwargs)
            return call(*args, **kwargs)

        listing = Listing(failures=1)
        assert list(forwarded_capability(BlobLister, listing, twice).list_blobs()) == [
            HELLO.digest,
            P3M.digest,
        ]
        assert listing.begun == 2

    def test_of_nothing(self) -> None:
        """An empty list is one."""
        noting = Noting(MemoryBlobService())
        assert list(kind(noting, BlobLister).list_blobs()) == []

    def test_a_hold_lasts_as_long_as_its_block(self) -> None:
        """It is entered once and left once, also after an error."""
        events: list[str] = []

        class Holding(MemoryBlobService):
            @contextlib.contextmanager
            def hold(self) -> Iterator[None]:
                events.append("in")
                try:
                    yield
                finally:
                    events.append("out")

        store = kind(Noting(Holding()), ChunkStore)
        with pytest.raises(ZeroDivisionError), store.hold():  # noqa: PT012 - it is the block that matters
            assert events == ["in"]
            raise ZeroDivisionError
        assert events == ["in", "out"]


class TestReaders:
    def test_pieces_are_not_copied(self) -> None:
        """Through ten readers the piece is a view of the very bytes that are kept."""
        reader: Any = BytesReader(P3M.data)
        for _ in range(10):
            reader = ForwardingReader(reader, WrapperService(MemoryBlobService()).around)
        assert reader.piece_at(5).obj is P3M.data

    def test_small_reads_stay_in_the_piece(self, chunked: BlobService) -> None:
        """A piece is asked for once, however small the reads are."""
        noting = Noting(chunked)
        digest = chunked.write(P3M.data)
        first = (chunked.chunks(digest) or ())[0].size
        with noting.open_read(digest) as reader:  # type: ignore[union-attr]
            noting.take()
            for start in range(0, first, 1000):
                reader.seek(start)
                assert reader.read(min(1000, first - start)) == P3M.data[start : min(start + 1000, first)]
            assert noting.take() == ["reader.read"]
            reader.seek(0)
            assert reader.read(10) == P3M.data[:10]
            assert noting.take() == []

    def test_after_a_fault_nothing_old_is_given(self) -> None:
        """A piece ends with the next one, also if that does not come."""

        class Reusing(BytesReader):
            """Has one buffer for all of its pieces, and spoils it before it fails."""

            buffer = bytearray(4)
            failing = False

            def piece_at(self, position: int) -> memoryview:
                self.buffer[:] = b"????"
                if self.failing:
                    raise UnavailableError("reusing", "not now")
                piece = super().piece_at(position)[:4]
                self.buffer[: len(piece)] = piece
                return memoryview(self.buffer)[: len(piece)]

        inner = Reusing(b"abcdefgh")
        with ForwardingReader(inner, WrapperService(MemoryBlobService()).around) as reader:
            assert reader.read(4) == b"abcd"
            inner.failing = True
            with pytest.raises(UnavailableError):
                reader.read(4)
            inner.failing = False
            reader.seek(0)
            assert reader.read() == b"abcdefgh"

    def test_a_reader_without_pieces(self) -> None:
        """Any reader of a stranger has pieces, and is closed with those."""

        class Strange(BlobReader):
            size = 26  # type: ignore[assignment]
            at = 0

            def tell(self) -> int:
                return self.at

            def seek(self, offset: int, whence: int = 0, /) -> int:
                self.at = offset
                return offset

            def read(self, size: int | None = -1, /) -> bytes:
                data = bytes(range(97, 123))[self.at :][:size]
                self.at += len(data)
                return data

        strange = Strange()
        with ForwardingReader(strange, WrapperService(MemoryBlobService()).around) as reader:
            assert reader.read(3) == b"abc"
            reader.seek(23)
            assert reader.read() == b"xyz"
        assert strange.closed
        pieces = BytesReader(b"")
        assert pieces_of(pieces) is pieces

    def test_closing(self) -> None:
        """The reader within closes once; what is held goes, and reading on is refused."""
        inner = BytesReader(HELLO.data)
        reader = ForwardingReader(inner, WrapperService(MemoryBlobService()).around)
        reader.read(1)
        reader.close()
        reader.close()
        assert inner.closed
        with pytest.raises(ValueError, match="closed"):
            reader.read(1)


class TestFiles:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / "a", tmp_path / "gone", tmp_path / "b"]
        paths[0].write_bytes(HELLO.data)
        paths[2].write_bytes(P3M.data)
        return paths

    def test_go_through_writers(self, chunked: BlobService, paths: list[Path]) -> None:
        """So that nothing gets past what a wrapper does with the bytes that are written."""
        noting = Noting(chunked)
        assert noting.put_file(paths[0]) == HELLO.digest
        assert noting.take() == ["open_write", "writer.fill", "writer.fill", "writer.close"]
        first, gone, second = noting.put_files(paths)
        assert (first, second) == (HELLO.digest, P3M.digest)
        assert isinstance(gone, SourceError)
        assert {"put_source", "put_files"}.isdisjoint(noting.take())

    def test_go_the_way_of_the_service_within_if_a_wrapper_says_so(
        self, chunked: BlobService, paths: list[Path]
    ) -> None:
        """Then storing a file, or many, is one operation."""

        class Passing(Noting):
            passes_files = True

        noting = Passing(chunked)
        told: list[int] = []
        assert noting.put_file(paths[2], progress=told.append) == P3M.digest
        assert noting.take() == ["put_source"]
        assert sum(told) == P3M.size
        first, gone, second = noting.put_files(paths, progress=told.append)
        assert (first, second) == (HELLO.digest, P3M.digest)
        assert isinstance(gone, SourceError)
        assert noting.take() == ["put_files"]
        assert sum(told) == 2 * P3M.size + HELLO.size


class TestWriters:
    def test_fill_reads_into_the_buffer_within(self) -> None:
        """Bytes go from the source to where they are needed, without a copy in between."""
        buffer = bytearray(8)

        class Filling(BlobWriter):
            def fill(self, readinto: Callable[[memoryview], int]) -> int:
                return readinto(memoryview(buffer))

            def write(self, data: Any, /) -> int:
                raise NotImplementedError

            def close(self) -> B3Digest:
                return B3Digest.of(buffer[:5])

            def abort(self) -> None: ...

        def give(target: memoryview) -> int:
            target[:5] = b"bytes"
            return 5

        around = WrapperService(MemoryBlobService()).around
        writer = ForwardingWriter(ForwardingWriter(Filling(), around), around)
        assert writer.fill(give) == 5
        assert writer.tell() == 5
        assert buffer[:5] == b"bytes"
        writer.close()
        with pytest.raises(WriterClosedError):
            writer.fill(give)

    def test_a_failed_write_is_given_up(self) -> None:
        """What fails in a writer ends it, within as without."""
        inner = MemoryBlobService()
        for operation in ("writer.write", "writer.close"):
            writer = Noting(inner, operation).open_write()
            with pytest.raises(UnavailableError, match=operation):
                writer.write(HELLO.data) and writer.close()
            with pytest.raises(WriterClosedError):
                writer.close()
            writer.abort()
        assert not inner.has(HELLO.digest)

    def test_aborting(self) -> None:
        """No operation: the blob is forgotten within."""
        noting = Noting(MemoryBlobService())
        with noting.open_write() as writer:
            writer.write(HELLO.data)
            writer.abort()
        assert noting.take() == ["open_write", "writer.write"]
        assert noting.has(HELLO.digest) is False


def test_closing_leaves_what_is_within() -> None:
    """Who has made the service within closes it."""
    closed = itertools.count()

    class Closing(MemoryBlobService):
        def close(self) -> None:
            next(closed)

    WrapperService(Closing()).close()
    assert next(closed) == 0
