"""The `retry` type: what is unavailable is asked again, after the waits that it says, and no longer."""

from __future__ import annotations

import gc
import io
import os
import random
import threading
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    CastoreError,
    Composition,
    CompositionError,
    CorruptBlobError,
    SourceChangedError,
    UnavailableError,
    UnsupportedError,
    WriterClosedError,
    from_url,
)
from castore.contract.blobs import Answer
from castore.contract.capabilities import BlobLister, ChunkSource, ChunkStore, FoundChunks
from castore.contract.inputs import open_input
from castore.contract.operations import Operation
from castore.errors import BatchError
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore.testing import CHUNKS, EMPTY, HELLO, P3M, FaultyService
from castore.wrapping.wrapper import WrapperService
from castore_memory.service import MemoryBlobService
from castore_wrappers.retry.patience import Patience, Policy
from castore_wrappers.retry.service import RetryService

STEADY: Final = Policy(attempts=4, first_delay=1.0, max_delay=30.0, jitter=0.0, deadline=1000.0)


class Flaky(WrapperService):
    """Is unavailable at the operations named in `faults`, as often as it says there."""

    def __init__(self, inner: BlobService, **faults: int) -> None:
        super().__init__(inner, name="far")
        self.faults = {name.replace("__", "."): count for name, count in faults.items()}
        self.calls: list[str] = []

    def around(self, operation: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(operation)
        if self.faults.get(operation, 0) > 0:
            self.faults[operation] -= 1
            raise UnavailableError(self.name, f"{operation} is down")
        return call(*args, **kwargs)


def retrying(inner: BlobService, clock: Any, policy: Policy = STEADY, **options: Any) -> RetryService:
    return RetryService(inner, policy, name="patient", clock=clock, sleep=clock.sleep, **options)


def kind(service: BlobService, which: Callable[..., Any]) -> Any:
    found = service.capability(which)
    assert found is not None
    return found


class TestWaits:
    @pytest.mark.parametrize(
        ("policy", "waits"),
        [
            (STEADY, [1, 2, 4]),
            (attrs.evolve(STEADY, attempts=8, max_delay=5.0), [1, 2, 4, 5, 5, 5, 5]),
            (attrs.evolve(STEADY, first_delay=9.0, max_delay=5.0), [5, 5, 5]),
            (attrs.evolve(STEADY, first_delay=0.0), [0, 0, 0]),
            (attrs.evolve(STEADY, attempts=1), []),
            # No attempt at 7 s after the first, nor later.
            (attrs.evolve(STEADY, deadline=7.0), [1, 2]),
            (attrs.evolve(STEADY, deadline=7.1), [1, 2, 4]),
            (attrs.evolve(STEADY, deadline=0.0), []),
        ],
    )
    def test_are_just_these(self, clock: Any, policy: Policy, waits: list[float]) -> None:
        """Doubled each time up to the longest; none after the last attempt, none beyond the deadline."""
        flaky = Flaky(MemoryBlobService(), missing=1000)
        with pytest.raises(UnavailableError):
            retrying(flaky, clock, policy).has(HELLO.digest)
        assert clock.slept == waits
        assert len(flaky.calls) == len(waits) + 1

    def test_with_chance_are_known_by_the_seed(self, clock: Any) -> None:
        """The waits of a seed are always the same, each between half and all of what it would be."""
        policy = attrs.evolve(STEADY, attempts=6, jitter=0.5)
        with pytest.raises(UnavailableError):
            retrying(Flaky(MemoryBlobService(), missing=1000), clock, policy, dice=random.Random(7)).has(
                HELLO.digest
            )
        dice = random.Random(7)
        assert clock.slept == [full * (1 - dice.random() / 2) for full in (1, 2, 4, 8, 16)]
        assert clock.slept == pytest.approx([0.838084, 1.849151, 2.698131, 7.710255, 11.712943], abs=1e-5)

    def test_the_deadline_counts_what_attempts_take(self, clock: Any) -> None:
        """An attempt that hangs uses up the time of those after it."""

        class Slow(MemoryBlobService):
            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                clock.now += 100
                raise UnavailableError("slow", "timed out")

        with pytest.raises(UnavailableError):
            retrying(Slow(), clock, attrs.evolve(STEADY, deadline=150.0)).has(HELLO.digest)
        assert clock.slept == [1]


class TestErrors:
    def test_after_the_last_attempt(self, clock: Any) -> None:
        """The error names the instance, how many attempts there were, and what the last one met."""
        with pytest.raises(UnavailableError) as caught:
            retrying(Flaky(MemoryBlobService(), missing=1000), clock).has(HELLO.digest)
        assert str(caught.value) == (
            "`patient` is unavailable: 4 attempts failed; the last: `far` is unavailable: missing is down"
        )
        assert isinstance(caught.value.__cause__, UnavailableError)

    def test_of_the_only_attempt_is_as_it_is(self, clock: Any) -> None:
        """Where nothing was tried again there is nothing to add."""
        policy = attrs.evolve(STEADY, attempts=1)
        with pytest.raises(UnavailableError, match=r"^`far` is unavailable: missing is down$"):
            retrying(Flaky(MemoryBlobService(), missing=1), clock, policy).has(HELLO.digest)

    @pytest.mark.parametrize(
        "error", [CorruptBlobError("bad", expected=HELLO.digest), UnsupportedError("no"), ZeroDivisionError()]
    )
    def test_others_are_final(self, clock: Any, error: Exception) -> None:
        """Only what is unavailable may be available the next time."""

        class Bad(MemoryBlobService):
            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                raise error

        with pytest.raises(type(error)):
            retrying(Bad(), clock).has(HELLO.digest)
        assert clock.slept == []

    def test_another_error_later_is_final_too(self, clock: Any) -> None:
        """A second attempt that finds the blob corrupt says so."""

        class Bad(MemoryBlobService):
            errors: Final = [UnavailableError("bad", "x"), CorruptBlobError("bad", expected=HELLO.digest)]

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                raise self.errors.pop(0)

        with pytest.raises(CorruptBlobError):
            retrying(Bad(), clock).has(HELLO.digest)
        assert clock.slept == [1]


class TestOperations:
    """What each of them does is said for all of them in `test_operations.py`."""

    def test_a_question_about_one_is_asked_again(self, clock: Any) -> None:
        """It is answered in the end, as if nothing had been; `has` is the same question as `missing`."""
        inner = MemoryBlobService()
        inner.write(HELLO.data)
        flaky = Flaky(inner, missing=2)
        service = retrying(flaky, clock)
        assert service.has(HELLO.digest) is True
        assert flaky.calls == ["missing"] * 3
        assert clock.slept == [1, 2]

    def test_a_lease_is_tried_again_and_so_is_what_goes_through_it(self, clock: Any) -> None:
        """Getting and putting chunks, and putting an index, is the same however often it is done."""
        faults = dict.fromkeys(("lease", "claim", "put_chunks", "put_indexes", "get_chunks"), 1)
        store = kind(retrying(Flaky(MemoryBlobService(), **faults), clock), ChunkStore)
        with store.lease() as leased:
            assert leased.claim_chunk(HELLO.digest) is False
            leased.put_chunk(HELLO.digest, HELLO.data)
            leased.put_indexes({HELLO.digest: ()})
        assert store.get_chunk(HELLO.digest) == HELLO.data
        assert len(clock.slept) == 5

    def test_a_list_is_tried_again_until_it_has_begun(self, clock: Any) -> None:
        """A list that breaks later raises: it is never taken for a whole one."""

        class Listing(MemoryBlobService):
            attempts = 0

            def list_blobs(self) -> Iterator[B3Digest]:
                self.attempts += 1
                if self.attempts == 1:
                    raise UnavailableError("listing", "not yet")
                yield HELLO.digest
                raise UnavailableError("listing", "no more")

        found = []
        with pytest.raises(UnavailableError, match="no more"):
            found.extend(kind(retrying(Listing(), clock), BlobLister).list_blobs())
        assert clock.slept == [1]


class Undoing(ABC):
    """A stranger's capability: what it says of its methods decides whether they are repeated."""

    OPERATIONS = (Operation("undelete", repeatable=True, iterables=("digests",)), Operation("undo"))

    @abstractmethod
    def undelete(self, digests: Iterable[B3Digest]) -> list[B3Digest]: ...

    @abstractmethod
    def undo(self) -> None: ...

    @abstractmethod
    def redo(self) -> None: ...


class TestStrangers:
    @pytest.mark.parametrize(("operation", "attempts"), [("undelete", 3), ("undo", 1), ("redo", 1)])
    def test_are_repeated_if_they_say_so(self, clock: Any, operation: str, attempts: int) -> None:
        """Of what they say nothing of, nobody knows whether that does harm."""

        class Undo(MemoryBlobService, Undoing):
            def undelete(self, digests: Iterable[B3Digest]) -> list[B3Digest]:
                return list(digests)

            def undo(self) -> None: ...

            def redo(self) -> None: ...

        flaky = Flaky(Undo(), **{operation: 2})
        undo = kind(retrying(flaky, clock), Undoing)
        if operation == "undelete":
            assert undo.undelete(digests=iter([HELLO.digest])) == [HELLO.digest]
        else:
            with pytest.raises(UnavailableError, match=f"{operation} is down"):
                getattr(undo, operation)()
        assert flaky.calls == [operation] * attempts


class Parts(MemoryBlobService):
    """Loses items of its calls for many, as often as `losses` says of each; notes what it is asked for."""

    def __init__(self, **losses: int) -> None:
        super().__init__()
        self.losses = {blob.digest: losses.get(name, 0) for name, blob in BLOBS_BY_NAME.items()}
        self.asked: list[tuple[str, list[B3Digest]]] = []

    def lose(self, operation: str, digests: Iterable[B3Digest]) -> dict[B3Digest, CastoreError]:
        asked = list(digests)
        self.asked.append((operation, asked))
        lost = [digest for digest in asked if self.losses[digest] > 0]
        for digest in lost:
            self.losses[digest] -= 1
        return {digest: UnavailableError("parts", f"lost #{self.losses[digest]}") for digest in lost}

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        lost = self.lose("get_chunks", sizes)
        return {**super().get_chunks(sizes), **lost}

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        wanted = list(digests)
        return self.done("claim", wanted, super().claim(wanted))

    def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
        lost = self.lose("put_chunks", chunks)
        super().put_chunks({digest: data for digest, data in chunks.items() if digest not in lost})
        if lost:
            raise BatchError("parts", lost, done=chunks.keys() - lost.keys())

    def done(self, operation: str, wanted: list[B3Digest], found: set[B3Digest]) -> set[B3Digest]:
        lost = self.lose(operation, wanted)
        if lost:
            raise BatchError("parts", lost, done=found - lost.keys())
        return found

    def takes(self) -> list[tuple[str, list[B3Digest]]]:
        taken, self.asked = self.asked, []
        return taken


BLOBS_BY_NAME: Final = {"hello": HELLO, "a": CHUNKS[0], "first": CHUNKS[1], "gone": CHUNKS[4]}
DIGESTS: Final = [blob.digest for blob in BLOBS_BY_NAME.values()]
THERE: Final = {blob.digest: blob.data for name, blob in BLOBS_BY_NAME.items() if name != "gone"}


class TestBatches:
    """Of a call for many only what was unavailable is asked for again."""

    @staticmethod
    def filled(**losses: int) -> Parts:
        inner = Parts()
        inner.put_chunks(THERE)
        inner.asked.clear()
        inner.losses.update(Parts(**losses).losses)
        return inner

    def test_chunks_that_were_lost_are_got_again(self, clock: Any) -> None:
        inner = self.filled(hello=1, first=2, gone=1)
        found = kind(retrying(inner, clock), ChunkSource).get_chunks(dict.fromkeys(DIGESTS))
        assert found == THERE
        assert inner.asked == [
            ("get_chunks", DIGESTS),
            ("get_chunks", [HELLO.digest, CHUNKS[1].digest, CHUNKS[4].digest]),
            ("get_chunks", [CHUNKS[1].digest]),
        ]
        assert clock.slept == [1, 2]

    def test_chunks_that_stay_lost_have_their_errors(self, clock: Any) -> None:
        """All others are there; the error tells how many attempts there were, and of the last."""
        service = retrying(self.filled(first=1000), clock)
        found = kind(service, ChunkSource).get_chunks(dict.fromkeys(DIGESTS))
        error = found.pop(CHUNKS[1].digest)
        assert str(error) == (
            "`patient` is unavailable: 4 attempts failed; the last: `parts` is unavailable: lost #996"
        )
        assert found == {digest: data for digest, data in THERE.items() if digest != CHUNKS[1].digest}
        assert clock.slept == [1, 2, 4]

    def test_what_is_corrupt_is_final(self, clock: Any) -> None:
        """An item that is corrupt is answered, beside one that is asked for again."""
        inner = self.filled(hello=1)
        sizes = {HELLO.digest: None, CHUNKS[0].digest: 99}
        found = kind(retrying(inner, clock), ChunkSource).get_chunks(sizes)
        assert isinstance(found[CHUNKS[0].digest], CorruptBlobError)
        assert found[HELLO.digest] == HELLO.data
        assert inner.asked[1:] == [("get_chunks", [HELLO.digest])]

    def test_claims_that_were_lost_are_made_again(self, clock: Any) -> None:
        """What was claimed stays claimed, and what is not there stays so."""
        inner = self.filled(hello=1)
        store = kind(retrying(inner, clock), ChunkStore)
        assert store.claim(iter(DIGESTS)) == set(THERE)
        assert inner.asked == [("claim", DIGESTS), ("claim", [HELLO.digest])]

    def test_puts_that_were_lost_are_made_again(self, clock: Any) -> None:
        inner = Parts(hello=1, a=2)
        kind(retrying(inner, clock), ChunkStore).put_chunks(chunks=THERE)
        assert [asked for _, asked in inner.asked] == [
            list(THERE),
            [HELLO.digest, CHUNKS[0].digest],
            [CHUNKS[0].digest],
        ]
        assert inner._chunks == THERE

    @pytest.mark.parametrize("attempts", [1, 4])
    def test_puts_that_stay_lost_are_told_apart_from_those_that_are_done(
        self, clock: Any, attempts: int
    ) -> None:
        """Also what an attempt before the last has done."""
        service = retrying(Parts(hello=1, a=1000), clock, attrs.evolve(STEADY, attempts=attempts))
        with pytest.raises(BatchError) as caught:
            kind(service, ChunkStore).put_chunks(THERE)
        lost = {CHUNKS[0].digest} | ({HELLO.digest} if attempts == 1 else set())
        assert caught.value.faults.keys() == lost
        assert caught.value.done == THERE.keys() - lost
        if attempts > 1:
            assert str(caught.value) == (
                "`patient` is unavailable: 4 attempts failed; the last: `parts` is unavailable: lost #996"
            )

    def test_of_which_nothing_is_known_are_made_again_as_a_whole(self, clock: Any) -> None:
        """And in parts, when an attempt after that is answered in part."""
        inner = Parts(hello=1)
        store = kind(retrying(Flaky(inner, put_chunks=2), clock), ChunkStore)
        store.put_chunks(THERE)
        assert [asked for _, asked in inner.asked] == [list(THERE), [HELLO.digest]]
        with pytest.raises(UnavailableError, match="4 attempts failed; the last: `far`") as caught:
            kind(retrying(Flaky(inner, put_chunks=9), clock), ChunkStore).put_chunks(THERE)
        assert not isinstance(caught.value, BatchError)

    @pytest.mark.parametrize("failures", [0, 1, 9])
    def test_leave_nothing_behind_for_a_collector(self, clock: Any, failures: int) -> None:
        """What was sent is let go of when the call has ended, however it did."""
        store = kind(retrying(Flaky(Parts(a=1000), put_chunks=failures), clock), ChunkStore)
        gc.collect()
        gc.disable()
        try:
            view = memoryview(bytearray(10))
            alive = weakref.ref(view)
            with pytest.raises(UnavailableError) as caught:
                store.put_chunks({HELLO.digest: view, CHUNKS[0].digest: b""})
            del view, caught
            assert alive() is None
        finally:
            gc.enable()

    def test_blobs_that_were_lost_are_read_by_themselves(self, clock: Any) -> None:
        """Of a service without chunks, whose answers come one by one."""

        class Lists(FaultyService):
            def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
                for digest in digests:
                    self.calls.append("read_many of one")
                    lost = digest == HELLO.digest
                    yield digest, UnavailableError("lists", "lost") if lost else self.open_read(digest)

        inner = Lists(MemoryBlobService(), capabilities=False)
        for data in THERE.values():
            inner.write(data)
        answers = dict(read_all(retrying(inner, clock).read_many(iter(DIGESTS))))
        assert answers == {**THERE, CHUNKS[4].digest: None}
        assert inner.calls.count("read_many of one") == 4


def read_all(answers: Iterator[tuple[B3Digest, Answer]]) -> Iterator[tuple[B3Digest, Any]]:
    for digest, answer in answers:
        if isinstance(answer, BlobReader):
            with answer:
                yield digest, answer.read()
        else:
            yield digest, answer


class Handle(BytesReader):
    """A reader of a file on some network: once it has failed, it fails for ever."""

    def __init__(self, data: bytes, breaks_at: int | None) -> None:
        super().__init__(data)
        self.breaks_at = breaks_at

    def piece_at(self, position: int) -> memoryview:
        if self.breaks_at is not None and position >= self.breaks_at:
            raise UnavailableError("handle", f"connection lost at {position}")
        return super().piece_at(position)[:1000]


class Files(BlobService):
    """Opens handles that break at the places given, one after the other; then whole ones."""

    def __init__(self, *breaks: int | None) -> None:
        self.blobs: dict[B3Digest, bytes] = {}
        self.breaks = list(breaks)
        self.opened: list[Handle] = []

    def has(self, digest: B3Digest) -> bool:
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        if digest not in self.blobs:
            return None
        self.opened.append(Handle(self.blobs[digest], self.breaks.pop(0) if self.breaks else None))
        return self.opened[-1]

    def open_write(self) -> BlobWriter:
        return SpooledWriter(lambda digest, file: self.blobs.setdefault(digest, file.read()))


class TestReading:
    @pytest.mark.parametrize("attempts", [2, 3, 4])
    def test_goes_on_where_it_broke(self, clock: Any, attempts: int) -> None:
        """The blob is opened anew and read on from there, each byte once; the old reader is closed."""
        files = Files(5000, 9000, None)
        digest = files.write(P3M.data[:20_000])
        with retrying(files, clock, attrs.evolve(STEADY, attempts=attempts)).open_read(digest) as reader:  # type: ignore[union-attr]
            assert b"".join(iter(lambda: reader.read(700), b"")) == P3M.data[:20_000]
        assert [handle.closed for handle in files.opened] == [True] * 3

    def test_each_piece_has_patience_of_its_own(self, clock: Any) -> None:
        """A blob of many breaks is read, if there is some progress between them."""
        files = Files(*range(1000, 20_000, 1000))
        digest = files.write(P3M.data[:20_000])
        assert retrying(files, clock).read(digest) == P3M.data[:20_000]

    def test_gives_up_with_the_position_kept(self, clock: Any) -> None:
        """A read that raises has moved nothing, and may be tried later."""
        files = Files(*[5000] * 5)
        digest = files.write(P3M.data[:20_000])
        with retrying(files, clock).open_read(digest) as reader:  # type: ignore[union-attr]
            assert reader.read(4500) == P3M.data[:4500]
            with pytest.raises(UnavailableError, match=r"4 attempts.*connection lost at 5000"):
                reader.read(1000)
            assert reader.tell() == 4500
            files.breaks.clear()
            assert reader.read() == P3M.data[4500:20_000]

    def test_asks_a_reader_of_chunks_once_more_before_it_is_given_up(self, clock: Any) -> None:
        """There each chunk is a request of its own, and the check of the whole blob goes on."""
        with from_url("objectstore+memory:") as inner:
            digest = inner.write(P3M.data)
            flaky = Flaky(inner, reader__read=1)
            assert retrying(flaky, clock).read(digest) == P3M.data
            assert flaky.calls.count("open_read") == 1
            flaky.calls.clear()
            flaky.faults["reader.read"] = 2
            assert retrying(flaky, clock).read(digest) == P3M.data
            assert flaky.calls.count("open_read") == 2

    @pytest.mark.parametrize("workers", [0, 2])
    def test_of_chunks_that_are_fetched_ahead(
        self, clock: Any, store: Any, blobs_of: Any, workers: int
    ) -> None:
        """A chunk whose request failed is requested again, also if that was done ahead of time."""
        inner = blobs_of(store, pool=workers)
        inner.write(P3M.data)
        asked: Counter[str] = Counter()

        def once(verb: str, key: str) -> bool:
            asked[key] += verb == "GET"
            return verb == "GET" and key.startswith("chunks/") and asked[key] == 1

        store.failing = once
        assert retrying(inner, clock).read(P3M.digest) == P3M.data
        # How often that had to be waited for is another matter: chunks that are under way may fail together.
        assert all(times >= 2 for key, times in asked.items() if key.startswith("chunks/"))
        assert sum(key.startswith("chunks/") for key in asked) >= 8
        assert clock.slept

    def test_of_a_blob_that_went_away(self, clock: Any) -> None:
        """It was there, so it is not absent: it is unavailable, until it is there again."""
        files = Files(5000, 5000, 5000, 5000, 5000, 5000)
        digest = files.write(P3M.data[:20_000])
        with retrying(files, clock).open_read(digest) as reader:  # type: ignore[union-attr]
            reader.read(5000)
            data = files.blobs.pop(digest)
            with pytest.raises(UnavailableError, match=f"blob {digest} went away while it was read"):
                reader.read(1000)
            files.blobs[digest] = data
            files.breaks.clear()
            assert reader.read() == data[5000:]

    def test_of_a_blob_that_is_another_now(self, clock: Any) -> None:
        """A size that has changed is no blob to go on with."""
        files = Files(5000)
        digest = files.write(P3M.data[:20_000])
        with retrying(files, clock).open_read(digest) as reader:  # type: ignore[union-attr]
            reader.read(5000)
            files.blobs[digest] = P3M.data[:19_999]
            with pytest.raises(CorruptBlobError, match="had 20000 bytes and has 19999 now"):
                reader.read(1000)
        assert all(handle.closed for handle in files.opened)

    def test_of_bytes_in_memory_needs_no_patience(self, clock: Any) -> None:
        inner = MemoryBlobService()
        inner.write(HELLO.data)
        assert type(retrying(inner, clock).open_read(HELLO.digest)) is BytesReader


def whole(inner: BlobService) -> BlobService:
    """The service without capabilities: blobs go there through its writers."""
    return FaultyService(inner, capabilities=False)


class TestWriting:
    """Into a service that keeps no chunks. One that does is written to by calls for many."""

    @pytest.mark.parametrize("operation", ["open_write", "writer__write", "writer__close"])
    @pytest.mark.parametrize("blob", [HELLO, EMPTY, P3M], ids=str)
    def test_begins_again(self, clock: Any, operation: str, blob: Any) -> None:
        """Whatever fails, what was kept is written to a new writer; the old one leaves nothing."""
        inner = MemoryBlobService()
        service = retrying(Flaky(inner, **{operation: 2}), clock)
        with service.open_write() as writer:
            for start in range(0, blob.size, 1_000_000):
                writer.write(blob.data[start : start + 1_000_000])
        assert writer.close() == blob.digest
        assert list(inner.list_blobs()) == [blob.digest]
        assert service.read(blob.digest) == blob.data

    def test_in_the_middle(self, clock: Any) -> None:
        """Also after some of it went through, and through a writer that breaks while it begins again."""
        flaky = Flaky(MemoryBlobService())
        service = retrying(flaky, clock)
        with service.open_write() as writer:
            writer.write(P3M.data[:1000])
            flaky.faults = {"writer.write": 1, "open_write": 1}
            writer.write(P3M.data[1000:2000])
            writer.write(P3M.data[2000:3000])
            flaky.faults = {"writer.close": 1, "writer.write": 1}
        assert writer.close() == B3Digest.of(P3M.data[:3000])
        assert service.read(writer.close()) == P3M.data[:3000]

    @pytest.mark.parametrize(("size", "saved"), [(1000, True), (1001, False)])
    def test_of_more_than_is_kept_fails(self, clock: Any, size: int, saved: bool) -> None:
        """A longer blob cannot be begun again; then the error is the service's, and nothing is stored."""
        inner = MemoryBlobService()
        flaky = Flaky(inner, writer__close=1)
        writer = retrying(flaky, clock, replay=1000).open_write()
        writer.write(P3M.data[:600])
        writer.write(P3M.data[600:size])
        if saved:
            assert writer.close() == B3Digest.of(P3M.data[:size])
            return
        with pytest.raises(UnavailableError, match=r"^`far` is unavailable: writer\.close is down$"):
            writer.close()
        with pytest.raises(WriterClosedError):
            writer.write(b"x")
        assert clock.slept == []
        assert list(inner.list_blobs()) == []

    def test_more_than_fits_in_memory_is_kept_in_a_file(self, clock: Any) -> None:
        """As much as is said, however much that is."""
        data = P3M.data * 3
        flaky = Flaky(MemoryBlobService(), writer__close=1)
        with retrying(flaky, clock, replay=len(data)).open_write() as writer:
            for start in range(0, len(data), 1 << 20):
                writer.write(data[start : start + (1 << 20)])
        assert writer.close() == B3Digest.of(data)

    def test_of_bytes_at_hand_is_tried_again_whatever_their_size(self, clock: Any) -> None:
        """`write` has them all, and need not keep any."""
        flaky = Flaky(whole(MemoryBlobService()), writer__close=2)
        assert retrying(flaky, clock, replay=0).write(P3M.data) == P3M.digest

    def test_of_a_file_is_tried_again_whatever_its_size(self, clock: Any, tmp_path: Path) -> None:
        """It is read again from its start, none of it is kept, and what was done is told once."""
        (tmp_path / "file").write_bytes(P3M.data)
        flaky = Flaky(whole(MemoryBlobService()), writer__close=1, writer__fill=1)
        told: list[int] = []
        service = retrying(flaky, clock, replay=0)
        assert service.put_file(tmp_path / "file", progress=told.append) == P3M.digest
        assert clock.slept == [1, 1]
        assert min(told) > 0
        assert sum(told) == P3M.size
        assert service.read(P3M.digest) == P3M.data

    def test_of_a_file_goes_on_where_it_broke(self, clock: Any, tmp_path: Path) -> None:
        """In the middle of it, and again while it is read once more; what follows it is kept."""
        (tmp_path / "file").write_bytes(P3M.data)
        flaky = Flaky(whole(MemoryBlobService()))
        with open_input(tmp_path / "file") as source, retrying(flaky, clock).open_write() as writer:
            first = writer.fill(source)
            assert 0 < first < P3M.size
            flaky.faults = {"writer.fill": 2}
            count = writer.fill(source)
            assert writer.tell() == first + count
            while writer.fill(source):
                pass
            assert writer.tell() == P3M.size
            writer.write(b"and more")
            flaky.faults = {"writer.close": 1}
        assert writer.close() == B3Digest.of(P3M.data + b"and more")

    def test_of_a_file_that_has_become_shorter_fails(self, clock: Any, tmp_path: Path) -> None:
        """What was stored of it is not there any more."""
        (tmp_path / "file").write_bytes(P3M.data)
        inner = MemoryBlobService()
        flaky = Flaky(whole(inner))
        writer = retrying(flaky, clock).open_write()
        with open_input(tmp_path / "file") as source:
            writer.fill(source)
            os.truncate(tmp_path / "file", 1000)
            flaky.faults = {"writer.fill": 1}
            with pytest.raises(SourceChangedError, match="has become shorter while it was read"):
                writer.fill(source)
        writer.abort()
        assert list(inner.list_blobs()) == []

    def test_of_a_file_behind_something_else_is_kept(self, clock: Any, tmp_path: Path) -> None:
        """It does not stand at the beginning of the blob, so it is as any other bytes."""
        (tmp_path / "file").write_bytes(HELLO.data)
        flaky = Flaky(whole(MemoryBlobService()), writer__close=1)
        with open_input(tmp_path / "file") as source, retrying(flaky, clock).open_write() as writer:
            writer.write(b"first ")
            writer.fill(source)
        assert writer.close() == B3Digest.of(b"first " + HELLO.data)

    def test_of_a_stream_keeps_what_it_read(self, clock: Any) -> None:
        """A stream cannot be read again: it is as with any other writer."""
        flaky = Flaky(whole(MemoryBlobService()), writer__close=1)
        assert retrying(flaky, clock).put_file(io.BytesIO(HELLO.data)) == HELLO.digest
        flaky.faults["writer.close"] = 1
        with pytest.raises(UnavailableError):
            retrying(flaky, clock, replay=5).put_file(io.BytesIO(HELLO.data))

    def test_of_chunks_is_tried_again_call_by_call(self, clock: Any, tmp_path: Path) -> None:
        """Nothing is kept, and nothing that was done is done again."""
        (tmp_path / "file").write_bytes(P3M.data)
        faults = dict.fromkeys(("lease", "claim", "put_chunks", "put_indexes"), 1)
        flaky = Flaky(MemoryBlobService(), **faults)
        service = retrying(flaky, clock, replay=0)
        assert service.put_file(tmp_path / "file") == P3M.digest
        assert service.read(P3M.digest) == P3M.data
        assert len(clock.slept) == 4
        assert "open_write" not in flaky.calls

    def test_a_writer_that_broke_is_aborted(self, clock: Any) -> None:
        """It may hold something that nobody else gives back; so may the one that is aborted at last."""
        opened: list[Rough] = []

        class Roughly(MemoryBlobService):
            def open_write(self) -> BlobWriter:
                opened.append(Rough(fails=not opened))
                return opened[-1]

        writer = retrying(Roughly(), clock).open_write()
        writer.write(HELLO.data)
        assert [each.aborted for each in opened] == [True, False]
        writer.abort()
        assert [each.aborted for each in opened] == [True, True]


class Rough(BlobWriter):
    """A writer of the least that the contract asks for."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.aborted = False

    def write(self, data: Any, /) -> int:
        if self.fails:
            raise UnavailableError("rough", "no")
        return len(data)

    def close(self) -> B3Digest:
        raise NotImplementedError

    def abort(self) -> None:
        self.aborted = True


class TestClosing:
    def test_ends_the_waiting(self) -> None:
        """Who waits for the next attempt gets the error of the last one, at once."""
        asked = threading.Event()

        class Down(MemoryBlobService):
            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                asked.set()
                raise UnavailableError("down", "not today")

        service = RetryService(Down(), Policy(first_delay=3600, max_delay=3600, jitter=0, deadline=1e6))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(service.has, HELLO.digest)
            assert asked.wait(10)
            service.close()
            with pytest.raises(UnavailableError, match="not today"):
                answer.result(10)

    def test_leaves_what_is_within_open(self) -> None:
        inner = FaultyService(MemoryBlobService())
        RetryService(inner).close()
        assert inner.calls == []


def test_what_is_run_is_not_kept_alive() -> None:
    """An error that was raised in the end refers to no cycle that only a collector would find."""

    class Held:
        def __call__(self) -> None:
            raise UnavailableError("held", "x")

    patience = Patience(attrs.evolve(STEADY, first_delay=0.0), "x", sleep=lambda _: None)
    held = Held()
    alive = weakref.ref(held)
    gc.disable()
    try:
        with pytest.raises(UnavailableError) as caught:
            patience.run(held)
        del held, caught
        assert alive() is None
    finally:
        gc.enable()


class TestConfig:
    def test_fields(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of them arrive, in seconds and bytes."""
        table = {
            "type": "retry", "inner": "memory:", "attempts": 3, "first_delay": "250 ms", "max_delay": "1 min",
            "jitter": 0, "deadline": "1 h", "replay": "1 KiB",
        }  # fmt: skip
        with Composition.from_mapping({"blobservices": {"root": table}}) as stores:
            service = stores.blobs()
            assert isinstance(service, RetryService)
            assert service._patience.policy == Policy(3, 0.25, 60.0, 0.0, 3600.0)
            assert (service._replay, service.name) == (1024, "root")

    def test_defaults_are_those_of_the_policy(self) -> None:
        """Said in one place for configs, in another for programs: they are the same."""
        with Composition.from_mapping(
            {"blobservices": {"root": {"type": "retry", "inner": "memory:"}}}
        ) as stores:
            service: Any = stores.blobs()
            assert (service._patience.policy, service._replay) == (Policy(), RetryService(service)._replay)

    @pytest.mark.parametrize(
        ("field", "why"),
        [({"attempts": 0}, "attempts"), ({"jitter": 1.5}, "jitter"), ({"deadline": "-1 s"}, "deadline")],
    )
    def test_refused(self, field: dict[str, Any], why: str) -> None:
        table = {"type": "retry", "inner": "memory:", **field}
        with pytest.raises(CompositionError, match=why):
            Composition.from_mapping({"blobservices": {"root": table}})
