"""Files and folders of whatever file system they are on: small ones that somebody named, and flushing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

LACKING: Final = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
"""What a system call fails with that a file system, or the kernel, does not have. `EIO` is a fault."""


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
