"""Carrying out a plan of faults, and keeping record of it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import attrs

from castore.digest import B3Digest
from castore.errors import CorruptBlobError, UnavailableError
from castore.faults.damage import damaged
from castore.faults.operations import RESULT, Risks, risks_of
from castore.faults.plan import KINDS, FaultPlan

_MOST: Final = 100_000
"""How many faults a trace has at most: the last ones."""


@attrs.frozen
class Fault:
    """One fault that came."""

    operation: str
    number: int
    """The how-manieth call of that operation it was, from 1."""
    about: str
    """The digest or key that it was about, empty if there is none."""
    kind: str
    detail: str = ""
    """What exactly was done, in words."""

    def __str__(self) -> str:
        where = f"{self.operation} #{self.number}" + (f" of {self.about}" if self.about else "")
        return f"{where}: {self.kind}" + (f", {self.detail}" if self.detail else "")


@attrs.frozen
class _Call:
    """A call with the dice that decide about it, which nothing else throws."""

    name: str
    number: int
    about: str
    dice: Random

    @property
    def risks(self) -> Risks:
        return risks_of(self.name)


class Faults:
    """Calls operations as a plan says: late, in vain, or with damage done. Used by many threads at once.

    Arguments:
        plan: What comes how often.
        instance: What errors call the service.
        sleep: Called to wait, with a number of seconds, in place of waiting.
    """

    def __init__(
        self, plan: FaultPlan, *, instance: str = "faulty", sleep: Callable[[float], object] | None = None
    ) -> None:
        self.plan = plan
        self.on_fault: Callable[[Fault], object] | None = None
        """Called with each fault as it comes."""
        self._instance = instance
        self._sleep = sleep
        self._released = threading.Event()
        self._changed = threading.Condition()
        self._hanging = 0
        self._numbers: Counter[str] = Counter()
        self._trace: deque[Fault] = deque(maxlen=_MOST)

    @property
    def trace(self) -> list[Fault]:
        """The faults that came, in order."""
        return list(self._trace)

    # -- waiting, and putting an end to it --

    @property
    def hanging(self) -> int:
        """How many callers hang just now."""
        return self._hanging

    def wait_until_hanging(self, count: int = 1, timeout: float = 10.0) -> bool:
        """Return True as soon as *count* callers hang, False if that takes longer than *timeout* seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._hanging >= count, timeout)

    def release(self) -> None:
        """Let go of all who wait; from now on nobody waits."""
        self._released.set()

    def _wait(self, seconds: float) -> bool:
        """Wait until released; return False if that took longer than *seconds*."""
        if self._sleep is None or self._released.is_set():
            return self._released.wait(seconds)
        self._sleep(seconds)
        return self._released.is_set()

    def _hang(self) -> None:
        seconds = self.plan.hang_seconds
        self._count(1)
        try:
            released = self._wait(seconds)
        finally:
            self._count(-1)
        if not released:
            raise UnavailableError(self._instance, f"no answer in {seconds:g} s")

    def _count(self, step: int) -> None:
        with self._changed:
            self._hanging += step
            self._changed.notify_all()

    # -- calling --

    def perform(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        forgotten: Callable[[], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return what *function* returns for the arguments, or what the plan makes of it.

        *name* is that of the operation; *forgotten* says what it answers when it has forgotten, if that
        is not plain from the name. Raises what *function* raises, `UnavailableError`, or `CorruptBlobError`.
        """
        if not self.plan.concerns(name):
            return function(*args, **kwargs)
        call = self._begin(name, args)
        self._delay(call)
        kind = self._choose(call)
        if kind in {"fail", "hang"}:
            self._note(call, kind)
            if kind == "fail":
                raise UnavailableError(self._instance, f"made to fail at {name} #{call.number}")
            self._hang()
        elif kind == "forget":
            self._note(call, kind)
            known = call.risks.forgotten
            return forgotten() if forgotten is not None else known(*args) if known is not None else None
        elif kind in {"truncate", "flip"}:
            args = self._with_damage(call, kind, args)
        return self._spoilt(call, kind, function(*args, **kwargs), args)

    def _begin(self, name: str, args: tuple[Any, ...]) -> _Call:
        with self._changed:
            self._numbers[name] += 1
            number = self._numbers[name]
        about = str(args[0]) if args and isinstance(args[0], str | B3Digest) else ""
        return _Call(name, number, about, Random(f"{self.plan.seed}/{name}/{number}"))

    def _delay(self, call: _Call) -> None:
        # Thrown in any case: whether there are delays must not change what else happens.
        comes, length = call.dice.random(), call.dice.uniform(0.5, 1.5) * self.plan.latency
        if comes < self.plan.delay:
            self._note(call, "delay", f"{length:.4f} s")
            self._wait(length)

    def _choose(self, call: _Call) -> str | None:
        throws = {kind: call.dice.random() for kind in KINDS[1:]}
        for kind, thrown in throws.items():
            if thrown < self.plan.chance(kind) and call.risks.can(kind):
                return kind
        return None

    def _with_damage(self, call: _Call, kind: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        number = call.risks.data
        if number is None or not 0 <= number < len(args):
            return args
        return (*args[:number], self._damaged(call, kind, args[number]), *args[number + 1 :])

    def _damaged(self, call: _Call, kind: str, value: Any) -> Any:
        found = damaged(value, kind, call.dice)
        if found is None:
            return value
        self._note(call, kind, found[1])
        return found[0]

    def _spoilt(self, call: _Call, kind: str | None, result: Any, args: tuple[Any, ...]) -> Any:
        """Return what the caller gets to see of a result."""
        if kind in {"truncate", "flip"} and call.risks.data == RESULT:
            return self._damaged(call, kind, result)
        if kind == "corrupt" and result is not None:
            self._note(call, kind)
            digest = args[0]
            raise CorruptBlobError(f"blob {digest} was made corrupt by `{self._instance}`", expected=digest)
        if kind == "partial":
            self._note(call, kind)
            return _some(result, call.dice)
        return result

    def _note(self, call: _Call, kind: str, detail: str = "") -> None:
        fault = Fault(call.name, call.number, call.about, kind, detail)
        self._trace.append(fault)
        if self.on_fault is not None:
            self.on_fault(fault)


def _some(items: Iterator[Any], dice: Random) -> Iterator[Any]:
    for item in items:
        if dice.random() < 0.5:
            yield item
