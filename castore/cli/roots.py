"""Arguments that name a root, or something below it: `ROOT` and `ROOT:PATH`.

Where a digest is taken a file of a tree may stand as well. What is written is read by `castore.trees.naming`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs
import click

from castore.cli.output import emit, emit_text
from castore.cli.short_digests import as_digest, completed
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService, KeptInBlobs, only_blob_service
from castore.contract.refs import check_name
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.errors import (
    CastoreError,
    InvalidDigestError,
    InvalidDirectoryError,
    InvalidRefError,
    UnavailableError,
)
from castore.format.nodes import Node, SymlinkNode
from castore.trees.naming import TreeLookup, TreePlace, directories_of
from castore.trees.reaching import reach
from castore.trees.ref_names import all_refs

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


def as_ref_name(text: str) -> str:
    """Read an argument as the name that a ref gets; what cannot be one is wrong usage."""
    try:
        return check_name(text)
    except InvalidRefError as error:
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

    Those are the trees of all refs of the composition, and more *trees*.
    """

    def __init__(self, stores: Composition, name: str, trees: list[TreePlace]) -> None:
        self.trees = trees
        self._stores = stores
        self._name = name
        self._homes: dict[str, _Home] = {}

    def digests(self, require_any: Callable[[], object]) -> Iterator[tuple[B3Digest, bool]]:
        """Yield the digests, each with whether it must be there; *require_any* is called if there are none.

        Refs are listed when this begins. A tree of which a directory is missing, or corrupt, raises that.
        """
        some = False
        for digest in self._digests(require_any):
            some = True
            yield digest
        if not some:
            # Trees of folders alone, whose directories are elsewhere.
            require_any()

    def _digests(self, require_any: Callable[[], object]) -> Iterator[tuple[B3Digest, bool]]:
        lookup = TreeLookup(self._stores, self._name)
        roots = [(self._name, f"the tree {place}", lookup.node(place)) for place in self.trees]
        blobs: list[tuple[B3Digest, bool]] = []
        for service, refs in all_refs(self._stores, self._name):
            for name, ref in refs.list():
                roots.append((service, f"the ref `{name}`", ref.node))
                if ref.metadata is not None:
                    blobs.append((ref.metadata, self._home(service).has_files))
        if not roots:
            require_any()
        # What must be there comes first, as each digest counts once.
        roots.sort(key=lambda root: not self._home(root[0]).has_files)
        yield from sorted(blobs, key=lambda blob: not blob[1])
        for service, what, node in roots:
            home = self._home(service)
            try:
                for digest, is_directory in reach(node, home.directories, seen=home.seen):
                    if not is_directory:
                        yield digest, home.has_files
                    elif home.in_blobs:
                        yield digest, home.has_directories
            except CastoreError as error:
                if isinstance(error, UnavailableError):
                    said = f"{what} cannot be read, so nothing was removed: {error.message}"
                else:
                    said = f"{what} is not whole, so nothing was removed: {error.message}"
                error.args = (said,)
                raise

    def _home(self, service: str) -> _Home:
        """Return where the trees are that a service of refs names."""
        home = self._homes.get(service)
        if home is None:
            home = self._homes[service] = self._look_at(service)
        return home

    def _look_at(self, service: str) -> _Home:
        instances = self._stores.graph.instances.values()
        named = {each.name for each in instances if each.kind.contract in (BlobService, DirectoryService)}
        home = next(name for name in (service, "root", self._name) if name in named)
        directories = directories_of(self._stores, home)
        blobs = self._stores.blobs(self._name)
        kept = directories.capability(KeptInBlobs)
        only = only_blob_service(directories)
        # A store that has nothing but the directories of another one has no files.
        for_directories = only is blobs and self._name != "root" and self._is_for_directories()
        return _Home(
            directories,
            in_blobs=kept is not None,
            has_directories=only is blobs,
            has_files=service == self._name and not for_directories,
        )

    def _is_for_directories(self) -> bool:
        """Tell whether directories that go to the collected service are not those of its own name."""
        instances = self._stores.graph.instances.values()
        declared = {each.name for each in instances if each.kind.contract is DirectoryService}
        return bool(declared) and self._name not in declared


@attrs.frozen
class _Home:
    """Where trees are, and what of them must be in the service that is collected.

    Attributes:
        directories: Their directories.
        in_blobs: Whether some of these are blobs.
        has_directories: Whether all of these are blobs of the service that is collected.
        has_files: Whether their files are there.
        seen: The directories that were gone through.
    """

    directories: DirectoryService
    in_blobs: bool
    has_directories: bool
    has_files: bool
    seen: set[bytes] = attrs.field(factory=set)


def emit_root(node: Node) -> None:
    """Write the digest of a new root; of a link its target."""
    if isinstance(node, SymlinkNode):
        emit(b"-> %s\n" % node.target)
    else:
        emit_text(f"{node.digest}\n")
