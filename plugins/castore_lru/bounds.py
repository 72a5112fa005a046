"""What a store may take, and how much of it has to go when that is too much."""

from __future__ import annotations

import math
import sys
from typing import Final

import attrs

LOW_WATERMARK: Final = 0.9


@attrs.frozen
class Amount:
    """How many bytes, in how many items."""

    size: int = 0
    entries: int = 0


@attrs.frozen
class Excess:
    """What has to go: so many bytes, so many items, and all that was used last before *cutoff*."""

    size: int = 0
    entries: int = 0
    cutoff: float = -math.inf

    @property
    def is_crowded(self) -> bool:
        """Whether something has to go for want of room, however young it is."""
        return self.size > 0 or self.entries > 0

    def met(self, gone: Amount, used: float) -> bool:
        """Tell whether enough is gone, so that an item used last at *used*, or any younger one, may stay."""
        return gone.size >= self.size and gone.entries >= self.entries and used >= self.cutoff


@attrs.frozen
class Bounds:
    """The bounds of a store; `None` is no bound.

    Attributes:
        max_bytes: How many bytes its items may have together.
        max_entries: How many items there may be, chunks and indexes.
        max_age: For how many seconds an item stays that is not used.
        min_free: How many bytes of its file system are left free.
        low_watermark: Once something has to go, so much goes that this share of the first two is left.
    """

    max_bytes: int | None = None
    max_entries: int | None = None
    max_age: float | None = None
    min_free: int | None = None
    low_watermark: float = LOW_WATERMARK

    def allow(self, amount: Amount) -> bool:
        """Tell whether *amount* could be there if nothing else was."""
        return (self.max_bytes is None or amount.size <= self.max_bytes) and (
            self.max_entries is None or amount.entries <= self.max_entries
        )

    def most(self, each: Amount) -> int:
        """Return how many times *each* could be there, if nothing else was; a very large number if always."""
        counts = [sys.maxsize]
        if self.max_bytes is not None and each.size:
            counts.append(self.max_bytes // each.size)
        if self.max_entries is not None and each.entries:
            counts.append(self.max_entries // each.entries)
        return min(counts)

    def excess(self, there: Amount, coming: Amount, free: int | None, now: float) -> Excess:
        """Return what has to go so that *coming* fits beside what is *there*, with *free* bytes left."""
        size = 0 if self.max_bytes is None else there.size + coming.size - self.max_bytes
        entries = 0 if self.max_entries is None else there.entries + coming.entries - self.max_entries
        if self.min_free is not None and free is not None:
            size = max(size, self.min_free + coming.size - free)
        return Excess(max(size, 0), max(entries, 0), self.cutoff(now))

    def wanted(self, there: Amount, free: int | None, now: float) -> Excess:
        """Return what goes as well once something has to: all above the low watermark."""
        low = self.low_watermark
        size = 0 if self.max_bytes is None else there.size - math.floor(self.max_bytes * low)
        entries = 0 if self.max_entries is None else there.entries - math.floor(self.max_entries * low)
        if self.min_free is not None and free is not None:
            size = max(size, math.ceil(self.min_free * (2 - low)) - free)
        return Excess(max(size, 0), max(entries, 0), self.cutoff(now))

    def __str__(self) -> str:
        parts = {
            "max_bytes": self.max_bytes,
            "max_entries": self.max_entries,
            "min_free": self.min_free,
        }
        return ", ".join(f"{name} = {value}" for name, value in parts.items() if value is not None)

    def cutoff(self, now: float) -> float:
        """Return before when what was used last then is too old."""
        return -math.inf if self.max_age is None else now - self.max_age
