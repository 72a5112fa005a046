"""Work that stops at its next step when nobody waits for it any more.

A thread cannot be stopped from outside. So the work looks at a flag between its steps: before each operation
of a service, each piece that is read or written, and each file that is opened. Once the flag is set these
raise `Stopped`, which takes the usual way out: a writer is aborted, a reader is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from castore.contract.blobs import BlobService, BlobWriter
from castore.contract.inputs import Interruptible
from castore.contract.operations import Operation
from castore.wrapping.forwarding import ForwardingWriter
from castore.wrapping.wrapper import WrapperService

P = ParamSpec("P")
T = TypeVar("T")

PIECE: Final = 1 << 20
"""How many bytes there may be from one look at the flag to the next."""


class Stopped(BaseException):
    """Nobody waits for the work any more. It ends with the work, and reaches no caller.

    No `Exception`: nothing beneath shall take it for a fault of a service, and try again or elsewhere.
    """


class Stop:
    """The flag: set once, by who gives the work up."""

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Let the work stop at its next step."""
        self._is_set = True

    def check(self) -> None:
        """Raise `Stopped` if the work was given up."""
        if self._is_set:
            raise Stopped


class StoppableService(WrapperService, Interruptible):
    """Passes everything on to *inner*, until *stop* is set."""

    def __init__(self, inner: BlobService, stop: Stop) -> None:
        super().__init__(inner, name="castore.aio")
        self._stop = stop

    def check(self) -> None:
        """Raise `Stopped` if the work was given up."""
        self._stop.check()

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ARG002 - as declared
        """Call, unless it is not waited for."""
        self._stop.check()
        return call(*args, **kwargs)

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        """Return a writer that takes many bytes piece by piece."""
        return _StoppableWriter(writer, self.around)


class _StoppableWriter(ForwardingWriter):
    def _take(self, view: memoryview) -> None:
        for start in range(0, len(view), PIECE):
            super()._take(view[start : start + PIECE])
