"""New files of a store, the folders above them, and what is written to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castore_objectstore.files import NewFiles, write_all


@pytest.fixture
def new_files() -> NewFiles:
    return NewFiles()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls of the system that make a file or a folder, and whether they fail."""
    called: list[str] = []

    def watched(name: str) -> Any:
        call = getattr(os, name)

        def watching(*args: Any, **kwargs: Any) -> Any:
            called.append(f"{name} fails")
            result = call(*args, **kwargs)
            called[-1] = name
            return result

        return watching

    with monkeypatch.context() as patched:
        for name in ("open", "mkdir"):
            patched.setattr(os, name, watched(name))
        yield called


def make(new_files: NewFiles, path: Path) -> None:
    descriptor = new_files.create(str(path))
    assert descriptor is not None
    os.close(descriptor)
    assert path.is_file()


def test_folders_of_a_young_store_are_made_first(
    new_files: NewFiles, tmp_path: Path, calls: list[str]
) -> None:
    make(new_files, tmp_path / "0/file")
    assert calls == ["open fails", "mkdir", "open"]
    calls.clear()
    make(new_files, tmp_path / "1/file")
    assert calls == ["mkdir", "open"]


def test_folders_of_an_old_store_are_not_looked_for(
    new_files: NewFiles, tmp_path: Path, calls: list[str]
) -> None:
    make(new_files, tmp_path / "0/file")
    make(new_files, tmp_path / "0/another")
    calls.clear()
    make(new_files, tmp_path / "0/third")
    assert calls == ["open"]


def test_a_store_that_is_emptied_meanwhile_gets_its_folders_anew(new_files: NewFiles, tmp_path: Path) -> None:
    for number in range(6):
        make(new_files, tmp_path / f"a/b/{number // 2}/{number}")
        shutil.rmtree(tmp_path / "a")


def test_what_stands_where_a_folder_should_is_reported(new_files: NewFiles, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    make(new_files, tmp_path / "0/file")
    with pytest.raises(NotADirectoryError):
        new_files.create(str(tmp_path / "file/new"))
    make(new_files, tmp_path / "1/file")
    with pytest.raises(FileExistsError, match="link"):
        new_files.create(str(tmp_path / "link/new"))


def test_a_name_that_is_taken_gets_the_next_number(new_files: NewFiles, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        descriptor, path = new_files.create_beside(str(tmp_path / "0/name"))
        os.close(descriptor)
        assert path == str(tmp_path / f"0/name#{number}")


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 100])
def test_all_is_written_however_little_goes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    data = bytes(range(size))
    write = os.write
    with (tmp_path / "file").open("wb", buffering=0) as file, monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, some: write(descriptor, memoryview(some)[:7]))
        write_all(file.fileno(), data)
    assert (tmp_path / "file").read_bytes() == data
