"""What an export remembers of the files that it wrote, or found right, and need not read for that again.

It is kept with what imports know of files, and apart from that: by the path of each folder, its names, what
the system says of each file, and the digests.

What was just written may be written to once more within the same tick of the clock. So that this shows, the
file is given a time before that tick; whoever writes to it later cannot but give it a later one.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from typing import Final

from castore.format.directories import Directory
from castore.format.nodes import FileNode, Node, PathComponent, TreePath
from castore.trees.folders import Folder, MetEntry
from castore.trees.known_files import MODE_SIZE, KnownFiles, KnownFolder, is_of_network, status_of

_APART: Final = b"\0exported\0"
"""No path of an import begins with it."""


class ExportMemory:
    """What is remembered of a folder that trees are exported to, and of those within it.

    Arguments:
        known_files: Where it is kept.
        target: The path of the folder.
    """

    def __init__(self, known_files: KnownFiles, target: bytes) -> None:
        self._known_files = known_files
        self._target = target

    def folder(self, path: TreePath) -> RememberedFolder:
        """Return what is remembered of the folder at *path* within it."""
        return RememberedFolder(self._known_files, _APART + b"/".join((self._target, *path)))


class RememberedFolder:
    """A folder that is being filled: what was remembered of it, and what is to be."""

    def __init__(self, known_files: KnownFiles, key: bytes) -> None:
        self._known_files = known_files
        self._key = key
        self._known: KnownFolder | None = None
        self._then: dict[bytes, tuple[bytes, bytes]] = {}
        self._statuses: dict[bytes, bytes] = {}
        self._nodes: Mapping[PathComponent, Node] = {}
        self._open = 1
        self._is_new = False

    def recall(self) -> None:
        """Look up what was remembered."""
        self._known = self._known_files.folder(self._key)

    def is_right(
        self, folder: Folder, entries: list[MetEntry], directory: Mapping[PathComponent, Node]
    ) -> bool:
        """Tell whether all in a folder but for the folders is as it was when it was what *directory* says."""
        known = self._known
        return (
            known is not None
            and isinstance(directory, Directory)
            and known.digest == directory.digest
            and known.is_of(entries, folder.read_link)
        )

    def has(self, name: bytes, status: os.stat_result, node: FileNode) -> bool | None:
        """Tell whether a file has the bytes of *node*; `None` if it is not as it was, and nobody knows."""
        if self._known is not None and not self._then:
            self._then = {name: (status, digest) for name, status, digest in self._known.entries()}
        old, digest = self._then.get(name, (b"", b""))
        now = status_of(status)
        if not digest or not self._known_files.same(now, old):
            return None
        if digest != node.digest:
            return False
        self._take(name, status, node, now[:MODE_SIZE] + old[MODE_SIZE:])
        return True

    def found(self, name: bytes, status: os.stat_result, node: FileNode, before: int) -> None:
        """Take note that a file was read and is right.

        Arguments:
            name: Its name.
            status: What the system said of it before it was read, and after that.
            node: What it is.
            before: A moment before it was read, in nanoseconds since 1970.
        """
        if self._known_files.is_settled(status, before):
            self._is_new = True
            self._take(name, status, node, status_of(status))

    def begin(self) -> None:
        """Wait for a file that is to be written."""
        self._open += 1

    def wrote(self, folder: Folder, name: bytes, node: FileNode, marked: tuple[int, int] | None) -> None:
        """Take note of a file that was written, and has its name.

        Arguments:
            folder: Where it is.
            name: Its name.
            node: What it is.
            marked: What `mark` has returned for it.
        """
        if marked is not None:
            status = folder.status(name)
            if (status.st_ino, status.st_mtime_ns) == marked:
                self._is_new = True
                self._take(name, status, node, status_of(status))

    def _take(self, name: bytes, status: os.stat_result, node: FileNode, remembered: bytes) -> None:
        if status.st_size == node.size and bool(status.st_mode & stat.S_IXUSR) == node.executable:
            self._statuses[name] = remembered

    def end(self, nodes: Mapping[PathComponent, Node] | None = None) -> None:
        """Take note that a file was written, or could not be; or that *nodes* are all that is to be there."""
        if nodes is not None:
            self._nodes = nodes
        self._open -= 1
        if not self._open and self._is_new:
            directory = self._nodes if isinstance(self._nodes, Directory) else Directory(self._nodes)
            self._known_files.keep(self._key, KnownFolder.of(directory, self._statuses))


def mark(descriptor: int) -> tuple[int, int] | None:
    """Give an open file that was written a time before the tick of the clock in which that was.

    Returns its number and that time; `None` if it cannot be relied on, as where another machine's clock is
    that of the file system.
    """
    status = os.fstat(descriptor)
    if is_of_network(status.st_dev):
        return None
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
    marked = os.fstat(descriptor).st_mtime_ns
    return (status.st_ino, marked) if marked < status.st_mtime_ns <= time.time_ns() else None
