"""Many writes in few transactions.

A transaction costs more than most rows, and with a flush of the disk far more. So chunks wait in memory,
where the readers of this process find them, until an index is put, or there are many. Those who put an index
while a transaction runs share the next one. Nothing waits in an open transaction: it would keep other
processes from writing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import attrs

from castore import B3Digest, ChunkMeta, UnavailableError

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
    another writer has put need not know. Indexes do not: those who put them get the error.
    """

    def __init__(
        self, commit: Callable[[Transaction], None], frames: Mapping[B3Digest, bytes] | None = None
    ) -> None:
        self._commit = commit
        self._turn = threading.Condition()
        self._running: Transaction | None = None
        self._upcoming = Transaction()
        for digest, frame in (frames or {}).items():
            self._upcoming.add(digest, frame)

    def find_all(self, digests: Iterable[B3Digest]) -> dict[B3Digest, bytes]:
        """Return the frames of those chunks that wait."""
        with self._turn:
            upcoming = self._upcoming.frames
            running = {} if self._running is None else self._running.frames
            if not upcoming and not running:
                return {}
            found = ((digest, upcoming.get(digest) or running.get(digest)) for digest in digests)
            return {digest: frame for digest, frame in found if frame is not None}

    @property
    def waiting(self) -> dict[B3Digest, bytes]:
        """All frames that wait; for a forked process, in which no lock can be relied on."""
        running = {} if self._running is None else self._running.frames
        return {**running, **self._upcoming.frames}

    def add(self, frames: Mapping[B3Digest, bytes]) -> None:
        """Let chunks wait. If too much does, that is committed first; if it fails so does this."""
        with self._turn:
            full = self._upcoming.full
        if full:
            self.commit()
        with self._turn:
            for digest, frame in frames.items():
                self._upcoming.add(digest, frame)

    def commit(self, indexes: Mapping[B3Digest, Sequence[ChunkMeta]] | None = None) -> None:
        """Return when all that waits is committed; raise `UnavailableError` if it is not.

        With *indexes*, also with none of them, it is lasting, and so is all that was committed before.
        """
        with self._turn:
            mine = self._upcoming
            if indexes is not None:
                mine.indexes.update(indexes)
                mine.lasting = True
            while not mine.done and self._running is not None:
                self._turn.wait()
            leads = not mine.done
            if leads and not mine.frames and not mine.lasting:
                return
            if leads:
                self._running, self._upcoming = mine, Transaction()
        if leads:
            self._lead(mine)
        if mine.failure is not None:
            # Each gets an error of its own: threads would write their tracebacks into a shared one.
            raise UnavailableError(mine.failure.instance, mine.failure.cause) from mine.failure

    def _lead(self, mine: Transaction) -> None:
        try:
            self._commit(mine)
        except UnavailableError as error:
            mine.failure = error
        except BaseException as error:
            mine.failure = UnavailableError("sqlite", error)
            raise
        finally:
            with self._turn:
                if mine.failure is not None:
                    for digest, frame in mine.frames.items():
                        if digest not in self._upcoming.frames:
                            self._upcoming.add(digest, frame)
                mine.done = True
                self._running = None
                self._turn.notify_all()
