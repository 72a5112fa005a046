"""Calls for many that are made for some of the items at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from castore import B3Digest, CastoreError, UnavailableError
from castore.contract.operations import Operation
from castore.errors import BatchError


class Batch:
    """A call for many, and what has come of the parts of it that were made.

    Arguments:
        operation: One with `items`, whose answer leads to no more work.
        call: What is called.
        args: The arguments for all items.
        kwargs: Likewise.
    """

    def __init__(
        self,
        operation: Operation,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        assert operation.items is not None
        self._operation = operation
        self._name = operation.items
        self._call = call
        self._args = args
        self._kwargs = kwargs
        self.items: Collection[Any] = operation.argument(self._name, args, kwargs)
        self._answer: Any = None
        self._done: set[B3Digest] = set()
        self.faults: dict[B3Digest, CastoreError] = {}
        """Those that are not done, with what they were lost to."""
        self.anything_known = False
        """Whether a part was answered, were it in part."""

    @property
    def unavailable(self) -> dict[B3Digest, UnavailableError]:
        """The faults that may be none the next time."""
        return unavailable_in(self.faults)

    def arguments(self, some: Iterable[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the call for *some* of the items."""
        items = self.items
        part = {item: items[item] for item in some} if isinstance(items, Mapping) else list(some)
        return self._operation.with_argument(self._name, part, self._args, self._kwargs)

    def make(self, some: Collection[Any]) -> None:
        """Make the call for *some* of the items, and take what it answers; raises what it raises."""
        args, kwargs = self.arguments(some)
        self.take(some, self._call(*args, **kwargs))

    def take(self, some: Iterable[Any], answer: Any) -> None:
        """Take the answer to *some* of the items."""
        self.anything_known = True
        self._forget_faults(some)
        if self._operation.receives:
            self.faults.update(unavailable_in(answer))
            answer = {item: value for item, value in answer.items() if item not in self.faults}
        self._take_done(some if self._operation.tells is None else answer)
        self._add(answer)

    def fail(self, some: Iterable[Any], error: UnavailableError) -> None:
        """Take note that the call for *some* of the items has failed, and of what was done all the same."""
        if not isinstance(error, BatchError):
            self.faults.update(dict.fromkeys(some, alike(error)))
            return
        self.anything_known = True
        self._forget_faults(some)
        claims = self._operation.tells is not None
        for item in some:
            # What a claim leaves out is to be put to be sure. What a put leaves out is not known.
            if item in error.faults or (item not in error.done and not (claims and error.faults)):
                self.faults[item] = error.faults.get(item) or alike(error)
        self._done |= error.done
        if claims:
            self._add(set(error.done))

    def _forget_faults(self, some: Iterable[Any]) -> None:
        if self.faults:
            for item in some:
                self.faults.pop(item, None)

    def _take_done(self, items: Iterable[Any]) -> None:
        if self._operation.writes:
            self._done.update(items)

    def _add(self, answer: Any) -> None:
        if self._answer is None or answer is None:
            self._answer = answer if self._answer is None else self._answer
        elif isinstance(answer, Mapping):
            self._answer = {**self._answer, **answer}
        elif isinstance(answer, list):
            self._answer = [*self._answer, *answer]
        else:
            self._answer = {*self._answer, *answer}

    def result(self, instance: str) -> Any:
        """Return the answer to all items; raise `BatchError` if some were lost that it cannot have."""
        if self._operation.receives:
            return {**(self._answer or {}), **self.faults}
        if self.faults:
            raise BatchError(instance, self.faults, done=self._done)
        return self._answer


def unavailable_in(answer: Mapping[B3Digest, Any]) -> dict[B3Digest, UnavailableError]:
    """Return the items of an answer that could not be had, with their errors."""
    # Bytes are nearly all that there is, and their class is compared in no time.
    return {
        item: value
        for item, value in answer.items()
        if type(value) is not bytes and isinstance(value, UnavailableError)
    }


def comes_in_parts(operation: Operation) -> bool:
    """Tell whether some of the items of a call may be done, or had, and others not."""
    if operation.items is None or operation.yields is not None:
        return False
    return operation.writes or operation.receives


def alike(error: UnavailableError) -> UnavailableError:
    """Return an error that says the same, to be kept: one that was raised refers to who keeps it."""
    return UnavailableError(error.instance, error.cause, causes=error.causes)
