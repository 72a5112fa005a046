"""Writing a file such that it is there whole or not at all; and what is no file, as it is.

What has a name is not always a file that another may take the place of. `/dev/stdout` and `/dev/fd/3` are
what the caller has opened, and stand somewhere in it; a pipe or a device is written to; a file that is a
mount of its own can be overwritten, not replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

import attrs

from castore.cli.descriptors import write_all
from castore.cli.output import OutputError, emit
from castore.errors import CastoreError, describe
from castore.places import resolved

Write: TypeAlias = "Callable[[memoryview | bytes], Any]"
"""Writes all that it is given."""

_KEEP_SIZE: Final = 1
"""`FALLOC_FL_KEEP_SIZE` of linux/falloc.h."""

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_NOT_REPLACED: Final = (errno.EBUSY, errno.EPERM, errno.EACCES)
"""What a rename says of a mount, and of another's file in a folder such as `/tmp`."""

_STDOUT: Final = 1

_DESCRIPTOR: Final = re.compile(r"(/proc/[0-9]+)(?:/task/[0-9]+)?/fd/([0-9]+)")

_MOST_LINKS: Final = 40
"""The system follows no more of them."""

_ACCESS_LIST: Final = "system.posix_acl_access"

_LARGE: Final = 4 << 20
"""For fewer bytes it is not worth loading what sets space aside."""


def set_aside(descriptor: int, size: int) -> None:
    """Have the file system find the space for *size* bytes of a new file, without making it longer.

    Writing is faster then, and a disk that is too small is found out at once. Does nothing where that
    cannot be done; raises `OSError` if there is not enough space.
    """
    import ctypes  # noqa: PLC0415 - only large files need it

    # Not `os.posix_fallocate`: where the file system cannot do it that writes to every block instead.
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if fallocate is None:
        return
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(descriptor, _KEEP_SIZE, 0, size) and ctypes.get_errno() in _NO_SPACE:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def replacing(path: str, size: int = 0) -> Iterator[Write]:
    """Give what writes to a temporary file beside *path*, which takes its place if the block succeeds.

    Space is set aside for *size* bytes at once, where that can be done. A link is followed. The mode of a
    file that is replaced is kept; one that nobody may write to is not replaced. An open descriptor, a device
    or a pipe is written to as it is.

    Raises `OutputError` if writing fails; errors of castore in the block pass through.
    """
    if not os.path.basename(path):  # noqa: PTH119 - paths here are the user's strings
        raise OutputError(f"cannot write {path!r}: it is not the name of a file")
    try:
        with _opened(path, size) as write:
            yield write
    except CastoreError:
        raise  # Some of them are OSErrors, too.
    except OSError as error:
        raise OutputError(f"cannot write {path!r}: {error.strerror or describe(error)}") from error


def is_stdout(path: str) -> bool:
    """Tell whether *path* is a name of this process's stdout, such as `/dev/stdout`."""
    found = _find_descriptor(path)
    return found is not None and found.own and found.number == _STDOUT


def is_replaced(path: str) -> bool:
    """Tell whether `replacing` leaves what *path* names as it is, unless its block succeeds."""
    return path != "-" and _find_descriptor(path) is None and not _is_special(path)


@attrs.frozen
class _Descriptor:
    """What a path such as `/dev/fd/3` means."""

    path: str
    number: int
    own: bool
    """Whether it is one of this process."""


def _find_descriptor(path: str) -> _Descriptor | None:
    """Return the descriptor that *path* names, itself or by links; `None` for any other path."""
    # What the system says that such a link leads to is only a text: it may be gone, or have been no file.
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(path)
        here = os.path.join(resolved(folder or "."), name)  # noqa: PTH118 - as above
        if found := _DESCRIPTOR.fullmatch(here):
            return _Descriptor(path, int(found[2]), found[1] == os.path.realpath("/proc/self"))
        try:
            path = os.path.join(os.path.dirname(here), os.readlink(here))  # noqa: PTH115, PTH118, PTH120 - as above
        except (OSError, ValueError):
            return None
    return None


