"""A file that changes while it is stored: read again, and at last not stored, by every kind of service."""

from __future__ import annotations

import io
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService, Composition, SourceChangedError
from castore.contract import inputs
from castore.contract.inputs import READINGS, InputFile, open_input
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter

LARGE = random.Random(1).randbytes(6 << 20)
OTHER = random.Random(2).randbytes(6 << 20)


class Whole(BlobService):
    """Keeps blobs as they are, as a stranger's first service does."""

    def __init__(self) -> None:
        self.blobs: dict[B3Digest, bytes] = {}

    def has(self, digest: B3Digest) -> bool:
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> BytesReader | None:
        data = self.blobs.get(digest)
        return None if data is None else BytesReader(data)

    def open_write(self) -> SpooledWriter:
        def keep(digest: B3Digest, file: Any) -> None:
            self.blobs[digest] = file.read()

        return SpooledWriter(keep)


MEMORY = {"type": "memory"}
STACKS: dict[str, dict[str, Any]] = {
    "memory": {"root": MEMORY},
    "objectstore": {"root": {"type": "objectstore", "object_store_url": "file:./store"}},
    "sqlite": {"root": {"type": "sqlite", "path": "store.sqlite"}},
    "retry": {"root": {"type": "retry", "inner": "&a"}, "a": MEMORY},
    "verify": {"root": {"type": "verify", "inner": "&a"}, "a": MEMORY},
    "cache": {
        "root": {"type": "cache", "near": "&a", "far": "&b", "write": "both"},
        "a": MEMORY,
        "b": MEMORY,
    },
    "mirror": {"root": {"type": "mirror", "services": ["&a", "&b"]}, "a": MEMORY, "b": MEMORY},
    "fallback": {"root": {"type": "fallback", "services": ["&a", "&b"]}, "a": MEMORY, "b": MEMORY},
}


@pytest.fixture(params=["whole", *STACKS])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobService]:
    if request.param == "whole":
        yield Whole()
        return
    (tmp_path / "c.toml").write_text("")
    with Composition.from_mapping({"blobservices": STACKS[request.param]}, base=tmp_path) as stores:
        yield stores.blobs()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    return path


class Changing:
    """Told of progress, changes a file as often as it is meant to, once in each reading."""

    def __init__(self, change: Callable[[], object], times: int) -> None:
        self.change, self.times, self.counts = change, times, [0]

    def __call__(self, count: int) -> None:
        if count < 0:
            self.counts.append(0)
            return
        first = self.counts[-1] == 0
        self.counts[-1] += count
        if first and self.times:
            self.times -= 1
            self.change()


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def overwrite(path: Path) -> None:
    """The same size, and another content at its end."""
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(os.urandom(1000))


@pytest.mark.parametrize("change", [grow, shrink, overwrite])
def test_a_file_that_changes_once_is_read_again(
    service: BlobService, path: Path, change: Callable[[Path], None]
) -> None:
    """What is stored is what it is then, and progress is told of no more than that."""
    changing = Changing(lambda: change(path), 1)

    digest = service.put_file(path, progress=changing)

    assert digest == B3Digest.of(path.read_bytes())
    assert len(changing.counts) == 2
    assert changing.counts[-1] == path.stat().st_size
    assert service.read(digest) == path.read_bytes()


def test_a_file_that_changes_each_time_is_not_stored(service: BlobService, path: Path) -> None:
    changing = Changing(lambda: grow(path), 100)

    with pytest.raises(SourceChangedError, match="file': it changes while it is read; store a copy"):
        service.put_file(path, progress=changing)

    assert len(changing.counts) == READINGS + 1
    assert not service.has(B3Digest.of(path.read_bytes()))


def test_the_others_of_many_files_are_stored(service: BlobService, path: Path, tmp_path: Path) -> None:
    """It has an error in its place."""
    paths = [path, tmp_path / "a", tmp_path / "b"]
    for each in paths[1:]:
        each.write_bytes(each.name.encode())
    changing = Changing(lambda: grow(path), 100)

    changed, *others = service.put_files(paths, progress=changing)

    assert others == [B3Digest.of(b"a"), B3Digest.of(b"b")]
    assert isinstance(changed, SourceChangedError)


