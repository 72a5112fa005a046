"""Children of a fork, and other processes, that do something and say how it went."""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Callable

SECONDS = 60.0
"""No child takes so long, unless it hangs."""


def in_a_child(call: Callable[[], object]) -> None:
    """Fork; fail if *call* raises in the child, or hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - not seen in a child
        code = 1
        try:
            os.close(reading)
            call()
            code = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writing)
    try:
        said = b""
        while True:
            ready, _, _ = select.select([reading], [], [], SECONDS)
            if not ready:
                os.kill(child, signal.SIGKILL)
                raise AssertionError("the child hangs")
            data = os.read(reading, 1 << 16)
            if not data:
                break
            said += data
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"in the child:\n{said.decode()}"
