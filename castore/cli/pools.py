"""The pool of threads of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkSource
from castore.threads.pool import Pool


@contextlib.contextmanager
def pool_of(stores: Composition, size: int | None, *services: BlobService) -> Iterator[Pool]:
    """Return a pool of *size* threads; without one that of the composition, wide for services that wait."""
    if size is None:
        sources = [service.capability(ChunkSource) for service in services]
        high_latency = any(source is not None and source.high_latency for source in sources)
        yield stores.pool.io_pool if high_latency else stores.pool
        return
    with contextlib.closing(Pool(size)) as pool:
        yield pool
