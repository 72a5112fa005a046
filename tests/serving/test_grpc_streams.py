"""A blob that is read in order comes with one stream of it; whatever happens to that, its bytes are right."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from peers import chunk_entry, field, peer

import castore
import castore_grpc.streamed
from castore import B3Digest, BlobService
from castore.errors import CorruptChunkError, MissingChunkError

CODE = grpc.StatusCode
SIZE = 100_000
PARTS = [random.Random(number).randbytes(SIZE) for number in range(20)]
PARTS.insert(7, PARTS[3])
"""One chunk comes twice."""
WHOLE = b"".join(PARTS)
BLOB = B3Digest.of(WHOLE)
LIST = b"".join(chunk_entry(B3Digest.of(part), len(part)) for part in PARTS)
LONG = 60


class Sender:
    """A peer that notes which reads it answers, and sends a blob as *stream* says.

    Attributes:
        whole: How many streams of the blob were asked for.
        single: The chunks that were asked for by themselves.
        ended: How many of those streams have ended, by either side.
        finished: How many of them the client has taken to the end.
    """

    def __init__(self, stream: Callable[[Sender, grpc.ServicerContext], Iterator[bytes]]) -> None:
        self._stream = stream
        self.chunks = {bytes(B3Digest.of(part)): part for part in PARTS}
        self.whole = 0
        self.single: list[bytes] = []
        self.ended = 0
        self.finished = 0
        self.lock = threading.Lock()

    def stat(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if not request:
            context.abort(CODE.INVALID_ARGUMENT, "invalid digest length")
        if request[2:34] != BLOB:
            context.abort(CODE.NOT_FOUND, "no blob")
        return LIST

    def read(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        digest = request[2:34]
        if digest == BLOB:
            with self.lock:
                self.whole += 1
            context.add_callback(self._note_end)
            yield from self._stream(self, context)
            return
        with self.lock:
            self.single.append(digest)
        if digest not in self.chunks:
            context.abort(CODE.NOT_FOUND, "no chunk")
        yield field(1, self.chunks[digest])

    def _note_end(self) -> None:
        with self.lock:
            self.ended += 1


@contextlib.contextmanager
def sending(sockets: Any, stream: Any, **query: Any) -> Iterator[tuple[Sender, BlobService]]:
    sender = Sender(stream)
    answers = {"BlobService/Stat": sender.stat, "BlobService/Read": sender.read}
    asked = "&".join(f"{key}={value}" for key, value in query.items())
    with peer(next(sockets), answers) as url, castore.from_url(f"{url}?{asked}") as blobs:
        yield sender, blobs


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def rightly(sender: Sender, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from (field(1, part) for part in PARTS)
    # Time for a client that would cancel it.
    time.sleep(0.1)
    sender.finished += context.is_active()


def in_small_pieces(_: Sender, __: grpc.ServicerContext) -> Iterator[bytes]:
    return (field(1, WHOLE[at : at + 4096]) for at in range(0, len(WHOLE), 4096))


def with_more_at_the_end(_: Sender, __: grpc.ServicerContext) -> Iterator[bytes]:
    yield field(1, WHOLE + b"and more")
    yield field(1, b"and more")


def with_wrong_bytes(_: Sender, __: grpc.ServicerContext) -> Iterator[bytes]:
    for number, part in enumerate(PARTS):
        yield field(1, bytes(SIZE) if number == 9 else part)


def cut_short(_: Sender, __: grpc.ServicerContext) -> Iterator[bytes]:
    return (field(1, part) for part in PARTS[:9])


def broken_off(code: grpc.StatusCode) -> Any:
    def stream(_: Sender, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from (field(1, part) for part in PARTS[:9])
        context.abort(code, "broken off")

    return stream


def no_message(_: Sender, __: grpc.ServicerContext) -> Iterator[bytes]:
    yield from (field(1, part) for part in PARTS[:9])
    yield b"\x0a\xff"


def stands_still(_: Sender, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from (field(1, part) for part in PARTS[:9])
    while context.is_active():
        time.sleep(0.01)


def ends_late(_: Sender, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from (field(1, part) for part in PARTS)
    while context.is_active():
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [rightly, in_small_pieces, with_more_at_the_end])
def test_a_blob_in_order_comes_with_one_call(
    sockets: Any, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(castore_grpc.streamed, "_LONGEST_UNREAD", 1000.0)
    with sending(sockets, stream) as (sender, blobs):
        assert blobs.read(BLOB) == WHOLE
        with blobs.open(BLOB) as reader:
            assert b"".join(iter(lambda: reader.read(70_000), b"")) == WHOLE
            assert reader.verified  # type: ignore[attr-defined]
        assert (sender.whole, sender.single) == (2, [])
        if stream is rightly:
            until(lambda: sender.ended == 2)
            assert sender.finished == 2


@pytest.mark.parametrize(
    "stream",
    [
        with_wrong_bytes,
        cut_short,
        broken_off(CODE.UNAVAILABLE),
        broken_off(CODE.NOT_FOUND),
        broken_off(CODE.DATA_LOSS),
        broken_off(CODE.RESOURCE_EXHAUSTED),
        no_message,
        stands_still,
    ],
)
def test_what_a_stream_does_not_bring_is_asked_for(
    sockets: Any, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing of it that was right already."""
    monkeypatch.setattr(castore_grpc.streamed, "_LONGEST_UNREAD", 1000.0)
    with sending(sockets, stream, timeout=3 if stream is stands_still else 60) as (sender, blobs):
        assert blobs.read(BLOB) == WHOLE
        assert sender.whole == 1
        assert bytes(B3Digest.of(PARTS[9])) in sender.single
        assert bytes(B3Digest.of(PARTS[1])) not in sender.single


