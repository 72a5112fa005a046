"""What a cache can do, derived from what its near and its far can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from castore import B3Digest, BlobService
from castore.composites.members import Member
from castore.composites.union import UnionDeleter
from castore.contract.capabilities import BlobDeleter, Durable
from castore_cache.behind import Behind


class CacheDeleter(UnionDeleter):
    """Deletes a blob from far and from near, and from what far is still to get."""

    def __init__(
        self, name: str, members: Sequence[tuple[Member, BlobDeleter]], behind: Behind | None
    ) -> None:
        super().__init__(name, members)
        self._behind = behind

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob everywhere; return whether it was anywhere."""
        if self._behind is not None:
            self._behind.forget(digest)
        return super().delete(digest)


class Durability(Durable):
    """What a blob survives that a cache has acknowledged."""

    def __init__(self, level: Literal["process", "full"]) -> None:
        self._level = level

    @property
    def durability(self) -> Literal["process", "full"]:
        """That of the best of the services that are sure to have it."""
        return self._level


def durability_of(services: Iterable[BlobService]) -> Durable | None:
    """Return what a blob survives that all of *services* have, `None` if none of them says."""
    stated = [service.capability(Durable) for service in services]
    levels = {entry.durability for entry in stated if entry is not None}
    if not levels:
        return None
    return Durability("full" if "full" in levels else "process")
