"""What the tests of the async facade share: a loop that tolerates no complaint, and a service with a gate."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import attrs
import pytest

from castore import B3Digest, BlobReader, BlobService, BlobWriter
from castore.contract.capabilities import BlobDeleter, BlobLister
from castore.format.chunking import Chunker, FastCdc2020
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore.threads.pool import Pool
from castore.wrapping.forwarding import ForwardingReader, ForwardingWriter
from castore.wrapping.wrapper import WrapperService
from castore_memory.service import MemoryBlobService

T = TypeVar("T")


def threads_of_aio() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "castore-aio"]


@pytest.fixture
def drive() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine to its end; nothing may be left behind: no thread, and no complaint of the loop."""

    def run(main: Coroutine[Any, Any, T]) -> T:
        complaints: list[dict[str, Any]] = []

        async def listening() -> T:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            try:
                return await main
            finally:
                gc.collect()  # Who was never retrieved complains when it is collected.

        result = asyncio.run(listening(), debug=True)
        gc.collect()
        assert complaints == []
        assert threads_of_aio() == []
        return result

    return run


@attrs.define
class Gate:
    """Counts the operations of a service, and holds the one of the number `at` until it is opened."""

    at: int | None = None
    names: list[str] = attrs.field(factory=list)
    reached: threading.Event = attrs.field(factory=threading.Event)
    opened: threading.Event = attrs.field(factory=threading.Event)
    lock: Any = attrs.field(factory=threading.Lock)

    def around(self, operation: str, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        with self.lock:
            self.names.append(operation)
            held = len(self.names) - 1 == self.at
        if held:
            self.reached.set()
            assert self.opened.wait(30)
        return call(*args, **kwargs)

    async def reach(self) -> None:
        """Wait until the operation is held."""
        assert await asyncio.to_thread(self.reached.wait, 30)


@attrs.define
class Open:
    """What is open, and what became of it."""

    readers: int = 0
    writers: int = 0
    aborted: int = 0
    all_readers: list[BlobReader] = attrs.field(factory=list)
    """Kept, so that who is closed was closed by somebody, and not for being forgotten."""
    aborted_one: threading.Event = attrs.field(factory=threading.Event)


class _Reader(ForwardingReader):
    def __init__(self, reader: BlobReader, watched: Watched) -> None:
        super().__init__(reader, watched.around)
        self._watched = watched
        watched.tracked.readers += 1
        watched.tracked.all_readers.append(self)

    def _next_piece(self, position: int) -> memoryview:
        return super()._next_piece(position)[: self._watched.piece]

    def close(self) -> None:
        if not self.closed:
            self._watched.tracked.readers -= 1
        super().close()


class _Writer(ForwardingWriter):
    def __init__(self, writer: BlobWriter, watched: Watched) -> None:
        super().__init__(writer, watched.around)
        self._watched = watched
        watched.tracked.writers += 1

    def _finish(self) -> B3Digest:
        digest = super()._finish()
        self._watched.tracked.writers -= 1
        return digest

    def _discard(self) -> None:
        self._watched.tracked.writers -= 1
        self._watched.tracked.aborted += 1
        self._watched.tracked.aborted_one.set()
        super()._discard()


class Kept(MemoryBlobService, BlobDeleter):
    """A memory of small chunks that can delete, and has no threads: so its steps have an order."""

    pool = Pool(0)

    def new_chunker(self) -> Chunker:
        return FastCdc2020(2048)

    def delete(self, digest: B3Digest) -> bool:
        self._chunks.pop(digest, None)
        return self._indexes.pop(digest, None) is not None


class Whole(BlobService, BlobLister):
    """Keeps blobs as they are, in no chunks."""

    def __init__(self) -> None:
        self.kept: dict[B3Digest, bytes] = {}

    def has(self, digest: B3Digest) -> bool:
        return digest in self.kept

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return BytesReader(self.kept[digest]) if digest in self.kept else None

    def open_write(self) -> BlobWriter:
        return SpooledWriter(lambda digest, file: self.kept.update({digest: file.read()}))

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from list(self.kept)


class Watched(WrapperService):
    """A service whose operations go through a gate, in small pieces, and that knows what is open."""

    def __init__(self, inner: BlobService | None = None, *, piece: int = 1000, whole: bool = False) -> None:
        super().__init__(inner or (Whole() if whole else Kept()))
        self.gate = Gate()
        self.tracked = Open()
        self.piece = piece

    def around(self, operation: str, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return self.gate.around(operation, call, *args, **kwargs)

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        return _Reader(reader, self)

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        return _Writer(writer, self)


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    """Make services with gates, which are open at the end in any case."""
    made = []

    def make(*args: Any, **kwargs: Any) -> Watched:
        made.append(Watched(*args, **kwargs))
        return made[-1]

    yield make
    for service in made:
        service.gate.opened.set()


@pytest.fixture
def watched(watch: Callable[..., Watched]) -> Watched:
    return watch()
