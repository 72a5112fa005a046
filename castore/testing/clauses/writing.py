"""A writer takes bytes of any kind, and shows nothing before it is closed."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import array
import io
import itertools
from typing import TYPE_CHECKING, BinaryIO, cast

from castore.contract.blobs import BlobService
from castore.contract.inputs import InputFile
from castore.digest import B3Digest
from castore.errors import WriterClosedError
from castore.testing.blobs import BLOB_B
from castore.testing.clause import Chapter
from castore.testing.expecting import expect, expect_absent, expect_raises, expect_stored, fresh

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

chapter = Chapter()
clause = chapter.clause


class _Slow(io.RawIOBase):
    """Gives no more than *most* bytes of a stream at once."""

    def __init__(self, stream: io.BytesIO, most: int) -> None:
        self._stream = stream
        self._most = most

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._stream.readinto(memoryview(buffer).cast("B")[: self._most])


class _StopError(Exception):
    """Raised in a with-block, to see what the writer makes of it."""


@clause()
def write_takes_all(service: BlobService) -> None:
    """`write` takes all of its bytes at once and returns how many they were, also when there are none."""
    with service.open_write() as writer:
        for data in (b"", b"x", BLOB_B.data):
            expect(f"write() of {len(data)} bytes", writer.write(data), len(data))
        expect("close()", writer.close(), B3Digest.of(b"x" + BLOB_B.data))
    expect_stored(service, B3Digest.of(b"x" + BLOB_B.data), b"x" + BLOB_B.data)


@clause()
def write_takes_any_buffer(service: BlobService) -> None:
    """`write` takes bytes, bytearrays, memoryviews and arrays; it counts bytes, not items."""
    data = fresh(1000)
    numbers = array.array("I", [1, 2, 3_000_000_000])
    with service.open_write() as writer:
        expect("write() of bytes", writer.write(data), 1000)
        expect("write() of a bytearray", writer.write(bytearray(data)), 1000)
        expect("write() of a memoryview", writer.write(memoryview(data)[10:20]), 10)
        expect("write() of an array", writer.write(numbers), 3 * numbers.itemsize)
        digest = writer.close()
    expect_stored(service, digest, data + data + data[10:20] + numbers.tobytes())


@clause()
def pieces_make_no_difference(service: BlobService) -> None:
    """A blob is what was written, in however many pieces."""
    data = fresh(600_000)
    digest = B3Digest.of(data)
    for step in (7_001, 262_144, 600_000):
        with service.open_write() as writer:
            for start in range(0, len(data), step):
                writer.write(data[start : start + step])
            expect(f"the digest, written by {step} bytes,", writer.close(), digest)
    expect_stored(service, digest, data)


@clause()
def buffer_may_be_reused(service: BlobService) -> None:
    """`write` keeps no part of the buffer: it may change, or grow, as soon as `write` returns."""
    data = fresh(500_000)
    buffer = bytearray(data)
    with service.open_write() as writer:
        writer.write(buffer)
        buffer[:] = bytes(len(buffer))
        buffer.extend(b"more")
        digest = writer.close()
    expect("the digest", digest, B3Digest.of(data))
    expect_stored(service, digest, data)


@clause()
def fill_takes_what_it_reads(service: BlobService) -> None:
    """`fill` takes bytes of its source from where that stands, and tells how many they were, 0 at its end."""
    data = fresh(3_000_000)
    stream = io.BytesIO(data)
    with service.open_write() as writer:
        for most in itertools.cycle((1, 100_000, len(data))):
            at = stream.tell()
            count = writer.fill(InputFile(cast("BinaryIO", _Slow(stream, most)), "the stream"))
            expect("fill(), with what it has read,", count, stream.tell() - at)
            if not count:
                break
        expect("where the stream stands when fill() is 0", stream.tell(), len(data))
        writer.write(b"the end")
        digest = writer.close()
    expect("the digest of what was filled in and written", digest, B3Digest.of(data + b"the end"))
    expect_stored(service, digest, data + b"the end")
    ended = InputFile(io.BytesIO(b"more"), "the stream")
    expect_raises("fill() after close()", WriterClosedError, lambda: writer.fill(ended))


@clause()
def invisible_before_close(service: BlobService) -> None:
    """Nothing of a blob is visible before its writer is closed, and all of it right afterwards."""
    for size in (64, 600_000):
        data = fresh(size)
        digest = B3Digest.of(data)
        with service.open_write() as writer:
            writer.write(data)
            expect_absent(service, digest)
            writer.close()
            expect_stored(service, digest, data)


@clause()
def with_block_closes(service: BlobService) -> None:
    """A with-block closes its writer at its end."""
    data = fresh()
    with service.open_write() as writer:
        writer.write(data)
    expect_stored(service, B3Digest.of(data), data)
    expect("close() after the with-block", writer.close(), B3Digest.of(data))


@clause()
def close_is_idempotent(service: BlobService) -> None:
    """Closing a writer again gives the same digest again."""
    data = fresh()
    writer = service.open_write()
    writer.write(data)
    expect("close()", writer.close(), B3Digest.of(data))
    expect("close() again", writer.close(), B3Digest.of(data))
    expect_stored(service, B3Digest.of(data), data)


@clause()
def abort_leaves_nothing(service: BlobService) -> None:
    """After `abort`, which may be called again, there is no blob."""
    for size in (64, 600_000):
        data = fresh(size)
        writer = service.open_write()
        writer.write(data)
        writer.abort()
        writer.abort()
        expect_absent(service, B3Digest.of(data))


@clause()
def exception_aborts(service: BlobService) -> None:
    """An exception in the with-block comes out of it, and there is no blob of what was written."""
    data = fresh()

    def fail() -> None:
        with service.open_write() as writer:
            writer.write(data)
            raise _StopError

    expect_raises("the with-block", _StopError, fail)
    expect_absent(service, B3Digest.of(data))


@clause()
def abort_after_close_does_nothing(service: BlobService) -> None:
    """`abort` does not take back what `close` has stored."""
    data = fresh()
    writer = service.open_write()
    writer.write(data)
    digest = writer.close()
    writer.abort()
    expect_stored(service, digest, data)


@clause()
def write_after_the_end_raises(service: BlobService) -> None:
    """After `close` or `abort`, `write` raises `WriterClosedError`, and so does `close` after `abort`."""
    data = fresh()
    closed, aborted = service.open_write(), service.open_write()
    closed.write(data)
    digest = closed.close()
    aborted.write(fresh())
    aborted.abort()
    expect_raises("write() after close()", WriterClosedError, lambda: closed.write(b"more"))
    expect_raises("write() after abort()", WriterClosedError, lambda: aborted.write(b"more"))
    expect_raises("close() after abort()", WriterClosedError, aborted.close)
    expect_stored(service, digest, data)


@clause()
def writers_are_independent(service: BlobService) -> None:
    """Two writers whose writes alternate make two blobs; aborting a third harms neither."""
    one, other = fresh(200_000), fresh(200_000)
    first, second, third = (service.open_write() for _ in range(3))
    for start in range(0, 200_000, 50_000):
        first.write(one[start : start + 50_000])
        third.write(one[start : start + 50_000])
        second.write(other[start : start + 50_000])
    third.abort()
    expect("the first writer's close()", first.close(), B3Digest.of(one))
    expect("the second writer's close()", second.close(), B3Digest.of(other))
    expect_stored(service, B3Digest.of(one), one)
    expect_stored(service, B3Digest.of(other), other)
