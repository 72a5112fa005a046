"""What trees are made of, all of them together: for who collects garbage."""

from __future__ import annotations

from collections.abc import Iterator

from castore.contract.directories import DirectoryService
from castore.digest import EMPTY, B3Digest
from castore.directories.reading import path_to, portions
from castore.errors import CastoreError, InvalidDirectoryError, MissingDirectoryError
from castore.format.closures import MOST_LEVELS
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
    level = {root.digest: root.size} if root.digest not in seen else {}
    seen.add(bytes(root.digest))
    parents: dict[B3Digest, tuple[B3Digest, bytes]] = {}
    levels = 0
    while level:
        levels += 1
        if levels > MOST_LEVELS + 1:
            raise InvalidDirectoryError(
                f"the tree {root.digest} has more than {MOST_LEVELS} levels", rule="too-deep"
            )
        below: dict[B3Digest, int] = {}
        for batch in portions(level):
            found = directories.get_many(batch, within=root.digest)
            for digest in batch:
                directory = found.get(digest)
                if directory is None:
                    raise MissingDirectoryError(digest, path=path_to(digest, parents))
                if isinstance(directory, CastoreError):
                    raise directory
                if digest != EMPTY:
                    yield digest, True
                yield from ((node.digest, False) for node in directory.values() if isinstance(node, FileNode))
                for name, node in directory.directories:
                    if node.digest not in seen:
                        seen.add(bytes(node.digest))
                        below[node.digest] = node.size
                        parents[node.digest] = digest, name
            # Or two portions would be held while the next one is read.
            found, directory = {}, None
        level = below
