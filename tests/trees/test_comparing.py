"""What two trees differ in: all of it, each once, and nothing else is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore import B3Digest, Composition, MissingDirectoryError
from castore.contract.capabilities import BlobLister
from castore.contract.directories import FoundDirectories
from castore.digest import EMPTY
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.comparing import diff, with_renames
from castore.trees.hashing import hash_tree
from castore.trees.importing import import_tree
from castore.trees.walking import walk
from castore_memory.directories import MemoryDirectoryService
from tests.trees.conftest import ROOT

ONE, OTHER = FileNode(B3Digest.of(b"one"), 3), FileNode(B3Digest.of(b"other"), 5)
LINK, ELSEWHERE = SymlinkNode(SymlinkTarget(b"here")), SymlinkNode(SymlinkTarget(b"there"))


class Counting(MemoryDirectoryService):
    def __init__(self) -> None:
        super().__init__(1 << 30)
        self.asked: set[B3Digest] = set()

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        wanted = set(digests)
        self.asked |= wanted
        return super().get_many(wanted)

    def tree(self, nodes: dict[bytes, Any]) -> DirectoryNode:
        directory = Directory(
            {name: self.tree(node) if isinstance(node, dict) else node for name, node in nodes.items()}
        )
        self.put_many([directory])
        return directory.node


def changes(service: Counting, before: Node, after: Node) -> list[str]:
    return [f"{change.letter} {change.path}" for change in diff(service, before, after)]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, []),
        ({}, {b"a": ONE}, ["A a"]),
        ({b"a": ONE}, {}, ["D a"]),
        ({b"a": ONE}, {b"a": OTHER}, ["M a"]),
        ({b"a": ONE}, {b"a": FileNode(ONE.digest, 3, True)}, ["X a"]),
        ({b"a": ONE}, {b"a": FileNode(OTHER.digest, 5, True)}, ["M a"]),
        ({b"a": LINK}, {b"a": ELSEWHERE}, ["L a"]),
        ({b"a": LINK}, {b"a": ONE}, ["T a"]),
        ({b"a": ONE}, {b"a": {b"b": ONE, b"c": {}}}, ["T a", "A a/b", "A a/c"]),
        ({b"a": {b"b": {b"c": ONE}}}, {}, ["D a", "D a/b", "D a/b/c"]),
        ({b"x": {b"y": ONE}, b"z": ONE}, {b"x": {b"y": OTHER}, b"z": ONE}, ["M x/y"]),
        ({b"b": ONE, b"d": ONE}, {b"a": ONE, b"c": ONE, b"d": OTHER}, ["A a", "D b", "A c", "M d"]),
    ],
)
def test_changes(before: dict[bytes, Any], after: dict[bytes, Any], found: list[str]) -> None:
    service = Counting()
    assert changes(service, service.tree(before), service.tree(after)) == found


def test_what_is_equal_is_not_looked_into() -> None:
    service = Counting()
    same = {b"%d" % number: {b"f": FileNode(EMPTY, number)} for number in range(20)}
    before = service.tree({b"same": same, b"sub": {b"a": ONE, b"same": same}})
    after = service.tree({b"same": same, b"sub": {b"a": OTHER, b"same": same}})
    assert changes(service, before, after) == ["M sub/a"]
    assert len(service.asked) == 4


def test_files_and_links_as_roots() -> None:
    service = Counting()
    assert changes(service, ONE, ONE) == []
    assert changes(service, ONE, OTHER) == ["M "]
    assert changes(service, LINK, service.tree({b"a": ONE})) == ["T ", "A a"]


def test_a_directory_that_is_gone() -> None:
    service = Counting()
    before = service.tree({b"sub": {b"a": ONE}})
    with pytest.raises(MissingDirectoryError) as caught:
        changes(service, before, service.tree({b"sub": DirectoryNode(B3Digest.of(b"gone"), 2)}))
    assert caught.value.path == b"sub"


TREES = st.recursive(
    st.sampled_from([ONE, OTHER, LINK, ELSEWHERE]),
    lambda inner: st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), inner, max_size=4),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


@given(TREES, TREES)
def test_the_changes_make_one_of_the_other(before: Any, after: Any) -> None:
    """Applied to the paths of the first tree they give those of the second."""
    service = Counting()
    first, second = service.tree(before), service.tree(after)

    def paths(root: DirectoryNode) -> dict[Any, Node]:
        # Of a directory that stays it does not count what is in it.
        return {
            path: DirectoryNode(EMPTY, 0) if isinstance(node, DirectoryNode) else node
            for path, node in walk(service, root)
        }

    made = paths(first)
    seen = set()
    for change in diff(service, first, second):
        assert (change.path, change.letter) not in seen
        seen.add((change.path, change.letter))
        assert change.before != change.after
        if change.after is None:
            del made[change.path]
        else:
            is_folder = isinstance(change.after, DirectoryNode)
            made[change.path] = DirectoryNode(EMPTY, 0) if is_folder else change.after
    assert made == paths(second)


class TestRenames:
    @pytest.mark.parametrize(
        ("before", "after", "found"),
        [
            ({b"a": ONE}, {b"b": ONE}, ["R a -> b"]),
            ({b"a": ONE}, {b"b": OTHER}, ["D a", "A b"]),
            ({b"a": ONE}, {b"b": FileNode(ONE.digest, 3, True)}, ["R a -> b"]),
            ({b"a": LINK}, {b"b": LINK}, ["D a", "A b"]),
            ({b"a": FileNode(EMPTY, 0)}, {b"b": FileNode(EMPTY, 0)}, ["D a", "A b"]),
            ({b"a": {}}, {b"b": {}}, ["D a", "A b"]),
            (
                {b"a": {b"x": ONE, b"y": {b"z": OTHER}}},
                {b"b": {b"x": ONE, b"y": {b"z": OTHER}}},
                ["R a -> b"],
            ),
            (
                {b"a": {b"x": ONE, b"y": OTHER}},
                {b"b": {b"x": ONE, b"y": OTHER, b"n": LINK}},
                ["D a", "A b", "A b/n", "R a/x -> b/x", "R a/y -> b/y"],
            ),
            ({b"a": ONE, b"d": {b"k": ONE}}, {b"x": {b"k": ONE}, b"y": ONE}, ["R d -> x", "R a -> y"]),
            ({b"a": ONE, b"c": {b"k": ONE}}, {b"k": ONE}, ["D a", "D c", "R c/k -> k"]),
            ({b"a": ONE}, {b"b": ONE, b"c": ONE}, ["R a -> b", "A c"]),
            ({b"a": ONE, b"b": ONE}, {b"c": ONE}, ["D b", "R a -> c"]),
        ],
    )
    def test_renames(self, before: dict[bytes, Any], after: dict[bytes, Any], found: list[str]) -> None:
        service = Counting()
        changes = with_renames(diff(service, service.tree(before), service.tree(after)))
        shown = [
            f"{each.letter} {each.path}" if each.source is None else f"R {each.source} -> {each.path}"
            for each in changes
        ]
        assert sorted(shown) == sorted(found)

    def test_many_that_are_alike(self) -> None:
        """It takes no longer for each the more there are."""
        service = Counting()
        before = service.tree({b"a%d" % number: ONE for number in range(20_000)})
        after = service.tree({b"b%d" % number: ONE for number in range(20_000)})
        assert {change.letter for change in with_renames(diff(service, before, after))} == {"R"}


class TestCost:
    class Calls(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def get_many(
            self, digests: Iterable[B3Digest], *, within: B3Digest | None = None
        ) -> FoundDirectories:
            self.calls += 1
            return super().get_many(digests)

    def grown(self, changed: set[int], width: int, depth: int, number: int = 0) -> dict[bytes, Any]:
        if not depth:
            return {b"file": OTHER if number in changed else ONE, b"which": FileNode(EMPTY, number)}
        return {
            b"%d" % below: self.grown(changed, width, depth - 1, number * width + below)
            for below in range(width)
        }

    def test_few_changes(self) -> None:
        """Of 1,111 directories those on the ways to 10 changed files, level by level."""
        service = self.Calls()
        before = service.tree(self.grown(set(), 10, 3))
        after = service.tree(self.grown({*range(7, 1000, 100)}, 10, 3))
        service.asked.clear()
        assert len(changes(service, before, after)) == 10
        assert len(service.asked) <= 10 * 4 * 2
        assert service.calls == 2 * 4

    def test_what_is_the_same_many_times_is_read_once(self) -> None:
        """And leaves room for what comes after it."""
        service = self.Calls()
        roots = [
            service.tree({b"y": {b"g": node}, **{b"x%d" % number: {b"f": node} for number in range(600)}})
            for node in (ONE, OTHER)
        ]
        assert len(changes(service, *roots)) == 601
        assert service.calls == 2 * 2

    def test_a_directory_with_two_sizes_is_one(self) -> None:
        """Those that two rules give it."""
        service = self.Calls()
        node = service.tree({b"a": ONE})
        service.asked.clear()
        assert changes(service, node, DirectoryNode(node.digest, 1)) == []
        assert not service.asked

    def test_shared_directories_without_end(self) -> None:
        service = self.Calls()
        nodes: tuple[Any, Any] = {b"f": ONE}, {b"f": OTHER}
        roots = [service.tree(node) for node in nodes]
        for _ in range(40):
            roots = [service.tree({b"a": root, b"b": root}) for root in roots]
        found = diff(service, *roots)
        assert [change.letter for change in islice(found, 100)] == ["M"] * 100


class TestOnDisk:
    def test_a_folder_is_compared_as_if_it_were_stored(self, golden: Path, stores: Composition) -> None:
        done, directories = hash_tree(golden)
        assert str(getattr(done.node, "digest", "")) == ROOT
        assert done.node is not None
        stored = import_tree(golden, stores.blobs(), stores.directories()).node
        assert stored is not None
        assert list(diff(stores.directories(), stored, done.node, after_in=directories)) == []

    def test_nothing_is_stored(self, golden: Path, stores: Composition) -> None:
        done, directories = hash_tree(golden)
        assert done.node is not None
        nothing = stores.directories().put(Directory())
        found = list(diff(stores.directories(), DirectoryNode(nothing, 0), done.node, after_in=directories))
        assert {change.letter for change in found} == {"A"}
        assert len(found) == done.files + done.directories - 1 + done.links
        lister = stores.blobs().capability(BlobLister)
        assert lister is not None
        assert list(lister.list_blobs()) == []
