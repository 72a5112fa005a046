"""A file is hashed by two threads in turn: the digest is right, and an error ends both, with any pool."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from castore import B3Digest
from castore.chunks import known_content
from castore.contract.inputs import InputFile
from castore.errors import SourceError
from castore.format.chunking import FastCdc2020
from castore.threads.pool import Pool
from castore_memory.service import MemoryBlobService

PIECE = 16 << 10
CHUNKER = FastCdc2020(4 << 10)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_content, "_PIECE", PIECE)


@pytest.fixture(params=[0, 1, 2, 8])
def workers(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Pools of several sizes."""
    pool = Pool(request.param)
    yield pool
    pool.close()


class Store:
    """Has all chunks, and the blobs that it is told of."""

    def __init__(self, *blobs: bytes) -> None:
        self._blobs = {B3Digest.of(blob) for blob in blobs}

    def claim_chunk(self, digest: B3Digest) -> bool:
        return True

    def claim_blob(self, digest: B3Digest) -> bool:
        return digest in self._blobs


class File(io.BytesIO):
    """Reads some bytes at a time, after a call of *before*; counts reads, and those that have not ended."""

    reads = under_way = 0

    def before(self, position: int) -> None:
        """May fail."""

    def readinto(self, buffer: Any, /) -> int:
        self.reads += 1
        self.under_way += 1
        try:
            self.before(self.tell())
            return super().readinto(buffer[:5000])
        finally:
            self.under_way -= 1


def find(file: File, store: Any, workers: Pool) -> tuple[B3Digest, int] | None:
    """Look for a file; all of it can be read."""
    source = InputFile(file, "the file", size=len(file.getvalue()))
    return known_content.find_known(store, CHUNKER, source, workers)


@pytest.mark.parametrize("size", [PIECE, PIECE + 1, 5 * PIECE - 1, 5 * PIECE, 40 * PIECE + 77])
def test_the_digest_is_that_of_the_file(workers: Pool, size: int) -> None:
    """However many pieces there are, and whoever takes them."""
    data = random.Random(size).randbytes(size)
    assert find(File(data), Store(data), workers) == (B3Digest.of(data), size)


def test_another_file_is_not_known(workers: Pool) -> None:
    """It has been read to its end, and is at its start again."""
    data = random.Random(1).randbytes(9 * PIECE)
    file = File(data)
    assert find(file, Store(data + b"!"), workers) is None
    assert file.tell() == 0


@pytest.mark.parametrize("failing_at", [PIECE, 2 * PIECE, 2 * PIECE + 5000, 8 * PIECE])
def test_a_file_that_cannot_be_read(workers: Pool, failing_at: int) -> None:
    """The error comes out, whoever has met it, and nobody reads on."""

    def fail(position: int) -> None:
        if position >= failing_at:
            raise OSError(5, "Input/output error")

    data = random.Random(2).randbytes(9 * PIECE)
    file = File(data)
    file.before = fail  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="cannot read 'the file': Input/output error"):
        find(file, Store(data), workers)
    reads = file.reads
    workers.close()
    assert file.reads == reads


def test_what_one_cannot_read_the_other_does_not_try() -> None:
    """Beyond it there is nothing of use."""
    failed = threading.Event()

    def fail(position: int) -> None:
        if position >= 3 * PIECE:
            if threading.current_thread() is not threading.main_thread():
                failed.set()
                raise OSError(5, "Input/output error")
            if position < 6 * PIECE:
                failed.wait(0.01)  # Let the other one come to it.

    data = random.Random(3).randbytes(400 * PIECE)
    file = File(data)
    file.before = fail  # type: ignore[method-assign]
    pool = Pool(1)
    with pytest.raises(SourceError):
        find(file, Store(data), pool)
    pool.close()
    assert file.tell() < len(data)


class Interrupted:
    """A hasher that the thread of the tests cannot use, as if Ctrl-C were pressed."""

    AUTO = -1

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def update(self, view: memoryview) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt


def test_the_thread_that_asks_is_interrupted(workers: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one ends soon, not only with the file; and before the file may be closed."""
    monkeypatch.setattr(known_content, "blake3", Interrupted)
    data = random.Random(4).randbytes(400 * PIECE)
    file = File(data)
    file.before = lambda position: time.sleep(0.001)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        find(file, Store(data), workers)
    assert not file.under_way
    assert file.tell() < len(data)
    reads = file.reads
    workers.close()
    assert file.reads == reads


def test_a_pool_that_is_busy_is_not_waited_for() -> None:
    """The thread that asks does all of it alone."""
    data = random.Random(4).randbytes(9 * PIECE)
    pool, going_on = Pool(1), threading.Event()
    busy = pool.submit(going_on.wait)
    try:
        assert find(File(data), Store(data), pool) == (B3Digest.of(data), len(data))
    finally:
        going_on.set()
        busy.result()
        pool.close()


def test_small_files_are_not_asked_for() -> None:
    """Those that could be one chunk."""
    data = b"x" * (CHUNKER.max_size - 1)
    file = File(data)
    assert find(file, Store(data), Pool(0)) is None
    assert not file.reads


def test_a_file_whose_first_chunk_is_new_is_not_hashed() -> None:
    """Only its beginning has been read."""
    data = random.Random(5).randbytes(9 * PIECE)
    file = File(data)
    assert find(file, MemoryBlobService(), Pool(0)) is None
    assert file.reads == -(-PIECE // 5000)
    assert file.tell() == 0
