"""The statements on the tables of a journal. Whoever calls has the lock; what changes is in a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import attrs

from castore import B3Digest, ChunkMeta
from castore.contract.upkeep import StoredItem
from castore.digest import EMPTY
from castore_lru.bounds import Amount
from castore_lru.schema import CHUNK, INDEX

Kind = Literal["index", "chunk"]

_NUMBERS: Final[dict[Kind, int]] = {"index": INDEX, "chunk": CHUNK}
_KINDS: Final[dict[int, Kind]] = {INDEX: "index", CHUNK: "chunk"}

_PUT_ITEM: Final = (
    "INSERT INTO items (digest, kind, size, used, scan) VALUES (?, ?, ?, ?, (SELECT value FROM facts WHERE"
    " name = 'scan')) ON CONFLICT (digest, kind) DO UPDATE SET size = excluded.size,"
    " used = max(used, excluded.used), scan = excluded.scan, going = NULL"
)

# A chunk stays while a blob that it is a part of is pinned, or is about to get its index.
_CANDIDATES: Final = f"""
SELECT digest, kind, size, used FROM items
WHERE going IS NULL
  AND NOT EXISTS (SELECT 1 FROM pins WHERE pins.digest = items.digest)
  AND NOT EXISTS (SELECT 1 FROM writes WHERE writes.digest = items.digest)
  AND NOT (kind = {CHUNK} AND EXISTS (
    SELECT 1 FROM parts WHERE parts.chunk = items.digest AND (
      EXISTS (SELECT 1 FROM pins WHERE pins.digest = parts.blob)
      OR EXISTS (SELECT 1 FROM writes WHERE writes.digest = parts.blob))))
ORDER BY used, kind LIMIT ?
"""

_BROKEN: Final = f"""
SELECT DISTINCT parts.blob FROM parts JOIN items ON items.digest = parts.blob AND items.kind = {INDEX}
WHERE NOT EXISTS (SELECT 1 FROM items AS c WHERE c.digest = parts.chunk AND c.kind = {CHUNK})
  AND NOT EXISTS (SELECT 1 FROM writes WHERE writes.digest IN (parts.chunk, parts.blob))
