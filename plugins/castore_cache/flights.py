"""One request for many who want the same at the same time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar, cast

from castore.threads import forks
from castore.threads.deadlines import CLOCK, Clock
from castore.threads.waiting import Flag

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_NOTHING: Final = object()


class Flight(Generic[T]):
    """A request on its way, made by its leader for all who wait for it."""

    __slots__ = ("_answer", "_ended")

    def __init__(self) -> None:
        self._ended = Flag()
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

    Who asks for many things leads those that nobody is at, and has done with all of them before it waits for
    the others. So a wait is always for a thread that waits for no flight, and no circle of waits can come of
    it, whatever is asked for in whichever order, and in whichever pool a leader runs.
    """

    def __init__(self, wait: float = 60.0, clock: Clock = CLOCK) -> None:
        self._wait = wait
        self._clock = clock
        self._lock = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)
        self.landed = 0
        """How many have ended. Who looked elsewhere before knows by it whether to look again."""

    def begin_anew(self) -> None:
        """Have none, in a child of a fork: their leaders have stayed behind."""
        self._flights: dict[Hashable, Flight[Any]] = {}

    def join(self, key: Hashable, lead: Callable[[Flight[T]], T], alone: Callable[[], T]) -> T:
        """Return the answer to one request, which is what *lead* returns; see `join_many`."""

        def lead_one(led: Mapping[Hashable, Flight[T]]) -> dict[Hashable, T]:
            answer = lead(led[key])
            led[key].give(answer)
            return {key: answer}

        return self.join_many((key,), lead_one, lambda keys: dict.fromkeys(keys, alone()))[key]

    def join_many(
        self,
        keys: Iterable[K],
        lead: Callable[[Mapping[K, Flight[T]]], Mapping[K, T]],
        alone: Callable[[list[K]], Mapping[K, T]],
    ) -> dict[K, T]:
        """Return the answers to many requests.

        Arguments:
            keys: What is asked for.
            lead: Makes those requests that nobody is at. It gives each flight its answer, unless that is a
                failure, which is its own; what it does not `land` has landed when it returns.
            alone: Makes requests for oneself, if those who are at it take too long.

        Raises what the calls raise that were made by this thread.
        """
        answers: dict[K, T] = {}
        ends: float | None = None
        wanted = list(dict.fromkeys(keys))
        while wanted:
            led: dict[K, Flight[T]] = {}
            try:
                others = self._board(wanted, led)
                if led:
                    answers.update(lead(led))
            finally:
                self.land(led)
            wanted = []
            late: list[K] = []
            for key, flight in others.items():
                in_time = flight._ended.is_set()  # noqa: SLF001 - one thing in two classes
                if not in_time:
                    now = self._clock.now()
                    ends = now + self._wait if ends is None else ends
                    in_time = self._clock.wait(flight._ended, max(ends - now, 0.0))  # noqa: SLF001 - as above
                if flight._answer is not _NOTHING:  # noqa: SLF001 - as above
                    answers[key] = cast("T", flight._answer)  # noqa: SLF001 - as above
                else:
                    (wanted if in_time else late).append(key)
            if late:
                answers.update(alone(late))
        return answers

    def _board(self, keys: Iterable[K], led: dict[K, Flight[Any]]) -> dict[K, Flight[Any]]:
        """Put the flights that this thread leads from now on into *led*; return those that others lead."""
        others: dict[K, Flight[Any]] = {}
        with self._lock:
            for key in keys:
                flight = self._flights.get(key)
                if flight is None:
                    # In this order: an interrupt in between leaves no flight without a leader.
                    led[key] = self._flights[key] = Flight()
                else:
                    others[key] = flight
        return others

    def land(self, flights: Mapping[K, Flight[Any]]) -> None:
        """End flights that this thread leads; what has landed already is passed over."""
        # Off the list first: who wakes and finds no answer must be able to take its place.
        with self._lock:
            for key, flight in flights.items():
                if self._flights.get(key) is flight:
                    del self._flights[key]
                    self.landed += 1
        for flight in flights.values():
            flight._ended.set()  # noqa: SLF001 - one thing in two classes
