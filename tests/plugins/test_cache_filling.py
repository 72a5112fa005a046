"""What a cache reads from far stays in near: which chunks move, when the blob appears."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    ChunkMeta,
    CorruptBlobError,
    CorruptChunkError,
    MissingChunkError,
)
from castore.composites.members import Member
from castore.contract.capabilities import ChunkSource, ChunkStore
from castore.streams.readers import BytesReader
from castore.testing import EMPTY, HELLO, P3M
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService

BIG = P3M.data + P3M.data[: 2 << 20]
"""More than what a cache fetches whole."""
BIG_DIGEST = B3Digest.of(BIG)


def capabilities(service: BlobService) -> Any:
    return service.capability(ChunkStore) or service.capability(ChunkSource)


class TestFilling:
    """What is read from far stays in near, chunk by chunk."""

    def test_one_byte_moves_one_chunk(
        self, cache: CacheBlobService, near_store: Any, far_store: Any, near: Any, key_of: Any
    ) -> None:
        """For a byte of a large blob, its index and the one chunk come from far; the chunk stays in near."""
        chunk = far_chunk = None
        with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            assert far_store.requests == [("GET", key_of("blobs", P3M.digest))]
            reader.seek(1_000_000)
            assert reader.read(1) == P3M.data[1_000_000:1_000_001]
            chunk = B3Digest.of(P3M.data[486450:1010738])
            far_chunk = key_of("chunks", chunk)
        assert far_store.requests[1:] == [("GET", far_chunk)]
        assert far_store.received == 320 + len(far_store.objects[far_chunk])
        assert list(near_store.objects) == [far_chunk]
        assert near.has(chunk) is True
        assert near.has(P3M.digest) is False

    def test_a_full_read_moves_the_rest(
        self, cache: CacheBlobService, near: Any, far: Any, near_store: Any, far_store: Any, key_of: Any
    ) -> None:
        """A later read of all moves the other chunks only; then near has the blob, cut as in far."""
        with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            reader.seek(1_000_000)
            reader.read(1)
        far_store.take_requests()
        assert cache.read(P3M.digest) == P3M.data
        assert far_store.take_requests() == ["GET blobs"] + ["GET chunks"] * 7
        index = key_of("blobs", P3M.digest)
        assert near_store.objects[index] == far_store.objects[index]
        assert near.chunks(P3M.digest) == far.chunks(P3M.digest)
        far_store.take_requests()
        assert cache.read(P3M.digest) == P3M.data
        assert far_store.take_requests() == []

    def test_a_small_blob(self, cache: CacheBlobService, near: Any, far_store: Any) -> None:
        """A blob of one chunk is in near, as a blob, as soon as it is opened."""
        with cache.open_read(HELLO.digest) as reader:  # type: ignore[union-attr]
            assert reader.read() == HELLO.data
        assert far_store.take_requests() == ["GET blobs", "GET chunks"]
        assert list(near.list_blobs()) == [HELLO.digest]
        assert cache.read(HELLO.digest) == HELLO.data
        assert far_store.take_requests() == []

    def test_the_empty_blob(self, far: Any) -> None:
        """The empty blob is kept, too."""
        near = MemoryBlobService()
        far.write(b"")
        cache = CacheBlobService(near, far)
        assert cache.read(EMPTY.digest) == b""
        assert near.read(EMPTY.digest) == b""

    def test_a_chunk_by_its_digest(self, cache: CacheBlobService, near: Any, far: Any) -> None:
        """A chunk can be opened as a blob, and stays in near."""
        chunk = far.chunks(P3M.digest)[4]
        assert cache.has(chunk.digest) is True
        assert B3Digest.of(cache.read(chunk.digest)) == chunk.digest
        assert near.has(chunk.digest) is True

    @pytest.mark.parametrize("order", ["reverse", "random"])
    def test_reads_in_any_order_complete_it(
        self, cache: CacheBlobService, near: Any, far: Any, order: str
    ) -> None:
        """When the last chunk has come, in whatever order, near has the blob as the reader closes."""
        starts = list(range(0, P3M.size, 100_000))
        starts.reverse()
        if order == "random":
            random.Random(5).shuffle(starts)
        with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            for start in starts:
                reader.seek(start)
                assert reader.read(10) == P3M.data[start : start + 10]
            assert near.has(P3M.digest) is False
        assert near.chunks(P3M.digest) == far.chunks(P3M.digest)
        assert near.read(P3M.digest) == P3M.data

    def test_several_readers_complete_it(self, cache: CacheBlobService, near: Any) -> None:
        """Two readers, half a blob each: the second one to close finds near complete."""
        half = sum(chunk.size for chunk in (cache.chunks(P3M.digest) or ())[:4])
        with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            reader.read(half)
        assert near.has(P3M.digest) is False
        with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            reader.seek(half)
            reader.read()
        assert near.read(P3M.digest) == P3M.data

    def test_a_blob_that_shares_chunks(self, near: Any, far: Any, far_store: Any) -> None:
        """Chunks that near has of another blob are not fetched again, and do not make a blob of it."""
        other = P3M.data + b"and more"
        far.write(P3M.data)
        digest = far.write(other)
        cache = CacheBlobService(near, far)
        cache.read(P3M.digest)
        far_store.take_requests()
        assert near.has(digest) is False
        assert cache.read(digest) == other
        assert far_store.take_requests() == ["GET blobs", "GET chunks"]

    def test_many_threads_at_once(self, cache: CacheBlobService, near: Any) -> None:
        """Eight cold readers get the same bytes; near has the blob once."""
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: cache.read(P3M.digest), range(8)))
        assert found == {P3M.data}
        assert near.read(P3M.digest) == P3M.data


class TestForgeries:
    """What is wrong in far is told, and never gets into near."""

    def forge(self, far_store: Any, far: Any, key_of: Any, index_of: Any) -> Sequence[ChunkMeta]:
        """Swap two chunks of the same size in far's index: each chunk is good, the blob is not."""
        chunks = list(far.chunks(P3M.digest))
        assert chunks[1].size == chunks[5].size
        chunks[1], chunks[5] = chunks[5], chunks[1]
        index = index_of(*((chunk.digest, chunk.size) for chunk in chunks))
        far_store.objects[key_of("blobs", P3M.digest)] = index
        return chunks

    def test_read_from_start_to_end(
        self, cache: CacheBlobService, near: Any, far: Any, far_store: Any, key_of: Any, index_of: Any
    ) -> None:
        """A forged index fails the read, and near gets no blob."""
        self.forge(far_store, far, key_of, index_of)
        with pytest.raises(CorruptBlobError, match=str(P3M.digest)):
            cache.read(P3M.digest)
        assert list(near.list_blobs()) == []

    def test_read_in_another_order(
        self, cache: CacheBlobService, near: Any, far: Any, far_store: Any, key_of: Any, index_of: Any
    ) -> None:
        """Nor if it is read in pieces, so that nobody sees the whole: near checks before it believes."""
        chunks = self.forge(far_store, far, key_of, index_of)
        with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            starts = [sum(chunk.size for chunk in chunks[:number]) for number in range(8)]
            for start in reversed(starts):
                reader.seek(start)
                reader.read(1)
        assert all(near.has(chunk.digest) for chunk in chunks)
        assert list(near.list_blobs()) == []

    def test_a_bad_chunk(
        self, cache: CacheBlobService, near: Any, far: Any, far_store: Any, key_of: Any, frame_of: Any
    ) -> None:
        """A chunk of far that is damaged is an error that names far's key; near does not keep it."""
        chunk = far.chunks(P3M.digest)[2]
        key = key_of("chunks", chunk.digest)
        far_store.objects[key] = frame_of(bytes(chunk.size))
        with pytest.raises(CorruptChunkError, match=key):
            cache.read(P3M.digest)
        assert near.has(chunk.digest) is False
        del far_store.objects[key]
        with pytest.raises(MissingChunkError, match=str(P3M.digest)):
            cache.read(P3M.digest)

    def test_a_bad_index(self, cache: CacheBlobService, near_store: Any, far_store: Any, key_of: Any) -> None:
        """An index of far that is damaged is told, and nothing is taken from it."""
        far_store.objects[key_of("blobs", P3M.digest)] = b"\xff"
        for call in (cache.open_read, cache.chunks):
            with pytest.raises(CorruptBlobError, match=key_of("blobs", P3M.digest)):
                call(P3M.digest)
        assert near_store.objects == {}

    @pytest.mark.parametrize("inner", ["memory", "smallest"])
    @pytest.mark.parametrize("size", [12, 5 << 20])
    def test_a_service_that_lies(self, smallest: Any, inner: str, size: int) -> None:
        """Wrong bytes of a far without chunks are told before the last one comes out, and not kept."""
        near = MemoryBlobService() if inner == "memory" else smallest()
        far = smallest()
        digest, lie = B3Digest.of(bytes(size)), b"x" * size
        far.blobs[digest] = lie
        cache = CacheBlobService(near, far)
        with pytest.raises(CorruptBlobError) as caught:
            cache.read(digest)
        assert (caught.value.expected, caught.value.found) == (digest, B3Digest.of(lie))
        with pytest.raises(CorruptBlobError):
            capabilities(cache).get_chunk(digest)
        assert near.has(digest) is False
        assert near.has(B3Digest.of(lie)) is False

    def test_a_service_that_stops_early(self, smallest: Any) -> None:
        """A far whose bytes end before the size that it gave is corrupt, not endless."""

        class Short(smallest):
            def open_read(self, digest: B3Digest) -> BlobReader | None:
                class Reader(BytesReader):
                    size = len(BIG) + 5  # type: ignore[assignment]

                    def readinto(self, buffer: Any, /) -> int:
                        count = min(len(buffer), len(BIG) - self._position)
                        buffer[:count] = BIG[self._position : self._position + count]
                        self._position += count
                        return count

                return Reader(BIG)

        far = Short()
        far.blobs[BIG_DIGEST] = b""
        with pytest.raises(CorruptBlobError, match="ends at 5242880, before its size of 5242885"):
            CacheBlobService(MemoryBlobService(), far).read(BIG_DIGEST)


