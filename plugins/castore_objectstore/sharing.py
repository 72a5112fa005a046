"""What processes that use one store at the same time can spare each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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

    def try_alone(self, digests: Collection[B3Digest]) -> AbstractContextManager[frozenset[B3Digest]]:
        """Lock those digests in the store that nobody has locked."""
        return self._store.try_alone(digests)

    def find_unflushed(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, bytes]:
        """Look for chunks among the files that wait to be flushed."""
        found = {digest: self._find(digest, size) for digest, size in sizes.items()}
        return {digest: data for digest, data in found.items() if data is not None}

    def _find(self, digest: B3Digest, size: int | None) -> bytes | None:
        key = self._key_of(digest)
        for frame in self._store.unflushed(key, frames.longest(size)):
            try:
                return frames.decode_chunk(frame, digest, size=size, key=key)
            except CorruptBlobError:
                continue  # Half written, by one who is at it or was killed.
        return None
