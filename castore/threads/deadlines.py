"""Calls that are waited for no longer than a deadline, whatever hangs beneath them.

Python cannot stop a thread that waits for a disk or a peer. So a call that may hang runs on a daemon thread
of its own kind, never on the shared pool of `castore.threads.pool`, and the caller waits for it up to the
deadline. After that the call is *abandoned*: its thread goes on until the call returns, which may be never.
Then what it returned is handed to its `late` function, which releases it (closes a reader, aborts a writer),
and what it raised is forgotten. What an abandoned call has begun may therefore still happen.

The threads are bounded in number. While all of them are held by abandoned calls, new calls are refused at
once: something that hangs costs a few threads and then no more time. Being daemons, they do not keep the
process from ending. What a call gives to the shared pool is beyond the reach of this module; there the rule
that waiters take tasks back keeps others moving.

Where no thread can be had, as at the end of the interpreter, a call runs where it is made, as one without a
deadline does. In a child of a fork the calls of the parent have no end: who waits for one is told so.

A call without a deadline runs where it is made, and costs one comparison.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from castore.errors import UnavailableError
from castore.threads import forks
from castore.threads.waiting import Flag

T = TypeVar("T")

_THREADS: Final = 64
"""As many as the widest pool of `castore.threads.pool` has, so that none of its tasks waits for another."""


class Clock:
    """The time, waiting for it, and what goes on meanwhile. Tests and simulations have others."""

    patience: float = 10.0
    """After so many seconds without work a thread ends."""

    def now(self) -> float:
        """Return the seconds since some moment; it never goes back."""
        return time.monotonic()

    def wait(self, event: Flag, seconds: float | None) -> bool:
        """Wait until *event* is set, at most so many *seconds*; return whether it is."""
        return event.wait(seconds)

    def start(self, work: Callable[[], object], name: str) -> None:
        """Let a thread of this name do *work*; the end of the process does not wait for it.

        Raises `RuntimeError` if there can be none.
        """
        threading.Thread(target=work, name=name, daemon=True).start()


CLOCK: Final = Clock()
"""The real one."""


class Pending(Generic[T]):
    """A call on its way, in the context of who began it. It is collected, or given up, by one thread."""

    __slots__ = (
        "_call", "_context", "_done", "_error", "_generation", "_late", "_owner", "_then", "_value",
        "abandoned", "running",
    )  # fmt: skip

    def __init__(
        self,
        owner: Deadlines,
        call: Callable[[], T],
        late: Callable[[T | None], object] | None,
        then: Callable[[], object] | None,
    ) -> None:
        self._owner = owner
        self._call: Callable[[], T] | None = call
        self._context = contextvars.copy_context()
        self._late = late
        self._then = then
        self._done = Flag()
        self._generation = forks.generation()
        self._value: Any = None
        self._error: BaseException | None = None
        self.running = False
        self.abandoned = False

    @property
    def done(self) -> bool:
        """Whether the call has returned, or raised."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> T:
        """Return what the call returned, or raise what it raised.

        Raises `UnavailableError`, and abandons the call, if it takes longer than *timeout* seconds, or is one
        of the process that has forked this one.
        """
        if self._generation != forks.generation() and not self.done:
            raise UnavailableError(self._owner.name, "the call was begun before this process was forked")
        try:
            in_time = self._owner.clock.wait(self._done, timeout)
        except BaseException:
            self.abandon()
            raise
        if not in_time and self.abandon():
            raise UnavailableError(self._owner.name, f"no answer within {timeout:g} s")
        error = self._error
        try:
            if error is not None:
                raise error
            value: T = self._value
            return value
        finally:
            # The traceback of an error refers to this frame: without this they would keep each other.
            del self, error

    def wait(self, seconds: float) -> bool:
        """Return whether the call has ended within so many seconds; it is not given up."""
        try:
            return self._owner.clock.wait(self._done, seconds)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> bool:
        """Give the call up; return False if it has ended after all, so that it can be collected."""
        return self._owner._abandon(self)  # noqa: SLF001 - one thing in two classes

    def _run(self) -> None:
        call, self._call = self._call, None
        assert call is not None
        try:
            self._value = self._context.run(call)
        except BaseException as error:  # noqa: BLE001 - it travels on to who waits for it
            self._error = error
        del call
        self._owner._end(self)  # noqa: SLF001 - as above

    def _settle(self, *, abandoned: bool) -> None:
        if abandoned:
            value, self._value, self._error = self._value, None, None
            if self._late is not None:
                with contextlib.suppress(Exception):
                    self._late(value)
        elif self._then is not None:
            self._then()


