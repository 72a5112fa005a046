"""Writing to members that may hang: each step is waited for no longer than the member's timeout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from castore.composites.members import Begun, Member, periods
from castore.contract.blobs import BlobWriter
from castore.contract.capabilities import ChunkStore
from castore.digest import B3Digest
from castore.errors import CastoreError
from castore.streams.writers import GuardedWriter
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")


class Leg:
    """The writer of one member, lent to one step after the other.

    When a step fails or takes too long the leg has ended: the writer is aborted, in the second case once the
    step returns. It may happen then that the member has the blob in the end all the same.
    """

    def __init__(self, member: Member, writer: BlobWriter) -> None:
        self.member = member
        self._writer: BlobWriter | None = writer

    @classmethod
    def begin_open(cls, member: Member, pool: Pool | None) -> Begun[Leg]:
        """Start a blob at a member; what waits for it raises `UnavailableError` if the member hangs."""
        begun = member.begin(member.service.open_write, pool, late=_abort)
        return Begun(lambda: cls(member, begun.result()), begun.drop)

    def begin_write(self, data: bytes | memoryview, pool: Pool | None) -> Begun[object]:
        """Write a piece; what a step looks at must stay as it is if the member has a timeout."""
        return self._begin(lambda writer: writer.write(data), pool, periods(size=len(data)))

    def begin_close(self, pool: Pool | None) -> Begun[B3Digest]:
        """Make the blob visible; what waits for it returns the digest."""
        return self._begin(lambda writer: writer.close(), pool)

    def _begin(self, step: Callable[[BlobWriter], T], pool: Pool | None, periods: int = 1) -> Begun[T]:
        # Until the step is over nobody else may touch the writer.
        writer, self._writer = self._writer, None
        assert writer is not None, "the leg has ended"
        begun = self.member.begin(
            partial(_step, writer, step), pool, late=lambda _: writer.abort(), periods=periods
        )

        def finish() -> T:
            answer = begun.result()
            self._writer = writer
            return answer

        def drop() -> None:
            begun.drop()
            if self.member.timeout is None:
                self._writer = writer

        return Begun(finish, drop)

    def abort(self) -> None:
        """Forget what was written, unless a step still works on it, which sees to it then."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(CastoreError):
                self.member.call(writer.abort)


def _step(writer: BlobWriter, step: Callable[[BlobWriter], T]) -> T:
    try:
        return step(writer)
    except BaseException:
        writer.abort()
        raise


def _abort(writer: BlobWriter | None) -> None:
    if writer is not None:
        writer.abort()


class TimedWriter(GuardedWriter):
    """Passes what is written to one member."""

    def __init__(self, member: Member) -> None:
        self._leg = Leg.begin_open(member, None).result()

    def _take(self, view: memoryview) -> None:
        # A step that is given up may look at the bytes long after the caller uses its buffer again.
        self._leg.begin_write(view if self._leg.member.timeout is None else bytes(view), None).result()

    def _finish(self) -> B3Digest:
        return self._leg.begin_close(None).result()

    def _discard(self) -> None:
        self._leg.abort()


def open_timed(member: Member) -> BlobWriter:
    """Start a blob at a member; raises what that raises, and `UnavailableError` if it takes too long."""
    if member.timeout is None:
        return member.call(member.service.open_write)
    return TimedWriter(member)


def copies_of(chunks: Mapping[B3Digest, Buffer]) -> dict[B3Digest, bytes]:
    """Return chunks for a call that may be given up: views would be used again while it goes on."""
    return {digest: bytes(data) for digest, data in chunks.items()}


class Lease:
    """The store of a member, leased until this is ended."""

    def __init__(self, store: ChunkStore, *, brief: bool) -> None:
        self._context = store.lease(brief=brief)
        self.store = self._context.__enter__()

    def end(self) -> None:
        """Let go of what was put and claimed."""
        self._context.__exit__(None, None, None)


def begin_lease(member: Member, store: ChunkStore, pool: Pool | None, *, brief: bool) -> Begun[Lease]:
    """Lease the store of a member; what waits for it raises `UnavailableError` if the member hangs."""
    return member.begin(partial(Lease, store, brief=brief), pool, late=_end)


def end_lease(member: Member, lease: Lease) -> None:
    """End a lease; what goes wrong is not told."""
    # One that cannot be ended now ends with its process; the error would hide what came before.
    with contextlib.suppress(CastoreError):
        member.call(lease.end)


def _end(lease: Lease | None) -> None:
    if lease is not None:
        lease.end()


@contextlib.contextmanager
def leased(member: Member, store: ChunkStore, *, brief: bool) -> Iterator[ChunkStore]:
    """Lease the store of a member; entering and leaving take no longer than its timeout."""
    lease = begin_lease(member, store, None, brief=brief).result()
    try:
        yield lease.store
    finally:
        end_lease(member, lease)
