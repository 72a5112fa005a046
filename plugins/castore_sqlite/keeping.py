"""Looking after a file: what is in it row by row, rows that are set aside, rows that are swept away.

The key of a row is its table and its digest, as in `chunks/af13...`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from castore import B3Digest, UnavailableError
from castore.contract.upkeep import DigestRange, ItemKind, StoredItem
from castore_sqlite import faults
from castore_sqlite.database import Database
from castore_sqlite.rows import FRESH_SECONDS, queries

_ANY_TIME: Final = (1 << 63) - 1

_PAGE: Final = 1000
"""How many rows a query gives: a longer one would keep the log from being cut back."""

_SWEPT: Final = 200
"""How many rows go in one transaction: other writers wait meanwhile."""

_INDEXES: Final = (
    "SELECT digest, modified, length(chunks) FROM indexes WHERE digest > ? ORDER BY digest LIMIT ?"
)
_CHUNKS: Final = (
    "SELECT id, digest, modified, length(frame) FROM chunks WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
)
_IN_ORDER: Final = {
    "index": "SELECT digest, modified, length(chunks) FROM indexes WHERE digest {0} ORDER BY digest LIMIT ?",
    "chunk": "SELECT digest, modified, length(frame) FROM chunks WHERE digest {0} ORDER BY digest LIMIT ?",
}
_BETWEEN: Final = (
    "SELECT digest FROM indexes WHERE digest BETWEEN ? AND ?"
    " UNION SELECT digest FROM chunks WHERE digest BETWEEN ? AND ? ORDER BY digest LIMIT ?"
)
_DELETE: Final = {
    "chunks": "DELETE FROM chunks WHERE digest = ? AND modified < ?",
    "indexes": "DELETE FROM indexes WHERE digest = ? AND modified < ?",
}
_FIND: Final = {
    "chunk": "SELECT digest, modified, length(frame) FROM chunks WHERE digest IN (VALUES {0})",
    "index": "SELECT digest, modified, length(chunks) FROM indexes WHERE digest IN (VALUES {0})",
}
_TABLES: Final = {"chunk": "chunks", "index": "indexes"}
_COPY_CHUNK: Final = (
    "INSERT INTO quarantine (kind, digest, modified, data)"
    " SELECT 'chunks', digest, modified, frame FROM chunks WHERE digest = ?"
)
_COPY_INDEX: Final = (
    "INSERT INTO quarantine (kind, digest, modified, data)"
    " SELECT 'indexes', digest, modified, chunks FROM indexes WHERE digest = ?"
)
_SET_ASIDE: Final = {
    "chunks": (_COPY_CHUNK, "DELETE FROM chunks WHERE digest = ?"),
    "indexes": (_COPY_INDEX, "DELETE FROM indexes WHERE digest = ?"),
}


def list_digests(database: Database) -> Iterator[B3Digest]:
    """Yield the digest of every index."""
    for digest, *_ in _index_rows(database):
        if _is_digest(digest):
            yield B3Digest(digest)


def find_between(database: Database, first: str, last: str) -> Iterator[B3Digest]:
    """Yield the digests of indexes and chunks from *first* to *last*, both in hex."""
    begin, end = bytes.fromhex(first), bytes.fromhex(last)
    while rows := database.fetch(_BETWEEN, (begin, end, begin, end, _PAGE)):
        yield from (B3Digest(digest) for (digest,) in rows if _is_digest(digest))
        # The next one after the last: there is nothing between a text of bytes and the same with a zero.
        begin = _last_of(database, rows, begin) + b"\0"


def list_items(database: Database) -> Iterator[StoredItem]:
    """Yield every index, then every chunk."""
    for row in _index_rows(database):
        yield _item("index", "indexes", *row)
    # By their numbers they lie side by side in the file; what is put meanwhile has larger ones.
    ((last,),) = database.fetch("SELECT max(id) FROM chunks") or ((None,),)
    number = 0
    while rows := database.fetch(_CHUNKS, (number, last or 0, _PAGE)):
        yield from (_item("chunk", "chunks", *row) for _, *row in rows)
        if rows[-1][0] <= number:
            raise _in_disorder(database)
        number = rows[-1][0]


def list_items_in(database: Database, part: DigestRange) -> Iterator[StoredItem]:
    """Yield the indexes, then the chunks, whose digests are in a range."""
    kinds: tuple[ItemKind, ...] = ("index", "chunk")
    for kind in kinds:
        for row in _rows_in(database, kind, part):
            yield _item(kind, _TABLES[kind], *row)


def _rows_in(database: Database, kind: ItemKind, part: DigestRange) -> Iterator[tuple[Any, ...]]:
    if part.first is None:
        # Keys that are no bytes come before all that are; there are none but a stranger's.
        yield from database.fetch(_IN_ORDER[kind].format("< x''"), (_PAGE,))
    query = _IN_ORDER[kind].format(">= ?")
    begin: bytes = part.first or b""
    while rows := database.fetch(query, (begin, _PAGE)):
        for row in rows:
            if row[0] not in part:
                return
            yield row
        # The next one after the last: nothing is between bytes and the same with a zero.
        begin = _last_of(database, rows, begin) + b"\0"


def _index_rows(database: Database) -> Iterator[tuple[Any, ...]]:
    last = b""
    while rows := database.fetch(_INDEXES, (last, _PAGE)):
        yield from rows
        last = _last_of(database, rows, last)


def _last_of(database: Database, rows: Sequence[tuple[Any, ...]], before: bytes) -> bytes:
    """Return the last digest of some rows; raise `UnavailableError` if it is not beyond those *before*."""
    last = rows[-1][0]
    if not isinstance(last, bytes) or last < before:
        raise _in_disorder(database)
    return last


def _in_disorder(database: Database) -> UnavailableError:
    return UnavailableError(database.instance, faults.damaged("its rows are in disorder", database.path))


def _is_digest(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def _item(kind: ItemKind, table: str, digest: Any, modified: object, size: int) -> StoredItem:
    key = f"{table}/{digest.hex() if isinstance(digest, bytes) else digest}"
    time = modified / 1000 if isinstance(modified, int) else None
    if not _is_digest(digest):
        return StoredItem("residue", key, None, size, time, foreign=True)
    return StoredItem(kind, key, B3Digest(digest), size, time)


def set_aside(database: Database, item: StoredItem) -> str:
    """Move a row to the table `quarantine`; return `quarantine/`, its number there, and its old key."""
    table, digest = _place_of(item)
    copy, delete = _SET_ASIDE[table]
    with database.writing(lasting=True) as connection:
        cursor = connection.execute(copy, (digest,))
        if not cursor.rowcount:
            raise UnavailableError(database.instance, f"{item.key} is not in {database.path} any more")
        connection.execute(delete, (digest,))
        return f"quarantine/{cursor.lastrowid}/{item.key}"


def sweep(database: Database, items: Iterable[StoredItem], older_than: float) -> Iterator[StoredItem]:
    """Remove rows that are old in the moment of the transaction; yield those that are gone."""
    # A claim may have left a time as it was that was recent enough.
    limit = int((older_than - FRESH_SECONDS) * 1000)
    remaining = iter(items)
    while group := list(islice(remaining, _SWEPT)):
        with database.writing(lasting=False) as connection:
            gone = [item for item in group if _delete(connection, item, limit)]
        yield from gone


def key_of(kind: ItemKind, digest: B3Digest) -> str:
    """Return the key of a row."""
    return f"{_TABLES[kind]}/{digest}"


def find_items(database: Database, kind: ItemKind, digests: Iterable[B3Digest]) -> Iterator[StoredItem]:
    """Yield what a listing would say of those rows that are there."""
    for query, group in queries(_FIND[kind], digests):
        for row in database.fetch(query, group):
            yield _item(kind, _TABLES[kind], *row)


def remove(database: Database, items: Iterable[StoredItem]) -> None:
    """Remove rows whatever their age, some in each transaction."""
    remaining = iter(items)
    while group := list(islice(remaining, _SWEPT)):
        with database.writing(lasting=False) as connection:
            for item in group:
                _delete(connection, item, _ANY_TIME)


def _delete(connection: sqlite3.Connection, item: StoredItem, limit: int) -> bool:
    table, digest = _place_of(item)
    return connection.execute(_DELETE[table], (digest, limit)).rowcount > 0


def _place_of(item: StoredItem) -> tuple[str, bytes]:
    table, _, digest = item.key.partition("/")
    return table, bytes.fromhex(digest)
