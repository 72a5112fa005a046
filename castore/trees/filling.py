"""Folders that become what a tree is, entry by entry, each from within its folder: no link is followed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

import attrs

from castore.contract.blobs import Answer, BlobReader, BlobService
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import (
    BlobNotFoundError,
    CastoreError,
    CorruptBlobError,
    InvalidDirectoryError,
    TargetError,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, PathComponent, SymlinkNode, TreePath
from castore.owned import name_while_built, named_while_built
from castore.threads.process_locks import lock
from castore.trees.comparing import Letter
from castore.trees.exports import Exported, ExportOptions, LostFile
from castore.trees.folders import Folder, MetEntry, flush_folders, make_read_only, remove_within
from castore.trees.folding import Folding
from castore.trees.known_files import status_of
from castore.trees.placing import FilePlacer, digest_of_file
from castore.trees.preserving import Preserver
from castore.trees.remembering import ExportMemory, RememberedFolder, mark
from castore.trees.selecting import DirectoryView, SelectedFolder
from castore.trees.walking import walk_directories

_MOST_FILES: Final = 2048
"""So many files are read together: in requests as few and as large as the service makes them."""

_MOST_LINKS: Final = 100_000
"""So many links wait for the end."""

_MOST_NAMED: Final = 100
"""So many names that collide are told."""


Top: TypeAlias = "Node | Directory"
"""A node, or what a folder is to have that no directory of a tree is."""


class Hold:
    """A folder that is locked, for nobody else to write to; a context manager.

    Raises `BlockingIOError` if somebody has it locked. Where folders cannot be locked nobody is kept out.
    """

    def __init__(self, folder: Folder) -> None:
        with folder.descriptor() as descriptor:
            self._descriptor = os.dup(descriptor)
        try:
            lock(self._descriptor, fcntl.LOCK_EX, wait=0)
        except BlockingIOError:
            os.close(self._descriptor)
            reason = "another export is writing to it; let that end, or name another place"
            raise BlockingIOError(errno.EWOULDBLOCK, reason) from None
        except BaseException:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Let it go."""
        # Closing would not do: the folder has another descriptor, which the lock is of as well.
        lock(self._descriptor, fcntl.LOCK_UN, wait=0)
        os.close(self._descriptor)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.close()


@attrs.frozen
class _Old:
    """What is there already."""

    name: bytes
    kind: int
    status: os.stat_result | None = None
    """That of a file, if it was asked for."""


@attrs.define(eq=False)
class _Place:
    """A folder that is being filled, and what is known of it.

    Attributes:
        folder: The folder; `None` in a rehearsal if there is none.
        selected: What of the directory is taken.
        names: What its entries are called here, if not as in the tree.
        old: What was in it, by the keys of the names; `None` if it is new.
        dropped: What the tree has, and what is not taken.
        memory: What is remembered of it.
        is_right: Whether it has all but the folders in it as it should.
        spares: Whether what is excluded stays if it is there; in what an export has left nothing does.
    """

    folder: Folder | None
    selected: SelectedFolder | None
    names: dict[bytes, bytes]
    old: dict[bytes, _Old] | None
    dropped: frozenset[bytes] = frozenset()
    spares: bool = True
    memory: RememberedFolder | None = None
    is_right: bool = False

    def takes(self, name: bytes, node: Node) -> bool:
        return self.selected is None or self.selected.takes(name, node)

    def keeps(self, name: bytes, kind: int) -> bool:
        """Tell whether something that the tree does not have is none of its concern."""
        return (
            self.spares
            and self.selected is not None
            and (
                name in self.dropped
                or self.selected.reason_against(name, is_folder=kind == stat.S_IFDIR) is not None
            )
        )


@attrs.frozen(slots=True)
class _Wanted:
    """A file that is to be written."""

    folder: Folder
    name: bytes
    memory: RememberedFolder | None
    path: TreePath
    node: FileNode
    letter: Letter | None
    """What is told of it; nothing yet of what is to take the place of a folder."""
    replace: bool


