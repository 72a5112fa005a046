"""The queue of blobs that members have missed, copied to them in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from castore import B3Digest, CastoreError, UnavailableError
from castore.composites.members import Member
from castore.threads import forks
from castore.threads.deadlines import CLOCK, Clock
from castore.threads.waiting import Flag, seconds_for_others

_log: Final = logging.getLogger("castore_mirror")

Reason: TypeAlias = Literal["missing", "corrupt"]

Heal: TypeAlias = Callable[[Member, B3Digest, Reason, Callable[[], bool]], bool]
"""Copies a blob to a member; returns whether there was one to copy. The last argument says when to stop."""


class HealingQueue:
    """Blobs to copy, oldest first, on a thread that is there only while there is something to do.

    Where a copy fails, its member is left alone for some time, and its blobs wait. The queue is in memory:
    what waits when the process ends is healed when it is next read, or written.

    Arguments:
        name: That of the mirror, for what is logged.
        limit: How many blobs may wait. With more the oldest is forgotten, and counted as `dropped`.
        interval: How long a member is left alone, in seconds.
        drain: How long `close` waits for what is due, in seconds.
        clock: Waits, and lends the thread.
    """

    def __init__(
        self,
        name: str = "mirror",
        *,
        limit: int = 10_000,
        interval: float = 10.0,
        drain: float = 5.0,
        clock: Clock = CLOCK,
    ) -> None:
        self._name = name
        self._limit = limit
        self._interval = interval
        self._drain = drain
        self._clock = clock
        self._lock = forks.new_lock()
        self._closing = False
        self.begin_anew()
        forks.begin_anew_in_child(self)
        self._heal: Heal | None = None
        self.healed = 0
        """How many blobs were copied."""
        self.dropped = 0
        """How many were forgotten, as the queue was full or the mirror closed."""

    def begin_anew(self) -> None:
        """Have nothing to do, in a child of a fork: what waits is the parent's, and its thread is there."""
        self._wake = Flag()
        self._idle = Flag()
        self._idle.set()
        self._entries: dict[tuple[Member, B3Digest], Reason] = {}
        self._resting: dict[Member, float] = {}
        self._running = False

    def start(self, heal: Heal) -> None:
        """Say how a blob is copied; before this nothing is."""
        self._heal = heal

    def add(self, member: Member, digest: B3Digest, reason: Reason = "missing") -> None:
        """Let a blob be copied to a member."""
        with self._lock:
            if self._closing or self._heal is None:
                return
            key = (member, digest)
            if reason == "corrupt" or key not in self._entries:
                self._entries[key] = reason
            while len(self._entries) > self._limit:
                self._entries.pop(next(iter(self._entries)))
                self.dropped += 1
            if self._entries and not self._running:
                try:
                    self._clock.start(self._work, f"castore-heal-{self._name}")
                except RuntimeError:
                    return  # As many run as may, or the interpreter is about to end; another time, then.
                self._running = True
                self._idle.clear()
        self._wake.set()

    def forget(self, digest: B3Digest) -> None:
        """Take a blob that is deleted out of the queue."""
        with self._lock:
            for key in [key for key in self._entries if key[1] == digest]:
                del self._entries[key]

    def waiting(self, member: Member) -> int:
        """Return how many blobs wait to be copied to a member."""
        with self._lock:
            return sum(1 for entry, _ in self._entries if entry is member)

    def wait_until_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do, at most so many seconds; return whether that is so."""
        return self._clock.wait(self._idle, timeout)

    def close(self) -> None:
        """Try once more what waits, for as long as the deadline allows; then end."""
        with self._lock:
            self._closing = True
            self._resting.clear()
            # Without a thread, as none could be had.
            here = bool(self._entries) and not self._running
        self._wake.set()
        if here:
            self._work()
        self._clock.wait(self._idle, seconds_for_others(self._drain))
        with self._lock:
            left = len(self._entries)
            self.dropped += left
            self._entries.clear()
        self._wake.set()
        if left:
            _log.warning(
                "`%s`: closed while %d blobs had not been copied to all its services", self._name, left
            )

    def _work(self) -> None:
        while (due := self._next()) is not None:
            self._copy(*due)

    def _copy(self, member: Member, digest: B3Digest, reason: Reason) -> None:
        key = (member, digest)
        assert self._heal is not None
        try:
            done = self._heal(member, digest, reason, lambda: key not in self._entries)
        except UnavailableError as error:
            _log.info("`%s`: %s was not copied to `%s`: %s", self._name, digest, member.name, error)
            with self._lock:
                self._resting[member] = self._clock.now() + self._interval
                if key in self._entries:
                    # To the end of the queue, so that others have their turn.
                    self._entries[key] = self._entries.pop(key)
            return
        except CastoreError as error:
            if key not in self._entries:
                return  # It was given up meanwhile, and after the end the members are closed.
            # Another time would be no better: no member has it right, or this one cannot take it.
            _log.warning("`%s`: %s cannot be copied to `%s`: %s", self._name, digest, member.name, error)
            done = False
            self.dropped += 1
        with self._lock:
            self.healed += done
            self._resting.pop(member, None)
            self._entries.pop(key, None)

    def _next(self) -> tuple[Member, B3Digest, Reason] | None:
        """Return what to copy next, as soon as there is something; `None` when nothing is left."""
        while True:
            self._wake.clear()
            with self._lock:
                now = self._clock.now()
                for (member, digest), reason in self._entries.items():
                    until = self._resting.get(member)
                    # While closing, one that has failed once is not tried again.
                    if until is None or (now >= until and not self._closing):
                        return member, digest, reason
                if not self._entries or self._closing:
                    self._running = False
                    self._idle.set()
                    return None
                pause = min(self._resting[member] for member, _ in self._entries) - now
            self._clock.wait(self._wake, max(pause, 0.0))
