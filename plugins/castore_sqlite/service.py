"""Blobs as rows of one SQLite file: chunks as zstd frames, and the indexes of blobs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

from castore import B3Digest, ChunkMeta, UnavailableError
from castore.chunks.backend import ChunkBackend
from castore.contract.capabilities import (
    BlobLister,
    ChunkStore,
    Durable,
    FoundChunks,
    FrameStore,
    SharedPlace,
)
from castore.contract.refs import RefService
from castore.contract.upkeep import DigestRange, Evictable, ItemKind, StoredItem, Sweepable
from castore.digest import EMPTY
from castore.errors import BadIndexError, CastoreError, CorruptBlobError
from castore.format import frames
from castore.format.chunking import DEFAULT_AVG_SIZE, MAX_CHUNK_SIZE, Chunker, FastCdc2020
from castore.threads.pool import Pool
from castore.threads.process_locks import FolderOfLocks, FolderOfMarks
from castore_sqlite import keeping, rows
from castore_sqlite.database import Database
from castore_sqlite.group_commit import GroupCommit, Transaction
from castore_sqlite.leases import leases_of
from castore_sqlite.refs import SqliteRefService

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")

_log: Final = logging.getLogger("castore_sqlite")

_BEING_FILLED: Final = "-being-filled"
"""What the folder of locks is called after the file."""


class SqliteBlobService(
    ChunkBackend,
    BlobLister,
    FrameStore,
    Sweepable,
    Evictable,
    SharedPlace,
    Durable,
):
    """Keeps blobs as chunks in a `Database`.

    A chunk waits in memory until it is committed with others, at the latest with the index of its blob;
    readers of this service find it meanwhile. A row is never torn: a transaction is in the file as a whole,
    or not at all. A writer replaces no chunk that is there, and an index if it has another list.

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
        self._leases = leases_of(database.path)
        self._locks = FolderOfLocks(f"{database.path}{_BEING_FILLED}")
        self._marks: dict[str, FolderOfMarks] = {
            folder.folder: folder for folder in (self._leases, self._locks)
        }
        self._chunker = chunker
        self._avg_chunk_size = avg_chunk_size
        self._level = compression_level
        self._own_pool = Pool() if pool is None else None
        self._pool = pool or self._own_pool or Pool()

    @property
    def pool(self) -> Pool:
        """The pool that was given to the service, or its own."""
        return self._pool

    def new_chunker(self) -> Chunker:
        """Return what cuts as the config says."""
        return self._chunker(self._avg_chunk_size)

    def chunk_key(self, digest: B3Digest) -> str:
        """Return the file and the key of a chunk."""
        return self._key("chunks", digest)

    def index_key(self, digest: B3Digest) -> str:
        """Return the file and the key of the index of a blob."""
        return self._key("indexes", digest)

    def _key(self, table: str, digest: B3Digest) -> str:
        return f"{self._database.path}: {table}/{digest}"

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability; refs are in a table of their own."""
        return cast("P", SqliteRefService(self._database)) if kind is RefService else super().capability(kind)

    # -- blobs --

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are neither index nor chunk, with a query for some hundreds of them."""
        wanted = set(digests)
        absent = wanted - self._group.find_all(wanted).keys()
        for query, group in rows.queries(rows.FIND, tuple(absent)):
            absent.difference_update(B3Digest(found) for (found,) in self._database.fetch(query, group))
        return absent

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Read and check the index of a blob; a chunk, too, is a blob with no finer chunks."""
        found = self._database.fetch(rows.GET_INDEX, rows.one(digest))
        if found and found[0][0] == b"":
            return ()  # as mostly
        if found:
            return rows.read_index(self._database.fetch, digest, found[0][0], self.index_key(digest))
        return () if self.find_chunks((digest,)) else None

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every index."""
        return keeping.list_digests(self._database)

    def complete(self, digits: str) -> Iterator[B3Digest]:
        """Yield the indexes and chunks that begin with *digits*, by the order of their digests."""
        return keeping.find_between(self._database, digits.ljust(64, "0"), digits.ljust(64, "f"))

    # -- chunks --

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that have a row, or wait to get one."""
        wanted = set(digests)
        found = self._group.find_all(wanted).keys()
        return found | self._times_of(wanted - found).keys()

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks, unpacked within bounds and checked."""
        found: FoundChunks = {}
        for digest, frame in self._frames_of(sizes):
            if isinstance(frame, CastoreError):
                found[digest] = frame
                continue
            try:
                found[digest] = frames.decode_chunk(
                    frame, digest, size=sizes[digest], key=self.chunk_key(digest)
                )
            except CorruptBlobError as error:
                found[digest] = error
        return found

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Compress chunks together, and let them wait to be committed with others."""
        packed = frames.compress_each(list(chunks.values()), self._level)
        self._group.add(dict(zip(chunks, packed, strict=True)))

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Claim several with one query, and one transaction for those whose times are not recent."""
        wanted = set(digests)
        claimed = set(self._group.find_all(wanted))
        times = self._times_of(wanted - claimed)
        is_fresh = rows.freshness()
        stale = [digest for digest, time in times.items() if not is_fresh(time)]
        claimed.update(times.keys() - stale)
        if stale:
            with self._database.writing(lasting=False) as connection:
                claimed |= rows.renew(connection, "chunks", stale)
        return claimed

    def _times_of(self, digests: Iterable[B3Digest]) -> dict[B3Digest, object]:
        """Return the times of those chunks that have rows."""
        return {
            B3Digest(digest): time
            for query, group in rows.queries(rows.FIND_TIMES, digests)
            for digest, time in self._database.fetch(query, group)
        }

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Claim several with one query, and one more for chunks that are not as recent as their index."""
        needs: dict[B3Digest, set[B3Digest]] = {}
        stale: list[B3Digest] = []
        # Many small blobs are asked for together: of each of these there is one chunk, itself.
        whole: set[B3Digest] = set()
        alone: set[B3Digest] = set()
        is_fresh = rows.freshness()
        asked = {digest: digest for digest in blobs}
        for query, group in rows.queries(rows.FIND_WITH_CHUNKS, blobs):
            for found, modified, index, modified_chunk in self._database.fetch(query, group):
                digest = asked[found]
                known = blobs[digest]
                if index == b"" and not known and digest != EMPTY:
                    (whole if is_fresh(modified_chunk) else alone).add(digest)
                    if not is_fresh(modified):
                        stale.append(digest)
                    continue
                if known is not None and not rows.is_list(self._database.fetch, digest, index, known):
                    continue
                with contextlib.suppress(BadIndexError):
                    chunks = rows.read_index(self._database.fetch, digest, index, None)
                    needs[digest] = {meta.digest for meta in chunks} or {digest} - {EMPTY}
                    if not is_fresh(modified):
                        stale.append(digest)
        there = self.claim(alone.union(*needs.values()))
        whole |= alone & there
        whole |= {digest for digest, needed in needs.items() if needed <= there}
        if stale:
            with self._database.writing(lasting=False) as connection:
                whole -= set(stale) - rows.renew(connection, "indexes", stale)
        return whole

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible in one transaction with all chunks that wait; it lasts, even without any."""
        self._group.commit(blobs)

    def _commit(self, batch: Transaction) -> None:
        with self._database.writing(lasting=batch.lasting) as connection:
            rows.put_chunks(connection, batch.frames)
            rows.put_indexes(connection, batch.indexes)

    # -- frames --

    @property
    def frame_format(self) -> str:
        """Chunks are stored as zstd frames."""
        return "zstd"

    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        """Return the frames of chunks, unchecked."""
        known = digests if isinstance(digests, Mapping) else {}
        wanted = list(dict.fromkeys(digests))
        # One alone may be as large as any.
        default = MAX_CHUNK_SIZE if len(wanted) == 1 else None
        sizes = {digest: size if isinstance(size := known.get(digest), int) else default for digest in wanted}
        return dict(self._frames_of(sizes))

    def _frames_of(
        self, sizes: Mapping[B3Digest, int | None]
    ) -> Iterator[tuple[B3Digest, bytes | CastoreError]]:
        """Yield the frames of those that are there, or the error of one that is too long."""
        waiting = self._group.find_all(sizes)
        yield from waiting.items()
        rest = {digest: size for digest, size in sizes.items() if digest not in waiting}
        for query, parameters in rows.queries_for_frames(rest):
            for found, frame in self._database.fetch(query, parameters):
                digest = B3Digest(found)
                if frame is None:
                    yield digest, frames.too_long(digest, rest.get(digest), key=self.chunk_key(digest))
                else:
                    yield digest, rows.as_bytes(frame)

    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        """Let the frames of chunks wait to be committed with others."""
        self._group.add({digest: bytes(frame) for digest, frame in frames.items()})

    # -- looking after the file --

    @property
    def durability(self) -> Literal["process", "full"]:
        """What a blob survives whose writer was closed."""
        return self._database.durability

    def list_items(self) -> Iterator[StoredItem]:
        """Yield every index, then every chunk, by the keys `indexes/<digest>` and `chunks/<digest>`.

        Then the files of the dead beside the database.
        """
        yield from self.stored_items()
        yield from self._dead()

    def list_items_in(self, part: DigestRange) -> Iterator[StoredItem]:
        """Yield those in a range; the files of the dead are in the first one."""
        self._group.commit()
        yield from keeping.list_items_in(self._database, part)
        if part.first is None:
            yield from self._dead()

    def _dead(self) -> Iterator[StoredItem]:
        for folder in self._marks.values():
            with self._reporting():
                dead = list(folder.dead())
            yield from (
                StoredItem("residue", f"{folder.folder}/{mark.name}", None, 0, mark.modified) for mark in dead
            )

    def set_aside(self, item: StoredItem) -> str:
        """Move a row to the table `quarantine`."""
        self._group.commit()
        return keeping.set_aside(self._database, item)

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Remove rows that are old. Their space is used again; the file does not become smaller."""
        rows_of: list[StoredItem] = []
        for item in items:
            folder, _, name = item.key.rpartition("/")
            if folder not in self._marks:
                rows_of.append(item)
                continue
            with self._reporting():
                gone = self._marks[folder].remove_dead(name, older_than - self.renewal_seconds)
            if gone:
                yield item
        yield from keeping.sweep(self._database, rows_of, older_than)

    @property
    def renewal_seconds(self) -> float:
        """How old the time of a row may be before a claim renews it."""
        return rows.FRESH_SECONDS

    defers = True
    """What is put waits in memory for a transaction."""

    @property
    def state_folder(self) -> Path:
        """A folder beside the file."""
        return self._database.path.with_name(f"{self._database.path.name}-lru")

    def make_state_folder(self) -> None:
        """Make that folder, where the file may be made."""
        self._database.make_place()
        super().make_state_folder()

    def lacks_store(self) -> str | None:
        """Return the path of the file, if there is none yet."""
        return self._database.lacks()

    def stored_items(self) -> Iterator[StoredItem]:
        """Yield every index, then every chunk."""
        self._group.commit()
        yield from keeping.list_items(self._database)

    def find_items(self, kind: ItemKind, digests: Iterable[B3Digest]) -> Mapping[B3Digest, StoredItem]:
        """Return what a listing would say of rows, or of chunks that wait to become some."""
        wanted = dict.fromkeys(digests)
        waiting = self._group.find_all(wanted) if kind == "chunk" else {}
        found = {
            digest: StoredItem("chunk", keeping.key_of("chunk", digest), digest, len(frame))
            for digest, frame in waiting.items()
        }
        for item in keeping.find_items(self._database, kind, [d for d in wanted if d not in found]):
            if item.digest is not None:
                found[item.digest] = item
        return found

    def remove(self, items: Iterable[StoredItem]) -> None:
        """Remove rows. Their space is used again; the file does not become smaller."""
        self._group.commit()
        keeping.remove(self._database, items)

    def chunk_bound(self, size: int) -> int:
        """Return the size of a frame of that many bytes that cannot be compressed."""
        return frames.bound(size)

    def flush(self) -> None:
        """Commit what waits."""
        self._group.commit()

    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        """Keep a locked file beside the database, unless what is young is spared anyway."""
        return contextlib.nullcontext(self) if brief else self._leased()

    @contextlib.contextmanager
    def _leased(self) -> Iterator[ChunkStore]:
        with contextlib.ExitStack() as stack:
            with self._reporting():
                self._database.make_place()
                stack.enter_context(self._leases.take())
            yield self

    def leased_since(self) -> float | None:
        """Return the time of the oldest locked file beside the database."""
        with self._reporting():
            return self._leases.oldest()

    @contextlib.contextmanager
    def try_alone(self, digests: Collection[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        """Lock files in a folder beside the database; in the end commit what waits."""
        with contextlib.ExitStack() as stack:
            with self._reporting():
                self._database.make_place()
                alone = stack.enter_context(self._locks.try_each(digests))
            yield alone
            if alone:
                self._group.commit()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnavailableError(self._database.instance, error) from error

    def close(self) -> None:
        """Commit what waits, and close the connections.

        What waits is no part of a blob that anybody was told of: that it cannot be kept is no error.
        """
        if self._own_pool is not None:
            self._own_pool.close()
        told = self._group.told
        try:
            self._group.commit()
        except UnavailableError as error:
            _log.log(
                logging.DEBUG if told else logging.WARNING,
                "chunks that are of no blob are dropped: %s",
                error,
            )
        finally:
            self._database.close()
