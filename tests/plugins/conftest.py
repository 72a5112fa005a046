"""Crew for the tests of the bundled plugins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import pytest
import zstandard

from castore import B3Digest, BlobReader, BlobService, BlobWriter
from castore.errors import UnavailableError
from castore.streams.readers import BytesReader
from castore.testing import EMPTY, HELLO, P3M
from castore.threads.pool import Pool
from castore_memory.service import MemoryBlobService
from castore_objectstore.object_store import LARGEST, ObjectStore, StoredObject
from castore_objectstore.service import ObjectStoreBlobService


@attrs.define
class RecordingStore(ObjectStore):
    """Objects in a dictionary, and a record of all requests; keys in `failing` cannot be reached."""

    name: str = "recording"
    objects: dict[str, bytes] = attrs.field(factory=dict)
    requests: list[tuple[str, str]] = attrs.field(factory=list)
    received: int = 0
    """The bytes that were got from it."""
    failing: Callable[[str, str], bool] = lambda verb, key: False
    modified: dict[str, float] = attrs.field(factory=dict)
    """When objects were put, if not in 1970."""
    _lock: Any = attrs.field(factory=threading.Lock)

    def _record(self, verb: str, key: str) -> None:
        with self._lock:
            self.requests.append((verb, key))
        if self.failing(verb, key):
            raise UnavailableError(self.name, f"no route for {verb} {key}")

    def get(self, key: str, most: int = LARGEST) -> bytes | None:
        self._record("GET", key)
        data = self.objects.get(key)
        with self._lock:
            self.received += len(data or b"")
        return data

    def exists(self, key: str) -> bool:
        self._record("HEAD", key)
        return key in self.objects

    def put(self, key: str, data: bytes) -> None:
        self._record("PUT", key)
        self.objects[key] = data

    def list(self, prefix: str, *, after: str | None = None, **_: Any) -> Iterator[StoredObject]:
        self._record("LIST", prefix)
        for key in list(self.objects):
            if key.startswith(prefix) and (after is None or key > after):
                yield StoredObject(key, len(self.objects[key]), self.modified.get(key, 0.0))

    def sweep(self, objects: Iterable[StoredObject], older_than: float) -> Iterator[StoredObject]:
        for entry in objects:
            self._record("DELETE", entry.key)
            if (
                self.modified.get(entry.key, 0.0) < older_than
                and self.objects.pop(entry.key, None) is not None
            ):
                yield entry

    def describe(self, key: str) -> StoredObject | None:
        self._record("HEAD", key)
        data = self.objects.get(key)
        return None if data is None else StoredObject(key, len(data), self.modified.get(key, 0.0))

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._record("DELETE", key)
            self.objects.pop(key, None)

    def set_aside(self, key: str) -> str:
        self._record("MOVE", key)
        self.objects[f"quarantine/{key}"] = self.objects.pop(key)
        return f"quarantine/{key}"

    def take_requests(self) -> list[str]:
        """Return what was requested since the last call, as `GET chunks` and the like."""
        taken = [f"{verb} {key.partition('/')[0]}" for verb, key in self.requests]
        self.requests.clear()
        self.received = 0
        return taken


@pytest.fixture
def store() -> RecordingStore:
    """An object store in memory that records what it is asked."""
    return RecordingStore()


@pytest.fixture
def blobs_of() -> Callable[..., BlobService]:
    """Make a blob service over an object store, which does one thing at a time unless told otherwise."""

    def make(store: ObjectStore, *, pool: int = 0, **options: Any) -> ObjectStoreBlobService:
        return ObjectStoreBlobService(store, pool=Pool(pool), **options)

    return make


@pytest.fixture
def key_of() -> Callable[[str, B3Digest], str]:
    """The key of a blob's index or of a chunk, spelt out here again."""
    return lambda folder, digest: f"{folder}/b3/{digest.hex()[:4]}/{digest.hex()}"


@pytest.fixture
def frame_of() -> Callable[..., bytes]:
    """A zstd frame as others write it: with the size of its content and a checksum, if asked for."""

    def compress(data: bytes, *, sized: bool = False, checksum: bool = False) -> bytes:
        compressor = zstandard.ZstdCompressor(write_content_size=sized, write_checksum=checksum)
        return compressor.compress(data)

    return compress


@pytest.fixture
def index_of() -> Callable[..., bytes]:
    """The bytes of an index, put together by hand; digests and sizes may be anything."""

    def varint(number: int) -> bytes:
        out = bytearray()
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes([*out, number])

    def encode(*chunks: tuple[bytes, int]) -> bytes:
        out = b""
        for digest, size in chunks:
            entry = b"\x0a" + varint(len(digest)) + bytes(digest)
            if size:
                entry += b"\x10" + varint(size)
            out += b"\x12" + varint(len(entry)) + entry
        return out

    return encode


# -- for the cache --


class Smallest(BlobService):
    """No chunks, no capabilities; blobs may be given wrong bytes, to lie about."""

    def __init__(self) -> None:
        self.blobs: dict[B3Digest, bytes] = {}
        self.reads = 0

    def has(self, digest: B3Digest) -> bool:
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        if digest not in self.blobs:
            return None
        self.reads += 1
        return SlowReader(self.blobs[digest])

    def open_write(self) -> BlobWriter:
        behind = MemoryBlobService()
        writer = behind.open_write()
        close = writer.close

        def closing() -> B3Digest:
            digest = close()
            self.blobs[digest] = behind.read(digest)
            return digest

        writer.close = closing  # type: ignore[method-assign]
        return writer


class SlowReader(BytesReader):
    """Gives its bytes in pieces, so that something can happen in between."""

    def piece_at(self, position: int) -> memoryview:
        return super().piece_at(position)[:50_000]


@pytest.fixture
def smallest() -> type[Smallest]:
    """The class of a service of three methods, without chunks and capabilities."""
    return Smallest


@pytest.fixture
def near_store(store: Any) -> Any:
    store.name = "near"
    return store


@pytest.fixture
def far_store(store: Any) -> Any:
    return type(store)("far")


@pytest.fixture
def near(blobs_of: Any, near_store: Any) -> Any:
    """Cuts at other places than far."""
    return blobs_of(near_store, avg_chunk_size=65536)


@pytest.fixture
def far(blobs_of: Any, far_store: Any) -> Any:
    return blobs_of(far_store)


@pytest.fixture
def cache(near: Any, far: Any, near_store: Any, far_store: Any) -> BlobService:
    """A cold cache before a far store that has some blobs."""
    from castore_cache.service import CacheBlobService  # noqa: PLC0415 - most tests need no cache

    for blob in (P3M, HELLO, EMPTY):
        far.write(blob.data)
    far_store.take_requests()
    return CacheBlobService(near, far, name="root")


# -- for wrappers --


@attrs.define
class HandClock:
    """A clock that stands until it is moved; to sleep moves it, and is noted."""

    now: float = 1000.0
    slept: list[float] = attrs.field(factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> HandClock:
    """A clock of the test's own."""
    return HandClock()
