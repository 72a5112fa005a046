"""The same start for each measurement: nothing waits to be written, and memory is at hand.

What one measurement has written the system would else write to the disk during the next. And a virtual
machine may get memory from its host page by page, when it is first touched, and give it back when it is free
for some seconds: that takes ten times as long as to copy what is written there, and hits who comes first.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

_BLOCK = bytes(16 << 20)


def even_start(size: int) -> None:
    """Write out what waits; touch as much memory as storing and reading *size* bytes may need."""
    # In a process of its own: what a process needs, those that it starts are said to have needed, too.
    subprocess.run([sys.executable, __file__, str(size)], check=True)


def main() -> None:
    """Do it: `even.py BYTES`."""
    os.sync()
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = min(3 * int(sys.argv[1]), available // 2)
    with mmap.mmap(-1, max(size, 1)) as memory:
        while memory.tell() < size:
            memory.write(_BLOCK[: size - memory.tell()])


if __name__ == "__main__":
    main()
