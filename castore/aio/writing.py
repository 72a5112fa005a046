"""Writing one blob in an async program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from castore.aio.lending import Lent
from castore.aio.stopping import PIECE, Stop
from castore.buffers import byte_view
from castore.contract.blobs import BlobWriter
from castore.errors import WriterClosedError
from castore.streams.writers import ENDS

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from castore.aio.threads import Threads
    from castore.digest import B3Digest

T = TypeVar("T")


class AsyncBlobWriter:
    """Takes the bytes of one blob by `await` and, on `close`, names it; from `AsyncBlobService.open_write`.

    Nothing is visible before `close`. As an `async with` block it closes on success and aborts on an
    exception. One task uses it at a time. Small writes gather until there is 1 MiB, so that few of them wait,
    and what goes wrong with one may be raised by a later one or by `close`; the writer of the service is
    opened with the first MiB.

    A write that is cancelled aborts the writer, once the piece that is under way is stored. A `close` that is
    cancelled leaves the whole blob or none.
    """

    def __init__(self, open_write: Callable[[], BlobWriter], threads: Threads) -> None:
        self._lent = Lent(threads, open_write, methodcaller("abort"), what="writer")
        self._gathered = bytearray()
        self._digest: B3Digest | None = None
        self._end: Literal["closed", "aborted", "failed"] | None = None

    @property
    def closed(self) -> bool:
        """Whether it takes no more bytes."""
        return self._end is not None

    async def write(self, data: Buffer) -> int:
        """Take all of *data*; return its size in bytes. Waits while the service cannot take more."""
        self._require_open("write")
        with byte_view(data) as view:
            size = len(view)
            if len(self._gathered) + size < PIECE:
                self._gathered += view
                return size
            # A call that is given up may look at the bytes when the caller has changed them.
            kept = data if isinstance(data, bytes) else bytes(view)
        gathered, self._gathered = self._gathered, bytearray()
        await self._call(partial(_write, gathered, kept))
        return size

    async def close(self) -> B3Digest:
        """Make the blob visible and return its digest; the same one again when called again."""
        if self._digest is None:
            self._require_open("close")
            self._digest = await self._call(partial(_close, self._gathered))
            self._end = "closed"
            self._lent.finish()
        return self._digest

    async def abort(self) -> None:
        """Forget what was written: no blob appears. Does nothing on a writer that has ended."""
        if self._forget():
            await self._lent.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            # Who aborts inside the block has said what is to become of the blob.
            if self._end != "aborted":
                await self.close()
        elif not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            await self.abort()
        elif self._forget():
            # Who is cancelled is not kept waiting.
            self._lent.drop()

    async def _call(self, work: Callable[[BlobWriter, Stop], T]) -> T:
        try:
            return await self._lent.call(work)
        except BaseException:
            if self._end is None:
                self._end = "aborted" if self._lent.over else "failed"
            raise

    def _forget(self) -> bool:
        """Return whether there is something to abort."""
        if self._end in {"closed", "aborted"}:
            return False
        self._end = "aborted"
        self._gathered.clear()
        return True

    def _require_open(self, action: str) -> None:
        if self._end is not None:
            raise WriterClosedError(f"cannot {action}: this writer {ENDS[self._end]}")


def _write(gathered: bytearray, data: bytes, writer: BlobWriter, stop: Stop) -> None:
    for part in (gathered, data):
        view = memoryview(part)
        for start in range(0, len(view), PIECE):
            stop.check()
            writer.write(view[start : start + PIECE])


def _close(gathered: bytearray, writer: BlobWriter, stop: Stop) -> B3Digest:
    _write(gathered, b"", writer, stop)
    stop.check()
    return writer.close()
