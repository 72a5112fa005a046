"""Many writes in few transactions.

A transaction costs more than most rows, and with a flush of the disk far more. So chunks wait in memory,
where the readers of this process find them, until an index is put, or there are many. Those who put an index
while a transaction runs share the next one. Nothing waits in an open transaction: it would keep other
processes from writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import attrs

from castore import B3Digest, ChunkMeta, UnavailableError
from castore.threads import forks
from castore.threads.waiting import Baton, Holder

_MOST_CHUNKS: Final = 2048
_MOST_BYTES: Final = 8 << 20
"""How much may wait."""


@attrs.define(eq=False)
class Transaction:
    """What goes into the file in one transaction."""

    frames: dict[B3Digest, bytes] = attrs.field(factory=dict)
    indexes: dict[B3Digest, Sequence[ChunkMeta]] = attrs.field(factory=dict)
    lasting: bool = False
    """Whether the disk is to be flushed."""
    size: int = 0
    done: bool = False
    failure: UnavailableError | None = None

    @property
    def full(self) -> bool:
        """Whether no more should wait."""
        return len(self.frames) >= _MOST_CHUNKS or self.size >= _MOST_BYTES

    def add(self, digest: B3Digest, frame: bytes) -> None:
        """Take one more chunk."""
        self.size += len(frame) - len(self.frames.get(digest, b""))
        self.frames[digest] = frame


class GroupCommit:
    """Gathers chunks and indexes and gives them to *commit*, which stores all of them or raises.

    After a failure the chunks still wait, for the next commit to take them: whoever counts on one that
    another writer has put need not know. Indexes do not: those who put them get the error. Where the one is
    interrupted that commits for all, another of them does it.
    """

    def __init__(self, commit: Callable[[Transaction], None]) -> None:
        self._commit = commit
        self._turn = Baton()
        self._lock = forks.new_lock()
        self._running: Transaction | None = None
        self._upcoming = Transaction()
        self.told = False
        """Whether somebody was told of a failure."""
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Wait for nobody, in a child of a fork. What waits are mere bytes, which may be counted on here."""
        frames = self.waiting
        self._running, self._upcoming = None, Transaction()
        for digest, frame in frames.items():
            self._upcoming.add(digest, frame)

    def find_all(self, digests: Iterable[B3Digest]) -> dict[B3Digest, bytes]:
        """Return the frames of those chunks that wait."""
        with self._lock:
            upcoming = self._upcoming.frames
            running = {} if self._running is None else self._running.frames
            if not upcoming and not running:
                return {}
            found = ((digest, upcoming.get(digest) or running.get(digest)) for digest in digests)
            return {digest: frame for digest, frame in found if frame is not None}

    @property
    def waiting(self) -> dict[B3Digest, bytes]:
        """All frames that wait."""
        running = {} if self._running is None else self._running.frames
        return {**running, **self._upcoming.frames}

    def add(self, frames: Mapping[B3Digest, bytes]) -> None:
        """Let chunks wait. If too much does, that is committed first; if it fails so does this."""
        with self._lock:
            full = self._upcoming.full
        if full:
            self.commit()
        with self._lock:
            for digest, frame in frames.items():
                self._upcoming.add(digest, frame)

    def commit(self, indexes: Mapping[B3Digest, Sequence[ChunkMeta]] | None = None) -> None:
        """Return when all that waits is committed; raise `UnavailableError` if it is not.

        With *indexes*, also with none of them, it is lasting, and so is all that was committed before.
        """
        with self._lock:
            mine = self._upcoming
            if indexes is not None:
                mine.indexes.update(indexes)
                mine.lasting = True
        with forks.held_off():
            self._commit_as_one(mine)
        if mine.failure is not None:
            self.told = True
            # Each gets an error of its own: threads would write their tracebacks into a shared one.
            raise UnavailableError(mine.failure.instance, mine.failure.cause) from mine.failure

    def _commit_as_one(self, mine: Transaction) -> None:
        me = Holder()
        leads = self._turn.take(me, unless=lambda: mine.done)
        try:
            if leads and not mine.done:
                self._lead(mine)
        finally:
            self._turn.give_back(me)

    def _lead(self, mine: Transaction) -> None:
        with self._lock:
            if self._running is not None:
                # What it was to take still waits, as the one was interrupted that had begun with it.
                for digest, frame in self._running.frames.items():
                    mine.frames.setdefault(digest, frame)
            if not mine.frames and not mine.lasting:
                return
            self._running = mine
            if self._upcoming is mine:
                self._upcoming = Transaction()
        try:
            self._commit(mine)
        except UnavailableError as error:
            mine.failure = error
        except Exception as error:
            mine.failure = UnavailableError("sqlite", error)
            raise
        finally:
            with self._lock:
                if mine.failure is not None:
                    for digest, frame in mine.frames.items():
                        if digest not in self._upcoming.frames:
                            self._upcoming.add(digest, frame)
                    mine.done = True
                    self._running = None
        with self._lock:
            mine.done = True
            self._running = None
