"""Reading many blobs, the small ones together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from castore.chunks.storing import at_once
from castore.contract.batches import batches
from castore.contract.blobs import Answer, BlobReader, BlobService
from castore.contract.capabilities import ChunkSource
from castore.digest import B3Digest, no_digest
from castore.errors import CastoreError

_SMALL = 1 << 20
"""Up to so many bytes a blob of a service without chunks is given as bytes."""


def read_many(service: BlobService, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
    """Yield many blobs; see `BlobService.read_many`."""
    wanted = dict.fromkeys(digests)
    for digest in wanted:
        if not isinstance(digest, bytes):
            raise no_digest(digest)
    source = service.capability(ChunkSource)
    if source is not None:
        for batch in batches(wanted, lambda _: None):
            yield from _read_together(service, source, batch)
    elif service.high_latency:
        yield from zip(wanted, at_once(partial(_read_whole, service), wanted), strict=True)
    else:
        for digest in wanted:
            yield digest, _open(service, digest)


def _read_together(
    service: BlobService, source: ChunkSource, batch: list[B3Digest]
) -> Iterator[tuple[B3Digest, Answer]]:
    try:
        found = source.get_chunks(dict.fromkeys(batch))
    except CastoreError as error:
        yield from ((digest, error) for digest in batch)
        return
    for digest in batch:
        data = found.pop(digest, None)
        # What is no chunk of its own, or not as it should be, goes through a reader: that knows more ways.
        yield digest, data if isinstance(data, bytes) else _open(service, digest)


def _open(service: BlobService, digest: B3Digest) -> bytes | BlobReader | CastoreError | None:
    try:
        return service.open_read(digest)
    except CastoreError as error:
        return error


def _read_whole(service: BlobService, digest: B3Digest) -> bytes | BlobReader | CastoreError | None:
    """Read a small blob here, so that others are read at the same time."""
    reader = _open(service, digest)
    if not isinstance(reader, BlobReader) or reader.size > _SMALL:
        return reader
    try:
        with reader:
            return reader.read()
    except CastoreError as error:
        return error
