"""Removing what was not used for longest, an index before its chunks."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from castore import B3Digest
from castore.contract.upkeep import Evictable, StoredItem
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.bounds import Amount, Bounds, Excess
from castore_lru.journal import transaction
from castore_lru.ledger import Entry, Kind

_BATCH: Final = 256
"""How many items go at a time, after which others get their turn."""

_AGING_STEPS: Final = 1000
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

    def make_room(self, db: sqlite3.Connection, coming: Amount) -> bool:
        """Remove what has to go for *coming* to fit, and no more; return whether it fits now."""
        while True:
            excess = self._bounds.excess(ledger.totals(db), coming, self._free(), self._clock.now())
            crowded = excess.size > 0 or excess.entries > 0
            if crowded:
                self.relaxing = True
            if not self._remove_some(db, excess):
                return not crowded

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
                soonest = self._clock.now() + self._bounds.max_age / _AGING_STEPS
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
        size = 0
        for entry in ledger.candidates(db, _BATCH):
            if excess.met(Amount(size, len(victims)), entry.used):
                break
            victims.append(entry)
            size += entry.size
        if victims:
            self._remove(db, victims)
        return bool(victims)

    def _remove(self, db: sqlite3.Connection, victims: Iterable[Entry]) -> None:
        """Remove *victims*, and before a chunk the indexes that list it.

        What is about to go is marked first: should this process die in between, the next one looks what
        is left of it.
        """
        chunks = list(dict.fromkeys(entry.digest for entry in victims if entry.kind == "chunk"))
        blobs = {entry.digest: None for entry in victims if entry.kind == "index"}
        for chunk in chunks:
            blobs.update(dict.fromkeys(ledger.blobs_with(db, chunk)))
        parts: list[tuple[Kind, Iterable[B3Digest]]] = [("index", blobs), ("chunk", chunks)]
        going = [(kind, digest) for kind, digests in parts for digest in digests]
        with transaction(db):
            for kind, digest in going:
                ledger.mark_going(db, self._owner(), kind, digest)
        try:
            for kind, digests in parts:
                if found := self._found(kind, digests):
                    self._store.remove(found)
        except BaseException:
            # Some may be gone: those are found out when their turn comes again.
            with transaction(db):
                ledger.clear_going(db, self._owner())
            raise
        with transaction(db):
            for kind, digest in going:
                ledger.drop_item(db, kind, digest)
        self.count += len(going)
        self._gone += dict.fromkeys(digest for _, digest in going)

    def _found(self, kind: Kind, digests: Iterable[B3Digest]) -> list[StoredItem]:
        found = (self._store.find_item(kind, digest) for digest in digests)
        return [item for item in found if item is not None]
