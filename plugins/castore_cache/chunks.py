"""Single chunks through the cache: from near, else from far, kept in near on the way."""

from __future__ import annotations

from typing import TypeAlias

from castore import B3Digest
from castore.contract.capabilities import ChunkSource
from castore.format.frames import check_size
from castore_cache.far import Far
from castore_cache.flights import Flight, Flights
from castore_cache.near import Near
from castore_cache.turns import Turns

Brought: TypeAlias = tuple[bytes | None, bool]
"""The bytes of a chunk, `None` if it is absent, and whether near is known to have it now."""


class CachedChunks(ChunkSource):
    """Reads single chunks from near, else from far, keeping them in near.

    Of those who want a chunk that near lacks at the same time, one asks far.
    """

    def __init__(self, near: Near, far: Far, flights: Flights, turns: Turns) -> None:
        self._near = near
        self._far = far
        self._flights = flights
        self._turns = turns
        self.high_latency = near.high_latency or far.high_latency

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether near or far has a chunk."""
        near = self._near
        found, fault = near.ask(lambda: near.has_chunk(digest))
        if found or self._far.has_chunk(digest):
            return True
        near.settle_absence(fault)
        return False

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk, `None` if neither has it."""
        return self.fetch(digest, size)[0]

    def fetch(self, digest: B3Digest, size: int | None) -> Brought:
        """Return a chunk, and whether near is known to have it now."""
        near = self._near
        landed = self._flights.landed
        data, fault = near.ask(lambda: near.get(digest, size))
        if data is not None:
            return data, True
        near.clear(digest, fault)
        data, kept = self._flights.join(
            digest,
            lambda flight: self._bring(flight, digest, size, landed),
            lambda: (self._far.get(digest, size), False),
        )
        if data is None:
            near.settle_absence(fault)
        else:
            check_size(digest, len(data), size)
        return data, kept

    def _bring(self, flight: Flight[Brought], digest: B3Digest, size: int | None, landed: int) -> Brought:
        def bring() -> Brought:
            data = self._far.get(digest, size)
            # Who waits need not wait for near as well.
            flight.give((data, False))
            return data, data is not None and self._near.keep(digest, data)

        # Since near was asked somebody else may have brought it.
        late = self._flights.landed != landed
        return self._turns.take(digest, look=lambda: self.look(digest, size), bring=bring, spare=late)

    def look(self, digest: B3Digest, size: int | None) -> Brought | None:
        """Return a chunk that somebody else has brought to near by now."""
        near, place = self._near, self._near.place
        data = near.peek(lambda: near.get(digest, size))
        if data is None and place is not None:
            data = near.peek(lambda: place.find_unsettled(digest, size))
            if data is not None:
                return data, False
            # Between the two questions it may have settled.
            data = near.peek(lambda: near.get(digest, size))
        return None if data is None else (data, True)

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where far keeps a chunk."""
        return None if self._far.source is None else self._far.source.chunk_key(digest)
