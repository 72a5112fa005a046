"""What was in use before a change, and by whom: it is let go of once nobody is left who began with it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator

from castore.threads import forks


class _Epoch:
    __slots__ = ("close", "users")

    def __init__(self) -> None:
        self.users = 0
        self.close: Callable[[], object] | None = None


class Epochs:
    """Counts who uses what is current, from one change to the next.

    What a change has put aside is closed when all have ended who began before it. Those changes are closed
    in order: who began before a change may have got what is there since, and nothing older.

    Arguments:
        on_error: Is told what went wrong while something was closed.
    """

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self._on_error = on_error
        self._lock = forks.new_lock()
        self._epochs = deque([_Epoch()])

    @property
    def waiting(self) -> int:
        """How many changes wait for those who began before them."""
        return len(self._epochs) - 1

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Enter for as long as what is current is used."""
        with self._lock:
            epoch = self._epochs[-1]
            epoch.users += 1
        try:
            yield
        finally:
            with self._lock:
                epoch.users -= 1
            if epoch.close is not None:
                self._close_unused()

    def change(self, close: Callable[[], object]) -> None:
        """Say that something has taken the place of what was current; *close* lets go of that."""
        with self._lock:
            before = self._epochs[-1]
            self._epochs.append(_Epoch())
            before.close = close
        self._close_unused()

    def _close_unused(self) -> None:
        while True:
            with self._lock:
                first = self._epochs[0]
                if first.close is None or first.users:
                    return
                self._epochs.popleft()
            try:
                first.close()
            except Exception as error:  # noqa: BLE001 - it is told, and those after it are closed as well
                self._on_error(error)
