"""Folders that are entered one from within the other: the same ones, however many there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from castore.trees.folders import OpenTree


def test_more_than_may_be_open(tmp_path: Path) -> None:
    """Those that were closed are opened again."""
    for number in range(300):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/file").touch()
    before = len(os.listdir("/proc/self/fd"))
    with OpenTree(os.fsencode(tmp_path)) as root:
        folders = [root.enter(b"%d" % number) for number in range(300)]
        assert len(os.listdir("/proc/self/fd")) < before + 150
        assert all([name for name, _ in folder.entries()] == [b"file"] for folder in folders)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("by", ["folder", "link"])
def test_one_that_was_replaced_meanwhile(tmp_path: Path, by: str) -> None:
    """What has its name now is another one, and is not entered."""
    for number in range(300):
        (tmp_path / f"{number}").mkdir()
    with OpenTree(os.fsencode(tmp_path)) as root:
        first, *_ = [root.enter(b"%d" % number) for number in range(300)]
        os.rename(tmp_path / "0", tmp_path / "was")
        if by == "folder":
            (tmp_path / "0").mkdir()
        else:
            (tmp_path / "0").symlink_to("was")
        with pytest.raises(
            OSError, match="replaced meanwhile" if by == "folder" else "Not a directory|Too many"
        ):
            first.entries()
