"""Trees into archives: the same tree gives the same bytes of a tar, whenever and wherever it is packed.

An archive is written as it goes, from its beginning to its end. What is held is some small files at a time,
and of a zip a line for each entry, which come at its end.
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final, Literal, TypeAlias, cast

import attrs
import zstandard

from castore.contract.blobs import Answer, BlobReader, BlobService
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import (
    BlobNotFoundError,
    CastoreError,
    CorruptBlobError,
    InvalidDirectoryError,
    TargetError,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, PathComponent, SymlinkNode, TreePath
from castore.trees.exports import Exported, LostFile
from castore.trees.selecting import ALL, DirectoryView, SelectedFolder, Selection
from castore.trees.walking import walk, walk_chosen

ArchiveFormat: TypeAlias = Literal["tar", "zip"]
Compression: TypeAlias = Literal["", "gz", "zst", "xz", "bz2"]

SUFFIXES: Final[Mapping[str, tuple[ArchiveFormat, Compression]]] = {
    ".tar": ("tar", ""),
    ".tar.gz": ("tar", "gz"),
    ".tgz": ("tar", "gz"),
    ".tar.zst": ("tar", "zst"),
    ".tar.xz": ("tar", "xz"),
    ".tar.bz2": ("tar", "bz2"),
    ".zip": ("zip", ""),
}
"""What the end of a name says of an archive."""

_MOST_FILES: Final = 1024
_MOST_BYTES: Final = 16 << 20
"""So many files are read together, if they have no more bytes than this together."""

_LARGE: Final = 1 << 20
"""Files with more bytes are read by themselves."""

_TIME: Final = 1
"""Of all entries of a tar, as the reference's own tools have it, in seconds since 1970."""
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The first that a zip can have."""

_ZIP_LARGE: Final = 0x7FFF_FFFF


def format_of(name: str) -> tuple[ArchiveFormat, Compression] | None:
    """Return what the end of a name says of an archive; `None` for other names."""
    for suffix, found in SUFFIXES.items():
        if name.lower().endswith(suffix):
            return found
    return None


@attrs.frozen
class PackOptions:
    """How a tree becomes an archive.

    Attributes:
        format: Its kind.
        compression: How a tar is compressed; a zip is not.
        prefix: The name of the one folder, or file, in it.
        selection: What of the tree is taken.
        skip_unreadable: Whether files whose blobs are absent or corrupt are left out.
    """

    format: ArchiveFormat = "tar"
    compression: Compression = ""
    prefix: bytes = attrs.field(default=b"root", converter=PathComponent)
    selection: Selection = ALL
    skip_unreadable: bool = False


def pack_tree(
    root: Node | Mapping[bytes, Node],
    file: BinaryIO,
    blobs: BlobService,
    directories: DirectoryService,
    options: PackOptions | None = None,
    *,
    progress: Callable[[int], object] | None = None,
) -> Exported:
    """Write a tree to a file, or a stream, as an archive.

    A tar is in the format of GNU: names are bytes as they are, entries in bytewise order of the tree, files
    0644 or 0755, folders 0755, all of one time and of nobody. So the bytes depend on the tree alone, and on
    the library that compresses them. A zip has its files as they are, and links as Unix has them in a zip.

    Arguments:
        root: What is to be packed; several nodes by their names are what its folder is to have.
        file: Where to; it is neither sought in nor closed.
        blobs: Where the contents of files are.
        directories: Where the directories are.
        options: How.
        progress: Called with the number of bytes of each file that is packed.

    Raises what the services raise, `OSError` if *file* cannot be written to, and `TargetError` for names
    that a zip cannot have. Blobs that are absent or corrupt are in `lost`: unless they may be left out, the
    archive has no end then, and is of no use. Of a file of more than 1 MiB that turns out to be corrupt in
    the middle an error is raised in any case, as its beginning was written.
    """
    options = options or PackOptions()
    top: Node | Directory = Directory(root) if isinstance(root, Mapping) else root
    with _compressed(file, options.compression) as stream:
        archive: _Archive = _Tar(stream) if options.format == "tar" else _Zip(stream)
        packer = _Packer(archive, blobs, directories, options, progress)
        try:
            packer.run(top)
            if not packer.lost or options.skip_unreadable:
                archive.finish()
        finally:
            archive.close()
    return packer.outcome()


@contextlib.contextmanager
def _compressed(file: BinaryIO, compression: Compression) -> Iterator[BinaryIO]:
    """Give a stream whose bytes come to *file* compressed; nothing of it tells the time, or a name."""
    if compression == "gz":
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
            yield cast("BinaryIO", stream)
    elif compression == "zst":
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as stream:
            yield cast("BinaryIO", stream)
    elif compression == "xz":
        with lzma.LZMAFile(file, "wb") as stream:
            yield cast("BinaryIO", stream)
    elif compression == "bz2":
        with bz2.BZ2File(file, "wb") as stream:
            yield cast("BinaryIO", stream)
    else:
        yield file


class _Archive(ABC):
    """What is written entry by entry."""

    @abstractmethod
    def add_folder(self, path: bytes) -> None:
        """Write a folder."""

    @abstractmethod
    def add_link(self, path: bytes, target: bytes) -> None:
        """Write a symbolic link."""

    @abstractmethod
    def add_file(self, path: bytes, node: FileNode, content: bytes | BlobReader) -> None:
        """Write a file."""

    @abstractmethod
    def finish(self) -> None:
        """Write the end."""

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Write nothing more: without an end it is no archive."""


