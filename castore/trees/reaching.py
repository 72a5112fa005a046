"""What trees are made of, all of them together: for who collects garbage."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from castore.contract.directories import DirectoryService
from castore.digest import EMPTY, B3Digest
from castore.directories.reading import level_by_level
from castore.format.nodes import DirectoryNode, FileNode, Node


def reach(root: Node, directories: DirectoryService, *, seen: set[bytes]) -> Iterator[tuple[B3Digest, bool]]:
    """Yield the digests of the files and directories of a tree, and whether it is a directory's.

    They come level by level; a file that is there twice comes maybe twice. The empty directory is left out.

    What is held grows with the number of directories, not with that of files.

    Arguments:
        root: The root.
        directories: Where the directories are.
        seen: The directories that were gone through, which grows; for several trees the same one.

    Raises `MissingDirectoryError` with the path, and what else is wrong with a directory.
    """
    if isinstance(root, FileNode):
        yield root.digest, False
    if not isinstance(root, DirectoryNode):
        return
    get_many = partial(directories.get_many, within=root.digest)
    for digest, directory in level_by_level(root, get_many, seen=seen):
        if digest != EMPTY:
            yield digest, True
        yield from ((node.digest, False) for node in directory.values() if isinstance(node, FileNode))
        del directory  # Or it would be held while the next portion is read.
