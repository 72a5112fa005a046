"""Fetching chunks, from what is made for that or as blobs of their own."""

from __future__ import annotations

from collections.abc import Mapping

from castore.contract.batches import CALLS_AT_ONCE, MOST_UNKNOWN
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptChunkError, MissingChunkError, OversizedFrameError
from castore.format.checks import check_digest, check_size
from castore.format.chunking import MAX_CHUNK_SIZE
from castore.threads.pool import process_pool


def find_in(
    service: BlobService,
    source: ChunkSource | None,
    sizes: Mapping[B3Digest, int | None],
    *,
    most: int = MAX_CHUNK_SIZE,
) -> FoundChunks:
    """Return chunks as `ChunkSource.get_chunks` does: from *source*, or without one from *service* as blobs.

    One of no known size that is too large for `get_chunks` is read as a blob, if it has no more than *most*
    bytes. Raises what the source raises.
    """
    if source is None:

        def read(digest: B3Digest) -> bytes | CastoreError | None:
            return _read_as_blob(service, digest, sizes[digest], most)

        pool = process_pool().io_pool
        answers = pool.map(read, sizes, most=CALLS_AT_ONCE) if service.high_latency else map(read, sizes)
        return {digest: data for digest, data in zip(sizes, answers, strict=True) if data is not None}
    found = source.get_chunks(sizes)
    for digest, data in found.items():
        if isinstance(data, OversizedFrameError) and sizes.get(digest) is None:
            if most > MOST_UNKNOWN:
                found[digest] = _read_as_blob(service, digest, None, most) or data
        elif not isinstance(data, CastoreError):
            try:
                check_size(digest, len(data), sizes.get(digest))
            except CorruptChunkError as error:
                found[digest] = error
    return found


def _read_as_blob(
    service: BlobService, digest: B3Digest, size: int | None, most: int
) -> bytes | CastoreError | None:
    try:
        reader = service.open_read(digest)
        if reader is None:
            return None
        with reader:
            check_size(digest, reader.size, size)
            if reader.size > (most if size is None else MAX_CHUNK_SIZE):
                raise OversizedFrameError(
                    f"{digest} is no chunk: with {reader.size} bytes it has more than any", expected=digest
                )
            data = reader.read()
        check_digest(digest, data)
    except CastoreError as error:
        return error
    return data


def find_chunk(
    service: BlobService, source: ChunkSource | None, digest: B3Digest, size: int | None = None
) -> bytes | None:
    """Return the checked bytes of one chunk, `None` if it is absent; raises what is wrong with it."""
    found = find_in(service, source, {digest: size}).get(digest)
    if isinstance(found, CastoreError):
        raise found
    return found


def missing_chunk(source: ChunkSource | None, meta: ChunkMeta, blob: B3Digest | None) -> MissingChunkError:
    """Return the error for a chunk that is nowhere, of *blob*, if that is known."""
    key = None if source is None else source.chunk_key(meta.digest)
    return MissingChunkError(blob=meta.digest if blob is None else blob, chunk=meta.digest, key=key)
