"""A stream into chunks: the same ones at any pool size, the index last, and never much of it in memory."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore.chunks import writer as chunked_writer
from castore.chunks.writer import ChunkedWriter
from castore.contract.blobs import ChunkMeta
from castore.contract.capabilities import ChunkStore
from castore.digest import B3Digest
from castore.errors import UnavailableError, WriterClosedError
from castore.format.chunking import MAX_AVG_SIZE, Chunker, FastCdc2016, FastCdc2020
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from typing_extensions import Buffer

MIB = 1 << 20
RANDOM = random.Random(7).randbytes(9 * MIB)


class Store(ChunkStore):
    """Keeps everything, and checks and records what it is asked to do."""

    def __init__(self) -> None:
        self.chunks: dict[B3Digest, bytes] = {}
        self.indexes: dict[B3Digest, tuple[ChunkMeta, ...]] = {}
        self.did: list[tuple[str, B3Digest]] = []

    def has_chunk(self, digest: B3Digest) -> bool:
        self.did.append(("has", digest))
        return digest in self.chunks

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        return self.chunks.get(digest)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        self.did.append(("put", digest))
        self._slowly()
        assert B3Digest.of(data) == digest
        self.chunks[digest] = bytes(data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        self.did.append(("index", digest))
        self.indexes.setdefault(digest, tuple(chunks))

    def _slowly(self) -> None:
        pass


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture(params=[0, 1, 2, 4], ids=lambda size: f"{size} threads")
def workers(request: pytest.FixtureRequest) -> Iterator[Pool]:
    workers = Pool(request.param)
    yield workers
    workers.close()


@pytest.fixture
def inline() -> Pool:
    return Pool(0)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four chunks to a segment: few bytes go through all the turns."""
    _make_segments_small(monkeypatch)


def _make_segments_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_writer, "_SEGMENT_SIZE", 1)
    monkeypatch.setattr(chunked_writer, "_FIRST_SIZE", 100)


def _metas(chunker: Chunker, data: bytes) -> tuple[ChunkMeta, ...]:
    """The chunks of *data* cut in one go."""
    metas = []
    start = 0
    for length in chunker.cut(memoryview(data)):
        metas.append(ChunkMeta(B3Digest.of(data[start : start + length]), length))
        start += length
    return tuple(metas)


def _check_stored(store: Store, data: bytes, chunker: Chunker, digest: B3Digest) -> None:
    metas = _metas(chunker, data)
    assert digest == B3Digest.of(data)
    assert store.indexes == {digest: metas if len(metas) > 1 else ()}
    assert store.chunks.keys() == {meta.digest for meta in metas}
    assert b"".join(store.chunks[meta.digest] for meta in metas) == data


def _write(writer: ChunkedWriter, data: bytes, step: int) -> None:
    for start in range(0, len(data), step):
        assert writer.write(data[start : start + step]) == len(data[start : start + step])


# -- the same chunks, always --


@pytest.mark.parametrize("step", [1000, 300_000, 9 * MIB])
@pytest.mark.parametrize("size", [0, 1, 131_072, 131_073, 520_000, 4 * MIB, 4 * MIB + 1, 9 * MIB - 5])
def test_a_stream_is_stored_as_its_chunks(store: Store, workers: Pool, size: int, step: int) -> None:
    with ChunkedWriter(store, FastCdc2020(), workers) as writer:
        _write(writer, RANDOM[:size], step)

    _check_stored(store, RANDOM[:size], FastCdc2020(), writer.close())
    assert writer.tell() == size


@pytest.mark.parametrize("avg_size", [512, 100_003, 1 << 20, MAX_AVG_SIZE])
def test_any_average_will_do(store: Store, workers: Pool, avg_size: int) -> None:
    data = RANDOM * 2 if avg_size > 512 else RANDOM[:MIB]

    with ChunkedWriter(store, FastCdc2020(avg_size), workers) as writer:
        _write(writer, data, 777_777)

    _check_stored(store, data, FastCdc2020(avg_size), writer.close())


