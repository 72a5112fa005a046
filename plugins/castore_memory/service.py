"""Blobs in dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

from castore import B3Digest, ChunkMeta
from castore.chunks.backend import ChunkBackend
from castore.contract.batches import MOST_UNKNOWN
from castore.contract.capabilities import BlobLister, FoundChunks
from castore.contract.chunk_list import ChunkList
from castore.contract.refs import RefService
from castore.contract.upkeep import Evictable, ItemKind, StoredItem
from castore.digest import EMPTY, no_digest
from castore.errors import CorruptBlobError, OversizedFrameError
from castore.format.blob_index import same_list
from castore.format.checks import check_size
from castore_memory.refs import MemoryRefService

if TYPE_CHECKING:
    from typing_extensions import Buffer


P = TypeVar("P")

_SIZE_IN_INDEX: Final = 40
"""How many bytes a chunk counts in an index: its digest, and its size."""


class MemoryBlobService(ChunkBackend, BlobLister, Evictable):
    """Keeps blobs in memory, as chunks, which are not compressed.

    The empty blob is there only once it was written.
    """

    def __init__(self) -> None:
        # Values never change and each operation is one step of a dict, so readers need no lock.
        self._chunks: dict[B3Digest, bytes] = {}
        self._indexes: dict[B3Digest, Sequence[ChunkMeta]] = {}
        self._refs = MemoryRefService()

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability. Names of what it keeps are forgotten with it, and so it keeps them, too."""
        return cast("P", self._refs) if kind is RefService else super().capability(kind)

    def has(self, digest: B3Digest) -> bool:
        """Tell whether a blob or chunk of this digest was put."""
        return digest in self._chunks or digest in self._indexes or _absent(digest)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that were not put."""
        return {digest for digest in set(digests) if not self.has(digest)}

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob; one that is a single chunk has none finer."""
        index = self._indexes.get(digest)
        if index is not None:
            return index
        return () if digest in self._chunks or _absent(digest) else None

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield every blob."""
        yield from list(self._indexes)

    def complete(self, digits: str) -> Iterator[B3Digest]:
        """Yield the blobs and chunks that begin with *digits*."""
        return (digest for digest in {**self._indexes, **self._chunks} if digest.hex().startswith(digits))

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that were put as chunks."""
        return {digest for digest in digests if digest in self._chunks or _absent(digest)}

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return the bytes of chunks; they were checked when they came."""
        found: FoundChunks = {}
        for digest, size in sizes.items():
            data = self._chunks.get(digest)
            if data is None:
                _absent(digest)
                continue
            try:
                check_size(digest, len(data), size)
                found[digest] = _bounded(digest, data) if size is None else data
            except CorruptBlobError as error:
                found[digest] = error
        return found

    def get_large_chunk(self, digest: B3Digest) -> bytes | None:
        """Return a chunk of any size."""
        return self._chunks.get(digest)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return those of which all is there; nothing else could take it away."""
        return {digest for digest, chunks in blobs.items() if self._is_whole(digest, chunks)}

    def _is_whole(self, digest: B3Digest, known: Sequence[ChunkMeta] | None) -> bool:
        chunks = self._indexes.get(digest)
        if chunks is None or not (known is None or same_list(chunks, known)):
            return False
        return all(meta.digest in self._chunks for meta in chunks) if chunks else self._has_one(digest)

    def _has_one(self, digest: B3Digest) -> bool:
        return digest in self._chunks or digest == EMPTY

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Keep copies."""
        for digest, data in chunks.items():
            self._chunks[digest] = bytes(data)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible; another list that is there is replaced."""
        for digest, chunks in blobs.items():
            self._indexes[digest] = ChunkList(chunks) if len(chunks) > 1 else ()

    # -- for who keeps it within bounds --

    def stored_items(self) -> Iterator[StoredItem]:
        """Yield what is kept."""
        for digest, chunks in list(self._indexes.items()):
            yield _index_item(digest, chunks)
        for digest, data in list(self._chunks.items()):
            yield _chunk_item(digest, data)

    def find_items(self, kind: ItemKind, digests: Iterable[B3Digest]) -> Mapping[B3Digest, StoredItem]:
        """Return indexes or chunks with the sizes that they have in memory."""
        if kind == "index":
            indexes = {digest: self._indexes.get(digest) for digest in digests}
            return {
                digest: _index_item(digest, found) for digest, found in indexes.items() if found is not None
            }
        chunks = {digest: self._chunks.get(digest) for digest in digests}
        return {digest: _chunk_item(digest, data) for digest, data in chunks.items() if data is not None}

    def remove(self, items: Iterable[StoredItem]) -> None:
        """Forget *items*. Readers that are open keep the bytes that they have."""
        for item in items:
            if item.digest is not None:
                (self._indexes if item.kind == "index" else self._chunks).pop(item.digest, None)


def _index_item(digest: B3Digest, chunks: Sequence[ChunkMeta]) -> StoredItem:
    return StoredItem("index", f"indexes/{digest}", digest, _SIZE_IN_INDEX * len(chunks))


def _chunk_item(digest: B3Digest, data: bytes) -> StoredItem:
    return StoredItem("chunk", f"chunks/{digest}", digest, len(data))


def _bounded(digest: B3Digest, data: bytes) -> bytes:
    if len(data) > MOST_UNKNOWN:
        raise OversizedFrameError(
            f"chunk {digest} has {len(data)} bytes, more than any of no known size may have", expected=digest
        )
    return data


def _absent(digest: object) -> Literal[False]:
    """Return that it is not there, which is looked at more closely: text is never there."""
    if not isinstance(digest, bytes):
        raise no_digest(digest)
    return False
