"""A composition as a picture in SVG: one file, without scripts or references, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

from castore.drawing.card import Card, Panel, centred, px, rounded
from castore.drawing.folding import WIDEST, folded
from castore.drawing.layout import Box, Level, Stretch, Turn, laid_out
from castore.drawing.look import stylesheet
from castore.drawing.picture import Picture
from castore.drawing.words import CAPTION, FIELD, UNREACHED, fitted, shown, width

_MARGIN = 24
_NARROWEST = 120
_TITLE = 30
_LABEL_PADDING = 8
_WIDEST_LABEL = 130
_ARROW = 9
_ENTRY = 26
_TURN = 8


def svg(picture: Picture) -> str:
    """Return *picture* as an SVG document: columns of cards from left to right, joined by labelled arrows."""
    root = drawn(picture)
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode") + "\n"


def drawn(picture: Picture, panel: Panel | None = None, widest: float = WIDEST) -> ET.Element:
    """Return *picture* as the tree of an SVG document; with *panel* there is more on each card.

    It is folded where it would be wider than *widest* px.
    """
    cards = {node.id: Card.of(node, picture, panel) for node in picture.nodes}
    labels = [fitted(shown(edge.label), _WIDEST_LABEL, FIELD) for edge in picture.edges]
    sizes = {id_: card.size for id_, card in cards.items()}
    layout = folded(laid_out(picture, sizes, [_label_width(label) for label in labels]), widest)
    inner = math.ceil(max(layout.width, _NARROWEST))
    title = fitted(shown(picture.title), inner, CAPTION)
    top = _MARGIN + (_TITLE if title else 0)

    paper = Box(0.5, 0.5, inner + 2 * _MARGIN - 1, math.ceil(layout.height) + top + _MARGIN - 1)
    root = _document(picture, paper)
    root.append(rounded(paper, 12, "paper"))
    if title:
        root.append(_caption(title, _MARGIN, _MARGIN + 6))
    stage = ET.SubElement(root, "g", {"transform": f"translate({_MARGIN} {top})"})
    if layout.parting is not None:
        line = {"class": "edge part", "d": f"M0 {px(layout.parting)}H{px(layout.width)}"}
        ET.SubElement(stage, "path", line)
        stage.append(_caption(UNREACHED, 0, layout.parting + 20))
    for edge, label, box, route in zip(picture.edges, labels, layout.labels, layout.routes, strict=True):
        stage.append(_edge(label, box, route, unreached=edge.source in picture.unreachable))
    stage.extend(_entry(x, y) for x, y in layout.entries.values())
    for id_, card in cards.items():
        is_root, unreached = id_ in picture.roots, id_ in picture.unreachable
        stage.append(card.draw(layout.cards[id_], root=is_root, unreached=unreached))
    return root


def _document(picture: Picture, paper: Box) -> ET.Element:
    total = {"width": px(paper.width + 1), "height": px(paper.height + 1)}
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            **total,
            "viewBox": f"0 0 {total['width']} {total['height']}",
            "role": "img",
            "aria-labelledby": "castore-title castore-desc",
        },
    )
    title = shown(picture.title) or "a composition of services"
    ET.SubElement(root, "title", {"id": "castore-title"}).text = title
    ET.SubElement(root, "desc", {"id": "castore-desc"}).text = _description(picture)
    ET.SubElement(root, "style").text = stylesheet()
    return root


def _description(picture: Picture) -> str:
    """Return the graph in sentences, for those who do not see it."""
    nodes, edges = picture.by_id(), picture.edges_from()
    sentences = []
    for id_, node in nodes.items():
        words = [f"{node.name}: {node.type}" if node.name else node.type]
        words += [word for word in (node.detail, node.condition) if word]
        words += [f"{edge.label} is {nodes[edge.target].headline}" for edge in edges[id_]]
        words += [UNREACHED] if id_ in picture.unreachable else []
        sentences.append(shown(", ".join(words)) + ".")
    return " ".join(sentences)


def _edge(label: str, box: Box, route: Sequence[Stretch], *, unreached: bool) -> ET.Element:
    group = ET.Element("g", {"class": "unreached"} if unreached else {})
    first, last = route[0], route[-1]
    assert isinstance(first, Level)
    assert isinstance(last, Level)
    path = f"M{px(first.start)} {px(first.y)}"
    for stretch, following in pairwise(route):
        if isinstance(stretch, Level) and isinstance(following, Level):
            bend = px((stretch.end + following.start) / 2)
            start, end = f"{bend} {px(stretch.y)}", f"{bend} {px(following.y)}"
            path += f"H{px(stretch.end)}C{start} {end} {px(following.start)} {px(following.y)}"
        elif isinstance(stretch, Level) and isinstance(following, Turn):
            path += _corner(following.right, stretch.y, dx=1, down=True)
            path += _corner(following.right, following.y, dx=-1, down=False)
        elif isinstance(stretch, Turn) and isinstance(following, Level):
            path += _corner(stretch.left, stretch.y, dx=-1, down=True)
            path += _corner(stretch.left, following.y, dx=1, down=False)
    tip, y = last.end, last.y
    ET.SubElement(group, "path", {"class": "edge", "d": path + f"H{px(tip - _ARROW)}"})
    group.append(_arrow_head(tip, y))
    if label:
        group.append(rounded(box, box.height / 2, "pill"))
        group.append(centred(label, box, FIELD))
    return group


def _corner(x: float, y: float, *, dx: int, down: bool) -> str:
    """Return a round corner at (x, y) of a line to the right (*dx* 1) or left, then *down* or before."""
    if down:
        return f"H{px(x - dx * _TURN)}Q{px(x)} {px(y)} {px(x)} {px(y + _TURN)}"
    return f"V{px(y - _TURN)}Q{px(x)} {px(y)} {px(x + dx * _TURN)} {px(y)}"


def _entry(x: float, y: float) -> ET.Element:
    """Return the mark of a root: a dot, from which an arrow leads to the card."""
    group = ET.Element("g", {"class": "entry"})
    ET.SubElement(group, "circle", {"class": "head", "cx": px(x - _ENTRY), "cy": px(y), "r": "5"})
    ET.SubElement(group, "path", {"class": "edge", "d": f"M{px(x - _ENTRY)} {px(y)}H{px(x - _ARROW)}"})
    group.append(_arrow_head(x, y))
    return group


def _arrow_head(x: float, y: float) -> ET.Element:
    # Not a marker: those take another colour and place in each viewer, and here all arrows point right.
    back = px(x - _ARROW)
    return ET.Element("path", {"class": "head", "d": f"M{px(x)} {px(y)}L{back} {px(y - 4.5)}V{px(y + 4.5)}Z"})


def _caption(text: str, x: float, y: float) -> ET.Element:
    element = ET.Element("text", {"class": CAPTION.style, "x": px(x), "y": px(y)})
    element.text = text
    return element


def _label_width(label: str) -> float:
    return math.ceil(width(label, FIELD)) + 2 * _LABEL_PADDING if label else 0
