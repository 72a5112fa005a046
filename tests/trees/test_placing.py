"""How files are written: modes, holes, shared blocks, hard links, flushes, and a second look."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import CorruptBlobError
from castore.format.directories import Directory
from castore.format.nodes import FileNode, Node
from castore.trees import placing
from castore.trees.exporting import export_tree
from castore.trees.exports import Exported, ExportOptions
from castore.trees.placing import Placing
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def export(files: dict[str, bytes], target: Path, *, update: bool = False, **how: Any) -> Exported:
    """Export files; those whose names begin with `x` may be executed."""
    blobs, directories = MemoryBlobService(), MemoryDirectoryService()
    nodes: dict[bytes, Node] = {
        name.encode(): FileNode(blobs.write(data), len(data), name.startswith("x"))
        for name, data in files.items()
    }
    options = ExportOptions(update=update, placing=Placing(**how))
    return export_tree(Directory(nodes), target, blobs, directories, options)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_modes(tmp_path: Path) -> None:
    """Also of what is there already and right but for that."""
    files = {"f": b"1", "x": b"2"}
    out = tmp_path / "out"
    export(files, out)
    assert modes(out) == {"f": 0o644, "x": 0o755}
    done = export(files, out, update=True, read_only=True)
    assert (modes(out), done.kept, done.written) == ({"f": 0o444, "x": 0o555}, 2, 0)
    assert stat.S_IMODE(out.stat().st_mode) == 0o555


class TestHardLinks:
    FILES = (
        ("a", b"same"),
        ("b", b"same"),
        ("x", b"same"),
        ("x2", b"same"),
        ("c", b""),
        ("d", b""),
        ("e", b"other"),
    )

    @pytest.mark.parametrize("update", [False, True])
    def test_the_same_contents_and_mode(self, tmp_path: Path, update: bool) -> None:
        """Never of empty files; no name is left over."""
        out = tmp_path / "out"
        if update:
            out.mkdir()
        export(dict(self.FILES), out, update=update, hardlink=True, read_only=True)
        inodes = {path.name: path.stat().st_ino for path in out.iterdir()}
        assert sorted(inodes) == sorted(dict(self.FILES))
        assert inodes["a"] == inodes["b"] != inodes["x"] == inodes["x2"]
        assert len(set(inodes.values())) == 5
        assert (out / "b").read_bytes() == b"same"

    def test_one_that_was_replaced_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No link is made to what is not ours."""
        out = tmp_path / "out"
        real = placing.FilePlacer._remember

        def remember(self: Any, descriptor: int, folder: Any, name: bytes, node: Any) -> None:
            real(self, descriptor, folder, name, node)
            folder.remove(name)
            os.close(folder.open_file(name, os.O_CREAT | os.O_WRONLY, 0o644))

        monkeypatch.setattr(placing.FilePlacer, "_remember", remember)
        export({"a": b"same", "b": b"same"}, out, hardlink=True, read_only=True)
        assert (out / "a").stat().st_ino != (out / "b").stat().st_ino

    def test_as_many_names_as_a_file_may_have(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def too_many(*_: Any, **__: Any) -> None:
            raise OSError(31, "Too many links")

        monkeypatch.setattr(os, "link", too_many)
        export({"a": b"same", "b": b"same"}, tmp_path / "out", hardlink=True, read_only=True)
        assert (tmp_path / "out/b").read_bytes() == b"same"


ZEROS = bytes(1 << 20)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        ZEROS,
        b"x" + ZEROS,
        ZEROS + b"x",
        b"x" * 40_000 + ZEROS + b"y" * 70_000 + ZEROS[:200_000] + b"z",
        ZEROS[:65_535],
        b"x" + ZEROS[:65_536] + b"x",
        os.urandom(3 << 20) + bytes(3 << 20) + os.urandom(10),
    ],
    ids=len,
)
def test_holes(tmp_path: Path, data: bytes) -> None:
    """The bytes are the same; runs of zeros take no blocks, if they are long enough."""
    export({"f": data}, tmp_path / "out", sparse=True)
    assert (tmp_path / "out/f").read_bytes() == data
    taken = (tmp_path / "out/f").stat().st_blocks * 512
    assert taken <= len(data) - data.count(bytes(65_536)) * 32_768 + 65_536


@pytest.fixture
def cloning(tmp_path: Path) -> Iterator[Path]:
    """A folder on Btrfs, where files can share blocks."""
    if shutil.which("mkfs.btrfs") is None or os.geteuid() or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs mkfs.btrfs, and the right to mount")
    image, where = tmp_path / "image", tmp_path / "mounted"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(120 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    if subprocess.run(
        ["mount", "-o", "loop", str(image), str(where)], check=False, capture_output=True
    ).returncode:
        pytest.skip("cannot mount")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_the_same_contents_share_their_blocks(cloning: Path) -> None:
    """Ten files of 8 MiB need little more than one."""
    data = os.urandom(8 << 20)
    before = shutil.disk_usage(cloning).used
    export({f"{kind}{n}": data for kind in "fx" for n in range(5)}, cloning / "out", durable=True)
    os.sync()
    assert shutil.disk_usage(cloning).used - before < 3 * len(data)
    assert all(path.read_bytes() == data for path in (cloning / "out").iterdir())
    assert modes(cloning / "out")["x4"] == 0o755
    (cloning / "out/f0").write_bytes(b"changed")
    assert (cloning / "out/f1").read_bytes() == data


def test_a_file_comes_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `durable` what has a name in the end is on the disk before it has it."""
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def spy_fsync(descriptor: int) -> None:
        calls.append(
            f"flush {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}')).split('.castore')[0]}"
        )
        fsync(descriptor)

    def spy_rename(old: Any, new: Any, **where: Any) -> None:
        calls.append(f"name {os.fsdecode(new)}")
        rename(old, new, **where)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    export({"f": b"1"}, tmp_path / "out", durable=True)
    assert calls == ["flush f", "flush .out", "name out", f"flush {tmp_path.name}"]
    calls.clear()
    export({"f": b"2"}, tmp_path / "out", update=True, durable=True)
    assert calls == ["flush .f", "name f", "flush out"]
    calls.clear()
    export({"f": b"3"}, tmp_path / "other")
    assert calls == ["name other"]


def test_a_disk_that_keeps_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noticed with `verify`, and the file is not there."""
    write = os.write

    def spoiled(descriptor: int, data: Any) -> int:
        return write(descriptor, bytes(len(data)))

    monkeypatch.setattr(os, "write", spoiled)
    done = export({"f": b"data"}, tmp_path / "out", verify=True)
    assert isinstance(done.lost[0].error, CorruptBlobError)
    assert "when it is read again" in done.lost[0].error.message
    assert os.listdir(tmp_path) == []
    assert export({"f": b"data"}, tmp_path / "out").lost == ()
