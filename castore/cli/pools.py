"""The pool of threads of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkSource
from castore.threads.pool import Workers


@contextlib.contextmanager
def pool_of(stores: Composition, size: int | None, *services: BlobService) -> Iterator[Workers]:
    """Return a pool of *size* threads; without one that of the composition, wide for services that wait."""
    if size is None:
        sources = [service.capability(ChunkSource) for service in services]
        waits = any(source is not None and source.waits for source in sources)
        yield stores.workers.wide if waits else stores.workers
        return
    with contextlib.closing(Workers(size)) as pool:
        yield pool
