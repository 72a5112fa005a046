"""Where things lie, on whatever file system: folders that may not be there, `~`, small files, flushing."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import AnyStr, Final, Literal, TypeAlias

import attrs

from castore import owned

LACKING: Final = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
"""What a system call fails with that a file system, or the kernel, does not have. `EIO` is a fault."""

Create: TypeAlias = Literal["parent", "path", False]
"""What is made where something is to lie: its own folder, all folders above it as well, or nothing."""

WHOLE: Final = 1 << 16
"""How many parts of a path may be made where all of it may."""


class PlaceError(OSError):
    """A place that is not there, and may not be made, or that is another one than before.

    Unlike `FileNotFoundError` it is never taken for the absence of a thing.
    """


@attrs.frozen
class Site:
    """A path of this machine, and how much of it may be made.

    Attributes:
        path: It is absolute, or as the base is.
        makes: How many of its last parts may be made.
    """

    path: Path
    makes: int


def expand_user(path: str) -> str:
    """Return *path* with a `~` or `~name` at its beginning replaced by that home.

    Raises `PlaceError` if nobody knows the home.
    """
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        name = path.partition("/")[0]
        reason = "HOME is not set, and the system knows no home" if name == "~" else "there is no such user"
        raise PlaceError(
            errno.ENOENT, f"`{name}` stands for a home, but {reason}; write the whole path", path
        )
    return expanded


def locate(base: Path, path: str | os.PathLike[str], create: Create) -> Site:
    """Return where *path* is, and how much of it may be made.

    With `parent` that is its last part. Of a path of two parts it is both, if it is relative, in *base* or in
    a home: a composition has a folder, where `./stores/near` is begun as `./near` would be.

    Arguments:
        base: Where relative paths start.
        path: It may begin with `~`.
        create: What may be made.
    """
    written = os.fspath(path)
    full = Path(absolute(base / expand_user(written)))
    if create != "parent":
        return Site(full, WHOLE if create == "path" else 0)
    return Site(full, 2 if len(_parts_below(base, written)) <= 2 else 1)


def rooted(path: str) -> str:
    """Return a path from the root on, for the system to follow: `..` is of where a link leads.

    Raises `PlaceError` if it starts from the current folder, and that is gone.
    """
    try:
        return os.path.join(os.getcwd(), path)
    except FileNotFoundError:
        if os.path.isabs(path):
            return path
        raise _no_folder(path) from None


def absolute(path: AnyStr | os.PathLike[AnyStr]) -> AnyStr:
    """Return a path from the root on; links stay as they are.

    Raises `PlaceError` if it starts from the current folder, and that is gone.
    """
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise _no_folder(path) from None


def resolved(path: AnyStr | os.PathLike[AnyStr]) -> AnyStr:
    """Return a path from the root on, without links as far as it is there.

    Raises `PlaceError` if it starts from the current folder, and that is gone.
    """
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        raise _no_folder(path) from None


def _no_folder(path: AnyStr | os.PathLike[AnyStr]) -> PlaceError:
    reason = "Relative paths start from the current folder, which cannot be found"
    return PlaceError(errno.ENOENT, reason, os.fspath(path))


def _parts_below(base: Path, written: str) -> Sequence[str]:
    """Return the names that lead to a path from where it starts; all of them and more if that is the root."""
    path = Path(written)
    if not path.is_absolute():
        parts = path.parts[1:] if written.startswith("~") else path.parts
        while parts and parts[0] == os.pardir:
            parts = parts[1:]
        return parts
    parts = path.parts
    starts = (base.parts, Path(os.path.expanduser("~")).parts)
    # By their parts: to ask a path what it is relative to takes the square of its length.
    below = [parts[len(start) :] for start in starts if parts[: len(start)] == start]
    return min(below, key=len, default=(*parts, "", ""))


class KeptFolder:
    """The folder in which something keeps what it has; it may not be there yet, or not any more.

    The absence of the folder is told from that of a thing in it. Once something was seen in it the folder is
    known, and another one in its place is noticed: by its device and number, and where the device is another
    one because it was mounted again, by the folders in it.

    Arguments:
        site: The folder, and how much of its path may be made.
        begun: Folders in it of which one is there once anything is, and that have nothing but a folder each.
    """

    def __init__(self, site: Site, *, begun: Sequence[str] = ()) -> None:
        self.folder = absolute(site.path)
        self._makes = site.makes
        self._begun = begun
        self._seen: tuple[int, int] | None = None
        self._marks: set[tuple[str, int, int]] = set()

    def require(self) -> bool:
        """Tell whether the folder is there; raise `OSError` if it should be, or is not what it was.

        False: it is yet to be made, where it may be.
        """
        known = self._seen is not None  # Before the look: another thread may be about to make the folder.
        try:
            status = os.stat(self.folder)
        except FileNotFoundError:
            self._require_room(known=known)
            return False
        return (status.st_dev, status.st_ino) == self._seen or self._know(status)

    @property
    def is_begun(self) -> bool:
        """Whether there is anything of what belongs there."""
        with contextlib.suppress(OSError):
            return self.require() and self._seen is not None
        return False

    def make(self) -> Sequence[str]:
        """Make the folder if it is not there and may be made; return those that were made, from the top.

        Raises `OSError`, also if another folder is there than before.
        """
        if self.require():
            if len(self._marks) < len(self._begun):
                self._marks = self._look()
            return ()
        missing = []
        folder = self.folder
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        missing.reverse()
        for each in missing:
            owned.make_folders(each)
        status = os.stat(self.folder)
        self._seen = (status.st_dev, status.st_ino)
        return missing

    def _require_room(self, *, known: bool) -> None:
        """Raise `OSError` unless the folder may be made."""
        if known:
            reason = "This folder was here and is gone: was it renamed, or its disk unmounted?"
            raise PlaceError(errno.ENOENT, reason, self.folder)
        folder, missing = self.folder, 0
        while True:
            try:
                status = os.stat(folder)
            except FileNotFoundError:
                if os.path.islink(folder):
                    raise dangling(folder) from None
                folder, missing = os.path.dirname(folder), missing + 1
                continue
            break
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
        if missing <= self._makes:
            return
        if self._makes:
            above = os.path.dirname(self.folder)
            reason = (
                f"There is no such folder, nor is {above} there: is a disk not mounted? Make that one, or let"
                ' all of the path be made by `create = "path"`'
            )
        else:
            reason = "There is no such folder, and none is made: is a disk not mounted?"
        raise PlaceError(errno.ENOENT, reason, self.folder)

    def _know(self, status: os.stat_result) -> bool:
        """Take a first look at the folder, or at one that is not as it was."""
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.folder)
        # Another thread may be here, too.
        identity, seen = (status.st_dev, status.st_ino), self._seen
        if identity == seen:
            return True
        found = self._look()
        if seen is None:
            if not found and self._begun:
                if not self._makes:
                    reason = "Nothing is in this folder, and nothing is begun there: is a disk not mounted?"
                    raise PlaceError(errno.ENOENT, reason, self.folder)
                return True
        elif not found & self._marks:
            reason = "Another folder is here than before: was a disk unmounted, or the folder replaced?"
            raise PlaceError(errno.ESTALE, reason, self.folder)
        self._seen, self._marks = identity, found
        return True

    def _look(self) -> set[tuple[str, int, int]]:
        """Return what tells the folder from others: the folders in it, and when each got the one within."""
        found = set()
        for name in self._begun:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(f"{self.folder}/{name}")
                found.add((name, status.st_ino, status.st_mtime_ns))
        return found


def dangling(link: str) -> PlaceError:
    """Return the error for a link that leads nowhere."""
    return PlaceError(errno.ENOENT, "This link leads nowhere: is a disk not mounted?", link)


def read_small(path: Path, most: int) -> bytes:
    """Return the content of a file of *most* bytes at most: a device without end must not fill the memory.

    Raises `OSError`, also for a larger one, and `ValueError` for a path with a NUL in it.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))
    return content


def flush_folder(folder: str | os.PathLike[str]) -> None:
    """Have the names in a folder on the disk when this returns; raises `OSError`.

    Where a folder cannot be flushed all that the machine has written is.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in LACKING:
            raise OSError(error.errno, f"fsync: {error.strerror}", os.fspath(folder)) from error
        os.sync()
    finally:
        os.close(descriptor)
