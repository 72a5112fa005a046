"""Proving that all of a tree is there, and keeping it until somebody refers to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import Final

from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkStore
from castore.contract.directories import DirectoryService
from castore.digest import EMPTY, B3Digest
from castore.errors import MissingDirectoryError, NodeNotFoundError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node
from castore.trees.walking import walk

_BATCH: Final = 512


@contextlib.contextmanager
def keeping(blobs: BlobService, directories: DirectoryService) -> Iterator[None]:
    """Keep from collectors of garbage what is put or claimed from now on, until the context ends.

    So whoever sets a ref within it can be sure that what the ref stands for is there.
    """
    with contextlib.ExitStack() as stack:
        kept_in = getattr(directories, "blobs", blobs)
        for each in (blobs,) if kept_in is blobs else (blobs, kept_in):
            store = each.capability(ChunkStore)
            if store is not None:
                stack.enter_context(store.lease())
        yield


def prove(node: Node, blobs: BlobService, directories: DirectoryService) -> None:
    """Raise unless all of a tree is there; claim all of it.

    To be done within `keeping`, so that what is there stays. Nothing is read but the directories.

    Raises:
        MissingDirectoryError: A directory is not there.
        NodeNotFoundError: A file is not there, or not whole.
        CastoreError: What is wrong with a directory, or a service.
    """
    proof = _Proof(node, blobs, directories)
    proof.run()


class _Proof:
    def __init__(self, node: Node, blobs: BlobService, directories: DirectoryService) -> None:
        self._root = node
        self._blobs = blobs
        self._directories = directories

    def run(self) -> None:
        kept_in = getattr(self._directories, "blobs", None)
        self._claim_all(self._blobs, self._digests(directories=kept_in is self._blobs))
        if isinstance(kept_in, BlobService) and kept_in is not self._blobs:
            self._claim_all(kept_in, (each.digest for each in self._closure()))

    def _closure(self) -> Iterator[Directory]:
        if not isinstance(self._root, DirectoryNode):
            return
        found = self._directories.closure(self._root.digest)
        if found is None:
            raise MissingDirectoryError(self._root.digest)
        yield from found

    def _digests(self, *, directories: bool) -> Iterator[B3Digest]:
        if isinstance(self._root, FileNode):
            yield self._root.digest
        for directory in self._closure():
            if directories:
                yield directory.digest
            yield from (node.digest for node in directory.values() if isinstance(node, FileNode))

    def _claim_all(self, service: BlobService, digests: Iterator[B3Digest]) -> None:
        store = service.capability(ChunkStore)
        while batch := set(islice(digests, _BATCH)) - {EMPTY}:
            if store is None:
                absent = service.missing(batch)
            else:
                absent = batch - store.claim_blobs(dict.fromkeys(batch))
                # A blob that is a single chunk may be there as that.
                absent -= store.claim(absent) if absent else set()
            if absent:
                raise self._missing(min(absent))
        if store is not None:
            store.put_indexes({})

    def _missing(self, digest: B3Digest) -> NodeNotFoundError:
        where = ""
        for path, node in walk(self._directories, self._root):
            if isinstance(node, FileNode) and node.digest == digest:
                where = f" {str(path)!r}"
                break
        return NodeNotFoundError(
            f"the tree is not complete: the file{where}, of the blob {digest}, is not there"
        )
