"""Files of others, of a newer castore, or damaged: never a wrong byte, always a clear error."""

from __future__ import annotations

import os
import random
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import (
    B3Digest,
    BadFrameError,
    BadIndexError,
    CastoreError,
    CorruptBlobError,
    CorruptChunkError,
    MissingChunkError,
    UnavailableError,
)
from castore.testing import BLOB_B, EMPTY, HELLO, P3M
from castore.threads.pool import Pool
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blobs.sqlite"


def service_on(path: Path, **options: Any) -> SqliteBlobService:
    database = Database(path, instance="root", durability="process", **options)
    return SqliteBlobService(database, avg_chunk_size=1024, pool=Pool(0))


def change(path: Path, statement: str, *parameters: object) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, parameters)
    connection.close()


def require_refused(path: Path, *words: str) -> None:
    """Reading and writing say the same, name the file, and leave it as it is."""
    before = path.read_bytes() if path.is_file() else None
    service = service_on(path)
    for call in (
        lambda: service.has(HELLO.digest),
        lambda: service.read(HELLO.digest),
        lambda: list(service.list_blobs()),
        lambda: service.write(HELLO.data),
        lambda: service.put_index(EMPTY.digest, ()),
    ):
        with pytest.raises(UnavailableError) as caught:
            call()
        for word in (str(path), *words):
            assert word in str(caught.value)
        assert caught.value.instance == "root"
    service.close()
    assert (path.read_bytes() if path.is_file() else None) == before


class TestForeign:
    def test_no_database(self, path: Path) -> None:
        """A file of anything else."""
        path.write_text("this is a letter, and no database at all\n" * 100)
        require_refused(path, "is no SQLite database", "name another file as `path`")

    def test_of_another_program(self, path: Path) -> None:
        """With tables and no name, or with another program's."""
        change(path, "CREATE TABLE songs (title TEXT)")
        require_refused(path, "of another program")
        change(path, "PRAGMA application_id = 7")
        require_refused(path, "of another program")

    def test_of_a_newer_castore(self, path: Path) -> None:
        """It says what to do."""
        service = service_on(path)
        service.write(HELLO.data)
        service.close()
        change(path, "PRAGMA user_version = 3")
        require_refused(path, "version 3", "upgrade castore")

    def test_a_folder(self, path: Path) -> None:
        """Name a file in it."""
        path.mkdir()
        require_refused(path, "is a folder")

    def test_below_a_file(self, path: Path) -> None:
        """What stands in the way is named."""
        path.write_bytes(b"")
        require_refused(path / "blobs.sqlite", "Not a directory")

    def test_an_empty_file_is_as_none(self, path: Path) -> None:
        """Nothing is in it, and a first blob may be."""
        path.touch()
        service = service_on(path)
        assert service.has(HELLO.digest) is False
        assert list(service.list_items()) == []
        service.write(HELLO.data)
        assert service.read(HELLO.digest) == HELLO.data
        service.close()

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
    def test_without_permission(self, path: Path) -> None:
        """The file is named."""
        path.touch()
        path.chmod(0)
        with pytest.raises(UnavailableError, match=re.escape(str(path))):
            service_on(path).write(HELLO.data)


