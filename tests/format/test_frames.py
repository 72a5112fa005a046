"""Frames: what is stored unpacks to the very bytes, or raises; and never takes much memory to find out."""

from __future__ import annotations

import base64
import contextlib
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from castore.contract.batches import MOST_UNKNOWN
from castore.digest import B3Digest
from castore.errors import (
    BadFrameError,
    CorruptBlobError,
    CorruptChunkError,
    OversizedFrameError,
)
from castore.format import frames
from castore.format.checks import check_size
from castore.format.chunking import MAX_CHUNK_SIZE
from castore.format.frames import compress, decode_chunk

MIB = 1 << 20
DATA = b"Content, addressed. " * 20 + bytes(range(60))
DIGEST = B3Digest.of(DATA)
SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\x00\x00\x00 note"


def _stream(data: bytes, **options: object) -> bytes:
    """A frame as a streaming writer makes it, without the size of its content."""
    compressor = zstandard.ZstdCompressor(**options).compressobj()  # type: ignore[arg-type]
    return compressor.compress(data) + compressor.flush()


def _block_by_block(data: bytes) -> bytes:
    """A frame whose last block is empty: all bytes are there before it ends."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return (
        compressor.compress(data)
        + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)
    )


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "own": compress,
    "own-fast": lambda data: compress(data, -7),
    "own-small": lambda data: compress(data, 22),
    "reference": lambda data: _stream(data, level=3),
    "block-by-block": _block_by_block,
    "with-size": lambda data: zstandard.ZstdCompressor().compress(data),
    "with-checksum": lambda data: _stream(data, write_checksum=True),
    "with-size-and-checksum": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "two-frames": lambda data: compress(data[:100]) + _stream(data[100:]),
    "two-frames-with-size": lambda data: (
        zstandard.ZstdCompressor().compress(data[:100]) + zstandard.ZstdCompressor().compress(data[100:])
    ),
    "many-frames": lambda data: b"".join(compress(data[at : at + 7]) for at in range(0, len(data), 7)),
    "empty-frames-around": lambda data: compress(b"") + compress(data) + _stream(b""),
    "skippable-first": lambda data: SKIPPABLE + compress(data),
    "skippable-last": lambda data: compress(data) + SKIPPABLE,
}


@pytest.fixture(params=FRAMES)
def make(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return FRAMES[request.param]


# -- writing --


@given(st.binary(max_size=5000), st.sampled_from([-7, -1, 0, 1, 3, 9]))
def test_what_is_packed_unpacks_to_the_same(data: bytes, level: int) -> None:
    digest = B3Digest.of(data)

    assert decode_chunk(compress(data, level), digest) == data
    assert decode_chunk(compress(data, level), digest, size=len(data)) == data


@pytest.mark.parametrize("data", [b"", b"\x00\x01", DATA, bytes(MIB)], ids=len)
def test_a_frame_is_like_the_reference_s(data: bytes) -> None:
    """One frame, with neither the size of its content nor a checksum."""
    frame = compress(data)

    parameters = zstandard.get_frame_parameters(frame)
    assert frame.startswith(b"\x28\xb5\x2f\xfd")
    assert zstandard.frame_content_size(frame) == -1
    assert not parameters.has_checksum
    assert parameters.dict_id == 0
    assert zstandard.ZstdDecompressor().decompress(frame, max_output_size=len(data) + 1) == data


def test_a_frame_of_the_reference_is_read() -> None:
    frame = bytes.fromhex("28b52ffd00581100000001")
    digest = B3Digest.parse("7b7015bb92cf0b318037702a6cdd81dee41224f734684c2c122cd6359cb1ee63")

    assert decode_chunk(frame, digest) == b"\x00\x01"


def test_a_higher_level_packs_tighter() -> None:
    data = b"".join(b"%d squared is %d\n" % (number, number**2) for number in range(5000))

    assert len(compress(data, 19)) < len(compress(data)) < len(compress(data, -7))


RANDOM = random.Random(1).randbytes(300_000)
TEXT = b"".join(b"%d squared is %d\n" % (number, number**2) for number in range(3000))


def compressed_at(data: bytes, level: int) -> bytes:
    """What zstd itself makes of it."""
    return zstandard.ZstdCompressor(level=level, write_content_size=False).compress(data)


@pytest.mark.parametrize("level", [3, 9, 19])
def test_what_cannot_be_compressed_is_not_searched_at_a_high_level(
    monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    expected = compressed_at(RANDOM, level)
    used: list[int] = []
    compressor = frames._compressor
    monkeypatch.setattr(frames, "_compressor", lambda level: used.append(level) or compressor(level))

    assert compress(RANDOM, level) == expected

    assert level not in used


@pytest.mark.parametrize("level", [3, 9, 19])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(RANDOM[:40_000] * 4, id="repeats"),
        pytest.param(RANDOM[:4_000] * 40, id="small repeats"),
        pytest.param(base64.b64encode(RANDOM), id="few values"),
        pytest.param(bytes(value % 200 for value in RANDOM), id="many values but not all"),
        pytest.param(RANDOM + TEXT, id="text at the end"),
        pytest.param(TEXT + RANDOM, id="text at the start"),
        pytest.param(TEXT[:30_000] + RANDOM[:30_000] + TEXT[:30_000], id="random in the middle"),
        pytest.param(TEXT, id="text"),
        pytest.param(bytes(300_000), id="zeros"),
    ],
)
def test_what_can_be_compressed_is_at_the_level_that_is_asked_for(data: bytes, level: int) -> None:
    assert len(data) > len(compress(data, level)) == len(compressed_at(data, level))


@pytest.mark.parametrize("level", [-7, 1, 2, 3, 19])
@pytest.mark.parametrize("size", [*range(16_380, 16_390), 65_536, 131_072, 131_073, 300_000])
def test_a_frame_of_random_bytes_is_within_its_bound(size: int, level: int) -> None:
    frame = compress(RANDOM[:size], level)

    assert len(frame) <= frames.bound(size)
    assert decode_chunk(frame, B3Digest.of(RANDOM[:size])) == RANDOM[:size]


@pytest.mark.parametrize("level", [frames.MIN_LEVEL, frames.MAX_LEVEL])
def test_the_levels_reach_as_far_as_is_said(level: int) -> None:
    assert decode_chunk(compress(DATA, level), DIGEST) == DATA


def test_compress_takes_any_buffer_of_bytes() -> None:
    assert compress(bytearray(DATA)) == compress(memoryview(b"x" + DATA)[1:]) == compress(DATA)


# -- reading --


def test_every_kind_of_frame_is_read(make: Callable[[bytes], bytes]) -> None:
    frame = make(DATA)

    assert decode_chunk(frame, DIGEST) == DATA
    assert decode_chunk(frame, DIGEST, size=len(DATA)) == DATA
    assert decode_chunk(memoryview(bytearray(frame)), DIGEST) == DATA
    assert type(decode_chunk(frame, DIGEST)) is bytes


@pytest.mark.parametrize(
    "size", [0, 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 3_000_000, MAX_CHUNK_SIZE]
)
def test_chunks_of_any_size_up_to_the_maximum_are_read(size: int) -> None:
    data = (b"%09d" * 1000 % tuple(range(1000)) * (size // 9000 + 1))[:size]
    digest = B3Digest.of(data)

    assert decode_chunk(compress(data), digest, limit=MAX_CHUNK_SIZE) == data
    assert decode_chunk(_stream(data), digest, size=size) == data


def test_a_frame_cut_short_anywhere_is_refused(make: Callable[[bytes], bytes]) -> None:
    """Also where all bytes are there already, and only the end of the frame is missing."""
    frame = make(DATA)

    for end in range(len(frame)):
        # Cut between two frames it is frames still, though perhaps too few.
        error = CorruptChunkError if _is_whole(frame[:end]) else BadFrameError
        if error is CorruptChunkError and frame[end:] in (_stream(b""), SKIPPABLE):
            assert decode_chunk(frame[:end], DIGEST) == DATA
            continue
        for size in (None, len(DATA)):
            with pytest.raises(error) as caught:
                decode_chunk(frame[:end], DIGEST, size=size, key="chunks/b3/x")
            assert type(caught.value) is error
            assert caught.value.expected == DIGEST
            assert caught.value.key == "chunks/b3/x"


def test_outlines_tell_whole_frames_from_torn_ones(make: Callable[[bytes], bytes]) -> None:
    """As unpacking does; also of several blocks."""
    # Unpacking one after another copies what is left each time.
    large = 20_000 if make is FRAMES["many-frames"] else 300_000
    for frame in (make(DATA), make(random.Random(2).randbytes(large))):
        assert _outlines_are_whole(frame)
        assert not _outlines_are_whole(frame + b"\0")
        for end in {*range(min(len(frame), 40)), *range(0, len(frame), 29_989), len(frame) - 1}:
            # Frames of nothing alone are whole, and no chunk.
            whole = _is_whole(frame[:end]) and _unpacked(frame[:end]) != b""
            assert _outlines_are_whole(frame[:end]) is whole


def _unpacked(frame: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(frame, read_across_frames=True) as reader:
        return bytes(reader.read())


def _outlines_are_whole(data: bytes) -> bool:
    return frames.is_whole(lambda offset, count: data[offset : offset + count], len(data))


def _is_whole(data: bytes) -> bool:
    """Tell whether *data* is frames without a rest, by asking the library to unpack one after another."""
    if not data:
        return False
    while data:
        if data.startswith(SKIPPABLE):
            data = data.removeprefix(SKIPPABLE)
            continue
        unpacking = zstandard.ZstdDecompressor().decompressobj()
        try:
            unpacking.decompress(data)
        except zstandard.ZstdError:
            return False
        if not unpacking.eof:
            return False
        data = unpacking.unused_data
    return True


@pytest.mark.parametrize("size", [None, len(DATA)])
def test_the_cutting_short_is_named(size: int | None) -> None:
    with pytest.raises(BadFrameError, match=f"chunk {DIGEST} is cut short"):
        decode_chunk(compress(DATA)[:-1], DIGEST, size=size)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00",
        b"\n",
        b"\x28",  # the first byte of a frame
        b"\x28\xb5\x2f\xfd",
        b"\x50\x2a\x4d\x18",
        SKIPPABLE[:-1],
        SKIPPABLE[:7],
        b"\x28\xb5\x2f\xfd\x00",
        compress(DATA)[:-1],
        _block_by_block(b"")[:-1],
        b"not a frame",
        bytes(1000),
    ],
    ids=repr,
)
def test_garbage_behind_a_frame_is_refused(make: Callable[[bytes], bytes], garbage: bytes) -> None:
    """Though the digest of what comes before is right."""
    with pytest.raises(BadFrameError):
        decode_chunk(make(DATA) + garbage, DIGEST)


@pytest.mark.parametrize(
    "garbage", [b"", b"x", b"not a frame", DATA, bytes(100), b"\x1f\x8b" + bytes(20)], ids=len
)
def test_what_is_no_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadFrameError, match="is not a zstd frame") as caught:
        decode_chunk(garbage, B3Digest.of(garbage))

    assert caught.value.found is None
    assert type(caught.value) is BadFrameError


def test_nothing_at_all_is_no_empty_chunk() -> None:
    """A file of no bytes is what a crash leaves behind."""
    with pytest.raises(BadFrameError, match="it is empty"):
        decode_chunk(b"", B3Digest.of(b""), size=0)


@pytest.mark.parametrize(
    "kind", ["own", "reference", "with-size-and-checksum", "two-frames", "skippable-first"]
)
def test_every_flipped_bit_gives_an_error_or_the_same_bytes(kind: str) -> None:
    frame = bytearray(FRAMES[kind](DATA))

    survived = 0
    for bit in range(8 * len(frame)):
        frame[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(CorruptBlobError):
            assert decode_chunk(frame, DIGEST) == DATA
            survived += 1
        frame[bit // 8] ^= 1 << bit % 8

    assert survived < len(frame)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\x28\xb5\x2f\xfd" + rest))
@example(b"\x28\xb5\x2f\xfd\x00\x58\x11\x00\x00\x00\x01")
@example(b"\x28\xb5\x2f\xfd\xff" + bytes(20))
@example(b"\x50\x2a\x4d\x18\xff\xff\xff\xff")
@example(b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00")  # a window of 2 TiB
def test_arbitrary_bytes_give_an_error_of_castore(frame: bytes) -> None:
    with pytest.raises(CorruptBlobError):
        decode_chunk(frame, DIGEST)


def test_other_bytes_are_a_corrupt_chunk_that_names_both_digests() -> None:
    with pytest.raises(CorruptChunkError, match=str(B3Digest.of(b"other"))) as caught:
        decode_chunk(compress(b"other"), DIGEST, key="chunks/b3/x")

    assert (caught.value.expected, caught.value.found) == (DIGEST, B3Digest.of(b"other"))
    assert "chunks/b3/x" in str(caught.value)


def test_a_frame_with_a_dictionary_is_refused() -> None:
    dictionary = zstandard.ZstdCompressionDict(DATA, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(DATA)

    with pytest.raises(CorruptBlobError):
        decode_chunk(frame, DIGEST)


# -- the size an index says --


def test_fewer_bytes_than_the_index_says_are_a_corrupt_chunk() -> None:
    with pytest.raises(CorruptChunkError, match=f"has {len(DATA)} bytes, but its index says {len(DATA) + 1}"):
        decode_chunk(compress(DATA), DIGEST, size=len(DATA) + 1, key="k")


@pytest.mark.parametrize("size", [0, 1, 100, len(DATA) - 1])
def test_more_bytes_than_the_index_says_are_not_unpacked(make: Callable[[bytes], bytes], size: int) -> None:
    with pytest.raises(
        OversizedFrameError, match=f"more than the {size} bytes that its index allows"
    ) as caught:
        decode_chunk(make(DATA), DIGEST, size=size, key="k")

    assert caught.value.expected == DIGEST
    assert caught.value.key == "k"


@pytest.mark.parametrize("limit", [None, 100, MAX_CHUNK_SIZE])
def test_without_an_index_there_is_a_limit(limit: int | None) -> None:
    """That of a call for many, unless another one is given."""
    most = limit or MOST_UNKNOWN
    data = bytes(most + 1)
    given = {} if limit is None else {"limit": limit}

    assert decode_chunk(compress(data[1:]), B3Digest.of(data[1:]), **given) == data[1:]
    with pytest.raises(OversizedFrameError, match=f"the {most} bytes that are read of one of no known size"):
        decode_chunk(compress(data), B3Digest.of(data), **given)


def test_a_limit_holds_after_a_larger_chunk_as_well() -> None:
    """The scratch buffer is kept from chunk to chunk; its size is not the limit."""
    large = bytes(MIB)
    decode_chunk(compress(large), B3Digest.of(large))

    with pytest.raises(OversizedFrameError):
        decode_chunk(compress(DATA), DIGEST, size=len(DATA) - 1)
    assert decode_chunk(compress(DATA), DIGEST, size=len(DATA)) == DATA


def test_a_refused_frame_leaves_nothing_behind_for_the_next() -> None:
    """One decompressor serves a whole thread."""
    for frame in (b"garbage", compress(DATA)[:-1], compress(bytes(1000)), compress(b"other")):
        with pytest.raises(CorruptBlobError):
            decode_chunk(frame, DIGEST, size=len(DATA))
        assert decode_chunk(compress(DATA), DIGEST) == DATA


def test_check_size_takes_any_size_where_none_is_said() -> None:
    check_size(DIGEST, 5, None)
    check_size(DIGEST, 5, 5)
    with pytest.raises(CorruptChunkError, match="has 5 bytes, but its index says 4"):
        check_size(DIGEST, 5, 4, key="k")


# -- bombs --

_RUN = 128 << 10
_MAGIC = b"\x28\xb5\x2f\xfd"


def _zeros(size: int, header: bytes) -> bytes:
    """A frame of *size* zeros, 4 bytes for each 128 KiB: the tightest that the format can do."""
    runs, rest = divmod(size, _RUN)
    assert rest == 0
    run = (_RUN << 3 | 0b010).to_bytes(3, "little") + b"\0"
    last = (_RUN << 3 | 0b011).to_bytes(3, "little") + b"\0"
    return _MAGIC + header + run * (runs - 1) + last


def _bomb(kind: str, size: int) -> bytes:
    windows = {"small-window": 7 << 3, "large-window": 17 << 3}
    if kind in windows:
        return _zeros(size, bytes([0b0000_0000, windows[kind]]))
    if kind == "with-size":
        return _zeros(size, bytes([0b1100_0000, 7 << 3]) + size.to_bytes(8, "little"))
    if kind == "lies-about-size":
        return _zeros(size, bytes([0b1100_0000, 7 << 3]) + (1000).to_bytes(8, "little"))
    if kind == "second-frame":
        return compress(b"small") + _bomb("small-window", size)
    assert kind == "single-segment"
    return _zeros(size, bytes([0b1110_0000]) + size.to_bytes(8, "little"))


BOMBS = ["small-window", "large-window", "with-size", "single-segment", "lies-about-size", "second-frame"]


@pytest.mark.parametrize(
    "kind", ["small-window", "large-window", "with-size", "single-segment", "second-frame"]
)
def test_the_bombs_of_these_tests_are_real(kind: str) -> None:
    """A small one unpacks to all its zeros: so a large one is refused for its size alone."""
    data = (b"small" if kind == "second-frame" else b"") + bytes(4 * _RUN)

    assert decode_chunk(_bomb(kind, 4 * _RUN), B3Digest.of(data)) == data


def test_a_real_compressor_makes_such_bombs() -> None:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    piece = bytes(4 * MIB)
    parts = [compressor.compress(piece) for _ in range(64)]
    bomb = b"".join(parts) + compressor.flush()
    assert len(bomb) < 64 << 10

    with pytest.raises(OversizedFrameError):
        decode_chunk(bomb, DIGEST)


_UNPACK_A_BOMB = """
import sys, time
from castore.digest import B3Digest
from castore.errors import CorruptBlobError, OversizedFrameError
from castore.format.frames import decode_chunk

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

