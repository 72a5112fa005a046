"""A measured service is the service itself, to whoever looks; and each thing asked of it is counted once."""

from __future__ import annotations

import contextlib
import io
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobNotFoundError,
    BlobReader,
    BlobService,
    BlobWriter,
    CorruptBlobError,
    SourceError,
    UnavailableError,
    UnsupportedError,
    WriterClosedError,
    from_url,
)
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    FoundChunks,
    FrameStore,
)
from castore.contract.inputs import InputFile
from castore.contract.operations import Operation
from castore.contract.upkeep import Inventory
from castore.errors import BatchError
from castore.metrics.meters import Meters
from castore.metrics.model import Gauges, OperationMetrics
from castore.metrics.shell import MeasuredReader, bare, measured
from castore.streams.readers import BytesReader, PieceReader
from castore.testing import CHUNKS, HELLO, P3M, FaultyService
from castore.wrapping.wrapper import WrapperService
from castore_memory.service import MemoryBlobService
from castore_wrappers.limit.service import LimitService
from castore_wrappers.read_only.service import ReadOnlyService

ABSENT = B3Digest.of(b"absent")


class Shell:
    """A measured service, and what was counted of it since the last look."""

    def __init__(self, service: BlobService) -> None:
        self.meters = Meters()
        self.service = measured(service, self.meters)

    def __getitem__(self, operation: str) -> OperationMetrics:
        return self.meters.snapshot().get(operation, OperationMetrics())

    def counts(self) -> dict[str, int]:
        return {name: entry.calls for name, entry in self.meters.snapshot().items()}


def kind(service: BlobService, which: Callable[..., Any]) -> Any:
    found = service.capability(which)
    assert found is not None
    return found


@pytest.fixture
def chunked() -> Iterator[BlobService]:
    """A service that keeps blobs in chunks."""
    with from_url("objectstore+memory:") as service:
        yield service


@pytest.fixture
def shell(chunked: BlobService) -> Shell:
    chunked.write(P3M.data)
    chunked.write(HELLO.data)
    return Shell(chunked)


class TestItself:
    """What a program or a command does with a service it can do with a measured one."""

    def test_its_class_and_attributes(self) -> None:
        class Own(MemoryBlobService):
            limit = 7

            def shrink(self) -> str:
                return f"by {self.limit}"

        own: Any = Own()
        found: Any = measured(own, Meters())
        assert isinstance(found, Own)
        assert isinstance(found, BlobService)
        assert (found.limit, found.shrink(), repr(found)) == (7, "by 7", repr(own))
        found.limit = 8
        found._chunks["odd"] = b"private ones as well"
        assert (own.limit, "odd" in own._chunks) == (8, True)
        assert not hasattr(found, "grow")
        assert bare(measured(found, Meters())) is own
        assert bare(own) is own

    def test_a_service_by_its_own_class(self, chunked: BlobService) -> None:
        """Who asks for more than a capability gets what is behind."""
        found = measured(chunked, Meters())
        assert found.capability(type(bare(chunked))) is bare(chunked)
        assert found.capability(MemoryBlobService) is None
        assert found.capability(Gauges) is None

    def test_capabilities_are_those_of_the_service_with_their_properties(self, chunked: BlobService) -> None:
        found = measured(chunked, Meters())
        assert kind(found, ChunkSource).high_latency is kind(chunked, ChunkSource).high_latency
        assert kind(found, Durable).durability == kind(chunked, Durable).durability
        assert kind(found, FrameStore).frame_format == "zstd"
        assert found.capability(BlobDeleter) is None
        assert found.capability(ChunkStore) is found.capability(ChunkStore)

    def test_closing_closes(self) -> None:
        closed = []
        service = MemoryBlobService()
        service.close = lambda: closed.append(1)  # type: ignore[method-assign]
        with measured(service, Meters()):
            pass
        assert closed == [1]


