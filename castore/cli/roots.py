"""Arguments that name a root, or something below it: `ROOT` and `ROOT:PATH`.

Where a digest is taken a file of a tree may stand as well. What is written is read by `castore.trees.naming`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import click

from castore.cli.output import emit, emit_text
from castore.cli.short_digests import as_digest, completed
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.errors import (
    CastoreError,
    InvalidDigestError,
    InvalidDirectoryError,
    InvalidRefError,
    NodeNotFoundError,
)
from castore.format.nodes import Node, SymlinkNode
from castore.trees.naming import TreeLookup, TreePlace, directories_of
from castore.trees.reaching import reach
from castore.trees.ref_names import refs_of
from castore.trees.walking import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


class ReachedByTrees:
    """The blobs that make up the trees which a collection of garbage in the service *name* is to keep.

    Those are the trees of all refs that are kept with that service or with `root`, and more *trees*.
    """

    def __init__(self, stores: Composition, name: str, trees: list[TreePlace]) -> None:
        self.trees = trees
        self._stores = stores
        self._name = name

    def digests(self, require_any: Callable[[], object]) -> Iterator[tuple[B3Digest, bool]]:
        """Yield the digests, each with whether it must be there; *require_any* is called if there are none.

        Refs are listed when this begins. A tree of which a directory is missing, or corrupt, raises that.
        """
        lookup = TreeLookup(self._stores, self._name)
        roots = [(self._name, f"the tree {place}", lookup.node(place)) for place in self.trees]
        blobs: list[tuple[B3Digest, bool]] = []
        for service in dict.fromkeys((self._name, "root")):
            refs = self._refs_with(service)
            for name, ref in refs.list() if refs is not None else ():
                roots.append((service, f"the ref `{name}`", ref.node))
                if ref.metadata is not None:
                    blobs.append((ref.metadata, service == self._name))
        if not roots:
            require_any()
        yield from blobs
        seen: dict[str, set[bytes]] = {}
        for service, what, node in roots:
            directories = directories_of(self._stores, service)
            kept_in = getattr(directories, "blobs", None)
            own = service == self._name
            try:
                for digest in reach(
                    node,
                    directories,
                    seen=seen.setdefault(service, set()),
                    with_directories=kept_in is not None,
                ):
                    yield digest, own
            except CastoreError as error:
                found = _with_path(error, directories, node)
                message = f"{what} is not whole, so nothing was removed: {found}"
                raise NodeNotFoundError(message) from found

    def _refs_with(self, service: str) -> RefService | None:
        instances = self._stores.graph.instances.values()
        if any(each.kind.contract is RefService for each in instances):
            return refs_of(self._stores, service)
        if not any(each.kind.contract is BlobService and each.name == service for each in instances):
            return None
        return self._stores.blobs(service).capability(RefService)


def _with_path(error: CastoreError, directories: DirectoryService, root: Node) -> CastoreError:
    """Return what is wrong with a tree by an error that says where."""
    try:
        deque(walk(directories, root), maxlen=0)
    except CastoreError as found:
        return found
    return error


def emit_root(node: Node) -> None:
    """Write the digest of a new root; of a link its target."""
    if isinstance(node, SymlinkNode):
        emit(b"-> %s\n" % node.target)
    else:
        emit_text(f"{node.digest}\n")
