"""Asking the next child before the last one has answered, when it takes longer than usual."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import attrs

from castore.composites.members import Found, Member, Votes
from castore.errors import CastoreError, UnavailableError
from castore.threads.deadlines import CLOCK, Clock, Pending

T = TypeVar("T")

_BURST: Final = 10.0
"""How many hedged calls may come at once after a quiet time."""


class Hedge:
    """When to hedge, and how often.

    Arguments:
        after: So many seconds without an answer, and the next child is asked as well.
        budget: How many calls may be hedged, as a share of all calls; ten in a row at most.
        clock: What the waiting is done with.
    """

    def __init__(self, after: float, *, budget: float = 0.05, clock: Clock = CLOCK) -> None:
        self._after = after
        self._share = budget
        self._clock = clock
        self._lock = threading.Lock()
        self._left = _BURST
        self.hedged = 0
        """How many calls were hedged."""

    def first(
        self,
        members: Sequence[Member],
        ask: Callable[[Member], T | None],
        late: Callable[[T | None], object] | None,
    ) -> tuple[Found[T] | None, Votes]:
        """Ask as `Members.first` does, on threads of the children; whoever has an answer first has it."""
        with self._lock:
            self._left = min(self._left + self._share, _BURST)
        race = _Race(members, ask, late, self._clock)
        try:
            return race.run(self._after, self._spend), race.votes
        finally:
            race.end()

    def _spend(self) -> bool:
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            self.hedged += 1
            return True


@attrs.frozen(eq=False)
class _Runner(Generic[T]):
    member: Member
    pending: Pending[T | None]
    ends: float
    """When its time is over."""


class _Race(Generic[T]):
    def __init__(
        self,
        members: Sequence[Member],
        ask: Callable[[Member], T | None],
        late: Callable[[T | None], object] | None,
        clock: Clock,
    ) -> None:
        self._upcoming = list(reversed(members))
        self._ask = ask
        self._late = late
        self._clock = clock
        self._bell = threading.Event()
        self._runners: list[_Runner[T]] = []
        self.votes = Votes()

    def run(self, after: float, spend: Callable[[], bool]) -> Found[T] | None:
        """Return the first answer; `None` if all children have been asked, and none has one."""
        hedge_at = math.inf
        while True:
            if not self._runners:
                if not self._upcoming:
                    return None
                hedge_at = self._start() + after
            now = self._clock.now()
            if now >= hedge_at:
                hedge_at = self._start() + after if self._upcoming and spend() else math.inf
            until = min(hedge_at if self._upcoming else math.inf, *(entry.ends for entry in self._runners))
            if not any(entry.pending.done for entry in self._runners):
                self._clock.wait(self._bell, None if until == math.inf else max(until - now, 0.0))
            self._bell.clear()
            found = self._collect()
            if found is not None:
                return found

    def _start(self) -> float:
        """Ask the next child; return when."""
        member = self._upcoming.pop()
        now = self._clock.now()
        try:
            pending = member.deadlines.start(lambda: self._ask(member), late=self._late, then=self._bell.set)
        except UnavailableError as error:
            self._fault(member, error)
        else:
            ends = math.inf if member.timeout is None else now + member.timeout
            self._runners.append(_Runner(member, pending, ends))
        return now

    def _collect(self) -> Found[T] | None:
        """Take in what there is of answers, and give up those whose time is over."""
        now = self._clock.now()
        for entry in list(self._runners):
            member = entry.member
            if not entry.pending.done and now < entry.ends:
                continue
            self._runners.remove(entry)
            if entry.pending.abandon():
                self._fault(member, UnavailableError(member.name, f"no answer within {member.timeout:g} s"))
                continue
            try:
                answer = entry.pending.result()
            except CastoreError as error:
                self._fault(member, error)
                continue
            member.failures = 0
            if answer is not None:
                return Found(answer, member, self.votes)
            self.votes.missed.append(member)
        return None

    def _fault(self, member: Member, error: CastoreError) -> None:
        member.note(error)
        if member.final:
            raise error
        self.votes.faults.append((member, error))

    def end(self) -> None:
        """Let go of the calls that are not waited for any more."""
        for entry in self._runners:
            if not entry.pending.abandon() and self._late is not None:
                with contextlib.suppress(CastoreError):
                    self._late(entry.pending.result())
