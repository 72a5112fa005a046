"""How fast a mount is, as ratios to a plain pass-through by mfusepy of the same files from a folder.

The pass-through is the smallest that is right: it asks the folder for everything, checks nothing, and lets
the kernel keep all. Each figure is the median of `--runs` ratios that were taken side by side, from
fresh mounts: more than 1 is faster than the pass-through. Beside it stands the same of the processor's time,
of the mount and of who reads from it: that says more on a machine that is busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from corpora import write_text

import castore
from castore.access.mount.fuse import load
from castore.access.mount.points import mounted_at, unmount
from castore.trees import import_tree

FOREVER = 86400


class Passing:
    """What mfusepy calls: each call is made in the folder."""

    use_ns = True

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def init_with_config(self, _: Any, config: Any) -> None:
        config.kernel_cache = 1
        config.entry_timeout = config.attr_timeout = config.negative_timeout = FOREVER

    def getattr(self, path: str, _: Any = None) -> dict[str, int]:
        status = os.lstat(self.folder + path)
        names = ("mode", "ino", "nlink", "size", "uid", "gid", "blocks")
        found = {f"st_{name}": getattr(status, f"st_{name}") for name in names}
        return found | {
            f"st_{name}": getattr(status, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")
        }

    def readdir(self, path: str, _: Any) -> list[str]:
        return [".", "..", *os.listdir(self.folder + path)]  # noqa: PTH208 - as fast as it goes

    def open(self, path: str, flags: int) -> int:
        return os.open(self.folder + path, flags)

    def read(self, _: str, size: int, offset: int, file: int) -> bytes:
        return os.pread(file, size, offset)

    def release(self, _: str, file: int) -> int:
        os.close(file)
        return 0


def pass_through(folder: str, target: str) -> None:
    load().FUSE(Passing(folder), target, foreground=True, ro=True, fsname="passing")


# -- what is measured --


def read_whole(target: Path) -> None:
    with (target / "large").open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def read_twice(target: Path) -> None:
    read_whole(target)
    read_whole(target)


def read_small(target: Path) -> None:
    for folder in os.scandir(target / "small"):
        for entry in os.scandir(folder.path):
            with Path(entry.path).open("rb", buffering=0) as file:
                file.read()


def find(target: Path) -> None:
    subprocess.run(["find", target / "many", "-size", "+1G"], check=True)


def read_here_and_there(target: Path) -> None:
    random = Random(3)
    with (target / "other").open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(500):
            os.pread(file.fileno(), 4096, random.randrange(size))


WORK: dict[str, Callable[[Path], None]] = {
    "read here and there": read_here_and_there,
    "read a large file": read_whole,
    "read it again, twice": read_twice,
    "read small files": read_small,
    "read them again": read_small,
    "find": find,
    "find again": find,
}


def fill(folder: Path, size: int, small: int, many: int) -> None:
    random = Random(5)
    folder.mkdir()
    write_text(folder / "large", size)
    write_text(folder / "other", size // 4, seed=2)
    for number in range(small):
        path = folder / f"small/{number % 20}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(random.randrange(100, 8192)))
    for number in range(many):
        path = folder / f"many/{number % 200}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % (number % 500))


@contextmanager
def mounted(command: list[str], target: Path) -> Iterator[tuple[Path, int]]:
    target.mkdir(exist_ok=True)
    process = subprocess.Popen([sys.executable, *command, str(target)], stderr=subprocess.DEVNULL)
    try:
        while mounted_at(target) is None:
            assert process.poll() is None, command
            time.sleep(0.01)
        target.stat()
        yield target, process.pid
    finally:
        unmount(str(target), lazy=True)
        process.wait()


def used(process: int) -> float:
    """The seconds of processors that a mount has used, and this program with those that it started."""
    words = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    ticks = int(words[11]) + int(words[12])
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return ticks / os.sysconf("SC_CLK_TCK") + own


Figures = dict[str, dict[str, tuple[float, float]]]


def measure(commands: dict[str, list[str]], scratch: Path) -> Figures:
    """Return the seconds that each kind of work takes in each mount, by the clock and of processors."""
    found: Figures = {}
    with ExitStack() as stack:
        targets = {
            name: stack.enter_context(mounted(command, scratch / name)) for name, command in commands.items()
        }
        for words, work in WORK.items():
            found[words] = {}
            for name, (target, process) in targets.items():
                before, begin = used(process), time.perf_counter()
                work(target)
                found[words][name] = time.perf_counter() - begin, used(process) - before
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="of the large file, in MiB")
    parser.add_argument("--small", type=int, default=2000, help="how many small files")
    parser.add_argument("--many", type=int, default=20_000, help="how many entries to find")
    parser.add_argument("--pass", dest="passed", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.passed:
        pass_through(*options.passed)
        return
    with tempfile.TemporaryDirectory(prefix="castore-bench-") as name:
        scratch = Path(name)
        fill(scratch / "source", options.size << 20, options.small, options.many)
        composition = scratch / "composition.toml"
        composition.write_text(
            '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n', "utf-8"
        )
        with castore.open(composition) as stores:
            root = import_tree(scratch / "source", stores.blobs(), stores.directories()).node.digest
        commands = {
            "passing": [__file__, "--pass", str(scratch / "source")],
            "castore": ["-m", "castore", "--composition", str(composition), "mount", str(root)],
        }
        runs = [measure(commands, scratch) for _ in range(options.runs)]
    print(f"{'':<23}speed{'':>16}processor")
    for words in WORK:
        ratios = sorted(run[words]["passing"][0] / run[words]["castore"][0] for run in runs)
        passing, own = (sum(run[words][name][1] for run in runs) for name in ("passing", "castore"))
        seconds = statistics.median(run[words]["castore"][0] for run in runs)
        print(
            f"{words:<22}{statistics.median(ratios):6.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}"
            f"{passing / max(own, 0.01):9.2f}{seconds * 1000:9.0f} ms"
        )


if __name__ == "__main__":
    main()
