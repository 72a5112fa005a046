"""How large trees are: as folders, and as what is stored of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

import attrs

from castore.contract.batches import CALLS_AT_ONCE
from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkSource
from castore.contract.directories import DirectoryService
from castore.contract.upkeep import Inventory
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.threads.pool import process_pool
from castore.trees.reaching import reach
from castore.trees.walking import walk


@attrs.define
class TreeSize:
    """What is in a tree, or in a directory of it, added up.

    Attributes:
        path: Where it is.
        files: How many files there are.
        directories: How many directories, itself not among them.
        links: How many links.
        size: How many bytes the files have together.
        blobs: The different blobs, and how many bytes each has.
    """

    path: TreePath
    files: int = 0
    directories: int = 0
    links: int = 0
    size: int = 0
    blobs: dict[B3Digest, int] = attrs.field(factory=dict, repr=False)

    @property
    def distinct(self) -> int:
        """How many bytes the different blobs have together."""
        return sum(self.blobs.values())

    def add(self, node: Node) -> None:
        """Take an entry into account."""
        match node:
            case FileNode():
                self.files += 1
                self.size += node.size
                self.blobs[node.digest] = node.size
            case DirectoryNode():
                self.directories += 1
            case _:
                self.links += 1

    def add_all(self, other: TreeSize) -> None:
        """Take all of another one into account."""
        self.files += other.files
        self.directories += other.directories
        self.links += other.links
        self.size += other.size
        self.blobs |= other.blobs


def measure(
    directories: DirectoryService,
    root: Node,
    *,
    path: TreePath | None = None,
    depth: int = 0,
    apart_from: Container[B3Digest] = frozenset(),
    within: B3Digest | None = None,
) -> Iterator[TreeSize]:
    """Yield the size of a tree, after those of the directories in it. No blob is read.

    Arguments:
        directories: Where they are.
        root: What to measure.
        path: Where that is.
        depth: Of directories so many levels down the sizes are yielded, too, each after those in it.
        apart_from: Blobs that do not count, nor do the files that have them.
        within: The root of the tree, if *root* is a part of it.

    Raises as `castore.trees.walking.walk` does.
    """
    begin = TreePath() if path is None else path
    # Of the directories from the root down to that which is gone through: no more than are yielded.
    open_sizes = [TreeSize(begin)]
    if not isinstance(root, DirectoryNode):
        _count(open_sizes[0], root, apart_from)
    for where, node in walk(directories, root, path=begin, within=within):
        level = len(where) - len(begin)
        yield from _closed(open_sizes, level)
        _count(open_sizes[-1], node, apart_from)
        if isinstance(node, DirectoryNode) and level <= depth:
            open_sizes.append(TreeSize(where))
    yield from _closed(open_sizes, 0)


def _count(size: TreeSize, node: Node, apart_from: Container[B3Digest]) -> None:
    if not (isinstance(node, FileNode) and node.digest in apart_from):
        size.add(node)


def _closed(open_sizes: list[TreeSize], level: int) -> Iterator[TreeSize]:
    """Yield the sizes of directories that are done, when an entry of this level is met."""
    while len(open_sizes) > level:
        done = open_sizes.pop()
        if open_sizes:
            open_sizes[-1].add_all(done)
        yield done


def blobs_in(directories: DirectoryService, root: Node) -> set[B3Digest]:
    """Return the blobs of a tree; each of its directories is looked at once."""
    return {digest for digest, is_directory in reach(root, directories, seen=set()) if not is_directory}


class ChunkSizes:
    """What chunks the blobs of a service have, and how much of the store they take.

    The lists of chunks are asked for; no blob is read.
    """

    def __init__(self, service: BlobService) -> None:
        self._service = service
        self._chunks: dict[B3Digest, dict[B3Digest, int]] = {}
        self.stored: dict[B3Digest, int] | None = None
        """How many bytes are stored of each chunk and index that was asked for; `None` if the service does
        not tell."""

    def ask_for(self, blobs: Iterable[B3Digest]) -> None:
        """Find out about blobs; raise `BlobNotFoundError` for one that is not there."""
        wanted = [digest for digest in dict.fromkeys(blobs) if digest not in self._chunks]
        source = self._service.capability(ChunkSource)
        slow = self._service.high_latency or (source is not None and source.high_latency)
        look_up = self._service.chunks
        pool = process_pool().io_pool
        lists = pool.map(look_up, wanted, most=CALLS_AT_ONCE) if slow else map(look_up, wanted)
        for digest, chunks in zip(wanted, lists, strict=True):
            if chunks is None:
                raise BlobNotFoundError(digest)
            self._chunks[digest] = {chunk.digest: chunk.size for chunk in chunks}
        inventory = self._service.capability(Inventory)
        if inventory is not None and self.stored is None:
            self.stored = self._look_through(inventory)

    def _look_through(self, inventory: Inventory) -> dict[B3Digest, int] | None:
        wanted = {*self._chunks, *(chunk for chunks in self._chunks.values() for chunk in chunks)}
        stored: dict[B3Digest, int] = dict.fromkeys(wanted, 0)
        for item in inventory.list_items():
            if item.digest in stored and item.kind != "residue":
                if item.size is None:
                    return None
                stored[item.digest] += item.size
        return stored

    def of(self, blobs: dict[B3Digest, int]) -> tuple[int, int | None]:
        """Return how many bytes the different chunks of blobs have, and how many bytes are stored of them."""
        chunks: dict[B3Digest, int] = {}
        for digest, size in blobs.items():
            chunks |= self._chunks[digest] or {digest: size}
        stored = self.stored
        if stored is None:
            return sum(chunks.values()), None
        return sum(chunks.values()), sum(stored.get(each, 0) for each in chunks.keys() | blobs.keys())
