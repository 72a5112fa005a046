"""Going through a tree: all of it, or down one path."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, InvalidDirectoryError, MissingDirectoryError
from castore.format.directories import Directory, check_edge
from castore.format.nodes import DirectoryNode, Node, PathComponent, TreePath

MOST_LEVELS: Final = 4096
"""Deeper trees are refused: no file system could hold them, and a few bytes can name millions of levels."""

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


def directory_of(directories: DirectoryService, node: DirectoryNode, path: TreePath) -> Directory:
    """Return the directory of a node; *path* is for errors, which are those of `descend_to`."""
    directory = directories.get(node.digest)
    if directory is None:
        raise MissingDirectoryError(node.digest, path=bytes(path))
    return directory
