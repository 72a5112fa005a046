"""The messages of blobs: what is read without protobuf is what protobuf reads."""

from __future__ import annotations

import itertools

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from castore import B3Digest
from castore.format import wire
from castore.format.proto.castore_pb2 import (
    BlobChunk,
    GetDirectoryRequest,
    PutBlobResponse,
    ReadBlobRequest,
    StatBlobRequest,
)

DIGEST = B3Digest.of(b"a digest")

PIECES = st.binary(max_size=300).map(lambda data: BlobChunk(data=data).SerializeToString())
OTHERS = st.sampled_from(
    [
        b"\x0a\x80\x00",  # a length that takes more bytes than it need
        b"\x0a\x85\x80\x80\x80\x00hello",
        b"\x0a\x05hello\x0a\x02hi",  # twice: the last one counts
        b"\x10\x01",  # a field that is not known
        b"\x0a\x05hell",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a",
        b"\x0b\x0c",
        b"\x0a\x00",
    ]
)


def by_protobuf(message: bytes) -> bytes | None:
    try:
        return BlobChunk.FromString(message).data
    except DecodeError:
        return None


def by_hand(message: bytes) -> bytes | None:
    try:
        return bytes(wire.chunk_data(message))
    except ValueError:
        return None


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES | OTHERS | st.binary(max_size=20), max_size=3).map(b"".join))
@example(b"")
@example(BlobChunk(data=bytes(70_000)).SerializeToString())
def test_any_bytes_are_read_as_protobuf_reads_them(message: bytes) -> None:
    assert by_hand(message) == by_protobuf(message)


@given(st.lists(st.binary(max_size=200_000), max_size=4))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_what_protobuf_writes(parts: list[bytes]) -> None:
    """Of one piece or of several."""
    whole = b"".join(parts)
    assert wire.chunk_message(whole) == BlobChunk(data=whole).SerializeToString()
    assert wire.joined_message(parts) == BlobChunk(data=whole).SerializeToString()


@given(st.lists(st.binary(min_size=1, max_size=60_000), max_size=12), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_pieces_are_gathered_into_messages_of_some_size(parts: list[bytes], times: int) -> None:
    """In order, with nothing lost, and no message has more than half a MiB."""
    pieces = [memoryview(part * times) for part in parts]
    messages = [bytes(wire.chunk_data(message)) for message in wire.gathered(pieces)]
    assert b"".join(messages) == b"".join(pieces)
    assert all(len(message) <= wire.PIECE_SIZE for message in messages)
    # Two that stand side by side would not have fitted into a small one.
    assert all(len(one) + len(other) > wire.PIECE_SIZE // 2 for one, other in itertools.pairwise(messages))


def test_requests_and_answers_are_those_of_protobuf() -> None:
    assert wire.stat_request(DIGEST) == StatBlobRequest(digest=DIGEST, send_chunks=True).SerializeToString()
    assert wire.read_request(DIGEST) == ReadBlobRequest(digest=DIGEST).SerializeToString()
    for recursive in (False, True):
        request = GetDirectoryRequest(digest=DIGEST, recursive=recursive)
        assert wire.directory_request(DIGEST, recursive=recursive) == request.SerializeToString()
    assert wire.answered_digest(PutBlobResponse(digest=DIGEST).SerializeToString()) == DIGEST
    with pytest.raises(ValueError, match="these are 31"):
        wire.answered_digest(PutBlobResponse(digest=bytes(31)).SerializeToString())


@pytest.mark.long
@settings(max_examples=100_000, deadline=None)
@given(st.lists(PIECES | OTHERS | st.binary(max_size=60), max_size=4).map(b"".join))
def test_very_many_bytes_are_read_as_protobuf_reads_them(message: bytes) -> None:
    assert by_hand(message) == by_protobuf(message)
