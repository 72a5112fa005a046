"""Flushes are shared by those who wait; a claim, a lease and a sweep keep out of each other's way."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castore import UnavailableError
from castore.format import frames
from castore.threads import process_locks
from castore_objectstore import flushing
from castore_objectstore.flushing import Flusher
from castore_objectstore.leasing import Leases
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.object_store import LastObject, StoredObject
from castore_objectstore.staging import Staging

FRAME = frames.compress(random.Random(1).randbytes(300_000))


KEY = f"chunks/b3/aaaa/{'a' * 64}"


class SlowDisk:
    """A disk whose flushes take until they are let go."""

    def __init__(self) -> None:
        self.flushes = 0
        self.error: OSError | None = None
        self.entered = threading.Semaphore(0)
        self.released = threading.Semaphore(0)

    def syncfs(self, descriptor: int) -> None:
        self.flushes += 1
        self.entered.release()
        assert self.released.acquire(timeout=60)
        if self.error is not None:
            raise self.error


def add(staging: Staging, folder: Path, names: str) -> None:
    """Let a file of each of the names wait."""
    for name in names:
        (folder / f"{name}#1").write_bytes(b"x")
        staging.add(str(folder / name), str(folder / f"{name}#1"), 1)


def flushing_threads() -> list[threading.Thread]:
    """Return those that publish beside the others."""
    return [thread for thread in threading.enumerate() if thread.name == "castore-flush"]


def wait_until(condition: Callable[[], object]) -> None:
    """Return when it holds; fail after some seconds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    """The disk of the flushers that are made in this test."""
    disk = SlowDisk()
    monkeypatch.setattr(flushing, "_load_syncfs", lambda: disk.syncfs)
    return disk


@pytest.fixture
def flusher(disk: SlowDisk, tmp_path: Path) -> Any:
    """A flusher that knows one file system."""
    flusher = Flusher()
    flusher.show(1, str(tmp_path))
    yield flusher
    flusher.close()


def count_those_who_ask(flusher: Flusher) -> list[int]:
    """Return a list that grows by one for each flush that is asked for, once its round is chosen."""
    asked: list[int] = []
    take = flusher._turn.take

    def counted(holder: Any, **settings: Any) -> Any:
        asked.append(1)
        return take(holder, **settings)

    flusher._turn.take = counted  # type: ignore[method-assign]
    return asked


class TestFlusher:
    def test_those_who_come_during_a_flush_share_the_next(self, flusher: Flusher, disk: SlowDisk) -> None:
        """One flush runs, five more are asked for: one more is made, for all of them."""
        threads, asked = [threading.Thread(target=flusher.flush)], count_those_who_ask(flusher)
        threads[0].start()
        assert disk.entered.acquire(timeout=60)
        for _ in range(5):
            threads.append(threading.Thread(target=flusher.flush))
            threads[-1].start()
        wait_until(lambda: len(asked) == 6)
        disk.released.release()
        assert disk.entered.acquire(timeout=60)
        disk.released.release()
        for thread in threads:
            thread.join(60)
        assert disk.flushes == 2

    def test_a_failure_reaches_all_who_waited_for_it(self, flusher: Flusher, disk: SlowDisk) -> None:
        """Each of those who shared a flush that failed gets its error; the next flush is judged by itself."""
        errors: list[int | None] = []

        def flush() -> None:
            try:
                flusher.flush()
            except OSError as error:
                errors.append(error.errno)

        disk.error = OSError(errno.EIO, "Input/output error")
        threads, asked = [threading.Thread(target=flush) for _ in range(4)], count_those_who_ask(flusher)
        threads[0].start()
        assert disk.entered.acquire(timeout=60)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: len(asked) == 4)
        disk.released.release(2)
        for thread in threads:
            thread.join(60)
        assert errors == [errno.EIO] * 4
        disk.error = None
        disk.released.release()
        flusher.flush()

    def test_the_real_call(self, tmp_path: Path) -> None:
        """A flush of a folder works, also again after a close."""
        flusher = Flusher()
        for _ in range(2):
            flusher.show(tmp_path.stat().st_dev, str(tmp_path))
            assert flusher.knows(tmp_path.stat().st_dev)
            flusher.flush()
            flusher.close()
            assert not flusher.knows_any

    def test_an_error_of_the_real_call(self) -> None:
        """What the system says is raised."""
        with pytest.raises(OSError, match="Bad file descriptor"):
            flushing._load_syncfs()(-1)


