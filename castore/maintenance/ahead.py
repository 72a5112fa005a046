"""Many calls on a pool, a bounded number of them ahead of the one whose result is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from castore.workers import Task, Workers

K = TypeVar("K")
T = TypeVar("T")

_PER_THREAD = 2


def run_ahead(workers: Workers, calls: Iterable[tuple[K, Callable[[], T]]]) -> Iterator[tuple[K, T]]:
    """Yield the results of *calls*, each with its label, in order; raises what a call raises.

    Two calls per thread are begun before they are waited for, so that is how many results are kept at most.
    *calls* may be endless, and may itself wait for tasks of the same pool.
    """
    ahead: deque[tuple[K, Task[T]]] = deque()
    try:
        for label, call in calls:
            ahead.append((label, workers.submit(call)))
            if len(ahead) > _PER_THREAD * workers.size:
                yield _settled(ahead)
        while ahead:
            yield _settled(ahead)
    finally:
        for _, task in ahead:
            task.drop()


def _settled(ahead: deque[tuple[K, Task[T]]]) -> tuple[K, T]:
    label, task = ahead.popleft()
    return label, task.result()
