"""One of all processes that share near brings something from far; the others wait until it is there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from castore import B3Digest, CastoreError
from castore.threads.deadlines import CLOCK, Clock
from castore_cache.near import Near

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05
"""In seconds: how long until one looks again whether another process is done."""


class Turns:
    """Lets one process at a time bring a digest to near, if near is a `SharedPlace`.

    What near cannot do for this, or fails at, is done without: then each process brings it for itself. So it
    does when another one takes longer than *wait* seconds; one that dies gives way at once.
    """

    def __init__(self, near: Near, wait: float = 60.0, clock: Clock = CLOCK) -> None:
        self._near = near
        self._wait = wait
        self._clock = clock
        self._never = threading.Event()

    def take(
        self, digest: B3Digest, *, look: Callable[[], T | None], bring: Callable[[], T], spare: bool = False
    ) -> T:
        """Return what *look* finds in near when another process has brought it, else what *bring* returns.

        With *spare* one looks first even if there are no other processes.
        """
        place = self._near.place
        if place is None:
            found = look() if spare else None
            return bring() if found is None else found
        ends = self._clock.now() + self._wait
        pause = _FIRST_PAUSE
        while True:
            with contextlib.ExitStack() as stack:
                alone = self._enter(stack, lambda: place.try_alone(digest))
                found = look()
                if found is not None:
                    return found
                if alone or self._clock.now() >= ends:
                    return bring()
            self._clock.wait(self._never, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _enter(
        self, stack: contextlib.ExitStack, turn: Callable[[], contextlib.AbstractContextManager[bool]]
    ) -> bool:
        """Enter a turn, to be left with *stack*; return whether it is this process's, or none can be had."""
        try:
            context = turn()
            alone = context.__enter__()
        except CastoreError as fault:
            self._near.note(fault)
            return True

        def leave() -> None:
            self._near.attempt(lambda: context.__exit__(None, None, None))

        stack.callback(leave)
        return alone
