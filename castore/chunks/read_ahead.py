"""The chunks of a blob, fetched before they are asked for once they are read in order.

What is asked for at once is fetched at once, several chunks at a time. Beyond that nothing is fetched ahead
until a second chunk is read right behind a first one: who looks at the beginning of a file, or here and
there, pays for what is looked at. From then on a *window* of chunks is under way. It grows while the consumer
has to wait for one, up to a limit in bytes, and so finds out by itself how much a slow store needs; a fast
one is never far ahead. A few chunks stay at hand when they are done with, for reads that go back and forth,
and for blobs that have the same chunk many times.

The window is fetched in *runs* of several chunks, each a call for many: to hand something over, and to wake
who waits for it, costs as much as a good part of a chunk. For the same reason who waits takes part: it
fetches what nobody has begun with, and is mostly not woken but finds the next chunk ready. A source of high
latency makes many requests at once itself: there the window is two runs, of which one is fetched while the
other is read.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from castore.contract.batches import MOST_BYTES, MOST_ITEMS
from castore.contract.blobs import ChunkMeta
from castore.digest import B3Digest
from castore.threads import forks
from castore.threads.crew import Crew, crew_beside
from castore.threads.pool import Pool
from castore.threads.waiting import Bell

_FIRST_WINDOW: Final = 2

_MOST_AHEAD: Final = 24 << 20
"""How many bytes may be under way."""

_MOST_AT_HAND: Final = 1 << 20
"""How many bytes stay when they are done with: the fewer, the more of what is read stays in the caches."""

_RUN_SIZE: Final = 1 << 20
"""Chunks are fetched together until they are as many bytes."""

_WAITING_RUN: Final = 12 << 20
"""The same where requests mostly wait."""

_TURN: Final = 16
"""So many runs a thread of the pool fetches before others may have it."""

Fetch: TypeAlias = "Callable[[Sequence[ChunkMeta]], Mapping[B3Digest, bytes | Exception]]"
"""Returns checked bytes for all of some chunks, or what each was lost to: an error comes at its own chunk."""


class _Run:
    """Chunks that are fetched together: those from *start* to *end*, but for any that were at hand."""

    __slots__ = ("end", "found", "lacking", "size", "start")

    def __init__(self, start: int, end: int, size: int, lacking: Sequence[ChunkMeta]) -> None:
        self.start = start
        self.end = end
        self.size = size
        self.lacking = lacking
        self.found: dict[B3Digest, bytes | Exception] | None = None

    def take(self, digest: B3Digest) -> bytes | None:
        """Return a chunk of this run, `None` if it is none, or was taken; raises what fetching it raised."""
        assert self.found is not None
        data = self.found.pop(digest, None)
        if isinstance(data, Exception):
            raise data
        return data


class ReadAhead:
    """Gives the chunks of a list by their number.

    Arguments:
        chunks: The list.
        fetch: Fetches some of them with one call; called in threads of the pool.
        pool: The pool.
        after: How many bytes must have been read in order before more is fetched than was asked for.
        high_latency: Whether the source takes its time to answer, and then answers for many at once.
        meanwhile: Does something else that is to be done, for who has to wait; returns False if there is
            nothing.
    """

    def __init__(
        self,
        chunks: Sequence[ChunkMeta],
        fetch: Fetch,
        pool: Pool,
        *,
        after: int = 0,
        high_latency: bool = False,
        meanwhile: Callable[[], bool] = lambda: False,
    ) -> None:
        self._chunks = chunks
        self._fetch = fetch
        self._pool = pool
        self._after = after
        self._high_latency = high_latency
        self._run_size = _WAITING_RUN if high_latency else _RUN_SIZE
        self._at_hand: OrderedDict[B3Digest, bytes] = OrderedDict()
        self._bytes_at_hand = 0
        self._runs: deque[_Run] = deque()
        self._bytes_ahead = 0
        self._next = -1
        self._submitted = 0
        self._window = 0
        self._asked_for = (0, 0)
        self._in_order = 0
        self._meanwhile = meanwhile
        self._lock = forks.new_lock()
        self._changed = Bell(self._lock)
        self._not_begun: deque[_Run] = deque()
        self._crew = Crew(
            pool,
            min(pool.size, 2) if high_latency else crew_beside(pool),
            self._work,
            lambda: bool(self._not_begun),
            self._lock,
            turn=1 if high_latency else _TURN,
        )
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Have nothing under way, in a child of a fork; what was at hand still is."""
        self._runs.clear()
        self._not_begun.clear()
        self._bytes_ahead = self._window = self._submitted = 0

    def call_for_help(self) -> None:
        """Let a thread of the pool do what there is to do, if none is at it."""
        with self._lock:
            self._crew.call(1)

    def expect(self, begin: int, end: int) -> None:
        """Be told that the chunks from number *begin* up to *end* are going to be asked for, in order."""
        self._asked_for = (begin, end)

    def get(self, index: int) -> bytes:
        """Return a chunk; raises what fetching it raises."""
        in_order = index == self._next
        if not in_order:
            self.drop()
            self._submitted, self._in_order = index, 0
        begin, end = self._asked_for
        if begin <= index < end - 1 and self._pool.size:
            self._start_what_is_asked_for(index + 1, end)
        data, waited = self._take(index)
        self._next = index + 1
        self._in_order += self._chunks[index].size
        if in_order and self._pool.size and self._in_order > self._after:
            self._widen(waited=waited)
            self._look_ahead()
        return data

    def skip(self, index: int) -> None:
        """Go on after a chunk that could not be had, as it came from elsewhere."""
        if self._runs and self._runs[0].end == index + 1:
            self._bytes_ahead -= self._runs.popleft().size
        self._next = index + 1
        self._in_order += self._chunks[index].size

    def _take(self, index: int) -> tuple[bytes, bool]:
        """Return a chunk, and whether it had to be waited for."""
        meta = self._chunks[index]
        data = self._at_hand.get(meta.digest)
        waited = False
        if self._runs and self._runs[0].start <= index:
            run = self._runs[0]
            if data is None:
                waited = run.found is None
                if waited:
                    self._wait_for(run)
                data = run.take(meta.digest)
        if data is None:
            waited = True
            data = self._fetch_now(index)
        if self._runs and self._runs[0].end == index + 1:
            self._bytes_ahead -= self._runs.popleft().size
        self._keep(meta.digest, data)
        return data, waited

    def _fetch_now(self, index: int) -> bytes:
        """Fetch a chunk, and what else of its run has not come, as when fetching that was interrupted."""
        wanted = [self._chunks[index]]
        run = self._runs[0] if self._runs and self._runs[0].start <= index else None
        if run is not None and run.found is not None:
            coming = self._chunks[index + 1 : run.end]
            wanted += [meta for meta in coming if meta.digest not in run.found]
        found = dict(self._fetch(wanted))
        data = found.pop(wanted[0].digest)
        if run is not None and run.found is not None:
            run.found.update(found)
        if isinstance(data, Exception):
            raise data
        return data

    def _keep(self, digest: B3Digest, data: bytes) -> None:
        if digest in self._at_hand:
            self._at_hand.move_to_end(digest)
            return
        self._at_hand[digest] = data
        self._bytes_at_hand += len(data)
        while self._bytes_at_hand > _MOST_AT_HAND and len(self._at_hand) > 1:
            self._bytes_at_hand -= len(self._at_hand.popitem(last=False)[1])

    def _widen(self, *, waited: bool) -> None:
        if not self._window:
            self._window = _FIRST_WINDOW
        elif waited:
            self._window *= 2

    def _look_ahead(self) -> None:
        end = min(self._next + self._window, len(self._chunks))
        reached = self._start(self._next, end, _MOST_AHEAD, whole=end == len(self._chunks))
        if reached < end:
            # It has found its width: no more than this is ever under way.
            self._window = max(reached - self._next, _FIRST_WINDOW)

    def _start_what_is_asked_for(self, begin: int, end: int) -> None:
        """Let the pool fetch what comes next of it, enough to keep it busy."""
        at_once = 2 if self._high_latency else 2 * self._pool.size
        self._start(begin, end, min(at_once * self._run_size, _MOST_AHEAD), whole=True)

    def _start(self, begin: int, end: int, most: int, *, whole: bool) -> int:
        """Let the chunks from *begin* to *end* be fetched, no more than *most* bytes being under way.

        Return up to which that is possible. The last of them wait until they are a whole run, unless they are
        needed as they are, or nothing else is under way.
        """
        start = index = self._submitted = max(self._submitted, begin)
        size = 0
        while index < end:
            more = self._chunks[index].size
            if self._bytes_ahead + size + more > most:
                break
            if size and size + more > MOST_BYTES:
                self._submit(start, index, size)
                start, size = index, 0
                continue
            index += 1
            size += more
            if size >= self._run_size or index - start == MOST_ITEMS:
                self._submit(start, index, size)
                start, size = index, 0
        # Where requests mostly wait, what the window has grown by is a run, as soon as only one is under way.
        last = len(self._runs) < 2 if self._high_latency else not self._runs
        if start < index and (last or (whole and index == end)):
            self._submit(start, index, size)
        return index

    def _submit(self, start: int, end: int, size: int) -> None:
        lacking = [meta for meta in self._chunks[start:end] if meta.digest not in self._at_hand]
        run = _Run(start, end, size, lacking)
        self._runs.append(run)
        with self._lock:
            self._not_begun.append(run)
            self._crew.call(1)
        self._bytes_ahead += size
        self._submitted = end

    # -- the work --

    def _wait_for(self, run: _Run) -> None:
        """Return when a run is fetched: fetch it, or take part in what else is to be done until it is."""
        with self._lock:
            mine = run in self._not_begun
            if mine:
                self._not_begun.remove(run)
        if mine:
            self._fetch_run(run)
        while run.found is None:
            # Unless the source takes its time: what has come must be handed out then, and more asked for.
            if self._high_latency or not (self._meanwhile() or self._fetch_next()):
                self._changed.wait_for(lambda: run.found is not None)

    def _work(self) -> bool:
        if self._high_latency:
            self._meanwhile()
            return self._fetch_next()
        return self._fetch_next() or self._meanwhile()

    def _fetch_next(self) -> bool:
        with self._lock:
            run = self._not_begun.popleft() if self._not_begun else None
        if run is None:
            return False
        self._fetch_run(run)
        return True

    def _fetch_run(self, run: _Run) -> None:
        found: dict[B3Digest, bytes | Exception] = {}
        try:
            found.update(self._fetch(run.lacking))
        except Exception as error:  # noqa: BLE001 - it is raised where the first of them is asked for
            found = {meta.digest: error for meta in run.lacking[:1]}
        finally:
            # Also if it was interrupted: then what it lacks is fetched when its first chunk is asked for.
            with self._lock:
                run.found = found
                self._changed.ring()

    def drop(self) -> None:
        """Give up what is under way; it waits for what has begun."""
        self._runs.clear()
        self._bytes_ahead = self._window = 0
        with self._lock:
            self._not_begun.clear()
        self._crew.leave()

    def close(self) -> None:
        """Give up what is under way, and let go of what is at hand."""
        self.drop()
        self._at_hand.clear()
        self._bytes_at_hand = 0
