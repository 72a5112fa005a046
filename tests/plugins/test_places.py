"""Where a store in folders lies: what is made of its place, and what is told if that is not there, or new."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import BlobService, BuildError, Composition, UnavailableError
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.contract.upkeep import Evictable, Sweepable
from castore.testing import BLOB_A, HELLO
from castore.upkeep import collect, copy, verify

TYPES = {
    "objectstore": {"root": {"type": "objectstore", "object_store_url": "file:PATH"}},
    "objectstore by process": {
        "root": {"type": "objectstore", "object_store_url": "file:PATH", "durability": "process"}
    },
    "packed": {"root": {"type": "packed", "object_store_url": "file:PATH"}},
    "sqlite": {"root": {"type": "sqlite", "path": "PATH"}},
    "lru": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "1 GB"},
        "store": {"type": "objectstore", "object_store_url": "file:PATH"},
    },
    "lru over sqlite": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "1 GB"},
        "store": {"type": "sqlite", "path": "PATH"},
    },
}

QUEUE = {
    "root": {"type": "cache", "near": "&near", "far": "&far", "write": "behind", "queue": "PATH"},
    "near": {"type": "objectstore", "object_store_url": "file:./near"},
    "far": {"type": "memory"},
}


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Callable[..., Composition]]:
    """Open a type of store whose place is `path`, in a composition whose folder is `here`."""
    (tmp_path / "here").mkdir()
    opened: list[Composition] = []

    def make(tables: dict[str, Any], path: str, create: str | bool | None = None) -> Composition:
        tables = json.loads(json.dumps(tables).replace("PATH", path))
        for table in tables.values():
            if create is not None and path in json.dumps(table):
                table["create"] = create
        opened.append(Composition.from_mapping({"blobservices": tables}, base=tmp_path / "here"))
        return opened[-1]

    yield make
    for composition in opened:
        # What could not be flushed is told here as well.
        with contextlib.suppress(UnavailableError, ExceptionGroup):
            composition.close()


def listed(blobs: BlobService) -> object:
    lister = blobs.capability(BlobLister)
    assert lister is not None
    return list(lister.list_blobs())


def leased(blobs: BlobService) -> object:
    store = blobs.capability(ChunkStore)
    assert store is not None
    with store.lease():
        return None


def swept(blobs: BlobService) -> object:
    if blobs.capability(Sweepable) is None:
        return listed(blobs)  # Nothing is collected there.
    return collect(blobs, [], no_roots=True, grace_seconds=0)


READS: dict[str, Callable[[BlobService], object]] = {
    "has": lambda blobs: blobs.has(HELLO.digest),
    "missing": lambda blobs: blobs.missing([HELLO.digest, BLOB_A.digest]),
    "open_read": lambda blobs: blobs.open_read(HELLO.digest),
    "chunks": lambda blobs: blobs.chunks(HELLO.digest),
    "get_chunk": lambda blobs: blobs.capability(ChunkStore).get_chunk(HELLO.digest),  # type: ignore[union-attr]
    "claim": lambda blobs: blobs.capability(ChunkStore).claim([HELLO.digest]),  # type: ignore[union-attr]
    "list": listed,
    "verify": verify,
    "copy": lambda blobs: copy(blobs, blobs),
    "gc": swept,
}
WRITES: dict[str, Callable[[BlobService], object]] = {
    "write": lambda blobs: blobs.write(HELLO.data),
    "lease": leased,
}


def every_call(blobs: BlobService) -> Iterator[Callable[[], object]]:
    for call in (*READS.values(), *WRITES.values()):
        yield lambda call=call: call(blobs)  # type: ignore[misc]


PLACES = [
    # The place, what may be made, whether that is enough; `old` is a folder that is there.
    ("./store", None, True),
    ("./stores/store", None, True),
    ("../stores/store", None, True),
    ("./mnt/disk/store", None, False),
    ("old/mnt/disk/store", None, False),
    ("old/disk/store", None, False),
    ("{above}/stores/store", None, False),
    ("{above}/store", None, True),
    ("./mnt/disk/store", "parent", False),
    ("./mnt/disk/store", "path", True),
    ("{above}/mnt/disk/store", "path", True),
    ("./store", False, False),
    ("./stores/store", False, False),
]


@pytest.mark.parametrize("kind", ["objectstore", "sqlite", "lru"])
@pytest.mark.parametrize(("path", "create", "is_made"), PLACES)
def test_what_is_made(
    compose: Callable[..., Composition],
    tmp_path: Path,
    kind: str,
    path: str,
    create: str | bool | None,
    is_made: bool,
) -> None:
    """A place that may be made is an empty store; where it may not, nothing is absent and nothing is made."""
    (tmp_path / "here" / "old").mkdir()
    path = path.format(above=tmp_path)
    blobs = compose(TYPES[kind], path, create).blobs()
    for call in every_call(blobs):
        if is_made:
            call()
        else:
            with pytest.raises(UnavailableError, match="There is no such"):
                call()
    made = {found.name for found in tmp_path.rglob("*")} - {"here", "old"}
    assert (made == set()) is not is_made, made


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("link", ["place", "above"])
def test_a_link_to_nowhere(compose: Callable[..., Composition], tmp_path: Path, kind: str, link: str) -> None:
    """As to a disk that is not mounted: whatever is asked, it is unavailable, and the link is named."""
    (tmp_path / "here" / "disk").symlink_to("/mnt/none")
    path = "./disk" if link == "place" else "./disk/store"
    blobs = compose(TYPES[kind], path, "path").blobs()
    for call in every_call(blobs):
        with pytest.raises(UnavailableError, match=r"This (link leads nowhere|is a link).*disk"):
            call()


@pytest.mark.parametrize("kind", TYPES)
def test_a_link_to_a_folder_that_is_there(
    compose: Callable[..., Composition], tmp_path: Path, kind: str
) -> None:
    """A place may lie behind a link of its owner's; everything works there, looking after it as well."""
    (tmp_path / "real").mkdir()
    (tmp_path / "here" / "disk").symlink_to(tmp_path / "real")
    blobs = compose(TYPES[kind], "./disk/store").blobs()
    for call in every_call(blobs):
        call()
    assert blobs.read(HELLO.digest) == HELLO.data
    assert (tmp_path / "real" / "store").exists()


