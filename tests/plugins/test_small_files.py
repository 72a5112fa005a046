"""Many files stored at once: as one by one, but in far fewer flushes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from castore import B3Digest, BlobService, SourceError, UnavailableError
from castore.chunks import small_files
from castore.threads.pool import Pool
from castore_memory.service import MemoryBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

if TYPE_CHECKING:
    from typing_extensions import Buffer


def files_in(folder: Path, count: int) -> list[Path]:
    """Files of all sizes, some alike, some larger than a chunk."""
    source = random.Random(5)
    folder.mkdir()
    paths = []
    for number in range(count):
        paths.append(folder / str(number))
        size = source.choice([0, 1, 400, 511, 512, 513, 3000]) if number % 50 else 200_000
        paths[-1].write_bytes(random.Random(number % 40).randbytes(size))
    return paths


class CountingStore(LocalObjectStore):
    flushes = 0

    def _flush(self) -> None:
        self.flushes += 1
        super()._flush()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_is_stored_and_reported_in_order(tmp_path: Path, workers: int) -> None:
    """The digests are those of the files, in their order, and each blob is there when its digest comes."""
    paths = files_in(tmp_path / "files", 1500)
    store = CountingStore(tmp_path / "store", instance="files")
    service = ObjectStoreBlobService(store, avg_chunk_size=1024, pool=Pool(workers))
    sizes: list[int] = []
    other = ObjectStoreBlobService(LocalObjectStore(tmp_path / "store", instance="other"))
    for path, digest in zip(paths, service.put_files(paths, progress=sizes.append), strict=True):
        assert digest == B3Digest.of(path.read_bytes())
        assert other.has(B3Digest.of(path.read_bytes()))
    assert sum(sizes) == sum(path.stat().st_size for path in paths)
    large = sum(path.stat().st_size > 512 for path in paths)
    assert store.flushes < 3 * large + 10
    assert not [path for path in (tmp_path / "store").rglob("*") if "#" in path.name]


def test_what_is_known_needs_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads the files finds that out, and no thread is given indexes that would stay as they are."""
    paths = files_in(tmp_path / "files", 100)
    store = CountingStore(tmp_path / "store", instance="files")
    service = ObjectStoreBlobService(store, avg_chunk_size=1024)
    small = [path for path in paths if 0 < path.stat().st_size < 513]
    digests = [B3Digest.of(path.read_bytes()) for path in small]
    new = set(digests[-3:])
    list(service.put_files(path for path, digest in zip(small, digests, strict=True) if digest not in new))
    put: list[B3Digest] = []
    put_indexes = service.put_indexes

    def noted(blobs: Sequence[tuple[B3Digest, Any]]) -> None:
        put.extend(digest for digest, _ in blobs)
        put_indexes(blobs)

    monkeypatch.setattr(service, "put_indexes", noted)
    assert list(service.put_files(small)) == digests
    assert set(put) == new
    put.clear()
    before = store.flushes
    assert list(service.put_files(small)) == digests
    assert put == []
    assert store.flushes > before  # Another process may have put them, and not flushed yet.
    service.close()


@pytest.mark.parametrize("make", [MemoryBlobService, ObjectStoreBlobService])
def test_a_file_that_cannot_be_read_does_not_keep_the_others(tmp_path: Path, make: Any) -> None:
    """Its error takes the place of its digest."""
    service: BlobService = (
        make() if make is MemoryBlobService else make(LocalObjectStore(tmp_path / "store", instance="files"))
    )
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    found = list(service.put_files([tmp_path / "a", tmp_path / "none", tmp_path, tmp_path / "b"]))
    assert [type(entry) for entry in found] == [B3Digest, SourceError, SourceError, B3Digest]
    assert service.read(B3Digest.of(b"b")) == b"b"


def test_a_store_that_fails(tmp_path: Path, store: Any, blobs_of: Any) -> None:
    """Its error ends it all, and no task is left."""
    paths = files_in(tmp_path / "files", 100)
    store.failing = lambda verb, key: verb == "PUT" and key.startswith("chunks")
    with pytest.raises(UnavailableError, match="no route for PUT"):
        list(blobs_of(store, pool=2).put_files(paths))
    assert [key for key in store.objects if key.startswith("blobs")] == []


def test_nothing_is_reported_before_it_has_an_index(tmp_path: Path, store: Any, blobs_of: Any) -> None:
    """A digest comes only after the index is put."""
    paths: Sequence[Path] = files_in(tmp_path / "files", 40)
    for digest in blobs_of(store, avg_chunk_size=1024).put_files(paths):
        assert f"blobs/b3/{digest.hex()[:4]}/{digest.hex()}" in store.objects


class Bounded(MemoryBlobService):
    """Counts how many bytes wait to be stored."""

    read = stored = most = 0

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        self.most = max(self.most, self.read - self.stored)
        super().put_chunks(chunks)
        self.stored += sum(len(memoryview(data)) for data in chunks.values())


@pytest.mark.parametrize("size", [0, 2])
def test_only_so_much_waits_to_be_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A thousand small files may be 128 MiB."""
    store = Bounded()

    def counting(path: Any, most: int) -> bytes:
        data = Path(path).read_bytes()
        store.read += len(data)
        return data

    monkeypatch.setattr(small_files, "_MOST_WAITING", 100_000)
    monkeypatch.setattr(small_files, "read_beginning", counting)
    paths = [tmp_path / str(number) for number in range(640)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(1000))
    workers = Pool(size)
    found = list(small_files.SmallFiles(store, store, workers, limit=2000).put(paths, None))
    workers.close()
    assert found == [B3Digest.of(path.read_bytes()) for path in paths]
    # What waits, the job that was added last, and those that are being stored.
    assert store.most <= 100_000 + 4 * 32_000
