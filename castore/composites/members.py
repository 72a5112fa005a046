"""The members of a service over several others, asked in turn so that none is taken at less than its word.

What they say together is decided by one rule. A hit anywhere wins. If there is none, one that is corrupt is
the answer, unless another member could not answer: then a good copy may be there, and the answer is not
known. The blob is absent only when enough members said so. Of many things each is decided by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

import attrs

from castore.composites.wrong_indexes import WrongIndexes
from castore.contract.batches import MOST_UNKNOWN
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource
from castore.errors import BadIndexError, CastoreError, CorruptBlobError, UnavailableError, describe
from castore.threads.deadlines import CLOCK, Clock, Deadlines, Pending
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from castore.composites.hedging import Hedge
    from castore.digest import B3Digest

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
P = TypeVar("P")

_ITEMS_IN_TIME: Final = 64
_BYTES_IN_TIME: Final = 4 << 20


def periods(items: int = 1, size: int = 0) -> int:
    """Return how many times its timeout a call may take, for *items* of *size* bytes together.

    Once for each 64 items, or 4 MiB, that are begun.
    """
    return max(-(-items // _ITEMS_IN_TIME), -(-size // _BYTES_IN_TIME), 1)


def periods_of(sizes: Iterable[int | None]) -> int:
    """Return the same for items of these sizes in bytes; `None` stands for one that is not known."""
    known = [MOST_UNKNOWN if size is None else size for size in sizes]
    return periods(len(known), sum(known))


@attrs.frozen
class MemberHealth:
    """How a member has been doing."""

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


@attrs.frozen
class Begun(Generic[T]):
    """A call that was begun on another thread, to be collected or dropped, once."""

    result: Callable[[], T]
    """Waits for what the call returns, or raises."""
    drop: Callable[[], object]
    """Gives the call up: it uses nothing of the caller any more, and what comes of it is ignored."""


class Member:
    """One of the services, by its name, and how long it may take.

    Arguments:
        name: Names it in errors: that of its instance.
        service: What is asked.
        timeout: How long one call may take, in seconds; `None`: without end. A call is a question, a chunk or
            a piece read, a piece written, or the closing of a blob. One for many things may take as long for
            each 64 things, or 4 MiB, that are begun.
        final: Whether its error is the answer, so that the members after it are not asked.
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
        self.wrong = WrongIndexes()
        """What it has of blobs and is not believed any more."""

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Return its list of the chunks of a blob; raise `BadIndexError` for one known to be wrong."""
        chunks = self.service.chunks(digest)
        if chunks and self.wrong.has(digest, chunks):
            raise self.wrong_index(digest)
        return chunks

    def wrong_index(self, digest: B3Digest) -> BadIndexError:
        """Return the error for what it has of a blob, if that is not the blob."""
        return BadIndexError(f"`{self.name}` has a wrong index of blob {digest}", expected=digest)

    def call(
        self,
        what: Callable[[], T],
        *,
        late: Callable[[T | None], object] | None = None,
        periods: int = 1,
    ) -> T:
        """Return what *what* returns; raises `UnavailableError` if it takes too long.

        *late*: see `castore.threads.deadlines`; *periods*: how many times the timeout it may take.
        """
        try:
            if self.timeout is None:
                answer = what()
            else:
                answer = self.deadlines.call(what, self.timeout * periods, late=late)
        except CastoreError as error:
            self.note(error)
            raise
        self.failures = 0
        return answer

    def begin(
        self,
        what: Callable[[], T],
        pool: Pool | None,
        *,
        late: Callable[[T | None], object] | None = None,
        periods: int = 1,
    ) -> Begun[T]:
        """Start a call on another thread; what waits for it raises as `call` does.

        Without a *pool* the thread that waits does it. With a timeout the thread is in no case one of the
        pool: what hangs must not use them up.
        """
        if self.timeout is None and pool is None:
            return Begun(lambda: self.call(what), lambda: None)
        if self.timeout is None:
            assert pool is not None
            task = pool.submit(what)
            return Begun(lambda: self.call(task.result), task.drop)
        try:
            pending = self.deadlines.start(what, late=late)
        except UnavailableError as error:
            return Begun(partial(self._refuse, error), lambda: None)
        clock = self.deadlines.clock
        seconds = self.timeout * periods
        ends = clock.now() + seconds

        def collect() -> T:
            try:
                answer = pending.result(max(ends - clock.now(), 0.0))
            except CastoreError as error:
                told: CastoreError = error
                if pending.abandoned:
                    # What was left of the time is not what it was given.
                    told = UnavailableError(self.name, f"no answer within {seconds:g} s")
                self.note(told)
                raise told from error.__cause__
            self.failures = 0
            return answer

        return Begun(collect, partial(give_up, pending, late))

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


def give_up(pending: Pending[T], late: Callable[[T | None], object] | None) -> None:
    """Abandon a call; what it has returned already is late, too."""
    if not pending.abandon() and late is not None:
        with contextlib.suppress(Exception):
            late(pending.result())


@attrs.frozen(slots=True)
class Found(Generic[T]):
    """An answer, the member that gave it, and what the members asked before had to say."""

    value: T
    member: Member
    votes: Votes


class Votes:
    """What was said by members that did not have what was asked for.

    Attributes:
        missed: Those that say it is absent.
        faults: Those that failed, or have it but not as it should be, with their errors.
        final: The error that is the answer, whatever others would say; `None` if there is none.
    """

    def __init__(self) -> None:
        self.missed: list[Member] = []
        self.faults: list[tuple[Member, CastoreError]] = []
        self.final: CastoreError | None = None

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
        if self.final is not None:
            raise self.final
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
    """Return the error of a composite whose members have failed, with each of them and its cause."""
    said = "; ".join(f"`{member.name}`: {_cause(member, error)}" for member, error in faults)
    return UnavailableError(instance, said, causes={member.name: error for member, error in faults})


def _cause(member: Member, error: CastoreError) -> str:
    if isinstance(error, UnavailableError) and error.instance == member.name:
        return describe(error.cause)
    return describe(error)


Ask = Callable[[Member, Collection[K]], "Mapping[K, T | CastoreError | None]"]
"""Asks a member for some things; returns an answer for each, or what is wrong with it. What is absent is left
out, or `None`. An error that it raises is that of all of them."""


class Poll(Generic[K, T]):
    """Some things that members are asked for, and what has been said of each so far."""

    def __init__(self, things: Iterable[K]) -> None:
        self.open: dict[K, Votes] = dict.fromkeys(things, _NO_VOTES)
        """Those that have no answer yet."""
        self.found: dict[K, Found[T]] = {}
        self.ended: dict[K, Votes] = {}
        """Those of which nobody else is to be asked."""

    def note(self, member: Member, answers: Mapping[K, T | CastoreError | None], asked: Iterable[K]) -> None:
        """Take in what a member says of those that it was *asked* for."""
        for thing in asked:
            votes = self.open.get(thing)
            if votes is None:
                continue  # Another member was faster.
            answer = answers.get(thing)
            if answer is not None and not isinstance(answer, CastoreError):
                self.found[thing] = Found(answer, member, votes)
                del self.open[thing]
                continue
            if votes is _NO_VOTES:
                votes = self.open[thing] = Votes()
            if answer is None:
                votes.missed.append(member)
                continue
            votes.faults.append((member, answer))
            if member.final:
                votes.final = answer
                self.ended[thing] = self.open.pop(thing)

    def note_fault(self, member: Member, error: CastoreError, asked: Iterable[K]) -> None:
        """Take in that a call has failed."""
        things = list(asked)
        self.note(member, dict.fromkeys(things, error), things)

    @property
    def lacking(self) -> dict[K, Votes]:
        """Those that nobody had right, with the votes on each."""
        return {**self.ended, **self.open}


class Members:
    """Members that are asked one after the other until one has the answer.

    Arguments:
        name: That of the composite, for errors.
        members: In the order in which they are asked.
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
        """Return the first answer that is not `None`; `None` if enough members answer `None`.

        Arguments:
            ask: What is asked of each; a `CastoreError` that it raises is noted, and the next one is asked.
            order: Those to ask, if not all in their order.
            late: What to do with an answer that comes when it is not waited for any more.

        Raises the error of a member that is `final`, else what `Votes.decide` says.
        """
        poll: Poll[None, T] = Poll((None,))
        released = None if late is None else (lambda said: late(None if said is None else said[None]))
        self._hold(poll, lambda member, _: {None: ask(member)}, order, late=released)
        for votes in poll.lacking.values():
            votes.decide(self.name, self.misses)
        return poll.found.get(None)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are absent; each member is asked only for what those before it lack.

        Raises as `first` does.
        """
        wanted = set(digests)

        def ask(member: Member, rest: Collection[B3Digest]) -> Mapping[B3Digest, bool]:
            return dict.fromkeys(set(rest) - member.service.missing(set(rest)), True)

        found, lacking = self.gather(ask, wanted)
        for votes in lacking.values():
            votes.decide(self.name, self.misses)
        return wanted - found.keys()

    def gather(
        self,
        ask: Callable[[Member, Collection[K]], Mapping[K, T | CastoreError]],
        things: Iterable[K],
        *,
        order: Sequence[Member] | None = None,
        periods_for: Callable[[Collection[K]], int] = lambda rest: periods(len(rest)),
    ) -> tuple[dict[K, Found[T]], dict[K, Votes]]:
        """Ask the members one after the other, each once, for what those before it lacked or failed.

        Arguments:
            ask: See `Ask`.
            things: What is asked for.
            order: The members to ask, if not all in their order.
            periods_for: Returns how many times its timeout a member may take for some of them.

        Returns the answers, and the votes on each thing that nobody had right.
        """
        poll: Poll[K, T] = Poll(things)
        self._hold(poll, partial(_answered, ask), order, periods_for)
        return poll.found, poll.lacking

    def _hold(
        self,
        poll: Poll[K, T],
        ask: Ask[K, T],
        order: Sequence[Member] | None,
        periods_for: Callable[[Collection[K]], int] = lambda _: 1,
        late: Callable[[Any], object] | None = None,
    ) -> None:
        asked = self.all if order is None else order
        if self.hedge is not None and len(asked) > 1:
            self.hedge.hold(poll, asked, ask, periods_for, late)
            return
        for member in asked:
            if not poll.open:
                return
            rest = list(poll.open)
            try:
                answers = member.call(partial(ask, member, rest), late=late, periods=periods_for(rest))
            except CastoreError as error:
                poll.note_fault(member, error, rest)
            else:
                poll.note(member, answers, rest)

    def all_with(self, kind: Callable[..., P]) -> list[tuple[Member, P]] | None:
        """Return each member with its *kind*, `None` if one of them does not have it."""
        found = [(member, member.service.capability(kind)) for member in self.all]
        having = [(member, entry) for member, entry in found if entry is not None]
        return having if len(having) == len(found) else None

    def close(self) -> None:
        """End the threads of deadlines. The services stay open."""
        for member in self.all:
            member.deadlines.close()


def _answered(
    ask: Callable[[Member, Collection[K]], Mapping[K, T | CastoreError]],
    member: Member,
    rest: Collection[K],
) -> Mapping[K, T | CastoreError]:
    """Ask; raise if the member could answer nothing, so that it counts as failing."""
    answers = ask(member, rest)
    if len(answers) == len(rest) and all(map(_is_fault, answers.values())):
        raise next(answer for answer in answers.values() if isinstance(answer, CastoreError))
    return answers


def _is_fault(answer: object) -> bool:
    return isinstance(answer, CastoreError) and not isinstance(answer, CorruptBlobError)
