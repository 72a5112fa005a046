"""What services tell of themselves, in numbers, for metrics and drawings."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from castore import B3Digest, UnavailableError
from castore.composites.members import Member
from castore.faults import WRITES
from castore.testing import HELLO, FaultyService
from castore_memory.service import MemoryBlobService
from castore_mirror.healing import HealingQueue
from castore_mirror.service import MirrorBlobService
from castore_wrappers.breaker.service import BreakerService
from castore_wrappers.limit.service import LimitService
from castore_wrappers.retry.patience import Policy
from castore_wrappers.retry.service import RetryService


def test_a_breaker_tells_its_state(clock: Any) -> None:
    """Exactly one of three is true."""
    within = FaultyService(MemoryBlobService(), {"missing"})
    breaker = BreakerService(within, failures=1, open_for=30.0, clock=clock)
    states = [breaker.gauges()]
    with pytest.raises(UnavailableError):
        breaker.has(HELLO.digest)
    states.append(breaker.gauges())
    clock.now += 31
    states.append(breaker.gauges())
    assert [[name for name, yes in state.items() if yes] for state in states] == [
        ["is_closed"],
        ["is_open"],
        ["is_half_open"],
    ]


def test_a_limit_tells_who_is_there_and_who_waits() -> None:
    here, go = threading.Event(), threading.Event()

    class Slow(MemoryBlobService):
        def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
            here.set()
            assert go.wait(30)
            return set()

    service = LimitService(Slow(), concurrency=1)
    assert service.gauges() == {"under_way": 0, "waiting": 0}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.has, HELLO.digest)
        assert here.wait(30)
        assert service.gauges() == {"under_way": 1, "waiting": 0}
        go.set()
        answer.result()
    assert service.gauges() == {"under_way": 0, "waiting": 0}
    assert LimitService(Slow(), bytes_per_second=1).gauges() == {}


def test_a_retry_tells_how_often_it_had_to(clock: Any) -> None:
    within = FaultyService(MemoryBlobService(), {"missing"})
    policy = Policy(attempts=3, jitter=0.0)
    service = RetryService(within, policy, clock=clock, sleep=clock.sleep)
    with pytest.raises(UnavailableError):
        service.has(HELLO.digest)
    assert service.gauges() == {"repeated": 2, "given_up": 1}
    within.failing = set()
    service.has(HELLO.digest)
    assert service.gauges() == {"repeated": 2, "given_up": 1}


def test_a_mirror_tells_what_it_has_to_heal() -> None:
    """And that it is degraded, until all have all."""
    probes = [FaultyService(MemoryBlobService(), instance=name) for name in "abc"]
    members = [Member(name, probe) for name, probe in zip("abc", probes, strict=True)]
    # A child that has failed is left alone until the end of the test.
    queue = HealingQueue(interval=3600.0, drain=0.0)
    service = MirrorBlobService(members, write_quorum=2, miss_quorum=2, queue=queue)
    well = {"to_heal": 0, "healed": 0, "dropped": 0, "failing": 0, "abandoned": 0, "is_degraded": 0}
    assert service.gauges() == well
    probes[2].failing = set(WRITES)
    service.write(HELLO.data)
    assert service.gauges() == {**well, "to_heal": 1, "failing": 1, "is_degraded": 1}
    probes[2].failing = set()
    service.close()
