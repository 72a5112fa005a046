"""Writing chunks and indexes to where new blobs go, with one call to each service for each of the cache's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from castore import B3Digest, BlobService, CastoreError, ChunkMeta
from castore.contract.batches import MOST_ITEMS
from castore.contract.capabilities import ChunkSource, ChunkStore
from castore.errors import BatchError
from castore.format.chunking import Chunker
from castore.threads import forks
from castore.threads.pool import Pool
from castore.wrapping.sourced import SourcedChunks
from castore_cache.behind import Behind
from castore_cache.near import Near
from castore_cache.parts import Faults, claimed_in_part, done_in_part, require_done

if TYPE_CHECKING:
    from typing_extensions import Buffer


class WritingChunks(SourcedChunks, ChunkStore):
    """Reads chunks through the cache; writes chunks and indexes to *target*, which new blobs go to.

    Arguments:
        source: Reads chunks.
        target: Where new blobs go.
        cutter: The store that says how they are cut.
    """

    def __init__(self, source: ChunkSource, target: ChunkStore, cutter: ChunkStore) -> None:
        super().__init__(source)
        self._target = target
        self._cutter = cutter
        self.high_latency = target.high_latency
        self.round = min(target.round, MOST_ITEMS)

    @property
    def pool(self) -> Pool:
        """That of the service which is written to."""
        return self._target.pool

    def new_chunker(self) -> Chunker:
        """Return what cuts as far does, if new blobs get there, else as near does."""
        return self._cutter.new_chunker()

    # -- writing --

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Claim chunks where new blobs go."""
        return self._target.claim(digests)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Claim blobs where new blobs go."""
        return self._target.claim_blobs(blobs)

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Store chunks where new blobs go."""
        self._target.put_chunks(chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible where new blobs go."""
        self._target.put_indexes(blobs)

    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        """Lease what new blobs go to."""
        with self._target.lease(brief=brief) as leased:
            yield self._leased(leased)

    def _leased(self, target: ChunkStore) -> ChunkStore:
        """Return the same as this one over a store that is leased."""
        return WritingChunks(self._source, target, self._cutter)


class AcknowledgingChunks(WritingChunks):
    """Writes to near, where far comes later: what is made visible, or claimed, is on its way to far."""

    def __init__(self, source: ChunkSource, target: ChunkStore, cutter: ChunkStore, behind: Behind) -> None:
        super().__init__(source, target, cutter)
        self._behind = behind
        self.round = min(self.round, behind.backlog.limit)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Claim blobs in near; they count as written now, and so go to far, too."""
        there, faults = claimed_in_part(lambda: self._target.claim_blobs(blobs))
        done, not_queued = self._behind.store(there, lambda _: None)
        require_done(self._behind.name, done, {**faults, **not_queued})
        return done

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible in near, as many at a time as there is room for in the queue."""
        if not blobs:
            self._target.put_indexes(blobs)
            return
        put = self._target.put_indexes
        done, faults = self._behind.store(blobs, lambda some: put({digest: blobs[digest] for digest in some}))
        require_done(self._behind.name, done, faults)

    def _leased(self, target: ChunkStore) -> ChunkStore:
        return AcknowledgingChunks(self._source, target, self._cutter, self._behind)


class BothChunks(WritingChunks):
    """Writes to far and to near; what is done is done in both.

    A near that is not strict may fail: then far has what is written. Where near may have missed a chunk it
    gets no index that needs it.

    Arguments:
        source: Reads chunks.
        far: The store of far, which cuts the blobs.
        near: That of near.
        policy: What is made of a failure of near.
    """

    def __init__(self, source: ChunkSource, far: ChunkStore, near: ChunkStore, policy: Near) -> None:
        super().__init__(source, far, far)
        self._beside = near
        self._near = policy
        self.high_latency = far.high_latency or near.high_latency
        self.round = min(self.round, near.round)
        self._lock = forks.new_lock()
        self._missed: set[B3Digest] = set()
        """The chunks that near may lack, though they were claimed or put."""

    @property
    def pool(self) -> Pool:
        """That of the one whose requests wait, if only one's do."""
        waits = self._beside.high_latency and not self._target.high_latency
        return self._beside.pool if waits else self._target.pool

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Claim chunks in far, and those that it has in near."""
        return self._claim(lambda store, some: store.claim(some), set(digests))

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Claim blobs in far, and those that it has in near."""

        def claim(store: ChunkStore, some: Iterable[B3Digest]) -> set[B3Digest]:
            return store.claim_blobs({digest: blobs[digest] for digest in some})

        return self._claim(claim, blobs)

    def _claim(
        self, claim: Callable[[ChunkStore, Iterable[B3Digest]], set[B3Digest]], digests: Iterable[B3Digest]
    ) -> set[B3Digest]:
        there, faults = claimed_in_part(lambda: claim(self._target, digests))
        if there:
            there, others = self._claim_beside(there, lambda: claim(self._beside, there))
            faults = {**others, **faults}
        require_done(self._near.name, there, faults)
        return there

    def _claim_beside(
        self, wanted: set[B3Digest], call: Callable[[], set[B3Digest]]
    ) -> tuple[set[B3Digest], Faults]:
        if self._near.strict:
            return claimed_in_part(call)
        found, fault = self._near.ask(call)
        there, lost = set(found or ()), set[B3Digest]()
        if fault is not None:
            there, lost = _known_of(fault, wanted)
        # What far has need not be put for a near that failed; near is without it, as far as is known.
        self._mark(kept=there, missed=lost)
        return there | lost, {}

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Store chunks in both at once."""
        beside = self.pool.submit(partial(self._put_beside, chunks))
        try:
            done, faults = done_in_part(chunks, lambda: self._target.put_chunks(chunks))
            kept, others = beside.result()
        except BaseException:
            # It looks at the chunks, which are the caller's again after this.
            beside.drop()
            raise
        require_done(self._near.name, done & kept, {**others, **faults})

    def _put_beside(self, chunks: Mapping[B3Digest, Buffer]) -> tuple[set[B3Digest], Faults]:
        def put() -> None:
            self._beside.put_chunks(chunks)

        if self._near.strict:
            return done_in_part(chunks, put)
        _, fault = self._near.ask(put)
        kept = set(chunks) if fault is None else _known_of(fault, chunks)[0]
        self._mark(kept=kept, missed=chunks.keys() - kept)
        return set(chunks), {}

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible in far, and those of which that succeeds in near: what can be seen lasts."""
        done, faults = done_in_part(blobs, lambda: self._target.put_indexes(blobs))
        visible = {
            digest: chunks
            for digest, chunks in blobs.items()
            if digest in done and self._is_whole(digest, chunks)
        }
        call = partial(self._beside.put_indexes, visible)
        if self._near.strict:
            kept, others = done_in_part(visible, call)
            done &= kept
            faults = {**others, **faults}
        else:
            self._near.ask(call)
        require_done(self._near.name, done, faults)

    def _is_whole(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Tell whether near has missed none of the chunks of a blob."""
        needed = {meta.digest for meta in chunks} or {digest}
        with self._lock:
            return self._missed.isdisjoint(needed)

    def _mark(self, *, kept: Iterable[B3Digest] = (), missed: Iterable[B3Digest] = ()) -> None:
        with self._lock:
            self._missed.difference_update(kept)
            self._missed.update(missed)

    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        """Lease both; a near that cannot be leased is written to all the same, unless it is strict."""
        with contextlib.ExitStack() as stack:
            far = stack.enter_context(self._target.lease(brief=brief))
            yield BothChunks(self._source, far, self._lease_beside(stack, brief=brief), self._near)

    def _lease_beside(self, stack: contextlib.ExitStack, *, brief: bool) -> ChunkStore:
        lease = self._near.ask(lambda: self._beside.lease(brief=brief))[0]
        leased = None if lease is None else self._near.ask(lease.__enter__)[0]
        if lease is None or leased is None:
            return self._beside
        stack.callback(lambda: self._near.attempt(lambda: lease.__exit__(None, None, None)))
        return leased


def _known_of(fault: CastoreError, digests: Collection[B3Digest]) -> tuple[set[B3Digest], set[B3Digest]]:
    """Return what was done, and what was lost, when a call for *digests* failed."""
    if isinstance(fault, BatchError):
        return set(fault.done.intersection(digests)), set(fault.faults.keys() & set(digests))
    return set(), set(digests)


def chunk_store_of(
    source: ChunkSource, near: Near, far: BlobService, write: str, behind: Behind | None
) -> ChunkStore | None:
    """Return what writes chunks to where new blobs go, `None` if a service there cannot write them."""
    near_store, far_store = near.service.capability(ChunkStore), far.capability(ChunkStore)
    if write == "both":
        if near_store is None or far_store is None:
            return None
        return BothChunks(source, far_store, near_store, near)
    target = far_store if write == "far" else near_store
    if target is None:
        return None
    if behind is None:
        return WritingChunks(source, target, target)
    return AcknowledgingChunks(source, target, far_store or target, behind)