class TestService:
    def test_each_method_is_one_operation(self, shell: Shell) -> None:
        """Whatever the service asks of itself for it."""
        service = shell.service
        service.has(HELLO.digest)
        service.has(ABSENT)
        service.missing(iter([HELLO.digest, P3M.digest, ABSENT]))
        service.chunks(P3M.digest)
        service.chunks(ABSENT)
        service.open_read(HELLO.digest)
        assert shell.counts() == {"chunks": 2, "has": 2, "missing": 1, "open_read": 1}
        for operation, items, hits, misses in [
            ("has", 2, 1, 1),
            ("missing", 3, 2, 1),
            ("chunks", 2, 1, 1),
            ("open_read", 1, 1, 0),
        ]:
            entry = shell[operation]
            assert (entry.items, entry.hits, entry.misses) == (items, hits, misses), operation

    def test_what_is_made_of_other_methods_is_those(self, shell: Shell, tmp_path: Path) -> None:
        """Reading a whole blob, and storing bytes or files, as through every other service."""
        assert shell.service.read(HELLO.digest) == HELLO.data
        assert shell.counts() == {"open_read": 1}
        assert shell["open_read"].bytes_out == HELLO.size
        (tmp_path / "a").write_bytes(b"12345")
        told: list[int] = []

        shell.service.write(b"new")
        shell.service.put_file(tmp_path / "a", progress=told.append)
        shell.service.put_file(io.BytesIO(b"1234567"))

        stored = {"claim": 3, "lease": 3, "open_read": 1, "put_chunks": 3, "put_indexes": 3}
        assert {name: count for name, count in shell.counts().items() if name in stored} == stored
        assert (shell["put_chunks"].bytes_in, sum(told)) == (3 + 5 + 7, 5)

    def test_many_files_are_few_calls(self, shell: Shell, tmp_path: Path) -> None:
        """One for the chunks of up to 256, of which each is counted."""
        paths = [tmp_path / str(number) for number in range(300)]
        for path in paths:
            path.write_bytes(path.name.encode())
        outcomes = list(shell.service.put_files([*paths, tmp_path / "no"]))
        assert [entry for entry in outcomes if isinstance(entry, SourceError)] == outcomes[-1:]
        for operation in ("put_chunks", "claim_blobs", "put_indexes"):
            assert shell[operation].calls <= 2, operation
            assert shell[operation].items == 300, operation
        assert shell["put_chunks"].bytes_in == sum(path.stat().st_size for path in paths)
        assert (shell["claim_blobs"].hits, shell["claim_blobs"].misses) == (0, 300)

    def test_no_finer_chunks_are_a_hit(self, shell: Shell) -> None:
        """Present, and empty."""
        assert shell.service.chunks(HELLO.digest) == ()
        assert (shell["chunks"].hits, shell["chunks"].misses) == (1, 0)

    def test_reading_what_is_absent_is_a_miss_and_no_error(self, shell: Shell) -> None:
        with pytest.raises(BlobNotFoundError):
            shell.service.read(ABSENT)
        assert shell.service.open_read(ABSENT) is None
        assert (shell["open_read"].misses, shell["open_read"].errors) == (2, {})

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (CorruptBlobError("bad", expected=HELLO.digest), "corrupt"),
            (UnavailableError("far", "gone"), "unavailable"),
            (UnsupportedError("no"), "unsupported"),
            (ZeroDivisionError(), "other"),
        ],
    )
    @pytest.mark.parametrize("operation", ["has", "open_read", "chunks", "missing", "open_write"])
    def test_errors_are_passed_on_and_counted_by_kind(
        self, error: Exception, kind: str, operation: str
    ) -> None:
        def fail(*_: Any) -> Any:
            raise error

        class Bad(MemoryBlobService):
            has = open_read = chunks = missing = open_write = fail  # type: ignore[assignment]

        shell = Shell(Bad())
        arguments = {"missing": [[ABSENT]], "open_write": []}.get(operation, [ABSENT])
        with pytest.raises(type(error)) as caught:
            getattr(shell.service, operation)(*arguments)
        assert caught.value is error
        entry = shell[operation]
        assert (entry.calls, entry.hits, entry.misses, entry.errors) == (1, 0, 0, {kind: 1})


