"""The mirror: its quorums, what it heals and how that ends, its health, and what it can do."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobService,
    ChunkMeta,
    Composition,
    CompositionError,
    CorruptBlobError,
    UnavailableError,
)
from castore.composites.members import Member
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
)
from castore.contract.upkeep import Inventory, Sweepable
from castore.digest import EMPTY
from castore.faults import READS, WRITES
from castore.testing import HELLO, P3M, FaultyService
from castore.threads.deadlines import Clock
from castore.threads.pool import Pool
from castore.wrapping.wrapper import WrapperService
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.capabilities import durability_of
from castore_mirror.healing import HealingQueue
from castore_mirror.marks import Marks
from castore_mirror.parallel import at_all
from castore_mirror.service import MirrorBlobService
from castore_mirror.writing import MirrorWriter

BIG = P3M.data + P3M.data[: 2 << 20]
BIG_DIGEST = B3Digest.of(BIG)


class Patient(Clock):
    """Time stands still until it is moved; only then does a wait for it end."""

    def __init__(self) -> None:
        self.time = 0.0
        self.moved = threading.Condition()
        self.waiting: list[float | None] = []

    def now(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        ends = None if seconds is None else self.time + seconds
        with self.moved:
            self.waiting.append(seconds)
            self.moved.notify_all()
        while not event.wait(0.005):
            if ends is not None and self.time >= ends:
                return event.is_set()
        return True

    def pass_by(self, seconds: float) -> None:
        self.time += seconds

    def until_waited_for(self, seconds: float) -> None:
        """Wait until somebody waits so long."""
        with self.moved:
            assert self.moved.wait_for(lambda: seconds in self.waiting, 30)


@pytest.fixture
def clock() -> Patient:
    return Patient()


@pytest.fixture
def probes() -> list[FaultyService]:
    """Three members that can be told to fail."""
    return [FaultyService(MemoryBlobService(), instance=name) for name in "abc"]


def mirror(services: Any, *, w: int = 2, r: int = 2, **settings: Any) -> MirrorBlobService:
    members = [Member(name, service) for name, service in zip("abc", services, strict=False)]
    return MirrorBlobService(members, write_quorum=w, miss_quorum=r, name="root", **settings)


@pytest.fixture
def whole() -> list[FaultyService]:
    """Three members that keep no chunks, and can be told to fail."""
    return [FaultyService(MemoryBlobService(), instance=name, capabilities=False) for name in "abc"]


@pytest.fixture
def root(probes: Any) -> Iterator[MirrorBlobService]:
    queue = HealingQueue("root", interval=0.001, drain=30)
    with mirror(probes, queue=queue) as service:
        yield service
        for probe in probes:
            probe.failing.clear()


def down(probe: FaultyService) -> None:
    probe.failing |= READS | WRITES


class TestQuorum:
    """How many must have it, and how many must miss it."""

    def test_a_write_goes_to_all(self, root: Any, probes: Any) -> None:
        for data in (HELLO.data, BIG, b""):
            digest = root.write(data)
            assert all(probe.read(digest) == data for probe in probes)

    @pytest.mark.parametrize(
        ("keeps", "operation"),
        [
            *((False, operation) for operation in ("open_write", "writer.write", "writer.close")),
            *((True, operation) for operation in ("put_chunks", "put_indexes")),
        ],
    )
    def test_a_write_needs_its_quorum(self, probes: Any, whole: Any, keeps: bool, operation: str) -> None:
        """One may fail at any step; with two the error names both."""
        members = probes if keeps else whole
        root = mirror(members, queue=HealingQueue(limit=0))
        members[1].failing = {operation}
        assert root.write(BIG) == BIG_DIGEST
        assert members[0].read(BIG_DIGEST) == BIG
        assert members[2].read(BIG_DIGEST) == BIG
        members[2].failing = {operation}
        with pytest.raises(UnavailableError) as caught:
            root.write(b"other")
        assert caught.value.message == (
            f"`root` is unavailable: `b`: told to fail at {operation}; `c`: told to fail at {operation}"
        )
        assert set(caught.value.causes) == {"b", "c"}

    def test_one_that_failed_once_gets_no_more_of_it(self, whole: Any) -> None:
        """Half a blob is nowhere."""
        service = mirror(whole, queue=HealingQueue(limit=0))
        whole[0].failing = {"writer.write"}
        with service.open_write() as writer:
            writer.write(HELLO.data)
            whole[0].failing.clear()
            writer.write(HELLO.data)
        assert list(whole[0]._service.list_blobs()) == []
        assert service.read(B3Digest.of(HELLO.data * 2)) == HELLO.data * 2

    def test_absence_needs_its_quorum(self, root: Any, probes: Any) -> None:
        """Two of three who answer are enough, one is not; who has it is believed alone."""
        calls: list[Callable[[], object]] = [
            lambda: root.has(HELLO.digest),
            lambda: HELLO.digest not in root.missing([HELLO.digest]),
            lambda: root.chunks(HELLO.digest),
            lambda: root.open_read(HELLO.digest),
        ]
        down(probes[0])
        assert [bool(call()) for call in calls] == [False] * 4
        down(probes[1])
        for call in calls:
            with pytest.raises(UnavailableError, match=r"`a`: told .*; `b`: told"):
                call()
        probes[2]._service.write(HELLO.data)
        assert [call() is not None and call() is not False for call in calls] == [True] * 4
        assert root.read(HELLO.digest) == HELLO.data

    def test_one_that_has_it_is_found_among_enough_that_do_not(self, probes: Any) -> None:
        """Nothing is called absent that a member which answers has: also the only one left."""
        probes[2]._service.write(HELLO.data)
        assert mirror(probes, r=2).has(HELLO.digest)
        assert mirror(probes, w=3, r=1).missing([HELLO.digest]) == set()
        assert mirror(probes, w=3, r=1).read(HELLO.digest) == HELLO.data

    def test_quorums_that_do_not_overlap(self, probes: Any) -> None:
        with pytest.raises(ValueError, match="the quorums must be more than all"):
            mirror(probes, w=1, r=2)

    def test_a_member_that_names_the_blob_otherwise(self) -> None:
        """It has not got it: with too many of those nothing is stored."""

        class Wrong(MemoryBlobService):
            def capability(self, kind: Any) -> Any:
                return None

            def open_write(self) -> Any:
                writer = super().open_write()
                close = writer.close
                writer.close = lambda: (close(), HELLO.digest)[1]  # type: ignore[method-assign]
                return writer

        two_right = [MemoryBlobService(), Wrong(), MemoryBlobService()]
        queue = HealingQueue(limit=0)
        assert mirror(two_right, queue=queue).write(b"data") == B3Digest.of(b"data")
        assert queue.dropped == 1
        with pytest.raises(UnavailableError, match=f"`b` took the blob .* for {HELLO.digest}"):
            mirror([MemoryBlobService(), Wrong(), Wrong()]).write(b"data")

    @pytest.mark.parametrize("keeps", [True, False])
    def test_the_bytes_are_written_in_parallel(self, keeps: bool) -> None:
        """Three members meet while they are written to, each in a thread."""
        barrier = threading.Barrier(3, timeout=30)

        class Meeting(MemoryBlobService):
            def capability(self, kind: Any) -> Any:
                return super().capability(kind) if keeps else None

            def put_chunks(self, chunks: Any) -> None:
                barrier.wait()
                super().put_chunks(chunks)

        pool = Pool(2)
        service = mirror([Meeting(), Meeting(), Meeting()], pool=pool)
        data = P3M.data[: 100 << 10]
        assert service.read(service.write(data)) == data
        pool.close()

    @pytest.mark.parametrize(("keeps", "operation"), [(True, "put_chunks"), (False, "writer.write")])
    def test_a_mistake_in_a_member_is_not_passed_over(
        self, probes: Any, whole: Any, keeps: bool, operation: str
    ) -> None:
        """What is no error of castore is a fault of the program, and comes out."""

        def broken(asked: str) -> None:
            if asked == operation:
                raise ZeroDivisionError

        members = probes if keeps else whole
        members[1].meet = broken
        service = mirror(members, queue=HealingQueue(limit=0))
        with pytest.raises(ZeroDivisionError):
            service.write(b"data")
        assert list(members[0]._service.list_blobs()) == []


class TestHealing:
    """What a member has missed it gets later, and what it has wrong is put right."""

    def test_a_write_that_one_has_missed(self, root: Any, probes: Any) -> None:
        """When it is back the queue empties, and all three have the blob."""
        down(probes[1])
        digests = [root.write(data) for data in (HELLO.data, BIG, b"")]
        assert [member.to_heal for member in root.health()] == [0, 3, 0]
        assert not root.health()[1].ok
        probes[1].failing.clear()
        assert root.queue.wait_until_idle(30)
        assert [probes[1].read(digest) for digest in digests] == [HELLO.data, BIG, b""]
        assert root.queue.healed == 3
        assert all(member.to_heal == 0 for member in root.health())

    def test_a_read_finds_one_that_lacks_it(self, root: Any, probes: Any) -> None:
        digest = probes[2]._service.write(BIG)
        assert root.read(digest) == BIG
        assert root.queue.wait_until_idle(30)
        assert all(probe.read(digest) == BIG for probe in probes)

    def test_many_that_are_read_together_are_repaired(self, root: Any, probes: Any) -> None:
        blobs = {probes[2]._service.write(b"%d" % number): b"%d" % number for number in range(40)}
        assert dict(root.read_many(blobs)) == blobs
        assert root.queue.wait_until_idle(30)
        assert all(sorted(probe._service.list_blobs()) == sorted(blobs) for probe in probes)

    def test_what_is_known_to_two_of_three_is_healed_at_the_third(self, root: Any, probes: Any) -> None:
        """It need not be sent again to the others."""
        for probe in probes[:2]:
            digest = probe._service.write(P3M.data)
        probes[2].failing = READS | WRITES
        probes[0].calls.clear()
        assert root.put_file(io.BytesIO(P3M.data)) == digest
        assert "put_chunks" not in probes[0].calls
        probes[2].failing = set()
        assert root.queue.wait_until_idle(30)
        assert probes[2].read(digest) == P3M.data

    def test_an_index_that_one_has_missed(self, root: Any, probes: Any) -> None:
        """Its chunk alone, which has the same digest, is not the blob."""
        probes[1].failing = {"put_indexes", "open_write"}
        digest = root.write(b"data")
        assert probes[1]._service.has(digest)
        probes[1].failing = set()
        assert root.queue.wait_until_idle(30)
        assert list(probes[1]._service.list_blobs()) == [digest]

    def test_unless_reads_repair_nothing(self, probes: Any) -> None:
        service = mirror(probes, read_repair=False)
        digest = probes[2]._service.write(BIG)
        assert service.read(digest) == BIG
        assert service.queue.wait_until_idle(30)
        assert not probes[0].has(digest)

    def test_one_that_fails_on_a_read_is_not_repaired(self, root: Any, probes: Any) -> None:
        """It may well have the blob."""
        root.write(HELLO.data)
        probes[0].calls.clear()
        probes[0].failing = {"chunks"}
        assert root.read(HELLO.digest) == HELLO.data
        assert root.queue.wait_until_idle(30)
        assert root.queue.healed == 0
        assert set(probes[0].calls) == {"chunks"}

    @pytest.mark.parametrize("what", ["index", "chunk", "lost chunk", "small"])
    def test_what_is_corrupt(self, store: Any, blobs_of: Any, key_of: Any, what: str) -> None:
        """Only that which is wrong is written anew, with the boundaries that the member has."""
        stores = [type(store)(name) for name in "ab"]
        services = [
            blobs_of(entry, avg_chunk_size=size) for entry, size in zip(stores, (65536, 131072), strict=True)
        ]
        service = mirror(services, w=2, r=1)
        data = HELLO.data if what == "small" else P3M.data
        for one in services:
            digest = one.write(data)
        good = dict(stores[0].objects)
        chunks = services[0].chunks(digest)
        key = {
            "index": key_of("blobs", digest),
            "small": key_of("chunks", digest),
        }.get(what) or key_of("chunks", chunks[3].digest)
        stores[0].objects[key] = b"spoilt"
        if what == "lost chunk":
            del stores[0].objects[key]
        stores[0].requests.clear()
        assert service.read(digest) == data
        assert service.queue.wait_until_idle(30)
        puts = [entry for verb, entry in stores[0].requests if verb == "PUT"]
        if what != "index":
            assert stores[0].objects == good
            assert [entry for entry in puts if entry.startswith("chunks")] == [key]
        stores[1].objects.clear()
        assert services[0].read(digest) == data
        service.close()

    def test_what_is_corrupt_in_a_part_of_a_member(self, smallest: Any) -> None:
        """A member that reads chunks in one place and writes them to another gets them before their index."""
        near, far, other = MemoryBlobService(), MemoryBlobService(), smallest()
        both = CacheBlobService(near, far, write="both")
        parts = [b"one" * 100, b"two" * 100]
        metas = [store_chunk(near, part) for part in parts]
        digest = other.write(b"".join(parts))
        near.put_index(digest, metas)
        service = mirror([both, other], w=2, r=1)
        service.queue.add(service._members.all[0], digest, "corrupt")
        assert service.queue.wait_until_idle(30)
        assert far.chunks(digest) == tuple(metas)
        assert far.read(digest) == b"".join(parts)
        service.close()

    def test_what_is_corrupt_in_all(self, store: Any, blobs_of: Any, key_of: Any, caplog: Any) -> None:
        """There is nothing to heal from: it is said once, and not tried for ever."""
        stores = [type(store)(name) for name in "ab"]
        service = mirror([blobs_of(entry, avg_chunk_size=65536) for entry in stores], w=2, r=1)
        digest = service.write(P3M.data)
        key = key_of("chunks", service.chunks(digest)[3].digest)  # type: ignore[index]
        for entry in stores:
            entry.objects[key] = b"spoilt"
        with pytest.raises(CorruptBlobError):
            service.read(digest)
        service.queue.add(service._members.all[0], digest, "corrupt")
        assert service.queue.wait_until_idle(30)
        assert service.queue.dropped == 1
        assert f"`root`: {digest} cannot be copied to `a`" in caplog.text

    def test_a_member_that_stays_away_is_left_alone(self, probes: Any, clock: Patient) -> None:
        """One copy is tried in so many seconds; the others are healed meanwhile."""
        queue = HealingQueue("root", interval=60, clock=clock)
        service = mirror(probes, w=1, r=3, queue=queue)
        down(probes[1])
        probes[2].failing = {"put_indexes", "open_write"}
        digests = [service.write(bytes([number])) for number in range(3)]
        clock.until_waited_for(60)
        probes[2].failing.clear()
        tried = probes[1].calls.count("claim_blobs")
        clock.pass_by(60)
        clock.until_waited_for(60)
        while any(member.to_heal for member in service.health()[2:]):
            pass
        assert all(probes[2].has(digest) for digest in digests)
        assert probes[1].calls.count("claim_blobs") == tried + 1
        probes[1].failing.clear()
        clock.pass_by(60)
        assert queue.wait_until_idle(None)
        assert all(probes[1].has(digest) for digest in digests)

    def test_the_queue_is_bounded(self, probes: Any, clock: Patient) -> None:
        """The oldest is forgotten, and counted."""
        queue = HealingQueue("root", limit=2, interval=60, drain=0, clock=clock)
        service = mirror(probes, queue=queue)
        down(probes[1])
        digests = [service.write(bytes([number])) for number in range(5)]
        assert service.health()[1].to_heal == 2
        assert queue.dropped == 3
        clock.until_waited_for(60)
        probes[1].failing.clear()
        clock.pass_by(60)
        assert queue.wait_until_idle(None)
        assert sum(probes[1].has(digest) for digest in digests) == 2

    def test_closing_tries_once_more(self, probes: Any, clock: Patient) -> None:
        """Who is back by then gets what it has missed, however long it was to be left alone."""
        queue = HealingQueue("root", interval=3600, drain=30, clock=clock)
        service = mirror(probes, queue=queue)
        down(probes[1])
        digests = [service.write(bytes([number])) for number in range(3)]
        clock.until_waited_for(3600)
        probes[1].failing.clear()
        service.close()
        assert all(probes[1].has(digest) for digest in digests)

    def test_closing_ends_also_if_a_member_stays_away(self, probes: Any, caplog: Any) -> None:
        """It is asked once more, and then what it lacks is only told."""
        service = mirror(probes, queue=HealingQueue("root", interval=3600, drain=3600))
        down(probes[1])
        for number in range(3):
            service.write(bytes([number]))
        service.close()
        assert "`root`: closed while 3 blobs had not been copied to all its services" in caplog.text
        assert service.queue.dropped == 3

    def test_closing_ends_also_if_a_copy_hangs(self, probes: Any, clock: Patient, caplog: Any) -> None:
        """At the deadline; what comes back afterwards stops before it has made anything visible."""
        hung, released = threading.Event(), threading.Event()
        service = mirror(probes, queue=HealingQueue("root", drain=7, clock=clock))
        probes[1].failing = {"put_indexes", "open_write"}
        digest = service.write(BIG)
        meet = probes[1].meet

        def hang(operation: str) -> None:
            meet(operation)
            if operation == "writer.write":
                hung.set()
                released.wait(30)

        clock.until_waited_for(10)
        probes[1].failing.clear()
        probes[1].meet = hang
        clock.pass_by(10)
        assert hung.wait(30)
        closing = threading.Thread(target=service.close)
        closing.start()
        clock.until_waited_for(7)
        clock.pass_by(7)
        closing.join(30)
        assert not closing.is_alive()
        assert "closed while 1 blobs" in caplog.text
        released.set()
        assert service.queue.wait_until_idle(None)
        assert not probes[1].has(digest)

    def test_what_is_deleted_is_not_healed(self, clock: Patient) -> None:
        """A copy that is under way does not bring it back."""
        hung, released = threading.Event(), threading.Event()
        members = [FaultyService(Deleting(), instance=name) for name in "abc"]
        queue = HealingQueue("root", interval=60, drain=30, clock=clock)
        service = mirror(members, queue=queue)
        members[1].failing = {"put_indexes", "open_write"}
        digest = service.write(b"data")
        clock.until_waited_for(60)
        members[1].failing.clear()
        meet = members[1].meet

        def hang(operation: str) -> None:
            meet(operation)
            if operation == "writer.write":
                hung.set()
                released.wait(30)

        members[1].meet = hang  # type: ignore[method-assign]
        clock.pass_by(60)
        assert hung.wait(30)
        assert service.capability(BlobDeleter).delete(digest) is True  # type: ignore[union-attr]
        released.set()
        assert queue.wait_until_idle(None)
        assert not service.has(digest)

    def test_one_that_cannot_be_copied_now_holds_up_no_other(self, clock: Patient) -> None:
        """It goes to the end of the queue."""
        queue = HealingQueue("root", interval=60, clock=clock)
        member = Member("a", MemoryBlobService())
        first, second = B3Digest.of(b"1"), B3Digest.of(b"2")
        healed: list[B3Digest] = []

        def heal(_: Member, digest: B3Digest, *__: Any) -> bool:
            if digest == first and len(healed) < 1:
                raise UnavailableError("the source of the first", "gone")
            healed.append(digest)
            return True

        queue.start(heal)
        with queue._lock:
            queue._entries.update({(member, first): "missing", (member, second): "missing"})
        queue.add(member, first)
        for _ in range(2):
            if not queue.wait_until_idle(0):
                clock.until_waited_for(60)
            clock.pass_by(60)
        assert queue.wait_until_idle(None)
        assert healed == [second, first]


class Deleting(MemoryBlobService, BlobDeleter):
    """Has more capabilities than most."""

    def delete(self, digest: B3Digest) -> bool:
        return None not in (self._indexes.pop(digest, None), self._chunks.pop(digest, None))


class Lasting(MemoryBlobService, Durable):
    """States how long it keeps things."""

    def __init__(self, level: Any) -> None:
        super().__init__()
        self.level = level

    @property
    def durability(self) -> Any:
        return self.level


class TestCapabilities:
    """None is lost and none is faked."""

    @pytest.mark.parametrize("kind", [BlobLister, BlobDeleter, ChunkStore])
    def test_what_takes_the_capability_of_all(self, smallest: Any, kind: Any) -> None:
        assert isinstance(mirror([Deleting()] * 3).capability(kind), kind)
        assert mirror([Deleting(), Deleting(), smallest()]).capability(kind) is None
        assert isinstance(mirror([smallest()] * 3).capability(ChunkSource), ChunkSource)

    def test_what_is_never_there(self) -> None:
        """What concerns single stores, or comes unchecked so that the next one could not be asked instead."""
        for kind in (Inventory, Sweepable, FrameStore, EvictionEvents):
            assert mirror([Deleting()] * 3).capability(kind) is None

    @pytest.mark.parametrize(
        ("levels", "quorum", "expected"),
        [
            (("full", "full", "full"), 1, "full"),
            (("full", "process", "process"), 3, "full"),
            (("full", "process", "process"), 2, "process"),
            (("full", "full", None), 2, "full"),
            (("full", "full", None), 1, None),
            (("process", None, None), 2, None),
            (("process", "full", None), 2, "process"),
            ((None, None, None), 3, None),
        ],
    )
    def test_durability_is_that_of_the_worst_quorum(
        self, levels: tuple[str | None, ...], quorum: int, expected: str | None
    ) -> None:
        """Whichever members acknowledge a write, one of them keeps it as stated."""
        services = [MemoryBlobService() if level is None else Lasting(level) for level in levels]
        found = durability_of([Member("x", service) for service in services], quorum)
        assert (None if found is None else found.durability) == expected

    def test_chunks_go_to_all(self, root: Any, probes: Any) -> None:
        store = root.capability(ChunkStore)
        parts = [b"one" * 100, b"two" * 100]
        metas = [store_chunk(store, part) for part in parts]
        blob = B3Digest.of(b"".join(parts))
        assert all(store.claim_chunk(meta.digest) for meta in metas)
        with store.lease() as leased:
            leased.put_index(blob, metas)
        assert all(probe.read(blob) == b"".join(parts) for probe in probes)

    def test_a_chunk_that_one_has_missed(self, root: Any, probes: Any) -> None:
        """It gets no index of a blob that would be incomplete there, but the blob in the end."""
        store = root.capability(ChunkStore)
        probes[1].failing = {"put_chunks"}
        parts = [b"one" * 100, b"two" * 100]
        metas = [store_chunk(store, part) for part in parts]
        blob = B3Digest.of(b"".join(parts))
        store.put_index(blob, metas)
        assert root.read(blob) == b"".join(parts)
        assert root.queue.wait_until_idle(30)
        assert probes[1].read(blob) == b"".join(parts)
        assert "put_index" not in probes[1].calls

    def test_the_empty_blob_needs_no_chunk(self, probes: Any) -> None:
        """Also where one of no bytes could not be put, or claimed."""
        root = mirror(probes, w=3, r=1, queue=HealingQueue(limit=0))
        store = root.capability(ChunkStore)
        assert store is not None
        probes[1].failing = {"put_chunks"}
        with pytest.raises(UnavailableError):
            store_chunk(store, b"")
        assert root.write(b"") == EMPTY
        assert [list(probe._service.list_blobs()) for probe in probes] == [[EMPTY]] * 3

    def test_a_chunk_that_too_many_have_missed(self, probes: Any) -> None:
        """It is remembered who has not got it, though the chunk counts as not stored.

        Another mirror may have it stored elsewhere, and come with the index of its blob.
        """
        queue = HealingQueue(limit=0)
        service = mirror(probes[:2], w=2, r=1, queue=queue)
        store: Any = service.capability(ChunkStore)
        probes[0].failing = {"put_chunks"}
        chunk = b"chunk" * 100
        with pytest.raises(UnavailableError):
            store_chunk(store, chunk)
        probes[0].failing = set()
        rest = store_chunk(store, b"rest")
        metas = [ChunkMeta(B3Digest.of(chunk), len(chunk)), rest]
        with pytest.raises(UnavailableError, match="`a`: it has missed some of the chunks"):
            store.put_index(B3Digest.of(chunk + b"rest"), metas)
        assert "put_index" not in probes[0].calls

    def test_a_chunk_that_was_put_again(self, probes: Any) -> None:
        """It is not missed any more, and need not be claimed once more."""
        root = mirror(probes, w=3, r=1, queue=HealingQueue(limit=0))
        store = root.capability(ChunkStore)
        assert store is not None
        probes[1].failing = {"put_chunks"}
        with pytest.raises(UnavailableError):
            store_chunk(store, b"data")
        probes[1].failing = set()
        meta = store_chunk(store, b"data")
        probes[1].calls.clear()
        store.put_index(meta.digest, ())
        assert probes[1].calls == ["put_indexes"]

    def test_too_many_chunks_to_remember(self, monkeypatch: Any) -> None:
        """Then each may have been missed."""
        monkeypatch.setattr("castore_mirror.marks._REMEMBERED", 3)
        marks = Marks()
        digests = [B3Digest.of(b"%d" % number) for number in range(5)]
        marks.add(digests[:3])
        assert marks.among(set(digests)) == set(digests[:3])
        marks.remove(digests[:1])
        marks.add(digests[2:4])
        assert marks.among(set(digests)) == set(digests[1:4])
        marks.add(digests[4:])
        assert marks.among({digests[0]}) == {digests[0]}

    def test_a_chunk_that_a_member_has_missed_where_it_writes(self) -> None:
        """That another of its own members has it is not enough for an index there."""
        target, archive = FaultyService(MemoryBlobService()), MemoryBlobService()
        both = FallbackBlobService([Member("target", target), Member("archive", archive)])
        service = mirror([both, MemoryBlobService()], w=1, r=2, queue=HealingQueue(limit=0))
        store: Any = service.capability(ChunkStore)
        parts = [b"one" * 100, b"two" * 100]
        target.failing = {"put_chunks"}
        metas = [store_chunk(store, part) for part in parts]
        for part in parts:
            archive.write(part)
        target.failing = set()
        store.put_index(B3Digest.of(b"".join(parts)), metas)
        assert "put_index" not in target.calls

    @pytest.mark.parametrize("operation", ["put_chunks", "put_indexes", "claim"])
    def test_chunks_need_the_quorum(self, root: Any, probes: Any, operation: str) -> None:
        store = root.capability(ChunkStore)
        meta = store_chunk(store, b"chunk")
        calls: dict[str, Callable[[], object]] = {
            "put_chunks": lambda: store_chunk(store, b"other"),
            "put_indexes": lambda: store.put_index(meta.digest, ()),
            "claim": lambda: store.claim_chunk(meta.digest),
        }
        probes[0].failing = {operation}
        calls[operation]()
        probes[1].failing = {operation}
        with pytest.raises(UnavailableError, match=f"`a`: told to fail at {operation}; `b`: told"):
            calls[operation]()


def store_chunk(store: ChunkStore, data: bytes) -> ChunkMeta:
    digest = B3Digest.of(data)
    store.put_chunk(digest, data)
    return ChunkMeta(digest, len(data))


class Hanging(WrapperService):
    """Hangs where it is told to, and remembers the bytes that it was given by the time that it went on."""

    def __init__(self, *, keeps: bool = True) -> None:
        super().__init__(MemoryBlobService())
        self.keeps = keeps
        self.at = ""
        self.released = threading.Event()
        self.taken: list[tuple[B3Digest, bytes]] = []
        self.took = threading.Event()

    def around(self, operation: Any, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        if operation == self.at:
            self.released.wait(30)
            if operation in {"writer.write", "put_chunks"}:
                given = args[0] if operation == "put_chunks" else {BIG_DIGEST: args[0]}
                self.taken += [(digest, bytes(data)) for digest, data in given.items()]
                # Not by what heals it, which comes piece by piece, and may be faster.
                if operation == "put_chunks" or len(args[0]) == len(BIG):
                    self.took.set()
        return call(*args, **kwargs)

    def capability(self, kind: Any) -> Any:
        return super().capability(kind) if self.keeps else None


class TestHangs:
    """With timeouts on its members no operation waits for one that hangs."""

    @pytest.fixture
    def hanging(self) -> Iterator[Callable[..., Hanging]]:
        made: list[Hanging] = []

        def make(**settings: bool) -> Hanging:
            made.append(Hanging(**settings))
            return made[-1]

        yield make
        for one in made:
            one.released.set()

    @pytest.mark.parametrize(
        ("keeps", "at", "to_heal"),
        [
            *((False, at, 1) for at in ("open_write", "writer.write", "writer.close")),
            *((True, at, 1) for at in ("put_chunks", "put_indexes")),
            # What it could not be asked for it has, or gets; without a lease it might lose some again.
            *((True, at, 0) for at in ("claim", "lease")),
        ],
    )
    def test_a_write(self, hanging: Any, keeps: bool, at: str, to_heal: int) -> None:
        """The others have it; the one that hangs is to be healed, and the shared pool is free."""
        slow = hanging(keeps=keeps)
        slow.at = at
        members = [
            Member("a", slow, timeout=1.0),
            Member("b", MemoryBlobService()),
            Member("c", MemoryBlobService()),
        ]
        pool = Pool(1)
        queue = HealingQueue(interval=3600, drain=0)
        service = MirrorBlobService(members, write_quorum=2, miss_quorum=2, queue=queue, pool=pool)
        buffer = bytearray(BIG)
        with service.open_write() as writer:
            writer.write(buffer)
            buffer[:] = bytes(len(buffer))
            assert writer.close() == BIG_DIGEST
        assert service.read(BIG_DIGEST) == BIG
        assert service.health()[0].to_heal == to_heal
        assert pool.submit(lambda: "free").result() == "free"
        pool.close()
        slow.released.set()
        if at in {"writer.write", "put_chunks"}:
            # The buffer was used again long ago.
            assert slow.took.wait(30)
            taken = [
                (digest, data) for digest, data in slow.taken if digest != BIG_DIGEST or len(data) == len(BIG)
            ]
            assert taken
            assert all(B3Digest.of(data) == digest for digest, data in taken)
        service.close()

    def test_health_tells(self, hanging: Any) -> None:
        slow = hanging()
        slow.at = "missing"
        members = [Member("a", slow, timeout=0.05), Member("b", MemoryBlobService())]
        service = MirrorBlobService(members, write_quorum=2, miss_quorum=1)
        assert service.has(HELLO.digest) is False
        told, other = service.health()
        assert (told.failures, told.abandoned, told.ok) == (1, 1, False)
        assert told.last_error == "`a` is unavailable: no answer within 0.05 s"
        assert other.ok


MEMBERS = '[blobservices.a]\ntype = "memory"\n[blobservices.b]\ntype = "memory"\n'


class TestConfig:
    """What can be known to be wrong before anything is built is told, with its place."""

    @pytest.mark.parametrize(
        ("lines", "line", "key", "message", "hint"),
        [
            (
                ["write_quorum = 1", "miss_quorum = 2"],
                4,
                "write_quorum",
                "a write may reach 1 of 3 services, and 2 others would call it absent",
                "`write_quorum` and `miss_quorum` must add up to more than 3",
            ),
            (
                ["write_quorum = 4"],
                4,
                "write_quorum",
                "expected 1 to 3, as there are 3 services, found 4",
                None,
            ),
            (
                ["", "miss_quorum = 0"],
                5,
                "miss_quorum",
                "expected 1 to 3, as there are 3 services, found 0",
                None,
            ),
        ],
    )
    def test_quorums(
        self, tmp_path: Path, lines: list[str], line: int, key: str, message: str, hint: str | None
    ) -> None:
        path = tmp_path / "composition.toml"
        services = 'services = ["&a", { ref = "&b", timeout = "2 s" }, "memory:"]'
        path.write_text("\n".join(["[blobservices.root]", 'type = "mirror"', services, *lines, MEMBERS]))
        with pytest.raises(CompositionError) as caught:
            Composition.from_toml(path)
        (problem,) = caught.value.problems
        column = lines[line - 4].index("=") + 3
        found = (problem.line, problem.column, problem.dotted, problem.message, problem.hint)
        assert found == (line, column, f"blobservices.root.{key}", message, hint)

    def test_one_service_is_no_mirror(self) -> None:
        with pytest.raises(CompositionError, match="at least 2 services must be listed"):
            Composition.from_mapping({"blobservices": {"root": {"type": "mirror", "services": ["memory:"]}}})

    @pytest.mark.parametrize(
        ("count", "written", "expected"),
        [
            (2, {}, (2, 1)),
            (3, {}, (2, 2)),
            (4, {}, (3, 2)),
            (5, {}, (3, 3)),
            (3, {"write_quorum": 1}, (1, 3)),
            (3, {"write_quorum": 3}, (3, 1)),
            (3, {"miss_quorum": 3}, (2, 3)),
            (3, {"miss_quorum": 1}, (3, 1)),
            (2, {"write_quorum": 1, "miss_quorum": 2}, (1, 2)),
        ],
    )
    def test_the_defaults_hold(self, count: int, written: dict[str, int], expected: tuple[int, int]) -> None:
        """What is not said follows from what is, such that no write is called absent."""
        tables = {"root": {"type": "mirror", "services": ["memory:"] * count, **written}}
        with Composition.from_mapping({"blobservices": tables}) as stores:
            config = stores.graph.instances["blobservices.root"].config
            assert config.quorums == expected
            root = stores.blobs()
            assert isinstance(root, MirrorBlobService)
            assert (root._quorum, root._members.misses) == expected

    def test_a_composition_heals_before_it_closes(self, tmp_path: Path) -> None:
        """The mirror is closed before its members."""
        tables = {
            "root": {"type": "mirror", "services": ["&a", "&b"], "drain": "30 s"},
            "a": {"type": "objectstore", "object_store_url": "file:./a"},
            "b": {"type": "objectstore", "object_store_url": "file:./b"},
        }
        with Composition.from_mapping({"blobservices": tables}, base=tmp_path) as stores:
            digest = stores.blobs("b").write(P3M.data)
            assert stores.blobs().read(digest) == P3M.data
        with Composition.from_mapping({"blobservices": tables}, base=tmp_path) as stores:
            assert stores.blobs("a").read(digest) == P3M.data


def test_a_writer_that_cannot_begin_leaves_none_behind(probes: Any) -> None:
    """Those that were opened are aborted."""
    aborted: list[str] = []
    for probe in probes:
        opening = probe._service.open_write

        def open_write(opening: Any = opening) -> Any:
            writer = opening()
            writer.abort = lambda: aborted.append("yes")
            return writer

        probe._service.open_write = open_write
    down(probes[0])
    down(probes[1])
    members = [Member(name, probe) for name, probe in zip("abc", probes, strict=True)]
    with pytest.raises(UnavailableError):
        MirrorWriter("root", members, quorum=2, missed=lambda *_: None, pool=Pool(0))
    assert aborted == ["yes"]


def test_services_are_just_services() -> None:
    """A mirror of mirrors is one, too."""
    inner: list[BlobService] = [mirror([MemoryBlobService()] * 3) for _ in range(3)]
    outer = mirror(inner)
    assert outer.read(outer.write(BIG)) == BIG


class TestAtAll:
    """Calls to all members at the same time."""

    def calls(self, *whats: Callable[[], Any]) -> list[tuple[Member, Any]]:
        members = [Member(name, MemoryBlobService()) for name in "abc"]
        return [(member, partial(member.begin, what)) for member, what in zip(members, whats, strict=True)]

    def failing(self, error: BaseException) -> Callable[[], Any]:
        def fail() -> None:
            raise error

        return fail

    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_what_comes_of_each_in_their_order(self, size: int) -> None:
        error = UnavailableError("b", "gone")
        pool = Pool(size)
        assert at_all(self.calls(lambda: 1, self.failing(error), lambda: 3), pool) == [1, error, 3]
        pool.close()

    def test_after_a_mistake_the_others_are_let_go_of(self) -> None:
        released: list[int] = []
        calls = self.calls(lambda: 1, self.failing(ZeroDivisionError()), lambda: 3)
        with pytest.raises(ZeroDivisionError):
            at_all(calls, Pool(0), late=released.append)
        assert sorted(released) == [1, 3]

    def test_an_interrupt_begins_nothing_more(self) -> None:
        """It waits for what is under way, which uses the bytes of the caller."""
        pool = Pool(1)
        started, released = threading.Event(), threading.Event()
        ended: list[str] = []

        def under_way() -> None:
            started.set()
            released.wait(30)
            ended.append("under way")

        def interrupted() -> None:
            started.wait(30)
            threading.Timer(0.05, released.set).start()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            at_all(self.calls(under_way, lambda: ended.append("not begun"), interrupted), pool)
        pool.close()
        assert ended == ["under way"]
