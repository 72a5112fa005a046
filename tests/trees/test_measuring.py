"""How large trees are."""

from __future__ import annotations

import random

import pytest

from castore import BlobNotFoundError, Composition, MissingDirectoryError
from castore.digest import B3Digest
from castore.format.directories import Directory
from castore.format.nodes import FileNode, SymlinkNode, SymlinkTarget, TreePath
from castore.trees.measuring import ChunkSizes, TreeSize, blobs_in, measure
from tests.trees.test_walking import Rows


def file(name: bytes, size: int) -> FileNode:
    return FileNode(B3Digest.of(name), size)


DEEP = Directory({b"one": file(b"one", 1), b"ten": file(b"ten", 10)})
SUB = Directory({b"deep": DEEP.node, b"again": file(b"ten", 10), b"link": SymlinkNode(SymlinkTarget(b"x"))})
TOP = Directory({b"a": SUB.node, b"b": DEEP.node, b"hundred": file(b"hundred", 100)})
TREE = Rows(DEEP, SUB, TOP)


def numbers(size: TreeSize) -> tuple[str, int, int, int, int, int]:
    return str(size.path), size.files, size.directories, size.links, size.size, size.distinct


def test_equal_files_are_distinct_once() -> None:
    assert [numbers(size) for size in measure(TREE, TOP.node)] == [("", 6, 3, 1, 132, 111)]


def test_directories_so_many_levels_down() -> None:
    """Each after those in it, with all that is below it."""
    found = [numbers(size) for size in measure(TREE, TOP.node, depth=1, path=TreePath.parse("x"))]
    assert found == [
        ("x/a", 3, 1, 1, 21, 11),
        ("x/b", 2, 0, 0, 11, 11),
        ("x", 6, 3, 1, 132, 111),
    ]
    assert [str(size.path) for size in measure(TREE, TOP.node, depth=9)] == ["a/deep", "a", "b", ""]


def test_what_others_have_does_not_count() -> None:
    apart = blobs_in(TREE, DEEP.node)
    assert apart == {B3Digest.of(b"one"), B3Digest.of(b"ten")}
    (size,) = measure(TREE, TOP.node, apart_from=apart)
    assert numbers(size) == ("", 1, 3, 1, 100, 100)


def test_a_directory_that_is_gone() -> None:
    for root in (DEEP, SUB):
        with pytest.raises(MissingDirectoryError):
            blobs_in(Rows(SUB), root.node)


def test_files_and_links_as_roots() -> None:
    (size,) = measure(TREE, file(b"ten", 10))
    assert numbers(size) == ("", 1, 0, 0, 10, 10)
    assert blobs_in(TREE, file(b"ten", 10)) == {B3Digest.of(b"ten")}
    (size,) = measure(TREE, SymlinkNode(SymlinkTarget(b"x")))
    assert numbers(size) == ("", 0, 0, 1, 0, 0)
    assert blobs_in(TREE, SymlinkNode(SymlinkTarget(b"x"))) == set()


class TestChunks:
    def test_chunks_that_blobs_share_count_once(self, stores: Composition) -> None:
        """A blob that is not cut is a chunk of its own."""
        data = random.Random(3).randbytes(3 << 20)
        blobs = stores.blobs()
        sizes = {blobs.write(each): len(each) for each in (data, data + b"more", b"small")}
        asked = ChunkSizes(blobs)
        asked.ask_for(sizes)
        chunks, _ = asked.of(sizes)
        distinct = {chunk.digest: chunk.size for each in sizes for chunk in blobs.chunks(each) or ()}
        assert chunks == sum(distinct.values()) + len(b"small")
        assert chunks < sum(sizes.values())

    def test_what_is_stored(self, tmp_path: object) -> None:
        """Compressed, with the indexes, and nothing of other blobs."""
        table = {"type": "objectstore", "object_store_url": f"file:{tmp_path}/store"}
        with Composition.from_mapping({"blobservices": {"root": table}}) as stores:
            blobs = stores.blobs()
            sizes = {blobs.write(b"a" * 100_000): 100_000}
            blobs.write(b"another blob")
            asked = ChunkSizes(blobs)
            asked.ask_for(sizes)
            chunks, stored = asked.of(sizes)
            assert chunks == 100_000
            assert stored is not None
            assert 0 < stored < 1000

    def test_a_blob_that_is_gone(self, stores: Composition) -> None:
        with pytest.raises(BlobNotFoundError):
            ChunkSizes(stores.blobs()).ask_for([B3Digest.of(b"gone")])
