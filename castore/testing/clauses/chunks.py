"""Chunks, and the indexes of blobs: many in one call, each with an answer of its own."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from typing import Final

from castore.contract.batches import MOST_ITEMS, MOST_UNKNOWN
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, ChunkStore
from castore.digest import B3Digest
from castore.errors import CorruptBlobError, CorruptChunkError, OversizedFrameError
from castore.testing.blobs import EMPTY, P3M
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
from castore.threads.pool import Pool

chapter = Chapter()
clause = chapter.clause

_TWO_MIB: Final = 2 << 20


# -- reading --


@clause(needs=(ChunkSource,))
def chunk_source_reads_chunks(service: BlobService) -> None:
    """`get_chunks` gives the bytes of each listed chunk, and of a small blob, which is its own chunk."""
    source = capability_of(service, ChunkSource)
    small = fresh()
    metas = [ChunkMeta(service.write(small), len(small)), *(service.chunks(service.write(P3M.data)) or ())]
    digests = {meta.digest for meta in metas}
    expect("find_chunks() of chunks", source.find_chunks(iter([*digests, *digests])), digests)
    found = source.get_chunks({meta.digest: meta.size for meta in metas})
    expect("the digests that get_chunks() gives", set(found), digests)
    for digest, data in found.items():
        expect_that(isinstance(data, bytes), "get_chunks() to give bytes", data)
        expect("the digest of what get_chunks() gives", B3Digest.of(data), digest)  # type: ignore[arg-type]


@clause(needs=(ChunkSource,))
def chunk_source_leaves_out_the_absent(service: BlobService) -> None:
    """Of a batch, `get_chunks` gives the chunks that are there and no others, of known sizes or not."""
    source = capability_of(service, ChunkSource)
    known, unknown = fresh(100), fresh(200)
    here = [service.write(known), service.write(unknown)]
    sizes = {absent(): 5, here[0]: 100, absent(): None, here[1]: None, absent(): 0}
    expect("get_chunks()", source.get_chunks(sizes), dict(zip(here, (known, unknown), strict=True)))
    expect("find_chunks()", source.find_chunks(iter(sizes)), set(here))
    expect("get_chunks() of absent ones", source.get_chunks({absent(): None, absent(): 5}), {})
    expect("find_chunks() of absent ones", source.find_chunks([absent(), absent()]), set())


@clause(needs=(ChunkSource,))
def chunk_source_gives_wrong_sizes_as_errors(service: BlobService) -> None:
    """A chunk of another size has a `CorruptChunkError` for itself, or for less one of its kin."""
    source = capability_of(service, ChunkSource)
    right, more, less, none = (fresh(100) for _ in range(4))
    digests = [service.write(data) for data in (right, more, less, none)]
    found = source.get_chunks(dict(zip(digests, (100, 101, 99, 0), strict=True)))
    expect("the digests that get_chunks() has answers for", set(found), set(digests))
    expect("the one of the right size", found[digests[0]], right)
    kinds = (CorruptChunkError, CorruptBlobError, CorruptBlobError)
    for size, digest, kind in zip((101, 99, 0), digests[1:], kinds, strict=True):
        expect_that(
            isinstance(found[digest], kind), f"{kind.__name__} for {size} bytes of 100", found[digest]
        )


@clause(needs=(ChunkStore,))
def chunk_source_bounds_what_it_does_not_know(service: BlobService) -> None:
    """A chunk of more than 1 MiB is an `OversizedFrameError` if its size is not given, else it is there."""
    store = capability_of(service, ChunkStore)
    large, small = (fresh(64) + bytes(size - 64) for size in (MOST_UNKNOWN + 1, MOST_UNKNOWN))
    digests = list(chunks := named(large, small))
    store.put_chunks(chunks)
    found = store.get_chunks(dict.fromkeys(digests))
    error = found.get(digests[0])
    expect_that(isinstance(error, OversizedFrameError), "OversizedFrameError for more than 1 MiB", error)
    expect("get_chunks() of 1 MiB", found.get(digests[1]), small)
    expect("get_chunks() of a known size", store.get_chunks({digests[0]: len(large)}), {digests[0]: large})


# -- writing --


@clause(needs=(ChunkStore,))
def chunk_store_keeps_chunks(service: BlobService) -> None:
    """A chunk that was put, if only an empty one, is there, for all; its buffer may be used again."""
    store = capability_of(service, ChunkStore)
    data = fresh(3000)
    digest = B3Digest.of(data)
    buffer = bytearray(data)
    for _ in range(2):
        store.put_chunks({digest: memoryview(buffer)})
    buffer[:] = bytes(len(buffer))
    expect("find_chunks()", store.find_chunks((digest,)), {digest})
    expect("get_chunks()", store.get_chunks({digest: None}), {digest: data})
    expect("get_chunks() of its size", store.get_chunks({digest: 3000}), {digest: data})
    expect_stored(service, digest, data)
    store.put_chunks(named(b""))
    expect_stored(service, EMPTY.digest, b"")


@clause(needs=(ChunkStore,))
def chunk_store_shows_a_blob_by_its_index(service: BlobService) -> None:
    """A blob of chunks is absent until `put_indexes`, then whole, with the chunks that its index lists."""
    store = capability_of(service, ChunkStore)
    parts = [fresh(1000), fresh(20), fresh(500)]
    parts.append(parts[0])
    whole = b"".join(parts)
    store.put_chunks(named(*parts))
    blob = B3Digest.of(whole)
    expect_absent(service, blob)
    store.put_indexes({blob: metas_of(parts)})
    expect("chunks()", list(service.chunks(blob) or ()), metas_of(parts))
    expect_stored(service, blob, whole)


@clause(needs=(ChunkStore,))
def chunk_store_takes_no_index_for_a_chunk(service: BlobService) -> None:
    """`find_chunks`, `get_chunks` and `claim` do not count the index of a blob of several chunks."""
    store = capability_of(service, ChunkStore)
    parts = [fresh(1000), fresh(500)]
    blob = B3Digest.of(b"".join(parts))
    store.put_chunks(named(*parts))
    store.put_indexes({blob: metas_of(parts)})
    digests = [blob, *named(*parts)]
    expect("find_chunks()", store.find_chunks(digests), set(digests[1:]))
    expect("get_chunks()", store.get_chunks(dict.fromkeys(digests)), named(*parts))
    expect("claim()", store.claim(digests), set(digests[1:]))


@clause(needs=(ChunkStore,))
def chunk_store_takes_the_last_index(service: BlobService) -> None:
    """Other chunks for the same blob replace an index: who puts them knows that they make it up."""
    store = capability_of(service, ChunkStore)
    whole = fresh(2000)
    blob = B3Digest.of(whole)
    wrong, right = (whole[500:], whole[:500]), (whole[:500], whole[500:])
    for parts in (wrong, right, (whole[:700], whole[700:])):
        store.put_chunks(named(*parts))
        if parts is not wrong:
            expect("claim_blobs()", store.claim_blobs({blob: metas_of(parts)}), set())
        store.put_indexes({blob: metas_of(parts)})
        expect("chunks()", list(service.chunks(blob) or ()), metas_of(parts))
    expect_stored(service, blob, whole)


@clause(needs=(ChunkStore,))
def chunk_store_takes_small_blobs(service: BlobService) -> None:
    """An index of one chunk or none makes a blob of one chunk, or the empty blob, visible as a blob."""
    store = capability_of(service, ChunkStore)
    one, other = fresh(50), fresh(60)
    store.put_chunks(named(one, other))
    store.put_indexes({B3Digest.of(one): (), B3Digest.of(other): metas_of([other]), EMPTY.digest: ()})
    for data in (one, other, b""):
        blob = B3Digest.of(data)
        expect_stored(service, blob, data)
        found = service.chunks(blob)
        expect_that(found is not None and len(found) == 0, "chunks() to be empty", found)


@clause(needs=(ChunkStore,))
def chunk_store_takes_full_batches(service: BlobService) -> None:
    """A call takes 1,024 items, and answers for each of them, those that are there and those that are not."""
    store = capability_of(service, ChunkStore)
    # One of a request for each item would take minutes.
    parts = named(*(fresh(20) for _ in range(32 if store.high_latency else MOST_ITEMS)))
    half = list(parts)[: len(parts) // 2]
    expect("claim() of absent chunks", store.claim(iter(parts)), set())
    expect("claim_blobs() of absent blobs", store.claim_blobs(dict.fromkeys(parts, ())), set())
    store.put_chunks({digest: memoryview(parts[digest]) for digest in half})
    expect("find_chunks()", store.find_chunks(iter(parts)), set(half))
    expect("claim()", store.claim(iter([*parts])), set(half))
    expect("get_chunks()", store.get_chunks(dict.fromkeys(parts, 20)), {d: parts[d] for d in half})
    store.put_chunks(parts)
    expect("claim() of what was put", store.claim(iter(parts)), set(parts))
    store.put_indexes(dict.fromkeys(parts, ()))
    expect("missing()", service.missing(parts), set())
    expect("what read_many() yields", dict(service.read_many(parts)), parts)


@clause(needs=(ChunkStore,))
def chunk_store_takes_many_indexes(service: BlobService) -> None:
    """`put_indexes` makes all of its blobs visible, of one chunk and of several, and no others."""
    store = capability_of(service, ChunkStore)
    wholes = [fresh(50), fresh(3000), fresh(2000)]
    cut = {whole: [whole[start : start + 1000] for start in range(0, len(whole), 1000)] for whole in wholes}
    blobs = {B3Digest.of(whole): metas_of(parts) if len(parts) > 1 else [] for whole, parts in cut.items()}
    store.put_chunks(named(*(part for parts in cut.values() for part in parts)))
    for digest, metas in blobs.items():
        if metas:
            expect_absent(service, digest)
    store.put_indexes(blobs)
    for whole, (digest, metas) in zip(wholes, blobs.items(), strict=True):
        expect(f"chunks({digest})", list(service.chunks(digest) or ()), metas)
        expect_stored(service, digest, whole)


@clause(needs=(ChunkStore,))
def chunk_store_may_be_told_again(service: BlobService) -> None:
    """Repeating a call is harmless: the same answers, and the same blobs, whatever was done twice."""
    store = capability_of(service, ChunkStore)
    parts = [fresh(1000), fresh(500)]
    small = fresh(70)
    whole = b"".join(parts)
    blobs = {B3Digest.of(whole): metas_of(parts), B3Digest.of(small): []}
    chunks = named(*parts, small)
    for _ in range(2):
        store.put_chunks(chunks)
    for _ in range(2):
        expect("claim()", store.claim(chunks), set(chunks))
    for _ in range(2):
        store.put_indexes(blobs)
    answers = [store.claim_blobs(blobs) for _ in range(2)]
    expect("claim_blobs() again", answers[1], answers[0])
    store.put_chunks(chunks)
    store.put_indexes({})
    for data in (whole, small):
        expect_stored(service, B3Digest.of(data), data)


@clause(needs=(ChunkSource,))
def chunk_source_takes_empty_batches(service: BlobService) -> None:
    """A batch of nothing has the answer of nothing."""
    source = capability_of(service, ChunkSource)
    expect("find_chunks() of nothing", source.find_chunks(iter(())), set())
    expect("get_chunks() of nothing", source.get_chunks({}), {})


@clause(needs=(ChunkStore,))
def chunk_store_takes_empty_batches(service: BlobService) -> None:
    """A batch of nothing can be put and claimed."""
    store = capability_of(service, ChunkStore)
    for _ in range(2):
        store.put_chunks({})
        store.put_indexes({})
    expect("claim() of nothing", store.claim(iter(())), set())
    expect("claim_blobs() of nothing", store.claim_blobs({}), set())


@clause(needs=(ChunkSource,))
def single_chunks_agree_with_many(service: BlobService) -> None:
    """`has_chunk` and `get_chunk` say of one chunk what `find_chunks` and `get_chunks` say of many."""
    source = capability_of(service, ChunkSource)
    data = fresh(100)
    digest, gone = service.write(data), absent()
    for one in (digest, gone):
        expect(f"has_chunk({one})", source.has_chunk(one), one in source.find_chunks((digest, gone)))
        for size in (None, 100):
            many = source.get_chunks({digest: size, gone: size})
            expect(f"get_chunk({one}, {size})", source.get_chunk(one, size), many.get(one))


@clause(needs=(ChunkStore,))
def single_writes_agree_with_many(service: BlobService) -> None:
    """`put_chunk`, `put_index`, `claim_chunk` and `claim_blob` do for one what the others do for many."""
    store = capability_of(service, ChunkStore)
    parts = [fresh(1000), fresh(500)]
    blob, metas = B3Digest.of(b"".join(parts)), metas_of(parts)
    for meta, part in zip(metas, parts, strict=True):
        expect("claim_chunk() of an absent chunk", store.claim_chunk(meta.digest), False)
        store.put_chunk(meta.digest, part)
        expect("claim_chunk()", store.claim_chunk(meta.digest), True)
    expect("claim_blob() of an absent blob", store.claim_blob(blob), False)
    store.put_index(blob, metas)
    for chunks in (None, metas):
        expect("claim_blob()", store.claim_blob(blob, chunks), blob in store.claim_blobs({blob: chunks}))
    expect_stored(service, blob, b"".join(parts))


@clause(needs=(ChunkStore,))
def chunk_store_says_how_it_works(service: BlobService) -> None:
    """`new_chunker` cuts as stored blobs are cut; `pool`, `round` and `high_latency` are of their kinds."""
    store = capability_of(service, ChunkStore)
    data = fresh(_TWO_MIB)
    cuts = list(store.new_chunker().cut(memoryview(data)))
    found = service.chunks(service.write(data)) or ()
    expect("the sizes of the chunks", [meta.size for meta in found] or [len(data)], cuts)
    expect_that(isinstance(store.pool, Pool), "pool to be a Pool", store.pool)
    expect_that(1 <= store.round <= MOST_ITEMS, f"round to be 1 to {MOST_ITEMS}", store.round)
    expect_that(isinstance(store.high_latency, bool), "high_latency to be true or false", store.high_latency)
