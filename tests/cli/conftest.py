"""A place to run the command line in, and a plugin of a stranger that misbehaves on demand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from blake3 import blake3
from click.testing import CliRunner, Result

from castore.cli.app import app

STRANGER = '''
import os, pathlib, time
import attrs
from castore import B3Digest, BlobService, ChunkMeta, UnavailableError, hookimpl
from castore.streams.readers import BytesReader, PieceReader
from castore.streams.writers import SpooledWriter


class Stalled(PieceReader):
    """Gives one MiB, says so, and then nothing for a long time."""

    size = 3 << 20

    def piece_at(self, position):
        if position:
            pathlib.Path("stalled").touch()
            time.sleep(60)
        return memoryview(bytes(1 << 20))


class Odd(BlobService):
    def __init__(self, mode, secret):
        self.mode, self.secret = mode, secret
        self.high_latency = mode == "slow"
        if mode == "unbuildable":
            raise ValueError(f"cannot use {secret}")

    def has(self, digest):
        if self.mode == "down":
            raise UnavailableError("odd", f"refused with {self.secret}")
        if self.mode == "hanging":
            time.sleep(600)
        return self.mode == "liar"

    def gauges(self):
        return {"is_full": self.mode == "fine", "to_send": 3, "failed": 0}

    def open_read(self, digest):
        if self.mode == "stalled":
            return Stalled()
        if self.mode == "bug":
            raise ZeroDivisionError("a mistake")
        if self.mode == "interrupted":
            raise KeyboardInterrupt
        if self.mode == "down":
            raise UnavailableError("odd", f"refused with {self.secret}")
        return None

    def chunks(self, digest):
        if self.mode == "many":
            return [ChunkMeta(B3Digest.of(b"%d" % (n % 20)), 10) for n in range(30)]
        return None

    def capability(self, kind):
        if self.mode == "mute":
            raise UnavailableError("odd", "cannot say what it can do")
        return super().capability(kind)

    def open_write(self):
        if self.mode == "slow":
            time.sleep(0.02)
        if self.mode == "down":
            raise UnavailableError("odd", f"refused with {self.secret}")
        return SpooledWriter(lambda digest, file: None)


@attrs.frozen
class OddConfig:
    """Does what its mode says."""

    mode: str = "fine"
    """What to do."""
    secret: str = ""

    def build(self, name, context):
        return Odd(self.mode, self.secret)


@hookimpl
def castore_register(registry):
    registry.register(BlobService, "odd", OddConfig)
'''

ENTRY_POINTS = """\
[castore]
odd = stranger
broken = stranger_that_is_not_there
"""


def _heed_signals() -> None:
    """Undo what `nohup` and a shell in the background do; castore rightly leaves it as it finds it."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@attrs.frozen
class Place:
    """A folder with a composition, and ways to run castore there."""

    folder: Path
    environment: dict[str, str]

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-m", "castore", *arguments]

    def run(self, *arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run castore in a process of its own."""
        environment = self.environment | options.pop("environment", {})
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            check=False,
            timeout=60,
            **options,
        )

    def start(self, *arguments: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
        """Start castore in a process of its own, which a signal ends, however the tests were started."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            preexec_fn=_heed_signals,  # noqa: PLW1509 - nothing in it takes a lock
            **options,
        )

    def compose(self, text: str, name: str = "composition.toml") -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def add_path(self, folder: Path) -> None:
        """Let what is run find modules in a folder, besides where it finds them already."""
        before = self.environment.get("PYTHONPATH")
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))

    def file(self, name: str | bytes, data: bytes = b"Hello World!") -> str:
        """Write a file; return the hex digest of its content."""
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return blake3(data).hexdigest()

    @property
    def names(self) -> set[str]:
        """What is in the folder."""
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty folder with a composition: `root` is a cache of `near` before `far`."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CASTORE_COMPOSITION", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    environment = {
        key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "TERM", "COLUMNS"}
    }
    place = Place(folder, environment)
    place.compose(
        """
        [blobservices.root]
        type = "cache"
        near = "&near"
        far = "&far"
        write = "both"

        [blobservices.near]
        type = "objectstore"
        object_store_url = "file:../stores/near"

        [blobservices.far]
        type = "objectstore"
        object_store_url = "file:../stores/far"
        """
    )
    return place


@pytest.fixture
def stranger(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place with a plugin installed that does as it is told, and one that does not load."""
    site = tmp_path / "site"
    metadata = site / "stranger-1.2.dist-info"
    metadata.mkdir(parents=True)
    (site / "stranger.py").write_text(STRANGER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(site)
    place.add_path(site)
    return place


@pytest.fixture
def odd(stranger: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Place]:
    """Make the composition a service of the stranger's in some mode, with a secret."""

    def make(mode: str) -> Place:
        monkeypatch.setenv("CANARY", "hunter2-and-more")
        stranger.environment["CANARY"] = "hunter2-and-more"
        stranger.compose(f'[blobservices.root]\ntype = "odd"\nmode = "{mode}"\nsecret = "${{CANARY}}"\n')
        return stranger

    return make


@pytest.fixture
def castore(place: Place) -> Callable[..., Result]:
    """Run castore in this process, in the place."""

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, prog_name="castore")

    return run


@pytest.fixture(params=["before", "after"])
def order(request: pytest.FixtureRequest) -> str:
    """Where shared options stand: before or after the command word."""
    return str(request.param)
