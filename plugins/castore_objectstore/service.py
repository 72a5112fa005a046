"""Blobs over an object store, in the reference's layout.

==================================================  ====================================================
`blobs/b3/<first 4 hex digits>/<64 hex digits>`     the index of a blob; no bytes for one of 0 or 1 chunks
`chunks/b3/<first 4 hex digits>/<64 hex digits>`    a chunk as a zstd frame, under the digest of its bytes
==================================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    ChunkedReader,
    ChunkMeta,
    blob_index,
    frames,
)
from castore.capabilities import BlobLister, ChunkStore
from castore.chunked_writer import ChunkedWriter
from castore.chunking import DEFAULT_AVG_SIZE, Chunker, FastCdc2020
from castore.errors import InvalidDigestError, MissingChunkError
from castore.readers import BytesReader
from castore.workers import Workers
from castore_objectstore.object_store import ObjectStore

if TYPE_CHECKING:
    from typing_extensions import Buffer

_EMPTY: Final = B3Digest.of(b"")
_BLOBS: Final = "blobs/b3/"
_CHUNKS: Final = "chunks/b3/"


class ObjectStoreBlobService(BlobService, BlobLister, ChunkStore):
    """Keeps blobs as chunks in an `ObjectStore`.

    The requests for each operation are those of the reference, in its order; an index comes after all its
    chunks. An existing chunk or index is never replaced by a writer.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        chunker: type[Chunker] = FastCdc2020,
        avg_chunk_size: int = DEFAULT_AVG_SIZE,
        compression_level: int = frames.DEFAULT_LEVEL,
        workers: Workers | None = None,
    ) -> None:
        self._store = store
        self._chunker = chunker
        self._avg_chunk_size = avg_chunk_size
        self._level = compression_level
        self._workers = workers or Workers()
        self._own_workers = workers is None

    def has(self, digest: B3Digest) -> bool:
        """Tell whether there is an index or a chunk of this digest."""
        return self._store.exists(_key(_BLOBS, digest)) or self.has_chunk(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk. The empty blob is always there, without asking."""
        if digest == _EMPTY:
            return BytesReader(b"")
        data = self.get_chunk(digest)
        if data is None:
            chunks = self.chunks(digest)
            if chunks is None:
                return None
            if chunks:
                return ChunkedReader(self, chunks, digest=digest, key=_key(_BLOBS, digest))
            # An empty index, so one chunk of this digest; it may have come since it was asked for.
            data = self.get_chunk(digest)
            if data is None:
                raise MissingChunkError(blob=digest, chunk=digest, key=_key(_CHUNKS, digest))
        return BytesReader(data)

    def open_write(self) -> BlobWriter:
        """Start a new blob, whose chunks go to the store while it is written."""
        return ChunkedWriter(self, self._chunker(self._avg_chunk_size), self._workers)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Read and check the index of a blob; a chunk, too, is a blob with no finer chunks."""
        key = _key(_BLOBS, digest)
        index = self._store.get(key)
        if index is not None:
            return blob_index.decode(index, digest, key=key)
        return () if self.has_chunk(digest) else None

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every index. What is no digest in the folder of indexes is passed over."""
        for key in self._store.list(_BLOBS):
            try:
                digest = B3Digest.parse(key.rpartition("/")[2])
            except InvalidDigestError:
                continue
            if key == _key(_BLOBS, digest):
                yield digest

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

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Store the index of a blob unless there is one."""
        key = _key(_BLOBS, digest)
        if not self._store.exists(key):
            self._store.put(key, blob_index.encode(chunks))

    def chunk_key(self, digest: B3Digest) -> str:
        """Return the key of a chunk."""
        return _key(_CHUNKS, digest)

    def close(self) -> None:
        """Release the store's connections."""
        if self._own_workers:
            self._workers.close()
        self._store.close()


def _key(prefix: str, digest: B3Digest) -> str:
    name = digest.hex()
    return f"{prefix}{name[:4]}/{name}"
