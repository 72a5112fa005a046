"""The tables of a journal.

`items` has what the store keeps, `writes` what is being written to it, with the bytes reserved for that.
`parts` says which chunks a blob is made of, `pins` what must stay. Writes and pins belong to an *owner*, one
service in one process: they end with it. The totals are kept by triggers, so that no code can forget them.
"""

from __future__ import annotations

import sqlite3
from typing import Final

APPLICATION_ID: Final = int.from_bytes(b"b3lr", "big")
VERSION: Final = 1

INDEX: Final = 0
CHUNK: Final = 1

_TABLES: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE items (
    digest BLOB NOT NULL,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    used REAL NOT NULL,
    scan INTEGER NOT NULL,
    going TEXT,
    PRIMARY KEY (digest, kind)
) WITHOUT ROWID;
CREATE INDEX items_by_use ON items (used, kind);
CREATE INDEX items_going ON items (going) WHERE going IS NOT NULL;
CREATE TABLE parts (chunk BLOB NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (chunk, blob)) WITHOUT ROWID;
CREATE INDEX parts_of_blob ON parts (blob);
CREATE TABLE writes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    digest BLOB NOT NULL,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    since REAL NOT NULL
);
CREATE INDEX writes_of_digest ON writes (digest);
CREATE TABLE pins (
    owner TEXT NOT NULL, tag INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (owner, tag, digest)
) WITHOUT ROWID;
CREATE INDEX pins_of_digest ON pins (digest);
CREATE TABLE owners (owner TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE totals (size INTEGER NOT NULL, entries INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
INSERT INTO facts VALUES ('boot', ''), ('scanned', 0), ('scan', 0);
CREATE TRIGGER item_comes AFTER INSERT ON items
    BEGIN UPDATE totals SET size = size + new.size, entries = entries + 1; END;
CREATE TRIGGER item_changes AFTER UPDATE OF size ON items
    BEGIN UPDATE totals SET size = size + new.size - old.size; END;
CREATE TRIGGER item_goes AFTER DELETE ON items
    BEGIN UPDATE totals SET size = size - old.size, entries = entries - 1; END;
CREATE TRIGGER write_begins AFTER INSERT ON writes
    BEGIN UPDATE totals SET size = size + new.size, entries = entries + 1; END;
CREATE TRIGGER write_ends AFTER DELETE ON writes
    BEGIN UPDATE totals SET size = size - old.size, entries = entries - 1; END;
"""


def is_there(connection: sqlite3.Connection) -> bool:
    """Tell whether the tables are there, and these ones; raise `sqlite3.DatabaseError` for a damaged file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return (application, version) == (APPLICATION_ID, VERSION)


def is_whole(connection: sqlite3.Connection, boot: str) -> bool:
    """Tell whether the file is sound, which only a machine that dies can change: asked once a start."""
    ((known,),) = connection.execute("SELECT value FROM facts WHERE name = 'boot'").fetchall()
    if known == boot:
        return True
    found = connection.execute("PRAGMA quick_check(1)").fetchone()
    return bool(found == ("ok",))


def is_empty(connection: sqlite3.Connection) -> bool:
    """Tell whether there are no tables at all."""
    return not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, in one transaction."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {VERSION}; COMMIT;"
    )
