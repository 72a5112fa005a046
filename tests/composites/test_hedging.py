"""Hedged questions: who is asked when, who wins, and what it may cost. The clock is one of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import attrs
import pytest

from castore import B3Digest, BlobService, CorruptBlobError, UnavailableError
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
    batches: list[tuple[str, list[int]]] = attrs.field(factory=list)
    finished: list[str] = attrs.field(factory=list)
    together: int = 0
    """So many have to have answered before an answer is looked at."""

    def now(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        while True:
            waits = len(self.finished) < self.together <= len(self.asked)
            quiet = not waits and all(map(self._is_quiet, set(self.asked)))
            if event.wait(0 if quiet else 0.002) and not waits:
                return True
            if quiet:
                assert seconds is not None, "for ever"
                self.time += seconds
                return False

    def _is_quiet(self, name: str) -> bool:
        """It has answered whenever it was asked, or hangs, and has begun to."""
        answered = self.finished.count(name) == self.asked.count(name)
        return answered or (name in self.hangs and self.began[name].is_set())

    def member(self, name: str, service: BlobService, **settings: float) -> Member:
        return Member(name, service, clock=self, **settings)  # type: ignore[arg-type]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    for event in scene.hangs.values():
        event.set()


def asking(scene: Scene, answers: dict[str, object]) -> Callable[[Member], object]:
    """A question that each member answers as told; `...` hangs."""
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


def noted(scene: Scene, name: str, start: Any, call: Any, *, then: Any, **more: Any) -> Any:
    """Start a call, and note when it was asked for and when it has ended."""
    scene.asked.append(name)
    return start(call, then=lambda: (then(), scene.finished.append(name)), **more)


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
        member.deadlines.start = partial(noted, scene, member.name, member.deadlines.start)  # type: ignore[method-assign]
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


def test_a_member_that_lacks_it_or_fails_needs_no_hedge(scene: Scene) -> None:
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


def gathering(scene: Scene, answers: dict[str, object]) -> Callable[[Member, Collection[int]], Any]:
    """A question for many things, which each member answers as told, for those that it is asked for."""
    ask = asking(scene, answers)

    def gather(member: Member, rest: Collection[int]) -> Any:
        scene.batches.append((member.name, sorted(rest)))
        found: Any = ask(member)
        return {thing: found[thing] for thing in rest if thing in found}

    return gather


def test_of_many_things_only_those_are_asked_for_again_that_are_open(scene: Scene) -> None:
    """The verdict is on each: an answer stays, what comes too late is not counted, the others go on."""
    hedge = Hedge(0.1, clock=scene)
    group = members(scene, hedge, {"a": 5.0})
    fault, corrupt = UnavailableError("b", "gone"), CorruptBlobError("no", expected=B3Digest.of(b""))
    answers = {"a": ..., "b": {1: "one", 2: fault, 3: corrupt}, "c": {2: "two", 3: "three"}}
    found, lacking = group.gather(gathering(scene, answers), range(1, 5))
    assert {thing: (answer.value, answer.member.name) for thing, answer in found.items()} == {
        1: ("one", "b"),
        2: ("two", "c"),
        3: ("three", "c"),
    }
    assert scene.batches == [("a", [1, 2, 3, 4]), ("b", [1, 2, 3, 4]), ("c", [2, 3, 4])]
    assert [member.name for member in lacking[4].missed] == ["b", "c"]
    assert [member.name for member, _ in lacking[4].faults] == ["a"]
    assert found[2].votes.faults[0][1] is fault
    assert [member.name for member in found[3].votes.corrupt] == ["b"]


def test_the_budget_counts_things(scene: Scene) -> None:
    """A call for twenty is hedged when so many are saved: a share of all that were asked for."""
    hedge = Hedge(0.1, budget=0.25, clock=scene)
    group = members(scene, hedge, {"a": 1.0})
    things = range(20)
    answers = {"a": ..., "b": dict.fromkeys(things, "b"), "c": {}}
    hedged = []
    for _ in range(10):
        found, _ = group.gather(gathering(scene, answers), things)
        assert len(found) == 20
        hedged.append(hedge.hedged)
    # Ten are saved at the start, five come with each call.
    assert hedged == [0, 20, 20, 20, 20, 40, 40, 40, 40, 60]


@pytest.mark.parametrize(("things", "periods"), [(1, 1), (64, 1), (65, 2), (1024, 16)])
def test_many_things_may_take_longer(scene: Scene, things: int, periods: int) -> None:
    """The next is asked, and a member is given up, after as many times as long as a timeout is for them."""
    hedge = Hedge(0.25, budget=1, clock=scene)
    group = members(scene, hedge, {"a": 1.0, "b": 2.0, "c": 3.0})
    hedge._left = 5000
    found, lacking = group.gather(gathering(scene, {"a": ..., "b": ..., "c": ...}), range(things))
    assert not found
    assert scene.time == pytest.approx(3.5 * periods)
    assert [error.message for _, error in lacking[0].faults] == [
        f"`{name}` is unavailable: no answer within {seconds * periods:g} s"
        for name, seconds in (("a", 1), ("b", 2), ("c", 3))
    ]


def test_of_two_that_have_answered_the_second_is_released(scene: Scene) -> None:
    """One has it, even if both are looked at together."""
    scene.together = 2
    ask = asking(scene, {"a": ..., "b": "b", "c": "c"})

    def ask_both(member: Member) -> object:
        if member.name == "b":
            scene.hangs["a"].set()
        return ask(member)

    late: list[object] = []
    released = threading.Event()
    found = members(scene, Hedge(0.1, clock=scene)).first(
        ask_both, late=lambda value: (late.append(value), released.set())
    )
    assert found is not None
    assert released.wait(30)
    assert sorted([found.value, *late]) == ["b", "late a"]  # type: ignore[type-var]
