"""What is held does not grow with the number of files: 10,000 of them take little more memory than 500.

In a process of its own, whose peak the system tells; 500 files come first, so that all modules are loaded and
all buffers made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import json, pathlib, sys, time
from castore import Composition
from castore.trees.comparing import diff
from castore.trees.exporting import export_tree
from castore.trees.exports import ExportOptions
from castore.trees.importing import import_tree
from castore.trees.known_files import KnownFiles
from castore.trees.reaching import reach
from castore.trees.walking import walk
from castore.upkeep import TreeRoot, verify_trees

# An hour has passed since they were written: what is young is not known.
clock = time.time_ns
time.time_ns = lambda: clock() + 3600 * 10**9
folder = pathlib.Path(sys.argv[1])
tables = {"root": {"type": "sqlite", "path": "NAME.sqlite", "durability": "process"}}
mapping = {
    kind: {name: {**table, "path": f"{kind}.sqlite"} for name, table in tables.items()}
    for kind in ("blobservices", "directoryservices")
}

def take(source):
    with KnownFiles(folder / "known.sqlite") as known:
        return import_tree(source, blobs, directories, known_files=known)

def put(root, out):
    with KnownFiles(folder / "known.sqlite") as known:
        options = ExportOptions(update=out.exists(), known_files=known)
        return export_tree(root, out, blobs, directories, options)

def peak():
    # That of `getrusage` is also that of the program which started this one.
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

peaks = {}
with Composition.from_mapping(mapping, base=folder) as stores:
    blobs, directories = stores.blobs(), stores.directories()
    for name in ("few", "many"):
        source, out = folder / name, folder / f"{name}-out"
        first = take(source)
        peaks["import", name] = peak()
        assert take(source).known == first.files
        peaks["import again", name] = peak()
        (source / "d7/file-3").write_bytes(b"other")
        second = take(source)
        assert [change.letter for change in diff(directories, first.node, second.node)] == ["M"]
        peaks["diff", name] = peak()
        assert sum(1 for _ in walk(directories, first.node)) >= first.files
        assert sum(1 for _ in reach(first.node, directories, seen=set())) >= first.directories
        peaks["mark", name] = peak()
        report = verify_trees([TreeRoot("it", first.node)], directories, blobs)
        assert not report.findings
        peaks["verify", name] = peak()
        assert put(first.node, out).written == first.files
        peaks["export", name] = peak()
        assert put(first.node, out).kept == first.files
        peaks["export again", name] = peak()
few = peaks["export again", "few"]
print(json.dumps({work: size - few for (work, name), size in peaks.items() if name == "many"}))
"""

MOST = 20 << 20
"""Bytes: that is what the contents and names of some thousand files take that are under way."""


def fill(folder: Path, folders: int, each: int) -> None:
    for number in range(folders):
        where = folder / f"d{number}"
        where.mkdir(parents=True)
        for one in range(each):
            (where / f"file-{one}").write_bytes(b"%d %d" % (number, one))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the peak that Linux tells")
@pytest.mark.timeout(300)
def test_what_is_held(tmp_path: Path) -> None:
    fill(tmp_path / "few", 50, 10)
    fill(tmp_path / "many", 50, 200)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    more = json.loads(done.stdout)
    assert {work: size for work, size in more.items() if size > MOST} == {}, more
