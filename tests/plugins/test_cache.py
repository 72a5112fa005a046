"""The `cache` type: what is asked of whom, where new blobs go, and what the cache can do."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castore_cache.config
from castore import (
    B3Digest,
    BlobService,
    BlobWriter,
    ChunkMeta,
    Composition,
    CompositionError,
    CorruptBlobError,
    UnavailableError,
)
from castore.contract.capabilities import BlobLister, ChunkSource, ChunkStore
from castore.faults import READS, WRITES
from castore.testing import BLOB_A, BLOB_B, EMPTY, HELLO, P3M, FaultyService
from castore_cache.service import CacheBlobService
from castore_memory.service import MemoryBlobService

WRITER = ("open_write", "writer.write", "writer.close")
"""What is done with a service that keeps no chunks."""


class TestHits:
    """What near has never asks far."""

    @pytest.fixture(params=["objectstore", "memory", "smallest"])
    def near(self, smallest: Any, request: Any, blobs_of: Any, near_store: Any) -> BlobService:  # type: ignore[override]
        makes: dict[str, Callable[[], BlobService]] = {
            "objectstore": lambda: blobs_of(near_store),
            "memory": MemoryBlobService,
            "smallest": smallest,
        }
        return makes[request.param]()

    @pytest.mark.parametrize("blob", [HELLO, P3M, EMPTY], ids=str)
    def test_far_is_not_asked(self, near: BlobService, blob: Any) -> None:
        """Each question about a blob of near is answered, though far fails at everything."""
        far = FaultyService(MemoryBlobService(), READS | WRITES)
        near.write(blob.data)
        cache = CacheBlobService(near, far)
        far.calls.clear()
        assert cache.has(blob.digest) is True
        assert cache.missing([blob.digest]) == set()
        assert cache.chunks(blob.digest) == near.chunks(blob.digest)
        assert cache.read(blob.digest) == blob.data
        with cache.open_read(blob.digest) as reader:  # type: ignore[union-attr]
            assert reader.size == blob.size
            reader.seek(blob.size // 2)
            assert reader.read(100) == blob.data[blob.size // 2 :][:100]
        assert far.calls == []

    def test_missing_asks_far_for_the_rest(self, near: BlobService) -> None:
        """Far is asked for what near lacks, and for that alone."""
        far = MemoryBlobService()
        near.write(HELLO.data)
        far.write(BLOB_A.data)
        asked: list[set[B3Digest]] = []
        probe = FaultyService(far)
        probe.missing = lambda digests: asked.append(set(digests)) or far.missing(asked[-1])  # type: ignore
        cache = CacheBlobService(near, probe)
        assert cache.missing([HELLO.digest, BLOB_A.digest, P3M.digest]) == {P3M.digest}
        assert asked == [{BLOB_A.digest, P3M.digest}]


class TestWriting:
    """Where new blobs go."""

    @pytest.mark.parametrize(
        ("write", "in_near", "in_far"),
        [("near", True, False), ("far", False, True), ("both", True, True)],
    )
    @pytest.mark.parametrize("blob", [HELLO, BLOB_B, EMPTY], ids=str)
    def test_who_has_it(self, write: Any, in_near: bool, in_far: bool, blob: Any) -> None:
        """The policy says which of the two hold a blob once it is written."""
        near, far = MemoryBlobService(), MemoryBlobService()
        cache = CacheBlobService(near, far, write=write)
        with cache.open_write() as writer:
            writer.write(blob.data)
            assert (near.has(blob.digest), far.has(blob.digest)) == (False, False)
        assert (near.has(blob.digest), far.has(blob.digest)) == (in_near, in_far)
        assert cache.read(blob.digest) == blob.data

    @pytest.mark.parametrize("write", ["near", "far", "both"])
    def test_abort(self, write: Any) -> None:
        """An aborted blob is nowhere."""
        near, far = MemoryBlobService(), MemoryBlobService()
        writer = CacheBlobService(near, far, write=write).open_write()
        writer.write(HELLO.data)
        writer.abort()
        assert (near.has(HELLO.digest), far.has(HELLO.digest)) == (False, False)

    @pytest.mark.parametrize(
        ("write", "broken", "fails"),
        [
            ("near", "near", True), ("near", "far", False), ("far", "far", True),
            ("far", "near", False), ("both", "near", False), ("both", "far", True),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("operation", [*WRITER, "lease", "claim", "put_chunks", "put_indexes"])
    def test_faults(self, write: Any, broken: str, fails: bool, operation: str) -> None:
        """A write that a target does not take fails, and nobody shows the blob; others are not asked."""
        services = {"near": MemoryBlobService(), "far": MemoryBlobService()}
        near, far = (
            FaultyService(
                inner,
                {operation} if name == broken else (),
                instance=name,
                capabilities=operation not in WRITER,
            )
            for name, inner in services.items()
        )
        cache = CacheBlobService(near, far, write=write)
        if not fails:
            assert cache.write(HELLO.data) == HELLO.digest
            return
        with pytest.raises(UnavailableError, match=f"`{broken}`"):
            cache.write(HELLO.data)
        assert list(services[broken].list_blobs()) == []
        assert list(services["near"].list_blobs()) == []

    @pytest.mark.parametrize("capabilities", [True, False])
    def test_far_first(self, capabilities: bool) -> None:
        """With both, far has a blob before near shows it: what can be seen is where it lasts."""
        near, far = MemoryBlobService(), MemoryBlobService()
        seen: list[bool] = []

        class Watching(FaultyService):
            def meet(self, operation: str) -> None:
                if operation in ("writer.close", "put_indexes"):
                    seen.append(HELLO.digest in far.list_blobs())

        CacheBlobService(Watching(near, capabilities=capabilities), far, write="both").write(HELLO.data)
        assert seen == [True]

    def test_both_must_name_it_alike(self) -> None:
        """A service that has other bytes than the other one says so by its digest."""

        class Adding(FaultyService):
            def open_write(self) -> BlobWriter:
                writer = super().open_write()
                writer.write(b"!")
                return writer

        near = Adding(MemoryBlobService(), capabilities=False)
        cache = CacheBlobService(near, MemoryBlobService(), write="both")
        with pytest.raises(CorruptBlobError) as caught:
            cache.write(HELLO.data)
        assert caught.value.found == HELLO.digest


class TestCapabilities:
    """A cache has the capabilities that near and far make possible, no more and no less."""

    @pytest.mark.parametrize(
        ("near", "far", "write", "lists", "stores"),
        [
            ("chunks", "chunks", "near", True, True),
            ("chunks", "chunks", "far", True, True),
            ("chunks", "chunks", "both", True, True),
            ("chunks", "none", "near", False, True),
            ("chunks", "none", "far", False, False),
            ("chunks", "none", "both", False, False),
            ("none", "chunks", "near", False, False),
            ("none", "chunks", "far", False, True),
            ("none", "chunks", "both", False, False),
            ("none", "none", "near", False, False),
        ],
    )
    def test_table(self, smallest: Any, near: Any, far: Any, write: Any, lists: bool, stores: bool) -> None:
        """Lists if both can; writes chunks if all that are written to can; reads chunks always."""
        makes = {"chunks": MemoryBlobService, "none": smallest}
        cache = CacheBlobService(makes[near](), makes[far](), write=write)
        assert (cache.capability(BlobLister) is not None) is lists
        assert (cache.capability(ChunkStore) is not None) is stores
        assert cache.capability(ChunkSource) is not None

    def test_a_list_is_of_both(self) -> None:
        """Blobs of near and of far are listed, those of both once."""
        near, far = MemoryBlobService(), MemoryBlobService()
        near.write(HELLO.data)
        far.write(HELLO.data)
        near.write(BLOB_A.data)
        far.write(BLOB_B.data)
        lister = CacheBlobService(near, far).capability(BlobLister)
        assert lister is not None
        listed = list(lister.list_blobs())
        assert sorted(listed) == sorted([HELLO.digest, BLOB_A.digest, BLOB_B.digest])

    @pytest.mark.parametrize(
        ("write", "in_near", "in_far"),
        [("near", True, False), ("far", False, True), ("both", True, True)],
    )
    def test_chunks_go_where_blobs_go(self, write: Any, in_near: bool, in_far: bool) -> None:
        """A chunk, and an index, is stored where a blob would be."""
        near, far = MemoryBlobService(), MemoryBlobService()
        store = CacheBlobService(near, far, write=write).capability(ChunkStore)
        assert store is not None
        halves = [HELLO.data[:6], HELLO.data[6:]]
        metas = [ChunkMeta(B3Digest.of(half), 6) for half in halves]
        for meta, half in zip(metas, halves, strict=True):
            store.put_chunk(meta.digest, half)
        store.put_index(HELLO.digest, metas)
        for service, expected in ((near, in_near), (far, in_far)):
            assert service.has(metas[0].digest) is expected
            assert service.has(HELLO.digest) is expected


class TestConfig:
    def test_the_example_in_the_documentation_loads(self, tmp_path: Path) -> None:
        """The TOML at the head of the module is a composition."""
        text = textwrap.dedent((castore_cache.config.__doc__ or "").partition("::\n")[2])
        (tmp_path / "composition.toml").write_text(text)
        with Composition.from_toml(tmp_path / "composition.toml") as stores:
            digest = stores.blobs().write(HELLO.data)
            assert stores.blobs("local").has(digest) is True
            assert stores.blobs("remote").has(digest) is False

    def test_references_may_be_urls(self) -> None:
        """Near and far may be instances of their own."""
        root = {"type": "cache", "near": "memory:", "far": "objectstore+memory:", "write": "far"}
        with Composition.from_mapping({"blobservices": {"root": root}}) as stores:
            digest = stores.blobs().write(P3M.data)
            assert len(stores.blobs().chunks(digest) or ()) == 8

    @pytest.mark.parametrize(
        ("table", "why"),
        [
            ({"type": "cache", "near": "memory:"}, "far"),
            ({"type": "cache", "near": "memory:", "far": "memory:", "write": "none"}, "write"),
            ({"type": "cache", "near": "memory:", "far": "&root"}, "refers to itself"),
            ({"type": "cache", "near": "memory:", "far": "&nowhere"}, "nowhere"),
            ({"type": "cache", "local": "memory:", "far": "memory:"}, "near"),
            ({"type": "combined", "near": "memory:", "far": "memory:"}, "`cache`"),
        ],
    )
    def test_refused(self, table: dict[str, Any], why: str) -> None:
        """What is wrong is told, and the names of the past are known."""
        with pytest.raises(CompositionError, match=why):
            Composition.from_mapping({"blobservices": {"root": table}})

    def test_no_url_form(self) -> None:
        """A cache needs two references: it has no URL."""
        root = {"type": "cache", "near": "memory:", "far": "cache:?near=memory:&far=memory:"}
        with pytest.raises(CompositionError, match=r"`cache`.* URL"):
            Composition.from_mapping({"blobservices": {"root": root}})
