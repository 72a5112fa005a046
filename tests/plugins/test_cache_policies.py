"""The policies of a `cache`: who holds what after a put and after a get, what is found, what is refused."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobService,
    BuildError,
    Composition,
    CompositionError,
    UnavailableError,
)
from castore.contract.capabilities import BlobDeleter, ChunkStore, Durable
from castore.faults import READS, WRITES
from castore.testing import CHUNKS, HELLO, P3M, FaultyService
from castore.threads.pool import Pool
from castore_cache.backlog import Backlog
from castore_cache.behind import Behind
from castore_cache.service import CacheBlobService
from castore_memory.service import MemoryBlobService

BIG = P3M.data + P3M.data[: 2 << 20]
"""More than what a cache fetches whole."""

WRITERS = {"near": "near", "far": "far", "both": "near far", "behind": "near far"}
"""Who has a blob once it was put, and what was due has been done."""

READERS = {
    # fill, whether some or all of it was read: what near has of a blob of eight chunks then
    ("none", "some"): "nothing",
    ("none", "all"): "nothing",
    ("chunks", "some"): "one chunk",
    ("chunks", "all"): "blob",
    ("blob", "some"): "blob",
    ("blob", "all"): "blob",
}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Make a cache, with a queue if it needs one."""

    def make(near: BlobService, far: BlobService, **policies: Any) -> CacheBlobService:
        if policies.get("write") == "behind":
            backlog = Backlog(tmp_path / "queue")
            policies["behind"] = lambda asked: Behind(asked, far, backlog)
        return CacheBlobService(near, far, **policies)

    return make


def holders(near: BlobService, far: BlobService, digest: B3Digest) -> str:
    return " ".join(name for name, service in (("near", near), ("far", far)) if service.has(digest))


