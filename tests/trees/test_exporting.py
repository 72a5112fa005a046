"""Trees into folders: the same as before, or nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import (
    B3Digest,
    BlobNotFoundError,
    Composition,
    MissingDirectoryError,
    TargetError,
    UnavailableError,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.exporting import export_tree
from castore.trees.exports import Exported, ExportOptions
from castore.trees.importing import import_tree
from castore.trees.placing import Placing
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService
from tests.format.test_nodes import NAMES, TARGETS

PLACING = attrs.fields_dict(Placing)
SKIP = ExportOptions(skip_unreadable=True)
Snapshot = Callable[[Path], dict[bytes, object]]


@pytest.fixture
def root(golden: Path, stores: Composition) -> Node:
    node = import_tree(golden, stores.blobs(), stores.directories()).node
    assert node is not None
    return node


@pytest.fixture
def exported(stores: Composition) -> Callable[..., Exported]:
    def exported(
        node: Any, target: Any, *, progress: Any = None, report: Any = None, **options: Any
    ) -> Exported:
        chosen = {name: options.pop(name) for name in PLACING if name in options}
        how = ExportOptions(placing=Placing(**chosen), **options)
        return export_tree(
            node, target, stores.blobs(), stores.directories(), how, progress=progress, report=report
        )

    return exported


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_it_is_as_it_was(
    golden: Path, root: Node, exported: Any, stores: Composition, tmp_path: Path, snapshot: Snapshot
) -> None:
    """Names, bytes, links and modes; a second import gives the same root."""
    done = exported(root, tmp_path / "out")
    assert done == Exported((), written=17, directories=8, links=4, size=3_168_991)
    assert snapshot(tmp_path / "out") == snapshot(golden)
    assert import_tree(tmp_path / "out", stores.blobs(), stores.directories()).node == root
    assert os.listdir(tmp_path) == ["out"]


def test_the_umask_counts(root: Node, exported: Any, tmp_path: Path) -> None:
    os.umask(0o077)
    exported(root, tmp_path / "out")
    modes = {
        name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("hello.txt", "run.sh", "a")
    }
    assert modes == {"hello.txt": 0o600, "run.sh": 0o700, "a": 0o700}


def test_read_only(root: Node, exported: Any, tmp_path: Path) -> None:
    exported(root, tmp_path / "out", read_only=True)
    modes = {
        name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode)
        for name in ("hello.txt", "run.sh", "a", "deep/a/b", ".")
    }
    assert modes == {"hello.txt": 0o444, "run.sh": 0o555, "a": 0o555, "deep/a/b": 0o555, ".": 0o555}


def test_a_file_and_a_link(stores: Composition, exported: Any, tmp_path: Path) -> None:
    digest = stores.blobs().write(b"#!/bin/sh\n")
    exported(FileNode(digest, 10, True), tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    exported(SymlinkNode(SymlinkTarget(b"run")), tmp_path / "link")
    assert (tmp_path / "link").readlink() == Path("run")
    assert sorted(os.listdir(tmp_path)) == ["link", "run"]


class TestTargets:
    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_what_is_there_stays(
        self, root: Node, exported: Any, tmp_path: Path, snapshot: Snapshot, kind: str
    ) -> None:
        target = tmp_path / "out"
        if kind == "file":
            target.write_bytes(b"mine")
        elif kind == "folder":
            target.mkdir()
        else:
            target.symlink_to("nowhere")
        before = snapshot(tmp_path)
        with pytest.raises(TargetError, match="it is there already"):
            exported(root, target)
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize("node", ["folder", "file", "link"])
    def test_what_comes_meanwhile_stays(self, tmp_path: Path, stores: Composition, node: str) -> None:
        """Somebody makes a file of that name just before the end."""
        blobs = stores.blobs()
        digest = blobs.write(b"data")
        nodes: dict[str, Node] = {
            "folder": Directory({b"f": FileNode(digest, 4)}).node,
            "file": FileNode(digest, 4),
            "link": SymlinkNode(SymlinkTarget(b"x")),
        }
        directories = stores.directories()
        directories.put(Directory({b"f": FileNode(digest, 4)}))
        target = tmp_path / "out"

        class Late(MemoryBlobService):
            def read_many(self, digests: Any) -> Any:
                target.write_bytes(b"mine")
                return blobs.read_many(digests)

        with pytest.raises(TargetError):
            export_tree(nodes[node], target, Late(), directories)
        assert (target.read_bytes(), os.listdir(tmp_path)) == (b"mine", ["out"])

    @pytest.mark.parametrize("name", ["none/out", "file/out", "n" * 256])
    def test_where_nothing_can_be(self, root: Node, exported: Any, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(TargetError, match="cannot write"):
            exported(root, tmp_path / name)
        assert os.listdir(tmp_path) == ["file"]

    def test_a_name_as_long_as_names_may_be(self, root: Node, exported: Any, tmp_path: Path) -> None:
        exported(root, tmp_path / ("n" * 255))
        assert os.listdir(tmp_path) == ["n" * 255]


class TestDamage:
    @pytest.fixture
    def tree(self) -> tuple[MemoryBlobService, MemoryDirectoryService, Node]:
        blobs, directories = MemoryBlobService(), MemoryDirectoryService()
        there, gone = blobs.write(b"there"), B3Digest.of(b"gone")
        sub = Directory({b"gone": FileNode(gone, 4), b"there": FileNode(there, 5)})
        root = Directory({b"sub": sub.node, b"again": FileNode(gone, 4)})
        directories.put_closure([sub, root])
        return blobs, directories, root.node

    def test_a_blob_that_is_absent(self, tree: Any, tmp_path: Path) -> None:
        """All places are told that need it, and nothing is made."""
        blobs, directories, root = tree
        done = export_tree(root, tmp_path / "out", blobs, directories)
        assert sorted(str(each.path) for each in done.lost) == ["again", "sub/gone"]
        assert all(isinstance(each.error, BlobNotFoundError) for each in done.lost)
        assert os.listdir(tmp_path) == []

    def test_without_it(self, tree: Any, tmp_path: Path, snapshot: Snapshot) -> None:
        blobs, directories, root = tree
        done = export_tree(root, tmp_path / "out", blobs, directories, SKIP)
        assert len(done.lost) == 2
        assert snapshot(tmp_path / "out") == {b"sub": "0o40755", b"sub/there": ("0o100644", b"there")}

    def test_a_chunk_that_is_corrupt(self, tmp_path: Path) -> None:
        """No byte of the file stays, also of one that was half written."""
        tables = {
            "root": {"type": "objectstore", "object_store_url": "file:./store", "durability": "process"}
        }
        with Composition.from_mapping({"blobservices": tables}, base=tmp_path) as stores:
            blobs, directories = stores.blobs(), stores.directories()
            data = os.urandom(3 << 20)
            digest = blobs.write(data)
            last = (blobs.chunks(digest) or ())[-1].digest
            path = tmp_path / "store/chunks/b3" / str(last)[:4] / str(last)
            path.write_bytes(path.read_bytes()[:-1])
            root = Directory({b"big": FileNode(digest, len(data))})
            directories.put(root)
            done = export_tree(root.node, tmp_path / "out", blobs, directories, SKIP)
        assert [str(each.path) for each in done.lost] == ["big"]
        assert os.listdir(tmp_path / "out") == []

    def test_a_directory_that_is_gone(self, tree: Any, tmp_path: Path) -> None:
        blobs, _, root = tree
        with pytest.raises(MissingDirectoryError):
            export_tree(root, tmp_path / "out", blobs, MemoryDirectoryService())
        assert os.listdir(tmp_path) == []

    def test_a_service_that_is_down(self, tree: Any, tmp_path: Path) -> None:
        _, directories, root = tree

        class Down(MemoryBlobService):
            def read_many(self, digests: Any) -> Any:
                yield from ((digest, UnavailableError("far", "down")) for digest in digests)

        with pytest.raises(UnavailableError, match="far"):
            export_tree(root, tmp_path / "out", Down(), directories, SKIP)
        assert os.listdir(tmp_path) == []

    def test_an_interrupt(self, root: Node, exported: Any, tmp_path: Path) -> None:
        """Nothing is left, though half of it was written; no descriptor either."""
        before = len(os.listdir("/proc/self/fd"))

        def interrupt(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            exported(root, tmp_path / "out", progress=interrupt)
        assert os.listdir(tmp_path) == []
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_in_the_way_is_not_followed(root: Node, stores: Composition, tmp_path: Path) -> None:
    """That somebody makes one where a file is about to be made is an error; nothing is written there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    blobs = stores.blobs()
    put: list[str] = []

    class Swapping(MemoryBlobService):
        def read_many(self, digests: Any) -> Any:
            (built,) = (path for path in tmp_path.iterdir() if path.name.startswith(".out"))
            for name in ("hello.txt", "empty", "text.txt"):
                (built / name).symlink_to(outside / name)
                put.append(name)
            os.rename(built / "deep", built / "deep-was")
            (built / "deep").symlink_to(outside)
            return blobs.read_many(digests)

    with pytest.raises(TargetError, match="cannot write"):
        export_tree(root, tmp_path / "out", Swapping(), stores.directories())
    assert put
    assert os.listdir(outside) == []
    assert os.listdir(tmp_path) == ["outside"]


