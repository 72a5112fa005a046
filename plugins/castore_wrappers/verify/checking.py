"""Bytes that are released only when their digest is right."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from blake3 import blake3

from castore import B3Digest, BlobReader, CorruptBlobError, CorruptChunkError, UnavailableError
from castore.contract.capabilities import ChunkSource
from castore.streams.readers import BytesReader, FileReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

_IN_MEMORY: Final = 4 << 20
_PIECE: Final = 1 << 20


def checked_chunk(digest: B3Digest, data: bytes | None) -> bytes | None:
    """Return *data* if it is the chunk, or none; raise `CorruptChunkError` otherwise."""
    if data is not None and (found := B3Digest.of(data)) != digest:
        raise CorruptChunkError(
            f"chunk {digest} is corrupt: its bytes have the digest {found}", expected=digest, found=found
        )
    return data


class CheckedChunks(ChunkSource):
    """Reads chunks from *source*, and believes it nothing."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source
        self.high_latency = source.high_latency

    def has_chunk(self, digest: B3Digest) -> bool:
        """Ask the source."""
        return self._source.has_chunk(digest)

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return a chunk whose digest is right."""
        return checked_chunk(digest, self._source.get_chunk(digest, size))

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Ask the source."""
        return self._source.chunk_key(digest)


def check_whole(reader: BlobReader, digest: B3Digest) -> BlobReader:
    """Return a reader over the bytes of *reader* when all of them have been read and are right.

    Bytes that are in memory stay where they are. Others go there, beyond 4 MiB into an unnamed temporary
    file: so what is handed out later is what was checked. *reader* is closed, or handed out.

    Raises `CorruptBlobError`, and `UnavailableError` if the temporary file fails.
    """
    if type(reader) is BytesReader:
        _require(digest, B3Digest.of(reader.read_view()))
        reader.seek(0)
        return reader
    with reader:
        if reader.size <= _IN_MEMORY:
            data = reader.read()
            _require(digest, B3Digest.of(data))
            return BytesReader(data)
        return _check_long(reader, digest)


def _check_long(reader: BlobReader, digest: B3Digest) -> BlobReader:
    spool = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - it goes with the reader
    try:
        hasher = blake3()
        size = 0
        while piece := reader.read_view(_PIECE):
            hasher.update(piece)
            _write(spool, piece)
            size += len(piece)
        _require(digest, B3Digest(hasher.digest()))
    except BaseException:
        spool.close()
        raise
    return FileReader(spool, size)


def _write(spool: BinaryIO, piece: Buffer) -> None:
    try:
        spool.write(piece)
        spool.flush()
    except OSError as error:
        raise UnavailableError("the temporary folder", error) from error


def _require(digest: B3Digest, found: B3Digest) -> None:
    if found != digest:
        raise CorruptBlobError(
            f"blob {digest} is corrupt: its bytes have the digest {found}", expected=digest, found=found
        )
