"""Where no thread can be had the work is done by the thread that asks: at the end, and at limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

STACK = """
[blobservices.root]
type = "cache"
near = "&near"
far = "&far"
write = "behind"
queue = "./queue"

[blobservices.near]
type = "lru"
inner = "&disk"
max_bytes = "1 GiB"

[blobservices.disk]
type = "objectstore"
object_store_url = "file:./disk"

[blobservices.far]
type = "mirror"
services = [{ ref = "&one", timeout = "30 s" }, { ref = "&two", timeout = "30 s" }]

[blobservices.one]
type = "objectstore"
object_store_url = "file:./one"

[blobservices.two]
type = "sqlite"
path = "two.sqlite"
"""
"""All that starts threads: pools, deadlines, an uploader, a healer, a flush beside those who write."""

LIMITED = """
import sys
from no_threads import forbid_threads
assert forbid_threads()
"""

COMMAND = LIMITED + "from castore.cli import main\nmain()\n"


@pytest.fixture(scope="module")
def limits() -> None:
    """Skip where the limit cannot be set."""
    run = subprocess.run([sys.executable, "-c", LIMITED], cwd=HERE, capture_output=True, check=False)
    if run.returncode:
        pytest.skip("no limit on threads can be set here")


def run(program: str, folder: Path, *args: str) -> str:
    """Run a program in a folder; return what it prints; it must end well, and complain of nothing."""
    (folder / "composition.toml").write_text(STACK)
    (folder / "data").write_bytes(DATA)
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


DATA = os.urandom(3 << 20)


def test_commands_at_the_limit(limits: None, tmp_path: Path) -> None:
    """A command each, one after the other, in a Python of its own: some seconds."""
    digest = run(COMMAND, tmp_path, "put", "data").split()[0]
    run(COMMAND, tmp_path, "put", "data")  # Known by now, which takes another way.
    run(COMMAND, tmp_path, "get", digest, "-o", "again")
    assert (tmp_path / "again").read_bytes() == DATA
    run(COMMAND, tmp_path, "--service", "disk", "verify")
    run(COMMAND, tmp_path, "copy", "--from", "disk", "--to", "far", "--all")
    assert "two" in run(COMMAND, tmp_path, "check", "--connect")


PROGRAM = """
import sys, asyncio, castore
from castore import B3Digest
data = open("data", "rb").read()
digest = B3Digest.of(data)

def use():
    with castore.open() as stores:
        blobs = stores.blobs()
        assert blobs.write(data) == digest
        assert blobs.read(digest) == data
        assert list(blobs.put_files(["data"])) == [digest]
        with blobs.open_write() as writer:
            writer.write(data + b"x")
        assert not blobs.missing([digest])
        from castore.upkeep import copy, verify
        far = stores.blobs("far")
        verdict = verify(stores.blobs("disk"), pool=stores.pool)
        copy(blobs, far, [digest], pool=stores.pool)
        assert far.read(digest) == data

async def use_async():
    async with castore.aio.open() as stores:
        blobs = await stores.blobs()
        assert await blobs.read(digest) == data
"""


@pytest.mark.parametrize("used", [False, True], ids=["first", "again"])
def test_all_of_it_in_a_handler_at_the_end(tmp_path: Path, used: bool) -> None:
    """`atexit`: the threads of the interpreter have ended, and newer Pythons start no other."""
    program = (
        "import castore.aio, atexit\n" + PROGRAM + ("use()\n" if used else "") + "atexit.register(use)\n"
    )
    program += "atexit.register(lambda: asyncio.run(use_async()))\nuse()\n"
    run(program, tmp_path)


def test_all_of_it_at_the_limit(limits: None, tmp_path: Path) -> None:
    run(LIMITED + "import castore.aio\n" + PROGRAM + "use()\nasyncio.run(use_async())\n", tmp_path)


def test_all_of_it_where_threads_run_out_in_the_middle(limits: None, tmp_path: Path) -> None:
    """Some threads are there, and others cannot be had."""
    program = "import castore.aio\n" + PROGRAM + "use()\nstores = castore.open()\n"
    program += "stores.blobs().write(data + b'1')\n" + LIMITED + "use()\n"
    program += "assert stores.blobs().write(data * 3)\nstores.close()\n"
    run(program, tmp_path)
