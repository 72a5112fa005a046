"""What processes that use one store at the same time can spare each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from castore import B3Digest, CorruptBlobError
from castore.contract.capabilities import SharedPlace
from castore.format import frames
from castore_objectstore.object_store import ObjectStore


class SharedStore(SharedPlace):
    """A store that lies where other processes use it, too; *key_of* names its chunks."""

    def __init__(self, store: ObjectStore, key_of: Callable[[B3Digest], str]) -> None:
        self._store = store
        self._key_of = key_of

    def try_alone(self, digest: B3Digest) -> AbstractContextManager[bool]:
        """Lock the digest in the store, if nobody has."""
        return self._store.try_alone(digest)

    def find_unsettled(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Look for a chunk among the files that wait to be flushed."""
        key = self._key_of(digest)
        for frame in self._store.unsettled(key):
            try:
                return frames.decode_chunk(frame, digest, size=size, key=key)
            except CorruptBlobError:
                continue  # Half written, by one who is at it or was killed.
        return None
