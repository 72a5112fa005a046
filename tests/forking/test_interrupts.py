"""Interrupted anywhere: the next call works, for this process and for others, though the traceback lives on.

A notebook keeps the traceback of the last error, and with it all that its frames hold.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from forked_stacks import KEEPS_IN_MEMORY, STACKS, tables
from interrupting import Points, in_time

from castore import B3Digest, Composition
from castore_objectstore.flushing import Flusher
from castore_sqlite.group_commit import GroupCommit, Transaction

SIZE: Final = 120_000
OPERATIONS: Final = ("put", "get", "has", "close")

IN_CI: Final = {
    "memory": 20,
    "files": 40,
    "sqlite": 40,
    "lru-files": 50,
    "cache-behind": 40,
    "cache-both": 20,
    "mirror-timed": 40,
    "fallback": 20,
    "limit": 30,
}
"""300 points, most of them where there is most to be left half done."""


class Sweep:
    """A service that is interrupted again and again."""

    def __init__(self, stack: str, base: Path) -> None:
        self._stack = stack
        self._base = base
        base.mkdir()
        self._dice = random.Random(7)
        self._known = self._new_data()
        self._data = b""
        self._stores = self._open()

    def _open(self) -> Composition:
        stores = Composition.from_mapping(tables(self._stack), base=self._base)
        stores.blobs().write(self._known)
        return stores

    def _new_data(self) -> bytes:
        return self._dice.randbytes(SIZE)

    def _call(self, operation: str) -> Callable[[], object]:
        blobs, known, data = self._stores.blobs(), B3Digest.of(self._known), self._data
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: blobs.write(data),
            "get": lambda: blobs.read(known),
            "has": lambda: blobs.missing([known, B3Digest.of(data)]),
            "close": self._stores.close,
        }
        return calls[operation]

    def count(self, operation: str) -> int:
        """Return how many points there are."""
        points = Points()
        self._prepare(operation)
        assert points.run(self._call(operation)) is None
        self._go_on(operation)
        return points.count

    def interrupt(self, operation: str, at: int) -> None:
        """Interrupt one of them; fail unless all works afterwards."""
        points = Points(at)
        self._prepare(operation)
        error = points.run(self._call(operation))
        ended = error is None and (not points.where or points.quiet)
        assert ended or isinstance(error, KeyboardInterrupt), (points.where, error)
        try:
            with in_time():
                self._go_on(operation)
        except BaseException as wrong:
            raise AssertionError(f"{operation} of {self._stack}, interrupted at {points.where}") from wrong

    def _prepare(self, operation: str) -> None:
        self._data = self._new_data()
        if operation == "close":
            self._stores.blobs().write(self._data)

    def _go_on(self, operation: str) -> None:
        if operation == "close":
            self._stores.close()
            self._stores = self._open()
        blobs = self._stores.blobs()
        for data in (self._data, self._known, self._dice.randbytes(100)):
            assert blobs.write(data) == B3Digest.of(data)
            assert blobs.read(B3Digest.of(data)) == data
        if self._stack not in KEEPS_IN_MEMORY:
            with Composition.from_mapping(tables(self._stack), base=self._base) as other:
                other.blobs().write(self._dice.randbytes(100))
                assert other.blobs().read(B3Digest.of(self._known)) == self._known

    def close(self) -> None:
        self._stores.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """An upload that was interrupted is told in the log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def spread(counts: dict[str, int], most: int) -> Iterator[tuple[str, int]]:
    """Yield so many points of all operations, evenly."""
    points = [(operation, at) for operation, count in counts.items() for at in range(1, count + 1)]
    step = max(len(points) / most, 1.0)
    for number in range(min(most, len(points))):
        yield points[int(number * step + step / 2)]


ROUND: Final = 400
"""After so many points the store is another one: all of a grown one is read each time that one is opened."""


def sweep(stack: str, base: Path, most: int) -> None:
    swept = Sweep(stack, base / "0")
    counts = {operation: swept.count(operation) for operation in OPERATIONS}
    for number, (operation, at) in enumerate(spread(counts, most), 1):
        swept.interrupt(operation, at)
        if number % ROUND == 0:
            swept.close()
            swept = Sweep(stack, base / str(number))
    swept.close()


@pytest.mark.parametrize("stack", IN_CI)
def test_some_points(stack: str, tmp_path: Path) -> None:
    sweep(stack, tmp_path, IN_CI[stack])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stack", STACKS)
def test_each_point(stack: str, tmp_path: Path) -> None:
    sweep(stack, tmp_path, 1_000_000)


# -- who waits for the one that was interrupted --


@pytest.mark.parametrize("kind", ["flush", "commit"])
def test_another_does_it_where_the_one_is_interrupted_that_does_it_for_all(kind: str) -> None:
    """It is never said to be done, though nobody has done it."""
    begun, go = threading.Event(), threading.Event()
    done: list[str] = []

    def work(*_: object) -> None:
        if not begun.is_set():
            begun.set()
            assert go.wait(60)
            raise KeyboardInterrupt
        done.append(threading.current_thread().name)

    if kind == "flush":
        flusher = Flusher()
        flusher._syncfs = work
        flusher._descriptors = {1: 1}
        call: Callable[[], object] = flusher.flush
    else:
        group = GroupCommit(work)
        call = lambda: group.commit({B3Digest.of(b"x"): ()})  # noqa: E731 - one of two
    errors: list[BaseException] = []

    def first() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    leader = threading.Thread(target=first, name="leader")
    leader.start()
    assert begun.wait(60)
    follower = threading.Thread(target=call, name="follower")
    follower.start()
    go.set()
    leader.join(60)
    follower.join(60)
    assert [type(error) for error in errors] == [KeyboardInterrupt]
    assert done == ["follower"]


def test_chunks_of_a_commit_that_was_interrupted_wait_for_the_next() -> None:
    """Another writer may count on them."""
    digest = B3Digest.of(b"x")
    committed: list[Transaction] = []

    def commit(transaction: Transaction) -> None:
        if not committed:
            committed.append(transaction)
            raise KeyboardInterrupt
        committed.append(transaction)

    group = GroupCommit(commit)
    group.add({digest: b"frame"})
    with pytest.raises(KeyboardInterrupt):
        group.commit({})
    assert group.find_all([digest]) == {digest: b"frame"}
    group.commit({})
    assert committed[1].frames == {digest: b"frame"}
