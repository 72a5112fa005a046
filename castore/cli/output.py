"""Writing to stdout and stderr: bytes as they are, text that no name can turn into control codes.

This is the only place that writes to stdout. All that is written arrives, or there is an error.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, TextIO, cast

import click

from castore.cli.descriptors import PatientWriter, see_off, write_all
from castore.errors import CastoreError

_UNPRINTABLE: Final = re.compile(r"[^\n\t]")
_ANY: Final = re.compile(r"[\s\S]")
_MARK: Final = re.compile(r" +\|[ \t]*\^+")
_CONTROL: Final = re.compile(r"(?!\x1b\[[0-9;]*m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal might obey, but for the styles that castore itself uses."""

_BRANCHES: Final = " │├└─"
_COLUMNS: Final = 80
_NARROWEST: Final = 20
"""For fewer columns than these nothing is broken at words."""

_NO_TEXT: Final = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]|\r[^\n]")
"""What is in no text that lines are made of; with a carriage return alone one line hides another."""

_said: Final[deque[str]] = deque(maxlen=16)

_GATHERED: Final = 1 << 16
"""How many bytes of small pieces are written together."""

_HEADING: Final = re.compile(r"^(?:Usage:|[A-Z][A-Za-z ]*:$)", re.MULTILINE)

_GONE: Final = (errno.EPIPE, errno.ECONNRESET)


class OutputGoneError(Exception):
    """Whoever read stdout has closed it; there is nothing left to do, and nobody to tell."""


class OutputError(CastoreError):
    """Something could not be written."""

    code = "output"


class TerminalGoneError(OutputError):
    """The terminal that stdout was has been closed. Work that does more than to print goes on."""


class Stdout:
    """The standard output of the process.

    It is written to by its descriptor, and not by Python's buffers: these take a short write for a whole
    one, or keep what could not be written until the interpreter ends.
    """

    def __init__(self) -> None:
        self._taken = False
        self._stream: TextIO | None = None
        self._pending = bytearray()
        self._written = False
        self._was_terminal = False

    def take(self) -> None:
        """Keep stdout for what is written here; what anybody else prints goes to stderr from now on."""
        self._stream, self._taken = sys.stdout, True
        self._was_terminal = _isatty(sys.stdout)
        sys.stdout = sys.stderr

    @property
    def stream(self) -> TextIO | None:
        """The stream that it is, `None` if it is closed. Only for questions: nothing else writes to it."""
        return self._stream if self._taken else sys.stdout

    @property
    def is_terminal(self) -> bool:
        """Whether it is, or was, a terminal of any kind: that may obey what is written to it."""
        return self._was_terminal if self._taken else _isatty(sys.stdout)

    def write(self, data: bytes | memoryview, *, flush: bool) -> None:
        """Write bytes, at once or with those that follow; raises `OutputError` or `OutputGoneError`."""
        if len(data) < _GATHERED:
            self._pending += data
            if not flush and len(self._pending) < _GATHERED:
                return
            data = b""
        gathered = bytes(self._pending)
        self.drop()
        for part in (gathered, data):
            if part:
                self._send(part)

    def finish(self) -> None:
        """Write what is left, and learn whether all has arrived; raises as `write` does."""
        self.write(b"", flush=True)
        descriptor = self.descriptor
        if self._written and descriptor is not None:
            self._written = False
            with self._failing():
                see_off(descriptor)

    def drop(self) -> None:
        """Forget what is not written yet."""
        self._pending.clear()

    @property
    def descriptor(self) -> int | None:
        """Its descriptor, `None` if it is closed or no file of the system's."""
        try:
            return None if self.stream is None else self.stream.fileno()
        except (OSError, ValueError, AttributeError):
            return None

    def _send(self, data: bytes | memoryview) -> None:
        stream, descriptor = self.stream, self.descriptor
        if stream is None:
            raise OutputError("cannot write the output: stdout is closed")
        self._written = True
        with self._failing():
            if descriptor is not None:
                stream.flush()  # Somebody who has called castore in his program may have printed something.
                write_all(descriptor, data)
                return
            stream.buffer.write(data)  # A stream in memory, which takes all.
            stream.buffer.flush()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _GONE:
                raise OutputGoneError from None
            kind = TerminalGoneError if self._was_terminal and error.errno == errno.EIO else OutputError
            raise kind(f"cannot write the output: {error.strerror or error}") from None


