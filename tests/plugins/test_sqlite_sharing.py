"""One SQLite file and many who use it: threads, processes, forks; locks, flushes, failures in between."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, UnavailableError
from castore.testing import CHUNKS, HELLO, P3M
from castore.threads.pool import Pool
from castore.threads.waiting import Holder
from castore_sqlite import rows
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService

HERE = Path(__file__).parent
WHOLE = B3Digest.of(bytes(range(16)))


def service_on(path: Path, pool: int = 0, **options: Any) -> SqliteBlobService:
    database = Database(path, instance="root", **{"durability": "process", **options})
    return SqliteBlobService(database, avg_chunk_size=1024, pool=Pool(pool))


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blobs.sqlite"


def blobs_of(seed: int, count: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(source.choice([0, 10, 3000, 20_000])) for _ in range(count)]


@pytest.mark.parametrize("durability", ["process", "full"])
def test_threads_share_transactions(path: Path, durability: str) -> None:
    """Each blob is there when its write returns, and they take fewer transactions than there are blobs."""
    service = service_on(path, durability=durability, pool=2)
    other = service_on(path)

    def store(data: bytes) -> None:
        digest = service.write(data)
        assert other.has(digest)
        assert service.read(digest) == data

    datas = [b"%d" % number for number in range(300)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, datas))
    assert set(other.list_blobs()) == {B3Digest.of(data) for data in datas}
    service.close()
    other.close()
    assert is_sound(path)


def test_those_who_wait_share_the_next_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is under way any number of writers gather for one more."""
    service = service_on(path)
    transactions: list[int] = []
    going, go = threading.Event(), threading.Event()
    put = rows.put_indexes

    def slow(connection: sqlite3.Connection, blobs: Any) -> None:
        transactions.append(len(blobs))
        going.set()
        assert go.wait(60)
        put(connection, blobs)

    monkeypatch.setattr(rows, "put_indexes", slow)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(service.write, b"first")
        assert going.wait(60)
        assert service.get_chunk(B3Digest.of(b"first")) == b"first"
        others = [pool.submit(service.write, b"%d" % number) for number in range(7)]
        while len(service._group._upcoming.indexes) < 7:
            assert not first.done()
        go.set()
        assert [other.result() for other in others] == [B3Digest.of(b"%d" % number) for number in range(7)]
    assert transactions == [1, 7]
    service.close()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_sqlite_sharing import blobs_of, service_on
service = service_on(Path(sys.argv[2]), pool=1, durability=sys.argv[4])
input()
for data in blobs_of(int(sys.argv[3]), 150):
    service.write(data)
