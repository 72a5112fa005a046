"""What `--stats` shows after a command: what each instance was asked, on stderr."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from castore.cli.output import columns_of, complain, is_terminal, table
from castore.cli.settings import Settings
from castore.metrics.model import InstanceMetrics, Metrics, OperationMetrics, gauge_words
from castore.text import size_text

_HEADS: Final = ("instance", "calls", "items", "hits", "misses", "errors", "in", "out", "mean", "time")
_LEFT_OUT: Final = ("mean", "hits", "items")
"""The columns that go first where there is too little room."""

_WIDTH: Final = 80
_WIDEST_NAME: Final = 14


def show_stats(settings: Settings) -> None:
    """Show what the composition of this run, if there was one, has done; with `--json` as a line of JSON."""
    if settings.opened_composition is None:
        return
    metrics = settings.opened_composition.metrics()
    complain(json.dumps({"stats": metrics.to_dict()}) if settings.json else stats_text(metrics).rstrip("\n"))


def stats_text(metrics: Metrics) -> str:
    """Return a table with a row for each instance that was asked anything, and below it what is special."""
    shown = [entry for entry in metrics if entry.calls or entry.under_way or entry.gauges]
    if not shown:
        return "no instance was asked anything\n"
    lines = _table([_row(entry) for entry in shown]).splitlines()
    for number in range(len(shown) - 1, -1, -1):
        lines[number + 2 : number + 2] = _details(shown[number])
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table that is no wider than the terminal, for want of which it has 80 columns."""
    width = columns_of(sys.stderr) if is_terminal(sys.stderr) else _WIDTH
    heads = list(_HEADS)
    for left_out in (None, *_LEFT_OUT):
        if left_out is not None:
            heads.remove(left_out)
        chosen = [_HEADS.index(head) for head in heads]
        cells = [[row[column] for column in chosen] for row in rows]
        shown = table(heads, cells, right=range(1, len(heads)), bold=False)
        if max(map(len, shown.splitlines())) <= width:
            break
    return shown


def _row(entry: InstanceMetrics) -> tuple[str, ...]:
    total = entry.total
    return (
        _shortened(entry.name),
        *map(_count, (total.calls, total.items, total.hits, total.misses, sum(total.errors.values()))),
        _size(total.bytes_in),
        _size(total.bytes_out),
        _mean(total),
        _time(total.seconds),
    )


def _details(entry: InstanceMetrics) -> Iterator[str]:
    errors = [f"{kind} {count}" for kind, count in entry.errors.items()]
    notes = gauge_words(entry.gauges)
    if entry.under_way:
        notes.append(f"{entry.under_way} calls have not ended")
    for label, words in (("errors", errors), ("now", notes)):
        if words:
            yield from textwrap.wrap(
                f"{label}: {', '.join(words)}", _WIDTH, initial_indent="  ", subsequent_indent="    "
            )


def _shortened(name: str) -> str:
    return name if len(name) <= _WIDEST_NAME else f"{name[:5]}…{name[-8:]}"


def _count(count: int) -> str:
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}K" if count < 100_000_000 else f"{count / 1e6:.0f}M"


def _size(size: int) -> str:
    return size_text(size) if size else "0"


def _mean(total: OperationMetrics) -> str:
    return _time(total.seconds / total.calls) if total.calls else "-"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{_digits(seconds * factor)} {unit}"
    return f"{_digits(seconds * 1e6)} us"


def _digits(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 100 else f"{amount:.3g}"
