"""Trees are copied whole or not at all, and what is there is not sent again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, Composition
from castore.contract.directories import Complete
from castore.directories.in_blobs import BlobsDirectoryService
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node
from castore.threads.pool import Pool
from castore.trees.importing import import_tree
from castore.trees.walking import walk
from castore.upkeep import TreeCopier, TreeStores

KINDS: dict[str, dict[str, Any] | None] = {
    "blobs": None,
    "sqlite": {"type": "sqlite", "path": "NAME.sqlite"},
    "closures": {"type": "objectstore", "object_store_url": "file:./NAME", "durability": "process"},
}


@pytest.fixture(params=[(one, other) for one in KINDS for other in KINDS], ids="-to-".join)
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[TreeStores, TreeStores]]:
    """Two places for trees, of all kinds."""
    tables: dict[str, Any] = {name: {"type": "memory"} for name in ("root", "other")}
    directories = {
        name: {key: value.replace("NAME", name) for key, value in kind.items()}
        for name, kind in zip(("root", "other"), map(KINDS.__getitem__, request.param), strict=True)
        if kind is not None
    }
    mapping: dict[str, Any] = {"blobservices": tables}
    if directories:
        mapping["directoryservices"] = {"root": {"type": "memory"}} | directories
    with Composition.from_mapping(mapping, base=tmp_path) as stores:
        yield tuple(  # type: ignore[misc]
            TreeStores(
                stores.blobs(name),
                stores.directories(name)
                if name in directories
                else BlobsDirectoryService(stores.blobs(name)),
            )
            for name in ("root", "other")
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        where = tmp_path / "source" / f"d{number % 3}" / f"e{number % 2}"
        where.mkdir(parents=True, exist_ok=True)
        (where / f"f{number}").write_bytes(b"%d" % number * 1000)
    (tmp_path / "source/same").write_bytes(b"1" * 1000)
    (tmp_path / "source/link").symlink_to("same")
    return tmp_path / "source"


def store(folder: Path, where: TreeStores) -> DirectoryNode:
    node = import_tree(folder, where.blobs, where.directories).node
    assert isinstance(node, DirectoryNode)
    return node


def run(source: TreeStores, target: TreeStores, *roots: Node) -> tuple[TreeCopier, list[Any]]:
    copier = TreeCopier(source, target, Pool(2))
    return copier, [each for each in copier.run(roots) if each.error is not None]


def assert_whole(where: TreeStores, root: DirectoryNode, files: int) -> None:
    found = [node for _, node in walk(where.directories, root) if isinstance(node, FileNode)]
    assert len(found) == files
    for node in found:
        assert len(where.blobs.read(node.digest)) == node.size


def test_all_of_it_is_there(ends: tuple[TreeStores, TreeStores], folder: Path) -> None:
    source, target = ends
    root = store(folder, source)
    copier, failed = run(source, target, root)
    assert (failed, copier.trees, copier.directories_copied) == ([], 1, 10)
    assert copier.tally.blobs_copied >= 12
    assert_whole(target, root, 13)


def test_what_is_there_is_not_sent_again(ends: tuple[TreeStores, TreeStores], folder: Path) -> None:
    """Where a service is known to have all below a directory that is not even looked at."""
    source, target = ends
    root = store(folder, source)
    run(source, target, root)
    copier, _ = run(source, target, root)
    assert (copier.directories_copied, copier.tally.blobs_copied, copier.trees) == (0, 0, 1)
    complete = target.directories.capability(Complete) is not None
    assert copier.directories_skipped == (1 if complete else 10)
    (folder / "d1/e1/new").write_bytes(b"new")
    changed = store(folder, source)
    copier, _ = run(source, target, changed)
    assert copier.tally.blobs_copied == 1
    assert_whole(target, changed, 14)


def test_a_blob_that_is_gone(ends: tuple[TreeStores, TreeStores], folder: Path) -> None:
    """Its tree has no directories there, and the others are copied."""
    source, target = ends
    root = store(folder, source)
    lost = Directory({b"lost": FileNode(B3Digest.of(b"lost"), 4)})
    source.directories.put(lost)
    second = source.directories.get(root.digest)
    assert second is not None
    copier, failed = run(source, target, lost.node, root, second[b"d0"])
    assert ([each.digest for each in failed], copier.trees) == ([B3Digest.of(b"lost")], 2)
    assert target.directories.missing({lost.digest}) == {lost.digest}
    assert_whole(target, root, 13)


def test_files_and_links_are_roots_as_well(ends: tuple[TreeStores, TreeStores], folder: Path) -> None:
    source, target = ends
    nodes = dict(walk(source.directories, store(folder, source)))
    copier, failed = run(source, target, *nodes.values())
    assert (failed, copier.trees) == ([], len(nodes))


def test_directories_in_one_place(tmp_path: Path, folder: Path) -> None:
    """That they are there says nothing of the blobs."""
    tables = {"root": {"type": "memory"}, "other": {"type": "memory"}}
    mapping = {"blobservices": tables, "directoryservices": {"root": KINDS["sqlite"]}}
    with Composition.from_mapping(mapping, base=tmp_path) as stores:
        source = TreeStores(stores.blobs(), stores.directories())
        target = TreeStores(stores.blobs("other"), stores.directories())
        root = store(folder, source)
        copier, _ = run(source, target, root)
        assert (copier.tally.blobs_copied, copier.directories_copied) == (12, 0)
        assert_whole(target, root, 13)
