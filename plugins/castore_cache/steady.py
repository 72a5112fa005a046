"""A reader that survives the failure of near."""

from __future__ import annotations

from collections.abc import Callable

from castore import B3Digest, BlobReader, CorruptBlobError
from castore.streams.checked import HashedPieceReader, read_piece
from castore_cache.near import Near


class SteadyReader(HashedPieceReader):
    """Reads a large blob that near keeps in one piece; if near fails in the middle, far goes on from there.

    If its digest turns out to be wrong near drops the blob, if it can: who reads it next gets far's.
    """

    def __init__(
        self, reader: BlobReader, digest: B3Digest, near: Near, open_far: Callable[[], BlobReader | None]
    ) -> None:
        super().__init__(digest, reader.size)
        self._reader = reader
        self._near: Near | None = near
        self._open_far = open_far
        self._source = near

    def _mismatched(self) -> bool:
        # If far went on it is not known whose bytes were wrong; those of near are doubted.
        self._source.distrust(self._digest, ())
        self._source.drop(self._digest)
        return True

    def _read_piece(self, position: int) -> bytes | memoryview:
        if self._near is not None:
            piece, fault = self._near.ask(lambda: read_piece(self._reader, position))
            if piece:
                return piece
            far = self._open_far()
            if far is None:
                if fault is not None:
                    raise fault
                return b""
            if far.size != self._size:
                # Positions in the one say nothing about the other.
                words = f"has {self._size} bytes in near, and {far.size} in far"
                far.close()
                raise CorruptBlobError(f"blob {self._digest} {words}", expected=self._digest)
            self._near.attempt(self._reader.close)
            self._near = None
            self._reader = far
        return read_piece(self._reader, position)

    def close(self) -> None:
        """Close the reader beneath."""
        if not self.closed:
            self._reader.close()
        super().close()
