"""How much at once, and how much in a second."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from castore.threads import forks
from castore.threads.waiting import Flag

_BURST_SECONDS: Final = 0.1

_LOOK_AGAIN: Final = 1.0
"""In seconds: who was interrupted may have woken nobody."""


class Ticket:
    """What entitles to *number* slots: a variable of the function that uses them, and gone with that."""

    __slots__ = ("__weakref__", "_turn", "number", "thread")

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.thread = threading.get_ident()
        self._turn: Flag | None = None

    @property
    def turn(self) -> Flag:
        """Set when it is its turn, for those who have to wait: most never do."""
        if self._turn is None:
            self._turn = Flag()
        return self._turn


class Slots:
    """So many at once. Those who wait are served in the order in which they came.

    A thread has one ticket at a time. One that an interrupt has kept from being given back counts no longer
    once it is gone, with the traceback, or its thread takes another.

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
        self._held: list[weakref.ref[Ticket]] = []
        self._waiting: deque[weakref.ref[Ticket]] = deque()

    @property
    def taken(self) -> int:
        """How many are in use."""
        return sum(ticket.number for ticket in _alive(self._held))

    @property
    def waiting(self) -> int:
        """How many wait for slots."""
        return len(_alive(self._waiting))

    def take(self, ticket: Ticket) -> None:
        """Wait for the slots of a ticket, no more than there are; it must be given back."""
        thread = ticket.thread if self._wait is None else None
        with self._lock:
            taken = 0
            held = []
            for reference in self._held:
                other = reference()
                if other is not None and other.thread != thread:
                    held.append(reference)
                    taken += other.number
            self._held = held
            mine = weakref.ref(ticket)
            if not self._waiting and self.count - taken >= ticket.number:
                held.append(mine)  # as mostly
                return
            turn = ticket.turn
            self._waiting.append(mine)
            self._pass_on()
        while not turn.is_set():
            if self._wait is not None:
                self._wait(turn)
            elif not turn.wait(_LOOK_AGAIN):
                with self._lock:
                    self._pass_on()

    def give_back(self, ticket: Ticket) -> None:
        """Let the next ones have the slots, or wait for them no longer."""
        with self._lock:
            mine = weakref.ref(ticket)
            if mine in self._held:
                self._held.remove(mine)
            if self._waiting:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                self._pass_on()

    def _pass_on(self) -> None:
        self._held = [other for other in self._held if other() is not None]
        while self._waiting:
            ticket = self._waiting[0]()
            # In this order: what an interrupt leaves half done is done by the next one.
            if ticket is not None and self._waiting[0] not in self._held:
                if self.count - self.taken < ticket.number:
                    return
                self._held.append(self._waiting[0])
            if ticket is not None:
                ticket.turn.set()
            self._waiting.popleft()


def _alive(tickets: Iterable[weakref.ref[Ticket]]) -> list[Ticket]:
    return [ticket for reference in list(tickets) if (ticket := reference()) is not None]


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
            level = min(self._level + came_in, self._most) - units
            self._level = level
            self._filled_at = now
        return 0.0 if level >= 0 else -level / self._per_second
