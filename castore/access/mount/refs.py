"""What a mount of all refs shows: a folder for each, at its name.

The names are looked up anew each second. A ref that is set anew shows its new tree as soon as no file of the
old one is open: the kernel keeps what it has read by paths, and must not mix the two.

    www/                the tree of the ref `www`
    backup/             no ref of its own, but there are some below it
      2026-11-30T14-05-00Z/
      latest            a link to the newest snapshot
    www@/               what is below the name of a ref that is there itself
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from castore.access.mount.trees import FolderOfNames, MountedNode, MountedTree, Stores, as_bytes, nothing
from castore.contract.refs import RefService
from castore.digest import B3Digest
from castore.errors import CastoreError
from castore.format.nodes import DirectoryNode, Node, SymlinkNode, SymlinkTarget
from castore.threads.forks import new_lock
from castore.trees.ref_names import LATEST, Snapshot

LASTING: Final = 1.0
"""For so many seconds a name, and the list of all, is not looked up again."""

_MOST_TREES: Final = 64
_MOST_NAMES: Final = 4096
_BATCH: Final = 256
_LATEST: Final = LATEST.encode()


class _Name:
    """A part of the names of refs."""

    __slots__ = ("below", "is_ref")

    def __init__(self) -> None:
        self.is_ref = False
        self.below: dict[str, _Name] = {}


class MountedRefs:
    """All refs of a service, each as the tree that it stands for.

    Arguments:
        stores: What trees are read from.
        refs: The service of the refs.
        now: The clock.
    """

    def __init__(self, stores: Stores, refs: RefService, now: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._refs = refs
        self._now = now
        self._lock = new_lock()
        self._names = _Name()
        self._names_end = float("-inf")
        self._roots: dict[str, tuple[float, Node | None]] = {}
        self._trees: dict[B3Digest, MountedTree] = {}
        self._in_use: dict[str, tuple[int, Node]] = {}
        self._moved: set[str] = set()

    def find(self, path: str) -> MountedNode:
        """Return what is at a path, as `MountedTree.find`."""
        name = self._all_names()
        parts = path.split("/") if path else []
        for depth, part in enumerate(parts):
            here = name.below.get(part)
            if here is None and part.endswith("@"):
                # What is below the name of a ref.
                name = name.below.get(part[:-1], _Name())
                if not (name.is_ref and name.below):
                    raise nothing(path)
            elif here is None:
                if part == LATEST and depth == len(parts) - 1 and (latest := self._latest(name, parts[:-1])):
                    return MountedNode(latest)
                raise nothing(path)
            elif here.is_ref:
                ref = "/".join(parts[: depth + 1]).replace("@", "")
                return self._find_in(ref, "/".join(parts[depth + 1 :]), path)
            else:
                name = here
        return MountedNode(self._folder(path, parts, name))

    def open(self, found: MountedNode) -> bool:
        """Note that a file is opened; return whether what the kernel has of it is right.

        From now on its ref shows the tree that it shows now, until `release`.
        """
        assert found.ref is not None
        with self._lock:
            count, node = self._in_use.get(
                found.ref, (0, found.node if found.tree is None else found.tree.root)
            )
            assert not isinstance(node, FolderOfNames)
            self._in_use[found.ref] = count + 1, node
            return found.ref not in self._moved

    def release(self, ref: str) -> None:
        """Note that a file is closed."""
        with self._lock:
            count, node = self._in_use[ref]
            if count > 1:
                self._in_use[ref] = count - 1, node
            else:
                del self._in_use[ref]

    def _find_in(self, ref: str, below: str, path: str) -> MountedNode:
        node = self._root(ref)
        if node is None:
            raise nothing(path)
        if not isinstance(node, DirectoryNode):
            if below:
                raise nothing(path)
            return MountedNode(node, ref=ref)
        tree = self._tree(node)
        return MountedNode(tree.node(below), tree, below, ref)

    def _tree(self, root: DirectoryNode) -> MountedTree:
        with self._lock:
            tree = self._trees.pop(root.digest, None)
            if tree is None:
                tree = MountedTree(self._stores, root)
                if len(self._trees) >= _MOST_TREES:
                    del self._trees[next(iter(self._trees))]
            self._trees[root.digest] = tree
        return tree

    def _root(self, ref: str) -> Node | None:
        """Return what a ref stands for; while a file of it is open, what it stood for then."""
        node = self._roots_of([ref])[ref]
        if isinstance(node, CastoreError):
            raise node
        return node

    def _roots_of(self, refs: Sequence[str]) -> dict[str, Node | CastoreError | None]:
        found: dict[str, Node | CastoreError | None] = {}
        with self._lock:
            for ref in refs:
                ends, node = self._roots.get(ref, (float("-inf"), None))
                if ref in self._in_use:
                    found[ref] = self._in_use[ref][1]
                elif self._now() < ends:
                    found[ref] = node
        wanted = iter([ref for ref in refs if ref not in found])
        while batch := list(islice(wanted, _BATCH)):
            had = self._stores.ask(partial(self._refs.get_many, batch))
            for ref in batch:
                each = had.get(ref)
                found[ref] = (
                    each
                    if isinstance(each, CastoreError)
                    else self._note(ref, None if each is None else each.node)
                )
        return found

    def _note(self, ref: str, node: Node | None) -> Node | None:
        """Take in what a ref stands for; return what it is shown as."""
        with self._lock:
            if ref in self._in_use:
                return self._in_use[ref][1]
            if ref in self._roots:
                if node != self._roots[ref][1]:
                    self._moved.add(ref)
            elif len(self._roots) >= _MOST_NAMES:
                # Those that are forgotten may have moved when they are met again.
                self._moved |= self._roots.keys()
                self._roots.clear()
            self._roots[ref] = self._now() + LASTING, node
        return node

    def _all_names(self) -> _Name:
        with self._lock:
            if self._now() < self._names_end:
                return self._names
        top = _Name()
        for ref in self._stores.ask(lambda: list(self._refs.names())):
            name = top
            for part in ref.split("/"):
                name = name.below.setdefault(part, _Name())
            name.is_ref = True
        with self._lock:
            self._names, self._names_end = top, self._now() + LASTING
        return top

    def _folder(self, path: str, parts: list[str], name: _Name) -> FolderOfNames:
        entries: dict[bytes, Node | FolderOfNames] = {}
        refs = {
            part: "/".join((*parts, part)).replace("@", "")
            for part, each in name.below.items()
            if each.is_ref
        }
        roots = self._roots_of(list(refs.values()))
        for part, each in sorted(name.below.items()):
            here = f"{path}/{part}" if path else part
            if not each.is_ref:
                entries[as_bytes(part)] = FolderOfNames(here, {})
                continue
            node = roots[refs[part]]
            if isinstance(node, CastoreError):
                # It is there; whoever looks at it is told what is wrong.
                entries[as_bytes(part)] = FolderOfNames(here, {})
            elif node is not None:
                entries[as_bytes(part)] = node
            if each.below:
                entries[as_bytes(f"{part}@")] = FolderOfNames(f"{here}@", {})
        latest = self._latest(name, parts)
        if latest is not None:
            entries.setdefault(_LATEST, latest)
        return FolderOfNames(path, entries)

    @staticmethod
    def _latest(name: _Name, parts: list[str]) -> SymlinkNode | None:
        of = "/".join(parts).replace("@", "")
        found = [
            snapshot
            for part, each in name.below.items()
            if each.is_ref and (snapshot := Snapshot.parse(f"{of}/{part}")) is not None
        ]
        if not found:
            return None
        return SymlinkNode(SymlinkTarget(as_bytes(str(max(found)).rpartition("/")[2])))
