"""How fast are small blobs stored and read, beside a bare loop that does the same work on files?

The bare loop stores the same objects as an `objectstore`: it reads a file, hashes and compresses it, writes
the chunk and the empty index beside their places and renames them. With `full` durability it flushes the file
system once for each 1,024. For `get` it opens, reads, decompresses and verifies. It has 256 folders, made
before; `same keys` is the loop with the 65,536 of the reference's layout, made when they are needed. Ratios
are to the bare loop, in one run. `python bench/small_blobs.py --count 5000 --runs 5`
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from corpora import write_small

import castore
from castore import B3Digest
from castore.format import frames

ROUND = 1024
DURABILITIES = ("process", "full")


class BareLoop:
    """The unavoidable steps, one after the other, on one thread."""

    def __init__(self, folder: Path, durability: str, *, same_keys: bool = False) -> None:
        self._chunks, self._indexes = f"{folder}/chunks/b3", f"{folder}/blobs/b3"
        self._digits = 4 if same_keys else 2
        self._libc = ctypes.CDLL(None) if durability == "full" else None
        folder.mkdir(parents=True)
        if not same_keys:
            for number in range(1 << 8):
                for parent in (self._chunks, self._indexes):
                    Path(parent, f"{number:02x}").mkdir(parents=True)
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def put(self, paths: Sequence[Path]) -> list[B3Digest]:
        """Store files; return their digests."""
        digests = []
        for number, path in enumerate(paths, 1):
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as fast as it goes
                data = file.read()
            digest = B3Digest.of(data)
            _write(self._place(self._chunks, digest), frames.compress(data))
            _write(self._place(self._indexes, digest), b"")
            digests.append(digest)
            if self._libc is not None and (number % ROUND == 0 or number == len(paths)):
                self._libc.syncfs(self._descriptor)
        return digests

    def read(self, digest: B3Digest) -> bytes:
        """Return the bytes of one."""
        with open(self._place(self._chunks, digest), "rb", buffering=0) as file:  # noqa: PTH123 - as above
            return frames.decode_chunk(file.read(), digest)

    def _place(self, parent: str, digest: B3Digest) -> str:
        name = digest.hex()
        return f"{parent}/{name[: self._digits]}/{name}"


def _write(place: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(f"{place}#1", flags, 0o666)
    except FileNotFoundError:
        Path(place).parent.mkdir(parents=True)
        descriptor = os.open(f"{place}#1", flags, 0o666)
    os.write(descriptor, data)
    os.close(descriptor)
    os.replace(f"{place}#1", place)  # noqa: PTH105 - as above


def service_on(folder: Path, tag: str, durability: str) -> castore.BlobService:
    """Return a service of one of the types that are compared."""
    table: dict[str, object] = {"type": tag, "durability": durability, "create": "path"}
    if tag == "sqlite":
        table["path"] = str(folder / "blobs.sqlite")
    else:
        table["object_store_url"] = f"file:{folder}"
    composition = castore.Composition.from_mapping({"blobservices": {"root": table}})
    service = composition.blobs()
    service.close = composition.close  # type: ignore[method-assign]
    return service


def put_files(service: castore.BlobService, paths: Sequence[Path]) -> list[B3Digest | castore.SourceError]:
    """Store files together."""
    return list(service.put_files(paths))


def rates(
    count: int, put: Callable[[], Sequence[object]], read: Callable[[B3Digest], bytes]
) -> dict[str, float]:
    """Return how many blobs a second are put, and then got in another order."""
    start = time.perf_counter()
    digests = [digest for digest in put() if isinstance(digest, B3Digest)]
    put_seconds = time.perf_counter() - start
    assert len(digests) == count
    random.Random(2).shuffle(digests)
    start = time.perf_counter()
    for digest in digests:
        read(digest)
    return {"put": count / put_seconds, "get": count / (time.perf_counter() - start)}


def measure(folder: Path, paths: Sequence[Path]) -> dict[tuple[str, str, str], float]:
    """Return the rates of everything, each in a fresh place; what is removed would slow down the next."""
    found: dict[tuple[str, str, str], float] = {}
    for durability in DURABILITIES:
        measured = {}
        for name, same_keys in (("bare loop", False), ("same keys", True)):
            bare = BareLoop(folder / f"{name}-{durability}", durability, same_keys=same_keys)
            measured[name] = rates(len(paths), partial(bare.put, paths), bare.read)
        for tag in ("objectstore", "packed", "sqlite"):
            with service_on(folder / f"{tag}-{durability}", tag, durability) as service:
                measured[tag] = rates(len(paths), partial(put_files, service, paths), service.read)
        for tag, both in measured.items():
            found.update({(durability, tag, work): rate for work, rate in both.items()})
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="how many blobs (default 5000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is shown (default 5)")
    options = parser.parse_args()
    print(f"{options.count} blobs of 1 to 16 KiB, {options.runs} runs, {os.cpu_count()} cores,", end=" ")
    print(f"Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory(dir=".") as name:
        scratch = Path(name).absolute()
        write_small(scratch / "files", options.count)
        paths = sorted((scratch / "files").rglob("*.txt"))
        runs = [measure(scratch / str(run), paths) for run in range(options.runs)]
    print(
        f"{'durability':10} {'store':12} {'work':5} {'per second':>10} {'ratio to bare':>14} {'spread':>14}"
    )
    for durability, tag, work in runs[0]:
        rate = statistics.median(run[durability, tag, work] for run in runs)
        ratios = [run[durability, tag, work] / run[durability, "bare loop", work] for run in runs]
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
        print(
            f"{durability:10} {tag:12} {work:5} {rate:10.0f} {statistics.median(ratios):14.2f} {spread:>14}"
        )


if __name__ == "__main__":
    main()
