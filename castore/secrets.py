"""Secrets in a config: they come by reference, are used as strings, and show only how they were written."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self
from urllib.parse import quote, quote_plus, unquote

import attrs

from castore.places import expand_user, read_small
from castore.problems import InvalidValueError, nearest, shortened, toml_string

_SPECIAL: Final = re.compile(r"\$\$(?=\{)|\$\{")
"""The beginning of `$${`, which is the escaped form, or `${`."""

_OR_CLOSING: Final = re.compile(rf"{_SPECIAL.pattern}|\}}")

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_MOST_BYTES: Final = 1 << 20
"""The largest file that is read as a secret."""

_SHORT: Final = 4
"""Shorter texts stand in many words: they are taken out of a text only where they are words."""


class Untyped(str):
    """A text that is read as what it is wanted for: a number, say, where a number belongs.

    A URL and the environment have nothing but text; TOML has types, and its strings are strings.
    """

    __slots__ = ()


class Secret(Untyped):
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

    `${NAME:-default}` is the text behind the `:-` if the variable is not set or empty; that may have
    references of its own. A text with the value of a variable comes back as a `Secret`, one with nothing but
    defaults as `Untyped`. Raises `InvalidValueError` for a variable that is not set and has no default, and
    for a `${` that names none.
    """
    if _SPECIAL.search(text) is None:
        return text
    expander = _Expander(text)
    expanded = expander.run()
    if expander.pieces:
        return Secret(expanded, text, expander.pieces)
    return Untyped(expanded) if expander.found else expanded


@attrs.define
class _Default:
    """A default that is being read: what follows a `:-`, up to its `}`."""

    start: int
    """Where its reference begins."""
    value: str
    """That of the variable; empty if the default is wanted."""
    used: bool
    """Whether the reference itself stands where it counts."""
    before: list[str]
    """The text in front of the reference."""
    braces: int = 0
    """How many `$${` in it have had no `}` yet."""


class _Expander:
    """One walk over a text from its left to its right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        # Kept by hand: a default in a default in a default is no reason to end.
        self._open: list[_Default] = []
        self._parts: list[str] = []
        # Of a default that is not used only the form matters: a variable in it need not be set.
        self._used = True
        # Once each: a long text may name one variable again and again.
        self.pieces: dict[tuple[str, str], None] = {}
        self.found = False

    def run(self) -> str:
        """Return the text with its references replaced."""
        while match := (_OR_CLOSING if self._open else _SPECIAL).search(self._text, self._at):
            self._parts.append(self._text[self._at : match.start()])
            self._at = match.start()
            match match[0]:
                case "}":
                    self._close()
                case "$$":
                    self._parts.append("${")
                    self._at += len("$${")
                    if self._open:
                        self._open[-1].braces += 1
                case _:
                    self._read_reference()
        self._parts.append(self._text[self._at :])
        if self._open:
            raise self._mistake(self._open[-1].start, "has no `}`")
        return "".join(self._parts)

    def _read_reference(self) -> None:
        start = self._at
        name = self._name(start)
        value = os.environ.get(name)
        self.found = True
        if self._text.startswith(":-", self._at):
            self._at += 2
            self._open.append(_Default(start, value or "", self._used, self._parts))
            self._parts, self._used = [], self._used and not value
            return
        self._at += 1
        if value is None and self._used:
            raise self._unset(name, self._text[start : self._at])
        self._take(value or "", start)

    def _close(self) -> None:
        """End what was begun last: a `$${`, or the default."""
        self._at += 1
        if self._open[-1].braces:
            self._open[-1].braces -= 1
            self._parts.append("}")
            return
        default, ended = "".join(self._parts), self._open.pop()
        self._parts, self._used = ended.before, ended.used
        if ended.value:
            self._take(ended.value, ended.start)
        else:
            self._parts.append(default)

    def _take(self, value: str, start: int) -> None:
        """Take the value of a variable for the reference that begins at *start* and ends here."""
        self._parts.append(value)
        if self._used:
            self.pieces.setdefault((value, self._text[start : self._at]))

    def _name(self, start: int) -> str:
        """Return the name behind the `${` at *start*, and step over it, up to a `}` or `:-`."""
        match = _NAME.match(self._text, start + 2)
        if match is None or not self._text.startswith(("}", ":-"), match.end()):
            raise self._mistake(
                start, "is no name of a variable" if "}" in self._text[start:] else "has no `}`"
            )
        self._at = match.end()
        return match[0]

    def _mistake(self, start: int, what: str) -> InvalidValueError:
        part = "".join(self._text[start:].partition("}")[:2])
        hint = "write `${NAME}` or `${NAME:-default}`, or `$${` for the two characters alone"
        return InvalidValueError(f"`{shortened(part)}` {what}", hint, part=part)

    def _unset(self, name: str, written: str) -> InvalidValueError:
        meant = nearest(name, os.environ, cutoff=0.8)
        hint = f"set it, or write `${{{name}:-...}}` with a default, or `$${{{name}}}` for the text itself"
        if meant:
            hint = f"did you mean `${{{meant}}}`?"
        return InvalidValueError(f"the environment variable `{name}` is not set", hint, part=written)


def read_secret_file(name: str, base: Path) -> Secret:
    """Return the content of a file, without the line end at its end; *name* is relative to *base*.

    Raises `InvalidValueError` if it cannot be read or is not UTF-8.
    """
    shown = f"{{ file = {toml_string(name)} }}"
    try:
        path = base / expand_user(name)
        value = read_small(path, _MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidValueError(f"the secret file {toml_string(name)} is not text in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = (
            None
            if Path(name).is_absolute() or name.startswith("~")
            else "relative paths start from the folder of the composition"
        )
        raise InvalidValueError(f"cannot read the secret file {toml_string(name)}: {reason}", hint) from None
    return Secret(value.removesuffix("\n").removesuffix("\r"), shown)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return *text* with every value of *secrets* in it replaced by `***`.

    So it is where the value is URL-encoded. Of a path its parents are hidden as well, where one stands alone,
    and of a URL the host or bucket and the path: what fails is often said of these.
    """
    values = {
        value
        for secret in secrets
        for value in ([piece for piece, _ in secret.pieces] if isinstance(secret, Secret) else [str(secret)])
    }
    patterns: dict[str, str | None] = {}
    for value in values:
        if len(value) <= _LONGEST_PLACE and "\n" not in value:
            patterns |= _patterns_of_places(value)
    patterns |= {form: _pattern(form) for value in values for form in _forms(value)}
    for form in sorted(patterns, key=len, reverse=True):
        pattern = patterns[form]
        text = text.replace(form, "***") if pattern is None else re.sub(pattern, "***", text)
    return text


