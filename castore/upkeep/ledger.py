"""What was found right already, on disk: so that a verification needs little memory and can be resumed."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from typing import ClassVar, Final, Literal, TypeAlias

import attrs

from castore.databases import OwnedConnection, has_own_tables
from castore.digest import B3Digest
from castore.errors import CastoreError
from castore.upkeep.findings import Scope

Kind: TypeAlias = Literal["blob", "chunk", "sent"]

_SAVE_SECONDS: Final = 2.0
_VERSION: Final = 1

_LONGEST: Final = 1 << 20
_MOST_STEPS: Final = 1_000
"""Bounds of a row, in bytes, and of a statement, in millions of steps: a file may be of anybody."""

_MARK: Final = 0x63617374
"""SQLite's application id: without it a database is somebody else's, and not touched."""

_SCHEMA: Final = f"""
PRAGMA application_id = {_MARK};
CREATE TABLE about(about TEXT);
CREATE TABLE right_items(item BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class StateFileError(CastoreError):
    """The state file of a verification is none, is of another verification, or cannot be written."""

    code: ClassVar[str] = "state-file"


class Ledger:
    """The items that were found right, 33 bytes each in a SQLite database.

    Without a *path* that is a temporary file, of which a few MiB are kept in memory. With one, what was
    found right is saved there every other second, whole or not at all, and found there again.

    Arguments:
        path: The state file, which is made if it is not there.
        service: The name of the service; the file is refused if it is about another one.
        scope: What is to be checked, if the file does not say so already; see `scope`.

    `scope` is what is to be checked, and `found_before` how many items the file has brought along.
    Raises `StateFileError`.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, service: str = "", scope: Scope | None = None
    ) -> None:
        self._path = None if path is None else os.fspath(path)
        with self._reporting():
            # A generator may be ended by another thread than its own; two never use it at once.
            self._database = sqlite3.connect(
                self._path or "", check_same_thread=False, factory=OwnedConnection
            )
        try:
            with self._reporting():
                self._database.guard(longest=_LONGEST, steps=_MOST_STEPS)
            self.scope = self._begin(service, scope or Scope())
            self.found_before: int = self._database.execute("SELECT count(*) FROM right_items").fetchone()[0]
        except BaseException:
            self._database.close()
            raise
        self._saved = time.monotonic()

    def _begin(self, service: str, scope: Scope) -> Scope:
        """Take what the file says of itself, or say it there; return what is to be checked."""
        with self._reporting():
            mark = self._database.execute("PRAGMA application_id").fetchone()[0]
            tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                about = {"version": _VERSION, "service": service, **attrs.asdict(scope)}
                self._database.executescript(_SCHEMA)
                self._database.execute("INSERT INTO about VALUES (?)", (json.dumps(about),))
                self._database.commit()
                return scope
            if mark != _MARK or not has_own_tables(self._database, _SCHEMA):
                raise StateFileError(f"{self._path}: it is a database, but none of a verification")
            found = json.loads(self._database.execute("SELECT about FROM about").fetchone()[0])
            if found["version"] != _VERSION:
                raise StateFileError(f"{self._path}: it was written by another version of castore")
            if found["service"] != service:
                raise StateFileError(f"{self._path}: it is about `{found['service']}`, not about `{service}`")
            return Scope(found["sample"], found["seed"], found["since"])

    def has(self, kind: Kind, digest: B3Digest) -> bool:
        """Tell whether a blob or chunk was found right."""
        with self._reporting():
            query = self._database.execute("SELECT 1 FROM right_items WHERE item = ?", (_item(kind, digest),))
            return query.fetchone() is not None

    def add(self, kind: Kind, digest: B3Digest) -> bool:
        """Note that a blob or chunk was found right; return whether that is news."""
        with self._reporting():
            change = self._database.execute(
                "INSERT OR IGNORE INTO right_items VALUES (?)", (_item(kind, digest),)
            )
            if time.monotonic() - self._saved > _SAVE_SECONDS:
                self.save()
            return change.rowcount > 0

    def save(self) -> None:
        """Write to the file what was noted since the last time."""
        with self._reporting():
            self._database.commit()
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Remove the file: all was checked, and the next verification begins anew."""
        if self._path is not None:
            with self._reporting(), contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - it may be named by anything that is a path

    def close(self) -> None:
        """Save, and let go of the file."""
        try:
            self.save()
        finally:
            self._database.close()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except CastoreError:
            raise
        except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
            name = self._path or "the temporary list of what was checked"
            raise StateFileError(f"{name}: it cannot be used as a state file ({error})") from error


def _item(kind: Kind, digest: B3Digest) -> bytes:
    return kind[0].encode() + digest
