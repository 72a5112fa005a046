"""Where on its cards an edge starts and ends."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from castore.drawing.layers import Item, Layers
from castore.drawing.picture import Picture

LABEL_HEIGHT = 20
_LEAVING = LABEL_HEIGHT + 6
_ARRIVING = 13
_MARGIN = 12


@attrs.frozen
class Ports:
    """Distances in px from the middle of a card, downwards.

    Attributes:
        leaving: For each edge, by its number, its place at its source, over a label from the next.
        arriving: For each edge, by its number, its place at its target.
        entering: For each root, the place of the arrow that marks it.
        room: For each id, the height that its ports need.
    """

    leaving: Mapping[int, float]
    arriving: Mapping[int, float]
    entering: Mapping[str, float]
    room: Mapping[str, float]


def ports(picture: Picture, layers: Layers) -> Ports:
    """Return the ports of all edges, at each card in the order in which the lines come, against crossings."""
    place: dict[Item, int] = {item: i for column in layers.columns for i, item in enumerate(column)}
    sources: dict[str, list[int]] = {node.id: [] for node in picture.nodes}
    targets: dict[str, list[int]] = {node.id: [] for node in picture.nodes}
    for number, edge in enumerate(picture.edges):
        sources[edge.source].append(number)
        targets[edge.target].append(number)
    leaving: dict[int, float] = {}
    for numbers in sources.values():
        numbers.sort(key=lambda number: place[layers.chains[number][1]])
        leaving |= zip(numbers, _around_middle(len(numbers), _LEAVING), strict=True)
    arriving: dict[int, float] = {}
    entering: dict[str, float] = {}
    for id_, numbers in targets.items():
        numbers.sort(key=lambda number: (place[layers.chains[number][-2]], leaving[number]))
        places = _around_middle(len(numbers) + (id_ in picture.roots), _ARRIVING)
        if id_ in picture.roots:
            entering[id_] = places.pop(0)
        arriving |= zip(numbers, places, strict=True)
    room = {
        id_: max(_LEAVING * len(sources[id_]), _ARRIVING * len(targets[id_]) + _MARGIN) for id_ in sources
    }
    return Ports(leaving, arriving, entering, room)


def _around_middle(count: int, distance: float) -> list[float]:
    return [(index - (count - 1) / 2) * distance for index in range(count)]
