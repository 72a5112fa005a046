"""What is stored is listed item by item, and stays unless it is set aside, or swept when it is old.

No clause asks this machine's clock what is old: the store's own may be another. The times of items show it.
"""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkStore, FrameStore
from castore.contract.upkeep import Inventory, StoredItem, Sweepable
from castore.digest import B3Digest
from castore.format import frames
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    expect,
    expect_absent,
    expect_raises,
    expect_stored,
    expect_that,
    fresh,
    power_of,
)

chapter = Chapter()
clause = chapter.clause

_DAY: Final = 86400.0
_LARGE: Final = 1_500_000
_COARSE: Final = 2.0
"""By how many seconds two times of one store may be apart that should be equal: some tell whole seconds."""


class _StopError(Exception):
    """Raised in a with-block, to see what the context makes of it."""


def _items_of(service: BlobService, *digests: B3Digest) -> list[StoredItem]:
    return [item for item in power_of(service, Inventory).list_items() if item.digest in digests]


def _latest(items: Iterable[StoredItem]) -> float:
    return max((item.modified for item in items if item.modified is not None), default=time.time())


def _now(service: BlobService) -> float:
    """Return the time by the clock of the store: that of what is put into it now; 0 if it does not tell."""
    items = _items_of(service, service.write(fresh()))
    return min((item.modified for item in items if item.modified is not None), default=0.0)


def _when_old(sweepable: Sweepable, items: Iterable[StoredItem]) -> float:
    """Return an `older_than` by which *items* are old."""
    return _latest(items) + sweepable.renewal_seconds + _DAY


# -- frames --


@clause(needs=(FrameStore,))
def frames_are_read(service: BlobService) -> None:
    """`get_frame` gives what `frame_format` says of a chunk, and None for one that is absent."""
    store = power_of(service, FrameStore)
    data = fresh(3000)
    digest = service.write(data)
    named = store.frame_format
    expect_that(isinstance(named, str) and named, "frame_format to be a name", named)
    frame = store.get_frame(digest)
    expect_that(isinstance(frame, bytes), "get_frame() to be bytes", type(frame))
    if named == "zstd":
        expect("what get_frame() unpacks to", frames.decode_chunk(frame or b"", digest), data)
    expect("get_frame() of an absent chunk", store.get_frame(absent()), None)


@clause(needs=(FrameStore,))
def frame_put_is_the_chunk(service: BlobService) -> None:
    """A frame that was put is the chunk, and putting it where it is already changes nothing."""
    store = power_of(service, FrameStore)
    stored = fresh(3000)
    digest = service.write(stored)
    frame = store.get_frame(digest) or b""
    store.put_frame(digest, frame)
    expect("get_frame() of what was put", store.get_frame(digest), frame)
    expect_stored(service, digest, stored)
    if store.frame_format == "zstd":
        data = fresh(3000)
        store.put_frame(B3Digest.of(data), frames.compress(data))
        expect_stored(service, B3Digest.of(data), data)


@clause(needs=(FrameStore, Inventory))
def frame_mends_a_chunk(service: BlobService) -> None:
    """A chunk that was set aside is there again when its frame is put back."""
    store, inventory = power_of(service, FrameStore), power_of(service, Inventory)
    data = fresh(3000)
    digest = service.write(data)
    frame = store.get_frame(digest) or b""
    for item in _items_of(service, digest):
        inventory.set_aside(item)
    expect("get_frame() of a chunk that was set aside", store.get_frame(digest), None)
    store.put_frame(digest, frame)
    expect_stored(service, digest, data)


# -- claims and holds --


@clause(needs=(ChunkStore,))
def claim_tells_what_is_there(service: BlobService) -> None:
    """`claim_chunk` is True for a chunk that was put, else False; `claim_blob` is False for it alone."""
    store = power_of(service, ChunkStore)
    data = fresh()
    digest = B3Digest.of(data)
    expect("claim_chunk() of an absent chunk", store.claim_chunk(digest), False)
    expect("claim_blob() of an absent blob", store.claim_blob(digest), False)
    store.put_chunk(digest, data)
    expect("claim_chunk()", store.claim_chunk(digest), True)
    expect("claim_blob() before there is an index", store.claim_blob(digest), False)
    expect("get_chunk() of a claimed chunk", store.get_chunk(digest), data)


