"""The stores at the ends of a simulated graph: small, and open to damage and to inspection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from castore.chunks.reader import ChunkedReader
from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, FoundChunks
from castore.digest import EMPTY, B3Digest
from castore.errors import CorruptChunkError
from castore.format.chunking import Chunker
from castore.streams.readers import BytesReader
from castore.streams.writers import GuardedWriter
from castore.threads.pool import Pool
from simulation.contents import pieces_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")

CAPABILITIES: Final[dict[str, type]] = {
    "list": BlobLister,
    "delete": BlobDeleter,
    "source": ChunkSource,
    "store": ChunkStore,
}
"""The capabilities that simulations know, by short names."""

Look = Literal["data", "none", "corrupt"]


class Store(ABC):
    """A service at the end of a graph, with a door at its back."""

    service: BlobService
    """What the graph sees of it."""

    @abstractmethod
    def look(self, digest: B3Digest) -> Look:
        """Tell what reading *digest* must come to while nothing fails."""

    @abstractmethod
    def damage(self, digest: B3Digest, which: int) -> None:
        """Change a byte of a blob, in one of its chunks, without that the service notices."""

    @abstractmethod
    def lose(self, digest: B3Digest, which: int | None = None) -> None:
        """Forget a blob, or only one of its chunks."""


class Watcher:
    """Is told what befalls a shelf. It does nothing; simulations have others."""

    def gone(self, digest: B3Digest) -> None:
        """*digest* was lost, deleted or damaged."""

    def mismatch(self, words: str) -> None:
        """Something was stored that must not be."""


class Shelf(BlobService, BlobLister, BlobDeleter, ChunkStore, Store):
    """Keeps blobs in memory, in chunks of *cut* bytes if it has the capability `store`.

    What is written replaces what was there. It looks closely at what it is given: chunks that are not what
    they are called, and indexes that do not make up their blob, are told to *watcher*.

    Arguments:
        cut: The size of chunks, in bytes.
        capabilities: The names of its capabilities, of `CAPABILITIES`.
        checks: What it checks when it is read: all bytes, chunks alone (as what trusts its disk), or nothing,
            which is less than the contract asks for.
        watcher: Is told what befalls it.
    """

    def __init__(
        self,
        *,
        cut: int = 48,
        capabilities: Collection[str] = ("list", "delete", "source", "store"),
        checks: Literal["all", "chunks", "nothing"] = "all",
        watcher: Watcher | None = None,
    ) -> None:
        self.service = self
        self._cut = cut
        self._checks = checks
        self._capabilities = {CAPABILITIES[name] for name in capabilities}
        self._watcher = Watcher() if watcher is None else watcher
        self._pieces: dict[B3Digest, bytes] = {}
        self._indexes: dict[B3Digest, tuple[ChunkMeta, ...]] = {}

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability that this shelf was given."""
        return super().capability(kind) if kind in self._capabilities else None

    # -- reading --

    def has(self, digest: B3Digest) -> bool:
        """Tell whether a blob or chunk is there."""
        return digest in self._indexes or digest in self._pieces

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk; one in one piece is checked now, if at all."""
        index = self._indexes.get(digest)
        if index:
            return ChunkedReader(self, index, digest=digest, source=self)
        data = self._pieces.get(digest)
        if data is None:
            return None
        if self._checks == "all" and B3Digest.of(data) != digest:
            raise _corrupt(digest, data)
        return BytesReader(data)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob."""
        index = self._indexes.get(digest)
        return index if index is not None else () if digest in self._pieces else None

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield every blob."""
        yield from list(self._indexes)

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those chunks that are there."""
        return {digest for digest in digests if digest in self._pieces}

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks."""
        found: FoundChunks = {}
        for digest in sizes:
            data = self._pieces.get(digest)
            if data is not None and self._checks != "nothing" and B3Digest.of(data) != digest:
                found[digest] = _corrupt(digest, data)
            elif data is not None:
                found[digest] = data
        return found

    # -- writing --

    def open_write(self) -> BlobWriter:
        """Start a blob."""
        return _ShelfWriter(self._put)

    def _put(self, data: bytes) -> B3Digest:
        digest = B3Digest.of(data)
        self._look_at(digest, data)
        pieces = pieces_of(data, self._cut) if ChunkStore in self._capabilities else [data]
        if len(pieces) > 1:
            for piece in pieces:
                self._pieces[B3Digest.of(piece)] = piece
            self._indexes[digest] = tuple(ChunkMeta(B3Digest.of(piece), len(piece)) for piece in pieces)
        else:
            self._pieces[digest] = data
            self._indexes[digest] = ()
        return digest

    def _look_at(self, digest: B3Digest, data: bytes) -> None:
        if B3Digest.of(data) != digest:
            self._watcher.mismatch(f"bytes were stored as {digest} that are not it")

    @property
    def pool(self) -> Pool:
        """None but the thread that asks."""
        return _NO_POOL

    def new_chunker(self) -> Chunker:
        """Return what cuts alike."""
        return _EvenChunker(self._cut)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return those of which all is there, be it right or not."""
        return {
            digest
            for digest in blobs
            if digest in self._indexes
            and all(meta.digest in self._pieces for meta in self._indexes[digest] or (ChunkMeta(digest, 0),))
        }

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Keep chunks."""
        for digest, data in chunks.items():
            kept = bytes(data)
            self._look_at(digest, kept)
            self._pieces[digest] = kept

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible."""
        for digest, chunks in blobs.items():
            self._put_one_index(digest, chunks)

    def _put_one_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible; one that is there stays cut as it is."""
        if digest == EMPTY:
            self._pieces.setdefault(digest, b"")
        parts = [self._pieces.get(meta.digest) for meta in chunks or (ChunkMeta(digest, 0),)]
        if None in parts:
            self._watcher.mismatch(f"an index of {digest} was stored, one of whose chunks is not there")
        elif all(meta.digest == B3Digest.of(part or b"") for meta, part in zip(chunks, parts, strict=False)):
            # A chunk that was damaged here is another's concern.
            joined = b"".join(part or b"" for part in parts)
            if chunks and B3Digest.of(joined) != digest:
                self._watcher.mismatch(f"an index of {digest} was stored that makes up something else")
        if self.look(digest) != "data" or digest not in self._indexes:
            self._indexes[digest] = tuple(chunks) if len(chunks) > 1 else ()

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob; one in one piece goes with its chunk."""
        there = digest in self._indexes
        self.lose(digest)
        return there

    # -- the door at the back --

    def look(self, digest: B3Digest) -> Look:
        """Tell what reading *digest* must come to."""
        index = self._indexes.get(digest)
        if index is None and digest not in self._pieces:
            return "none"
        for name in [meta.digest for meta in index] if index else [digest]:
            if name not in self._pieces or B3Digest.of(self._pieces[name]) != name:
                return "corrupt"
        return "data"

    def damage(self, digest: B3Digest, which: int) -> None:
        """Turn a bit of a chunk that is there."""
        name = self._part(digest, which)
        data = self._pieces.get(name)
        if data is not None:
            self._pieces[name] = bytes([data[0] ^ 1]) + data[1:] if data else b"\0"
            self._watcher.gone(name)

    def lose(self, digest: B3Digest, which: int | None = None) -> None:
        """Forget a blob, or only one of its chunks."""
        name = digest if which is None else self._part(digest, which)
        if name == digest:
            self._indexes.pop(digest, None)
        self._pieces.pop(name, None)
        self._watcher.gone(name)

    def _part(self, digest: B3Digest, which: int) -> B3Digest:
        index = self._indexes.get(digest)
        return index[which % len(index)].digest if index else digest


def _corrupt(digest: B3Digest, data: bytes) -> CorruptChunkError:
    return CorruptChunkError(f"chunk {digest} is corrupt", expected=digest, found=B3Digest.of(data))


_NO_POOL: Final = Pool(0)


class _EvenChunker(Chunker):
    """Cuts into chunks of one size."""

    looks_ahead = False

    def __init__(self, size: int) -> None:
        self.avg_size = self.min_size = self.max_size = size

    def cut(self, data: memoryview) -> Iterator[int]:
        for start in range(0, len(data), self.max_size):
            yield min(self.max_size, len(data) - start)


class _ShelfWriter(GuardedWriter):
    def __init__(self, put: Callable[[bytes], B3Digest]) -> None:
        self._put = put
        self._parts: list[bytes] = []

    def _take(self, view: memoryview) -> None:
        self._parts.append(bytes(view))

    def _finish(self) -> B3Digest:
        return self._put(b"".join(self._parts))

    def _discard(self) -> None:
        self._parts.clear()
