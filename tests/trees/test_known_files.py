"""Files that are known are not read, and what is known is never wrong."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, Composition
from castore.contract.directories import DirectoryService
from castore.contract.inputs import FileAt
from castore.format import directories as format_directories
from castore.format.nodes import DirectoryNode, FileNode
from castore.trees.importing import Imported, import_tree
from castore.trees.known_files import COMPARED, KnownFiles
from castore.trees.walking import walk

HOUR = 3600 * 10**9

COMPOSITIONS: dict[str, dict[str, Any]] = {
    "memory": {"blobservices": {"root": {"type": "memory"}}},
    "objectstore": {
        "blobservices": {
            "root": {"type": "objectstore", "object_store_url": "file:./store", "durability": "process"}
        }
    },
    "closures": {
        "blobservices": {"root": {"type": "memory"}},
        "directoryservices": {
            "root": {"type": "objectstore", "object_store_url": "file:./store", "durability": "process"}
        },
    },
    "rows": {
        "blobservices": {"root": {"type": "sqlite", "path": "blobs.sqlite", "durability": "process"}},
        "directoryservices": {"root": {"type": "memory"}},
    },
}


class Place:
    """A folder, services, and what is known of the files; a day has passed since they were written."""

    def __init__(self, tmp_path: Path, stores: Composition) -> None:
        self.source = tmp_path / "source"
        self.cache = tmp_path / "cache/known.sqlite"
        self.in_objects = False
        """Whether a directory can be had by way of its root only."""
        self.blobs = stores.blobs()
        self.directories: DirectoryService = stores.directories()
        self.opened = 0
        self.encoded = 0
        self.warnings: list[str] = []

    def fill(self) -> None:
        for folder in ("a", "a/b", "a/b/c", "d", "d/e", "f"):
            (self.source / folder).mkdir(parents=True)
            for number in range(3):
                (self.source / folder / f"file{number}").write_text(f"{folder} {number}")
        (self.source / "a/link").symlink_to("file0")
        (self.source / "a/run").write_text("#!")
        (self.source / "a/run").chmod(0o755)
        (self.source / "empty").mkdir()
        (self.source / "large").write_bytes(random.Random(1).randbytes(600_000))

    def take(self, *, fresh: bool = False, **options: Any) -> Imported:
        self.opened = self.encoded = 0
        options.setdefault("compare", COMPARED[0])
        compare = options.pop("compare")
        if fresh:
            return import_tree(self.source, self.blobs, self.directories, **options)
        with KnownFiles(self.cache, compare=compare, warn=self.warnings.append) as known:
            return import_tree(self.source, self.blobs, self.directories, known_files=known, **options)

    def assert_right(self, done: Imported) -> None:
        """The root is that of an import that knows nothing, and all of it is there."""
        assert done.problems == ()
        there = dict(walk(self.directories, done.node))  # type: ignore[arg-type]
        files = {node.digest for node in there.values() if isinstance(node, FileNode)}
        assert self.blobs.missing(files) == set()
        again = self.take(fresh=True)
        assert (done.node, done.files, done.directories, done.links, done.size) == (
            again.node,
            again.files,
            again.directories,
            again.links,
            again.size,
        )


@pytest.fixture(params=COMPOSITIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for place in _place(COMPOSITIONS[request.param], tmp_path, monkeypatch):
        place.in_objects = request.param == "closures"
        yield place


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    yield from _place(COMPOSITIONS["memory"], tmp_path, monkeypatch)


def _place(tables: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with Composition.from_mapping(tables, base=tmp_path) as stores:
        place = Place(tmp_path, stores)
        place.fill()
        open_descriptor, encode = FileAt.open_descriptor, format_directories.encode

        def counted_open(file: FileAt) -> int:
            place.opened += 1
            return open_descriptor(file)

        def counted_encode(nodes: Any) -> bytes:
            place.encoded += 1
            return encode(nodes)

        monkeypatch.setattr(FileAt, "open_descriptor", counted_open)
        monkeypatch.setattr(format_directories, "encode", counted_encode)
        # Times are compared with that of the clock: it goes on by an hour.
        clock = time.time_ns
        monkeypatch.setattr("castore.trees.importing.time.time_ns", lambda: clock() + HOUR)
        yield place


def test_nothing_is_opened_where_nothing_has_changed(place: Place) -> None:
    """Nor is any directory encoded."""
    first = place.take()
    assert (first.known, first.files) == (0, 20)
    again = place.take()
    assert (place.opened, place.encoded) == (0, 0)
    assert again == Imported(first.node, (), 20, 8, 1, first.size, known=20)
    assert place.warnings == []
    place.assert_right(again)


def test_one_file_has_changed(place: Place) -> None:
    """The directories above it are encoded, and no others, wherever any directory can be had by itself.

    In the objects of the reference a tree is stored anew as a whole, and all directories are made anew.
    """
    place.take()
    (place.source / "a/b/c/file1").write_text("new")
    done = place.take()
    if not place.in_objects:
        assert (place.opened, place.encoded, done.known) == (1, 4, 19)
    place.assert_right(done)


def test_some_files_are_too_young_to_be_known(place: Place) -> None:
    """What they are in is put again, and so is all above it: else nothing would refer to that."""
    for name in ("a/b/c/file1", "d/e/file1", "f/file1"):
        os.utime(place.source / name, ns=(0, time.time_ns()))
    place.take()
    done = place.take()
    if not place.in_objects:
        assert (place.opened, done.known) == (3, 17)
    place.assert_right(done)


CHANGES = {
    "content": lambda top: (top / "d/e/file0").write_text("other"),
    "same size": lambda top: (top / "d/e/file0").write_text("e/d 0"),
    "new": lambda top: (top / "d/e/more").write_text("more"),
    "gone": lambda top: (top / "d/e/file0").unlink(),
    "renamed": lambda top: (top / "d/e/file0").rename(top / "d/e/other"),
    "moved": lambda top: (top / "d/e/file0").rename(top / "a/file9"),
    "executable": lambda top: (top / "d/e/file0").chmod(0o755),
    "not executable": lambda top: (top / "a/run").chmod(0o644),
    "link": lambda top: ((top / "a/link").unlink(), (top / "a/link").symlink_to("file1")),
    "file to link": lambda top: ((top / "a/run").unlink(), (top / "a/run").symlink_to("x")),
    "file to folder": lambda top: ((top / "a/run").unlink(), (top / "a/run").mkdir()),
    "folder to file": lambda top: ((top / "empty").rmdir(), (top / "empty").write_text("")),
    "folder gone": lambda top: (top / "empty").rmdir(),
    "swapped folders": lambda top: (
        (top / "d").rename(top / "x"),
        (top / "f").rename(top / "d"),
        (top / "x").rename(top / "f"),
    ),
    "hard link": lambda top: os.link(top / "large", top / "d/larger"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("compare", COMPARED)
def test_changes_are_seen(plain: Place, change: Any, compare: Any) -> None:
    """Also if the time of the folder is put back; those of files are new."""
    plain.take(compare=compare)
    times = {path: path.stat() for path in plain.source.rglob("*") if path.is_dir() and not path.is_symlink()}
    change(plain.source)
    for path, status in times.items():
        if path.is_dir():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    plain.assert_right(plain.take(compare=compare))


def test_what_is_compared(plain: Place) -> None:
    """A change whose time was put back shows by that of the status; what has another number by that."""
    plain.take()
    path = plain.source / "f/file0"
    status = path.stat()
    path.write_text("f+0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [plain.take(compare=each).known for each in reversed(COMPARED)] == [20, 20, 19]
    plain.take()
    os.link(path, plain.source / "f/twice")
    (plain.source / "f/twice").unlink()
    assert [plain.take(compare=each).known for each in reversed(COMPARED)] == [20, 20, 19]


def test_a_copy_with_the_same_times_is_another_file(plain: Place) -> None:
    plain.take()
    path = plain.source / "f/file0"
    status = path.stat()
    other = plain.source / "f/other"
    other.write_text("f+0")
    other.rename(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert plain.take(compare="mtime,size").known == 20
    assert plain.take(compare="mtime,size,inode").known == 19


def test_blobs_that_are_gone_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are directories, of which nothing is read but what is missing."""
    for tables in (COMPOSITIONS["memory"], COMPOSITIONS["objectstore"]):
        for place in _place(tables, tmp_path / tables["blobservices"]["root"]["type"], monkeypatch):
            place.take()
            with Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as empty:
                place.blobs, place.directories = empty.blobs(), empty.directories()
                place.blobs.write(b"a/b 1")
                done = place.take()
                assert (done.known, place.opened >= 18) == (1, True)
                place.assert_right(done)
                place.assert_right(place.take())
                assert place.take().known == 20


