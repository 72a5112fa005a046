"""The chunks of a blob, taken from one stream of it for as long as it is read in order.

A call for each chunk costs both sides about as much again as to send it. So the stream by which a blob was
opened goes on: it is cut into the chunks of the list, and each is checked as if it had been asked for. The
stream is a shortcut and nothing else. Whatever is wrong with it ends it, and so does a reader that goes
elsewhere in the blob, or that takes nothing for a while: a stream that nobody reads holds a thread of the
peer. From then on chunks are asked for one by one, and an error is that of such a call.

No more is taken from the stream than was asked for. What comes before that, as threads overtake each other,
is kept for the others, within bounds.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Final

from castore import B3Digest, BlobService, ChunkMeta
from castore.chunks.reader import ChunkedReader
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.errors import CastoreError, CorruptBlobError
from castore.format.checks import check_digest
from castore.threads import forks
from castore.threads.idle import IdleWatch, Waiting
from castore.threads.pool import Pool
from castore_grpc.peer import AbsentError

_MOST_AHEAD: Final = 24 << 20
"""How many bytes may lie between what comes next in the stream and the end of what is asked for."""

_LONGEST_UNREAD: Final = 2.0
"""For so many seconds a stream is kept of which nobody takes anything."""

_unread: Final = IdleWatch(lambda: _LONGEST_UNREAD)
_left_behind: Final[list[object]] = []
"""Streams of a parent, which nobody touches in a child: their locks may be held for ever."""


class StreamedChunks(ChunkSource):
    """Takes chunks from the stream of a blob, and from elsewhere what does not come there.

    Arguments:
        otherwise: Where chunks come from that the stream does not bring.
        chunks: The chunks of the blob, in order.
        begun: What has come of the stream.
        stream: The rest; closed at the end.
        cancel: Ends the stream, from any thread.
    """

    high_latency = True

    def __init__(
        self,
        otherwise: ChunkSource,
        chunks: Sequence[ChunkMeta],
        begun: Iterable[memoryview],
        stream: Generator[memoryview],
        cancel: Callable[[], object],
    ) -> None:
        self._otherwise = otherwise
        self._chunks = chunks
        self._held = deque(begun)
        self._stream: Generator[memoryview] | None = stream
        self._next = 0
        self._early: OrderedDict[B3Digest, bytes] = OrderedDict()
        self._bytes_early = 0
        self._is_over = False
        self._closed = False
        self._generation = forks.generation()
        self._lock = forks.new_lock()
        self._waiting = _watched(cancel)
        self._waiting.begin()

    @property
    def is_over(self) -> bool:
        """Whether nothing comes from the stream any more."""
        return self._is_over or self._waiting.expired or self._generation != forks.generation()

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask elsewhere."""
        return self._otherwise.find_chunks(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Take chunks from the stream, each checked, and the others from elsewhere."""
        found: FoundChunks = {}
        for digest, data in self._taken(set(sizes)).items():
            # Here, as the next thread may take chunks meanwhile.
            try:
                check_digest(digest, data)
            except CorruptBlobError:
                self.give_up()
            else:
                found[digest] = data
        others = {digest: size for digest, size in sizes.items() if digest not in found}
        if others and not self._closed:
            found.update(self._otherwise.get_chunks(others))
        return found

    def give_up(self) -> None:
        """End the stream; whoever waits for it goes on elsewhere."""
        self._is_over = True
        if self._generation == forks.generation():
            self._waiting.cancel()

    def close(self) -> None:
        """End the stream, and let go of all."""
        self._closed = True
        self.give_up()
        with self._lock:
            self._let_go()
            self._early.clear()

    def _taken(self, wanted: set[B3Digest]) -> dict[B3Digest, bytes]:
        found: dict[B3Digest, bytes] = {}
        with self._lock:
            self._waiting.end()
            for digest in wanted & self._early.keys():
                found[digest] = self._early.pop(digest)
                self._bytes_early -= len(found[digest])
            try:
                if not self._is_over and self._generation == forks.generation():
                    self._go_through(wanted - found.keys(), found)
            except (AbsentError, CastoreError):
                self._is_over = True
            except BaseException:
                self._is_over = True
                raise
            finally:
                if self._is_over or self._generation != forks.generation():
                    self._let_go()
                else:
                    self._waiting.begin()
        return found

    def _go_through(self, wanted: set[B3Digest], found: dict[B3Digest, bytes]) -> None:
        """Take what comes up to the last of those that are wanted, if that is not too far away."""
        end, ahead, left = self._next, 0, set(wanted)
        last = end
        while left and end < len(self._chunks):
            meta = self._chunks[end]
            ahead += meta.size
            if ahead > _MOST_AHEAD:
                break
            end += 1
            if meta.digest in left:
                left.discard(meta.digest)
                last = end
        while self._next < last:
            meta = self._chunks[self._next]
            data = self._take(meta.size)
            if data is None:
                self._is_over = True
                return
            self._next += 1
            if meta.digest in wanted:
                found[meta.digest] = data
            else:
                self._keep(meta.digest, data)
        if self._next == len(self._chunks):
            # The peer is told that all was taken: it would note a call that was cancelled.
            assert self._stream is not None
            next(self._stream, None)
            self._is_over = True

    def _keep(self, digest: B3Digest, data: bytes) -> None:
        if digest in self._early:
            return
        self._early[digest] = data
        self._bytes_early += len(data)
        while self._bytes_early > _MOST_AHEAD:
            self._bytes_early -= len(self._early.popitem(last=False)[1])

    def _take(self, size: int) -> bytes | None:
        """Return the next bytes of the stream, `None` if it ends before."""
        assert self._stream is not None
        pieces: list[memoryview] = []
        left = size
        while left:
            piece = self._held.popleft() if self._held else next(self._stream, None)
            if piece is None:
                return None
            if len(piece) > left:
                self._held.appendleft(piece[left:])
                piece = piece[:left]
            pieces.append(piece)
            left -= len(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        self._is_over = True
        self._held.clear()
        if stream is None:
            return
        if self._generation == forks.generation():
            stream.close()
            _unread.discard(self._waiting)
        else:
            _left_behind.append(stream)


def _watched(cancel: Callable[[], object]) -> Waiting:
    """Return a stream that is cancelled, and watched no longer, when it was not read for too long."""

    def end() -> None:
        cancel()
        _unread.discard(waiting)

    waiting = _unread.over(end)
    _unread.add(waiting)
    return waiting


class StreamedReader(ChunkedReader):
    """Reads a blob from one stream while it is read in order, and by its chunks from then on."""

    def __init__(
        self,
        service: BlobService,
        chunks: Sequence[ChunkMeta],
        source: StreamedChunks,
        *,
        digest: B3Digest,
        pool: Pool,
    ) -> None:
        super().__init__(service, chunks, digest=digest, pool=pool, source=source)
        self._streamed = source
        self._reached = 0
        self._from = 0

    def piece_at(self, position: int) -> memoryview:
        """Return the rest of the chunk that has the byte at *position*."""
        if not self._from <= position <= self._reached:
            self._streamed.give_up()
        piece = super().piece_at(position)
        if position == self._reached:
            self._from = position
        self._reached = position + len(piece)
        return piece

    def close(self) -> None:
        """End the stream first: what waits for it would be waited for."""
        self._streamed.close()
        super().close()
