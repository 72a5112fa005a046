"""A reader that survives the failure of near."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from castore import BlobReader
from castore.readers import PieceReader
from castore_cache.chunks import Near

_PIECE: Final = 64 << 10


class SteadyReader(PieceReader):
    """Reads a blob that near keeps in one piece; if near fails in the middle, far goes on from there."""

    def __init__(self, reader: BlobReader, near: Near, open_far: Callable[[], BlobReader | None]) -> None:
        self._reader = reader
        self._near: Near | None = near
        self._open_far = open_far
        self._size = reader.size
        self._held = memoryview(b"")
        self._held_at = 0

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

    def piece_at(self, position: int) -> memoryview:
        """Return the bytes held from *position* on; read a piece there if there are none."""
        offset = position - self._held_at
        if not 0 <= offset < len(self._held):
            self._held = memoryview(self._read(position))
            self._held_at = position
            offset = 0
        return self._held[offset:]

    def _read(self, position: int) -> bytes:
        if self._near is not None:
            data, fault = self._near.ask(lambda: self._read_from(self._reader, position))
            if data is not None:
                return data
            far = self._open_far()
            if far is None:
                assert fault is not None
                raise fault
            self._near.attempt(self._reader.close)
            self._near = None
            self._reader = far
        return self._read_from(self._reader, position)

    def _read_from(self, reader: BlobReader, position: int) -> bytes:
        if reader.tell() != position:
            reader.seek(position)
        return reader.read(min(_PIECE, self._size - position))

    def close(self) -> None:
        """Close the reader beneath."""
        if not self.closed:
            self._reader.close()
        super().close()
