"""What all services have that keep chunks as zstd frames in an object store."""

from __future__ import annotations

from typing import Literal

from castore.chunks.backend import ChunkBackend
from castore.contract.capabilities import BlobLister, Durable, FrameStore
from castore.format import frames
from castore.format.chunking import DEFAULT_AVG_SIZE, Chunker, FastCdc2020
from castore.threads.pool import Pool
from castore_objectstore.object_store import ObjectStore


class ChunkedStore(ChunkBackend, BlobLister, FrameStore, Durable):
    """The part of a service that is about its object store, its threads, and how blobs are cut.

    Arguments:
        store: Where things are kept; it is closed with the service.
        chunker: Cuts new blobs.
        avg_chunk_size: In bytes.
        compression_level: The zstd level of new chunks.
        pool: Where work is done; by default the service has one of its own.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        chunker: type[Chunker] = FastCdc2020,
        avg_chunk_size: int = DEFAULT_AVG_SIZE,
        compression_level: int = frames.DEFAULT_LEVEL,
        pool: Pool | None = None,
    ) -> None:
        self._store = store
        self._chunker = chunker
        self._avg_chunk_size = avg_chunk_size
        self._level = compression_level
        self._own_pool = Pool() if pool is None else None
        given = pool or self._own_pool or Pool()
        # Where requests mostly wait there can be more of them than cores.
        self._pool = given.io_pool if store.high_latency else given
        self.high_latency = store.high_latency

    @property
    def pool(self) -> Pool:
        """The pool that was given to the service, or its own."""
        return self._pool

    def new_chunker(self) -> Chunker:
        """Return what cuts as the config says."""
        return self._chunker(self._avg_chunk_size)

    @property
    def frame_format(self) -> str:
        """Chunks are stored as zstd frames."""
        return "zstd"

    @property
    def durability(self) -> Literal["process", "full"]:
        """What a blob survives whose writer was closed."""
        return self._store.durability

    @property
    def route(self) -> str:
        """What makes the requests to a bucket."""
        return self._store.route

    def check_usable(self) -> None:
        """Raise `UnavailableError` if it can be seen, without a write, that nothing could be stored."""
        self._store.check_usable()

    def lacks_store(self) -> str | None:
        """Return the place of the store, if none was begun there yet."""
        return self._store.lacks()

    def close(self) -> None:
        """Release the store's connections."""
        if self._own_pool is not None:
            self._own_pool.close()
        self._store.close()