bomb = sys.stdin.buffer.read()
size = eval(sys.argv[1])
digest = B3Digest.of(b"")
before, start = peak(), time.monotonic()
for _ in range(20):
    try:
        decode_chunk(bomb, digest, size=size)
    except CorruptBlobError as error:
        found = type(error).__name__
print(found, peak() - before, time.monotonic() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("size", [None, 500_000])
@pytest.mark.parametrize("kind", BOMBS)
def test_four_gibibytes_in_a_small_frame_are_refused_quickly_and_in_little_memory(
    kind: str, size: int | None
) -> None:
    """Measured in a process of its own, twenty times in a row, so that what is kept would add up."""
    bomb = _bomb(kind, 4 << 30)
    assert len(bomb) < 200_000

    done = subprocess.run(
        [sys.executable, "-c", _UNPACK_A_BOMB, repr(size)], input=bomb, capture_output=True, check=True
    )

    error, peak_kib, seconds = done.stdout.decode().split()
    assert error == ("BadFrameError" if kind == "lies-about-size" else "OversizedFrameError")
    # What may be unpacked, the buffer it grew from, and the decompressor's own window.
    limit = MAX_CHUNK_SIZE if size is None else size
    assert int(peak_kib) * 1024 < 4 * limit + 8 * MIB
    assert float(seconds) < 10


def test_a_size_in_the_header_is_enough_to_refuse() -> None:
    """Nothing is unpacked: here there is nothing to unpack."""
    header_only = _MAGIC + bytes([0b1110_0000]) + (1 << 40).to_bytes(8, "little")

    with pytest.raises(OversizedFrameError):
        decode_chunk(header_only, DIGEST)


def test_a_frame_of_very_many_empty_blocks_is_read() -> None:
    frame = _MAGIC + b"\x00\x38" + b"\x00\x00\x00" * 50_000 + b"\x01\x00\x00"

    assert decode_chunk(frame, B3Digest.of(b"")) == b""


# -- threads --


def _scratch() -> int:
    return len(frames._per_thread.scratch)


def test_the_scratch_of_a_thread_stays_within_the_largest_chunk() -> None:
    kept = []

    def work() -> None:
        for size in (1000, 500_000, 1000):
            data = bytes(size)
            decode_chunk(compress(data), B3Digest.of(data))
            kept.append(_scratch())
        with pytest.raises(OversizedFrameError):
            decode_chunk(_bomb("small-window", 1 << 30), DIGEST)
        kept.append(_scratch())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert kept[0] == 128 << 10
    assert 500_000 <= kept[1] <= 1 << 20
    assert kept[2] == kept[1]
    assert kept[3] <= MAX_CHUNK_SIZE + 1


def test_many_threads_pack_and_unpack_at_once() -> None:
    def work(number: int) -> bool:
        data = b"%d" % number * (1000 + 37 * number)
        digest = B3Digest.of(data)
        for level in (1, 3):
            if decode_chunk(compress(data, level), digest, size=len(data)) != data:
                return False
        with pytest.raises(CorruptBlobError):
            decode_chunk(compress(data)[:-1], digest)
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(600)))