def test_a_file_in_the_way_is_not_written_to(root: Node, stores: Composition, tmp_path: Path) -> None:
    """It may be another name of a file elsewhere."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    blobs = stores.blobs()

    class Linking(MemoryBlobService):
        def read_many(self, digests: Any) -> Any:
            (built,) = (path for path in tmp_path.iterdir() if path.name.startswith(".out"))
            (built / "hello.txt").hardlink_to(outside)
            return blobs.read_many(digests)

    with pytest.raises(TargetError, match="cannot write"):
        export_tree(root, tmp_path / "out", Linking(), stores.directories())
    assert outside.read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["outside"]


TREES = st.recursive(
    st.one_of(
        st.binary(max_size=20),
        st.builds(
            SymlinkNode,
            TARGETS.map(lambda target: SymlinkTarget(target[:20])),
        ),
    ),
    lambda inner: st.dictionaries(NAMES.filter(lambda name: len(name) < 50), inner, max_size=4),
    max_leaves=10,
).filter(lambda tree: isinstance(tree, dict))


@settings(max_examples=30, deadline=None)
@given(TREES)
def test_any_tree_goes_out_and_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    blobs, directories = MemoryBlobService(), MemoryDirectoryService()

    def node_of(tree: Any) -> Node:
        if isinstance(tree, bytes):
            return FileNode(blobs.write(tree), len(tree), bool(len(tree) % 2))
        if isinstance(tree, SymlinkNode):
            return tree
        directory = Directory({name: node_of(each) for name, each in tree.items()})
        directories.put(directory)
        return DirectoryNode(directory.digest, directory.size)

    root = node_of(tree)
    target = tmp_path_factory.mktemp("out") / "t"
    export_tree(root, target, blobs, directories)
    assert import_tree(target, blobs, directories).node == root
