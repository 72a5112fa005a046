"""The type `onefile`: castore's contract, and what is its own."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import castore
import pytest
from castore.testing import BlobServiceContract, blob_service_machine
from hypothesis.stateful import run_state_machine_as_test

from castore_onefile.config import OneFileConfig
from castore_onefile.service import OneFileBlobService


def make(folder: Path, max_blob_size: int = 64 << 20) -> OneFileBlobService:
    return OneFileBlobService(folder / "blobs.db", max_blob_size=max_blob_size, name="archive")


class TestContract(BlobServiceContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> castore.BlobService:
        return make(tmp_path)


def test_it_does_what_a_dictionary_does(tmp_path: Path) -> None:
    folders = (tmp_path / str(number) for number in itertools.count())
    run_state_machine_as_test(blob_service_machine(lambda: make(next(folders))))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[OneFileBlobService]:
    with make(tmp_path, max_blob_size=1000) as service:
        yield service


def damage(folder: Path) -> None:
    db = sqlite3.connect(folder / "blobs.db")
    with db:
        db.execute("UPDATE blobs SET data = ?", [b"other"])
    db.close()


def test_a_damaged_row_is_corrupt_and_storing_the_blob_again_heals_it(
    service: OneFileBlobService, tmp_path: Path
) -> None:
    digest = service.write(b"some")
    damage(tmp_path)
    with pytest.raises(castore.CorruptBlobError) as caught:
        service.open_read(digest)
    assert caught.value.expected == digest
    assert caught.value.found == castore.B3Digest.of(b"other")
    assert caught.value.key == f"blobs/{digest}"
    service.write(b"some")
    assert service.read(digest) == b"some"


def test_a_blob_beyond_the_limit_is_refused_before_its_end(service: OneFileBlobService) -> None:
    writer = service.open_write()
    writer.write(bytes(999))
    with pytest.raises(castore.UnsupportedError, match="`archive` takes blobs of at most 1000 bytes"):
        writer.write(bytes(2))
    assert list(service.list_blobs()) == []
    assert service.has(service.write(bytes(1000)))


def test_what_is_stored_is_there_after_reopening(tmp_path: Path) -> None:
    with make(tmp_path) as service:
        digest = service.write(b"some")
    with make(tmp_path) as service:
        assert service.read(digest) == b"some"


def test_a_file_that_is_no_database_makes_the_service_unavailable(tmp_path: Path) -> None:
    (tmp_path / "blobs.db").write_bytes(b"no database, " * 100)
    with pytest.raises(castore.UnavailableError, match="archive"):
        make(tmp_path)


def test_a_failure_of_sqlite_is_unavailable_not_absent(service: OneFileBlobService, tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "blobs.db")
    db.execute("DROP TABLE blobs")
    db.close()
    for ask in (service.has, service.open_read):
        with pytest.raises(castore.UnavailableError) as caught:
            ask(castore.B3Digest.of(b""))
        assert caught.value.instance == "archive"
        assert isinstance(caught.value.cause, sqlite3.Error)


def test_missing_asks_for_500_digests_at_once(tmp_path: Path) -> None:
    class Counting(OneFileBlobService):
        queries = 0

        def _rows(self, statement: str, *values: bytes) -> list[tuple[Any, ...]]:
            self.queries += 1
            return super()._rows(statement, *values)

    with Counting(tmp_path / "blobs.db", max_blob_size=1000, name="archive") as service:
        there = {service.write(bytes([number])) for number in range(50)}
        absent = {castore.B3Digest.of(number.to_bytes(2)) for number in range(1000)}
        service.queries = 0
        assert service.missing(there | absent) == absent
        assert service.queries == 3


def test_list_blobs_goes_on_after_500_and_lets_others_work_meanwhile(service: OneFileBlobService) -> None:
    stored = {service.write(number.to_bytes(2)) for number in range(501)}
    assert [digest for digest in service.list_blobs() if service.has(digest)] == sorted(stored)


def test_a_composition_builds_it_next_to_its_file(tmp_path: Path) -> None:
    table = {"type": "onefile", "path": "sub/blobs.db", "max_blob_size": "1 KiB"}
    with castore.Composition.from_mapping({"blobservices": {"root": table}}, base=tmp_path) as stores:
        stores.blobs().write(bytes(1024))
        with pytest.raises(castore.UnsupportedError, match="1024"):
            stores.blobs().write(bytes(1025))
    assert (tmp_path / "sub" / "blobs.db").exists()


def test_a_url_is_its_path(tmp_path: Path) -> None:
    with castore.from_url(f"onefile:{tmp_path}/blobs.db") as service:
        digest = service.write(b"some")
    with make(tmp_path) as service:
        assert service.has(digest)


def test_a_url_may_have_the_other_field(tmp_path: Path) -> None:
    config = OneFileConfig.from_url(f"onefile:{tmp_path}/blobs.db?max_blob_size=1+KiB")
    assert config.max_blob_size == 1024
    with pytest.raises(ValueError, match="max_blob"):
        OneFileConfig.from_url(f"onefile:{tmp_path}/blobs.db?max_blob=1+KiB")


@pytest.mark.parametrize("url", ["onefile:", "onefile://host/file", "onefile+s3:/file"])
def test_a_url_of_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="as in `onefile:./blobs.db`"):
        OneFileConfig.from_url(url)
