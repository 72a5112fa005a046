"""Reads a blob through a cache whose near others use, too; run by `test_cache_processes.py` as a program.

`python sharing_near.py NEAR LOG DIGEST MODE`, where NEAR is the URL of the near service and LOG a file that
far adds a line to for each chunk it is asked for. It says `ready`, waits for a line on its standard input,
reads, and prints the digest of what it has read. In the MODE `hang` far does not answer: it says `asked`.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Mapping

from castore import B3Digest, from_url
from castore.contract.capabilities import FoundChunks
from castore.threads.pool import Pool
from castore_cache.service import CacheBlobService
from castore_memory.service import MemoryBlobService
from castore_objectstore.locations import open_store
from castore_objectstore.service import ObjectStoreBlobService

CHUNK = 16 << 10


def blob() -> bytes:
    """Return the bytes that are read."""
    return random.Random(7).randbytes(1 << 20)


class Logging(MemoryBlobService):
    """Far, in which each process finds the same blob, and tells the others what it asks for."""

    def __init__(self, log: str, mode: str) -> None:
        super().__init__()
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._mode = mode

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        os.write(self._log, "".join(f"{os.getpid()} {digest}\n" for digest in sizes).encode())
        if self._mode == "hang":
            # In one piece: other threads say it, too.
            os.write(sys.stdout.fileno(), b"asked\n")
            threading.Event().wait(60)
        return super().get_chunks(sizes)


def far(log: str, mode: str) -> Logging:
    """Return a far that has the blob in chunks."""
    made = ObjectStoreBlobService(
        open_store("memory:", {}, base=None, instance="made"), avg_chunk_size=CHUNK, pool=Pool(0)
    )
    digest = made.write(blob())
    service = Logging(log, mode)
    service.put_chunks(made.get_chunks({meta.digest: meta.size for meta in made.chunks(digest)}))
    service.put_index(digest, made.chunks(digest))
    return service


def main() -> None:
    url, log, digest, mode = sys.argv[1:]
    behind = far(log, mode)
    with from_url(url) as near:
        cache = CacheBlobService(near, behind, pool=Pool(2))
        print("ready", flush=True)
        sys.stdin.readline()
        print(B3Digest.of(cache.read(B3Digest.parse(digest))), flush=True)


if __name__ == "__main__":
    main()
