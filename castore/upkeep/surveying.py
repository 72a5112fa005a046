"""What each store of a composition has of one blob: all are asked at the same time, none without end.

Only whether things are there is asked, never for the bytes of a chunk: `chunks` of the blob, which reads its
index, and whether chunks are there. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, reduce
from itertools import islice
from operator import or_
from typing import Final, TypeVar

import attrs

from castore.composition.composition import Composition
from castore.composition.graph.graph import Instance
from castore.contract.batches import MOST_ITEMS, batches
from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkSource
from castore.contract.chunk_list import ChunkList
from castore.contract.chunk_sets import ChunkSet, ChunkUniverse
from castore.contract.plans import Holding, State
from castore.digest import EMPTY, B3Digest
from castore.errors import BuildError, CastoreError, CorruptBlobError, UnavailableError, describe
from castore.threads.deadlines import CLOCK, Clock, Deadlines, Pending
from castore.threads.waiting import Flag
from castore.upkeep.reading import Attempts, read_blob

T = TypeVar("T")

TIMEOUT: Final = 10.0
"""How long one is waited for, in seconds."""

_AT_ONCE: Final = 2
"""Calls that ask one service for chunks, each for many of them."""

_PIECE: Final = 1 << 20
"""How many bytes of chunks are read at a time."""


def is_asked(instance: Instance) -> bool:
    """Tell whether a service is asked itself: one that refers to no other, or does not explain itself."""
    return not instance.edges or not hasattr(instance.config, "explain")


@attrs.define(eq=False)
class _Asked:
    """What a service has said so far."""

    deadlines: Deadlines
    service: BlobService | None = None
    index: ChunkList | None = None
    distinct: ChunkSet = attrs.field(factory=ChunkSet)
    present: ChunkSet = attrs.field(factory=ChunkSet)
    fault: CastoreError | None = None

    @property
    def silent(self) -> bool:
        """Whether it could not answer."""
        return self.fault is not None and not isinstance(self.fault, CorruptBlobError)

    def holding(self, known: ChunkList, distinct: ChunkSet) -> Holding:
        """Return what it has; *known*, of them *distinct*, are the chunks that the blob has elsewhere."""
        if self.fault is not None:
            corrupt = isinstance(self.fault, CorruptBlobError)
            state: State = "corrupt" if corrupt else "unavailable"
            return Holding(state, known, self.present, corrupt, _cause(self), distinct)
        listed = self.index is not None
        if self.index:
            known, distinct = self.index, self.distinct
        if listed and (not self.index or self.present >= distinct):
            whole = (known, distinct) if self.index else (ChunkList(), ChunkSet())
            return Holding("whole", whole[0], self.present, listed, distinct=whole[1])
        partly = listed or bool(distinct & self.present)
        return Holding("partly" if partly else "absent", known, self.present, listed, distinct=distinct)


class Survey:
    """Asks the stores of *composition* what they have of the blob *digest*, once.

    Arguments:
        composition: Its services are built as far as they are asked.
        digest: The blob, or a chunk.
        instances: Of which only those that are asked themselves matter, see `is_asked`.
        timeout: How long to wait for a service, for its index, and again for what chunks it has.
        clock: What the waiting is done with.
    """

    def __init__(
        self,
        composition: Composition,
        digest: B3Digest,
        instances: Iterable[Instance],
        *,
        timeout: float = TIMEOUT,
        clock: Clock = CLOCK,
    ) -> None:
        self.digest = digest
        self._composition = composition
        self._timeout = timeout
        self._clock = clock
        self._asked = {
            entry.id: _Asked(Deadlines(entry.name, clock=clock)) for entry in instances if is_asked(entry)
        }
        self._instances = composition.graph.instances
        self._ask_for_indexes()
        self._lists = self._different_lists()
        self._known, self._distinct = ChunkList(), ChunkSet()
        if self._lists:
            self._ask_for_chunks(ChunkUniverse(self._lists))
        self.close()

    def holding(self, instance: Instance) -> Holding:
        """Return what an instance that was asked has."""
        return self._asked[instance.id].holding(self._known, self._distinct)

    def close(self) -> None:
        """End the threads, each when it has come back."""
        for asked in self._asked.values():
            asked.deadlines.close()

    # -- the two rounds --

    def _ask_for_indexes(self) -> None:
        calls: dict[str, list[Callable[[], ChunkList | None]]] = {
            key: [partial(self._index_of, self._instances[key], asked)] for key, asked in self._asked.items()
        }
        for key, (index,) in self._collect(calls).items():
            self._asked[key].index = index

    def _index_of(self, instance: Instance, asked: _Asked) -> ChunkList | None:
        service = self._composition.service(instance)
        asked.service = service
        chunks = service.chunks(self.digest)
        if chunks is None or chunks:
            return None if chunks is None else ChunkList.of(chunks)
        source = service.capability(ChunkSource)
        if source is not None and self.digest != EMPTY and not source.has_chunk(self.digest):
            # The index of a blob that is one chunk, and that is gone.
            raise CorruptBlobError("its one chunk is missing", expected=self.digest)
        return ChunkList()

    def _different_lists(self) -> list[ChunkList]:
        """Return the lists that were found; services that have the same one share it from now on."""
        lists: list[ChunkList] = []
        for asked in self._asked.values():
            if asked.index:
                asked.index = next((known for known in lists if known == asked.index), asked.index)
                if not any(known is asked.index for known in lists):
                    lists.append(asked.index)
        return lists

    def _ask_for_chunks(self, universe: ChunkUniverse) -> None:
        sets = [universe.of_list(number) for number in range(len(self._lists))]
        self._known, self._distinct = self._lists[0], sets[0]
        calls = {}
        for key, asked in self._asked.items():
            if asked.index:
                asked.distinct = next(
                    distinct
                    for known, distinct in zip(self._lists, sets, strict=True)
                    if known is asked.index
                )
            # Beside an index that is wrong there may be chunks that are right.
            if asked.service is not None and not asked.silent:
                calls[key] = _parts(asked.service, universe)
        for key, found in self._collect(calls).items():
            self._asked[key].present = reduce(or_, found)

    def _collect(self, calls: Mapping[str, list[Callable[[], T]]]) -> dict[str, list[T]]:
        """Make all calls at the same time; of a service whose calls do not all come back, note why."""
        begun: dict[str, list[Pending[T]]] = {}
        for key, group in calls.items():
            deadlines = self._asked[key].deadlines
            with self._noting(key):
                begun[key] = [deadlines.start(call) for call in group]
        ends = self._clock.now() + self._timeout
        answers: dict[str, list[T]] = {}
        for key, waiting in begun.items():
            with self._noting(key):
                answers[key] = [self._wait(entry, ends) for entry in waiting]
        return answers

    def _wait(self, pending: Pending[T], ends: float) -> T:
        try:
            return pending.result(max(ends - self._clock.now(), 0.0))
        except UnavailableError as error:
            if pending.abandoned:
                raise UnavailableError(error.instance, f"no answer within {self._timeout:g} s") from None
            raise

    def _noting(self, key: str) -> _Noting:
        return _Noting(self._asked[key], self._instances[key].name)

    # -- reading what is there --

    def verify(self, instance: Instance) -> CastoreError | None:
        """Read what a service has of the blob, and check every byte; return what is wrong, if anything is.

        It may take as long as it does, but no single piece longer than the timeout.
        """
        asked = self._asked[instance.id]
        service, holding = asked.service, self.holding(instance)
        if asked.fault is not None or service is None:
            return asked.fault
        tick = Flag()
        deadlines = Deadlines(instance.name, clock=self._clock)
        if holding.state == "whole":
            work: Callable[[], object] = partial(read_blob, service, self.digest, lambda _: tick.set())
        else:
            work = partial(_read_chunks, service, holding, tick)
        try:
            pending = deadlines.start(work, then=tick.set)
            while not pending.done and self._clock.wait(tick, self._timeout):
                tick.clear()
            if not pending.done and pending.abandon():
                return UnavailableError(instance.name, f"nothing was read for {self._timeout:g} s")
            if pending.result() is None:
                return UnavailableError(instance.name, "it is gone meanwhile")
        except CastoreError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever a service raises concerns it alone
            return UnavailableError(instance.name, error)
        finally:
            deadlines.close()
        return None


class _Noting:
    """Notes what goes wrong with a service, which concerns it alone."""

    def __init__(self, asked: _Asked, name: str) -> None:
        self._asked = asked
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, Exception):
            return False
        known = isinstance(error, CastoreError)
        self._asked.fault = error if known else UnavailableError(self._name, error)  # type: ignore[assignment]
        return True


def _cause(asked: _Asked) -> str:
    fault: BaseException | str | None = asked.fault
    if isinstance(fault, BuildError):
        fault = fault.cause
    if isinstance(fault, UnavailableError) and fault.instance == asked.deadlines.name:
        fault = fault.cause
    return describe(fault or "")


def _parts(service: BlobService, universe: ChunkUniverse) -> list[Callable[[], ChunkSet]]:
    """Return the calls that find out which chunks are there."""
    every = universe.every()
    parts = _AT_ONCE if len(every) > MOST_ITEMS else 1

    def present(part: int) -> ChunkSet:
        return universe.of_numbers(_present(service, every, part, parts))

    return [partial(present, part) for part in range(parts)]


def _present(service: BlobService, every: ChunkSet, part: int, parts: int) -> Iterator[int]:
    """Yield the numbers of the chunks that are there, of those that are this one's *part* of all."""
    source = service.capability(ChunkSource)
    for numbers in batches(islice(every.numbers(), part, None, parts), lambda _: 0):
        asked = [every.chunks[number].digest for number in numbers]
        there = set(asked) - service.missing(asked) if source is None else source.find_chunks(set(asked))
        yield from (number for number, digest in zip(numbers, asked, strict=True) if digest in there)


def _read_chunks(service: BlobService, holding: Holding, tick: Flag) -> bool | None:
    """Read the chunks that are there; return `None` if one is gone, and raise what is wrong with one."""
    attempt = Attempts(service)
    for batch in batches(holding.present, lambda meta: meta.size, most_bytes=_PIECE):
        found = attempt.chunks({meta.digest: meta.size for meta in batch})
        for meta in batch:
            data = found.get(meta.digest)
            if isinstance(data, CastoreError):
                raise data
            if data is None:
                return None
        tick.set()
    return True
