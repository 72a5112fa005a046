"""However much a service keeps, looking after it takes little memory."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore import B3Digest, BlobReader, BlobService, ChunkMeta, UnavailableError
from castore.chunks.backend import ChunkBackend
from castore.contract.capabilities import BlobLister, FoundChunks
from castore.contract.upkeep import StoredItem, Sweepable
from castore.threads.pool import Pool
from castore.upkeep import bounded
from castore.upkeep.bounded import DigestSet, ItemList
from castore.upkeep.collecting import collect
from castore.upkeep.copying import copy
from castore.upkeep.verifying import verify

OLD, YOUNG = 1_000.0, 2_000.0


class Endless(ChunkBackend, BlobLister, Sweepable):
    """A store of many blobs of two chunks each, made up as they are asked for; two thirds of them are old."""

    renewal_seconds = 0.0

    def __init__(self, count: int) -> None:
        self.count = count
        self.swept = 0
        self._latest: ChainMap[bytes, Any] = ChainMap()

    @property
    def pool(self) -> Pool:
        return Pool(0)

    def _number(self, number: int) -> tuple[B3Digest, list[bytes]]:
        parts = [b"%d %d" % (number, end) for end in (1, 2)]
        return B3Digest.of(b"".join(parts)), parts

    def list_blobs(self) -> Iterator[B3Digest]:
        return (digest for digest, _ in self._known())

    def _known(self) -> Iterator[tuple[B3Digest, list[bytes]]]:
        # What is asked for next is what was listed last, mostly: so little is to be remembered.
        latest = self._latest.maps[0]
        for number in range(self.count):
            if not number % 1024:
                self._latest = ChainMap({}, latest)
                latest = self._latest.maps[0]
            digest, parts = self._number(number)
            latest[digest] = parts
            latest.update((B3Digest.of(part), part) for part in parts)
            yield digest, parts

    def list_items(self) -> Iterator[StoredItem]:
        for number, (digest, _) in enumerate(self._known()):
            yield StoredItem("index", f"blobs/{digest}", digest, 100, YOUNG if number % 3 == 0 else OLD)
        for _, parts in self._known():
            for part in parts:
                digest = B3Digest.of(part)
                yield StoredItem("chunk", f"chunks/{digest}", digest, 50, OLD)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        parts = self._latest.get(digest)
        return None if parts is None else [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set()

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return {digest: self._latest[digest] for digest in sizes if digest in self._latest}

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        for item in items:
            self.swept += 1
            yield item

    def leased_since(self) -> float | None:
        return None

    def set_aside(self, item: StoredItem) -> str:
        raise NotImplementedError

    put_chunks = put_indexes = None  # type: ignore[assignment]


class Nothing(ChunkBackend):
    """Takes all, and has nothing."""

    pool = Pool(0)  # type: ignore[assignment]

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set()

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return None

    def put_chunks(self, chunks: Any) -> None:
        pass

    def put_indexes(self, blobs: Any) -> None:
        pass

    def get_chunks(self, sizes: Any) -> FoundChunks:
        return {}

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return None


def collect_all(service: Endless) -> None:
    found = collect(service, [], no_roots=True, grace_seconds=500, clock=lambda: YOUNG + 400)
    young = -(-service.count // 3)
    assert found.gone["index"].count == service.count - young
    assert found.gone["chunk"].count == 2 * (service.count - young)
    assert found.too_new["chunk"].count == 2 * young


def verify_all(service: Endless) -> None:
    report = verify(service, pool=Pool(0))
    assert (report.findings, report.tally.blobs) == ([], service.count)


def copy_all(service: Endless) -> None:
    counts, failed = copy(service, Nothing(), pool=Pool(0))
    assert (counts.blobs_copied, failed) == (service.count, [])


WORKS: dict[str, Callable[[Endless], None]] = {"gc": collect_all, "verify": verify_all, "copy": copy_all}


def peak_of(call: Callable[[], object]) -> int:
    """Return how many bytes more than at its beginning *call* has at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("work", WORKS)
def test_memory_does_not_grow_with_the_service(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many chunks take little more, once the first thousands fill what is kept in memory."""
    monkeypatch.setattr(bounded, "_MOST_DIGESTS", 1000)
    monkeypatch.setattr(bounded, "_MOST_BYTES", 64 << 10)
    few, many = (peak_of(lambda: WORKS[work](Endless(count))) for count in (3_000, 8_000))  # noqa: B023 - called here
    assert many < few + 300_000


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("work", WORKS)
def test_a_million_chunks(work: str) -> None:
    """A set of them would take 100 MB. (Minutes: all of them are listed, read and hashed.)"""
    assert peak_of(lambda: WORKS[work](Endless(500_000))) < 40_000_000


# -- the set, and the list --


@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=12), st.booleans())
def test_a_set_of_digests_is_one(groups: list[list[int]], one_by_one: bool) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(DigestSet()) as found:
        patch.setattr(bounded, "_MOST_DIGESTS", 5)
        expected: set[bytes] = set()
        for group in groups:
            digests = [B3Digest.of(b"%d" % number) for number in group]
            if one_by_one:
                for digest in digests:
                    assert found.add(digest) == (digest not in expected)
                    expected.add(digest)
            else:
                found.update(digests)
                expected.update(digests)
            assert len(found) == len(expected)
        for number in range(41):
            digest = B3Digest.of(b"%d" % number)
            assert (digest in found) == (digest in expected)
        assert None not in found


def test_a_list_of_items_gives_them_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_MOST_BYTES", 300)
    digest = B3Digest.of(b"1")
    items = [
        StoredItem("index", f"blobs/{digest}", digest, 12, 3.5),
        StoredItem("chunk", "chunks/a\nb", digest),
        StoredItem("residue", "no text \udcff, and é", None, 0, None, foreign=True),
    ] * 5
    with contextlib.closing(ItemList()) as found:
        for _ in range(2):
            for item in items:
                found.add(item)
            assert list(found.take()) == items
            assert list(found.take()) == []


def test_a_temporary_folder_that_fails_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing was removed by then."""
    monkeypatch.setattr(bounded, "_MOST_DIGESTS", 100)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bounded.sqlite3, "connect", fail)
    service: BlobService = Endless(500)
    with pytest.raises(UnavailableError, match="the temporary folder"):
        collect_all(service)  # type: ignore[arg-type]
    assert service.swept == 0  # type: ignore[attr-defined]