class TestReading:
    def test_each_piece_is_read_once(self, shell: Shell) -> None:
        """However small the reads are, in whatever way."""
        with shell.service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            while reader.read(10_000):
                pass
        chunks = len(shell.service.chunks(P3M.digest) or ())
        assert chunks > 2
        assert (shell["reader.read"].calls, shell["reader.read"].bytes_out) == (chunks, len(P3M.data))
        assert shell["open_read"].bytes_out == 0

    def test_bytes_in_memory_are_read_when_they_are_opened(self, shell: Shell) -> None:
        """Their reader is handed on as it is."""
        reader = shell.service.open_read(HELLO.digest)
        assert type(reader) is BytesReader
        assert (shell["open_read"].bytes_out, shell["reader.read"].calls) == (len(HELLO.data), 0)

    def test_a_view_is_no_copy(self, shell: Shell, chunked: BlobService) -> None:
        with shell.service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            assert type(reader) is MeasuredReader
            view = reader.read_view(10)
            assert view.obj is reader.read_view(10).obj
            assert len(view.obj) > 20  # type: ignore[arg-type]

    def test_attributes_of_the_reader(self, shell: Shell) -> None:
        with shell.service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            assert not reader.verified  # type: ignore[attr-defined]
            reader.read()
            assert reader.verified  # type: ignore[attr-defined]
            assert not hasattr(reader, "thing")

    def test_a_reader_that_is_handed_on_is_one(self, shell: Shell) -> None:
        """It is read by each that has handed it on, and costs no more layers."""
        above = Shell(WrapperService(shell.service))
        top = Shell(above.service)
        with top.service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            assert reader.read() == P3M.data
            assert not isinstance(reader._pieces, MeasuredReader)  # type: ignore[attr-defined]
        for entry in (shell, above, top):
            assert entry["reader.read"].bytes_out == len(P3M.data)

    def test_one_that_stands_around_another_is_measured_as_well(self, shell: Shell) -> None:
        above = Shell(LimitService(shell.service, concurrency=1))
        assert above.service.read(P3M.digest) == P3M.data
        with above.service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            reader.read()
        assert above["reader.read"].bytes_out == 2 * len(P3M.data)
        assert shell["reader.read"].bytes_out == 2 * len(P3M.data)

    def test_a_reader_that_holds_nothing(self) -> None:
        """Each piece begins where it is asked for, and goes further than the last."""

        class Loose(PieceReader):
            size = 100

            def piece_at(self, position: int) -> memoryview:
                return memoryview(bytes(min(64, 100 - position)))

        class Service(MemoryBlobService):
            def open_read(self, digest: B3Digest) -> BlobReader | None:
                return Loose()

        shell = Shell(Service())
        with shell.service.open_read(ABSENT) as reader:  # type: ignore[union-attr]
            while reader.read(10):
                pass
        assert shell["reader.read"].bytes_out == 100

    def test_an_error_in_the_middle(self, chunked: BlobService) -> None:
        chunked.write(P3M.data)
        faulty = FaultyService(chunked)
        shell = Shell(faulty)
        with shell.service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            reader.read(1)
            faulty.failing = {"reader.read"}
            with pytest.raises(UnavailableError):
                reader.read()
        assert shell["reader.read"].errors == {"unavailable": 1}

    def test_what_needs_a_file(self, shell: Shell) -> None:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            archive.writestr("a", P3M.data)
        digest = shell.service.write(held.getvalue())
        with shell.service.open_read(digest) as reader, zipfile.ZipFile(reader) as archive:  # type: ignore[union-attr]
            assert archive.read("a") == P3M.data


def calls_of(what: Callable[[], object]) -> int:
    """Return how many functions of Python *what* calls."""
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(event) if event == "call" else None)
    try:
        what()
    finally:
        sys.setprofile(None)
    return len(calls)


