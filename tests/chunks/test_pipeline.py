"""Segments on their way into a store: what is shared among threads, and what comes of it when one fails."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from castore import B3Digest, ChunkMeta
from castore.chunks import pipeline as module
from castore.chunks.backend import ChunkBackend
from castore.chunks.pipeline import Pipeline, Segment, segments_for, store_new
from castore.contract.batches import MOST_BYTES
from castore.contract.capabilities import FoundChunks
from castore.contract.inputs import InputFile
from castore.format.chunking import MAX_AVG_SIZE, Chunker, FastCdc2020
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from typing_extensions import Buffer

DATA = random.Random(5).randbytes(4000)
CHUNK = 10


class Tens(Chunker):
    """Cuts after each ten bytes; fails where there is an X."""

    looks_ahead = False

    def __init__(self) -> None:
        self.avg_size = self.min_size = self.max_size = CHUNK

    def cut(self, data: memoryview) -> Iterator[int]:
        for start in range(0, len(data), CHUNK):
            part = bytes(data[start : start + CHUNK])
            if b"X" * CHUNK in part:
                time.sleep(0.01)  # Others wait for their turn meanwhile.
                raise ValueError("an X cannot be cut")
            yield len(part)


class Store(ChunkBackend):
    """Keeps chunks, and what it was asked."""

    def __init__(self, pool: Pool, *, high_latency: bool = False) -> None:
        self._pool = pool
        self.high_latency = high_latency
        self.kept: dict[B3Digest, bytes] = {}
        self.put: list[B3Digest] = []
        self.calls: list[int] = []
        self.claims: list[set[B3Digest]] = []
        self.at_work = self.most_at_work = 0
        self._lock = threading.Lock()

    @property
    def pool(self) -> Pool:
        return self._pool

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        self.claims.append(set(digests))
        return {digest for digest in self.claims[-1] if digest in self.kept}

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        with self._lock:
            self.at_work += 1
            self.most_at_work = max(self.at_work, self.most_at_work)
            self.calls.append(len(chunks))
        try:
            self.slowly()
            for digest, data in chunks.items():
                assert B3Digest.of(data) == digest
                self.kept[digest] = bytes(data)
                self.put.append(digest)
        finally:
            with self._lock:
                self.at_work -= 1

    def slowly(self) -> None:
        pass

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        raise NotImplementedError

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        raise NotImplementedError

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        raise NotImplementedError


def segments(data: bytes, size: int) -> Iterator[tuple[Segment, bool]]:
    """Return *data* in segments, and whether each is the last."""
    for start in range(0, len(data), size):
        segment = Segment(size, CHUNK)
        segment.take(memoryview(data)[start : start + size])
        yield segment, start + size >= len(data)


def send(pipeline: Pipeline, data: bytes, size: int) -> None:
    for segment, final in segments(data, size):
        pipeline.add(segment, final=final)
    while pipeline:
        assert pipeline.get_back().content == b""


def metas(data: bytes) -> list[ChunkMeta]:
    parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    return [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]


@pytest.fixture(params=[0, 1, 2, 5], ids=lambda size: f"{size} threads")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    pool = Pool(request.param)
    yield pool
    pool.close()


@pytest.fixture
def each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk is a job, where requests do not mostly wait."""
    monkeypatch.setattr(module, "_JOB_SIZE", 1)


# -- the whole way --


