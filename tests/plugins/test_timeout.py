"""A service that does not answer costs its timeout, a thread of a few, and nothing else."""

from __future__ import annotations

import socket
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobReader, BlobWriter, Composition, UnavailableError
from castore.contract.capabilities import BlobLister, ChunkSource, ChunkStore
from castore.contract.upkeep import Sweepable
from castore.streams.readers import PieceReader
from castore.testing import HELLO, P3M
from castore_memory.service import MemoryBlobService
from castore_wrappers.retry.patience import Policy
from castore_wrappers.retry.service import RetryService
from castore_wrappers.timeout import config as timeout_config
from castore_wrappers.timeout.service import TimeoutService

SHORT = 0.5


class Gate:
    """Lets through what comes, until it is shut; then it waits until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self) -> None:
        assert self._open.wait(60)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


class Hanging(MemoryBlobService):
    """Hangs in whatever is asked of it while its gate is shut; `log` has what was released."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self.log: list[str] = []

    def missing(self, digests: Any) -> set[B3Digest]:
        self.gate()
        return super().missing(digests)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        self.gate()
        reader = super().open_read(digest)
        return None if reader is None else HangingReader(reader, self)

    def open_write(self) -> BlobWriter:
        self.gate()
        return HangingWriter(super().open_write(), self)

    def get_chunks(self, sizes: Any) -> Any:
        self.gate()
        return super().get_chunks(sizes)

    def list_blobs(self) -> Iterator[B3Digest]:
        for digest in super().list_blobs():
            yield digest
            self.gate()

    @contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        self.gate()
        try:
            yield self
        finally:
            self.log.append("lease ended")


class HangingReader(PieceReader):
    def __init__(self, reader: BlobReader, owner: Hanging) -> None:
        self.reader, self.owner = reader, owner

    @property
    def size(self) -> int:
        return self.reader.size

    def piece_at(self, position: int) -> memoryview:
        self.owner.gate()
        self.reader.seek(position)
        return memoryview(self.reader.read(1000))

    def close(self) -> None:
        if not self.closed:
            self.owner.log.append("reader closed")
        super().close()


class HangingWriter(BlobWriter):
    def __init__(self, writer: BlobWriter, owner: Hanging) -> None:
        self.writer, self.owner = writer, owner

    def write(self, data: Any, /) -> int:
        self.owner.gate()
        return self.writer.write(data)

    def close(self) -> B3Digest:
        self.owner.gate()
        return self.writer.close()

    def abort(self) -> None:
        self.owner.log.append("writer aborted")
        self.writer.abort()


def eventually(fact: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_what_is_given_up_is_released_when_it_returns(gate: Gate) -> None:
    """A reader is closed, a writer aborted, a lease ended."""
    inner = Hanging(gate)
    inner.write(HELLO.data)
    service = TimeoutService(inner, timeout=SHORT)
    store = service.capability(ChunkStore)
    assert store is not None
    inner.log.clear()
    gate.shut()
    for call in (
        lambda: service.open_read(HELLO.digest),
        service.open_write,
        lambda: store.lease().__enter__(),
    ):
        with pytest.raises(UnavailableError, match="no answer"):
            call()
    assert service.gauges() == {"given_up": 3, "not_returned": 3}
    assert inner.log == []
    gate.open()
    eventually(lambda: len(inner.log) == 3)
    assert set(inner.log) == {"reader closed", "writer aborted", "lease ended"}
    assert service.gauges() == {"given_up": 3, "not_returned": 0}


def test_threads_that_hang_are_bounded_in_number(gate: Gate) -> None:
    """When all hang, further calls are refused at once; when they return it is asked again."""
    inner = Hanging(gate)
    service = TimeoutService(inner, timeout=SHORT, calls_at_once=3)
    before = threading.active_count()
    gate.shut()
    for _ in range(3):
        with pytest.raises(UnavailableError, match="no answer"):
            service.has(HELLO.digest)
    for _ in range(20):
        with pytest.raises(UnavailableError, match="3 calls have not returned yet"):
            service.has(HELLO.digest)
    assert threading.active_count() <= before + 3
    gate.open()
    eventually(lambda: service.gauges()["not_returned"] == 0)
    assert not service.has(HELLO.digest)


def test_a_reader_that_hangs_is_lost_and_retry_goes_on_with_another(gate: Gate) -> None:
    inner = Hanging(gate)
    digest = inner.write(P3M.data)
    service = TimeoutService(inner, timeout=SHORT)
    reader = service.open(digest)
    assert reader.read(1000) == P3M.data[:1000]
    gate.shut()
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"no answer within 1\.5 s"):
            reader.read(1000)
    gate.open()
    with pytest.raises(UnavailableError):
        reader.read(1000)
    reader.close()
    eventually(lambda: "reader closed" in inner.log)
    assert inner.log.count("reader closed") == 1

    patient = RetryService(service, Policy(attempts=3, first_delay=0.001), sleep=lambda _: gate.open())
    with patient.open(digest) as again:
        assert again.read(5000) == P3M.data[:5000]
        gate.shut()
        assert again.read() == P3M.data[5000:]


def test_a_writer_that_hangs_is_lost(gate: Gate) -> None:
    """The buffer that was given is the caller's again, and nothing of the blob is visible."""
    inner = Hanging(gate)
    service = TimeoutService(inner, timeout=SHORT)
    writer = service.open_write()
    buffer = bytearray(b"a" * 1000)
    writer.write(buffer)
    gate.shut()
    with pytest.raises(UnavailableError, match="no answer"):
        writer.write(buffer)
    buffer[:] = b"b" * 1000
    with suppress(UnavailableError):
        writer.abort()
    gate.open()
    eventually(lambda: "writer aborted" in inner.log)
    assert list(inner.list_blobs()) == []