@attrs.frozen(slots=True)
class _Link:
    folder: Folder
    name: bytes
    path: TreePath
    target: bytes
    letter: Letter | None
    """As above."""
    replace: bool


@attrs.frozen(slots=True)
class _Change:
    """Something that is made under another name, and takes the place of what is of another kind.

    Attributes:
        place: The folder that both are in.
        old: What is there.
        temporary: What the new one is called until then.
        path: Where it is in the tree.
        node: What it is to be.
        folder: The new one, if it is a folder.
    """

    place: _Place
    old: _Old
    temporary: bytes
    path: TreePath
    node: Node | None
    folder: Folder | None


class TreeFiller:
    """Makes folders, files and links what a tree has by their names."""

    def __init__(
        self,
        blobs: BlobService,
        directories: DirectoryService,
        options: ExportOptions,
        *,
        progress: Callable[[int], object] | None,
        report: Callable[[Letter, TreePath], object] | None,
        passed: Callable[[int, int], object] | None,
        target: bytes,
    ) -> None:
        self.options = options
        self.lost: list[LostFile] = []
        self._counts = dict.fromkeys(("written", "directories", "links", "kept", "deleted", "size"), 0)
        self._renamed: dict[bytes, bytes] = {}
        self._notes: tuple[str, ...] = ()
        self._blobs = blobs
        self._directories = directories
        self._progress = progress
        self._report = report
        self._passed = passed
        self._memory: ExportMemory | None = None
        # Times that are given later, and names of one file, change what would be remembered.
        remembers = not (options.preserving or options.placing.hardlink or options.dry_run)
        if options.known_files is not None:
            self._memory = ExportMemory(options.known_files, target)
        self._placer = (
            FilePlacer(options.placing, mark) if self._memory and remembers else FilePlacer(options.placing)
        )
        self._folding = Folding()
        self._replacing = False
        self._may_delete = options.delete
        self._is_own = False
        self._changes: list[_Change] = []
        self._waiting: list[_Wanted] = []
        self._links: list[_Link] = []
        self._surplus: list[tuple[_Place, _Old, TreePath]] = []
        self._places: list[_Place] = []
        self._hold: Hold | None = None

    def outcome(self) -> Exported:
        """Return what has come of it so far."""
        return Exported(tuple(self.lost), **self._counts, renamed=self._renamed, notes=self._notes)

    def let_go(self) -> None:
        """Let others write to the folder."""
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    # -- the ways --

    def build(self, above: Folder, name: bytes, root: Top, *, resumed: bool) -> None:
        """Make what *root* is, by this name, in a folder."""
        if not isinstance(root, (DirectoryNode, Directory)):
            self._visit(_Place(above, None, {}, None), name, TreePath(), root)
            self._finish()
            self._preserve(above, name, root)
            return
        folder = above.enter(name) if resumed else above.make(name, 0o755)
        self._hold = Hold(folder)
        if not resumed:
            self._count("A", TreePath(), "directories")
        # All in what was left is an export's own: what this one does not make does not stay.
        self._is_own = self._may_delete = resumed
        self._fill(folder, root, is_new=not resumed)

    def update(self, folder: Folder, root: DirectoryNode | Directory) -> None:
        """Bring a folder up to date."""
        self._hold = Hold(folder)
        self._fill(folder, root, is_new=False)

    def update_entry(self, folder: Folder, name: bytes, root: Node) -> None:
        """Bring a file or link up to date."""
        self._replacing = True
        old = {name: _Old(name, folder.kind_of(name))}
        self._visit(_Place(folder, None, {}, old), name, TreePath(), root)
        self._finish()
        self._preserve(folder, name, root)

    def rehearse(self, root: Top) -> None:
        """Tell what would be made where there is nothing."""
        if isinstance(root, (DirectoryNode, Directory)):
            self._count("A", TreePath(), "directories")
            self._go_through(None, root, is_new=True)
        else:
            self._visit(_Place(None, None, {}, None), b"", TreePath(), root)
        self._finish()

    def _fill(self, folder: Folder, root: DirectoryNode | Directory, *, is_new: bool) -> None:
        self._replacing = not is_new
        if not self.options.dry_run:
            folder.make_usable()
            self._folding = self.options.prober(folder)
            if self._folding and not self.options.rename_collisions:
                self._require_apart(root)
        try:
            self._go_through(folder, root, is_new=is_new)
            self._finish()
            while self._changes:
                self._change(self._changes[-1])
                self._changes.pop()
        except BaseException:
            for each in self._changes:
                _discard(each)
            raise
        if self.lost and not self.options.skip_unreadable:
            return
        for place, old, path in self._surplus:
            self._delete(place, old, path)
        if self.options.dry_run:
            return
        if not isinstance(root, Directory):
            self._preserve(folder, None, root)
        if self.options.placing.read_only:
            make_read_only(folder)
        if self.options.placing.durable:
            flush_folders(folder)

    def _preserve(self, folder: Folder, name: bytes | None, root: Node) -> None:
        """Give what was made what the tree does not have."""
        if self.options.preserving is None or self.options.dry_run:
            return
        names = {path: here.rpartition(b"/")[2] for here, path in self._renamed.items()}
        preserver = Preserver(self.options.preserving, self._directories, names)
        preserver.give(folder, name, root)
        self._notes = preserver.notes

    # -- going through the tree --

    def _go_through(
        self,
        folder: Folder | None,
        root: DirectoryNode | Directory,
        *,
        is_new: bool,
    ) -> None:
        for path, directory in self._taken(root):
            place = self._places[-1]
            if not path:
                place.folder = folder
                if self._memory is not None:
                    place.memory = self._memory.folder(path)
                if not is_new:
                    self._look_into(place, directory)
            else:
                self._open(self._places[-2], place, path, directory)
            place.names = self._folding.apart(directory) if self.options.rename_collisions else {}
            for name, other in place.names.items():
                self._renamed[bytes(path.join(other))] = bytes(path.join(name))
            if place.is_right:
                self._keep_all(directory)
                continue
            for name, node in directory.items():
                if not isinstance(node, DirectoryNode):
                    self._visit(place, place.names.get(name, name), path.join(name), node)
            if place.old:
                self._look_for_surplus(place, path, directory)
            if place.memory is not None and not place.names and not self.options.dry_run:
                place.memory.end(directory)

    def _keep_all(self, directory: Mapping[PathComponent, Node]) -> None:
        """Take note that all files and links of a directory are right."""
        count = links = size = 0
        for node in directory.values():
            if isinstance(node, FileNode):
                count += 1
                size += node.size
            elif isinstance(node, SymlinkNode):
                links += 1
        self._counts["kept"] += count + links
        if count and self._passed is not None:
            self._passed(count, size)

    def _taken(
        self, root: DirectoryNode | Directory
    ) -> Iterator[tuple[TreePath, Mapping[PathComponent, Node]]]:
        """Yield what is taken of each directory, and keep a place for each of those above it."""
        places: list[_Place] = []
        self._places = places
        selection = self.options.selection

        def enters(path: TreePath, node: DirectoryNode) -> bool:
            return places[len(path) - 1].takes(path[-1], node)

        if isinstance(root, DirectoryNode):
            found = walk_directories(self._directories, root, enters=enters)
        else:
            found = _of_several(self._directories, root, enters)
        for path, directory in found:
            del places[len(path) :]
            above = places[-1].selected if path else None
            view = DirectoryView(directory, self._blobs)
            selected = None
            if not selection.takes_all:
                selected = selection.at_root(view) if above is None else above.enter(path[-1], view)
            place = _Place(None, selected, {}, None, spares=not self._is_own)
            places.append(place)
            if selected is None:
                yield path, directory
            else:
                taken = {name: node for name, node in directory.items() if place.takes(name, node)}
                place.dropped = frozenset(directory.keys() - taken.keys())
                yield path, taken

    def _require_apart(self, root: DirectoryNode | Directory) -> None:
        """Raise `TargetError` if some names are one here; nothing is written then."""
        pairs = []
        number = 0
        for path, directory in self._taken(root):
            for one, other in self._folding.collisions(directory):
                number += 1
                if number <= _MOST_NAMED:
                    pairs.append(f"{str(path.join(one))!r} and {str(path.join(other))!r}")
        if number:
            more = f", and {number - _MOST_NAMED} more" if number > _MOST_NAMED else ""
            raise TargetError(
                f"names of the tree are one and the same here: {', '.join(pairs)}{more}; "
                "--on-collision=rename gives the later ones others"
            )

    def _open(
        self, above: _Place, place: _Place, path: TreePath, directory: Mapping[PathComponent, Node]
    ) -> None:
        """Make or enter a folder."""
        if self._memory is not None:
            place.memory = self._memory.folder(path)
        name = above.names.get(path[-1], path[-1])
        old = self._find_old(above, name)
        if old is not None and old.kind == stat.S_IFDIR:
            assert above.folder is not None
            place.folder = above.folder.enter(name)
            if not self.options.dry_run:
                place.folder.make_usable()
            self._look_into(place, directory)
            return
        self._count("A" if old is None else "T", path, "directories")
        if self.options.dry_run:
            return
        assert above.folder is not None
        if old is None or self._is_own:
            if old is not None:
                above.folder.remove(name)
            place.folder = above.folder.make(name, 0o755)
            return
        # What is there goes when all that is to be in its place is at hand.
        temporary = name_while_built(name, secrets.token_hex(4))
        place.folder = above.folder.make(temporary, 0o755)
        self._changes.append(_Change(above, _Old(name, old.kind), temporary, path, None, place.folder))

    def _look_into(self, place: _Place, directory: Mapping[PathComponent, Node]) -> None:
        """Find out what is in a folder, and whether that is all as it should be."""
        folder, memory = place.folder, place.memory
        if folder is None:
            return
        if memory is None:
            place.old = {self._folding.key(name): _Old(name, kind) for name, kind in folder.entries()}
            return
        found = folder.statuses()
        memory.recall()
        place.is_right = (
            not self._is_own
            and memory.is_right(folder, found, directory)
            and not (self.options.placing.read_only and any(map(_is_writable, found)))
        )
        place.old = {
            self._folding.key(name): _Old(name, kind, status)
            for name, kind, status in found
            if not place.is_right or kind == stat.S_IFDIR
        }

    def _find_old(self, place: _Place, name: bytes) -> _Old | None:
        """Return what has a name in a folder; it is given that name as it is written here."""
        old = place.old.get(self._folding.key(name)) if place.old else None
        if old is not None and old.name != name and not self.options.dry_run:
            assert place.folder is not None
            place.folder.rename(old.name, name)
        return old

    # -- entries --

    def _visit(self, place: _Place, name: bytes, path: TreePath, node: Node) -> None:
        """Have a file or link written, unless it is right."""
        old = self._find_old(place, name)
        letter: Letter | None = "A"
        if old is not None:
            assert place.folder is not None
            found = self._difference(place, name, old, node)
            if found is None:
                self._counts["kept"] += 1
                if self._progress is not None and isinstance(node, FileNode):
                    self._progress(node.size)
                return
            letter = found
            if letter == "X" and self._change_mode(place.folder, name, path, node):
                return
            if old.kind == stat.S_IFDIR and not self._may_clear_the_way(place, _Old(name, old.kind), path):
                return
            if self._is_own:
                # If it cannot be had, nothing else may stand there.
                self._remove_own(place.folder, name, old.kind)
                old = None
            elif old.kind == stat.S_IFDIR and not self.options.dry_run:
                temporary = name_while_built(name, secrets.token_hex(4))
                self._changes.append(_Change(place, _Old(name, old.kind), temporary, path, node, None))
                name, letter, old = temporary, None, None  # until it takes its place
        if self.options.dry_run:
            assert letter is not None
            self._count_made(letter, path, node)
            return
        assert place.folder is not None
        if isinstance(node, SymlinkNode):
            link = _Link(place.folder, name, path, node.target, letter, old is not None)
            self._links.append(link)
            if len(self._links) >= _MOST_LINKS:
                self._make_links()
        elif isinstance(node, FileNode):
            memory = None if place.names or letter is None else place.memory
            replace = self._replacing and letter is not None
            self._wait_for(_Wanted(place.folder, name, memory, path, node, letter, replace))

    def _wait_for(self, wanted: _Wanted) -> None:
        if wanted.memory is not None:
            wanted.memory.begin()
        self._waiting.append(wanted)
        if len(self._waiting) >= _MOST_FILES:
            self._write_files()

    def _difference(self, place: _Place, name: bytes, old: _Old, node: Node) -> Letter | None:
        """Return in what an entry that is there differs from the one of the tree, `None` if in nothing."""
        folder = place.folder
        assert folder is not None
        if isinstance(node, SymlinkNode):
            if old.kind != stat.S_IFLNK:
                return "T"
            return None if folder.read_link(name) == node.target else "L"
        assert isinstance(node, FileNode)
        if old.kind != stat.S_IFREG:
            return "T"
        status = folder.status(name) if old.status is None else old.status
        is_right: bool | None = status.st_size == node.size
        if is_right:
            is_right = place.memory.has(name, status, node) if place.memory is not None else None
            if is_right is None:
                is_right = _has_digest(folder, name, node, place.memory)
        if not is_right or (self._is_own and not self._as_if_new(status)):
            return "M"
        writable = self.options.placing.read_only and status.st_mode & 0o222
        return "X" if writable or bool(status.st_mode & stat.S_IXUSR) != node.executable else None

    def _as_if_new(self, status: os.stat_result) -> bool:
        """Tell whether a file that an export has left is as this one makes it, with what it is told."""
        how = self.options.placing
        return (status.st_nlink == 1 or how.hardlink) and (how.read_only or bool(status.st_mode & 0o200))

    def _change_mode(self, folder: Folder, name: bytes, path: TreePath, node: Node) -> bool:
        """Give a file that has the right bytes its mode; return False if it is to be written anew."""
        assert isinstance(node, FileNode)
        if not self.options.dry_run:
            descriptor = folder.open_file(name, os.O_RDONLY | os.O_NONBLOCK)
            try:
                if os.fstat(descriptor).st_nlink > 1:
                    return False  # Its other names are not of this tree, or may be not.
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                # Who may read it may execute it.
                mode = mode | (mode & 0o444) >> 2 if node.executable else mode & ~0o111
                os.fchmod(descriptor, mode & ~0o222 if self.options.placing.read_only else mode)
            except PermissionError:
                return False  # It is somebody else's.
            finally:
                os.close(descriptor)
        self._count("X", path, "kept")
        return True

    def _may_clear_the_way(self, place: _Place, old: _Old, path: TreePath) -> bool:
        """Tell whether a folder may go that stands in the way; a rehearsal tells what goes."""
        if self._may_delete:
            if self.options.dry_run:
                self._delete(place, old, path)
            return True
        self._lose(path, "a folder is in its place; --delete removes it")
        return False

    def _change(self, change: _Change) -> None:
        """Let something take the place of what is of another kind, if all of it could be had."""
        folder, name = change.place.folder, change.old.name
        assert folder is not None
        lost = {tuple(each.path[: len(change.path)]) for each in self.lost}
        if change.folder is not None:
            if tuple(change.path) in lost and not self.options.skip_unreadable:
                _discard(change)
                return
            folder.remove(name)
            folder.rename(change.temporary, name)
            change.folder.was_renamed(name)
            return
        if tuple(change.path) in lost:
            return
        if lost and not self.options.skip_unreadable:
            self._lose(change.path, "a folder is in its place, which stays while not all can be had")
        else:
            self._delete(change.place, change.old, change.path)
            if not folder.has(name):
                folder.rename(change.temporary, name)
                self._count_made("T", change.path, change.node)
                return
            self._lose(change.path, "a folder is in its place; what is in it and is excluded is kept")
        _discard(change)

    def _lose(self, path: TreePath, reason: str) -> None:
        self.lost.append(LostFile(path, TargetError(reason)))

    @staticmethod
    def _remove_own(folder: Folder, name: bytes, kind: int) -> None:
        if kind == stat.S_IFDIR:
            remove_within(folder, name)
        else:
            folder.remove(name)

    # -- what the tree does not have --

    def _look_for_surplus(
        self, place: _Place, path: TreePath, directory: Mapping[PathComponent, Node]
    ) -> None:
        assert place.old is not None
        names = {place.names.get(name, name) for name in directory}
        keys = {self._folding.key(name) for name in names}
        beginnings: set[bytes] | None = None
        for key, old in place.old.items():
            if key in keys:
                continue
            beginning = named_while_built(old.name)
            if beginning is not None and old.kind in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR):
                beginnings = beginnings or {name[:200] for name in names}
                if beginning in beginnings and not self.options.dry_run:
                    # An export that was killed has left it: one that goes on has the folder locked.
                    assert place.folder is not None
                    self._remove_own(place.folder, old.name, old.kind)
                    continue
            if self._may_delete and not place.keeps(old.name, old.kind):
                self._surplus.append((place, old, path.join(old.name)))

    def _delete(self, place: _Place, old: _Old, path: TreePath) -> None:
        """Remove an entry, and what is in it but for what is excluded and what is mounted there."""
        assert place.folder is not None
        if old.kind != stat.S_IFDIR:
            self._delete_entry(place.folder, old.name, path)
            return
        # Folders from the one to be removed down to the one that is emptied, with what is left to do there.
        waiting = [(place, old, path, *self._within(place, old))]
        while waiting:
            above, own, where, inner, entries = waiting[-1]
            entry = next(entries, None)
            if entry is None:
                waiting.pop()
                assert above.folder is not None
                if self.options.dry_run or _remove_if_empty(above.folder, own.name):
                    self._count("D", where, "deleted")
            elif not inner.keeps(entry.name, entry.kind):
                assert inner.folder is not None
                if entry.kind == stat.S_IFDIR:
                    waiting.append((inner, entry, where.join(entry.name), *self._within(inner, entry)))
                else:
                    self._delete_entry(inner.folder, entry.name, where.join(entry.name))

    def _within(self, place: _Place, old: _Old) -> tuple[_Place, Iterator[_Old]]:
        """Return a folder that is to be removed, and what is in it."""
        assert place.folder is not None
        folder = place.folder.enter(old.name)
        selected = None if place.selected is None else place.selected.enter(old.name)
        inner = _Place(folder, selected, {}, None)
        if folder.device != place.folder.device:
            return inner, iter(())  # Another disk is mounted there: that stays, and so does the folder.
        if not self.options.dry_run:
            folder.make_usable()
        return inner, iter([_Old(name, kind) for name, kind in folder.entries()])

    def _delete_entry(self, folder: Folder, name: bytes, path: TreePath) -> None:
        if not self.options.dry_run:
            folder.remove(name)
        self._count("D", path, "deleted")

    # -- writing --

    def _finish(self) -> None:
        self._write_files()
        self._make_links()

    def _write_files(self) -> None:
        waiting, self._waiting = self._waiting, []
        wanted: dict[B3Digest, list[_Wanted]] = {}
        for each in waiting:
            wanted.setdefault(each.node.digest, []).append(each)
        for digest, answer in self._blobs.read_many(wanted):
            with answer if isinstance(answer, BlobReader) else contextlib.nullcontext():
                for each in wanted[digest]:
                    self._write_file(each, answer)

    def _write_file(self, wanted: _Wanted, answer: Answer) -> None:
        digest = wanted.node.digest
        memory = wanted.memory
        try:
            if answer is None:
                raise BlobNotFoundError(digest)
            if isinstance(answer, CastoreError):
                raise answer
            try:
                marked = self._place(wanted, answer)
            except CorruptBlobError as error:
                if not error.passed_over:
                    raise
                with self._blobs.open(digest) as reader:
                    marked = self._place(wanted, reader)
            if memory is not None:
                memory.wrote(wanted.folder, wanted.name, wanted.node, marked)
        except (BlobNotFoundError, CorruptBlobError, InvalidDirectoryError) as error:
            self.lost.append(LostFile(wanted.path, error))
            return
        finally:
            if memory is not None:
                memory.end()
        if wanted.letter is not None:
            self._count_made(wanted.letter, wanted.path, wanted.node)
        if self._progress is not None:
            self._progress(wanted.node.size)

    def _place(self, wanted: _Wanted, content: bytes | BlobReader) -> tuple[int, int] | None:
        try:
            return self._placer.place(
                wanted.folder, wanted.name, wanted.node, content, replace=wanted.replace
            )
        except OSError as error:
            if isinstance(error, CastoreError):
                raise
            raise _refused(wanted.path, error) from error

    def _make_links(self) -> None:
        links, self._links = self._links, []
        for each in links:
            try:
                name = name_while_built(each.name, secrets.token_hex(4)) if each.replace else each.name
                each.folder.make_link(name, each.target)
                if each.replace:
                    each.folder.rename(name, each.name)
            except OSError as error:
                raise _refused(each.path, error) from error
            if each.letter is not None:
                self._count(each.letter, each.path, "links")

    def _count_made(self, letter: Letter, path: TreePath, node: Node | None) -> None:
        self._count(letter, path, "links" if isinstance(node, SymlinkNode) else "written")
        self._counts["size"] += node.size if isinstance(node, FileNode) else 0

    def _count(self, letter: Letter, path: TreePath, what: str) -> None:
        self._counts[what] += 1
        if self._report is not None:
            self._report(letter, path)


