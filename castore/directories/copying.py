"""Directories that one service is to have, from another one that has them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from castore.contract.directories import DirectoryService
from castore.errors import MissingDirectoryError

if TYPE_CHECKING:
    from castore.digest import B3Digest
    from castore.format.directories import Directory


def copy_tree(root: B3Digest, source: DirectoryService, target: DirectoryService) -> bool:
    """Copy the tree *root*; return whether *source* has it. Raises what either raises.

    All of its directories are held, as they come in one order and go in the other.
    """
    directories = source.closure(root)
    if directories is None:
        return False
    put_tree(directories, target)
    return True


def put_tree(directories: Iterable[Directory], target: DirectoryService) -> None:
    """Put the directories of a tree that come with the root first."""
    target.put_closure(leaves_first(directories))


def leaves_first(directories: Iterable[Directory]) -> Iterator[Directory]:
    """Yield the directories of a tree, which come with the root first, each after all those within it.

    To turn their order round would not do: one that two others have comes after the first of these.
    """
    left = {directory.digest: directory for directory in directories}
    for root in list(left):
        stack = [root] if root in left else []
        while stack:
            directory = left.get(stack[-1])
            below = (
                [node.digest for _, node in directory.directories if node.digest in left] if directory else []
            )
            if below:
                stack += below
                continue
            if directory is not None:
                yield left.pop(stack[-1])
            stack.pop()


def put_with_children(
    directories: Collection[Directory], source: DirectoryService, target: DirectoryService
) -> None:
    """Put directories, given with the leaves first, and before them what *target* lacks of their children.

    Raises `MissingDirectoryError` for a child that *source* lacks as well.
    """
    given = {directory.digest for directory in directories}
    children = {
        node.digest: name
        for directory in directories
        for name, node in directory.directories
        if node.digest not in given
    }
    for child in target.missing(children) if children else ():
        if not copy_tree(child, source, target):
            raise MissingDirectoryError(child, path=children[child])
    target.put_many(directories)
