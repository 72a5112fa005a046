"""Readers that fill near with what they read from far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blake3 import blake3

from castore import B3Digest, BlobReader, BlobService, ChunkedReader, ChunkMeta, CorruptBlobError
from castore.capabilities import ChunkSource
from castore.readers import BytesReader, PieceReader
from castore_cache.chunks import CachedChunks, Near

_PIECE: Final = 1 << 20

_SMALL: Final = 4 << 20
"""Up to this size, in bytes, a blob without finer chunks is fetched whole and becomes one chunk of near."""


class FillingChunkedReader(ChunkedReader):
    """Reads a blob of far chunk by chunk; when near has all chunks it gets the index, too.

    The index is put only if the chunks are known to make up the digest of the blob: after a read from
    start to end, or else, when the reader closes and finds near complete, after reading the blob there.
    """

    def __init__(
        self, near: Near, chunks: CachedChunks, far: BlobService, digest: B3Digest, index: Sequence[ChunkMeta]
    ) -> None:
        self._tracker = _Tracker(chunks, index)
        super().__init__(far, index, digest=digest, source=self._tracker)
        self._near = near
        self._blob = digest

    def close(self) -> None:
        """Put the index into near if that is complete now."""
        if not self.closed and self._tracker.fetched and self._near_is_whole():
            self._near.complete(self._blob, self._map.chunks)
        super().close()

    def _near_is_whole(self) -> bool:
        # The first chunk that near lacks ends this: it is cheap unless the blob is nearly complete.
        if not self._near.attempt(lambda: all(map(self._near.has_chunk, self._tracker.unread))):
            return False
        return self.verified or bool(self._near.attempt(self._near_makes_up_the_blob))

    def _near_makes_up_the_blob(self) -> bool:
        hasher = blake3()
        for meta in self._map.chunks:
            data = self._near.get(meta)
            if data is None:
                return False
            hasher.update(data)
        return hasher.digest() == self._blob


class _Tracker(ChunkSource):
    """Hands chunks through and notes which of a blob's are known to be in near."""

    def __init__(self, chunks: CachedChunks, index: Sequence[ChunkMeta]) -> None:
        self._chunks = chunks
        self.unread = dict.fromkeys(meta.digest for meta in index)
        """The chunks that are not known to be in near, in order."""
        self.fetched = False

    def has_chunk(self, digest: B3Digest) -> bool:
        return self._chunks.has_chunk(digest)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        data, kept = self._chunks.fetch(digest, size)
        self.fetched = True
        if kept:
            self.unread.pop(digest, None)
        return data

    def chunk_key(self, digest: B3Digest) -> str | None:
        return self._chunks.chunk_key(digest)


def open_unchunked(reader: BlobReader, digest: B3Digest, near: Near) -> BlobReader:
    """Return a reader over a blob that far keeps in one piece, filling near from it."""
    if reader.size > _SMALL:
        return _CopyingReader(reader, digest, near)
    with reader:
        data = reader.read()
    found = B3Digest.of(data)
    if found != digest:
        raise _wrong_blob(digest, found)
    if near.keep(digest, data):
        near.complete(digest, ())
    return BytesReader(data)


class _CopyingReader(PieceReader):
    """Copies a blob to near while it is read from start to end; a seek elsewhere ends the copying.

    The last piece is held back until the digest is right.
    """

    def __init__(self, reader: BlobReader, digest: B3Digest, near: Near) -> None:
        self._reader = reader
        self._digest = digest
        self._near = near
        self._buffer = memoryview(bytearray(_PIECE))
        self._writer = near.attempt(near.service.open_write)
        self._hasher = blake3()
        self._copied = 0
        self._start = 0
        self._filled = 0

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._reader.size

    def piece_at(self, position: int) -> memoryview:
        """Read a piece of far's blob, and copy it if it comes next."""
        if not self._start <= position < self._start + self._filled:
            if self._reader.tell() != position:
                self._reader.seek(position)
            self._start, self._filled = position, 0
            count = self._reader.readinto(self._buffer)
            if not count:
                raise CorruptBlobError(
                    f"blob {self._digest} ends at {position}, before its size of {self.size}",
                    expected=self._digest,
                )
            self._copy(position, self._buffer[:count])
            self._filled = count
        return self._buffer[position - self._start : self._filled]

    def _copy(self, position: int, piece: memoryview) -> None:
        if position != self._copied:
            return
        self._hasher.update(piece)
        self._copied += len(piece)
        if self._copied == self.size and self._hasher.digest() != self._digest:
            self._stop_copying()
            raise _wrong_blob(self._digest, B3Digest(self._hasher.digest()))
        writer = self._writer
        if writer is not None:
            if self._near.attempt(lambda: writer.write(piece)) is None:
                self._stop_copying()
            elif self._copied == self.size:
                self._near.attempt(writer.close)
                self._writer = None

    def _stop_copying(self) -> None:
        if self._writer is not None:
            self._near.attempt(self._writer.abort)
            self._writer = None

    def close(self) -> None:
        """Close far's reader; a copy that is not complete is dropped."""
        if not self.closed:
            self._stop_copying()
            self._reader.close()
        super().close()


def _wrong_blob(expected: B3Digest, found: B3Digest) -> CorruptBlobError:
    return CorruptBlobError(
        f"blob {expected} is corrupt: its bytes have the digest {found}", expected=expected, found=found
    )
