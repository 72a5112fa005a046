"""The capabilities of the service within, such that whatever is put, used or removed by them is accounted for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from castore import B3Digest, ChunkMeta
from castore.buffers import byte_view
from castore.contract.capabilities import BlobDeleter, ChunkSource, ChunkStore, EvictionEvents, FrameStore
from castore.contract.upkeep import Evictable, Inventory, Pinning, StoredItem, Sweepable
from castore_lru.space import Space, Wanted, index_wanted

if TYPE_CHECKING:
    from typing_extensions import Buffer


class BoundedSource(ChunkSource):
    """Reads chunks, which are used by that."""

    def __init__(self, space: Space, source: ChunkSource) -> None:
        self._space = space
        self._source = source
        self.high_latency = source.high_latency

    def has_chunk(self, digest: B3Digest) -> bool:
        """Ask the service within."""
        self._space.age()
        return self._source.has_chunk(digest)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Read it there."""
        self._space.age()
        data = self._source.get_chunk(digest, size)
        if data is not None:
            self._space.touch(digest)
        return data

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where the service within keeps it."""
        return self._source.chunk_key(digest)


class BoundedStore(BoundedSource, ChunkStore):
    """Writes chunks and indexes, for which there is room when they land.

    What is put or claimed while it is held is pinned until the hold ends. One that is made with a *tag*
    pins everything by that, and who has made it releases the tag.
    """

    def __init__(self, space: Space, store: ChunkStore, evictable: Evictable, tag: int | None = None) -> None:
        super().__init__(space, store)
        self._store = store
        self._evictable = evictable
        self._tag = tag
        self._holds: set[int] = set()

    @property
    def tags(self) -> tuple[int, ...]:
        """What puts and claims are pinned by."""
        return tuple(self._holds) if self._tag is None else (self._tag,)

    def claim_chunk(self, digest: B3Digest) -> bool:
        """Pin a chunk, and claim it in the service within."""
        tags = self.tags
        if tags:
            # Most that are asked for are new, and need no turn at the journal for that.
            known = self._space.knows(digest) or self._store.has_chunk(digest)
            return known and self._space.keep(digest, tags) and self._store.claim_chunk(digest)
        claimed = self._store.claim_chunk(digest)
        if claimed:
            self._space.touch(digest)
        return claimed

    def claim_blob(self, digest: B3Digest) -> bool:
        """Pin a blob while it is claimed in the service within."""
        guard = self._space.pin(digest)
        try:
            claimed = self._store.claim_blob(digest)
        finally:
            self._space.release(guard)
        if claimed:
            self._space.touch(digest)
        return claimed

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Pin what is put or claimed until the context ends; hold it in the service within as well."""
        if self._tag is not None:
            with self._store.hold():
                yield
            return
        tag = self._space.new_tag()
        self._holds.add(tag)
        try:
            with self._store.hold():
                yield
        finally:
            self._holds.discard(tag)
            self._space.release(tag)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Make room for a chunk, then put it."""
        bound = self._evictable.chunk_bound(len(byte_view(data)))
        with self._space.writing([Wanted("chunk", digest, bound)], self.tags):
            self._store.put_chunk(digest, data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make room for an index, then put it; none of its chunks goes meanwhile."""
        with self._space.writing([index_wanted(digest, chunks)], self.tags):
            self._store.put_index(digest, chunks)

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        """Make room for all of them, then put them together."""
        wanted = [index_wanted(digest, chunks) for digest, chunks in blobs]
        if wanted:
            with self._space.writing(wanted, self.tags):
                self._store.put_indexes(blobs)


class BoundedFrames(FrameStore):
    """Reads and writes chunks as they are stored."""

    def __init__(self, space: Space, frames: FrameStore, tags: Callable[[], Sequence[int]]) -> None:
        self._space = space
        self._frames = frames
        self._tags = tags

    @property
    def frame_format(self) -> str:
        """That of the service within."""
        return self._frames.frame_format

    def get_frame(self, digest: B3Digest) -> bytes | None:
        """Read a frame, which uses the chunk."""
        self._space.age()
        frame = self._frames.get_frame(digest)
        if frame is not None:
            self._space.touch(digest)
        return frame

    def put_frame(self, digest: B3Digest, frame: bytes) -> None:
        """Make room for a frame, then put it."""
        with self._space.writing([Wanted("chunk", digest, len(frame))], self._tags()):
            self._frames.put_frame(digest, frame)


class BoundedInventory(Inventory):
    """Lists what there is, and sets things aside, which are not counted then."""

    def __init__(self, space: Space, inventory: Inventory) -> None:
        self._space = space
        self._inventory = inventory

    def list_items(self) -> Iterator[StoredItem]:
        """List the items of the service within."""
        return self._inventory.list_items()

    def set_aside(self, item: StoredItem) -> str:
        """Set an item aside there."""
        try:
            return self._inventory.set_aside(item)
        finally:
            if item.digest is not None:
                self._space.doubt(item.digest)


class BoundedSweeps(BoundedInventory, Sweepable):
    """Sweeps what is old and not wanted."""

    def __init__(self, space: Space, sweepable: Sweepable) -> None:
        super().__init__(space, sweepable)
        self._sweepable = sweepable

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Sweep the service within."""
        for item in self._sweepable.sweep(items, older_than=older_than):
            if item.digest is not None:
                self._space.doubt(item.digest)
            yield item

    @property
    def renewal_seconds(self) -> float:
        """That of the service within."""
        return self._sweepable.renewal_seconds

    def held_since(self) -> float | None:
        """Ask the service within."""
        return self._sweepable.held_since()


class BoundedDeleter(BlobDeleter):
    """Deletes blobs."""

    def __init__(self, space: Space, deleter: BlobDeleter) -> None:
        self._space = space
        self._deleter = deleter

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob of the service within."""
        try:
            return self._deleter.delete(digest)
        finally:
            self._space.doubt(digest)


class Evictions(EvictionEvents):
    """Tells what this process evicts."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        """Call *callback* with the digest of each blob or chunk; return what ends this."""
        return self._space.listen(callback)


class Pins(Pinning):
    """Pins what it is told to."""

    def __init__(self, space: Space) -> None:
        self._space = space

    @contextlib.contextmanager
    def pin(self, digest: B3Digest) -> Iterator[None]:
        """Keep a blob and its chunks, or a chunk, until the context ends."""
        tag = self._space.pin(digest)
        try:
            yield
        finally:
            self._space.release(tag)