class FarSighted(Chunker):
    """Cuts behind the largest byte as far as a chunk may go: more bytes may have a larger one."""

    def cut(self, data: memoryview) -> Iterator[int]:
        start = 0
        while start < len(data):
            seen = data[start : start + self.max_size]
            best = max(range(len(seen)), key=lambda at: (at >= self.min_size, seen[at], -at))
            length = best + 1 if len(seen) > self.min_size else len(seen)
            yield length
            start += length


@pytest.mark.parametrize("chunker", [FastCdc2020, FastCdc2016, FarSighted])
def test_small_segments_change_nothing(
    store: Store, workers: Pool, small_segments: None, chunker: Callable[[int], Chunker]
) -> None:
    """Hundreds of turns: what is not settled moves on each time."""
    data = RANDOM[:500_000] + bytes(50_000) + RANDOM[:3000]

    with ChunkedWriter(store, chunker(512), workers) as writer:
        _write(writer, data, 7001)

    _check_stored(store, data, chunker(512), writer.close())


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 20_000), max_size=12),
    start=st.integers(0, 1000),
    threads=st.sampled_from([0, 1, 3]),
    zeros=st.booleans(),
)
def test_pieces_of_any_size_make_the_same_chunks(
    pieces: list[int], start: int, threads: int, zeros: bool
) -> None:
    store = Store()
    workers = Pool(threads)
    data = bytes(sum(pieces)) if zeros else RANDOM[start : start + sum(pieces)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        _make_segments_small(monkeypatch)
        with ChunkedWriter(store, FastCdc2020(512), workers) as writer:
            at = 0
            for piece in pieces:
                writer.write(data[at : at + piece])
                at += piece
    workers.close()

    _check_stored(store, data, FastCdc2020(512), writer.close())


def test_a_chunk_is_whole_while_the_store_takes_its_time(small_segments: None) -> None:
    """No buffer is filled anew before its chunks are stored: `put_chunk` hashes after a while."""

    class Slow(Store):
        def _slowly(self) -> None:
            time.sleep(random.random() / 300)

    store, workers = Slow(), Pool(4)
    with ChunkedWriter(store, FastCdc2020(512), workers) as writer:
        _write(writer, RANDOM[:300_000], 5000)
    workers.close()

    _check_stored(store, RANDOM[:300_000], FastCdc2020(512), writer.close())


def test_the_buffer_of_a_write_may_be_used_again(store: Store, workers: Pool, small_segments: None) -> None:
    buffer = bytearray(5000)
    with ChunkedWriter(store, FastCdc2020(512), workers) as writer:
        for start in range(0, 200_000, 5000):
            buffer[:] = RANDOM[start : start + 5000]
            writer.write(buffer)
        buffer.extend(b"resized: nobody holds a view of it")

    _check_stored(store, RANDOM[:200_000], FastCdc2020(512), writer.close())


# -- what the store is asked, in which order --


def test_without_threads_the_order_is_that_of_the_reference(store: Store, inline: Pool) -> None:
    """Each chunk is asked for and put, one after another; the index is last."""
    with ChunkedWriter(store, FastCdc2020(), inline) as writer:
        _write(writer, RANDOM, 1_000_000)

    expected = [(step, meta.digest) for meta in _metas(FastCdc2020(), RANDOM) for step in ("has", "put")]
    assert store.did == [*expected, ("index", B3Digest.of(RANDOM))]


def test_a_small_blob_is_one_chunk_of_its_own_digest(store: Store, workers: Pool) -> None:
    with ChunkedWriter(store, FastCdc2020(), workers) as writer:
        writer.write(b"\x00\x01")

    digest = B3Digest.of(b"\x00\x01")
    assert store.did == [("has", digest), ("put", digest), ("index", digest)]
    assert store.indexes == {digest: ()}


def test_an_empty_blob_is_an_index_alone(store: Store, workers: Pool) -> None:
    digest = ChunkedWriter(store, FastCdc2020(), workers).close()

    assert digest == B3Digest.of(b"")
    assert store.did == [("index", digest)]
    assert store.indexes == {digest: ()}


def test_a_blob_that_could_be_cut_and_is_not_has_no_chunks(store: Store, workers: Pool) -> None:
    with ChunkedWriter(store, FastCdc2020(), workers) as writer:
        writer.write(bytes(500_000))

    digest = B3Digest.of(bytes(500_000))
    assert store.did == [("has", digest), ("put", digest), ("index", digest)]
    assert store.indexes == {digest: ()}


def test_the_index_comes_after_every_chunk(store: Store, workers: Pool) -> None:
    with ChunkedWriter(store, FastCdc2020(), workers) as writer:
        _write(writer, RANDOM, MIB)
        assert "index" not in [step for step, _ in store.did]

    metas = _metas(FastCdc2020(), RANDOM)
    assert [step for step, _ in store.did].index("index") == len(store.did) - 1 == 2 * len(metas)
    assert {digest for step, digest in store.did if step == "put"} == {meta.digest for meta in metas}


def test_a_chunk_that_is_there_is_not_sent_again(store: Store, workers: Pool) -> None:
    with ChunkedWriter(store, FastCdc2020(), workers) as writer:
        _write(writer, RANDOM, MIB)
    store.did.clear()

    with ChunkedWriter(store, FastCdc2020(), workers) as writer:
        _write(writer, RANDOM + b"a new end", MIB)

    old, new = _metas(FastCdc2020(), RANDOM), _metas(FastCdc2020(), RANDOM + b"a new end")
    sent = [digest for step, digest in store.did if step == "put"]
    assert sent == [meta.digest for meta in new if meta not in old]
    assert len(sent) == 1


def test_a_small_chunk_that_is_there_is_not_sent_again(store: Store, inline: Pool) -> None:
    digest = ChunkedWriter(store, FastCdc2020(), inline)
    digest.write(b"abc")
    digest.close()
    store.did.clear()

    with ChunkedWriter(store, FastCdc2020(), inline) as writer:
        writer.write(b"abc")

    assert [step for step, _ in store.did] == ["has", "index"]


def test_a_chunk_that_repeats_within_a_blob_is_sent_once_and_listed_each_time(
    store: Store, inline: Pool
) -> None:
    with ChunkedWriter(store, FastCdc2020(), inline) as writer:
        writer.write(bytes(MIB))

    assert [step for step, _ in store.did] == ["has", "put", "has", "index"]
    assert [meta.size for meta in store.indexes[writer.close()]] == [524_288] * 2


def test_closing_again_asks_nothing(store: Store, workers: Pool) -> None:
    writer = ChunkedWriter(store, FastCdc2020(), workers)
    _write(writer, RANDOM, MIB)
    digest = writer.close()
    did = list(store.did)

    assert writer.close() == digest
    writer.abort()
    assert store.did == did
    with pytest.raises(WriterClosedError):
        writer.write(b"more")


# -- holding what is put --


class HeldStore(Store):
    """Notes when it is held, and checks that what must be is."""

    holds = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self.did.append(("hold", B3Digest(bytes(32))))
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        assert self.holds == 1
        super().put_chunk(digest, data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        assert self.holds == 1
        super().put_index(digest, chunks)


def test_a_long_blob_is_held_from_its_first_chunk_until_its_index_is_there(
    pool: Pool, small_segments: None
) -> None:
    """Once, and before anything is asked or put; afterwards it is given back."""
    store = HeldStore()
    with ChunkedWriter(store, FastCdc2020(512), workers) as writer:
        writer.write(RANDOM[:1000])
        assert store.did == []
        _write(writer, RANDOM[1000:100_000], 5000)
        assert store.holds == 1

    assert [step for step, _ in store.did].count("hold") == 1
    assert store.did[0][0] == "hold"
    assert store.holds == 0
    _check_stored(store, RANDOM[:100_000], FastCdc2020(512), writer.close())


def test_a_blob_of_one_segment_needs_no_hold(store: Store, workers: Pool) -> None:
    """Nothing of it is in the store before `close`."""
    store.hold = None  # type: ignore[assignment, method-assign]
    with ChunkedWriter(store, FastCdc2020(), workers) as writer:
        _write(writer, RANDOM[: 3 * MIB], MIB)
        assert store.did == []
    assert store.indexes


@pytest.mark.parametrize("end", ["aborted", "a chunk fails", "the index fails", "the hold fails"])
def test_a_writer_that_ends_without_a_blob_gives_back_its_hold(
    pool: Pool, small_segments: None, end: str
) -> None:
    """Else no garbage could be collected any more."""
    store = HeldStore()

    def fail(*_: object) -> None:
        raise UnavailableError("far", "down")

    if end != "aborted":
        name = {"a chunk fails": "put_chunk", "the index fails": "put_index", "the hold fails": "hold"}[end]
        setattr(store, name, fail)
    writer = ChunkedWriter(store, FastCdc2020(512), workers)

    def use() -> None:
        _write(writer, RANDOM[:100_000], 5000)
        if end == "aborted":
            writer.abort()
            raise UnavailableError("this", "is the end")
        writer.close()

    with pytest.raises(UnavailableError):
        use()
    assert store.holds == 0
    assert store.indexes == {}


# -- ending without an index --


@pytest.mark.parametrize("size", [0, 1, 200_000, 9 * MIB])
def test_an_aborted_writer_leaves_no_index(store: Store, workers: Pool, size: int) -> None:
    writer = ChunkedWriter(store, FastCdc2020(), workers)
    _write(writer, RANDOM[:size], 300_000)

    writer.abort()

    assert store.indexes == {}
    with pytest.raises(WriterClosedError, match="was aborted"):
        writer.close()
    assert store.indexes == {}


class FailingStore(Store):
    """Fails once it has been asked *good* things, and from then on."""

    def __init__(self, good: int, error: BaseException) -> None:
        super().__init__()
        self._good = good
        self._error = error
        self._lock = threading.Lock()

    def _count(self) -> None:
        with self._lock:
            self._good -= 1
            if self._good < 0:
                raise self._error

    def has_chunk(self, digest: B3Digest) -> bool:
        self._count()
        return super().has_chunk(digest)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        self._count()
        super().put_chunk(digest, data)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        self._count()
        super().put_index(digest, chunks)


DATA = RANDOM[:40_000]
STEPS = 2 * len(_metas(FastCdc2020(2048), DATA)) + 1


@pytest.mark.parametrize("good", range(STEPS))
def test_a_store_that_fails_at_any_step_fails_the_writer(pool: Pool, small_segments: None, good: int) -> None:
    error = UnavailableError("far", "the network is down")
    store = FailingStore(good, error)
    writer = ChunkedWriter(store, FastCdc2020(2048), workers)

    def use() -> None:
        _write(writer, DATA, 3000)
        writer.close()

    with pytest.raises(UnavailableError) as caught:
        use()

    assert caught.value is error
    assert store.indexes == {}
    assert writer.closed
    for call in (writer.close, lambda: writer.write(b"more")):
        with pytest.raises(WriterClosedError, match="has failed"):
            call()
    writer.abort()
    assert store.indexes == {}


def test_a_store_that_fails_at_no_step_does_not(workers: Pool, small_segments: None) -> None:
    """So the steps above are all there are."""
    store = FailingStore(STEPS, UnavailableError("far", "down"))
    with ChunkedWriter(store, FastCdc2020(2048), workers) as writer:
        _write(writer, DATA, 3000)

    _check_stored(store, DATA, FastCdc2020(2048), writer.close())


@pytest.mark.parametrize("end", ["fails", "is aborted"])
@pytest.mark.parametrize("threads", [1, 2])
def test_after_a_writer_has_ended_no_chunk_is_sent(small_segments: None, threads: int, end: str) -> None:
    """Tasks that have not begun are taken back, those that run are waited for."""

    class SlowlyFailing(FailingStore):
        running = 0

        def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
            self.running += 1
            try:
                time.sleep(0.005)
                super().put_chunk(digest, data)
            finally:
                self.running -= 1

        def has_chunk(self, digest: B3Digest) -> bool:
            self.did.append(("has", digest))
            return False

    workers = Pool(threads)
    store = SlowlyFailing(1 if end == "fails" else 1000, UnavailableError("far", "down"))
    writer = ChunkedWriter(store, FastCdc2020(2048), workers)

    if end == "fails":
        with pytest.raises(UnavailableError):
            _write(writer, RANDOM[:400_000], 3000)
    else:
        _write(writer, RANDOM[:100_000], 3000)
        writer.abort()
    did = list(store.did)

    assert store.running == 0
    workers.close()
    assert store.did == did


# -- memory and speed --


class Discarding(Store):
    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        pass

    def has_chunk(self, digest: B3Digest) -> bool:
        return False


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("avg_size", [1 << 18, MAX_AVG_SIZE])
def test_memory_does_not_grow_with_the_blob(threads: int, avg_size: int) -> None:
    workers = Pool(threads)
    tracemalloc.start()
    try:
        with ChunkedWriter(Discarding(), FastCdc2020(avg_size), workers) as writer:
            for _ in range(12):
                writer.write(RANDOM)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        workers.close()

    assert writer.tell() >= 100 * MIB
    # Three segments, each of four chunks of the largest size or of 3 MiB, and with space for what the one
    # before could not settle, less than a chunk; such a rest on its way; and little else.
    assert peak < 3 * (max(3 * MIB, 8 * avg_size) + 2 * avg_size) + 2 * avg_size + MIB


def test_a_small_blob_takes_little_memory(inline: Pool) -> None:
    """Many small files are stored one after another, or at once."""
    chunker = FastCdc2020()
    gc.collect()
    tracemalloc.start()
    try:
        with ChunkedWriter(Discarding(), chunker, inline) as writer:
            writer.write(b"small")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 256 << 10


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_writer_that_has_ended_holds_no_buffers(inline: Pool, end: str) -> None:
    chunker = FastCdc2020()
    tracemalloc.start()
    try:
        writer = ChunkedWriter(Discarding(), chunker, inline)
        _write(writer, RANDOM * 2, MIB)
        getattr(writer, end)()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert held < MIB


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_store_that_is_slow_slows_the_producer(threads: int) -> None:
    """With the store at a standstill so is the producer, after three segments."""
    gate = threading.Event()

    class Waiting(Discarding):
        def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
            assert gate.wait(60)

    workers = Pool(threads)
    written = 0

    def produce() -> None:
        nonlocal written
        with ChunkedWriter(Waiting(), FastCdc2020(), workers) as writer:
            for _ in range(64):
                writer.write(RANDOM[:MIB])
                written += 1

    producer = threading.Thread(target=produce)
    producer.start()
    before = -1
    while before != written:
        before = written
        time.sleep(0.15)
    stopped_at = written
    gate.set()
    producer.join(60)
    workers.close()

    assert stopped_at <= 12
    assert written == 64


def test_while_segments_are_stored_the_next_ones_fill() -> None:
    """Two are on their way while the third takes bytes: the producer need not wait for the store at once."""
    gate = threading.Event()
    held: list[int] = []

    class Waiting(Discarding):
        def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
            assert gate.wait(60)

    workers = Pool(1)
    done = threading.Event()

    def produce() -> None:
        with ChunkedWriter(Waiting(), FastCdc2020(), workers) as writer:
            for _ in range(9):
                writer.write(RANDOM[:MIB])
                held.append(writer.tell())
            done.set()

    producer = threading.Thread(target=produce)
    producer.start()
    filled = done.wait(20)
    gate.set()
    producer.join(60)
    workers.close()

    assert filled
    assert held[-1] == 9 * MIB


def test_chunks_are_stored_in_parallel() -> None:
    """The first four wait for each other: with four threads they all get there."""
    barrier = threading.Barrier(4, timeout=30)
    numbers = itertools.count()

    class Meeting(Discarding):
        def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
            if next(numbers) < 4:
                barrier.wait()

    workers = Pool(4)
    with ChunkedWriter(Meeting(), FastCdc2020(), workers) as writer:
        writer.write(RANDOM)
    workers.close()


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_writers_inside_tasks_of_the_same_pool_do_not_deadlock(threads: int, small_segments: None) -> None:
    workers = Pool(threads)
    store = Store()

    def put(number: int) -> B3Digest:
        with ChunkedWriter(store, FastCdc2020(512), workers) as writer:
            _write(writer, RANDOM[number : number + 50_000], 9000)
        return writer.close()

    tasks = [workers.submit(lambda number=number: put(number)) for number in range(12)]  # type: ignore[misc]
    digests = [task.result() for task in tasks]
    workers.close()

    assert digests == [B3Digest.of(RANDOM[number : number + 50_000]) for number in range(12)]
    assert store.indexes.keys() == set(digests)
