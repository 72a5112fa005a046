"""How fast is a store that a stranger has written in five methods?

5,000 files of 1 to 4 KiB, new and again: through each bundled store that keeps chunks, and through one that
has only the methods of a chunk store, each of which calls the same bundled store. What is missing are the
claims, the leases, the rounds and the durability, for which there are defaults. By turns, each in a fresh
folder; what is shown are the medians of the quotients, times of the bundled store over those of the other.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from even import settle
from stacks import Timed, small_files, timed_by

import castore
from castore import B3Digest, BlobService, ChunkMeta
from castore.chunks.backend import ChunkBackend
from castore.contract.capabilities import ChunkStore, FoundChunks

if TYPE_CHECKING:
    from typing_extensions import Buffer

ASKED = 0.8
STORES = {
    "memory": "memory:",
    "objectstore, process": "objectstore+file:{}?durability=process",
    "sqlite, process": "sqlite:{}/store.db?durability=process",
}


class StrangersStore(ChunkBackend):
    """What a stranger has to write, over the chunks of a bundled store."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are there."""
        found: set[B3Digest] = self._store.find_chunks(digests)
        return found

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return the bytes of chunks."""
        found: FoundChunks = self._store.get_chunks(sizes)
        return found

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Store chunks."""
        self._store.put_chunks(chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible."""
        self._store.put_indexes(blobs)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob."""
        found: Sequence[ChunkMeta] | None = self._store.chunks(digest)
        return found


def turn(url: str, paths: Sequence[Path], timed: Timed, *, stranger: bool) -> dict[str, float]:
    """Store the files twice in a fresh place; return the seconds of each time."""
    with tempfile.TemporaryDirectory(dir=paths[0].parent.parent) as folder:
        settle()
        with castore.from_url(url.format(folder)) as store:
            service: BlobService = store
            if stranger:
                chunks = store.capability(ChunkStore)
                service = StrangersStore(_Both(chunks, store))
            return {name: timed(lambda: list(service.put_files(paths))) for name in ("new", "again")}


class _Both:
    def __init__(self, chunks: Any, store: BlobService) -> None:
        self.find_chunks = chunks.find_chunks
        self.get_chunks = chunks.get_chunks
        self.put_chunks = chunks.put_chunks
        self.put_indexes = chunks.put_indexes
        self.chunks: Callable[[B3Digest], Sequence[ChunkMeta] | None] = store.chunks


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--scratch", type=Path, help="a folder on a disk; by default one for temporary files")
    parser.add_argument("--cpu", action="store_true", help="compare CPU time")
    options = parser.parse_args()
    timed = timed_by(time.process_time if options.cpu else time.perf_counter)
    with tempfile.TemporaryDirectory(dir=options.scratch) as place:
        (sources := Path(place, "sources")).mkdir()
        paths = small_files(sources)
        for name, url in STORES.items():
            shares: dict[str, list[float]] = {"new": [], "again": []}
            for pair in range(options.pairs):
                ran = {
                    stranger: turn(url, paths, timed, stranger=stranger)
                    for stranger in ((False, True) if pair % 2 else (True, False))
                }
                for work, values in shares.items():
                    values.append(ran[False][work] / ran[True][work])
            for work, values in shares.items():
                spread = f"{min(values):.2f}..{max(values):.2f}"
                print(
                    f"{name:22} {work:6} {statistics.median(values):5.2f} {spread:>12} >={ASKED}", flush=True
                )


if __name__ == "__main__":
    main()
