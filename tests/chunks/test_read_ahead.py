"""Chunks are fetched ahead when, and only when, a blob is read in order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import B3Digest, ChunkMeta
from castore.chunks import read_ahead as module
from castore.chunks.read_ahead import ReadAhead
from castore.threads.pool import Pool, Task


class Source:
    """Chunks of 1,000 bytes, and a record of which were asked for."""

    def __init__(self, count: int, seconds: float = 0) -> None:
        self.data = [bytes([number % 251, number // 251]) * 500 for number in range(count)]
        self.metas = [ChunkMeta(B3Digest.of(data), len(data)) for data in self.data]
        self.seconds = seconds
        self.fetched: list[int] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def fetch(self, meta: ChunkMeta) -> bytes:
        with self._lock:
            self.fetched.append(self.metas.index(meta))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.seconds)
        with self._lock:
            self._at_once -= 1
        return self.data[self.metas.index(meta)]


@pytest.fixture(params=[0, 1, 2, 8], ids=lambda size: f"{size} threads")
def workers(request: pytest.FixtureRequest) -> Iterator[Pool]:
    workers = Pool(request.param)
    yield workers
    workers.close()


def test_a_look_at_the_beginning_fetches_one_chunk(workers: Pool) -> None:
    """And a look at a few places here and there fetches those."""
    source = Source(100)
    ahead = ReadAhead(source.metas, source.fetch, workers)
    for index in (0, 50, 20, 99, 3):
        assert ahead.get(index) == source.data[index]
    assert source.fetched == [0, 50, 20, 99, 3]


def test_in_order_each_chunk_is_fetched_once(workers: Pool) -> None:
    """All of them come, right and in order."""
    source = Source(200, seconds=0.0005)
    ahead = ReadAhead(source.metas, source.fetch, workers)
    assert [ahead.get(index) for index in range(200)] == source.data
    assert sorted(source.fetched) == list(range(200))


def test_who_waits_gets_more_at_once() -> None:
    """With a slow source ever more chunks are under way, and none too many with a fast one."""
    slow = Source(300, seconds=0.01)
    workers = Pool(64)
    ahead = ReadAhead(slow.metas, slow.fetch, workers, run_size=0)
    for index in range(300):
        ahead.get(index)
    assert slow.most_at_once > 16
    workers.close()


def test_what_is_under_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the source is, only so many bytes are fetched ahead."""
    monkeypatch.setattr(module, "_MOST_AHEAD", 5000)
    source = Source(100, seconds=0.005)
    workers = Pool(64)
    ahead = ReadAhead(source.metas, source.fetch, workers, run_size=0)
    for index in range(60):
        ahead.get(index)
        assert ahead._bytes_ahead == 1000 * len(ahead._runs) <= 5000
    ahead.close()
    assert max(source.fetched) <= 65
    workers.close()


def test_a_step_aside_gives_up_what_is_under_way() -> None:
    """After a jump nothing more is fetched ahead until the chunks are read in order again."""
    source = Source(100)
    workers = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, workers)
    for index in (0, 1, 2, 3):
        ahead.get(index)
    ahead.get(70)
    before = len(source.fetched)
    ahead.get(80)
    assert source.fetched[before:] == [80]
    workers.close()


def test_chunks_stay_at_hand_for_a_while(workers: Pool) -> None:
    """A chunk that was just read is not fetched again, nor is one that comes many times."""
    source = Source(3)
    metas = [source.metas[0]] * 50 + [source.metas[1], source.metas[0], source.metas[2]]
    ahead = ReadAhead(metas, source.fetch, workers)
    for index in range(len(metas)):
        ahead.get(index)
    assert ahead.get(50) == source.data[1]
    assert sorted(source.fetched) == [0, 1, 2]


def test_what_is_at_hand_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes."""
    monkeypatch.setattr(module, "_MOST_AT_HAND", 3000)
    source = Source(10)
    ahead = ReadAhead(source.metas, source.fetch, Pool(0))
    for index in (0, 2, 4, 6, 4, 2, 0):
        ahead.get(index)
    assert source.fetched == [0, 2, 4, 6, 0]
    ahead.close()
    assert not ahead._at_hand


def test_chunks_are_fetched_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once they are read in order, and never more of them together than was asked for."""
    source = Source(100)
    workers = Pool(2)
    runs: list[int] = []
    fetched = module._fetched
    monkeypatch.setattr(
        module, "_fetched", lambda fetch, chunks: runs.append(len(chunks)) or fetched(fetch, chunks)
    )
    ahead = ReadAhead(source.metas, source.fetch, workers, run_size=4000)
    ahead._window = 12
    ahead._next = 0
    assert [ahead.get(index) for index in range(100)] == source.data
    assert sorted(runs)[1:] == [4] * (len(runs) - 1)
    assert sum(runs) == 99
    workers.close()


