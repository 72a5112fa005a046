"""Values in a config that are more than plain numbers and strings: sizes, durations, bounds."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any, Final, NewType

import attrs

from castore.problems import InvalidValueError, escaped, toml_string
from castore.secrets import Secret, expand, fields_of, read_secret_file, scrub, secrets_in

__all__ = [
    "MAX_SIZE",
    "Between",
    "ByteSize",
    "Duration",
    "Secret",
    "WrongTypeError",
    "expand",
    "expected",
    "fields_of",
    "kind_of",
    "parse_duration",
    "parse_plain",
    "parse_size",
    "read_secret_file",
    "scrub",
    "secrets_in",
]

ByteSize = NewType("ByteSize", int)
"""A number of bytes: a whole number, or a string with a unit such as `"256 KiB"`."""

Duration = NewType("Duration", float)
"""A number of seconds: a number, or a string with a unit such as `"250 ms"`."""

_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
"""Units by their number of bytes."""

_DURATION_UNITS: Final = {
    "us": 1, "ms": 10**3, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6,
}  # fmt: skip
"""Units by their number of microseconds."""

_SYNONYMS: Final = {
    "byte": "B", "bytes": "B", "k": "KiB", "kb": "KiB", "m": "MiB", "mb": "MiB", "g": "GiB", "gb": "GiB",
    "t": "TiB", "tb": "TiB", "kib": "KiB", "mib": "MiB", "gib": "GiB", "tib": "TiB", "b": "B",
    "\N{MICRO SIGN}s": "us", "\N{GREEK SMALL LETTER MU}s": "us", "usec": "us", "msec": "ms",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "mins": "min", "minute": "min", "minutes": "min",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "day": "d", "days": "d",
}  # fmt: skip
_QUANTITY: Final = re.compile(r"\s*(-?)\+?([0-9][0-9_]*)(?:\.([0-9]+))?\s*([^\d\s.]*)\s*")

MAX_SIZE: Final = (1 << 63) - 1
_MOST_DIGITS: Final = 40


@attrs.frozen
class Between:
    """Bounds on a number, both included: `Annotated[ByteSize, Between(512, 2097153)]`."""

    low: float
    high: float

    def check(self, value: float, *, found: str | None = None, unit: str = "", secret: bool = False) -> None:
        """Raise `InvalidValueError` if *value* is out of bounds; *found* is how it was written.

        If it is *secret*, nothing else is shown.
        """
        if not self.low <= value <= self.high:
            shown = str(value) if found in {None, str(value)} else f"{found} ({value}{unit})"
            shown = str(found) if secret else shown
            raise InvalidValueError(f"expected {self.low} to {self.high}{unit}, found {shown}")


def parse_size(value: object) -> ByteSize:
    """Return a number of bytes; raises `InvalidValueError` if *value* is none."""
    if isinstance(value, str):
        amount, parts = _quantity(value, _SIZE_UNITS, "a size", example='"256 KiB"')
        if amount % parts:
            raise InvalidValueError(f"{toml_string(value)} is not a whole number of bytes")
        value = amount // parts
    if not isinstance(value, int) or isinstance(value, bool):
        raise expected('a size, such as "256 KiB" or a number of bytes', value)
    if value < 0:
        raise InvalidValueError("a size cannot be negative")
    if value > MAX_SIZE:
        raise InvalidValueError("this size is too large", f"the largest is {MAX_SIZE} bytes")
    return ByteSize(value)


def parse_duration(value: object) -> Duration:
    """Return a number of seconds; raises `InvalidValueError` if *value* is none."""
    if isinstance(value, str):
        amount, parts = _quantity(value, _DURATION_UNITS, "a duration", example='"250 ms"', plain=10**6)
        value = amount / (parts * 10**6)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise expected('a duration, such as "250 ms" or a number of seconds', value)
    if value < 0:
        raise InvalidValueError("a duration cannot be negative")
    if not value <= MAX_SIZE:
        raise InvalidValueError("this is not a finite number of seconds", f"the most is {MAX_SIZE}")
    return Duration(float(value))


_BOOLEANS: Final = {"true": True, "false": False}
_WHOLE: Final = re.compile(r"[+-]?[0-9](?:_?[0-9])*")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9](?:_?[0-9])*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|inf|nan)")


def parse_plain(text: str, kind: type) -> Any:
    """Return what *text* says, for which its *kind* is known; `None` if it does not say anything of it.

    *kind*: `int`, `float` or `bool`, or one of the three for dates and times.
    """
    text = text.strip()
    if kind is bool:
        return _BOOLEANS.get(text.lower())
    if len(text) > _MOST_DIGITS:
        return None
    if kind is int:
        return int(text) if _WHOLE.fullmatch(text) else None
    if kind is float:
        return float(text) if _DECIMAL.fullmatch(text) else None
    try:
        return kind.fromisoformat(text)  # type: ignore[attr-defined]
    except ValueError:
        return None


def _quantity(
    text: str, units: Mapping[str, int], what: str, *, example: str, plain: int = 1
) -> tuple[int, int]:
    """Return a number in the smallest unit, as a numerator and a denominator. *plain*: with no unit."""
    # Of a secret no part may be shown.
    secret = isinstance(text, Secret)
    match = _QUANTITY.fullmatch(text)
    if not match:
        shown = toml_string(text)
        raise InvalidValueError(f"{shown} is not {what}", f"write a number and a unit, such as {example}")
    sign, whole, fraction, unit = match[1], match[2].replace("_", ""), match[3] or "", match[4]
    if unit and unit not in units:
        if secret:
            raise InvalidValueError(f"{toml_string(text)} is not {what}")
        raise InvalidValueError(f"unknown unit `{escaped(unit)}`", _meant(unit, units), part=unit)
    if len(whole) + len(fraction) > _MOST_DIGITS:
        raise InvalidValueError(f"this number has more than {_MOST_DIGITS} digits")
    amount = int(whole + fraction) * (units[unit] if unit else plain)
    return -amount if sign else amount, 10 ** len(fraction)


def _meant(unit: str, units: Mapping[str, int]) -> str:
    meant = _SYNONYMS.get(unit.lower(), "")
    if meant not in units:
        return f"the units are {', '.join(units)}"
    if not meant.endswith("iB"):
        return f"did you mean `{meant}`?"
    decimal = meant.replace("iB", "B").replace("K", "k")
    return f"did you mean `{meant}` ({units[meant]} bytes), or `{decimal}` ({units[decimal]} bytes)?"


def kind_of(value: object) -> str:
    """Return *value* as a phrase of TOML's words, for messages."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        shown = toml_string(value)
        return f"the string {shown if len(shown) <= 60 else shown[:50] + '…'}"
    if isinstance(value, (int, float)):
        return f"the number {_number(value)}"
    words = (words for kind, words in _KINDS.items() if isinstance(value, kind))
    return next(words, f"a Python object of type {type(value).__name__}")


_KINDS: Final = {
    Mapping: "a table",
    list: "an array",
    tuple: "an array",
    datetime.datetime: "a date and time",
    datetime.date: "a date",
    datetime.time: "a time",
}


def _number(value: float) -> str:
    # Python refuses to write out very large integers.
    return "with too many digits" if isinstance(value, int) and value.bit_length() > 200 else str(value)


class WrongTypeError(InvalidValueError):
    """A value of another type than what is asked for; `words` say what that is."""

    words: str = ""


def expected(words: str, value: object, hint: str | None = None) -> WrongTypeError:
    """Return the error for a *value* that is not what *words* say."""
    error = WrongTypeError(f"expected {words}, found {kind_of(value)}", hint)
    error.words = words
    return error
