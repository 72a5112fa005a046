"""All that goes through whole trees level by level does so in one way, with one bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.directories.reading import level_by_level
from castore.errors import InvalidDirectoryError, MissingDirectoryError
from castore.format.closures import MOST_LEVELS
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode
from castore.threads.pool import Pool
from castore.trees.reaching import reach
from castore.upkeep import TreeCopier, TreeStores
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService

LEAF = Directory({b"x": FileNode(B3Digest.of(b"x"), 1)})
MIDDLE = Directory({b"a": LEAF.node, b"b": LEAF.node})
ROOT = Directory({b"l": LEAF.node, b"m": MIDDLE.node})


def service_with(*directories: Directory) -> MemoryDirectoryService:
    service = MemoryDirectoryService()
    service.put_many(directories)
    return service


def test_each_once_however_many_have_it() -> None:
    service, seen = service_with(LEAF, MIDDLE, ROOT), set[bytes]()
    asked: list[list[B3Digest]] = []

    def get_many(digests: list[B3Digest]) -> dict[B3Digest, Directory]:
        asked.append(digests)
        return {digest: each for digest in digests if (each := service.get(digest)) is not None}

    found = list(level_by_level(ROOT.node, get_many, seen=seen))
    assert found == [(each.digest, each) for each in (ROOT, LEAF, MIDDLE)]
    assert asked == [[ROOT.digest], [LEAF.digest, MIDDLE.digest]]
    assert list(level_by_level(ROOT.node, get_many, seen=seen)) == []


def test_what_is_not_entered_is_not_read() -> None:
    service = service_with(LEAF, MIDDLE, ROOT)
    found = level_by_level(
        ROOT.node,
        service.get_many,
        seen=set(),
        enters=lambda some: [each for each in some if each != LEAF.digest],
    )
    assert [digest for digest, _ in found] == [ROOT.digest, MIDDLE.digest]


def test_one_that_is_gone_is_named_with_its_path() -> None:
    top = Directory({b"t": ROOT.node})
    kept = {each.digest: each for each in (ROOT, LEAF, top)}
    with pytest.raises(MissingDirectoryError, match="t/m"):
        list(
            level_by_level(
                top.node, lambda some: {each: kept[each] for each in some if each in kept}, seen=set()
            )
        )


def _reached(directories: DirectoryService, root: DirectoryNode) -> Iterator[object]:
    return reach(root, directories, seen=set())


def _copied(directories: DirectoryService, root: DirectoryNode) -> Iterator[object]:
    blobs = MemoryBlobService()
    target = TreeStores(blobs, MemoryDirectoryService())
    return TreeCopier(TreeStores(blobs, directories), target, Pool(0)).run([root])


@pytest.mark.parametrize("through", [_reached, _copied])
def test_more_levels_than_a_folder_has(
    through: Callable[[DirectoryService, DirectoryNode], Iterator[object]],
) -> None:
    chain = [Directory()]
    for _ in range(MOST_LEVELS):
        chain.append(Directory({b"d": chain[-1].node}))
    directories = service_with(*chain)
    list(through(directories, chain[-1].node))
    too_deep = Directory({b"d": chain[-1].node})
    directories.put(too_deep)
    with pytest.raises(InvalidDirectoryError, match=f"more than {MOST_LEVELS} levels"):
        list(through(directories, too_deep.node))
