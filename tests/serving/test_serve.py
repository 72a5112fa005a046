"""`castore serve` as a process of its own: how it begins, what it tells, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from peers import something_is_stored

import castore
from castore.errors import UnavailableError, UnsupportedError
from castore.format.wire import PACKAGES
from castore.serving.grpc.health import HealthReport
from castore.serving.grpc.server import GrpcServer


class Process:
    """A server that was started as a command, when it says where it listens."""

    def __init__(self, folder: Path, *args: str) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "castore", "--json", "serve", *args],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            self.document = json.loads(line)
        except ValueError:
            # It has not begun: what it says of that, it says to the end.
            self.process.terminate()
            assert self.process.stderr is not None
            said = self.process.stderr.read()
            self.leave()
            raise RuntimeError(said) from None
        self.places: list[str] = self.document["listening"]

    def leave(self) -> None:
        """End it, whatever it is at."""
        with self.process as process:
            process.kill()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and what was said."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        return self.process.wait(timeout=60), said


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "composition.toml").write_text(
        '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
    )
    with contextlib.ExitStack() as stack:

        def start(*args: str) -> Process:
            server = Process(tmp_path, *args)
            stack.callback(server.leave)
            return server

        yield start


def refused_at_last(blobs: castore.BlobService) -> bool:
    """Ask until that is refused; return whether it was."""
    for _ in range(10_000):
        try:
            blobs.has(castore.B3Digest(bytes(32)))
        except UnavailableError:
            return True
    return False


def url_of(place: str) -> str:
    return f"grpc+{place}" if place.startswith("unix:") else f"grpc+http://{place}"


def test_it_serves_at_several_places_until_it_is_told_to_stop(started: Any, sockets: Any) -> None:
    """What was put at one is got at another; health and reflection answer; it ends with 0."""
    path = next(sockets)
    server = started("--listen", f"unix:{path}", "--listen", "127.0.0.1:0", "--access-log", "json")
    unix, tcp = server.places
    assert unix == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    with castore.from_url(url_of(unix)) as one, castore.from_url(url_of(tcp)) as other:
        digest = one.write(b"by one door")
        assert other.read(digest) == b"by one door"
    with grpc.insecure_channel(tcp) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def state(name: str) -> int:
            return health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status

        for name in ("", "snix.castore.v1.BlobService", "tvix.castore.v1.DirectoryService"):
            assert state(name) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            state("x")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=20)
        names = {service.name for service in answer.list_services_response.service}
        kinds = ("BlobService", "DirectoryService")
        assert {f"{package}.{kind}" for package in PACKAGES for kind in kinds} <= names
    code, said = server.end()
    assert code == 0
    lines = [json.loads(line) for line in said.splitlines()]
    assert "/snix.castore.v1.BlobService/Put" in {line["path"] for line in lines}
    assert not path.exists()


def test_a_call_that_was_accepted_is_answered_though_the_server_stops(
    started: Any, sockets: Any, tmp_path: Path
) -> None:
    """A blob that is half sent when SIGTERM comes is stored; a new call is refused."""
    path = next(sockets)
    server = started("--listen", f"unix:{path}")
    with castore.from_url(f"grpc+unix:{path}") as blobs:
        writer = blobs.open_write()
        half = os.urandom(8 << 20)
        with something_is_stored(tmp_path / "store"):
            writer.write(half)
        server.process.send_signal(signal.SIGTERM)
        assert refused_at_last(blobs)
        writer.write(b"the end")
        assert writer.close() == castore.B3Digest.of(half + b"the end")
    assert server.process.wait(timeout=60) == 0


def test_another_server_is_not_pushed_aside(started: Any, sockets: Any) -> None:
    """A socket that is answered is somebody's; one that is left behind is removed."""
    path = next(sockets)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    first = started("--listen", f"unix:{path}")
    with pytest.raises(RuntimeError, match="another server does"):
        started("--listen", f"unix:{path}")
    assert first.end()[0] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--listen", "0.0.0.0:0"], "can be reached from other machines"),
        (["--listen", "somewhere"], "is no place to listen at"),
        (["--listen", "localhost:99999"], "is no port"),
        (["--tls-cert", "x.pem"], "come together"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "x.pem"),
        (["--tokens", "composition.toml"], "composition.toml"),
        (["--live", "0.0.0.0:0", "--insecure"], "it needs --tokens"),
        (["--live", "somewhere"], "is no place to listen at"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(castore_command: Any, args: list[str], words: str) -> None:
    """And nothing listens."""
    code, said = castore_command("serve", *args)
    assert code != 0
    assert words in said
    assert "Traceback" not in said


@pytest.fixture
def castore_command(tmp_path: Path) -> Any:
    (tmp_path / "composition.toml").write_text('[blobservices.root]\ntype = "memory"\n')

    def run(*args: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "castore", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stderr

    return run


def test_tokens_have_rights_and_are_read_anew(started: Any, sockets: Any, tmp_path: Path) -> None:
    """Without one nobody gets in; `read` does not write; after SIGHUP the file counts as it is."""
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("# who\nreader read 0123456789abcdef\nwriter read,write fedcba9876543210\n")
    tokens.chmod(0o600)
    path = next(sockets)
    server = started("--listen", f"unix:{path}", "--tokens", str(tokens))
    url = f"grpc+unix:{path}"
    with castore.from_url(url) as nobody, pytest.raises(UnavailableError, match="bearer token"):
        nobody.has(castore.B3Digest(bytes(32)))
    with castore.from_url(f"{url}?token=fedcba9876543210") as writer:
        digest = writer.write(b"kept")
    with castore.from_url(f"{url}?token=0123456789abcdef") as reader:
        assert reader.read(digest) == b"kept"
        with pytest.raises(UnsupportedError, match="no right to write"):
            reader.write(b"not kept")
        tokens.write_text("reader read,write 0123456789abcdef\n")
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            with contextlib.suppress(UnsupportedError):
                reader.write(b"kept now")
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail("the tokens were not read anew")
    assert server.end(signal.SIGINT)[0] == 0


def test_the_composition_is_read_anew_while_calls_run(started: Any, sockets: Any, tmp_path: Path) -> None:
    """Twenty times, each time another one: no call fails. One that is wrong leaves the old one as it is."""
    path = next(sockets)
    server = started("--listen", f"unix:{path}")
    file = tmp_path / "composition.toml"
    text = file.read_text()
    ended = threading.Event()
    counts = [0, 0]

    def work(number: int) -> None:
        with castore.from_url(f"grpc+unix:{path}") as blobs:
            while not ended.is_set() or not counts[number]:
                data = os.urandom(300_000)
                assert blobs.read(blobs.write(data)) == data
                counts[number] += 1

    def said() -> str:
        assert server.process.stderr is not None
        return server.process.stderr.readline()

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, number) for number in range(2)]
        try:
            for number in range(20):
                file.write_text(f"{text}avg_chunk_size = {60_000 + number}\n")
                server.process.send_signal(signal.SIGHUP)
                assert "read anew: 1 changed" in said()
            file.write_text(f"{text}avg_chunk_size = 0\n")
            server.process.send_signal(signal.SIGHUP)
            assert "stays as it is" in said()
        finally:
            ended.set()
        for each in working:
            each.result(timeout=60)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0


