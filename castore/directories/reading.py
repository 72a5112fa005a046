"""Whole trees, level by level: one call for the directories of a level, whoever keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from castore.contract.batches import MOST_ITEMS
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptDirectoryError, MissingDirectoryError
from castore.format.closures import RootToLeaves
from castore.format.directories import Directory

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
    parents: dict[B3Digest, tuple[B3Digest, bytes]] = {}
    level: Mapping[B3Digest, int] = {root.digest: 0}
    known = {root.digest: root}
    while level:
        below: dict[B3Digest, int] = {}
        for batch in portions(level):
            found = known or service.get_many(batch, within=within)
            known = {}
            for digest in batch:
                directory = found.get(digest)
                if directory is None:
                    raise MissingDirectoryError(digest, path=path_to(digest, parents))
                if isinstance(directory, CastoreError):
                    raise directory
                _require(directory, digest)
                order.accept(directory)
                for name, node in directory.directories:
                    if node.digest not in parents and node.digest != root.digest:
                        parents[node.digest] = (digest, name)
                        below[node.digest] = node.size
                yield directory
            # Or two portions would be held while the next one is read.
            found = {}
        level = below
    order.finish()


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
