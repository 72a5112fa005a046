"""The capabilities of the service within, so that what is put, used or removed by them is accounted for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from castore import B3Digest, ChunkMeta
from castore.buffers import byte_view
from castore.contract.capabilities import (
    BlobDeleter,
    ChunkSource,
    ChunkStore,
    EvictionEvents,
    FoundChunks,
    FrameStore,
)
from castore.contract.upkeep import DigestRange, Evictable, Inventory, Pinning, StoredItem, Sweepable
from castore.format.chunking import Chunker
from castore.threads.pool import Pool
from castore.wrapping.sourced import SourcedChunks
from castore_lru.space import INDEX_ENTRY, Space

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")


class BoundedSource(SourcedChunks):
    """Reads chunks, which are used by that."""

    def __init__(self, space: Space, source: ChunkSource) -> None:
        super().__init__(source)
        self._space = space

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service within."""
        self._space.age()
        return self._source.find_chunks(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Read them there."""
        self._space.age()
        found = self._source.get_chunks(sizes)
        self._space.touch_read(found)
        return found


class BoundedStore(BoundedSource, ChunkStore):
    """Writes chunks and indexes, for which there is room when they land.

    What is put or claimed by way of one that has a *tag* is pinned by that, and stays until it is released.
    """

    def __init__(self, space: Space, store: ChunkStore, evictable: Evictable, tag: int | None = None) -> None:
        super().__init__(space, store)
        self._store = store
        self._evictable = evictable
        self._tag = tag

    @property
    def round(self) -> int:  # type: ignore[override]
        """As many as the service within likes, and as are sure to fit within the bounds."""
        small = self._evictable.chunk_bound(self._store.new_chunker().min_size)
        return max(min(self._store.round, self._space.most_files(small)), 1)

    @property
    def pool(self) -> Pool:
        """That of the service within."""
        return self._store.pool

    def new_chunker(self) -> Chunker:
        """Cut as the service within does."""
        return self._store.new_chunker()

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Claim chunks in the service within, and pin those that are there."""
        found = self._store.claim(digests)
        # Most that are asked for are new, and need no turn at the journal for that.
        return self._space.keep("chunk", found, self._tag) if found else found

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Claim blobs in the service within, and pin those that are there."""
        found = self._store.claim_blobs(blobs)
        return (
            self._space.keep_blobs({digest: blobs[digest] for digest in found}, self._tag) if found else found
        )

    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        """Pin what is put or claimed by way of the store that is given; lease the service within as well."""
        tag = self._space.new_tag()
        try:
            with self._store.lease(brief=brief) as leased:
                yield BoundedStore(self._space, leased, self._evictable, tag)
        finally:
            self._space.release(tag)

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Make room for chunks, then put them; some at a time, where there is no room for all at once."""
        if not chunks:
            return
        bound = self._evictable.chunk_bound
        sizes = {digest: bound(_size_of(data)) for digest, data in chunks.items()}

        def put(digests: Collection[B3Digest]) -> None:
            self._store.put_chunks(_some_of(chunks, digests))

        self._space.write("chunk", sizes, put, tag=self._tag)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make room for indexes, then put them together; none of their chunks goes meanwhile."""
        if not blobs:
            self._store.put_indexes(blobs)
            return
        sizes = {digest: INDEX_ENTRY * len(chunks) for digest, chunks in blobs.items()}

        def put(digests: Collection[B3Digest]) -> None:
            self._store.put_indexes(_some_of(blobs, digests))

        self._space.write("index", sizes, put, tag=self._tag, blobs=blobs)


def _size_of(data: Buffer) -> int:
    return len(data) if isinstance(data, bytes) else byte_view(data).nbytes


def _some_of(items: Mapping[B3Digest, T], digests: Collection[B3Digest]) -> Mapping[B3Digest, T]:
    return items if len(digests) == len(items) else {digest: items[digest] for digest in digests}


class BoundedFrames(FrameStore):
    """Reads and writes chunks as they are stored."""

    def __init__(self, space: Space, frames: FrameStore) -> None:
        self._space = space
        self._frames = frames

    @property
    def frame_format(self) -> str:
        """That of the service within."""
        return self._frames.frame_format

    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        """Read frames, which uses the chunks."""
        self._space.age()
        found = self._frames.get_frames(digests)
        self._space.touch_read(found)
        return found

    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        """Make room for frames, then put them."""
        if not frames:
            return
        sizes = {digest: len(frame) for digest, frame in frames.items()}

        def put(digests: Collection[B3Digest]) -> None:
            self._frames.put_frames(_some_of(frames, digests))

        self._space.write("chunk", sizes, put)


class BoundedInventory(Inventory):
    """Lists what there is, and sets things aside, which are not counted then."""

    def __init__(self, space: Space, inventory: Inventory) -> None:
        self._space = space
        self._inventory = inventory

    def list_items(self) -> Iterator[StoredItem]:
        """List the items of the service within."""
        return self._inventory.list_items()

    def list_items_in(self, part: DigestRange) -> Iterator[StoredItem]:
        """List a part of them."""
        return self._inventory.list_items_in(part)

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

    def leased_since(self) -> float | None:
        """Ask the service within."""
        return self._sweepable.leased_since()


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
    def pin(self, digests: Collection[B3Digest]) -> Iterator[None]:
        """Keep blobs and their chunks, or chunks, until the context ends."""
        tag = self._space.pin(digests)
        try:
            yield
        finally:
            self._space.release(tag)
