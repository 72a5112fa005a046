"""Batches through a cache: one call of near and of far for each, and a verdict on each item by itself."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, CastoreError, UnavailableError
from castore.contract.capabilities import ChunkSource, ChunkStore, FoundChunks
from castore.errors import BatchError, CorruptChunkError
from castore.testing import FaultyService
from castore.threads.pool import Pool
from castore_cache.backlog import Backlog
from castore_cache.behind import Behind
from castore_cache.flights import Flight, Flights
from castore_cache.service import CacheBlobService
from castore_memory.service import MemoryBlobService

BYTES: Final = [bytes([number]) * 100 for number in range(4)]
BATCH: Final = [B3Digest.of(data) for data in BYTES]
DATA: Final = dict(zip(BATCH, BYTES, strict=True))

States = tuple[str, ...]


class Scripted(MemoryBlobService):
    """Four chunks, each of which is as the test says; what is put is `put`, and ok from then on."""

    def __init__(self, name: str, states: Iterable[str]) -> None:
        super().__init__()
        self.name = name
        self.states = dict(zip(BATCH, states, strict=True))
        self.calls: list[tuple[str, set[B3Digest]]] = []

    def fault(self, digest: B3Digest) -> CastoreError:
        if self.states[digest] == "corrupt":
            return CorruptChunkError(self.name, expected=digest)
        return UnavailableError(self.name, "scripted")

    def those(self, digests: Iterable[B3Digest], *states: str) -> set[B3Digest]:
        return {digest for digest in digests if self.states[digest] in states}

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        self.calls.append(("get_chunks", set(sizes)))
        found: FoundChunks = {digest: DATA[digest] for digest in self.those(sizes, "ok")}
        return found | {digest: self.fault(digest) for digest in self.those(sizes, "corrupt", "unavailable")}

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        wanted = set(digests)
        self.calls.append(("claim", wanted))
        self.fail_in_part(wanted)
        return self.those(wanted, "ok")

    def claim_blobs(self, blobs: Mapping[B3Digest, Any]) -> set[B3Digest]:
        self.calls.append(("claim_blobs", set(blobs)))
        self.fail_in_part(blobs)
        return self.those(blobs, "ok")

    def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
        self.calls.append(("put_chunks", set(chunks)))
        self.fail_in_part(chunks, done=("ok", "absent", "corrupt"))

    def put_indexes(self, blobs: Mapping[B3Digest, Any]) -> None:
        self.calls.append(("put_indexes", set(blobs)))

    def fail_in_part(self, digests: Iterable[B3Digest], done: States = ("ok",)) -> None:
        lost = self.those(digests, "unavailable")
        if lost:
            faults = {digest: self.fault(digest) for digest in lost}
            raise BatchError(self.name, faults, done=self.those(digests, *done))


def in_words(service: Callable[[], FoundChunks]) -> list[str]:
    """Return what a batch has come to, item by item."""
    found = service()
    words = []
    for digest in BATCH:
        answer = found.get(digest)
        if isinstance(answer, bytes):
            assert answer == DATA[digest]
        named = next((name for name in ("near", "far") if name in str(answer)), "")
        kind = {CorruptChunkError: "corrupt", UnavailableError: "unavailable"}.get(type(answer))
        words.append("absent" if answer is None else "ok" if kind is None else f"{named} {kind}")
    return words


def some_pairs(states: States, count: int) -> Iterator[tuple[States, States]]:
    """Yield each combination of four states for near, each with *count* of those for far."""
    chance = random.Random(1)
    combinations = list(itertools.product(states, repeat=4))
    for near in combinations:
        for far in chance.sample(combinations, count):
            yield near, far


class TestReading:
    def verdict(self, near: str, far: str, *, alone: bool, strict: bool, miss: bool) -> str:
        """Return what is to come of one chunk: the rule, spelt out here again."""
        if near == "ok" or (far == "ok" and not (strict and near == "unavailable")):
            return "ok"
        if near == "unavailable" and strict:
            return "near unavailable"
        if far == "corrupt" or (far == "unavailable" and not miss):
            return f"far {far}"
        if near == "corrupt" or (near == "unavailable" and alone):
            return f"near {near}"
        return "absent"

    @pytest.mark.parametrize("write", ["near", "far", "both"])
    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("miss", [False, True])
    @pytest.mark.parametrize("known", [False, True])
    def test_outcomes(self, write: Any, strict: bool, miss: bool, known: bool) -> None:
        """Far is asked once for what near does not answer, and near gets at once what has come of it.

        A failure of far is a miss, where the policy says so, only of a chunk that no index is known of.
        """
        sizes = dict.fromkeys(BATCH, 100 if known else None)
        for near_states, far_states in some_pairs(("ok", "absent", "unavailable", "corrupt"), 3):
            near, far = Scripted("near", near_states), Scripted("far", far_states)
            cache = CacheBlobService(
                near,
                far,
                write=write,
                on_near_error="fail" if strict else "ignore",
                on_far_error="miss" if miss else "fail",
            )
            source = cache.capability(ChunkSource)
            assert source is not None
            expected = [
                self.verdict(*pair, alone=write == "near", strict=strict, miss=miss and not known)
                for pair in zip(near_states, far_states, strict=True)
            ]
            assert in_words(lambda asked=source: asked.get_chunks(sizes)) == expected  # type: ignore[misc]
            asked = near.those(BATCH, "absent", "corrupt", *(() if strict else ("unavailable",)))
            came = far.those(asked, "ok")
            assert far.calls == ([("get_chunks", asked)] if asked else [])
            kept = [("put_chunks", came)] if came else []
            assert near.calls == [("get_chunks", set(BATCH)), *kept]

    @pytest.mark.parametrize("down", ["near", "far"])
    def test_one_that_does_not_answer_at_all(self, down: str) -> None:
        """It is unavailable for each item; what the other one has is read."""
        services = {"near": MemoryBlobService(), "far": MemoryBlobService()}
        for service in services.values():
            service.put_chunks({digest: DATA[digest] for digest in BATCH[:2]})
        near, far = (
            FaultyService(service, {"get_chunks"} if name == down else (), instance=name)
            for name, service in services.items()
        )
        source = CacheBlobService(near, far).capability(ChunkSource)
        assert source is not None
        words = in_words(lambda: source.get_chunks(dict.fromkeys(BATCH)))
        assert words == ["ok", "ok", f"{down} unavailable", f"{down} unavailable"]

    def test_many_small_blobs(self) -> None:
        """Sixteen blobs that near lacks: one call of far, and one put to near. Then far is not asked."""
        inner, kept = MemoryBlobService(), MemoryBlobService()
        blobs = {inner.write(data): data for data in (bytes([number]) for number in range(16))}
        near, far = FaultyService(kept), FaultyService(inner)
        cache = CacheBlobService(near, far)
        assert dict(cache.read_many(blobs)) == blobs
        assert (near.calls, far.calls) == (["get_chunks", "put_chunks"], ["get_chunks"])
        assert dict(cache.read_many(blobs)) == blobs
        assert (near.calls[2:], far.calls[1:]) == (["get_chunks"], [])

    def test_chunks_of_a_blob_come_in_runs(self, blobs_of: Any, store: Any) -> None:
        """A cold read of many chunks takes few calls of far, and not many more of near."""
        data = random.Random(1).randbytes(4 << 20)
        inner = blobs_of(store, avg_chunk_size=8192)
        digest = inner.write(data)
        near, far = FaultyService(MemoryBlobService()), FaultyService(inner)
        pool = Pool(2)
        cache = CacheBlobService(near, far, pool=pool)
        assert cache.read(digest) == data
        pool.close()
        assert len(inner.chunks(digest)) > 300
        assert far.calls.count("get_chunks") <= 20
        assert Counter(near.calls)["put_chunks"] == far.calls.count("get_chunks")
        assert len(near.calls) <= 50


class TestQuestions:
    @pytest.mark.parametrize("write", ["near", "far"])
    @pytest.mark.parametrize("strict", [False, True])
    def test_find_chunks(self, write: Any, strict: bool) -> None:
        """Far is asked once for what near lacks; near's failure counts where it may have what far lacks."""
        near_inner, far_inner = MemoryBlobService(), MemoryBlobService()
        near_inner.put_chunk(BATCH[0], BYTES[0])
        far_inner.put_chunks({BATCH[0]: BYTES[0], BATCH[1]: BYTES[1]})
        near, far = FaultyService(near_inner, instance="near"), FaultyService(far_inner)
        cache = CacheBlobService(near, far, write=write, on_near_error="fail" if strict else "ignore")
        source = cache.capability(ChunkSource)
        assert source is not None
        assert source.find_chunks(iter(BATCH)) == set(BATCH[:2])
        assert source.find_chunks(BATCH[:1]) == set(BATCH[:1])
        assert (near.calls, far.calls) == (["find_chunks"] * 2, ["find_chunks"])
        near.failing = {"find_chunks"}
        if strict or write == "near":
            with pytest.raises(UnavailableError, match="`near`"):
                source.find_chunks(BATCH)
        else:
            assert source.find_chunks(BATCH) == set(BATCH[:2])

    def test_a_far_that_counts_as_a_miss(self) -> None:
        """A chunk that is asked for is then as absent as a blob."""
        far = FaultyService(MemoryBlobService(), {"find_chunks", "get_chunks"})
        cache = CacheBlobService(MemoryBlobService(), far, on_far_error="miss")
        source = cache.capability(ChunkSource)
        assert source is not None
        assert source.find_chunks(BATCH) == set()
        assert source.get_chunks(dict.fromkeys(BATCH)) == {}
        assert cache.gauges()["far_errors"] == 2


