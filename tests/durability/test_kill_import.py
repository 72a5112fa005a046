"""An import that is killed at any moment does no harm: the next one is right, and all of it is there.

Each death costs two processes; there are 2 in an ordinary run of each test, and 50 in a long one.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from dying import run

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

store, source, moment = sys.argv[1:]
with Composition.from_toml(store) as stores:
    blobs, directories = stores.blobs(), stores.directories()
    with KnownFiles(pathlib.Path(store).with_name("known.sqlite")) as known:
        die_at(int(moment))
        node = import_tree(source, blobs, directories, known_files=known).node
    print(node.digest, passed())
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

    def run(self, moment: int = 0) -> tuple[str, int] | None:
        """Import; return the root and the number of moments, or None if it was killed."""
        lines = run(CHILD, str(self.config), str(self.source), moment=moment)
        if lines is None:
            return None
        root, passed = lines[0].split()
        return root, int(passed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("count", COUNTS)
def test_the_next_one_is_right(tmp_path: Path, count: int, store: str) -> None:
    imports = Imports(tmp_path, store)
    moments = 60
    deaths = 0
    for number in range(count):
        deaths += imports.run(imports.chance.randint(1, moments)) is None
        imports.write(number % 60)
        imports.write((number + 50) % 60)
        done = imports.run()
        assert done is not None
        root, moments = done
        expected = import_tree(imports.source, MemoryBlobService(), MemoryDirectoryService()).node
        assert expected is not None
        assert root == str(expected.digest)  # type: ignore[union-attr] - it is a folder
        with Composition.from_toml(imports.config) as stores:
            out = tmp_path / f"out-{number}"
            exported = export_tree(expected, out, stores.blobs(), stores.directories())
            assert (exported.lost, exported.written) == ((), 60)
        subprocess.run(["rm", "-rf", str(out)], check=True)
    assert deaths
