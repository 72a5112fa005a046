"""What of a folder, or of a tree, is taken, and which rule drops the rest.

The rules are gitignore's: of those of one place the last one that fits decides, those of a deeper place
before those above it, and what is given with a command before all. Nothing is asked of what lies in a folder
that is dropped, so no rule takes that in again.

    selection = Selection([Pattern(b"*.o", "--exclude")], ignore_files=[b".gitignore"])
    level = selection.at_root(view)                      # what is known of the folder at the top
    level.reason_against(b"main.o", is_folder=False)     # "--exclude '*.o'"
    level.enter(b"docs", view_of_docs)                   # the same for a folder in it
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import attrs

from castore.contract.blobs import BlobService
from castore.errors import SourceError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node

CACHE_TAG: Final = b"CACHEDIR.TAG"
CACHE_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"
"""The name and the first bytes of a file that marks a folder as a cache: the Cache Directory Tagging Spec."""

MOST_RULES: Final = 4 << 20
"""How many bytes a file of rules may have."""

# Characters that mean nothing to anybody: bytes are these while patterns and names are compared, so that
# neither an odd byte nor the end of a line is anything but itself.
_STAND_INS: Final = {byte: chr(0xE000 + byte) for byte in range(256)}
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_OF_NAMES: Final = {
    byte: chr(byte) if byte in _PLAIN or byte == ord("/") else _STAND_INS[byte] for byte in range(256)
}

_MANY_STARS: Final = re.compile(r"(?:(?<=/)|^)\*{3,}(?=/|$)")

_CLASSES: Final[Mapping[bytes, bytes]] = {
    b"alnum": b"[A-Za-z0-9]",
    b"alpha": b"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": b"[0-9]",
    b"graph": b"[!-~]",
    b"lower": b"[a-z]",
    b"print": b"[ -~]",
    b"punct": b"[!-/:-@\\[-`{-~]",
    b"space": rb"[ \t\n\v\f\r]",
    b"upper": b"[A-Z]",
    b"xdigit": b"[0-9A-Fa-f]",
}
"""The sets that have names, as expressions of Python's."""

_Written: TypeAlias = str
"""A path in stand-ins."""


class _NeverError(Exception):
    """The pattern fits nothing: gitignore has no errors."""


@attrs.frozen(eq=False)
class Pattern:
    """A line of gitignore's, and where it is from.

    Arguments:
        line: The line, with a `!` in front if it takes in again what others drop.
        source: Where it is from, for those who ask why: `--exclude`, or a file and the number of the line.

    What is empty, or a comment, fits nothing.
    """

    line: bytes
    source: str
    takes_in: bool = attrs.field(init=False)
    """Whether what fits is taken."""
    _regex: re.Pattern[str] | None = attrs.field(init=False, repr=False)
    _only_folders: bool = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Few folders are taken by patterns.
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # noqa: PLC0415

        text = _without_spaces_at_the_end(self.line)
        takes_in = text.startswith(b"!")
        text = text[takes_in:]
        only_folders = text.endswith(b"/")
        text = text[: len(text) - only_folders]
        regex = None
        if text and not self.line.startswith(b"#"):
            try:
                regex = GitIgnoreSpecPattern(_translated(text)).regex
            except (_NeverError, ValueError):
                regex = None
        object.__setattr__(self, "takes_in", takes_in)
        object.__setattr__(self, "_only_folders", only_folders)
        object.__setattr__(self, "_regex", regex)

    @property
    def fits_something(self) -> bool:
        """Whether it is more than a comment, an empty line, or what gitignore cannot read."""
        return self._regex is not None

    def fits(self, path: _Written, *, is_folder: bool) -> bool:
        """Tell whether it is about a path itself, not about one above it."""
        if self._regex is None or (self._only_folders and not is_folder):
            return False
        match = self._regex.match(path)
        return match is not None and not match.groupdict().get("ps_d")

    def __str__(self) -> str:
        return f"{self.source} {_quoted(self.line)}"


def _written(path: bytes) -> _Written:
    return path.decode("latin-1").translate(_OF_NAMES)


def _quoted(line: bytes) -> str:
    return repr(line.decode("utf-8", "surrogateescape"))


