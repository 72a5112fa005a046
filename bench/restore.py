"""Writes the blobs of a list that `castore put` has printed under a folder: `restore.py DIGESTS TARGET`."""

from __future__ import annotations

import sys
from pathlib import Path

import castore


def main() -> None:
    """Write each blob to its path."""
    digests, target = map(Path, sys.argv[1:])
    folders: set[Path] = set()
    with castore.open() as stores:
        blobs = stores.blobs()
        for line in digests.read_text().splitlines():
            digest, _, name = line.partition("  ")
            path = target / name.lstrip("/")
            if path.parent not in folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(path.parent)
            reader = blobs.open_read(castore.B3Digest.parse(digest))
            assert reader is not None
            with reader, path.open("wb", buffering=0) as file:
                while view := reader.read_view():
                    file.write(view)


if __name__ == "__main__":
    main()