def _pattern(form: str) -> str | None:
    """Return how a form is looked for; `None` for one that is hidden wherever it stands."""
    return None if len(form) >= _SHORT else rf"(?<!\w){re.escape(form)}(?!\w)"


def _forms(value: str) -> set[str]:
    """Return the ways in which a value may stand in a message."""
    raw = value.encode("utf-8", "surrogatepass")  # It may come from where bytes are no text.
    forms = {value, value.strip(), quote(raw), quote(raw, safe=""), quote_plus(raw), unquote(value)}
    if "/" in value:
        # A path is shown as it is used.
        forms |= {os.path.normpath(value), os.path.expanduser(value)}  # noqa: PTH111 - for its text alone
    return {form for form in (*forms, repr(value)[1:-1]) if form.strip() and form not in {".", "/"}}


_LONGEST_PLACE: Final = 4096
"""What is longer is no path and no URL, but a key or the like."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://(?:[^/?#]*@)?(?P<host>[^/?#]*))?(?P<path>[^?#]*)")


def _patterns_of_places(value: str) -> dict[str, str]:
    """Return what in a message is a place that a value leads to, or one above it: patterns by their texts."""
    url = _URL.match(value)
    if url is not None and url["host"] is None and not set("/.") & set(url["path"]):
        url = None  # A name and a password, say.
    found: dict[str, str] = {}
    if url is not None and url["host"]:
        found[url["host"]] = rf"(?<![\w.-]){re.escape(url['host'])}(?![\w-]|\.\w)"
    path = value if url is None else unquote(url["path"])
    if "/" not in path and url is None:
        return found
    for form in {os.path.normpath(path), os.path.normpath(os.path.expanduser(path))}:  # noqa: PTH111 - its text
        place = form.removeprefix("../").lstrip("/")
        if url is not None and place not in {"", ".", ".."}:
            found[form] = _place_pattern(form) + r"(?!\w)"
        for parent in PurePosixPath(form).parents:
            if parent.name not in {"", ".."}:
                found.setdefault(str(parent), _place_pattern(str(parent)) + r"(?![\w/-]|\.\w)")
    return found


def _place_pattern(path: str) -> str:
    """Return a pattern of a path that begins where a path may; a single name is one only after a `/`."""
    return (r"(?<![\w.-])" if "/" in path else r"(?<=/)") + re.escape(path)


def has_fields(value: object) -> bool:
    """Tell whether *value* is an object of a config class, or of a class of fields within one."""
    return not isinstance(value, type) and (attrs.has(type(value)) or dataclasses.is_dataclass(value))


def fields_of(config: Any) -> dict[str, Any]:
    """Return the fields of such an object with their values, by the keys that a table has for them."""
    if not attrs.has(type(config)):
        return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {field.alias or field.name: getattr(config, field.name) for field in attrs.fields(type(config))}


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
        case _ if has_fields(value):
            return [secret for item in fields_of(value).values() for secret in secrets_in(item)]
        case _:
            return []