@pytest.mark.parametrize("times", [0, 1, READINGS - 1, READINGS])
def test_a_small_file_is_read_as_often(
    service: BlobService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Alone and with others."""
    path = tmp_path / "small"
    read = os.read
    left = 0

    def reading(descriptor: int, size: int) -> bytes:
        nonlocal left
        data = read(descriptor, size)
        if data.startswith(b"small") and left:
            left -= 1
            grow(path)
        return data

    monkeypatch.setattr(inputs.os, "read", reading)
    path.write_bytes(b"small")
    left = times
    (together,) = service.put_files([path])
    # Only where small files go together they are read by this; others are seen to change by what is told.
    changed = times == READINGS and left == 0

    assert isinstance(together, SourceChangedError) if changed else together == B3Digest.of(path.read_bytes())

    path.write_bytes(b"small")
    changing = Changing(lambda: grow(path), times)
    if times < READINGS:
        assert service.put_file(path, progress=changing) == B3Digest.of(path.read_bytes())
    else:
        with pytest.raises(SourceChangedError):
            service.put_file(path, progress=changing)


def test_a_known_file_is_watched_as_well(service: BlobService, path: Path) -> None:
    """It is only hashed: what is found is not the mixture that was read."""
    service.put_file(path)
    changing = Changing(lambda: None, 0)

    digest = service.put_file(path, progress=changing)
    with open_input(path) as source:
        source.fill(memoryview(bytearray(8 << 20)))
        overwrite(path)
        with pytest.raises(SourceChangedError):
            source.require_unchanged()

    assert digest == B3Digest.of(LARGE)


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("start", [0, 5])
def test_an_open_file_is_watched_from_where_it_stands(
    service: BlobService, path: Path, buffering: int, start: int
) -> None:
    """As stdin is in `castore put - < file`."""
    changing = Changing(lambda: grow(path), 1)
    with path.open("rb", buffering) as file:
        file.seek(start)
        digest = service.put_file(file, progress=changing)

    assert digest == B3Digest.of(path.read_bytes()[start:])
    assert len(changing.counts) == 2


def test_what_is_new_of_its_name_alone_is_no_change(path: Path) -> None:
    """Another link, another mode, no name at all: it has the same bytes."""
    for change in (lambda: os.link(path, f"{path}2"), lambda: path.chmod(0o600), path.unlink):
        with open_input(path) as source:
            change()
            source.require_unchanged()


def test_a_time_that_is_put_back_does_not_hide_a_change(path: Path) -> None:
    status = path.stat()
    with open_input(path) as source:
        overwrite(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(SourceChangedError):
            source.require_unchanged()


@pytest.mark.parametrize("kind", ["bytes", "spooled", "pipe"])
def test_what_is_no_regular_file_is_not_watched(tmp_path: Path, kind: str) -> None:
    """Nor is it touched by being asked: what is spooled in memory stays there."""
    if kind == "spooled":
        with tempfile.SpooledTemporaryFile() as file, open_input(file) as source:  # type: ignore[arg-type]
            source.require_unchanged()
            assert not source.rewinds
            assert not file._rolled  # type: ignore[attr-defined]
    elif kind == "pipe":
        reading, writing = os.pipe()
        os.close(writing)
        with open(reading, "rb") as pipe, open_input(pipe) as source:  # noqa: PTH123 - a descriptor
            assert not source.rewinds
            source.require_unchanged()
    else:
        source = InputFile(io.BytesIO(b"x"), "it")
        source.require_unchanged()
        assert not source.rewinds


@pytest.mark.parametrize("size", [0, 10, 1 << 20])
def test_a_pipe_among_many_files_is_read_once(service: BlobService, tmp_path: Path, size: int) -> None:
    """Its beginning cannot be looked at first and then be read again."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_bytes(b"a")
    data = OTHER[:size]
    thread = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
    thread.start()

    first, piped = service.put_files([tmp_path / "a", tmp_path / "pipe"])
    thread.join(60)

    assert (first, piped) == (B3Digest.of(b"a"), B3Digest.of(data))
    assert service.read(B3Digest.of(data)) == data
