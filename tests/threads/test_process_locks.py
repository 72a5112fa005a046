"""Locked files for many digests: those that are free, and no more than a process can have open."""

from __future__ import annotations

from pathlib import Path

import pytest

from castore import B3Digest
from castore.threads import process_locks
from castore.threads.process_locks import FolderOfLocks

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