@pytest.mark.parametrize("run_size", [0, 3000, 1 << 20])
def test_an_error_comes_at_its_chunk(workers: Pool, run_size: int) -> None:
    """Those before it come; after it the chunk can be tried again."""
    source = Source(20)
    broken = {7}

    def fetch(meta: ChunkMeta) -> bytes:
        if source.metas.index(meta) in broken:
            raise ValueError("chunk 7")
        return source.fetch(meta)

    ahead = ReadAhead(source.metas, fetch, workers, run_size=run_size)
    for index in range(7):
        assert ahead.get(index) == source.data[index]
    with pytest.raises(ValueError, match="chunk 7"):
        ahead.get(7)
    broken.clear()
    assert ahead.get(7) == source.data[7]
    ahead.close()


@given(
    steps=st.lists(st.integers(-3, 6), max_size=60),
    size=st.sampled_from([0, 1, 3]),
    run_size=st.sampled_from([0, 2500, 1 << 20]),
)
@settings(max_examples=100, deadline=None)
def test_any_walk_gives_the_right_chunks(steps: list[int], size: int, run_size: int) -> None:
    """Wherever it goes, and whatever was fetched ahead, a chunk is the one that was asked for."""
    source = Source(40)
    metas = list(source.metas)
    for _ in range(10):
        metas[random.Random(len(steps)).randrange(40)] = source.metas[0]
    workers = Pool(size)
    ahead = ReadAhead(metas, lambda meta: source.data[source.metas.index(meta)], workers, run_size=run_size)
    index = 0
    for step in steps:
        index = min(max(index + step, 0), 39)
        assert B3Digest.of(ahead.get(index)) == metas[index].digest
    ahead.close()
    workers.close()


@pytest.mark.parametrize("run_size", [0, 2000])
def test_what_is_asked_for_at_once_is_fetched_at_once(run_size: int) -> None:
    """All threads are busy with it before the first has come, and nothing beyond it is fetched."""
    source = Source(100)
    workers = Pool(4)
    # The first chunk of each run, and the one that is waited for. Who waits for that is one of the four,
    # unless the source takes its time.
    first = {10, 11, 12, 13, 14} if run_size == 0 else {10, 11, 13, 15}
    begun = threading.Barrier(len(first))

    def together(meta: ChunkMeta) -> bytes:
        if source.metas.index(meta) in first:
            begun.wait(30)
        return source.fetch(meta)

    ahead = ReadAhead(source.metas, together, workers, run_size=run_size, after=1 << 30)
    ahead.expect(10, 20)
    assert [ahead.get(index) for index in range(10, 20)] == source.data[10:20]
    ahead.drop()
    assert sorted(source.fetched) == list(range(10, 20))
    workers.close()


def test_patience() -> None:
    """With `after`, so many bytes must have been read in order before anything else is fetched."""
    source = Source(100)
    workers = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, workers, after=5000)
    for index in range(30, 35):
        ahead.get(index)
    assert source.fetched == [30, 31, 32, 33, 34]
    ahead.get(35)
    assert ahead._runs
    ahead.drop()
    # Elsewhere it begins anew.
    source.fetched.clear()
    for index in range(5):
        ahead.get(index)
    assert source.fetched == [0, 1, 2, 3, 4]
    workers.close()


def test_what_was_asked_for_is_forgotten_elsewhere() -> None:
    """A look somewhere else fetches what is looked at."""
    source = Source(100)
    workers = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, workers)
    ahead.expect(50, 90)
    for index in (20, 3, 95):
        ahead.get(index)
    assert source.fetched == [20, 3, 95]
    workers.close()


