"""Chunks read as one blob: from whichever service has them, each fetched once, and nothing forged gets by."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.chunks.reader import ChunkedReader, ChunkMap
from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.digest import B3Digest
from castore.errors import (
    CorruptBlobError,
    CorruptChunkError,
    InvalidSeekError,
    MissingChunkError,
    UnavailableError,
)
from castore.streams.readers import BytesReader
from castore.threads.pool import Pool

T = TypeVar("T")

# The blob of the reference's own tests of its reader: 00 01 02 ... 0f in five chunks.
PARTS = [bytes([0, 1]), bytes([2, 3, 4, 5]), bytes([6]), bytes([7, 8]), bytes(range(9, 16))]
DIGESTS = [
    "7b7015bb92cf0b318037702a6cdd81dee41224f734684c2c122cd6359cb1ee63",
    "024a7fdb2a86c4eae9600a1cfbfd4487ddc15c0a8fa59abfebd6f92bd0031fe5",
    "1c310b6bdadd69991cd4e5dbef96c2638536c32b534e3ed64785846bfcebd206",
    "d241b5ab32d2206564b51c8ec05944f6af6d7622c2f607f34c0622223a2b3cd7",
    "465ded54852258aadefafc109bac1cb1c1275ad9ac15af4fe9996dff9473f50e",
]
METAS = [ChunkMeta(B3Digest.parse(digest), len(part)) for digest, part in zip(DIGESTS, PARTS, strict=True)]
WHOLE = bytes(range(16))
BLOB = B3Digest.of(WHOLE)


class Blobs(BlobService):
    """Holds chunks as blobs; counts what is opened. What it holds under a digest need not fit it."""

    def __init__(self, parts: Sequence[bytes] = ()) -> None:
        self.held = {B3Digest.of(part): part for part in parts}
        self.opened: list[B3Digest] = []
        self.readers: list[BlobReader] = []

    def has(self, digest: B3Digest) -> bool:
        return digest in self.held

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        self.opened.append(digest)
        data = self.held.get(digest)
        if data is None:
            return None
        self.readers.append(BytesReader(data))
        return self.readers[-1]

    def open_write(self) -> BlobWriter:
        raise NotImplementedError


class Chunks(Blobs, ChunkSource):
    """Has the capability to read single chunks, too."""

    def __init__(self, parts: Sequence[bytes] = ()) -> None:
        super().__init__(parts)
        self.got: list[tuple[B3Digest, int | None]] = []

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self.held.keys() & set(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        self.got.extend(sizes.items())
        return {digest: self.held[digest] for digest in sizes if digest in self.held}

    def chunk_key(self, digest: B3Digest) -> str | None:
        return f"chunks/{digest.hex()[:4]}"


@pytest.fixture(params=[Blobs, Chunks], ids=["as-blobs", "as-chunks"])
def service(request: pytest.FixtureRequest) -> Blobs:
    service: Blobs = request.param(PARTS)
    return service


def _fetched(service: Blobs) -> list[B3Digest]:
    return [digest for digest, _ in service.got] if isinstance(service, Chunks) else service.opened


def _numbers(service: Blobs) -> list[int]:
    """The numbers of the chunks of the fixture in the order in which they were fetched."""
    return [[meta.digest for meta in METAS].index(digest) for digest in _fetched(service)]


# -- where chunks begin --


def test_the_fixture_is_that_of_the_reference() -> None:
    assert [B3Digest.of(part) for part in PARTS] == [meta.digest for meta in METAS]


def test_a_map_has_the_offsets_and_the_size_of_its_chunks() -> None:
    chunks = ChunkMap(METAS)

    assert list(chunks.offsets) == [0, 2, 6, 7, 9, chunks.size]
    assert chunks.size == 16
    assert chunks.chunks == METAS


@pytest.mark.parametrize(
    ("position", "index"),
    [
        (-1, None),
        (0, 0),
        (1, 0),
        (2, 1),
        (5, 1),
        (6, 2),
        (7, 3),
        (8, 3),
        (9, 4),
        (15, 4),
        (16, None),
        (100, None),
    ],
)
def test_a_map_finds_the_chunk_of_a_position(position: int, index: int | None) -> None:
    assert ChunkMap(METAS).index_at(position) == index


def test_there_is_no_map_of_no_chunks() -> None:
    with pytest.raises(ValueError, match="at least one chunk"):
        ChunkMap([])
    with pytest.raises(ValueError, match="at least one chunk"):
        ChunkedReader(Blobs(), [])


def test_a_map_of_one_chunk() -> None:
    chunks = ChunkMap(METAS[1:2])

    assert (list(chunks.offsets), chunks.size) == ([0, 4], 4)
    assert [chunks.index_at(position) for position in (0, 3, 4)] == [0, 0, None]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(-2, 110))
def test_a_position_lies_between_the_ends_of_its_chunk(sizes: list[int], position: int) -> None:
    chunks = ChunkMap([ChunkMeta(BLOB, size) for size in sizes])

    index = chunks.index_at(position)

    if index is None:
        assert not 0 <= position < sum(sizes)
    else:
        assert chunks.offsets[index] <= position < chunks.offsets[index] + sizes[index]
        assert chunks.offsets[index] == sum(sizes[:index])


# -- reading --


def test_chunks_read_as_one_blob(service: Blobs) -> None:
    reader = ChunkedReader(service, METAS, digest=BLOB)

    assert reader.size == 16
    assert reader.read() == WHOLE
    assert reader.read() == b""
    assert _numbers(service) == [0, 1, 2, 3, 4]


def test_the_seeks_of_the_reference(service: Blobs) -> None:
    reader = ChunkedReader(service, METAS, digest=BLOB)

    assert reader.seek(0, io.SEEK_END) == 16
    assert reader.read() == b""
    assert reader.seek(-1, io.SEEK_END) == 15
    assert reader.read() == b"\x0f"
    assert reader.tell() == 16
    assert reader.seek(-3, io.SEEK_CUR) == 13
    assert reader.read(2) == b"\x0d\x0e"
    with pytest.raises(InvalidSeekError):
        reader.seek(17)
    assert reader.tell() == 15


def test_nothing_is_fetched_before_it_is_read(service: Blobs) -> None:
    reader = ChunkedReader(service, METAS, digest=BLOB)
    reader.seek(7)
    reader.seek(0, io.SEEK_END)
    reader.seek(3)
    assert reader.read(0) == b""
    assert _fetched(service) == []

    reader.read(2)

    assert _numbers(service) == [1]


def test_a_chunk_is_fetched_once_while_reads_and_seeks_stay_in_it(service: Blobs) -> None:
    reader = ChunkedReader(service, METAS, digest=BLOB)

    for position in (9, 15, 10, 12, 9):
        reader.seek(position)
        assert reader.read(1) == WHOLE[position : position + 1]
    reader.seek(0, io.SEEK_END)
    reader.seek(9)
    assert reader.read() == WHOLE[9:]
    assert reader.peek() == b""

    assert _numbers(service) == [4]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_small_reads_fetch_each_chunk_once(service: Blobs, step: int) -> None:
    reader = ChunkedReader(service, METAS, digest=BLOB)

    assert b"".join(iter(lambda: reader.read(step), b"")) == WHOLE
    assert _numbers(service) == [0, 1, 2, 3, 4]


def test_bytes_and_lines_that_cross_chunks_fetch_each_chunk_once() -> None:
    parts = [b"one\ntw", b"o\nth", b"ree\n", b"four"]
    service = Blobs(parts)
    metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]

    assert list(ChunkedReader(service, metas)) == [b"one\n", b"two\n", b"three\n", b"four"]
    assert len(service.opened) == 4


def test_a_chunk_that_repeats_is_read_each_time() -> None:
    metas = [METAS[0], METAS[1], METAS[0], METAS[0]]
    data = PARTS[0] + PARTS[1] + PARTS[0] * 2

    assert ChunkedReader(Blobs(PARTS), metas, digest=B3Digest.of(data)).read() == data


def test_a_list_of_one_chunk_is_read() -> None:
    reader = ChunkedReader(Blobs(PARTS), METAS[1:2], digest=METAS[1].digest)

    assert reader.read() == PARTS[1]
    assert reader.verified


def test_a_closed_reader_lets_go_of_its_chunk() -> None:
    reader = ChunkedReader(Blobs(PARTS), METAS)
    reader.read(1)

    reader.close()

    assert not reader._chunk
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


# -- from whom --


def test_chunks_come_from_another_service_than_the_list() -> None:
    """The reader knows the list and a service; whose list it is it does not ask."""

    class OnlyLists(Blobs):
        def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta]:
            return METAS

    far, near = OnlyLists(), Blobs(PARTS)

    assert ChunkedReader(near, far.chunks(BLOB), digest=BLOB).read() == WHOLE
    assert far.opened == []


def test_a_service_that_reads_chunks_is_asked_for_chunks_with_their_sizes() -> None:
    """So that a bomb is not unpacked, and no index is looked for."""
    service = Chunks(PARTS)

    ChunkedReader(service, METAS, digest=BLOB).read()

    assert service.got == [(meta.digest, meta.size) for meta in METAS]
    assert service.opened == []


def test_a_wrapper_is_asked_for_the_capability_not_looked_at() -> None:
    inner = Chunks(PARTS)

    class Wrapper(Blobs):
        def capability(self, kind: object) -> object:  # type: ignore[override]
            return inner if kind is ChunkSource else None

    wrapper = Wrapper()

    assert ChunkedReader(wrapper, METAS, digest=BLOB).read() == WHOLE
    assert wrapper.opened == []
    assert len(inner.got) == 5


def test_a_given_source_is_read_instead_of_the_service() -> None:
    service, source = Chunks(), Chunks(PARTS)

    assert ChunkedReader(service, METAS, digest=BLOB, source=source).read() == WHOLE
    assert (service.got, service.opened) == ([], [])


def test_readers_of_chunks_are_closed() -> None:
    service = Blobs(PARTS)

    ChunkedReader(service, METAS).read()

    assert [reader.closed for reader in service.readers] == [True] * 5


# -- what is missing or wrong --


def test_a_missing_chunk_is_found_when_it_is_reached(service: Blobs) -> None:
    """The reference's own test: two of five chunks are there."""
    for part in PARTS[2:]:
        del service.held[B3Digest.of(part)]
    reader = ChunkedReader(service, METAS, digest=BLOB)

    assert reader.read(5) == WHOLE[:5]
    assert reader.seek(2, io.SEEK_CUR) == 7
    with pytest.raises(MissingChunkError) as caught:
        reader.read(1)

    assert (caught.value.blob, caught.value.expected) == (BLOB, METAS[3].digest)
    assert caught.value.key == ("chunks/d241" if isinstance(service, Chunks) else None)
    assert reader.tell() == 7


