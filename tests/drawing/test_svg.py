from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.drawing import Arrow, Node, Picture
from castore.drawing.card import Panel
from castore.drawing.layout import Box, Size
from castore.drawing.svg import drawn, svg

NS = {"svg": "http://www.w3.org/2000/svg"}


def parsed(picture: Picture) -> ET.Element:
    return ET.fromstring(svg(picture))


def words(root: ET.Element, style: str) -> list[str]:
    return [
        text.text or "" for text in root.iterfind(".//svg:text", NS) if style in text.attrib["class"].split()
    ]


def count(root: ET.Element, style: str) -> int:
    return sum(style in element.get("class", "").split() for element in root.iter())


def test_every_name_type_detail_state_and_field_is_shown(shared: Picture) -> None:
    root = parsed(shared)
    assert words(root, "name") == ["root", "fast", "slow", "hot", "local", "remote", "grpc"]
    assert words(root, "type") == ["mirror", "cache", "cache", "memory", "objectstore", "objectstore"]
    assert "512 MiB" in words(root, "detail")
    assert words(root, "state") == ["healthy", "breaker open"]
    assert words(root, "field") == [edge.label for edge in shared.edges]
    assert words(root, "caption") == ["composition.toml"]


def test_an_anonymous_instance_shows_its_type_in_italics(cache: Picture) -> None:
    assert words(parsed(cache), "anonymous") == ["objectstore"]


def test_a_long_detail_is_cut_in_the_middle_and_whole_in_the_tooltip(shared: Picture) -> None:
    root = parsed(shared)
    url = shared.nodes[5].detail
    (cut,) = [text for text in words(root, "detail") if text.startswith("s3://")]
    assert "…" in cut
    assert cut.endswith("eu-central-1")
    assert f"remote  objectstore  {url}" in [title.text for title in root.iterfind(".//svg:g/svg:title", NS)]


def test_only_the_healthy_state_is_no_cause_for_attention(shared: Picture) -> None:
    root = parsed(shared)
    assert words(root, "well-word") == ["healthy"]
    assert words(root, "heed-word") == ["breaker open"]


def test_roots_are_marked(cache: Picture, names: Picture) -> None:
    assert count(parsed(cache), "entry") == count(parsed(cache), "root") == 1
    assert count(parsed(names), "entry") == count(parsed(names), "root") == 2


def test_what_nobody_reaches_is_grey_and_set_apart(unreached: Picture, cache: Picture) -> None:
    root = parsed(unreached)
    assert count(root, "unreached") == 3 + 2
    assert words(root, "caption") == ["not reached from root"]
    assert count(parsed(cache), "unreached") == 0
    assert words(parsed(cache), "caption") == ["composition.toml"]


def test_the_picture_can_be_read_aloud(cache: Picture) -> None:
    root = parsed(cache)
    labels = root.attrib["aria-labelledby"].split()
    assert root.attrib["role"] == "img"
    assert [root.find(f".//*[@id='{label}']").tag for label in labels] == [  # type: ignore[union-attr]
        f"{{{NS['svg']}}}title",
        f"{{{NS['svg']}}}desc",
    ]
    assert root.findtext("svg:title", namespaces=NS) == "composition.toml"
    assert root.findtext("svg:desc", namespaces=NS) == (
        "root: cache, near is local, far is objectstore. local: objectstore, file:./stores/near. "
        "objectstore, s3://bucket/prefix."
    )


def test_the_file_stands_alone(picture: Picture) -> None:
    plain = attrs.evolve(picture, nodes=tuple(attrs.evolve(node, detail="") for node in picture.nodes))
    drawing = svg(plain)
    assert "prefers-color-scheme:dark" in drawing
    for foreign in ("<script", "href", "url(", "@import", "@font-face", "<!DOCTYPE", "onload"):
        assert foreign not in drawing
    assert re.findall("https?://", drawing) == ["http://"]  # the namespace


def test_everything_lies_on_the_paper(picture: Picture) -> None:
    root = parsed(picture)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    shift = re.fullmatch(r"translate\((\S+) (\S+)\)", root.find("svg:g", NS).attrib["transform"])  # type: ignore[union-attr]
    assert shift is not None
    left, top = map(float, shift.groups())
    for rect in root.iterfind("svg:g//svg:rect", NS):
        x, y, io_pool, high = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 < x + left < x + left + io_pool < width
        assert 0 < y + top < y + top + high < height


def test_a_card_has_a_bounded_width_whatever_it_says() -> None:
    node = Node("x", "W" * 500, "blob service", "t" * 500, "d" * 500, "s" * 500)
    root = parsed(Picture("t" * 500, (node,), (), ("x",), frozenset()))
    assert float(root.attrib["width"]) < 400


@given(st.lists(st.text(), min_size=8, max_size=8))
def test_any_text_gives_well_formed_xml(texts: list[str]) -> None:
    title, name, kind, type_, detail, state, label, id_ = texts
    nodes = (Node(f"1{id_}", name, kind, type_, detail, state), Node("2", detail, "x", name, title, label))
    root = parsed(Picture(title, nodes, (Arrow(f"1{id_}", "2", label),), ("2",), frozenset({f"1{id_}"})))
    assert count(root, "card") == 2


@pytest.mark.parametrize("count_", [0, 1])
def test_the_smallest_pictures_can_be_drawn(count_: int) -> None:
    nodes = (Node("root", "root", "blob service", "memory"),)[:count_]
    root = parsed(Picture("", nodes, (), ("root",)[:count_], frozenset()))
    assert count(root, "card") == count_


def test_a_panel_has_its_room_on_each_card(shared: Picture) -> None:
    """All of it within the outline of its card, below the words, whatever else stands there."""
    rooms: dict[str, Box] = {}

    def draw(id_: str, room: Box) -> list[ET.Element]:
        rooms[id_] = room
        return [ET.Element("rect", {"class": "mine"})]

    root = drawn(shared, Panel(Size(200, 50), draw, lambda id_: {"data-i": id_}))
    assert rooms.keys() == {node.id for node in shared.nodes}
    for group in root.iter("g"):
        if "data-i" not in group.attrib:
            continue
        room = rooms[group.attrib["data-i"]]
        assert room.width >= 200
        assert room.height == 50
        card = next(each for each in group.iter("rect") if each.get("class") == "card")
        x, y, width, height = (float(card.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x < room.x < room.right < x + width
        assert y < room.y < room.bottom < y + height
        assert max(float(text.attrib["y"]) for text in group.iter("text")) < room.y
        assert [each.get("class") for each in group][-1] == "mine"
