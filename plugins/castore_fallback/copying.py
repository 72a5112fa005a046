"""Keeping what a later member had in an earlier one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from castore import B3Digest, BlobReader, BlobWriter, CastoreError
from castore.chunks.writer import ChunkedWriter
from castore.composites.failover_reading import CheckedReader
from castore.composites.members import Found, Member
from castore.composites.remarks import Remarks
from castore.composites.timed_writing import open_timed
from castore.contract.capabilities import ChunkStore
from castore.streams.readers import BytesReader, PieceReader
from castore_fallback.capabilities import StoreInOne

_log: Final = logging.getLogger("castore_fallback")


class Keeper:
    """Copies blobs to *target*; if that fails it is logged, and the reader of the blob does not notice."""

    def __init__(self, target: Member, name: str) -> None:
        self.target = target
        self._name = name
        self._remarks = Remarks(_log)

    def keeping(self, reader: PieceReader, answer: Found[Any]) -> PieceReader:
        """Return a reader that copies what is read of it from start to end; a small blob is copied now.

        *answer* says who had it.
        """
        if not isinstance(reader, CheckedReader):
            return KeepingReader(reader, self)
        store = self.target.service.capability(ChunkStore)
        damaged = self.target in answer.votes.corrupt
        if store is not None and damaged and 0 < reader.size <= store.new_chunker().max_size:
            # As a chunk: a writer would pass over one that is there.
            data = bytes(reader.piece_at(0))
            digest = B3Digest.of(data)
            self._put(store, {digest: data}, (digest,))
        else:
            self._keep(reader)
        return reader

    def keep_missed(self, found: Mapping[B3Digest, Found[bytes]]) -> None:
        """Copy small blobs that the target was asked for and does not have right, all together."""
        missed = {digest: answer.value for digest, answer in found.items() if self.lacks(answer)}
        store = self.target.service.capability(ChunkStore)
        if store is None:
            for data in missed.values():
                self._keep(BytesReader(data))
        elif missed:
            self._put(store, missed, missed)

    def lacks(self, answer: Found[Any]) -> bool:
        """Tell whether the target was asked, and lacks what was asked for, or has it wrong."""
        return self.target in answer.votes.missed or self.target in answer.votes.corrupt

    def mend(self, answer: Found[Any], open_read: Callable[[], BlobReader | None]) -> None:
        """Put into the target a chunk of a blob that it had wrong, or lost; or if it had a wrong index, all.

        *open_read* opens the blob at the others.
        """
        store = self.target.service.capability(ChunkStore)
        if store is None or not self.lacks(answer):
            return
        if isinstance(answer.value, bytes):
            # A writer would pass over a chunk that is there.
            self._put(store, {B3Digest.of(answer.value): answer.value}, ())
            return
        try:
            reader = open_read()
            if reader is None:
                return
            with (
                reader,
                StoreInOne(store, self.target, store).lease() as leased,
                ChunkedWriter(leased) as writer,
            ):
                while piece := reader.read_view():
                    writer.write(piece)
        except CastoreError as error:
            self._warn(error)

    def _put(self, store: ChunkStore, chunks: Mapping[B3Digest, bytes], blobs: Iterable[B3Digest]) -> None:
        try:
            with StoreInOne(store, self.target, store).lease(brief=True) as leased:
                leased.put_chunks(chunks)
                leased.put_indexes(dict.fromkeys(blobs, ()))
        except CastoreError as error:
            self._warn(error)

    def _keep(self, reader: PieceReader) -> None:
        writer = self.start()
        if writer is not None:
            whole = not reader.size or self.take(writer, reader.piece_at(0))
            self.finish(writer, whole=whole)

    def start(self) -> BlobWriter | None:
        """Start a blob; `None` if the target fails."""
        try:
            return open_timed(self.target)
        except CastoreError as error:
            self._warn(error)
            return None

    def take(self, writer: BlobWriter, piece: memoryview) -> bool:
        """Copy a piece; return whether that succeeded."""
        try:
            writer.write(piece)
        except CastoreError as error:
            self._warn(error)
            return False
        return True

    def finish(self, writer: BlobWriter, *, whole: bool) -> None:
        """End the copy: make it visible if it is *whole*, else drop it."""
        try:
            if whole:
                writer.close()
            else:
                writer.abort()
        except CastoreError as error:
            self._warn(error)

    def _warn(self, error: CastoreError) -> None:
        self._remarks.warn("`%s`: nothing was copied to `%s`: %s", self._name, self.target.name, error)


class KeepingReader(PieceReader):
    """Copies a blob while it is read from start to end; a skipped part ends the copying."""

    def __init__(self, reader: PieceReader, keeper: Keeper) -> None:
        self._reader = reader
        self._keeper = keeper
        self._writer = keeper.start()
        self._copied = 0

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._reader.size

    @property
    def verified(self) -> bool:
        """Whether the reader beneath was read from start to end, and found right."""
        return self._reader.verified

    def piece_at(self, position: int) -> memoryview:
        """Return a piece, and copy what of it comes next."""
        piece = self._reader.piece_at(position)
        writer = self._writer
        if writer is not None:
            new = self._copied - position
            if new < 0 or (new < len(piece) and not self._keeper.take(writer, piece[new:])):
                self._stop(whole=False)
            elif new < len(piece):
                # The last piece was held back until the digest of the whole blob was right.
                self._copied = position + len(piece)
                if self._copied == self.size:
                    self._stop(whole=True)
        return piece

    def _stop(self, *, whole: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self._keeper.finish(writer, whole=whole)

    def close(self) -> None:
        """Close the reader beneath; a copy that is not complete is dropped."""
        if not self.closed:
            self._stop(whole=False)
            self._reader.close()
        super().close()
