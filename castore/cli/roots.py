"""Arguments that name a root, or something below it: `ROOT` and `ROOT:PATH`.

Where a digest is taken a file of a tree may stand as well. What is written is read by `castore.trees.naming`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import click

from castore.cli.output import emit, emit_text
from castore.cli.short_digests import as_digest, completed
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.directories.in_blobs import BlobsDirectoryService
from castore.errors import InvalidDigestError, InvalidDirectoryError, InvalidRefError, NodeNotFoundError
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from castore.trees.naming import TreeLookup, TreePlace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castore.composition.composition import Composition

BlobPlace: TypeAlias = B3Digest | ShortDigest | TreePlace
"""What stands for a blob: its digest, or a place in a tree where it is."""


def as_place(text: str) -> TreePlace:
    """Read an argument as `ROOT` or `ROOT:PATH`; what is neither is wrong usage."""
    try:
        return TreePlace.parse(text)
    except (InvalidDigestError, InvalidRefError, InvalidDirectoryError) as error:
        raise click.BadParameter(str(error)) from None


def as_blob(text: str) -> BlobPlace:
    """Read an argument as a digest, or as `ROOT:PATH`; what is neither is wrong usage."""
    if ":" not in text.removeprefix("b3:"):
        return as_digest(text)
    return as_place(text)


class BlobFinder:
    """Finds the digests of what stands for blobs in the service *name*."""

    def __init__(self, stores: Composition, name: str) -> None:
        self._stores = stores
        self._name = name
        self._lookup: TreeLookup | None = None

    def digest(self, blob: BlobPlace) -> B3Digest:
        """Return the digest; raises as `completed` does, and `NodeNotFoundError` where no file is there."""
        if isinstance(blob, TreePlace):
            return self.lookup.file(blob).digest
        return completed(blob, self._stores, self._name)

    def digests(self, blobs: Iterable[BlobPlace]) -> Iterator[B3Digest]:
        """Yield the digests of several, one after the other."""
        return map(self.digest, blobs)

    @property
    def lookup(self) -> TreeLookup:
        """What looks up places in trees."""
        if self._lookup is None:
            self._lookup = TreeLookup(self._stores, self._name)
        return self._lookup


def reached_by(place: TreePlace, stores: Composition, name: str) -> set[B3Digest]:
    """Return the blobs in the service *name* that make up a tree: its files, and directories if kept there.

    Raises `NodeNotFoundError`, and what is wrong with a directory of the tree.
    """
    lookup = TreeLookup(stores, name)
    node = lookup.node(place)
    if isinstance(node, FileNode):
        return {node.digest}
    if not isinstance(node, DirectoryNode):
        return set()
    closure = lookup.directories.closure(node.digest)
    if closure is None:
        raise NodeNotFoundError(f"no directory {node.digest} in `{name}`")
    in_blobs = isinstance(lookup.directories, BlobsDirectoryService)
    found: set[B3Digest] = set()
    for directory in closure:
        if in_blobs and directory:
            found.add(directory.digest)
        found.update(node.digest for node in directory.values() if isinstance(node, FileNode))
    return found


def emit_root(node: Node) -> None:
    """Write the digest of a new root; of a link its target."""
    if isinstance(node, SymlinkNode):
        emit(b"-> %s\n" % node.target)
    else:
        emit_text(f"{node.digest}\n")
