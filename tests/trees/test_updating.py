"""A folder that is there is brought up to date: what is right is not touched, and nothing else is lost."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, Composition, TargetError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.exporting import export_tree
from castore.trees.exports import Exported, ExportOptions
from castore.trees.importing import import_tree
from castore.trees.placing import Placing
from castore.trees.selecting import Pattern, Selection
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService

Snapshot = Callable[[Path], dict[bytes, object]]


class Trees:
    """Makes trees of mappings, and brings folders up to date with them."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobService()
        self.directories = MemoryDirectoryService()
        self.changes: list[str] = []

    def node(self, tree: Any) -> Node:
        """Bytes are a file, `(bytes,)` one that may be executed, a text a link, a mapping a directory."""
        match tree:
            case bytes():
                return FileNode(self.blobs.write(tree), len(tree))
            case (bytes() as data,):
                return FileNode(self.blobs.write(data), len(data), executable=True)
            case str():
                return SymlinkNode(SymlinkTarget(os.fsencode(tree)))
            case _:
                directory = Directory({os.fsencode(name): self.node(each) for name, each in tree.items()})
                self.directories.put(directory)
                return directory.node

    def export(self, tree: Any, target: Path, **options: Any) -> Exported:
        self.changes = []
        return export_tree(
            self.node(tree),
            target,
            self.blobs,
            self.directories,
            ExportOptions(**options),
            report=lambda letter, path: self.changes.append(f"{letter} {path}"),
        )

    def update(self, tree: Any, target: Path, **options: Any) -> Exported:
        return self.export(tree, target, update=True, **options)


