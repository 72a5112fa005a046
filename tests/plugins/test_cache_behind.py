"""`write = "behind"`: what is acknowledged reaches far, whatever dies, and what waits is bounded and seen."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, BlobWriter, Composition, UnavailableError
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Pinning
from castore.errors import BatchError
from castore.faults import READS, WRITES
from castore.testing import CHUNKS, HELLO, P3M, FaultyService
from castore.threads.deadlines import CLOCK, Clock
from castore_cache.backlog import Backlog
from castore_cache.behind import Behind
from castore_cache.service import CacheBlobService
from castore_memory.service import MemoryBlobService

PROGRAM: Final = Path(__file__).with_name("writing_behind.py")
WRITER: Final = ("open_write", "writer.write", "writer.close")


class Patient(Clock):
    """Time stands still until it is moved; only then does a wait for it end."""

    def __init__(self) -> None:
        self.time = 100.0
        self.changed = threading.Condition()
        self.waits: list[float | None] = []

    def now(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        ends = None if seconds is None else self.time + seconds
        with self.changed:
            self.waits.append(seconds)
            self.changed.notify_all()
        while not event.wait(0.002):
            if ends is not None and self.time >= ends:
                return event.is_set()
        return True

    def until_waited_for(self, seconds: float) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: seconds in self.waits, 30)

    def pass_by(self, seconds: float) -> None:
        with self.changed:
            self.waits.clear()
        self.time += seconds


class Scene:
    """A cache that writes behind, and what is before and behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "queue"
        self.near: BlobService = MemoryBlobService()
        self.kept = MemoryBlobService()
        self.far = FaultyService(self.kept, instance="far")
        self.clock: Clock = Patient()
        self.stack = contextlib.ExitStack()

    def open(self, **settings: Any) -> CacheBlobService:
        limits = {name: settings.pop(name) for name in ("limit", "on_full", "full_wait") if name in settings}
        settings = {"retry_after": 5.0, "drain": 10.0, **settings}
        backlog = Backlog(self.folder, name="root", clock=self.clock, **limits)
        cache = CacheBlobService(
            self.near,
            self.far,
            write="behind",
            name="root",
            clock=self.clock,
            behind=lambda near: Behind(near, self.far, backlog, name="root", clock=self.clock, **settings),
        )
        self.stack.callback(cache.close)
        return cache

    def waiting(self) -> set[str]:
        return (
            {path.name for path in self.folder.iterdir() if path.is_file()} if self.folder.exists() else set()
        )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    with scene.stack:
        yield scene
        # A cache that is left open must not wait for what a test has broken.
        scene.far.failing = set()
        scene.clock = CLOCK


def down(scene: Scene) -> None:
    scene.far.failing = {*READS, *WRITES}


def up(scene: Scene) -> None:
    scene.far.failing = set()