class TestFarWithoutChunks:
    """A far that keeps blobs whole."""

    @pytest.fixture
    def far(self, smallest: Any) -> Any:  # type: ignore[override]
        far = smallest()
        for data in (HELLO.data, P3M.data, BIG):
            far.write(data)
        return far

    def test_up_to_four_megabytes(self, near: Any, far: Any) -> None:
        """A blob of up to 4 MiB is fetched whole when it is opened, and becomes one chunk of near."""
        cache = CacheBlobService(near, far)
        with cache.open_read(P3M.digest):
            pass
        assert near.chunks(P3M.digest) == ()
        assert cache.read(P3M.digest) == P3M.data
        assert far.reads == 1

    def test_larger_ones_are_copied_while_read(self, near: Any, far: Any) -> None:
        """A larger one is stored in near as it is read, and is there, cut by near, at its end."""
        cache = CacheBlobService(near, far)
        with cache.open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            got = reader.read(len(BIG) - 1)
            got += reader.read(1)
        assert got == BIG
        assert near.read(BIG_DIGEST) == BIG
        assert len(near.chunks(BIG_DIGEST)) > 40
        far.reads = 0
        assert cache.read(BIG_DIGEST) == BIG
        assert far.reads == 0

    def test_it_appears_when_it_is_complete(self, near: Any, far: Any) -> None:
        """Until the last piece is read, near does not have it."""
        with CacheBlobService(near, far).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            reader.read(4 << 20)
            assert near.has(BIG_DIGEST) is False
            reader.read()
            assert near.has(BIG_DIGEST) is True

    @pytest.mark.parametrize("what", ["stop", "skip", "end first"])
    def test_a_partial_read_is_dropped(self, near: Any, far: Any, what: str) -> None:
        """If the reader does not read it all, in order, near gets nothing; far's bytes are right anyhow."""
        cache = CacheBlobService(near, far)
        with cache.open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            if what == "end first":
                reader.seek(4 << 20)
                assert reader.read() == BIG[4 << 20 :]
                reader.seek(0)
                assert reader.read(1 << 20) == BIG[: 1 << 20]
            else:
                assert reader.read(2 << 20) == BIG[: 2 << 20]
            if what == "skip":
                reader.seek(3 << 20)
                assert reader.read() == BIG[3 << 20 :]
        assert list(near.list_blobs()) == []
        assert cache.read(BIG_DIGEST) == BIG

    def test_seeks_back_do_no_harm(self, near: Any, far: Any) -> None:
        """A look back on the way does not spoil the copy."""
        with CacheBlobService(near, far).open_read(BIG_DIGEST) as reader:  # type: ignore[union-attr]
            reader.read(3 << 20)
            reader.seek(5)
            assert reader.read(5) == BIG[5:10]
            reader.seek(3 << 20)
            assert reader.read() == BIG[3 << 20 :]
        assert near.read(BIG_DIGEST) == BIG

    def test_chunks_of_near_are_used(self, far: Any) -> None:
        """A single chunk is read through the cache, checked, and kept."""
        near = MemoryBlobService()
        source = capabilities(CacheBlobService(near, far))
        assert source.get_chunk(HELLO.digest) == HELLO.data
        assert source.get_chunk(P3M.digest, P3M.size) == P3M.data
        assert near.has_chunk(HELLO.digest)
        assert near.has_chunk(P3M.digest)


