"""The `retry` type: what is unavailable is asked again, after the waits that it says, and no longer."""

from __future__ import annotations

import io
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
    Composition,
    CompositionError,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
    WriterClosedError,
    from_url,
)
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkStore
from castore.streams.readers import BytesReader
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
    def test_are_just_these(self, clock: Any, policy: Policy, high_latency: list[float]) -> None:
        """Doubled each time up to the longest; none after the last attempt, none beyond the deadline."""
        flaky = Flaky(MemoryBlobService(), has=1000)
        with pytest.raises(UnavailableError):
            retrying(flaky, clock, policy).has(HELLO.digest)
        assert clock.slept == high_latency
        assert len(flaky.calls) == len(high_latency) + 1

    def test_with_chance_are_known_by_the_seed(self, clock: Any) -> None:
        """The waits of a seed are always the same, each between half and all of what it would be."""
        policy = attrs.evolve(STEADY, attempts=6, jitter=0.5)
        with pytest.raises(UnavailableError):
            retrying(Flaky(MemoryBlobService(), has=1000), clock, policy, dice=random.Random(7)).has(
                HELLO.digest
            )
        dice = random.Random(7)
        assert clock.slept == [full * (1 - dice.random() / 2) for full in (1, 2, 4, 8, 16)]
        assert clock.slept == pytest.approx([0.838084, 1.849151, 2.698131, 7.710255, 11.712943], abs=1e-5)

    def test_the_deadline_counts_what_attempts_take(self, clock: Any) -> None:
        """An attempt that hangs uses up the time of those after it."""

        class Slow(MemoryBlobService):
            def has(self, digest: B3Digest) -> bool:
                clock.now += 100
                raise UnavailableError("slow", "timed out")

        with pytest.raises(UnavailableError):
            retrying(Slow(), clock, attrs.evolve(STEADY, deadline=150.0)).has(HELLO.digest)
        assert clock.slept == [1]


class TestErrors:
    def test_after_the_last_attempt(self, clock: Any) -> None:
        """The error names the instance, how many attempts there were, and what the last one met."""
        with pytest.raises(UnavailableError) as caught:
            retrying(Flaky(MemoryBlobService(), has=1000), clock).has(HELLO.digest)
        assert str(caught.value) == (
            "`patient` is unavailable: 4 attempts failed; the last: `far` is unavailable: has is down"
        )
        assert isinstance(caught.value.__cause__, UnavailableError)

    def test_of_the_only_attempt_is_as_it_is(self, clock: Any) -> None:
        """Where nothing was tried again there is nothing to add."""
        policy = attrs.evolve(STEADY, attempts=1)
        with pytest.raises(UnavailableError, match=r"^`far` is unavailable: has is down$"):
            retrying(Flaky(MemoryBlobService(), has=1), clock, policy).has(HELLO.digest)

    @pytest.mark.parametrize(
        "error", [CorruptBlobError("bad", expected=HELLO.digest), UnsupportedError("no"), ZeroDivisionError()]
    )
    def test_others_are_final(self, clock: Any, error: Exception) -> None:
        """Only what is unavailable may be available the next time."""

        class Bad(MemoryBlobService):
            def has(self, digest: B3Digest) -> bool:
                raise error

        with pytest.raises(type(error)):
            retrying(Bad(), clock).has(HELLO.digest)
        assert clock.slept == []

    def test_another_error_later_is_final_too(self, clock: Any) -> None:
        """A second attempt that finds the blob corrupt says so."""

        class Bad(MemoryBlobService):
            errors: Final = [UnavailableError("bad", "x"), CorruptBlobError("bad", expected=HELLO.digest)]

            def has(self, digest: B3Digest) -> bool:
                raise self.errors.pop(0)

        with pytest.raises(CorruptBlobError):
            retrying(Bad(), clock).has(HELLO.digest)
        assert clock.slept == [1]


class TestOperations:
    @pytest.mark.parametrize("operation", ["has", "chunks", "missing", "open_read"])
    def test_that_ask_are_tried_again(self, clock: Any, operation: str) -> None:
        """Each is answered in the end, as if nothing had been."""
        inner = MemoryBlobService()
        inner.write(HELLO.data)
        flaky = Flaky(inner, **{operation: 2})
        service = retrying(flaky, clock)
        answers = {
            "has": lambda: service.has(HELLO.digest) is True,
            "chunks": lambda: service.chunks(HELLO.digest) == (),
            "missing": lambda: service.missing(iter([HELLO.digest, P3M.digest])) == {P3M.digest},
            "open_read": lambda: service.read(HELLO.digest) == HELLO.data,
        }
        assert answers[operation]()
        assert flaky.calls.count(operation) == 3
        assert clock.slept == [1, 2]

    def test_on_chunks_are_tried_again(self, clock: Any) -> None:
        """Getting and putting them, and putting an index, is the same however often it is done."""
        faults = dict.fromkeys(("hold", "claim_chunk", "put_chunk", "put_indexes", "get_chunk"), 1)
        store = kind(retrying(Flaky(MemoryBlobService(), **faults), clock), ChunkStore)
        with store.hold():
            assert store.claim_chunk(HELLO.digest) is False
            store.put_chunk(HELLO.digest, HELLO.data)
            store.put_indexes([(HELLO.digest, ())])
        assert store.get_chunk(HELLO.digest) == HELLO.data
        assert len(clock.slept) == 5

    def test_claims_of_many_are_tried_again(self, clock: Any) -> None:
        """Also of those that an iterator gives, which is at its end when the first attempt fails."""

        class LosingAnswers(MemoryBlobService):
            attempts = 0

            def claim_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                found = super().claim_chunks(digests)
                self.attempts += 1
                if self.attempts == 1:
                    raise UnavailableError("far", "the answer was lost")
                return found

        inner = LosingAnswers()
        inner.write(HELLO.data)
        store = kind(retrying(Flaky(inner, claim_indexes=1), clock), ChunkStore)
        assert store.claim_chunks(iter([HELLO.digest, P3M.digest])) == {HELLO.digest}
        assert inner.attempts == 2
        store.claim_indexes([(HELLO.digest, ())])
        assert len(clock.slept) == 2

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

    def test_that_remove_are_not_tried_again(self, clock: Any) -> None:
        """The second answer could be about what the first attempt has done: it was there, and is not now."""

        class Deleting(MemoryBlobService, BlobDeleter):
            def delete(self, digest: B3Digest) -> bool:
                self._blobs.pop(digest)
                raise UnavailableError("deleting", "the answer was lost")

        inner = Deleting()
        inner.write(HELLO.data)
        with pytest.raises(UnavailableError, match="the answer was lost"):
            kind(retrying(inner, clock), BlobDeleter).delete(HELLO.digest)
        assert clock.slept == []


