"""Chunks are fetched ahead when, and only when, a blob is read in order."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import B3Digest, ChunkMeta
from castore.chunks import read_ahead as module
from castore.chunks.read_ahead import ReadAhead
from castore.threads.pool import Pool, Task


class Source:
    """Chunks of 1,000 bytes, and a record of which were asked for, together or alone."""

    def __init__(
        self, count: int, seconds: float = 0, before: Callable[[list[int]], object] = lambda numbers: None
    ) -> None:
        self.data = [bytes([number % 251, number // 251]) * 500 for number in range(count)]
        self.metas = [ChunkMeta(B3Digest.of(data), len(data)) for data in self.data]
        self.seconds = seconds
        self.calls: list[list[int]] = []
        self.most_at_once = 0
        self._before = before
        self._at_once = 0
        self._lock = threading.Lock()

    @property
    def fetched(self) -> list[int]:
        """The numbers of the chunks that were asked for, in order."""
        return [number for numbers in self.calls for number in numbers]

    def fetch(self, metas: Sequence[ChunkMeta]) -> dict[B3Digest, bytes | Exception]:
        numbers = [self.metas.index(meta) for meta in metas]
        self._before(numbers)
        with self._lock:
            self.calls.append(numbers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.seconds)
        with self._lock:
            self._at_once -= 1
        return {self.metas[number].digest: self.data[number] for number in numbers}


def is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


@pytest.fixture(params=[0, 1, 2, 8], ids=lambda size: f"{size} threads")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    pool = Pool(request.param)
    yield pool
    pool.close()


@pytest.fixture
def run_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let so many bytes be fetched together, at least, from any source."""

    def set_sizes(size: int) -> None:
        monkeypatch.setattr(module, "_RUN_SIZE", size)
        monkeypatch.setattr(module, "_WAITING_RUN", size)

    return set_sizes


def test_a_look_at_the_beginning_fetches_one_chunk(pool: Pool) -> None:
    """And a look at a few places here and there fetches those."""
    source = Source(100)
    ahead = ReadAhead(source.metas, source.fetch, pool)
    for index in (0, 50, 20, 99, 3):
        assert ahead.get(index) == source.data[index]
    assert source.calls == [[0], [50], [20], [99], [3]]


@pytest.mark.parametrize("high_latency", [False, True])
def test_in_order_each_chunk_is_fetched_once(pool: Pool, high_latency: bool) -> None:
    """All of them come, right and in order."""
    source = Source(200, seconds=0.0005)
    ahead = ReadAhead(source.metas, source.fetch, pool, high_latency=high_latency)
    assert [ahead.get(index) for index in range(200)] == source.data
    assert sorted(source.fetched) == list(range(200))


def test_who_waits_gets_more_at_once(run_of: Callable[[int], None]) -> None:
    """With a slow source ever more chunks are under way, and none too many with a fast one."""
    run_of(1)
    slow = Source(300, seconds=0.01)
    pool = Pool(64)
    ahead = ReadAhead(slow.metas, slow.fetch, pool)
    for index in range(300):
        ahead.get(index)
    assert slow.most_at_once > 16
    pool.close()


