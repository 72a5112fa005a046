"""A stream into chunks: the same ones at any pool size, the index last, and never much of it in memory."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore.chunks import pipeline
from castore.chunks import writer as chunked_writer
from castore.chunks.backend import ChunkBackend
from castore.chunks.writer import ChunkedWriter
from castore.contract.blobs import ChunkMeta
from castore.contract.capabilities import ChunkStore, FoundChunks
from castore.digest import B3Digest
from castore.errors import UnavailableError, WriterClosedError
from castore.format.chunking import MAX_AVG_SIZE, Chunker, FastCdc2016, FastCdc2020
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from typing_extensions import Buffer

MIB = 1 << 20
RANDOM = random.Random(7).randbytes(9 * MIB)


class Store(ChunkBackend):
    """Keeps everything, and checks and records what it is asked to do."""

    def __init__(self, pool: Pool | None = None, *, high_latency: bool = False) -> None:
        self._pool = pool or Pool(0)
        self.high_latency = high_latency
        self.kept: dict[B3Digest, bytes] = {}
        self.indexes: dict[B3Digest, tuple[ChunkMeta, ...]] = {}
        self.calls: list[tuple[str, list[B3Digest]]] = []

    @property
    def pool(self) -> Pool:
        return self._pool

    @property
    def did(self) -> list[tuple[str, B3Digest]]:
        """What was claimed, put, or made visible, one by one."""
        return [(step, digest) for step, digests in self.calls for digest in digests]

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        wanted = list(digests)
        self.calls.append(("claim", wanted))
        return {digest for digest in wanted if digest in self.kept}

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        self.calls.append(("put", list(chunks)))
        self._slowly()
        for digest, data in chunks.items():
            assert B3Digest.of(data) == digest
            self.kept[digest] = bytes(data)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self.calls.append(("index", list(blobs)))
        for digest, chunks in blobs.items():
            self.indexes.setdefault(digest, tuple(chunks))

    def _slowly(self) -> None:
        pass

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        raise NotImplementedError

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        raise NotImplementedError


@pytest.fixture(params=[0, 1, 2, 4], ids=lambda size: f"{size} threads")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    pool = Pool(request.param)
    yield pool
    pool.close()


@pytest.fixture
def store(pool: Pool) -> Store:
    """A store with a pool of each of some sizes."""
    return Store(pool)


@pytest.fixture
def alone() -> Store:
    """A store without threads."""
    return Store()


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four chunks to a segment, one to a job: few bytes go through all the turns."""
    _make_segments_small(monkeypatch)


def _make_segments_small(monkeypatch: pytest.MonkeyPatch, job_size: int = 1) -> None:
    monkeypatch.setattr(pipeline, "_SEGMENT_SIZE", 1)
    monkeypatch.setattr(pipeline, "_JOB_SIZE", job_size)
    monkeypatch.setattr(pipeline, "MOST_BYTES", 3000)
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
    assert store.kept.keys() == {meta.digest for meta in metas}
    assert b"".join(store.kept[meta.digest] for meta in metas) == data


def _write(writer: ChunkedWriter, data: bytes, step: int) -> None:
    for start in range(0, len(data), step):
        assert writer.write(data[start : start + step]) == len(data[start : start + step])


# -- the same chunks, always --


@pytest.mark.parametrize("step", [1000, 300_000, 9 * MIB])
@pytest.mark.parametrize("size", [0, 1, 131_072, 131_073, 520_000, 4 * MIB, 4 * MIB + 1, 9 * MIB - 5])
def test_a_stream_is_stored_as_its_chunks(store: Store, size: int, step: int) -> None:
    with ChunkedWriter(store, FastCdc2020()) as writer:
        _write(writer, RANDOM[:size], step)

    _check_stored(store, RANDOM[:size], FastCdc2020(), writer.close())
    assert writer.tell() == size


