"""SQLite files that a stranger has made for whoever opens them: an error of its type, and soon.

The stores, the journals of `lru`, and the state files of a verification alike.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import B3Digest, CastoreError, Composition, UnavailableError
from castore.contract.capabilities import BlobLister
from castore.contract.upkeep import Inventory
from castore.databases import OwnedConnection
from castore.testing import HELLO, P3M
from castore.threads.pool import Pool
from castore.upkeep import Ledger, StateFileError, verify
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"

SLOW: dict[str, list[str]] = {
    "a view without end": [
        "ALTER TABLE chunks RENAME TO old",
        f"CREATE VIEW chunks AS {ENDLESS} i AS id, x'' AS digest, 0 AS modified, x'' AS frame FROM n",
    ],
    "a view in place of the indexes": [
        "DROP TABLE indexes",
        f"CREATE VIEW indexes AS {ENDLESS} x'00' AS digest, 0 AS modified, x'' AS chunks FROM n",
    ],
    "a trigger": [
        f"CREATE TRIGGER t AFTER INSERT ON chunks BEGIN INSERT INTO flushes {ENDLESS} i FROM n; END",
    ],
    "a trigger on updates": [
        f"CREATE TRIGGER t AFTER UPDATE ON flushes BEGIN INSERT INTO flushes {ENDLESS} i FROM n; END",
    ],
    "a generated column": [
        "ALTER TABLE chunks ADD COLUMN more AS (zeroblob(1000000000))",
    ],
    "an index on an expression": [
        "CREATE INDEX more ON chunks (hex(digest))",
    ],
    "another table": ["CREATE TABLE more (a)"],
    "a table that lacks": ["DROP TABLE flushes"],
    "a column of another type": ["DROP TABLE indexes", "CREATE TABLE indexes (digest, modified, chunks)"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blobs.sqlite"


def service_on(path: Path) -> SqliteBlobService:
    database = Database(path, instance="root", durability="process")
    return SqliteBlobService(database, avg_chunk_size=1024, pool=Pool(0))


def stored(path: Path) -> None:
    service = service_on(path)
    service.write(HELLO.data)
    service.write(P3M.data[:20_000])
    service.close()


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def everything(service: castore.BlobService) -> Iterator[Callable[[], object]]:
    """All that is asked of a store."""
    lister, inventory = service.capability(BlobLister), service.capability(Inventory)
    assert lister is not None
    assert inventory is not None
    yield lambda: service.has(HELLO.digest)
    yield lambda: service.read(HELLO.digest)
    yield lambda: service.chunks(B3Digest.of(P3M.data[:20_000]))
    yield lambda: service.write(b"something new")
    yield lambda: list(lister.list_blobs())
    yield lambda: list(inventory.list_items())
    yield lambda: verify(service)


@pytest.mark.parametrize("name", SLOW)
def test_tables_of_others_are_refused(path: Path, name: str) -> None:
    """Before anything is asked of them."""
    stored(path)
    change(path, *SLOW[name])
    service = service_on(path)
    for call in everything(service):
        with pytest.raises(UnavailableError, match="somebody has changed it"):
            call()
    service.close()


def test_statistics_are_nobody_elses(path: Path) -> None:
    """Those that `ANALYZE` leaves behind are SQLite's own."""
    stored(path)
    change(path, "ANALYZE")
    assert service_on(path).read(HELLO.digest) == HELLO.data


