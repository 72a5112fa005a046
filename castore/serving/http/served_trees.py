"""The trees that are served: their roots, and what stands in them. All of it is asked on threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import cast

import attrs

from castore.composition.composition import Composition
from castore.contract.directories import DirectoryService
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.errors import (
    CompositionError,
    InvalidDigestError,
    InvalidDirectoryError,
    InvalidRefError,
    MissingDirectoryError,
    NodeNotFoundError,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.serving.http.options import HttpOptions
from castore.trees.leading_refs import find_leading_ref
from castore.trees.naming import TreeLookup, TreePlace, parse_root
from castore.trees.ref_names import RefName, refs_of
from castore.trees.walking import resolve


@attrs.frozen
class ServedRoot:
    """A root that was looked up, as it stood then."""

    place: TreePlace
    node: Node

    @property
    def title(self) -> str:
        """What a page calls it."""
        if isinstance(self.place.root, B3Digest):
            return str(self.place.root)[:16]
        return str(self.place) if self.place.path else str(self.place.root)


class ServedTrees:
    """Finds what requests ask for in the trees of a composition.

    Arguments:
        stores: The composition.
        service: The name of the blob service in it.
        options: How it is served; its `root` is the tree at `/`.
    """

    def __init__(self, stores: Composition, service: str, options: HttpOptions) -> None:
        self._stores = stores
        self._service = service
        self._options = options
        self._place = None if options.root is None else TreePlace.parse(options.root)
        self._lookup = TreeLookup(stores, service)
        self._recent = self._lookup.recent
        if self._place is not None and isinstance(self._place.root, ShortDigest):
            whole = cast("DirectoryNode", self._lookup.root(self._place.root)).digest
            self._place = attrs.evolve(self._place, root=whole)

    @property
    def has_top(self) -> bool:
        """Whether a tree is served at `/`."""
        return self._place is not None

    @property
    def directories(self) -> DirectoryService:
        """The service that they are read from."""
        return self._lookup.directories

    def require_top(self) -> None:
        """Raise what is wrong with the tree at `/`, if there is to be one."""
        if self._place is not None:
            self._lookup.node(self._place)

    def names(self) -> list[str]:
        """Return the names of all refs; none if there is no service of refs."""
        with contextlib.suppress(CompositionError):
            return [name for name, _ in refs_of(self._stores, self._service).list()]
        return []

    def top(self, parts: list[bytes], own: Collection[bytes]) -> ServedRoot | None:
        """Return the tree at `/` if it is asked for: by what is not among *own*, or what it has itself."""
        if self._place is None:
            return None
        if self._options.site or not parts or parts[0] not in own:
            return self._node_of(self._place)
        with contextlib.suppress(NodeNotFoundError, InvalidDirectoryError):
            root = self._node_of(self._place)
            path = self._place.path.join(parts[0])
            if resolve(self._recent, root.node, path, follow=False) is not None:
                return root
        return None

    def _node_of(self, place: TreePlace) -> ServedRoot:
        if isinstance(place.root, B3Digest):
            directory = self._recent.get(place.root)
            if directory is None:
                raise NodeNotFoundError(f"no directory {place.root} in `{self._service}`")
            return ServedRoot(place, directory.node)
        return ServedRoot(place, self._lookup.root(place.root))

    def root_in(self, parts: list[bytes]) -> tuple[ServedRoot, int]:
        """Return the root that a path begins with, and how many parts that has: a ref may have several."""
        with contextlib.suppress(InvalidDigestError, InvalidRefError, UnicodeDecodeError):
            first = parse_root(parts[0].decode())
            if isinstance(first, B3Digest):
                return self._node_of(TreePlace(first, in_tree=True)), 1
            # To complete the beginning of a digest takes a list of all that there is.
            if isinstance(first, RefName):
                refs = refs_of(self._stores, self._service)
                names = [part.decode("utf-8", "replace") for part in parts]
                found = find_leading_ref(refs, names)
                if found is not None:
                    name, named, used = found
                    return ServedRoot(TreePlace(name, in_tree=True), named.node), used
        raise NodeNotFoundError("no tree has this digest or name")

    def at(self, parts: list[bytes]) -> tuple[ServedRoot, int, Node]:
        """Return what `root_in` does, and what stands at the rest of the path; raises `NodeNotFoundError`."""
        root, used = self.root_in(parts)
        return root, used, self.find(root, parts[used:])

    def find(self, root: ServedRoot, parts: list[bytes]) -> Node:
        """Return what stands at a path, through links; raises `NodeNotFoundError`."""
        node = resolve(self._recent, root.node, root.place.path.join(*parts))
        if node is None:
            raise NodeNotFoundError(f"the tree has nothing at {str(TreePath(parts))!r}")
        return node

    def directory(self, node: DirectoryNode, root: ServedRoot) -> Directory:
        """Return a directory of a tree; raises `MissingDirectoryError`."""
        within = root.node.digest if isinstance(root.node, DirectoryNode) else None
        found = self._recent.get(node.digest, within=within)
        if found is None:
            raise MissingDirectoryError(node.digest)
        return found

    def index_in(self, directory: Directory) -> tuple[bytes, FileNode] | None:
        """Return the file that stands for a directory."""
        entries = {bytes(name): node for name, node in directory.items()} if self._options.index_names else {}
        for name in map(os.fsencode, self._options.index_names):
            node = entries.get(name)
            if isinstance(node, FileNode):
                return name, node
        return None