class TestRows:
    """Damage that SQLite cannot see: rows with other bytes than they had."""

    @pytest.mark.parametrize(
        ("frame", "error"),
        [
            (b"", BadFrameError),
            (b"none", BadFrameError),
            (castore.format.frames.compress(HELLO.data)[:-1], BadFrameError),
            (castore.format.frames.compress(b"other"), CorruptChunkError),
            ("text that is not UTF-8", BadFrameError),
            (5, BadFrameError),
        ],
    )
    def test_a_chunk(self, path: Path, frame: object, error: type[CorruptBlobError]) -> None:
        """Is corrupt, at its place in the file; and not for good: it can be put again."""
        service = service_on(path)
        service.write(HELLO.data)
        if isinstance(frame, str):
            change(path, "UPDATE chunks SET frame = CAST(x'ff' AS TEXT)")
        else:
            change(path, "UPDATE chunks SET frame = ?", frame)
        with pytest.raises(CorruptBlobError) as caught:
            service.read(HELLO.digest)
        assert type(caught.value) is error
        assert caught.value.expected == HELLO.digest
        assert caught.value.key == f"{path}: chunks/{HELLO.digest}"
        service.put_chunk(HELLO.digest, HELLO.data)
        assert service.read(HELLO.digest) == HELLO.data
        service.close()

    @pytest.mark.parametrize("index", [b"\xff\xff", "text", b"\x12\x00"])
    def test_an_index(self, path: Path, index: object) -> None:
        """Is corrupt, at its place in the file; storing the blob again heals it."""
        service = service_on(path)
        digest = service.write(P3M.data)
        change(path, "UPDATE indexes SET chunks = ?", index)
        if isinstance(index, bytes):
            with pytest.raises(BadIndexError) as caught:
                service.read(digest)
            assert caught.value.key == f"{path}: indexes/{digest}"
        else:
            with pytest.raises(CorruptBlobError):
                service.read(digest)
        service.write(P3M.data)
        assert service.read(digest) == P3M.data
        service.close()

    def test_a_chunk_that_is_gone(self, path: Path) -> None:
        """Names the blob and the chunk."""
        service = service_on(path)
        digest = service.write(P3M.data)
        chunk = (service.chunks(digest) or ())[3].digest
        change(path, "DELETE FROM chunks WHERE digest = ?", bytes(chunk))
        with pytest.raises(MissingChunkError) as caught:
            service.read(digest)
        assert (caught.value.blob, caught.value.expected) == (digest, chunk)
        service.close()


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_gives_no_wrong_byte(path: Path, seed: int) -> None:
    """Wherever the damage is: right bytes, or an error of castore's that names the file or the blob."""
    service = service_on(path)
    blobs = {service.write(data): data for data in (HELLO.data, BLOB_B.data, P3M.data[:200_000])}
    for number in range(400):
        service.put_chunk(B3Digest.of(b"%d" % number), b"%d" % number)
    service.close()
    damage(path, random.Random(seed))
    service = service_on(path)

    def attempt(call: Any) -> Any:
        try:
            return call()
        except CastoreError as error:
            assert str(path) in str(error)  # noqa: PT017 - any of castore's errors will do
            return None

    for digest, data in blobs.items():
        found = attempt(lambda digest=digest: service.open_read(digest))
        if found is not None:
            assert attempt(found.read) in (data, None)
        attempt(lambda digest=digest: service.chunks(digest))
        attempt(lambda digest=digest: service.claim_blob(digest))
    attempt(lambda: list(service.list_items()))
    attempt(lambda: list(service.list_blobs()))
    attempt(lambda: list(service.sweep(list(service.list_items()), older_than=0)))
    attempt(lambda: service.write(b"new"))
    attempt(service.close)


def damage(path: Path, source: random.Random) -> None:
    """Overwrite a piece somewhere, or cut the file short."""
    size = path.stat().st_size
    kind = source.choice(["bytes", "page", "cut", "head"])
    with path.open("r+b") as file:
        if kind == "cut":
            file.truncate(source.randrange(size))
        elif kind == "page":
            file.seek(source.randrange(size // 4096) * 4096)
            file.write(source.choice([bytes(4096), source.randbytes(4096)]))
        else:
            for _ in range(20):
                file.seek(source.randrange(size if kind == "bytes" else 200))
                file.write(source.randbytes(1))


def test_a_malformed_database_says_so(path: Path) -> None:
    """With the way out."""
    service = service_on(path)
    service.write(P3M.data)
    service.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(path.stat().st_size - 4096))
    with pytest.raises(UnavailableError, match=r"is damaged \(.*malformed.*\): .*\.recover") as caught:
        service_on(path).read(P3M.digest)
    assert str(path) in str(caught.value)
