"""What a reader says of itself, through all layers; and `verify` that believes no list."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobReader, BlobService, CastoreError, Composition, CorruptBlobError
from castore.aio import AsyncBlobService
from castore.composites.members import Member
from castore.contract.capabilities import ChunkStore
from castore.streams.readers import BytesReader, FileReader
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.service import MirrorBlobService
from castore_wrappers.verify.proofs import Proofs
from castore_wrappers.verify.service import VerifyService

DATA: Final = random.Random(8).randbytes(60_000)
DIGEST: Final = B3Digest.of(DATA)
SMALL: Final = b"a few bytes"
"""Less than a chunk."""

COMPOSITION: Final = """
[blobservices.store]
type = "objectstore"
object_store_url = "file:./store"
avg_chunk_size = "1 KiB"

[blobservices.rows]
type = "sqlite"
path = "./rows.sqlite"
avg_chunk_size = "1 KiB"

[blobservices.other]
type = "objectstore"
object_store_url = "file:./other"
avg_chunk_size = "4 KiB"

[blobservices.memory]
type = "memory"
"""

LAYERS: Final = {
    "store": "",
    "rows": "",
    "cache": 'type = "cache"\nnear = "&memory"\nfar = "&store"',
    "cache of both": 'type = "cache"\nnear = "&other"\nfar = "&store"',
    "fallback": 'type = "fallback"\nservices = ["&memory", "&store"]',
    "fallback that copies": 'type = "fallback"\nservices = ["&memory", "&store"]\ncopy_to = "memory"',
    "mirror": 'type = "mirror"\nservices = ["&store", "&other"]',
    "lru": 'type = "lru"\ninner = "&store"\nmax_bytes = "1 GiB"',
    "verify": 'type = "verify"\ninner = "&store"',
    "verify of blobs": 'type = "verify"\ninner = "&store"\ncheck = "blob"',
    "retry": 'type = "retry"\ninner = "&store"',
    "breaker": 'type = "breaker"\ninner = "&store"',
    "limit": 'type = "limit"\ninner = "&store"\nbytes_per_second = "1 GiB"',
    "read_only": 'type = "read_only"\ninner = "&store"',
    "many": 'type = "retry"\ninner = "&next"\n\n[blobservices.next]\ntype = "limit"\ninner = "&last"\n'
    'concurrency = 4\n\n[blobservices.last]\ntype = "cache"\nnear = "&memory"\nfar = "&store"',
}


@pytest.fixture(params=LAYERS)
def layered(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Each type, alone or around a store, measured."""
    name, table = request.param, LAYERS[request.param]
    root = f"[blobservices.root]\n{table or LAYERS['retry']}\n"
    path = tmp_path / "composition.toml"
    path.write_text(COMPOSITION + root)
    with Composition.from_toml(path) as stores:
        for each in {"store", "other"} | ({name} if not table else set()):
            stores.blobs(each).write(DATA)
            stores.blobs(each).write(SMALL)
        yield stores.blobs(name if not table else "root")


@pytest.mark.parametrize("data", [DATA, SMALL], ids=["chunks", "small"])
def test_after_all_of_it(layered: BlobService, data: bytes) -> None:
    with layered.open(B3Digest.of(data)) as reader:
        assert reader.read() == data
        assert reader.verified is True


def test_not_after_a_part(layered: BlobService) -> None:
    """Unless all was checked before."""
    before = isinstance(layered, VerifyService) and layered._proofs is not None
    with layered.open(DIGEST) as reader:
        reader.seek(10)
        reader.read(100)
        assert reader.verified is before
        reader.seek(0)
        reader.read()
        assert reader.verified is True


def test_in_an_async_program(tmp_path: Path) -> None:
    async def read() -> None:
        within = MemoryBlobService()
        digest = within.write(DATA)
        async with AsyncBlobService(within) as service:
            reader = await service.open_read(digest)
            assert reader is not None
            async with reader:
                assert await reader.read() == DATA
                assert reader.verified

    asyncio.run(read())


def test_bytes_are_looked_at_when_it_is_asked() -> None:
    assert BytesReader(SMALL, B3Digest.of(SMALL)).verified
    assert not BytesReader(SMALL, DIGEST).verified
    assert not BytesReader(SMALL).verified


def test_what_is_read_through_a_file() -> None:
    """A reader of a stranger's that can tell."""

    class Told(BytesReader):
        pass

    assert FileReader(Told(SMALL, B3Digest.of(SMALL)), len(SMALL)).verified  # type: ignore[arg-type]
    assert not FileReader(Told(SMALL), len(SMALL)).verified  # type: ignore[arg-type]


def test_a_stranger_that_says_nothing_says_no() -> None:
    class Bare(BlobReader):
        size = 0

    assert Bare().verified is False


# -- no list is believed --


@pytest.fixture
def store(blobs_of: Any, store: Any) -> Any:
    return blobs_of(store, avg_chunk_size=1024)


def exchange(service: BlobService) -> None:
    """Put a list of the blob in which two chunks have each other's place."""
    service.write(DATA)
    chunks = list(service.chunks(DIGEST) or ())
    store = service.capability(ChunkStore)
    assert store is not None
    store.put_index(DIGEST, [*chunks[:5], chunks[6], chunks[5], *chunks[7:]])


