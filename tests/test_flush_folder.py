"""Flushing the names in a folder, also where a folder cannot be flushed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from castore.places import flush_folder


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_a_folder_cannot_be_flushed_all_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    flushed = []

    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "sync", lambda: flushed.append("all"))
    flush_folder(tmp_path)
    assert flushed == ["all"]


def test_a_fault_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the call and the folder."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="fsync: Input/output error") as caught:
        flush_folder(tmp_path)
    assert caught.value.filename == str(tmp_path)
