"""The files of a store in a folder: what is done with a single one, and what is said when that fails."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from castore import owned
from castore.errors import UnavailableError
from castore.places import LACKING
from castore_objectstore.object_store import NoObjectError, TooLargeError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Opening a pipe that stands where a file should must not wait for its other end."""

CANNOT: Final = LACKING | {errno.EPERM, errno.EACCES, errno.EROFS, errno.EMLINK, errno.EXDEV}
"""What a call fails with that a file system, or this user there, cannot make: there may be another way."""

_PIECE: Final = 1 << 20


class Reporting:
    """A context that turns an error of the operating system into castore's, with the name of a file.

    No `contextlib.contextmanager`, which takes three times as long: there is one for each look at a chunk.
    """

    __slots__ = ("_instance", "_path")

    def __init__(self, instance: str, path: str) -> None:
        self._instance = instance
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            if error.filename is None:
                error.filename = self._path
            raise UnavailableError(self._instance, error) from error


def remove_quietly(temporary: str) -> None:
    """Remove a file, if that can be done."""
    with contextlib.suppress(OSError):
        os.unlink(temporary)


def read_all(descriptor: int, take: Callable[[bytes], object], most: int) -> None:
    """Give *take* a regular file in pieces; raise `TooLargeError` if it has more than *most* bytes.

    Raises `NoObjectError` for anything else, of which nothing is read.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise NoObjectError("a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device")
    if status.st_size > most:
        raise TooLargeError(most)
    data = os.read(descriptor, min(status.st_size + 1, _PIECE))
    take(data)
    size = len(data)
    if size == status.st_size:
        return
    while piece := os.read(descriptor, _PIECE):
        size += len(piece)
        if size > most:
            raise TooLargeError(most)
        take(piece)


def write_all(descriptor: int, data: Buffer) -> None:
    """Write *data*, however much goes at a time."""
    written = os.write(descriptor, data)
    size = memoryview(data).nbytes
    while written < size:
        written += os.write(descriptor, memoryview(data)[written:])


_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class NewFiles:
    """Creates files, and the folders above them if need be.

    In a young store nearly every object needs a folder of its own, in an old one none does. So a folder is
    made first if the last file needed one, which spares a look for it.
    """

    def __init__(self) -> None:
        self._needs_folder = False
        """What was so the last time; only a guess, so that threads need no lock for it."""
        self._shared: owned.SharedFolders | None = None

    def for_batch(self) -> NewFiles:
        """Return one for many files at once, which looks once at each folder in which it makes others."""
        batch = NewFiles()
        batch._needs_folder = self._needs_folder
        batch._shared = owned.SharedFolders()
        return batch

    def create(self, path: str) -> int | None:
        """Create a new file; return it open for writing, `None` if there is something of that name."""
        if self._needs_folder:
            try:
                owned.make_folder(path.rpartition("/")[0], shared=self._shared)
            except OSError:
                # Mostly it is there. What else is wrong is seen again below.
                self._needs_folder = False
        while True:
            try:
                return os.open(path, _NEW, 0o666)
            except FileExistsError:
                return None
            except FileNotFoundError:
                self._needs_folder = True
                owned.make_folders(os.path.dirname(path))

    def create_beside(self, path: str) -> tuple[int, str]:
        """Create a new file `<path>#<n>`; return it open for writing."""
        number = 1
        while (descriptor := self.create(temporary := f"{path}#{number}")) is None:
            # Somebody else is writing the same object, or died while doing so.
            number += 1
        return descriptor, temporary


def set_aside(root: str, key: str) -> str:
    """Move what is under a key of the store at *root* under `quarantine`, replacing nothing there.

    Returns the key that it has then. Raises `OSError`.
    """
    path = f"{root}/{key}"
    number = 1
    while True:
        name = f"quarantine/{key}" + (f"~{number}" if number > 1 else "")
        target = f"{root}/{name}"
        owned.require_no_link(f"{root}/quarantine")
        owned.make_folders(os.path.dirname(target))
        with contextlib.suppress(FileExistsError):
            _move(path, target)
            return name
        number += 1


def _move(path: str, target: str) -> None:
    """Move a file or folder; raises `FileExistsError` if something is there."""
    try:
        # Unlike a rename, a link replaces nothing.
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        # Folders have no second name, nor has anything on some file systems.
        if error.errno not in CANNOT:
            raise OSError(error.errno, f"link: {error.strerror}", path) from error
    else:
        os.unlink(path)
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV or not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(error.errno, f"rename: {error.strerror}", path) from error
        _copy(path, target)
        os.unlink(path)


def _copy(path: str, target: str) -> None:
    """Copy a file to another file system, and to its disk: its owner will not have the other one then."""
    source = os.open(path, READ)
    try:
        descriptor = os.open(target, _NEW, 0o666)
        try:
            try:
                read_all(source, partial(write_all, descriptor), sys.maxsize)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            remove_quietly(target)
            raise
    finally:
        os.close(source)
