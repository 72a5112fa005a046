"""Services, readers and writers by `await`: what they do, and how seldom they need a thread for it."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import pytest

import castore
import castore.aio
from castore import (
    B3Digest,
    BlobNotFoundError,
    BlobReader,
    BlobService,
    BlobWriter,
    ClosedError,
    CompositionError,
    InvalidSeekError,
    SourceError,
    UnavailableError,
    UnsupportedError,
    WriterClosedError,
)
from castore.aio import AsyncBlobReader, AsyncBlobService, AsyncComposition
from castore.streams.readers import BytesReader
from castore.testing import FaultyService
from castore.threads.pool import Pool

DATA: Final = bytes(range(250)) * 20
LARGE: Final = bytes(range(251)) * 40_000


# -- doors --


def test_a_composition_from_a_file(tmp_path: Path, drive: Callable) -> None:
    """The instances are those of the composition beneath; it is closed at the end."""
    file = tmp_path / "composition.toml"
    file.write_text('[blobservices.root]\ntype = "memory"\n[blobservices.other]\ntype = "memory"\n')

    async def main() -> None:
        async with castore.aio.open(file) as stores:
            blobs = await stores.blobs()
            assert blobs.service is stores.composition.blobs()
            assert (await stores.blobs("other")).service is stores.composition.blobs("other")
            assert await blobs.read(await blobs.write(b"Hello World!")) == b"Hello World!"
            with pytest.raises(CompositionError, match="no blob service is named `another`"):
                await stores.blobs("another")
        with pytest.raises(ClosedError):
            stores.composition.blobs()
        with pytest.raises(ClosedError):
            await blobs.has(B3Digest.of(b""))

    drive(main())


def test_a_service_from_a_url(drive: Callable) -> None:
    async def main() -> None:
        async with castore.aio.from_url("memory:") as blobs:
            assert await blobs.has(await blobs.write(DATA))

    drive(main())


def test_what_cannot_be_opened_raises_and_leaves_nothing(tmp_path: Path, drive: Callable) -> None:
    async def main() -> None:
        with pytest.raises(CompositionError, match="nowhere"):
            async with castore.aio.open(tmp_path / "nowhere.toml"):
                pass
        with pytest.raises(CompositionError, match="memory"):
            async with castore.aio.from_url("memory:x"):
                pass

    drive(main())


def test_a_composition_that_is_there_already(drive: Callable) -> None:
    table = {"blobservices": {"root": {"type": "memory"}}}

    async def main() -> None:
        async with AsyncComposition(castore.Composition.from_mapping(table)) as stores:
            assert not await (await stores.blobs()).has(B3Digest.of(DATA))
        await stores.close()

    drive(main())


def test_a_service_of_a_composition_is_closed_by_itself(drive: Callable, watch: Any) -> None:
    """As the synchronous one; the threads, which others use as well, stay."""
    closed = []

    async def main() -> None:
        threads = castore.aio.Threads(1)
        service = watch()
        service.close = lambda: closed.append(threading.current_thread().name)
        async with AsyncBlobService(service, threads=threads):
            pass
        assert closed == ["castore-aio"]
        assert await threads.run(lambda: 1) == 1
        await threads.close()

    drive(main())


def test_errors_are_those_of_the_service(drive: Callable) -> None:
    """The very same: also that they name the instance."""

    async def main() -> None:
        failing = FaultyService(
            castore.from_url("memory:"), {"missing", "has", "open_read", "claim"}, instance="far"
        )
        async with AsyncBlobService(failing) as blobs:
            for call in (
                blobs.has(B3Digest.of(DATA)),
                blobs.read(B3Digest.of(DATA)),
                blobs.open_read(B3Digest.of(DATA)),
                blobs.write(DATA),
            ):
                with pytest.raises(UnavailableError) as caught:
                    await call
                assert caught.value.instance == "far"
            with pytest.raises(SourceError, match="cannot read 'nowhere'"):
                await blobs.put_file("nowhere")
            with pytest.raises(TypeError, match="a path or a binary file is needed"):
                await blobs.put_file(17)

    drive(main())


def test_several_loops_use_one_service(drive: Callable) -> None:
    blobs = AsyncBlobService(castore.from_url("memory:"), threads=3)
    found: dict[int, bytes] = {}

    async def use(number: int) -> None:
        data = str(number).encode() * 1000
        for _ in range(10):
            async with await blobs.open_read(await blobs.write(data)) as reader:
                found[number] = await reader.read()

    loops = [threading.Thread(target=asyncio.run, args=(use(number),)) for number in range(5)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(30)
    assert found == {number: str(number).encode() * 1000 for number in range(5)}
    drive(blobs.close())


# -- readers --


def test_small_reads_share_a_call(watch: Any, drive: Callable) -> None:
    """What was not asked for stays at hand, also over short seeks."""

    async def main() -> None:
        service = watch(piece=2000, whole=True)
        digest = service.inner.write(DATA)
        async with AsyncBlobService(service) as blobs, await blobs.open_read(digest) as reader:
            assert reader.size == 5000
            assert b"".join([await reader.read(100) for _ in range(20)]) == DATA[:2000]
            assert service.gate.names == ["open_read", "reader.read"]
            assert await reader.read(10) == DATA[2000:2010]
            assert await reader.seek(500, 1) == 2510
            assert await reader.read(10) == DATA[2510:2520]
            assert len(service.gate.names) == 3
            assert await reader.seek(-1, 2) == 4999
            assert await reader.tell() == 4999
            assert await reader.read() == DATA[-1:]
            assert await reader.read() == await reader.read(0) == b""
            assert await reader.seek(0) == 0
            assert await reader.read(4500) == DATA[:4500]

    drive(main())


def test_what_is_expected_is_opened_or_an_error(watched: Any, drive: Callable) -> None:
    async def main() -> None:
        digest = watched.inner.write(DATA)
        async with AsyncBlobService(watched) as blobs:
            async with await blobs.open(digest) as reader:
                assert await reader.read() == DATA
            with pytest.raises(BlobNotFoundError):
                await blobs.open(B3Digest.of(b"absent"))

    drive(main())


# -- many at once --


class Many(BlobService):
    """Gives what it is told to by one call, and knows what is open."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.given = 0
        self.readers: list[BlobReader] = []

    def has(self, digest: B3Digest) -> bool:
        return True

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        raise NotImplementedError

    def open_write(self) -> BlobWriter:
        raise NotImplementedError

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Any]]:
        for digest, answer in zip(digests, self.answers, strict=True):
            assert all(reader.closed for reader in self.readers)
            self.given += 1
            if isinstance(answer, str):
                self.readers.append(BytesReader(answer.encode()))
                yield digest, self.readers[-1]
            else:
                yield digest, answer


