"""Directories as rows of one SQLite file, each by its digest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeVar

from castore import B3Digest, CastoreError, CorruptDirectoryError, MissingDirectoryError, WriterClosedError
from castore.contract.capabilities import Durable
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    DirectoryWriter,
    FoundDirectories,
)
from castore.format.closures import MOST_FRAME, LeavesToRoot
from castore.format.directories import Directory, decode_checked
from castore.format.nodes import DirectoryNode
from castore_sqlite import faults, rows
from castore_sqlite.database import Database

P = TypeVar("P")

_SMALL: Final = 64 << 10
"""Longer encodings are read one by one."""

_MOST_WAITING: Final = 32 << 20
"""How many bytes of a tree wait for its end; with more, what is there is written before."""

_PAGE: Final = 1000
"""How many digests a query of a listing gives."""

_ENCODING: Final = (
    "CASE WHEN typeof(encoding) <> 'blob' THEN x''"
    f" WHEN length(encoding) <= {_SMALL} THEN encoding ELSE length(encoding) END"
)
_GET: Final = f"SELECT digest, modified, {_ENCODING} FROM directories WHERE digest IN (VALUES {{0}})"
_GET_LONG: Final = "SELECT encoding FROM directories WHERE digest = ?"
_FIND: Final = "SELECT digest FROM directories WHERE digest IN (VALUES {0})"
_LIST: Final = "SELECT digest FROM directories WHERE digest > ? ORDER BY digest LIMIT ?"
_PUT: Final = (
    "INSERT INTO directories (digest, modified, encoding) VALUES (?, ?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET modified = excluded.modified, encoding = excluded.encoding"
)
_RENEW: Final = "UPDATE directories SET modified = ? WHERE digest = ?"


class SqliteDirectoryService(DirectoryService, AnyDirectory, Complete, DirectoryLister, Durable):
    """Keeps directories in a `Database` with the table `schema.DIRECTORIES`.

    A tree is written in one transaction, unless it is very large; a directory whose children are not there
    is refused, unless it need not be *complete*. A row that is damaged is replaced when its directory is put
    again.
    """

    def __init__(self, database: Database, *, complete: bool = True) -> None:
        self._database = database
        self._complete = complete

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:  # noqa: ARG002 - each is a row
        """Return those that have rows, by a query for some hundreds of them."""
        found: FoundDirectories = {}
        for query, group in rows.queries(_GET, dict.fromkeys(digests)):
            for raw, _, value in self._database.fetch(query, group):
                digest = B3Digest(raw)
                found[digest] = self._read(digest, value)
        return found

    def _read(self, digest: B3Digest, value: Any) -> Directory | CastoreError:
        key = f"{self._database.path}: directories/{digest}"
        if isinstance(value, int) and value > MOST_FRAME:
            message = f"directory {digest} is corrupt: it has {value} bytes, more than any"
            return CorruptDirectoryError(message, expected=digest, key=key)
        try:
            if isinstance(value, int):
                long = self._database.fetch(_GET_LONG, rows.one(digest))
                value = long[0][0] if long else b""
            return decode_checked(rows.as_bytes(value), digest, key=key)
        except CastoreError as error:
            return error

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that have no row."""
        absent = set(digests)
        for query, group in rows.queries(_FIND, tuple(absent)):
            absent.difference_update(B3Digest(found) for (found,) in self._database.fetch(query, group))
        return absent

    def put_many(self, directories: Collection[Directory]) -> None:
        """Write rows in one transaction."""
        encodings = {directory.digest: directory.encoded for directory in directories}
        needed: dict[B3Digest, bytes] = {}
        if self._complete:
            for directory in directories:
                needed |= {node.digest: name for name, node in directory.directories}
        self.write(encodings, {child: needed[child] for child in needed.keys() - encodings.keys()})

    def write(
        self, encodings: Mapping[B3Digest, bytes], needed: Mapping[B3Digest, bytes], *, lasting: bool = True
    ) -> None:
        """Write rows in one transaction, if those that they need are there.

        Arguments:
            encodings: What to write, by digests.
            needed: Directories that must be there, each with a name that it has in another.
            lasting: Whether it is to be on the disk in the end.

        Raises `MissingDirectoryError`, or `UnavailableError`; nothing is written then.
        """
        with self._database.writing(lasting=lasting) as connection:
            _require(connection, needed)
            _put(connection, encodings)

    def open_write(self) -> DirectoryWriter:
        """Start a tree, which is written in the end."""
        return _TreeWriter(self) if self._complete else super().open_write()

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability; where children may be missing trees need not be complete."""
        return None if kind is Complete and not self._complete else super().capability(kind)

    def list_directories(self) -> Iterator[B3Digest]:
        """Yield the digests of all rows."""
        last = b""
        while found := self._database.fetch(_LIST, (last, _PAGE)):
            for (digest,) in found:
                if not isinstance(digest, bytes) or digest <= last:
                    raise self._in_disorder()
                last = digest
                if len(digest) == len(B3Digest.of(b"")):
                    yield B3Digest(digest)

    def _in_disorder(self) -> CastoreError:
        from castore import UnavailableError  # noqa: PLC0415 - it is rare

        said = faults.damaged("its rows are in disorder", self._database.path)
        return UnavailableError(self._database.instance, said)

    @property
    def durability(self) -> Literal["process", "full"]:
        """What a tree survives whose writer was closed."""
        return self._database.durability

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


def _require(connection: sqlite3.Connection, needed: Mapping[B3Digest, bytes]) -> None:
    there = {
        B3Digest(found)
        for query, group in rows.queries(_FIND, needed)
        for (found,) in connection.execute(query, group)
    }
    for digest in needed:
        if digest not in there:
            raise MissingDirectoryError(digest, path=needed[digest] or None)


def _put(connection: sqlite3.Connection, encodings: Mapping[B3Digest, bytes]) -> None:
    """Write rows; of those that are right already only old times are renewed."""
    right: set[bytes] = set()
    stale: list[bytes] = []
    is_fresh = rows.freshness()
    for query, group in rows.queries(_GET, encodings):
        for digest, modified, value in connection.execute(query, group):
            there = (
                connection.execute(_GET_LONG, (digest,)).fetchone()[0] if isinstance(value, int) else value
            )
            if there == encodings[B3Digest(digest)]:
                right.add(digest)
                if not is_fresh(modified):
                    stale.append(digest)
    time = rows.now()
    new = ((bytes(digest), time, data) for digest, data in encodings.items() if digest not in right)
    connection.executemany(_PUT, new)
    connection.executemany(_RENEW, ((time, digest) for digest in stale))


class _TreeWriter(DirectoryWriter):
    """Keeps encodings until there are many, or the tree ends: they take less than directories."""

    def __init__(self, service: SqliteDirectoryService) -> None:
        self._service = service
        self._order = LeavesToRoot()
        self._waiting: dict[B3Digest, bytes] = {}
        self._size = 0
        self._grafted: dict[B3Digest, bytes] = {}
        self._root: B3Digest | None = None
        self._ended = False

    def put(self, directory: Directory) -> B3Digest:
        self._require_open()
        if self._order.accept(directory):
            self._waiting[directory.digest] = directory.encoded
            self._size += len(directory.encoded)
            if self._size >= _MOST_WAITING:
                self._flush(lasting=False)
                self._ended = False
        return directory.digest

    def graft(self, node: DirectoryNode) -> None:
        self._require_open()
        if node.digest not in self._order:
            self._order.take_for_granted(node.digest, node.size)
            self._grafted[node.digest] = b""

    def _flush(self, *, lasting: bool) -> None:
        # What fails here is not whole, and cannot become so any more.
        self._ended = True
        waiting, self._waiting, self._size = self._waiting, {}, 0
        grafted, self._grafted = self._grafted, {}
        self._service.write(waiting, grafted, lasting=lasting)

    def close(self) -> B3Digest:
        if self._root is None:
            self._require_open()
            root = self._order.finish()
            self._flush(lasting=True)
            self._root = root
        return self._root

    def abort(self) -> None:
        self._ended = True
        self._waiting = {}
        self._grafted = {}

    def _require_open(self) -> None:
        if self._ended:
            raise WriterClosedError("the writer of this tree was closed, or aborted, or has failed")