def test_what_was_measured_is_told_to_prometheus(started: Any, sockets: Any) -> None:
    """Of the instances, also after the composition was read anew, and of the calls."""
    path = next(sockets)
    server = started("--listen", f"unix:{path}", "--metrics", "127.0.0.1:0")
    with castore.from_url(f"grpc+unix:{path}") as blobs:
        blobs.read(blobs.write(b"a blob"))
    with urllib.request.urlopen(f"http://{server.document['metrics'][0]}/metrics", timeout=30) as answer:
        page = answer.read().decode()
    assert 'castore_grpc_calls_total{code="OK",method="/snix.castore.v1.BlobService/Put"} 1.0' in page
    counted = r'castore_operations_total\{[^}]*instance="root"[^}]*operation="open_read"[^}]*\} [12].0'
    assert re.search(counted, page)
    assert server.end()[0] == 0


def test_systemd_is_told(started: Any, sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is ready, that it reads its composition anew, and that it is about to stop."""
    path, told = next(sockets), next(sockets)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(told))
        systemd.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(told))
        server = started("--listen", f"unix:{path}")
        assert systemd.recv(100) == b"READY=1"
        server.process.send_signal(signal.SIGHUP)
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", systemd.recv(100))
        assert systemd.recv(100) == b"READY=1"
        assert server.end()[0] == 0
        assert systemd.recv(100) == b"STOPPING=1"


def test_health_goes_on_though_a_probe_fails() -> None:
    """What could not be asked is not healthy, until it can be asked."""
    answers: list[Any] = [{"BlobService": True}, RuntimeError("a mistake"), {"BlobService": True}]
    server = GrpcServer(castore.from_url("memory:").read)  # type: ignore[arg-type] # it is never asked

    def probe() -> dict[str, bool]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        found: dict[str, bool] = answer
        return found

    health = HealthReport(server, probe, seconds=0.01)
    seen: list[int] = []
    health._servicer.set = lambda name, status: seen.append(status) if name == "" else None
    health.start()
    ends = time.monotonic() + 30
    while len(seen) < 4 and time.monotonic() < ends:
        time.sleep(0.01)
    health.leave()
    server.stop(None)
    assert seen[:4] == [1, 2, 1, 1]


def test_directories_are_probed_as_well(started: Any, sockets: Any, tmp_path: Path) -> None:
    """A service that cannot be reached is not healthy, and the others are."""
    (tmp_path / "composition.toml").write_text(
        '[blobservices.root]\ntype = "memory"\n'
        f'[directoryservices.root]\ntype = "grpc"\nurl = "grpc+unix:{next(sockets)}"\n'
    )
    path = next(sockets)
    started("--listen", f"unix:{path}")
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        found = {
            name: stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30).status
            for name in ("", f"{PACKAGES[0]}.BlobService", f"{PACKAGES[0]}.DirectoryService")
        }
    assert list(found.values()) == [2, 1, 2]
