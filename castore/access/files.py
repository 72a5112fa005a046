"""Files of a file system of fsspec: one to read a blob, one to write a new one."""

from __future__ import annotations

import io
from typing import Any

from castore.access.drafts import Draft
from castore.contract.blobs import BlobReader, BlobWriter
from castore.format.nodes import FileNode, TreePath


class CastoreFile(io.BufferedIOBase):
    """A file that is read: a blob, by the name that it was opened by."""

    mode = "rb"

    def __init__(self, reader: BlobReader, path: str) -> None:
        self._reader = reader
        self.path = self.name = path
        self.size = reader.size
        # What reads does so without a step in between.
        self.read1, self.readline = reader.read1, reader.readline  # type: ignore[method-assign]
        self.read_view = reader.read_view

    def read(self, size: int | None = -1, /) -> bytes:
        """Return *size* bytes, or all that are left."""
        return self._reader.read(-1 if size is None else size)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; return how many bytes that were."""
        return self._reader.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; beyond the end there is nothing to read."""
        if whence == io.SEEK_SET and offset > self.size:
            offset = self.size
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        """Return where it is."""
        return self._reader.tell()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Let go of the blob."""
        self._reader.close()
        super().close()


class CastoreWriteFile(io.RawIOBase):
    """A file that is written: its bytes go to the store at once, its name into the tree when it is closed."""

    mode = "wb"

    def __init__(self, writer: BlobWriter, draft: Draft, place: TreePath, path: str) -> None:
        self._writer = writer
        self._draft = draft
        self._place = place
        self.path = self.name = path
        self._written = 0

    def write(self, data: Any, /) -> int:
        """Take bytes."""
        count = self._writer.write(data)
        self._written += count
        return count

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._written

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Store the blob, and let it stand in the tree."""
        if not self.closed:
            try:
                self._draft.put(self._place, FileNode(self._writer.close(), self._written))
            finally:
                self._writer.abort()
                super().close()

    def commit(self) -> None:
        """Close it, if nobody has."""
        self.close()

    def discard(self) -> None:
        """Forget what was written, if it was not closed."""
        if not self.closed:
            self._writer.abort()
            super().close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
