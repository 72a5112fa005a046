"""The `breaker` type: a service that fails is left alone, and tried again by exactly one request."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobService,
    Composition,
    CompositionError,
    CorruptBlobError,
    SourceError,
    UnavailableError,
    from_url,
)
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.faults import WRITES
from castore.testing import HELLO, P3M, FaultyService
from castore_memory.service import MemoryBlobService
from castore_wrappers.breaker.service import BreakerService


@pytest.fixture
def within() -> FaultyService:
    return FaultyService(MemoryBlobService(), instance="far")


@pytest.fixture
def breaker(within: FaultyService, clock: Any) -> BreakerService:
    return BreakerService(within, failures=3, open_for=30.0, name="gate", clock=clock)


def fail(service: BlobService, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(UnavailableError):
            service.has(HELLO.digest)


@pytest.fixture
def opened(within: FaultyService, breaker: BreakerService) -> BreakerService:
    """One that has just opened; what is within fails no more."""
    within.failing = {"missing"}
    fail(breaker, 3)
    within.failing = set()
    within.calls.clear()
    return breaker


class TestClosed:
    def test_opens_after_failures_in_a_row(self, within: FaultyService, breaker: BreakerService) -> None:
        """As many as it says, each of which was asked for; not one less."""
        within.failing = {"missing"}
        fail(breaker, 2)
        assert breaker.state == "closed"
        fail(breaker)
        assert breaker.state == "open"
        assert within.calls == ["missing"] * 3

    def test_an_answer_begins_the_count_anew(self, within: FaultyService, breaker: BreakerService) -> None:
        """Only failures in a row count."""
        for _ in range(5):
            within.failing = {"missing"}
            fail(breaker, 2)
            within.failing = set()
            breaker.has(HELLO.digest)
        assert breaker.state == "closed"

    def test_absent_and_corrupt_are_answers(self, clock: Any) -> None:
        """They neither open it nor let the count stand."""

        class Bad(MemoryBlobService):
            fails = False

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                if self.fails:
                    raise UnavailableError("bad", "not now")
                raise CorruptBlobError("bad", expected=HELLO.digest)

        bad = Bad()
        breaker = BreakerService(bad, failures=2, clock=clock)
        for _ in range(5):
            bad.fails = True
            fail(breaker)
            bad.fails = False
            with pytest.raises(CorruptBlobError):
                breaker.has(HELLO.digest)
            bad.fails = True
            fail(breaker)
            assert breaker.open_read(HELLO.digest) is None
        assert breaker.state == "closed"

    def test_errors_that_are_no_answers_change_nothing(self, clock: Any) -> None:
        """A mistake in a program neither counts nor makes up for a failure."""

        class Wrong(MemoryBlobService):
            error: Exception = UnavailableError("wrong", "not now")

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                raise self.error

        wrong = Wrong()
        breaker = BreakerService(wrong, failures=2, clock=clock)
        fail(breaker)
        wrong.error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            breaker.has(HELLO.digest)
        wrong.error = UnavailableError("wrong", "not now")
        assert breaker.state == "closed"
        fail(breaker)
        assert breaker.state == "open"

    def test_what_a_writer_only_takes_is_no_answer(self, clock: Any) -> None:
        """Writers gather bytes: only when they close does one see whether the service is there."""
        within = FaultyService(MemoryBlobService(), {"writer.close"}, capabilities=False, instance="far")
        breaker = BreakerService(within, failures=3, clock=clock)
        for _ in range(3):
            with pytest.raises(UnavailableError, match="`far`"):
                breaker.write(HELLO.data)
        assert breaker.state == "open"

    def test_a_file_that_cannot_be_read_is_no_answer(
        self, within: FaultyService, breaker: BreakerService, tmp_path: Path
    ) -> None:
        """It says nothing about the service, whose failures go on counting."""

        class Broken(io.RawIOBase):
            def readinto(self, buffer: Any) -> int:
                raise OSError("no more")

        within.failing = {"missing"}
        fail(breaker, 2)
        with pytest.raises(SourceError):
            breaker.put_file(Broken())  # type: ignore[arg-type]
        fail(breaker)
        assert breaker.state == "open"

    def test_files_count(self, within: FaultyService, breaker: BreakerService, tmp_path: Path) -> None:
        """That a file, or many, could not be stored is a failure, and is not even tried when it is open."""
        (tmp_path / "file").write_bytes(HELLO.data)
        within.failing = set(WRITES)
        for _ in range(3):
            with pytest.raises(UnavailableError):
                breaker.put_file(tmp_path / "file")
        within.calls.clear()
        with pytest.raises(UnavailableError, match="left alone"):
            breaker.put_file(tmp_path / "file")
        with pytest.raises(UnavailableError, match="left alone"):
            list(breaker.put_files([tmp_path / "file"]))
        assert within.calls == []

    def test_readers_and_capabilities_count(self, clock: Any) -> None:
        """A piece that cannot be read, and a chunk that cannot be put, are failures as any other."""
        with from_url("objectstore+memory:") as inner:
            digest = inner.write(P3M.data)
            within = FaultyService(inner, {"reader.read", "put_chunks"})
            breaker = BreakerService(within, failures=2, clock=clock)
            store = breaker.capability(ChunkStore)
            reader = breaker.open_read(digest)
            assert store is not None
            assert reader is not None
            with reader:
                with pytest.raises(UnavailableError):
                    reader.read()
                with pytest.raises(UnavailableError):
                    store.put_chunk(HELLO.digest, HELLO.data)
                assert breaker.state == "open"
                within.calls.clear()
                with pytest.raises(UnavailableError, match="left alone"):
                    reader.read()
            assert within.calls == []

    def test_a_reader_of_bytes_in_memory_is_handed_on(self) -> None:
        """Nothing can fail in it any more."""
        inner = MemoryBlobService()
        inner.write(HELLO.data)
        with BreakerService(inner).open_read(HELLO.digest) as reader:  # type: ignore[union-attr]
            assert type(reader) is type(inner.open_read(HELLO.digest))


class TestOpen:
    @pytest.mark.parametrize(
        "ask",
        [
            lambda service: service.has(HELLO.digest),
            lambda service: service.missing([HELLO.digest]),
            lambda service: service.chunks(HELLO.digest),
            lambda service: service.open_read(HELLO.digest),
            lambda service: service.open_write(),
            lambda service: list(service.capability(BlobLister).list_blobs()),
        ],
        ids=["has", "missing", "chunks", "open_read", "open_write", "list_blobs"],
    )
    def test_nothing_is_asked(
        self, opened: BreakerService, within: FaultyService, clock: Any, ask: Callable[[Any], object]
    ) -> None:
        """Every operation is refused, with the instance, the time that is left, and the last failure."""
        clock.now += 18.0
        with pytest.raises(UnavailableError) as caught:
            ask(opened)
        assert str(caught.value) == (
            "`gate` is unavailable: left alone for 12 s more, "
            "after: `far` is unavailable: told to fail at missing"
        )
        assert within.calls == []

    def test_what_began_before_changes_nothing(self, clock: Any) -> None:
        """A request that was on its way when it opened neither closes it nor prolongs it."""
        began, go = threading.Barrier(2), threading.Event()

        class Slow(MemoryBlobService):
            def chunks(self, digest: B3Digest) -> Any:
                began.wait(10)
                assert go.wait(10)
                return None

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                raise UnavailableError("slow", "not now")

        breaker = BreakerService(Slow(), failures=1, open_for=30.0, clock=clock)
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(breaker.chunks, HELLO.digest)
            began.wait(10)
            fail(breaker)
            go.set()
            assert late.result() is None
        assert breaker.state == "open"


class TestHalfOpen:
    def test_an_answer_closes_it(self, opened: BreakerService, within: FaultyService, clock: Any) -> None:
        """When its time is over one request goes through; if that is answered, all do."""
        clock.now += 29.9
        fail(opened)
        clock.now += 0.1
        assert opened.state == "half-open"
        assert opened.has(HELLO.digest) is False
        assert opened.state == "closed"
        opened.has(HELLO.digest)
        assert within.calls == ["missing", "missing"]

    def test_after_closing_it_counts_from_the_start(
        self, opened: BreakerService, within: FaultyService, clock: Any
    ) -> None:
        """What failed before is forgotten."""
        clock.now += 30
        opened.has(HELLO.digest)
        within.failing = {"missing"}
        fail(opened, 2)
        assert opened.state == "closed"

    def test_a_failure_opens_it_again(
        self, opened: BreakerService, within: FaultyService, clock: Any
    ) -> None:
        """One failed probe is enough, and the time begins anew."""
        within.failing = {"missing"}
        clock.now += 30
        fail(opened, 5)
        assert within.calls == ["missing"]
        assert opened.state == "open"
        clock.now += 29.9
        fail(opened)
        assert within.calls == ["missing"]
        clock.now += 0.1
        fail(opened)
        assert within.calls == ["missing", "missing"]

    def test_exactly_one_request_goes_through(self, clock: Any) -> None:
        """However many come at once, one is the probe and the others are refused while it is on its way."""
        began, go = threading.Event(), threading.Event()
        asked: list[B3Digest] = []

        class Slow(MemoryBlobService):
            fails = True

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                if self.fails:
                    raise UnavailableError("slow", "not now")
                asked.extend(digests)
                began.set()
                assert go.wait(10)
                return set()

        slow = Slow()
        breaker = BreakerService(slow, failures=1, open_for=30.0, clock=clock)
        fail(breaker)
        slow.fails = False
        clock.now += 30

        def ask(_: int) -> bool | None:
            try:
                return breaker.has(HELLO.digest)
            except UnavailableError:
                return None

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, number) for number in range(8)]
            assert began.wait(10)
            for _ in range(3):
                assert ask(0) is None
            assert breaker.state == "half-open"
            go.set()
            results = [answer.result() for answer in answers]
        # Whoever came after the probe had its answer was let through as well.
        assert results.count(True) == len(asked) >= 1
        assert breaker.state == "closed"

    def test_a_probe_that_hangs_does_not_keep_it_open_for_ever(self, clock: Any) -> None:
        """After the time that it is left alone there is another; the first one's end means nothing then."""
        began, go = threading.Event(), threading.Event()

        class Hanging(MemoryBlobService):
            fails = True

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                if self.fails:
                    raise UnavailableError("hanging", "not now")
                return set(digests)

            def chunks(self, digest: B3Digest) -> Any:
                began.set()
                assert go.wait(10)
                raise UnavailableError("hanging", "at last")

        hanging = Hanging()
        breaker = BreakerService(hanging, failures=1, open_for=30.0, clock=clock)
        fail(breaker)
        hanging.fails = False
        clock.now += 30
        with ThreadPoolExecutor(1) as pool:
            probe = pool.submit(breaker.chunks, HELLO.digest)
            assert began.wait(10)
            fail(breaker)
            clock.now += 30
            assert breaker.has(HELLO.digest) is False
            go.set()
            with pytest.raises(UnavailableError, match="at last"):
                probe.result()
        assert breaker.state == "closed"

    def test_a_probe_that_says_nothing_makes_room_for_the_next(
        self, opened: BreakerService, within: FaultyService, clock: Any
    ) -> None:
        """A writer that takes bytes is let through, up to the moment that tells."""
        clock.now += 30
        writer = opened.open_write()
        assert opened.state == "half-open"
        writer.write(HELLO.data)
        assert opened.state == "half-open"
        assert writer.close() == HELLO.digest
        assert opened.state == "closed"

    def test_an_interrupted_probe_makes_room_for_the_next(self, clock: Any) -> None:
        """Who gives up waiting does not leave the others outside."""

        class Interrupted(MemoryBlobService):
            errors: list[BaseException] = [UnavailableError("i", "not now"), KeyboardInterrupt()]  # noqa: RUF012

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                if self.errors:
                    raise self.errors.pop(0)
                return set()

        breaker = BreakerService(Interrupted(), failures=1, open_for=30.0, clock=clock)
        fail(breaker)
        clock.now += 30
        with pytest.raises(KeyboardInterrupt):
            breaker.has(HELLO.digest)
        assert breaker.has(HELLO.digest) is True