class TestWritingBoth:
    """All outcomes of a batch for far and near, with a near that may fail and one that must not."""

    def store(self, near: BlobService, far: BlobService, *, strict: bool) -> ChunkStore:
        cache = CacheBlobService(near, far, write="both", on_near_error="fail" if strict else "ignore")
        store = cache.capability(ChunkStore)
        assert store is not None
        return store

    def attempt(self, call: Callable[[], object]) -> tuple[set[B3Digest], dict[B3Digest, str]]:
        """Return what a call says is done, and why the rest is not."""
        try:
            answer = call()
        except BatchError as error:
            return set(error.done), {digest: str(fault) for digest, fault in error.faults.items()}
        return set(answer) if isinstance(answer, set) else set(BATCH), {}

    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("what", ["claim", "claim_blobs"])
    def test_claims(self, what: str, strict: bool) -> None:
        """What far has near is asked for; it may be without only if it failed, and may fail."""
        for near_states, far_states in some_pairs(("ok", "absent", "unavailable"), 9):
            near, far = Scripted("near", near_states), Scripted("far", far_states)
            claim = getattr(self.store(near, far, strict=strict), what)
            done, faults = self.attempt(lambda asked=claim: asked(dict.fromkeys(BATCH)))  # type: ignore[misc]
            in_far = far.those(BATCH, "ok")
            allowed = ("ok",) if strict else ("ok", "unavailable")
            lost = near.those(in_far, "unavailable")
            assert done == near.those(in_far, *allowed)
            assert {digest for digest, words in faults.items() if "`far`" in words} == far.those(
                BATCH, "unavailable"
            )
            assert {digest for digest, words in faults.items() if "`near`" in words} == (
                lost if strict else set()
            )
            assert far.calls == [(what, set(BATCH))]
            assert near.calls == ([(what, in_far)] if in_far else [])

    @pytest.mark.parametrize("strict", [False, True])
    def test_puts(self, strict: bool) -> None:
        """A chunk is stored when far has it, and near, too, if it must; near shows none that it missed."""
        for near_states, far_states in some_pairs(("ok", "unavailable"), 16):
            near, far = Scripted("near", near_states), Scripted("far", far_states)
            store = self.store(near, far, strict=strict)
            done, faults = self.attempt(lambda asked=store: asked.put_chunks(DATA))  # type: ignore[misc]
            in_far, in_near = far.those(BATCH, "ok"), near.those(BATCH, "ok")
            assert done == (in_far & in_near if strict else in_far)
            assert faults.keys() == set(BATCH) - done
            assert all("`far`" in faults[digest] for digest in set(BATCH) - in_far)
            store.put_indexes(dict.fromkeys(done, ()))
            assert far.calls == [("put_chunks", set(BATCH)), ("put_indexes", done)]
            assert near.calls == [("put_chunks", set(BATCH)), ("put_indexes", done & in_near)]

    def test_indexes_that_far_has_put_in_part(self) -> None:
        """Near gets those that far has; the others' faults are far's."""
        near, far = Scripted("near", ["ok"] * 4), Scripted("far", ["ok"] * 4)

        def partly(blobs: Mapping[B3Digest, Any]) -> None:
            fault = UnavailableError("far", "scripted")
            raise BatchError("far", dict.fromkeys(BATCH[2:], fault), done=BATCH[:2])

        far.put_indexes = partly  # type: ignore[method-assign]
        store = self.store(near, far, strict=False)
        done, faults = self.attempt(lambda: store.put_indexes(dict.fromkeys(BATCH, ())))
        assert (done, faults.keys()) == (set(BATCH[:2]), set(BATCH[2:]))
        assert near.calls == [("put_indexes", set(BATCH[:2]))]

    @pytest.mark.parametrize("broken", ["near", "far"])
    def test_one_that_does_not_answer_at_all(self, broken: str) -> None:
        """Then nothing is known, unless it is a near that may fail."""
        near, far = (
            FaultyService(MemoryBlobService(), {"put_chunks"} if name == broken else (), instance=name)
            for name in ("near", "far")
        )
        for strict in (False, True):
            store = self.store(near, far, strict=strict)
            if broken == "near" and not strict:
                store.put_chunks(DATA)
                continue
            with pytest.raises(UnavailableError, match=f"`{broken}`") as caught:
                store.put_chunks(DATA)
            assert not isinstance(caught.value, BatchError)

    def test_what_is_leased_is_leased_in_both(self) -> None:
        """Chunks are put through the leased stores, and these are left in the end."""

        class Leasing(MemoryBlobService):
            def __init__(self) -> None:
                super().__init__()
                self.leased = MemoryBlobService()
                self.steps: list[object] = []

            def lease(self, *, brief: bool = False) -> Any:
                steps, leased = self.steps, self.leased

                class Lease:
                    def __enter__(self) -> ChunkStore:
                        steps.append(brief)
                        return leased

                    def __exit__(self, *_: object) -> None:
                        steps.append("left")

                return Lease()

        for brief in (False, True):
            near, far = Leasing(), Leasing()
            with self.store(near, far, strict=False).lease(brief=brief) as store:
                store.put_chunks(DATA)
                store.put_indexes(dict.fromkeys(BATCH, ()))
            for service in (near, far):
                assert service.steps == [brief, "left"]
                assert set(service.leased.list_blobs()) == set(BATCH)
                assert service.find_chunks(BATCH) == set()