@pytest.mark.parametrize("size", [7, 10, 33, 4000])
@pytest.mark.parametrize("job_size", [1, 25, 100_000, None], ids=lambda size: f"jobs of {size}")
def test_segments_become_chunks_in_order_and_a_digest(
    pool: Pool, size: int, job_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No size of a job: the store is one of high latency."""
    store = Store(pool, high_latency=job_size is None)
    monkeypatch.setattr(module, "_JOB_SIZE", job_size)
    pipeline = Pipeline(store, Tens())

    send(pipeline, DATA, size)

    assert pipeline.chunks == metas(DATA)
    assert pipeline.digest() == B3Digest.of(DATA)
    assert store.kept.keys() == {meta.digest for meta in metas(DATA)}
    pipeline.close()


def test_a_segment_comes_back_when_its_chunks_are_stored(pool: Pool, each_alone: None) -> None:
    """So it may be filled anew."""
    store = Store(pool)
    store.slowly = lambda: time.sleep(0.002)  # type: ignore[method-assign]
    pipeline = Pipeline(store, Tens())
    for segment, final in segments(DATA[:1000], 100):
        pipeline.add(segment, final=final)

    for count in range(1, 11):
        pipeline.get_back()
        assert all(meta.digest in store.kept for meta in metas(DATA[: 100 * count]))
        assert len(pipeline) == 10 - count
    pipeline.close()


# -- who does what --


def test_the_jobs_of_one_segment_are_shared(each_alone: None) -> None:
    """Four threads meet: the one that waits for the segment, and three that help."""
    meeting = threading.Barrier(4, timeout=30)
    pool = Pool(4)
    store = Store(pool)
    store.slowly = meeting.wait  # type: ignore[assignment]
    pipeline = Pipeline(store, Tens())

    send(pipeline, DATA[:40], 100)

    assert pipeline.chunks == metas(DATA[:40])
    pipeline.close()
    pool.close()


def test_two_calls_are_under_way_where_requests_mostly_wait() -> None:
    """One is made by the pool, however small that is, and one by the thread that waits."""
    meeting = threading.Barrier(2, timeout=30)
    pool = Pool(1)
    store = Store(pool, high_latency=True)
    store.slowly = meeting.wait  # type: ignore[assignment]
    pipeline = Pipeline(store, Tens())

    send(pipeline, DATA[:200], 100)

    assert pipeline.chunks == metas(DATA[:200])
    pipeline.close()
    pool.close()


@pytest.mark.parametrize(
    ("size", "high_latency", "most"),
    [(0, False, 1), (1, False, 2), (3, False, 3), (0, True, 1), (8, True, 2)],
)
def test_no_more_calls_are_under_way_than_may_be(
    each_alone: None, size: int, high_latency: bool, most: int
) -> None:
    """As many as there are cores; two where the store does many things at once in each."""
    pool = Pool(size)
    store = Store(pool, high_latency=high_latency)
    store.slowly = lambda: time.sleep(0.001)  # type: ignore[method-assign]
    pipeline = Pipeline(store, Tens())

    send(pipeline, DATA[:1500], 50)

    assert 1 <= store.most_at_work <= most
    pipeline.close()
    pool.close()


@pytest.mark.parametrize("high_latency", [False, True])
def test_a_call_has_no_more_than_a_batch(
    pool: Pool, high_latency: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither items nor bytes, however large the segments are."""
    monkeypatch.setattr(module, "MOST_ITEMS", 7)
    store = Store(pool, high_latency=high_latency)
    pipeline = Pipeline(store, Tens())
    send(pipeline, DATA, 1000)
    assert max(store.calls) == max(map(len, store.claims)) == 7
    pipeline.close()

    monkeypatch.setattr(module, "_JOB_SIZE", 30)
    monkeypatch.setattr(module, "MOST_BYTES", 49)
    store = Store(pool, high_latency=high_latency)
    pipeline = Pipeline(store, Tens())
    send(pipeline, DATA[:900], 450)
    assert max(store.calls) == max(map(len, store.claims)) == (4 if high_latency else 3)
    pipeline.close()


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_in_the_middle_of_a_blob_a_segment_is_one_job(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first segments, of which each thread has one, and its last are shared: other calls are few."""
    monkeypatch.setattr(module, "_JOB_SIZE", 30)
    pool = Pool(size)
    store = Store(pool)
    pipeline = Pipeline(store, Tens())
    send(pipeline, DATA[:1200], 120)
    shared = max(size, 1) + 1
    assert sorted(store.calls) == [3] * (4 * shared) + [12] * (10 - shared)
    assert pipeline.chunks == metas(DATA[:1200])
    pipeline.close()
    pool.close()


def test_a_job_is_looked_up_at_once_and_what_repeats_in_it_is_put_once() -> None:
    store = Store(Pool(0))
    first, second = DATA[:10], DATA[10:20]
    store.kept[B3Digest.of(second)] = second

    found = store_new(store, [memoryview(part) for part in (first, second, first)])

    one, two = ChunkMeta(B3Digest.of(first), 10), ChunkMeta(B3Digest.of(second), 10)
    assert found == [one, two, one]
    assert store.claims == [{one.digest, two.digest}]
    assert store.put == [one.digest]
    # And nothing is put if nothing is new.
    assert store_new(store, [memoryview(second)]) == [two]
    assert store.calls == [1]


@pytest.mark.parametrize("high_latency", [False, True])
def test_a_single_job_is_begun_at_once(high_latency: bool) -> None:
    """Nobody need get the segment back for that."""
    pool = Pool(1)
    store = Store(pool, high_latency=high_latency)
    pipeline = Pipeline(store, Tens())
    ((segment, final),) = segments(DATA[:10], 10)

    pipeline.add(segment, final=final)

    for _ in range(10_000):
        if store.put:
            break
        time.sleep(0.001)
    assert store.put == [B3Digest.of(DATA[:10])]
    pipeline.close()
    pool.close()


@pytest.mark.parametrize(("high_latency", "most"), [(True, 2), (False, 8)])
def test_others_have_the_pool_before_all_is_done(
    high_latency: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a call if requests mostly wait, else after some segments, here of two chunks."""
    monkeypatch.setattr(module, "_JOB_SIZE", 20)
    pool = Pool(1)
    store = Store(pool, high_latency=high_latency)
    gate = threading.Event()
    store.slowly = lambda: gate.wait(30)  # type: ignore[assignment]
    pipeline = Pipeline(store, Tens())
    for segment, final in segments(DATA[:400], 20):
        pipeline.add(segment, final=final)

    while not store.at_work:
        time.sleep(0.001)
    seen: list[int] = []
    # Not by the result of the task, as who waits for that runs it.
    pool.submit(lambda: seen.append(len(store.put)))
    gate.set()
    while not seen:
        time.sleep(0.001)
    assert seen[0] <= most
    while pipeline:
        pipeline.get_back()
    assert pipeline.chunks == metas(DATA[:400])
    pipeline.close()
    pool.close()


# -- what goes wrong --


@pytest.mark.parametrize("size", [5, 30, 200])
def test_what_cannot_be_cut_is_an_error_and_nothing_more_is_done(
    pool: Pool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a turn that does not come."""
    monkeypatch.setattr(module, "_JOB_SIZE", 20)
    store = Store(pool)
    pipeline = Pipeline(store, Tens())

    with pytest.raises(ValueError, match="an X cannot be cut"):
        send(pipeline, DATA[:100] + b"X" * 10 + DATA[100:600], size)

    pipeline.close()
    put = list(store.put)
    time.sleep(0.01)
    assert store.put == put
    assert set(put) <= {meta.digest for meta in metas(DATA[:100])}


@pytest.mark.parametrize("high_latency", [False, True])
def test_the_first_error_is_told_and_the_others_are_not_waited_for(
    pool: Pool, each_alone: None, high_latency: bool
) -> None:
    errors = []

    def fail() -> None:
        errors.append(OSError(len(errors)))
        raise errors[-1]

    store = Store(pool, high_latency=high_latency)
    store.slowly = fail  # type: ignore[method-assign]
    pipeline = Pipeline(store, Tens())

    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is what is asked
        send(pipeline, DATA, 100)

    pipeline.close()
    assert caught.value in errors
    assert len(errors) <= pool.size + 1


def test_one_that_is_closed_does_nothing_more(each_alone: None) -> None:
    """It waits for what is being done."""
    pool = Pool(2)
    store = Store(pool)
    started = threading.Event()

    def slowly() -> None:
        started.set()
        time.sleep(0.02)

    store.slowly = slowly  # type: ignore[method-assign]
    pipeline = Pipeline(store, Tens())
    for segment, final in segments(DATA, 100):
        pipeline.add(segment, final=final)
    assert started.wait(30)

    pipeline.close()

    assert store.at_work == 0
    put = len(store.put)
    pool.close()
    assert len(store.put) == put < 100
    assert not pipeline


# -- how large segments are, and how many --


@pytest.mark.parametrize("high_latency", [False, True])
@pytest.mark.parametrize("avg_size", [512, 256 << 10, MAX_AVG_SIZE])
@pytest.mark.parametrize("threads", [0, 1, 2, 64])
def test_segments_are_few_and_have_space_for_some_chunks(
    high_latency: bool, avg_size: int, threads: int
) -> None:
    """A batch fits into one where requests mostly wait; all together have their bounds."""
    store, chunker = Store(Pool(threads), high_latency=high_latency), FastCdc2020(avg_size)
    size, most = segments_for(store, chunker)
    assert size >= 4 * chunker.max_size
    assert size >= (MOST_BYTES - chunker.max_size if high_latency else 3 << 20)
    if not threads:
        assert most == 1
    else:
        assert most >= 3
        assert most == 3 or most * size <= 48 << 20


# -- a segment --

META = ChunkMeta(B3Digest.of(b"chunk"), 5)
OTHER = ChunkMeta(B3Digest.of(b"other"), 5)


class TestSegment:
    def test_it_takes_what_there_is_space_for(self) -> None:
        segment = Segment(10)

        assert segment.take(memoryview(b"1234567")) == 7
        assert not segment.full
        assert segment.take(memoryview(b"abcdefg")) == 3
        assert segment.full
        assert segment.content == b"1234567abc"
        assert segment.size == 10

    def test_it_is_filled_where_bytes_are_free(self) -> None:
        segment = Segment(10, 4)
        segment.take(memoryview(b"123"))

        assert segment.fill(InputFile(io.BytesIO(b"45"), "some bytes")) == 2
        assert segment.content == b"12345"
        assert segment.fill(InputFile(io.BytesIO(b"6789abcdef"), "some bytes")) == 5
        assert segment.content == b"123456789a"

    @pytest.mark.parametrize("rest", [b"", b"xy", b"wxyz"])
    def test_what_is_carried_over_goes_in_front(self, rest: bytes) -> None:
        segment = Segment(5, 4)
        segment.take(memoryview(b"12345"))

        segment.begin_with(rest)

        assert segment.content == rest + b"12345"
        assert segment.size == 5
        assert segment.full

    def test_it_grows_and_keeps_what_is_in_it(self) -> None:
        segment = Segment(3)
        segment.take(memoryview(b"123"))

        segment.grow(8, 2)

        assert segment.content == b"123"
        assert segment.size == 8
        segment.begin_with(b"ab")
        assert segment.content == b"ab123"

    def test_it_is_done_when_it_was_cut_and_all_jobs_are(self) -> None:
        segment = Segment(10)
        first, second = [memoryview(b"chunk")], [memoryview(b"other"), memoryview(b"chunk")]
        assert not segment.done

        segment.be_cut([first, second])
        assert list(segment.jobs) == [(0, first), (1, second)]
        segment.be_stored(1, [OTHER, META])
        assert not segment.done
        segment.be_stored(0, [META])

        assert segment.done
        assert segment.metas == [META, OTHER, META]

    def test_one_of_which_nothing_is_settled_is_done_when_it_was_cut(self) -> None:
        segment = Segment(10)

        segment.be_cut([])

        assert segment.done
        assert segment.metas == []

    def test_an_empty_one_is_as_new(self) -> None:
        segment = Segment(5, 4)
        segment.take(memoryview(b"12345"))
        segment.begin_with(b"ab")
        segment.be_cut([[memoryview(b"chunk")]])
        segment.be_stored(0, [META])

        segment.empty()

        assert (segment.content, segment.done, segment.metas, list(segment.jobs)) == (b"", False, [], [])
        assert segment.take(memoryview(b"123456")) == 5
