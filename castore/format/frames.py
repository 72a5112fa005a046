"""Chunks as they are stored: zstd frames.

Pure: bytes in, bytes out. Frames are written as the reference's are, without checksum and without the
size of their content. What is read may be any concatenation of whole frames; trailing bytes that are none
are an error. Output is bounded: a frame that unpacks to more than allowed is refused there;
and so is input, in its bytes and its blocks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import zstandard
from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError

from castore.buffers import byte_view
from castore.contract.batches import MOST_UNKNOWN
from castore.digest import B3Digest
from castore.errors import BadFrameError, CorruptChunkError, OversizedFrameError
from castore.format.checks import check_size
from castore.format.chunking import MAX_CHUNK_SIZE

if TYPE_CHECKING:
    from typing_extensions import Buffer

DEFAULT_LEVEL: Final = 3
"""The compression level of the reference."""

_LONGEST_HEADER: Final = 18
"""Bytes of the longest header of a frame (RFC 8878, section 3.1.1.1)."""

_SMALL: Final = 128 << 10
"""Below this size a header weighs more than what `ZSTD_COMPRESSBOUND` adds in proportion."""

_ROOM: Final = 16
"""How many times the size of a small frame is set aside for what it unpacks to."""

_SLACK: Final = 16 << 10
"""How many bytes more than `bound` says a chunk may take: others write frames that have no content, too."""

_MOST_BLOCKS: Final = 1 << 16
"""How many blocks and frames there may be in a chunk: a block worth its header has hundreds of bytes."""

MIN_LEVEL: Final = -7
MAX_LEVEL: Final = 22

_QUICK_LEVEL: Final = -5
"""Finds what is repeated, in two thirds of the time of level 3, or a three-hundredth of that of level 19."""

_SAMPLED: Final = 16 << 10
"""From this size on it is worth finding out first whether data can be compressed."""

_SAMPLE: Final = 1 << 10
_GLANCE: Final = 256
_MANY_VALUES: Final = 128
"""So many bytes of a glance at least are different if they are random: 162 on average, rarely under 140."""


class _PerThread(threading.local):
    """Compressors must not be shared between threads, and cost too much to be made for each chunk."""

    def __init__(self) -> None:
        self.compressors: dict[int, ZstdCompressor] = {}
        self.decompressor = ZstdDecompressor()
        self.scratch = bytearray()


_per_thread = _PerThread()


def compress(data: Buffer, level: int = DEFAULT_LEVEL) -> bytes:
    """Return *data* as one zstd frame.

    Most of what cannot be compressed, such as films, archives or ciphertext, is found out by a quick look,
    and spared the work of *level*. What a higher level would still gain there is next to nothing.
    """
    view = byte_view(data)
    if level >= DEFAULT_LEVEL and _seems_random(view):
        frame = _compressor(_QUICK_LEVEL).compress(view)
        if len(frame) >= len(view):
            return frame
    return _compressor(level).compress(view)


def _seems_random(view: memoryview) -> bool:
    """Tell whether all values are as frequent as the others in some samples; repeats may be anywhere."""
    quarter = len(view) // 4
    if len(view) < _SAMPLED or len(set(view[2 * quarter : 2 * quarter + _GLANCE])) < _MANY_VALUES:
        return False
    sample = b"".join(view[i * quarter : i * quarter + _SAMPLE] for i in (1, 2, 3))
    return len(_compressor(1).compress(sample)) >= len(sample)


def compress_each(chunks: Sequence[Buffer], level: int = DEFAULT_LEVEL) -> Iterator[bytes]:
    """Yield what `compress` returns for each of *chunks*; small ones are compressed in one step."""
    views = [byte_view(data) for data in chunks]
    small = [view for view in views if len(view) < _SAMPLED]
    # That step refuses to have nothing to do.
    packed = iter(_multi(_compressor(level), small)) if _multi is not None and any(small) else None
    for view in views:
        if packed is not None and len(view) < _SAMPLED:
            yield next(packed).tobytes()
        else:
            yield compress(view, level)


_multi: Final = getattr(ZstdCompressor, "multi_compress_to_buffer", None)
"""Only the C backend of zstandard has it; the other one, for PyPy, has not."""


def _compressor(level: int) -> ZstdCompressor:
    compressor = _per_thread.compressors.get(level)
    if compressor is None:
        compressor = ZstdCompressor(level=level, write_content_size=False, write_checksum=False)
        _per_thread.compressors[level] = compressor
    return compressor


def bound(size: int) -> int:
    """Return how long a frame of *size* bytes is at most: `ZSTD_COMPRESSBOUND` of zstd.h."""
    return size + (size >> 8) + (max(_SMALL - size, 0) >> 11)


def longest(size: int | None) -> int:
    """Return how many bytes may be stored for a chunk of *size* bytes; `None`: of no known size.

    What has more is no chunk, and need not be read to know it.
    """
    return bound(MOST_UNKNOWN if size is None else min(size, MAX_CHUNK_SIZE)) + _SLACK


def too_long(digest: B3Digest, size: int | None, *, key: str | None = None) -> OversizedFrameError:
    """Return the error for a chunk for which more than `longest` is stored."""
    if size is None:
        reason = _reason(None)
    else:
        reason = "any chunk can take" if size >= MAX_CHUNK_SIZE else f"{size} bytes can take"
    return OversizedFrameError(
        f"chunk {digest} takes more than the {longest(size)} bytes that {reason}", expected=digest, key=key
    )


def decode_chunk(
    frame: Buffer,
    digest: B3Digest,
    *,
    size: int | None = None,
    key: str | None = None,
    limit: int = MOST_UNKNOWN,
) -> bytes:
    """Unpack the frame of one chunk and check it.

    Arguments:
        frame: What is stored.
        digest: The chunk's name, which the bytes must hash to.
        size: How many bytes an index says they are.
        key: Where the frame is stored, to name it in an error.
        limit: How many bytes they may be at most if *size* is not known.

    Raises:
        OversizedFrameError: It unpacks to more; nothing beyond the limit was unpacked.
        BadFrameError: It is not one or more whole frames.
        CorruptChunkError: The bytes have another digest or size.
    """
    limit = limit if size is None else size
    try:
        data = _unpack(memoryview(frame), limit, expected=size)
    except _TooMuchError:
        raise OversizedFrameError(
            f"chunk {digest} unpacks to more than the {limit} bytes that {_reason(size)}",
            expected=digest,
            key=key,
        ) from None
    except _CutShortError:
        raise BadFrameError(f"chunk {digest} is cut short", expected=digest, key=key) from None
    except ZstdError as error:
        raise BadFrameError(
            f"chunk {digest} is not a zstd frame ({_zstd_reason(error)})", expected=digest, key=key
        ) from None
    found = B3Digest.of(data)
    if found != digest:
        raise CorruptChunkError(
            f"chunk {digest} is corrupt: its bytes have the digest {found}",
            expected=digest,
            found=found,
            key=key,
        )
    check_size(digest, len(data), size, key=key)
    return data


class _TooMuchError(Exception):
    pass


class _CutShortError(Exception):
    pass


class _Blocks:
    """Counts down how many blocks and frames there may be."""

    def __init__(self) -> None:
        self._left = _MOST_BLOCKS

    def take(self) -> bool:
        """Tell whether there may be one more."""
        self._left -= 1
        return self._left >= 0


def _unpack(frame: memoryview, limit: int, *, expected: int | None) -> bytes:
    """Unpack all frames in *frame*, which must be whole; if all is well *expected* bytes come of them."""
    if not frame:
        raise ZstdError("it is empty")
    # The header may say the size; -1 means that it does not.
    if zstandard.frame_content_size(frame) > limit:
        raise _TooMuchError
    # The decompressor takes a last frame that is cut short for one whose rest is still to come.
    blocks = _Blocks()
    end = _frame_end(frame, 0, blocks)
    # A small chunk is rarely much larger than its frame.
    room = expected or (min(_ROOM * end, limit) if end < _SMALL // _ROOM else 0)
    if end == len(frame) and room:
        # Straight to where the bytes stay. If that fails, the way below finds out why.
        with contextlib.suppress(ZstdError):
            data: bytes = _per_thread.decompressor.decompress(frame, max_output_size=room)
            return data
    while end < len(frame):
        end = _frame_end(frame, end, blocks)
    # A scratch buffer that grows to the largest chunk seen spares fresh pages for each.
    scratch = _per_thread.scratch
    reader = _per_thread.decompressor.stream_reader(frame, read_across_frames=True)
    filled = 0
    while True:
        if filled == len(scratch):
            if filled > limit:
                raise _TooMuchError
            _per_thread.scratch = scratch = _grown(scratch, filled, limit)
        with memoryview(scratch) as view, view[filled : limit + 1] as target:
            if not target:
                raise _TooMuchError
            count = reader.readinto(target)
        if not count:
            break
        filled += count
    if filled > limit:
        raise _TooMuchError
    with memoryview(scratch) as view:
        return bytes(view[:filled])


def _grown(scratch: bytearray, filled: int, limit: int) -> bytearray:
    larger = bytearray(min(max(2 * len(scratch), 128 << 10), limit + 1))
    larger[:filled] = memoryview(scratch)[:filled]
    return larger


def _frame_end(frame: memoryview, start: int, blocks: _Blocks) -> int:
    """Return where the frame at *start* ends, told by the sizes of its blocks (RFC 8878, section 3.1)."""
    rest = frame[start:]
    if not blocks.take():
        raise _too_many_blocks()
    if _is_skippable(bytes(rest[:8])):
        end = start + 8 + int.from_bytes(rest[4:8], "little")
    else:
        # A header that is cut short raises here.
        has_checksum = zstandard.get_frame_parameters(rest).has_checksum
        end = start + zstandard.frame_header_size(rest)
        last = False
        while not last and end < len(frame):
            if not blocks.take():
                raise _too_many_blocks()
            length, last = _block_length(frame[end : end + 3])
            end += length
        end += 4 * has_checksum + (not last)
    if end > len(frame):
        raise _CutShortError
    return end


def _too_many_blocks() -> ZstdError:
    return ZstdError(f"it has more than {_MOST_BLOCKS} blocks")


def outline(read_at: Callable[[int, int], bytes], size: int) -> int | None:
    """Return how long the frame is that begins what *read_at* gives, by its outline alone.

    `None` if it is no frame of a chunk, or does not end within *size* bytes.
    """
    try:
        end, least = _outline_at(read_at, 0, _Blocks())
    except ZstdError:
        return None
    return end if 0 < end <= min(size, longest(MAX_CHUNK_SIZE)) and 0 < least <= MAX_CHUNK_SIZE else None


def unpack(frame: Buffer, limit: int = MAX_CHUNK_SIZE) -> bytes:
    """Return what a frame unpacks to, whatever its digest is; raises `BadFrameError` if that cannot be."""
    nobody = B3Digest(bytes(32))
    try:
        return _unpack(memoryview(frame), limit, expected=None)
    except _TooMuchError:
        raise OversizedFrameError(f"it unpacks to more than {limit} bytes", expected=nobody) from None
    except (_CutShortError, ZstdError):
        raise BadFrameError("it is not a zstd frame", expected=nobody) from None


def is_single(frame: Buffer) -> bool:
    """Tell whether a chunk is one frame and nothing else, as castore writes it."""
    data = memoryview(frame)
    try:
        return not _is_skippable(bytes(data[:8])) and _frame_end(data, 0, _Blocks()) == len(data)
    except (_CutShortError, ZstdError):
        return False


def unpack_first(data: Buffer, piece_size: int = _SMALL) -> Iterator[bytes]:
    """Yield what the first frame of *data* unpacks to, in pieces; what follows it is ignored.

    Raises `ValueError` with the reason if that is no whole frame, before or after some pieces.
    """
    view = byte_view(data)
    try:
        if not view:
            raise ValueError("it is empty")
        end = _frame_end(view, 0, _Blocks())
        reader = _per_thread.decompressor.stream_reader(view[:end])
        while piece := reader.read(piece_size):
            yield piece
    except _CutShortError:
        raise ValueError("it is cut short") from None
    except ZstdError as error:
        raise ValueError(f"it is not a zstd frame ({_zstd_reason(error)})") from None


def is_whole(read_at: Callable[[int, int], bytes], size: int) -> bool:
    """Tell whether *size* stored bytes are whole frames, by their outlines alone: a torn write is none.

    *read_at* returns some bytes from an offset, fewer only at the end. Only the headers of frames and blocks
    are read, so this costs next to nothing, and says nothing about the bytes between them. What is longer
    than any chunk, or has more blocks, is none; nor are frames that nobody can unpack, or that unpack to
    nothing, or to more than any chunk has.
    """
    if size > longest(MAX_CHUNK_SIZE):
        return False
    end = content = 0
    blocks = _Blocks()
    try:
        while end < size:
            end, least = _outline_at(read_at, end, blocks)
            content += least
    except ZstdError:
        return False
    return end == size and 0 < content <= MAX_CHUNK_SIZE


def _outline_at(read_at: Callable[[int, int], bytes], start: int, blocks: _Blocks) -> tuple[int, int]:
    """Return where the frame at *start* ends, and how many bytes it unpacks to at least.

    Raises `ZstdError` for what is no frame, or one that cannot be unpacked.
    """
    header = read_at(start, _LONGEST_HEADER)
    if not blocks.take():
        raise _too_many_blocks()
    if _is_skippable(header):
        return start + 8 + int.from_bytes(header[4:8], "little"), 0
    parameters = zstandard.get_frame_parameters(header)
    if parameters.dict_id or parameters.window_size > _LARGEST_WINDOW:
        raise ZstdError("it takes a dictionary, or too much memory")
    length = zstandard.frame_header_size(header)
    end = start + length
    # Mostly that of the first block has been read already.
    block = header[length : length + 3]
    content = 0
    last = False
    while not last:
        if not blocks.take():
            raise _too_many_blocks()
        if len(block) < 3:
            block = read_at(end, 3)
        if len(block) < 3 or block == b"\0\0\0":
            # An empty block that is not the last: no compressor writes it, but a torn file reads like it.
            raise ZstdError("it is cut short")
        content += _least_content(block, min(parameters.window_size, _MOST_IN_BLOCK))
        length, last = _block_length(block)
        end += length
        block = b""
    return end + 4 * parameters.has_checksum, content


_COMPRESSED: Final = 2
_RESERVED: Final = 3
_TWO_SECTIONS: Final = 2
_MOST_IN_BLOCK: Final = 128 << 10
_LARGEST_WINDOW: Final = 1 << 27
"""What a decompressor makes room for if nothing else is said: `ZSTD_WINDOWLOG_LIMIT_DEFAULT` of zstd.h."""


def _is_skippable(header: bytes) -> bool:
    return len(header) >= 8 and header[0] & 0xF0 == 0x50 and header[1:4] == b"\x2a\x4d\x18"


def _block_length(block: Buffer) -> tuple[int, bool]:
    """Return how long a block is with its header of 3 bytes, and whether it is the last of its frame."""
    header = int.from_bytes(bytes(block), "little")
    repeats_one_byte = header >> 1 & 3 == 1
    return 3 + (1 if repeats_one_byte else header >> 3), bool(header & 1)


def _least_content(block: bytes, most: int) -> int:
    """Return how many bytes a block unpacks to at least, by its header (RFC 8878, section 3.1.1.2).

    *most* is what any block of its frame may have, packed or unpacked. Raises `ZstdError` for one that cannot
    be unpacked: a compressed one has two sections, each of a byte at least.
    """
    header = int.from_bytes(block, "little")
    kind, size = header >> 1 & 3, header >> 3
    if kind == _RESERVED or size > most or (kind == _COMPRESSED and size < _TWO_SECTIONS):
        raise ZstdError("it has a block that cannot be right")
    return 1 if kind == _COMPRESSED else size


def _reason(size: int | None) -> str:
    return "are read of one of no known size" if size is None else "its index allows for it"


def _zstd_reason(error: ZstdError) -> str:
    return str(error).removeprefix("zstd decompress error: ").removeprefix("error ")
