"""One of all processes that share near brings something from far; the others wait until it is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, TypeVar

from castore import B3Digest, CastoreError
from castore.threads.deadlines import CLOCK, Clock
from castore.threads.waiting import Flag
from castore_cache.near import Near

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05
"""In seconds: how long until one looks again whether another process is done."""


class ProcessTurns:
    """Lets one process at a time bring a digest to near, if near is a `SharedPlace`.

    What near cannot do for this, or fails at, is done without: then each process brings it for itself. So it
    does when another one takes longer than *wait* seconds; one that dies gives way at once.
    """

    def __init__(self, near: Near, wait: float = 60.0, clock: Clock = CLOCK) -> None:
        self._near = near
        self._wait = wait
        self._clock = clock
        self._never = Flag()

    def take_one(
        self, digest: B3Digest, *, look: Callable[[], T | None], bring: Callable[[], T], spare: bool = False
    ) -> T:
        """Return what *look* finds, or *bring* returns, of one digest; see `take`."""

        def look_for_all(digests: Collection[B3Digest]) -> dict[B3Digest, T]:
            found = look()
            return {} if found is None else dict.fromkeys(digests, found)

        def bring_all(digests: Collection[B3Digest]) -> dict[B3Digest, T]:
            return dict.fromkeys(digests, bring())

        return self.take((digest,), look=look_for_all, bring=bring_all, spare=spare)[digest]

    def take(
        self,
        digests: Iterable[B3Digest],
        *,
        look: Callable[[Collection[B3Digest]], Mapping[B3Digest, T]],
        bring: Callable[[Collection[B3Digest]], Mapping[B3Digest, T]],
        spare: bool = False,
    ) -> dict[B3Digest, T]:
        """Return what *look* finds in near when other processes have brought it, else what *bring* returns.

        *look* leaves out what it does not find, *bring* nothing. With *spare* one looks first even if there
        are no other processes. No turn is held while others are waited for.
        """
        rest = list(dict.fromkeys(digests))
        answers: dict[B3Digest, T] = {}
        ends = self._clock.now() + self._wait
        pause = _FIRST_PAUSE
        while True:
            with contextlib.ExitStack() as stack:
                alone = self._enter(stack, rest)
                if spare or self._near.place is not None:
                    answers.update(look(rest))
                rest = [digest for digest in rest if digest not in answers]
                mine = rest if self._clock.now() >= ends else [digest for digest in rest if digest in alone]
                if mine:
                    answers.update(bring(mine))
            rest = [digest for digest in rest if digest not in answers]
            if not rest:
                return answers
            self._clock.wait(self._never, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _enter(self, stack: contextlib.ExitStack, digests: list[B3Digest]) -> Collection[B3Digest]:
        """Enter turns, to be left with *stack*; return those that are this process's, or cannot be had."""
        place = self._near.place
        if place is None:
            return digests
        try:
            context = place.try_alone(digests)
            alone = context.__enter__()
        except CastoreError as fault:
            self._near.note(fault)
            return digests

        def leave() -> None:
            self._near.attempt(lambda: context.__exit__(None, None, None))

        stack.callback(leave)
        return alone
