"""Many chunks read as one blob, resolved through whichever service has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Final, cast

from castore.chunks.fetching import find_in, missing_chunk
from castore.chunks.hasher import BlobHasher
from castore.chunks.read_ahead import ReadAhead
from castore.chunks.recovery import Recovery, reads_right
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.contract.chunk_list import ChunkList
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError
from castore.format.checks import check_size
from castore.streams.readers import FileReader, PieceReader
from castore.threads.pool import Pool

_NO_POOL: Final = Pool(0)

_HASHED_TOGETHER: Final = 2 << 20
"""When so many bytes have been read a worker hashes them, if it has nothing to fetch."""

_MOST_UNHASHED: Final = 8 << 20
"""When so many are waiting for one the reader does it itself."""


class ChunkMap:
    """Where each chunk of a blob begins. Offsets and sizes are in bytes.

    Raises `ValueError` for no chunks at all: an empty blob has no map, and needs none.
    """

    def __init__(self, chunks: Sequence[ChunkMeta]) -> None:
        if not chunks:
            raise ValueError("a chunked blob has at least one chunk")
        self.chunks = ChunkList.of(chunks)
        self.offsets = self.chunks.offsets
        self.size = self.chunks.size

    def index_at(self, position: int) -> int | None:
        """Return the number of the chunk that has the byte at *position*, `None` beyond the end."""
        return self.chunks.index_at(position)


class ChunkedReader(PieceReader):
    """A reader over a list of chunks, each fetched from *service* when it is first needed, and checked.

    The service need not be the one that had the list. A chunk stays at hand while reads and seeks stay in
    it. Reading from start to end also checks the digest of the whole blob, so that a forged list cannot
    pass: its last chunk is held back until the digest is right.

    With a *recovery* a chunk that cannot be had here comes from elsewhere, by its place in the blob. Where
    that fails, or the list turns out to be wrong, the blob is read elsewhere from start to end. If that is
    right, and all that was handed out so far stands there, reading goes on in it; else the error says
    `passed_over`.

    Arguments:
        service: Where the chunks are; read through `ChunkSource` if it has that capability.
        chunks: The chunks in order, with the sizes they must have.
        digest: That of the whole blob. Without it only the chunks are checked.
        key: Where the list is stored, to name it in an error.
        source: Where to read chunks from, if not from what *service* has for that.
        pool: Fetches chunks ahead while they are read in order; without one nothing is fetched ahead.
        ahead_after: How many bytes must have been read in order before more is fetched than was asked for.
        recovery: Where to go on if a chunk, or the list, fails; for a reader that knows the *digest*.

    Reading raises `MissingChunkError`, `CorruptChunkError`, `CorruptBlobError`, or what the service raises.
    """

    def __init__(
        self,
        service: BlobService,
        chunks: Sequence[ChunkMeta],
        *,
        digest: B3Digest | None = None,
        key: str | None = None,
        source: ChunkSource | None = None,
        pool: Pool | None = None,
        ahead_after: int = 0,
        recovery: Recovery | None = None,
    ) -> None:
        self._map = ChunkMap(chunks)
        self._service = service
        self._source = service.capability(ChunkSource) if source is None else source
        self._pool = pool or _NO_POOL
        self._hasher = BlobHasher()
        self._ahead = ReadAhead(
            self._map.chunks,
            self._fetch,
            self._pool,
            after=ahead_after,
            high_latency=(service if self._source is None else self._source).high_latency,
            meanwhile=self._hasher.catch_up_if_free,
        )
        self._digest = digest
        self._key = key
        self._start = 0
        self._chunk = memoryview(b"")
        self._hashed = 0
        self._mismatch: CorruptBlobError | None = None
        self._verified = False
        self._recovery = recovery
        self._handed_out = bytearray(len(chunks) if recovery is not None else 0)
        self._instead: PieceReader | None = None

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._map.size

    @property
    def verified(self) -> bool:
        """Whether it was read from start to end, and the digest of the whole blob found right."""
        return self._verified or self._instead is not None

    @property
    def is_elsewhere(self) -> bool:
        """Whether another reader is read instead, as the list turned out to be wrong."""
        return self._instead is not None

    def piece_at(self, position: int) -> memoryview:
        """Return the rest of the chunk that has the byte at *position*."""
        offset = position - self._start
        if not 0 <= offset < len(self._chunk):
            if self._instead is not None:
                return self._instead.piece_at(position)
            index = self._map.index_at(position)
            assert index is not None
            chunk = self._chunk_at(index)
            if chunk is None:
                return self._from_elsewhere(position)
            self._chunk = memoryview(chunk)
            self._start = self._map.offsets[index]
            offset = position - self._start
        return self._chunk[offset:]

    def expect(self, begin: int, end: int) -> None:
        """Fetch the chunks of these bytes at once, when the first of them is asked for."""
        if self._instead is not None:
            self._instead.expect(begin, end)
            return
        first, last = self._map.index_at(begin), self._map.index_at(end - 1)
        if first is not None and last is not None and first < last:
            self._ahead.expect(first, last + 1)

    def close(self) -> None:
        """Let go of the chunks at hand, and give up those under way."""
        self._chunk = memoryview(b"")
        self._hasher.forget()
        self._ahead.close()
        if self._recovery is not None:
            self._recovery.close()
        if self._instead is not None:
            self._instead.close()
        super().close()

    def _fetch(self, metas: Sequence[ChunkMeta]) -> FoundChunks:
        if not metas:
            return {}
        found = find_in(self._service, self._source, {meta.digest: meta.size for meta in metas})
        for meta in metas:
            if meta.digest not in found:
                found[meta.digest] = missing_chunk(self._source, meta, self._digest)
        return found

    def _chunk_at(self, index: int) -> bytes | None:
        """Return a chunk; `None` if from here on another reader is read."""
        if self._mismatch is not None:
            raise self._mismatch
        try:
            data = self._checked_chunk(index)
        except CastoreError as error:
            found = self._chunk_from_elsewhere(index, error)
            if found is None:
                return None
            data = found
        try:
            self._hash_in_order(index, data)
        except CorruptBlobError as error:
            self._go_elsewhere(error)
            return None
        if self._recovery is not None:
            self._handed_out[index] = 1
        return data

    def _checked_chunk(self, index: int) -> bytes:
        data = self._ahead.get(index)
        meta = self._map.chunks[index]
        # A list may have two sizes for one digest, of which the source was asked for one.
        check_size(meta.digest, len(data), meta.size)
        return data

    def _hash_in_order(self, index: int, data: bytes) -> None:
        if self._digest is not None and index == self._hashed:
            self._hash(data)
            self._hashed += 1
            if self._hashed == len(self._map.chunks):
                self._check_blob(self._digest)

    def _hash(self, data: bytes) -> None:
        """Add a chunk to what is hashed by who waits for a chunk, or has none to fetch."""
        self._hasher.add(memoryview(data))
        waiting = self._hasher.waiting
        if not self._pool.size or waiting >= _MOST_UNHASHED:
            self._hasher.catch_up()
        elif waiting >= _HASHED_TOGETHER:
            self._ahead.call_for_help()

    def _check_blob(self, expected: B3Digest) -> None:
        self._hasher.catch_up()
        found = self._hasher.digest()
        if found != expected:
            self._mismatch = CorruptBlobError(
                f"blob {expected} is corrupt: the chunks of its index make up {found}",
                expected=expected,
                found=found,
                key=self._key,
            )
            raise self._mismatch
        self._verified = True

    # -- elsewhere --

    def _chunk_from_elsewhere(self, index: int, error: CastoreError) -> bytes | None:
        """Return a chunk that could not be had here; `None` if from here on another reader is read."""
        if self._recovery is None or not self._recovery.goes_on_after(error):
            raise error
        data = self._recovery.chunk(self._map.chunks[index], self._map.offsets[index], error)
        if data is None:
            self._go_elsewhere(error)
        else:
            self._ahead.skip(index)
        return data

    def _go_elsewhere(self, error: CastoreError) -> None:
        """Go on in another reader; raise *error* if there is none, or it would not go on from here."""
        for _ in range(2):
            try:
                agrees = self._read_elsewhere(error)
                break
            except CorruptBlobError as other:
                if not other.passed_over:
                    raise error from other
        else:
            raise error
        if agrees is None:
            raise error
        if not agrees:
            assert self._digest is not None
            self._mismatch = _list_was_wrong(self._digest, self._key)
            raise self._mismatch from error

    def _read_elsewhere(self, error: CastoreError) -> bool | None:
        """Read the blob elsewhere; go on there and return True if all that was handed out stands there, too.

        Return `None` if it is nowhere, or not right.
        """
        assert self._digest is not None
        reader = None if self._recovery is None else self._recovery.instead()
        if reader is None or self._recovery is None:
            return None
        goes_on = False
        try:
            right, agrees = reads_right(reader, self._digest, self._map.chunks, self._handed_out)
            if not right:
                return None
            self._recovery.proved_wrong(error)
            goes_on = agrees and reader.size == self.size
        finally:
            if not goes_on:
                # That may mend what was wrong: what is at hand there makes up the blob.
                reader.close()
        if goes_on:
            self._instead = (
                reader
                if isinstance(reader, PieceReader)
                else FileReader(cast("BinaryIO", reader), reader.size)
            )
        return goes_on

    def _from_elsewhere(self, position: int) -> memoryview:
        assert self._instead is not None
        self._chunk = memoryview(b"")
        self._ahead.close()
        return self._instead.piece_at(position)


def _list_was_wrong(blob: B3Digest, key: str | None) -> CorruptBlobError:
    return CorruptBlobError(
        f"the index of blob {blob} was wrong, and what was read by it is not of this blob; it is passed over"
        " now: open the blob again",
        expected=blob,
        key=key,
        passed_over=True,
    )
