"""What a person writes for a root of a tree, or for something below it: `ROOT` and `ROOT:PATH`.

This is the one place that reads it. A root is a digest in any form, its first digits, or a name of a ref.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Self

import attrs

from castore.contract.capabilities import BlobLister
from castore.contract.directories import DirectoryLister, DirectoryService, only_blob_service
from castore.contract.short_digests import ShortDigest, only_one, parse_digest
from castore.digest import B3Digest
from castore.directories.in_blobs import BlobsDirectoryService
from castore.errors import (
    InvalidDigestError,
    InvalidRefError,
    NodeNotFoundError,
    UnsupportedError,
)
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.trees.reading_ahead import RecentDirectories
from castore.trees.ref_names import RefName, find_ref, refs_of
from castore.trees.walking import resolve, walk_with_ends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castore.composition.composition import Composition
    from castore.contract.blobs import BlobReader

# A time in braces, and the older form of a digest, have colons of their own.
_PLACE: Final = re.compile(r"(?P<root>(?:b3:)?(?:@\{[^}]{0,64}\}|[^:])*)(?P<colon>:)?(?P<path>.*)", re.DOTALL)

_ROOT: Final = TreePath()


@attrs.frozen
class TreePlace:
    """A root, and a path below it, as somebody wrote them.

    Attributes:
        root: A digest, its first digits, or the name of a ref.
        path: Where below the root; without names it is the root itself.
        in_tree: Whether a colon was written: what is named is something in a tree, if only its root.
    """

    root: B3Digest | ShortDigest | RefName
    path: TreePath = _ROOT
    in_tree: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ROOT` or `ROOT:PATH`; bytes of the path that are no UTF-8 stand as surrogates.

        Slashes around the path, doubled ones and `.` are passed over, and `..` goes up.

        Raises `InvalidRefError` or `InvalidDigestError` for what is no root, `InvalidDirectoryError` for what
        is no path.
        """
        match = _PLACE.fullmatch(text)
        assert match is not None
        root = parse_root(match["root"])
        return cls(root, TreePath.parse_loosely(match["path"].strip("/")), match["colon"] is not None)

    def join(self, path: TreePath) -> TreePlace:
        """Return the place that is at *path* from this one."""
        return TreePlace(self.root, self.path.join(*path), in_tree=True)

    def __str__(self) -> str:
        return f"{self.root}:{self.path}" if self.in_tree else str(self.root)


@attrs.frozen
class FoundPlace:
    """What a place leads to.

    Attributes:
        node: What is there.
        path: Where below the root.
        root: The root. That of a ref need not be a directory.
    """

    node: Node
    path: TreePath
    root: Node

    @property
    def within(self) -> B3Digest | None:
        """The directory that all of it is below, for services that keep whole trees."""
        return self.root.digest if isinstance(self.root, DirectoryNode) else None


def parse_root(text: str) -> B3Digest | ShortDigest | RefName:
    """Read a digest, the beginning of one, or the name of a ref; raise `InvalidRefError` for anything else.

    What looks like a digest, and is none, raises `InvalidDigestError`.
    """
    try:
        return parse_digest(text)
    except InvalidDigestError as error:
        try:
            return RefName.parse(text)
        except InvalidRefError as wrong:
            # A name with a mistake is told from a digest with one by what could be in a digest.
            digits = re.fullmatch(r"[0-9a-fA-F]{20,}|(?:b3:|blake3-).*", text, re.DOTALL)
            raise (error if digits else wrong) from None


def directories_of(stores: Composition, service: str = "root") -> DirectoryService:
    """Return where trees are kept: in the instance of this name, or else `root`.

    Where no directory service is declared, in the blob service of this name.
    """
    instances = stores.graph.instances.values()
    declared = {each.name for each in instances if each.kind.contract is DirectoryService}
    if declared:
        return stores.directories(service if service in declared else "root")
    return BlobsDirectoryService(stores.blobs(service))


