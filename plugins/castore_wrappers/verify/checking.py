"""Bytes that are released only when their digest is right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from blake3 import blake3

from castore import B3Digest, BlobReader, CastoreError, CorruptBlobError, UnavailableError
from castore.contract.capabilities import ChunkSource, FoundChunks, FrameStore, SharedPlace
from castore.contract.operations import Operation, operations_of
from castore.format.checks import check_digest
from castore.format.chunking import MAX_CHUNK_SIZE
from castore.streams.readers import BytesReader, FileReader
from castore.wrapping.sourced import SourcedChunks

if TYPE_CHECKING:
    from typing_extensions import Buffer

_IN_MEMORY: Final = 4 << 20
_PIECE: Final = 1 << 20


def _check_frame(digest: B3Digest, frame: bytes) -> None:
    from castore.format import frames  # noqa: PLC0415 - what has no frames needs no zstandard

    frames.decode_chunk(frame, digest, limit=MAX_CHUNK_SIZE)


def _checked(check: Callable[[B3Digest, bytes], None], found: FoundChunks) -> FoundChunks:
    """Return *found* with the error in place of each item that is not what it should be."""
    checked = dict(found)
    for digest, data in found.items():
        if not isinstance(data, CastoreError):
            try:
                check(digest, data)
            except CorruptBlobError as error:
                checked[digest] = error
    return checked


_CHECKS: Final[Mapping[type | None, Callable[[FoundChunks], FoundChunks]]] = {
    ChunkSource: partial(_checked, check_digest),
    SharedPlace: partial(_checked, check_digest),
    FrameStore: partial(_checked, _check_frame),
}
"""What checks the bytes that come through a capability."""


def checked_answer(operation: Operation, answer: FoundChunks) -> FoundChunks:
    """Return what an operation of a capability has received, with the error of each item that is wrong."""
    return _CHECKS[operation.capability](answer)


def is_checkable(kind: type) -> bool:
    """Tell whether all bytes that come through a capability can be checked, as far as it says of them."""
    return all(row.capability in _CHECKS for row in operations_of(kind).values() if row.receives)


class CheckedChunks(SourcedChunks):
    """Reads chunks from *source*, and believes it nothing.

    Where *frames* gives them as they are stored they are unpacked and checked here. So their bytes are hashed
    once, and not by the source as well.
    """

    def __init__(self, source: ChunkSource, frames: FrameStore | None = None) -> None:
        super().__init__(source)
        self._frames = frames

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks whose digests are right, and errors."""
        if self._frames is None:
            return _checked(check_digest, self._source.get_chunks(sizes))
        found = dict(self._frames.get_frames(sizes))
        # The source may have others, or more to say of them.
        rest = {digest: size for digest, size in sizes.items() if digest not in found}
        if rest:
            return {**self._unpacked(found, sizes), **_checked(check_digest, self._source.get_chunks(rest))}
        return self._unpacked(found, sizes)

    def _unpacked(self, found: FoundChunks, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        from castore.format import frames  # noqa: PLC0415 - what has no frames needs no zstandard

        unpacked: FoundChunks = {}
        for digest in sizes:
            # Taken out, so that a frame does not outlast its bytes.
            frame = found.pop(digest, None)
            if isinstance(frame, bytes):
                try:
                    frame = frames.decode_chunk(
                        frame, digest, size=sizes[digest], key=self._source.chunk_key(digest)
                    )
                except CorruptBlobError as error:
                    frame = error
            if frame is not None:
                unpacked[digest] = frame
        return unpacked


def check_whole(reader: BlobReader, digest: B3Digest) -> BlobReader:
    """Return a reader over the bytes of *reader* when all of them have been read and are right.

    Bytes that are in memory stay where they are. Others go there, beyond 4 MiB into an unnamed temporary
    file: so what is handed out later is what was checked. *reader* is closed, or handed out.

    Raises `CorruptBlobError`, and `UnavailableError` if the temporary file fails.
    """
    if type(reader) is BytesReader:
        view = reader.read_view()
        _require(digest, B3Digest.of(view))
        return BytesReader(view, digest)
    with reader:
        if reader.size <= _IN_MEMORY:
            data = reader.read()
            _require(digest, B3Digest.of(data))
            return BytesReader(data, digest)
        return _check_long(reader, digest)


def _check_long(reader: BlobReader, digest: B3Digest) -> BlobReader:
    spool = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - it goes with the reader
    try:
        hasher = blake3()
        size = 0
        while piece := reader.read_view(_PIECE):
            hasher.update(piece)
            _write(spool, piece)
            size += len(piece)
        _require(digest, B3Digest(hasher.digest()))
    except BaseException:
        spool.close()
        raise
    return FileReader(spool, size, verified=True)


def _write(spool: BinaryIO, piece: Buffer) -> None:
    try:
        spool.write(piece)
        spool.flush()
    except OSError as error:
        raise UnavailableError("the temporary folder", error) from error


def check_bytes(digest: B3Digest, data: bytes) -> None:
    """Raise `CorruptBlobError` unless *data* are the bytes of the blob."""
    _require(digest, B3Digest.of(data))


def _require(digest: B3Digest, found: B3Digest) -> None:
    if found != digest:
        raise CorruptBlobError(
            f"blob {digest} is corrupt: its bytes have the digest {found}", expected=digest, found=found
        )
