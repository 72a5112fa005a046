"""Cutting: the boundaries of the reference, and the same ones however a stream arrives."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from castore.digest import B3Digest
from castore.format.chunking import (
    BUNDLED_CHUNKERS,
    DEFAULT_AVG_SIZE,
    MAX_AVG_SIZE,
    MAX_CHUNK_SIZE,
    MIN_AVG_SIZE,
    Chunker,
    FastCdc2016,
    FastCdc2020,
    settled_cuts,
)

KIB = 1 << 10


@cache
def blob_b() -> bytes:
    """The large fixture of the reference's own tests."""
    return bytes(range(255)) * 4096


@cache
def p3m() -> bytes:
    """3 MiB without a pattern, yet the same everywhere."""
    blocks = (
        hashlib.sha256(b"castore-vector" + number.to_bytes(8, "big")).digest()
        for number in range(3 * KIB * KIB // 32)
    )
    return b"".join(blocks)


def _lengths(data: bytes, avg_size: int = DEFAULT_AVG_SIZE) -> list[int]:
    return list(FastCdc2020(avg_size).cut(memoryview(data)))


def _parts(data: bytes, lengths: list[int]) -> list[bytes]:
    ends = list(accumulate(lengths))
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _digests(data: bytes, lengths: list[int]) -> list[str]:
    return [str(B3Digest.of(part)) for part in _parts(data, lengths)]


# -- the vectors of the reference --


def test_the_fixtures_are_the_ones_the_vectors_were_made_of() -> None:
    assert len(blob_b()) == 1_044_480
    assert str(B3Digest.of(blob_b())) == "a82c5154a7a0c262c6fdb929a317585646f8fbcf80326d0a7b8747edaf2d99d2"
    assert len(p3m()) == 3_145_728
    assert str(B3Digest.of(p3m())) == "abdd4e99ed8b8c37e585bc3b28ded7b3347580a77c70358b2951f1b94aaddc7b"


def test_the_default_average_is_that_of_the_reference() -> None:
    chunker = FastCdc2020()

    assert (chunker.min_size, chunker.avg_size, chunker.max_size) == (131_072, 262_144, 524_288)


def test_blob_b_is_cut_in_two() -> None:
    lengths = _lengths(blob_b())

    assert lengths == [524_288, 520_192]
    assert _digests(blob_b(), lengths) == [
        "79445f0f1420045f8be59af5f7915cfd9182c978ece11a21913641e457fa9794",
        "832c7fbdbe9a537273cfe0299195a09ba7d08b6da842ab25fea373d739e9c5ac",
    ]


def test_blob_b_is_cut_in_820_at_an_average_of_1024() -> None:
    lengths = _lengths(blob_b(), 1024)

    assert lengths == [1130, *[1275] * 818, 400]
    digests = _digests(blob_b(), lengths)
    assert digests[0] == "0abfc39ca21da1f566395b17434064716c0df63d6fe93c961bc2e1718af7f5b3"
    assert set(digests[1:-1]) == {"6e046c25f016f4fe86a1663c5bff6f97cd8617411ca9a65024e220fcc1bb0592"}
    assert digests[-1] == "00d7d8c60c21348feaa8a9ecf506f689b9eb5212ebb3f2aeece0567ed3cdb07c"


def test_zeros_are_cut_at_the_maximum() -> None:
    zeros = bytes(1 << 20)

    assert _lengths(zeros) == [524_288] * 2
    assert (
        _digests(zeros, [524_288] * 2)
        == ["934d6b7aea5a339a9e858430cca7ac455d3537e70fd2b302931cc93b25e1df9a"] * 2
    )


P3M_LENGTHS = [486_450, 524_288, 241_210, 314_451, 417_161, 524_288, 524_288, 113_592]


def test_three_megabytes_are_cut_where_the_reference_cuts_them() -> None:
    assert _lengths(p3m()) == P3M_LENGTHS
    assert [digest[:8] for digest in _digests(p3m(), P3M_LENGTHS)] == [
        "0e1707f8",
        "b0e75a92",
        "ee28b02f",
        "90d917ae",
        "701c3a02",
        "adc68184",
        "9a1e901b",
        "387fd1e1",
    ]


@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        (0, []),
        (1, [1]),
        (131_072, [131_072]),
        (131_073, [131_073]),
        (486_449, [486_449]),
        (486_450, [486_450]),
        (486_451, [486_451]),  # bytes are looked at in pairs: the odd one is not
        (486_452, [486_450, 2]),
        (524_288, [486_450, 37_838]),
        (524_289, [486_450, 37_839]),
    ],
)
def test_a_prefix_is_cut_where_the_whole_is(size: int, lengths: list[int]) -> None:
    assert _lengths(p3m()[:size]) == lengths


