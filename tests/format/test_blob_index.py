"""Blob indexes: byte for byte those of the reference, and nothing is believed that cannot be."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from castore.contract.blobs import ChunkMeta
from castore.digest import B3Digest
from castore.errors import BadIndexError
from castore.format import blob_index
from castore.format.blob_index import decode, encode, validate
from castore.format.chunking import DEFAULT_AVG_SIZE, MAX_CHUNK_SIZE, FastCdc2020
from castore.format.proto.castore_pb2 import StatBlobResponse

BLOB = B3Digest.of(b"the blob")
ONE, OTHER = B3Digest.of(b"one"), B3Digest.of(b"other")

BLOB_B_INDEX = bytes.fromhex(
    "12260a2079445f0f1420045f8be59af5f7915cfd9182c978ece11a21913641e457fa979410808020"
    "12260a20832c7fbdbe9a537273cfe0299195a09ba7d08b6da842ab25fea373d739e9c5ac1080e01f"
)


def _chunks_of(data: bytes, avg_size: int = DEFAULT_AVG_SIZE) -> list[ChunkMeta]:
    chunks = []
    start = 0
    for length in FastCdc2020(avg_size).cut(memoryview(data)):
        chunks.append(ChunkMeta(B3Digest.of(data[start : start + length]), length))
        start += length
    return chunks


def _blob_b() -> bytes:
    return bytes(range(255)) * 4096


# -- the bytes of the reference --


def test_the_index_of_blob_b() -> None:
    chunks = _chunks_of(_blob_b())

    assert encode(chunks) == BLOB_B_INDEX
    assert (
        str(B3Digest.of(BLOB_B_INDEX)) == "79d76c4088d8f89dcb11156aa5c44b1c0af22f6f7f7a2d5b55d6d12452f885c4"
    )
    assert decode(BLOB_B_INDEX, B3Digest.of(_blob_b())) == tuple(chunks)


def test_the_index_of_blob_b_in_820_chunks_keeps_those_that_repeat() -> None:
    chunks = _chunks_of(_blob_b(), 1024)
    index = encode(chunks)

    assert len(index) == 31_980
    assert str(B3Digest.of(index)) == "f0f62c95cc199aad523b236045d34161544a28e1be4e9dba39c59de1ca0e15cf"
    assert decode(index, BLOB) == tuple(chunks)
    assert len(set(chunks)) == 3


def test_the_index_of_zeros() -> None:
    index = encode(_chunks_of(bytes(1 << 20)))

    assert str(B3Digest.of(index)) == "1e44b324f989214d7e5dac21d6eb812ff01ea55a697826a7672aa075e21597f2"
    assert (
        decode(index, BLOB)
        == (
            ChunkMeta(
                B3Digest.parse("934d6b7aea5a339a9e858430cca7ac455d3537e70fd2b302931cc93b25e1df9a"), 524_288
            ),
        )
        * 2
    )


def test_the_index_of_three_megabytes_without_a_pattern() -> None:
    blocks = (hashlib.sha256(b"castore-vector" + struct.pack(">Q", number)) for number in range(3 << 15))
    index = encode(_chunks_of(b"".join(block.digest() for block in blocks)))

    assert len(index) == 320
    assert (
        hashlib.sha256(index).hexdigest()
        == "38f7a9a1d42e40f22d9bc98a009a8f0d2c7f7af45a079e5c90e661dc59ff98d7"
    )


def test_a_blob_of_fewer_than_two_chunks_has_an_index_of_no_bytes() -> None:
    assert encode([]) == encode(()) == b""
    assert encode([ChunkMeta(ONE, 5)]) == b""
    assert decode(b"", BLOB) == ()


def test_an_entry_is_two_fields_of_one_message() -> None:
    """`12 <length> 0a 20 <digest> 10 <size>`, the size in as few bytes as it takes."""
    index = encode([ChunkMeta(ONE, 1), ChunkMeta(OTHER, 300)])

    assert index == b"\x12\x24\x0a\x20" + ONE + b"\x10\x01" + b"\x12\x25\x0a\x20" + OTHER + b"\x10\xac\x02"


# -- round trip --

_DIGESTS = st.binary(min_size=32, max_size=32).map(B3Digest)
_METAS = st.builds(ChunkMeta, _DIGESTS, st.integers(1, MAX_CHUNK_SIZE))


@given(st.lists(_METAS, min_size=2, max_size=20))
def test_chunks_come_back_as_they_were(chunks: list[ChunkMeta]) -> None:
    again = decode(encode(chunks), BLOB)

    assert again == tuple(chunks)
    assert {type(chunk.digest) for chunk in again} == {B3Digest}


def test_chunks_come_back_in_order_with_duplicates() -> None:
    chunks = [ChunkMeta(ONE, 5), ChunkMeta(OTHER, 6), ChunkMeta(ONE, 5)]

    assert decode(encode(chunks), BLOB) == tuple(chunks)


# -- what cannot be --


def _index(*entries: tuple[bytes, int]) -> bytes:
    """An index with whatever entries, as a damaged or hostile store has them."""
    chunks = [StatBlobResponse.ChunkMeta(digest=digest, size=size) for digest, size in entries]
    return StatBlobResponse(chunks=chunks).SerializeToString()


GOOD = (bytes(ONE), 5)

BAD = {
    "short digest": ([GOOD, (b"short", 5)], "chunk #1 a digest of 5 bytes instead of 32"),
    "long digest": ([(bytes(33), 5), GOOD], "chunk #0 a digest of 33 bytes instead of 32"),
    "no digest": ([GOOD, GOOD, (b"", 5)], "chunk #2 a digest of 0 bytes instead of 32"),
    "no size": ([GOOD, (bytes(OTHER), 0)], "chunk #1 a size of 0 bytes; chunks have 1 to 16777216"),
    "size too large": ([GOOD, (bytes(OTHER), MAX_CHUNK_SIZE + 1)], "chunk #1 a size of 16777217 bytes"),
    "size of 64 bits": ([GOOD, (bytes(OTHER), (1 << 64) - 1)], "a size of 18446744073709551615 bytes"),
    "a single other chunk": ([GOOD], f"lists a single chunk with another digest, {ONE}"),
    "a single bad chunk": ([(b"", 0)], "chunk #0 a digest of 0 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_index_that_cannot_be_right_is_refused(name: str) -> None:
    entries, reason = BAD[name]

    with pytest.raises(BadIndexError) as caught:
        decode(_index(*entries), BLOB, key="blobs/b3/x")

    assert reason in str(caught.value)
    assert str(BLOB) in str(caught.value)
    assert str(caught.value).endswith("(stored as blobs/b3/x)")
    assert (caught.value.expected, caught.value.key) == (BLOB, "blobs/b3/x")


@pytest.mark.parametrize("name", BAD)
def test_entries_from_elsewhere_are_checked_alike(name: str) -> None:
    entries, reason = BAD[name]

    with pytest.raises(BadIndexError, match="index of blob") as caught:
        validate(entries, BLOB)

    assert reason in str(caught.value)
    assert caught.value.key is None


def test_the_largest_and_the_smallest_chunk_are_allowed() -> None:
    entries = [(bytes(ONE), 1), (bytes(OTHER), MAX_CHUNK_SIZE)]

    assert decode(_index(*entries), BLOB) == validate(entries, BLOB)
    assert [chunk.size for chunk in validate(entries, BLOB)] == [1, MAX_CHUNK_SIZE]


def test_a_blob_that_no_file_offset_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real limit takes 2**39 entries to reach."""
    monkeypatch.setattr(blob_index, "MAX_BLOB_SIZE", 10)

    assert validate([(bytes(ONE), 5), (bytes(OTHER), 5)], BLOB)
    with pytest.raises(BadIndexError, match="adds up to 11 bytes"):
        validate([(bytes(ONE), 5), (bytes(OTHER), 6)], BLOB)


