"""Reading what can be read of a TOML text with errors, so that all of them are found, not only the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import tomli

from castore.composition.toml.document import Document
from castore.composition.toml.mistakes import Mistake, begins_pair, begins_table, opened_at, opens_lines
from castore.composition.toml.syntax import CONFLICT, explain, first_path
from castore.problems import Problem

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path

_MOST_ERRORS: Final = 20
_LONGEST_STATEMENT: Final = 500
"""Lines that are looked at to find where a statement begins."""

_MOST_TEXT: Final = 8 << 20
"""Characters that are parsed for that, all in all: the text is parsed again for each of the lines."""

_HEADER: Final = re.compile(r"""[ \t]*(\[{1,2})([\w\s."'-]+)\]{1,2}[ \t]*(?:\#.*)?\n?""")
_NAME: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')"""
_BROKEN_HEADER: Final = re.compile(
    rf"([ \t]*\[)(\[?)[ \t]*({_NAME}(?:\.{_NAME})*)[ \t]*\]*[ \t]*(?:\#.*)?\n?"
)
_UNREADABLE: Final = "\N{REPLACEMENT CHARACTER}"
"""Stands for each byte that is not UTF-8."""

_DOTTED: Final = re.compile(r"[ \t]*[\w-]+(\.[\w-]+)+[ \t]*(\#.*)?\n?")
"""A header that lacks its brackets."""


def recover(text: str, problems: tuple[Problem, ...] = ()) -> Document:
    """Parse *text*. *problems*: those that it is known to have, in lines which cannot be right.

    A statement with an error is left out and the rest is read again, up to 20 times, so that other
    problems can be shown with it. A header that cannot be mended takes its whole table along, whose keys
    would otherwise seem to belong to the table before.
    """
    return _Recovery(text, problems).read()


class _Recovery:
    def __init__(self, text: str, problems: tuple[Problem, ...]) -> None:
        self.lines = [line + "\n" for line in text.split("\n")]
        self.problems = list(problems)
        self.damaged: set[Path] = set()
        self.lost = False
        self.text_left = _MOST_TEXT
        for problem in problems:
            if _UNREADABLE in self.lines[problem.line - 1]:
                self._leave_out(self._beginning(problem.line - 1) or problem.line - 1)

    def read(self) -> Document:
        while True:
            text = "".join(self.lines)
            try:
                return self._document(tomli.loads(text))
            except tomli.TOMLDecodeError as error:
                if not self._recover(error.pos, error):
                    return self._given_up()
            except (ValueError, RecursionError) as error:
                # A number that Python refuses to read, or too many brackets; tomli does not say where.
                if not self._recover(self._find(type(error)), error):
                    return self._given_up()

    def _document(self, tables: Mapping[str, Any]) -> Document:
        text = "".join(self.lines)
        return Document(tables, tuple(self.problems), text, frozenset(self.damaged), self.lost)

    def _given_up(self) -> Document:
        self.lost, self.lines = True, []
        self.damaged.add(())
        return self._document({})

    def _recover(self, position: int, error: Exception) -> bool:
        """Note an error and leave out the statement that has it; return False if there were too many."""
        text = "".join(self.lines)
        at = min(text.count("\n", 0, position), len(self.lines) - 1)
        first = self._beginning(at)
        begin = sum(map(len, self.lines[: at if first is None else first]))
        self.problems.append(explain(Mistake(text, begin, position, error, self._table(first or at))))
        if first is None or len(self.problems) >= _MOST_ERRORS:
            return False
        self._leave_out(first)
        return True

    def _find(self, kind: type[Exception]) -> int:
        """Return the start of the first line that makes tomli fail with an error of *kind*."""
        low, high = 0, len(self.lines)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fails(middle + 1, kind) else (middle + 1, high)
        return sum(map(len, self.lines[:low]))

    def _fails(self, count: int, kind: type[Exception] = ValueError) -> bool:
        try:
            tomli.loads("".join(self.lines[:count]))
        except tomli.TOMLDecodeError:
            return kind is tomli.TOMLDecodeError
        except (ValueError, RecursionError) as error:
            return isinstance(error, kind)
        return False

    def _beginning(self, at: int) -> int | None:
        """Return the line in which the broken statement begins that goes on to *at*; `None` if it is far.

        "Far" also if it takes too long to find.
        """
        # All statements before it are right, but the part of it that is before the error is none.
        for number in range(at, max(at - _LONGEST_STATEMENT, -1), -1):
            if not self._fails(number, tomli.TOMLDecodeError):
                return number
            self.text_left -= sum(map(len, self.lines[:number]))
            if self.text_left < 0:
                break
        return None

    def _table(self, before: int) -> Path:
        """Return the table that the lines from *before* on belong to."""
        for line in reversed(self.lines[:before]):
            if _HEADER.fullmatch(line):
                try:
                    return first_path(tomli.loads(line))
                except (tomli.TOMLDecodeError, RecursionError):
                    continue  # An element of an array, which looked like a header; or one of too many parts.
        return ()

    def _leave_out(self, first: int) -> None:
        """Mend the broken statement that begins in line *first*, or blank it."""
        if CONFLICT.match(self.lines[first]):
            self.lost = True
            self.damaged.add(self._table(first))
            self._blank(first, self._end_of_conflict(first))
            return
        if _DOTTED.fullmatch(self.lines[first]):
            self.lost = True
            self._blank_table(first)
            return
        if not self.lines[first].lstrip().startswith("["):
            self.damaged.add(self._table(first))
            self._blank(first, self._end(first))
            return
        if self._mend_header(first):
            return
        if _HEADER.fullmatch(self.lines[first]):
            # It is here twice, or a value already: there may be more to what it was joined with.
            self.damaged.add(self._table(first + 1))
        else:
            self.lost = True
        self._blank_table(first)

    def _blank_table(self, first: int) -> None:
        """Blank a header and what is below it."""
        end = first
        while end + 1 < len(self.lines) and not begins_table(self.lines[end + 1]):
            end += 1
        self._blank(first, end)

    def _end_of_conflict(self, first: int) -> int:
        for number in range(first + 1, len(self.lines)):
            if self.lines[number].startswith(">" * 7):
                return number
        return first

    def _mend_header(self, number: int) -> bool:
        """Put the brackets of a header right, if that is all that is wrong with it."""
        broken = self.lines[number]
        match = _BROKEN_HEADER.fullmatch(broken)
        if not match:
            return False
        # The name stays where it is, for problems that point at it.
        self.lines[number] = f"{match[1]}{match[2] and ' '}{match[3]}]\n"
        if self.lines[number] != broken and not self._fails(number + 1, tomli.TOMLDecodeError):
            return True
        self.lines[number] = broken
        return False

    def _end(self, first: int) -> int:
        """Return the last line of the broken statement that begins in line *first*."""
        for number in range(first, len(self.lines) - 1):
            text = "".join(self.lines[first : number + 1])
            opened = opened_at(text, 0, len(text))
            if not opened or begins_table(self.lines[number + 1]):
                return number
            if begins_pair(self.lines[number + 1]) and not opens_lines(text, opened[-1][0]):
                return number
        return len(self.lines) - 1

    def _blank(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self.lines[number] = "\n"
