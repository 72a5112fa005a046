"""What is remembered of wrong lists of chunks."""

from __future__ import annotations

from castore import B3Digest, ChunkMeta
from castore.composites.wrong_indexes import WrongIndexes

BLOB = B3Digest.of(b"blob")
ONE, OTHER = (
    [ChunkMeta(B3Digest.of(data), len(data)) for data in parts] for parts in ([b"bl", b"ob"], [b"b", b"lob"])
)


def test_a_list_is_known_by_what_it_lists() -> None:
    wrong = WrongIndexes()
    assert not wrong.has(BLOB, ONE)
    wrong.add(BLOB, ONE)
    assert wrong.has(BLOB, tuple(ONE))
    assert not wrong.has(BLOB, OTHER)
    assert not wrong.has(BLOB, ONE[::-1])
    assert not wrong.has(BLOB, [])
    assert not wrong.has(B3Digest.of(b"other"), ONE)


def test_only_what_is_in_one_piece_can_be_put_right_without_being_seen() -> None:
    wrong = WrongIndexes()
    wrong.add(BLOB, ONE)
    wrong.forget(BLOB)
    assert wrong.has(BLOB, ONE)
    wrong.add(BLOB, ())
    wrong.forget(BLOB)
    assert not wrong.has(BLOB, ())


def test_the_oldest_is_forgotten() -> None:
    wrong = WrongIndexes()
    blobs = [B3Digest.of(b"%d" % number) for number in range(1025)]
    for blob in blobs:
        wrong.add(blob, ONE)
    assert [wrong.has(blob, ONE) for blob in (blobs[0], blobs[1], blobs[-1])] == [False, True, True]
