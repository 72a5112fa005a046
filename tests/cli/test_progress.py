"""When the bar comes, and that it is only there for who can see it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TextIO

import pytest

from castore.cli import progress
from castore.cli.progress import ProgressMeter


def replace_stderr(monkeypatch: pytest.MonkeyPatch, stream: TextIO | None) -> None:
    # That of `sys` is pytest's own.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pseudo-terminal in the place of stderr; what is written to it can be read here."""
    main, end = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)  # those that run tests beside each other set it
    with os.fdopen(end, "w", encoding="utf-8") as stream:
        replace_stderr(monkeypatch, stream)
        yield main
    os.close(main)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands until it is set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def seen(terminal: int) -> str:
    """What has come; the system takes its time to bring it."""
    read = b""
    while select.select([terminal], [], [], 0.1)[0]:
        read += os.read(terminal, 1 << 16)
    return read.decode()


def test_a_short_run_has_no_bar(terminal, clock):
    """Neither many bytes nor much time."""
    with ProgressMeter(1000, 2) as meter:
        meter.advance(1000)
        meter.item_done()
        clock[0] += 0.2
        meter.item_done()

    assert seen(terminal) == ""


@pytest.mark.parametrize(("total", "seconds"), [(1000, 0.4), (None, 0.4), (5 << 20, 0.0)])
def test_a_long_run_has_one(terminal, clock, total, seconds):
    """If it is known to be, or turns out to be."""
    with ProgressMeter(total) as meter:
        clock[0] += seconds
        meter.advance(1000)

        assert "1000 bytes" in seen(terminal)


def test_it_is_redrawn_ten_times_a_second_at_most(terminal, clock):
    """A file of many pieces would else be slowed down by its bar."""
    with ProgressMeter(5 << 20) as meter:
        meter.advance(1)
        seen(terminal)
        clock[0] += 0.05
        meter.advance(1)
        assert seen(terminal) == ""
        clock[0] += 0.06
        meter.advance(1)
        assert "3 bytes of 5.0 MiB" in seen(terminal)


def test_it_steps_aside_for_a_line(terminal, clock):
    """It is erased, and comes back with the next redraw."""
    with ProgressMeter(5 << 20) as meter:
        meter.advance(1)
        seen(terminal)
        meter.step_aside()
        assert seen(terminal) == "\r\x1b[2K"
        assert seen(terminal) == ""
        clock[0] += 1
        meter.advance(1)
        assert "2 bytes" in seen(terminal)


def test_a_hidden_one_shows_nothing(terminal, clock):
    """Nor does it step aside."""
    with ProgressMeter(5 << 20, hidden=True) as meter:
        clock[0] += 1
        meter.advance(1)
        meter.step_aside()

    assert seen(terminal) == ""


@pytest.mark.parametrize("stream", [None, "file"])
def test_without_a_terminal_it_shows_nothing(clock, monkeypatch, tmp_path, stream):
    """A file, or no stderr at all."""
    with (tmp_path / "errors").open("w", encoding="utf-8") as file:
        target: TextIO | None = file if stream else None
        replace_stderr(monkeypatch, target)
        with ProgressMeter(5 << 20) as meter:
            clock[0] += 1
            meter.advance(1)
            meter.step_aside()

    assert (tmp_path / "errors").read_text() == ""


def shown(text: str) -> list[str]:
    """The frames that were drawn, without colours."""
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", text.replace("\r\n", "\n"))
    return [frame for frame in re.split(r"\r(?:\x1b\[2K)?", plain) if frame]


def wide(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))


def test_of_things_whose_sizes_are_not_known_the_share_is_that_of_their_number(terminal, clock):
    """As of the blobs that are verified or copied."""
    wide(terminal, 100)
    with ProgressMeter(items=4) as meter:
        clock[0] += 1
        meter.advance(1 << 20)
        clock[0] += 1
        meter.item_done()

        first, second = shown(seen(terminal))
    assert re.fullmatch(r"─+    0%  1\.0 MiB  1\.0 MiB/s  0/4 blobs", first)
    assert re.fullmatch(r"━{6}─{18}   25%  1\.0 MiB  512\.0 KiB/s  1/4 blobs  6\.0 s left", second)


