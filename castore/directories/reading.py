"""Whole trees, level by level: one call for the directories of a level, whoever keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from castore.contract.batches import MOST_ITEMS
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import (
    CastoreError,
    CorruptDirectoryError,
    InvalidDirectoryError,
    MissingDirectoryError,
)
from castore.format.closures import MOST_LEVELS, RootToLeaves
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode

_BATCH: Final = MOST_ITEMS // 4
_MOST_SIZE: Final = 1 << 18
"""So many directories are read at once, or until their sizes, which are no less than their entries, add up to
so much."""


def closure_of(
    service: DirectoryService, root: B3Digest, *, within: B3Digest | None = None
) -> Iterator[Directory] | None:
    """Return all directories of a tree, level by level, in order of their names; `None` if it is absent.

    Arguments:
        service: Where they are.
        root: The root.
        within: The root of a tree that this one is a part of, for services that keep whole trees.

    Raises as `DirectoryService.closure` does. What is held grows with the digests of the tree, not with its
    entries.
    """
    first = service.get_many((root,), within=within).get(root)
    if isinstance(first, CastoreError):
        raise first
    return None if first is None else _go_down(service, first, within or root)


def _go_down(service: DirectoryService, root: Directory, within: B3Digest) -> Iterator[Directory]:
    order = RootToLeaves(root.digest)

    def get_many(digests: list[B3Digest]) -> Mapping[B3Digest, Directory | CastoreError]:
        known = digests == [root.digest]  # It is in no directory below it.
        return {root.digest: root} if known else service.get_many(digests, within=within)

    for digest, directory in level_by_level(root.node, get_many, seen=set()):
        _require(directory, digest)
        order.accept(directory)
        yield directory
        del directory  # Or it would be held while the next portion is read.
    order.finish()


def level_by_level(
    root: DirectoryNode,
    get_many: Callable[[list[B3Digest]], Mapping[B3Digest, Directory | CastoreError]],
    *,
    seen: set[bytes],
    enters: Callable[[list[B3Digest]], list[B3Digest]] = lambda digests: digests,
) -> Iterator[tuple[B3Digest, Directory]]:
    """Yield the directories of a tree with their digests, each once, level by level.

    What is held grows with the digests of the tree, not with its entries. Sizes are not checked, as
    `closure_of` does.

    Arguments:
        root: The root.
        get_many: Returns those that are there, as `DirectoryService.get_many` does.
        seen: The directories that were gone through, which grows; for several trees the same one.
        enters: Returns those of many that are to be read; what is only below the others is not met.

    Raises:
        MissingDirectoryError: One is absent; with the path to it.
        InvalidDirectoryError: There are more than `MOST_LEVELS` levels.
        CastoreError: What else is wrong with a directory, or the service.
    """
    if root.digest in seen:
        return
    seen.add(bytes(root.digest))
    level = {root.digest: root.size}
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
            wanted = enters(batch)
            found = get_many(wanted) if wanted else {}
            for digest in wanted:
                directory = found.get(digest)
                if directory is None:
                    raise MissingDirectoryError(digest, path=path_to(digest, parents))
                if isinstance(directory, CastoreError):
                    raise directory
                for name, node in directory.directories:
                    if node.digest not in seen:
                        seen.add(bytes(node.digest))
                        below[node.digest] = node.size
                        parents[node.digest] = digest, name
                yield digest, directory
            # Or two portions would be held while the next one is read.
            found, directory = {}, None
        level = below


def portions(sizes: Mapping[B3Digest, int]) -> Iterator[list[B3Digest]]:
    """Yield directories, of which the sizes are known that entries say, by as many as are read at once."""
    some: list[B3Digest] = []
    together = 0
    for digest, size in sizes.items():
        if some and (len(some) == _BATCH or together + size > _MOST_SIZE):
            yield some
            some, together = [], 0
        some.append(digest)
        together += size
    if some:
        yield some


def _require(directory: Directory, digest: B3Digest) -> None:
    if directory.digest != digest:
        raise CorruptDirectoryError(
            f"directory {digest} is corrupt: the service gave {directory.digest}",
            expected=digest,
            found=directory.digest,
        )


def path_to(digest: B3Digest, parents: Mapping[B3Digest, tuple[B3Digest, bytes]]) -> bytes:
    """Return the path to a directory; *parents* has of each but the root its parent, and its name there."""
    names: list[bytes] = []
    while digest in parents:
        digest, name = parents[digest]
        names.append(name)
    return b"/".join(reversed(names))
