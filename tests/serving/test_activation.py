"""Sockets that systemd hands over: they outlive the server, and no client is refused between two of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from certs import Authority
from peers import something_is_stored

import castore
from castore.testing import HELLO

LAUNCHER = """
import fcntl, os, sys
given = [int(each) for each in sys.argv[1].split(",") if each]
kept = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in given]
for number, each in enumerate(kept):
    os.dup2(each, 3 + number)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = str(len(given)), str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "castore", "--json", *sys.argv[2:]])
"""


class Server:
    """A server that was started as systemd would."""

    def __init__(self, folder: Path, sockets: Sequence[socket.socket], *args: str) -> None:
        numbers = [each.fileno() for each in sockets]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, ",".join(map(str, numbers)), *args],
            cwd=folder,
            pass_fds=numbers,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def places(self) -> list[str]:
        """Return where it listens, as soon as it does."""
        assert self.process.stdout is not None
        found: list[str] = json.loads(self.process.stdout.readline())["listening"]
        return found

    def end(self) -> tuple[int, str]:
        """Have it stop; return its exit code, and what it has said."""
        self.process.send_signal(signal.SIGTERM)
        return self.said()

    def said(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def handed(tmp_path: Path, sockets: Iterator[Path]) -> Iterator[Any]:
    """Start a server with sockets: `unix` and `tcp` are there for all of a test."""
    (tmp_path / "composition.toml").write_text(
        '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
    )
    with contextlib.ExitStack() as stack:

        class Handed:
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            path = next(sockets)

            @staticmethod
            def start(given: Sequence[socket.socket], *args: str) -> Server:
                server = Server(tmp_path, given, *args)
                stack.callback(server.process.wait)
                stack.callback(server.process.kill)
                for stream in (server.process.stdout, server.process.stderr):
                    assert stream is not None
                    stack.callback(stream.close)
                return server

        Handed.unix.bind(str(Handed.path))
        Handed.unix.listen(64)
        yield Handed


def test_a_server_of_grpc_takes_them(handed: Any, tmp_path: Path) -> None:
    """What is under way is finished; who comes while there is no server waits for the next one."""
    first = handed.start([handed.unix, handed.tcp], "serve")
    port = handed.tcp.getsockname()[1]
    assert first.places() == [f"unix:{handed.path}", f"127.0.0.1:{port}"]
    large, half = os.urandom(3 << 20), os.urandom(8 << 20)
    with (
        castore.from_url(f"grpc+http://127.0.0.1:{port}") as over_tcp,
        castore.from_url(f"grpc+unix:{handed.path}") as blobs,
    ):
        digest = over_tcp.write(large)
        assert blobs.read(digest) == large
        writer = blobs.open_write()
        with something_is_stored(tmp_path / "store"):
            writer.write(half)
        first.process.send_signal(signal.SIGTERM)
        writer.write(HELLO.data)
        assert writer.close() == castore.B3Digest.of(half + HELLO.data)
    assert first.said() == (0, "")
    assert handed.path.exists()
    found: list[bytes] = []

    def read() -> None:
        with castore.from_url(f"grpc+unix:{handed.path}") as waits:
            found.append(waits.read(digest))

    thread = threading.Thread(target=read)
    thread.start()
    second = handed.start([handed.unix], "serve", "--listen", "systemd")
    assert second.places() == [f"unix:{handed.path}"]
    thread.join(60)
    assert found == [large]
    assert second.end()[0] == 0


def test_tls_is_that_of_the_server(handed: Any, tmp_path: Path) -> None:
    """Though each connection is passed on to it."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    server = handed.start([handed.tcp], "serve", "--tls-cert", str(certificate), "--tls-key", str(key))
    (place,) = server.places()
    url = f"grpc+https://{place}?tls-ca-cert-path={authority.ca}"
    with castore.from_url(url) as blobs:
        assert blobs.read(blobs.write(HELLO.data)) == HELLO.data
    assert server.end()[0] == 0


def test_a_server_of_http_takes_them(handed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And tells systemd when it is ready, and when it ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        told = handed.path.with_suffix(".notify")
        systemd.bind(str(told))
        systemd.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(told))
        server = handed.start([handed.tcp, handed.unix], "http")
        url, place = server.places()
        assert place == f"unix:{handed.path}"
        assert systemd.recv(100) == b"READY=1"
        with castore.open(tmp_path / "composition.toml") as stores:
            digest = stores.blobs().write(HELLO.data)
        with urllib.request.urlopen(f"{url}blob/{digest}", timeout=30) as answer:
            assert answer.read() == HELLO.data
        assert server.end()[0] == 0
        assert systemd.recv(100) == b"STOPPING=1"
    assert handed.path.exists()


@pytest.mark.parametrize("command", ["serve", "http"])
def test_what_is_handed_over_must_be_right(handed: Any, command: str) -> None:
    """Else it is said in a line."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as silent:
        datagrams.bind(("127.0.0.1", 0))
        everywhere = socket.create_server(("0.0.0.0", 0))
        cases: list[tuple[list[socket.socket], list[str], str]] = [
            ([], ["--listen", "systemd"], "has handed over no socket"),
            ([datagrams], [], "is no socket that listens"),
            ([silent], [], "is no socket that listens"),
            ([everywhere], [], "can be reached from other machines"),
        ]
        with everywhere:
            servers = [handed.start(given, command, *args) for given, args, _ in cases]
            for server, (*_, words) in zip(servers, cases, strict=True):
                code, said = server.said()
                assert words in said
                assert said.count("\n") == 1
                assert code == 2
