"""What lets another service keep this one within bounds, and what keeps a blob from being evicted."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Evictable, Pinning, StoredItem
from castore.digest import B3Digest
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    expect,
    expect_absent,
    expect_stored,
    expect_that,
    fresh,
    power_of,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

chapter = Chapter()
clause = chapter.clause

_LARGE: Final = 1_500_000


class _Elsewhere(ChunkStore):
    """A store that notes what it is given."""

    def __init__(self) -> None:
        self.parts: dict[B3Digest, bytes] = {}
        self.indexes: dict[B3Digest, Sequence[ChunkMeta]] = {}

    def has_chunk(self, digest: B3Digest) -> bool:
        return digest in self.parts

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:  # noqa: ARG002
        return self.parts.get(digest)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        self.parts[digest] = bytes(data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        self.indexes[digest] = tuple(chunks)


def _items_of(service: BlobService, blob: B3Digest) -> list[StoredItem]:
    """Return the index of a blob, if it has one, and its chunks, as they are listed."""
    digests = {blob, *(meta.digest for meta in service.chunks(blob) or ())}
    return [item for item in power_of(service, Evictable).stored_items() if item.digest in digests]


@clause(needs=(Evictable,))
def evictable_tells_sizes(service: BlobService) -> None:
    """Each item is listed with the bytes that it takes, and found by its kind and digest as it is listed."""
    evictable = power_of(service, Evictable)
    for size in (64, _LARGE):
        blob = service.write(fresh(size))
        evictable.settle()
        items = _items_of(service, blob)
        chunks = [item.size or 0 for item in items if item.kind == "chunk"]
        expect_that(chunks, "stored_items() to have the chunks of a blob", items)
        for item in items:
            expect_that(item.size is not None and item.size >= 0, "a size of each item", item)
            if item.kind != "residue" and item.digest is not None:
                found = evictable.find_item(item.kind, item.digest)
                expect("the size by find_item()", found and found.size, item.size)
        bound = sum(evictable.chunk_bound(meta.size) for meta in service.chunks(blob) or ())
        expect_that(
            sum(chunks) <= (bound or evictable.chunk_bound(size)), "sizes within chunk_bound()", chunks
        )
    expect("find_item() of an absent chunk", evictable.find_item("chunk", absent()), None)
    expect("find_item() of an absent index", evictable.find_item("index", absent()), None)


@clause(needs=(Evictable,))
def evictable_removes(service: BlobService) -> None:
    """What is removed is absent, and only that; removing it again is no error; it can be stored anew."""
    evictable = power_of(service, Evictable)
    other = fresh()
    neighbour = service.write(other)
    for size in (64, _LARGE):
        data = fresh(size)
        blob = service.write(data)
        evictable.settle()
        items = _items_of(service, blob)
        evictable.remove(items)
        expect_absent(service, blob)
        expect("the items of what was removed", _items_of(service, blob), [])
        evictable.remove(items)
        expect("the digest of what is stored anew", service.write(data), blob)
        expect_stored(service, blob, data)
    expect_stored(service, neighbour, other)


@clause(needs=(Evictable,))
def evictable_writes_to_another(service: BlobService) -> None:
    """All parts of a blob that is written to another store go there, and none is kept here."""
    evictable = power_of(service, Evictable)
    for size in (64, _LARGE):
        data = fresh(size)
        elsewhere = _Elsewhere()
        with evictable.open_write_to(elsewhere) as writer:
            writer.write(data)
        blob = writer.close()
        expect("the digest of what was written", blob, B3Digest.of(data))
        expect("the indexes that were put", list(elsewhere.indexes), [blob])
        parts = [meta.digest for meta in elsewhere.indexes[blob]] or [blob]
        expect("the chunks that were put", b"".join(elsewhere.parts[part] for part in parts), data)
        expect_absent(service, blob)


@clause(needs=(Pinning,))
def pinning_may_come_first(service: BlobService) -> None:
    """A blob may be pinned before it is there, more than once, and is as it was when that has ended."""
    pinning = power_of(service, Pinning)
    data = fresh()
    digest = B3Digest.of(data)
    with pinning.pin(digest):
        expect_absent(service, digest)
        with pinning.pin(digest):
            service.write(data)
            expect_stored(service, digest, data)
        expect_stored(service, digest, data)
    expect("what is stored anew", service.write(data), digest)
    expect_stored(service, digest, data)
