"""The service: blobs as rows of one table in one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import BlobLister
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter

# Each version of SQLite allows at least 999 values in a statement.
_BATCH = 500

_TABLE = "CREATE TABLE IF NOT EXISTS blobs (digest BLOB NOT NULL PRIMARY KEY, data BLOB NOT NULL)"


class OneFileBlobService(BlobService, BlobLister):
    """Keeps each blob as a row in one SQLite file.

    Arguments:
        path: The file; it and its folder are made if they are not there.
        max_blob_size: The size in bytes of the largest blob that is taken.
        name: The name of the instance, for errors.

    Raises `UnavailableError` if the file cannot be opened or is no SQLite file.
    """

    def __init__(self, path: Path, *, max_blob_size: int, name: str) -> None:
        self._name = name
        self._max_blob_size = max_blob_size
        # One connection for all threads, one statement at a time: so `close` has one thing to close.
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without an isolation level each statement is a transaction of its own.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(name, error) from error
        try:
            self._rows("PRAGMA journal_mode = WAL")
            # A power cut may take the last blobs, never the file: as good as castore's own local stores.
            self._rows("PRAGMA synchronous = NORMAL")
            self._rows(_TABLE)
        except UnavailableError:
            self.close()
            raise

    def has(self, digest: B3Digest) -> bool:
        """Tell whether there is a row for *digest*."""
        return bool(self._rows("SELECT 1 FROM blobs WHERE digest = ?", digest))

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that are absent, with a query for each 500 of them."""
        absent = set(digests)
        asked = list(absent)
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            marks = ", ".join("?" * len(batch))
            rows = self._rows(f"SELECT digest FROM blobs WHERE digest IN ({marks})", *batch)
            absent.difference_update(B3Digest(found) for (found,) in rows)
        return absent

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every blob."""
        # In pages, as no lock may be held while the caller has the word.
        last = b""
        while rows := self._rows(
            f"SELECT digest FROM blobs WHERE digest > ? ORDER BY digest LIMIT {_BATCH}", last
        ):
            for (last,) in rows:
                yield B3Digest(last)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob, all of which is read and checked now."""
        rows = self._rows("SELECT data FROM blobs WHERE digest = ?", digest)
        if not rows:
            return None
        (data,) = rows[0]
        found = B3Digest.of(data)
        if found != digest:
            raise CorruptBlobError(
                f"`{self._name}` has other bytes under {digest}, of the digest {found}: store the blob again",
                expected=digest,
                found=found,
                key=f"blobs/{digest}",
            )
        return BytesReader(data)

    def open_write(self) -> BlobWriter:
        """Start a new blob; its writer raises `UnsupportedError` as soon as it is too large."""
        return _LimitedWriter(self._store, self._max_blob_size, self._name)

    def close(self) -> None:
        """Close the file. What is open for reading stays readable."""
        with self._lock:
            self._db.close()

    def _store(self, digest: B3Digest, spool: BinaryIO) -> None:
        # Replacing heals a row that was damaged.
        self._rows("INSERT OR REPLACE INTO blobs VALUES (?, ?)", digest, spool.read())

    def _rows(self, statement: str, *values: bytes) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise UnavailableError(self._name, error) from error


class _LimitedWriter(SpooledWriter):
    """A spool that does not wait for the end of a blob that is too large."""

    def __init__(self, store: Callable[[B3Digest, BinaryIO], object], limit: int, name: str) -> None:
        super().__init__(store)
        self._limit = limit
        self._name = name

    def _take(self, view: memoryview) -> None:
        if self.tell() + view.nbytes > self._limit:
            raise UnsupportedError(
                f"`{self._name}` takes blobs of at most {self._limit} bytes: "
                "set a larger `max_blob_size`, or keep this one in another service"
            )
        super()._take(view)
