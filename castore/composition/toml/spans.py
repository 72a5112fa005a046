"""Where the keys and values of a TOML document stand, for messages that point at them.

tomli forgets the places of what it reads, and its errors name only the place of a syntax error. `scan`
walks the same text once more and keeps places instead of values. It is used only where a document that
tomli accepted turns out to be wrong, so it trusts the syntax: commas, duplicates and the insides of
numbers were checked before. Where it still meets something it cannot follow it stops and returns what
it has, because a message without a place is better than another error.

It reads what tomli reads: TOML 1.0, and of 1.1 the line ends and the trailing comma in inline tables.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from typing import Final

import attrs
import tomli

Path = tuple[str | int, ...]

# Each pattern that eats a string is unrolled so that a string without an end fails in linear time.
_STRING: Final = r"""
    \"{3} [^"\\]* (?: (?: \\. | "{1,2}(?!") ) [^"\\]* )* "{3,5}
  | '{3} [^']* (?: '{1,2}(?!') [^']* )* '{3,5}
  | "(?!"") [^"\\\n]* (?: \\[^\n] [^"\\\n]* )* "
  | '(?!'') [^'\n]* '
"""
_DATE_BEFORE_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ ](?=[0-9]{2}:)"
_SCALAR: Final = re.compile(
    rf"{_STRING} | (?:{_DATE_BEFORE_TIME})? [0-9A-Za-z_.:+-]+", re.VERBOSE | re.DOTALL
)
_KEY_PART: Final = re.compile(
    r""" [0-9A-Za-z_-]+ | "[^"\\\n]*(?:\\[^\n][^"\\\n]*)*" | '[^'\n]*' """, re.VERBOSE
)
_BLANK: Final = re.compile(r"[ \t]+")
_BETWEEN_STATEMENTS: Final = re.compile(r"[ \t\r\n]+|\#[^\n]*")
_BETWEEN_ITEMS: Final = re.compile(r"[ \t\r\n,]+|\#[^\n]*")

_CLOSERS: Final = {"[": "]", "{": "}"}

# Deeper than tomli nests values, and as long as its longest key. Without a limit the paths below a
# million opening brackets would fill the memory.
_DEEPEST: Final = 1000


@attrs.frozen
class Span:
    """A stretch of one line.

    Attributes:
        line: The line, from 1. Only a line feed ends a line, with or without a carriage return before it.
        column: The character in the line at which it starts, from 1.
        width: The number of characters it covers, at least 1. What goes on over several lines is covered
            to the end of its first line.
    """

    line: int
    column: int
    width: int


@attrs.frozen
class Place:
    """Where one entry of a document is written.

    Attributes:
        key: The key, or the last part of the key in a table's header. For an element of an array the
            same as `value`.
        value: The value. For a table with a header of its own the whole header; for a table that exists
            only because a longer key goes through it the same as `key`.
    """

    key: Span
    value: Span


def scan(text: str) -> dict[Path, Place]:
    """Return the place of every entry in a document, tables and arrays included, by the path to it.

    An element of an array has its index in its path, from 0, also in an array of tables. *text* must be
    as tomli accepted it; of any other text the places up to some point are returned. Nothing is raised.
    """
    scanner = _Scanner(text)
    with contextlib.suppress(_LostError):
        while scanner.statement():
            pass
    return scanner.places


def lookup(places: dict[Path, Place], path: Path) -> Place | None:
    """Return the place of *path*, else of the nearest entry around it, `None` if there is neither."""
    for length in range(len(path), -1, -1):
        place = places.get(path[:length])
        if place is not None:
            return place
    return None


class _LostError(Exception):
    """The scan cannot tell what comes next."""


@attrs.define
class _Open:
    """An array or inline table whose end is not reached yet."""

    path: Path
    key: Span | None
    begin: int
    closer: str
    count: int = 0