class TestAcknowledging:
    def test_near_and_the_queue_have_it(self, scene: Scene) -> None:
        """A blob is acknowledged though far is down, once near has it and its entry is in the folder."""
        down(scene)
        cache = scene.open()
        digest = cache.write(HELLO.data)
        assert digest == HELLO.digest
        assert scene.near.has(digest)
        assert scene.waiting() == {digest.hex()}
        assert not scene.kept.has(digest)

    def test_the_entry_is_flushed(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """The folder that has it, and those made for it, are on the disk before the writer has closed."""
        flushed: list[str] = []
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", noted)
        down(scene)
        cache = scene.open()
        writer = cache.open_write()
        writer.write(HELLO.data)
        assert flushed == []
        writer.close()
        assert flushed == [str(scene.folder.parent), str(scene.folder)]

    def test_a_queue_that_cannot_be_written_acknowledges_nothing(self, scene: Scene) -> None:
        """Its error names the file, and the writer has failed."""
        scene.folder.touch()
        with pytest.raises(UnavailableError, match="queue"):
            scene.open()
        scene.folder.unlink()
        cache = scene.open()
        scene.folder.touch()
        with pytest.raises(UnavailableError, match=r"`root` is unavailable.*queue"):
            cache.write(HELLO.data)
        scene.folder.unlink()

    @pytest.mark.parametrize("operation", [*WRITER, "lease", "claim", "put_chunks", "put_indexes"])
    def test_near_must_take_it(self, scene: Scene, operation: str) -> None:
        """Nothing is queued that near does not have."""
        scene.near = FaultyService(
            MemoryBlobService(), {operation}, instance="broken", capabilities=operation not in WRITER
        )
        cache = scene.open()
        with pytest.raises(UnavailableError, match="`broken`"):
            cache.write(HELLO.data)
        assert scene.waiting() == set()

    def test_an_aborted_blob_is_not_queued(self, scene: Scene) -> None:
        writer = scene.open().open_write()
        writer.write(HELLO.data)
        writer.abort()
        assert scene.waiting() == set()

    def test_what_is_claimed_is_queued(self, scene: Scene) -> None:
        """That near has a blob says nothing about far: one that need not be written again is sent as well."""
        down(scene)
        scene.near.write(HELLO.data)
        store: Any = scene.open().capability(ChunkStore)
        assert store.claim_blobs({P3M.digest: None}) == set()
        assert scene.waiting() == set()
        assert store.claim_blobs({P3M.digest: None, HELLO.digest: ()}) == {HELLO.digest}
        assert scene.waiting() == {HELLO.digest.hex()}

    def test_chunks_are_queued_with_their_blob(self, scene: Scene) -> None:
        """A chunk alone waits for its index; more blobs at once than may wait go in turns."""
        store: Any = scene.open(limit=2).capability(ChunkStore)
        assert store.round == 2
        store.put_chunks({chunk.digest: chunk.data for chunk in CHUNKS})
        assert scene.waiting() == set()
        store.put_indexes({chunk.digest: () for chunk in CHUNKS})
        assert len(CHUNKS) > 2
        cache = scene.open()
        assert cache.flush(30) is True
        assert all(scene.kept.has(chunk.digest) for chunk in CHUNKS)

    def test_what_there_is_no_room_for_is_told_item_by_item(self, scene: Scene) -> None:
        """Those that there was room for are in the queue, and need not be put again."""
        down(scene)
        store: Any = scene.open(limit=2, on_full="fail").capability(ChunkStore)
        store.put_chunks({chunk.digest: chunk.data for chunk in CHUNKS})
        with pytest.raises(BatchError, match="`queue_limit` is 2") as caught:
            store.put_indexes({chunk.digest: () for chunk in CHUNKS})
        assert {digest.hex() for digest in caught.value.done} == scene.waiting()
        assert len(caught.value.done) == 2
        assert {*caught.value.done, *caught.value.faults} == {chunk.digest for chunk in CHUNKS}

    def test_what_near_has_put_in_part_is_queued_in_part(self, scene: Scene) -> None:
        """The others' faults are told, and a later put of them alone is enough."""
        down(scene)

        class Partly(MemoryBlobService):
            broken = True

            def put_indexes(self, blobs: Mapping[B3Digest, Any]) -> None:
                first, *others = blobs
                super().put_indexes({first: blobs[first]})
                if self.broken and others:
                    fault = UnavailableError("near", "no")
                    raise BatchError("near", dict.fromkeys(others, fault), done=[first])

        scene.near = near = Partly()
        store: Any = scene.open().capability(ChunkStore)
        with pytest.raises(BatchError) as caught:
            store.put_indexes({chunk.digest: () for chunk in CHUNKS})
        assert list(caught.value.done) == list(near.list_blobs()) == [CHUNKS[0].digest]
        assert scene.waiting() == {CHUNKS[0].digest.hex()}
        assert caught.value.faults.keys() == {chunk.digest for chunk in CHUNKS[1:]}

    @pytest.mark.parametrize("data", [HELLO.data, P3M.data], ids=len)
    @pytest.mark.parametrize("capabilities", [True, False])
    def test_cut_as_far_cuts(self, scene: Scene, near: Any, data: bytes, capabilities: bool) -> None:
        """What gets to far later has far's boundaries in near already; near's own if far keeps no chunks."""
        scene.near, scene.far = near, FaultyService(scene.kept, capabilities=capabilities)
        cache = scene.open()
        digest = cache.write(data)
        plain = near if not capabilities else scene.kept
        expected = type(plain.new_chunker())(plain.new_chunker().avg_size).cut(data)
        sizes = [meta.size for meta in near.chunks(digest)]
        assert sizes == (list(expected) if len(sizes) > 1 else [])
        assert cache.flush() is True

    def test_files_are_acknowledged_as_they_are_yielded(self, scene: Scene, tmp_path: Path) -> None:
        """Those that can be read, though some cannot."""
        down(scene)
        for number in range(5):
            (tmp_path / str(number)).write_bytes(bytes([number]))
        found = scene.open(limit=5).put_files([tmp_path / name for name in ("0", "1", "none", "2", "3", "4")])
        seen = [entry.hex() for entry in found if isinstance(entry, B3Digest)]
        assert len(seen) == 5
        assert scene.waiting() == set(seen)


class TestUploading:
    @pytest.mark.parametrize("data", [b"", HELLO.data, P3M.data], ids=len)
    def test_far_gets_it(self, scene: Scene, data: bytes) -> None:
        """Whatever its size; then nothing waits any more."""
        cache = scene.open()
        digest = cache.write(data)
        assert cache.flush() is True
        assert scene.kept.read(digest) == data
        assert scene.waiting() == set()
        assert cache.lag().entries == 0  # type: ignore[union-attr]

    def test_what_far_has_is_not_sent(self, scene: Scene) -> None:
        """It is asked before."""
        scene.kept.write(P3M.data)
        cache = scene.open()
        cache.write(P3M.data)
        assert cache.flush() is True
        assert not {"open_write", "put_chunks"} & set(scene.far.calls)

    def test_many_are_sent_together(self, scene: Scene) -> None:
        """Ever more at a time, as long as that does not take long."""
        down(scene)
        cache = scene.open()
        store: Any = cache.capability(ChunkStore)
        blobs = {B3Digest.of(data): data for data in (b"%d" % number for number in range(1000))}
        store.put_chunks(blobs)
        store.put_indexes(dict.fromkeys(blobs, ()))
        scene.clock.until_waited_for(5.0)  # type: ignore[attr-defined]
        up(scene)
        scene.far.calls.clear()
        assert cache.flush() is True
        assert scene.far.calls.count("put_chunks") <= 12
        assert set(scene.kept.list_blobs()) == set(blobs)

    def test_a_far_that_fails_is_tried_again_after_a_while(self, scene: Scene) -> None:
        """And not before; its error is to be seen."""
        down(scene)
        cache = scene.open()
        cache.write(HELLO.data)
        clock: Any = scene.clock
        clock.until_waited_for(5.0)
        tried = len(scene.far.calls)
        lag = cache.lag()
        assert lag is not None
        assert (lag.entries, lag.failures) == (1, 1)
        assert "`far` is unavailable" in (lag.last_error or "")
        clock.pass_by(4.9)
        assert len(scene.far.calls) == tried
        clock.pass_by(0.1)
        clock.until_waited_for(5.0)
        assert cache.lag().failures == 2  # type: ignore[union-attr]
        up(scene)
        clock.pass_by(5.0)
        assert cache.flush() is True
        assert scene.kept.has(HELLO.digest)
        assert cache.lag().last_error is None  # type: ignore[union-attr]

    def test_others_go_on_where_one_is_lost(self, scene: Scene, caplog: Any) -> None:
        """What near has lost before far got it is set aside, and told as an error."""
        down(scene)
        cache = scene.open()
        cache.write(HELLO.data)
        cache.write(P3M.data)
        del scene.near._chunks[HELLO.digest]  # type: ignore[attr-defined]
        up(scene)
        assert cache.flush() is True
        assert scene.kept.has(P3M.digest)
        assert (scene.folder / "lost" / HELLO.digest.hex()).exists()
        assert cache.gauges()["queue_lost"] == 1
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert str(HELLO.digest) in caplog.text
        assert scene.open().gauges()["queue_lost"] == 1

    def test_what_cannot_be_read_now_lets_others_go(self, scene: Scene, caplog: Any) -> None:
        """However many there are, and however old; they are tried again, and told of once each."""
        near, clock = scene.near, scene.clock
        stuck = {near.write(b"stuck %d" % number) for number in range(40)}
        scene.folder.mkdir()
        for digest in stuck:
            (scene.folder / str(digest)).touch()
            os.utime(scene.folder / str(digest), (1e9, 1e9))
        broken = set(stuck)
        get_chunks = near.get_chunks  # type: ignore[attr-defined]

        def get_some(sizes: Any) -> Any:
            found = get_chunks(sizes)
            return {
                digest: UnavailableError("near", "no such luck") if digest in broken else data
                for digest, data in found.items()
            }

        near.get_chunks = get_some  # type: ignore[attr-defined]
        cache = scene.open()
        new = [cache.write(b"new %d" % number) for number in range(3)]
        for _ in range(1000):
            if not scene.kept.missing(new):
                break
            clock.pass_by(5.0)  # type: ignore[attr-defined]
            time.sleep(0.005)
        assert not scene.kept.missing(new)
        assert scene.waiting() == {str(digest) for digest in stuck}
        lag = cache.lag()  # type: ignore[union-attr]
        assert lag.entries == 40
        assert "no such luck" in (lag.last_error or "")
        told = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(told) == len({record.getMessage() for record in told}) <= 40
        assert told
        broken.clear()
        assert cache.flush() is True
        assert not scene.kept.missing(stuck)
        assert cache.lag().last_error is None  # type: ignore[union-attr]

    def test_what_is_no_entry_is_nobodys_blob(self, scene: Scene) -> None:
        """In another name or form somebody else has put it there: it stays, and nothing is sent for it."""
        scene.folder.mkdir()
        kept = scene.near.write(HELLO.data)
        names = (str(kept).upper(), kept.sri.replace("/", "_"), f"{kept}#1", f"{kept}.txt", "notes")
        for name in names:
            (scene.folder / name).touch()
        full = scene.near.write(b"full")
        (scene.folder / str(full)).write_bytes(b"not empty")
        linked = scene.near.write(b"linked")
        (scene.folder / str(linked)).symlink_to("notes")
        (scene.folder / str(scene.near.write(b"folder"))).mkdir()
        before = sorted(path.name for path in scene.folder.iterdir())
        cache = scene.open()
        assert cache.lag().entries == 0  # type: ignore[union-attr]
        with pytest.raises(UnavailableError, match=r"no entry of the queue.*move it elsewhere"):
            cache.write(b"full")
        cache.write(HELLO.data)
        assert cache.flush() is True
        assert sorted(path.name for path in scene.folder.iterdir()) == before
        assert list(scene.kept.list_blobs()) == [HELLO.digest]

    def test_put_again_it_is_sent(self, scene: Scene) -> None:
        """A blob that was lost, and is there again, waits again."""
        down(scene)
        cache = scene.open()
        cache.write(HELLO.data)
        del scene.near._chunks[HELLO.digest]  # type: ignore[attr-defined]
        up(scene)
        assert cache.flush() is True
        cache.write(HELLO.data)
        assert cache.flush() is True
        assert scene.kept.has(HELLO.digest)

    def test_an_uploader_that_meets_a_mistake_goes_on(self, scene: Scene) -> None:
        """Whatever a stranger's service raises."""

        class Wrong(MemoryBlobService):
            wrong = True

            def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                if self.wrong:
                    raise ZeroDivisionError("a mistake")
                return super().missing(digests)

        scene.far = wrong = Wrong()  # type: ignore[assignment]
        cache = scene.open()
        cache.write(HELLO.data)
        scene.clock.until_waited_for(5.0)  # type: ignore[attr-defined]
        assert cache.lag().last_error == "ZeroDivisionError: a mistake"  # type: ignore[union-attr]
        wrong.wrong = False
        assert cache.flush() is True
        scene.far = FaultyService(wrong)

    def test_many_writers(self, scene: Scene) -> None:
        """All that many threads have put reaches far."""
        cache = scene.open()
        blobs = [random.Random(number).randbytes(500) for number in range(100)]
        with ThreadPoolExecutor(8) as pool:
            digests = list(pool.map(cache.write, blobs))
        assert cache.flush() is True
        assert [scene.kept.read(digest) for digest in digests] == blobs
        assert scene.waiting() == set()

    def test_what_is_put_while_it_is_sent_waits_again(self, scene: Scene) -> None:
        """The entry of a blob that was put again is not removed by an upload that began before that."""
        backlog = Backlog(scene.folder)
        backlog.add([HELLO.digest])
        before = backlog.first(10)
        backlog.add([HELLO.digest])
        backlog.remove(HELLO.digest, before[HELLO.digest])
        backlog.give_up(HELLO.digest, before[HELLO.digest])
        assert scene.waiting() == {HELLO.digest.hex()}
        backlog.remove(HELLO.digest, backlog.first(10)[HELLO.digest])
        assert scene.waiting() == set()


def test_a_flush_is_a_try_that_begins_now(scene: Scene) -> None:
    """What is under way when it is called, and fails of what was before, is tried again without a rest."""
    under_way, go_on = threading.Event(), threading.Event()

    class FailsOnce(MemoryBlobService):
        def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
            if not under_way.is_set():
                under_way.set()
                assert go_on.wait(30)
                raise UnavailableError("far", "it was down")
            super().put_chunks(chunks)

    scene.far = FailsOnce()  # type: ignore[assignment]
    cache = scene.open()
    cache.write(HELLO.data)
    assert under_way.wait(30)
    hurry = cache._behind._uploader._backlog.hurry  # type: ignore[union-attr]

    def hurried() -> None:
        hurry()
        go_on.set()

    cache._behind._uploader._backlog.hurry = hurried  # type: ignore[method-assign, union-attr]
    assert cache.flush(20) is True
    assert scene.far.has(HELLO.digest)


class TestBackPressure:
    def test_a_full_queue_fails_a_writer(self, scene: Scene) -> None:
        """Before near has the blob; there is room again once far has got something."""
        down(scene)
        cache = scene.open(limit=2, on_full="fail")
        cache.write(b"one")
        cache.write(b"two")
        with pytest.raises(UnavailableError, match="2 blobs wait for it, and `queue_limit` is 2"):
            cache.write(b"three")
        assert B3Digest.of(b"three") not in scene.near.list_blobs()  # type: ignore[attr-defined]
        up(scene)
        assert cache.flush() is True
        cache.write(b"three")

    def test_a_full_queue_lets_a_writer_wait(self, scene: Scene) -> None:
        """Until there is room, or its time is over."""
        down(scene)
        clock: Any = scene.clock
        cache = scene.open(limit=1, full_wait=60.0)
        cache.write(b"one")
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(cache.write, b"two")
            clock.until_waited_for(60.0)
            assert not late.done()
            clock.pass_by(60.0)
            with pytest.raises(UnavailableError, match="far is behind"):
                late.result(30)
            late = pool.submit(cache.write, b"two")
            clock.until_waited_for(60.0)
            up(scene)
            clock.pass_by(5.0)
            assert late.result(30) == B3Digest.of(b"two")

    def test_writers_at_once_do_not_get_beyond_it(self, scene: Scene) -> None:
        """Room is kept before near takes a blob."""
        down(scene)
        cache = scene.open(limit=3, on_full="fail")
        done = failed = 0
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(cache.write, bytes([number])) for number in range(20)]:
                if future.exception(30) is None:
                    done += 1
                else:
                    failed += 1
        assert done <= 3
        assert done + failed == 20
        assert len(scene.waiting()) == done


