"""The far service as a cache uses it: whether its failure is an error, or a miss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

from castore import B3Digest, BlobService, CastoreError, UnavailableError
from castore.chunks.fetching import find_in
from castore.composites.remarks import Remarks
from castore.contract.batches import MOST_UNKNOWN
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.threads import forks

T = TypeVar("T")

_log: Final = logging.getLogger("castore_cache")


class Far:
    """The far service.

    Arguments:
        service: The service.
        name: That of the cache, for what is logged.
        as_miss: Whether a question about a blob that far cannot answer is answered as if it lacked the blob.
            Where a blob is known to be there, as in the middle of reading it, a failure remains one.
    """

    def __init__(self, service: BlobService, name: str, *, as_miss: bool = False) -> None:
        self.service = service
        self.source = service.capability(ChunkSource)
        self.high_latency = self.source is not None and self.source.high_latency
        self._name = name
        self._as_miss = as_miss
        self._lock = forks.new_lock()
        self._remarks = Remarks(_log)
        self.errors = 0
        """How often it failed when it was asked about a blob."""

    def ask(self, call: Callable[[], T], miss: T) -> T:
        """Return what *call* returns; if far is unavailable raise that, or return *miss*."""
        try:
            return call()
        except UnavailableError as fault:
            self._note(fault)
            if not self._as_miss:
                raise
            return miss

    def _note(self, fault: CastoreError) -> None:
        with self._lock:
            self.errors += 1
        if self._as_miss:
            self._remarks.warn("`%s`: far failed, which is taken for a miss: %s", self._name, fault)

    def find_chunks(self, digests: Collection[B3Digest]) -> set[B3Digest]:
        """Return the chunks that far has; raises what far raises."""
        if self.source is None:
            return set(digests) - self.service.missing(digests)
        return self.source.find_chunks(digests)

    def find(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks, or why each could not be had.

        Of a chunk whose size is known there is an index, so that the blob is there, and a failure no miss.
        """
        try:
            found = find_in(self.service, self.source, sizes, most=MOST_UNKNOWN)
        except CastoreError as fault:
            found = dict.fromkeys(sizes, fault)
        missed = {
            digest: data
            for digest, data in found.items()
            if sizes[digest] is None and isinstance(data, UnavailableError)
        }
        if missed:
            self._note(next(iter(missed.values())))
            if self._as_miss:
                return {digest: data for digest, data in found.items() if digest not in missed}
        return found
