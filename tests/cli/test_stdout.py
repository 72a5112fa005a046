"""All of the output arrives, or there is an error: each command, and each kind of stdout."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from blake3 import blake3
from click.testing import CliRunner

from castore.cli.app import app

LARGE = random.Random(1).randbytes(300_000)
FILES = {f"many/{number:03}": b"%d" % number for number in range(100)}
LARGE_DIGEST = blake3(LARGE).hexdigest()
DIGESTS = [blake3(data).hexdigest() for data in FILES.values()]

COMPOSITION = """\
[blobservices.root]
type = "objectstore"
object_store_url = "file:./stores/root"
[blobservices.other]
type = "objectstore"
object_store_url = "file:./stores/other"
"""

COMMANDS: dict[str, list[str]] = {
    "put": ["put", "many"],
    "put --json": ["put", "--json", "many"],
    "get": ["get", LARGE_DIGEST],
    "has": ["has", *DIGESTS],
    "has --json": ["has", "--json", *DIGESTS],
    "stat": ["stat", LARGE_DIGEST],
    "list": ["list"],
    "list --json": ["list", "--json"],
    "locate": ["locate", LARGE_DIGEST],
    "explain": ["explain", LARGE_DIGEST],
    "copy": ["copy", "--from", "root", "--to", "other", "--all"],
    "verify": ["verify"],
    "gc": ["gc", "-q", "--dry-run", LARGE_DIGEST],
    "check": ["check"],
    "graph": ["graph", "--format", "svg"],
    "plugins": ["plugins"],
    "schema": ["schema"],
    "help": ["--help"],
    "version": ["--version"],
    "completion": [],
}
COMPLETION = {"_CASTORE_COMPLETE": "bash_source"}

CANNOT = "cannot write the output"
KINDS = ["slow", "full", "closed", "non-blocking", "unbuffered"]
CELLS = [(command, kind) for command in COMMANDS for kind in KINDS]


def in_ci(number: int) -> bool:
    """Two kinds of stdout for each command, others for the next one: each kind with each sort of command."""
    command, kind = divmod(number, len(KINDS))
    return (command + 2 * kind) % len(KINDS) in {0, 1}


@attrs.frozen
class Shop:
    """A folder with stores that have something in them."""

    folder: Path
    environment: dict[str, str]

    def start(self, name: str, **options: Any) -> subprocess.Popen[bytes]:
        environment = self.environment | options.pop("environment", {})
        if name == "completion":
            environment |= COMPLETION
        return subprocess.Popen(
            [sys.executable, "-m", "castore", *COMMANDS[name]],
            cwd=self.folder,
            env=environment,
            stderr=subprocess.PIPE,
            **options,
        )

    def output(self, name: str) -> bytes:
        """What the command says to somebody who takes it all at once."""
        with contextlib.chdir(self.folder):
            result = CliRunner(env=COMPLETION if name == "completion" else {}).invoke(
                app, COMMANDS[name], prog_name="castore"
            )
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout_bytes


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "composition.toml").write_text(COMPOSITION)
    (folder / "many").mkdir()
    (folder / "large").write_bytes(LARGE)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    environment = {key: value for key, value in os.environ.items() if key not in {"TERM", "COLUMNS"}}
    environment.pop("CASTORE_COMPOSITION", None)
    environment["COLUMNS"] = "82"  # Help is 80 wide then, as in this process.
    for arguments in (["put", "many", "large"], COMMANDS["copy"]):
        run = [sys.executable, "-m", "castore", *arguments]
        subprocess.run(run, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return Shop(folder, environment)


@pytest.fixture(scope="module")
def expected(shop: Shop) -> Callable[[str], bytes]:
    """The output of each command, asked for once."""
    return cache(shop.output)


def message(errors: bytes) -> str:
    """The one message, which with `--json` is an object."""
    text = errors.decode().removesuffix("\n")
    return json.loads(text)["error"]["message"] if text.startswith("{") else text.removeprefix("castore: ")


def timeless(output: bytes) -> bytes:
    return re.sub(rb"in \d+\.\d s", b"in ? s", output)


@contextlib.contextmanager
def narrow_pipe(*, blocking: bool = True) -> Iterator[tuple[int, int]]:
    """A pipe that holds one page, so that nearly all that is said has to wait for a reader."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, blocking)
    try:
        yield reading, writing
    finally:
        for end in (reading, writing):
            with contextlib.suppress(OSError):
                os.close(end)


def read_slowly(shop: Shop, name: str, *, blocking: bool = True, **options: Any) -> tuple[int, bytes, bytes]:
    """Return the exit code and all that comes, while the process is stopped and continued at each piece."""
    with narrow_pipe(blocking=blocking) as (reading, writing):
        process = shop.start(name, stdout=writing, **options)
        os.close(writing)
        found = bytearray()
        for number in range(1 << 20):
            piece = os.read(reading, 1000 if number < 5 else 1 << 16)
            if not piece:
                break
            found += piece
            if number < 10:
                process.send_signal(signal.SIGSTOP)
                process.send_signal(signal.SIGCONT)
        errors = process.communicate(timeout=60)[1]
        return process.returncode, bytes(found), errors


