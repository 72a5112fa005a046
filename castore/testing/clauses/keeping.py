"""What is stored is listed item by item, and stays unless it is set aside, or swept when it is old.

No clause asks this machine's clock what is old: the store's own may be another. The times of items show it.
"""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final, cast

from castore.contract.blobs import BlobService
from castore.contract.capabilities import BlobLister, ChunkStore, FrameStore
from castore.contract.upkeep import DigestRange, Inventory, StoredItem, Sweepable
from castore.digest import B3Digest
from castore.format import frames
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    capability_of,
    expect,
    expect_absent,
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

_DAY: Final = 86400.0
_LARGE: Final = 1_500_000


def _latest(items: Iterable[StoredItem]) -> float:
    return max((item.modified for item in items if item.modified is not None), default=time.time())


def _when_old(sweepable: Sweepable, items: Iterable[StoredItem]) -> float:
    """Return an `older_than` by which *items* are old."""
    return _latest(items) + sweepable.renewal_seconds + _DAY


# -- frames --


@clause(needs=(FrameStore,))
def frames_are_read(service: BlobService) -> None:
    """`get_frames` gives what `frame_format` says of each chunk, and leaves out those that are absent."""
    store = capability_of(service, FrameStore)
    parts = named(fresh(3000), fresh(50))
    for data in parts.values():
        service.write(data)
    format_ = store.frame_format
    expect_that(isinstance(format_, str) and format_, "frame_format to be a name", format_)
    found = store.get_frames(iter([absent(), *parts, absent()]))
    expect("the digests that get_frames() gives", set(found), set(parts))
    for digest, frame in found.items():
        expect_that(isinstance(frame, bytes), "get_frames() to give bytes", type(frame))
        if format_ == "zstd":
            unpacked = frames.decode_chunk(cast("bytes", frame), digest)
            expect("what a frame unpacks to", unpacked, parts[digest])
    expect("get_frames() of nothing", store.get_frames(iter(())), {})


@clause(needs=(FrameStore,))
def frames_put_are_chunks(service: BlobService) -> None:
    """Frames that were put are chunks, and putting them where they are already changes nothing."""
    store = capability_of(service, FrameStore)
    stored = named(fresh(3000), fresh(50))
    for data in stored.values():
        service.write(data)
    found = _frames_of(store, stored)
    store.put_frames(found)
    store.put_frames({})
    expect("get_frames() of what was put", store.get_frames(stored), found)
    if store.frame_format == "zstd":
        more = named(fresh(3000), fresh(50))
        store.put_frames({digest: frames.compress(data) for digest, data in more.items()})
        stored |= more
    for digest, data in stored.items():
        expect_stored(service, digest, data)


@clause(needs=(FrameStore, Inventory))
def frames_mend_chunks(service: BlobService) -> None:
    """A chunk that was set aside is there again when its frame is put back."""
    store, inventory = capability_of(service, FrameStore), capability_of(service, Inventory)
    data = fresh(3000)
    digest = service.write(data)
    found = _frames_of(store, [digest])
    for item in items_of(service, digest):
        inventory.set_aside(item)
    expect("get_frames() of a chunk that was set aside", store.get_frames([digest]), {})
    store.put_frames(found)
    expect_stored(service, digest, data)


def _frames_of(store: FrameStore, digests: Iterable[B3Digest]) -> dict[B3Digest, bytes]:
    return {digest: cast("bytes", frame) for digest, frame in store.get_frames(digests).items()}


# -- claims --


@clause(needs=(ChunkStore,))
def claim_tells_what_is_there(service: BlobService) -> None:
    """`claim` returns the chunks that were put, and no others; `claim_blobs` no blob that has no index."""
    store = capability_of(service, ChunkStore)
    parts, gone = named(fresh(), fresh(900)), absent()
    digests = [*parts, gone]
    blobs: dict[B3Digest, tuple[()] | None] = {gone: None, **dict.fromkeys(parts, ())}
    expect("claim() of absent chunks", store.claim(iter(digests)), set())
    expect("claim_blobs() of absent blobs", store.claim_blobs(blobs), set())
    store.put_chunks(parts)
    expect("claim()", store.claim(iter([*digests, *digests])), set(parts))
    found = store.claim_blobs({B3Digest.of(b"".join(parts.values())): metas_of(parts.values())})
    expect("claim_blobs() of a blob whose chunks are there, but no index,", found, set())
    expect("get_chunks() of claimed chunks", store.get_chunks(dict.fromkeys(parts)), parts)


@clause(needs=(ChunkStore,))
def claim_of_blobs_tells_what_is_there(service: BlobService) -> None:
    """`claim_blobs` returns no blob that is not there; what it leaves out can be put to be sure."""
    store = capability_of(service, ChunkStore)
    parts = [fresh(1000), fresh(500)]
    small, whole = fresh(60), b"".join(parts)
    blobs = {B3Digest.of(small): [], B3Digest.of(whole): metas_of(parts)}
    there = B3Digest.of(whole)
    store.put_chunks(named(small, *parts))
    store.put_indexes({there: metas_of(parts)})
    for asked in (blobs, {**dict.fromkeys(blobs), absent(): None}):
        found = store.claim_blobs(asked)
        expect_that(
            found <= {there, B3Digest.of(small)}, "claim_blobs() to return none that is absent", found
        )
    store.put_indexes({blob: chunks for blob, chunks in blobs.items() if blob not in found})
    for data in (small, whole):
        expect_stored(service, B3Digest.of(data), data)


