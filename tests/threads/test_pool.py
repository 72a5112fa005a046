"""The pool: no wait deadlocks at any size, results and errors travel, what has not begun is taken back."""

from __future__ import annotations

import functools
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore.threads.pool import Pool, Task


@pytest.fixture(params=[0, 1, 2, 8], ids=lambda size: f"{size} threads")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    pool = Pool(request.param)
    yield pool
    pool.close()


@pytest.fixture
def busy() -> Iterator[Pool]:
    """A pool of one thread, which is busy until the pool is closed."""
    pool = Pool(1)
    gate, begun = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert gate.wait(60)

    blocker = pool.submit(wait)
    assert begun.wait(60)
    yield pool
    gate.set()
    blocker.result()
    pool.close()


# -- size --


def test_a_pool_has_a_thread_for_each_core_by_default() -> None:
    assert Pool().size == (os.cpu_count() or 1)


def test_a_pool_cannot_have_less_than_no_threads() -> None:
    with pytest.raises(ValueError, match="-1 threads"):
        Pool(-1)


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_tasks_run_at_once_than_there_are_threads(size: int) -> None:
    pool = Pool(size)
    lock = threading.Lock()
    running = most = 0

    def run() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    for _ in range(30):
        pool.submit(run)
    pool.close()

    assert most == size


def test_no_thread_is_started_before_it_is_needed() -> None:
    before = threading.active_count()

    pool = Pool(4)
    assert threading.active_count() == before

    pool.submit(int).result()
    pool.close()
    assert threading.active_count() == before


def test_a_pool_of_no_threads_starts_none() -> None:
    before = threading.active_count()
    ran_in = Pool(0).submit(threading.get_ident).result()

    assert ran_in == threading.get_ident()
    assert threading.active_count() == before


def test_a_pool_of_no_threads_runs_a_task_where_it_is_waited_for() -> None:
    """Not before: that is the sequential program."""
    did = []
    tasks = [Pool(0).submit(lambda number=number: did.append(number)) for number in range(3)]  # type: ignore[misc]
    assert did == []

    for task in tasks:
        task.result()

    assert did == [0, 1, 2]


def test_the_threads_are_named() -> None:
    pool = Pool(1)
    gate = threading.Event()

    def name() -> str:
        gate.set()
        return threading.current_thread().name

    task = pool.submit(name)
    assert gate.wait(60)

    assert task.result().startswith("castore")
    pool.close()


# -- results and errors --


def test_a_result_travels(pool: Pool) -> None:
    tasks = [pool.submit(lambda number=number: number * number) for number in range(50)]  # type: ignore[misc]

    assert [task.result() for task in tasks] == [number * number for number in range(50)]


def test_a_result_can_be_had_again_and_the_task_runs_once(pool: Pool) -> None:
    did: list[int] = []
    task = pool.submit(lambda: did.append(1))

    assert task.result() is task.result() is None
    assert did == [1]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_error_travels_and_the_task_that_raised_it_does_not_run_again(
    pool: Pool, error: BaseException
) -> None:
    did = []

    def fail() -> None:
        did.append(1)
        raise error

    task = pool.submit(fail)

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            task.result()
        assert caught.value is error
    assert did == [1]


def test_an_error_leads_to_the_line_that_raised_it(pool: Pool) -> None:
    def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as caught:
        pool.submit(fail).result()

    assert caught.traceback[-1].name == "fail"


def test_an_error_does_not_keep_what_its_task_held(pool: Pool) -> None:
    """Without a collection of garbage: a writer's failed task holds megabytes."""

    class Held:
        pass

    held = Held()
    alive = weakref.ref(held)

    def fail(held: Held) -> None:
        raise ValueError(type(held).__name__)

    def run(held: Held) -> None:
        with pytest.raises(ValueError, match="Held"):
            pool.submit(lambda: fail(held)).result()

    gc.collect()
    gc.disable()
    try:
        run(held)
        del held
        pool.close()
        assert alive() is None
    finally:
        gc.enable()


