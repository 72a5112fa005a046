"""Calls of coroutines on threads: in order, bounded in number, given up and released, on any loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

import attrs
import pytest

from castore.aio import Threads
from castore.aio.stopping import Stop, Stopped
from castore.errors import ClosedError


@attrs.define
class Hang:
    """A call that does not return before it is released."""

    value: str = "late"
    begun: threading.Event = attrs.field(factory=threading.Event)
    released: threading.Event = attrs.field(factory=threading.Event)

    def __call__(self) -> str:
        self.begun.set()
        assert self.released.wait(30)
        return self.value

    async def begin(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 30)


async def cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def set_soon(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


def test_a_call_runs_on_a_thread_with_the_callers_context(drive: Callable) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def main() -> None:
        threads = Threads()
        variable.set("seen")
        assert await threads.run(variable.get) == "seen"
        assert await threads.run(threading.get_ident) != threading.get_ident()
        await threads.close()

    drive(main())


def test_what_a_call_raises_comes_out_as_it_is(drive: Callable) -> None:
    """Also what is no `Exception`, and what a coroutine must not raise."""

    async def main() -> None:
        threads = Threads()
        for error in (KeyError("x"), asyncio.QueueEmpty(), TimeoutError(), SystemExit(3)):

            def fail(error: BaseException = error) -> None:
                raise error

            with pytest.raises(type(error)) as caught:
                await threads.run(fail)
            assert caught.value is error
        await threads.close()

    drive(main())


def test_calls_begin_in_order_on_so_many_threads(drive: Callable) -> None:
    """One thread: one after the other; no caller is passed over by later ones."""

    async def main() -> None:
        threads, hang, order = Threads(1), Hang(), []
        first = asyncio.create_task(threads.run(hang))
        await hang.begin()
        tasks = [asyncio.create_task(threads.run(lambda n=n: order.append(n))) for n in range(20)]
        await asyncio.sleep(0)
        assert order == []
        hang.released.set()
        await asyncio.gather(first, *tasks)
        assert order == list(range(20))
        await threads.close()

    drive(main())


def test_no_more_threads_than_are_allowed(drive: Callable) -> None:
    async def main() -> None:
        threads, seen = Threads(3), set()
        barrier = threading.Barrier(3)

        def call() -> None:
            seen.add(threading.get_ident())
            barrier.wait(30)

        await asyncio.gather(*(threads.run(call) for _ in range(30)))
        assert len(seen) == 3
        await threads.close()

    drive(main())


@pytest.mark.parametrize("most", [0, -1])
def test_without_threads_nothing_could_run(most: int) -> None:
    with pytest.raises(ValueError, match=f"there must be a thread to run calls on, not {most}"):
        Threads(most)


def test_a_cancelled_wait_ends_at_once_and_the_call_is_told(drive: Callable) -> None:
    """What it returns in the end is released on its thread, once."""

    async def main() -> None:
        threads, hang, stop, over = Threads(), Hang(), Stop(), threading.Event()
        late: list[tuple[str | None, str]] = []

        def release(value: str | None) -> None:
            late.append((value, threading.current_thread().name))
            over.set()

        task = asyncio.create_task(threads.run(hang, stop=stop, late=release))
        await hang.begin()
        await cancelled(task)
        assert late == []
        with pytest.raises(Stopped):
            stop.check()
        hang.released.set()
        await set_soon(over)
        assert late == [("late", "castore-aio")]
        await threads.close()
        assert len(late) == 1

    drive(main())


def test_a_call_that_has_not_begun_never_does(drive: Callable) -> None:
    """What it was to work on is released, when a thread is free, and not on the loop."""

    async def main() -> None:
        threads, hang, over = Threads(1), Hang(), threading.Event()
        first = asyncio.create_task(threads.run(hang))
        await hang.begin()
        called, late = [], []

        def release(value: None) -> None:
            late.append((value, threading.current_thread().name))
            over.set()

        task = asyncio.create_task(threads.run(lambda: called.append(1), late=release))
        await asyncio.sleep(0)
        await cancelled(task)
        hang.released.set()
        await first
        await set_soon(over)
        assert (called, late) == ([], [(None, "castore-aio")])
        await threads.close()

    drive(main())


def test_a_result_that_comes_together_with_the_cancellation_is_released(drive: Callable) -> None:
    """The call has returned, but its task is cancelled before it goes on."""

    async def main() -> None:
        threads, hang, over = Threads(), Hang(), threading.Event()
        late: list[str | None] = []

        def release(value: str | None) -> None:
            late.append(value)
            over.set()

        waiting = asyncio.create_task(threads.run(hang, late=release))
        await hang.begin()
        loop = asyncio.get_running_loop()
        hang.released.set()
        (made,) = [thread for thread in threading.enumerate() if thread.name == "castore-aio"]
        # While the loop stands still here, the call ends and asks the loop to go on with its task.
        while threads._running:
            assert made.is_alive()
        loop.call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await set_soon(over)
        assert late == ["late"]
        await threads.close()

    drive(main())


def test_an_error_that_nobody_waits_for_is_forgotten(drive: Callable) -> None:
    """The loop does not complain, and `late` is called all the same."""

    async def main() -> None:
        threads, hang, over = Threads(), Hang(), threading.Event()

        def fail() -> None:
            hang()
            raise OSError

        task = asyncio.create_task(threads.run(fail, late=lambda value: over.set()))
        await hang.begin()
        await cancelled(task)
        hang.released.set()
        await set_soon(over)
        await threads.close()

    drive(main())


def test_timeouts_work(drive: Callable) -> None:
    async def main() -> None:
        threads, hang = Threads(), Hang()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await threads.run(hang)
        hang.released.set()
        await threads.close()

    drive(main())


def test_several_loops_share_the_threads(drive: Callable) -> None:
    threads = Threads(2)
    answers: dict[int, int] = {}

    async def ask(number: int) -> None:
        for step in range(50):
            assert await threads.run(lambda step=step: number * 1000 + step) == number * 1000 + step
        answers[number] = number

    loops = [threading.Thread(target=asyncio.run, args=(ask(number),)) for number in range(6)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(30)
    assert len(answers) == 6
    drive(threads.close())


def test_what_comes_when_its_loop_is_closed_is_released(drive: Callable) -> None:
    threads, hang, over = Threads(), Hang(), threading.Event()
    loop = asyncio.new_event_loop()
    waiting = threads.run(hang, late=lambda value: over.set())
    task = loop.create_task(waiting)
    while not hang.begun.is_set():
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    hang.released.set()
    assert over.wait(30)
    task._log_destroy_pending = False
    waiting.close()
    drive(threads.close())


# -- closing --


def test_closing_waits_for_what_was_given_up(drive: Callable) -> None:
    """Then the last call is made, and the threads end."""

    async def main() -> None:
        threads, hang, order = Threads(), Hang(), []
        task = asyncio.create_task(threads.run(hang, late=lambda value: order.append("late")))
        await hang.begin()
        await cancelled(task)
        closing = asyncio.create_task(threads.close(lambda: order.append("last")))
        await asyncio.sleep(0)
        assert order == []
        hang.released.set()
        await closing
        assert order == ["late", "last"]
        with pytest.raises(ClosedError, match="open it again"):
            await threads.run(lambda: 1)
        await threads.close(lambda: order.append("again"))
        assert order == ["late", "last"]

    drive(main())


def test_what_hangs_is_left_behind_after_the_grace_time(drive: Callable) -> None:
    """Even if it holds all threads; calls that have not begun are refused."""

    async def main() -> None:
        threads, hang, order = Threads(1, grace=0), Hang(), []
        task = asyncio.create_task(threads.run(hang, late=order.append))
        await hang.begin()
        queued = asyncio.create_task(threads.run(lambda: order.append("never")))
        await asyncio.sleep(0)
        await cancelled(task)
        await threads.close(lambda: order.append("last"))
        assert order == ["last"]
        with pytest.raises(ClosedError, match="it was closed before the call began"):
            await queued
        hang.released.set()
        while order != ["last", "late"]:
            await asyncio.sleep(0)
        for thread in list(threads._members):
            thread.join(30)

    drive(main())


def test_closing_goes_on_when_its_wait_is_cancelled(drive: Callable) -> None:
    async def main() -> None:
        threads, hang, last, over = Threads(), Hang(), Hang(), threading.Event()
        task = asyncio.create_task(threads.run(hang))
        await hang.begin()
        await cancelled(task)

        def close() -> None:
            last()
            over.set()

        closing = asyncio.create_task(threads.close(close))
        await asyncio.sleep(0)
        closing.cancel()
        await last.begin()  # It does not wait for the others any more.
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not over.is_set()
        last.released.set()
        hang.released.set()
        await set_soon(over)
        for thread in list(threads._members):
            await asyncio.to_thread(thread.join, 30)

    drive(main())


def test_closing_raises_what_the_last_call_raises(drive: Callable) -> None:
    async def main() -> None:
        threads = Threads()
        await threads.run(lambda: 1)
        with pytest.raises(ZeroDivisionError):
            await threads.close(lambda: 1 // 0)

    drive(main())


def test_what_insists_is_made_after_closing_and_when_it_is_cancelled(drive: Callable) -> None:
    """As the closing of a reader."""

    async def main() -> None:
        threads, hang = Threads(), Hang()
        over = threading.Event()

        def release() -> None:
            hang()
            over.set()

        task = asyncio.create_task(threads.run(release, insist=True))
        await hang.begin()
        await cancelled(task)
        hang.released.set()
        await set_soon(over)
        await threads.close()
        assert await threads.run(lambda: "done", insist=True) == "done"
        for thread in list(threads._members):
            thread.join(30)

    drive(main())


def test_the_threads_do_not_keep_the_process() -> None:
    """They are daemons."""

    async def main() -> bool:
        threads = Threads()
        daemon = await threads.run(lambda: threading.current_thread().daemon)
        await threads.close()
        return daemon

    assert asyncio.run(main())
