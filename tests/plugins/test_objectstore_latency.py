"""An object store that takes 30 ms for each request: many are made at once, and few one after another.

Nothing here looks at the clock: what is counted are requests in flight, and the calls that they are made for.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from castore import B3Digest, ChunkMeta
from castore.errors import BatchError, UnavailableError
from castore.threads.pool import Pool
from castore_objectstore.service import ObjectStoreBlobService

if TYPE_CHECKING:
    from typing_extensions import Buffer

COUNT = 1024
WIDE = 64
"""How many threads the pool for such stores has. Who waits for them takes part."""


class Flights:
    """Counts how many there are at once."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1

    def begin_anew(self) -> None:
        self.most = self.all = self.now


class Counting(ObjectStoreBlobService):
    """Counts its calls for many: how often each is made, and how many of them at once."""

    def __init__(self, store: Any, **options: Any) -> None:
        super().__init__(store, **options)
        self.calls: Counter[str] = Counter()
        self.putting = Flights()

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        self.calls["claim_blobs"] += 1
        return super().claim_blobs(blobs)

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        self.calls["put_chunks"] += 1
        with self.putting.one():
            super().put_chunks(chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self.calls["put_indexes"] += 1
        super().put_indexes(blobs)


@pytest.fixture
def far(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store of objects with latency, and `flights`, which counts requests."""
    kind = type(store)
    flights = Flights()
    record = kind._record

    def slowly(self: Any, verb: str, key: str) -> None:
        with flights.one():
            time.sleep(0.03)
            record(self, verb, key)

    monkeypatch.setattr(kind, "_record", slowly)
    monkeypatch.setattr(kind, "high_latency", True)
    monkeypatch.setattr(kind, "flights", flights, raising=False)
    return store


@pytest.fixture
def service(far: Any) -> Iterator[Counting]:
    pool = Pool(2)
    yield Counting(far, pool=pool)
    pool.close()


@pytest.fixture
def files(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Make so many small files."""

    def make(count: int) -> list[Path]:
        paths = [tmp_path / str(number) for number in range(count)]
        for path in paths:
            path.write_bytes(b"%s has a few bytes" % path.name.encode())
        return paths

    return make


def test_a_thousand_small_files(service: Counting, far: Any, files: Callable[[int], list[Path]]) -> None:
    """One call for each step that they all take, and in each as many requests as there are threads."""
    paths = files(COUNT)
    digests = [B3Digest.of(path.read_bytes()) for path in paths]
    assert list(service.put_files(paths)) == digests
    assert service.calls == {"claim_blobs": 1, "put_chunks": 1, "put_indexes": 1}
    assert service.putting.most == 1
    assert WIDE / 2 < far.flights.most <= WIDE + 1
    # Index and chunk are looked for, the chunk is put, the index looked at again and put.
    assert far.flights.all == 5 * COUNT

    service.calls.clear()
    far.flights.begin_anew()
    assert list(service.put_files(paths[:256])) == digests[:256]
    assert service.calls == {"claim_blobs": 1, "put_indexes": 1}
    assert far.flights.most <= WIDE + 1
    assert Counter(far.take_requests()[-3 * 256 :]) == {
        "HEAD blobs": 256,
        "GET blobs": 256,
        "HEAD chunks": 256,
    }

    far.flights.begin_anew()
    assert list(service.read_many(digests[:256])) == [
        (digest, path.read_bytes()) for digest, path in zip(digests, paths[:256], strict=False)
    ]
    assert 16 < far.flights.most <= 32
    assert far.flights.all == 256


def test_rounds_overlap(service: Counting, far: Any, files: Callable[[int], list[Path]]) -> None:
    """While the indexes of some files are put the next ones are stored; no more than two calls put chunks."""
    service.round = 50
    paths = files(200)
    assert len(list(service.put_files(paths))) == 200
    assert service.calls == {"claim_blobs": 4, "put_chunks": 4, "put_indexes": 4}
    assert service.putting.most <= 2
    assert far.flights.most <= WIDE + 1


def test_a_large_file(service: Counting, far: Any, tmp_path: Path) -> None:
    """Of 36 MB, about a hundred chunks: two batches at once, a hundred requests in a few steps."""
    data = random.Random(1).randbytes(36 << 20)
    (tmp_path / "file").write_bytes(data)
    digest = service.put_file(tmp_path / "file")
    chunks = len(service.chunks(digest) or ())
    assert service.calls == {"put_chunks": 3, "put_indexes": 1}
    assert service.putting.most == 2
    # How many more depends on how long a chunk takes to be compressed.
    assert 24 < far.flights.most <= WIDE + 1

    far.flights.begin_anew()
    assert service.put_file(tmp_path / "file") == digest
    assert far.flights.most > 24
    # The first chunk, the index three times, and each chunk.
    assert far.flights.all == chunks + 4

    far.flights.begin_anew()
    assert service.read(digest) == data
    assert 24 < far.flights.most <= WIDE + 1


@pytest.mark.parametrize("kind", ["chunks", "blobs"])
def test_what_fails_in_part(service: Counting, far: Any, kind: str) -> None:
    """All that could be done is, and each of the others has its error."""
    parts = {B3Digest.of(bytes([number])): bytes([number]) for number in range(40)}
    broken = set(list(parts)[::7])
    far.failing = lambda verb, key: verb == "PUT" and any(key.endswith(digest.hex()) for digest in broken)
    with pytest.raises(BatchError) as caught:
        service.put_chunks(parts) if kind == "chunks" else service.put_indexes(dict.fromkeys(parts, ()))
    assert caught.value.faults.keys() == broken
    assert caught.value.done == parts.keys() - broken
    assert all(isinstance(error, UnavailableError) for error in caught.value.faults.values())
    assert len([key for key in far.objects if key.startswith(kind)]) == len(parts) - len(broken)


def test_a_put_that_fails_leaves_nothing_in_flight(
    service: Counting, far: Any, files: Callable[[int], list[Path]]
) -> None:
    """And no index."""
    far.failing = lambda verb, key: verb == "PUT" and len(far.objects) > 100
    with pytest.raises(UnavailableError):
        list(service.put_files(files(300)))
    assert far.flights.now == 0
    requests = far.flights.all
    service.pool.close()
    assert far.flights.all == requests
    assert not [key for key in far.objects if key.startswith("blobs")]