@pytest.fixture
def trees() -> Trees:
    return Trees()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what shows whether something was touched."""
    return {
        str(path.relative_to(folder)): (status.st_ino, status.st_ctime_ns)
        for path in folder.rglob("*")
        if not stat.S_ISDIR((status := path.lstat()).st_mode)
    }


TREE = {"a": b"one", "run": (b"#!/bin/sh\n",), "sub": {"b": b"two", "link": "../a", "deep": {"c": b""}}}


def test_what_is_right_is_not_touched(trees: Trees, out: Path) -> None:
    """No file is opened for writing, none renamed."""
    trees.export(TREE, out)
    before = inodes(out)
    done = trees.update(TREE, out, delete=True)
    assert done == Exported(kept=5)
    assert inodes(out) == before
    assert trees.changes == []


CHANGES: list[tuple[str, Any, Any, list[str]]] = [
    ("content", b"one", b"other", ["M x"]),
    ("content of the same size", b"one", b"two", ["M x"]),
    ("may be executed", b"one", (b"one",), ["X x"]),
    ("may not be executed", (b"one",), b"one", ["X x"]),
    ("both", b"one", (b"two",), ["M x"]),
    ("link", "there", "elsewhere", ["L x"]),
    ("file to link", b"one", "there", ["T x"]),
    ("link to file", "there", b"one", ["T x"]),
    ("file to folder", b"one", {"y": b"one"}, ["T x", "A x/y"]),
    ("link to folder", "..", {"y": b"one"}, ["T x", "A x/y"]),
    ("folder to file", {"y": b"", "z": {"w": b""}}, b"one", ["D x/y", "D x/z/w", "D x/z", "D x", "T x"]),
    ("folder to link", {"y": b""}, "there", ["D x/y", "D x", "T x"]),
    ("new", None, b"one", ["A x"]),
    ("gone", b"one", None, ["D x"]),
    ("folder gone", {"y": {"z": b""}}, None, ["D x/y/z", "D x/y", "D x"]),
    ("deep", {"y": {"z": b"1"}}, {"y": {"z": b"2"}}, ["M x/y/z"]),
]


@pytest.mark.parametrize(
    ("before", "after", "changes"), [row[1:] for row in CHANGES], ids=[r[0] for r in CHANGES]
)
@pytest.mark.parametrize("dry", [False, True], ids=["done", "rehearsed"])
def test_changes(
    trees: Trees, out: Path, snapshot: Snapshot, before: Any, after: Any, changes: list[str], dry: bool
) -> None:
    """Each is told by its letter; afterwards the folder is the tree. A rehearsal tells the same."""
    rest = {"same": b"same"}
    trees.export(rest if before is None else {"x": before, **rest}, out)
    was = snapshot(out)
    tree = rest if after is None else {"x": after, **rest}
    done = trees.update(tree, out, delete=True, dry_run=dry)
    assert (trees.changes, done.lost) == (changes, ())
    if dry:
        assert snapshot(out) == was
    else:
        assert import_tree(out, trees.blobs, trees.directories).node == trees.node(tree)
    assert os.listdir(out.parent) == ["out"]


class TestWhatCannotBeHad:
    """What was there stays until all that takes its place is at hand."""

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b"mine", {"y": b"one", "z": b"gone"}),
            ("there", {"y": {"z": b"gone"}}),
            ({"y": b"mine", "z": {}}, b"gone"),
        ],
        ids=["file to folder", "link to folder", "folder to file"],
    )
    @pytest.mark.parametrize("how", ["absent", "interrupted"])
    def test_what_is_of_another_kind(
        self, trees: Trees, out: Path, snapshot: Snapshot, before: Any, after: Any, how: str
    ) -> None:
        trees.export({"x": before}, out)
        was = snapshot(out)
        node = trees.node({"x": after})
        gone = B3Digest.of(b"gone")

        class Lacking(MemoryBlobService):
            def read_many(self, digests: Any) -> Any:
                for digest, answer in trees.blobs.read_many(digests):
                    if digest == gone and how == "interrupted":
                        raise KeyboardInterrupt
                    yield digest, None if digest == gone else answer

        options = ExportOptions(update=True, delete=True)
        if how == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                export_tree(node, out, Lacking(), trees.directories, options)
        else:
            done = export_tree(node, out, Lacking(), trees.directories, options)
            assert len(done.lost) == 1
        assert snapshot(out) == was
        trees.update({"x": after}, out, delete=True)
        assert import_tree(out, trees.blobs, trees.directories).node == node

    def test_a_folder_stays_if_something_else_is_lost(self, trees: Trees, out: Path) -> None:
        """As all that --delete removes; a link, too, waits for that."""
        trees.export({"x": {"y": b"mine"}, "l": {"y": b"mine"}}, out)
        tree = {"x": trees.node(b"new"), "l": trees.node("new"), "z": FileNode(B3Digest.of(b"gone"), 4)}
        directory = Directory({name.encode(): node for name, node in tree.items()})
        trees.directories.put(directory)
        options = ExportOptions(update=True, delete=True)
        done = export_tree(directory.node, out, trees.blobs, trees.directories, options)
        assert sorted(str(each.path) for each in done.lost) == ["l", "x", "z"]
        assert (done.written, done.links, done.deleted) == (0, 0, 0)
        assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["l", "l/y", "x", "x/y"]
        options = ExportOptions(update=True, delete=True, skip_unreadable=True)
        done = export_tree(directory.node, out, trees.blobs, trees.directories, options)
        assert ([str(each.path) for each in done.lost], done.written, done.links) == (["z"], 1, 1)
        assert ((out / "x").read_bytes(), (out / "l").readlink()) == (b"new", Path("new"))

    def test_a_folder_with_something_that_is_excluded_stays(self, trees: Trees, out: Path) -> None:
        trees.export({"x": {"y": b"", "keep.o": b"mine"}}, out)
        done = trees.update({"x": b"new"}, out, delete=True, selection=RULES)
        assert "is excluded is kept" in done.lost[0].error.message
        assert [str(path.relative_to(out)) for path in out.rglob("*")] == ["x", "x/keep.o"]

    def test_what_a_killed_one_has_left_within(self, trees: Trees, out: Path) -> None:
        trees.export(TREE, out)
        (out / ".sub.castore-0123abcd/deep").mkdir(parents=True)
        (out / ".other.castore-0123abcd").mkdir()
        trees.update(TREE, out)
        assert sorted(os.listdir(out)) == [".other.castore-0123abcd", "a", "run", "sub"]


def test_what_the_tree_does_not_have_stays(trees: Trees, out: Path) -> None:
    """Unless somebody says otherwise."""
    trees.export(TREE, out)
    (out / "mine").write_bytes(b"mine")
    (out / "sub/mine").mkdir()
    assert trees.update(TREE, out) == Exported(kept=5)
    assert (out / "mine").read_bytes() == b"mine"
    assert trees.update(TREE, out, delete=True).deleted == 2
    assert sorted(os.listdir(out)) == ["a", "run", "sub"]


def test_a_folder_in_the_place_of_a_file_stays(trees: Trees, out: Path) -> None:
    """It may be somebody's, and is told."""
    trees.export({"x": {"mine": b"mine"}}, out)
    done = trees.update({"x": b"file", "y": b"other"}, out)
    assert [str(each.path) for each in done.lost] == ["x"]
    assert "--delete removes it" in done.lost[0].error.message
    assert ((out / "x/mine").read_bytes(), (out / "y").read_bytes()) == (b"mine", b"other")


