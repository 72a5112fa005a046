"""What a service keeps can be listed, set aside and swept, item by item; many blobs can be stored at once."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import io
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from castore import frames
from castore.blobservice import BlobService
from castore.capabilities import ChunkStore, FrameStore, Inventory, StoredItem, Sweepable
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.testing.blobs import P3M
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    expect,
    expect_absent,
    expect_stored,
    expect_that,
    fresh,
    power_of,
    reader_of,
)

chapter = Chapter()
clause = chapter.clause

_LONG: Final = 1e6
"""Seconds, more than any store takes to notice that something is old."""


def _items_of(inventory: Inventory, *digests: B3Digest) -> list[StoredItem]:
    return [item for item in inventory.list_items() if item.digest in digests]


# -- many at once, and without copies --


@clause()
def put_files_keeps_the_order(service: BlobService) -> None:
    """`put_files` yields the digest of each file in order, or the error of one that cannot be read."""
    contents = [fresh(), b"", fresh(300_000), fresh(100)]
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / str(number) for number in range(len(contents))]
        for path, data in zip(paths, contents, strict=True):
            path.write_bytes(data)
        found = list(service.put_files([*paths[:2], Path(name) / "none", *paths[2:]]))
    expect("how many outcomes put_files() yields", len(found), 5)
    error = found.pop(2)
    expect_that(isinstance(error, SourceError), "a SourceError for a file that is not there", error)
    expect("the digests", found, [B3Digest.of(data) for data in contents])
    for data in contents:
        expect_stored(service, B3Digest.of(data), data)


@clause()
def writers_fill_from_a_source(service: BlobService) -> None:
    """`fill` takes what `readinto` gives, piece by piece, and `write` goes on behind it."""
    data = fresh(700_000)
    source = io.BytesIO(data[:-5])
    with service.open_write() as writer:
        while writer.fill(source.readinto):
            pass
        writer.write(data[-5:])
        expect("close()", writer.close(), B3Digest.of(data))
    expect_stored(service, B3Digest.of(data), data)


@clause()
def readers_give_views(service: BlobService) -> None:
    """`read_view` gives the next bytes, no more than it is asked for, and none only at the end."""
    data = P3M.data[:600_000]
    with reader_of(service, service.write(data)) as reader:
        parts = []
        while view := reader.read_view(70_000):
            expect_that(len(view) <= 70_000, "read_view(70000) to give no more than that", len(view))
            parts.append(bytes(view))
            expect("tell()", reader.tell(), sum(map(len, parts)))
    expect("what read_view() gave, joined,", b"".join(parts), data)


# -- chunks --


@clause(needs=(ChunkStore,))
def claims_tell_what_is_there(service: BlobService) -> None:
    """`claim_chunk` is true for a chunk that is there, and like `claim_blob` false for what is not."""
    store = power_of(service, ChunkStore)
    data = fresh()
    store.put_chunk(B3Digest.of(data), data)
    expect("claim_chunk() of a chunk", store.claim_chunk(B3Digest.of(data)), True)
    expect("claim_chunk() of an absent one", store.claim_chunk(absent()), False)
    expect("claim_blob() of an absent one", store.claim_blob(absent()), False)


@clause(needs=(ChunkStore,))
def put_indexes_shows_all(service: BlobService) -> None:
    """`put_indexes` makes each of the blobs visible."""
    store = power_of(service, ChunkStore)
    blobs = [fresh() for _ in range(5)]
    for data in blobs:
        store.put_chunk(B3Digest.of(data), data)
    with store.hold():
        store.put_indexes([(B3Digest.of(data), ()) for data in blobs])
    for data in blobs:
        expect_stored(service, B3Digest.of(data), data)
        found = service.chunks(B3Digest.of(data))
        expect_that(found is not None and len(found) == 0, "chunks() to be empty", found)


@clause(needs=(FrameStore,))
def frames_are_chunks(service: BlobService) -> None:
    """A frame that is read can be put again, and unpacks to the chunk; that of an absent chunk is None."""
    store = power_of(service, FrameStore)
    data = fresh(3000)
    digest = service.write(data)
    frame = store.get_frame(digest)
    expect_that(isinstance(frame, bytes), "get_frame() to return bytes", type(frame))
    if store.frame_format == "zstd":
        expect("the frame, unpacked,", frames.decode_chunk(frame or b"", digest), data)
    store.put_frame(digest, frame or b"")
    expect_stored(service, digest, data)
    expect("get_frame() of an absent chunk", store.get_frame(absent()), None)


# -- items --


@clause(needs=(Inventory,))
def items_are_listed_once(service: BlobService) -> None:
    """`list_items` has the index of each blob, and each chunk, once, under its digest."""
    inventory = power_of(service, Inventory)
    small, large = service.write(fresh()), service.write(fresh(1_500_000))
    chunks = {small, *(meta.digest for meta in service.chunks(large) or ())} - {large}
    found = Counter((item.kind, item.digest) for item in inventory.list_items())
    for digest in (small, large):
        expect(f"how often list_items() has the index of {digest}", found["index", digest], 1)
    for digest in chunks:
        expect(f"how often list_items() has the chunk {digest}", found["chunk", digest], 1)


@clause(needs=(Inventory,))
def what_is_set_aside_is_absent(service: BlobService) -> None:
    """After `set_aside` a blob is absent, the others are there, and it can be stored again."""
    inventory = power_of(service, Inventory)
    data, other = fresh(), fresh()
    digest = service.write(data)
    service.write(other)
    for item in _items_of(inventory, digest):
        inventory.set_aside(item)
    expect_absent(service, digest)
    expect("the items of what was set aside", _items_of(inventory, digest), [])
    expect_stored(service, B3Digest.of(other), other)
    service.write(data)
    expect_stored(service, digest, data)


@clause(needs=(Sweepable,))
def a_sweep_takes_what_is_old(service: BlobService) -> None:
    """`sweep` removes the items that it is given, and yields each, if they are older than a time."""
    sweepable = power_of(service, Sweepable)
    data, other = fresh(), fresh()
    digest = service.write(data)
    service.write(other)
    items = _items_of(sweepable, digest)
    gone = list(sweepable.sweep(items, older_than=time.time() + _LONG))
    expect("what sweep() yields", sorted(item.key for item in gone), sorted(item.key for item in items))
    expect_absent(service, digest)
    expect_stored(service, B3Digest.of(other), other)
    expect("sweep() of what is gone", list(sweepable.sweep(items, older_than=time.time() + _LONG)), [])


@clause(needs=(Sweepable,))
def a_sweep_leaves_what_is_young(service: BlobService) -> None:
    """`sweep` removes nothing that was put after the time it is given."""
    sweepable = power_of(service, Sweepable)
    data = fresh()
    digest = service.write(data)
    items = _items_of(sweepable, digest)
    expect("what sweep() yields", list(sweepable.sweep(items, older_than=time.time() - _LONG)), [])
    expect_stored(service, digest, data)


@clause(needs=(Sweepable, ChunkStore))
def who_holds_is_seen(service: BlobService) -> None:
    """While somebody holds, `held_since` is a time that is past."""
    sweepable = power_of(service, Sweepable)
    with power_of(service, ChunkStore).hold():
        since = sweepable.held_since()
        expect_that(since is not None, "held_since() within hold() to be a time", since)
        expect_that(since is None or since < time.time() + 60, "held_since() to be past", since)
