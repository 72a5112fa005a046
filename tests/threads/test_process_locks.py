"""Locked files for many digests: those that are free, and no more than a process can have open."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import uuid
from pathlib import Path

import pytest

from castore import B3Digest
from castore.threads import process_locks
from castore.threads.process_locks import FolderOfLeases, FolderOfLocks

DIGESTS = [B3Digest.of(bytes([number])) for number in range(6)]


def test_those_that_nobody_has_are_locked(tmp_path: Path) -> None:
    """In the end they are free again, without a trace."""
    locks = FolderOfLocks(tmp_path / "locks")
    with locks.try_each(DIGESTS[:3]) as mine, locks.try_each(DIGESTS[1:5]) as others:
        assert mine == set(DIGESTS[:3])
        assert others == set(DIGESTS[3:5])
        with locks.try_each(iter(DIGESTS)) as third:
            assert third == {DIGESTS[5]}
    with locks.try_each(DIGESTS) as again:
        assert again == set(DIGESTS)
    assert list((tmp_path / "locks").iterdir()) == []


def test_of_very_many_the_last_are_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for them; and a file for each would be more than may be open."""
    monkeypatch.setattr(process_locks, "_MOST", 4)
    with FolderOfLocks(tmp_path).try_each(DIGESTS) as alone:
        assert alone == set(DIGESTS)
        assert {path.name for path in tmp_path.iterdir()} == {digest.hex() for digest in DIGESTS[:4]}


def test_one_that_cannot_be_locked_frees_the_others(tmp_path: Path) -> None:
    """What the operating system says comes out."""
    (tmp_path / DIGESTS[2].hex()).mkdir()
    with pytest.raises(OSError, match="directory"), FolderOfLocks(tmp_path).try_each(DIGESTS):
        pytest.fail("all of them were locked")
    assert [path.name for path in tmp_path.iterdir()] == [DIGESTS[2].hex()]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK])
def test_where_files_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Everybody is alone, and nobody is known to have died; whether anybody has a lease cannot be said."""

    def flock(descriptor: int, mode: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    leases, name = FolderOfLeases(tmp_path / "leases"), str(uuid.uuid4())
    with FolderOfLocks(tmp_path / "locks").try_each(DIGESTS) as alone, leases.take():
        assert alone == set(DIGESTS)
        assert list(leases.dead()) == []
        with pytest.raises(OSError, match=f"flock: {os.strerror(number)}"):
            leases.oldest()
    leases.create(name).close()
    assert not leases.bury(name)


def test_an_error_of_the_disk_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not say that files cannot be locked."""

    def flock(descriptor: int, mode: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="flock: Input/output error"), FolderOfLeases(tmp_path).take():
        pytest.fail("it was taken")


def test_a_lock_that_is_free_again_in_time(tmp_path: Path) -> None:
    """It is waited for, and asked for again."""
    first = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    second = os.open(tmp_path / "lock", os.O_RDWR)
    process_locks.lock(first, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError, match="had this file locked for 0 s"):
        process_locks.lock(second, fcntl.LOCK_SH, wait=0)
    timer = threading.Timer(0.02, os.close, [first])
    timer.start()
    process_locks.lock(second, fcntl.LOCK_EX)
    timer.join()
    os.close(second)


def test_a_mark_is_removed_by_name_form_and_age(tmp_path: Path) -> None:
    """And only while nobody has it locked."""
    leases, locks = FolderOfLeases(tmp_path, "x-"), FolderOfLocks(tmp_path)
    lease, lock = f"x-{uuid.uuid4()}", DIGESTS[0].hex()
    for name in (lease, lock, f"x-{uuid.uuid4()}.bak", "x-", "y"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000, 1000))
    full = f"x-{uuid.uuid4()}"
    (tmp_path / full).write_bytes(b"?")
    assert [mark.name for mark in leases.dead()] == [lease]
    assert [mark.name for mark in locks.dead()] == [lock]
    for name in (full, "x-", "y", f"../{lease}", f"x-/../{lease}", "x-" + "?" * 36):
        assert not leases.remove_dead(name, 1e12)
    assert not leases.remove_dead(lease, 1000)
    with (tmp_path / lease).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not leases.remove_dead(lease, 1001)
    assert leases.remove_dead(lease, 1001)
    assert not leases.remove_dead(lease, 1001)
    assert locks.remove_dead(lock, 1001)
    assert len(list(tmp_path.iterdir())) == 4
