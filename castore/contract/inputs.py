"""What is to be stored: files by their paths, and streams that somebody else has opened."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, TypeAlias

from castore.errors import CastoreError, SourceError

_PIECE: Final = 64 << 10

_CHECKED: Final = 1 << 20
"""How many bytes are read at most before it is looked again whether they are still wanted."""

Storable: TypeAlias = "str | os.PathLike[str] | BinaryIO"
"""A path, or a file that is open in binary mode."""


_LOOK_AGAIN: Final = 100
"""After how many milliseconds of waiting that is looked at."""


class Interruptible(ABC):
    """A service whose work may be given up by the one who has asked for it: an optional capability.

    Storing a file asks it between its steps, as it may read long before it calls any method of the service.
    """

    @abstractmethod
    def check(self) -> None:
        """Raise, what is no `Exception`, if the work was given up."""


class InputFile:
    """A file or stream that is read from where it stands. What goes wrong with it raises `SourceError`."""

    def __init__(
        self,
        file: BinaryIO,
        name: object,
        *,
        size: int | None = None,
        check: Callable[[], object] | None = None,
    ) -> None:
        self._file = file
        self._check = check
        self.name = name
        self.size = size
        """The size in bytes of a regular file opened by its path, which can be read again after `rewind`.

        `None` for anything else. The file may be growing, so that more or less comes of it in the end.
        """

    def readinto(self, buffer: memoryview) -> int:
        """Fill *buffer* as far as one read goes; return the number of bytes, 0 at the end."""
        if self._check is not None:
            self._check()
            buffer = buffer[:_CHECKED]
        try:
            while (count := self._read(buffer)) is None:
                self._wait()
        except CastoreError:
            # The source is a blob of another store, and the error says what is wrong with it.
            raise
        except Exception as error:
            raise SourceError(f"cannot read {self.name!r}: {_reason(error)}") from error
        return count

    def _wait(self) -> None:
        """Wait until a source in non-blocking mode has data, or ends."""
        try:
            descriptor = self._file.fileno()
        except (AttributeError, OSError, ValueError):
            reason = "it is in non-blocking mode, has no data yet, and cannot be waited for"
            raise SourceError(f"cannot read {self.name!r}: {reason}") from None
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not poll.poll(None if self._check is None else _LOOK_AGAIN) and self._check is not None:
            self._check()

    def fill(self, buffer: memoryview) -> int:
        """Fill all of *buffer*, or less at the end of the source; return the number of bytes."""
        filled = 0
        while filled < len(buffer) and (count := self.readinto(buffer[filled:])):
            filled += count
        return filled

    def _read(self, buffer: memoryview) -> int | None:
        if hasattr(self._file, "readinto"):
            count: int | None = self._file.readinto(buffer)
            return count
        data = self._file.read(len(buffer))
        if isinstance(data, str):
            raise TypeError("it is open as text; open it in binary mode")
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

    @property
    def rewinds(self) -> bool:
        """Whether it can be read again from its start."""
        return self.size is not None

    def rewind(self) -> None:
        """Go back to the start of a regular file."""
        try:
            self._file.seek(0)
        except OSError as error:
            raise SourceError(f"cannot read {self.name!r}: {_reason(error)}") from error


class InputBytes(InputFile):
    """Bytes at hand, as a file that can be read again."""

    def __init__(self, data: memoryview) -> None:
        super().__init__(io.BytesIO(), "bytes", size=len(data))
        self._data = data
        self._position = 0

    def readinto(self, buffer: memoryview) -> int:
        """Copy what there is space for."""
        count = min(len(buffer), len(self._data) - self._position)
        buffer[:count] = self._data[self._position : self._position + count]
        self._position += count
        return count

    def rewind(self) -> None:
        """Go back to the start."""
        self._position = 0


@contextlib.contextmanager
def open_input(source: Storable, check: Callable[[], object] | None = None) -> Iterator[InputFile]:
    """Open a path, or take a file that is open; a path is closed in the end.

    *check* is called before each read, to raise if the bytes are not wanted any more.

    Raises `SourceError` if it cannot be opened, and `TypeError` for what is neither.
    """
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read") and not hasattr(source, "readinto"):
            raise TypeError(f"a path or a binary file is needed, not {source!r}")
        yield InputFile(source, getattr(source, "name", "the stream"), check=check)
        return
    name = os.fspath(source)
    try:
        file = open(source, "rb", buffering=0)  # noqa: PTH123, SIM115 - a path of any kind
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {name!r}: {_reason(error)}") from error
    with file:
        status = os.fstat(file.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else None
        yield InputFile(file, name, size=size, check=check)


def read_beginning(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the first *most* bytes of a file, all if it has fewer; raises `SourceError` if that fails."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, min(most, _PIECE))
            # Most are smaller, and joining parts costs a copy.
            while len(data) < most and (more := os.read(descriptor, min(most - len(data), _PIECE))):
                data += more
            return data
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {os.fspath(path)!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    with contextlib.suppress(AttributeError):
        if error.strerror:  # type: ignore[attr-defined]
            return str(error.strerror)  # type: ignore[attr-defined]
    return str(error)