WRITES: Final = ("lease", "claim", "claim_blobs", "put_chunks", "put_indexes")
FILES: Final = 1500


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small files, each other than the others."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(FILES):
        (folder / str(number)).write_bytes(b"%d" % number)
    return list(folder.iterdir())


class TestSmallFiles:
    """Many files cost each service that they go to the calls that they cost it alone."""

    def calls(self, service: BlobService, *stores: FaultyService, files: list[Path]) -> list[Counter[str]]:
        """Return how often each of *stores* was called to write new files, and the same ones again."""
        counts = []
        for _ in ("new", "again"):
            for store in stores:
                store.calls.clear()
            assert len(set(service.put_files(files))) == FILES
            counts += [Counter(call for call in store.calls if call in WRITES) for store in stores]
        return counts

    @pytest.mark.parametrize("write", ["near", "far", "both", "behind"])
    def test_calls(self, write: Any, files: list[Path], tmp_path: Path) -> None:
        bare = FaultyService(MemoryBlobService())
        new, again = self.calls(bare, bare, files=files)
        assert (new["put_chunks"], new["put_indexes"], again["put_chunks"]) == (6, 2, 0)
        near, far = FaultyService(MemoryBlobService()), FaultyService(MemoryBlobService())
        behind = None
        if write == "behind":
            far.failing = {"missing", *WRITES}  # else what is sent to it later would be counted
            backlog = Backlog(tmp_path / "queue", limit=1 << 20)
            behind = lambda asked: Behind(asked, far, backlog)  # noqa: E731 - of two lines
        with CacheBlobService(near, far, write=write, behind=behind) as cache:
            targets = {"far": [far], "both": [far, near]}.get(write, [near])
            counts = self.calls(cache, *targets, files=files)
            first, second = counts[: len(targets)], counts[len(targets) :]
            # Far first; what it lacks near is not asked for.
            assert (first[0], second[0]) == (new, again)
            for count, most in ((first[-1], new), (second[-1], again)):
                assert count <= most
                assert count["put_indexes"] == most["put_indexes"]
            others = {id(near), id(far)} - {id(target) for target in targets}
            if write != "behind":
                assert not any(service.calls for service in (near, far) if id(service) in others)

    def test_a_round_is_what_all_like(self) -> None:
        """The smallest round of those that are written to, and no more than a batch may have."""
        small, large = MemoryBlobService(), MemoryBlobService()
        small.round, large.round = 7, 1 << 20
        for write, expected in (("near", 7), ("far", 1024), ("both", 7)):
            store = CacheBlobService(small, large, write=write).capability(ChunkStore)  # type: ignore[arg-type]
            assert store is not None
            assert store.round == expected

    @pytest.mark.parametrize(("write", "as_far"), [("near", False), ("far", True), ("both", True)])
    def test_cut_as(self, near: Any, far: Any, write: Any, as_far: bool) -> None:
        """Files are cut as far cuts, if it is written to."""
        data = random.Random(2).randbytes(1 << 20)
        cache = CacheBlobService(near, far, write=write)
        digest = cache.write(data)
        sizes = [meta.size for meta in cache.chunks(digest) or ()]
        assert sizes == list((far if as_far else near).new_chunker().cut(data))
        for service in (near, far):
            assert not service.has(digest) or [meta.size for meta in service.chunks(digest)] == sizes