@pytest.mark.parametrize("multi", [True, False])
def test_many_are_packed_as_each_alone(monkeypatch: pytest.MonkeyPatch, multi: bool) -> None:
    """To the byte, in order, whatever their sizes; the other backend of zstandard cannot do it in one."""
    if not multi:
        monkeypatch.setattr(frames, "_multi", None)
    chunks = [b"", b"x", bytes(100_000), RANDOM[:5000], RANDOM, memoryview(b"abc" * 999), RANDOM[:20_000]]
    assert list(frames.compress_each(chunks, 5)) == [frames.compress(chunk, 5) for chunk in chunks]
    assert list(frames.compress_each([RANDOM], 5)) == [frames.compress(RANDOM, 5)]
    assert list(frames.compress_each([b"", b""], 5)) == [frames.compress(b"", 5)] * 2
    assert list(frames.compress_each([])) == []


@pytest.mark.parametrize("multi", [True, False])
def test_from_16_kib_on_each_is_looked_at_alone(monkeypatch: pytest.MonkeyPatch, multi: bool) -> None:
    """That is the size from which it is worth finding out what cannot be compressed."""
    if not multi:
        monkeypatch.setattr(frames, "_multi", None)
    sizes = [16 << 10, 7, (16 << 10) - 1, (16 << 10) + 1, 9]
    chunks = [RANDOM[:size] for size in sizes]
    expected = [frames.compress(chunk, 5) for chunk in chunks]
    alone: list[int] = []
    compress = frames.compress
    monkeypatch.setattr(
        frames, "compress", lambda data, level: alone.append(len(data)) or compress(data, level)
    )
    assert list(frames.compress_each(chunks, 5)) == expected
    assert alone == ([16 << 10, (16 << 10) + 1] if multi else sizes)


