"""What a wrapper can do follows from what is within: none of its capabilities is lost, and none is made up.

The tables say which capabilities each store has, and which of them each wrapper keeps. A new wrapper joins by
a row in `WRAPPERS`; one whose answer depends on more than that names it for each store, in `but`. Composites
stand in `BESIDE_OTHERS`, each with a member that has nearly every capability beside the store.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castore import B3Digest, BlobReader, BlobService, BlobWriter, UnsupportedError
from castore.composites.members import Member
from castore.contract import capabilities, upkeep
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
    SharedPlace,
)
from castore.contract.operations import CAPABILITIES
from castore.contract.upkeep import Evictable, Inventory, Pinning, Sweepable
from castore.format import frames
from castore.metrics.meters import Meters
from castore.metrics.shell import measured
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore.testing import CHUNKS, HELLO, P3M, FaultyService
from castore.threads.pool import Pool
from castore_cache.backlog import Backlog
from castore_cache.behind import Behind
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_lru.bounds import Bounds
from castore_lru.service import LruBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.service import MirrorBlobService
from castore_objectstore.locations import open_store
from castore_objectstore.service import ObjectStoreBlobService
from castore_wrappers.breaker.service import BreakerService
from castore_wrappers.limit.service import LimitService
from castore_wrappers.read_only.service import ReadOnlyService
from castore_wrappers.retry.service import RetryService
from castore_wrappers.timeout.service import TimeoutService
from castore_wrappers.verify.service import VerifyService

Capability = type
Make = Callable[[BlobService], contextlib.AbstractContextManager[BlobService]]

ALL: Final = frozenset(CAPABILITIES)
OF_CHUNKS: Final = frozenset({BlobLister, ChunkSource, ChunkStore})
OF_MEMORY: Final = OF_CHUNKS | {Evictable}
OF_OBJECTS: Final = OF_MEMORY | {Durable, FrameStore, Inventory, Sweepable}
TO_READ: Final = frozenset({BlobLister, ChunkSource, Durable, EvictionEvents})


def objects_in(url: str, folder: Path) -> BlobService:
    store = open_store(url, {}, base=folder, instance="store")
    return ObjectStoreBlobService(store, pool=Pool(0))


class Smallest(BlobService):
    """Three methods, no capabilities."""

    def __init__(self) -> None:
        self.blobs: dict[B3Digest, bytes] = {}

    def has(self, digest: B3Digest) -> bool:
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return BytesReader(self.blobs[digest]) if digest in self.blobs else None

    def open_write(self) -> BlobWriter:
        return SpooledWriter(lambda digest, file: self.blobs.setdefault(digest, file.read()))


class Rich(  # type: ignore[misc]
    MemoryBlobService, BlobDeleter, EvictionEvents, Durable, Pinning, SharedPlace
):
    """Has the capabilities that no bundled service has."""

    durability = "process"

    def __init__(self) -> None:
        super().__init__()
        self.places: set[B3Digest] = set()

    def delete(self, digest: B3Digest) -> bool:
        self._chunks.pop(digest, None)
        return self._indexes.pop(digest, None) is not None

    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        return lambda: None

    def pin(self, digests: Collection[B3Digest]) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def try_alone(self, digests: Collection[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        alone = frozenset(digests) - self.places
        self.places |= alone
        yield alone
        self.places -= alone


@attrs.frozen
class Within:
    make: Callable[[Path], BlobService]
    capabilities: frozenset[Capability]


STORES: Final[Mapping[str, Within]] = {
    "memory": Within(lambda _: MemoryBlobService(), OF_MEMORY),
    "objects-in-memory": Within(lambda folder: objects_in("memory:", folder), OF_OBJECTS),
    "objects-in-a-folder": Within(
        lambda folder: objects_in("file:store", folder), OF_OBJECTS | {SharedPlace}
    ),
    "rich": Within(
        lambda _: Rich(),
        OF_MEMORY | {BlobDeleter, EvictionEvents, Durable, Pinning, SharedPlace},
    ),
    "smallest": Within(lambda _: Smallest(), frozenset()),
    "shut": Within(
        lambda folder: FaultyService(objects_in("memory:", folder), capabilities=False), frozenset()
    ),
    "cache": Within(lambda _: CacheBlobService(MemoryBlobService(), MemoryBlobService()), OF_CHUNKS),
    "cache-of-smallest": Within(lambda _: CacheBlobService(Smallest(), Smallest()), frozenset({ChunkSource})),
}


@attrs.frozen
class Wrapper:
    make: Make
    keeps: frozenset[Capability] = ALL
    """The capabilities of the store within that it has as well."""
    adds: frozenset[Capability] = frozenset()
    """The capabilities that it has whatever the store can do."""
    but: Mapping[str, frozenset[Capability]] = attrs.field(factory=dict)
    """By the name of a store: the capabilities it has then, where the rule is another."""
    writes: bool = True
    """Whether it takes blobs."""
    needs: frozenset[Capability] = frozenset()
    """The capabilities that a store must have; one without is refused."""


WRAPPERS: Final[Mapping[str, Wrapper]] = {
    "breaker": Wrapper(BreakerService),
    "faulty": Wrapper(FaultyService),
    "a shell that measures": Wrapper(lambda store: measured(store, Meters())),
    "lru": Wrapper(
        lambda store: LruBlobService(store, Bounds(max_bytes=1 << 40)),
        keeps=ALL - {Evictable},
        adds=frozenset({EvictionEvents, Pinning}),
        needs=frozenset({ChunkStore, Evictable}),
    ),
    "limit": Wrapper(lambda store: LimitService(store, concurrency=1, bytes_per_second=1 << 40)),
    "read_only": Wrapper(ReadOnlyService, keeps=TO_READ, writes=False),
    "retry": Wrapper(RetryService),
    "timeout": Wrapper(lambda store: TimeoutService(store, timeout=60.0)),
    "verify": Wrapper(VerifyService),
}


def filled(service: BlobService) -> BlobService:
    for blob in (HELLO, P3M):
        service.write(blob.data)
    return service


@contextlib.contextmanager
def queue_for(store: BlobService, far: BlobService) -> Iterator[BlobService]:
    with TemporaryDirectory() as folder:
        backlog = Backlog(Path(folder) / "queue")
        with CacheBlobService(
            store, far, write="behind", behind=lambda near: Behind(near, far, backlog)
        ) as service:
            yield service


OF_BOTH: Final = frozenset({BlobDeleter, BlobLister})
"""What a cache has if near and far have it."""

BESIDE_OTHERS: Final[Mapping[str, Wrapper]] = {
    "cache": Wrapper(
        lambda store: CacheBlobService(store, Rich()),
        keeps=OF_BOTH | {ChunkStore, Durable},
        adds=frozenset({ChunkSource}),
    ),
    "cache-writing-far": Wrapper(
        lambda store: CacheBlobService(store, Rich(), write="far"),
        keeps=OF_BOTH,
        adds=frozenset({ChunkSource, ChunkStore, Durable}),
    ),
    "cache-writing-both": Wrapper(
        lambda store: CacheBlobService(store, Rich(), write="both"),
        keeps=OF_BOTH | {ChunkStore},
        adds=frozenset({ChunkSource, Durable}),
    ),
    "cache-with-a-strict-near": Wrapper(
        lambda store: CacheBlobService(store, Rich(), write="both", on_near_error="fail"),
        keeps=OF_BOTH | {ChunkStore},
        adds=frozenset({ChunkSource, Durable}),
    ),
    "cache-of-what-is-durable": Wrapper(
        lambda store: CacheBlobService(store, filled(Rich()), write="both", has="durable"),
        keeps=frozenset({BlobDeleter, BlobLister, ChunkStore}),
        adds=frozenset({ChunkSource, Durable}),
    ),
    "cache-writing-behind": Wrapper(
        lambda store: queue_for(store, Rich()),
        keeps=OF_BOTH | {ChunkStore, Durable},
        adds=frozenset({ChunkSource}),
    ),
    "cache-as-far": Wrapper(
        lambda store: CacheBlobService(Rich(), store),
        keeps=OF_BOTH,
        adds=frozenset({ChunkSource, ChunkStore, Durable}),
    ),
    "cache-as-far-writing-far": Wrapper(
        lambda store: CacheBlobService(Rich(), store, write="far"),
        keeps=OF_BOTH | {ChunkStore, Durable},
        adds=frozenset({ChunkSource}),
    ),
    "fallback": Wrapper(
        lambda store: FallbackBlobService([Member("store", store), Member("rich", Rich())], pool=Pool(0)),
        keeps=frozenset({BlobDeleter, BlobLister, ChunkStore, Durable}),
        adds=frozenset({ChunkSource}),
    ),
    "mirror": Wrapper(
        lambda store: MirrorBlobService(
            [Member("store", store), Member("rich", Rich())], write_quorum=2, miss_quorum=1, pool=Pool(0)
        ),
        keeps=frozenset({BlobDeleter, BlobLister, ChunkStore}),
        adds=frozenset({ChunkSource, Durable}),
    ),
}


def expected_of(store: str, wrappers: list[Wrapper]) -> frozenset[Capability]:
    """Return the capabilities of a stack, by the tables; *wrappers* from the inside out."""
    found = STORES[store].capabilities
    for place, wrapper in enumerate(wrappers):
        kept = wrapper.but[store] if place == 0 and store in wrapper.but else found & wrapper.keeps
        found = kept | wrapper.adds
    return found


def capabilities_of(service: BlobService) -> frozenset[Capability]:
    return frozenset(kind for kind in ALL if service.capability(kind) is not None)


def content_of(store: BlobService) -> Any:
    """Everything that can be seen of what a store holds."""
    digests = [HELLO.digest, P3M.digest, *(chunk.digest for chunk in CHUNKS)]
    lister, inventory = store.capability(BlobLister), store.capability(Inventory)
    return (
        [(store.has(digest), store.chunks(digest)) for digest in digests],
        None if lister is None else sorted(lister.list_blobs()),
        None if inventory is None else sorted(inventory.list_items(), key=lambda item: item.key),
    )


# -- what it means that a capability works --

GONE: Final = B3Digest.of(b"absent")


def lists(service: BlobService, found: BlobLister) -> None:
    assert {HELLO.digest, P3M.digest} <= set(found.list_blobs())


def reads_chunks(service: BlobService, found: ChunkSource) -> None:
    sizes = {meta.digest: meta.size for meta in service.chunks(P3M.digest) or (HELLO.meta,)}
    assert found.find_chunks([*sizes, GONE]) == set(sizes)
    chunks = found.get_chunks({**sizes, GONE: None})
    assert {digest: B3Digest.of(data) for digest, data in chunks.items()} == {each: each for each in sizes}


def writes_chunks(service: BlobService, found: ChunkStore) -> None:
    whole = bytes(range(16))
    chunks = {chunk.digest: chunk.data for chunk in CHUNKS}
    with found.lease() as leased:
        known = leased.claim(chunks)
        leased.put_chunks({digest: data for digest, data in chunks.items() if digest not in known})
        leased.put_indexes({B3Digest.of(whole): [chunk.meta for chunk in CHUNKS]})
    assert service.read(B3Digest.of(whole)) == whole
    assert found.claim_blobs({GONE: None}) == set()
    found.put_indexes({})


def copies_frames(service: BlobService, found: FrameStore) -> None:
    (frame,) = found.get_frames([HELLO.digest, GONE]).values()
    assert frames.decode_chunk(frame, HELLO.digest) == HELLO.data
    found.put_frames({CHUNKS[1].digest: frames.compress(CHUNKS[1].data)})
    assert service.read(CHUNKS[1].digest) == CHUNKS[1].data


def sets_aside(service: BlobService, found: Inventory) -> None:
    items = [item for item in found.list_items() if item.digest == HELLO.digest]
    assert {item.kind for item in items} == {"index", "chunk"}
    for item in items:
        assert "quarantine" in found.set_aside(item)
    assert not service.has(HELLO.digest)


def sweeps(service: BlobService, found: Sweepable) -> None:
    assert found.leased_since() is None
    assert list(found.sweep(found.list_items(), older_than=0.0)) == []


def deletes(service: BlobService, found: BlobDeleter) -> None:
    assert found.delete(HELLO.digest) is True
    assert not service.has(HELLO.digest)
    assert found.delete(HELLO.digest) is False


def keeps_processes_apart(service: BlobService, found: SharedPlace) -> None:
    for _ in range(2):
        with found.try_alone([HELLO.digest]) as alone, found.try_alone([HELLO.digest, GONE]) as also:
            assert (alone, also) == ({HELLO.digest}, {GONE})
    assert found.find_unflushed({GONE: None}) == {}


def tells_evictions(service: BlobService, found: EvictionEvents) -> None:
    found.on_evict(lambda digest: None)()


def lasts(service: BlobService, found: Durable) -> None:
    assert found.durability in {"process", "full"}


def is_kept_within_bounds(service: BlobService, found: Evictable) -> None:
    items = [*found.find_items("index", [HELLO.digest, GONE]).values()]
    (chunk,) = found.find_items("chunk", [HELLO.digest, GONE]).values()
    assert {chunk, *items} <= set(found.stored_items())
    assert (chunk.size or 0) <= found.chunk_bound(HELLO.size)
    assert found.residue_of("chunk", [HELLO.digest]) == []
    found.flush()
    found.remove([chunk, *items])
    assert not service.has(HELLO.digest)
    found.remove([chunk])
    assert found.find_items("chunk", [HELLO.digest]) == {}
    service.write(HELLO.data)


def pins(service: BlobService, found: Pinning) -> None:
    with found.pin([HELLO.digest, GONE]):
        assert service.read(HELLO.digest) == HELLO.data


# Those that take something away come last.
WORKS: Final[Mapping[Capability, Callable[[BlobService, Any], None]]] = {
    BlobLister: lists,
    ChunkSource: reads_chunks,
    ChunkStore: writes_chunks,
    FrameStore: copies_frames,
    EvictionEvents: tells_evictions,
    Durable: lasts,
    Pinning: pins,
    SharedPlace: keeps_processes_apart,
    Sweepable: sweeps,
    Evictable: is_kept_within_bounds,
    Inventory: sets_aside,
    BlobDeleter: deletes,
}


def check(store: BlobService, service: BlobService, expected: frozenset[Capability], *, writes: bool) -> None:
    """Fail unless *service* around *store* has just the capabilities that are expected, and each works."""
    store.write(HELLO.data)
    store.write(P3M.data)
    before = content_of(store)
    assert capabilities_of(service) == expected
    if not writes:
        with pytest.raises(UnsupportedError):
            service.write(CHUNKS[0].data)
    assert content_of(store) == before
    for kind, works in WORKS.items():
        found = service.capability(kind)
        if found is not None:
            assert isinstance(found, kind)
            works(service, found)


def refuses(wrapper: Wrapper, store: BlobService) -> None:
    before = content_of(store)
    with pytest.raises(UnsupportedError, match="cannot"):
        wrapper.make(store)
    assert content_of(store) == before


@pytest.mark.parametrize("store", STORES)
def test_stores_have_what_the_table_says(store: str, tmp_path: Path) -> None:
    """Or else the table of wrappers would stand on sand."""
    service = STORES[store].make(tmp_path)
    check(service, service, STORES[store].capabilities, writes=True)


@pytest.mark.parametrize("name", [*WRAPPERS, *BESIDE_OTHERS])
def test_each_wrapper_over_each_store(name: str, tmp_path: Path) -> None:
    """A capability that is declared works; one that is not is `None`, and nothing changes by asking."""
    wrapper = {**WRAPPERS, **BESIDE_OTHERS}[name]
    for store, row in STORES.items():
        within = row.make(tmp_path / store)
        if wrapper.needs <= row.capabilities:
            with wrapper.make(within) as service:
                check(within, service, expected_of(store, [wrapper]), writes=wrapper.writes)
        else:
            refuses(wrapper, within)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_capability_is_that_alone(wrapper: str, tmp_path: Path) -> None:
    """Who asks for reading chunks gets no object that can also write them, or anything else."""
    service = WRAPPERS[wrapper].make(objects_in("memory:", tmp_path))
    for kind in capabilities_of(service):
        found = service.capability(kind)
        assert {other for other in ALL if isinstance(found, other)} == {
            other for other in ALL if issubclass(kind, other)
        }


@given(
    store=st.sampled_from(sorted(STORES)),
    names=st.lists(st.sampled_from(sorted(WRAPPERS)), min_size=2, max_size=6),
)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_stacks_of_wrappers(store: str, names: list[str], tmp_path: Path) -> None:
    """However wrappers are stacked, what comes out is what the tables say, step by step."""
    within = STORES[store].make(tmp_path / str(random.getrandbits(64)))
    wrappers = [WRAPPERS[name] for name in names]
    service = within
    found = STORES[store].capabilities
    for place, wrapper in enumerate(wrappers):
        if not wrapper.needs <= found:
            refuses(wrapper, service)
            return
        service = wrapper.make(service)
        found = expected_of(store, wrappers[: place + 1])
    writes = all(wrapper.writes for wrapper in wrappers)
    check(within, service, expected_of(store, wrappers), writes=writes)


def test_the_table_knows_every_capability() -> None:
    """A new capability must find its place here."""
    found = {
        value
        for module in (capabilities, upkeep)
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and issubclass(value, capabilities.ABC)
    }
    assert found == ALL == set(WORKS)