class TestWriting:
    def test_a_writer(self, shell: Shell) -> None:
        """Its closing counts once, however often it is asked for its digest."""
        with shell.service.open_write() as writer:
            writer.write(b"123")
            writer.fill(InputFile(io.BytesIO(b"4567"), "a stream"))
            assert writer.tell() == 7  # type: ignore[attr-defined]
            assert writer.close() == writer.close()
        counted = {"open_write": 1, "writer.close": 1, "writer.fill": 1, "writer.write": 1}
        assert shell.counts() == counted
        assert (shell["writer.write"].bytes_in, shell["writer.fill"].bytes_in) == (3, 4)

    @pytest.mark.parametrize("kind_of", [bytes, bytearray, memoryview])
    def test_pieces_of_every_kind_count_alike(self, shell: Shell, kind_of: Callable[..., Any]) -> None:
        """One of no bytes is no operation; a writer that has ended takes none, and nothing is counted."""
        with shell.service.open_write() as writer:
            for piece in (b"12", b"", b"345"):
                assert writer.write(kind_of(piece)) == len(piece)
            assert writer.tell() == 5  # type: ignore[attr-defined]
        for data in (b"6", b""):
            with pytest.raises(WriterClosedError):
                writer.write(kind_of(data))
        counted = shell["writer.write"]
        assert (counted.calls, counted.under_way, counted.bytes_in) == (2, 0, 5)
        assert shell.service.read(writer.close()) == b"12345"

    @pytest.mark.parametrize("kind_of", [bytes, bytearray])
    def test_a_piece_that_fails_ends_the_writer(self, kind_of: Callable[..., Any]) -> None:
        """What was written goes, the failure is counted, and nothing more is taken."""
        ended = []

        class Writer(BlobWriter):
            def write(self, data: Any, /) -> int:
                raise UnavailableError("it", "gone")

            def close(self) -> B3Digest:
                raise NotImplementedError

            def abort(self) -> None:
                ended.append("aborted")

        class Service(MemoryBlobService):
            def open_write(self) -> BlobWriter:
                return Writer()

        shell = Shell(Service())
        with contextlib.suppress(UnavailableError), shell.service.open_write() as writer:
            writer.write(kind_of(b"12"))
        with pytest.raises(WriterClosedError, match="has failed before"):
            writer.write(kind_of(b"12"))
        assert ended == ["aborted"]
        assert (shell["writer.write"].errors, shell["writer.write"].calls) == ({"unavailable": 1}, 1)

    def test_a_piece_costs_one_call_of_the_writer_within(self, shell: Shell) -> None:
        """Few calls of Python: pieces may be small, and are many."""
        with shell.service.open_write() as writer:
            writer.write(b"1")
            calls = calls_of(lambda: writer.write(b"2"))
        alone = MemoryBlobService().open_write()
        with alone:
            alone.write(b"1")
            assert calls <= calls_of(lambda: alone.write(b"2")) + 2  # itself, and which process this is

    def test_the_end_of_the_block_closes(self, shell: Shell) -> None:
        with shell.service.open_write() as writer:
            writer.write(b"123")
        assert shell["writer.close"].calls == 1
        assert shell.service.has(B3Digest.of(b"123"))

    def test_no_blob_after_an_error_or_an_abort_in_the_block(self, shell: Shell) -> None:
        with contextlib.suppress(ZeroDivisionError), shell.service.open_write() as writer:
            writer.write(b"123")
            raise ZeroDivisionError
        with shell.service.open_write() as writer:
            writer.write(b"123")
            writer.abort()
        assert not shell.service.has(B3Digest.of(b"123"))
        assert shell["writer.close"].calls == 0

    def test_a_writer_of_a_stranger(self) -> None:
        made = []

        class Writer(BlobWriter):
            def __init__(self) -> None:
                self.ended = ""
                made.append(self)

            def write(self, data: Any, /) -> int:
                return len(data)

            def close(self) -> B3Digest:
                self.ended += "closed"
                return HELLO.digest

            def abort(self) -> None:
                self.ended += "aborted"

        class Service(MemoryBlobService):
            def open_write(self) -> BlobWriter:
                return Writer()

        shell = Shell(Service())
        with shell.service.open_write() as writer:
            writer.write(b"12")
        assert (made[0].ended, shell["writer.close"].calls) == ("closed", 1)
        with pytest.raises(ZeroDivisionError), shell.service.open_write() as writer:
            raise ZeroDivisionError
        assert made[1].ended == "aborted"


