"""Writing to near and far at once."""

from __future__ import annotations

from castore import B3Digest, BlobWriter, CorruptBlobError
from castore.writers import GuardedWriter


class BothWriter(GuardedWriter):
    """Writes a blob to two services; both must take it, and name it alike."""

    def __init__(self, near: BlobWriter, far: BlobWriter) -> None:
        self._writers = (far, near)

    def _take(self, view: memoryview) -> None:
        for writer in self._writers:
            writer.write(view)

    def _finish(self) -> B3Digest:
        # Far first: should only one of them succeed, then rather the one that lasts.
        far, near = (writer.close() for writer in self._writers)
        if far != near:
            raise CorruptBlobError(f"far took the blob for {far}, near for {near}", expected=near, found=far)
        return far

    def _discard(self) -> None:
        for writer in self._writers:
            writer.abort()