def test_where_requests_mostly_wait_two_calls_are_under_way(
    run_of: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each for many chunks: the source makes many requests at once itself."""
    assert 2 * module._WAITING_RUN == module._MOST_AHEAD
    run_of(50_000)
    monkeypatch.setattr(module, "_MOST_AHEAD", 100_000)
    source = Source(600, seconds=0.01)
    pool = Pool(64)
    ahead = ReadAhead(source.metas, source.fetch, pool, high_latency=True)
    assert [ahead.get(index) for index in range(600)] == source.data
    assert source.most_at_once == 2
    assert len(source.calls) < 30
    assert 30 <= max(map(len, source.calls)) <= 50
    ahead.close()
    pool.close()


def test_what_is_under_way_is_bounded(run_of: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the source is, only so many bytes are fetched ahead."""
    run_of(1)
    monkeypatch.setattr(module, "_MOST_AHEAD", 5000)
    source = Source(100, seconds=0.005)
    pool = Pool(64)
    ahead = ReadAhead(source.metas, source.fetch, pool)
    for index in range(60):
        ahead.get(index)
        assert ahead._bytes_ahead == 1000 * len(ahead._runs) <= 5000
    ahead.close()
    assert max(source.fetched) <= 65
    pool.close()


@pytest.mark.parametrize(("name", "bound", "most"), [("MOST_ITEMS", 5, 5), ("MOST_BYTES", 3999, 3)])
@pytest.mark.parametrize("high_latency", [False, True])
def test_a_call_has_no_more_than_a_batch(
    monkeypatch: pytest.MonkeyPatch, name: str, bound: int, most: int, high_latency: bool
) -> None:
    """Neither chunks nor bytes."""
    monkeypatch.setattr(module, name, bound)
    pool = Pool(2)
    source = Source(100, seconds=0.001)
    ahead = ReadAhead(source.metas, source.fetch, pool, high_latency=high_latency)
    ahead.expect(0, 100)
    assert [ahead.get(index) for index in range(100)] == source.data
    assert max(map(len, source.calls)) == most
    ahead.close()
    pool.close()


def test_a_step_aside_gives_up_what_is_under_way() -> None:
    """After a jump nothing more is fetched ahead until the chunks are read in order again."""
    source = Source(100)
    pool = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, pool)
    for index in (0, 1, 2, 3):
        ahead.get(index)
    ahead.get(70)
    before = len(source.calls)
    ahead.get(80)
    assert source.calls[before:] == [[80]]
    pool.close()


def test_chunks_stay_at_hand_for_a_while(pool: Pool) -> None:
    """A chunk that was just read is not fetched again, nor is one that comes many times."""
    source = Source(3)
    metas = [source.metas[0]] * 50 + [source.metas[1], source.metas[0], source.metas[2]]
    ahead = ReadAhead(metas, source.fetch, pool)
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


def test_chunks_are_fetched_in_runs(run_of: Callable[[int], None]) -> None:
    """Once they are read in order, and never more of them together than was asked for."""
    run_of(4000)
    source = Source(100)
    pool = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, pool)
    ahead._window = 12
    ahead._next = 0
    assert [ahead.get(index) for index in range(100)] == source.data
    lengths = sorted(map(len, source.calls))
    assert lengths == [1, *[3] * (lengths.count(3)), *[4] * (lengths.count(4))]
    assert lengths.count(3) <= 1
    assert sum(lengths) == 100
    pool.close()


@pytest.mark.parametrize("run_size", [1, 3000, 1 << 20])
@pytest.mark.parametrize("high_latency", [False, True])
def test_an_error_comes_at_its_chunk(
    pool: Pool, run_size: int, high_latency: bool, run_of: Callable[[int], None]
) -> None:
    """Those before it come; after it the chunk can be tried again."""
    run_of(run_size)
    source = Source(20)
    broken = {7}

    def fetch(metas: Sequence[ChunkMeta]) -> Mapping[B3Digest, bytes | Exception]:
        found = source.fetch(metas)
        found.update(
            {meta.digest: ValueError("seven") for meta in metas if source.metas.index(meta) in broken}
        )
        return found

    ahead = ReadAhead(source.metas, fetch, pool, high_latency=high_latency)
    for index in range(7):
        assert ahead.get(index) == source.data[index]
    with pytest.raises(ValueError, match="seven"):
        ahead.get(7)
    broken.clear()
    assert [ahead.get(index) for index in range(7, 20)] == source.data[7:]
    ahead.close()