# -- bounds of what is stored --


@pytest.mark.parametrize(
    "stored",
    [
        b"\x50\x2a\x4d\x18\0\0\0\0" * (1 << 17),
        b"\x28\xb5\x2f\xfd\x00\x58" + b"\x00\x00\x00" * (1 << 17) + b"\x01\x00\x00",
    ],
    ids=["frames", "blocks"],
)
def test_what_is_in_more_parts_than_any_chunk_is_none(stored: bytes) -> None:
    """It is not read, and a writer puts the chunk anew; few of its parts are looked at."""
    looks = 0

    def read_at(offset: int, count: int) -> bytes:
        nonlocal looks
        looks += 1
        return stored[offset : offset + count]

    assert not frames.is_whole(read_at, len(stored))
    assert looks <= 70_000
    with pytest.raises(BadFrameError):
        frames.decode_chunk(stored, B3Digest.of(b""), size=1)


def test_what_is_longer_than_any_chunk_is_not_looked_at() -> None:
    def read_at(offset: int, count: int) -> bytes:
        raise AssertionError

    assert not frames.is_whole(read_at, frames.longest(MAX_CHUNK_SIZE) + 1)


@pytest.mark.parametrize("size", [1, 1000, 100_000, MAX_CHUNK_SIZE])
@pytest.mark.parametrize("level", [-7, 3])
def test_each_chunk_is_within_its_bound(size: int, level: int) -> None:
    assert len(frames.compress(random.Random(size).randbytes(size), level)) <= frames.longest(size)


