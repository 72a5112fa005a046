"""One stream cut into chunks, which go to a store while the stream goes on.

The bytes of the stream gather in a *segment*. When it is full it joins a line, where the workers cut it, hash
the blob, and hash and store its chunks, while the next one fills. There are a few segments, used in turn: if
all are in the line, whoever writes helps with them until one is free. That bounds the memory, and slows the
producer down to what the store can take.

A blob of more than one segment may take any time to write, and until its index is there its chunks are
nobody's. So from the first full segment to the end the writer holds what it puts and finds
(`ChunkStore.hold`). A smaller blob needs no hold: nothing of it is in the store before `close`, where its
index follows at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from castore.chunks.pipeline import ChunkLine
from castore.chunks.segments import Segment
from castore.contract.capabilities import ChunkStore
from castore.digest import B3Digest
from castore.format.chunking import Chunker
from castore.streams.writers import GuardedWriter
from castore.threads.crew import crew_beside
from castore.threads.pool import Pool

_SEGMENT_SIZE: Final = 3 << 20
"""What a core can keep at hand."""

_WAITING_SIZE: Final = 4 << 20
"""The size of a segment for a store that takes its time: nothing stays in any cache that long."""

_FIRST_SIZE: Final = 128 << 10
_CHUNKS_PER_SEGMENT: Final = 4

_LEAST_SEGMENTS: Final = 3
_MOST_BYTES: Final = 48 << 20
"""What all segments together have space for, unless that would be fewer than the least."""

_JOB_SIZE: Final = 1 << 20
"""Chunks are stored together until they are as many bytes."""


class ChunkedWriter(GuardedWriter):
    """Cuts what is written into chunks and stores those that *store* lacks; the index comes last.

    Until `close` has put the index nothing of the blob is visible; after `abort` some of its chunks may
    stay in the store, where the next blob that shares them finds them.

    Arguments:
        store: Where the chunks and the index go.
        chunker: Cuts this blob.
        pool: Cut, hash and store, beside the thread that writes.
        job_size: How many bytes of chunks are looked up and stored together; 0 makes that single ones, each
            by a worker of its own, for a store that takes its time to answer.
    """

    def __init__(self, store: ChunkStore, chunker: Chunker, pool: Pool, *, job_size: int = _JOB_SIZE) -> None:
        self._store = store
        self._chunker = chunker
        self._segment_size, self._most_segments = _plan(chunker, pool, high_latency=not job_size)
        crew = crew_beside(pool) if job_size else pool.size
        if not pool.size:
            job_size = 0
        self._line = ChunkLine(store, chunker, pool, crew=crew, job_size=job_size)
        # Most blobs are small: the first segment starts small, the others come when they are needed.
        self._current = Segment(_FIRST_SIZE)
        self._segments = 1
        self._is_long = False
        self._holding = contextlib.ExitStack()

    def _take(self, view: memoryview) -> None:
        while True:
            taken = self._current.take(view)
            view = view[taken:]
            if not view:
                return
            self._make_room()

    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        """Take bytes that *readinto* puts where they are needed, which spares a copy of them."""
        self._require_open("write")
        with self._failing():
            self._make_room()
        # What goes wrong in there is the source's fault, and the caller's to report.
        count = self._current.fill(readinto)
        self._written += count
        return count

    def _make_room(self) -> None:
        if not self._current.full:
            return
        if self._current.size < self._segment_size:
            self._current.grow(self._segment_size, self._chunker.max_size)
        else:
            self._turn()

    def _turn(self) -> None:
        """Send the current segment off; go on in the next one."""
        if not self._is_long:
            self._holding.enter_context(self._store.hold())
            self._is_long = True
        self._line.add(self._current)
        if self._segments < self._most_segments:
            self._segments += 1
            self._current = Segment(self._segment_size, self._chunker.max_size)
        else:
            self._current = self._line.get_back()

    def _finish(self) -> B3Digest:
        if not self._is_long and len(self._current.content) <= self._chunker.min_size:
            return self._finish_small()
        self._line.add(self._current, final=True)
        while self._line:
            self._line.get_back()
        digest, chunks = self._line.digest(), self._line.chunks
        self._let_go()
        self._store.put_index(digest, chunks if len(chunks) > 1 else ())
        self._holding.close()
        return digest

    def _finish_small(self) -> B3Digest:
        """Store a blob that cannot be cut as the one chunk that it is: hashed once, and here."""
        data = self._current.content
        digest = B3Digest.of(data)
        if data:
            store_if_new(self._store, digest, data)
        self._let_go()
        self._store.put_index(digest, ())
        return digest

    def _discard(self) -> None:
        self._let_go()
        self._holding.close()

    def _let_go(self) -> None:
        """Free the buffers: a writer may be kept long after it has ended."""
        self._line.close()
        self._current = Segment(0)


def _plan(chunker: Chunker, pool: Pool, *, high_latency: bool) -> tuple[int, int]:
    """Return the size of a segment in bytes, and how many of them there may be."""
    size = max(_WAITING_SIZE if high_latency else _SEGMENT_SIZE, _CHUNKS_PER_SEGMENT * chunker.max_size)
    if not pool.size:
        return size, 1
    # Each thread that waits wants a chunk, and another one that is ready when it comes back. Each that works
    # wants a segment; besides, one is filled, and one can be begun with meanwhile.
    wanted = pool.size * 2 * chunker.avg_size // size if high_latency else max(pool.size, 2) + 1
    return size, max(min(wanted, _MOST_BYTES // size), _LEAST_SEGMENTS)


def store_if_new(store: ChunkStore, digest: B3Digest, data: memoryview) -> None:
    """Store a chunk unless it is there; one that is torn is stored anew."""
    if not store.claim_chunk(digest):
        store.put_chunk(digest, data)