def test_what_fails_as_a_whole_is_told_at_the_first_chunk(pool: Pool, run_of: Callable[[int], None]) -> None:
    """Each time that it is asked for. When the source is back the read goes on."""
    run_of(4000)
    down = [False]

    def fail(numbers: list[int]) -> None:
        if down[0]:
            raise ConnectionError(f"no way to {numbers[0]}")

    source = Source(40, before=fail)
    ahead = ReadAhead(source.metas, source.fetch, pool)
    for index in range(5):
        ahead.get(index)
    down[0] = True
    read: list[bytes] = []
    with pytest.raises(ConnectionError):
        read.extend(ahead.get(index) for index in range(5, 40))
    assert read == source.data[5 : 5 + len(read)]
    index = 5 + len(read)
    with pytest.raises(ConnectionError, match=f"no way to {index}$"):
        ahead.get(index)
    down[0] = False
    for number in range(index, 40):
        # What was fetched ahead meanwhile has failed; it is told once.
        with contextlib.suppress(ConnectionError):
            ahead.get(number)
        assert ahead.get(number) == source.data[number]
    ahead.close()


@given(
    steps=st.lists(st.integers(-3, 6), max_size=60),
    size=st.sampled_from([0, 1, 3]),
    run_size=st.sampled_from([1, 2500, 1 << 20]),
    high_latency=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_any_walk_gives_the_right_chunks(
    steps: list[int], size: int, run_size: int, high_latency: bool
) -> None:
    """Wherever it goes, and whatever was fetched ahead, a chunk is the one that was asked for."""
    source = Source(40)
    metas = list(source.metas)
    for _ in range(10):
        metas[random.Random(len(steps)).randrange(40)] = source.metas[0]
    pool = Pool(size)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "_RUN_SIZE", run_size)
        monkeypatch.setattr(module, "_WAITING_RUN", run_size)
        ahead = ReadAhead(metas, source.fetch, pool, high_latency=high_latency)
    index = 0
    for step in steps:
        index = min(max(index + step, 0), 39)
        assert B3Digest.of(ahead.get(index)) == metas[index].digest
    ahead.close()
    pool.close()


@pytest.mark.parametrize(("run_size", "first"), [(1000, {10, 11, 12, 13}), (2000, {10, 11, 13, 15})])
def test_what_is_asked_for_at_once_is_fetched_at_once(
    run_size: int, first: set[int], run_of: Callable[[int], None]
) -> None:
    """All threads are busy with it before the first has come, and nothing beyond it is fetched."""
    run_of(run_size)
    # The one that is waited for, and the first chunk of each run: who waits is one of the four.
    begun = threading.Barrier(len(first))
    source = Source(100, before=lambda numbers: begun.wait(30) if first & set(numbers) else None)
    pool = Pool(4)
    ahead = ReadAhead(source.metas, source.fetch, pool, after=1 << 30)
    ahead.expect(10, 20)
    assert [ahead.get(index) for index in range(10, 20)] == source.data[10:20]
    ahead.drop()
    assert sorted(source.fetched) == list(range(10, 20))
    pool.close()


def test_patience() -> None:
    """With `after`, so many bytes must have been read in order before anything else is fetched."""
    source = Source(100)
    pool = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, pool, after=5000)
    for index in range(30, 35):
        ahead.get(index)
    assert source.fetched == [30, 31, 32, 33, 34]
    ahead.get(35)
    assert ahead._runs
    ahead.drop()
    # Elsewhere it begins anew.
    source.calls.clear()
    for index in range(5):
        ahead.get(index)
    assert source.fetched == [0, 1, 2, 3, 4]
    pool.close()


def test_what_was_asked_for_is_forgotten_elsewhere() -> None:
    """A look somewhere else fetches what is looked at."""
    source = Source(100)
    pool = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, pool)
    ahead.expect(50, 90)
    for index in (20, 3, 95):
        ahead.get(index)
    assert source.fetched == [20, 3, 95]
    pool.close()


def test_who_waits_takes_part(run_of: Callable[[int], None]) -> None:
    """It fetches what nobody has begun with, while what it waits for is fetched by somebody else."""
    run_of(1)
    begun, slow = threading.Event(), threading.Event()
    here: list[int] = []

    def before(numbers: list[int]) -> None:
        if is_main():
            here.extend(numbers)
            if 2 in numbers:
                slow.set()
        else:
            begun.set()
            assert slow.wait(30)

    source = Source(30, before=before)
    pool = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, pool)
    ahead._window, ahead._next = 8, 0
    assert ahead.get(0) == source.data[0]
    assert begun.wait(30)
    assert [ahead.get(index) for index in range(1, 30)] == source.data[1:]
    assert here[:2] == [0, 2]
    pool.close()


