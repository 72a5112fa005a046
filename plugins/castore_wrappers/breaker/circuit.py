"""When a service that fails is asked, and when it is left alone."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from castore.threads import forks

State: TypeAlias = Literal["closed", "open", "half-open"]

STATES: Final[tuple[State, ...]] = ("closed", "open", "half-open")


class Verdict(enum.Enum):
    """What came of a request."""

    ANSWERED = enum.auto()
    FAILED = enum.auto()
    UNKNOWN = enum.auto()
    """It says nothing about the service: it was interrupted, or never got there."""


class Circuit:
    """Closed while all is well, open after failures in a row, and half open when it is time for a probe.

    Whoever makes a request enters before and leaves afterwards. A probe is one request: while it is on its
    way all others are refused; but one that has taken longer than the circuit stays open does not keep the
    next one from being made. What was begun before the circuit opened or closed changes nothing any more.
    """

    def __init__(self, failures: int, open_for: float, clock: Callable[[], float]) -> None:
        self._failures = failures
        self._open_for = open_for
        self._clock = clock
        self._lock = forks.new_lock()
        self._closed = True
        self._in_a_row = 0
        self._era = 0
        self._probing = False
        self._quiet_until = 0.0

    @property
    def state(self) -> State:
        """Where it stands now."""
        with self._lock:
            if self._closed:
                return "closed"
            return "half-open" if self._probing or self._clock() >= self._quiet_until else "open"

    @property
    def remaining(self) -> float:
        """For how many seconds from now no request is let through, if none before comes back well."""
        return max(self._quiet_until - self._clock(), 0.0)

    def enter(self) -> int | None:
        """Return what to leave with, or `None`: the request is not to be made."""
        if self._closed:  # Without the lock: the usual case, and a request more does no harm.
            return self._era
        with self._lock:
            if self._closed:
                return self._era
            now = self._clock()
            if now < self._quiet_until:
                return None
            self._era += 1
            self._probing = True
            self._quiet_until = now + self._open_for
            return self._era

    def leave(self, era: int, verdict: Verdict) -> bool:
        """Take note of what came of a request; return whether the circuit has opened or closed by it."""
        if verdict is Verdict.ANSWERED and self._closed and not self._in_a_row:
            return False  # Without the lock: the usual case, and nothing changes.
        with self._lock:
            if era != self._era:
                return False
            return self._leave_closed(verdict) if self._closed else self._leave_probe(verdict)

    def _leave_closed(self, verdict: Verdict) -> bool:
        if verdict is Verdict.ANSWERED:
            self._in_a_row = 0
        elif verdict is Verdict.FAILED:
            self._in_a_row += 1
            if self._in_a_row >= self._failures:
                self._closed = False
                self._era += 1
                self._quiet_until = self._clock() + self._open_for
                return True
        return False

    def _leave_probe(self, verdict: Verdict) -> bool:
        self._probing = False
        if verdict is Verdict.ANSWERED:
            self._closed = True
            self._in_a_row = 0
            self._era += 1
            return True
        # One that says nothing makes room for the next probe.
        self._quiet_until = self._clock() + (self._open_for if verdict is Verdict.FAILED else 0.0)
        return False