class TestWhoHoldsWhat:
    @pytest.mark.parametrize(("write", "expected"), WRITERS.items())
    @pytest.mark.parametrize("fill", ["none", "chunks", "blob"])
    @pytest.mark.parametrize("way", ["writer", "file", "files", "chunks"])
    def test_after_a_put(
        self, make: Any, tmp_path: Path, write: str, expected: str, fill: str, way: str
    ) -> None:
        """Those that the policy names, however a blob is put; what is to come far later comes."""
        near, far = MemoryBlobService(), MemoryBlobService()
        with make(near, far, write=write, fill=fill) as cache:
            digest = self.put(cache, tmp_path, way)
            assert cache.flush() is True
            assert holders(near, far, digest) == expected

    def put(self, cache: BlobService, folder: Path, way: str) -> B3Digest:
        if way == "writer":
            return cache.write(HELLO.data)
        if way == "chunks":
            store = cache.capability(ChunkStore)
            whole = b"".join(chunk.data for chunk in CHUNKS)
            for chunk in CHUNKS:
                store.put_chunk(chunk.digest, chunk.data)  # type: ignore[union-attr]
            store.put_index(B3Digest.of(whole), [chunk.meta for chunk in CHUNKS])  # type: ignore[union-attr]
            return B3Digest.of(whole)
        (folder / "file").write_bytes(HELLO.data)
        if way == "file":
            return cache.put_file(folder / "file")
        (digest,) = cache.put_files([folder / "file"])
        assert isinstance(digest, B3Digest)
        return digest

    @pytest.mark.parametrize(("policy", "expected"), READERS.items())
    @pytest.mark.parametrize("size", [0, 2])
    @pytest.mark.parametrize("write", ["near", "far", "both", "behind"])
    def test_after_a_get(
        self, make: Any, far: Any, policy: tuple[str, str], expected: str, size: int, write: str
    ) -> None:
        """Near has what `fill` says, in whatever pool chunks are fetched; far is not written to."""
        fill, what = policy
        near = MemoryBlobService()
        far.write(P3M.data)
        with make(near, far, fill=fill, write=write, pool=Pool(size)) as cache:
            with cache.open_read(P3M.digest) as reader:
                assert reader.read(10 if what == "some" else -1) == P3M.data[: 10 if what == "some" else None]
            chunks = [meta for meta in far.chunks(P3M.digest) if near.has(meta.digest)]
            found = {0: "nothing", 1: "one chunk", 8: "all chunks"}[len(chunks)]
            if near.has(P3M.digest):
                assert near.read(P3M.digest) == P3M.data
                found = "blob"
            assert found == expected

    @pytest.mark.parametrize(("policy", "expected"), READERS.items())
    def test_after_a_get_of_what_far_has_in_one_piece(
        self, make: Any, smallest: Any, policy: tuple[str, str], expected: str
    ) -> None:
        """Of a large blob near has all or nothing; it was read right in any case."""
        fill, what = policy
        near, far = MemoryBlobService(), smallest()
        digest = far.write(BIG)
        count = 10 if what == "some" else len(BIG)
        with make(near, far, fill=fill).open_read(digest) as reader:
            assert reader.read(count) == BIG[:count]
        assert near.has(digest) is (expected == "blob")

    def test_the_rest_is_fetched_alone(self, make: Any, far: Any, far_store: Any) -> None:
        """What near has of a blob that is to be there whole is not fetched again."""
        near = MemoryBlobService()
        far.write(P3M.data)
        make(near, far, fill="chunks").open_read(P3M.digest).read(10)
        far_store.take_requests()
        with make(near, far, fill="blob").open_read(P3M.digest) as reader:
            reader.seek(3_000_000)
            reader.read(1)
        assert far_store.take_requests() == ["GET blobs"] + ["GET chunks"] * 7
        assert near.read(P3M.digest) == P3M.data

    def test_a_far_that_fails_at_the_rest_harms_nobody(self, make: Any, far: Any) -> None:
        """The bytes that were wanted have been read; a later read goes on from there."""
        near, probe = MemoryBlobService(), FaultyService(far)
        far.write(P3M.data)
        with make(near, probe, fill="blob").open_read(P3M.digest) as reader:
            assert reader.read(10) == P3M.data[:10]
            probe.failing |= READS
        assert near.has(P3M.digest) is False
        probe.failing.clear()
        probe.calls.clear()
        make(near, probe, fill="blob").read(P3M.digest)
        assert near.read(P3M.digest) == P3M.data
        assert probe.calls.count("get_chunks") == 7

    def test_who_forgets_a_reader_does_not_wait_for_the_rest(self, make: Any, far: Any) -> None:
        """Only closing it brings the blob to near, never the collector of garbage."""
        near = MemoryBlobService()
        far.write(P3M.data)
        reader = make(near, far, fill="blob").open_read(P3M.digest)
        reader.read(10)
        del reader
        gc.collect()
        assert len(near._chunks) == 1


class TestWhatIsFound:
    @pytest.mark.parametrize(
        ("has", "write", "found"),
        [
            ("present", "far", {"near", "far"}),
            ("present", "both", {"near", "far"}),
            ("durable", "far", {"far"}),
            ("durable", "both", {"far"}),
            ("durable", "behind", {"far", "put"}),
            ("present", "behind", {"near", "far", "put"}),
        ],
    )
    def test_table(self, make: Any, has: str, write: str, found: set[str]) -> None:
        """`present` is what can be read; `durable` what far has, or is sure to get."""
        near, far = MemoryBlobService(), MemoryBlobService()
        probe = FaultyService(far)
        blobs = {name: B3Digest.of(name.encode()) for name in ("near", "far", "put", "absent")}
        near.write(b"near")
        far.write(b"far")
        with make(near, probe, has=has, write=write) as cache:
            probe.failing = {"open_write"}
            if write == "behind":
                cache.write(b"put")
            assert {name for name, digest in blobs.items() if cache.has(digest)} == found
            assert {blobs[name] for name in blobs if name not in found} == cache.missing(blobs.values())
            probe.failing = set()

    def test_near_is_not_asked_for_what_is_durable(self, make: Any) -> None:
        """What it would say does not matter, nor that it cannot say anything."""
        near, far = FaultyService(MemoryBlobService(), READS), MemoryBlobService()
        far.write(HELLO.data)
        cache = make(near, far, has="durable", write="far", on_near_error="fail")
        near.calls.clear()
        assert (cache.has(HELLO.digest), cache.has(P3M.digest)) == (True, False)
        assert near.calls == []


