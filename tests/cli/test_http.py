"""`castore http`, as it is typed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
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
        (["--live", "--listen", "0.0.0.0:0", "--insecure"], 2, "needs --tokens"),
        (["--live", "--host", "castore.example"], 2, "needs --tokens"),
        (["x", "--live", "--site"], 2, "a server of its own"),
        (["0" * 64], 1, "no directory"),
        (["no-such-ref"], 1, "no-such-ref"),
    ],
)
def test_what_cannot_be_is_said(place, arguments, code, words):
    run = place.run("http", *arguments)
    assert words in run.stderr.decode()
    assert b"Traceback" not in run.stderr
    assert run.returncode == code


@pytest.mark.parametrize(("arguments", "status"), [([], 200), (["--host", "castore.example"], 401)])
def test_the_live_view_is_for_this_machine_or_takes_a_token(place, root, arguments, status):
    """What has another name may stand behind a proxy. Numbers are counted without `--stats`."""
    place.file("tokens", b"reader read reader-token-123456\n")
    (place.folder / "tokens").chmod(0o600)
    options = ["--live", "--tokens", "tokens", "--listen", "localhost:0", "--json", *arguments]
    with place.start("http", *options, stdout=subprocess.PIPE) as server:
        try:
            (url,) = json.loads(server.stdout.readline())["listening"]
            if status == 401:
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    urllib.request.urlopen(f"{url}ui/composition", timeout=20)
            headers = {"Authorization": "Bearer reader-token-123456"}
            with urllib.request.urlopen(f"{url}tree/{root}/a.txt", timeout=20):
                pass
            request = urllib.request.Request(f"{url}ui/composition/state", headers=headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert json.load(answer)["exact"]["0.bytes_out"] > 0
        finally:
            server.kill()


def test_a_port_that_is_taken_is_said(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = place.run("http", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert b"cannot listen at 127.0.0.1" in run.stderr
    assert run.returncode == 2


def test_tokens_are_read_anew(place, root):
    """On SIGHUP; what is no file of tokens leaves them as they are."""
    tokens = place.folder / "tokens"

    def let_in(token: str) -> None:
        tokens.write_text(f"somebody read {token}\n")
        tokens.chmod(0o600)

    def answer(url: str, token: str) -> int:
        request = urllib.request.Request(f"{url}a.txt", headers={"Authorization": f"Bearer {token}"})
        try:
            return urllib.request.urlopen(request, timeout=20).status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    let_in("the-first-token-of-all")
    command = ("http", root, "--listen", "localhost:0", "--json", "--private", "--tokens", "tokens")
    with place.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        try:
            (url,) = json.loads(server.stdout.readline())["listening"]
            assert answer(url, "the-first-token-of-all") == 200
            tokens.write_text("nonsense")
            server.send_signal(signal.SIGHUP)
            assert b"the tokens stay as they are" in server.stderr.readline()
            assert answer(url, "the-first-token-of-all") == 200
            let_in("the-second-token-of-all")
            server.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while answer(url, "the-second-token-of-all") != 200 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert answer(url, "the-second-token-of-all") == 200
            assert answer(url, "the-first-token-of-all") == 401
        finally:
            server.kill()
