"""Going through trees: in order, with few calls, and never without an end."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
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
from castore.format.closures import MOST_LEVELS
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.trees.walking import descend_to, walk, walk_directories, walk_with_ends
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


def test_directories() -> None:
    """Each before those within it; what is not entered is passed over with all below it, and not read."""
    found = walk_directories(TREE, E.node, path=TreePath.parse("x"))
    expected = [("x", E), ("x/d", D), ("x/d/a", A), ("x/d/b", B), ("x/d/b/a", A)]
    assert [(str(path), directory) for path, directory in found] == expected
    asked: list[str] = []

    def enters(path: TreePath, node: DirectoryNode) -> bool:
        asked.append(f"{path} {node.digest == D.digest}")
        return False

    assert [path for path, _ in walk_directories(TREE, E.node, enters=enters)] == [TreePath()]
    assert asked == ["d True"]


def test_one_level() -> None:
    assert names(walk(TREE, COMPLICATED.node, depth=1)) == [".keep", "aa", "keep"]


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
    assert rows.calls == [1, 512, 88]


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


class TestCalls:
    """Directories are read level by level, many with one call, and not many more than are needed next."""

    @staticmethod
    def grown(service: Rows, depth: int, width: int, name: bytes = b"") -> Directory:
        nodes: dict[bytes, Node] = {b"file": FileNode(B3Digest.of(name), 1)}
        for number in range(width if depth else 0):
            below = TestCalls.grown(service, depth - 1, width, b"%s/%d" % (name, number))
            nodes[b"%d" % number] = below.node
        directory = Directory(nodes)
        service.put_many([directory])
        return directory

    def test_a_call_for_each_level(self) -> None:
        rows = Rows()
        root = self.grown(rows, 4, 4)
        assert len(list(walk(rows, root.node))) == 4 + 16 + 64 + 256 + 1 + 4 + 16 + 64 + 256
        assert rows.calls == [1, 4, 16, 64, 256]

    def test_only_the_levels_that_are_wanted(self) -> None:
        rows = Rows()
        root = self.grown(rows, 4, 4)
        assert len(list(walk(rows, root.node, depth=3))) == 1 + 4 + 4 + 16 + 16 + 64
        assert rows.calls == [1, 4, 16]

    def test_a_large_tree_in_portions(self) -> None:
        """Each directory once, and of those that come later no more than a few portions are held."""
        rows = Rows()
        root = self.grown(rows, 3, 14)
        seen = [(str(path), node) for path, node in walk(rows, root.node)]
        assert len(seen) == len({path for path, _ in seen}) == 2 * (14 + 14**2 + 14**3) + 1
        assert sum(rows.calls) == 1 + 14 + 14**2 + 14**3
        assert len(rows.calls) <= 3 + 14**3 // 512 + 2

    def test_wide_directories_are_few_at_a_time(self) -> None:
        """By their sizes, which are known before they are read."""
        rows = Rows()
        wide = [
            Directory({b"%d-%d" % (which, number): FileNode(EMPTY, 0) for number in range(40_000)})
            for which in range(8)
        ]
        root = Directory({b"%d" % number: each.node for number, each in enumerate(wide)})
        rows.put_many([*wide, root])
        assert sum(1 for _ in walk(rows, root.node)) == 8 * 40_001
        assert rows.calls == [1, 3, 3, 2]

    def test_what_is_met_again_is_not_read_again(self) -> None:
        rows = Rows()
        leaf = Directory({b"leaf": FileNode(EMPTY, 0)})
        below = [Directory({b"same": leaf.node, b"%d" % number: FileNode(EMPTY, 0)}) for number in range(9)]
        root = Directory({b"%d" % number: each.node for number, each in enumerate(below)})
        rows.put_many([leaf, *below, root])
        assert sum(1 for _ in walk(rows, root.node)) == 9 * 4
        assert rows.calls == [1, 9, 1]

    def test_shared_directories_without_end(self) -> None:
        """Of 2^60 entries the first ones come at once."""
        rows = Rows()
        below = Directory()
        for _ in range(60):
            directory = Directory({b"a": below.node, b"b": below.node})
            rows.put_many([below, directory])
            below = directory
        entries = walk(rows, below.node)
        assert [len(path) for path, _ in islice(entries, 1000)][:60] == list(range(1, 61))
        assert sum(rows.calls) == 61

    def test_ends(self) -> None:
        found = [(str(path), last) for path, _, last in walk_with_ends(TREE, COMPLICATED.node)]
        assert found == [(".keep", False), ("aa", False), ("keep", True), ("keep/.keep", True)]
