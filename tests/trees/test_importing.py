"""Folders into trees: the reference's digests, and nothing that is half right."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, Composition, SourceError, UnavailableError
from castore.contract.directories import DirectoryService, DirectoryWriter
from castore.contract.inputs import InputFile
from castore.digest import EMPTY
from castore.directories.writing import BatchedDirectoryWriter
from castore.format.nodes import DirectoryNode, FileNode, SymlinkNode, TreePath
from castore.trees.folders import OpenTree, remove_within
from castore.trees.importing import Imported, import_tree
from castore.trees.walking import descend_to, walk
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService
from tests.format.test_directories import COMPLICATED
from tests.trees.conftest import ROOT

Import = Callable[..., Imported]


@pytest.fixture
def imported(stores: Composition) -> Import:
    def imported(source: Any, **options: Any) -> Imported:
        return import_tree(source, stores.blobs(), stores.directories(), **options)

    return imported


COMPOSITIONS: dict[str, dict[str, Any]] = {
    "memory": {
        "blobservices": {"root": {"type": "memory"}},
        "directoryservices": {"root": {"type": "memory"}},
    },
    "objectstore": {
        "blobservices": {
            "root": {"type": "objectstore", "object_store_url": "file:./store", "durability": "process"}
        }
    },
    "sqlite": {"blobservices": {"root": {"type": "sqlite", "path": "blobs.sqlite"}}},
    "cache": {
        "blobservices": {
            "root": {"type": "cache", "near": "&near", "far": "&far", "write": "both"},
            "near": {"type": "memory"},
            "far": {"type": "objectstore", "object_store_url": "file:./store", "durability": "process"},
        }
    },
}


@pytest.mark.parametrize("tables", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_the_root_is_that_of_the_reference(golden: Path, tmp_path: Path, tables: dict[str, Any]) -> None:
    """Wherever blobs and directories go; every blob and directory of it is there then."""
    with Composition.from_mapping(tables, base=tmp_path) as stores:
        blobs, directories = stores.blobs(), stores.directories()
        done = import_tree(golden, blobs, directories)
        assert isinstance(done.node, DirectoryNode)
        assert str(done.node.digest) == ROOT
        assert done == Imported(done.node, (), files=17, directories=8, links=4, size=3_168_991)
        below = dict(walk(directories, done.node))
        files = {node.digest for node in below.values() if isinstance(node, FileNode)}
        assert blobs.missing(files) == set()
        assert len(list(directories.closure(done.node.digest) or ())) == 7


def test_the_vectors_of_the_reference(tmp_path: Path, imported: Import) -> None:
    (tmp_path / "t/keep").mkdir(parents=True)
    (tmp_path / "t/.keep").touch()
    (tmp_path / "t/keep/.keep").touch()
    (tmp_path / "t/aa").symlink_to("/nix/store/somewhereelse")
    assert imported(tmp_path / "t").node == COMPLICATED.node


@pytest.mark.parametrize("text", ["{}", "{}/.", "{}/keep/..", "{}//"])
def test_how_the_source_is_written_makes_no_difference(golden: Path, imported: Import, text: str) -> None:
    node = imported(text.format(golden)).node
    assert isinstance(node, DirectoryNode)
    assert str(node.digest) == ROOT


def test_the_current_folder(golden: Path, imported: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(golden)
    node = imported(".").node
    assert isinstance(node, DirectoryNode)
    assert str(node.digest) == ROOT


def test_a_file_and_a_link(golden: Path, imported: Import) -> None:
    """They are roots, too; a link is not followed, not even one to a folder."""
    assert imported(golden / "run.sh").node == FileNode(B3Digest.of(b"#!/bin/sh\necho hi\n"), 18, True)
    (golden.parent / "to-folder").symlink_to("tree")
    node = imported(golden.parent / "to-folder").node
    assert isinstance(node, SymlinkNode)
    assert node.target == b"tree"


def test_an_empty_folder(tmp_path: Path, imported: Import) -> None:
    (tmp_path / "e").mkdir()
    assert imported(tmp_path / "e") == Imported(DirectoryNode(EMPTY, 0), (), 0, 1, 0, 0)


def test_the_owners_right_to_execute_counts(tmp_path: Path, imported: Import, stores: Composition) -> None:
    for name, mode in (("none", 0o644), ("owner", 0o744), ("others", 0o655)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    node = imported(tmp_path).node
    below = {str(path): each for path, each in walk(stores.directories(), node)}  # type: ignore[arg-type]
    assert {name for name, each in below.items() if isinstance(each, FileNode) and each.executable} == {
        "owner"
    }


def test_holes_are_zeros(tmp_path: Path, imported: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root is that of a folder in which they were written, and they are not read for it."""
    for name in ("sparse", "dense"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "disk.img").open("wb") as file:
            if name == "dense":
                file.write(bytes(64 << 20))
            for place in (0, 40 << 20):
                file.seek(place)
                file.write(b"data" * (16 << 10))
            file.truncate(64 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.utime(tmp_path / name / "disk.img", (1_600_000_000, 1_600_000_000))
    dense = imported(tmp_path / "dense")
    if (tmp_path / "sparse/disk.img").stat().st_blocks * 512 == 64 << 20:
        pytest.skip("this file system has no holes")
    counts: list[int] = []
    read = InputFile._read

    def counted(file: InputFile, buffer: memoryview) -> int | None:
        counts.append(read(file, buffer) or 0)
        return counts[-1]

    monkeypatch.setattr(InputFile, "_read", counted)
    assert imported(tmp_path / "sparse").node == dense.node
    # Once to see whether it is known, and once more at most.
    assert 0 < sum(counts) <= 2 * 2 * (64 << 10)


def test_what_is_not_there(tmp_path: Path, imported: Import) -> None:
    for path in (tmp_path / "none", tmp_path / "none/below", "a\0b"):
        with pytest.raises(SourceError, match="cannot read"):
            imported(path)


class TestProblems:
    @pytest.fixture
    def odd(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "odd"
        (folder / "sub").mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
        os.mkfifo(folder / "sub/pipe")
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(folder / "socket"))
            yield folder

    def test_all_are_told_and_there_is_no_root(self, odd: Path, imported: Import) -> None:
        done = imported(odd)
        assert done.node is None
        assert [(each.path, each.kind) for each in done.problems] == [
            (b"socket", "special"),
            (b"sub/pipe", "special"),
        ]
        assert "is a pipe" in done.problems[1].message

    def test_a_root_without_them(self, odd: Path, imported: Import) -> None:
        """If that is asked for; it is the same as if they had not been there."""
        skipped = imported(odd, skip_unreadable=True)
        assert len(skipped.problems) == 2
        quiet = imported(odd, skip_special=True)
        assert (quiet.problems, quiet.node) == ((), skipped.node)
        (odd / "sub/pipe").unlink()
        (odd / "socket").unlink()
        assert imported(odd).node == skipped.node

    def test_what_goes_away_meanwhile(self, golden: Path, tmp_path: Path, imported: Import) -> None:
        """A file that was there when its name was read."""
        (tmp_path / "gone").touch()

        def met(path: bytes) -> None:
            (tmp_path / os.fsdecode(path)).unlink()

        done = imported(tmp_path, met=met)
        assert [(each.path, each.kind) for each in done.problems] == [(b"gone", "unreadable")]
        assert "'gone'" in done.problems[0].message

    @pytest.mark.parametrize("target", ["/etc/hostname", "other", "nowhere", "/dev/zero"])
    def test_a_link_put_in_the_place_of_a_file(self, tmp_path: Path, imported: Import, target: str) -> None:
        """It is not followed."""
        folder = tmp_path / "f"
        folder.mkdir()
        (folder / "file").write_bytes(b"data")
        (folder / "other").write_bytes(b"other")

        def met(path: bytes) -> None:
            if path == b"file":
                (folder / "file").unlink()
                (folder / "file").symlink_to(target)

        done = imported(folder, met=met)
        assert [(each.path, each.kind) for each in done.problems] == [(b"file", "unreadable")]

    def test_a_link_put_in_the_place_of_a_folder(self, tmp_path: Path, imported: Import) -> None:
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "key").write_bytes(b"key")
        folder = tmp_path / "f"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub/key").write_bytes(b"harmless")
        (folder / "a").write_bytes(b"a")

        def met(path: bytes) -> None:
            if path == b"a":
                os.rename(folder / "sub", folder / "was")
                (folder / "sub").symlink_to(secret)

        done = imported(folder, met=met)
        assert [(each.path, each.kind) for each in done.problems] == [(b"sub", "unreadable")]

    def test_a_pipe_put_in_the_place_of_a_file(self, tmp_path: Path, imported: Import) -> None:
        """Nobody waits for what it might give."""
        (tmp_path / "file").write_bytes(b"data")

        def met(path: bytes) -> None:
            (tmp_path / "file").unlink()
            os.mkfifo(tmp_path / "file")

        done = imported(tmp_path, met=met)
        assert [each.kind for each in done.problems] == ["unreadable"]
        assert "no regular file any more" in done.problems[0].message

    def test_a_file_that_is_written_to_all_the_time(self, tmp_path: Path, imported: Import) -> None:
        path = tmp_path / "log"
        path.write_bytes(bytes(4 << 20))

        def progress(_: int) -> None:
            with path.open("ab") as file:
                file.write(b"x")

        done = imported(tmp_path, progress=progress)
        assert (done.node, [each.kind for each in done.problems]) == (None, ["changed"])