def digests_for(service: Many) -> list[B3Digest]:
    return [B3Digest.of(b"%d" % number) for number in range(len(service.answers))]


def test_many_blobs_come_by_one_call(drive: Callable) -> None:
    """Each as the service gives it, a reader as one to be awaited, which is closed before the next blob."""
    error = UnavailableError("far", "gone")
    service = Many(b"one", None, "two", error, "three", b"four")

    async def main() -> None:
        async with AsyncBlobService(service) as blobs:
            found = []
            async for digest, answer in blobs.read_many(iter(digests_for(service))):
                is_reader = isinstance(answer, AsyncBlobReader)
                found.append((digest, await answer.read() if is_reader else answer))
        values = [b"one", None, b"two", error, b"three", b"four"]
        assert found == list(zip(digests_for(service), values, strict=True))
        assert all(reader.closed for reader in service.readers)

    drive(main())


def test_readers_that_nobody_got_are_closed(drive: Callable) -> None:
    """The iteration may end before one was handed out, or while one is used."""

    async def main(count: int) -> None:
        service = Many(b"one", "two", "three")
        async with (
            AsyncBlobService(service) as blobs,
            aclosing(blobs.read_many(digests_for(service))) as found,
        ):
            for _ in range(count):
                await anext(found)
        assert [reader.closed for reader in service.readers] == [True] * len(service.readers)
        assert service.readers

    for count in (1, 2, 3):
        drive(main(count))


def test_of_many_blobs_no_more_are_in_memory_than_one_call_may_have(drive: Callable) -> None:
    """However fast they come."""

    async def main() -> None:
        service = Many(*[bytes(1 << 20)] * 40)
        async with (
            AsyncBlobService(service) as blobs,
            aclosing(blobs.read_many(digests_for(service))) as found,
        ):
            await anext(found)
            assert service.given <= 16

    drive(main())


def test_seeks_follow_the_rules(watched: Any, drive: Callable) -> None:
    async def main() -> None:
        digest = watched.inner.write(DATA)
        async with AsyncBlobService(watched) as blobs, await blobs.open_read(digest) as reader:
            await reader.seek(10)
            for offset, whence in ((-1, 0), (5001, 0), (-11, 1), (1, 2), (0, 7)):
                with pytest.raises(InvalidSeekError):
                    await reader.seek(offset, whence)
                assert await reader.tell() == 10

    drive(main())