def part(service: BlobService) -> bytes:
    with service.open(DIGEST) as reader:
        reader.seek(30_000)
        return reader.read(10)


OPERATIONS: Final[dict[str, Callable[[BlobService], object]]] = {
    "a part": part,
    "the first byte": lambda service: service.open(DIGEST).read(1),
    "all": lambda service: service.read(DIGEST),
    "opening": lambda service: service.open(DIGEST),
    "the list": lambda service: service.chunks(DIGEST),
    "many": lambda service: next(answer for _, answer in service.read_many([DIGEST])),
}


@pytest.mark.parametrize("what", OPERATIONS)
def test_a_wrong_list_gives_nothing(store: Any, what: str) -> None:
    exchange(store)
    service = VerifyService(store, proofs=Proofs())
    try:
        answer = OPERATIONS[what](service)
    except CorruptBlobError as error:
        answer = error
    assert isinstance(answer, CorruptBlobError)
    assert "the chunks of its index make up" in str(answer)


def test_one_that_a_composite_has_right_elsewhere(store: Any, blobs_of: Any) -> None:
    """A part is right at once."""
    far = blobs_of(type(store._store)("far"), avg_chunk_size=4096)
    far.write(DATA)
    for make in (
        lambda: CacheBlobService(store, far),
        lambda: FallbackBlobService([Member("a", store), Member("b", far)]),
        lambda: MirrorBlobService([Member("a", store), Member("b", far)], write_quorum=2, miss_quorum=1),
    ):
        exchange(store)
        with make() as within:
            service = VerifyService(within, proofs=Proofs())
            assert part(service) == DATA[30_000:30_010]
            assert b"".join(service.read(meta.digest) for meta in service.chunks(DIGEST) or ()) in (DATA, b"")


def test_what_stands_above_is_given_no_wrong_list(store: Any) -> None:
    """A cache would hand parts out by it."""
    exchange(store)
    with pytest.raises(CorruptBlobError):
        part(CacheBlobService(MemoryBlobService(), VerifyService(store, proofs=Proofs())))


class Reads:
    """Counts the bytes that a store was asked for."""

    def __init__(self, store: Any) -> None:
        self.store = store._store

    def take(self) -> int:
        received = self.store.received
        self.store.take_requests()
        return int(received)


def test_once_while_the_process_lives(store: Any) -> None:
    """After that a part costs what it costs."""
    store.write(DATA)
    reads = Reads(store)
    service = VerifyService(store, proofs=Proofs())
    reads.take()
    assert part(service) == DATA[30_000:30_010]
    assert reads.take() > len(DATA)
    assert part(service) == DATA[30_000:30_010]
    assert reads.take() < 10_000
    exchange(store)
    with pytest.raises(CorruptBlobError):
        part(service)


def test_in_a_folder_also_for_the_next_process(store: Any, tmp_path: Path) -> None:
    store.write(DATA)
    reads = Reads(store)
    part(VerifyService(store, proofs=Proofs(tmp_path / "proofs")))
    reads.take()
    assert part(VerifyService(store, proofs=Proofs(tmp_path / "proofs"))) == DATA[30_000:30_010]
    assert reads.take() < 10_000
    (entry,) = (tmp_path / "proofs").rglob("*.*")
    assert (entry.name[:64], entry.stat().st_size) == (str(DIGEST), 0)
    exchange(store)
    with pytest.raises(CorruptBlobError):
        part(VerifyService(store, proofs=Proofs(tmp_path / "proofs")))


def test_a_folder_that_fails_is_done_without(store: Any, tmp_path: Path, caplog: Any) -> None:
    """With one warning."""
    store.write(DATA)
    (tmp_path / "proofs").write_text("no folder")
    service = VerifyService(store, proofs=Proofs(tmp_path / "proofs", name="checked"))
    for _ in range(2):
        assert part(service) == DATA[30_000:30_010]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["`checked`"]


def test_no_more_than_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("castore_wrappers.verify.proofs._MOST", 3)
    proofs = Proofs()
    blobs = [B3Digest.of(bytes([number])) for number in range(5)]
    for blob in blobs:
        proofs.add(blob, ())
    assert [proofs.has(blob, ()) for blob in blobs] == [False, False, True, True, True]


def test_in_a_composition(tmp_path: Path) -> None:
    path = tmp_path / "composition.toml"
    table = 'type = "verify"\ninner = "&store"\ncheck = "blob"\nproofs = "./proofs"'
    path.write_text(f"{COMPOSITION}[blobservices.root]\n{table}\n")
    with Composition.from_toml(path) as stores:
        digest = stores.blobs("root").write(DATA)
        assert stores.blobs("root").read(digest) == DATA
        assert len(list((tmp_path / "proofs").rglob("*.*"))) == 1


@pytest.mark.parametrize(
    "table", ['proofs = "./proofs"', 'check = "chunks"\nproofs = "./proofs"', 'check = "bytes"']
)
def test_a_wrong_composition(tmp_path: Path, table: str) -> None:
    path = tmp_path / "composition.toml"
    path.write_text(f'{COMPOSITION}[blobservices.root]\ntype = "verify"\ninner = "&store"\n{table}\n')
    with pytest.raises(CastoreError):
        Composition.from_toml(path)
