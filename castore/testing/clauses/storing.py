"""What is stored is there, under its digest; what is not stored is not."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from castore.contract.batches import MOST_UNKNOWN
from castore.contract.blobs import BlobReader, BlobService
from castore.contract.capabilities import ChunkSource
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError
from castore.testing.blobs import BLOB_A, BLOB_B, EMPTY, HELLO, P3M, ZEROS_1M
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    expect,
    expect_raises,
    expect_stored,
    expect_that,
    fresh,
    reader_of,
)

chapter = Chapter()
clause = chapter.clause


@clause()
def absent_has_false(service: BlobService) -> None:
    """`has` is False for a digest that was never stored."""
    expect("has() of an absent blob", service.has(absent()), False)


@clause()
def absent_chunks_none(service: BlobService) -> None:
    """`chunks` is None for a digest that was never stored; an empty list would say that it is there."""
    expect("chunks() of an absent blob", service.chunks(absent()), None)


@clause()
def absent_open_read_none(service: BlobService) -> None:
    """`open_read` is None for a digest that was never stored."""
    expect("open_read() of an absent blob", service.open_read(absent()), None)


@clause()
def absent_read_raises(service: BlobService) -> None:
    """`read` of an absent blob raises `BlobNotFoundError`, which is a `KeyError` and names the digest."""
    digest = absent()
    error = expect_raises("read() of an absent blob", BlobNotFoundError, lambda: service.read(digest))
    expect("the digest in the error", error.digest, digest)


@clause()
def absent_open_raises(service: BlobService) -> None:
    """`open` of an absent blob raises `BlobNotFoundError`; of one that is there it is `open_read`."""
    digest = absent()
    error = expect_raises("open() of an absent blob", BlobNotFoundError, lambda: service.open(digest))
    expect("the digest in the error", error.digest, digest)
    data = fresh()
    with service.open(service.write(data)) as reader:
        expect("what open() opens", reader.read(), data)


@clause()
def put_then_get(service: BlobService) -> None:
    """A blob reads back byte for byte under its BLAKE3 digest, whether small or large."""
    for blob in (BLOB_A, HELLO, BLOB_B, ZEROS_1M, P3M):
        expect(f"the digest of {blob}", service.write(blob.data), blob.digest)
        expect_stored(service, blob.digest, blob.data)
        expect(f"read() of {blob}", service.read(blob.digest), blob.data)


@clause()
def put_twice(service: BlobService) -> None:
    """Storing a blob again changes nothing and gives the same digest."""
    data = fresh(10_000)
    digest = service.write(data)
    expect("the digest of the same bytes, stored again,", service.write(data), digest)
    expect_stored(service, digest, data)


@clause()
def empty_blob(service: BlobService) -> None:
    """The empty blob is a blob: once it is stored it is there, has no chunks, and reads as no bytes."""
    with service.open_write() as writer:
        expect("close() of a writer that took nothing", writer.close(), EMPTY.digest)
    expect_stored(service, EMPTY.digest, b"")
    expect("write(b'')", service.write(b""), EMPTY.digest)
    found = service.chunks(EMPTY.digest)
    expect_that(found is not None and len(found) == 0, "chunks() of the empty blob to be empty", found)
    with reader_of(service, EMPTY.digest) as reader:
        expect("the size of the empty blob", reader.size, 0)


@clause()
def many_blobs(service: BlobService) -> None:
    """Blobs do not get in each other's way, even if one is a part of another."""
    whole = fresh(3000)
    blobs = [whole, whole[:1000], whole[1000:], whole + whole, whole[:1], whole + b"\0"]
    digests = [service.write(data) for data in blobs]
    for data, digest in zip(blobs, digests, strict=True):
        expect("the digest that write() gave", digest, B3Digest.of(data))
        expect_stored(service, digest, data)


@clause()
def digest_is_a_value(service: BlobService) -> None:
    """A digest is its 32 bytes: one made anew, from any bytes-like object, names the same blob."""
    data = fresh()
    digest = service.write(data)
    expect_that(isinstance(digest, B3Digest), "write() to return a B3Digest", type(digest))
    for raw in (bytes(digest), bytearray(digest), memoryview(bytes(digest)), B3Digest.parse(digest.sri)):
        expect_stored(service, B3Digest(raw), data)


@clause()
def missing_tells_the_absent(service: BlobService) -> None:
    """`missing` returns a set of the digests that are absent, of any iterable, each once."""
    here = [service.write(fresh()) for _ in range(5)]
    gone = [absent() for _ in range(20 if service.high_latency else 300)]
    expect("missing() of some", service.missing(digest for digest in here + gone + gone), set(gone))
    expect("missing() of what is there", service.missing(here), set())
    expect("missing() of what is absent", service.missing(gone), set(gone))
    expect("missing() of nothing", service.missing([]), set())


@clause()
def missing_agrees_with_has(service: BlobService) -> None:
    """`missing` has those digests that `has` is false for, asked for one by one and together."""
    large = service.write(fresh(1_500_000))
    chunks = [meta.digest for meta in service.chunks(large) or ()]
    digests = [service.write(fresh()), large, *chunks, EMPTY.digest, absent(), absent()]
    denied = {digest for digest in digests if not service.has(digest)}
    expect("missing() of all", service.missing(digests), denied)
    for digest in digests:
        expect(f"missing() of {digest}", service.missing([digest]), {digest} & denied)


@clause()
def read_many_gives_each_once(service: BlobService) -> None:
    """`read_many` yields each digest once, with bytes, or a reader; `None` for what is absent."""
    blobs = {B3Digest.of(data): data for data in (fresh(), fresh(5000), fresh(1_500_000), b"")}
    for data in blobs.values():
        service.write(data)
    gone = [absent(), absent()]
    found: dict[B3Digest, object] = {}
    for digest, answer in service.read_many(iter([gone[0], *blobs, *gone, *blobs])):
        expect(f"whether read_many() yields {digest} again", digest in found, False)
        if isinstance(answer, BlobReader):
            expect("the size of its reader", answer.size, len(blobs.get(digest, b"")))
            with answer:
                found[digest] = answer.read()
        else:
            expect_that(answer is None or isinstance(answer, bytes), "bytes, a reader or None", answer)
            found[digest] = answer
    expect("the digests that read_many() yields", set(found), {*blobs, *gone})
    for digest, content in found.items():
        expect(f"what read_many() has for {digest}", content, blobs.get(digest))
    expect("read_many() of nothing", list(service.read_many([])), [])


@clause(needs=(ChunkSource,))
def read_many_gives_small_blobs_as_bytes(service: BlobService) -> None:
    """A service that keeps chunks gives a blob that is one chunk as bytes, and each chunk of a larger one."""
    data = fresh(5000)
    metas = service.chunks(service.write(P3M.data)) or ()
    digests = [service.write(data), *(meta.digest for meta in metas if meta.size <= MOST_UNKNOWN)]
    for digest, answer in service.read_many(digests):
        expect_that(isinstance(answer, bytes), "read_many() to give bytes", answer)
        expect("the digest of the bytes", B3Digest.of(answer), digest)  # type: ignore[arg-type]


@clause()
def close_twice(service: BlobService) -> None:
    """Closing a service again does nothing."""
    service.write(fresh())
    service.close()
    service.close()
