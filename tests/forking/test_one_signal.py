"""One signal ends a program whose far hangs in the middle of a blob; it waits for nobody then."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from castore import B3Digest, Composition

SECONDS = 20.0
"""It takes a few tenths of a second; but a machine may be busy."""

DATA = os.urandom(700_000)
GOOD = 4
"""So many chunks come, then nothing."""


@attrs.define
class Far:
    """A server that hangs."""

    url: str = ""
    given: int = 0
    hangs: threading.Event = attrs.field(factory=threading.Event)
    released: threading.Event = attrs.field(factory=threading.Event)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    """The store in `store`, by HTTP; from its fifth chunk on it does not answer."""
    with Composition.from_mapping(tables_of("file:./store"), base=tmp_path) as stores:
        stores.blobs().write(DATA)
    found = Far()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "/chunks/" in self.path:
                found.given += 1
                if found.given > GOOD:
                    found.hangs.set()
                    found.released.wait(120)
                    return
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(tmp_path / "store"))
    )
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    found.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def tables_of(url: str) -> dict[str, object]:
    root = {"type": "objectstore", "object_store_url": url, "avg_chunk_size": 16 << 10}
    return {"blobservices": {"root": root}}


def composition(far: str) -> str:
    return f"""
allow_faults = true

[blobservices.root]
type = "objectstore"
object_store_url = "{far}"

[blobservices.cache]
type = "cache"
near = "&near"
far = "&root"

[blobservices.near]
type = "objectstore"
object_store_url = "file:./near"

[blobservices.hanging]
type = "faulty"
inner = "&near"
hang = 1.0
hang_time = "100 s"
operations = ["writes"]

[blobservices.behind]
type = "cache"
near = "&near"
far = "&hanging"
write = "behind"
queue = "./queue"

[blobservices.timed]
type = "mirror"
services = [{{ ref = "&hanging", timeout = "100 s" }}, "&near"]
"""


def start(
    folder: Path, url: str, *args: str, program: str = "from castore.cli import main; main()"
) -> subprocess.Popen[str]:
    (folder / "composition.toml").write_text(composition(url))
    (folder / "data").write_bytes(os.urandom(9 << 20))
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def hang_up(far: Far, process: subprocess.Popen[str]) -> None:
    """Wait until the program waits for what does not come."""
    while not far.hangs.wait(0.05):
        assert process.poll() is None, process.communicate()[1]


def ends(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str]:
    """Send one signal; return the exit code and what was said."""
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, said


COMMANDS = {
    "get": ["get", str(B3Digest.of(DATA)), "-o", "out"],
    "get-cache": ["--service", "cache", "get", str(B3Digest.of(DATA)), "-o", "out"],
    "copy": ["copy", "--from", "root", "--to", "near", str(B3Digest.of(DATA))],
    "verify": ["verify"],
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_reads(far: Far, tmp_path: Path, command: str, number: int) -> None:
    process = start(tmp_path, far.url, *COMMANDS[command])
    hang_up(far, process)
    code, said = ends(process, number)
    assert code == 128 + number
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("service", ["hanging", "timed", "behind"])
def test_a_command_that_writes(tmp_path: Path, service: str) -> None:
    """What is behind has its blob in near by then, and in the queue."""
    process = start(tmp_path, "memory:", "--service", service, "put", "data")
    assert process.stderr is not None
    assert process.stderr.readline().endswith(": hang\n")
    code, said = ends(process)
    assert code == 130, said
    assert "Traceback" not in said


PROGRAM = """
import sys, castore
with castore.open() as stores:
    reader = stores.blobs().open_read(castore.B3Digest.parse(sys.argv[1]))
    with reader:
        reader.read()
"""


def test_a_program_of_ones_own(far: Far, tmp_path: Path) -> None:
    process = start(tmp_path, far.url, str(B3Digest.of(DATA)), program=PROGRAM)
    hang_up(far, process)
    code, said = ends(process)
    assert code in (-signal.SIGINT, 130)
    assert said.rstrip().endswith("KeyboardInterrupt")
