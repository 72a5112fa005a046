"""What a service keeps, in numbers: how many blobs, how many bytes they mean, how many bytes they take.

Each index is read, and each blob that is one chunk, for no list says how large that is. Which chunks were met
is noted in a temporary file, so that memory does not grow with the service.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import ClassVar, Final, Self

import attrs

from castore.contract.blobs import BlobReader, BlobService
from castore.contract.capabilities import BlobLister
from castore.contract.upkeep import Inventory, StoredItem
from castore.digest import B3Digest
from castore.errors import CastoreError, UnavailableError, UnsupportedError
from castore.threads.pool import Pool, process_pool
from castore.upkeep.reading import MOST_UNAVAILABLE, Attempts, labelled

_BATCH: Final = 256


class NoRoomError(CastoreError):
    """The temporary file for what was counted cannot be written."""

    code: ClassVar[str] = "no-room"


@attrs.frozen
class Totals:
    """What a service keeps. What is stored is `None` for services that do not list it item by item.

    Attributes:
        blobs: How many there are.
        blob_bytes: The bytes of all of them together, as readers get them.
        unreadable: How many more there are whose size could not be found out.
        chunks: How many different ones the blobs are made of.
        chunk_bytes: The bytes of these before compression.
        used_bytes: The bytes that these take.
        loose_chunks: How many chunks no blob here is made of: garbage, or parts of what is being written.
        loose_bytes: The bytes that those take.
        index_bytes: The bytes that the indexes take.
        other_bytes: The bytes that residue takes.
    """

    blobs: int
    blob_bytes: int
    unreadable: int
    chunks: int
    chunk_bytes: int
    used_bytes: int | None = None
    loose_chunks: int | None = None
    loose_bytes: int | None = None
    index_bytes: int | None = None
    other_bytes: int | None = None

    @property
    def stored_bytes(self) -> int | None:
        """All bytes that are stored."""
        parts = (self.used_bytes, self.loose_bytes, self.index_bytes, self.other_bytes)
        return None if None in parts else sum(part or 0 for part in parts)

    @property
    def deduplication(self) -> float | None:
        """How many times the bytes of the different chunks there are in the blobs; `None` without any."""
        return self.blob_bytes / self.chunk_bytes if self.chunk_bytes else None

    @property
    def compression(self) -> float | None:
        """How many times what these chunks take they have before; `None` if that is not known."""
        return self.chunk_bytes / self.used_bytes if self.used_bytes else None


def total(
    service: BlobService,
    *,
    pool: Pool | None = None,
    progress: Callable[[int], object] | None = None,
) -> Totals:
    """Return what a service keeps, in numbers.

    Arguments:
        service: One with an `Inventory`, or at least a `BlobLister`; for others `UnsupportedError` is raised.
        pool: What reads indexes; by default the pool of the process.
        progress: Called for each blob, with its size in bytes.

    What is written or removed meanwhile may or may not be counted. Raises `UnavailableError` if the service
    does not answer any more, and `NoRoomError` if the folder for temporary files is full.
    """
    inventory = service.capability(Inventory)
    lister = service.capability(BlobLister)
    with _Seen() as seen:
        count = _Count(service, seen, pool or process_pool(), progress or _ignore)
        if inventory is not None:
            return count.of_items(inventory.list_items())
        if lister is not None:
            return count.of_blobs(lister.list_blobs())
    raise UnsupportedError("this service lists neither what it stores nor its blobs")


def _ignore(count: int) -> None:
    pass


@attrs.define(eq=False)
class _Count:
    """The numbers so far."""

    _service: BlobService
    _seen: _Seen
    _pool: Pool
    _progress: Callable[[int], object]
    _blobs: int = 0
    _bytes: int = 0
    _unreadable: int = 0
    _unanswered: int = 0

    def of_blobs(self, digests: Iterable[B3Digest]) -> Totals:
        """Count the blobs of a service that shows no more than these."""
        self._count_blobs(digests)
        return self._totals()

    def of_items(self, items: Iterator[StoredItem]) -> Totals:
        """Count all that is stored: indexes come before chunks, and residue anywhere."""
        stored = {"index": 0, "used": 0, "loose": 0, "residue": 0}
        loose, sizes_known = 0, True
        first_chunk: list[StoredItem] = []

        def indexes() -> Iterator[B3Digest]:
            for item in items:
                if item.kind == "chunk":
                    first_chunk.append(item)
                    return
                stored[item.kind] += item.size or 0
                if item.digest is not None:
                    yield item.digest

        self._count_blobs(indexes())
        for item in chain(first_chunk, items):
            kind: str = item.kind
            if item.digest is not None:
                used = self._seen.has(item.digest)
                kind, loose = "used" if used else "loose", loose + (not used)
            stored[kind] += item.size or 0
            sizes_known = sizes_known and item.size is not None
        totals = attrs.evolve(self._totals(), loose_chunks=loose)
        if not sizes_known:
            return totals
        return attrs.evolve(
            totals,
            used_bytes=stored["used"],
            loose_bytes=stored["loose"],
            index_bytes=stored["index"],
            other_bytes=stored["residue"],
        )

    def _totals(self) -> Totals:
        return Totals(self._blobs, self._bytes, self._unreadable, *self._seen.totals())

    def _count_blobs(self, digests: Iterable[B3Digest]) -> None:
        attempt = Attempts(self._service)
        whole: list[B3Digest] = []
        calls = ((digest, partial(attempt.index, digest)) for digest in digests)
        for digest, index in self._pool.map(labelled, calls):
            if isinstance(index, CastoreError):
                self._note_unreadable(index)
            elif index:
                self._note(sum(meta.size for meta in index))
                self._seen.add((meta.digest, meta.size) for meta in index)
            elif index is not None:
                whole.append(digest)
                if len(whole) == _BATCH:
                    self._count_whole(whole)
                    whole.clear()
        self._count_whole(whole)

    def _count_whole(self, digests: Sequence[B3Digest]) -> None:
        """Count blobs that are a chunk each, or that a service keeps as they are."""
        for digest, answer in self._service.read_many(digests):
            if answer is None:
                continue  # Removed meanwhile.
            if isinstance(answer, CastoreError):
                self._note_unreadable(answer)
                continue
            size = _size_of(answer)
            self._note(size)
            if size:
                self._seen.add([(digest, size)])

    def _note(self, size: int) -> None:
        self._unanswered = 0
        self._blobs += 1
        self._bytes += size
        self._progress(size)

    def _note_unreadable(self, error: CastoreError) -> None:
        self._unreadable += 1
        self._unanswered = self._unanswered + 1 if isinstance(error, UnavailableError) else 0
        if self._unanswered == MOST_UNAVAILABLE:
            raise error  # The rest would fare no better.
        self._progress(0)


def _size_of(answer: bytes | BlobReader) -> int:
    if isinstance(answer, bytes):
        return len(answer)
    with answer:
        return answer.size


class _Seen:
    """The different chunks that were met, in a temporary file of which a few MiB are kept in memory."""

    def __enter__(self) -> Self:
        with self._reporting():
            self._database = sqlite3.connect("", check_same_thread=False)
            self._database.execute("CREATE TABLE chunks(digest BLOB PRIMARY KEY, size INT) WITHOUT ROWID")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, chunks: Iterable[tuple[B3Digest, int]]) -> None:
        with self._reporting():
            self._database.executemany("INSERT OR IGNORE INTO chunks VALUES (?, ?)", chunks)

    def has(self, digest: B3Digest) -> bool:
        with self._reporting():
            return bool(self._database.execute("SELECT 1 FROM chunks WHERE digest = ?", (digest,)).fetchone())

    def totals(self) -> tuple[int, int]:
        """Return how many there are, and the sum of their sizes."""
        with self._reporting():
            count, size = self._database.execute("SELECT count(*), total(size) FROM chunks").fetchone()
        return count, int(size)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise NoRoomError(
                f"cannot write the temporary file of what was counted ({error}); $TMPDIR names another folder"
            ) from error
