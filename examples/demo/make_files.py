"""Make a file of readable noise, always the same, and a copy that differs in its middle."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

SIZE = 24 << 20
MIDDLE = SIZE // 2


def noise(size: int) -> bytes:
    """Return *size* bytes of lines of hex digits."""
    lines = (hashlib.sha256(b"%d" % number).hexdigest() for number in range(size // 65 + 1))
    return "\n".join(lines).encode()[:size]


def main(first: str, second: str) -> None:
    """Write both files."""
    data = noise(SIZE)
    Path(first).write_bytes(data)
    edited = data[: MIDDLE - 32] + b"\n-- a few words that were not here before --\n" + data[MIDDLE:]
    Path(second).write_bytes(edited)
    print(f"{first}: {len(data):,} bytes, {second}: {len(edited):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
