"""A list of chunks says what a blob is made of."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from collections.abc import Sequence

from castore.contract.blobs import BlobService, ChunkMeta
from castore.digest import B3Digest
from castore.testing.blobs import BLOB_A, BLOB_B, EMPTY, P3M, ZEROS_1M
from castore.testing.clause import Chapter
from castore.testing.expecting import expect, expect_that, fresh, reader_of

chapter = Chapter()
clause = chapter.clause


def _chunks(service: BlobService, data: bytes) -> Sequence[ChunkMeta]:
    found = service.chunks(service.write(data))
    expect_that(found is not None, "chunks() of a blob that is there to be a list", "None")
    return found or ()


@clause()
def chunks_none_or_several(service: BlobService) -> None:
    """`chunks` of a blob has no entries, or at least two: a blob is never one chunk of itself."""
    for blob in (EMPTY, BLOB_A, BLOB_B, ZEROS_1M, P3M):
        found = _chunks(service, blob.data)
        expect_that(len(found) != 1, f"chunks() of {blob} to have no entries, or two and more", found)


@clause()
def chunks_make_up_the_blob(service: BlobService) -> None:
    """The chunks of a blob are its bytes, in order: their digests and sizes are right."""
    for data in (BLOB_B.data, ZEROS_1M.data, P3M.data, fresh(2_000_000)):
        end = 0
        for number, chunk in enumerate(found := _chunks(service, data)):
            part = data[end : end + chunk.size]
            expect(f"the digest of chunk #{number} of {len(found)}", chunk.digest, B3Digest.of(part))
            end += chunk.size
        expect("the sizes of the chunks, added up,", end, len(data) if found else 0)


@clause()
def chunks_can_be_read(service: BlobService) -> None:
    """Each listed chunk is there for `has`, opens by its digest, and has no finer chunks itself."""
    for data in (BLOB_B.data, P3M.data):
        for chunk in _chunks(service, data):
            expect(f"has() of the chunk {chunk.digest}", service.has(chunk.digest), True)
            with reader_of(service, chunk.digest) as reader:
                expect("the size of its reader", reader.size, chunk.size)
                expect("the digest of its bytes", B3Digest.of(reader.read()), chunk.digest)
            found = service.chunks(chunk.digest)
            expect_that(found is not None and len(found) == 0, "chunks() of a chunk to be empty", found)