def test_pieces_of_a_reader(watched: Any, drive: Callable) -> None:
    """Of the size that is asked for, without which they have 1 MiB; from the position on."""

    async def main() -> None:
        digest = watched.inner.write(LARGE)
        watched.piece = 300_000
        async with AsyncBlobService(watched) as blobs, await blobs.open_read(digest) as reader:
            pieces = [piece async for piece in reader]
            assert b"".join(pieces) == LARGE
            assert [len(piece) for piece in pieces] == [1 << 20] * 9 + [len(LARGE) - (9 << 20)]
            await reader.seek(-7, 2)
            assert [piece async for piece in reader.iter(3)] == [LARGE[-7:-4], LARGE[-4:-1], LARGE[-1:]]
            with pytest.raises(ValueError, match="a piece has at least 1 byte, not 0"):
                await anext(reader.iter(0))

    drive(main())


def test_a_read_that_fails_leaves_the_position(drive: Callable) -> None:
    """And the next one goes on there."""

    async def main() -> None:
        inner = castore.from_url("memory:")
        digest = inner.write(DATA)
        failing = FaultyService(inner, {"reader.read"}, instance="far")
        async with AsyncBlobService(failing) as blobs, await blobs.open_read(digest) as reader:
            await reader.seek(10)
            with pytest.raises(UnavailableError):
                await reader.read(100)
            assert await reader.tell() == 10
            failing.failing.clear()
            assert await reader.read(100) == DATA[10:110]

    drive(main())


def test_one_task_at_a_time(watched: Any, drive: Callable) -> None:
    """A reader has one position: two tasks that share it have made a mistake."""

    async def main() -> None:
        digest = watched.inner.write(DATA)
        watched.gate.at = 1
        async with AsyncBlobService(watched) as blobs, await blobs.open_read(digest) as reader:
            task = asyncio.create_task(reader.read(10))
            await watched.gate.reach()
            with pytest.raises(RuntimeError, match="this reader is in use by another task"):
                await reader.read(10)
            await reader.close()  # It is closed when the other one is done with it.
            assert watched.tracked.readers == 1
            watched.gate.opened.set()
            assert await task == DATA[:10]
        assert watched.tracked.readers == 0

    drive(main())


def test_a_reader_that_is_closed_gives_no_more(watched: Any, drive: Callable) -> None:
    """Also when a read was cancelled; the words are those of every file."""

    async def main() -> None:
        digest = watched.inner.write(DATA)
        async with AsyncBlobService(watched) as blobs:
            closed = await blobs.open_read(digest)
            await closed.read(1)
            await closed.close()
            await closed.close()
            watched.gate.at = len(watched.gate.names) + 1
            cancelled = await blobs.open_read(digest)
            task = asyncio.create_task(cancelled.read(1))
            await watched.gate.reach()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for reader in (closed, cancelled):
                assert reader.closed
                for call in (reader.read(), reader.seek(0), reader.tell()):
                    with pytest.raises(ValueError, match="closed file"):
                        await call
            watched.gate.opened.set()
        assert watched.tracked.readers == 0

    drive(main())


def test_closing_drops_what_is_fetched_ahead(watch: Any, drive: Callable, tmp_path: Path) -> None:
    """A reader of an object store that is cancelled in the middle."""

    async def main() -> None:
        table = {"type": "objectstore", "object_store_url": tmp_path.as_uri(), "avg_chunk_size": 4096}
        tables = {"blobservices": {"root": table}}
        # Not measured, so that the reader is that of the store, which is looked into.
        with castore.Composition.from_mapping(tables, metrics=False) as stores:
            inner = stores.blobs()
            digest = inner.write(random.Random(1).randbytes(1_000_000))
            service = watch(inner, piece=1 << 20)
            made = []
            service.wrap_reader = lambda reader, digest: (
                made.append(reader) or type(service).wrap_reader(service, reader, digest)
            )
            service.gate.at = 20
            async with AsyncBlobService(service) as blobs:
                task = asyncio.create_task(blobs.read(digest))
                await service.gate.reach()
                (chunked,) = made
                assert chunked._ahead._runs
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                service.gate.opened.set()
            assert chunked.closed
            assert not chunked._ahead._runs

    drive(main())


# -- writers --


def test_small_writes_share_a_call(watched: Any, drive: Callable) -> None:
    """The writer of the service is opened, written to and closed in one."""

    async def main() -> None:
        async with AsyncBlobService(watched) as blobs:
            async with blobs.open_write() as writer:
                for start in range(0, len(DATA), 100):
                    assert await writer.write(memoryview(DATA)[start : start + 100]) == 100
                assert watched.gate.names == []
            assert await writer.close() == B3Digest.of(DATA)
            assert watched.gate.names == ["open_write", "writer.write", "writer.close"]
            assert writer.closed

    drive(main())


