"""What a child of a fork begins anew: locks, files, objects; and what a fork waits for."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from children import in_a_child

from castore import B3Digest
from castore.threads import forks
from castore.threads.deadlines import Deadlines
from castore.threads.pool import Pool
from castore.threads.process_locks import FolderOfLocks, open_to_lock
from castore.threads.waiting import Baton, Holder

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@contextmanager
def another_thread(enter: object) -> Iterator[None]:
    """A thread that is inside of a context in the meantime."""
    inside, go = threading.Event(), threading.Event()

    def stay() -> None:
        with enter:  # type: ignore[attr-defined]
            inside.set()
            assert go.wait(60)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(60)
    try:
        yield
    finally:
        go.set()
        thread.join(60)


def test_a_lock_that_another_thread_has_is_free_in_the_child() -> None:
    lock = forks.new_lock()

    def child() -> None:
        assert lock.acquire(timeout=10)

    with another_thread(lock):
        in_a_child(child)
        assert lock.locked()
    assert not lock.locked()


def test_a_lock_is_not_kept_alive_by_being_known() -> None:
    gc.collect()
    before = len(forks._locks)
    locks = [forks.new_lock() for _ in range(50)]
    assert len(forks._locks) == before + 50
    del locks
    assert len(forks._locks) == before


def test_what_begins_anew_does_so_in_the_order_in_which_it_was_made_known() -> None:
    began: list[str] = []

    class Owner:
        def __init__(self, name: str) -> None:
            self.name = name
            forks.begin_anew_in_child(self)

        def begin_anew(self) -> None:
            began.append(self.name)

    owners = [Owner("one"), Owner("two"), Owner("three")]
    del owners[1]

    def child() -> None:
        assert began == ["one", "three"]

    in_a_child(child)
    assert began == []


def test_each_fork_is_one_generation_further() -> None:
    here = forks.generation()

    def child() -> None:
        assert forks.generation() == here + 1
        in_a_child(grandchild)

    def grandchild() -> None:
        assert forks.generation() == here + 2

    in_a_child(child)
    assert forks.generation() == here


def test_a_child_does_not_keep_a_file_locked_after_its_parent(tmp_path: Path) -> None:
    """A daemon that was forked in the wrong moment would stop everybody."""
    path = tmp_path / "lock"
    (began, beginning), (reading, writing) = os.pipe(), os.pipe()
    with open_to_lock(str(path)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        child = os.fork()
        if child == 0:  # pragma: no cover - not seen in a child
            os.write(beginning, b"x")
            os.read(reading, 1)
            os._exit(0)
        os.read(began, 1)
        with open_to_lock(str(path)) as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        with open_to_lock(str(path)) as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.write(writing, b"x")
        os.waitpid(child, 0)
        for descriptor in (began, beginning, reading, writing):
            os.close(descriptor)


def test_a_child_that_leaves_a_block_of_its_parent_takes_no_lock_away(tmp_path: Path) -> None:
    locks = FolderOfLocks(tmp_path)
    digest = B3Digest.of(b"x")
    context = locks.try_alone(digest)
    assert context.__enter__()

    def child() -> None:
        context.__exit__(None, None, None)
        with locks.try_alone(digest) as alone:
            assert not alone

    in_a_child(child)
    assert (tmp_path / digest.hex()).exists()
    with locks.try_alone(digest) as alone:
        assert not alone
    context.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_fork_waits_for_a_block_that_it_must_not_come_in_between_of() -> None:
    done: list[int] = []
    inside = threading.Event()

    def work() -> None:
        with forks.held_off(), forks.held_off():
            inside.set()
            time.sleep(0.1)
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)

    def child() -> None:
        assert done == [1]
        with forks.held_off():
            pass

    in_a_child(child)
    thread.join()


def test_a_fork_within_such_a_block_waits_for_nobody() -> None:
    """That thread itself forks, and is in the block in the child as well."""

    def child() -> None:
        with forks.held_off():
            pass

    with forks.held_off():
        in_a_child(child)


def test_what_hangs_there_does_not_keep_others_from_forking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_LONGEST", 0.05)
    with another_thread(forks.held_off()):
        in_a_child(lambda: None)


def test_what_must_not_be_carried_over_is_let_go_before_and_had_again_afterwards() -> None:
    class Connection:
        is_open = True

        def let_go(self) -> None:
            self.is_open = False

    connection = Connection()
    forks.let_go_before_fork(connection)

    def child() -> None:
        assert not connection.is_open

    in_a_child(child)
    assert not connection.is_open


# -- by way of these --


def test_a_task_that_a_thread_of_the_parent_is_at_is_done_anew_in_the_child() -> None:
    pool = Pool(1)
    begun, go = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        assert go.wait(0 if os.getpid() != parent else 60) or os.getpid() != parent
        return os.getpid()

    parent = os.getpid()
    task = pool.submit(work)
    assert begun.wait(60)

    def child() -> None:
        assert task.result() == os.getpid()
        assert pool.submit(lambda: 5).result() == 5
        pool.close()

    in_a_child(child)
    go.set()
    assert task.result() == parent
    pool.close()


def test_a_call_with_a_deadline_is_made_by_a_thread_of_the_child() -> None:
    """The threads that were there have stayed behind; to wait for them would be to wait in vain."""
    deadlines = Deadlines("far")
    assert deadlines.call(lambda: 1, 30.0) == 1
    in_a_child(lambda: deadlines.call(lambda: 2, 30.0))
    assert deadlines.call(lambda: 3, 30.0) == 3


def test_a_turn_that_another_thread_has_is_free_in_the_child() -> None:
    turn = Baton()
    taken, go = threading.Event(), threading.Event()

    def hold() -> None:
        mine = Holder()
        assert turn.take(mine)
        taken.set()
        assert go.wait(60)
        turn.give_back(mine)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(60)

    def child() -> None:
        assert turn.take(Holder(), 10.0)

    assert not turn.take(Holder(), 0.01)
    in_a_child(child)
    go.set()
    thread.join()


def test_large_data_is_hashed_after_a_fork_as_before() -> None:
    """`blake3` has threads of its own for that, which are not there in a child."""
    data = bytes(2 << 20)
    digest = B3Digest.of(data)

    def child() -> None:
        assert B3Digest.of(data) == digest

    in_a_child(child)


def test_large_data_is_hashed_where_no_thread_can_be_had() -> None:
    program = (
        "import resource, os; from castore import B3Digest; os.geteuid() or os.setuid(65534);"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)); print(B3Digest.of(bytes(2 << 20)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == (str(B3Digest.of(bytes(2 << 20))), "")


def test_connections_to_a_database_are_not_carried_over(tmp_path: Path) -> None:
    """SQLite would take the parent's locks for the child's: the parent could remove the log that it reads."""
    from castore import Composition  # noqa: PLC0415 - for this test

    tables = {"blobservices": {"root": {"type": "sqlite", "path": "blobs.sqlite"}}}
    with Composition.from_mapping(tables, base=tmp_path) as stores:
        digest = stores.blobs().write(b"x")
        here = {entry.name for entry in tmp_path.iterdir()}
        assert "blobs.sqlite-wal" in here

        def child() -> None:
            opened = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.exists()]
            assert not [path.name for path in opened if path.parent == tmp_path]
            assert stores.blobs().read(digest) == b"x"

        in_a_child(child)
        assert stores.blobs().read(digest) == b"x"
    with contextlib.closing(sqlite3.connect(tmp_path / "blobs.sqlite")) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FIRST = """\
import os, signal
hooks = []
os.register_at_fork(after_in_child=lambda: [hook() for hook in hooks])  # before castore's
from castore.threads import forks

def ask():
    with forks.held_off():
        assert not lock.locked()
        seen.append(forks.generation())

lock, seen = forks.new_lock(), []
hooks.append(ask)
lock.acquire()
signal.alarm(30)
if not os.fork():
    signal.alarm(30)
    assert seen == [1], seen
    assert forks.generation() == 1
    os._exit(0)
assert os.waitpid(-1, 0)[1] == 0
"""


def test_what_another_library_does_in_a_child_waits_for_nobody() -> None:
    """It may come before castore: what it forgets there may be castore's, and is closed then."""
    ended = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_castore_can_be_before_libraries_that_are_loaded_later() -> None:
    """And is asked once for each fork, however often it was told to be."""
    order: list[str] = []

    class Connection:
        def let_go(self) -> None:
            order.append("castore")

    connection = Connection()
    forks.let_go_before_fork(connection)
    os.register_at_fork(before=lambda: order.append("library"))
    in_a_child(lambda: None)
    assert order == ["library", "castore"]
    forks.come_before_others()
    in_a_child(lambda: None)
    assert order == ["library", "castore", "castore", "library"]