class TestCapabilities:
    def test_chunks(self, shell: Shell) -> None:
        """Hits and misses where they are read; bytes in both directions; keywords as well."""
        store = kind(shell.service, ChunkStore)
        chunk, other = CHUNKS[:2]
        assert not store.claim_chunk(chunk.digest)
        store.put_chunks({chunk.digest: chunk.data, other.digest: memoryview(other.data)})
        store.put_chunks(chunks={chunk.digest: bytearray(chunk.data)})
        both = chunk.size + other.size
        assert store.get_chunk(chunk.digest, size=chunk.size) == chunk.data
        assert store.get_chunk(ABSENT) is None
        assert store.get_chunks(sizes={chunk.digest: None, other.digest: None, ABSENT: None}).keys() == {
            chunk.digest,
            other.digest,
        }
        assert store.find_chunks(iter((chunk.digest, other.digest, ABSENT))) == {chunk.digest, other.digest}
        store.put_indexes({chunk.digest: (), other.digest: ()})
        assert store.claim_blobs({chunk.digest: None, ABSENT: None}) == {chunk.digest}
        for operation, calls, items, hits, misses in [
            ("claim", 1, 1, 0, 1),
            ("put_chunks", 2, 3, 0, 0),
            ("get_chunks", 3, 5, 3, 2),
            ("find_chunks", 1, 3, 2, 1),
            ("put_indexes", 1, 2, 0, 0),
            ("claim_blobs", 1, 2, 1, 1),
        ]:
            entry = shell[operation]
            counted = (entry.calls, entry.items, entry.hits, entry.misses)
            assert counted == (calls, items, hits, misses), operation
            assert (entry.errors, entry.under_way) == ({}, 0), operation
        assert shell["put_chunks"].bytes_in == both + chunk.size
        assert shell["get_chunks"].bytes_out == chunk.size + both

    def test_frames(self, shell: Shell) -> None:
        store = kind(shell.service, FrameStore)
        frames = store.get_frames([HELLO.digest, ABSENT])
        store.put_frames(frames)
        size = len(frames[HELLO.digest])
        assert shell["get_frames"].bytes_out == shell["put_frames"].bytes_in == size
        assert (shell["get_frames"].items, shell["put_frames"].items) == (2, 1)

    @pytest.mark.parametrize("by_keyword", [False, True])
    def test_an_error_of_one_of_many(self, by_keyword: bool) -> None:
        """It is neither there nor absent, and no call has failed."""

        class Rotten(MemoryBlobService):
            def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
                return {HELLO.digest: HELLO.data, P3M.digest: CorruptBlobError("bad", expected=P3M.digest)}

        shell = Shell(Rotten())
        sizes = dict.fromkeys([HELLO.digest, P3M.digest, ABSENT])
        store = kind(shell.service, ChunkSource)
        found = store.get_chunks(sizes=sizes) if by_keyword else store.get_chunks(sizes)
        assert len(found) == 2
        entry = shell["get_chunks"]
        assert (entry.calls, entry.items, entry.hits, entry.misses, entry.bytes_out) == (
            1,
            3,
            1,
            1,
            HELLO.size,
        )
        assert entry.errors == {"corrupt": 1}

    @pytest.mark.parametrize("by_keyword", [False, True])
    def test_a_call_that_fails(self, by_keyword: bool) -> None:
        """As a whole, or in part."""
        gone = UnavailableError("far", "gone")

        class Full(MemoryBlobService):
            def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
                raise BatchError("far", {P3M.digest: gone}, done={HELLO.digest})

            def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                raise gone

        shell = Shell(Full())
        store = kind(shell.service, ChunkStore)
        two = {HELLO.digest: b"1", P3M.digest: b"2"}
        with pytest.raises(BatchError):
            _ = store.put_chunks(chunks=two) if by_keyword else store.put_chunks(two)
        with pytest.raises(UnavailableError):
            _ = store.claim(digests=two) if by_keyword else store.claim(two)
        for operation in ("put_chunks", "claim"):
            entry = shell[operation]
            assert (entry.calls, entry.items, entry.under_way) == (1, 2, 0)
            assert (entry.hits, entry.misses, entry.errors) == (0, 0, {"unavailable": 1})

    def test_a_store_that_is_leased_is_measured_alike(self, shell: Shell) -> None:
        chunk = CHUNKS[0]
        with kind(shell.service, ChunkStore).lease() as leased:
            leased.put_chunks({chunk.digest: chunk.data})
            leased.claim_chunk(chunk.digest)
        assert shell.counts() == {"claim": 1, "lease": 1, "put_chunks": 1}
        assert shell["put_chunks"].bytes_in == chunk.size

    def test_a_list_is_one_operation_also_if_it_fails_later(self) -> None:
        class Broken(MemoryBlobService):
            def list_blobs(self) -> Iterator[B3Digest]:
                yield ABSENT
                raise UnavailableError("far", "gone")

        shell = Shell(Broken())
        digests = kind(shell.service, BlobLister).list_blobs()
        assert next(digests) == ABSENT
        assert (shell["list_blobs"].calls, shell["list_blobs"].errors) == (1, {})
        with pytest.raises(UnavailableError):
            next(digests)
        assert (shell["list_blobs"].calls, shell["list_blobs"].errors) == (1, {"unavailable": 1})

    def test_items(self, shell: Shell) -> None:
        assert len(list(kind(shell.service, Inventory).list_items())) > 3
        assert shell.counts() == {"list_items": 1}

    def test_those_of_a_stranger(self) -> None:
        """With the rows that its class has, and one operation for a method without."""

        class Shelf(ABC):
            OPERATIONS = (Operation("tidy", items="names", tells="found", iterables=("names",)),)

            @abstractmethod
            def tidy(self, names: Iterable[str]) -> set[str]: ...

            @abstractmethod
            def dust(self) -> str: ...

        class Service(MemoryBlobService, Shelf):
            def tidy(self, names: Iterable[str]) -> set[str]:
                return {name for name in names if name != "lost"}

            def dust(self) -> str:
                return "clean"

        shell = Shell(Service())
        shelf = kind(shell.service, Shelf)
        assert shelf.tidy(["book", "lost", "map"]) == {"book", "map"}
        assert shelf.dust() == "clean"
        tidied = shell["tidy"]
        assert (tidied.calls, tidied.items, tidied.hits, tidied.misses) == (1, 3, 2, 1)
        assert shell["dust"].calls == 1


