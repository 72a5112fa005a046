"""Where everything in a drawing goes.

Between two columns of cards lie, from left to right, a strip for the labels and a strip for the curves. An
edge runs level through cards and labels, and bends only among the curves. Each edge leaves its card at a
port of its own, further from the next than a label is high. Hence, for every graph: no two cards overlap, no
two labels, no label and no card, and no line crosses a card or the label of another line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import attrs

from castore.drawing.layers import Item, Layers, layered
from castore.drawing.picture import Picture
from castore.drawing.ports import LABEL_HEIGHT, Ports, ports
from castore.drawing.rows import rows

_BEFORE_LABEL = 12
_AFTER_LABEL = 6
_BEFORE_CARD = 16
_BEFORE_ROOT = 38
_CURVE = (56, 120)


@attrs.frozen
class Size:
    """How large something is, in px."""

    width: float
    height: float


@attrs.frozen
class Box:
    """A rectangle, by its upper left corner, in px."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of its right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of its lower side."""
        return self.y + self.height


@attrs.frozen
class Level:
    """A stretch of an edge that runs level; a curve joins it to the next one."""

    start: float
    end: float
    y: float


@attrs.frozen
class Turn:
    """The way of an edge from the end of a band of columns to the beginning of the next.

    From `right` it goes down to `y`, there to `left`, and down to the level that follows.
    """

    right: float
    y: float
    left: float


Stretch: TypeAlias = Level | Turn


@attrs.frozen
class Column:
    """The x of one column: where curves end, where cards begin and end, where curves begin."""

    start: float
    left: float
    right: float
    end: float


@attrs.frozen
class Layout:
    """The place of everything, in px; (0, 0) is the upper left corner.

    Attributes:
        width: Of everything.
        height: Of everything.
        cards: For each id, the place of its card.
        labels: For each edge, the place of its label.
        routes: For each edge, its level stretches from left to right, and its turns if the drawing is folded.
        entries: For each root, the point of the arrow that marks it.
        parting: The y of a line between the reached instances and the others, if there are both.
        columns: The places of the columns, before the drawing was folded.
    """

    width: float
    height: float
    cards: Mapping[str, Box]
    labels: Sequence[Box]
    routes: Sequence[tuple[Stretch, ...]]
    entries: Mapping[str, tuple[float, float]]
    parting: float | None
    columns: Sequence[Column] = ()


def laid_out(picture: Picture, cards: Mapping[str, Size], labels: Sequence[float]) -> Layout:
    """Return the places of the *cards*, given by their ids, and of the *labels*, given by their widths."""
    layers = layered(picture)
    places = ports(picture, layers)
    heights = {id_: max(size.height, places.room[id_]) for id_, size in cards.items()}
    y, parting = rows(layers, places, heights)
    widths = {id_: size.width for id_, size in cards.items()}
    columns = _columns(picture, layers, widths, labels, y)
    boxes: dict[str, Box] = {}
    for column, items in zip(columns, layers.columns, strict=True):
        for id_ in items:
            if isinstance(id_, str):
                top = y[id_] - heights[id_] / 2
                boxes[id_] = Box(column.left, top, column.right - column.left, heights[id_])
    routes = _routes(layers, places, columns, y)
    return Layout(
        width=max((box.right for box in boxes.values()), default=0),
        height=max(
            [box.bottom for box in boxes.values()] + [stop.y for route in routes for stop in route], default=0
        ),
        cards=boxes,
        labels=[
            Box(route[0].start + _BEFORE_LABEL, route[0].y - LABEL_HEIGHT / 2, width, LABEL_HEIGHT)
            for route, width in zip(routes, labels, strict=True)
        ],
        routes=routes,
        entries={root: (boxes[root].x, y[root] + places.entering[root]) for root in picture.roots},
        parting=parting,
        columns=columns,
    )


def _columns(
    picture: Picture,
    layers: Layers,
    widths: Mapping[str, float],
    labels: Sequence[float],
    y: Mapping[Item, float],
) -> list[Column]:
    label_width: dict[str, float] = {}
    for edge, width in zip(picture.edges, labels, strict=True):
        label_width[edge.source] = max(label_width.get(edge.source, 0), width)
    columns: list[Column] = []
    start = 0.0
    for index, items in enumerate(layers.columns):
        ids = [item for item in items if isinstance(item, str)]
        room = _BEFORE_ROOT if any(id_ in picture.roots for id_ in ids) else _BEFORE_CARD if index else 0
        left = start + room
        right = left + max(widths[id_] for id_ in ids)
        end = right + _BEFORE_LABEL + max(label_width.get(id_, 0) for id_ in ids) + _AFTER_LABEL
        columns.append(Column(start, left, right, end))
        start = end + _curve_width(layers, set(items), y)
    return columns


def _curve_width(layers: Layers, items: set[Item], y: Mapping[Item, float]) -> float:
    """Return the width of the strip after a column: the steeper its curves, the wider."""
    pairs = [pair for chain in layers.chains for pair in pairwise(chain) if pair[0] in items]
    steepest = max((abs(y[right] - y[left]) for left, right in pairs), default=0)
    least, most = _CURVE
    return min(max(least, round(steepest * 0.4)), most)


def _routes(
    layers: Layers, places: Ports, columns: Sequence[Column], y: Mapping[Item, float]
) -> list[tuple[Level, ...]]:
    column_of = {item: columns[index] for index, items in enumerate(layers.columns) for item in items}
    routes = []
    for number, (source, *bends, target) in enumerate(layers.chains):
        first = Level(column_of[source].right, column_of[source].end, y[source] + places.leaving[number])
        last = Level(column_of[target].start, column_of[target].left, y[target] + places.arriving[number])
        between = [Level(column_of[bend].start, column_of[bend].end, y[bend]) for bend in bends]
        routes.append((first, *between, last))
    return routes