# -- frames that are never unpacked --

_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def _block(kind: int, size: int, content: bytes = b"", *, last: bool = True) -> bytes:
    """A block: 0 as it is, 1 one byte again and again, 2 compressed, 3 of no kind."""
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + content


_WINDOW: Final = b"\x00\x58"
"""A header that says no more than a window of 2 MiB."""

_SOUND: Final = {
    "as it is": _MAGIC + _WINDOW + _block(0, 5, b"hello"),
    "repeated": _MAGIC + _WINDOW + _block(1, 1000, b"x"),
    "compressed": frames.compress(bytes(range(256)) * 40),
    "two": frames.compress(b"one") + frames.compress(b"two"),
    "after what is skipped": b"\x50\x2a\x4d\x18\x03\0\0\0abc" + frames.compress(b"data"),
    "sized": zstandard.ZstdCompressor(write_content_size=True, write_checksum=True).compress(b"data"),
    "the largest": frames.compress(bytes(MAX_CHUNK_SIZE)),
}

_NEVER: Final = {
    "nothing": b"",
    "only what is skipped": b"\x50\x2a\x4d\x18\x03\0\0\0abc",
    "an empty frame": frames.compress(b""),
    "empty blocks": _MAGIC + _WINDOW + _block(0, 0),
    "a block of no kind": _MAGIC + _WINDOW + _block(3, 5, b"hello"),
    "of no kind at the end": _MAGIC + _WINDOW + _block(0, 5, b"hello", last=False) + _block(3, 1, b"x"),
    "a block that is too large": _MAGIC + _WINDOW + _block(0, (128 << 10) + 1, bytes((128 << 10) + 1)),
    "larger than the window": _MAGIC + b"\x00\x00" + _block(0, 1025, bytes(1025)),
    "larger than its content": _MAGIC + b"\x20\x04" + _block(0, 5, b"hello"),
    "compressed to nothing": _MAGIC + _WINDOW + _block(2, 0),
    "compressed to a byte": _MAGIC + _WINDOW + _block(2, 1, b"x"),
    "a dictionary": _MAGIC + b"\x01\x58\x07" + _block(0, 5, b"hello"),
    "a window of 256 MiB": _MAGIC + b"\x00\x90" + _block(0, 5, b"hello"),
    "more than a chunk": _MAGIC + _WINDOW + 128 * _block(1, 128 << 10, b"x", last=False) + _block(1, 1, b"x"),
}


