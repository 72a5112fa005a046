"""Files and streams are stored whole, from where they stand, or not at all."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from castore.contract.blobs import BlobService
from castore.contract.capabilities import ChunkStore
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    capability_of,
    expect,
    expect_absent,
    expect_raises,
    expect_stored,
    expect_that,
    fresh,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

chapter = Chapter()
clause = chapter.clause


class _BrokenStream(io.RawIOBase):
    """Gives *data* once; then the disk beneath it breaks."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._data:
            raise OSError("the disk broke")
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._data))
        target[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


@clause()
def put_file_by_path(service: BlobService) -> None:
    """`put_file` stores a file by its path, a string or a Path, also one that is empty."""
    with tempfile.TemporaryDirectory() as folder:
        for data in (fresh(1_300_000), fresh(), b""):
            path = Path(folder, "a file")
            path.write_bytes(data)
            for source in (path, str(path)):
                expect(f"put_file() of {len(data)} bytes", service.put_file(source), B3Digest.of(data))
            expect_stored(service, B3Digest.of(data), data)


@clause()
def put_file_from_a_stream(service: BlobService) -> None:
    """`put_file` stores an open stream from where it stands, and tells how far it is."""
    data = fresh(1_300_000)
    stream = io.BytesIO(data)
    stream.seek(300)
    steps: list[int] = []
    digest = service.put_file(stream, progress=steps.append)
    expect("put_file() of the rest of a stream", digest, B3Digest.of(data[300:]))
    expect("the sum of what progress was told", sum(steps), len(data) - 300)
    expect("closed, of the stream,", stream.closed, False)
    expect_stored(service, digest, data[300:])


@clause()
def put_file_that_is_not_there(service: BlobService) -> None:
    """`put_file` of a path that cannot be read raises `SourceError`, which is an OSError."""
    with tempfile.TemporaryDirectory() as folder:
        nowhere = Path(folder, "nowhere")
        expect_raises("put_file() of a missing file", SourceError, lambda: service.put_file(nowhere))
        expect_raises("put_file() of a folder", SourceError, lambda: service.put_file(folder))


@clause()
def put_file_that_breaks(service: BlobService) -> None:
    """A stream that fails in the middle raises `SourceError`, and what came before is no blob."""
    data = fresh(5000)
    stream = cast("BinaryIO", _BrokenStream(data))
    expect_raises("put_file() of a broken stream", SourceError, lambda: service.put_file(stream))
    expect_absent(service, B3Digest.of(data))


@clause()
def put_file_that_is_known(service: BlobService) -> None:
    """`put_file` of a file that is there already gives its digest, and tells how far it is, all the same."""
    data = fresh(1_300_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a file")
        path.write_bytes(data)
        for source in (path, path, io.BytesIO(data)):
            steps: list[int] = []
            expect("put_file()", service.put_file(source, progress=steps.append), B3Digest.of(data))
            expect("the sum of what progress was told", sum(steps), len(data))
    expect_stored(service, B3Digest.of(data), data)


@clause()
def put_files_in_order(service: BlobService) -> None:
    """`put_files` yields the digest of each file in order, and `SourceError` for each that is unreadable."""
    blobs = {"small": fresh(), "large": fresh(1_300_000), "empty": b"", "last": fresh(5000)}
    steps: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data in blobs.items():
            Path(folder, name).write_bytes(data)
        names = ["nowhere", "small", "large", ".", "empty", "small", "last"]
        paths = (Path(folder, name) for name in names)
        outcomes = list(service.put_files(paths, progress=steps.append))
    expect("how many outcomes put_files() yields", len(outcomes), len(names))
    for name, outcome in zip(names, outcomes, strict=True):
        if name in blobs:
            expect(f"the outcome of the {name} file", outcome, B3Digest.of(blobs[name]))
            expect_stored(service, B3Digest.of(blobs[name]), blobs[name])
        else:
            expect_that(isinstance(outcome, SourceError), f"a SourceError for {name!r}", outcome)
    size = sum(len(blobs[name]) for name in names if name in blobs)
    expect("the sum of what progress was told", sum(steps), size)
    expect("put_files() of none", list(service.put_files([])), [])


@clause()
def put_files_new_and_known(service: BlobService) -> None:
    """`put_files` of many small files stores those that are new, beside others that are there already."""
    known, new = ([fresh(100 + number) for number in range(8)] for _ in range(2))
    for data in known:
        service.write(data)
    blobs = [data for pair in zip(new, known, strict=True) for data in pair]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(len(blobs))]
        for path, data in zip(paths, blobs, strict=True):
            path.write_bytes(data)
        for _ in range(2):
            outcomes = list(service.put_files(paths))
            expect("the digests", outcomes, [B3Digest.of(data) for data in blobs])
    for data in blobs:
        expect_stored(service, B3Digest.of(data), data)


@clause(needs=(ChunkStore,))
def files_go_through_the_chunk_store(service: BlobService) -> None:
    """What `put_file` and `put_files` have stored is in the chunk store, and can be claimed there."""
    store = capability_of(service, ChunkStore)
    blobs = [fresh(), fresh(1_300_000)]
    with tempfile.TemporaryDirectory() as folder:
        for put in (lambda path: [service.put_file(path)], lambda path: list(service.put_files([path]))):
            for data in blobs:
                path = Path(folder, "a file")
                path.write_bytes(data)
                digest = B3Digest.of(data)
                expect("what is stored", put(path), [digest])
                chunks = {meta.digest for meta in service.chunks(digest) or ()} or {digest}
                expect("find_chunks() of its chunks", store.find_chunks(chunks), chunks)
                expect("claim() of its chunks", store.claim(chunks), chunks)
            blobs = [fresh(), fresh(1_300_000)]
