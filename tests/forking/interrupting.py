"""An interrupt at a chosen point of a call, and what is asked of a service afterwards."""

from __future__ import annotations

import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import castore
import castore_memory

SECONDS = 15
"""What takes so long afterwards hangs."""

_CORE = Path(castore.__file__).parent
_PLUGINS = Path(castore_memory.__file__).parent.parent
_OWN = (f"{_CORE}/", f"{_PLUGINS}/castore_", threading.__file__, contextlib.__file__)
"""Points are taken in files whose names begin so; in no test, wherever this checkout lies."""


def _is_point(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OWN)


def _is_freeing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


class Points:
    """Counts the places in a call at which Python looks for signals, in this thread; interrupts one of them.

    It looks when a function of its own begins, and when one of C has ended. Before those of C as well it may
    have: after the step before. Only what ends a `with` is always called.
    """

    def __init__(self, at: int | None = None) -> None:
        self.count = 0
        self.where = ""
        self.quiet = False
        """Whether Python may tell nobody of an exception there."""
        self._at = at

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "return" or not _is_point(frame):
            return
        if event == "c_call" and getattr(argument, "__name__", "") == "__exit__":
            return
        self.count += 1
        if self.count == self._at:
            sys.setprofile(None)
            code = frame.f_code
            # Iterators that are freed, and what they call then, tell nobody of an exception.
            self.quiet = code.co_flags & inspect.CO_GENERATOR != 0 or _is_freeing(frame)
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_name} {event}"
            if event.startswith("c_"):
                self.where += f" {getattr(argument, '__name__', argument)}"
            raise KeyboardInterrupt

    def run(self, call: Callable[[], object]) -> BaseException | None:
        """Make a call; return the interrupt, or what else came of it."""
        sys.setprofile(self._see)
        try:
            call()
        except BaseException as error:
            return error
        finally:
            sys.setprofile(None)
        return None


class Hangs(BaseException):
    """It took too long; no `Exception`, so that nobody takes it for a failure of a store."""


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Raise `Hangs` in what takes longer than it may."""

    def stop(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
