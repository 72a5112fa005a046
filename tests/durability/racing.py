"""Writes the blobs whose numbers it is given; run by `test_racing.py`, in two processes at once.

`python racing.py KIND PLACE [MUTANT]`; KIND is the name of a function here. For each line of input, a
number, it writes the blob of that number, reads it back, and prints the digest of what it has read.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import mutants

from castore import B3Digest, BlobService
from castore.threads.pool import Pool
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService

SIZE = 5_000_000
"""In bytes; more than a writer keeps before it begins to store chunks."""


def folder(place: Path) -> BlobService:
    """A folder whose chunks wait for a flush."""
    store = LocalObjectStore(place, instance="files")
    return ObjectStoreBlobService(store, avg_chunk_size=16_384, pool=Pool(2))


def folder_without_flushes(place: Path) -> BlobService:
    """A folder in which each chunk has its name at once."""
    store = LocalObjectStore(place, instance="files", durability="process")
    return ObjectStoreBlobService(store, avg_chunk_size=16_384, pool=Pool(2))


def sqlite(place: Path) -> BlobService:
    """A file."""
    database = Database(place / "blobs.sqlite", instance="file", durability="process")
    return SqliteBlobService(database, avg_chunk_size=16_384, pool=Pool(2))


def content(number: int) -> bytes:
    """Return the blob of a number, which shares a part with the one before."""
    parts = (random.Random(part).randbytes(SIZE // 2) for part in (number, number + 1))
    return b"".join(parts)


def main() -> None:
    """Write what the input says."""
    if len(sys.argv) > 3:
        mutants.apply(sys.argv[3])
    with globals()[sys.argv[1]](Path(sys.argv[2])) as service:
        print("ready", flush=True)
        for line in sys.stdin:
            data = content(int(line))
            # In pieces, so that two processes are now before, now behind each other.
            with service.open_write() as writer:
                for start in range(0, len(data), 300_000):
                    writer.write(data[start : start + 300_000])
            print(B3Digest.of(service.read(B3Digest.of(data))), flush=True)


if __name__ == "__main__":
    main()
