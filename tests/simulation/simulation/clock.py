"""A clock that stands until all wait, and threads of which one runs at a time: the same each time.

Whoever waits hands over to another who can go on, chosen by dice; if there is none the time moves to when the
first of them is due. So an hour costs nothing, and equal dice give an equal story, with all its races.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from random import Random
from typing import Final

from castore.threads.deadlines import Clock

_ENDLESS: Final = 20_000.0
"""In seconds: whoever waits for longer, without a limit of its own, waits in vain."""


class StuckError(Exception):
    """The first strand waits for others, and no time will change that."""


class _EndedError(BaseException):
    """Unwinds a strand that is not wanted any more."""


class _Strand:
    """One of those that take turns, on a thread of its own."""

    __slots__ = ("baton", "due", "ended", "event", "name", "work")

    def __init__(self, name: str) -> None:
        self.name = name
        self.baton = threading.Lock()
        self.baton.acquire()
        self.event: threading.Event | None = None
        self.due = math.inf
        self.ended = False
        self.work: Callable[[], object] | None = None

    def able(self, now: float) -> bool:
        return self.due <= now or (self.event is not None and self.event.is_set())


class VirtualClock(Clock):
    """Time and threads of a simulation, both virtual. Whoever makes it is its first strand.

    What runs under it must wait through it alone, and hold no lock while it waits.

    Arguments:
        dice: Decide who goes on if several can.
    """

    patience = 0.0

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._now = 0.0
        self._main = _Strand("main")
        self._current = self._main
        self._paused: list[_Strand] = []
        self._idle: list[_Strand] = []
        self._stuck = False
        self._in_vain_from = math.inf
        """When the first strand has waited in vain, if it waits without a limit."""
        self.mistakes: list[BaseException] = []
        """What strands raised that nobody was there to catch."""

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return self._now

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Let others go on until *event* is set, at most so many seconds; return whether it is."""
        if event.is_set():
            return True
        self._pause(event, math.inf if seconds is None else self._now + max(seconds, 0.0))
        return event.is_set()

    def sleep(self, seconds: float) -> None:
        """Let others go on for so many seconds."""
        self._pause(None, self._now + seconds)

    def start(self, work: Callable[[], object], name: str) -> None:
        """Let *work* be done by a new strand, which takes its turn from now on."""
        if self._idle:
            strand = self._idle.pop()
            strand.name = name
        else:
            strand = _Strand(name)
            threading.Thread(target=self._carry, args=(strand,), name="castore-strand", daemon=True).start()
        strand.work, strand.event, strand.due = work, None, self._now
        self._paused.append(strand)

    @property
    def others(self) -> list[str]:
        """The names of the strands beside the one that asks."""
        return [strand.name for strand in self._paused]

    def close(self) -> None:
        """End all other strands, wherever they are."""
        for _ in range(1000):
            if not self._paused:
                break
            for strand in self._paused:
                strand.ended, strand.due = True, self._now
            self._pause(None, self._now)
        idle, self._idle = self._idle, []
        for strand in idle:
            strand.ended = True
            strand.baton.release()

    # -- taking turns --

    def _pause(self, event: threading.Event | None, due: float) -> None:
        own = self._current
        if own.ended:
            raise _EndedError
        if not self._paused and (due < math.inf or (event is not None and event.is_set())):
            self._now = max(self._now, due) if due < math.inf else self._now
            return
        own.event, own.due = event, due
        if own is self._main:
            self._in_vain_from = self._now + _ENDLESS if due == math.inf else math.inf
        self._paused.append(own)
        following = self._choose()
        if following is not own:
            self._current = following
            following.baton.release()
            own.baton.acquire()
        if own.ended:
            raise _EndedError
        if own is self._main and self._stuck:
            self._stuck = False
            raise StuckError(", ".join(sorted(set(self.others))) or "main")

    def _choose(self) -> _Strand:
        able = [strand for strand in self._paused if strand.able(self._now)]
        if not able:
            due = min(strand.due for strand in self._paused)
            if due < min(self._in_vain_from, math.inf):
                self._now = due
                able = [strand for strand in self._paused if strand.due <= due]
            else:
                self._stuck = True
                able = [self._main]
        chosen = able[0] if len(able) == 1 else self._dice.choice(able)
        self._paused.remove(chosen)
        return chosen

    def _carry(self, strand: _Strand) -> None:
        while True:
            strand.baton.acquire()
            work, strand.work = strand.work, None
            if work is None:
                return
            try:
                if not strand.ended:
                    work()
            except _EndedError:
                pass
            except BaseException as error:
                self.mistakes.append(error)
            del work
            strand.ended = False
            self._idle.append(strand)
            following = self._choose()
            self._current = following
            following.baton.release()
