"""Trees of 1,000 to 1,000,000 files, a thousand in each folder: the CPU time of each work, and its peak.

`python bench/many_files.py` writes `bench/plots/many-files.svg`, the numbers beside it as JSON, and a table.
Each work is a process of the `castore` command from its start to its end, on a store of SQLite: the folder is
imported, and again when ten files were written anew; the two roots are compared, the first one is verified,
and `gc --dry-run` marks what both have. It needs `pip install 'castore[bench]'`, and for the largest folder
9 GB of a disk; each file has a few bytes of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from peers import Ran, run
from plots import HERE, Series, draw
from trees import CastoreTreeInSqlite, statuses

IN_A_FOLDER = 1000
CHANGED = 10


def write(source: Path, count: int) -> None:
    """Write *count* files, whose times are those of a year ago."""
    for number in range(count):
        folder = source / f"{number // IN_A_FOLDER:03}"
        if not number % IN_A_FOLDER:
            folder.mkdir(parents=True)
        folder.joinpath(f"{number % IN_A_FOLDER:03}.txt").write_bytes(b"file %d" % number)


def change(source: Path, count: int) -> None:
    """Write ten files anew, in as many folders as there are of these."""
    for number in range(0, count, max(1, count // CHANGED)):
        path = source / f"{number // IN_A_FOLDER:03}" / f"{number % IN_A_FOLDER:03}.txt"
        path.write_bytes(b"changed %d" % number)


def works(scratch: Path, count: int) -> Iterator[tuple[str, float, float]]:
    """Yield each work with its CPU seconds and its peak in MiB; the bare walk has no peak."""
    source = scratch / "source"
    write(source, count)
    peer = CastoreTreeInSqlite(scratch / "peer", source)

    def done(name: str, ran: Ran) -> tuple[str, float, float]:
        return name, ran.cpu, ran.peak

    yield "walk and lstat", statuses(source), 0
    yield done("import", peer.run("import", "--ref", "first", source))
    change(source, count)
    yield done("import again, 10 changed", peer.run("import", "--ref", "second", source))
    # That they differ is no fault, and the code of it 1.
    command = [peer.program, "diff", "first", "second"]
    ran = run(["sh", "-c", '"$@"; test $? -eq 1', "sh", *command], folder=peer.folder, env=peer.env)
    assert len(ran.output.splitlines()) == CHANGED, ran.output[:500]
    yield done("diff", ran)
    yield done("verify", peer.run("verify", "first"))
    yield done("gc, mark", peer.run("gc", "--dry-run"))


def main() -> None:
    """Measure, draw, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=10**6, help="files of the largest folder (default 10^6)")
    parser.add_argument("--scratch", type=Path, help="where to work (default: where temporary files go)")
    parser.add_argument("--plots", type=Path, default=HERE / "plots", help="where the drawing goes")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    series: Series = {}
    count = 1000
    while count <= given.most:
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=given.scratch) as name:
            for work, seconds, peak in works(Path(name), count):
                series.setdefault(work, []).append((count, seconds))
                shown = f"{peak:>8.0f} MiB" if peak else ""
                sys.stdout.write(f"{count:>9,}  {work:26}{seconds:>9.2f} s{shown}\n")
                sys.stdout.flush()
        count *= 10
    given.plots.mkdir(exist_ok=True)
    draw(
        series,
        title="Trees in sqlite, a thousand files in a folder, durability = process",
        x="files",
        y="CPU seconds of the process",
        place=given.plots / "many-files",
    )


if __name__ == "__main__":
    main()
