"""A reader that survives the failure of near."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blake3 import blake3

from castore import B3Digest, BlobReader, CorruptBlobError
from castore.composites.failover_reading import wrong_bytes
from castore.streams.readers import PieceReader
from castore_cache.near import Near

_PIECE: Final = 64 << 10


class SteadyReader(PieceReader):
    """Reads a large blob that near keeps in one piece; if near fails in the middle, far goes on from there.

    Read from start to end its digest is checked: the last piece is held back until it is right. If it is
    wrong near drops the blob, if it can, and the next one to read it gets far's.
    """

    def __init__(
        self, reader: BlobReader, digest: B3Digest, near: Near, open_far: Callable[[], BlobReader | None]
    ) -> None:
        self._reader = reader
        self._digest = digest
        self._near: Near | None = near
        self._open_far = open_far
        self._size = reader.size
        self._held = memoryview(b"")
        self._held_at = 0
        self._hasher = blake3()
        self._hashed = 0
        self._mismatch: CorruptBlobError | None = None

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

    def piece_at(self, position: int) -> memoryview:
        """Return the bytes held from *position* on; read a piece there if there are none."""
        offset = position - self._held_at
        if not 0 <= offset < len(self._held):
            data = self._read(position)
            self._check(position, data)
            self._held = memoryview(data)
            self._held_at = position
            offset = 0
        return self._held[offset:]

    def _check(self, position: int, data: bytes) -> None:
        if self._mismatch is not None:
            raise self._mismatch
        if position != self._hashed:
            return
        self._hasher.update(data)
        self._hashed += len(data)
        if self._hashed == self._size and self._hasher.digest() != self._digest:
            if self._near is not None:
                self._near.drop(self._digest)
            self._mismatch = wrong_bytes(self._digest, B3Digest(self._hasher.digest()))
            raise self._mismatch

    def _read(self, position: int) -> bytes:
        if self._near is not None:
            data, fault = self._near.ask(lambda: self._read_from(self._reader, position))
            if data:
                return data
            far = self._open_far()
            if far is None:
                raise fault or self._too_short(position)
            if far.size != self._size:
                # Positions in the one say nothing about the other.
                words = f"has {self._size} bytes in near, and {far.size} in far"
                far.close()
                raise CorruptBlobError(f"blob {self._digest} {words}", expected=self._digest)
            self._near.attempt(self._reader.close)
            self._near = None
            self._reader = far
        return self._read_from(self._reader, position)

    def _read_from(self, reader: BlobReader, position: int) -> bytes:
        if reader.tell() != position:
            reader.seek(position)
        return reader.read(min(_PIECE, self._size - position))

    def _too_short(self, position: int) -> CorruptBlobError:
        message = f"blob {self._digest} ends at {position}, before its size of {self._size}"
        return CorruptBlobError(message, expected=self._digest)

    def close(self) -> None:
        """Close the reader beneath."""
        if not self.closed:
            self._reader.close()
        super().close()