class _Scanner:
    """A position in a text, and the places found before it.

    Each step either moves the position on or raises `_LostError`, so the scan ends. Values are followed
    with a list of what is open, not by recursion, so no depth overflows the stack.
    """

    def __init__(self, text: str) -> None:
        self.places: dict[Path, Place] = {}
        self._text = text
        self._position = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._table: Path = ()
        self._table_arrays: dict[Path, int] = {}

    def statement(self) -> bool:
        """Take the next header or key with its value; return False at the end of the text."""
        self._skip(_BETWEEN_STATEMENTS)
        if self._position == len(self._text):
            return False
        if self._at("["):
            self._header()
        else:
            self._value(*self._key(self._table))
        return True

    def _header(self) -> None:
        begin = self._position
        brackets = 2 if self._at("[[") else 1
        self._expect("[" * brackets)
        *parents, (name, key) = self._key_parts()
        self._expect("]" * brackets)
        header = self._span(begin, self._position)
        path = _below(self._through((), parents), name)
        if brackets == 1:
            self.places[path] = Place(key, header)
        else:
            index = self._table_arrays.get(path, -1) + 1
            self._table_arrays[path] = index
            self.places.setdefault(path, Place(key, header))
            path = _below(path, index)
            self.places[path] = Place(header, header)
        self._table = path

    def _key(self, table: Path) -> tuple[Path, Span]:
        """Take a key of *table* and the equals sign; return its path and the place of its last part."""
        *parents, (name, key) = self._key_parts()
        self._expect("=")
        self._skip(_BLANK)
        return _below(self._through(table, parents), name), key

    def _key_parts(self) -> list[tuple[str, Span]]:
        parts = []
        while True:
            self._skip(_BLANK)
            begin = self._position
            name = _unquote(self._take(_KEY_PART))
            parts.append((name, self._span(begin, self._position)))
            self._skip(_BLANK)
            if not self._at("."):
                return parts
            self._position += 1

    def _through(self, path: Path, parents: list[tuple[str, Span]]) -> Path:
        """Return the path of the table that *parents* lead to from *path*, noting new tables on the way."""
        for name, key in parents:
            path = _below(path, name)
            self.places.setdefault(path, Place(key, key))
            if path in self._table_arrays:
                path = _below(path, self._table_arrays[path])
        return path

    def _value(self, path: Path, key: Span | None) -> None:
        """Take a value with all that is in it. *key* is `None` for an element of an array."""
        opened: list[_Open] = []
        while True:
            begin = self._position
            closer = _CLOSERS.get(self._text[begin : begin + 1])
            if closer is None:
                self._take(_SCALAR)
                self._note(path, key, begin)
            else:
                self._position += 1
                opened.append(_Open(path, key, begin, closer))
            self._close(opened)
            if not opened:
                return
            path, key = self._item(opened[-1])

    def _close(self, opened: list[_Open]) -> None:
        """Take the ends of all that ends here, up to the next item of what stays open."""
        while opened:
            self._skip(_BETWEEN_ITEMS)
            if not self._at(opened[-1].closer):
                return
            self._position += 1
            done = opened.pop()
            self._note(done.path, done.key, done.begin)

    def _item(self, container: _Open) -> tuple[Path, Span | None]:
        if container.closer == "}":
            return self._key(container.path)
        container.count += 1
        return _below(container.path, container.count - 1), None

    def _note(self, path: Path, key: Span | None, begin: int) -> None:
        value = self._span(begin, self._position)
        self.places[path] = Place(key or value, value)

    def _span(self, begin: int, end: int) -> Span:
        line = bisect_right(self._line_starts, begin)
        start = self._line_starts[line - 1]
        if line < len(self._line_starts) and self._line_starts[line] <= end:
            end = self._line_starts[line] - 1
            if self._text[end - 1] == "\r":
                end -= 1
        return Span(line, begin - start + 1, end - begin)

    def _at(self, symbol: str) -> bool:
        return self._text.startswith(symbol, self._position)

    def _expect(self, symbol: str) -> None:
        if not self._at(symbol):
            raise _LostError
        self._position += len(symbol)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._position)
        if match is None:
            raise _LostError
        self._position = match.end()
        return match.group()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        while match := pattern.match(self._text, self._position):
            self._position = match.end()


def _below(path: Path, step: str | int) -> Path:
    if len(path) >= _DEEPEST:
        raise _LostError
    return (*path, step)


def _unquote(part: str) -> str:
    if part[0] not in "\"'":
        return part
    if "\\" not in part:
        return part[1:-1]
    try:
        # tomli knows the escapes, and a key part in quotes is a value as well.
        return str(tomli.loads(f"key = {part}")["key"])
    except ValueError:
        raise _LostError from None
