"""One piece of work, done once in a process of its own: prints seconds, CPU seconds and peak memory as JSON.

Nothing that another measurement has left in memory counts, and the peak is that of this work alone. What is
needed before, such as imports and the opening of the store, is done before the clock starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from delaying import DelayingStore
from limits import Costs
from small_blobs import service_on

from castore import B3Digest, BlobService
from castore.cli.files import replacing
from castore.threads.pool import Pool
from castore_objectstore.service import ObjectStoreBlobService

PIECE = 1 << 20
RANDOM_READ = 64 << 10
RANDOM_READS = 500
DELAY = 0.030


def peak() -> float:
    """Return the most memory that this process has had resident, in MiB."""
    # Unlike what `getrusage` says, this is without the memory of the process that has started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


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
        print(json.dumps(self.found | {"peak MiB": peak()} | more))


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


def get(service: BlobService, digest: B3Digest, output: Path | None = None) -> Stopwatch:
    """Read a blob from start to end, as `castore get` does; write it to a file, or throw it away."""
    with contextlib.ExitStack() as stack, Stopwatch() as watch:
        reader = service.open_read(digest)
        assert reader is not None
        stack.enter_context(reader)
        write = None if output is None else stack.enter_context(replacing(str(output), reader.size))
        while view := reader.read_view(PIECE):
            if write is not None:
                write(view)
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
    watch.found |= {"touched": touched, "read": RANDOM_READ * RANDOM_READS}
    return watch


def waiting(place: Path, path: Path, size: int, *, one_at_a_time: bool) -> dict[str, Any]:
    """Put and get the beginning of a file where each request takes a while; return the seconds of each."""
    workers = Pool(0) if one_at_a_time else Pool()
    service = ObjectStoreBlobService(DelayingStore(place, DELAY), pool=workers)
    with path.open("rb", buffering=0) as file, service.open_write() as writer, Stopwatch() as putting:
        for start in range(0, size, PIECE):
            writer.write(file.read(min(PIECE, size - start)))
        digest = writer.close()
    chunks = len(service.chunks(digest) or ())
    getting = get(service, digest)
    service.close()
    workers.close()
    return {"put": putting.found["seconds"], "get": getting.found["seconds"], "chunks": chunks}


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
            "get-file",
            "waiting",
            "one-at-a-time",
        ],
    )
    parser.add_argument("place", type=Path, help="the folder of the store, or for scratch")
    parser.add_argument("what", help="a file, or a digest")
    parser.add_argument("--output", type=Path, help="the file to write")
    parser.add_argument("--durability", default="full")
    parser.add_argument("--size", type=int, default=1 << 30)
    options = parser.parse_args()
    what = Path(options.what)
    if options.work == "costs":
        print(json.dumps(costs(what, options.place)))
        return
    if options.work in ("waiting", "one-at-a-time"):
        found = waiting(options.place, what, options.size, one_at_a_time=options.work == "one-at-a-time")
        Stopwatch().show(**found)
        return
    with service_on(options.place, "objectstore", options.durability) as service:
        # What is loaded when it is first needed is no part of the work.
        service.write(os.urandom(100))
        if options.work in ("put", "stream"):
            watch, digest = (put if options.work == "put" else stream)(service, what)
            watch.show(digest=str(digest))
        elif options.work == "random":
            read_here_and_there(service, B3Digest.parse(options.what)).show()
        else:
            get(service, B3Digest.parse(options.what), options.output).show()


if __name__ == "__main__":
    main()
