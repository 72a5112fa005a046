"""How high everything stands in its column: lines as level as the order in the columns allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import attrs

from castore.drawing.layers import Bend, Item, Layers
from castore.drawing.ports import Ports

_BETWEEN_CARDS = 26
_BETWEEN_LINES = 16
_BETWEEN_PARTS = 72
_ROUNDS = 40
_WOBBLE = 20


@attrs.frozen
class _Link:
    """A wish: that `other` stands `shift` px below, and how strong it is."""

    other: Item
    shift: float
    strength: float


def rows(
    layers: Layers, ports: Ports, heights: Mapping[str, float]
) -> tuple[dict[Item, float], float | None]:
    """Return the y of the middle of each item, and that of the parting below all that are reached.

    The top is at 0. There is no parting (`None`) where all instances are reached, or none is.
    """
    reached = _settled(layers, ports, heights, loose=False)
    loose = _settled(layers, ports, heights, loose=True)
    if not reached or not loose:
        return reached or loose, None
    bottom = max(y + _height(item, heights) / 2 for item, y in reached.items())
    lowered = {item: y + round(bottom) + _BETWEEN_PARTS for item, y in loose.items()}
    return reached | lowered, bottom + _BETWEEN_PARTS / 2


def _settled(layers: Layers, ports: Ports, heights: Mapping[str, float], *, loose: bool) -> dict[Item, float]:
    """Return the places in one part of the drawing: the reached instances, or the loose ones."""
    columns = [[item for item in column if (item in layers.loose) == loose] for column in layers.columns]
    columns = [column for column in columns if column]
    links = _links(layers, ports, loose=loose)
    y: dict[Item, float] = {}
    distances = [[_distance(a, b, heights) for a, b in pairwise(column)] for column in columns]
    for column, apart in zip(columns, distances, strict=True):
        y |= zip(column, accumulate(apart, initial=-sum(apart) / 2), strict=True)
    # There and back, until nothing moves that could be seen.
    order = [*range(len(columns)), *reversed(range(len(columns)))]
    for index in order * _ROUNDS:
        wishes = [_wish(item, links.get(item, []), y) for item in columns[index]]
        y |= zip(columns[index], _kept_apart(wishes, distances[index]), strict=True)
    _level(columns, distances, links, y)
    top = min((place - _height(item, heights) / 2 for item, place in y.items()), default=0)
    # Ports stand at half pixels; places that do, too, keep level lines level.
    return {item: round((place - top) * 2) / 2 for item, place in y.items()}


def _links(layers: Layers, ports: Ports, *, loose: bool) -> dict[Item, list[_Link]]:
    links: dict[Item, list[_Link]] = {}
    for number, chain in enumerate(layers.chains):
        for left, right in pairwise(chain):
            if (left in layers.loose) == (right in layers.loose) == loose:
                bends = isinstance(left, Bend) + isinstance(right, Bend)
                shift = 0.0
                shift += ports.leaving[number] if left == chain[0] else 0
                shift -= ports.arriving[number] if right == chain[-1] else 0
                # The further a line runs, the more a bend in it is seen.
                links.setdefault(left, []).append(_Link(right, shift, 4**bends))
                links.setdefault(right, []).append(_Link(left, -shift, 4**bends))
    return links


def _wish(item: Item, links: Sequence[_Link], y: Mapping[Item, float]) -> tuple[float, float]:
    """Return where the item would stand best, and how strongly."""
    strength = sum(link.strength for link in links)
    if not strength:
        return y[item], 1
    return sum((y[link.other] - link.shift) * link.strength for link in links) / strength, strength


def _kept_apart(wishes: Sequence[tuple[float, float]], distances: Sequence[float]) -> list[float]:
    """Return the places nearest to the wishes, by least squares, with at least these distances between.

    By pooling adjacent violators: without its distances this is isotonic regression.
    """
    offsets = list(accumulate(distances, initial=0.0))
    pools: list[tuple[float, float, int]] = []
    for (place, strength), offset in zip(wishes, offsets, strict=True):
        mean, total, count = place - offset, strength, 1
        while pools and pools[-1][0] > mean:
            other, others, more = pools.pop()
            mean = (mean * total + other * others) / (total + others)
            total, count = total + others, count + more
        pools.append((mean, total, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _level(
    columns: Sequence[Sequence[Item]],
    distances: Sequence[Sequence[float]],
    links: Mapping[Item, Sequence[_Link]],
    y: dict[Item, float],
) -> None:
    """Move what is a few px off the level of a neighbour, where there is room, so that no line wobbles."""
    for column, apart in [*zip(columns, distances, strict=True)] * 2:
        for index, item in enumerate(column):
            least = y[column[index - 1]] + apart[index - 1] if index else -math.inf
            most = y[column[index + 1]] - apart[index] if index + 1 < len(column) else math.inf
            around = links.get(item, [])
            levels = [y[link.other] - link.shift for link in around]
            near = [level for level in levels if abs(level - y[item]) <= _WOBBLE and least <= level <= most]

            def straight(place: float, around: Sequence[_Link] = around) -> float:
                return sum(x.strength for x in around if abs(y[x.other] - x.shift - place) < 0.5)

            y[item] = max([y[item], *near], key=straight)


def _height(item: Item, heights: Mapping[str, float]) -> float:
    return 0 if isinstance(item, Bend) else heights[item]


def _distance(upper: Item, lower: Item, heights: Mapping[str, float]) -> float:
    lines = isinstance(upper, Bend) or isinstance(lower, Bend)
    between = _BETWEEN_LINES if lines else _BETWEEN_CARDS
    return (_height(upper, heights) + _height(lower, heights)) / 2 + between
