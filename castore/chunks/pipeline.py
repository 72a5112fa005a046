"""What becomes of the segments of a stream: they are cut and hashed in order, and their chunks stored.

Whoever begins with a segment does all of that with it, because its bytes are in the caches of that core: it
is cut, which has to wait until the one before has been; its bytes are added to the digest of the blob, in the
same way; and its chunks are hashed and stored, some to a *job*. Who finds no segment to begin with takes jobs
of the others. So the parts of the work that must be done in order are never done far from the rest of it, and
no more threads are at it than there are cores. With a store that takes its time many more threads are, each
with a chunk; then the one that adds a segment cuts it.

The pool *helps*, and so does whoever waits for a segment: it does what nobody does yet, and waits only for
what others are doing. So no wait can deadlock, at any size of the pool; with size 0 the one who waits does
everything, which is the sequential program.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from castore.chunks.segments import Job, Segment
from castore.contract.blobs import ChunkMeta
from castore.contract.capabilities import ChunkStore
from castore.digest import B3Digest
from castore.format.chunking import Chunker, settled_cuts
from castore.threads.crew import Crew
from castore.threads.pool import Pool

_TURN: Final = 4
"""Pieces of work, most of which are a segment, that a thread of the pool does before others may have it."""


class ChunkLine:
    """Cuts segments, in the order they are added, and stores what of their chunks *store* lacks.

    Segments are added, and got back, by one thread: that of the writer.

    Arguments:
        store: Where the chunks go.
        chunker: Cuts this blob.
        pool: The pool.
        helpers: How many of its threads may be at work at once, beside the one that adds.
        job_size: How many bytes of chunks make a job at least; 0 makes each chunk one.
    """

    def __init__(self, store: ChunkStore, chunker: Chunker, pool: Pool, *, crew: int, job_size: int) -> None:
        self.chunks: list[ChunkMeta] = []
        """Those of the segments that were got back."""
        self._store = store
        self._chunker = chunker
        self._job_size = job_size
        # The one that is cut or hashed next, in order: a thread has the next lock before it lets go of one.
        self._taking = threading.Lock()
        self._cutting = threading.Lock()
        self._hashing = threading.Lock()
        self._hasher = blake3()
        self._rest: bytes | None = b""
        # All that follows, and the jobs of segments, are changed under this one.
        self._changed = threading.Condition(threading.Lock())
        self._uncut: deque[tuple[Segment, bool]] = deque()
        self._under_way: deque[Segment] = deque()
        self._ended = False
        self._error: BaseException | None = None
        turn = _TURN if job_size else 1
        self._crew = Crew(pool, crew, self._work, self._is_work_left, self._changed, turn=turn)

    def __len__(self) -> int:
        """Return how many segments were added and not got back."""
        return len(self._under_way)

    def add(self, segment: Segment, *, final: bool = False) -> None:
        """Let a segment be cut next, and its chunks be stored; nothing comes after the *final* one."""
        with self._changed:
            self._under_way.append(segment)
            self._uncut.append((segment, final))
            if self._job_size:
                self._crew.call(1)
        if not self._job_size:
            # Many threads are at what comes next; this one has the bytes at hand, and nothing else to do.
            self._cut_next(wait=True)

    def get_back(self) -> Segment:
        """Return the oldest segment, empty, when all its chunks are stored; raises what went wrong."""
        segment = self._under_way[0]
        # Who stores something else in a store that takes its time can send nothing off meanwhile.
        only = None if self._job_size else segment
        while not self._has_ended_with(segment):
            if not self._work(only):
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or segment.done or self._is_work_left(only))
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                # The traceback refers to this frame: without this they would keep each other.
                del error
        with self._changed:
            self._under_way.popleft()
        self.chunks += segment.metas
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

    def _work(self, only: Segment | None = None) -> bool:
        """Do what nobody does yet: a segment with its jobs, or jobs of another; False if there is none.

        With *only*, jobs of that segment. If the store takes its time, one job: others may want the thread.
        """
        try:
            segment = only or self._next_segment()
            if segment is None:
                return False
            job = self._next_job(segment)
            if job is None and segment is only:
                return False
            while job is not None:
                self._do(job, segment)
                job = self._next_job(segment) if self._job_size else None
        except BaseException as error:  # noqa: BLE001 - it is raised where the segment is waited for
            self._end(error)
        return True

    def _next_segment(self) -> Segment | None:
        if not self._job_size:
            return self._one_with_jobs()
        # One thread waits for its turn to cut. The others had better store something meanwhile.
        return self._cut_next(wait=False) or self._one_with_jobs() or self._cut_next(wait=True)

    def _cut_next(self, *, wait: bool) -> Segment | None:
        """Cut the next segment, and hash its bytes; `None` if there is none, or somebody else takes it."""
        with contextlib.ExitStack() as turn:
            if not self._taking.acquire(blocking=wait):
                return None
            try:
                with self._changed:
                    if not self._uncut:
                        return None
                    segment, final = self._uncut.popleft()
                turn.enter_context(self._cutting)
            finally:
                self._taking.release()
            rest, self._rest = self._rest, None
            if rest is None:
                return None  # The one before could not be cut.
            segment.begin_with(rest)
            del rest
            view = segment.content
            jobs = list(self._jobs(view, final=final))
            settled = sum(len(data) for job in jobs for data in job)
            self._rest = bytes(view[settled:])
            with self._hashing:
                turn.close()
                self._hasher.update(view[:settled])
        with self._changed:
            if not self._ended:
                segment.be_cut(jobs)
                # Whoever cuts takes a job; not who only adds segments, as the store takes its time.
                self._crew.call(len(jobs) - bool(self._job_size))
            self._changed.notify_all()
        return segment

    def _jobs(self, view: memoryview, *, final: bool) -> Iterator[list[memoryview]]:
        """Cut, and yield the chunks that are settled, some together."""
        job: list[memoryview] = []
        begin = start = 0
        for length in settled_cuts(self._chunker, view, final=final):
            job.append(view[start : start + length])
            start += length
            if start - begin >= self._job_size:
                yield job
                job, begin = [], start
        if job:
            yield job

    def _one_with_jobs(self) -> Segment | None:
        with self._changed:
            return next((segment for segment in self._under_way if segment.jobs), None)

    def _next_job(self, segment: Segment) -> Job | None:
        with self._changed:
            return segment.jobs.popleft() if segment.jobs else None

    def _do(self, job: Job, segment: Segment) -> None:
        number, chunks = job
        metas = store_new(self._store, chunks)
        with self._changed:
            segment.be_stored(number, metas)
            if segment.done:
                self._changed.notify_all()

    def _is_work_left(self, only: Segment | None = None) -> bool:
        if only is not None:
            return bool(only.jobs)
        is_uncut_left = bool(self._uncut and self._job_size)
        return is_uncut_left or any(segment.jobs for segment in self._under_way)

    def _has_ended_with(self, segment: Segment) -> bool:
        with self._changed:
            return self._ended or segment.done

    def _end(self, error: BaseException | None) -> None:
        """Begin with nothing more; *error* is why."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._error = error
            self._uncut.clear()
            for segment in self._under_way:
                segment.jobs.clear()
            self._changed.notify_all()


def store_new(store: ChunkStore, chunks: list[memoryview]) -> list[ChunkMeta]:
    """Store those of *chunks* that are not there, or torn; return what all of them are."""
    metas = [ChunkMeta(B3Digest.of(data), len(data)) for data in chunks]
    # All at once: each look at a file in between hashing would wait for the interpreter's lock.
    there = set(store.claim_chunks([meta.digest for meta in metas]))
    for meta, data in zip(metas, chunks, strict=True):
        if meta.digest not in there:
            store.put_chunk(meta.digest, data)
            there.add(meta.digest)
    return metas
