from __future__ import annotations

from itertools import combinations, pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.drawing import Arrow, Node, Picture
from castore.drawing.folding import WIDEST, folded
from castore.drawing.layout import Box, Layout, Level, Size, Turn, laid_out
from castore.drawing.svg import svg


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """Graphs without cycles: with shared, unreachable and anonymous instances, and parallel edges."""
    count = draw(st.integers(min_value=1, max_value=12))
    ids = [f"n{number}" for number in range(count)]
    pairs = [*combinations(ids, 2)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=24)) if pairs else []
    roots = draw(st.lists(st.sampled_from(ids), unique=True, max_size=3))
    reached = set(roots)
    for id_ in ids:
        reached |= {target for source, target in chosen if source == id_ and id_ in reached}
    return Picture(
        title="",
        nodes=tuple(Node(id_, "", "blob service", "cache") for id_ in draw(st.permutations(ids))),
        edges=tuple(Arrow(source, target, "field") for source, target in chosen),
        roots=tuple(roots),
        unreachable=frozenset(ids) - reached,
    )


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Picture, Layout]:
    picture = draw(pictures())
    width, height = st.integers(min_value=20, max_value=300), st.integers(min_value=30, max_value=120)
    sizes = {node.id: Size(draw(width), draw(height)) for node in picture.nodes}
    labels = [draw(st.integers(min_value=0, max_value=150)) for _ in picture.edges]
    return picture, laid_out(picture, sizes, labels)


def overlap(one: Box, other: Box) -> bool:
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom


@given(layouts())
def test_no_two_cards_overlap(drawn: tuple[Picture, Layout]) -> None:
    _, layout = drawn
    assert not any(overlap(*pair) for pair in combinations(layout.cards.values(), 2))


@given(layouts())
def test_no_label_overlaps_a_card_or_another_label(drawn: tuple[Picture, Layout]) -> None:
    _, layout = drawn
    assert not any(overlap(*pair) for pair in combinations(layout.labels, 2))
    assert not any(overlap(label, card) for label in layout.labels for card in layout.cards.values())


@given(layouts())
def test_no_line_crosses_a_card_or_the_label_of_another(drawn: tuple[Picture, Layout]) -> None:
    _, layout = drawn
    for number, route in enumerate(layout.routes):
        others = [label for other, label in enumerate(layout.labels) if other != number]
        lines = [Box(level.start, level.y, level.end - level.start, 0.1) for level in route]
        assert not any(overlap(line, box) for line in lines for box in [*layout.cards.values(), *others])


@given(layouts())
def test_curves_stay_between_the_columns(drawn: tuple[Picture, Layout]) -> None:
    _, layout = drawn
    for route in layout.routes:
        for level, following in pairwise(route):
            curve = (level.end, following.start)
            assert curve[0] < curve[1]
            for box in (*layout.cards.values(), *layout.labels):
                assert box.right <= curve[0] or box.x >= curve[1]


@given(layouts())
def test_each_edge_runs_from_its_source_to_its_target(drawn: tuple[Picture, Layout]) -> None:
    picture, layout = drawn
    for edge, label, route in zip(picture.edges, layout.labels, layout.routes, strict=True):
        source, target = layout.cards[edge.source], layout.cards[edge.target]
        assert route[0].start == source.right
        assert source.y < route[0].y < source.bottom
        assert route[-1].end == target.x
        assert target.y < route[-1].y < target.bottom
        assert label.y < route[0].y < label.bottom


@given(layouts())
def test_everything_is_inside_and_what_is_not_reached_is_below_the_parting(
    drawn: tuple[Picture, Layout],
) -> None:
    picture, layout = drawn
    for box in (*layout.cards.values(), *layout.labels):
        assert box.x >= 0
        assert box.y >= 0
        assert box.right <= layout.width
        assert box.bottom <= layout.height
    assert all(0 <= level.y <= layout.height for route in layout.routes for level in route)
    assert (layout.parting is None) == (len(picture.unreachable) in {0, len(picture.nodes)})
    if layout.parting is not None:
        for id_, box in layout.cards.items():
            assert (box.y > layout.parting) == (id_ in picture.unreachable)


