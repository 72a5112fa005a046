"""`castore mount` and `castore umount`, as they are typed, with the real FUSE of this machine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import filecmp
import json
import mmap
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import attrs
import pytest

import castore as library
from castore.access.mount import points
from castore.access.mount.points import MountError, mounted_at, resolved
from castore.contract.refs import NamedRoot
from castore.trees import import_tree

DEADLINE: Final = 30
"""Seconds; far more than anything takes."""

SYS_ADMIN: Final = 21
"""The right to mount; a container has it if it was given."""

STORE: Final = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:../store"
"""


def why_not() -> str:
    """Return what this machine lacks to mount something."""
    try:
        from castore.access.mount.fuse import load  # noqa: PLC0415

        load()
        points.require_device()
    except (MountError, library.CastoreError) as error:
        return str(error)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    may = int(status["CapEff"], 16) & 1 << SYS_ADMIN
    return "" if may else "this process has no right to mount"


REASON: Final = why_not()
real = pytest.mark.skipif(bool(REASON), reason=REASON)


# -- mounting, without leaving anything behind --


@attrs.define
class Mount:
    """Something that is mounted, and the program behind it."""

    folder: Path
    process: subprocess.Popen[bytes]
    root: str | None

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@contextlib.contextmanager
def mounted(place, *arguments: str, folder: str = "mnt") -> Iterator[Mount]:
    """Mount in the place, until the block ends."""
    target = place.folder.parent / folder
    target.mkdir(exist_ok=True)
    log = place.folder / "log"
    with (
        log.open("ab") as stderr,
        place.start(
            "mount", *arguments, str(target), "--json", stdout=subprocess.PIPE, stderr=stderr
        ) as process,
    ):
        try:
            line = process.stdout.readline()
            assert line, log.read_text()
            document = json.loads(line)
            assert document["mounted"] == resolved(target)
            yield Mount(target, process, document["root"])
        finally:
            leave(target)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


def leave(folder: Path) -> None:
    """Unmount whatever is at a folder, in use or not."""
    while mounted_at(folder) is not None:
        points.unmount(str(folder), lazy=True)


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)


@contextlib.contextmanager
def failing(number: int) -> Iterator[None]:
    """Expect an error of the system with this number."""
    try:
        yield
    except OSError as error:
        assert error.errno == number, error  # noqa: PT017 - its number is what matters
    else:
        pytest.fail("there was no error")


def store(place, folder: Path) -> str:
    with library.open(place.folder / "composition.toml") as stores:
        return str(import_tree(folder, stores.blobs(), stores.directories()).node.digest)


@pytest.fixture
def stored(place) -> str:
    """A tree with a bit of everything: its root. The folder it was made of is `source`."""
    place.compose(STORE)
    random = Random(7)
    source = place.folder / "source"
    for name in ("one/two", "twin", "other/twin", "empty"):
        (source / name).mkdir(parents=True)
    for name in ("twin/same", "other/twin/same", "script", "no-script"):
        (source / name).write_bytes(b"#!/bin/sh\necho the same bytes\n")
    (source / "script").chmod(0o755)
    (source / "empty-file").touch()
    (source / "one/link").symlink_to("two/../../script")
    (source / "dangling").symlink_to("/nowhere/at all")
    for number in range(16):
        (source / f"one/two/{number}").write_bytes(random.randbytes(700_000 + number * 4097))
    (source / "many").mkdir()
    for number in range(300):
        (source / f"many/an entry with quite a long name {number}").write_bytes(b"%d" % (number % 7))
    for name in (b"\xff\xfe not utf-8", b"new\nline", "ümläut".encode(), b"a b\\c,d"):
        (source / os.fsdecode(name)).write_bytes(name)
    return store(place, source)


def listed(folder: Path) -> dict[bytes, tuple[int, bytes]]:
    """Everything below a folder by its path: type and right to execute, and content or target."""
    found = {}
    base = os.fsencode(folder)
    for above, folders, files in os.walk(base):
        for name in folders + files:
            path = above + b"/" + name
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)  # noqa: PTH115 - names are bytes
            elif stat.S_ISREG(status.st_mode):
                kind |= status.st_mode & stat.S_IXUSR
                content = Path(os.fsdecode(path)).read_bytes()
                assert status.st_size == len(content)
            found[os.path.relpath(path, base)] = kind, content
    return found


# -- what is there --