@clause(needs=(ChunkStore,))
def claim_of_indexes_tells_what_is_there(service: BlobService) -> None:
    """`claim_indexes` returns no blob that is not there; what it leaves out can be put with others."""
    store = power_of(service, ChunkStore)
    data = {B3Digest.of(part): part for part in (fresh(60), fresh(800))}
    blobs: list[tuple[B3Digest, tuple[()]]] = [(digest, ()) for digest in data]
    expect("claim_indexes() of none", store.claim_indexes([]), set())
    for digest, part in data.items():
        store.put_chunk(digest, part)
    expect("claim_indexes() before there are any", store.claim_indexes(blobs), set())
    there = blobs[0][0]
    store.put_index(there, ())
    found = store.claim_indexes(blobs)
    expect_that(found <= {there}, f"claim_indexes() to return nothing but {there}", found)
    store.put_indexes([blob for blob in blobs if blob[0] not in found])
    for digest, part in data.items():
        expect_stored(service, digest, part)


@clause(needs=(ChunkStore,))
def hold_lets_writers_write(service: BlobService) -> None:
    """Within `hold`, and within two, everything goes on as ever; an exception comes out of it."""
    store = power_of(service, ChunkStore)
    data = fresh(1000)
    metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in (data[:400], data[400:])]

    def fail() -> None:
        with store.hold():
            raise _StopError

    with store.hold(), store.hold():
        for meta, part in zip(metas, (data[:400], data[400:]), strict=True):
            store.put_chunk(meta.digest, part)
        store.put_index(B3Digest.of(data), metas)
        expect_stored(service, B3Digest.of(data), data)
    # Not within: a context that swallows errors would swallow this one, too.
    expect_raises("hold()", _StopError, fail)
    expect_stored(service, B3Digest.of(data), data)


@clause(needs=(ChunkStore, Inventory))
def claims_see_what_is_gone(service: BlobService) -> None:
    """What was set aside is no chunk to claim, nor is a blob there that needs it."""
    store = power_of(service, ChunkStore)
    data = fresh(_LARGE)
    blob = service.write(data)
    gone = ([meta.digest for meta in service.chunks(blob) or ()] or [blob])[-1]
    for item in _items_of(service, gone):
        if item.kind == "chunk":
            power_of(service, Inventory).set_aside(item)
    expect("claim_chunk() of a chunk that was set aside", store.claim_chunk(gone), False)
    expect("claim_blob() of a blob that lacks a chunk", store.claim_blob(blob), False)
    service.write(data)
    expect_stored(service, blob, data)


# -- the inventory --


@clause(needs=(Inventory,))
def items_are_each_listed_once(service: BlobService) -> None:
    """`list_items` has an index for each blob and a chunk for each listed chunk, once, and no absent one."""
    small, large = service.write(fresh()), service.write(fresh(_LARGE))
    service.write(b"")
    aborted = service.open_write()
    aborted.write(never := fresh())
    aborted.abort()
    items = list(power_of(service, Inventory).list_items())
    counts = Counter((item.kind, item.digest) for item in items)
    for digest in (small, large):
        expect(f"how many indexes of {digest} are listed", counts["index", digest], 1)
    for meta in service.chunks(large) or ():
        expect(f"how many chunks {meta.digest} are listed", counts["chunk", meta.digest], 1)
        expect(f"how many indexes of the chunk {meta.digest} are listed", counts["index", meta.digest], 0)
    for digest in (absent(), B3Digest.of(never)):
        expect_that(
            not counts["index", digest] and not counts["chunk", digest], "nothing absent listed", "it"
        )
    expect("how many keys are listed twice", len(items) - len({item.key for item in items}), 0)


@clause(needs=(Inventory,))
def items_say_what_they_are(service: BlobService) -> None:
    """Listed are all indexes, then all chunks, with the digest of each, and residue without one."""
    service.write(fresh())
    service.write(fresh(_LARGE))
    chunks_begun = False
    for item in power_of(service, Inventory).list_items():
        expect_that(isinstance(item, StoredItem), "list_items() to yield StoredItems", type(item))
        expect_that(item.kind in ("index", "chunk", "residue"), "a kind of item", item.kind)
        expect_that((item.digest is None) == (item.kind == "residue"), "digests for all but residue", item)
        expect_that(item.kind != "index" or not chunks_begun, "no index after a chunk", item)
        chunks_begun |= item.kind == "chunk"