def test_an_index_of_the_one_chunk_that_is_the_blob_lists_none() -> None:
    """Written out, though no bytes at all would say the same."""
    assert decode(_index((bytes(BLOB), 5)), BLOB) == ()


@pytest.mark.parametrize(
    "data",
    [
        StatBlobResponse(bao=b"outboard").SerializeToString(),
        b"\x20\x01",  # a field that the message does not have
    ],
    ids=["only bao", "only unknown"],
)
def test_a_message_without_chunks_is_refused(data: bytes) -> None:
    with pytest.raises(BadIndexError, match="lists no chunks"):
        decode(data, BLOB)


def test_what_a_later_version_adds_is_passed_over() -> None:
    later = BLOB_B_INDEX + StatBlobResponse(bao=b"outboard").SerializeToString() + b"\x20\x01"

    assert decode(later, BLOB) == decode(BLOB_B_INDEX, BLOB)


@pytest.mark.parametrize("data", [b"\x12", b"\xff" * 10, b"not a message", bytes(40)], ids=repr)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadIndexError, match="is not a StatBlobResponse message") as caught:
        decode(data, BLOB, key="k")

    assert caught.value.key == "k"
    assert caught.value.__suppress_context__


def test_an_index_cut_short_is_refused_or_has_fewer_whole_chunks() -> None:
    """A cut between two entries cannot be seen here; the digest of the blob shows it to the reader."""
    index = encode([ChunkMeta(ONE, 300), ChunkMeta(OTHER, 300), ChunkMeta(ONE, 300)])
    entry = len(index) // 3

    for end in range(1, len(index)):
        if end == 2 * entry:
            assert len(decode(index[:end], BLOB)) == 2
            continue
        with pytest.raises(BadIndexError):
            decode(index[:end], BLOB)


