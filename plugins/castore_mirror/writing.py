"""Writing to all children at once; enough of them must succeed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from blake3 import blake3

from castore import B3Digest, CastoreError, CorruptBlobError
from castore.composites.members import Member, no_answer
from castore.composites.timed_writing import Leg
from castore.streams.writers import GuardedWriter
from castore.threads.pool import Pool

T = TypeVar("T")

_SMALL: Final = 64 << 10
"""Fewer bytes, for children without a timeout, are not worth another thread."""

Faults = list[tuple[Member, CastoreError]]


def collect_all(begun: Iterable[tuple[Member, Callable[[], T]]]) -> tuple[list[tuple[Member, T]], Faults]:
    """Wait for calls to children; return what they returned and how they failed.

    Any other error is raised, but only after all have ended.
    """
    values: list[tuple[Member, T]] = []
    faults: Faults = []
    mistake: BaseException | None = None
    for member, collect in begun:
        try:
            values.append((member, collect()))
        except CastoreError as error:
            faults.append((member, error))
        except BaseException as error:  # noqa: BLE001 - the others still work on the caller's bytes
            mistake = mistake or error
    if mistake is not None:
        raise mistake
    return values, faults


class MirrorWriter(GuardedWriter):
    """Writes a blob to all children; those that fail are left out, as long as enough are left.

    Arguments:
        name: That of the mirror, for errors.
        children: Where to write.
        quorum: How many of them must have the blob.
        missed: Is called with each child that has not got the blob, when it is stored all the same.
        pool: Where children without a timeout are written to.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        *,
        quorum: int,
        missed: Callable[[Member, B3Digest], object],
        pool: Pool,
    ) -> None:
        self._name = name
        self._quorum = quorum
        self._missed = missed
        self._pool = pool
        self._hasher = blake3()
        self._order = {member: number for number, member in enumerate(members)}
        self._faults: Faults = []
        self._legs: list[Leg] = []
        begun = [(member, Leg.begin_open(member, pool)) for member in members]
        opened, faults = collect_all(begun)
        self._legs = [leg for _, leg in opened]
        try:
            self._leave_out(faults)
        except CastoreError:
            self._fail()
            raise

    def _take(self, view: memoryview) -> None:
        self._hasher.update(view)
        if any(leg.member.timeout is not None for leg in self._legs):
            # A step that is given up may look at the bytes long after the caller uses its buffer again.
            self._write(bytes(view))
        else:
            # A thread may keep its last task a moment longer, but no hold on the caller's buffer by it.
            with memoryview(view) as shared:
                self._write(shared)

    def _write(self, data: bytes | memoryview) -> None:
        *others, last = self._legs
        inline = isinstance(data, memoryview) and len(data) < _SMALL
        begun: list[tuple[Member, Callable[[], object]]] = [
            (leg.member, _later(leg, data) if inline else leg.begin_write(data, self._pool)) for leg in others
        ]
        # This thread writes to the last while others write to the rest.
        hurried = last.member.timeout is not None
        begun.append((last.member, last.begin_write(data, self._pool) if hurried else _later(last, data)))
        self._leave_out(collect_all(reversed(begun))[1])

    def _finish(self) -> B3Digest:
        digest = B3Digest(self._hasher.digest())
        closed, faults = collect_all([(leg.member, leg.begin_close(self._pool)) for leg in self._legs])
        for member, named in closed:
            if named != digest:
                message = f"`{member.name}` took the blob {digest} for {named}"
                faults.append((member, CorruptBlobError(message, expected=digest, found=named)))
        self._leave_out(faults)
        for member, _ in self._faults:
            self._missed(member, digest)
        return digest

    def _leave_out(self, faults: Faults) -> None:
        if faults:
            self._faults = sorted([*self._faults, *faults], key=lambda fault: self._order[fault[0]])
            failed = {member for member, _ in faults}
            self._legs = [leg for leg in self._legs if leg.member not in failed]
        if len(self._legs) < self._quorum:
            raise no_answer(self._name, self._faults)

    def _discard(self) -> None:
        for leg in self._legs:
            leg.abort()


def _later(leg: Leg, data: bytes | memoryview) -> Callable[[], None]:
    return lambda: leg.write(data)
