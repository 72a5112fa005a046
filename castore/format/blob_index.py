"""The index of a blob: the list of its chunks, as the bytes that the reference stores.

Pure: bytes in, values out. An index is a `StatBlobResponse` message whose `bao` is never set. A blob of
fewer than two chunks has an index of no bytes: its one chunk has the blob's own digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from castore.contract.blobs import ChunkMeta
from castore.digest import DIGEST_SIZE, B3Digest
from castore.errors import BadIndexError
from castore.format.chunking import MAX_CHUNK_SIZE

MAX_BLOB_SIZE: Final = (1 << 63) - 1
"""The largest size of a blob, in bytes: what a file offset can hold."""


def encode(chunks: Sequence[ChunkMeta]) -> bytes:
    """Return the index of a blob made of *chunks*: no bytes for fewer than two."""
    if len(chunks) < 2:
        return b""
    from castore.format.proto.castore_pb2 import StatBlobResponse  # noqa: PLC0415 - small blobs need no protobuf

    meta = StatBlobResponse.ChunkMeta
    message = StatBlobResponse(chunks=[meta(digest=chunk.digest, size=chunk.size) for chunk in chunks])
    return message.SerializeToString(deterministic=True)


def decode(data: bytes, blob: B3Digest, *, key: str | None = None) -> tuple[ChunkMeta, ...]:
    """Read the index of *blob* and check all that it says.

    Returns no chunks, or at least two. Raises `BadIndexError` for bytes that are no index, a digest that
    has not 32 bytes, a size outside 1 to `MAX_CHUNK_SIZE`, or a total beyond `MAX_BLOB_SIZE`.
    """
    if not data:
        return ()
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

    from castore.format.proto.castore_pb2 import StatBlobResponse  # noqa: PLC0415 - as above

    try:
        message = StatBlobResponse.FromString(data)
    except DecodeError:
        raise BadIndexError(
            f"the index of blob {blob} is not a StatBlobResponse message", expected=blob, key=key
        ) from None
    entries = [(entry.digest, entry.size) for entry in message.chunks]
    return validate(entries, blob, key=key)


def may_agree(one: Sequence[ChunkMeta], other: Sequence[ChunkMeta]) -> bool:
    """Tell whether two lists of chunks can be of one blob, as far as their sizes tell."""
    return not one or not other or sum(meta.size for meta in one) == sum(meta.size for meta in other)


def validate(
    entries: Sequence[tuple[bytes, int]], blob: B3Digest, *, key: str | None = None
) -> tuple[ChunkMeta, ...]:
    """Check the digests and sizes of an index of *blob*, from wherever they came; as `decode` otherwise."""
    chunks = []
    total = 0
    for number, (digest, size) in enumerate(entries):
        if len(digest) != DIGEST_SIZE:
            raise BadIndexError(
                f"the index of blob {blob} gives chunk #{number} a digest of {len(digest)} bytes"
                " instead of 32",
                expected=blob,
                key=key,
            )
        if not 1 <= size <= MAX_CHUNK_SIZE:
            raise BadIndexError(
                f"the index of blob {blob} gives chunk #{number} a size of {size} bytes;"
                f" chunks have 1 to {MAX_CHUNK_SIZE}",
                expected=blob,
                key=key,
            )
        total += size
        chunks.append(ChunkMeta(B3Digest(digest), size))
    if total > MAX_BLOB_SIZE:
        raise BadIndexError(f"the index of blob {blob} adds up to {total} bytes", expected=blob, key=key)
    if not chunks:
        raise BadIndexError(f"the index of blob {blob} lists no chunks", expected=blob, key=key)
    if len(chunks) == 1:
        if chunks[0].digest != blob:
            raise BadIndexError(
                f"the index of blob {blob} lists a single chunk with another digest, {chunks[0].digest}",
                expected=blob,
                found=chunks[0].digest,
                key=key,
            )
        return ()
    return tuple(chunks)