def patterns_in(data: bytes, source: str) -> list[Pattern]:
    """Return the patterns of a file of rules, in order.

    Arguments:
        data: The bytes of the file.
        source: What the file is called.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    found = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        pattern = Pattern(line.removesuffix(b"\r"), f"{source}:{number}")
        if pattern.fits_something:
            found.append(pattern)
    return found


def _without_spaces_at_the_end(line: bytes) -> bytes:
    """Return a line without those spaces at its end that no backslash keeps."""
    end = position = 0
    while position < len(line):
        if line[position : position + 1] == b"\\":
            position += 2
            end = position
        else:
            position += 1
            if line[position - 1] != ord(" "):
                end = position
    return line[:end]


def _translated(text: bytes) -> str:
    """Return a pattern of which only `*`, `?`, `/` and sets of stand-ins are special."""
    if text.startswith(b"\\/"):
        raise _NeverError  # No path begins with one.
    parts: list[str] = []
    position = 0
    while position < len(text):
        byte = text[position]
        position += 1
        if byte in b"*?/":
            parts.append(chr(byte))
        elif byte == ord("["):
            some, position = _set_at(text, position)
            parts.append("[" + "".join(map(_OF_NAMES.__getitem__, sorted(some))) + "]")
        else:
            if byte == ord("\\"):
                if position == len(text):
                    raise _NeverError
                byte = text[position]
                position += 1
            parts.append(_OF_NAMES[byte])
    translated = "".join(parts)
    if b"/" in text and "/" not in translated:
        # One in a set binds a pattern to its place as well.
        translated = "/" + translated
    return _MANY_STARS.sub("**", translated)


def _set_at(text: bytes, position: int) -> tuple[set[int], int]:
    """Return the bytes of a set that begins after its bracket, and where what follows begins."""
    negated = text[position : position + 1] in (b"!", b"^")
    position += negated
    some: set[int] = set()
    previous: int | None = None
    first = True
    while True:
        if position >= len(text):
            raise _NeverError
        byte = text[position]
        if byte == ord("]") and not first:
            position += 1
            break
        first = False
        if byte == ord("[") and text[position + 1 : position + 2] == b":":
            named, position = _class_at(text, position)
            if named is not None:
                some |= named
                previous = None
            else:
                some.add(byte)
                previous = byte
            continue
        ends_range = previous is not None and byte == ord("-") and text[position + 1 : position + 2] != b"]"
        if ends_range:
            position += 1
        byte, position = _member_at(text, position)
        if ends_range:
            assert previous is not None
            some.update(range(previous, byte + 1))
            previous = None
        else:
            some.add(byte)
            previous = byte
    some = (set(range(256)) - some if negated else some) - {ord("/")}
    if not some:
        raise _NeverError
    return some, position


def _class_at(text: bytes, position: int) -> tuple[frozenset[int] | None, int]:
    """Return the bytes of a class as `[:alpha:]`, and where what follows begins; `None` if it is none."""
    end = text.find(b"]", position + 2)
    if end < 0:
        raise _NeverError
    if end == position + 2 or text[end - 1 : end] != b":":
        return None, position + 1
    name = text[position + 2 : end - 1]
    if name not in _CLASSES:
        raise _NeverError
    return frozenset(match[0][0] for match in re.finditer(_CLASSES[name], bytes(range(256)))), end + 1


def _member_at(text: bytes, position: int) -> tuple[int, int]:
    if text[position : position + 1] == b"\\":
        position += 1
    if position >= len(text):
        raise _NeverError
    return text[position], position + 1


# -- what is in a folder --


class FolderView(Protocol):
    """A folder, as far as rules ask for what is in it."""

    def head(self, name: bytes, most: int, /) -> bytes | None:
        """Return the first bytes of a regular file in it, *most* at most; `None` if there is none.

        Raises `OSError` or `CastoreError` if it cannot be read.
        """
        ...


@attrs.frozen
class DirectoryView:
    """A directory of a tree, and where its files are."""

    directory: Directory
    blobs: BlobService

    def head(self, name: bytes, most: int) -> bytes | None:
        """Return the first bytes of a file; raise what is wrong with its blob."""
        node = self.directory.get(name)  # type: ignore[call-overload]
        if not isinstance(node, FileNode):
            return None
        with self.blobs.open(node.digest) as reader:
            return reader.read(most)


# -- the selection --


@attrs.frozen
class Selection:
    """What is taken of a folder or a tree; by default all of it.

    Arguments:
        patterns: Those that were given, in order; they decide before those of files.
        ignore_files: The names of files that have patterns for the folder in which they are, such as
            `.gitignore`. Where there are several the later one decides.
        exclude_caches: Whether of a folder with a `CACHEDIR.TAG` only that file is taken.
        if_present: Names of files; of a folder that has one of them only that file is taken.
        larger_than: Files with more bytes than this are dropped.
        only: Paths from the source on: nothing else is taken but the folders that lead to them. A folder that
            is named is not taken with what is in it.
        one_file_system: Whether of a folder on which another file system is mounted only the name is taken.
            Trees have none.
        exclude_nodump: Whether files and folders are dropped that have the attribute `d` (see `chattr`).
            Trees have none.
    """

    patterns: Sequence[Pattern] = ()
    ignore_files: Sequence[bytes] = ()
    exclude_caches: bool = False
    if_present: Sequence[bytes] = ()
    larger_than: int | None = None
    only: Iterable[bytes] | None = None
    one_file_system: bool = False
    exclude_nodump: bool = False
    _listed: frozenset[bytes] | None = attrs.field(init=False, repr=False)

    @_listed.default
    def _all_listed(self) -> frozenset[bytes] | None:
        return None if self.only is None else frozenset(_with_folders(self.only))

    @property
    def takes_all(self) -> bool:
        """Whether there is nothing that could drop anything."""
        numbers = self.larger_than is not None or self.only is not None
        flags = self.one_file_system or self.exclude_nodump
        return not (self.patterns or self.needs_blobs or numbers or flags)

    @property
    def needs_blobs(self) -> bool:
        """Whether some of it depends on what is in files."""
        return bool(self.ignore_files or self.exclude_caches or self.if_present)

    def at_root(self, view: FolderView | None = None) -> SelectedFolder:
        """Return what is asked of the entries of the folder at the top.

        Arguments:
            view: What is in it, unless no rule needs that.

        Raises `OSError` and what else *view* raises.
        """
        return SelectedFolder(self, b"", (_Rules(0, self.patterns[::-1]),), view)


ALL: Final = Selection()
"""All there is."""


@attrs.frozen
class _Rules:
    """Patterns of one place, from the last to the first, and how much of a path leads to it."""

    begin: int
    patterns: Sequence[Pattern]


class SelectedFolder:
    """A folder on the way, of which it is asked what is taken. *path* is that from the top on."""

    def __init__(
        self,
        selection: Selection,
        path: bytes,
        above: tuple[_Rules, ...],
        view: FolderView | None,
    ) -> None:
        self._selection = selection
        self._path = path
        self._tag: tuple[bytes, str] | None = None
        if view is not None:
            self._tag = _tag_in(selection, view)
            own = [pattern for name in selection.ignore_files for pattern in self._patterns_in(name, view)]
            if own:
                # What was given decides first, then the deepest of the others.
                above = (above[0], _Rules(len(path) + 1 if path else 0, own[::-1]), *above[1:])
        self._rules = above if any(rules.patterns for rules in above) else ()

    def _patterns_in(self, name: bytes, view: FolderView) -> Sequence[Pattern]:
        data = view.head(name, MOST_RULES + 1)
        if data is None:
            return ()
        path = self._below(name)
        if len(data) > MOST_RULES:
            shown = path.decode("utf-8", "surrogateescape")
            raise SourceError(
                f"{shown!r} has more than {MOST_RULES >> 20} MiB, and should be a file of rules"
            )
        return patterns_in(data, path.decode("utf-8", "surrogateescape"))

    def _below(self, name: bytes) -> bytes:
        return b"/".join((self._path, name)) if self._path else name

    def reason_against(self, name: bytes, *, is_folder: bool, size: int = 0) -> str | None:
        """Return which rule drops an entry of this folder, `None` if it is taken.

        Arguments:
            name: Its name in this folder.
            is_folder: Whether it is one itself; a link is none.
            size: How many bytes it has, if it is a file.
        """
        selection = self._selection
        if self._tag is not None and name != self._tag[0]:
            return self._tag[1]
        path = self._below(name)
        if selection._listed is not None and path not in selection._listed:  # noqa: SLF001 - of the same module
            return "--files-from"
        if self._rules:
            pattern = self._pattern_for(_written(path), is_folder=is_folder)
            if pattern is not None and not pattern.takes_in:
                return str(pattern)
        if selection.larger_than is not None and not is_folder and size > selection.larger_than:
            return "--exclude-larger-than"
        return None

    def takes(self, name: bytes, node: Node) -> bool:
        """Tell whether an entry of a tree is taken."""
        reason = self.reason_against(
            name,
            is_folder=isinstance(node, DirectoryNode),
            size=node.size if isinstance(node, FileNode) else 0,
        )
        return reason is None

    def _pattern_for(self, path: _Written, *, is_folder: bool) -> Pattern | None:
        for rules in self._rules:
            below = path[rules.begin :]
            for pattern in rules.patterns:
                if pattern.fits(below, is_folder=is_folder):
                    return pattern
        return None

    def enter(self, name: bytes, view: FolderView | None = None) -> SelectedFolder:
        """Return the same for a folder in this one, which is taken; raises what *view* raises."""
        above = self._rules or (_Rules(0, ()),)
        return SelectedFolder(self._selection, self._below(name), above, view)


def _tag_in(selection: Selection, view: FolderView) -> tuple[bytes, str] | None:
    """Return the name of the file for which a folder is not taken, and the rule."""
    if selection.exclude_caches and view.head(CACHE_TAG, len(CACHE_SIGNATURE)) == CACHE_SIGNATURE:
        return CACHE_TAG, "--exclude-caches"
    for name in selection.if_present:
        if view.head(name, 0) is not None:
            return name, f"--exclude-if-present {_quoted(name)}"
    return None


def _with_folders(paths: Iterable[bytes]) -> Iterator[bytes]:
    """Yield paths, and those of the folders that lead to them."""
    for path in paths:
        parts = path.split(b"/")
        yield from (b"/".join(parts[:count]) for count in range(1, len(parts) + 1))