@pytest.mark.parametrize("top", ["blobs", "chunks"])
def test_a_link_at_the_top_of_a_store(compose: Callable[..., Composition], tmp_path: Path, top: str) -> None:
    """The chunks may be on another disk; where that is not mounted none of them is absent."""
    blobs = compose(TYPES["objectstore"], "./store").blobs()
    blobs.write(HELLO.data)
    store = tmp_path / "here" / "store"
    (store / top).rename(tmp_path / "disk")
    (store / top).symlink_to(tmp_path / "disk")
    assert compose(TYPES["objectstore"], "./store").blobs().read(HELLO.digest) == HELLO.data
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    for call in (blobs.has, blobs.open_read, blobs.chunks):
        with pytest.raises(UnavailableError, match=f"This link leads nowhere.*{top}"):
            call(BLOB_A.digest)


def gone(store: Path, aside: Path) -> None:
    store.rename(aside)


def replaced_by_nothing(store: Path, aside: Path) -> None:
    store.rename(aside)
    store.mkdir()


def replaced_by_another(store: Path, aside: Path) -> None:
    store.rename(aside)
    with Composition.from_mapping(
        {"blobservices": {"root": {"type": "objectstore", "object_store_url": f"file:{store}"}}}
    ) as stores:
        stores.blobs().write(b"another")


