"""Work that stops at its next step when nobody waits for it any more.

A thread cannot be stopped from outside. So the work looks at a flag between its steps: before each operation
of a service, each piece that is read or written, and each file that is opened. Once the flag is set these
raise `Stopped`, which takes the usual way out: a writer is aborted, a reader is closed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final, ParamSpec, TypeVar

from castore.contract.blobs import BlobService
from castore.contract.inputs import InputFile
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.wrapping.wrapper import WrapperService

if TYPE_CHECKING:
    from typing_extensions import Buffer

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


class StoppableService(WrapperService):
    """Passes everything on to *inner*, until *stop* is set; files and bytes in the way of *inner*."""

    passes_files: ClassVar[bool] = True

    def __init__(self, inner: BlobService, stop: Stop) -> None:
        super().__init__(inner, name="castore.aio")
        self._stop = stop

    def around(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ARG002
        """Call, unless it is not waited for."""
        self._stop.check()
        return call(*args, **kwargs)

    def write(self, data: Buffer) -> B3Digest:
        """Store *data* as a file is stored: by pieces, and in the way of *inner*."""
        return self.put_source(InputFile(io.BytesIO(data), "the bytes", size=memoryview(data).nbytes))

    def put_source(self, source: InputFile, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file whose reading stops."""
        return super().put_source(_StoppableSource(source, self._stop), progress)

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store files; after the stop no further one is opened, and that under way is not read on."""
        stop = self._stop

        def tell(count: int) -> None:
            stop.check()
            if progress is not None:
                progress(count)

        return super().put_files((_StoppablePath(path, stop) for path in paths), progress=tell)


class _StoppableSource(InputFile):
    def __init__(self, source: InputFile, stop: Stop) -> None:
        self._source = source
        self._stop = stop
        self.name = source.name
        self.size = source.size

    def readinto(self, buffer: memoryview) -> int:
        self._stop.check()
        return self._source.readinto(buffer[:PIECE])

    def rewind(self) -> None:
        self._source.rewind()


class _StoppablePath(os.PathLike[str]):
    """A path that is no more once the work was given up: so many files at once stop as well."""

    def __init__(self, path: str | os.PathLike[str], stop: Stop) -> None:
        self._path = path
        self._stop = stop

    def __fspath__(self) -> str:
        self._stop.check()
        return os.fspath(self._path)

    def __repr__(self) -> str:
        return repr(self._path)
