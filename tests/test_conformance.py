"""Every bundled service, and compositions of them, keep the contract and agree with a dictionary."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from castore import BlobReader, BlobService, BlobWriter, Composition, Ref, Registry
from castore.composition import BuildContext
from castore.faults import READS
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore.testing import BlobServiceContract, FaultyService, blob_service_machine

STORIES = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

MEMORY = {"type": "memory"}
FOLDER = {"type": "objectstore", "object_store_url": "file:./store"}
BUCKET = {"type": "objectstore", "object_store_url": "memory:"}
SQLITE = {"type": "sqlite", "path": "folder/blobs.sqlite"}
# So small that the stories' blobs are cut, into many chunks.
TINY_FOLDER = {**FOLDER, "avg_chunk_size": 512}
TINY_BUCKET = {**BUCKET, "avg_chunk_size": 700}
TINY_SQLITE = {**SQLITE, "avg_chunk_size": 512, "durability": "process"}
SMALLEST = {"type": "smallest"}
FAILING = {"type": "failing-reads", "inner": "&kept"}


class SmallestService(BlobService):
    """As a stranger would begin: three methods, no chunks, no capabilities, blobs only by their own digests."""

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes] = {}

    def has(self, digest: bytes) -> bool:
        return digest in self._blobs

    def open_read(self, digest: bytes) -> BlobReader | None:
        data = self._blobs.get(digest)
        return None if data is None else StrangersReader(data)

    def open_write(self) -> BlobWriter:
        return SpooledWriter(lambda digest, file: self._blobs.setdefault(digest, file.read()))


class StrangersReader(BytesReader):
    """Gives small pieces, as something that comes over a network."""

    def piece_at(self, position: int) -> memoryview:
        return super().piece_at(position)[:10_007]


@attrs.frozen
class SmallestConfig:
    def build(self, name: str, context: BuildContext) -> BlobService:
        return SmallestService()


@attrs.frozen
class FailingReadsConfig:
    inner: Ref[BlobService]

    def build(self, name: str, context: BuildContext) -> BlobService:
        return FaultyService(context.resolve(self.inner), READS, instance=name)


REGISTRY = Registry.default()
REGISTRY.register(BlobService, "smallest", SmallestConfig)
REGISTRY.register(BlobService, "failing-reads", FailingReadsConfig)


class Stack(BlobServiceContract):
    """A composition to test; the clauses run over `stack`, the stories over `tiny`, which cuts more."""

    stack: ClassVar[Mapping[str, Mapping[str, Any]]]
    tiny: ClassVar[Mapping[str, Mapping[str, Any]]]

    def __init_subclass__(cls, *, stack: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init_subclass__()
        cls.stack = stack
        smaller = {id(FOLDER): TINY_FOLDER, id(BUCKET): TINY_BUCKET, id(SQLITE): TINY_SQLITE}
        cls.tiny = {name: smaller.get(id(table), table) for name, table in stack.items()}

    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[BlobService]:
        tables = {"blobservices": self.stack}
        with Composition.from_mapping(tables, base=tmp_path, registry=REGISTRY) as stores:
            yield stores.blobs()

    def test_agrees_with_a_dictionary(self, tmp_path: Path) -> None:
        """No story of puts, aborts and reads ends other than it would over a dict."""
        numbers = itertools.count()

        def make() -> BlobService:
            stores = Composition.from_mapping(
                {"blobservices": self.tiny}, base=tmp_path / str(next(numbers)), registry=REGISTRY
            )
            service = stores.blobs()
            service.close = stores.close  # type: ignore[method-assign]
            return service

        run_state_machine_as_test(blob_service_machine(make, max_size=10_000), settings=STORIES)
        assert next(numbers) >= STORIES.max_examples


def cache(near: Any, far: Any, write: str, **settings: Any) -> dict[str, Any]:
    root = {"type": "cache", "near": "&near", "far": "&far", "write": write, **settings}
    return {"root": root, "near": near, "far": far}


class TestMemory(Stack, stack={"root": MEMORY}):
    pass


class TestFolder(Stack, stack={"root": FOLDER}):
    pass


class TestBucketInMemory(Stack, stack={"root": BUCKET}):
    pass


class TestSqlite(Stack, stack={"root": SQLITE}):
    pass


class TestStrangersSmallest(Stack, stack={"root": SMALLEST}):
    pass


class TestCacheOfMemoriesWritingNear(Stack, stack=cache(MEMORY, MEMORY, "near")):
    pass


class TestCacheOfMemoriesWritingFar(Stack, stack=cache(MEMORY, MEMORY, "far")):
    pass


class TestCacheOfMemoriesWritingBoth(Stack, stack=cache(MEMORY, MEMORY, "both")):
    pass


class TestCacheOfObjectStoresWritingNear(Stack, stack=cache(FOLDER, BUCKET, "near")):
    pass


class TestCacheOfObjectStoresWritingFar(Stack, stack=cache(FOLDER, BUCKET, "far")):
    pass


class TestCacheOfObjectStoresWritingBoth(Stack, stack=cache(FOLDER, BUCKET, "both")):
    pass


class TestSqliteBeforeBucketWritingFar(Stack, stack=cache(SQLITE, BUCKET, "far")):
    pass


class TestSqliteBeforeBucketWritingBoth(Stack, stack=cache(SQLITE, BUCKET, "both")):
    pass


class TestMemoryBeforeBucketWritingNear(Stack, stack=cache(MEMORY, BUCKET, "near")):
    pass


class TestMemoryBeforeBucketWritingFar(Stack, stack=cache(MEMORY, BUCKET, "far")):
    pass


class TestMemoryBeforeBucketWritingBoth(Stack, stack=cache(MEMORY, BUCKET, "both")):
    pass


class TestCacheThatKeepsNothing(Stack, stack=cache(FOLDER, BUCKET, "far", fill="none")):
    pass


class TestCacheThatKeepsWholeBlobs(Stack, stack=cache(MEMORY, BUCKET, "far", fill="blob")):
    pass


class TestCacheOfSmallestThatKeepsWholeBlobs(Stack, stack=cache(SMALLEST, SMALLEST, "far", fill="blob")):
    pass


class TestCacheOfWhatIsDurable(Stack, stack=cache(MEMORY, BUCKET, "both", has="durable")):
    pass


class TestCacheOfErrors(
    Stack, stack=cache(MEMORY, BUCKET, "both", on_near_error="fail", on_far_error="miss")
):
    pass


class TestCacheWritingBehind(Stack, stack=cache(FOLDER, BUCKET, "behind", queue="queue")):
    pass


class TestCacheWritingBehindToTheSmallest(
    Stack, stack=cache(SQLITE, SMALLEST, "behind", queue="queue", has="durable", queue_limit=1)
):
    xfail: ClassVar = {
        "chunks-can-be-read": "what is found is what far has, and this one has no chunks",
        "chunk-store-keeps-chunks": "what is found is what far has, and this one has no chunks",
    }


class TestCacheWhoseFarIsDown(
    Stack,
    stack=cache(
        FOLDER, {"type": "error"}, "behind", queue="queue", on_far_error="miss", drain=0, retry_after=60
    ),
):
    """What is written is there, and waits. A blob that far cannot be asked for is absent, but no chunk is."""

    xfail: ClassVar = {
        "chunk-source-knows-absence": "a chunk is part of a blob that is there",
        "chunk-source-checks-sizes": "far might have a chunk of that size",
    }


BEHIND = {"type": "cache", "near": "&first", "far": "&second", "write": "far"}
BEFORE = {**BEHIND, "write": "both"}


class TestCacheOfCache(Stack, stack={**cache(MEMORY, BEHIND, "far"), "first": FOLDER, "second": MEMORY}):
    pass


class TestCacheAsNear(Stack, stack={**cache(BEFORE, BUCKET, "far"), "first": MEMORY, "second": MEMORY}):
    pass


class TestSmallestAsNearWritingNear(Stack, stack=cache(SMALLEST, BUCKET, "near")):
    pass


class TestSmallestAsNearWritingFar(Stack, stack=cache(SMALLEST, BUCKET, "far")):
    pass


class TestSmallestAsNearWritingBoth(Stack, stack=cache(SMALLEST, BUCKET, "both")):
    pass


class TestSmallestAsFarWritingNear(Stack, stack=cache(BUCKET, SMALLEST, "near")):
    pass


class TestSmallestAsFarWritingFar(Stack, stack=cache(BUCKET, SMALLEST, "far")):
    pass


class TestSmallestAsFarWritingBoth(Stack, stack=cache(MEMORY, SMALLEST, "both")):
    pass


NO_LIST = "far alone cannot list what near may have"


class TestNearThatFailsOnReadsWritingFar(Stack, stack={**cache(FAILING, BUCKET, "far"), "kept": MEMORY}):
    """Far answers all by itself; only a list would be short of what near has."""

    xfail: ClassVar = {"list-has-each-blob-once": NO_LIST, "list-without-aborted": NO_LIST}
    test_agrees_with_a_dictionary = None  # type: ignore[assignment]  # it lists, too


class TestNearThatFailsOnReadsWritingBoth(Stack, stack={**cache(FAILING, BUCKET, "both"), "kept": MEMORY}):
    xfail: ClassVar = TestNearThatFailsOnReadsWritingFar.xfail
    test_agrees_with_a_dictionary = None  # type: ignore[assignment]  # as above


def fallback(*children: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    names = [f"child{number}" for number in range(len(children))]
    services = [f"&{name}" for name in names]
    root = {"type": "fallback", "services": services, **settings}
    return {"root": root, **dict(zip(names, children, strict=True)), "kept": MEMORY}


class TestFallbackOfMemories(Stack, stack=fallback(MEMORY, MEMORY, MEMORY)):
    pass


class TestFallbackOfObjectStores(Stack, stack=fallback(FOLDER, BUCKET)):
    pass


class TestFallbackWritingToTheLast(
    Stack, stack=fallback(MEMORY, BUCKET, write_to="child1", copy_to="child0")
):
    pass


class TestFallbackCopyingToTheSmallest(
    Stack, stack=fallback(SMALLEST, BUCKET, write_to="child1", copy_to="child0")
):
    pass


class TestFallbackOfTheSmallest(Stack, stack=fallback(SMALLEST, SMALLEST)):
    pass


class TestFallbackBehindOneThatIsEmpty(Stack, stack=fallback(BUCKET, MEMORY, write_to="child1")):
    pass


class TestFallbackWithDeadlines(
    Stack,
    stack={
        **fallback(BUCKET, MEMORY),
        "root": {
            "type": "fallback",
            "services": [{"ref": "&child0", "timeout": 60}, {"ref": "&child1", "timeout": 60}],
        },
    },
):
    pass


def mirror(*children: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    return {**(tables := fallback(*children)), "root": {**tables["root"], "type": "mirror", **settings}}


class TestMirrorOfMemories(Stack, stack=mirror(MEMORY, MEMORY, MEMORY)):
    pass


class TestMirrorOfObjectStores(Stack, stack=mirror(FOLDER, BUCKET)):
    pass


class TestMirrorOfAllSorts(Stack, stack=mirror(SMALLEST, BUCKET, MEMORY, write_quorum=3, miss_quorum=3)):
    pass


class TestMirrorThatHedges(Stack, stack=mirror(MEMORY, BUCKET, hedge_after="1 ms", hedge_budget=1)):
    pass


class TestMirrorWithDeadlines(
    Stack,
    stack={
        **mirror(BUCKET, MEMORY),
        "root": {
            "type": "mirror",
            "services": [{"ref": "&child0", "timeout": 60}, {"ref": "&child1", "timeout": 60}],
        },
    },
):
    pass


class TestMirrorOneOfWhichFailsOnReads(Stack, stack=mirror(FAILING, BUCKET, MEMORY)):
    """The other two answer for it; only a list would be short of what it has."""

    xfail: ClassVar = {
        "list-has-each-blob-once": "a list needs all children",
        "list-without-aborted": "a list needs all children",
        "chunk-source-checks-sizes": "one that does not answer might have a chunk of that size",
    }
    test_agrees_with_a_dictionary = None  # type: ignore[assignment]  # it lists, too


def around(tag: str, inner: Any, **fields: Any) -> dict[str, Any]:
    return {"root": {"type": tag, "inner": "&inner", **fields}, "inner": inner}


class TestBreakerOfFolder(Stack, stack=around("breaker", FOLDER)):
    pass


class TestBreakerOfSmallest(Stack, stack=around("breaker", SMALLEST)):
    pass


class TestRetryOfFolder(Stack, stack=around("retry", FOLDER)):
    pass


class TestRetryOfSmallest(Stack, stack=around("retry", SMALLEST, replay=0)):
    pass


class TestVerifyOfFolder(Stack, stack=around("verify", FOLDER, on_corrupt="quarantine")):
    pass


class TestVerifyOfSmallest(Stack, stack=around("verify", SMALLEST)):
    pass


class TestLimitOfFolder(Stack, stack=around("limit", FOLDER, concurrency=1)):
    pass


class TestLimitOfSmallest(
    Stack, stack=around("limit", SMALLEST, bytes_per_second="1 TB", operations_per_second=1_000_000)
):
    pass


# Of these bounds none is ever reached.
WIDE = {"max_bytes": "1 GiB", "max_entries": 1_000_000, "max_age": "10 d"}


class TestLruOfMemory(Stack, stack=around("lru", MEMORY, **WIDE)):
    pass


class TestLruOfFolder(Stack, stack=around("lru", FOLDER, **WIDE)):
    pass


class TestLruOfBucket(Stack, stack=around("lru", BUCKET, **WIDE)):
    pass


class TestLruOfSqlite(Stack, stack=around("lru", SQLITE, **WIDE)):
    pass


class TestLruAsNear(
    Stack, stack={**cache(around("lru", FOLDER, **WIDE)["root"], BUCKET, "far"), "inner": FOLDER}
):
    pass


class TestTinyLruAsNear(
    Stack,
    stack={**cache({"type": "lru", "inner": "&inner", "max_bytes": 4000}, BUCKET, "far"), "inner": FOLDER},
):
    """What far has is found, however little near can keep of it."""


class TestAllWrappers(
    Stack,
    stack={
        "root": {"type": "verify", "inner": "&retry"},
        "retry": {"type": "retry", "inner": "&breaker"},
        "breaker": {"type": "breaker", "inner": "&limit"},
        "limit": {"type": "limit", "inner": "&folder", "concurrency": 2},
        "folder": FOLDER,
    },
):
    pass


READ_ONLY = {"type": "read_only", "inner": "&kept"}


class TestReadOnlyAsFar(Stack, stack={**cache(FOLDER, READ_ONLY, "near"), "kept": BUCKET}):
    pass


class TestErrorAsNear(Stack, stack=cache({"type": "error"}, BUCKET, "far")):
    """A near that is down costs nothing but speed."""


class TestErrorAsFar(Stack, stack=cache(MEMORY, {"type": "error", "outcome": "absent"}, "near")):
    pass
