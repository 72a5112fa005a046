"""Processes that share one store keep one budget, leave alone what others need, and may be killed."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from castore import B3Digest
from castore.contract.upkeep import Evictable, StoredItem
from castore_lru.service import LruBlobService

sys.path.insert(0, str(Path(__file__).parent))

import lru_process as roles
from lru_process import BUDGET, blob, child_in, lru_in, noise, write_and_read

FOLDERS = ["files", "deferring", "rows"]

# One Python is started; the processes are forks of it, and it has no threads.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lru_process"])

Role = Callable[[Path, int, Connection], None]


def start(role: Role, folder: Path, number: int = 0) -> tuple[BaseProcess, Connection]:
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=role, args=(folder, number, there), daemon=True)
    process.start()
    there.close()
    return process, here


def end(process: BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


@contextlib.contextmanager
def waiting(role: Role, folder: Path, number: int = 0) -> Iterator[BaseProcess]:
    """A process that waits in the middle of what it does; it goes on when the context ends."""
    process, pipe = start(role, folder, number)
    try:
        assert pipe.recv() == "ready"
        yield process
        if process.is_alive():
            pipe.send("go on")
            assert end(process) == 0
    finally:
        process.kill()


@contextlib.contextmanager
def stopped(folder: Path) -> Iterator[None]:
    """While nobody may evict, or reserve: so that what is counted is what is there at one moment."""
    state = folder / "blobs.sqlite-lru" if folder.name == "rows" else folder / "lru"
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def items_in(folder: Path) -> list[StoredItem]:
    with child_in(folder) as child:
        kind = child.capability(Evictable)
        assert kind is not None
        return [item for item in kind.stored_items() if not item.foreign]


def stored_in(folder: Path) -> int:
    """The bytes of everything that is stored, of temporary files as well."""
    return sum(item.size or 0 for item in items_in(folder))


def require_right_accounts(service: LruBlobService, folder: Path) -> None:
    gauges = service.gauges()
    items = items_in(folder)
    assert gauges["bytes"] == sum(item.size or 0 for item in items)
    assert gauges["entries"] == len(items)
    assert gauges["pinned"] == 0
    assert not [item for item in items if item.kind == "residue"]


@pytest.mark.parametrize("name", FOLDERS)
def test_eight_processes_keep_one_budget(name: str, tmp_path: Path) -> None:
    """There is never more than it allows, each blob is right or absent, and nothing is left over."""
    folder = tmp_path / name
    lru_in(folder).evict()
    processes = [start(roles.work, folder, number)[0] for number in range(8)]
    most = 0
    for process in processes:
        while process.exitcode is None:
            process.join(0.02)
            with stopped(folder):
                most = max(most, stored_in(folder))
    assert [end(process) for process in processes] == [0] * 8
    assert BUDGET / 2 < most <= BUDGET
    with lru_in(folder) as service:
        require_right_accounts(service, folder)
        for number in range(40):
            reader = service.open_read(B3Digest.of(blob(number)))
            assert reader is None or reader.read() == blob(number)


def test_threads_keep_one_budget(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    with lru_in(folder) as service, ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(write_and_read, service, number) for number in range(6)]:
            done.result()
        require_right_accounts(service, folder)
        assert stored_in(folder) <= BUDGET


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("role", [roles.read, roles.pin])
def test_what_another_process_reads_or_pins_stays(role: Role, name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    with lru_in(folder) as service:
        digest = service.write(noise(9000, 1))
        with waiting(role, folder, 1):
            for seed in range(2, 20):
                service.write(noise(9000, seed))
            assert service.read(digest) == noise(9000, 1)
        for seed in range(20, 30):
            service.write(noise(9000, seed))
        assert not service.has(digest)
        assert service.gauges()["pinned"] == 0


@pytest.mark.parametrize("name", FOLDERS)
def test_what_another_process_is_writing_stays(name: str, tmp_path: Path) -> None:
    """Chunks whose index is still to come, under a lease."""
    folder = tmp_path / name
    with lru_in(folder) as service, waiting(roles.lease, folder, 500):
        for seed in range(2, 20):
            service.write(noise(9000, seed))
            assert stored_in(folder) <= BUDGET


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("role", [roles.read, roles.pin, roles.lease])
def test_a_process_that_is_killed_pins_nothing(role: Role, name: str, tmp_path: Path) -> None:
    """Neither when it is found out later, nor when somebody needs the room at once."""
    folder = tmp_path / name
    with lru_in(folder) as service:
        digest = service.write(noise(9000, 1))
        with waiting(role, folder, 1) as process:
            process.kill()
            process.join()
        service.write(noise(50_000, 2))
        assert not service.has(digest)
        assert stored_in(folder) <= BUDGET
        service.write(noise(50_000, 3))
        require_right_accounts(service, folder)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_writer_that_is_killed_leaves_no_drift(name: str, tmp_path: Path) -> None:
    """Killed at random moments, again and again: the accounts are what is there, and the budget holds."""
    folder = tmp_path / name
    rand = random.Random(7)
    for number in range(0, 3000, 1000):
        process, pipe = start(roles.write_for_ever, folder, number)
        for _ in range(rand.randrange(1, 20)):
            last = pipe.recv()
        process.kill()
        process.join()
        assert stored_in(folder) <= BUDGET
        with lru_in(folder) as service:
            require_right_accounts(service, folder)
            # What it had reported is there, unless what it wrote afterwards has pushed it out.
            data = noise(2000 + last % 5000, last)
            reader = service.open_read(B3Digest.of(data))
            assert reader is None or reader.read() == data


def test_a_death_between_mark_and_removal(tmp_path: Path) -> None:
    """What a process was about to remove is looked up: some of it may be gone."""
    folder = tmp_path / "files"
    with lru_in(folder) as service:
        for seed in range(6):
            service.write(noise(8000, seed))
    process, _ = start(roles.die_while_evicting, folder)
    assert end(process) == -9
    with lru_in(folder) as service:
        require_right_accounts(service, folder)
        for seed in range(6):
            reader = service.open_read(B3Digest.of(noise(8000, seed)))
            assert reader is None or reader.read() == noise(8000, seed)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_fork_is_one_more_process(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    process, _ = start(roles.fork, folder)
    assert end(process) == 0
    with lru_in(folder) as service:
        require_right_accounts(service, folder)


def test_the_death_of_who_has_forked_is_seen(tmp_path: Path) -> None:
    """A lock that the fork has inherited would keep it alive."""
    folder = tmp_path / "files"
    with lru_in(folder) as service:
        service.write(noise(9000, 1))
        process, pipe = start(roles.die_before_the_fork, folder, 1)
        assert pipe.recv() == "ready"
        assert end(process) == -9
        assert service.gauges()["pinned"] == 0
        pipe.send("go on")
