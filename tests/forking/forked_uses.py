"""What a parent is at when it forks, what the child does then, and what must be so afterwards in both."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs
import pytest

from castore import B3Digest, BlobReader, BlobService, Composition
from castore.errors import WriterClosedError

A: Final = random.Random(1).randbytes(900_000)
B: Final = random.Random(2).randbytes(900_000)
SMALL: Final = b"a small blob"


@attrs.frozen
class Use:
    """One way to be forked.

    Attributes:
        prepare: In the parent, before; what it returns is there in the child.
        child: In the child, with a service of its own, or the parent's.
        after: In the parent, when the child has ended.
        spawns: Whether it makes sense in a process that shares no memory.
    """

    prepare: Callable[[BlobService], Any]
    child: Callable[[BlobService, Any], object]
    after: Callable[[BlobService, Any], object]
    spawns: bool = True


def _put(blobs: BlobService, data: bytes) -> B3Digest:
    digest = blobs.write(data)
    assert digest == B3Digest.of(data)
    assert blobs.read(digest) == data
    return digest


def _check_all(blobs: BlobService, *datas: bytes) -> None:
    for data in datas:
        assert blobs.read(B3Digest.of(data)) == data


def _is_usable(blobs: BlobService, _: Any = None) -> None:
    """All of it works: what was there, what is new, and questions."""
    _check_all(blobs, A, SMALL)
    _put(blobs, B)
    _put(blobs, random.Random(3).randbytes(300_000))
    assert blobs.missing([B3Digest.of(A), B3Digest.of(b"absent")]) == {B3Digest.of(b"absent")}


def _put_two(blobs: BlobService) -> None:
    _put(blobs, A)
    _put(blobs, SMALL)


def _open_writer(blobs: BlobService) -> Any:
    _put_two(blobs)
    writer = blobs.open_write()
    writer.write(B[:-1])
    return writer


def _finish_writer(blobs: BlobService, writer: Any) -> None:
    writer.write(B[-1:])
    assert writer.close() == B3Digest.of(B)
    _check_all(blobs, A, B, SMALL)


def _write_the_parents(blobs: BlobService, writer: Any) -> None:
    with pytest.raises(WriterClosedError, match="fork"):
        writer.write(b"x")
    with pytest.raises(WriterClosedError, match="fork"):
        writer.close()
    writer.abort()
    del writer
    _is_usable(blobs)


def _abort_before(blobs: BlobService) -> None:
    _put_two(blobs)
    writer = blobs.open_write()
    writer.write(B)
    writer.abort()


def _open_reader(blobs: BlobService) -> BlobReader:
    _put_two(blobs)
    reader = blobs.open(B3Digest.of(A)) if hasattr(blobs, "open") else blobs.open_read(B3Digest.of(A))
    assert reader is not None
    assert reader.read(100_000) == A[:100_000]
    return reader


def _read_on(blobs: BlobService, reader: BlobReader) -> None:
    assert reader.read() == A[100_000:]
    reader.seek(5)
    assert reader.read(10) == A[5:15]
    reader.close()
    _check_all(blobs, SMALL)


@contextmanager
def _busy(blobs: BlobService) -> Iterator[None]:
    """Threads that write and read all the time."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            while not stop.is_set():
                data = dice.randbytes(dice.choice((100, 200_000)))
                assert blobs.read(blobs.write(data)) == data
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not errors


def _be_busy(blobs: BlobService) -> Any:
    _put_two(blobs)
    context = _busy(blobs)
    context.__enter__()
    return context


def _stop_being_busy(blobs: BlobService, context: Any) -> None:
    context.__exit__(None, None, None)
    _check_all(blobs, A, SMALL)


USES: Final[dict[str, Use]] = {
    "idle": Use(_put_two, _is_usable, _is_usable),
    "writing": Use(_open_writer, _write_the_parents, _finish_writer, spawns=False),
    "aborted": Use(_abort_before, lambda blobs, _: _put(blobs, B), _is_usable, spawns=False),
    "reading": Use(_open_reader, _read_on, _read_on, spawns=False),
    "busy": Use(_be_busy, _is_usable, _stop_being_busy, spawns=False),
    "closed-there": Use(_put_two, lambda blobs, _: blobs.close(), _is_usable),
}


def use_rebuilt(stores: Composition, name: str) -> None:
    """Do what the child does, in a process to which a composition was sent."""
    with stores:
        USES[name].child(stores.blobs(), None)
