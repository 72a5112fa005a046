"""Folders of the file system, entered such that no link leads out of them.

Each is opened from within the one above it, and never by a path. However deep a tree is, and however many of
its folders are of interest, only so many are open at a time: the others are closed, and opened again in the
same way when they are needed, if they are still the same ones.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Final, TypeAlias

from castore.errors import SourceError
from castore.places import LACKING, PlaceError, absolute

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_MOST_OPEN: Final = 128

_NODUMP: Final = 0x40
_GET_ATTRIBUTES: Final = 0x80086601 if sys.maxsize > 1 << 32 else 0x80046601
"""`FS_NODUMP_FL` and `FS_IOC_GETFLAGS` of Linux; see ioctl_iflags(2)."""


MetEntry: TypeAlias = "tuple[bytes, int, os.stat_result | None]"
"""An entry of a folder: its name, its kind, and of what is no folder its status."""


def source_path(source: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    """Return the whole path of what is to be read; raise `SourceError` if the current folder is gone."""
    written = os.fsencode(source)
    try:
        return absolute(written)
    except PlaceError as error:
        raise SourceError(f"cannot read {os.fsdecode(written)!r}: {error.strerror}") from error


class Folder:
    """A folder: the one that an `OpenTree` has opened, or one somewhere within that."""

    def __init__(self, opened: _Opened, above: Folder | None, name: bytes, descriptor: int) -> None:
        self._opened = opened
        self._above = above
        self._name = name
        status = os.fstat(descriptor)
        self._identity = status.st_dev, status.st_ino
        opened.keep(self, descriptor)

    def enter(self, name: bytes) -> Folder:
        """Return a folder in this one; raise `OSError` for a link, or anything else."""
        with self._opened.lock:
            return Folder(self._opened, self, name, os.open(name, _FLAGS, dir_fd=self._descriptor()))

    def make(self, name: bytes, mode: int) -> Folder:
        """Make a folder in this one; raise `FileExistsError` if there is something."""
        with self._opened.lock:
            os.mkdir(name, mode, dir_fd=self._descriptor())
            return self.enter(name)

    def open_file(self, name: bytes, flags: int, mode: int = 0) -> int:
        """Open something in this folder that is no link; return the descriptor."""
        with self._opened.lock:
            every = flags | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, every, mode, dir_fd=self._descriptor())

    def head(self, name: bytes, most: int) -> bytes | None:
        """Return the first bytes of a regular file, *most* at most; `None` if there is none."""
        try:
            descriptor = self.open_file(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return None  # A link, or a socket.
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = b""
            while len(data) < most and (more := os.read(descriptor, most - len(data))):
                data += more
            return data
        finally:
            os.close(descriptor)

    def entries(self) -> list[tuple[bytes, int]]:
        """Return the names in it, in bytewise order, each with its kind, as `stat.S_IFMT` tells it.

        What goes away meanwhile counts as a file.
        """
        with self._opened.lock:
            descriptor = self._descriptor()
            with os.scandir(descriptor) as entries:
                found = [(os.fsencode(entry.name), entry) for entry in entries]
            found.sort(key=_first)
            return [(name, _kind_of(descriptor, entry)) for name, entry in found]

    def statuses(self) -> list[MetEntry]:
        """Return the same, with the status of each file; that of what goes away meanwhile is `None`."""
        with self._opened.lock:
            descriptor = self._descriptor()
            with os.scandir(descriptor) as entries:
                found = [(os.fsencode(entry.name), *_status_of(entry)) for entry in entries]
            found.sort(key=_first)
            return found

    def kind_of(self, name: bytes) -> int:
        """Return the kind of an entry; a link is one."""
        with self._opened.lock:
            return stat.S_IFMT(os.stat(name, dir_fd=self._descriptor(), follow_symlinks=False).st_mode)

    @property
    def device(self) -> int:
        """The number of the file system that it is on."""
        return self._identity[0]

    def size_of(self, name: bytes) -> int:
        """Return how many bytes a file in it has."""
        with self._opened.lock:
            return os.stat(name, dir_fd=self._descriptor(), follow_symlinks=False).st_size

    def is_nodump(self, name: bytes, kind: int) -> bool:
        """Tell whether a file or folder has the attribute `d`; where there are no attributes none has."""
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            return False
        descriptor = self.open_file(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            flags = bytearray(8)
            fcntl.ioctl(descriptor, _GET_ATTRIBUTES, flags)
            return bool(int.from_bytes(flags[:4], sys.byteorder) & _NODUMP)
        except OSError as error:
            if error.errno in LACKING:
                return False
            raise
        finally:
            os.close(descriptor)

    def status(self, name: bytes) -> os.stat_result:
        """Return what the system knows of an entry; a link is one."""
        with self._opened.lock:
            return os.stat(name, dir_fd=self._descriptor(), follow_symlinks=False)

    def has(self, name: bytes) -> bool:
        """Tell whether there is anything by a name."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def read_link(self, name: bytes) -> bytes:
        """Return the target of a link."""
        with self._opened.lock:
            return os.readlink(name, dir_fd=self._descriptor())

    def make_link(self, name: bytes, target: bytes) -> None:
        """Make a link; raise `FileExistsError` if there is something."""
        with self._opened.lock:
            os.symlink(target, name, dir_fd=self._descriptor())

    def rename(self, old: bytes, new: bytes) -> None:
        """Give an entry another name here; a file or link of that name is replaced, not followed."""
        with self._opened.lock:
            descriptor = self._descriptor()
            os.rename(old, new, src_dir_fd=descriptor, dst_dir_fd=descriptor)

    def was_renamed(self, name: bytes) -> None:
        """Take note that this folder has another name by now."""
        with self._opened.lock:
            self._name = name

    def link_file(self, name: bytes, folder: Folder, other: bytes) -> None:
        """Give a file in *folder*, of the same tree, a name in this one as well; raise `FileExistsError`."""
        with self._opened.lock:
            # The second may close the first, if that is the one that was not used longest.
            source = os.dup(folder._descriptor())
            try:
                os.link(other, name, src_dir_fd=source, dst_dir_fd=self._descriptor(), follow_symlinks=False)
            finally:
                os.close(source)

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """Give its descriptor, for a moment in which no other folder of the tree is used."""
        with self._opened.lock:
            yield self._descriptor()

    def flush(self) -> None:
        """Have the names in it written to the disk."""
        with self._opened.lock:
            os.fsync(self._descriptor())

    def remove(self, name: bytes) -> None:
        """Remove a file or link."""
        with self._opened.lock:
            os.unlink(name, dir_fd=self._descriptor())

    def remove_folder(self, name: bytes) -> None:
        """Remove an empty folder."""
        with self._opened.lock:
            os.rmdir(name, dir_fd=self._descriptor())

    def change_mode(self, *, keep: int, add: int = 0) -> None:
        """Take from the mode of this folder what is not in *keep*, and add some."""
        with self._opened.lock:
            descriptor = self._descriptor()
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & keep | add)

    def make_usable(self) -> None:
        """Let the owner of this folder do all with it."""
        with self._opened.lock:
            descriptor = self._descriptor()
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                os.fchmod(descriptor, mode | stat.S_IRWXU)

    def _descriptor(self) -> int:
        """Return its descriptor, which is its own as long as the lock is held."""
        closed: list[Folder] = []
        folder: Folder = self
        while (descriptor := self._opened.find(folder)) is None:
            closed.append(folder)
            if folder._above is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            folder = folder._above
        for each in reversed(closed):
            descriptor = each._open_again(descriptor)  # noqa: SLF001 - of another one
        return descriptor

    def _open_again(self, above: int) -> int:
        descriptor = os.open(self._name, _FLAGS, dir_fd=above)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != self._identity:
            os.close(descriptor)
            raise OSError(errno.ESTALE, "it was moved or replaced meanwhile", os.fsdecode(self._name))
        self._opened.keep(self, descriptor)
        return descriptor


