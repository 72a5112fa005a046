"""Hedged questions: who is asked when, who wins, and what it may cost. The clock is one of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import attrs
import pytest

from castore import BlobService, UnavailableError
from castore.composites.hedging import Hedge
from castore.composites.members import Member, Members
from castore.threads.deadlines import Clock
from castore_memory.service import MemoryBlobService


@attrs.define
class Scene(Clock):
    """Time goes on only when everybody who is asked has answered, or is known to hang."""

    time: float = 0.0
    asked: list[str] = attrs.field(factory=list)
    hangs: dict[str, threading.Event] = attrs.field(factory=dict)
    began: dict[str, threading.Event] = attrs.field(factory=dict)

    def now(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        if event.wait(0 if self._all_hang() else 30):
            return True
        assert seconds is not None, "for ever"
        self.time += seconds
        return False

    def _all_hang(self) -> bool:
        """Whoever was asked last hangs, and has begun to."""
        name = self.asked[-1]
        return name in self.hangs and self.began[name].wait(30)

    def member(self, name: str, service: BlobService, **settings: float) -> Member:
        return Member(name, service, clock=self, **settings)  # type: ignore[arg-type]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    for event in scene.hangs.values():
        event.set()


def asking(scene: Scene, answers: dict[str, object]) -> Callable[[Member], object]:
    """A question that each child answers as told; `...` hangs."""
    for name, answer in answers.items():
        scene.began[name] = threading.Event()
        if answer is ...:
            scene.hangs[name] = threading.Event()

    def ask(member: Member) -> object:
        answer = answers[member.name]
        if answer is ...:
            scene.began[member.name].set()
            scene.hangs[member.name].wait(30)
            return f"late {member.name}"
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def members(scene: Scene, hedge: Hedge, timeouts: dict[str, float] | None = None) -> Members:
    made = [
        scene.member(
            name,
            MemoryBlobService(),
            **({"timeout": timeouts[name]} if timeouts and name in timeouts else {}),
        )
        for name in "abc"
    ]
    for member in made:
        start = member.deadlines.start
        member.deadlines.start = (  # type: ignore[method-assign]
            lambda call, name=member.name, start=start, **more: (
                scene.asked.append(name),
                start(call, **more),
            )[1]
        )
    return Members("root", made, hedge=hedge)


def test_whoever_answers_in_time_is_alone(scene: Scene) -> None:
    hedge = Hedge(0.1, clock=scene)
    found = members(scene, hedge).first(asking(scene, {"a": 1, "b": 2, "c": 3}))
    assert found is not None
    assert (found.value, found.member.name, scene.asked, hedge.hedged) == (1, "a", ["a"], 0)


def test_the_next_is_asked_when_the_first_takes_too_long(scene: Scene) -> None:
    """After the time that is set, no sooner; what the first answers later is released."""
    hedge = Hedge(0.1, clock=scene)
    late: list[object] = []
    released = threading.Event()
    found = members(scene, hedge).first(
        asking(scene, {"a": ..., "b": 2, "c": 3}), late=lambda value: (late.append(value), released.set())
    )
    assert found is not None
    assert (found.value, scene.asked, hedge.hedged) == (2, ["a", "b"], 1)
    assert scene.time == pytest.approx(0.1)
    assert found.votes.faults == []
    scene.hangs["a"].set()
    assert released.wait(30)
    assert late == ["late a"]


def test_a_child_that_lacks_it_or_fails_needs_no_hedge(scene: Scene) -> None:
    """The next is asked at once, and it is not counted."""
    hedge = Hedge(0.1, clock=scene)
    fault = UnavailableError("b", "gone")
    found = members(scene, hedge).first(asking(scene, {"a": None, "b": fault, "c": 3}))
    assert found is not None
    assert (found.value, scene.asked, hedge.hedged, scene.time) == (3, ["a", "b", "c"], 0, 0)
    assert [member.name for member in found.votes.missed] == ["a"]
    assert [(member.name, error) for member, error in found.votes.faults] == [("b", fault)]


def test_what_hangs_for_ever_is_given_up_at_its_timeout(scene: Scene) -> None:
    """Then nobody has an answer, and the error names all."""
    hedge = Hedge(0.1, clock=scene)
    group = members(scene, hedge, {"a": 1.0, "b": 2.0, "c": 3.0})
    with pytest.raises(UnavailableError) as caught:
        group.first(asking(scene, {"a": ..., "b": ..., "c": ...}))
    assert caught.value.message == (
        "`root` is unavailable: `a`: no answer within 1 s; `b`: no answer within 2 s; "
        "`c`: no answer within 3 s"
    )
    assert scene.time == pytest.approx(3.2)
    assert [member.deadlines.abandoned for member in group.all] == [1, 1, 1]


def test_hedging_has_a_budget(scene: Scene) -> None:
    """Ten in a row, and then as many as the share says; without one the timeout is waited for."""
    hedge = Hedge(0.1, budget=0.25, clock=scene)
    group = members(scene, hedge, {"a": 1.0})
    answers = {"a": ..., "b": 2, "c": 3}
    for _ in range(10):
        found = group.first(asking(scene, answers))
        assert found is not None
    assert hedge.hedged == 10
    before = [hedge.hedged]
    for _ in range(20):
        scene.hangs["a"].set()
        group.first(asking(scene, answers))
        before.append(hedge.hedged)
    assert before[-1] <= 10 + 0.25 * 30
    assert before[-1] >= 10 + 0.25 * 20


def test_an_error_that_is_final_ends_it(scene: Scene) -> None:
    hedge = Hedge(0.1, clock=scene)
    group = members(scene, hedge)
    group.all[0].final = True
    fault = UnavailableError("a", "gone")
    with pytest.raises(UnavailableError) as caught:
        group.first(asking(scene, {"a": fault, "b": 2, "c": 3}))
    assert caught.value is fault
    assert scene.asked == ["a"]
