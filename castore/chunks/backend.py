"""The base of backends that keep chunks: they write five methods, and have the rest.

`find_chunks`, `get_chunks`, `put_chunks`, `put_indexes` and `chunks` are a store. Opening and writing blobs,
known content, many small files together, and reading ahead come with it, at the same speed as for the bundled
backends::

    class ShelfBlobService(ChunkBackend):
        def find_chunks(self, digests): ...
        def get_chunks(self, sizes): ...
        def put_chunks(self, chunks): ...
        def put_indexes(self, blobs): ...
        def chunks(self, digest): ...
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from castore.chunks.reader import ChunkedReader
from castore.chunks.writer import ChunkedWriter
from castore.contract.batches import MOST_ITEMS
from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import BlobLister, ChunkStore, FrameStore
from castore.contract.upkeep import Inventory
from castore.digest import EMPTY, B3Digest, no_digest
from castore.errors import (
    BatchError,
    CastoreError,
    CorruptBlobError,
    MissingChunkError,
    OversizedFrameError,
    UnavailableError,
)
from castore.format.blob_index import same_list
from castore.format.chunking import MAX_CHUNK_SIZE, Chunker, FastCdc2020
from castore.streams.readers import BytesReader
from castore.threads.pool import Pool, process_pool

T = TypeVar("T")


class ChunkBackend(BlobService, ChunkStore):
    """A service that keeps blobs as chunks, with everything derived from five methods.

    The others may be overridden by what does the same in fewer requests. No constructor need be called.
    """

    @abstractmethod
    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob, as `BlobService.chunks`; a chunk is a blob with no finer chunks."""

    # -- how it works --

    @property
    def pool(self) -> Pool:
        """The pool of the process; the wide one if requests mostly wait."""
        return process_pool().io_pool if self.high_latency else process_pool()

    def new_chunker(self) -> Chunker:
        """Return what cuts as the reference does by default."""
        return FastCdc2020()

    def index_key(self, digest: B3Digest) -> str | None:  # noqa: ARG002 - for overriding
        """Return where the index of a blob is, or would be, kept, to name it in an error."""
        return None

    # -- blobs, made of chunks and indexes --

    def has(self, digest: B3Digest) -> bool:
        """Tell whether there is a blob or chunk of this digest."""
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        return not self.missing({digest})

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are neither chunk nor blob."""
        wanted = set(digests)
        absent = list(wanted - _in_batches(self.find_chunks, wanted))
        found = self._each(self._has_index, absent)
        return {digest for digest, is_there in zip(absent, found, strict=True) if not is_there}

    def _has_index(self, digest: B3Digest) -> bool:
        try:
            return self.chunks(digest) is not None
        except CorruptBlobError:
            return True

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk."""
        damage: CorruptBlobError | None = None
        try:
            data = self._get_whole(digest)
        except CorruptBlobError as error:
            # As a chunk, it may be that of another blob; this one may have finer ones.
            data, damage = None, error
        if data is None:
            try:
                chunks = self.chunks(digest)
            except CorruptBlobError as error:
                raise damage or error from None
            if chunks:
                return ChunkedReader(self, chunks, digest=digest, key=self.index_key(digest), pool=self.pool)
            if damage is not None:
                raise damage
            if chunks is None:
                return None
            # An empty index, so one chunk of this digest; it may have come since it was asked for.
            data = b"" if digest == EMPTY else self._get_whole(digest)
            if data is None:
                raise MissingChunkError(blob=digest, chunk=digest, key=self.chunk_key(digest))
        return BytesReader(data, digest)

    def open_write(self) -> BlobWriter:
        """Start a new blob, whose chunks go to the store while it is written."""
        return ChunkedWriter(self)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return those whose chunks `chunks` lists as they are known to be, and all of which can be claimed.

        A blob of one chunk looks like that chunk. So where blobs are told from chunks, as by a `BlobLister`,
        it is left out, and its index put to be sure. Nor is the list of one asked for whose chunk is absent:
        small files are mostly new, and that is one call for all of them.
        """
        tells = isinstance(self, (BlobLister, Inventory))
        alone = {digest for digest, known in blobs.items() if known is not None and not known} - {EMPTY}
        there = set() if tells else _in_batches(self.claim, alone)
        asked = [digest for digest in blobs if digest not in alone or digest in there]
        whole: set[B3Digest] = set()
        needs: dict[B3Digest, set[B3Digest]] = {}
        for digest, chunks in zip(asked, self._each(self._list_of, asked), strict=True):
            known = blobs[digest]
            if chunks is None or not (known is None or same_list(chunks, known)):
                continue
            if not chunks and digest in there:
                whole.add(digest)
            elif chunks or not tells:
                needs[digest] = {meta.digest for meta in chunks} or {digest} - {EMPTY}
        there |= _in_batches(self.claim, set().union(*needs.values()) - there)
        return whole | {digest for digest, needed in needs.items() if needed <= there}

    def _list_of(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        try:
            return self.chunks(digest)
        except CorruptBlobError:
            return None

    def _get_whole(self, digest: B3Digest) -> bytes | None:
        """Return a chunk of whatever size a chunk may have, `None` if it is absent."""
        try:
            return self.get_chunk(digest)
        except OversizedFrameError:
            data = self.get_large_chunk(digest)
            if data is None:
                raise
            return data

    def get_large_chunk(self, digest: B3Digest) -> bytes | None:
        """Return the checked bytes of a chunk that may have more than `MOST_UNKNOWN`; `None` for none.

        Also a store that cuts smaller ones may have them, from another one.
        """
        if not isinstance(self, FrameStore):
            return None
        from castore.format import frames  # noqa: PLC0415 - what has no frames needs no zstandard

        frame = self.get_frames((digest,)).get(digest)
        if isinstance(frame, CastoreError):
            raise frame
        if frame is None:
            return None
        return frames.decode_chunk(frame, digest, key=self.chunk_key(digest), limit=MAX_CHUNK_SIZE)

    # -- calls for many, made of single ones --

    def _each(self, call: Callable[[B3Digest], T], digests: Iterable[B3Digest]) -> Iterable[T]:
        """Return what *call* returns for each of *digests*, in order; at once where that mostly waits."""
        return (self.pool.map if self.high_latency else map)(call, digests)

    def _find_each(self, call: Callable[[B3Digest], bool], digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that *call* is true of."""
        wanted = list(dict.fromkeys(digests))
        return {digest for digest, found in zip(wanted, self._each(call, wanted), strict=True) if found}

    def _get_each(
        self, call: Callable[[B3Digest], bytes | None], digests: Iterable[B3Digest]
    ) -> dict[B3Digest, bytes | CastoreError]:
        """Return what *call* returns, or raises, for each of *digests*; what is absent is left out."""

        def attempt(digest: B3Digest) -> bytes | CastoreError | None:
            try:
                return call(digest)
            except CastoreError as error:
                return error

        wanted = list(dict.fromkeys(digests))
        found = zip(wanted, self._each(attempt, wanted), strict=True)
        return {digest: data for digest, data in found if data is not None}

    def _put_each(self, call: Callable[[B3Digest], object], digests: Iterable[B3Digest]) -> None:
        """Make a call for each of *digests*; raise `BatchError` if some fail.

        Where a call fails whose request does not mostly wait, those after it are not made: they fail alike.
        """

        def attempt(digest: B3Digest) -> CastoreError | None:
            try:
                call(digest)
            except CastoreError as error:
                return error
            return None

        wanted = list(dict.fromkeys(digests))
        done: list[B3Digest] = []
        faults: dict[B3Digest, CastoreError] = {}
        for digest, error in zip(wanted, self._each(attempt, wanted), strict=False):
            if error is None:
                done.append(digest)
            elif not isinstance(error, UnavailableError):
                raise error
            else:
                faults[digest] = error
                if not self.high_latency:
                    faults.update(dict.fromkeys(wanted[wanted.index(digest) + 1 :], error))
                    break
        if faults:
            first = next(iter(faults.values()))
            raise first if len(wanted) == 1 else BatchError(_instance_of(first), faults, done=done) from first


def _in_batches(
    call: Callable[[Iterable[B3Digest]], set[B3Digest]], digests: Iterable[B3Digest]
) -> set[B3Digest]:
    """Return all that *call* returns, which is called for no more at a time than a batch may have."""
    remaining = iter(digests)
    found: set[B3Digest] = set()
    while some := list(islice(remaining, MOST_ITEMS)):
        found |= call(some)
    return found


def _instance_of(error: CastoreError) -> str:
    return error.instance if isinstance(error, UnavailableError) else "store"
