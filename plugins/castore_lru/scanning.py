"""Finding out what a store keeps: all of it, or what a process that died was about to write or remove.

Others may write and evict meanwhile. Whatever the journal is told is looked up under its lock, where nothing
is removed; the listing only says where to look.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import attrs

from castore import B3Digest, BlobService, CorruptBlobError
from castore.contract.upkeep import Evictable, StoredItem
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.journal import Journal, transaction
from castore_lru.ledger import Kind, Write

T = TypeVar("T")

_BATCH: Final = 256

_CLOCKS_APART: Final = 2.0
"""By how many seconds the time of a file may differ from the time of day when it was written."""

_log: Final = logging.getLogger("castore_lru")


@attrs.define(eq=False)
class Scanner:
    """Brings the journal of *store*, the capability of *service*, in line with what is there."""

    _journal: Journal
    _service: BlobService
    _store: Evictable
    _clock: Clock

    # -- the dead --

    def bury(self, db: sqlite3.Connection, owner: str) -> None:
        """Settle what an owner that has died was about to do, and forget it. Called under the lock."""
        _log.info("`%s`: looking after what a process that died has left", self._journal.instance)
        for write in ledger.writes_of(db, owner):
            with transaction(db):
                ledger.end_write(db, write)
                self.look_up(db, write.kind, write.digest)
            self._remove_residue(db, write)
        for entry in ledger.going_of(db, owner):
            with transaction(db):
                self.look_up(db, entry.kind, entry.digest)
        with transaction(db):
            ledger.clear_going(db, owner)
            ledger.drop_owner(db, owner)

    def look_up(
        self, db: sqlite3.Connection, kind: Kind, digest: B3Digest, *, used: float | None = None
    ) -> bool:
        """Make the journal say of an item what is true; return whether it is there.

        The caller is in a transaction. *used* is when it was used last, if not when it was written.
        """
        item = self._store.find_item(kind, digest)
        if item is None:
            ledger.drop_item(db, kind, digest)
            if kind == "index":
                ledger.drop_idle_parts(db, digest)
            return False
        if used is None:
            used = self._clock.now() if item.modified is None else item.modified
        ledger.put_item(db, item, used)
        return True

    def _remove_residue(self, db: sqlite3.Connection, write: Write) -> None:
        since = ledger.written_since(db, write.digest)
        self._store.remove(self._left_over(self._store.residue_of(write.kind, write.digest), since))

    def _left_over(self, residue: Iterable[StoredItem], since: float | None) -> list[StoredItem]:
        """Return what no writer is about to finish that has begun at *since* or later."""
        old = [item for item in residue if not item.foreign]
        if since is None:
            return old
        limit = since - _CLOCKS_APART
        return [item for item in old if item.modified is not None and item.modified < limit]

    # -- everything --

    def scan(self) -> None:
        """Look through the whole store."""
        with self._journal.changing() as db:
            number = ledger.start_scan(db)
        unknown: list[B3Digest] = []
        residue: list[StoredItem] = []
        for batch in _batches(self._store.stored_items()):
            with self._journal.changing() as db:
                for item in batch:
                    self._see(db, item, number, unknown, residue)
        for blob in unknown:
            self._adopt_blob(blob)
        while self._drop_unseen(number):
            pass
        self.mend()
        with self._journal.locked() as db:
            # With the lock, so that no write that has just begun is missed.
            left = self._left_over(residue, ledger.written_since(db))
            self._store.remove(left)
            with transaction(db):
                ledger.set_fact(db, "scanned", self._clock.now())

    def _see(
        self,
        db: sqlite3.Connection,
        item: StoredItem,
        scan: int,
        unknown: list[B3Digest],
        residue: list[StoredItem],
    ) -> None:
        if item.kind == "residue" or item.digest is None:
            residue.append(item)
        elif not ledger.mark_seen(db, item.kind, item, scan):
            if item.kind == "chunk":
                self.look_up(db, "chunk", item.digest)
            else:
                # Its chunks come later in the listing.
                unknown.append(item.digest)

    def _adopt_blob(self, blob: B3Digest) -> None:
        chunks = None
        with contextlib.suppress(CorruptBlobError):
            chunks = self._service.chunks(blob)
        with self._journal.changing() as db:
            if chunks is not None:
                ledger.add_parts(db, blob, ledger.part_digests(blob, chunks))
            # One that cannot be read takes its bytes all the same.
            self.look_up(db, "index", blob)

    def _drop_unseen(self, scan: int) -> bool:
        with self._journal.changing() as db:
            found = ledger.unseen(db, scan, _BATCH)
            for entry in found:
                self.look_up(db, entry.kind, entry.digest)
        return bool(found)

    def mend(self) -> None:
        """Remove each index one of whose chunks is gone: no blob is to be there in part for good."""
        with self._journal.locked() as db:
            for blob in ledger.broken_blobs(db):
                item = self._store.find_item("index", blob)
                if item is not None:
                    _log.warning("`%s`: %s lacks a chunk, and goes", self._journal.instance, item.key)
                    self._store.remove([item])
                with transaction(db):
                    ledger.drop_item(db, "index", blob)


def _batches(items: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(itertools.islice(items, _BATCH)):
        yield batch