"""


@attrs.frozen
class Entry:
    """An item as the journal has it."""

    kind: Kind
    digest: B3Digest
    size: int
    used: float


@attrs.frozen
class Write:
    """Something that is being written, by the number of its reservation."""

    number: int
    kind: Kind
    digest: B3Digest
    size: int


def totals(db: sqlite3.Connection) -> Amount:
    """Return what is there, and reserved, together."""
    return Amount(*db.execute("SELECT size, entries FROM totals").fetchone())


# -- items --


def put_item(db: sqlite3.Connection, item: StoredItem, used: float) -> None:
    """Take note of an item as it is now."""
    assert item.digest is not None
    assert item.kind != "residue"
    db.execute(_PUT_ITEM, (bytes(item.digest), _NUMBERS[item.kind], item.size or 0, used))


def drop_item(db: sqlite3.Connection, kind: Kind, digest: B3Digest) -> None:
    """Forget an item, and if it is an index what it is made of."""
    db.execute("DELETE FROM items WHERE digest = ? AND kind = ?", (bytes(digest), _NUMBERS[kind]))
    if kind == "index":
        db.execute("DELETE FROM parts WHERE blob = ?", (bytes(digest),))


def has_item(db: sqlite3.Connection, kind: Kind, digest: B3Digest) -> bool:
    """Tell whether the journal has an item."""
    found = db.execute(
        "SELECT 1 FROM items WHERE digest = ? AND kind = ? AND going IS NULL", (bytes(digest), _NUMBERS[kind])
    )
    return found.fetchone() is not None


def is_written(db: sqlite3.Connection, kind: Kind, digest: B3Digest) -> bool:
    """Tell whether somebody is writing an item, or has just done so."""
    found = db.execute("SELECT 1 FROM writes WHERE digest = ? AND kind = ?", (bytes(digest), _NUMBERS[kind]))
    return found.fetchone() is not None


def touch(db: sqlite3.Connection, digest: B3Digest, used: float) -> bool:
    """Take note of a use; return whether there is anything of this digest, stored or on its way."""
    changed = db.execute("UPDATE items SET used = max(used, ?) WHERE digest = ?", (used, bytes(digest)))
    return changed.rowcount > 0 or is_written(db, "chunk", digest) or is_written(db, "index", digest)


def candidates(db: sqlite3.Connection, count: int) -> Iterator[Entry]:
    """Yield some items that may go, those first that were not used for longest."""
    return map(_entry, db.execute(_CANDIDATES, (count,)))


def oldest_use(db: sqlite3.Connection) -> float | None:
    """Return when that was used which was not used for longest."""
    found: float | None = db.execute("SELECT min(used) FROM items").fetchone()[0]
    return found


# -- parts --


def add_parts(db: sqlite3.Connection, blob: B3Digest, chunks: Iterable[B3Digest]) -> None:
    """Take note of what a blob is made of."""
    rows = ((bytes(chunk), bytes(blob)) for chunk in chunks)
    db.executemany("INSERT OR IGNORE INTO parts (chunk, blob) VALUES (?, ?)", rows)


def drop_idle_parts(db: sqlite3.Connection, blob: B3Digest) -> None:
    """Forget what a blob is made of if it has no index, nor is about to get one."""
    if not has_item(db, "index", blob) and not is_written(db, "index", blob):
        db.execute("DELETE FROM parts WHERE blob = ?", (bytes(blob),))


def blobs_with(db: sqlite3.Connection, chunk: B3Digest) -> list[B3Digest]:
    """Return the blobs that a chunk is a part of."""
    return [
        B3Digest(blob) for (blob,) in db.execute("SELECT blob FROM parts WHERE chunk = ?", (bytes(chunk),))
    ]


def broken_blobs(db: sqlite3.Connection) -> list[B3Digest]:
    """Return the blobs whose index is there and one of whose chunks is not."""
    return [B3Digest(blob) for (blob,) in db.execute(_BROKEN)]


def part_digests(blob: B3Digest, chunks: Sequence[ChunkMeta]) -> list[B3Digest]:
    """Return the chunks of an index; without any in it, the blob is one, or empty."""
    if chunks:
        return [meta.digest for meta in chunks]
    return [] if blob == EMPTY else [blob]


# -- writes --


def begin_write(
    db: sqlite3.Connection, kind: Kind, digest: B3Digest, size: int, *, owner: str, since: float
) -> Write:
    """Reserve *size* bytes for an item."""
    cursor = db.execute(
        "INSERT INTO writes (owner, digest, kind, size, since) VALUES (?, ?, ?, ?, ?)",
        (owner, bytes(digest), _NUMBERS[kind], size, since),
    )
    assert cursor.lastrowid is not None
    return Write(cursor.lastrowid, kind, digest, size)


def end_write(db: sqlite3.Connection, write: Write) -> None:
    """Give back what is reserved."""
    db.execute("DELETE FROM writes WHERE id = ?", (write.number,))


def writes_of(db: sqlite3.Connection, owner: str) -> list[Write]:
    """Return what an owner has reserved."""
    rows = db.execute("SELECT id, kind, digest, size FROM writes WHERE owner = ?", (owner,))
    return [Write(number, _KINDS[kind], B3Digest(digest), size) for number, kind, digest, size in rows]


def written_since(db: sqlite3.Connection, digest: B3Digest | None = None) -> float | None:
    """Return since when something, or something of this digest, is being written."""
    where, parameters = ("", ()) if digest is None else (" WHERE digest = ?", (bytes(digest),))
    found: float | None = db.execute(f"SELECT min(since) FROM writes{where}", parameters).fetchone()[0]
    return found


# -- pins --


def pin(db: sqlite3.Connection, owner: str, tag: int, digest: B3Digest) -> None:
    """Keep a digest, and if it is that of a blob its chunks, until the tag is unpinned."""
    db.execute(
        "INSERT OR IGNORE INTO pins (owner, tag, digest) VALUES (?, ?, ?)", (owner, tag, bytes(digest))
    )


def unpin(db: sqlite3.Connection, owner: str, tags: Iterable[int]) -> None:
    """Let go of what was pinned by these tags."""
    db.executemany("DELETE FROM pins WHERE owner = ? AND tag = ?", ((owner, tag) for tag in tags))


def pinned_by(db: sqlite3.Connection, owner: str, tag: int) -> Amount:
    """Return how much is there that one tag has pinned."""
    row = db.execute(
        "SELECT coalesce(sum(size), 0), count(*) FROM (SELECT size, digest FROM items UNION ALL"
        " SELECT size, digest FROM writes) JOIN pins USING (digest) WHERE pins.owner = ? AND pins.tag = ?",
        (owner, tag),
    )
    return Amount(*row.fetchone())


def count_pinned(db: sqlite3.Connection) -> int:
    """Return how many digests are pinned."""
    found: int = db.execute("SELECT count(DISTINCT digest) FROM pins").fetchone()[0]
    return found


# -- owners --


def owners(db: sqlite3.Connection) -> list[str]:
    """Return all who take part, the dead among them."""
    return [name for (name,) in db.execute("SELECT owner FROM owners")]


def add_owner(db: sqlite3.Connection, owner: str) -> None:
    """Take note of one who takes part."""
    db.execute("INSERT OR IGNORE INTO owners VALUES (?)", (owner,))


def drop_owner(db: sqlite3.Connection, owner: str) -> None:
    """Forget an owner and its pins. What it was about to write or remove is looked after before."""
    db.execute("DELETE FROM pins WHERE owner = ?", (owner,))
    db.execute("DELETE FROM owners WHERE owner = ?", (owner,))


# -- removals --


def mark_going(db: sqlite3.Connection, owner: str, kind: Kind, digest: B3Digest) -> None:
    """Take note that an item is about to be removed."""
    db.execute(
        "UPDATE items SET going = ? WHERE digest = ? AND kind = ?", (owner, bytes(digest), _NUMBERS[kind])
    )


def going_of(db: sqlite3.Connection, owner: str) -> list[Entry]:
    """Return what an owner was about to remove."""
    rows = db.execute("SELECT digest, kind, size, used FROM items WHERE going = ?", (owner,))
    return [_entry(row) for row in rows]


def clear_going(db: sqlite3.Connection, owner: str) -> None:
    """Forget that an owner was about to remove anything."""
    db.execute("UPDATE items SET going = NULL WHERE going = ?", (owner,))


# -- facts --


def fact(db: sqlite3.Connection, name: str) -> Any:
    """Return what the journal knows under a name."""
    return db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]


def set_fact(db: sqlite3.Connection, name: str, value: object) -> None:
    """Replace it."""
    db.execute("UPDATE facts SET value = ? WHERE name = ?", (value, name))


def start_scan(db: sqlite3.Connection) -> int:
    """Return the number of a new scan; what is noted from now on has it."""
    number = int(fact(db, "scan")) + 1
    set_fact(db, "scan", number)
    return number


def mark_seen(db: sqlite3.Connection, kind: Kind, item: StoredItem, scan: int) -> bool:
    """Take note that a scan has seen an item; return False if the journal does not have it."""
    assert item.digest is not None
    digest = item.digest
    if is_written(db, kind, digest):
        return True
    changed = db.execute(
        "UPDATE items SET scan = ?, size = ? WHERE digest = ? AND kind = ?",
        (scan, item.size or 0, bytes(digest), _NUMBERS[kind]),
    )
    return changed.rowcount > 0


def unseen(db: sqlite3.Connection, scan: int, count: int) -> list[Entry]:
    """Return some items that a scan has not seen."""
    rows = db.execute("SELECT digest, kind, size, used FROM items WHERE scan < ? LIMIT ?", (scan, count))
    return [_entry(row) for row in rows]


def _entry(row: Sequence[Any]) -> Entry:
    digest, kind, size, used = row
    return Entry(_KINDS[kind], B3Digest(digest), size, used)
