"""What two trees differ in: only directories with different digests are looked into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import attrs

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, InvalidDirectoryError, MissingDirectoryError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.trees.walking import MOST_LEVELS, walk

Letter: TypeAlias = Literal["A", "D", "M", "X", "T", "L"]
"""How something differs: it was added or deleted; a file has other contents, or may be executed now, or not
any more; something is of another kind; a link leads elsewhere."""


@attrs.frozen
class Change:
    """One thing that two trees differ in.

    Attributes:
        letter: How.
        path: Where.
        before: What is there in the first one; `None` if it was added.
        after: What is there in the second one; `None` if it was deleted.
    """

    letter: Letter
    path: TreePath
    before: Node | None
    after: Node | None


def diff(directories: DirectoryService, before: Node, after: Node) -> Iterator[Change]:
    """Yield what differs between two roots, in bytewise order of the names, directory by directory.

    Of a directory that was added or deleted all that is in it is named, after itself. Those that are equal
    are not looked into: what this costs grows with what differs.

    Raises as `castore.trees.walking.walk` does.
    """
    yield from _compare(directories, TreePath(), before, after)


def _compare(
    directories: DirectoryService, path: TreePath, before: Node | None, after: Node | None
) -> Iterator[Change]:
    # Pairs that are still to be compared, the next one last: no recursion, however deep it is.
    waiting: list[tuple[TreePath, Node | None, Node | None]] = [(path, before, after)]
    while waiting:
        path, before, after = waiting.pop()
        if isinstance(before, DirectoryNode) and isinstance(after, DirectoryNode):
            if before.digest != after.digest:
                waiting += reversed(_pairs(directories, path, before, after))
            continue
        if before == after:
            continue
        yield Change(_letter(before, after), path, before, after)
        for other, node in _below(directories, path, before):
            yield Change("D", other, node, None)
        for other, node in _below(directories, path, after):
            yield Change("A", other, None, node)


def _pairs(
    directories: DirectoryService, path: TreePath, before: DirectoryNode, after: DirectoryNode
) -> list[tuple[TreePath, Node | None, Node | None]]:
    if len(path) > MOST_LEVELS:
        raise InvalidDirectoryError(f"the trees have more than {MOST_LEVELS} levels", rule="too-deep")
    found = directories.get_many({before.digest, after.digest})
    first, second = _require(found, before.digest, path), _require(found, after.digest, path)
    return [
        (path.join(name), first.get(name), second.get(name)) for name in sorted(first.keys() | second.keys())
    ]


def _require(found: dict[B3Digest, Directory | CastoreError], digest: B3Digest, path: TreePath) -> Directory:
    directory = found.get(digest)
    if directory is None:
        raise MissingDirectoryError(digest, path=bytes(path))
    if isinstance(directory, CastoreError):
        raise directory
    return directory


def _below(
    directories: DirectoryService, path: TreePath, node: Node | None
) -> Iterator[tuple[TreePath, Node]]:
    return iter(()) if node is None else walk(directories, node, path=path)


def _letter(before: Node | None, after: Node | None) -> Letter:
    if before is None:
        return "A"
    if after is None:
        return "D"
    if type(before) is not type(after):
        return "T"
    if isinstance(before, FileNode) and isinstance(after, FileNode):
        return "M" if before.digest != after.digest or before.size != after.size else "X"
    return "L"
