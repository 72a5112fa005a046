"""Finding out what a store keeps: all of it, or what a process that died was about to write or remove.

Others may write and evict meanwhile. Whatever the journal is told is looked up under its lock, where nothing
is removed; the listing only says where to look.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import attrs

from castore import B3Digest, BlobService, ChunkMeta, CorruptBlobError
from castore.contract.batches import batches
from castore.contract.upkeep import Evictable, ItemKind, StoredItem
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.journal import Journal, transaction
from castore_lru.ledger import KINDS, Write

T = TypeVar("T")

_BATCH: Final = 256
_MOST_CHUNKS: Final = 1 << 14

_CLOCKS_APART: Final = 2.0
"""By how many seconds the time of a file may differ from the time of day when it was written."""

_LEFT_ALONE: Final = 3600.0
"""For how many seconds nothing is touched that a writer may have left who is not in the journal."""

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
                ledger.end_writes(db, (write,))
                self.look_up(db, write.kind, write.digests)
            self._remove_residue(db, write)
        going = ledger.going_of(db, owner)
        with transaction(db):
            for kind in KINDS:
                self.look_up(db, kind, going)
            ledger.clear_going(db, owner)
            ledger.drop_owner(db, owner)

    def look_up(
        self,
        db: sqlite3.Connection,
        kind: ItemKind,
        digests: Collection[B3Digest],
        *,
        used: float | None = None,
    ) -> set[B3Digest]:
        """Make the journal say of items what is true; return those that are there.

        The caller is in a transaction. *used* is when they were used last, if not when they were written.
        """
        if not digests:
            return set()
        found: dict[B3Digest, StoredItem] = {}
        for some in in_batches(digests):
            found.update(self._store.find_items(kind, some))
        if len(found) < len(digests):
            ledger.drop_items(db, kind, [digest for digest in digests if digest not in found])
        if found:
            sizes = {digest: item.size or 0 for digest, item in found.items()}
            ledger.put_items(db, kind, sizes, used or 0.0)
            if used is None:
                ledger.touch(db, self._times_of(found))
        return set(found)

    def is_there(self, kind: ItemKind, digests: Iterable[B3Digest]) -> bool:
        """Tell of items that were put together whether one of them, and so each, can be found."""
        return bool(self._store.find_items(kind, tuple(itertools.islice(digests, 1))))

    def _times_of(self, found: Mapping[B3Digest, StoredItem]) -> dict[B3Digest, float]:
        now = self._clock.now()
        # A time that is to come is that of a clock that was wrong: it would stay longest.
        return {
            digest: now if item.modified is None else min(item.modified, now)
            for digest, item in found.items()
        }

    def _remove_residue(self, db: sqlite3.Connection, write: Write) -> None:
        for some in in_batches(write.digests):
            since = ledger.written_since(db, some)
            self._store.remove(self._left_over(self._store.residue_of(write.kind, some), since))

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
        for batch in _some(self._store.stored_items(), _BATCH):
            residue += (item for item in batch if item.kind == "residue" or item.digest is None)
            with self._journal.changing() as db:
                unknown += self._see(db, batch, number)
        for some in in_batches(unknown):
            self._adopt_blobs(some)
        while self._drop_unseen(number):
            pass
        self.mend()
        with self._journal.locked() as db:
            # With the lock, so that no write that has just begun is missed.
            since = ledger.written_since(db)
            old = self._clock.now() - _LEFT_ALONE
            self._store.remove(self._left_over(residue, old if since is None else min(since, old)))
            with transaction(db):
                ledger.set_fact(db, "scanned", self._clock.now())

    def _see(self, db: sqlite3.Connection, batch: list[StoredItem], scan: int) -> list[B3Digest]:
        """Note that items are there; return the blobs whose indexes are new, whose chunks come later."""
        new: dict[ItemKind, list[B3Digest]] = {}
        for kind in KINDS:
            sizes = {item.digest: item.size or 0 for item in batch if item.kind == kind and item.digest}
            new[kind] = ledger.mark_seen(db, kind, sizes, scan)
        self.look_up(db, "chunk", new["chunk"])
        return new["index"]

    def _adopt_blobs(self, blobs: Sequence[B3Digest]) -> None:
        lists: dict[B3Digest, Sequence[ChunkMeta] | None] = {}
        for number, blob in enumerate(blobs, 1):
            lists[blob] = None  # One that cannot be read takes its bytes all the same.
            with contextlib.suppress(CorruptBlobError):
                lists[blob] = self._service.chunks(blob)
            # A single one may have millions.
            if number == len(blobs) or sum(len(chunks or ()) for chunks in lists.values()) >= _MOST_CHUNKS:
                with self._journal.changing() as db:
                    for each, chunks in lists.items():
                        _note_parts(db, each, chunks)
                    self.look_up(db, "index", lists)
                lists = {}

    def _drop_unseen(self, scan: int) -> bool:
        with self._journal.changing() as db:
            unseen = {kind: ledger.unseen(db, kind, scan, _BATCH) for kind in KINDS}
            for kind, digests in unseen.items():
                self.look_up(db, kind, digests)
        return any(unseen.values())

    def mend(self) -> None:
        """Remove each index one of whose chunks is gone: no blob is to be there in part for good."""
        with self._journal.locked() as db:
            for some in in_batches(ledger.broken_blobs(db)):
                found = list(self._store.find_items("index", some).values())
                for item in found:
                    _log.warning("`%s`: %s lacks a chunk, and goes", self._journal.instance, item.key)
                self._store.remove(found)
                with transaction(db):
                    ledger.drop_items(db, "index", some)


def _note_parts(db: sqlite3.Connection, blob: B3Digest, chunks: Sequence[ChunkMeta] | None) -> None:
    """Take note of what a blob is made of, up to a chunk that is not there: then it goes anyway."""
    if chunks is None:
        ledger.add_parts(db, blob, None)
        return
    for some in in_batches(chunks):
        ledger.add_parts(db, blob, some)
        if ledger.lacking(db, "chunk", [meta.digest for meta in some]):
            return


def in_batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield as many items as one call may have."""
    return batches(items, lambda _: 0)


def _some(items: Iterator[T], count: int) -> Iterator[list[T]]:
    while batch := list(itertools.islice(items, count)):
        yield batch
