"""New trees of others: what they have, what is taken over as it is, and that no blob is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore import B3Digest, MergeConflictError, MissingDirectoryError
from castore.digest import EMPTY
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget, TreePath
from castore.trees.merging import filter_tree, merge
from castore.trees.selecting import ALL, Pattern, Selection
from castore.trees.walking import walk
from castore_memory.service import MemoryBlobService
from tests.trees.test_comparing import TREES, Counting

ONE, OTHER = FileNode(B3Digest.of(b"one"), 3), FileNode(B3Digest.of(b"other"), 5)
RUN = FileNode(ONE.digest, 3, True)
LINK = SymlinkNode(SymlinkTarget(b"here"))


def merged(service: Counting, *trees: Any, conflict: Any = "error") -> Node:
    return merge(service, [service.tree(tree) for tree in trees], conflict=conflict)


@pytest.mark.parametrize(
    ("trees", "expected"),
    [
        ([{}], {}),
        ([{b"a": ONE}], {b"a": ONE}),
        ([{b"a": ONE}, {b"b": LINK}], {b"a": ONE, b"b": LINK}),
        ([{b"a": ONE}, {b"a": ONE}], {b"a": ONE}),
        ([{b"d": {b"a": ONE}}, {b"d": {b"b": ONE}}, {b"d": {}}], {b"d": {b"a": ONE, b"b": ONE}}),
        (
            [{b"d": {b"x": {b"a": ONE}}, b"e": {b"k": ONE}}, {b"d": {b"x": {b"b": ONE}, b"y": {}}}],
            {b"d": {b"x": {b"a": ONE, b"b": ONE}, b"y": {}}, b"e": {b"k": ONE}},
        ),
    ],
)
def test_without_conflicts(trees: list[Any], expected: Any) -> None:
    for conflict in ("error", "last", "first"):
        service = Counting()
        assert merged(service, *trees, conflict=conflict) == Counting().tree(expected)
        assert merged(service, *reversed(trees), conflict=conflict) == Counting().tree(expected)


@pytest.mark.parametrize(
    ("trees", "first", "last", "paths"),
    [
        ([{b"a": ONE}, {b"a": OTHER}], {b"a": ONE}, {b"a": OTHER}, [b"a"]),
        ([{b"a": ONE}, {b"a": RUN}], {b"a": ONE}, {b"a": RUN}, [b"a"]),
        ([{b"a": ONE}, {b"a": {b"b": ONE}}], {b"a": ONE}, {b"a": {b"b": ONE}}, [b"a"]),
        (
            [{b"a": {b"b": ONE}}, {b"a": LINK}, {b"a": {b"c": ONE}}],
            {b"a": {b"b": ONE, b"c": ONE}},
            {b"a": {b"c": ONE}},
            [b"a"],
        ),
        (
            [{b"d": {b"a": ONE, b"b": ONE}, b"x": ONE}, {b"d": {b"a": OTHER, b"b": LINK}, b"x": LINK}],
            {b"d": {b"a": ONE, b"b": ONE}, b"x": ONE},
            {b"d": {b"a": OTHER, b"b": LINK}, b"x": LINK},
            [b"d/a", b"d/b", b"x"],
        ),
    ],
)
def test_conflicts(trees: list[Any], first: Any, last: Any, paths: list[bytes]) -> None:
    service = Counting()
    assert merged(service, *trees, conflict="first") == Counting().tree(first)
    assert merged(service, *trees, conflict="last") == Counting().tree(last)
    with pytest.raises(MergeConflictError) as caught:
        merged(service, *trees)
    assert sorted(caught.value.paths) == paths


def test_files_and_links_as_roots() -> None:
    assert merge(Counting(), [ONE, ONE]) == ONE
    assert merge(Counting(), [ONE, LINK], conflict="last") == LINK
    with pytest.raises(MergeConflictError):
        merge(Counting(), [ONE, LINK])


@given(TREES)
def test_a_tree_with_itself_is_itself(tree: Any) -> None:
    service = Counting()
    assert merged(service, tree, tree, tree) == service.tree(tree)


@given(TREES, TREES, TREES)
def test_it_does_not_matter_which_are_merged_first(one: Any, two: Any, three: Any) -> None:
    """Where there is no conflict; and if there is one, the same way to settle it."""
    service = Counting()
    roots = [service.tree(tree) for tree in (one, two, three)]

    def outcome(*steps: Any) -> Any:
        try:
            node = roots[steps[0]]
            for step in steps[1:]:
                node = merge(service, [node, roots[step]])
        except MergeConflictError:
            return None
        return node

    together = None
    try:
        together = merge(service, roots)
        right = merge(service, [roots[0], merge(service, roots[1:])])
        assert together == outcome(0, 1, 2) == right == outcome(2, 1, 0)
    except MergeConflictError:
        assert together is None
        assert outcome(0, 1, 2) is None


def test_what_is_in_one_tree_alone_is_not_looked_into() -> None:
    service = Counting()
    service._max_size = None  # Then it is complete, and what is grafted need not be looked through.
    many = {b"%d" % number: {b"f": FileNode(EMPTY, number)} for number in range(20)}
    one = service.tree({b"many": many, b"d": {b"a": ONE}})
    other = service.tree({b"d": {b"b": ONE, b"deep": many}})
    service.asked.clear()
    node = merge(service, [one, other])
    assert node == Counting().tree({b"many": many, b"d": {b"a": ONE, b"b": ONE, b"deep": many}})
    assert len(service.asked) == 4


def test_directories_are_read_many_with_one_call() -> None:
    """More of them than one call is for, too."""

    class Calls(Counting):
        calls = 0

        def get_many(self, digests: Any, *, within: Any = None) -> Any:
            self.calls += 1
            return super().get_many(digests)

    service = Calls()
    service._max_size = None
    one, other = (
        service.tree({b"%d" % number: {b"d": {b"%d-%d" % (number, which): ONE}} for number in range(700)})
        for which in (1, 2)
    )
    service.calls = 0
    merge(service, [one, other])
    assert service.calls <= 2 * 6
    service.calls = 0
    filter_tree(service, one, Selection([Pattern(b"7-1", "--exclude")]))
    assert service.calls <= 6


def test_deep_trees() -> None:
    """Without recursion."""
    service = Counting()
    nodes: list[Node] = [ONE, LINK]
    for name in (b"a", b"b"):
        nodes = [service.tree({name if number else b"n": node}) for number, node in enumerate(nodes)]
    for _ in range(1200):
        nodes = [service.tree({b"d": node}) for node in nodes]
    assert isinstance(merge(service, nodes), DirectoryNode)
    assert filter_tree(service, nodes[0], Selection((Pattern(b"nothing", "--exclude"),))) == nodes[0]


def test_a_directory_that_is_gone() -> None:
    service = Counting()
    gone = DirectoryNode(B3Digest.of(b"gone"), 2)
    roots = [service.tree({b"d": {b"a": ONE}}), service.tree({b"d": gone})]
    with pytest.raises(MissingDirectoryError):
        merge(service, roots)


def paths(service: Counting, node: Node | None) -> list[str]:
    return [] if node is None else [str(path) for path, _ in walk(service, node)]


TREE = {
    b"a.jpg": ONE,
    b"a.txt": OTHER,
    b"docs": {b"b.jpg": ONE, b"c.txt": ONE, b"deep": {b"d.txt": ONE}},
    b"empty": {},
    b"link": LINK,
}


class TestFilter:
    @pytest.mark.parametrize(
        ("patterns", "left"),
        [
            (["*.jpg", "c.*"], ["a.txt", "docs", "docs/deep", "docs/deep/d.txt", "empty", "link"]),
            (["/*.jpg", "link", "deep"], ["a.txt", "docs", "docs/b.jpg", "docs/c.txt", "empty"]),
            (["docs/"], ["a.jpg", "a.txt", "empty", "link"]),
            (["d.txt", "empty"], ["a.jpg", "a.txt", "docs", "docs/b.jpg", "docs/c.txt", "docs/deep", "link"]),
            (["*.txt", "!c.txt", "deep"], ["a.jpg", "docs", "docs/b.jpg", "docs/c.txt", "empty", "link"]),
        ],
    )  # fmt: skip
    def test_rules(self, patterns: list[str], left: list[str]) -> None:
        service = Counting()
        selection = Selection([Pattern(each.encode(), "--exclude") for each in patterns])
        assert paths(service, filter_tree(service, service.tree(TREE), selection)) == left

    def test_without_empty_directories(self) -> None:
        """But for those that were empty before."""
        service = Counting()
        selection = Selection([Pattern(each, "--include") for each in (b"*", b"!*/", b"!*.jpg")])
        node = filter_tree(service, service.tree(TREE), selection, keep_empty=False)
        assert paths(service, node) == ["a.jpg", "docs", "docs/b.jpg", "empty"]
        nothing = Selection([Pattern(b"*", "--exclude")])
        assert filter_tree(service, service.tree(TREE), nothing, keep_empty=False) is None
        assert filter_tree(service, service.tree(TREE), nothing) == Directory().node

    @given(TREES)
    def test_without_rules_it_is_the_same_tree(self, tree: Any) -> None:
        service = Counting()
        root = service.tree(tree)
        for selection in (ALL, Selection([]), Selection([Pattern(b"nothing-like-this", "--exclude")])):
            for keep_empty in (True, False):
                assert filter_tree(service, root, selection, keep_empty=keep_empty) == root

    def test_rules_that_are_in_files(self) -> None:
        blobs = MemoryBlobService()
        rules = FileNode(blobs.write(b"*.txt\n"), 6)
        service = Counting()
        root = service.tree({b"docs": {b".rules": rules, b"a.txt": ONE, b"b": ONE}, b"a.txt": ONE})
        selection = Selection(ignore_files=[b".rules"])
        assert selection.needs_blobs
        node = filter_tree(service, root, selection, blobs=blobs)
        assert paths(service, node) == ["a.txt", "docs", "docs/.rules", "docs/b"]

    @given(TREES, st.sampled_from([b"a", b"/b", b"c/", b"a/b", b"**/d"]))
    def test_what_is_left_is_what_no_rule_drops(self, tree: Any, pattern: bytes) -> None:
        """Twice is as good as once."""
        service = Counting()
        selection = Selection([Pattern(pattern, "--exclude")])
        node = filter_tree(service, service.tree(tree), selection)
        assert node is not None
        assert filter_tree(service, node, selection) == node
        assert set(paths(service, node)) <= set(paths(service, service.tree(tree)))

    def test_names_that_are_dropped_and_put_before(self) -> None:
        service = Counting()
        tree = {b"x": {b"a": ONE, b"d": {b"k": ONE}}, b"y": {b"b": OTHER, b"d": {b"l": ONE}}, b"z": ONE}
        root = service.tree(tree)
        assert paths(service, filter_tree(service, root, strip=1)) == ["a", "b", "d", "d/k", "d/l"]
        assert paths(service, filter_tree(service, root, strip=2)) == ["k", "l"]
        assert filter_tree(service, root, strip=3) is None
        whole = filter_tree(service, root, prefix=TreePath.parse("p/q"))
        assert whole == Counting().tree({b"p": {b"q": tree}})
        assert filter_tree(service, ONE, prefix=TreePath.parse("p")) == Counting().tree({b"p": ONE})
        assert filter_tree(service, root, prefix=TreePath()) == root

    def test_paths_that_become_the_same(self) -> None:
        service = Counting()
        root = service.tree({b"x": {b"a": ONE}, b"y": {b"a": OTHER}})
        with pytest.raises(MergeConflictError):
            filter_tree(service, root, strip=1)
        assert filter_tree(service, root, strip=1, conflict="last") == Counting().tree({b"a": OTHER})


def test_an_aborted_tree_is_not_there() -> None:
    """What was new in it was not put."""

    class Broken(Counting):
        def put_many(self, directories: Iterable[Directory]) -> None:
            raise AssertionError("nothing was to be put")

    service = Counting()
    roots = [service.tree({b"d": {b"a": ONE}, b"e": ONE}), service.tree({b"d": {b"b": ONE}, b"e": LINK})]
    broken = Broken()
    broken._directories = service._directories
    with pytest.raises(MergeConflictError):
        merge(broken, roots)
