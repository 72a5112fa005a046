"""Values in a config that are more than plain numbers and strings: sizes, durations, bounds, secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NewType

import attrs

ByteSize = NewType("ByteSize", int)
"""A number of bytes: a whole number, or a string with a unit such as `"256 KiB"`."""

Duration = NewType("Duration", float)
"""A number of seconds: a number, or a string with a unit such as `"250 ms"`."""

_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
_DURATION_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SYNONYMS: Final = {
    "byte": "B", "bytes": "B", "KB": "kB", "b": "B",
    "k": "KiB", "K": "KiB", "m": "MiB", "M": "MiB", "g": "GiB", "G": "GiB", "T": "TiB",
    "kb": "KiB", "mb": "MiB", "gb": "GiB", "tb": "TiB",
    "kib": "KiB", "mib": "MiB", "gib": "GiB", "tib": "TiB",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms", "minute": "min", "minutes": "min",
    "hour": "h", "hours": "h", "day": "d", "days": "d",
}  # fmt: skip
_QUANTITY: Final = re.compile(r"\s*([+-]?\d[\d_]*(?:\.\d+)?)\s*([^\d\s.]*)\s*")
# `$$` before a brace is the escaped form: the brace and what follows stay as they are.
_VARIABLE: Final = re.compile(r"\$(?:(\$)(?=\{)|\{([A-Za-z_][A-Za-z0-9_]*)\}|(?=\{))")

MAX_SIZE: Final = (1 << 63) - 1


@attrs.frozen
class Between:
    """Bounds on a number, both included: `Annotated[ByteSize, Between(512, 2097153)]`."""

    low: float
    high: float

    def check(self, value: float) -> None:
        """Raise `ValueError` if *value* is out of bounds."""
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is not between {self.low} and {self.high}")


def parse_size(value: object) -> ByteSize:
    """Return a number of bytes; raises `ValueError` if *value* is none."""
    if isinstance(value, str):
        amount = _quantity(value, _SIZE_UNITS, example='"256 KiB"', what="a size")
        if amount != int(amount):
            raise ValueError(f"{value!r} is not a whole number of bytes")
        value = int(amount)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f'expected a size, such as "256 KiB" or a number of bytes, found {kind_of(value)}')  # noqa: TRY004
    if not 0 <= value <= MAX_SIZE:
        raise ValueError(f"a size is between 0 and {MAX_SIZE} bytes, this is {value}")
    return ByteSize(value)


def parse_duration(value: object) -> Duration:
    """Return a number of seconds; raises `ValueError` if *value* is none."""
    if isinstance(value, str):
        value = float(_quantity(value, _DURATION_UNITS, example='"250 ms"', what="a duration"))
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(
            f'expected a duration, such as "250 ms" or a number of seconds, found {kind_of(value)}'
        )
    if not 0 <= value < float("inf"):
        raise ValueError(f"a duration is a finite number of seconds, 0 or more, this is {value}")
    return Duration(float(value))


def _quantity(text: str, units: Mapping[str, float], *, example: str, what: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not {what}: write a number and a unit, such as {example}")
    number, unit = match[1].replace("_", ""), match[2]
    if not unit:
        return float(number) if "." in number else int(number)
    if unit not in units:
        meant = _SYNONYMS.get(unit)
        hint = f"did you mean `{meant}`?" if meant in units else f"the units are {', '.join(units)}"
        raise ValueError(f"{text!r} has the unknown unit `{unit}`; {hint}")
    scale = units[unit]
    return float(number) * scale if "." in number else int(number) * scale


def kind_of(value: object) -> str:
    """Return *value* as a phrase of TOML's words, for messages."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string {value!r}"
        case int() | float():
            return f"the number {value}"
        case Mapping():
            return "a table"
        case list() | tuple():
            return "an array"
        case _:
            return f"the {type(value).__name__} {value}"


class Secret(str):
    """A string that came by reference, from the environment or a file.

    Used as a string it is the value; its repr shows only how it was written, as in `'${TOKEN}'`.
    """

    __slots__ = ("shown",)
    shown: str

    def __new__(cls, value: str, shown: str) -> Secret:
        """Take the value and how it was written."""
        self = super().__new__(cls, value)
        self.shown = shown
        return self

    def __repr__(self) -> str:
        return repr(self.shown)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"the secret {self.shown} does not leave the process: pickle the composition instead")


def expand(text: str) -> str:
    """Return *text* with each `${NAME}` replaced from the environment; `$${` stands for `${`.

    A text with a reference comes back as a `Secret`. Raises `ValueError` for a variable that is not set
    or a `${` that names none.
    """
    found = False

    def value(match: re.Match[str]) -> str:
        nonlocal found
        escaped, name = match[1], match[2]
        if escaped:
            return "$"
        if name is None:
            raise ValueError(f"{text!r} has a `${{` without a name and `}}`; for a plain one write `$${{`")
        found = True
        if name not in os.environ:
            raise ValueError(f"the environment variable `{name}` is not set")
        return os.environ[name]

    expanded = _VARIABLE.sub(value, text)
    return Secret(expanded, text) if found else expanded


def read_secret_file(name: str, base: Path) -> Secret:
    """Return the content of a file, without the line end at its end; *name* is relative to *base*.

    Raises `ValueError` if it cannot be read or is not UTF-8.
    """
    path = base / Path(name).expanduser()
    try:
        value = path.read_text("utf-8")
    except OSError as error:
        raise ValueError(f"cannot read the secret file {name!r}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"the secret file {name!r} is not UTF-8 text") from None
    return Secret(value.removesuffix("\n").removesuffix("\r"), f"{{ file = {name!r} }}")


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return *text* with every value of *secrets* in it replaced by `***`."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(str(secret), "***")
    return text


def fields_of(config: object) -> dict[str, Any]:
    """Return the fields of an attrs object with their values."""
    return {field.name: getattr(config, field.name) for field in attrs.fields(type(config))}  # type: ignore[arg-type]


def secrets_in(value: object) -> list[Secret]:
    """Return the secrets anywhere in a config value: a string, a list, a table, or an attrs object."""
    match value:
        case Secret():
            return [value]
        case Mapping():
            return [secret for item in value.values() for secret in secrets_in(item)]
        case list() | tuple():
            return [secret for item in value for secret in secrets_in(item)]
        case _ if attrs.has(type(value)) and not isinstance(value, type):
            return [secret for item in fields_of(value).values() for secret in secrets_in(item)]
        case _:
            return []
