"""Copying blobs from one service to another, chunk by chunk where both keep chunks.

Nothing is believed: each chunk is checked against its digest, and all chunks of a blob against that of the
blob. So also those that the target has already are read from the source, but only those that it lacks are
sent. A blob appears in the target when all of it is there; the indexes of many small ones are put together.

What the target has is *claimed* there: a collector of garbage takes it for as young as what is copied. One of
which a part turns out to be gone is copied as if it were absent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

import attrs
from blake3 import blake3

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import BatchExistence, BlobLister, ChunkStore
from castore.contract.upkeep import Sweepable
from castore.digest import B3Digest
from castore.errors import (
    BlobNotFoundError,
    CastoreError,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
)
from castore.threads.pool import Pool
from castore.upkeep.ledger import Ledger
from castore.upkeep.reading import Attempts, labelled
from castore.upkeep.transfer import Sent, Transfer

_BATCH: Final = 1024
"""How many digests the target is asked for at a time."""

_INDEXES: Final = 256
"""How many blobs appear at a time."""

_INDEXES_BYTES: Final = 256 << 20
"""How many bytes of blobs may wait to appear."""

_MOST_UNAVAILABLE: Final = 16


@attrs.define
class CopyCounts:
    """How much was copied and how much was there already; bytes are those of chunks before compression.

    The chunks and bytes that were skipped are those of blobs that were copied: of others nothing is read.
    """

    blobs_copied: int = 0
    blobs_skipped: int = 0
    blobs_failed: int = 0
    chunks_copied: int = 0
    chunks_skipped: int = 0
    bytes_copied: int = 0
    bytes_skipped: int = 0


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
    """A blob on its way; `failed` once that came to nothing."""

    digest: B3Digest
    chunks: Sequence[ChunkMeta] = ()
    hasher: blake3 = attrs.field(factory=blake3)
    size: int = 0
    failed: bool = False


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
        self._may_lose = target.capability(Sweepable) is not None
        self._transfer = Transfer(source, target)
        self._pool = pool
        self._progress = progress
        self._waiting: list[_Blob] = []
        self._unanswered = 0
        self.tally = CopyCounts()

    def run(self, digests: Iterable[B3Digest] | None = None) -> Iterator[Copied]:
        """Copy, and yield what became of each blob that the target lacked."""
        wanted = self._lacking(digests)
        while batch := list(dict.fromkeys(islice(wanted, _BATCH))):
            # A batch at a time: while a writer holds, no garbage is collected.
            with contextlib.nullcontext() if self._store is None else self._store.hold():
                yield from self._copy(batch)

    # -- what to copy --

    def _lacking(self, digests: Iterable[B3Digest] | None) -> Iterator[B3Digest]:
        """Yield the blobs that the target lacks; count the others."""
        lister = self._target.capability(BlobLister)
        if digests is None and lister is not None:
            # By its list: that is one request for many, and tells blobs from chunks.
            yield from self._not_listed(self._all_blobs(), lister)
            return
        given = iter(self._all_blobs() if digests is None else digests)
        while batch := list(dict.fromkeys(islice(given, _BATCH))):
            absent = self._absent(batch)
            yield from (digest for digest in batch if digest in absent)
            yield from self._not_whole([digest for digest in batch if digest not in absent])

    def _all_blobs(self) -> Iterator[B3Digest]:
        lister = self._source.capability(BlobLister)
        if lister is None:
            raise UnsupportedError("the source cannot list its blobs; name those that are to be copied")
        return lister.list_blobs()

    def _not_listed(self, digests: Iterator[B3Digest], lister: BlobLister) -> Iterator[B3Digest]:
        with contextlib.closing(Ledger()) as known:
            for digest in lister.list_blobs():
                known.add("blob", digest)
            held: list[B3Digest] = []
            for digest in digests:
                if not known.has("blob", digest):
                    yield digest
                    continue
                held.append(digest)
                if len(held) == _BATCH:
                    yield from self._not_whole(held)
                    held.clear()
            yield from self._not_whole(held)

    def _not_whole(self, digests: Sequence[B3Digest]) -> Iterator[B3Digest]:
        """Claim blobs that the target has, and count them; yield those that lack a part after all."""
        calls = ((digest, partial(self._claim, digest)) for digest in digests)
        for digest, is_whole in self._pool.map(labelled, calls):
            if is_whole:
                self.tally.blobs_skipped += 1
            else:
                yield digest

    def _claim(self, digest: B3Digest) -> bool:
        """Claim what the target has, a blob or no more than a chunk; tell whether it is whole."""
        store = self._store
        if store is None or store.claim_blob(digest) or store.claim_chunk(digest):
            return True
        # Where nothing is swept, that a claim fails says nothing.
        return not self._may_lose

    def _absent(self, digests: Sequence[B3Digest]) -> set[B3Digest]:
        batches = self._target.capability(BatchExistence)
        if batches is not None:
            return batches.missing(digests)
        calls = ((digest, partial(self._target.has, digest)) for digest in digests)
        return {digest for digest, found in self._pool.map(labelled, calls) if not found}

    # -- copying --

    def _copy(self, digests: Sequence[B3Digest]) -> Iterator[Copied]:
        try:
            for (blob, is_last), found in self._pool.map(labelled, self._steps(digests)):
                yield from self._take(blob, found, is_last=is_last)
            yield from self._show()
        except BaseException:
            # Also of a run that was interrupted, what has arrived as a whole shall be there.
            with contextlib.suppress(CastoreError):
                list(self._show())
            raise

    def _steps(
        self, digests: Sequence[B3Digest]
    ) -> Iterator[tuple[tuple[_Blob, bool], Callable[[], Sent | CastoreError]]]:
        """Yield all transfers for all blobs; the indexes are read ahead, too."""
        calls = ((digest, partial(self._attempt.index, digest)) for digest in digests)
        for digest, index in self._pool.map(labelled, calls):
            blob = _Blob(digest)
            if index is None or isinstance(index, CastoreError):
                yield (blob, True), partial(_same, index or BlobNotFoundError(digest))
            elif not index or not self._transfer.by_chunks:
                yield (blob, True), partial(self._transfer.whole, digest)
            else:
                blob.chunks = index
                for number, meta in enumerate(index, 1):
                    if blob.failed:
                        break
                    yield (blob, number == len(index)), partial(self._transfer.chunk, digest, meta)

    def _take(self, blob: _Blob, found: Sent | CastoreError, *, is_last: bool) -> Iterator[Copied]:
        """Take note of what has passed; after its end a blob waits to become visible."""
        if blob.failed:
            return
        if isinstance(found, CastoreError):
            yield self._fail(blob, found)
            return
        self._unanswered = 0
        self._count(blob, found)
        if found.visible:
            yield self._done(blob)
        elif is_last:
            if blob.chunks and blob.hasher.digest() != blob.digest:
                yield self._fail(blob, _wrong_index(blob))
                return
            self._waiting.append(blob)
            waiting_bytes = sum(other.size for other in self._waiting)
            if len(self._waiting) >= _INDEXES or waiting_bytes >= _INDEXES_BYTES:
                yield from self._show()

    def _count(self, blob: _Blob, sent: Sent) -> None:
        blob.hasher.update(sent.data)
        blob.size += sent.size
        if sent.copied:
            self.tally.chunks_copied += not sent.visible and sent.size > 0
            self.tally.bytes_copied += sent.size
        else:
            self.tally.chunks_skipped += 1
            self.tally.bytes_skipped += sent.size
        self._progress(sent.size)

    def _show(self) -> Iterator[Copied]:
        """Make the blobs visible that are there as a whole."""
        waiting, self._waiting = self._waiting, []
        if waiting and self._store is not None:
            self._store.put_indexes([(blob.digest, blob.chunks) for blob in waiting])
        yield from map(self._done, waiting)

    def _done(self, blob: _Blob) -> Copied:
        self.tally.blobs_copied += 1
        return Copied(blob.digest)

    def _fail(self, blob: _Blob, error: CastoreError) -> Copied:
        blob.failed = True
        self.tally.blobs_failed += 1
        self._unanswered = self._unanswered + 1 if isinstance(error, UnavailableError) else 0
        if self._unanswered == _MOST_UNAVAILABLE:
            raise error
        return Copied(blob.digest, error)


def _same(error: CastoreError) -> CastoreError:
    return error


def _wrong_index(blob: _Blob) -> CorruptBlobError:
    found = B3Digest(blob.hasher.digest())
    message = f"blob {blob.digest} is corrupt: the chunks of its index make up {found}"
    return CorruptBlobError(message, expected=blob.digest, found=found)