def test_a_chunk_of_another_size_is_corrupt(service: Blobs) -> None:
    """Trusting the list would shift all that follows."""
    for size in (3, 5):
        metas = [METAS[0], ChunkMeta(METAS[1].digest, size), *METAS[2:]]
        reader = ChunkedReader(service, metas)
        assert reader.read(2) == WHOLE[:2]
        with pytest.raises(CorruptChunkError, match=f"has 4 bytes, but its index says {size}"):
            reader.read(1)


def test_a_list_with_two_sizes_for_one_digest_is_found_at_the_wrong_one(service: Blobs) -> None:
    """The source is asked for one of them, and both chunks may come at once."""
    metas = [METAS[0], METAS[1], ChunkMeta(METAS[1].digest, 3), METAS[2]]
    pool = Pool(1)
    with ChunkedReader(service, metas, pool=pool) as reader:
        assert reader.read(6) == WHOLE[:6]
        with pytest.raises(CorruptChunkError, match="has 4 bytes, but its index says 3"):
            reader.read(1)
    pool.close()


def test_a_chunk_that_is_not_its_digest_is_corrupt() -> None:
    service = Blobs(PARTS)
    service.held[METAS[1].digest] = b"evil"
    reader = ChunkedReader(service, METAS)

    assert reader.read(2) == WHOLE[:2]
    with pytest.raises(CorruptChunkError) as caught:
        reader.read(1)

    assert (caught.value.expected, caught.value.found) == (METAS[1].digest, B3Digest.of(b"evil"))
    assert [reader.closed for reader in service.readers] == [True, True]


