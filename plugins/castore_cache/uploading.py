"""Bringing to far what waits for it, in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from castore import B3Digest, BlobService, CastoreError, UnavailableError
from castore.contract.capabilities import ChunkStore
from castore.errors import ClosedError, describe
from castore.threads import forks
from castore.threads.deadlines import CLOCK, Clock
from castore.threads.pool import Pool
from castore.threads.waiting import Flag, seconds_for_others
from castore_cache.backlog import Backlog

_LEAST: Final = 32
_MOST: Final = 1024
"""So many blobs are copied together: with more there are fewer requests, but a full queue waits longer."""

_SOON: Final = 1.0
"""In seconds: if a batch takes less the next one may be larger."""

_LAST_PIECE: Final = 1.0
"""How many seconds an upload may take to notice that it is over."""

_log: Final = logging.getLogger("castore_cache")


class _StoppedError(Exception):
    """The upload is over before it is done: the cache has closed."""


class Uploader:
    """Copies blobs from near to far, oldest first, on a thread that is there while some wait.

    Where far fails it is left alone for some time, and all wait. What near has lost, or has corrupt, is given
    up with an error in the log, for it would keep the others waiting without end. For the same reason what
    near cannot give now is passed over, and tried again later.

    Arguments:
        backlog: What waits.
        near: Where the blobs are.
        far: Where they go.
        done: Is called with each blob that does not wait any more.
        retry_after: How long far is left alone, in seconds.
        drain: How long `close` waits for what is due, in seconds.
        pool: Copy chunks.
        name: That of the cache, for what is logged.
        clock: What the waiting is done with.
    """

    def __init__(
        self,
        backlog: Backlog,
        near: BlobService,
        far: BlobService,
        *,
        done: Callable[[B3Digest], object],
        retry_after: float = 5.0,
        drain: float = 10.0,
        pool: Pool | None = None,
        name: str = "cache",
        clock: Clock = CLOCK,
    ) -> None:
        self._backlog = backlog
        self._near = near
        self._far = far
        self._done = done
        self._keeps_chunks = far.capability(ChunkStore) is not None
        self._retry_after = retry_after
        self._drain = drain
        self._pool = Pool(0) if pool is None else pool
        self._name = name
        self._clock = clock
        self._told: set[B3Digest] = set()
        self._again = False
        """Whether what is tried was passed over before."""
        self._lock = forks.new_lock()
        self._closing = self._stopped = False
        self._stops_at: float | None = None
        self.begin_anew()
        forks.begin_anew_in_child(self)
        self.failures = 0
        """How often an upload has failed."""
        self.last_error: str | None = None
        """What the last one that failed failed with; `None` if none has since one succeeded."""

    def begin_anew(self) -> None:
        """Be idle, in a child of a fork: the thread has stayed behind."""
        self._wake = Flag()
        self._idle = Flag()
        self._idle.set()
        self._rests_until: float | None = None
        self._hurried = False
        self._together = _LEAST
        self._running = False

    def start(self) -> bool:
        """See to it that what waits is uploaded; return False if it waits on, as no thread can be had."""
        with self._lock:
            if self._running:
                # It may be waiting for those that it has passed over.
                self._wake.set()
            if self._running or self._closing or not len(self._backlog):
                return True
            self._running = True
            self._idle.clear()
        try:
            self._clock.start(self._work, f"castore-upload-{self._name}")
        except RuntimeError:
            # As many run as may, or the interpreter is about to end; `close` and `flush` do it themselves.
            with self._lock:
                self._end()
            return False
        return True

    def _work_here(self, seconds: float | None) -> None:
        """Do the work of the thread, so many seconds at most."""
        with self._lock:
            self._running = True
            self._stops_at = None if seconds is None else self._clock.now() + seconds
        try:
            self._work()
        finally:
            self._stops_at = None

    def flush(self, timeout: float | None = None) -> bool:
        """Try at once, and wait until nothing waits, so many seconds at most; return whether that is so."""
        with self._lock:
            self._rests_until = None
            # What is under way was begun before: how that ends says nothing of a try that begins now.
            self._hurried = True
        self._backlog.hurry()
        self._wake.set()
        if not self.start():
            self._work_here(timeout)
        self._clock.wait(self._idle, timeout)
        return not len(self._backlog)

    def close(self) -> None:
        """Try once more what waits, for as long as the deadline allows; then end. The rest waits on."""
        here = not self.start()
        with self._lock:
            self._closing = True
            self._rests_until = None
        self._backlog.hurry()
        self._wake.set()
        if here:
            self._work_here(self._drain)
        self._clock.wait(self._idle, seconds_for_others(self._drain))
        self._stopped = True
        # What is under way ends with the piece that it is at, unless far hangs.
        self._clock.wait(self._idle, seconds_for_others(_LAST_PIECE))
        left = len(self._backlog)
        if left:
            _log.warning(
                "`%s`: closed while %d blobs wait for far; they are sent when it is opened again",
                self._name,
                left,
            )

    def _work(self) -> None:
        try:
            while batch := self._next():
                begun = self._clock.now()
                self._upload(batch)
                fast = self._clock.now() - begun < _SOON
                self._together = min(2 * self._together, _MOST) if fast else _LEAST
        except BaseException as error:
            with self._lock:
                self._end()
            if not isinstance(error, _StoppedError):
                raise

    def _end(self) -> None:
        self._running = False
        self._idle.set()

    def _next(self) -> Mapping[B3Digest, int]:
        """Return what to upload next, as soon as it is time; nothing when nothing is left to do."""
        while True:
            self._wake.clear()
            with self._lock:
                batch = self._first()
                rests_until, now = self._rests_until, self._clock.now()
                next_due = None if batch else self._backlog.next_due
                waits = rests_until if next_due is None else max(next_due, rests_until or next_due)
                nothing_to_do = not batch and next_due is None
                # While closing nothing that has failed once is tried again.
                if nothing_to_do or self._stopped or (waits is not None and self._closing):
                    self._end()
                    return {}
                if batch and (rests_until is None or now >= rests_until):
                    self._hurried = False
                    return batch
            if waits is not None:
                self._clock.wait(self._wake, waits - now)

    def _first(self) -> Mapping[B3Digest, int]:
        """Return the oldest blobs, in turn with those that were passed over and are due."""
        fresh = self._backlog.first(self._together)
        again = self._backlog.first(self._together, again=True)
        self._again = bool(again) and not (fresh and self._again)
        return again if self._again else fresh

    def _upload(self, batch: Mapping[B3Digest, int]) -> None:
        from castore.upkeep import Copier  # noqa: PLC0415 - only once something is to be copied

        faults: dict[B3Digest, CastoreError | None] = {}
        failure: Exception | None = None
        try:
            copier = Copier(self._near, self._far, self._pool, self._go_on)
            for copied in copier.run(batch):
                if self._stopped or isinstance(copied.error, ClosedError):
                    # Near and far are closed by now, or about to be, so no fault says anything of a blob.
                    raise _StoppedError
                if copied.error is not None:
                    faults[copied.digest] = copied.error
        except ClosedError as error:
            raise _StoppedError from error
        except _StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's service may raise anything
            failure = error
        stuck = {digest: fault for digest, fault in faults.items() if isinstance(fault, UnavailableError)}
        for digest, number in batch.items():
            # Of the others it is not known what became of them, if far has failed.
            if digest not in stuck and (failure is None or digest in faults):
                self._finish(digest, number, faults.get(digest))
        self._pass_over({digest: batch[digest] for digest in stuck}, stuck)
        if failure is not None and not stuck:
            self._rest(failure)
            return
        if len(stuck) == len(faults) == len(batch) and not self._again and not self._keeps_chunks:
            # It need not be near that fails: to a far without chunks blobs are streamed, one by one.
            self._rest(next(iter(stuck.values())))
            return
        with self._lock:
            self._rests_until = None
            if not self._backlog.next_due:
                self._told.clear()
                self.last_error = None

    def _pass_over(self, numbers: Mapping[B3Digest, int], faults: Mapping[B3Digest, CastoreError]) -> None:
        """Let those wait that near cannot give now, and no others."""
        if not numbers:
            return
        self._backlog.postpone(numbers, self._retry_after)
        if self._hurried:
            self._backlog.hurry()
        for digest, error in faults.items():
            level = logging.DEBUG if digest in self._told else logging.WARNING
            self._told.add(digest)
            _log.log(level, "`%s`: %s waits, and others go first: %s", self._name, digest, error)
        with self._lock:
            self.failures += 1
            self.last_error = describe(next(iter(faults.values())))

    def _finish(self, digest: B3Digest, number: int, error: CastoreError | None) -> None:
        try:
            if error is None:
                self._backlog.remove(digest, number)
            else:
                _log.error("`%s`: a blob is lost before far has got it: %s", self._name, error)
                self._backlog.give_up(digest, number)
        except UnavailableError as fault:
            # It is uploaded again when the folder is next read, which does no harm.
            _log.warning("`%s`: an entry of the queue stays behind: %s", self._name, fault)
        if digest not in self._backlog:
            self._done(digest)

    def _rest(self, error: Exception) -> None:
        _log.info("`%s`: far has not got what waits for it: %s", self._name, error)
        with self._lock:
            self.failures += 1
            self.last_error = describe(error)
            self._rests_until = None if self._hurried else self._clock.now() + self._retry_after

    def _go_on(self, _: int) -> None:
        if self._stopped or (self._stops_at is not None and self._clock.now() > self._stops_at):
            raise _StoppedError
