"""Folders as trees of which nothing is stored: to know their digests, and to compare them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from blake3 import blake3

from castore.contract.blobs import BlobReader, BlobService, BlobWriter
from castore.contract.directories import AnyDirectory, Complete, DirectoryService, FoundDirectories
from castore.digest import B3Digest
from castore.format.directories import Directory
from castore.streams.writers import GuardedWriter
from castore.trees.importing import Imported, import_tree


def hash_tree(
    source: str | bytes | os.PathLike[str],
    *,
    progress: Callable[[int], object] | None = None,
    met: Callable[[bytes], object] | None = None,
    leave_out: Callable[[bytes], object] | None = None,
) -> tuple[Imported, DirectoryService]:
    """Return what `import_tree` would return for a folder, a file or a link, and its directories.

    Nothing is stored. The directories are held in memory, as short as they are encoded.

    Arguments:
        source: Its path.
        progress: Called with the number of bytes of each piece of a file that is done.
        met: Called with the path of each file before it is read.
        leave_out: Called with the path of each thing in a folder; what it is true of is not in the tree.

    Raises `SourceError` if the source itself cannot be read.
    """
    directories = _HeldDirectories()
    done = import_tree(source, _Nowhere(), directories, progress=progress, met=met, leave_out=leave_out)
    return done, directories


class _Nowhere(BlobService):
    """Takes blobs, and keeps none."""

    def has(self, digest: B3Digest) -> bool:  # noqa: ARG002 - there is nothing
        return False

    def open_read(self, digest: B3Digest) -> BlobReader | None:  # noqa: ARG002 - as above
        return None

    def open_write(self) -> BlobWriter:
        return _HashingWriter()


class _HashingWriter(GuardedWriter):
    def __init__(self) -> None:
        self._hasher = blake3()

    def _take(self, view: memoryview) -> None:
        self._hasher.update(view)

    def _finish(self) -> B3Digest:
        return B3Digest(self._hasher.digest())


class _HeldDirectories(DirectoryService, AnyDirectory, Complete):
    def __init__(self) -> None:
        self._encoded: dict[B3Digest, bytes] = {}

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:  # noqa: ARG002 - all are here
        encoded = ((digest, self._encoded.get(digest)) for digest in digests)
        return {digest: Directory.decode(data) for digest, data in encoded if data is not None}

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set(digests) - self._encoded.keys()

    def put_many(self, directories: Collection[Directory]) -> None:
        self._encoded |= {directory.digest: directory.encoded for directory in directories}
