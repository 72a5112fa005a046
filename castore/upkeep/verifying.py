"""Verification of a service: every chunk, every index, and every blob from start to end.

A service that has an inventory is walked in two passes. The first takes each index, and reads the blob's
chunks in order: each must be right in itself and as long as the index says, and all together must hash to the
blob's digest. Nothing less shows that an index is right, so a chunk that several blobs share is read once for
each of them. The second pass reads the chunks that the first has not met. Many chunks are read by one call.
What was found right goes into a ledger on disk, so the memory that this takes grows with what is wrong in the
service, not with the service.

A service that only lists its blobs has each of them read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Literal, TypeVar

import attrs
from blake3 import blake3

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import BlobLister, FoundChunks
from castore.contract.upkeep import DigestRange, Inventory, StoredItem
from castore.digest import B3Digest
from castore.errors import (
    BadIndexError,
    BlobNotFoundError,
    CastoreError,
    MissingChunkError,
    UnavailableError,
    UnsupportedError,
)
from castore.threads.pool import Pool
from castore.upkeep.findings import MISSING_INDEX, Counts, Finding, Report, Scope, finding_of
from castore.upkeep.ledger import Ledger
from castore.upkeep.reading import MOST_UNAVAILABLE, Attempts, labelled

A = TypeVar("A")
T = TypeVar("T")


def verify(
    service: BlobService,
    *,
    scope: Scope | None = None,
    expected: Iterable[B3Digest] = (),
    pool: Pool | None = None,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Check a service and return all that is wrong with it.

    Arguments:
        service: One with an `Inventory`, or at least a `BlobLister`; for others `UnsupportedError` is raised.
        scope: Which items to check, by default all.
        expected: Blobs that must be there: what was removed without a trace is not found otherwise.
        pool: The pool that reads; by default one of its own.
        progress: Called with the number of bytes that were checked since the last call.

    Raises `UnavailableError` if the service does not answer any more. To see what is found while it is found,
    and to resume what was interrupted, use `Verification`.
    """
    ledger = Ledger(scope=scope)
    own_pool = Pool() if pool is None else None
    try:
        verification = Verification(
            service,
            ledger,
            expected=expected,
            pool=pool or own_pool or Pool(0),
            progress=progress or _ignore,
        )
        findings = list(verification.run())
        return Report(findings, verification.residue, verification.tally)
    finally:
        ledger.close()
        if own_pool is not None:
            own_pool.close()


def _ignore(count: int) -> None:
    pass


@attrs.define(eq=False)
class _Blob:
    """A blob that is being checked.

    Attributes:
        digest: Its own.
        key: Where its index is.
        chunks: What its index says; none for a blob that is one chunk, or whose index is wrong.
        hasher: Has seen the chunks so far.
        trouble: What is wrong with the first chunk that is not right.
        settled: Whether there is nothing more to say of it: its index is wrong, or it is gone.
    """

    digest: B3Digest
    key: str | None = None
    chunks: Sequence[ChunkMeta] = ()
    hasher: blake3 = attrs.field(factory=blake3)
    trouble: Finding | None = None
    settled: bool = False


@attrs.frozen(eq=False)
class _Step:
    """One thing to be read: chunk *number* of a blob, or a blob without finer chunks.

    Attributes:
        size: How many bytes there are, as the index says.
        fault: Why there is nothing to be read: the index is wrong.
    """

    blob: _Blob
    part: Literal["chunk", "whole"]
    digest: B3Digest
    number: int = 0
    size: int | None = None
    fault: CastoreError | None = None


@attrs.frozen
class _Found:
    """What was read: chunks, and the sizes of blobs; or what is wrong with them."""

    chunks: FoundChunks
    blobs: dict[B3Digest, int | CastoreError | None]


