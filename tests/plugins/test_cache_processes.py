"""Processes that share a near ask far once for all, also when one of them is killed at the worst moment."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from castore import B3Digest, from_url
from castore.contract.capabilities import SharedPlace
from castore.testing import HELLO
from castore.threads.process_locks import FolderOfLocks

PROGRAM: Final = Path(__file__).with_name("sharing_near.py")
BLOB: Final = random.Random(7).randbytes(1 << 20)
DIGEST: Final = B3Digest.of(BLOB)

NEARS: Final = {
    "a folder": "objectstore+file:{}/near",
    "a file": "sqlite:{}/near.sqlite",
}


class Processes:
    """Programs that read through one near."""

    def __init__(self, near: str, log: Path) -> None:
        self._near = near
        self._log = log
        self.all: list[subprocess.Popen[str]] = []

    def start(self, mode: str = "read") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), self._near, str(self._log), str(DIGEST), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.all.append(process)
        assert process.stdout is not None
        return process

    def expect(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{line}\n"

    def go(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    def asked(self, process: subprocess.Popen[str] | None = None) -> list[str]:
        """Return the digests that far was asked for, by one process or by all."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [digest for number, digest in lines if process is None or int(number) == process.pid]


@pytest.fixture(params=NEARS)
def near(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return NEARS[request.param].format(tmp_path)


@pytest.fixture
def processes(near: str, tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(near, tmp_path / "log")
    yield processes
    for process in processes.all:
        process.kill()
        process.communicate()


def test_eight_processes_ask_far_for_each_chunk_once(near: str, processes: Processes) -> None:
    """All of them get the blob, and near has it, or lacks but its index."""
    started = [processes.start() for _ in range(8)]
    for process in started:
        processes.expect(process, "ready")
    for process in started:
        processes.go(process)
    for process in started:
        processes.expect(process, str(DIGEST))
        assert process.wait(30) == 0
    asked = processes.asked()
    assert len(asked) == len(set(asked)) > 40
    with from_url(near) as service:
        assert all(service.has(B3Digest.parse(digest)) for digest in asked)


def test_killing_who_asks_does_not_stop_the_others(near: str, processes: Processes) -> None:
    """One that hangs in far, and has the turn, is killed: another asks in its place."""
    hanging = processes.start("hang")
    processes.expect(hanging, "ready")
    processes.go(hanging)
    processes.expect(hanging, "asked")
    others = [processes.start() for _ in range(2)]
    for process in others:
        processes.expect(process, "ready")
        processes.go(process)
    os.kill(hanging.pid, signal.SIGKILL)
    for process in others:
        processes.expect(process, str(DIGEST))
        assert process.wait(30) == 0
    asked = processes.asked()
    twice = {digest for digest in asked if asked.count(digest) > 1}
    # What the dead one had asked for, and no more.
    assert twice
    assert twice <= set(processes.asked(hanging))
    assert all(asked.count(digest) <= 2 for digest in asked)


class TestLocks:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        """Who comes second is told so, and when the first is gone it is free again, without a trace."""
        locks = FolderOfLocks(tmp_path / "some" / "folder")
        with locks.try_alone(HELLO.digest) as first:
            with locks.try_alone(HELLO.digest) as second, locks.try_alone(DIGEST) as other:
                assert (first, second, other) == (True, False, True)
            with locks.try_alone(HELLO.digest) as third:
                assert third is False
        with locks.try_alone(HELLO.digest) as fourth:
            assert fourth is True
        assert list((tmp_path / "some" / "folder").iterdir()) == []

    def test_what_a_killed_process_leaves_locks_nobody_out(self, tmp_path: Path) -> None:
        """Its file is there, but not its lock."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            with FolderOfLocks(tmp_path).try_alone(HELLO.digest):
                os.write(writing, b"x")
                signal.pause()
        os.read(reading, 1)
        with FolderOfLocks(tmp_path).try_alone(HELLO.digest) as alone:
            assert alone is False
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert (tmp_path / HELLO.digest.hex()).exists()
        with FolderOfLocks(tmp_path).try_alone(HELLO.digest) as alone:
            assert alone is True
        assert list(tmp_path.iterdir()) == []
        os.close(reading)
        os.close(writing)

    def test_never_two_at_once(self, tmp_path: Path) -> None:
        """Many threads that lock and unlock the same digest in a hurry, each through a file of its own."""
        locks = FolderOfLocks(tmp_path)
        inside: list[int] = []
        most: list[int] = []

        def hurry(number: int) -> None:
            for _ in range(300):
                with locks.try_alone(HELLO.digest) as alone:
                    if alone:
                        inside.append(number)
                        most.append(len(inside))
                        inside.remove(number)

        threads = [threading.Thread(target=hurry, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(most) == 1

    def test_a_file_that_was_removed_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who locks it just after its name went to another file does not hold the lock."""
        flock = fcntl.flock
        path = tmp_path / HELLO.digest.hex()

        def late(descriptor: int, mode: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            path.unlink()
            if make_anew:
                path.touch()
            flock(descriptor, mode)

        for make_anew in (True, False):
            monkeypatch.setattr(fcntl, "flock", late)
            with FolderOfLocks(tmp_path).try_alone(HELLO.digest) as alone:
                assert alone is False
            assert path.exists() is make_anew

    def test_where_there_can_be_no_folder(self, tmp_path: Path) -> None:
        """The operating system's error is the answer."""
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"), FolderOfLocks(tmp_path / "file" / "x").try_alone(DIGEST):
            pass


class TestPlaces:
    def test_what_one_has_put_the_other_finds(self, near: str) -> None:
        """Two services on one place: what was put under a turn is found when the turn is over."""
        with from_url(near) as one, from_url(near) as other:
            mine, yours = one.capability(SharedPlace), other.capability(SharedPlace)
            assert mine is not None
            assert yours is not None
            with mine.try_alone([HELLO.digest]) as alone, yours.try_alone([HELLO.digest, DIGEST]) as also:
                assert (alone, also) == ({HELLO.digest}, {DIGEST})
                one.put_chunk(HELLO.digest, HELLO.data)  # type: ignore[attr-defined]
            with yours.try_alone([HELLO.digest]) as alone:
                assert alone == {HELLO.digest}
                found = other.get_chunk(HELLO.digest)  # type: ignore[attr-defined]
                sizes = {HELLO.digest: 12, DIGEST: None}
                assert found == HELLO.data or yours.find_unflushed(sizes) == {HELLO.digest: HELLO.data}

    def test_half_written_files_are_no_chunks(self, tmp_path: Path) -> None:
        """What another process is just writing, or never will, is passed over; a whole one is found."""
        with from_url(f"objectstore+file:{tmp_path}") as one, from_url(f"objectstore+file:{tmp_path}") as two:
            one.put_chunk(HELLO.digest, HELLO.data)  # type: ignore[attr-defined]
            (waiting,) = (path for path in tmp_path.rglob("*#1") if path.is_file())
            whole = waiting.read_bytes()
            place = two.capability(SharedPlace)
            assert place is not None
            assert place.find_unflushed({HELLO.digest: None}) == {HELLO.digest: HELLO.data}
            assert two.has(HELLO.digest) is False
            waiting.write_bytes(whole[:-1])
            assert place.find_unflushed({HELLO.digest: None}) == {}
            waiting.with_name(waiting.name[:-1] + "2").write_bytes(whole)
            assert place.find_unflushed({HELLO.digest: None}) == {HELLO.digest: HELLO.data}
            waiting.write_bytes(whole)

    def test_a_place_that_cannot_be_locked_is_unavailable(self, tmp_path: Path) -> None:
        """Its error names the service's place."""
        (tmp_path / "being-filled").touch()
        with from_url(f"objectstore+file:{tmp_path}") as one:
            place = one.capability(SharedPlace)
            assert place is not None
            with pytest.raises(Exception, match="being-filled"), place.try_alone([HELLO.digest]):
                pass

    def test_a_bucket_is_no_place_for_it(self) -> None:
        """Where nothing can be locked nobody is told otherwise."""
        with from_url("objectstore+memory:") as service:
            assert service.capability(SharedPlace) is None
