"""How much at once, and how much in a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from castore.threads import forks
from castore.threads.waiting import Flag

_BURST_SECONDS: Final = 0.1


class Slots:
    """So many at once. Those who wait are served in the order in which they came.

    *wait*, if given, returns when the event that it is given is set.

    Attributes:
        count: How many there are.
    """

    def __init__(self, count: int, wait: Callable[[Flag], object] | None = None) -> None:
        self.count = count
        self._wait = wait
        self._lock = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Have all of them free, in a child of a fork: those who have them have stayed behind."""
        self._free = self.count
        self._waiting: deque[tuple[int, Flag]] = deque()

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self.count - self._free

    @property
    def waiting(self) -> int:
        """How many wait for slots."""
        return len(self._waiting)

    def take(self, number: int = 1) -> None:
        """Wait for *number* slots, no more than there are; they must be given back."""
        with self._lock:
            if self._free >= number and not self._waiting:
                self._free -= number
                return
            turn = Flag()
            entry = (number, turn)
            self._waiting.append(entry)
        try:
            if self._wait is None:
                turn.wait()
            else:
                self._wait(turn)
        except BaseException:
            with self._lock:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                    self._pass_on(0)
                else:
                    # They came in the same moment.
                    self._pass_on(number)
            raise

    def give_back(self, number: int = 1) -> None:
        """Let the next ones have the slots."""
        with self._lock:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        self._free = min(self._free + number, self.count)
        while self._waiting and self._free >= self._waiting[0][0]:
            taken, turn = self._waiting.popleft()
            self._free -= taken
            turn.set()


class Rate:
    """A bucket that fills with *per_second* units each second, up to a tenth of that, or *least*.

    Who takes more than there is has to wait until that has come in, and so has everybody after that.
    """

    def __init__(self, per_second: float, clock: Callable[[], float], *, least: float = 0.0) -> None:
        self._per_second = per_second
        self._clock = clock
        self._lock = forks.new_lock()
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