STDOUT: Final = Stdout()
"""The one of this process."""


def emit(data: bytes | memoryview, *, flush: bool = True) -> None:
    """Write bytes to stdout, at once unless more follow."""
    STDOUT.write(data, flush=flush)


def emit_text(text: str, *, flush: bool = True) -> None:
    """Write text to stdout; where its encoding lacks a character, a question mark stands for it.

    On a terminal, control codes other than colours are written out.
    """
    stream = STDOUT.stream
    if STDOUT.is_terminal:
        text = _CONTROL.sub(lambda match: _written_out(match[0]), text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "replace")
    emit(data, flush=flush)


def emit_json(document: Any) -> None:
    """Write a JSON document to stdout, in ASCII; a byte of a name that is no UTF-8 is a lone surrogate."""
    emit_text(json.dumps(document, indent=2) + "\n")


class PlainText:
    """Writes bytes to a terminal as long as they are text: what else there is it might obey.

    *way* says how to have it written all the same.
    """

    def __init__(self, way: str) -> None:
        self._way = way
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __call__(self, data: memoryview) -> None:
        """Write bytes; raise `OutputError`, with nothing of these written, if they are no text."""
        try:
            text = self._decoder.decode(data)
        except UnicodeDecodeError:
            text = "\0"
        if _NO_TEXT.search(text):
            raise OutputError(
                f"cannot write the output: it is no text, and stdout is a terminal; {self._way}"
            )
        emit(data)


class JsonRows:
    """Writes a JSON document with a list of this name, however long: a row is gone when it is written.

    As a context manager, for lists of what was done, it also ends the document: with *rest* as that is then,
    whatever has ended the work.
    """

    def __init__(self, name: str, **rest: Any) -> None:
        self._lead = f"{{\n  {json.dumps(name)}: ["
        self._empty = True
        self._rest = rest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, (OutputError, OutputGoneError)):
            self.end(**self._rest)

    def add(self, row: Any) -> None:
        """Write a row."""
        shown = json.dumps(row, indent=2).replace("\n", "\n    ")
        emit_text(f"{self._lead}\n    {shown}", flush=False)
        self._lead, self._empty = ",", False

    def end(self, **rest: Any) -> None:
        """End the list and write what else is in the document."""
        parts = [f"{self._lead}]" if self._empty else "\n  ]"]
        parts += [
            f",\n  {json.dumps(key)}: " + json.dumps(value, indent=2).replace("\n", "\n  ")
            for key, value in rest.items()
        ]
        emit_text("".join(parts) + "\n}\n")


def emit_json_rows(name: str, rows: Iterable[Any]) -> None:
    """Write a JSON document that is one list of this name."""
    document = JsonRows(name)
    for row in rows:
        document.add(row)
    document.end()


def emit_json_lines(rows: Iterable[Any]) -> None:
    """Write a JSON document on each line, however many: who reads them can begin with the first one."""
    at_once = stdout_is_terminal()
    for row in rows:
        emit_text(json.dumps(row) + "\n", flush=at_once)


def finish_output() -> None:
    """Write what is left, and learn whether all has arrived; raises `OutputError` if not."""
    STDOUT.finish()


def leave_output(*, whole: bool) -> None:
    """Write what is left after an error, unless only the *whole* is of use; nobody is told if that fails."""
    if not whole:
        with contextlib.suppress(OutputError, OutputGoneError):
            STDOUT.finish()
    STDOUT.drop()


def take_streams() -> None:
    """Make stdout and stderr of the process those of the command line.

    Stdout is for what castore writes: a library or plugin that prints something prints it to stderr. Nobody's
    message to stderr fails. Log lines come as other messages do.
    """
    if sys.stderr is not None:
        sys.stderr = io.TextIOWrapper(
            cast("io.BufferedWriter", PatientWriter(sys.stderr.fileno())),
            encoding=sys.stderr.encoding,
            errors="backslashreplace",
            write_through=True,
        )
    STDOUT.take()
    logging.lastResort = _LogLines(logging.WARNING)


class _LogLines(logging.Handler):
    """Shows log lines that nobody else handles."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line."""
        complain(self.format(record))


