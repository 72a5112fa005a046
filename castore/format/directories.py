"""A directory, and the bytes that it is: what its digest is of.

Pure. The encoding is the reference's protobuf message `Directory`: first the entries that are directories
(field 1), then files (2), then links (3), each list by its names, in bytewise order, with what is zero or
false left out. So there is one encoding of a directory, and one digest. The empty directory is no bytes.

An entry for a directory has a *size*. The reference writes twice the number of entries plus the sizes of
those that are directories (`2n + s`). Its own texts say `n + s`, and others have written that. castore writes
the first and reads both.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from functools import cached_property
from typing import Any, Final, Self

from castore.digest import DIGEST_SIZE, B3Digest
from castore.errors import CorruptDirectoryError, DirectorySizeError, InvalidDirectoryError
from castore.format.nodes import (
    MOST_SIZE,
    DirectoryNode,
    FileNode,
    Node,
    PathComponent,
    SymlinkNode,
    SymlinkTarget,
    shown,
)

_DIRECTORIES: Final = 1
_FILES: Final = 2
_SYMLINKS: Final = 3


class Directory(Mapping[PathComponent, Node]):
    """Nodes by their names, in bytewise order of these. It does not change.

    Raises `InvalidDirectoryError` for a name that is none, or sizes that do not add up in 64 bits.
    """

    def __init__(self, nodes: Mapping[Any, Node] = {}) -> None:
        checked = {_component(name): node for name, node in nodes.items()}
        self._nodes = _sorted(checked)
        self._check_sizes()

    @classmethod
    def _of_checked(cls, nodes: dict[PathComponent, Node]) -> Self:
        """Return the directory of nodes that are in order, with names that were checked."""
        self = cls.__new__(cls)
        self._nodes = nodes
        self._check_sizes()
        return self

    def _check_sizes(self) -> None:
        self._below = sum(node.size for node in self._nodes.values() if type(node) is DirectoryNode)
        if len(self._nodes) + self._below > MOST_SIZE:
            message = "the sizes of its entries add up to more than 64 bits"
            raise InvalidDirectoryError(message, rule="overflow")

    def __getitem__(self, name: bytes) -> Node:
        return self._nodes[name]  # type: ignore[index] # bytes are as good as a component

    def __iter__(self) -> Iterator[PathComponent]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def items(self) -> ItemsView[PathComponent, Node]:
        """Return its entries, in order."""
        return self._nodes.items()

    def values(self) -> ValuesView[Node]:
        """Return the nodes of its entries, in order."""
        return self._nodes.values()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Directory):
            return self._nodes == other._nodes
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Directory {self.digest} of {len(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Directory, (self._nodes,)

    @cached_property
    def encoded(self) -> bytes:
        """Its encoding."""
        return encode(self._nodes)

    @cached_property
    def digest(self) -> B3Digest:
        """The digest of its encoding."""
        return B3Digest.of(self.encoded)

    @property
    def size(self) -> int:
        """What an entry for it says, as the reference writes that: twice its entries, and theirs."""
        return 2 * len(self._nodes) + self._below

    @property
    def possible_sizes(self) -> tuple[int, ...]:
        """What an entry for it may say: as the reference writes it, and as its texts have it."""
        sizes = (self.size, len(self._nodes) + self._below)
        return sizes if self._nodes else sizes[:1]

    @property
    def node(self) -> DirectoryNode:
        """The entry for it; raises `InvalidDirectoryError` if its size does not fit in one."""
        return DirectoryNode(self.digest, self.size)

    @property
    def directories(self) -> Iterator[tuple[PathComponent, DirectoryNode]]:
        """Its entries that are directories, in order."""
        for name, node in self._nodes.items():
            if type(node) is DirectoryNode:
                yield name, node

    def replace(self, name: bytes, node: Node | None) -> Directory:
        """Return a directory with *node* by this name, or with none."""
        nodes: dict[bytes, Node] = {bytes(each): self._nodes[each] for each in self}
        if node is None:
            nodes.pop(name, None)
        else:
            nodes[name] = node
        return Directory(nodes)

    @classmethod
    def decode(cls, data: bytes, *, canonical: bool = True) -> Self:
        """Read an encoding; raise `InvalidDirectoryError` for bytes that are none.

        Not *canonical*, it may also have fields that are not known, those that it has may come in another
        order or be given more than once, and what is zero need not be left out. Its digest is another one
        then than that of these bytes.
        """
        data = bytes(data)
        if (nodes := _canonical_nodes_of(data)) is not None:
            directory = cls._of_checked(nodes)
            directory.__dict__["encoded"] = data
            return directory
        directory = cls._of_checked(_nodes_of(data))
        if canonical:
            raise InvalidDirectoryError(
                "it is not encoded as castore and the reference do that: there are unknown fields, or zeros",
                rule="canonical",
            )
        return directory


def check_edge(name: bytes, node: DirectoryNode, directory: Directory) -> None:
    """Raise `DirectorySizeError` unless the entry *node*, by this name, gives its directory a right size."""
    if node.size not in directory.possible_sizes:
        raise DirectorySizeError(name, node.size, directory.possible_sizes)


def decode_checked(data: bytes, digest: B3Digest, *, key: str | None = None) -> Directory:
    """Read the directory *digest* from what is stored; raise `CorruptDirectoryError` for anything else.

    *key* is where it is stored, to name it in an error.
    """
    found = B3Digest.of(data)
    if found != digest:
        message = f"directory {digest} is corrupt: its bytes have the digest {found}"
        raise CorruptDirectoryError(message, expected=digest, found=found, key=key)
    try:
        return Directory.decode(data)
    except InvalidDirectoryError as error:
        message = f"{digest} is no directory: {error}"
        raise CorruptDirectoryError(message, expected=digest, found=digest, key=key) from error


def _component(name: bytes) -> PathComponent:
    return name if type(name) is PathComponent else PathComponent(name)


def _sorted(nodes: Mapping[PathComponent, Node]) -> dict[PathComponent, Node]:
    return {name: nodes[name] for name in sorted(nodes)}


# -- writing --


def encode(nodes: Mapping[PathComponent, Node]) -> bytes:
    """Return the encoding of nodes that are in order of their names."""
    lists: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
    for name, node in nodes.items():
        entry = b"\n" + _varint(len(name)) + name
        if type(node) is SymlinkNode:
            entry += b"\x12" + _varint(len(node.target)) + node.target
            lists[2].append(b"\x1a" + _varint(len(entry)) + entry)
            continue
        assert not isinstance(node, SymlinkNode)
        entry += b"\x12 " + node.digest
        if node.size:
            entry += b"\x18" + _varint(node.size)
        if isinstance(node, DirectoryNode):
            lists[0].append(b"\n" + _varint(len(entry)) + entry)
        else:
            if node.executable:
                entry += b" \x01"
            lists[1].append(b"\x12" + _varint(len(entry)) + entry)
    return b"".join([part for entries in lists for part in entries])


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _BYTES[number]
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


_BYTES: Final = [bytes([number]) for number in range(0x80)]


# -- reading --


def _canonical_nodes_of(data: bytes) -> dict[PathComponent, Node] | None:
    """Read what `encode` has written, in one go; `None` for anything else, of which `_nodes_of` says more."""
    try:
        return _read_canonical(data)
    except (IndexError, ValueError):
        return None


def _read_canonical(data: bytes) -> dict[PathComponent, Node] | None:
    nodes: dict[PathComponent, Node] = {}
    position, end = 0, len(data)
    list_tag, last = 0, b""
    lists = 0
    while position < end:
        tag = data[position]
        if tag != list_tag:
            if tag <= list_tag or tag not in _TAGS:
                return None
            list_tag, last = tag, b""
            lists += 1
        length, position = _short_varint(data, position + 1)
        stop = position + length
        if data[position] != 0x0A or stop > end:
            return None
        length, position = _short_varint(data, position + 1)
        name = PathComponent(data[position : position + length])
        position += length
        if name <= last or name in nodes or data[position] != 0x12:
            return None
        last = name
        length, position = _short_varint(data, position + 1)
        value = data[position : position + length]
        position += length
        if tag == _TAGS[2]:
            nodes[name] = SymlinkNode(SymlinkTarget(value))
        else:
            digest = B3Digest(value)
            size, executable = 0, False
            if position < stop and data[position] == 0x18:
                size, position = _read_varint(data, position + 1, stop)
                if not size or data[position - 1] == 0:
                    return None
            if tag == _TAGS[1] and position < stop and data[position : position + 2] == b" \x01":
                executable = True
                position += 2
            nodes[name] = (
                DirectoryNode(digest, size) if tag == _TAGS[0] else FileNode(digest, size, executable)
            )
        if position != stop:
            return None
    return nodes if lists < 2 else _sorted(nodes)


_TAGS: Final = (0x0A, 0x12, 0x1A)
"""How an entry of each list begins."""


def _short_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a length that takes no more than two bytes, as few as possible; else raise `IndexError`."""
    low = data[position]
    if low < 0x80:
        return low, position + 1
    high = data[position + 1]
    if not 0 < high < 0x80:
        raise IndexError
    return low & 0x7F | high << 7, position + 2


