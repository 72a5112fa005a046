"""Calls that hang are given up, in bounded number, and what they leave behind is released."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator

import pytest

from castore.errors import UnavailableError
from castore.threads.deadlines import Clock, Deadlines


class Impatient(Clock):
    """Waits for what comes, but where a deadline is set, it is over at once."""

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        return event.wait(0 if seconds is not None else 30)


class Hang:
    """A call that does not return before it is released."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.released = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        self.released.wait(30)
        return "late"


@pytest.fixture
def hang() -> Iterator[Hang]:
    hang = Hang()
    yield hang
    hang.released.set()


def test_without_a_deadline_a_call_runs_where_it_is_made() -> None:
    """No thread is started for it."""
    deadlines = Deadlines("disk")
    assert deadlines.call(threading.get_ident, None) == threading.get_ident()
    assert deadlines.call(threading.get_ident, 30) != threading.get_ident()


def test_what_a_call_raises_comes_out() -> None:
    deadlines = Deadlines("disk")
    for timeout in (None, 30):
        with pytest.raises(ZeroDivisionError):
            deadlines.call(lambda: 1 // 0, timeout)
    assert deadlines.call(lambda: "after it", 30) == "after it"


def test_a_call_runs_in_the_context_of_who_makes_it() -> None:
    """As for tracing: what was set there is seen by it, on whichever thread."""
    variable = contextvars.ContextVar("variable", default="unset")
    deadlines = Deadlines("disk", threads=1)
    for value in ("one", "two"):
        token = variable.set(value)
        pending = deadlines.start(variable.get)
        variable.reset(token)
        assert pending.result(30) == value


def test_the_clock_lends_the_threads() -> None:
    """A simulation runs what is started there when it likes."""

    class Later(Clock):
        patience = 0.0

        def __init__(self) -> None:
            self.works: list[tuple[str, Callable[[], object]]] = []

        def start(self, work: Callable[[], object], name: str) -> None:
            self.works.append((name, work))

    clock = Later()
    pending = Deadlines("disk", clock=clock).start(lambda: "done")
    assert not pending.done
    [(name, work)] = clock.works
    work()
    assert name == "castore-deadline-disk"
    assert pending.result() == "done"


def test_a_call_that_hangs_is_given_up(hang: Hang) -> None:
    """The error names the thing and the time; the thread is counted until the call returns."""
    deadlines = Deadlines("disk", clock=Impatient())
    pending = deadlines.start(hang)
    hang.begun.wait(30)
    with pytest.raises(UnavailableError, match=r"^`disk` is unavailable: no answer within 0.25 s$"):
        pending.result(0.25)
    assert deadlines.abandoned == 1


def test_what_an_abandoned_call_returns_is_released(hang: Hang) -> None:
    """`late` has it, once; nobody else."""
    returned: list[str | None] = []
    over = threading.Event()

    def late(value: str | None) -> None:
        returned.append(value)
        over.set()

    deadlines = Deadlines("disk", clock=Impatient())
    pending = deadlines.start(hang, late=late)
    hang.begun.wait(30)
    with pytest.raises(UnavailableError):
        pending.result(1)
    assert returned == []
    hang.released.set()
    assert over.wait(30)
    assert returned == ["late"]
    assert deadlines.abandoned == 0


def test_a_call_that_has_not_begun_never_does(hang: Hang) -> None:
    """It waits for a thread, and the wait counts; given up, it is taken back."""
    deadlines = Deadlines("disk", threads=1, clock=Impatient())
    first = deadlines.start(hang)
    hang.begun.wait(30)
    calls: list[int] = []
    with pytest.raises(UnavailableError, match="no answer within 1 s"):
        deadlines.start(lambda: calls.append(1)).result(1)
    hang.released.set()
    assert first.result() == "late"
    assert deadlines.start(lambda: "next").result() == "next"
    assert calls == []


def test_threads_are_bounded_and_then_calls_are_refused(hang: Hang) -> None:
    """What hangs costs so many threads and then no more time: it is not even tried."""
    deadlines = Deadlines("disk", threads=3, clock=Impatient())
    before = threading.active_count()
    for _ in range(3):
        hang.begun.clear()
        pending = deadlines.start(hang)
        hang.begun.wait(30)
        assert pending.abandon()
    with pytest.raises(UnavailableError, match="3 calls have not returned yet"):
        deadlines.call(lambda: 1, 30)
    assert threading.active_count() == before + 3


def test_a_thread_is_used_again() -> None:
    deadlines = Deadlines("disk", threads=1)
    assert len({deadlines.call(threading.get_ident, 30) for _ in range(20)}) == 1


def test_many_threads_share_few(hang: Hang) -> None:
    """Each gets the answer to its own call."""
    deadlines = Deadlines("disk", threads=2)
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        for step in range(50):
            assert deadlines.call(lambda: number * 1000 + step, 30) == number * 1000 + step  # noqa: B023
        answers[number] = number

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 8


def test_its_threads_do_not_keep_the_process(hang: Hang) -> None:
    """They are daemons."""
    deadlines = Deadlines("disk", clock=Impatient())
    deadlines.start(hang)
    hang.begun.wait(30)
    ours = [thread for thread in threading.enumerate() if thread.name == "castore-deadline-disk"]
    assert ours
    assert all(thread.daemon for thread in ours)


def test_after_close_idle_threads_end() -> None:
    deadlines = Deadlines("closing")
    deadlines.call(lambda: 1, 30)
    deadlines.close()
    for thread in threading.enumerate():
        if thread.name == "castore-deadline-closing":
            thread.join(30)
            assert not thread.is_alive()