@clause(needs=(Inventory,))
def set_aside_is_absent(service: BlobService) -> None:
    """What is set aside is absent and not listed, until it is stored again; nothing else is touched."""
    inventory = power_of(service, Inventory)
    other = fresh()
    neighbour = service.write(other)
    for size in (64, _LARGE):
        data = fresh(size)
        digest = service.write(data)
        for item in _items_of(service, digest):
            expect_that(inventory.set_aside(item), "set_aside() to say where it is", "nothing")
        expect_absent(service, digest)
        expect("the items listed of what was set aside", _items_of(service, digest), [])
        service.write(data)
        expect_stored(service, digest, data)
        expect_that(_items_of(service, digest), "it to be listed when it is stored again", "nothing")
    expect_stored(service, neighbour, other)


@clause(needs=(Inventory,))
def set_aside_replaces_nothing(service: BlobService) -> None:
    """What is set aside again and again is each time in another place."""
    inventory = power_of(service, Inventory)
    data = fresh()
    places = []
    for _ in range(3):
        items = _items_of(service, service.write(data))
        places += [inventory.set_aside(item) for item in items]
    expect("how many of the places are taken twice", len(places) - len(set(places)), 0)


# -- sweeps --


@clause(needs=(Sweepable,))
def sweep_leaves_the_young(service: BlobService) -> None:
    """`sweep` removes nothing that was put at the time `older_than`, or after it."""
    sweepable = power_of(service, Sweepable)
    before = _now(service)
    data = fresh(_LARGE)
    digest = service.write(data)
    items = _items_of(service, digest, *(meta.digest for meta in service.chunks(digest) or ()))
    expect("sweep() of what came later", list(sweepable.sweep(items, older_than=before)), [])
    expect("sweep() of the time 0", list(sweepable.sweep(items, older_than=0.0)), [])
    expect_stored(service, digest, data)


@clause(needs=(Sweepable,))
def sweep_removes_what_it_is_given(service: BlobService) -> None:
    """`sweep` removes the old ones of the items that it is given, yields each, and leaves all others."""
    sweepable = power_of(service, Sweepable)
    other = fresh(1000)
    neighbour = service.write(other)
    for size in (64, _LARGE):
        data = fresh(size)
        digest = service.write(data)
        items = _items_of(service, digest)
        limit = _when_old(sweepable, items)
        expect("sweep() of nothing", list(sweepable.sweep((), older_than=limit)), [])
        swept = list(sweepable.sweep(iter(items), older_than=limit))
        expect("the keys that sweep() yields", sorted(item.key for item in swept), _keys(items))
        expect_absent(service, digest)
        expect("the items listed of what was swept", _items_of(service, digest), [])
        service.write(data)
        expect_stored(service, digest, data)
    expect_stored(service, neighbour, other)


def _keys(items: Iterable[StoredItem]) -> list[str]:
    return sorted(item.key for item in items)


@clause(needs=(ChunkStore, Sweepable))
def claimed_is_young_again(service: BlobService) -> None:
    """What was claimed or put again is not older than that, whatever the list said of it before."""
    store, sweepable = power_of(service, ChunkStore), power_of(service, Sweepable)
    for again in ("claimed", "claimed as an index", "put again"):
        data = fresh()
        digest = service.write(data)
        kind = "index" if again == "claimed as an index" else "chunk"
        items = [item for item in _items_of(service, digest) if item.kind == kind]
        between = _now(service)
        if again == "claimed":
            expect("claim_chunk()", store.claim_chunk(digest), True)
        elif kind == "chunk":
            service.write(data)
        elif not store.claim_indexes([(digest, ())]):
            continue  # It does not tell.
        swept = list(sweepable.sweep(items, older_than=between))
        expect(f"sweep() of what was {again} since", swept, [])
        expect_stored(service, digest, data)


@clause(needs=(ChunkStore, Sweepable))
def held_since_the_first(service: BlobService) -> None:
    """`held_since` is the time at which the first of those that hold began to, None if nobody holds."""
    store, sweepable = power_of(service, ChunkStore), power_of(service, Sweepable)
    expect("held_since(), with nobody holding", sweepable.held_since(), None)
    earliest = _now(service) - _COARSE
    with store.hold():
        since = sweepable.held_since()
        latest = _now(service) + _COARSE
        in_time = since is not None and (earliest <= since <= latest or latest == _COARSE)
        expect_that(in_time, f"held_since() to be from {earliest} to {latest}", since)
        with store.hold():
            expect("held_since(), with two holding", sweepable.held_since(), since)
    expect("held_since() after the hold", sweepable.held_since(), None)