def test_the_size_is_that_of_the_bytes(tmp_path: Path, imported: Import, stores: Composition) -> None:
    """Of a file that grows before it is read, the node has what was read."""
    (tmp_path / "file").write_bytes(b"short")
    done = imported(tmp_path, met=lambda _: (tmp_path / "file").write_bytes(b"somewhat longer"))
    node = descend_to(stores.directories(), done.node, TreePath.parse("file"))  # type: ignore[arg-type]
    assert node == FileNode(B3Digest.of(b"somewhat longer"), 15)


def test_a_deep_tree(tmp_path: Path, imported: Import, stores: Composition) -> None:
    """Deeper than Python recurses, and than folders may be open."""
    depth = 1500
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    with open("leaf", "wb", opener=lambda path, flags: os.open(path, flags, 0o644, dir_fd=at)) as file:
        file.write(b"leaf")
    os.close(at)
    try:
        done = imported(tmp_path)
        assert (done.directories, done.files, done.problems) == (depth + 1, 1, ())
        assert len(list(walk(stores.directories(), done.node))) == depth + 1  # type: ignore[arg-type]
    finally:
        with OpenTree(os.fsencode(tmp_path)) as above:
            remove_within(above, b"d")


def test_many_folders_with_a_file_each(tmp_path: Path, imported: Import) -> None:
    """Whose files are under way together: more folders than may be open."""
    for number in range(1500):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/file").write_bytes(b"%d" % number)
    done = imported(tmp_path)
    assert (done.files, done.directories, done.problems) == (1500, 1501, ())