class TestStaging:
    def test_much_that_waits_is_published(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A blob of any size leaves only so much waiting."""
        monkeypatch.setattr("castore_objectstore.staging._MOST_FILES", 10)
        store = LocalObjectStore(tmp_path, instance="files")
        for number in range(25):
            store.put(f"a/{number}", b"x")
        names = [path.name for path in (tmp_path / "a").iterdir()]
        assert sum("#" in name for name in names) == 5
        assert sum("#" not in name for name in names) == 20
        store.close()
        assert not [path for path in (tmp_path / "a").iterdir() if "#" in path.name]

    def test_bytes_count_as_well(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Few large files do not wait for many small ones."""
        monkeypatch.setattr("castore_objectstore.staging._MOST_BYTES", 100)
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", bytes(99))
        assert not (tmp_path / "a/1").exists()
        store.put("a/2", bytes(1))
        assert (tmp_path / "a/1").exists()

    def test_much_is_published_beside_those_who_write(
        self, flusher: Flusher, disk: SlowDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for that; what comes meanwhile has to wait for the next time."""
        monkeypatch.setattr("castore_objectstore.staging._MANY_FILES", 3)
        staging = Staging(flusher)
        add(staging, tmp_path, "123")
        assert disk.entered.acquire(timeout=60)
        add(staging, tmp_path, "4567")
        assert disk.flushes == 1
        assert staging.find(str(tmp_path / "1"))
        disk.released.release()
        wait_until(lambda: (tmp_path / "3").exists() and not staging.find(str(tmp_path / "3")))
        assert not (tmp_path / "4").exists()
        wait_until(lambda: not flushing_threads())
        add(staging, tmp_path, "8")
        assert disk.entered.acquire(timeout=60)
        disk.released.release()
        wait_until((tmp_path / "8").exists)
        wait_until(lambda: not flushing_threads())

    def test_much_is_also_many_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("castore_objectstore.staging._MANY_BYTES", 100)
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", bytes(99))
        assert not flushing_threads()
        store.put("a/2", bytes(1))
        wait_until((tmp_path / "a/2").exists)

    def test_who_needs_what_was_lost_meanwhile_is_told(
        self, disk: SlowDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those who only wrote are not: it may not have been theirs."""
        monkeypatch.setattr("castore_objectstore.staging._MANY_FILES", 2)
        disk.error = OSError(errno.EIO, "Input/output error")
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        store.put("a/2", FRAME)
        assert disk.entered.acquire(timeout=60)
        disk.released.release()
        wait_until(lambda: not flushing_threads())
        disk.error = None
        disk.released.release(5)
        with pytest.raises(UnavailableError, match="a/1 was lost when the disk could not be flushed"):
            store.flush([LastObject("i/1", b"1", ["a/1"])])
        store.put("a/1", FRAME)
        store.flush([LastObject("i/1", b"1", ["a/1"])])
        assert store.get("a/1") == FRAME

    def test_where_no_thread_can_be_started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is published on the spot, each time."""

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr("castore_objectstore.staging._MANY_FILES", 2)
        monkeypatch.setattr(threading.Thread, "start", start)
        store = LocalObjectStore(tmp_path, instance="files")
        for number in range(5):
            store.put(f"a/{number}", b"x")
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["0", "1", "2", "3", "4#1"]

    def test_what_waits_is_there_for_this_store(self, tmp_path: Path) -> None:
        """It can be read, asked for and claimed before it has its name."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        assert not (tmp_path / "a/1").exists()
        assert store.get("a/1") == FRAME
        assert store.exists("a/1")
        assert store.claim("a/1", frames.is_whole)
        assert LocalObjectStore(tmp_path, instance="other").get("a/1") is None
        store.flush()
        assert LocalObjectStore(tmp_path, instance="other").get("a/1") == FRAME

    def test_the_same_object_twice(self, tmp_path: Path) -> None:
        """Two threads may put one object; one file is left of it."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        store.put("a/1", FRAME)
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["1#1"]
        store.flush()
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["1"]

    def test_the_same_object_again_while_it_gets_its_name(
        self, flusher: Flusher, disk: SlowDisk, tmp_path: Path
    ) -> None:
        """Its temporary name is free again then; the second file waits for the next time."""
        path, temporary = str(tmp_path / "name"), str(tmp_path / "name#1")

        def rename(source: str, target: str) -> None:
            Path(source).replace(target)
            if not again:
                again.append(source)
                Path(temporary).write_bytes(b"x")
                staging.add(path, temporary, 1)

        again: list[str] = []
        staging = Staging(flusher, rename)
        for _ in range(2):
            disk.released.release()
        Path(temporary).write_bytes(b"x")
        staging.add(path, temporary, 1)
        staging.publish()
        assert staging.find(path) == temporary
        staging.publish()
        assert staging.find(path) is None
        assert [entry.name for entry in tmp_path.iterdir()] == ["name"]

    @pytest.mark.parametrize("ask", ["get", "exists", "claim"])
    def test_what_gets_its_name_while_it_is_looked_for_is_there(self, tmp_path: Path, ask: str) -> None:
        """It is not where it is to be when that is asked, and waits no more when that is."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        staging = store._staging
        find = staging.find
        staging.find = lambda path: (staging.publish(), find(path))[1]
        assert store.claim("a/1", frames.is_whole) if ask == "claim" else getattr(store, ask)("a/1")

    def test_lost_until_it_is_put_again(self, flusher: Flusher, disk: SlowDisk, tmp_path: Path) -> None:
        """After a failed flush what waited is gone, and remembered as lost until it comes again."""
        staging = Staging(flusher)
        path, temporary = str(tmp_path / "name"), str(tmp_path / "name#1")
        Path(temporary).write_bytes(b"x")
        staging.add(path, temporary, 1)
        disk.error = OSError(errno.EIO, "Input/output error")
        disk.released.release()
        with pytest.raises(OSError, match="Input/output error"):
            staging.publish()
        assert list(tmp_path.iterdir()) == []
        assert staging.first_lost(["other", path]) == path
        Path(temporary).write_bytes(b"x")
        staging.add(path, temporary, 1)
        assert staging.first_lost(["other", path]) is None

    def test_what_was_left_long_ago_counts_as_new_when_it_is_put_again(self, tmp_path: Path) -> None:
        """Else a sweep would take it, once it has its name."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        os.utime(tmp_path / "a/1#1", (1000, 1000))
        store.put("a/1", FRAME)
        store.flush()
        assert time.time() - (tmp_path / "a/1").stat().st_mtime < 10

    def test_what_was_swept_while_it_waited_fails_nobody_who_does_not_need_it(self, tmp_path: Path) -> None:
        """A writer that was aborted long ago has left it; whose index lists it is told."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        (tmp_path / "a/1#1").unlink()
        store.put("a/2", FRAME)
        store.flush([LastObject("i/2", b"2", ["a/2"])])
        assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"2"}
        with pytest.raises(UnavailableError, match="a/1 was lost"):
            store.flush([LastObject("i/1", b"1", ["a/1"])])
        store.put("a/1", FRAME)
        store.flush([LastObject("i/1", b"1", ["a/1"])])
        assert store.get("a/1") == FRAME


class TestEmptyObjects:
    """The indexes of most blobs: nobody could see half of one, so they are made in their places."""

    @pytest.fixture(params=["process", "full"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> LocalObjectStore:
        return LocalObjectStore(tmp_path, instance="files", durability=request.param)

    def test_none_is_renamed(self, store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "replace")
        store.flush([LastObject("i/1", b""), LastObject("i/2", b""), LastObject("j/1", b"")])
        assert [store.get(key) for key in ("i/1", "i/2", "j/1")] == [b"", b"", b""]

    @pytest.mark.parametrize("damaged", [b"no index", b""])
    def test_what_stands_there_is_replaced(
        self, store: LocalObjectStore, tmp_path: Path, damaged: bytes
    ) -> None:
        (tmp_path / "i").mkdir()
        (tmp_path / "i/1").write_bytes(damaged)
        (tmp_path / "i/2").symlink_to("nowhere")
        before = (tmp_path / "i/1").stat().st_ino
        store.flush([LastObject("i/1", b""), LastObject("i/2", b""), LastObject("i/3", b"")])
        assert {path.name: path.read_bytes() for path in (tmp_path / "i").iterdir()} == dict.fromkeys(
            "123", b""
        )
        assert (tmp_path / "i/1").stat().st_ino != before

    @pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no second file system")
    def test_the_file_system_of_one_is_flushed(self, tmp_path: Path) -> None:
        """A folder of the store may be a link to another one than the chunks are on."""
        store = LocalObjectStore(tmp_path, instance="files")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
            (tmp_path / "i").symlink_to(other)
            store.put("a/1", FRAME)
            store.flush([LastObject("i/1", b"", ["a/1"])])
            assert store._flusher is not None
            assert store._flusher.knows(Path(other).stat().st_dev)
        store.close()

    def test_one_that_cannot_be_made_fails_with_its_name(
        self, store: LocalObjectStore, tmp_path: Path
    ) -> None:
        """What came before it stays: all that it needs is there."""
        (tmp_path / "j").write_bytes(b"")
        with pytest.raises(UnavailableError, match=r"Not a directory: .*j/1"):
            store.flush([LastObject("i/1", b""), LastObject("j/1", b""), LastObject("i/2", b"")])
        assert [path.name for path in (tmp_path / "i").iterdir()] == ["1"]


class TestClaims:
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalObjectStore:
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        store.flush()
        return store

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(FRAME[:-1]),
            lambda path: path.write_bytes(FRAME[:5]),
            lambda path: path.write_bytes(bytes(len(FRAME))),
            lambda path: path.write_bytes(FRAME[:1000] + bytes(len(FRAME) - 1000)),
            lambda path: path.unlink(),
        ],
        ids=["empty", "cut by a byte", "cut short", "zeros", "zeros from some place on", "gone"],
    )
    def test_a_torn_object_is_none(self, store: LocalObjectStore, tmp_path: Path, damage: Any) -> None:
        """It is not there for a writer; when it was put again it is."""
        assert store.claim("a/1", frames.is_whole)
        damage(tmp_path / "a/1")
        assert not store.claim("a/1", frames.is_whole)
        store.put("a/1", FRAME)
        assert store.claim("a/1", frames.is_whole)
        store.flush()
        assert (tmp_path / "a/1").read_bytes() == FRAME

    def test_a_claim_renews_what_is_old(self, store: LocalObjectStore, tmp_path: Path) -> None:
        """An old time becomes the present one; a recent one is left, which spares the disk."""
        path = tmp_path / "a/1"
        recent = time.time() - 30
        for before, renewed in ((1000.0, True), (recent, False), (time.time() + 1e6, True)):
            os.utime(path, (before, before))
            assert store.claim("a/1", frames.is_whole)
            assert (abs(path.stat().st_mtime - time.time()) < 10) is renewed

    @pytest.mark.parametrize(("age", "opened"), [(0, False), (1000, True)], ids=["recent", "old"])
    def test_what_has_no_bytes_is_not_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, opened: bool
    ) -> None:
        """Unless its time is to be renewed. A folder, a link, and what has bytes are looked into."""
        store = LocalObjectStore(tmp_path, instance="files", durability="process")
        store.put("a/1", b"")
        path = tmp_path / "a/1"
        os.utime(path, (time.time() - age,) * 2)
        opens: list[Any] = []
        monkeypatch.setattr("castore_objectstore.local.os.open", _counting(os.open, opens))
        asked: list[int] = []

        def is_empty(read_at: Any, size: int) -> bool:
            asked.append(size)
            return not size and not read_at(0, 1)

        assert store.claim("a/1", is_empty, 0)
        assert asked == [0]
        assert bool(opens) is opened
        assert time.time() - path.stat().st_mtime < 30
        path.write_bytes(b"x")
        assert not store.claim("a/1", is_empty, 0)
        path.unlink()
        assert not store.claim("a/1", is_empty, 0)
        path.mkdir()
        assert not store.claim("a/1", is_empty, 0)

    @pytest.mark.parametrize("durability", ["process", "full"])
    def test_many_are_claimed_with_few_locks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Any
    ) -> None:
        """Of 200 with old times: 16 are renewed under one. What is torn or absent is not claimed."""
        store = _store_of(200, tmp_path, durability)
        (tmp_path / "a/7").write_bytes(FRAME[:-1])
        locks: list[Any] = []
        monkeypatch.setattr(store._leases, "against_sweeps", _counting(store._leases.against_sweeps, locks))
        keys = [f"a/{number}" for number in range(201)]
        before = _open_files()
        assert store.claim_many(keys, frames.is_whole) == {*keys} - {"a/7", "a/200"}
        assert len(locks) == 13
        assert all(path.stat().st_mtime > 1000 for path in (tmp_path / "a").iterdir() if path.name != "7")
        assert _open_files() <= before
        locks.clear()
        assert len(store.claim_many(keys, frames.is_whole)) == 199
        assert locks == []  # Now all are recent.

    def test_of_many_some_are_swept_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are not claimed, the others are."""
        store = _store_of(20, tmp_path, "process")
        lock = store._leases.against_sweeps

        def lock_late(**options: Any) -> Any:
            (tmp_path / "a/3").unlink(missing_ok=True)
            return lock(**options)

        monkeypatch.setattr(store._leases, "against_sweeps", lock_late)
        keys = {f"a/{number}" for number in range(20)}
        assert store.claim_many(keys, frames.is_whole) == keys - {"a/3"}

    def test_of_many_some_are_somebody_elses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Their times cannot be set, so they are written anew."""
        store = _store_of(20, tmp_path, "process")
        theirs = (tmp_path / "a/3").stat().st_ino
        utime = os.utime

        def refused(path: Any, *args: Any, **options: Any) -> None:
            if isinstance(path, int) and os.fstat(path).st_ino == theirs:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            utime(path, *args, **options)

        monkeypatch.setattr("castore_objectstore.local.os.utime", refused)
        keys = {f"a/{number}" for number in range(20)}
        assert store.claim_many(keys, frames.is_whole) == keys
        assert (tmp_path / "a/3").stat().st_ino != theirs
        assert (tmp_path / "a/3").read_bytes() == FRAME
        assert all(path.stat().st_mtime > 1000 for path in (tmp_path / "a").iterdir())

    def test_none_stays_open_if_one_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = _store_of(20, tmp_path, "process")
        pread = os.pread
        calls: list[int] = []

        def failing(*args: Any) -> bytes:
            calls.append(1)
            if len(calls) > 10:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return pread(*args)

        monkeypatch.setattr("castore_objectstore.local.os.pread", failing)
        before = _open_files()
        with pytest.raises(UnavailableError):
            store.claim_many([f"a/{number}" for number in range(20)], frames.is_whole)
        assert _open_files() <= before

    def test_many_are_claimed_while_some_wait_for_a_flush(self, tmp_path: Path) -> None:
        """Those have their times renewed as well."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        store.flush()
        store.put("a/2", FRAME)
        for name in ("1", "2#1"):
            os.utime(tmp_path / "a" / name, (1000, 1000))
        assert store.claim_many(["a/1", "a/2", "a/3"], frames.is_whole) == {"a/1", "a/2"}
        store.flush()
        assert all((tmp_path / "a" / name).stat().st_mtime > 1000 for name in "12")

    def test_a_claim_renews_what_waits_for_a_flush(self, tmp_path: Path) -> None:
        """A writer that was aborted long ago may have left it."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        os.utime(tmp_path / "a/1#1", (1000, 1000))
        assert store.claim("a/1", frames.is_whole)
        store.flush()
        assert time.time() - (tmp_path / "a/1").stat().st_mtime < 10

    def test_a_claim_of_what_was_removed_while_it_waited(self, tmp_path: Path) -> None:
        """It is not there."""
        store = LocalObjectStore(tmp_path, instance="files")
        store.put("a/1", FRAME)
        (tmp_path / "a/1#1").unlink()
        assert not store.claim("a/1", frames.is_whole)

    def test_a_claim_waits_while_a_sweep_decides(self, store: LocalObjectStore, tmp_path: Path) -> None:
        """What is swept in the moment that it is claimed is not there for the writer."""
        os.utime(tmp_path / "a/1", (1000, 1000))
        answers: list[bool] = []
        claiming = threading.Thread(target=lambda: answers.append(store.claim("a/1", frames.is_whole)))
        with Leases(str(tmp_path)).for_sweeping():
            claiming.start()
            time.sleep(0.05)
            assert answers == []
            (tmp_path / "a/1").unlink()
        claiming.join(60)
        assert answers == [False]