def test_a_blob_far_larger_than_its_chunk_is_not_read() -> None:
    class Endless(BytesReader):
        @property
        def size(self) -> int:
            return 1 << 60

        def piece_at(self, position: int) -> memoryview:
            raise AssertionError("nothing of it may be read")

    class Lying(Blobs):
        def open_read(self, digest: B3Digest) -> BlobReader | None:
            return Endless(b"")

    with pytest.raises(CorruptChunkError, match="but its index says 2"):
        ChunkedReader(Lying(), METAS).read(1)


def test_the_error_of_a_service_comes_through_and_the_read_can_be_done_again(service: Blobs) -> None:
    class Flaky(type(service)):  # type: ignore[misc]
        down = False

        def open_read(self, digest: B3Digest) -> BlobReader | None:
            return super().open_read(self._up(digest))  # type: ignore[no-any-return]

        def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
            return super().get_chunks(self._up(sizes))  # type: ignore[no-any-return]

        def _up(self, asked: T) -> T:
            if self.down:
                raise UnavailableError("far", "the network is down")
            return asked

    flaky = Flaky(PARTS)
    reader = ChunkedReader(flaky, METAS, digest=BLOB)
    assert reader.read(4) == WHOLE[:4]

    flaky.down = True
    with pytest.raises(UnavailableError):
        reader.read()
    assert reader.tell() == 4
    assert reader.read(2) == WHOLE[4:6]  # at hand already

    flaky.down = False
    assert reader.read() == WHOLE[6:]
    assert reader.verified


# -- a forged list --


