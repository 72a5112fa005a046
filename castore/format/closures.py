"""A whole tree as a sequence of directories: the order that they must come in, and the bytes of a sequence.

Pure. A *closure* is a directory with all those below it, each once. Some send it from the leaves to the root,
some from the root to the leaves; both are checked while they come, each directory before it is used. Whoever
takes a sequence calls `finish` at its end: a sequence that was cut short is an error, and no smaller tree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from castore.digest import B3Digest
from castore.errors import (
    CorruptDirectoryError,
    DirectoryOrderError,
    DirectorySizeError,
    InvalidDirectoryError,
)
from castore.format.directories import Directory

MOST_FRAME: Final = 16 << 20
"""How many bytes a directory of a closure has at most: some 300,000 entries. More is taken for damage."""

MOST_LEVELS: Final = 4096
"""Deeper trees are refused: no file system could hold them, and a few bytes can name millions of levels."""

MOST_UNPACKED: Final = 512 << 20
"""How many bytes a closure that is one object unpacks to at most: directories of some ten million entries."""

_MOST_REPEATED: Final = 1 << 20
"""How many bytes more than all others those of it may be that came before: the reference writes none of them,
and passes them on."""

_LENGTH_SIZE: Final = 4
_MOST_NAMED: Final = 10


class LeavesToRoot:
    """Checks directories that come from the leaves to the root.

    Each child of a directory came before it, and has a size that the entry for it may say. A directory that
    comes again is passed over.
    """

    def __init__(self) -> None:
        self._sizes: dict[B3Digest, tuple[int, ...]] = {}
        self._unreferenced: dict[B3Digest, None] = {}

    def __contains__(self, digest: B3Digest) -> bool:
        """Tell whether a directory has come."""
        return digest in self._sizes

    def accept(self, directory: Directory) -> bool:
        """Take the next one; return False for one that came before.

        Raises `DirectoryOrderError` for a child that has not come, and `DirectorySizeError`.
        """
        digest = directory.digest
        if digest in self._sizes:
            return False
        for name, node in directory.directories:
            sizes = self._sizes.get(node.digest)
            if sizes is None:
                text = name.decode("utf-8", "backslashreplace")
                message = f"directory {digest} has by the name {text!r} {node.digest}, which has not come"
                raise DirectoryOrderError(message, [node.digest])
            if node.size not in sizes:
                raise DirectorySizeError(name, node.size, sizes)
        for _, node in directory.directories:
            self._unreferenced.pop(node.digest, None)
        self._sizes[digest] = directory.possible_sizes
        self._unreferenced[digest] = None
        return True

    def take_for_granted(self, digest: B3Digest, size: int) -> None:
        """Take a directory of this size, with all below it, for one that came: it is there already."""
        if digest not in self._sizes:
            self._sizes[digest] = (size,)
            self._unreferenced[digest] = None

    def finish(self) -> B3Digest:
        """Return the root, the one directory that no other refers to; else raise `DirectoryOrderError`."""
        if len(self._unreferenced) == 1:
            return next(iter(self._unreferenced))
        if not self._unreferenced:
            raise DirectoryOrderError("no directory has come, and a tree has one at least")
        count = len(self._unreferenced)
        raise _order_error(
            f"a tree has one root, and no other refers to {count} directories", self._unreferenced
        )


class RootToLeaves:
    """Checks directories that come from the root to the leaves, each after one that refers to it.

    A directory that comes again is passed over.
    """

    def __init__(self, root: B3Digest) -> None:
        self._root = root
        self._levels: dict[B3Digest, int] = {root: 0}
        # The sizes that entries say, each with the name of the first one.
        self._expected: dict[B3Digest, dict[int, bytes]] = {root: {}}
        self._seen: dict[B3Digest, tuple[int, ...]] = {}

    def has_come(self, digest: B3Digest) -> bool:
        """Tell whether a directory came already."""
        return digest in self._seen

    def allows(self, digest: B3Digest) -> bool:
        """Tell whether a directory may come now: its bytes are looked into only then."""
        return digest in self._expected or digest in self._seen

    def accept(self, directory: Directory) -> bool:
        """Take the next one; return False for one that came before.

        Raises `DirectoryOrderError` for one that none before it refers to, `DirectorySizeError`, and
        `InvalidDirectoryError` for more than `MOST_LEVELS` levels.
        """
        digest = directory.digest
        if digest in self._seen:
            return False
        sizes = self._expected.get(digest)
        if sizes is None:
            words = "is not the root" if not self._seen else "is one that none before it refers to"
            raise DirectoryOrderError(f"directory {digest} {words} of the tree {self._root}", [digest])
        possible = directory.possible_sizes
        for size, name in sizes.items():
            if size not in possible:
                raise DirectorySizeError(name, size, possible)
        for name, node in directory.directories:
            known = self._seen.get(node.digest)
            if known is not None and node.size not in known:
                raise DirectorySizeError(name, node.size, known)
        self._seen[digest] = possible
        del self._expected[digest]
        level = self._levels.pop(digest) + 1
        for name, node in directory.directories:
            if level > MOST_LEVELS:
                message = f"the tree {self._root} has more than {MOST_LEVELS} levels"
                raise InvalidDirectoryError(message, rule="too-deep")
            if node.digest not in self._seen:
                self._expected.setdefault(node.digest, {}).setdefault(node.size, name)
                self._levels.setdefault(node.digest, level)
        return True

    @property
    def pending(self) -> list[B3Digest]:
        """Those that must still come."""
        return list(self._expected)

    def finish(self) -> None:
        """Raise `DirectoryOrderError` if some have not come."""
        if self._expected:
            count = len(self._expected)
            message = f"the tree {self._root} is cut short: {count} of its directories are missing"
            raise _order_error(message, self._expected)


def _order_error(message: str, digests: Iterable[B3Digest]) -> DirectoryOrderError:
    all_of_them = list(digests)
    some = all_of_them[:_MOST_NAMED]
    dots = " ..." if len(some) < len(all_of_them) else ""
    return DirectoryOrderError(f"{message}: {', '.join(map(str, some))}{dots}", some)


# -- a closure as an object --


def encode(directories: Iterable[Directory], *, index: bool = False) -> bytes:
    """Return a closure, given with the root first, as the reference stores it: as one zstd frame.

    Arguments:
        directories: The directories.
        index: Whether a frame follows that others skip, and in which `read_index` finds what is in the first.

    Raises `InvalidDirectoryError` if it has more than `MOST_UNPACKED` bytes.
    """
    from castore.format import frames  # noqa: PLC0415 - few need zstandard

    payload = bytearray()
    entries: list[bytes] = []
    for directory in directories:
        if index:
            entries.append(_ENTRY.pack(directory.digest[:INDEX_KEY], len(payload)))
        for frame in encode_frames((directory,)):
            payload += frame
        if len(payload) > MOST_UNPACKED:
            message = (
                f"the directories of the tree have more than {MOST_UNPACKED >> 20} MiB together, too many for"
                " one object; services of the types `blobs` and `sqlite` have room for them"
            )
            raise InvalidDirectoryError(message, rule="too-long")
    return frames.compress(payload) + (_as_tail(b"".join(sorted(entries))) if index else b"")


def decode(data: bytes, root: B3Digest, *, key: str | None = None) -> Iterator[Directory]:
    """Yield the directories of the closure of *root*, each once, as they are stored: the root first.

    A directory is looked into only if it belongs to the tree. What is held grows with the number of
    directories, not with what is in them; no more is unpacked than `MOST_UNPACKED`. *key* is where it is
    stored, to name it in an error.

    Raises `CorruptDirectoryError` for what is no whole closure, after what could be read of it.
    """
    from castore.format import frames  # noqa: PLC0415 - as above

    order, reader = RootToLeaves(root), FrameReader()
    unpacked = repeated = 0
    try:
        for piece in frames.unpack_first(data):
            unpacked += len(piece)
            if unpacked > MOST_UNPACKED:
                raise ValueError(f"it unpacks to more than {MOST_UNPACKED >> 20} MiB")
            for encoded in reader.take(piece):
                digest = B3Digest.of(encoded)
                if order.has_come(digest):
                    repeated += _LENGTH_SIZE + len(encoded)
                    if 2 * repeated > unpacked + _MOST_REPEATED:
                        raise ValueError("it has the same directories over and over")
                    continue
                if not order.allows(digest):
                    raise ValueError(f"it has {digest}, which does not belong to it")
                directory = Directory.decode(encoded)
                order.accept(directory)
                yield directory
        reader.finish()
        order.finish()
    except ValueError as error:
        message = f"the tree {root} is corrupt: {error}"
        raise CorruptDirectoryError(message, expected=root, key=key) from error


# -- what is in such an object, at its end --

INDEX_KEY: Final = 8
"""So many bytes of a digest are in an index."""

_ENTRY: Final = struct.Struct(f"<{INDEX_KEY}sI")
_SKIPPABLE: Final = struct.Struct("<II")
_TAIL_MAGIC: Final = 0x184D2A5C
_TAIL_END: Final = struct.Struct("<I8s")
_TAIL_MARK: Final = b"CASDIRX1"


def _as_tail(entries: bytes) -> bytes:
    end = _TAIL_END.pack(len(entries) // _ENTRY.size, _TAIL_MARK)
    return _SKIPPABLE.pack(_TAIL_MAGIC, len(entries) + len(end)) + entries + end


def index_length(end: bytes) -> int | None:
    """Return how many bytes the index has that an object ends in, by its last bytes; `None` without one."""
    if len(end) < _TAIL_END.size:
        return None
    count, mark = _TAIL_END.unpack(end[-_TAIL_END.size :])
    return _SKIPPABLE.size + count * _ENTRY.size + _TAIL_END.size if mark == _TAIL_MARK else None


def read_index(end: bytes) -> bytes | None:
    """Return the keys in order, one after the other, of an index that *end* ends in; `None` without one."""
    length = index_length(end)
    if length is None or length > len(end):
        return None
    tail = end[-length:]
    if _SKIPPABLE.unpack_from(tail) != (_TAIL_MAGIC, length - _SKIPPABLE.size):
        return None
    entries = _ENTRY.iter_unpack(tail[_SKIPPABLE.size : -_TAIL_END.size])
    keys = [key for key, _ in entries]
    return b"".join(keys) if keys == sorted(keys) else None


# -- a closure as bytes --


def encode_frames(directories: Iterable[Directory]) -> Iterator[bytes]:
    """Yield the bytes of a sequence: each directory after its length, of four bytes, the highest first."""
    for directory in directories:
        data = directory.encoded
        yield len(data).to_bytes(_LENGTH_SIZE, "big") + data


class FrameReader:
    """Takes the bytes of a sequence in pieces, and yields those of each directory when they are whole.

    Raises `InvalidDirectoryError` for one of more than *most* bytes, before it has come.
    """

    def __init__(self, most: int = MOST_FRAME) -> None:
        self._most = most
        self._held = bytearray()

    def take(self, piece: bytes) -> Iterator[bytes]:
        """Yield what is whole with this piece."""
        held = self._held
        held += piece
        start = 0
        while len(held) - start >= _LENGTH_SIZE:
            length = int.from_bytes(held[start : start + _LENGTH_SIZE], "big")
            if length > self._most:
                raise InvalidDirectoryError(
                    f"a directory of {length} bytes is announced, and {self._most} are the most",
                    rule="too-long",
                )
            end = start + _LENGTH_SIZE + length
            if len(held) < end:
                break
            yield bytes(held[start + _LENGTH_SIZE : end])
            start = end
        del held[:start]

    def finish(self) -> None:
        """Raise `InvalidDirectoryError` if a directory is cut short."""
        if self._held:
            raise InvalidDirectoryError("the last directory is cut short", rule="encoding")