class TestErrors:
    @pytest.mark.parametrize("write", ["far", "both"])
    @pytest.mark.parametrize("fill", ["none", "chunks", "blob"])
    @pytest.mark.parametrize("inner", ["memory", "smallest"])
    def test_a_near_that_fails_at_everything(
        self, make: Any, far: Any, smallest: Any, write: str, fill: str, inner: str
    ) -> None:
        """All that far can do the cache does, and its near's errors are counted."""
        near = FaultyService(MemoryBlobService() if inner == "memory" else smallest(), READS | WRITES)
        far.write(P3M.data)
        cache = make(near, far, write=write, fill=fill)
        assert cache.read(P3M.digest) == P3M.data
        assert cache.read(cache.write(HELLO.data)) == HELLO.data
        assert far.read(HELLO.digest) == HELLO.data
        assert cache.gauges()["near_errors"] > 0

    @pytest.mark.parametrize("operation", ["lease", "claim", "put_chunks", "put_indexes"])
    def test_chunks_that_a_near_misses(self, make: Any, far: Any, operation: str) -> None:
        """Far has them; near shows no blob that would lack some."""
        inner = MemoryBlobService()
        near = FaultyService(inner, {operation})
        if operation == "claim":
            far.put_chunks({chunk.digest: chunk.data for chunk in CHUNKS})
        root = make(near, far, write="both").capability(ChunkStore)
        whole = B3Digest.of(b"".join(chunk.data for chunk in CHUNKS))
        with root.lease() as store:
            for chunk in CHUNKS:
                if not store.claim_chunk(chunk.digest):
                    store.put_chunk(chunk.digest, chunk.data)
                if operation != "put_indexes":
                    near.failing = set()
            store.put_index(whole, [chunk.meta for chunk in CHUNKS])
        assert far.chunks(whole) is not None
        assert (whole in inner.list_blobs()) is (operation == "lease")

    def test_a_chunk_that_is_put_again_is_missed_no_more(self, make: Any, far: Any) -> None:
        """Nor one that near turns out to have: only what it may lack keeps an index from it."""
        inner = MemoryBlobService()
        near = FaultyService(inner, {"put_chunks"})
        store = make(near, far, write="both").capability(ChunkStore)
        put, claimed, missed = CHUNKS[:3]
        store.put_chunks({chunk.digest: chunk.data for chunk in (put, claimed, missed)})
        near.failing = set()
        store.put_chunk(put.digest, put.data)
        inner.put_chunk(claimed.digest, claimed.data)
        assert store.claim((claimed.digest, missed.digest)) == {claimed.digest}
        store.put_indexes({chunk.digest: () for chunk in (put, claimed, missed)})
        assert set(inner.list_blobs()) == {put.digest, claimed.digest}
        assert set(far.list_blobs()) == {put.digest, claimed.digest, missed.digest}

    def test_a_near_that_reads_from_far_gets_no_index_of_chunks_that_it_missed(
        self, make: Any, far: Any
    ) -> None:
        """That it can read them does not mean that they are where it writes."""
        memory = MemoryBlobService()
        inner = FaultyService(memory, {"put_chunks"})
        store = make(make(inner, far, write="near"), far, write="both").capability(ChunkStore)
        for chunk in CHUNKS:
            store.put_chunk(chunk.digest, chunk.data)
        inner.failing = set()
        whole = B3Digest.of(b"".join(chunk.data for chunk in CHUNKS))
        store.put_index(whole, [chunk.meta for chunk in CHUNKS])
        assert far.has(whole)
        assert not memory.has(whole)

    def test_chunks_and_a_near_that_cannot_do_anything(self, make: Any, far: Any) -> None:
        """Whatever near fails at is for far to do."""
        near = FaultyService(MemoryBlobService(), READS | WRITES)
        root = make(near, far, write="both").capability(ChunkStore)
        with root.lease() as store:
            assert store.claim_chunk(HELLO.digest) is False
            store.put_chunk(HELLO.digest, HELLO.data)
            store.put_index(HELLO.digest, ())
            assert store.claim_blob(HELLO.digest) is True
        assert far.read(HELLO.digest) == HELLO.data

    @pytest.mark.parametrize("operation", ["lease", "claim", "put_chunks", "put_indexes", "writer.close"])
    def test_a_strict_near_fails_a_write(self, make: Any, operation: str) -> None:
        """With both and `fail`, a blob is written when both have it."""
        far = MemoryBlobService()
        if operation == "claim":
            far.write(HELLO.data)
        near = FaultyService(
            MemoryBlobService(), {operation}, instance="broken", capabilities="." not in operation
        )
        cache = make(near, far, write="both", on_near_error="fail")
        with pytest.raises(UnavailableError, match="`broken`"):
            cache.write(HELLO.data)

    def test_what_is_raised_is_counted_and_not_logged(self, make: Any, far: Any, caplog: Any) -> None:
        """Whoever asked has been told."""
        near = FaultyService(MemoryBlobService(), READS, instance="broken")
        cache = make(near, far, on_near_error="fail")
        with pytest.raises(UnavailableError, match="`broken`"):
            cache.has(HELLO.digest)
        assert cache.gauges()["near_errors"] == 1
        assert caplog.records == []

    @pytest.mark.parametrize("operation", sorted(WRITES))
    def test_filling_a_strict_near_harms_no_reader(self, make: Any, far: Any, operation: str) -> None:
        """That near cannot keep what was read is no reason to fail the read, whatever the policy."""
        far.write(P3M.data)
        near = FaultyService(MemoryBlobService(), {operation})
        assert make(near, far, on_near_error="fail").read(P3M.digest) == P3M.data

    def test_a_far_that_counts_as_a_miss(self, make: Any, far: Any, caplog: Any) -> None:
        """Questions about blobs are answered as if it had none; each is counted and logged."""
        far.write(HELLO.data)
        probe = FaultyService(far, READS, instance="broken")
        cache = make(MemoryBlobService(), probe, on_far_error="miss", name="the-cache")
        assert cache.has(HELLO.digest) is False
        assert cache.missing([HELLO.digest]) == {HELLO.digest}
        assert cache.chunks(HELLO.digest) is None
        assert cache.open_read(HELLO.digest) is None
        assert cache.gauges()["far_errors"] == 4
        assert "`the-cache`: far failed, which is taken for a miss: `broken`" in caplog.text

    def test_but_not_in_the_middle_of_a_blob(self, make: Any, far: Any) -> None:
        """A blob that is being read is there: its chunks are not missing, but unavailable."""
        far.write(P3M.data)
        probe = FaultyService(far, instance="broken")
        with make(MemoryBlobService(), probe, on_far_error="miss").open_read(P3M.digest) as reader:
            reader.read(10)
            probe.failing = READS
            with pytest.raises(UnavailableError, match="`broken`"):
                reader.read()

    def test_damages_are_counted_apart(self, make: Any, smallest: Any, far: Any) -> None:
        """What near has corrupt comes from far, and is no failure of near, however strict that is."""
        near = smallest()
        far.write(HELLO.data)
        near.blobs[HELLO.digest] = b"spoilt"
        cache = make(near, far, on_near_error="fail")
        assert cache.read(HELLO.digest) == HELLO.data
        assert (cache.gauges()["near_errors"], cache.gauges()["near_damages"]) == (0, 1)
        assert near.blobs[HELLO.digest] == HELLO.data


