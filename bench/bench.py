"""How fast is a large file stored and read, as a share of what its unavoidable steps cost on one core?

Every figure is a ratio taken in one run: these machines' absolute speeds drift. `python bench/bench.py`
prints a table; `--size` sets the size of the file, `--runs` how many medians are taken of.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from blake3 import blake3

import castore
from castore import frames
from castore.chunking import FastCdc2020

PIECE = 1 << 20


def text_corpus(path: Path, size: int) -> None:
    """Write *size* bytes of source text: Python's own library, each round of it made different by a line."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    written = rounds = 0
    with path.open("wb") as out:
        while written < size:
            for source in sources:
                data = source.read_bytes()
                # A file that comes again must not be found again.
                salt = hashlib.sha256(b"%d %s" % (rounds, source.name.encode())).hexdigest().encode()
                data = (data if not rounds else data.replace(b"self", salt[:8]))[: size - written]
                out.write(data)
                written += len(data)
            rounds += 1


def random_corpus(path: Path, size: int) -> None:
    """Write *size* bytes that do not compress, always the same."""
    with path.open("wb") as out:
        out.write(blake3(b"castore bench").digest(length=size))


def pieces(path: Path) -> Iterator[memoryview]:
    """Read a file piece by piece into one buffer."""
    buffer = memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


class Costs:
    """Seconds of one core that each step costs for a sample of the corpus, per byte of it."""

    def __init__(self, path: Path, folder: Path) -> None:
        with path.open("rb") as file:
            data = file.read(64 << 20)
        self.size = len(data)
        stream = io.BytesIO(data)
        chunks = [stream.read(length) for length in FastCdc2020().cut(memoryview(data))]
        self.packed = [frames.compress(chunk) for chunk in chunks]
        digests = [castore.B3Digest.of(chunk) for chunk in chunks]
        stored = list(zip(self.packed, digests, map(len, chunks), strict=True))
        self.read = self.cost(lambda: pieces(path)) * self.size / path.stat().st_size
        self.cut = self.cost(lambda: FastCdc2020().cut(memoryview(data)))
        self.hash = self.cost(lambda: (blake3(chunk).digest() for chunk in chunks))
        self.compress = self.cost(lambda: map(frames.compress, chunks))
        self.write = self.cost(lambda: self.written(folder))
        self.open = self.cost(lambda: ((folder / str(n)).read_bytes() for n in range(len(chunks))))
        self.decode = self.cost(lambda: (frames.decode_chunk(p, d, size=n) for p, d, n in stored))

    def cost(self, steps: Callable[[], Iterable[object]]) -> float:
        """Return the least of three times of all *steps*, in seconds per byte.

        What a step returns is let go at once: fresh memory for each would cost more than the step itself.
        """
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            for _ in steps():
                pass
            best = min(best, time.perf_counter() - start)
        return best / self.size

    def written(self, folder: Path) -> Iterator[Path]:
        """Write each packed chunk beside its place and rename it."""
        for number, packed in enumerate(self.packed):
            (folder / f"{number}#1").write_bytes(packed)
            yield (folder / f"{number}#1").rename(folder / str(number))

    def limits(self) -> dict[str, float]:
        """Return, for each work, the bytes per second of one core that does nothing else."""
        return {
            "put": 1 / (self.read + self.cut + 2 * self.hash + self.compress + self.write),
            "put again": 1 / (self.read + self.cut + 2 * self.hash),
            "get": 1 / (self.open + self.decode + self.hash),
        }


def measure(path: Path, folder: Path) -> dict[str, float]:
    """Return the bytes per second of each work, on a fresh store."""
    size = path.stat().st_size
    service = castore.from_url(f"objectstore+file:{folder}")

    def timed(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return size / (time.perf_counter() - start)

    digest = castore.B3Digest(bytes(32))

    def put() -> None:
        nonlocal digest
        digest = service.put_file(path)

    def get() -> None:
        reader = service.open_read(digest)
        assert reader is not None
        buffer = bytearray(PIECE)
        with reader:
            while reader.readinto(buffer):
                pass

    with service:
        return {"put": timed(put), "put again": timed(put), "get": timed(get)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="MiB of each corpus (default 256)")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is shown (default 5)")
    options = parser.parse_args()
    python = sys.version.split()[0]
    print(f"castore {options.size} MiB, {options.runs} runs, {os.cpu_count()} cores, Python {python}")
    print(
        f"{'corpus':8} {'work':10} {'MB/s':>7} {'limit of one core':>18} {'share of it':>12} {'spread':>12}"
    )
    with tempfile.TemporaryDirectory(dir=".") as name:
        scratch = Path(name)
        for corpus, make in (("text", text_corpus), ("random", random_corpus)):
            source = scratch / corpus
            make(source, options.size << 20)
            parts = scratch / "parts"
            parts.mkdir()
            limits = Costs(source, parts).limits()
            shutil.rmtree(parts)
            results: dict[str, list[float]] = {}
            for run in range(options.runs):
                for work, speed in measure(source, scratch / f"{corpus}-{run}").items():
                    results.setdefault(work, []).append(speed)
                shutil.rmtree(scratch / f"{corpus}-{run}")
            for work, speeds in results.items():
                median, limit = statistics.median(speeds), limits[work]
                spread = f"{min(speeds) / limit:.2f}..{max(speeds) / limit:.2f}"
                print(f"{corpus:8} {work:10} {median / 1e6:7.0f} {limit / 1e6:18.0f}", end=" ")
                print(f"{median / limit:12.2f} {spread:>12}")


if __name__ == "__main__":
    main()
