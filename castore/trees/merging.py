"""New trees of others, without that a blob is read: several as one, and what rules leave of one.

A directory that stays as it is is taken over by its digest, with all that is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Literal, TypeAlias

import attrs

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService, DirectoryWriter
from castore.digest import B3Digest
from castore.directories.copying import publish
from castore.errors import InvalidDirectoryError, MergeConflictError
from castore.format.closures import MOST_LEVELS
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, Node, PathComponent, TreePath
from castore.trees.reading_ahead import MOST_ITEMS, DirectoriesAhead
from castore.trees.selecting import ALL, DirectoryView, SelectedFolder, Selection
from castore.trees.walking import coming_next, walk

OnConflict: TypeAlias = Literal["error", "last", "first"]
"""What becomes of a path at which two trees have different things that are not both directories."""

_MOST_CONFLICTS: Final = 1000

_Several: TypeAlias = list[tuple[int, DirectoryNode]]
"""Directories that become one, each with the number of its tree."""


class _Builder:
    """Writes the directories that are new; a writer is opened with the first one."""

    def __init__(self, directories: DirectoryService) -> None:
        self._directories = directories
        self._writer: DirectoryWriter | None = None

    def build(self, nodes: dict[PathComponent, Node]) -> DirectoryNode:
        """Put a directory, whose children were built here, or are there."""
        directory = Directory(nodes)
        if self._writer is None:
            self._writer = self._directories.open_write()
        for _, node in directory.directories:
            self._writer.graft(node)  # One that came, or was put, is passed over.
        self._writer.put(directory)
        return directory.node

    def close(self, root: Node | None) -> None:
        """End the tree of *root*, which was built, or is one of those that were given, or a part of one."""
        if self._writer is not None:
            self._writer.close()
        elif isinstance(root, DirectoryNode):
            publish(root.digest, self._directories)

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


# -- merging --


@attrs.define
class _Merge:
    """Directories that become one: what is known of it, and what is still to be merged in it."""

    path: TreePath
    nodes: dict[PathComponent, Node]
    below: Sequence[tuple[PathComponent, _Several]]
    begun: int = 0

    @property
    def name(self) -> PathComponent:
        """That of the directories which were begun last."""
        return self.below[self.begun - 1][0]


def merge(directories: DirectoryService, roots: Sequence[Node], *, conflict: OnConflict = "error") -> Node:
    """Return the root of a tree that has what several trees have.

    Directories at one path become one. What is equal is no conflict.

    Arguments:
        directories: Where they are, and where the new ones go.
        roots: The trees, one at least.
        conflict: What becomes of a path at which two have different things: an error, or the one of the last
            or the first of them.

    Raises `MergeConflictError` with the paths, and as `castore.trees.walking.walk` does. Then there is no new
    tree.
    """
    return _Merging(directories, roots, conflict).run()


class _Merging:
    def __init__(self, directories: DirectoryService, roots: Sequence[Node], conflict: OnConflict) -> None:
        self._roots = roots
        self._conflict = conflict
        self._conflicts: list[TreePath] = []
        self._builder = _Builder(directories)
        self._ahead = [
            DirectoriesAhead(directories, root.digest if isinstance(root, DirectoryNode) else None)
            for root in roots
        ]

    def run(self) -> Node:
        try:
            node = self._merge()
            if self._conflicts:
                raise MergeConflictError(self._conflicts[:_MOST_CONFLICTS])
            self._builder.close(node)
        except BaseException:
            self._builder.abort()
            raise
        return node

    def _merge(self) -> Node:
        # No recursion, however deep it is.
        decided = self._decide(TreePath(), list(enumerate(self._roots)))
        if not isinstance(decided, list):
            return decided
        frames = [self._begin(TreePath(), decided)]
        while True:
            frame = frames[-1]
            if frame.begun < len(frame.below):
                name, several = frame.below[frame.begun]
                self._fetch(frames, several)
                frame.begun += 1
                frames.append(self._begin(frame.path.join(name), several))
                continue
            # After a conflict nothing is built: only the others are looked for.
            built: Node = (
                DirectoryNode(Directory().digest, 0) if self._conflicts else self._builder.build(frame.nodes)
            )
            frames.pop()
            if not frames:
                return built
            frames[-1].nodes[frames[-1].name] = built

    def _fetch(self, frames: list[_Merge], several: _Several) -> None:
        """Read directories, unless they were, with those that are merged after them."""
        if not all(self._ahead[side].is_known(node.digest) for side, node in several):
            coming = [several, *islice(self._coming(frames), MOST_ITEMS)]
            for side, ahead in enumerate(self._ahead):
                ahead.fetch(node for each in coming for which, node in each if which == side)

    def _coming(self, frames: list[_Merge]) -> Iterator[_Several]:
        """Yield what is merged next and was not read yet, as far as it is known."""
        seen: set[tuple[B3Digest, ...]] = set()
        for frame in reversed(frames):
            rows = [several for _, several in islice(frame.below, frame.begun, None)][::-1]
            while rows:
                several = rows.pop()
                key = tuple(node.digest for _, node in several)
                if key in seen:
                    continue
                seen.add(key)
                read = [(side, self._ahead[side].peek(node.digest)) for side, node in several]
                below: dict[PathComponent, _Several] = {}
                for side, directory in read:
                    for name, node in () if directory is None else directory.directories:
                        others = below.setdefault(name, [])
                        if all(node.digest != other.digest for _, other in others):
                            others.append((side, node))
                if any(directory is None for _, directory in read):
                    yield several
                else:
                    rows += [each for _, each in sorted(below.items()) if len(each) > 1][::-1]

    def _begin(self, path: TreePath, several: _Several) -> _Merge:
        if len(path) > MOST_LEVELS:
            raise InvalidDirectoryError(f"the trees have more than {MOST_LEVELS} levels", rule="too-deep")
        entries: dict[PathComponent, list[tuple[int, Node]]] = {}
        for side, node in several:
            for name, below in self._ahead[side].take(node, path).items():
                entries.setdefault(name, []).append((side, below))
        nodes: dict[PathComponent, Node] = {}
        below_these: list[tuple[PathComponent, _Several]] = []
        for name in sorted(entries):
            decided = self._decide(path.join(name), entries[name])
            if isinstance(decided, list):
                below_these.append((name, decided))
            else:
                nodes[name] = decided
        return _Merge(path, nodes, below_these)

    def _decide(self, path: TreePath, nodes: list[tuple[int, Node]]) -> Node | _Several:
        """Return what is at a path; several directories if they must be merged first."""
        kept = nodes[:1]
        for side, node in nodes[1:]:
            if any(node == each for _, each in kept):
                continue
            if isinstance(node, DirectoryNode) and isinstance(kept[0][1], DirectoryNode):
                if all(node.digest != getattr(each, "digest", None) for _, each in kept):
                    kept.append((side, node))
            elif self._conflict == "last":
                kept = [(side, node)]
            elif self._conflict == "error" and path not in self._conflicts[-1:]:
                self._conflicts.append(path)
        if len(kept) == 1:
            return kept[0][1]
        return [(side, node) for side, node in kept if isinstance(node, DirectoryNode)]


# -- filtering --


@attrs.define
class _Filter:
    """A directory that is gone through, and what is taken of it."""

    path: TreePath
    node: DirectoryNode
    directory: Directory
    selected: SelectedFolder
    nodes: dict[PathComponent, Node]
    below: Sequence[tuple[PathComponent, DirectoryNode]]
    begun: int = 0

    @property
    def name(self) -> PathComponent:
        """That of the directory which was begun last."""
        return self.below[self.begun - 1][0]


def filter_tree(
    directories: DirectoryService,
    root: Node,
    selection: Selection = ALL,
    *,
    keep_empty: bool = True,
    strip: int = 0,
    prefix: TreePath | None = None,
    conflict: OnConflict = "error",
    blobs: BlobService | None = None,
) -> Node | None:
    """Return the root of a tree that has what rules leave of a tree; `None` if nothing is left.

    Arguments:
        directories: Where it is, and where new directories go.
        root: The tree.
        selection: What is taken; of its rules those that need no file system.
        keep_empty: Whether directories stay of which all was dropped.
        strip: How many names paths lose at their beginning; what is less deep is dropped.
        prefix: The path at which all of it is then.
        conflict: As of `merge`, for paths that become the same when they lose names.
        blobs: Where the files are, for rules that need one (`Selection.needs_blobs`).

    Without arguments it is the same tree. Raises as `merge` does, and for rules what the blobs raise.
    """
    node: Node | None = root
    if not selection.takes_all and isinstance(root, DirectoryNode):
        node = _filtered(directories, root, selection, blobs, keep_empty=keep_empty)
    if strip and node is not None:
        level = [each for path, each in walk(directories, node, depth=strip) if len(path) == strip]
        inner = [each for each in level if isinstance(each, DirectoryNode)]
        node = merge(directories, inner, conflict=conflict) if inner else None
    if node is None:
        return node
    builder = _Builder(directories)
    try:
        for name in reversed(prefix or ()):
            node = builder.build({name: node})
        builder.close(node)
    except BaseException:
        builder.abort()
        raise
    return node


def _filtered(
    directories: DirectoryService,
    root: DirectoryNode,
    selection: Selection,
    blobs: BlobService | None,
    *,
    keep_empty: bool,
) -> Node | None:
    builder = _Builder(directories)
    ahead = DirectoriesAhead(directories, root.digest)

    def begin(path: TreePath, node: DirectoryNode, above: SelectedFolder | None) -> _Filter:
        if len(path) > MOST_LEVELS:
            message = f"the tree {root.digest} has more than {MOST_LEVELS} levels"
            raise InvalidDirectoryError(message, rule="too-deep")
        directory = ahead.take(node, path)
        view = None if blobs is None else DirectoryView(directory, blobs)
        selected = selection.at_root(view) if above is None else above.enter(path[-1], view)
        taken = {name: below for name, below in directory.items() if selected.takes(name, below)}
        inner = [(name, below) for name, below in taken.items() if isinstance(below, DirectoryNode)]
        return _Filter(path, node, directory, selected, taken, inner)

    try:
        frames = [begin(TreePath(), root, None)]
        while True:
            frame = frames[-1]
            if frame.begun < len(frame.below):
                name, below = frame.below[frame.begun]
                if not ahead.is_known(below.digest):
                    # With those that are gone through after it.
                    rows = (([node for _, node in each.below], each.begun) for each in reversed(frames))
                    ahead.fetch(coming_next(rows, ahead))
                frame.begun += 1
                frames.append(begin(frame.path.join(name), below, frame.selected))
                continue
            frames.pop()
            node: DirectoryNode | None = frame.node
            if not frame.nodes and frame.directory and not keep_empty:
                node = None
            elif frame.nodes != dict(frame.directory):
                node = builder.build(frame.nodes)
            if not frames:
                builder.close(node)
                return node
            above = frames[-1]
            if node is None:
                del above.nodes[above.name]
            else:
                above.nodes[above.name] = node
    except BaseException:
        builder.abort()
        raise
