"""An export that is killed at any moment leaves nothing half-made under the name of its target.

A run with `update` ends what it has begun. Each death costs two processes; there are 5 in an ordinary run of
each test, and 50 in a long one.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from dying import run

from castore import Composition
from castore.format.nodes import Node
from castore.trees.importing import import_tree

CHILD = """
import pathlib, sys
from castore import B3Digest, Composition
from castore.format.nodes import DirectoryNode
from castore.trees.exporting import export_tree
from castore.trees.exports import ExportOptions
from castore.trees.known_files import KnownFiles

store, target, digest, size, moment = sys.argv[1:]
with Composition.from_toml(store) as stores:
    blobs, directories = stores.blobs(), stores.directories()
    node = DirectoryNode(B3Digest.parse(digest), int(size))
    with KnownFiles(pathlib.Path(store).with_name("known.sqlite")) as known:
        options = ExportOptions(update=True, delete=True, known_files=known)
        die_at(int(moment))
        export_tree(node, target, blobs, directories, options)
    print(passed())
"""


class Export:
    """Exports of trees, each by a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "composition.toml"
        self.config.write_text(
            '[blobservices.root]\ntype = "sqlite"\npath = "store.sqlite"\ndurability = "process"\n'
        )
        self.target = folder / "here" / "out"
        self.target.parent.mkdir()

    def tree(self, seed: int) -> Path:
        """Make a folder of small and larger files, links, and folders in folders."""
        chance = random.Random(seed)
        top = self.folder / f"tree-{seed}"
        for number in range(150):
            where = top / f"d{number % 7}" / f"e{number % 3}"
            where.mkdir(parents=True, exist_ok=True)
            # In both trees under one name, with the same or other bytes.
            same = random.Random(number)
            source = same if number % 2 else chance
            (where / f"f{number}").write_bytes(source.randbytes(source.choice([0, 10, 3_000, 200_000])))
            if number % 10 == 0:
                (where / f"l{number}").symlink_to(f"f{number + seed}")
        # A file in the one, and a folder in the other.
        for number, folder in enumerate((top / "kind-0", top / "kind-1")):
            if (number + seed) % 2:
                folder.mkdir()
                (folder / "within").write_bytes(chance.randbytes(5000))
            else:
                folder.write_bytes(chance.randbytes(5000))
        (top / f"only-{seed}").mkdir()
        (top / f"only-{seed}/x").write_bytes(b"only here")
        return top

    def store(self, folder: Path) -> Node:
        with Composition.from_toml(self.config) as stores:
            node = import_tree(folder, stores.blobs(), stores.directories()).node
            assert node is not None
            return node

    def run(self, node: Node, moment: int = 0) -> int | None:
        """Export; return the number of moments, or None if it was killed."""
        place = (str(self.config), str(self.target))
        lines = run(CHILD, *place, str(node.digest), str(node.size), moment=moment)  # type: ignore[union-attr]
        return None if lines is None else int(lines[0])

    def whole(self, node: Node) -> int:
        """Export all; return the number of moments."""
        moments = self.run(node)
        assert moments is not None
        return moments

    def dies(self, node: Node, moments: int) -> bool:
        """Export until a moment by chance; return whether that was before its end."""
        return self.run(node, random.randint(1, moments)) is None


def contents(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


COUNTS = [5, pytest.param(50, marks=pytest.mark.long)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", COUNTS)
def test_a_new_folder(tmp_path: Path, count: int) -> None:
    """It is there whole or not at all; the next run goes on with what is beside it."""
    export = Export(tmp_path)
    source = export.tree(1)
    node, expected = export.store(source), contents(source)
    moments = export.whole(node)
    assert contents(export.target) == expected
    deaths = 0
    for _ in range(count):
        subprocess.run(["rm", "-rf", str(export.target)], check=True)
        for _ in range(2):  # the second one dies while it goes on with the first one's
            deaths += export.dies(node, moments)
            if export.target.exists():
                assert contents(export.target) == expected
        export.whole(node)
        assert contents(export.target) == expected
        assert [path.name for path in export.target.parent.iterdir()] == ["out"]
    assert deaths


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", COUNTS)
def test_a_folder_that_is_there(tmp_path: Path, count: int) -> None:
    """Each file is the old or the new one; in the end all are right, and nothing is left over."""
    export = Export(tmp_path)
    trees = [export.tree(seed) for seed in (1, 2)]
    nodes, expected = [export.store(tree) for tree in trees], [contents(tree) for tree in trees]
    moments = export.whole(nodes[0])
    deaths = 0
    for number in range(count):
        new = (number + 1) % 2
        deaths += export.dies(nodes[new], moments)
        for path, found in contents(export.target).items():
            if path in expected[0] or path in expected[1]:
                assert found in (expected[0].get(path), expected[1].get(path)), path
            else:
                assert ".castore-" in path  # what the next run removes
        export.whole(nodes[new])
        assert contents(export.target) == expected[new]
        assert [path.name for path in export.target.parent.iterdir()] == ["out"]
    assert deaths
