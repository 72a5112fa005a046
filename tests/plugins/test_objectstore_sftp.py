"""SFTP, with the server of OpenSSH: a store on another machine, its folders, and its connection."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import castore
from castore import BlobService, Composition, UnavailableError
from castore.contract.capabilities import BlobLister, ChunkStore, Durable, FrameStore
from castore.contract.upkeep import Evictable, Sweepable
from castore.testing import BLOB_A, CLAUSES, HELLO, P3M, BlobServiceContract
from castore.testing.clause import Clause
from castore.upkeep import copy, verify
from castore_objectstore.bounded import _Pieces, _read_sftp

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

if SSHD is None or importlib.util.find_spec("paramiko") is None:
    pytest.skip("needs openssh-server and paramiko", allow_module_level=True)

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""


@attrs.define
class Server:
    """A server of OpenSSH, for who runs the tests, by a key."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert SSHD is not None
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", self.folder / "config"], stderr=subprocess.DEVNULL
        )
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    @property
    def options(self) -> dict[str, Any]:
        return {
            "port": self.port,
            "username": getpass.getuser(),
            "key_filename": str(self.folder / "user"),
            "look_for_keys": False,
            "allow_agent": False,
            "host_key_policy": "auto_add",
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = Server(folder, port)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def compose(server: Server, tmp_path: Path) -> Iterator[Callable[..., Composition]]:
    opened: list[Composition] = []

    def make(folder: str = "store", **more: Any) -> Composition:
        url = f"sftp://127.0.0.1{tmp_path}/{folder}"
        root = {
            "type": "objectstore",
            "object_store_url": url,
            "object_store_options": server.options,
            **more,
        }
        opened.append(Composition.from_mapping({"blobservices": {"root": root}}))
        return opened[-1]

    yield make
    for composition in opened:
        composition.close()


class SftpContract(BlobServiceContract):
    """A folder of another machine keeps the contract."""

    capabilities = (BlobLister, ChunkStore, FrameStore, Durable, Sweepable, Evictable)

    @pytest.fixture
    def service(self, compose: Callable[..., Composition]) -> BlobService:
        return compose().blobs()


HEART = (
    "absent-through-every-door",
    "put-then-get",
    "unfinished-through-every-door",
    "threads-write-one-blob",
    "sweep-removes-what-it-is-given",
    "set-aside-replaces-nothing",
    "evictable-removes",
    "claimed-is-young-again",
)
"""One clause of each sort; a connection takes a quarter of a second to begin."""


class TestContract(SftpContract):
    def _clauses(self) -> Iterator[Clause]:
        chosen = [clause for clause in CLAUSES if clause.name in HEART]
        assert len(chosen) == len(HEART)
        yield from chosen


@pytest.mark.long
class TestWholeContract(SftpContract):
    """All of it, in a minute."""


def test_the_folder_is_a_store_like_any_other(compose: Callable[..., Composition], tmp_path: Path) -> None:
    """What is written by SFTP is read on the machine itself, and the other way round."""
    with compose() as stores:
        [probe] = stores.probe(timeout=30)
        assert probe.ok, probe.result
        stores.blobs().write(P3M.data)
        with castore.from_url(f"objectstore+file:{tmp_path}/store") as here:
            assert here.read(P3M.digest) == P3M.data
            here.write(HELLO.data)
        assert stores.blobs().read(HELLO.digest) == HELLO.data
        assert verify(stores.blobs(), expected=[P3M.digest, HELLO.digest]).ok


@pytest.mark.parametrize(
    ("folder", "create", "is_there"),
    [
        ("new", "parent", True),
        ("not/new", "parent", False),
        ("not/new", "path", True),
        ("new", False, False),
        ("old", False, True),
    ],
)
def test_folders_that_are_not_there(
    compose: Callable[..., Composition], tmp_path: Path, folder: str, create: str | bool, is_there: bool
) -> None:
    """The last folder is made, others only if that is said; a place that is not there has no absent blobs."""
    (tmp_path / "old" / "blobs").mkdir(parents=True)
    blobs = compose(folder, create=create).blobs()
    calls: list[Callable[[], object]] = [
        lambda: blobs.has(HELLO.digest),
        lambda: blobs.open_read(HELLO.digest),
        lambda: verify(blobs),
        lambda: copy(blobs, blobs),
        lambda: blobs.write(HELLO.data),
    ]
    for call in calls:
        if is_there:
            call()
            continue
        with pytest.raises(UnavailableError, match=r"sftp://127\.0\.0\.1"):
            call()
    assert (tmp_path / folder / "blobs").exists() is is_there


def test_a_folder_that_goes_is_not_made_anew(compose: Callable[..., Composition], tmp_path: Path) -> None:
    """As when a disk of the server is unmounted while a program runs."""
    (tmp_path / "disk").mkdir()
    blobs = compose("disk/store").blobs()
    blobs.write(HELLO.data)
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    with pytest.raises(UnavailableError, match="nor the one above"):
        blobs.write(BLOB_A.data)
    assert not (tmp_path / "disk").exists()


def test_a_connection_that_is_lost_is_opened_again(
    server: Server, compose: Callable[..., Composition], tmp_path: Path
) -> None:
    blobs = compose().blobs()
    blobs.write(HELLO.data)
    blobs._store._open()[0].client.close()  # type: ignore[attr-defined]
    with pytest.raises(UnavailableError):
        blobs.read(HELLO.digest)
    assert blobs.read(HELLO.digest) == HELLO.data


def test_a_connection_that_is_lost_while_a_file_is_read(
    compose: Callable[..., Composition], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the reader's error, and its alone: the threads of the driver print nothing."""
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    blobs = compose().blobs()
    blobs.write(HELLO.data)
    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    paramiko = pytest.importorskip("paramiko")
    fs = blobs._store._open()[0]  # type: ignore[attr-defined]
    file = fs.ftp.open(str(tmp_path / "file"), "rb")

    def prefetch(size: int) -> None:
        fs.client.get_transport().close()
        type(file).prefetch(file, size)
        join_threads("_prefetch_thread")

    file.prefetch = prefetch
    with pytest.raises((OSError, EOFError, paramiko.SSHException)):
        _read_sftp(file, _Pieces(lambda data: None, 4 << 20), 4 << 20)
    assert printed == []


def join_threads(name: str) -> None:
    for thread in threading.enumerate():
        if name in thread.name:
            thread.join()


def test_what_goes_wrong_is_said(compose: Callable[..., Composition], server: Server, tmp_path: Path) -> None:
    """A key that is refused, and a host that does not answer."""
    for options, said in (
        ({**server.options, "username": "nobody-of-that-name"}, "Authentication failed"),
        ({**server.options, "port": 9}, "Unable to connect to port 9"),
    ):
        with pytest.raises(UnavailableError, match=said):
            compose(object_store_options=options).blobs().has(HELLO.digest)