def test_an_error_that_nobody_asks_for_disturbs_nobody(pool: Pool) -> None:
    def fail() -> None:
        raise ValueError("unheard")

    pool.submit(fail)

    assert pool.submit(lambda: 5).result() == 5


# -- no deadlock --


def test_a_task_that_has_not_begun_runs_where_it_is_waited_for(busy: Pool) -> None:
    assert busy.submit(threading.get_ident).result() == threading.get_ident()


def test_a_task_that_was_run_where_it_was_waited_for_does_not_run_in_the_pool_as_well() -> None:
    pool = Pool(1)
    gate = threading.Event()
    did: list[int] = []
    pool.submit(lambda: gate.wait(60))
    task = pool.submit(lambda: did.append(1))
    task.result()

    gate.set()
    pool.close()

    assert did == [1]


def test_a_task_that_runs_is_waited_for() -> None:
    pool = Pool(1)
    begun, gate = threading.Event(), threading.Event()

    def run() -> int:
        begun.set()
        assert gate.wait(60)
        return threading.get_ident()

    task = pool.submit(run)
    assert begun.wait(60)
    threading.Timer(0.05, gate.set).start()

    assert task.result() != threading.get_ident()
    pool.close()


def _nested(pool: Pool, depth: int) -> int:
    """A task that waits for a task that waits ... *depth* times over."""
    if depth == 0:
        return 0
    return 1 + pool.submit(lambda: _nested(pool, depth - 1)).result()


@pytest.mark.parametrize("depth", [1, 3, 60])
def test_tasks_may_wait_for_tasks_deeper_than_there_are_threads(pool: Pool, depth: int) -> None:
    assert pool.submit(lambda: _nested(pool, depth)).result() == depth


def _tree(pool: Pool, depth: int, width: int) -> int:
    """A task that submits several first and then waits for all of them, at each level."""
    if depth == 0:
        return 1
    tasks = [pool.submit(lambda: _tree(pool, depth - 1, width)) for _ in range(width)]
    return sum(task.result() for task in tasks)


def test_tasks_may_wait_for_many_tasks_each(pool: Pool) -> None:
    assert pool.submit(lambda: _tree(pool, 5, 4)).result() == 4**5


def test_many_threads_may_wait_for_nested_tasks_at_once(pool: Pool) -> None:
    results: list[int] = []

    def use() -> None:
        results.extend(pool.submit(lambda: _tree(pool, 3, 3)).result() for _ in range(5))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert results == [27] * 30


def test_tasks_of_two_pools_may_wait_for_each_other() -> None:
    """A cache over a chunked store, each with a pool of its own."""
    pools = Pool(1), Pool(1)

    def zigzag(depth: int) -> int:
        if depth == 0:
            return 0
        return 1 + pools[depth % 2].submit(lambda: zigzag(depth - 1)).result()

    assert zigzag(40) == 40
    for pool in pools:
        pool.close()


def test_an_error_travels_through_nested_tasks(pool: Pool) -> None:
    def fail(depth: int) -> None:
        if depth == 0:
            raise LookupError("at the bottom")
        pool.submit(lambda: fail(depth - 1)).result()

    with pytest.raises(LookupError, match="at the bottom"):
        pool.submit(lambda: fail(10)).result()


# A tree is the list of its subtrees.
_TREES: st.SearchStrategy[list[Any]] = st.recursive(
    st.builds(list), lambda children: st.lists(children, max_size=4), max_leaves=30
)


