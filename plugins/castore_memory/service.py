"""Blobs in a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkedReader, ChunkMeta
from castore.contract.capabilities import BlobLister, ChunkStore, Evictable, StoredItem
from castore.digest import EMPTY, no_digest
from castore.format.frames import check_size
from castore.streams.readers import BytesReader
from castore.streams.writers import GuardedWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer


_SIZE_IN_INDEX: Final = 40
"""How many bytes a chunk counts in an index: its digest, and its size."""


class MemoryBlobService(BlobService, BlobLister, ChunkStore, Evictable):
    """Keeps blobs in memory, whole as they were written, or as the chunks that `ChunkStore` gave it.

    What was put first stays. The empty blob is there only once it was written.
    """

    def __init__(self) -> None:
        # Values never change and each operation is one step of a dict, so readers need no lock.
        self._blobs: dict[B3Digest, bytes] = {}
        self._indexes: dict[B3Digest, tuple[ChunkMeta, ...]] = {}

    def has(self, digest: B3Digest) -> bool:
        """Tell whether a blob or chunk of this digest was put."""
        return digest in self._blobs or digest in self._indexes or _absent(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob over the very bytes that are kept; `None` if it is absent."""
        data = self._blobs.get(digest)
        if data is not None:
            return BytesReader(data)
        index = self._indexes.get(digest)
        if index is None:
            _absent(digest)
            return None
        return ChunkedReader(self, index, digest=digest)

    def open_write(self) -> BlobWriter:
        """Start a new blob, which gathers in memory."""
        return self.open_write_to(self)

    def open_write_to(self, store: ChunkStore) -> BlobWriter:
        """Start a blob that gathers in memory and goes to *store* as one chunk."""
        return _MemoryWriter(store)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob that came as chunks; a blob kept whole has none finer."""
        index = self._indexes.get(digest)
        if index is not None:
            return index
        return () if digest in self._blobs or _absent(digest) else None

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield every blob, and every chunk that was put as one, for it is the same thing here."""
        yield from list(self._blobs.keys() | self._indexes.keys())

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether a chunk of this digest is there."""
        return digest in self._blobs or _absent(digest)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return the bytes of a chunk; they were checked when they came."""
        data = self._blobs.get(digest)
        if data is None:
            _absent(digest)
        else:
            check_size(digest, len(data), size)
        return data

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Keep a copy of *data*."""
        self._blobs[digest] = bytes(data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob of chunks visible."""
        if len(chunks) > 1:
            self._indexes.setdefault(digest, tuple(chunks))
        elif digest == EMPTY:
            self._blobs.setdefault(digest, b"")

    # -- for who keeps it within bounds --

    def stored_items(self) -> Iterator[StoredItem]:
        """Yield what is kept; a blob that was written whole is a chunk."""
        for digest, chunks in list(self._indexes.items()):
            yield _index_item(digest, chunks)
        for digest, data in list(self._blobs.items()):
            yield _chunk_item(digest, data)

    def find_item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem | None:
        """Return an index or chunk with the size that it has in memory."""
        if kind == "index":
            chunks = self._indexes.get(digest)
            return None if chunks is None else _index_item(digest, chunks)
        data = self._blobs.get(digest)
        return None if data is None else _chunk_item(digest, data)

    def remove(self, items: Iterable[StoredItem]) -> None:
        """Forget *items*. Readers that are open keep the bytes that they have."""
        for item in items:
            if item.digest is not None:
                (self._indexes if item.kind == "index" else self._blobs).pop(item.digest, None)


def _index_item(digest: B3Digest, chunks: Sequence[ChunkMeta]) -> StoredItem:
    return StoredItem("index", f"indexes/{digest}", digest, _SIZE_IN_INDEX * len(chunks))


def _chunk_item(digest: B3Digest, data: bytes) -> StoredItem:
    return StoredItem("chunk", f"chunks/{digest}", digest, len(data))


def _absent(digest: object) -> Literal[False]:
    """Return that it is not there, which is looked at more closely: text is never there."""
    if not isinstance(digest, bytes):
        raise no_digest(digest)
    return False


class _MemoryWriter(GuardedWriter):
    def __init__(self, store: ChunkStore) -> None:
        self._store = store
        self._parts: list[bytes] = []

    def _take(self, view: memoryview) -> None:
        self._parts.append(bytes(view))

    def _finish(self) -> B3Digest:
        data = b"".join(self._parts)
        self._parts.clear()
        digest = B3Digest.of(data)
        if data and not self._store.claim_chunk(digest):
            self._store.put_chunk(digest, data)
        self._store.put_index(digest, ())
        return digest

    def _discard(self) -> None:
        self._parts.clear()
