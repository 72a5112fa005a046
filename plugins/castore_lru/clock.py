"""The time of day: when something was used must mean the same to the next process, and after a restart."""

from __future__ import annotations

import time
from typing import Final

from castore.threads.deadlines import Clock


class TimeOfDay(Clock):
    """A clock that tells the seconds since 1970."""

    def now(self) -> float:
        """Return the time."""
        return time.time()


TIME_OF_DAY: Final = TimeOfDay()
