"""What wrappers do with each operation of the table: none is forgotten, and no wrapper has a list of its own.

`CASES` has, for each operation, arguments and an answer. A new row in `castore.contract.operations` needs one
there, and is then held to all of this.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    CastoreError,
    CorruptBlobError,
    UnavailableError,
)
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
    SharedPlace,
)
from castore.contract.inputs import InputFile
from castore.contract.operations import DIRECTORY_OPERATIONS, OPERATIONS, READER_READ, Operation
from castore.contract.upkeep import DigestRange, Evictable, Pinning, StoredItem, Sweepable
from castore.errors import BatchError
from castore.faults import READS, WRITES, FaultPlan, FaultyService
from castore.format import frames
from castore.format.chunking import FastCdc2020
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore.testing import P3M
from castore.threads.pool import Pool
from castore_wrappers.breaker.service import BreakerService
from castore_wrappers.limit.service import LimitService
from castore_wrappers.retry.patience import Policy
from castore_wrappers.retry.service import RetryService
from castore_wrappers.timeout.service import TimeoutService
from castore_wrappers.verify.service import VerifyService

SIZE: Final = 1 << 18
PARTS: Final = [P3M.data[start : start + SIZE] for start in range(0, P3M.size, SIZE)]
DATA: Final[Mapping[B3Digest, bytes]] = {B3Digest.of(part): part for part in PARTS}
"""3 MiB in twelve parts."""
FRAMES: Final = {digest: frames.compress(data) for digest, data in DATA.items()}
DIGESTS: Final = list(DATA)
FIRST: Final = DIGESTS[0]
ITEM: Final = StoredItem("chunk", "x", FIRST)


class Pieces(BytesReader):
    """A reader that is not handed on as what has its bytes in memory."""


def of_each(answer: Callable[[Any, B3Digest], object]) -> Callable[[Any, list[B3Digest]], object]:
    return lambda double, items: {digest: answer(double, digest) for digest in items}


CASES: Final[Mapping[str, tuple[tuple[Any, ...], Callable[[Any, list[Any]], object]]]] = {
    "has": ((FIRST,), lambda _, items: True),
    "missing": ((DIGESTS,), lambda _, items: set()),
    "chunks": ((FIRST,), lambda _, items: ()),
    "open_read": ((FIRST,), lambda double, _: Pieces(double.data[FIRST])),
    "read_many": ((DIGESTS,), lambda double, items: ((digest, double.data[digest]) for digest in items)),
    "open_write": ((), lambda _, items: SpooledWriter(lambda digest, file: None)),
    "list_blobs": ((), lambda _, items: iter(DIGESTS)),
    "complete": (("abcdabcd",), lambda _, items: iter(DIGESTS)),
    "delete": ((FIRST,), lambda _, items: True),
    "find_chunks": ((DIGESTS,), lambda _, items: set(items)),
    "get_chunks": ((dict.fromkeys(DIGESTS, SIZE),), of_each(lambda double, digest: double.data[digest])),
    "claim": ((DIGESTS,), lambda _, items: set(items)),
    "claim_blobs": ((dict.fromkeys(DIGESTS),), lambda _, items: set(items)),
    "put_chunks": ((DATA,), lambda _, items: None),
    "put_indexes": ((dict.fromkeys(DIGESTS, ()),), lambda _, items: None),
    "lease": ((), lambda double, _: contextlib.nullcontext(double)),
    "get_frames": ((DIGESTS,), of_each(lambda double, digest: double.frames[digest])),
    "put_frames": ((FRAMES,), lambda _, items: None),
    "try_alone": ((DIGESTS,), lambda _, items: contextlib.nullcontext(frozenset(items))),
    "find_unflushed": ((dict.fromkeys(DIGESTS),), of_each(lambda double, digest: double.data[digest])),
    "list_items": ((), lambda _, items: iter([ITEM])),
    "list_items_in": ((DigestRange(),), lambda _, items: iter([ITEM])),
    "set_aside": ((ITEM,), lambda _, items: "away"),
    "sweep": (([ITEM], 0.0), lambda _, items: iter([ITEM])),
    "leased_since": ((), lambda _, items: 1.0),
    "stored_items": ((), lambda _, items: iter([ITEM])),
    "find_items": (("chunk", DIGESTS), of_each(lambda _, digest: ITEM)),
    "residue_of": (("chunk", DIGESTS), lambda _, items: [*items]),
    "remove": (([ITEM],), lambda _, items: None),
    "flush": ((), lambda _, items: None),
    "make_state_folder": ((), lambda _, items: None),
    "free_bytes": ((), lambda _, items: 99),
    "pin": ((DIGESTS,), lambda _, items: contextlib.nullcontext()),
}

ROWS: Final = [row for row in OPERATIONS.values() if not row.idle]
METHODS: Final = [row for row in ROWS if row.capability is not None]
WITHIN: Final = [row for row in METHODS if row != "has"]
"""Those that reach what is within a wrapper, where `has` is made of `missing`."""
BATCHES: Final = [row for row in WITHIN if row.items is not None and row.yields in {None, "iterator"}]
IN_PARTS: Final = [row for row in BATCHES if row.yields is None and (row.receives or row.writes)]


def test_there_is_a_case_of_each() -> None:
    assert CASES.keys() == set(METHODS)


class Answering:
    """Gives the answers of `CASES`, and notes what it is asked for.

    `lose` is called with the operation and its items before there is an answer: it raises, or returns the
    items that are lost.
    """

    durability = "full"
    frame_format = "zstd"
    pool = Pool(0)

    def __init__(self) -> None:
        self.data = dict(DATA)
        self.frames = dict(FRAMES)
        self.asked: list[tuple[str, list[Any]]] = []
        self.lose: Callable[[str, list[Any]], list[Any]] = lambda operation, items: []

    def answer(self, row: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        # By this an iterator is at its end.
        name = row.items or next(iter(row.iterables), None)
        items = [] if name is None else list(row.argument(name, args, kwargs))
        self.asked.append((str(row), items))
        lost = {item: UnavailableError("within", "lost") for item in self.lose(row, items)}
        if lost and row.writes:
            raise BatchError("within", lost, done=set(items) - lost.keys())
        answer: Any = CASES[row][1](self, items)
        return {**answer, **lost} if lost else answer

    def new_chunker(self) -> Any:
        return FastCdc2020()

    def on_evict(self, callback: object) -> Any:
        raise NotImplementedError


def answering(*kinds: type) -> type[Any]:
    """Return a class of services with these capabilities."""

    def method(row: Operation) -> Callable[..., Any]:
        return lambda self, *args, **kwargs: self.answer(row, args, kwargs)

    methods = {
        str(row): method(row) for row in METHODS if any(issubclass(kind, row.capability) for kind in kinds)
    }
    return type("Double", (Answering, *kinds), methods)


Bare: Final = answering(BlobService)
Full: Final = answering(
    BlobService, BlobLister, BlobDeleter, ChunkStore, FrameStore, EvictionEvents, SharedPlace, Durable,
    Sweepable, Evictable, Pinning,
)  # fmt: skip


def within(row: Operation) -> Any:
    """Return a service that is asked for this operation, and not for chunks instead."""
    return Bare() if row.capability in {None, BlobService} else Full()


def do(service: BlobService, row: Operation, *, by_name: bool = False) -> Any:
    """Do an operation, with iterators where it takes such; return all that comes of it."""
    match str(row):
        case "reader.read":
            with service.open(FIRST) as reader:
                return reader.read()
        case "writer.write":
            with service.open_write() as writer:
                return [writer.write(part) for part in PARTS]
        case "writer.fill":
            with service.open_write() as writer:
                source = InputFile(io.BytesIO(P3M.data), "x")
                return sum(iter(lambda: writer.fill(source), 0))
        case "writer.close":
            return service.open_write().close()
    assert row.capability is not None
    door: Any = service if row.capability is BlobService else service.capability(row.capability)
    args, kwargs = CASES[row][0], {}
    for name in row.iterables:
        args, kwargs = row.with_argument(name, iter(row.argument(name, args, kwargs)), args, kwargs)
    if row == "sweep":
        args, kwargs = args[:1], {"older_than": args[1]}
    if by_name:
        args, kwargs = (), {**dict(zip(row._places, args, strict=False)), **kwargs}
    return whole(getattr(door, row)(*args, **kwargs))


def whole(answer: Any) -> Any:
    """Return something that can be compared, and leave nothing open."""
    match answer:
        case BlobReader():
            with answer as reader:
                return reader.read()
        case BlobWriter():
            return answer.abort()
        case contextlib.AbstractContextManager():
            with answer as value:
                return isinstance(value, ChunkStore) or value
        case Iterator():
            return list(answer)
    return answer


def once(error: Exception) -> Callable[[str, list[Any]], list[Any]]:
    """Return what fails the first time."""
    errors = [error]

    def lose(operation: str, items: list[Any]) -> list[Any]:
        if errors:
            raise errors.pop()
        return []

    return lose


DOWN: Final = UnavailableError("within", "down")


class TestRetry:
    @staticmethod
    def around(inner: Any) -> RetryService:
        return RetryService(inner, Policy(attempts=3), sleep=lambda _: None)

    @pytest.mark.parametrize("by_name", [False, True])
    @pytest.mark.parametrize("row", WITHIN)
    def test_repeats_what_may_be_repeated_and_nothing_else(self, row: Operation, by_name: bool) -> None:
        """Also where the first attempt has used up an iterator, whichever way that was given."""
        inner = within(row)
        inner.lose = once(DOWN)
        service = self.around(inner)
        if row.repeatable:
            assert do(service, row, by_name=by_name) == do(within(row), row)
        else:
            with pytest.raises(UnavailableError, match="down"):
                do(service, row, by_name=by_name)
        attempts = [items for operation, items in inner.asked if operation == row]
        assert len(attempts) == 1 + row.repeatable
        assert all(items == attempts[0] for items in attempts)

    @pytest.mark.parametrize("row", IN_PARTS)
    def test_repeats_of_a_batch_what_was_lost(self, row: Operation) -> None:
        """What was done is not asked for again, and is in the answer."""
        inner = within(row)
        inner.lose = lambda operation, items: [item for item in DIGESTS[2:5] if len(items) > 3]
        assert do(self.around(inner), row) == do(within(row), row)
        assert [items for _, items in inner.asked] == [DIGESTS, DIGESTS[2:5]]


class TestLimit:
    @pytest.mark.parametrize(
        "row", [row for row in ROWS if row.sends or row.counts or row.receives or row == "read_many"]
    )
    def test_holds_for_all_that_moves_bytes(self, clock: Any, row: Operation) -> None:
        """3 MiB, or of what is read in one piece a twelfth of that, take as many seconds as they are MiB."""
        inner = within(row)
        service = LimitService(inner, bytes_per_second=1 << 20, clock=clock, sleep=clock.sleep)
        begun = clock.now
        do(service, row)
        assert clock.now - begun == pytest.approx(0.15 if row is READER_READ else 2.9, abs=0.01)
        assert all(len(items) <= 4 for _, items in inner.asked) or row.yields == "iterator"

    @pytest.mark.parametrize("row", BATCHES)
    def test_each_item_takes_a_slot(self, row: Operation) -> None:
        """So many items are asked for at once, and no more; the answers are put together."""
        inner = within(row)
        service = LimitService(inner, concurrency=5)
        taken = []

        def note(operation: str, items: list[Any]) -> list[Any]:
            taken.append((len(items), service.gauges()["under_way"]))
            return []

        inner.lose = note
        assert do(service, row) == do(within(row), row)
        assert taken == [(5, 5), (5, 5), (2, 2)]

    @pytest.mark.parametrize("row", METHODS)
    def test_each_item_is_an_operation(self, clock: Any, row: Operation) -> None:
        """Ten may begin in a second: the twelve of a batch take as long as twelve calls."""
        inner = within(row)
        service = LimitService(inner, operations_per_second=10, clock=clock, sleep=clock.sleep)
        begun = clock.now
        do(service, row)
        # What is opened is read, or closed, as well.
        count = {"open_read": 2}.get(row, len(DIGESTS) if row.items else 1)
        assert clock.now - begun == pytest.approx((count - 1) / 10)
        assert all(len(items) <= 10 for _, items in inner.asked) or row.yields == "context"

    @pytest.mark.parametrize("row", IN_PARTS)
    def test_what_is_lost_of_a_part_is_told_with_all_that_is_done(self, row: Operation) -> None:
        """The parts after it are asked for all the same."""
        inner = within(row)
        inner.lose = lambda operation, items: [item for item in items if item in DIGESTS[3:6]]
        service = LimitService(inner, concurrency=4)
        if row.receives:
            answer = do(service, row)
            assert [digest for digest in DIGESTS if isinstance(answer[digest], CastoreError)] == DIGESTS[3:6]
        else:
            with pytest.raises(BatchError) as caught:
                do(service, row)
            assert list(caught.value.faults) == DIGESTS[3:6]
            assert caught.value.done == {*DIGESTS[:3], *DIGESTS[6:]}
        assert len(inner.asked) == 3

    @pytest.mark.parametrize("row", [row for row in BATCHES if row.yields is None])
    def test_what_does_not_answer_is_not_asked_on(self, row: Operation) -> None:
        """The parts that were answered are, if there is a way to say so."""
        inner = within(row)

        def lose(operation: str, items: list[Any]) -> list[Any]:
            if len(inner.asked) > 1:
                raise UnavailableError("within", "down")
            return []

        inner.lose = lose
        service = LimitService(inner, concurrency=4)
        if row.receives:
            answer = do(service, row)
            assert [digest for digest in DIGESTS if isinstance(answer[digest], UnavailableError)] == DIGESTS[
                4:
            ]
        else:
            with pytest.raises(UnavailableError, match="down") as caught:
                do(service, row)
            if row.writes:
                assert isinstance(caught.value, BatchError)
                assert caught.value.done == {*DIGESTS[:4]}
                assert list(caught.value.faults) == DIGESTS[4:]
        assert len(inner.asked) == 2


class TestBreaker:
    @staticmethod
    def around(inner: Any, clock: Any) -> BreakerService:
        return BreakerService(inner, failures=2, clock=clock)

    @pytest.mark.parametrize("row", WITHIN)
    def test_a_failure_of_any_operation_counts(self, clock: Any, row: Operation) -> None:
        inner = within(row)

        def lose(operation: str, items: list[Any]) -> list[Any]:
            raise UnavailableError("within", "down")

        inner.lose = lose
        breaker = self.around(inner, clock)
        for _ in range(2):
            assert breaker.state == "closed"
            try:
                answers = dict(do(breaker, row))
            except UnavailableError:
                continue
            assert row == "read_many"
            assert all(isinstance(answer, UnavailableError) for answer in answers.values())
        assert breaker.state == "open"

    @pytest.mark.parametrize("row", [row for row in ROWS if row != "writer.close"])
    def test_an_answer_of_any_operation_counts_but_for_what_is_only_gathered(
        self, clock: Any, row: Operation
    ) -> None:
        inner = within(row)
        breaker = self.around(inner, clock)

        def fail() -> None:
            inner.lose = once(UnavailableError("within", "down"))
            with pytest.raises(UnavailableError):
                breaker.missing([FIRST])

        fail()
        if row.buffered:
            writer = breaker.open_write()
            writer.write(PARTS[0])
            writer.fill(InputFile(io.BytesIO(b"x"), "x"))
            writer.abort()
        else:
            do(breaker, row)
        fail()
        assert breaker.state == ("open" if row.buffered else "closed")

    @pytest.mark.parametrize(("lost", "state"), [(12, "open"), (11, "closed")])
    @pytest.mark.parametrize("row", IN_PARTS)
    def test_a_batch_has_failed_if_no_item_was_answered(
        self, clock: Any, row: Operation, lost: int, state: str
    ) -> None:
        inner = within(row)
        inner.lose = lambda operation, items: items[:lost]
        breaker = self.around(inner, clock)
        for _ in range(2):
            with contextlib.suppress(BatchError):
                do(breaker, row)
        assert breaker.state == state

    def test_a_list_of_many_ends_when_it_opens(self, clock: Any) -> None:
        """Those that follow are refused, and not asked for."""
        asked = []

        def read_many(digests: Any) -> Iterator[tuple[B3Digest, Any]]:
            for digest in digests:
                asked.append(digest)
                yield digest, UnavailableError("within", "lost")

        inner = Bare()
        inner.read_many = read_many
        answers = list(self.around(inner, clock).read_many(DIGESTS))
        assert [digest for digest, _ in answers] == DIGESTS
        assert ["left alone" in str(answer) for _, answer in answers] == [False] * 2 + [True] * 10
        assert len(asked) == 2


class TestVerify:
    @pytest.mark.parametrize(
        "row", [row for row in ROWS if row.receives or row in {"open_read", "read_many"}]
    )
    def test_no_wrong_byte_comes_out_of_any_operation(self, row: Operation, caplog: Any) -> None:
        """Each item by itself; it is logged once."""
        inner = within(row)
        inner.data[FIRST] = b"something else"
        inner.frames[FIRST] = FRAMES[DIGESTS[1]]
        service = VerifyService(inner, name="guard")
        if row.items is None:
            with pytest.raises(CorruptBlobError):
                do(service, row)
        else:
            answer = dict(do(service, row))
            wrong = answer.pop(FIRST, None)
            assert wrong is None if row.capability is SharedPlace else isinstance(wrong, CorruptBlobError)
            assert answer == dict(list((FRAMES if row.capability is FrameStore else DATA).items())[1:])
        assert [record.getMessage()[:9] for record in caplog.records] == ["`guard`: "]


class TestFaulty:
    def test_operations_are_those_of_the_table(self) -> None:
        assert {*ROWS, *DIRECTORY_OPERATIONS} == READS | WRITES
        assert not READS & WRITES

    @staticmethod
    def fails(service: FaultyService, row: Operation) -> bool:
        try:
            answer = do(service, row)
        except UnavailableError:
            return True
        values = dict(answer).values() if row.items else ()
        return bool(values) and all(isinstance(value, UnavailableError) for value in values)

    @pytest.mark.parametrize("row", ROWS)
    def test_each_fails_when_it_is_told_to(self, row: Operation) -> None:
        inner = within(row)
        assert self.fails(FaultyService(inner, {str(row)}), row)
        assert row not in [operation for operation, _ in inner.asked]

    @pytest.mark.parametrize("row", ROWS)
    def test_each_fails_by_a_plan(self, row: Operation) -> None:
        """Each item of a batch by itself, and all that do not fail are done."""
        assert self.fails(FaultyService(within(row), plan=FaultPlan(fail=1, operations={str(row)})), row)
        if row not in IN_PARTS or row.capability is SharedPlace:
            return
        inner = within(row)
        service = FaultyService(inner, plan=FaultPlan(seed=1, fail=0.5, operations={str(row)}))
        if row.receives:
            answer = do(service, row)
            lost = {digest for digest, value in answer.items() if isinstance(value, UnavailableError)}
        else:
            with pytest.raises(BatchError) as caught:
                do(service, row)
            lost = set(caught.value.faults)
            assert caught.value.done == set(DIGESTS) - lost
        assert 2 < len(lost) < 10
        assert inner.asked == [(str(row), [digest for digest in DIGESTS if digest not in lost])]
        assert [fault.about for fault in service.faults.trace] == [
            str(digest) for digest in DIGESTS if digest in lost
        ]


class TestTimeout:
    @pytest.mark.parametrize("row", ROWS)
    def test_what_answers_in_time_is_passed_on(self, row: Operation) -> None:
        inner = within(row)
        service = TimeoutService(inner, timeout=60.0)
        assert do(service, row) == do(within(row), row)
        assert service.gauges() == {"given_up": 0, "not_returned": 0}
        service.close()

    @pytest.mark.parametrize("by_name", [False, True])
    @pytest.mark.parametrize("row", WITHIN)
    def test_what_does_not_is_given_up(self, row: Operation, by_name: bool) -> None:
        """However its arguments are given; it goes on by itself, and the next call has another thread."""
        inner, go_on = within(row), threading.Event()

        def hang(operation: str, items: list[Any]) -> list[Any]:
            go_on.wait(60)
            return []

        inner.lose = hang
        service = TimeoutService(inner, timeout=0.02)
        if row == "read_many":
            assert {type(answer) for _, answer in do(service, row)} == {UnavailableError}
        else:
            with pytest.raises(
                UnavailableError, match=r"`timeout` is unavailable: no answer within 0\.0\d s$"
            ):
                do(service, row, by_name=by_name)
        assert service.gauges() == {"given_up": 1, "not_returned": 1}
        inner.lose = lambda operation, items: []
        service.timeout = 60.0
        assert do(service, row) == do(within(row), row)
        go_on.set()
        deadline = time.monotonic() + 30
        while service.gauges()["not_returned"] and time.monotonic() < deadline:
            time.sleep(0.001)
        assert service.gauges() == {"given_up": 1, "not_returned": 0}
        service.close()