class TreeLookup:
    """Looks up places in trees. Directories that were read for one are at hand for the next ones.

    Arguments:
        stores: The composition.
        service: The name of the service in it that has the trees, as for `directories_of`.
    """

    def __init__(self, stores: Composition, service: str = "root") -> None:
        self.directories = directories_of(stores, service)
        self._stores = stores
        self._service = service
        self.recent = RecentDirectories(self.directories)
        """Those that were read lately."""

    def root(self, root: B3Digest | ShortDigest | RefName) -> Node:
        """Return the node of a root; raise `NodeNotFoundError` if there is none.

        That of a ref need not be a directory, nor is it looked for.
        """
        if isinstance(root, RefName):
            return find_ref(refs_of(self._stores, self._service), root)[1].node
        digest = root if isinstance(root, B3Digest) else self._completed(root)
        directory = self.recent.get(digest)
        if directory is None:
            raise NodeNotFoundError(f"no directory {digest} in `{self._service}`")
        return directory.node

    def find(self, place: TreePlace, *, follow: bool = False) -> Node | None:
        """Return the node at a place; `None` if the root is there, and has nothing at the path.

        Links on the way are followed, and the last one if *follow*.

        Raises `NodeNotFoundError` if there is no such root, or a link leads out of the tree;
        `UnsupportedError` for first digits where nothing lists; and what is wrong with a directory.
        """
        return resolve(self.recent, self.root(place.root), place.path, follow=follow)

    def look(self, place: TreePlace, *, follow: bool = False) -> FoundPlace:
        """Return the same with its root, which is looked up once; raise `NodeNotFoundError` for nothing."""
        root = self.root(place.root)
        node = resolve(self.recent, root, place.path, follow=follow)
        if node is None:
            raise NodeNotFoundError(f"the tree {place.root} has nothing at {str(place.path)!r}")
        return FoundPlace(node, place.path, root)

    def node(self, place: TreePlace, *, follow: bool = False) -> Node:
        """Return the node alone."""
        return self.look(place, follow=follow).node

    def file(self, place: TreePlace) -> FileNode:
        """Return the file at a place, to which links may lead; raise `NodeNotFoundError` if there is none."""
        node = self.node(place, follow=True)
        if isinstance(node, FileNode):
            return node
        what = "a directory" if isinstance(node, DirectoryNode) else "a link"
        raise NodeNotFoundError(f"{place} is no file but {what}; `castore ls` shows what is in a tree")

    def walk(self, found: FoundPlace, *, depth: int | None = None) -> Iterator[tuple[TreePath, Node]]:
        """Yield what is below a place, as `castore.trees.walking.walk` does; paths begin at the root."""
        return ((path, node) for path, node, _ in self.walk_with_ends(found, depth=depth))

    def walk_with_ends(
        self, found: FoundPlace, *, depth: int | None = None
    ) -> Iterator[tuple[TreePath, Node, bool]]:
        """Yield the same, and whether it is the last entry of its directory."""
        return walk_with_ends(self.directories, found.node, path=found.path, depth=depth, within=found.within)

    def _completed(self, short: ShortDigest) -> B3Digest:
        """Return the whole of a digest, of those that the services list."""
        directories = self.directories
        lister = directories.capability(DirectoryLister)
        if lister is not None:
            found = only_one(
                short,
                (each for each in lister.list_directories() if each.hex().startswith(short.digits)),
                f"`{self._service}`",
            )
        else:
            blobs = only_blob_service(directories) or self._stores.blobs(self._service)
            blob_lister = blobs.capability(BlobLister)
            if blob_lister is None:
                raise UnsupportedError(
                    f"{short} is the beginning of a digest, and `{self._service}` cannot list what it has;"
                    " all 64 digits will do"
                )
            found = only_one(short, blob_lister.complete(short.digits), f"`{self._service}`")
        if found is None:
            raise NodeNotFoundError(f"no directory in `{self._service}` begins with {short}")
        return found


def find_node(stores: Composition, place: str | TreePlace, *, service: str = "root") -> Node:
    """Return the node at a place, such as `ROOT` or `ROOT:docs`; only links on the way are followed.

    Arguments:
        stores: The composition.
        place: What and where: as text it is read by `TreePlace.parse`.
        service: The name of the service in it that has the tree.

    Raises `NodeNotFoundError` if there is none, and what is wrong with a directory on the way.
    """
    return TreeLookup(stores, service).node(_parsed(place))


def open_path(stores: Composition, place: str | TreePlace, *, service: str = "root") -> BlobReader:
    """Open a file of a tree, such as `ROOT:docs/index.html`; links within the tree are followed.

    Arguments:
        stores: The composition.
        place: What and where: as text it is read by `TreePlace.parse`.
        service: The name of the service in it that has the tree, and of the one that has the blobs.

    Raises `NodeNotFoundError` if there is no file, `BlobNotFoundError` if its blob is gone, and what is wrong
    with a directory on the way.
    """
    node = TreeLookup(stores, service).file(_parsed(place))
    return stores.blobs(service).open(node.digest)


def _parsed(place: str | TreePlace) -> TreePlace:
    return TreePlace.parse(place) if isinstance(place, str) else place
