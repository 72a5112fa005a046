"""Where things are, by their digests: sorted rows of 48 bytes, in few long runs."""

from __future__ import annotations

import heapq
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from castore.contract.upkeep import DigestRange
from castore.threads import forks

_ROW: Final = struct.Struct("<32sIIII")
_SIZE: Final = _ROW.size
_YOUNG: Final = 1 << 14
"""So many rows are in a dictionary, which takes six times their memory."""


class Row(NamedTuple):
    """Where something is: a part of a pack.

    Attributes:
        digest: What it is.
        pack: The number of the pack.
        offset: Where it begins there.
        length: How many bytes it has there.
        size: How many bytes the chunk has, 0 if that is not known.
    """

    digest: bytes
    pack: int
    offset: int
    length: int
    size: int


class Table:
    """Places by digests; one digest may have several. New rows are merged into runs like those before."""

    def __init__(self) -> None:
        self._young: dict[bytes, tuple[Row, ...]] = {}
        self._count = 0
        self._runs: tuple[_Run, ...] = ()
        self._lock = forks.new_lock()

    def add(self, places: Iterable[Row]) -> None:
        """Add places."""
        with self._lock:
            for place in places:
                known = self._young.get(place.digest)
                self._young[place.digest] = (place,) if known is None else (place, *known)
                self._count += 1
            if self._count >= _YOUNG:
                run = _Run(sorted(_ROW.pack(*place) for each in self._young.values() for place in each))
                older = list(self._runs)
                while older and older[-1].count <= 2 * run.count:
                    run = _merged(older.pop(), run)
                # First: who looks in between finds a row twice, and not never.
                self._runs = (*older, run)
                self._young, self._count = {}, 0

    def find(self, digest: bytes) -> list[Row]:
        """Return all places of a digest, those that were added last first."""
        found = list(self._young.get(digest, ()))
        for run in reversed(self._runs):
            found.extend(run.find(digest))
        if len(found) > 1:
            found.sort(key=lambda place: -place.pack)
        return found

    def __iter__(self) -> Iterator[Row]:
        """Go through all places by the order of their digests."""
        return self.within(DigestRange())

    def within(self, part: DigestRange) -> Iterator[Row]:
        """Go through the places of the digests in a range, by their order; no others are looked at."""
        with self._lock:
            young = sorted(place for digest, each in self._young.items() if digest in part for place in each)
            runs = self._runs
        return heapq.merge(young, *(run.within(part) for run in runs))


class _Run:
    """Sorted rows, with the numbers of the first rows for each first two bytes of a digest."""

    def __init__(self, rows: Sequence[bytes]) -> None:
        starts = [0] * 65537
        for row in rows:
            starts[(row[0] << 8 | row[1]) + 1] += 1
        self._starts = array("I", accumulate(starts))
        self.data = b"".join(rows)
        self.count = len(rows)

    def find(self, digest: bytes) -> Iterable[Row]:
        first = digest[0] << 8 | digest[1]
        start, stop = self._starts[first] * _SIZE, self._starts[first + 1] * _SIZE
        if start == stop or (at := self.data.find(digest, start, stop)) < 0:
            return ()
        return self._all_from(digest, at, stop)

    def _all_from(self, digest: bytes, at: int, stop: int) -> Iterator[Row]:
        while at >= 0:
            if not at % _SIZE:
                yield Row._make(_ROW.unpack_from(self.data, at))
            at = self.data.find(digest, at + 1, stop)

    def within(self, part: DigestRange) -> Iterator[Row]:
        start = 0 if part.first is None else self._place_of(part.first)
        stop = self.count if part.before is None else max(start, self._place_of(part.before))
        rows = memoryview(self.data)[start * _SIZE : stop * _SIZE]
        return map(Row._make, _ROW.iter_unpack(rows))

    def _place_of(self, digest: bytes) -> int:
        """Return how many rows have smaller digests."""
        return bisect_left(
            range(self.count), digest, key=lambda at: self.data[at * _SIZE : at * _SIZE + len(digest)]
        )

    def rows(self) -> list[bytes]:
        return [self.data[at : at + _SIZE] for at in range(0, len(self.data), _SIZE)]


def _merged(one: _Run, other: _Run) -> _Run:
    # Two sorted lists in a row are sorted by one merge.
    return _Run(sorted(one.rows() + other.rows()))
