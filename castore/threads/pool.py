"""Parallel work on a bounded pool of threads, such that no wait can deadlock.

A task may need another task of the same pool: a cache's reader, running in the pool, reads chunks from a
chunked far store. If all threads waited for tasks that no thread is left to start, nothing would ever
move. So whoever waits for a task that has not started takes it back and runs it on the spot. Every wait
is then for a task that is running, and the chain of waits ends at one that works. This holds at any pool
size; with size 0 every task runs where it is waited for, which is the sequential program.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Final, Generic, TypeVar

A = TypeVar("A")
T = TypeVar("T")


_WIDE: Final = 64
"""Threads of a pool whose tasks mostly wait: what they wait for is busy with as many at least."""


_KEPT: Final = 4 << 20
"""Up to about twice as many bytes of freed memory stay with the process."""


class Task(Generic[T]):
    """One call given to `Pool.submit`. Wait for it from one thread only."""

    __slots__ = ("_call", "_future")

    def __init__(self, call: Callable[[], T], future: Future[T] | None) -> None:
        self._call = call
        self._future = future

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._future is not None and self._future.done()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised; run it here if it has not started."""
        future = self._future
        if future is None or future.cancel():
            future = self._future = _run(self._call)
        try:
            return future.result()
        finally:
            # The traceback of an error refers to this frame: without this they would keep each other,
            # and the bytes that the call works on.
            del self, future

    def drop(self) -> None:
        """Take the task back if it has not started, else wait for its end; ignore what came of it."""
        if self._future is not None and not self._future.cancel():
            self._future.exception()


def _take_first(tasks: deque[Task[T]]) -> T:
    # The task stays among them until it has ended, so that an interrupted wait drops it with the others.
    value = tasks[0].result()
    tasks.popleft()
    return value


def _run(call: Callable[[], T]) -> Future[T]:
    done: Future[T] = Future()
    try:
        done.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it travels on, as from a thread of the pool
        done.set_exception(error)
    try:
        return done
    finally:
        del done  # as above


def _keep_freed_memory() -> None:
    """Have the memory of chunks that are done with used again for the next ones.

    glibc gives what is freed back to the system, and fresh pages cost a tenth of the time of reading a blob.
    The largest block that was ever freed tells it how much to keep (mallopt(3), "dynamic mmap threshold").
    This one is never touched, so it takes no memory itself.
    """
    bytearray(_KEPT)


class Pool:
    """A pool of at most *size* threads (0 and up; by default one per core), started when first needed."""

    def __init__(self, size: int | None = None) -> None:
        self.size = (os.cpu_count() or 1) if size is None else size
        if self.size < 0:
            raise ValueError(f"a pool cannot have {size} threads")
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._inside = threading.local()
        """Has an attribute `pool` in the threads of the pool."""
        self._io_pool: Pool | None = None

    @property
    def io_pool(self) -> Pool:
        """A pool beside this one for tasks that mostly wait, as for a network, with many more threads.

        It is closed with this one; that of a pool of size 0 is the pool itself.
        """
        with self._lock:
            if self._io_pool is None:
                self._io_pool = Pool(_WIDE) if 0 < self.size < _WIDE else self
            return self._io_pool

    def submit(self, call: Callable[[], T]) -> Task[T]:
        """Let a thread of the pool run *call* as soon as one is free."""
        if not self.size:
            return Task(call, None)
        with self._lock:
            # Under the lock, so that `close` cannot end the pool in between.
            if self._executor is None:
                _keep_freed_memory()
                self._executor = ThreadPoolExecutor(
                    self.size,
                    thread_name_prefix="castore",
                    initializer=setattr,
                    initargs=(self._inside, "pool", True),
                )
            return Task(call, self._executor.submit(call))

    def map(
        self, call: Callable[[A], T], arguments: Iterable[A], *, most: int | None = None
    ) -> Generator[T, None, None]:
        """Yield what *call* returns for each of *arguments*, in order; several are run at once.

        Some are started ahead of the one that is waited for, with it no more than *most*; what was started
        and is not needed any more is dropped.
        """
        useful = 2 * self.size + 1
        most = useful if most is None else min(most, useful)
        remaining = iter(arguments)
        started: deque[Task[T]] = deque()
        try:
            while True:
                for argument in islice(remaining, most - len(started)):
                    started.append(self.submit(partial(call, argument)))
                if not started:
                    return
                yield _take_first(started)
        finally:
            for task in started:
                task.drop()

    def close(self) -> None:
        """Wait for running tasks and end the threads. The pool starts anew if it is used again.

        Called by one of its own threads, as when a task was the last to know a service, it does not wait.
        """
        with self._lock:
            executor, self._executor = self._executor, None
            io_pool = self._io_pool
        if io_pool is not None and io_pool is not self:
            io_pool.close()
        if executor is not None:
            executor.shutdown(wait=not hasattr(self._inside, "pool"))


class _ProcessPool:
    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the pool, in a child: its threads have stayed behind, and one of them may have the lock."""
        self._lock = threading.Lock()
        self._pool: Pool | None = None

    def get(self) -> Pool:
        with self._lock:
            if self._pool is None:
                self._pool = Pool()
            return self._pool


_of_process: Final = _ProcessPool()
os.register_at_fork(after_in_child=_of_process.begin_anew)


def process_pool() -> Pool:
    """Return the pool of this process, for work that has been given no other; made when first asked for."""
    return _of_process.get()


def start_thread(work: Callable[[], object], name: str) -> bool:
    """Let a thread of its own do *work*, whose end the end of the process waits for.

    Returns False if none can be started: as many run as may, or the interpreter is about to end.
    """
    try:
        threading.Thread(target=work, name=name).start()
    except RuntimeError:
        return False
    return True
