"""The base of services of directories that stand around one other, as `castore.wrapping.wrapper` has it.

Example::

    class CountingService(WrapperDirectoryService):
        def __init__(self, inner):
            super().__init__(inner)
            self.counts = Counter()

        def around(self, operation, call, /, *args, **kwargs):
            self.counts[operation] += 1
            return call(*args, **kwargs)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from castore.contract.directories import DirectoryService, DirectoryWriter, FoundDirectories
from castore.contract.operations import (
    CLOSURE,
    GET_MANY,
    MISSING,
    PUT_MANY,
    TREE_GRAFT,
    TREE_PUT,
    WRITER_CLOSE,
)
from castore.digest import B3Digest
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode
from castore.wrapping.forwarding import Around
from castore.wrapping.wrapper import Wrapping

A = TypeVar("A")

Begun = tuple[list[Directory], Iterator[Directory]]


class WrapperDirectoryService(Wrapping[DirectoryService], DirectoryService):
    """Passes everything on to *inner*, each operation through `around`.

    Trees are written through `put_many` and `missing` of this service: nothing bypasses what a wrapper does.
    Closing it leaves *inner* open, which who has made it closes.

    Attributes:
        inner: The service within.
        name: The name of this instance, for errors.
    """

    def __init__(self, inner: DirectoryService, *, name: str = "wrapper") -> None:
        super().__init__(inner, name=name)
        self.whole_trees = inner.whole_trees

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Ask the service within."""
        # A list, as the call may be done again, and an iterator would be used up then.
        return self.around(GET_MANY, self.inner.get_many, list(dict.fromkeys(digests)), within=within)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service within."""
        return self.around(MISSING, self.inner.missing, set(digests))

    def put_many(self, directories: Collection[Directory]) -> None:
        """Put them there."""
        self.around(PUT_MANY, self.inner.put_many, list(directories))

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return all directories of a tree there; up to the root it is one operation."""
        first, rest = self.around(CLOSURE, partial(begin_closure, self.inner), root)
        return self.wrap_closure(chain(first, rest), root) if first else None

    def wrap_closure(self, directories: Iterator[Directory], root: B3Digest) -> Iterator[Directory]:  # noqa: ARG002 - for overriding
        """Return what to hand out of a tree for what comes of it, the root first."""
        return directories

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return the capability of the service within, each of its methods passed through `around`.

        A capability that is among the bases of the wrapper's own class is its own.
        """
        return self._capability(kind, super().capability(kind))


def begin_closure(service: DirectoryService, root: B3Digest) -> Begun:
    """Return the root of a tree, and an iterator of what follows it; nothing if it is absent."""
    directories = service.closure(root)
    if directories is None:
        return [], iter(())
    return list(islice(directories, 1)), directories


class ForwardingDirectoryWriter(DirectoryWriter):
    """Passes everything on to another writer, each operation but `abort` through *around*."""

    def __init__(self, writer: DirectoryWriter, around: Around) -> None:
        self._writer = writer
        self._around = around

    def put(self, directory: Directory) -> B3Digest:
        """Put a directory."""
        return self._around(TREE_PUT, self._writer.put, directory)

    def graft(self, node: DirectoryNode) -> None:
        """Take a directory that is there."""
        self._around(TREE_GRAFT, self._writer.graft, node)

    def close(self) -> B3Digest:
        """End the tree."""
        return self._around(WRITER_CLOSE, self._writer.close)

    def abort(self) -> None:
        """Give the tree up."""
        self._writer.abort()
