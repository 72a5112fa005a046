"""Removing what was not used for longest, an index before its chunks."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from typing import Final

import attrs

from castore import B3Digest
from castore.contract.upkeep import Evictable
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.bounds import Amount, Bounds, Excess
from castore_lru.journal import transaction
from castore_lru.ledger import KINDS, Entry
from castore_lru.scanning import in_batches

_BATCH: Final = 256
"""How many items go at a time, after which others get their turn."""

AGING_STEPS: Final = 1000
"""What is too old and pinned is looked for again after this part of the age."""


@attrs.define(eq=False)
class Evictor:
    """Keeps *store* within *bounds*. Its methods are called under the lock of the journal.

    Attributes:
        count: How many items were removed.
        due: When something gets too old, as far as that is known.
        relaxing: Whether there may be more to remove, down to the low watermark.
    """

    _store: Evictable
    _bounds: Bounds
    _clock: Clock
    _owner: Callable[[], str]
    count: int = 0
    due: float = math.inf
    relaxing: bool = False
    _gone: list[B3Digest] = attrs.field(factory=list)

    def excess(self, db: sqlite3.Connection, coming: Amount) -> Excess:
        """Return what has to go for *coming*, which is reserved, to fit."""
        total = ledger.totals(db)
        there = Amount(total.size - coming.size, total.entries - coming.entries)
        return self._bounds.excess(there, coming, self._free(), self._clock.now())

    def make_room(self, db: sqlite3.Connection, coming: Amount) -> bool:
        """Remove that, and no more; return whether it fits now."""
        while True:
            excess = self.excess(db, coming)
            if excess.is_crowded:
                self.relaxing = True
            if not self._remove_some(db, excess):
                return not excess.is_crowded

    def relax(self, db: sqlite3.Connection) -> None:
        """Remove some of what is above the low watermark."""
        wanted = self._bounds.wanted(ledger.totals(db), self._free(), self._clock.now())
        self.relaxing = self._remove_some(db, wanted)

    def take_gone(self) -> list[B3Digest]:
        """Return what was removed since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def note_age(self, db: sqlite3.Connection) -> None:
        """Look up when something gets too old next."""
        if self._bounds.max_age is not None:
            oldest = ledger.oldest_use(db)
            if oldest is None:
                self.due = math.inf
            else:
                soonest = self._clock.now() + self._bounds.max_age / AGING_STEPS
                self.due = max(oldest + self._bounds.max_age, soonest)

    def note_new(self) -> None:
        """Take note that something was put, which gets old as well."""
        if self._bounds.max_age is not None:
            self.due = min(self.due, self._clock.now() + self._bounds.max_age)

    def _free(self) -> int | None:
        return None if self._bounds.min_free is None else self._store.free_bytes()

    def _remove_some(self, db: sqlite3.Connection, excess: Excess) -> bool:
        if excess == Excess():
            return False
        victims: list[Entry] = []
        size = entries = 0
        for entry in ledger.candidates(db, _BATCH):
            if excess.met(Amount(size, entries), entry.used):
                break
            victims.append(entry)
            size += entry.size
            entries += len(entry.kinds)
        if victims:
            self._remove(db, victims)
        return bool(victims)

    def _remove(self, db: sqlite3.Connection, victims: list[Entry]) -> None:
        """Remove *victims*, and before a chunk the indexes that list it.

        What is about to go is marked first: should this process die in between, the next one looks what
        is left of it.
        """
        chunks = [entry.digest for entry in victims if "chunk" in entry.kinds]
        blobs = dict.fromkeys(entry.digest for entry in victims if "index" in entry.kinds)
        blobs.update(dict.fromkeys(ledger.blobs_with(db, chunks)))
        going = {"index": blobs.keys(), "chunk": chunks}
        gone = blobs.keys() | chunks
        with transaction(db):
            ledger.mark_going(db, self._owner(), gone)
        try:
            for kind in KINDS:
                for some in in_batches(going[kind]):
                    if found := self._store.find_items(kind, some):
                        self._store.remove(found.values())
        except BaseException:
            # Some may be gone: those are found out when their turn comes again.
            with transaction(db):
                ledger.clear_going(db, self._owner())
            raise
        with transaction(db):
            for kind in KINDS:
                ledger.drop_items(db, kind, going[kind])
            # Of a blob that goes because of a chunk there may be one, too, which stays.
            ledger.clear_going(db, self._owner())
        self.count += len(blobs) + len(chunks)
        self._gone += gone
