"""One request for many who want the same at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar, cast

from castore.threads.deadlines import CLOCK, Clock

T = TypeVar("T")

_NOTHING: Final = object()


class Flight(Generic[T]):
    """A request on its way, made by its leader for all who wait for it."""

    __slots__ = ("_answer", "_ended")

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._answer: Any = _NOTHING

    def give(self, answer: T) -> None:
        """Give those who wait what they wait for, though the leader still has something to do with it."""
        if self._answer is _NOTHING:
            self._answer = answer
            self._ended.set()


class Flights:
    """The requests that are on their way.

    A leader works for itself and gives its answer to the others. One that fails has failed for itself alone:
    another of those who wait makes the request anew. Nobody waits for others longer than *wait* seconds, all
    in all; then everybody helps himself.

    A wait is always for a thread that runs, and the leader works on what lies beneath the cache, where nobody
    waits for this cache's flights. So no circle of waits can come of it, in whichever pool a leader runs.
    """

    def __init__(self, wait: float = 60.0, clock: Clock = CLOCK) -> None:
        self._wait = wait
        self._clock = clock
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight[Any]] = {}
        self.landed = 0
        """How many have ended. Who looked elsewhere before knows by it whether to look again."""

    def join(self, key: Hashable, lead: Callable[[Flight[T]], T], alone: Callable[[], T]) -> T:
        """Return the answer to a request.

        Arguments:
            key: What is asked for.
            lead: Makes the request, if nobody is at it.
            alone: Makes it for oneself, if who is at it takes too long.

        Raises what the call raises that was made by this thread.
        """
        ends: float | None = None
        while True:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    own: Flight[T] = Flight()
                    self._flights[key] = own
                    break
            if not flight._ended.is_set():  # noqa: SLF001 - one thing in two classes
                now = self._clock.now()
                ends = now + self._wait if ends is None else ends
                if not self._clock.wait(flight._ended, max(ends - now, 0.0)):  # noqa: SLF001 - as above
                    return alone()
            if flight._answer is not _NOTHING:  # noqa: SLF001 - as above
                return cast("T", flight._answer)  # noqa: SLF001 - as above
        return self._lead(key, own, lead)

    def _lead(self, key: Hashable, flight: Flight[T], lead: Callable[[Flight[T]], T]) -> T:
        try:
            answer = lead(flight)
            flight.give(answer)
            return answer
        finally:
            # Off the list first: who wakes and finds no answer must be able to take its place.
            with self._lock:
                del self._flights[key]
                self.landed += 1
            flight._ended.set()  # noqa: SLF001 - as above
