"""Reading many blobs, the small ones together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain

from castore.contract.batches import CALLS_AT_ONCE, batches
from castore.contract.blobs import Answer, BlobReader, BlobService
from castore.contract.capabilities import ChunkSource
from castore.digest import B3Digest, no_digest
from castore.errors import CastoreError
from castore.threads.pool import process_pool

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
        yield from _read_together(service, source, wanted)
    elif service.high_latency:
        yield from _read_at_once(service, wanted)
    else:
        for digest in wanted:
            yield digest, _open(service, digest)


def _read_together(
    service: BlobService, source: ChunkSource, wanted: Iterable[B3Digest]
) -> Iterator[tuple[B3Digest, Answer]]:
    # While one batch is given out the next one comes, if that takes its time.
    get = partial(_get_batch, source)
    several = batches(wanted, lambda _: None)
    found = process_pool().io_pool.map(get, several, most=2) if source.high_latency else map(get, several)
    for digest, data in chain.from_iterable(found):
        # What is no chunk of its own, or not as it should be, goes through a reader: that knows more ways.
        yield digest, _open(service, digest) if data is None else data


def _get_batch(
    source: ChunkSource, batch: list[B3Digest]
) -> list[tuple[B3Digest, bytes | CastoreError | None]]:
    """Return for each of some digests the bytes of its chunk, `None` if those are not to be had so."""
    try:
        found = source.get_chunks(dict.fromkeys(batch))
    except CastoreError as error:
        return [(digest, error) for digest in batch]
    answers = ((digest, found.pop(digest, None)) for digest in batch)
    return [(digest, data if isinstance(data, bytes) else None) for digest, data in answers]


def _read_at_once(service: BlobService, wanted: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
    opened: dict[B3Digest, BlobReader] = {}

    def read(digest: B3Digest) -> tuple[B3Digest, Answer]:
        answer = _read_whole(service, digest)
        if isinstance(answer, BlobReader):
            opened[digest] = answer
        return digest, answer

    try:
        with closing(process_pool().io_pool.map(read, wanted, most=CALLS_AT_ONCE)) as answers:
            for digest, answer in answers:
                opened.pop(digest, None)
                yield digest, answer
    finally:
        # Nobody has asked for these.
        for reader in opened.values():
            reader.close()


def _open(service: BlobService, digest: B3Digest) -> Answer:
    try:
        return service.open_read(digest)
    except CastoreError as error:
        return error


def _read_whole(service: BlobService, digest: B3Digest) -> Answer:
    """Read a small blob here, so that others are read at the same time."""
    reader = _open(service, digest)
    if not isinstance(reader, BlobReader) or reader.size > _SMALL:
        return reader
    try:
        with reader:
            return reader.read()
    except CastoreError as error:
        return error
