"""The reference's test vectors on each kind of stack: blobs, their digests and chunks, and seeks in them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, ChunkedReader, Composition, MissingChunkError
from castore.contract.capabilities import ChunkStore
from castore.format import blob_index as index
from castore.testing import BLOB_A, BLOB_B, BLOBS, CHUNKS, EMPTY, HELLO, P3M, ZEROS_1M, Blob

MEMORY: Final = {"type": "memory"}
FOLDER: Final = {"type": "objectstore", "object_store_url": "file:./store"}
BUCKET: Final = {"type": "objectstore", "object_store_url": "memory:"}

STACKS: Final[dict[str, dict[str, Any]]] = {
    "memory": {"root": MEMORY},
    "objectstore+file": {"root": FOLDER},
    "objectstore+memory": {"root": BUCKET},
    "cache-of-two": {
        "root": {"type": "cache", "near": "&near", "far": "&far", "write": "far"},
        "near": {**FOLDER, "avg_chunk_size": 65536},
        "far": BUCKET,
    },
}
CHUNKING: Final = [name for name in STACKS if name != "memory"]

# By name: the lengths of the chunks, the beginnings of their digests, and the BLAKE3 or SHA-256 of the index.
CUT: Final = {
    "BLOB_B": (
        [524288, 520192],
        ["79445f0f", "832c7fbd"],
        "79d76c4088d8f89dcb11156aa5c44b1c0af22f6f7f7a2d5b55d6d12452f885c4",
    ),
    "ZEROS_1M": (
        [524288, 524288],
        ["934d6b7a", "934d6b7a"],
        "1e44b324f989214d7e5dac21d6eb812ff01ea55a697826a7672aa075e21597f2",
    ),
    "P3M": (
        [486450, 524288, 241210, 314451, 417161, 524288, 524288, 113592],
        ["0e1707f8", "b0e75a92", "ee28b02f", "90d917ae", "701c3a02", "adc68184", "9a1e901b", "387fd1e1"],
        "38f7a9a1d42e40f22d9bc98a009a8f0d2c7f7af45a079e5c90e661dc59ff98d7",
    ),
}
SMALL_INDEX: Final = "f0f62c95cc199aad523b236045d34161544a28e1be4e9dba39c59de1ca0e15cf"
SMALL_DIGESTS: Final = [
    "0abfc39ca21da1f566395b17434064716c0df63d6fe93c961bc2e1718af7f5b3",
    *["6e046c25f016f4fe86a1663c5bff6f97cd8617411ca9a65024e220fcc1bb0592"] * 818,
    "00d7d8c60c21348feaa8a9ecf506f689b9eb5212ebb3f2aeece0567ed3cdb07c",
]


def opened(tables: dict[str, Any], base: Path) -> Composition:
    return Composition.from_mapping({"blobservices": tables}, base=base)


@pytest.fixture(params=STACKS)
def blobs(request: Any, tmp_path: Path) -> Iterator[BlobService]:
    """An empty stack of each kind."""
    with opened(STACKS[request.param], tmp_path) as stores:
        yield stores.blobs()


@pytest.fixture(params=CHUNKING)
def cutting(request: Any, tmp_path: Path) -> Iterator[BlobService]:
    """An empty stack of each kind that cuts blobs."""
    with opened(STACKS[request.param], tmp_path) as stores:
        yield stores.blobs()


# -- blobs --


@pytest.mark.parametrize("blob", [BLOB_A, BLOB_B, HELLO, ZEROS_1M, P3M], ids=str)
def test_what_was_never_stored_is_absent(blobs: BlobService, blob: Blob) -> None:
    assert blobs.has(blob.digest) is False
    assert blobs.chunks(blob.digest) is None
    assert blobs.open_read(blob.digest) is None


@pytest.mark.parametrize("blob", BLOBS, ids=str)
def test_put_has_get(blobs: BlobService, blob: Blob) -> None:
    """A write takes all bytes, `close` gives the known digest, again when called again; all comes back."""
    with blobs.open_write() as writer:
        assert writer.write(blob.data) == blob.size
        assert writer.close() == blob.digest
        assert writer.close() == blob.digest

    assert blobs.has(blob.digest) is True
    for _ in range(2):  # of a cache first from far, then from near
        reader = blobs.open_read(blob.digest)
        assert reader is not None
        with reader:
            assert (reader.size, reader.read()) == (blob.size, blob.data)


def test_the_example_of_the_reference(blobs: BlobService) -> None:
    digest = "41f8394111eb713a22165c46c90ab8f0fd9399c92028fd6d288944b23ff5bf76"
    assert str(blobs.write(b"Hello World")) == digest
    assert blobs.read(B3Digest.parse(digest)) == b"Hello World"


def test_seek(blobs: BlobService) -> None:
    """From place to place in a large blob, as the reference's own test goes, to the end of it."""
    blobs.write(BLOB_B.data)
    reader = blobs.open_read(BLOB_B.digest)
    assert reader is not None
    with reader:
        assert reader.read(10) == bytes(range(10))
        assert (reader.seek(10), reader.read(10)) == (10, bytes(range(10, 20)))
        assert (reader.seek(25), reader.read(10)) == (25, bytes(range(25, 35)))
        assert reader.seek(12345, io.SEEK_CUR) == 12380
        assert reader.read(10) == bytes(range(0x8C, 0x96))
        assert (reader.seek(BLOB_B.size), reader.read(1)) == (BLOB_B.size, b"")
        with pytest.raises(OSError, match="beyond the end"):
            reader.seek(BLOB_B.size + 1)
        assert reader.tell() == BLOB_B.size


