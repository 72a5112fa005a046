"""Which trees of a store have a directory, so that one below a root can be found."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from castore import B3Digest, CorruptDirectoryError
from castore.format import closures
from castore.threads import forks
from castore_objectstore.keys import digest_in, key_of
from castore_objectstore.object_store import ObjectStore

DIRS: Final = "dirs/b3/"
"""What the keys of trees begin with."""

_TAIL: Final = 64 << 10
"""So many bytes at the end of an object are read first: the index of some 5,400 directories."""


class ClosureIndex:
    """Knows of each tree the first eight bytes of the digests of its directories, and so holds no more.

    It is filled from the ends of the objects, and from all of those that have no index there.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = forks.new_lock()
        self._keys: dict[B3Digest, bytes] = {}

    def add(self, root: B3Digest, digests: Iterable[B3Digest]) -> None:
        """Take note of a tree."""
        self._keep(root, b"".join(sorted(digest[: closures.INDEX_KEY] for digest in digests)))

    def _keep(self, root: B3Digest, keys: bytes) -> None:
        with self._lock:
            self._keys[root] = keys

    def roots_with(self, digest: B3Digest) -> Iterator[B3Digest]:
        """Yield the roots of the trees that may have a directory: most probably it has them."""
        key = digest[: closures.INDEX_KEY]
        with self._lock:
            known = list(self._keys.items())
        for root, keys in known:
            position = bisect_left(
                range(len(keys) // len(key)), key, key=lambda at: keys[at * 8 : at * 8 + 8]
            )
            if keys[position * 8 : position * 8 + 8] == key:
                yield root

    def look(self) -> None:
        """List the trees, and look at those that are new.

        Raises `CorruptDirectoryError` for one that is damaged, once all others are known, and what the store
        raises.
        """
        listed = {
            digest for entry in self._store.list(DIRS) if (digest := digest_in(DIRS, entry)) is not None
        }
        failed: CorruptDirectoryError | None = None
        with self._lock:
            for gone in self._keys.keys() - listed:
                del self._keys[gone]
            new = sorted(listed - self._keys.keys())
        for root in new:
            try:
                keys = self._read(root)
            except CorruptDirectoryError as error:
                failed = failed or error
                continue
            if keys is not None:
                self._keep(root, keys)
        if failed is not None:
            raise failed

    def _read(self, root: B3Digest) -> bytes | None:
        key = key_of(DIRS, root)
        end = self._store.get_tail(key, _TAIL)
        if end is None:
            return None  # It went meanwhile.
        length = closures.index_length(end)
        if length is not None and length > len(end):
            end = self._store.get_tail(key, length) or end
        keys = closures.read_index(end)
        if keys is not None:
            return keys
        data = end if len(end) < _TAIL else self._store.get(key)
        if data is None:
            return None
        digests = (directory.digest for directory in closures.decode(data, root, key=key))
        return b"".join(sorted(digest[: closures.INDEX_KEY] for digest in digests))
