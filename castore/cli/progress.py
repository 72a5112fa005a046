"""A progress bar for long work: on a terminal only, and only once the work turns out to be long."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from castore.cli.output import is_terminal
from castore.text import size_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHORT_SECONDS: Final = 0.3
_SHORT_BYTES: Final = 4 << 20
_REDRAW_SECONDS: Final = 0.1
_ERASE_LINE: Final = "\r\x1b[2K"


class ProgressMeter:
    """One line on stderr: bytes done of all, rate, time left, and the number of files if there are several.

    It says nothing where stderr is no terminal. It draws itself when it is told of progress: no thread
    does, so that lines for the same terminal never meet it halfway.

    Arguments:
        total: Bytes in all, `None` if that is not known.
        files: How many files they are in.
        hidden: Show nothing at all.
    """

    def __init__(self, total: int | None, files: int = 1, *, hidden: bool = False) -> None:
        self._total = total
        self._files = files
        self._done = 0
        self._files_done = 0
        self._active = not hidden and is_terminal(sys.stderr)
        self._started = self._drawn = time.monotonic()
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def advance(self, count: int) -> None:
        """Note that *count* more bytes are done."""
        if self._active:
            self._done += count
            self._redraw()

    def file_done(self) -> None:
        """Note that one more file is done."""
        if self._active:
            self._files_done += 1
            self._redraw()

    def step_aside(self) -> None:
        """Take the bar away for a line that is written to the terminal; the next redraw brings it back."""
        if self._bar is not None:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()

    def _redraw(self) -> None:
        now = time.monotonic()
        if self._bar is None:
            if now - self._started < _SHORT_SECONDS and (self._total or 0) < _SHORT_BYTES:
                return
            self._bar = _new_bar(self._total)
        elif now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        progress, task = self._bar
        # Room for the `^C` of who interrupts: if the line broke there, the bar would stay behind.
        progress.console.width = max(20, (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 3)
        progress.update(task, completed=self._done, status=self._status(progress.tasks[task].speed))
        progress.refresh()

    def _status(self, speed: float | None) -> str:
        words = [
            size_text(self._done)
            if self._total is None
            else f"{size_text(self._done)} of {size_text(self._total)}"
        ]
        if speed:
            words.append(f"{size_text(int(speed))}/s")
        if self._files > 1:
            words.append(f"{self._files_done}/{self._files} files")
        return "  ".join(words)


def _new_bar(total: int | None) -> tuple[Progress, TaskID]:
    # It takes a tenth of a second to import: most runs need no bar.
    from rich import progress as rich_progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    columns = (
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        # One line, whatever the width: that is what `step_aside` erases.
        rich_progress.TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True)),
        rich_progress.TimeRemainingColumn(compact=True),
    )
    progress = rich_progress.Progress(
        *columns,
        console=Console(file=sys.stderr),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task("", total=total, status="")
    progress.start()
    return progress, task
