"""Whatever a tree has in it, and whatever somebody does in the target: nothing outside is touched."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from castore import CastoreError, CorruptDirectoryError, InvalidDirectoryError, TargetError
from castore.directories.in_blobs import BlobsDirectoryService
from castore.format.directories import Directory, encode
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.exporting import export_tree
from castore.trees.exports import ExportOptions
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService

Snapshot = Callable[[Path], dict[bytes, object]]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    for name in ("f0", "f1", "sub/f0", "sub/f1", "surplus"):
        (folder / name).write_bytes(b"mine")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


NAMES: dict[str, bytes] = {
    "dot-dot": b"..",
    "dot": b".",
    "slash": b"a/b",
    "out": b"../outside/f0",
    "absolute": b"/etc/passwd",
    "null": b"a\0b",
    "empty": b"",
    "too-long": b"n" * 256,
}


class TestHostileTrees:
    @pytest.mark.parametrize("kind", ["file", "link", "directory"])
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    @pytest.mark.parametrize("update", [False, True])
    def test_names(
        self, tmp_path: Path, outside: Path, snapshot: Snapshot, name: bytes, kind: str, update: bool
    ) -> None:
        """Such a directory is damaged; what was written of others goes."""
        blobs = MemoryBlobService()
        directories = BlobsDirectoryService(blobs)
        data = blobs.write(b"theirs")
        nodes: dict[str, Node] = {
            "file": FileNode(data, 6),
            "link": SymlinkNode(SymlinkTarget(b"x")),
            "directory": DirectoryNode(blobs.write(b""), 0),
        }
        bad: Mapping[Any, Node] = {name: nodes[kind]}
        sub = DirectoryNode(blobs.write(encode(bad)), 1)
        top = Directory({b"a": FileNode(data, 6), b"sub": sub})
        directories.put_many([top])
        target = tmp_path / "out"
        if update:
            target.mkdir()
        before = snapshot(tmp_path)
        with pytest.raises(CorruptDirectoryError):
            export_tree(top.node, target, blobs, directories, ExportOptions(update=update))
        assert {key: it for key, it in snapshot(tmp_path).items() if not key.startswith(b"out/")} == before

    @pytest.mark.parametrize("target", [b"../outside", b"/", b"..", b"sub", b"."])
    def test_links_out_of_the_tree_are_made_and_never_followed(
        self, tmp_path: Path, outside: Path, out: Path, snapshot: Snapshot, target: bytes
    ) -> None:
        """Also when a link of one run is where a folder of the next one should be."""
        blobs, directories = MemoryBlobService(), MemoryDirectoryService()
        file = FileNode(blobs.write(b"theirs"), 6)
        sub = Directory({b"f0": file, b"new": file})
        first = Directory(
            {b"x": SymlinkNode(SymlinkTarget(target)), b"y": SymlinkNode(SymlinkTarget(target))}
        )
        second = Directory({b"x": sub.node, b"y": file})
        directories.put_closure([sub, second])
        directories.put(first)
        before = snapshot(outside)
        export_tree(first.node, out, blobs, directories)
        assert os.readlink(os.fsencode(out / "x")) == target
        export_tree(second.node, out, blobs, directories, ExportOptions(update=True))
        assert sorted(os.listdir(out / "x")) == ["f0", "new"]
        assert snapshot(outside) == before

    def chain(self, levels: int) -> tuple[MemoryDirectoryService, Node]:
        directories = MemoryDirectoryService()
        directory = Directory()
        directories.put(directory)
        for _ in range(levels):
            directory = Directory({b"d": directory.node})
            directories.put(directory)
        return directories, directory.node

    def test_many_levels(self, tmp_path: Path, out: Path) -> None:
        """As many as `walk` goes down are made, though their path is longer than paths may be."""
        directories, root = self.chain(2_500)
        assert export_tree(root, out, MemoryBlobService(), directories).directories == 2_501
        options = ExportOptions(update=True, delete=True)
        assert export_tree(Directory(), out, MemoryBlobService(), directories, options).deleted == 2_500
        assert os.listdir(out) == []

    def test_too_many_levels(self, tmp_path: Path, out: Path) -> None:
        """Nothing stays; takes its time to make 4,096 of them."""
        directories, root = self.chain(5_000)
        with pytest.raises(InvalidDirectoryError, match="more than 4096 levels"):
            export_tree(root, out, MemoryBlobService(), directories)
        assert os.listdir(tmp_path) == []

    @pytest.mark.long
    def test_a_million_levels(self, tmp_path: Path, out: Path) -> None:
        directories, root = self.chain(1_000_000)
        with pytest.raises(InvalidDirectoryError, match="more than 4096 levels"):
            export_tree(root, out, MemoryBlobService(), directories)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("size", [0, 3, 100])
    def test_a_wrong_size(self, out: Path, size: int) -> None:
        """What the tree says of a file is not what its blob has: it is told, and nothing is made."""
        blobs, directories = MemoryBlobService(), MemoryDirectoryService()
        top = Directory({b"f": FileNode(blobs.write(b"data"), size)})
        directories.put(top)
        done = export_tree(top.node, out, blobs, directories)
        assert [each.error.message for each in done.lost] == [
            f"the tree gives it {size} bytes, and its blob has 4"
        ]
        assert not out.exists()


class Swapper:
    """Somebody who puts links to a folder in the place of what is in another one, over and over."""

    def __init__(self, target: Path, outside: Path) -> None:
        self.target, self.outside = target, outside
        self.swaps = 0
        self._stop = threading.Event()

    def swap(self) -> None:
        for name, where in (
            ("sub", self.outside),
            ("f0", self.outside / "f0"),
            ("sub/f1", self.outside / "f1"),
        ):
            for folder in self.folders():
                path, aside = folder / name, folder / "aside"
                with contextlib.suppress(OSError):
                    path.rename(aside)
                with contextlib.suppress(OSError):
                    path.symlink_to(where)
                    self.swaps += 1
                with contextlib.suppress(OSError):
                    # What is in its place by now is of the export, or the link.
                    if path.is_symlink():
                        path.unlink()
                    aside.rename(path)

    def folders(self) -> Iterator[Path]:
        yield self.target
        with contextlib.suppress(OSError):
            yield from self.target.parent.glob(f".{self.target.name}.castore-*")

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        def work() -> None:
            while not self._stop.is_set():
                self.swap()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def race(tmp_path: Path, outside: Path, rounds: int, before: object, snapshot: Snapshot) -> int:
    blobs, directories = MemoryBlobService(), MemoryDirectoryService()

    def tree(number: int) -> Node:
        files = {
            b"f%d" % n: FileNode(blobs.write(data := b"%d %d" % (number, n)), len(data)) for n in range(4)
        }
        sub = Directory(files)
        top = Directory({**files, b"sub": sub.node, b"surplus2": sub.node} if number % 2 else files)
        directories.put_closure([sub, top] if number % 2 else [top])
        return top.node

    swapper = Swapper(tmp_path / "out", outside)
    with swapper.at_work():
        for number in range(rounds):
            options = ExportOptions(update=True, delete=True)
            with contextlib.suppress(CastoreError):
                export_tree(tree(number), swapper.target, blobs, directories, options)
            assert snapshot(outside) == before
    return swapper.swaps


def test_links_that_are_put_in_the_way(tmp_path: Path, outside: Path, snapshot: Snapshot) -> None:
    """While files are written, and while the surplus is removed."""
    assert race(tmp_path, outside, 400, snapshot(outside), snapshot) > 0


@pytest.mark.long
def test_links_that_are_put_in_the_way_200_times(tmp_path: Path, outside: Path, snapshot: Snapshot) -> None:
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert race(folder, outside, 200, snapshot(outside), snapshot) > 200


@pytest.mark.parametrize("delete", [False, True])
def test_a_link_in_the_place_of_a_folder_that_was_entered(
    tmp_path: Path, outside: Path, out: Path, snapshot: Snapshot, delete: bool
) -> None:
    """At the worst moment: after the folder was looked at, before its files are written."""
    blobs, directories = MemoryBlobService(), MemoryDirectoryService()
    file = FileNode(blobs.write(b"theirs"), 6)
    sub = Directory({b"f0": file, b"new": file})
    top = Directory({b"sub": sub.node, b"f0": file})
    directories.put_closure([sub, top])
    (out / "sub/surplus").mkdir(parents=True)
    before = snapshot(outside)

    class Swapping(MemoryBlobService):
        def read_many(self, digests: Any) -> Any:
            os.rename(out / "sub", tmp_path / "aside")
            (out / "sub").symlink_to(outside)
            (out / "f0").symlink_to(outside / "f0")
            return blobs.read_many(digests)

    options = ExportOptions(update=True, delete=delete)
    # What was entered is still the folder that it was, wherever it is now.
    with contextlib.suppress(TargetError):
        export_tree(top.node, out, Swapping(), directories, options)
    assert snapshot(outside) == before
    assert not (out / "f0").is_symlink()
