"""Writing to near and far at once."""

from __future__ import annotations

from castore import B3Digest, BlobWriter, CastoreError, CorruptBlobError
from castore.streams.writers import GuardedWriter
from castore_cache.near import Near


class BothWriter(GuardedWriter):
    """Writes a blob to two services, which must name it alike.

    A near that fails is left out, unless the policy says otherwise: far has the blob.
    """

    def __init__(self, near: Near, far: BlobWriter) -> None:
        self._near = near
        self._far = far
        self._beside: BlobWriter | None = None
        try:
            self._beside = near.ask(near.service.open_write)[0]
        except CastoreError:
            far.abort()
            raise

    def _take(self, view: memoryview) -> None:
        self._far.write(view)
        beside = self._beside
        if beside is not None and self._near.ask(lambda: beside.write(view))[0] is None:
            self._leave_out(beside)

    def _finish(self) -> B3Digest:
        # Far first: should only one of them succeed, then rather the one that lasts.
        digest = self._far.close()
        beside = self._beside
        named = None if beside is None else self._near.ask(beside.close)[0]
        if named is not None and named != digest:
            raise CorruptBlobError(
                f"far took the blob for {digest}, near for {named}", expected=named, found=digest
            )
        return digest

    def _leave_out(self, beside: BlobWriter) -> None:
        self._beside = None
        self._near.attempt(beside.abort)

    def _discard(self) -> None:
        self._far.abort()
        if self._beside is not None:
            self._beside.abort()
