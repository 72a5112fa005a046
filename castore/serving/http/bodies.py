"""What is sent: parts of blobs, frames as they are stored, archives while they are made."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import zstandard

from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import FrameStore
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError
from castore.format.frames import compress, decode_chunk

PIECE: Final = 512 << 10
LARGEST_WINDOW: Final = 8 << 20
"""Browsers unpack no zstd with a larger one (RFC 9659)."""

_FRAMES: Final = 8
"""So many are had together."""


def pieces(reader: BlobReader, begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a blob from *begin* up to *end*; raises what the reader raises."""
    reader.seek(begin)
    while begin < end:
        piece = reader.read(min(PIECE, end - begin))
        if not piece:
            raise CorruptBlobError(f"the blob ends {end - begin} bytes early", expected=B3Digest(bytes(32)))
        begin += len(piece)
        yield piece


def frames_of(
    blobs: BlobService, digest: B3Digest, size: int
) -> tuple[FrameStore, Sequence[ChunkMeta]] | None:
    """Return where the frames of a blob are, and its chunks; `None` if there are none to be had."""
    store = blobs.capability(FrameStore)
    if store is None or store.frame_format != "zstd" or not size:
        return None
    chunks = blobs.chunks(digest)
    if chunks is None:
        return None
    return store, chunks or [ChunkMeta(digest, size)]


def frames(
    blobs: BlobService, store: FrameStore, chunks: Sequence[ChunkMeta], *, check: bool
) -> Iterator[bytes]:
    """Yield a blob as frames of zstd: those that are stored, and new ones where these cannot be sent.

    With *check* each is unpacked, and its bytes are compared with their digest, before it is given.
    """
    for start in range(0, len(chunks), _FRAMES):
        batch = chunks[start : start + _FRAMES]
        found = store.get_frames({meta.digest: meta.size for meta in batch})
        for meta in batch:
            frame = found.get(meta.digest)
            if not isinstance(frame, bytes) or not _can_be_sent(frame, meta, check=check):
                # The reader knows more ways to have it, and says what is wrong if there is none.
                with blobs.open(meta.digest) as reader:
                    frame = compress(reader.read())
            yield frame


def _can_be_sent(frame: bytes, meta: ChunkMeta, *, check: bool) -> bool:
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.window_size > LARGEST_WINDOW or parameters.dict_id:
            return False
        if check:
            decode_chunk(frame, meta.digest, size=meta.size)
    except (zstandard.ZstdError, CastoreError):
        return False
    return True


class Outlet(io.RawIOBase):
    """A file of which each piece is given to a function, when there is enough of it."""

    def __init__(self, give: Callable[[bytes], object]) -> None:
        self._give = give
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Take bytes; raises what the function raises."""
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        if self._size >= PIECE:
            self.flush()
        return len(part)

    def flush(self) -> None:
        """Give what there is."""
        if self._parts:
            whole, self._parts, self._size = b"".join(self._parts), [], 0
            self._give(whole)
