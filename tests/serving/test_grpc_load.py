"""Many clients, and slow ones: short calls are answered, and nothing is left behind."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import castore
from castore import B3Digest
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.format.wire import chunk_message, method_path, read_request, stat_request
from castore.serving.grpc.limits import BudgetError, ByteBudget, Limits

SNIX = "snix.castore.v1"
LARGE = bytes(48 << 20)  # more than any buffer on the way
SECONDS = float(os.environ.get("CASTORE_SOAK_SECONDS", "2"))


def until(condition: Any, seconds: float = 30) -> bool:
    """Wait for something; return whether it has come about."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def test_clients_that_take_nothing_are_cut_off(serving: Any, connected: Any) -> None:
    """Meanwhile short calls are answered, what is too much is refused, and their threads come free."""
    limits = Limits(streams=3, waiting=3, idle_seconds=1.0, crowded_seconds=0.3)
    records: list[Any] = []
    served = serving(limits=limits, record=records.append)
    digest = served.stores.blobs().write(LARGE)
    read, ask = method_path(SNIX, "BlobService", "Read"), method_path(SNIX, "BlobService", "Stat")
    with served.channel() as channel:
        calls = [channel.unary_stream(read)(read_request(digest)) for _ in range(9)]
        assert until(lambda: sum(call.done() for call in calls) >= 3)
        channel.unary_unary(ask)(stat_request(digest), timeout=30)
        # Three are cut off, then the next three.
        assert until(lambda: served.server.idle)
        assert served.server._door.budget.held == 0
        cut = [record for record in records if record.path == read and record.code != "OK"]
        assert len(cut) == 6
        assert connected(served.url).blobs().read(digest) == LARGE
        # What was cut off is told to who takes what has come before.
        codes = [call.code() for call in calls if call.done()]
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3
        for call in calls:
            call.cancel()


def test_a_client_that_sends_nothing_is_cut_off(serving: Any) -> None:
    """What it has sent is no blob, and there is none of it."""
    served = serving(limits=Limits(idle_seconds=0.3))
    gone = threading.Event()

    def messages() -> Any:
        yield chunk_message(b"the beginning")
        gone.wait(30)

    with served.channel() as channel:
        call = channel.stream_unary(method_path(SNIX, "BlobService", "Put")).future(messages())
        with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
            call.result(timeout=30)
        gone.set()
    assert until(lambda: served.server.idle)
    assert not served.stores.blobs().has(B3Digest.of(b"the beginning"))


def test_a_client_that_goes_leaves_no_blob(serving: Any) -> None:
    """A cancelled Put is aborted, whatever has come of it by then."""
    served = serving()
    started, gone = threading.Event(), threading.Event()

    def messages() -> Any:
        yield chunk_message(b"the beginning")
        started.set()
        gone.wait(30)

    with served.channel() as channel:
        call = channel.stream_unary(method_path(SNIX, "BlobService", "Put")).future(messages())
        assert started.wait(30)
        assert until(lambda: served.server._streams.under_way == 1)
        call.cancel()
        gone.set()
        assert until(lambda: served.server.idle)
    assert not served.stores.blobs().has(B3Digest.of(b"the beginning"))


def test_bytes_in_flight_are_bounded() -> None:
    """A stream waits for some, and is refused if there are none in time; one alone may always go on."""
    budget = ByteBudget(100, patience=0.05)
    with budget.account() as first, budget.account() as second:
        first.hold(80)
        first.hold(60)
        assert budget.held == 80
        with pytest.raises(BudgetError):
            second.hold(30)
        second.hold(20)
        assert budget.held == 100
    assert budget.held == 0
    with budget.account() as alone:
        alone.hold(1000)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("clients", [pytest.param(8), pytest.param(64, marks=pytest.mark.long)])
def test_many_clients_find_no_error_and_leave_nothing(serving: Any, clients: int) -> None:
    """Puts and gets of blobs and trees for some seconds; CASTORE_SOAK_SECONDS says how many."""
    served = serving({"root": {"type": "objectstore", "object_store_url": "file:./store"}})
    done = [0] * clients

    def work(number: int, ends: float) -> None:
        chance = random.Random(number)
        table = {"root": {"type": "grpc", "url": served.url}}
        with castore.Composition.from_mapping({"blobservices": table, "directoryservices": table}) as stores:
            blobs, directories = stores.blobs(), stores.directories()
            while time.monotonic() < ends:
                data = chance.randbytes(chance.choice((10, 2000, 100_000, 1_500_000)))
                digest = blobs.write(data)
                assert digest == B3Digest.of(data)
                assert blobs.read(digest) == data
                assert blobs.open_read(B3Digest(chance.randbytes(32))) is None
                root = Directory({b"file": FileNode(digest, len(data))})
                assert directories.put(root) == root.digest
                assert directories.get(root.digest) == root
                done[number] += 1

    def all_at_once(seconds: float) -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(work, range(clients), [time.monotonic() + seconds] * clients))

    all_at_once(0.5)
    before = descriptors(), threading.active_count()
    all_at_once(SECONDS)
    assert min(done) > 0
    assert until(lambda: served.server.idle)
    # Threads of pools and watches end by themselves, some seconds later.
    assert until(lambda: descriptors() <= before[0] + 4)
    assert until(lambda: threading.active_count() <= before[1] + 4)