class Deadlines:
    """The threads for calls to one thing that may hang.

    Arguments:
        name: Names the thing in errors.
        threads: How many calls there may be at a time, abandoned ones among them. More wait for a thread, and
            the wait counts for their deadline.
        clock: What the waiting is done with.
    """

    def __init__(self, name: str, *, threads: int = _THREADS, clock: Clock = CLOCK) -> None:
        self.name = name
        self.clock = clock
        self._most = threads
        self._closed = False
        # Only the threads enter the condition: an interrupt in there could leave the lock with nobody.
        self._lock = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Forget threads and calls, in a child: they have stayed behind."""
        self._changed = threading.Condition(self._lock)
        self._jobs: deque[Pending[Any]] = deque()
        self._threads = 0
        self._idle = 0
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """How many abandoned calls have not returned yet."""
        return self._abandoned

    def call(
        self,
        call: Callable[[], T],
        timeout: float | None,
        *,
        late: Callable[[T | None], object] | None = None,
    ) -> T:
        """Return what *call* returns, waiting for it no longer than *timeout* seconds; `None`: without end.

        *late* is given what an abandoned call has returned in the end, `None` if it raised.

        Raises what the call raises, and `UnavailableError` when the time is over.
        """
        if timeout is None:
            return call()
        return self.start(call, late=late).result(timeout)

    def start(
        self,
        call: Callable[[], T],
        *,
        late: Callable[[T | None], object] | None = None,
        then: Callable[[], object] | None = None,
    ) -> Pending[T]:
        """Let a thread run *call*; *then* is called when it has ended and was not abandoned.

        Raises `UnavailableError` if all threads are held by abandoned calls.
        """
        pending = Pending(self, call, late, then)
        here = False
        with self._lock:
            if self._abandoned >= self._most:
                raise UnavailableError(self.name, f"{self._abandoned} calls have not returned yet")
            self._jobs.append(pending)
            if self._idle >= len(self._jobs):
                self._changed.notify()
            elif self._threads < self._most and not self._start_thread() and not self._threads:
                self._jobs.remove(pending)
                here = pending.running = True
        if here:
            pending._run()  # noqa: SLF001 - one thing in two classes
        return pending

    def _start_thread(self) -> bool:
        try:
            self.clock.start(self._work, f"castore-deadline-{self.name}")
        except RuntimeError:
            return False  # As many run as may, or the interpreter is about to end.
        self._threads += 1
        return True

    def close(self) -> None:
        """End the threads that have nothing to do, and each other one when its call returns."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while (pending := self._next()) is not None:
            pending._run()  # noqa: SLF001 - one thing in two classes
            del pending

    def _next(self) -> Pending[Any] | None:
        with self._changed:
            while True:
                while self._jobs:
                    pending = self._jobs.popleft()
                    if not pending.abandoned:
                        pending.running = True
                        return pending
                self._idle += 1
                woken = not self._closed and self._changed.wait(self.clock.patience)
                self._idle -= 1
                if not woken and not self._jobs:
                    self._threads -= 1
                    return None

    def _abandon(self, pending: Pending[Any]) -> bool:
        with self._lock:
            if pending.done or pending.abandoned:
                return not pending.done
            pending.abandoned = True
            if pending._generation != forks.generation():  # noqa: SLF001 - one thing in two classes
                return True  # The other process releases what it was to work on.
            if pending.running:
                self._abandoned += 1
            else:
                self._jobs.remove(pending)
        if not pending.running:
            # It never began; what it was to work on is released all the same.
            pending._settle(abandoned=True)  # noqa: SLF001 - as above
        return True

    def _end(self, pending: Pending[Any]) -> None:
        with self._lock:
            abandoned = pending.abandoned
            if abandoned:
                self._abandoned -= 1
            else:
                pending._done.set()  # noqa: SLF001 - as above
        pending._settle(abandoned=abandoned)  # noqa: SLF001 - as above
