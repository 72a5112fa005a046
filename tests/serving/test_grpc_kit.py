"""A service at the other end of a connection keeps the contract as one at hand does.

Each server keeps something else: a dictionary, objects, a cache, and another server. The last is two
connections in a row. TLS is a connection of its own kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from castore import BlobService, Composition
from castore.contract.capabilities import ChunkSource
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.testing import BlobServiceContract

MEMORY = {"type": "memory"}
BUCKET = {"type": "objectstore", "object_store_url": "memory:"}
CACHE = {"root": {"type": "cache", "near": "&near", "far": "&far"}, "near": MEMORY, "far": BUCKET}


class OverTheWire(BlobServiceContract):
    """A server for all clauses: it need not be empty."""

    capabilities = (ChunkSource,)
    tables: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def service(self, serving: Any, connected: Any) -> BlobService:
        stores: Composition = connected(serving(self.tables).url)
        return stores.blobs()


class TestMemory(OverTheWire):
    tables: ClassVar = {"root": MEMORY}


class TestBucket(OverTheWire):
    tables: ClassVar = {"root": BUCKET}


class TestCache(OverTheWire):
    tables: ClassVar = CACHE


class TestTwoInARow(BlobServiceContract):
    capabilities = (ChunkSource,)

    @pytest.fixture
    def service(self, serving: Any, connected: Any) -> BlobService:
        first = serving({"root": MEMORY})
        second = serving({"root": {"type": "grpc", "url": first.url}})
        stores: Composition = connected(second.url)
        return stores.blobs()


def tree() -> Iterator[Directory]:
    """The directories of a tree, the leaves first; one of them is there twice."""
    empty = Directory()
    keep = Directory({b".keep": FileNode(empty.digest, 0)})
    below = Directory({b"a": keep.node, b"b": empty.node})
    yield from (empty, keep, below, Directory({b"below": below.node, b"keep": keep.node}))


KEPT = {
    "memory": {"root": MEMORY},
    "objects": {"root": BUCKET},
    "blobs": None,
}


@pytest.mark.parametrize("kept", KEPT)
def test_trees_go_over_the_wire_and_back(serving: Any, connected: Any, kept: str) -> None:
    """Whatever keeps them; one that another has is grafted by being sent again."""
    service = connected(serving(None, KEPT[kept]).url).directories()
    directories = list(tree())
    root = directories[-1]
    assert service.closure(root.digest) is None
    assert service.put_closure(directories) == root.digest
    assert {each.digest for each in service.closure(root.digest)} == {each.digest for each in directories}
    assert service.get(root.digest) == root
    missing = Directory({b"x": FileNode(root.digest, 1)}).digest
    assert service.missing([root.digest, missing]) == {missing}
    inside = service.get_many([each.digest for each in directories], within=root.digest)
    assert inside == {each.digest: each for each in directories}
    above = Directory({b"again": root.node})
    assert service.put(above) == above.digest
    assert len(list(service.closure(above.digest))) == 5
