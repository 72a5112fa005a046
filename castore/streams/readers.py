"""Ready-made blob readers: over pieces of a blob, over bytes, and over another file object."""

from __future__ import annotations

import contextlib
import io
import operator
import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, BinaryIO, Final

from castore.contract.blobs import BlobReader
from castore.digest import B3Digest
from castore.errors import InvalidSeekError, UnavailableError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from typing_extensions import Buffer

_FILE_PIECE: Final = 64 << 10


class PieceReader(BlobReader):
    """A reader with everything derived from its size and one method, `piece_at`.

    Seeks follow the reference: to any place from the start to the end of the blob; elsewhere raises
    `InvalidSeekError`. A read or seek that raises leaves the position as it was.
    """

    _position = 0

    _holds: bool = True
    """Whether it holds more than memory, so that closing it matters."""

    def __del__(self) -> None:
        # Also what was never made is collected, as its constructor raised: then there is nothing to close.
        if not self.closed:
            with contextlib.suppress(AttributeError):
                self.close()
                if self._holds:
                    warnings.warn(f"a reader was not closed: {self!r}", ResourceWarning, 2, source=self)

    @abstractmethod
    def piece_at(self, position: int) -> memoryview:
        """Return at least one byte from *position*, as many as are at hand. 0 <= position < size.

        The view must stay valid until the next call.
        """

    def expect(self, begin: int, end: int) -> None:
        """Be told that the bytes from *begin* up to *end* are going to be asked for, in order."""

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _checked_piece(self, position: int) -> memoryview:
        piece = self.piece_at(position)
        if not piece:
            # Else a mistake in a backend would be an endless loop.
            raise EOFError(f"nothing at {position} of a blob of {self.size} bytes")
        return piece

    def _piece(self) -> memoryview:
        """Return the piece at the position, empty at the end of the blob."""
        self._require_open()
        if self._position >= self.size:
            return memoryview(b"")
        return self._checked_piece(self._position)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """Read into *buffer* from one piece; return the number of bytes, 0 at the end."""
        self._require_open()
        target = memoryview(buffer).cast("B")
        if not target:
            return 0
        piece = self._piece()
        count = min(len(piece), len(target))
        target[:count] = piece[:count]
        self._position += count
        return count

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill *buffer*, or less only at the end of the blob; return the number of bytes."""
        self._require_open()
        target = memoryview(buffer).cast("B")
        count = max(min(len(target), self.size - self._position), 0)
        self.expect(self._position, self._position + count)
        filled = 0
        while filled < count:
            piece = self._checked_piece(self._position + filled)[: count - filled]
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._position += count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """Return *size* bytes, or all that are left; fewer only at the end of the blob."""
        self._require_open()
        position = self._position
        end = self._end_of(size)
        self.expect(position, end)
        # No buffer of the size that an index claims: memory grows with the bytes that are really there.
        parts = []
        while position < end:
            part = bytes(self._checked_piece(position)[: end - position])
            parts.append(part)
            position += len(part)
        self._position = position
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its end, or *size* bytes of it; empty only at the end of the blob."""
        # That of `io` gives more than *size* where a line crosses from one piece to the next.
        self._require_open()
        position = self._position
        end = self._end_of(size)
        parts = []
        newline = 0
        while position < end and not newline:
            # Lines are short and pieces may be long: never copy a whole piece for one line.
            part = bytes(self._checked_piece(position)[: min(end - position, io.DEFAULT_BUFFER_SIZE)])
            newline = part.find(b"\n") + 1
            parts.append(part[:newline] if newline else part)
            position += len(parts[-1])
        self._position = position
        return b"".join(parts)

    def _end_of(self, size: int | None) -> int:
        return self.size if size is None or size < 0 else min(self._position + size, self.size)

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return up to *size* bytes from one piece; empty only at the end of the blob."""
        self._require_open()
        if size == 0:
            return b""
        piece = self._piece()
        count = len(piece) if size is None or size < 0 else min(size, len(piece))
        data = bytes(piece[:count])
        self._position += count
        return data

    def read_view(self, size: int = -1, /) -> memoryview:
        """Return up to *size* bytes of one piece without copying them; empty only at the end of the blob."""
        self._require_open()
        if size == 0:
            return memoryview(b"")
        piece = self._piece()
        view = piece if size < 0 else piece[:size]
        self._position += len(view)
        return view

    def peek(self, size: int = 0, /) -> bytes:
        """Return bytes at hand without moving, at least one before the end."""
        piece = self._piece()
        # Who peeks wants a few bytes: never copy a whole chunk for them.
        return bytes(piece[: max(size, io.DEFAULT_BUFFER_SIZE)])

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to *offset* from the start, the position or the end; return the new position."""
        self._require_open()
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        if whence not in bases:
            raise InvalidSeekError(f"{whence!r} is no way to seek: 0 from the start, 1 on, 2 from the end")
        position = bases[whence] + operator.index(offset)
        if position < 0:
            raise InvalidSeekError(f"seek to {position}, before the start of the blob")
        if position > self.size:
            raise InvalidSeekError(f"seek to {position}, beyond the end of a blob of {self.size} bytes")
        self._position = position
        return position

    def tell(self) -> int:
        """Return the position: the offset of the next byte to be read."""
        self._require_open()
        return self._position


class BytesReader(PieceReader):
    """A reader over bytes in memory. It keeps a view of them, not a copy.

    With the *digest* that they are to have it can tell whether they do.
    """

    _holds = False
    _verified: bool | None = None

    def __init__(self, data: Buffer, digest: B3Digest | None = None) -> None:
        self._view = memoryview(data).cast("B")
        self._digest = digest

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return len(self._view)

    @property
    def verified(self) -> bool:
        """Whether they have the digest; they are hashed when this is first asked."""
        if self._verified is None:
            self._verified = self._digest is not None and B3Digest.of(self._view) == self._digest
        return self._verified

    def piece_at(self, position: int) -> memoryview:
        """Return all bytes from *position* to the end."""
        return self._view[position:]


class FileReader(PieceReader):
    """A reader over another seekable binary file object, which it closes with itself.

    What goes wrong with the file raises `UnavailableError` with the file's name. With *verified* its content
    is known to be that of the blob.
    """

    def __init__(self, file: BinaryIO, size: int, *, verified: bool = False) -> None:
        self._file = file
        self._size = size
        self._verified = verified
        # Lines and other small reads stay in it: one read of the file serves many of them.
        self._held = memoryview(b"")
        self._held_at = 0

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

    @property
    def verified(self) -> bool:
        """Whether the content is known to be right, or the file is a reader that says so."""
        return self._verified or bool(getattr(self._file, "verified", False))

    def piece_at(self, position: int) -> memoryview:
        """Return the bytes held from *position* on; read a piece of the file there if it holds none."""
        offset = position - self._held_at
        if not 0 <= offset < len(self._held):
            self._held = memoryview(self._read_piece(position))
            self._held_at = position
            offset = 0
        return self._held[offset:]

    def _read_piece(self, position: int) -> bytes:
        name = str(getattr(self._file, "name", "the file of the blob"))
        try:
            if self._file.tell() != position:
                self._file.seek(position)
            piece = self._file.read(min(_FILE_PIECE, self._size - position))
        except OSError as error:
            raise UnavailableError(name, error) from error
        if not piece:
            raise UnavailableError(name, f"it ends at {position}, before its size of {self._size}")
        return piece

    def close(self) -> None:
        """Close the file beneath."""
        try:
            self._file.close()
        finally:
            super().close()
