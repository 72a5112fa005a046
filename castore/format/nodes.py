"""What a directory has by its names: files, directories and symbolic links; and the names themselves.

Pure values. Names and targets are bytes, as they are on a disk; text is for people only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self, TypeAlias

import attrs

from castore.digest import B3Digest
from castore.errors import InvalidDirectoryError

LONGEST_NAME: Final = 255
LONGEST_TARGET: Final = 4095
MOST_SIZE: Final = (1 << 64) - 1
"""The largest size that an entry can have: an unsigned number of 64 bits."""


class PathComponent(bytes):
    """The name of an entry: 1 to 255 bytes, without NUL and `/`, and neither `.` nor `..`."""

    __slots__ = ()

    def __new__(cls, name: bytes) -> Self:
        """Check *name*; raise `InvalidDirectoryError` for what is none."""
        if not 0 < len(name) <= LONGEST_NAME or b"/" in name or b"\0" in name or name in (b".", b".."):
            rule, words = _what_is_wrong_with(name)
            raise InvalidDirectoryError(f"{shown(name)} is no name: {words}", rule=rule, name=bytes(name))
        return super().__new__(cls, name)


def _what_is_wrong_with(name: bytes) -> tuple[str, str]:
    # In the order of the reference.
    wrongs = (
        (not name, "empty", "it is empty"),
        (name == b"..", "dot-dot", "it stands for the folder above"),
        (name == b".", "dot", "it stands for the folder itself"),
        (len(name) > LONGEST_NAME, "too-long", f"it has {len(name)} bytes; {LONGEST_NAME} are the most"),
        (b"\0" in name, "null", "it has a byte of zero"),
        (b"/" in name, "slash", "it has a slash"),
    )
    return next((rule, words) for wrong, rule, words in wrongs if wrong)


class SymlinkTarget(bytes):
    """Where a symbolic link points to: 1 to 4095 bytes without NUL, whatever they say."""

    __slots__ = ()

    def __new__(cls, target: bytes) -> Self:
        """Check *target*; raise `InvalidDirectoryError` for what is none."""
        rule = words = ""
        if not target:
            rule, words = "empty", "it is empty"
        elif len(target) > LONGEST_TARGET:
            words = f"it has {len(target)} bytes, and a target has {LONGEST_TARGET} at most"
            rule = "too-long"
        elif b"\0" in target:
            rule, words = "null", "it has a byte of zero"
        if rule:
            raise InvalidDirectoryError(f"{shown(target)} is no target of a link: {words}", rule=rule)
        return super().__new__(cls, target)


def shown(name: bytes) -> str:
    """Return a name for people: in quotes, at most 80 characters of it."""
    text = repr(bytes(name).decode("utf-8", "backslashreplace"))
    return text if len(text) <= 80 else f"{text[:70]}...'"


def _check_size(_: object, __: object, size: int) -> None:
    if not 0 <= size <= MOST_SIZE:
        raise InvalidDirectoryError(f"{size} is no size: one has 64 bits", rule="size")


@attrs.frozen(slots=True)
class FileNode:
    """A regular file: its blob, how many bytes that has, and whether it may be executed."""

    digest: B3Digest
    size: int = attrs.field(validator=_check_size)
    executable: bool = False


@attrs.frozen(slots=True)
class DirectoryNode:
    """A directory, and its size: a count of what is below it, by a rule of `castore.format.directories`."""

    digest: B3Digest
    size: int = attrs.field(validator=_check_size)


@attrs.frozen(slots=True)
class SymlinkNode:
    """A symbolic link."""

    target: SymlinkTarget = attrs.field(converter=SymlinkTarget)


Node: TypeAlias = FileNode | DirectoryNode | SymlinkNode
"""What a name stands for. A node has no name of its own."""


def node_to_json(node: Node) -> dict[str, Any]:
    """Return a node as the reference writes it in JSON; bytes of a target that are no UTF-8 as surrogates."""
    match node:
        case FileNode():
            facts = {"digest": node.digest.sri, "size": node.size, "executable": node.executable}
            return {"type": "file", **facts}
        case DirectoryNode():
            return {"type": "directory", "digest": node.digest.sri, "size": node.size}
        case SymlinkNode():
            return {"type": "symlink", "target": node.target.decode("utf-8", "surrogateescape")}


def node_from_json(data: Mapping[str, Any]) -> Node:
    """Read what `node_to_json` has written; raise `InvalidDirectoryError` for anything else."""
    try:
        match dict(data):
            # A truth value is a number for Python.
            case {"size": bool()}:
                raise InvalidDirectoryError("a size is a number", rule="node")
            case {"type": "file", "digest": str(text), "size": int(size), "executable": bool(mark), **rest}:
                node: Node = FileNode(B3Digest.parse(text), size, mark)
            case {"type": "directory", "digest": str(text), "size": int(size), **rest}:
                node = DirectoryNode(B3Digest.parse(text), size)
            case {"type": "symlink", "target": str(target), **rest}:
                node = SymlinkNode(SymlinkTarget(target.encode("utf-8", "surrogateescape")))
            case _:
                raise InvalidDirectoryError("this is no node: see `node_to_json`", rule="node")
    except ValueError as error:
        if isinstance(error, InvalidDirectoryError):
            raise
        raise InvalidDirectoryError(f"this is no node: {error}", rule="node") from error
    if rest:
        raise InvalidDirectoryError(f"a node has no `{next(iter(rest))}`", rule="node")
    return node


class TreePath(tuple[PathComponent, ...]):
    """A path in a tree, from its root: names one below the other. The root itself has none.

    Its text has slashes between the names, and nowhere else.
    """

    __slots__ = ()

    def __new__(cls, names: Iterable[bytes] = ()) -> Self:
        """Check the names; raise `InvalidDirectoryError` for what is none."""
        return super().__new__(cls, [n if isinstance(n, PathComponent) else PathComponent(n) for n in names])

    @classmethod
    def parse(cls, path: bytes | str) -> Self:
        """Read a path as it is written; raise `InvalidDirectoryError` for one with `.`, `..`, `//` or more.

        The bytes of a text are those of its UTF-8, surrogates standing for those that are none.
        """
        raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
        return cls(raw.split(b"/")) if raw else cls()

    @classmethod
    def parse_loosely(cls, path: bytes | str) -> Self:
        """Read a path as a person types it: `.`, doubled and last slashes are passed over, `..` goes up.

        Raises `InvalidDirectoryError` for one that begins with a slash or leads out of the tree.
        """
        raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
        if raw.startswith(b"/"):
            message = f"{shown(raw)} begins with a slash: a path in a tree begins at its root"
            raise InvalidDirectoryError(message, rule="absolute", name=raw)
        names: list[bytes] = []
        for name in raw.split(b"/"):
            if name == b"..":
                if not names:
                    message = f"{shown(raw)} leads out of the tree"
                    raise InvalidDirectoryError(message, rule="dot-dot", name=raw)
                names.pop()
            elif name not in (b"", b"."):
                names.append(name)
        return cls(names)

    @property
    def parents(self) -> Iterator[TreePath]:
        """The paths above this one, the nearest first, the root last."""
        return (TreePath(self[:length]) for length in range(len(self) - 1, -1, -1))

    def join(self, *names: bytes) -> TreePath:
        """Return the path of names below this one."""
        return TreePath((*self, *names))

    def __bytes__(self) -> bytes:
        return b"/".join(self)

    def __str__(self) -> str:
        return bytes(self).decode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"TreePath.parse({bytes(self)!r})"
