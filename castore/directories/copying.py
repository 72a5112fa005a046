"""Directories that one service is to have, from another one that has them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from castore.contract.batches import MOST_ITEMS, batches
from castore.contract.directories import AnyDirectory, DirectoryService
from castore.directories.reading import closure_of
from castore.errors import CastoreError, MissingDirectoryError

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


def publish(root: B3Digest, directories: DirectoryService, *, within: B3Digest | None = None) -> None:
    """Have a directory of a tree be one that can be had by itself, with all below it.

    Where directories can be had one by one it is that already.

    Arguments:
        root: The directory.
        directories: Where it is.
        within: The root of the tree in which it is known to be.

    Raises `MissingDirectoryError` if it is absent, and what is wrong with it or the service.
    """
    if not directories.whole_trees or root == within:
        return
    tree = closure_of(directories, root, within=within)
    if tree is None:
        raise MissingDirectoryError(root)
    put_tree(tree, directories)


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
    for child in copy_trees(target.missing(children) if children else (), source, target):
        raise MissingDirectoryError(child, path=children[child])
    target.put_many(directories)


def copy_trees(
    roots: Iterable[B3Digest], source: DirectoryService, target: DirectoryService
) -> set[B3Digest]:
    """Copy trees; return those that *source* lacks. Raises what either raises.

    Where both know single directories it is one call for the next level of all of them. All directories are
    held.
    """
    wanted = list(dict.fromkeys(roots))
    if len(wanted) <= 1 or target.whole_trees or source.capability(AnyDirectory) is None:
        return {root for root in wanted if not copy_tree(root, source, target)}
    found: dict[B3Digest, Directory] = {}
    absent: set[B3Digest] = set()
    names: dict[B3Digest, bytes] = {}
    level = wanted
    while level:
        for start in range(0, len(level), MOST_ITEMS):
            some = level[start : start + MOST_ITEMS]
            answers = source.get_many(some)
            for digest in some:
                directory = answers.get(digest)
                if isinstance(directory, CastoreError):
                    raise directory
                if directory is not None:
                    found[digest] = directory
                elif digest in names:
                    raise MissingDirectoryError(digest, path=names[digest])
                else:
                    absent.add(digest)
        below = {
            node.digest: name
            for digest in level
            if digest in found
            for name, node in found[digest].directories
            if node.digest not in found
        }
        names |= below
        level = list(below)
    for batch in batches(leaves_first(found.values()), lambda directory: len(directory.encoded)):
        target.put_many(batch)
    return absent
