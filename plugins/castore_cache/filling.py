"""Opening a blob that near lacks: how it is read from far, and what of it stays in near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from castore import B3Digest, BlobReader, ChunkMeta
from castore.composites.failover_reading import SMALL
from castore.streams.checked import wrong_bytes
from castore.streams.readers import BytesReader
from castore.threads import forks
from castore.threads.pool import Pool
from castore.upkeep.reading import read_blob
from castore_cache.chunks import CachedChunks
from castore_cache.copying import CopyingReader
from castore_cache.far import Far
from castore_cache.flights import Flight, Flights
from castore_cache.near import Near, NearCopy
from castore_cache.reading import FillingChunkedReader
from castore_cache.turns import ProcessTurns

Fill: TypeAlias = Literal["none", "chunks", "blob"]
"""What of a blob is kept in near once some of it is read from far."""

_TOO_LARGE: Final = object()
"""In place of the bytes of a blob: they are too many to be handed over."""


class Filler:
    """Opens blobs of far, and fills near with them.

    Arguments:
        near: What is filled.
        far: Where the blobs are.
        chunks: Reads single chunks.
        flights: The requests for bytes on their way.
        indexes: Those for the chunks of a blob.
        turns: Lets one process at a time bring something to near.
        whole: Whether all of a blob is brought to near once some of it is read.
        pool: Where chunks are fetched.
    """

    def __init__(
        self,
        near: Near,
        far: Far,
        chunks: CachedChunks,
        *,
        flights: Flights,
        indexes: Flights,
        turns: ProcessTurns,
        whole: bool,
        pool: Pool,
    ) -> None:
        self._near = near
        self._far = far
        self._chunks = chunks
        self._flights = flights
        self._indexes = indexes
        self._turns = turns
        self._whole = whole
        self._pool = pool
        self._copied = _Copied()

    def open(self, digest: B3Digest, landed: int = -1) -> BlobReader | None:
        """Open a blob of far, or a chunk; `None` if far lacks it. Raises what far raises.

        *landed* is how many flights had when near was found to lack it; without it near is asked again.
        """
        index = self._index_of(digest)
        if index is None:
            return None
        return self._open_unchunked(digest, landed) if not index else self._open_chunked(digest, index)

    def open_by_chunks(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob some bytes of which far lacks, by the chunks that it lists: near may have these."""
        index = self._index_of(digest)
        return self._open_chunked(digest, index, by_place=False) if index else None

    def _index_of(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        def ask() -> Sequence[ChunkMeta] | None:
            return self._far.service.chunks(digest)

        return self._indexes.join(digest, lambda _: ask(), ask)

    def _open_chunked(
        self, digest: B3Digest, index: Sequence[ChunkMeta], *, by_place: bool = True
    ) -> BlobReader:
        return FillingChunkedReader(
            self._near,
            self._chunks,
            self._far.service,
            digest,
            index,
            whole=self._whole and self._near.keeps,
            pool=self._pool,
            by_place=by_place,
        )

    # -- blobs without finer chunks --

    def _open_unchunked(self, digest: B3Digest, landed: int) -> BlobReader | None:
        """Open a blob that far keeps in one piece: a small one is read now, by one of those who want it."""
        opened: list[BlobReader] = []
        # Not the key of a chunk of this digest: who wants that gets another kind of answer.
        found = self._flights.join(
            ("blob", digest),
            lambda flight: self._bring(flight, digest, landed, opened),
            lambda: self._read(digest, opened),
        )
        if isinstance(found, bytes):
            return BytesReader(found, digest)
        if found is None:
            return None
        # Who has looked how large it is has it open already.
        return self._open_large(digest, opened.pop() if opened else None)

    def _bring(
        self, flight: Flight[object], digest: B3Digest, landed: int, opened: list[BlobReader]
    ) -> object:
        def bring() -> object:
            found = self._read(digest, opened)
            flight.give(found)
            if isinstance(found, bytes):
                self._near.keep_blob(digest, found)
            return found

        def look() -> object:
            # In this order: between the two questions it may be flushed.
            waiting = self._near.look_unflushed({digest: None})
            return waiting.get(digest) or self._near.look_for_blob(digest, SMALL)

        return self._turns.take_one(digest, look=look, bring=bring, spare=self._flights.landed != landed)

    def _read(self, digest: B3Digest, opened: list[BlobReader]) -> object:
        """Return the checked bytes of a small blob, `_TOO_LARGE` for another, `None` if it is absent."""
        reader = self._far.service.open_read(digest)
        if reader is None:
            return None
        if reader.size > SMALL:
            opened.append(reader)
            return _TOO_LARGE
        with reader:
            data = reader.read()
        found = B3Digest.of(data)
        if found != digest:
            raise wrong_bytes(digest, found)
        return data

    def _open_large(self, digest: B3Digest, reader: BlobReader | None) -> BlobReader | None:
        """Open a blob that is copied while it is read; whole and at once if others read it, too."""
        if self._near.keeps and (self._whole or self._copied.is_at(digest)):
            if reader is not None:
                reader.close()
                reader = None
            copied = (
                self._near.attempt(lambda: self._near.service.open_read(digest))
                if self._copy(digest)
                else None
            )
            if copied is not None:
                return copied
        if reader is None:
            reader = self._far.service.open_read(digest)
        if reader is None:
            return None
        self._copied.enter(digest)
        return CopyingReader(reader, digest, NearCopy(self._near, digest), lambda: self._copied.leave(digest))

    def _copy(self, digest: B3Digest) -> bool:
        """Copy a blob to near as a whole, by one of those who want it; return whether near has it now."""
        return self._flights.join(("whole", digest), lambda _: self._copy_in_turn(digest), lambda: False)

    def _copy_in_turn(self, digest: B3Digest) -> bool:
        def look() -> bool | None:
            return self._near.peek(lambda: self._near.service.has(digest)) or None

        return self._turns.take_one(digest, look=look, bring=lambda: self._copy_now(digest), spare=True)

    def _copy_now(self, digest: B3Digest) -> bool:
        copy = NearCopy(self._near, digest)
        try:
            if not copy.lives or read_blob(self._far.service, digest, copy.take) is None:
                return False
            return copy.finish()
        finally:
            copy.drop()


class _Copied:
    """The blobs that readers are copying to near, each as slowly as it is read."""

    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Know of none, in a child of a fork."""
        self._readers: dict[B3Digest, int] = {}

    def is_at(self, digest: B3Digest) -> bool:
        return digest in self._readers

    def enter(self, digest: B3Digest) -> None:
        with self._lock:
            self._readers[digest] = self._readers.get(digest, 0) + 1

    def leave(self, digest: B3Digest) -> None:
        with self._lock:
            left = self._readers.pop(digest, 0) - 1
            if left > 0:
                self._readers[digest] = left