@real
def test_the_mount_is_the_folder(place, stored):
    """Byte for byte; and what programs make of it. One mount for all of this: each takes a second."""
    source = place.folder / "source"
    with mounted(place, stored) as mount:
        folder = mount.folder
        assert mount.root == stored
        assert listed(folder) == listed(source)
        # The second time names come without what is known of them already.
        assert listed(folder) == listed(source)
        check_status(folder)
        check_attributes(folder, stored)
        check_sixteen_readers(folder, source, mount.process.pid)
        check_programs(folder, source, place.folder.parent)
        with (folder / "one/two/3").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
            assert m[:] == (source / "one/two/3").read_bytes()
        for attempt in (
            (folder / "new").touch,
            (folder / "script").unlink,
            lambda: (folder / "script").open("r+b"),
            lambda: (folder / "script").chmod(0o600),
        ):
            with failing(errno.EROFS):
                attempt()
        assert mount.end() == 0
    assert mounted_at(mount.folder) is None
    assert not list(mount.folder.iterdir())


def check_status(folder: Path) -> None:
    """Modes, times, numbers of files, and how much there is."""
    script, plain = (folder / "script").stat(), (folder / "no-script").stat()
    assert [stat.S_IMODE(each.st_mode) for each in (script, plain, folder.stat())] == [0o555, 0o444, 0o555]
    assert script.st_mtime_ns == 10**9
    assert (script.st_uid, script.st_nlink) == (os.getuid(), 1)
    # Equal bytes are one file, unless one of them may be executed; equal folders are not.
    assert script.st_ino != plain.st_ino == (folder / "twin/same").stat().st_ino
    assert (folder / "twin").stat().st_ino != (folder / "other/twin").stat().st_ino
    assert {each.inode() for each in os.scandir(folder)} == {each.lstat().st_ino for each in folder.iterdir()}
    space = os.statvfs(folder)
    assert (space.f_bavail, space.f_ffree, space.f_namemax) == (0, 0, 255)
    assert space.f_blocks * space.f_frsize >= 16 * 700_000
    assert space.f_files == 335


def check_attributes(folder: Path, root: str) -> None:
    """The digests, for who compares."""
    digest = library.B3Digest.of((folder / "script").read_bytes())
    assert os.getxattr(folder / "script", "user.castore.digest").decode() == str(digest)
    assert os.getxattr(folder, "user.castore.digest").decode() == root
    assert {name: os.getxattr(folder / "script", name) for name in os.listxattr(folder / "script")} == {
        "user.castore.digest": str(digest).encode(),
        "user.snix.castore.blob.digest": digest.sri.encode(),
    }
    assert "user.snix.castore.directory.digest" in os.listxattr(folder / "one")
    with failing(errno.ENODATA):
        os.getxattr(folder / "script", "user.other")


def check_sixteen_readers(folder: Path, source: Path, process: int) -> None:
    """Sixteen threads read sixteen files here and there; the program stays small."""

    def read(number: int) -> bool:
        expected = (source / f"one/two/{number}").read_bytes()
        random = Random(number)
        with (folder / f"one/two/{number}").open("rb", buffering=0) as file:
            for _ in range(20):
                offset, size = random.randrange(len(expected)), random.randrange(200_000)
                assert os.pread(file.fileno(), size, offset) == expected[offset : offset + size]
            return file.read() == expected

    drop_pages(folder)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(16)))
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak < 300 << 10


def drop_pages(folder: Path) -> None:
    """Let the kernel forget what it has of the files."""
    for path in (folder / "one/two").iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_programs(folder: Path, source: Path, above: Path) -> None:
    """`cp` and `tar` are content with what they see."""
    subprocess.run(["cp", "-a", folder, above / "copied"], check=True, timeout=DEADLINE)
    assert listed(above / "copied") == listed(source)
    subprocess.run(["tar", "-C", folder, "-cf", above / "it.tar", "."], check=True, timeout=DEADLINE)
    (above / "unpacked").mkdir()
    subprocess.run(["tar", "-C", above / "unpacked", "-xf", above / "it.tar"], check=True, timeout=DEADLINE)
    assert listed(above / "unpacked") == listed(source)


@real
def test_a_part_of_a_tree_with_its_metadata(place):
    """ROOT:PATH, and --preserve gives modes, times and attributes back."""
    place.compose(STORE)
    path = place.folder / "source/below/file"
    place.file("source/below/file", b"x")
    path.chmod(0o640)
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    os.setxattr(path, "user.colour", b"blue")
    run = place.run("import", "source", "--metadata", "--ref", "www", "--json")
    assert run.returncode == 0, run.stderr
    with mounted(place, "www:below", "--preserve", "all") as mount:
        status = (mount.folder / "file").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 1_700_000_000_123_456_789)
        assert os.getxattr(mount.folder / "file", "user.colour") == b"blue"


