"""Reading for the sake of checking: every byte is hashed here, whatever the service has checked already."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Self, TypeVar

import attrs
from blake3 import blake3

from castore.chunks.fetching import find_in
from castore.contract.batches import MOST_BYTES, MOST_ITEMS, MOST_UNKNOWN, batches
from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError, MissingChunkError, UnavailableError
from castore.format.checks import check_digest

A = TypeVar("A")
K = TypeVar("K")
T = TypeVar("T")

PIECE: Final = 1 << 20
"""Bytes that are read of a blob at a time."""

MOST_UNAVAILABLE: Final = 16
"""After how many answers in a row that did not come nothing more is asked."""

_UNKNOWN_TOGETHER: Final = MOST_BYTES // MOST_UNKNOWN

Sizes = Mapping[B3Digest, int | None]


@attrs.frozen
class Portions:
    """How much goes into one call, and how many calls are made ahead.

    Where each call has to wait for a network there are few, each as large as it may be: the service does
    much at once within one. Elsewhere there is one for each thread, of which none has long to do.

    Attributes:
        items: How many items a call has at most.
        bytes: How many bytes these have together.
        ahead: How many calls are under way; `None` for as many as keep all threads of a pool busy.
    """

    items: int
    bytes: int
    ahead: int | None

    @classmethod
    def of(cls, *, high_latency: bool) -> Self:
        """Return those for a service."""
        return cls(MOST_ITEMS, MOST_BYTES, 2) if high_latency else cls(256, 2 << 20, None)

    def split(self, items: Iterable[A], size_of: Callable[[A], int | None]) -> Iterator[list[A]]:
        """Yield *items* in order, as many at a time as one call has; *size_of* as for `batches`."""

        def weight(item: A) -> int:
            size = size_of(item)
            return self.bytes // _UNKNOWN_TOGETHER if size is None else size

        return batches(items, weight, most_items=self.items, most_bytes=self.bytes)


def read_blob(
    service: BlobService, digest: B3Digest, take: Callable[[memoryview], object] | None = None
) -> int | None:
    """Read a blob from start to end and check its digest; return its size in bytes, `None` if it is absent.

    *take* is called with each piece. Raises `CorruptBlobError` after the last piece of a blob that hashes
    to something else, or what the service raises.
    """
    reader = service.open_read(digest)
    if reader is None:
        return None
    with reader:
        return _read_all(reader, digest, take)


def _read_all(reader: BlobReader, digest: B3Digest, take: Callable[[memoryview], object] | None) -> int:
    hasher = blake3()
    size = 0
    buffer = memoryview(bytearray(min(PIECE, reader.size)))
    while count := reader.readinto(buffer):
        piece = buffer[:count]
        hasher.update(piece)
        size += count
        if take is not None:
            take(piece)
    check_blob(digest, B3Digest(hasher.digest()))
    return size


def check_blob(digest: B3Digest, found: B3Digest) -> None:
    """Raise `CorruptBlobError` if the bytes of a blob have another digest."""
    if found != digest:
        raise CorruptBlobError(
            f"blob {digest} is corrupt: its bytes have the digest {found}", expected=digest, found=found
        )


class Attempts:
    """Reads what a service has, and returns what goes wrong instead of raising it: for use in threads."""

    def __init__(self, service: BlobService) -> None:
        self._service = service
        self._source = service.capability(ChunkSource)
        self.portions = Portions.of(high_latency=self._source is not None and self._source.high_latency)
        """How much is worth asking for at once."""

    def index(self, digest: B3Digest) -> Sequence[ChunkMeta] | CastoreError | None:
        """Return the chunks of a blob; `None` if it is absent."""
        try:
            return self._service.chunks(digest)
        except CastoreError as error:
            return error

    def chunks(self, sizes: Sizes) -> FoundChunks:
        """Return the checked bytes of chunks, or what is wrong with them; those that are absent are left out.

        *sizes* has what indexes say. A chunk that is right, but of another size, is returned all the same.
        """
        found = ask_for_each(self._find, sizes)
        for digest, data in found.items():
            if isinstance(data, CorruptBlobError) and sizes[digest] is not None:
                # The size may be what is wrong.
                found[digest] = ask_for_each(self._find, {digest: None}).get(digest, data)
        return found

    def _find(self, sizes: Sizes) -> FoundChunks:
        found = find_in(self._service, self._source, sizes)
        for digest, data in found.items():
            if not isinstance(data, CastoreError):
                try:
                    check_digest(digest, data)
                except CastoreError as error:
                    found[digest] = error
        return found

    def in_order(
        self, chunks: Sequence[ChunkMeta]
    ) -> Iterator[list[tuple[ChunkMeta, bytes | CastoreError | None]]]:
        """Yield what `chunks` returns of each chunk of a blob, `None` for an absent one, some at a time."""
        for portion in self.portions.split(chunks, lambda meta: meta.size):
            found = self.chunks({meta.digest: meta.size for meta in portion})
            yield [(meta, found.get(meta.digest)) for meta in portion]

    def blobs(self, digests: Sequence[B3Digest]) -> dict[B3Digest, int | CastoreError | None]:
        """Check blobs from start to end; return their sizes in bytes, `None` for what is absent.

        Those that are one chunk are read together.
        """
        found: FoundChunks = {}
        if self._source is not None and digests:
            with contextlib.suppress(CastoreError):  # Each has its own chance below.
                found = self._find(dict.fromkeys(digests))
        return {
            digest: len(data) if isinstance(data := found.get(digest), bytes) else self._blob(digest)
            for digest in digests
        }

    def _blob(self, digest: B3Digest) -> int | CastoreError | None:
        try:
            return read_blob(self._service, digest)
        except CastoreError as error:
            return error

    def absence(self, blob: B3Digest, chunk: B3Digest) -> MissingChunkError:
        """Return the error for a chunk that a blob lacks."""
        key = None if self._source is None else self._source.chunk_key(chunk)
        return MissingChunkError(blob=blob, chunk=chunk, key=key)


def ask_for_each(call: Callable[[Sizes], FoundChunks], sizes: Sizes) -> FoundChunks:
    """Return what a call for many returns; if it fails as a whole, each is asked for by itself.

    So an error is that of one. After `MOST_UNAVAILABLE` that could not be had in a row the others fare alike.
    """
    if not sizes:
        return {}
    try:
        return call(sizes)
    except CastoreError as error:
        if len(sizes) == 1:
            return dict.fromkeys(sizes, error)
    found: FoundChunks = {}
    fault: UnavailableError | None = None
    unavailable = 0
    for digest, size in sizes.items():
        if fault is None or unavailable < MOST_UNAVAILABLE:
            answer = ask_for_each(call, {digest: size})
            found.update(answer)
            last = answer.get(digest)
            fault = last if isinstance(last, UnavailableError) else None
            unavailable = unavailable + 1 if fault is not None else 0
        else:
            found[digest] = fault
    return found


def labelled(call: tuple[K, Callable[[], T]]) -> tuple[K, T]:
    """Make a call that has a label, which stays with what it returns: for `Pool.map`."""
    return call[0], call[1]()
