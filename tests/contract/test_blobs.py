"""`BlobService`: what a backend of three methods gets for free, and what `put_file` makes of a source."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import pytest

from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkStore
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, CorruptChunkError, SourceError, WriterClosedError
from castore.streams.readers import BytesReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

ABSENT = B3Digest.of(b"nobody has this")
LARGE = bytes(range(251)) * 12_000  # about 3 MB: several reads of `put_file`


class DictWriter(BlobWriter):
    """Written against the contract alone, without `GuardedWriter`."""

    def __init__(self, service: DictService) -> None:
        self._service = service
        self._parts: list[Buffer] = []
        self._digest: B3Digest | None = None
        self.aborted = False

    def write(self, data: Buffer, /) -> int:
        if self._digest is not None or self.aborted:
            raise WriterClosedError("cannot write: this writer has ended")
        self._parts.append(bytes(data))
        return memoryview(data).nbytes

    def close(self) -> B3Digest:
        if self.aborted:
            raise WriterClosedError("cannot close: this writer was aborted")
        if self._digest is None:
            data = b"".join(self._parts)
            self._digest = B3Digest.of(data)
            self._service.blobs[self._digest] = data
        return self._digest

    def abort(self) -> None:
        if self._digest is None:
            self.aborted = True


class DictService(BlobService):
    """The smallest service there is: three methods, and a constructor that calls no other."""

    def __init__(self) -> None:
        self.blobs: dict[B3Digest, bytes] = {}
        self.asked: list[B3Digest] = []
        self.readers: list[BlobReader] = []
        self.writers: list[DictWriter] = []

    def has(self, digest: B3Digest) -> bool:
        self.asked.append(digest)
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        if digest not in self.blobs:
            return None
        self.readers.append(BytesReader(self.blobs[digest]))
        return self.readers[-1]

    def open_write(self) -> BlobWriter:
        self.writers.append(DictWriter(self))
        return self.writers[-1]


@pytest.fixture
def service() -> DictService:
    return DictService()


# -- what comes for free --


@pytest.mark.parametrize("method", ["has", "open_read", "open_write"])
def test_each_of_the_three_methods_is_needed(method: str) -> None:
    members = {name: getattr(DictService, name) for name in ("has", "open_read", "open_write")}
    del members[method]

    with pytest.raises(TypeError, match=method):
        type("Incomplete", (BlobService,), members)()


def test_a_blob_written_is_read_back(service: DictService) -> None:
    digest = service.write(b"Hello World")

    assert digest == B3Digest.of(b"Hello World")
    assert service.has(digest)
    assert service.read(digest) == b"Hello World"


@pytest.mark.parametrize("data", [b"", bytearray(b"x"), memoryview(b"abc")], ids=len)
def test_write_takes_any_buffer(service: DictService, data: Buffer) -> None:
    assert service.read(service.write(data)) == bytes(data)


def test_reading_an_absent_blob_raises_a_key_error_that_names_it(service: DictService) -> None:
    with pytest.raises(BlobNotFoundError, match=str(ABSENT)) as caught:
        service.read(ABSENT)

    assert isinstance(caught.value, KeyError)
    assert caught.value.digest == ABSENT


def test_read_closes_the_reader(service: DictService) -> None:
    service.read(service.write(b"abc"))

    assert [reader.closed for reader in service.readers] == [True]


def test_a_service_without_chunks_lists_none_for_a_blob_and_none_at_all_for_an_absent_one(
    service: DictService,
) -> None:
    assert service.chunks(service.write(b"abc")) == ()
    assert service.chunks(ABSENT) is None


def test_missing_gives_those_that_are_absent(service: DictService) -> None:
    here = service.write(b"abc")

    assert service.missing([here, ABSENT]) == {ABSENT}
    assert service.missing([]) == set()
    assert service.missing(iter([ABSENT])) == {ABSENT}


def test_missing_asks_once_for_each_digest(service: DictService) -> None:
    service.missing([ABSENT, ABSENT, ABSENT])

    assert service.asked == [ABSENT]


def test_missing_asks_several_at_once_where_each_waits(service: DictService) -> None:
    """Sixteen: none of them gets an answer before all have asked."""
    together = threading.Barrier(16)
    has = service.has

    def waiting(digest: B3Digest) -> bool:
        together.wait(30)
        return has(digest)

    known = service.write(b"known")
    service.has = waiting  # type: ignore[method-assign]
    service.high_latency = True
    absent = {B3Digest.of(b"%d" % number) for number in range(31)}
    assert service.missing({known, *absent}) == absent


def test_a_service_is_a_context_manager_that_closes() -> None:
    class Closing(DictService):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    with Closing() as service:
        assert service.closed == 0
    assert service.closed == 1


def test_close_does_nothing_by_default(service: DictService) -> None:
    service.close()
    service.close()


def test_a_failed_write_is_aborted() -> None:
    class Full(DictService):
        def open_write(self) -> BlobWriter:
            writer = super().open_write()
            writer.write = _raise_full  # type: ignore[method-assign]
            return writer

    def _raise_full(data: Buffer, /) -> int:
        raise OSError(28, "No space left on device")

    service = Full()
    with pytest.raises(OSError, match="No space"):
        service.write(b"abc")

    assert [writer.aborted for writer in service.writers] == [True]
    assert service.blobs == {}


# -- the writer as a context manager --


def test_a_writer_closes_at_the_end_of_its_block(service: DictService) -> None:
    with service.open_write() as writer:
        writer.write(b"abc")
        assert service.blobs == {}

    assert list(service.blobs.values()) == [b"abc"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_writer_aborts_when_its_block_raises(service: DictService, error: BaseException) -> None:
    def write_and_raise() -> None:
        with service.open_write() as writer:
            writer.write(b"abc")
            raise error

    with pytest.raises(type(error)):
        write_and_raise()

    assert service.writers[0].aborted
    assert service.blobs == {}


# -- capabilities --


def test_a_service_without_a_power_says_so(service: DictService) -> None:
    assert service.capability(BlobLister) is None
    assert service.capability(ChunkStore) is None


def test_a_service_has_the_powers_among_its_bases() -> None:
    class Listing(DictService, BlobLister):
        def list_blobs(self) -> Iterator[B3Digest]:
            yield from self.blobs

    service = Listing()
    digest = service.write(b"abc")

    lister = service.capability(BlobLister)
    assert lister is service
    assert list(lister.list_blobs()) == [digest]
    assert service.capability(BlobDeleter) is None


def test_a_class_that_names_a_power_must_have_its_methods() -> None:
    class Pretending(DictService, BlobDeleter):
        pass

    with pytest.raises(TypeError, match="delete"):
        Pretending()  # type: ignore[abstract]


# -- ChunkMeta --


def test_a_chunk_meta_is_a_value() -> None:
    meta = ChunkMeta(ABSENT, 15)

    assert meta == ChunkMeta(ABSENT, 15)
    assert {meta: 1}[ChunkMeta(ABSENT, 15)] == 1
    assert pickle.loads(pickle.dumps(meta)) == meta
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        meta.size = 16  # type: ignore[misc]


# -- put_file --


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a file"
    path.write_bytes(LARGE)
    return path


def test_put_file_takes_a_path_as_text_or_object(service: DictService, path: Path) -> None:
    assert service.put_file(str(path)) == service.put_file(path) == B3Digest.of(LARGE)
    assert service.read(B3Digest.of(LARGE)) == LARGE


def test_put_file_takes_any_object_with_a_path(service: DictService, path: Path) -> None:
    class Entry(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(path)

    assert service.put_file(Entry()) == B3Digest.of(LARGE)


def test_put_file_takes_a_name_that_is_no_unicode(service: DictService, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    Path(os.fsdecode(path)).write_bytes(b"abc")

    assert service.put_file(os.fsdecode(path)) == B3Digest.of(b"abc")


def test_put_file_stores_an_empty_file(service: DictService, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert service.put_file(tmp_path / "empty") == B3Digest.of(b"")
    assert service.has(B3Digest.of(b""))


class OnlyRead:
    """A source with nothing but `read`, which gives less than it is asked for."""

    def __init__(self, data: bytes, most: int = 1000) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._most))


def test_put_file_takes_whatever_reads_bytes(service: DictService, path: Path) -> None:
    digest = B3Digest.of(LARGE)

    with path.open("rb") as buffered:
        assert service.put_file(buffered) == digest
    with path.open("rb", buffering=0) as raw:
        assert service.put_file(raw) == digest
    assert service.put_file(io.BytesIO(LARGE)) == digest
    assert service.put_file(OnlyRead(LARGE)) == digest  # type: ignore[arg-type]
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(LARGE)
        spooled.seek(0)
        assert service.put_file(spooled) == digest  # type: ignore[arg-type]
    with gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(LARGE))) as unpacking:
        assert service.put_file(unpacking) == digest  # type: ignore[arg-type]
    reader = service.open_read(digest)
    assert reader is not None
    assert service.put_file(reader) == digest  # type: ignore[arg-type]


def test_put_file_starts_where_an_open_file_stands_and_leaves_it_open(
    service: DictService, path: Path
) -> None:
    with path.open("rb") as file:
        file.seek(1000)
        assert service.put_file(file) == B3Digest.of(LARGE[1000:])
        assert not file.closed
        assert file.tell() == len(LARGE)


def test_put_file_reads_a_pipe_to_its_end(service: DictService) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source:  # noqa: PTH123
        os.write(writing, b"some ")
        os.write(writing, b"bytes")
        os.close(writing)

        assert service.put_file(source) == B3Digest.of(b"some bytes")


def test_put_file_reports_progress_in_bytes(service: DictService, path: Path) -> None:
    steps: list[int] = []

    service.put_file(path, progress=steps.append)

    assert sum(steps) == len(LARGE)
    assert len(steps) > 1


def test_put_file_stores_nothing_when_progress_raises(service: DictService, path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.put_file(path, progress=stop)

    assert service.blobs == {}
    assert [writer.aborted for writer in service.writers] == [True]


def test_put_file_does_not_hold_the_file_in_memory(service: DictService) -> None:
    """Pieces are small, and a writer may keep none of them: the buffer is used again."""

    class Endless(io.RawIOBase):
        largest = 0
        left = 100

        def readinto(self, buffer: Any, /) -> int:
            self.largest = max(self.largest, len(buffer))
            self.left -= 1
            return len(buffer) if self.left else 0

    source = Endless()
    service.put_file(source)  # type: ignore[arg-type]

    assert source.largest <= 1 << 20


def _refused(service: DictService, source: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        service.put_file(source)
    assert isinstance(caught.value, OSError)
    assert caught.value.__cause__ is not None
    assert service.blobs == {}
    assert all(writer.aborted for writer in service.writers)
    return caught.value


def test_a_missing_file_is_a_source_error(service: DictService, tmp_path: Path) -> None:
    path = tmp_path / "absent"

    error = _refused(service, path)

    assert str(error) == f"cannot read {str(path)!r}: No such file or directory"


def test_a_directory_is_a_source_error(service: DictService, tmp_path: Path) -> None:
    assert str(_refused(service, tmp_path)) == f"cannot read {str(tmp_path)!r}: Is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_a_source_error(service: DictService, path: Path) -> None:
    path.chmod(0)

    assert str(_refused(service, path)) == f"cannot read {str(path)!r}: Permission denied"


def test_a_path_with_a_null_byte_is_a_source_error(service: DictService) -> None:
    assert "embedded null" in str(_refused(service, "a\0b"))


def test_a_file_opened_for_writing_is_a_source_error(service: DictService, path: Path) -> None:
    with path.open("wb") as file:
        assert str(path) in str(_refused(service, file))


def test_a_closed_file_is_a_source_error(service: DictService, path: Path) -> None:
    with path.open("rb") as file:
        pass

    assert "closed file" in str(_refused(service, file))


class FailingAfter(io.RawIOBase):
    """Gives some bytes, then fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._given = False

    def readinto(self, buffer: Any, /) -> int:
        if self._given:
            raise self._error
        self._given = True
        buffer[:3] = b"abc"
        return 3


