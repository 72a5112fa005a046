"""Asking the next member before the last one has answered, when it takes longer than usual."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

import attrs

from castore.composites.members import Ask, K, Member, Poll, give_up
from castore.errors import CastoreError, UnavailableError
from castore.threads import forks
from castore.threads.deadlines import CLOCK, Clock, Pending
from castore.threads.waiting import Flag

T = TypeVar("T")

_BURST: Final = 10.0
"""How many questions may be hedged at once after a quiet time."""


class Hedge:
    """When to hedge, and how often.

    Arguments:
        after: So many seconds without an answer, and the next member is asked as well; for many things as
            many times longer as a timeout is for them.
        budget: How many things may be asked for twice, as a share of all; ten in a row at most, or all of one
            call that has more.
        clock: What the waiting is done with.
    """

    def __init__(self, after: float, *, budget: float = 0.05, clock: Clock = CLOCK) -> None:
        self._after = after
        self._share = budget
        self._clock = clock
        self._lock = forks.new_lock()
        self._left = _BURST
        self.hedged = 0
        """How many things were asked for twice."""

    def hold(
        self,
        poll: Poll[K, T],
        members: Sequence[Member],
        ask: Ask[K, T],
        periods_for: Callable[[Collection[K]], int],
        late: Callable[[Any], object] | None,
    ) -> None:
        """Ask in turn, on threads of the members; the first answer counts."""
        things = len(poll.open)
        with self._lock:
            # More than a burst is saved only for a call that needs it.
            grown = min(self._left + self._share * things, max(_BURST, things))
            self._left = max(self._left, grown)
        race = _Race(poll, members, ask, periods_for=periods_for, late=late, clock=self._clock)
        try:
            race.run(self._after, self._spend)
        finally:
            race.end()

    def _spend(self, things: int) -> bool:
        with self._lock:
            if self._left < things:
                return False
            self._left -= things
            self.hedged += things
            return True


@attrs.frozen(eq=False)
class _Runner(Generic[K, T]):
    member: Member
    asked: Collection[K]
    pending: Pending[Mapping[K, T | CastoreError | None]]
    seconds: float
    """How long it may take."""
    ends: float
    """When that is over."""


class _Race(Generic[K, T]):
    def __init__(
        self,
        poll: Poll[K, T],
        members: Sequence[Member],
        ask: Ask[K, T],
        *,
        periods_for: Callable[[Collection[K]], int],
        late: Callable[[Any], object] | None,
        clock: Clock,
    ) -> None:
        self._poll = poll
        self._upcoming = list(reversed(members))
        self._ask = ask
        self._periods_for = periods_for
        self._late = late
        self._clock = clock
        self._bell = Flag()
        self._runners: list[_Runner[K, T]] = []

    def run(self, after: float, spend: Callable[[int], bool]) -> None:
        """Return when there is an answer to everything, or all members have had their say."""
        hedge_at = math.inf
        while self._poll.open and (self._runners or self._upcoming):
            now = self._clock.now()
            if not self._runners:
                hedge_at = now + self._start() * after
            elif now >= hedge_at:
                may = bool(self._upcoming) and spend(len(self._poll.open))
                hedge_at = now + self._start() * after if may else math.inf
            if self._runners:
                self._wait(hedge_at if self._upcoming else math.inf)
                self._collect()

    def _start(self) -> int:
        """Ask the next member for what is open; return for how many periods."""
        member = self._upcoming.pop()
        rest = list(self._poll.open)
        periods = self._periods_for(rest)
        try:
            call = partial(self._ask, member, rest)
            pending = member.deadlines.start(call, late=self._late, then=self._bell.set)
        except UnavailableError as error:
            self._fault(member, error, rest)
        else:
            seconds = math.inf if member.timeout is None else member.timeout * periods
            self._runners.append(_Runner(member, rest, pending, seconds, self._clock.now() + seconds))
        return periods

    def _wait(self, hedge_at: float) -> None:
        until = min(hedge_at, *(entry.ends for entry in self._runners))
        if not any(entry.pending.done for entry in self._runners):
            seconds = None if until == math.inf else max(until - self._clock.now(), 0.0)
            self._clock.wait(self._bell, seconds)
        self._bell.clear()

    def _collect(self) -> None:
        """Take in what there is of answers, and give up those whose time is over."""
        now = self._clock.now()
        for entry in list(self._runners):
            member = entry.member
            if not self._poll.open:
                return  # What else has come is late.
            if not entry.pending.done and now < entry.ends:
                continue
            self._runners.remove(entry)
            if entry.pending.abandon():
                error = UnavailableError(member.name, f"no answer within {entry.seconds:g} s")
                self._fault(member, error, entry.asked)
                continue
            try:
                answers = entry.pending.result()
            except CastoreError as error:
                self._fault(member, error, entry.asked)
            else:
                member.failures = 0
                self._poll.note(member, answers, entry.asked)

    def _fault(self, member: Member, error: CastoreError, asked: Collection[K]) -> None:
        member.note(error)
        self._poll.note_fault(member, error, asked)

    def end(self) -> None:
        """Let go of the calls that are not waited for any more."""
        for entry in self._runners:
            give_up(entry.pending, self._late)