@settings(max_examples=60, deadline=None)
@given(tree=_TREES, size=st.integers(0, 3), backwards=st.booleans(), drop=st.booleans())
def test_no_shape_of_nested_tasks_deadlocks(tree: list[Any], size: int, backwards: bool, drop: bool) -> None:
    """Waited for in any order, and some dropped: every leaf that was waited for ran once."""
    pool = Pool(size)

    def leaves(node: list[Any]) -> int:
        tasks = [pool.submit(lambda child=child: leaves(child)) for child in node]  # type: ignore[misc]
        if drop:
            dropped = pool.submit(lambda: leaves(node[:1]))
            dropped.drop()
        return sum(task.result() for task in (reversed(tasks) if backwards else tasks)) or 1

    def expected(node: list[Any]) -> int:
        return sum(expected(child) for child in node) or 1

    assert pool.submit(lambda: leaves(tree)).result() == expected(tree)
    pool.close()


# -- dropping --


def test_a_task_that_has_not_begun_can_be_dropped(busy: Pool) -> None:
    did: list[int] = []

    busy.submit(lambda: did.append(1)).drop()
    busy.submit(lambda: did.append(2)).result()

    assert did == [2]


def test_a_dropped_task_never_runs() -> None:
    pool = Pool(1)
    gate = threading.Event()
    did: list[int] = []
    pool.submit(lambda: gate.wait(60))
    for _ in range(5):
        pool.submit(lambda: did.append(1)).drop()

    gate.set()
    pool.close()

    assert did == []


def test_a_dropped_task_of_a_pool_of_no_threads_never_runs() -> None:
    did: list[int] = []

    Pool(0).submit(lambda: did.append(1)).drop()

    assert did == []


@pytest.mark.parametrize("error", [None, ValueError("wrong"), SystemExit(3)], ids=repr)
def test_dropping_a_task_that_runs_waits_for_its_end_and_ignores_it(error: BaseException | None) -> None:
    pool = Pool(1)
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        time.sleep(0.05)
        ended.set()
        if error is not None:
            raise error

    task = pool.submit(run)
    assert begun.wait(60)
    task.drop()

    assert ended.is_set()
    pool.close()


def test_dropping_a_task_that_has_ended_does_nothing(pool: Pool) -> None:
    task = pool.submit(lambda: 5)
    assert task.result() == 5

    task.drop()
    task.drop()

    assert task.result() == 5


def test_dropping_a_task_that_has_failed_does_not_raise(pool: Pool) -> None:
    def fail() -> None:
        raise ValueError("wrong")

    task: Task[None] = pool.submit(fail)
    with pytest.raises(ValueError, match="wrong"):
        task.result()

    task.drop()


# -- closing --


def test_close_waits_for_what_was_submitted(pool: Pool) -> None:
    if not pool.size:
        pytest.skip("runs nothing by itself")
    did: list[int] = []

    def run(number: int) -> None:
        time.sleep(0.001)
        did.append(number)

    for number in range(20):
        pool.submit(functools.partial(run, number))

    pool.close()

    assert sorted(did) == list(range(20))


def test_a_pool_can_be_closed_again_and_used_again(pool: Pool) -> None:
    pool.close()
    pool.close()

    assert pool.submit(lambda: 5).result() == 5
    pool.close()
    assert pool.submit(lambda: 6).result() == 6


def test_a_pool_may_be_closed_while_others_submit() -> None:
    """It starts anew then; no task is refused."""
    pool = Pool(2)
    stop = threading.Event()
    errors: list[BaseException] = []

    def use() -> None:
        try:
            while not stop.is_set():
                assert pool.submit(lambda: 5).result() == 5
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        pool.close()
    stop.set()
    for thread in threads:
        thread.join(60)
    pool.close()

    assert errors == []


def test_a_task_whose_pool_was_closed_has_its_result(pool: Pool) -> None:
    task = pool.submit(lambda: 5)

    pool.close()

    assert task.result() == 5


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_pool_of_a_forked_process_does_not_hang() -> None:
    """Its threads stayed with the parent; whoever waits runs the task."""
    pool = Pool(1)
    pool.submit(int).result()

    child = os.fork()
    if child == 0:  # pragma: no cover
        code = 1
        try:
            code = pool.submit(lambda: 42).result()
        finally:
            os._exit(code)

    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 42
    pool.close()


