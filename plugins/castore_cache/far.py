"""The far service as a cache uses it: whether its failure is an error, or a miss."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from castore import B3Digest, BlobService, ChunkMeta, UnavailableError
from castore.chunks.fetching import find_chunk
from castore.contract.capabilities import ChunkSource
from castore.upkeep.reading import read_chunk

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
        self._lock = threading.Lock()
        self.errors = 0
        """How often it failed when it was asked about a blob."""

    def ask(self, call: Callable[[], T], miss: T) -> T:
        """Return what *call* returns; if far is unavailable raise that, or return *miss*."""
        try:
            return call()
        except UnavailableError as fault:
            with self._lock:
                self.errors += 1
            if not self._as_miss:
                raise
            _log.warning("`%s`: far failed, which is taken for a miss: %s", self._name, fault)
            return miss

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether far has a chunk."""
        return self.service.has(digest) if self.source is None else self.source.has_chunk(digest)

    def get(self, digest: B3Digest, size: int | None) -> bytes | None:
        """Return the checked bytes of a chunk, `None` if far lacks it."""
        if size is None:
            return read_chunk(self.service, self.source, digest)
        return find_chunk(self.service, self.source, ChunkMeta(digest, size))
