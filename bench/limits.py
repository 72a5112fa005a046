"""What the steps cost that no store can leave out, in seconds of one core, taken one by one.

A *limit* is the speed of a program that does nothing but these steps, with all cores busy: the bytes, by the
sum of the costs of the steps, times the number of cores. Costs are CPU time, so what else runs on the machine
counts for little.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from blake3 import blake3
from zstandard import ZstdCompressor, ZstdDecompressor

from castore.buffers import new_buffer
from castore.format.chunking import FastCdc2020
from castore.format.frames import DEFAULT_LEVEL

PIECE = 1 << 20
SAMPLE = 64 << 20
PARTS = 8
"""The sample is so many stretches of the corpus, as one part of it may be unlike the others."""
ROUNDS = 3

_SPINNING = 256 << 10
_TIMES = 1000
_SPINS = 9

STEPS = {
    "put": ("read", "cut", "hash", "hash", "compress", "write"),
    "put again": ("read", "cut", "hash", "hash", "exists"),
    "get": ("open", "unpack", "hash", "hash"),
    "get to a file": ("open", "unpack", "hash", "hash", "write out"),
    "random reads": ("open", "unpack", "hash"),
}
"""The steps of each work. The second `hash` is that of the whole blob."""


def pieces(path: Path) -> Iterator[memoryview]:
    """Read the sample piece by piece into one buffer."""
    buffer = new_buffer(PIECE)
    with path.open("rb", buffering=0) as file:
        size = path.stat().st_size
        for part in range(PARTS):
            file.seek(size // PARTS * part)
            for _ in range(min(SAMPLE, size) // PARTS // PIECE):
                yield buffer[: file.readinto(buffer)]


class Costs:
    """The steps, done with a sample of a corpus. *folder* is empty, and on the disk that is measured."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._stores = self._files = 0
        self._data = b"".join(pieces(path))
        view = memoryview(self._data)
        starts = [0]
        for length in FastCdc2020().cut(view):
            starts.append(starts[-1] + length)
        self._chunks = [view[start:end] for start, end in pairwise(starts)]
        self._packed = list(self._compressed())
        self._names = [blake3(chunk).hexdigest() for chunk in self._chunks]
        for _ in self._written():
            pass

    def _places(self) -> Iterator[str]:
        """Yield where each chunk is kept: there is a folder for nearly every one, as the layout has it."""
        return (f"{self._folder}/{self._stores}/{name[:4]}/{name}" for name in self._names)

    def per_byte(self) -> dict[str, float]:
        """Return the seconds that each step costs per byte of the corpus, least of some rounds."""
        steps: dict[str, Callable[[], Iterable[object]]] = {
            "read": lambda: pieces(self._path),
            "cut": lambda: FastCdc2020().cut(memoryview(self._data)),
            "hash": lambda: (blake3(chunk).digest() for chunk in self._chunks),
            "compress": self._compressed,
            "write": self._written,
            "exists": lambda: map(os.stat, self._places()),
            "open": self._opened,
            "unpack": self._unpacked,
            "write out": self._written_out,
        }
        return {
            name: min(_cpu_seconds(step) for _ in range(ROUNDS)) / len(self._data)
            for name, step in steps.items()
        }

    def _compressed(self) -> Iterator[bytes]:
        """Compress each chunk at the level asked for, whatever a store may find out about it first."""
        compressor = ZstdCompressor(level=DEFAULT_LEVEL, write_content_size=False)
        for chunk in self._chunks:
            yield compressor.compress(chunk)

    def _unpacked(self) -> Iterator[bytes]:
        decompressor = ZstdDecompressor()
        for packed, chunk in zip(self._packed, self._chunks, strict=True):
            yield decompressor.decompress(packed, max_output_size=len(chunk))

    def _opened(self) -> Iterator[bytes]:
        for place in self._places():
            with open(place, "rb", buffering=0) as file:  # noqa: PTH123 - as fast as it goes
                yield file.read()

    def _written(self) -> Iterator[None]:
        """Write each stored chunk beside its place, and rename it; make the folder for it."""
        self._stores += 1
        (self._folder / str(self._stores)).mkdir()
        for place, packed in zip(self._places(), self._packed, strict=True):
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(place))  # noqa: PTH102, PTH120 - as fast as it goes
            descriptor = os.open(f"{place}#1", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            os.write(descriptor, packed)
            os.close(descriptor)
            os.replace(f"{place}#1", place)  # noqa: PTH105 - as fast as it goes
            yield

    def _written_out(self) -> Iterator[None]:
        """Write the chunks into one new file. It stays: pages of one just removed are quickly had again."""
        self._files += 1
        with (self._folder / f"out-{self._files}").open("wb", buffering=0) as file:
            for chunk in self._chunks:
                file.write(chunk)
                yield


def _cpu_seconds(steps: Callable[[], Iterable[object]]) -> float:
    """Return the CPU time of all *steps*. What a step returns is let go at once: fresh memory is slow."""
    start = time.process_time()
    for _ in steps():
        pass
    return time.process_time() - start


def all_at_once() -> float:
    """Return how many times the work of one core all of them do at once: they may share more than memory."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:

        def seconds(threads: int) -> float:
            start = time.perf_counter()
            list(pool.map(_hash_for_long, [bytes(_SPINNING)] * threads))
            return time.perf_counter() - start

        return statistics.median(cores * seconds(1) / seconds(cores) for _ in range(_SPINS))


def _hash_for_long(data: bytes) -> None:
    for _ in range(_TIMES):
        blake3(data).digest()


def cost_of(costs: dict[str, float], steps: Sequence[str]) -> float:
    """Return the seconds per byte of *steps*, with all cores at work."""
    return sum(costs[step] for step in steps) / (os.cpu_count() or 1)
