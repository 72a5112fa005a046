"""Sets of chunks take a bit for each, and are what sets of objects are."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore import B3Digest, ChunkMeta
from castore.contract import chunk_sets
from castore.contract.chunk_list import ChunkList
from castore.contract.chunk_sets import ChunkSet, ChunkUniverse

METAS = st.builds(
    lambda name, size: ChunkMeta(B3Digest.of(b"%d" % name), size), st.integers(0, 30), st.integers(1, 3)
)
LISTS = st.lists(st.lists(METAS, min_size=1, max_size=40).map(ChunkList), min_size=2, max_size=4)


@given(LISTS, st.integers(1, 5))
def test_they_are_what_sets_of_objects_are(lists: list[ChunkList], per_box: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_sets, "_PER_BOX", per_box)
        universe = ChunkUniverse(lists)
    one, other = universe.of_list(0), universe.of_list(1)
    known, others = set(lists[0]), set(lists[1])
    for made, expected in [
        (one, known),
        (one | other, known | others),
        (one & other, known & others),
        (one - other, known - others),
        (ChunkSet() | one, known),
        (one | ChunkSet(), known),
        (universe.every(), set().union(*lists)),
    ]:
        assert list(made) == list(dict.fromkeys(made)), "each once"
        assert set(made) == expected
        assert len(made) == len(expected)
        assert bool(made) == bool(expected)
        assert made.size == sum(meta.size for meta in expected)
    assert (one >= other) == (known >= others)
    assert (one | other) >= other


def test_sets_of_different_lists_are_not_compared() -> None:
    one, other = (ChunkUniverse([ChunkList([ChunkMeta(B3Digest.of(b"x"), 1)])]).every() for _ in range(2))
    with pytest.raises(ValueError, match="different lists"):
        one | other


def test_they_take_little_memory() -> None:
    """A set of objects takes more than a hundred bytes for each."""
    count = 200_000
    raw = os.urandom(32 * count)
    chunks = ChunkList()
    chunks.add([raw[at : at + 32] for at in range(0, len(raw), 32)], [1] * count)
    tracemalloc.start()
    try:
        universe = ChunkUniverse([chunks])
        sets = [universe.of_list(0) for _ in range(20)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {len(each) for each in sets} == {count}
    assert peak < 30 * count
