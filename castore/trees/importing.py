"""Folders into trees.

The files go to the service of blobs together, as many small files do; a directory is encoded when all that is
in it is stored, and sent when there are enough of them. So what is held grows with the depth and the width of
the folder, and with the files that are under way, not with their number.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias

import attrs

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService, DirectoryWriter
from castore.contract.inputs import FileAt
from castore.errors import CastoreError, InvalidDirectoryError, SourceChangedError, SourceError, describe
from castore.format.directories import Directory
from castore.format.nodes import FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.folders import Folder, OpenTree
from castore.trees.selecting import ALL, SelectedFolder, Selection

ProblemKind: TypeAlias = Literal["unreadable", "changed", "special", "too-large"]

_SPECIAL: Final = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@attrs.frozen
class ImportProblem:
    """Something of a folder that is not in its tree.

    Attributes:
        path: Where it is, from the folder on, as bytes.
        kind: What is wrong with it, in a word.
        message: The same in words.
    """

    path: bytes
    kind: ProblemKind
    message: str


@attrs.frozen
class Imported:
    """What came of an import.

    Attributes:
        node: The root; `None` if there were problems that were not to be passed over.
        problems: What is not in the tree, in the order in which it was met.
        files: How many files there are in it.
        directories: How many directories, the root among them.
        links: How many symbolic links.
        size: How many bytes the files have together.
    """

    node: Node | None
    problems: tuple[ImportProblem, ...]
    files: int
    directories: int
    links: int
    size: int


def import_tree(
    source: str | bytes | os.PathLike[str],
    blobs: BlobService,
    directories: DirectoryService,
    *,
    skip_unreadable: bool = False,
    skip_special: bool = False,
    progress: Callable[[int], object] | None = None,
    met: Callable[[bytes], object] | None = None,
    leave_out: Callable[[bytes], object] | None = None,
    select: Selection = ALL,
    dropped: Callable[[bytes, str], object] | None = None,
) -> Imported:
    """Store a folder, a file or a link; return its root and what is not in it.

    The name of the source is not in the tree, and neither is any time, owner or mode, but for whether a file
    may be executed by its owner. No link is followed, the source itself included.

    Arguments:
        source: Its path.
        blobs: Where the files go.
        directories: Where the directories go.
        skip_unreadable: Whether there is a root although something could not be read.
        skip_special: Whether pipes, sockets and devices are left out without a word.
        progress: Called with the number of bytes of each piece of a file that is done.
        met: Called with the path of each file before it is read.
        leave_out: Called with the path of each thing in a folder; what it is true of is not in the tree.
        select: What is taken of a folder.
        dropped: Called with the path of what is not taken, and the rule that drops it.

    Raises `SourceError` if the source itself cannot be read, and what the services raise.
    """
    work = _Import(
        blobs,
        directories,
        skip_special=skip_special,
        progress=progress,
        met=met,
        leave_out=leave_out,
        select=select,
        dropped=dropped,
    )
    node = work.run(os.path.abspath(os.fsencode(source)))
    passed = node if skip_unreadable or not work.problems else None
    return Imported(passed, tuple(work.problems), work.files, work.directories, work.links, work.size)


@attrs.define(eq=False)
class _Frame:
    """A folder whose directory is not complete: what is known of it, and how much is still to come."""

    path: bytes
    parent: _Frame | None
    name: bytes
    selected: SelectedFolder | None = None
    """What is asked of its entries; `None` if all are taken."""
    nodes: dict[bytes, Node] = attrs.field(factory=dict)
    open_entries: int = 1
    """Files under way, folders that are not complete, and 1 until all names have been met."""


class _Import:
    def __init__(
        self,
        blobs: BlobService,
        directories: DirectoryService,
        *,
        skip_special: bool,
        progress: Callable[[int], object] | None,
        met: Callable[[bytes], object] | None,
        leave_out: Callable[[bytes], object] | None,
        select: Selection,
        dropped: Callable[[bytes, str], object] | None,
    ) -> None:
        self.problems: list[ImportProblem] = []
        self.files = self.directories = self.links = self.size = 0
        self._blobs = blobs
        self._service = directories
        self._skip_special = skip_special
        self._progress = progress
        self._met = met
        self._leave_out = leave_out
        self._select = None if select == ALL else select
        self._dropped = dropped
        self._writer: DirectoryWriter | None = None
        self._under_way: deque[tuple[_Frame, bytes, FileAt]] = deque()

    def run(self, source: bytes) -> Node | None:
        try:
            kind = stat.S_IFMT(os.lstat(source).st_mode)
            above, name = os.path.split(source)  # bytes
            with OpenTree(source if kind == stat.S_IFDIR else above) as folder:
                return self._import(folder, name, kind)
        except (OSError, ValueError) as error:
            if isinstance(error, CastoreError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(f"cannot read {os.fsdecode(source)!r}: {reason}") from error

    def _import(self, folder: Folder, name: bytes, kind: int) -> Node | None:
        # The root is an entry like any other, of a folder that there is not.
        above = _Frame(b"", None, b"")
        try:
            if kind == stat.S_IFDIR:
                self._device = folder.device
                walk = self._walk(folder, _Frame(b"", above, b"root"))
                above.open_entries += 1
            else:
                walk = self._entry(folder, above, name, kind)
            self._store(walk)
            if self._writer is not None:
                self._writer.close()
        except BaseException:
            if self._writer is not None:
                self._writer.abort()
            raise
        return next(iter(above.nodes.values()), None)

    # -- files --

    def _store(self, walk: Iterator[FileAt]) -> None:
        """Store the files that the walk comes to, in order; it goes on while they are stored."""
        outcomes = self._blobs.put_files(walk, progress=self._progress)
        for outcome in outcomes:
            frame, name, file = self._under_way.popleft()
            if isinstance(outcome, SourceError):
                changed = isinstance(outcome, SourceChangedError)
                self._note(_below(frame, name), "changed" if changed else "unreadable", outcome.message)
            else:
                assert file.status is not None
                size = file.status.st_size
                frame.nodes[name] = FileNode(outcome, size, bool(file.status.st_mode & stat.S_IXUSR))
                self.files += 1
                self.size += size
            self._close_entry(frame)

    # -- folders --

    def _walk(self, root: Folder, frame: _Frame) -> Iterator[FileAt]:
        """Yield the files below a folder, folder by folder; take note of all else on the way."""
        folders = [(root, frame, iter(self._names(root, frame)))]
        while folders:
            folder, frame, names = folders[-1]
            for name, kind in names:
                if kind == stat.S_IFDIR:
                    below = self._enter(folder, frame, name)
                    if below is not None:
                        folders.append(below)
                        break
                else:
                    yield from self._entry(folder, frame, name, kind)
            else:
                folders.pop()
                self._close_entry(frame)

    def _names(self, folder: Folder, frame: _Frame) -> list[tuple[bytes, int]]:
        """Return the names in a folder that are taken, each with its kind."""
        try:
            found = folder.entries()
            if self._select is not None:
                frame.selected = self._selected(folder, frame, self._select)
        except (OSError, SourceError) as error:
            # Without its rules, what should be left out would be taken.
            self._unreadable(frame.path, error)
            return []
        if self._leave_out is not None:
            found = [entry for entry in found if not self._leave_out(_below(frame, entry[0]))]
        return (
            found
            if frame.selected is None
            else [entry for entry in found if self._takes(folder, frame, *entry)]
        )

    @staticmethod
    def _selected(folder: Folder, frame: _Frame, select: Selection) -> SelectedFolder:
        above = None if frame.parent is None else frame.parent.selected
        return select.at_root(folder) if above is None else above.enter(frame.name, folder)

    def _takes(self, folder: Folder, frame: _Frame, name: bytes, kind: int) -> bool:
        assert frame.selected is not None
        assert self._select is not None
        asks_size = self._select.larger_than is not None and kind == stat.S_IFREG
        try:
            size = folder.size_of(name) if asks_size else 0
            reason = frame.selected.reason_against(name, is_folder=kind == stat.S_IFDIR, size=size)
            if reason is None and self._select.exclude_nodump and folder.is_nodump(name, kind):
                reason = "--exclude-nodump"
        except OSError:
            return True  # Whatever is wrong with it, reading it will say so.
        if reason is not None and self._dropped is not None:
            self._dropped(_below(frame, name), reason)
        return reason is None

    def _enter(
        self, folder: Folder, frame: _Frame, name: bytes
    ) -> tuple[Folder, _Frame, Iterator[tuple[bytes, int]]] | None:
        path = _below(frame, name)
        try:
            below = folder.enter(name)
        except OSError as error:
            self._unreadable(path, error)
            return None
        frame.open_entries += 1
        inner = _Frame(path, frame, name)
        if self._select is not None and self._select.one_file_system and below.device != self._device:
            if self._dropped is not None:
                self._dropped(path, "--one-file-system")
            return below, inner, iter(())
        return below, inner, iter(self._names(below, inner))

    def _entry(self, folder: Folder, frame: _Frame, name: bytes, kind: int) -> Iterator[FileAt]:
        path = _below(frame, name)
        if kind == stat.S_IFLNK:
            try:
                frame.nodes[name] = SymlinkNode(SymlinkTarget(folder.read_link(name)))
                self.links += 1
            except (OSError, InvalidDirectoryError) as error:
                self._unreadable(path, error)
        elif kind == stat.S_IFREG:
            if self._met is not None:
                self._met(path)
            frame.open_entries += 1
            file = FileAt(folder, name, os.fsdecode(path or name))
            self._under_way.append((frame, name, file))
            yield file
        elif not self._skip_special:
            what = _SPECIAL.get(kind, "no file, folder or link")
            self._note(path, "special", f"{os.fsdecode(path)!r} is {what}, which a tree cannot have")

    def _close_entry(self, frame: _Frame) -> None:
        """Take note that an entry of a folder is complete; with the last one the folder is, and so on up."""
        while True:
            frame.open_entries -= 1
            parent = frame.parent
            if frame.open_entries or parent is None:
                return
            self._complete(frame, parent)
            frame = parent

    def _complete(self, frame: _Frame, parent: _Frame) -> None:
        directory = Directory(frame.nodes)
        frame.nodes = {}
        if self._writer is None:
            self._writer = self._service.open_write()
        self._writer.put(directory)
        self.directories += 1
        parent.nodes[frame.name] = directory.node

    # -- problems --

    def _unreadable(self, path: bytes, error: OSError | CastoreError) -> None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            # It is no fault of the folder's, and the next one would fare no better.
            raise SourceError(f"cannot read {os.fsdecode(path)!r}: {error.strerror}") from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else describe(error)
        self._note(path, "unreadable", f"cannot read {os.fsdecode(path)!r}: {reason}")

    def _note(self, path: bytes, kind: ProblemKind, message: str) -> None:
        self.problems.append(ImportProblem(path, kind, message))


def _below(frame: _Frame, name: bytes) -> bytes:
    return b"/".join((frame.path, name)) if frame.path else name
