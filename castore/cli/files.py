"""Writing a file such that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

from castore.cli.output import OutputError
from castore.errors import CastoreError, describe


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a temporary file beside *path*, which takes its place if the block succeeds, and goes otherwise.

    A link is followed. What is no regular file, such as a device or a pipe, is written to as it is.
    Raises `OutputError` if writing fails; errors of castore in the block pass through.
    """
    try:
        with _open_special(path) if _is_special(path) else _open_beside(os.path.realpath(path)) as file:
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
def _open_beside(target: str) -> Iterator[BinaryIO]:
    temporary = os.path.join(os.path.dirname(target), f".castore-{secrets.token_hex(8)}")  # noqa: PTH118, PTH120
    try:
        # Not by `tempfile`, whose files nobody else may read: the umask decides, as for any new file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o666), "wb", buffering=0) as file:
            yield file
        os.replace(temporary, target)  # noqa: PTH105 - as above
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise
