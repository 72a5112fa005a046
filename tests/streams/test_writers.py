"""Writers: one life from open to closed, aborted or failed; and the spool."""

from __future__ import annotations

import array
import bz2
import ctypes
import gc
import io
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore.contract.blobs import BlobWriter
from castore.digest import B3Digest
from castore.errors import WriterClosedError
from castore.streams.writers import GuardedWriter, SpooledWriter

MIB = 1 << 20


class ListWriter(GuardedWriter):
    """Records what it is asked to do; fails where it is told to."""

    def __init__(self, fail: str = "", error: BaseException | None = None) -> None:
        self.did: list[object] = []
        self._fails = fail
        self._error = error or OSError(28, "No space left on device")

    def _take(self, view: memoryview) -> None:
        if self._fails == "take":
            raise self._error
        self.did.append(bytes(view))

    def _finish(self) -> B3Digest:
        if self._fails == "finish":
            raise self._error
        self.did.append("finish")
        return B3Digest.of(b"".join(part for part in self.did if isinstance(part, bytes)))

    def _discard(self) -> None:
        self.did.append("discard")


class Stored:
    """What a spooled writer hands over."""

    def __init__(self) -> None:
        self.blobs: list[tuple[B3Digest, bytes]] = []

    def __call__(self, digest: B3Digest, file: BinaryIO) -> None:
        self.blobs.append((digest, file.read()))


# -- the rules --


def test_close_gives_the_digest_and_gives_it_again() -> None:
    writer = ListWriter()
    writer.write(b"Hello ")
    writer.write(b"World")

    assert writer.close() == writer.close() == B3Digest.of(b"Hello World")
    assert writer.did == [b"Hello ", b"World", "finish"]


def test_nothing_written_is_the_empty_blob() -> None:
    assert ListWriter().close() == B3Digest.of(b"")


def test_an_empty_write_takes_nothing() -> None:
    writer = ListWriter()

    assert writer.write(b"") == 0
    assert writer.did == []


def test_a_writer_counts_what_it_has_taken() -> None:
    writer = ListWriter()
    assert writer.tell() == 0

    assert writer.write(b"abc") == 3
    assert writer.write(b"de") == 2

    assert writer.tell() == 5
    assert writer.writable()
    writer.flush()
    assert writer.did == [b"abc", b"de"]


def _close(writer: ListWriter) -> None:
    writer.close()


def _abort(writer: ListWriter) -> None:
    writer.abort()


def _fail_to_write(writer: ListWriter) -> None:
    writer._fails = "take"
    with pytest.raises(OSError, match="No space"):
        writer.write(b"x")


def _fail_to_close(writer: ListWriter) -> None:
    writer._fails = "finish"
    with pytest.raises(OSError, match="No space"):
        writer.close()


ENDS = [
    pytest.param(_close, "is closed", id="closed"),
    pytest.param(_abort, "was aborted", id="aborted"),
    pytest.param(_fail_to_write, "has failed", id="failed-to-write"),
    pytest.param(_fail_to_close, "has failed", id="failed-to-close"),
]


@pytest.mark.parametrize(("end", "reason"), ENDS)
def test_a_writer_that_has_ended_takes_nothing(end: Callable[[ListWriter], None], reason: str) -> None:
    """Not even no bytes; and it says how it ended."""
    writer = ListWriter()
    writer.write(b"abc")
    assert not writer.closed
    end(writer)
    did = list(writer.did)

    assert writer.closed
    for data in (b"more", b""):
        with pytest.raises(WriterClosedError, match=reason):
            writer.write(data)
    assert writer.did == did
    assert writer.tell() == 3


@pytest.mark.parametrize(("end", "reason"), ENDS[1:])
def test_a_writer_that_was_not_closed_cannot_be(end: Callable[[ListWriter], None], reason: str) -> None:
    writer = ListWriter()
    end(writer)

    for _ in range(2):
        with pytest.raises(WriterClosedError, match=f"cannot close: this writer {reason}"):
            writer.close()
    assert "finish" not in writer.did


@pytest.mark.parametrize(("end", "reason"), ENDS)
def test_a_writer_that_has_ended_can_be_aborted_to_no_effect(
    end: Callable[[ListWriter], None], reason: str
) -> None:
    writer = ListWriter()
    end(writer)
    did = list(writer.did)

    writer.abort()
    writer.abort()

    assert writer.did == did


def test_abort_after_close_leaves_the_blob() -> None:
    writer = ListWriter()
    digest = writer.close()

    writer.abort()

    assert writer.close() == digest


@pytest.mark.parametrize("end", [_abort, _fail_to_write, _fail_to_close])
def test_what_a_writer_held_is_discarded_once(end: Callable[[ListWriter], None]) -> None:
    writer = ListWriter()
    end(writer)
    writer.abort()

    assert writer.did.count("discard") == 1


@pytest.mark.parametrize("end", [_close])
def test_what_was_stored_is_not_discarded(end: Callable[[ListWriter], None]) -> None:
    writer = ListWriter()
    end(writer)
    writer.abort()

    assert "discard" not in writer.did


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), SystemExit()], ids=repr)
@pytest.mark.parametrize("step", ["take", "finish"])
def test_a_failing_step_raises_its_own_error_and_ends_the_writer(step: str, error: BaseException) -> None:
    """An interrupt as well: nobody knows how much was taken."""
    writer = ListWriter(step, error)

    def use() -> None:
        writer.write(b"abc")
        writer.close()

    with pytest.raises(type(error)) as caught:
        use()
    assert caught.value is error
    assert writer.did[-1] == "discard"
    with pytest.raises(WriterClosedError):
        writer.close()


def test_a_block_closes() -> None:
    with ListWriter() as writer:
        writer.write(b"abc")

    assert writer.close() == B3Digest.of(b"abc")


def test_a_block_may_close_the_writer_itself() -> None:
    with ListWriter() as writer:
        digest = writer.close()

    assert digest == writer.close()


def test_a_block_that_raises_aborts() -> None:
    writer = ListWriter()

    def use() -> None:
        with writer:
            writer.write(b"abc")
            raise LookupError

    with pytest.raises(LookupError):
        use()
    assert writer.did == [b"abc", "discard"]


def test_a_block_in_which_the_writer_fails_raises_that_error() -> None:
    def use() -> None:
        with ListWriter("take") as writer:
            writer.write(b"abc")

    with pytest.raises(OSError, match="No space"):
        use()


def test_a_block_whose_close_fails_raises_that_error() -> None:
    def use() -> None:
        with ListWriter("finish") as writer:
            writer.write(b"abc")

    with pytest.raises(OSError, match="No space"):
        use()


# -- buffers --


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"abc", id="bytes"),
        pytest.param(bytearray(b"abc"), id="bytearray"),
        pytest.param(memoryview(b"a.b.c.")[::2], id="strided"),
        pytest.param(memoryview(b"cba")[::-1], id="reversed"),
        pytest.param(memoryview(bytes(range(24))).cast("B", (4, 6)), id="two-dimensions"),
        pytest.param(array.array("I", [1, 2, 3]), id="four-byte-items"),
        pytest.param(memoryview(array.array("d", [1.0, 2.0, 3.0]))[::2], id="strided-eight-byte-items"),
        pytest.param((ctypes.c_int32 * 3)(1, 2, 3), id="ctypes-numbers"),
        pytest.param((ctypes.c_int32.__ctype_be__ * 3)(1, 2, 3), id="ctypes-big-endian"),
        pytest.param(ctypes.create_string_buffer(b"abc", 3), id="ctypes-characters"),
        pytest.param(ctypes.c_int64(7), id="no-dimension"),
        pytest.param(array.array("I"), id="no-items"),
        pytest.param((ctypes.c_int32 * 3 * 0)(), id="no-items-in-two-dimensions"),
    ],
)
def test_write_takes_the_bytes_of_any_buffer(data: Any) -> None:
    writer = ListWriter()
    expected = memoryview(data).tobytes()

    assert writer.write(data) == len(expected)
    assert writer.tell() == len(expected)
    assert writer.close() == B3Digest.of(expected)


def test_write_hands_on_flat_bytes() -> None:
    """A subclass need not know of other buffers."""
    views: list[memoryview] = []

    class Keeping(ListWriter):
        def _take(self, view: memoryview) -> None:
            views.append(view)

    Keeping().write(array.array("I", [1, 2, 3]))
    Keeping().write(memoryview(b"a.b.")[::2])

    assert [(view.format, view.ndim, view.c_contiguous, len(view)) for view in views] == [
        ("B", 1, True, 12),
        ("B", 1, True, 2),
    ]


@pytest.mark.parametrize("data", ["text", None, 5, ["a"]], ids=repr)
def test_what_is_no_buffer_is_refused_and_the_writer_goes_on(data: Any) -> None:
    writer = ListWriter()

    with pytest.raises(TypeError):
        writer.write(data)

    assert writer.write(b"abc") == 3
    assert writer.close() == B3Digest.of(b"abc")


# -- the spool --


def _pieces(*sizes: int) -> list[bytes]:
    return [os.urandom(size) for size in sizes]


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"abc"],
        [b"a", b"", b"bc"],
        _pieces(4 * MIB),
        _pieces(4 * MIB, 1),
        _pieces(1, 9 * MIB, 5),
        _pieces(*[300_000] * 20),
    ],
    ids=lambda pieces: f"{sum(map(len, pieces))} bytes",
)
def test_a_spool_is_handed_over_whole_with_its_digest(pieces: list[bytes]) -> None:
    stored = Stored()
    data = b"".join(pieces)

    with SpooledWriter(stored) as writer:
        for piece in pieces:
            writer.write(piece)
        assert stored.blobs == []

    assert stored.blobs == [(B3Digest.of(data), data)]
    assert writer.close() == B3Digest.of(data)
    assert len(stored.blobs) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=20))
