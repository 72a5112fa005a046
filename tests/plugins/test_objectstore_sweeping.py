"""Claims, leases and sweeps where files cannot be locked, on a file system in memory."""

from __future__ import annotations

import time
from typing import Any

import pytest

from castore import B3Digest, UnavailableError
from castore.threads.pool import Pool
from castore.upkeep import collect
from castore_objectstore import fsspec_store
from castore_objectstore.fsspec_store import FsspecObjectStore
from castore_objectstore.object_store import StoredObject
from castore_objectstore.service import ObjectStoreBlobService

HOUR = 3600.0


def whole(read_at: object, size: int) -> bool:
    return True


class Place:
    """A store, and what another hand does in it."""

    def __init__(self) -> None:
        self.store = FsspecObjectStore("memory:", {}, instance="memory", fresh_seconds=HOUR)
        self.blobs = ObjectStoreBlobService(self.store, avg_chunk_size=512, pool=Pool(0))
        self.fs: Any = self.store._open()[0]

    def age(self, seconds: float, under: str = "/") -> None:
        """Make everything older."""
        for name, file in self.fs.store.items():
            if name.startswith(under):
                file.modified = file.modified.fromtimestamp(time.time() - seconds, file.modified.tzinfo)
                file.created = file.modified

    @property
    def keys(self) -> set[str]:
        return {name.removeprefix("/") for name in self.fs.store}


@pytest.fixture
def place() -> Place:
    return Place()


def test_garbage_goes_and_the_rest_stays(place: Place) -> None:
    kept = place.blobs.write(bytes(range(256)) * 20)
    before = place.keys
    gone = place.blobs.write(bytes(range(255, -1, -1)) * 20)
    place.age(10 * 24 * HOUR)

    collected = collect(place.blobs, [kept])

    assert place.keys == before
    assert collected.gone["index"].count == 1
    assert place.blobs.read(kept)
    assert not place.blobs.has(gone)


def test_what_is_claimed_or_held_stays(place: Place) -> None:
    """A claim stores an old object anew; a lease keeps what came after it."""
    digest = place.blobs.write(b"a chunk")
    key = place.blobs.chunk_key(digest)
    place.age(10 * 24 * HOUR)
    assert place.blobs.claim_chunk(digest)
    assert list(place.store.sweep([StoredObject(key)], time.time())) == []
    place.age(2 * HOUR)
    assert [entry.key for entry in place.store.sweep([StoredObject(key)], time.time())] == [key]
    assert not place.blobs.claim_chunk(digest)


def test_a_recent_object_is_not_stored_anew(place: Place) -> None:
    """A claim costs one request, and the sweep knows of that."""
    digest = place.blobs.write(b"a chunk")
    place.age(HOUR / 2)
    file = place.fs.store[f"/{place.blobs.chunk_key(digest)}"]
    assert place.blobs.claim_chunk(digest)
    assert place.fs.store[f"/{place.blobs.chunk_key(digest)}"] is file
    collect(place.blobs, (), grace_seconds=0, no_roots=True)
    assert place.blobs.has_chunk(digest)


def test_a_lease_holds_back_the_cutoff(place: Place) -> None:
    digest = place.blobs.write(b"a chunk")
    place.age(10 * HOUR)
    with place.store.lease():
        place.age(11 * HOUR, "/leases")
        collected = collect(place.blobs, (), grace_seconds=HOUR, no_roots=True)
        assert collected.leased_since == pytest.approx(time.time() - 11 * HOUR, abs=60)
        assert place.blobs.has(digest)
    assert place.store.leased_since() is None
    collect(place.blobs, (), grace_seconds=HOUR, no_roots=True)
    assert place.keys == set()


def test_a_lease_counts_for_a_day(place: Place) -> None:
    """Nobody can tell whether its holder is alive; after that it is left over."""
    lease = place.store.lease()
    lease.__enter__()
    place.age(23 * HOUR)
    assert place.store.leased_since() is not None
    place.age(25 * HOUR)
    assert place.store.leased_since() is None
    assert len(place.keys) == 1
    collect(place.blobs, (), grace_seconds=0, no_roots=True)
    assert place.keys == set()
    lease.__exit__(None, None, None)


def test_what_has_no_time_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not tell how old things are loses nothing."""
    place.blobs.write(b"a chunk")
    before = place.keys
    monkeypatch.setattr(fsspec_store, "_time_of", lambda info: None)
    collected = collect(place.blobs, (), grace_seconds=0, no_roots=True)
    assert place.keys == before
    assert collected.kept("chunk").count == 1


def test_leftovers_go(place: Place) -> None:
    key = place.blobs.chunk_key(B3Digest.of(b"x"))
    place.fs.pipe_file(f"/{key}#0123456789abcdef", b"half")
    place.fs.pipe_file("/chunks/b3/README", b"a note")
    place.age(10 * 24 * HOUR)
    collect(place.blobs, (), no_roots=True)
    assert place.keys == {"chunks/b3/README"}


def test_where_nothing_can_be_deleted_nothing_is_held() -> None:
    """A web server may take what is put, but leases would stay there for ever. Nothing is asked at all."""
    store = FsspecObjectStore("http://127.0.0.1:9/", {}, instance="web")
    with store.lease():
        pass
    with pytest.raises(UnavailableError):
        store.put("a", b"")
