"""A capability that a service has does what it says; one that it denies is not there by another way."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import (
    BatchExistence,
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
)
from castore.digest import B3Digest
from castore.errors import CorruptBlobError, CorruptChunkError
from castore.testing.blobs import BLOB_B, EMPTY, P3M
from castore.testing.clause import POWERS, Chapter, Clause
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


@clause()
def powers_are_real(service: BlobService) -> None:
    """What `capability` returns for a capability is an object of that capability, or None."""
    for kind in POWERS:
        found = service.capability(kind)
        is_one = found is None or isinstance(found, kind)
        expect_that(is_one, f"capability({kind.__name__}) to be one, or None", type(found))


@clause(needs=(BlobLister,))
def list_has_each_blob_once(service: BlobService) -> None:
    """`list_blobs` yields each blob once, however often it was stored, and nothing that is absent."""
    data = fresh()
    stored = [service.write(data), service.write(data), service.write(fresh(700_000)), service.write(b"")]
    counts = Counter(power_of(service, BlobLister).list_blobs())
    for digest in stored:
        expect(f"how often list_blobs() yields {digest}", counts[digest], 1)
    expect("how often list_blobs() yields an absent one", counts[absent()], 0)
    for digest in counts:
        expect_that(isinstance(digest, B3Digest), "list_blobs() to yield B3Digests", type(digest))
        expect(f"has() of {digest}, which is listed,", service.has(digest), True)


@clause(needs=(BlobLister,))
def list_without_aborted(service: BlobService) -> None:
    """`list_blobs` yields no blob whose writer is still open, or was aborted."""
    lister = power_of(service, BlobLister)
    half, aborted = fresh(), fresh()
    with service.open_write() as writer:
        writer.write(half)
        dropped = service.open_write()
        dropped.write(aborted)
        dropped.abort()
        listed = set(lister.list_blobs())
        expect_that(B3Digest.of(half) not in listed, "list_blobs() without what is being written", "it")
        expect_that(B3Digest.of(aborted) not in listed, "list_blobs() without what was aborted", "it")


@clause(needs=(BlobDeleter,))
def delete_removes(service: BlobService) -> None:
    """`delete` says whether the blob was there; afterwards it is not, and can be stored again."""
    deleter = power_of(service, BlobDeleter)
    data = fresh(600_000)
    digest, other = service.write(data), service.write(data + b"!")
    expect("delete() of an absent blob", deleter.delete(absent()), False)
    expect("delete()", deleter.delete(digest), True)
    expect(f"has({digest})", service.has(digest), False)
    expect(f"open_read({digest})", service.open_read(digest), None)
    expect("delete() again", deleter.delete(digest), False)
    expect_stored(service, other, data + b"!")
    service.write(data)
    expect_stored(service, digest, data)


@clause(needs=(ChunkSource,))
def chunk_source_reads_chunks(service: BlobService) -> None:
    """`get_chunk` gives the bytes of each listed chunk, and of a small blob, which is its own chunk."""
    source = power_of(service, ChunkSource)
    small = fresh()
    metas = [ChunkMeta(service.write(small), len(small))]
    for blob in (BLOB_B, P3M):
        metas += service.chunks(service.write(blob.data)) or ()
    for meta in metas:
        expect(f"has_chunk({meta.digest})", source.has_chunk(meta.digest), True)
        for size in (None, meta.size):
            data = source.get_chunk(meta.digest, size) or b""
            expect(f"the digest of get_chunk({meta.digest}, {size})", B3Digest.of(data), meta.digest)


@clause(needs=(ChunkSource,))
def chunk_source_knows_absence(service: BlobService) -> None:
    """An absent chunk is False for `has_chunk` and None for `get_chunk`, whatever its size should be."""
    source = power_of(service, ChunkSource)
    expect("has_chunk() of an absent chunk", source.has_chunk(absent()), False)
    expect("get_chunk() of an absent chunk", source.get_chunk(absent()), None)
    expect("get_chunk() of an absent chunk of 5 bytes", source.get_chunk(absent(), 5), None)


@clause(needs=(ChunkSource,))
def chunk_source_checks_sizes(service: BlobService) -> None:
    """`get_chunk` of a size that the chunk has not raises: `CorruptChunkError`, or for less of its kin."""
    source = power_of(service, ChunkSource)
    digest = service.write(fresh(100))
    expect_raises("get_chunk() of 101", CorruptChunkError, lambda: source.get_chunk(digest, 101))
    expect_raises("get_chunk() of 99", CorruptBlobError, lambda: source.get_chunk(digest, 99))
    expect_raises("get_chunk() of 0", CorruptBlobError, lambda: source.get_chunk(digest, 0))


@clause(needs=(ChunkStore,))
def chunk_store_keeps_chunks(service: BlobService) -> None:
    """A chunk that was put is there, as a chunk and for `has` and `open_read`, and may be put again."""
    store = power_of(service, ChunkStore)
    data = fresh(3000)
    digest = B3Digest.of(data)
    buffer = bytearray(data)
    for _ in range(2):
        store.put_chunk(digest, memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    expect("has_chunk()", store.has_chunk(digest), True)
    expect("get_chunk()", store.get_chunk(digest), data)
    expect("get_chunk() of its size", store.get_chunk(digest, 3000), data)
    expect_stored(service, digest, data)


@clause(needs=(ChunkStore,))
def chunk_store_shows_a_blob_by_its_index(service: BlobService) -> None:
    """A blob of chunks is absent until `put_index`, then whole, with the chunks that the index lists."""
    store = power_of(service, ChunkStore)
    parts = [fresh(1000), fresh(20), fresh(500)]
    parts.append(parts[0])
    metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
    for meta, part in zip(metas, parts, strict=True):
        store.put_chunk(meta.digest, part)
    blob = B3Digest.of(b"".join(parts))
    expect_absent(service, blob)
    store.put_index(blob, metas)
    expect("chunks()", list(service.chunks(blob) or ()), metas)
    expect_stored(service, blob, b"".join(parts))


@clause(needs=(ChunkStore,))
def chunk_store_keeps_the_first_index(service: BlobService) -> None:
    """An index that is there stays: other chunks for the same blob do not replace it."""
    store = power_of(service, ChunkStore)
    whole = fresh(2000)
    lists = []
    for cut in (500, 700):
        parts = (whole[:cut], whole[cut:])
        for part in parts:
            store.put_chunk(B3Digest.of(part), part)
        lists.append([ChunkMeta(B3Digest.of(part), len(part)) for part in parts])
        store.put_index(B3Digest.of(whole), lists[-1])
    expect("chunks()", list(service.chunks(B3Digest.of(whole)) or ()), lists[0])
    expect_stored(service, B3Digest.of(whole), whole)


@clause(needs=(ChunkStore,))
def chunk_store_takes_many_indexes(service: BlobService) -> None:
    """`put_indexes` makes all of its blobs visible, of one chunk and of several; none of them is no harm."""
    store = power_of(service, ChunkStore)
    wholes, blobs = [fresh(50), fresh(3000), fresh(2000)], []
    for whole in wholes:
        parts = [whole[start : start + 1000] for start in range(0, len(whole), 1000)]
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        for meta, part in zip(metas, parts, strict=True):
            store.put_chunk(meta.digest, part)
        blobs.append((B3Digest.of(whole), metas if len(metas) > 1 else []))
    store.put_indexes([])
    for digest, _ in blobs[1:]:
        expect_absent(service, digest)
    store.put_indexes([*blobs, blobs[0]])
    for whole, (digest, metas) in zip(wholes, blobs, strict=True):
        expect(f"chunks({digest})", list(service.chunks(digest) or ()), metas)
        expect_stored(service, digest, whole)


@clause(needs=(ChunkStore,))
def chunk_store_takes_many_chunks(service: BlobService) -> None:
    """`put_chunks` keeps all of its chunks, `claim_chunks` returns which are there; none are no harm."""
    store = power_of(service, ChunkStore)
    parts = {B3Digest.of(part): part for part in (fresh(size) for size in (50, 700, 40_000))}
    absent = B3Digest.of(fresh())
    store.put_chunks({})
    expect("claim_chunks() of none", store.claim_chunks([]), set())
    expect("claim_chunks() of absent chunks", store.claim_chunks(parts), set())
    store.put_chunks({digest: memoryview(part) for digest, part in parts.items()})
    expect("claim_chunks()", store.claim_chunks(iter([absent, *parts, *parts])), set(parts))
    for digest, part in parts.items():
        store.put_index(digest, ())
        expect_stored(service, digest, part)
    expect("claim_chunks() of what blobs are made of", store.claim_chunks(iter(parts)), set(parts))


@clause(needs=(ChunkStore,))
def chunk_store_takes_small_blobs(service: BlobService) -> None:
    """`put_index` with no chunks makes a blob of one chunk, or the empty blob, visible as a blob."""
    store = power_of(service, ChunkStore)
    data = fresh(50)
    digest = B3Digest.of(data)
    store.put_chunk(digest, data)
    for blob, content in ((digest, data), (EMPTY.digest, b"")):
        store.put_index(blob, ())
        expect_stored(service, blob, content)
        found = service.chunks(blob)
        expect_that(found is not None and len(found) == 0, "chunks() to be empty", found)


@clause(needs=(BatchExistence,))
def batch_missing_agrees(service: BlobService) -> None:
    """`missing` of the capability says what `has` says, for many digests at once, none of them none."""
    batch = power_of(service, BatchExistence)
    here = {service.write(fresh()) for _ in range(20)}
    gone = {absent() for _ in range(300)}
    expect("missing()", batch.missing([*gone, *here]), gone)
    expect("missing() of nothing", batch.missing(()), set())


@clause(needs=(EvictionEvents,))
def eviction_events_can_be_ended(service: BlobService) -> None:
    """`on_evict` returns a function that ends the calls, and may be called again; it calls nothing now."""
    events = power_of(service, EvictionEvents)
    told: list[B3Digest] = []
    end = events.on_evict(told.append)
    expect_that(callable(end), "on_evict() to return a function", end)
    expect("what was evicted before anything was stored", told, [])
    end()
    end()


@clause(needs=(Durable,))
def durability_is_stated(service: BlobService) -> None:
    """`durability` is `process` or `full`."""
    stated = power_of(service, Durable).durability
    expect_that(stated in ("process", "full"), "durability to be 'process' or 'full'", stated)


# -- capabilities that are denied --

_OWN: Final = frozenset(dir(BlobService))


def _deny(kind: type) -> Clause:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()
    members = [member for member in dir(kind) if not member.startswith("_") and member not in _OWN]

    def run(service: BlobService) -> None:
        expect(f"isinstance(service, {kind.__name__}), which it denies,", isinstance(service, kind), False)
        # It may have another capability that this one extends.
        had = {member for other in POWERS if service.capability(other) for member in dir(other)}
        for member in members:
            if member in had:
                continue
            expect(f"hasattr(service, {member!r})", hasattr(service, member), False)

    text = f"A service without {kind.__name__} is none, and has none of its methods to call by mistake."
    return Clause(f"without-{name}", text, run, lacks=(kind,))


chapter.clauses += [_deny(kind) for kind in POWERS]
