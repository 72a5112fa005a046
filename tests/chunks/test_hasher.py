"""A blob is hashed in order, whoever does it."""

from __future__ import annotations

import threading

import pytest

from castore import B3Digest
from castore.chunks.hasher import BlobHasher
from castore.threads.pool import Pool


@pytest.mark.parametrize("size", [0, 1, 4])
def test_what_is_added_is_hashed_in_order(size: int) -> None:
    """By any number of threads that catch up at the same time."""
    parts = [bytes([number % 256]) * (number % 7 * 1000) for number in range(200)]
    hasher = BlobHasher()
    pool = Pool(size)
    tasks = []
    for part in parts:
        hasher.add(memoryview(part))
        tasks.append(pool.submit(hasher.catch_up))
    for task in tasks:
        task.result()
    assert hasher.digest() == B3Digest.of(b"".join(parts))
    assert hasher.waiting == 0
    pool.close()


def test_who_catches_up_waits_for_another_who_does() -> None:
    """When it returns, all that was added before is hashed."""
    hasher = BlobHasher()
    hasher.add(memoryview(b"first"))
    with hasher._lock:
        done = threading.Event()
        thread = threading.Thread(target=lambda: (hasher.catch_up(), done.set()))
        thread.start()
        assert not done.wait(0.05)
        assert hasher.waiting == 5
    thread.join()
    assert hasher.digest() == B3Digest.of(b"first")


def test_who_has_something_else_to_do_does_not_wait() -> None:
    """It is told whether it has hashed anything."""
    hasher = BlobHasher()
    assert not hasher.catch_up_if_free()
    hasher.add(memoryview(b"first"))
    with hasher._lock:
        assert not hasher.catch_up_if_free()
    assert hasher.catch_up_if_free()
    assert hasher.waiting == 0
    assert not hasher.catch_up_if_free()
    assert hasher.digest() == B3Digest.of(b"first")


def test_what_is_forgotten_is_let_go() -> None:
    """Its memory is free, and nothing more is hashed."""
    hasher = BlobHasher()
    buffer = bytearray(b"first")
    hasher.add(memoryview(buffer))
    hasher.forget()
    hasher.catch_up()
    buffer += b"a buffer that nobody has a view of can grow"
    assert hasher.digest() == B3Digest.of(b"")