class TestSweeps:
    def test_only_what_is_old_goes(self, tmp_path: Path) -> None:
        """The time is looked at again, with some allowance for claims that did not renew it."""
        store = LocalObjectStore(tmp_path, instance="files", fresh_seconds=10)
        times = (1000.0, 1000.0, time.time() - 105)
        old, claimed, just = (f"chunks/b3/aaaa/{'a' * 63}{number}" for number in range(3))
        for key, modified in zip((old, claimed, just), times, strict=True):
            store.put(key, FRAME)
            store.flush()
            os.utime(tmp_path / key, (modified, modified))
        listed = list(store.list("chunks/b3/"))
        assert store.claim(claimed, frames.is_whole)
        assert [entry.key for entry in store.sweep(listed, time.time() - 100)] == [old]
        assert {entry.key for entry in store.list("chunks/b3/")} == {claimed, just}
        assert list(store.sweep([StoredObject(old)], time.time())) == []

    def test_leases(self, tmp_path: Path) -> None:
        """The oldest of those who hold counts; who has died does not, and has left something to sweep."""
        store = LocalObjectStore(tmp_path, instance="files")
        assert store.leased_since() is None
        with store.lease():
            first = store.leased_since()
            assert first is not None
            assert abs(first - time.time()) < 10
            with store.lease():
                assert store.leased_since() == first
            assert list(store.list_marks()) == []
        assert store.leased_since() is None
        dead = tmp_path / f"leases/{uuid.uuid4()}"
        dead.touch()
        assert store.leased_since() is None
        (mark,) = store.list_marks()
        assert list(store.sweep([mark], time.time())) == []
        os.utime(dead, (1000, 1000))
        assert list(store.sweep([mark], time.time())) == [mark]
        assert not dead.exists()

    def test_a_lease_counts_while_its_file_is_locked(self, tmp_path: Path) -> None:
        """It is the lock that says that the holder lives, not the file."""
        (tmp_path / "leases").mkdir()
        with (tmp_path / f"leases/{uuid.uuid4()}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert LocalObjectStore(tmp_path, instance="files").leased_since() is not None

    @pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
    def test_where_files_cannot_be_locked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """Everything works but a sweep, which says so and removes nothing."""

        def flock(descriptor: int, mode: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        store = LocalObjectStore(tmp_path, instance="files")
        with store.lease():
            for _ in range(2):
                store.put(KEY, FRAME)
                store.flush()
                os.utime(tmp_path / KEY, (1000, 1000))
        assert store.claim(KEY, frames.is_whole)
        os.utime(tmp_path / KEY, (1000, 1000))
        with pytest.raises(UnavailableError, match=f"flock: {os.strerror(number)}: .*castore.lock"):
            list(store.sweep(list(store.list("chunks/b3/")), time.time()))
        assert store.get(KEY) == FRAME
        assert store.set_aside(KEY) == f"quarantine/{KEY}"

    def test_a_lock_that_somebody_keeps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a process that was stopped does: it is waited for, but not for ever."""
        monkeypatch.setattr(process_locks, "WAIT_SECONDS", 0.05)
        store = LocalObjectStore(tmp_path, instance="files")
        store.put(KEY, FRAME)
        store.flush()
        os.utime(tmp_path / KEY, (1000, 1000))
        calls: list[Callable[[], object]] = [
            lambda: store.claim(KEY, frames.is_whole),
            lambda: list(store.sweep(list(store.list("chunks/b3/")), time.time())),
            lambda: store.set_aside(KEY),
            lambda: store.remove([KEY]),
        ]
        with (tmp_path / "castore.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for call in calls:
                with pytest.raises(
                    UnavailableError, match=r"had this file locked for 0\.05 s: .*castore\.lock"
                ):
                    call()
            assert store.get(KEY) == FRAME
        assert store.claim(KEY, frames.is_whole)

    def test_a_holder_that_cannot_write(self, tmp_path: Path) -> None:
        """It learns what is wrong, and where."""
        (tmp_path / "leases").write_bytes(b"no folder")
        store = LocalObjectStore(tmp_path, instance="files")
        with pytest.raises(UnavailableError, match="leases"), store.lease():
            pass


class TestQuarantine:
    def test_nothing_is_replaced(self, tmp_path: Path) -> None:
        """What is set aside under a name that is taken gets a number."""
        store = LocalObjectStore(tmp_path, instance="files")
        places = []
        for content in (b"1", b"2", b"3"):
            store.put("a/name", content)
            store.flush()
            places.append(store.set_aside("a/name"))
        assert places == ["quarantine/a/name", "quarantine/a/name~2", "quarantine/a/name~3"]
        assert [(tmp_path / place).read_bytes() for place in places] == [b"1", b"2", b"3"]
        assert not store.exists("a/name")

    def test_a_folder_in_the_place_of_a_file(self, tmp_path: Path) -> None:
        """It can be set aside as well."""
        (tmp_path / "a/name").mkdir(parents=True)
        store = LocalObjectStore(tmp_path, instance="files")
        assert store.set_aside("a/name") == "quarantine/a/name"
        assert (tmp_path / "quarantine/a/name").is_dir()


def _counting(call: Any, calls: list[Any]) -> Any:
    def counted(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return call(*args, **options)

    return counted


def _store_of(count: int, folder: Path, durability: Any) -> LocalObjectStore:
    """Return a store of so many objects, all with old times."""
    store = LocalObjectStore(folder, instance="files", durability=durability)
    for number in range(count):
        store.put(f"a/{number}", FRAME)
    store.flush()
    for number in range(count):
        os.utime(folder / f"a/{number}", (1000, 1000))
    return store


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
