"""The card of one instance: which words it shows, how large it is, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from xml.etree import ElementTree as ET

import attrs

from castore.drawing.layout import Box, Size
from castore.drawing.look import accent
from castore.drawing.picture import Node, Picture
from castore.drawing.words import DETAIL, NAME, NOTE, STATE, TYPE, Letters, fitted, shown, width

_WIDEST = 228
_NARROWEST = 140
_LEFT = 20
_RIGHT = 16
_PADDING = 12
_RADIUS = 9
_BEFORE_PANEL = 6
_STRIPE = 5
_BADGE_HEIGHT = 18
_BADGE_GAP = 12
# The state that is no cause for attention.
_WELL = "healthy"


# How high a line is, and how far below its top its letters stand, in px.
_HEIGHTS = {NAME: (20, 15), TYPE: (18, 13), DETAIL: (17, 12), NOTE: (17, 12)}


@attrs.frozen
class Panel:
    """Room at the foot of each card, for those who draw more there.

    Attributes:
        size: How much, at least; in px.
        draw: Called with the id of an instance and its room; returns what to put there.
        marks: Called with the id of an instance; returns the attributes that the group of its card gets.
    """

    size: Size
    draw: Callable[[str, Box], Iterable[ET.Element]]
    marks: Callable[[str], dict[str, str]]


@attrs.frozen
class Card:
    """An instance with the lines of words on its card, cut to fit, the headline first."""

    node: Node
    lines: dict[Letters, str]
    state: str
    panel: Panel | None = None

    @classmethod
    def of(cls, node: Node, picture: Picture, panel: Panel | None = None) -> Card:
        """Return the card of a node."""
        state = fitted(shown(node.state), _WIDEST / 2, STATE)
        words = {NAME: node.headline, TYPE: picture.second_line(node), DETAIL: node.detail, NOTE: node.note}
        room = {NAME: _WIDEST - _badge_room(state)}
        lines = {
            letters: fitted(shown(text), room.get(letters, _WIDEST), letters)
            for letters, text in words.items()
            if text or letters is NAME
        }
        return cls(node, lines, state, panel)

    @property
    def size(self) -> Size:
        """How large the card must be, at least."""
        widths = {letters: width(text, letters) for letters, text in self.lines.items()}
        widths[NAME] += _badge_room(self.state)
        inner = math.ceil(max(widths.values()))
        if self.panel is not None:
            inner = max(inner, math.ceil(self.panel.size.width))
        return Size(
            max(_NARROWEST, _LEFT + inner + _RIGHT), self._words_height + self._panel_height + 2 * _PADDING
        )

    @property
    def _panel_height(self) -> float:
        return 0 if self.panel is None else _BEFORE_PANEL + self.panel.size.height

    @property
    def _words_height(self) -> float:
        return sum(_HEIGHTS[letters][0] for letters in self.lines)

    def draw(self, box: Box, *, root: bool, unreached: bool) -> ET.Element:
        """Return the card as an SVG group that fills *box*."""
        marks = {} if self.panel is None else self.panel.marks(self.node.id)
        group = ET.Element("g", ({"class": "unreached"} if unreached else {}) | marks)
        words = (self.node.name, self.node.type, self.node.detail, self.node.condition)
        ET.SubElement(group, "title").text = shown("  ".join(word for word in words if word))
        group.append(rounded(attrs.evolve(box, y=box.y + 2), _RADIUS, "shade"))
        group.append(rounded(box, _RADIUS, "card"))
        ET.SubElement(group, "path", {"class": f"stripe {accent(self.node.type)}", "d": _stripe(box)})
        group.append(rounded(box, _RADIUS, "outline root" if root else "outline"))
        y = box.y + (box.height - self._words_height - self._panel_height) / 2
        for letters, text in self.lines.items():
            height, baseline = _HEIGHTS[letters]
            anonymous = " anonymous" if letters is NAME and not self.node.name else ""
            at = {"class": letters.style + anonymous, "x": px(box.x + _LEFT), "y": px(y + baseline)}
            ET.SubElement(group, "text", at).text = text
            if letters is NAME and self.state:
                group.extend(_badge(self.state, box.right - _RIGHT, y + height / 2))
            y += height
        if self.panel is not None:
            room = Box(box.x + _LEFT, y + _BEFORE_PANEL, box.width - _LEFT - _RIGHT, self.panel.size.height)
            group.extend(self.panel.draw(self.node.id, room))
        return group


def px(value: float) -> str:
    """Return a length as SVG writes it, with at most one decimal."""
    return f"{round(value, 1):g}"


def centred(text: str, box: Box, letters: Letters, style: str = "") -> ET.Element:
    """Return *text* in the middle of *box*, with another style class besides that of its letters."""
    # `dominant-baseline` would do the same, but not in all viewers.
    y = box.y + box.height / 2 + letters.size * 0.35
    at = {"class": f"{letters.style} {style}".strip(), "x": px(box.x + box.width / 2), "y": px(y)}
    element = ET.Element("text", at | {"text-anchor": "middle"})
    element.text = text
    return element


def rounded(box: Box, radius: float, style: str) -> ET.Element:
    """Return *box* with round corners."""
    place = {"x": px(box.x), "y": px(box.y), "width": px(box.width), "height": px(box.height)}
    return ET.Element("rect", {"class": style, **place, "rx": px(radius)})


def _stripe(box: Box) -> str:
    """Return the outline of the coloured stripe at the left of a card, within its round corners."""
    # Where the arc of the corner meets the right side of the stripe.
    drop = _RADIUS - math.sqrt(_RADIUS**2 - (_RADIUS - _STRIPE) ** 2)
    right, arc = px(box.x + _STRIPE), f"A{_RADIUS} {_RADIUS} 0 0 0"
    return (
        f"M{right} {px(box.y + drop)}{arc} {px(box.x)} {px(box.y + _RADIUS)}"
        f"V{px(box.bottom - _RADIUS)}{arc} {right} {px(box.bottom - drop)}Z"
    )


def _badge(state: str, right: float, middle: float) -> list[ET.Element]:
    style = "well" if state == _WELL else "heed"
    io_pool = _badge_room(state) - _BADGE_GAP
    box = Box(right - io_pool, middle - _BADGE_HEIGHT / 2, io_pool, _BADGE_HEIGHT)
    return [rounded(box, _BADGE_HEIGHT / 2, style), centred(state, box, STATE, f"{style}-word")]


def _badge_room(state: str) -> float:
    return _BADGE_GAP + math.ceil(width(state, STATE)) + _BADGE_HEIGHT if state else 0
