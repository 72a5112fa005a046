"""Going through a tree: all of it, or down one path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import InvalidDirectoryError, MissingDirectoryError, NodeNotFoundError
from castore.format.closures import MOST_LEVELS
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, Node, SymlinkNode, TreePath, shown
from castore.trees.reading_ahead import DirectoriesAhead, RecentDirectories

MOST_LINKS: Final = 40
"""So many links are followed on one way, as a rule of file systems has it."""


def walk(
    directories: DirectoryService,
    root: Node,
    *,
    path: TreePath | None = None,
    depth: int | None = None,
    within: B3Digest | None = None,
) -> Iterator[tuple[TreePath, Node]]:
    """Yield what is below *root* with the path to it, each directory before what is in it, by their names.

    Nothing is below a file or a link. Directories are read level by level, with one call for many; what is
    held grows with the depth of the tree, not with its size.

    Arguments:
        directories: Where they are.
        root: What to begin with; it is not yielded itself.
        path: That of *root*, which the others begin with.
        depth: How many levels to go down; by default all.
        within: The root of the tree, if *root* is a part of it: for services that keep whole trees.

    Raises `MissingDirectoryError`, `CorruptDirectoryError`, `UnavailableError`, and `InvalidDirectoryError`
    for wrong sizes and more than `MOST_LEVELS` levels.
    """
    for where, node, _ in walk_with_ends(directories, root, path=path, depth=depth, within=within):
        yield where, node


def walk_with_ends(
    directories: DirectoryService,
    root: Node,
    *,
    path: TreePath | None = None,
    depth: int | None = None,
    within: B3Digest | None = None,
) -> Iterator[tuple[TreePath, Node, bool]]:
    """Yield the same as `walk`, and whether it is the last entry of its directory."""
    if not isinstance(root, DirectoryNode) or depth == 0:
        return
    begin = TreePath() if path is None else path
    ahead = DirectoriesAhead(directories, root.digest if within is None else within)
    # No recursion, however deep it is.
    levels = [_Level(begin, ahead.take(root, begin))]
    while levels:
        level = levels[-1]
        for name, node in level.entries:
            where = level.path.join(name)
            level.left -= 1
            yield where, node, not level.left
            if isinstance(node, DirectoryNode) and (depth is None or len(levels) < depth):
                level.begun += 1
                levels.append(_Level(where, _enter(levels, ahead, where, node, root)))
                break
        else:
            levels.pop()


def walk_chosen(
    directories: DirectoryService,
    root: DirectoryNode,
    *,
    path: TreePath,
    enters: Callable[[TreePath, Node], bool],
    entered: Callable[[TreePath, Directory], object],
) -> Iterator[tuple[TreePath, Node]]:
    """Yield some of what `walk` does, in its order and with as few calls.

    Arguments:
        directories: Where they are.
        root: What to begin with; it is not yielded itself.
        path: That of *root*, which the others begin with.
        enters: Asked of each entry: what it is false of is passed over, with all below it.
        entered: Called with each directory, and its path, before *enters* is asked of what is in it.

    Raises as `walk` does.
    """
    ahead = DirectoriesAhead(directories, root.digest)
    first = ahead.take(root, path)
    entered(path, first)
    levels = [_Level(path, first)]
    while levels:
        level = levels[-1]
        for name, node in level.entries:
            where = level.path.join(name)
            level.begun += isinstance(node, DirectoryNode)
            if not enters(where, node):
                continue
            yield where, node
            if isinstance(node, DirectoryNode):
                directory = _enter(levels, ahead, where, node, root)
                entered(where, directory)
                levels.append(_Level(where, directory))
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
    ahead = DirectoriesAhead(directories, root.digest)
    first = ahead.take(root, begin)
    yield begin, first
    levels = [_Level(begin, first)]
    while levels:
        level = levels[-1]
        for name, node in level.entries:
            if not isinstance(node, DirectoryNode):
                continue
            level.begun += 1
            below = level.path.join(name)
            if not enters(below, node):
                continue
            directory = _enter(levels, ahead, below, node, root)
            yield below, directory
            levels.append(_Level(below, directory))
            break
        else:
            levels.pop()


def _enter(
    levels: list[_Level],
    ahead: DirectoriesAhead,
    path: TreePath,
    node: DirectoryNode,
    root: DirectoryNode,
) -> Directory:
    """Return the directory that comes next, which is read with others that come after it."""
    if not ahead.is_known(node.digest):
        rows = ((level.directories, level.begun) for level in reversed(levels))
        ahead.fetch(chain((node,), coming_next(rows, ahead)))
    if len(levels) == MOST_LEVELS:
        message = f"the tree {root.digest} has more than {MOST_LEVELS} levels"
        raise InvalidDirectoryError(message, rule="too-deep")
    return ahead.take(node, path)


class _Level:
    """A directory that is gone through."""

    def __init__(self, path: TreePath, directory: Directory) -> None:
        self.path = path
        self.entries = iter(directory.items())
        self.left = len(directory)
        self.begun = 0
        self.directories = [node for _, node in directory.directories]


def coming_next(
    levels: Iterable[tuple[Sequence[DirectoryNode], int]], ahead: DirectoriesAhead
) -> Iterator[DirectoryNode]:
    """Yield the directories that will be needed next and were not read yet, as far as they are known.

    *levels* has for each directory that is gone through, from the innermost on, those in it, and how many of
    these were begun.
    """
    seen: set[B3Digest] = set()
    for level in levels:
        rows = [level]
        while rows:
            nodes, position = rows.pop()
            for number in range(position, len(nodes)):
                digest = nodes[number].digest
                if digest in seen:
                    continue
                seen.add(digest)
                directory = ahead.peek(digest)
                if directory is not None:
                    rows += [(nodes, number + 1), ([node for _, node in directory.directories], 0)]
                    break
                yield nodes[number]


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
