"""The tables of a journal.

`items` has what the store keeps: of each digest the sizes of its chunk and of its index, if there are such.
`unsure` names chunks of which only the most is known that they may take. `parts` says which chunks a blob is
made of; one of a single chunk, which has the same digest, has no rows there. `holds` has what must stay: what
is being written, with the bytes reserved for that, what a lease has put or claimed, and what is pinned. Those
of the last kind may be many, and are in `pinned` one by one. Holds belong to an *owner*, one service in one
process, and end with it. The totals, and what is pinned, are brought up to date by triggers, so that no code
can forget them.

Digests come and go by hundreds. A statement is given all of them in one parameter, one after the other,
beside a JSON list with a number for each, and takes them apart itself. That costs a fraction of a statement
for each, and no thread has to wait for Python in between.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from castore.databases import has_own_tables

APPLICATION_ID: Final = int.from_bytes(b"b3lr", "big")
VERSION: Final = 2

INDEX: Final = 0
CHUNK: Final = 1
LEASED: Final = 2
"""What a hold is about: items that are being written, or anything that a lease keeps; `NULL` is a pin."""

_TABLES: Final = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE items (
    digest BLOB PRIMARY KEY,
    index_size INTEGER,
    chunk_size INTEGER,
    index_scan INTEGER NOT NULL DEFAULT 0,
    chunk_scan INTEGER NOT NULL DEFAULT 0,
    used REAL NOT NULL,
    going TEXT
) WITHOUT ROWID;
CREATE INDEX items_by_use ON items (used);
CREATE INDEX items_going ON items (going) WHERE going IS NOT NULL;
CREATE TABLE parts (chunk BLOB NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (chunk, blob)) WITHOUT ROWID;
CREATE INDEX parts_of_blob ON parts (blob);
CREATE TABLE holds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    tag INTEGER,
    kind INTEGER,
    digests BLOB NOT NULL,
    sizes TEXT NOT NULL,
    size INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    since REAL NOT NULL
);
CREATE INDEX holds_of_owner ON holds (owner, tag);
CREATE TABLE pinned (digest BLOB NOT NULL, hold INTEGER NOT NULL, PRIMARY KEY (digest, hold)) WITHOUT ROWID;
CREATE VIEW held AS
    SELECT substr(holds.digests, json_each.key * 32 + 1, 32) AS digest, holds.kind, holds.owner, holds.tag
    FROM holds JOIN json_each(holds.sizes);
CREATE VIEW written AS SELECT digest, kind, owner FROM held WHERE kind IN ({INDEX}, {CHUNK});
CREATE TABLE unsure (id INTEGER PRIMARY KEY, digests BLOB NOT NULL);
CREATE TABLE owners (owner TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE totals (size INTEGER NOT NULL, entries INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
INSERT INTO facts VALUES ('boot', ''), ('scanned', 0), ('scan', 0);
CREATE TRIGGER item_comes AFTER INSERT ON items BEGIN
    UPDATE totals SET
        size = size + ifnull(new.index_size, 0) + ifnull(new.chunk_size, 0),
        entries = entries + (new.index_size IS NOT NULL) + (new.chunk_size IS NOT NULL);
END;
CREATE TRIGGER item_changes AFTER UPDATE OF index_size, chunk_size ON items BEGIN
    UPDATE totals SET
        size = size + ifnull(new.index_size, 0) + ifnull(new.chunk_size, 0)
            - ifnull(old.index_size, 0) - ifnull(old.chunk_size, 0),
        entries = entries + (new.index_size IS NOT NULL) + (new.chunk_size IS NOT NULL)
            - (old.index_size IS NOT NULL) - (old.chunk_size IS NOT NULL);
END;
CREATE TRIGGER item_goes AFTER DELETE ON items BEGIN
    UPDATE totals SET
        size = size - ifnull(old.index_size, 0) - ifnull(old.chunk_size, 0),
        entries = entries - (old.index_size IS NOT NULL) - (old.chunk_size IS NOT NULL);
END;
CREATE TRIGGER hold_begins AFTER INSERT ON holds BEGIN
    UPDATE totals SET size = size + new.size, entries = entries + new.entries;
END;
CREATE TRIGGER hold_changes AFTER UPDATE OF size, entries ON holds BEGIN
    UPDATE totals SET size = size + new.size - old.size, entries = entries + new.entries - old.entries;
END;
CREATE TRIGGER hold_ends AFTER DELETE ON holds BEGIN
    UPDATE totals SET size = size - old.size, entries = entries - old.entries;
END;
CREATE TRIGGER pin_begins AFTER INSERT ON holds WHEN new.kind IS NULL BEGIN
    INSERT OR IGNORE INTO pinned
        SELECT substr(new.digests, key * 32 + 1, 32), new.id FROM json_each(new.sizes);
END;
CREATE TRIGGER write_becomes_pin AFTER UPDATE OF kind ON holds WHEN new.kind IS NULL BEGIN
    INSERT OR IGNORE INTO pinned
        SELECT substr(new.digests, key * 32 + 1, 32), new.id FROM json_each(new.sizes);
END;
CREATE TRIGGER pin_ends AFTER DELETE ON holds WHEN old.kind IS NULL BEGIN
    DELETE FROM pinned WHERE (digest, hold) IN (
        SELECT substr(old.digests, key * 32 + 1, 32), old.id FROM json_each(old.sizes));
END;
"""


def is_there(connection: sqlite3.Connection) -> bool:
    """Tell whether the tables are there, and these ones; raise `sqlite3.DatabaseError` for a damaged file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return (application, version) == (APPLICATION_ID, VERSION)


def is_own(connection: sqlite3.Connection) -> bool:
    """Tell whether the file was made for a journal, of whatever version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return bool(application == APPLICATION_ID)


def is_whole(connection: sqlite3.Connection, boot: str) -> bool:
    """Tell whether the file is sound: its tables, the rows that are always there, and once a start all of it.

    Only a machine that dies can damage it, unless somebody else writes to it.
    """
    # First of all: a view of the name of a table could do anything.
    if not has_own_tables(connection, _TABLES):
        return False
    facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
    totals = connection.execute("SELECT typeof(size), typeof(entries) FROM totals").fetchall()
    if (
        not facts.keys() >= {"boot", "scanned", "scan"}
        or not all(isinstance(facts[name], int | float) for name in ("scanned", "scan"))
        or totals != [("integer", "integer")]
    ):
        return False
    if facts["boot"] == boot:
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
