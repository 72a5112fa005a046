"""Cancelled at any of its steps, an operation ends at once, and the work beneath it at that step.

Each script is run once to learn its steps, as the service sees them; then it is cancelled while each one is
under way, which hangs until it is let go.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

import castore
from castore import B3Digest, BlobNotFoundError
from castore.aio import AsyncBlobReader, AsyncBlobService
from castore.contract.capabilities import BlobLister
from castore.contract.inputs import InputFile, read_beginning
from castore.threads.pool import Pool
from castore.upkeep import copy

DATA: Final = bytes(range(250)) * 20  # of 5,000 bytes, at least five pieces
STORED: Final = B3Digest.of(DATA)
ABSENT: Final = B3Digest.of(b"absent")
SMALL: Final = b"another"
NEW: Final = b"new" * 1_500_000
"""More than fits in one call, so that there are several."""


async def read(blobs: AsyncBlobService, folder: Path) -> None:
    assert await blobs.read(STORED) == DATA


async def ask(blobs: AsyncBlobService, folder: Path) -> None:
    assert await blobs.has(STORED)
    assert await blobs.missing([STORED, ABSENT]) == {ABSENT}
    assert await blobs.chunks(ABSENT) is None
    with pytest.raises(BlobNotFoundError):
        await blobs.read(ABSENT)
    assert await blobs.open_read(ABSENT) is None


async def read_by_reader(blobs: AsyncBlobService, folder: Path) -> None:
    async with await blobs.open_read(STORED) as reader:
        assert await reader.read(1500) == DATA[:1500]
        await reader.seek(4500)
        assert await reader.read() == DATA[4500:]
        await reader.seek(0)
        assert await reader.read() == DATA


async def read_many(blobs: AsyncBlobService, folder: Path) -> None:
    found = {}
    small = B3Digest.of(SMALL)
    async for digest, answer in blobs.read_many([small, STORED, ABSENT]):
        found[digest] = await answer.read() if isinstance(answer, AsyncBlobReader) else answer
    assert found == {small: SMALL, STORED: DATA, ABSENT: None}


async def iterate(blobs: AsyncBlobService, folder: Path) -> None:
    async with await blobs.open_read(STORED) as reader:
        assert [len(piece) async for piece in reader.iter(1200)] == [1200] * 4 + [200]


async def write(blobs: AsyncBlobService, folder: Path) -> None:
    assert await blobs.write(b"small") == B3Digest.of(b"small")
    assert await blobs.write(NEW) == B3Digest.of(NEW)


async def write_by_writer(blobs: AsyncBlobService, folder: Path) -> None:
    async with blobs.open_write() as writer:
        for start in range(0, len(NEW), 400_000):
            await writer.write(NEW[start : start + 400_000])
        assert await writer.close() == B3Digest.of(NEW)


async def write_a_stream(blobs: AsyncBlobService, folder: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(NEW), 700_000):
            yield NEW[start : start + 700_000]

    assert await blobs.put_stream(pieces()) == B3Digest.of(NEW)


async def put_a_file(blobs: AsyncBlobService, folder: Path) -> None:
    (folder / "file").write_bytes(NEW)
    assert await blobs.put_file(folder / "file") == B3Digest.of(NEW)


async def put_a_known_file(blobs: AsyncBlobService, folder: Path) -> None:
    (folder / "file").write_bytes(DATA)
    assert await blobs.put_file(folder / "file") == STORED


async def put_files(blobs: AsyncBlobService, folder: Path) -> None:
    paths = [folder / str(number) for number in range(3)]
    for path in paths:
        path.write_text(path.name)
    expected = [B3Digest.of(path.name.encode()) for path in paths]
    assert [digest async for digest in blobs.put_files(paths)] == expected


async def list_blobs(blobs: AsyncBlobService, folder: Path) -> None:
    assert STORED in [digest async for digest in blobs.list_blobs()]


async def delete(blobs: AsyncBlobService, folder: Path) -> None:
    assert not await blobs.delete(ABSENT)
    assert await blobs.delete(STORED)


async def copy_from_it(blobs: AsyncBlobService, folder: Path) -> None:
    other = AsyncBlobService(castore.from_url("memory:"), threads=1)
    try:
        # On no other threads, so that the steps have an order.
        tally, failed = await blobs.call(copy, other, pool=Pool(0))
        assert (tally.blobs_copied, failed) == (2, [])
    finally:
        await other.close()


Script = Callable[[AsyncBlobService, Path], Awaitable[None]]

CHUNKED: Final[list[Script]] = [
    read,
    ask,
    read_by_reader,
    read_many,
    iterate,
    write,
    write_by_writer,
    write_a_stream,
    put_a_file,
    put_a_known_file,
    put_files,
    list_blobs,
    delete,
    copy_from_it,
]
WHOLE: Final[list[Script]] = [ask, read_many, write, put_a_file, put_files, copy_from_it]
"""What takes other steps where no chunks are kept."""

ENDS: Final = {"writer.close", "put_indexes", "delete"}
"""Steps that are done as a whole or not at all: whoever is cancelled in one finds either."""


def visible(service: Any) -> set[B3Digest]:
    return set(service.inner.capability(BlobLister).list_blobs())


def prepared(watch: Any, *, whole: bool = False, at: int | None = None) -> Any:
    service = watch(whole=whole)
    service.inner.write(DATA)
    service.inner.write(SMALL)
    service.gate.at = at
    return service


@pytest.mark.parametrize(
    ("script", "whole"), [*((each, False) for each in CHUNKED), *((each, True) for each in WHOLE)]
)
def test_cancelled_at_each_step(
    script: Script, whole: bool, watch: Any, drive: Callable, tmp_path: Path
) -> None:
    """At once, and then nothing goes on but the closing of readers and the aborting of writers."""

    async def learn() -> list[str]:
        service = prepared(watch, whole=whole)
        async with AsyncBlobService(service) as blobs:
            await script(blobs, tmp_path)
        assert (service.tracked.readers, service.tracked.writers, service.tracked.aborted) == (0, 0, 0)
        return service.gate.names

    async def cancel_at(step: int, names: list[str]) -> None:
        service = prepared(watch, whole=whole, at=step)
        async with AsyncBlobService(service, threads=2) as blobs:
            task = asyncio.create_task(script(blobs, tmp_path))
            await service.gate.reach()
            known = visible(service)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # It has ended, and the step still hangs.
            assert service.gate.names == names[: step + 1]
            service.gate.opened.set()
        assert service.gate.names[step + 1 :] == [], "something went on after the step"
        assert (service.tracked.readers, service.tracked.writers) == (0, 0)
        if names[step] not in ENDS:
            assert visible(service) == known

    names = drive(learn())
    assert names
    for step in range(len(names)):
        drive(cancel_at(step, names))


def test_the_scripts_have_the_steps_that_matter(watch: Any, drive: Callable, tmp_path: Path) -> None:
    """Else the test above would show nothing."""

    async def steps(script: Script, *, whole: bool = False) -> list[str]:
        service = prepared(watch, whole=whole)
        async with AsyncBlobService(service) as blobs:
            await script(blobs, tmp_path)
        return service.gate.names

    assert drive(steps(read))[:6] == ["open_read", *["reader.read"] * 5]
    assert drive(steps(write_by_writer)) == ["open_write", *["writer.write"] * 7, "writer.close"]
    assert drive(steps(put_a_file, whole=True)).count("writer.fill") == 6
    assert drive(steps(put_a_file)).count("put_chunks") >= 2
    assert drive(steps(put_a_known_file)) == ["lease", "claim", "chunks", "claim_blobs", "put_indexes"]
    assert drive(steps(put_files)) == ["lease", "claim_blobs", "claim", "put_chunks", "put_indexes"]
    assert drive(steps(read_many)).count("reader.read") >= 5
    assert {"list_blobs", "find_chunks", "chunks", "get_chunks"} <= set(drive(steps(copy_from_it)))


@pytest.mark.parametrize("known", [False, True])
def test_a_file_is_not_read_on(
    known: bool, watch: Any, drive: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while that makes no step of the service: as it is hashed, or gathered for the first chunks."""
    data = random.Random(1).randbytes(16 << 20)
    (tmp_path / "file").write_bytes(data)
    reads = []
    read = InputFile._read

    def counting(self: InputFile, buffer: memoryview) -> int | None:
        reads.append(len(buffer))
        return read(self, buffer)

    monkeypatch.setattr(InputFile, "_read", counting)

    async def main() -> None:
        service = watch()
        if known:
            service.inner.write(data)
        service.gate.at = 1
        async with AsyncBlobService(service) as blobs:
            task = asyncio.create_task(blobs.put_file(tmp_path / "file"))
            await service.gate.reach()
            assert service.gate.names == ["lease", "claim"]
            so_far = len(reads)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            service.gate.opened.set()
        assert (service.gate.names, len(reads)) == (["lease", "claim"], so_far)

    drive(main())


