"""Finding out that a file is stored already, for less than it costs to store it.

A file is only worth hashing first if it is probably known. That its first chunk is there says so, and costs
one look-up; a new file is then stored without having been read for nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from blake3 import blake3

from castore.capabilities import ChunkStore
from castore.chunking import Chunker
from castore.digest import B3Digest
from castore.sources import Source
from castore.workers import Workers

_PIECE: Final = 4 << 20
"""How many bytes are hashed at a time: enough for all cores, and no more than their caches hold."""


def find_known(
    store: ChunkStore, chunker: Chunker, source: Source, workers: Workers
) -> tuple[B3Digest, int] | None:
    """Return the digest and size of a file whose blob is in *store*; `None` if it has to be stored.

    The source stands at its start again if it has to be stored. Files smaller than a chunk can be are not
    worth the question. The *workers* read while the thread that asks hashes, with the help of all cores.
    """
    if source.size is None or source.size < chunker.max_size:
        return None
    buffer = memoryview(bytearray(max(_PIECE, chunker.max_size)))
    count = _fill(source, buffer)
    known = None
    if count >= chunker.max_size and _has_first_chunk(store, chunker, buffer[: chunker.max_size]):
        known = _hash(source, buffer, count, workers)
        if not store.claim_blob(known[0]):
            known = None
    if known is None:
        source.rewind()
    return known


def _has_first_chunk(store: ChunkStore, chunker: Chunker, head: memoryview) -> bool:
    length = next(chunker.cut(head))
    return store.claim_chunk(B3Digest.of(head[:length]))


def _hash(source: Source, buffer: memoryview, count: int, workers: Workers) -> tuple[B3Digest, int]:
    """Hash what is in the buffer, and all that follows."""
    hasher = blake3(max_threads=blake3.AUTO)
    size = 0
    upcoming = memoryview(bytearray(len(buffer)))
    while count:
        reading = workers.submit(partial(_fill, source, upcoming))
        try:
            hasher.update(buffer[:count])
        except BaseException:
            reading.drop()  # The source is the caller's to close.
            raise
        size += count
        count = reading.result()
        buffer, upcoming = upcoming, buffer
    return B3Digest(hasher.digest()), size


def _fill(source: Source, buffer: memoryview) -> int:
    """Fill all of *buffer*, or less at the end of the source."""
    filled = 0
    while filled < len(buffer) and (count := source.readinto(buffer[filled:])):
        filled += count
    return filled
