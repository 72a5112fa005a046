"""Where the directories of an import go: those that are new, and those that are as they were.

A directory that is as it was is not encoded anew. It has to be there still, with all below it: that is asked
of many together, or of the topmost ones only where a service has all that is below what it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from castore.chunks.claiming import BlobClaims
from castore.contract.batches import MOST_ITEMS
from castore.contract.blobs import BlobService
from castore.contract.directories import Complete, DirectoryService, DirectoryWriter, only_blob_service
from castore.digest import B3Digest
from castore.errors import MissingDirectoryError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode

_MOST_BYTES = 4 << 20


class DirectorySink(ABC):
    """Takes the directories of one tree, with the leaves first."""

    takes_same: bool = True
    """Whether `same` may be called."""

    @abstractmethod
    def put(self, directory: Directory, same: Iterable[DirectoryNode]) -> None:
        """Take a new one; *same* are those in it that are as they were."""

    @abstractmethod
    def same(self, node: DirectoryNode, length: int, directory: Callable[[], Directory]) -> None:
        """Take one that is as it was, and so is all below it.

        Arguments:
            node: The entry for it.
            length: How many bytes its encoding has.
            directory: Makes it if it is gone.
        """

    @abstractmethod
    def finish(self, root: DirectoryNode) -> None:
        """Have all of them there.

        Raises `MissingDirectoryError` if one that is as it was is gone and cannot be made.
        """

    @abstractmethod
    def abort(self) -> None:
        """Forget what was not put."""


def sink_of(service: DirectoryService, *, trusts: bool) -> DirectorySink:
    """Return a sink for a service.

    Arguments:
        service: Where the directories go.
        trusts: Whether there may be any that are as they were.
    """
    blobs = only_blob_service(service)
    if blobs is not None:
        return _BlobsSink(service, blobs)
    return _WriterSink(service, takes_same=trusts and service.capability(Complete) is not None)


class _BlobsSink(DirectorySink):
    """For directories that are blobs: those that are as they were are claimed, as other blobs are."""

    def __init__(self, service: DirectoryService, blobs: BlobService) -> None:
        self._service = service
        self._blobs = blobs
        self._stack = ExitStack()
        self._claims: BlobClaims | None = None
        self._waiting: dict[B3Digest, Directory] = {}
        self._bytes_waiting = 0
        self._same: dict[B3Digest, tuple[int, Callable[[], Directory]]] = {}

    def put(self, directory: Directory, same: Iterable[DirectoryNode]) -> None:  # noqa: ARG002 - all are claimed
        if directory.digest not in self._waiting:
            self._waiting[directory.digest] = directory
            self._bytes_waiting += len(directory.encoded)
            if len(self._waiting) >= MOST_ITEMS or self._bytes_waiting >= _MOST_BYTES:
                self._flush()

    def same(self, node: DirectoryNode, length: int, directory: Callable[[], Directory]) -> None:
        if length:
            self._same[node.digest] = length, directory
            if len(self._same) >= MOST_ITEMS:
                self._flush()

    def _flush(self) -> None:
        same, self._same = self._same, {}
        # In their order, so that none is there before what it refers to.
        lost: set[B3Digest] = set()
        if same:
            if self._claims is None:
                self._claims = self._stack.enter_context(BlobClaims(self._blobs))
            lost = same.keys() - self._claims.claim({digest: length for digest, (length, _) in same.items()})
        waiting, self._waiting, self._bytes_waiting = self._waiting, {}, 0
        directories = [make() for digest, (_, make) in same.items() if digest in lost]
        if directories or waiting:
            self._service.put_many([*directories, *waiting.values()])

    def finish(self, root: DirectoryNode) -> None:  # noqa: ARG002 - it is among them
        with self._stack:
            self._flush()

    def abort(self) -> None:
        self._waiting = {}
        self._same = {}
        self._stack.close()


class _WriterSink(DirectorySink):
    """For all others: they go through a writer."""

    def __init__(self, service: DirectoryService, *, takes_same: bool) -> None:
        self.takes_same = takes_same
        self._service = service
        self._writer: DirectoryWriter | None = None

    def put(self, directory: Directory, same: Iterable[DirectoryNode]) -> None:
        if self._writer is None:
            self._writer = self._service.open_write()
        for node in same:
            self._writer.graft(node)
        self._writer.put(directory)

    def same(self, node: DirectoryNode, length: int, directory: Callable[[], Directory]) -> None:
        """Do nothing: the topmost one is grafted by the one above it, or is the root."""

    def finish(self, root: DirectoryNode) -> None:
        if self._writer is not None:
            self._writer.close()
        elif self._service.missing((root.digest,)):
            raise MissingDirectoryError(root.digest)

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
