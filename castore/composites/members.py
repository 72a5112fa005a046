"""The children of a service over several others, asked in turn so that none is taken at less than its word.

What they say together is settled by one rule. A hit anywhere wins. If there is none, one that is corrupt is
the answer, unless another child could not answer: then a good copy may be there, and the answer is not
known. The blob is absent only when enough children said so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

import attrs

from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkSource
from castore.errors import CastoreError, CorruptBlobError, UnavailableError, describe
from castore.threads.deadlines import CLOCK, Clock, Deadlines
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from castore.composites.hedging import Hedge
    from castore.digest import B3Digest

T = TypeVar("T")
P = TypeVar("P")


@attrs.frozen
class MemberHealth:
    """How a child has been doing."""

    name: str
    failures: int
    """How many calls in a row it has failed; 0 if it answered the last one."""
    last_error: str | None
    """What it failed with last; `None` if it never has."""
    abandoned: int
    """How many calls were given up and have not returned yet."""
    to_heal: int = 0
    """How many blobs wait to be copied to it."""

    @property
    def ok(self) -> bool:
        """Whether it answered the last call, and lacks nothing that it is known to lack."""
        return not self.failures and not self.to_heal


class Member:
    """One child, by its name, and how long it may take.

    Arguments:
        name: Names it in errors: that of its instance.
        service: What is asked.
        timeout: How long one call may take, in seconds; `None`: without end. A call is a question, a chunk or
            a piece read, a piece written, or the closing of a blob.
        final: Whether its error is the answer, so that the children after it are not asked.
        clock: What deadlines are measured with.
    """

    def __init__(
        self,
        name: str,
        service: BlobService,
        *,
        timeout: float | None = None,
        final: bool = False,
        clock: Clock = CLOCK,
    ) -> None:
        self.name = name
        self.service = service
        self.timeout = timeout
        self.final = final
        self.source = service.capability(ChunkSource)
        self.deadlines = Deadlines(name, clock=clock)
        self.failures = 0
        self.last_error: CastoreError | None = None

    def call(self, what: Callable[[], T], *, late: Callable[[T | None], object] | None = None) -> T:
        """Return what *what* returns; raises `UnavailableError` if it takes too long.

        *late*: see `castore.threads.deadlines`.
        """
        try:
            answer = what() if self.timeout is None else self.deadlines.call(what, self.timeout, late=late)
        except CastoreError as error:
            self.note(error)
            raise
        self.failures = 0
        return answer

    def begin(
        self,
        what: Callable[[], T],
        pool: Pool,
        *,
        late: Callable[[T | None], object] | None = None,
    ) -> Callable[[], T]:
        """Start a call on another thread; return what waits for it, once, as `call` does.

        With a timeout the thread is none of the *pool*: what hangs must not use them up.
        """
        if self.timeout is None:
            task = pool.submit(what)
            return lambda: self.call(task.result)
        try:
            pending = self.deadlines.start(what, late=late)
        except UnavailableError as error:
            return partial(self._refuse, error)
        clock = self.deadlines.clock
        ends = clock.now() + self.timeout

        def collect() -> T:
            try:
                answer = pending.result(max(ends - clock.now(), 0.0))
            except CastoreError as error:
                self.note(error)
                raise
            self.failures = 0
            return answer

        return collect

    def _refuse(self, error: UnavailableError) -> NoReturn:
        self.note(error)
        raise error

    def note(self, error: CastoreError) -> None:
        """Remember that a call failed. What is corrupt was answered."""
        if not isinstance(error, CorruptBlobError):
            self.failures += 1
            self.last_error = error

    def health(self, to_heal: int = 0) -> MemberHealth:
        """Return how it has been doing."""
        last = None if self.last_error is None else self.last_error.message
        return MemberHealth(self.name, self.failures, last, self.deadlines.abandoned, to_heal)


class Found(Generic[T]):
    """An answer, who gave it, and what the children asked before had to say."""

    __slots__ = ("member", "value", "votes")

    def __init__(self, value: T, member: Member, votes: Votes) -> None:
        self.value = value
        self.member = member
        self.votes = votes


class Votes:
    """What was said by children that did not have what was asked for."""

    __slots__ = ("faults", "missed")

    def __init__(self) -> None:
        self.missed: list[Member] = []
        self.faults: list[tuple[Member, CastoreError]] = []

    @property
    def corrupt(self) -> list[Member]:
        """Those that have it, but not as it should be."""
        return [member for member, error in self.faults if isinstance(error, CorruptBlobError)]

    @property
    def others(self) -> set[Member]:
        """Those that were asked and did not have it right."""
        return {*self.missed, *(member for member, _ in self.faults)}

    def decide(self, instance: str, misses: int) -> None:
        """Return if this means that it is absent, which takes so many *misses*; else raise what it means."""
        faults = self.faults
        unknown = [error for _, error in faults if not isinstance(error, CorruptBlobError)]
        if len(unknown) < len(faults):
            if not unknown:
                raise next(error for _, error in faults)
        elif len(self.missed) >= misses:
            return
        raise no_answer(instance, faults)


_NO_VOTES: Final = Votes()


def no_answer(instance: str, faults: Sequence[tuple[Member, CastoreError]]) -> UnavailableError:
    """Return the error of a composite whose children have failed, with each of them and its cause."""
    said = "; ".join(f"`{member.name}`: {_cause(member, error)}" for member, error in faults)
    return UnavailableError(instance, said, causes={member.name: error for member, error in faults})


def _cause(member: Member, error: CastoreError) -> str:
    if isinstance(error, UnavailableError) and error.instance == member.name:
        return describe(error.cause)
    return describe(error)


class Members:
    """Members that are asked one after the other until one has the answer.

    Arguments:
        name: That of the composite, for errors.
        children: In the order in which they are asked.
        misses: How many must say that something is absent for it to be so; by default all.
        hedge: When to ask the next one before the last has answered; `None`: never.
    """

    def __init__(
        self, name: str, members: Iterable[Member], *, misses: int | None = None, hedge: Hedge | None = None
    ) -> None:
        self.name = name
        self.all = tuple(members)
        self.misses = len(self.all) if misses is None else misses
        self.hedge = hedge

    @property
    def high_latency(self) -> bool:
        """Whether asking them is mostly waiting: for a network, or for the end of a timeout."""
        return any(
            member.timeout is not None or (member.source is not None and member.source.high_latency)
            for member in self.all
        )

    def pool(self, pool: Pool | None) -> Pool:
        """Return which of the pools is the one for calls to them; without *pool* one of no threads."""
        if pool is None:
            return Pool(0)
        return pool.io_pool if self.high_latency else pool

    def first(
        self,
        ask: Callable[[Member], T | None],
        *,
        order: Sequence[Member] | None = None,
        late: Callable[[T | None], object] | None = None,
    ) -> Found[T] | None:
        """Return the first answer that is not `None`; `None` if enough children answer `None`.

        Arguments:
            ask: What is asked of each; a `CastoreError` that it raises is noted, and the next one is asked.
            order: Those to ask, if not all in their order.
            late: What to do with an answer that comes when it is not waited for any more.

        Raises the error of a child that is `final`, else what `Votes.decide` says.
        """
        asked = self.all if order is None else order
        if self.hedge is not None and len(asked) > 1:
            found, votes = self.hedge.first(asked, ask, late)
        else:
            found, votes = _in_turn(asked, ask, late)
        if found is None:
            votes.decide(self.name, self.misses)
        return found

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are absent; each member is asked only for what those before it lack.

        Raises as `first` does.
        """
        wanted = set(digests)

        def ask(member: Member, rest: Collection[B3Digest]) -> Mapping[B3Digest, bool]:
            absent = member.service.missing(rest)
            return {digest: True for digest in rest if digest not in absent}

        found, lacking = self.gather(ask, wanted)
        for votes in lacking.values():
            votes.decide(self.name, self.misses)
        return wanted - found.keys()

    def gather(
        self,
        ask: Callable[[Member, Collection[B3Digest]], Mapping[B3Digest, T | CastoreError]],
        digests: Iterable[B3Digest],
        *,
        order: Sequence[Member] | None = None,
    ) -> tuple[dict[B3Digest, Found[T]], dict[B3Digest, Votes]]:
        """Ask the members one after the other, each once, for what those before it lacked or failed.

        Arguments:
            ask: Returns what a member has of some digests: an answer, or what is wrong; what is absent is left
                out. An error that it raises is that of all of them.
            digests: What is asked for.
            order: The members to ask, if not all in their order.

        Returns the answers, and the votes on each digest that nobody had right.

        Raises the error of a member that is `final`.
        """
        found: dict[B3Digest, Found[T]] = {}
        votes: dict[B3Digest, Votes] = {digest: Votes() for digest in digests}
        for member in self.all if order is None else order:
            if not votes:
                break
            rest = list(votes)
            try:
                answers = member.call(partial(ask, member, rest))
            except CastoreError as error:
                if member.final:
                    raise
                answers = dict.fromkeys(rest, error)
            for digest in rest:
                answer = answers.get(digest)
                if answer is None:
                    votes[digest].missed.append(member)
                elif isinstance(answer, CastoreError):
                    if member.final:
                        raise answer
                    votes[digest].faults.append((member, answer))
                else:
                    found[digest] = Found(answer, member, votes.pop(digest))
        return found, votes

    def all_with(self, kind: Callable[..., P]) -> list[tuple[Member, P]] | None:
        """Return each child with its *kind*, `None` if one of them does not have it."""
        found = [(member, member.service.capability(kind)) for member in self.all]
        having = [(member, entry) for member, entry in found if entry is not None]
        return having if len(having) == len(found) else None

    def close(self) -> None:
        """End the threads of deadlines. The services are closed by whoever made them."""
        for member in self.all:
            member.deadlines.close()


def _in_turn(
    members: Sequence[Member], ask: Callable[[Member], T | None], late: Callable[[T | None], object] | None
) -> tuple[Found[T] | None, Votes]:
    votes = _NO_VOTES
    for member in members:
        try:
            answer = member.call(lambda asked=member: ask(asked), late=late)  # type: ignore[misc]
        except CastoreError as error:
            if member.final:
                raise
            votes = Votes() if votes is _NO_VOTES else votes
            votes.faults.append((member, error))
            continue
        if answer is not None:
            return Found(answer, member, votes), votes
        votes = Votes() if votes is _NO_VOTES else votes
        votes.missed.append(member)
    return None, votes
