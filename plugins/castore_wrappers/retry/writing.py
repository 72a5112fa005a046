"""A writer that can begin again, as long as it has kept what it was given, or can read it again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import BinaryIO, Final, cast

from castore import B3Digest, BlobWriter, SourceChangedError, UnavailableError
from castore.contract.inputs import InputFile
from castore.streams.writers import GuardedWriter
from castore_wrappers.retry.patience import Patience

_IN_MEMORY: Final = 4 << 20
_PIECE: Final = 1 << 20


class ReplayingWriter(GuardedWriter):
    """Passes bytes on at once, and writes them again if the service is unavailable meanwhile.

    A file that it is filled from it reads again, if that rewinds and comes first. All else it keeps: *most*
    bytes, up to 4 MiB in memory and more in an unnamed temporary file. A blob of which there is more than
    that cannot be begun again: from there on what fails has failed.
    """

    def __init__(self, open_write: Callable[[], BlobWriter], most: int, patience: Patience) -> None:
        self._open_write = open_write
        self._patience = patience
        self._most = most
        self._writer = patience.run(open_write)
        self._source: InputFile | None = None
        self._from_source = 0
        """How many bytes, the first ones, are taken from the source."""
        self._kept: BinaryIO | None = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - it goes with the writer

    def fill(self, source: InputFile) -> int:
        """Let the writer within take bytes of *source*, if they can be read again; else keep them."""
        self._require_open("write")
        if self._written == 0 and source.rewinds:
            self._source = source
        if source is not self._source or self._written > self._from_source:
            return super().fill(source)
        with self._failing():
            count = self._patience.run(
                lambda: self._writer.fill(source), again=lambda _: self._fill_again(source)
            )
        self._written += count
        self._from_source += count
        return count

    def _fill_again(self, source: InputFile) -> int:
        self._begin_again()
        return self._writer.fill(source)

    def _take(self, view: memoryview) -> None:
        self._keep(view)
        if self._kept is None:
            self._writer.write(view)
        else:
            self._patience.run(lambda: self._writer.write(view), again=lambda _: self._begin_again())

    def _keep(self, view: memoryview) -> None:
        if self._kept is None:
            return
        if self._written - self._from_source + len(view) > self._most:
            self._let_go()
            return
        try:
            self._kept.write(view)
        except OSError as error:
            raise UnavailableError("the temporary folder", error) from error

    def _begin_again(self) -> int:
        """Write all that there was to a new writer; return how much of it was kept."""
        assert self._kept is not None
        self._writer.abort()
        self._writer = self._open_write()
        if self._source is not None:
            self._source.rewind()
            first = _Beginning(self._source, self._from_source)
            while self._writer.fill(first):
                pass
        self._kept.seek(0)
        written = 0
        # It ends where it has to be written on.
        while piece := self._kept.read(_PIECE):
            written += self._writer.write(piece)
        return written

    def _finish(self) -> B3Digest:
        if self._kept is None:
            return self._writer.close()
        digest = self._patience.run(self._writer.close, again=lambda _: self._close_again())
        self._let_go()
        return digest

    def _close_again(self) -> B3Digest:
        self._begin_again()
        return self._writer.close()

    def _discard(self) -> None:
        self._let_go()
        self._writer.abort()

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


class _Beginning(InputFile):
    """The first *size* bytes of a source, if it still has as many; raises `SourceChangedError` if not."""

    def __init__(self, source: InputFile, size: int) -> None:
        super().__init__(cast("BinaryIO", source), source.name)
        self._source = source
        self._left = size

    def readinto(self, buffer: memoryview) -> int:
        count = self._source.readinto(buffer[: self._left])
        if self._left and not count:
            raise SourceChangedError(f"cannot store {self.name!r}: it has become shorter while it was read")
        self._left -= count
        return count
