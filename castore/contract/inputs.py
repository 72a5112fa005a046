"""What is to be stored: files by their paths, and streams that somebody else has opened."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Final, Protocol, TypeAlias

from castore.errors import CastoreError, SourceChangedError, SourceError

_PIECE: Final = 64 << 10

_ZEROS: Final = bytes(1 << 20)

_CHECKED: Final = 1 << 20
"""How many bytes are read at most before it is looked again whether they are still wanted."""

Storable: TypeAlias = "str | os.PathLike[str] | BinaryIO"
"""A path, or a file that is open in binary mode."""


_LOOK_AGAIN: Final = 100
"""After how many milliseconds of waiting that is looked at."""


class FileAt(os.PathLike[str]):
    """A regular file by its name in an open folder: no link is followed, whoever puts one in its way.

    Where a path is taken it is one; so it is opened only when its turn comes.

    Arguments:
        folder: Opens files in it.
        name: The name in it.
        path: What it is called in errors.
    """

    def __init__(self, folder: OpensFiles, name: bytes, path: str) -> None:
        self._folder = folder
        self._name = name
        self._path = path
        self.status: os.stat_result | None = None
        """What it was when it was opened last; of what is stored that is its size, and its mode."""

    def __fspath__(self) -> str:
        return self._path

    def open_descriptor(self) -> int:
        """Open it for reading; raise `OSError` for what is no regular file any more."""
        # A pipe would wait for somebody to write to it.
        descriptor = self._folder.open_file(self._name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            self.status = os.fstat(descriptor)
            if not stat.S_ISREG(self.status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file any more", self._path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class OpensFiles(Protocol):
    """A folder, however it is open."""

    def open_file(self, name: bytes, flags: int, /) -> int:
        """Open something in it that is no link; return the descriptor, which is the caller's to close."""
        ...


def _open_descriptor(path: str | os.PathLike[str]) -> int:
    return path.open_descriptor() if isinstance(path, FileAt) else os.open(path, os.O_RDONLY | os.O_CLOEXEC)


READINGS: Final = 4
"""How often a file is read at most, if it is changed each time."""


class Interruptible(ABC):
    """A service whose work may be given up by the one who has asked for it: an optional capability.

    Storing a file asks it between its steps, as it may read long before it calls any method of the service.
    """

    @abstractmethod
    def check(self) -> None:
        """Raise, what is no `Exception`, if the work was given up."""


