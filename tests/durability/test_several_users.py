"""One store of several users, who share a group: in a setgid folder, whatever their umask."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castore import B3Digest, CastoreError, Composition
from castore.contract.capabilities import ChunkStore
from castore.upkeep import collect, verify

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as several users")

GROUP, ANNA, BERT = 54_000, 54_001, 54_002
SMALL, OTHER = b"small " * 100, b"other " * 100
LARGE = bytes(range(256)) * 2000

TABLES: dict[str, dict[str, dict[str, object]]] = {
    "objectstore": {"root": {"type": "objectstore", "object_store_url": "file:./store"}},
    "objectstore, not flushed": {
        "root": {"type": "objectstore", "object_store_url": "file:./store", "durability": "process"}
    },
    "sqlite": {"root": {"type": "sqlite", "path": "./store/blobs.sqlite"}},
    "lru": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "100 MB"},
        "store": {"type": "objectstore", "object_store_url": "file:./store"},
    },
    "a cache that writes behind": {
        "root": {
            "type": "cache",
            "near": "&near",
            "far": "&far",
            "write": "behind",
            "queue": "./store/queue",
        },
        "near": {"type": "objectstore", "object_store_url": "file:./store/near"},
        "far": {"type": "objectstore", "object_store_url": "file:./store/far"},
    },
}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that others can reach, as those of pytest cannot be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    store = folder / "shared"
    store.mkdir()
    os.chown(store, 0, GROUP)
    store.chmod(0o2775)
    yield store
    shutil.rmtree(folder)


def act_as(user: int, call: Callable[..., object], *arguments: object) -> None:
    """Do something in a process of this user, with the umask that most have; fail as that fails."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        os.setgroups([GROUP])
        os.setgid(user)
        os.setuid(user)
        os.umask(0o022)
        try:
            call(*arguments)
        except BaseException as error:
            theirs.send(f"{type(error).__name__}: {error}")
        else:
            theirs.send(None)

    process = context.Process(target=run)
    process.start()
    assert ours.poll(60)
    said = ours.recv()
    process.join(60)
    assert said is None, said


def put(folder: Path, tables: dict[str, dict[str, object]], *blobs: bytes) -> None:
    with Composition.from_mapping({"blobservices": tables}, base=folder) as stores:
        service = stores.blobs()
        for blob in blobs:
            assert service.write(blob) == B3Digest.of(blob)
        store = service.capability(ChunkStore)
        assert store is not None
        with store.lease() as leased:
            leased.put_chunks({B3Digest.of(blobs[0]): blobs[0]})
        for blob in blobs:
            assert service.read(B3Digest.of(blob)) == blob


def look_after(folder: Path, tables: dict[str, dict[str, object]]) -> None:
    with Composition.from_mapping({"blobservices": tables}, base=folder) as stores:
        service = stores.blobs("near" if "near" in tables else "root")
        assert verify(service).ok
        kept = B3Digest.of(SMALL)
        collected = collect(service, [kept], grace_seconds=60)
        assert collected.gone["chunk"].count >= 1
        assert service.read(kept) == SMALL


def grow_old(folder: Path) -> None:
    for path in folder.rglob("*"):
        if "lease" not in path.name and path.is_file() and "sqlite" not in path.name:
            os.utime(path, (time.time() - 600,) * 2)


@pytest.mark.parametrize("kind", TABLES)
def test_two_users(shared: Path, kind: str) -> None:
    """Each puts what the other has put, ten minutes ago and now, and collects the other's garbage."""
    tables = TABLES[kind]
    # What is imported later could not be read by others: the interpreter of this machine may be root's alone.
    with tempfile.TemporaryDirectory() as other:
        put(Path(other), tables, SMALL, LARGE, OTHER)
        grow_old(Path(other))
        if "sqlite" not in kind:
            look_after(Path(other), tables)
    act_as(ANNA, put, shared, tables, SMALL, LARGE)
    grow_old(shared)
    act_as(BERT, put, shared, tables, SMALL, LARGE, OTHER)
    act_as(ANNA, put, shared, tables, OTHER, SMALL)
    grow_old(shared)
    if "sqlite" not in kind:
        act_as(BERT, look_after, shared, tables)
    act_as(ANNA, put, shared, tables, SMALL, LARGE, OTHER)


def test_a_time_that_cannot_be_renewed(shared: Path) -> None:
    """The object of another user is written anew, and so no collection takes it for old."""
    tables = TABLES["objectstore"]
    with tempfile.TemporaryDirectory() as other:
        put(Path(other), tables, SMALL)
    act_as(ANNA, put, shared, tables, SMALL)
    (chunk,) = (path for path in (shared / "store/chunks").rglob("*") if path.is_file())
    before = chunk.read_bytes()
    grow_old(shared)
    act_as(BERT, put, shared, tables, SMALL)
    assert chunk.stat().st_uid == BERT
    assert chunk.read_bytes() == before
    assert time.time() - chunk.stat().st_mtime < 300


def test_where_nothing_can_be_written_it_is_said_where(shared: Path) -> None:
    """A folder that is not the group's to write: what is there can be read all the same."""
    tables = TABLES["objectstore"]
    with tempfile.TemporaryDirectory() as other:
        put(Path(other), tables, SMALL)
    act_as(ANNA, put, shared, tables, SMALL)
    for path in (shared / "store").rglob("*"):
        if path.is_dir():
            path.chmod(0o2755)
    grow_old(shared)

    def refused() -> None:
        with Composition.from_mapping({"blobservices": tables}, base=shared) as stores:
            assert stores.blobs().read(B3Digest.of(SMALL)) == SMALL
            with pytest.raises(CastoreError, match=r"Permission denied: .*/store/chunks/b3/"):
                stores.blobs().write(SMALL)

    act_as(BERT, refused)
