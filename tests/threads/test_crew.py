"""A crew: called when there is work, at it as long as there is any, and never more than may be."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest

from castore.threads.crew import Crew, crew_beside
from castore.threads.pool import Pool


class Work:
    """Numbers that are to be doubled."""

    def __init__(self, pool: Pool, most: int, seconds: float = 0) -> None:
        self.left: deque[int] = deque()
        self.done: list[int] = []
        self.at_once = self.most_at_once = 0
        self._seconds = seconds
        self.gate = threading.Event()
        self.gate.set()
        lock = threading.Lock()
        self.changed = threading.Condition(lock)
        self.crew = Crew(pool, most, self.do, lambda: bool(self.left), lock, turn=4)

    def add(self, *numbers: int) -> None:
        with self.changed:
            self.left.extend(numbers)
            self.crew.call(len(numbers))

    def do(self) -> bool:
        with self.changed:
            if not self.left:
                return False
            number = self.left.popleft()
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.gate.wait(30)
        time.sleep(self._seconds)
        with self.changed:
            self.at_once -= 1
            self.done.append(2 * number)
            self.changed.notify_all()
        return True

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.done) == count, 30)


@pytest.mark.parametrize("most", [1, 3])
def test_all_work_is_done_by_as_many_as_may(most: int) -> None:
    pool = Pool(4)
    work = Work(pool, most, seconds=0.005)

    work.add(*range(20))
    work.wait(20)

    assert sorted(work.done) == [2 * number for number in range(20)]
    assert 1 <= work.most_at_once <= most
    pool.close()


def test_they_come_again_when_there_is_more() -> None:
    """However the call and their leaving fall together."""
    pool = Pool(1)
    work = Work(pool, 1)

    for number in range(500):
        work.add(number)
        work.wait(number + 1)

    pool.close()


def test_none_that_may_help_is_called() -> None:
    pool = Pool(0)
    work = Work(pool, 0)

    work.add(1)

    assert not work.done
    work.crew.leave()


def test_who_is_at_it_is_waited_for_and_can_be_called_again() -> None:
    pool = Pool(2)
    work = Work(pool, 2, seconds=0.02)
    work.add(1, 2)
    with work.changed:
        assert work.changed.wait_for(lambda: not work.left, 30) or True
    while work.left:
        time.sleep(0.001)

    work.crew.leave()

    assert sorted(work.done) == [2, 4]
    work.add(3)
    work.wait(3)
    pool.close()


def test_who_was_called_and_did_not_come_is_not_waited_for() -> None:
    """The pool is busy with something else; later there are as many of them as before."""
    pool = Pool(1)
    gate = threading.Event()
    busy = pool.submit(lambda: gate.wait(30))
    work = Work(pool, 1)
    work.add(1)
    work.left.clear()

    work.crew.leave()

    gate.set()
    busy.result()
    work.add(2)
    work.wait(1)
    assert work.done == [4]
    pool.close()


@pytest.mark.parametrize(("size", "crew"), [(0, 0), (1, 1), (2, 1), (3, 2), (8, 7)])
def test_the_one_that_is_helped_counts(size: int, crew: int) -> None:
    """But where there is one core: a source may take its time."""
    assert crew_beside(Pool(size)) == crew


def test_after_a_turn_others_have_the_pool() -> None:
    """Who has much to do keeps nobody from it for long."""
    pool = Pool(1)
    work = Work(pool, 1)
    work.gate.clear()
    work.add(*range(40))
    while not work.at_once:
        time.sleep(0.001)

    seen: list[int] = []
    # Not by the result of the task, as who waits for that runs it.
    pool.submit(lambda: seen.append(len(work.done)))
    work.gate.set()
    while not seen:
        time.sleep(0.001)
    assert seen[0] == 4
    work.wait(40)
    pool.close()
