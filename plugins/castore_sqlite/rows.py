"""The statements on chunks and indexes, and the rules for those that are there already."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

from castore import B3Digest, ChunkMeta
from castore.digest import no_digest
from castore.errors import BadIndexError
from castore.format import blob_index, frames

Table: TypeAlias = Literal["chunks", "indexes"]
Fetch: TypeAlias = Callable[[str, Sequence[object]], Iterable[tuple[Any, ...]]]
"""Makes a query with parameters."""

_SIZES: Final = (1, 32, 400)
"""How many digests a query asks for: each version of SQLite takes 999 parameters, but binding them costs."""

FRESH_SECONDS: Final = 60.0
"""How old the time of a row may be before a claim renews it."""

_SMALL: Final = 64 << 10
"""Longer indexes are read one by one, in pieces: there may be any number of bytes in a row."""

_PIECE: Final = 4 << 20
"""Each piece costs SQLite a look at the whole row."""

_MOST_FRAMES: Final = 32 << 20
"""How many bytes a query for chunks gives at most, unless a single one has more."""

GET_CHUNKS: Final = (
    "SELECT digest, CASE WHEN typeof(frame) <> 'blob' THEN x'' WHEN length(frame) <= ? THEN frame END"
    " FROM chunks WHERE digest IN (VALUES {0})"
)
_INDEX: Final = (
    "CASE WHEN typeof(chunks) <> 'blob' THEN x''"
    f" WHEN length(chunks) <= {_SMALL} THEN chunks ELSE length(chunks) END"
)
GET_INDEX: Final = f"SELECT {_INDEX} FROM indexes WHERE digest = ?"
_GET_PIECE: Final = "SELECT substr(chunks, ?, ?) FROM indexes WHERE digest = ?"
_PUT_CHUNK: Final = (
    "INSERT INTO chunks (digest, modified, frame) VALUES (?, ?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET modified = excluded.modified, frame = excluded.frame"
)
_PUT_INDEX: Final = (
    "INSERT INTO indexes (digest, modified, chunks) VALUES (?, ?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET modified = excluded.modified, chunks = excluded.chunks"
)
FIND: Final = (
    "WITH wanted (digest) AS (VALUES {0}) SELECT digest FROM wanted"
    " WHERE EXISTS (SELECT 1 FROM chunks WHERE chunks.digest = wanted.digest)"
    " OR EXISTS (SELECT 1 FROM indexes WHERE indexes.digest = wanted.digest)"
)
FIND_TIMES: Final = "SELECT digest, modified FROM chunks WHERE digest IN (VALUES {0})"
FIND_INDEXES: Final = f"SELECT digest, modified, {_INDEX} FROM indexes WHERE digest IN (VALUES {{0}})"
FIND_WITH_CHUNKS: Final = (
    f"SELECT i.digest, i.modified, {_INDEX}, c.modified FROM indexes i"
    " LEFT JOIN chunks c ON c.digest = i.digest WHERE i.digest IN (VALUES {0})"
)
"""Indexes, and beside each the time of the chunk of the same digest, if there is one."""
_MARKS: Final = {size: ", ".join(["(?)"] * size) for size in _SIZES}
_RENEW: Final[dict[Table, str]] = {
    "chunks": "UPDATE chunks SET modified = ? WHERE digest IN (VALUES {0})",
    "indexes": "UPDATE indexes SET modified = ? WHERE digest IN (VALUES {0})",
}
_ARE_THERE: Final[dict[Table, str]] = {
    "chunks": "SELECT digest FROM chunks WHERE digest IN (VALUES {0})",
    "indexes": "SELECT digest FROM indexes WHERE digest IN (VALUES {0})",
}


def now() -> int:
    """Return the time as rows have it."""
    return int(time.time() * 1000)


def freshness() -> Callable[[object], bool]:
    """Return what tells, for now, whether a row's time need not be renewed by a claim."""
    moment, most = now(), FRESH_SECONDS * 1000
    return lambda modified: isinstance(modified, int) and abs(moment - modified) < most


def one(digest: B3Digest) -> tuple[bytes]:
    """Return the parameter of a query for one digest; raise `TypeError` for what is none."""
    if not isinstance(digest, bytes):
        raise no_digest(digest)
    return (bytes(digest),)


