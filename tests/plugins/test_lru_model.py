"""Random stories of an `lru`: whatever is put, read, pinned and opened again, what it promises holds."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta, UnavailableError
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Evictable, Pinning
from castore.threads.deadlines import Clock
from castore.threads.pool import Pool
from castore_lru.bounds import Bounds
from castore_lru.service import LruBlobService
from castore_lru.streams import PinnedReader
from castore_memory.service import MemoryBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService

BUDGET: Final = 12_000
ENTRIES: Final = 40
AGE: Final = 1000.0

STORIES = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

PARTS: Final = [random.Random(seed).randbytes(600) for seed in range(12)]
CONTENTS = st.lists(st.integers(0, 11), max_size=5).map(lambda parts: b"".join(PARTS[n] for n in parts))


class Hand(Clock):
    def __init__(self) -> None:
        self.time = time.time()

    def now(self) -> float:
        return self.time


class Stories(RuleBasedStateMachine):
    """The model: all that was ever put, by digest, and what must be there now."""

    kind: str
    readers = Bundle("readers")
    writers = Bundle("writers")
    pins = Bundle("pins")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.files = Path(self.folder.name) / "files"
        self.files.mkdir()
        self.clock = Hand()
        self.memory = MemoryBlobService()
        self.put: dict[B3Digest, bytes] = {}
        self.pinned: dict[object, B3Digest] = {}
        """Those that were there when they were pinned."""
        self.open: list[Any] = []
        self.start()

    def start(self) -> None:
        self.child = self.make_child()
        bounds = Bounds(max_bytes=BUDGET, max_entries=ENTRIES, max_age=AGE)
        self.service = LruBlobService(self.child, bounds, clock=self.clock)

    def make_child(self) -> BlobService:
        path = Path(self.folder.name)
        if self.kind == "memory":
            return self.memory
        if self.kind == "rows":
            database = Database(path / "blobs.sqlite", instance="rows", durability="process")
            return SqliteBlobService(database, avg_chunk_size=512, pool=Pool(0))
        store = LocalObjectStore(
            path / "store", instance="files", durability="full" if self.kind == "deferring" else "process"
        )
        return ObjectStoreBlobService(store, avg_chunk_size=512, pool=Pool(0))

    # -- what is put --

    @rule(data=CONTENTS)
    def write(self, data: bytes) -> None:
        digest = B3Digest.of(data)
        try:
            assert self.service.write(data) == digest
        except UnavailableError as error:
            self.allow_refusal(error)
            return
        self.put[digest] = data
        # What was put last is there.
        assert self.service.read(digest) == data

    @rule(target=writers, data=CONTENTS)
    def begin_blob(self, data: bytes) -> tuple[BlobWriter, bytes]:
        writer = self.service.open_write()
        self.open.append(writer)
        return writer, data

    @rule(pair=consumes(writers), aborts=st.booleans())
    def end_blob(self, pair: tuple[BlobWriter, bytes], aborts: bool) -> None:
        writer, data = pair
        try:
            for start in range(0, len(data), 500):
                writer.write(data[start : start + 500])
            if aborts:
                writer.abort()
            else:
                assert writer.close() == B3Digest.of(data)
                self.put[B3Digest.of(data)] = data
        except UnavailableError as error:
            self.allow_refusal(error)

    @rule(parts=st.lists(st.integers(0, 11), min_size=2, max_size=4, unique=True), leases=st.booleans())
    def put_chunks(self, parts: list[int], leases: bool) -> None:
        """As a cache fills it; without a lease a chunk may be evicted before the index comes."""
        store = self.service.capability(ChunkStore)
        assert store is not None
        chunks = [PARTS[part] for part in parts]
        whole = b"".join(chunks)
        with store.lease() if leases else contextlib.nullcontext(store) as into:
            try:
                for chunk in chunks:
                    if not into.claim_chunk(B3Digest.of(chunk)):
                        into.put_chunk(B3Digest.of(chunk), chunk)
                    self.put[B3Digest.of(chunk)] = chunk
                if leases:
                    assert all(store.has_chunk(B3Digest.of(chunk)) for chunk in chunks)
                metas = [ChunkMeta(B3Digest.of(chunk), len(chunk)) for chunk in chunks]
                into.put_index(B3Digest.of(whole), metas)
            except UnavailableError as error:
                self.allow_refusal(error)
            else:
                self.put[B3Digest.of(whole)] = whole

    @rule(parts=st.sets(st.integers(0, 11), min_size=1), leases=st.booleans())
    def put_blobs(self, parts: set[int], leases: bool) -> None:
        """Several of one chunk, each with calls for many."""
        store = self.service.capability(ChunkStore)
        assert store is not None
        chunks = {B3Digest.of(PARTS[part]): PARTS[part] for part in parts}
        self.put |= chunks
        with store.lease(brief=True) if leases else contextlib.nullcontext(store) as into:
            try:
                known = into.claim_blobs(dict.fromkeys(chunks, ()))
                there = known | into.claim(chunks.keys() - known)
                into.put_chunks({digest: data for digest, data in chunks.items() if digest not in there})
                into.put_indexes(dict.fromkeys(chunks.keys() - known, ()))
            except UnavailableError as error:
                self.allow_refusal(error)
            else:
                # Without a lease one may push out the other.
                if leases:
                    assert not self.service.missing(chunks)

    @rule(parts=st.lists(st.integers(0, 11), min_size=1, max_size=8))
    def put_files(self, parts: list[int]) -> None:
        paths = [self.files / str(part) for part in parts]
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(PARTS[part])
        try:
            stored = list(self.service.put_files(paths))
        except UnavailableError as error:
            self.allow_refusal(error)
        else:
            assert stored == [B3Digest.of(PARTS[part]) for part in parts]
            assert self.service.has(B3Digest.of(PARTS[parts[-1]]))
        self.put |= {B3Digest.of(PARTS[part]): PARTS[part] for part in parts}

    def allow_refusal(self, error: UnavailableError) -> None:
        """There may be no room only beside what is pinned, in use, or still written."""
        assert "no room" in str(error) or "evicted before" in str(error)
        assert "no room" not in str(error) or self.pinned or self.open

    # -- what is read --

    @rule(data=CONTENTS)
    def read(self, data: bytes) -> None:
        digest = B3Digest.of(data)
        there = self.service.has(digest)
        reader = self.service.open_read(digest)
        if reader is None:
            assert not there
            return
        with reader:
            assert reader.read() == data

    @rule(target=readers, data=CONTENTS)
    def begin_reading(self, data: bytes) -> tuple[BlobReader, bytes, object] | None:
        reader = self.service.open_read(B3Digest.of(data))
        if reader is None:
            return None
        key = object()
        # Of one chunk all is read at once: then nothing is kept for it.
        if isinstance(reader, PinnedReader):
            self.pinned[key] = B3Digest.of(data)
        self.open.append(reader)
        return reader, data, key

    @rule(entry=consumes(readers))
    def end_reading(self, entry: tuple[BlobReader, bytes, object] | None) -> None:
        if entry is not None:
            reader, data, key = entry
            assert reader.read() == data
            reader.close()
            self.pinned.pop(key, None)
            self.open.remove(reader)

    # -- what is pinned --

    @rule(target=pins, data=CONTENTS)
    def pin(self, data: bytes) -> tuple[contextlib.ExitStack, object]:
        pinning = self.service.capability(Pinning)
        assert pinning is not None
        stack, key = contextlib.ExitStack(), object()
        stack.enter_context(pinning.pin({B3Digest.of(data)}))
        if self.service.has(B3Digest.of(data)):
            self.pinned[key] = B3Digest.of(data)
        self.open.append(stack)
        return stack, key

    @rule(entry=consumes(pins))
    def unpin(self, entry: tuple[contextlib.ExitStack, object]) -> None:
        stack, key = entry
        stack.close()
        self.pinned.pop(key, None)
        self.open.remove(stack)

    # -- what goes --

    @rule(seconds=st.sampled_from([1.0, 100.0, 600.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.time += seconds

    @rule()
    def evict(self) -> None:
        self.service.evict()

    @precondition(lambda self: not self.pinned and not self.open)
    @rule()
    def open_again(self) -> None:
        self.service.close()
        if self.kind != "memory":
            self.child.close()
        self.start()

    @precondition(lambda self: not self.pinned and not self.open)
    @rule()
    def die(self) -> None:
        """As after a kill: nothing is told to the journal any more, and the lock of the owner is gone."""
        accounts = self.service._space._accounts
        if accounts._owner is not None and accounts._owner._file is not None:
            accounts._owner._file.close()
        accounts._journal.begin_anew()
        accounts.begin_anew()
        if self.kind == "memory":
            self.service.close()
        self.start()

    # -- what always holds --

    @invariant()
    def what_is_there_is_allowed(self) -> None:
        items = [item for item in self.evictable.stored_items() if not item.foreign]
        assert sum(item.size or 0 for item in items) <= BUDGET
        assert len([item for item in items if item.kind != "residue"]) <= ENTRIES

    @invariant()
    def what_is_pinned_is_there(self) -> None:
        for digest in self.pinned.values():
            assert self.child.has(digest)
            for meta in self.child.chunks(digest) or ():
                assert self.child.has(meta.digest)

    @invariant()
    def no_index_lacks_a_chunk(self) -> None:
        for item in self.evictable.stored_items():
            if item.kind == "index" and item.digest is not None:
                for meta in self.child.chunks(item.digest) or ():
                    assert self.child.has(meta.digest)

    @property
    def evictable(self) -> Evictable:
        found = self.child.capability(Evictable)
        assert found is not None
        return found

    def teardown(self) -> None:
        for thing in self.open:
            if isinstance(thing, BlobWriter):
                thing.abort()
            else:
                thing.close()
        # With nothing in use, the accounts are what is there.
        gauges = self.service.gauges()
        items = [item for item in self.evictable.stored_items() if item.kind != "residue"]
        if gauges["entries"] or self.kind != "memory":
            assert gauges["bytes"] == sum(item.size or 0 for item in items)
            assert gauges["entries"] == len(items)
        assert gauges["pinned"] == 0
        for digest, data in self.put.items():
            reader = self.service.open_read(digest)
            assert reader is None or reader.read() == data
            if reader is not None:
                reader.close()
        self.service.close()
        self.child.close()
        self.folder.cleanup()


@pytest.mark.parametrize("kind", ["memory", "files", "deferring", "rows"])
def test_stories(kind: str) -> None:
    run_state_machine_as_test(type("Stories", (Stories,), {"kind": kind}), settings=STORIES)
