"""The command line: `castore COMMAND`, one module per command, each imported when it is called for."""

from __future__ import annotations

import gc
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line on the arguments of the process, and end the process."""
    # What is imported stays: to look through it for garbage again and again takes a tenth of a short run.
    # `Settings.opened` switches it on again.
    gc.disable()
    # An entry point that is only imported costs nothing.
    import os  # noqa: PLC0415

    # What goes wrong is told by errors; the library of gRPC would write to stderr as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from castore.cli.descriptors import occupy_closed  # noqa: PLC0415

    occupy_closed()
    from castore.cli.app import app  # noqa: PLC0415
    from castore.cli.output import take_streams  # noqa: PLC0415

    take_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # What the shell has set to be ignored, as `nohup` does, stays ignored.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)
    app.main(prog_name="castore")
    raise SystemExit(0)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """End as after an error, so that temporary files go and writers abort."""
    raise EndedBySignal(128 + number)


class EndedBySignal(SystemExit):
    """The end of the program by a signal: no plugin that is being loaded takes it for its own."""
