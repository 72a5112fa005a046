"""The `memory` type: its URL form, and what is particular to blobs in a dictionary."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import castore
import castore_memory.config
from castore import ChunkMeta, Composition, CompositionError, CorruptChunkError, MissingChunkError
from castore.format.chunking import FastCdc2020
from castore.testing import CHUNKS, EMPTY, HELLO, P3M
from castore_memory.service import MemoryBlobService

WHOLE = castore.B3Digest.of(bytes(range(16)))


@pytest.mark.parametrize("url", ["memory:", "memory://", "MEMORY:"])
def test_url(url: str) -> None:
    """Both forms of the reference make a new, empty service."""
    blobs = castore.from_url(url)
    assert blobs.has(HELLO.digest) is False
    blobs.write(HELLO.data)
    assert blobs.read(HELLO.digest) == HELLO.data
    assert castore.from_url(url).has(HELLO.digest) is False


@pytest.mark.parametrize(
    "url",
    ["memory://foo", "memory:/", "memory:///", "memory:/foo", "memory:///foo", "memory:foo", "memory:?a=1"],
)
def test_url_with_an_address(url: str) -> None:
    """A memory service has no address; the error says what to write."""
    with pytest.raises(CompositionError, match="a memory service has no address"):
        castore.from_url(url)


@pytest.mark.parametrize("url", ["http://foo.example/test", "memory", "", "memory+file:x", "memoryx:"])
def test_url_of_something_else(url: str) -> None:
    """What is no URL of a service is refused."""
    with pytest.raises(CompositionError):
        castore.from_url(url)


def test_it_has_no_fields() -> None:
    """Any key but `type` is refused."""
    with pytest.raises(CompositionError, match="size"):
        Composition.from_mapping({"blobservices": {"root": {"type": "memory", "size": 5}}})


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    """The TOML at the head of the module is a composition."""
    text = textwrap.dedent((castore_memory.config.__doc__ or "").partition("::\n")[2])
    (tmp_path / "composition.toml").write_text(text)
    with Composition.from_toml(tmp_path / "composition.toml") as stores:
        assert isinstance(stores.blobs(), MemoryBlobService)


def test_the_empty_blob_must_be_put() -> None:
    """Unlike in an object store, the empty blob is not there by itself; one may put it in either way."""
    blobs = MemoryBlobService()
    assert blobs.open_read(EMPTY.digest) is None
    assert list(blobs.list_blobs()) == []
    blobs.put_index(EMPTY.digest, ())
    assert blobs.read(EMPTY.digest) == b""
    assert list(blobs.list_blobs()) == [EMPTY.digest]


def test_a_blob_whose_only_chunk_is_not_there_is_incomplete() -> None:
    """It is not the empty blob instead."""
    blobs = MemoryBlobService()
    blobs.put_index(HELLO.digest, ())
    with pytest.raises(MissingChunkError):
        blobs.read(HELLO.digest)
    assert not blobs.claim_blob(HELLO.digest)
    assert not blobs.has(EMPTY.digest)


def test_blobs_are_cut_as_elsewhere() -> None:
    """By default as the reference does; their chunks are shared, and can be opened."""
    blobs = MemoryBlobService()
    digest = blobs.write(P3M.data)
    chunks = blobs.chunks(digest) or ()
    assert [meta.size for meta in chunks] == list(FastCdc2020().cut(memoryview(P3M.data)))
    assert b"".join(blobs.read(meta.digest) for meta in chunks) == P3M.data
    assert list(blobs.list_blobs()) == [digest]


def test_an_index_without_its_chunk_is_corrupt() -> None:
    """A blob whose chunk never came says so when it is read there, and reads elsewhere."""
    blobs = MemoryBlobService()
    for chunk in CHUNKS[:-1]:
        blobs.put_chunk(chunk.digest, chunk.data)
    blobs.put_index(WHOLE, [chunk.meta for chunk in CHUNKS])
    with blobs.open_read(WHOLE) as reader:  # type: ignore[union-attr]
        assert reader.read(9) == bytes(range(9))
        with pytest.raises(MissingChunkError) as caught:
            reader.read(1)
    assert (caught.value.blob, caught.value.expected) == (WHOLE, CHUNKS[-1].digest)


def test_a_wrong_index_is_corrupt() -> None:
    """An index with a wrong size, or of other chunks, raises before a wrong byte is read."""
    blobs = MemoryBlobService()
    for chunk in CHUNKS:
        blobs.put_chunk(chunk.digest, chunk.data)
    blobs.put_index(WHOLE, [CHUNKS[0].meta, ChunkMeta(CHUNKS[1].digest, 5)])
    with blobs.open_read(WHOLE) as reader:  # type: ignore[union-attr]
        reader.seek(2)
        with pytest.raises(CorruptChunkError, match=r"4 bytes.*says 5"):
            reader.read(1)
    blobs.put_index(HELLO.digest, [CHUNKS[0].meta, CHUNKS[1].meta])
    with pytest.raises(castore.CorruptBlobError, match=str(HELLO.digest)):
        blobs.read(HELLO.digest)


def test_readers_see_no_later_change() -> None:
    """A reader keeps the bytes that were there when it was opened."""
    blobs = MemoryBlobService()
    blobs.put_chunk(HELLO.digest, bytearray(HELLO.data))
    with blobs.open_read(HELLO.digest) as reader:  # type: ignore[union-attr]
        blobs.put_chunk(HELLO.digest, b"other bytes!")
        assert reader.read() == HELLO.data
