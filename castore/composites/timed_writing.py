"""Writing to children that may hang: each step is waited for no longer than the child's timeout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from castore.composites.members import Member
from castore.contract.blobs import BlobWriter
from castore.digest import B3Digest
from castore.errors import CastoreError
from castore.streams.writers import GuardedWriter
from castore.threads.pool import Pool

T = TypeVar("T")


class Leg:
    """The writer of one child, lent to one step after the other.

    When a step fails or takes too long the leg has ended: the writer is aborted, in the second case once the
    step returns. It may happen then that the child has the blob in the end all the same.
    """

    def __init__(self, member: Member, writer: BlobWriter) -> None:
        self.member = member
        self._writer: BlobWriter | None = writer

    @classmethod
    def open(cls, member: Member) -> Leg:
        """Start a blob at a child; raises what the child raises, and `UnavailableError` if it hangs."""
        return cls(member, member.call(member.service.open_write, late=_abort))

    @classmethod
    def begin_open(cls, member: Member, pool: Pool) -> Callable[[], Leg]:
        """Start a blob on another thread; return what waits for it, and raises as `open` does."""
        collect = member.begin(member.service.open_write, pool, late=_abort)
        return lambda: cls(member, collect())

    def write(self, data: bytes | memoryview) -> None:
        """Write a piece; what a step looks at must stay as it is if the child has a timeout."""
        writer = self._lend()
        self.member.call(partial(_step, writer, lambda: writer.write(data)), late=lambda _: writer.abort())
        self._writer = writer

    def begin_write(self, data: bytes | memoryview, pool: Pool) -> Callable[[], None]:
        """Write a piece on another thread; return what waits for it."""
        writer = self._lend()
        collect = self.member.begin(
            partial(_step, writer, lambda: writer.write(data)), pool, late=lambda _: writer.abort()
        )

        def finish() -> None:
            collect()
            self._writer = writer

        return finish

    def begin_close(self, pool: Pool) -> Callable[[], B3Digest]:
        """Make the blob visible, on another thread; return what waits for its digest."""
        writer = self._lend()
        return self.member.begin(partial(_step, writer, writer.close), pool, late=lambda _: writer.abort())

    def close(self) -> B3Digest:
        """Make the blob visible; return its digest."""
        writer = self._lend()
        return self.member.call(partial(_step, writer, writer.close), late=lambda _: writer.abort())

    def abort(self) -> None:
        """Forget what was written, unless a step still works on it, which sees to it then."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(CastoreError):
                self.member.call(writer.abort)

    def _lend(self) -> BlobWriter:
        # Until the step is over nobody else may touch the writer.
        writer, self._writer = self._writer, None
        assert writer is not None, "the leg has ended"
        return writer


def _step(writer: BlobWriter, step: Callable[[], T]) -> T:
    try:
        return step()
    except BaseException:
        writer.abort()
        raise


def _abort(writer: BlobWriter | None) -> None:
    if writer is not None:
        writer.abort()


class TimedWriter(GuardedWriter):
    """Passes what is written to one child."""

    def __init__(self, member: Member) -> None:
        self._leg = Leg.open(member)

    def _take(self, view: memoryview) -> None:
        # A step that is given up may look at the bytes long after the caller uses its buffer again.
        self._leg.write(view if self._leg.member.timeout is None else bytes(view))

    def _finish(self) -> B3Digest:
        return self._leg.close()

    def _discard(self) -> None:
        self._leg.abort()


def open_timed(member: Member) -> BlobWriter:
    """Start a blob at a child; raises what the child raises, and `UnavailableError` if it takes too long."""
    if member.timeout is None:
        return member.call(member.service.open_write)
    return TimedWriter(member)
