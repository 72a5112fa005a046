"""What does the way over a thread cost an async program?

`has`, small blobs read whole and small reads of one reader per second, and a large blob read and written at
full speed: through `castore.aio`, as a share of the same calls made directly. Medians of rounds in which each
contender has its turn. `python bench/aio.py` prints them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

from blake3 import blake3

import castore
from castore import B3Digest, BlobService
from castore.aio import AsyncBlobService

CALLS = 2_000
AT_ONCE = 32
SMALL = 4 << 10
PIECE = 64 << 10


def has(blobs: BlobService, digest: B3Digest) -> None:
    """Ask again and again."""
    for _ in range(CALLS):
        blobs.has(digest)


async def has_async(blobs: AsyncBlobService, digest: B3Digest) -> None:
    """The same, one after the other."""
    for _ in range(CALLS):
        await blobs.has(digest)


def read(blobs: BlobService, digest: B3Digest) -> None:
    """Read a small blob whole, again and again."""
    for _ in range(CALLS):
        blobs.read(digest)


async def read_async(blobs: AsyncBlobService, digest: B3Digest) -> None:
    """The same, one after the other."""
    for _ in range(CALLS):
        await blobs.read(digest)


async def read_at_once(blobs: AsyncBlobService, digest: B3Digest) -> None:
    """The same, many at a time."""

    async def some() -> None:
        for _ in range(CALLS // AT_ONCE):
            await blobs.read(digest)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def stream(blobs: BlobService, digest: B3Digest) -> None:
    """Read a large blob in pieces."""
    reader = blobs.open_read(digest)
    assert reader is not None
    with reader:
        while reader.read(PIECE):
            pass


async def stream_async(blobs: AsyncBlobService, digest: B3Digest) -> None:
    """The same."""
    reader = await blobs.open_read(digest)
    assert reader is not None
    async with reader:
        async for _ in reader.iter(PIECE):
            pass


def store(blobs: BlobService, data: bytes) -> None:
    """Write a blob that is there already, in pieces."""
    with blobs.open_write() as writer:
        for start in range(0, len(data), PIECE):
            writer.write(memoryview(data)[start : start + PIECE])


async def store_async(blobs: AsyncBlobService, data: bytes) -> None:
    """The same."""
    async with blobs.open_write() as writer:
        for start in range(0, len(data), PIECE):
            await writer.write(memoryview(data)[start : start + PIECE])


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


async def async_seconds(work: Callable[[], Awaitable[object]]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


async def measure(blobs: AsyncBlobService, large: bytes, runs: int) -> None:
    """Print what was measured."""
    sync = blobs.service
    small, whole = sync.write(large[:SMALL]), sync.write(large)
    rows = [
        ("has", CALLS, lambda: has(sync, small), lambda: has_async(blobs, small)),
        ("read 4 KiB", CALLS, lambda: read(sync, small), lambda: read_async(blobs, small)),
        ("read 4 KiB, 32 at once", CALLS, lambda: read(sync, small), lambda: read_at_once(blobs, small)),
        ("read in 64 KiB", len(large) / 1e6, lambda: stream(sync, whole), lambda: stream_async(blobs, whole)),
        ("write in 64 KiB", len(large) / 1e6, lambda: store(sync, large), lambda: store_async(blobs, large)),
    ]
    print(f"{'work':<24}{'direct':>10}{'async':>10}{'share':>8}{'per call':>12}")
    for name, count, direct, asynchronous in rows:
        times = [(seconds(direct), await async_seconds(asynchronous)) for _ in range(runs)]
        ours = statistics.median(ours for _, ours in times)
        theirs = statistics.median(theirs for theirs, _ in times)
        share = statistics.median(theirs / ours for theirs, ours in times)
        cost = f"+{(ours - theirs) / CALLS * 1e6:.0f} us" if count == CALLS else ""
        print(f"{name:<24}{count / theirs:>10.0f}{count / ours:>10.0f}{share:>8.2f}{cost:>12}")


async def main() -> None:
    """Measure over a store in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="of the large blob, in MiB")
    parser.add_argument("--runs", type=int, default=9, help="how many medians are taken of")
    options = parser.parse_args()
    large = blake3(b"castore bench").digest(length=options.size << 20)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncBlobService(castore.from_url(f"objectstore+file:{folder}")) as blobs:
            await measure(blobs, large, options.runs)


if __name__ == "__main__":
    asyncio.run(main())
