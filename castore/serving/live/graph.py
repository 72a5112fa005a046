"""The drawing of a composition with its live numbers on the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET

import attrs

from castore.drawing.card import Panel, px, rounded
from castore.drawing.layout import Box, Size
from castore.drawing.look import accent
from castore.drawing.picture import Picture
from castore.drawing.svg import drawn
from castore.drawing.words import DETAIL, STATE
from castore.serving.live.words import CURVE, WIDTH

_WIDEST: Final = 1520
"""A little more than most windows: it shrinks, which is better than being folded."""

_LINE: Final = 16
_HEIGHT: Final = 4 * _LINE + 8 + CURVE


def graph(picture: Picture, found: Mapping[str, Any]) -> str:
    """Return the drawing as SVG within HTML, with what `words.document` has *found*, without a style.

    What is not reached is left out: nobody uses it, and it would take much room.
    """
    numbers = {node.id: number for number, node in enumerate(picture.nodes)}
    picture = attrs.evolve(
        picture,
        title="",
        nodes=tuple(node for node in picture.nodes if node.id not in picture.unreachable),
        edges=tuple(edge for edge in picture.edges if edge.source not in picture.unreachable),
        unreachable=frozenset(),
    )
    types = {node.id: node.type for node in picture.nodes}

    def draw(id_: str, room: Box) -> Iterator[ET.Element]:
        return _panel(numbers[id_], types[id_], room, found)

    def marks(id_: str) -> dict[str, str]:
        number = numbers[id_]
        return {"data-i": str(number), "data-state": found["states"][number]}

    root = drawn(picture, Panel(Size(WIDTH, _HEIGHT), draw, marks), _WIDEST)
    style = root.find("style")
    assert style is not None
    root.remove(style)
    return ET.tostring(root, encoding="unicode")


def _panel(number: int, type_: str, room: Box, found: Mapping[str, Any]) -> Iterator[ET.Element]:
    x, right = room.x, room.right
    baselines = [room.y + _LINE * line + 12 for line in range(4)]
    yield ET.Element("circle", {"class": "dot", "cx": px(x + 4), "cy": px(baselines[0] - 4), "r": "4"})

    def text(slot: str, style: str, at: float, line: int, *, end: bool = False) -> ET.Element:
        place = {"class": style, "x": px(at), "y": px(baselines[line]), "data-s": f"{number}.{slot}"}
        element = ET.Element("text", place | ({"text-anchor": "end"} if end else {}))
        element.text = found["texts"][f"{number}.{slot}"]
        return element

    plain, strong = f"{DETAIL.style} live", f"{STATE.style} condition"
    yield text("card.state", strong, x + 14, 0)
    yield text("card.errors", f"{STATE.style} errors", right, 0, end=True)
    yield text("card.calls", plain, x, 1)
    yield text("card.hits", plain, right, 1, end=True)
    yield text("card.in", plain, x, 2)
    yield text("card.out", plain, right, 2, end=True)
    yield text("card.note", DETAIL.style, x, 3)
    bar = room.y + 4 * _LINE + 1
    full = found["fills"][number]
    track = rounded(Box(x, bar, room.width, 3), 1.5, "track" if full is not None else "track none")
    track.set("data-track", str(number))
    yield track
    filled = rounded(Box(x, bar, round(room.width * (full or 0), 1), 3), 1.5, f"full {accent(type_)}")
    filled.set("data-full", str(number))
    filled.set("data-most", px(room.width))
    yield filled
    stretched = f"translate({px(x)} {px(room.bottom - CURVE)}) scale({room.width / WIDTH:.4g} 1)"
    curve = ET.Element(
        "path",
        {"class": f"curve {accent(type_)}", "data-curve": str(number), "transform": stretched},
    )
    curve.set("d", found["curves"][number])
    yield curve
    yield ET.Element("path", {"class": "floor", "d": f"M{px(x)} {px(room.bottom)}H{px(right)}"})
