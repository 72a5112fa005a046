"""Chunks that are read from any member and written to all, and how long what is written lasts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import attrs

from castore import B3Digest, CastoreError, ChunkMeta
from castore.composites.members import Begun, Member, no_answer, periods, periods_of
from castore.composites.timed_writing import Lease, begin_lease, copies_of
from castore.contract.capabilities import ChunkSource, ChunkStore, Durable
from castore.digest import EMPTY
from castore.errors import BatchError
from castore.format.chunking import Chunker
from castore.threads.pool import Pool
from castore.wrapping.sourced import SourcedChunks
from castore_mirror.marks import Marks
from castore_mirror.parallel import at_all

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")


@attrs.frozen
class _Said:
    """What came of a call to a member: what it has done, or has, and why that is not known of others."""

    member: Member
    done: AbstractSet[B3Digest]
    faults: Mapping[B3Digest, CastoreError]


class StoreInAll(SourcedChunks, ChunkStore):
    """Reads chunks through *source*, and writes them to the stores of all members, with one call to each.

    What enough members have taken is taken. A member that missed a chunk does not get the index of a blob
    that needs it, for the blob would be there and incomplete; it is healed afterwards.

    Arguments:
        name: That of the mirror, for errors.
        source: Where chunks are read.
        stores: The members with their stores; blobs are cut as the first one does.
        quorum: How many must have taken something for it to be taken.
        missed: Is called with each member that did not get the index of a blob that is stored all the same.
        pool: Where work for this store runs, and members without a timeout are written to.
        marks: What each member may have missed.
    """

    def __init__(
        self,
        name: str,
        source: ChunkSource,
        stores: Sequence[tuple[Member, ChunkStore]],
        *,
        quorum: int,
        missed: Callable[[Member, B3Digest], object],
        pool: Pool,
        marks: Mapping[Member, Marks] | None = None,
    ) -> None:
        super().__init__(source)
        self._name = name
        self._stores = stores
        self._quorum = quorum
        self._missed = missed
        self._pool = pool
        self._marks = {member: Marks() for member, _ in stores} if marks is None else marks
        self.round = min(store.round for _, store in stores)

    @property
    def pool(self) -> Pool:
        """That of the mirror."""
        return self._pool

    def new_chunker(self) -> Chunker:
        """Return what cuts as the store of the first member does."""
        return self._stores[0][1].new_chunker()

    # -- claiming --

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that all members have that answer, if enough of them answer."""
        wanted = frozenset(digests)
        there, said = self._claim_at_all(wanted, lambda store: store.claim(wanted))
        for one in said:
            self._marks[one.member].remove(one.done)
            # It may lack what is not put now, for it is there elsewhere.
            self._marks[one.member].add(there & one.faults.keys())
        short = self._short_of_quorum(there, said)
        self._raise_if(short, asked=wanted, done=there)
        return there

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return those that all members have that answer, if enough of them answer; the others are healed."""
        there, said = self._claim_at_all(blobs.keys(), lambda store: store.claim_blobs(blobs))
        short = self._short_of_quorum(there, said)
        self._heal(there - short.keys(), said)
        self._raise_if(short, asked=blobs.keys(), done=there)
        return there

    def _claim_at_all(
        self, wanted: AbstractSet[B3Digest], claim: Callable[[ChunkStore], set[B3Digest]]
    ) -> tuple[set[B3Digest], list[_Said]]:
        """Return what no member says it lacks, and what each of them has said."""
        outcomes = self._ask_all(lambda _, store: claim(store), periods(len(wanted)))
        said = [_said_of_claim(member, outcome, wanted) for member, outcome in outcomes]
        there = set(wanted)
        for one in said:
            there &= one.done | one.faults.keys()
        return there, said

    # -- writing --

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Store chunks at all members."""
        timed = any(member.timeout is not None for member, _ in self._stores)
        copies = copies_of(chunks) if timed else {}
        # A thread may keep its last task a moment longer, but no hold on the caller's buffers by it.
        shared = dict(chunks)
        try:
            outcomes = self._ask_all(
                lambda member, store: store.put_chunks(shared if member.timeout is None else copies),
                periods_of(map(len, copies.values())),
            )
        finally:
            shared.clear()
        said = [_said_of_put(member, outcome, chunks.keys()) for member, outcome in outcomes]
        # First: one that goes on without these chunks, as another mirror does, may still put their index.
        for one in said:
            self._marks[one.member].remove(one.done)
            self._marks[one.member].add(one.faults)
        short = self._short_of_quorum(chunks, said)
        self._raise_if(short, asked=chunks.keys(), done=chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible at all members that have their chunks."""
        # Nobody has to put a chunk of no bytes.
        needs = {
            digest: ({meta.digest for meta in chunks} or {digest}) - {EMPTY}
            for digest, chunks in blobs.items()
        }
        needed = frozenset().union(*needs.values())
        doubtful = {member: self._marks[member].among(needed) for member, _ in self._stores}
        most = max(map(len, doubtful.values()))
        outcomes = self._ask_all(
            lambda member, store: self._put_indexes_at(member, store, blobs, needs, doubtful[member]),
            periods(len(blobs)) + (periods(most) if most else 0),
        )
        said = [_said_of_put(member, outcome, blobs.keys()) for member, outcome in outcomes]
        if not blobs:
            # What was claimed before is to last.
            faults = [(member, error) for member, error in outcomes if isinstance(error, CastoreError)]
            if len(outcomes) - len(faults) < self._quorum:
                raise no_answer(self._name, faults)
        short = self._short_of_quorum(blobs, said)
        self._heal(blobs.keys() - short.keys(), said)
        self._raise_if(short, asked=blobs.keys(), done=blobs)

    def _put_indexes_at(
        self,
        member: Member,
        store: ChunkStore,
        blobs: Mapping[B3Digest, Sequence[ChunkMeta]],
        needs: Mapping[B3Digest, AbstractSet[B3Digest]],
        doubtful: AbstractSet[B3Digest],
    ) -> dict[B3Digest, CastoreError]:
        """Put indexes at a member; return those that it does not get for want of a chunk that it missed."""
        missed: dict[B3Digest, CastoreError] = {}
        failed: CastoreError | None = None
        if doubtful:
            why = CastoreError("it has missed some of the chunks")
            try:
                # Claimed, as a member with members of its own may have it where indexes are not put.
                there: AbstractSet[B3Digest] = store.claim(doubtful)
            except CastoreError as error:
                there = error.done if isinstance(error, BatchError) else frozenset()
                why = failed = error
            self._marks[member].remove(there)
            lacking = doubtful - there
            missed = {digest: why for digest, needed in needs.items() if needed & lacking}
        able = {digest: chunks for digest, chunks in blobs.items() if digest not in missed}
        if able or failed is None:
            try:
                # Even of none, so that what was claimed there lasts.
                store.put_indexes(able)
            except CastoreError as error:
                failed = error
                missed |= _said_of_put(member, error, able.keys()).faults
        if failed is not None:
            # Raised, so that it counts as failing.
            raise BatchError(member.name, missed, done=blobs.keys() - missed.keys()) if able else failed
        return missed

    @contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        """Enter with a store over what the members lease; one that cannot is used as it is.

        It may lose chunks, which is found when they are read, and healed.
        """
        pool = None if brief else self._pool
        calls = [(member, partial(begin_lease, member, store, brief=brief)) for member, store in self._stores]
        leases = at_all(calls, pool, late=Lease.end)
        try:
            yield StoreInAll(
                self._name,
                self._source,
                [
                    (member, lease.store if isinstance(lease, Lease) else store)
                    for (member, store), lease in zip(self._stores, leases, strict=True)
                ],
                quorum=self._quorum,
                missed=self._missed,
                pool=self._pool,
                marks=self._marks,
            )
        finally:
            entered = zip(self._stores, leases, strict=True)
            at_all(
                [
                    (member, partial(_begin, member, lease.end, 1))
                    for (member, _), lease in entered
                    if isinstance(lease, Lease)
                ],
                pool,
            )

    # -- the members --

    def _ask_all(
        self, ask: Callable[[Member, ChunkStore], T], periods: int
    ) -> list[tuple[Member, T | CastoreError]]:
        """Ask all members at once; return what each answers, or raises."""
        calls = [
            (member, partial(_begin, member, partial(ask, member, store), periods))
            for member, store in self._stores
        ]
        outcomes = at_all(calls, self._pool)
        return [(member, outcome) for (member, _), outcome in zip(calls, outcomes, strict=True)]

    def _short_of_quorum(
        self, digests: Iterable[B3Digest], said: Sequence[_Said]
    ) -> dict[B3Digest, CastoreError]:
        """Return those that too few members have done, with the error that this is."""
        if not any(one.faults for one in said):
            return {}
        short: dict[B3Digest, CastoreError] = {}
        for digest in digests:
            faults = [(one.member, one.faults[digest]) for one in said if digest in one.faults]
            if len(said) - len(faults) < self._quorum:
                short[digest] = no_answer(self._name, faults)
        return short

    def _raise_if(
        self, short: Mapping[B3Digest, CastoreError], *, asked: Collection[B3Digest], done: Iterable[B3Digest]
    ) -> None:
        if short and len(short) == len(asked):
            raise next(iter(short.values()))
        if short:
            raise BatchError(self._name, short, done=set(done) - short.keys())

    def _heal(self, stored: AbstractSet[B3Digest], said: Sequence[_Said]) -> None:
        """Let blobs that are stored be copied to the members that have not got them."""
        for one in said:
            for digest in stored & one.faults.keys():
                self._missed(one.member, digest)


def _begin(member: Member, what: Callable[[], T], periods: int, pool: Pool | None) -> Begun[T]:
    return member.begin(what, pool, periods=periods)


def _said_of_claim(
    member: Member, outcome: AbstractSet[B3Digest] | CastoreError, asked: Iterable[B3Digest]
) -> _Said:
    if isinstance(outcome, BatchError):
        return _Said(member, outcome.done, outcome.faults)
    if isinstance(outcome, CastoreError):
        return _Said(member, frozenset(), dict.fromkeys(asked, outcome))
    return _Said(member, outcome, {})


def _said_of_put(
    member: Member,
    outcome: Mapping[B3Digest, CastoreError] | CastoreError | None,
    asked: AbstractSet[B3Digest],
) -> _Said:
    if isinstance(outcome, BatchError):
        done: AbstractSet[B3Digest] = asked & outcome.done - outcome.faults.keys()
        # What is not known to be done counts as not done.
        return _Said(member, done, {digest: outcome.faults.get(digest, outcome) for digest in asked - done})
    if isinstance(outcome, CastoreError):
        return _Said(member, frozenset(), dict.fromkeys(asked, outcome))
    faults = outcome or {}
    return _Said(member, asked - faults.keys() if faults else asked, faults)


class DurableByQuorum(Durable):
    """What survives at one member at least of any that may have made up the quorum."""

    def __init__(self, durability: Literal["process", "full"]) -> None:
        self._durability = durability

    @property
    def durability(self) -> Literal["process", "full"]:
        """The weakest promise that any quorum of members keeps."""
        return self._durability


def durability_of(members: Sequence[Member], quorum: int) -> Durable | None:
    """Return what a write that *quorum* of the members acknowledged survives, `None` if nothing is sure."""
    stated = [member.service.capability(Durable) for member in members]
    levels = [None if entry is None else entry.durability for entry in stated]
    # Of any `quorum` members one is durable if those that are not are fewer.
    if sum(level != "full" for level in levels) < quorum:
        return DurableByQuorum("full")
    if sum(level is None for level in levels) < quorum:
        return DurableByQuorum("process")
    return None
