"""What trees are made of, all of them together: for who collects garbage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from castore.contract.directories import DirectoryService
from castore.digest import EMPTY, B3Digest
from castore.errors import CastoreError, MissingDirectoryError
from castore.format.nodes import DirectoryNode, FileNode, Node

_BATCH: Final = 256


def reach(
    root: Node, directories: DirectoryService, *, seen: set[bytes], with_directories: bool
) -> Iterator[B3Digest]:
    """Yield the digests of the files of a tree, one that is there twice maybe twice; level by level.

    What is held grows with the number of directories, not with that of files.

    Arguments:
        root: The root.
        directories: Where the directories are.
        seen: The directories that were gone through, which grows; for several trees the same one.
        with_directories: Whether to yield the digests of directories, too, as they are blobs.

    Raises `MissingDirectoryError`, and what else is wrong with a directory.
    """
    if isinstance(root, FileNode):
        yield root.digest
    if not isinstance(root, DirectoryNode):
        return
    level = _unseen([root], seen)
    while level:
        below: list[B3Digest] = []
        remaining = iter(level)
        while batch := list(islice(remaining, _BATCH)):
            found = directories.get_many(batch, within=root.digest)
            for digest in batch:
                directory = found.get(digest)
                if directory is None:
                    raise MissingDirectoryError(digest)
                if isinstance(directory, CastoreError):
                    raise directory
                if with_directories and digest != EMPTY:
                    yield digest
                yield from (node.digest for node in directory.values() if isinstance(node, FileNode))
                below += _unseen((node for _, node in directory.directories), seen)
        level = below


def _unseen(nodes: Iterable[DirectoryNode], seen: set[bytes]) -> list[B3Digest]:
    found = []
    for node in nodes:
        if node.digest not in seen:
            seen.add(bytes(node.digest))
            found.append(node.digest)
    return found
