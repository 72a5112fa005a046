"""A disk that is full at any step of a put: a clear error, nothing half visible, and room again helps."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from facts import faults_in, files_of, service_on

from castore import B3Digest, BlobService, UnavailableError
from castore_objectstore import files, flushing, local, staging

DATA = random.Random(3).randbytes(20_000)
DIGEST = B3Digest.of(DATA)


def require_nothing_visible(service: BlobService, folder: Path) -> None:
    assert service.has(DIGEST) is False
    assert service.open_read(DIGEST) is None
    assert faults_in(files_of(folder)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system in memory with the given limits."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / str(len(mounted))
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("mount is not installed")
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("durability", ["process", "full"])
@pytest.mark.parametrize("limit", ["pages", "names"])
def test_a_full_file_system(small_disk: Callable[[str], Path], durability: str, limit: str) -> None:
    """With ever more room a put fails at ever later steps, until one succeeds; each failure is clean."""
    folder = small_disk("size=1m,nr_inodes=200")
    filler = folder / "filler"
    filler.mkdir()
    outcomes = []
    for room in range(0, 120, 3):
        fill(filler, limit, room)
        service = service_on(folder / f"store{room}", durability=durability)
        error = error_of_put(service)
        outcomes.append(error is None)
        if error is not None:
            assert "No space left on device" in str(error)
            require_nothing_visible(service, folder / f"store{room}")
            empty(filler)
            assert service.write(DATA) == DIGEST
        assert service.read(DIGEST) == DATA
        service.close()
        empty(filler)
        subprocess.run(["rm", "-r", str(folder / f"store{room}")], check=True)
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert sorted(outcomes) == outcomes


def error_of_put(service: BlobService) -> UnavailableError | None:
    try:
        service.write(DATA)
    except UnavailableError as error:
        return error
    return None


def fill(folder: Path, limit: str, room: int) -> None:
    """Leave room for so many pages of 4 KiB, or so many files and folders."""
    status = os.statvfs(folder)
    if limit == "pages":
        (folder / "all").write_bytes(bytes((status.f_bavail - room) * status.f_bsize))
    else:
        for number in range(status.f_favail - room):
            (folder / str(number)).touch()


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("durability", ["process", "full"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failure_at_each_single_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, number: int
) -> None:
    """Whichever call of a put fails: a clear error, nothing visible, and the next put works."""
    failing = FailingCalls(number)
    for module in (files, local, staging):
        monkeypatch.setattr(module, "os", failing)
    monkeypatch.setattr(flushing, "_load_syncfs", lambda: failing.syncfs)
    failures = 0
    for step in range(1, 500):
        folder = tmp_path / str(step)
        service = service_on(folder, durability=durability)
        failing.after = step
        error = error_of_put(service)
        if error is None:
            assert failing.after > 0, "an error was swallowed"
            failing.after = 0
            service.close()
            break
        failures += 1
        failing.after = 0
        assert os.strerror(number) in str(error)
        # Only the very last flush comes when the index has its name: the blob is whole, but not reported.
        if not (service.has(DIGEST) and failing.failed == "syncfs"):
            require_nothing_visible(service, folder)
        assert service.write(DATA) == DIGEST
        service.close()
        assert service_on(folder).read(DIGEST) == DATA
        assert faults_in(files_of(folder)) == []
        assert not [name for name in files_of(folder) if "#" in name]
    assert failures > 20


class FailingCalls:
    """The module `os`, but its calls that change a file system fail after so many of them."""

    CHANGING = ("open", "write", "replace", "makedirs")

    def __init__(self, number: int) -> None:
        self.number = number
        self.after = 0
        self.failed = ""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.CHANGING:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                self._meet(name)
            return real(*arguments, **options)

        return call

    def syncfs(self, descriptor: int) -> None:
        self._meet("syncfs")

    def _meet(self, name: str) -> None:
        if self.after > 0:
            self.after -= 1
            if not self.after:
                self.failed = name
                raise OSError(self.number, os.strerror(self.number))


def test_who_shares_chunks_with_a_lost_flush_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that found a chunk which was yet to be flushed does not report its blob when that failed."""
    calls = FailingCalls(errno.EIO)
    monkeypatch.setattr(flushing, "_load_syncfs", lambda: calls.syncfs)
    service = service_on(tmp_path)
    second = service.open_write()
    second.write(DATA)
    chunks = service_on(tmp_path / "other")
    chunks.write(DATA)
    for meta in chunks.chunks(DIGEST) or ():
        service.put_chunk(meta.digest, chunks.get_chunk(meta.digest) or b"")
        assert service.claim_chunk(meta.digest)
    calls.after = 1
    with pytest.raises(UnavailableError, match="Input/output error"):
        service.write(b"something else")
    with pytest.raises(UnavailableError, match="was lost when the disk could not be flushed"):
        service.put_index(DIGEST, chunks.chunks(DIGEST) or ())
    second.abort()
    assert service.write(DATA) == DIGEST
    assert service.read(DIGEST) == DATA