@real
def test_all_refs_are_folders_and_move_on(place):
    """Refs that are new or set anew show up; one stays as it is while a file of it is open."""
    place.compose(STORE)
    for number in (1, 2):
        place.file(f"v{number}/file", f"version {number}".encode())
    with library.open(place.folder / "composition.toml") as stores:
        first, second = (
            import_tree(place.folder / name, stores.blobs(), stores.directories()).node
            for name in ("v1", "v2")
        )
        refs = stores.refs_of_blobs("root")
        refs.set("www", NamedRoot(first))
        refs.set("www/old", NamedRoot(first))
        refs.set("backup/2026-11-30T14-05-00Z", NamedRoot(first))
        refs.set("backup/2026-12-01T00-00-00Z", NamedRoot(second))
        with mounted(place) as mount:
            folder = mount.folder
            assert mount.root is None
            assert {each.name for each in folder.iterdir()} == {"www", "www@", "backup"}
            assert (folder / "backup/latest").readlink() == Path("2026-12-01T00-00-00Z")
            assert (folder / "backup/latest/file").read_bytes() == b"version 2"
            assert (folder / "www@/old/file").read_bytes() == b"version 1"
            with (folder / "www/file").open("rb") as file:
                assert file.read(3) == b"ver"
                refs.set("www", NamedRoot(second))
                refs.set("new/name", NamedRoot(second))
                until((folder / "new/name/file").exists)
                assert (folder / "www/file").read_bytes() == b"version 1"
                assert file.read() == b"sion 1"
            until(lambda: (folder / "www/file").read_bytes() == b"version 2")


# -- what goes wrong --