def test_a_file_that_fails_in_the_middle_is_a_source_error(service: DictService) -> None:
    error = _refused(service, FailingAfter(OSError(5, "Input/output error")))

    assert str(error).endswith("Input/output error")


def test_a_damaged_blob_of_another_store_stays_a_corrupt_blob(service: DictService) -> None:
    """The source is a reader here: what is wrong is the blob, and the error says which."""
    corrupt = CorruptChunkError("it rots", expected=ABSENT)

    with pytest.raises(CorruptChunkError) as caught:
        service.put_file(FailingAfter(corrupt))  # type: ignore[arg-type]

    assert caught.value is corrupt
    assert service.blobs == {}


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_source_that_has_no_data_yet_is_waited_for(service: DictService, buffering: int) -> None:
    """It is in non-blocking mode: that there is nothing now does not mean that it has ended."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    timer = threading.Timer(0.1, lambda: (os.write(writing, b"late"), os.close(writing)))
    timer.start()
    with open(reading, "rb", buffering=buffering) as source:  # noqa: PTH123
        digest = service.put_file(source)
    timer.join()

    assert service.read(digest) == b"late"


@pytest.mark.parametrize("path", [3, None, 1.5, ["x"], b"bytes"])
def test_what_is_no_path_is_a_type_error_among_many_as_well(service: DictService, path: Any) -> None:
    """A number would be taken for an open descriptor, bytes for those to be stored."""
    hint = "`os.fsdecode` makes a path of bytes" if path == b"bytes" else ""
    for put in (service.put_file, lambda path: list(service.put_files([path]))):
        with pytest.raises(TypeError, match=f"is needed, not .*{hint}"):
            put(path)


def test_a_source_that_cannot_be_waited_for_is_a_source_error(service: DictService) -> None:
    """It says that it has no data yet, and has no descriptor to ask."""

    class NotYet:
        def read(self, size: int) -> None:
            return None

    with pytest.raises(SourceError, match="non-blocking"):
        service.put_file(NotYet())  # type: ignore[arg-type]


def test_a_compressed_file_that_is_cut_short_is_a_source_error(service: DictService) -> None:
    """Decompressors raise `EOFError`, `zlib.error`, `lzma.LZMAError`: no `OSError` among them."""
    with gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(LARGE)[:-20])) as file:
        _refused(service, file)


@pytest.mark.parametrize("text", ["abc", ""], ids=["text", "empty"])
def test_a_text_file_is_a_source_error_that_asks_for_binary_mode(service: DictService, text: str) -> None:
    file: IO[str] = io.StringIO(text)

    assert "binary" in str(_refused(service, file))


@pytest.mark.parametrize("source", [b"/etc/passwd", 0, None], ids=repr)
def test_what_is_no_path_and_no_file_is_a_type_error(service: DictService, source: Any) -> None:
    with pytest.raises(TypeError):
        service.put_file(source)
