"""What RFC 9110 says of ranges (section 14) and conditions (13): from the texts of headers to verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

MOST_RANGES: Final = 16
"""A request for more is answered with all."""

_SPEC: Final = re.compile(r"(\d*)[ \t]*-[ \t]*(\d*)", re.ASCII)
_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_TAGS: Final = re.compile(rf"[ \t,]*(?:{_TAG.pattern}[ \t]*(?:,[ \t,]*|$))+")
_HUGE: Final = 1 << 63


class NoRangeError(Exception):
    """None of the ranges can be had (416)."""


def parse_ranges(header: str | None, size: int) -> list[tuple[int, int]]:
    """Return the ranges to be sent, each from its begin up to its end; none means: all, as without a header.

    Arguments:
        header: The field `Range`; what is malformed, or of another unit, is ignored.
        size: That of the whole, in bytes.

    Raises `NoRangeError` if none of them can be had.
    """
    unit, equals, specs = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return []
    found: list[tuple[int, int]] = []
    count = 0
    for text in filter(None, (each.strip(" \t") for each in specs.split(","))):
        match = _SPEC.fullmatch(text)
        if match is None or not (match[1] or match[2]):
            return []
        count += 1
        if match[1]:
            begin, end = _number(match[1]), _number(match[2]) + 1 if match[2] else _HUGE + 1
            if begin >= end:
                return []
        else:
            begin, end = max(size - _number(match[2]), 0), size
        if begin < min(end, size):
            found.append((begin, min(end, size)))
    if not count:
        return []
    if count > MOST_RANGES or sum(end - begin for begin, end in found) > size:
        return []
    if not found:
        raise NoRangeError
    return _merged(found)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) < 19 else _HUGE


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of which no two overlap; in their own order, if none did."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if found and begin < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return ranges if len(found) == len(ranges) else found


def _tags(header: str) -> list[tuple[bool, str]]:
    """Return the entity tags of a list, each with whether it is weak; none for what is malformed."""
    if not _TAGS.fullmatch(header.strip()):
        return []
    return [(bool(weak), tag) for weak, tag in _TAG.findall(header)]


def verdict(method: str, headers: Mapping[str, str], tag: str) -> Literal[200, 304, 412]:
    """Return what the conditions of a request come to, for something with the entity tag *tag*.

    That may begin with `W/`. There are no times: `If-Modified-Since` and its like are ignored.
    """
    weak, bare = tag.startswith("W/"), tag.removeprefix("W/")
    match = headers.get("if-match")
    if match is not None and match.strip() != "*" and (weak or (False, bare) not in _tags(match)):
        return 412
    none = headers.get("if-none-match")
    if none is not None and (none.strip() == "*" or any(each == bare for _, each in _tags(none))):
        return 304 if method in {"GET", "HEAD"} else 412
    return 200


def range_holds(if_range: str | None, tag: str) -> bool:
    """Tell whether ranges are to be sent: `If-Range` is not there, or has exactly this strong tag."""
    return if_range is None or (not tag.startswith("W/") and if_range.strip() == tag)


def accepts(header: str | None, coding: str) -> bool:
    """Tell whether `Accept-Encoding` has a coding, or `*`, with a weight that is not zero."""
    found: dict[str, bool] = {}
    for part in (header or "").split(","):
        name, _, rest = part.partition(";")
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", rest, re.IGNORECASE | re.ASCII)
        found[name.strip().lower()] = not rest.strip() or (weight is not None and float(weight[1]) > 0)
    return found.get(coding, False)
