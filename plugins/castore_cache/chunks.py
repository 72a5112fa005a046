"""Chunks through the cache: from near, else from far, kept in near on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from castore import B3Digest, CastoreError, CorruptChunkError
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.format.checks import check_size
from castore_cache.far import Far
from castore_cache.flights import Flight, Flights
from castore_cache.near import Near
from castore_cache.turns import ProcessTurns


class Brought(NamedTuple):
    """What became of a chunk that was asked for."""

    data: bytes | CastoreError | None
    """Its bytes, or why they could not be had; `None` if it is absent."""
    kept: bool = False
    """Whether near is known to have it now."""


class CachedChunks(ChunkSource):
    """Reads chunks from near, what it lacks from far, and keeps that in near.

    Each is asked once for all of a batch. Of those who want a chunk that near lacks at the same time, one
    asks far.
    """

    def __init__(self, near: Near, far: Far, flights: Flights, turns: ProcessTurns) -> None:
        self._near = near
        self._far = far
        self._flights = flights
        self._turns = turns
        self.high_latency = near.high_latency or far.high_latency

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that near or far has."""
        near, far = self._near, self._far
        wanted = set(digests)
        found, fault = near.ask(lambda: near.find_chunks(wanted))
        there = set(found or ())
        rest = wanted - there
        if rest:
            there |= far.ask(lambda: far.find_chunks(rest), miss=set())
        if wanted - there:
            near.decide_absence(fault)
        return there

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks; one that near has not as it should be is far's, or near's fault."""
        brought = self.fetch(sizes)
        return {digest: answer.data for digest, answer in brought.items() if answer.data is not None}

    def fetch(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, Brought]:
        """Return what became of each chunk, and whether near is known to have it now."""
        near = self._near
        landed = self._flights.landed
        found, faults = near.find(sizes)
        answers = {digest: Brought(data, kept=isinstance(data, bytes)) for digest, data in found.items()}
        lacking = {digest: size for digest, size in sizes.items() if digest not in answers}
        if not lacking:
            return answers
        near.clear(faults)
        brought = self._flights.join_many(
            lacking,
            lambda led: self._bring(led, lacking, landed),
            lambda late: self._ask_far({digest: lacking[digest] for digest in late}),
        )
        for digest, answer in brought.items():
            if answer.data is None:
                answers[digest] = Brought(self._verdict(faults.get(digest)))
            else:
                answers[digest] = _sized(answer, digest, lacking[digest])
        return answers

    def _verdict(self, fault: CastoreError | None) -> CastoreError | None:
        """Return what it means that far lacks a chunk that near could not give."""
        try:
            self._near.decide_absence(fault)
        except CastoreError as decided:
            return decided
        return None

    def _ask_far(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, Brought]:
        found = self._far.find(sizes)
        return {digest: Brought(found.get(digest)) for digest in sizes}

    def _bring(
        self, led: Mapping[B3Digest, Flight[Brought]], sizes: Mapping[B3Digest, int | None], landed: int
    ) -> dict[B3Digest, Brought]:
        """Bring chunks to near, and give them to those who wait."""

        def give(answers: Mapping[B3Digest, Brought]) -> None:
            for digest, answer in answers.items():
                # One that could not be had is that for this thread alone.
                if not isinstance(answer.data, CastoreError):
                    led[digest].give(answer)

        def land(answers: Mapping[B3Digest, Brought]) -> None:
            # At once: others are waited for before the rest lands.
            self._flights.land({digest: led[digest] for digest in answers})

        def look(digests: Collection[B3Digest]) -> dict[B3Digest, Brought]:
            answers = self.look({digest: sizes[digest] for digest in digests})
            give(answers)
            land(answers)
            return answers

        def bring(digests: Collection[B3Digest]) -> dict[B3Digest, Brought]:
            answers = self._ask_far({digest: sizes[digest] for digest in digests})
            # Who waits need not wait for near as well.
            give(answers)
            came = {digest: answer.data for digest, answer in answers.items() if answer.data is not None}
            kept = self._near.keep({digest: data for digest, data in came.items() if isinstance(data, bytes)})
            answers |= {digest: Brought(came[digest], kept=True) for digest in kept}
            land(answers)
            return answers

        # Since near was asked somebody else may have brought some.
        late = self._flights.landed != landed
        return self._turns.take(led, look=look, bring=bring, spare=late)

    def look(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, Brought]:
        """Return chunks that somebody else has brought to near by now."""
        # In this order: between the two questions some may be flushed.
        waiting = self._near.look_unflushed(sizes)
        answers = {digest: Brought(data) for digest, data in waiting.items()}
        rest = {digest: size for digest, size in sizes.items() if digest not in answers}
        if rest:
            answers |= {digest: Brought(data, kept=True) for digest, data in self._near.look(rest).items()}
        return answers

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where far keeps a chunk."""
        return None if self._far.source is None else self._far.source.chunk_key(digest)


def _sized(answer: Brought, digest: B3Digest, size: int | None) -> Brought:
    """Return a chunk that may have been fetched for another index, or that its size is another one."""
    if isinstance(answer.data, bytes):
        try:
            check_size(digest, len(answer.data), size)
        except CorruptChunkError as error:
            return Brought(error)
    return answer
