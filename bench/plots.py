"""Two drawings: throughput against the size of a blob, and the cost of a call against the size of the store.

`python bench/plots.py` measures both and writes `bench/plots/*.svg`, and the numbers beside them as JSON. It
needs `pip install 'castore[bench]'` and, for a store of a million chunks in a folder, some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from blake3 import blake3
from corpora import source_text
from small_blobs import service_on

from castore import B3Digest, BlobService
from castore.contract.capabilities import FrameStore
from castore.format import frames

HERE = Path(__file__).parent
TYPES = ("objectstore", "sqlite")
CALLS = 200
LEAST_SECONDS = 0.2

Series = dict[str, list[tuple[float, float]]]
"""Lines of a drawing: their names, and points."""


def text(size: int) -> bytes:
    """Return source text."""
    data = bytearray()
    for part in source_text():
        data += part
        if len(data) >= size:
            return bytes(data[:size])
    raise AssertionError("it goes on for ever")


def throughput(scratch: Path, largest: int) -> Series:
    """Return MB/s of put and get for blobs of 1 KiB to *largest*, by types of service."""
    data = text(largest)
    series: Series = {}
    for tag in TYPES:
        with service_on(scratch / tag, tag, "process") as service:
            size = 1 << 10
            while size <= largest:
                put, get = _put_and_get(service, data, size)
                series.setdefault(f"put, {tag}", []).append((size, put))
                series.setdefault(f"get, {tag}", []).append((size, get))
                size *= 4
    return series


def _put_and_get(service: BlobService, data: bytes, size: int) -> tuple[float, float]:
    """Return the MB/s of different blobs of one size, as many as take a while."""
    digests = []
    begun = time.perf_counter()
    while (put := time.perf_counter() - begun) < LEAST_SECONDS:
        # Nothing must be there already: a few other bytes at the front, and everywhere between.
        number = b"%08d" % len(digests)
        blob = number + data[: size - 8] if size < 1 << 16 else data[:size].translate(_table(number))
        digests.append(service.write(blob))
    begun = time.perf_counter()
    for digest in digests:
        service.read(digest)
    get = time.perf_counter() - begun
    amount = size * len(digests) / 1e6
    return amount / put, amount / get


def _table(number: bytes) -> bytes:
    first = int(number) % 255
    return bytes((byte ^ first) if byte < 128 else byte for byte in range(256))


def growing(scratch: Path, most: int) -> Series:
    """Return the microseconds of calls in stores of 100 chunks to *most*, by types of service."""
    series: Series = {}
    for tag in TYPES:
        with service_on(scratch / tag, tag, "process") as service:
            store = service.capability(FrameStore)
            assert store is not None
            count, size = 0, 100
            while size <= most:
                for number in range(count, size):
                    data = b"%d" % number
                    store.put_frame(B3Digest.of(data), frames.compress(data))
                count = size
                for name, call in _calls(service, count).items():
                    series.setdefault(f"{name}, {tag}", []).append((size, _microseconds(call)))
                size *= 10
    return series


def _calls(service: BlobService, count: int) -> dict[str, Callable[[int], object]]:
    def present(number: int) -> object:
        return service.has(B3Digest.of(b"%d" % (number * 7919 % count)))

    def absent(number: int) -> object:
        return service.has(B3Digest.of(b"absent %d" % number))

    def get(number: int) -> object:
        return service.read(B3Digest.of(b"%d" % (number * 7919 % count)))

    def put(number: int) -> object:
        return service.write(blake3(b"%d of %d" % (number, count)).digest(length=4096))

    return {"has, present": present, "has, absent": absent, "get": get, "put 4 KiB": put}


def _microseconds(call: Callable[[int], object]) -> float:
    times = []
    for number in range(CALLS):
        begun = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def draw(series: Series, *, title: str, x: str, y: str, place: Path) -> None:
    """Write a drawing with logarithmic axes, and its numbers."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "castore"
    from matplotlib import pyplot as plt  # noqa: PLC0415 - it must know the backend first

    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for number, (name, points) in enumerate(series.items()):
        axes.plot(*zip(*points, strict=True), label=name, marker="os^d"[number % 4], markersize=4)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y, title=title)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(place.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
    place.with_suffix(".json").write_text(json.dumps(series) + "\n")


def main() -> None:
    """Measure and draw both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=256, help="MiB of the largest blob (default 256)")
    parser.add_argument("--most", type=int, default=10**6, help="chunks of the largest store (default 10^6)")
    parser.add_argument("--scratch", type=Path, default=Path(), help="where to work (default: here)")
    options = parser.parse_args()
    folder = HERE / "plots"
    folder.mkdir(exist_ok=True)
    cores = os.cpu_count()
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix=".bench-") as name:
        scratch = Path(name).absolute()
        draw(
            throughput(scratch / "sizes", options.largest << 20),
            title=f"Source text, durability = process, {cores} cores",
            x="bytes of a blob",
            y="MB/s",
            place=folder / "throughput",
        )
        draw(
            growing(scratch / "growing", options.most),
            title=f"One call after another, durability = process, {cores} cores",
            x="chunks in the store",
            y="microseconds a call (median)",
            place=folder / "store-size",
        )


if __name__ == "__main__":
    main()
