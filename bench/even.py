"""The same conditions for each measurement.

What one has written would else be written to the disk during the next. And a virtual machine may get memory
from its host page by page, when it is first touched, and give back what is free for some seconds: to touch
such a page takes ten times as long as to copy what is written there, and hits whoever comes first. So a round
begins with a cache of files that fills the memory, as on a machine that has been in use for a while, and
nothing is removed before it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_BUFFER = bytearray(16 << 20)


def settle() -> None:
    """Write out what waits."""
    os.sync()


def fill_memory(scratch: Path, sources: Iterable[Path], most: int) -> None:
    """Fill the system's cache of files, up to *most* bytes, with zeros, and then with *sources*."""
    settle()
    hole = scratch / "hole"
    with hole.open("wb") as file:
        file.truncate(min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), most))
    _read(hole)
    for path in sources:
        # What is read twice stays longest.
        _read(path)
        _read(path)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.readinto(_BUFFER):
            pass
