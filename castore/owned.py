"""What is castore's own in a folder or bucket, told by its name and form from what others keep there.

castore removes only that. What has another name, or is not of the form that castore gives it, is somebody
else's, wherever it lies, and stays as it is.

======================  ===================================================================================
`<64 hex digits>`       an object, in the folder of its first 4 digits; an entry of a queue; a lock
`<64 hex digits>#<n>`   left there by a writer that was killed: *n* is a number, or 16 hex digits
`<10 digits>/<..>`      the same in a store of packs, in a folder named by the hour in UTC
`<a random UUID>`       a mark: an empty file, locked while the program lives that has made it
`<32 hex digits>`       a mark in a bucket, of the bytes `castore`
`.<n>.castore-<8 hex>`  what an export builds in the place of *n*, or the first 200 bytes of that
======================  ===================================================================================

All digits are in lower case. castore makes no links, so a link is never its own. Only the folder of a store,
and the two at its top that have the objects, may be links, which their owner has made.

In a folder that is setgid, and that its group may write to, what others must be able to change is made so
that the group can: the folders, and the files that are locked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Mapping
from typing import Final

import attrs

from castore.digest import B3Digest

BUCKET_MARK: Final = b"castore"
"""The bytes of a mark in a bucket."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_OBJECT: Final = re.compile(r"([0-9a-f]{4})/((?:\1)[0-9a-f]{60})(#(?:[1-9][0-9]{0,8}|[0-9a-f]{16}))?")
_HOUR: Final = re.compile(r"[0-9]{10}")
_PACK: Final = re.compile(
    r"(packs|dead|claims|condemned|index)/(?:(?<!index/)([0-9]{10})/|(?<=index/))([0-9a-f]{64})(#(?:[1-9][0-9]{0,8}|[0-9a-f]{16}))?"
)
_SOME_DIGESTS: Final = re.compile(r"[0-9a-f]{4}")
_MARK: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_BUCKET_MARK: Final = re.compile(r"[0-9a-f]{32}")

_BUILT: Final = re.compile(rb"\.(.{1,200})\.castore-[0-9a-f]{8}", re.DOTALL)

_LOCK: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_WRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


@attrs.frozen
class OwnObject:
    """What a name below a folder of objects says.

    Attributes:
        digest: That of the object.
        left_over: Whether it is what a writer of the object has left that was killed, or is at it.
    """

    digest: B3Digest
    left_over: bool = False


def object_at(path: str) -> OwnObject | None:
    """Return what is at *path* in a folder of objects, as `af13/af13...`; `None` if it is not castore's."""
    match = _OBJECT.fullmatch(path)
    return None if match is None else OwnObject(B3Digest(bytes.fromhex(match[2])), match[3] is not None)


@attrs.frozen
class OwnPack:
    """What a name in a store of packs says.

    Attributes:
        kind: `packs`, `dead`, `claims`, `condemned` or `index`.
        hour: When it was put, as `2026113022` in UTC; empty where that is not said.
        digest: That of its bytes.
        left_over: Whether it is what a writer of it has left that was killed, or is at it.
    """

    kind: str
    hour: str
    digest: B3Digest
    left_over: bool = False


def packed_at(key: str) -> OwnPack | None:
    """Return what is at *key* in a store of packs, as `packs/2026113022/af13...`; `None` if nothing of it."""
    match = _PACK.fullmatch(key)
    if match is None:
        return None
    kind, hour, name, left_over = match.groups()
    return OwnPack(kind, hour or "", B3Digest(bytes.fromhex(name)), left_over is not None)


def is_hour(name: str) -> bool:
    """Tell whether a folder in a store of packs is named by an hour."""
    return _HOUR.fullmatch(name) is not None


def has_some_digests(name: str) -> bool:
    """Tell whether a folder of objects has those of some digests in a folder of this name."""
    return _SOME_DIGESTS.fullmatch(name) is not None


def digest_named(name: str) -> B3Digest | None:
    """Return the digest that a file is named by as castore names it; `None` for any other name."""
    return B3Digest(bytes.fromhex(name)) if _DIGEST.fullmatch(name) else None


def is_mark(name: str) -> bool:
    """Tell whether a file has the name of a mark."""
    return _MARK.fullmatch(name) is not None


def is_bucket_mark(name: str) -> bool:
    """Tell whether an object has the name of a mark in a bucket."""
    return _BUCKET_MARK.fullmatch(name) is not None


def name_while_built(name: bytes, digits: str) -> bytes:
    """Return what something is called until all of it is there, in the folder where it will be *name*."""
    return b".%s.castore-%s" % (name[:200], digits.encode())


def named_while_built(name: bytes) -> bytes | None:
    """Return the first 200 bytes of what something that is built will be called; `None` for other names."""
    match = _BUILT.fullmatch(name)
    return None if match is None else match[1]


def is_empty_file(status: os.stat_result) -> bool:
    """Tell whether something has the form of a mark, a lock or an entry of a queue: a file of no bytes."""
    return stat.S_ISREG(status.st_mode) and not status.st_size


def require_no_link(folder: str | os.PathLike[str]) -> None:
    """Raise `OSError` if a folder in which castore makes and removes files is a link."""
    if os.path.islink(folder):
        reason = "This is a link, and castore follows none to a folder of its own; make it a folder"
        raise OSError(errno.ELOOP, reason, os.fspath(folder))


def require_no_links_above(root: str, key: str) -> None:
    """Raise `OSError` if a folder between that of a store and what is under *key* in it is a link."""
    folder = root
    for name in key.split("/")[:-1]:
        folder = f"{folder}/{name}"
        require_no_link(folder)


def require_no_links_beside(database: str | os.PathLike[str]) -> None:
    """Raise `OSError` if a file that SQLite keeps beside a database is a link: SQLite would remove it."""
    real = os.path.realpath(database)
    for end in ("-wal", "-shm", "-journal"):
        if os.path.islink(f"{real}{end}"):
            raise OSError(
                errno.ELOOP, "This is a link, where SQLite keeps a file of its own; move it", real + end
            )


def open_lock(path: str | os.PathLike[str], *, create: bool = True) -> int:
    """Open a file to lock, no link; make it, for all who may use the folder, if it is not there.

    One that may only be read is opened for that: it can be locked as well. Raises `OSError`.
    """
    while True:
        try:
            return os.open(path, _LOCK | os.O_RDWR)
        except FileNotFoundError:
            if not create:
                raise
        except OSError as error:
            if error.errno == errno.ELOOP:
                reason = "This is a link, where castore keeps a file of its own; move it"
                raise OSError(errno.ELOOP, reason, os.fspath(path)) from error
            if error.errno not in _NOT_WRITABLE:
                raise
            return os.open(path, _LOCK | os.O_RDONLY)
        # If somebody else is faster theirs is opened.
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, _LOCK | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            _share_file(descriptor, path)
            return descriptor


def make_database_file(path: str | os.PathLike[str]) -> None:
    """Make an empty file for SQLite, for all who may use the folder; raises `FileExistsError` if it is there.

    It is not opened: to close it would end the locks that SQLite has on it by then in another thread.
    """
    try:
        os.mknod(path, 0o666 | stat.S_IFREG)
    except FileExistsError:
        raise
    except OSError:
        # Not all file systems have that.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    _share_file(path, path)


def _share_file(file: int | str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Let the group change a file that was just made, if it may change what is in its folder."""
    with contextlib.suppress(OSError):
        if _is_shared(os.path.dirname(path)):
            mode = stat.S_IMODE(os.stat(file).st_mode)
            if mode | 0o060 != mode:
                os.chmod(file, mode | 0o060)


def make_folder(path: str, *, shared: Mapping[str, bool] | None = None) -> None:
    """Make a folder, for all who may change what is in the one above; raises `OSError` as `os.mkdir` does.

    *shared* is what is known of the folders above, as a `SharedFolders` that is asked for many of them.
    """
    os.mkdir(path)
    above = os.path.dirname(path)
    with contextlib.suppress(OSError):
        if _is_shared(above) if shared is None else shared[above]:
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if mode | 0o2070 != mode:
                os.chmod(path, mode | 0o2070)


def make_folders(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it that are not there; raises `OSError` if there is something else."""
    path = os.fspath(path)
    try:
        make_folder(path)
    except FileNotFoundError:
        above = os.path.dirname(path)
        if above in ("", path):
            raise
        make_folders(above)
        make_folders(path)
    except FileExistsError:
        # A link to nowhere is there, too.
        if not os.path.isdir(path):
            raise


class SharedFolders(dict[str, bool]):
    """Whether what is made in a folder is for its group, too; each folder is looked at once."""

    def __missing__(self, folder: str) -> bool:
        return self.setdefault(folder, _is_shared(folder))


def _is_shared(folder: str) -> bool:
    """Tell whether what is made in a folder is for its group, too: setgid, and the group may write."""
    mode = os.stat(folder or ".").st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
