"""What two trees differ in: all of it, each once, and nothing else is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore import B3Digest, MissingDirectoryError
from castore.contract.directories import FoundDirectories
from castore.digest import EMPTY
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.comparing import diff
from castore.trees.walking import walk
from castore_memory.directories import MemoryDirectoryService

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
