"""A file that is stored already is recognised; one that only seems to be is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService
from castore.testing import P3M
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of several chunks."""
    path = tmp_path / "file"
    path.write_bytes(P3M.data)
    return path


class TestRequests:
    def test_a_known_file_is_hashed_and_no_more(self, blobs_of: Any, store: Any, file: Path) -> None:
        """Its first chunk, its index and its chunks are asked for; nothing is sent."""
        blobs = blobs_of(store)
        blobs.put_file(file)
        store.take_requests()
        assert blobs.put_file(file) == P3M.digest
        assert store.take_requests() == ["HEAD chunks", "HEAD blobs", "GET blobs", *["HEAD chunks"] * 8]

    def test_a_new_file_costs_one_question_more(self, blobs_of: Any, store: Any, file: Path) -> None:
        """That for its first chunk."""
        blobs_of(store).put_file(file)
        sent = ["HEAD chunks", "PUT chunks"] * 8
        assert store.take_requests() == ["HEAD chunks", *sent, "HEAD blobs", "PUT blobs"]

    def test_small_files_and_streams_are_not_asked_for(self, blobs_of: Any, store: Any, file: Path) -> None:
        """A file no larger than a chunk can be, and what cannot be read again, is stored straight on."""
        blobs = blobs_of(store)
        file.write_bytes(P3M.data[:1000])
        blobs.put_file(file)
        assert store.take_requests() == ["HEAD chunks", "PUT chunks", "HEAD blobs", "PUT blobs"]
        file.write_bytes(P3M.data)
        with file.open("rb") as stream:
            blobs.put_file(stream)
        assert store.take_requests()[:2] == ["HEAD chunks", "PUT chunks"]


@pytest.mark.parametrize("damage", ["missing chunk", "torn chunk", "torn index", "missing index"])
def test_a_blob_that_is_not_whole_is_stored_again(tmp_path: Path, file: Path, damage: str) -> None:
    """Whatever is missing, putting the file again mends it."""
    folder = tmp_path / "store"

    def service() -> BlobService:
        return ObjectStoreBlobService(LocalObjectStore(folder, instance="files"))

    assert service().put_file(file) == P3M.digest
    chunks = service().chunks(P3M.digest) or ()
    kind = "blobs" if "index" in damage else "chunks"
    name = P3M.digest.hex() if "index" in damage else chunks[5].digest.hex()
    path = folder / kind / "b3" / name[:4] / name
    if "missing" in damage:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    assert service().put_file(file) == P3M.digest
    assert service().read(P3M.digest) == P3M.data


def test_a_file_that_begins_like_a_known_one(tmp_path: Path, file: Path) -> None:
    """Its first chunk is there, its blob is not: it is stored from its start."""
    service = ObjectStoreBlobService(LocalObjectStore(tmp_path / "store", instance="files"))
    service.put_file(file)
    other = P3M.data[:-1] + b"!"
    file.write_bytes(other)
    seen: list[int] = []
    assert service.put_file(file, progress=seen.append) == B3Digest.of(other)
    assert service.read(B3Digest.of(other)) == other
    assert sum(seen) == len(other)
    seen.clear()
    service.put_file(file, progress=seen.append)
    assert seen == [len(other)]