def test_transitions_are_logged(
    within: FaultyService, breaker: BreakerService, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each once: that it opens, with the reason, and that it closes."""
    caplog.set_level("INFO", "castore_wrappers.breaker")
    within.failing = {"missing"}
    fail(breaker, 6)
    clock.now += 30
    fail(breaker)
    within.failing = set()
    clock.now += 30
    breaker.has(HELLO.digest)
    assert [record.getMessage() for record in caplog.records] == [
        "`gate`: left alone after 3 failures in a row: `far` is unavailable: told to fail at missing",
        "`gate`: it answers again",
    ]


class TestConfig:
    def test_defaults_and_units(self) -> None:
        tables = {"root": {"type": "breaker", "inner": "memory:", "failures": 1, "open_for": "250 ms"}}
        with Composition.from_mapping({"blobservices": tables}) as stores:
            service = stores.blobs()
            assert isinstance(service, BreakerService)
            assert service.state == "closed"

    @pytest.mark.parametrize(
        ("field", "why"), [({"failures": 0}, "failures"), ({"open_for": "soon"}, "open_for"), ({}, "inner")]
    )
    def test_refused(self, field: dict[str, Any], why: str) -> None:
        table = {"type": "breaker", **({"inner": "memory:"} if field else {}), **field}
        with pytest.raises(CompositionError, match=why):
            Composition.from_mapping({"blobservices": {"root": table}})