def test_files_and_directories_go_together() -> None:
    """Of 500 files in 50 folders neither makes a call of its own."""
    calls: list[int] = []

    class Counting(MemoryDirectoryService):
        def put_many(self, directories: Any) -> None:
            calls.append(len(directories))
            super().put_many(directories)

    class Blobs(MemoryBlobService):
        def put_chunks(self, chunks: Any) -> None:
            calls.append(-len(chunks))
            super().put_chunks(chunks)

    with tempfile.TemporaryDirectory() as folder:
        for number in range(50):
            (Path(folder) / f"{number}").mkdir()
            for other in range(10):
                (Path(folder) / f"{number}/{other}").write_bytes(b"%d %d" % (number, other))
        import_tree(folder, Blobs(), Counting())
    assert [count for count in calls if count > 0] == [51]
    assert sum(count for count in calls if count < 0) == -500
    assert len(calls) <= 4


class TestFailures:
    def test_a_service_that_is_down(self, golden: Path) -> None:
        class Down(MemoryDirectoryService):
            def put_many(self, directories: Any) -> None:
                raise UnavailableError("trees", "down")

        with pytest.raises(UnavailableError, match="trees"):
            import_tree(golden, MemoryBlobService(), Down())

    def test_what_was_begun_is_aborted(self, tmp_path: Path) -> None:
        """The writer of directories is told, as it may hold something."""
        aborted: list[bool] = []

        class Noting(BatchedDirectoryWriter):
            def abort(self) -> None:
                aborted.append(True)
                super().abort()

        class Service(MemoryDirectoryService):
            def open_write(self) -> DirectoryWriter:
                return Noting(self)

        class Down(MemoryBlobService):
            def put_indexes(self, blobs: Any) -> None:
                raise UnavailableError("blobs", "down")

        (tmp_path / "a").mkdir()  # A directory is complete before the first file fails.
        (tmp_path / "b").write_bytes(b"b")
        with pytest.raises(UnavailableError):
            import_tree(tmp_path, Down(), Service())
        assert aborted == [True]

    def test_an_interrupt_leaves_no_root(self, golden: Path) -> None:
        """And no descriptor."""
        directories: DirectoryService = MemoryDirectoryService()
        before = len(os.listdir("/proc/self/fd"))

        def met(path: bytes) -> None:
            if path == b"text.txt":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_tree(golden, MemoryBlobService(), directories, met=met)
        assert directories.get(B3Digest.parse(ROOT)) is None
        assert len(os.listdir("/proc/self/fd")) == before


def test_progress(golden: Path, imported: Import) -> None:
    sizes: list[int] = []
    met: list[bytes] = []
    done = imported(golden, progress=sizes.append, met=met.append)
    assert sum(sizes) == done.size
    assert len(met) == done.files
    assert met.index(b"deep/a/two") < met.index(b"deep/one")