class _Opened:
    """The descriptors of those that are open. The first is never closed before the end."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._descriptors: OrderedDict[int, tuple[Folder, int]] = OrderedDict()
        self._first: tuple[Folder, int] | None = None

    def keep(self, folder: Folder, descriptor: int) -> None:
        if self._first is None:
            self._first = (folder, descriptor)
            return
        self._descriptors[id(folder)] = (folder, descriptor)
        while len(self._descriptors) > _MOST_OPEN:
            _, (_, oldest) = self._descriptors.popitem(last=False)
            os.close(oldest)

    def find(self, folder: Folder) -> int | None:
        if self._first is not None and self._first[0] is folder:
            return self._first[1]
        found = self._descriptors.get(id(folder))
        if found is None:
            return None
        self._descriptors.move_to_end(id(folder))
        return found[1]

    def close(self) -> None:
        with self.lock:
            descriptors = [descriptor for _, descriptor in self._descriptors.values()]
            if self._first is not None:
                descriptors.append(self._first[1])
            self._descriptors.clear()
            self._first = None
            for descriptor in descriptors:
                os.close(descriptor)


class OpenTree:
    """A context in which a folder, and those within it, can be used."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._opened = _Opened()

    def __enter__(self) -> Folder:
        """Open it: links above it are followed, it must be none itself; raise `OSError`."""
        return Folder(self._opened, None, b"", os.open(self._path, _FLAGS))

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def make_read_only(root: Folder) -> None:
    """Take the right to write from a folder, and from those within it."""
    for folder, _, _ in leaves_first(root):
        folder.change_mode(keep=0o555)


