"""Blobs that are acknowledged when near has them, and brought to far afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import ParamSpec, TypeVar

import attrs

from castore import B3Digest, BlobService, BlobWriter, UnavailableError
from castore.contract.batches import batches
from castore.contract.capabilities import ChunkSource
from castore.contract.operations import WRITER_CLOSE, Operation
from castore.contract.upkeep import Pinning
from castore.threads import forks
from castore.threads.deadlines import CLOCK, Clock
from castore.threads.pool import Pool
from castore.wrapping.forwarding import ForwardingWriter
from castore_cache.backlog import Backlog
from castore_cache.near import Near
from castore_cache.parts import Faults, done_in_part, require_done
from castore_cache.uploading import Uploader

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen
class Lag:
    """How far behind far is."""

    entries: int
    """How many blobs wait for it."""
    oldest_seconds: float
    """For how long the first of them has."""
    failures: int
    """How often an upload has failed since the cache was opened."""
    last_error: str | None
    """What the last upload failed with; `None` if it succeeded, or there was none."""
    lost: int
    """How many blobs near had lost, or had corrupt, when they were to be sent."""


@attrs.define(eq=False)
class _Pin:
    """Blobs that were pinned together, and stay so until none of them waits any more."""

    waiting: int
    stack: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack)


class Behind:
    """Acknowledges what near has, by a backlog that lasts, and lets it be uploaded.

    What waits is pinned in near, if that could drop it of its own accord.

    Arguments:
        near: Where new blobs go.
        far: Where they go afterwards.
        backlog: What waits.
        retry_after: How long far is left alone after it has failed, in seconds.
        drain: How long closing waits for far, in seconds.
        pool: Copy chunks.
        name: That of the cache.
        clock: What the waiting is done with.
    """

    def __init__(
        self,
        near: Near,
        far: BlobService,
        backlog: Backlog,
        *,
        retry_after: float = 5.0,
        drain: float = 10.0,
        pool: Pool | None = None,
        name: str = "cache",
        clock: Clock = CLOCK,
    ) -> None:
        self._near = near
        self.name = name
        self._pinning = near.service.capability(Pinning)
        source = far.capability(ChunkSource)
        if pool is not None and source is not None and source.high_latency:
            pool = pool.io_pool
        self._pins: dict[B3Digest, _Pin] = {}
        self._lock = forks.new_lock()
        self.backlog = backlog
        self._uploader = Uploader(
            backlog,
            near.service,
            far,
            done=self._unpin,
            retry_after=retry_after,
            drain=drain,
            pool=pool,
            name=name,
            clock=clock,
        )
        for waiting in batches(backlog, lambda _: 0):
            near.attempt(lambda some=waiting: require_done(name, (), self._pin(some)))  # type: ignore[misc]
        self._uploader.start()

    def open_write(self) -> BlobWriter:
        """Start a new blob in near, which is on its way to far when its writer has closed."""
        return ForwardingWriter(self._near.service.open_write(), self._around)

    def _around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if operation != WRITER_CLOSE:
            return call(*args, **kwargs)
        with self.backlog.room():
            digest = call(*args, **kwargs)
            assert isinstance(digest, B3Digest)
            self.acknowledge([digest])
        return digest

    def store(
        self, digests: Iterable[B3Digest], call: Callable[[list[B3Digest]], object]
    ) -> tuple[set[B3Digest], Faults]:
        """Store blobs in near with *call*, as many at a time as there is room for, and acknowledge them.

        Returns which ones that was done with, and why not with the others. Raises what the first call raises,
        or that there is no room, if nothing is known then.
        """
        done: set[B3Digest] = set()
        faults: Faults = {}
        rest = list(digests)
        while rest:
            try:
                with self.backlog.room(len(rest)) as count:
                    some = rest[:count]
                    stored, failed = done_in_part(some, partial(call, some))
                    faults |= failed
                    some = [digest for digest in some if digest in stored]
                    acknowledged, failed = done_in_part(some, partial(self.acknowledge, some))
            except UnavailableError as error:
                if not done and not faults:
                    raise
                # The others would fail alike.
                return done, {**dict.fromkeys(rest, error), **faults}
            done |= acknowledged
            faults |= failed
            rest = rest[count:]
        return done, faults

    def acknowledge(self, digests: Collection[B3Digest]) -> None:
        """Return when blobs of near are sure to be brought to far.

        Raises `UnavailableError` if that cannot be promised, `BatchError` if only of some.
        """
        faults = self._pin(digests)
        kept = [digest for digest in digests if digest not in faults]
        try:
            self.backlog.add(kept)
        except BaseException:
            for digest in kept:
                if digest not in self.backlog:
                    self._unpin(digest)
            raise
        self._uploader.start()
        require_done(self.name, kept, faults)

    def forget(self, digest: B3Digest) -> None:
        """Do not bring a blob to far any more."""
        self.backlog.remove(digest)
        self._unpin(digest)

    def _pin(self, digests: Iterable[B3Digest]) -> Faults:
        """Pin blobs in near; return those that it had dropped before."""
        pinning = self._pinning
        if pinning is None:
            return {}
        with self._lock:
            new = [digest for digest in digests if digest not in self._pins]
            if not new:
                return {}
            pin = _Pin(len(new))
            pin.stack.enter_context(pinning.pin(new))
            self._pins.update(dict.fromkeys(new, pin))
        dropped = set(new)
        try:
            dropped = self._near.service.missing(new)
        finally:
            for digest in dropped:
                self._unpin(digest)
        return {
            digest: UnavailableError(self.name, f"near has dropped {digest} before it was on its way to far")
            for digest in dropped
        }

    def _unpin(self, digest: B3Digest) -> None:
        with self._lock:
            pin = self._pins.pop(digest, None)
            if pin is None:
                return
            pin.waiting -= 1
            ended = not pin.waiting
        if ended:
            self._near.attempt(pin.stack.close)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until far has everything, so many seconds at most; return whether it has."""
        return self._uploader.flush(timeout)

    def lag(self) -> Lag:
        """Return how far behind far is."""
        uploader, backlog = self._uploader, self.backlog
        return Lag(len(backlog), backlog.oldest_seconds, uploader.failures, uploader.last_error, backlog.lost)

    def gauges(self) -> Mapping[str, float]:
        """Return the lag as numbers by name."""
        lag = self.lag()
        return {
            "queue_entries": lag.entries,
            "queue_oldest_seconds": lag.oldest_seconds,
            "queue_failures": lag.failures,
            "queue_lost": lag.lost,
        }

    def close(self) -> None:
        """Bring to far what is due, as long as the deadline allows."""
        self._uploader.close()
        for digest in list(self._pins):
            self._unpin(digest)
