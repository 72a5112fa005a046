"""A reader that hashes as it reads: what is wrong is told before the last byte comes out."""

from __future__ import annotations

import io
from typing import Any

import pytest

from castore import B3Digest, BlobReader, CorruptBlobError
from castore.streams.checked import HashedPieceReader, read_piece
from castore.streams.readers import BytesReader

DATA = bytes(range(100))
DIGEST = B3Digest.of(DATA)


class Reader(HashedPieceReader):
    """Pieces of ten bytes, wherever they begin; notes what it is told."""

    def __init__(self, data: bytes = DATA, size: int = 100) -> None:
        super().__init__(DIGEST, size)
        self.data = data
        self.read_at: list[int] = []
        self.taken = b""
        self.mismatches = 0

    def _read_piece(self, position: int) -> bytes:
        self.read_at.append(position)
        return self.data[position : position + 10]

    def _take(self, piece: memoryview) -> None:
        self.taken += piece

    def _mismatched(self) -> None:
        self.mismatches += 1


def test_from_start_to_end() -> None:
    """All pieces are read once, and taken in order; then the blob is known to be right."""
    reader = Reader()
    assert reader.read(99) == DATA[:99]
    assert reader.verified is True  # The last piece was looked at.
    assert reader.read() == DATA[99:]
    assert reader.read_at == list(range(0, 100, 10))
    assert reader.taken == DATA


def test_wrong_bytes() -> None:
    """The last piece never comes out, however often it is asked for, nor does another one any more."""
    reader = Reader(DATA[:-1] + b"?")
    assert reader.read(90) == DATA[:90]
    for _ in range(2):
        with pytest.raises(CorruptBlobError) as caught:
            reader.read()
        assert (caught.value.expected, caught.value.found) == (DIGEST, B3Digest.of(reader.data))
    reader.seek(5)
    with pytest.raises(CorruptBlobError):
        reader.read(1)
    assert (reader.verified, reader.mismatches) == (False, 1)
    assert reader.taken == DATA[:90]


def test_looks_back() -> None:
    """Also where pieces begin elsewhere then: each byte is hashed, and taken, once."""
    reader = Reader()
    reader.read(35)
    reader.seek(3)
    assert reader.read(4) == DATA[3:7]
    reader.seek(36)
    reader.read(1)
    reader.seek(35)
    assert reader.read() == DATA[35:]
    assert reader.taken == DATA
    assert reader.verified is True


@pytest.mark.parametrize("begin", [50, 10])
def test_a_part_that_was_skipped(begin: int) -> None:
    """Nothing after it is hashed or taken; it can be read all the same."""
    reader = Reader()
    reader.seek(begin)
    assert reader.read() == DATA[begin:]
    assert (reader.verified, reader.taken) == (False, b"")
    reader.seek(0)
    assert reader.read() == DATA
    assert (reader.verified, reader.taken) == (True, DATA)


def test_a_blob_that_ends_early() -> None:
    """It is corrupt, not endless."""
    with pytest.raises(CorruptBlobError, match="ends at 100, before its size of 105"):
        Reader(size=105).read()


def test_no_byte_is_not_right_by_that() -> None:
    """Of a blob of no bytes the digest must be that of none."""
    assert Reader(b"", size=0).verified is False


class Plain(io.BytesIO):
    """A stranger's reader, which has no pieces."""

    size = len(DATA)


@pytest.mark.parametrize("make", [BytesReader, Plain, Reader])
def test_pieces_of_any_reader(make: Any) -> None:
    """All that is left, if that is not much, wherever the reader stands; at the end there is none."""
    reader: BlobReader = make(DATA)
    for position in (0, 70, 20):
        assert bytes(read_piece(reader, position)) == DATA[position:]


def test_a_large_piece_is_not_copied() -> None:
    data = bytes(100_000)
    piece = read_piece(BytesReader(data), 10)
    assert isinstance(piece, memoryview)
    assert piece.obj is data


def test_pieces_of_a_reader_that_ends_early() -> None:
    """What there is comes, and then nothing."""

    class Short(BytesReader):
        size = 105  # type: ignore[assignment]

    assert bytes(read_piece(Short(DATA), 90)) == DATA[90:]
    assert not read_piece(Short(DATA), 100)
