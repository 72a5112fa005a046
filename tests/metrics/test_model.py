"""What was measured, as plain numbers: counted exactly, whichever threads were at it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest

from castore import (
    BlobNotFoundError,
    CastoreError,
    ClosedError,
    CorruptBlobError,
    MissingChunkError,
    SourceError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.operations import OPERATIONS
from castore.errors import BatchError
from castore.metrics.meters import MOST, Meter, Meters
from castore.metrics.model import (
    BOUNDS,
    Gauges,
    Histogram,
    InstanceMetrics,
    Metrics,
    OperationMetrics,
    error_kind,
    gauges_of,
)
from castore.testing import CHUNKS, HELLO
from castore_memory.service import MemoryBlobService

HAS, OPEN_WRITE, CLAIM = (OPERATIONS[name] for name in ("has", "open_write", "claim"))


def noted(meter: Meter, *times: int) -> Meter:
    for ns in times:
        meter.begun.append(None)
        meter.ended.append(ns)
    return meter


class TestMeter:
    def test_hits_and_misses_where_something_is_asked_for(self) -> None:
        counted = noted(Meter(HAS), 0, 10, ~0, ~20).snapshot()
        assert (counted.calls, counted.hits, counted.misses) == (4, 2, 2)
        assert counted.seconds == pytest.approx(30e-9)

    def test_elsewhere_an_answer_is_neither(self) -> None:
        counted = noted(Meter(OPEN_WRITE), 5, ~5).snapshot()
        assert (counted.calls, counted.hits, counted.misses) == (2, 0, 0)

    def test_what_has_not_ended_is_under_way(self) -> None:
        """A call that hangs can be seen, and is gone from there when it ends, well or not."""
        meter = noted(Meter(OPEN_WRITE), 1)
        meter.begun.append(None)
        assert (meter.snapshot().calls, meter.snapshot().under_way) == (1, 1)
        meter.fail(UnavailableError("far", "gone"), 7)
        assert (meter.snapshot().calls, meter.snapshot().under_way) == (2, 0)

    def test_an_error_is_a_call_of_its_kind(self) -> None:
        meter = Meter(HAS)
        meter.begun += [None, None]
        meter.fail(UnavailableError("far", "gone"), 3)
        meter.fail(BlobNotFoundError(HELLO.digest), 4)
        counted = meter.snapshot()
        assert (counted.calls, counted.hits, counted.misses) == (2, 0, 1)
        assert counted.errors == {"unavailable": 1}
        assert counted.latency.total == 2

    def test_a_call_is_about_one_thing_unless_it_is_for_many(self) -> None:
        assert noted(Meter(HAS), 1, ~1).snapshot().items == 2
        meter = noted(Meter(CLAIM), 1, 1)
        meter.batches += [(5, 3, 2), (7, 7, 0)]
        counted = meter.snapshot()
        assert (counted.calls, counted.items, counted.hits, counted.misses) == (2, 12, 10, 2)

    def test_a_call_that_was_done_in_part_has_the_errors_of_its_items(self) -> None:
        gone = UnavailableError("far", "gone")
        corrupt = CorruptBlobError("bad", expected=HELLO.digest)
        faults = {HELLO.digest: gone, CHUNKS[0].digest: gone, CHUNKS[1].digest: corrupt}
        meter = Meter(CLAIM)
        meter.begun.append(None)
        meter.fail(BatchError("far", faults), 3, 8)
        counted = meter.snapshot()
        assert (counted.calls, counted.items) == (1, 8)
        assert counted.errors == {"unavailable": 2, "corrupt": 1}

    def test_many_threads_lose_nothing(self) -> None:
        """Eight of them, while another one looks; each look shows no less than the one before, and no mix."""
        meter = Meter(HAS)
        go, done = threading.Event(), threading.Event()

        def work() -> None:
            go.wait()
            for number in range(5000):
                meter.begun.append(None)
                meter.ended.append(number if number % 4 else ~number)
                meter.sent.append(2)
                if len(meter.ended) > MOST:
                    meter.fold()

        def look() -> list[OperationMetrics]:
            seen = []
            go.wait()
            while not done.is_set():
                seen.append(meter.snapshot())
            return seen

        with ThreadPoolExecutor(9) as pool:
            looking = pool.submit(look)
            working = [pool.submit(work) for _ in range(8)]
            go.set()
            for each in working:
                each.result()
            done.set()
            seen = looking.result()
        last = meter.snapshot()
        assert (last.calls, last.under_way, last.bytes_out) == (40_000, 0, 80_000)
        assert (last.hits, last.misses) == (30_000, 10_000)
        assert last.latency.total == 40_000
        assert [entry.calls for entry in seen] == sorted(entry.calls for entry in seen)
        assert all(entry.hits + entry.misses == entry.calls == entry.latency.total for entry in seen)
        assert all(0 <= entry.under_way <= 8 for entry in seen)

    def test_what_is_noted_while_it_is_folded_stays_for_the_next_time(self) -> None:
        class Busy(list[int]):
            def __getitem__(self, index: Any) -> Any:
                found = super().__getitem__(index)
                self.append(7)
                return found

        meter = noted(Meter(OPEN_WRITE), 1, 2)
        meter.begun.append(None)
        meter.ended = Busy(meter.ended)
        assert meter.snapshot().calls == 2
        assert meter.snapshot().calls == 3

    def test_memory_does_not_grow_with_calls(self) -> None:
        meter = Meter(OPEN_WRITE)
        for _ in range(10 * MOST):
            noted(meter, 1)
            if len(meter.ended) > MOST:
                meter.fold()
        assert len(meter.ended) <= MOST + 1
        assert len(meter.begun) <= MOST + 1

    def test_a_meter_is_made_once_by_threads_that_look_at_the_same_time(self) -> None:
        meters = Meters()
        together = threading.Barrier(8)

        def look() -> Meter:
            together.wait(30)
            return meters[HAS]

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: look(), range(8)))
        assert len({id(meter) for meter in found}) == 1

    def test_what_was_never_called_is_left_out(self) -> None:
        meters = Meters()
        noted(meters[OPERATIONS["open_read"]], 1)
        assert meters[HAS]
        assert list(meters.snapshot()) == ["open_read"]


class TestHistogram:
    @pytest.mark.parametrize(
        ("ns", "bucket"),
        [(0, 0), (1023, 0), (1024, 1), (2047, 1), (2048, 2), (2**36 - 1, 26), (2**36, 27), (2**60, 27)],
    )
    def test_bounds_are_powers_of_two(self, ns: int, bucket: int) -> None:
        """A time is in the first bucket whose bound is above it, or in the last one."""
        counts = noted(Meter(OPEN_WRITE), ns).snapshot().latency.counts
        assert [number for number, count in enumerate(counts) if count] == [bucket]
        assert len(counts) == len(BOUNDS) + 1
        assert bucket == len(BOUNDS) or ns / 1e9 < BOUNDS[bucket]
        assert bucket == 0 or ns / 1e9 >= BOUNDS[bucket - 1]

    def test_quantiles_are_bounds(self) -> None:
        latency = noted(Meter(OPEN_WRITE), *[1000] * 90, *[1_000_000] * 9, 2**50).snapshot().latency
        assert latency.quantile(0.5) == 1.024e-6
        assert latency.quantile(0.95) == pytest.approx(1.048576e-3)
        assert latency.quantile(1) == float("inf")
        assert Histogram().quantile(0.5) == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BlobNotFoundError(HELLO.digest), None),
        (CorruptBlobError("bad", expected=HELLO.digest), "corrupt"),
        (MissingChunkError(blob=HELLO.digest, chunk=CHUNKS[0].digest), "corrupt"),
        (UnavailableError("far", "gone"), "unavailable"),
        (UnsupportedError("no"), "unsupported"),
        (SourceError("no such file"), "other"),
        (ClosedError("closed"), "other"),
        (CastoreError("any"), "other"),
        (ZeroDivisionError(), "other"),
        (KeyboardInterrupt(), "other"),
    ],
)
def test_kinds_of_errors(error: BaseException, kind: str | None) -> None:
    """Absent is none; corrupt and unavailable are two things."""
    assert error_kind(error) == kind


class TestGauges:
    def test_whoever_has_the_method_tells(self) -> None:
        class Tells(MemoryBlobService):
            def gauges(self) -> dict[str, float]:
                return {"to_send": 3, "is_full": True}

        assert isinstance(Tells(), Gauges)
        assert gauges_of(Tells()) == {"to_send": 3.0, "is_full": 1.0}

    @pytest.mark.parametrize("told", [lambda self: 1 / 0, lambda self: {"queue": "long"}, lambda self: None])
    def test_who_fails_to_tell_does_no_harm(self, told: Callable[..., Any]) -> None:
        service = type("Fails", (MemoryBlobService,), {"gauges": told})()
        assert gauges_of(service) == {}
        assert gauges_of(MemoryBlobService()) == {}


class TestValues:
    @pytest.fixture
    def near(self) -> InstanceMetrics:
        operations = {
            "has": OperationMetrics(calls=3, items=9, hits=1, misses=2, errors={"unavailable": 1}),
            "get_chunks": OperationMetrics(
                calls=1, items=2, hits=1, bytes_out=10, errors={"corrupt": 1, "unavailable": 2}
            ),
        }
        return InstanceMetrics("near", "memory", "blob service", operations, {"bytes": 5.0})

    def test_an_instance_has_the_sums(self, near: InstanceMetrics) -> None:
        assert (near.calls, near.hits, near.misses, near.bytes_out, near.bytes_in) == (4, 2, 2, 10, 0)
        assert near.errors == {"corrupt": 1, "unavailable": 3}
        assert near.total.errors == near.errors
        assert (near.items, near.under_way) == (11, 0)

    def test_they_are_found_by_name(self, near: InstanceMetrics) -> None:
        metrics = Metrics((near,))
        assert metrics["near"] is near
        assert list(metrics) == [near]
        with pytest.raises(KeyError, match="far"):
            metrics["far"]

    def test_they_are_frozen(self, near: InstanceMetrics) -> None:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            near.name = "far"  # type: ignore[misc]

    def test_json_has_all_of_it(self, near: InstanceMetrics) -> None:
        document = json.loads(Metrics((near,)).to_json())
        assert document == Metrics((near,)).to_dict()
        [shown] = document["instances"]
        assert (shown["name"], shown["type"], shown["kind"]) == ("near", "memory", "blob service")
        assert (shown["calls"], shown["items"], shown["gauges"]) == (4, 11, {"bytes": 5.0})
        assert shown["operations"]["get_chunks"]["errors"] == {"corrupt": 1, "unavailable": 2}

    def test_json_of_the_slowest_bucket(self) -> None:
        """Its bound is no number that JSON has."""
        counted = noted(Meter(OPEN_WRITE), 1, 2**50).snapshot()
        [shown] = Metrics((InstanceMetrics("a", "b", "c", {"has": counted}, {}),)).to_dict()["instances"]
        assert shown["latency"] == [[1.024e-6, 1], [None, 1]]