def test_directories_that_are_gone_are_made_again(place: Place) -> None:
    """Though all files are known: none is opened."""
    place.take()
    with Composition.from_mapping(
        {
            "blobservices": {"root": {"type": "memory"}},
            "directoryservices": {"root": {"type": "memory"}},
        }
    ) as empty:
        place.directories = empty.directories()
        done = place.take()
        assert (place.opened, done.known) == (0, 20)
        place.assert_right(done)


def test_what_has_just_been_written_is_not_remembered(plain: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (plain.take().known, plain.take().known) == (0, 0)


def test_writes_within_a_tick(tmp_path: Path) -> None:
    """A file is written, imported, and written again with as many bytes, 200 times: each root is right."""
    (tmp_path / "t").mkdir()
    path = tmp_path / "t/file"
    memory = Composition.from_mapping(COMPOSITIONS["memory"])
    with memory as stores, KnownFiles(tmp_path / "known.sqlite") as known:
        for number in range(200):
            for text in (f"{number:08}", f"{number:07}x"):
                path.write_text(text)
                node = import_tree(
                    tmp_path / "t", stores.blobs(), stores.directories(), known_files=known
                ).node
                assert isinstance(node, DirectoryNode)
                directory = stores.directories().get(node.digest)
                assert directory is not None
                assert directory[b"file"] == FileNode(B3Digest.of(text.encode()), 8)  # type: ignore[index]


def test_selections_take_turns(plain: Place) -> None:
    from castore.trees.selecting import Pattern, Selection  # noqa: PLC0415

    whole = plain.take().node
    some = Selection([Pattern(b"file1", "--exclude"), Pattern(b"d/", "--exclude")])
    part = plain.take(select=some).node
    assert part == plain.take(select=some, fresh=True).node
    assert plain.take(select=some).node == part
    assert plain.take().node == whole


# -- the file --


@pytest.mark.parametrize(
    "damage",
    [b"", b"no database", b"SQLite format 3\0" + bytes(84), bytes(5000), None],
    ids=["empty", "text", "head", "zeros", "cut"],
)
def test_a_damaged_file_is_begun_anew(plain: Place, damage: bytes | None) -> None:
    """With one warning at most, and the right root."""
    plain.take()
    data = plain.cache.read_bytes()
    for end in ("-wal", "-shm"):
        Path(f"{plain.cache}{end}").unlink(missing_ok=True)
    plain.cache.write_bytes(data[: len(data) // 2] if damage is None else damage)
    plain.assert_right(plain.take())
    assert len(plain.warnings) <= 1
    plain.take()
    assert plain.take().known == 20


def test_every_byte_of_a_row_counts(plain: Place) -> None:
    plain.take()
    with closing(sqlite3.connect(plain.cache)) as connection, connection:
        rows = connection.execute("SELECT path, row FROM known_folders").fetchall()
        for path, row in rows:
            number = random.Random(path).randrange(len(row))
            row = row[:number] + bytes([row[number] ^ 1]) + row[number + 1 :]  # noqa: PLW2901
            connection.execute("UPDATE known_folders SET row = ? WHERE path = ?", (row, path))
    connection.close()
    done = plain.take()
    assert done.known == 0
    plain.assert_right(done)


def test_rows_of_other_folders(plain: Place) -> None:
    """One that has got to another path is no row of that."""
    plain.take()
    with closing(sqlite3.connect(plain.cache)) as connection, connection:
        (row,) = connection.execute(
            "SELECT row FROM known_folders WHERE substr(path, -2) = x'2f66'"
        ).fetchone()
        connection.execute("UPDATE known_folders SET row = ?", (row,))
    connection.close()
    assert plain.take().known == 3


def test_a_file_of_somebody_else(plain: Place) -> None:
    """It has a table that castore has not made: nothing of it is asked, and it is begun anew."""
    plain.cache.parent.mkdir()
    with closing(sqlite3.connect(plain.cache)) as connection, connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    plain.assert_right(plain.take())
    assert len(plain.warnings) == 1
    assert plain.take().known == 20


@pytest.mark.parametrize("kind", ["file above", "folder", "link"])
def test_a_place_that_cannot_be_used(plain: Place, kind: str) -> None:
    """One warning, and all is read."""
    if kind == "file above":
        plain.cache.parent.write_text("")
    elif kind == "folder":
        plain.cache.mkdir(parents=True)
    else:
        plain.cache.parent.mkdir()
        plain.cache.symlink_to(plain.source / "f/file0")
    for _ in range(2):
        done = plain.take()
        assert done.known == 0
        plain.assert_right(done)
    assert len(plain.warnings) == 2
    assert (plain.source / "f/file0").read_text() == "f 0"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(plain: Place) -> None:
    plain.cache.parent.mkdir(mode=0o500)
    plain.assert_right(plain.take())
    assert len(plain.warnings) == 1


def test_old_rows_go(plain: Place) -> None:
    now = time.time_ns()

    def rows(days: int) -> int:
        with KnownFiles(plain.cache, now=lambda: now + days * 24 * HOUR) as known:
            import_tree(plain.source / "f", plain.blobs, plain.directories, known_files=known)
        with closing(sqlite3.connect(plain.cache)) as connection, connection:
            (count,) = connection.execute("SELECT count(*) FROM known_folders").fetchone()
        connection.close()
        return int(count)

    plain.take()
    assert [rows(1), rows(89), rows(92), rows(180)] == [8, 8, 1, 1]


def test_two_imports_at_once(plain: Place) -> None:
    """Each has the file open; what both write is right."""
    with KnownFiles(plain.cache) as one, KnownFiles(plain.cache) as other:
        for known in (one, other, one, other):
            import_tree(plain.source, plain.blobs, plain.directories, known_files=known)
    done = plain.take()
    assert done.known == 20
    plain.assert_right(done)


def test_a_fork(plain: Place) -> None:
    """In a child nothing is known, and the file is the parent's."""
    plain.take()
    with KnownFiles(plain.cache) as known:
        path = os.fsencode(plain.source / "f")
        assert known.folder(path) is not None
        child = os.fork()
        if not child:
            os._exit(0 if known.folder(path) is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert known.folder(path) is not None


def test_file_systems_of_other_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their clocks differ: what was changed within ten minutes is not remembered."""
    (tmp_path / "file").touch()
    status = (tmp_path / "file").stat()
    soon, later = status.st_ctime_ns + 3 * 10**9, status.st_ctime_ns + 601 * 10**9
    assert KnownFiles.is_settled(status, soon)
    monkeypatch.setattr("castore.trees.known_files.is_of_network", lambda _: True)
    assert not KnownFiles.is_settled(status, soon)
    assert KnownFiles.is_settled(status, later)
