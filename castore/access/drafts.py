"""A tree that is being changed: what others read of it at any moment, and what it is in the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from castore.contract.directories import AnyDirectory, DirectoryService, DirectoryWriter, FoundDirectories
from castore.digest import EMPTY, B3Digest
from castore.errors import CastoreError, MissingDirectoryError, UnsupportedError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, Node, PathComponent, TreePath


class _Folder:
    """A directory that was opened: what it has, and what it is as a value unless something was changed."""

    __slots__ = ("below", "built")

    def __init__(self, directory: Directory) -> None:
        self.below: dict[bytes, _Entry] = {bytes(name): node for name, node in directory.items()}
        self.built: Directory | None = directory


_Entry: TypeAlias = "Node | _Folder"


class Draft:
    """A tree that is being changed, in memory; files are in their store already.

    Only directories that are changed, or that lead to such, are held. Those of the tree that it begins with
    are read when they are needed.

    Arguments:
        directories: Where the directories of *root* are, and where `commit` puts the new ones.
        root: What it begins with; the empty directory, without one.
    """

    def __init__(self, directories: DirectoryService, root: DirectoryNode | None = None) -> None:
        if root is not None and root.digest == EMPTY:
            root = None  # It is everywhere, also where nothing was put.
        self._service = directories
        self._within = None if root is None else root.digest
        self._root = _Folder(Directory()) if root is None else self._opened(root, TreePath())
        self._built: dict[B3Digest, Directory] = {}
        self.directories: DirectoryService = _Overlay(directories, self._built, self._within)
        """Has the directories of the tree as it was, and as `snapshot` has found it."""

    def _opened(self, node: DirectoryNode, path: TreePath) -> _Folder:
        found = self._service.get_many((node.digest,), within=self._within).get(node.digest)
        if isinstance(found, CastoreError):
            raise found
        if found is None:
            raise MissingDirectoryError(node.digest, path=bytes(path))
        return _Folder(found)

    def _way(self, path: TreePath, *, make: bool) -> list[_Folder]:
        """Return the folders from the root to that at *path*; raises as `put` does."""
        way = [self._root]
        for depth, name in enumerate(path):
            below = way[-1].below.get(name)
            if below is None:
                if not make:
                    raise FileNotFoundError(f"there is no {str(TreePath(path[: depth + 1]))!r}")
                below = way[-1].below[bytes(name)] = _Folder(Directory())
                for folder in way:
                    folder.built = None
            elif isinstance(below, DirectoryNode):
                below = way[-1].below[bytes(name)] = self._opened(below, TreePath(path[: depth + 1]))
            if not isinstance(below, _Folder):
                raise NotADirectoryError(f"{str(TreePath(path[: depth + 1]))!r} is no directory")
            way.append(below)
        return way

    def put(self, path: TreePath, node: Node) -> None:
        """Let *node* stand at *path*; directories that lead there are made.

        Raises `IsADirectoryError` where a directory stands there, or for the root, and `NotADirectoryError`
        where something else stands on the way.
        """
        if not path:
            raise IsADirectoryError("the root of a tree is a directory")
        way = self._way(TreePath(path[:-1]), make=True)
        if isinstance(way[-1].below.get(path[-1]), (_Folder, DirectoryNode)):
            raise IsADirectoryError(f"{str(path)!r} is a directory")
        way[-1].below[bytes(path[-1])] = node
        for folder in way:
            folder.built = None

    def make_directory(self, path: TreePath) -> None:
        """Make a directory, and those that lead there; does nothing if it is there."""
        self._way(path, make=True)

    def remove(self, path: TreePath, *, directory: bool = False) -> None:
        """Remove what stands at *path*: a file or link, or an empty *directory*.

        Raises `FileNotFoundError`, `IsADirectoryError`, `NotADirectoryError`, or `OSError` for a directory
        that is not empty.
        """
        if not path:
            raise IsADirectoryError("the root of a tree stays")
        way = self._way(TreePath(path[:-1]), make=False)
        found = way[-1].below.get(path[-1])
        if found is None:
            raise FileNotFoundError(f"there is no {str(path)!r}")
        if isinstance(found, (_Folder, DirectoryNode)) != directory:
            error = NotADirectoryError if directory else IsADirectoryError
            raise error(f"{str(path)!r} is {'no directory' if directory else 'a directory'}")
        if directory and self._way(path, make=False)[-1].below:
            raise OSError(39, f"{str(path)!r} is not empty")
        del way[-1].below[path[-1]]
        for folder in way:
            folder.built = None

    def snapshot(self) -> DirectoryNode:
        """Return the root as it stands; `directories` has what it leads to, and nothing was written."""
        return self._build(self._root, self._built).node

    def _build(self, top: _Folder, built: dict[B3Digest, Directory]) -> Directory:
        # No recursion, however deep it is: the leaves come first.
        order, waiting = [], [top]
        while waiting:
            folder = waiting.pop()
            order.append(folder)
            waiting += [
                each for each in folder.below.values() if isinstance(each, _Folder) and each.built is None
            ]
        for folder in reversed(order):
            if folder.built is None:
                folder.built = Directory({name: _node_of(each) for name, each in folder.below.items()})
            built[folder.built.digest] = folder.built
        assert top.built is not None
        return top.built

    def commit(self) -> B3Digest:
        """Put the directories, and return the digest of the root; raises what the service raises."""
        root = self._build(self._root, self._built)
        with self._service.open_write() as writer:
            if self._service.capability(AnyDirectory) is None:
                self._put_all(writer, root)
            else:
                self._put_changed(writer)
        return root.digest

    def _put_changed(self, writer: DirectoryWriter) -> None:
        order, waiting = [], [self._root]
        while waiting:
            folder = waiting.pop()
            order.append(folder)
            waiting += [each for each in folder.below.values() if isinstance(each, _Folder)]
        put: set[B3Digest] = set()
        for folder in reversed(order):
            assert folder.built is not None
            for _, node in folder.built.directories:
                if node.digest not in put:
                    writer.graft(node)
            put.add(writer.put(folder.built))

    def _put_all(self, writer: DirectoryWriter, root: Directory) -> None:
        """Put a tree whole: the service cannot find a part of it again by itself."""
        done: set[B3Digest] = set()
        stack = [(root, root.directories)]
        while stack:
            directory, coming = stack[-1]
            for name, node in coming:
                if node.digest not in done:
                    found = self.directories.get_many((node.digest,)).get(node.digest)
                    if isinstance(found, CastoreError):
                        raise found
                    if found is None:
                        raise MissingDirectoryError(node.digest, path=bytes(name))
                    stack.append((found, found.directories))
                    break
            else:
                done.add(writer.put(directory))
                stack.pop()


def _node_of(entry: _Entry) -> Node:
    if isinstance(entry, _Folder):
        assert entry.built is not None
        return entry.built.node
    return entry


class _Overlay(DirectoryService, AnyDirectory):
    """The directories of a service, and some that it does not have yet."""

    def __init__(
        self, service: DirectoryService, built: dict[B3Digest, Directory], within: B3Digest | None
    ) -> None:
        self._service = service
        self._own = built
        self._within = within

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:  # noqa: ARG002 - what is not new is below the old root
        """Return directories: new ones, or those of the service."""
        wanted = set(digests)
        found: FoundDirectories = {each: self._own[each] for each in wanted if each in self._own}
        others = wanted - found.keys()
        return found | (self._service.get_many(others, within=self._within) if others else {})

    def put_many(self, directories: object) -> None:  # noqa: ARG002
        """Refuse: nothing is written before the whole is."""
        raise UnsupportedError("a tree that is being changed is written as a whole")


def path_of(names: str) -> TreePath:
    """Read a path that has no empty names; raise `FileNotFoundError` for one that can name nothing."""
    try:
        return TreePath(
            PathComponent(each) for each in names.encode("utf-8", "surrogateescape").split(b"/") if each
        )
    except ValueError as error:
        raise FileNotFoundError(str(error)) from error
