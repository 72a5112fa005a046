"""Archives into trees, as they come: what is held are the names, and some small files, not the contents.

An archive that was cut short, or is damaged, is an error, and no shorter tree. So are names that lead out of
it, and one name of a file and of a folder. What stands in it twice is what stands there last, as if it were
unpacked.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final, Literal, TypeAlias, cast

import attrs
import zstandard

from castore.chunks.storing import store_each
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, InvalidDirectoryError, SourceError
from castore.format.closures import MOST_LEVELS
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, PathComponent, SymlinkNode, SymlinkTarget
from castore.trees.directory_sinks import sink_of
from castore.trees.importing import Imported, ImportProblem, ProblemKind
from castore.trees.packing import ArchiveFormat
from castore.trees.selecting import ALL, SelectedFolder, Selection

_PIECE: Final = 1 << 20
_SMALL: Final = 1 << 20
_MOST_SMALL: Final = 1024
_MOST_BYTES: Final = 16 << 20
"""Files of at most `_SMALL` bytes are stored together: so many, or until they have so many bytes."""

_LONGEST_HEADER: Final = 1 << 20
"""No name is longer, whatever the header before it says."""

_ZSTD: Final = zstandard.ZstdDecompressor()
_MAGIC: Final[Mapping[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\x28\xb5\x2f\xfd": lambda file: _ZSTD.stream_reader(file, read_across_frames=True),
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}
"""How streams begin that are compressed, and what reads them."""

_DAMAGED: Final = (
    EOFError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    zstandard.ZstdError,
)

Kind: TypeAlias = Literal["folder", "file", "link", "hard link", "special"]


@attrs.frozen
class UnpackOptions:
    """How an archive becomes a tree.

    Attributes:
        format: Its kind. Whether a tar is compressed is told by its first bytes.
        selection: What is taken. Only patterns and the size of files are asked: of a folder nobody knows
            what comes later.
        skip_unreadable: Whether there is a root although something could not be taken.
        skip_special: Whether pipes and devices are left out without a word.
        most_files: So many entries may be in it; `None` for any number.
        most_bytes: So many bytes all files may have together, unpacked; `None` for any number.
    """

    format: ArchiveFormat = "tar"
    selection: Selection = ALL
    skip_unreadable: bool = False
    skip_special: bool = False
    most_files: int | None = None
    most_bytes: int | None = None


def unpack_tree(
    file: BinaryIO,
    name: str,
    blobs: BlobService,
    directories: DirectoryService,
    options: UnpackOptions | None = None,
    *,
    progress: Callable[[int], object] | None = None,
    met: Callable[[bytes], object] | None = None,
    dropped: Callable[[bytes, str], object] | None = None,
) -> Imported:
    """Store what is in an archive; return its root, and what is not in that.

    If all is in one folder, that is the root, and its name is not in the tree. Folders that only paths tell
    of are there, too. A hard link is what it leads to, at that moment.

    Arguments:
        file: The archive; a zip is sought in, a tar is read once to its end.
        name: What it is called in errors.
        blobs: Where the files go.
        directories: Where the directories go.
        options: How.
        progress: Called with the number of bytes of each piece of a file that is done.
        met: Called with the path of each file before it is read.
        dropped: Called with the path of what is not taken, and the rule that drops it.

    Raises `SourceError` if the archive is damaged or cut short, asks for too much, or has names that lead out
    of it or are those of a file and of a folder; and what the services raise.
    """
    work = _Unpacking(name, blobs, options or UnpackOptions(), progress=progress, met=met, dropped=dropped)
    try:
        archive = _Tar(file) if work.options.format == "tar" else _Zip(file)
        for entry in archive.entries():
            work.take(entry)
        work.store_small()
    except CastoreError:
        raise
    except _DAMAGED as error:
        raise SourceError(f"cannot read {name!r}: it is damaged, or cut short: {error}") from error
    except (OSError, RuntimeError, NotImplementedError) as error:
        raise SourceError(f"cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from error
    return work.finish(directories)


# -- what is in an archive --


@attrs.frozen
class _Entry:
    """Something in an archive.

    Attributes:
        path: Its name there.
        kind: What it is.
        size: How many bytes it has.
        executable: Whether its owner may execute it.
        target: Where a link leads, or what a hard link is another name of.
        open: Gives its bytes, as long as no other entry is asked for.
    """

    path: bytes
    kind: Kind
    size: int = 0
    executable: bool = False
    target: bytes = b""
    open: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


class _Archive(ABC):
    @abstractmethod
    def entries(self) -> Iterator[_Entry]:
        """Yield what is in it, in order."""


class _Forward(io.RawIOBase):
    """A stream that is sought in forward only, by reading, and that gives so much at once and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        if position < self._position:
            raise tarfile.ReadError("it would have to be read backwards")
        while self._position < position:
            if not self.read(min(position - self._position, _PIECE)):
                raise EOFError("it ends in the midst of a file")
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError("a header has more bytes than any name")
        parts = []
        while size and (data := self._file.read(size)):
            parts.append(data)
            size -= len(data)
            self._position += len(data)
        return b"".join(parts)

    def drain(self) -> None:
        """Read what is behind the end: so a compressed stream is compared with its checksum."""
        while self._file.read(_PIECE):
            pass