def flush_folders(root: Folder) -> None:
    """Have the names in a folder, and in those within it, written to the disk."""
    for folder, _, _ in leaves_first(root):
        folder.flush()


def remove_within(above: Folder, name: bytes) -> None:
    """Remove a folder in another one, and all that is in it; raise `OSError` if that cannot be."""
    root = above.enter(name)
    root.make_usable()
    for folder, outer, inner in leaves_first(root, entering=Folder.make_usable):
        for other, kind in folder.entries():
            if kind != stat.S_IFDIR:
                folder.remove(other)
        if outer is not None:
            outer.remove_folder(inner)
    above.remove_folder(name)


def leaves_first(
    root: Folder, *, entering: Callable[[Folder], object] = lambda _: None
) -> Iterator[tuple[Folder, Folder | None, bytes]]:
    """Yield a folder and those within it, each after those in it, with the one above it and its name there.

    *entering* is called with each one but the first before what is in it is listed. Without recursion: a tree
    may be deeper than that may go.
    """
    waiting: list[tuple[Folder, Folder | None, bytes, Iterator[bytes]]] = [
        (root, None, b"", _folders_in(root))
    ]
    while waiting:
        folder, above, name, names = waiting[-1]
        below = next(names, None)
        if below is None:
            waiting.pop()
            yield folder, above, name
        else:
            entered = folder.enter(below)
            entering(entered)
            waiting.append((entered, folder, below, _folders_in(entered)))


def _folders_in(folder: Folder) -> Iterator[bytes]:
    return iter([name for name, kind in folder.entries() if kind == stat.S_IFDIR])


_first: Final = itemgetter(0)


def _status_of(entry: os.DirEntry[str]) -> tuple[int, os.stat_result | None]:
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR, None
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return stat.S_IFREG, None
    return status.st_mode & 0o170000, status


def _kind_of(descriptor: int, entry: os.DirEntry[str]) -> int:
    # As a rule the system has told it with the name.
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    try:
        return stat.S_IFMT(os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False).st_mode)
    except OSError:
        return stat.S_IFREG
