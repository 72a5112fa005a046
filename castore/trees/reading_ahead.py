"""Directories of a tree before they are needed: many with one call, and no more of them than a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, MissingDirectoryError
from castore.format.directories import Directory, check_edge
from castore.format.nodes import DirectoryNode, TreePath
from castore.threads.forks import new_lock

MOST_ITEMS: Final = 512
_MOST_SIZE: Final = 1 << 18
"""So many directories are asked for at once, or until their sizes, which are no less than their entries, add
up to so much. A few such portions are held."""

_MOST_RECENT: Final = 1 << 16
"""So many entries of directories are held that were used already: many trees have the same one many times."""


class RecentDirectories:
    """Directories of a service, of which those that were read lately are remembered, within a bound.

    Many threads may use it at once.
    """

    def __init__(self, directories: DirectoryService) -> None:
        self._directories = directories
        self._held: OrderedDict[B3Digest, Directory] = OrderedDict()
        self._entries = 0
        self._lock = new_lock()

    def get(self, digest: B3Digest, *, within: B3Digest | None = None) -> Directory | None:
        """Return a directory, as `get_many` of the service with *within*; raises what is wrong with it."""
        held = self.recall(digest)
        if held is not None:
            return held
        found = self._directories.get_many((digest,), within=within).get(digest)
        if isinstance(found, CastoreError):
            raise found
        if found is not None:
            self.remember(digest, found)
        return found

    def recall(self, digest: B3Digest) -> Directory | None:
        """Return a directory that is remembered."""
        with self._lock:
            directory = self._held.get(digest)
            if directory is not None:
                self._held.move_to_end(digest)
        return directory

    def remember(self, digest: B3Digest, directory: Directory) -> None:
        """Remember a directory; those go that were not needed for longest."""
        with self._lock:
            if digest in self._held:
                return
            self._held[digest] = directory
            self._entries += 1 + len(directory)
            while self._entries > _MOST_RECENT and len(self._held) > 1:
                _, gone = self._held.popitem(last=False)
                self._entries -= 1 + len(gone)


class DirectoriesAhead:
    """Reads directories of one tree.

    Whoever needs one tells which others come next, as far as that is known.

    Arguments:
        directories: Where they are.
        within: A root that has them below it, for services that keep whole trees.
    """

    def __init__(self, directories: DirectoryService, within: B3Digest | None = None) -> None:
        self._directories = directories
        self._within = within
        self._coming: dict[B3Digest, Directory | CastoreError | None] = {}
        self._recent = RecentDirectories(directories)

    def is_known(self, digest: B3Digest) -> bool:
        """Tell whether a directory was read, or could not be."""
        return digest in self._coming or self._recent.recall(digest) is not None

    def peek(self, digest: B3Digest) -> Directory | None:
        """Return a directory that was read."""
        found = self._coming.get(digest)
        return found if isinstance(found, Directory) else self._recent.recall(digest)

    def fetch(self, nodes: Iterable[DirectoryNode]) -> None:
        """Read directories with one call: the first of *nodes*, and so many of the next ones as is good."""
        wanted: dict[B3Digest, None] = {}
        size = 0
        for node in nodes:
            if self.is_known(node.digest) or node.digest in wanted:
                continue
            size += node.size
            if wanted and size > _MOST_SIZE:
                break
            wanted[node.digest] = None
            if len(wanted) == MOST_ITEMS:
                break
        if wanted:
            found = self._directories.get_many(wanted, within=self._within)
            for digest in wanted:
                self._coming[digest] = found.get(digest)

    def take(self, node: DirectoryNode, path: TreePath) -> Directory:
        """Return the directory of an entry, which stands at *path*; it is read if it was not.

        Raises `MissingDirectoryError`, `DirectorySizeError` if the entry gives it a wrong size, and what is
        wrong with it.
        """
        if not self.is_known(node.digest):
            self.fetch((node,))
        directory = self._coming.pop(node.digest, None)
        if directory is None:
            directory = self._recent.recall(node.digest)
        if directory is None:
            raise MissingDirectoryError(node.digest, path=bytes(path))
        if isinstance(directory, CastoreError):
            raise directory
        self._recent.remember(node.digest, directory)
        if path:
            check_edge(path[-1], node, directory)
        return directory
