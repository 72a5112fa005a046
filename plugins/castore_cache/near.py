"""The near service as a cache uses it: what fails there is passed over, or raised, as the policy says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    CastoreError,
    ChunkMeta,
    CorruptBlobError,
)
from castore.chunks.fetching import find_chunk
from castore.composites.failover_reading import wrong_bytes
from castore.contract.capabilities import BlobDeleter, ChunkSource, ChunkStore, SharedPlace
from castore.streams.readers import BytesReader
from castore.upkeep.reading import read_chunk

T = TypeVar("T")

_log: Final = logging.getLogger("castore_cache")


class Near:
    """The near service.

    What is corrupt there is no failure: far is asked for it, and near is healed. That something read from far
    cannot be kept never harms who reads.

    Arguments:
        service: The service.
        name: That of the cache, for what is logged.
        alone: Whether new blobs go to near alone, so that it may have what far lacks.
        strict: Whether a failure of near is raised.
        keeps: Whether what is read from far is kept.
    """

    def __init__(
        self, service: BlobService, name: str, *, alone: bool, strict: bool = False, keeps: bool = True
    ) -> None:
        self.service = service
        self.strict = strict
        self.keeps = keeps
        self._name = name
        self._alone = alone
        self._store = service.capability(ChunkStore)
        self._source = service.capability(ChunkSource)
        self.checks = self._source is not None
        """Whether its bytes are checked before it hands them out: what keeps chunks does that."""
        self._deleter = service.capability(BlobDeleter)
        self.place = service.capability(SharedPlace) if keeps else None
        self.high_latency = self._source is not None and self._source.high_latency
        self._lock = threading.Lock()
        self.errors = 0
        """How often it failed."""
        self.damages = 0
        """How often something was corrupt there."""

    # -- what fails --

    def ask(self, call: Callable[[], T]) -> tuple[T | None, CastoreError | None]:
        """Return what *call* returns, or `None` and the fault if that is passed over."""
        try:
            return call(), None
        except CastoreError as fault:
            raised = self.strict and not isinstance(fault, CorruptBlobError)
            self.note(fault, raised=raised)
            if raised:
                raise
            return None, fault

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Return what *call* returns, or `None` if near fails, whatever the policy."""
        try:
            return call()
        except CastoreError as fault:
            self.note(fault)
            return None

    def peek(self, call: Callable[[], T]) -> T | None:
        """Return what *call* returns, or `None` if near fails, as it has just done and said."""
        try:
            return call()
        except CastoreError:
            return None

    def note(self, fault: CastoreError, *, raised: bool = False) -> None:
        """Count a fault; log it unless it is raised, for then it is told to whoever asked."""
        with self._lock:
            if isinstance(fault, CorruptBlobError):
                self.damages += 1
            else:
                self.errors += 1
        if not raised:
            _log.warning("`%s`: near failed and is passed over: %s", self._name, fault)

    def settle_absence(self, fault: CastoreError | None) -> None:
        """Raise the *fault* of near, if any, where far's word is not enough to call something absent.

        What is corrupt in near is there, whatever far says.
        """
        if fault is not None and (self._alone or isinstance(fault, CorruptBlobError)):
            raise fault

    # -- chunks --

    def get(self, digest: B3Digest, size: int | None) -> bytes | None:
        """Return a chunk, `None` if near lacks it; raises what near raises."""
        if size is None:
            return read_chunk(self.service, self._source, digest)
        return find_chunk(self.service, self._source, ChunkMeta(digest, size))

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether near has a chunk; raises what near raises."""
        return self.service.has(digest) if self._source is None else self._source.has_chunk(digest)

    def has_chunks(self, digests: Iterable[B3Digest]) -> bool:
        """Tell whether near has them all, and can tell; the first that it lacks ends this."""
        return bool(self.attempt(lambda: all(map(self.has_chunk, digests))))

    def keep(self, digest: B3Digest, data: bytes) -> bool:
        """Store a chunk, as a blob if near keeps no chunks; return whether that succeeded."""
        return self.keeps and bool(self.attempt(lambda: self._keep(digest, data)))

    def _keep(self, digest: B3Digest, data: bytes) -> bool:
        if self._store is None:
            self.service.write(data)
        else:
            self._store.put_chunk(digest, data)
        return True

    def clear(self, digest: B3Digest, fault: CastoreError | None) -> None:
        """Make way for what is to replace something corrupt, where putting it would not replace it."""
        if isinstance(fault, CorruptBlobError) and self._store is None:
            self.drop(digest)

    def drop(self, digest: B3Digest) -> None:
        """Delete a blob that is not what it should be, if near can."""
        deleter = self._deleter
        if deleter is not None:
            self.attempt(lambda: deleter.delete(digest))

    # -- blobs --

    def has_blob(self, digest: B3Digest) -> bool:
        """Tell whether near has a blob, and can tell."""
        return self.attempt(lambda: self.service.chunks(digest)) is not None

    def open_checked(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        """Return a reader over the bytes of a small blob, which are read now; raises if they are wrong."""
        with reader:
            data = reader.read()
        found = B3Digest.of(data)
        if found != digest:
            self.drop(digest)
            raise wrong_bytes(digest, found)
        return BytesReader(data)

    def complete(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible in near, all of whose chunks are there and make up its digest."""
        self.attempt(lambda: self._complete(digest, chunks))

    def _complete(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        store = self._store
        if store is not None:
            # What can be read in near need not be where it writes, as with a fallback: no index goes there.
            if all(store.claim_chunk(meta.digest) for meta in chunks):
                store.put_index(digest, chunks)
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


class NearCopy:
    """A blob being copied to near; if near fails nothing comes of it, and nobody is harmed."""

    def __init__(self, near: Near) -> None:
        self._near = near
        self._writer: BlobWriter | None = near.attempt(near.service.open_write) if near.keeps else None

    @property
    def lives(self) -> bool:
        """Whether anything can still come of it."""
        return self._writer is not None

    def take(self, piece: memoryview) -> None:
        """Copy the next piece."""
        writer = self._writer
        if writer is not None and self._near.attempt(lambda: writer.write(piece)) is None:
            self.drop()

    def finish(self) -> bool:
        """Make the blob visible; return whether near has it now."""
        writer, self._writer = self._writer, None
        return writer is not None and self._near.attempt(writer.close) is not None

    def drop(self) -> None:
        """Forget what was copied."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._near.attempt(writer.abort)