_MESSAGES = st.binary(max_size=200) | st.builds(
    lambda entries, tail: _index(*entries) + tail,
    st.lists(
        st.tuples(
            st.binary(max_size=40) | st.just(bytes(32)) | st.just(bytes(BLOB)), st.integers(0, (1 << 64) - 1)
        ),
        max_size=5,
    ),
    st.binary(max_size=5),
)


@settings(max_examples=500, deadline=None)
@given(_MESSAGES)
@example(b"\x13" * 200)  # groups in groups
@example(b"\x0b" * 5000)
@example(b"\x12\xff\xff\xff\xff\x0f")
@example(BLOB_B_INDEX[:-1] + b"\xff")
def test_arbitrary_bytes_give_chunks_or_a_bad_index(data: bytes) -> None:
    try:
        chunks = decode(data, BLOB)
    except BadIndexError:
        return
    assert len(chunks) != 1
    assert all(1 <= chunk.size <= MAX_CHUNK_SIZE and len(chunk.digest) == 32 for chunk in chunks)


def test_every_flipped_bit_gives_chunks_or_a_bad_index() -> None:
    index = bytearray(BLOB_B_INDEX)

    for bit in range(8 * len(index)):
        index[bit // 8] ^= 1 << bit % 8
        try:
            chunks = decode(bytes(index), BLOB)
        except BadIndexError:
            chunks = ()
        assert chunks != decode(BLOB_B_INDEX, BLOB)
        index[bit // 8] ^= 1 << bit % 8


# -- bounds --


def _long_index(count: int) -> bytes:
    return b"".join(
        b"\x12\x26\x0a\x20" + number.to_bytes(32, "big") + b"\x10\xc0\x9a\x0c" for number in range(count)
    )


@pytest.mark.parametrize("size", [1, 7, 39, 40, 1000, 65_537, 1 << 20])
def test_an_index_may_come_in_pieces_of_any_size(size: int) -> None:
    data = _long_index(2000 if size < 1000 else 70_000)
    decoder = blob_index.IndexDecoder(BLOB)
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
    assert decoder.end() == decode(data, BLOB)


def test_a_long_list_that_somebody_has_is_shared() -> None:
    """And one that is different is not, wherever that is."""
    data = _long_index(70_000)
    one = decode(data, BLOB)
    assert decode(data, BLOB) is one
    for at in (5, 40 * 35_000 + 20, len(data) - 2):
        other = bytearray(data)
        other[at] ^= 1
        found = decode(bytes(other), BLOB)
        assert (found is one, found == one, len(found)) == (False, False, len(one))
    assert len(decode(data[: 40 * 60_000], BLOB)) == 60_000
    assert len(decode(data + data[:40], BLOB)) == 70_001
    assert len(decode(data, ONE)) == 70_000


def test_an_index_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more chunks than any blob has, and no field that is nothing of an index."""
    monkeypatch.setattr(blob_index, "MAX_CHUNKS", 100)
    assert len(decode(_long_index(100), BLOB)) == 100
    with pytest.raises(BadIndexError, match="lists more than 100 chunks"):
        decode(_long_index(101), BLOB)
    decoder = blob_index.IndexDecoder(BLOB)
    decoder.feed(bytes(1 << 20))
    with pytest.raises(BadIndexError, match="not a StatBlobResponse"):
        decoder.feed(bytes(1))
    with pytest.raises(BadIndexError, match="not a StatBlobResponse"):
        decode(_long_index(5) + b"\x1a\xff\xff\xff\x01" + bytes(2 << 20), BLOB)
