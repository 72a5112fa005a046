"""A long drawing in several bands, one below the other, as a text has lines.

What leads from the last column of a band to the first one of the next goes around: right, down, left through
the space between the bands, and down. Each such line has a lane of its own, and the lanes lie so that no two
of the lines cross without need.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs

from castore.drawing.layout import Box, Column, Layout, Level, Stretch, Turn

WIDEST = 1200
"""How wide a drawing may be before it is folded, in px."""

_LANE = 9
_BESIDE = 14
_GUTTER = 26
_STEP = 10


@attrs.frozen
class _Band:
    """Some columns, and where they are moved: right by `dx` and down by `dy`."""

    columns: Sequence[Column]
    top: float
    bottom: float
    dx: float = 0
    dy: float = 0

    @property
    def right(self) -> float:
        """Where its last column ends."""
        return self.columns[-1].end + self.dx

    def holds(self, x: float) -> bool:
        """Tell whether what begins at *x*, before anything was moved, is in it."""
        return self.columns[0].start <= x < self.columns[-1].end


def folded(layout: Layout, widest: float = WIDEST) -> Layout:
    """Return *layout* in as few bands as are no wider than *widest* px; as it is if it is one.

    A column is never parted, however wide. Two parts of a drawing, of which one is not reached, become one.
    """
    if layout.width <= widest or len(layout.columns) < 2:
        return layout
    bands, crossing = _placed(layout, _parted(layout.columns, widest))
    moved = {id_: _moved_box(box, _band_at(bands, box.x)) for id_, box in layout.cards.items()}
    labels = [_moved_box(box, _band_at(bands, box.x)) for box in layout.labels]
    routes = [_moved_route(number, route, bands, crossing) for number, route in enumerate(layout.routes)]
    return Layout(
        width=max(band.right + _BESIDE + _LANE * len(crossing[number]) for number, band in enumerate(bands)),
        height=bands[-1].bottom + bands[-1].dy,
        cards=moved,
        labels=labels,
        routes=routes,
        entries={root: _moved_point(root, layout, bands) for root in layout.entries},
        parting=None,
        columns=layout.columns,
    )


def _parted(columns: Sequence[Column], widest: float) -> list[Sequence[Column]]:
    """Return the columns of each band: as few bands as will do, and these about equally wide."""
    fewest = len(_filled(columns, widest))
    width = columns[-1].end / fewest
    while len(parts := _filled(columns, min(width, widest))) > fewest and width < widest:
        width += _STEP
    return parts


def _filled(columns: Sequence[Column], widest: float) -> list[Sequence[Column]]:
    parts: list[list[Column]] = [[]]
    for column in columns:
        if parts[-1] and column.end - parts[-1][0].start > widest:
            parts.append([])
        parts[-1].append(column)
    return list(parts)


def _placed(layout: Layout, parts: Sequence[Sequence[Column]]) -> tuple[list[_Band], list[list[int]]]:
    """Return the bands in their places, and for each the edges that leave it for the next, from above."""
    bands = [_Band(columns, *_extent(layout, columns)) for columns in parts]
    crossing: list[list[int]] = [[] for _ in bands]
    for number, route in enumerate(layout.routes):
        for left, right in pairwise(_levels(route)):
            index = _index_at(bands, left.start)
            if index != _index_at(bands, right.start):
                crossing[index].append(number)
    placed: list[_Band] = []
    bottom = 0.0
    for number, band in enumerate(bands):
        lanes = len(crossing[number - 1]) if number else 0
        room = _BESIDE + _LANE * lanes if number else 0
        dy = bottom + (2 * _GUTTER + _LANE * lanes if number else 0) - band.top
        placed.append(attrs.evolve(band, dx=room - band.columns[0].start, dy=dy))
        bottom = band.bottom + dy
    for band, numbers in zip(bands, crossing, strict=True):
        height = {number: _last_in(layout.routes[number], band).y for number in numbers}
        numbers.sort(key=height.__getitem__)
    return placed, crossing


def _extent(layout: Layout, columns: Sequence[Column]) -> tuple[float, float]:
    """Return where what is in some columns begins and ends, from the top."""
    band = _Band(columns, 0, 0)
    boxes = [box for box in (*layout.cards.values(), *layout.labels) if band.holds(box.x)]
    levels = [level.y for route in layout.routes for level in _levels(route) if band.holds(level.start)]
    return min([box.y for box in boxes] + levels), max([box.bottom for box in boxes] + levels)


def _levels(route: Sequence[Stretch]) -> list[Level]:
    return [stretch for stretch in route if isinstance(stretch, Level)]


def _last_in(route: Sequence[Stretch], band: _Band) -> Level:
    return [level for level in _levels(route) if band.holds(level.start)][-1]


def _index_at(bands: Sequence[_Band], x: float) -> int:
    return next(number for number, band in enumerate(bands) if band.holds(x))


def _band_at(bands: Sequence[_Band], x: float) -> _Band:
    return bands[_index_at(bands, x)]


def _moved_box(box: Box, band: _Band) -> Box:
    return attrs.evolve(box, x=box.x + band.dx, y=box.y + band.dy)


def _moved_point(root: str, layout: Layout, bands: Sequence[_Band]) -> tuple[float, float]:
    band = _band_at(bands, layout.cards[root].x)
    x, y = layout.entries[root]
    return x + band.dx, y + band.dy


def _moved_route(
    number: int, route: Sequence[Stretch], bands: Sequence[_Band], crossing: Sequence[Sequence[int]]
) -> tuple[Stretch, ...]:
    stretches: list[Stretch] = []
    before: int | None = None
    for level in _levels(route):
        index = _index_at(bands, level.start)
        band = bands[index]
        moved = Level(level.start + band.dx, level.end + band.dx, level.y + band.dy)
        if before is not None and index != before:
            turn = _turn(bands[before], crossing[before].index(number), len(crossing[before]))
            last = stretches.pop()
            assert isinstance(last, Level)
            stretches += [attrs.evolve(last, end=turn.right), turn]
            moved = attrs.evolve(moved, start=turn.left)
        stretches.append(moved)
        before = index
    return tuple(stretches)


def _turn(band: _Band, place: int, lanes: int) -> Turn:
    """Return the way around of the edge that leaves a band at this place, counted from the top."""
    # The upper one goes outside of the lower ones at the right, and within them at the left.
    outside = (lanes - 1 - place) * _LANE
    return Turn(
        right=band.right + _BESIDE + outside,
        y=band.bottom + band.dy + _GUTTER + outside,
        left=_LANE / 2 + outside,
    )
