"""Going on in the background: a child that says when it is ready, and until then shows what is wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from castore.cli.faults import FAILED

_READY = b"r"


def go_to_background() -> Callable[[], None]:
    """Fork, before anything is open and any thread runs; return only in the child.

    The parent waits until the child calls what is returned here, and ends with 0; or until the child has
    ended, and ends as it did. Until then the child writes to the stderr of the parent. From then on it
    belongs to no terminal, and nobody hears it.
    """
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        raise SystemExit(_wait(child, reading))
    os.close(reading)
    os.setsid()

    def ready() -> None:
        os.chdir("/")  # Else what it began in could not be unmounted.
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.close(nothing)
        os.write(writing, _READY)
        os.close(writing)

    return ready


def _wait(child: int, reading: int) -> int:
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            if pipe.read(1) == _READY:
                return 0
        _, status = os.waitpid(child, 0)
    except BaseException:
        # It has a session of its own, and gets no Ctrl-C.
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGTERM)
        raise
    code = os.waitstatus_to_exitcode(status)
    return code if code > 0 else FAILED if code == 0 else 128 - code
