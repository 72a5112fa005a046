"""Proving that all of a tree is there, and keeping it until somebody refers to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from castore.chunks.claiming import BlobClaims
from castore.contract.batches import MOST_ITEMS
from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkStore
from castore.contract.directories import DirectoryService, KeptInBlobs
from castore.digest import EMPTY, B3Digest
from castore.errors import MissingDirectoryError, NodeNotFoundError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node
from castore.trees.walking import walk


@contextlib.contextmanager
def keeping(blobs: BlobService, directories: DirectoryService) -> Iterator[None]:
    """Keep from collectors of garbage what is put or claimed from now on, until the context ends.

    So whoever sets a ref within it can be sure that what the ref stands for is there.
    """
    kept = directories.capability(KeptInBlobs)
    with contextlib.ExitStack() as stack:
        for each in (blobs, *(place for place in _places(kept) if place is not blobs)):
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
    with contextlib.ExitStack() as stack:
        _Proof(node, blobs, directories, stack).run()


def claim_blob(blobs: BlobService, digest: B3Digest) -> bool:
    """Claim one blob, within `keeping`; tell whether it is there."""
    with BlobClaims(blobs) as claims:
        return digest == EMPTY or not _absent(claims, {digest: _UNKNOWN})


_UNKNOWN: Final = 1 << 63
"""The size of a blob of which nobody says it."""


def _places(kept: KeptInBlobs | None) -> Sequence[BlobService]:
    return () if kept is None else kept.blob_services


def _absent(claims: BlobClaims, sizes: Mapping[B3Digest, int]) -> set[B3Digest]:
    absent = sizes.keys() - claims.claim(sizes)
    # One that is a single chunk, whatever its size, may be there as that.
    return absent - claims.claim(dict.fromkeys(absent, 0))


class _Proof:
    def __init__(
        self,
        node: Node,
        blobs: BlobService,
        directories: DirectoryService,
        stack: contextlib.ExitStack,
    ) -> None:
        self._root = node
        self._directories = directories
        self._files = stack.enter_context(BlobClaims(blobs))
        kept = directories.capability(KeptInBlobs)
        self._elsewhere = kept is None or kept.elsewhere
        self._places = [stack.enter_context(BlobClaims(each)) for each in _places(kept)]

    def run(self) -> None:
        files: dict[B3Digest, int] = {}
        encodings: dict[B3Digest, int] = {}
        if isinstance(self._root, FileNode):
            files[self._root.digest] = self._root.size
        for directory in self._closure():
            encodings[directory.digest] = len(directory.encoded)
            files.update(
                (node.digest, node.size) for node in directory.values() if isinstance(node, FileNode)
            )
            if len(files) >= MOST_ITEMS:
                self._claim_files(files)
            if len(encodings) >= MOST_ITEMS:
                self._claim_directories(encodings)
        self._claim_files(files)
        self._claim_directories(encodings)

    def _closure(self) -> Iterator[Directory]:
        if not isinstance(self._root, DirectoryNode):
            return
        found = self._directories.closure(self._root.digest)
        if found is None:
            raise MissingDirectoryError(self._root.digest)
        yield from found

    def _claim_files(self, sizes: dict[B3Digest, int]) -> None:
        """Claim files, and forget them."""
        sizes.pop(EMPTY, None)
        absent = _absent(self._files, sizes)
        if absent:
            raise self._missing(min(absent))
        sizes.clear()

    def _claim_directories(self, sizes: dict[B3Digest, int]) -> None:
        """Claim directories wherever they are blobs, and forget them."""
        sizes.pop(EMPTY, None)
        absent = set(sizes)
        for claims in self._places:
            absent &= _absent(claims, sizes)
        if absent and not self._elsewhere:
            raise MissingDirectoryError(min(absent))
        sizes.clear()

    def _missing(self, digest: B3Digest) -> NodeNotFoundError:
        where = ""
        for path, node in walk(self._directories, self._root):
            if isinstance(node, FileNode) and node.digest == digest:
                where = f" {str(path)!r}"
                break
        return NodeNotFoundError(
            f"the tree is not complete: the file{where}, of the blob {digest}, is not there"
        )
