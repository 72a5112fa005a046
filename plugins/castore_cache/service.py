"""A near service in front of a far one, filled with what is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    CastoreError,
    ChunkedReader,
    ChunkMeta,
)
from castore.chunks.recovery import Elsewhere
from castore.chunks.writer import ChunkedWriter
from castore.composites.failover_reading import SMALL
from castore.composites.members import Member, Members
from castore.composites.union import UnionLister
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable
from castore.contract.refs import RefService
from castore.digest import no_digest
from castore.streams.readers import BytesReader
from castore.threads.deadlines import CLOCK, Clock
from castore.threads.pool import Pool
from castore_cache.behind import Behind, Lag
from castore_cache.capabilities import CacheDeleter, durability_of
from castore_cache.chunks import CachedChunks
from castore_cache.far import Far
from castore_cache.filling import Fill, Filler
from castore_cache.flights import Flights
from castore_cache.near import Near
from castore_cache.steady import SteadyReader
from castore_cache.stores import chunk_store_of
from castore_cache.turns import ProcessTurns
from castore_cache.writing import BothWriter

P = TypeVar("P")

Write: TypeAlias = Literal["near", "far", "both", "behind"]
Has: TypeAlias = Literal["present", "durable"]


class CacheBlobService(BlobService):
    """Reads from *near*, and what it lacks from *far*, keeping it in near.

    A hit in near never asks far. On a miss a blob is read chunk by chunk, each from near if it is there;
    those that come from far are kept in near, and once all are there so is the blob's index, with the
    chunk boundaries of far. A chunk that near has lost or has corrupt comes from far, in the middle of a blob
    as well, and is good in near then. Of many who want the same at the same time one asks far.

    Where new blobs go to near first (*write* is `near` or `behind`), what far lacks is not called absent on
    far's word alone if near could not answer.

    Arguments:
        near: Asked first.
        far: Asked for what near lacks.
        write: Where new blobs go; `behind` takes *behind*.
        fill: What of a blob is kept in near once some of it is read.
        has: What it takes for `has` and `missing` to find a blob: that it can be read here, or that it is in
            far or sure to get there.
        on_near_error: Whether a near that is unavailable is passed over, or its error raised.
        on_far_error: Whether an error of far is raised, or means that far lacks the blob that is asked for.
        fill_wait: How long one reader waits for another that brings the same from far, in seconds.
        behind: What brings new blobs to far later, made for this near and far.
        pool: Where chunks are fetched ahead.
        name: That of the instance.
        clock: What the waiting is done with.
    """

    def __init__(
        self,
        near: BlobService,
        far: BlobService,
        *,
        write: Write = "near",
        fill: Fill = "chunks",
        has: Has = "present",
        on_near_error: Literal["ignore", "fail"] = "ignore",
        on_far_error: Literal["fail", "miss"] = "fail",
        fill_wait: float = 60.0,
        behind: Callable[[Near], Behind] | None = None,
        pool: Pool | None = None,
        name: str = "cache",
        clock: Clock = CLOCK,
    ) -> None:
        if (write == "behind") is (behind is None):
            raise ValueError("what brings blobs to far later is for `write='behind'`, and needed there")
        self._write = write
        self._durable = has == "durable"
        self._near = Near(
            near,
            name,
            alone=write in ("near", "behind"),
            strict=on_near_error == "fail",
            keeps=fill != "none",
        )
        self._far = Far(far, name, as_miss=on_far_error == "miss")
        self._flights = Flights(fill_wait, clock)
        turns = ProcessTurns(self._near, fill_wait, clock)
        self._chunks = CachedChunks(self._near, self._far, self._flights, turns)
        pool = Pool(0) if pool is None else pool
        self.high_latency = near.high_latency or far.high_latency
        self._pool = pool.io_pool if self._chunks.high_latency else pool
        self._filler = Filler(
            self._near,
            self._far,
            self._chunks,
            flights=self._flights,
            indexes=Flights(fill_wait, clock),
            turns=turns,
            whole=fill == "blob",
            pool=self._pool,
        )
        self._behind = None if behind is None else behind(self._near)
        self._store = chunk_store_of(self._chunks, self._near, far, write, self._behind)
        # Far first, where a blob is deleted: else a reader could bring it back to near.
        self._members = Members(name, (Member("far", far), Member("near", near)))

    # -- questions --

    def has(self, digest: B3Digest) -> bool:
        """Tell whether near or far has a blob or chunk; or whether a blob is where it lasts."""
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        return not self.missing({digest})

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that `has` is false for; far is asked only for what near, or the queue, lacks."""
        wanted = set(digests)
        if self._durable:
            return self._missing_in_far({digest for digest in wanted if not self._is_due(digest)})
        near = self._near
        absent, fault = near.ask(lambda: near.service.missing(wanted))
        absent = self._missing_in_far(wanted if absent is None else absent)
        if absent:
            near.decide_absence(fault)
        return absent

    def _missing_in_far(self, wanted: set[B3Digest]) -> set[B3Digest]:
        return self._far.ask(lambda: self._far.service.missing(wanted), miss=wanted) if wanted else set()

    def _is_due(self, digest: B3Digest) -> bool:
        """Tell whether a blob is sure to be brought to far."""
        return self._behind is not None and digest in self._behind.backlog

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks as near has them, else as far does."""
        near, far = self._near, self._far
        found, fault = near.ask(lambda: near.chunks(digest))
        if found is None:
            found = far.ask(lambda: far.service.chunks(digest), miss=None)
        if found is None:
            near.decide_absence(fault)
        return found

    # -- reading --

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk; what is read of it from far stays in near."""
        if self._near.doubts(digest):
            return self._open_doubted(digest)
        landed = self._flights.landed
        reader, fault = self._near.ask(lambda: self._open_near(digest))
        if reader is None:
            reader = self._far.ask(lambda: self._filler.open(digest, landed), miss=None)
        if reader is None:
            self._near.decide_absence(fault)
        return reader

    def _open_doubted(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob that near had wrong, and may have right by now: at far, if that has it."""
        error: CastoreError | None = None
        try:
            reader = self._far.ask(lambda: self._filler.open(digest), miss=None)
        except CastoreError as raised:
            reader, error = None, raised
        if reader is not None:
            return reader
        reader, fault = self._near.ask(lambda: self._open_near(digest))
        if reader is None and error is not None:
            raise error
        if reader is None:
            self._near.decide_absence(fault)
        return reader

    def _open_near(self, digest: B3Digest) -> BlobReader | None:
        near = self._near
        chunks = near.chunks(digest)
        if chunks:
            # Through the cache, so that a chunk that near has lost since comes from far again: as that chunk,
            # or else by its place in the blob. Where the list is wrong far fills near anew.
            recovery = Elsewhere(
                lambda: self._far.service.open_read(digest),
                instead=lambda: self._filler.open(digest),
                after_all=lambda: self._filler.open_by_chunks(digest),
                keep=near.keep,
                wrong=lambda _: near.distrust(digest, chunks),
                after=lambda error: not near.stands(error),
            )
            return ChunkedReader(
                self, chunks, digest=digest, source=self._chunks, pool=self._pool, recovery=recovery
            )
        reader = None if chunks is None else near.service.open_read(digest)
        if reader is None or (near.checks and isinstance(reader, BytesReader)):
            return reader  # Bytes that are in memory do not fail any more.
        if near.checks or reader.size > SMALL:
            return SteadyReader(reader, digest, near, lambda: self._filler.open(digest))
        return near.open_checked(reader, digest)

    # -- writing --

    def open_write(self) -> BlobWriter:
        """Start a new blob where the config says."""
        if self._write in ("near", "far"):
            return self._target.open_write()
        if self._store is not None:
            return ChunkedWriter(self._store)
        if self._behind is not None:
            return self._behind.open_write()
        return BothWriter(self._near, self._far.service.open_write())

    @property
    def _target(self) -> BlobService:
        return self._far.service if self._write == "far" else self._near.service

    # -- capabilities --

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability if near and far make it possible.

        Chunks can always be read; written if the services that are written to can. Blobs can be listed, or
        deleted, if near and far can do it. Refs are where blobs go in the end. What is written is as durable
        as where it is sure to be.
        """
        answer: Any = None
        if kind is ChunkSource:
            answer = self._chunks
        elif kind is ChunkStore:
            answer = self._store
        elif kind is Durable:
            answer = durability_of(self._sure_of)
        elif kind is BlobLister:
            listers = self._members.all_with(BlobLister)
            answer = None if listers is None else UnionLister(listers)
        elif kind is BlobDeleter:
            deleters = self._members.all_with(BlobDeleter)
            answer = None if deleters is None else CacheDeleter(self._members.name, deleters, self._behind)
        elif kind is RefService:
            # Where blobs are in the end: one place, so that no name is ever stale.
            kept_in = self._near if self._write == "near" else self._far
            answer = kept_in.service.capability(RefService)
        found: P | None = answer
        return found

    @property
    def _sure_of(self) -> Sequence[BlobService]:
        """The services that are sure to have a blob once it is acknowledged."""
        if self._write != "both":
            return (self._target,)
        return (self._near.service, self._far.service) if self._near.strict else (self._far.service,)

    # -- what goes on --

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until far has all that was written, so many seconds at most; return whether it has.

        Only with `write = "behind"` is there anything to wait for.
        """
        return self._behind is None or self._behind.flush(timeout)

    def lag(self) -> Lag | None:
        """Return how far behind far is; `None` unless it is written behind."""
        return None if self._behind is None else self._behind.lag()

    def gauges(self) -> Mapping[str, float]:
        """Return numbers on what goes on, by name."""
        own: dict[str, float] = {
            "near_errors": self._near.errors,
            "near_damages": self._near.damages,
            "far_errors": self._far.errors,
        }
        return own if self._behind is None else {**own, **self._behind.gauges()}

    def close(self) -> None:
        """Bring to far what is due, as long as the deadline allows."""
        if self._behind is not None:
            self._behind.close()
