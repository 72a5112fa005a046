"""Chunks that wait in memory until a pack is full, or the index of a blob is put.

Each lease has a pack of its own, so that the chunks of one blob, or of one round of small files, lie beside
each other. Frames are appended in the order in which the calls began that brought them, whichever of these
ends first. Those who close a pack while another one is on its way share the next.

A pack that could not be stored waits on, and the next call tries again: nothing that was put is forgotten
as long as somebody may count on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Final

import attrs

from castore import B3Digest
from castore.contract.batches import batches
from castore.errors import CastoreError, UnavailableError
from castore.format.packs import MOST_ENTRIES, PackBuilder
from castore.threads import forks
from castore.threads.waiting import Baton, Holder

Frames = Sequence[tuple[B3Digest, bytes, int]]
"""Chunks: their digests, frames and sizes, 0 for one that is not known."""

_log: Final = logging.getLogger("castore_objectstore")

_MOST_CHUNKS: Final = min(1 << 16, MOST_ENTRIES)
"""How many chunks a pack has that is closed for their number."""


class Work:
    """What one lease, or the service itself, puts together."""

    def __init__(self) -> None:
        self.open = PackBuilder()
        self.full: list[PackBuilder] = []
        """Packs that are to be stored, and wait for it, also as that has failed."""
        self.counts_on: set[Work] = set()
        """Others whose chunks somebody has claimed for this one before they were stored."""
        self.tickets = 0
        self.turn = 0
        self.parked: dict[int, Frames] = {}
        """Frames of calls that began later than one that has not ended."""


@attrs.define(eq=False)
class _Closing:
    """A pack that is to be stored now, with the records of blobs."""

    work: Work
    builder: PackBuilder
    indexes: Mapping[B3Digest, bytes]
    counted: set[Work] = attrs.field(factory=set)
    done: bool = False
    failure: CastoreError | None = None


class Packer:
    """Gathers chunks, and gives packs to *store*, which has them stored for good when it returns."""

    def __init__(
        self, store: Callable[[PackBuilder, Mapping[B3Digest, bytes]], object], pack_size: int
    ) -> None:
        self._store = store
        self._pack_size = pack_size
        self._waiting: dict[bytes, tuple[Work, PackBuilder | bytes]] = {}
        self._lock = forks.new_lock()
        self._turn = Baton()
        self._queue: list[_Closing] = []
        self._running: list[_Closing] = []
        self.common = Work()
        """What is put by the service itself, and what leases have left."""
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Wait for nobody, in a child of a fork. What waits are mere bytes, which may be counted on here."""
        self._queue, self._running = [], []
        # The threads are not here that were about to do something with what waits, at whichever step.
        works = {self.common, *(work for work, _ in self._waiting.values())}
        held = [builder for work in works for builder in (work.open, *work.full)]
        for work in works:
            if work.open in work.full:
                work.open = PackBuilder()
        for digest, (_, found) in list(self._waiting.items()):
            if isinstance(found, bytes):
                self._append(self.common, ((B3Digest(digest), found, 0),))
            elif found not in held:
                held.append(found)
                self.common.full.append(found)

    # -- questions --

    def get(self, digest: bytes) -> bytes | None:
        """Return the frame of a chunk that waits, `None` if there is none."""
        found = self._waiting.get(digest)
        if found is None:
            return None
        return found[1] if isinstance(found[1], bytes) else found[1].get(digest)

    def claim(self, digests: Iterable[B3Digest], work: Work) -> set[B3Digest]:
        """Return those that wait; *work* counts on them from now on."""
        found = set()
        with self._lock:
            for digest in digests:
                waiting = self._waiting.get(digest)
                if waiting is not None:
                    found.add(digest)
                    if waiting[0] is not work:
                        work.counts_on.add(waiting[0])
        return found

    # -- putting --

    def take_ticket(self, work: Work) -> int:
        """Return the place of a call among all others for *work*; it is given to `add` once."""
        with self._lock:
            work.tickets += 1
            return work.tickets - 1

    def add(self, work: Work, ticket: int, frames: Frames) -> None:
        """Let chunks wait; store what is full. Raises what that raises, and then they wait all the same."""
        with self._lock:
            for digest, frame, _ in frames:
                self._waiting[digest] = (work, frame)
            work.parked[ticket] = frames
            while work.turn in work.parked:
                self._append(work, work.parked.pop(work.turn))
                work.turn += 1
            if ticket < work.turn and ticket in work.parked:
                self._append(work, work.parked.pop(ticket))  # Others have not waited for it.
        self._store_full(work)

    def _append(self, work: Work, frames: Frames) -> None:
        for digest, frame, size in frames:
            work.open.add(digest, frame, size)
            self._waiting[digest] = (work, work.open)
            if work.open.size >= self._pack_size or len(work.open) >= _MOST_CHUNKS:
                work.full.append(work.open)
                work.open = PackBuilder()

    def _store_full(self, work: Work) -> None:
        """Store the packs that are full."""
        with self._lock:
            full, work.full = work.full, []
            mine = [_Closing(work, builder, {}) for builder in full]
            self._queue += mine
        self._finish(mine)

    def close_pack(self, work: Work, indexes: Mapping[B3Digest, bytes]) -> None:
        """Store all that *work* has and counts on, and then the records of blobs; raises what that raises."""
        with self._lock:
            self._drain(work)
            if not (indexes or work.full or len(work.open) or work.counts_on):
                return
            mine = _Closing(work, work.open, indexes)
            work.open = PackBuilder()
            self._queue.append(mine)
        self._finish((mine,))

    def _drain(self, work: Work) -> None:
        for ticket in sorted(work.parked):
            self._append(work, work.parked.pop(ticket))
            work.turn = max(work.turn, ticket + 1)

    def _finish(self, closings: Sequence[_Closing]) -> None:
        """Return when packs are stored; raise the error of one that is not."""
        me = Holder()
        for each in closings:
            leads = self._turn.take(me, unless=partial(attrgetter("done"), each))
            try:
                if leads and not each.done:
                    self._lead()
            finally:
                self._turn.give_back(me)
        failure = next((each.failure for each in closings if each.failure is not None), None)
        if isinstance(failure, UnavailableError):
            # Each gets an error of its own: threads would write their tracebacks into a shared one.
            raise UnavailableError(failure.instance, failure.cause) from failure
        if failure is not None:
            raise failure

    def _lead(self) -> None:
        """Store all that is to be closed, and what it counts on before it, small packs together."""
        with self._lock:
            queue, self._queue = self._queue, []
            first = []
            # With what one has left who was interrupted: it may count on more by now.
            for each in (*self._running, *queue):
                for work in _reached(each.work):
                    if work is not each.work:
                        # Somebody may count on what waits behind a call that has not ended.
                        self._drain(work)
                    first += [
                        _Closing(work, builder, {})
                        for builder in _taken(work, all_of_it=work is not each.work)
                    ]
            self._running = [*self._running, *first, *queue]
            for each in self._running:
                each.counted = set(each.work.counts_on)
            running = list(self._running)
        if not running:
            return
        try:
            if len(running) == 1 or sum(each.builder.size for each in running) <= self._pack_size:
                self._write(running, with_records=True)
            else:
                # A record may count on any of the others.
                for some in batches(running, lambda each: each.builder.size, most_bytes=self._pack_size):
                    self._write(some, with_records=False)
                self._write_records([each for each in running if each.indexes])
        finally:
            self._settle(running)

    def _write(self, closings: Sequence[_Closing], *, with_records: bool) -> None:
        builder = closings[0].builder
        if len(closings) > 1:
            builder = PackBuilder()
            for each in closings:
                builder.add_all(each.builder)
        indexes = {digest: index for each in closings for digest, index in each.indexes.items()}
        failure = None
        try:
            if len(builder) or (with_records and indexes):
                self._store(builder, indexes if with_records else {})
        except CastoreError as error:
            failure = error
        for each in closings:
            each.failure = failure
            each.done = with_records or failure is not None or not each.indexes

    def _write_records(self, closings: Sequence[_Closing]) -> None:
        """Store the records of those of which all chunks are stored, and all that they count on."""
        if not closings:
            return
        with self._lock:
            failed = {each.work: each.failure for each in self._running if each.failure is not None}
            for each in closings:
                found = (failed[work] for work in _reached(each.work) if work in failed)
                each.failure = each.failure or next(found, None)
        ready = [each for each in closings if each.failure is None]
        try:
            if ready:
                indexes = {digest: index for each in ready for digest, index in each.indexes.items()}
                self._store(PackBuilder(), indexes)
        except CastoreError as error:
            for each in ready:
                each.failure = error
        for each in closings:
            each.done = True

    def _settle(self, closings: Sequence[_Closing]) -> None:
        """Forget what is stored; let wait on what is not."""
        with self._lock:
            for each in closings:
                if not each.done:
                    continue  # Who leads next begins anew.
                self._running.remove(each)
                if each.failure is None:
                    self._forget(each.builder)
                    each.work.counts_on -= each.counted
                elif len(each.builder):
                    each.work.full.append(each.builder)

    def _forget(self, builder: PackBuilder) -> None:
        for digest in builder:
            found = self._waiting.get(digest)
            if found is not None and found[1] is builder:
                del self._waiting[digest]

    def leave(self, work: Work) -> None:
        """Let the service keep what a lease has left."""
        with self._lock:
            self._drain(work)
            common = self.common
            for builder in _taken(work, all_of_it=True):
                for digest in list(builder):
                    found = self._waiting.get(digest)
                    if found is not None and found[1] is builder:
                        frame = builder.get(digest) or b""
                        self._append(common, ((B3Digest(digest), frame, builder.size_of(digest)),))
            common.counts_on |= work.counts_on - {common}
            work.counts_on = {common}
            full = bool(common.full)
        if full:
            try:
                self._store_full(common)
            except CastoreError as error:
                _log.debug("chunks that are of no blob wait on: %s", error)


def _reached(work: Work) -> list[Work]:
    """Return a work and all that it counts on."""
    found = [work]
    for each in found:
        found += each.counts_on.difference(found)
    return found


def _taken(work: Work, *, all_of_it: bool) -> list[PackBuilder]:
    """Take away the packs that a work has to store; *all_of_it*: also that which is open."""
    found, work.full = work.full, []
    if all_of_it and len(work.open):
        found = [*found, work.open]
        work.open = PackBuilder()
    return found
