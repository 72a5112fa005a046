"""Ready-made blob writers: the rules of writing kept once, and a spool for those who need all bytes first."""

from __future__ import annotations

import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Self, cast

from blake3 import blake3

from castore.buffers import byte_view
from castore.contract.blobs import BlobWriter
from castore.digest import B3Digest
from castore.errors import UnavailableError, WriterClosedError
from castore.threads import forks

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

_SPOOL_IN_MEMORY: Final = 4 << 20
ENDS: Final = {"closed": "is closed", "aborted": "was aborted", "failed": "has failed before"}
"""What a writer that takes no more bytes says of itself."""


class GuardedWriter(BlobWriter):
    """A writer that keeps the rules: one life, from open to closed, aborted or failed.

    A subclass fills in `_take`, `_finish` and `_discard`. When `_take` or `_finish` raises, the writer
    has failed: what was written is discarded, and only `abort` does not raise after that.

    A writer belongs to the process that has opened it. In a child of a fork it takes and ends nothing, and
    gives nothing back: that would be the parent's.
    """

    _state: Literal["open", "closed", "aborted", "failed"] = "open"
    _digest: B3Digest | None = None
    _written = 0
    _generation: int

    def __new__(cls, *_: object, **__: object) -> Self:
        """Remember the process; here, as a subclass need not call any constructor."""
        self = super().__new__(cls)
        self._generation = forks.generation()
        return self

    def __del__(self) -> None:
        # What was written is lost. It is not aborted here: a collector of garbage must wait for nobody.
        if self._state == "open" and self._written and self._generation == forks.generation():
            warnings.warn(f"a writer was not closed: {self!r}", ResourceWarning, 2, source=self)

    @abstractmethod
    def _take(self, view: memoryview) -> None:
        """Take the bytes of *view*, which is valid until this returns."""

    @abstractmethod
    def _finish(self) -> B3Digest:
        """Make the blob visible and return its digest."""

    def _discard(self) -> None:
        """Give back what the writer held, after `abort` or a failure."""

    @property
    def closed(self) -> bool:
        """Whether the writer takes no more bytes."""
        return self._state != "open"

    def writable(self) -> bool:
        """Return True, as a binary file open for writing does."""
        return True

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self._written

    def flush(self) -> None:
        """Do nothing: no byte is visible before `close`. Here for what takes a file, as `zipfile` does."""

    def write(self, data: Buffer, /) -> int:
        """Take all of *data*; return its size in bytes."""
        self._require_open("write")
        view = byte_view(data)
        if view:
            with self._failing():
                self._take(view)
        self._written += len(view)
        return len(view)

    def close(self) -> B3Digest:
        """Make the blob visible and return its digest; the same one again when called again."""
        if self._digest is not None:
            return self._digest
        self._require_open("close")
        with self._failing():
            self._digest = self._finish()
        self._state = "closed"
        return self._digest

    def abort(self) -> None:
        """Forget what was written; does nothing on a writer that has ended."""
        if self._state == "open":
            self._state = "aborted"
            if self._generation == forks.generation():
                self._discard()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Who aborts inside the block has said what is to become of the blob.
        if self._state != "aborted":
            super().__exit__(kind, error, trace)

    def _failing(self) -> _Failing:
        """Mark the writer as failed if the block raises."""
        return _Failing(self)

    def _fail(self) -> None:
        self._state = "failed"
        self._discard()

    def _require_open(self, action: str) -> None:
        if self._state != "open":
            raise WriterClosedError(f"cannot {action}: this writer {ENDS[self._state]}")
        if self._generation != forks.generation():
            raise WriterClosedError(
                f"cannot {action}: this writer was opened before the process was forked, and is the parent's;"
                " open one here"
            )


class _Failing:
    """Marks the writer as failed when its block raises."""

    __slots__ = ("_writer",)

    def __init__(self, writer: GuardedWriter) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._writer._fail()  # noqa: SLF001 - one class in two parts


class SpooledWriter(GuardedWriter):
    """Keeps the bytes in memory, beyond 4 MiB in an unnamed temporary file, until the digest is known.

    On `close`, *store* is called once with the digest and a binary file at its start.
    """

    def __init__(self, store: Callable[[B3Digest, BinaryIO], object]) -> None:
        self._store = store
        self._hasher = blake3()
        self._spool = cast("BinaryIO", tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY))  # noqa: SIM115 - it goes with the writer

    def _take(self, view: memoryview) -> None:
        self._hasher.update(view)
        try:
            self._spool.write(view)
        except OSError as error:
            raise UnavailableError("the temporary folder", error) from error

    def _finish(self) -> B3Digest:
        digest = B3Digest(self._hasher.digest())
        self._spool.seek(0)
        self._store(digest, self._spool)
        self._spool.close()
        return digest

    def _discard(self) -> None:
        self._spool.close()
