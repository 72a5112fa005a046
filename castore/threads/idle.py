"""Ending what waits for a peer that does nothing.

A call of gRPC has a deadline for all of it, which says nothing of a stream: one that moves may take hours,
and one that does not must end soon. So whoever is about to wait for the other side says so, and says when it
has waited; a thread looks now and then for who has waited too long, and cancels its call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Self

from castore.threads import forks

_LONGEST_PAUSE: Final = 1.0
_KEPT: Final = 2.0
"""For so many seconds the thread stays without anything to look at."""


class Waiting:
    """A call that may have to wait for its peer; enter it for as long as the call runs.

    Attributes:
        expired: Whether it was cancelled, as it has waited too long.
    """

    __slots__ = ("_cancel", "_since", "_watch", "expired")

    def __init__(self, watch: IdleWatch, cancel: Callable[[], object]) -> None:
        self._watch = watch
        self._cancel = cancel
        self._since: float | None = None
        self.expired = False

    def begin(self) -> None:
        """Say that the peer is waited for from now on."""
        self._since = self._watch.now()

    def end(self) -> None:
        """Say that it has done something."""
        self._since = None

    def look(self, now: float, most: float) -> None:
        """Cancel the call if it waits for more than *most* seconds."""
        since = self._since
        if since is not None and now - since > most and not self.expired:
            self.expired = True
            self._cancel()

    def cancel(self) -> None:
        """Cancel the call now."""
        self._cancel()

    def __enter__(self) -> Self:
        self._watch.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._since = None
        self._watch.discard(self)


class IdleWatch:
    """Cancels calls that wait for longer than *seconds* returns, which is asked each time.

    Arguments:
        seconds: How long a call may wait.
        now: The clock.
    """

    def __init__(self, seconds: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.now = now
        self._lock = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Have nothing to look at, in a child: the calls are its parent's."""
        self._calls: set[Waiting] = set()
        self._looking = False

    def over(self, cancel: Callable[[], object]) -> Waiting:
        """Return a call to be watched; *cancel* is called, from another thread, if it waits too long."""
        return Waiting(self, cancel)

    def add(self, call: Waiting) -> None:
        """Look at a call from now on."""
        with self._lock:
            self._calls.add(call)
            if not self._looking:
                self._looking = _started(self._look)

    def discard(self, call: Waiting) -> None:
        """Look at it no longer."""
        with self._lock:
            self._calls.discard(call)

    def look_once(self) -> None:
        """Cancel those that have waited too long."""
        with self._lock:
            calls = list(self._calls)
        now, most = self.now(), self.seconds()
        for call in calls:
            call.look(now, most)

    def _look(self) -> None:
        unused = 0.0
        while True:
            pause = min(self.seconds() / 4, _LONGEST_PAUSE)
            time.sleep(pause)
            self.look_once()
            with self._lock:
                unused = 0.0 if self._calls else unused + pause
                if unused > _KEPT:
                    self._looking = False
                    return


def _started(work: Callable[[], object]) -> bool:
    try:
        threading.Thread(target=work, name="castore_idle", daemon=True).start()
    except RuntimeError:
        return False  # As many run as may, or the interpreter is about to end.
    return True
