"""Segments on their way into a store: what is shared among threads, and what comes of it when one fails."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from castore.chunks.segments import Segment

from castore import B3Digest, ChunkMeta
from castore.chunks.pipeline import ChunkLine, store_new
from castore.contract.capabilities import ChunkStore
from castore.format.chunking import Chunker
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


class Store(ChunkStore):
    """Keeps chunks, and what it was asked."""

    def __init__(self) -> None:
        self.chunks: dict[B3Digest, bytes] = {}
        self.put: list[B3Digest] = []
        self.claims: list[list[B3Digest]] = []
        self.at_work = self.most_at_work = 0
        self._lock = threading.Lock()

    def has_chunk(self, digest: B3Digest) -> bool:
        return digest in self.chunks

    def claim_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        self.claims.append(list(digests))
        return {digest for digest in self.claims[-1] if digest in self.chunks}

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        return self.chunks.get(digest)

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        with self._lock:
            self.at_work += 1
            self.most_at_work = max(self.at_work, self.most_at_work)
        self.slowly()
        self.put.append(digest)
        self.chunks[digest] = bytes(data)
        with self._lock:
            self.at_work -= 1

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        raise NotImplementedError

    def slowly(self) -> None:
        pass


def segments(data: bytes, size: int) -> Iterator[tuple[Segment, bool]]:
    """Return *data* in segments, and whether each is the last."""
    for start in range(0, len(data), size):
        segment = Segment(size, CHUNK)
        segment.take(memoryview(data)[start : start + size])
        yield segment, start + size >= len(data)


def send(line: ChunkLine, data: bytes, size: int) -> None:
    for segment, final in segments(data, size):
        line.add(segment, final=final)
    while line:
        assert line.get_back().content == b""


def metas(data: bytes) -> list[ChunkMeta]:
    parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    return [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]


@pytest.fixture(params=[0, 1, 2, 5], ids=lambda size: f"{size} threads")
def workers(request: pytest.FixtureRequest) -> Iterator[Pool]:
    workers = Pool(request.param)
    yield workers
    workers.close()


@pytest.mark.parametrize("size", [7, 10, 33, 4000])
@pytest.mark.parametrize("job_size", [0, 25, 100_000])
def test_segments_become_chunks_in_order_and_a_digest(workers: Pool, size: int, job_size: int) -> None:
    store = Store()
    line = ChunkLine(store, Tens(), workers, helpers=workers.size, job_size=job_size)

    send(line, DATA, size)

    assert line.chunks == metas(DATA)
    assert line.digest() == B3Digest.of(DATA)
    assert store.chunks.keys() == {meta.digest for meta in metas(DATA)}
    line.close()


def test_a_segment_comes_back_when_its_chunks_are_stored(workers: Pool) -> None:
    """So it may be filled anew."""
    store = Store()
    store.slowly = lambda: time.sleep(0.002)  # type: ignore[method-assign]
    line = ChunkLine(store, Tens(), workers, helpers=workers.size, job_size=30)
    for segment, final in segments(DATA[:1000], 100):
        line.add(segment, final=final)

    for count in range(1, 11):
        line.get_back()
        assert all(meta.digest in store.chunks for meta in metas(DATA[: 100 * count]))
        assert len(line) == 10 - count
    line.close()


def test_the_jobs_of_one_segment_are_shared() -> None:
    """Four threads meet: the one that waits for the segment, and three that help."""
    meeting = threading.Barrier(4, timeout=30)
    store = Store()
    store.slowly = meeting.wait  # type: ignore[assignment]
    workers = Pool(3)
    line = ChunkLine(store, Tens(), workers, helpers=3, job_size=0)

    send(line, DATA[:40], 100)

    assert line.chunks == metas(DATA[:40])
    line.close()
    workers.close()


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_no_more_threads_are_at_work_than_may_help(helpers: int) -> None:
    store = Store()
    store.slowly = lambda: time.sleep(0.001)  # type: ignore[method-assign]
    workers = Pool(8)
    line = ChunkLine(store, Tens(), workers, helpers=helpers, job_size=0)

    send(line, DATA[:1500], 50)

    assert 1 <= store.most_at_work <= helpers + 1
    line.close()
    workers.close()


def test_a_job_is_looked_up_at_once_and_what_repeats_in_it_is_put_once() -> None:
    store = Store()
    first, second = DATA[:10], DATA[10:20]
    store.chunks[B3Digest.of(second)] = second

    found = store_new(store, [memoryview(part) for part in (first, second, first)])

    one, two = ChunkMeta(B3Digest.of(first), 10), ChunkMeta(B3Digest.of(second), 10)
    assert found == [one, two, one]
    assert store.claims == [[one.digest, two.digest, one.digest]]
    assert store.put == [one.digest]


def test_a_single_job_is_begun_at_once_if_the_store_takes_its_time() -> None:
    """Nobody need get the segment back for that."""
    store = Store()
    workers = Pool(1)
    line = ChunkLine(store, Tens(), workers, helpers=1, job_size=0)
    ((segment, final),) = segments(DATA[:10], 10)

    line.add(segment, final=final)

    for _ in range(10_000):
        if store.put:
            break
        time.sleep(0.001)
    assert store.put == [B3Digest.of(DATA[:10])]
    line.close()
    workers.close()


@pytest.mark.parametrize("size", [5, 30, 200])
def test_what_cannot_be_cut_is_an_error_and_nothing_more_is_done(workers: Pool, size: int) -> None:
    """Nobody waits for a turn that does not come."""
    store = Store()
    line = ChunkLine(store, Tens(), workers, helpers=workers.size, job_size=20)

    with pytest.raises(ValueError, match="an X cannot be cut"):
        send(line, DATA[:100] + b"X" * 10 + DATA[100:600], size)

    line.close()
    put = list(store.put)
    time.sleep(0.01)
    assert store.put == put
    assert set(put) <= {meta.digest for meta in metas(DATA[:100])}


def test_the_first_error_is_told_and_the_others_are_not_waited_for(workers: Pool) -> None:
    errors = []

    def fail() -> None:
        errors.append(OSError(len(errors)))
        raise errors[-1]

    store = Store()
    store.slowly = fail  # type: ignore[method-assign]
    line = ChunkLine(store, Tens(), workers, helpers=workers.size, job_size=0)

    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is what is asked
        send(line, DATA, 100)

    line.close()
    assert caught.value in errors
    assert len(errors) <= workers.size + 1


def test_one_that_is_closed_does_nothing_more() -> None:
    """It waits for what is being done."""
    store = Store()
    started = threading.Event()

    def slowly() -> None:
        started.set()
        time.sleep(0.02)

    store.slowly = slowly  # type: ignore[method-assign]
    workers = Pool(2)
    line = ChunkLine(store, Tens(), workers, helpers=2, job_size=0)
    for segment, final in segments(DATA, 100):
        line.add(segment, final=final)
    assert started.wait(30)

    line.close()

    assert store.at_work == 0
    put = len(store.put)
    workers.close()
    assert len(store.put) == put < 100
    assert not line


@pytest.mark.parametrize(("job_size", "size", "most"), [(0, 200, 2), (20, 20, 9)])
def test_others_have_the_pool_before_all_is_done(job_size: int, size: int, most: int) -> None:
    """After each chunk if the store takes its time, else after some segments."""
    store = Store()
    gate = threading.Event()
    store.slowly = lambda: gate.wait(30)  # type: ignore[assignment]
    workers = Pool(1)
    line = ChunkLine(store, Tens(), workers, helpers=1, job_size=job_size)
    for segment, final in segments(DATA[:400], size):
        line.add(segment, final=final)

    while not store.at_work:
        time.sleep(0.001)
    seen: list[int] = []
    # Not by the result of the task, as who waits for that runs it.
    workers.submit(lambda: seen.append(len(store.put)))
    gate.set()
    while not seen:
        time.sleep(0.001)
    assert seen[0] <= most
    while line:
        line.get_back()
    assert line.chunks == metas(DATA[:400])
    line.close()
    workers.close()


def test_who_waits_for_a_store_that_takes_its_time_stores_nothing_else() -> None:
    """It has more to send off as soon as the segment is back. And it has cut what it has added itself."""
    store = Store()
    gate = threading.Event()
    here: list[int] = []
    cutters: set[threading.Thread] = set()

    def slowly() -> None:
        if threading.current_thread() is threading.main_thread():
            here.append(1)
        else:
            assert gate.wait(30)

    class Noting(Tens):
        def cut(self, data: memoryview) -> Iterator[int]:
            cutters.add(threading.current_thread())
            return super().cut(data)

    store.slowly = slowly  # type: ignore[method-assign]
    workers = Pool(1)
    line = ChunkLine(store, Noting(), workers, helpers=1, job_size=0)
    (first, _), (second, final) = segments(DATA[:100], 50)
    line.add(first)
    line.add(second, final=final)
    while not store.at_work:
        time.sleep(0.001)
    threading.Timer(0.1, gate.set).start()

    line.get_back()

    assert len(here) <= 4  # of the five of the first segment
    line.get_back()
    assert line.chunks == metas(DATA[:100])
    assert cutters == {threading.main_thread()}
    line.close()
    workers.close()
