"""Going through trees: in order, with few calls, and never without an end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from castore import (
    B3Digest,
    CorruptDirectoryError,
    DirectorySizeError,
    InvalidDirectoryError,
    MissingDirectoryError,
)
from castore.contract.directories import FoundDirectories
from castore.digest import EMPTY
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.trees.walking import MOST_LEVELS, descend_to, walk
from castore_memory.directories import MemoryDirectoryService
from tests.format.test_directories import COMPLICATED, LINK, WITH_KEEP, A, B, D, E


class Rows(MemoryDirectoryService):
    def __init__(self, *directories: Directory) -> None:
        super().__init__(1 << 30)
        self.calls: list[int] = []
        self.put_many(directories)

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        wanted = list(digests)
        self.calls.append(len(wanted))
        return super().get_many(wanted, within=within)


TREE = Rows(A, B, D, E, WITH_KEEP, COMPLICATED)


def names(entries: Iterable[tuple[TreePath, Node]]) -> list[str]:
    return [str(path) for path, _ in entries]


def test_each_directory_before_what_is_in_it() -> None:
    assert names(walk(TREE, COMPLICATED.node)) == [".keep", "aa", "keep", "keep/.keep"]
    assert names(walk(TREE, E.node)) == ["d", "d/a", "d/b", "d/b/a"]


def test_one_level() -> None:
    assert names(walk(TREE, COMPLICATED.node, recursive=False)) == [".keep", "aa", "keep"]


def test_paths_begin_as_asked() -> None:
    assert names(walk(TREE, D.node, path=TreePath.parse("x/d"))) == ["x/d/a", "x/d/b", "x/d/b/a"]


@pytest.mark.parametrize("node", [FileNode(EMPTY, 0), LINK])
def test_nothing_is_below_a_file(node: Node) -> None:
    assert list(walk(TREE, node)) == []


def test_calls_are_for_many() -> None:
    leaves = [Directory({b"%03d" % number: FileNode(EMPTY, number)}) for number in range(600)]
    root = Directory({b"%03d" % number: leaf.node for number, leaf in enumerate(leaves)})
    rows = Rows(*leaves, root)
    assert len(list(walk(rows, root.node))) == 1200
    assert rows.calls == [1, 256, 256, 88]


@pytest.mark.parametrize(
    ("path", "node"),
    [
        ("", COMPLICATED.node),
        ("keep", WITH_KEEP.node),
        ("keep/.keep", FileNode(EMPTY, 0)),
        ("aa", LINK),
        ("void", None),
        ("v/oid", None),
        ("keep/.keep/foo", None),
        ("aa/foo", None),
    ],
)
def test_descending(path: str, node: Node | None) -> None:
    assert descend_to(TREE, COMPLICATED.node, TreePath.parse(path)) == node


class TestDamage:
    def test_a_directory_that_is_gone(self) -> None:
        rows = Rows(A, D, E)
        with pytest.raises(MissingDirectoryError) as caught:
            list(walk(rows, E.node))
        assert (caught.value.expected, caught.value.path) == (B.digest, b"d/b")
        with pytest.raises(MissingDirectoryError) as caught:
            descend_to(rows, E.node, TreePath.parse("d/b/a"))
        assert (caught.value.expected, caught.value.path) == (B.digest, b"d/b")
        with pytest.raises(MissingDirectoryError):
            list(walk(rows, B.node))

    def test_a_wrong_size(self) -> None:
        wrong = Directory({b"d": DirectoryNode(D.digest, 42)})
        with pytest.raises(DirectorySizeError):
            list(walk(Rows(A, B, D, wrong), wrong.node))

    def test_one_that_is_corrupt(self) -> None:
        class Corrupt(Rows):
            def get_many(self, digests: Any, *, within: Any = None) -> FoundDirectories:
                found = super().get_many(digests, within=within)
                if B.digest in found:
                    found[B.digest] = CorruptDirectoryError("it rots", expected=B.digest)
                return found

        with pytest.raises(CorruptDirectoryError, match="it rots"):
            list(walk(Corrupt(A, B, D, E), E.node))

    def test_levels_without_end(self) -> None:
        """A few bytes could name millions of them."""

        class Endless(MemoryDirectoryService):
            def get_many(self, digests: Any, *, within: Any = None) -> FoundDirectories:
                return {digest: Directory({b"d": DirectoryNode(digest, 0)}) for digest in digests}

        sizes = Endless()
        with pytest.raises(InvalidDirectoryError) as caught:
            list(walk(sizes, DirectoryNode(EMPTY, 0)))
        assert caught.value.rule in {"size", "too-deep"}
        levels = [Directory()]
        for _ in range(MOST_LEVELS + 1):
            levels.append(Directory({b"d": levels[-1].node}))
        with pytest.raises(InvalidDirectoryError, match=f"more than {MOST_LEVELS} levels"):
            list(walk(Rows(*levels), levels[-1].node))
