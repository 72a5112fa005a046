"""A measured service is the service itself, to whoever looks; and each thing asked of it is counted once."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
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
    from_url,
)
from castore.contract.capabilities import (
    BatchExistence,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    FrameStore,
)
from castore.contract.upkeep import Inventory
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
        assert own.limit == 8
        assert not hasattr(found, "grow")
        assert bare(measured(found, Meters())) is own
        assert bare(own) is own

    def test_a_service_by_its_own_class(self, chunked: BlobService) -> None:
        """Who asks for more than a capability gets what is behind."""
        found = measured(chunked, Meters())
        assert found.capability(type(chunked)) is chunked
        assert found.capability(MemoryBlobService) is None
        assert found.capability(Gauges) is None

    def test_powers_are_those_of_the_service_with_their_properties(self, chunked: BlobService) -> None:
        found = measured(chunked, Meters())
        assert kind(found, ChunkSource).high_latency is kind(chunked, ChunkSource).high_latency
        assert kind(found, Durable).durability == kind(chunked, Durable).durability
        assert kind(found, FrameStore).frame_format == "zstd"
        assert found.capability(BatchExistence) is None
        assert found.capability(ChunkStore) is found.capability(ChunkStore)

    def test_how_it_stores_many_files_can_be_seen(self, chunked: BlobService) -> None:
        """Commands look at that, to store several at once what is not stored together."""
        assert type(measured(chunked, Meters())).put_files is not BlobService.put_files
        assert type(measured(MemoryBlobService(), Meters())).put_files is BlobService.put_files

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
        service.read(HELLO.digest)
        service.write(b"new")
        assert shell.counts() == {"chunks": 2, "has": 2, "missing": 1, "read": 1, "write": 1}
        for operation, hits, misses in [("has", 1, 1), ("missing", 2, 1), ("chunks", 1, 1), ("read", 1, 0)]:
            assert (shell[operation].hits, shell[operation].misses) == (hits, misses), operation
        assert (shell["read"].bytes_out, shell["write"].bytes_in) == (len(HELLO.data), 3)

    def test_no_finer_chunks_are_a_hit(self, shell: Shell) -> None:
        """Present, and empty."""
        assert shell.service.chunks(HELLO.digest) == ()
        assert (shell["chunks"].hits, shell["chunks"].misses) == (1, 0)

    def test_reading_what_is_absent_is_a_miss_and_no_error(self, shell: Shell) -> None:
        with pytest.raises(BlobNotFoundError):
            shell.service.read(ABSENT)
        assert shell.service.open_read(ABSENT) is None
        for operation in ("read", "open_read"):
            assert (shell[operation].misses, shell[operation].errors) == (1, {})

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

    def test_files(self, shell: Shell, tmp_path: Path) -> None:
        """With their bytes, whoever else is told of them; one that cannot be read is an error of none."""
        for name, data in (("a", b"12345"), ("b", b"678")):
            (tmp_path / name).write_bytes(data)
        told: list[int] = []
        shell.service.put_file(tmp_path / "a", progress=told.append)
        shell.service.put_file(io.BytesIO(b"1234567"))
        outcomes = list(shell.service.put_files([tmp_path / "a", tmp_path / "no", tmp_path / "b"]))
        assert (shell["put_file"].calls, shell["put_file"].bytes_in, sum(told)) == (2, 12, 5)
        assert [isinstance(entry, SourceError) for entry in outcomes] == [False, True, False]
        files = shell["put_files"]
        assert (files.calls, files.under_way, files.bytes_in, files.errors) == (3, 0, 8, {"other": 1})

    def test_files_one_by_one(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"12345")
        shell = Shell(MemoryBlobService())
        list(shell.service.put_files([tmp_path / "a", tmp_path / "a"]))
        assert (shell["put_file"].calls, shell["put_file"].bytes_in) == (2, 10)


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
        assert above["reader.read"].bytes_out == len(P3M.data)
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


class TestWriting:
    def test_a_writer(self, shell: Shell) -> None:
        """Its closing counts once, however often it is asked for its digest."""
        with shell.service.open_write() as writer:
            writer.write(b"123")
            writer.fill(io.BytesIO(b"4567").readinto)
            assert writer.tell() == 7  # type: ignore[attr-defined]
            assert writer.close() == writer.close()
        counted = {"open_write": 1, "writer.close": 1, "writer.fill": 1, "writer.write": 1}
        assert shell.counts() == counted
        assert (shell["writer.write"].bytes_in, shell["writer.fill"].bytes_in) == (3, 4)

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
        class Writer(BlobWriter):
            ended = ""

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
        assert (writer.ended, shell["writer.close"].calls) == ("closed", 1)  # type: ignore[attr-defined]
        with pytest.raises(ZeroDivisionError), shell.service.open_write() as writer:
            raise ZeroDivisionError
        assert writer.ended == "aborted"  # type: ignore[attr-defined]


class TestPowers:
    def test_chunks(self, shell: Shell) -> None:
        """Hits and misses where they are read; bytes in both directions; keywords as well."""
        store = kind(shell.service, ChunkStore)
        chunk = CHUNKS[0]
        assert not store.claim_chunk(chunk.digest)
        store.put_chunk(chunk.digest, chunk.data)
        store.put_chunk(chunk.digest, data=memoryview(chunk.data))
        assert store.get_chunk(chunk.digest, size=len(chunk.data)) == chunk.data
        assert store.get_chunk(ABSENT) is None
        assert (store.has_chunk(chunk.digest), store.has_chunk(ABSENT)) == (True, False)
        assert shell["put_chunk"].bytes_in == 2 * len(chunk.data)
        assert shell["get_chunk"].bytes_out == len(chunk.data)
        for operation in ("get_chunk", "has_chunk"):
            assert (shell[operation].hits, shell[operation].misses) == (1, 1)
        claims = shell["claim_chunk"]
        assert (claims.calls, claims.hits, claims.misses) == (1, 0, 0)

    def test_frames(self, shell: Shell) -> None:
        store = kind(shell.service, FrameStore)
        frame = store.get_frame(HELLO.digest)
        store.put_frame(HELLO.digest, frame)
        assert shell["get_frame"].bytes_out == shell["put_frame"].bytes_in == len(frame)

    def test_a_batch_is_the_same_as_of_the_service(self) -> None:
        class Batches(MemoryBlobService, BatchExistence):  # type: ignore[misc]
            pass

        shell = Shell(Batches())
        assert kind(shell.service, BatchExistence).missing([ABSENT]) == {ABSENT}
        assert (shell["missing"].calls, shell["missing"].misses) == (1, 1)

    def test_contexts(self, shell: Shell) -> None:
        with kind(shell.service, ChunkStore).hold():
            pass
        assert shell["hold"].calls == 1

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


def test_a_service_that_can_do_less_stays_so(chunked: BlobService) -> None:
    """The shell around a read-only service writes nothing."""
    shell = Shell(ReadOnlyService(chunked))
    with pytest.raises(UnsupportedError):
        shell.service.write(b"x")
    assert shell["write"].errors == {"unsupported": 1}
    assert shell.service.capability(ChunkStore) is None
