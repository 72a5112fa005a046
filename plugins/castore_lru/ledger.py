"""The statements on the tables of a journal. Whoever calls has the lock; what changes is in a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import attrs

from castore import B3Digest, ChunkMeta
from castore.contract.upkeep import ItemKind
from castore.digest import EMPTY
from castore_lru.bounds import Amount
from castore_lru.schema import CHUNK, INDEX, LEASED

KINDS: Final[tuple[ItemKind, ...]] = ("index", "chunk")

_NUMBERS: Final[dict[ItemKind, int]] = {"index": INDEX, "chunk": CHUNK}
_KINDS: Final[dict[int, ItemKind]] = {INDEX: "index", CHUNK: "chunk"}

_DIGEST: Final = len(EMPTY)

# The digests of a statement, with a number each.
_GIVEN: Final = (
    "(SELECT substr(:digests, key * 32 + 1, 32) AS digest, value FROM json_each(:numbers)) AS given"
)
_AMONG: Final = "IN (SELECT substr(:digests, key * 32 + 1, 32) FROM json_each(:numbers))"
_LISTED_IDS: Final = "IN (SELECT value FROM json_each(?))"


def _of_kinds(statement: str) -> dict[ItemKind, str]:
    return {kind: statement.format(kind=kind, number=_NUMBERS[kind]) for kind in KINDS}


_PUT_ITEMS: Final = _of_kinds(
    "INSERT INTO items (digest, {kind}_size, {kind}_scan, used)"
    " SELECT digest, value, (SELECT value FROM facts WHERE name = 'scan'), :used"
    f" FROM {_GIVEN} WHERE true"
    " ON CONFLICT (digest) DO UPDATE SET {kind}_size = excluded.{kind}_size,"
    " {kind}_scan = excluded.{kind}_scan, used = max(used, excluded.used), going = NULL"
)
_DROP_KIND: Final = _of_kinds(f"UPDATE items SET {{kind}}_size = NULL WHERE digest {_AMONG}")
_DROP_EMPTY: Final = f"DELETE FROM items WHERE digest {_AMONG} AND index_size IS NULL AND chunk_size IS NULL"
_ADD_PARTS: Final = f"INSERT OR IGNORE INTO parts (chunk, blob) SELECT digest, :blob FROM {_GIVEN}"
_FORGET_PARTS: Final = (
    f"DELETE FROM parts WHERE blob {_AMONG} AND blob NOT IN (SELECT digest FROM written WHERE kind = {INDEX})"
)
_LISTED: Final = f"SELECT DISTINCT blob FROM parts WHERE blob {_AMONG}"
_BLOBS_WITH: Final = f"SELECT DISTINCT blob FROM parts WHERE chunk {_AMONG}"

_LARGER_INDEXES: Final = (
    f"SELECT items.digest FROM {_GIVEN} CROSS JOIN items ON items.digest = given.digest WHERE index_size > 0"
)
# Every row is there, so each is updated; an `UPDATE ... FROM` is too new for some.
_TOUCH: Final = (
    f"INSERT INTO items (digest, used) SELECT items.digest, value FROM {_GIVEN}"
    " CROSS JOIN items ON items.digest = given.digest WHERE items.used < value - :exact"
    " ON CONFLICT (digest) DO UPDATE SET used = excluded.used"
)

# What is written is gone through once, and only for those of which there is no item.
_NOT_WRITTEN: Final = _of_kinds(
    f"SELECT digest FROM {_GIVEN} WHERE digest NOT IN (SELECT digest FROM written WHERE kind = {{number}})"
)
_LACKING: Final = _of_kinds(
    f"SELECT digest FROM {_GIVEN} WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.digest = given.digest"
    " AND items.{kind}_size IS NOT NULL AND items.going IS NULL)"
)
_COUNT_USED: Final = _of_kinds(
    f"SELECT count(*) FROM {_GIVEN} CROSS JOIN items ON items.digest = given.digest"
    " WHERE {kind}_size IS NOT NULL AND going IS NULL AND used >= :since"
)
_USE: Final = _of_kinds(
    f"UPDATE items SET used = :used WHERE digest {_AMONG}"
    " AND {kind}_size IS NOT NULL AND going IS NULL AND used < :since"
)
_STRANGE: Final = (
    f"SELECT digest FROM {_GIVEN} WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.digest = given.digest)"
    " AND digest NOT IN (SELECT digest FROM written)"
)

# A chunk stays while a blob that it is a part of is pinned, or is about to get its index.
_CANDIDATES: Final = """
SELECT digest, index_size, chunk_size, used FROM items
WHERE going IS NULL
  AND digest NOT IN (SELECT digest FROM held WHERE kind IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM pinned WHERE pinned.digest = items.digest)
  AND NOT (chunk_size IS NOT NULL AND EXISTS (
    SELECT 1 FROM parts WHERE parts.chunk = items.digest AND (
      parts.blob IN (SELECT digest FROM held WHERE kind IS NOT NULL)
      OR EXISTS (SELECT 1 FROM pinned WHERE pinned.digest = parts.blob))))