@pytest.mark.parametrize("name", _SOUND)
def test_a_sound_outline(name: str) -> None:
    """What can be unpacked is whole."""
    frame = _SOUND[name]
    data = _unpacked(frame)
    assert frames.decode_chunk(frame, B3Digest.of(data), size=len(data)) == data
    assert _outlines_are_whole(frame)


@pytest.mark.parametrize("name", _NEVER)
def test_an_outline_of_what_is_never_unpacked(name: str) -> None:
    """Not taken for a chunk that need not be sent: it would be acknowledged and could not be read."""
    frame = _NEVER[name]
    for size in (None, 1, 5, 8, MAX_CHUNK_SIZE):
        with pytest.raises(CorruptBlobError):
            frames.decode_chunk(frame, B3Digest.of(b"hello world"), size=size)
    assert not _outlines_are_whole(frame)


@pytest.mark.parametrize("level", [1, 3, 19])
def test_the_outlines_of_what_compressors_write(level: int) -> None:
    """Of contents of all sorts, with and without sizes and checksums."""
    rnd = random.Random(level)
    for size in (1, 2, 7, 255, 256, 1000, 70_000, 300_000):
        for data in (bytes(size), rnd.randbytes(size), bytes(rnd.choices(b"abc", k=size))):
            assert _outlines_are_whole(frames.compress(data, level))
            for told in (True, False):
                compressor = zstandard.ZstdCompressor(
                    level=level, write_content_size=told, write_checksum=told
                )
                assert _outlines_are_whole(compressor.compress(data))
