"""Proving that all of a tree is there, and claiming it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService, Composition, MissingDirectoryError, NodeNotFoundError
from castore.composites.directories import DirectoryMember
from castore.contract.capabilities import ChunkStore
from castore.contract.directories import DirectoryService, KeptInBlobs, only_blob_service
from castore.directories.in_blobs import BlobsDirectoryService
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode
from castore.trees.proving import claim_blob, keeping, prove
from castore.wrapping.wrapper import WrapperService
from castore_fallback.directories import FallbackDirectoryService
from castore_memory.service import MemoryBlobService


class Watched(WrapperService):
    """Notes what is claimed, and what has a lease."""

    def __init__(self, inner: BlobService) -> None:
        super().__init__(inner)
        self.claimed: set[B3Digest] = set()
        self.leases = 0

    def around(self, operation: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if operation in ("claim", "claim_blobs"):
            self.claimed |= set(args[0])
        self.leases += operation == "lease"
        return call(*args, **kwargs)


def test_many_empty_files_in_a_row_are_no_end() -> None:
    """What comes after them is looked for: in one directory, and in one after those of empty files."""
    blobs = MemoryBlobService()
    empty = {b"%04d" % number: FileNode(B3Digest.of(b""), 0) for number in range(2000)}
    lost = FileNode(B3Digest.of(b"lost"), 4)
    directories = BlobsDirectoryService(blobs)
    for tree in (
        [Directory({**empty, b"lost": lost})],
        [
            first := Directory(empty),
            last := Directory({b"lost": lost}),
            Directory({b"a": first.node, b"b": last.node}),
        ],
    ):
        directories.put_closure(tree)
        with pytest.raises(NodeNotFoundError, match=r"lost'"):
            prove(tree[-1].node, blobs, directories)


@pytest.mark.parametrize("size", [0, 1, 100, 1 << 20, 3 << 20])
def test_blobs_of_any_size_are_there(size: int) -> None:
    """Those of many chunks, and those that are one chunk, with an index or without."""
    blobs = MemoryBlobService()
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    root = Directory({b"file": FileNode(blobs.write(data), size)})
    directories = BlobsDirectoryService(blobs)
    directories.put_closure([root])
    prove(root.node, blobs, directories)
    store = blobs.capability(ChunkStore)
    assert store is not None
    alone = bytes([7]) * min(size, 1 << 19) + b"alone"
    store.put_chunks({B3Digest.of(alone): alone})
    prove(FileNode(B3Digest.of(alone), len(alone)), blobs, directories)
    assert claim_blob(blobs, B3Digest.of(alone))
    assert not claim_blob(blobs, B3Digest.of(b"not there"))


STACKS: dict[str, dict[str, Any]] = {
    "wrapper": {"root": {"type": "retry", "inner": "&a"}},
    "wrappers": {
        "root": {"type": "timeout", "inner": "&c", "timeout": "60 s"},
        "c": {"type": "verify", "inner": "&a"},
    },
    "fallback": {"root": {"type": "fallback", "services": ["&a", "&b"]}},
    "mirror": {"root": {"type": "mirror", "services": ["&a", "&b"]}},
    "cache": {"root": {"type": "cache", "near": "&b", "far": "&a"}},
    "partly": {"root": {"type": "mirror", "services": ["&a", "&rows"]}},
    "read_only": {"root": {"type": "read_only", "inner": "&a"}},
    "nothing": {"root": {"type": "retry", "inner": "&rows"}},
}


@pytest.mark.parametrize("name", STACKS)
def test_where_directories_are_blobs_is_known_of_any_stack(name: str, tmp_path: Path) -> None:
    tables: Any = {
        "blobservices": {each: {"type": "memory"} for each in ("root", "a", "b")},
        "directoryservices": {
            **STACKS[name],
            "a": {"type": "blobs", "blobs": "&a"},
            "b": {"type": "blobs", "blobs": "&b"},
            "rows": {"type": "sqlite", "path": "./rows"},
        },
    }
    with Composition.from_mapping(tables, base=tmp_path) as stores:
        a, b = stores.blobs("a"), stores.blobs("b")
        kept = stores.directories().capability(KeptInBlobs)
        only = only_blob_service(stores.directories())
        if name == "nothing":
            assert kept is None
            return
        assert kept is not None
        assert kept.elsewhere is (name == "partly")
        if name == "read_only":
            assert only is not None
            assert only is not a
            assert only.capability(ChunkStore) is None
            return
        assert set(map(id, kept.blob_services)) == (
            {id(a), id(b)} if name in ("fallback", "mirror", "cache") else {id(a)}
        )
        assert (only is a) is name.startswith("wrapper")


def test_all_places_of_directories_are_claimed_and_leased() -> None:
    files, *places = (Watched(MemoryBlobService()) for _ in range(3))
    services: list[DirectoryService] = [BlobsDirectoryService(each) for each in places]
    leaf = Directory({b"file": FileNode(files.write(b"content"), 7)})
    root = Directory({b"leaf": leaf.node})
    services[1].put_closure([leaf, root])
    members = [DirectoryMember(str(number), each) for number, each in enumerate(services)]
    directories = FallbackDirectoryService(members)
    for each in (files, *places):
        each.leases = 0
    with keeping(files, directories):
        assert [each.leases for each in (files, *places)] == [1, 1, 1]
        prove(root.node, files, directories)
    assert {leaf.digest, root.digest} <= places[0].claimed & places[1].claimed
    gone = DirectoryNode(B3Digest.of(b"gone"), 2)
    with pytest.raises(MissingDirectoryError):
        prove(gone, files, directories)
