"""Collecting garbage: what no root reaches, and no writer has put or claimed lately, is removed.

First everything is marked that is to stay: the chunks of the *roots*, which the caller names, and those of
every blob whose index is young. Then the rest is swept if it is old: indexes, then chunks, then what killed
writers have left behind. *Young* and *old* are told apart by one moment, the cutoff: the grace time before
now, or the moment since when some writer has a lease (`ChunkStore.lease`), whichever is earlier.

Writers may run beside it. What keeps each race harmless:

- *A writer finds a chunk there and does not send it again, as it is swept.* It claims the chunk
  (`ChunkStore.claim`), and a claim renews its time; `Sweepable.sweep` looks at the time again in the
  moment of removal. Either the chunk stays, or the claim says that there is none and the writer sends it.
- *An index is claimed while it is condemned.* It stays for the same reason. What was not removed of the
  condemned indexes is marked before any chunk is swept. Its writer has claimed its chunks as well.
- *A blob appears after its place in the listing was passed.* Its chunks were put or claimed after the
  cutoff, so they are young, marked or not.
- *A writer takes longer than the grace time.* Its lease is older than all that it has put or claimed, and no
  cutoff is later than the oldest lease. The leases are read before anything is listed, so a
  writer whose lease is gone by then has its index in the listing.
- *A writer takes its lease after the leases were read.* It puts and claims only after that, and so after the
  cutoff, which is never later than the start.
- *Two collections at once.* Each removes only what its own roots do not reach. What one has removed is not
  there for the other, which is no error.

Indexes go before chunks, and are gone for good before the first chunk is touched: whatever ends the program,
no index is left without chunks. An index that is to stay and cannot be read ends the collection before any
chunk is removed, for nobody knows then which chunks it needs.

- *An import ends, and sets its ref, as this begins.* It has its lease until the ref is set, and the refs are
  listed after the leases were read: either the lease is seen, or the ref.

In memory are some 20 MiB of the marks and of the indexes that go; what is more of them lies in temporary
files, 40 bytes for each different chunk that stays, and 200 for each index that goes.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Literal, TypeAlias

import attrs

from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkSource
from castore.contract.upkeep import StoredItem, Sweepable
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, UnsupportedError
from castore.threads.pool import Pool
from castore.upkeep.bounded import DigestSet, ItemList
from castore.upkeep.marking import LocalMarker, Marker
from castore.upkeep.reading import labelled

ItemKind: TypeAlias = Literal["index", "chunk", "residue"]

GRACE_SECONDS: Final = 7 * 86400.0
"""How long what nobody refers to is left alone, if nothing else is said."""

_BATCH: Final = 256
_WAITING_BATCH: Final = 4
_LARGE_BATCH: Final = 4096
"""How many items are swept by one call, after which they are gone for good; fewer where each has to wait."""


class MissingRootsError(BlobNotFoundError):
    """Roots that are not there. Nothing was removed.

    Attributes:
        digests: All of them; `digest` is the first.
        none_there: Whether missing ones were to be ignored, and no other root is there.
    """

    def __init__(self, digests: Sequence[B3Digest], *, none_there: bool = False) -> None:
        super().__init__(digests[0])
        more = f" and {len(digests) - 1} more" if len(digests) > 1 else ""
        message = f"the root {digests[0]}{more} {'are' if more else 'is'} not there; nothing was removed"
        if none_there:
            message += ": where no root is there, all that is old would go, as without any"
        self.args = (message,)
        self.digests = list(digests)
        self.none_there = none_there


@attrs.define
class ItemCount:
    """How many things, and how many bytes they take in the store as far as it tells."""

    count: int = 0
    size: int = 0

    def add(self, item: StoredItem) -> None:
        """Count one more."""
        self.count += 1
        self.size += item.size or 0


def _amounts() -> dict[ItemKind, ItemCount]:
    return {"index": ItemCount(), "chunk": ItemCount(), "residue": ItemCount()}


@attrs.define
class Collected:
    """What came of a collection, by the kinds of `StoredItem`.

    Attributes:
        cutoff: What was put or claimed later stays, in seconds since 1970.
        leased_since: Since when a writer has a lease, if that moved the cutoff; else `None`.
        roots: How many roots there were, of different digests.
        missing: Those of them that are not there.
        found: All that was listed.
        gone: What was removed, or in a rehearsal what would be.
        too_new: What no root reaches, and stayed as it is not old enough.
        goes_from: From when on the oldest of that can go, in seconds since 1970; `None` if nothing of it can.
            A lease may keep it for longer.
    """

    cutoff: float
    leased_since: float | None
    roots: int = 0
    missing: list[B3Digest] = attrs.field(factory=list)
    found: dict[ItemKind, ItemCount] = attrs.field(factory=_amounts)
    gone: dict[ItemKind, ItemCount] = attrs.field(factory=_amounts)
    too_new: dict[ItemKind, ItemCount] = attrs.field(factory=_amounts)
    goes_from: float | None = None

    def kept(self, kind: ItemKind) -> ItemCount:
        """Return how much of a kind is still there."""
        found, gone = self.found[kind], self.gone[kind]
        return ItemCount(found.count - gone.count, found.size - gone.size)


def collect(
    service: BlobService,
    roots: Iterable[B3Digest],
    *,
    grace_seconds: float = GRACE_SECONDS,
    dry_run: bool = False,
    no_roots: bool = False,
    ignore_missing_roots: bool = False,
    reached: Iterable[tuple[B3Digest, bool]] = (),
    pool: Pool | None = None,
    marker: Marker | None = None,
    clock: Callable[[], float] = time.time,
    on_gone: Callable[[StoredItem], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Collected:
    """Remove what none of *roots* reaches and nobody has put or claimed within the grace time.

    Arguments:
        service: Where; it must be `Sweepable`.
        roots: The digests of blobs, or chunks, to keep. They are asked for once the time is taken: what is
            put and becomes a root while this runs is kept if that takes less than the grace time.
        grace_seconds: How old what goes must be, at least. Longer than a small blob takes to be stored and
            to become a root, and than clocks differ; 0 only if nobody writes.
        dry_run: Remove nothing.
        no_roots: Go on if there are no roots at all, which removes everything that is old.
        ignore_missing_roots: Go on if a root is not there, as long as another one is.
        reached: More blobs to keep, however many, such as all those of trees, each with whether it must be
            there. It is gone through once, after the leases were read and before anything is removed; what
            it raises ends the collection.
        pool: Threads to read indexes and remove with; by default there are none.
        marker: Reads the indexes in place of the threads, such as `spread("mark", ...)`.
        clock: Tells the time in seconds since 1970, as the store does.
        on_gone: Called with each item that was removed, or would be.
        progress: Called with the stored bytes of each item that was looked at.

    Raises:
        UnsupportedError: The service cannot be swept.
        ValueError: There are no roots, or the grace time is negative.
        MissingRootsError: A root is not there; or none is, without `no_roots`. Nothing was removed.
        BadIndexError: An index that is to stay cannot be read. No chunk was removed.
        UnavailableError: The store failed. What was removed until then was garbage.
    """
    sweepable = service.capability(Sweepable)
    if sweepable is None:
        raise UnsupportedError(
            "this service cannot be swept: it does not list and remove what it keeps; what is to stay can be"
            " brought to a new store by `castore copy`"
        )
    if not grace_seconds >= 0:
        raise ValueError(f"a grace time of {grace_seconds} seconds makes no sense")
    now = clock()
    leased = sweepable.leased_since()
    cutoff = min(now - grace_seconds, now if leased is None else leased)
    wanted = set(roots)
    more = iter(reached)
    first = list(itertools.islice(more, 1))
    if not wanted and not first and not no_roots:
        raise ValueError("without roots everything that is old would be removed; say `no_roots` if so it be")
    together = sweepable.sweeps_together
    source = service.capability(ChunkSource)
    high_latency = source is not None and source.high_latency
    pool = pool or Pool(0)
    pool = pool.io_pool if high_latency else pool
    collection = _Collection(
        sweepable,
        Collected(cutoff, leased if leased == cutoff else None),
        marker=marker or LocalMarker(service, pool),
        pool=pool,
        batch=_LARGE_BATCH if together else _WAITING_BATCH if high_latency else _BATCH,
        grace_seconds=grace_seconds,
        dry_run=dry_run,
        on_gone=on_gone,
        progress=progress,
    )
    with contextlib.closing(collection):
        collection.mark_roots(
            wanted, itertools.chain(first, more), ignore_missing=ignore_missing_roots, may_be_none=no_roots
        )
        collection.mark_young()
        collection.sweep_indexes()
        collection.sweep_chunks()
        collection.sweep_residue()
    return collection.collected


@attrs.define(eq=False)
class _Collection:
    """One run, whose steps are called in the order in which they stand here."""

    _sweepable: Sweepable
    collected: Collected
    _marker: Marker = attrs.field(kw_only=True)
    _pool: Pool = attrs.field(kw_only=True)
    _batch: int = attrs.field(kw_only=True)
    _grace_seconds: float = attrs.field(kw_only=True)
    _dry_run: bool = attrs.field(kw_only=True)
    _on_gone: Callable[[StoredItem], object] | None = attrs.field(kw_only=True)
    _progress: Callable[[int], object] | None = attrs.field(kw_only=True)
    _roots: DigestSet = attrs.field(init=False, factory=DigestSet)
    _marks: DigestSet = attrs.field(init=False, factory=DigestSet)
    _young_marks: DigestSet = attrs.field(init=False, factory=DigestSet)
    _condemned: ItemList = attrs.field(init=False, factory=ItemList)
    _residue: ItemList = attrs.field(init=False, factory=ItemList)
    _listing: Iterator[StoredItem] = attrs.field(init=False, default=iter(()))

    def mark_roots(
        self,
        roots: set[B3Digest],
        reached: Iterable[tuple[B3Digest, bool]],
        *,
        ignore_missing: bool,
        may_be_none: bool,
    ) -> None:
        needed = itertools.chain(((digest, True) for digest in sorted(roots)), reached)
        missing = self.collected.missing
        absent: B3Digest | None = None
        some_there = False
        required: deque[bool] = deque()
        for found in self._marker(self._different(needed, required)):
            for digest in found.blobs:
                needs = required.popleft()
                if digest not in found.absent:
                    some_there = True
                    continue
                absent = absent or digest
                if needs:
                    missing.append(digest)
            self._marks.update(found.needed)
        self.collected.roots = len(self._roots)
        if missing and not ignore_missing:
            raise MissingRootsError(missing)
        if absent is not None and not some_there and not may_be_none:
            raise MissingRootsError(missing or [absent], none_there=True)

    def _different(self, needed: Iterable[tuple[B3Digest, bool]], noted: deque[bool]) -> Iterator[B3Digest]:
        """Yield each digest once; note of each whether it must be there."""
        for digest, required in needed:
            if self._roots.add(digest):
                noted.append(required)
                yield digest

    def mark_young(self) -> None:
        """Mark what young indexes need; note the indexes that are to go."""
        self._listing = self._list()
        self._mark(self._young(), self._young_marks)

    def sweep_indexes(self) -> None:
        """Remove the condemned indexes; mark what those need that were claimed since."""
        self._mark(self._spared(self._condemned.take()), self._young_marks)

    def _spared(self, items: Iterator[StoredItem]) -> Iterator[B3Digest]:
        """Sweep indexes; yield the digests of those that stayed."""
        for batch, gone in self._sweep(items):
            keys = {item.key for item in gone}
            yield from (item.digest for item in batch if item.digest is not None and item.key not in keys)

    def sweep_chunks(self) -> None:
        garbage = (item for item in self._listing if self._is_garbage(item))
        if self._dry_run or not self._sweepable.sweeps_together:
            self._sweep_all(garbage)
            return
        # Also of nothing: it may have other things to put in order.
        for item in self._sweepable.sweep(garbage, older_than=self.collected.cutoff):
            self._note_gone(item)

    def _is_garbage(self, item: StoredItem) -> bool:
        # A chunk that is the whole blob is what readers take, whatever the index lists.
        if self._is_residue(item) or item.digest in self._marks or item.digest in self._roots:
            return False
        if item.digest in self._young_marks:
            self.collected.too_new["chunk"].add(item)
            return False
        return self._is_old(item)

    def sweep_residue(self) -> None:
        self._sweep_all(item for item in self._residue.take() if not item.foreign and self._is_old(item))

    def close(self) -> None:
        for held in (self._roots, self._marks, self._young_marks, self._condemned, self._residue):
            held.close()

    # -- marking --

    def _list(self) -> Iterator[StoredItem]:
        for item in self._sweepable.list_items():
            self.collected.found[item.kind].add(item)
            if self._progress is not None:
                self._progress(item.size or 0)
            yield item

    def _young(self) -> Iterator[B3Digest]:
        """Yield the digests of young indexes, up to where the chunks begin in the listing."""
        for item in self._listing:
            if item.kind == "chunk":
                self._listing = itertools.chain([item], self._listing)
                return
            if self._is_residue(item) or item.digest is None or item.digest in self._roots:
                continue
            if self._is_old(item):
                self._condemned.add(item)
            else:
                yield item.digest

    def _is_residue(self, item: StoredItem) -> bool:
        if item.kind == "residue":
            self._residue.add(item)
        return item.kind == "residue"

    def _mark(self, blobs: Iterable[B3Digest], marks: DigestSet) -> None:
        """Mark all chunks of those *blobs* that are there."""
        for found in self._marker(blobs):
            # A chunk that is the whole blob is what readers take, whatever the index lists.
            marks.update(digest for digest in found.blobs if digest not in found.absent)
            marks.update(found.needed)

    # -- sweeping --

    def _is_old(self, item: StoredItem) -> bool:
        if item.modified is None:
            return False
        allowance = self._sweepable.renewal_seconds
        if item.modified < self.collected.cutoff - allowance:
            return True
        self.collected.too_new[item.kind].add(item)
        goes_from = item.modified + allowance + self._grace_seconds
        known = self.collected.goes_from
        self.collected.goes_from = goes_from if known is None else min(known, goes_from)
        return False

    def _sweep_all(self, items: Iterable[StoredItem]) -> None:
        for _ in self._sweep(items):
            pass

    def _sweep(self, items: Iterable[StoredItem]) -> Iterator[tuple[list[StoredItem], list[StoredItem]]]:
        """Yield *items*, some at a time, each time with those of them that are gone, or would be."""
        calls = ((batch, partial(self._remove_batch, batch)) for batch in _batches(iter(items), self._batch))
        for batch, gone in self._pool.map(labelled, calls):
            for item in gone:
                self._note_gone(item)
            yield batch, gone

    def _note_gone(self, item: StoredItem) -> None:
        self.collected.gone[item.kind].add(item)
        if self._on_gone is not None:
            self._on_gone(item)

    def _remove_batch(self, batch: list[StoredItem]) -> list[StoredItem]:
        return (
            batch if self._dry_run else list(self._sweepable.sweep(batch, older_than=self.collected.cutoff))
        )


def _batches(items: Iterator[StoredItem], size: int) -> Iterator[list[StoredItem]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
