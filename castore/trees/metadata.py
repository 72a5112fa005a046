r"""What a tree does not have of a folder, as a text beside it: modes, owners, times and more.

The text is that of mtree(5), so that others read it, too: a line for each entry, in the order of the tree.
What is no plain letter of a name is written as its byte in octal digits.

    #mtree
    . type=dir mode=0755 uid=1000 gid=1000 uname=me gname=me time=1700000000.000000000 nlink=3
    ./caf\303\251 type=file mode=0644 uid=1000 gid=1000 time=1700000000.000000005 nlink=2 link-group=1
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

import attrs

from castore.contract.directories import DirectoryService
from castore.errors import CastoreError, SourceError
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath
from castore.trees.folders import Folder, OpenTree, source_path
from castore.trees.walking import walk

EntryType: TypeAlias = Literal["dir", "file", "link"]

_FIRST: Final = b"#mtree\n"
_LONGEST_LINE: Final = 8 << 20
"""Attributes have 64 KiB at most, and an entry has few; a longer line is none."""

_NANO: Final = 1_000_000_000
_MOST_NUMBER: Final = (1 << 63) - 1

_ESCAPED: Final = [
    b"%c" % byte if (chr(byte).isalnum() and byte < 128) or byte in b"._/+,:@%~-" else b"\\%03o" % byte
    for byte in range(256)
]
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2})|\\")
_NUMBER: Final = re.compile(rb"[0-9]{1,19}")
_OCTAL: Final = re.compile(rb"[0-7]{1,6}")
_TIME: Final = re.compile(rb"(-?[0-9]{1,19})(?:\.([0-9]{1,9}))?")


class MetadataError(CastoreError):
    """A text is no metadata of a tree."""

    code = "metadata"


@attrs.frozen
class EntryMetadata:
    """What is known of an entry beside what the tree has of it. `None` stands for what is not known.

    Attributes:
        path: Where it is; the root has no names.
        type: What it is.
        mode: Its mode, of 12 bits.
        uid: The number of its owner.
        gid: The number of its group.
        uname: The name of its owner.
        gname: The name of its group.
        time: When it was changed last, in nanoseconds since 1970.
        nlink: How many names it has.
        link_group: A number that all names of one file share.
        xattrs: Its extended attributes, access lists among them.
    """

    path: TreePath
    type: EntryType
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    uname: bytes | None = None
    gname: bytes | None = None
    time: int | None = None
    nlink: int | None = None
    link_group: int | None = None
    xattrs: Mapping[bytes, bytes] = attrs.field(factory=dict)


# -- the text --


def format_metadata(entries: Iterable[EntryMetadata]) -> Iterator[bytes]:
    """Yield the lines of the text that says *entries*, which are in the order of the tree."""
    yield _FIRST
    for entry in entries:
        words = [_escaped(b"/".join((b".", *entry.path))), b"type=" + entry.type.encode()]
        if entry.mode is not None:
            words.append(b"mode=%04o" % entry.mode)
        for name, number in (("uid", entry.uid), ("gid", entry.gid)):
            if number is not None:
                words.append(b"%s=%d" % (name.encode(), number))
        for name, text in (("uname", entry.uname), ("gname", entry.gname)):
            if text is not None:
                words.append(b"%s=%s" % (name.encode(), _escaped(text)))
        if entry.time is not None:
            words.append(b"time=%d.%09d" % divmod(entry.time, _NANO))
        if entry.nlink is not None:
            words.append(b"nlink=%d" % entry.nlink)
        if entry.link_group is not None:
            words.append(b"link-group=%d" % entry.link_group)
        for key, value in sorted(entry.xattrs.items()):
            words.append(b"xattr.%s=%s" % (_escaped(key), base64.b64encode(value)))
        yield b" ".join(words) + b"\n"


def parse_metadata(lines: Iterable[bytes]) -> Iterator[EntryMetadata]:
    """Read what `format_metadata` has written; words that it does not write are passed over.

    Raises `MetadataError`, with the number of the line, for anything else.
    """
    for number, line in enumerate(lines, start=1):
        try:
            if number == 1 and line.rstrip() != _FIRST.rstrip():
                raise ValueError("it does not begin with `#mtree`")
            words = line.split()
            if words and not words[0].startswith(b"#"):
                yield _entry_of(words)
        except ValueError as error:
            raise MetadataError(f"this is no metadata of a tree: line {number}: {error}") from error


def metadata_lines(read: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of what comes in pieces; raise `MetadataError` for one that has no end."""
    held = b""
    for piece in read:
        *lines, held = (held + piece).split(b"\n")
        yield from lines
        if len(held) > _LONGEST_LINE:
            raise MetadataError("this is no metadata of a tree: a line has no end")
    if held:
        yield held


def _escaped(text: bytes) -> bytes:
    return b"".join([_ESCAPED[byte] for byte in text])


def _plain(text: bytes) -> bytes:
    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise ValueError("a backslash without three octal digits")
        return bytes([int(match[1], 8)])

    return _ESCAPE.sub(byte, text)