def test_a_card_grows_with_its_ports() -> None:
    nodes = tuple(Node(id_, id_, "blob service", "cache") for id_ in "abcdef")
    edges = tuple(Arrow("a", id_, "x") for id_ in "bcdef")
    layout = laid_out(
        Picture("", nodes, edges, ("a",), frozenset()), dict.fromkeys("abcdef", Size(100, 50)), [40] * 5
    )
    assert layout.cards["a"].height > 5 * layout.labels[0].height
    assert layout.cards["b"].height == 50


def test_a_parent_stands_in_the_middle_of_its_children(cache: Picture) -> None:
    layout = laid_out(cache, {node.id: Size(100, 60) for node in cache.nodes}, [40, 40])
    middles = [box.y + box.height / 2 for box in layout.cards.values()]
    assert middles[0] == pytest.approx((middles[1] + middles[2]) / 2, abs=1)


def test_a_chain_is_one_level_line() -> None:
    nodes = tuple(Node(id_, id_, "blob service", "cache") for id_ in "abc")
    edges = (Arrow("a", "b", "x"), Arrow("b", "c", "x"))
    sizes = {"a": Size(100, 50), "b": Size(100, 80), "c": Size(100, 50)}
    layout = laid_out(Picture("", nodes, edges, ("a",), frozenset()), sizes, [40, 40])
    assert len({level.y for route in layout.routes for level in route}) == 1


def test_a_line_that_is_almost_level_is_made_level() -> None:
    nodes = tuple(Node(id_, id_, "blob service", "cache") for id_ in "abcd")
    edges = tuple(Arrow(pair[0], pair[1], "x") for pair in ("ad", "ac", "bc", "ab"))
    layout = laid_out(
        Picture("", nodes, edges, ("a",), frozenset()), dict.fromkeys("abcd", Size(100, 60)), [40] * 4
    )
    assert len({level.y for level in layout.routes[1]}) == 1


def test_a_parent_far_from_the_middle_has_its_children_beside_it() -> None:
    nodes = tuple(Node(id_, id_, "blob service", "cache") for id_ in "abcdef")
    edges = tuple(Arrow(pair[0], pair[1], "x") for pair in ("ab", "ac", "ad", "de", "df"))
    layout = laid_out(
        Picture("", nodes, edges, ("a",), frozenset()), dict.fromkeys("abcdef", Size(100, 60)), [40] * 5
    )
    assert layout.cards["d"].y == pytest.approx((layout.cards["e"].y + layout.cards["f"].y) / 2, abs=4)


def test_an_entry_points_at_the_card_of_its_root(cache: Picture) -> None:
    layout = laid_out(cache, {node.id: Size(100, 60) for node in cache.nodes}, [40, 40])
    root = layout.cards["blobservices.root"]
    assert layout.entries == {"blobservices.root": (root.x, root.y + 30)}
    assert root.x > 26


# -- folded --

NARROW = 500


def chain(count: int) -> Picture:
    names = [f"layer{number}" for number in range(count)]
    nodes = tuple(Node(name, name, "blob service", "retry") for name in names)
    return Picture(
        "", nodes, tuple(Arrow(*pair, "inner") for pair in pairwise(names)), names[:1], frozenset()
    )


def lines_of(route: tuple[Level | Turn, ...]) -> list[Box]:
    """What a route covers: its levels, and the three lines of each turn."""
    lines = []
    for number, stretch in enumerate(route):
        if isinstance(stretch, Level):
            lines.append(Box(stretch.start, stretch.y, stretch.end - stretch.start, 0.1))
            continue
        before, after = route[number - 1], route[number + 1]
        lines += [
            Box(stretch.right, before.y, 0.1, stretch.y - before.y),
            Box(stretch.left, stretch.y, stretch.right - stretch.left, 0.1),
            Box(stretch.left, stretch.y, 0.1, after.y - stretch.y),
        ]
    return lines