def test_the_buffer_may_be_used_again(watched: Any, drive: Callable) -> None:
    async def main() -> None:
        async with AsyncBlobService(watched) as blobs:
            async with blobs.open_write() as writer:
                buffer = bytearray(LARGE)
                await writer.write(buffer)
                buffer[:] = bytes(len(buffer))
                buffer += b"!"
            assert await writer.close() == B3Digest.of(LARGE)
            assert await blobs.write(bytearray(DATA)) == B3Digest.of(DATA)

    drive(main())


def test_the_buffer_is_free_when_a_write_is_cancelled(watched: Any, drive: Callable) -> None:
    """Though a thread may still be at work on the bytes."""

    async def main() -> None:
        watched.gate.at = 1
        async with AsyncBlobService(watched) as blobs:
            for write in (blobs.open_write().write, blobs.write):
                buffer = bytearray(LARGE)
                task = asyncio.create_task(write(buffer))
                await watched.gate.reach()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                buffer += b"grows only while nobody looks at it"
                watched.gate.reached.clear()
                watched.gate.at = len(watched.gate.names) + 1
            watched.gate.opened.set()

    drive(main())


def test_an_exception_in_the_block_aborts(watched: Any, drive: Callable) -> None:
    async def main() -> None:
        async with AsyncBlobService(watched) as blobs:
            writer = blobs.open_write()

            async def write() -> None:
                async with writer:
                    await writer.write(LARGE)
                    raise ConnectionError

            with pytest.raises(ConnectionError):
                await write()
            assert (watched.tracked.writers, watched.tracked.aborted) == (0, 1)
            with pytest.raises(WriterClosedError, match="cannot write: this writer was aborted"):
                await writer.write(b"x")
            with pytest.raises(WriterClosedError, match="cannot close: this writer was aborted"):
                await writer.close()
            async with blobs.open_write() as writer:
                await writer.abort()
                await writer.abort()
        assert not blobs_in(watched)

    drive(main())


def blobs_in(watched: Any) -> list[B3Digest]:
    return list(watched.inner.list_blobs())


def test_a_writer_that_failed_takes_no_more(drive: Callable) -> None:
    """The next write says so at once, though it would only gather bytes."""

    async def main() -> None:
        failing = FaultyService(castore.from_url("memory:"), {"writer.write"}, instance="far")
        async with AsyncBlobService(failing) as blobs:
            writer = blobs.open_write()
            with pytest.raises(UnavailableError):
                await writer.write(LARGE)
            with pytest.raises(WriterClosedError, match="has failed before"):
                await writer.write(b"x")
            with pytest.raises(WriterClosedError, match="has failed before"):
                await writer.close()
            await writer.abort()

    drive(main())


def test_a_closed_writer_says_so(watched: Any, drive: Callable) -> None:
    async def main() -> None:
        async with AsyncBlobService(watched) as blobs:
            writer = blobs.open_write()
            assert await writer.close() == await writer.close() == B3Digest.of(b"")
            await writer.abort()
            with pytest.raises(WriterClosedError, match="cannot write: this writer is closed"):
                await writer.write(b"x")
        assert blobs_in(watched) == [B3Digest.of(b"")]

    drive(main())


# -- streams and files --


def test_a_stream_is_asked_for_no_more_than_the_service_can_take(watched: Any, drive: Callable) -> None:
    """While a write hangs, so does the producer."""

    async def main() -> None:
        produced = 0

        async def produce() -> AsyncIterator[bytes]:
            nonlocal produced
            for _ in range(40):
                produced += 1
                yield bytes(256 << 10)

        watched.gate.at = 1
        async with AsyncBlobService(watched) as blobs:
            task = asyncio.create_task(blobs.put_stream(produce()))
            await watched.gate.reach()
            for _ in range(100):
                await asyncio.sleep(0)
            assert produced == 4
            watched.gate.opened.set()
            assert await task == B3Digest.of(bytes(10 << 20))

    drive(main())


def test_a_stream_that_breaks_leaves_no_blob(watched: Any, drive: Callable) -> None:
    async def main() -> None:
        async def produce() -> AsyncIterator[bytes]:
            yield LARGE
            raise ConnectionError

        async with AsyncBlobService(watched) as blobs:
            with pytest.raises(ConnectionError):
                await blobs.put_stream(produce())
        assert blobs_in(watched) == []
        assert (watched.tracked.writers, watched.tracked.aborted) == (0, 1)

    drive(main())