ORDER BY used LIMIT ?
"""

# The chunk of no bytes stands for those of an index that cannot be read.
_BROKEN: Final = f"""
SELECT parts.blob FROM parts JOIN items ON items.digest = parts.blob AND items.index_size IS NOT NULL
WHERE parts.chunk != x''
  AND NOT EXISTS (SELECT 1 FROM items AS c WHERE c.digest = parts.chunk AND c.chunk_size IS NOT NULL)
  AND parts.chunk NOT IN (SELECT digest FROM written) AND parts.blob NOT IN (SELECT digest FROM written)
UNION
SELECT digest FROM items
WHERE index_size IS NOT NULL AND chunk_size IS NULL AND digest != x'{EMPTY.hex()}'
  AND NOT EXISTS (SELECT 1 FROM parts WHERE parts.blob = items.digest)
  AND digest NOT IN (SELECT digest FROM written)
"""

_SEEN: Final = _of_kinds(
    "INSERT INTO items (digest, {kind}_size, {kind}_scan, used)"
    f" SELECT items.digest, value, :scan, used FROM {_GIVEN}"
    " CROSS JOIN items ON items.digest = given.digest WHERE items.{kind}_size IS NOT NULL"
    " AND items.digest NOT IN (SELECT digest FROM written WHERE kind = {number})"
    " ON CONFLICT (digest) DO UPDATE SET {kind}_size = excluded.{kind}_size,"
    " {kind}_scan = excluded.{kind}_scan"
)
_UNSEEN: Final = _of_kinds(
    "SELECT digest FROM items WHERE {kind}_size IS NOT NULL AND {kind}_scan < ? LIMIT ?"
)

_BEGIN: Final = (
    "INSERT INTO holds (owner, tag, kind, digests, sizes, size, entries, since)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
# Blobs of one chunk get their indexes with it, which take nothing: a second statement would cost as much.
_PUT_CHUNKS: Final = (
    "INSERT INTO items (digest, chunk_size, chunk_scan, index_size, index_scan, used)"
    " SELECT substr(digests, key * 32 + 1, 32), json_each.value, scan, :index_size, scan, :used"
    " FROM holds JOIN json_each(sizes) JOIN (SELECT value AS scan FROM facts WHERE name = 'scan')"
    " WHERE holds.id IN (SELECT value FROM json_each(:writes))"
    " ON CONFLICT (digest) DO UPDATE SET chunk_size = excluded.chunk_size,"
    " chunk_scan = excluded.chunk_scan, index_size = ifnull(index_size, excluded.index_size),"
    " used = max(used, excluded.used), going = NULL"
)
_WRITTEN_SINCE: Final = (
    "SELECT min(since) FROM holds WHERE entries AND EXISTS (SELECT 1 FROM json_each(holds.sizes)"
    f" WHERE substr(holds.digests, json_each.key * 32 + 1, 32) {_AMONG})"
)
_PINNED_BY: Final = (
    "SELECT sum(size), sum(entries) FROM ("
    " SELECT ifnull(index_size, 0) + ifnull(chunk_size, 0) AS size,"
    " (index_size IS NOT NULL) + (chunk_size IS NOT NULL) AS entries"
    " FROM items WHERE digest IN (SELECT digest FROM held WHERE owner = ? AND tag = ?)"
    " UNION ALL SELECT size, entries FROM holds WHERE owner = ? AND tag = ?)"
)
_COUNT_PINNED: Final = "SELECT count(DISTINCT digest) FROM held WHERE tag IS NOT NULL"


def _given(
    digests: Collection[B3Digest], numbers: Iterable[float] | None = None, **others: Any
) -> dict[str, Any]:
    return {"digests": b"".join(digests), "numbers": _list_of(numbers, len(digests)), **others}


def _list_of(numbers: Iterable[float] | None, count: int) -> str:
    if numbers is None:
        return f"[{','.join('0' * count)}]"
    return json.dumps(list(numbers))


def _digests(rows: Iterable[Sequence[Any]]) -> list[B3Digest]:
    return [_digest(digest) for (digest,) in rows]


def _digest(value: object) -> B3Digest:
    """Return what a row has as a digest; raise `sqlite3.DatabaseError` if it is none."""
    if not isinstance(value, bytes) or len(value) != _DIGEST:
        raise sqlite3.DatabaseError("a row has no digest where one belongs")
    return B3Digest(value)


@attrs.frozen
class Entry:
    """What the journal has of a digest: its index, its chunk, or both.

    Attributes:
        digest: Of the blob or chunk, or both.
        kinds: What there is.
        size: In bytes, together.
        used: When it was used last.
    """

    digest: B3Digest
    kinds: tuple[ItemKind, ...]
    size: int
    used: float


@attrs.define(eq=False)
class Write:
    """Items that are being written, or have just been.

    Attributes:
        number: That of the hold.
        kind: What they are.
        digests: Theirs.
        size: How many bytes are reserved for them.
        tag: What they are pinned by.
        put: Whether it is known that all of them were put.
        many: Whether they are to be pinned one by one when that is over.
        relisted: Blobs among them that had chunks before, each with those that its index has when it is put.
    """

    number: int
    kind: ItemKind
    digests: AbstractSet[B3Digest]
    size: int
    tag: int | None = None
    put: bool = False
    many: bool = False
    relisted: Mapping[B3Digest, Sequence[ChunkMeta]] = attrs.field(factory=dict)


def totals(db: sqlite3.Connection) -> Amount:
    """Return what is there, and reserved, together."""
    found = db.execute("SELECT size, entries FROM totals").fetchone()
    if found is None:
        raise sqlite3.DatabaseError("the totals are missing")
    return Amount(*found)


# -- items --


def put_items(
    db: sqlite3.Connection, kind: ItemKind, sizes: Mapping[B3Digest, int], used: float = 0.0
) -> None:
    """Take note of items as they are now; those that were used later stay so."""
    db.execute(_PUT_ITEMS[kind], _given(sizes, sizes.values(), used=used))


def drop_items(db: sqlite3.Connection, kind: ItemKind, digests: Collection[B3Digest]) -> None:
    """Forget items, and what those are made of that are indexes, unless they are being written."""
    given = _given(digests)
    db.execute(_DROP_KIND[kind], given)
    db.execute(_DROP_EMPTY, given)
    if kind == "index":
        db.execute(_FORGET_PARTS, given)


def use(
    db: sqlite3.Connection, kind: ItemKind, digests: Collection[B3Digest], used: float, *, same_use: float
) -> int:
    """Take note that items were used; return how many of them the journal has."""
    given = _given(digests, used=used, since=used - same_use)
    lately: int = db.execute(_COUNT_USED[kind], given).fetchone()[0]
    return lately if lately == len(digests) else lately + db.execute(_USE[kind], given).rowcount


def lacking(db: sqlite3.Connection, kind: ItemKind, digests: Collection[B3Digest]) -> list[B3Digest]:
    """Return those of which the journal has no item."""
    return _digests(db.execute(_LACKING[kind], _given(digests)))


def not_written(db: sqlite3.Connection, kind: ItemKind, digests: Collection[B3Digest]) -> list[B3Digest]:
    """Return those that nobody is writing."""
    return _digests(db.execute(_NOT_WRITTEN[kind], _given(digests)))


def strangers(db: sqlite3.Connection, digests: Collection[B3Digest]) -> list[B3Digest]:
    """Return those of which the journal has nothing at all."""
    return _digests(db.execute(_STRANGE, _given(digests)))


def touch(db: sqlite3.Connection, uses: Mapping[B3Digest, float], *, exact: float = 0.0) -> None:
    """Take note of uses that are more than *exact* seconds later than the last one."""
    db.execute(_TOUCH, _given(uses, uses.values(), exact=exact))


def candidates(db: sqlite3.Connection, count: int) -> Iterator[Entry]:
    """Yield some digests whose items may go, those first that were not used for longest."""
    for digest, index, chunk, used in db.execute(_CANDIDATES, (count,)):
        kinds = tuple(kind for kind, size in zip(KINDS, (index, chunk), strict=True) if size is not None)
        yield Entry(_digest(digest), kinds, (index or 0) + (chunk or 0), used)


def oldest_use(db: sqlite3.Connection) -> float | None:
    """Return when that was used which was not used for longest."""
    found: float | None = db.execute("SELECT min(used) FROM items").fetchone()[0]
    return found


def end_future(db: sqlite3.Connection, now: float) -> None:
    """Let nothing have been used later than now: it would stay longest, whatever is used meanwhile."""
    db.execute("UPDATE items SET used = ? WHERE used > ?", (now, now))


# -- parts --


def add_parts(db: sqlite3.Connection, blob: B3Digest, chunks: Sequence[ChunkMeta] | None) -> None:
    """Take note of what a blob is made of; `None` if that cannot be known."""
    if chunks is None:
        db.execute("INSERT OR IGNORE INTO parts (chunk, blob) VALUES (x'', ?)", (bytes(blob),))
    elif chunks:
        db.execute(_ADD_PARTS, _given([meta.digest for meta in chunks], blob=bytes(blob)))


def find_listed(db: sqlite3.Connection, blobs: Collection[B3Digest]) -> list[B3Digest]:
    """Return those of *blobs* of which it is known what they are made of."""
    return _digests(db.execute(_LISTED, _given(blobs)))


def replace_parts(db: sqlite3.Connection, blob: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
    """Take note of what a blob is made of now, and of nothing else."""
    db.execute("DELETE FROM parts WHERE blob = ?", (bytes(blob),))
    add_parts(db, blob, chunks if len(chunks) > 1 else ())


def blobs_with(db: sqlite3.Connection, chunks: Collection[B3Digest]) -> list[B3Digest]:
    """Return the blobs that any of *chunks* is a part of, beside others."""
    return _digests(db.execute(_BLOBS_WITH, _given(chunks)))


def broken_blobs(db: sqlite3.Connection) -> list[B3Digest]:
    """Return the blobs whose index is there and one of whose chunks is not."""
    return _digests(db.execute(_BROKEN))


def needs_of(blob: B3Digest, chunks: Sequence[ChunkMeta]) -> Sequence[B3Digest]:
    """Return the chunks of an index in order; without any in it, the blob is one, or empty."""
    if chunks:
        return [meta.digest for meta in chunks]
    return () if blob == EMPTY else (blob,)


# -- what is being written, or pinned --


def begin_write(
    db: sqlite3.Connection,
    kind: ItemKind,
    sizes: Mapping[B3Digest, int],
    *,
    owner: str,
    tag: int | None,
    since: float,
) -> Write:
    """Reserve so many bytes for items, which stay until the write ends; a *tag* counts them among its own."""
    size = sum(sizes.values())
    numbers = _list_of(sizes.values(), len(sizes))
    row = (owner, tag, _NUMBERS[kind], b"".join(sizes), numbers, size, len(sizes), since)
    number = db.execute(_BEGIN, row).lastrowid
    assert number is not None
    return Write(number, kind, sizes.keys(), size, tag)


def end_writes(db: sqlite3.Connection, writes: Iterable[Write]) -> None:
    """Give back what is reserved, and let the items go."""
    db.execute(f"DELETE FROM holds WHERE id {_LISTED_IDS}", (_ids_of(writes),))


def end_writing(db: sqlite3.Connection, writes: Iterable[Write], *, many: bool) -> None:
    """Give back what is reserved; the items stay until the tag is unpinned."""
    kind = None if many else LEASED
    db.execute(
        f"UPDATE holds SET kind = ?, size = 0, entries = 0 WHERE id {_LISTED_IDS}", (kind, _ids_of(writes))
    )


def put_chunks(db: sqlite3.Connection, writes: Iterable[Write], used: float, *, are_blobs: bool) -> None:
    """Take note that all chunks of some writes are there, each with the most that it may take.

    With *are_blobs* each is a blob as well, whose index takes nothing, unless there was another one.
    """
    ids = _ids_of(writes)
    index_size = 0 if are_blobs else None
    db.execute(_PUT_CHUNKS, {"index_size": index_size, "used": used, "writes": ids})
    db.execute(f"INSERT INTO unsure SELECT id, digests FROM holds WHERE id {_LISTED_IDS}", (ids,))


def _ids_of(writes: Iterable[Write]) -> str:
    return json.dumps([write.number for write in writes])


def larger_indexes(db: sqlite3.Connection, blobs: Collection[B3Digest]) -> list[B3Digest]:
    """Return those whose index takes something, as one of several chunks does."""
    return _digests(db.execute(_LARGER_INDEXES, _given(blobs)))


def take_unsure(db: sqlite3.Connection) -> list[B3Digest]:
    """Return, and forget, some chunks that may take less than is known; none if there are no more."""
    while (row := db.execute("SELECT id, digests FROM unsure ORDER BY id LIMIT 1").fetchone()) is not None:
        number, digests = row
        db.execute("DELETE FROM unsure WHERE id = ?", (number,))
        given = _split(digests)
        # Others are gone.
        if there := set(given).difference(lacking(db, "chunk", given)):
            return list(there)
    return []


def writes_of(db: sqlite3.Connection, owner: str) -> list[Write]:
    """Return what an owner is writing."""
    rows = db.execute(
        "SELECT id, kind, digests, size, tag FROM holds WHERE owner = ? AND entries AND kind IN (?, ?)",
        (owner, *_KINDS),
    )
    return [
        Write(number, _KINDS[kind], set(_split(digests)), size, tag)
        for number, kind, digests, size, tag in rows
    ]


def _split(digests: object) -> list[B3Digest]:
    if not isinstance(digests, bytes):
        raise sqlite3.DatabaseError("a row has no digests where some belong")
    return [_digest(digests[at : at + _DIGEST]) for at in range(0, len(digests), _DIGEST)]


def written_since(db: sqlite3.Connection, digests: Collection[B3Digest] | None = None) -> float | None:
    """Return since when something, or something of these digests, is being written."""
    found: float | None
    if digests is None:
        (found,) = db.execute("SELECT min(since) FROM holds WHERE entries").fetchone()
    else:
        (found,) = db.execute(_WRITTEN_SINCE, _given(digests)).fetchone()
    return found


def pin(
    db: sqlite3.Connection,
    owner: str,
    tag: int,
    digests: Collection[B3Digest],
    *,
    since: float,
    many: bool = True,
) -> None:
    """Keep digests, and of blobs among them their chunks, until the tag is unpinned.

    Unless there may be *many* of all such they are gone through whenever something is evicted.
    """
    numbers = _list_of(None, len(digests))
    kind = None if many else LEASED
    db.execute(_BEGIN, (owner, tag, kind, b"".join(digests), numbers, 0, 0, since))


def unpin(db: sqlite3.Connection, owner: str, tags: Iterable[int]) -> None:
    """Let go of what was pinned by these tags."""
    db.executemany(
        "DELETE FROM holds WHERE owner = ? AND tag = ? AND NOT entries", [(owner, tag) for tag in tags]
    )


def pinned_by(db: sqlite3.Connection, owner: str, tag: int) -> Amount:
    """Return how much is there, or being written, that one tag keeps."""
    size, entries = db.execute(_PINNED_BY, (owner, tag) * 2).fetchone()
    return Amount(size or 0, entries or 0)


def count_pinned(db: sqlite3.Connection) -> int:
    """Return how many digests are pinned."""
    found: int = db.execute(_COUNT_PINNED).fetchone()[0]
    return found


# -- owners --


def owners(db: sqlite3.Connection) -> list[str]:
    """Return all who take part, the dead among them."""
    db.execute("DELETE FROM owners WHERE typeof(owner) != 'text'")  # Nobody calls itself so.
    return [name for (name,) in db.execute("SELECT owner FROM owners")]


def add_owner(db: sqlite3.Connection, owner: str) -> None:
    """Take note of one who takes part."""
    db.execute("INSERT OR IGNORE INTO owners VALUES (?)", (owner,))


def drop_owner(db: sqlite3.Connection, owner: str) -> None:
    """Forget an owner and its pins. What it was about to write or remove is looked after before."""
    db.execute("DELETE FROM holds WHERE owner = ?", (owner,))
    db.execute("DELETE FROM owners WHERE owner = ?", (owner,))


# -- removals --


def mark_going(db: sqlite3.Connection, owner: str, digests: Collection[B3Digest]) -> None:
    """Take note that items of these digests are about to be removed."""
    db.execute(f"UPDATE items SET going = :owner WHERE digest {_AMONG}", _given(digests, owner=owner))


def going_of(db: sqlite3.Connection, owner: str) -> list[B3Digest]:
    """Return what an owner was about to remove."""
    return _digests(db.execute("SELECT digest FROM items WHERE going = ?", (owner,)))


def clear_going(db: sqlite3.Connection, owner: str) -> None:
    """Forget that an owner was about to remove anything."""
    db.execute("UPDATE items SET going = NULL WHERE going = ?", (owner,))


# -- facts --


def fact(db: sqlite3.Connection, name: str) -> Any:
    """Return what the journal knows under a name."""
    found = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    if found is None:
        raise sqlite3.DatabaseError(f"the fact {name!r} is missing")
    return found[0]


def set_fact(db: sqlite3.Connection, name: str, value: object) -> None:
    """Replace it."""
    db.execute("UPDATE facts SET value = ? WHERE name = ?", (value, name))


def start_scan(db: sqlite3.Connection) -> int:
    """Return the number of a new scan; what is noted from now on has it."""
    number = int(fact(db, "scan")) + 1
    set_fact(db, "scan", number)
    return number


def mark_seen(
    db: sqlite3.Connection, kind: ItemKind, sizes: Mapping[B3Digest, int], scan: int
) -> list[B3Digest]:
    """Take note that a scan has seen items; return those that it lacks, and nobody is writing."""
    db.execute(_SEEN[kind], _given(sizes, sizes.values(), scan=scan))
    return not_written(db, kind, lacking(db, kind, sizes))


def unseen(db: sqlite3.Connection, kind: ItemKind, scan: int, count: int) -> list[B3Digest]:
    """Return some items that a scan has not seen."""
    return _digests(db.execute(_UNSEEN[kind], (scan, count)))
