"""What a mount shows: one tree, which stays as it is; paths are those of FUSE, and end in nodes."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs

from castore.access.mount.readers import KeptReaders
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, MissingDirectoryError, UnavailableError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node
from castore.threads.deadlines import Deadlines, Pending
from castore.threads.forks import new_lock
from castore.trees.measuring import measure
from castore.trees.reading_ahead import RecentDirectories

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

NAME: Final = "mount"
"""What errors say of a call that takes too long."""

_MOST_BUFFERS: Final = 16
_MOST_READS: Final = 4
"""So many reads are ahead of those that were asked for."""
_MOST_ENDS: Final = 64
_IMPATIENT: Final = 1.0
_MOST_PATHS: Final = 1 << 16
_MOST_AHEAD: Final = 128
_MOST_SIZE: Final = 1 << 17
"""So many directories are read with one that was asked for, or until they have so many entries."""


@attrs.frozen
class _Read:
    """A read that is under way, or done: how many bytes it has put into its buffer, which has *size*."""

    pending: Pending[int]
    buffer: bytearray
    size: int


def _put(held: dict[K, V], key: K, value: V, most: int) -> None:
    """Hold a value; those go that are held for longest, but for so many."""
    held.pop(key, None)
    held[key] = value
    while len(held) > most:
        del held[next(iter(held))]


class Stores:
    """The services that a mount reads from: each call ends within a deadline.

    Arguments:
        blobs: Where the blobs are.
        directories: Where the directories are.
        seconds: How long a call may take.
    """

    def __init__(self, blobs: BlobService, directories: DirectoryService, seconds: float) -> None:
        self.directories = directories
        self.recent = RecentDirectories(directories)
        self._seconds = seconds
        self._suspected_until = 0.0
        self._lock = new_lock()
        # New memory for each read would cost as much as the reading.
        self._buffers: list[bytearray] = []
        self._ahead: dict[tuple[B3Digest, int], _Read] = {}
        self._ends: dict[B3Digest, int] = {}
        self._deadlines = Deadlines(NAME)
        self._readers = KeptReaders(lambda: blobs, self._let_close)

    def ask(self, call: Callable[[], T]) -> T:
        """Return what *call* returns; raise what it raises, and `UnavailableError` if it takes too long.

        After one that took too long others have a second each, until one is answered, or as long as a call
        may take has passed: who goes through a folder is not to wait for each file anew.
        """
        return self._answer(self._deadlines.start(call, late=self._came_late))

    def _answer(self, pending: Pending[T]) -> T:
        suspected = time.monotonic() < self._suspected_until
        try:
            answer = pending.result(min(self._seconds, _IMPATIENT) if suspected else self._seconds)
        except UnavailableError as error:
            if error.instance == NAME and not suspected:
                self._suspected_until = time.monotonic() + self._seconds
            raise
        self._suspected_until = 0.0
        return answer

    def _came_late(self, answer: object) -> None:
        if answer is not None:
            self._suspected_until = 0.0

    @contextlib.contextmanager
    def reading(self, node: FileNode, offset: int, size: int) -> Iterator[memoryview]:
        """Lend the bytes of a file, as `KeptReaders.read_into` has them, for as long as the block takes.

        Of a file that is read in order the next part is read meanwhile.
        """
        with self._lock:
            read = self._ahead.pop((node.digest, offset), None)
            in_order = offset > 0 and self._ends.pop(node.digest, None) == offset
        if read is None or read.size < size:
            read = self._read(node, offset, size)
        count = min(self._answer(read.pending), size)
        end = offset + count
        if in_order and count == size and end < node.size:
            # What cannot be begun is begun when it is asked for.
            with contextlib.suppress(UnavailableError):
                self._read_ahead(node, end, size)
        with self._lock:
            _put(self._ends, node.digest, end, _MOST_ENDS)
        yield memoryview(read.buffer)[:count]
        with self._lock:
            if len(self._buffers) < _MOST_BUFFERS:
                self._buffers.append(read.buffer)

    def _read(self, node: FileNode, offset: int, size: int) -> _Read:
        with self._lock:
            buffer = self._buffers.pop() if self._buffers else bytearray()
        if len(buffer) < size:
            buffer = bytearray(size)
        view = memoryview(buffer)[:size]
        # A call that takes too long may still write into its buffer; then nobody else has that.
        pending = self._deadlines.start(
            lambda: self._readers.read_into(node, offset, view), late=self._came_late
        )
        return _Read(pending, buffer, size)

    def _read_ahead(self, node: FileNode, offset: int, size: int) -> None:
        read = self._read(node, offset, size)
        with self._lock:
            _put(self._ahead, (node.digest, offset), read, _MOST_READS)

    def _let_close(self, call: Callable[[], object]) -> None:
        # To close a reader may take as long as to read from it, and nobody need wait for that. Where all
        # threads wait for a dead store it is closed when it is forgotten.
        with contextlib.suppress(UnavailableError):
            self._deadlines.start(call)

    def close(self) -> None:
        """Let go of readers."""
        self._readers.close()
        self._deadlines.close()


@attrs.frozen
class FolderOfNames:
    """A folder that no tree has: of the names of refs.

    Attributes:
        path: Where it is.
        entries: What is in it, by names in bytes.
    """

    path: str
    entries: Mapping[bytes, Node | FolderOfNames]


@attrs.frozen
class MountedNode:
    """What a mount has at a path.

    Attributes:
        node: What it is.
        tree: The tree that it is in, if it is in one.
        below: The path in that tree.
        ref: The name of the ref that stands for that tree, if one does.
    """

    node: Node | FolderOfNames
    tree: MountedTree | None = None
    below: str = ""
    ref: str | None = None


class MountedTree:
    """One tree. Directories are remembered, within a bound; who reads one after the other has many at once.

    Arguments:
        stores: What it is read from.
        root: Its root.
        within: The root of a tree that it is a part of, for services that keep whole trees.
    """

    def __init__(self, stores: Stores, root: DirectoryNode, *, within: B3Digest | None = None) -> None:
        self.root = root
        self._stores = stores
        self._within = root.digest if within is None else within
        self._known: dict[str, DirectoryNode] = {"": root}
        self._misses: dict[B3Digest, int] = {}

    def find(self, path: str) -> MountedNode:
        """Return what is at a path, which has no slash around it; raise `FileNotFoundError` if nothing is.

        Raises `MissingDirectoryError`, and what the service raises.
        """
        return MountedNode(self.node(path), self, path)

    def node(self, path: str) -> Node:
        """Return the node at a path; raises as `find`."""
        if not path:
            return self.root
        above, _, name = path.rpartition("/")
        node = self.directory(above).get(as_bytes(name))  # type: ignore[call-overload] # bytes are as good
        if node is None:
            raise nothing(path)
        if type(node) is DirectoryNode:
            self._remember(path, node)
        return node  # type: ignore[no-any-return]

    def directory(self, path: str) -> Directory:
        """Return the directory at a path; raises as `find`, and `NotADirectoryError`."""
        node = self._known.get(path)
        return self._read(self._go_down(path) if node is None else node, path)

    def measure(self) -> tuple[int, int]:
        """Return how many bytes the files have together, and how many files and folders there are."""
        *_, size = measure(self._stores.directories, self.root, within=self._within)
        return size.size, size.files + size.directories + size.links + 1

    def _go_down(self, path: str) -> DirectoryNode:
        node, here = self.root, ""
        for name in path.split("/"):
            below = self._read(node, here).get(as_bytes(name))  # type: ignore[call-overload] # as above
            here = f"{here}/{name}" if here else name
            if below is None:
                raise nothing(path)
            if not isinstance(below, DirectoryNode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            self._remember(here, below)
            node = below
        return node

    def _read(self, node: DirectoryNode, path: str) -> Directory:
        held = self._stores.recent.recall(node.digest)
        return self._fetch(node, path) if held is None else held

    def _remember(self, path: str, node: DirectoryNode) -> None:
        if len(self._known) >= _MOST_PATHS:
            self._known = {"": self.root}
        self._known[path] = node

    def _fetch(self, node: DirectoryNode, path: str) -> Directory:
        recent, service = self._stores.recent, self._stores.directories
        wanted = [node.digest, *self._next_ones(node, path)]
        found = self._stores.ask(lambda: service.get_many(wanted, within=self._within))
        directory = found.get(node.digest)
        if directory is None:
            raise MissingDirectoryError(node.digest, path=as_bytes(path))
        if isinstance(directory, CastoreError):
            raise directory
        # What was asked for comes last: of the others some may be too many.
        for digest in reversed(wanted):
            if isinstance(each := found.get(digest), Directory):
                recent.remember(digest, each)
        return directory

    def _next_ones(self, node: DirectoryNode, path: str) -> list[B3Digest]:
        """Return which directories to read as well: those beside it, if one of them was read before it."""
        above = self._known.get(path.rpartition("/")[0])
        if above is None or not path:
            return []
        if len(self._misses) >= _MOST_PATHS:
            self._misses.clear()
        self._misses[above.digest] = misses = self._misses.get(above.digest, 0) + 1
        holder = self._stores.recent.recall(above.digest)
        if misses == 1 or holder is None:
            return []
        found: dict[B3Digest, None] = {}
        size, begun = 0, False
        for _, each in holder.directories:
            begun = begun or each.digest == node.digest
            if not begun or each.digest == node.digest or self._stores.recent.recall(each.digest) is not None:
                continue
            size += each.size
            if size > _MOST_SIZE or len(found) == _MOST_AHEAD:
                break
            found[each.digest] = None
        return list(found)


def nothing(path: str) -> FileNotFoundError:
    """Return the error for a path at which nothing is."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def as_bytes(name: str) -> bytes:
    """Return the bytes of a name as FUSE gives it."""
    return name.encode("utf-8", "surrogateescape")


def as_text(name: Any) -> str:
    """Return the text that stands for the bytes of a name."""
    return bytes(name).decode("utf-8", "surrogateescape")
