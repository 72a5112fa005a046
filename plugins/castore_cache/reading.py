"""Reading a blob of far chunk by chunk, and filling near with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from castore import B3Digest, BlobService, CastoreError, ChunkedReader, ChunkMeta
from castore.chunks.read_ahead import ReadAhead
from castore.chunks.recovery import Elsewhere
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.contract.chunk_list import ChunkList
from castore.threads.pool import Pool
from castore_cache.chunks import CachedChunks
from castore_cache.near import Near

_RANGE: Final = 1 << 20
"""How many bytes may be read in order before it is taken for the beginning of more."""

_log: Final = logging.getLogger("castore_cache")

_MOST_NOTED: Final = 1 << 17
"""Of so many chunks it is noted that near has them; it is asked for others."""


class FillingChunkedReader(ChunkedReader):
    """Reads a blob of far chunk by chunk; when near has all chunks it gets the index, too.

    The index is put only if the chunks are known to make up the digest of the blob: after a read from
    start to end, or else, when the reader closes and finds near complete, after reading the blob there.

    What is asked for is fetched at once; further chunks are fetched ahead only once more than a MiB was read
    in order, so that who looks at a part of a large blob moves that part.

    Arguments:
        near: What is filled.
        chunks: Where chunks are read.
        far: The service that has the blob.
        digest: That of the blob.
        index: Its chunks.
        whole: Whether closing it brings the rest of the blob to near, if any of it was read.
        pool: Where chunks are fetched.
        by_place: Whether far may be read at the place of a chunk that cannot be had.
    """

    def __init__(
        self,
        near: Near,
        chunks: CachedChunks,
        far: BlobService,
        digest: B3Digest,
        index: Sequence[ChunkMeta],
        *,
        whole: bool,
        pool: Pool,
        by_place: bool,
    ) -> None:
        index = ChunkList.of(index)
        self._tracker = _Tracker(near, chunks, index)
        super().__init__(
            far,
            index,
            digest=digest,
            source=self._tracker,
            pool=pool,
            ahead_after=_RANGE + 2 * index.largest,
            # One with members of its own may have a chunk by its place in the blob, or pass a list over.
            recovery=(
                Elsewhere(lambda: far.open_read(digest), keep=self._tracker.keep) if by_place else None
            ),
        )
        self._near = near
        self._closes = True
        self._whole = whole
        self._blob = digest

    def close(self) -> None:
        """Put the index into near if that is complete now; with *whole* make it so."""
        if not self.closed:
            try:
                if self._closes and self._near.keeps and self._tracker.fetched:
                    # What is still being fetched for this reader counts, too.
                    self._ahead.drop()
                    self._fill()
            finally:
                super().close()

    def __del__(self) -> None:
        # Nothing is to be fetched or stored, nor waited for, when the garbage is collected.
        self._closes = False
        super().__del__()

    def _fill(self) -> None:
        if self._instead is not None:
            return  # Its list is not that of the blob.
        if self._whole:
            self._bring_the_rest()
        if self._near_is_whole() and not self._near.lists(self._blob, self._map.chunks):
            self._near.complete(self._blob, self._map.chunks)

    def _bring_the_rest(self) -> None:
        rest = ChunkList(self._tracker.unread())
        ahead = ReadAhead(rest, self._fetch, self._pool, high_latency=self._tracker.high_latency)
        try:
            ahead.expect(0, len(rest))
            for number in range(len(rest)):
                ahead.get(number)
        except CastoreError as fault:
            # The bytes that were wanted have been read.
            _log.warning("a cache could not be filled with all of %s: %s", self._blob, fault)
        finally:
            ahead.close()

    def _near_is_whole(self) -> bool:
        # The first chunks that near lacks end this: it is cheap unless the blob is nearly complete.
        if not self._near.has_chunks(meta.digest for meta in self._tracker.unread()):
            return False
        return self._verified or self._near.makes_up(self._blob, self._map.chunks)


class _Tracker(ChunkSource):
    """Hands chunks through, in any thread, and notes which of a blob's are known to be in near."""

    def __init__(self, near: Near, chunks: CachedChunks, index: Sequence[ChunkMeta]) -> None:
        self._near = near
        self._chunks = chunks
        self._index = index
        self._kept: set[B3Digest] = set()
        self.high_latency = chunks.high_latency
        self.fetched = False

    def unread(self) -> Iterator[ChunkMeta]:
        """Yield the chunks that are not known to be in near, in order; of the longest blobs some twice."""
        seen = set(self._kept)
        for meta in self._index:
            if meta.digest not in seen:
                if len(seen) < _MOST_NOTED:
                    seen.add(meta.digest)
                yield meta

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self._chunks.find_chunks(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        brought = self._chunks.fetch(sizes)
        found: FoundChunks = {}
        for digest, answer in brought.items():
            if answer.kept and len(self._kept) < _MOST_NOTED:
                self._kept.add(digest)
            if answer.data is not None:
                found[digest] = answer.data
                self.fetched = self.fetched or isinstance(answer.data, bytes)
        return found

    def keep(self, chunks: Mapping[B3Digest, bytes]) -> None:
        """Keep chunks that have come by another way."""
        self.fetched = True
        self._kept.update(self._near.keep(chunks))

    def chunk_key(self, digest: B3Digest) -> str | None:
        return self._chunks.chunk_key(digest)
