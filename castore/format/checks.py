"""Whether bytes are the chunk that they are said to be."""

from __future__ import annotations

from castore.digest import B3Digest
from castore.errors import CorruptChunkError


def check_size(digest: B3Digest, found: int, size: int | None, *, key: str | None = None) -> None:
    """Raise `CorruptChunkError` unless a chunk of *found* bytes is as long as its index says."""
    if size is not None and found != size:
        raise CorruptChunkError(
            f"chunk {digest} has {found} bytes, but its index says {size}",
            expected=digest,
            key=key,
        )


def check_digest(digest: B3Digest, data: bytes) -> None:
    """Raise `CorruptChunkError` unless *data* are the bytes of the chunk."""
    found = B3Digest.of(data)
    if found != digest:
        raise CorruptChunkError(
            f"chunk {digest} is corrupt: its bytes have the digest {found}", expected=digest, found=found
        )
