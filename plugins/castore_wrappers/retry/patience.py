"""How often, and after which waits, what was unavailable is tried again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import attrs

from castore import UnavailableError
from castore.threads import forks
from castore.threads.waiting import Flag

T = TypeVar("T")

_log: Final = logging.getLogger("castore_wrappers.retry")


@attrs.frozen
class Policy:
    """Attempts, and the waits between them. Times are in seconds."""

    attempts: int = 5
    """How often to try in all, 1 or more."""
    first_delay: float = 0.1
    """The first wait; each one after it is twice as long."""
    max_delay: float = 10.0
    """No wait is longer."""
    jitter: float = 0.5
    """Which part of a wait, 0 to 1, is left to chance: so much shorter it may be."""
    deadline: float = 60.0
    """No attempt begins later than this after the first."""

    def delays(self, dice: random.Random) -> Iterator[float]:
        """Yield the waits between the attempts."""
        delay = min(self.first_delay, self.max_delay)
        for _ in range(self.attempts - 1):
            yield delay * (1 - self.jitter * dice.random())
            delay = min(delay * 2, self.max_delay)


class Patience:
    """Tries calls until they are available, as long as *policy* says.

    Arguments:
        policy: How often, and how long.
        name: That of the instance, for errors.
        clock: Returns a time in seconds that never goes back.
        sleep: Waits so many seconds; what it returns is true if the waiting is to end for good.
        dice: Where chance comes from.
    """

    def __init__(
        self,
        policy: Policy,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        dice: random.Random | None = None,
    ) -> None:
        self.policy = policy
        self.name = name
        self.clock = clock
        self._ended = Flag()
        self._sleep = self._ended.wait if sleep is None else sleep
        self._dice = random.Random() if dice is None else dice
        self._lock = forks.new_lock()
        self.repeated = 0
        """How many attempts were made again."""
        self.given_up = 0
        """How often there was no more patience."""

    def run(self, call: Callable[[], T], again: Callable[[int], T] | None = None) -> T:
        """Return what *call* returns; while it is unavailable, wait and try again.

        Only `UnavailableError` is a reason to try again. When there is no more patience, the last one is
        raised: as it is if there was but one attempt, else in one that tells how many there were.

        Arguments:
            call: The first attempt, and each other one without *again*.
            again: The other attempts, called with their numbers, from 1.
        """
        started = self.clock()
        try:
            return call()
        except UnavailableError as error:
            return self.go_on(error, started, (lambda _: call()) if again is None else again)

    def go_on(self, error: UnavailableError, started: float, again: Callable[[int], T]) -> T:
        """As `run`, after a first attempt that was made at *started*, by the clock, and met *error*."""
        number = 0
        try:
            for delay in self.policy.delays(self._dice):
                if self.clock() - started + delay >= self.policy.deadline:
                    break
                _log.info("`%s`: trying again in %.3g s: %s", self.name, delay, error)
                if self._sleep(delay):
                    break
                number += 1
                with self._lock:
                    self.repeated += 1
                try:
                    return again(number)
                except UnavailableError as newer:
                    error = newer
            with self._lock:
                self.given_up += 1
            if not number:
                raise error
            raise UnavailableError(self.name, f"{number + 1} attempts failed; the last: {error}") from error
        finally:
            # The traceback of the error refers to this frame: they would keep each other.
            del error, again

    def end(self) -> None:
        """Wake who waits, and let nobody wait any more; unless *sleep* was given."""
        self._ended.set()