service.close()
"""


@pytest.mark.parametrize("durability", ["process", "full"])
def test_processes_write_one_file_at_once(path: Path, durability: str) -> None:
    """Also the file itself is made by several at once; nothing is lost, and nobody is told to come later."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(HERE), str(path), str(seed // 2), durability],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=100)
        assert (writer.returncode, errors) == (0, "")
    service = service_on(path)
    for data in (*blobs_of(0, 150), *blobs_of(1, 150)):
        assert service.read(B3Digest.of(data)) == data
    service.close()
    assert is_sound(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_made_once_by_many(tmp_path: Path) -> None:
    """Those who begin it in the same moment wait for each other, and find its tables whole."""
    together = threading.Barrier(3)

    def begin(number: int) -> None:
        for folder in range(60):
            service = service_on(tmp_path / f"{folder}.sqlite", busy_timeout=60)
            together.wait(60)
            service.write(b"%d" % number)
            service.close()

    with ThreadPoolExecutor(3) as pool:
        for begun in [pool.submit(begin, number) for number in range(3)]:
            begun.result()
    # The last two may close in the same moment; then the log stays beside the file until it is opened.
    for path in tmp_path.glob("*.sqlite"):
        service = service_on(path)
        assert len(list(service.list_blobs())) == 3
        service.close()


def in_a_fork(call: Callable[[], None]) -> None:
    """Run *call* in a forked process; fail if it does."""
    child = os.fork()
    if not child:
        try:
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_process_has_connections_of_its_own(path: Path) -> None:
    """It reads and writes; its parent has closed its own before, and opens them again."""
    service = service_on(path)
    first = service.write(P3M.data)
    reader = service.open_read(first)
    assert reader is not None
    reader.read(1000)

    def child() -> None:
        assert service._database._writer is None
        assert service._database._readers == []
        assert service.read(first) == P3M.data
        service.write(b"of the child")
        assert reader.read() == P3M.data[1000:]
        service.close()

    in_a_fork(child)
    assert service._database._writer is None
    assert service.read(B3Digest.of(b"of the child")) == b"of the child"
    assert reader.read() == P3M.data[1000:]
    service.write(b"of the parent")
    service.close()
    assert is_sound(path)


def test_a_writer_that_is_carried_into_a_fork_ends_there(path: Path) -> None:
    """The chunks that wait go with it, so that its blob is whole; and they wait on in the parent."""
    service = service_on(path)
    for chunk in CHUNKS:
        service.put_chunk(chunk.digest, chunk.data)

    def child() -> None:
        service.put_index(WHOLE, [chunk.meta for chunk in CHUNKS])
        service.close()

    in_a_fork(child)
    other = service_on(path)
    assert other.read(WHOLE) == bytes(range(16))
    digests = {chunk.digest for chunk in CHUNKS}
    assert service._group.find_all(digests).keys() == digests
    service.close()
    other.close()


def test_a_fork_while_another_thread_writes(path: Path) -> None:
    """Locks that were held in that moment are nobody's in the child."""
    service = service_on(path)
    holding, go = threading.Event(), threading.Event()

    def hold() -> None:
        mine, turn = Holder(), Holder()
        assert service._database._writing.take(mine)
        assert service._group._turn.take(turn)
        with service._group._lock:
            holding.set()
            assert go.wait(60)
        service._database._writing.give_back(mine)
        service._group._turn.give_back(turn)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    in_a_fork(lambda: service.write(b"x") and service.close())
    go.set()
    thread.join()
    assert service.read(B3Digest.of(b"x")) == b"x"
    service.close()


class TestLocks:
    @pytest.fixture
    def locked(self, path: Path) -> Any:
        """Another program keeps a transaction open."""
        service = service_on(path)
        service.write(HELLO.data)
        service.close()
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.close()

    def test_one_that_lasts_is_told(self, path: Path, locked: sqlite3.Connection) -> None:
        """The file, the time, and what to do; readers do not wait, and later all is well."""
        service = service_on(path, busy_timeout=0.05)
        assert service.read(HELLO.digest) == HELLO.data
        with pytest.raises(UnavailableError) as caught:
            service.write(P3M.data)
        assert str(caught.value) == (
            f"`root` is unavailable: {path} has been locked by another program for more than 0.05 s; see what"
            " it does there, or allow for more with `busy_timeout`"
        )
        assert not service.has(P3M.digest)
        locked.execute("ROLLBACK")
        assert service.write(P3M.data) == P3M.digest
        assert service.read(P3M.digest) == P3M.data
        service.close()

    def test_one_that_ends_is_waited_for(self, path: Path, locked: sqlite3.Connection) -> None:
        """A writer goes on when it can."""
        service = service_on(path, busy_timeout=60)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(service.write, P3M.data)
            while service._group._running is None:
                assert not writing.done()
            locked.execute("COMMIT")
            assert writing.result() == P3M.digest
        service.close()


def test_a_failed_commit_loses_no_chunk_of_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks wait on and go with the next one; indexes are their writers' to put again."""
    service = service_on(path)
    service.put_chunk(HELLO.digest, HELLO.data)
    service._database._busy_timeout = 0.01
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnavailableError, match="locked"):
        service.write(b"other")
    lock.execute("ROLLBACK")
    assert service.claim_chunk(HELLO.digest)
    assert B3Digest.of(b"other") not in set(service.list_blobs())
    service.put_index(HELLO.digest, ())
    other = service_on(path)
    assert other.read(HELLO.digest) == HELLO.data
    assert not other.has(B3Digest.of(b"never"))
    lock.close()
    other.close()
    service.close()


def test_what_cannot_be_committed_does_not_fill_the_memory(path: Path) -> None:
    """When as much waits as may, the next chunk is not taken."""
    service = service_on(path, busy_timeout=0.01)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    datas = [random.Random(number).randbytes(1 << 20) for number in range(8)]
    for data in datas:
        service.put_chunk(B3Digest.of(data), data)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="locked"):
            service.put_chunk(HELLO.digest, HELLO.data)
    assert len(service._group.waiting) == 8
    lock.close()
    service.close()
    assert all(service_on(path).has(B3Digest.of(data)) for data in datas)