def test_a_spool_keeps_the_order_of_its_writes(pieces: list[bytes]) -> None:
    stored = Stored()
    with SpooledWriter(stored) as writer:
        for piece in pieces:
            writer.write(piece)

    assert stored.blobs[0][1] == b"".join(pieces)


def test_a_small_spool_stays_in_memory_and_a_large_one_does_not() -> None:
    on_disk: list[bool] = []

    def look(digest: B3Digest, file: Any) -> None:
        on_disk.append(file._rolled)

    for size in (4 * MIB, 4 * MIB + 1):
        writer = SpooledWriter(look)
        writer.write(bytes(size))
        writer.close()

    assert on_disk == [False, True]


def test_the_temporary_file_of_a_spool_has_no_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing is left behind by a process that is killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writer = SpooledWriter(Stored())
    writer.write(bytes(5 * MIB))

    assert list(tmp_path.iterdir()) == []
    writer.abort()


@pytest.mark.parametrize("size", [10, 5 * MIB])
def test_an_aborted_spool_stores_nothing_and_closes_its_file(size: int) -> None:
    stored = Stored()
    writer = SpooledWriter(stored)
    writer.write(bytes(size))

    writer.abort()
    del writer
    gc.collect()  # an open file would warn here, and a warning fails the test

    assert stored.blobs == []


@pytest.mark.parametrize("size", [10, 5 * MIB])
def test_a_spool_that_cannot_be_stored_has_failed_and_closes_its_file(size: int) -> None:
    files = []

    def refuse(digest: B3Digest, file: BinaryIO) -> None:
        files.append(file)
        raise ConnectionResetError("gone")

    writer = SpooledWriter(refuse)
    writer.write(bytes(size))

    with pytest.raises(ConnectionResetError):
        writer.close()
    with pytest.raises(WriterClosedError, match="has failed"):
        writer.close()
    assert [file.closed for file in files] == [True]


# -- what writes to a binary file --


def _zip_into(writer: Any) -> None:
    with zipfile.ZipFile(writer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"text\n" * 1000)
        with archive.open("b", "w") as inside:
            inside.write(b"more")


def _check_zip(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.read("a") == b"text\n" * 1000
        assert archive.read("b") == b"more"


def _tar_into(mode: str) -> Callable[[Any], None]:
    def write(writer: Any) -> None:
        with tarfile.open(fileobj=writer, mode=mode) as archive:  # type: ignore[call-overload]
            member = tarfile.TarInfo("a")
            member.size = 5000
            archive.addfile(member, io.BytesIO(b"12345" * 1000))

    return write


def _check_tar(data: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
        inside = archive.extractfile("a")
        assert inside is not None
        assert inside.read() == b"12345" * 1000


def _copy_into(writer: Any) -> None:
    shutil.copyfileobj(io.BytesIO(b"12345" * 100_000), writer)


def _check_copy(data: bytes) -> None:
    assert data == b"12345" * 100_000


def _compress_into(writer: Any) -> None:
    with bz2.BZ2File(writer, "w") as packing:
        packing.write(b"12345" * 1000)


def _check_compressed(data: bytes) -> None:
    assert bz2.decompress(data) == b"12345" * 1000


@pytest.mark.parametrize(
    ("produce", "check"),
    [
        pytest.param(_zip_into, _check_zip, id="zipfile"),
        pytest.param(_tar_into("w|"), _check_tar, id="tarfile-stream"),
        pytest.param(_tar_into("w|gz"), _check_tar, id="tarfile-stream-gz"),
        pytest.param(_tar_into("w:"), _check_tar, id="tarfile"),
        pytest.param(_tar_into("w:gz"), _check_tar, id="tarfile-gz"),
        pytest.param(_copy_into, _check_copy, id="copyfileobj"),
        pytest.param(_compress_into, _check_compressed, id="bz2"),
    ],
)
def test_what_writes_to_a_binary_file_writes_to_a_writer(
    produce: Callable[[Any], None], check: Callable[[bytes], None]
) -> None:
    stored = Stored()

    with SpooledWriter(stored) as writer:
        produce(writer)

    [(digest, data)] = stored.blobs
    assert digest == B3Digest.of(data)
    check(data)


def test_a_buffer_may_be_reused_after_each_write() -> None:
    stored = Stored()
    buffer = bytearray(3)
    with SpooledWriter(stored) as writer:
        for part in (b"abc", b"def"):
            buffer[:] = part
            writer.write(buffer)
        buffer.extend(b"resized: the writer holds no view of it")

    assert stored.blobs[0][1] == b"abcdef"


def test_the_writers_keep_the_contract() -> None:
    assert issubclass(GuardedWriter, BlobWriter)
    assert issubclass(SpooledWriter, GuardedWriter)
