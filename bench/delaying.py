"""An object store in memory that takes its time for every request, as one at the other end of a line does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from castore_objectstore.object_store import ObjectStore, StoredObject


class DelayingStore(ObjectStore):
    """Objects in a dictionary; each request takes *seconds* more. *requests* counts them."""

    waits = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.requests = 0

    def _delay(self) -> None:
        with self._lock:
            self.requests += 1
        time.sleep(self._seconds)

    def get(self, key: str) -> bytes | None:
        """Return an object after a while."""
        self._delay()
        return self._objects.get(key)

    def exists(self, key: str) -> bool:
        """Tell after a while whether there is an object."""
        self._delay()
        return key in self._objects

    def put(self, key: str, data: bytes) -> None:
        """Keep an object; return after a while."""
        self._delay()
        self._objects[key] = data

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield what begins with *prefix*."""
        self._delay()
        yield from (StoredObject(key) for key in self._objects if key.startswith(prefix))

    def sweep(self, objects: Iterable[StoredObject], older_than: float) -> Iterator[StoredObject]:  # noqa: ARG002 - nothing is old
        """Remove nothing."""
        yield from ()

    def set_aside(self, key: str) -> str:
        """Move an object."""
        self._objects[f"quarantine/{key}"] = self._objects.pop(key)
        return f"quarantine/{key}"
