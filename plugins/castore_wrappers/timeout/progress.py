"""Whether a call that is given iterators is at work on what these yield, or waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from castore.threads.deadlines import Clock

T = TypeVar("T")


class Watched:
    """Notes when something is taken from iterators, and when they are at work themselves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken = 0
        self._seen = 0
        self._at_work = 0
        self.has_any = False

    def over(self, iterator: Iterator[T]) -> Iterator[T]:
        """Yield what *iterator* yields."""
        self.has_any = True
        return self._watch(iterator)

    def _watch(self, iterator: Iterator[T]) -> Iterator[T]:
        ended = object()
        while True:
            self._at_work += 1
            try:
                item = next(iterator, ended)
            finally:
                self._at_work -= 1
                self._taken += 1
            if item is ended:
                return
            yield item  # type: ignore[misc] # it is no sentinel

    def take_progress(self) -> bool:
        """Tell whether anything was taken since the last time, or an iterator is at work now."""
        taken, self._seen = self._taken - self._seen, self._taken
        return bool(taken or self._at_work)
