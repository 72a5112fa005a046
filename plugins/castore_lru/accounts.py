"""One service's part in the accounts of a store: when it joins and leaves, and what it has not told yet.

A read or a finished write costs no turn at the journal: it is known here for a moment, and goes there with
whatever comes next. What is written by way of a lease goes there when that ends, and counts as being written
until then.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from castore import B3Digest, CastoreError, ClosedError, UnavailableError
from castore.contract.upkeep import ItemKind
from castore.threads import forks
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.journal import Journal, transaction
from castore_lru.ledger import KINDS, Write
from castore_lru.owners import Owner, boot_id
from castore_lru.scanning import Scanner

T = TypeVar("T")

_MOST_DONE: Final = 256
_MOST_LEASED: Final = 4096
_MOST_TOUCHED: Final = 1024
_TOUCHED_SECONDS: Final = 5.0
"""How much, and for how long, is known here only."""

_SCAN_SECONDS: Final = 86400.0
"""After so long a store is looked through again, in case somebody has gone behind the journal's back."""


class Accounts:
    """The journal as this service uses it, which is opened when it is first needed.

    A use is noted that is more than *same_use* seconds later than the last one.
    """

    def __init__(self, journal: Journal, scanner: Scanner, clock: Clock, *, same_use: float) -> None:
        self._journal = journal
        self._scanner = scanner
        self._clock = clock
        self._same_use = same_use
        # Not begun anew after a fork: readers of the other process may still be closed in this one.
        self._tags = itertools.count(1)
        self._live: set[int] = set()
        self._opening = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Know of nothing, in a child of a fork; what the other process has stays its own."""
        self._owner: Owner | None = None
        self._touched: dict[B3Digest, float] = {}
        self._touched_since = 0.0
        self._waiting: dict[int, Write] = {}
        """What other processes cannot find before the store is flushed."""
        self._leased: dict[int, Write] = {}
        """What was put by way of leases that have not ended."""
        self._leased_items = 0
        self._kept: dict[int, int] = {}
        """How much was put or claimed by way of leases that is not pinned one by one."""
        self._done: deque[Write] = deque()
        self._released: deque[int] = deque()
        self._doubtful: deque[B3Digest] = deque()

    # -- joining and leaving --

    @property
    def is_open(self) -> bool:
        """Whether this service takes part."""
        return self._owner is not None

    @property
    def exist(self) -> bool:
        """Whether there is a file to join: a read does not make one."""
        return self._journal.exists

    @property
    def owner(self) -> str:
        """The name that this service takes part by; raises `ClosedError` once it is closed."""
        return self._taking_part().name

    def _taking_part(self) -> Owner:
        owner = self._owner
        if owner is None:
            raise ClosedError("the service is closed")
        return owner

    def open(self) -> bool:
        """Join; look through the store if nobody else has. Return whether this was the first call."""
        if self._owner is not None:
            return False
        with self._opening:
            if self._owner is not None:
                return False
            self._journal.open()
            try:
                owner = self._join()
            except BaseException:
                self._journal.close()
                raise
            self._owner = owner
        return True

    def _join(self) -> Owner:
        try:
            owner = Owner(self._journal.folder)
        except OSError as error:
            raise UnavailableError(self._journal.instance, error) from error
        try:
            with self._journal.changing() as db:
                ledger.add_owner(db, owner.name)
                # A clock that was wrong and is right again.
                ledger.end_future(db, self._clock.now())
                self._note_start(db)
            self._bury_others(owner)
            self._scan_if_due()
        except BaseException:
            owner.end()
            raise
        return owner

    def _note_start(self, db: sqlite3.Connection) -> None:
        """Have everything looked through after the machine was started: a power cut may have been before."""
        boot = boot_id()
        if ledger.fact(db, "boot") != boot:
            ledger.set_fact(db, "boot", boot)
            ledger.set_fact(db, "scanned", 0)

    def _scan_if_due(self) -> None:
        with self._journal.scanning():
            with self._journal.locked() as db:
                scanned = ledger.fact(db, "scanned")
            if not 0 <= self._clock.now() - scanned < _SCAN_SECONDS:
                self._scanner.scan()

    def bury(self) -> None:
        """Settle what those have left who have died."""
        self._bury_others(self._taking_part())

    def _bury_others(self, owner: Owner) -> None:
        with self._journal.locked() as db:
            for name in ledger.owners(db):
                if owner.is_dead(name):
                    self._scanner.bury(db, name)

    def close(self) -> None:
        """Tell what is not told yet, and leave."""
        if self._touched and self.exist:
            with contextlib.suppress(CastoreError):
                self.open()
        with self._opening:
            owner, self._owner = self._owner, None
            if owner is None:
                self._journal.close()  # If one was interrupted just here.
                return
            try:
                self._end_leased()
                with self._journal.locked() as db:
                    self._tell(db, owner.name)
                    # What is not certain is left to who comes next, as if this one had died.
                    if not ledger.writes_of(db, owner.name):
                        with transaction(db):
                            ledger.drop_owner(db, owner.name)
            finally:
                try:
                    owner.end()
                finally:
                    self._journal.close()

    # -- turns --

    @contextlib.contextmanager
    def turn(self) -> Iterator[sqlite3.Connection]:
        """Have the journal for a while, with all that is known here in it."""
        self.open()
        with self._journal.locked() as db:
            self._tell(db, self.owner)
            yield db

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Have the journal for one transaction."""
        with self.turn() as db, transaction(db):
            yield db

    def tell(self) -> None:
        """Tell what is not told yet."""
        with self.turn():
            pass

    def _tell(self, db: sqlite3.Connection, owner: str) -> None:
        if self._released:
            self._end_leased(lambda tag: tag not in self._live)
        if not (self._done or self._released or self._doubtful or self._touched):
            return
        touched, self._touched = self._touched, {}
        done, released, doubtful = _drain(self._done), _drain(self._released), _drain(self._doubtful)
        try:
            with transaction(db):
                self._end_writes(db, done)
                if doubtful:
                    self._look_up(db, dict.fromkeys(doubtful))
                if touched:
                    self._touch(db, touched)
                if released:
                    ledger.unpin(db, owner, released)
                    for tag in released:
                        self._kept.pop(tag, None)
        except BaseException:
            self._touched = {**touched, **self._touched}
            self._done.extendleft(reversed(done))
            self._released.extendleft(reversed(released))
            self._doubtful.extendleft(reversed(doubtful))
            raise

    def _end_leased(self, which: Callable[[int | None], bool] | None = None, *, many: bool = False) -> None:
        """Let what was written by way of leases be told now, of those only whose tag *which* is true of."""
        for number, write in list(self._leased.items()):
            if (which is None or which(write.tag)) and self._leased.pop(number, None) is not None:
                self._leased_items -= len(write.digests)
                write.many = many
                self._done.append(write)
        if not self._leased:
            # It is counted by threads that do not wait for each other.
            self._leased_items = 0

    def _end_writes(self, db: sqlite3.Connection, writes: Sequence[Write]) -> None:
        now = self._clock.now()
        plain = [write for write in writes if self._has_plain_indexes(write)]
        indexed: set[B3Digest] = set()
        # How much they take in truth is looked up when that matters.
        put: dict[bool, list[Write]] = {}
        for write in writes:
            if write.put and write.kind == "chunk":
                are_blobs = any(write.digests <= blobs.digests for blobs in plain)
                put.setdefault(are_blobs, []).append(write)
                indexed.update(write.digests if are_blobs else ())
        for are_blobs, some in put.items():
            # A lease has made a write for each call of a large blob.
            ledger.put_chunks(db, some, now, are_blobs=are_blobs)
            self._end_holds(db, some)
        for write in writes:
            if not (write.put and write.kind == "chunk"):
                self._end_holds(db, (write,))
            for blob, chunks in write.relisted.items() if write.put else ():
                ledger.replace_parts(db, blob, chunks)
            if write in plain:
                # One that was larger is looked up: whoever put last has replaced it.
                larger = ledger.larger_indexes(db, write.digests)
                if others := write.digests - indexed:
                    ledger.put_items(db, "index", dict.fromkeys(others, 0), now)
                self._scanner.look_up(db, "index", larger, used=now)
            elif write.kind == "index" or not write.put:
                found = self._scanner.look_up(db, write.kind, write.digests, used=now)
                if write.kind == "index":
                    # A store may keep the index of a blob of no chunks as a chunk.
                    self._scanner.look_up(db, "chunk", write.digests - found)

    def _end_holds(self, db: sqlite3.Connection, writes: Sequence[Write]) -> None:
        """Give back what was reserved; what a lease has written stays until that ends."""
        kept: dict[bool | None, list[Write]] = {}
        for write in writes:
            many = None
            if write.tag in self._live:
                many = write.many or self._keeps_many(write.tag, write.digests)
            kept.setdefault(many, []).append(write)
        for many, some in kept.items():
            if many is None:
                ledger.end_writes(db, some)
            else:
                ledger.end_writing(db, some, many=many)

    def _has_plain_indexes(self, write: Write) -> bool:
        """Tell whether indexes of blobs of one chunk were put, and are kept: a store keeps all or none."""
        plain = write.put and write.kind == "index" and not write.size
        return plain and self._scanner.is_there("index", write.digests)

    def _keeps_many(self, tag: int, digests: Collection[B3Digest]) -> bool:
        """Take note that a lease keeps some more; tell whether all leases together keep many."""
        many = sum(self._kept.values()) + len(digests) > _MOST_LEASED
        if not many:
            self._kept[tag] = self._kept.get(tag, 0) + len(digests)
        return many

    def _look_up(self, db: sqlite3.Connection, digests: Collection[B3Digest]) -> None:
        for kind in KINDS:
            self._scanner.look_up(db, kind, ledger.not_written(db, kind, digests))

    def _touch(self, db: sqlite3.Connection, uses: dict[B3Digest, float]) -> None:
        ledger.touch(db, uses, exact=self._same_use)
        if strangers := ledger.strangers(db, uses):
            self._scanner.look_up(db, "chunk", strangers)

    def keep(
        self, db: sqlite3.Connection, kind: ItemKind, digests: Collection[B3Digest], tag: int
    ) -> set[B3Digest]:
        """Pin items for a lease, and take note of their use; return those that are not known to be there."""
        now = self._clock.now()
        if tag in self._live:
            many = self._keeps_many(tag, digests)
            ledger.pin(db, self.owner, tag, digests, since=now, many=many)
        if ledger.use(db, kind, digests, now, same_use=self._same_use) == len(digests):
            return set()
        return self.find_unknown(db, kind, digests)

    def find_unknown(
        self, db: sqlite3.Connection, kind: ItemKind, digests: Iterable[B3Digest]
    ) -> set[B3Digest]:
        """Return those that the journal does not have, nor has this process just put."""
        unknown = set(digests)
        # First, as most that are asked for have been put just before.
        for write in (*self._waiting.values(), *self._leased.values()):
            if write.kind == kind and write.put:
                unknown.difference_update(write.digests)
        return set(ledger.lacking(db, kind, unknown)) if unknown else unknown

    # -- what is known here --

    def touch(self, digests: Iterable[B3Digest]) -> None:
        """Take note that something was read."""
        now = self._clock.now()
        if not self._touched:
            self._touched_since = now
        touched = self._touched
        touched.update(dict.fromkeys(digests, now))
        if len(touched) >= _MOST_TOUCHED or abs(now - self._touched_since) >= _TOUCHED_SECONDS:
            if self.is_open or self.exist:
                self.tell()
            else:
                self._touched = {}

    def end(self, write: Write, *, waits: bool) -> None:
        """Take note that a write has ended; what came of it is looked up.

        With *waits* that is not before a flush (`flushed`), and in any case not before the lease has ended by
        way of which it was written.
        """
        if waits:
            self._waiting[write.number] = write
        elif write.tag is None or not write.put:
            self._done.append(write)
        else:
            self._leased[write.number] = write
            self._leased_items += len(write.digests)
            if write.tag not in self._live:
                # Its lease has ended while it was written, and that may have been told already.
                self._released.append(write.tag)

    def tell_if_much(self, tag: int | None = None) -> None:
        """Tell what is not told yet if that is much, also what this *tag* has put; that is pinned then."""
        if self._leased_items > _MOST_LEASED:
            self._end_leased(many=True)
        elif tag is not None:
            self._end_leased(lambda each: each == tag)
        if sum(len(write.digests) for write in list(self._done)) >= _MOST_DONE:
            self.tell()

    def settle(self, db: sqlite3.Connection) -> None:
        """Have in the journal what leases have put as well; that is pinned from now on."""
        self._end_leased(many=True)
        self._tell(db, self.owner)

    def make_sure(self, db: sqlite3.Connection) -> bool:
        """Look up how much some chunks take in truth; return False if that is known of all."""
        with transaction(db):
            unsure = ledger.take_unsure(db)
            self._scanner.look_up(db, "chunk", unsure, used=0.0)
        return bool(unsure)

    @property
    def waiting(self) -> list[Write]:
        """What waits for the store to be flushed."""
        return list(self._waiting.values())

    def flushed(self, writes: Iterable[Write]) -> None:
        """Take note that the store was flushed after these writes."""
        for write in writes:
            if self._waiting.pop(write.number, None) is not None:
                self.end(write, waits=False)

    def doubt(self, digest: B3Digest) -> None:
        """Take note that somebody else may have removed something."""
        self._doubtful.append(digest)

    # -- tags --

    def new_tag(self) -> int:
        """Return what to pin by."""
        tag = next(self._tags)
        self._live.add(tag)
        return tag

    def is_live(self, tag: int | None) -> bool:
        """Tell whether a tag is not released yet."""
        return tag in self._live

    def release(self, tag: int) -> None:
        """Let go of what a tag has pinned. A collector of Python's garbage may call this at any moment."""
        self._live.discard(tag)
        self._released.append(tag)
        if self.is_open and not self._journal.held_here:
            self.tell()


def _drain(waiting: deque[T]) -> list[T]:
    return [waiting.popleft() for _ in range(len(waiting))]
