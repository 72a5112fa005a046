"""The `limit` type: not too much at once, and not too much in a second; who waits is served in order."""

from __future__ import annotations

import io
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, Composition, CompositionError, UnavailableError, from_url
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Sweepable
from castore.streams.readers import BytesReader
from castore.testing import CHUNKS, HELLO, P3M, FaultyService
from castore.threads.waiting import Flag
from castore_memory.service import MemoryBlobService
from castore_wrappers.limit.rates import Rate, Slots, Ticket
from castore_wrappers.limit.service import LimitService

SMALL: Final = P3M.data[: 1 << 17]
"""So little that a store has it as one chunk."""


def kind(service: BlobService, which: Callable[..., Any]) -> Any:
    found = service.capability(which)
    assert found is not None
    return found


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that other threads are about to do."""
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.001)
    raise AssertionError("it never came to be")


@pytest.fixture
def chunked() -> Iterator[BlobService]:
    with from_url("objectstore+memory:") as service:
        yield service


class TestRates:
    def test_a_rate_is_kept_in_the_long_run(self, clock: Any) -> None:
        """Whatever the amounts are, so many units take as many seconds, within a tenth of one."""
        rate = Rate(1000.0, clock)
        begun = clock.now
        for units in [1, 10, 5000, 3, 999, 250] * 10:
            clock.sleep(rate.take(units))
        assert clock.now - begun == pytest.approx(62_630 / 1000 - 0.1)

    def test_who_has_rested_may_be_quick_for_a_moment(self, clock: Any) -> None:
        """A tenth of a second's worth is there, however long the rest was."""
        rate = Rate(1000.0, clock)
        clock.now += 3600
        assert rate.take(100) == 0
        assert rate.take(50) == pytest.approx(0.05)

    def test_each_one_waits_for_those_before(self, clock: Any) -> None:
        """Of several who come at once, each goes on later than the one that came before."""
        rate = Rate(10.0, clock, least=1.0)
        assert [rate.take(1) for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])

    def test_slow_rates_let_the_first_one_through(self, clock: Any) -> None:
        """One in a hundred seconds: the first now, the second a hundred seconds later."""
        rate = Rate(0.01, clock, least=1.0)
        assert rate.take(1) == 0
        assert rate.take(1) == pytest.approx(100)


@contextmanager
def taken(slots: Slots, number: int = 1) -> Iterator[None]:
    ticket = Ticket(number)
    try:
        slots.take(ticket)
        yield
    finally:
        slots.give_back(ticket)


class TestSlots:
    def test_are_given_in_order(self) -> None:
        """Whoever has waited longest is next."""
        slots = Slots(1)
        order: list[int] = []

        def work(number: int) -> None:
            with taken(slots):
                order.append(number)

        with ThreadPoolExecutor(8) as pool:
            with taken(slots):
                for number in range(8):
                    pool.submit(work, number)
                    until(lambda: slots.waiting == number + 1)  # noqa: B023 - it is awaited here
            pool.shutdown()
        assert order == list(range(8))

    def test_are_given_back_after_an_error(self) -> None:
        slots = Slots(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), taken(slots):
                raise ZeroDivisionError
        with taken(slots):
            assert slots.waiting == 0

    @pytest.mark.parametrize("in_the_same_moment", [False, True])
    def test_who_gives_up_waiting_leaves_none_behind(self, in_the_same_moment: bool) -> None:
        """An interrupt while waiting loses no slot, also if it just came."""
        first = Ticket()

        def interrupt(_: Flag) -> None:
            if in_the_same_moment:
                slots.give_back(first)
            raise KeyboardInterrupt

        slots = Slots(1, wait=interrupt)
        slots.take(first)
        with pytest.raises(KeyboardInterrupt), taken(slots):
            raise AssertionError("it was not to get there")
        assert slots.waiting == 0
        if not in_the_same_moment:
            slots.give_back(first)
        with taken(slots):
            pass

    def test_what_was_not_given_back_is_free_when_its_ticket_is_gone(self) -> None:
        """Or when the thread takes another: an interrupt may come before the giving back."""
        slots = Slots(1)
        slots.take(Ticket())
        assert slots.taken == 0
        kept = Ticket()
        slots.take(kept)
        with taken(slots):
            assert slots.taken == 1

    def test_several_wait_for_several(self) -> None:
        """Who waits for more than is free keeps those after it from what there is, or it would never come."""
        slots = Slots(4)
        held = [Ticket(1), Ticket(2)]
        for number, ticket in enumerate(held):
            ticket.thread = -number  # As if each were another thread's.
            slots.take(ticket)
        order: list[int] = []

        def work(number: int) -> None:
            with taken(slots, number):
                order.append(number)

        with ThreadPoolExecutor(2) as pool:
            pool.submit(work, 4)
            until(lambda: slots.waiting == 1)
            pool.submit(work, 1)
            until(lambda: slots.waiting == 2)
            slots.give_back(held[1])
            assert slots.waiting == 2
            slots.give_back(held[0])
            pool.shutdown()
        assert order == [4, 1]
        assert slots.taken == 0

    def test_who_gives_up_waiting_lets_those_behind_go_on(self) -> None:
        """What it waited for may be too much, and what they wait for there."""
        slots = Slots(2, wait=lambda turn: interrupt() if slots.waiting == 1 else None)
        behind = Ticket(1)

        def interrupt() -> None:
            # Somebody comes who needs less.
            slots._waiting.append(weakref.ref(behind))
            raise KeyboardInterrupt

        first = Ticket(1)
        slots.take(first)
        with pytest.raises(KeyboardInterrupt), taken(slots, 2):
            raise AssertionError("it was not to get there")
        assert behind.turn.is_set()
        assert (slots.taken, slots.waiting) == (2, 0)


