"""Chunks from what is made for that, or read as blobs: checked either way, and no larger than chunks are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

import pytest

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.chunks.fetching import find_chunk, find_in, missing_chunk
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.errors import (
    CastoreError,
    CorruptChunkError,
    MissingChunkError,
    OversizedFrameError,
    UnavailableError,
)
from castore.format.chunking import MAX_CHUNK_SIZE
from castore.streams.readers import BytesReader

ONE, TWO = b"one chunk", b"another chunk"
D1, D2, ABSENT = B3Digest.of(ONE), B3Digest.of(TWO), B3Digest.of(b"absent")


class Whole(BlobService):
    """Keeps blobs whole; what it has under a digest need not fit it."""

    def __init__(self, **_: object) -> None:
        self.held: dict[B3Digest, bytes | BlobReader | CastoreError] = {D1: ONE, D2: TWO}
        self.readers: list[BlobReader] = []
        self.at_once = self.most_at_once = 0
        self.seconds = 0.0
        self._lock = threading.Lock()

    def has(self, digest: B3Digest) -> bool:
        return digest in self.held

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        data = self.held.get(digest)
        if data is None:
            return None
        if isinstance(data, CastoreError):
            raise data
        self.readers.append(BytesReader(data) if isinstance(data, bytes) else data)
        return self.readers[-1]

    def open_write(self) -> BlobWriter:
        raise NotImplementedError


class Source(ChunkSource):
    """Gives what it was told to."""

    def __init__(self, found: FoundChunks, error: Exception | None = None) -> None:
        self.found = found
        self.error = error
        self.asked: list[dict[B3Digest, int | None]] = []

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        raise NotImplementedError

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        self.asked.append(dict(sizes))
        if self.error is not None:
            raise self.error
        return dict(self.found)

    def chunk_key(self, digest: B3Digest) -> str | None:
        return f"chunks/{digest}"


class Endless(BytesReader):
    """Says that it is as large as it is told to say, and may not be read."""

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def piece_at(self, position: int) -> memoryview:
        raise AssertionError("nothing of it may be read")


def shown(found: FoundChunks) -> dict[B3Digest, object]:
    """What was found, errors by their classes."""
    return {digest: data if isinstance(data, bytes) else type(data) for digest, data in sorted(found.items())}


DOWN = UnavailableError("far", "down")

# What is held under the first digest, the size that is asked for, and what comes of it.
AS_BLOBS: dict[str, tuple[object, int | None, object]] = {
    "right": (ONE, len(ONE), ONE),
    "of no known size": (ONE, None, ONE),
    "of another size": (ONE, 5, CorruptChunkError),
    "other bytes": (b"evil", 4, CorruptChunkError),
    "other bytes of no known size": (b"evil", None, CorruptChunkError),
    "far larger than is said": (lambda: Endless(1 << 60), len(ONE), CorruptChunkError),
    "larger than any chunk": (lambda: Endless(MAX_CHUNK_SIZE + 1), None, OversizedFrameError),
    "unavailable": (DOWN, None, UnavailableError),
}


class TestAsBlobs:
    @pytest.mark.parametrize("case", AS_BLOBS)
    @pytest.mark.parametrize("high_latency", [False, True])
    def test_each_is_checked_and_what_is_wrong_with_one_is_its_own(
        self, case: str, high_latency: bool
    ) -> None:
        """The others come; what is absent is left out."""
        held, size, expected = AS_BLOBS[case]
        service = Whole()
        service.high_latency = high_latency
        service.held[D1] = held() if callable(held) else held  # type: ignore[assignment]
        found = find_in(service, None, {D1: size, ABSENT: None, D2: None})
        assert shown(found) == {D1: expected, D2: TWO}
        assert all(reader.closed for reader in service.readers)

    @pytest.mark.parametrize(("high_latency", "most"), [(False, 1), (True, 16)])
    def test_some_are_read_at_once_where_that_mostly_waits(self, high_latency: bool, most: int) -> None:
        service = Whole()
        service.high_latency, service.seconds = high_latency, 0.01
        parts = [bytes([number]) for number in range(40)]
        service.held = {B3Digest.of(part): part for part in parts}
        found = find_in(service, None, dict.fromkeys(service.held))
        assert found == service.held
        assert service.most_at_once == most


OVERSIZED = OversizedFrameError("too large", expected=D1)

# What the source gives for the first digest, the size that is asked for, and what comes of it.
FROM_SOURCES: dict[str, tuple[object, int | None, object]] = {
    "right": (ONE, len(ONE), ONE),
    "of another size": (ONE, 5, CorruptChunkError),
    "an error": (DOWN, 5, UnavailableError),
    "too large": (OVERSIZED, 5, OversizedFrameError),
    "too large for a call for many": (OVERSIZED, None, ONE),
}


class TestFromASource:
    @pytest.mark.parametrize("case", FROM_SOURCES)
    def test_it_is_asked_once_and_its_answers_are_looked_at(self, case: str) -> None:
        """A large one of no known size is read as a blob."""
        given, size, expected = FROM_SOURCES[case]
        source, service = Source({D1: given, D2: TWO}), Whole()  # type: ignore[dict-item]
        sizes = {D1: size, ABSENT: None, D2: len(TWO)}
        assert shown(find_in(service, source, sizes)) == {D1: expected, D2: TWO}
        assert source.asked == [sizes]
        assert len(service.readers) == (case == "too large for a call for many")

    def test_a_large_one_that_is_no_blob_stays_too_large(self) -> None:
        """It is not absent."""
        service = Whole()
        service.held.clear()
        assert find_in(service, Source({D1: OVERSIZED}), {D1: None}) == {D1: OVERSIZED}

    def test_what_the_source_raises_comes_out(self) -> None:
        """Nothing is known then."""
        with pytest.raises(UnavailableError) as caught:
            find_in(Whole(), Source({}, error=DOWN), {D1: None})
        assert caught.value is DOWN


class TestOne:
    @pytest.mark.parametrize("source", [None, Source({D1: ONE})])
    def test_one_is_found_or_not(self, source: Source | None) -> None:
        assert find_chunk(Whole(), source, D1) == find_chunk(Whole(), source, D1, len(ONE)) == ONE
        assert find_chunk(Whole(), source, ABSENT) is None
        with pytest.raises(CorruptChunkError, match="its index says 3"):
            find_chunk(Whole(), source, D1, 3)

    def test_a_missing_one_is_named_with_its_blob_and_place(self) -> None:
        meta = ChunkMeta(D1, 9)
        for source, key in ((None, None), (Source({}), f"chunks/{D1}")):
            error = missing_chunk(source, meta, D2)
            assert isinstance(error, MissingChunkError)
            assert (error.blob, error.expected, error.key) == (D2, D1, key)
            assert missing_chunk(source, meta, None).blob == D1
