"""Threads of a pool that take part in some work, for as long as there is any.

Where pieces of work are short, and who needs them does some as well, a task for each would cost as much as
the piece: to hand it over, and to be woken when it is done. A crew is called when there is work, and goes on
until there is none. But others want the pool, too: after a *turn* of some pieces each goes to the end of the
queue for its threads.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from castore.threads import forks
from castore.threads.pool import Pool, Task


class Crew:
    """Up to *most* threads of a pool at some work.

    Arguments:
        pool: The pool.
        most: How many may be at it at once; the thread that owns the work is not counted.
        work: Does a piece that nobody does yet; returns False if there is none. It must not raise.
        is_left: Tells whether there is such a piece; called under *lock*.
        lock: Guards the work. Who adds to it calls for help under the same lock.
        turn: How many pieces are done in a turn.
    """

    def __init__(
        self,
        pool: Pool,
        most: int,
        work: Callable[[], bool],
        is_left: Callable[[], bool],
        lock: Lock,
        *,
        turn: int,
    ) -> None:
        self._pool: Final = pool
        self._most: Final = most
        self._work: Final = work
        self._is_left: Final = is_left
        self._lock: Final = lock
        self._turn: Final = turn
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Forget who is at it, in a child: they have stayed behind."""
        self._helping = 0
        self._tasks: list[Task[None]] = []

    def call(self, pieces: int) -> None:
        """Let so many more threads take part, if that many may; called under the lock."""
        more = min(pieces, self._most - self._helping)
        if more > 0:
            self._helping += more
            for _ in range(more):
                self._queue_up()

    def _queue_up(self) -> None:
        if len(self._tasks) > 2 * self._most:
            self._tasks = [task for task in self._tasks if not task.done]
        self._tasks.append(self._pool.submit(self._help))

    def _help(self) -> None:
        pieces = 0
        while pieces < self._turn and self._work():
            pieces += 1
        with self._lock:
            # Under the lock: what is added after this calls for help anew.
            if self._is_left():
                self._queue_up()
            else:
                self._helping -= 1

    def leave(self) -> None:
        """Wait until nobody is at it; there must be no more work. They can be called again."""
        with self._lock:
            tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        for task in tasks:
            task.drop()
        with self._lock:
            # Some were taken back before they began.
            self._helping = 0


def crew_beside(pool: Pool) -> int:
    """Return how many threads of a pool make all of its cores busy, with the one that they help."""
    return min(pool.size, max(pool.size - 1, 1))
