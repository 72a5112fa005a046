"""Directories in a dictionary."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from castore import B3Digest
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    FoundDirectories,
    require_children,
)
from castore.format.directories import Directory
from castore.threads import forks

P = TypeVar("P")


class MemoryDirectoryService(DirectoryService, AnyDirectory, Complete, DirectoryLister):
    """Keeps directories in memory.

    Arguments:
        max_size: How many bytes their encodings may have together; then those go that were not asked for
            longest, and of a tree some directories may be there, and others not.
    """

    def __init__(self, max_size: int | None = None) -> None:
        self._max_size = max_size
        self._directories: OrderedDict[B3Digest, Directory] = OrderedDict()
        self._size = 0
        self._lock = forks.new_lock()

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:  # noqa: ARG002 - all of them are at hand
        """Return those that are there."""
        found: FoundDirectories = {}
        with self._lock:
            for digest in digests:
                directory = self._directories.get(digest)
                if directory is not None:
                    found[digest] = directory
                    if self._max_size is not None:
                        self._directories.move_to_end(digest)
        return found

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are not there."""
        return {digest for digest in digests if digest not in self._directories}

    def put_many(self, directories: Collection[Directory]) -> None:
        """Keep directories; without a bound each child must be there, or among them."""
        if self._max_size is None:
            require_children(directories, self.missing)
        with self._lock:
            for directory in directories:
                if self._directories.setdefault(directory.digest, directory) is directory:
                    self._size += len(directory.encoded)
            while self._max_size is not None and self._size > self._max_size and self._directories:
                _, gone = self._directories.popitem(last=False)
                self._size -= len(gone.encoded)

    def list_directories(self) -> Iterator[B3Digest]:
        """Yield all of them."""
        with self._lock:
            digests = list(self._directories)
        return iter(digests)

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability; with a bound trees need not be complete."""
        return None if kind is Complete and self._max_size is not None else super().capability(kind)
