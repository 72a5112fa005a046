"""Trees: a folder goes in, again, comes out, and again, beside restic, borg and a bare loop, in one run.

Each is a process from its start to its end, and what counts is its CPU time: `import` and `export` of
castore, `backup` and `restore` of restic, `create` and `extract` of borg. All trust what the system says of
a file that has not changed. The *bare loop* walks and asks for the status of each file; for the first import
it reads and hashes them, too, and for the first export it writes them. It has no process to start. The *loop
of objects* is that of `small_blobs.py`, with the same keys: it stores each file as castore does, one by one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from blake3 import blake3
from corpora import write_tree
from peers import Borg, Castore, Peer, Ran, Restic
from small_blobs import BareLoop

PAIRS: Final = (
    ("import", "castore, objectstore", "loop of objects"),
    ("import", "castore, sqlite", "restic"),
    ("import again", "castore, objectstore", "bare loop"),
    ("import again", "castore, sqlite", "bare loop"),
    ("import again", "castore, objectstore", "restic"),
    ("import again", "castore, sqlite", "restic"),
    ("export", "castore, objectstore", "restic"),
    ("export", "castore, sqlite", "restic"),
    ("export again", "castore, objectstore", "bare loop"),
    ("export again", "castore, sqlite", "bare loop"),
)
"""What is compared with what."""

WORKS: Final = ("import", "import again", "export", "export again")


class CastoreTree(Castore):
    """castore, with a file for each blob; what is stored survives the process."""

    name = "castore, objectstore"
    composition = Castore.composition + 'durability = "process"\n'

    def prepare(self) -> None:
        """Declare a store, and keep what is known of files beside it."""
        super().prepare()
        self.env["XDG_CACHE_HOME"] = str(self.folder / "cache")

    def put(self) -> Ran:
        """Import the source."""
        ran = self.run("import", self.source)
        self.folder.joinpath("root").write_text(ran.output.splitlines()[-1][:64])
        return ran

    def get(self) -> Ran:
        """Export it; again if it is there."""
        root = self.folder.joinpath("root").read_text()
        return self.run("export", "--update", root, self.target / "out")


class CastoreTreeInSqlite(CastoreTree):
    """castore, with all in SQLite."""

    name = "castore, sqlite"
    composition = (
        '[blobservices.root]\ntype = "sqlite"\npath = "./store/blobs.sqlite"\ndurability = "process"\n'
        '[directoryservices.root]\ntype = "sqlite"\npath = "./store/directories.sqlite"\n'
    )


class ResticTree(Restic):
    """restic, which knows files by their times."""

    def put(self) -> Ran:
        """Back up."""
        return self.run("backup", "--compression", "auto", self.source)


class BorgTree(Borg):
    """borg, which knows files by their times; it has no way to go on with what is extracted."""

    def put(self) -> Ran:
        """Make an archive."""
        self._archives += 1
        return self.run("create", "--compression", "zstd,3", f"::{self._archives}", self.source)


PEERS: Final[tuple[type[Peer], ...]] = (CastoreTree, CastoreTreeInSqlite, ResticTree, BorgTree)


def statuses(folder: Path, each: Callable[[str], object] = lambda _: None) -> float:
    """Walk a folder, ask for the status of each entry, and call *each* for files; return the CPU seconds."""
    begun = time.process_time()
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    each(entry.path)
    return time.process_time() - begun


def read(path: str) -> None:
    """Read and hash a file."""
    blake3(Path(path).read_bytes()).digest()


def copy(source: Path, target: Path) -> float:
    """Write a folder anew; return the CPU seconds."""
    begun = time.process_time()
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    return time.process_time() - begun


def bare(source: Path, scratch: Path) -> dict[str, float]:
    """Return the CPU seconds of the bare loop, by work."""
    found = {"import": statuses(source, read), "import again": statuses(source)}
    found["export"] = copy(source, scratch / "copy")
    found["export again"] = statuses(scratch / "copy")
    shutil.rmtree(scratch / "copy")
    return found


def objects(source: Path, scratch: Path) -> dict[str, float]:
    """Return the CPU seconds of storing all files as objects."""
    paths: list[str] = []
    statuses(source, paths.append)
    loop = BareLoop(scratch / "objects", "process", same_keys=True)
    begun = time.process_time()
    # What this process takes would count as the peak of those that it starts.
    for start in range(0, len(paths), 1000):
        loop.put([Path(path) for path in paths[start : start + 1000]])
    took = time.process_time() - begun
    shutil.rmtree(scratch / "objects")
    return {"import": took}


def measure(peer: type[Peer], source: Path, scratch: Path) -> dict[str, Ran]:
    """Return what each work takes."""
    folder = scratch / "peer"
    used = peer(folder, source)
    try:
        found = {"import": used.put(), "import again": used.put(), "export": used.get()}
        if used.name != "borg":
            found["export again"] = used.get()
        return found
    finally:
        shutil.rmtree(folder)


def table(rows: Mapping[str, Sequence[Mapping[str, float]]], peaks: Mapping[str, float]) -> str:
    """Return CPU seconds, and how many times those of the bare loop of the same round they are: medians."""
    loops = rows["bare loop"]
    lines = [f"{'':22}" + "".join(f"{work:>22}" for work in WORKS) + f"{'peak':>10}"]
    for name, rounds in rows.items():
        cells = ""
        for work in WORKS:
            if work not in rounds[0]:
                cells += f"{'-':>22}"
                continue
            seconds = statistics.median(each[work] for each in rounds)
            times = statistics.median(
                each[work] / loop[work] for each, loop in zip(rounds, loops, strict=True)
            )
            cells += f"{seconds:>14.2f} s {times:>5.1f}"
        peak = f"{peaks[name]:>6.0f} MiB" if name in peaks else ""
        lines.append(f"{name:22}{cells}{peak}")
    return "\n".join(lines)


def compared(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return what is compared, as medians of the ratios of each round."""
    lines = []
    for work, one, other in PAIRS:
        if one in rows and other in rows:
            ratios = [a[work] / b[work] for a, b in zip(rows[one], rows[other], strict=True)]
            lines.append(f"{work:14}{one:22}{statistics.median(ratios):>6.2f} x {other}")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args()
    # What is installed has its compiled code beside it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows: dict[str, list[dict[str, float]]] = {}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=given.scratch) as name:
        scratch = Path(name)
        source = scratch / "source"
        write_tree(source, given.files)
        for _ in range(given.runs):
            rows.setdefault("bare loop", []).append(bare(source, scratch))
            rows.setdefault("loop of objects", []).append(objects(source, scratch))
            for peer in PEERS:
                if peer.available():
                    found = measure(peer, source, scratch)
                    rows.setdefault(peer.name, []).append({work: ran.cpu for work, ran in found.items()})
                    peak = max(ran.peak for ran in found.values())
                    peaks[peer.name] = max(peaks.get(peer.name, 0), peak)
    sys.stdout.write(f"{table(rows, peaks)}\n\n{compared(rows)}\n")


if __name__ == "__main__":
    main()
