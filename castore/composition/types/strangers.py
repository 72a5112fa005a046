"""Code of plugins, which castore runs and did not write: what it prints, and what it raises."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

from castore.threads import forks


def is_fault(error: BaseException) -> bool:
    """Tell whether what a plugin raised is its own fault, and nobody's wish to stop.

    Plain `SystemExit` is a fault: a plugin does not end the program. One of a class of its own is what
    somebody raises on purpose, as castore does at a signal.
    """
    if isinstance(error, Exception) or type(error) is SystemExit:
        return True
    # By its name: nobody else needs asyncio here. What is castore's own is a wish as well.
    cancelled = type(error).__name__ in {"CancelledError", "Cancelled"}
    own = type(error).__module__.startswith("castore.")
    return not (cancelled or own or isinstance(error, (KeyboardInterrupt, GeneratorExit, SystemExit)))


class _Divided:
    """Stands for `sys.stdout`: some threads have stderr instead, all others what it was."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.threads: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        elsewhere = threading.get_ident() in self.threads and sys.stderr is not None
        return getattr(sys.stderr if elsewhere else self.stream, name)


_lock: Final = forks.new_lock()


@contextlib.contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Let what this thread prints go to stderr: stdout has what somebody asked for, and may be a file."""
    me = threading.get_ident()
    with _lock:
        if not isinstance(sys.stdout, _Divided):
            sys.stdout = _Divided(sys.stdout)
        divided: _Divided = sys.stdout
        divided.threads[me] = divided.threads.get(me, 0) + 1
    try:
        yield
    finally:
        with _lock:
            divided.threads[me] -= 1
            if not divided.threads[me]:
                del divided.threads[me]
            # Somebody may have put another stream in its place in the meantime.
            if not divided.threads and sys.stdout is divided:
                sys.stdout = divided.stream
