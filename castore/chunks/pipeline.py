"""What becomes of the segments of a stream: they are cut and hashed in order, and their chunks stored.

Whoever begins with a segment does all of that with it, because its bytes are in the caches of that core: it
is cut, which has to wait until the one before has been; its bytes are added to the digest of the blob, in the
same way; and its chunks are hashed, claimed and put, some to a *job*. Who finds no segment to begin with
takes jobs of the others. So the parts of the work that must be done in order are never done far from the rest
of it, and no more threads are at it than there are cores. Of a segment for a store of high latency all chunks
are one job, and two are under way: such a store makes many requests at once itself.

The pool helps, and so does whoever waits for a segment: it does what nobody does yet, and waits only for
what others are doing. So no wait can deadlock, at any size of the pool; with size 0 the one who waits does
everything, which is the sequential program.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from blake3 import blake3

from castore.buffers import new_buffer
from castore.contract.batches import MOST_BYTES, MOST_ITEMS
from castore.contract.blobs import ChunkMeta
from castore.contract.capabilities import ChunkStore
from castore.contract.chunk_list import MAX_CHUNKS, ChunkList
from castore.contract.inputs import InputFile
from castore.digest import B3Digest
from castore.errors import UnsupportedError
from castore.format.chunking import Chunker, settled_cuts
from castore.threads import forks
from castore.threads.crew import Crew, crew_beside
from castore.threads.waiting import Bell

_TURN: Final = 4
"""Pieces of work, most of which are a segment, that a thread of the pool does before others may have it."""

_JOB_SIZE: Final = 1 << 20
"""Chunks are claimed and put together until they are as many bytes."""

_LARGE_JOB: Final = 4
"""Times that size in the middle of a blob, where each thread has a segment of its own: all of it is one job.
Each layer of a stack does something for each call."""

_SEGMENT_SIZE: Final = 3 << 20
"""What a core can keep at hand."""

_CHUNKS_PER_SEGMENT: Final = 4
_LEAST_SEGMENTS: Final = 3
_MOST_BYTES: Final = 48 << 20
"""What all segments together have space for, unless that would be fewer than the least."""


_PATIENCE: Final = 0.1
"""After so many seconds a thread that waits for its turn looks whether there will be any."""

Job: TypeAlias = "tuple[int, list[memoryview]]"
"""Chunks that are stored together, and their place among the jobs of their segment."""


class Segment:
    """A buffer that is filled, then cut into jobs, and can be filled anew when these are done.

    The first *reserve* bytes are for what the segment before could not settle. It belongs to the thread that
    fills it, then to the one that cuts it; what follows is for its owner to lock.
    """

    __slots__ = ("_buffer", "_end", "_metas", "_reserve", "_start", "jobs")

    def __init__(self, size: int, reserve: int = 0) -> None:
        self.jobs: deque[Job] = deque()
        """Those that nobody has begun with."""
        self._metas: list[list[ChunkMeta] | None] | None = None
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
        """Whether there is no space left."""
        return self._end == len(self._buffer)

    @property
    def content(self) -> memoryview:
        """What is in it."""
        return self._buffer[self._start : self._end]

    def fill(self, source: InputFile) -> int:
        """Read from *source* into what is free; return how many bytes that were."""
        count = source.readinto(self._buffer[self._end :])
        self._end += count
        return count

    def take(self, view: memoryview) -> int:
        """Copy what there is space for; return how many bytes that is."""
        count = min(len(view), len(self._buffer) - self._end)
        self._buffer[self._end : self._end + count] = view[:count]
        self._end += count
        return count

    def begin_with(self, rest: bytes) -> None:
        """Put what the segment before could not settle in front."""
        self._start = self._reserve - len(rest)
        self._buffer[self._start : self._reserve] = rest

    def grow(self, size: int, reserve: int) -> None:
        """Get space for *size* bytes; what is in it stays."""
        content = self.content
        self._allocate(size, reserve)
        self.take(content)

    def be_cut(self, jobs: Iterable[list[memoryview]]) -> None:
        """Take the jobs that it has been cut into, in order."""
        self.jobs.extend(enumerate(jobs))
        self._metas = [None] * len(self.jobs)

    def be_stored(self, number: int, metas: list[ChunkMeta]) -> None:
        """Take what a job has found its chunks to be."""
        assert self._metas is not None
        self._metas[number] = metas

    @property
    def done(self) -> bool:
        """Whether it was cut, and all of its jobs are done."""
        return self._metas is not None and None not in self._metas

    @property
    def metas(self) -> list[ChunkMeta]:
        """Its chunks in order, when it is done."""
        return [meta for metas in self._metas or () for meta in metas or ()]

    def empty(self) -> None:
        """Be as new."""
        self._start = self._end = self._reserve
        self.jobs.clear()
        self._metas = None


class Pipeline:
    """Cuts segments, in the order they are added, and stores what of their chunks *store* lacks.

    Segments are added, and got back, by one thread: that of the writer.

    Arguments:
        store: Where the chunks go.
        chunker: Cuts this blob.
    """

    def __init__(self, store: ChunkStore, chunker: Chunker) -> None:
        self.chunks = ChunkList()
        """Those of the segments that were got back."""
        self._store = store
        self._chunker = chunker
        pool = store.pool
        high_latency = store.high_latency
        self._job_size = MOST_BYTES if high_latency else _JOB_SIZE
        self._large_job = MOST_BYTES if high_latency else _JOB_SIZE * _LARGE_JOB
        self._shared = max(pool.size, 1)
        """How many segments, from here on, have jobs for threads that find none to begin with."""
        # The one that is cut or hashed next, in order: a thread has the next lock before it lets go of one.
        self._taking = forks.new_lock()
        self._cutting = forks.new_lock()
        self._hashing = forks.new_lock()
        self._hasher = blake3()
        self._rest: bytes | None = b""
        # All that follows, and the jobs of segments, are changed under this one.
        self._lock = forks.new_lock()
        self._changed = Bell(self._lock)
        self._uncut: deque[tuple[Segment, bool]] = deque()
        self._under_way: deque[Segment] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._crew = Crew(
            pool,
            min(pool.size, 1) if high_latency else crew_beside(pool),
            self._work,
            self._is_work_left,
            self._lock,
            turn=1 if high_latency else _TURN,
        )

    def __len__(self) -> int:
        """Return how many segments were added and not got back."""
        return len(self._under_way)

    def add(self, segment: Segment, *, final: bool = False) -> None:
        """Let a segment be cut next, and its chunks be stored; nothing comes after the *final* one."""
        with self._lock:
            self._under_way.append(segment)
            self._uncut.append((segment, final))
            self._crew.call(1)

    def get_back(self) -> Segment:
        """Return the oldest segment, empty, when all its chunks are stored; raises what went wrong."""
        segment = self._under_way[0]
        while not self._has_ended_with(segment):
            if not self._work():
                self._changed.wait_for(lambda: self._ended or segment.done or self._is_work_left())
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                # The traceback refers to this frame: without this they would keep each other.
                del error
        with self._lock:
            self._under_way.popleft()
        metas = segment.metas
        if len(self.chunks) + len(metas) > MAX_CHUNKS:
            raise UnsupportedError(
                f"a blob has at most {MAX_CHUNKS} chunks, and this one has more: let the store make them"
                " larger (`avg_chunk_size`), or store it in parts"
            )
        self.chunks.add([meta.digest for meta in metas], [meta.size for meta in metas])
        segment.empty()
        return segment

    def digest(self) -> B3Digest:
        """Return the digest of all segments that were got back."""
        return B3Digest(self._hasher.digest())

    def close(self) -> None:
        """Do nothing more, and wait for what is being done."""
        self._end(None)
        self._error = None  # Its traceback refers to this.
        self._crew.leave()
        self._under_way.clear()
        self._rest = None

    # -- the work --

    def _work(self) -> bool:
        """Do what nobody does yet: a segment with its jobs, or jobs of another; False if there is none."""
        try:
            segment = self._next_segment()
            if segment is None:
                return False
            while (job := self._next_job(segment)) is not None:
                self._do(job, segment)
        except BaseException as error:  # noqa: BLE001 - it is raised where the segment is waited for
            self._end(error)
        return True

    def _next_segment(self) -> Segment | None:
        # One thread waits for its turn to cut. The others had better store something meanwhile.
        return self._cut_next(wait=False) or self._one_with_jobs() or self._cut_next(wait=True)

    def _cut_next(self, *, wait: bool) -> Segment | None:
        """Cut the next segment, and hash its bytes; `None` if there is none, or somebody else takes it."""
        if not (self._enter(self._taking) if wait else self._taking.acquire(blocking=False)):
            return None
        try:
            with self._lock:
                if not self._uncut:
                    return None
                segment, final = self._uncut.popleft()
            if not self._enter(self._cutting):
                return None
        finally:
            self._taking.release()
        try:
            rest, self._rest = self._rest, None
            if rest is None:
                return None  # The one before could not be cut.
            segment.begin_with(rest)
            del rest
            view = segment.content
            jobs = list(self._jobs(view, final=final))
            settled = sum(len(data) for job in jobs for data in job)
            self._rest = bytes(view[settled:])
            if not self._enter(self._hashing):
                return None
        finally:
            self._cutting.release()
        try:
            self._hasher.update(view[:settled])
        finally:
            self._hashing.release()
        with self._lock:
            if not self._ended:
                segment.be_cut(jobs)
                self._crew.call(len(jobs) - 1)  # Whoever cuts takes a job.
            self._changed.ring()
        return segment

    def _enter(self, lock: threading.Lock) -> bool:
        """Wait for a lock; False if all has ended meanwhile: an interrupted thread may never let go of it."""
        while not lock.acquire(timeout=_PATIENCE):
            if self._ended:
                return False
        return True

    def _jobs(self, view: memoryview, *, final: bool) -> Iterator[list[memoryview]]:
        """Cut, and yield the chunks that are settled, some together."""
        most = self._job_size if final or self._shared > 0 else self._large_job
        self._shared -= 1
        job: list[memoryview] = []
        begin = start = 0
        for length in settled_cuts(self._chunker, view, final=final):
            size = start - begin
            if job and (size >= most or size + length > MOST_BYTES or len(job) == MOST_ITEMS):
                yield job
                job, begin = [], start
            job.append(view[start : start + length])
            start += length
        if job:
            yield job

    def _one_with_jobs(self) -> Segment | None:
        with self._lock:
            return next((segment for segment in self._under_way if segment.jobs), None)

    def _next_job(self, segment: Segment) -> Job | None:
        with self._lock:
            return segment.jobs.popleft() if segment.jobs else None

    def _do(self, job: Job, segment: Segment) -> None:
        number, chunks = job
        metas = store_new(self._store, chunks)
        with self._lock:
            segment.be_stored(number, metas)
            if segment.done:
                self._changed.ring()

    def _is_work_left(self) -> bool:
        return bool(self._uncut) or any(segment.jobs for segment in self._under_way)

    def _has_ended_with(self, segment: Segment) -> bool:
        with self._lock:
            return self._ended or segment.done

    def _end(self, error: BaseException | None) -> None:
        """Begin with nothing more; *error* is why."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._error = error
            self._uncut.clear()
            for segment in self._under_way:
                segment.jobs.clear()
            self._changed.ring()


def segments_for(store: ChunkStore, chunker: Chunker) -> tuple[int, int]:
    """Return the size of a segment in bytes, and how many of them there may be."""
    pool = store.pool
    # With what the one before could not settle, less than a chunk, it makes one call where requests wait.
    least = MOST_BYTES - chunker.max_size if store.high_latency else _SEGMENT_SIZE
    size = max(least, _CHUNKS_PER_SEGMENT * chunker.max_size)
    if not pool.size:
        return size, 1
    # Each thread that works wants a segment; besides, one is filled, and one can be begun with meanwhile.
    wanted = _LEAST_SEGMENTS if store.high_latency else max(pool.size, 2) + 1
    return size, max(min(wanted, _MOST_BYTES // size), _LEAST_SEGMENTS)


def store_new(store: ChunkStore, chunks: list[memoryview]) -> list[ChunkMeta]:
    """Store those of *chunks* that are not there, or torn; return what all of them are."""
    metas = [ChunkMeta(B3Digest.of(data), len(data)) for data in chunks]
    there = store.claim({meta.digest for meta in metas})
    new = {meta.digest: data for meta, data in zip(metas, chunks, strict=True) if meta.digest not in there}
    if new:
        store.put_chunks(new)
    return metas
