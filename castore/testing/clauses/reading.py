"""A reader is a binary file, as Python knows them."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import io
import itertools
import random
from functools import partial
from typing import BinaryIO, cast

from castore.contract.blobs import BlobReader, BlobService
from castore.testing.blobs import BLOB_B
from castore.testing.clause import Chapter
from castore.testing.expecting import expect, expect_raises, expect_that, fresh, reader_of

chapter = Chapter()
clause = chapter.clause


def _stored(service: BlobService, data: bytes) -> BlobReader:
    return reader_of(service, service.write(data))


@clause()
def reader_is_a_binary_file(service: BlobService) -> None:
    """A reader is an `io.BufferedIOBase` that can be read and sought in, and not written to."""
    with _stored(service, fresh()) as reader:
        expect_that(
            isinstance(reader, io.BufferedIOBase), "a reader to be an io.BufferedIOBase", type(reader)
        )
        expect("readable()", reader.readable(), True)
        expect("seekable()", reader.seekable(), True)
        expect("writable()", reader.writable(), False)
        expect("closed", reader.closed, False)


@clause()
def reader_knows_size(service: BlobService) -> None:
    """A reader has the size of the blob in `size`, wherever it stands."""
    for size in (16, 1000, 700_000):
        with _stored(service, fresh(size)) as reader:
            expect("size before reading", reader.size, size)
            reader.read()
            expect("size at the end", reader.size, size)


@clause()
def read_in_parts(service: BlobService) -> None:
    """Reads of any size give the blob in order; None and -1 mean the rest; at the end there is nothing."""
    data = fresh(300_000)
    for rest in (None, -1):
        with _stored(service, data) as reader:
            expect("read(0)", reader.read(0), b"")
            expect("read(1)", reader.read(1), data[:1])
            expect("read(99_999)", reader.read(99_999), data[1:100_000])
            expect("tell()", reader.tell(), 100_000)
            expect(f"read({rest})", reader.read(rest), data[100_000:])
            expect("read() at the end", reader.read(), b"")
            expect("read(10) at the end", reader.read(10), b"")
            expect("tell() at the end", reader.tell(), len(data))


@clause()
def read_past_the_end(service: BlobService) -> None:
    """A read of more than there is gives what there is."""
    data = fresh(1000)
    with _stored(service, data) as reader:
        reader.seek(900)
        expect("read(5000)", reader.read(5000), data[900:])


@clause()
def readinto_fills_the_buffer(service: BlobService) -> None:
    """`readinto` fills any writable buffer, less only at the end, and touches nothing behind what it read."""
    data = fresh(200_000)
    with _stored(service, data) as reader:
        buffer = bytearray(150_000)
        expect("readinto()", reader.readinto(buffer), 150_000)
        expect("the buffer", bytes(buffer), data[:150_000])
        expect("readinto() of a memoryview", reader.readinto(memoryview(buffer)[:100_000]), 50_000)
        expect("the buffer", bytes(buffer), data[150_000:] + data[50_000:150_000])
        expect("readinto() at the end", reader.readinto(buffer), 0)


@clause()
def read1_gives_some(service: BlobService) -> None:
    """`read1` and `readinto1` give at least a byte until the end, and never more than asked for."""
    data = fresh(200_000)
    with _stored(service, data) as reader:
        got = b""
        while part := reader.read1(70_000):
            expect_that(len(part) <= 70_000, "read1(70_000) to give at most 70000 bytes", part)
            got += part
        expect("all that read1() gave", got, data)
        reader.seek(0)
        buffer = bytearray(70_000)
        got = b""
        while count := reader.readinto1(buffer):
            got += buffer[:count]
        expect("all that readinto1() gave", got, data)


@clause()
def read_view_gives_the_bytes(service: BlobService) -> None:
    """`read_view` gives the bytes that `read` would, up to as many, and none only at the end."""
    data = fresh(700_000)
    with _stored(service, data) as reader:
        expect("read_view(0)", bytes(reader.read_view(0)), b"")
        for size in itertools.cycle((1, 4096, 1_000_000, -1)):
            at = reader.tell()
            view = reader.read_view(size)
            expect_that(isinstance(view, memoryview), "read_view() to be a memoryview", type(view))
            most = len(data) if size < 0 else size
            expect_that(len(view) <= most, f"read_view({size}) to give no more", len(view))
            expect(f"read_view({size}) at {at}", bytes(view), data[at : at + len(view)])
            expect("tell() after read_view()", reader.tell(), at + len(view))
            if not len(view):
                break
        expect("tell() once read_view() gives nothing", reader.tell(), len(data))
        reader.seek(500_000)
        first = bytes(reader.read_view(10))
        expect("what read_view() and read() give in turn", first + reader.read(), data[500_000:])
    expect_raises("read_view() of a closed reader", ValueError, reader.read_view)


@clause()
def seek_and_read(service: BlobService) -> None:
    """Seeks from the start, the position and the end say where they led, and reads go on from there."""
    data = BLOB_B.data
    with _stored(service, data) as reader:
        expect("read(10) at 0", reader.read(10), data[:10])
        expect("seek(10)", reader.seek(10), 10)
        expect("read(10) at 10", reader.read(10), data[10:20])
        expect("seek(25)", reader.seek(25), 25)
        expect("read(10) at 25", reader.read(10), data[25:35])
        expect("seek(12345, SEEK_CUR)", reader.seek(12345, io.SEEK_CUR), 12380)
        expect("tell()", reader.tell(), 12380)
        expect("read(10) at 12380", reader.read(10), data[12380:12390])
        expect("seek(-12390, SEEK_CUR)", reader.seek(-12390, io.SEEK_CUR), 0)
        expect("read(5) back at 0", reader.read(5), data[:5])
        expect("seek(-5, SEEK_END)", reader.seek(-5, io.SEEK_END), len(data) - 5)
        expect("read() of the last 5", reader.read(), data[-5:])
        expect("seek to the end", reader.seek(len(data)), len(data))
        expect("read() at the end", reader.read(), b"")


@clause()
def seek_before_the_start(service: BlobService) -> None:
    """A seek to before the start raises an OSError or ValueError and leaves the position as it was."""
    with _stored(service, fresh(100)) as reader:
        reader.seek(7)
        for offset, whence in ((-1, io.SEEK_SET), (-8, io.SEEK_CUR), (-101, io.SEEK_END)):
            call = partial(reader.seek, offset, whence)
            expect_raises(f"seek({offset}, {whence})", (OSError, ValueError), call)
            expect("tell() afterwards", reader.tell(), 7)


@clause()
def seek_beyond_the_end(service: BlobService) -> None:
    """A seek beyond the end raises an OSError or ValueError, or leads to where reads give nothing."""
    with _stored(service, fresh(100)) as reader:
        try:
            reader.seek(101)
        except (OSError, ValueError):
            return
        expect("read() beyond the end", reader.read(), b"")


@clause()
def text_and_lines(service: BlobService) -> None:
    """A reader gives lines, and works beneath `io.TextIOWrapper`, as any binary file does."""
    lines = [f"{number} Zeilen für {'x' * (number % 300)}\n" for number in range(3000)] + [
        "the last, unended"
    ]
    raw = [line.encode() for line in lines]
    with _stored(service, b"".join(raw)) as reader:
        expect("readline()", reader.readline(), raw[0])
        expect("readline(3)", reader.readline(3), raw[1][:3])
        reader.seek(0)
        expect_that(list(reader) == raw, "iteration to give the lines", "others")
    binary = cast("BinaryIO", _stored(service, b"".join(raw)))
    with io.TextIOWrapper(binary, encoding="utf-8", newline="") as text:
        expect_that(list(text) == lines, "the text to have the lines", "others")


@clause()
def reader_closes(service: BlobService) -> None:
    """A reader closes, by `close` or a with-block, as often as one likes; then it reads no more."""
    with _stored(service, fresh()) as reader:
        reader.read(3)
    expect("closed after the with-block", reader.closed, True)
    reader.close()
    expect_raises("read() of a closed reader", ValueError, reader.read)
    expect_raises("read(0) of a closed reader", ValueError, lambda: reader.read(0))
    expect_raises("seek() of a closed reader", ValueError, lambda: reader.seek(0))
    expect_raises("tell() of a closed reader", ValueError, reader.tell)


@clause()
def readers_are_independent(service: BlobService) -> None:
    """Two readers of one blob have a position each, and one outlives the other."""
    data = fresh(400_000)
    digest = service.write(data)
    with reader_of(service, digest) as second:
        with reader_of(service, digest) as first:
            first.seek(300_000)
            expect("the second reader's read(10)", second.read(10), data[:10])
            expect("the first reader's read(10)", first.read(10), data[300_000:300_010])
        expect("the second reader's read(), the first one closed", second.read(), data[10:])


@clause()
def large_blob(service: BlobService) -> None:
    """A blob of 8 MiB is exact, byte by byte, wherever one reads in it."""
    size = 8 << 20
    data = fresh(size)
    choose = random.Random(8)
    with _stored(service, data) as reader:
        for _ in range(60):
            at = choose.randrange(size)
            count = choose.choice((1, 100, 5_000, 300_000))
            reader.seek(at)
            expect(f"read({count}) at {at}", reader.read(count), data[at : at + count])
        reader.seek(0)
        expect("all of it", reader.read(), data)
