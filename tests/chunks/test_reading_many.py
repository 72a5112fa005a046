"""Many blobs read with few calls: small ones as bytes, others as readers, and each fault at its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from castore import B3Digest, BlobReader, BlobService, BlobWriter, CastoreError
from castore.contract.blobs import Answer
from castore.errors import CorruptBlobError, CorruptChunkError, UnavailableError
from castore.streams.readers import BytesReader

SMALL = [b"small %d" % number for number in range(50)]
DIGESTS = [B3Digest.of(data) for data in SMALL]
LARGE = bytes(range(256)) * 8192
ABSENT = B3Digest.of(b"absent")


def content(answer: Answer) -> object:
    """The bytes of an answer, or the class of what is wrong."""
    if isinstance(answer, BlobReader):
        with answer:
            return answer.read()
    return type(answer) if isinstance(answer, CastoreError) else answer


def read(service: BlobService, digests: Iterable[B3Digest]) -> list[tuple[B3Digest, object]]:
    return [(digest, content(answer)) for digest, answer in service.read_many(digests)]


# -- services that keep chunks --


@pytest.fixture(params=[False, True], ids=["at hand", "far"])
def store(request: pytest.FixtureRequest, bare: Any) -> Any:
    """A store of five methods with some blobs, one of which has several chunks."""
    store = bare(high_latency=request.param)
    for data in (*SMALL, b"", LARGE):
        store.write(data)
    store.calls.clear()
    return store


def test_each_comes_once_in_order(store: Any) -> None:
    """Small ones as bytes, large ones as readers, and `None` for what is absent."""
    wanted = [DIGESTS[3], B3Digest.of(LARGE), ABSENT, DIGESTS[3], B3Digest.of(b""), DIGESTS[0]]
    answers = list(store.read_many(iter(wanted)))
    assert [digest for digest, _ in answers] == [*wanted[:3], *wanted[4:]]
    kinds = [type(answer) for _, answer in answers]
    assert kinds[0] is kinds[-1] is bytes
    assert issubclass(kinds[1], BlobReader)
    assert [content(answer) for _, answer in answers] == [SMALL[3], LARGE, None, b"", SMALL[0]]


def test_small_ones_are_asked_for_together(store: Any) -> None:
    """As many as a batch may have, where each may be as large as a chunk of no known size."""
    assert read(store, DIGESTS) == list(zip(DIGESTS, SMALL, strict=True))
    assert [(name, len(digests)) for name, digests in store.calls] == [
        ("get_chunks", 16),
        ("get_chunks", 16),
        ("get_chunks", 16),
        ("get_chunks", 2),
    ]


@pytest.mark.parametrize("digest", [DIGESTS[20], B3Digest.of(LARGE)], ids=["small", "large"])
def test_what_is_wrong_with_one_ends_nothing(store: Any, digest: B3Digest) -> None:
    """Its error is its value; the others come."""
    get_chunks, chunks = store.get_chunks, store.chunks

    def wrong(sizes: Any) -> Any:
        found = get_chunks(sizes)
        if digest in found:
            found[digest] = CorruptChunkError("not what it should be", expected=digest)
        return found

    def wrong_list(asked: B3Digest) -> Any:
        if asked == digest:
            raise CorruptBlobError("no list", expected=digest)
        return chunks(asked)

    store.get_chunks, store.chunks = wrong, wrong_list
    answers = dict(read(store, [*DIGESTS, B3Digest.of(LARGE)]))
    fault = answers.pop(digest)
    assert isinstance(fault, type)
    assert issubclass(fault, CorruptBlobError)
    assert all(not isinstance(answer, type) for answer in answers.values())


def test_a_batch_of_which_nothing_is_known_is_an_error_for_each(store: Any) -> None:
    """And the next one is asked for."""
    failed: list[int] = []

    def fail_once(name: str, digests: list[B3Digest]) -> None:
        if name == "get_chunks" and DIGESTS[0] in digests and not failed:
            failed.append(1)
            raise UnavailableError("far", "down")

    store.before = fail_once
    answers = read(store, DIGESTS)
    assert answers[:16] == [(digest, UnavailableError) for digest in DIGESTS[:16]]
    assert answers[16:] == list(zip(DIGESTS, SMALL, strict=True))[16:]


def test_where_requests_mostly_wait_the_next_batch_is_under_way(bare: Any) -> None:
    """While one is given out; and no third."""
    store = bare(high_latency=True)
    for data in SMALL:
        store.write(data)
    asked = threading.Semaphore(0)
    store.before = lambda name, digests: asked.release() if name == "get_chunks" else None
    answers = store.read_many(DIGESTS)
    next(answers)
    assert asked.acquire(timeout=30)
    assert asked.acquire(timeout=30)
    time.sleep(0.02)
    assert not asked.acquire(blocking=False)
    assert [digest for digest, _ in answers] == DIGESTS[1:]


# -- services that keep none --


class Whole(BlobService):
    """Keeps blobs whole, and notes which readers are open, and how many calls are under way."""

    def __init__(self, *, high_latency: bool) -> None:
        self.high_latency = high_latency
        self.held: dict[B3Digest, bytes | CastoreError] = dict(zip(DIGESTS, SMALL, strict=True))
        self.readers: list[BytesReader] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def has(self, digest: B3Digest) -> bool:
        return digest in self.held

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.005)
        with self._lock:
            self.at_once -= 1
        data = self.held.get(digest)
        if data is None:
            return None
        if isinstance(data, CastoreError):
            raise data
        self.readers.append(BytesReader(data))
        return self.readers[-1]

    def open_write(self) -> BlobWriter:
        raise NotImplementedError


@pytest.fixture(params=[False, True], ids=["at hand", "far"])
def whole(request: pytest.FixtureRequest) -> Iterator[Whole]:
    whole = Whole(high_latency=request.param)
    yield whole
    assert all(reader.closed for reader in whole.readers)


def test_blobs_come_in_order(whole: Whole) -> None:
    """What is absent, or cannot be had, has its place."""
    whole.held[DIGESTS[7]] = UnavailableError("far", "down")
    wanted = [*DIGESTS, ABSENT, DIGESTS[0]]
    expected: list[tuple[B3Digest, object]] = [*zip(DIGESTS, SMALL, strict=True), (ABSENT, None)]
    expected[7] = (DIGESTS[7], UnavailableError)
    assert read(whole, wanted) == expected


def test_sixteen_are_read_at_once_where_requests_mostly_wait(whole: Whole) -> None:
    """And never more."""
    read(whole, DIGESTS)
    assert whole.most_at_once == (16 if whole.high_latency else 1)


def test_one_whose_reading_fails(whole: Whole) -> None:
    """A reader may find out what is wrong when it is read; a small one is read before it is given out."""

    class Failing(BytesReader):
        def piece_at(self, position: int) -> memoryview:
            raise UnavailableError("far", "down")

    open_read = whole.open_read

    def open_failing(digest: B3Digest) -> BlobReader | None:
        if digest != DIGESTS[1]:
            return open_read(digest)
        whole.readers.append(Failing(SMALL[1]))
        return whole.readers[-1]

    whole.open_read = open_failing  # type: ignore[method-assign]
    answers = []
    for _, answer in whole.read_many(DIGESTS[:3]):
        try:
            answers.append(content(answer))
        except UnavailableError as error:
            answers.append(type(error))
    assert answers == [SMALL[0], UnavailableError, SMALL[2]]


def test_readers_that_nobody_asked_for_are_closed() -> None:
    """Large blobs are opened ahead; a caller that stops before gets none of them."""
    whole = Whole(high_latency=True)
    large = [LARGE + data for data in SMALL[:30]]
    whole.held = {B3Digest.of(data): data for data in large}
    answers = whole.read_many(whole.held)
    for data in large[:3]:
        _, reader = next(answers)
        assert isinstance(reader, BlobReader)
        with reader:
            assert reader.read() == data
    answers.close()  # type: ignore[attr-defined]
    assert len(whole.readers) > 3
    assert all(reader.closed for reader in whole.readers)


@pytest.mark.parametrize("service", [Whole(high_latency=False), Whole(high_latency=True)])
def test_text_is_no_digest(service: Whole) -> None:
    """However many digests there are before it: nothing is read."""
    with pytest.raises(TypeError, match="a B3Digest is needed"):
        list(service.read_many([DIGESTS[0], str(DIGESTS[1])]))  # type: ignore[list-item]
    assert service.readers == []
