"""An object store that takes its time for every request, as one at the other end of a line does."""

from __future__ import annotations

import time
from pathlib import Path

from castore_objectstore.local import LocalObjectStore
from castore_objectstore.object_store import LARGEST, Wholeness


class DelayingStore(LocalObjectStore):
    """Objects in a folder; each request takes *seconds* more."""

    high_latency = True

    def __init__(self, root: Path, seconds: float) -> None:
        super().__init__(root, instance="delaying", durability="process")
        self._seconds = seconds

    def get(self, key: str, most: int = LARGEST) -> bytes | None:
        """Return an object after a while."""
        time.sleep(self._seconds)
        return super().get(key, most)

    def exists(self, key: str) -> bool:
        """Tell after a while whether there is an object."""
        time.sleep(self._seconds)
        return super().exists(key)

    def claim(self, key: str, is_whole: Wholeness, most: int = LARGEST) -> bool:
        """Tell after a while whether there is an object."""
        time.sleep(self._seconds)
        return super().claim(key, is_whole, most)

    def put(self, key: str, data: bytes) -> None:
        """Keep an object; return after a while."""
        time.sleep(self._seconds)
        super().put(key, data)
