"""When the bar comes, and that it is only there for who can see it."""

from __future__ import annotations

import os
import pty
import select
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
        meter.file_done()
        clock[0] += 0.2
        meter.file_done()

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