def test_who_waits_for_a_source_that_takes_its_time_fetches_nothing_else(
    run_of: Callable[[int], None],
) -> None:
    """It could not hand out meanwhile what has come. What else is to be done others do, before they fetch."""
    run_of(3000)
    here: list[int] = []
    meanwhile: set[bool] = set()
    source = Source(60, seconds=0.01, before=lambda numbers: here.extend(numbers) if is_main() else None)

    def note() -> bool:
        meanwhile.add(is_main())
        return True

    pool = Pool(2)
    ahead = ReadAhead(source.metas, source.fetch, pool, high_latency=True, meanwhile=note)
    for index in range(60):
        here.clear()
        assert ahead.get(index) == source.data[index]
        assert here[:1] in ([], [index])
    assert meanwhile == {False}
    pool.close()


def test_who_waits_does_something_else_first(run_of: Callable[[int], None]) -> None:
    """As long as there is anything else to do."""
    run_of(1)
    done: list[int] = []
    more = threading.Event()

    def before(_: object) -> None:
        if not is_main():
            assert more.wait(30)

    def meanwhile() -> bool:
        if not is_main() or len(done) == 3:
            return False
        done.append(1)
        if len(done) == 3:
            more.set()
        return True

    source = Source(30, before=before)
    pool = Pool(1)
    ahead = ReadAhead(source.metas, source.fetch, pool, meanwhile=meanwhile)
    assert [ahead.get(index) for index in range(30)] == source.data
    assert done == [1, 1, 1]
    pool.close()


def test_who_has_nothing_to_fetch_does_something_else() -> None:
    """When it is called."""
    done = threading.Event()
    pool = Pool(2)
    source = Source(3)
    ahead = ReadAhead(
        source.metas, source.fetch, pool, meanwhile=lambda: not done.is_set() and not done.set()
    )
    ahead.call_for_help()
    assert done.wait(30)
    ahead.close()
    pool.close()


def test_one_that_was_interrupted_goes_on(run_of: Callable[[int], None]) -> None:
    """A run whose fetching was broken off is not waited for."""
    run_of(2000)
    interrupted: list[int] = []

    def before(numbers: list[int]) -> None:
        if is_main() and 4 in numbers:
            interrupted.append(4)
            if len(interrupted) == 1:
                raise KeyboardInterrupt

    source = Source(10, before=before)
    pool = Pool(1)
    pool.submit = Task  # type: ignore[method-assign, assignment]
    ahead = ReadAhead(source.metas, source.fetch, pool)
    ahead._window, ahead._next = 6, 0
    with pytest.raises(KeyboardInterrupt):
        [ahead.get(index) for index in range(10)]
    start = ahead._next
    assert [ahead.get(index) for index in range(start, 10)] == source.data[start:]


@pytest.mark.parametrize(("high_latency", "most"), [(True, 2), (False, 17)])
def test_others_have_the_pool_before_all_is_fetched(
    high_latency: bool, most: int, run_of: Callable[[int], None]
) -> None:
    """After each run if the source takes its time, else after some."""
    run_of(1000)
    begun, gate = threading.Event(), threading.Event()

    def before(_: object) -> None:
        if not is_main():
            begun.set()
            assert gate.wait(30)

    source = Source(60, before=before)
    pool = Pool(1)
    ahead = ReadAhead(source.metas, source.fetch, pool, high_latency=high_latency)
    ahead._window, ahead._next = 50, 0
    assert ahead.get(0) == source.data[0]
    assert begun.wait(30)
    seen: list[int] = []
    # Not by the result of the task, as who waits for that runs it.
    pool.submit(lambda: seen.append(len(source.fetched) - 1))
    gate.set()
    while not seen:
        time.sleep(0.001)
    assert seen[0] <= most
    ahead.close()
    pool.close()