class TestConcurrency:
    def test_no_more_than_so_many_at_once(self) -> None:
        """Of 20 threads three are there at any time, and all get their answer."""
        here: set[int] = set()
        most = 0
        lock, go = threading.Lock(), threading.Event()

        class Slow(MemoryBlobService):
            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                nonlocal most
                with lock:
                    here.add(threading.get_ident())
                    most = max(most, len(here))
                assert go.wait(10)
                with lock:
                    here.remove(threading.get_ident())
                return set(digests)

        service = LimitService(Slow(), concurrency=3)
        with ThreadPoolExecutor(20) as pool:
            answers = [pool.submit(service.has, HELLO.digest) for _ in range(20)]
            until(lambda: service.waiting == 17)
            assert len(here) == 3
            go.set()
            assert [answer.result() for answer in answers] == [False] * 20
        assert most == 3

    def test_readers_and_writers_that_are_open_take_no_slot(self, chunked: BlobService) -> None:
        """Any number of them may be open; only what they do counts."""
        service = LimitService(chunked, concurrency=1)
        digest = service.write(P3M.data)
        readers = [service.open_read(digest) for _ in range(3)]
        writers = [service.open_write() for _ in range(3)]
        for writer in writers:
            writer.write(HELLO.data)
        for reader in readers:
            with reader:  # type: ignore[union-attr]
                assert reader.read() == P3M.data  # type: ignore[union-attr]
        assert {writer.close() for writer in writers} == {HELLO.digest}

    def test_a_service_may_be_copied_into_itself(self, chunked: BlobService) -> None:
        """Who writes does not wait for its own reading, nor a sweep for the list that it sweeps."""
        service = LimitService(chunked, concurrency=1)
        digest = service.write(P3M.data)
        with service.open_read(digest) as reader:  # type: ignore[union-attr]
            assert service.put_file(reader) == digest
        sweepable = kind(service, Sweepable)
        assert list(sweepable.sweep(sweepable.list_items(), older_than=0.0)) == []

    def test_a_failed_operation_makes_room(self) -> None:
        class Down(MemoryBlobService):
            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                raise UnavailableError("down", "x")

        service = LimitService(Down(), concurrency=1)
        for _ in range(3):
            with pytest.raises(UnavailableError):
                service.has(HELLO.digest)


class TestOperations:
    def test_so_many_may_begin_in_a_second(self, clock: Any) -> None:
        """A hundred at ten a second take ten seconds, whatever they are."""
        inner = MemoryBlobService()
        inner.write(HELLO.data)
        service = LimitService(inner, operations_per_second=10, clock=clock, sleep=clock.sleep)
        store = kind(service, ChunkStore)
        begun = clock.now
        for _ in range(25):
            service.has(HELLO.digest)
            service.chunks(HELLO.digest)
            service.missing([HELLO.digest])
            store.get_chunk(HELLO.digest)
        assert clock.now - begun == pytest.approx(9.9)

    def test_writing_counts_when_it_begins_and_ends(self, clock: Any) -> None:
        """Not by how the bytes happen to come."""
        inner = FaultyService(MemoryBlobService(), capabilities=False)
        service = LimitService(inner, operations_per_second=10, clock=clock, sleep=clock.sleep)
        begun = clock.now
        with service.open_write() as writer:
            for byte in HELLO.data:
                writer.write(bytes([byte]))
        assert clock.now - begun == pytest.approx(0.1)