def test_of_many_files_no_other_is_read(
    watched: Any, drive: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all of them would be before the service is asked for the first time."""
    paths = [tmp_path / str(number) for number in range(100)]
    for path in paths:
        path.write_text(path.name)
    reached, go = threading.Event(), threading.Event()
    opened = []

    def slowly(path: Path, most: int) -> bytes:
        opened.append(path)
        if len(opened) == 3:
            reached.set()
            assert go.wait(30)
        return read_beginning(path, most)

    monkeypatch.setattr("castore.chunks.storing.read_beginning", slowly)

    async def main() -> None:
        async with AsyncBlobService(watched) as blobs:
            task = asyncio.create_task(anext(blobs.put_files(paths)))
            assert await asyncio.to_thread(reached.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
        assert (opened, watched.gate.names) == (paths[:3], ["lease"])

    drive(main())


def test_a_writer_is_aborted_when_the_piece_is_written(watched: Any, drive: Callable) -> None:
    """Not earlier: the thread still works on it."""

    async def main() -> None:
        watched.gate.at = 2
        async with AsyncBlobService(watched) as blobs:
            writer = blobs.open_write()
            task = asyncio.create_task(writer.write(NEW))
            await watched.gate.reach()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert watched.tracked.aborted == 0
            watched.gate.opened.set()
            assert await asyncio.to_thread(watched.tracked.aborted_one.wait, 30)

    drive(main())


def test_a_block_that_is_cancelled_outside_of_castore_aborts(watched: Any, drive: Callable) -> None:
    """While nothing is under way beneath: the writer is aborted all the same, and the reader closed."""

    async def main() -> None:
        digest = watched.inner.write(DATA)
        async with AsyncBlobService(watched) as blobs:
            inside = asyncio.Event()

            async def work() -> None:
                async with await blobs.open_read(digest) as reader, blobs.open_write() as writer:
                    await writer.write(NEW + await reader.read())
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(work())
            await inside.wait()
            assert (watched.tracked.readers, watched.tracked.writers) == (1, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (watched.tracked.readers, watched.tracked.writers, watched.tracked.aborted) == (0, 0, 1)

    drive(main())


def test_slots_are_free_again_when_the_step_is_over(watched: Any, drive: Callable) -> None:
    """One thread, and a call that hangs: the next one waits for it, and then runs."""

    async def main() -> None:
        digest = watched.inner.write(DATA)
        watched.gate.at = 1
        async with AsyncBlobService(watched, threads=1) as blobs:
            reading = asyncio.create_task(blobs.read(digest))
            await watched.gate.reach()
            reading.cancel()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.gather(*(blobs.read(digest) for _ in range(10)))
            assert watched.gate.names == ["open_read", "reader.read"]
            watched.gate.opened.set()
            assert await blobs.read(digest) == DATA

    drive(main())


def test_an_iteration_that_is_left_early_closes_what_it_iterates_over(
    watched: Any, drive: Callable, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"Hello World!")

    async def main() -> None:
        closed: list[str] = []

        class Endless:
            def __iter__(self) -> Any:
                try:
                    while True:
                        yield tmp_path / "file"
                finally:
                    closed.append(threading.current_thread().name)

        async with AsyncBlobService(watched) as blobs:
            files = blobs.put_files(Endless())
            async for digest in files:
                assert digest == B3Digest.of(b"Hello World!")
                break
            await files.aclose()
        assert closed == ["castore-aio"]

    drive(main())
