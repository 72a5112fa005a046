"""What a server allows its clients, and the account of the bytes that it holds for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import attrs

from castore.format.wire import MOST_MESSAGE
from castore.threads import forks
from castore.threads.waiting import Bell

MOST_PER_STREAM: Final = 24 << 20
"""So many bytes a stream holds at most: what a reader fetches ahead, or a writer has under way."""


@attrs.frozen
class Limits:
    """The bounds of a server."""

    most_message: int = MOST_MESSAGE
    """Bytes of a message that is received."""
    streams: int = 24
    """How many blobs and trees are sent and received at the same time; each has a thread."""
    waiting: int = 104
    """How many more may wait for that. What is beyond is refused at once."""
    calls: int = 8
    """How many short calls are answered at the same time, beside the streams."""
    bytes_in_flight: int = 256 << 20
    """How many bytes all streams hold together."""
    idle_seconds: float = 30.0
    """A client that neither sends nor takes anything for so long is cut off."""
    crowded_seconds: float = 5.0
    """The same while others wait for a thread."""
    most_directories: int = 4 << 20
    """How many directories a tree may have that is received."""


class ByteBudget:
    """An account of bytes that all streams share.

    Arguments:
        total: How many there are.
        patience: For how many seconds a stream waits for some.
    """

    def __init__(self, total: int, patience: float) -> None:
        self._total = total
        self._patience = patience
        self._lock = forks.new_lock()
        self._freed = Bell(self._lock)
        self._held = 0

    @property
    def held(self) -> int:
        """How many are held."""
        return self._held

    @contextlib.contextmanager
    def account(self) -> Iterator[Account]:
        """Enter with an account of one stream, which is given back at the end."""
        account = Account(self)
        try:
            yield account
        finally:
            self.give_back(account.held)

    def take(self, more: int) -> None:
        """Hold *more* bytes; raise `BudgetError` if they are not to be had in time."""
        ends = time.monotonic() + self._patience

        def taken() -> bool:
            # One alone may have more than there are.
            if self._held and self._held + more > self._total:
                return False
            self._held += more
            return True

        if not self._freed.wait_for(taken, max(ends - time.monotonic(), 0.0)):
            raise BudgetError(f"the server holds {self._held} bytes for other calls; try again later")

    def give_back(self, count: int) -> None:
        """Hold so many fewer."""
        with self._lock:
            self._held -= count
            self._freed.ring()


class Account:
    """What one stream holds."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0

    def hold(self, count: int) -> None:
        """Hold *count* bytes in all, at least, and no more than a stream may."""
        more = min(count, MOST_PER_STREAM) - self.held
        if more > 0:
            self._budget.take(more)
            self.held += more


class BudgetError(Exception):
    """There are no bytes left to hold for this call."""
