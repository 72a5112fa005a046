"""Single chunks through the cache: from near, else from far, kept in near on the way."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from castore import B3Digest, BlobService, CastoreError, ChunkMeta, CorruptChunkError
from castore.capabilities import ChunkSource, ChunkStore
from castore.chunked_reader import find_chunk

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

_log: Final = logging.getLogger("castore_cache")


class Near:
    """The near service as the cache uses it: whatever fails there is logged and passed over.

    With *alone*, new blobs go to near alone, so it may have what far lacks.
    """

    def __init__(self, service: BlobService, name: str, *, alone: bool) -> None:
        self.service = service
        self._name = name
        self._alone = alone
        self._store = service.capability(ChunkStore)
        self._source = service.capability(ChunkSource)

    def ask(self, call: Callable[[], T]) -> tuple[T | None, CastoreError | None]:
        """Return what *call* returns, or `None` and the fault if near fails."""
        try:
            return call(), None
        except CastoreError as fault:
            _log.warning("`%s`: near failed and is passed over: %s", self._name, fault)
            return None, fault

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Return what *call* returns, or `None` if near fails."""
        return self.ask(call)[0]

    def settle_absence(self, fault: CastoreError | None) -> None:
        """Raise the *fault* of near, if any, where far's word is not enough to call something absent."""
        if fault is not None and self._alone:
            raise fault

    def get(self, meta: ChunkMeta) -> bytes | None:
        """Return a chunk, `None` if near lacks it; raises what near raises."""
        return find_chunk(self.service, self._source, meta)

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether near has a chunk; raises what near raises."""
        return self.service.has(digest) if self._source is None else self._source.has_chunk(digest)

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
        near = self._near
        found, fault = near.ask(lambda: near.has_chunk(digest))
        if found:
            return True
        if self._far.has(digest) if self._far_source is None else self._far_source.has_chunk(digest):
            return True
        near.settle_absence(fault)
        return False

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk, `None` if neither has it."""
        return self.fetch(digest, size)[0]

    def fetch(self, digest: B3Digest, size: int | None) -> tuple[bytes | None, bool]:
        """Return a chunk, and whether near has it now."""
        near = self._near
        meta = None if size is None else ChunkMeta(digest, size)
        data, fault = near.ask(lambda: _read(near.service, digest) if meta is None else near.get(meta))
        if data is not None:
            return data, True
        data = _read(self._far, digest) if meta is None else find_chunk(self._far, self._far_source, meta)
        if data is None:
            near.settle_absence(fault)
            return None, False
        return data, near.keep(digest, data)

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where far keeps a chunk."""
        return None if self._far_source is None else self._far_source.chunk_key(digest)


class CachedChunkStore(CachedChunks, ChunkStore):
    """Also writes chunks and indexes, to all services that new blobs go to."""

    def __init__(self, near: Near, far: BlobService, targets: Sequence[ChunkStore]) -> None:
        super().__init__(near, far)
        self._targets = targets

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether every service that is written to has a chunk: a writer skips those that are there."""
        return all(target.has_chunk(digest) for target in self._targets)

    def claim_chunk(self, digest: B3Digest) -> bool:
        """Claim a chunk in every service that is written to; tell whether all have it."""
        claims = [target.claim_chunk(digest) for target in self._targets]
        return all(claims)

    def claim_blob(self, digest: B3Digest) -> bool:
        """Claim a blob in every service that is written to; tell whether all have it."""
        claims = [target.claim_blob(digest) for target in self._targets]
        return all(claims)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold in every service that is written to."""
        with contextlib.ExitStack() as stack:
            for target in self._targets:
                stack.enter_context(target.hold())
            yield

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Store a chunk in every service that is written to."""
        for target in self._targets:
            target.put_chunk(digest, data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible in every service that is written to."""
        for target in self._targets:
            target.put_index(digest, chunks)

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        """Make several blobs visible in every service that is written to."""
        for target in self._targets:
            target.put_indexes(blobs)


def _read(service: BlobService, digest: B3Digest) -> bytes | None:
    """Return the checked bytes of a chunk of any size, `None` if it is absent."""
    source = service.capability(ChunkSource)
    if source is not None:
        return source.get_chunk(digest)
    reader = service.open_read(digest)
    if reader is None:
        return None
    with reader:
        data = reader.read()
    found = B3Digest.of(data)
    if found != digest:
        raise CorruptChunkError(
            f"chunk {digest} is corrupt: its bytes have the digest {found}", expected=digest, found=found
        )
    return data