def queries(statement: str, digests: Iterable[B3Digest]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield *statement* for some digests each time, with its parameters.

    There are only a few sizes, so that a statement need not be prepared anew; the last digest is repeated
    where there are too few.
    """
    remaining = iter(digests)
    while group := [one(digest)[0] for digest in islice(remaining, _SIZES[-1])]:
        size = next(size for size in _SIZES if size >= len(group))
        yield _for(statement, size), group + group[-1:] * (size - len(group))


@cache
def _for(statement: str, size: int) -> str:
    return statement.format(_MARKS[size])


def queries_for_frames(sizes: Mapping[B3Digest, int | None]) -> Iterator[tuple[str, list[object]]]:
    """Yield queries for the frames of chunks, with their parameters; a frame longer than it may be is `NULL`.

    *sizes* has what is known of the sizes in bytes.
    """
    lengths = {digest: frames.longest(size) for digest, size in sizes.items()}
    group: list[B3Digest] = []
    for digest in sorted(lengths, key=lengths.__getitem__):
        # Each may turn out to be as long as the longest.
        if group and (len(group) + 1) * lengths[digest] > _MOST_FRAMES:
            yield from _for_frames(group, lengths)
            group = []
        group.append(digest)
    yield from _for_frames(group, lengths)


def _for_frames(
    group: Sequence[B3Digest], lengths: Mapping[B3Digest, int]
) -> Iterator[tuple[str, list[object]]]:
    for query, parameters in queries(GET_CHUNKS, group):
        yield query, [max(lengths[digest] for digest in group), *parameters]


def read_index(fetch: Fetch, digest: B3Digest, found: bytes | int, key: str | None) -> Sequence[ChunkMeta]:
    """Return the index of a blob, of which a query has *found* the bytes, or how many they are.

    Raises `BadIndexError`.
    """
    if not isinstance(found, int):
        return blob_index.decode(found, digest, key=key)
    if found > blob_index.MAX_ENCODED_SIZE:
        raise BadIndexError(
            f"the index of blob {digest} has {found} bytes, more than any index", expected=digest, key=key
        )
    decoder = blob_index.IndexDecoder(digest, key=key)
    for start in range(0, found, _PIECE):
        for (piece,) in fetch(_GET_PIECE, (start + 1, _PIECE, bytes(digest))):
            decoder.feed(as_bytes(piece))
    return decoder.end()


def as_bytes(value: Any) -> bytes:
    """Return the bytes in a row; nothing if a damaged row has something else there."""
    return value if isinstance(value, bytes) else b""


def put_chunks(connection: sqlite3.Connection, packed: Mapping[B3Digest, bytes]) -> None:
    """Put frames, replacing those that are there."""
    time_ = now()
    connection.executemany(_PUT_CHUNK, ((bytes(digest), time_, frame) for digest, frame in packed.items()))


def put_indexes(connection: sqlite3.Connection, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
    """Put indexes; one that is there already counts as just put, and another list is replaced."""
    there = {
        digest: (modified, index)
        for query, group in queries(FIND_INDEXES, blobs)
        for digest, modified, index in connection.execute(query, group)
    }
    is_fresh = freshness()
    new, stale = [], []
    for digest, chunks in blobs.items():
        modified, found = there.get(digest, (None, None))
        if digest not in there or not is_list(connection.execute, digest, found, chunks):
            new.append((bytes(digest), now(), blob_index.encode(chunks)))
        elif not is_fresh(modified):
            stale.append(digest)
    connection.executemany(_PUT_INDEX, new)
    renew(connection, "indexes", stale)


def is_list(fetch: Fetch, digest: B3Digest, found: object, chunks: Sequence[ChunkMeta]) -> bool:
    """Tell whether an index lists these chunks; *found* as for `read_index`."""
    if not isinstance(found, int):
        return found == blob_index.encode(chunks)
    try:
        return blob_index.same_list(read_index(fetch, digest, found, None), chunks)
    except BadIndexError:
        return False


def renew(connection: sqlite3.Connection, table: Table, digests: Sequence[B3Digest]) -> set[B3Digest]:
    """Set the times of rows to now, many with one statement; return those that are there."""
    time_ = now()
    count = 0
    for query, group in queries(_RENEW[table], digests):
        count += connection.execute(query, (time_, *group)).rowcount
    if count == len(digests):
        return set(digests)
    # As a rule each is there that was there a moment ago.
    found = (connection.execute(query, group) for query, group in queries(_ARE_THERE[table], digests))
    return {B3Digest(digest) for rows in found for (digest,) in rows}