@pytest.mark.parametrize("avg_size", [512, 100_003, 1 << 20, MAX_AVG_SIZE])
def test_any_average_will_do(store: Store, avg_size: int) -> None:
    data = RANDOM * 2 if avg_size > 512 else RANDOM[:MIB]

    with ChunkedWriter(store, FastCdc2020(avg_size)) as writer:
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
    store: Store, small_segments: None, chunker: Callable[[int], Chunker]
) -> None:
    """Hundreds of turns: what is not settled moves on each time."""
    data = RANDOM[:500_000] + bytes(50_000) + RANDOM[:3000]

    with ChunkedWriter(store, chunker(512)) as writer:
        _write(writer, data, 7001)

    _check_stored(store, data, chunker(512), writer.close())


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 20_000), max_size=12),
    start=st.integers(0, 1000),
    threads=st.sampled_from([0, 1, 3]),
    high_latency=st.booleans(),
    job_size=st.sampled_from([1, 1500, 1 << 20]),
    zeros=st.booleans(),
)
def test_pieces_of_any_size_make_the_same_chunks(
    pieces: list[int], start: int, threads: int, high_latency: bool, job_size: int, zeros: bool
) -> None:
    """Those of one write, whatever store they go to, and by however many threads."""
    pool = Pool(threads)
    store = Store(pool, high_latency=high_latency)
    data = bytes(sum(pieces)) if zeros else RANDOM[start : start + sum(pieces)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        _make_segments_small(monkeypatch, job_size)
        with ChunkedWriter(store, FastCdc2020(512)) as writer:
            at = 0
            for piece in pieces:
                writer.write(data[at : at + piece])
                at += piece
    pool.close()

    _check_stored(store, data, FastCdc2020(512), writer.close())
    at_once = Store()
    with ChunkedWriter(at_once, FastCdc2020(512)) as writer:
        writer.write(data)
    assert (store.kept, store.indexes) == (at_once.kept, at_once.indexes)


def test_it_is_cut_as_the_store_cuts_unless_something_else_is_given() -> None:
    class Sixteenth(Store):
        def new_chunker(self) -> Chunker:
            return FastCdc2016(1024)

    for given_chunker, expected in ((None, FastCdc2016(1024)), (FastCdc2020(512), FastCdc2020(512))):
        store = Sixteenth()
        with ChunkedWriter(store, given_chunker) as writer:
            writer.write(RANDOM[:50_000])
        _check_stored(store, RANDOM[:50_000], expected, writer.close())


def test_a_chunk_is_whole_while_the_store_takes_its_time(small_segments: None) -> None:
    """No buffer is filled anew before its chunks are stored: `put_chunks` hashes after a while."""

    class Slow(Store):
        def _slowly(self) -> None:
            time.sleep(random.random() / 300)

    pool = Pool(4)
    store = Slow(pool)
    with ChunkedWriter(store, FastCdc2020(512)) as writer:
        _write(writer, RANDOM[:300_000], 5000)
    pool.close()

    _check_stored(store, RANDOM[:300_000], FastCdc2020(512), writer.close())


def test_the_buffer_of_a_write_may_be_used_again(store: Store, small_segments: None) -> None:
    buffer = bytearray(5000)
    with ChunkedWriter(store, FastCdc2020(512)) as writer:
        for start in range(0, 200_000, 5000):
            buffer[:] = RANDOM[start : start + 5000]
            writer.write(buffer)
        buffer.extend(b"resized: nobody holds a view of it")

    _check_stored(store, RANDOM[:200_000], FastCdc2020(512), writer.close())


# -- what the store is asked, in which order --


def test_without_threads_chunks_are_claimed_and_put_in_order(alone: Store) -> None:
    """Some together, before the next ones; the index is last."""
    with ChunkedWriter(alone, FastCdc2020()) as writer:
        _write(writer, RANDOM, 1_000_000)

    metas = _metas(FastCdc2020(), RANDOM)
    steps = [step for step, _ in alone.calls]
    assert steps == ["claim", "put"] * (len(steps) // 2) + ["index"]
    assert len(steps) // 2 == 7
    for (_, claimed), (_, put) in zip(alone.calls[::2], alone.calls[1::2], strict=False):
        assert set(claimed) == set(put)
    assert [digest for step, digest in alone.did if step == "put"] == [meta.digest for meta in metas]
    assert alone.calls[-1] == ("index", [B3Digest.of(RANDOM)])


def test_a_small_blob_is_one_chunk_of_its_own_digest(store: Store) -> None:
    with ChunkedWriter(store, FastCdc2020()) as writer:
        writer.write(b"\x00\x01")

    digest = B3Digest.of(b"\x00\x01")
    assert store.did == [("claim", digest), ("put", digest), ("index", digest)]
    assert store.indexes == {digest: ()}


def test_an_empty_blob_is_an_index_alone(store: Store) -> None:
    digest = ChunkedWriter(store, FastCdc2020()).close()

    assert digest == B3Digest.of(b"")
    assert store.did == [("index", digest)]
    assert store.indexes == {digest: ()}


def test_a_blob_that_could_be_cut_and_is_not_has_no_chunks(store: Store) -> None:
    with ChunkedWriter(store, FastCdc2020()) as writer:
        writer.write(bytes(500_000))

    digest = B3Digest.of(bytes(500_000))
    assert store.did == [("claim", digest), ("put", digest), ("index", digest)]
    assert store.indexes == {digest: ()}


def test_the_index_comes_after_every_chunk(store: Store) -> None:
    with ChunkedWriter(store, FastCdc2020()) as writer:
        _write(writer, RANDOM, MIB)
        assert "index" not in [step for step, _ in store.did]

    metas = _metas(FastCdc2020(), RANDOM)
    assert [step for step, _ in store.did].index("index") == len(store.did) - 1 == 2 * len(metas)
    assert {digest for step, digest in store.did if step == "put"} == {meta.digest for meta in metas}


def test_a_chunk_that_is_there_is_not_sent_again(store: Store) -> None:
    with ChunkedWriter(store, FastCdc2020()) as writer:
        _write(writer, RANDOM, MIB)
    store.calls.clear()

    with ChunkedWriter(store, FastCdc2020()) as writer:
        _write(writer, RANDOM + b"a new end", MIB)

    old, new = _metas(FastCdc2020(), RANDOM), _metas(FastCdc2020(), RANDOM + b"a new end")
    sent = [digest for step, digest in store.did if step == "put"]
    assert sent == [meta.digest for meta in new if meta not in old]
    assert len(sent) == 1


def test_a_small_chunk_that_is_there_is_not_sent_again(alone: Store) -> None:
    for _ in range(2):
        alone.calls.clear()
        with ChunkedWriter(alone, FastCdc2020()) as writer:
            writer.write(b"abc")

    assert [step for step, _ in alone.calls] == ["claim", "index"]


def test_a_chunk_that_repeats_within_a_blob_is_sent_once_and_listed_each_time(alone: Store) -> None:
    with ChunkedWriter(alone, FastCdc2020()) as writer:
        writer.write(bytes(MIB))

    assert [step for step, _ in alone.did] == ["claim", "put", "index"]
    assert [meta.size for meta in alone.indexes[writer.close()]] == [524_288] * 2


def test_closing_again_asks_nothing(store: Store) -> None:
    writer = ChunkedWriter(store, FastCdc2020())
    _write(writer, RANDOM, MIB)
    digest = writer.close()
    calls = list(store.calls)

    assert writer.close() == digest
    writer.abort()
    assert store.calls == calls
    with pytest.raises(WriterClosedError):
        writer.write(b"more")


# -- what is put is leased --


class LeasingStore(Store):
    """Gives leases, and checks that all goes through the store that it gives with one."""

    def __init__(self, pool: Pool | None = None) -> None:
        super().__init__(pool)
        self.brief: list[bool] = []
        """For each lease, whether it was to be a brief one."""
        self.leases = self.at_work = 0
        self.through: Store | None = None

    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        assert self.through is None
        self.brief.append(brief)
        self.leases += 1
        self.through = _Through(self)
        try:
            yield self.through
        finally:
            # Not under somebody who is still at it.
            assert self.at_work == 0
            self.leases -= 1
            self.through = None

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        raise AssertionError("this goes past the lease")

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        raise AssertionError("this goes past the lease")

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        raise AssertionError("this goes past the lease")


class _Through(Store):
    """Does what `Store` does, with all that is kept in the store that it was leased from."""

    def __init__(self, behind: LeasingStore) -> None:
        super().__init__(behind.pool)
        self._behind = behind
        self.kept, self.indexes, self.calls = behind.kept, behind.indexes, behind.calls

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        assert self._behind.through is self
        self._behind.at_work += 1
        try:
            super().put_chunks(chunks)
        finally:
            self._behind.at_work -= 1

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        assert self._behind.through is self
        super().put_indexes(blobs)

    def _slowly(self) -> None:
        self._behind._slowly()


@pytest.mark.parametrize("threads", [0, 1])
def test_a_long_blob_is_leased_from_its_first_chunk_until_its_index_is_there(
    small_segments: None, threads: int
) -> None:
    """Once, and before anything is asked or put; afterwards it is given back."""
    pool = Pool(threads)
    store = LeasingStore(pool)
    with ChunkedWriter(store, FastCdc2020(512)) as writer:
        writer.write(RANDOM[:1000])
        assert store.brief == []
        _write(writer, RANDOM[1000:100_000], 5000)
        assert store.leases == 1

    assert store.brief == [False]
    assert store.leases == 0
    _check_stored(store, RANDOM[:100_000], FastCdc2020(512), writer.close())
    pool.close()


@pytest.mark.parametrize("size", [0, 1, 131_072, 3 * MIB])
def test_for_a_blob_of_one_segment_a_brief_lease_will_do(size: int) -> None:
    """Nothing of it is in the store before `close`."""
    store = LeasingStore()
    with ChunkedWriter(store, FastCdc2020()) as writer:
        _write(writer, RANDOM[:size], MIB)
        assert store.brief == store.calls == []
    assert store.brief == [True]
    assert store.leases == 0
    _check_stored(store, RANDOM[:size], FastCdc2020(), writer.close())


@pytest.mark.parametrize("end", ["aborted", "a chunk fails", "the index fails", "the lease fails"])
@pytest.mark.parametrize("size", [100, 100_000])
def test_a_writer_that_ends_without_a_blob_gives_back_its_lease(
    pool: Pool, small_segments: None, end: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no garbage could be collected any more."""
    store = LeasingStore(pool)

    def fail(*_: object, **__: object) -> None:
        raise UnavailableError("far", "down")

    failing = {"a chunk fails": "put_chunks", "the index fails": "put_indexes"}.get(end)
    if failing:
        monkeypatch.setattr(_Through, failing, fail)
    elif end == "the lease fails":
        monkeypatch.setattr(store, "lease", fail)
    writer = ChunkedWriter(store, FastCdc2020(512))

    def use() -> None:
        _write(writer, RANDOM[:size], 5000)
        if end == "aborted":
            writer.abort()
            raise UnavailableError("this", "is the end")
        writer.close()

    with pytest.raises(UnavailableError):
        use()
    assert store.leases == 0
    assert store.indexes == {}


def test_an_interrupted_writer_leaves_no_lease_and_nothing_running(small_segments: None) -> None:
    """It waits for what the pool does at that moment, and begins with nothing more."""
    pool = Pool(2)
    store = LeasingStore(pool)
    main = threading.main_thread()

    def interrupt() -> None:
        if threading.current_thread() is not main and len(store.kept) > 3 and not interrupted:
            interrupted.append(1)
            signal.pthread_kill(main.ident or 0, signal.SIGINT)
            time.sleep(0.1)

    interrupted: list[int] = []
    store._slowly = interrupt  # type: ignore[method-assign]

    def write() -> None:
        with ChunkedWriter(store, FastCdc2020(512)) as writer:
            for start in itertools.count(step=5000):
                writer.write(RANDOM[start % MIB :][:5000])

    with pytest.raises(KeyboardInterrupt):
        write()
    calls = list(store.calls)
    assert store.leases == store.at_work == 0
    assert store.indexes == {}
    pool.close()
    assert store.calls == calls


# -- ending without an index --


@pytest.mark.parametrize("size", [0, 1, 200_000, 9 * MIB])
def test_an_aborted_writer_leaves_no_index(store: Store, size: int) -> None:
    writer = ChunkedWriter(store, FastCdc2020())
    _write(writer, RANDOM[:size], 300_000)

    writer.abort()

    assert store.indexes == {}
    with pytest.raises(WriterClosedError, match="was aborted"):
        writer.close()
    assert store.indexes == {}


class FailingStore(Store):
    """Fails once it has been asked *good* things, and from then on."""

    def __init__(self, pool: Pool, good: int, error: BaseException) -> None:
        super().__init__(pool)
        self._good = good
        self._error = error
        self._lock = threading.Lock()

    def _count(self) -> None:
        with self._lock:
            self._good -= 1
            if self._good < 0:
                raise self._error

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        self._count()
        return super().find_chunks(digests)

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        self._count()
        super().put_chunks(chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self._count()
        super().put_indexes(blobs)


DATA = RANDOM[:40_000]
STEPS = 2 * len(_metas(FastCdc2020(2048), DATA)) + 1


@pytest.mark.parametrize("good", range(STEPS))
def test_a_store_that_fails_at_any_step_fails_the_writer(pool: Pool, small_segments: None, good: int) -> None:
    error = UnavailableError("far", "the network is down")
    store = FailingStore(pool, good, error)
    writer = ChunkedWriter(store, FastCdc2020(2048))

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


def test_a_store_that_fails_at_no_step_does_not(pool: Pool, small_segments: None) -> None:
    """So the steps above are all there are."""
    store = FailingStore(pool, STEPS, UnavailableError("far", "down"))
    with ChunkedWriter(store, FastCdc2020(2048)) as writer:
        _write(writer, DATA, 3000)

    _check_stored(store, DATA, FastCdc2020(2048), writer.close())


@pytest.mark.parametrize("end", ["fails", "is aborted"])
@pytest.mark.parametrize("threads", [1, 2])
def test_after_a_writer_has_ended_no_chunk_is_sent(small_segments: None, threads: int, end: str) -> None:
    """Tasks that have not begun are taken back, those that run are waited for."""

    class SlowlyFailing(FailingStore):
        running = 0

        def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
            self.running += 1
            try:
                time.sleep(0.005)
                super().put_chunks(chunks)
            finally:
                self.running -= 1

        def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
            self.calls.append(("claim", list(digests)))
            return set()

    pool = Pool(threads)
    store = SlowlyFailing(pool, 1 if end == "fails" else 1000, UnavailableError("far", "down"))
    writer = ChunkedWriter(store, FastCdc2020(2048))

    if end == "fails":
        with pytest.raises(UnavailableError):
            _write(writer, RANDOM[:400_000], 3000)
    else:
        _write(writer, RANDOM[:100_000], 3000)
        writer.abort()
    calls = list(store.calls)

    assert store.running == 0
    pool.close()
    assert store.calls == calls


# -- memory and speed --


class Discarding(Store):
    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        pass

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set()


@pytest.mark.parametrize(
    ("threads", "high_latency", "avg_size"),
    [(0, False, 1 << 18), (2, False, 1 << 18), (2, False, MAX_AVG_SIZE), (2, True, 1 << 18)],
)
def test_memory_does_not_grow_with_the_blob(threads: int, high_latency: bool, avg_size: int) -> None:
    pool = Pool(threads)
    tracemalloc.start()
    try:
        with ChunkedWriter(Discarding(pool, high_latency=high_latency), FastCdc2020(avg_size)) as writer:
            for _ in range(12):
                writer.write(RANDOM)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pool.close()

    assert writer.tell() >= 100 * MIB
    # Three segments, each of four chunks of the largest size or of 3 MiB, or of a batch, and with space for
    # what the one before could not settle, less than a chunk; such a rest on its way; and little else.
    least = 16 * MIB if high_latency else 3 * MIB
    assert peak < 3 * (max(least, 8 * avg_size) + 2 * avg_size) + 2 * avg_size + MIB


def test_a_small_blob_takes_little_memory() -> None:
    """Many small files are stored one after another, or at once."""
    chunker = FastCdc2020()
    gc.collect()
    tracemalloc.start()
    try:
        with ChunkedWriter(Discarding(), chunker) as writer:
            writer.write(b"small")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 256 << 10


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_writer_that_has_ended_holds_no_buffers(end: str) -> None:
    chunker = FastCdc2020()
    tracemalloc.start()
    try:
        writer = ChunkedWriter(Discarding(), chunker)
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
        def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
            assert gate.wait(60)

    pool = Pool(threads)
    written = 0

    def produce() -> None:
        nonlocal written
        with ChunkedWriter(Waiting(pool), FastCdc2020()) as writer:
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
    pool.close()

    assert stopped_at <= 12
    assert written == 64


def test_while_segments_are_stored_the_next_ones_fill() -> None:
    """Two are on their way while the third takes bytes: the producer need not wait for the store at once."""
    gate = threading.Event()
    held: list[int] = []

    class Waiting(Discarding):
        def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
            assert gate.wait(60)

    pool = Pool(1)
    done = threading.Event()

    def produce() -> None:
        with ChunkedWriter(Waiting(pool), FastCdc2020()) as writer:
            for _ in range(9):
                writer.write(RANDOM[:MIB])
                held.append(writer.tell())
            done.set()

    producer = threading.Thread(target=produce)
    producer.start()
    filled = done.wait(20)
    gate.set()
    producer.join(60)
    pool.close()

    assert filled
    assert held[-1] == 9 * MIB


def test_chunks_are_stored_in_parallel() -> None:
    """The first four wait for each other: with four threads they all get there."""
    barrier = threading.Barrier(4, timeout=30)
    numbers = itertools.count()

    class Meeting(Discarding):
        def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
            if next(numbers) < 4:
                barrier.wait()

    pool = Pool(4)
    with ChunkedWriter(Meeting(pool), FastCdc2020()) as writer:
        writer.write(RANDOM)
    pool.close()


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_writers_inside_tasks_of_the_same_pool_do_not_deadlock(threads: int, small_segments: None) -> None:
    pool = Pool(threads)
    store = Store(pool)

    def put(number: int) -> B3Digest:
        with ChunkedWriter(store, FastCdc2020(512)) as writer:
            _write(writer, RANDOM[number : number + 50_000], 9000)
        return writer.close()

    tasks = [pool.submit(lambda number=number: put(number)) for number in range(12)]  # type: ignore[misc]
    digests = [task.result() for task in tasks]
    pool.close()

    assert digests == [B3Digest.of(RANDOM[number : number + 50_000]) for number in range(12)]
    assert store.indexes.keys() == set(digests)