def test_a_blob_goes_from_one_service_to_another(drive: Callable) -> None:
    """A reader is a stream."""

    async def main() -> None:
        async with castore.aio.from_url("memory:") as one, castore.aio.from_url("memory:") as two:
            digest = await one.write(LARGE)
            async with await one.open_read(digest) as reader:
                assert await two.put_stream(reader) == digest
            assert await two.read(digest) == LARGE

    drive(main())


def test_progress_is_told_on_the_loop(tmp_path: Path, drive: Callable) -> None:
    """In order, and all of it before the digest comes."""
    (tmp_path / "file").write_bytes(LARGE)

    async def main() -> None:
        told: list[tuple[int, int]] = []

        def tell(count: int) -> None:
            told.append((count, threading.get_ident()))

        async with castore.aio.from_url("memory:") as blobs:
            assert await blobs.put_file(tmp_path / "file", progress=tell) == B3Digest.of(LARGE)
            assert sum(count for count, _ in told) == len(LARGE)
            assert [None async for _ in blobs.put_files([tmp_path / "file"] * 3, progress=tell)] == [None] * 3
            assert sum(count for count, _ in told) == 4 * len(LARGE)
            assert {thread for _, thread in told} == {threading.get_ident()}

    drive(main())


def test_many_files_stop_at_the_next_one(tmp_path: Path, drive: Callable) -> None:
    """Small files are stored many at once; when that is cancelled, only those that are open are finished."""
    opened = []
    held, let_go = threading.Event(), threading.Event()

    class Gated:
        def __init__(self, number: int) -> None:
            self.number = number

        def __fspath__(self) -> str:
            opened.append(self.number)
            if self.number == 10:
                held.set()
                assert let_go.wait(30)
            return str(tmp_path / "file")

    (tmp_path / "file").write_bytes(DATA)

    async def main() -> None:
        table = {"type": "objectstore", "object_store_url": (tmp_path / "store").as_uri()}
        stores = castore.Composition.from_mapping({"blobservices": {"root": table}})
        async with AsyncComposition(stores) as both:
            blobs = await both.blobs()

            async def put() -> list[Any]:
                return [digest async for digest in blobs.put_files(map(Gated, range(1000)))]

            task = asyncio.create_task(put())
            assert await asyncio.to_thread(held.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # One more for each thread of the pool, which may have looked at the flag before it was set.
            most = len(opened) + stores.pool.size
            let_go.set()
            await both.close()
        assert len(opened) <= most

    drive(main())


# -- capabilities and calls --


def test_a_list_comes_whole_and_what_goes_wrong_after_it(drive: Callable) -> None:
    async def main() -> None:
        inner = castore.from_url("memory:")
        expected = {inner.write(str(number).encode()) for number in range(3000)}

        def some(service: Any) -> Any:
            yield from sorted(expected)[:5]
            raise UnavailableError("far", "gone")

        async with AsyncBlobService(inner) as blobs:
            assert {digest async for digest in blobs.list_blobs()} == expected
            inner.list_blobs = lambda: some(inner)
            found = []

            async def gather() -> None:
                async for digest in blobs.list_blobs():
                    found.append(digest)

            with pytest.raises(UnavailableError):
                await gather()
            assert found == sorted(expected)[:5]

    drive(main())


def test_what_a_service_cannot_do_is_said(drive: Callable) -> None:
    class Poor(FaultyService):
        def capability(self, kind: Any) -> Any:
            return None

    async def main() -> None:
        async with AsyncBlobService(Poor(castore.from_url("memory:"), ())) as blobs:
            with pytest.raises(UnsupportedError, match="this service cannot list blobs"):
                await anext(blobs.list_blobs())
            with pytest.raises(UnsupportedError, match="this service cannot delete blobs"):
                await blobs.delete(B3Digest.of(b""))

    drive(main())


def test_any_function_can_be_called(drive: Callable) -> None:
    """With the services in place of their facades; those of castore.upkeep among them."""
    from castore.upkeep import copy  # noqa: PLC0415 - for this test alone

    async def main() -> None:
        async with castore.aio.from_url("memory:") as one, castore.aio.from_url("memory:") as two:
            digest = await one.write(DATA)
            tally, failed = await one.call(copy, two, [digest], pool=Pool(0))
            assert (tally.blobs_copied, failed) == (1, [])
            assert await two.read(digest) == DATA
            assert await two.call(lambda service, name: (service.has(digest), name), name="x") == (True, "x")

    drive(main())
