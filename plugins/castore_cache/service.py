"""A near service in front of a far one, filled chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkedReader, ChunkMeta, SourceError
from castore.capabilities import BlobLister, ChunkSource, ChunkStore
from castore.readers import BytesReader
from castore.sources import Source
from castore_cache.chunks import CachedChunks, CachedChunkStore, Near
from castore_cache.filling import FillingChunkedReader, open_unchunked
from castore_cache.steady import SteadyReader
from castore_cache.writing import BothWriter

P = TypeVar("P")


class CacheBlobService(BlobService):
    """Reads from *near*, and what it lacks from *far*, keeping it in near.

    A hit in near never asks far. On a miss a blob is read chunk by chunk, each from near if it is there;
    those that come from far are kept in near, and once all are there so is the blob's index, with the
    chunk boundaries of far. A near that fails while reading is logged and passed over; but where new blobs
    go to near alone, what far lacks is not called absent on far's word: then near's error is raised.
    """

    def __init__(
        self,
        near: BlobService,
        far: BlobService,
        *,
        write: Literal["near", "far", "both"] = "near",
        name: str = "cache",
    ) -> None:
        self._near = Near(near, name, alone=write == "near")
        self._far = far
        self._targets = {"near": (near,), "far": (far,), "both": (near, far)}[write]
        self._chunks = CachedChunks(self._near, far)

    def has(self, digest: B3Digest) -> bool:
        """Tell whether near or far has a blob or chunk."""
        near = self._near
        found, fault = near.ask(lambda: near.service.has(digest))
        if found or self._far.has(digest):
            return True
        near.settle_absence(fault)
        return False

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that neither near nor far has; far is asked only for what near lacks."""
        wanted = set(digests)
        near = self._near
        absent, fault = near.ask(lambda: near.service.missing(wanted))
        if absent is None:
            absent = wanted
        absent = self._far.missing(absent) if absent else set()
        if absent:
            near.settle_absence(fault)
        return absent

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks as near has them, else as far does."""
        near = self._near
        found, fault = near.ask(lambda: near.service.chunks(digest))
        if found is None:
            found = self._far.chunks(digest)
        if found is None:
            near.settle_absence(fault)
        return found

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk; what is read of it from far stays in near."""
        reader, fault = self._near.ask(lambda: self._open_near(digest))
        if reader is None:
            reader = self._open_far(digest)
        if reader is None:
            self._near.settle_absence(fault)
        return reader

    def open_write(self) -> BlobWriter:
        """Start a new blob where the config says."""
        writers = [target.open_write() for target in self._targets]
        return writers[0] if len(writers) == 1 else BothWriter(*writers)

    def put_source(self, source: Source, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file; if new blobs go to one service, in its own way."""
        if len(self._targets) == 1:
            return self._targets[0].put_source(source, progress)
        return super().put_source(source, progress)

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store many files; if new blobs go to one service, in its own way."""
        if len(self._targets) == 1:
            return self._targets[0].put_files(paths, progress=progress)
        return super().put_files(paths, progress=progress)

    def capability(self, power: Callable[..., P]) -> P | None:
        """Return a power if its children make it possible.

        Chunks can always be read; written if the services that are written to can; blobs be listed if near
        and far can list theirs.
        """
        answer: Any = None
        if power is ChunkSource:
            answer = self._chunks
        elif power is ChunkStore:
            targets = [target.capability(ChunkStore) for target in self._targets]
            stores = [target for target in targets if target is not None]
            answer = CachedChunkStore(self._near, self._far, stores) if len(stores) == len(targets) else None
        elif power is BlobLister:
            listers = [child.capability(BlobLister) for child in (self._near.service, self._far)]
            answer = None if None in listers else _BothLister([entry for entry in listers if entry])
        found: P | None = answer
        return found

    def _open_near(self, digest: B3Digest) -> BlobReader | None:
        chunks = self._near.service.chunks(digest)
        if chunks:
            # Through the cache, so that a chunk that near has lost since comes from far again.
            return ChunkedReader(self, chunks, digest=digest)
        reader = None if chunks is None else self._near.service.open_read(digest)
        if reader is None or isinstance(reader, BytesReader):
            return reader  # Bytes that are in memory do not fail any more.
        return SteadyReader(reader, self._near, lambda: self._open_far(digest))

    def _open_far(self, digest: B3Digest) -> BlobReader | None:
        chunks = self._far.chunks(digest)
        if chunks is None:
            return None
        if chunks:
            return FillingChunkedReader(self._near, self._chunks, self._far, digest, chunks)
        reader = self._far.open_read(digest)
        return None if reader is None else open_unchunked(reader, digest, self._near)


class _BothLister(BlobLister):
    def __init__(self, listers: Sequence[BlobLister]) -> None:
        self._listers = listers

    def list_blobs(self) -> Iterator[B3Digest]:
        seen: set[B3Digest] = set()
        for lister in self._listers:
            for digest in lister.list_blobs():
                if digest not in seen:
                    seen.add(digest)
                    yield digest
