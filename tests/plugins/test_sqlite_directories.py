"""Directories as rows of one SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    Composition,
    CorruptDirectoryError,
    MissingDirectoryError,
    UnavailableError,
)
from castore.contract.capabilities import Durable
from castore.contract.directories import AnyDirectory, Complete, DirectoryLister
from castore.digest import EMPTY
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore_sqlite import directories, schema
from castore_sqlite.database import Database
from castore_sqlite.directories import SqliteDirectoryService
from castore_sqlite.service import SqliteBlobService
from tests.format.test_directories import WITH_KEEP, A, B, C, D, E

LONG = Directory({b"%05d" % number: FileNode(EMPTY, number) for number in range(2_000)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "directories.sqlite"


def service_on(path: Path, **options: Any) -> SqliteDirectoryService:
    settings: Any = {"durability": "process", **options}
    return SqliteDirectoryService(Database(path, instance="root", table=schema.DIRECTORIES, **settings))


def change(path: Path, statement: str, *parameters: object) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement, parameters)


def counted(path: Path) -> list[str]:
    """The statements of the next connections, as they run."""
    statements: list[str] = []
    connect = Database._connect

    def traced(self: Database, *args: Any, **kwargs: Any) -> Any:
        connection = connect(self, *args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    Database._connect = traced  # type: ignore[method-assign]
    return statements


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[str]:
    monkeypatch.setattr(Database, "_connect", Database._connect)
    return counted(path)


def test_capabilities(path: Path) -> None:
    with service_on(path) as service:
        assert all(service.capability(kind) for kind in (AnyDirectory, Complete, DirectoryLister, Durable))


def test_a_tree_is_one_transaction(path: Path, statements: list[str]) -> None:
    """So it is there as a whole or not at all, and is read by one query for each level."""
    with service_on(path) as service:
        leaves = [Directory({b"%d" % number: FileNode(EMPTY, number)}) for number in range(1_500)]
        root = Directory({b"%d" % number: leaf.node for number, leaf in enumerate(leaves)})
        service.put_closure([*leaves, root])
        assert statements.count("BEGIN IMMEDIATE") == 2  # the tables, and the tree
        statements.clear()
        assert len(list(service.closure(root.digest) or ())) == 1_501
        assert sum(statement.startswith("SELECT digest, modified") for statement in statements) == 1 + 6


def test_a_very_large_tree_does_not_wait_in_memory(
    path: Path, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_MOST_WAITING", 1_000)
    with service_on(path) as service:
        leaves = [Directory({b"%d" % number: FileNode(EMPTY, number)}) for number in range(100)]
        root = Directory({b"%d" % number: leaf.node for number, leaf in enumerate(leaves)})
        service.put_closure([*leaves, root])
        assert 4 <= statements.count("BEGIN IMMEDIATE") <= 10
        assert len(list(service.closure(root.digest) or ())) == 101


def test_what_is_there_is_not_written_again(path: Path) -> None:
    with service_on(path) as service:
        service.put_closure([A, B, D])
        change(path, "UPDATE directories SET modified = 1 WHERE digest = ?", bytes(B.digest))
        before = rows_of(path)
        service.put_closure([A, B, D])
        after = rows_of(path)
        assert after[B.digest] > 1
        assert {**after, B.digest: 1} == before


def rows_of(path: Path) -> dict[B3Digest, int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT digest, modified FROM directories").fetchall()
    return {B3Digest(digest): modified for digest, modified in found}


@pytest.mark.parametrize("directory", [WITH_KEEP, LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    "value",
    ["x'00'", "'text'", "17", "encoding || x'00'", "substr(encoding, 1, 10)", "zeroblob(20000000)"],
)
def test_a_damaged_row(path: Path, directory: Directory, value: str) -> None:
    """It is corrupt, with its place, beside those that are whole; and putting it again mends it."""
    with service_on(path) as service:
        service.put_many([directory, A])
        change(path, f"UPDATE directories SET encoding = {value} WHERE digest = ?", bytes(directory.digest))
        found = service.get_many([directory.digest, EMPTY, C.digest])
        assert found.keys() == {directory.digest, EMPTY}
        assert found[EMPTY] == A
        error = found[directory.digest]
        assert isinstance(error, CorruptDirectoryError)
        assert not isinstance(error, MissingDirectoryError)
        assert error.key == f"{path}: directories/{directory.digest}"
        service.put(directory)
        assert service.get(directory.digest) == directory


def test_a_child_that_is_missing(path: Path) -> None:
    """The transaction that would need it does not happen."""
    with service_on(path) as service:
        with pytest.raises(MissingDirectoryError) as caught:
            service.put_many([B, D])
        assert (caught.value.expected, caught.value.path) == (EMPTY, b"a")
        assert not list(service.list_directories())


def test_listing_goes_page_by_page(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_PAGE", 3)
    with service_on(path) as service:
        many = [Directory({b"%d" % number: FileNode(EMPTY, number)}) for number in range(10)]
        service.put_many(many)
        change(path, "UPDATE directories SET digest = x'00' WHERE digest = ?", bytes(many[0].digest))
        assert set(service.list_directories()) == {each.digest for each in many[1:]}


class TestTheFile:
    def test_reading_makes_none(self, path: Path) -> None:
        with service_on(path) as service:
            assert service.get(B.digest) is None
            assert list(service.list_directories()) == []
        assert not path.exists()

    def test_blobs_may_be_in_it(self, path: Path) -> None:
        """Whichever comes first; a file of blobs without directories has no table of them."""
        blobs = SqliteBlobService(Database(path, instance="blobs", durability="process"))
        with blobs, service_on(path) as service:
            digest = blobs.write(b"some bytes")
            assert service.get(B.digest) is None
            assert "directories" not in tables_of(path)
            service.put_closure([A, B])
            assert blobs.read(digest) == b"some bytes"
            other = blobs.write(b"others")
        with SqliteBlobService(Database(path, instance="blobs", durability="process")) as again:
            assert again.read(other) == b"others"
        with service_on(path) as service:
            assert service.get(B.digest) == B

    @pytest.mark.parametrize(
        ("statements", "words"),
        [
            (["CREATE TABLE directories (digest, modified, encoding)"], "another program"),
            (["DROP TABLE directories", "CREATE TABLE directories (digest, encoding)"], "has other tables"),
            (["CREATE TABLE more (a)"], "has other tables"),
            (["DROP TABLE directories", "CREATE VIEW directories AS SELECT 1"], "has other tables"),
            (["CREATE TRIGGER t AFTER INSERT ON directories BEGIN SELECT 1; END"], "has other tables"),
        ],
    )
    def test_a_strangers_is_refused(self, path: Path, statements: list[str], words: str) -> None:
        if words != "another program":
            with service_on(path) as service:
                service.put(A)
        for statement in statements:
            change(path, statement)
        with service_on(path) as service:
            calls: list[Callable[[], object]] = [
                lambda: service.get(EMPTY),
                lambda: service.put(A),
                lambda: list(service.list_directories()),
            ]
            for call in calls:
                with pytest.raises(UnavailableError, match=words):
                    call()

    def test_no_database(self, path: Path) -> None:
        path.write_bytes(b"no database at all" * 100)
        with service_on(path) as service, pytest.raises(UnavailableError, match="no SQLite database"):
            service.get(EMPTY)


def tables_of(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_many_write_at_once(path: Path) -> None:
    """Threads, and two services on one file as two processes have: each tree is whole."""
    roots = [Directory({b"%d" % number: WITH_KEEP.node, b"d": D.node, b"e": E.node}) for number in range(40)]
    with service_on(path) as one, service_on(path) as other:

        def write(number: int) -> None:
            service = (one, other)[number % 2]
            service.put_closure([A, B, D, E, WITH_KEEP, roots[number]])
            assert set((other, one)[number % 2].closure(roots[number].digest) or ()) == {
                A, B, D, E, WITH_KEEP, roots[number],
            }  # fmt: skip

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(40)))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork(tmp_path: Path) -> None:
    """The child and the parent both go on, with connections of their own."""
    tables: Any = {
        "blobservices": {"root": {"type": "memory"}},
        "directoryservices": {"root": {"type": "sqlite", "path": "d.sqlite", "durability": "process"}},
    }
    with Composition.from_mapping(tables, base=tmp_path) as stores:
        service = stores.directories()
        service.put_closure([A, B])
        writer = service.open_write()
        writer.put(WITH_KEEP)
        child = os.fork()
        if not child:
            code = 1
            try:
                assert service.get(B.digest) == B
                service.put_closure([A, B, D])
                code = 0
            finally:
                os._exit(code)
        assert writer.close() == WITH_KEEP.digest
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert service.get(D.digest) == D
        assert service.get(WITH_KEEP.digest) == WITH_KEEP
