"""Whatever stands where the index of a blob should: its chunks, or `BadIndexError`."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from castore import B3Digest, BadIndexError, ChunkMeta
from castore.format.blob_index import MAX_BLOB_SIZE, IndexDecoder, decode, encode
from castore.format.chunking import MAX_CHUNK_SIZE

FUZZ = settings.get_profile("fuzz")

BLOB = B3Digest.of(b"Hello World!")

DIGESTS = st.one_of(st.just(BLOB), st.binary(min_size=32, max_size=32).map(B3Digest))
INDEXES = st.lists(st.builds(ChunkMeta, DIGESTS, st.integers(1, MAX_CHUNK_SIZE)), max_size=6)
EDITS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=4
)


def varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, wire: int, payload: bytes) -> bytes:
    """One field of a message as it is on the wire; a payload of type 2 has its length before it."""
    return varint(number << 3 | wire) + (varint(len(payload)) + payload if wire == 2 else payload)


NUMBERS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, MAX_CHUNK_SIZE, 2**63, 2**70])).map(
    varint
)
FIELDS = st.builds(field, st.integers(0, 20), st.integers(0, 7), st.one_of(NUMBERS, st.binary(max_size=40)))
CHUNKS = st.builds(
    lambda digest, size, more: field(2, 2, field(1, 2, digest) + field(2, 0, size) + more),
    st.one_of(DIGESTS, st.binary(max_size=40)),
    NUMBERS,
    st.one_of(st.just(b""), FIELDS),
)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, count, new in edits:
        data = data[:at] + new + data[at + count :]
    return data


def check(data: bytes) -> None:
    try:
        chunks = decode(data, BLOB, key="blobs/b3/x")
    except BadIndexError as error:
        assert error.expected == BLOB
        assert error.key == "blobs/b3/x"
        return
    assert len(chunks) != 1
    assert all(1 <= chunk.size <= MAX_CHUNK_SIZE and len(chunk.digest) == 32 for chunk in chunks)
    assert sum(chunk.size for chunk in chunks) <= MAX_BLOB_SIZE
    assert decode(encode(chunks), BLOB) == chunks


@FUZZ
@given(st.binary(max_size=400))
def test_bytes(data: bytes) -> None:
    check(data)


@FUZZ
@given(INDEXES, EDITS)
def test_indexes_with_damage(chunks: list[ChunkMeta], edits: list[tuple[int, int, bytes]]) -> None:
    check(edited(encode(chunks), edits))


@FUZZ
@given(st.lists(st.one_of(CHUNKS, FIELDS), max_size=6))
def test_messages_that_are_no_index(fields: list[bytes]) -> None:
    """Right for the wire, but with fields, types and sizes that no index has."""
    check(b"".join(fields))


@FUZZ
@given(st.lists(st.builds(ChunkMeta, DIGESTS, st.integers(1, MAX_CHUNK_SIZE)), min_size=2, max_size=20))
def test_indexes_read_back(chunks: list[ChunkMeta]) -> None:
    assert decode(encode(chunks), BLOB) == tuple(chunks)


def outcome(data: bytes, cuts: list[int]) -> object:
    decoder = IndexDecoder(BLOB)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in pairwise(places):
            decoder.feed(data[start:end])
        return tuple(decoder.end())
    except BadIndexError:
        return "bad"  # Of several things that are wrong the first one that is met is told.


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(edited, INDEXES.map(encode), EDITS),
        st.lists(st.one_of(CHUNKS, FIELDS), max_size=6).map(b"".join),
    ),
    st.lists(st.integers(0, 500), max_size=8),
)
def test_it_does_not_matter_in_which_pieces_an_index_comes(data: bytes, cuts: list[int]) -> None:
    assert outcome(data, cuts) == outcome(data, [])
