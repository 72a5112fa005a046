"""Files that are there whole or not at all: `castore.cli.files`."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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
    with replacing(str(tmp_path / "f"), 8 * MIB) as write:
        write(b"all")
    assert tmp_path.joinpath("f").read_bytes() == b"all"
    assert errno.EOPNOTSUPP not in files._NO_SPACE


# -- names of what is open --


@pytest.fixture
def inherited() -> Iterator[Callable[[str, int], int]]:
    """Opens a file as a shell does for `3>> log`: so that a child has it, too."""
    opened: list[int] = []

    def open_(path: str, flags: int) -> int:
        opened.append(os.open(path, flags | os.O_CREAT, 0o644))
        os.set_inheritable(opened[-1], True)
        return opened[-1]

    yield open_
    for descriptor in opened:
        os.close(descriptor)


NAMES = ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}", f"/proc/{os.getpid()}/fd/{{}}", "link"]


@pytest.mark.parametrize("name", NAMES, ids=["dev", "self", "thread", "pid", "link"])
@pytest.mark.parametrize(
    "flags", [os.O_WRONLY | os.O_APPEND, os.O_WRONLY, os.O_RDWR], ids=["append", "write", "both"]
)
def test_what_is_open_is_written_to_where_it_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inherited: Callable[[str, int], int],
    name: str,
    flags: int,
) -> None:
    """By whatever name. The file is neither cut short nor replaced."""
    monkeypatch.chdir(tmp_path)
    descriptor = inherited("log", flags)
    os.write(descriptor, b"first\n")
    Path("link").symlink_to(f"/dev/fd/{descriptor}")
    before = Path("log").stat().st_ino

    with replacing(name.format(descriptor)) as write:
        write(b"second\n")
    os.write(descriptor, b"third\n")

    assert Path("log").read_text() == "first\nsecond\nthird\n"
    assert Path("log").stat().st_ino == before
    assert {path.name for path in tmp_path.iterdir()} == {"log", "link"}


def test_a_file_that_is_gone_and_still_open_is_written_to(
    tmp_path: Path, inherited: Callable[[str, int], int]
) -> None:
    """What the system calls `gone.txt (deleted)` is no name of a new file."""
    descriptor = inherited(str(tmp_path / "gone.txt"), os.O_RDWR)
    (tmp_path / "gone.txt").unlink()

    with replacing(f"/dev/fd/{descriptor}") as write:
        write(b"all the same")

    assert os.pread(descriptor, 100, 0) == b"all the same"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("deleted", [False, True])
def test_what_another_process_has_open_is_written_to_at_its_end(tmp_path: Path, deleted: bool) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\n")
    with path.open("r+b") as file, subprocess.Popen(["sleep", "60"], stdout=file) as process:
        if deleted:
            path.unlink()
        with replacing(f"/proc/{process.pid}/fd/1") as write:
            write(b"second\n")
        process.kill()
        assert file.read() == b"first\nsecond\n"
    assert len(list(tmp_path.iterdir())) == (0 if deleted else 1)


def test_what_this_process_has_opened_for_itself_cannot_be_named(tmp_path: Path) -> None:
    """Number 7 may be a store's database by now."""
    with (tmp_path / "store").open("wb") as file:
        for number in (file.fileno(), 9999):
            with pytest.raises(OutputError, match="Bad file descriptor"), replacing(f"/dev/fd/{number}"):
                raise AssertionError("the block must not begin")


def test_a_descriptor_that_is_for_reading_is_refused(
    tmp_path: Path, inherited: Callable[[str, int], int]
) -> None:
    descriptor = inherited(str(tmp_path / "file"), os.O_RDONLY)
    with pytest.raises(OutputError, match="Bad file descriptor"), replacing(f"/dev/fd/{descriptor}") as write:
        write(b"x")


def test_a_pipe_takes_all_even_in_non_blocking_mode(tmp_path: Path) -> None:
    """By its name and by its number."""
    os.mkfifo(tmp_path / "pipe")
    data = random.Random(1).randbytes(1 << 20)
    found = []

    def read() -> None:
        found.append((tmp_path / "pipe").read_bytes())

    thread = threading.Thread(target=read)
    thread.start()
    with replacing(str(tmp_path / "pipe")) as write:
        write(data)
    thread.join(60)
    assert found == [data]

    thread = threading.Thread(target=read)
    thread.start()
    end = os.open(tmp_path / "pipe", os.O_WRONLY)
    os.set_inheritable(end, True)
    os.set_blocking(end, False)
    with replacing(f"/dev/fd/{end}") as write:
        write(data)
    os.close(end)
    thread.join(60)
    assert found == [data, data]


# -- what is replaced --


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o200, 0o666])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """Nobody may read more than before; at no moment, either."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(mode)

    with replacing(str(path)) as write:
        (temporary,) = (entry for entry in tmp_path.iterdir() if entry != path)
        assert stat.S_IMODE(temporary.stat().st_mode) == mode
        write(b"after")

    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"after"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_is_replaced_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    os.chown(path, 12345, 54321)

    with replacing(str(path)) as write:
        write(b"after")

    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


@pytest.mark.parametrize("mode", [0o444, 0o400, 0])
def test_a_file_that_may_not_be_written_to_is_not_replaced(tmp_path: Path, mode: int) -> None:
    """Not by root either, who may do all: somebody has said by its mode that it shall stay."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(mode)

    with pytest.raises(OutputError, match=rf"mode {mode:04o}\); remove it"), replacing(str(path)):
        raise AssertionError("the block must not begin")

    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["", "folder/", "/"])
def test_what_is_no_name_of_a_file_is_refused(path: str) -> None:
    with pytest.raises(OutputError, match="not the name of a file"), replacing(path):
        raise AssertionError("the block must not begin")


MOUNTED = """
touch mounted; echo longer than what comes > below
mount --bind below mounted || exit 77
exec {python} -c '
from castore.cli.files import replacing
with replacing("mounted") as write:
    write(b"new")
'
"""


def test_a_file_that_is_a_mount_of_its_own_is_overwritten(tmp_path: Path) -> None:
    """As those are that a container is given one by one; they cannot be replaced (EBUSY)."""
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNTED.format(python=sys.executable)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if run.returncode == 77 or b"unshare" in run.stderr:
        pytest.skip("nothing can be mounted here")

    assert run.stderr == b""
    assert (tmp_path / "below").read_bytes() == b"new"
    assert {entry.name for entry in tmp_path.iterdir()} == {"below", "mounted"}
