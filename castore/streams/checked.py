"""Reading a whole blob in pieces, and checking its digest on the way."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from blake3 import blake3

from castore.contract.blobs import BlobReader
from castore.digest import B3Digest
from castore.errors import CorruptBlobError
from castore.streams.readers import PieceReader

_PIECE: Final = 64 << 10
"""So many bytes are read at least, if there are as many."""


class HashedPieceReader(PieceReader):
    """A reader that holds the last piece it has read, and hashes what comes in order.

    Read from start to end, be it with looks back, the digest of the blob is checked: the last piece is held
    back until it is right. Read in another order a byte is as good as the word of what it comes from.

    A subclass fills in `_read_piece`, and may override `_take` and `_mismatched`.

    Arguments:
        digest: That of the blob.
        size: Its size in bytes.
    """

    def __init__(self, digest: B3Digest, size: int) -> None:
        self._digest = digest
        self._size = size
        self._held = memoryview(b"")
        self._held_at = 0
        self._hasher = blake3()
        self._hashed = 0
        self._mismatch: CorruptBlobError | None = None

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

    @property
    def verified(self) -> bool:
        """Whether it was read from start to end, and its digest found right."""
        return self._hashed == self._size and self._hasher.digest() == self._digest

    def piece_at(self, position: int) -> memoryview:
        """Return the bytes held from *position* on; read a piece there if there are none."""
        offset = position - self._held_at
        if not 0 <= offset < len(self._held):
            # What is held may be another's, and gone when that reads on.
            self._held = memoryview(b"")
            piece = memoryview(self._read_piece(position))
            if not piece:
                words = f"ends at {position}, before its size of {self._size}"
                raise CorruptBlobError(f"blob {self._digest} {words}", expected=self._digest)
            self._check(position, piece)
            self._held, self._held_at, offset = piece, position, 0
        return self._held[offset:]

    def _check(self, position: int, piece: memoryview) -> None:
        if self._mismatch is not None:
            raise self._mismatch
        new = piece[self._hashed - position :] if position <= self._hashed else piece[:0]
        if not new:
            return
        self._hasher.update(new)
        self._hashed += len(new)
        if self._hashed == self._size and self._hasher.digest() != self._digest:
            self._mismatch = wrong_bytes(self._digest, B3Digest(self._hasher.digest()))
            self._mismatch.passed_over = self._mismatched()
            raise self._mismatch
        self._take(new)

    @abstractmethod
    def _read_piece(self, position: int) -> bytes | memoryview:
        """Return some bytes from *position* on; none if the blob ends there, before its size.

        They stay as they are until the next call.
        """

    def _take(self, piece: memoryview) -> None:
        """Be given the bytes of the blob in order, the last ones when the digest is right."""

    def _mismatched(self) -> bool:
        """Be told that the bytes are not those of the blob; return whether they are passed over now."""
        return False

    def close(self) -> None:
        """Let go of what is held."""
        self._held = memoryview(b"")
        super().close()


def read_piece(reader: BlobReader, position: int) -> bytes | memoryview:
    """Return some bytes of *reader* from *position* on; none if it has none there.

    A large piece is not copied; small ones are put together, so that a small blob is checked as a whole.
    """
    size = min(_PIECE, reader.size - position)
    if not isinstance(reader, PieceReader):
        if reader.tell() != position:
            reader.seek(position)
        return reader.read(size)
    piece = reader.piece_at(position)
    if len(piece) >= size or not piece:
        return piece
    parts = [bytes(piece)]
    filled = len(piece)
    while filled < size and (piece := reader.piece_at(position + filled)):
        parts.append(bytes(piece))
        filled += len(piece)
    return b"".join(parts)


def wrong_bytes(expected: B3Digest, found: B3Digest) -> CorruptBlobError:
    """Return the error for a blob whose bytes have the digest *found*."""
    return CorruptBlobError(
        f"blob {expected} is corrupt: its bytes have the digest {found}", expected=expected, found=found
    )
