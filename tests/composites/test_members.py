"""Members: how long a call for many may take, what counts as failing, and what they say together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest

from castore import B3Digest, CorruptBlobError, UnavailableError
from castore.composites.members import Member, Members, periods, periods_of
from castore.contract.capabilities import ChunkSource, ChunkStore
from castore.faults import READS, FaultyService
from castore.threads.deadlines import Clock
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.service import MirrorBlobService

MIB: Final = 1 << 20


@pytest.mark.parametrize(
    ("items", "size", "expected"),
    [
        (0, 0, 1),
        (1, 0, 1),
        (64, 4 * MIB, 1),
        (65, 0, 2),
        (1, 4 * MIB + 1, 2),
        (1024, 0, 16),
        (1024, 16 * MIB, 16),
        (16, 100 * MIB, 25),
    ],
)
def test_a_timeout_holds_once_per_64_items_or_4_mib_begun(items: int, size: int, expected: int) -> None:
    assert periods(items, size) == expected


def test_a_size_that_is_not_known_counts_1_mib() -> None:
    assert periods_of([None] * 4) == 1
    assert periods_of([None] * 5) == 2
    assert periods_of([10] * 65) == 2


@attrs.define
class Noting(Clock):
    """Takes note of how long calls are waited for."""

    waited: list[float | None] = attrs.field(factory=list)

    def now(self) -> float:
        return 0.0

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        self.waited.append(seconds)
        return event.wait(30)


CHUNKS: Final = {B3Digest.of(b"%d" % number): b"%d" % number for number in range(65)}
ONE: Final = B3Digest.of(b"0")
LARGE: Final = {B3Digest.of(data): data for data in (bytes(3 * MIB), bytes(2 * MIB))}


def of_store(call: Callable[[ChunkStore], object]) -> Callable[[Any], object]:
    return lambda service: call(service.capability(ChunkStore))


CALLS: Final[dict[str, tuple[Callable[[Any], object], int]]] = {
    "missing of 65": (lambda service: service.missing(CHUNKS), 2),
    "has": (lambda service: service.has(ONE), 1),
    "find_chunks of 65": (of_store(lambda store: store.find_chunks(CHUNKS)), 2),
    "get_chunks of 65": (of_store(lambda store: store.get_chunks(dict.fromkeys(CHUNKS, 1))), 2),
    "get_chunks of 5 unknown": (of_store(lambda store: store.get_chunks(dict.fromkeys([*CHUNKS][:5]))), 2),
    "get_chunks of 5 MiB": (of_store(lambda store: store.get_chunks({ONE: 5 * MIB})), 2),
    "claim of 65": (of_store(lambda store: store.claim(CHUNKS)), 2),
    "claim_blobs of 65": (of_store(lambda store: store.claim_blobs(dict.fromkeys(CHUNKS, ()))), 2),
    "put_chunks of 65": (of_store(lambda store: store.put_chunks(CHUNKS)), 2),
    "put_chunks of 5 MiB": (of_store(lambda store: store.put_chunks(LARGE)), 2),
    "put_indexes of 65": (of_store(lambda store: store.put_indexes(dict.fromkeys(CHUNKS, ()))), 2),
    "put_index": (of_store(lambda store: store.put_index(ONE, ())), 1),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("composite", ["fallback", "mirror"])
def test_a_call_for_many_is_waited_for_longer(composite: str, what: str) -> None:
    clock = Noting()
    member = Member("a", MemoryBlobService(), timeout=1.5, clock=clock)
    other = Member("b", MemoryBlobService())
    call, expected = CALLS[what]
    if composite == "fallback":
        call(FallbackBlobService([member, other]))
    else:
        call(MirrorBlobService([member, other], write_quorum=2, miss_quorum=1))
    assert clock.waited == [1.5 * expected]


@pytest.mark.parametrize("repaired", [False, True])
def test_a_member_that_can_read_nothing_is_failing(repaired: bool) -> None:
    """Also if it says so of each chunk by itself; one of which a chunk is had has answered."""
    digests = [B3Digest.of(b"one"), B3Digest.of(b"two")]

    class Each(MemoryBlobService):
        def get_chunks(self, sizes: Any) -> Any:
            found: dict[B3Digest, Any] = {digest: UnavailableError("a", "no route") for digest in sizes}
            return {**found, digests[0]: b"one"} if repaired else found

    members = [Member("a", Each()), Member("b", MemoryBlobService())]
    service = FallbackBlobService(members)
    source = service.capability(ChunkSource)
    assert source is not None
    for count in (1, 2):
        if repaired:
            assert set(source.get_chunks(dict.fromkeys(digests))) == set(digests)
        else:
            with pytest.raises(UnavailableError, match="`a`: no route"):
                source.get_chunks(dict.fromkeys(digests))
        assert service.health()[0].failures == (0 if repaired else count)


def test_what_is_corrupt_was_answered() -> None:
    digest = B3Digest.of(b"data")
    member = Member("a", MemoryBlobService())
    error = CorruptBlobError("not right", expected=digest)
    found, lacking = Members("root", [member]).gather(lambda *_: {digest: error}, [digest])
    assert (found, member.failures) == ({}, 0)
    with pytest.raises(CorruptBlobError):
        lacking[digest].decide("root", 1)


@pytest.mark.parametrize("composite", ["fallback", "mirror"])
def test_has_and_missing_do_not_disagree(composite: str) -> None:
    """One is the other, of one digest: also if a member answers only one of them."""
    probes = [FaultyService(MemoryBlobService(), READS - {"has"}, instance=name) for name in "ab"]
    members = [Member(name, probe) for name, probe in zip("ab", probes, strict=True)]
    service = (
        FallbackBlobService(members)
        if composite == "fallback"
        else MirrorBlobService(members, write_quorum=1, miss_quorum=2)
    )
    digest = B3Digest.of(b"data")
    for ask in (lambda: service.has(digest), lambda: service.missing([digest])):
        with pytest.raises(UnavailableError):
            ask()
