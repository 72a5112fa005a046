"""Names that are one and the same where a tree is exported to."""

from __future__ import annotations

import os
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore import TargetError
from castore.format.directories import Directory
from castore.format.nodes import FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.exporting import export_tree
from castore.trees.exports import ExportOptions
from castore.trees.folders import OpenTree
from castore.trees.folding import Folding, probe
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService
from tests.format.test_nodes import NAMES

CASE = Folding(ascii_case=True, all_case=True)
NORMAL = Folding(normal=True)
ALL = Folding(ascii_case=True, all_case=True, normal=True)
ASCII = Folding(ascii_case=True)

COMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode()
TAKEN_APART = unicodedata.normalize("NFD", COMPOSED.decode()).encode()
UPPER = COMPOSED.decode().upper().encode()


@pytest.mark.parametrize(
    ("folding", "one", "other", "same"),
    [
        (Folding(), b"a", b"A", False),
        (CASE, b"a", b"A", True),
        (CASE, COMPOSED, UPPER, True),
        (CASE, "stra\N{LATIN SMALL LETTER SHARP S}e".encode(), b"STRASSE", True),
        (CASE, COMPOSED, TAKEN_APART, False),
        (CASE, b"\xff", b"\xfe", False),
        (CASE, b"\xffa", b"\xffA", True),
        (NORMAL, COMPOSED, TAKEN_APART, True),
        (NORMAL, b"a", b"A", False),
        (ALL, UPPER, TAKEN_APART, True),
        (ASCII, b"a", b"A", True),
        (ASCII, COMPOSED, UPPER, False),
    ],
)
def test_names(folding: Folding, one: bytes, other: bytes, same: bool) -> None:
    assert folding.collisions([one, other]) == ([(one, other)] if same else [])


@given(st.lists(NAMES, unique=True, max_size=8), st.sampled_from([CASE, NORMAL, ALL, ASCII]))
def test_names_that_are_told_apart(names: list[bytes], folding: Folding) -> None:
    """Afterwards none is another one, and those that were alone are as they were."""
    names = sorted({*names, *(name.swapcase()[:255] for name in names)} - {b"", b".", b".."})
    renamed = folding.apart(names)
    after = [renamed.get(name, name) for name in names]
    assert folding.collisions(after) == []
    assert all(0 < len(name) <= 255 for name in after)
    assert set(renamed) == {other for _, other in folding.collisions(names)}


def test_a_number_that_is_taken() -> None:
    assert CASE.apart([b"A", b"a", b"a~2"]) == {b"a": b"a~3"}


def test_the_folders_of_this_machine_fold_nothing(tmp_path: Path) -> None:
    """And nothing is left of finding that out."""
    with OpenTree(os.fsencode(tmp_path)) as folder:
        assert probe(folder) == Folding()
    assert os.listdir(tmp_path) == []


class Trees:
    def __init__(self) -> None:
        self.blobs = MemoryBlobService()
        self.directories = MemoryDirectoryService()

    @property
    def root(self) -> Node:
        file = [FileNode(self.blobs.write(data), len(data)) for data in (b"0", b"1", b"2")]
        sub = Directory({b"z": file[0]})
        upper = Directory({b"y": file[1], b"Y": file[2], b"link": SymlinkNode(SymlinkTarget(b"y"))})
        top = Directory({b"README": file[0], b"readme": file[1], b"Sub": upper.node, b"sub": sub.node})
        self.directories.put_closure([sub, upper, top])
        return top.node

    def export(self, target: Path, **options: Any) -> Any:
        return export_tree(self.root, target, self.blobs, self.directories, ExportOptions(**options))


@pytest.fixture
def trees() -> Trees:
    return Trees()


@pytest.fixture
def folded(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that takes `A` for `a`: NTFS, as a Mac's or Windows' disk has it."""
    driver = shutil.which("lowntfs-3g")
    if driver is None or shutil.which("mkntfs") is None or os.geteuid() or not os.path.exists("/dev/fuse"):
        pytest.skip("needs lowntfs-3g, and the right to mount")
    image, where = tmp_path / "image", tmp_path / "mounted"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkntfs", "-q", "-F", "-f", str(image)], check=True, capture_output=True)
    mount = subprocess.run(
        [driver, "-o", "ignore_case", str(image), str(where)], check=False, capture_output=True
    )
    if mount.returncode:
        pytest.skip("cannot mount")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_real_folder_that_folds(folded: Path, trees: Trees) -> None:
    """It is found out; nothing is made, or all of it under names that differ."""
    with OpenTree(os.fsencode(folded)) as folder:
        assert probe(folder) == CASE
    with pytest.raises(TargetError) as caught:
        trees.export(folded / "out")
    assert "'README' and 'readme', 'Sub' and 'sub', 'Sub/Y' and 'Sub/y'" in caught.value.message
    assert "--on-collision=rename" in caught.value.message
    assert os.listdir(folded) == []
    for options in ({}, {"update": True, "delete": True}):
        done = trees.export(folded / "out", rename_collisions=True, **options)
        # This one lists all in small letters.
        assert sorted(os.listdir(folded / "out")) == ["readme", "readme~2", "sub", "sub~2"]
        assert sorted(os.listdir(folded / "out/Sub")) == ["link", "y", "y~2"]
        assert ((folded / "out/Sub/y~2").read_bytes(), (folded / "out/sub~2/z").read_bytes()) == (b"1", b"0")
        assert done.renamed == {b"readme~2": b"readme", b"sub~2": b"sub", b"Sub/y~2": b"Sub/y"}
    assert (done.kept, done.written, done.deleted) == (6, 0, 0)


def test_a_name_that_is_there_in_other_letters(folded: Path, trees: Trees) -> None:
    """It is the same file: neither written anew nor surplus."""
    one = FileNode(trees.blobs.write(b"1"), 1)
    for name in (b"Read", b"rEAD"):
        done = export_tree(
            {name: one},
            folded / "out",
            trees.blobs,
            trees.directories,
            ExportOptions(update=True, delete=True),
        )
        assert os.listdir(folded / "out") == ["read"]
    assert (done.kept, done.written, done.deleted) == (1, 0, 0)


@pytest.mark.parametrize("update", [False, True])
def test_a_folder_that_is_said_to_fold(tmp_path: Path, trees: Trees, update: bool) -> None:
    """The same with a stand-in that says so, for machines that have no such file system."""
    target = tmp_path / "out"
    with pytest.raises(TargetError, match="'README' and 'readme'"):
        trees.export(target, update=update, prober=lambda _: ALL)
    assert os.listdir(tmp_path) == []
    trees.export(target, update=update, prober=lambda _: ALL, rename_collisions=True)
    assert sorted(os.listdir(target)) == ["README", "Sub", "readme~2", "sub~2"]


def test_pairs_that_are_many(tmp_path: Path, trees: Trees) -> None:
    """All are told, up to a hundred, and how many more there are."""
    file = FileNode(trees.blobs.write(b""), 0)
    many: dict[bytes, Node] = {b"%03d%s" % (n, name): file for n in range(102) for name in (b"a", b"A")}
    options = ExportOptions(prober=lambda _: CASE)
    with pytest.raises(TargetError, match="'099A' and '099a', and 2 more"):
        export_tree(many, tmp_path / "many", trees.blobs, trees.directories, options)
