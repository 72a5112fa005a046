"""Faults come as their plan says, the same way each time, and no test can hang of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, ChunkMeta, CorruptBlobError, UnavailableError
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.errors import BatchError
from castore.faults import KINDS, OBJECT_READS, OBJECT_WRITES, READS
from castore.testing import BLOB_A, BLOB_B, CHUNKS, EMPTY, HELLO, P3M, FaultPlan, FaultyObjects, FaultyService
from castore_memory.service import MemoryBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.object_store import LastObject
from castore_objectstore.service import ObjectStoreBlobService


def faulty(*blobs: bytes, **chances: Any) -> FaultyService:
    """A service with *blobs* behind faults."""
    behind = MemoryBlobService()
    for data in blobs:
        behind.write(data)
    return FaultyService(behind, plan=FaultPlan(**chances))


def story(service: BlobService) -> None:
    """Many calls of all sorts, whose errors are of no concern."""

    def attempt(call: Callable[[], object]) -> None:
        with contextlib.suppress(UnavailableError, CorruptBlobError):
            call()

    for number in range(60):
        data = b"%d" % number * 99
        attempt(lambda: service.write(data))  # noqa: B023 - called at once
        for call in (service.has, service.chunks, service.read, lambda digest: service.missing([digest])):
            attempt(lambda: call(B3Digest.of(data)))  # noqa: B023 - as above


class TestReproducible:
    CHANCES = dict.fromkeys(KINDS, 0.1) | {"latency": 0.0}

    def run(self, seed: int) -> list[Any]:
        service = faulty(seed=seed, hang_seconds=0, **self.CHANCES)
        try:
            story(service)
        except KeyError:
            pytest.fail("a blob that is absent was read: the story ought to go on")
        return service.faults.trace

    @pytest.fixture(autouse=True)
    def _absence_is_fine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def read(service: BlobService, digest: B3Digest) -> None:
            reader = service.open_read(digest)
            if reader is not None:
                with reader:
                    reader.read()

        monkeypatch.setattr(BlobService, "read", read)

    def test_a_seed_and_a_story_give_a_trace(self) -> None:
        """The same once more; and another with another seed."""
        first = self.run(7)
        assert len(first) > 30
        assert self.run(7) == first
        assert self.run(8) != first

    def test_a_trace_names_operation_number_digest_and_what_was_done(self) -> None:
        service = faulty(HELLO.data, flip=1)
        with service.open_read(HELLO.digest) as reader:
            assert reader.read() != HELLO.data
        (fault,) = service.faults.trace
        assert (fault.operation, fault.number, fault.kind) == ("reader.read", 1, "flip")
        assert str(fault).startswith(f"reader.read #1 of {HELLO.digest}: flip, bit ")
        assert str(fault).endswith(" of 12 bytes")

    def test_other_operations_in_between_change_nothing(self) -> None:
        """The n-th call of an operation meets its faults whatever else is called."""
        alone, among = faulty(fail=0.5), faulty(fail=0.5)
        for service in (alone, among):
            for _ in range(50):
                with_chunks = service is among
                for call in [service.chunks] * with_chunks + [service.has]:
                    try:
                        call(HELLO.digest)
                    except UnavailableError:
                        continue
        of_has = [fault for fault in among.faults.trace if fault.operation == "has"]
        assert of_has == alone.faults.trace
        assert 10 < len(of_has) < 40

    def test_threads_meet_as_many_faults_as_one_would(self) -> None:
        """Which thread meets a fault is open; that it comes at the n-th call is not."""
        one, many = faulty(forget=0.3), faulty(forget=0.3)
        for _ in range(400):
            one.has(HELLO.digest)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: many.has(HELLO.digest), range(400)))
        assert sorted(f.number for f in many.faults.trace) == [f.number for f in one.faults.trace]

    def test_no_plan_is_no_fault(self, tmp_path: Path) -> None:
        service = FaultyService(ObjectStoreBlobService(LocalObjectStore(tmp_path, instance="x")))
        story(service)
        assert service.faults.trace == []


class TestKinds:
    def test_fail(self) -> None:
        service = FaultyService(MemoryBlobService(), instance="far", plan=FaultPlan(fail=1))
        with pytest.raises(UnavailableError, match=r"`far`.*made to fail at has #1"):
            service.has(HELLO.digest)

    def test_forget_when_reading(self) -> None:
        """It is absent in every way."""
        service = faulty(HELLO.data, forget=1, operations=READS)
        assert service.has(HELLO.digest) is False
        assert service.chunks(HELLO.digest) is None
        assert service.open_read(HELLO.digest) is None
        assert service.missing([HELLO.digest]) == {HELLO.digest}
        assert service.capability(ChunkStore).get_chunk(HELLO.digest) is None
        assert dict(service.read_many([HELLO.digest])) == {HELLO.digest: None}

    def test_forget_when_writing(self) -> None:
        """It acknowledges with the right digest, and has nothing."""
        behind = MemoryBlobService()
        service = FaultyService(behind, plan=FaultPlan(forget=1, operations={"writer.close", "put_chunks"}))
        writer = service.open_write()
        writer.write(HELLO.data)
        assert writer.close() == writer.close() == HELLO.digest
        service.capability(ChunkStore).put_chunk(BLOB_A.digest, BLOB_A.data)
        assert list(behind.list_blobs()) == []

    def test_corrupt(self) -> None:
        """As a service that finds out; what is not there is not corrupt."""
        service = faulty(HELLO.data, corrupt=1)
        with pytest.raises(CorruptBlobError) as caught:
            service.open_read(HELLO.digest)
        assert caught.value.expected == HELLO.digest
        assert service.open_read(BLOB_A.digest) is None

    def test_truncate(self) -> None:
        service = faulty(P3M.data, truncate=1)
        with service.open_read(P3M.digest) as reader:
            data = reader.read()
        assert reader.size == len(data) < P3M.size
        assert P3M.data.startswith(data)

    def test_flip(self) -> None:
        """One bit and no more, of what is read and of what is written."""
        service = faulty(HELLO.data, flip=1)
        read = service.read(HELLO.digest)
        assert (int.from_bytes(read) ^ int.from_bytes(HELLO.data)).bit_count() == 1
        with service.open_write() as writer:
            writer.write(BLOB_B.data)
        assert writer.close() != BLOB_B.digest
        assert service.write(BLOB_A.data) == BLOB_A.digest
        assert service._service.read(BLOB_A.digest) != BLOB_A.data

    def test_partial(self) -> None:
        """About half is left out, also of what a capability lists."""
        blobs = [b"%d" % number for number in range(200)]
        service = faulty(*blobs, partial=1)
        found = set(service.capability(BlobLister).list_blobs())
        assert found < {B3Digest.of(data) for data in blobs}
        assert 50 < len(found) < 150

    def test_delay(self) -> None:
        """Between half and one and a half times the latency, by the clock that was given."""
        slept: list[float] = []
        service = FaultyService(MemoryBlobService(), plan=FaultPlan(delay=1, latency=2.0), sleep=slept.append)
        for _ in range(100):
            service.has(HELLO.digest)
        assert len(slept) == 100
        assert 1 <= min(slept) < 1.5 < 2.5 < max(slept) <= 3

    def test_faults_that_cannot_happen_do_not(self) -> None:
        service = faulty(HELLO.data, flip=1, truncate=1, partial=1, corrupt=1, operations={"has"})
        assert service.has(HELLO.digest) is True
        assert service.faults.trace == []

    @pytest.mark.parametrize("chance", [-0.1, 1.1, float("nan")])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_chance_is_from_0_to_1(self, kind: str, chance: float) -> None:
        with pytest.raises(ValueError, match=f"{kind} is a chance"):
            FaultPlan(**{kind: chance})

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
    def test_nothing_waits_for_ever(self, seconds: float) -> None:
        for name in ("latency", "hang_seconds"):
            with pytest.raises(ValueError, match=f"{name} is a number of seconds"):
                FaultPlan(**{name: seconds})

    def test_the_operations_of_objects_are_the_methods_that_there_are(self) -> None:
        """A name in the lists that nothing has would never meet a fault."""
        assert all(callable(getattr(LocalObjectStore, name, None)) for name in OBJECT_READS | OBJECT_WRITES)


class TestBatches:
    """Each item of a call for many meets faults of its own."""

    BLOBS: Final = {B3Digest.of(b"%d" % number): b"%d" % number for number in range(100)}

    @staticmethod
    def store(service: FaultyService) -> Any:
        found = service.capability(ChunkStore)
        assert found is not None
        return found

    def faulty(self, operation: str, *, filled: bool = True, **chances: Any) -> FaultyService:
        behind = MemoryBlobService()
        if filled:
            behind.put_chunks(self.BLOBS)
        return FaultyService(behind, plan=FaultPlan(operations={operation}, **chances))

    def test_the_nth_item_meets_the_same_faults_however_many_come_together(self) -> None:
        """And in whichever order a set has them."""
        one, many, set_of_all = (self.faulty("find_chunks", forget=0.3) for _ in range(3))
        digests = sorted(self.BLOBS)
        lacking = [digest for digest in digests if not self.store(one).has_chunk(digest)]
        assert 10 < len(lacking) < 60
        found = self.store(many).find_chunks(digests[:50]) | self.store(many).find_chunks(digests[50:])
        assert set(digests) - found == set(lacking)
        assert set(digests) - self.store(set_of_all).find_chunks(set(digests)) == set(lacking)
        assert one.faults.trace == many.faults.trace == set_of_all.faults.trace

    @pytest.mark.parametrize(
        ("kind", "is_so"),
        [
            ("fail", lambda got, data: isinstance(got, UnavailableError)),
            ("corrupt", lambda got, data: isinstance(got, CorruptBlobError)),
            ("forget", lambda got, data: got is None),
            ("truncate", lambda got, data: len(got) < len(data)),
            ("flip", lambda got, data: len(got) == len(data) and got != data),
        ],
    )
    def test_of_what_is_read(self, kind: str, is_so: Callable[[Any, bytes], bool]) -> None:
        """As many as the plan says, and all that are noted; the others are as they should be."""
        service = self.faulty("get_chunks", **{kind: 0.3})
        found = self.store(service).get_chunks(dict.fromkeys(self.BLOBS))
        wrong = {str(digest) for digest, data in self.BLOBS.items() if found.get(digest) != data}
        assert 10 < len(wrong) < 60
        assert wrong == {fault.about for fault in service.faults.trace}
        assert {fault.kind for fault in service.faults.trace} == {kind}
        assert all(
            is_so(found.get(digest), data) for digest, data in self.BLOBS.items() if str(digest) in wrong
        )

    @pytest.mark.parametrize("kind", ["fail", "forget", "truncate", "flip"])
    def test_of_what_is_written(self, kind: str) -> None:
        """What fails is told, what is forgotten or damaged is acknowledged."""
        service = self.faulty("put_chunks", filled=False, **{kind: 0.3})
        done = self.BLOBS.keys()
        if kind == "fail":
            with pytest.raises(BatchError) as caught:
                self.store(service).put_chunks(self.BLOBS)
            assert caught.value.done | caught.value.faults.keys() == done
        else:
            self.store(service).put_chunks(self.BLOBS)
        noted = {fault.about for fault in service.faults.trace}
        assert 10 < len(noted) < 60
        there = service._service._chunks
        right = {digest for digest in self.BLOBS if there.get(digest) == self.BLOBS[digest]}
        assert {str(digest) for digest in self.BLOBS if digest not in right} == noted
        assert there.keys() == (right if kind in {"fail", "forget"} else done)

    def test_of_claims(self) -> None:
        """Those that fail are told apart from those that are there, and those that are not."""
        absent = B3Digest.of(b"absent")
        store = self.store(self.faulty("claim", fail=0.3))
        with pytest.raises(BatchError) as caught:
            store.claim([*self.BLOBS, absent])
        assert caught.value.done == self.BLOBS.keys() - caught.value.faults.keys()
        assert 10 < len(caught.value.faults) < 60

    def test_a_question_fails_as_a_whole(self) -> None:
        """By the faults of its first item: it has but one answer."""
        store = self.store(self.faulty("find_chunks", seed=1, fail=0.3))
        failed = 0
        for start in range(0, 100, 10):
            try:
                assert len(store.find_chunks(list(self.BLOBS)[start : start + 10])) == 10
            except UnavailableError:
                failed += 1
        assert 0 < failed < 9

    def test_they_are_late_together(self) -> None:
        """As late as the last of them."""
        slept: list[float] = []
        plan = FaultPlan(delay=0.5, latency=2.0)
        service = FaultyService(MemoryBlobService(), plan=plan, sleep=slept.append)
        service.missing(self.BLOBS)
        noted = [float(fault.detail.removesuffix(" s")) for fault in service.faults.trace]
        assert len(noted) > 20
        assert slept == pytest.approx([max(noted)], abs=1e-4)

    def test_they_hang_together(self) -> None:
        """One call hangs once; those of its items that do not hang are done all the same."""
        slept: list[float] = []
        behind = MemoryBlobService()
        plan = FaultPlan(hang=0.3, hang_seconds=60)
        service = FaultyService(behind, plan=plan, sleep=slept.append)
        with pytest.raises(BatchError, match="no answer in 60 s") as caught:
            self.store(service).put_chunks(self.BLOBS)
        assert slept == [60]
        assert behind._chunks.keys() == caught.value.done == self.BLOBS.keys() - caught.value.faults.keys()

    def test_what_the_service_behind_has_done_in_part(self) -> None:
        """Its faults and those of the plan are told together."""

        class Full(MemoryBlobService):
            def put_chunks(self, chunks: Any) -> None:
                first, *others = chunks
                super().put_chunks({digest: chunks[digest] for digest in others})
                raise BatchError("full", {first: UnavailableError("full", "no space")}, done=others)

        behind = Full()
        service = FaultyService(behind, plan=FaultPlan(operations={"put_chunks"}, fail=0.3))
        with pytest.raises(BatchError) as caught:
            self.store(service).put_chunks(self.BLOBS)
        assert caught.value.done == behind._chunks.keys() == self.BLOBS.keys() - caught.value.faults.keys()
        assert "no space" in str([str(error) for error in caught.value.faults.values()])


class TestHanging:
    def test_a_hang_ends_by_itself(self) -> None:
        """With an error, when its time is over; here by a clock that runs fast."""
        slept: list[float] = []
        plan = FaultPlan(hang=1, hang_seconds=60)
        service = FaultyService(MemoryBlobService(), instance="far", plan=plan, sleep=slept.append)
        with pytest.raises(UnavailableError, match=r"`far`.*no answer in 60 s"):
            service.has(HELLO.digest)
        assert slept == [60]

    def test_release_lets_all_go_on(self) -> None:
        """Those who hang get their answers, and nobody hangs any more."""
        service = faulty(HELLO.data, hang=1, hang_seconds=60)
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(service.has, HELLO.digest) for _ in range(3)]
            assert service.faults.wait_until_hanging(3)
            assert service.faults.hanging == 3
            assert not any(answer.done() for answer in answers)
            service.faults.release()
            assert [answer.result(60) for answer in answers] == [True] * 3
        assert service.faults.hanging == 0
        assert service.has(HELLO.digest) is True

    def test_close_releases(self) -> None:
        service = faulty(HELLO.data, hang=1, hang_seconds=60)
        thread = threading.Thread(target=service.has, args=(HELLO.digest,))
        thread.start()
        assert service.faults.wait_until_hanging()
        service.close()
        thread.join(60)
        assert not thread.is_alive()

    def test_nobody_hangs(self) -> None:
        assert faulty().faults.wait_until_hanging(timeout=0) is False


class TestObjects:
    """The same for the objects of a store, here in a folder; `FaultyObjects` knows nothing of its class."""

    @staticmethod
    def store(folder: Path, **chances: Any) -> FaultyObjects:
        return FaultyObjects(LocalObjectStore(folder, instance="local"), FaultPlan(**chances))

    @pytest.fixture
    def filled(self, tmp_path: Path) -> Path:
        with ObjectStoreBlobService(LocalObjectStore(tmp_path, instance="local")) as service:
            service.write(P3M.data)
            service.write(HELLO.data)
        return tmp_path

    def test_a_service_stands_on_them(self, filled: Path) -> None:
        """With all its capabilities, and what is no operation passed on."""
        store = self.store(filled)
        with ObjectStoreBlobService(store) as service:
            assert service.read(P3M.digest) == P3M.data
            assert service.write(BLOB_A.data) == BLOB_A.digest
            assert service.durability == "full"
            assert len(list(service.list_items())) > 3
        assert store.faults.trace == []

    @pytest.mark.parametrize("kind", ["flip", "truncate"])
    def test_damage_never_reaches_a_reader(self, filled: Path, kind: str) -> None:
        """Whatever the store does with the bytes, the service says that they are corrupt."""
        corrupt = 0
        for seed in range(40):
            service = ObjectStoreBlobService(self.store(filled, seed=seed, **{kind: 0.1}))
            for blob in (P3M, HELLO):
                try:
                    assert service.read(blob.digest) == blob.data
                except CorruptBlobError:
                    corrupt += 1
        assert corrupt > 10

    def test_what_fails_is_unavailable(self, filled: Path) -> None:
        service = ObjectStoreBlobService(self.store(filled, fail=1))
        with pytest.raises(UnavailableError):
            service.has(HELLO.digest)
        with pytest.raises(UnavailableError):
            service.write(b"x")

    def test_what_is_forgotten_is_absent(self, filled: Path) -> None:
        service = ObjectStoreBlobService(self.store(filled, forget=1))
        assert service.has(P3M.digest) is False
        assert service.open_read(P3M.digest) is None

    def test_writes_that_are_forgotten(self, tmp_path: Path) -> None:
        """They are acknowledged, and not there."""
        service = ObjectStoreBlobService(self.store(tmp_path, forget=1, operations=OBJECT_WRITES))
        assert service.write(HELLO.data) == HELLO.digest
        assert service.has(HELLO.digest) is False

    def test_torn_writes(self, tmp_path: Path) -> None:
        """An object that was cut short on its way is found to be."""
        store = self.store(tmp_path, truncate=1, operations={"put"})
        store.put("chunks/x", b"0123456789")
        assert len(LocalObjectStore(tmp_path, instance="local").get("chunks/x") or store.get("chunks/x")) < 10

    def test_packs_meet_faults_as_objects_do(self, tmp_path: Path) -> None:
        """In pieces on their way in, in parts on their way out; nothing that writes or reads is left out."""
        pieces = (b"01234", bytearray(b"56789"))
        store = self.store(tmp_path, truncate=1, operations={"put_pieces"})
        store.put_pieces("chunks/x", pieces)
        assert len(store.get("chunks/x")) < 10
        store = self.store(tmp_path, flip=1, operations={"get_range"})
        store.put_pieces("chunks/y", pieces)
        assert store.get("chunks/y") == b"0123456789"
        assert store.get_range("chunks/y", 2, 5) != b"23456"
        for forgetful in ("put_pieces", "replace"):
            store = self.store(tmp_path, forget=1, operations={forgetful})
            getattr(store, forgetful)("chunks/z", pieces if forgetful == "put_pieces" else b"z")
            assert not store.exists("chunks/z")
        store = self.store(tmp_path, forget=1, operations={"get_range"})
        assert store.get_range("chunks/y", 2, 5) is None
        store = self.store(tmp_path, partial=1)
        for number in range(100):
            store.replace(f"refs/{number}", b"")
        assert 20 < len(list(store.list_below("refs/"))) < 80

    @pytest.mark.parametrize("operation", ["put_pieces", "get_range", "replace", "list_below"])
    def test_any_of_them_fails(self, tmp_path: Path, operation: str) -> None:
        store = self.store(tmp_path, fail=1, operations={operation})
        arguments = {"put_pieces": ("k", (b"x",)), "get_range": ("k", 0, 1), "replace": ("k", b"x")}
        with pytest.raises(UnavailableError):
            getattr(store, operation)(*arguments.get(operation, ("refs/",)))

    def test_indexes_are_damaged_where_they_are_flushed(self, tmp_path: Path) -> None:
        store = self.store(tmp_path, flip=1, operations={"flush"})
        store.flush([LastObject("a", b"first"), LastObject("b", b"last")])
        assert store.get("a") == b"first"
        assert store.get("b") != b"last"
        assert [(fault.operation, fault.kind) for fault in store.faults.trace] == [("flush", "flip")]

    def test_listings_lack_some(self, tmp_path: Path) -> None:
        store = self.store(tmp_path, partial=1)
        for number in range(100):
            store.put(f"x/{number}", b"")
        store.flush()
        assert 20 < len(list(store.list("x/"))) < 80

    def test_two_runs_are_alike(self, tmp_path: Path) -> None:
        def run(folder: Path) -> list[Any]:
            store = self.store(folder, seed=3, flip=0.2, forget=0.2, truncate=0.2, partial=0.2)
            for number in range(50):
                store.put(f"x/{number}", b"%d" % number)
                store.get(f"x/{number}")
            list(store.list("x/"))
            return store.faults.trace

        first = run(tmp_path / "a")
        assert len(first) > 20
        assert run(tmp_path / "b") == first

    def test_close_releases_and_closes(self, tmp_path: Path) -> None:
        store = self.store(tmp_path, hang=1, hang_seconds=60)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(store.exists, "x")
            assert store.faults.wait_until_hanging()
            store.close()
            assert answer.result(60) is False


def test_an_index_that_is_put_meets_faults_too() -> None:
    """Capabilities with several arguments, and with keywords, pass them on."""
    behind = MemoryBlobService()
    store = FaultyService(behind).capability(ChunkStore)
    for chunk in CHUNKS:
        store.put_chunk(chunk.digest, chunk.data)
    whole = B3Digest.of(bytes(range(16)))
    store.put_index(whole, [ChunkMeta(chunk.digest, chunk.size) for chunk in CHUNKS])
    assert behind.read(whole) == bytes(range(16))
    assert store.get_chunk(BLOB_A.digest, size=2) == BLOB_A.data
    with pytest.raises(CorruptBlobError):
        store.get_chunk(BLOB_A.digest, size=3)
    assert behind.has(EMPTY.digest) is False