def _of_several(
    directories: DirectoryService, root: Directory, enters: Callable[[TreePath, DirectoryNode], bool]
) -> Iterator[tuple[TreePath, Directory]]:
    """Yield what `walk_directories` does of a directory that no service has, but for those within it."""
    yield TreePath(), root
    for name, node in root.directories:
        path = TreePath([name])
        if enters(path, node):
            yield from walk_directories(directories, node, path=path, enters=enters)


def _has_digest(folder: Folder, name: bytes, node: FileNode, memory: RememberedFolder | None) -> bool:
    """Tell whether a file has the bytes that the tree has for it; one that cannot be read has not."""
    try:
        descriptor = folder.open_file(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        begun = time.time_ns()
        before = os.fstat(descriptor)
        if digest_of_file(descriptor) != node.digest:
            return False
        if memory is not None and status_of(os.fstat(descriptor)) == status_of(before):
            memory.found(name, before, node, begun)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _is_writable(entry: MetEntry) -> bool:
    _, kind, status = entry
    return kind == stat.S_IFREG and status is not None and bool(status.st_mode & 0o222)


def _discard(change: _Change) -> None:
    """Remove what does not take the place of something else, as well as that can be done."""
    assert change.place.folder is not None
    with contextlib.suppress(OSError):
        if change.folder is not None:
            remove_within(change.place.folder, change.temporary)
        else:
            change.place.folder.remove(change.temporary)


def _remove_if_empty(folder: Folder, name: bytes) -> bool:
    try:
        folder.remove_folder(name)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            return False
        raise
    return True


def _refused(path: TreePath, error: OSError) -> TargetError:
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError):
        reason = "it is there: somebody has made it meanwhile, or another name is the same one here"
    return TargetError(f"cannot write {str(path)!r} of the tree: {reason}")
