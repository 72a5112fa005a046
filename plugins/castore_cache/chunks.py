"""Single chunks through the cache: from near, else from far, kept in near on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from castore import B3Digest, BlobService, CastoreError, ChunkMeta
from castore.capabilities import ChunkSource, ChunkStore
from castore.chunked_reader import find_chunk

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

_log: Final = logging.getLogger("castore_cache")


class Near:
    """The near service as the cache uses it: whatever fails there is logged and passed over."""

    def __init__(self, service: BlobService, name: str) -> None:
        self.service = service
        self._name = name
        self._store = service.capability(ChunkStore)
        self._source = service.capability(ChunkSource)

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Return what *call* returns, or `None` if near fails."""
        try:
            return call()
        except CastoreError as error:
            _log.warning("`%s`: near failed and is passed over: %s", self._name, error)
            return None

    def find(self, meta: ChunkMeta) -> bytes | None:
        """Return a chunk, `None` if near lacks it or fails."""
        return self.attempt(lambda: find_chunk(self.service, self._source, meta))

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether near has a chunk; not if it fails."""
        ask = self.service.has if self._source is None else self._source.has_chunk
        return bool(self.attempt(lambda: ask(digest)))

    def keep(self, digest: B3Digest, data: bytes) -> bool:
        """Store a chunk, as a blob if near keeps no chunks; return whether that succeeded."""
        return bool(self.attempt(lambda: self._keep(digest, data)))

    def _keep(self, digest: B3Digest, data: bytes) -> bool:
        if self._store is None:
            self.service.write(data)
        else:
            self._store.put_chunk(digest, data)
        return True

    def complete(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible in near, all of whose chunks are there and make up its digest."""
        self.attempt(lambda: self._complete(digest, chunks))

    def _complete(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        if self._store is not None:
            self._store.put_index(digest, chunks)
        elif len(chunks) > 1:
            self._assemble(chunks)

    def _assemble(self, chunks: Iterable[ChunkMeta]) -> None:
        """Write the blob from its chunks, where near can keep it no other way."""
        with self.service.open_write() as writer:
            for meta in chunks:
                data = find_chunk(self.service, None, meta)
                if data is None:
                    writer.abort()
                    return
                writer.write(data)


class CachedChunks(ChunkSource):
    """Reads single chunks from near, else from far, keeping them in near."""

    def __init__(self, near: Near, far: BlobService) -> None:
        self._near = near
        self._far = far
        self._far_source = far.capability(ChunkSource)

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether near or far has a chunk."""
        if self._near.has_chunk(digest):
            return True
        return self._far.has(digest) if self._far_source is None else self._far_source.has_chunk(digest)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk, `None` if neither has it."""
        return self.fetch(digest, size)[0]

    def fetch(self, digest: B3Digest, size: int | None) -> tuple[bytes | None, bool]:
        """Return a chunk, and whether near has it now."""
        if size is None:
            return self._fetch_unsized(digest)
        meta = ChunkMeta(digest, size)
        data = self._near.find(meta)
        if data is not None:
            return data, True
        data = find_chunk(self._far, self._far_source, meta)
        return data, data is not None and self._near.keep(digest, data)

    def _fetch_unsized(self, digest: B3Digest) -> tuple[bytes | None, bool]:
        near, far = self._near, self._far
        data = near.attempt(lambda: _read(near.service, digest))
        if data is not None:
            return data, True
        data = _read(far, digest)
        return data, data is not None and near.keep(digest, data)

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where far keeps a chunk."""
        return None if self._far_source is None else self._far_source.chunk_key(digest)


class CachedChunkStore(CachedChunks, ChunkStore):
    """Also writes chunks and indexes, to all services that new blobs go to."""

    def __init__(self, near: Near, far: BlobService, targets: Sequence[ChunkStore]) -> None:
        super().__init__(near, far)
        self._targets = targets

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether every service that is written to has a chunk, for a writer skips those that are there."""
        return all(target.has_chunk(digest) for target in self._targets)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Store a chunk in every service that is written to."""
        for target in self._targets:
            target.put_chunk(digest, data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible in every service that is written to."""
        for target in self._targets:
            target.put_index(digest, chunks)


def _read(service: BlobService, digest: B3Digest) -> bytes | None:
    source = service.capability(ChunkSource)
    if source is not None:
        return source.get_chunk(digest)
    reader = service.open_read(digest)
    if reader is None:
        return None
    with reader:
        return reader.read()