class TestSeen:
    def test_the_lag(self, scene: Scene) -> None:
        """How many wait, and how long the oldest has."""
        down(scene)
        clock: Any = scene.clock
        cache = scene.open()
        assert cache.lag().oldest_seconds == 0  # type: ignore[union-attr]
        cache.write(b"one")
        clock.pass_by(3.0)
        cache.write(b"two")
        lag = cache.lag()
        assert lag is not None
        assert (lag.entries, lag.oldest_seconds, lag.lost) == (2, 3.0, 0)
        gauges = cache.gauges()
        assert (gauges["queue_entries"], gauges["queue_oldest_seconds"]) == (2, 3.0)
        assert set(gauges) == {
            "near_errors", "near_damages", "far_errors",
            "queue_entries", "queue_oldest_seconds", "queue_failures", "queue_lost",
        }  # fmt: skip

    def test_other_caches_have_none(self) -> None:
        cache = CacheBlobService(MemoryBlobService(), MemoryBlobService())
        assert cache.lag() is None
        assert cache.flush(0) is True
        assert set(cache.gauges()) == {"near_errors", "near_damages", "far_errors"}

    def test_the_age_survives(self, scene: Scene) -> None:
        """An entry that another process has left is as old as its file."""
        backlog = Backlog(scene.folder)
        backlog.add([HELLO.digest])
        path = scene.folder / HELLO.digest.hex()
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))
        assert 3600 <= Backlog(scene.folder).oldest_seconds < 3700


