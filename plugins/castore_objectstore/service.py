"""Blobs over an object store, in the reference's layout.

==================================================  ====================================================
`blobs/b3/<first 4 hex digits>/<64 hex digits>`     the index of a blob; no bytes for one of 0 or 1 chunks
`chunks/b3/<first 4 hex digits>/<64 hex digits>`    a chunk as a zstd frame, under the digest of its bytes
==================================================  ====================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkedReader, ChunkMeta
from castore.chunks.known_content import find_known
from castore.chunks.small_files import SmallFiles
from castore.chunks.writer import ChunkedWriter
from castore.contract.capabilities import (
    BlobLister,
    ChunkStore,
    Durable,
    Evictable,
    FrameStore,
    SharedPlace,
    StoredItem,
    Sweepable,
)
from castore.contract.inputs import Source
from castore.digest import EMPTY, no_digest
from castore.errors import BadIndexError, InvalidDigestError, MissingChunkError, SourceError
from castore.format import blob_index, frames
from castore.format.chunking import DEFAULT_AVG_SIZE, Chunker, FastCdc2020
from castore.streams.readers import BytesReader
from castore.threads.pool import Pool
from castore_objectstore.object_store import LastObject, ObjectStore, StoredObject
from castore_objectstore.sharing import SharedStore

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")

_BLOBS: Final = "blobs/b3/"
_CHUNKS: Final = "chunks/b3/"


class AddOnlyBlobService(BlobService, BlobLister, ChunkStore, FrameStore, Durable):
    """Keeps blobs as chunks in an `ObjectStore` in which nothing can be removed.

    The requests for each operation are those of the reference, in its order; an index comes after all its
    chunks are durable. A writer replaces an existing chunk only if it is torn, and an existing index only if
    it cannot be right.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        chunker: type[Chunker] = FastCdc2020,
        avg_chunk_size: int = DEFAULT_AVG_SIZE,
        compression_level: int = frames.DEFAULT_LEVEL,
        pool: Pool | None = None,
    ) -> None:
        self._store = store
        self._chunker = chunker
        self._avg_chunk_size = avg_chunk_size
        self._level = compression_level
        self._own_pool = Pool() if pool is None else None
        pool = pool or self._own_pool or Pool()
        # Where requests mostly wait there can be more of them than cores.
        self._pool = pool.io_pool if store.high_latency else pool
        self.high_latency = store.high_latency
        self._shared = SharedStore(store, self.chunk_key) if store.shared else None

    def has(self, digest: B3Digest) -> bool:
        """Tell whether there is an index or a chunk of this digest."""
        return self._store.exists(_key(_BLOBS, digest)) or self.has_chunk(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk. The empty blob is always there, without asking."""
        if digest == EMPTY:
            return BytesReader(b"")
        data = self.get_chunk(digest)
        if data is None:
            chunks = self.chunks(digest)
            if chunks is None:
                return None
            if chunks:
                return ChunkedReader(self, chunks, digest=digest, key=_key(_BLOBS, digest), pool=self._pool)
            # An empty index, so one chunk of this digest; it may have come since it was asked for.
            data = self.get_chunk(digest)
            if data is None:
                raise MissingChunkError(blob=digest, chunk=digest, key=_key(_CHUNKS, digest))
        return BytesReader(data)

    def open_write(self) -> BlobWriter:
        """Start a new blob, whose chunks go to the store while it is written."""
        return self._open_write_to(self)

    def _open_write_to(self, store: ChunkStore) -> BlobWriter:
        chunker = self._chunker(self._avg_chunk_size)
        if self.high_latency:
            return ChunkedWriter(store, chunker, self._pool, job_size=0)
        return ChunkedWriter(store, chunker, self._pool)

    def put_source(self, source: Source, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file; of one that is there already, and whole, little more is done than to hash it."""
        known = find_known(self, self._chunker(self._avg_chunk_size), source, self._pool)
        if known is None:
            return super().put_source(source, progress)
        digest, size = known
        if progress is not None:
            progress(size)
        return digest

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store many files, small ones together."""
        limit = self._chunker(self._avg_chunk_size).min_size
        return SmallFiles(self, self, self._pool, limit=limit, high_latency=self.high_latency).put(
            paths, progress
        )

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Read and check the index of a blob; a chunk, too, is a blob with no finer chunks."""
        key = _key(_BLOBS, digest)
        index = self._store.get(key)
        if index is not None:
            return blob_index.decode(index, digest, key=key)
        return () if self.has_chunk(digest) else None

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability; whether processes can tell each other anything depends on the store."""
        return cast("P | None", self._shared) if kind is SharedPlace else super().capability(kind)

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every index. What is no digest in the folder of indexes is passed over."""
        for entry in self._store.list(_BLOBS):
            digest = _digest_in(_BLOBS, entry)
            if digest is not None:
                yield digest

    # -- chunks --

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether there is an object for this chunk."""
        return self._store.exists(_key(_CHUNKS, digest))

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk, unpacked within bounds and checked."""
        key = _key(_CHUNKS, digest)
        frame = self._store.get(key)
        return None if frame is None else frames.decode_chunk(frame, digest, size=size, key=key)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Compress and store a chunk."""
        self._store.put(_key(_CHUNKS, digest), frames.compress(data, self._level))

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Compress chunks together, and store each."""
        packed = frames.compress_each(list(chunks.values()), self._level)
        for digest, frame in zip(chunks, packed, strict=True):
            self._store.put(_key(_CHUNKS, digest), frame)

    def claim_chunk(self, digest: B3Digest) -> bool:
        """Tell whether there is a whole frame for this chunk."""
        return self._store.claim(_key(_CHUNKS, digest), frames.is_whole)

    def claim_blob(self, digest: B3Digest) -> bool:
        """Tell whether an index and all of its chunks are there; flush them if they are."""
        if not self._store.claim(_key(_BLOBS, digest), _anything):
            return False
        try:
            chunks = self.chunks(digest)
        except BadIndexError:
            return False
        if chunks is None:
            return False
        needed = {meta.digest for meta in chunks} or {digest} - {EMPTY}
        # A look at a file costs less than handing that to another thread.
        if not all((self._pool.map if self.high_latency else map)(self.claim_chunk, needed)):
            return False
        self._store.settle()
        return True

    def hold(self) -> AbstractContextManager[None]:
        """Keep a lease in the store."""
        return self._store.hold()

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Store the index of a blob, durably and after its chunks, unless there is one that may be right."""
        self.put_indexes([(digest, chunks)])

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        """Store indexes; a few flushes serve for all of them."""
        last = []
        for digest, chunks in dict(blobs).items():
            if not self._claim_index(digest, chunks):
                needs = [_key(_CHUNKS, meta.digest) for meta in chunks] or [_key(_CHUNKS, digest)]
                last.append(LastObject(_key(_BLOBS, digest), blob_index.encode(chunks), needs))
        self._store.settle(last)

    def claim_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> set[B3Digest]:
        """Look at the indexes one by one."""
        return {digest for digest, chunks in blobs if self._claim_index(digest, chunks)}

    def _claim_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Tell whether an index is there that may stay: this one, or another whose chunks are there."""
        key = _key(_BLOBS, digest)
        same = False

        def compare(read_at: Callable[[int, int], bytes], size: int) -> bool:
            nonlocal same
            expected = blob_index.encode(chunks)
            same = size == len(expected) and read_at(0, size) == expected
            return True  # Another one may be right, too.

        return self._store.claim(key, compare) and (same or self._index_stands(key, digest, chunks))

    def _index_stands(self, key: str, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Read the index that is there, and tell the same of it."""
        found = self._store.get(key)
        if found is None or found == blob_index.encode(chunks):
            return found is not None
        try:
            others = blob_index.decode(found, digest, key=key)
        except BadIndexError:
            return False
        if others and chunks and sum(meta.size for meta in others) != sum(meta.size for meta in chunks):
            return False
        return all(self.claim_chunk(meta.digest) for meta in others) if others else self.claim_chunk(digest)

    # -- frames --

    @property
    def frame_format(self) -> str:
        """Chunks are stored as zstd frames."""
        return "zstd"

    def get_frame(self, digest: B3Digest) -> bytes | None:
        """Return the frame of a chunk, unchecked."""
        return self._store.get(_key(_CHUNKS, digest))

    def put_frame(self, digest: B3Digest, frame: bytes) -> None:
        """Store the frame of a chunk."""
        self._store.put(_key(_CHUNKS, digest), frame)

    @property
    def durability(self) -> Literal["process", "full"]:
        """What a blob survives whose writer was closed."""
        return self._store.durability

    def chunk_key(self, digest: B3Digest) -> str:
        """Return the key of a chunk."""
        return _key(_CHUNKS, digest)

    def check_usable(self) -> None:
        """Raise `UnavailableError` if it can be seen, without a write, that nothing could be stored."""
        self._store.check_usable()

    def close(self) -> None:
        """Release the store's connections."""
        if self._own_pool is not None:
            self._own_pool.close()
        self._store.close()


class ObjectStoreBlobService(AddOnlyBlobService, Sweepable, Evictable):
    """Keeps blobs as chunks in an `ObjectStore`, and lets it be looked after."""

    def list_items(self) -> Iterator[StoredItem]:
        """Yield what is stored in the folders of indexes and of chunks."""
        yield from (_item("index", _BLOBS, entry) for entry in self._store.list(_BLOBS))
        yield from (_item("chunk", _CHUNKS, entry) for entry in self._store.list(_CHUNKS))

    def set_aside(self, item: StoredItem) -> str:
        """Move an object under `quarantine/`."""
        return self._store.set_aside(item.key)

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Remove objects that are old; one flush serves for all of them."""
        for item in items:
            entry = StoredObject(item.key, item.size, item.modified)
            for _ in self._store.sweep((entry,), older_than):
                yield item
        self._store.settle()

    @property
    def renewal_seconds(self) -> float:
        """How old the time of an object may be before a claim renews it."""
        return self._store.renewal_seconds

    def held_since(self) -> float | None:
        """Return the time of the oldest lease in the store."""
        return self._store.held_since()

    # -- for who keeps it within bounds --

    def stored_items(self) -> Iterator[StoredItem]:
        """Yield what `list_items` does."""
        return self.list_items()

    @property
    def defers(self) -> bool:
        """Whether chunks wait for a flush before others see them."""
        return self._store.defers

    def open_write_to(self, store: ChunkStore) -> BlobWriter:
        """Start a blob that is cut as here, and goes to *store*."""
        return self._open_write_to(store)

    @property
    def state_folder(self) -> Path | None:
        """The folder `lru` beside those of the objects, if these are in a folder of this machine."""
        folder = self._store.folder
        return None if folder is None else folder / "lru"

    def find_item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem | None:
        """Return what a listing would say of an index or chunk."""
        prefix = _BLOBS if kind == "index" else _CHUNKS
        found = self._store.describe(_key(prefix, digest))
        return None if found is None else _item(kind, prefix, found)

    def residue_of(self, kind: Literal["index", "chunk"], digest: B3Digest) -> list[StoredItem]:
        """Return the temporary files beside the place of an index or chunk."""
        key = _key(_BLOBS if kind == "index" else _CHUNKS, digest)
        found = self._store.list(f"{key.rpartition('/')[0]}/")
        return [_item(kind, "", entry) for entry in found if entry.key.startswith(f"{key}#")]

    def chunk_bound(self, size: int) -> int:
        """Return the size of a frame of that many bytes that cannot be compressed."""
        return frames.bound(size)

    def remove(self, items: Iterable[StoredItem]) -> None:
        """Remove objects, by their keys."""
        self._store.remove(item.key for item in items)

    def settle(self) -> None:
        """Flush what waits for that, and give it its names."""
        self._store.settle()

    def free_bytes(self) -> int | None:
        """Return what the file system of a folder has left."""
        return self._store.free_bytes()


def _key(prefix: str, digest: B3Digest) -> str:
    try:
        name = digest.hex()
    except AttributeError:
        raise no_digest(digest) from None
    return f"{prefix}{name[:4]}/{name}"


def _digest_in(prefix: str, entry: StoredObject) -> B3Digest | None:
    """Return the digest that an object is named by, `None` if it is no index or chunk."""
    try:
        digest = B3Digest.parse(entry.key.rpartition("/")[2])
    except InvalidDigestError:
        return None
    return digest if entry.key == _key(prefix, digest) and not entry.residue else None


def _item(kind: Literal["index", "chunk"], prefix: str, entry: StoredObject) -> StoredItem:
    digest = _digest_in(prefix, entry)
    return StoredItem(
        kind if digest is not None else "residue",
        entry.key,
        digest,
        entry.size,
        entry.modified,
        foreign=digest is None and not entry.residue,
    )


def _anything(read_at: object, size: int) -> bool:  # noqa: ARG001 - any index may be right, also an empty one
    return True
