"""What a cache can do, derived from what its near and its far can."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from castore import B3Digest, BlobService, ChunkMeta
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable
from castore_cache.behind import Behind
from castore_cache.near import Near

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")
T = TypeVar("T")


def powers_of(services: Sequence[BlobService], kind: Callable[..., P]) -> list[P] | None:
    """Return the *kind* of each of the services, `None` if one of them does not have it."""
    found = [service.capability(kind) for service in services]
    having = [entry for entry in found if entry is not None]
    return having if len(having) == len(found) else None


class WritingChunks(ChunkStore):
    """Reads chunks through the cache; writes chunks and indexes to all services that new blobs go to."""

    def __init__(self, source: ChunkSource, stores: Sequence[ChunkStore]) -> None:
        self._source = source
        self._stores = stores
        self.high_latency = source.high_latency

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether every service that is written to has a chunk: a writer skips those that are there."""
        return all(store.has_chunk(digest) for store in self._stores)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk from wherever it is."""
        return self._source.get_chunk(digest, size)

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where far keeps a chunk."""
        return self._source.chunk_key(digest)

    def claim_chunk(self, digest: B3Digest) -> bool:
        """Claim a chunk in every service that is written to; tell whether all have it."""
        claims = [store.claim_chunk(digest) for store in self._stores]
        return all(claims)

    def claim_blob(self, digest: B3Digest) -> bool:
        """Claim a blob in every service that is written to; tell whether all have it."""
        claims = [store.claim_blob(digest) for store in self._stores]
        return all(claims)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold in every service that is written to."""
        with contextlib.ExitStack() as stack:
            for store in self._stores:
                stack.enter_context(store.hold())
            yield

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Store a chunk in every service that is written to."""
        for store in self._stores:
            store.put_chunk(digest, data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible in every service that is written to."""
        self.put_indexes([(digest, chunks)])

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        """Make several blobs visible in every service that is written to."""
        for store in self._stores:
            store.put_indexes(blobs)


class _Within(ChunkStore):
    """A store that does more, or less, than the one within when blobs are written."""

    def __init__(self, store: ChunkStore) -> None:
        self._store = store

    def has_chunk(self, digest: B3Digest) -> bool:
        return self._store.has_chunk(digest)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        return self._store.get_chunk(digest, size)

    def claim_chunk(self, digest: B3Digest) -> bool:
        return self._store.claim_chunk(digest)

    def hold(self) -> contextlib.AbstractContextManager[None]:
        return self._store.hold()

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        self._store.put_chunk(digest, data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        self.put_indexes([(digest, chunks)])


class _Optional(_Within):
    """Near beside far, where near may fail: then far has what is written.

    Where near may have missed a chunk it gets no index that would count on that.
    """

    def __init__(self, near: Near, store: ChunkStore) -> None:
        super().__init__(store)
        self._near = near
        self._missed = False

    def _ask(self, call: Callable[[], T], otherwise: T) -> T:
        answer, fault = self._near.ask(call)
        self._missed = self._missed or fault is not None
        return otherwise if answer is None else answer

    # If near fails the answer is for far alone to give: hence True.

    def has_chunk(self, digest: B3Digest) -> bool:
        return self._ask(lambda: self._store.has_chunk(digest), otherwise=True)

    def claim_chunk(self, digest: B3Digest) -> bool:
        return self._ask(lambda: self._store.claim_chunk(digest), otherwise=True)

    def claim_blob(self, digest: B3Digest) -> bool:
        return self._ask(lambda: self._store.claim_blob(digest), otherwise=True)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            hold = self._near.ask(self._store.hold)[0]
            if hold is not None and self._near.ask(hold.__enter__)[1] is None:
                stack.callback(lambda: self._near.attempt(lambda: hold.__exit__(None, None, None)))
            yield

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        self._ask(lambda: self._store.put_chunk(digest, data), None)

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        whole = [
            (digest, chunks)
            for digest, chunks in blobs
            if not self._missed or self._claims({meta.digest for meta in chunks} or {digest})
        ]
        self._ask(lambda: self._store.put_indexes(whole), None)

    def _claims(self, wanted: Iterable[B3Digest]) -> bool:
        # Not `has_chunk`: what can be read in near need not be where it writes, as with another cache.
        return bool(self._near.attempt(lambda: all(map(self._store.claim_chunk, wanted))))


class _Acknowledging(_Within):
    """Near where far comes later: a blob that is made visible is on its way to far."""

    def __init__(self, store: ChunkStore, behind: Behind) -> None:
        super().__init__(store)
        self._behind = behind

    def claim_blob(self, digest: B3Digest) -> bool:
        # It counts as written now: so it goes to far, too.
        with self._behind.backlog.room():
            if not self._store.claim_blob(digest):
                return False
            self._behind.acknowledge([digest])
        return True

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        done = 0
        while done < len(blobs):
            with self._behind.backlog.room(len(blobs) - done) as count:
                batch = blobs[done : done + count]
                self._store.put_indexes(batch)
                self._behind.acknowledge([digest for digest, _ in batch])
            done += count


def chunk_store_of(
    source: ChunkSource, near: Near, far: BlobService, write: str, behind: Behind | None
) -> ChunkStore | None:
    """Return what writes chunks to where new blobs go, `None` if a service there cannot write them."""
    services = {"far": (far,), "both": (far, near.service)}.get(write, (near.service,))
    stores = powers_of(services, ChunkStore)
    if stores is None:
        return None
    if behind is not None:
        stores = [_Acknowledging(stores[0], behind)]
    elif write == "both" and not near.strict:
        stores = [stores[0], _Optional(near, stores[1])]
    return WritingChunks(source, stores)


class BothLister(BlobLister):
    """Lists what near or far has, each blob once."""

    def __init__(self, listers: Iterable[BlobLister]) -> None:
        self._listers = list(listers)

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every blob."""
        seen: set[B3Digest] = set()
        for lister in self._listers:
            for digest in lister.list_blobs():
                if digest not in seen:
                    seen.add(digest)
                    yield digest


class BothDeleter(BlobDeleter):
    """Deletes a blob from near and from far, and from what far is still to get."""

    def __init__(self, near: BlobDeleter, far: BlobDeleter, behind: Behind | None) -> None:
        self._near = near
        self._far = far
        self._behind = behind

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob everywhere; return whether it was anywhere. Raises what near or far raises."""
        if self._behind is not None:
            self._behind.forget(digest)
        # Far first: else a reader could bring it back to near.
        there = self._far.delete(digest)
        return self._near.delete(digest) or there


class Durability(Durable):
    """What a blob survives that a cache has acknowledged."""

    def __init__(self, level: Literal["process", "full"]) -> None:
        self._level = level

    @property
    def durability(self) -> Literal["process", "full"]:
        """That of the best of the services that are sure to have it."""
        return self._level


def durability_of(services: Iterable[BlobService]) -> Durable | None:
    """Return what a blob survives that all of *services* have, `None` if none of them says."""
    stated = [service.capability(Durable) for service in services]
    levels = {entry.durability for entry in stated if entry is not None}
    if not levels:
        return None
    return Durability("full" if "full" in levels else "process")