class InputFile:
    """A file or stream that is read from where it stands. What goes wrong with it raises `SourceError`.

    Arguments:
        file: Where the bytes come from.
        name: What it is called in errors.
        size: Its size in bytes, if it can be read again from its start.
        check: Called before each read, to raise if the bytes are not wanted any more.
        descriptor: That of the regular file that it is; from now on it is watched for changes.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: object,
        *,
        size: int | None = None,
        check: Callable[[], object] | None = None,
        descriptor: int | None = None,
    ) -> None:
        self._file = file
        self._check = check
        self.name = name
        self.size = size
        """The size in bytes of a regular file opened by its path.

        `None` for anything else. The file may be growing, so that more or less comes of it in the end.
        """
        self.status: os.stat_result | None = None
        """What a regular file was when all of it had been read, and it was found to be unchanged."""
        self._descriptor = descriptor
        self._before = None if descriptor is None else os.fstat(descriptor)
        # Of what was opened by its path that is the start.
        self._start = file.tell() if descriptor is not None and size is None else 0
        self._taken = 0
        self._sparse = (
            _Holes(descriptor)
            if size and self._before is not None and descriptor is not None and _is_sparse(self._before)
            else None
        )

    def readinto(self, buffer: memoryview) -> int:
        """Fill *buffer* as far as one read goes; return the number of bytes, 0 at the end."""
        if self._check is not None:
            self._check()
            buffer = buffer[:_CHECKED]
        try:
            if self._sparse is not None and (passed := self._sparse.pass_over(self._taken, buffer)):
                return self._note_taken(passed)
            while (count := self._read(buffer)) is None:
                self._wait()
        except CastoreError:
            # The source is a blob of another store, and the error says what is wrong with it.
            raise
        except Exception as error:
            raise SourceError(f"cannot read {self.name!r}: {_reason(error)}") from error
        return self._note_taken(count)

    def _note_taken(self, count: int) -> int:
        self._taken += count
        if self._before is not None and self._taken > self._before.st_size - self._start:
            # One that is written to as fast as it is read would never end. (Some have no size.)
            self._require_same()
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
        if self._sparse is not None:
            buffer = buffer[: self._sparse.data_from(self._taken)]
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

    def read_at(self, position: int, count: int) -> bytes:
        """Return bytes of a regular file from *position* on, fewer at its end; it stands where it stood."""
        assert self._descriptor is not None
        data = b""
        try:
            while len(data) < count:
                more = os.pread(self._descriptor, count - len(data), position + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise SourceError(f"cannot read {self.name!r}: {_reason(error)}") from error
        return data

    @property
    def rewinds(self) -> bool:
        """Whether it can be read again from where it stood at first."""
        return self.size is not None or self._descriptor is not None

    def rewind(self) -> None:
        """Go back to where a regular file stood at first; whether it changes counts from now on."""
        try:
            self._file.seek(self._start)
            self._taken = 0
            self._before = None if self._descriptor is None else os.fstat(self._descriptor)
            if self._sparse is not None:
                self._sparse.begin_anew()
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {self.name!r}: {_reason(error)}") from error

    def require_unchanged(self) -> None:
        """Raise `SourceChangedError` if it has changed since it was opened, or rewound.

        It is asked when all is read: some of that may be of before a change then, and some of after it. Of
        what is no regular file nothing is known, and nothing asked.
        """
        self._require_same()
        if self._before is not None:
            self.status, self._before = self._before, None  # It is asked again only if it is read again.

    def _require_same(self) -> None:
        if self._before is None or self._descriptor is None:
            return
        if not _same(self._before, os.fstat(self._descriptor)):
            raise _changed(self.name)


_SETTLED_SECONDS: Final = 60.0


class _Holes:
    """The holes of a sparse file, which are zeros that need not be read.

    What is put into one meanwhile changes the times of the file, as any write does.

    Arguments:
        descriptor: That of the file, which stands where the next read begins.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget where the holes were."""
        self._hole_end = self._data_end = 0

    def pass_over(self, position: int, buffer: memoryview) -> int:
        """Fill *buffer* with zeros as far as the hole goes in which the file stands; return how many."""
        if position >= self._hole_end and position >= self._data_end:
            self._look(position)
        count = min(len(buffer), self._hole_end - position)
        if count <= 0:
            return 0
        for begin in range(0, count, len(_ZEROS)):
            end = min(begin + len(_ZEROS), count)
            buffer[begin:end] = _ZEROS[: end - begin]
        os.lseek(self._descriptor, position + count, os.SEEK_SET)
        return count

    def data_from(self, position: int) -> int | None:
        """Return how many bytes there are from *position* to the next hole; `None` if that is not known."""
        return self._data_end - position if position < self._data_end else None

    def _look(self, position: int) -> None:
        try:
            try:
                data = os.lseek(self._descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                # There is no more: it ends with a hole, or here.
                data = max(os.fstat(self._descriptor).st_size, position)
            if data > position:
                self._hole_end = data
            else:
                self._data_end = os.lseek(self._descriptor, position, os.SEEK_HOLE)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
                raise
            # At the end, or on a file system that does not tell: what there is is read.
            self._data_end = sys.maxsize
        finally:
            os.lseek(self._descriptor, position, os.SEEK_SET)


def _is_sparse(status: os.stat_result) -> bool:
    """Tell whether a file takes less of the disk than it has bytes, as with holes, or compressed.

    Of one that was written a moment ago some systems tell so before the disk has it, and take for holes what
    they have not written out: it is read.
    """
    return status.st_blocks * 512 < status.st_size and time.time() - status.st_mtime > _SETTLED_SECONDS


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


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether a file has the same bytes, as far as the system says."""
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return False
    if before.st_ctime_ns == after.st_ctime_ns:
        return True
    # Written to by somebody who has put its time back? Not if something else is new that explains it.
    return _outside(before) != _outside(after)


