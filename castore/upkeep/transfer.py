"""Bringing chunks, many by one call, or one blob that is not in chunks, from a source to a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from castore.contract.batches import MOST_UNKNOWN
from castore.contract.blobs import Answer, BlobReader, BlobService
from castore.contract.capabilities import ChunkSource, ChunkStore, FrameStore
from castore.digest import B3Digest
from castore.errors import (
    BatchError,
    BlobNotFoundError,
    CastoreError,
    CorruptBlobError,
    OversizedFrameError,
)
from castore.format.chunking import MAX_CHUNK_SIZE
from castore.format.frames import decode_chunk
from castore.upkeep.reading import Attempts, Sizes, ask_for_each, check_blob, read_blob

_SMALL: Final = MOST_UNKNOWN
"""Up to so many bytes a blob that the source keeps whole is read at once, and put together with others."""


@attrs.frozen
class Fetched:
    """The checked bytes of a chunk, and the frame that they came in if that is to be passed on."""

    data: bytes | memoryview
    frame: bytes | None = None


@attrs.frozen
class Arrived:
    """Which chunks the target had, which it has now besides, and why it does not have others."""

    before: set[B3Digest]
    now: set[B3Digest]
    fault: CastoreError | None = None


class Transfer:
    """Moves bytes from *source* to *target*, for use in threads.

    What is wrong with the source is returned: it is about one blob. What is wrong with the target is raised,
    or, if a part was done, returned with that.

    Where both keep frames of one format these are passed on as they are; they are unpacked all the same, to
    be checked.
    """

    def __init__(self, source: BlobService, target: BlobService) -> None:
        self._source = source
        self._target = target
        self._attempt = Attempts(source)
        self._chunks = source.capability(ChunkSource)
        frames, target_frames = source.capability(FrameStore), target.capability(FrameStore)
        alike = frames and target_frames and frames.frame_format == target_frames.frame_format == "zstd"
        self._frames = frames if alike else None
        self._target_frames = target_frames if alike else None

    # -- from the source --

    @property
    def by_chunks(self) -> bool:
        """Whether the source gives chunks."""
        return self._chunks is not None

    def find(self, digests: Sequence[B3Digest]) -> set[B3Digest]:
        """Return those that are there as one chunk; none if that cannot be found out."""
        try:
            return set() if self._chunks is None else self._chunks.find_chunks(digests)
        except CastoreError:
            return set()

    def fetch(self, sizes: Sizes) -> dict[B3Digest, Fetched | CastoreError]:
        """Return chunks, with the sizes that indexes say; those that are absent are left out."""
        if self._frames is not None:
            frames = ask_for_each(self._frames.get_frames, sizes)
            for digest, frame in frames.items() if len(sizes) > 1 else ():
                if isinstance(frame, OversizedFrameError) and sizes[digest] is None:
                    # Alone it may be as large as any.
                    alone = ask_for_each(self._frames.get_frames, {digest: None})
                    frames[digest] = alone.get(digest, frame)
            return {digest: self._unpacked(digest, frame, sizes[digest]) for digest, frame in frames.items()}
        found = self._attempt.chunks(sizes)
        return {
            digest: data if isinstance(data, CastoreError) else Fetched(data)
            for digest, data in found.items()
        }

    def _unpacked(
        self, digest: B3Digest, frame: bytes | CastoreError, size: int | None
    ) -> Fetched | CastoreError:
        if isinstance(frame, CastoreError):
            return frame
        key = None if self._chunks is None else self._chunks.chunk_key(digest)
        try:
            return Fetched(decode_chunk(frame, digest, size=size, key=key, limit=MAX_CHUNK_SIZE), frame)
        except CastoreError as error:
            return error

    def fetch_whole(
        self, digests: Sequence[B3Digest]
    ) -> Iterator[tuple[B3Digest, Fetched | CastoreError | None]]:
        """Yield blobs of a source that keeps no chunks; `None` stands for one that is to be streamed."""
        left = dict.fromkeys(digests)
        try:
            for digest, answer in self._source.read_many(digests):
                left.pop(digest, None)
                yield digest, _fetched(digest, answer)
        except CastoreError as error:
            yield from ((digest, error) for digest in left)

    # -- to the target --

    def put(self, store: ChunkStore, chunks: Mapping[B3Digest, Fetched]) -> Arrived:
        """Put those chunks that *store* lacks, which is the target, leased."""
        before = store.claim(chunks) if chunks else set()
        new = {digest: fetched for digest, fetched in chunks.items() if digest not in before}
        try:
            if new:
                self._put_new(store, new)
        except BatchError as error:
            return Arrived(before, set(error.done & new.keys()), error)
        return Arrived(before, set(new))

    def _put_new(self, store: ChunkStore, chunks: Mapping[B3Digest, Fetched]) -> None:
        frames = {digest: fetched.frame for digest, fetched in chunks.items() if fetched.frame is not None}
        others: set[B3Digest] = chunks.keys() - frames.keys()
        if frames and isinstance(store, FrameStore):
            store.put_frames(frames)
        elif frames:
            assert self._target_frames is not None
            self._target_frames.put_frames(frames)
            # The lease is for what goes through *store* alone.
            others |= frames.keys() - store.claim(frames)
        if others:
            store.put_chunks({digest: chunks[digest].data for digest in others})

    def stream(self, digest: B3Digest) -> int | CastoreError:
        """Bring a blob through a reader and a writer, which closes once the digest is known to be right.

        Returns its size in bytes.
        """
        size = self._stream(digest)
        # What was wrong about it is passed over by who reads it again.
        again = isinstance(size, CorruptBlobError) and size.passed_over
        return self._stream(digest) if again else size

    def _stream(self, digest: B3Digest) -> int | CastoreError:
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
        return size


def _fetched(digest: B3Digest, answer: Answer) -> Fetched | CastoreError | None:
    if answer is None:
        return BlobNotFoundError(digest)
    if isinstance(answer, CastoreError):
        return answer
    try:
        if isinstance(answer, BlobReader):
            with answer:
                if answer.size > _SMALL:
                    return None
                answer = answer.read()
        check_blob(digest, B3Digest.of(answer))
    except CastoreError as error:
        return error
    return Fetched(answer)
