"""Copying trees: their blobs and directories, as far as they are not there.

The blobs come first, then the directories, with the leaves before those that have them: so a directory that
is there has all that is below it, however a run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import attrs

from castore.contract.batches import batches
from castore.contract.blobs import BlobService
from castore.contract.directories import Complete, DirectoryService
from castore.digest import B3Digest
from castore.directories.copying import copy_tree, leaves_first
from castore.directories.reading import level_by_level
from castore.errors import MissingDirectoryError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node
from castore.threads.pool import Pool
from castore.upkeep.copying import Copied, Copier, CopyCounts


@attrs.frozen
class TreeStores:
    """Where the blobs of trees are, and where their directories are."""

    blobs: BlobService
    directories: DirectoryService


class TreeCopier:
    """One run of copying trees.

    What is below a directory that is there is not looked at, where a service has with each directory all
    those below it (`Complete`); but if both have their directories in one place all of it is.

    Arguments:
        source: Where they are.
        target: Where they shall be.
        pool: The pool that reads and writes.
        progress: Called with the number of bytes that were dealt with since the last call.
    """

    def __init__(
        self,
        source: TreeStores,
        target: TreeStores,
        pool: Pool,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._source = source
        self._target = target
        self._pool = pool
        self._progress = progress
        self._shares = source.directories is target.directories
        self._trusts = not self._shares and target.directories.capability(Complete) is not None
        self._done: set[bytes] = set()
        """Files that were copied, or were there."""
        self.tally = CopyCounts()
        self.trees = 0
        """How many are there by now."""
        self.directories_copied = self.directories_skipped = 0

    def run(self, roots: Iterable[Node]) -> Iterator[Copied]:
        """Copy trees, and yield what became of each blob that the target lacked.

        A tree of which a blob could not be copied gets no directories, and the others are copied.

        Raises `MissingDirectoryError` and what else is wrong with a directory, and as `Copier` does.
        """
        for root in roots:
            lacking: dict[B3Digest, Directory] = {}
            met: set[bytes] = set()
            copier = Copier(self._source.blobs, self._target.blobs, self._pool, self._progress)
            failed = False
            try:
                for copied in copier.run(self._files(root, lacking, met)):
                    failed = failed or copied.error is not None
                    yield copied
            finally:
                self._add(copier.tally)
            if failed:
                continue
            self._done |= met
            if isinstance(root, DirectoryNode):
                self._put(root, lacking)
            self.trees += 1

    def _add(self, tally: CopyCounts) -> None:
        for name in attrs.fields_dict(CopyCounts):
            setattr(self.tally, name, getattr(self.tally, name) + getattr(tally, name))

    def _files(self, root: Node, lacking: dict[B3Digest, Directory], met: set[bytes]) -> Iterator[B3Digest]:
        """Yield the files that may be lacking; note the directories that are."""
        if isinstance(root, FileNode):
            yield root.digest
        if not isinstance(root, DirectoryNode):
            return
        missing: set[B3Digest] = set()

        def enters(digests: list[B3Digest]) -> list[B3Digest]:
            nonlocal missing
            missing = self._missing(digests)
            return [digest for digest in digests if digest in missing or not self._trusts]

        get_many = partial(self._source.directories.get_many, within=root.digest)
        for digest, directory in level_by_level(root, get_many, seen=set(), enters=enters):
            if digest in missing:
                lacking[digest] = directory
            for node in directory.values():
                if isinstance(node, FileNode) and node.digest not in met:
                    met.add(node.digest)
                    if node.digest not in self._done:
                        yield node.digest
            del directory  # Or it would be held while the next portion is read.

    def _missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        some = set(digests)
        if self._shares:
            self.directories_skipped += len(some)
            return set()
        missing = self._target.directories.missing(some)
        self.directories_skipped += len(some) - len(missing)
        return missing

    def _put(self, root: DirectoryNode, lacking: dict[B3Digest, Directory]) -> None:
        if not lacking:
            return
        target = self._target.directories
        if target.whole_trees:
            if not copy_tree(root.digest, self._source.directories, target):
                raise MissingDirectoryError(root.digest)
        else:
            for batch in batches(leaves_first(lacking.values()), lambda directory: len(directory.encoded)):
                target.put_many(batch)
        self.directories_copied += len(lacking)
