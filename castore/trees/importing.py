"""Folders into trees.

The files go to the service of blobs together, as many small files do; a directory is encoded when all that is
in it is stored, and sent when there are enough of them. So what is held grows with the depth and the width of
the folder, and with the files that are under way, not with their number.

Of what is known from the last time nothing is read. A folder in which all is as it was costs a comparison of
bytes; its files are claimed with many others, and so is its directory. What is gone is read, or made, again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, Literal, TypeAlias

import attrs

from castore.chunks.claiming import BlobClaims
from castore.contract.batches import MOST_ITEMS
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.inputs import FileAt
from castore.digest import B3Digest
from castore.errors import (
    CastoreError,
    InvalidDirectoryError,
    MissingDirectoryError,
    SourceChangedError,
    SourceError,
    describe,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.directory_sinks import sink_of
from castore.trees.folders import Folder, MetEntry, OpenTree, source_path
from castore.trees.known_files import (
    MODE_SIZE,
    KnownFiles,
    KnownFolder,
    status_of,
)
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
        known: How many of the files were not read, as they were known.
        notes: What else is not as somebody might expect, in words.
    """

    node: Node | None
    problems: tuple[ImportProblem, ...]
    files: int
    directories: int
    links: int
    size: int
    known: int = 0
    notes: tuple[str, ...] = ()


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
    known_files: KnownFiles | None = None,
    passed: Callable[[int, int], object] | None = None,
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
        known_files: What is known from the last time that the same went to the same services.
        passed: Called with how many files were known, and their bytes: of these *met* says nothing.

    Raises `SourceError` if the source itself cannot be read, and what the services raise.
    """
    options = _Options(skip_special, select, leave_out, dropped, known_files)
    path = source_path(source)
    work = _Import(blobs, directories, options, progress=progress, met=met, passed=passed)
    try:
        node = work.run(path)
    except MissingDirectoryError:
        if known_files is None:
            raise
        # One that is as it was is gone: all directories are made anew, and nobody is told of files again.
        options = attrs.evolve(options, dropped=None)
        work = _Import(blobs, directories, options, trusts=False)
        node = work.run(path)
    passed_over = node if skip_unreadable or not work.problems else None
    return Imported(
        passed_over, tuple(work.problems), work.files, work.directories, work.links, work.size, work.known
    )


def survey(
    source: str | bytes | os.PathLike[str],
    *,
    skip_special: bool = False,
    met: Callable[[bytes], object] | None = None,
    leave_out: Callable[[bytes], object] | None = None,
    select: Selection = ALL,
    dropped: Callable[[bytes, str], object] | None = None,
) -> Imported:
    """Go through a folder as `import_tree` does, and store nothing; no file is opened, and there is no root.

    The arguments are those of `import_tree`; *met* is called for folders and links as well.

    Raises `SourceError` if the source itself cannot be read.
    """
    options = _Options(skip_special, select, leave_out, dropped, None)
    work = _Survey(options, met=met)
    work.run(source_path(source))
    return Imported(None, tuple(work.problems), work.files, work.directories, work.links, work.size)


@attrs.frozen
class _Options:
    skip_special: bool
    select: Selection
    leave_out: Callable[[bytes], object] | None
    dropped: Callable[[bytes, str], object] | None
    known_files: KnownFiles | None


@attrs.define(eq=False)
class _Frame:
    """A folder whose directory is not complete: what is known of it, and how much is still to come."""

    path: bytes
    """From the source on."""
    parent: _Frame | None
    name: bytes
    selected: SelectedFolder | None = None
    """What is asked of its entries; `None` if all are taken."""
    nodes: dict[bytes, Node] = attrs.field(factory=dict)
    open_entries: int = 1
    """Files under way, folders that are not complete, and 1 until all names have been met."""
    begun: int = 0
    """When it was looked at, for what is to be remembered of it."""
    known: KnownFolder | None = None
    """What was remembered, if all in it is as it was, as far as can be told without what is below it."""
    statuses: dict[bytes, bytes] = attrs.field(factory=dict)
    """What is to be remembered of files."""
    same: list[DirectoryNode] = attrs.field(factory=list)
    """Those in it that are as they were."""


_Hit: TypeAlias = "tuple[bytes, bytes, FileNode]"
"""A known file: its name, its status, and what it was."""

_Files: TypeAlias = "tuple[tuple[B3Digest, int], ...]"
"""Those of a folder that is as it was, with their sizes."""


@attrs.define(eq=False)
class _Linked:
    """A file with several names: who waits for the one that is read, or what came of that."""

    status: bytes
    waiting: list[tuple[Folder, _Frame, bytes]] = attrs.field(factory=list)
    node: FileNode | None = None
    remembered: bool = False
    """Whether it may be remembered."""


class _Walk:
    """Goes through a folder, and takes note of all but the files, which it yields."""

    def __init__(self, options: _Options, met: Callable[[bytes], object] | None) -> None:
        self.problems: list[ImportProblem] = []
        self.files = self.directories = self.links = self.size = self.known = 0
        self._options = options
        self._select = None if options.select.takes_all else options.select
        self._unmet = set(options.select.only or ())
        self._not_entered: set[bytes] = set()
        self._met = met
        self._device = 0
        self._under_way: deque[tuple[_Frame, bytes, FileAt, _Linked | None]] = deque()

    def run(self, source: bytes) -> Node | None:
        try:
            kind = stat.S_IFMT(os.lstat(source).st_mode)
            above, name = os.path.split(source)  # bytes
            with OpenTree(source if kind == stat.S_IFDIR else above) as folder:
                return self._run(source, folder, name, kind)
        except (OSError, ValueError) as error:
            if isinstance(error, CastoreError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(f"cannot read {os.fsdecode(source)!r}: {reason}") from error

    def _run(self, source: bytes, folder: Folder, name: bytes, kind: int) -> Node | None:
        # The root is an entry like any other, of a folder that there is not.
        above = _Frame(b"", None, b"")
        self._source = source
        if kind == stat.S_IFDIR:
            self._device = folder.device
            walk = self._walk(folder, _Frame(b"", above, b"root"))
            above.open_entries += 1
        else:
            walk = self._entry(folder, above, (name, kind, None))
        self._store(walk)
        for path in sorted(self._unmet - set(self._below_what_is_not_entered())):
            self._note(path, "unreadable", f"{os.fsdecode(path)!r} is listed, and is not in the source")
        return next(iter(above.nodes.values()), None)

    def _below_what_is_not_entered(self) -> Iterator[bytes]:
        """Yield what is listed and was not come to, as something above it is left out, or a problem."""
        for path in self._unmet:
            parts = path.split(b"/")
            above = (b"/".join(parts[:count]) for count in range(1, len(parts) + 1))
            if not self._not_entered.isdisjoint(above):
                yield path

    def _store(self, walk: Iterator[FileAt]) -> None:
        raise NotImplementedError

    def _complete(self, frame: _Frame, parent: _Frame) -> None:
        raise NotImplementedError

    def _remembered(self, folder: Folder, frame: _Frame, entries: list[MetEntry]) -> Iterator[MetEntry]:  # noqa: ARG002
        """Yield those entries of a folder that are not known."""
        return iter(entries)

    def _claim(self) -> Iterator[FileAt]:
        """Yield known files that have to be read after all."""
        return iter(())

    # -- folders --

    def _walk(self, root: Folder, frame: _Frame) -> Iterator[FileAt]:
        """Yield the files below a folder, folder by folder; take note of all else on the way."""
        folders = [(root, frame, self._entries(root, frame))]
        while folders:
            folder, frame, entries = folders[-1]
            for entry in entries:
                if entry[1] == stat.S_IFDIR:
                    below = self._enter(folder, frame, entry[0])
                    if below is not None:
                        folders.append(below)
                        break
                else:
                    yield from self._entry(folder, frame, entry)
            else:
                folders.pop()
                self._close_entry(frame)
                yield from self._claim()
        yield from self._claim_rest()

    def _claim_rest(self) -> Iterator[FileAt]:
        return iter(())

    def _entries(self, folder: Folder, frame: _Frame) -> Iterator[MetEntry]:
        """Return what is taken of a folder, but for what is known."""
        frame.begun = time.time_ns() if self._options.known_files is not None else 0
        try:
            found = folder.statuses()
            if self._select is not None:
                frame.selected = self._selected(folder, frame, self._select)
        except (OSError, CastoreError) as error:
            # Without its rules, what should be left out would be taken.
            self._unreadable(frame, b"", error)
            return iter(())
        leave_out = self._options.leave_out
        if leave_out is not None:
            left = {name for name, _, _ in found if leave_out(_below(frame, name))}
            found = [entry for entry in found if entry[0] not in left]
            self._not_entered.update(_below(frame, name) for name in left)
        if frame.selected is not None:
            found = [entry for entry in found if self._takes(folder, frame, entry)]
        return self._remembered(folder, frame, found)

    @staticmethod
    def _selected(folder: Folder, frame: _Frame, select: Selection) -> SelectedFolder:
        above = None if frame.parent is None else frame.parent.selected
        return select.at_root(folder) if above is None else above.enter(frame.name, folder)

    def _takes(self, folder: Folder, frame: _Frame, entry: MetEntry) -> bool:
        name, kind, status = entry
        assert frame.selected is not None
        assert self._select is not None
        size = 0 if status is None else status.st_size
        reason = frame.selected.reason_against(name, is_folder=kind == stat.S_IFDIR, size=size)
        if reason is None and self._select.exclude_nodump:
            # Whatever is wrong with it, reading it will say so.
            with contextlib.suppress(OSError):
                reason = "--exclude-nodump" if folder.is_nodump(name, kind) else None
        path = _below(frame, name)
        self._unmet.discard(path)
        if reason is not None:
            if kind == stat.S_IFDIR:
                self._not_entered.add(path)
            if self._options.dropped is not None:
                self._options.dropped(path, reason)
        return reason is None

    def _enter(
        self, folder: Folder, frame: _Frame, name: bytes
    ) -> tuple[Folder, _Frame, Iterator[MetEntry]] | None:
        try:
            below = folder.enter(name)
        except OSError as error:
            self._unreadable(frame, name, error)
            return None
        path = _below(frame, name)
        frame.open_entries += 1
        inner = _Frame(path, frame, name)
        if self._select is not None and self._select.one_file_system and below.device != self._device:
            self._not_entered.add(path)
            if self._options.dropped is not None:
                self._options.dropped(path, "--one-file-system")
            return below, inner, iter(())
        return below, inner, self._entries(below, inner)

    def _entry(self, folder: Folder, frame: _Frame, entry: MetEntry) -> Iterator[FileAt]:
        name, kind, _ = entry
        if kind == stat.S_IFREG:
            if self._met is not None:
                self._met(_below(frame, name))
            yield self._file(folder, frame, name)
        elif kind == stat.S_IFLNK:
            try:
                frame.nodes[name] = SymlinkNode(SymlinkTarget(folder.read_link(name)))
                self.links += 1
            except (OSError, InvalidDirectoryError) as error:
                self._unreadable(frame, name, error)
        elif not self._options.skip_special:
            path = _below(frame, name)
            what = _SPECIAL.get(kind, "no file, folder or link")
            self._note(path, "special", f"{os.fsdecode(path)!r} is {what}, which a tree cannot have")

    def _file(self, folder: Folder, frame: _Frame, name: bytes, linked: _Linked | None = None) -> FileAt:
        frame.open_entries += 1
        path = _below(frame, name)
        file = FileAt(folder, name, os.fsdecode(path or name))
        self._under_way.append((frame, name, file, linked))
        return file

    def _close_entry(self, frame: _Frame) -> None:
        """Take note that an entry of a folder is complete; with the last one the folder is, and so on up."""
        while True:
            frame.open_entries -= 1
            parent = frame.parent
            if frame.open_entries or parent is None:
                return
            self._complete(frame, parent)
            frame = parent

    # -- problems --

    def _unreadable(self, frame: _Frame, name: bytes, error: OSError | CastoreError) -> None:
        path = _below(frame, name) if name else frame.path
        self._not_entered.add(path)
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            # It is no fault of the folder's, and the next one would fare no better.
            raise SourceError(f"cannot read {os.fsdecode(path)!r}: {error.strerror}") from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else describe(error)
        self._note(path, "unreadable", f"cannot read {os.fsdecode(path)!r}: {reason}")

    def _note(self, path: bytes, kind: ProblemKind, message: str) -> None:
        self.problems.append(ImportProblem(path, kind, message))


class _Survey(_Walk):
    """Goes through a folder, and does nothing else."""

    def _store(self, walk: Iterator[FileAt]) -> None:
        for _ in walk:
            frame = self._under_way.popleft()[0]
            self.files += 1
            self._close_entry(frame)

    def _entry(self, folder: Folder, frame: _Frame, entry: MetEntry) -> Iterator[FileAt]:
        name, kind, status = entry
        if kind == stat.S_IFLNK and self._met is not None:
            self._met(_below(frame, name))
        if kind == stat.S_IFREG and status is not None:
            self.size += status.st_size
        return super()._entry(folder, frame, entry)

    def _enter(
        self, folder: Folder, frame: _Frame, name: bytes
    ) -> tuple[Folder, _Frame, Iterator[MetEntry]] | None:
        if self._met is not None:
            self._met(_below(frame, name))
        return super()._enter(folder, frame, name)

    def _complete(self, frame: _Frame, parent: _Frame) -> None:  # noqa: ARG002 - nothing is made of it
        self.directories += 1


class _Import(_Walk):
    def __init__(
        self,
        blobs: BlobService,
        directories: DirectoryService,
        options: _Options,
        *,
        progress: Callable[[int], object] | None = None,
        met: Callable[[bytes], object] | None = None,
        passed: Callable[[int, int], object] | None = None,
        trusts: bool = True,
    ) -> None:
        super().__init__(options, met)
        self._blobs = blobs
        self._progress = progress
        self._passed = passed
        self._known_files = options.known_files
        self._sink = sink_of(directories, trusts=trusts)
        self._claims = BlobClaims(blobs)
        self._claimable: list[tuple[_Frame, Folder, list[_Hit] | _Files]] = []
        self._sizes: dict[B3Digest, int] = {}
        self._linked: dict[tuple[int, int], _Linked] = {}
        self._again: list[tuple[Folder, _Frame, bytes]] = []

    def _run(self, source: bytes, folder: Folder, name: bytes, kind: int) -> Node | None:
        try:
            with self._claims:
                node = super()._run(source, folder, name, kind)
                if isinstance(node, DirectoryNode):
                    self._sink.finish(node)
        except BaseException:
            self._sink.abort()
            raise
        return node

    # -- files --

    def _store(self, walk: Iterator[FileAt]) -> None:
        """Store the files that the walk comes to, in order; it goes on while they are stored."""
        self._store_all(walk)
        while self._again:
            again, self._again = self._again, []
            self._store_all(self._files_again(again))

    def _files_again(self, again: list[tuple[Folder, _Frame, bytes]]) -> Iterator[FileAt]:
        for folder, frame, name in again:
            yield self._file(folder, frame, name)
            frame.open_entries -= 1  # It was open already.

    def _store_all(self, walk: Iterator[FileAt]) -> None:
        for outcome in self._blobs.put_files(walk, progress=self._progress):
            frame, name, file, linked = self._under_way.popleft()
            if isinstance(outcome, SourceError):
                kind: ProblemKind = "changed" if isinstance(outcome, SourceChangedError) else "unreadable"
                self._note(_below(frame, name), kind, outcome.message)
                if linked is not None:
                    # Each of the others says by itself what is wrong.
                    self._again += linked.waiting
                    linked.waiting = []
            else:
                status = file.status
                assert status is not None
                node = FileNode(outcome, status.st_size, bool(status.st_mode & stat.S_IXUSR))
                self._take(frame, name, node)
                if self._known_files is not None and self._known_files.is_settled(status, frame.begun):
                    frame.statuses[name] = status_of(status)
                if linked is not None:
                    self._take_others(linked, node, status_of(status), frame.statuses.get(name))
            self._close_entry(frame)

    def _take(self, frame: _Frame, name: bytes, node: FileNode) -> None:
        frame.nodes[name] = node
        self.files += 1
        self.size += node.size

    # -- files with several names, each of which is read once --

    def _entry(self, folder: Folder, frame: _Frame, entry: MetEntry) -> Iterator[FileAt]:
        name, kind, status = entry
        if kind != stat.S_IFREG or status is None or status.st_nlink == 1:
            yield from super()._entry(folder, frame, entry)
            return
        if self._met is not None:
            self._met(_below(frame, name))
        key = (status.st_dev, status.st_ino)
        remembered = status_of(status)
        linked = self._linked.get(key)
        if linked is None or linked.status != remembered:
            linked = self._linked[key] = _Linked(remembered)
            yield self._file(folder, frame, name, linked)
        elif linked.node is None:
            frame.open_entries += 1
            linked.waiting.append((folder, frame, name))
        else:
            self._take_other(linked, frame, name)

    def _take_others(self, linked: _Linked, node: FileNode, status: bytes, settled: bytes | None) -> None:
        waiting, linked.waiting = linked.waiting, []
        if status != linked.status:
            # It is another file by now, or was changed.
            self._linked = {key: each for key, each in self._linked.items() if each is not linked}
            self._again += waiting
            return
        linked.node, linked.remembered = node, settled is not None
        for _, frame, name in waiting:
            self._take_other(linked, frame, name)
            self._close_entry(frame)

    def _take_other(self, linked: _Linked, frame: _Frame, name: bytes) -> None:
        assert linked.node is not None
        self._take(frame, name, linked.node)
        if linked.remembered:
            frame.statuses[name] = linked.status

    # -- what is known --

    def _path_of(self, frame: _Frame) -> bytes:
        return b"/".join((self._source, frame.path)) if frame.path else self._source

    def _remembered(self, folder: Folder, frame: _Frame, entries: list[MetEntry]) -> Iterator[MetEntry]:
        """Yield those entries of a folder that are not known, and folders; the others are claimed later."""
        known_files = self._known_files
        known = None if known_files is None else known_files.folder(self._path_of(frame))
        if known_files is None or known is None:
            return iter(entries)
        if known.is_of(entries, folder.read_link):
            frame.known = known
            frame.open_entries += 1
            files = tuple(known.files())
            self._claimable.append((frame, folder, files))
            self._sizes.update(files)
            return iter([entry for entry in entries if entry[1] not in (stat.S_IFREG, stat.S_IFLNK)])
        return iter(self._some_remembered(folder, frame, entries, known, known_files))

    def _some_remembered(
        self,
        folder: Folder,
        frame: _Frame,
        entries: list[MetEntry],
        known: KnownFolder,
        known_files: KnownFiles,
    ) -> list[MetEntry]:
        then = {name: (status, digest) for name, status, digest in known.entries()}
        hits: list[_Hit] = []
        others: list[MetEntry] = []
        for entry in entries:
            name, kind, status = entry
            if kind == stat.S_IFREG and status is not None and name in then:
                now = status_of(status)
                old, digest = then[name]
                if known_files.same(now, old):
                    node = FileNode(B3Digest(digest), status.st_size, bool(status.st_mode & stat.S_IXUSR))
                    # What is not compared stays as it was when the file was read.
                    hits.append((name, now[:MODE_SIZE] + old[MODE_SIZE:], node))
                    self._sizes[node.digest] = node.size
                    continue
            others.append(entry)
        if hits:
            frame.open_entries += 1
            self._claimable.append((frame, folder, hits))
        return others

    def _claim(self) -> Iterator[FileAt]:
        if len(self._sizes) >= MOST_ITEMS or len(self._claimable) >= MOST_ITEMS:
            yield from self._claim_rest()

    def _claim_rest(self) -> Iterator[FileAt]:
        """Claim known files; yield those that are gone, and have to be read."""
        claimable, self._claimable = self._claimable, []
        sizes, self._sizes = self._sizes, {}
        lost = sizes.keys() - self._claims.claim(sizes) if sizes else set()
        count = size = 0
        for frame, folder, hits in claimable:
            if isinstance(hits, tuple):
                assert frame.known is not None
                if not lost or not any(digest in lost for digest, _ in hits):
                    count += len(hits)
                    size += sum(each for _, each in hits)
                    self.links += frame.known.links.count(b"\0") + bool(frame.known.links)
                    self._close_entry(frame)
                    continue
                hits = self._forget(frame)  # noqa: PLW2901 - now it is one of which some are known
            for name, status, node in hits:
                if node.digest in lost:
                    yield self._file(folder, frame, name)
                else:
                    frame.nodes[name] = node
                    frame.statuses[name] = status
                    count += 1
                    size += node.size
            self._close_entry(frame)
        self.files += count
        self.known += count
        self.size += size
        if count and self._passed is not None:
            self._passed(count, size)

    def _forget(self, frame: _Frame) -> list[_Hit]:
        """Take a folder that is as it was for one that is not; return the files in it."""
        known, frame.known = frame.known, None
        assert known is not None
        hits: list[_Hit] = []
        statuses = {name: status for name, status, _ in known.entries()}
        for name, node in known.nodes().items():
            if isinstance(node, FileNode):
                hits.append((name, statuses[name], node))
            else:
                frame.nodes[name] = node
                self.links += 1
        return hits

    # -- directories --

    def _complete(self, frame: _Frame, parent: _Frame) -> None:
        self.directories += 1
        if frame.known is not None:
            # One in which a directory was put anew is put, too: else nothing would refer to that.
            takes_same = self._sink.takes_same and len(frame.same) == len(frame.nodes)
            if takes_same and frame.known.has_folders(frame.nodes):
                node = DirectoryNode(frame.known.digest, frame.known.size)
                self._sink.same(node, frame.known.length, partial(_made_of, frame.known, frame.nodes))
                parent.nodes[frame.name] = node
                parent.same.append(node)
                return
            for name, each, _ in frame.known.entries():
                frame.statuses[name] = each
            frame.nodes |= frame.known.nodes()
        directory = Directory(frame.nodes)
        self._sink.put(directory, frame.same)
        if self._known_files is not None:
            self._known_files.keep(self._path_of(frame), KnownFolder.of(directory, frame.statuses))
        frame.nodes = {}
        parent.nodes[frame.name] = directory.node


def _made_of(known: KnownFolder, folders: Mapping[bytes, Node]) -> Directory:
    return Directory({**known.nodes(), **folders})


def _below(frame: _Frame, name: bytes) -> bytes:
    return b"/".join((frame.path, name)) if frame.path else name