@real
def test_a_corrupt_chunk_is_an_error_and_the_log_names_it(place, stored):
    """All else can be read."""
    random = Random(1)
    big = place.folder / "more/big"
    big.parent.mkdir()
    big.write_bytes(random.randbytes(3 << 20))
    (big.parent / "fine").write_bytes(b"fine")
    root = store(place, big.parent)
    with library.open(place.folder / "composition.toml") as stores:
        chunk = stores.blobs().chunks(library.B3Digest.of(big.read_bytes()))[3]
    (stored_chunk,) = (place.folder.parent / "store").rglob(f"{chunk.digest.hex()}")
    data = bytearray(stored_chunk.read_bytes())
    data[len(data) // 2] ^= 1
    stored_chunk.write_bytes(data)
    with mounted(place, root) as mount:
        with failing(errno.EIO):
            (mount.folder / "big").read_bytes()
        assert (mount.folder / "fine").read_bytes() == b"fine"
        with (mount.folder / "big").open("rb", buffering=0) as file:
            assert file.read(1000) == big.read_bytes()[:1000]
    lines = (place.folder / "log").read_text().splitlines()
    (line,) = [each for each in lines if chunk.digest.hex() in each]
    assert line.startswith("castore: /big: ")


@real
def test_a_dead_store_freezes_nobody(place, stored, tmp_path):
    """A server that is stopped, and later goes on: ETIMEDOUT within the deadline, and then all is well."""
    pytest.importorskip("grpc")
    socket = tmp_path / "socket"
    with place.start("serve", "--listen", f"unix:{socket}", "--json", stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline()
            place.compose(
                f'[blobservices.root]\ntype = "grpc"\nurl = "grpc+unix:{socket}"\n'
                f'[directoryservices.root]\ntype = "grpc"\nurl = "grpc+unix:{socket}"\n'
            )
            with mounted(place, stored, "--timeout", "1 s") as mount:
                until(lambda: readable(mount.folder / "one/link"))
                server.send_signal(signal.SIGSTOP)
                begin = time.monotonic()
                for look in (
                    partial(os.listdir, mount.folder / "other"),
                    (mount.folder / "one/two/5").read_bytes,
                ):
                    with failing(errno.ETIMEDOUT):
                        look()
                # What is known is there meanwhile.
                assert (mount.folder / "script").stat().st_size
                assert time.monotonic() - begin < DEADLINE
                server.send_signal(signal.SIGCONT)
                until(lambda: readable(mount.folder / "one/two/5"))
                assert filecmp.cmp(
                    mount.folder / "one/two/5", place.folder / "source/one/two/5", shallow=False
                )
                server.send_signal(signal.SIGSTOP)
                assert mount.end() == 0
        finally:
            server.send_signal(signal.SIGCONT)
            server.kill()


def readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


@real
def test_sigint_ends_it_also_while_it_is_in_use(place, stored):
    """With 0, and nothing is left mounted."""
    with mounted(place, stored) as mount:
        file = (mount.folder / "script").open("rb", buffering=0)
        assert mount.end(signal.SIGINT) == 0
        assert mounted_at(mount.folder) is None
        with contextlib.suppress(OSError):
            file.close()


@real
def test_in_the_background_and_what_a_kill_leaves(place, stored, tmp_path):
    """It returns when it is mounted. Killed it leaves a dead mount, which the next one, or `umount`, ends."""
    folder = tmp_path / "a mount,point"
    folder.mkdir()

    def mount() -> int:
        run = place.run("mount", stored, str(folder), "--background", "--log", "log")
        assert run.returncode == 0, run.stderr
        assert (folder / "script").exists()
        (process,) = (int(each.name) for each in Path("/proc").iterdir() if is_of(each))
        assert os.getsid(process) == process != os.getsid(0)
        return process

    def is_of(process: Path) -> bool:
        with contextlib.suppress(OSError):
            return process.name.isdecimal() and os.fsencode(folder) in (
                (process / "cmdline").read_bytes().split(b"\0")
            )
        return False

    def kill() -> None:
        os.kill(mount(), signal.SIGKILL)
        until(lambda: mounted_at(folder).is_dead)

    try:
        kill()
        again = place.run("mount", stored, str(folder), "--background")
        assert b"was left mounted by a castore that was killed" in again.stderr
        twice = place.run("mount", stored, str(folder))
        assert (twice.returncode, b"castore umount" in twice.stderr) == (1, True)
        ended = place.run("umount", str(folder), "--json")
        assert json.loads(ended.stdout)["source"] == f"castore:{stored}"
        kill()
        assert place.run("umount", str(folder)).returncode == 0
        assert mounted_at(folder) is None
    finally:
        leave(folder)


@real
def test_in_the_background_what_is_wrong_is_said_before_it_returns(place, stored, tmp_path):
    (tmp_path / "mnt").mkdir()
    run = place.run("mount", "no-such-ref", str(tmp_path / "mnt"), "--background")
    assert run.returncode == 1
    assert b"no ref is named `no-such-ref`" in run.stderr
    assert b"Traceback" not in run.stderr


@real
def test_umount_of_what_is_in_use(place, stored):
    """It names who uses it; --lazy takes it away all the same, and it ends when it is left."""
    with mounted(place, stored) as mount:
        with (mount.folder / "script").open("rb") as file:
            busy = place.run("umount", str(mount.folder))
            assert busy.returncode == 1
            assert f"in use, by process {os.getpid()} (".encode() in busy.stderr
            assert place.run("umount", "--lazy", str(mount.folder)).returncode == 0
            assert mounted_at(mount.folder) is None
            assert file.read().startswith(b"#!/bin/sh")
        assert mount.process.wait(DEADLINE) == 0


# -- what cannot be: no mount is needed to know --


@pytest.fixture
def device(monkeypatch) -> None:
    """Take the device of FUSE for granted."""
    monkeypatch.setattr(points, "require_device", lambda: None)
    monkeypatch.setattr("castore.access.mount.fuse.load", lambda: None)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["www", "nothing-there"], 1, "there is no folder"),
        (["www", "full"], 1, "is not empty"),
        (["www", "full/file"], 1, "is no folder"),
        (["www", "/proc"], 1, "proc is mounted at /proc already"),
        (["www", "empty"], 1, "no ref is named `www`"),
        (["00" * 32, "empty"], 1, "no directory"),
        (["a:/../..", "empty"], 2, "leads out of the tree"),
        (["one", "two", "three"], 2, "a ROOT and a FOLDER"),
        (["--preserve", "all", "empty"], 2, "one ROOT"),
        (["--read-ahead", "2 MiB", "empty"], 2, "from 4 KiB to 1 MiB"),
    ],
)
@pytest.mark.usefixtures("device")
def test_what_cannot_be_mounted_is_said(place, castore, arguments, code, words):
    place.compose(STORE)
    place.file("full/file")
    (place.folder / "empty").mkdir()

    result = castore("mount", *arguments)

    assert words in result.stderr
    assert result.stderr.count("castore: ") == 1
    assert result.exit_code == code


def test_a_missing_package_is_named(place, castore, monkeypatch):
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    result = castore("mount", "www", ".")
    assert "pip install 'castore[mount]'" in result.stderr
    assert result.exit_code == 2


def test_a_missing_device_is_said(place, castore, monkeypatch):
    monkeypatch.setattr("castore.access.mount.fuse.load", lambda: None)
    monkeypatch.setattr(points, "DEVICE", "/dev/no-fuse")
    result = castore("mount", "www", ".")
    assert "there is no /dev/no-fuse" in result.stderr
    assert "--device" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        (".", "nothing is mounted at"),
        ("nowhere", "there is no folder"),
        ("/proc", "was not mounted by castore: it is of the type proc"),
    ],
)
def test_what_cannot_be_unmounted_is_said(place, castore, folder, words):
    result = castore("umount", folder)
    assert words in result.stderr
    assert result.exit_code == 1


def test_programs_that_the_tests_use_are_there():
    """Of the system: they are on every Debian."""
    assert all(map(shutil.which, ("cp", "tar")))