_VARINT: Final = 0
_FIXED_64: Final = 1
_BYTES_OF: Final = 2
_FIXED_32: Final = 5
_DEEPEST_GROUPS: Final = 100
_MOST_VARINT_BYTES: Final = 10


def _nodes_of(data: bytes) -> dict[PathComponent, Node]:
    lists: tuple[list[tuple[bytes, int, int]], ...] = ([], [], [])
    last = [b"", b"", b""]
    for field, start, end in _messages(data):
        name = _name_of(data, start, end)
        # In each list the names ascend; so an empty one is wrong as well.
        if name <= last[field - 1]:
            if name == last[field - 1] and name:
                raise InvalidDirectoryError(f"{shown(name)} is a duplicate name", rule="duplicate", name=name)
            raise InvalidDirectoryError(f"{shown(name)} is not in order", rule="sorting", name=name)
        last[field - 1] = name
        lists[field - 1].append((name, start, end))
    nodes: dict[PathComponent, Node] = {}
    for field, entries in enumerate(lists, 1):
        for raw, start, end in entries:
            node = _node_of(field, data, start, end)
            name = PathComponent(raw)
            if name in nodes:
                raise InvalidDirectoryError(f"{shown(name)} is a duplicate name", rule="duplicate", name=name)
            nodes[name] = node
    used = sum(1 for entries in lists if entries)
    return nodes if used < 2 else _sorted(nodes)


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field that is known, and where its message begins and ends."""
    for field, kind, start, end, _ in _fields(data, 0, len(data)):
        if field in (_DIRECTORIES, _FILES, _SYMLINKS):
            _require(kind == _BYTES_OF, "an entry is no message")
            yield field, start, end


def _name_of(data: bytes, begin: int, end: int) -> bytes:
    name = b""
    for field, kind, start, stop, _ in _fields(data, begin, end):
        if field == 1:
            _require(kind == _BYTES_OF, "a name is no string of bytes")
            name = data[start:stop]
    return name


def _node_of(list_number: int, data: bytes, begin: int, end: int) -> Node:
    text = b""
    numbers = {3: 0, 4: 0}
    known = {_DIRECTORIES: (3,), _FILES: (3, 4), _SYMLINKS: ()}[list_number]
    for field, kind, start, stop, value in _fields(data, begin, end):
        if field == 2:
            _require(kind == _BYTES_OF, "a digest or target is no string of bytes")
            text = data[start:stop]
        elif field in known:
            _require(kind == _VARINT, "a size or mark is no number")
            numbers[field] = value
    if list_number == _SYMLINKS:
        return SymlinkNode(SymlinkTarget(text))
    if len(text) != DIGEST_SIZE:
        raise InvalidDirectoryError(f"an entry has a digest of {len(text)} bytes, not 32", rule="digest")
    if list_number == _DIRECTORIES:
        return DirectoryNode(B3Digest(text), numbers[3])
    return FileNode(B3Digest(text), numbers[3], bool(numbers[4]))


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield of each field of a message its number, its kind, where its bytes are, or its number's value."""
    while position < end:
        tag, position = _read_varint(data, position, end)
        field, kind = tag >> 3, tag & 7
        _require(0 < field <= 0x1FFFFFFF, "a field has no number")
        start, value = position, 0
        if kind == _VARINT:
            value, position = _read_varint(data, position, end)
        elif kind == _BYTES_OF:
            length, start = _read_varint(data, position, end)
            position = start + length
        elif kind == _FIXED_64:
            position += 8
        elif kind == _FIXED_32:
            position += 4
        else:
            _require(kind == 3, "a field is of no known kind")
            position = _end_of_group(data, position, end, field)
        _require(position <= end, "it is cut short")
        yield field, kind, start, position, value


