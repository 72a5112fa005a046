"""Reading small files that somebody named, which may be anything."""

from __future__ import annotations

import errno
from pathlib import Path


def read_small(path: Path, most: int) -> bytes:
    """Return the content of a file of *most* bytes at most: a device without end must not fill the memory.

    Raises `OSError`, also for a larger one, and `ValueError` for a path with a NUL in it.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))
    return content