class TestCapabilities:
    @pytest.mark.parametrize(
        ("write", "strict", "near", "far", "expected"),
        [
            *((write, False, near, far, near) for write, near, far in [
                ("near", "full", None), ("near", "process", "full"), ("near", None, "full"),
                ("behind", "process", "full"), ("behind", "full", None),
            ]),
            *(("far", False, near, far, far) for near, far in itertools.product((None, "full"), repeat=2)),
            ("both", False, "full", None, None), ("both", False, None, "process", "process"),
            ("both", True, "full", None, "full"), ("both", True, "process", "full", "full"),
            ("both", True, "process", None, "process"), ("both", True, None, None, None),
        ],
    )  # fmt: skip
    def test_durability(
        self, make: Any, write: str, strict: bool, near: Any, far: Any, expected: Any
    ) -> None:
        """What is acknowledged is as durable as the best of those that are sure to have it."""

        class Lasting(MemoryBlobService, Durable):
            durability: Any = "full"

        def child(level: Any) -> BlobService:
            service = Lasting() if level else MemoryBlobService()
            service.durability = level  # type: ignore[union-attr]
            return service

        policies = {"write": write, "on_near_error": "fail" if strict else "ignore"}
        with make(child(near), child(far), **policies) as cache:
            kind = cache.capability(Durable)
            assert (kind and kind.durability) == expected

    def test_deleting(self, make: Any) -> None:
        """A blob is deleted in far and in near, and is not sent to far any more."""

        class Deleting(MemoryBlobService, BlobDeleter):
            def delete(self, digest: B3Digest) -> bool:
                self._chunks.pop(digest, None)
                return self._indexes.pop(digest, None) is not None

        near, far = Deleting(), Deleting()
        probe = FaultyService(far, {"open_write"})
        with make(near, probe, write="behind") as cache:
            digest = cache.write(HELLO.data)
            probe.failing = set()
            assert cache.capability(BlobDeleter).delete(digest) is True
            assert cache.capability(BlobDeleter).delete(digest) is False
            assert cache.flush() is True
        assert holders(near, far, digest) == ""