Submit = Callable[[], object]


@pytest.mark.parametrize("size", [1, 2])
def test_the_producer_helps_while_the_pool_is_busy(size: int) -> None:
    """Whoever waits works: with *size* threads at a standstill everything is still done."""
    pool = Pool(size)
    gate = threading.Event()
    blockers = [pool.submit(lambda: gate.wait(60)) for _ in range(size)]
    calls: list[Submit] = [lambda number=number: number for number in range(20)]  # type: ignore[misc]
    tasks = [pool.submit(call) for call in calls]

    assert [task.result() for task in tasks] == list(range(20))

    gate.set()
    assert [blocker.result() for blocker in blockers] == [True] * size
    pool.close()


def test_map_keeps_the_order_and_runs_each_once(pool: Pool) -> None:
    """The results come in the order of the arguments."""
    seen: list[int] = []

    def double(number: int) -> int:
        seen.append(number)
        return 2 * number

    assert list(pool.map(double, range(100))) == list(range(0, 200, 2))
    assert sorted(seen) == list(range(100))


def test_map_runs_little_ahead(pool: Pool) -> None:
    """However many arguments there are, only a few are taken before they are needed."""
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = pool.map(lambda number: number, numbers())
    assert next(results) == 0
    assert len(taken) <= 2 * pool.size + 1
    results.close()
    assert len(taken) <= 2 * pool.size + 1


@pytest.mark.parametrize("most", [1, 3, 100])
def test_map_has_no_more_under_way_than_it_may(pool: Pool, most: int) -> None:
    """A task that is waited for counts; and no more are begun ahead than are of use."""
    begun: list[int] = []
    ended: list[int] = []
    under_way: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(60):
            begun.append(number)
            yield number

    def note(number: int) -> int:
        under_way.append(len(begun) - len(ended))
        ended.append(number)
        return number

    results = []
    for number in pool.map(note, numbers(), most=most):
        results.append(number)
        assert len(begun) - len(results) < min(most, 2 * pool.size + 1)
    assert results == list(range(60))
    assert max(under_way) <= most


def test_map_keeps_nothing_that_was_taken() -> None:
    """Not even while the threads, which would come upon it, are all at something long."""
    pool, free = Pool(1), threading.Event()
    held = pool.submit(free.wait)
    alive: list[weakref.ref[set[int]]] = []
    try:
        for value in pool.map(lambda number: {number}, range(50)):
            alive.append(weakref.ref(value))
        del value
        assert [each() for each in alive] == [None] * 50
    finally:
        free.set()
        held.result()
        pool.close()


def test_an_interrupted_map_waits_for_tasks_that_run() -> None:
    """Nothing that was begun is still under way when the exception comes out."""
    pool = Pool(2)
    at_work = threading.Semaphore(0)
    ended: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(2):
            yield number
            assert at_work.acquire(timeout=30)  # Not by the one that waits.

    def work(number: int) -> None:
        at_work.release()
        time.sleep(0.05)
        if number == 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.1)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        list(pool.map(work, numbers()))
    assert sorted(ended) == [0, 1]
    pool.close()


def test_map_raises_what_a_call_raises(pool: Pool) -> None:
    """At its place; what was started behind it is dropped."""
    results = pool.map(lambda number: 10 // number, [5, 2, 0, 1])
    assert [next(results), next(results)] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_a_pool_may_be_closed_by_a_thread_of_its_own() -> None:
    """The last who knows a service may be a task; a thread cannot wait for its own end."""
    pool = Pool(2)
    assert pool.submit(lambda: pool.close() or 1).result() == 1
    # In a thread for sure: a task that nobody takes back.
    closed = threading.Event()

    def close() -> None:
        pool.close()
        closed.set()

    pool.submit(close)
    assert closed.wait(60)
    assert pool.submit(lambda: 2).result() == 2
    pool.close()
