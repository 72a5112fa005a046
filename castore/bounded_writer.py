"""A writer to a child that may hang: each step of it is waited for no longer than the child's timeout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

from castore.blobservice import BlobWriter
from castore.children import Child
from castore.digest import B3Digest
from castore.errors import CastoreError
from castore.writers import GuardedWriter

T = TypeVar("T")


class BoundedWriter(GuardedWriter):
    """Passes what is written to the writer of a child.

    When a step takes too long it is abandoned, and the writer beneath is aborted once the step returns; it
    may happen that the child has the blob in the end all the same.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._writer: BlobWriter | None = child.call(child.service.open_write, late=_abort)

    def _take(self, view: memoryview) -> None:
        # A step that is given up may look at the bytes long after the caller uses its buffer again.
        data = view if self._child.timeout is None else bytes(view)
        self._writer = self._step(lambda writer: (writer.write(data), writer)[1])

    def _finish(self) -> B3Digest:
        return self._step(lambda writer: writer.close())

    def _step(self, step: Callable[[BlobWriter], T]) -> T:
        # Until the step is over nobody else may touch the writer.
        writer, self._writer = self._writer, None
        assert writer is not None

        def run() -> T:
            try:
                return step(writer)
            except BaseException:
                writer.abort()
                raise

        return self._child.call(run, late=lambda _: writer.abort())

    def _discard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(CastoreError):
                self._child.call(writer.abort)


def _abort(writer: BlobWriter | None) -> None:
    if writer is not None:
        writer.abort()


def open_bounded(child: Child) -> BlobWriter:
    """Start a blob at a child; raises what the child raises, and `UnavailableError` if it takes too long."""
    if child.timeout is None:
        return child.call(child.service.open_write)
    return BoundedWriter(child)
