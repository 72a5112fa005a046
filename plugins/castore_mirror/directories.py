"""Several services that hold the same directories, of which some may fail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from castore import B3Digest, CastoreError, InvalidDirectoryError, MissingDirectoryError
from castore.composites.directories import DirectoryMember, MembersDirectoryService
from castore.composites.hedging import Hedge
from castore.composites.members import Found, Member, Members, no_answer, periods
from castore.contract.capabilities import Durable
from castore.directories.copying import copy_tree, put_with_children
from castore.format.directories import Directory
from castore.threads.pool import Pool
from castore_mirror.capabilities import durability_of
from castore_mirror.healing import HealingQueue, Reason
from castore_mirror.parallel import at_all

P = TypeVar("P")


class MirrorDirectoryService(MembersDirectoryService):
    """Writes to all of its members, and reads from the first that has a directory.

    The quorums are those of `MirrorBlobService`. What a member has missed, or is found to lack or to have
    corrupt, is copied to it in the background, with all that is below it.

    Arguments:
        members: In the order in which they are read.
        write_quorum: How many must have a directory for it to be stored.
        miss_quorum: How many must say that one is absent.
        hedge: When to ask the next member before the last has answered; `None`: never.
        queue: What waits to be copied.
        read_repair: Whether reads tell the queue what they find missing or corrupt.
        pool: Where members without a timeout are written to.
        name: That of the instance, for errors.
    """

    def __init__(
        self,
        members: Sequence[DirectoryMember],
        *,
        write_quorum: int,
        miss_quorum: int,
        hedge: Hedge | None = None,
        queue: HealingQueue | None = None,
        read_repair: bool = True,
        pool: Pool | None = None,
        name: str = "mirror",
    ) -> None:
        if not write_quorum + miss_quorum > len(members):
            raise ValueError("what was stored could be called absent: the quorums must be more than all")
        super().__init__(Members(name, members, misses=miss_quorum, hedge=hedge), members)
        self._name = name
        self._quorum = write_quorum
        self._pool = self._members.pool(pool)
        self._queue = HealingQueue(name) if queue is None else queue
        self._repairs = read_repair
        self._queue.start(self._heal)
        self.whole_trees = any(member.directories.whole_trees for member in members)

    @property
    def queue(self) -> HealingQueue:
        """The directories that wait to be copied."""
        return self._queue

    def put_many(self, directories: Collection[Directory]) -> None:
        """Put them at all members; raise `UnavailableError` if too few have taken them."""
        given = list(directories)
        count = periods(len(given))
        calls = [
            (
                member,
                partial(_begin, member, partial(put_with_children, given, self, member.directories), count),
            )
            for member in self._each
        ]
        outcomes = at_all(calls, self._pool)
        faults: list[tuple[Member, CastoreError]] = []
        for member, outcome in zip(self._each, outcomes, strict=True):
            if isinstance(outcome, InvalidDirectoryError):
                raise outcome
            if isinstance(outcome, CastoreError):
                faults.append((member, outcome))
        if len(self._each) - len(faults) < self._quorum:
            # That a child is missing is an answer: another time would be no better.
            missing = [error for _, error in faults if isinstance(error, MissingDirectoryError)]
            raise missing[0] if len(missing) == len(faults) else no_answer(self._name, faults)
        if faults:
            inner = {node.digest for directory in given for _, node in directory.directories}
            roots = [directory.digest for directory in given if directory.digest not in inner]
            for behind, _ in faults:
                for root in roots:
                    self._queue.add(behind, root)

    def _watch(self, found: Mapping[B3Digest, Found[Directory]]) -> None:
        """Let members have what they lack, or have wrong; those that failed may have it."""
        if self._repairs:
            for digest, answer in found.items():
                for member in answer.votes.missed:
                    self._queue.add(member, digest)
                for member in answer.votes.corrupt:
                    self._queue.add(member, digest, "corrupt")

    def _heal(self, member: Member, digest: B3Digest, reason: Reason, stop: Callable[[], bool]) -> bool:
        """Copy a tree to a member from the others; return whether there was anything to copy."""
        target = self._by_member[member].directories
        if stop() or (reason == "missing" and member.call(lambda: target.has(digest))):
            return False
        others = [each for each in self._each if each is not member]
        source = _Others(self._name, others)
        return member.call(lambda: copy_tree(digest, source, target), periods=periods(1024))

    def gauges(self) -> Mapping[str, float]:
        """Return how many directories wait to be copied, and what became of others."""
        return {
            "to_heal": sum(self._queue.waiting(member) for member in self._each),
            "healed": self._queue.healed,
            "dropped": self._queue.dropped,
            "failing": sum(1 for member in self._each if member.failures),
        }

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability that its members make possible; a tree is as durable as any quorum keeps it."""
        if kind is Durable:
            found: Any = durability_of(self._each, self._quorum)
            durable: P | None = found
            return durable
        return super().capability(kind)

    def close(self) -> None:
        """Copy what is due, as long as the deadline allows; end the threads."""
        self._queue.close()
        super().close()


class _Others(MembersDirectoryService):
    """All members but one, to read from."""

    def __init__(self, name: str, members: Sequence[DirectoryMember]) -> None:
        super().__init__(Members(name, members), members)

    def put_many(self, directories: Collection[Directory]) -> None:
        raise NotImplementedError


def _begin(member: Member, call: Callable[[], None], count: int, pool: Pool | None) -> Any:
    return member.begin(call, pool, periods=count)
