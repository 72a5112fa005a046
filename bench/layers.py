"""What does a wrapper cost?

`has` over a memory service, in microseconds per layer, beside a look-up in a plain dictionary; and a large
blob read through ten wrappers, as a share of the speed of the bare store. Medians of rounds in which each
contender has its turn, because these machines' absolute speeds drift. `python bench/layers.py` prints both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

from blake3 import blake3

import castore
from castore import B3Digest, BlobService
from castore.wrapping.wrapper import WrapperService
from castore_memory.service import MemoryBlobService
from castore_wrappers.breaker.service import BreakerService
from castore_wrappers.limit.service import LimitService
from castore_wrappers.read_only.service import ReadOnlyService
from castore_wrappers.retry.service import RetryService
from castore_wrappers.verify.service import VerifyService

CALLS = 20_000
LAYERS: dict[str, Callable[[BlobService], BlobService]] = {
    "bare wrapper": WrapperService,
    "read_only": ReadOnlyService,
    "verify": VerifyService,
    "breaker": BreakerService,
    "retry": RetryService,
    "limit": lambda inner: LimitService(inner, concurrency=8),
}
TEN = ["breaker", "retry", "limit", "read_only", "bare wrapper"] * 2
PIECE = 1 << 20


def per_call(call: Callable[[B3Digest], object], digest: B3Digest) -> float:
    """Return the microseconds that one of many calls takes."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        call(digest)
    return (time.perf_counter() - begun) / CALLS * 1e6


def measure_has(runs: int) -> dict[str, float]:
    """Return the cost of `has`, in microseconds: of a dictionary and a service, and what each layer adds."""
    memory = MemoryBlobService()
    digest = memory.write(b"Hello World!")
    plain = {digest: b""}
    calls = {"dict": plain.__contains__, "memory": memory.has}
    calls.update({name: make(memory).has for name, make in LAYERS.items()})
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            rounds[name].append(per_call(call, digest))
    medians = {name: statistics.median(times) for name, times in rounds.items()}
    return {name: value - medians["memory"] if name in LAYERS else value for name, value in medians.items()}


def seconds_to_read(service: BlobService, digest: B3Digest) -> float:
    """Return how long it takes to read a blob from start to end, piece by piece."""
    buffer = bytearray(PIECE)
    begun = time.perf_counter()
    reader = service.open_read(digest)
    assert reader is not None
    with reader:
        while reader.readinto(buffer):
            pass
    return time.perf_counter() - begun


def measure_reading(size: int, runs: int) -> float:
    """Return the speed of reading through ten layers as a share of that of the store alone."""
    with tempfile.TemporaryDirectory() as folder, castore.from_url(f"objectstore+file:{folder}") as store:
        digest = store.write(blake3(b"castore bench").digest(length=size))
        stack = store
        for name in TEN:
            stack = LAYERS[name](stack)
        ratios = []
        for _ in range(runs):
            bare = seconds_to_read(store, digest)
            ratios.append(bare / seconds_to_read(stack, digest))
        return statistics.median(ratios)


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="of the blob that is read, in MiB")
    parser.add_argument("--runs", type=int, default=9, help="how many medians are taken of")
    options = parser.parse_args()
    for name, cost in measure_has(options.runs).items():
        print(f"has  {name:<14} {'+' if name in LAYERS else ' '}{cost:.2f} us")
    share = measure_reading(options.size << 20, options.runs)
    print(f"read through ten layers: {share:.2f} of the speed of the store")


if __name__ == "__main__":
    main()