class TestNearWithoutChunks:
    """A near that keeps blobs whole."""

    def test_a_full_read_stores_the_blob(self, smallest: Any, far: Any) -> None:
        """Chunks are kept as blobs of their own, and once all are there, so is the blob."""
        far.write(P3M.data)
        near = smallest()
        cache = CacheBlobService(near, far)
        assert cache.read(P3M.digest) == P3M.data
        assert near.blobs[P3M.digest] == P3M.data
        assert set(near.blobs) == {P3M.digest, *(chunk.digest for chunk in far.chunks(P3M.digest))}

    def test_a_partial_read_stores_chunks(self, smallest: Any, far: Any, far_store: Any) -> None:
        """What was read in part is not read from far again."""
        far.write(P3M.data)
        near = smallest()
        cache = CacheBlobService(near, far)
        for expected in (["GET blobs", "GET chunks"], ["GET blobs"]):
            far_store.take_requests()
            with cache.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
                assert reader.read(10) == P3M.data[:10]
            assert far_store.take_requests() == expected
        assert P3M.digest not in near.blobs


def test_near_gets_no_index_where_it_does_not_write_the_chunks(far: Any) -> None:
    """A near of several services can read what the one that it writes to lacks."""
    first, second = MemoryBlobService(), MemoryBlobService()
    near = FallbackBlobService([Member("first", first), Member("second", second)], write_to="first")
    digest = far.write(P3M.data)
    lacking = far.chunks(digest)[3]
    second.write(far.read(lacking.digest))
    with CacheBlobService(near, far) as cache:
        assert cache.read(digest) == P3M.data
        assert not first.has(lacking.digest)
        assert first.chunks(digest) is None
        assert cache.read(digest) == P3M.data
