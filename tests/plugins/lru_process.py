"""What a process does that shares a folder with others; `test_lru_sharing.py` starts these roles.

Each is given one end of a pipe: it says when it is at the moment that matters, and waits there.
"""

from __future__ import annotations

import os
import random
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from castore import B3Digest, ChunkMeta
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Pinning
from castore.threads.pool import Pool
from castore_lru.bounds import Bounds
from castore_lru.service import LruBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService

BUDGET = 60_000
ROUNDS = 10


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def blob(number: int) -> bytes:
    """Some are small, some are cut, and some have chunks in common."""
    source = random.Random(number)
    return noise(2000, number % 7) + source.randbytes(source.choice([0, 100, 3000, 6000]))


def child_in(folder: Path) -> ObjectStoreBlobService | SqliteBlobService:
    """What the name of the folder says."""
    if folder.name == "rows":
        database = Database(folder / "blobs.sqlite", instance="rows", durability="process")
        return SqliteBlobService(database, avg_chunk_size=512, pool=Pool(0))
    durability = "full" if folder.name == "deferring" else "process"
    store = LocalObjectStore(folder, instance="files", durability=durability)  # type: ignore[arg-type]
    return ObjectStoreBlobService(store, avg_chunk_size=512, pool=Pool(0))


def lru_in(folder: Path, budget: int = BUDGET) -> LruBlobService:
    return LruBlobService(child_in(folder), Bounds(max_bytes=budget), name="shared")


def write_and_read(service: LruBlobService, number: int) -> None:
    """Write blobs and read what others write; each is right or absent."""
    rand = random.Random(number)
    for _ in range(ROUNDS):
        data = blob(rand.randrange(40))
        service.write(data)
        wanted = blob(rand.randrange(40))
        reader = service.open_read(B3Digest.of(wanted))
        if reader is not None:
            with reader:
                assert reader.read() == wanted


def wait(pipe: Connection) -> None:
    pipe.send("ready")
    pipe.recv()


def work(folder: Path, number: int, pipe: Connection) -> None:
    with lru_in(folder) as service:
        write_and_read(service, number)


def read(folder: Path, number: int, pipe: Connection) -> None:
    """Read a blob, slowly."""
    with lru_in(folder) as service:
        reader = service.open_read(B3Digest.of(noise(9000, number)))
        assert reader is not None
        with reader:
            wait(pipe)
            assert reader.read() == noise(9000, number)


def pin(folder: Path, number: int, pipe: Connection) -> None:
    with lru_in(folder) as service:
        pinning = service.capability(Pinning)
        assert pinning is not None
        with pinning.pin({B3Digest.of(noise(9000, number))}):
            wait(pipe)


def lease(folder: Path, number: int, pipe: Connection) -> None:
    """Put chunks whose index is still to come."""
    with lru_in(folder) as service:
        store = service.capability(ChunkStore)
        assert store is not None
        chunks = [noise(900, seed) for seed in range(number, number + 4)]
        with store.lease() as leased:
            leased.put_chunks({B3Digest.of(chunk): chunk for chunk in chunks})
            wait(pipe)
            digests = {B3Digest.of(chunk) for chunk in chunks}
            assert leased.claim(digests) == digests
            metas = [ChunkMeta(B3Digest.of(chunk), len(chunk)) for chunk in chunks]
            leased.put_index(B3Digest.of(b"".join(chunks)), metas)
        assert service.read(B3Digest.of(b"".join(chunks))) == b"".join(chunks)


def write_for_ever(folder: Path, number: int, pipe: Connection) -> None:
    """Until it is killed; say which blobs are stored."""
    service = lru_in(folder)
    while True:
        number += 1
        service.write(noise(2000 + number % 5000, number))
        pipe.send(number)


def die_while_evicting(folder: Path, number: int, pipe: Connection) -> None:
    """When half of what is to go is gone."""
    service: Any = lru_in(folder, budget=20_000)
    store = service.inner
    remove = store.remove

    def remove_half(items: Any) -> None:
        items = list(items)
        remove(items[: len(items) // 2 + 1])
        os.kill(os.getpid(), signal.SIGKILL)

    store.remove = remove_half
    service.evict()


def fork(folder: Path, number: int, pipe: Connection) -> None:
    """A fork takes part on its own; what it does with its parent's reader does no harm."""
    with lru_in(folder) as service:
        reader = service.open_read(service.write(noise(9000, 1)))
        assert reader is not None
        if not (child := os.fork()):
            for seed in range(2, 10):
                service.write(noise(9000, seed))
            assert service.read(B3Digest.of(noise(9000, 9))) == noise(9000, 9)
            reader.close()
            service.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for seed in range(10, 20):
            service.write(noise(9000, seed))
        with reader:
            assert reader.read() == noise(9000, 1)


def die_before_the_fork(folder: Path, number: int, pipe: Connection) -> None:
    """Leave a fork that has inherited the locks, and goes on."""
    service = lru_in(folder)
    reader = service.open_read(B3Digest.of(noise(9000, number)))
    assert reader is not None
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    wait(pipe)
    os._exit(0)
