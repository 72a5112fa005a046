"""A set of digests and a list of items as large as a service may be, of which little is in memory.

What is more lies in a temporary file without a name, which goes with the process.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Final

from castore.contract.upkeep import StoredItem
from castore.databases import OwnedConnection
from castore.digest import B3Digest
from castore.errors import UnavailableError

_MOST_DIGESTS: Final = 1 << 17
"""So many are in memory, of 100 bytes each."""

_MOST_BYTES: Final = 4 << 20
"""Of the lines of a list."""

_PLACE: Final = "the temporary folder"
_CACHE_KIB: Final = 8 << 10


class DigestSet:
    """Digests, each once. It is used by one thread at a time, and closed in the end.

    What goes wrong with the temporary file raises `UnavailableError`.
    """

    def __init__(self) -> None:
        # Plain bytes: a fifth smaller than digests, and equal to them.
        self._latest: set[bytes] = set()
        self._stored = 0
        self._database: sqlite3.Connection | None = None

    def add(self, digest: bytes) -> bool:
        """Add a digest; return whether it is new."""
        if digest in self:
            return False
        if len(self._latest) >= _MOST_DIGESTS:
            self._store()
        self._latest.add(bytes(digest))
        return True

    def update(self, digests: Iterable[bytes]) -> None:
        """Add digests."""
        # Those that are stored already are found out when the others are.
        remaining = iter(digests)
        while some := list(islice(remaining, 1024)):
            self._latest.update(map(bytes, some))
            if len(self._latest) >= _MOST_DIGESTS:
                self._store()

    def __contains__(self, digest: object) -> bool:
        if digest in self._latest:
            return True
        if self._database is None or not isinstance(digest, bytes):
            return False
        with _reporting():
            found = self._database.execute("SELECT 1 FROM digests WHERE digest = ?", (bytes(digest),))
            return found.fetchone() is not None

    def __len__(self) -> int:
        if self._database is not None:
            self._store()
        return self._stored + len(self._latest)

    def _store(self) -> None:
        with _reporting():
            if self._database is None:
                self._database = sqlite3.connect(
                    "", isolation_level=None, check_same_thread=False, factory=OwnedConnection
                )
                self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                self._database.execute("PRAGMA journal_mode = OFF")
                self._database.execute("CREATE TABLE digests (digest BLOB PRIMARY KEY) WITHOUT ROWID")
            self._database.execute("BEGIN")
            # In order: neighbours are on one page.
            rows = ((digest,) for digest in sorted(self._latest))
            cursor = self._database.executemany("INSERT OR IGNORE INTO digests VALUES (?)", rows)
            self._database.execute("COMMIT")
            self._stored += cursor.rowcount
        self._latest.clear()

    def close(self) -> None:
        """Forget them."""
        self._latest.clear()
        if self._database is not None:
            self._database.close()


class ItemList:
    """Items in the order in which they were added. It is gone through once, and closed in the end.

    What goes wrong with the temporary file raises `UnavailableError`.
    """

    def __init__(self) -> None:
        self._lines: IO[str] = tempfile.SpooledTemporaryFile(_MOST_BYTES, "w+", encoding="ascii")  # noqa: SIM115 - it goes with the list

    def add(self, item: StoredItem) -> None:
        """Add an item to the end."""
        digest = None if item.digest is None else item.digest.hex()
        entry = [item.kind, item.key, digest, item.size, item.modified, item.foreign]
        with _reporting():
            self._lines.write(json.dumps(entry) + "\n")

    def take(self) -> Iterator[StoredItem]:
        """Yield all items, and forget them."""
        with _reporting():
            self._lines.seek(0)
        while True:
            with _reporting():
                line = self._lines.readline()
            if not line:
                break
            kind, key, digest, size, modified, foreign = json.loads(line)
            yield StoredItem(
                kind, key, None if digest is None else B3Digest.fromhex(digest), size, modified, foreign
            )
        with _reporting():
            self._lines.seek(0)
            self._lines.truncate()

    def close(self) -> None:
        """Forget them."""
        self._lines.close()


@contextlib.contextmanager
def _reporting() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(_PLACE, error) from error
