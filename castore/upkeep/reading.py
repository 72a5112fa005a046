"""Reading for the sake of checking: every byte is hashed here, whatever the service has checked already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from blake3 import blake3

from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError, CorruptChunkError, MissingChunkError

K = TypeVar("K")
T = TypeVar("T")

PIECE: Final = 1 << 20
"""Bytes that are read of a blob at a time."""


def read_chunk(service: BlobService, source: ChunkSource | None, digest: B3Digest) -> bytes | None:
    """Return the checked bytes of a chunk, whatever an index may say of its size; `None` if it is absent.

    It is read from *source*, or without one from *service* as a blob.
    """
    if source is not None:
        data = source.get_chunk(digest)
    else:
        reader = service.open_read(digest)
        if reader is None:
            return None
        with reader:
            data = reader.read()
    if data is not None and B3Digest.of(data) != digest:
        raise CorruptChunkError(
            f"chunk {digest} is corrupt: its bytes have the digest {B3Digest.of(data)}",
            expected=digest,
            found=B3Digest.of(data),
        )
    return data


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
    found = B3Digest(hasher.digest())
    if found != digest:
        raise CorruptBlobError(
            f"blob {digest} is corrupt: its bytes have the digest {found}", expected=digest, found=found
        )
    return size


class Attempts:
    """Reads what a service has, and returns what goes wrong instead of raising it: for use in threads."""

    def __init__(self, service: BlobService) -> None:
        self._service = service
        self._source = service.capability(ChunkSource)

    def index(self, digest: B3Digest) -> Sequence[ChunkMeta] | CastoreError | None:
        """Return the chunks of a blob; `None` if it is absent."""
        try:
            return self._service.chunks(digest)
        except CastoreError as error:
            return error

    def chunk(self, digest: B3Digest) -> bytes | CastoreError | None:
        """Return the checked bytes of a chunk; `None` if it is absent."""
        try:
            return read_chunk(self._service, self._source, digest)
        except CastoreError as error:
            return error

    def blob(self, digest: B3Digest) -> int | CastoreError | None:
        """Check a blob from start to end; return its size in bytes, `None` if it is absent."""
        try:
            return read_blob(self._service, digest)
        except CastoreError as error:
            return error

    def absence(self, blob: B3Digest, chunk: B3Digest) -> MissingChunkError:
        """Return the error for a chunk that a blob lacks."""
        key = None if self._source is None else self._source.chunk_key(chunk)
        return MissingChunkError(blob=blob, chunk=chunk, key=key)


def labelled(call: tuple[K, Callable[[], T]]) -> tuple[K, T]:
    """Make a call that has a label, which stays with what it returns: for `Pool.map`."""
    return call[0], call[1]()