def spoil(path: Path) -> None:
    """Put bytes that are no text over what the file says of its tables."""
    change(path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = DELETE")
    data = bytearray(path.read_bytes())
    at = data.index(b"CREATE TABLE")
    data[at : at + 3] = b"\xff\x80\xfd"
    path.write_bytes(data)


def test_a_schema_that_is_no_text(path: Path) -> None:
    """SQLite quotes it in its message; a healthy second child of a `fallback` is asked all the same."""
    stored(path)
    spoil(path)
    service = service_on(path)
    for call in everything(service):
        with pytest.raises(UnavailableError, match="is damaged"):
            call()
    service.close()
    table: dict[str, Any] = {
        "root": {"type": "fallback", "services": ["&bad", "&good"]},
        "bad": {"type": "sqlite", "path": str(path)},
        "good": {"type": "memory"},
    }
    with Composition.from_mapping({"blobservices": table}) as stores:
        stores.blobs("good").write(HELLO.data)
        assert stores.blobs().read(HELLO.digest) == HELLO.data


@pytest.mark.parametrize("value", ["7", "1.5", "'text'", "x''", "x'00'", "zeroblob(33)", "zeroblob(100000)"])
@pytest.mark.parametrize("column", ["digest", "modified", "frame", "chunks"])
def test_rows_that_have_anything(path: Path, column: str, value: str) -> None:
    """What is in them is absent, corrupt or foreign, and ends nothing else."""
    stored(path)
    for table in ("chunks", "indexes"):
        with contextlib.suppress(sqlite3.OperationalError):
            change(path, f"UPDATE {table} SET {column} = {value} WHERE digest = x'{HELLO.digest}'")
    service = service_on(path)
    for call in everything(service):
        with contextlib.suppress(CastoreError):
            call()
    other = P3M.data[:20_000]
    assert service.read(B3Digest.of(other)) == other
    service.close()


def test_pages_that_lead_to_each_other(path: Path) -> None:
    """Each page of the file leads to any other one: whatever is asked has an end."""
    service = service_on(path)
    for number in range(400):
        service.write(bytes([number % 256]) * (number + 1))
    service.close()
    change(path, "PRAGMA journal_mode = DELETE")
    whole = path.read_bytes()
    count = len(whole) // 4096
    began = time.monotonic()
    tried = 0
    for page in range(1, count):
        for target in (1, 2, count // 2):
            data = bytearray(whole)
            at = page * 4096
            if data[at] not in (2, 5):
                continue
            # The child on the right, and that of the first cell, lead elsewhere.
            data[at + 8 : at + 12] = target.to_bytes(4, "big")
            cell = at + int.from_bytes(data[at + 12 : at + 14], "big")
            data[cell : cell + 4] = (page + 1).to_bytes(4, "big")
            path.write_bytes(data)
            tried += 1
            service = service_on(path)
            for call in everything(service):
                with contextlib.suppress(CastoreError):
                    call()
            with contextlib.suppress(CastoreError):
                service.close()
    assert tried >= 6
    # An end, not a time: without one this would go on for ever.
    assert time.monotonic() - began < 100


def test_a_statement_has_a_budget() -> None:
    """Also one that an own file would never need; the connection can be used for others afterwards."""
    connection = sqlite3.connect(":memory:", factory=OwnedConnection)
    connection.guard(longest=1000, steps=2)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        connection.execute(f"{ENDLESS} count(*) FROM n").fetchall()
    for _ in range(5):
        assert connection.execute(f"{ENDLESS} i FROM n LIMIT 60000").fetchall()
    with pytest.raises(sqlite3.DataError, match="too big"):
        connection.execute("SELECT zeroblob(1001)").fetchall()
    connection.close()


# -- journals --


def bounded(tmp_path: Path) -> Composition:
    table: dict[str, Any] = {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "10 MB"},
        "store": {"type": "objectstore", "object_store_url": f"file:{tmp_path}/store"},
    }
    return Composition.from_mapping({"blobservices": table})


JOURNALS = {
    "a view of facts": [
        "DROP TABLE facts",
        f"CREATE VIEW facts AS {ENDLESS} 'boot' AS name, i AS value FROM n",
    ],
    "a view of items": [
        "DROP TRIGGER item_comes",
        "DROP TRIGGER item_changes",
        "DROP TRIGGER item_goes",
        "DROP TABLE items",
        f"CREATE VIEW items AS {ENDLESS} x'00' AS digest, 0 AS used FROM n",
    ],
    "a trigger": [
        f"CREATE TRIGGER t AFTER INSERT ON items BEGIN INSERT INTO unsure {ENDLESS} i, x'' FROM n; END"
    ],
    "no facts": ["DELETE FROM facts"],
}


@pytest.mark.parametrize("name", [*JOURNALS, "a schema that is no text"])
def test_a_journal_of_somebody_else_is_made_anew(tmp_path: Path, name: str) -> None:
    """It has accounts only, and these can be found out."""
    with bounded(tmp_path) as stores:
        stores.blobs().write(HELLO.data)
    journal = tmp_path / "store/lru/journal.sqlite"
    change(journal, "PRAGMA journal_mode = DELETE")
    if name in JOURNALS:
        change(journal, *JOURNALS[name])
    else:
        spoil(journal)
    with bounded(tmp_path) as stores:
        assert stores.blobs().read(HELLO.digest) == HELLO.data
        other = stores.blobs().write(P3M.data)
        assert stores.blobs().read(other) == P3M.data


# -- state files --


def test_a_state_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for statements in (
        ["DROP TABLE about", f"CREATE VIEW about AS {ENDLESS} '{{}}' AS about FROM n"],
        ["DROP TABLE right_items", f"CREATE VIEW right_items AS {ENDLESS} x'' AS item FROM n"],
    ):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        ledger = Ledger(path)
        ledger.add("blob", HELLO.digest)
        ledger.close()
        change(path, *statements)
        with pytest.raises(StateFileError, match="none of a verification"):
            Ledger(path)
    path.unlink()
    Ledger(path).close()
    spoil(path)
    with pytest.raises(StateFileError):
        Ledger(path)
