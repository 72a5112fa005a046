"""One stream cut into chunks, which go to a store while the stream goes on.

The bytes of the stream gather in a *segment*. The workers cut a full segment while the next one fills; they
get its chunks, some to a job, hash them and store those that are new, and hash the blob beside them. The end
of the segment that is not settled yet moves on to the next one, in front of what has gathered there. There
are a few segments, used in turn: before one is used again its chunks must be stored. That bounds the memory,
and slows the producer down to what the store can take.

A blob of more than one segment may take any time to write, and until its index is there its chunks are
nobody's. So from the first full segment to the end the writer holds what it puts and finds
(`ChunkStore.hold`). A smaller blob needs no hold: nothing of it is in the store before `close`, where its
index follows at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

from castore.blob_hashing import BlobHasher
from castore.blobservice import ChunkMeta
from castore.buffers import new_buffer
from castore.capabilities import ChunkStore
from castore.chunking import Chunker, settled_cuts
from castore.digest import B3Digest
from castore.workers import Task, Workers
from castore.writers import GuardedWriter

_SEGMENT_SIZE: Final = 4 << 20
_FIRST_SIZE: Final = 128 << 10
_CHUNKS_PER_SEGMENT: Final = 4

_LEAST_SEGMENTS: Final = 3
_MOST_SEGMENTS: Final = 12
"""How many segments may be in use besides the one that is filled: enough to keep all workers busy."""

_JOB_SIZE: Final = 1 << 20
"""Chunks go to a worker together until they are as many bytes: handing over a job is not free."""


class _Segment:
    """A stretch of the stream and the tasks that store its chunks.

    The first *reserve* bytes of its buffer are for what the segment before could not settle.
    """

    __slots__ = ("_buffer", "_end", "_reserve", "_start", "tasks")

    def __init__(self, size: int, reserve: int = 0) -> None:
        self.tasks: list[Task[list[ChunkMeta]]] = []
        self._allocate(size, reserve)

    def _allocate(self, size: int, reserve: int) -> None:
        self._buffer = new_buffer(reserve + size)
        self._start = self._end = self._reserve = reserve

    @property
    def size(self) -> int:
        """How many bytes of the stream it has space for."""
        return len(self._buffer) - self._reserve

    @property
    def full(self) -> bool:
        return self._end == len(self._buffer)

    @property
    def content(self) -> memoryview:
        return self._buffer[self._start : self._end]

    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        """Let *readinto* put bytes into what is free; return how many it did."""
        count = readinto(self._buffer[self._end :])
        self._end += count
        return count

    def take(self, view: memoryview) -> int:
        count = min(len(view), len(self._buffer) - self._end)
        self._buffer[self._end : self._end + count] = view[:count]
        self._end += count
        return count

    def begin_with(self, rest: memoryview) -> None:
        """Put what the segment before could not settle in front."""
        self._start = self._reserve - len(rest)
        self._buffer[self._start : self._reserve] = rest

    def grow(self, size: int, reserve: int) -> None:
        content = self.content
        self._allocate(size, reserve)
        self.take(content)

    def empty(self) -> None:
        self._start = self._end = self._reserve


class ChunkedWriter(GuardedWriter):
    """Cuts what is written into chunks and stores those that *store* lacks; the index comes last.

    Until `close` has put the index nothing of the blob is visible; after `abort` some of its chunks may
    stay in the store, where the next blob that shares them finds them.

    Arguments:
        store: Where the chunks and the index go.
        chunker: Cuts this blob.
        workers: Hash the chunks and store them.
        job_size: How many bytes of chunks a worker is given at a time; 0 gives it single ones, for a store
            that takes its time to answer.
    """

    def __init__(
        self, store: ChunkStore, chunker: Chunker, workers: Workers, *, job_size: int = _JOB_SIZE
    ) -> None:
        self._store = store
        self._chunker = chunker
        self._workers = workers
        self._job_size = job_size
        self._segment_size = max(_SEGMENT_SIZE, _CHUNKS_PER_SEGMENT * chunker.max_size)
        in_flight = workers.size * 2 * chunker.avg_size // self._segment_size
        self._most_segments = min(max(in_flight, _LEAST_SEGMENTS), _MOST_SEGMENTS)
        # Most blobs are small: the first segment starts small, the others come when they are needed.
        self._current = _Segment(_FIRST_SIZE)
        self._others: list[_Segment] = []
        self._cutting: Task[memoryview] | None = None
        self._chunks: list[ChunkMeta] = []
        self._hasher = BlobHasher()
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
        """Let the current segment be cut; go on in the next one."""
        if not self._others:
            self._holding.enter_context(self._store.hold())
        current = self._current
        self._continue_in(current)
        self._cutting = self._workers.submit(partial(self._cut, current, final=False))
        self._others.append(current)
        self._current = self._free_segment()

    def _continue_in(self, segment: _Segment) -> None:
        """Move to *segment* what the one before could not settle; that one has been cut then."""
        if self._cutting is not None:
            segment.begin_with(self._cutting.result())
            self._cutting = None

    def _cut(self, segment: _Segment, *, final: bool) -> memoryview:
        """Cut the segment and submit its chunks; return the bytes that are not settled."""
        view = segment.content
        job: list[memoryview] = []
        begin = start = 0
        for length in settled_cuts(self._chunker, view, final=final):
            job.append(view[start : start + length])
            start += length
            if start - begin >= self._job_size:
                segment.tasks.append(self._workers.submit(_storing(self._store, job)))
                job, begin = [], start
        if job:
            segment.tasks.append(self._workers.submit(_storing(self._store, job)))
        self._hasher.add(view[:start])
        segment.tasks.append(self._workers.submit(_catching_up(self._hasher)))
        return view[start:]

    def _free_segment(self) -> _Segment:
        if len(self._others) < self._most_segments:
            return _Segment(self._segment_size, self._chunker.max_size)
        # It stays listed while it is waited for: if a chunk fails, its other tasks must be dropped.
        self._collect(self._others[0])
        return self._others.pop(0)

    def _collect(self, segment: _Segment) -> None:
        """Wait until the chunks of the segment are stored, and list them."""
        while segment.tasks:
            # Taken off first, so that after a failure the others can still be dropped.
            self._chunks += segment.tasks.pop(0).result()
        segment.empty()

    def _finish(self) -> B3Digest:
        if not self._others and len(self._current.content) <= self._chunker.min_size:
            return self._finish_small()
        self._continue_in(self._current)
        self._cut(self._current, final=True)
        for segment in (*self._others, self._current):
            self._collect(segment)
        self._let_go()
        digest = self._hasher.digest()
        self._store.put_index(digest, self._chunks if len(self._chunks) > 1 else ())
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
        if self._cutting is not None:
            self._cutting.drop()
        for segment in (*self._others, self._current):
            for task in segment.tasks:
                task.drop()
            segment.tasks.clear()
        self._let_go()
        self._holding.close()

    def _let_go(self) -> None:
        """Free the buffers: a writer may be kept long after it has ended."""
        self._hasher.forget()
        self._cutting = None
        self._others.clear()
        self._current = _Segment(0)


def _catching_up(hasher: BlobHasher) -> Callable[[], list[ChunkMeta]]:
    def run() -> list[ChunkMeta]:
        hasher.catch_up()
        return []

    return run


def _storing(store: ChunkStore, chunks: list[memoryview]) -> Callable[[], list[ChunkMeta]]:
    def run() -> list[ChunkMeta]:
        metas = []
        for data in chunks:
            digest = B3Digest.of(data)
            store_if_new(store, digest, data)
            metas.append(ChunkMeta(digest, len(data)))
        return metas

    return run


def store_if_new(store: ChunkStore, digest: B3Digest, data: memoryview) -> None:
    """Store a chunk unless it is there; one that is torn is stored anew."""
    if not store.claim_chunk(digest):
        store.put_chunk(digest, data)