def test_where_nothing_is_known_a_piece_of_it_moves(terminal, clock):
    """With what was done so far."""
    with ProgressMeter() as meter:
        frames = []
        for _ in range(3):
            clock[0] += 1
            meter.item_done()
            frames += shown(seen(terminal))

    assert [frame.index("━") for frame in frames] == [1, 2, 3]
    assert "2 blobs" in frames[1]


def test_what_it_is_at_is_shown_as_far_as_there_is_room(terminal, clock):
    """Its end, for names often begin alike; never a control code."""
    frames = {}
    for columns in (60, 80, 100, 120):
        wide(terminal, columns)
        with ProgressMeter(5 << 20) as meter:
            meter.name = "folder/with/a/long/name/and\x1b[2Ja-file.raw"
            clock[0] += 1
            meter.advance(1 << 20)
            (frames[columns],) = shown(seen(terminal))[:1]

    assert all(len(frame) < columns for columns, frame in frames.items())
    assert "file" not in frames[60]
    assert frames[100].endswith("  …\\x1b[2Ja-file.raw") or frames[100].endswith("a-file.raw")
    assert frames[120].endswith("a-file.raw")
    assert "\x1b[2J" not in "".join(frames.values())


def test_it_is_cyan_and_plain_without_colours(terminal, clock, monkeypatch):
    """Red is for errors."""
    with ProgressMeter(5 << 20) as meter:
        meter.advance(4 << 20)
        coloured = seen(terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        clock[0] += 1
        meter.advance(1)
        plain = seen(terminal)

    assert "\x1b[36m━" in coloured
    assert "\x1b[31m" not in coloured
    assert re.findall(r"\x1b\[\d*m", plain) == []
    assert "━─" in plain


def test_a_terminal_of_few_characters_gets_those(monkeypatch, clock):
    """Instead of their codes."""
    main, end = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)  # those that run tests beside each other set it
    with os.fdopen(end, "w", encoding="ascii") as stream:
        replace_stderr(monkeypatch, stream)
        with ProgressMeter(5 << 20) as meter:
            meter.advance(4 << 20)
            (frame,) = shown(seen(main))
    os.close(main)

    assert re.match(r"#+-+ ", frame)


def test_in_the_end_it_says_what_was_done(terminal, clock):
    """If it was long enough for a bar, and went well."""
    with ProgressMeter(5 << 20, 2, noun="file", verb="stored") as meter:
        meter.advance(5 << 20)
        meter.item_done(2)
        clock[0] += 65
    assert shown(seen(terminal))[-1] == "stored 2 files, 5.0 MiB in 1:05 (78.8 KiB/s)\n"

    with ProgressMeter(1000, verb="stored") as meter:
        meter.advance(1000)
    assert seen(terminal) == ""

    with ProgressMeter(1000, verb="stored") as meter:
        clock[0] += 1
        meter.advance(1000)
    assert "1000 bytes" in (drawn := seen(terminal))
    assert "stored" not in drawn

    failing = ProgressMeter(5 << 20, verb="stored")
    failing.advance(5 << 20)
    failing.__exit__(KeyError, KeyError(), None)
    assert "stored" not in seen(terminal)


def test_the_work_goes_on_when_the_terminal_is_gone(monkeypatch, clock):
    """Nobody can be told."""
    main, end = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)  # those that run tests beside each other set it
    stream = os.fdopen(end, "w", encoding="utf-8")
    replace_stderr(monkeypatch, stream)
    with ProgressMeter(5 << 20, verb="stored") as meter:
        meter.advance(1 << 20)
        os.close(main)
        for _ in range(3):
            clock[0] += 1
            meter.advance(1 << 20)
            meter.step_aside()
    with contextlib.suppress(OSError):
        stream.close()
