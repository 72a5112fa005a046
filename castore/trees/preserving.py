"""Giving the entries of a folder what the tree does not have: modes, owners, times and more."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.owned import name_while_built
from castore.trees.folders import Folder
from castore.trees.metadata import EntryMetadata, type_of_mode, type_of_node
from castore.trees.placing import copy_file
from castore.trees.walking import walk

ASPECTS: Final = ("mode", "times", "owner", "xattrs", "links")
"""What can be given."""

_MOST_TOLD: Final = 10
_NOT_ALLOWED: Final = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@attrs.frozen
class Preserving:
    """What is given to the entries of a folder.

    Attributes:
        entries: What is known of them, in the order of the tree.
        aspects: What of that: some of `ASPECTS`.
        below: Of which part of the tree the folder is made: lines about others are passed over.
    """

    entries: Iterable[EntryMetadata]
    aspects: frozenset[str] = frozenset(ASPECTS)
    below: TreePath = attrs.field(factory=TreePath)


class Preserver:
    """Gives entries what is known of them; what does not fit, or is not allowed, is told in the end.

    Arguments:
        how: What is given.
        directories: Where the directories of the tree are.
        names: What is called otherwise in the folder: the name there, by the path in the tree.
    """

    def __init__(
        self, how: Preserving, directories: DirectoryService, names: Mapping[bytes, bytes] | None = None
    ) -> None:
        self._how = how
        self._directories = directories
        self._names = names or {}
        self._unfit: list[str] = []
        self._unfit_count = 0
        self._refused = dict.fromkeys(ASPECTS, 0)
        self._groups: dict[int, tuple[Folder, bytes, B3Digest]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not done, in words."""
        notes = []
        if self._unfit:
            more = self._unfit_count - len(self._unfit)
            rest = f", and {more} more" if more else ""
            notes.append(f"lines of the metadata do not fit the tree: {', '.join(self._unfit)}{rest}")
        for aspect, count in self._refused.items():
            if count:
                entries = "1 entry" if count == 1 else f"{count} entries"
                notes.append(f"{aspect}: not allowed here for {entries}")
        return tuple(notes)

    def give(self, folder: Folder, name: bytes | None, root: Node) -> None:
        """Give what is known to a folder and all in it, or to an entry of that *name* in it."""
        entries = self._entries()
        entry = next(entries, None)
        # Folders on the way, with what they are given when all in them is done: else no time would last.
        folders: list[tuple[Folder | None, EntryMetadata | None]] = []
        for path, node in self._nodes(root):
            while len(folders) > len(path):
                self._leave(*folders.pop())
            while entry is not None and tuple(entry.path) < tuple(path):
                self._note(entry, "the tree has no such entry")
                entry = next(entries, None)
            fits: EntryMetadata | None = None
            if entry is not None and entry.path == path:
                if entry.type == type_of_node(node):
                    fits = entry
                else:
                    self._note(entry, f"it is a {entry.type} there, and a {type_of_node(node)} in the tree")
                entry = next(entries, None)
            above = folders[-1][0] if folders else folder
            here = self._names.get(bytes(path), path[-1]) if path else name
            if isinstance(node, DirectoryNode):
                inner = folder if not path else None if above is None else _entered(above, here)
                folders.append((inner, fits))
            elif fits is not None and above is not None and here is not None:
                self._give_entry(above, here, node, fits)
        while folders:
            self._leave(*folders.pop())
        while entry is not None:
            self._note(entry, "the tree has no such entry")
            entry = next(entries, None)

    def _nodes(self, root: Node) -> Iterator[tuple[TreePath, Node]]:
        yield TreePath(), root
        yield from walk(self._directories, root)

    def _entries(self) -> Iterator[EntryMetadata]:
        below = self._how.below
        for entry in self._how.entries:
            if entry.path[: len(below)] == below:
                yield attrs.evolve(entry, path=TreePath(entry.path[len(below) :]))

    def _note(self, entry: EntryMetadata, reason: str) -> None:
        self._unfit_count += 1
        if len(self._unfit) < _MOST_TOLD:
            self._unfit.append(f"{str(entry.path) or '.'!r} ({reason})")

    # -- one entry --

    def _leave(self, folder: Folder | None, entry: EntryMetadata | None) -> None:
        if folder is not None and entry is not None:
            with folder.descriptor() as descriptor:
                self._give(descriptor, entry)

    def _give_entry(self, folder: Folder, name: bytes, node: Node, entry: EntryMetadata) -> None:
        try:
            status = folder.status(name)
        except FileNotFoundError:
            return  # It was left out, or could not be had.
        if type_of_mode(status.st_mode) != entry.type:
            return
        if not isinstance(node, FileNode):
            self._give_link(folder, name, status, entry)
            return
        if self._wants("links") and entry.link_group is not None and self._join(folder, name, node, entry):
            return
        try:
            descriptor = folder.open_file(name, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:
            self._refused["mode"] += self._wants("mode")
            return
        try:
            if os.fstat(descriptor).st_nlink == 1:
                self._give(descriptor, entry)
            elif self._lacks(descriptor, entry):
                # Its other names may be anywhere, and are not to change.
                self._give_copy(folder, name, descriptor, entry)
        finally:
            os.close(descriptor)

    def _give_copy(self, folder: Folder, name: bytes, descriptor: int, entry: EntryMetadata) -> None:
        """Let a copy take the place of a file, and give that what is known."""
        temporary = name_while_built(name, secrets.token_hex(4))
        copy = folder.open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            copy_file(descriptor, copy)
            for attribute in os.listxattr(descriptor):
                with contextlib.suppress(OSError):
                    os.setxattr(copy, attribute, os.getxattr(descriptor, attribute))
            self._give(copy, entry)
            folder.rename(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.remove(temporary)
            raise
        finally:
            os.close(copy)

    def _lacks(self, descriptor: int, entry: EntryMetadata) -> bool:
        """Tell whether an open file lacks something that it is to be given."""
        status = os.fstat(descriptor)
        return (
            (self._wants("owner") and _other_owner(entry, status))
            or (self._wants("mode") and entry.mode not in (None, stat.S_IMODE(status.st_mode)))
            or (self._wants("times") and entry.time not in (None, status.st_mtime_ns))
            or (
                self._wants("xattrs")
                and any(_attribute(descriptor, name) != value for name, value in entry.xattrs.items())
            )
        )

    def _wants(self, aspect: str) -> bool:
        return aspect in self._how.aspects

    def _join(self, folder: Folder, name: bytes, node: FileNode, entry: EntryMetadata) -> bool:
        """Make a file another name of the first of its group; return False if it is that one, or differs."""
        assert entry.link_group is not None
        first = self._groups.setdefault(entry.link_group, (folder, name, node.digest))
        if first[2] != node.digest or (first[0] is folder and first[1] == name):
            return False
        if first[0].status(first[1]).st_ino == folder.status(name).st_ino:
            return True
        temporary = name_while_built(name, secrets.token_hex(4))
        with self._refusing("links"):
            folder.link_file(temporary, first[0], first[1])
            folder.rename(temporary, name)
            return True
        return False

    def _give(self, descriptor: int, entry: EntryMetadata) -> None:
        """Give an open file or folder what it does not have already; what one step undoes comes after it."""
        status = os.fstat(descriptor)
        if self._wants("owner") and _other_owner(entry, status):
            with self._refusing("owner"):
                os.chown(descriptor, _owner(entry), _group(entry))
        if self._wants("xattrs"):
            self._give_attributes(descriptor, entry)
        status = os.fstat(descriptor)
        if self._wants("mode") and entry.mode is not None and entry.mode != stat.S_IMODE(status.st_mode):
            with self._refusing("mode"):
                os.chmod(descriptor, entry.mode)
        if self._wants("times") and entry.time is not None and entry.time != status.st_mtime_ns:
            with self._refusing("times"):
                os.utime(descriptor, ns=(status.st_atime_ns, entry.time))

    def _give_attributes(self, descriptor: int, entry: EntryMetadata) -> None:
        refused = self._refused["xattrs"]
        for name, value in entry.xattrs.items():
            with self._refusing("xattrs"):
                if _attribute(descriptor, name) != value:
                    os.setxattr(descriptor, name, value)
        self._refused["xattrs"] = min(self._refused["xattrs"], refused + 1)

    def _give_link(self, folder: Folder, name: bytes, status: os.stat_result, entry: EntryMetadata) -> None:
        if status.st_nlink > 1 and (
            (self._wants("owner") and _other_owner(entry, status))
            or (self._wants("times") and entry.time not in (None, status.st_mtime_ns))
        ):
            # As of files: of a link there may be other names elsewhere.
            temporary = name_while_built(name, secrets.token_hex(4))
            folder.make_link(temporary, folder.read_link(name))
            folder.rename(temporary, name)
            status = folder.status(name)
        with folder.descriptor() as descriptor:
            if self._wants("owner") and _other_owner(entry, status):
                with self._refusing("owner"):
                    owner, group = _owner(entry), _group(entry)
                    os.chown(name, owner, group, dir_fd=descriptor, follow_symlinks=False)
            if self._wants("times") and entry.time is not None and entry.time != status.st_mtime_ns:
                with self._refusing("times"):
                    times = (status.st_atime_ns, entry.time)
                    os.utime(name, ns=times, dir_fd=descriptor, follow_symlinks=False)

    @contextlib.contextmanager
    def _refusing(self, aspect: str) -> Iterator[None]:
        try:
            yield
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno not in _NOT_ALLOWED:
                raise
            self._refused[aspect] += 1


def _entered(above: Folder, name: bytes | None) -> Folder | None:
    try:
        return None if name is None else above.enter(name)
    except OSError:
        return None  # It was left out, or somebody has replaced it.


def _attribute(descriptor: int, name: bytes) -> bytes | None:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return None


def _other_owner(entry: EntryMetadata, status: os.stat_result) -> bool:
    owner, group = _owner(entry), _group(entry)
    return owner not in (-1, status.st_uid) or group not in (-1, status.st_gid)


def _owner(entry: EntryMetadata) -> int:
    """Return the number of the owner, here: that of the name, if there is one. -1 leaves it."""
    here = None if entry.uname is None else _user_number(entry.uname)
    return here if here is not None else -1 if entry.uid is None else entry.uid


def _group(entry: EntryMetadata) -> int:
    here = None if entry.gname is None else _group_number(entry.gname)
    return here if here is not None else -1 if entry.gid is None else entry.gid


@functools.lru_cache(maxsize=1024)
def _user_number(name: bytes) -> int | None:
    import pwd  # noqa: PLC0415 - there are systems without

    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except (KeyError, ValueError):
        return None


@functools.lru_cache(maxsize=1024)
def _group_number(name: bytes) -> int | None:
    import grp  # noqa: PLC0415 - as above

    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except (KeyError, ValueError):
        return None