class Verification:
    """One verification, whose findings come while it runs.

    Arguments as for `verify`, with a *ledger* that may come from a run that was interrupted, and says what
    is checked; and with a *part*, of whose blobs and chunks alone it is. While it runs, `tally` says how far
    it is, `residue` has what lies around in the store, and `listed` counts what the service lists.
    """

    def __init__(
        self,
        service: BlobService,
        ledger: Ledger,
        *,
        expected: Iterable[B3Digest] = (),
        pool: Pool,
        progress: Callable[[int], object] = _ignore,
        part: DigestRange | None = None,
    ) -> None:
        self._service = service
        self._part = part
        self._attempt = Attempts(service)
        self._ledger = ledger
        self._expected = set(expected)
        self._pool = pool
        self._progress = progress
        self._bad: dict[B3Digest, Finding] = {}
        self._unanswered = 0
        self.tally = Counts(skipped=ledger.found_before)
        self.residue: list[StoredItem] = []
        self.listed = 0

    def run(self) -> Iterator[Finding]:
        """Check everything, and yield what is wrong."""
        inventory = self._service.capability(Inventory)
        lister = self._service.capability(BlobLister)
        if inventory is not None:
            # Indexes come first: when the chunks come, those that blobs are made of are known.
            for kind, items in groupby(self._without_residue(inventory), lambda item: item.kind):
                check = self._check_blobs if kind == "index" else self._check_chunks
                yield from check(items)
        elif lister is not None:
            yield from self._read_blobs(lister.list_blobs())
        else:
            raise UnsupportedError("this service lists neither what it stores nor its blobs")
        yield from self._look_for_expected(listed=inventory is not None)
        self._ledger.save()

    def _without_residue(self, inventory: Inventory) -> Iterator[StoredItem]:
        part = self._part
        for item in inventory.list_items() if part is None else inventory.list_items_in(part):
            self.listed += 1
            if item.digest is None:
                self.residue.append(item)
            else:
                yield item

    def _takes(self, kind: Literal["blob", "chunk"], digest: B3Digest, modified: float | None) -> bool:
        return self._ledger.scope.takes(digest, modified) and not self._ledger.has(kind, digest)

    def _in_calls(
        self, read: Callable[[list[A]], T], items: Iterable[A], size_of: Callable[[A], int | None]
    ) -> Iterator[tuple[list[A], T]]:
        """Yield *items* with what *read* returns of them, as many at a time as one call has."""
        portions = self._attempt.portions
        calls = ((portion, partial(read, portion)) for portion in portions.split(items, size_of))
        return self._pool.map(labelled, calls, most=portions.ahead)

    # -- blobs, by their indexes --

    def _check_blobs(self, items: Iterator[StoredItem]) -> Iterator[Finding]:
        for steps, found in self._in_calls(self._read_steps, self._steps(items), lambda step: step.size):
            for step in steps:
                if step.fault is not None:
                    self._heed(step.fault)
                    yield finding_of("index", step.digest, step.fault, key=step.blob.key)
                elif step.part == "whole":
                    yield from self._settle_whole(step.blob, found.blobs[step.digest])
                else:
                    yield from self._settle_chunk(step, found.chunks.get(step.digest))

    def _steps(self, items: Iterator[StoredItem]) -> Iterator[_Step]:
        """Yield all steps for all blobs; the indexes are read ahead, too."""
        for item, index in self._pool.map(labelled, self._index_calls(items)):
            assert item.digest is not None
            blob = _Blob(item.digest, item.key)
            if isinstance(index, CastoreError):
                yield _Step(blob, "whole", blob.digest, size=0, fault=index)
            elif index:
                blob.chunks = index
                for number, meta in enumerate(index):
                    yield _Step(blob, "chunk", meta.digest, number, meta.size)
            elif index is not None:
                yield _Step(blob, "whole", blob.digest)

    def _index_calls(
        self, items: Iterator[StoredItem]
    ) -> Iterator[tuple[StoredItem, Callable[[], Sequence[ChunkMeta] | CastoreError | None]]]:
        for item in items:
            assert item.digest is not None
            self._expected.discard(item.digest)
            if self._takes("blob", item.digest, item.modified):
                yield item, partial(self._attempt.index, item.digest)

    def _read_steps(self, steps: Sequence[_Step]) -> _Found:
        sound = [step for step in steps if step.fault is None]
        return _Found(
            self._attempt.chunks({step.digest: step.size for step in sound if step.part == "chunk"}),
            self._attempt.blobs([step.digest for step in sound if step.part == "whole"]),
        )

    def _settle_whole(self, blob: _Blob, found: int | CastoreError | None) -> Iterator[Finding]:
        """Take note of a blob that has no finer chunks; in the store it is a chunk of the same digest."""
        self._heed(found)
        if isinstance(found, CastoreError):
            yield from self._note_bad(blob, blob.digest, found)
            yield from self._end(blob)
        elif found is not None:
            self._count(blob.digest, found)
            self._note_right(blob)

    def _settle_chunk(self, step: _Step, found: bytes | CastoreError | None) -> Iterator[Finding]:
        """Take note of a chunk of a blob; after the last one, of the blob."""
        self._heed(found)
        blob = step.blob
        if isinstance(found, bytes):
            self._count(step.digest, len(found))
            blob.hasher.update(found)
            if len(found) != step.size and not blob.settled:
                blob.settled = True
                message = f"gives chunk #{step.number} a size of {step.size} bytes, but it has {len(found)}"
                yield _wrong_index(blob, f"the index of blob {blob.digest} {message}")
        else:
            error = found or self._attempt.absence(blob.digest, step.digest)
            yield from self._note_bad(blob, step.digest, error)
        if step.number == len(blob.chunks) - 1:
            yield from self._end(blob)

    def _note_bad(self, blob: _Blob, chunk: B3Digest, error: CastoreError) -> Iterator[Finding]:
        """Report a chunk, unless that was done before."""
        if isinstance(error, MissingChunkError) and self._attempt.index(blob.digest) is None:
            blob.settled = True
            return
        known = self._bad.get(chunk)
        if known is None:
            known = self._bad[chunk] = finding_of("chunk", chunk, error, blob=blob.digest)
            yield known
        blob.trouble = blob.trouble or known

    def _end(self, blob: _Blob) -> Iterator[Finding]:
        """Report a blob that was read to its end, if it is not right."""
        if blob.settled:
            return
        if blob.trouble is not None:
            because = blob.trouble
            message = f"blob {blob.digest} cannot be read: {because.message}"
            yield Finding("blob", blob.digest, because.code, message, blob.key, chunk=because.digest)
            return
        found = B3Digest(blob.hasher.digest())
        if found == blob.digest:
            self._note_right(blob)
        else:
            yield _wrong_index(
                blob, f"the index of blob {blob.digest} is wrong: its chunks make up {found}", found
            )

    def _note_right(self, blob: _Blob) -> None:
        self.tally.blobs += 1
        self._ledger.add("blob", blob.digest)

    def _count(self, chunk: B3Digest, size: int) -> None:
        if size:
            is_news = self._ledger.add("chunk", chunk)
            # A chunk of a blob may be of another part, where it is counted.
            self.tally.chunks += is_news and (self._part is None or chunk in self._part)
        self.tally.bytes += size
        self._progress(size)

    # -- chunks that no blob has led to --

    def _check_chunks(self, items: Iterator[StoredItem]) -> Iterator[Finding]:
        for portion, found in self._in_calls(self._read_chunks, self._unmet(items), lambda _: None):
            for digest, key in portion:
                data = found.get(digest)
                self._heed(data)
                if isinstance(data, bytes):
                    self._count(digest, len(data))
                elif data is not None:
                    yield finding_of("chunk", digest, data, key=key)

    def _unmet(self, items: Iterator[StoredItem]) -> Iterator[tuple[B3Digest, str]]:
        for item in items:
            digest = item.digest
            if digest is not None and digest not in self._bad and self._takes("chunk", digest, item.modified):
                yield digest, item.key

    def _read_chunks(self, wanted: Sequence[tuple[B3Digest, str]]) -> FoundChunks:
        return self._attempt.chunks({digest: None for digest, _ in wanted})

    # -- services that only list their blobs --

    def _read_blobs(self, digests: Iterator[B3Digest]) -> Iterator[Finding]:
        for portion, found in self._in_calls(self._attempt.blobs, self._chosen(digests), lambda _: None):
            for digest in portion:
                size = found[digest]
                self._heed(size)
                if isinstance(size, CastoreError):
                    yield finding_of("blob", digest, size)
                elif size is not None:
                    self.tally.bytes += size
                    self._progress(size)
                    self._note_right(_Blob(digest))

    def _chosen(self, digests: Iterator[B3Digest]) -> Iterator[B3Digest]:
        for digest in digests:
            if self._part is not None and digest not in self._part:
                continue
            self.listed += 1
            self._expected.discard(digest)
            if self._takes("blob", digest, None):
                yield digest

    # -- what was to be there --

    def _look_for_expected(self, *, listed: bool) -> Iterator[Finding]:
        for digest in sorted(self._expected):
            if not self._service.has(digest):
                yield finding_of("blob", digest, BlobNotFoundError(digest))
            elif listed:
                message = f"the index of blob {digest} is missing: it is there only as a chunk"
                yield Finding("index", digest, MISSING_INDEX, message)

    def _heed(self, found: object) -> None:
        """Raise the error of a service that does not answer any more: the rest would fare no better."""
        self._unanswered = self._unanswered + 1 if isinstance(found, UnavailableError) else 0
        if self._unanswered == MOST_UNAVAILABLE:
            assert isinstance(found, UnavailableError)
            raise found


def _wrong_index(blob: _Blob, message: str, found: B3Digest | None = None) -> Finding:
    error = BadIndexError(message, expected=blob.digest, found=found, key=blob.key)
    return finding_of("index", blob.digest, error)
