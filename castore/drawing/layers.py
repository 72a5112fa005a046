"""Which column of a drawing each instance stands in, and in which order: the first half of the layout.

The method is that of Sugiyama, Tagawa and Toda (1981): columns by the longest path, a bend wherever an edge
passes through a column, and sweeps that sort each column by the barycentres of its neighbours.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from itertools import pairwise

import attrs

from castore.drawing.picture import Arrow, Picture

_SWEEPS = 8


@attrs.frozen
class Bend:
    """A place that the edge of this number takes in a column it passes through."""

    edge: int
    column: int


Item = str | Bend
"""What stands in a column: an instance, by its id, or a bend."""


@attrs.frozen
class Layers:
    """The columns from left to right, each from top to bottom, and for each edge the items it connects.

    `loose` are the items that belong to unreachable instances; they stand below the others.
    """

    columns: tuple[tuple[Item, ...], ...]
    chains: tuple[tuple[Item, ...], ...]
    loose: frozenset[Item]


def layered(picture: Picture) -> Layers:
    """Return the columns of *picture*, with few crossings; in the order of its file where that is as good."""
    column_of = _columns_of(picture)
    chains = tuple(_chain(number, edge, column_of) for number, edge in enumerate(picture.edges))
    bends = [item for chain in chains for item in chain[1:-1] if chain[0] in picture.unreachable]
    loose = frozenset(picture.unreachable).union(bends)
    columns = _as_in_the_file(picture, column_of, chains, loose)
    return Layers(_uncrossed(columns, chains, loose), chains, loose)


def _columns_of(picture: Picture) -> dict[str, int]:
    far_to_near = picture.from_far_to_near()
    edges = picture.edges_from()
    column = dict.fromkeys(far_to_near, 0)
    for id_ in reversed(far_to_near):
        for edge in edges[id_]:
            column[edge.target] = max(column[edge.target], column[id_] + 1)
    # Only roots must stand at the left; what nobody reaches stands next to what it uses.
    for id_ in far_to_near:
        if id_ in picture.unreachable and edges[id_]:
            column[id_] = min(column[edge.target] for edge in edges[id_]) - 1
    return column


def _chain(number: int, edge: Arrow, column_of: dict[str, int]) -> tuple[Item, ...]:
    between = range(column_of[edge.source] + 1, column_of[edge.target])
    return (edge.source, *(Bend(number, column) for column in between), edge.target)


def _as_in_the_file(
    picture: Picture, column_of: dict[str, int], chains: tuple[tuple[Item, ...], ...], loose: frozenset[Item]
) -> list[list[Item]]:
    """Return the columns filled in the order of a reader who follows every reference at once."""
    leaving: dict[str, list[tuple[Item, ...]]] = {node.id: [] for node in picture.nodes}
    for edge, chain in zip(picture.edges, chains, strict=True):
        leaving[edge.source].append(chain)
    met: dict[Item, None] = {}
    rest: list[Item] = [*reversed([node.id for node in picture.nodes]), *reversed(picture.entries())]
    while rest:
        item = rest.pop()
        if item not in met:
            met[item] = None
            if isinstance(item, str):
                rest += [step for chain in reversed(leaving[item]) for step in reversed(chain[1:])]
    columns: list[list[Item]] = [[] for _ in range(max(column_of.values(), default=-1) + 1)]
    for item in sorted(met, key=lambda item: item in loose):
        columns[column_of[item] if isinstance(item, str) else item.column].append(item)
    return columns


def _uncrossed(
    columns: list[list[Item]], chains: Iterable[tuple[Item, ...]], loose: frozenset[Item]
) -> tuple[tuple[Item, ...], ...]:
    """Return the columns sorted so that the fewest lines cross, of all the orders that were tried."""
    before: dict[Item, list[Item]] = {item: [] for column in columns for item in column}
    after: dict[Item, list[Item]] = {item: [] for column in columns for item in column}
    for chain in chains:
        for left, right in pairwise(chain):
            after[left].append(right)
            before[right].append(left)
    best = tuple(map(tuple, columns))
    fewest = _crossings(best, after)
    # From one end of the drawing the sweeps may get stuck where they do not from the other.
    for start in (0, 1):
        tried = [*map(list, columns)]
        for sweep in range(start, start + _SWEEPS):
            _sweep(tried, before if sweep % 2 else after, loose, rightwards=bool(sweep % 2))
            crossings = _crossings(tried, after)
            if crossings < fewest:
                best, fewest = tuple(map(tuple, tried)), crossings
    return best


def _sweep(
    columns: list[list[Item]], neighbours: dict[Item, list[Item]], loose: frozenset[Item], *, rightwards: bool
) -> None:
    """Sort each column but the first one by its neighbours in the column before it."""
    order = [*range(len(columns))][:: 1 if rightwards else -1]
    for fixed, free in pairwise(order):
        columns[free] = _sorted(columns[free], columns[fixed], neighbours, loose)


def _sorted(
    column: list[Item], beside: list[Item], neighbours: dict[Item, list[Item]], loose: frozenset[Item]
) -> list[Item]:
    place = {item: index for index, item in enumerate(beside)}
    rank = {item: index for index, item in enumerate(column)}

    def barycentre(item: Item) -> tuple[bool, float]:
        around = [place[other] for other in neighbours[item]]
        # Shares of the column's height, so that those without neighbours can stay where they are.
        middle = sum(around) / len(around) / len(beside) if around else rank[item] / len(column)
        return item in loose, middle

    return sorted(column, key=barycentre)


def _crossings(columns: Iterable[Iterable[Item]], after: dict[Item, list[Item]]) -> int:
    """Return how many pairs of lines cross between neighbouring columns."""
    place = {item: index for column in columns for index, item in enumerate(column)}
    count = 0
    for column in columns:
        above: list[int] = []
        for item in column:
            ends = [place[other] for other in after[item]]
            count += sum(len(above) - bisect_right(above, end) for end in ends)
            for end in ends:
                insort(above, end)
    return count