class TestBytes:
    @pytest.fixture
    def service(self, chunked: BlobService, clock: Any) -> LimitService:
        return LimitService(chunked, bytes_per_second=1 << 20, clock=clock, sleep=clock.sleep)

    @pytest.mark.parametrize(
        "put",
        [
            lambda service: service.write(P3M.data),
            lambda service: service.put_file(io.BytesIO(P3M.data)),
            lambda service: kind(service, ChunkStore).put_chunk(P3M.digest, P3M.data),
        ],
        ids=["write", "put_file", "put_chunk"],
    )
    def test_that_go_there(self, service: LimitService, clock: Any, put: Callable[[Any], object]) -> None:
        """3 MiB at one MiB a second take three seconds; of all operations `test_operations.py` tells."""
        begun = clock.now
        put(service)
        assert clock.now - begun == pytest.approx(2.9)

    def test_that_come_from_there(self, service: LimitService, chunked: BlobService, clock: Any) -> None:
        """By a reader, or as chunks: both wait until their time has come."""
        digest = chunked.write(P3M.data)
        metas = service.chunks(digest) or ()
        source = kind(service, ChunkStore)
        reads = [
            lambda: service.read(digest),
            lambda: b"".join(source.get_chunk(meta.digest) for meta in metas),
            lambda: b"".join(source.get_chunks({meta.digest: meta.size for meta in metas}).values()),
        ]
        for read in reads:
            begun = clock.now
            clock.now += 1
            assert read() == P3M.data
            assert clock.now - begun == pytest.approx(3.9)

    def test_that_are_in_memory_come_as_slowly(self, clock: Any) -> None:
        """And evenly: the first of them do not wait for the last."""
        inner = MemoryBlobService()
        inner.write(SMALL)
        service = LimitService(inner, bytes_per_second=1 << 18, clock=clock, sleep=clock.sleep)
        begun = clock.now
        with service.open_read(B3Digest.of(SMALL)) as reader:  # type: ignore[union-attr]
            assert reader.read(1 << 16) == SMALL[: 1 << 16]
            assert clock.now - begun == pytest.approx(0.15)
            reader.seek(0)
            assert reader.read() == SMALL
        assert max(clock.slept) <= 1 / 16 + 1e-9

    def test_both_ways_do_not_wait_for_each_other(self, service: LimitService, clock: Any) -> None:
        """What goes there is counted apart from what comes from there."""
        digest = service.write(P3M.data)
        begun = clock.now
        with service.open_read(digest) as reader:  # type: ignore[union-attr]
            reader.read(50_000)
        assert clock.now == begun

    def test_closing_ends_the_waiting(self) -> None:
        """Who waits for bytes that are hours away goes on when the service is closed."""
        service = LimitService(MemoryBlobService(), bytes_per_second=1)
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(service.write, P3M.data)
            service.close()
            assert written.result(10) == P3M.digest


def test_what_is_not_limited_is_left_alone() -> None:
    """Without a rate for bytes, a reader of bytes in memory is handed on."""
    inner = MemoryBlobService()
    inner.write(HELLO.data)
    service = LimitService(inner, concurrency=1)
    assert type(service.open_read(HELLO.digest)) is BytesReader
    assert service.open_read(CHUNKS[0].digest) is None


def test_waiting_for_a_turn_can_be_done_otherwise() -> None:
    """A simulation waits in its own way: nothing blocks the thread."""
    first, second = Ticket(), Ticket()
    slots = Slots(1, wait=lambda turn: slots.give_back(first))
    slots.take(first)
    slots.take(second)
    slots.give_back(second)
    assert slots.waiting == 0


class TestConfig:
    def test_units(self) -> None:
        """Plain numbers, and sizes with a unit."""
        table = {
            "type": "limit", "inner": "memory:", "concurrency": 2, "operations_per_second": 0.5,
            "bytes_per_second": "20 MB",
        }  # fmt: skip
        with Composition.from_mapping({"blobservices": {"root": table}}) as stores:
            service: Any = stores.blobs()
            assert service._sent._per_second == service._received._per_second == 20_000_000
            assert (service._operations._per_second, service._slots.count) == (0.5, 2)

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({}, "nothing is limited"),
            ({"concurrency": 0}, "concurrency"),
            ({"operations_per_second": 0}, "operations_per_second"),
            ({"bytes_per_second": "0 B"}, "bytes_per_second"),
        ],
    )
    def test_refused(self, fields: dict[str, Any], why: str) -> None:
        table = {"type": "limit", "inner": "memory:", **fields}
        with pytest.raises(CompositionError, match=why):
            Composition.from_mapping({"blobservices": {"root": table}})