# -- chunks --


@pytest.mark.parametrize("blob", [EMPTY, BLOB_A, HELLO], ids=str)
def test_a_small_blob_has_no_finer_chunks(blobs: BlobService, blob: Blob) -> None:
    chunks = blobs.chunks(blobs.write(blob.data))
    assert chunks is not None
    assert list(chunks) == []


@pytest.mark.parametrize("blob", [BLOB_B, ZEROS_1M, P3M], ids=str)
def test_where_a_blob_is_cut(cutting: BlobService, blob: Blob) -> None:
    """The chunks have the known lengths and digests, and their list is the known bytes."""
    lengths, digests, known = CUT[str(blob)]
    chunks = cutting.chunks(cutting.write(blob.data))
    assert chunks is not None
    assert [chunk.size for chunk in chunks] == lengths
    assert [str(chunk.digest)[:8] for chunk in chunks] == digests
    encoded = index.encode(chunks)
    assert known in {str(B3Digest.of(encoded)), hashlib.sha256(encoded).hexdigest()}
    for chunk in chunks:
        assert B3Digest.of(cutting.read(chunk.digest)) == chunk.digest


@pytest.mark.parametrize(
    ("size", "lengths"),
    [(131072, []), (131073, []), (524288, [486450, 37838]), (524289, [486450, 37839])],
)
def test_where_the_beginning_of_a_blob_is_cut(cutting: BlobService, size: int, lengths: list[int]) -> None:
    chunks = cutting.chunks(cutting.write(P3M.data[:size]))
    assert chunks is not None
    assert [chunk.size for chunk in chunks] == lengths


@pytest.mark.parametrize("stack", CHUNKING)
def test_small_chunks(stack: str, tmp_path: Path) -> None:
    """At an average of 1 KiB the large vector has 820 chunks, of which three differ; the small one none."""
    tables = {
        name: {**table, "avg_chunk_size": 1024} if table["type"] == "objectstore" else table
        for name, table in STACKS[stack].items()
    }
    with opened(tables, tmp_path) as stores:
        blobs = stores.blobs()
        assert blobs.chunks(blobs.write(BLOB_A.data)) == ()
        chunks = blobs.chunks(blobs.write(BLOB_B.data))
        assert chunks is not None
        assert [chunk.size for chunk in chunks] == [1130, *[1275] * 818, 400]
        assert [str(chunk.digest) for chunk in chunks] == SMALL_DIGESTS
        assert str(B3Digest.of(index.encode(chunks))) == SMALL_INDEX
        assert blobs.read(BLOB_B.digest) == BLOB_B.data


# -- the reader of a list of chunks --


def reader_of(blobs: BlobService, *, stored: int = 5) -> ChunkedReader:
    """A reader of the bytes 0 to 15, of whose five chunks the service has the first *stored*."""
    for chunk in CHUNKS[:stored]:
        assert blobs.write(chunk.data) == chunk.digest
    return ChunkedReader(blobs, [chunk.meta for chunk in CHUNKS])


def test_read_of_a_list(blobs: BlobService) -> None:
    with reader_of(blobs) as reader:
        assert reader.size == 16
        assert reader.read() == bytes(range(16))


def test_seek_in_a_list(blobs: BlobService) -> None:
    with reader_of(blobs) as reader:
        assert (reader.seek(0, io.SEEK_END), reader.read()) == (16, b"")
        assert (reader.seek(-1, io.SEEK_END), reader.read()) == (15, b"\x0f")
        assert (reader.seek(-3, io.SEEK_CUR), reader.read(2)) == (13, b"\x0d\x0e")


@pytest.mark.parametrize(
    ("offset", "whence"), [(17, 0), (1, 2), (-17, 2), (-6, 1), (12, 1), (1 << 70, 0), (-1, 0)]
)
def test_a_seek_out_of_a_list_is_refused(blobs: BlobService, offset: int, whence: int) -> None:
    """And the position stays."""
    with reader_of(blobs) as reader:
        reader.seek(5)
        with pytest.raises(OSError, match=r"before the start|beyond the end"):
            reader.seek(offset, whence)
        assert (reader.tell(), reader.read(1)) == (5, b"\x05")


def test_missing_chunks_of_a_list(blobs: BlobService) -> None:
    """What is there can be read; a chunk that is not is an error when it is needed, not before."""
    with reader_of(blobs, stored=2) as reader:
        assert reader.read(5) == bytes(range(5))
        assert reader.seek(2, io.SEEK_CUR) == 7
        with pytest.raises(MissingChunkError) as caught:
            reader.read(1)
    assert caught.value.expected == CHUNKS[3].digest


def test_chunks_and_an_index_that_were_put_one_by_one(cutting: BlobService) -> None:
    """They are a blob as any other."""
    store = cutting.capability(ChunkStore)
    assert store is not None
    whole = B3Digest.of(bytes(range(16)))
    for chunk in CHUNKS:
        store.put_chunk(chunk.digest, chunk.data)
    store.put_index(whole, [chunk.meta for chunk in CHUNKS])
    assert cutting.read(whole) == bytes(range(16))