FOLDER = {"type": "objectstore", "object_store_url": "file:./near"}


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "where", "why"),
        [
            ({"write": "behind"}, "write", "needs a `queue`"),
            ({"write": "both", "queue": "./queue"}, "queue", "nothing is queued"),
            ({"has": "durable"}, "has", "nothing that is written would be found"),
            ({"fill": "some"}, "fill", "some"),
            ({"has": "near"}, "has", "near"),
            ({"on_near_error": "miss"}, "on_near_error", "miss"),
            ({"on_far_error": "ignore"}, "on_far_error", "ignore"),
            ({"write": "behind", "queue": "q", "queue_limit": 0}, "queue_limit", "expected 1"),
            ({"write": "behind", "queue": "a\0b"}, "queue", "NUL"),
            ({"fill_wait": "-1 s"}, "fill_wait", "negative"),
        ],
    )
    def test_refused(self, fields: dict[str, Any], where: str, why: str) -> None:
        """What cannot be right is told, with its place."""
        root = {"type": "cache", "near": "memory:", "far": "memory:", **fields}
        with pytest.raises(CompositionError, match=why) as caught:
            Composition.from_mapping({"blobservices": {"root": root}})
        assert f"blobservices.root.{where}" in str(caught.value)

    def test_a_near_that_forgets_cannot_be_written_behind(self, tmp_path: Path) -> None:
        """What it has acknowledged must survive it."""
        root = {"type": "cache", "near": "memory:", "far": "memory:", "write": "behind", "queue": "queue"}
        with (
            Composition.from_mapping({"blobservices": {"root": root}}, base=tmp_path) as stores,
            pytest.raises(BuildError, match="near must keep what it has acknowledged"),
        ):
            stores.blobs()

    def test_every_policy_reaches_the_service(self, tmp_path: Path) -> None:
        """Also the folder of the queue, which starts at the composition's."""
        root = {
            "type": "cache", "near": "&near", "far": "&far", "write": "behind", "queue": "some/queue",
            "fill": "none", "has": "durable", "on_near_error": "fail", "on_far_error": "miss", "drain": 0,
            "queue_limit": 1, "on_full": "fail", "retry_after": "1 h",
        }  # fmt: skip
        tables = {"root": root, "near": FOLDER, "far": {"type": "error"}}
        with Composition.from_mapping({"blobservices": tables}, base=tmp_path) as stores:
            cache = stores.blobs()
            assert cache.has(HELLO.digest) is False
            cache.write(HELLO.data)
            assert cache.has(HELLO.digest) is True
            assert (tmp_path / "some/queue" / HELLO.digest.hex()).exists()
            with pytest.raises(UnavailableError, match="`queue_limit` is 1"):
                cache.write(b"more")
