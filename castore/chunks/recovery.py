"""Where a reader goes on when a chunk, or its list of chunks, fails it: by the position in the blob.

Services may have cut one blob in different ways, so that a chunk of one is nothing that another knows. What
they have in common is the blob: the bytes at a position are the same in all of them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from blake3 import blake3

from castore.contract.blobs import BlobReader, ChunkMeta
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError


class Recovery(ABC):
    """Knows other readers of one blob; belongs to the thread that reads it."""

    def goes_on_after(self, error: CastoreError) -> bool:
        """Tell whether an error is one to look elsewhere for: that something is corrupt, by default."""
        return isinstance(error, CorruptBlobError)

    def chunk(self, meta: ChunkMeta, offset: int, error: CastoreError) -> bytes | None:  # noqa: ARG002 - for overriding
        """Return the checked bytes of a chunk from elsewhere, `None` if they are nowhere.

        *offset* is its place in the blob, in bytes; *error* says why it could not be had.
        """
        return None

    @abstractmethod
    def instead(self) -> BlobReader | None:
        """Open the blob elsewhere, without the list that has failed; `None` if it is nowhere else."""

    def proved_wrong(self, error: CastoreError) -> None:  # noqa: B027 - most need not know
        """Be told that the list of chunks is wrong: the blob was read elsewhere, and found right."""

    def close(self) -> None:  # noqa: B027 - many hold nothing
        """Let go of readers."""


class Elsewhere(Recovery):
    """Cuts chunks out of what *open_read* opens, by their places.

    Arguments:
        open_read: Opens the blob elsewhere; `None` if it is not there.
        instead: Opens it to be read instead; without it *open_read* does. Not if what that has opened was
            damaged at the place of the chunk: it has tried all that it knows, and would once more.
        after_all: Opens it then, in another way that asks nobody for bytes at a place.
        keep: Is given each chunk that came from elsewhere.
        met: Is told why it had to.
        after: Tells of errors whether to look elsewhere, if not only for what is corrupt.
        wrong: Is told when the list was found to be wrong, with the error that it had led to.
    """

    def __init__(
        self,
        open_read: Callable[[], BlobReader | None],
        *,
        instead: Callable[[], BlobReader | None] | None = None,
        after_all: Callable[[], BlobReader | None] = lambda: None,
        keep: Callable[[Mapping[B3Digest, bytes]], object] | None = None,
        met: Callable[[CastoreError], object] | None = None,
        wrong: Callable[[CastoreError], object] | None = None,
        after: Callable[[CastoreError], bool] | None = None,
    ) -> None:
        self._open_read = open_read
        self._instead = open_read if instead is None else instead
        self._after_all = after_all
        self._in_vain = False
        self._keep = keep
        self._met = met
        self._wrong = wrong
        self._after = after
        self._reader: BlobReader | None = None

    def chunk(self, meta: ChunkMeta, offset: int, error: CastoreError) -> bytes | None:
        """Read what stands there; it is the chunk if its digest says so. Raises `UnavailableError`."""
        data = reading_again(lambda: self._read(offset, meta.size))
        if data is None or B3Digest.of(data) != meta.digest:
            return None
        if self._met is not None:
            self._met(error)
        if self._keep is not None:
            self._keep({meta.digest: data})
        return data

    def goes_on_after(self, error: CastoreError) -> bool:
        """Ask who was given for that."""
        return super().goes_on_after(error) if self._after is None else self._after(error)

    def _read(self, offset: int, size: int) -> bytes | None:
        try:
            # One for all chunks: most of those that are lost were lost together.
            reader = self._reader = self._reader or self._open_read()
            if reader is None or offset + size > reader.size:
                return None
            reader.seek(offset)
            return reader.read(size)
        except CastoreError as error:
            self._in_vain = isinstance(error, CorruptBlobError) and not error.passed_over
            self.close()
            raise

    def instead(self) -> BlobReader | None:
        """Open the blob elsewhere, if it was not read there in vain."""
        # Else each layer of a stack would let those beneath it try everything twice.
        return self._after_all() if self._in_vain else self._instead()

    def proved_wrong(self, error: CastoreError) -> None:
        """Pass it on."""
        if self._wrong is not None:
            self._wrong(error)

    def close(self) -> None:
        """Close the reader that chunks are cut out of."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(CastoreError):
                reader.close()


def reading_again(read: Callable[[], bytes | None]) -> bytes | None:
    """Return what *read* returns, if need be at its second try; `None` if that is corrupt."""
    for _ in range(2):
        try:
            return read()
        except CorruptBlobError as error:
            if not error.passed_over:
                return None
    return None


def reads_right(
    reader: BlobReader, digest: B3Digest, chunks: Sequence[ChunkMeta], handed_out: Sequence[int]
) -> tuple[bool, bool]:
    """Read a blob from start to end; tell whether its bytes have the digest, and those that were handed out.

    *handed_out* says of each of *chunks* whether its bytes were, which must stand at its place then.
    """
    hasher = blake3()
    agrees = True
    reader.seek(0)
    for meta, was_handed_out in zip(chunks, handed_out, strict=True):
        data = reader.read(meta.size)
        hasher.update(data)
        if was_handed_out and agrees:
            agrees = len(data) == meta.size and B3Digest.of(data) == meta.digest
    while data := reader.read1():
        hasher.update(data)
        agrees = False
    return hasher.digest() == digest, agrees
