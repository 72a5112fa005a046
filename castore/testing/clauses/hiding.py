"""What is absent for `has` is absent through every door that the service has.

A service that hides blobs gives them out by whatever it passes on without thought: a list, a chunk, a claim.
"""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from collections.abc import Callable, Iterator

from castore.contract.blobs import BlobService
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    FrameStore,
    SharedPlace,
)
from castore.contract.upkeep import DigestRange, Evictable, Inventory, StoredItem
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, UnavailableError
from castore.testing.clause import Chapter, Hides
from castore.testing.expecting import (
    absent,
    capability_of,
    expect,
    expect_absent,
    expect_raises,
    expect_that,
    fresh,
)

chapter = Chapter()
clause = chapter.clause


@clause()
def absent_through_every_door(service: BlobService) -> None:
    """A digest that was never stored is given out by no method of the service, nor of a capability."""
    _expect_hidden(service, absent())


@clause()
def unfinished_through_every_door(service: BlobService) -> None:
    """A blob whose writer is open, or was aborted, is given out by no method, whether small or large."""
    for size in (64, 1_500_000):
        data = fresh(size)
        writer = service.open_write()
        writer.write(data)
        _expect_hidden(service, B3Digest.of(data))
        writer.abort()
        _expect_hidden(service, B3Digest.of(data))


@clause(needs=(BlobDeleter,))
def deleted_through_every_door(service: BlobService) -> None:
    """A blob that was deleted is given out by no method."""
    for size in (64, 600_000):
        digest = service.write(fresh(size))
        capability_of(service, BlobDeleter).delete(digest)
        _expect_hidden(service, digest)


@clause(needs=(Hides,))
def hidden_through_every_door(service: BlobService) -> None:
    """A blob that the service hides is given out by no method of it, nor of a capability."""
    hidden = list(capability_of(service, Hides).hidden_blobs())
    expect_that(hidden, "hidden_blobs() to return some", hidden)
    for digest in hidden:
        _expect_hidden(service, digest)


@clause(needs=(BlobLister,))
def listed_is_there(service: BlobService) -> None:
    """Of the blobs that are listed none is missing."""
    service.write(fresh())
    listed = set(capability_of(service, BlobLister).list_blobs())
    expect("missing() of what list_blobs() yields", service.missing(listed), set())


@clause(needs=(Inventory,))
def items_are_there(service: BlobService) -> None:
    """Of the blobs and chunks that an inventory lists none is missing."""
    service.write(fresh())
    expect_there(service, capability_of(service, Inventory).list_items())


@clause(needs=(Evictable,))
def evictable_items_are_there(service: BlobService) -> None:
    """Of the blobs and chunks that are listed for an evictor none is missing."""
    service.write(fresh())
    expect_there(service, capability_of(service, Evictable).stored_items())


def expect_there(service: BlobService, items: Iterator[StoredItem]) -> None:
    """Raise `ContractError` if what is listed is absent for everybody else."""
    listed = {item.digest for item in items if item.digest is not None}
    expect("missing() of the items that are listed", service.missing(listed), set())


def _expect_hidden(service: BlobService, digest: B3Digest) -> None:
    expect_absent(service, digest)
    expect_raises(f"open({digest})", BlobNotFoundError, lambda: service.open(digest))
    expect_raises(f"read({digest})", BlobNotFoundError, lambda: service.read(digest))
    for name, call in _doors(service, digest):
        try:
            given = call()
        except UnavailableError:
            continue  # Nothing was given out.
        expect_that(not given, f"{name} of {digest}, which has() denies, to give nothing", given)


def _doors(service: BlobService, digest: B3Digest) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what might give out *digest*, or a sign of it: false, or empty, if it does not."""
    yield "read_many()", lambda: [answer for _, answer in service.read_many([digest]) if answer is not None]
    if (source := service.capability(ChunkSource)) is not None:
        yield "find_chunks()", lambda: source.find_chunks((digest,))
        yield "get_chunks()", lambda: source.get_chunks({digest: None})
    if (store := service.capability(ChunkStore)) is not None:
        yield "claim()", lambda: store.claim((digest,))
        yield "claim_blobs()", lambda: store.claim_blobs({digest: None})
        yield "claim() through a lease", lambda: _claim_leased(store, digest)
    if (frames := service.capability(FrameStore)) is not None:
        yield "get_frames()", lambda: frames.get_frames((digest,))
    if (place := service.capability(SharedPlace)) is not None:
        yield "find_unflushed()", lambda: place.find_unflushed({digest: None})
    if (lister := service.capability(BlobLister)) is not None:
        yield "list_blobs()", lambda: digest in set(lister.list_blobs())
        yield "complete()", lambda: digest in set(lister.complete(digest.hex()[:8]))
    if (inventory := service.capability(Inventory)) is not None:
        yield "list_items()", lambda: [item for item in inventory.list_items() if item.digest == digest]
        everything = DigestRange()
        yield (
            "list_items_in()",
            lambda: [item for item in inventory.list_items_in(everything) if item.digest == digest],
        )
    if (evictable := service.capability(Evictable)) is not None:
        yield "stored_items()", lambda: [i for i in evictable.stored_items() if i.digest == digest]
        yield "find_items() of chunks", lambda: evictable.find_items("chunk", (digest,))
        yield "find_items() of indexes", lambda: evictable.find_items("index", (digest,))
    if (deleter := service.capability(BlobDeleter)) is not None:
        yield "delete()", lambda: deleter.delete(digest)


def _claim_leased(store: ChunkStore, digest: B3Digest) -> set[B3Digest]:
    with store.lease(brief=True) as leased:
        return leased.claim((digest,)) | leased.claim_blobs({digest: None})
