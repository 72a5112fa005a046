"""Writing to all members at once; enough of them must succeed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from blake3 import blake3

from castore import B3Digest, CastoreError, CorruptBlobError
from castore.composites.members import Begun, Member, no_answer
from castore.composites.timed_writing import Leg
from castore.streams.writers import GuardedWriter
from castore.threads.pool import Pool
from castore_mirror.parallel import at_all

T = TypeVar("T")

_SMALL: Final = 64 << 10
"""Fewer bytes, for members without a timeout, are not worth another thread."""


class MirrorWriter(GuardedWriter):
    """Writes a blob to all members; those that fail are left out, as long as enough are left.

    Arguments:
        name: That of the mirror, for errors.
        members: Where to write.
        quorum: How many of them must have the blob.
        missed: Is called with each member that has not got the blob, when it is stored all the same.
        pool: Where members without a timeout are written to.
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
        self._faults: list[tuple[Member, CastoreError]] = []
        self._legs: list[Leg] = []
        calls = [(member, partial(Leg.begin_open, member)) for member in members]
        opened = at_all(calls, pool, late=Leg.abort)
        self._legs = [leg for leg in opened if isinstance(leg, Leg)]
        try:
            self._leave_out(zip(members, opened, strict=True))
        except CastoreError:
            self._fail()
            raise

    def _take(self, view: memoryview) -> None:
        self._hasher.update(view)
        if any(leg.member.timeout is not None for leg in self._legs):
            # A step that is given up may look at the bytes long after the caller uses its buffer again.
            self._write(bytes(view), self._pool)
        else:
            # A thread may keep its last task a moment longer, but no hold on the caller's buffer by it.
            with memoryview(view) as shared:
                self._write(shared, None if len(shared) < _SMALL else self._pool)

    def _write(self, data: bytes | memoryview, pool: Pool | None) -> None:
        self._step(lambda leg, where: leg.begin_write(data, where), pool)

    def _finish(self) -> B3Digest:
        digest = B3Digest(self._hasher.digest())
        self._step(lambda leg, pool: _close(leg, digest, pool), self._pool)
        for member, _ in self._faults:
            self._missed(member, digest)
        return digest

    def _step(self, begin: Callable[[Leg, Pool | None], Begun[T]], pool: Pool | None) -> None:
        legs = self._legs
        outcomes = at_all([(leg.member, partial(begin, leg)) for leg in legs], pool)
        self._leave_out((leg.member, outcome) for leg, outcome in zip(legs, outcomes, strict=True))

    def _leave_out(self, outcomes: Iterable[tuple[Member, object]]) -> None:
        """Go on without those that have failed."""
        faults = [(member, outcome) for member, outcome in outcomes if isinstance(outcome, CastoreError)]
        if faults:
            self._faults = sorted([*self._faults, *faults], key=lambda fault: self._order[fault[0]])
            failed = {member for member, _ in faults}
            self._legs = [leg for leg in self._legs if leg.member not in failed]
        if len(self._legs) < self._quorum:
            raise no_answer(self._name, self._faults)

    def _discard(self) -> None:
        for leg in self._legs:
            leg.abort()


def _close(leg: Leg, digest: B3Digest, pool: Pool | None) -> Begun[None]:
    """Let the blob of a leg be made visible; what waits for it checks that its name is right."""
    begun = leg.begin_close(pool)

    def check() -> None:
        named = begun.result()
        if named != digest:
            message = f"`{leg.member.name}` took the blob {digest} for {named}"
            raise CorruptBlobError(message, expected=digest, found=named)

    return Begun(check, begun.drop)