class TestFlightsOfMany:
    def test_batches_in_opposite_order(self) -> None:
        """Two threads that want the same from opposite ends, 1,000 times, never wait for each other."""
        far = MemoryBlobService()
        far.put_chunks(DATA)
        cache = CacheBlobService(MemoryBlobService(), far, fill="none", fill_wait=1000)
        source = cache.capability(ChunkSource)
        assert source is not None
        meeting = threading.Barrier(2)
        got: list[int] = []

        def read(order: list[B3Digest]) -> None:
            for _ in range(1000):
                meeting.wait(30)
                assert source.get_chunks(dict.fromkeys(order, 100)) == DATA
            got.append(1000)

        threads = [threading.Thread(target=read, args=(order,)) for order in (BATCH, BATCH[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert got == [1000, 1000]
        assert cache._flights.landed >= 4000

    def test_each_leads_some_and_waits_for_the_others(self) -> None:
        """Who leads a part has done with that before it waits, so that both end, whoever comes first."""
        flights = Flights(1000)
        led: dict[str, list[str]] = {}
        begun = {name: threading.Event() for name in ("one", "two")}
        answers: dict[str, dict[str, str]] = {}

        def join(name: str, other: str, keys: list[str]) -> None:
            def lead(mine: Mapping[str, Flight[str]]) -> dict[str, str]:
                led[name] = list(mine)
                begun[name].set()
                assert begun[other].wait(30)
                for flight in mine.values():
                    flight.give(name)
                return dict.fromkeys(mine, name)

            answers[name] = flights.join_many(keys, lead, lambda late: dict.fromkeys(late, "alone"))

        first = threading.Thread(target=join, args=("one", "two", ["a", "b", "c"]))
        first.start()
        assert begun["one"].wait(30)
        join("two", "one", ["d", "c", "b"])
        first.join(30)
        assert led == {"one": ["a", "b", "c"], "two": ["d"]}
        assert answers["one"] == dict.fromkeys("abc", "one")
        assert answers["two"] == {"d": "two", "c": "one", "b": "one"}
        assert flights.landed == 4

    def test_what_a_leader_fails_at_others_ask_for_anew(self) -> None:
        """What it could get they have from it; the rest they ask for in one batch."""
        flights = Flights(1000)
        begun, go_on = threading.Event(), threading.Event()

        def lead(mine: Mapping[str, Flight[str]]) -> dict[str, str]:
            begun.set()
            assert go_on.wait(30)
            mine["a"].give("got")
            return {"a": "got", "b": "failed", "c": "failed"}

        answers: list[dict[str, str]] = []

        def follow(mine: Mapping[str, Flight[str]]) -> dict[str, str]:
            return dict.fromkeys(mine, f"anew, {len(mine)} at once")

        leader = threading.Thread(
            target=lambda: answers.append(flights.join_many("abc", lead, dict.fromkeys))
        )
        leader.start()
        assert begun.wait(30)
        following = threading.Thread(
            target=lambda: answers.append(flights.join_many("cba", follow, dict.fromkeys))
        )
        following.start()
        go_on.set()
        leader.join(30)
        following.join(30)
        assert {"a": "got", "b": "failed", "c": "failed"} in answers
        follower = next(answer for answer in answers if answer["b"] != "failed")
        assert follower["b"].startswith("anew")

    def test_what_has_landed_is_not_stale_while_the_rest_is_waited_for(self) -> None:
        """A leader lands what it has done with; who asks then asks anew."""
        flights: Flights = Flights()

        def lead(mine: Mapping[str, Flight[str]]) -> dict[str, str]:
            mine["a"].give("old")
            flights.land({"a": mine["a"]})
            newer = flights.join("a", lambda _: "new", lambda: "alone")
            return {"a": newer, "b": "b"}

        assert flights.join_many("ab", lead, dict.fromkeys) == {"a": "new", "b": "b"}