def check_cell(shop: Shop, expected: Callable[[str], bytes], name: str, kind: str) -> None:
    if kind == "full":
        with Path("/dev/full").open("wb") as full:
            process = shop.start(name, stdout=full)
            errors = process.communicate(timeout=60)[1]
        assert (process.returncode, message(errors)) == (1, f"{CANNOT}: No space left on device")
    elif kind == "closed":
        process = shop.start(name, preexec_fn=lambda: os.close(1))
        errors = process.communicate(timeout=60)[1]
        assert (process.returncode, message(errors)) == (1, f"{CANNOT}: stdout is closed")
    else:
        code, output, errors = read_slowly(
            shop,
            name,
            blocking=kind != "non-blocking",
            environment={"PYTHONUNBUFFERED": "1"} if kind == "unbuffered" else {},
        )
        assert (code, errors) == (0, b"")
        assert timeless(output) == timeless(expected(name))


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        pytest.param(*cell, id=" into ".join(cell), marks=[] if in_ci(number) else [pytest.mark.long])
        for number, cell in enumerate(CELLS)
    ],
)
def test_all_arrives_or_there_is_an_error(
    shop: Shop, expected: Callable[[str], bytes], command: str, kind: str
) -> None:
    """A cell takes the start of a process or two; all of them together some 10 s."""
    check_cell(shop, expected, command, kind)


def test_at_least_forty_cells_are_tried_each_time() -> None:
    """Each command and each kind of stdout are among them."""
    tried = [cell for number, cell in enumerate(CELLS) if in_ci(number)]
    assert len(tried) >= 40
    assert {command for command, _ in tried} == set(COMMANDS)
    for kind in KINDS:
        assert sum(cell[1] == kind for cell in tried) >= 8


@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [("get", "1"), ("get", ""), ("list --json", "1"), ("put --json", ""), ("schema", "1")],
)
def test_a_limit_of_the_size_of_files_is_an_error(shop: Shop, command: str, unbuffered: str) -> None:
    """The first write is taken in part, as `ulimit -f` has it; only the next one fails."""
    limit = 5000
    with (shop.folder / "cut").open("wb") as file:
        process = shop.start(
            command,
            stdout=file,
            environment={"PYTHONUNBUFFERED": unbuffered},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        errors = process.communicate(timeout=60)[1]

    assert (process.returncode, message(errors)) == (1, f"{CANNOT}: File too large")
    assert (shop.folder / "cut").stat().st_size == limit


@pytest.mark.parametrize(
    ("command", "blocking"), [("get", True), ("schema", False), ("list", True), ("help", False)]
)
def test_a_reader_who_is_gone_ends_it_quietly(shop: Shop, command: str, blocking: bool) -> None:
    """With the code of SIGPIPE, also if stdout is in non-blocking mode and has to be waited for."""
    with narrow_pipe(blocking=blocking) as (reading, writing):
        if command == "help":
            os.close(reading)
        process = shop.start(command, stdout=writing)
        os.close(writing)
        if command != "help":
            assert os.read(reading, 1)
            os.close(reading)
        assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 141


def test_what_arrives_only_when_it_is_closed_is_asked_for(shop: Shop) -> None:
    """As NFS says that there is no space: by the error of `close`, which strace makes up here."""
    path = shop.folder / "far-away"
    strace = ["strace", "-f", "-o", "/dev/null", "-P", str(path), "-e", "inject=close:error=ENOSPC"]
    with path.open("wb") as file:
        run = subprocess.run(
            [*strace, sys.executable, "-m", "castore", "--version"],
            stdout=file,
            stderr=subprocess.PIPE,
            env=shop.environment,
            check=False,
        )
    if b"PTRACE" in run.stderr or b"ptrace" in run.stderr:
        pytest.skip("processes cannot be traced here")
    assert run.returncode == 1
    assert run.stderr == b"castore: cannot write the output: No space left on device\n"


def test_what_a_plugin_prints_is_not_in_the_output(tmp_path: Path) -> None:
    """Stdout is castore's: a line more would make a wrong blob of it."""
    (tmp_path / "chatty.py").write_text(
        "from castore.cli import main\nprint('loaded', flush=True)\n"
        "import castore.cli.settings as settings\n"
        "before = settings.Settings.opened\n"
        "def opened(self):\n    print('a library says hello')\n    return before(self)\n"
        "settings.Settings.opened = opened\n"
        "main()\n"
    )
    (tmp_path / "c.toml").write_text('[blobservices.root]\ntype = "memory"\n')
    run = subprocess.run(
        [sys.executable, "chatty.py", "--composition", "c.toml", "has", "0" * 64],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )

    assert run.stdout == b"loaded\n" + b"0" * 64 + b"  absent\n"
    assert run.stderr == b"a library says hello\n"


def test_nothing_that_is_opened_takes_the_place_of_a_closed_stdout(shop: Shop) -> None:
    """Else a store's file would be number 1, and what some library prints would be written into it."""
    program = (
        "import os, sys\nos.closerange(0, 3)\n"
        "os.execv(sys.executable, [sys.executable, '-c', '''\n"
        "import os, sys\nfrom castore.cli.descriptors import occupy_closed\noccupy_closed()\n"
        "found = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "os.write(found, b\"%d\" % found)\n''', sys.argv[1]])\n"
    )
    subprocess.run([sys.executable, "-c", program, shop.folder / "number"], check=True, env=shop.environment)

    assert int((shop.folder / "number").read_text()) > 2


def test_a_pipe_without_data_is_waited_for(shop: Shop) -> None:
    """`put -` of a pipe in non-blocking mode, as some programs hand it down."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "castore", "put", "-"],
        cwd=shop.folder,
        env=shop.environment,
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(reading)

    def write() -> None:
        with open(writing, "wb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor
            pipe.writelines(LARGE[start : start + 50_000] for start in range(0, len(LARGE), 50_000))

    # Not before it has asked once.
    timer = threading.Timer(0.5, write)
    timer.start()
    output, errors = process.communicate(timeout=60)
    timer.join()

    assert (process.returncode, errors) == (0, b"")
    assert output == f"{LARGE_DIGEST}  -\n".encode()