def test_other_names_of_a_file_are_left_alone(trees: Trees, out: Path, tmp_path: Path) -> None:
    """Neither the bytes nor the mode of a hard link elsewhere change."""
    trees.export({"x": b"one", "y": b"one"}, out)
    (tmp_path / "mine").hardlink_to(out / "x")
    (tmp_path / "too").hardlink_to(out / "y")
    trees.update({"x": b"two", "y": (b"one",)}, out)
    assert ((out / "x").read_bytes(), (tmp_path / "mine").read_bytes()) == (b"two", b"one")
    assert stat.S_IMODE((tmp_path / "too").stat().st_mode) == 0o644
    assert stat.S_IMODE((out / "y").stat().st_mode) == 0o755


class TestLinks:
    def test_one_in_the_place_of_a_folder_is_replaced(self, trees: Trees, out: Path, tmp_path: Path) -> None:
        """Not followed."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "b").write_bytes(b"mine")
        out.mkdir()
        (out / "sub").symlink_to(outside)
        (out / "a").symlink_to(outside / "b")
        trees.update(TREE, out, delete=True)
        assert (outside / "b").read_bytes() == b"mine"
        assert os.listdir(outside) == ["b"]
        assert import_tree(out, trees.blobs, trees.directories).node == trees.node(TREE)

    def test_a_target_that_is_one(self, trees: Trees, out: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        out.symlink_to("real")
        with pytest.raises(TargetError, match="is a link; name the folder that it leads to"):
            trees.update(TREE, out)
        assert os.listdir(tmp_path / "real") == []


class TestRoots:
    def test_a_file(self, trees: Trees, out: Path) -> None:
        trees.export(b"one", out)
        trees.update(b"two", out)
        assert out.read_bytes() == b"two"
        trees.update("where", out)
        assert out.readlink() == Path("where")
        trees.update((b"two",), out)
        assert stat.S_IMODE(out.lstat().st_mode) == 0o755
        assert os.listdir(out.parent) == ["out"]

    @pytest.mark.parametrize(
        ("there", "tree", "words"), [({}, b"x", "is a folder"), (b"x", {}, "is no folder")]
    )
    def test_what_does_not_fit(self, trees: Trees, out: Path, there: Any, tree: Any, words: str) -> None:
        trees.export(there, out)
        with pytest.raises(TargetError, match=words):
            trees.update(tree, out, delete=True)

    def test_several(self, trees: Trees, out: Path) -> None:
        """What no directory of a tree has."""
        top = {b"one": trees.node({"f": b"1"}), b"two": trees.node(b"2"), b"l": trees.node("one")}
        done = export_tree(top, out, trees.blobs, trees.directories)
        assert (done.written, done.directories, done.links) == (2, 2, 1)
        assert ((out / "one/f").read_bytes(), (out / "two").read_bytes()) == (b"1", b"2")
        options = ExportOptions(update=True, delete=True)
        assert export_tree(top, out, trees.blobs, trees.directories, options) == Exported(kept=3)


SOURCES = {"keep": b"k", "x.o": b"o", "sub": {"y.o": b"o", "z": b"z"}, "build": {"w": b"w"}}
RULES = Selection([Pattern(b"*.o", "--exclude"), Pattern(b"build/", "--exclude")])


class TestSelection:
    def test_what_is_excluded_is_not_written(self, trees: Trees, out: Path) -> None:
        trees.export(SOURCES, out, selection=RULES)
        assert {str(path.relative_to(out)) for path in out.rglob("*")} == {"keep", "sub", "sub/z"}

    def test_what_is_excluded_is_not_removed(self, trees: Trees, out: Path) -> None:
        """Wherever it is; a folder that has some of it stays for it."""
        trees.export({**SOURCES, "more": {"v.o": b"", "v": b""}}, out)
        trees.update({"keep": b"k"}, out, delete=True, selection=RULES)
        left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        assert left == {"keep", "x.o", "sub/y.o", "build/w", "more/v.o"}

    def test_what_is_too_large_is_not_removed(self, trees: Trees, out: Path) -> None:
        """Also what the tree has itself."""
        trees.export({"large": b"l" * 100, "small": b"s"}, out)
        rules = Selection(larger_than=50)
        done = trees.update({"large": b"x" * 100, "small": b"t"}, out, delete=True, selection=rules)
        assert (done.written, done.deleted, (out / "large").read_bytes()) == (1, 0, b"l" * 100)


class TestDeleting:
    @pytest.mark.parametrize("where", ["home", "above", "store", "around"])
    def test_not_there(
        self, trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot, where: str
    ) -> None:
        """Not in a home, not above one, not where the blobs are; also by another way to it."""
        folder = tmp_path / "place"
        (folder / "inner").mkdir(parents=True)
        (folder / "inner/mine").write_bytes(b"mine")
        inner = where in ("above", "around")
        place = folder / "inner" if inner else folder
        protected = {}
        if where in ("home", "above"):
            monkeypatch.setenv("HOME", str(place))
        else:
            way = tmp_path / "way" / place.relative_to(tmp_path)
            protected[str(way)] = "where `root` keeps what it has"
        (tmp_path / "way").symlink_to(".")
        before = snapshot(folder)
        for target in (folder, tmp_path / "way/place"):
            with pytest.raises(TargetError, match="--delete is not for that"):
                trees.update({"x": b""}, target, delete=True, protected=protected)
        assert snapshot(folder) == before

    def test_the_root_of_all(self, trees: Trees) -> None:
        with pytest.raises(TargetError, match="the root of all"):
            trees.update({}, Path("/"), delete=True, dry_run=True)

    def test_nothing_goes_if_something_is_lost(self, trees: Trees, out: Path) -> None:
        trees.export({"mine": b"mine"}, out)
        gone = FileNode(B3Digest.of(b"gone"), 4)
        directory = Directory({b"gone": gone})
        trees.directories.put(directory)
        options = ExportOptions(update=True, delete=True)
        done = export_tree(directory.node, out, trees.blobs, trees.directories, options)
        assert (len(done.lost), os.listdir(out)) == (1, ["mine"])

    def test_links_are_removed_and_not_followed(self, trees: Trees, out: Path, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/mine").write_bytes(b"mine")
        out.mkdir()
        (out / "link").symlink_to(tmp_path / "outside")
        (out / "sub").mkdir()
        (out / "sub/link").symlink_to(tmp_path / "outside")
        assert trees.update({}, out, delete=True).deleted == 3
        assert os.listdir(tmp_path / "outside") == ["mine"]

    def test_a_folder_that_may_not_be_written_to(self, trees: Trees, out: Path) -> None:
        """As one that was made read-only."""
        trees.export(TREE, out, placing=Placing(read_only=True))
        trees.update({"sub": {}}, out, delete=True)
        assert (os.listdir(out), os.listdir(out / "sub")) == (["sub"], [])


class TestWhatWasCutShort:
    def leave(self, out: Path) -> Path:
        """Return what an export to *out* has left that was killed."""
        left = out.parent / f".{out.name}.castore-0123abcd"
        left.mkdir()
        (left / "a").write_bytes(b"on")
        (left / "sub").mkdir()
        (left / "sub/b").write_bytes(b"two")
        (left / "sub/other").write_bytes(b"of another tree")
        return left

    def test_it_is_gone_on_with(self, trees: Trees, out: Path) -> None:
        """What is right is kept, the rest written anew."""
        left = self.leave(out)
        inode = (left / "sub/b").stat().st_ino
        done = trees.update(TREE, out)
        assert (done.kept, done.written) == (1, 3)
        assert (out / "sub/b").stat().st_ino == inode
        assert import_tree(out, trees.blobs, trees.directories).node == trees.node(TREE)
        assert os.listdir(out.parent) == ["out"]

    def test_nothing_else_stays_in_it(self, trees: Trees, out: Path) -> None:
        """Neither what is excluded now, nor what is of another kind, nor what cannot be had."""
        left = self.leave(out)
        (left / "x.o").write_bytes(b"of the tree, and excluded")
        (left / "sub/mine.o").write_bytes(b"excluded, and of no tree")
        (left / "build").mkdir()
        (left / "build/w").write_bytes(b"w")
        (left / "run").mkdir()
        (left / "run/mine").write_bytes(b"in the place of a file")
        (left / "lost").write_bytes(b"old")
        (left / "sub/link").mkdir()
        tree = {**TREE, "x.o": b"o", "build": {"w": b"w"}}
        nodes = {name.encode(): trees.node(each) for name, each in tree.items()}
        nodes[b"lost"] = FileNode(B3Digest.of(b"lost"), 4)
        directory = Directory(nodes)
        trees.directories.put(directory)
        options = ExportOptions(update=True, selection=RULES, skip_unreadable=True)
        done = export_tree(directory.node, out, trees.blobs, trees.directories, options)
        assert [str(each.path) for each in done.lost] == ["lost"]
        assert import_tree(out, trees.blobs, trees.directories).node == trees.node(TREE)

    def test_that_of_one_that_was_told_other_things(self, trees: Trees, out: Path) -> None:
        """Files are as this one makes them: not read-only, and none has two names."""
        left = self.leave(out)
        (left / "sub/b").chmod(0o444)
        (left / "a").write_bytes(b"one")
        (left / "a2").hardlink_to(left / "a")
        trees.update({**TREE, "a2": b"one"}, out)
        assert (out / "a").stat().st_nlink == 1
        assert stat.S_IMODE((out / "sub/b").stat().st_mode) == 0o644

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to others")
    def test_that_of_somebody_else_is_not_gone_on_with(self, trees: Trees, out: Path) -> None:
        """Its owner could change what is written to it."""
        left = self.leave(out)
        os.chown(left, 1, 1)
        trees.update(TREE, out)
        assert sorted(os.listdir(out.parent)) == [left.name, "out"]
        assert (out.stat().st_uid, (left / "a").read_bytes()) == (0, b"on")

    def test_it_is_removed(self, trees: Trees, out: Path) -> None:
        self.leave(out)
        trees.export(TREE, out)
        assert os.listdir(out.parent) == ["out"]

    def test_that_of_another_one_that_goes_on_stays(self, trees: Trees, out: Path) -> None:
        left = self.leave(out)
        descriptor = os.open(left, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            trees.update(TREE, out)
        finally:
            os.close(descriptor)
        assert sorted(os.listdir(out.parent)) == [left.name, "out"]
        assert (left / "a").read_bytes() == b"on"

    @pytest.mark.parametrize(
        "name", [".out.castore-0123abcg", ".out.castore-0123abcd2", "out.castore-0123abcd"]
    )
    def test_names_that_are_like_it_stay(self, trees: Trees, out: Path, name: str) -> None:
        (out.parent / name).mkdir()
        trees.export(TREE, out)
        assert sorted(os.listdir(out.parent)) == sorted([name, "out"])

    def test_half_a_file_within(self, trees: Trees, out: Path) -> None:
        """The name that a file has until it is whole goes with the next run; others of that form stay."""
        trees.export(TREE, out)
        (out / ".a.castore-0123abcd").write_bytes(b"on")
        (out / ".z.castore-0123abcd").write_bytes(b"mine")
        trees.update(TREE, out)
        assert sorted(os.listdir(out)) == [".z.castore-0123abcd", "a", "run", "sub"]

    def test_two_at_once(self, trees: Trees, out: Path) -> None:
        """The second one is refused."""
        trees.export(TREE, out)
        descriptor = os.open(out, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            with pytest.raises(TargetError, match="another export is writing to it"):
                trees.update({}, out, delete=True)
        finally:
            os.close(descriptor)
        assert len(os.listdir(out)) == 3


def test_an_error_in_the_middle(stores: Composition, trees: Trees, out: Path) -> None:
    """What was there stays until what is to come is whole."""
    trees.export({"a": b"old", "b": b"old"}, out)

    class Down(MemoryBlobService):
        def read_many(self, digests: Any) -> Any:
            yield next(iter(trees.blobs.read_many(digests)))
            raise KeyboardInterrupt

    node = trees.node({"a": b"new", "b": b"newer"})
    assert isinstance(node, DirectoryNode)
    with pytest.raises(KeyboardInterrupt):
        export_tree(node, out, Down(), trees.directories, ExportOptions(update=True))
    assert {(out / name).read_bytes() for name in os.listdir(out)} == {b"new", b"old"}
    trees.update({"a": b"new", "b": b"newer"}, out)
    assert (out / "b").read_bytes() == b"newer"


def test_what_many_files_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs are asked for in few calls; a file is opened once, and one that is right is not written."""
    trees = Trees()
    tree = {f"d{n}": {f"f{n} {m}": b"%d %d" % (n, m) for m in range(100)} for n in range(50)}
    root = trees.node(tree)
    calls: list[int] = []
    opened: list[int] = []
    real = os.open

    class Counting(MemoryBlobService):
        def read_many(self, digests: Any) -> Any:
            wanted = list(digests)
            calls.append(len(wanted))
            return trees.blobs.read_many(wanted)

    def count(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        opened.append(flags & os.O_ACCMODE)
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", count)
    export_tree(root, tmp_path / "out", Counting(), trees.directories)
    assert [number for number in calls if number] == [2048, 2048, 904]
    assert len(opened) < 5_000 + 2 * 50 + 20
    calls.clear()
    opened.clear()
    done = export_tree(root, tmp_path / "out", Counting(), trees.directories, ExportOptions(update=True))
    assert (done.kept, done.written, sum(calls)) == (5_000, 0, 0)
    # One is opened to find out which names are one in the folder.
    assert [flags for flags in opened if flags != os.O_RDONLY] == [os.O_WRONLY]
