"""A mistake in a TOML text, and what is open where it was made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

from castore.problems import Problem

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path


@attrs.frozen
class Mistake:
    """An error of tomli and where it is."""

    text: str
    begin: int
    """Where the statement that has it begins."""
    position: int
    """Where tomli stopped."""
    error: Exception
    table: Path
    """The table that it stands in."""

    @property
    def char(self) -> str:
        """The character at which tomli stopped; nothing at the end."""
        return self.text[self.position : self.position + 1]

    @property
    def rest(self) -> str:
        """What is left of the line, without spaces and a comment at its end."""
        return uncommented(self.text[self.position : self.line_end(self.position)])

    @property
    def line(self) -> str:
        """The line that the statement begins with, without a comment at its end."""
        return uncommented(self.text[self.begin : self.line_end(self.begin)]).lstrip()

    @property
    def at_line_end(self) -> bool:
        """Whether there is nothing behind the place but perhaps a comment."""
        return self.char in {"", "\n", "#"}

    def line_end(self, position: int) -> int:
        """Return where the line with *position* ends."""
        end = self.text.find("\n", position)
        return len(self.text) if end < 0 else end

    def problem(
        self, message: str, hint: str | None = None, *, at: int | None = None, width: int = 1
    ) -> Problem:
        """Return a problem at an offset; by default where tomli stopped."""
        offset = self.position if at is None else at
        if self.text[offset : offset + 1] in {"", "\n"} and offset > self.begin:
            # Nothing can be marked at the end of a line but what is before it.
            offset = self.begin + len(self.text[self.begin : offset].rstrip())
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return Problem("syntax", (), message, hint, line=line, column=column, width=max(1, width))


_TABLE: Final = re.compile(r"[ \t]*\[{1,2}[ \t]*[A-Za-z_]")
_PAIR: Final = re.compile(r"""[ \t]*(?:[\w.-]|"[^"\n]*"|'[^'\n]*')+[ \t]*=""")


def begins_table(line: str) -> bool:
    """Tell whether a line looks like the header of a table, rightly written or not."""
    return _TABLE.match(line) is not None


def begins_pair(line: str) -> bool:
    """Tell whether a line looks like the beginning of a key with a value."""
    return _PAIR.match(line) is not None


def opens_lines(text: str, offset: int) -> bool:
    """Tell whether the `{` at *offset* ends its line, so that its pairs have lines of their own."""
    end = text.find("\n", offset)
    return (
        text[offset] == "{" and uncommented(text[offset + 1 : end if end >= 0 else len(text)]).strip() == ""
    )


def opened_at(text: str, begin: int, end: int) -> list[tuple[int, str]]:
    """List what the statement from *begin* on has open at *end*: brackets and quotes with their offsets."""
    return Brackets(text, begin, end).opened


class Brackets:
    """The brackets and quotes between two places of a text."""

    def __init__(self, text: str, begin: int, end: int) -> None:
        self.opened: list[tuple[int, str]] = []
        self.unclosed: int | None = None
        """The first quote that was not closed on its line."""
        position = begin
        while position < end:
            position = self._step(text, position)

    def _step(self, text: str, position: int) -> int:
        quote = self.opened[-1][1] if self.opened and self.opened[-1][1] not in {"[", "{"} else ""
        char = text[position]
        if quote:
            if char == "\\" and quote[0] == '"':
                return position + 2
            if text.startswith(quote, position):
                self.opened.pop()
                return position + len(quote)
            if char == "\n" and len(quote) == 1:
                offset, _ = self.opened.pop()
                self.unclosed = offset if self.unclosed is None else self.unclosed
            return position + 1
        if char == "#":
            end = text.find("\n", position)
            return len(text) if end < 0 else end
        symbol = char * 3 if char in "\"'" and text.startswith(char * 3, position) else char
        if char in "\"'[{":
            self.opened.append((position, symbol))
        elif char in "]}" and self.opened:
            self.opened.pop()
        return position + len(symbol)


def uncommented(text: str) -> str:
    """Cut a comment off a line, unless it is in quotes."""
    match = re.match(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[^#"']|["'](?=[^"']*\#?))*?(?=\s*(?:\#|$))""", text)
    return text[: match.end()].rstrip() if match else text.rstrip()