def _end_of_group(data: bytes, position: int, end: int, number: int) -> int:
    """Return where a group ends, an old kind of field that nobody writes."""
    groups = [number]
    while groups:
        tag, position = _read_varint(data, position, end)
        field, kind = tag >> 3, tag & 7
        if kind == 4:
            _require(field == groups.pop(), "a group does not end")
        elif kind == 3:
            groups.append(field)
            _require(len(groups) <= _DEEPEST_GROUPS, "groups are nested too deep")
        elif kind == _VARINT:
            _, position = _read_varint(data, position, end)
        elif kind == _BYTES_OF:
            length, position = _read_varint(data, position, end)
            position += length
        else:
            _require(kind in (_FIXED_64, _FIXED_32), "a field is of no known kind")
            position += 8 if kind == _FIXED_64 else 4
        _require(position <= end, "it is cut short")
    return position


def _read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    # Most are of one byte.
    _require(position < end, "it is cut short")
    number = data[position]
    if number < 0x80:
        return number, position + 1
    number &= 0x7F
    for count in range(1, _MOST_VARINT_BYTES):
        _require(position + count < end, "it is cut short")
        byte = data[position + count]
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            _require(number <= MOST_SIZE, "a number has more than 64 bits")
            return number, position + count + 1
    raise InvalidDirectoryError("this is no directory: a number does not end", rule="encoding")


def _require(condition: bool, words: str) -> None:
    if not condition:
        raise InvalidDirectoryError(f"this is no directory: {words}", rule="encoding")
