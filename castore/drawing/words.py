"""Words in a drawing: made safe to show, measured without a font, and cut to fit."""

from __future__ import annotations

import unicodedata
from enum import Enum

import attrs

UNREACHED = "not reached from root"

_ELLIPSIS = "…"


class Face(Enum):
    """A family of letters; the value is its list of fonts in CSS."""

    SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
    MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace"


@attrs.frozen
class Letters:
    """How a word is set.

    Attributes:
        style: The class that the style sheet knows it by.
        face: The family.
        size: In px.
        weight: As CSS has it: 400 is regular, 700 bold.
    """

    style: str
    face: Face
    size: float
    weight: int = 400


NAME = Letters("name", Face.SANS, 15, 700)
TYPE = Letters("type", Face.MONO, 12)
DETAIL = Letters("detail", Face.MONO, 11)
NOTE = Letters("detail note", Face.MONO, 11)
FIELD = Letters("field", Face.MONO, 11)
STATE = Letters("state", Face.SANS, 11, 600)
CAPTION = Letters("caption", Face.SANS, 12)

# Widths in em of the letters of DejaVu Sans Bold, the widest of the usual system fonts, rounded up.
_LETTERS: dict[float, str] = {
    0.40: " ',./:;IJ\\ijl|",
    0.55: '!"()*-[]_`frt',
    0.65: "?Lcsxz",
    0.75: "$0123456789CEFPSTYZabdeghknopquvy{}",
    0.85: "#+<=>ABDGHKNRUVX^~",
    0.95: "&OQw",
    1.15: "%@MWm",
}
_EMS = {letter: ems for ems, letters in _LETTERS.items() for letter in letters}
_MONO_EMS = 0.61
_OTHER_EMS = 1.0
_FULL_WIDTH_EMS = 1.25


def shown(text: str) -> str:
    r"""Return *text* with every character that does not print written out, as in `\n`, `\x1b` or `\u202e`.

    Names come from files: none may move a terminal's cursor, turn the reading direction or break a format.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def width(text: str, letters: Letters) -> float:
    """Return how wide *text* is, at most, in px."""
    return sum(_ems(char, letters.face) for char in text) * letters.size


def _ems(char: str, face: Face) -> float:
    if unicodedata.combining(char):
        return 0
    if unicodedata.east_asian_width(char) in "WF":
        return _FULL_WIDTH_EMS
    return _MONO_EMS if face is Face.MONO else _EMS.get(char, _OTHER_EMS)


def fitted(text: str, limit: float, letters: Letters) -> str:
    """Return *text*, cut in the middle where it is wider than *limit*: both ends of a URL say something."""
    if width(text, letters) <= limit:
        return text
    head, tail, rest = "", "", text
    room = limit - width(_ELLIPSIS, letters)
    while rest:
        # Both ends grow in turn: the start of a URL says what it is, the end tells it from its siblings.
        at_head = len(head) <= len(tail)
        room -= width(rest[0 if at_head else -1], letters)
        if room < 0:
            break
        head, tail, rest = (head + rest[0], tail, rest[1:]) if at_head else (head, rest[-1] + tail, rest[:-1])
    return head.rstrip() + _ELLIPSIS + tail.lstrip()