class TestReadingMany:
    def test_through_the_chunks(self, shell: Shell) -> None:
        """The small ones are read by a few calls; that is what is counted."""
        wanted = [HELLO.digest, P3M.digest, ABSENT]
        found = dict(shell.service.read_many(wanted))
        assert found[HELLO.digest] == HELLO.data
        assert found[ABSENT] is None
        found[P3M.digest].close()
        assert shell.counts() == {"get_chunks": 1, "open_read": 2}
        assert (shell["get_chunks"].items, shell["get_chunks"].bytes_out) == (3, HELLO.size)

    def test_where_no_chunks_are_kept(self) -> None:
        """One call, whose answers are hits, misses and errors, with the bytes of those that are read."""
        error = UnavailableError("far", "gone")

        class Whole(BlobService):
            def has(self, digest: B3Digest) -> bool:
                return True

            def open_read(self, digest: B3Digest) -> BlobReader | None:
                return None

            def open_write(self) -> BlobWriter:
                raise NotImplementedError

            def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Any]]:
                answers = (b"12345", BytesReader(b"123"), error, None)
                return iter(list(zip(digests, answers, strict=True)))

        shell = Shell(Whole())
        wanted = [HELLO.digest, P3M.digest, CHUNKS[0].digest, ABSENT]
        assert [digest for digest, _ in shell.service.read_many(iter(wanted))] == wanted
        entry = shell["read_many"]
        assert (entry.calls, entry.items, entry.hits, entry.misses) == (1, 4, 2, 1)
        assert (entry.errors, entry.bytes_out) == ({"unavailable": 1}, 5 + 3)


def test_a_service_that_can_do_less_stays_so(chunked: BlobService) -> None:
    """The shell around a read-only service writes nothing."""
    shell = Shell(ReadOnlyService(chunked))
    with pytest.raises(UnsupportedError):
        shell.service.write(b"x")
    assert shell["open_write"].errors == {"unsupported": 1}
    assert shell.service.capability(ChunkStore) is None
