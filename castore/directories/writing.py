"""A writer of trees for any service that takes many directories at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from castore.contract.batches import MOST_ITEMS
from castore.contract.directories import Complete, DirectoryService, DirectoryWriter
from castore.directories.reading import closure_of
from castore.errors import MissingDirectoryError, WriterClosedError
from castore.format.closures import LeavesToRoot

if TYPE_CHECKING:
    from castore.digest import B3Digest
    from castore.format.directories import Directory
    from castore.format.nodes import DirectoryNode

_MOST_BYTES: Final = 4 << 20


class BatchedDirectoryWriter(DirectoryWriter):
    """Checks the directories of a tree as they come, and puts them by many.

    What is grafted is looked up together, before the first directory that may need it is put. Where the
    service is not `Complete` all that is below it is looked up as well.

    Arguments:
        service: Where they go.
        together: Whether the service must be given all of a tree with one call.
    """

    def __init__(self, service: DirectoryService, *, together: bool = False) -> None:
        self._service = service
        self._together = together
        self._order = LeavesToRoot()
        self._waiting: list[Directory] = []
        self._bytes_waiting = 0
        self._grafted: dict[B3Digest, None] = {}
        self._root: B3Digest | None = None
        self._ended = False

    def put(self, directory: Directory) -> B3Digest:
        """Take a directory; it is put with others."""
        self._require_open()
        if self._order.accept(directory):
            self._waiting.append(directory)
            self._bytes_waiting += len(directory.encoded)
            many = len(self._waiting) >= MOST_ITEMS or self._bytes_waiting >= _MOST_BYTES
            if many and not self._together:
                self._flush()
        return directory.digest

    def graft(self, node: DirectoryNode) -> None:
        """Take note of a directory that is there; whether that is so is looked up later."""
        self._require_open()
        if node.digest not in self._order:
            self._order.take_for_granted(node.digest, node.size)
            self._grafted[node.digest] = None

    def _flush(self) -> None:
        waiting, self._waiting, self._bytes_waiting = self._waiting, [], 0
        # What fails here is not whole, and cannot become so any more.
        ended, self._ended = self._ended, True
        self._look_up_grafts()
        if waiting:
            self._service.put_many(waiting)
        self._ended = ended

    def _look_up_grafts(self) -> None:
        grafted, self._grafted = list(self._grafted), {}
        for start in range(0, len(grafted), MOST_ITEMS):
            some = grafted[start : start + MOST_ITEMS]
            absent = self._service.missing(some)
            if absent:
                raise MissingDirectoryError(next(digest for digest in some if digest in absent))
        if self._service.capability(Complete) is None:
            for digest in grafted:
                directories = closure_of(self._service, digest)
                if directories is None:
                    raise MissingDirectoryError(digest)
                deque(directories, maxlen=0)

    def close(self) -> B3Digest:
        """Put what waits; return the digest of the root."""
        if self._root is None:
            self._require_open()
            root = self._order.finish()
            self._ended = True
            self._flush()
            self._root = root
        return self._root

    def abort(self) -> None:
        """Forget what waits."""
        self._ended = True
        self._waiting = []
        self._grafted = {}

    def _require_open(self) -> None:
        if self._ended:
            raise WriterClosedError("the writer of this tree was closed, or aborted, or has failed")