def test_a_list_is_waited_for_entry_by_entry(gate: Gate) -> None:
    inner = Hanging(gate)
    for number in range(5):
        inner.write(bytes([number]))
    service = TimeoutService(inner, timeout=SHORT)
    lister = service.capability(BlobLister)
    assert lister is not None
    assert len(list(lister.list_blobs())) == 5
    entries = lister.list_blobs()
    next(entries)
    gate.shut()
    with pytest.raises(UnavailableError, match="no answer"):
        list(entries)
    gate.open()
    eventually(lambda: service.gauges()["not_returned"] == 0)


def test_a_call_is_not_blamed_for_the_iterator_that_it_is_given(tmp_path: Path) -> None:
    """A sweep of what is listed slowly takes as long as that does."""
    table: dict[str, Any] = {
        "root": {"type": "timeout", "inner": "&store", "timeout": 1},
        "store": {
            "type": "objectstore",
            "object_store_url": f"file:{tmp_path}/store",
            "durability": "process",
        },
    }
    with Composition.from_mapping({"blobservices": table}) as stores:
        stores.blobs().write(b"one chunk, and an index")
        sweepable = stores.blobs().capability(Sweepable)
        assert sweepable is not None

        def slowly() -> Iterator[Any]:
            for item in list(sweepable.list_items()):
                time.sleep(0.7)
                yield item

        assert len(list(sweepable.sweep(slowly(), older_than=time.time() + 1000))) == 2


@pytest.mark.parametrize(
    ("count", "size", "times"), [(1, 10, 1), (65, 10, 2), (10, 1 << 20, 3), (3, None, 1)]
)
def test_a_batch_may_take_longer(gate: Gate, count: int, size: int | None, times: int) -> None:
    """Once for each 64 items, or 4 MiB, that are begun."""
    service = TimeoutService(Hanging(gate), timeout=SHORT)
    source = service.capability(ChunkSource)
    assert source is not None
    gate.shut()
    wanted = {B3Digest(bytes([n]) * 32): size for n in range(count)}
    with pytest.raises(UnavailableError, match=rf"no answer within {SHORT * times:g} s$"):
        source.get_chunks(wanted)


def test_a_far_that_accepts_and_never_answers(tmp_path: Path) -> None:
    """A server of this machine that takes connections, and says nothing: what stands before it goes on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/store"
        table: dict[str, Any] = {
            "root": {"type": "fallback", "services": ["&silent", "&there"]},
            "silent": {"type": "timeout", "inner": f"objectstore+{url}", "timeout": "0.5 s"},
            "there": {"type": "objectstore", "object_store_url": f"file:{tmp_path}/there"},
        }
        with Composition.from_mapping({"blobservices": table}) as stores:
            digest = stores.blobs("there").write(P3M.data)
            assert stores.blobs().read(digest) == P3M.data
            with pytest.raises(UnavailableError, match=r"`silent`: no answer within 0\.5 s"):
                stores.blobs().has(HELLO.digest)


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    """The TOML at the head of the module is a composition, with the defaults."""
    text = textwrap.dedent((timeout_config.__doc__ or "").partition("::\n")[2])
    (tmp_path / "composition.toml").write_text(text)
    with Composition.from_toml(tmp_path / "composition.toml") as stores:
        config = stores.graph.instances["blobservices.root"].config
        assert (config.timeout, config.calls_at_once) == (30.0, 64)
        assert stores.blobs().read(stores.blobs().write(HELLO.data)) == HELLO.data


ENDLESS = "objectstore+ftp://host/blobs"


@pytest.mark.parametrize(
    ("table", "warned"),
    [
        ({"type": "cache", "near": "memory:", "far": ENDLESS}, True),
        ({"type": "cache", "near": "memory:", "far": "&between"}, True),
        ({"type": "cache", "near": "memory:", "far": "&timed"}, False),
        ({"type": "cache", "near": "memory:", "far": "objectstore+http://host/blobs"}, False),
        ({"type": "fallback", "services": ["memory:", ENDLESS]}, True),
        ({"type": "fallback", "services": ["memory:", {"ref": ENDLESS, "timeout": "3 s"}]}, False),
        ({"type": "mirror", "services": ["memory:", {"ref": ENDLESS, "timeout": "3 s"}]}, False),
        ({"type": "mirror", "services": ["memory:", "&between"]}, True),
        ({"type": "cache", "near": "memory:", "far": "&several"}, False),
    ],
)  # fmt: skip
def test_a_far_without_a_time_limit_is_warned_of(table: dict[str, Any], warned: bool) -> None:
    """Whatever stands between; not of a driver that has limits of its own, or a service with a `timeout`."""
    tables: dict[str, Any] = {
        "root": table,
        "between": {"type": "retry", "inner": ENDLESS},
        "timed": {"type": "timeout", "inner": "&between"},
        "several": {"type": "fallback", "services": [{"ref": ENDLESS, "timeout": "3 s"}, "memory:"]},
    }
    stores = Composition.from_mapping({"blobservices": tables})
    found = [problem for problem in stores.warnings if problem.code == "waits-without-end"]
    assert [problem.dotted.split(".")[1] for problem in found] == ["root"] * warned
