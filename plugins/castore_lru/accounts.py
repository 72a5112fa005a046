"""One service's part in the accounts of a store: when it joins and leaves, and what it has not told yet.

A read or a finished write costs no turn at the journal: it is known here for a moment, and goes there with
whatever comes next.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from castore import B3Digest, CastoreError, UnavailableError
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.journal import Journal, transaction
from castore_lru.ledger import Kind, Write
from castore_lru.owners import Owner, boot_id
from castore_lru.scanning import Scanner

T = TypeVar("T")

KINDS: Final[tuple[Kind, ...]] = ("index", "chunk")

_MOST_DONE: Final = 16
_MOST_TOUCHED: Final = 1024
_TOUCHED_SECONDS: Final = 5.0
"""How much, and for how long, is known here only."""

_SCAN_SECONDS: Final = 86400.0
"""After so long a store is looked through again, in case somebody has gone behind the journal's back."""


class Accounts:
    """The journal as this service uses it, which is opened when it is first needed."""

    def __init__(self, journal: Journal, scanner: Scanner, clock: Clock) -> None:
        self._journal = journal
        self._scanner = scanner
        self._clock = clock
        # Not begun anew after a fork: readers of the other process may still be closed in this one.
        self._tags = itertools.count(1)
        self._start_anew()

    def _start_anew(self) -> None:
        self._opening = threading.Lock()
        self._owner: Owner | None = None
        self._touched: dict[B3Digest, float] = {}
        self._touched_since = 0.0
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
        """The name that this service takes part by."""
        assert self._owner is not None
        return self._owner.name

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
        assert self._owner is not None
        self._bury_others(self._owner)

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
                return
            try:
                with self._journal.locked() as db:
                    self._flush(db, owner.name)
                    # What is not certain is left to who comes next, as if this one had died.
                    if not ledger.writes_of(db, owner.name):
                        with transaction(db):
                            ledger.drop_owner(db, owner.name)
            finally:
                owner.end()
                self._journal.close()

    def forget(self) -> None:
        """Begin anew in a process that was forked; what the other one has stays its own."""
        self._journal.forget()
        if self._owner is not None:
            self._owner.forget()
        self._start_anew()

    # -- turns --

    @contextlib.contextmanager
    def turn(self) -> Iterator[sqlite3.Connection]:
        """Have the journal for a while, with all that is known here in it."""
        self.open()
        with self._journal.locked() as db:
            self._flush(db, self.owner)
            yield db

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Have the journal for one transaction."""
        with self.turn() as db, transaction(db):
            yield db

    def flush(self) -> None:
        """Tell what is not told yet."""
        with self.turn():
            pass

    def _flush(self, db: sqlite3.Connection, owner: str) -> None:
        if not (self._done or self._released or self._doubtful or self._touched):
            return
        touched, self._touched = self._touched, {}
        done, released, doubtful = _drain(self._done), _drain(self._released), _drain(self._doubtful)
        try:
            with transaction(db):
                for write in done:
                    self._end_write(db, write)
                for digest in doubtful:
                    self._look_up(db, digest)
                for digest, used in touched.items():
                    if not ledger.touch(db, digest, used):
                        self._scanner.look_up(db, "chunk", digest)
                ledger.unpin(db, owner, released)
        except BaseException:
            self._touched = {**touched, **self._touched}
            self._done.extendleft(reversed(done))
            self._released.extendleft(reversed(released))
            self._doubtful.extendleft(reversed(doubtful))
            raise

    def _end_write(self, db: sqlite3.Connection, write: Write) -> None:
        ledger.end_write(db, write)
        found = self._scanner.look_up(db, write.kind, write.digest, used=self._clock.now())
        if not found and write.kind == "index":
            # A store may keep the index of a blob of no chunks as a chunk.
            self._scanner.look_up(db, "chunk", write.digest)

    def _look_up(self, db: sqlite3.Connection, digest: B3Digest) -> None:
        for kind in KINDS:
            if not ledger.is_written(db, kind, digest):
                self._scanner.look_up(db, kind, digest)

    # -- what is known here --

    def touch(self, digest: B3Digest) -> None:
        """Take note that something was read."""
        now = self._clock.now()
        touched = self._touched
        if not touched:
            self._touched_since = now
        touched[digest] = now
        if len(touched) >= _MOST_TOUCHED or abs(now - self._touched_since) >= _TOUCHED_SECONDS:
            if self.is_open or self.exist:
                self.flush()
            else:
                self._touched = {}

    def end(self, writes: Iterable[Write]) -> None:
        """Take note that writes have ended; what came of them is looked up."""
        self._done.extend(writes)

    def end_and_tell(self, writes: Iterable[Write]) -> None:
        """Do so, and tell if there is much to tell."""
        self.end(writes)
        if len(self._done) >= _MOST_DONE:
            self.flush()

    def doubt(self, digest: B3Digest) -> None:
        """Take note that somebody else may have removed something."""
        self._doubtful.append(digest)

    def new_tag(self) -> int:
        """Return what to pin by."""
        return next(self._tags)

    def release(self, tag: int) -> None:
        """Let go of what a tag has pinned. A collector of Python's garbage may call this at any moment."""
        self._released.append(tag)
        if self.is_open and not self._journal.held_here:
            self.flush()


def _drain(waiting: deque[T]) -> list[T]:
    return [waiting.popleft() for _ in range(len(waiting))]
