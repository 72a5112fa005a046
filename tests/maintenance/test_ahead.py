"""Calls that run ahead of the one that is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from castore.maintenance.ahead import run_ahead
from castore.workers import Workers


@pytest.fixture(params=[0, 1, 4])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    workers = Workers(request.param)
    yield workers
    workers.close()


def test_results_come_in_order_with_their_labels(workers: Workers) -> None:
    calls = ((number, partial(pow, number, 2)) for number in range(100))

    assert list(run_ahead(workers, calls)) == [(number, number**2) for number in range(100)]


def test_only_a_few_are_begun_ahead(workers: Workers) -> None:
    """So few results are in memory, and an endless source is no problem."""
    begun = 0

    def endless() -> Iterator[tuple[int, Callable[[], int]]]:
        nonlocal begun
        while True:
            begun += 1
            yield begun, partial(int, begun)

    results = run_ahead(workers, endless())
    assert [next(results) for _ in range(10)] == [(number, number) for number in range(1, 11)]
    assert begun <= 10 + 2 * workers.size


def test_an_error_is_raised_and_what_was_begun_is_waited_for(workers: Workers) -> None:
    """No call is left running."""
    running = threading.Semaphore(0)
    ended = []

    def slow() -> None:
        running.acquire(timeout=0.05)
        ended.append(1)

    def fail() -> None:
        raise ValueError("no")

    calls: list[tuple[int, Callable[[], None]]] = [(0, fail), *((number, slow) for number in range(1, 4))]
    with pytest.raises(ValueError, match="no"):
        list(run_ahead(workers, calls))
    count = len(ended)
    workers.close()
    assert len(ended) == count


def test_one_may_feed_another_of_the_same_pool(workers: Workers) -> None:
    """As the indexes of blobs feed the reads of their chunks."""
    first = run_ahead(workers, ((number, partial(range, number)) for number in range(10)))
    second = run_ahead(workers, ((item, partial(int, item)) for _, items in first for item in items))

    assert [value for _, value in second] == [item for number in range(10) for item in range(number)]