# -- the algorithm, written out a second time from its published constants --

_GEAR = [int.from_bytes(hashlib.md5(bytes([byte]) * 64).digest()[:8], "big") for byte in range(256)]
_MASKS = {8: 0x1800035300, 9: 0x19000353000, 10: 0x590003530000, 11: 0xD90003530000, 12: 0xD90103530000}
_64_BITS = (1 << 64) - 1


def _first_cut(data: bytes, avg_size: int, bits: int) -> int:
    """FastCDC of 2020 with normalization level 1, as the paper has it: two bytes a step."""
    size = min(len(data), avg_size * 2)
    if size <= avg_size // 2:
        return size
    value = 0
    center = min(avg_size, size)
    for start, end, mask in (
        (avg_size // 4, center // 2, _MASKS[bits + 1]),
        (center // 2, size // 2, _MASKS[bits - 1]),
    ):
        for place in range(start, end):
            value = ((value << 2) + (_GEAR[data[2 * place]] << 1)) & _64_BITS
            if not value & (mask << 1):
                return 2 * place
            value = (value + _GEAR[data[2 * place + 1]]) & _64_BITS
            if not value & mask:
                return 2 * place + 1
    return size


def _cuts(data: bytes, avg_size: int, bits: int) -> Iterator[int]:
    start = 0
    while start < len(data):
        length = _first_cut(data[start : start + 2 * avg_size], avg_size, bits)
        yield length
        start += length


@pytest.mark.parametrize(
    ("avg_size", "bits"),
    [(512, 9), (513, 9), (700, 9), (725, 10), (1000, 10), (1024, 10), (1500, 11), (2048, 11)],
)
def test_the_default_chunker_is_the_published_algorithm(avg_size: int, bits: int) -> None:
    """Also for averages that are no capability of two: those are rounded on a logarithmic scale."""
    data = p3m()[:200_000]

    assert _lengths(data, avg_size) == list(_cuts(data, avg_size, bits))


# -- both chunkers --

# Of the `fastcdc` package, version 1.7.
FASTCDC_2016_LENGTHS = [
    226_042, 214_217, 137_304, 183_458, 174_335, 218_910, 173_909, 145_561,
    286_544, 226_779, 220_895, 415_466, 290_772, 164_087, 67_449,
]  # fmt: skip


@pytest.fixture(params=BUNDLED_CHUNKERS)
def kind(request: pytest.FixtureRequest) -> type[Chunker]:
    return BUNDLED_CHUNKERS[request.param]


def test_the_bundled_chunkers_have_their_tags() -> None:
    assert {"fastcdc-2020": FastCdc2020, "fastcdc-2016": FastCdc2016} == BUNDLED_CHUNKERS


def test_the_two_algorithms_cut_elsewhere() -> None:
    assert list(FastCdc2016().cut(memoryview(p3m()))) != P3M_LENGTHS


def test_the_2016_algorithm_goes_on_cutting_where_it_did() -> None:
    """A store written with it shares chunks with what is written later only as long as this holds."""
    assert list(FastCdc2016().cut(memoryview(p3m()))) == FASTCDC_2016_LENGTHS


@pytest.mark.parametrize("avg_size", [MIN_AVG_SIZE, 513, 1000, 1 << 20, 1_500_001, MAX_AVG_SIZE])
def test_all_chunks_are_within_bounds_and_together_all_bytes(kind: type[Chunker], avg_size: int) -> None:
    chunker = kind(avg_size)
    data = p3m() * 3 if avg_size > 1 << 18 else p3m()[:300_000]

    lengths = list(chunker.cut(memoryview(data)))

    assert sum(lengths) == len(data)
    assert max(lengths) <= chunker.max_size <= MAX_CHUNK_SIZE
    assert min(lengths[:-1]) >= chunker.min_size
    assert len(lengths) > 1
    assert (chunker.min_size, chunker.max_size) == (avg_size // 2, avg_size * 2)


@pytest.mark.parametrize("avg_size", [-1, 0, 1, 256, MIN_AVG_SIZE - 1, MAX_AVG_SIZE + 1, 1 << 30])
def test_an_average_that_the_reference_cannot_cut_at_is_refused(kind: type[Chunker], avg_size: int) -> None:
    with pytest.raises(ValueError, match=f"{avg_size} bytes is not between 512 and 2097153"):
        kind(avg_size)


@pytest.mark.parametrize("data", [b"", b"x", bytes(255), bytes(256)], ids=len)
def test_what_is_no_longer_than_the_minimum_is_one_chunk(kind: type[Chunker], data: bytes) -> None:
    assert list(kind(512).cut(memoryview(data))) == ([len(data)] if data else [])


def test_a_chunker_cuts_a_part_of_a_larger_buffer(kind: type[Chunker]) -> None:
    buffer = bytearray(p3m()[:50_000])
    whole = list(kind(1024).cut(memoryview(p3m()[1000:40_000])))

    assert list(kind(1024).cut(memoryview(buffer)[1000:40_000])) == whole


def test_a_chunker_lets_go_of_its_buffer(kind: type[Chunker]) -> None:
    """A writer's segment grows: that takes that nobody holds a view of it."""
    buffer = bytearray(50_000)
    with memoryview(buffer) as view:
        list(kind(1024).cut(view))

    buffer.extend(b"more")


def test_a_chunker_can_be_used_again(kind: type[Chunker]) -> None:
    chunker = kind(1024)
    first = list(chunker.cut(memoryview(p3m()[:50_000])))
    list(chunker.cut(memoryview(bytes(30_001))))

    assert list(chunker.cut(memoryview(p3m()[:50_000]))) == first


# -- streams --


def _stream(chunker: Chunker, parts: list[bytes]) -> tuple[list[int], int]:
    """Cut *parts* as they come; return the lengths, and the most that ever had to wait."""
    lengths: list[int] = []
    waiting = b""
    most = 0
    for part in parts:
        waiting += part
        settled = list(settled_cuts(chunker, memoryview(waiting), final=False))
        lengths += settled
        waiting = waiting[sum(settled) :]
        most = max(most, len(waiting))
    lengths += settled_cuts(chunker, memoryview(waiting), final=True)
    return lengths, most


def _split(data: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(borders)]


# Few different bytes make early and late cuts; many make cuts at all.
_DATA = st.builds(
    lambda seed, size, kinds: bytes(random.Random(seed).choices(range(kinds), k=size)),
    st.integers(0, 1000),
    st.integers(0, 20_000),
    st.sampled_from([1, 2, 256]),
)


@settings(max_examples=60, deadline=None)
@given(
    data=_DATA,
    places=st.lists(st.integers(0, 20_000), max_size=30),
    avg_size=st.integers(512, 3000),
    tag=st.sampled_from(sorted(BUNDLED_CHUNKERS)),
)
@example(data=bytes(2048), places=[1024], avg_size=512, tag="fastcdc-2020")
@example(data=bytes(2048), places=[1023, 1025], avg_size=512, tag="fastcdc-2016")
def test_a_stream_is_cut_as_if_in_one(data: bytes, places: list[int], avg_size: int, tag: str) -> None:
    chunker = BUNDLED_CHUNKERS[tag](avg_size)
    whole = list(chunker.cut(memoryview(data)))

    lengths, most = _stream(chunker, _split(data, places))

    assert lengths == whole
    assert most < chunker.max_size  # so a buffer of twice the maximum always moves on


def test_a_long_stream_is_cut_as_if_in_one(kind: type[Chunker]) -> None:
    whole = list(kind().cut(memoryview(p3m())))
    parts = [p3m()[start : start + 99_991] for start in range(0, len(p3m()), 99_991)]

    assert _stream(kind(), parts)[0] == whole


def test_a_chunk_settles_as_soon_as_the_maximum_is_there(kind: type[Chunker]) -> None:
    chunker = kind(512)
    zeros = bytes(3000)

    assert list(settled_cuts(chunker, memoryview(zeros)[:1023], final=False)) == []
    first = next(chunker.cut(memoryview(zeros)))
    assert list(settled_cuts(chunker, memoryview(zeros)[:1024], final=False)) == [first]


def test_nothing_settles_of_nothing(kind: type[Chunker]) -> None:
    for final in (False, True):
        assert list(settled_cuts(kind(), memoryview(b""), final=final)) == []


def test_a_chunk_that_ends_before_the_data_is_settled(kind: type[Chunker]) -> None:
    """However little follows, if the chunker does not look ahead; else as much as a chunk can have must."""
    near, far = kind(512), kind(512)
    far.looks_ahead = True
    held_back = 0
    for size in range(19_000, 21_000, 100):
        data = memoryview(p3m())[:size]
        lengths = list(near.cut(data))
        ended = lengths if lengths[-1] == near.max_size else lengths[:-1]
        assert list(settled_cuts(near, data, final=False)) == ended

        starts = accumulate(lengths, initial=0)
        surely = [length for start, length in zip(starts, lengths, strict=False) if start + 1024 <= size]
        assert list(settled_cuts(far, data, final=False)) == surely
        held_back += len(ended) - len(surely)
    assert held_back
