"""Stores whose objects can be tampered with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from castore import B3Digest, BlobReader, BlobService, BlobWriter
from castore.threads.pool import Pool
from castore_memory.service import MemoryBlobService
from castore_objectstore.fsspec_store import FsspecObjectStore
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.object_store import ObjectStore, StoredObject
from castore_objectstore.service import ObjectStoreBlobService


@attrs.frozen
class Place:
    """A service, and the objects behind it."""

    service: ObjectStoreBlobService
    objects: ObjectStore

    def key(self, top: str, digest: B3Digest) -> str:
        return f"{top}/b3/{digest.hex()[:4]}/{digest.hex()}"

    def get(self, top: str, digest: B3Digest) -> bytes | None:
        return self.objects.get(self.key(top, digest))

    def put(self, top: str, digest: B3Digest, data: bytes) -> None:
        self.objects.put(self.key(top, digest), data)
        self.objects.flush()

    def remove(self, top: str, digest: B3Digest) -> None:
        (gone,) = self.objects.sweep([StoredObject(self.key(top, digest))], older_than=1e12)
        assert gone

    def keys(self, prefix: str) -> set[str]:
        return {entry.key for entry in self.objects.list(f"{prefix}b3/")}


@pytest.fixture
def make_local(tmp_path: Path) -> Callable[..., Place]:
    """Make a store in a folder."""

    def make(
        name: str = "here", *, avg: int = 1024, cls: Any = ObjectStoreBlobService, **options: Any
    ) -> Place:
        objects = LocalObjectStore(tmp_path / name, instance=name, durability="process")
        return Place(cls(objects, avg_chunk_size=avg, pool=Pool(0)), objects)

    return make


@pytest.fixture(params=["folder", "fsspec"])
def make_place(request: pytest.FixtureRequest, make_local: Callable[..., Place]) -> Callable[..., Place]:
    """Make a store in a folder, and in another test one in fsspec's memory."""

    def make(
        name: str = "here", *, avg: int = 1024, cls: Any = ObjectStoreBlobService, **options: Any
    ) -> Place:
        objects = FsspecObjectStore("memory:", {}, instance=name)
        return Place(cls(objects, avg_chunk_size=avg, pool=Pool(0)), objects)

    return make_local if request.param == "folder" else make


@pytest.fixture
def long() -> bytes:
    """A blob of many small chunks."""
    return random.Random(7).randbytes(20_000)


class Smallest(BlobService):
    """No chunks and no capabilities."""

    def __init__(self) -> None:
        self.behind = MemoryBlobService()

    def has(self, digest: B3Digest) -> bool:
        return self.behind.has(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return self.behind.open_read(digest)

    def open_write(self) -> BlobWriter:
        return self.behind.open_write()


@pytest.fixture
def smallest() -> Smallest:
    return Smallest()
