"""Secrets in a config: they come by reference, are used as strings, and show only how they were written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, quote_plus, unquote

import attrs

from castore.places import read_small
from castore.problems import InvalidValueError, nearest, shortened, toml_string

# `$$` before a brace is the escaped form: the brace and what follows stay as they are.
_VARIABLE: Final = re.compile(r"\$(?:(\$)(?=\{)|\{([A-Za-z_][A-Za-z0-9_]*)\}|(?=\{))")

_MOST_BYTES: Final = 1 << 20
"""The largest file that is read as a secret."""

_SHORT: Final = 4
"""Shorter texts stand in many words: they are taken out of a text only where they are words."""


class Secret(str):
    """A string that came by reference, from the environment or a file, in whole or in part.

    Used as a string it is the value; its repr shows only how it was written, as in `'${TOKEN}'`.

    Attributes:
        shown: How it was written.
        pieces: What in it came by reference: each value, and how that was written.
    """

    __slots__ = ("pieces", "shown")
    shown: str
    pieces: tuple[tuple[str, str], ...]

    def __new__(cls, value: str, shown: str, pieces: Iterable[tuple[str, str]] = ()) -> Self:
        """Take the value and how it was written; without *pieces* all of it came by reference."""
        self = super().__new__(cls, value)
        self.shown = shown
        self.pieces = tuple(pieces) or ((str(value), shown),)
        return self

    def __repr__(self) -> str:
        return repr(self.shown)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"the secret {self.shown} does not leave the process: pickle the composition instead")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self


class SecretPath(type(Path())):  # type: ignore[misc] # the class for this system is known at run time only
    """A path that came by reference; its repr shows only how it was written."""

    secret: Secret | None = None

    @classmethod
    def of(cls, secret: Secret) -> Self:
        """Return the path that *secret* names."""
        self = cls(str(secret))
        self.secret = secret
        return self

    def __repr__(self) -> str:
        return f"Path({self.secret!r})" if self.secret is not None else "Path('***')"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret path does not leave the process: pickle the composition instead")


def keep_secret(part: str, whole: str) -> str:
    """Return *part*, which was taken out of *whole*, as a `Secret` if it has anything secret in it.

    For those who take a string of a config apart, such as a URL.
    """
    if not isinstance(whole, Secret) or not part:
        return part
    shown = str(part)
    for value, written in sorted(whole.pieces, key=lambda piece: -len(piece[0])):
        for form in _forms(value):
            shown = shown.replace(form, written)
        if len(part) >= _SHORT and part in value:
            return Secret(part, written, ((part, written), *whole.pieces))
    return part if shown == part else Secret(part, shown, whole.pieces)


def expand(text: str) -> str:
    """Return *text* with each `${NAME}` replaced from the environment; `$${` stands for `${`.

    A text with a reference comes back as a `Secret`. Raises `InvalidValueError` for a variable that is not
    set or a `${` that names none.
    """
    pieces: list[tuple[str, str]] = []

    def value(match: re.Match[str]) -> str:
        escaped, name = match[1], match[2]
        if escaped:
            return "$"
        if name is None:
            begun = text[match.start() :].partition("}")
            part = "".join(begun[:2])
            message = f"`{shortened(part)}` " + ("is no name of a variable" if begun[1] else "has no `}`")
            raise InvalidValueError(
                message, "write `${NAME}`, or `$${` for the two characters alone", part=part
            )
        if name not in os.environ:
            meant = nearest(name, os.environ, cutoff=0.8)
            hint = (
                f"did you mean `${{{meant}}}`?"
                if meant
                else f"set it, or write `$${{{name}}}` for the text itself"
            )
            raise InvalidValueError(f"the environment variable `{name}` is not set", hint, part=match[0])
        pieces.append((os.environ[name], match[0]))
        return os.environ[name]

    expanded = _VARIABLE.sub(value, text)
    return Secret(expanded, text, pieces) if pieces else expanded


def read_secret_file(name: str, base: Path) -> Secret:
    """Return the content of a file, without the line end at its end; *name* is relative to *base*.

    Raises `InvalidValueError` if it cannot be read or is not UTF-8.
    """
    shown = f"{{ file = {toml_string(name)} }}"
    try:
        path = base / Path(name).expanduser()
        value = read_small(path, _MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidValueError(f"the secret file {toml_string(name)} is not text in UTF-8") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = None if Path(name).is_absolute() else "relative paths start from the folder of the composition"
        raise InvalidValueError(f"cannot read the secret file {toml_string(name)}: {reason}", hint) from None
    return Secret(value.removesuffix("\n").removesuffix("\r"), shown)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return *text* with every value of *secrets* in it replaced by `***`, also where it is URL-encoded."""
    values = {
        value
        for secret in secrets
        for value in ([piece for piece, _ in secret.pieces] if isinstance(secret, Secret) else [str(secret)])
    }
    forms = {form for value in values for form in _forms(value)}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _SHORT:
            text = text.replace(form, "***")
        else:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "***", text)
    return text


def _forms(value: str) -> set[str]:
    """Return the ways in which a value may stand in a message."""
    forms = {value, value.strip(), quote(value), quote(value, safe=""), quote_plus(value), unquote(value)}
    return {form for form in (*forms, repr(value)[1:-1]) if form.strip()}


def fields_of(config: object) -> dict[str, Any]:
    """Return the fields of an attrs object with their values."""
    return {field.name: getattr(config, field.name) for field in attrs.fields(type(config))}  # type: ignore[arg-type]


def secrets_in(value: object) -> list[Secret]:
    """Return the secrets anywhere in a config value: a string, a list, a table, or an attrs object."""
    match value:
        case Secret():
            return [value]
        case SecretPath():
            return [value.secret] if value.secret is not None else []
        case Mapping():
            return [secret for item in value.values() for secret in secrets_in(item)]
        case list() | tuple() | set() | frozenset():
            return [secret for item in value for secret in secrets_in(item)]
        case _ if attrs.has(type(value)) and not isinstance(value, type):
            return [secret for item in fields_of(value).values() for secret in secrets_in(item)]
        case _:
            return []
