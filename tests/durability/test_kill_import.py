"""An import that is killed at any moment does no harm: the next one is right, and all of it is there.

Each death costs two processes; there are 2 in an ordinary run of each test, and 50 in a long one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from castore import Composition
from castore.trees.exporting import export_tree
from castore.trees.importing import import_tree
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService

CHILD = """
import pathlib, sys
from castore import Composition
from castore.trees.importing import import_tree
from castore.trees.known_files import KnownFiles

store, source = sys.argv[1:]
with Composition.from_toml(store) as stores:
    blobs, directories = stores.blobs(), stores.directories()
    with KnownFiles(pathlib.Path(store).with_name("known.sqlite")) as known:
        print("begins", flush=True)
        node = import_tree(source, blobs, directories, known_files=known).node
    print(node.digest, flush=True)
"""

STORES = {
    "objectstore": '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
    'durability = "process"\n',
    "sqlite": '[blobservices.root]\ntype = "sqlite"\npath = "store.sqlite"\n'
    '[directoryservices.root]\ntype = "sqlite"\npath = "directories.sqlite"\n',
}
OLD = 1_600_000_000
COUNTS = [2, pytest.param(50, marks=pytest.mark.long)]


class Imports:
    """A folder that changes, and imports of it, each by a process of its own."""

    def __init__(self, folder: Path, store: str) -> None:
        self.config = folder / "composition.toml"
        self.config.write_text(STORES[store])
        self.source = folder / "source"
        self.chance = random.Random(7)
        for number in range(60):
            self.write(number)

    def write(self, number: int) -> None:
        where = self.source / f"d{number % 7}" / f"e{number % 3}"
        where.mkdir(parents=True, exist_ok=True)
        path = where / f"f{number}"
        path.write_bytes(self.chance.randbytes(self.chance.choice([0, 10, 3_000, 300_000])))
        # Most are old enough to be known the next time.
        if number % 5:
            os.utime(path, (OLD + number, OLD + self.chance.randrange(1 << 20)))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILD, str(self.config), str(self.source)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        return process

    def kill(self, after: float) -> bool:
        """Kill an import after so many seconds; return whether it was still at it."""
        with self.start() as process:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            return not process.stdout.read()

    def run(self) -> tuple[str, float]:
        with self.start() as process:
            began = time.monotonic()
            assert process.stdout is not None
            return process.stdout.readline().decode().strip(), time.monotonic() - began


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("count", COUNTS)
def test_the_next_one_is_right(tmp_path: Path, count: int, store: str) -> None:
    imports = Imports(tmp_path, store)
    seconds = 0.3
    deaths = 0
    for number in range(count):
        deaths += imports.kill(imports.chance.uniform(0, seconds))
        imports.write(number % 60)
        imports.write((number + 50) % 60)
        root, seconds = imports.run()
        expected = import_tree(imports.source, MemoryBlobService(), MemoryDirectoryService()).node
        assert expected is not None
        assert root == str(expected.digest)  # type: ignore[union-attr] - it is a folder
        with Composition.from_toml(imports.config) as stores:
            out = tmp_path / f"out-{number}"
            done = export_tree(expected, out, stores.blobs(), stores.directories())
            assert (done.lost, done.written) == ((), 60)
        subprocess.run(["rm", "-rf", str(out)], check=True)
    assert deaths
