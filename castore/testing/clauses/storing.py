"""What is stored is there, under its digest; what is not stored is not."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from castore.contract.blobs import BlobService
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
    here = [service.write(fresh()) for _ in range(3)]
    gone = [absent() for _ in range(3)]
    expect("missing() of some", service.missing(digest for digest in here + gone + gone), set(gone))
    expect("missing() of what is there", service.missing(here), set())
    expect("missing() of what is absent", service.missing(gone), set(gone))
    expect("missing() of nothing", service.missing([]), set())


@clause()
def close_twice(service: BlobService) -> None:
    """Closing a service again does nothing."""
    service.write(fresh())
    service.close()
    service.close()