@clause(needs=(ChunkStore, BlobLister))
def claim_of_blobs_tells_blobs_from_chunks(service: BlobService) -> None:
    """Where blobs are listed, `claim_blobs` returns no blob that is only a chunk so far."""
    store = capability_of(service, ChunkStore)
    part = fresh(60)
    store.put_chunks(named(part))
    for chunks in (None, ()):
        expect("claim_blobs() of a chunk", store.claim_blobs({B3Digest.of(part): chunks}), set())
    store.put_indexes({B3Digest.of(part): ()})
    listed = set(capability_of(service, BlobLister).list_blobs())
    expect_that(B3Digest.of(part) in listed, "list_blobs() to have the blob that was put", "not")


@clause(needs=(ChunkStore, Inventory))
def claims_see_what_is_gone(service: BlobService) -> None:
    """What was set aside is no chunk to claim, nor is a blob there that needs it."""
    store = capability_of(service, ChunkStore)
    data = fresh(_LARGE)
    blob = service.write(data)
    metas = service.chunks(blob) or ()
    gone = ([meta.digest for meta in metas] or [blob])[-1]
    for item in items_of(service, gone):
        if item.kind == "chunk":
            capability_of(service, Inventory).set_aside(item)
    expect("claim() of a chunk that was set aside", store.claim([gone]), set())
    for chunks in (None, metas):
        expect("claim_blobs() of a blob that lacks a chunk", store.claim_blobs({blob: chunks}), set())
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
    items = list(capability_of(service, Inventory).list_items())
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
    for item in capability_of(service, Inventory).list_items():
        expect_that(isinstance(item, StoredItem), "list_items() to yield StoredItems", type(item))
        expect_that(item.kind in ("index", "chunk", "residue"), "a kind of item", item.kind)
        expect_that((item.digest is None) == (item.kind == "residue"), "digests for all but residue", item)
        expect_that(item.kind != "index" or not chunks_begun, "no index after a chunk", item)
        chunks_begun |= item.kind == "chunk"


@clause(needs=(Inventory,))
def parts_have_each_item_once(service: BlobService) -> None:
    """`list_items_in` has all that `list_items` has, each in one of several ranges, and in its own."""
    for _ in range(3):
        service.write(fresh())
    service.write(fresh(_LARGE))
    inventory = capability_of(service, Inventory)
    everything = Counter((item.kind, item.key) for item in inventory.list_items())
    digests = sorted({item.digest for item in inventory.list_items() if item.digest is not None})
    # A bound that is itself there is in the part that it begins.
    middle = digests[len(digests) // 2]
    for parts in (DigestRange.parts(3), [DigestRange(None, middle), DigestRange(middle, None)]):
        listed = [(part, item) for part in parts for item in inventory.list_items_in(part)]
        expect(
            f"the items of {len(parts)} parts",
            Counter((item.kind, item.key) for _, item in listed),
            everything,
        )
        for part, item in listed:
            expect_that(item.digest is None or item.digest in part, f"an item of {part}", item)


@clause(needs=(Inventory,))
def set_aside_is_absent(service: BlobService) -> None:
    """What is set aside is absent and not listed, until it is stored again; nothing else is touched."""
    inventory = capability_of(service, Inventory)
    other = fresh()
    neighbour = service.write(other)
    for size in (64, _LARGE):
        data = fresh(size)
        digest = service.write(data)
        for item in items_of(service, digest):
            expect_that(inventory.set_aside(item), "set_aside() to say where it is", "nothing")
        expect_absent(service, digest)
        expect("the items listed of what was set aside", items_of(service, digest), [])
        service.write(data)
        expect_stored(service, digest, data)
        expect_that(items_of(service, digest), "it to be listed when it is stored again", "nothing")
    expect_stored(service, neighbour, other)


@clause(needs=(Inventory,))
def set_aside_replaces_nothing(service: BlobService) -> None:
    """What is set aside again and again is each time in another place."""
    inventory = capability_of(service, Inventory)
    data = fresh()
    places = []
    for _ in range(3):
        items = items_of(service, service.write(data))
        places += [inventory.set_aside(item) for item in items]
    expect("how many of the places are taken twice", len(places) - len(set(places)), 0)


# -- sweeps --


@clause(needs=(Sweepable,))
def sweep_leaves_the_young(service: BlobService) -> None:
    """`sweep` removes nothing that was put at the time `older_than`, or after it."""
    sweepable = capability_of(service, Sweepable)
    before = now_by(service)
    data = fresh(_LARGE)
    digest = service.write(data)
    items = items_of(service, digest, *(meta.digest for meta in service.chunks(digest) or ()))
    expect("sweep() of what came later", list(sweepable.sweep(items, older_than=before)), [])
    expect("sweep() of the time 0", list(sweepable.sweep(items, older_than=0.0)), [])
    expect_stored(service, digest, data)


@clause(needs=(Sweepable,))
def sweep_removes_what_it_is_given(service: BlobService) -> None:
    """`sweep` removes the old ones of the items that it is given, yields each, and leaves all others."""
    sweepable = capability_of(service, Sweepable)
    other = fresh(1000)
    neighbour = service.write(other)
    for size in (64, _LARGE):
        data = fresh(size)
        digest = service.write(data)
        items = items_of(service, digest)
        limit = _when_old(sweepable, items)
        expect("sweep() of nothing", list(sweepable.sweep((), older_than=limit)), [])
        swept = list(sweepable.sweep(iter(items), older_than=limit))
        expect("the keys that sweep() yields", sorted(item.key for item in swept), _keys(items))
        expect_absent(service, digest)
        expect("the items listed of what was swept", items_of(service, digest), [])
        service.write(data)
        expect_stored(service, digest, data)
    expect_stored(service, neighbour, other)


def _keys(items: Iterable[StoredItem]) -> list[str]:
    return sorted(item.key for item in items)
