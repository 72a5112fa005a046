"""Whatever stands where a chunk should: its very bytes, or `CorruptBlobError`, within bounded memory."""

from __future__ import annotations

import tracemalloc

import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from castore import B3Digest, CorruptBlobError
from castore.format.frames import compress, decode_chunk, is_whole

FUZZ = settings.get_profile("fuzz")

CONTENT = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda byte, count: byte * count, st.binary(min_size=1, max_size=3), st.integers(0, 200_000)),
    st.builds(lambda seed, count: seed * count, st.binary(min_size=20, max_size=60), st.integers(1, 3000)),
)


def other_frame(data: bytes, checksum: bool, sized: bool, level: int) -> bytes:
    """A frame as other compressors write it."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=sized)
    return compressor.compress(data)


def skippable(number: int, data: bytes, claims: int) -> bytes:
    return bytes([0x50 | number, 0x2A, 0x4D, 0x18]) + (len(data) + claims).to_bytes(4, "little") + data


FRAMES = st.one_of(
    CONTENT.map(compress),
    st.builds(other_frame, CONTENT, st.booleans(), st.booleans(), st.integers(-7, 19)),
    st.builds(skippable, st.integers(0, 15), st.binary(max_size=20), st.sampled_from([0, 0, 0, 1, 1 << 20])),
)
HEADERS = st.builds(
    lambda descriptor, rest: b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + rest,
    st.integers(0, 255),
    st.binary(max_size=60),
)
EDITS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9), st.binary(max_size=9)), max_size=3)
STORED = st.one_of(
    st.binary(max_size=100),
    HEADERS,
    st.lists(FRAMES, min_size=1, max_size=3).map(b"".join),
    st.builds(lambda frame, more: frame + more, FRAMES, st.one_of(HEADERS, st.binary(max_size=20))),
)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, count, new in edits:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + count :]
    return data


def whole(data: bytes) -> bool:
    return is_whole(lambda offset, count: data[offset : offset + count], len(data))


@FUZZ
@given(STORED, EDITS, st.one_of(st.none(), st.integers(0, 400_000)))
@example(skippable(0, b"", 0), [], None)
@example(skippable(0, b"", (1 << 32) - 1), [], None)
def test_what_is_stored(stored: bytes, edits: list[tuple[int, int, bytes]], size: int | None) -> None:
    """No digest that is asked for is ever that of other bytes."""
    stored = edited(stored, edits)
    digest = B3Digest.of(b"")
    try:
        data = decode_chunk(stored, digest, size=size, key="chunks/b3/x")
    except CorruptBlobError as error:
        assert error.expected == digest
        if error.found is not None:
            check_the_right_digest(stored, error.found, size)
    else:
        assert data == b""
        assert size in {None, 0}
    assert whole(stored) in {True, False}


def check_the_right_digest(stored: bytes, digest: B3Digest, size: int | None) -> None:
    """Asked for by its right digest it comes out, unless its size is wrong."""
    try:
        data = decode_chunk(stored, digest, size=size)
    except CorruptBlobError:
        assert size is not None
    else:
        assert B3Digest.of(data) == digest
        assert whole(stored) or b"\0\0\0" in stored or not data


@FUZZ
@given(st.lists(CONTENT, min_size=1, max_size=3), st.integers(-7, 19))
def test_frames_are_whole_and_what_is_left_of_them_is_not(parts: list[bytes], level: int) -> None:
    frames = [compress(part, level) for part in parts]
    stored = b"".join(frames)
    assert whole(stored) is any(parts)  # No chunk is empty.
    assert decode_chunk(stored, B3Digest.of(b"".join(parts)), limit=4 << 20) == b"".join(parts)
    ends = {sum(map(len, frames[:count])) for count in range(len(frames) + 1)}
    for cut in {0, 1, 3, 4, 5, len(stored) // 2, len(stored) - 1} - ends - {len(stored)}:
        assert not whole(stored[:cut])


@FUZZ
@given(st.integers(0, 3 << 20), st.integers(0, 200_000), st.booleans())
def test_memory_is_bounded_by_what_an_index_allows(unpacked: int, allowed: int, sized: bool) -> None:
    """A frame of a few bytes that unpacks to a lot takes no more than it may."""
    bomb = other_frame(bytes(unpacked), False, sized, 3)
    digest = B3Digest.of(bytes(unpacked))
    tracemalloc.start()
    try:
        decode_chunk(bomb, digest, size=allowed)
    except CorruptBlobError:
        assert unpacked != allowed
    else:
        assert unpacked == allowed
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * allowed + (1 << 20)
