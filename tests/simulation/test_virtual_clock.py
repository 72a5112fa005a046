"""Time that costs nothing, and threads that take turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from random import Random

import pytest
from simulation import Shelf, StuckError, VirtualClock

from castore.composites.members import Member
from castore.errors import UnavailableError
from castore.threads.deadlines import Deadlines


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    clock = VirtualClock(Random(1))
    yield clock
    clock.close()


def test_a_year_passes_at_once(clock: VirtualClock) -> None:
    clock.sleep(365 * 86400.0)
    assert clock.now() == 365 * 86400.0
    assert not clock.wait(threading.Event(), 10)
    assert clock.now() == 365 * 86400.0 + 10


def test_who_is_due_first_goes_first(clock: VirtualClock) -> None:
    """One at a time, at the time for which it waited."""
    story: list[tuple[float, str]] = []

    def sleeper(name: str, seconds: float) -> None:
        clock.sleep(seconds)
        story.append((clock.now(), name))

    for name, seconds in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
        clock.start(lambda name=name, seconds=seconds: sleeper(name, seconds), name)  # type: ignore[misc]
    assert sorted(clock.others) == ["early", "late", "middle"]
    clock.sleep(2.5)
    assert story == [(1.0, "early"), (2.0, "middle")]
    clock.sleep(1)
    assert story[-1] == (3.0, "late")
    assert clock.others == []


def test_an_event_ends_the_waiting(clock: VirtualClock) -> None:
    event = threading.Event()

    def setter() -> None:
        clock.sleep(5)
        event.set()

    clock.start(setter, "setter")
    assert clock.wait(event, 60)
    assert clock.now() == 5


def test_waiting_for_each_other_is_found(clock: VirtualClock) -> None:
    """Nobody is left to set the event: that is an error, and no hang."""
    clock.start(lambda: clock.wait(threading.Event(), None), "other")
    with pytest.raises(StuckError, match="other"):
        clock.wait(threading.Event(), None)


def test_waiting_in_vain_while_others_work_is_found(clock: VirtualClock) -> None:
    """Somebody else may go on for ever; who waits does not."""

    def work() -> None:
        while True:
            clock.sleep(10)

    clock.start(work, "worker")
    with pytest.raises(StuckError):
        clock.wait(threading.Event(), None)


def test_the_end_ends_all(clock: VirtualClock) -> None:
    """Wherever they are; what they have to clean up they do."""
    cleaned: list[str] = []

    def work(name: str) -> None:
        try:
            clock.wait(threading.Event(), None)
        finally:
            cleaned.append(name)

    for name in "ab":
        clock.start(lambda name=name: work(name), name)  # type: ignore[misc]
    clock.sleep(1)
    clock.close()
    assert sorted(cleaned) == ["a", "b"]
    assert clock.others == []


def test_mistakes_are_kept(clock: VirtualClock) -> None:
    clock.start(lambda: 1 // 0, "mistaken")
    clock.sleep(1)
    assert [type(error) for error in clock.mistakes] == [ZeroDivisionError]


def test_deadlines_are_kept(clock: VirtualClock) -> None:
    """A call that hangs is given up when its time is over, and ends when it would have ended."""
    ended: list[float] = []

    def hang() -> None:
        clock.sleep(30)
        ended.append(clock.now())

    deadlines = Deadlines("disk", clock=clock)
    with pytest.raises(UnavailableError, match="no answer within 2 s"):
        deadlines.call(hang, 2)
    assert (clock.now(), deadlines.abandoned, ended) == (2, 1, [])
    clock.sleep(60)
    assert (deadlines.abandoned, ended) == (0, [30])


def test_a_child_that_answers_in_time(clock: VirtualClock) -> None:
    member = Member("disk", Shelf(), timeout=2, clock=clock)
    assert member.call(lambda: member.service.write(b"data")) == member.service.write(b"data")
    assert clock.now() == 0
