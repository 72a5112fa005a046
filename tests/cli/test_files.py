"""Files that are there whole or not at all: `castore.cli.files`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from castore.cli import files
from castore.cli.files import replacing, set_aside
from castore.cli.output import OutputError

MIB = 1 << 20


def test_space_is_set_aside_without_making_the_file_longer(tmp_path: Path) -> None:
    with tmp_path.joinpath("f").open("wb", buffering=0) as file:
        set_aside(file.fileno(), 8 * MIB)
        status = os.fstat(file.fileno())
        if not status.st_blocks:
            pytest.skip("this file system cannot set space aside")
        assert status.st_blocks * 512 >= 8 * MIB
        assert status.st_size == 0


def test_what_does_not_fit_is_refused_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write '.*f': (File too large|No space left)"),
        replacing(str(tmp_path / "f"), 1 << 62),
    ):
        raise AssertionError("the block must not begin")
    assert not list(tmp_path.iterdir())


def test_where_space_cannot_be_set_aside_the_file_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_KEEP_SIZE", 1 << 20)  # A mode that no file system knows.
    with replacing(str(tmp_path / "f"), 8 * MIB) as file:
        file.write(b"all")
    assert tmp_path.joinpath("f").read_bytes() == b"all"
    assert errno.EOPNOTSUPP not in files._NO_SPACE
