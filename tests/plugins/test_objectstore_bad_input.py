"""An object store in a folder with things in it, or in its URL, that do not belong there."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import BadIndexError, BlobService, CorruptBlobError, UnavailableError
from castore.contract.capabilities import BlobLister
from castore.testing import BLOB_A, HELLO, P3M


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def blobs(folder: Path) -> Iterator[BlobService]:
    with castore.from_url(f"objectstore+file:{folder}") as service:
        yield service


def key(kind: str, digest: Any) -> str:
    return f"{kind}/b3/{digest.hex()[:4]}/{digest.hex()}"


def limited() -> None:
    """Not so much memory that this machine would suffer if there were no end to the reading."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def read_in_a_process(folder: Path, digest: Any) -> str:
    """Read a blob where memory has an end; return the name of what was raised, or how much was read."""
    program = f"""
import castore
try:
    print(len(castore.from_url("objectstore+file:{folder}").read(castore.B3Digest.parse("{digest}"))))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


class TestUrls:
    @pytest.mark.parametrize(
        "name", [b"\xff\xfe", b"a\xffb", "é".encode("latin-1"), b"\x01\x1b[31m", b"a\nb"]
    )
    def test_folders_of_odd_bytes(self, tmp_path: Path, name: bytes) -> None:
        """`%ff` in a URL is that byte, not a character that stands for all that cannot be read."""
        escaped = "".join(f"%{byte:02x}" for byte in name)
        with castore.from_url(f"objectstore+file:{tmp_path}/{escaped}") as service:
            service.write(HELLO.data)
        assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [name]

    def test_a_root_that_is_a_link_to_nowhere(self, blobs: BlobService, folder: Path) -> None:
        """As where a disk is not mounted: what would be on it is not absent, but out of reach."""
        folder.symlink_to("nowhere")
        for call in (blobs.has, blobs.open_read, blobs.chunks):
            with pytest.raises(UnavailableError, match=str(folder)):
                call(HELLO.digest)
        with pytest.raises(UnavailableError, match=str(folder)):
            blobs.write(HELLO.data)


class TestLinks:
    """Links that lead to objects are followed by readers; where they lead nowhere or round, that is said."""

    def test_a_folder_elsewhere(self, blobs: BlobService, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "large").mkdir()
        folder.mkdir()
        (folder / "chunks").symlink_to(tmp_path / "large")
        assert blobs.write(P3M.data) == P3M.digest
        assert blobs.read(P3M.digest) == P3M.data
        assert list((tmp_path / "large").rglob("*"))

    def test_a_chunk_elsewhere(self, blobs: BlobService, folder: Path, tmp_path: Path) -> None:
        blobs.write(HELLO.data)
        (folder / key("chunks", HELLO.digest)).rename(tmp_path / "chunk")
        (folder / key("chunks", HELLO.digest)).symlink_to(tmp_path / "chunk")
        assert blobs.read(HELLO.digest) == HELLO.data

    def test_a_chunk_that_leads_to_itself(self, blobs: BlobService, folder: Path) -> None:
        blobs.write(HELLO.data)
        chunk = folder / key("chunks", HELLO.digest)
        chunk.unlink()
        chunk.symlink_to(chunk)
        with pytest.raises(UnavailableError, match="Too many levels of symbolic links"):
            blobs.read(HELLO.digest)

    def test_a_chunk_that_leads_nowhere(self, blobs: BlobService, folder: Path) -> None:
        """Is missing, and is written anew by who has it."""
        blobs.write(HELLO.data)
        chunk = folder / key("chunks", HELLO.digest)
        chunk.unlink()
        chunk.symlink_to("nowhere")
        with pytest.raises(CorruptBlobError):
            blobs.read(HELLO.digest)
        assert blobs.write(HELLO.data) == HELLO.digest
        assert blobs.read(HELLO.digest) == HELLO.data

    @pytest.mark.parametrize("kind", ["chunks", "blobs"])
    def test_a_device_without_end(self, folder: Path, kind: str) -> None:
        """No object is read beyond what an object can be."""
        path = folder / key(kind, HELLO.digest)
        path.parent.mkdir(parents=True)
        path.symlink_to("/dev/zero")
        found = read_in_a_process(folder, HELLO.digest)
        assert found.startswith("BadFrameError" if kind == "chunks" else "BadIndexError"), found

    def test_circles_of_folders(self, blobs: BlobService, folder: Path) -> None:
        """A listing ends, and has what is there."""
        blobs.write(HELLO.data)
        (folder / "blobs" / "b3" / "0000").symlink_to(folder / "blobs")
        lister = blobs.capability(BlobLister)
        assert lister is not None
        assert list(lister.list_blobs()) == [HELLO.digest]


class TestSizes:
    @pytest.mark.parametrize("kind", ["chunks", "blobs"])
    def test_a_huge_file_with_a_hole(self, folder: Path, kind: str) -> None:
        """A terabyte of nothing takes no memory: it is no chunk, and no index."""
        path = folder / key(kind, HELLO.digest)
        path.parent.mkdir(parents=True)
        path.touch()
        os.truncate(path, 1 << 40)
        found = read_in_a_process(folder, HELLO.digest)
        assert found.startswith(("OversizedFrameError", "BadIndexError")), found


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "readme.txt",
            "\udcff",
            "x" * 255,
            HELLO.digest.hex().upper(),
            HELLO.digest.hex()[:-1],
            ".hidden",
            "a\nb",
        ],
    )
    def test_strangers_among_the_indexes(self, blobs: BlobService, folder: Path, name: str) -> None:
        """Are passed over; in a folder of keys, or beside."""
        blobs.write(HELLO.data)
        for where in ("blobs/b3", f"blobs/b3/{HELLO.digest.hex()[:4]}", "blobs"):
            (folder / where / name).write_bytes(b"")
        lister = blobs.capability(BlobLister)
        assert lister is not None
        assert list(lister.list_blobs()) == [HELLO.digest]
        assert blobs.read(HELLO.digest) == HELLO.data

    def test_a_pipe_for_a_chunk(self, blobs: BlobService, folder: Path) -> None:
        """Nobody waits for its other end."""
        path = folder / key("chunks", HELLO.digest)
        path.parent.mkdir(parents=True)
        os.mkfifo(path)
        with pytest.raises((CorruptBlobError, UnavailableError)):
            blobs.read(HELLO.digest)

    def test_a_folder_for_an_object_is_no_blob(self, blobs: BlobService, folder: Path) -> None:
        """It is not there, or not right; a writer moves it out of the way."""
        for kind in ("chunks", "blobs"):
            (folder / key(kind, BLOB_A.digest) / "of somebody").mkdir(parents=True)
        with pytest.raises(CorruptBlobError, match="there is a folder where"):
            blobs.read(BLOB_A.digest)
        blobs.write(BLOB_A.data)
        assert blobs.read(BLOB_A.digest) == BLOB_A.data
        for kind in ("chunks", "blobs"):
            assert (folder / "quarantine" / key(kind, BLOB_A.digest) / "of somebody").is_dir()

    def test_an_index_for_another_blob(self, blobs: BlobService, folder: Path) -> None:
        blobs.write(P3M.data)
        path = folder / key("blobs", BLOB_A.digest)
        path.parent.mkdir(parents=True)
        path.write_bytes((folder / key("blobs", P3M.digest)).read_bytes()[:-3])
        with pytest.raises(BadIndexError):
            blobs.read(BLOB_A.digest)


@pytest.mark.parametrize("kind", ["chunks", "blobs"])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_folder_that_is_a_link_to_nowhere(blobs: BlobService, folder: Path, kind: str, above: int) -> None:
    """Storing into it is one error that names it, not an endless attempt."""
    place = (folder / key(kind, HELLO.digest)).parents[above]
    place.parent.mkdir(parents=True)
    place.symlink_to("nowhere")
    with pytest.raises(UnavailableError, match=str(place)):
        blobs.write(HELLO.data)
