"""Counting what many threads do, at the cost of an append.

Each call of an operation appends its time to a list, which no thread can see half done, and needs no lock.
Now and then, and when somebody asks, whoever comes by folds the list into sums. So nothing is lost, whichever
threads come and go, and memory does not grow with the number of calls.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter_ns as clock
from typing import Final, TypeVar

from castore.contract.operations import Operation
from castore.errors import BatchError
from castore.metrics.model import BOUNDS, ErrorKind, Histogram, OperationMetrics, bucket_of, error_kind
from castore.threads import forks

__all__ = ["MOST", "Meter", "Meters", "clock"]

T = TypeVar("T")

MOST: Final = 2048
"""When so many calls have been noted they are folded."""


_TRIES: Final = 100


class Meter:
    """Counts one operation of one instance.

    Who makes a call appends to `begun`, and when it has ended its time in ns to `ended`; that of a miss as
    `~time`, which is negative. What is read or written goes to `sent` or `taken`, in bytes; of a call for
    many, how many things it was about, how many of these were there, and how many were absent, go to
    `batches`. After that `fold` is called if `ended` has grown longer than `MOST`. (These are lists to append
    to and no methods, as a call of a method costs more than all the rest.)

    Arguments:
        operation: What is known of it: whether an answer is a hit or a miss, whether it is a call for many,
            and whether there is more to be noted of a call than its time.
    """

    __slots__ = (
        "_absent", "_asks", "_begun", "_buckets", "_ended", "_errors", "_found", "_items", "_lock", "_many",
        "_ns", "_sent", "_taken", "batches", "begun", "ended", "sent", "taken", "weighs", "yields",
    )  # fmt: skip

    def __init__(self, operation: Operation) -> None:
        self._asks = operation.tells == "itself"
        self._many = operation.items is not None
        self.yields = operation.yields == "iterator"
        moves = operation.sends is not None or operation.receives or operation.counts
        self.weighs = self._many or moves
        self.begun: list[None] = []
        self.ended: list[int] = []
        self.sent: list[int] = []
        self.taken: list[int] = []
        self.batches: list[tuple[int, int, int]] = []
        self._lock = forks.new_lock()
        self._begun = self._ended = self._ns = self._sent = self._taken = 0
        self._items = self._found = self._absent = 0
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._errors: Counter[ErrorKind] = Counter()

    def fail(self, error: BaseException, ns: int, items: int = 1) -> None:
        """Note a call about so many items that has raised; that something is absent is no error."""
        kind = error_kind(error)
        if kind is None:
            self.ended.append(~ns if self._asks else ns)
            return
        with self._lock:
            if isinstance(error, BatchError) and error.faults:
                self._errors.update(filter(None, map(error_kind, error.faults.values())))
            else:
                self._errors[kind] += 1
            self._ended += 1
            self._items += items
            self._add_times([ns])

    def spoil(self, error: Exception) -> None:
        """Note that a call which had ended well has failed after all."""
        kind = error_kind(error)
        with self._lock:
            if kind is not None:
                self._errors[kind] += 1

    def fold(self) -> None:
        """Take what was noted into the sums."""
        with self._lock:
            # What is appended from here on stays for the next time.
            begun, ended = self._lengths()
            times = _taken_from(self.ended, ended)
            found = [ns for ns in times if ns >= 0]
            missed = [~ns for ns in times if ns < 0]
            if self._asks:
                self._found += len(found)
                self._absent += len(missed)
            if not self._many:
                self._items += len(times)
            for items, there, absent in _taken_from(self.batches):
                self._items += items
                self._found += there
                self._absent += absent
            self._ended += len(times)
            self._add_times(found)
            self._add_times(missed)
            self._sent += sum(_taken_from(self.sent))
            self._taken += sum(_taken_from(self.taken))
            self._begun += len(_taken_from(self.begun, begun))

    def _lengths(self) -> tuple[int, int]:
        """Return how many have begun and ended in one moment, so that the difference is what is under way."""
        for _ in range(_TRIES):
            ended = len(self.ended)
            begun = len(self.begun)
            if len(self.ended) == ended:
                break
        # What has ended has begun before, so it cannot be too few.
        return begun, ended

    def _add_times(self, times: list[int]) -> None:
        self._ns += sum(times)
        for bits, count in Counter(map(int.bit_length, times)).items():
            self._buckets[bucket_of(bits)] += count

    def snapshot(self) -> OperationMetrics:
        """Return what was counted up to now."""
        self.fold()
        with self._lock:
            return OperationMetrics(
                calls=self._ended,
                items=self._items,
                under_way=max(self._begun - self._ended, 0),
                hits=self._found,
                misses=self._absent,
                errors=dict(self._errors),
                bytes_in=self._taken,
                bytes_out=self._sent,
                seconds=self._ns / 1e9,
                latency=Histogram(tuple(self._buckets)),
            )


def _taken_from(noted: list[T], count: int | None = None) -> list[T]:
    count = len(noted) if count is None else count
    entries = noted[:count]
    del noted[:count]
    return entries


class Meters(dict[Operation, Meter]):
    """The meters of one instance by operation, each made when it is first looked up."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = forks.new_lock()

    def __missing__(self, operation: Operation) -> Meter:
        with self._lock:
            if operation not in self:
                self[operation] = Meter(operation)
        return self[operation]

    def snapshot(self) -> dict[str, OperationMetrics]:
        """Return what was counted of each operation that was called, in alphabetical order."""
        with self._lock:
            meters = sorted(self.items())
        counted = {name: meter.snapshot() for name, meter in meters}
        return {str(name): entry for name, entry in counted.items() if entry.calls or entry.under_way}
