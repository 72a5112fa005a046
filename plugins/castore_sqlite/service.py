"""Blobs as rows of one SQLite file: chunks as zstd frames, and the indexes of blobs."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkedReader, ChunkMeta, UnavailableError
from castore.chunks.known_content import find_known
from castore.chunks.small_files import SmallFiles
from castore.chunks.writer import ChunkedWriter
from castore.contract.capabilities import (
    BatchExistence,
    BlobLister,
    ChunkStore,
    Durable,
    Evictable,
    FrameStore,
    SharedPlace,
    StoredItem,
    Sweepable,
)
from castore.contract.inputs import Source
from castore.digest import EMPTY
from castore.errors import BadIndexError, MissingChunkError, SourceError
from castore.format import blob_index, frames
from castore.format.chunking import DEFAULT_AVG_SIZE, Chunker, FastCdc2020
from castore.streams.readers import BytesReader
from castore.threads.pool import Pool
from castore.threads.process_locks import FolderOfLocks
from castore_sqlite import keeping, leases, rows
from castore_sqlite.database import Database
from castore_sqlite.group_commit import Batch, GroupCommit

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BEING_FILLED: Final = "-being-filled"
"""What the folder of locks is called after the file."""

_services: weakref.WeakSet[SqliteBlobService] = weakref.WeakSet()


class SqliteBlobService(
    BlobService,
    BlobLister,
    BatchExistence,
    ChunkStore,
    FrameStore,
    Sweepable,
    Evictable,
    SharedPlace,
    Durable,
):
    """Keeps blobs as chunks in a `Database`.

    A chunk waits in memory until it is committed with others, at the latest with the index of its blob;
    readers of this service find it meanwhile. A row is never torn: a transaction is in the file as a whole,
    or not at all. A writer replaces no chunk that is there, and an index only if it cannot be right.

    It cannot delete blobs: the chunk of a small one has the same digest, and may belong to another, too.
    """

    def __init__(
        self,
        database: Database,
        *,
        chunker: type[Chunker] = FastCdc2020,
        avg_chunk_size: int = DEFAULT_AVG_SIZE,
        compression_level: int = frames.DEFAULT_LEVEL,
        pool: Pool | None = None,
    ) -> None:
        self._database = database
        self._group = GroupCommit(self._commit)
        self._locks = FolderOfLocks(f"{database.path}{_BEING_FILLED}")
        self._chunker = chunker
        self._avg_chunk_size = avg_chunk_size
        self._level = compression_level
        self._own_pool = Pool() if pool is None else None
        self._pool = pool or self._own_pool or Pool()
        _services.add(self)

    def has(self, digest: B3Digest) -> bool:
        """Tell whether there is an index or a chunk of this digest."""
        if self._group.find(digest) is not None:
            return True
        return bool(self._database.fetch(rows.HAS, rows.one(digest)))

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are neither index nor chunk, with a query for some hundreds of them."""
        absent = {digest for digest in set(digests) if self._group.find(digest) is None}
        for query, group in rows.queries(rows.FIND, tuple(absent)):
            absent.difference_update(B3Digest(found) for (found,) in self._database.fetch(query, group))
        return absent

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk."""
        data = self.get_chunk(digest)
        if data is None:
            chunks = self.chunks(digest)
            if chunks is None:
                return None
            if chunks:
                key = self._key("indexes", digest)
                return ChunkedReader(self, chunks, digest=digest, key=key, pool=self._pool)
            # An empty index, so one chunk of this digest; it may have come since it was asked for.
            data = b"" if digest == EMPTY else self.get_chunk(digest)
            if data is None:
                raise MissingChunkError(blob=digest, chunk=digest, key=self.chunk_key(digest))
        return BytesReader(data)

    def open_write(self) -> BlobWriter:
        """Start a new blob, whose chunks are stored while it is written."""
        return self.open_write_to(self)

    def open_write_to(self, store: ChunkStore) -> BlobWriter:
        """Start a blob that is cut as here, and goes to *store*."""
        return ChunkedWriter(store, self._chunker(self._avg_chunk_size), self._pool)

    def put_source(self, source: Source, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file; of one that is there already, and whole, little more is done than to hash it."""
        known = find_known(self, self._chunker(self._avg_chunk_size), source, self._pool)
        if known is None:
            return super().put_source(source, progress)
        digest, size = known
        if progress is not None:
            progress(size)
        return digest

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store many files, small ones together in one transaction."""
        limit = self._chunker(self._avg_chunk_size).min_size
        return SmallFiles(self, self, self._pool, limit=limit).put(paths, progress)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Read and check the index of a blob; a chunk, too, is a blob with no finer chunks."""
        found = self._database.fetch(rows.GET_INDEX, rows.one(digest))
        if found:
            return blob_index.decode(rows.as_bytes(found[0][0]), digest, key=self._key("indexes", digest))
        return () if self.has_chunk(digest) else None

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every index."""
        return keeping.list_digests(self._database)

    # -- chunks --

    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether there is a row for this chunk, or it waits to become one."""
        if self._group.find(digest) is not None:
            return True
        return bool(self._database.fetch(rows.HAS_CHUNK, rows.one(digest)))

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk, unpacked within bounds and checked."""
        frame = self.get_frame(digest)
        if frame is None:
            return None
        return frames.decode_chunk(frame, digest, size=size, key=self.chunk_key(digest))

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Compress a chunk and let it wait to be committed with others."""
        self._group.add(digest, frames.compress(data, self._level))

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Compress chunks together, and let them wait."""
        packed = frames.compress_each(list(chunks.values()), self._level)
        for digest, frame in zip(chunks, packed, strict=True):
            self._group.add(digest, frame)

    def claim_chunk(self, digest: B3Digest) -> bool:
        """Tell whether a chunk is there, and renew its time if that is not recent."""
        if self._group.find(digest) is not None:
            return True
        found = self._database.fetch("SELECT modified FROM chunks WHERE digest = ?", rows.one(digest))
        if not found or rows.is_fresh(found[0][0]):
            return bool(found)
        with self._database.writing(lasting=False) as connection:
            return rows.renew(connection, "chunks", (digest,))

    def claim_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Claim several with one query, and one transaction for those whose times are not recent."""
        wanted = set(digests)
        claimed = {digest for digest in wanted if self._group.find(digest) is not None}
        times = self._times_of(wanted - claimed)
        stale = [digest for digest, time in times.items() if not rows.is_fresh(time)]
        claimed.update(times.keys() - stale)
        if stale:
            with self._database.writing(lasting=False) as connection:
                claimed.update(digest for digest in stale if rows.renew(connection, "chunks", (digest,)))
        return claimed

    def _times_of(self, digests: Iterable[B3Digest]) -> dict[B3Digest, object]:
        """Return the times of those chunks that have rows."""
        return {
            B3Digest(digest): time
            for query, group in rows.queries(rows.FIND_TIMES, digests)
            for digest, time in self._database.fetch(query, group)
        }

    def claim_blob(self, digest: B3Digest) -> bool:
        """Tell whether an index and all of its chunks are there; renew their times and flush if they are."""
        found = self._database.fetch(rows.GET_INDEX, rows.one(digest))
        if not found:
            return False
        try:
            chunks = blob_index.decode(rows.as_bytes(found[0][0]), digest)
        except BadIndexError:
            return False
        needed = {meta.digest for meta in chunks} or {digest} - {EMPTY}
        times = self._times_of(needed)
        stale = [chunk for chunk in needed if not rows.is_fresh(times.get(chunk))]
        with self._database.writing(lasting=True) as connection:
            return rows.renew(connection, "indexes", (digest,)) and rows.renew(connection, "chunks", stale)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible, in one transaction with all chunks that wait."""
        self._group.commit({digest: chunks})

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        """Make several blobs visible in one transaction with all chunks that wait."""
        if blobs:
            self._group.commit(dict(blobs))

    def _commit(self, batch: Batch) -> None:
        with self._database.writing(lasting=bool(batch.indexes)) as connection:
            rows.put_chunks(connection, batch.frames)
            rows.put_indexes(connection, batch.indexes)

    # -- frames --

    @property
    def frame_format(self) -> str:
        """Chunks are stored as zstd frames."""
        return "zstd"

    def get_frame(self, digest: B3Digest) -> bytes | None:
        """Return the frame of a chunk, unchecked."""
        frame = self._group.find(digest)
        if frame is not None:
            return frame
        found = self._database.fetch(rows.GET_CHUNK, rows.one(digest))
        return rows.as_bytes(found[0][0]) if found else None

    def put_frame(self, digest: B3Digest, frame: bytes) -> None:
        """Let the frame of a chunk wait to be committed with others."""
        self._group.add(digest, bytes(frame))

    # -- looking after the file --

    @property
    def durability(self) -> Literal["process", "full"]:
        """What a blob survives whose writer was closed."""
        return self._database.durability

    def list_items(self) -> Iterator[StoredItem]:
        """Yield every index, then every chunk, by the keys `indexes/<digest>` and `chunks/<digest>`."""
        self._group.commit()
        yield from keeping.list_items(self._database)

    def set_aside(self, item: StoredItem) -> str:
        """Move a row to the table `quarantine`."""
        self._group.commit()
        return keeping.set_aside(self._database, item)

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Remove rows that are old. Their space is used again; the file does not become smaller."""
        return keeping.sweep(self._database, items, older_than)

    defers = True
    """What is put waits in memory for a transaction."""

    @property
    def state_folder(self) -> Path:
        """A folder beside the file."""
        return self._database.path.with_name(f"{self._database.path.name}-lru")

    def stored_items(self) -> Iterator[StoredItem]:
        """Yield what `list_items` does."""
        return self.list_items()

    def find_item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem | None:
        """Return what a listing would say of a row, or of a chunk that waits to become one."""
        waiting = self._group.find(digest) if kind == "chunk" else None
        if waiting is not None:
            return StoredItem("chunk", keeping.key_of("chunk", digest), digest, len(waiting))
        return keeping.find_item(self._database, kind, digest)

    def remove(self, items: Iterable[StoredItem]) -> None:
        """Remove rows. Their space is used again; the file does not become smaller."""
        self._group.commit()
        keeping.remove(self._database, items)

    def chunk_bound(self, size: int) -> int:
        """Return the size of a frame of that many bytes that cannot be compressed."""
        return frames.bound(size)

    def settle(self) -> None:
        """Commit what waits."""
        self._group.commit()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep a locked file beside the database."""
        with contextlib.ExitStack() as stack:
            with self._reporting():
                stack.enter_context(leases.held(self._database.path))
            yield

    def held_since(self) -> float | None:
        """Return the time of the oldest locked file beside the database."""
        with self._reporting():
            return leases.held_since(self._database.path)

    @contextlib.contextmanager
    def try_alone(self, digest: B3Digest) -> Iterator[bool]:
        """Lock a file in a folder beside the database, if nobody has; in the end commit what waits."""
        with contextlib.ExitStack() as stack:
            with self._reporting():
                alone = stack.enter_context(self._locks.try_alone(digest))
            yield alone
            if alone:
                self._group.commit()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnavailableError(self._database.instance, error) from error

    def chunk_key(self, digest: B3Digest) -> str:
        """Return the file and the key of a chunk."""
        return self._key("chunks", digest)

    def _key(self, table: str, digest: B3Digest) -> str:
        return f"{self._database.path}: {table}/{digest}"

    def close(self) -> None:
        """Commit what waits, and close the connections."""
        if self._own_pool is not None:
            self._own_pool.close()
        try:
            self._group.commit()
        finally:
            self._database.close()

    def _start_anew(self) -> None:
        self._database.forget()
        # What waits is mere bytes: a writer that was open when the process was forked counts on it.
        self._group = GroupCommit(self._commit, self._group.waiting)


def _after_fork() -> None:
    for service in list(_services):
        service._start_anew()  # noqa: SLF001 - of the class above


os.register_at_fork(after_in_child=_after_fork)
