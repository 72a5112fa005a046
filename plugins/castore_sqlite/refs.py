"""Refs as rows of one SQLite file, which may have blobs as well."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final

from castore.contract.refs import ANY, Expected, FoundRefs, NamedRoot, RefService, check_name, is_below
from castore.errors import CorruptRefError
from castore.format import refs as written
from castore_sqlite import schema
from castore_sqlite.database import Database

_PAGE: Final = 1000
_ASKED: Final = 500

_HAS_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'refs'"
_REF: Final = f"CASE WHEN typeof(ref) = 'blob' AND length(ref) <= {written.LONGEST} THEN ref END"
_NAMES: Final = "SELECT name FROM refs WHERE name >= ? AND name < ? ORDER BY name LIMIT ?"
_GET: Final = f"SELECT name, {_REF} FROM refs WHERE name IN (VALUES {{0}})"
_SET: Final = "INSERT INTO refs VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET ref = excluded.ref"
_DELETE: Final = "DELETE FROM refs WHERE name = ?"


class SqliteRefService(RefService):
    """Keeps refs in a `Database`, in a table that is made with the first of them.

    What is compared and changed is in one transaction, in which nobody else writes.

    Arguments:
        database: The file.
        closes: Whether it is closed with the service.
    """

    def __init__(self, database: Database, *, closes: bool = False) -> None:
        self._database = database
        self._closes = closes
        self._has_table = False

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names, a query for a thousand of them."""
        bare = prefix.rstrip("/")
        # All that begins with it, and some more; no character of a name comes after these.
        begin, end = bare, f"{bare}\x7f"
        while rows := self._fetch(_NAMES, (begin, end, _PAGE)):
            begin = _text(rows[-1][0]) + "\x01"
            yield from (name for row in rows if _is_name(name := _text(row[0])) and is_below(name, prefix))

    def get_many(self, names: Iterable[str]) -> FoundRefs:
        """Return those that are there, a query for some hundreds of them."""
        wanted = list(dict.fromkeys(check_name(name) for name in names))
        found: FoundRefs = {}
        for start in range(0, len(wanted), _ASKED):
            some = wanted[start : start + _ASKED]
            for name, data in self._fetch(_GET.format(", ".join(["(?)"] * len(some))), some):
                try:
                    found[_text(name)] = self._decode(_text(name), data)
                except CorruptRefError as error:
                    found[_text(name)] = error
        return found

    def _fetch(self, statement: str, parameters: Any) -> list[tuple[Any, ...]]:
        self._has_table = self._has_table or bool(self._database.fetch(_HAS_TABLE))
        return self._database.fetch(statement, parameters) if self._has_table else []

    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:
        """Write the row."""
        check_name(name)
        data = written.encode(ref)
        with self._database.writing(lasting=True) as connection:
            if not schema.has_table(connection, schema.REFS):
                connection.execute(schema.REFS)
            if expect is not ANY and self._row(connection, name, read=True) != expect:
                return False
            connection.execute(_SET, (name, data))
        return True

    def delete(self, name: str, *, expect: Expected = ANY) -> bool:
        """Remove the row."""
        check_name(name)
        if expect is None or not self._fetch(_GET.format("(?)"), (name,)):
            return False
        with self._database.writing(lasting=True) as connection:
            found = self._row(connection, name, read=expect is not ANY)
            if found is None or (expect is not ANY and found != expect):
                return False
            connection.execute(_DELETE, (name,))
        return True

    def _row(self, connection: sqlite3.Connection, name: str, *, read: bool) -> Any:
        row = connection.execute(_GET.format("(?)"), (name,)).fetchone()
        if row is None:
            return None
        return self._decode(name, row[1]) if read else row

    def _decode(self, name: str, data: Any) -> NamedRoot:
        key = f"{self._database.path}: refs/{name}"
        if not isinstance(data, bytes):
            raise CorruptRefError(name, f"it is no row of {written.LONGEST} bytes at most", key=key)
        return written.decode(data, name, key=key)

    def close(self) -> None:
        """Close the file, if nobody else has it."""
        if self._closes:
            self._database.close()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True
