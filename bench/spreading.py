"""What it brings to verify a store in several processes, and what it costs: as ratios in one run.

For stores of 1,000 to 100,000 small blobs in a folder, three ways by turns: `verify` with one thread; with a
thread for each core; and `spread` over two processes that are there already. Prints blobs per second, and how
much of the time of one thread the others take.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from castore import Composition
from castore.threads.pool import Pool
from castore.upkeep import Report, spread, verify

TOML = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
durability = "process"
"""


def fill(stores: Composition, folder: Path, count: int) -> None:
    """Store *count* blobs of 0.5 to 4 KB."""
    rng = random.Random(count)
    files = folder / "files"
    files.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        path = files / str(number % 2000)
        path.write_bytes(rng.randbytes(rng.randrange(500, 4000)))
        paths.append(path)
        if len(paths) == 2000 or number == count - 1:
            for _ in stores.blobs().put_files(paths):
                pass
            paths = []


def seconds(work: Callable[[], Report], count: int) -> float:
    """Return how long *work* takes, which must find everything right."""
    began = time.perf_counter()
    report = work()
    took = time.perf_counter() - began
    assert report.ok
    assert report.tally.blobs == count
    return took


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="1000,10000,100000", help="how many blobs, with commas")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"blobs     one thread   {cores} threads   2 processes of one thread")
    spawn = multiprocessing.get_context("spawn")
    for count in map(int, options.counts.split(",")):
        with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2, spawn) as processes:
            path = Path(name) / "composition.toml"
            path.write_text(TOML)
            with Composition.from_toml(path) as stores:
                fill(stores, Path(name), count)
                times = measure(stores, count, options.turns, processes)
        first, *others = (statistics.median(column) for column in zip(*times, strict=True))
        shares = "".join(f"{other / first:12.2f}" for other in others)
        print(f"{count:7}  {count / first:9.0f}/s{shares}", flush=True)


def measure(stores: Composition, count: int, turns: int, processes: ProcessPoolExecutor) -> list[list[float]]:
    """Return the seconds of each way, for each turn."""
    service = stores.blobs()
    one, all_cores = Pool(1), Pool(os.cpu_count() or 1)
    ways: list[Callable[[], Report]] = [
        lambda: verify(service, pool=one),
        lambda: verify(service, pool=all_cores),
        lambda: spread("verify", stores, "root", processes.submit),
    ]
    ways[-1]()  # The processes start, and all is read once.
    try:
        return [[seconds(way, count) for way in ways] for _ in range(turns)]
    finally:
        one.close()
        all_cores.close()


if __name__ == "__main__":
    main()