def _entry_of(words: list[bytes]) -> EntryMetadata:
    parts = words[0].split(b"/")
    if parts[0] != b".":
        raise ValueError("a path begins with a dot")
    values: dict[bytes, bytes] = {}
    xattrs: dict[bytes, bytes] = {}
    for word in words[1:]:
        key, _, value = word.partition(b"=")
        if key.startswith(b"xattr."):
            xattrs[_plain(key.removeprefix(b"xattr."))] = _from_base64(value)
        else:
            values[key] = value
    kind = values.get(b"type", b"").decode("ascii", "replace")
    if kind not in ("dir", "file", "link"):
        raise ValueError(f"no type that a tree has: {kind!r}")
    return EntryMetadata(
        TreePath([_plain(part) for part in parts[1:]]),
        kind,  # type: ignore[arg-type]
        mode=_number(values.get(b"mode"), _OCTAL, 8, most=0o7777),
        uid=_number(values.get(b"uid")),
        gid=_number(values.get(b"gid")),
        uname=_plain(values[b"uname"]) if b"uname" in values else None,
        gname=_plain(values[b"gname"]) if b"gname" in values else None,
        time=_time(values.get(b"time")),
        nlink=_number(values.get(b"nlink")),
        link_group=_number(values.get(b"link-group")),
        xattrs=xattrs,
    )


def _number(
    text: bytes | None, form: re.Pattern[bytes] = _NUMBER, base: int = 10, *, most: int = _MOST_NUMBER
) -> int | None:
    if text is None:
        return None
    if not form.fullmatch(text) or (number := int(text, base)) > most:
        raise ValueError(f"no number that can be there: {text[:30]!r}")
    return number


def _time(text: bytes | None) -> int | None:
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"no time: {text[:30]!r}")
    # As others have it, what is after the dot counts nanoseconds: `1.5` is 5 of them.
    return int(match[1]) * _NANO + int(match[2] or 0)


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"an attribute that is no base64: {error}") from error


# -- from a folder --


def metadata_of(
    source: str | bytes | os.PathLike[str], directories: DirectoryService, root: Node
) -> Iterator[EntryMetadata]:
    """Yield what a tree does not have of the folder, file or link that it was made of, in its order.

    It is as it is now. What is not there any more, or is something else, is passed over.

    Raises `SourceError` if the source cannot be read, and what the service raises.
    """
    path = source_path(source)
    above, name = os.path.split(path)
    is_folder = isinstance(root, DirectoryNode)
    try:
        with OpenTree(path if is_folder else above) as top:
            looker = _Looker()
            if not is_folder:
                yield from looker.look(top, name, TreePath(), root)
                return
            yield looker.look_at_top(top)
            folders: list[Folder | None] = [top]
            for where, node in walk(directories, root):
                del folders[len(where) :]
                folder = folders[-1]
                found = [] if folder is None else list(looker.look(folder, where[-1], where, node))
                yield from found
                if isinstance(node, DirectoryNode):
                    folders.append(_entered(folder, where[-1]) if found and folder is not None else None)
    except OSError as error:
        if isinstance(error, CastoreError):
            raise
        raise SourceError(f"cannot read {os.fsdecode(path)!r}: {error.strerror or error}") from error


def _entered(folder: Folder, name: bytes) -> Folder | None:
    try:
        return folder.enter(name)
    except OSError:
        return None


class _Looker:
    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], int] = {}

    def look_at_top(self, folder: Folder) -> EntryMetadata:
        with folder.descriptor() as descriptor:
            status = os.fstat(descriptor)
            return self._entry(TreePath(), "dir", status, _xattrs(b"/proc/self/fd/%d/." % descriptor))

    def look(self, folder: Folder, name: bytes, path: TreePath, node: Node) -> Iterator[EntryMetadata]:
        with folder.descriptor() as descriptor:
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                return
            kind = type_of_mode(status.st_mode)
            if kind is None or kind != type_of_node(node):
                return
            xattrs = _xattrs(b"/proc/self/fd/%d/%s" % (descriptor, name))
        yield self._entry(path, kind, status, xattrs)

    def _entry(
        self, path: TreePath, kind: EntryType, status: os.stat_result, xattrs: dict[bytes, bytes]
    ) -> EntryMetadata:
        group = None
        if kind == "file" and status.st_nlink > 1:
            group = self._groups.setdefault((status.st_dev, status.st_ino), len(self._groups) + 1)
        return EntryMetadata(
            path,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            uname=_user_name(status.st_uid),
            gname=_group_name(status.st_gid),
            time=status.st_mtime_ns,
            nlink=status.st_nlink,
            link_group=group,
            xattrs=xattrs,
        )


def type_of_node(node: Node) -> EntryType:
    """Return the type of an entry of a tree."""
    return "dir" if isinstance(node, DirectoryNode) else "file" if isinstance(node, FileNode) else "link"


def type_of_mode(mode: int) -> EntryType | None:
    """Return the type of something in a folder; `None` for what no tree has."""
    kinds: dict[int, EntryType] = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode))


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    with contextlib.suppress(OSError, AttributeError):
        for name in os.listxattr(path, follow_symlinks=False):
            with contextlib.suppress(OSError):
                found[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=False)
    return found


@functools.lru_cache(maxsize=1024)
def _user_name(number: int) -> bytes | None:
    import pwd  # noqa: PLC0415 - there are systems without

    try:
        return os.fsencode(pwd.getpwuid(number).pw_name)
    except KeyError:
        return None


@functools.lru_cache(maxsize=1024)
def _group_name(number: int) -> bytes | None:
    import grp  # noqa: PLC0415 - as above

    try:
        return os.fsencode(grp.getgrgid(number).gr_name)
    except KeyError:
        return None
