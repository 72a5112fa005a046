"""A progress bar for long work: on a terminal only, and only once the work turns out to be long."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import click

from castore.cli.output import columns_of, is_terminal, printable, wants_colour
from castore.text import count_text, size_text

_SHORT_SECONDS: Final = 0.3
_SHORT_BYTES: Final = 4 << 20
_LONG_SECONDS: Final = 2.0
"""After so much time it is said in the end what was done, however little that was."""

_REDRAW_SECONDS: Final = 0.1
_RATE_SECONDS: Final = 5.0
"""Over how long the rate is measured."""

_ERASE_LINE: Final = "\r\x1b[2K"
_WIDEST_BAR: Final = 30
_PULSE: Final = 4
"""How many cells of a bar move to and fro while nobody knows how long it takes."""

_SHORTEST_NAME: Final = 8


class ProgressMeter:
    """One line on stderr: how far it is, what it is at, how fast, and how long it will take.

    It says nothing where stderr is no terminal. It draws itself when it is told of progress: no thread
    does, so that lines for the same terminal never meet it halfway.

    Arguments:
        total: Bytes in all, `None` if that is not known.
        items: How many things they are in, `None` if that is not known either.
        noun: What these things are called.
        verb: What is said to be done in the end, as `stored`; empty to say nothing.
        hidden: Show nothing at all.
    """

    def __init__(
        self,
        total: int | None = None,
        items: int | None = None,
        *,
        noun: str = "blob",
        verb: str = "",
        hidden: bool = False,
    ) -> None:
        self.items = items
        self.name = ""
        """What it is at."""
        self._total = total
        self._noun = noun
        self._verb = verb
        self._done = 0
        self._items_done = 0
        self._active = not hidden and is_terminal(sys.stderr)
        self._shown = self._on_screen = False
        self._drawings = 0
        self._started = self._drawn = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._started, 0)])

    @property
    def active(self) -> bool:
        """Whether there is somebody to see it."""
        return self._active

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.step_aside()
        seconds = time.monotonic() - self._started
        worth_it = seconds >= _LONG_SECONDS or self._done >= _SHORT_BYTES
        if self._shown and self._verb and error is None and worth_it:
            self._write(self._summary(seconds) + "\n")

    def advance(self, count: int) -> None:
        """Note that *count* more bytes are done."""
        if self._active:
            self._done += count
            self._redraw()

    def item_done(self, count: int = 1) -> None:
        """Note that *count* more things are done."""
        if self._active:
            self._items_done += count
            self._redraw()

    def step_aside(self) -> None:
        """Take the bar away for a line that is written to the terminal; the next redraw brings it back."""
        if self._on_screen:
            self._on_screen = False
            self._write(_ERASE_LINE)

    def _redraw(self) -> None:
        now = time.monotonic()
        if not self._shown:
            if now - self._started < _SHORT_SECONDS and (self._total or 0) < _SHORT_BYTES:
                return
            self._shown = True
        elif now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        self._drawings += 1
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_SECONDS:
            self._samples.popleft()
        # Room for the `^C` of who interrupts: if the line broke there, the bar would stay behind.
        width = max(20, columns_of(sys.stderr) - 3)
        self._on_screen = True
        self._write("\r" + self._line(width) + "\x1b[K")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            # The terminal is gone. Nobody can be told, and the work goes on.
            self._active = self._shown = self._on_screen = False

    # -- what it shows --

    @property
    def _share(self) -> float | None:
        """How much of all is done, from 0 to 1; `None` if nobody knows."""
        if self._total:
            return min(self._done / self._total, 1.0)
        # Of one thing it is not known how far that is.
        return min(self._items_done / self.items, 1.0) if self.items and self.items > 1 else None

    def _line(self, width: int) -> str:
        bar = max(min(_WIDEST_BAR, width // 4), 5)
        room = width - bar - 2
        return f"{self._bar(bar)}  {self._fitting(room)[:room]}"

    def _bar(self, width: int) -> str:
        share = self._share
        if share is None:
            turn = 2 * (width - _PULSE) or 1
            place = self._drawings % turn
            begin = min(place, turn - place)
            cells = ((0, begin), (begin, begin + _PULSE), (begin + _PULSE, width))
        else:
            end = round(share * width)
            cells = ((0, 0), (0, end), (end, width))
        done, rest = ("━", "─") if _can_show("━─") else ("#", "-")
        left, filled, right = (max(last - first, 0) for first, last in cells)
        if not wants_colour(sys.stderr):
            return rest * left + done * filled + rest * right
        return "".join(
            click.style(text, **style)
            for text, style in (
                (rest * left, {"dim": True}),
                (done * filled, {"fg": "cyan"}),
                (rest * right, {"dim": True}),
            )
            if text
        )

    def _fitting(self, width: int) -> str:
        """Return as many of the words as fit, the most important ones, and of the name what is left."""
        parts = list(self._parts())
        kept = sorted(range(len(parts)), key=lambda number: parts[number][0])
        while len(kept) > 1 and len("  ".join([parts[number][1] for number in kept])) > width:
            kept.pop()
        words = "  ".join([parts[number][1] for number in sorted(kept)])
        room = width - len(words) - 2
        name = printable(self.name).replace("\n", "\\n")
        if not name or room < _SHORTEST_NAME or len(kept) < len(parts):
            return words
        mark = "…" if _can_show("…") else "."
        return f"{words}  {name if len(name) <= room else mark + name[-(room - 1) :]}"

    def _parts(self) -> Iterator[tuple[int, str]]:
        """Yield what there is to say, in the order in which it is shown, each with its rank."""
        share = self._share
        if share is not None:
            yield 0, f"{share * 100:3.0f}%"
        done = size_text(self._done)
        yield 1, done if self._total is None else f"{done} of {size_text(self._total)}"
        (first, before), (last, now) = self._samples[0], self._samples[-1]
        if last > first and now > before:
            yield 3, f"{size_text(int((now - before) / (last - first)))}/s"
        if self.items is not None and self.items > 1:
            yield 4, f"{self._items_done}/{self.items} {self._noun}s"
        elif self.items is None and self._items_done:
            yield 4, count_text(self._items_done, self._noun)
        if share:
            yield 2, f"{_clock((self._drawn - self._started) * (1 - share) / share)} left"

    def _summary(self, seconds: float) -> str:
        rate = f"{size_text(int(self._done / max(seconds, 0.001)))}/s"
        count = count_text(self._items_done, self._noun)
        return f"{self._verb} {count}, {size_text(self._done)} in {_clock(seconds)} ({rate})"


def _can_show(characters: str) -> bool:
    try:
        characters.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _clock(seconds: float) -> str:
    """Return a time as `3.2 s`, `1:05` or `2:00:00`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
