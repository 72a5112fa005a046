"""Reading TOML with every syntax error found, not only the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
import tomli

from castore.composition.problems import Problem

_MOST_ERRORS: Final = 20
_HINTS: Final = {
    "invalid value": 'strings need quotes: `key = "value"`',
    "expected '=' after a key in a key/value pair": 'write `key = "value"`, or `[table.name]` for a table',
    "invalid statement": 'write `key = "value"`, or `[table.name]` for a table',
}


@attrs.frozen
class Document:
    """A parsed file. Where it has syntax errors, what could be read around them."""

    tables: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything could be read."""
        return not self.problems


def parse(text: str) -> Document:
    """Parse *text*.

    A line with an error is left out and the rest is read again, up to 20 times, so that other problems
    can be shown with it. A header with an error takes its whole table along, whose keys would otherwise
    seem to belong to the table before.
    """
    lines = [line + "\n" for line in text.split("\n")]
    problems: list[Problem] = []
    while True:
        try:
            return Document(tomli.loads("".join(lines)), tuple(problems))
        except tomli.TOMLDecodeError as error:
            problems.append(_problem(error, lines))
            if len(problems) == _MOST_ERRORS or not _leave_out(lines, error.lineno - 1):
                return Document({}, tuple(problems))
        except RecursionError:
            problem = Problem("syntax", (), "arrays or inline tables are nested too deeply", line=1, column=1)
            return Document({}, (*problems, problem))


def _problem(error: tomli.TOMLDecodeError, lines: list[str]) -> Problem:
    line, column = error.lineno, error.colno
    if line > 1 and not "".join(lines[line - 1 :]).strip():
        # The parser met the end of the file: show the end of the last line that has anything.
        line = max((number for number, text in enumerate(lines, 1) if text.strip()), default=1)
        column = len(lines[line - 1].rstrip()) + 1
    message, hint = _reworded(error.msg)
    return Problem("syntax", (), message, hint, line=line, column=column)


def _reworded(message: str) -> tuple[str, str | None]:
    """Return a message of tomli in plain words, and what to do."""
    twice = re.fullmatch(
        r"Cannot (?:declare|mutate immutable namespace|overwrite) ?\((.*?),?\)(?: twice)?", message
    )
    if twice:
        name = ".".join(re.findall(r"'([^']*)'", twice[1]))
        return f"`{name}` is declared twice", "a table may be declared only once: rename one, or join the two"
    if message == "Cannot overwrite a value":
        return "this key stands in its table twice", "remove one of the two"
    if message == r"Illegal character '\n'":
        return "the string does not end on its line", "close it with the quote that it began with"
    message = message[:1].lower() + message[1:]
    return message, _HINTS.get(message)


def _leave_out(lines: list[str], at: int) -> bool:
    """Blank the line with the error, or the table if it is a header; False if that is no help."""
    at = min(at, len(lines) - 1)
    if at < 0 or not lines[at].strip():
        return False
    header = lines[at].lstrip().startswith("[")
    lines[at] = "\n"
    if header:
        for number in range(at + 1, len(lines)):
            if lines[number].lstrip().startswith("["):
                break
            lines[number] = "\n"
    return True
