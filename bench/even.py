"""The same conditions for each measurement.

What one has written would else be written to the disk during the next. And a virtual machine may get memory
from its host page by page, when it is first touched, and give back what is free for some seconds: to touch
such a page takes ten times as long as to copy what is written there, and hits whoever comes first. So a round
begins with a cache of files that fills the memory, as on a machine that has been in use for a while, and
nothing is removed before it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PIECE = 16 << 20


def settle() -> None:
    """Write out what waits."""
    os.sync()


def fill_memory(scratch: Path, sources: Path, most: int) -> None:
    """Fill the system's cache of files, up to *most* bytes, with zeros, and then with those in *sources*."""
    # In a process of its own: what a process needs, those that it starts are said to have needed, too.
    subprocess.run([sys.executable, __file__, str(scratch), str(sources), str(most)], check=True)


def main() -> None:
    """Do it: `even.py SCRATCH SOURCES BYTES`."""
    scratch, sources, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    settle()
    hole = scratch / "hole"
    with hole.open("wb") as file:
        file.truncate(min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), most))
    _read(hole)
    for path in sources.rglob("*"):
        if path.is_file():
            # What is read twice stays longest.
            _read(path)
            _read(path)


def _read(path: Path) -> None:
    buffer = bytearray(_PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


if __name__ == "__main__":
    main()
