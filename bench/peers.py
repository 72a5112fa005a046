"""What people would use instead, as whole processes: restic, borg and casync, beside the `castore` command.

Each stores a file or a folder in a place of its own, stores it again, and gets it back. All compress with
zstd at level 3, as far as they let themselves be told; restic always encrypts, borg is told not to. What is
stored again is read again: none may trust the time of a file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

HERE = Path(__file__).parent
CHUNK_SIZES = "131072:262144:524288"


@attrs.frozen
class Ran:
    """What a process took: seconds, CPU seconds and the peak of its memory in MiB; and what it printed."""

    seconds: float
    cpu: float
    peak: float
    output: str


def run(command: Sequence[str | Path], *, folder: Path, env: dict[str, str]) -> Ran:
    """Run a command to its end; its memory is that of the largest of its processes."""
    log = folder / "output"
    begun = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=folder, env=os.environ | env, stdout=out, stderr=out
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}: {output[-2000:]}")
    return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


class Peer:
    """One of the programs, with its store in *folder*. *source* is a file, or a folder of files."""

    name = ""
    program = ""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder.absolute()
        self.source = source.absolute()
        self.target = self.folder / "target"
        self.target.mkdir(parents=True)
        self.env: dict[str, str] = {"HOME": str(self.folder)}
        self.prepare()

    @classmethod
    def available(cls) -> bool:
        """Tell whether the program is installed."""
        return shutil.which(cls.program) is not None

    def run(self, *command: str | Path) -> Ran:
        """Run a command of the program."""
        return run([self.program, *command], folder=self.folder, env=self.env)

    def prepare(self) -> None:
        """Make an empty store."""

    def put(self) -> Ran:
        """Store the source, for the first time or again."""
        raise NotImplementedError

    def get(self) -> Ran:
        """Write what was stored under `target`."""
        raise NotImplementedError

    @property
    def stored(self) -> Path:
        """Where it keeps what is stored."""
        return self.folder / "store"

    def stored_bytes(self) -> int:
        """Return how many bytes the files of the store have."""
        return sum(path.stat().st_size for path in self.stored.rglob("*") if path.is_file())


class Castore(Peer):
    """castore's own command line, with its defaults: all is flushed before it is acknowledged."""

    name = "castore"
    program = str(Path(sys.executable).with_name("castore"))
    composition = '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'

    def prepare(self) -> None:
        """Declare a store."""
        self.folder.joinpath("composition.toml").write_text(self.composition)

    def put(self) -> Ran:
        """Store the source; keep the digests."""
        ran = self.run("put", self.source)
        self.folder.joinpath("digests").write_text(ran.output)
        return ran

    def get(self) -> Ran:
        """Get one blob by the command line; many by the few lines of Python of `restore.py`."""
        if self.source.is_file():
            digest = self.folder.joinpath("digests").read_text().split()[0]
            return self.run("get", digest, "-o", self.target / "file")
        restore = [sys.executable, HERE / "restore.py", "digests", self.target]
        return run(restore, folder=self.folder, env=self.env)


class CastoreSqlite(Castore):
    """castore with all blobs in one SQLite file, which is made for small ones."""

    name = "castore, sqlite"
    composition = '[blobservices.root]\ntype = "sqlite"\npath = "./store/blobs.sqlite"\n'


class CastorePacked(Castore):
    """castore with many chunks in each object."""

    name = "castore, packed"
    composition = '[blobservices.root]\ntype = "packed"\nobject_store_url = "file:./store"\n'


class Restic(Peer):
    """restic."""

    name = program = "restic"

    def prepare(self) -> None:
        """Make a repository, of the version that compresses."""
        self.env |= {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(self.stored)}
        self.run("init", "--repository-version", "2")

    def put(self) -> Ran:
        """Back up; `--force` reads all of it."""
        return self.run("backup", "--force", "--compression", "auto", self.source)

    def get(self) -> Ran:
        """Restore the last snapshot."""
        return self.run("restore", "latest", "--target", self.target)


class Borg(Peer):
    """borg."""

    name = program = "borg"
    _archives = 0

    def prepare(self) -> None:
        """Make a repository that does not encrypt."""
        self.env |= {"BORG_REPO": str(self.stored), "BORG_BASE_DIR": str(self.folder)}
        self.env |= {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.run("init", "-e", "none")

    def put(self) -> Ran:
        """Make an archive; without the cache of files all of it is read."""
        options = ["--compression", "zstd,3", "--files-cache", "disabled"]
        self._archives += 1
        return self.run("create", *options, f"::{self._archives}", self.source)

    def get(self) -> Ran:
        """Extract the first archive."""
        return run(["borg", "extract", "::1"], folder=self.target, env=self.env)


class Casync(Peer):
    """casync, with chunks of castore's sizes."""

    name = program = "casync"

    @property
    def _index(self) -> str:
        return "index.caibx" if self.source.is_file() else "index.caidx"

    def put(self) -> Ran:
        """Make an index and its chunks."""
        self.stored.mkdir(exist_ok=True)
        options = ["--compression=zstd", f"--chunk-size={CHUNK_SIZES}", f"--store={self.stored}"]
        return self.run("make", *options, self._index, self.source)

    def get(self) -> Ran:
        """Extract the index."""
        target = self.target / ("file" if self.source.is_file() else "folder")
        return self.run("extract", f"--store={self.stored}", "--seed-output=no", self._index, target)


PEERS: tuple[type[Peer], ...] = (Castore, CastorePacked, CastoreSqlite, Restic, Borg, Casync)
