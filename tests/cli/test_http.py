"""`castore http`, as it is typed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request

import pytest


@pytest.fixture
def root(place) -> str:
    place.file("folder/a.txt", b"in the folder")
    return place.run("import", "folder").stdout.decode().split()[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_folder_is_served_until_a_signal(place, root, number):
    """The first line says where; a signal ends it with 0."""
    with place.start("http", root, "--listen", "localhost:0", "--json", stdout=subprocess.PIPE) as server:
        try:
            (url,) = json.loads(server.stdout.readline())["listening"]
            with urllib.request.urlopen(f"{url}a.txt", timeout=20) as answer:
                assert answer.read() == b"in the folder"
            server.send_signal(number)
            assert server.wait(20) == 0
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--listen", "0.0.0.0:0"], 2, "--insecure"),
        (["--listen", "nowhere"], 2, "HOST:PORT"),
        (["--writable"], 2, "need --tokens"),
        (["--private"], 2, "need --tokens"),
        (["--site"], 2, "one ROOT"),
        (["--tls-cert", "x"], 2, "come together"),
        (["0" * 64], 1, "no directory"),
        (["no-such-ref"], 1, "no-such-ref"),
    ],
)
def test_what_cannot_be_is_said(place, arguments, code, words):
    run = place.run("http", *arguments)
    assert words in run.stderr.decode()
    assert b"Traceback" not in run.stderr
    assert run.returncode == code


def test_a_port_that_is_taken_is_said(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = place.run("http", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert b"cannot listen at 127.0.0.1" in run.stderr
    assert run.returncode == 2