# Of what ends a tar Python's own reader makes an end of any kind; its types are no part of what is typed.
_EndError: type[Exception] = vars(tarfile)["EOFHeaderError"]
_NothingError: type[Exception] = vars(tarfile)["EmptyHeaderError"]


class _TarInfo(tarfile.TarInfo):
    """A header. One that is damaged is an error wherever it stands, and not the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(tar)
        except _EndError:
            raise
        except _NothingError as error:
            message = "it ends without the mark of its end" if tar.offset else "it is empty"
            raise tarfile.ReadError(message) from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


class _Tar(_Archive):
    def __init__(self, file: BinaryIO) -> None:
        peeked = io.BufferedReader(cast("io.RawIOBase", file)) if not hasattr(file, "peek") else file
        begin = peeked.peek(6)
        opened = next((reader(peeked) for magic, reader in _MAGIC.items() if begin.startswith(magic)), peeked)
        self._stream = _Forward(cast("BinaryIO", opened))

    def entries(self) -> Iterator[_Entry]:
        tar = tarfile.TarFile(
            fileobj=cast("BinaryIO", self._stream),
            mode="r",
            tarinfo=_TarInfo,
            encoding="utf-8",
            errors="surrogateescape",
        )
        while (info := tar.next()) is not None:
            vars(tar)["members"].clear()  # it would remember each
            yield self._entry(tar, info)
        self._stream.drain()

    @staticmethod
    def _entry(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry:
        path = info.name.encode("utf-8", "surrogateescape")
        target = info.linkname.encode("utf-8", "surrogateescape")
        if info.isdir():
            return _Entry(path, "folder")
        if info.issym():
            return _Entry(path, "link", target=target)
        if info.islnk():
            return _Entry(path, "hard link", target=target)
        if not info.isfile():
            return _Entry(path, "special")
        executable = bool(info.mode & stat.S_IXUSR)
        return _Entry(path, "file", info.size, executable, open=lambda: cast("Any", tar.extractfile(info)))


class _Zip(_Archive):
    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file)

    def entries(self) -> Iterator[_Entry]:
        for info in self._zip.infolist():
            yield self._entry(info)

    def _entry(self, info: zipfile.ZipInfo) -> _Entry:
        path = info.filename.encode("utf-8", "surrogateescape")
        if not info.flag_bits & 0x800:
            # Python takes such names for CP437; many programs write UTF-8 all the same.
            with contextlib.suppress(UnicodeError):
                raw = info.filename.encode("cp437")
                raw.decode()
                path = raw
        if info.flag_bits & 1:
            raise SourceError(f"its entry {_shown(path)} is encrypted")
        mode = info.external_attr >> 16 if info.create_system == 3 else 0
        if info.is_dir():
            return _Entry(path, "folder")
        if stat.S_ISLNK(mode):
            if info.file_size > 1 << 16:
                raise SourceError(f"its entry {_shown(path)} is a link with too long a target")
            return _Entry(path, "link", target=self._zip.read(info))
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            return _Entry(path, "special")
        executable = bool(mode & stat.S_IXUSR)
        return _Entry(path, "file", info.file_size, executable, open=lambda: self._zip.open(info))


# -- what becomes of it --


@attrs.define(eq=False)
class _File:
    """A file that is in the tree."""

    size: int
    executable: bool
    digest: B3Digest | None = None

    @property
    def node(self) -> FileNode:
        assert self.digest is not None
        return FileNode(self.digest, self.size, self.executable)


@attrs.define(eq=False)
class _Folder:
    """A folder that is being filled."""

    path: bytes
    selected: SelectedFolder | None
    entries: dict[bytes, _Folder | _File | SymlinkNode] = attrs.field(factory=dict)


class _Unpacking:
    """What is known so far."""

    def __init__(
        self,
        name: str,
        blobs: BlobService,
        options: UnpackOptions,
        *,
        progress: Callable[[int], object] | None,
        met: Callable[[bytes], object] | None,
        dropped: Callable[[bytes, str], object] | None,
    ) -> None:
        self.options = options
        self._name = name
        self._blobs = blobs
        self._progress = progress
        self._met = met
        self._dropped = dropped
        self._problems: list[ImportProblem] = []
        self._is_chosen = options.selection is not ALL
        self._top = _Folder(b"", options.selection.at_root() if self._is_chosen else None)
        self._number = 0
        self._bytes = 0
        self._small: dict[B3Digest, bytes] = {}
        self._small_bytes = 0

    def take(self, entry: _Entry) -> None:
        """Take an entry into the tree."""
        self._number += 1
        most = self.options.most_files
        if most is not None and self._number > most:
            raise self._error(f"has more than {most} entries, and so many may be in it")
        names = self._names(entry.path)
        if not names:
            if entry.kind != "folder":
                raise self._error(f"has an entry {_shown(entry.path)} that is no folder")
            return
        try:
            self._place(entry, names)
        except InvalidDirectoryError as error:
            self._problem(entry.path, "unreadable", f"cannot take {_shown(entry.path)}: {error.message}")

    def _names(self, path: bytes) -> list[bytes]:
        """Return the parts of a path; raise `SourceError` if it leads out."""
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if path.startswith(b"/") or b".." in parts:
            raise self._error(f"has an entry {_shown(path)}, which may lead out of it")
        if len(parts) > MOST_LEVELS:
            raise self._error(f"has more than {MOST_LEVELS} levels of folders")
        return parts

    def _place(self, entry: _Entry, names: list[bytes]) -> None:
        parts = [PathComponent(name) for name in names]
        folder = self._top
        for name in parts[:-1]:
            below = self._enter(folder, name)
            if below is None:
                return
            folder = below
        name = parts[-1]
        if entry.kind == "folder":
            self._enter(folder, name)
        elif self._is_taken(folder, name, entry):
            if isinstance(folder.entries.get(name), _Folder):
                raise self._error(f"has both a folder and something else called {_shown(entry.path)}")
            self._take(folder, name, entry)

    def _enter(self, folder: _Folder, name: PathComponent) -> _Folder | None:
        """Return a folder, which is made if it is not there; `None` if it is not taken."""
        below = folder.entries.get(name)
        if below is None:
            path = b"/".join((folder.path, name)) if folder.path else bytes(name)
            selected = None
            if folder.selected is not None:
                reason = folder.selected.reason_against(name, is_folder=True)
                if reason is not None:
                    self._drop(path, reason)
                    return None
                selected = folder.selected.enter(name)
            below = folder.entries[name] = _Folder(path, selected)
        if not isinstance(below, _Folder):
            raise self._error(
                f"has both a folder and something else called {_shown(b'/'.join((folder.path, name)))}"
            )
        return below

    def _is_taken(self, folder: _Folder, name: bytes, entry: _Entry) -> bool:
        if folder.selected is None:
            return True
        reason = folder.selected.reason_against(name, is_folder=False, size=entry.size)
        if reason is not None:
            self._drop(entry.path, reason)
        return reason is None

    def _drop(self, path: bytes, reason: str) -> None:
        if self._dropped is not None:
            self._dropped(path, reason)

    def _take(self, folder: _Folder, name: PathComponent, entry: _Entry) -> None:
        match entry.kind:
            case "link":
                folder.entries[name] = SymlinkNode(SymlinkTarget(entry.target))
            case "hard link":
                found = self._find(self._names(entry.target))
                if found is None:
                    shown = f"{_shown(entry.path)} is another name of {_shown(entry.target)}"
                    self._problem(entry.path, "unreadable", f"{shown}, which is not there before it")
                else:
                    folder.entries[name] = found
            case "special":
                if not self.options.skip_special:
                    words = f"{_shown(entry.path)} is a pipe or a device, which a tree cannot have"
                    self._problem(entry.path, "special", words)
            case _:
                folder.entries[name] = self._file(entry)

    def _find(self, names: list[bytes]) -> _File | SymlinkNode | None:
        found: _Folder | _File | SymlinkNode | None = self._top
        for name in names:
            found = found.entries.get(name) if isinstance(found, _Folder) else None
        return None if isinstance(found, _Folder) else found

    # -- contents --

    def _file(self, entry: _Entry) -> _File:
        if self._met is not None:
            self._met(entry.path)
        self._bytes += entry.size
        most = self.options.most_bytes
        if most is not None and self._bytes > most:
            raise self._error(f"has more than {most} bytes when it is unpacked, and so many it may have")
        file = _File(entry.size, entry.executable)
        with entry.open() as content:
            if entry.size <= _SMALL:
                data = _read(content, entry.size)
                self._require(entry, len(data))
                file.digest = B3Digest.of(data)
                self._small[file.digest] = data
                self._small_bytes += len(data)
                if len(self._small) >= _MOST_SMALL or self._small_bytes >= _MOST_BYTES:
                    self.store_small()
            else:
                with self._blobs.open_write() as writer:
                    left = entry.size
                    while left and (data := content.read(min(left, _PIECE))):
                        writer.write(data)
                        left -= len(data)
                        if self._progress is not None:
                            self._progress(len(data))
                    self._require(entry, entry.size - left)
                    file.digest = writer.close()
        return file

    def _require(self, entry: _Entry, size: int) -> None:
        if size != entry.size:
            raise self._error(f"is cut short: of {_shown(entry.path)} there are {size} of {entry.size} bytes")

    def store_small(self) -> None:
        """Store the files that wait."""
        waiting, self._small, self._small_bytes = self._small, {}, 0
        store_each(self._blobs, waiting)
        if self._progress is not None:
            self._progress(sum(map(len, waiting.values())))

    # -- the tree --

    def finish(self, directories: DirectoryService) -> Imported:
        """Store the directories; return what has come of it."""
        root = self._top
        notes: tuple[str, ...] = ()
        tops = list(root.entries.values())
        if len(tops) == 1 and isinstance(tops[0], _Folder):
            root = tops[0]
        elif tops:
            notes = (f"{self._name!r} has more than one folder at its top: all there is is in the root",)
        if self._problems and not self.options.skip_unreadable:
            return Imported(None, tuple(self._problems), 0, 0, 0, 0, notes=notes)
        sink = sink_of(directories, trusts=False)
        try:
            node, files, folders, links, size = _put_all(root, sink.put)
            sink.finish(node)
        except BaseException:
            sink.abort()
            raise
        return Imported(node, tuple(self._problems), files, folders, links, size, notes=notes)

    def _problem(self, path: bytes, kind: ProblemKind, message: str) -> None:
        self._problems.append(ImportProblem(path, kind, message))

    def _error(self, words: str) -> SourceError:
        return SourceError(f"cannot import {self._name!r}: it {words}")


def _put_all(
    root: _Folder, put: Callable[[Directory, tuple[DirectoryNode, ...]], object]
) -> tuple[DirectoryNode, int, int, int, int]:
    """Put all directories, the leaves first.

    Returns the root, and how many files, directories, links and bytes there are.
    """
    files = folders = links = size = 0
    # No recursion, however deep it is.
    levels: list[tuple[_Folder, bytes, dict[bytes, Node], Iterator[tuple[bytes, Any]]]] = []
    levels.append((root, b"", {}, iter(root.entries.items())))
    while True:
        _, name, nodes, entries = levels[-1]
        for below, each in entries:
            if isinstance(each, _Folder):
                levels.append((each, below, {}, iter(each.entries.items())))
                break
            if isinstance(each, _File):
                nodes[below] = each.node
                files += 1
                size += each.size
            else:
                nodes[below] = each
                links += 1
        else:
            directory = Directory(nodes)
            put(directory, ())
            folders += 1
            levels.pop()
            if not levels:
                return directory.node, files, folders, links, size
            levels[-1][2][name] = directory.node


def _read(content: Any, size: int) -> bytes:
    parts = []
    while size and (data := content.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "surrogateescape"))
