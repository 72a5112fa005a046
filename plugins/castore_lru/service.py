"""A service kept within bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta, UnsupportedError
from castore.chunks.writer import ChunkedWriter
from castore.contract.capabilities import BlobDeleter, ChunkSource, ChunkStore, EvictionEvents, FrameStore
from castore.contract.upkeep import Evictable, Inventory, Pinning, Sweepable
from castore.digest import EMPTY
from castore.errors import OversizedFrameError
from castore.streams.readers import BytesReader
from castore.threads.deadlines import Clock
from castore.threads.pool import Pool
from castore.wrapping.wrapper import WrapperService
from castore_lru.bounds import Bounds
from castore_lru.capabilities import (
    BoundedDeleter,
    BoundedFrames,
    BoundedInventory,
    BoundedSource,
    BoundedStore,
    BoundedSweeps,
    Evictions,
    Pins,
)
from castore_lru.clock import TIME_OF_DAY
from castore_lru.space import Space
from castore_lru.streams import PinnedReader

P = TypeVar("P")


class LruBlobService(WrapperService):
    """Keeps *inner* within *bounds*: what was not used for longest is evicted, to make room or for its age.

    What is evicted are items, chunks as well as indexes, and before a chunk each index that lists it: a blob
    is there as a whole or not at all. What a reader has open, a writer has put or claimed, or somebody has
    pinned, stays. Processes that share *inner* share its accounts and its bounds.

    Arguments:
        inner: What is to be kept within bounds. Nobody else writes to it.
        bounds: At least one of them is set.
        name: The name of this instance.
        pool: Fetch chunks ahead while they are read in order.
        clock: Tells the seconds since 1970.

    Raises `UnsupportedError` if *inner* cannot remove what it keeps, or frees no space of a disk by that
    where `min_free` is set.
    """

    def __init__(
        self,
        inner: BlobService,
        bounds: Bounds,
        *,
        name: str = "lru",
        pool: Pool | None = None,
        clock: Clock = TIME_OF_DAY,
    ) -> None:
        super().__init__(inner, name=name)
        evictable, store = inner.capability(Evictable), inner.capability(ChunkStore)
        if evictable is None or store is None:
            raise UnsupportedError(
                f"`{name}` cannot keep this service within bounds: it does not list and remove what it keeps,"
                " as `memory`, `objectstore` and `sqlite` do"
            )
        if bounds.min_free is not None and evictable.free_bytes() is None:
            raise UnsupportedError(
                f"`{name}` cannot keep space free: removing something from the service within frees none;"
                " leave out `min_free`"
            )
        self._space = space = Space(inner, evictable, bounds, name=name, clock=clock)
        self._source = BoundedSource(space, store)
        self._store = BoundedStore(space, store, evictable)
        self._pool = pool.io_pool if pool is not None and store.high_latency else pool
        self._own = self._find_capabilities()
        events = inner.capability(EvictionEvents)
        self._deaf: Callable[[], None] = (
            (lambda: None) if events is None else events.on_evict(self._on_evict_within)
        )

    def _find_capabilities(self) -> dict[Any, Any]:
        inner, space = self.inner, self._space
        capabilities: dict[Any, Any] = {
            ChunkSource: self._source,
            ChunkStore: self._store,
            EvictionEvents: Evictions(space),
            Pinning: Pins(space),
            Evictable: None,  # Its items are evicted by itself, and by nobody else.
        }
        if (frames := inner.capability(FrameStore)) is not None:
            capabilities[FrameStore] = BoundedFrames(space, frames)
        if (inventory := inner.capability(Inventory)) is not None:
            capabilities[Inventory] = BoundedInventory(space, inventory)
        if (sweepable := inner.capability(Sweepable)) is not None:
            capabilities[Sweepable] = BoundedSweeps(space, sweepable)
        if (deleter := inner.capability(BlobDeleter)) is not None:
            capabilities[BlobDeleter] = BoundedDeleter(space, deleter)
        return capabilities

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability of the service within, by which the accounts stay right, or one of its own."""
        if kind in self._own:
            found: P | None = self._own[kind]
            return found
        return super().capability(kind)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service within. That is no use of the blobs, and waits for no lock."""
        self._space.age()
        return self.inner.missing(digests)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks there."""
        self._space.age()
        return self.inner.chunks(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk, which is used by that; one of several chunks is pinned while it is open."""
        try:
            data = self._source.get_chunk(digest)
        except OversizedFrameError:
            # The service within may know of its size.
            self._space.touch((digest,))
            return self.inner.open_read(digest)
        if data is not None:
            return BytesReader(data, digest)
        if self.inner.chunks(digest) is None:
            # For some the empty blob is always there, and in no list.
            return self.inner.open_read(digest) if digest == EMPTY else None
        tag = self._space.pin_to_read((digest,))
        if tag is None:
            # As where nothing can be written: who cannot evict may read all the same.
            return self.inner.open_read(digest)
        try:
            # Not evicted any more from here on; it may have been just before.
            reader = self._open_pinned(digest, tag)
        except BaseException:
            self._space.release(tag)
            raise
        if not isinstance(reader, PinnedReader):
            self._space.release(tag)
        return reader

    def _open_pinned(self, digest: B3Digest, tag: int) -> BlobReader | None:
        chunks = self.inner.chunks(digest)
        if not chunks:
            return None if chunks is None else self.inner.open_read(digest)
        if not self._space.knows_blob(digest) and not self._space.adopt({digest: chunks}):
            return None
        self._space.touch((digest,))
        return PinnedReader(
            self._space, tag, self, chunks, digest=digest, source=self._source, pool=self._pool
        )

    def open_write(self) -> BlobWriter:
        """Start a blob, cut as the service within does; what it has put stays until it is complete."""
        return ChunkedWriter(self._store)

    def evict(self) -> int:
        """Evict now what is too much or too old; return how many items went."""
        return self._space.enforce()

    def gauges(self) -> Mapping[str, float]:
        """Return `bytes` and `entries`, also those reserved, own `evictions`, and `pinned` digests."""
        return self._space.gauges()

    def close(self) -> None:
        """Leave those who share the store."""
        self._deaf()
        self._space.close()

    def _on_evict_within(self, digest: B3Digest) -> None:
        self._space.doubt(digest)