@contextlib.contextmanager
def _opened(path: str, size: int) -> Iterator[Write]:
    found = _find_descriptor(path)
    if found is not None and found.own:
        yield _write_to(found.number)
    elif found is not None:
        # The place where its owner stands in it is not known: at its end nothing is lost.
        with _writing(path, os.O_APPEND) as write:
            yield write
    elif _is_special(path):
        with _writing(path) as write:
            yield write
    else:
        with _beside(path, size) as write:
            yield write


def _write_to(descriptor: int) -> Write:
    """Return what writes to a descriptor that the caller has handed down."""
    if descriptor == _STDOUT:
        return emit
    # Those that this process has opened for itself, as those of a store, it would not hand down.
    if not os.get_inheritable(descriptor):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return partial(write_all, descriptor)


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - as above
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _writing(path: str, flags: int = 0) -> Iterator[Write]:
    """Write to what is there, as it is."""
    # Not by `open`, which would make a file if need be: for a pipe in `/tmp` some systems refuse that.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | flags)
    try:
        yield partial(write_all, descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _beside(path: str, size: int) -> Iterator[Write]:
    target = resolved(path)
    before = _replaceable(path, target)
    temporary = os.path.join(os.path.dirname(target), f".castore-{secrets.token_hex(8)}")  # noqa: PTH118, PTH120
    try:
        descriptor = _new(path, temporary, replaces=before is not None)
        try:
            if before is not None:
                _take_over(descriptor, target, before)
            if size >= _LARGE:
                set_aside(descriptor, size)
            yield partial(write_all, descriptor)
        finally:
            os.close(descriptor)
        try:
            os.replace(temporary, target)  # noqa: PTH105 - as above
        except OSError as error:
            if before is None or error.errno not in _NOT_REPLACED:
                raise
            _overwrite(path, target, temporary)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise


def _replaceable(path: str, target: str) -> os.stat_result | None:
    """Return what the file is that is to be replaced, `None` if there is none."""
    try:
        before = os.stat(target)  # noqa: PTH116 - as above
    except FileNotFoundError:
        return None
    # Root may write to all files: what their owner meant by a mode holds for him, too.
    if before.st_mode & 0o222 and os.access(
        target, os.W_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        return before
    if os.statvfs(target).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    raise OutputError(
        f"cannot write {path!r}: it is there, and may not be written to (mode"
        f" {stat.S_IMODE(before.st_mode):04o}); remove it, or change its mode, to have it replaced"
    )


def _new(path: str, temporary: str, *, replaces: bool) -> int:
    """Open a new file; an error names the folder, which is what is wrong then."""
    # Not by `tempfile`, whose files nobody else may read: the umask decides, as for any new file.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, 0o600 if replaces else 0o666)
    except OSError as error:
        folder = os.path.dirname(path) or "."  # noqa: PTH120 - as above
        way = "; `-o - > FILE` writes into the file that is there" if replaces else ""
        raise OutputError(
            f"cannot write {path!r}: no file can be made in the folder {folder!r}: {error.strerror}{way}"
        ) from error


def _take_over(descriptor: int, target: str, before: os.stat_result) -> None:
    """Give a new file the owner and the mode of the one that it replaces, as far as one may."""
    mode = stat.S_IMODE(before.st_mode) & 0o777
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        except OSError:
            try:
                os.fchown(descriptor, -1, before.st_gid)
            except OSError:
                mode &= ~0o070  # It was meant for another group.
    os.fchmod(descriptor, mode)
    # Most have no list; some file systems, and some systems, know none.
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(descriptor, _ACCESS_LIST, os.getxattr(target, _ACCESS_LIST))


def _overwrite(path: str, target: str, temporary: str) -> None:
    """Write what is in *temporary* into the file itself, and remove it."""
    with open(temporary, "rb", buffering=0) as source, open(target, "r+b", buffering=0) as file:  # noqa: PTH123
        try:
            while piece := source.read(_LARGE):
                write_all(file.fileno(), piece)
            file.truncate()
        except OSError as error:
            raise OutputError(
                f"cannot write {path!r}, which cannot be replaced as a whole and holds a part now:"
                f" {error.strerror}"
            ) from error
    os.unlink(temporary)  # noqa: PTH108 - as above
