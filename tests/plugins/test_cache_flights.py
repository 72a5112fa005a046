"""Of many who want the same from far at the same time one asks for it, and nobody is harmed by that one."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from castore import B3Digest, BlobReader, BlobService, ChunkMeta, UnavailableError
from castore.contract.capabilities import FoundChunks, SharedPlace
from castore.testing import HELLO, P3M
from castore.threads.deadlines import Clock
from castore.threads.pool import Pool
from castore_cache.chunks import Brought
from castore_cache.flights import Flight, Flights
from castore_cache.near import Near
from castore_cache.service import CacheBlobService
from castore_cache.turns import ProcessTurns
from castore_memory.service import MemoryBlobService

BIG = P3M.data + P3M.data[: 2 << 20]
BIG_DIGEST = B3Digest.of(BIG)


class Watched(Clock):
    """Time stands still; how many wait can be waited for."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waiting = 0
        self.changed = threading.Condition()

    def now(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        ends = None if seconds is None else self.time + seconds
        with self.changed:
            self.waiting += 1
            self.changed.notify_all()
        try:
            while not event.wait(0.002):
                if ends is not None and self.time >= ends:
                    return event.is_set()
            return True
        finally:
            with self.changed:
                self.waiting -= 1

    def until_waiting(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.waiting >= count, 30)


class Gate:
    """Far, or anything, that answers when it is let."""

    def __init__(self, answers: Callable[[int], Any]) -> None:
        self.answers = answers
        self.calls = 0
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        number = self.calls
        self.begun.set()
        assert self.open.wait(30)
        return self.answers(number)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(100) as pool:
        yield pool


@pytest.fixture
def watched() -> Watched:
    return Watched()


class TestFlights:
    def join(self, flights: Flights, gate: Gate, alone: Callable[[], Any] = lambda: "alone") -> Any:
        return flights.join("key", lambda _: gate(), alone)

    def test_one_asks_for_all(self, pool: ThreadPoolExecutor, watched: Watched) -> None:
        """And all get what it gets."""
        flights, gate = Flights(60, watched), Gate(lambda number: f"answer {number}")
        joined = [pool.submit(self.join, flights, gate) for _ in range(20)]
        watched.until_waiting(19)
        gate.open.set()
        assert {future.result(30) for future in joined} == {"answer 1"}
        assert (gate.calls, flights.landed) == (1, 1)

    def test_who_comes_later_asks_anew(self) -> None:
        """What has landed is not remembered."""
        flights, gate = Flights(), Gate(lambda number: number)
        gate.open.set()
        assert [self.join(flights, gate) for _ in range(3)] == [1, 2, 3]

    def test_others_are_not_kept_apart(self, pool: ThreadPoolExecutor) -> None:
        """Two who want different things do not wait for each other."""
        flights, gate = Flights(), Gate(lambda number: number)
        pool.submit(self.join, flights, gate)
        assert gate.begun.wait(30)
        assert flights.join("other", lambda _: "mine", lambda: "alone") == "mine"
        gate.open.set()

    @pytest.mark.parametrize("error", [UnavailableError("far", "no"), KeyboardInterrupt(), SystemExit()])
    def test_a_leader_that_fails_fails_alone(
        self, pool: ThreadPoolExecutor, watched: Watched, error: BaseException
    ) -> None:
        """One of those who waited asks anew, for all others."""

        def answers(number: int) -> str:
            if number == 1:
                raise error
            return "answer"

        flights, gate = Flights(60, watched), Gate(answers)
        leader = pool.submit(self.join, flights, gate)
        assert gate.begun.wait(30)
        followers = [pool.submit(self.join, flights, gate) for _ in range(10)]
        watched.until_waiting(10)
        gate.open.set()
        assert {future.result(30) for future in followers} == {"answer"}
        assert type(leader.exception(30)) is type(error)
        # Those who had not woken when the second had landed asked for themselves.
        assert 2 <= gate.calls <= 11

    def test_each_gets_its_own_failure(self, pool: ThreadPoolExecutor, watched: Watched) -> None:
        """Where far is down nobody is told so by another's word."""

        def answers(number: int) -> str:
            raise UnavailableError("far", str(number))

        flights, gate = Flights(60, watched), Gate(answers)
        joined = [pool.submit(self.join, flights, gate) for _ in range(5)]
        watched.until_waiting(4)
        gate.open.set()
        assert {str(future.exception(30).cause) for future in joined} == set("12345")  # type: ignore[union-attr]

    def test_nobody_waits_for_ever(self, pool: ThreadPoolExecutor, watched: Watched) -> None:
        """After the time that one waits for others one asks for oneself."""
        flights, gate = Flights(60, watched), Gate(lambda number: "late")
        leader = pool.submit(self.join, flights, gate)
        assert gate.begun.wait(30)
        followers = [pool.submit(self.join, flights, gate) for _ in range(10)]
        watched.until_waiting(10)
        watched.time = 59.0
        assert not any(future.done() for future in followers)
        watched.time = 60.0
        assert {future.result(30) for future in followers} == {"alone"}
        gate.open.set()
        assert leader.result(30) == "late"

    def test_the_time_counts_for_all_leaders(self, pool: ThreadPoolExecutor, watched: Watched) -> None:
        """Who waits for one that fails, and then for the next, waits no longer in all."""
        flights = Flights(60, watched)
        first, second = Gate(lambda _: 1 / 0), Gate(lambda _: "late")
        leader = pool.submit(self.join, flights, first)
        assert first.begun.wait(30)
        followers = [pool.submit(self.join, flights, second) for _ in range(2)]
        watched.until_waiting(2)
        watched.time = 59.0
        first.open.set()
        assert second.begun.wait(30)
        assert isinstance(leader.exception(30), ZeroDivisionError)
        watched.until_waiting(1)
        watched.time = 60.0
        done = {future.result(30) for future in followers if future.done() or not second.open.set()}
        assert done <= {"alone", "late"}

    def test_an_answer_comes_before_the_leader_is_done(self, pool: ThreadPoolExecutor) -> None:
        """Nobody waits for what the leader still has to do with it, not even who comes then."""
        flights, gate = Flights(), Gate(lambda _: None)

        def lead(flight: Flight[str]) -> str:
            flight.give("answer")
            gate()
            return "kept"

        leader = pool.submit(flights.join, "key", lead, lambda: "alone")
        assert gate.begun.wait(30)
        assert flights.join("key", lead, lambda: "alone") == "answer"
        gate.open.set()
        assert leader.result(30) == "kept"


class Counting(MemoryBlobService):
    """Far that counts what it is asked for, and holds back its answers until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[Any] = Counter()
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.bytes = self.calls = 0

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        with self.lock:
            self.calls += 1
            self.asked.update(list(sizes))
        assert self.gate.wait(30)
        found = super().get_chunks(sizes)
        with self.lock:
            self.bytes += sum(len(data) for data in found.values() if isinstance(data, bytes))
        return found

    def chunks(self, digest: B3Digest) -> Any:
        with self.lock:
            self.asked["index"] += 1
        return super().chunks(digest)


@pytest.fixture
def counting(far: Any) -> Counting:
    """A far that has a blob of eight chunks."""
    far.write(P3M.data)
    counting = Counting()
    for meta in far.chunks(P3M.digest):
        counting.put_chunk(meta.digest, far.get_chunk(meta.digest))
    counting.put_index(P3M.digest, far.chunks(P3M.digest))
    return counting


class TestManyReaders:
    @pytest.mark.parametrize(
        ("kind", "workers"), [("memory", 0), ("memory", 8), ("smallest", 2), ("objects", 2)]
    )
    def test_a_hundred_threads_ask_far_for_each_chunk_once(
        self,
        pool: ThreadPoolExecutor,
        counting: Counting,
        smallest: Any,
        near: Any,
        workers: int,
        kind: str,
    ) -> None:
        """Whatever near is, and wherever chunks are fetched; near has the blob in the end."""
        inner = {"memory": MemoryBlobService, "smallest": smallest, "objects": lambda: near}[kind]()
        cache = CacheBlobService(inner, counting, pool=Pool(workers))
        begin = threading.Barrier(100)

        def read(_: int) -> bytes:
            begin.wait(30)
            return cache.read(P3M.digest)

        counting.gate.set()
        assert set(pool.map(read, range(100))) == {P3M.data}
        del counting.asked["index"]
        assert dict(counting.asked) == {meta.digest: 1 for meta in counting._indexes[P3M.digest]}
        assert inner.read(P3M.digest) == P3M.data

    def test_also_of_single_chunks_and_where_nothing_is_kept(
        self, pool: ThreadPoolExecutor, counting: Counting, watched: Watched
    ) -> None:
        """Those who come while it is asked for get what comes."""
        cache = CacheBlobService(MemoryBlobService(), counting, fill="none", clock=watched)
        meta = counting._indexes[P3M.digest][0]
        source = cache._chunks
        got = [pool.submit(source.get_chunk, meta.digest, meta.size) for _ in range(50)]
        watched.until_waiting(49)
        counting.gate.set()
        assert {B3Digest.of(future.result(30)) for future in got} == {meta.digest}
        assert counting.asked == {meta.digest: 1}

    @pytest.mark.parametrize("fill", ["chunks", "blob"])
    def test_a_small_blob_in_one_piece(
        self, pool: ThreadPoolExecutor, smallest: Any, near: Any, fill: Any
    ) -> None:
        """A far without chunks is read once."""
        far = smallest()
        far.write(P3M.data)
        cache = CacheBlobService(near, far, fill=fill)
        assert set(pool.map(cache.read, [P3M.digest] * 100)) == {P3M.data}
        assert far.reads == 1

    def test_a_large_blob_in_one_piece(self, pool: ThreadPoolExecutor, smallest: Any, near: Any) -> None:
        """One that is to be whole in near is copied there once, and read there by all."""
        far = smallest()
        far.write(BIG)
        copied: list[int] = []

        class Reads(smallest):  # type: ignore[misc]
            def open_read(self, digest: B3Digest) -> BlobReader | None:
                reader = far.open_read(digest)
                piece_at = reader.piece_at

                def counted(position: int) -> memoryview:
                    copied.append(position)
                    return piece_at(position)

                reader.piece_at = counted
                return reader

            def has(self, digest: B3Digest) -> bool:
                return far.has(digest)

        cache = CacheBlobService(near, Reads(), fill="blob")
        assert set(pool.map(cache.read, [BIG_DIGEST] * 20)) == {BIG}
        assert len(copied) == len(set(copied))

    def test_a_second_reader_does_not_wait_for_a_first_that_is_slow(self, smallest: Any, near: Any) -> None:
        """While one copies a large blob as slowly as it reads it, the next brings all of it to near."""
        far = smallest()
        far.write(BIG)
        cache = CacheBlobService(near, far)
        with cache.open_read(BIG_DIGEST) as first:  # type: ignore[union-attr]
            first.read(10)
            assert cache.read(BIG_DIGEST) == BIG
            reads = far.reads
            assert cache.read(BIG_DIGEST) == BIG
            assert far.reads == reads
            assert first.read() == BIG[10:]

    def test_a_reader_that_is_closed_harms_no_other(
        self, pool: ThreadPoolExecutor, counting: Counting, watched: Watched
    ) -> None:
        """Though it was the one that asked far, for all others."""
        workers = Pool(4)
        cache = CacheBlobService(MemoryBlobService(), counting, pool=workers, clock=watched)
        leader = cache.open_read(P3M.digest)
        assert leader is not None
        reading = pool.submit(leader.read)
        while len(counting.asked) < 4:
            threading.Event().wait(0.001)
        others = [pool.submit(cache.read, P3M.digest) for _ in range(5)]
        watched.until_waiting(5)
        closing = pool.submit(leader.close)
        counting.gate.set()
        assert {future.result(30) for future in others} == {P3M.data}
        reading.exception(30)
        closing.exception(30)
        counts = [count for key, count in counting.asked.items() if key != "index"]
        assert set(counts) == {1}
        workers.close()

    def test_a_leader_that_hangs_is_waited_for_no_longer_than_it_says(
        self, pool: ThreadPoolExecutor, counting: Counting, watched: Watched
    ) -> None:
        """The others ask far for themselves."""
        cache = CacheBlobService(MemoryBlobService(), counting, fill_wait=7, clock=watched)
        meta = counting._indexes[P3M.digest][0]
        leader = pool.submit(cache._chunks.get_chunk, meta.digest)
        while not counting.asked:
            threading.Event().wait(0.001)
        hanging, counting.gate = counting.gate, threading.Event()
        counting.gate.set()
        follower = pool.submit(cache._chunks.get_chunk, meta.digest)
        watched.until_waiting(1)
        assert not follower.done()
        watched.time = 7.0
        assert B3Digest.of(follower.result(30)) == meta.digest
        hanging.set()
        assert B3Digest.of(leader.result(30)) == meta.digest

    @pytest.mark.parametrize("size", [None, len(HELLO.data)])
    def test_a_blob_in_one_piece_and_a_chunk_of_the_same_digest(
        self, pool: ThreadPoolExecutor, watched: Watched, size: int | None
    ) -> None:
        """Who wants a chunk is not given what a reader of the blob waits for."""
        opening = Gate(lambda _: None)

        class Slow(MemoryBlobService):
            def open_read(self, digest: B3Digest) -> BlobReader | None:
                opening()
                return super().open_read(digest)

        far = Slow()
        far.write(HELLO.data)
        cache = CacheBlobService(MemoryBlobService(), far, clock=watched)
        reading = pool.submit(cache.read, HELLO.digest)
        assert opening.begun.wait(30)
        chunk = pool.submit(cache._chunks.get_chunk, HELLO.digest, size)
        while not chunk.done() and not watched.waiting:
            threading.Event().wait(0.001)
        opening.open.set()
        assert chunk.result(30) == HELLO.data
        assert reading.result(30) == HELLO.data

    def test_what_has_come_meanwhile_is_not_asked_for(self, counting: Counting) -> None:
        """Between a look into near and the request to far another reader may have brought it."""
        near = MemoryBlobService()
        cache = CacheBlobService(near, counting)
        meta = counting._indexes[P3M.digest][0]
        counting.gate.set()
        missing = near.get_chunks

        def look(_: object) -> FoundChunks:
            # The other one comes just after near was asked in vain.
            near.get_chunks = missing  # type: ignore[method-assign]
            assert cache._chunks.get_chunk(meta.digest, meta.size)
            return {}

        near.get_chunks = look  # type: ignore[method-assign]
        assert cache._chunks.get_chunk(meta.digest, meta.size)
        assert counting.asked == {meta.digest: 1}


class TestRanges:
    def test_a_part_moves_little_more_than_itself(self, far: Any, near: Any) -> None:
        """1 MiB in the middle moves 1 MiB, two chunks and the index at most; the rest comes later, alone."""
        data = b"".join(B3Digest.of(bytes([n % 256, n // 256])) * 4096 for n in range(128))
        small = type(far)(far._store, avg_chunk_size=65536, pool=Pool(0))
        digest = small.write(data)
        counting = Counting()
        counting.gate.set()
        for meta in small.chunks(digest):
            counting.put_chunk(meta.digest, small.get_chunk(meta.digest))
        counting.put_index(digest, small.chunks(digest))
        index = counting._indexes[digest]
        largest = max(meta.size for meta in index)
        for pieces in (1, 16, 300):
            counting.bytes = 0
            workers = Pool(4)
            cache = CacheBlobService(MemoryBlobService(), counting, pool=workers)
            with cache.open_read(digest) as reader:  # type: ignore[union-attr]
                reader.seek(7 << 20)
                got = b"".join(reader.read(-(-(1 << 20) // pieces)) for _ in range(pieces))[: 1 << 20]
            assert got == data[7 << 20 : 8 << 20]
            assert counting.bytes <= (1 << 20) + 2 * largest
            part = counting.bytes
            assert cache.read(digest) == data
            assert counting.bytes - part == sum({meta.digest: meta.size for meta in index}.values()) - part
            workers.close()

    def test_what_is_asked_for_is_fetched_at_once(self, counting: Counting, pool: ThreadPoolExecutor) -> None:
        """A read of many chunks asks for several of them before the first has come, where that is slow."""
        workers = Pool(4)
        counting.high_latency = True
        cache = CacheBlobService(MemoryBlobService(), counting, pool=workers)
        reading = pool.submit(cache.read, P3M.digest)
        while len(counting.asked) < 9:  # All chunks, and the index.
            threading.Event().wait(0.001)
        counting.gate.set()
        assert reading.result(30) == P3M.data
        workers.close()


class Place(MemoryBlobService, SharedPlace):
    """Near that others use, too, played by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.others: dict[B3Digest, int] = {}
        """At how many tries others are still at a digest."""
        self.tries = 0
        self.left = 0
        self.inside = 0
        self.unflushed: dict[B3Digest, bytes] = {}
        self.meanwhile: Callable[[], object] = lambda: None

    @contextlib.contextmanager
    def try_alone(self, digests: Collection[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        self.tries += 1
        alone = frozenset(digest for digest in digests if self.tries > self.others.get(digest, 0))
        if alone:
            self.meanwhile()
        self.inside += 1
        try:
            yield alone
        finally:
            self.inside -= 1
            self.left += 1

    def find_unflushed(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, bytes]:
        return {digest: self.unflushed[digest] for digest in sizes if digest in self.unflushed}


class Hurried(Clock):
    """Nothing comes while one waits, and the time passes."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []
        self.on_wait: Callable[[], object] = lambda: None

    def now(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        assert seconds is not None
        self.on_wait()
        self.waits.append(seconds)
        self.time += seconds
        return event.is_set()


class TestTurns:
    """What processes that share near do, with the others played by the test."""

    def take(self, place: Place, clock: Clock, wait: float = 60) -> str:
        near = Near(place, "root", alone=False)
        turns = ProcessTurns(near, wait, clock)
        return turns.take_one(
            HELLO.digest,
            look=lambda: "found" if place.has(HELLO.digest) or place.unflushed else None,
            bring=lambda: "brought",
        )

    def test_alone(self) -> None:
        place = Place()
        assert self.take(place, Hurried()) == "brought"
        assert (place.tries, place.left) == (1, 1)

    def test_another_is_done_before_it_is_this_ones_turn(self) -> None:
        """What it has brought is found, and far is not asked."""
        place = Place()
        place.meanwhile = lambda: place.write(HELLO.data)
        assert self.take(place, Hurried()) == "found"

    def test_another_is_at_it_and_gives_way(self) -> None:
        """One looks again, ever more seldom; who dies gives way at once."""
        place, clock = Place(), Hurried()
        place.others[HELLO.digest] = 20
        assert self.take(place, clock) == "brought"
        assert place.left == place.tries == 21
        assert clock.waits == sorted(clock.waits)
        assert max(clock.waits) == 0.05

    def test_another_takes_too_long(self) -> None:
        """Then one brings it for oneself."""
        place, clock = Place(), Hurried()
        place.others[HELLO.digest] = 1 << 30
        assert self.take(place, clock, wait=9) == "brought"
        assert 9 <= clock.time < 9.1

    def test_of_many_those_that_are_this_ones_are_brought_before_others_are_waited_for(self) -> None:
        """And no turn is held meanwhile, so that processes cannot wait for each other in a circle."""
        place, clock = Place(), Hurried()
        mine, others, found = (B3Digest.of(bytes([number])) for number in range(3))
        place.others |= {others: 3, found: 1 << 30}
        steps: list[object] = []

        def look(digests: Collection[B3Digest]) -> dict[B3Digest, str]:
            return {digest: "found" for digest in digests if digest == found and place.tries > 1}

        def bring(digests: Collection[B3Digest]) -> dict[B3Digest, str]:
            steps.append(set(digests))
            return dict.fromkeys(digests, "brought")

        clock.on_wait = lambda: steps.append(place.inside)
        turns = ProcessTurns(Near(place, "root", alone=False), 60, clock)
        answers = turns.take([mine, others, found], look=look, bring=bring)
        assert answers == {mine: "brought", others: "brought", found: "found"}
        assert steps == [{mine}, 0, 0, 0, {others}]

    @pytest.mark.parametrize("step", ["try_alone", "enter", "exit"])
    def test_a_near_that_cannot_do_it_is_done_without(self, step: str, far: Any) -> None:
        """Reading is not harmed by what fails there."""
        place = Place()

        class Turn:
            def __init__(self, digests: Collection[B3Digest]) -> None:
                self.digests = frozenset(digests)

            def __enter__(self) -> frozenset[B3Digest]:
                if step == "enter":
                    raise UnavailableError("near", "cannot be locked")
                return self.digests

            def __exit__(self, *_: object) -> None:
                if step == "exit":
                    raise UnavailableError("near", "cannot be unlocked")

        def try_alone(digests: Collection[B3Digest]) -> Turn:
            if step == "try_alone":
                raise UnavailableError("near", "cannot be locked")
            return Turn(digests)

        place.try_alone = try_alone  # type: ignore[assignment]
        far.write(P3M.data)
        cache = CacheBlobService(place, far)
        assert cache.read(P3M.digest) == P3M.data
        assert place.read(P3M.digest) == P3M.data
        assert cache.gauges()["near_errors"] == len(far.chunks(P3M.digest))

    def test_what_another_has_not_flushed_is_found(self, far: Any, far_store: Any) -> None:
        """Its bytes are read; it is for the other one to keep them."""
        place = Place()
        far.write(HELLO.data)
        far_store.take_requests()
        place.unflushed[HELLO.digest] = HELLO.data
        cache = CacheBlobService(place, far)
        assert cache._chunks.get_chunk(HELLO.digest, 12) == HELLO.data
        assert far_store.take_requests() == []
        assert not place.has(HELLO.digest)


def test_sizes_are_checked_for_each(counting: Counting) -> None:
    """Who has a wrong size in an index is told so, though another has fetched the chunk by the right one."""
    cache = CacheBlobService(MemoryBlobService(), counting)
    meta: ChunkMeta = counting._indexes[P3M.digest][0]
    counting.gate.set()
    service: BlobService = cache
    assert service.has(meta.digest)
    cache._flights.join_many = lambda keys, *_: {  # type: ignore[method-assign]
        key: Brought(bytes(meta.size)) for key in keys
    }
    with pytest.raises(Exception, match="but its index says 5"):
        cache._chunks.get_chunk(meta.digest, 5)
