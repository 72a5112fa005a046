"""A service is used by many threads at once. Nothing here waits for a clock."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from castore.contract.blobs import BlobService
from castore.digest import B3Digest
from castore.testing.clause import Chapter
from castore.testing.expecting import expect, expect_stored, fresh, in_threads, reader_of

chapter = Chapter()
clause = chapter.clause

_THREADS = 8


@clause()
def threads_write_one_blob(service: BlobService) -> None:
    """Eight threads that store the same bytes get the same digest, and one whole blob."""
    data = fresh(500_000)
    digests = in_threads(_THREADS, lambda _: service.write(data))
    expect("the digests", set(digests), {B3Digest.of(data)})
    expect_stored(service, B3Digest.of(data), data)


@clause()
def threads_write_many_blobs(service: BlobService) -> None:
    """Eight threads that store blobs of their own, with parts in common, get each their own."""
    common = fresh(300_000)
    blobs = [common + fresh(100_000) for _ in range(_THREADS)]

    def store(number: int) -> B3Digest:
        with service.open_write() as writer:
            for start in range(0, 400_000, 50_000):
                writer.write(blobs[number][start : start + 50_000])
            return writer.close()

    digests = in_threads(_THREADS, store)
    expect("the digests", digests, [B3Digest.of(data) for data in blobs])
    for digest, data in zip(digests, blobs, strict=True):
        expect_stored(service, digest, data)


@clause()
def threads_read_one_blob(service: BlobService) -> None:
    """Eight threads read one blob at once, from different places, each with a reader of its own."""
    data = fresh(1_000_000)
    digest = service.write(data)

    def read(number: int) -> None:
        at = number * 100_000
        with reader_of(service, digest) as reader:
            reader.seek(at)
            for start in range(at, len(data), 77_777):
                expect(f"77777 bytes at {start}", reader.read(77_777), data[start : start + 77_777])

    in_threads(_THREADS, read)


@clause()
def threads_read_what_others_write(service: BlobService) -> None:
    """What one thread has stored, another one finds; while a blob is written it is absent or whole."""
    data = fresh(500_000)
    digest = B3Digest.of(data)

    def write_or_read(number: int) -> None:
        if number % 2:
            service.write(data)
        else:
            reader = service.open_read(digest)
            if reader is not None:
                with reader:
                    expect("a blob that others are storing", reader.read(), data)
                return
            service.write(data)
        expect("has() of what this thread stored", service.has(digest), True)

    in_threads(_THREADS, write_or_read)