class Handle(BytesReader):
    """A reader of a file on some network: once it has failed, it fails for ever."""

    def __init__(self, data: bytes, breaks_at: int | None) -> None:
        super().__init__(data)
        self.breaks_at = breaks_at

    def piece_at(self, position: int) -> memoryview:
        if self.breaks_at is not None and position >= self.breaks_at:
            raise UnavailableError("handle", f"connection lost at {position}")
        return super().piece_at(position)[:1000]


class Files(MemoryBlobService):
    """Opens handles that break at the places given, one after the other; then whole ones."""

    def __init__(self, *breaks: int | None) -> None:
        super().__init__()
        self.breaks = list(breaks)
        self.opened: list[Handle] = []

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        if digest not in self._blobs:
            return None
        self.opened.append(Handle(self._blobs[digest], self.breaks.pop(0) if self.breaks else None))
        return self.opened[-1]


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
            data = files._blobs.pop(digest)
            with pytest.raises(UnavailableError, match=f"blob {digest} went away while it was read"):
                reader.read(1000)
            files._blobs[digest] = data
            files.breaks.clear()
            assert reader.read() == data[5000:]

    def test_of_a_blob_that_is_another_now(self, clock: Any) -> None:
        """A size that has changed is no blob to go on with."""
        files = Files(5000)
        digest = files.write(P3M.data[:20_000])
        with retrying(files, clock).open_read(digest) as reader:  # type: ignore[union-attr]
            reader.read(5000)
            files._blobs[digest] = P3M.data[:19_999]
            with pytest.raises(CorruptBlobError, match="had 20000 bytes and has 19999 now"):
                reader.read(1000)
        assert all(handle.closed for handle in files.opened)

    def test_of_bytes_in_memory_needs_no_patience(self, clock: Any) -> None:
        inner = MemoryBlobService()
        inner.write(HELLO.data)
        assert type(retrying(inner, clock).open_read(HELLO.digest)) is BytesReader


class TestWriting:
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
        flaky = Flaky(MemoryBlobService(), writer__close=2)
        assert retrying(flaky, clock, replay=0).write(P3M.data) == P3M.digest

    def test_of_a_file_is_tried_again_whatever_its_size(self, clock: Any, tmp_path: Path) -> None:
        """It is read again from its start, and what was done is told once."""
        (tmp_path / "file").write_bytes(P3M.data)
        flaky = Flaky(MemoryBlobService(), writer__close=1, writer__fill=1)
        told: list[int] = []
        service = retrying(flaky, clock, replay=0)
        assert service.put_file(tmp_path / "file", progress=told.append) == P3M.digest
        assert clock.slept == [1, 2]
        assert min(told) > 0
        assert sum(told) == P3M.size
        assert service.read(P3M.digest) == P3M.data

    def test_of_a_stream_keeps_what_it_read(self, clock: Any) -> None:
        """A stream cannot be read again: it is as with any other writer."""
        flaky = Flaky(MemoryBlobService(), writer__close=1)
        assert retrying(flaky, clock).put_file(io.BytesIO(HELLO.data)) == HELLO.digest
        flaky.faults["writer.close"] = 1
        with pytest.raises(UnavailableError):
            retrying(flaky, clock, replay=5).put_file(io.BytesIO(HELLO.data))

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
            def has(self, digest: B3Digest) -> bool:
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
    import gc  # noqa: PLC0415
    import weakref  # noqa: PLC0415

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


def test_chunks_of_a_blob_through_a_flaky_store(clock: Any) -> None:
    """A chunk put in the midst of failures is the same as one put in peace."""
    store = kind(retrying(Flaky(MemoryBlobService(), put_chunk=3), clock), ChunkStore)
    for chunk in CHUNKS:
        store.put_chunk(chunk.digest, chunk.data)
    assert [store.get_chunk(chunk.digest) for chunk in CHUNKS] == [chunk.data for chunk in CHUNKS]
