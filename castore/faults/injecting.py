"""Carrying out a plan of faults, and keeping record of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from random import Random
from typing import Any, Final

import attrs

from castore.contract.blobs import BlobReader
from castore.contract.directories import DirectoryService
from castore.contract.operations import Operation
from castore.digest import B3Digest
from castore.errors import BatchError, CastoreError, CorruptBlobError, CorruptDirectoryError, UnavailableError
from castore.faults.damage import damaged
from castore.faults.operations import Risks, risks_of
from castore.faults.plan import KINDS, FaultPlan
from castore.threads import forks
from castore.threads.waiting import Bell, Flag

_MOST: Final = 100_000
"""How many faults a trace has at most: the last ones."""

Args = tuple[Any, ...]


@attrs.frozen
class Fault:
    """One fault that came."""

    operation: str
    number: int
    """The how-manieth call of that operation it was, from 1; each item of a call for many counts as one."""
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
    """A call, or an item of a call for many, with the dice that decide about it and nothing else."""

    operation: str
    number: int
    about: object
    dice: Random


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
        self._released = Flag()
        self._lock = forks.new_lock()
        self._changed = Bell(self._lock)
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

    def _hang(self) -> bool:
        """Hang; return whether it was released from that."""
        self._count(1)
        try:
            return self._wait(self.plan.hang_seconds)
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            self._hanging += step
        self._changed.ring()

    # -- calling --

    def perform(
        self,
        operation: str,
        function: Callable[..., Any],
        *args: Any,
        forgotten: Callable[[], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return what *function* returns for the arguments, or what the plan makes of it.

        Of a call for many each item meets faults of its own. *forgotten* says what the operation answers
        when it has forgotten, if that is not plain from its row. Raises what *function* raises,
        `UnavailableError`, `BatchError`, or `CorruptBlobError`.
        """
        if self.plan.is_empty or not self.plan.concerns(operation):
            return function(*args, **kwargs)
        risks = risks_of(operation)
        if risks.items:
            assert isinstance(operation, Operation)
            assert operation.items is not None
            items = operation.argument(operation.items, args, kwargs)
            if isinstance(items, Collection) and items:
                return self._perform_for_many(operation, items, function, args, kwargs)
        call = self._begin(operation, args[0] if args else None)
        self._delay([call])
        kind = self._choose(call, risks)
        error = self._meet(call, kind)
        if error is not None:
            raise error
        if kind == "forget":
            self._note(call, kind)
            forgotten = forgotten or risks.forgotten
            return None if forgotten is None else forgotten()
        if kind in {"truncate", "flip"} and risks.sent is not None:
            args, kwargs = self._with_damage(call, kind, risks.sent, args, kwargs)
        return self._spoilt(call, kind, risks, function(*args, **kwargs))

    def _begin(self, operation: str, about: object) -> _Call:
        with self._lock:
            self._numbers[operation] += 1
            number = self._numbers[operation]
        return _Call(operation, number, about, Random(f"{self.plan.seed}/{operation}/{number}"))

    def _delay(self, calls: Collection[_Call]) -> None:
        """Wait as long as the slowest of some calls that are made at once."""
        longest = -1.0
        for call in calls:
            # Thrown in any case: whether there are delays must not change what else happens.
            comes, length = call.dice.random(), call.dice.uniform(0.5, 1.5) * self.plan.latency
            if comes < self.plan.delay:
                self._note(call, "delay", f"{length:.4f} s")
                longest = max(longest, length)
        if longest >= 0:
            self._wait(longest)

    def _choose(self, call: _Call, risks: Risks) -> str | None:
        throws = {kind: call.dice.random() for kind in KINDS[1:]}
        for kind, thrown in throws.items():
            if thrown < self.plan.chance(kind) and risks.can(kind):
                return kind
        return None

    def _meet(self, call: _Call, kind: str | None) -> UnavailableError | None:
        """Return why a call fails, if it does."""
        if kind == "fail":
            self._note(call, kind)
            return UnavailableError(self._instance, f"made to fail at {call.operation} #{call.number}")
        if kind == "hang":
            self._note(call, kind)
            if not self._hang():
                return UnavailableError(self._instance, f"no answer in {self.plan.hang_seconds:g} s")
        return None

    def _with_damage(
        self, call: _Call, kind: str, sent: str | int, args: Args, kwargs: dict[str, Any]
    ) -> tuple[Args, dict[str, Any]]:
        if isinstance(sent, str):
            assert isinstance(call.operation, Operation)
            value = self._damaged(call, kind, call.operation.argument(sent, args, kwargs))
            return call.operation.with_argument(sent, value, args, kwargs)
        if sent >= len(args):
            return args, kwargs
        return (*args[:sent], self._damaged(call, kind, args[sent]), *args[sent + 1 :]), kwargs

    def _damaged(self, call: _Call, kind: str, value: Any) -> Any:
        found = damaged(value, kind, call.dice)
        if found is None:
            return value
        self._note(call, kind, found[1])
        return found[0]

    def _spoilt(self, call: _Call, kind: str | None, risks: Risks, result: Any) -> Any:
        """Return what the caller gets to see of a result."""
        if kind in {"truncate", "flip"} and risks.received:
            return self._damaged(call, kind, result)
        if kind == "corrupt" and result is not None:
            if isinstance(result, BlobReader):
                result.close()
            raise self._corruption(call)
        if kind == "partial":
            self._note(call, kind)
            if isinstance(result, tuple):  # a list of which the beginning is known
                first, rest = result
                return list(_some(first, call.dice)), _some(rest, call.dice)
            return _some(result, call.dice)
        return result

    def _corruption(self, call: _Call) -> CorruptBlobError:
        self._note(call, "corrupt")
        digest: Any = call.about
        if isinstance(call.operation, Operation) and call.operation.capability is DirectoryService:
            message = f"directory {digest} was made corrupt by `{self._instance}`"
            return CorruptDirectoryError(message, expected=digest)
        return CorruptBlobError(f"blob {digest} was made corrupt by `{self._instance}`", expected=digest)

    # -- calls for many --

    def _perform_for_many(
        self,
        operation: Operation,
        items: Collection[Any],
        function: Callable[..., Any],
        args: Args,
        kwargs: dict[str, Any],
    ) -> Any:
        risks = risks_of(operation)
        # The order of a set is another in each process.
        order = sorted(items, key=str) if isinstance(items, set | frozenset) else dict.fromkeys(items)
        calls = {item: self._begin(operation, item) for item in order}
        self._delay(calls.values())
        kinds = {item: self._choose(call, risks) for item, call in calls.items()}
        lost = self._lose(calls, kinds, risks)
        forgotten = set()
        for item, kind in kinds.items():
            if kind == "forget":
                forgotten.add(item)
                self._note(calls[item], kind)
        # What is dropped is acknowledged; what is asked for is left out of the answer.
        dropped = forgotten if operation.tells is None else set()
        asked = [item for item in calls if item not in lost and item not in dropped]
        if len(asked) < len(calls) or operation.sends is not None:
            part = {item: items[item] for item in asked} if isinstance(items, Mapping) else asked
            if operation.sends == operation.items and isinstance(part, dict):
                part = {item: self._sent(calls[item], kinds[item], data) for item, data in part.items()}
            args, kwargs = operation.with_argument(str(operation.items), part, args, kwargs)
        answer: Any = {} if operation.receives else set() if operation.tells == "found" else None
        if asked:
            try:
                answer = function(*args, **kwargs)
            except BatchError as error:
                lost.update(error.faults)
                raise BatchError(self._instance, lost, done=error.done | dropped) from error
        if operation.receives:
            found = {item: self._got(calls.get(item), kinds.get(item), data) for item, data in answer.items()}
            return {**_without(found, forgotten), **lost}
        if operation.tells is not None:
            answer = answer | forgotten if operation.tells == "absent" else _without(answer, forgotten)
        if lost:
            done = asked if operation.tells is None else answer
            raise BatchError(self._instance, lost, done=dropped.union(done))
        return answer

    def _lose(
        self, calls: Mapping[Any, _Call], kinds: Mapping[Any, str | None], risks: Risks
    ) -> dict[Any, CastoreError]:
        """Return the items that fail; raise what the first meets if they can only fail together."""
        first = next(iter(calls))
        if not risks.lost_alone:
            error = self._meet(calls[first], kinds[first])
            if error is not None:
                raise error
            return {}
        failing = [item for item, kind in kinds.items() if kind == "fail"]
        lost: dict[Any, CastoreError] = {}
        for item in failing:
            error = self._meet(calls[item], "fail")
            assert error is not None
            lost[item] = error
        hanging = [item for item, kind in kinds.items() if kind == "hang"]
        for item in hanging[1:]:
            self._note(calls[item], "hang")
        # They hang together.
        error = self._meet(calls[hanging[0]], "hang") if hanging else None
        if error is not None:
            lost.update(dict.fromkeys(hanging, error))
        return lost

    def _sent(self, call: _Call, kind: str | None, data: Any) -> Any:
        return self._damaged(call, kind, data) if kind in {"truncate", "flip"} else data

    def _got(self, call: _Call | None, kind: str | None, data: Any) -> Any:
        """Return what the caller gets to see of an item."""
        if call is None or kind is None or isinstance(data, CastoreError):
            return data
        if kind == "corrupt":
            return self._corruption(call)
        return self._sent(call, kind, data)

    def _note(self, call: _Call, kind: str, detail: str = "") -> None:
        about = str(call.about) if isinstance(call.about, str | B3Digest) else ""
        fault = Fault(str(call.operation), call.number, about, kind, detail)
        self._trace.append(fault)
        if self.on_fault is not None:
            self.on_fault(fault)


def _without(answer: Any, items: Collection[Any]) -> Any:
    """Return a set or mapping without some of its items."""
    if isinstance(answer, Mapping):
        return {item: value for item, value in answer.items() if item not in items}
    return {item for item in answer if item not in items}


def _some(items: Iterable[Any], dice: Random) -> Iterator[Any]:
    for item in items:
        if dice.random() < 0.5:
            yield item
