"""A composite asks each member what the member alone would be asked, and no more: it has no loops.

Counted are the calls of the members' capabilities and services, and the things that they are about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService
from castore.composites.members import Member
from castore.contract.capabilities import ChunkSource
from castore.contract.operations import Operation
from castore.testing import P3M
from castore.wrapping.wrapper import WrapperService
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.service import MirrorBlobService

FILES: Final = 300


class Counting(WrapperService):
    """Counts operations, and the things that they are about."""

    def __init__(self, *, high_latency: bool = False) -> None:
        inner = MemoryBlobService()
        inner.high_latency = high_latency
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.things: Counter[str] = Counter()

    def around(self, operation: Operation, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls[operation] += 1
        self.things[operation] += operation.count_items(args, kwargs)
        return call(*args, **kwargs)

    def take(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return what was counted since the last time."""
        counted = dict(self.calls), dict(self.things)
        self.calls.clear()
        self.things.clear()
        return counted


Make = Callable[[list[Counting]], BlobService]


def mirror(members: list[Counting]) -> BlobService:
    named = [Member(f"member {number}", service) for number, service in enumerate(members)]
    quorum = len(named) // 2 + 1
    return MirrorBlobService(named, write_quorum=quorum, miss_quorum=quorum, read_repair=False)


def fallback(members: list[Counting]) -> BlobService:
    return FallbackBlobService([Member(f"member {number}", one) for number, one in enumerate(members)])


COMPOSITES: Final[dict[str, tuple[Make, int, bool]]] = {
    # How many members, and whether all are written to.
    "mirror-of-two": (mirror, 2, True),
    "mirror-of-three": (mirror, 3, True),
    "fallback": (fallback, 2, False),
}


def put_files(folder: Path) -> Callable[[BlobService], object]:
    paths = []
    for number in range(FILES):
        paths.append(folder / str(number))
        paths[-1].write_bytes(b"%d" % number * 100)
    return lambda service: list(service.put_files(paths))


def put_file(folder: Path) -> Callable[[BlobService], object]:
    path = folder / "large"
    path.write_bytes(P3M.data)
    return lambda service: service.put_file(path)


WRITES: Final = {"many small files": put_files, "a large file": put_file}


@pytest.mark.parametrize("high_latency", [False, True])
@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_storing(tmp_path: Path, composite: str, what: str, high_latency: bool) -> None:
    """New, and the same again: as many calls of each kind, about as many things."""
    make, count, all_written = COMPOSITES[composite]
    put = WRITES[what](tmp_path)
    bare = Counting(high_latency=high_latency)
    members = [Counting(high_latency=high_latency) for _ in range(count)]
    service = make(members)
    for _ in ("new", "again"):
        put(bare)
        put(service)
        expected = bare.take()
        for number, member in enumerate(members):
            taken = member.take()
            if number and all_written:
                # What a known file is made of is asked of one of them.
                for counts in expected:
                    counts.pop("chunks", None)
            assert taken == (expected if all_written or not number else ({}, {}))
    assert service.missing(bare.inner.list_blobs()) == set()


@pytest.mark.parametrize("composite", COMPOSITES)
def test_reading(composite: str) -> None:
    """Many small blobs, and chunks: the first member is asked as if it were alone, the others not at all."""
    make, count, _ = COMPOSITES[composite]
    bare, *members = [Counting() for _ in range(count + 1)]
    digests = [service.write(b"%d" % n * 100) for n in range(FILES) for service in [bare, *members]]
    for one in [bare, *members]:
        one.write(P3M.data)
    sizes = {meta.digest: meta.size for meta in bare.chunks(P3M.digest) or ()}
    service = make(members)
    asked: list[Callable[[BlobService], Any]] = [
        lambda service: dict(service.read_many(digests)),
        lambda service: service.missing(digests),
        lambda service: service.capability(ChunkSource).get_chunks(sizes),  # type: ignore[union-attr]
        lambda service: service.capability(ChunkSource).find_chunks(sizes),  # type: ignore[union-attr]
    ]
    for ask in asked:
        for one in [bare, *members]:
            one.take()
        assert ask(service) == ask(bare)
        assert members[0].take() == bare.take()
        assert all(member.take() == ({}, {}) for member in members[1:])


@pytest.mark.parametrize("composite", COMPOSITES)
def test_what_the_first_lacks_comes_of_the_next_with_one_call(composite: str) -> None:
    """Each is asked for all that is not found yet."""
    make, count, _ = COMPOSITES[composite]
    members = [Counting() for _ in range(count)]
    here = {members[0].write(b"here %d" % number) for number in range(10)}
    there = {members[1].write(b"there %d" % number) for number in range(10)}
    nowhere = {B3Digest.of(b"nowhere %d" % number) for number in range(10)}
    for member in members:
        member.take()
    source: Any = make(members).capability(ChunkSource)
    assert source.get_chunks(dict.fromkeys(here | there | nowhere)).keys() == here | there
    asked = [30, 20, 10][:count]
    assert [member.take() for member in members] == [
        ({"get_chunks": 1}, {"get_chunks": things}) for things in asked
    ]