@pytest.mark.parametrize("ask", ["read", "write"])
def test_a_file_that_others_make_meanwhile_is_no_other_one(path: Path, ask: str) -> None:
    """It was not there when one looked; before that one went on it was made, and read by another thread."""
    with closing(service_on(path)) as service:
        database = service._database
        look, looks = database._identity, iter([True])

        def identity() -> tuple[int, int] | None:
            found = look()
            if next(looks, False):
                with closing(service_on(path)) as other:
                    other.write(HELLO.data)
                assert service.has(HELLO.digest)
            return found

        database._identity = identity  # type: ignore[method-assign]
        if ask == "read":
            assert not service.has(HELLO.digest)
        else:
            service.write(b"new")
        assert service.read(HELLO.digest) == HELLO.data


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_file_that_is_taken_away_is_noticed(path: Path, how: str) -> None:
    """Nothing is reported that went into a file which nobody will find; the next write makes a new one."""
    service = service_on(path)
    service.write(HELLO.data)
    service._database.fetch("SELECT 1")
    other = service_on(path.with_name("other"))
    other.write(b"other")
    if how == "removed":
        path.unlink()
    elif how == "moved":
        path.rename(path.with_name("moved"))
    else:
        other.close()
        path.with_name("other").replace(path)
        for name in ("-wal", "-shm"):
            path.with_name(path.name + name).unlink()
    with pytest.raises(UnavailableError, match=r"blobs\.sqlite was moved or replaced while it was in use"):
        service.write(b"new")
    assert service.write(b"new") == B3Digest.of(b"new")
    again = service_on(path)
    assert again.read(B3Digest.of(b"new")) == b"new"
    assert again.has(B3Digest.of(b"other")) is (how == "replaced")
    assert service.has(HELLO.digest) is again.has(HELLO.digest)
    for entry in (service, other, again):
        entry.close()


# -- flushes, as the system sees them --

STORING = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_sqlite_sharing import service_on
path = Path(sys.argv[2])
service, careless = service_on(path, durability=sys.argv[3]), service_on(path)
def report(digest):
    os.write(1, b"stored")
report(service.write(b"small"))
report(service.write(b"large" * 50_000))
careless.write(b"known")
report(service.write(b"known"))
careless.write(b"known whole" * 5_000)
assert service.claim_blob(careless.write(b"known whole" * 5_000))
service.put_indexes({})
report(None)
for chunk in (b"a", b"b"):
    service.put_chunk(type(service.write(b"small")).of(chunk), chunk)
report(service.write(b""))
service.put_chunk(type(service.write(b"small")).of(b"c"), b"c")
assert list(service.list_items())
report(service.write(b"after a commit without a flush"))
os._exit(0)
"""


@pytest.mark.parametrize(("durability", "flushed"), [("full", True), ("process", False)])
def test_what_is_reported_is_flushed(path: Path, durability: str, flushed: bool) -> None:
    """With `full` the log is flushed after the last write to it and before each report, whoever wrote it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    record = path.with_name("record")
    calls = "pwrite64,write,fsync,fdatasync,ftruncate"
    command = ["strace", "-f", "-y", "-s", "16", "-e", f"trace={calls}", "-o", str(record)]
    program = [sys.executable, "-c", STORING, str(HERE), str(path), durability]
    subprocess.run([*command, *program], check=True, capture_output=True, timeout=100)
    reports = 0
    dirty: set[str] = set()
    for line in record.read_text().splitlines():
        call = line.split(None, 1)[1]
        if call.startswith(("fsync", "fdatasync")):
            dirty.discard(call.partition("<")[2].partition(">")[0])
        elif "-wal>" in call:
            dirty.add(call.partition("<")[2].partition(">")[0])
        elif '"stored"' in call:
            reports += 1
            assert bool(dirty) is not flushed, (reports, dirty)
    assert reports == 6


def test_a_statement_that_somebody_has_left_half_read_locks_nobody_out(tmp_path: Path) -> None:
    """As an interrupt leaves it, whose traceback is kept."""
    database = Database(tmp_path / "blobs.sqlite", instance="root", durability="process", busy_timeout=0.5)
    kept: list[sqlite3.Cursor] = []

    def leave() -> None:
        with database.writing(lasting=False) as connection:
            kept.append(connection.execute("SELECT 1 UNION SELECT 2 UNION SELECT name FROM sqlite_master"))
            kept[0].fetchone()
            connection.execute("UPDATE flushes SET number = number + 1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    with database.writing(lasting=False) as connection:
        connection.execute("UPDATE flushes SET number = number + 1")
    kept.clear()
    database.close()
