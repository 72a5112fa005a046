"""fsspec forgets its file systems in a child of a fork; castore's compositions stay those of the parent."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from castore.access.fsspec import CastoreFileSystem

PROGRAM = """\
import gc, os, signal, subprocess, sys
import castore
from castore.access.fsspec import CastoreFileSystem

parent, close = os.getpid(), castore.Composition.close


def noting(stores):
    if os.getpid() != parent:
        os.write(2, b"closed in a child")
    close(stores)


castore.Composition.close = noting
signal.alarm(30)
table = {"blobservices": {"root": {"type": "sqlite", "path": sys.argv[1]}}}
fs = CastoreFileSystem(composition=table)
digest = fs.blobs.write(b"data")
del fs  # fsspec alone has it now.
gc.collect()
subprocess.run(["true"], preexec_fn=lambda: None, check=True, timeout=20)
child = os.fork()
if not child:
    signal.alarm(30)
    assert CastoreFileSystem(composition=table).blobs.read(digest) == b"data"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
fs = CastoreFileSystem(composition=table)
assert fs.blobs.read(digest) == b"data"
assert fs.blobs.write(b"more")
"""


def test_a_child_that_forgets_file_systems_closes_nothing_of_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "blobs.sqlite")]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr.decode()) == (0, "")


def test_the_last_who_lets_go_closes_the_composition(tmp_path: Path) -> None:
    """In the process that has opened it."""
    table = {"blobservices": {"root": {"type": "sqlite", "path": str(tmp_path / "blobs.sqlite")}}}
    fs = CastoreFileSystem(composition=table, skip_instance_cache=True)
    stores = fs.stores
    fs.blobs.write(b"data")
    del fs
    gc.collect()
    assert stores._closed