class _Tar(_Archive):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = 0

    def _add(self, path: bytes, kind: bytes, mode: int, *, size: int = 0, target: bytes = b"") -> None:
        # Python's names are text; so written they are the same bytes again.
        info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
        info.type, info.mode, info.size, info.mtime = kind, mode, size, _TIME
        info.linkname = target.decode("utf-8", "surrogateescape")
        self._write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._written += len(data)

    def _pad(self, size: int) -> None:
        self._write(bytes(-self._written % size))

    def add_folder(self, path: bytes) -> None:
        self._add(path, tarfile.DIRTYPE, 0o755)

    def add_link(self, path: bytes, target: bytes) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def add_file(self, path: bytes, node: FileNode, content: bytes | BlobReader) -> None:
        self._add(path, tarfile.REGTYPE, 0o755 if node.executable else 0o644, size=node.size)
        for piece in _pieces(content):
            self._write(piece)
        self._pad(tarfile.BLOCKSIZE)

    def finish(self) -> None:
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad(tarfile.RECORDSIZE)


class _Forward(io.RawIOBase):
    """A stream of which nobody may take it for one that can be sought in: stdout may be a file to add to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: BinaryIO | None = file

    def cut(self) -> None:
        """Pass on nothing more: a zip that is given up writes an end all the same."""
        self._file = None

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        if self._file is not None:
            self._file.write(data)
        return len(data)


class _Zip(_Archive):
    def __init__(self, file: BinaryIO) -> None:
        self._file = _Forward(file)
        self._zip = zipfile.ZipFile(cast("BinaryIO", self._file), "w", zipfile.ZIP_STORED)

    def _info(self, path: bytes, mode: int) -> zipfile.ZipInfo:
        try:
            name = path.decode()
        except UnicodeDecodeError:
            shown = path.decode("utf-8", "backslashreplace")
            message = f"a zip cannot have the name {shown!r}: it is no UTF-8; a tar has names as they are"
            raise TargetError(message) from None
        info = zipfile.ZipInfo(name, _ZIP_TIME)
        info.create_system = 3  # Unix
        info.external_attr = mode << 16
        return info

    def add_folder(self, path: bytes) -> None:
        info = self._info(path + b"/", stat.S_IFDIR | 0o755)
        info.external_attr |= 0x10  # a folder, for those that know no Unix
        self._zip.writestr(info, b"")

    def add_link(self, path: bytes, target: bytes) -> None:
        self._zip.writestr(self._info(path, stat.S_IFLNK | 0o777), target)

    def add_file(self, path: bytes, node: FileNode, content: bytes | BlobReader) -> None:
        info = self._info(path, stat.S_IFREG | (0o755 if node.executable else 0o644))
        info.file_size = node.size
        with self._zip.open(info, "w", force_zip64=node.size > _ZIP_LARGE) as stream:
            for piece in _pieces(content):
                stream.write(piece)

    def finish(self) -> None:
        self._zip.close()

    def close(self) -> None:
        self._file.cut()


def _pieces(content: bytes | BlobReader) -> Iterator[bytes | memoryview]:
    if not isinstance(content, BlobReader):
        yield content
        return
    while piece := content.read_view():
        yield piece


def _read_small(reader: BlobReader) -> Answer:
    """Return the bytes of a blob that a tree says is small."""
    with reader:
        if reader.size > _LARGE:
            return InvalidDirectoryError(
                f"its blob has {reader.size} bytes, and in the tree fewer", rule="size"
            )
        try:
            return reader.read()
        except CorruptBlobError as error:
            return error


class _Packer:
    def __init__(
        self,
        archive: _Archive,
        blobs: BlobService,
        directories: DirectoryService,
        options: PackOptions,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.lost: list[LostFile] = []
        self._archive = archive
        self._blobs = blobs
        self._directories = directories
        self._options = options
        self._progress = progress
        self._written = self._folders = self._links = self._size = 0
        self._waiting: list[tuple[TreePath, Node]] = []
        self._bytes_waiting = 0

    def outcome(self) -> Exported:
        return Exported(tuple(self.lost), self._written, self._folders, self._links, size=self._size)

    def run(self, root: Node | Directory) -> None:
        for path, node in self._entries(root):
            self._waiting.append((path, node))
            small = node.size if isinstance(node, FileNode) and node.size <= _LARGE else 0
            self._bytes_waiting += small
            if len(self._waiting) >= _MOST_FILES or self._bytes_waiting >= _MOST_BYTES:
                self._write_waiting()
        self._write_waiting()

    def _entries(self, root: Node | Directory) -> Iterator[tuple[TreePath, Node]]:
        """Yield what is packed, in order, with its path: each directory before what is in it."""
        tops = [(TreePath(), root)] if not isinstance(root, Directory) else []
        if isinstance(root, Directory):
            yield TreePath(), root.node
            tops = [(TreePath([name]), node) for name, node in root.items()]
        taken = _Taken(self._blobs, self._options.selection, root)
        for path, node in tops:
            if taken.takes(path, node):
                yield path, node
                if isinstance(node, DirectoryNode):
                    yield from self._entries_below(taken, path, node)

    def _entries_below(
        self, taken: _Taken, path: TreePath, node: DirectoryNode
    ) -> Iterator[tuple[TreePath, Node]]:
        if self._options.selection.takes_all:
            return walk(self._directories, node, path=path)
        return walk_chosen(self._directories, node, path=path, enters=taken.takes, entered=taken.enter)

    def _write_waiting(self) -> None:
        waiting, self._waiting, self._bytes_waiting = self._waiting, [], 0
        small = {node.digest for _, node in waiting if isinstance(node, FileNode) and node.size <= _LARGE}
        found: dict[B3Digest, Answer] = {}
        for digest, answer in self._blobs.read_many(small):
            found[digest] = _read_small(answer) if isinstance(answer, BlobReader) else answer
        for path, node in waiting:
            self._write(path, node, found)

    def _write(self, path: TreePath, node: Node, found: Mapping[B3Digest, Answer]) -> None:
        name = b"/".join((self._options.prefix, *path))
        match node:
            case DirectoryNode():
                self._archive.add_folder(name)
                self._folders += 1
            case SymlinkNode():
                self._archive.add_link(name, node.target)
                self._links += 1
            case FileNode():
                with contextlib.ExitStack() as stack:
                    content: Answer
                    if node.digest in found:
                        content = found[node.digest]
                    else:
                        content = self._blobs.open_read(node.digest)
                        if content is not None:
                            stack.enter_context(content)
                    self._write_file(path, name, node, content)

    def _write_file(self, path: TreePath, name: bytes, node: FileNode, content: Answer) -> None:
        if content is None:
            error: CastoreError = BlobNotFoundError(node.digest)
        elif isinstance(content, (CorruptBlobError, InvalidDirectoryError)):
            error = content
        elif isinstance(content, CastoreError):
            raise content
        else:
            size = content.size if isinstance(content, BlobReader) else len(content)
            if size == node.size:
                self._archive.add_file(name, node, content)
                self._written += 1
                self._size += size
                if self._progress is not None:
                    self._progress(size)
                return
            message = f"the tree gives it {node.size} bytes, and its blob has {size}"
            error = InvalidDirectoryError(message, rule="size")
        self.lost.append(LostFile(path, error))


class _Taken:
    """Tells what of a tree is taken, asked of each entry in the order of `walk`."""

    def __init__(self, blobs: BlobService, selection: Selection, root: Node | Directory) -> None:
        self._blobs = blobs
        self._selection = selection
        # For each directory on the way what is taken in it.
        self._levels: list[SelectedFolder] = []
        if isinstance(root, Directory):
            self.enter(TreePath(), root)

    def enter(self, path: TreePath, directory: Directory) -> None:
        """Be told what is in a directory that is taken."""
        if self._selection.takes_all:
            return
        del self._levels[len(path) :]
        view = DirectoryView(directory, self._blobs)
        if path:
            self._levels.append(self._levels[-1].enter(path[-1], view))
        else:
            self._levels.append(self._selection.at_root(view))

    def takes(self, path: TreePath, node: Node) -> bool:
        """Tell whether an entry is taken, of a directory that was entered."""
        if self._selection.takes_all or not path:
            return True
        return self._levels[len(path) - 1].takes(path[-1], node)