def complain(text: str) -> None:
    """Write a message to stderr, in colour on a terminal; nobody can be told if that fails."""
    _said.append(text)
    if sys.stderr is None:
        return
    shown = printable(text)
    if is_terminal(sys.stderr):
        width = columns_of(sys.stderr)
        # A row with two blanks side by side is of a table, or shows a line of a file.
        shown = "\n".join(row if "  " in row else _folded(row, width) for row in shown.split("\n"))
    if wants_colour(sys.stderr):
        shown = "\n".join(_coloured(row) for row in shown.split("\n"))
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(shown + "\n")
        sys.stderr.flush()


def folded(text: str) -> str:
    """Return *text* with rows that a terminal would break anywhere broken at words; for a pipe as it is.

    What goes on is indented below the row, also below the branches of a tree.
    """
    if not stdout_is_terminal():
        return text
    width = columns_of(STDOUT.stream)
    return "\n".join(_folded(row, width) for row in text.split("\n"))


def _folded(row: str, width: int) -> str:
    if len(row) <= width:
        return row
    import textwrap  # noqa: PLC0415 - few rows are so long

    lead = row[: len(row) - len(row.lstrip(_BRANCHES))]
    below = lead.replace("├── ", "│   ").replace("└── ", "    ")
    below += "  " if lead or row.startswith("castore: ") else ""
    if width - len(below) < _NARROWEST:
        return row
    return textwrap.fill(
        row.removeprefix(lead),
        width,
        initial_indent=lead,
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
    )


def columns_of(stream: TextIO | None) -> int:
    """Return how many columns the terminal has that *stream* is, as far as that is known; else 80."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        named = int(os.environ.get("COLUMNS") or 0)
        return named or os.get_terminal_size(stream.fileno()).columns or _COLUMNS  # type: ignore[union-attr]
    return _COLUMNS


def was_said(text: str) -> bool:
    """Tell whether one of the last messages to stderr had *text* in it."""
    return any(text in said for said in _said)


def _coloured(row: str) -> str:
    if row.startswith("castore: "):
        return click.style("castore:", fg="red", bold=True) + row.removeprefix("castore:")
    if _MARK.fullmatch(row):
        bar, mark = row.split("|", 1)
        return f"{bar}|{click.style(mark, fg='red', bold=True)}"
    return row


def printable(text: str, *, lines: bool = True) -> str:
    r"""Return *text* with every character that does not print written out, as in `\x1b`.

    Ends of lines, and tabs, stay unless *lines* is false.
    """
    return (_UNPRINTABLE if lines else _ANY).sub(lambda match: _written_out(match[0]), text)


def _written_out(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person reads *stream* on a terminal that can move its cursor."""
    return _isatty(stream) and os.environ.get("TERM") not in {"dumb", "unknown"}


def stdout_is_terminal() -> bool:
    """Tell whether a person reads stdout on a terminal that can move its cursor."""
    return is_terminal(STDOUT.stream)


def _isatty(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # It is closed.
        return False


def wants_colour(stream: TextIO | None) -> bool:
    """Tell whether to use colours; see https://no-color.org."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def emphasised(text: str, **style: Any) -> str:
    """Return *text* in a style of click's if stdout is a terminal."""
    return click.style(text, **style) if wants_colour(STDOUT.stream) else text


def with_headings(help_text: str) -> str:
    """Return help with its headings bold, if stdout is a terminal."""
    return _HEADING.sub(lambda match: emphasised(match[0], bold=True), help_text)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), bold: bool = True
) -> str:
    """Return aligned columns under *heads*; those whose numbers are in *right* are aligned there.

    On a terminal the heads are *bold*, and the words of the last column go on below where there is too little
    room: for stdout only.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (heads, *cells)) for column in range(len(heads))]
    last = len(heads) - 1
    before = sum(widths[:last]) + 2 * last
    room = columns_of(STDOUT.stream) - before if bold and stdout_is_terminal() else None

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        shown = "  ".join(padded).rstrip()
        if room is None or last in right or len(row[last]) <= room:
            return shown
        return _folded_cell(shown, before, before + room)

    first = emphasised(line(heads), bold=True) if bold else line(heads)
    return "\n".join([first, *map(line, cells)]) + "\n"


def _folded_cell(row: str, before: int, width: int) -> str:
    """Return a row of a table whose last cell, which begins after *before* columns, is broken at words."""
    if width - before < _NARROWEST:
        return row
    import textwrap  # noqa: PLC0415 - as above

    return textwrap.fill(
        row[before:],
        width,
        initial_indent=row[:before],
        subsequent_indent=" " * before,
        break_long_words=False,
        break_on_hyphens=False,
    )
