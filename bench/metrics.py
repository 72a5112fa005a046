"""What does it cost that every instance is measured?

What each operation over a memory service takes more in microseconds, on one thread and on as many as there
are cores; and a large blob read through ten wrappers and through the bare store, each instance measured, as a
share of the speed of the store that is not. Speed is by the time of the processor, in all threads, as
measuring never waits. The fastest of many rounds in which each contender has its turn, because other programs
only ever make a round slower. `python bench/metrics.py` prints both.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

import castore
from castore import B3Digest, BlobService, Composition
from castore.contract.capabilities import ChunkStore
from castore.metrics.meters import Meters
from castore.metrics.shell import measured
from castore_memory.service import MemoryBlobService

sys.path.insert(0, str(Path(__file__).parent))
from layers import seconds_to_read

CALLS = 5000
PIECE = b"Hello World!"
DIGEST = B3Digest.of(PIECE)
OF_SERVICE: Mapping[str, Callable[[BlobService], Callable[[], object]]] = {
    "has": lambda service: lambda: service.has(DIGEST),
    "chunks": lambda service: lambda: service.chunks(DIGEST),
    "missing": lambda service: lambda: service.missing([DIGEST]),
    "open_read": lambda service: lambda: service.open_read(DIGEST),
    "read": lambda service: lambda: service.read(DIGEST),
    "write": lambda service: lambda: service.write(PIECE),
    "get_chunks": lambda service: _of_chunks(service, lambda store: store.get_chunks({DIGEST: None})),
    "put_chunks": lambda service: _of_chunks(service, lambda store: store.put_chunks({DIGEST: PIECE})),
}
LAYERS: list[dict[str, Any]] = [
    {"type": "breaker"},
    {"type": "limit", "concurrency": 8},
    {"type": "read_only"},
]
TEN = [{"type": "retry"}, *LAYERS * 3]


def _of_chunks(service: BlobService, call: Callable[[ChunkStore], object]) -> Callable[[], object]:
    store = service.capability(ChunkStore)
    assert store is not None
    return lambda: call(store)


def _writing(service: BlobService) -> Callable[[], object]:
    writer = service.open_write()
    return lambda: writer.write(PIECE)


CALLED = {**OF_SERVICE, "writer.write": _writing}


def per_call(call: Callable[[], object]) -> float:
    """Return the microseconds that one of many calls takes."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begun) / CALLS * 1e6


def measure_calls(runs: int) -> dict[str, tuple[float, float]]:
    """Return what each operation takes without being measured, and what measuring adds, in microseconds."""
    costs = {}
    for name, make in CALLED.items():
        memory = MemoryBlobService()
        memory.write(PIECE)
        plain, shell = make(memory), make(measured(memory, Meters()))
        rounds = [(per_call(plain), per_call(shell)) for _ in range(runs)]
        least = [min(times) for times in zip(*rounds, strict=True)]
        costs[name] = (least[0], least[1] - least[0])
    return costs


def measure_threads(runs: int) -> float:
    """Return what measuring adds to `has`, in microseconds of all cores, if one thread per core asks."""
    memory = MemoryBlobService()
    services = [memory, measured(memory, Meters())]

    def together(service: BlobService) -> float:
        threads = [
            threading.Thread(target=per_call, args=(lambda: service.has(DIGEST),))
            for _ in range(os.cpu_count() or 1)
        ]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - begun) / CALLS / len(threads) * 1e6

    rounds = [tuple(together(service) for service in services) for _ in range(runs)]
    plain, shell = (min(times) for times in zip(*rounds, strict=True))
    return shell - plain


def work_to_read(service: BlobService, digest: B3Digest) -> float:
    """Return the seconds of the processor that reading a blob takes, with those of all threads."""
    begun = time.process_time()
    seconds_to_read(service, digest)
    return time.process_time() - begun


def measure_reading(size: int, runs: int) -> dict[str, float]:
    """Return the work of reading from the store alone as a share of that through each of some stacks."""
    with tempfile.TemporaryDirectory() as folder:
        tables: dict[str, Any] = {
            f"layer{number}": {**table, "inner": f"&layer{number + 1}"} for number, table in enumerate(TEN)
        }
        tables["layer10"] = {"type": "objectstore", "object_store_url": f"file:{folder}"}
        tables["root"] = {"type": "read_only", "inner": "&layer0"}
        with castore.from_url(f"objectstore+file:{folder}") as store:
            digest = store.write(blake3(b"castore bench").digest(length=size))
        contenders = {
            (measures, name): Composition.from_mapping({"blobservices": tables}, metrics=measures).blobs(name)
            for measures in (False, True)
            for name in ("layer10", "layer0")
        }
        rounds: dict[tuple[bool, str], list[float]] = {key: [] for key in contenders}
        for _ in range(runs):
            for key, service in contenders.items():
                rounds[key].append(work_to_read(service, digest))
        alone = min(rounds[False, "layer10"])
        shares = {key: alone / min(times) for key, times in rounds.items()}
        return {
            "the store, measured": shares[True, "layer10"],
            "ten layers": shares[False, "layer0"],
            "ten layers, measured": shares[True, "layer0"],
        }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="of the blob that is read, in MiB")
    parser.add_argument("--runs", type=int, default=9, help="how many times it is read")
    options = parser.parse_args()
    for name, (alone, added) in measure_calls(20 * options.runs).items():
        print(f"{name:<22} {alone:.2f} us  +{added:.2f} us")
    print(f"has, a thread per core          +{measure_threads(5 * options.runs):.2f} us")
    for name, share in measure_reading(options.size << 20, options.runs).items():
        print(f"{name:<22} {share:.2f} of the speed of the store")


if __name__ == "__main__":
    main()
