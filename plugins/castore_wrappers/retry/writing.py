"""A writer that can begin again, as long as it has kept what it was given."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import BinaryIO, Final, cast

from castore import B3Digest, BlobWriter, UnavailableError
from castore.streams.writers import GuardedWriter
from castore_wrappers.retry.patience import Patience

_IN_MEMORY: Final = 4 << 20
_PIECE: Final = 1 << 20


class ReplayingWriter(GuardedWriter):
    """Passes bytes on at once, and keeps them to write them again if the service is unavailable meanwhile.

    It keeps *most* bytes, up to 4 MiB in memory and more in an unnamed temporary file. A blob that is longer
    cannot be begun again: from there on what fails has failed.
    """

    def __init__(self, open_write: Callable[[], BlobWriter], most: int, patience: Patience) -> None:
        self._open_write = open_write
        self._patience = patience
        self._most = most
        self._writer = patience.run(open_write)
        self._kept: BinaryIO | None = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115

    def _take(self, view: memoryview) -> None:
        self._keep(view)
        if self._kept is None:
            self._writer.write(view)
        else:
            self._patience.run(lambda: self._writer.write(view), again=lambda _: self._begin_again())

    def _keep(self, view: memoryview) -> None:
        if self._kept is None:
            return
        if self._written + len(view) > self._most:
            self._let_go()
            return
        try:
            self._kept.write(view)
        except OSError as error:
            raise UnavailableError("the temporary folder", error) from error

    def _begin_again(self) -> int:
        """Write all that was kept to a new writer; return how much that was."""
        assert self._kept is not None
        self._writer.abort()
        self._writer = self._open_write()
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
