"""How much at once, and how much in a second."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

_BURST_SECONDS: Final = 0.1


class Slots:
    """So many at once. Those who wait are served in the order in which they came.

    *wait*, if given, returns when the event that it is given is set.
    """

    def __init__(self, count: int, wait: Callable[[threading.Event], object] | None = None) -> None:
        self._wait = wait
        self._lock = threading.Lock()
        self._count = self._free = count
        self._waiting: deque[threading.Event] = deque()

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self._count - self._free

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def take(self) -> None:
        """Wait for a slot; it must be given back."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            if self._wait is None:
                turn.wait()
            else:
                self._wait(turn)
        except BaseException:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    # It came in the same moment.
                    self._pass_on()
            raise

    def give_back(self) -> None:
        """Let the next one have the slot."""
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1


class Rate:
    """A bucket that fills with *per_second* units each second, up to a tenth of that, or *least*.

    Who takes more than there is has to wait until that has come in, and so has everybody after that.
    """

    def __init__(self, per_second: float, clock: Callable[[], float], *, least: float = 0.0) -> None:
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._most = self._level = max(per_second * _BURST_SECONDS, least)
        self._filled_at = clock()

    def take(self, units: float) -> float:
        """Take units; return how many seconds to wait for that."""
        with self._lock:
            now = self._clock()
            came_in = (now - self._filled_at) * self._per_second
            self._level = min(self._level + came_in, self._most) - units
            self._filled_at = now
            return max(-self._level / self._per_second, 0.0)
