from __future__ import annotations

import graphlib
from typing import Any

import attrs
import pytest

from castore.drawing import Arrow, Node, Picture


def test_a_picture_with_one_id_twice_is_refused(cache: Picture) -> None:
    with pytest.raises(ValueError, match="one id"):
        attrs.evolve(cache, nodes=(*cache.nodes, cache.nodes[0]))


@pytest.mark.parametrize(
    "change",
    [
        {"edges": (Arrow("blobservices.root", "elsewhere", "near"),)},
        {"roots": ("elsewhere",)},
        {"unreachable": frozenset({"elsewhere"})},
    ],
)
def test_a_picture_that_refers_to_an_unknown_id_is_refused(cache: Picture, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no node 'elsewhere'"):
        attrs.evolve(cache, **change)


def test_a_cycle_is_refused(cache: Picture) -> None:
    back = Arrow("blobservices.local", "blobservices.root", "near")
    with pytest.raises(graphlib.CycleError):
        attrs.evolve(cache, edges=(*cache.edges, back))


def test_an_anonymous_node_is_called_by_its_type() -> None:
    assert Node("x", "", "blob service", "cache").headline == "cache"
    assert Node("x", "root", "blob service", "cache").headline == "root"


def test_the_kind_is_shown_only_among_several(cache: Picture, names: Picture) -> None:
    assert cache.second_line(cache.nodes[0]) == "cache"
    assert cache.second_line(cache.nodes[2]) == ""
    assert names.second_line(names.nodes[0]) == "cache · blob service"


def test_reading_starts_at_the_roots_and_then_at_what_nobody_uses(unreached: Picture) -> None:
    assert unreached.entries() == ["root", "old", "scratch"]