def _swapped() -> list[ChunkMeta]:
    return [METAS[0], METAS[3], METAS[2], METAS[1], METAS[4]]


def _replaced() -> list[ChunkMeta]:
    return [METAS[3], *METAS[1:]]  # another chunk of two bytes


def _dropped() -> list[ChunkMeta]:
    return METAS[:-1]


def _repeated() -> list[ChunkMeta]:
    return [*METAS, METAS[4]]


FORGERIES = [_swapped, _replaced, _dropped, _repeated]


@pytest.fixture(params=FORGERIES, ids=lambda forge: forge.__name__[1:])
def forged(request: pytest.FixtureRequest) -> list[ChunkMeta]:
    metas: list[ChunkMeta] = request.param()
    return metas


def _all_but_the_last(metas: list[ChunkMeta]) -> bytes:
    parts = dict(zip((meta.digest for meta in METAS), PARTS, strict=True))
    return b"".join(parts[meta.digest] for meta in metas[:-1])


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_forged_list_never_reads_to_its_end(service: Blobs, forged: list[ChunkMeta], step: int) -> None:
    """Each chunk is right, the blob is not: its last chunk is held back."""
    reader = ChunkedReader(service, forged, digest=BLOB, key="blobs/b3/x")
    read = bytearray()

    def read_on() -> None:
        while part := reader.read1(step):
            read.extend(part)

    for _ in range(2):  # trying again does not help
        with pytest.raises(CorruptBlobError, match="the chunks of its index make up") as caught:
            read_on()
        assert type(caught.value) is CorruptBlobError
        assert caught.value.expected == BLOB
        assert caught.value.found == B3Digest.of(_all_but_the_last(forged) + _last(forged))
        assert caught.value.key == "blobs/b3/x"
        assert read == _all_but_the_last(forged)
    assert not reader.verified


def _last(metas: list[ChunkMeta]) -> bytes:
    return next(part for meta, part in zip(METAS, PARTS, strict=True) if meta == metas[-1])


def test_a_forged_list_is_found_by_a_read_of_all(service: Blobs, forged: list[ChunkMeta]) -> None:
    reader = ChunkedReader(service, forged, digest=BLOB)

    with pytest.raises(CorruptBlobError, match="make up"):
        reader.read()
    assert reader.tell() == 0


def test_a_forged_list_is_found_though_the_reader_seeks_about_on_the_way(
    service: Blobs, forged: list[ChunkMeta]
) -> None:
    """Within a chunk, and back to chunks that were read: each counts once."""
    reader = ChunkedReader(service, forged, digest=BLOB)
    last = sum(meta.size for meta in forged[:-1])
    for position in range(last):
        reader.seek(position)
        reader.read(1)
        reader.seek(position // 2)
        reader.read(1)
    reader.seek(last)

    with pytest.raises(CorruptBlobError, match="make up"):
        reader.read(1)


def test_after_a_forgery_was_found_nothing_more_is_fetched(service: Blobs) -> None:
    reader = ChunkedReader(service, _swapped(), digest=BLOB)
    with pytest.raises(CorruptBlobError):
        reader.read()
    fetched = len(_fetched(service))

    reader.seek(0)
    with pytest.raises(CorruptBlobError, match="make up"):
        reader.read(1)

    assert len(_fetched(service)) == fetched


def test_without_the_digest_of_the_blob_only_chunks_are_checked(service: Blobs) -> None:
    reader = ChunkedReader(service, _swapped())

    assert reader.read() == b"".join([PARTS[0], PARTS[3], PARTS[2], PARTS[1], PARTS[4]])
    assert not reader.verified


# -- verified --


def test_a_reader_is_verified_once_all_of_it_was_read(service: Blobs) -> None:
    reader = ChunkedReader(service, METAS, digest=BLOB)

    reader.read(9)
    assert not reader.verified
    reader.read()

    assert reader.verified


def test_a_reader_that_leaves_out_a_chunk_is_not_verified(service: Blobs) -> None:
    """It reads all the same: each chunk is checked, and that is what it can promise."""
    reader = ChunkedReader(service, METAS, digest=BLOB)
    reader.read(2)
    reader.seek(6)

    assert reader.read() == WHOLE[6:]
    assert not reader.verified


def test_a_reader_that_comes_back_for_a_chunk_it_left_out_is_not_verified_by_chance(service: Blobs) -> None:
    """Chunks 4, then 0 to 3: all were read, but not in order, so the last one comes again."""
    reader = ChunkedReader(service, METAS, digest=BLOB)
    reader.seek(9)
    reader.read()
    reader.seek(0)
    reader.read(9)
    assert not reader.verified

    assert reader.read() == WHOLE[9:]
    assert reader.verified
