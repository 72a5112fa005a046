"""Bringing one chunk, or one blob that is not in chunks, from a source to a target."""

from __future__ import annotations

from typing import Final

import attrs

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, ChunkStore, FrameStore
from castore.digest import EMPTY, B3Digest
from castore.errors import BlobNotFoundError, CastoreError, MissingChunkError
from castore.format.chunking import DEFAULT_AVG_SIZE
from castore.format.frames import check_size, decode_chunk
from castore.upkeep.reading import read_blob, read_chunk

_ONE_CHUNK: Final = DEFAULT_AVG_SIZE // 2
"""Bytes up to which a blob that the source keeps whole is one chunk of the target; others it cuts itself."""


@attrs.frozen
class Sent:
    """What has passed.

    Attributes:
        size: How many bytes.
        data: The bytes themselves, if they are a chunk.
        copied: Whether the target lacked it.
        visible: Whether the target has it as a blob already, so that no index is to be put.
    """

    size: int
    data: bytes = b""
    copied: bool = True
    visible: bool = False


class Transfer:
    """Moves bytes from *source* to *target*, for use in threads.

    What is wrong with the source is returned: it is about one blob. What is wrong with the target is raised.
    Where both keep frames of one format these are passed on as they are; they are unpacked all the same, to
    be checked.
    """

    def __init__(self, source: BlobService, target: BlobService) -> None:
        self._source = source
        self._target = target
        self._chunks = source.capability(ChunkSource)
        self._store = target.capability(ChunkStore)
        frames, target_frames = source.capability(FrameStore), target.capability(FrameStore)
        alike = frames and target_frames and frames.frame_format == target_frames.frame_format == "zstd"
        self._frames = frames if alike else None
        self._target_frames = target_frames if alike else None

    @property
    def by_chunks(self) -> bool:
        """Whether blobs go chunk by chunk, and keep their boundaries."""
        return self._chunks is not None and self._store is not None

    def chunk(self, blob: B3Digest, meta: ChunkMeta) -> Sent | CastoreError:
        """Bring one chunk of *blob* to the target, unless that has it."""
        try:
            frame, data = self._read(meta.digest, meta.size)
            if data is None:
                key = None if self._chunks is None else self._chunks.chunk_key(meta.digest)
                return MissingChunkError(blob=blob, chunk=meta.digest, key=key)
            check_size(meta.digest, len(data), meta.size)
        except CastoreError as error:
            return error
        return Sent(len(data), data, self._put(meta.digest, frame, data))

    def whole(self, digest: B3Digest) -> Sent | CastoreError:
        """Bring a blob without finer chunks to the target: as one chunk if it is one, else as a stream."""
        if self._store is None or not self.by_chunks:
            return self._stream(digest)
        if digest == EMPTY:
            return Sent(0)
        try:
            frame, data = self._read_small(digest)
        except CastoreError as error:
            return error
        if data is None:
            return self._stream(digest)
        return Sent(len(data), data, self._put(digest, frame, data))

    def _read(self, digest: B3Digest, size: int | None) -> tuple[bytes | None, bytes | None]:
        """Return a chunk as a frame, if frames are passed on, and its checked bytes."""
        if self._frames is None:
            return None, read_chunk(self._source, self._chunks, digest)
        frame = self._frames.get_frame(digest)
        if frame is None:
            return None, None
        key = None if self._chunks is None else self._chunks.chunk_key(digest)
        return frame, decode_chunk(frame, digest, size=size, key=key)

    def _read_small(self, digest: B3Digest) -> tuple[bytes | None, bytes | None]:
        """Return as `_read` a blob that is one chunk, or could be one."""
        if self._frames is not None:
            return self._read(digest, None)
        reader = self._source.open_read(digest)
        if reader is None:
            raise BlobNotFoundError(digest)
        with reader:
            if reader.size > _ONE_CHUNK:
                return None, None
        return None, read_chunk(self._source, None, digest)

    def _put(self, digest: B3Digest, frame: bytes | None, data: bytes) -> bool:
        """Put a chunk if the target lacks it; return whether it did."""
        assert self._store is not None
        if self._store.claim_chunk(digest):
            return False
        if frame is not None and self._target_frames is not None:
            self._target_frames.put_frame(digest, frame)
        else:
            self._store.put_chunk(digest, data)
        return True

    def _stream(self, digest: B3Digest) -> Sent | CastoreError:
        """Bring a blob through a reader and a writer, which closes once the digest is known to be right."""
        fault: CastoreError | None = None

        def take(piece: memoryview) -> None:
            nonlocal fault
            try:
                writer.write(piece)
            except CastoreError as error:
                fault = error
                raise

        writer = self._target.open_write()
        try:
            size = read_blob(self._source, digest, take)
            if size is None:
                raise BlobNotFoundError(digest)
        except BaseException as error:
            writer.abort()
            if error is fault or not isinstance(error, CastoreError):
                raise
            return error
        writer.close()
        return Sent(size, visible=True)
