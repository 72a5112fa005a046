"""Reading one blob in an async program."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Final, NoReturn, Self

from castore.aio.lending import Lent
from castore.aio.stopping import PIECE, Stop
from castore.contract.blobs import BlobReader
from castore.streams.readers import PieceReader

if TYPE_CHECKING:
    from types import TracebackType

    from castore.aio.threads import Threads

_NOTHING: Final = memoryview(b"")


class _Place(PieceReader):
    """A position in a blob, by the rules of all readers, and no bytes."""

    _holds = False

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def piece_at(self, position: int) -> NoReturn:
        raise NotImplementedError


class AsyncBlobReader:
    """A blob that is read by `await`, opened by `AsyncBlobService.open_read`.

    One task uses it at a time. A read brings up to 1 MiB from a thread and keeps what was not asked for, so
    that small reads seldom wait. A read that is cancelled closes the reader, once the piece that is under way
    has come; one that raises leaves the position as it was. Use it in an `async with` block, or `close` it.
    """

    def __init__(self, reader: BlobReader, threads: Threads) -> None:
        self._place = _Place(reader.size)
        self._reader = reader
        self._lent = Lent(threads, lambda: reader, methodcaller("close"), what="reader", thing=reader)
        self._held = _NOTHING
        """Bytes at hand, from the position on."""

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._place.size

    @property
    def verified(self) -> bool:
        """Whether all of the blob has come, and was found right, as `BlobReader.verified`."""
        return self._reader.verified

    @property
    def closed(self) -> bool:
        """Whether it gives no more bytes."""
        return self._lent.over

    async def read(self, size: int = -1) -> bytes:
        """Return *size* bytes, or all that are left; fewer only at the end of the blob."""
        self._require_open()
        position = self._place.tell()
        left = self.size - position
        count = left if size < 0 else min(size, left)
        if count <= len(self._held):
            data, held = bytes(self._held[:count]), self._held[count:]
        else:
            data, held = await self._lent.call(partial(_gather, position, count, self._held))
        self._held = held
        self._place.seek(position + count)
        return data

    async def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to *offset* from the start, the position or the end; return the new position.

        To any place from the start to the end of the blob; elsewhere raises `InvalidSeekError`.
        """
        self._require_open()
        before = self._place.tell()
        position = self._place.seek(offset, whence)
        ahead = position - before
        self._held = self._held[ahead:] if 0 <= ahead < len(self._held) else _NOTHING
        return position

    async def tell(self) -> int:
        """Return the position: the offset of the next byte to be read."""
        self._require_open()
        return self._place.tell()

    async def iter(self, size: int = PIECE) -> AsyncIterator[bytes]:
        """Yield what is left in pieces of *size* bytes, the last one shorter; no more than one is at hand."""
        if size < 1:
            raise ValueError(f"a piece has at least 1 byte, not {size}")
        while piece := await self.read(size):
            yield piece

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what is left in pieces of 1 MiB."""
        return self.iter()

    async def close(self) -> None:
        """Close it, and drop what is fetched ahead. Closing again does nothing."""
        self._held = _NOTHING
        await self._lent.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            # Who is cancelled is not kept waiting.
            self._held = _NOTHING
            self._lent.drop()
        else:
            await self.close()

    def _require_open(self) -> None:
        if self._lent.over:
            # The words of `io`, as of readers that are closed.
            raise ValueError("I/O operation on closed file")


def _gather(
    position: int, count: int, held: memoryview, reader: BlobReader, stop: Stop
) -> tuple[bytes, memoryview]:
    """Return *count* bytes from *position* on, the first of them *held*, and the rest of the last piece."""
    # Copied before the reader is touched: a piece is valid no longer than until the next one.
    parts = [bytes(held)]
    missing = count - len(held)
    place = position + len(held)
    del held
    if reader.tell() != place:
        reader.seek(place)
    while True:
        stop.check()
        piece = reader.read_view(PIECE)
        if not piece:
            raise EOFError(f"nothing at {position + count - missing} of a blob of {reader.size} bytes")
        parts.append(bytes(piece[:missing]))
        missing -= len(parts[-1])
        if not missing:
            return b"".join(parts) if len(parts) > 2 or parts[0] else parts[1], piece[len(parts[-1]) :]
