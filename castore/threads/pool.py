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
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from castore.threads import forks
from castore.threads.waiting import Flag, seconds_for_others

A = TypeVar("A")
T = TypeVar("T")


_WIDE: Final = 64
"""Threads of a pool whose tasks mostly wait: what they wait for is busy with as many at least."""


_KEPT: Final = 4 << 20
"""Up to about twice as many bytes of freed memory stay with the process."""

_WAITING: Final = 0
_RUNNING: Final = 1
"""By a thread of the pool; only such a one is waited for."""
_TAKEN: Final = 2
"""By who waits for it, or drops it: for nobody else, also if an interrupt kept him from doing it."""
_ENDED: Final = 3


class Task(Generic[T]):
    """One call given to `Pool.submit`. Wait for it from one thread only.

    What a thread of the pool is at when the process is forked has no end in the child: who waits for it there
    does it anew.
    """

    __slots__ = ("_call", "_ended", "_error", "_generation", "_lock", "_state", "_value")

    def __init__(self, call: Callable[[], T]) -> None:
        self._call: Callable[[], T] | None = call
        self._lock = threading.Lock()
        self._state = _WAITING
        self._generation = forks.generation()
        self._ended = Flag()
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._state == _ENDED

    def result(self) -> T:
        """Return what the call returned, or raise what it raised; run it here if it has not started."""
        try:
            if self._take_back():
                self._do()
            else:
                self._ended.wait()
            if self._error is not None:
                raise self._error
            value: T = self._value
            return value
        finally:
            # The traceback of an error refers to this frame: without this they would keep each other,
            # and the bytes that the call works on.
            del self

    def forget(self) -> None:
        """Let go of what the call returned, which somebody has by now.

        A thread of the pool that is at something long finds the task, which was done elsewhere, much later.
        """
        self._value = None

    def drop(self) -> None:
        """Take the task back if it has not started, else wait for its end; ignore what came of it.

        It is left behind if the wait takes long after an interrupt: see `seconds_for_others`.
        """
        if self._take_back():
            self._call = None
        else:
            self._ended.wait(seconds_for_others())

    def _take_back(self) -> bool:
        """Have the task for oneself, unless a thread of the pool is at it, or it has ended."""
        if self._generation != forks.generation():
            if self._state == _ENDED:
                return False
            self._generation, self._lock = forks.generation(), threading.Lock()
            self._state = _TAKEN
        with self._lock:
            if self._state == _WAITING:
                self._state = _TAKEN
            return self._state == _TAKEN

    def run(self) -> None:
        """Do it, unless somebody has taken it back; for the threads of the pool."""
        with self._lock:
            if self._state != _WAITING:
                return
            self._state = _RUNNING
        self._do()
        del self  # as above

    def _do(self) -> None:
        call = self._call
        if call is None:
            return  # Dropped.
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001 - it travels on to who waits for it
            self._error = error
        self._call = None
        self._state = _ENDED
        self._ended.set()
        del self, call  # as above


def _take_first(tasks: deque[Task[T]]) -> T:
    # The task stays among them until it has ended, so that an interrupted wait drops it with the others.
    value = tasks[0].result()
    tasks.popleft().forget()
    return value


def _keep_freed_memory() -> None:
    """Have the memory of chunks that are done with used again for the next ones.

    glibc gives what is freed back to the system, and fresh pages cost a tenth of the time of reading a blob.
    The largest block that was ever freed tells it how much to keep (mallopt(3), "dynamic mmap threshold").
    This one is never touched, so it takes no memory itself.
    """
    bytearray(_KEPT)


_END: Final = None
"""Among the tasks: the thread that comes upon it ends, and leaves it for the next one."""


class _Workers:
    """The threads of a pool, from its first task to its closing.

    They are daemons: what hangs after an interrupt must not keep the process from ending. What is still to be
    done when the interpreter ends is waited for by nobody.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[Task[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0

    def add(self, task: Task[Any]) -> None:
        """Let a thread do a task, if one can be had; else it is done where it is waited for."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._size and (self._start_one(task) or not self._threads):
                return
            self._tasks.put(task)

    def _start_one(self, task: Task[Any]) -> bool:
        """Start a thread that begins with this task: it need not wait for the lock."""
        thread = threading.Thread(
            target=self._work, args=([task],), name=f"castore_{len(self._threads)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return False  # As many run as may, or the interpreter is about to end.
        self._threads.append(thread)
        return True

    def _work(self, first: list[Task[Any]]) -> None:
        task: Task[Any] | None = first.pop()  # The thread keeps what it is started with.
        while task is not _END:
            task.run()
            del task
            task = self._next()
        self.end()

    def _next(self) -> Task[Any] | None:
        with self._lock:
            try:
                return self._tasks.get_nowait()
            except Empty:
                self._idle += 1
        return self._tasks.get()

    def end(self) -> None:
        """Let the threads end when they have done what there is to do."""
        self._tasks.put(_END)

    def join(self) -> None:
        """Wait until they have ended; one of them does not wait."""
        if threading.current_thread() not in self._threads:
            for thread in self._threads:
                thread.join(seconds_for_others())


class Pool:
    """A pool of at most *size* threads (0 and up; by default one per core), started when first needed.

    Where no thread can be had, as at the end of the interpreter, tasks are done by those who wait for them.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = (os.cpu_count() or 1) if size is None else size
        if self.size < 0:
            raise ValueError(f"a pool cannot have {size} threads")
        self._lock = forks.new_lock()
        self._workers: _Workers | None = None
        self._unused: weakref.finalize[..., Pool] | None = None
        """Ends the threads of a pool that nobody knows any more, and has not closed."""
        self._io_pool: Pool | None = None
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Forget the threads, in a child: they have stayed behind."""
        self._workers = None

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
        task = Task(call)
        if self.size:
            with self._lock:
                # Under the lock, so that `close` cannot end the threads in between.
                if self._workers is None:
                    _keep_freed_memory()
                    self._workers = _Workers(self.size)
                    self._unused = weakref.finalize(self, self._workers.end)
                    self._unused.atexit = False
                self._workers.add(task)
        return task

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
            workers, self._workers = self._workers, None
            if self._unused is not None:
                self._unused.detach()
            io_pool = self._io_pool
        if io_pool is not None and io_pool is not self:
            io_pool.close()
        if workers is not None:
            workers.end()
            workers.join()


class _ProcessPool:
    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self._pool: Pool | None = None

    def get(self) -> Pool:
        with self._lock:
            if self._pool is None:
                self._pool = Pool()
            return self._pool


_of_process: Final = _ProcessPool()


def process_pool() -> Pool:
    """Return the pool of this process, for work that has been given no other; made when first asked for."""
    return _of_process.get()


def start_thread(work: Callable[[], object], name: str, *, waited_for: bool = True) -> bool:
    """Let a thread of its own do *work*; the end of the process waits for it, if it is *waited_for*.

    Returns False if none can be started: as many run as may, or the interpreter is about to end.
    """
    try:
        threading.Thread(target=work, name=name, daemon=not waited_for).start()
    except RuntimeError:
        return False
    return True
