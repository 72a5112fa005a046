"""Trees as objects, each with all of its directories, where the reference keeps them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from castore import B3Digest, CastoreError, CorruptDirectoryError, MissingDirectoryError
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    FoundDirectories,
)
from castore.format import closures
from castore.format.directories import Directory
from castore.threads import forks
from castore_objectstore.closure_index import DIRS, ClosureIndex
from castore_objectstore.keys import digest_in, key_of
from castore_objectstore.object_store import ObjectStore, TooLargeError

P = TypeVar("P")

_MOST_HELD: Final = 64 << 20
"""How many bytes the encodings of trees that are at hand have together."""


class ClosureDirectoryService(DirectoryService, Complete, DirectoryLister):
    """Keeps each tree as one object in an `ObjectStore`, which it closes.

    A directory can be had by itself if it is the root of a tree that was written; another one if its root is
    named (`within`), or was read lately, or if there is an index.

    Arguments:
        store: Where the objects are.
        index: Whether objects are written with an index, and any directory is looked for in those of all.
    """

    whole_trees = True

    def __init__(self, store: ObjectStore, *, index: bool = False) -> None:
        self._store = store
        self._index = ClosureIndex(store) if index else None
        self.high_latency = store.high_latency
        self._lock = forks.new_lock()
        # Encodings, which take a fraction of what directories do.
        self._held: OrderedDict[B3Digest, Mapping[B3Digest, bytes]] = OrderedDict()
        self._size = 0
        self._roots: dict[B3Digest, B3Digest] = {}

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Return roots, and what is in the tree of *within* or in trees that are at hand."""
        found: FoundDirectories = {}
        lacking = []
        for digest in dict.fromkeys(digests):
            directory = self._at_hand(digest)
            if directory is None:
                lacking.append(digest)
            else:
                found[digest] = directory
        around: Mapping[B3Digest, Directory | CastoreError] = {}
        if lacking and within is not None:
            try:
                around = self._of_tree(within, set(lacking))
            except CastoreError as error:
                around = dict.fromkeys(lacking, error)
        for digest in lacking:
            answer = around.get(digest)
            if not isinstance(answer, Directory):
                try:
                    directory = self._of_tree(digest, (digest,)).get(digest)
                    answer = answer if directory is None else directory
                except CastoreError as error:
                    answer = error
            if answer is not None:
                found[digest] = answer
        if self._index is not None:
            found |= self._by_index(self._index, [digest for digest in lacking if digest not in found])
        return found

    def _by_index(self, index: ClosureIndex, wanted: Collection[B3Digest]) -> FoundDirectories:
        """Return those of some directories that are anywhere in a tree."""
        found: FoundDirectories = {}
        left = dict.fromkeys(wanted)
        for turn in range(2):
            if not left:
                break
            if turn:
                try:
                    index.look()
                except CastoreError as error:
                    # The one that could not be looked into may have them.
                    found |= dict.fromkeys(left, error)
            trees: dict[B3Digest, set[B3Digest]] = {}
            for digest in left:
                for root in index.roots_with(digest):
                    trees.setdefault(root, set()).add(digest)
            for root, some in trees.items():
                try:
                    answer: FoundDirectories = dict(self._of_tree(root, some & left.keys()))
                except CastoreError as error:
                    answer = {digest: error for digest in some if digest in left}
                found |= answer
                for digest, directory in answer.items():
                    if isinstance(directory, Directory):
                        left.pop(digest)
        return found

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are neither roots nor in trees that are at hand."""
        absent = {
            digest
            for digest in set(digests)
            if self._at_hand(digest) is None and not self._store.exists(_key(digest))
        }
        if self._index is None or not absent:
            return absent
        found = self._by_index(self._index, absent)
        for answer in found.values():
            if isinstance(answer, CastoreError):
                raise answer
        return absent - found.keys()

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return the directories of a tree, the root first; of a directory that is no root by single ones."""
        data = self._read(root)
        if data is not None:
            return closures.decode(data, root, key=_key(root))
        known = self._at_hand(root) is not None or self._index is not None
        return super().closure(root) if known else None

    def _read(self, root: B3Digest) -> bytes | None:
        key = _key(root)
        try:
            return self._store.get(key)
        except TooLargeError as error:
            raise CorruptDirectoryError(
                f"the tree {root} is corrupt: {error}", expected=root, key=key
            ) from error

    # -- trees at hand --

    def _at_hand(self, digest: B3Digest) -> Directory | None:
        with self._lock:
            root = self._roots.get(digest)
            if root is None:
                return None
            self._held.move_to_end(root)
            encoded = self._held[root].get(digest)
        return None if encoded is None else Directory.decode(encoded)

    def _of_tree(self, root: B3Digest, wanted: Collection[B3Digest]) -> dict[B3Digest, Directory]:
        """Return those of some directories that the tree *root* has; it is at hand then, if it fits."""
        with self._lock:
            held = self._held.get(root)
        if held is not None:
            return {digest: Directory.decode(held[digest]) for digest in wanted if digest in held}
        data = self._read(root)
        if data is None:
            return {}
        found: dict[B3Digest, Directory] = {}
        tree: dict[B3Digest, bytes] = {}
        size = 0
        for directory in closures.decode(data, root, key=_key(root)):
            if directory.digest in wanted:
                found[directory.digest] = directory
            size += len(directory.encoded)
            if size <= _MOST_HELD:
                tree[directory.digest] = directory.encoded
            else:
                tree.clear()
        if size <= _MOST_HELD:
            self._hold(root, tree)
        return found

    def _hold(self, root: B3Digest, tree: Mapping[B3Digest, bytes]) -> None:
        size = _size_of(tree)
        with self._lock:
            if root not in self._held:
                self._held[root] = tree
                self._size += size
                self._roots |= dict.fromkeys(tree, root)
            while self._size > _MOST_HELD:
                oldest, gone = self._held.popitem(last=False)
                self._size -= _size_of(gone)
                for digest in gone:
                    if self._roots.get(digest) == oldest:
                        del self._roots[digest]

    # -- writing --

    def put_many(self, directories: Collection[Directory]) -> None:
        """Store the trees whose roots are those that no other of *directories* refers to."""
        given = {directory.digest: directory for directory in directories}
        inner = {node.digest for directory in directories for _, node in directory.directories}
        for root in given.keys() - inner:
            tree = self._gather(root, given)
            if not self._store.exists(_key(root)):
                self._store.put(_key(root), closures.encode(tree.values(), index=self._index is not None))
                if self._index is not None:
                    self._index.add(root, tree)
        self._store.flush()

    def _gather(self, root: B3Digest, given: Mapping[B3Digest, Directory]) -> dict[B3Digest, Directory]:
        """Return all directories of a tree, level by level; those that are not given must be there."""
        tree: dict[B3Digest, Directory] = {}
        level = {root: b""}
        while level:
            below: dict[B3Digest, bytes] = {}
            for digest, path in level.items():
                directory = given[digest] if digest in given else self.get(digest)
                if directory is None:
                    raise MissingDirectoryError(digest, path=path)
                tree[digest] = directory
                for name, node in directory.directories:
                    if node.digest not in tree and node.digest not in level:
                        below.setdefault(node.digest, b"/".join((path, name)) if path else bytes(name))
            level = below
        return tree

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Find any directory, too, if there is an index."""
        if kind is AnyDirectory and self._index is not None:
            answer: Any = AnyDirectory()
            found: P = answer
            return found
        return super().capability(kind)

    def list_directories(self) -> Iterator[B3Digest]:
        """Yield the roots of all trees; with an index all that is in them, for which each tree is read."""
        if self._index is None:
            yield from self._list_roots()
            return
        seen: set[B3Digest] = set()
        for root in self._list_roots():
            for directory in self.closure(root) or ():
                if directory.digest not in seen:
                    seen.add(directory.digest)
                    yield directory.digest

    def _list_roots(self) -> Iterator[B3Digest]:
        for entry in self._store.list(DIRS):
            digest = digest_in(DIRS, entry)
            if digest is not None:
                yield digest

    def close(self) -> None:
        """Release the store's connections."""
        self._store.close()


def _key(digest: B3Digest) -> str:
    return key_of(DIRS, digest)


def _size_of(tree: Mapping[B3Digest, bytes]) -> int:
    return sum(map(len, tree.values()))
