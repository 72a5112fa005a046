"""Writing to stdout and stderr: bytes as they are, text that no name can turn into control codes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

import click

from castore.errors import CastoreError

_UNPRINTABLE: Final = re.compile(r"[^\n\t]")
_MARK: Final = re.compile(r" +\|[ \t]*\^+")


class OutputGoneError(Exception):
    """Whoever read stdout has closed it; there is nothing left to do, and nobody to tell."""


class OutputError(CastoreError):
    """Something could not be written."""

    code = "output"


def emit(data: bytes | memoryview, *, flush: bool = True) -> None:
    """Write bytes to stdout, and see them off unless more follow."""
    if sys.stdout is None:
        raise OutputError("cannot write the output: stdout is closed")
    try:
        sys.stdout.buffer.write(data)
        if flush:
            sys.stdout.buffer.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise OutputGoneError from None
        raise OutputError(f"cannot write the output: {error.strerror}") from None


def emit_text(text: str, *, flush: bool = True) -> None:
    """Write text to stdout; where its encoding lacks a character, a question mark stands for it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "replace")
    emit(data, flush=flush)


def emit_json(document: Any) -> None:
    """Write a JSON document to stdout, in ASCII; a byte of a name that is no UTF-8 is a lone surrogate."""
    emit_text(json.dumps(document, indent=2) + "\n")


def complain(text: str) -> None:
    """Write a message to stderr, in colour on a terminal; nobody can be told if that fails."""
    if sys.stderr is None:
        return
    shown = printable(text)
    if wants_colour(sys.stderr):
        shown = "\n".join(_coloured(row) for row in shown.split("\n"))
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(shown + "\n")
        sys.stderr.flush()


def _coloured(row: str) -> str:
    if row.startswith("castore: "):
        return click.style("castore:", fg="red", bold=True) + row.removeprefix("castore:")
    if _MARK.fullmatch(row):
        bar, mark = row.split("|", 1)
        return f"{bar}|{click.style(mark, fg='red', bold=True)}"
    return row


def printable(text: str) -> str:
    r"""Return *text* with every character that does not print written out, as in `\x1b`; lines stay lines."""
    return _UNPRINTABLE.sub(lambda match: _written_out(match[0]), text)


def _written_out(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person reads *stream* on a terminal that can move its cursor."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    except ValueError:  # It is closed.
        return False


def wants_colour(stream: TextIO | None) -> bool:
    """Tell whether to use colours; see https://no-color.org."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def emphasised(text: str, **style: Any) -> str:
    """Return *text* in a style of click's if stdout is a terminal."""
    return click.style(text, **style) if wants_colour(sys.stdout) else text


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), bold: bool = True
) -> str:
    """Return aligned columns under *heads*; those whose numbers are in *right* are aligned there.

    On a terminal the heads are *bold*: for stdout only.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (heads, *cells)) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    first = emphasised(line(heads), bold=True) if bold else line(heads)
    return "\n".join([first, *map(line, cells)]) + "\n"
