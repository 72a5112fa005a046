"""Arguments that name a root, or something below it: `ROOT` and `ROOT:PATH`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs
import click

from castore.cli.short_digests import ShortDigest, as_digest, completed
from castore.contract.directories import DirectoryService
from castore.directories.in_blobs import BlobsDirectoryService
from castore.errors import CastoreError, InvalidDirectoryError
from castore.format.nodes import FileNode, Node, TreePath
from castore.trees.walking import descend_to

if TYPE_CHECKING:
    from castore.composition.composition import Composition
    from castore.digest import B3Digest

_ROOT: Final = re.compile(r"(?P<root>(?:b3:)?[^:]*)(?::(?P<path>.*))?", re.DOTALL)


class NoRootError(CastoreError):
    """No directory has this digest, or nothing is at the path."""

    code = "no-root"


@attrs.frozen
class TreePlace:
    """A root, and a path below it."""

    root: B3Digest | ShortDigest
    path: TreePath

    def __str__(self) -> str:
        return f"{self.root}:{self.path}" if self.path else str(self.root)


def as_place(text: str) -> TreePlace:
    """Read an argument as `ROOT` or `ROOT:PATH`; what is neither is wrong usage."""
    match = _ROOT.fullmatch(text)
    assert match is not None
    try:
        path = TreePath.parse_loosely((match["path"] or "").strip("/"))
    except InvalidDirectoryError as error:
        raise click.BadParameter(str(error)) from None
    return TreePlace(as_digest(match["root"]), path)


def directories_of(stores: Composition, name: str) -> DirectoryService:
    """Return where trees are kept: in the instance *name*, else in `root`; or in the blob service *name*.

    The last where no directory service is declared.
    """
    instances = stores.graph.instances.values()
    declared = {each.name for each in instances if each.kind.contract is DirectoryService}
    if declared:
        return stores.directories(name if name in declared else "root")
    return BlobsDirectoryService(stores.blobs(name))


def reached_by(root: B3Digest | ShortDigest, stores: Composition, name: str) -> set[B3Digest]:
    """Return the blobs in the service *name* that make up a tree: its files, and directories if kept there.

    Raises `NoRootError`, and what is wrong with a directory of the tree.
    """
    directories = directories_of(stores, name)
    digest = completed(root, stores, name)
    closure = directories.closure(digest)
    if closure is None:
        raise NoRootError(f"no directory {digest} in `{name}`")
    in_blobs = isinstance(directories, BlobsDirectoryService)
    found: set[B3Digest] = set()
    for directory in closure:
        if in_blobs and directory:
            found.add(directory.digest)
        found.update(node.digest for node in directory.values() if isinstance(node, FileNode))
    return found


def node_at(place: TreePlace, stores: Composition, name: str, directories: DirectoryService) -> Node:
    """Return the node at a place; raise `NoRootError` if there is none."""
    digest = completed(place.root, stores, name)
    root = directories.get(digest)
    if root is None:
        raise NoRootError(f"no directory {digest} in `{name}`")
    node = descend_to(directories, root.node, place.path)
    if node is None:
        raise NoRootError(f"the tree {digest} has nothing at {str(place.path)!r}")
    return node
