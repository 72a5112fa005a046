"""Readers as binary files: each kind stands in for `io.BytesIO`, apart from seeks outside the blob."""

from __future__ import annotations

import array
import csv
import errno
import io
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from castore.chunks.reader import ChunkedReader
from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.digest import B3Digest
from castore.errors import InvalidSeekError, UnavailableError
from castore.streams.readers import BytesReader, FileReader, PieceReader

DATA = bytes(range(256)) * 40


class Chunks(BlobService):
    """Holds chunks as blobs."""

    def __init__(self) -> None:
        self.held: dict[B3Digest, bytes] = {}

    def has(self, digest: B3Digest) -> bool:
        return digest in self.held

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        data = self.held.get(digest)
        return None if data is None else BytesReader(data)

    def open_write(self) -> BlobWriter:
        raise NotImplementedError


class CountingReader(PieceReader):
    """Gives pieces of a given size and counts how often it is asked for one."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._step = piece
        self.calls = 0

    @property
    def size(self) -> int:
        return len(self._data)

    def piece_at(self, position: int) -> memoryview:
        assert 0 <= position < len(self._data)
        self.calls += 1
        end = (position // self._step + 1) * self._step
        return memoryview(self._data)[position:end]


def _bytes_reader(data: bytes) -> PieceReader:
    return BytesReader(data)


def _file_reader(data: bytes) -> PieceReader:
    return FileReader(io.BytesIO(data), len(data))


def _piece_reader(data: bytes) -> PieceReader:
    return CountingReader(data, 3)


def _chunked_reader(data: bytes) -> PieceReader:
    """In chunks of 1 to 13 bytes, or of 1000 and more where there are many bytes."""
    if not data:
        return BytesReader(data)
    scale = 1 if len(data) < 5000 else 1000
    service = Chunks()
    metas = []
    start = 0
    step = 1
    while start < len(data):
        chunk = data[start : start + step * scale]
        digest = B3Digest.of(chunk)
        service.held[digest] = chunk
        metas.append(ChunkMeta(digest, len(chunk)))
        start += len(chunk)
        step = step % 13 + 4
    return ChunkedReader(service, metas, digest=B3Digest.of(data))


READERS: dict[str, Callable[[bytes], PieceReader]] = {
    "bytes": _bytes_reader,
    "file": _file_reader,
    "pieces": _piece_reader,
    "chunked": _chunked_reader,
}


@pytest.fixture(params=READERS)
def open_reader(request: pytest.FixtureRequest) -> Callable[[bytes], PieceReader]:
    return READERS[request.param]


@pytest.fixture
def reader(open_reader: Callable[[bytes], PieceReader]) -> PieceReader:
    return open_reader(DATA)


Opener = Callable[[bytes], PieceReader]


# -- the methods of a binary file --


def test_a_reader_is_a_binary_file(reader: PieceReader) -> None:
    assert isinstance(reader, io.BufferedIOBase)
    assert reader.readable()
    assert reader.seekable()
    assert not reader.writable()
    assert not reader.isatty()
    assert not reader.closed
    assert reader.size == len(DATA)
    assert reader.tell() == 0


def test_a_reader_cannot_be_written_to(reader: PieceReader) -> None:
    for change in (lambda: reader.write(b"x"), reader.truncate, reader.fileno, reader.detach):
        with pytest.raises(io.UnsupportedOperation):
            change()


def test_read_gives_all_then_nothing(reader: PieceReader) -> None:
    assert reader.read() == DATA
    assert reader.tell() == len(DATA)
    assert reader.read() == reader.read(1) == reader.read1() == reader.peek() == reader.readline() == b""


@pytest.mark.parametrize("everything", [-1, None, -5, len(DATA), 1 << 62])
def test_read_gives_all_when_asked_for_at_least_all(reader: PieceReader, everything: int | None) -> None:
    assert reader.read(everything) == DATA


def test_read_gives_as_much_as_it_is_asked_for_across_pieces(reader: PieceReader) -> None:
    parts = []
    while part := reader.read(997):
        parts.append(part)

    assert {len(part) for part in parts[:-1]} == {997}
    assert b"".join(parts) == DATA


def test_read_gives_bytes_of_its_own(reader: PieceReader) -> None:
    """Not a view of something that changes or lives as long."""
    assert [type(part) for part in (reader.read(5), reader.read1(5), reader.peek(5))] == [bytes] * 3


def test_read1_gives_at_least_a_byte_and_at_most_what_it_is_asked_for(reader: PieceReader) -> None:
    parts = []
    while part := reader.read1(100):
        assert len(part) <= 100
        parts.append(part)

    assert b"".join(parts) == DATA


def test_read1_without_a_size_gives_what_is_at_hand(open_reader: Opener) -> None:
    parts = []
    reader = open_reader(DATA)
    while part := reader.read1():
        parts.append(part)

    assert b"".join(parts) == DATA
    assert open_reader(DATA).read1(-1) == parts[0]
    assert open_reader(DATA).read1(None) == parts[0]


def test_readinto_fills_its_buffer_across_pieces(reader: PieceReader) -> None:
    buffer = bytearray(997)

    assert reader.readinto(buffer) == 997
    assert buffer == DATA[:997]
    assert reader.tell() == 997


def test_readinto_at_the_end_fills_a_part_and_leaves_the_rest_alone(reader: PieceReader) -> None:
    buffer = bytearray(b"x" * 10)
    reader.seek(-4, io.SEEK_END)

    assert reader.readinto(buffer) == 4
    assert buffer == DATA[-4:] + b"xxxxxx"
    assert reader.readinto(buffer) == reader.readinto1(buffer) == 0


def test_readinto1_gives_bytes_of_one_piece(reader: PieceReader) -> None:
    buffer = bytearray(len(DATA))

    count = reader.readinto1(buffer)

    assert 0 < count <= len(DATA)
    assert buffer[:count] == DATA[:count]
    assert reader.tell() == count


def test_readinto_takes_buffers_of_larger_items(reader: PieceReader) -> None:
    buffer = array.array("I", [0] * 10)

    assert reader.readinto(buffer) == 40
    assert buffer.tobytes() == DATA[:40]


def test_readinto_refuses_a_buffer_that_cannot_be_written(reader: PieceReader) -> None:
    with pytest.raises(TypeError):
        reader.readinto(b"read-only")

    assert reader.tell() == 0


def test_peek_does_not_move(reader: PieceReader) -> None:
    reader.seek(5)

    ahead = reader.peek(1)

    assert ahead
    assert DATA[5:].startswith(ahead)
    assert reader.tell() == 5
    assert reader.read(3) == DATA[5:8]


def test_peek_never_copies_much_more_than_it_is_asked_for() -> None:
    """Lines are read through it: a copy of a whole chunk for each line would be quadratic."""
    assert len(BytesReader(bytes(1 << 20)).peek()) <= io.DEFAULT_BUFFER_SIZE
    assert len(BytesReader(bytes(1 << 20)).peek(100_000)) == 100_000


def test_an_empty_blob_reads_as_an_empty_file(open_reader: Opener) -> None:
    reader = open_reader(b"")

    assert reader.size == 0
    assert reader.read() == reader.read(5) == reader.read1() == reader.peek() == reader.readline() == b""
    assert reader.readinto(bytearray(5)) == 0
    assert reader.seek(0, io.SEEK_END) == 0
    assert list(reader) == []


# -- seeks --


def test_a_seek_goes_anywhere_from_the_start_to_the_end(reader: PieceReader) -> None:
    """The reference's own test of seeks, on another blob."""
    assert reader.read(10) == DATA[:10]
    assert reader.seek(10) == 10
    assert reader.read(10) == DATA[10:20]
    assert reader.seek(25) == 25
    assert reader.read(10) == DATA[25:35]
    assert reader.seek(5000, io.SEEK_CUR) == 5035
    assert reader.read(10) == DATA[5035:5045]
    assert reader.seek(0, io.SEEK_CUR) == 5045
    assert reader.seek(-45, io.SEEK_CUR) == 5000
    assert reader.seek(-1, io.SEEK_END) == len(DATA) - 1
    assert reader.read() == DATA[-1:]
    assert reader.seek(len(DATA)) == reader.seek(0, io.SEEK_END) == len(DATA)
    assert reader.read() == b""
    assert reader.seek(0) == 0
    assert reader.read() == DATA


