"""Files of a tree, each put into its folder: with its mode, and the same contents once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
from blake3 import blake3

from castore.contract.blobs import BlobReader
from castore.digest import B3Digest
from castore.errors import CorruptBlobError, InvalidDirectoryError
from castore.format.nodes import FileNode
from castore.owned import name_while_built
from castore.trees.folders import Folder

_CLONE: Final = 0x40049409
"""`FICLONE` of linux/fs.h."""

_WORTH_CLONING: Final = 16 << 10
"""Fewer bytes are written faster than cloned."""

_MOST_KNOWN: Final = 1 << 16
"""So many files that were written are remembered, for others with the same contents."""

_HOLE: Final = 32 << 10
"""Aligned blocks of so many zeros become holes: at least one is in each run of twice as many."""
_ZEROS: Final = bytes(_HOLE)

_PIECE: Final = 1 << 20


@attrs.frozen
class Placing:
    """How files are written.

    Attributes:
        read_only: Whether nobody may write to them: 0444 and 0555 in place of 0644 and 0755, less the umask.
        hardlink: Whether files with the same contents and mode are names of one file.
        durable: Whether each is on the disk before it has its name.
        sparse: Whether long runs of zeros become holes.
        verify: Whether each is read again when it was written.
    """

    read_only: bool = False
    hardlink: bool = False
    durable: bool = False
    sparse: bool = False
    verify: bool = False

    def mode_of(self, node: FileNode) -> int:
        """Return the mode of a file, before the umask."""
        if self.read_only:
            return 0o555 if node.executable else 0o444
        return 0o755 if node.executable else 0o644


@attrs.frozen
class _Written:
    folder: Folder
    name: bytes
    identity: tuple[int, ...]


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_Mark: TypeAlias = "tuple[int, int]"


class FilePlacer:
    """Writes files into folders of one tree.

    Arguments:
        how: How they are written.
        mark: Called with the descriptor of each that is written, when it has its bytes.
    """

    def __init__(self, how: Placing, mark: Callable[[int], _Mark | None] = lambda _: None) -> None:
        self._how = how
        self._mark = mark
        self._can_clone = True
        self._written: OrderedDict[tuple[B3Digest, bool], _Written] = OrderedDict()

    def place(
        self, folder: Folder, name: bytes, node: FileNode, content: bytes | BlobReader, *, replace: bool
    ) -> _Mark | None:
        """Write a file.

        Arguments:
            folder: Where.
            name: What it is called there.
            node: What it is in the tree.
            content: Its bytes, or a reader of these.
            replace: Whether it is made under another name first, and takes the place of what has its own.
                Else nothing may have it.

        Returns what *mark* does of it; `None` for another name of one that was written.

        Raises `OSError` if it cannot be written, `CorruptBlobError` if other bytes come back than were
        written, `InvalidDirectoryError` if the tree is wrong about its size, and what the reader raises. Then
        it is not there.
        """
        size = content.size if isinstance(content, BlobReader) else len(content)
        if size != node.size:
            message = f"the tree gives it {node.size} bytes, and its blob has {size}"
            raise InvalidDirectoryError(message, rule="size")
        temporary = name_while_built(name, secrets.token_hex(4)) if replace else name
        if self._link(folder, temporary, node):
            if replace:
                folder.rename(temporary, name)
                with contextlib.suppress(FileNotFoundError):
                    folder.remove(temporary)  # Of two names of one file a rename removes neither.
            return None
        descriptor = folder.open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, self._how.mode_of(node))
        try:
            try:
                if not self._clone(descriptor, node):
                    self._write(descriptor, content)
                marked = self._mark(descriptor)
                if self._how.durable:
                    os.fsync(descriptor)
                if self._how.verify:
                    self._verify(descriptor, node)
                self._remember(descriptor, folder, name, node)
            finally:
                os.close(descriptor)
            if replace:
                folder.rename(temporary, name)
        except BaseException:
            self._written.pop((node.digest, node.executable), None)
            with contextlib.suppress(OSError):
                folder.remove(temporary)
            raise
        return marked

    def _write(self, descriptor: int, content: bytes | BlobReader) -> None:
        write = self._write_sparsely if self._how.sparse else write_all
        if isinstance(content, BlobReader):
            content.seek(0)
            while piece := content.read_view():
                write(descriptor, piece)
        else:
            write(descriptor, memoryview(content))
        if self._how.sparse:
            os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))

    def _write_sparsely(self, descriptor: int, data: memoryview) -> None:
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        begin = 0
        # From one boundary of a block in the file to the next.
        at = min(-position % _HOLE, len(data))
        while at + _HOLE <= len(data):
            block = data[at : at + _HOLE]
            if not block[0] and not block[-1] and bytes(block) == _ZEROS:
                write_all(descriptor, data[begin:at])
                os.lseek(descriptor, _HOLE, os.SEEK_CUR)
                begin = at + _HOLE
            at += _HOLE
        write_all(descriptor, data[begin:])

    def _verify(self, descriptor: int, node: FileNode) -> None:
        if self._how.durable:
            # What is on the disk already need not stay in memory: it is read from there.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(descriptor, 0, os.SEEK_SET)
        found = digest_of_file(descriptor)
        if found != node.digest:
            message = f"the file that was written has the digest {found} when it is read again"
            raise CorruptBlobError(message, expected=node.digest, found=found)

    # -- the same contents again --

    def _remember(self, descriptor: int, folder: Folder, name: bytes, node: FileNode) -> None:
        if node.size >= (1 if self._how.hardlink else _WORTH_CLONING) and (
            self._how.hardlink or self._can_clone
        ):
            written = _Written(folder, name, _identity(os.fstat(descriptor)))
            self._written[node.digest, node.executable] = written
            if len(self._written) > _MOST_KNOWN:
                self._written.popitem(last=False)

    def _link(self, folder: Folder, name: bytes, node: FileNode) -> bool:
        """Give a file that was written another name; return False if there is none that can have it."""
        written = self._written.get((node.digest, node.executable)) if self._how.hardlink else None
        if written is None:
            return False
        try:
            if _identity(written.folder.status(written.name)) != written.identity:
                return False
            folder.link_file(name, written.folder, written.name)
        except FileExistsError:
            raise
        except OSError:
            return False  # As of a file that has as many names as it may have.
        return True

    def _clone(self, descriptor: int, node: FileNode) -> bool:
        """Let a new file share the blocks of one that was written; return False if that cannot be."""
        if not self._can_clone:
            return False
        written = self._written.get((node.digest, node.executable)) or self._written.get(
            (node.digest, not node.executable)
        )
        if written is None:
            return False
        try:
            source = written.folder.open_file(written.name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            if _identity(os.fstat(source)) != written.identity:
                return False
            fcntl.ioctl(descriptor, _CLONE, source)
        except OSError:
            self._can_clone = False  # Most file systems cannot.
            return False
        finally:
            os.close(source)
        return True


def write_all(descriptor: int, data: memoryview) -> None:
    """Write all bytes, however many go at a time; raise `OSError`."""
    while data:
        data = data[os.write(descriptor, data) :]


def copy_file(source: int, target: int) -> None:
    """Copy an open file to another one that is empty: its bytes, its holes, mode, times and owner if allowed.

    Raises `OSError`.
    """
    status = os.fstat(source)
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError:
        os.ftruncate(target, status.st_size)
        position = 0
        while (begin := _seek(source, position, os.SEEK_DATA)) < status.st_size:
            position = min(_seek(source, begin, os.SEEK_HOLE), status.st_size)
            os.lseek(source, begin, os.SEEK_SET)
            os.lseek(target, begin, os.SEEK_SET)
            left = position - begin
            while left and (data := os.read(source, min(left, _PIECE))):
                write_all(target, memoryview(data))
                left -= len(data)
    with contextlib.suppress(PermissionError):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, status.st_mode & 0o777)  # Nobody else's program is to run as who copies it.
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _seek(descriptor: int, position: int, whence: int) -> int:
    """Return where data, or a hole, begins from *position* on: at the end if there is no more."""
    try:
        return os.lseek(descriptor, position, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return os.fstat(descriptor).st_size
        raise


def digest_of_file(descriptor: int, progress: Callable[[int], object] | None = None) -> B3Digest:
    """Read an open file to its end; return the digest of what was read."""
    hasher = blake3()
    while data := os.read(descriptor, _PIECE):
        hasher.update(data)
        if progress is not None:
            progress(len(data))
    return B3Digest(hasher.digest())
