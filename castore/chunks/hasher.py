"""The digest of a whole blob, computed beside everything else that is done with its bytes.

It must see the bytes in order, so it is the work of one thread at a time; but any thread will do, and it need
be none that others wait for.
"""

from __future__ import annotations

from collections import deque

from blake3 import blake3

from castore.digest import B3Digest
from castore.threads import forks


class BlobHasher:
    """Hashes what is added: in order, by whichever thread comes to it first."""

    def __init__(self) -> None:
        self._hasher = blake3()
        self._lock = forks.new_lock()
        self._waiting: deque[memoryview] = deque()
        self._added = self._hashed = 0

    @property
    def waiting(self) -> int:
        """How many bytes were added and are not hashed yet."""
        return self._added - self._hashed

    def add(self, view: memoryview) -> None:
        """Let *view* be hashed next; it stays valid until a later `catch_up` has returned."""
        self._waiting.append(view)
        self._added += len(view)

    def catch_up(self) -> None:
        """Hash all that was added; if another thread does that already, wait for it."""
        with self._lock:
            self._hash_waiting()

    def _hash_waiting(self) -> None:
        while self._waiting:
            view = self._waiting.popleft()
            self._hasher.update(view)
            self._hashed += len(view)

    def catch_up_if_free(self) -> bool:
        """Hash all that was added, unless another thread does that; tell whether there was any to hash."""
        if not self._waiting or not self._lock.acquire(blocking=False):
            return False
        try:
            self._hash_waiting()
        finally:
            self._lock.release()
        return True

    def digest(self) -> B3Digest:
        """Return the digest of what was hashed."""
        return B3Digest(self._hasher.digest())

    def forget(self) -> None:
        """Let go of what has not been hashed."""
        self._waiting.clear()
