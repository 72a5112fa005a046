"""A chunk store as a stranger would write it, for the tests of what comes with it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from castore import B3Digest, ChunkMeta
from castore.chunks.backend import ChunkBackend
from castore.contract.batches import MOST_UNKNOWN
from castore.contract.capabilities import FoundChunks
from castore.errors import CorruptChunkError, OversizedFrameError
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from typing_extensions import Buffer


class BareStore(ChunkBackend):
    """The five methods over dictionaries, and a record of their calls: the name, and the digests.

    *before* is called with these before anything is done; it may fail, or take its time.
    """

    def __init__(self, pool: Pool | None = None, *, high_latency: bool = False) -> None:
        self.high_latency = high_latency
        self._given_pool = pool
        self.kept: dict[B3Digest, bytes] = {}
        self.lists: dict[B3Digest, tuple[ChunkMeta, ...]] = {}
        self.calls: list[tuple[str, list[B3Digest]]] = []
        self.largest = 0
        """The most bytes that came with one call."""
        self.under_way = self.most_under_way = 0
        """How many calls put chunks now, and how many have at once."""
        self._lock = threading.Lock()

    @property
    def pool(self) -> Pool:
        return super().pool if self._given_pool is None else self._given_pool

    def before(self, name: str, digests: list[B3Digest]) -> None:
        pass

    def _note(self, name: str, digests: Iterable[B3Digest]) -> list[B3Digest]:
        listed = list(digests)
        with self._lock:
            self.calls.append((name, listed))
        self.before(name, listed)
        return listed

    def count(self, name: str) -> int:
        """Return how often a method was called."""
        return sum(called == name for called, _ in self.calls)

    def digests(self, name: str) -> list[B3Digest]:
        """Return the digests that a method was called with."""
        return [digest for called, digests in self.calls if called == name for digest in digests]

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return {digest for digest in self._note("find_chunks", digests) if digest in self.kept}

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        found: FoundChunks = {}
        for digest in self._note("get_chunks", sizes):
            data, size = self.kept.get(digest), sizes[digest]
            if data is None:
                continue
            if size is None and len(data) > MOST_UNKNOWN:
                found[digest] = OversizedFrameError("too large", expected=digest)
            elif size is not None and size != len(data):
                found[digest] = CorruptChunkError("of another size", expected=digest)
            else:
                found[digest] = data
        return found

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        with self._lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.largest = max(self.largest, sum(len(memoryview(data)) for data in chunks.values()))
        try:
            self._note("put_chunks", chunks)
            self.kept.update({digest: bytes(data) for digest, data in chunks.items()})
        finally:
            with self._lock:
                self.under_way -= 1

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self._note("put_indexes", blobs)
        for digest, chunks in blobs.items():
            self.lists[digest] = tuple(chunks) if len(chunks) > 1 else ()

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        self._note("chunks", [digest])
        found = self.lists.get(digest)
        return () if found is None and digest in self.kept else found


@pytest.fixture
def bare() -> type[BareStore]:
    """The class of a store of five methods."""
    return BareStore
