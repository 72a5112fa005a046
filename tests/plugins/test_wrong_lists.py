"""A wrong list of chunks under the digest of a blob: who stores the blob again replaces it, everywhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, ChunkMeta
from castore.chunks.backend import ChunkBackend
from castore.composites.members import Member
from castore.contract.capabilities import ChunkStore, FoundChunks
from castore.format.chunking import FastCdc2020
from castore.threads.pool import Pool
from castore.upkeep import collect, copy
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_lru.bounds import Bounds
from castore_lru.service import LruBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.service import MirrorBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService
from castore_wrappers.retry.service import RetryService

AVERAGE: Final = 1 << 10
DATA: Final = random.Random(7).randbytes(40_000)
DIGEST: Final = B3Digest.of(DATA)

Place = Callable[[], Path]


class Shelf(ChunkBackend):
    """A stranger's: five methods."""

    def __init__(self) -> None:
        self.parts: dict[B3Digest, bytes] = {}
        self.lists: dict[B3Digest, Sequence[ChunkMeta]] = {}

    def new_chunker(self) -> FastCdc2020:
        return FastCdc2020(AVERAGE)

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self.parts.keys() & set(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return {digest: self.parts[digest] for digest in sizes if digest in self.parts}

    def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
        self.parts |= {digest: bytes(data) for digest, data in chunks.items()}

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self.lists |= blobs

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return self.lists.get(digest, () if digest in self.parts else None)


class Memory(MemoryBlobService):
    def new_chunker(self) -> FastCdc2020:
        return FastCdc2020(AVERAGE)


def folder(place: Place, average: int = AVERAGE) -> ObjectStoreBlobService:
    store = LocalObjectStore(place(), instance="store", durability="process")
    return ObjectStoreBlobService(store, avg_chunk_size=average, pool=Pool(0))


def sqlite(place: Place) -> SqliteBlobService:
    database = Database(place() / "blobs.sqlite", instance="rows", durability="process")
    return SqliteBlobService(database, avg_chunk_size=AVERAGE, pool=Pool(0))


def mirror(place: Place) -> MirrorBlobService:
    members = [Member("a", folder(place)), Member("b", Memory())]
    return MirrorBlobService(members, write_quorum=2, miss_quorum=1)


SERVICES: Final[dict[str, Callable[[Place], BlobService]]] = {
    "objectstore": folder,
    "sqlite": sqlite,
    "memory": lambda _: Memory(),
    "a stranger's": lambda _: Shelf(),
    "lru": lambda place: LruBlobService(folder(place), Bounds(max_bytes=1 << 30)),
    "lru of sqlite": lambda place: LruBlobService(sqlite(place), Bounds(max_bytes=1 << 30)),
    "mirror": mirror,
    "fallback": lambda place: FallbackBlobService([Member("a", folder(place)), Member("b", Memory())]),
    "cache to near": lambda place: CacheBlobService(folder(place), Memory()),
    "cache to far": lambda place: CacheBlobService(Memory(), folder(place), write="far", fill="none"),
    "cache to both": lambda place: CacheBlobService(Memory(), folder(place), write="both"),
    "retry": lambda place: RetryService(folder(place)),
}

WRONG: Final[dict[str, Callable[[list[ChunkMeta]], list[ChunkMeta]]]] = {
    "twice the first": lambda chunks: [chunks[0], chunks[0]],
    "reversed": lambda chunks: chunks[::-1],
    "two in the middle exchanged": lambda chunks: [*chunks[:5], chunks[6], chunks[5], *chunks[7:]],
    "sizes + 1": lambda chunks: [ChunkMeta(meta.digest, meta.size + 1) for meta in chunks],
    "one left out": lambda chunks: [*chunks[:5], *chunks[6:]],
    "two sizes shifted": lambda chunks: [
        ChunkMeta(chunks[0].digest, chunks[0].size + 1),
        ChunkMeta(chunks[1].digest, chunks[1].size - 1),
        *chunks[2:],
    ],
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Make folders."""
    made: list[Path] = []

    def make() -> Path:
        made.append(tmp_path / str(len(made)))
        made[-1].mkdir()
        return made[-1]

    return make


def store_of(service: BlobService) -> ChunkStore:
    store = service.capability(ChunkStore)
    assert store is not None
    return store


def wrong_list(service: BlobService, kind: str) -> list[ChunkMeta]:
    """Store the blob, then put a wrong list in place of its own; return that."""
    assert service.write(DATA) == DIGEST
    chunks = WRONG[kind](list(service.chunks(DIGEST) or ()))
    store_of(service).put_indexes({DIGEST: chunks})
    assert list(service.chunks(DIGEST) or ()) == chunks
    return chunks


def put_file(service: BlobService, path: Path) -> B3Digest:
    return service.put_file(path)


def put_files(service: BlobService, path: Path) -> B3Digest:
    (digest,) = service.put_files([path])
    assert isinstance(digest, B3Digest)
    return digest


def write(service: BlobService, path: Path) -> B3Digest:
    return service.write(path.read_bytes())


def stream(service: BlobService, path: Path) -> B3Digest:
    with path.open("rb", buffering=0) as file, service.open_write() as writer:
        while data := file.read(5000):
            writer.write(data)
        return writer.close()


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("kind", WRONG)
def test_what_was_acknowledged_can_be_read(place: Place, tmp_path: Path, name: str, kind: str) -> None:
    """However it is put again."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with SERVICES[name](place) as service:
        for put in (put_file, put_files, write, stream):
            wrong_list(service, kind)
            assert put(service, path) == DIGEST
            assert service.read(DIGEST) == DATA


def test_at_each_member(place: Place, tmp_path: Path) -> None:
    """Of a mirror one of whose members has a wrong list."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    stores = folder(place), folder(place)
    members = [Member("a", stores[0]), Member("b", stores[1])]
    with MirrorBlobService(members, write_quorum=2, miss_quorum=1) as service:
        service.put_file(path)
        for store in stores:
            wrong_list(store, "reversed")
            service.put_file(path)
            assert store.read(DIGEST) == DATA


def test_a_file_that_is_known_is_not_sent(place: Place, tmp_path: Path) -> None:
    """Also if it was cut otherwise: its list is right, and stays."""
    path, shared = tmp_path / "file", place()
    path.write_bytes(DATA)
    with folder(lambda: shared, 2 * AVERAGE) as other:
        other.put_file(path)
        chunks = other.chunks(DIGEST)
    with folder(lambda: shared) as service:
        first = service.new_chunker()
        store_of(service).put_chunk(B3Digest.of(DATA[: next(first.cut(DATA))]), DATA[: next(first.cut(DATA))])
        assert service.put_file(path) == DIGEST
        assert service.chunks(DIGEST) == chunks


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("kind", ["reversed", "sizes + 1"])
def test_a_copy_replaces_it(place: Place, name: str, kind: str) -> None:
    """A blob of another list than that of the source is not taken for being there."""
    source = folder(place)
    source.write(DATA)
    with SERVICES[name](place) as target:
        wrong_list(target, kind)
        counts, failed = copy(source, target, [DIGEST])
        assert (counts.blobs_copied, failed) == (1, [])
        assert target.read(DIGEST) == DATA
        counts, failed = copy(source, target, [DIGEST])
        assert (counts.blobs_skipped, failed) == (1, [])


def test_a_copy_from_where_the_first_list_is_wrong(place: Place) -> None:
    """By a reader, which knows another way."""
    near, far, target = folder(place), folder(place, 4 * AVERAGE), Memory()
    far.write(DATA)
    wrong_list(near, "reversed")
    counts, failed = copy(CacheBlobService(near, far), target, [DIGEST])
    assert (counts.blobs_copied, failed) == (1, [])
    assert target.read(DIGEST) == DATA
    wrong_list(near, "reversed")
    _, failed = copy(near, Memory(), [DIGEST])
    assert "the chunks of its index make up" in str(failed[0].error)


# -- a blob that is a chunk, too --


@pytest.mark.parametrize("make", [folder, sqlite], ids=["objectstore", "sqlite"])
def test_garbage_is_not_what_readers_take_first(place: Place, make: Callable[[Place], Any]) -> None:
    """A chunk of the digest of a root stays, whatever its index lists."""
    with make(place) as service:
        service.write(DATA)
        chunks = list(service.chunks(DIGEST))
        store_of(service).put_chunk(DIGEST, DATA)
        (item,) = service.find_items("chunk", [chunks[3].digest]).values()
        service.remove([item])
        store_of(service).put_indexes({})
        gone = collect(service, [DIGEST], grace_seconds=0, clock=lambda: 2e9).gone
        assert gone["chunk"].count == 0
        assert service.read(DIGEST) == DATA


def test_put_again_as_one_chunk(place: Place) -> None:
    """After that the chunks that it was in are garbage, and it is right."""
    shared = place()
    with folder(lambda: shared) as service:
        service.write(DATA)
        chunks = list(service.chunks(DIGEST) or ())
        service.remove(service.find_items("chunk", [chunks[3].digest]).values())
    with folder(lambda: shared, 64 * AVERAGE) as service:
        service.write(DATA)
        assert service.chunks(DIGEST) == ()
        assert collect(service, [DIGEST], grace_seconds=0, clock=lambda: 2e9).gone["chunk"].count > 0
        assert service.read(DIGEST) == DATA


def test_a_damaged_chunk_of_the_digest_of_a_blob(place: Place) -> None:
    """Where the blob has finer ones they are read."""
    root = place()
    with folder(lambda: root) as service:
        service.write(DATA)
        path = root / service.chunk_key(DIGEST)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"spoilt")
        assert service.read(DIGEST) == DATA