def test_who_waits_takes_part() -> None:
    """It fetches what nobody has begun with, while what it waits for is fetched by somebody else."""
    source = Source(30)
    begun, slow = threading.Event(), threading.Event()
    here: list[int] = []

    def fetch(meta: ChunkMeta) -> bytes:
        index = source.metas.index(meta)
        if threading.current_thread() is threading.main_thread():
            here.append(index)
            if index == 2:
                slow.set()
        else:
            begun.set()
            assert slow.wait(30)
        return source.fetch(meta)

    workers = Pool(2)
    ahead = ReadAhead(source.metas, fetch, workers, run_size=1)
    ahead._window, ahead._next = 8, 0
    assert ahead.get(0) == source.data[0]
    assert begun.wait(30)
    assert [ahead.get(index) for index in range(1, 30)] == source.data[1:]
    assert here[:2] == [0, 2]
    workers.close()


def test_who_waits_for_a_source_that_takes_its_time_fetches_nothing_else() -> None:
    """It could not hand out meanwhile what has come. What else is to be done others do, before they fetch."""
    source = Source(30, seconds=0.01)
    here: list[int] = []
    meanwhile: set[bool] = set()

    def fetch(meta: ChunkMeta) -> bytes:
        if threading.current_thread() is threading.main_thread():
            here.append(source.metas.index(meta))
        return source.fetch(meta)

    def note() -> bool:
        meanwhile.add(threading.current_thread() is threading.main_thread())
        return True

    workers = Pool(2)
    ahead = ReadAhead(source.metas, fetch, workers, run_size=0, meanwhile=note)
    ahead._window, ahead._next = 8, 0
    for index in range(30):
        here.clear()
        assert ahead.get(index) == source.data[index]
        assert here in ([], [index])
    assert meanwhile == {False}
    workers.close()


def test_who_waits_does_something_else_first() -> None:
    """As long as there is anything else to do."""
    source = Source(30)
    done: list[int] = []
    more = threading.Event()

    def fetch(meta: ChunkMeta) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            assert more.wait(30)
        return source.fetch(meta)

    def meanwhile() -> bool:
        if threading.current_thread() is not threading.main_thread() or len(done) == 3:
            return False
        done.append(1)
        if len(done) == 3:
            more.set()
        return True

    workers = Pool(1)
    ahead = ReadAhead(source.metas, fetch, workers, run_size=1, meanwhile=meanwhile)
    assert [ahead.get(index) for index in range(30)] == source.data
    assert done == [1, 1, 1]
    workers.close()


def test_who_has_nothing_to_fetch_does_something_else() -> None:
    """When it is called."""
    done = threading.Event()
    workers = Pool(2)
    source = Source(3)
    ahead = ReadAhead(
        source.metas, source.fetch, workers, meanwhile=lambda: not done.is_set() and not done.set()
    )
    ahead.call_for_help()
    assert done.wait(30)
    ahead.close()
    workers.close()


def test_one_that_was_interrupted_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose fetching was broken off is not waited for."""
    source = Source(10)
    interrupted: list[int] = []

    def fetch(meta: ChunkMeta) -> bytes:
        if threading.current_thread() is threading.main_thread() and source.metas.index(meta) == 4:
            interrupted.append(4)
            if len(interrupted) == 1:
                raise KeyboardInterrupt
        return source.fetch(meta)

    workers = Pool(1)
    workers.submit = lambda call: Task(call, Future())  # type: ignore[method-assign, assignment]
    ahead = ReadAhead(source.metas, fetch, workers, run_size=2000)
    ahead._window, ahead._next = 6, 0
    with pytest.raises(KeyboardInterrupt):
        [ahead.get(index) for index in range(10)]
    start = ahead._next
    assert [ahead.get(index) for index in range(start, 10)] == source.data[start:]


@pytest.mark.parametrize(("run_size", "most"), [(0, 2), (1000, 17)])
def test_others_have_the_pool_before_all_is_fetched(run_size: int, most: int) -> None:
    """After each chunk if the source takes its time, else after some runs."""
    source = Source(60)
    begun, gate = threading.Event(), threading.Event()

    def fetch(meta: ChunkMeta) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert gate.wait(30)
        return source.fetch(meta)

    workers = Pool(1)
    ahead = ReadAhead(source.metas, fetch, workers, run_size=run_size)
    ahead._window, ahead._next = 50, 0
    assert ahead.get(0) == source.data[0]
    assert begun.wait(30)
    seen: list[int] = []
    # Not by the result of the task, as who waits for that runs it.
    workers.submit(lambda: seen.append(len(source.fetched) - 1))
    gate.set()
    while not seen:
        time.sleep(0.001)
    assert seen[0] <= most
    ahead.close()
    workers.close()
