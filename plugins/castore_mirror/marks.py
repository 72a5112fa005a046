"""The chunks that a member may have missed."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from castore import B3Digest
from castore.threads import forks

_REMEMBERED: Final = 100_000


class Marks:
    """Chunks that are marked, for one member. Used by many threads at once.

    With too many of them it is forgotten which they are, and all chunks count as marked from then on.
    """

    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self._digests: set[B3Digest] = set()
        self._any = False

    def add(self, digests: Iterable[B3Digest]) -> None:
        """Mark chunks."""
        with self._lock:
            self._digests.update(digests)
            if len(self._digests) > _REMEMBERED:
                self._digests.clear()
                self._any = True

    def among(self, digests: AbstractSet[B3Digest]) -> AbstractSet[B3Digest]:
        """Return those that are marked."""
        with self._lock:
            return digests if self._any else digests & self._digests

    def remove(self, digests: Iterable[B3Digest]) -> None:
        """Take the marks off chunks that are there."""
        with self._lock:
            if self._digests:
                self._digests.difference_update(digests)
