"""A blob that far keeps in one piece, copied to near while it is read."""

from __future__ import annotations

from collections.abc import Callable

from castore import B3Digest, BlobReader
from castore.streams.checked import HashedPieceReader, read_piece
from castore_cache.near import NearCopy


class CopyingReader(HashedPieceReader):
    """Copies a blob to near while it is read from start to end; what is read in another order is not copied.

    *ended* is called once, when nothing is copied any more.
    """

    def __init__(
        self, reader: BlobReader, digest: B3Digest, copy: NearCopy, ended: Callable[[], object]
    ) -> None:
        super().__init__(digest, reader.size)
        self._reader = reader
        self._near_copy = copy
        self._ended: Callable[[], object] | None = ended

    def _read_piece(self, position: int) -> bytes | memoryview:
        return read_piece(self._reader, position)

    def _take(self, piece: memoryview) -> None:
        self._near_copy.take(piece)
        if self._hashed == self._size:
            self._near_copy.finish()
            self._stop_copying()

    def _mismatched(self) -> bool:
        self._stop_copying()
        return False

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
