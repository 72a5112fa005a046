"""What lets another service keep this one within bounds, and what keeps a blob from being evicted."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from typing import Final

from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkStore, EvictionEvents
from castore.contract.upkeep import Evictable, ItemKind, Pinning, StoredItem
from castore.digest import B3Digest
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    capability_of,
    expect,
    expect_absent,
    expect_stored,
    expect_that,
    fresh,
    metas_of,
    named,
)

chapter = Chapter()
clause = chapter.clause

_LARGE: Final = 1_500_000
_MANY: Final = 60
_KINDS: Final[tuple[ItemKind, ...]] = ("index", "chunk")


def _items_of(service: BlobService, blob: B3Digest) -> list[StoredItem]:
    """Return the index of a blob, if it has one, and its chunks, as they are listed."""
    digests = {blob, *(meta.digest for meta in service.chunks(blob) or ())}
    return [item for item in capability_of(service, Evictable).stored_items() if item.digest in digests]


@clause(needs=(Evictable,))
def evictable_tells_sizes(service: BlobService) -> None:
    """Each item is listed with the bytes that it takes, and found by its kind and digest as it is listed."""
    evictable = capability_of(service, Evictable)
    for size in (64, _LARGE):
        blob = service.write(fresh(size))
        evictable.flush()
        items = _items_of(service, blob)
        chunks = [item.size or 0 for item in items if item.kind == "chunk"]
        expect_that(chunks, "stored_items() to have the chunks of a blob", items)
        for item in items:
            expect_that(item.size is not None and item.size >= 0, "a size of each item", item)
        for kind in _KINDS:
            listed = {item.digest: item.size for item in items if item.kind == kind and item.digest}
            found = evictable.find_items(kind, iter([absent(), *listed, *listed]))
            sizes = {digest: item.size for digest, item in found.items()}
            expect(f"the sizes by find_items() of each {kind}", sizes, listed)
        bound = sum(evictable.chunk_bound(meta.size) for meta in service.chunks(blob) or ())
        expect_that(
            sum(chunks) <= (bound or evictable.chunk_bound(size)), "sizes within chunk_bound()", chunks
        )
    for kind in _KINDS:
        expect(f"find_items() of nothing, as {kind}", dict(evictable.find_items(kind, ())), {})
        expect(f"residue_of() an absent {kind}", list(evictable.residue_of(kind, [absent()])), [])


@clause(needs=(Evictable,))
def evictable_removes(service: BlobService) -> None:
    """What is removed is absent, and only that; removing it again is no error; it can be stored anew."""
    evictable = capability_of(service, Evictable)
    other = fresh()
    neighbour = service.write(other)
    for size in (64, _LARGE):
        data = fresh(size)
        blob = service.write(data)
        evictable.flush()
        items = _items_of(service, blob)
        evictable.remove(items)
        expect_absent(service, blob)
        expect("the items of what was removed", _items_of(service, blob), [])
        evictable.remove(items)
        expect("the digest of what is stored anew", service.write(data), blob)
        expect_stored(service, blob, data)
    expect_stored(service, neighbour, other)


@clause(needs=(Pinning,))
def pinning_may_come_first(service: BlobService) -> None:
    """Blobs may be pinned before they are there, more than once, and are as they were when that has ended."""
    pinning = capability_of(service, Pinning)
    blobs = named(fresh(), fresh())
    with pinning.pin(list(blobs)):
        for digest in blobs:
            expect_absent(service, digest)
        with pinning.pin(list(blobs)), pinning.pin([]):
            for digest, data in blobs.items():
                service.write(data)
                expect_stored(service, digest, data)
        for digest, data in blobs.items():
            expect_stored(service, digest, data)
    for digest, data in blobs.items():
        expect("what is stored anew", service.write(data), digest)
        expect_stored(service, digest, data)


@clause(needs=(Pinning, EvictionEvents))
def pinned_is_not_evicted(service: BlobService) -> None:
    """What is pinned stays, whatever else is evicted meanwhile: each of several blobs, early or late."""
    blobs = named(fresh(), fresh())
    first, second = blobs
    service.write(blobs[first])
    with capability_of(service, Pinning).pin([first, second]):
        service.write(blobs[second])
        _make_it_evict(service)
        for digest, data in blobs.items():
            expect_stored(service, digest, data)


@clause(needs=(ChunkStore, EvictionEvents))
def leased_is_not_evicted(service: BlobService) -> None:
    """What is put or claimed through a lease stays, whatever else is evicted meanwhile."""
    store = capability_of(service, ChunkStore)
    parts = [fresh(500), fresh(700)]
    known = service.write(parts[0])
    blob = B3Digest.of(b"".join(parts))
    with store.lease() as leased:
        expect("claim() through a lease", leased.claim([known]), {known})
        leased.put_chunks(named(parts[1]))
        _make_it_evict(service)
        expect(
            "get_chunks() of what is leased", leased.get_chunks(dict.fromkeys(named(*parts))), named(*parts)
        )
        leased.put_indexes({blob: metas_of(parts)})
        expect_stored(service, blob, b"".join(parts))


def _make_it_evict(service: BlobService) -> None:
    """Store blobs until some are evicted; a service with much room evicts none."""
    evicted: list[B3Digest] = []
    end = capability_of(service, EvictionEvents).on_evict(evicted.append)
    for _ in range(_MANY):
        service.write(fresh(50_000))
        if len(evicted) > _MANY // 4:
            break
    end()
