"""What is wrong with a config, said so that it can be mended: where, what, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path


@attrs.frozen
class Problem:
    """One thing that is wrong.

    Attributes:
        code: A stable word for the sort of problem, such as `unknown-type`.
        path: The keys that lead to it, such as `("blobservices", "root", "near")`.
        message: What is wrong.
        hint: What to do about it, or `None`. It may have several lines.
        at: Whether it is the key or the value that is wrong.
        part: The part of the value that is wrong, as it is written there; empty if all of it is.
        severity: An `error` keeps a composition from being used, a `warning` does not.
        line: Line in the file, from 1; 0 if it did not come from a file.
        column: Column in the line, from 1; 0 likewise.
        width: How many characters are meant; 0 if it is the file as a whole.
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
    part: str = ""
    severity: Literal["error", "warning"] = "error"

    @property
    def dotted(self) -> str:
        """The path as it would be written in TOML, `blobservices.root.near`."""
        return dotted(self.path)

    def under(self, *keys: str | int) -> Problem:
        """Return the problem of the value at *keys* for one of the value itself."""
        return attrs.evolve(self, path=(*keys, *self.path))


class InvalidValueError(ValueError):
    """A value that a config cannot have.

    Config classes may raise it in validators, converters, `__attrs_post_init__` and `from_url`. A plain
    `ValueError` does as well, but has no hint.

    Attributes:
        message: What is wrong, such as `a memory service has no address`.
        hint: What to do, such as `write memory:`; or `None`.
        part: The part of the value that is wrong, as it is written there; empty if all of it is.
        under: The keys and numbers that lead to what is wrong in an array or a table: `(1, "timeout")`.
    """

    def __init__(self, message: str, hint: str | None = None, *, part: str = "", under: Path = ()) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint
        self.part = part
        self.under = under

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ProblemsError(ValueError):
    """Several things are wrong with a value; the paths of *problems* start from it.

    *partial* has what is right in it, by the keys or numbers under which it stands.
    """

    def __init__(self, problems: Sequence[Problem], partial: Mapping[Any, Any] | None = None) -> None:
        super().__init__(problems)
        self.problems = list(problems)
        self.partial = partial or {}

    def __str__(self) -> str:
        words = (f"{problem.dotted}: {problem.message}".removeprefix(": ") for problem in self.problems)
        return "; ".join(words)


_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def toml_string(text: str) -> str:
    """Return *text* as TOML writes it, in double quotes; a `Secret` as it is written in the config."""
    return f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """Return *text* with quotes, backslashes and what cannot be printed as TOML escapes; no secrets."""
    return "".join(
        _ESCAPES.get(c) or (c if c.isprintable() else _code(c)) for c in getattr(text, "shown", text)
    )


def shortened(text: str) -> str:
    """Return *text* as `escaped` does, and no more than 60 characters of it."""
    shown = escaped(text)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _code(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: Path) -> str:
    """Return *path* as it would be written in TOML."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else toml_string(part)
            text += f".{name}" if text else name
    return text


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """Return a suggestion of the word among *known* that is nearest to *word*, or `None`."""
    near = nearest(word, known)
    return f"did you mean `{prefix}{escaped(near)}`?" if near is not None else None


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the word among *known* that was probably meant by *word*, or `None`.

    *cutoff*: how much of the two must be the same, from 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only mistakes need it

    folded = {_folded(candidate): candidate for candidate in known}
    found = get_close_matches(_folded(word), folded, n=1, cutoff=cutoff)
    if not found and len(word) > 2:
        # `level` for `compression_level`, unless several words have it.
        longer = [name for name in folded if _folded(word) in name.split("_")]
        found = longer if len(longer) == 1 else []
    return folded[found[0]] if found else None


def _folded(word: str) -> str:
    return word.casefold().replace("-", "_").strip()


def listing(words: Iterable[str]) -> str:
    """Return *words* sorted, in backquotes, with commas: for "the types are ..."."""
    return ", ".join(f"`{escaped(word)}`" for word in sorted(words)) or "none"
