from __future__ import annotations

import attrs

from castore.drawing import Arrow, Node, Picture
from castore.drawing.tree import tree


def test_the_tree_of_a_cache_over_two_stores(cache: Picture) -> None:
    assert tree(cache) == (
        "root  cache\n"
        "├── near → local  objectstore  file:./stores/near\n"
        "└── far → objectstore  s3://bucket/prefix\n"
    )


def test_a_shared_instance_is_drawn_in_full_once(shared: Picture) -> None:
    lines = [line for line in tree(shared).splitlines() if "→ local" in line]
    assert lines[0].endswith("far → local  objectstore  file:/var/lib/castore/near  [healthy]")
    assert [line.endswith("→ local  (see above)") for line in lines[1:]] == [True, True]


def test_what_is_below_a_shared_instance_is_not_repeated() -> None:
    nodes = tuple(Node(id_, id_, "blob service", "cache") for id_ in "abcd")
    edges = (Arrow("a", "b", "near"), Arrow("a", "c", "far"), Arrow("b", "c", "far"), Arrow("c", "d", "far"))
    assert tree(Picture("", nodes, edges, ("a",), frozenset())).count("→ d") == 1


def test_unreachable_instances_come_last_with_what_they_use(unreached: Picture) -> None:
    assert tree(unreached).split("\n\n")[1] == (
        "not reached from root:\n"
        "old  cache\n"
        "├── near → local  (see above)\n"
        "└── far → archive  objectstore  file:/mnt/archive\n"
        "scratch  memory\n"
    )


def test_without_roots_the_tree_has_no_empty_line_at_the_start(unreached: Picture) -> None:
    assert tree(attrs.evolve(unreached, roots=())).startswith("not reached from root:\nroot  cache\n")


def test_without_instances_the_tree_says_so() -> None:
    assert tree(Picture("x", (), (), (), frozenset())) == "no instances\n"


def test_the_kind_is_told_where_it_changes(names: Picture) -> None:
    lines = tree(names).splitlines()
    assert "cache (blob service)" in lines[0]
    assert "objectstore  " in lines[1]
    assert "memory (directory service)" in lines[2]


def test_no_control_code_reaches_the_terminal(names: Picture) -> None:
    drawing = tree(names)
    assert r"s3://b/\x1b[31mred\u202elive\n" in drawing
    assert drawing.replace("\n", "").isprintable()


def test_a_chain_may_be_longer_than_the_stack_of_python() -> None:
    nodes = tuple(Node(str(n), str(n), "blob service", "cache") for n in range(2000))
    edges = tuple(Arrow(str(n), str(n + 1), "far") for n in range(1999))
    assert len(tree(Picture("", nodes, edges, ("0",), frozenset())).splitlines()) == 2000
