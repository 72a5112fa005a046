"""A stretch of a stream in memory, and what has become of the chunks that it is cut into."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from castore.buffers import new_buffer
from castore.contract.blobs import ChunkMeta

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

    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        """Let *readinto* put bytes into what is free; return how many it did."""
        count = readinto(self._buffer[self._end :])
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
