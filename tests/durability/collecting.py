"""A writer, or a collector, of the test of collections beside writers; run as `collecting.py LAYOUT ROLE`.

A writer puts blobs from a small set of contents again and again, so that it finds chunks that are garbage by
then. Of what it has put it keeps some as its roots, in a file that the collector reads, and forgets others.

A blob counts as put if it became a root within the grace time; what takes longer, with all these processes
on few cores, nobody has promised to keep. A long blob is leased: it may take any time before it is closed.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from castore import B3Digest, BlobService
from castore.chunks import pipeline
from castore.chunks import writer as chunked_writer
from castore.threads.pool import Pool
from castore.upkeep import collect
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.looks import OBJECTS, PACKS
from castore_objectstore.packed.service import SweepablePacks
from castore_objectstore.service import ObjectStoreBlobService

GRACE: Final = 1.0
FRESH: Final = 0.3
"""Seconds; all of this is in fast motion."""

_CONTENTS: Final = 400
_KEPT: Final = 6
_SLOW_WRITERS: Final = 2


def service_of(
    folder: Path, durability: Any = "process", *, layout: str = "objectstore"
) -> ObjectStoreBlobService | SweepablePacks:
    """The store of the test, with small chunks."""
    packed = layout == "packed"
    store = LocalObjectStore(
        folder / "store",
        instance="store",
        durability=durability,
        fresh_seconds=FRESH,
        layout=PACKS if packed else OBJECTS,
    )
    if packed:
        return SweepablePacks(
            store, instance="store", pack_size=64 << 10, avg_chunk_size=512, pool=Pool(0), max_waste=0.1
        )
    return ObjectStoreBlobService(store, avg_chunk_size=512, pool=Pool(0))


def content(number: int) -> bytes:
    """One of the blobs; neighbours share most of their chunks, so garbage is shared with what stays."""
    base = random.Random(number // 4).randbytes(3000 if number % 3 else 30_000)
    return base + random.Random(1000 + number).randbytes(200)


def roots_in(folder: Path) -> Iterator[B3Digest]:
    """Yield the roots of all writers."""
    for path in folder.glob("roots-*"):
        yield from map(B3Digest.parse, path.read_text().split())


def write(folder: Path, layout: str, number: int, seconds: float) -> None:
    """Put blobs until the time is over; the roots are in a file of this writer's own."""
    service = service_of(folder, "process" if number % 2 else "full", layout=layout)
    chance = random.Random(f"{number} {time.time()}")
    roots: list[B3Digest] = []
    counts = {"put": 0, "too slow": 0, "long": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = content(chance.randrange(_CONTENTS))
        digest, safe_from = _put(service, data, chance, counts, slow=number < _SLOW_WRITERS)
        kept = roots[-_KEPT:] if chance.random() < 0.7 else chance.sample(roots, len(roots) // 2)
        roots = [*kept, digest]
        _publish(folder / f"roots-{number}", roots)
        if time.time() - safe_from > GRACE * 0.9:
            roots.remove(digest)
            counts["too slow"] += 1
            _publish(folder / f"roots-{number}", roots)
            continue
        counts["put"] += 1
        for root in (digest, chance.choice(roots)):
            service.read(root)
        if chance.random() < 0.02:
            time.sleep(chance.random() * GRACE)
    print(counts)


def _put(
    service: BlobService,
    data: bytes,
    chance: random.Random,
    counts: dict[str, int],
    *,
    slow: bool,
) -> tuple[B3Digest, float]:
    """Store a blob; return its digest, and from when on it must become a root within the grace time."""
    started = time.time()
    with service.open_write() as writer:
        for start in range(0, len(data), 2500):
            writer.write(data[start : start + 2500])
            if slow and len(data) > 10_000 and chance.random() < 0.01:
                # The lease keeps what is there already.
                time.sleep(1.5 * (GRACE + FRESH))
                counts["long"] += 1
        if len(data) > 10_000:
            started = time.time()
        return writer.close(), started


def _publish(path: Path, roots: list[B3Digest]) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_text("\n".join(map(str, roots)))
    beside.replace(path)


def collect_all(folder: Path, layout: str, seconds: float) -> None:
    """Collect again and again until the time is over."""
    service = service_of(folder, layout=layout)
    counts = {"runs": 0, "index": 0, "chunk": 0, "residue": 0, "held": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = collect(
            service, roots_in(folder), grace_seconds=GRACE, no_roots=True, ignore_missing_roots=True
        )
        counts["runs"] += 1
        counts["held"] += found.leased_since is not None
        for kind, amount in found.gone.items():
            counts[kind] += amount.count
    print(counts)


if __name__ == "__main__":
    # More than a few kilobytes are a long blob.
    pipeline._SEGMENT_SIZE = 1  # type: ignore[misc]
    chunked_writer._FIRST_SIZE = 100  # type: ignore[misc]
    layout, role, folder, *rest = sys.argv[1:]
    if role == "write":
        write(Path(folder), layout, int(rest[0]), float(rest[1]))
    else:
        collect_all(Path(folder), layout, float(rest[0]))
