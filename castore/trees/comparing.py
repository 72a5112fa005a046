"""What two trees differ in: only directories with different digests are looked into."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, TypeAlias

import attrs

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import InvalidDirectoryError
from castore.format.closures import MOST_LEVELS
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.trees.reading_ahead import MOST_ITEMS, DirectoriesAhead
from castore.trees.walking import walk

Letter: TypeAlias = Literal["A", "D", "M", "X", "T", "L", "R"]
"""How something differs: it was added or deleted; a file has other contents, or may be executed now, or not
any more; something is of another kind; a link leads elsewhere; something has another name or place."""


@attrs.frozen
class Change:
    """One thing that two trees differ in.

    Attributes:
        letter: How.
        path: Where.
        before: What is there in the first one; `None` if it was added.
        after: What is there in the second one; `None` if it was deleted.
        source: Where it was before, if it has another place (`R`, which `with_renames` finds); else `None`.
    """

    letter: Letter
    path: TreePath
    before: Node | None
    after: Node | None
    source: TreePath | None = None


_Pair: TypeAlias = tuple[TreePath, Node | None, Node | None]


def diff(
    directories: DirectoryService,
    before: Node,
    after: Node,
    *,
    after_in: DirectoryService | None = None,
    roots: tuple[B3Digest | None, B3Digest | None] = (None, None),
) -> Iterator[Change]:
    """Yield what differs between two roots, in bytewise order of the names, directory by directory.

    Of a directory that was added or deleted all that is in it is named, after itself. Those that are equal
    are not looked into: what this costs grows with what differs. The others are read level by level, with one
    call for many.

    Arguments:
        directories: Where they are.
        before: The one root.
        after: The other one.
        after_in: Where the directories of the other one are, if elsewhere.
        roots: The roots of the two trees, if what is compared is part of them.

    Raises as `castore.trees.walking.walk` does.
    """
    services = directories, directories if after_in is None else after_in
    whole = [
        root or (node.digest if isinstance(node, DirectoryNode) else None)
        for root, node in zip(roots, (before, after), strict=True)
    ]
    return _Comparison(services, whole).run(before, after)


class _Comparison:
    def __init__(
        self, services: tuple[DirectoryService, DirectoryService], roots: list[B3Digest | None]
    ) -> None:
        self._services = services
        self._roots = roots
        self._ahead = [
            DirectoriesAhead(service, within=root) for service, root in zip(services, roots, strict=True)
        ]
        # What is still to be compared, the next pair last: no recursion, however deep it is.
        self._waiting: list[_Pair] = []

    def run(self, before: Node | None, after: Node | None) -> Iterator[Change]:
        self._waiting.append((TreePath(), before, after))
        while self._waiting:
            path, before, after = self._waiting.pop()
            if before == after:
                continue
            if isinstance(before, DirectoryNode) and isinstance(after, DirectoryNode):
                if before.digest != after.digest:
                    self._enter(path, before, after)
                continue
            yield Change(_letter(before, after), path, before, after)
            for other, node in self._below(0, path, before):
                yield Change("D", other, node, None)
            for other, node in self._below(1, path, after):
                yield Change("A", other, None, node)

    def _enter(self, path: TreePath, before: DirectoryNode, after: DirectoryNode) -> None:
        if len(path) > MOST_LEVELS:
            raise InvalidDirectoryError(f"the trees have more than {MOST_LEVELS} levels", rule="too-deep")
        if self._children(before, after) is None:
            pairs = [(before, after), *islice(self._coming(), MOST_ITEMS)]
            for side, ahead in enumerate(self._ahead):
                ahead.fetch(pair[side] for pair in pairs)
        first, second = (
            ahead.take(node, path) for ahead, node in zip(self._ahead, (before, after), strict=True)
        )
        self._waiting += reversed(_joined(path, first, second))

    def _coming(self) -> Iterator[tuple[DirectoryNode, DirectoryNode]]:
        """Yield the pairs of directories that are compared next, as far as that is known."""
        seen: set[tuple[B3Digest, B3Digest]] = set()
        for _, first, second in reversed(self._waiting):
            rows = [(first, second)]
            while rows:
                before, after = rows.pop()
                if not isinstance(before, DirectoryNode) or not isinstance(after, DirectoryNode):
                    continue
                pair = before.digest, after.digest
                if pair[0] == pair[1] or pair in seen:
                    continue
                seen.add(pair)
                children = self._children(before, after)
                if children is None:
                    yield before, after
                else:
                    rows += reversed(children)

    def _children(
        self, before: DirectoryNode, after: DirectoryNode
    ) -> list[tuple[Node | None, Node | None]] | None:
        """Return what is compared within two directories, if both were read."""
        first, second = (
            ahead.peek(node.digest) for ahead, node in zip(self._ahead, (before, after), strict=True)
        )
        if first is None or second is None:
            return None
        return [(node, second.get(name)) for name, node in first.directories]

    def _below(self, side: int, path: TreePath, node: Node | None) -> Iterator[tuple[TreePath, Node]]:
        if node is None:
            return iter(())
        return walk(self._services[side], node, path=path, within=self._roots[side])


def _joined(path: TreePath, first: Directory, second: Directory) -> list[_Pair]:
    """Return what two directories have by the same names, where that differs."""
    pairs = ((name, first.get(name), second.get(name)) for name in sorted(first.keys() | second.keys()))
    return [(path.join(name), before, after) for name, before, after in pairs if before != after]


def with_renames(changes: Iterable[Change]) -> list[Change]:
    """Return changes with what was deleted in one place and added in another one as one, whose letter is `R`.

    Of directories and files, by their digests; those of no bytes are not taken for the same. What is in a
    directory that has another place is not named.
    """
    rest = list(changes)
    for kind in (DirectoryNode, FileNode):
        rest = _pair_up(rest, kind)
    return rest


def _pair_up(changes: list[Change], kind: type[DirectoryNode | FileNode]) -> list[Change]:
    gone = [
        each for each in changes if each.letter == "D" and isinstance(each.before, kind) and each.before.size
    ]
    by_digest: dict[object, deque[Change]] = {}
    for change in gone:
        for key in _keys(change.before, change.path):
            by_digest.setdefault(key, deque()).append(change)
    moved_from: set[TreePath] = set()
    moved_to: dict[TreePath, Change] = {}
    for change in changes:
        if change.letter != "A" or not isinstance(change.after, kind):
            continue
        if any(parent in moved_to for parent in change.path.parents):
            continue
        # Of several the one that has kept its name.
        for key in _keys(change.after, change.path):
            candidates = by_digest.get(key, deque())
            while candidates and any(
                place in moved_from for place in (candidates[0].path, *candidates[0].path.parents)
            ):
                candidates.popleft()
            if candidates:
                found = candidates[0]
                moved_from.add(found.path)
                moved_to[change.path] = Change("R", change.path, found.before, change.after, found.path)
                break
    found_in = {"A": moved_to.keys(), "D": moved_from}
    kept = []
    for change in changes:
        places = found_in.get(change.letter, ())
        if change.letter == "A" and change.path in moved_to:
            kept.append(moved_to[change.path])
        elif not any(place in places for place in (change.path, *change.path.parents)):
            kept.append(change)
    return kept


def _keys(node: Node | None, path: TreePath) -> tuple[object, ...]:
    digest = getattr(node, "digest", None)
    return (digest, path[-1:]), digest


def _letter(before: Node | None, after: Node | None) -> Letter:
    if before is None:
        return "A"
    if after is None:
        return "D"
    if type(before) is not type(after):
        return "T"
    if isinstance(before, FileNode) and isinstance(after, FileNode):
        return "M" if before.digest != after.digest or before.size != after.size else "X"
    return "L"
