"""Copying blobs from one service to another, chunk by chunk where both keep chunks.

Nothing is believed: each chunk is checked against its digest, and all chunks of a blob against that of the
blob. So also those that the target has already are read from the source, but only those that it lacks are
sent. Many chunks go by one call. A blob appears in the target when all of it is there; the indexes of many
small ones are put together.

What the target has is *claimed* there: a collector of garbage takes it for as young as what is copied. One of
which a part turns out to be gone is copied as if it were absent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Final

import attrs
from blake3 import blake3

from castore.contract.batches import MOST_ITEMS
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.contract.upkeep import Sweepable
from castore.digest import EMPTY, B3Digest
from castore.errors import (
    BlobNotFoundError,
    CastoreError,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
)
from castore.format.blob_index import same_list
from castore.format.checks import check_size
from castore.threads.pool import Pool
from castore.upkeep.ledger import Ledger
from castore.upkeep.reading import MOST_UNAVAILABLE, Attempts, Portions, labelled
from castore.upkeep.transfer import Arrived, Fetched, Transfer

_INDEXES: Final = 256
"""How many blobs appear at a time."""

_INDEXES_BYTES: Final = 256 << 20
"""How many bytes of blobs may wait to appear."""


@attrs.define
class CopyCounts:
    """How much was copied and how much was there already; bytes are those of chunks before compression.

    The chunks and bytes that were skipped are those of blobs that were copied: of others nothing is read.
    What these blobs have in common counts once as copied or skipped, and for the rest as repeated.
    """

    blobs_copied: int = 0
    blobs_skipped: int = 0
    blobs_failed: int = 0
    chunks_copied: int = 0
    chunks_skipped: int = 0
    bytes_copied: int = 0
    bytes_skipped: int = 0
    chunks_repeated: int = 0
    bytes_repeated: int = 0


@attrs.frozen
class Copied:
    """What became of one blob.

    `error` says why it was not copied: it is absent from the source, or corrupt or unavailable there.
    """

    digest: B3Digest
    error: CastoreError | None = None


def copy(
    source: BlobService,
    target: BlobService,
    digests: Iterable[B3Digest] | None = None,
    *,
    pool: Pool | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[CopyCounts, list[Copied]]:
    """Copy blobs; return how much that was, and those that could not be copied.

    Arguments:
        source: Where the blobs are.
        target: Where they shall be; those that are there are claimed, and nothing is written of them.
        digests: Which ones; `None` for all that *source* lists, if it can, else `UnsupportedError`.
        pool: The pool that reads and writes; by default one of its own.
        progress: Called with the number of bytes that were dealt with since the last call.

    Raises `UnavailableError` if *target* fails, or *source* does not answer any more. What was copied until
    then is there, and is not copied again by the next run.
    """
    own_pool = Pool() if pool is None else None
    try:
        copier = Copier(source, target, pool or own_pool or Pool(0), progress)
        failed = [copied for copied in copier.run(digests) if copied.error is not None]
        return copier.tally, failed
    finally:
        if own_pool is not None:
            own_pool.close()


@attrs.define(eq=False)
class _Blob:
    """A blob on its way; `failed` once that came to nothing.

    Attributes:
        chunks: Those that it is made of, if it is not one chunk of its own digest.
        hasher: Has seen the chunks so far, if it is to be found out whether they make up the blob.
    """

    digest: B3Digest
    chunks: Sequence[ChunkMeta] = ()
    hasher: blake3 | None = None
    size: int = 0
    failed: bool = False


@attrs.frozen(eq=False)
class _Part:
    """What is to be read: a chunk of a blob, or all of it, which is one chunk; or why it cannot be read."""

    blob: _Blob
    digest: B3Digest
    size: int | None = None
    is_last: bool = True
    fault: CastoreError | None = None


@attrs.frozen(eq=False)
class _Piece:
    """What was read: a chunk of a blob, or why the blob cannot be had; nothing of one that is no chunk."""

    blob: _Blob
    digest: B3Digest
    fetched: Fetched | CastoreError | None
    is_last: bool = True


class Copier:
    """One run of copying, whose outcomes come while it runs; arguments as for `copy`."""

    def __init__(
        self,
        source: BlobService,
        target: BlobService,
        pool: Pool,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._source = source
        self._target = target
        self._attempt = Attempts(source)
        self._store = target.capability(ChunkStore)
        self._uncut = 0 if self._store is None else self._store.new_chunker().min_size
        self._may_lose = target.capability(Sweepable) is not None
        self._transfer = Transfer(source, target)
        self._pool = pool
        self._progress = progress
        self._waiting: list[_Blob] = []
        self._once_more: list[tuple[_Blob, CastoreError]] = []
        self._claimed = False
        self._unanswered = 0
        self._met: Ledger | None = None
        """The chunks that this run has met."""
        self.tally = CopyCounts()

    def run(self, digests: Iterable[B3Digest] | None = None) -> Iterator[Copied]:
        """Copy, and yield what became of each blob that the target lacked."""
        lister = self._target.capability(BlobLister)
        with contextlib.ExitStack() as stack:
            self._met = stack.enter_context(contextlib.closing(Ledger()))
            known = None
            if digests is None and lister is not None:
                # By its list: that is one request for many, and tells blobs from chunks.
                known = stack.enter_context(contextlib.closing(Ledger()))
                for digest in lister.list_blobs():
                    known.add("blob", digest)
            given = iter(self._all_blobs() if digests is None else digests)
            for batch in _batches(given):
                # A batch at a time: while somebody has a lease, no garbage is collected.
                with contextlib.nullcontext() if self._store is None else self._store.lease() as leased:
                    yield from self._copy(self._lacking(batch, known, leased), leased)

    def _all_blobs(self) -> Iterator[B3Digest]:
        lister = self._source.capability(BlobLister)
        if lister is None:
            raise UnsupportedError("the source cannot list its blobs; name those that are to be copied")
        return lister.list_blobs()

    # -- what to copy --

    def _lacking(
        self, digests: Sequence[B3Digest], known: Ledger | None, store: ChunkStore | None
    ) -> list[B3Digest]:
        """Return the blobs that the target lacks; claim the others, and count them."""
        if known is None:
            absent = self._target.missing(digests)
            there = [digest for digest in digests if digest not in absent]
        else:
            there = [digest for digest in digests if known.has("blob", digest)]
        whole = self._claim(there, store)
        self.tally.blobs_skipped += len(whole)
        return [digest for digest in digests if digest not in whole]

    def _claim(self, digests: Sequence[B3Digest], store: ChunkStore | None) -> set[B3Digest]:
        """Claim what the target has, blobs or no more than chunks; return what is whole."""
        there = set(digests)
        if store is None or not there:
            return there
        self._claimed = True
        lists = self._lists_of(digests)
        whole = store.claim_blobs(lists)
        if rest := [digest for digest in there - whole if not lists[digest]]:
            whole = whole | store.claim(rest)
        if self._may_lose:
            return whole
        # Where nothing is swept, that a claim fails says no more than that there may be another list.
        return whole | {digest for digest in there - whole if self._has_list(digest, lists[digest])}

    def _has_list(self, digest: B3Digest, chunks: Sequence[ChunkMeta] | None) -> bool:
        """Tell whether what the target lists of a blob may stay: it is the same, as far as is known."""
        try:
            found = self._target.chunks(digest)
        except CorruptBlobError:
            return False
        return found is not None and (chunks is None or same_list(found, chunks))

    def _lists_of(self, digests: Sequence[B3Digest]) -> dict[B3Digest, Sequence[ChunkMeta] | None]:
        """Return the chunks of blobs as the source lists them: another list need not be right."""
        if not self._transfer.by_chunks:
            return dict.fromkeys(digests)
        found = self._pool.map(self._attempt.index, digests)
        return {
            digest: None if isinstance(chunks, CastoreError) else chunks
            for digest, chunks in zip(digests, found, strict=True)
        }

    # -- copying --

    def _copy(self, digests: Sequence[B3Digest], store: ChunkStore | None) -> Iterator[Copied]:
        streams: list[_Blob] = []
        try:
            if store is None:
                streams += map(_Blob, digests)
            elif digests:
                yield from self._put(self._pieces(digests, streams), store)
            calls = ((blob, partial(self._transfer.stream, blob.digest)) for blob in streams)
            for blob, size in self._pool.map(labelled, calls):
                yield self._streamed(blob, size)
            again, self._once_more = self._once_more, []
            for blob, error in again:
                size = self._transfer.stream(blob.digest)
                # What was found wrong first says more than that it is still so.
                yield self._streamed(blob, error if isinstance(size, CorruptBlobError) else size)
            yield from self._show(store)
        except BaseException:
            # Also of a run that was interrupted, what has arrived as a whole shall be there.
            with contextlib.suppress(CastoreError):
                list(self._show(store))
            raise

    def _pieces(self, digests: Sequence[B3Digest], streams: list[_Blob]) -> Iterator[_Piece]:
        """Yield all pieces of all blobs; those that are to be streamed go to *streams*."""
        if self._transfer.by_chunks:
            portions = self._attempt.portions
            parts = portions.split(self._parts(digests), lambda part: part.size)
            found: Iterator[_Piece] = chain.from_iterable(
                self._pool.map(self._read, parts, most=portions.ahead)
            )
        else:
            found = (
                piece
                for digest, fetched in self._transfer.fetch_whole(digests)
                for piece in self._cut(_Blob(digest), fetched)
            )
        for piece in found:
            if piece.fetched is None:
                streams.append(piece.blob)
            else:
                yield piece

    def _parts(self, digests: Sequence[B3Digest]) -> Iterator[_Part]:
        """Yield all that is to be read; the indexes are read ahead, too."""
        small = self._transfer.find(digests)
        yield from (_Part(_Blob(digest), digest) for digest in digests if digest in small)
        calls = ((digest, partial(self._attempt.index, digest)) for digest in digests if digest not in small)
        for digest, index in self._pool.map(labelled, calls):
            blob = _Blob(digest)
            if index is None or isinstance(index, CastoreError):
                yield _Part(blob, digest, 0, fault=index or BlobNotFoundError(digest))
            elif not index:
                yield _Part(blob, digest)
            else:
                blob.chunks = index
                blob.hasher = blake3()
                for number, meta in enumerate(index, 1):
                    if blob.failed:
                        break
                    yield _Part(blob, meta.digest, meta.size, number == len(index))

    def _read(self, parts: Sequence[_Part]) -> list[_Piece]:
        sizes: dict[B3Digest, int | None] = {}
        for part in parts:
            if part.fault is None and part.digest != EMPTY:
                # Indexes that do not agree are wrong, and that is told by the size of what is there.
                agreed = sizes.get(part.digest, part.size) == part.size
                sizes[part.digest] = part.size if agreed else None
        found = self._transfer.fetch(sizes)
        return [piece for part in parts for piece in self._piece_of(part, found.get(part.digest))]

    def _piece_of(self, part: _Part, found: Fetched | CastoreError | None) -> Iterable[_Piece]:
        if part.digest == EMPTY:
            found = Fetched(b"")
        if part.fault is not None:
            found = part.fault
        elif part.blob.hasher is None:
            return self._cut(part.blob, found)
        elif found is None:
            found = self._attempt.absence(part.blob.digest, part.digest)
        elif isinstance(found, Fetched):
            try:
                check_size(part.digest, len(found.data), part.size)
            except CastoreError as error:
                found = error
        return (_Piece(part.blob, part.digest, found, part.is_last),)

    def _cut(self, blob: _Blob, fetched: Fetched | CastoreError | None) -> Iterator[_Piece]:
        """Yield the pieces of a blob that came as a whole: one if it is a frame, else as the target cuts."""
        pieces = [(blob.digest, fetched)]
        if isinstance(fetched, Fetched) and fetched.frame is None and len(fetched.data) > self._uncut:
            assert self._store is not None
            view = memoryview(fetched.data)
            ends = list(accumulate(self._store.new_chunker().cut(view)))
            if len(ends) > 1:
                views = [view[start:end] for start, end in pairwise([0, *ends])]
                blob.chunks = [ChunkMeta(B3Digest.of(data), len(data)) for data in views]
                pieces = [(meta.digest, Fetched(data)) for meta, data in zip(blob.chunks, views, strict=True)]
        for number, (digest, part) in enumerate(pieces, 1):
            yield _Piece(blob, digest, part, number == len(pieces))

    def _put(self, pieces: Iterator[_Piece], store: ChunkStore) -> Iterator[Copied]:
        portions = Portions.of(high_latency=store.high_latency)
        groups = portions.split(pieces, lambda piece: _size_of(piece.fetched))
        calls = ((group, partial(self._send, group, store)) for group in groups)
        for group, arrived in self._pool.map(labelled, calls, most=portions.ahead):
            new = set(arrived.now)
            for piece in group:
                yield from self._take(piece, arrived, new, store)
            if arrived.fault is not None:
                raise arrived.fault

    def _send(self, pieces: Sequence[_Piece], store: ChunkStore) -> Arrived:
        return self._transfer.put(
            store,
            {
                piece.digest: piece.fetched
                for piece in pieces
                if isinstance(piece.fetched, Fetched) and piece.fetched.data and not piece.blob.failed
            },
        )

    def _take(
        self, piece: _Piece, arrived: Arrived, new: set[B3Digest], store: ChunkStore
    ) -> Iterator[Copied]:
        """Take note of what has passed; after its end a blob waits to become visible."""
        blob, fetched = piece.blob, piece.fetched
        if blob.failed:
            return
        if not isinstance(fetched, Fetched):
            assert fetched is not None
            yield from self._try_elsewhere(blob, fetched)
            return
        if fetched.data and piece.digest not in arrived.before and piece.digest not in arrived.now:
            blob.failed = True  # The fault is raised when the others have been taken.
            return
        self._unanswered = 0
        if blob.hasher is not None:
            blob.hasher.update(fetched.data)
        self._count(blob, piece.digest, len(fetched.data), copied=piece.digest in new)
        new.discard(piece.digest)
        if piece.is_last:
            if blob.hasher is not None and blob.hasher.digest() != blob.digest:
                yield from self._try_elsewhere(blob, _wrong_index(blob))
                return
            self._waiting.append(blob)
            waiting_bytes = sum(other.size for other in self._waiting)
            if len(self._waiting) >= _INDEXES or waiting_bytes >= _INDEXES_BYTES:
                yield from self._show(store)

    def _try_elsewhere(self, blob: _Blob, error: CastoreError) -> Iterator[Copied]:
        """Let a blob be read once more, by a reader, which may know another way to what is wrong."""
        if isinstance(error, CorruptBlobError) and self._transfer.by_chunks:
            blob.failed = True
            self._once_more.append((blob, error))
        else:
            yield self._fail(blob, error)

    def _count(self, blob: _Blob, chunk: B3Digest, size: int, *, copied: bool) -> None:
        blob.size += size
        if not size:
            return
        assert self._met is not None
        first, sent = self._met.add("chunk", chunk), copied and self._met.add("sent", chunk)
        if sent and not first:
            # Another batch had just been told that it is there: it was this one that had brought it.
            self.tally.chunks_skipped -= 1
            self.tally.bytes_skipped -= size
        if sent:
            self.tally.chunks_copied += 1
            self.tally.bytes_copied += size
        elif first:
            self.tally.chunks_skipped += 1
            self.tally.bytes_skipped += size
        if not first:
            self.tally.chunks_repeated += 1
            self.tally.bytes_repeated += size
        self._progress(size)

    def _streamed(self, blob: _Blob, size: int | CastoreError) -> Copied:
        if isinstance(size, CastoreError):
            return self._fail(blob, size)
        self._unanswered = 0
        self.tally.bytes_copied += size
        self._progress(size)
        return self._done(blob)

    def _show(self, store: ChunkStore | None) -> Iterator[Copied]:
        """Make the blobs visible that are there as a whole, and lasting what was claimed."""
        waiting, self._waiting = self._waiting, []
        if store is not None and (waiting or self._claimed):
            self._claimed = False
            store.put_indexes({blob.digest: blob.chunks for blob in waiting})
        yield from map(self._done, waiting)

    def _done(self, blob: _Blob) -> Copied:
        self.tally.blobs_copied += 1
        return Copied(blob.digest)

    def _fail(self, blob: _Blob, error: CastoreError) -> Copied:
        blob.failed = True
        self.tally.blobs_failed += 1
        self._unanswered = self._unanswered + 1 if isinstance(error, UnavailableError) else 0
        if self._unanswered == MOST_UNAVAILABLE:
            raise error
        return Copied(blob.digest, error)


def _size_of(fetched: Fetched | CastoreError | None) -> int:
    return len(fetched.data) if isinstance(fetched, Fetched) else 0


def _wrong_index(blob: _Blob) -> CorruptBlobError:
    assert blob.hasher is not None
    found = B3Digest(blob.hasher.digest())
    message = f"blob {blob.digest} is corrupt: the chunks of its index make up {found}"
    return CorruptBlobError(message, expected=blob.digest, found=found)


def _batches(digests: Iterator[B3Digest]) -> Iterator[list[B3Digest]]:
    """Yield digests as many at a time as one call has; of a listing that fails in the end all that it has."""
    batch: dict[B3Digest, None] = {}
    try:
        for number, digest in enumerate(digests, 1):
            batch[digest] = None
            if not number % MOST_ITEMS:
                yield list(batch)
                batch = {}
    except CastoreError:
        if batch:
            yield list(batch)
        raise
    if batch:
        yield list(batch)
