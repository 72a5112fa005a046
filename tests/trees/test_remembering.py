"""An export does not read again what it has written, or found right; and it sees each change all the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore.format.directories import Directory
from castore.format.nodes import FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.exporting import export_tree
from castore.trees.exports import Exported, ExportOptions
from castore.trees.importing import import_tree
from castore.trees.known_files import KnownFiles
from castore.trees.metadata import EntryMetadata
from castore.trees.placing import Placing
from castore.trees.preserving import Preserving
from castore.trees.remembering import mark
from castore.trees.selecting import Pattern, Selection
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService

OLD = 1_600_000_000 * 10**9


class Bench:
    """A tree, the folder that it is exported to, and what is known of that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.blobs = MemoryBlobService()
        self.directories = MemoryDirectoryService()
        sub = self.put({b"f%d" % n: self.file(b"%d" % n) for n in range(20)})
        self.root = self.put(
            {
                b"a": self.file(b"one"),
                b"link": SymlinkNode(SymlinkTarget(b"a")),
                b"run": self.file(b"#!", executable=True),
                b"sub": sub,
            }
        )
        self.hashed: list[int] = []

    def file(self, data: bytes, *, executable: bool = False) -> FileNode:
        return FileNode(self.blobs.write(data), len(data), executable)

    def put(self, nodes: dict[bytes, Node]) -> Node:
        directory = Directory(nodes)
        self.directories.put(directory)
        return directory.node

    def export(self, progress: Callable[[int], object] | None = None, **options: Any) -> Exported:
        self.hashed.clear()
        with KnownFiles(self.folder / "known.sqlite") as known:
            how = ExportOptions(known_files=known, update=self.out.exists(), **options)
            return export_tree(self.root, self.out, self.blobs, self.directories, how, progress=progress)

    @property
    def is_right(self) -> bool:
        return import_tree(self.out, self.blobs, self.directories).node == self.root


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    real = "castore.trees.filling.digest_of_file"
    from castore.trees.placing import digest_of_file  # noqa: PLC0415 - the one that is counted

    def count(descriptor: int) -> Any:
        bench.hashed.append(descriptor)
        return digest_of_file(descriptor)

    monkeypatch.setattr(real, count)
    return bench


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_what_was_written_is_not_read(bench: Bench) -> None:
    """Neither the next time, nor after that."""
    assert bench.export().written == 22
    for _ in range(2):
        assert bench.export() == Exported(kept=23)
        assert bench.hashed == []


def test_what_was_found_right_is_not_read_again(bench: Bench) -> None:
    """If it was older than a moment then: what was just written might be written to once more."""
    export_tree(bench.root, bench.out, bench.blobs, bench.directories)
    bench.export()
    assert len(bench.hashed) == 22
    for path in bench.out.rglob("*"):
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)
    before = time.time_ns
    later = before() + 10**10
    bench.export()
    assert len(bench.hashed) == 22
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: later)
        bench.export()
    assert len(bench.hashed) == 22
    bench.export()
    assert bench.hashed == []


def rewrite(path: Path) -> None:
    path.write_bytes(b"9" * path.stat().st_size)


def rewrite_with_its_time(path: Path) -> None:
    status = path.stat()
    rewrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"other")


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes": rewrite,
    "other bytes, and the same time": rewrite_with_its_time,
    "another file": replace,
    "a link": lambda path: (path.unlink(), path.symlink_to("a")),
    "gone": lambda path: path.unlink(),
    "may be executed": lambda path: path.chmod(0o755),
    "a stranger beside it": lambda path: path.with_name("stranger").touch(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_seen(bench: Bench, change: Callable[[Path], object]) -> None:
    """At once, and only they are written."""
    bench.export()
    bench.export()
    change(bench.out / "sub/f3")
    assert not bench.is_right
    assert bench.export(delete=True).written <= 1
    assert bench.is_right
    assert len(bench.hashed) <= 1
    assert bench.export(delete=True) == Exported(kept=23)


def test_writes_within_a_tick_are_seen(bench: Bench) -> None:
    """A file that is written to right after it was exported, and has as many bytes as before."""
    bench.export()
    file = bench.out / "sub/f15"

    def write(_: int) -> None:
        if file.exists():
            with file.open("r+b") as opened:
                opened.write(b"99")

    for number in range(60):
        file.unlink()
        bench.export(progress=write)
        assert file.read_bytes() == b"99"
        assert bench.export().written == 1, number


def test_a_file_is_older_than_any_later_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of its file system, however coarse; where another machine has it nobody relies on it."""
    file = bench.folder / "f"
    with file.open("wb") as opened:
        opened.write(b"x")
        opened.flush()
        before = os.fstat(opened.fileno())
        assert mark(opened.fileno()) == (before.st_ino, before.st_mtime_ns - 1)
        assert file.stat().st_mtime_ns == before.st_mtime_ns - 1
        monkeypatch.setattr("castore.trees.remembering.is_of_network", lambda _: True)
        assert mark(opened.fileno()) is None


def test_another_tree(bench: Bench) -> None:
    """What is known of files is theirs, whatever tree they are to be."""
    bench.export()
    top = {b"a": bench.file(b"two"), b"sub": bench.put({b"f1": bench.file(b"1"), b"f2": bench.file(b"x")})}
    bench.root = bench.put(dict(top))
    assert bench.export(delete=True).written == 2
    assert (bench.is_right, bench.hashed) == (True, [])
    assert bench.export(delete=True) == Exported(kept=3)


def test_what_is_excluded(bench: Bench) -> None:
    rules = Selection([Pattern(b"f1*", "--exclude")])
    bench.export(selection=rules)
    (bench.out / "sub/f10").write_bytes(b"mine")
    assert bench.export(selection=rules, delete=True) == Exported(kept=12)
    assert (bench.hashed, (bench.out / "sub/f10").read_bytes()) == ([], b"mine")
    bench.export()
    assert bench.is_right


@pytest.mark.parametrize("mask", [0o022, 0o177])
def test_imports_know_nothing_of_it(bench: Bench, mask: int) -> None:
    """Also where no file can be made such that its owner may execute it."""
    os.umask(mask)
    bench.export()
    os.umask(0o022)
    fresh = import_tree(bench.out, bench.blobs, bench.directories)
    with KnownFiles(bench.folder / "known.sqlite") as known:
        done = import_tree(bench.out, bench.blobs, bench.directories, known_files=known)
    assert (done.known, done.node) == (0, fresh.node)
    bench.export()
    assert bench.is_right


def test_what_is_given_later(bench: Bench) -> None:
    """Times and names of one file change what a file is, and that is seen."""
    entries = [EntryMetadata((), "dir"), EntryMetadata((b"a",), "file", time=OLD)]  # type: ignore[arg-type]
    bench.export(preserving=Preserving(entries, frozenset({"times"})))
    assert bench.export(preserving=Preserving(entries, frozenset({"times"}))).written == 0
    assert (bench.out / "a").stat().st_mtime_ns == OLD
    assert bench.is_right


def test_read_only(bench: Bench) -> None:
    """What somebody may write to since is not right."""
    bench.export(placing=Placing(read_only=True))
    (bench.out / "sub").chmod(0o755)
    (bench.out / "sub/f3").chmod(0o644)
    bench.export(placing=Placing(read_only=True))
    assert (bench.out / "sub/f3").stat().st_mode & 0o222 == 0


def test_a_rehearsal_remembers_nothing(bench: Bench) -> None:
    export_tree(bench.root, bench.out, bench.blobs, bench.directories)
    bench.export(dry_run=True)
    bench.export(dry_run=True)
    assert len(bench.hashed) == 22
