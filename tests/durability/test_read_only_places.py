"""Stores that can only be read: on a file system that is mounted so, or of another user."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castore import B3Digest, CastoreError, Composition, UnavailableError
from castore.cli.app import app
from castore.upkeep import collect, verify

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount, and act as another user")

SMALL, LARGE = b"small " * 100, random.Random(1).randbytes(900_000)

TABLES: dict[str, dict[str, dict[str, object]]] = {
    "objectstore": {"root": {"type": "objectstore", "object_store_url": "file:./store"}},
    "sqlite": {"root": {"type": "sqlite", "path": "./store/blobs.sqlite"}},
    "lru": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "100 MB", "max_age": "365 d"},
        "store": {"type": "objectstore", "object_store_url": "file:./store"},
    },
    "lru over sqlite": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "100 MB"},
        "store": {"type": "sqlite", "path": "./store/blobs.sqlite"},
    },
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can reach, as those of pytest cannot be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    for command in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
        done = subprocess.run(["mount", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def as_nobody(call: Callable[[], object]) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        os.setgroups([])
        os.setgid(54_003)
        os.setuid(54_003)
        try:
            call()
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


def fill(folder: Path, kind: str) -> None:
    with Composition.from_mapping({"blobservices": TABLES[kind]}, base=folder) as stores:
        for data in (SMALL, LARGE, b""):
            stores.blobs().write(data)
    for mark in (f"leases/{uuid.uuid4()}", f"blobs.sqlite-lease-{uuid.uuid4()}"):
        (folder / "store" / mark).parent.mkdir(exist_ok=True)
        (folder / "store" / mark).touch()
        os.utime(folder / "store" / mark, (1e9, 1e9))


def read_all(folder: Path, kind: str) -> None:
    with Composition.from_mapping({"blobservices": TABLES[kind]}, base=folder) as stores:
        blobs = stores.blobs()
        wanted = [B3Digest.of(data) for data in (SMALL, LARGE)]
        assert blobs.missing([*wanted, B3Digest.of(b"absent")]) == {B3Digest.of(b"absent")}
        assert [blobs.read(digest) for digest in wanted] == [SMALL, LARGE]
        with blobs.open(wanted[1]) as reader:
            reader.seek(700_000)
            assert reader.read(1000) == LARGE[700_000:701_000]
        assert dict(blobs.read_many(wanted))[wanted[0]] == SMALL
        assert verify(blobs).ok
        collected = collect(blobs, wanted, dry_run=True)
        assert collected.gone["residue"].count == 1
    said = r"(?i)read-only|permission denied|readonly|unable to open"
    stores = Composition.from_mapping({"blobservices": TABLES[kind]}, base=folder)
    with pytest.raises(CastoreError, match=said), stores:
        stores.blobs().write(b"new")


@pytest.mark.parametrize("kind", TABLES)
def test_a_mount(folder: Path, kind: str) -> None:
    """All that reads works, also a rehearsal of `gc` where the dead have left something."""
    fill(folder, kind)
    before = sorted(folder.rglob("*"))
    with read_only(folder):
        read_all(folder, kind)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", TABLES)
def test_another_user(folder: Path, kind: str) -> None:
    """The same in a folder that somebody else may write to."""
    fill(folder, kind)
    read_all_once(kind)
    as_nobody(lambda: read_all(folder, kind))


def read_all_once(kind: str) -> None:
    """Import what is needed: the interpreter may be root's alone."""
    with tempfile.TemporaryDirectory() as other:
        fill(Path(other), kind)
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            read_all(Path(other), kind)


def test_while_its_owner_writes(folder: Path) -> None:
    """What is committed is found, in the file or in its log."""
    read_all_once("sqlite")
    fill(folder, "sqlite")
    with Composition.from_mapping({"blobservices": TABLES["sqlite"]}, base=folder) as stores:
        for number in range(3):
            data = bytes([number]) * 100
            stores.blobs().write(data)

            def look(data: bytes = data) -> None:
                with Composition.from_mapping({"blobservices": TABLES["sqlite"]}, base=folder) as others:
                    assert others.blobs().read(B3Digest.of(data)) == data

            as_nobody(look)


def test_a_log_that_cannot_be_had(folder: Path) -> None:
    """It is said what to do; nothing is answered without what is in it."""
    fill(folder, "sqlite")
    file = folder / "store/blobs.sqlite"
    other = folder / "other"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE flushes SET number = number + 1")
        database.commit()
        shutil.copytree(folder / "store", other)
    (other / "blobs.sqlite-shm").unlink()
    tables = {"blobservices": {"root": {"type": "sqlite", "path": "./other/blobs.sqlite"}}}
    with (
        read_only(other),
        Composition.from_mapping(tables, base=folder) as stores,
        pytest.raises(UnavailableError, match="still in its log"),
    ):
        stores.blobs().has(B3Digest.of(SMALL))


def test_the_command(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`gc --dry-run` says what would go, and needs to write nothing."""
    fill(folder, "objectstore")
    (folder / "composition.toml").write_text(
        f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:{folder}/store"\n'
    )
    with read_only(folder):
        arguments = ["--composition", f"{folder}/composition.toml", "--json", "gc", "--dry-run", "--no-roots"]
        with pytest.raises(SystemExit) as ended:
            app.main(arguments)
    assert not ended.value.code
    assert json.loads(capfd.readouterr().out)["residue"]["gone"]["count"] == 1
