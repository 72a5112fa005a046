"""A server as a process of its own, for a while: many clients, readers that stall, signals in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

import castore
from castore import B3Digest
from castore.errors import UnavailableError
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.format.wire import PACKAGES, method_path, read_request, stat_request

_ROUND = 50
SECONDS = float(os.environ.get("CASTORE_SOAK_SECONDS", "600"))
SMALL, LARGE = (10, 2000, 100_000), 1_500_000


class Server:
    """The process, what it holds, and the composition that it reads."""

    def __init__(self, folder: Path, path: Path, *args: str) -> None:
        self.folder = folder
        self.url = f"grpc+unix:{path}"
        self.path = path
        self.write_composition(0)
        with (folder / "said").open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "castore", "--json", "serve", "--listen", f"unix:{path}", *args],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def write_composition(self, number: int) -> None:
        """Have another one, which the same blobs are in."""
        written = self.folder / "next.toml"
        written.write_text(
            '[blobservices.root]\ntype = "retry"\ninner = "&store"\n'
            f'max_delay = "{number % 100 + 100} ms"\n'
            '[blobservices.store]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
        )
        written.rename(self.folder / "composition.toml")

    def held(self, what: str) -> int:
        """Return how many descriptors or threads it has, or how many KiB."""
        if what == "descriptors":
            return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
        name = {"threads": "Threads:", "memory": "VmRSS:"}[what]
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    def has_read_anew(self, times: int) -> bool:
        return self.said().count("was read anew") >= times

    def said(self) -> str:
        return (self.folder / "said").read_text()


@pytest.fixture
def server(tmp_path: Path, sockets: Iterator[Path]) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*args: str) -> Server:
        started.append(Server(tmp_path, next(sockets), *args))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
        assert each.process.stdout is not None
        each.process.stdout.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


class Clients:
    """Threads that put and get blobs and trees, each by a connection of its own."""

    def __init__(self, url: str, count: int) -> None:
        self.done = [0] * count
        self.wrong: list[str] = []
        self.refused = 0
        self.leaving = threading.Event()
        self._ended = threading.Event()
        self._url = url
        self._threads = [threading.Thread(target=self._work, args=(each,)) for each in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        table = {"root": {"type": "grpc", "url": self._url}}
        with castore.Composition.from_mapping({"blobservices": table, "directoryservices": table}) as stores:
            while not self._ended.is_set():
                if self.done[number] % _ROUND == 0:
                    chance = random.Random(number)  # A disk holds only so much: what follows is known.
                try:
                    self._once(stores, chance)
                except UnavailableError as error:
                    # A call that was accepted is answered; one that comes later is refused as a whole.
                    if not self.leaving.is_set():
                        self.wrong.append(str(error))
                    self.refused += 1
                    return
                except Exception as error:
                    self.wrong.append(repr(error))
                    return
                self.done[number] += 1

    @staticmethod
    def _once(stores: castore.Composition, chance: random.Random) -> None:
        data = chance.randbytes(chance.choice((*SMALL, LARGE)))
        digest = stores.blobs().write(data)
        assert digest == B3Digest.of(data)
        assert stores.blobs().read(digest) == data
        assert not stores.blobs().has(B3Digest(chance.randbytes(32)))
        root = Directory({b"file": FileNode(digest, len(data))})
        assert stores.directories().put(root) == root.digest
        assert stores.directories().get(root.digest) == root

    def all_go_on(self) -> bool:
        before = list(self.done)
        return until(lambda: bool(self.wrong) or all(n > b for n, b in zip(self.done, before, strict=True)))

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(
    ("count", "signals", "seconds"),
    [pytest.param(12, 6, 1.0), pytest.param(64, 1000, SECONDS, marks=pytest.mark.long)],
)
@pytest.mark.timeout(3600)
def test_many_clients_and_a_server_that_reads_its_composition_anew(
    server: Any, count: int, signals: int, seconds: float
) -> None:
    """No call fails, nothing is left behind, and at the end each call that was accepted is answered.

    It takes some seconds in any case: a server, and clients that have to get somewhere.
    """
    running = server("--streams", "64", "--grace", "60 s")
    clients = Clients(running.url, count)
    try:
        assert clients.all_go_on()
        before: dict[str, int] = {}
        begin = time.monotonic()
        for number in range(signals):
            if number == signals // 5:
                # By then as many threads have had their buffers as ever do so at once.
                before = {what: running.held(what) for what in ("descriptors", "threads", "memory")}
            running.write_composition(number + 1)
            running.process.send_signal(signal.SIGHUP)
            assert until(partial(running.has_read_anew, number + 1))
            time.sleep(max(begin + seconds * (number + 1) / signals - time.monotonic(), 0.0))
            assert not clients.wrong
        assert clients.all_go_on()
        after = {what: running.held(what) for what in before}
        assert after["descriptors"] <= before["descriptors"] + 8
        # A thread is started when all that there are have something to do: 64 for streams, 8 for short calls.
        assert after["threads"] <= max(before["threads"] + 16, 64 + 8 + 24)
        # In a short run not all threads have had their buffers before.
        assert after["memory"] <= max(before["memory"] + (100 << 10), 400 << 10)
        clients.leaving.set()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(90) == 0
    finally:
        clients.end()
    assert clients.wrong == []
    assert clients.refused == count
    assert "Traceback" not in running.said()


@pytest.mark.parametrize("count", [64])
def test_readers_that_stall_hold_neither_threads_nor_memory(server: Any, count: int) -> None:
    """Others are answered meanwhile; and those are cut off, after which a blob is read as ever."""
    running = server("--streams", "8", "--idle", "500 ms")
    read = method_path(PACKAGES[0], "BlobService", "Read")
    ask = method_path(PACKAGES[0], "BlobService", "Stat")
    with castore.from_url(running.url) as blobs:
        digest = blobs.write(random.Random(7).randbytes(48 << 20))
        size = running.held("memory")
        threads = running.held("threads")
        # Each by a connection of its own: one has a window for all of its streams.
        channels = [
            grpc.insecure_channel(f"unix:{running.path}", [("grpc.use_local_subchannel_pool", 1)])
            for _ in range(count)
        ]
        try:
            calls = [channel.unary_stream(read)(read_request(digest)) for channel in channels]
            firsts = sum(_has_begun(call) for call in calls[:8])
            assert firsts > 0
            channels[0].unary_unary(ask)(stat_request(digest), timeout=30)
            # A stream has what it reads ahead, and what the transport has of it.
            assert running.held("memory") < size + 8 * (32 << 10) + (100 << 10)
            assert running.held("threads") <= threads + 8 + 48
            # While they stall still: they are told once they take what has come before.
            assert until(lambda: _can_be_read(blobs, digest))
        finally:
            for channel in channels:
                channel.close()
        assert until(lambda: running.held("threads") <= threads + 16)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0


def _can_be_read(blobs: castore.BlobService, digest: B3Digest) -> bool:
    try:
        return B3Digest.of(blobs.read(digest)) == digest
    except UnavailableError:
        return False


def _has_begun(call: Any) -> bool:
    try:
        return bool(next(call))
    except (grpc.RpcError, StopIteration):
        return False
