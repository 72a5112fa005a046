"""Finding out that a file is stored already, for less than it costs to store it.

A file is only worth hashing first if it is probably known. That its first chunk is there says so, and costs
one look-up; a new file is then stored without having been read for nothing.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Final

from blake3 import blake3

from castore.buffers import new_buffer
from castore.contract.capabilities import ChunkStore
from castore.contract.inputs import Source
from castore.digest import B3Digest
from castore.format.chunking import Chunker
from castore.threads.pool import Pool

_PIECE: Final = 4 << 20
"""How many bytes are hashed at a time: enough for all cores, and no more than their caches hold."""


def find_known(
    store: ChunkStore, chunker: Chunker, source: Source, pool: Pool
) -> tuple[B3Digest, int] | None:
    """Return the digest and size of a file whose blob is in *store*; `None` if it has to be stored.

    The source stands at its start again if it has to be stored. Files smaller than a chunk can be are not
    worth the question. One of the *pool* helps the thread that asks to read and hash the file.
    """
    if source.size is None or source.size < chunker.max_size:
        return None
    buffer = new_buffer(max(_PIECE, chunker.max_size))
    count = source.fill(buffer)
    known = None
    if count >= chunker.max_size and _has_first_chunk(store, chunker, buffer[: chunker.max_size]):
        known = _hash(source, buffer, count, pool)
        if not store.claim_blob(known[0]):
            known = None
    if known is None:
        source.rewind()
    return known


def _has_first_chunk(store: ChunkStore, chunker: Chunker, head: memoryview) -> bool:
    length = next(chunker.cut(head))
    return store.claim_chunk(B3Digest.of(head[:length]))


def _hash(source: Source, buffer: memoryview, count: int, pool: Pool) -> tuple[B3Digest, int]:
    """Hash what is in the buffer, and all that follows."""
    hashing = _Hashing(source, buffer[:count])
    if count == len(buffer):
        helper = pool.submit(lambda: hashing.take_part(new_buffer(len(buffer))))
        try:
            hashing.take_part(buffer)
        finally:
            hashing.stop()
        helper.result()
    return hashing.digest(), hashing.size


class _Hashing:
    """The digest of a file, made by two threads that each read a piece and then hash it, in turn.

    So one reads while the other hashes, and what is hashed is in the caches of the core that has read it. It
    makes no difference to the result if one of them comes late, or not at all.
    """

    def __init__(self, source: Source, head: memoryview) -> None:
        self._source = source
        self._reading = threading.Lock()
        self._hashing = threading.Lock()
        self._hasher = blake3(head, max_threads=blake3.AUTO)
        self._ended = False
        self.size = len(head)

    def take_part(self, buffer: memoryview) -> None:
        """Read and hash pieces as large as *buffer* until none is left; raises `SourceError`."""
        while self._take_piece(buffer):
            pass

    def _take_piece(self, buffer: memoryview) -> bool:
        with contextlib.ExitStack() as turn:
            with self._reading:
                if self._ended:
                    return False
                self._ended = True  # if this fails
                count = self._source.fill(buffer)
                self._ended = count < len(buffer)
                # The next one reads when this one hashes: that keeps the order.
                turn.enter_context(self._hashing)
            self._hasher.update(buffer[:count])
            self.size += count
        return True

    def stop(self) -> None:
        """Let nobody begin another piece; when it returns nobody uses the source."""
        with self._reading:
            self._ended = True

    def digest(self) -> B3Digest:
        return B3Digest(self._hasher.digest())
