"""One piece of work, done once in a process of its own: prints seconds, CPU seconds and peak memory as JSON.

Nothing that another measurement has left in memory counts, and the peak is that of this work alone. What is
needed before, such as imports and the opening of the store, is done before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from delaying import DelayingStore
from limits import Costs

import castore
from castore import B3Digest, BlobService
from castore.workers import Workers
from castore_objectstore.service import ObjectStoreBlobService

PIECE = 1 << 20
RANDOM_READ = 64 << 10
RANDOM_READS = 500
DELAY = 0.030


def opened(place: Path, durability: str, tag: str = "objectstore") -> BlobService:
    """Return a service that keeps blobs at *place*."""
    table: dict[str, Any] = {"type": tag, "durability": durability}
    if tag == "sqlite":
        table["path"] = str(place / "blobs.sqlite")
    else:
        table["object_store_url"] = f"file:{place}"
    composition = castore.Composition.from_mapping({"blobservices": {"root": table}})
    service = composition.blobs()
    service.close = composition.close  # type: ignore[method-assign]
    return service


class Stopwatch:
    """Seconds, CPU seconds, and what else is to be said of a piece of work."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.found["seconds"] = time.perf_counter() - self._wall
        self.found["cpu"] = time.process_time() - self._cpu

    def show(self, **more: Any) -> None:
        """Print what was found."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(self.found | {"peak MiB": round(peak, 1)} | more))


def put(service: BlobService, path: Path) -> tuple[Stopwatch, B3Digest]:
    """Store a file by its path."""
    with Stopwatch() as watch:
        digest = service.put_file(path)
    return watch, digest


def stream(service: BlobService, path: Path) -> tuple[Stopwatch, B3Digest]:
    """Store a file as a stream, of which nothing is known beforehand."""
    with path.open("rb", buffering=0) as file, Stopwatch() as watch:
        digest = service.put_file(file)
    return watch, digest


def get(service: BlobService, digest: B3Digest) -> Stopwatch:
    """Read a blob from start to end, and throw it away."""
    buffer = bytearray(PIECE)
    with Stopwatch() as watch:
        reader = service.open_read(digest)
        assert reader is not None
        with reader:
            while reader.readinto(buffer):
                pass
    return watch


def read_here_and_there(service: BlobService, digest: B3Digest) -> Stopwatch:
    """Read 64 KiB at random places; note how many bytes the chunks have that were touched."""
    chance = random.Random(3)
    reader = service.open_read(digest)
    chunks = service.chunks(digest)
    assert reader is not None
    assert chunks
    places = [chance.randrange(reader.size - RANDOM_READ) for _ in range(RANDOM_READS)]
    touched = start = 0
    for meta in chunks:
        touched += meta.size * sum(start - RANDOM_READ < place < start + meta.size for place in places)
        start += meta.size
    with reader, Stopwatch() as watch:
        for place in places:
            reader.seek(place)
            reader.read(RANDOM_READ)
    watch.found["touched"] = touched
    return watch


def waiting(path: Path, size: int, *, one_at_a_time: bool) -> dict[str, Any]:
    """Put and get a part of a file where each request takes a while; return the seconds of each."""
    workers = Workers(0) if one_at_a_time else Workers()
    service = ObjectStoreBlobService(DelayingStore(DELAY), workers=workers)
    with path.open("rb") as file:
        data = file.read(size)
    with service, Stopwatch() as putting:
        digest = service.write(data)
    chunks = len(service.chunks(digest) or ())
    getting = get(service, digest)
    workers.close()
    return {"put": putting.found["seconds"], "get": getting.found["seconds"], "chunks": chunks}


def put_many(service: BlobService, folder: Path) -> tuple[Stopwatch, list[str]]:
    """Store all files of a folder."""
    paths = sorted(str(path) for path in folder.rglob("*.txt"))
    with Stopwatch() as watch:
        digests = [str(outcome) for outcome in service.put_files(paths)]
    return watch, digests


def get_many(service: BlobService, digests: list[B3Digest]) -> Stopwatch:
    """Read blobs in another order, one by one."""
    random.Random(2).shuffle(digests)
    with Stopwatch() as watch:
        for digest in digests:
            service.read(digest)
    return watch


def costs(path: Path, scratch: Path) -> dict[str, float]:
    """Return what the steps cost per byte of the file."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return Costs(path, Path(folder)).per_byte()


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "work",
        choices=[
            "costs",
            "put",
            "stream",
            "get",
            "random",
            "put-many",
            "get-many",
            "waiting",
            "one-at-a-time",
        ],
    )
    parser.add_argument("place", type=Path, help="the folder of the store, or for scratch")
    parser.add_argument("what", help="a file or folder, a digest, or a file of digests")
    parser.add_argument("--durability", default="full")
    parser.add_argument("--type", default="objectstore")
    parser.add_argument("--size", type=int, default=1 << 30)
    options = parser.parse_args()
    what = Path(options.what)
    if options.work == "costs":
        print(json.dumps(costs(what, options.place)))
        return
    if options.work in ("waiting", "one-at-a-time"):
        found = waiting(what, options.size, one_at_a_time=options.work == "one-at-a-time")
        Stopwatch().show(**found)
        return
    with opened(options.place, options.durability, options.type) as service:
        # What is loaded when it is first needed is no part of the work.
        service.write(os.urandom(100))
        if options.work in ("put", "stream"):
            watch, digest = (put if options.work == "put" else stream)(service, what)
            watch.show(digest=str(digest))
        elif options.work == "put-many":
            watch, digests = put_many(service, what)
            watch.show(digests=digests)
        elif options.work == "get-many":
            digests = what.read_text().split()
            get_many(service, [B3Digest.parse(text) for text in digests]).show()
        else:
            do: Callable[[BlobService, B3Digest], Stopwatch]
            do = get if options.work == "get" else read_here_and_there
            do(service, B3Digest.parse(options.what)).show()


if __name__ == "__main__":
    sys.exit(main())
