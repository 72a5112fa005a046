"""Going through a tree: all of it, or down one path."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, InvalidDirectoryError, MissingDirectoryError, NodeNotFoundError
from castore.format.directories import Directory, check_edge
from castore.format.nodes import DirectoryNode, Node, PathComponent, SymlinkNode, TreePath, shown

MOST_LEVELS: Final = 4096
"""Deeper trees are refused: no file system could hold them, and a few bytes can name millions of levels."""

MOST_LINKS: Final = 40
"""So many links are followed on one way, as a rule of file systems has it."""

_MOST_HELD: Final = 1 << 16
"""So many entries of directories are remembered on the way."""

_BATCH: Final = 256
"""So many directories within one are had together, and held."""


def walk(
    directories: DirectoryService, root: Node, *, path: TreePath | None = None, recursive: bool = True
) -> Iterator[tuple[TreePath, Node]]:
    """Yield what is below *root* with the path to it, each directory before what is in it, by their names.

    Nothing is below a file or a link. What is held grows with the depth of the tree, not with its size.

    Arguments:
        directories: Where they are.
        root: What to begin with; it is not yielded itself.
        path: That of *root*, which the others begin with.
        recursive: Whether to go into directories.

    Raises `MissingDirectoryError`, `CorruptDirectoryError`, `UnavailableError`, and `InvalidDirectoryError`
    for wrong sizes and more than `MOST_LEVELS` levels.
    """
    if not isinstance(root, DirectoryNode):
        return
    begin = TreePath() if path is None else path
    # No recursion, however deep it is.
    levels = [_Level(directories, begin, directory_of(directories, root, begin), root.digest)]
    while levels:
        level = levels[-1]
        for name, node in level.entries:
            yield level.path.join(name), node
            if recursive and isinstance(node, DirectoryNode):
                below = level.directory_at(name, node)
                if len(levels) == MOST_LEVELS:
                    message = f"the tree {root.digest} has more than {MOST_LEVELS} levels"
                    raise InvalidDirectoryError(message, rule="too-deep")
                levels.append(_Level(directories, level.path.join(name), below, root.digest))
                break
        else:
            levels.pop()


def walk_directories(
    directories: DirectoryService,
    root: DirectoryNode,
    *,
    path: TreePath | None = None,
    enters: Callable[[TreePath, DirectoryNode], bool] = lambda _, __: True,
) -> Iterator[tuple[TreePath, Directory]]:
    """Yield a directory and those below it with the paths to them, each before those within it.

    Arguments:
        directories: Where they are.
        root: What to begin with.
        path: That of *root*, which the others begin with.
        enters: Asked of each directory within another one that was yielded, when its turn has come: what it
            is false of is passed over, with all below it.

    Raises as `walk` does.
    """
    begin = TreePath() if path is None else path
    first = directory_of(directories, root, begin)
    yield begin, first
    levels = [_Level(directories, begin, first, root.digest)]
    while levels:
        level = levels[-1]
        for name, node in level.entries:
            if not isinstance(node, DirectoryNode) or not enters(below := level.path.join(name), node):
                continue
            if len(levels) == MOST_LEVELS:
                message = f"the tree {root.digest} has more than {MOST_LEVELS} levels"
                raise InvalidDirectoryError(message, rule="too-deep")
            directory = level.directory_at(name, node)
            yield below, directory
            levels.append(_Level(directories, below, directory, root.digest))
            break
        else:
            levels.pop()


class _Level:
    """A directory that is gone through, and some of those within it."""

    def __init__(
        self, directories: DirectoryService, path: TreePath, directory: Directory, root: B3Digest
    ) -> None:
        self.path = path
        self.entries = iter(directory.items())
        self._directories = directories
        self._coming = directory.directories
        self._root = root
        self._found: dict[B3Digest, Directory | CastoreError] = {}

    def directory_at(self, name: PathComponent, node: DirectoryNode) -> Directory:
        """Return the directory of the next entry that is one."""
        if node.digest not in self._found:
            # Those of which the entries have been yielded are passed over.
            for other, _ in self._coming:
                if other == name:
                    break
            batch = [node, *(each for _, each in islice(self._coming, _BATCH - 1))]
            self._found = self._directories.get_many({each.digest for each in batch}, within=self._root)
        directory = self._found.get(node.digest)
        if directory is None:
            raise MissingDirectoryError(node.digest, path=bytes(self.path.join(name)))
        if isinstance(directory, CastoreError):
            raise directory
        check_edge(name, node, directory)
        return directory


def descend_to(directories: DirectoryService, root: Node, path: TreePath) -> Node | None:
    """Return the node at *path*, `None` if there is none; no link is followed.

    Raises `MissingDirectoryError` if a directory on the way is named and is not there, and what the service
    raises.
    """
    node = root
    for depth, name in enumerate(path):
        if not isinstance(node, DirectoryNode):
            return None
        below = directory_of(directories, node, TreePath(path[:depth])).get(name)
        if below is None:
            return None
        node = below
    return node


class RecentDirectories:
    """Directories of a service, of which those that were read lately are remembered, within a bound."""

    def __init__(self, directories: DirectoryService) -> None:
        self._directories = directories
        self._held: OrderedDict[B3Digest, Directory] = OrderedDict()
        self._entries = 0

    def get(self, digest: B3Digest, *, within: B3Digest | None = None) -> Directory | None:
        """Return a directory, as `get_many` of the service with *within*; raises what is wrong with it."""
        directory = self._held.get(digest)
        if directory is not None:
            self._held.move_to_end(digest)
            return directory
        found = self._directories.get_many((digest,), within=within).get(digest)
        if isinstance(found, CastoreError):
            raise found
        if found is not None:
            self._held[digest] = found
            self._entries += 1 + len(found)
            while self._entries > _MOST_HELD and len(self._held) > 1:
                _, gone = self._held.popitem(last=False)
                self._entries -= 1 + len(gone)
        return found


def resolve(
    directories: DirectoryService | RecentDirectories, root: Node, path: TreePath, *, follow: bool = True
) -> Node | None:
    """Return the node at *path*, `None` if there is none; links within the tree are followed.

    Arguments:
        directories: Where they are.
        root: The root of the tree, which no link may leave.
        path: Where to go. A link in the middle leads on from where it is.
        follow: Whether a link at its end is followed, too.

    Raises `NodeNotFoundError` for a link that leads out of the tree, and for more than `MOST_LINKS` of them,
    `MissingDirectoryError` if a directory on the way is named and is not there, and what the service raises.
    """
    recent = directories if isinstance(directories, RecentDirectories) else RecentDirectories(directories)
    link: tuple[bytes, bytes] | None = None
    if not isinstance(root, DirectoryNode):
        if isinstance(root, SymlinkNode) and (path or follow):
            raise _out_of_tree(b"", root.target)
        return None if path else root
    # The directories from the root down to where we are; the names that are still to come, the next one last.
    names: list[bytes] = []
    way = [root]
    waiting: list[bytes] = list(reversed(path))
    links = 0
    while waiting:
        name = waiting.pop()
        if name == b"..":
            if link is not None and not names:
                raise _out_of_tree(*link)
            del names[-1], way[-1]
        elif name not in (b"", b"."):
            node = _read(recent, way, names, root).get(name)  # type: ignore[call-overload] # bytes are as good
            if isinstance(node, DirectoryNode):
                names.append(name)
                way.append(node)
            elif isinstance(node, SymlinkNode) and (waiting or follow):
                link = b"/".join((*names, name)), node.target
                links += 1
                if links > MOST_LINKS:
                    raise NodeNotFoundError(f"more than {MOST_LINKS} links lead on from {str(path)!r}")
                if node.target.startswith(b"/"):
                    raise _out_of_tree(*link)
                waiting += reversed(node.target.split(b"/"))
            else:
                return None if waiting else node
    return way[-1]


def _read(
    recent: RecentDirectories, way: list[DirectoryNode], names: list[bytes], root: DirectoryNode
) -> Directory:
    directory = recent.get(way[-1].digest, within=root.digest)
    if directory is None:
        raise MissingDirectoryError(way[-1].digest, path=b"/".join(names))
    return directory


def _out_of_tree(path: bytes, target: bytes) -> NodeNotFoundError:
    return NodeNotFoundError(f"the link {shown(path)} leads out of the tree, to {shown(target)}")


def directory_of(directories: DirectoryService, node: DirectoryNode, path: TreePath) -> Directory:
    """Return the directory of a node; *path* is for errors, which are those of `descend_to`."""
    directory = directories.get(node.digest)
    if directory is None:
        raise MissingDirectoryError(node.digest, path=bytes(path))
    return directory