@pytest.mark.parametrize("kind", ["objectstore", "objectstore by process", "lru"])
@pytest.mark.parametrize("change", [gone, replaced_by_nothing, replaced_by_another])
def test_a_store_that_goes_while_it_is_open(
    compose: Callable[..., Composition], tmp_path: Path, kind: str, change: Callable[[Path, Path], None]
) -> None:
    """Renamed, unmounted or replaced: nothing of it is absent, and nothing is written elsewhere."""
    blobs = compose(TYPES[kind], "./store").blobs()
    blobs.write(HELLO.data)
    store, aside = tmp_path / "here" / "store", tmp_path / "aside"
    change(store, aside)
    before = sorted(tmp_path.rglob("*"))
    calls = [blobs.has, blobs.open_read, blobs.chunks]
    for call in calls:
        with pytest.raises(UnavailableError, match=r"was here and is gone|Another folder is here|lru"):
            call(BLOB_A.digest)
    with pytest.raises(UnavailableError):
        blobs.write(BLOB_A.data)
    assert sorted(tmp_path.rglob("*")) == before
    # It goes on once it is back.
    if store.exists():
        shutil.rmtree(store)
    aside.rename(store)
    assert blobs.has(BLOB_A.digest) is False
    assert blobs.read(HELLO.digest) == HELLO.data


def test_a_store_that_is_mounted_again(compose: Callable[..., Composition], tmp_path: Path) -> None:
    """On another device, with the folders that were there: it is the same store."""
    blobs = compose(TYPES["objectstore"], "./store").blobs()
    blobs.write(HELLO.data)
    blobs.has(BLOB_A.digest)
    blobs.write(BLOB_A.data)
    place = blobs._store._place  # type: ignore[attr-defined]
    place._seen = (place._seen[0] + 1, place._seen[1])
    assert blobs.has(HELLO.digest)
    assert blobs.chunks(BLOB_A.digest) == ()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_database_that_goes_while_it_is_open(
    compose: Callable[..., Composition], tmp_path: Path, how: str
) -> None:
    """A reader is told, once: then it is asked what is there."""
    blobs = compose(TYPES["sqlite"], "./blobs.sqlite").blobs()
    blobs.write(HELLO.data)
    assert not blobs.has(BLOB_A.digest)
    path = tmp_path / "here" / "blobs.sqlite"
    path.rename(tmp_path / "aside")
    if how == "replaced":
        with compose(TYPES["sqlite"], "./other.sqlite") as stores:
            stores.blobs().write(BLOB_A.data)
        (tmp_path / "here" / "other.sqlite").rename(path)
    for log in ("-wal", "-shm"):
        path.with_name(path.name + log).unlink()
    with pytest.raises(UnavailableError, match="was moved or replaced while it was in use"):
        blobs.has(HELLO.digest)
    assert blobs.has(BLOB_A.digest) is (how == "replaced")


@pytest.mark.parametrize(("path", "create", "is_made"), PLACES)
def test_the_folder_of_a_queue(
    compose: Callable[..., Composition], tmp_path: Path, path: str, create: str | bool | None, is_made: bool
) -> None:
    """A queue that may not be made is not an empty one: what waits in it would be forgotten."""
    (tmp_path / "here" / "old").mkdir()
    path = path.format(above=tmp_path)
    if is_made:
        compose(QUEUE, path, create).blobs().write(HELLO.data)
        return
    with pytest.raises(BuildError, match="There is no such folder"):
        compose(QUEUE, path, create).blobs()


def test_a_queue_that_goes_while_it_is_open(compose: Callable[..., Composition], tmp_path: Path) -> None:
    blobs = compose(QUEUE, "./queue").blobs()
    blobs.write(HELLO.data)
    (tmp_path / "here" / "queue").rename(tmp_path / "aside")
    with pytest.raises(UnavailableError, match="was here and is gone"):
        blobs.write(BLOB_A.data)
    assert not (tmp_path / "here" / "queue").exists()


def test_a_store_that_may_not_be_begun(compose: Callable[..., Composition], tmp_path: Path) -> None:
    """Nor in a folder that is there and empty, as where a disk is mounted; one that is begun is used."""
    (tmp_path / "here" / "disk").mkdir()
    blobs = compose(TYPES["objectstore"], "./disk", False).blobs()
    for call in every_call(blobs):
        with pytest.raises(UnavailableError, match="Nothing is in this folder"):
            call()
    compose(TYPES["objectstore"], "./disk").blobs().write(HELLO.data)
    assert blobs.read(HELLO.digest) == HELLO.data
    assert blobs.capability(Evictable) is not None
