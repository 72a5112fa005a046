"""Which files the paths of a command line mean, and what is known of them before they are read."""

from __future__ import annotations

import os
from pathlib import Path

from castore.cli.walk import STDIN, find_files


def test_files_have_sizes_and_what_flows_has_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(7))
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    paths = [STDIN, *(str(tmp_path / name) for name in ("file", "link", "pipe", "absent"))]
    found = list(find_files(paths))
    assert [entry.size() for entry in found] == [None, 7, 7, None, 0]
    assert all(entry.is_file for entry in found)


def test_in_a_folder_only_files_are_taken(tmp_path: Path) -> None:
    """In the order of their paths; the others are named for what they are."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_bytes(bytes(3))
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "link").symlink_to("b.txt")
    os.mkfifo(tmp_path / "pipe")
    found = [(os.path.relpath(entry.path, tmp_path), entry.skipped) for entry in find_files([str(tmp_path)])]
    assert found == [("b.txt", None), ("b/file", None), ("link", "a symbolic link"), ("pipe", "a named pipe")]


def test_a_file_that_has_gone_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3))
    (found,) = find_files([str(tmp_path)])
    (tmp_path / "file").unlink()
    assert (found.is_file, found.size()) == (True, 0)
