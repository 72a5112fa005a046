"""Writes the blobs of a list that `castore put` has printed under a folder: `restore.py DIGESTS TARGET`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import castore


def main() -> None:
    """Write each blob to its path."""
    digests, target = map(Path, sys.argv[1:])
    folders: set[str] = set()
    with castore.open() as stores:
        blobs = stores.blobs()
        for line in digests.read_text().splitlines():
            digest, _, name = line.partition("  ")
            path = f"{target}/{name.lstrip('/')}"
            folder = os.path.dirname(path)  # noqa: PTH120 - as fast as it goes, in this function
            if folder not in folders:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - as above
                folders.add(folder)
            reader = blobs.open_read(castore.B3Digest.parse(digest))
            assert reader is not None
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            while view := reader.read_view():
                os.write(descriptor, view)
            os.close(descriptor)
            reader.close()


if __name__ == "__main__":
    main()
