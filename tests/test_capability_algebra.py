"""What a wrapper can do follows from what is within: none of its capabilities is lost, and none is made up.

The tables say which capabilities each child has, and which of them each wrapper keeps. A new wrapper joins by a row
in `WRAPPERS`; one whose answer depends on more than that names it for each child, in `but`. Services over
several children stand in `BESIDE_OTHERS`, each with one that has nearly every capability beside the child.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castore import B3Digest, BlobReader, BlobService, BlobWriter, UnsupportedError
from castore.composites.members import Child
from castore.contract import capabilities
from castore.contract.capabilities import (
    BatchExistence,
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
    SharedPlace,
)
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
from castore_wrappers.verify.service import VerifyService

Capability = type
Make = Callable[[BlobService], contextlib.AbstractContextManager[BlobService]]

ALL: Final = frozenset({
    BatchExistence, BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable, Evictable, EvictionEvents,
    FrameStore, Inventory, Pinning, SharedPlace, Sweepable,
})  # fmt: skip
OF_CHUNKS: Final = frozenset({BlobLister, ChunkSource, ChunkStore})
OF_MEMORY: Final = OF_CHUNKS | {Evictable}
OF_OBJECTS: Final = OF_MEMORY | {Durable, FrameStore, Inventory, Sweepable}
TO_READ: Final = frozenset({BatchExistence, BlobLister, ChunkSource, Durable, EvictionEvents})


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
    MemoryBlobService, BlobDeleter, BatchExistence, EvictionEvents, Durable, Pinning, SharedPlace
):
    """Has the capabilities that no bundled service has."""

    durability = "process"

    def delete(self, digest: B3Digest) -> bool:
        return self._blobs.pop(digest, None) is not None

    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        return lambda: None

    def pin(self, digest: B3Digest) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def try_alone(self, digest: B3Digest) -> Iterator[bool]:
        locks = self.__dict__.setdefault("locks", set())
        alone = digest not in locks
        locks.add(digest)
        yield alone
        if alone:
            locks.remove(digest)


@attrs.frozen
class Within:
    make: Callable[[Path], BlobService]
    capabilities: frozenset[Capability]


CHILDREN: Final[Mapping[str, Within]] = {
    "memory": Within(lambda _: MemoryBlobService(), OF_MEMORY),
    "objects-in-memory": Within(lambda folder: objects_in("memory:", folder), OF_OBJECTS),
    "objects-in-a-folder": Within(
        lambda folder: objects_in("file:store", folder), OF_OBJECTS | {SharedPlace}
    ),
    "rich": Within(
        lambda _: Rich(),
        OF_MEMORY | {BlobDeleter, BatchExistence, EvictionEvents, Durable, Pinning, SharedPlace},
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
    """The capabilities of the child that it has as well."""
    adds: frozenset[Capability] = frozenset()
    """The capabilities that it has whatever the child can do."""
    but: Mapping[str, frozenset[Capability]] = attrs.field(factory=dict)
    """By the name of a child: the capabilities it has then, where the rule is another."""
    writes: bool = True
    """Whether it takes blobs."""
    needs: frozenset[Capability] = frozenset()
    """The capabilities that a child must have; one without is refused."""


WRAPPERS: Final[Mapping[str, Wrapper]] = {
    "breaker": Wrapper(BreakerService),
    "a shell that measures": Wrapper(lambda child: measured(child, Meters())),
    "lru": Wrapper(
        lambda child: LruBlobService(child, Bounds(max_bytes=1 << 40)),
        keeps=ALL - {Evictable},
        adds=frozenset({EvictionEvents, Pinning}),
        needs=frozenset({ChunkStore, Evictable}),
    ),
    "limit": Wrapper(lambda child: LimitService(child, concurrency=1, bytes_per_second=1 << 40)),
    "read_only": Wrapper(ReadOnlyService, keeps=TO_READ, writes=False),
    "retry": Wrapper(RetryService),
    "verify": Wrapper(VerifyService),
}


def filled(service: BlobService) -> BlobService:
    for blob in (HELLO, P3M):
        service.write(blob.data)
    return service


@contextlib.contextmanager
def queue_for(child: BlobService, far: BlobService) -> Iterator[BlobService]:
    with TemporaryDirectory() as folder:
        backlog = Backlog(Path(folder) / "queue")
        with CacheBlobService(
            child, far, write="behind", behind=lambda near: Behind(near, far, backlog)
        ) as service:
            yield service


OF_BOTH: Final = frozenset({BatchExistence, BlobDeleter, BlobLister})
"""What a cache has if near and far have it."""

BESIDE_OTHERS: Final[Mapping[str, Wrapper]] = {
    "cache": Wrapper(
        lambda child: CacheBlobService(child, Rich()),
        keeps=OF_BOTH | {ChunkStore, Durable},
        adds=frozenset({ChunkSource}),
    ),
    "cache-writing-far": Wrapper(
        lambda child: CacheBlobService(child, Rich(), write="far"),
        keeps=OF_BOTH,
        adds=frozenset({ChunkSource, ChunkStore, Durable}),
    ),
    "cache-writing-both": Wrapper(
        lambda child: CacheBlobService(child, Rich(), write="both"),
        keeps=OF_BOTH | {ChunkStore},
        adds=frozenset({ChunkSource, Durable}),
    ),
    "cache-with-a-strict-near": Wrapper(
        lambda child: CacheBlobService(child, Rich(), write="both", on_near_error="fail"),
        keeps=OF_BOTH | {ChunkStore},
        adds=frozenset({ChunkSource, Durable}),
    ),
    "cache-of-what-is-durable": Wrapper(
        lambda child: CacheBlobService(child, filled(Rich()), write="both", has="durable"),
        keeps=frozenset({BlobDeleter, BlobLister, ChunkStore}),
        adds=frozenset({BatchExistence, ChunkSource, Durable}),
    ),
    "cache-writing-behind": Wrapper(
        lambda child: queue_for(child, Rich()),
        keeps=OF_BOTH | {ChunkStore, Durable},
        adds=frozenset({ChunkSource}),
    ),
    "cache-as-far": Wrapper(
        lambda child: CacheBlobService(Rich(), child),
        keeps=OF_BOTH,
        adds=frozenset({ChunkSource, ChunkStore, Durable}),
    ),
    "cache-as-far-writing-far": Wrapper(
        lambda child: CacheBlobService(Rich(), child, write="far"),
        keeps=OF_BOTH | {ChunkStore, Durable},
        adds=frozenset({ChunkSource}),
    ),
    "fallback": Wrapper(
        lambda child: FallbackBlobService([Child("child", child), Child("rich", Rich())], pool=Pool(0)),
        keeps=frozenset({BatchExistence, BlobDeleter, BlobLister, ChunkStore, Durable}),
        adds=frozenset({ChunkSource}),
    ),
    "mirror": Wrapper(
        lambda child: MirrorBlobService(
            [Child("child", child), Child("rich", Rich())], write_quorum=2, miss_quorum=1, pool=Pool(0)
        ),
        keeps=frozenset({BatchExistence, BlobDeleter, BlobLister, ChunkStore}),
        adds=frozenset({ChunkSource, Durable}),
    ),
}


def expected_of(child: str, wrappers: list[Wrapper]) -> frozenset[Capability]:
    """Return the capabilities of a stack, by the tables; *wrappers* from the inside out."""
    capabilities = CHILDREN[child].capabilities
    for place, wrapper in enumerate(wrappers):
        kept = wrapper.but[child] if place == 0 and child in wrapper.but else capabilities & wrapper.keeps
        capabilities = kept | wrapper.adds
    return capabilities


def powers_of(service: BlobService) -> frozenset[Capability]:
    return frozenset(kind for kind in ALL if service.capability(kind) is not None)


def content_of(child: BlobService) -> Any:
    """Everything that can be seen of what a child holds."""
    digests = [HELLO.digest, P3M.digest, *(chunk.digest for chunk in CHUNKS)]
    lister, inventory = child.capability(BlobLister), child.capability(Inventory)
    return (
        [(child.has(digest), child.chunks(digest)) for digest in digests],
        None if lister is None else sorted(lister.list_blobs()),
        None if inventory is None else sorted(inventory.list_items(), key=lambda item: item.key),
    )


# -- what it means that a capability works --


def lists(service: BlobService, kind: BlobLister) -> None:
    assert {HELLO.digest, P3M.digest} <= set(kind.list_blobs())


def reads_chunks(service: BlobService, kind: ChunkSource) -> None:
    for meta in service.chunks(P3M.digest) or (HELLO.meta,):
        assert kind.has_chunk(meta.digest)
        assert B3Digest.of(kind.get_chunk(meta.digest, meta.size) or b"") == meta.digest
    assert kind.get_chunk(B3Digest.of(b"absent")) is None


def writes_chunks(service: BlobService, kind: ChunkStore) -> None:
    whole = bytes(range(16))
    with kind.hold():
        for chunk in CHUNKS:
            if not kind.claim_chunk(chunk.digest):
                kind.put_chunk(chunk.digest, chunk.data)
    kind.put_indexes([(B3Digest.of(whole), [chunk.meta for chunk in CHUNKS])])
    assert service.read(B3Digest.of(whole)) == whole


def copies_frames(service: BlobService, kind: FrameStore) -> None:
    frame = kind.get_frame(HELLO.digest)
    assert frame is not None
    assert frames.decode_chunk(frame, HELLO.digest) == HELLO.data
    kind.put_frame(CHUNKS[1].digest, frames.compress(CHUNKS[1].data))
    assert service.read(CHUNKS[1].digest) == CHUNKS[1].data


def sets_aside(service: BlobService, kind: Inventory) -> None:
    items = [item for item in kind.list_items() if item.digest == HELLO.digest]
    assert {item.kind for item in items} == {"index", "chunk"}
    for item in items:
        assert "quarantine" in kind.set_aside(item)
    assert not service.has(HELLO.digest)


def sweeps(service: BlobService, kind: Sweepable) -> None:
    assert kind.held_since() is None
    assert list(kind.sweep(kind.list_items(), older_than=0.0)) == []


def deletes(service: BlobService, kind: BlobDeleter) -> None:
    assert kind.delete(HELLO.digest) is True
    assert not service.has(HELLO.digest)
    assert kind.delete(HELLO.digest) is False


def keeps_processes_apart(service: BlobService, kind: SharedPlace) -> None:
    for _ in range(2):
        with kind.try_alone(HELLO.digest) as alone, kind.try_alone(HELLO.digest) as also:
            assert (alone, also) == (True, False)
    assert kind.find_unsettled(B3Digest.of(b"absent")) is None


def answers_batches(service: BlobService, kind: BatchExistence) -> None:
    absent = B3Digest.of(b"absent")
    assert kind.missing([P3M.digest, absent]) == {absent}


def tells_evictions(service: BlobService, kind: EvictionEvents) -> None:
    kind.on_evict(lambda digest: None)()


def lasts(service: BlobService, kind: Durable) -> None:
    assert kind.durability in {"process", "full"}


def is_kept_within_bounds(service: BlobService, kind: Evictable) -> None:
    item = kind.find_item("chunk", HELLO.digest)
    assert item is not None
    assert item in list(kind.stored_items())
    assert (item.size or 0) <= kind.chunk_bound(HELLO.size)
    assert kind.residue_of("chunk", HELLO.digest) == []
    kind.settle()
    index = kind.find_item("index", HELLO.digest)
    kind.remove([item for item in (index, item) if item is not None])
    assert not service.has(HELLO.digest)
    kind.remove([item])
    assert kind.find_item("chunk", HELLO.digest) is None
    store = service.capability(ChunkStore)
    assert store is not None
    with kind.open_write_to(store) as writer:
        writer.write(HELLO.data)
    assert service.read(HELLO.digest) == HELLO.data


def pins(service: BlobService, kind: Pinning) -> None:
    with kind.pin(HELLO.digest):
        assert service.read(HELLO.digest) == HELLO.data


# Those that take something away come last.
WORKS: Final[Mapping[Capability, Callable[[BlobService, Any], None]]] = {
    BlobLister: lists,
    ChunkSource: reads_chunks,
    ChunkStore: writes_chunks,
    FrameStore: copies_frames,
    BatchExistence: answers_batches,
    EvictionEvents: tells_evictions,
    Durable: lasts,
    Pinning: pins,
    SharedPlace: keeps_processes_apart,
    Sweepable: sweeps,
    Evictable: is_kept_within_bounds,
    Inventory: sets_aside,
    BlobDeleter: deletes,
}


def check(child: BlobService, service: BlobService, expected: frozenset[Capability], *, writes: bool) -> None:
    """Fail unless *service* around *child* has just the capabilities that are expected, and each of them works."""
    child.write(HELLO.data)
    child.write(P3M.data)
    before = content_of(child)
    assert powers_of(service) == expected
    if not writes:
        with pytest.raises(UnsupportedError):
            service.write(CHUNKS[0].data)
    assert content_of(child) == before
    for kind, works in WORKS.items():
        found = service.capability(kind)
        if found is not None:
            assert isinstance(found, kind)
            works(service, found)


def refuses(wrapper: Wrapper, child: BlobService) -> None:
    before = content_of(child)
    with pytest.raises(UnsupportedError, match="cannot"):
        wrapper.make(child)
    assert content_of(child) == before


@pytest.mark.parametrize("child", CHILDREN)
def test_children_have_what_the_table_says(child: str, tmp_path: Path) -> None:
    """Or else the table of wrappers would stand on sand."""
    service = CHILDREN[child].make(tmp_path)
    check(service, service, CHILDREN[child].capabilities, writes=True)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("name", [*WRAPPERS, *BESIDE_OTHERS])
def test_each_wrapper_over_each_child(name: str, child: str, tmp_path: Path) -> None:
    """A capability that is declared works; one that is not is `None`, and nothing changes by asking."""
    wrapper = {**WRAPPERS, **BESIDE_OTHERS}[name]
    within = CHILDREN[child].make(tmp_path)
    if not wrapper.needs <= CHILDREN[child].capabilities:
        refuses(wrapper, within)
        return
    with wrapper.make(within) as service:
        check(within, service, expected_of(child, [wrapper]), writes=wrapper.writes)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_power_is_that_power_alone(wrapper: str, tmp_path: Path) -> None:
    """Who asks for reading chunks gets no object that can also write them, or anything else."""
    service = WRAPPERS[wrapper].make(objects_in("memory:", tmp_path))
    for kind in powers_of(service):
        found = service.capability(kind)
        assert {other for other in ALL if isinstance(found, other)} == {
            other for other in ALL if issubclass(kind, other)
        }


@given(
    child=st.sampled_from(sorted(CHILDREN)),
    names=st.lists(st.sampled_from(sorted(WRAPPERS)), min_size=2, max_size=6),
)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_stacks_of_wrappers(child: str, names: list[str], tmp_path: Path) -> None:
    """However wrappers are stacked, what comes out is what the tables say, step by step."""
    within = CHILDREN[child].make(tmp_path / str(random.getrandbits(64)))
    wrappers = [WRAPPERS[name] for name in names]
    service = within
    capabilities = CHILDREN[child].capabilities
    for place, wrapper in enumerate(wrappers):
        if not wrapper.needs <= capabilities:
            refuses(wrapper, service)
            return
        service = wrapper.make(service)
        capabilities = expected_of(child, wrappers[: place + 1])
    writes = all(wrapper.writes for wrapper in wrappers)
    check(within, service, expected_of(child, wrappers), writes=writes)


def test_the_table_knows_every_power() -> None:
    """A new capability must find its place here."""
    found = {
        value
        for value in vars(capabilities).values()
        if isinstance(value, type) and issubclass(value, capabilities.ABC) and value is not capabilities.ABC
    }
    assert found == ALL == set(WORKS)
