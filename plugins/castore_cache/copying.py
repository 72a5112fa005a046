"""A blob that far keeps in one piece, copied to near while it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blake3 import blake3

from castore import B3Digest, BlobReader, CorruptBlobError
from castore.composites.failover_reading import wrong_bytes
from castore.streams.readers import PieceReader
from castore_cache.near import NearCopy

_PIECE: Final = 1 << 20


class CopyingReader(PieceReader):
    """Copies a blob to near while it is read from start to end; a seek elsewhere ends the copying.

    The last piece is held back until the digest is right. *ended* is called once, when nothing is copied any
    more.
    """

    def __init__(
        self, reader: BlobReader, digest: B3Digest, copy: NearCopy, ended: Callable[[], object]
    ) -> None:
        self._reader = reader
        self._digest = digest
        self._near_copy = copy
        self._ended: Callable[[], object] | None = ended
        self._buffer = memoryview(bytearray(_PIECE))
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
            raise wrong_bytes(self._digest, B3Digest(self._hasher.digest()))
        self._near_copy.take(piece)
        if self._copied == self.size:
            self._near_copy.finish()
            self._stop_copying()

    def _stop_copying(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self._near_copy.drop()
            ended()

    def close(self) -> None:
        """Close far's reader; a copy that is not complete is dropped."""
        if not self.closed:
            self._stop_copying()
            self._reader.close()
        super().close()