def test_chunks_that_are_wrong_or_nowhere_are_errors_of_their_own(sockets: Any) -> None:
    for instead, kind in ((b"something else", CorruptChunkError), (None, MissingChunkError)):
        with sending(sockets, with_wrong_bytes) as (sender, blobs):
            digest = bytes(B3Digest.of(PARTS[9]))
            del sender.chunks[digest]
            if instead is not None:
                sender.chunks[digest] = instead
            with blobs.open(BLOB) as reader:
                assert reader.read(9 * SIZE) == WHOLE[: 9 * SIZE]
                with pytest.raises(kind):
                    reader.read()


def test_a_reader_that_goes_elsewhere_ends_the_stream(sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(castore_grpc.streamed, "_LONGEST_UNREAD", 1000.0)
    with sending(sockets, ends_late) as (sender, blobs), blobs.open(BLOB) as reader:
        assert reader.read(10) == WHOLE[:10]
        reader.seek(0)
        assert reader.read(SIZE + 10) == WHOLE[: SIZE + 10]
        assert not sender.single
        reader.seek(15 * SIZE)
        assert reader.read(10) == WHOLE[15 * SIZE :][:10]
        # Besides, at most, what threads that read ahead had wanted of the stream.
        assert bytes(B3Digest.of(PARTS[15])) in sender.single
        until(lambda: sender.ended == 1)
        reader.seek(0)
        assert reader.read() == WHOLE


def test_a_reader_that_is_left_ends_the_stream(sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(castore_grpc.streamed, "_LONGEST_UNREAD", 1000.0)
    with sending(sockets, stands_still) as (sender, blobs):
        with blobs.open(BLOB) as reader:
            reader.read(10)
            assert not sender.ended
        until(lambda: sender.ended == 1)
        assert not sender.single


def test_a_stream_that_nobody_reads_is_given_up(sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a thread of the peer. The reader goes on when it is read again."""
    monkeypatch.setattr(castore_grpc.streamed, "_LONGEST_UNREAD", 0.1)
    with sending(sockets, stands_still) as (sender, blobs), blobs.open(BLOB) as reader:
        assert reader.read(10) == WHOLE[:10]
        until(lambda: sender.ended == 1)
        assert reader.read() == WHOLE[10:]


def test_few_streams_are_kept_at_once(sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are read by chunks, and who comes when one has ended has a stream again."""
    monkeypatch.setattr(castore_grpc.streamed, "_LONGEST_UNREAD", 1000.0)
    with sending(sockets, stands_still) as (sender, blobs), ExitStack() as stack:
        readers = [stack.enter_context(blobs.open(BLOB)) for _ in range(6)]
        until(lambda: sender.ended == 2)
        assert [reader.read(10) for reader in readers] == [WHOLE[:10]] * 6
        assert sender.single == [bytes(B3Digest.of(PARTS[0]))] * 2
        readers[0].close()
        with blobs.open(BLOB) as reader:
            assert reader.read(10) == WHOLE[:10]
        assert len(sender.single) == 2