@pytest.mark.parametrize(
    ("offset", "whence", "reason"),
    [
        (-1, io.SEEK_SET, "before the start"),
        (-6, io.SEEK_CUR, "before the start"),
        (-len(DATA) - 1, io.SEEK_END, "before the start"),
        (-(1 << 70), io.SEEK_CUR, "before the start"),
        (len(DATA) + 1, io.SEEK_SET, "beyond the end"),
        (len(DATA) - 4, io.SEEK_CUR, "beyond the end"),
        (1, io.SEEK_END, "beyond the end"),
        (1 << 70, io.SEEK_SET, "beyond the end"),
        (0, 3, "no way to seek"),
        (0, -1, "no way to seek"),
    ],
)
def test_a_seek_outside_the_blob_is_refused_and_does_not_move(
    reader: PieceReader, offset: int, whence: int, reason: str
) -> None:
    reader.seek(5)

    with pytest.raises(InvalidSeekError, match=reason) as caught:
        reader.seek(offset, whence)

    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.errno == errno.EINVAL
    assert reader.tell() == 5
    assert reader.read(1) == DATA[5:6]


def test_a_seek_takes_whatever_is_an_integer_and_gives_an_int(reader: PieceReader) -> None:
    class Index:
        def __index__(self) -> int:
            return 7

    position = reader.seek(Index())  # type: ignore[arg-type]

    assert (type(position), position) == (int, 7)
    assert reader.tell() == 7


