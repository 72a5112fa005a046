"""Writing a file such that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

from castore.cli.output import OutputError
from castore.errors import CastoreError, describe

_KEEP_SIZE: Final = 1
"""`FALLOC_FL_KEEP_SIZE` of linux/falloc.h."""

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

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
def replacing(path: str, size: int = 0) -> Iterator[BinaryIO]:
    """Open a temporary file beside *path*, which takes its place if the block succeeds, and goes otherwise.

    Space is set aside for *size* bytes at once, where that can be done. A link is followed. What is no
    regular file, such as a device or a pipe, is written to as it is.

    Raises `OutputError` if writing fails; errors of castore in the block pass through.
    """
    try:
        with _open_special(path) if _is_special(path) else _open_beside(os.path.realpath(path), size) as file:
            yield file
    except CastoreError:
        raise  # Some of them are OSErrors, too.
    except OSError as error:
        raise OutputError(f"cannot write {path!r}: {error.strerror or describe(error)}") from error


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - paths here are the user's strings
    except FileNotFoundError:
        return False


def _open_special(path: str) -> BinaryIO:
    return open(path, "wb", buffering=0)  # noqa: PTH123 - as above


@contextlib.contextmanager
def _open_beside(target: str, size: int) -> Iterator[BinaryIO]:
    temporary = os.path.join(os.path.dirname(target), f".castore-{secrets.token_hex(8)}")  # noqa: PTH118, PTH120
    try:
        # Not by `tempfile`, whose files nobody else may read: the umask decides, as for any new file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o666), "wb", buffering=0) as file:
            if size >= _LARGE:
                set_aside(file.fileno(), size)
            yield file
        os.replace(temporary, target)  # noqa: PTH105 - as above
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise
