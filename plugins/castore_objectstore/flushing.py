"""Making many writes durable with few flushes.

One `syncfs` covers every file, rename and new folder of a file system, whoever made them: also a chunk that
another process wrote a moment ago, and that a writer of the same content therefore did not write again. A
flush per file and folder would have to know of those, and costs far more.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import attrs

from castore.places import LACKING
from castore.threads import forks
from castore.threads.waiting import Baton, Holder


def _load_syncfs() -> Callable[[int], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return lambda _: os.sync()

    def syncfs(descriptor: int) -> None:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            if number not in LACKING:
                raise OSError(number, f"syncfs: {os.strerror(number)}")
            # All file systems then, and without a word of what cannot be written.
            os.sync()

    return syncfs


@attrs.define(eq=False)
class _Round:
    """One flush, and all who wait for it."""

    done: bool = False
    failure: OSError | None = None


class Flusher:
    """Flushes the file systems that it was shown; those who ask while a flush runs share the next one."""

    def __init__(self) -> None:
        self._syncfs: Callable[[int], None] | None = None
        self._descriptors: dict[int, int] = {}
        self._turn = Baton()
        self._lock = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Wait for nobody, in a child of a fork."""
        self._upcoming = _Round()

    @property
    def knows_any(self) -> bool:
        """Whether any file system was shown."""
        return bool(self._descriptors)

    def knows(self, device: int) -> bool:
        """Tell whether the file system with this number was shown."""
        return device in self._descriptors

    def show(self, device: int, folder: str) -> None:
        """Take note of the file system *device*, of which *folder* is a part."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._descriptors.setdefault(device, descriptor) != descriptor:
            os.close(descriptor)

    def flush(self) -> None:
        """Return when all that was written before the call is on the disk. Raises `OSError` if that fails.

        Where the one is interrupted that does it for all, another of them does it.
        """
        # Not the round that runs: it may have passed by what the caller has written.
        mine = self._upcoming
        me = Holder()
        leads = self._turn.take(me, unless=lambda: mine.done)
        try:
            if leads and not mine.done:
                self._lead(mine)
        finally:
            self._turn.give_back(me)
        if mine.failure is not None:
            raise OSError(mine.failure.errno, mine.failure.strerror)

    def _lead(self, mine: _Round) -> None:
        with self._lock:
            if self._upcoming is mine:
                self._upcoming = _Round()
        try:
            self._flush_all()
        except OSError as error:
            mine.failure = error
        mine.done = True

    def _flush_all(self) -> None:
        if self._syncfs is None:
            self._syncfs = _load_syncfs()
        for descriptor in list(self._descriptors.values()):
            self._syncfs(descriptor)

    def close(self) -> None:
        """Let go of the file systems; they are shown again when they are used again."""
        descriptors, self._descriptors = self._descriptors, {}
        for descriptor in descriptors.values():
            os.close(descriptor)
