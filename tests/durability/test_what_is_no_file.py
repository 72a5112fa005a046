"""What stands in the place of a chunk or an index and is no file, or may not be read."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from castore import B3Digest, BlobService, CastoreError, CorruptBlobError
from castore.contract.capabilities import ChunkSource
from castore.threads.pool import Pool
from castore_cache.service import CacheBlobService
from castore_memory.service import MemoryBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

DATA: Final = random.Random(9).randbytes(20_000)
DIGEST: Final = B3Digest.of(DATA)
SMALL: Final = b"one chunk"


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that other users can reach, as those of pytest cannot be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def open_store(root: Path) -> ObjectStoreBlobService:
    store = LocalObjectStore(root, instance="store", durability="process")
    return ObjectStoreBlobService(store, avg_chunk_size=1024, pool=Pool(0))


def places(root: Path) -> dict[str, tuple[B3Digest, Path]]:
    """Store two blobs; return what may be put in whose place, and the blob that needs it."""
    with open_store(root) as service:
        service.write(DATA)
        small = service.write(SMALL)
        chunk = (service.chunks(DIGEST) or ())[2]
        return {
            "a chunk": (DIGEST, root / service.chunk_key(chunk.digest)),
            "an index": (DIGEST, root / service.index_key(DIGEST)),
            "the only chunk": (small, root / service.chunk_key(small)),
        }


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("of somebody")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


KINDS: Final = {"a folder": a_folder, "a pipe": a_pipe}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["a chunk", "an index", "the only chunk"])
def test_what_is_no_file_is_corrupt(root: Path, place: str, kind: str) -> None:
    """It is there, and not right; it is named. Who stores the blob again mends it, and takes nothing away."""
    digest, path = places(root)[place]
    KINDS[kind](path)
    with open_store(root) as service:
        assert service.has(digest)
        with pytest.raises(CorruptBlobError, match=r"there is a (folder|pipe or a device) where") as caught:
            service.read(digest)
        assert caught.value.key == str(path.relative_to(root))
        data = DATA if digest == DIGEST else SMALL
        assert service.write(data) == digest
        assert service.read(digest) == data
    if kind == "a folder":
        assert [found.read_text() for found in root.rglob("something")] == ["of somebody"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["a chunk", "an index", "the only chunk"])
def test_a_cache_mends_it(root: Path, place: str, kind: str) -> None:
    digest, path = places(root)[place]
    KINDS[kind](path)
    data = DATA if digest == DIGEST else SMALL
    far = MemoryBlobService()
    far.write(data)
    with open_store(root) as near:
        assert CacheBlobService(near, far).read(digest) == data
        assert near.read(digest) == data


QUESTIONS: Final[dict[str, Callable[[BlobService, B3Digest], object]]] = {
    "read": lambda service, digest: service.read(digest),
    "chunks": lambda service, digest: service.chunks(digest),
    "has": lambda service, digest: service.has(digest),
    "find_chunks": lambda service, digest: service.capability(ChunkSource).find_chunks([digest]),  # type: ignore[union-attr]
}


def ask(root: Path, digest: B3Digest) -> dict[str, str]:
    """Return what comes of each question."""
    said = {}
    with open_store(root) as service:
        for name, question in QUESTIONS.items():
            try:
                said[name] = repr(type(question(service, digest)).__name__)
            except CastoreError as error:
                said[name] = type(error).__name__
    return said


def ask_as_somebody_else(root: Path, digest: B3Digest) -> dict[str, str]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        os.setgroups([])
        os.setgid(54_004)
        os.setuid(54_004)
        theirs.send(ask(root, digest))

    process = context.Process(target=run)
    process.start()
    assert ours.poll(60)
    said: dict[str, str] = ours.recv()
    process.join(60)
    return said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("place", ["a chunk", "an index", "the only chunk"])
def test_what_may_not_be_read_is_unavailable(root: Path, place: str) -> None:
    """Whether it is right nobody knows; that it is there can be seen."""
    digest, path = places(root)[place]
    path.chmod(0)
    said = ask_as_somebody_else(root, digest)
    assert said["read"] == "UnavailableError"
    assert said["has"] == "'bool'"
    if place == "an index":
        assert said["chunks"] == "UnavailableError"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("folder", ["blobs", "chunks", "blobs/b3", "chunks/b3", "."])
def test_in_a_folder_that_may_not_be_entered_nothing_is_absent(root: Path, folder: str) -> None:
    """Also for a digest that nobody has."""
    places(root)
    (root / folder).chmod(0)
    said = ask_as_somebody_else(root, B3Digest(bytes(32)))
    assert said["read"] == said["has"] == "UnavailableError"
    if folder.startswith("blobs") or folder == ".":
        assert said["chunks"] == "UnavailableError"
    else:
        assert said["find_chunks"] == "UnavailableError"