@given(layouts())
def test_nothing_overlaps_in_a_folded_drawing(drawn: tuple[Picture, Layout]) -> None:
    """Neither cards, nor labels, nor a line and the card or the label of another."""
    layout = folded(drawn[1], NARROW)
    cards = [*layout.cards.values()]
    assert not any(overlap(*pair) for pair in combinations([*cards, *layout.labels], 2))
    for number, route in enumerate(layout.routes):
        others = [label for other, label in enumerate(layout.labels) if other != number]
        assert not any(overlap(line, box) for line in lines_of(route) for box in [*cards, *others])


@given(layouts())
def test_each_edge_still_runs_from_its_source_to_its_target(drawn: tuple[Picture, Layout]) -> None:
    """To the right, or around."""
    picture, layout = drawn[0], folded(drawn[1], NARROW)
    for edge, label, route in zip(picture.edges, layout.labels, layout.routes, strict=True):
        source, target = layout.cards[edge.source], layout.cards[edge.target]
        assert abs(route[0].start - source.right) < 0.01
        assert abs(route[-1].end - target.x) < 0.01
        assert source.y < route[0].y < source.bottom
        assert target.y < route[-1].y < target.bottom
        assert label.y < route[0].y < label.bottom
        for one, next_ in pairwise(route):
            if isinstance(one, Level) and isinstance(next_, Level):
                assert one.end < next_.start
        for line in lines_of(route):
            assert line.width > 0
            assert line.height > 0


@given(layouts())
def test_everything_is_inside_and_no_wider_than_it_may_be(drawn: tuple[Picture, Layout]) -> None:
    """But for a column that is wider by itself, and the lanes beside it."""
    picture, layout = drawn[0], folded(drawn[1], NARROW)
    lines = [line for route in layout.routes for line in lines_of(route)]
    for box in (*layout.cards.values(), *layout.labels, *lines):
        assert box.x >= 0
        assert box.y >= 0
        assert box.right <= layout.width + 0.2
        assert box.bottom <= layout.height + 0.2
    widest = max((column.end - column.start for column in layout.columns), default=0)
    assert layout.width <= max(NARROW, widest) + 2 * 14 + 2 * 9 * len(picture.edges)


def test_a_drawing_that_fits_is_left_as_it_is() -> None:
    """Whatever is in it."""
    layout = laid_out(chain(3), {f"layer{number}": Size(140, 60) for number in range(3)}, [50, 50])
    assert folded(layout) is layout


def test_a_chain_of_twelve_has_three_bands_of_four() -> None:
    """It was a strip of more than 3,000 px."""
    sizes = {f"layer{number}": Size(140, 60) for number in range(12)}
    flat = laid_out(chain(12), sizes, [50] * 11)
    layout = folded(flat)

    assert flat.width > 2.5 * WIDEST
    assert layout.width <= WIDEST
    rows = sorted({box.y for box in layout.cards.values()})
    assert [sum(box.y == row for box in layout.cards.values()) for row in rows] == [4, 4, 4]
    assert layout.cards["layer4"].x < layout.cards["layer3"].x
    assert sum(isinstance(stretch, Turn) for route in layout.routes for stretch in route) == 2


def test_lines_that_go_around_do_not_cross() -> None:
    """What is above another one at the right is above it at the left as well."""
    nodes = tuple(Node(id_, id_, "blob service", "cache") for id_ in "abcdefgh")
    pairs = ("ab", "ac", "ad", "be", "cf", "dg")
    edges = tuple(Arrow(*pair, "x") for pair in pairs)
    picture = Picture("", nodes, edges, ("a",), frozenset("h"))
    layout = folded(laid_out(picture, dict.fromkeys("abcdefgh", Size(140, 60)), [40] * 6), 400)

    turning = [route for route in layout.routes if any(isinstance(stretch, Turn) for stretch in route)]
    assert len(turning) > 3
    for one, other in combinations(turning, 2):
        assert not any(overlap(*pair) for pair in ((a, b) for a in lines_of(one) for b in lines_of(other)))


def test_the_picture_of_a_deep_stack_fits() -> None:
    """And its lines have round corners."""
    root = ET.fromstring(svg(chain(12)))

    assert float(root.get("width")) <= WIDEST + 48
    assert float(root.get("height")) < 600
    paths = [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert sum(path.count("Q") for path in paths) == 2 * 4