class TestFlushing:
    def test_it_waits_no_longer_than_it_is_told(self, scene: Scene) -> None:
        """And says that something is left."""
        down(scene)
        clock: Any = scene.clock
        cache = scene.open()
        cache.write(HELLO.data)
        with ThreadPoolExecutor(1) as pool:
            flushed = pool.submit(cache.flush, 7.0)
            clock.until_waited_for(7.0)
            clock.pass_by(7.0)
            assert flushed.result(30) is False

    def test_it_does_not_wait_for_the_next_try(self, scene: Scene) -> None:
        down(scene)
        cache = scene.open(retry_after=1e6)
        cache.write(HELLO.data)
        scene.clock.until_waited_for(1e6)  # type: ignore[attr-defined]
        up(scene)
        assert cache.flush() is True


class TestClosing:
    def test_what_is_due_is_sent(self, scene: Scene) -> None:
        """Though far was left alone just now."""
        down(scene)
        cache = scene.open(retry_after=1e6)
        cache.write(HELLO.data)
        scene.clock.until_waited_for(1e6)  # type: ignore[attr-defined]
        up(scene)
        cache.close()
        assert scene.kept.has(HELLO.digest)

    def test_a_far_that_is_down_is_not_waited_for(self, scene: Scene, caplog: Any) -> None:
        """It is tried once; what is left waits for the next time, and that is said."""
        down(scene)
        cache = scene.open()
        cache.write(HELLO.data)
        cache.close()
        assert scene.waiting() == {HELLO.digest.hex()}
        assert "closed while 1 blobs wait for far" in caplog.text
        cache.close()
        up(scene)
        scene.open().close()
        assert scene.waiting() == set()
        assert scene.kept.has(HELLO.digest)

    def test_a_far_that_hangs_is_waited_for_as_long_as_it_says(self, scene: Scene) -> None:
        """Then closing ends, and what is under way stops with its piece."""
        released = threading.Event()
        clock: Any = scene.clock

        class Hanging(MemoryBlobService):
            def open_write(self) -> BlobWriter:
                assert released.wait(30)
                return super().open_write()

            def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
                assert released.wait(30)
                super().put_chunks(chunks)

        scene.far = Hanging()  # type: ignore[assignment]
        cache = scene.open(drain=10.0)
        cache.write(HELLO.data)
        cache.write(P3M.data)
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(cache.close)
            clock.until_waited_for(10.0)
            assert not closed.done()
            clock.pass_by(10.0)
            clock.until_waited_for(1.0)
            clock.pass_by(1.0)
            closed.result(30)
        assert scene.waiting() != set()
        released.set()
        while any(thread.name.startswith("castore-upload") for thread in threading.enumerate()):
            threading.Event().wait(0.001)
        scene.far = FaultyService(MemoryBlobService())

    def test_an_upload_that_outlives_the_composition_gives_nothing_up(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What it is at fails because all is closed, which says nothing of the blob."""

        def tables(**chances: Any) -> dict[str, Any]:
            queue = {"write": "behind", "queue": "queue", "drain": 0}
            services = {
                "root": {"type": "cache", "near": "&slow", "far": "objectstore+file:far", **queue},
                "slow": {"type": "faulty", "inner": "objectstore+file:near", **chances},
            }
            return {"allow_faults": True, "blobservices": services}

        hanging = tables(hang=1, hang_time="1 h", operations=["chunks"])
        with Composition.from_mapping(hanging, base=tmp_path) as composition:
            digest = composition.blobs().write(P3M.data)
            assert composition.blobs("slow").faults.wait_until_hanging()  # type: ignore[attr-defined]
        for thread in threading.enumerate():
            if thread.name.startswith("castore-upload"):
                thread.join(30)
        assert "is lost" not in caplog.text
        assert list((tmp_path / "queue").rglob(str(digest)))
        with Composition.from_mapping(tables(), base=tmp_path) as composition:
            cache = composition.blobs()
            assert cache.flush(30)  # type: ignore[attr-defined]
        far = {"blobservices": {"root": {"type": "objectstore", "object_store_url": "file:far"}}}
        with Composition.from_mapping(far, base=tmp_path) as composition:
            assert composition.blobs().read(digest) == P3M.data


class TestPinning:
    class Pinned(MemoryBlobService, Pinning):
        def __init__(self) -> None:
            super().__init__()
            self.pinned: list[B3Digest] = []
            self.drops = False

        @contextlib.contextmanager
        def pin(self, digests: Collection[B3Digest]) -> Iterator[None]:
            if self.drops:
                for digest in list(digests)[:1]:
                    del self._chunks[digest], self._indexes[digest]
            self.pinned += digests
            yield
            for digest in digests:
                self.pinned.remove(digest)

    def test_what_waits_is_pinned(self, scene: Scene) -> None:
        """Once, until far has it."""
        scene.near = near = self.Pinned()
        down(scene)
        cache = scene.open()
        for _ in range(2):
            cache.write(HELLO.data)
        assert near.pinned == [HELLO.digest]
        up(scene)
        assert cache.flush() is True
        assert near.pinned == []

    def test_after_a_restart_too(self, scene: Scene) -> None:
        """All that still waits is pinned when the cache is opened, and until it is closed."""
        scene.near = near = self.Pinned()
        down(scene)
        cache = scene.open()
        cache.write(HELLO.data)
        cache.close()
        assert near.pinned == []
        again = scene.open()
        assert near.pinned == [HELLO.digest]
        again.close()
        assert near.pinned == []

    def test_what_was_dropped_before_is_not_acknowledged(self, scene: Scene) -> None:
        """Between the end of its writer and the pin."""
        scene.near = near = self.Pinned()
        near.drops = True
        cache = scene.open()
        with pytest.raises(UnavailableError, match="near has dropped"):
            cache.write(HELLO.data)
        assert scene.waiting() == set()
        assert near.pinned == []

    def test_of_many_those_that_were_not_dropped_are_acknowledged(self, scene: Scene) -> None:
        """They are pinned together, until far has all of them."""
        scene.near = near = self.Pinned()
        near.drops = True
        down(scene)
        cache = scene.open()
        store: Any = cache.capability(ChunkStore)
        store.put_chunks({chunk.digest: chunk.data for chunk in CHUNKS})
        with pytest.raises(BatchError, match="near has dropped") as caught:
            store.put_indexes({chunk.digest: () for chunk in CHUNKS})
        assert list(caught.value.faults) == [CHUNKS[0].digest]
        assert scene.waiting() == {chunk.digest.hex() for chunk in CHUNKS[1:]}
        assert set(near.pinned) == {chunk.digest for chunk in CHUNKS}
        up(scene)
        assert cache.flush() is True
        assert near.pinned == []

    def test_what_cannot_be_queued_is_not_pinned(self, scene: Scene) -> None:
        scene.near = near = self.Pinned()
        cache = scene.open()
        scene.folder.touch()
        with pytest.raises(UnavailableError):
            cache.write(HELLO.data)
        assert near.pinned == []
        scene.folder.unlink()


class TestKilled:
    @pytest.mark.parametrize("near", ["objectstore", "sqlite"])
    def test_far_gets_what_was_acknowledged(self, near: str, tmp_path: Path) -> None:
        """A process is killed in the middle of its puts; the next one sends all that was acknowledged."""
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(tmp_path), near], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20)]
        process.kill()
        lines += process.communicate()[0].splitlines(keepends=True)
        digests = [B3Digest.parse(line.strip()) for line in lines if line.endswith("\n")]
        assert len(digests) >= 20
        tables = self.program()(near, {"type": "objectstore", "object_store_url": "file:./far"})
        with Composition.from_mapping(tables, base=tmp_path) as stores:
            assert stores.blobs().flush(60) is True  # type: ignore[attr-defined]
            far = stores.blobs("far")
            for digest in digests:
                assert B3Digest.of(far.read(digest)) == digest
        assert list((tmp_path / "queue").iterdir()) == []

    def program(self) -> Callable[..., dict[str, Any]]:
        namespace: dict[str, Any] = {"__name__": "writing_behind"}
        exec(compile(PROGRAM.read_text(), str(PROGRAM), "exec"), namespace)
        tables: Callable[..., dict[str, Any]] = namespace["tables"]
        return tables
