"""The tables of a file, and how it is told from the files of others.

`application_id` says that a file is castore's, `user_version` which tables it has. Times are milliseconds
since 1970. They stand before the bytes of a row, so that renewing one does not touch the pages of these.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from castore.databases import has_own_tables

APPLICATION_ID: Final = int.from_bytes(b"b3cs", "big")
VERSION: Final = 2

# Rows are appended, wherever their digests stand in the index of them: so most writes are in one place. A
# number is never used twice, so that who lists rows by their numbers meets none twice.
_CHUNKS: Final = """
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    modified INTEGER NOT NULL,
    frame BLOB NOT NULL
)"""

# Not `WITHOUT ROWID`, though the rows of most blobs have no bytes: SQLite would have to load all of a row,
# however long, to compare its key with another.
_INDEXES: Final = """
CREATE TABLE indexes (
    digest BLOB NOT NULL PRIMARY KEY,
    modified INTEGER NOT NULL,
    chunks BLOB NOT NULL
)"""

_QUARANTINE: Final = """
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    digest BLOB NOT NULL,
    modified INTEGER,
    data BLOB
)"""

# SQLite flushes a transaction only if it has changed something.
_FLUSHES: Final = "CREATE TABLE flushes (number INTEGER NOT NULL)"

DIRECTORIES: Final = """
CREATE TABLE directories (
    digest BLOB NOT NULL PRIMARY KEY,
    modified INTEGER NOT NULL,
    encoding BLOB NOT NULL
)"""
"""Made with the first directory. Not `WITHOUT ROWID`, for the same reason as the indexes."""

REFS: Final = """
CREATE TABLE refs (
    name TEXT NOT NULL PRIMARY KEY,
    ref BLOB NOT NULL
)"""
"""Made with the first ref."""

OPTIONAL: Final = (DIRECTORIES, REFS)
"""Tables that a file has only if something was kept in them."""

_TABLES: Final = (_CHUNKS, _INDEXES, _QUARANTINE, _FLUSHES)


class SchemaError(Exception):
    """A file that is not for this version of castore; the message says why and what to do."""


def is_there(connection: sqlite3.Connection, table: str | None = None) -> bool:
    """Tell whether the tables are there, the optional one *table* among them; False for an empty database.

    Raises `SchemaError` for a database of another program, or of a newer castore.
    """
    if connection.in_transaction:
        return _look(connection, table)
    # All in one: somebody else may be making them in this moment.
    connection.execute("BEGIN")
    try:
        return _look(connection, table)
    finally:
        connection.rollback()


def _look(connection: sqlite3.Connection, table: str | None) -> bool:
    application, version = _value(connection, "application_id"), _value(connection, "user_version")
    if application == APPLICATION_ID:
        if version != VERSION:
            way_out = (
                "a newer one, so upgrade castore"
                if version > VERSION
                else "one from before the first release"
            )
            raise SchemaError(
                f"has version {version} of the tables, and this castore knows {VERSION}: it was written by"
                f" {way_out}"
            )
        if not has_own_tables(connection, ";".join(_TABLES), OPTIONAL):
            raise SchemaError(
                "has other tables than castore makes, or more than these: somebody has changed it;"
                " put a copy in its place, or name another file as `path`"
            )
        return table is None or has_table(connection, table)
    if application == version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
        return False
    raise SchemaError("is a database of another program: name another file as `path`")


def create(connection: sqlite3.Connection, table: str | None = None) -> None:
    """Make the tables, the optional one *table* among them, unless somebody else was faster."""
    connection.execute("BEGIN IMMEDIATE")
    if not is_there(connection):
        for statement in (*_TABLES, "INSERT INTO flushes VALUES (0)"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    if table is not None and not has_table(connection, table):
        connection.execute(table)
    connection.execute("COMMIT")


def has_table(connection: sqlite3.Connection, table: str) -> bool:
    """Tell whether an optional table is there."""
    question = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND sql = ?"
    return connection.execute(question, (table.strip(),)).fetchone() is not None


def _value(connection: sqlite3.Connection, pragma: str) -> int:
    (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)
