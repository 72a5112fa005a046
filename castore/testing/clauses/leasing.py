"""A lease: what goes through its store stays until it ends, whoever collects garbage meanwhile.

No clause asks this machine's clock what is old: the store's own may be another. The times of items show it.
"""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from typing import Final

from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Sweepable
from castore.digest import B3Digest
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    capability_of,
    expect,
    expect_raises,
    expect_stored,
    expect_that,
    fresh,
    items_of,
    metas_of,
    named,
    now_by,
)

chapter = Chapter()
clause = chapter.clause

_COARSE: Final = 2.0
"""By how many seconds two times of one store may be apart that should be equal: some tell whole seconds."""


class _StopError(Exception):
    """Raised in a with-block, to see what the context makes of it."""


@clause(needs=(ChunkStore,))
def lease_gives_a_store(service: BlobService) -> None:
    """A lease, brief or not, and one within another, gives a `ChunkStore` that writes to this service."""
    store = capability_of(service, ChunkStore)
    for brief in (False, True):
        parts = [fresh(400), fresh(600)]
        data = b"".join(parts)
        with store.lease(brief=brief) as leased, store.lease() as second, leased.lease() as within:
            for each in (leased, second, within):
                expect_that(isinstance(each, ChunkStore), "lease() to give a ChunkStore", each)
            leased.put_chunks(named(parts[0]))
            second.put_chunks(named(parts[1]))
            expect("claim() through a lease", within.claim(named(*parts)), set(named(*parts)))
            expect(
                "get_chunks() through a lease", leased.get_chunks(dict.fromkeys(named(*parts))), named(*parts)
            )
            leased.put_indexes({B3Digest.of(data): metas_of(parts)})
            expect_stored(service, B3Digest.of(data), data)
        expect_stored(service, B3Digest.of(data), data)


@clause(needs=(ChunkStore,))
def lease_lets_errors_through(service: BlobService) -> None:
    """An exception comes out of a lease, and what was put through it is still there."""
    store = capability_of(service, ChunkStore)
    data = fresh(1000)

    def fail() -> None:
        with store.lease() as leased:
            leased.put_chunks(named(data))
            raise _StopError

    expect_raises("lease()", _StopError, fail)
    store.put_indexes({B3Digest.of(data): ()})
    expect_stored(service, B3Digest.of(data), data)


@clause(needs=(ChunkStore, Sweepable))
def leased_stays(service: BlobService) -> None:
    """What was put or claimed through a lease survives a sweep of all that is older than the lease."""
    store, sweepable = capability_of(service, ChunkStore), capability_of(service, Sweepable)
    parts = [fresh(400), fresh(600), fresh(700)]
    blob = B3Digest.of(b"".join(parts))
    known = service.write(parts[0])
    listed = items_of(service, known)
    small = service.write(parts[2])
    with store.lease() as leased:
        since = sweepable.leased_since()
        leased.put_chunks(named(parts[1]))
        expect("claim() through a lease", leased.claim([known]), {known})
        claimed = leased.claim_blobs({small: None})
        chunks = [item for item in listed if item.kind == "chunk"]
        chunks += [item for item in items_of(service, B3Digest.of(parts[1])) if item.kind == "chunk"]
        chunks += items_of(service, small) if small in claimed else []
        expect_that(since is not None, "leased_since() to be a time while there is a lease", since)
        swept = list(sweepable.sweep(chunks, older_than=since or 0.0))
        expect("sweep() of what is leased", swept, [])
        leased.claim([small])
        leased.put_indexes({blob: metas_of(parts)})
        expect_stored(service, blob, b"".join(parts))


@clause(needs=(ChunkStore, Sweepable))
def claimed_is_young_again(service: BlobService) -> None:
    """What was claimed or put again is not older than that, whatever the list said of it before."""
    store, sweepable = capability_of(service, ChunkStore), capability_of(service, Sweepable)
    for again in ("claimed", "claimed as a blob", "put again"):
        data = fresh()
        digest = service.write(data)
        kind = "index" if again == "claimed as a blob" else "chunk"
        items = [item for item in items_of(service, digest) if item.kind == kind]
        between = now_by(service)
        if again == "claimed":
            expect("claim()", store.claim([digest]), {digest})
        elif kind == "chunk":
            service.write(data)
        elif not store.claim_blobs({digest: ()}):
            continue  # It does not tell.
        else:
            store.put_indexes({})
        swept = list(sweepable.sweep(items, older_than=between))
        expect(f"sweep() of what was {again} since", swept, [])
        expect_stored(service, digest, data)


@clause(needs=(ChunkStore, Sweepable))
def leased_since_the_first(service: BlobService) -> None:
    """`leased_since` is the time at which the first of the leases began, None if there is none."""
    store, sweepable = capability_of(service, ChunkStore), capability_of(service, Sweepable)
    expect("leased_since(), without a lease", sweepable.leased_since(), None)
    earliest = now_by(service) - _COARSE
    with store.lease():
        since = sweepable.leased_since()
        latest = now_by(service) + _COARSE
        in_time = since is not None and (earliest <= since <= latest or latest == _COARSE)
        expect_that(in_time, f"leased_since() to be from {earliest} to {latest}", since)
        with store.lease():
            expect("leased_since(), with two leases", sweepable.leased_since(), since)
    expect("leased_since() after the lease", sweepable.leased_since(), None)