def _outside(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_nlink, status.st_mode, status.st_uid, status.st_gid)


def _changed(name: object) -> SourceChangedError:
    return SourceChangedError(
        f"cannot store {name!r}: it changes while it is read; store a copy of it, or a snapshot"
    )


@contextlib.contextmanager
def open_input(source: Storable, check: Callable[[], object] | None = None) -> Iterator[InputFile]:
    """Open a path, or take a file that is open; a path is closed in the end.

    *check* is called before each read, to raise if the bytes are not wanted any more.

    Raises `SourceError` if it cannot be opened, and `TypeError` for what is neither.
    """
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read") and not hasattr(source, "readinto"):
            raise _no_path(source, "a path or a binary file")
        name = getattr(source, "name", "the stream")
        yield InputFile(source, name, check=check, descriptor=_regular(source))
        return
    name = os.fsdecode(source)
    try:
        file = open(source, "rb", buffering=0, opener=_opener_of(source))  # noqa: SIM115 - a path of any kind
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {name!r}: {_reason(error)}") from error
    with file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            taken = InputFile(file, name, size=status.st_size, check=check, descriptor=file.fileno())
            yield taken
            if isinstance(source, FileAt) and taken.status is not None:
                source.status = taken.status
        else:
            yield InputFile(file, name, check=check)


def _no_path(value: object, needed: str) -> TypeError:
    # What is passed for a path might as well be the bytes to be stored, which are not to be found by chance.
    hint = "; `os.fsdecode` makes a path of bytes, `write` stores them" if isinstance(value, bytes) else ""
    return TypeError(f"{needed} is needed, not {value!r:.100}{hint}")


def _regular(file: BinaryIO) -> int | None:
    """Return the descriptor of an open file, if it is a regular one and no more than that."""
    file = getattr(file, "file", file)  # what `tempfile` gives
    raw = getattr(file, "raw", file)
    # Not of all that have a descriptor: some make one when they are asked, others unpack what is in it.
    if not isinstance(file, (io.BufferedReader, io.BufferedRandom, io.FileIO)) or not isinstance(
        raw, io.FileIO
    ):
        return None
    with contextlib.suppress(OSError, ValueError):
        descriptor = raw.fileno()
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
    return None


def read_beginning(path: str | os.PathLike[str], most: int) -> bytes | BinaryIO:
    """Return the first *most* bytes of a regular file, all if it has fewer; these are all of one moment.

    Of anything else, such as a pipe, nothing is read, as it could not be read again: it is returned as it was
    opened, and is the caller's to close.

    Raises `SourceError` if it cannot be read, `SourceChangedError` if it is changed each time.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise _no_path(path, "a path")
    try:
        descriptor = _open_descriptor(path)
        try:
            for _ in range(READINGS):
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    taken, descriptor = descriptor, -1
                    return open(path, "rb", buffering=0, opener=partial(_given, taken))
                data = _read_up_to(descriptor, most)
                # A larger one is read again, by what stores it.
                if len(data) == most or _same(before, os.fstat(descriptor)):
                    if isinstance(path, FileAt):
                        path.status = before
                    return data
                os.lseek(descriptor, 0, os.SEEK_SET)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {os.fsdecode(path)!r}: {_reason(error)}") from error
    raise _changed(os.fsdecode(path))


def _opener_of(path: str | os.PathLike[str]) -> Callable[[str, int], int] | None:
    return (lambda _, __: path.open_descriptor()) if isinstance(path, FileAt) else None


def _given(descriptor: int, _: object, __: int) -> int:
    return descriptor


def _read_up_to(descriptor: int, most: int) -> bytes:
    data = os.read(descriptor, min(most, _PIECE))
    # Most are smaller, and joining parts costs a copy.
    while len(data) < most and (more := os.read(descriptor, min(most - len(data), _PIECE))):
        data += more
    return data


def _reason(error: Exception) -> str:
    with contextlib.suppress(AttributeError):
        if error.strerror:  # type: ignore[attr-defined]
            return str(error.strerror)  # type: ignore[attr-defined]
    return str(error)