def test_a_seek_to_a_fraction_of_a_byte_is_refused(reader: PieceReader) -> None:
    with pytest.raises(TypeError):
        reader.seek(1.0)  # type: ignore[arg-type]

    assert reader.tell() == 0


# -- closing --


def test_a_closed_reader_refuses_everything(reader: PieceReader) -> None:
    reader.close()
    reader.close()

    calls: list[Callable[[], object]] = [
        reader.read,
        lambda: reader.read(0),
        reader.read1,
        lambda: reader.read1(0),
        lambda: reader.readinto(bytearray(1)),
        lambda: reader.readinto(bytearray()),
        lambda: reader.readinto1(bytearray()),
        reader.peek,
        reader.readline,
        reader.readlines,
        reader.tell,
        lambda: reader.seek(0),
        lambda: next(reader),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed file"):
            call()


def test_a_reader_closed_at_its_end_still_refuses_everything(reader: PieceReader) -> None:
    reader.seek(0, io.SEEK_END)
    reader.close()

    with pytest.raises(ValueError, match="closed file"):
        reader.read()


def test_a_reader_closes_at_the_end_of_its_block(reader: PieceReader) -> None:
    with reader as same:
        assert same is reader
        assert reader.read(1) == DATA[:1]

    assert reader.closed


def test_a_file_reader_closes_its_file_with_itself() -> None:
    file = io.BytesIO(DATA)

    FileReader(file, len(DATA)).close()

    assert file.closed


# -- what takes a binary file --


def test_copyfileobj_copies_a_blob(reader: PieceReader) -> None:
    copy = io.BytesIO()

    shutil.copyfileobj(reader, copy)

    assert copy.getvalue() == DATA


def _zip(files: dict[str, bytes], compression: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zipfile_reads_a_blob(open_reader: Opener, compression: int) -> None:
    files = {"a": DATA, "b": b"", "c/d": b"text\n" * 500}

    with zipfile.ZipFile(open_reader(_zip(files, compression))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
        with archive.open("a") as inside:
            inside.seek(5000)
            assert inside.read(10) == DATA[5000:5010]


@pytest.mark.parametrize("data", [b"", b"x", b"not a zip", bytes(100_000)], ids=len)
def test_zipfile_tells_that_a_blob_is_none(open_reader: Opener, data: bytes) -> None:
    """It seeks to 22 bytes before the end first, and takes an `OSError` for an answer."""
    assert not zipfile.is_zipfile(open_reader(data))
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(open_reader(data))


def test_zipfile_finds_a_blob_to_be_a_zip(open_reader: Opener) -> None:
    assert zipfile.is_zipfile(open_reader(_zip({"a": b"x"}, zipfile.ZIP_STORED)))


@pytest.mark.parametrize("mode", ["r:", "r:*", "r|", "r:gz", "r|gz"])
def test_tarfile_reads_a_blob(open_reader: Opener, mode: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz" if "gz" in mode else "w:") as archive:
        for name in ("a", "b"):
            member = tarfile.TarInfo(name)
            member.size = len(DATA)
            archive.addfile(member, io.BytesIO(DATA))

    contents = {}
    with tarfile.open(fileobj=open_reader(packed.getvalue()), mode=mode) as archive:  # type: ignore[call-overload]
        for member in archive:
            inside = archive.extractfile(member)
            assert inside is not None
            contents[member.name] = inside.read()
    assert contents == {"a": DATA, "b": DATA}


def test_a_text_wrapper_decodes_a_blob(open_reader: Opener) -> None:
    text = "Grüße, 世界! \U0001f600\n" * 2000

    with io.TextIOWrapper(open_reader(text.encode()), "utf-8") as file:  # type: ignore[type-var]
        assert file.read() == text


def test_a_text_wrapper_goes_back_to_where_it_was(open_reader: Opener) -> None:
    file = io.TextIOWrapper(open_reader("zwölf\nelf\nzehn\n".encode() * 1000), "utf-8")  # type: ignore[type-var]
    file.readline()
    place = file.tell()
    line = file.readline()
    file.read(1000)

    file.seek(place)

    assert file.readline() == line == "elf\n"


def test_a_buffered_reader_reads_a_blob(open_reader: Opener) -> None:
    buffered = io.BufferedReader(open_reader(DATA), 100)

    assert buffered.read(10) == DATA[:10]
    assert buffered.seek(-10, io.SEEK_END) == len(DATA) - 10
    assert buffered.read() == DATA[-10:]


def test_csv_reads_a_blob(open_reader: Opener) -> None:
    rows = [[str(number), f"name {number}", 'with "quotes"'] for number in range(1000)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)

    with io.TextIOWrapper(open_reader(text.getvalue().encode()), newline="") as file:  # type: ignore[type-var]
        assert list(csv.reader(file)) == rows


def test_pickle_loads_from_a_blob(open_reader: Opener) -> None:
    value = {"a": [1, 2, 3], "b": DATA}

    assert pickle.load(open_reader(pickle.dumps(value))) == value


# -- lines --

LINES = [b"\n", b"short\n", b"x" * 20_000 + b"\n", b"\r\n", b"a" * 3 + b"\n", b"no end"]


def test_lines_are_those_of_a_file(open_reader: Opener) -> None:
    data = b"".join(LINES)

    assert list(open_reader(data)) == LINES
    assert open_reader(data).readlines() == LINES
    assert open_reader(data).readlines(3) == io.BytesIO(data).readlines(3)


@pytest.mark.parametrize("limit", [-1, 0, 1, 3, 6, 20_001])
def test_readline_stops_at_its_limit(open_reader: Opener, limit: int) -> None:
    reader, file = open_reader(b"".join(LINES)), io.BytesIO(b"".join(LINES))

    assert [reader.readline(limit) for _ in range(9)] == [file.readline(limit) for _ in range(9)]


def test_a_line_costs_few_pieces() -> None:
    """Not one for each byte, as `io` reads lines of a file that cannot peek."""
    lines = [b"%07d\n" % number for number in range(1000)]
    reader = CountingReader(b"".join(lines), 1001)

    assert list(reader) == lines
    assert reader.calls <= 4 * len(lines)


class CountingFile(io.BytesIO):
    """Counts reads and seeks."""

    reads = 0
    seeks = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.seeks += 1
        return super().seek(offset, whence)


def test_lines_of_a_file_reader_do_not_read_the_file_for_each() -> None:
    lines = [b"%07d\n" % number for number in range(50_000)]
    file = CountingFile(b"".join(lines))

    assert list(FileReader(file, 400_000)) == lines
    assert file.reads <= 10
    assert file.seeks == 0


def test_small_reads_and_seeks_of_a_file_reader_share_one_read_of_the_file() -> None:
    file = CountingFile(DATA)
    reader = FileReader(file, len(DATA))

    for position in (0, 100, 50, 7000, 3):
        reader.seek(position)
        assert reader.read(10) == DATA[position : position + 10]

    assert file.reads == 1


def test_a_file_reader_goes_to_its_place_in_a_file_that_others_move() -> None:
    file = io.BytesIO(bytes(range(256)) * 1000)
    reader = FileReader(file, 256_000)
    reader.read(10)
    file.seek(12_345)

    assert reader.read() == file.getvalue()[10:]


def test_a_file_reader_reads_no_more_than_its_size() -> None:
    """Not even from a file that has grown."""
    for method, arguments in (("read", ()), ("read1", ()), ("peek", (1 << 20,)), ("readline", ())):
        reader = FileReader(io.BytesIO(b"abc and more"), 3)
        assert getattr(reader, method)(*arguments) == b"abc"


def test_a_file_reader_never_passes_off_a_file_that_has_shrunk_as_whole() -> None:
    reader = FileReader(io.BytesIO(DATA[:-1]), len(DATA))

    with pytest.raises(UnavailableError, match=f"ends at {len(DATA) - 1}"):
        reader.read()


def test_a_file_reader_reads_an_unbuffered_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA * 30)

    with FileReader(path.open("rb", buffering=0), len(DATA) * 30) as reader:
        assert reader.read() == DATA * 30


# -- pieces --


def test_nothing_is_fetched_for_no_bytes() -> None:
    reader = CountingReader(DATA, 100)

    assert reader.read(0) == reader.read1(0) == b""
    assert reader.readinto(bytearray()) == reader.readinto1(bytearray()) == 0
    assert reader.calls == 0


@pytest.mark.parametrize("size", [1, 100, 101, 5000, -1])
def test_each_piece_is_fetched_once_for_a_read(size: int) -> None:
    reader = CountingReader(DATA, 100)

    data = reader.read(size)

    assert reader.calls == -(-len(data) // 100)


def test_a_read_asks_for_no_memory_before_it_has_the_bytes() -> None:
    """A forged index may claim any size."""

    class Claiming(CountingReader):
        @property
        def size(self) -> int:
            return 1 << 60

        def piece_at(self, position: int) -> memoryview:
            if position:
                raise RuntimeError("the second chunk is missing")
            return memoryview(b"abc")

    with pytest.raises(RuntimeError, match="missing"):
        Claiming(b"", 1).read()


class Failing(CountingReader):
    """The piece at 200 cannot be had while *broken*."""

    broken = True

    def piece_at(self, position: int) -> memoryview:
        if self.broken and position >= 200:
            raise RuntimeError("unavailable")
        return super().piece_at(position)


@pytest.mark.parametrize(
    "read",
    [lambda reader: reader.read(), lambda reader: reader.readinto(bytearray(500))],
    ids=["read", "readinto"],
)
def test_a_read_that_fails_does_not_move_and_can_be_done_again(read: Callable[[Any], object]) -> None:
    reader = Failing(DATA, 100)
    reader.seek(50)

    with pytest.raises(RuntimeError):
        read(reader)
    assert reader.tell() == 50

    reader.broken = False
    assert reader.read() == DATA[50:]


def test_a_backend_that_gives_empty_pieces_is_no_endless_loop() -> None:
    class Empty(CountingReader):
        def piece_at(self, position: int) -> memoryview:
            return memoryview(b"")

    for read in ("read", "read1", "peek", "readline"):
        with pytest.raises(EOFError):
            getattr(Empty(DATA, 1), read)()
    with pytest.raises(EOFError):
        Empty(DATA, 1).readinto(bytearray(1))


# -- a model: random reads and seeks give what `io.BytesIO` gives --


class _AgainstBytesIO(RuleBasedStateMachine):
    open_reader: Opener

    @initialize(
        data=st.lists(st.sampled_from([b"", b"a", b"bc\n", b"0123456789", b"\n"]), max_size=15).map(b"".join)
    )
    def start(self, data: bytes) -> None:
        self.data = data
        self.reader = self.open_reader(data)
        self.file = io.BytesIO(data)

    @rule(size=st.none() | st.integers(-1, 70))
    def read(self, size: int | None) -> None:
        assert self.reader.read(size) == self.file.read(size)

    @rule(size=st.integers(0, 70))
    def read1(self, size: int) -> None:
        part = self.reader.read1(size)
        assert len(part) <= size
        assert bool(part) == bool(size and self.file.tell() < len(self.data))
        assert part == self.file.read(len(part))

    @rule(size=st.integers(0, 70))
    def readinto(self, size: int) -> None:
        ours, theirs = bytearray(b"-" * size), bytearray(b"-" * size)
        assert self.reader.readinto(ours) == self.file.readinto(theirs)
        assert ours == theirs

    @rule(size=st.integers(0, 70))
    def readinto1(self, size: int) -> None:
        ours = bytearray(b"-" * size)
        count = self.reader.readinto1(ours)
        assert ours == self.file.read(count) + b"-" * (size - count)

    @rule(limit=st.integers(-1, 10))
    def readline(self, limit: int) -> None:
        assert self.reader.readline(limit) == self.file.readline(limit)

    @rule(size=st.integers(0, 70))
    def peek(self, size: int) -> None:
        ahead = self.reader.peek(size)
        rest = self.data[self.file.tell() :]
        assert rest.startswith(ahead)
        assert bool(ahead) == bool(rest)

    @rule(position=st.integers(0, 60), whence=st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]))
    def seek(self, position: int, whence: int) -> None:
        position = min(position, len(self.data))
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.file.tell(), io.SEEK_END: len(self.data)}[whence]
        assert self.reader.seek(position - base, whence) == self.file.seek(position - base, whence)

    @rule(offset=st.integers(1, 100), before=st.booleans())
    def seek_outside(self, offset: int, before: bool) -> None:
        with pytest.raises(InvalidSeekError):
            self.reader.seek(-offset if before else len(self.data) + offset)

    @invariant()
    def stands_at_the_same_place(self) -> None:
        assert self.reader.tell() == self.file.tell()


def _machine(open_it: Opener) -> Any:
    machine: Any = type("Machine", (_AgainstBytesIO,), {"open_reader": staticmethod(open_it)})
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
    return case


TestBytesReaderAgainstBytesIO = _machine(_bytes_reader)
TestFileReaderAgainstBytesIO = _machine(_file_reader)
TestPieceReaderAgainstBytesIO = _machine(_piece_reader)
TestChunkedReaderAgainstBytesIO = _machine(_chunked_reader)


def test_a_file_reader_over_a_real_file_reads_as_that_file(tmp_path: Path) -> None:
    """Far larger than one piece, in steps that cross the borders of pieces."""
    data = os.urandom(300_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    file: BinaryIO = path.open("rb")

    with FileReader(file, len(data)) as reader:
        for position in (0, 65_535, 65_536, 299_999, 1, 131_000):
            reader.seek(position)
            assert reader.read(70_000) == data[position : position + 70_000]
