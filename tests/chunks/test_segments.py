"""A segment: filled to its end, what is carried over in front, and done when all of its jobs are."""

from __future__ import annotations

import pytest
from castore.chunks.segments import Segment

from castore import B3Digest, ChunkMeta

META = ChunkMeta(B3Digest.of(b"chunk"), 5)
OTHER = ChunkMeta(B3Digest.of(b"other"), 5)


def test_it_takes_what_there_is_space_for() -> None:
    segment = Segment(10)

    assert segment.take(memoryview(b"1234567")) == 7
    assert not segment.full
    assert segment.take(memoryview(b"abcdefg")) == 3
    assert segment.full
    assert segment.content == b"1234567abc"
    assert segment.size == 10


def test_it_is_filled_where_bytes_are_free() -> None:
    segment = Segment(10, 4)
    segment.take(memoryview(b"123"))

    def read(buffer: memoryview) -> int:
        assert len(buffer) == 7
        buffer[:2] = b"45"
        return 2

    assert segment.fill(read) == 2
    assert segment.content == b"12345"


@pytest.mark.parametrize("rest", [b"", b"xy", b"wxyz"])
def test_what_is_carried_over_goes_in_front(rest: bytes) -> None:
    segment = Segment(5, 4)
    segment.take(memoryview(b"12345"))

    segment.begin_with(rest)

    assert segment.content == rest + b"12345"
    assert segment.size == 5
    assert segment.full


def test_it_grows_and_keeps_what_is_in_it() -> None:
    segment = Segment(3)
    segment.take(memoryview(b"123"))

    segment.grow(8, 2)

    assert segment.content == b"123"
    assert segment.size == 8
    segment.begin_with(b"ab")
    assert segment.content == b"ab123"


def test_it_is_done_when_it_was_cut_and_all_jobs_are() -> None:
    segment = Segment(10)
    first, second = [memoryview(b"chunk")], [memoryview(b"other"), memoryview(b"chunk")]
    assert not segment.done

    segment.be_cut([first, second])
    assert list(segment.jobs) == [(0, first), (1, second)]
    segment.be_stored(1, [OTHER, META])
    assert not segment.done
    segment.be_stored(0, [META])

    assert segment.done
    assert segment.metas == [META, OTHER, META]


def test_one_of_which_nothing_is_settled_is_done_when_it_was_cut() -> None:
    segment = Segment(10)

    segment.be_cut([])

    assert segment.done
    assert segment.metas == []


def test_an_empty_one_is_as_new() -> None:
    segment = Segment(5, 4)
    segment.take(memoryview(b"12345"))
    segment.begin_with(b"ab")
    segment.be_cut([[memoryview(b"chunk")]])
    segment.be_stored(0, [META])

    segment.empty()

    assert (segment.content, segment.done, segment.metas, list(segment.jobs)) == (b"", False, [], [])
    assert segment.take(memoryview(b"123456")) == 5
