"""Waiting for other threads, such that an interrupt leaves nothing half done.

An interrupt comes between two steps of the main thread. `threading.Condition` and what is made of it consist
of many such steps: one in the wrong place leaves the lock with nobody, or takes it from somebody else, and
all that comes later hangs. The classes here take a lock only by a `with` of its own, for which there is no
place in between, and hold none while they wait. Who waits looks again after a second: so a wake-up that an
interrupt has swallowed costs a second, and no more.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from castore.threads import forks

_LOOK_AGAIN: Final = 1.0

_AFTER_INTERRUPT: Final = 0.3
"""How many seconds an interrupted call waits for what others are at: a program must end by one signal."""


class _Sleepers:
    """Those who wait, each by a lock of its own that somebody else opens."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: deque[threading.Lock] = deque()

    def lie_down(self) -> threading.Lock:
        lock = threading.Lock()
        lock.acquire()
        self._locks.append(lock)
        return lock

    def get_up(self, lock: threading.Lock) -> None:
        with contextlib.suppress(ValueError):
            self._locks.remove(lock)

    def wake(self) -> None:
        for lock in list(self._locks):
            with contextlib.suppress(RuntimeError):  # Woken by another already.
                lock.release()


class Flag:
    """Something that happens once, or again after it was cleared; any number of threads wait for it."""

    __slots__ = ("__weakref__", "_set", "_sleepers")

    def __init__(self) -> None:
        self._set = False
        self._sleepers = _Sleepers()

    def is_set(self) -> bool:
        """Tell whether it has happened."""
        return self._set

    def set(self) -> None:
        """Let it have happened, and those who wait go on."""
        self._set = True
        self._sleepers.wake()

    def clear(self) -> None:
        """Let it not have happened."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it happens, *timeout* seconds at most; return whether it has."""
        if self._set:
            return True
        return _wait(self._sleepers, self.is_set, timeout)


class Bell:
    """Rings when what *lock* guards has changed."""

    __slots__ = ("_lock", "_sleepers")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._sleepers = _Sleepers()

    def ring(self) -> None:
        """Let those who wait look again."""
        self._sleepers.wake()

    def wait_for(self, look: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until *look*, called under the lock, returns True; *timeout* seconds at most.

        Called without the lock. Returns what *look* has returned last.
        """

        def locked() -> bool:
            with self._lock:
                return look()

        return locked() or _wait(self._sleepers, locked, timeout)


class Holder:
    """Who has a turn: a variable of the function that has it, and gone when that is left."""

    __slots__ = ("__weakref__",)


class Baton:
    """What one thread has at a time, for as long as it is at it.

    Take it with a new `Holder`, before the `try` whose `finally` gives it back. An interrupt between the two,
    or at the very beginning of the giving back, leaves it with somebody who is not at it any more: then it is
    free as soon as the holder is gone, with the traceback of the interrupt, and for the same thread at once.
    """

    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self._sleepers = _Sleepers()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Be free, in a child: who has it has stayed behind."""
        self._holder: weakref.ref[Holder] | None = None
        self._thread: int | None = None

    @property
    def is_mine(self) -> bool:
        """Whether this very thread has it."""
        return self._thread == threading.get_ident()

    def take(
        self, holder: Holder, timeout: float | None = None, *, unless: Callable[[], bool] = lambda: False
    ) -> bool:
        """Wait until nobody else has it, *timeout* seconds at most; return whether it is the holder's now.

        It is not if *unless* returns True, which is asked whenever somebody has given it back.
        """
        me = threading.get_ident()

        def take_it() -> bool:
            with self._lock:
                if self._holder is not None and self._holder() is not None and self._thread != me:
                    return False
                self._holder, self._thread = weakref.ref(holder), me
                return True

        def done() -> bool:
            return unless() or take_it()

        if not done():
            _wait(self._sleepers, done, timeout)
        return self._holder is not None and self._holder() is holder

    def give_back(self, holder: Holder) -> None:
        """Let the next one have it, if it is still the holder's."""
        with self._lock:
            if self._holder is not None and self._holder() is holder:
                self._holder = self._thread = None
        self._sleepers.wake()


def _wait(sleepers: _Sleepers, look: Callable[[], bool], timeout: float | None) -> bool:
    ends = None if timeout is None else time.monotonic() + timeout
    mine = sleepers.lie_down()
    try:
        # Not before one lies down: it may have happened meanwhile.
        while not look():
            left = _LOOK_AGAIN if ends is None else min(ends - time.monotonic(), _LOOK_AGAIN)
            if left <= 0:
                return False
            mine.acquire(timeout=left)
        return True
    finally:
        sleepers.get_up(mine)


def seconds_for_others(most: float | None = None) -> float | None:
    """Return how long to wait for what other threads are at: *most* seconds, `None` for as long as it takes.

    That is so unless this thread is on its way out of an interrupt, or of the process (`KeyboardInterrupt`,
    `SystemExit`). Then there are some tenths of a second, all in all; what takes longer is left behind: its
    thread goes on by itself, and what comes of it is forgotten.
    """
    error = sys.exc_info()[1]
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            # Noted at the interrupt itself: those who let go one after the other share the time.
            ends: float = error.__dict__.setdefault("_castore_ends", time.monotonic() + _AFTER_INTERRUPT)
            left = max(ends - time.monotonic(), 0.0)
            return left if most is None else min(left, most)
        error = error.__context__
        seen += 1
    return most
