"""The threads that the work of an async program runs on, and how its calls are waited for, or given up.

They are none of the pool of a composition, whose tasks must never wait behind callers that wait for them. A
call holds its thread until it returns. Python cannot stop it: a cancelled wait *gives the call up*, returns
at once, and tells the work to stop at its next step (`castore.aio.stopping`). What a call that was given up
has opened is released when it returns, on its thread. One that hangs keeps its thread, so the threads are
bounded in number; being daemons they do not keep the process from ending.

Calls begin in the order in which they were made. Any number of event loops may share the threads. Where no
thread can be had, as at the end of the interpreter, a call is made by the loop's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from castore.aio.stopping import Stop
from castore.errors import ClosedError
from castore.threads import forks

T = TypeVar("T")

THREADS: Final = 32
"""How many calls run at the same time, if nothing else is said."""

GRACE: Final = 5.0
"""How many seconds the closing waits for calls that have not returned, if nothing else is said."""

_IDLE: Final = 10.0
"""After so many seconds without work a thread ends."""


class _Waiter:
    """Somebody on a loop who is woken from a thread."""

    __slots__ = ("_loop", "future")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> bool:
        """Let the loop go on with who waits; return False if that loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._woken)
        except RuntimeError:
            return False
        return True

    def _woken(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class _Call(Generic[T]):
    """One call: queued, running, then over. `waiter` is `None` if nobody waits for it."""

    __slots__ = ("_context", "call", "error", "given_up", "insists", "late", "over", "value", "waiter")

    def __init__(
        self,
        call: Callable[[], T],
        waiter: _Waiter | None,
        *,
        late: Callable[[T | None], object] | None = None,
        insists: bool = False,
    ) -> None:
        self.call: Callable[[], T] | None = call
        self.waiter = waiter
        self.late = late
        self.insists = insists
        self.over = False
        self.given_up = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._context = contextvars.copy_context()

    def run(self) -> None:
        call, self.call = self.call, None
        assert call is not None
        try:
            self.value = self._context.run(call)
        except BaseException as error:  # noqa: BLE001 - it travels on to who waits for it
            self.error = error

    def result(self) -> T:
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            value: T = self.value
            return value
        finally:
            # The traceback of an error refers to this frame: without this they would keep each other.
            del self, error

    def release(self) -> None:
        """Release what the call opened, or was to work on; what it raised is forgotten."""
        value, self.value, self.error = self.value, None, None
        if self.late is not None:
            with contextlib.suppress(Exception):
                self.late(value)


class Threads:
    """Runs calls for coroutines.

    Arguments:
        most: How many calls run at the same time, at least 1. More wait for a thread, in order.
        grace: How many seconds `close` waits for calls that have not returned.
    """

    def __init__(self, most: int = THREADS, *, grace: float = GRACE) -> None:
        if most < 1:
            raise ValueError(f"there must be a thread to run calls on, not {most}")
        self._most = most
        self._grace = grace
        self._closing = self._ended = False
        # Only the threads enter the condition: an interrupt in there could leave the lock with nobody.
        self._lock = forks.new_lock()
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Have no threads and no calls, in a child of a fork: they stayed behind, as their loops did."""
        self._changed = threading.Condition(self._lock)
        self._calls: OrderedDict[_Call[Any], None] = OrderedDict()
        self._members: set[threading.Thread] = set()
        self._idle = 0
        self._running: set[threading.Thread] = set()
        self._quiet: _Waiter | None = None
        """Woken when no call is queued or running."""

    async def run(
        self,
        call: Callable[[], T],
        *,
        stop: Stop | None = None,
        late: Callable[[T | None], object] | None = None,
        insist: bool = False,
    ) -> T:
        """Return what *call* returns on a thread, or raise what it raises.

        Arguments:
            call: It sees the context variables of the caller.
            stop: Is set when the wait is cancelled.
            late: Called on a thread after the call was given up: with what it returned in the end, `None` if
                it raised, or never began.
            insist: Whether it is made in any case: after `close`, and also if the wait for it is cancelled.

        Raises `ClosedError` after `close`.
        """
        waiter = _Waiter()
        made = _Call(call, waiter, late=late, insists=insist)
        self._add(made)
        try:
            await waiter.future
        except BaseException:
            if not insist:
                if stop is not None:
                    stop.set()
                self._give_up(made)
            raise
        try:
            return made.result()
        finally:
            del made  # as in `result`

    def post(self, call: Callable[[], object]) -> None:
        """Let a thread run *call*, and do not wait for it; what it raises is forgotten."""
        self._add(_Call(call, None, insists=True))

    async def close(self, last: Callable[[], object] | None = None) -> None:
        """Wait for the calls that are under way; then call *last* on a thread, and end the threads.

        Calls that have not returned after the grace time are left behind, those that have not begun raise
        `ClosedError`. Also if the wait is cancelled *last* is called, and the threads end. Closing again does
        nothing.

        Raises what *last* raises.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
        try:
            await self._until_quiet()
        finally:
            self._refuse()
            try:
                if last is not None:
                    # What hangs may hold all threads: this one call may have one more.
                    self._most += 1
                    await self.run(last, insist=True)
            finally:
                self._end_threads()

    # -- waiting, on a loop --

    def _give_up(self, made: _Call[Any]) -> None:
        with self._lock:
            made.given_up = True
            if made in self._calls:
                del self._calls[made]
                self._tell_if_quiet()
            elif not made.over:
                return  # Its thread sees to the rest.
        made.call = None
        if made.late is not None:
            self.post(made.release)

    async def _until_quiet(self) -> None:
        with self._lock:
            self._quiet = quiet = _Waiter()
            self._tell_if_quiet()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await quiet.future

    def _tell_if_quiet(self) -> None:
        if self._quiet is not None and not self._calls and not self._running:
            self._quiet.wake()
            self._quiet = None

    def _refuse(self) -> None:
        with self._lock:
            refused = [made for made in self._calls if not made.insists]
            for made in refused:
                del self._calls[made]
                made.over = True
        for made in refused:
            made.call = None
            made.error = ClosedError("it was closed before the call began")
            if made.waiter is not None:
                made.waiter.wake()

    def _end_threads(self) -> None:
        with self._lock:
            self._ended = True
            self._changed.notify_all()
            idle = set() if self._calls else self._members - self._running
        for thread in idle:
            thread.join()  # They have nothing left to do but to end.

    # -- working, on the threads --

    def _add(self, made: _Call[Any]) -> None:
        with self._lock:
            if self._closing and not made.insists:
                raise ClosedError("it is closed; open it again to use it")
            here = False
            if self._idle > len(self._calls):
                self._changed.notify()
            elif len(self._members) < self._most and not self._start_thread() and not self._members:
                here = True
            if not here:
                self._calls[made] = None
        if here:
            made.run()
            self._end(made)

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._work, name="castore-aio", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False  # As many run as may, or the interpreter is about to end.
        self._members.add(thread)
        return True

    def _work(self) -> None:
        while (made := self._next()) is not None:
            made.run()
            self._end(made)
            del made

    def _next(self) -> _Call[Any] | None:
        me = threading.current_thread()
        with self._lock:
            self._running.discard(me)
            self._tell_if_quiet()
            while not self._calls:
                self._idle += 1
                woken = not self._ended and self._changed.wait(_IDLE)
                self._idle -= 1
                if not woken and not self._calls:
                    self._members.discard(me)
                    return None
            self._running.add(me)
            return self._calls.popitem(last=False)[0]

    def _end(self, made: _Call[Any]) -> None:
        with self._lock:
            made.over = True
            given_up = made.given_up
            if not given_up:
                # Before who waits for it goes on, and may close.
                self._running.discard(threading.current_thread())
        if given_up or (made.waiter is not None and not made.waiter.wake()):
            made.release()
