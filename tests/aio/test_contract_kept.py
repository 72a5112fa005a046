"""The facade keeps the contract: the kit tests it through an adapter that makes it synchronous again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

import castore
from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta, SourceError
from castore.aio import AsyncBlobReader, AsyncBlobService, AsyncBlobWriter
from castore.contract.blobs import Answer
from castore.contract.capabilities import BlobLister
from castore.streams.readers import PieceReader
from castore.testing import BlobServiceContract

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


class Blocking(BlobService, BlobLister):
    """An async service as a synchronous one, on a loop in a thread."""

    def __init__(self, service: BlobService) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._blobs = AsyncBlobService(service, threads=4)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def all_of(self, items: Any) -> Iterator[Any]:
        end = object()
        while (item := self.run(anext(items, end))) is not end:
            yield item

    def has(self, digest: B3Digest) -> bool:
        return self.run(self._blobs.has(digest))

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self.run(self._blobs.missing(digests))

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return self.run(self._blobs.chunks(digest))

    # Those that are written once for all services: here it is the facade that has them.

    def open(self, digest: B3Digest) -> BlobReader:  # type: ignore[misc]
        return BlockingReader(self.run(self._blobs.open(digest)), self.run)

    def read(self, digest: B3Digest) -> bytes:  # type: ignore[misc]
        return self.run(self._blobs.read(digest))

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        for digest, answer in self.all_of(self._blobs.read_many(digests)):
            is_reader = isinstance(answer, AsyncBlobReader)
            yield digest, BlockingReader(answer, self.run) if is_reader else answer

    def write(self, data: Any) -> B3Digest:  # type: ignore[misc]
        return self.run(self._blobs.write(data))

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        reader = self.run(self._blobs.open_read(digest))
        return None if reader is None else BlockingReader(reader, self.run)

    def open_write(self) -> BlobWriter:
        return BlockingWriter(self._blobs.open_write(), self.run)

    def put_file(self, source: Any, *, progress: Any = None) -> B3Digest:  # type: ignore[misc]
        return self.run(self._within(lambda: self._blobs.put_file(source, progress=progress)))

    async def _within(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await begin()

    def put_files(  # type: ignore[misc]
        self, paths: Any, *, progress: Any = None
    ) -> Iterator[B3Digest | SourceError]:
        async def begin() -> Any:
            return self._blobs.put_files(paths, progress=progress)

        yield from self.all_of(self.run(begin()))

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from self.all_of(self._blobs.list_blobs())

    def close(self) -> None:
        if not self._loop.is_closed():
            self.run(self._blobs.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class BlockingReader(PieceReader):
    def __init__(self, reader: AsyncBlobReader, run: Run) -> None:
        self._reader = reader
        self._run = run

    @property
    def size(self) -> int:
        return self._reader.size

    def piece_at(self, position: int) -> memoryview:
        async def piece() -> bytes:
            assert await self._reader.seek(position) == position
            return await self._reader.read(10_000)

        return memoryview(self._run(piece()))

    def close(self) -> None:
        if not self.closed:
            self._run(self._reader.close())
        super().close()


class BlockingWriter(BlobWriter):
    def __init__(self, writer: AsyncBlobWriter, run: Run) -> None:
        self._writer = writer
        self._run = run

    def write(self, data: Any, /) -> int:
        return self._run(self._writer.write(data))

    def close(self) -> B3Digest:
        return self._run(self._writer.close())

    def abort(self) -> None:
        self._run(self._writer.abort())


@pytest.fixture(params=["memory", "objectstore"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobService]:
    folder = {"object_store_url": tmp_path.as_uri(), "avg_chunk_size": 1024, "durability": "process"}
    table = {"type": request.param, **(folder if request.param == "objectstore" else {})}
    with castore.Composition.from_mapping({"blobservices": {"root": table}}) as stores:
        yield stores.blobs()


class TestAsyncBlobService(BlobServiceContract):
    capabilities = (BlobLister,)

    @pytest.fixture
    def service(self, inner: BlobService) -> BlobService:
        return Blocking(inner)
