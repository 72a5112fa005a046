"""Saying that a part fails, and not each time that it does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from castore.threads import forks

_SILENT_SECONDS: Final = 60.0


class Remarks:
    """Logs warnings of one kind: the first, and after that one a minute, with how many there were meanwhile.

    A part that is down fails for each chunk of each blob. Whoever reads a log, or the messages of a command,
    has to be told once.

    Arguments:
        log: Where they go.
        clock: Tells the time in seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = forks.new_lock()
        self._said_at: float | None = None
        self._unsaid = 0

    def warn(self, message: str, *arguments: object, times: int = 1) -> None:
        """Log a warning about something that has happened *times* times, unless it was just said."""
        with self._lock:
            now = self._clock()
            if self._said_at is not None and now - self._said_at < _SILENT_SECONDS:
                self._unsaid += times
                return
            more = self._unsaid + times - 1
            self._said_at, self._unsaid = now, 0
        self._log.warning(f"{message}%s", *arguments, f" (and {more} more)" if more else "")
