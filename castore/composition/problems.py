"""What is wrong with a config, said so that it can be mended: where, what, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import attrs

from castore.composition.spans import Path, Place, Span, lookup, scan


@attrs.frozen
class Problem:
    """One thing that is wrong.

    Attributes:
        code: A stable word for the sort of problem, such as `unknown-type`.
        path: The keys that lead to it, such as `("blobservices", "root", "near")`.
        message: What is wrong.
        hint: What to do about it, or `None`.
        at: Whether it is the key or the value that is wrong.
        line: Line in the file, from 1; 0 if it did not come from a file.
        column: Column in the line, from 1; 0 likewise.
        width: How many characters are meant.
        chain: The names of a cycle, each needing the next; empty for other problems.
    """

    code: str
    path: Path
    message: str
    hint: str | None = None
    at: str = "value"
    line: int = 0
    column: int = 0
    width: int = 1
    chain: tuple[str, ...] = ()

    @property
    def dotted(self) -> str:
        """The path as it would be written in TOML, `blobservices.root.near`."""
        return dotted(self.path)


def dotted(path: Path) -> str:
    """Return *path* as it would be written in TOML."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = part and all(c.isalnum() or c in "-_" for c in part) and part.isascii()
            name = part if bare else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text


def located(problems: Iterable[Problem], text: str) -> list[Problem]:
    """Return *problems* with their places in *text*, in the order of the file."""
    places = scan(text)
    found = [problem if problem.line else _locate(problem, places) for problem in problems]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _locate(problem: Problem, places: dict[Path, Place]) -> Problem:
    place = lookup(places, problem.path)
    if place is None:
        return attrs.evolve(problem, line=1, column=1, width=1)
    span: Span = place.key if problem.at == "key" else place.value
    return attrs.evolve(problem, line=span.line, column=span.column, width=span.width)


def render(problems: Sequence[Problem], source: str, text: str | None) -> str:
    """Return *problems* as the text of an error: each with its line and a mark under what is meant."""
    lines = [] if text is None else [line.rstrip("\r") for line in text.split("\n")]
    blocks = [_render_one(problem, source, lines) for problem in problems]
    if len(blocks) > 1:
        blocks.append(f"{len(blocks)} problems in {source}")
    return "\n".join(blocks)


def _render_one(problem: Problem, source: str, lines: Sequence[str]) -> str:
    place = f"{source}:{problem.line}:{problem.column}" if problem.line else source
    what = f"{problem.dotted}: {problem.message}" if problem.path else problem.message
    rows = [f"{place}: {what}"]
    if 0 < problem.line <= len(lines) and lines[problem.line - 1].strip():
        line = lines[problem.line - 1]
        number = str(problem.line)
        before = line[: problem.column - 1]
        width = max(1, min(problem.width, len(line) - len(before)))
        # A tab under a tab keeps the mark in its place.
        indent = "".join(c if c == "\t" else " " for c in before)
        rows.append(f"  {number} | {line}")
        rows.append(f"  {' ' * len(number)} | {indent}{'^' * width}")
    if problem.hint:
        rows.append(f"  {problem.hint}")
    return "\n".join(rows)


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """Return a suggestion of the word among *known* that is nearest to *word*, or `None`."""
    candidates = list(known)
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if not near:
        folded = {candidate.casefold().replace("-", "_"): candidate for candidate in candidates}
        exact = folded.get(word.casefold().replace("-", "_"))
        near = [exact] if exact else []
    return f"did you mean `{prefix}{near[0]}`?" if near else None


def listing(words: Iterable[str]) -> str:
    """Return *words* sorted, in backquotes, with commas: for "the types are ..."."""
    return ", ".join(f"`{word}`" for word in sorted(words)) or "none"
