from __future__ import annotations

from castore.drawing import Arrow, Node, Picture
from castore.drawing.layers import Bend, layered


def drawn(nodes: str, edges: str, roots: str, unreachable: str = "") -> Picture:
    """Return a picture of nodes with one letter each, and edges such as `ab`."""
    return Picture(
        title="",
        nodes=tuple(Node(id_, id_, "blob service", "cache") for id_ in nodes),
        edges=tuple(Arrow(edge[0], edge[1], "") for edge in edges.split()),
        roots=tuple(roots),
        unreachable=frozenset(unreachable),
    )


def test_each_instance_stands_right_of_all_that_use_it() -> None:
    columns = layered(drawn("abcd", "ab bc ac cd", "a")).columns
    assert [[item for item in column if isinstance(item, str)] for column in columns] == [*map(list, "abcd")]


def test_a_long_edge_bends_in_every_column_it_passes() -> None:
    layers = layered(drawn("abc", "ab bc ac", "a"))
    assert layers.chains[2] == ("a", Bend(edge=2, column=1), "c")
    assert Bend(edge=2, column=1) in layers.columns[1]


def test_the_order_of_the_fields_is_kept_where_nothing_crosses() -> None:
    assert layered(drawn("axyz", "az ay ax", "a")).columns[1] == ("z", "y", "x")


def test_crossings_are_undone() -> None:
    # In the order of the fields the edges from b and from c would cross.
    layers = layered(drawn("abcde", "ab ac be cd", "a"))
    assert layers.columns[1:] == (("b", "c"), ("e", "d"))
    crossed = layered(drawn("abcdef", "ab ac bd be cf cd", "a"))
    assert crossed.columns[1:] == (("b", "c"), ("e", "d", "f"))


def test_an_unreachable_instance_stands_beside_what_it_uses() -> None:
    layers = layered(drawn("abcx", "ab bc xc", "a", "x"))
    assert layers.columns[1] == ("b", "x")


def test_unreachable_instances_stand_below_the_others() -> None:
    layers = layered(drawn("xyabc", "ab ac xy", "a", "xy"))
    assert layers.columns == (("a", "x"), ("b", "c", "y"))
    assert layers.loose == {"x", "y"}


def test_unreachable_instances_stay_below_even_if_fewer_lines_would_cross_above() -> None:
    layers = layered(drawn("abcdefxy", "ab ac bd be bf cd ce cf xd yf", "a", "xy"))
    assert set(layers.columns[1][-2:]) == {"x", "y"}


def test_a_long_edge_passes_where_it_crosses_nothing() -> None:
    """In the order of the fields it would pass below `d`, and cross the edge from `c` to `g`."""
    layers = layered(drawn("abcdefg", "ab ac ad af be bf cf cg", "a"))
    assert layers.columns[1:] == (("b", Bend(edge=3, column=1), "c", "d"), ("e", "f", "g"))
