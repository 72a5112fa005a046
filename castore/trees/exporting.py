"""Trees into folders.

A folder is built beside its place, and takes it by one rename: so it is there whole, or not at all. Each
entry is made from within its folder, and only where there is none: no link is followed, whoever makes one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from typing import Final

import attrs

from castore.contract.blobs import BlobReader, BlobService
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, CastoreError, CorruptBlobError, TargetError
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, TreePath
from castore.trees.folders import Folder, OpenTree, make_read_only, remove_tree
from castore.trees.walking import walk

_MOST_FILES: Final = 512
_MOST_BYTES: Final = 64 << 20
"""So many files are read together, or until they are so many bytes."""


@attrs.frozen
class LostFile:
    """A file of a tree that could not be had.

    Attributes:
        path: Where it is in the tree.
        error: Why: its blob is absent, or corrupt.
    """

    path: TreePath
    error: CastoreError


@attrs.frozen
class Exported:
    """What came of an export.

    Attributes:
        lost: Files whose blobs could not be had. Unless that was to be passed over, nothing is there.
        files: How many files were written.
        directories: How many folders.
        links: How many symbolic links.
        size: How many bytes the files have together.
    """

    lost: tuple[LostFile, ...]
    files: int
    directories: int
    links: int
    size: int


def export_tree(
    root: Node,
    target: str | bytes | os.PathLike[str],
    blobs: BlobService,
    directories: DirectoryService,
    *,
    read_only: bool = False,
    skip_unreadable: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Exported:
    """Make a folder, a file or a link of a root, where there is nothing yet.

    Files are 0644, or 0755 if they may be executed, and folders 0755, less what the umask takes away.

    Arguments:
        root: What is to be there.
        target: Where: a path that does not exist, in a folder that does.
        blobs: Where the contents of files are.
        directories: Where the directories are.
        read_only: Whether nobody may write to files and folders: 0444, 0555.
        skip_unreadable: Whether files whose blobs are absent or corrupt are left out.
        progress: Called with the number of bytes of each file that is written.

    Raises `TargetError` if *target* is there, or cannot be written; what the services raise; and for a tree
    of which a directory is gone or damaged `CorruptDirectoryError`. Then nothing is there.
    """
    path = os.path.abspath(os.fsencode(target))
    above, name = os.path.split(path)
    if os.path.lexists(path):
        raise TargetError(f"cannot write {os.fsdecode(path)!r}: it is there already; name a new one")
    work = _Export(blobs, directories, read_only=read_only, progress=progress)
    temporary = b".%s.castore-%s" % (name[:200], secrets.token_hex(4).encode())
    built = os.path.join(above, temporary)
    try:
        with OpenTree(above) as folder:
            work.build(folder, temporary, root)
        if skip_unreadable or not work.lost:
            _move(built, path)
    except OSError as error:
        if isinstance(error, CastoreError):
            raise
        reason = error.strerror or str(error)
        raise TargetError(f"cannot write {os.fsdecode(path)!r}: {reason}") from error
    finally:
        _remove(built)
    return Exported(tuple(work.lost), work.files, work.directories, work.links, work.size)


def _move(built: bytes, path: bytes) -> None:
    """Give what was built its name, unless that was taken meanwhile."""
    if os.path.islink(built) or not os.path.isdir(built):
        # Of a file a rename would replace what is there.
        with contextlib.suppress(PermissionError):
            os.link(built, path, follow_symlinks=False)
            return
    if os.path.lexists(path):
        raise FileExistsError(0, "it is there meanwhile")
    os.rename(built, path)


def _remove(built: bytes) -> None:
    """Remove what was built and did not get its name."""
    with contextlib.suppress(OSError):
        if os.path.isdir(built) and not os.path.islink(built):
            remove_tree(built)
        else:
            os.unlink(built)


class _Export:
    def __init__(
        self,
        blobs: BlobService,
        directories: DirectoryService,
        *,
        read_only: bool,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.lost: list[LostFile] = []
        self.files = self.directories = self.links = self.size = 0
        self._blobs = blobs
        self._directories = directories
        self._read_only = read_only
        self._progress = progress
        self._waiting: list[tuple[Folder, bytes, TreePath, FileNode]] = []
        self._bytes_waiting = 0

    def build(self, folder: Folder, name: bytes, root: Node) -> None:
        """Make what *root* is, by this name, in a folder."""
        below = self._make(folder, name, TreePath(), root)
        if below is not None:
            self._fill(below, root)
        self._write_files()
        if self._read_only and below is not None:
            make_read_only(below)

    def _fill(self, root: Folder, node: Node) -> None:
        # The folders from the root down to the one that is being filled.
        folders = [root]
        for path, below in walk(self._directories, node):
            del folders[len(path) :]
            made = self._make(folders[-1], path[-1], path, below)
            if made is not None:
                folders.append(made)

    def _make(self, folder: Folder, name: bytes, path: TreePath, node: Node) -> Folder | None:
        """Make an entry; return the folder if it is one. Files are written together."""
        match node:
            case DirectoryNode():
                self.directories += 1
                return folder.make(name, 0o755)
            case SymlinkNode():
                self.links += 1
                folder.make_link(name, node.target)
            case FileNode():
                self._waiting.append((folder, name, path, node))
                self._bytes_waiting += node.size
                if len(self._waiting) >= _MOST_FILES or self._bytes_waiting >= _MOST_BYTES:
                    self._write_files()
        return None

    # -- files --

    def _write_files(self) -> None:
        waiting, self._waiting, self._bytes_waiting = self._waiting, [], 0
        wanted: dict[B3Digest, list[tuple[Folder, bytes, TreePath, FileNode]]] = {}
        for entry in waiting:
            wanted.setdefault(entry[3].digest, []).append(entry)
        for digest, answer in self._blobs.read_many(wanted):
            for folder, name, path, node in wanted[digest]:
                if isinstance(answer, CastoreError) and not isinstance(answer, CorruptBlobError):
                    raise answer
                try:
                    if answer is None:
                        raise BlobNotFoundError(digest)
                    if isinstance(answer, CorruptBlobError):
                        raise answer
                    self._write_file(folder, name, node, answer)
                except (BlobNotFoundError, CorruptBlobError) as error:
                    self.lost.append(LostFile(path, error))

    def _write_file(self, folder: Folder, name: bytes, node: FileNode, content: bytes | BlobReader) -> None:
        mode = (
            (0o555 if node.executable else 0o444) if self._read_only else 0o755 if node.executable else 0o644
        )
        descriptor = folder.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            if isinstance(content, BlobReader):
                content.seek(0)
                size = 0
                while piece := content.read_view():
                    size += len(piece)
                    _write_all(descriptor, piece)
            else:
                size = len(content)
                _write_all(descriptor, memoryview(content))
        except CorruptBlobError:
            folder.remove(name)
            raise
        finally:
            os.close(descriptor)
        self.files += 1
        self.size += size
        if self._progress is not None:
            self._progress(size)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
