"""How much goes into one call for many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

CALLS_AT_ONCE: Final = 16
"""How many calls for a single blob are made at once where requests mostly wait, and no chunks are kept."""

MOST_ITEMS: Final = 1024
"""How many items a call for many has at most."""

MOST_BYTES: Final = 16 << 20
"""How many bytes they have together at most, unless a single one has more."""

MOST_UNKNOWN: Final = 1 << 20
"""What an item counts whose size is not known, and how many bytes a chunk of no known size may have."""


def batches(
    items: Iterable[T],
    size_of: Callable[[T], int | None],
    *,
    most_items: int = MOST_ITEMS,
    most_bytes: int = MOST_BYTES,
) -> Iterator[list[T]]:
    """Yield *items* in order, together as many as one call may have.

    *size_of* returns the bytes of an item, `None` if they are not known.
    """
    batch: list[T] = []
    total = 0
    for item in items:
        known = size_of(item)
        size = MOST_UNKNOWN if known is None else known
        if batch and (len(batch) == most_items or total + size > most_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch
