"""Problems as text: each with its place in the file, its line, and a mark under what is meant."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from castore.composition.toml.spans import Path, Place, Span, lookup, scan
from castore.problems import Problem
from castore.urls import masked_in_place

_WIDEST: Final = 120
"""Characters of a source line that are shown; of a longer one only what is around the mark."""


def located(problems: Iterable[Problem], text: str) -> list[Problem]:
    """Return *problems* with their places in *text*, in the order of the file."""
    places = scan(text)
    lines = text.split("\n")
    found = [problem if problem.line else _locate(problem, places, lines) for problem in problems]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _locate(problem: Problem, places: dict[Path, Place], lines: Sequence[str]) -> Problem:
    place = lookup(places, problem.path)
    if place is None:
        return attrs.evolve(problem, line=1, column=1, width=0)
    by_key = problem.at == "key"
    if problem.path not in places:
        # The nearest around it is shown by its name, unless it is a string, which may have anything in it.
        by_key = not _written(place.value, lines).startswith(('"', "'"))
    span = place.key if by_key else place.value
    column, width = span.column, span.width
    written = _written(span, lines)
    if problem.part and written.count(problem.part) == 1:
        column += written.index(problem.part)
        width = len(problem.part)
    return attrs.evolve(problem, line=span.line, column=column, width=width)


def _written(span: Span, lines: Sequence[str]) -> str:
    return lines[span.line - 1][span.column - 1 : span.column - 1 + span.width]


def render(problems: Sequence[Problem], source: str, text: str | None) -> str:
    """Return *problems* as the text of an error about *source*, whose content is *text*."""
    lines = [] if text is None else text.split("\n")
    blocks = [_render_one(problem, source, lines) for problem in problems]
    if len(blocks) > 1:
        sort = "warnings" if all(problem.severity == "warning" for problem in problems) else "problems"
        blocks.append(f"{len(blocks)} {sort} in {source}")
    return ("\n\n" if lines else "\n").join(blocks)


def headline(problem: Problem, source: str) -> str:
    """Return the place of a problem and what is wrong, in one line."""
    place = f"{source}:{problem.line}:{problem.column}" if problem.line else source
    what = f"{problem.dotted}: {problem.message}" if problem.path else problem.message
    return f"{place}: {'warning: ' if problem.severity == 'warning' else ''}{what}"


def _render_one(problem: Problem, source: str, lines: Sequence[str]) -> str:
    rows = [headline(problem, source)]
    if problem.width and 0 < problem.line <= len(lines) and lines[problem.line - 1].strip():
        rows += _excerpt(problem, lines[problem.line - 1])
    if problem.hint:
        rows += [f"  {line}" for line in problem.hint.split("\n")]
    return "\n".join(rows)


def _excerpt(problem: Problem, line: str) -> list[str]:
    """Return the source line and the mark under it."""
    # What cannot be printed, such as an escape sequence, would do things to the terminal.
    line = "".join(
        c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in masked_in_place(line)
    )
    start, end = problem.column - 1, problem.column - 1 + max(1, problem.width)
    begin, before, after = 0, "", ""
    if len(line) > _WIDEST:
        begin = max(0, min(start - _WIDEST // 3, len(line) - _WIDEST))
        before, after = "…" if begin else "", "…" if begin + _WIDEST < len(line) else ""
    shown = before + line[begin : begin + _WIDEST] + after
    start, end = start - begin + len(before), min(end - begin + len(before), len(shown))
    # A tab under a tab keeps the mark in its place.
    indent = "".join(c if c == "\t" else " " * _cells(c) for c in shown[:start])
    mark = "^" * max(1, sum(_cells(c) for c in shown[start:end]))
    number = str(problem.line)
    return [f"  {number} | {shown.rstrip()}", f"  {' ' * len(number)} | {indent}{mark}"]


def _cells(character: str) -> int:
    """Return how many columns of a terminal a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
