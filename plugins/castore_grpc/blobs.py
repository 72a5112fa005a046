"""Blobs of a peer: what it sends is believed only once it has the digest that was asked for."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import BinaryIO, Final, cast

from blake3 import blake3

from castore import B3Digest, BlobReader, BlobWriter, ChunkMeta
from castore.chunks.reader import ChunkedReader
from castore.contract.batches import MOST_UNKNOWN
from castore.contract.blobs import BatchBlobService
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.digest import no_digest
from castore.errors import (
    CastoreError,
    CorruptBlobError,
    CorruptChunkError,
    MissingChunkError,
    OversizedFrameError,
    UnavailableError,
)
from castore.format import blob_index
from castore.format.checks import check_digest, check_size
from castore.format.chunking import MAX_CHUNK_SIZE
from castore.format.wire import answered_digest, chunk_data, joined_message, read_request, stat_request
from castore.streams.readers import BytesReader, FileReader
from castore.streams.writers import GuardedWriter
from castore.threads import forks
from castore.threads.pool import Pool, process_pool
from castore_grpc.peer import AbsentError, Peer, RemoteDamageError, Running, again_if_cut
from castore_grpc.streamed import StreamedChunks, StreamedReader
from castore_grpc.upload import Upload

_SERVICE: Final = "BlobService"

_HEAD: Final = 128 << 10
"""A blob of so many bytes comes with one call; of a larger one its chunks are asked for."""

_IN_MEMORY: Final = 4 << 20
"""What is read as a whole is kept in a file beyond that."""

_MOST_STREAMS: Final = 4
"""So many blobs are read from streams at once: each holds a thread of the peer, which has a few of them."""

_MESSAGE: Final = 512 << 10
"""So many bytes of a blob are sent in a message."""


class GrpcBlobService(BatchBlobService, ChunkSource):
    """Reads and writes blobs of a peer.

    A blob of several chunks is read from one stream while it is read in order, each chunk checked as it
    comes, and else by its chunks, several at a time. One that the peer keeps as a whole is read
    before it is opened, as nobody knows how large it is until then.

    Arguments:
        peer: The peer, which is closed with the service.
        max_whole_size: How many bytes a blob may have that is read as a whole.
        pool: The pool beside which calls are made, some at once.
    """

    high_latency = True

    def __init__(self, peer: Peer, *, max_whole_size: int = 1 << 30, pool: Pool | None = None) -> None:
        self._peer = peer
        self._most = max_whole_size
        self._pool = (pool or process_pool()).io_pool
        self._lock = forks.new_lock()
        self._kept: weakref.WeakSet[StreamedChunks] = weakref.WeakSet()

    # -- questions --

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Ask for the list of chunks, and check all that it says."""
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        try:
            answer = again_if_cut(lambda: self._peer.ask(_SERVICE, "Stat", stat_request(digest)))
        except RemoteDamageError as error:
            raise error.of(digest) from error
        except AbsentError:
            return None
        return blob_index.decode(answer, digest)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask for each, many at once."""
        wanted = list(set(digests))
        there = self._pool.map(self._is_there, wanted)
        return {digest for digest, found in zip(wanted, there, strict=True) if not found}

    def _is_there(self, digest: B3Digest) -> bool:
        try:
            return self.chunks(digest) is not None
        except CorruptBlobError:
            return True

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of which the peer lists no chunks: they are some themselves."""
        wanted = list(set(digests))
        found = self._pool.map(self._is_chunk, wanted)
        return {digest for digest, is_chunk in zip(wanted, found, strict=True) if is_chunk}

    def _is_chunk(self, digest: B3Digest) -> bool:
        try:
            chunks = self.chunks(digest)
        except CorruptBlobError:
            return False
        return chunks is not None and not chunks

    # -- reading --

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Read chunks, many at once, each no further than its size allows."""
        wanted = list(sizes.items())
        answers = self._pool.map(self._get_chunk, wanted)
        found = zip(sizes, answers, strict=True)
        return {digest: data for digest, data in found if data is not None}

    def _get_chunk(self, wanted: tuple[B3Digest, int | None]) -> bytes | CastoreError | None:
        digest, size = wanted
        most = MOST_UNKNOWN if size is None else min(size, MAX_CHUNK_SIZE)
        try:
            data = again_if_cut(lambda: self._read_small(digest, most))
            check_size(digest, len(data), size)
            check_digest(digest, data)
        except RemoteDamageError as error:
            return CorruptChunkError(f"chunk {digest} is corrupt at the peer: {error}", expected=digest)
        except AbsentError:
            return None
        except CastoreError as error:
            return error
        return data

    def _read_small(self, digest: B3Digest, most: int) -> bytes:
        pieces = []
        size = 0
        with closing(self._stream(digest, self._begin(digest))) as stream:
            for piece in stream:
                size += len(piece)
                if size > most:
                    raise OversizedFrameError(
                        f"the peer sends more than {most} bytes for chunk {digest}", expected=digest
                    )
                pieces.append(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def _begin(self, digest: B3Digest) -> Running:
        return self._peer.begin_to_receive(_SERVICE, "Read", read_request(digest))

    def _stream(self, digest: B3Digest, call: Running) -> Generator[memoryview]:
        """Yield the bytes of a blob as they come; `AbsentError` comes at the beginning, or never."""
        begun = False
        try:
            with closing(cast("Generator[bytes]", self._peer.messages_of(call))) as messages:
                for message in messages:
                    piece = chunk_data(message)
                    begun = True
                    if piece:
                        yield piece
        except ValueError as error:
            if isinstance(error, CastoreError):
                raise
            raise UnavailableError(self._peer.instance, f"it sent something else: {error}") from error
        except RemoteDamageError as error:
            if begun:
                raise error.of(digest) from error
            raise
        except AbsentError as error:
            if begun:
                raise CorruptBlobError(
                    f"blob {digest} is incomplete at the peer: {error}", expected=digest
                ) from error
            raise

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob: a small one comes with this, a large one by its chunks."""
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        for _ in range(2):
            try:
                return again_if_cut(lambda: self._read_head(digest))
            except RemoteDamageError as error:
                chunks = self.chunks(digest)
                if not chunks:
                    raise error.of(digest) from error
                return self._by_chunks(digest, chunks)
            except AbsentError:
                # A peer whose blob lacks its first chunk says the same.
                chunks = self.chunks(digest)
            if chunks is None:
                return None
            if chunks:
                return self._by_chunks(digest, chunks)
        raise MissingChunkError(blob=digest, chunk=digest)

    def _read_head(self, digest: B3Digest) -> BlobReader:
        call = self._begin(digest)
        stream = self._stream(digest, call)
        reader = None
        try:
            reader = self._open(digest, stream, call)
            return reader
        finally:
            if not isinstance(reader, StreamedReader):
                stream.close()

    def _open(self, digest: B3Digest, stream: Generator[memoryview], call: Running) -> BlobReader:
        pieces: list[memoryview] = []
        size = 0
        chunks: Sequence[ChunkMeta] | None = None
        for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size > _HEAD and chunks is None:
                chunks = self.chunks(digest)
                if chunks:
                    return self._streamed(digest, chunks, pieces, stream, call)
                chunks = ()
            if size > _IN_MEMORY:
                return self._spooled(digest, pieces, stream)
        data = b"".join(pieces)
        _require(digest, B3Digest.of(data))
        return BytesReader(data, digest)

    def _by_chunks(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> BlobReader:
        return ChunkedReader(self, chunks, digest=digest, pool=self._pool)

    def _streamed(
        self,
        digest: B3Digest,
        chunks: Sequence[ChunkMeta],
        begun: Sequence[memoryview],
        stream: Generator[memoryview],
        call: Running,
    ) -> BlobReader:
        """Return a reader that goes on with the stream, unless several of this service do so."""
        with self._lock:
            if sum(not each.is_over for each in self._kept) >= _MOST_STREAMS:
                return self._by_chunks(digest, chunks)
            source = StreamedChunks(self, chunks, begun, stream, call.call.cancel)
            self._kept.add(source)
        return StreamedReader(self, chunks, source, digest=digest, pool=self._pool)

    def _spooled(
        self, digest: B3Digest, pieces: Sequence[memoryview], rest: Iterator[memoryview]
    ) -> BlobReader:
        file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the reader closes it
        try:
            hasher = blake3()
            size = 0
            for some in (pieces, rest):
                for piece in some:
                    size += len(piece)
                    if size > self._most:
                        raise CorruptBlobError(
                            f"blob {digest} has no chunks, and more than the {self._most} bytes that may be"
                            " read as a whole; see `max_whole_size`",
                            expected=digest,
                        )
                    hasher.update(piece)
                    try:
                        file.write(piece)
                    except OSError as error:
                        raise UnavailableError("the temporary folder", error) from error
            _require(digest, B3Digest(hasher.digest()))
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return FileReader(file, size, verified=True)

    # -- writing --

    def open_write(self) -> BlobWriter:
        """Start a blob, which is sent while it is written."""
        return GrpcWriter(self._peer)

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()


class GrpcWriter(GuardedWriter):
    """Sends a blob, and compares the digest that the peer answers.

    A small one goes as a whole with one call. Neither is repeated if it fails on the way.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._hasher = blake3()
        self._held: list[bytes] = []
        self._size = 0
        self._upload: Upload | None = None

    def _take(self, view: memoryview) -> None:
        self._hasher.update(view)
        while view:
            piece = view[: _MESSAGE - self._size]
            self._held.append(bytes(piece))
            self._size += len(piece)
            view = view[len(piece) :]
            if self._size == _MESSAGE:
                if self._upload is None:
                    self._upload = Upload(self._peer, _SERVICE, "Put")
                self._upload.send(self._message())

    def _message(self) -> bytes:
        held, self._held, self._size = self._held, [], 0
        return joined_message(held)

    def _finish(self) -> B3Digest:
        digest = B3Digest(self._hasher.digest())
        if self._upload is None:
            # To the peer a stream of one message and a single message are the same.
            try:
                answer = self._peer.ask(_SERVICE, "Put", self._message())
            except AbsentError as error:
                raise UnavailableError(self._peer.instance, f"it did not store the blob: {error}") from error
        else:
            if self._held:
                self._upload.send(self._message())
            answer = self._upload.finish()
        _require(digest, _digest_in(answer, self._peer), stored=True)
        return digest

    def _discard(self) -> None:
        self._held.clear()
        if self._upload is not None:
            self._upload.cancel()


def _digest_in(answer: bytes, peer: Peer) -> B3Digest:
    try:
        return answered_digest(answer)
    except ValueError as error:
        raise UnavailableError(peer.instance, f"it answered no digest: {error}") from error


def _require(expected: B3Digest, found: B3Digest, *, stored: bool = False) -> None:
    if found == expected:
        return
    if stored:
        raise CorruptBlobError(
            f"blob {expected} was stored by the peer as {found}", expected=expected, found=found
        )
    raise CorruptBlobError(
        f"blob {expected} is corrupt: the peer sent bytes with the digest {found}",
        expected=expected,
        found=found,
    )
