"""The clauses: a service that keeps the contract passes, and each clause catches one that does not.

`BROKEN` is the table: a service broken on purpose, and the clauses that must catch it. A clause that no
broken service can fail would be of no use, so there must be none.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import io
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest

from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import (
    BatchExistence,
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
)
from castore.contract.upkeep import Evictable, Inventory, Pinning, StoredItem, Sweepable
from castore.digest import B3Digest
from castore.errors import SourceError, WriterClosedError
from castore.format.frames import check_size, compress, decode_chunk
from castore.streams.readers import BytesReader
from castore.testing import CLAUSES, Clause, FaultyService, run_contract
from castore.testing.clause import POWERS

if TYPE_CHECKING:
    from typing_extensions import Buffer

PIECE = 100_000
"""Where `Sound` cuts: a blob of more bytes has chunks of so many."""


class Sound(
    BlobService,
    BlobLister,
    BlobDeleter,
    ChunkStore,
    FrameStore,
    Sweepable,
    Evictable,
    Pinning,
    BatchExistence,
    EvictionEvents,
    Durable,
):
    """A service with every capability that keeps every clause. The broken ones differ from it in one thing."""

    reader: Callable[[bytes], BlobReader] = BytesReader
    writer: Callable[[Sound], BlobWriter]

    def __init__(self) -> None:
        self.parts: dict[B3Digest, bytes] = {}
        self.indexes: dict[B3Digest, tuple[ChunkMeta, ...]] = {}
        self.times: dict[str, float] = {}
        self.aside: list[StoredItem] = []
        self.held: list[float] = []
        # A clock of its own, by which much time goes by between any two things.
        self.clock = itertools.count(1_000_000_000)

    def has(self, digest: B3Digest) -> bool:
        return digest in self.indexes or digest in self.parts

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        data = self.parts.get(digest)
        if data is None and digest in self.indexes:
            data = b"".join(self.parts[meta.digest] for meta in self.indexes[digest])
        return None if data is None else type(self).reader(data)

    def open_write(self) -> BlobWriter:
        return type(self).writer(self)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return self.indexes.get(digest, () if digest in self.parts else None)

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        """Keep what a writer gathered."""
        data = b"".join(pieces)
        digest = B3Digest.of(data)
        self.keep(digest, [data[start : start + PIECE] for start in range(0, len(data), PIECE)])
        return digest

    def keep(self, digest: B3Digest, parts: Sequence[bytes]) -> None:
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        for meta, part in zip(metas, parts, strict=True):
            self.parts[meta.digest] = part
            self.renew("chunk", meta.digest)
        if not parts:
            self.parts[digest] = b""
        self.indexes.setdefault(digest, tuple(metas) if len(metas) > 1 else ())
        self.renew("index", digest)

    def renew(self, kind: str, digest: B3Digest) -> None:
        """Note that something was put or claimed now."""
        self.times[f"{kind} {digest}"] = float(next(self.clock))

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from list(self.indexes)

    def delete(self, digest: B3Digest) -> bool:
        self.parts.pop(digest, None)
        return self.indexes.pop(digest, None) is not None

    def has_chunk(self, digest: B3Digest) -> bool:
        return digest in self.parts

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        data = self.parts.get(digest)
        if data is not None:
            check_size(digest, len(data), size)
        return data

    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        self.parts[digest] = bytes(data)
        self.renew("chunk", digest)

    def claim_chunk(self, digest: B3Digest) -> bool:
        if digest in self.parts:
            self.renew("chunk", digest)
        return digest in self.parts

    def claim_blob(self, digest: B3Digest) -> bool:
        if digest not in self.indexes:
            return False
        needed = [meta.digest for meta in self.indexes[digest]] or [digest]
        self.renew("index", digest)
        return all(self.claim_chunk(chunk) for chunk in needed)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        since = float(next(self.clock))
        self.held.append(since)
        try:
            yield
        finally:
            self.held.remove(since)

    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        if digest == B3Digest.of(b""):
            self.parts[digest] = b""
        self.indexes.setdefault(digest, tuple(chunks))
        self.renew("index", digest)

    @property
    def frame_format(self) -> str:
        return "zstd"

    def get_frame(self, digest: B3Digest) -> bytes | None:
        return compress(self.parts[digest]) if digest in self.parts else None

    def put_frame(self, digest: B3Digest, frame: bytes) -> None:
        self.put_chunk(digest, decode_chunk(frame, digest))

    def list_items(self) -> Iterator[StoredItem]:
        for digest in list(self.indexes):
            yield self.item("index", digest)
        for digest in list(self.parts):
            yield self.item("chunk", digest)

    def item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem:
        key = f"{kind} {digest}"
        size = 40 * len(self.indexes[digest]) if kind == "index" else len(self.parts[digest])
        return StoredItem(kind, key, digest, size, modified=self.times.get(key))

    def take_out(self, item: StoredItem) -> bool:
        assert item.digest is not None
        place: dict[B3Digest, Any] = self.indexes if item.kind == "index" else self.parts
        return place.pop(item.digest, None) is not None

    def set_aside(self, item: StoredItem) -> str:
        self.take_out(item)
        self.aside.append(item)
        return f"aside {len(self.aside)} {item.key}"

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        for item in items:
            if self.times[item.key] < older_than and self.take_out(item):
                yield item

    def held_since(self) -> float | None:
        return min(self.held, default=None)

    def stored_items(self) -> Iterator[StoredItem]:
        return self.list_items()

    def find_item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem | None:
        there = digest in (self.indexes if kind == "index" else self.parts)
        return self.item(kind, digest) if there else None

    def remove(self, items: Iterable[StoredItem]) -> None:
        for item in items:
            self.take_out(item)

    def open_write_to(self, store: ChunkStore) -> BlobWriter:
        return type(self).writer(PuttingTo(store))  # type: ignore[arg-type]

    @contextlib.contextmanager
    def pin(self, digest: B3Digest) -> Iterator[None]:
        yield

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return {digest for digest in digests if not self.has(digest)}

    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        return lambda: None

    @property
    def durability(self) -> Literal["process", "full"]:
        return "process"


class PuttingTo:
    """What a writer stores by way of another store."""

    def __init__(self, store: ChunkStore) -> None:
        self.to = store

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        data = b"".join(pieces)
        digest = B3Digest.of(data)
        parts = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        for part in parts:
            self.to.put_chunk(B3Digest.of(part), part)
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        self.to.put_index(digest, metas if len(metas) > 1 else ())
        return digest


class SoundWriter(BlobWriter):
    def __init__(self, service: Sound) -> None:
        self.service = service
        self.pieces: list[bytes] = []
        self.digest: B3Digest | None = None
        self.aborted = False

    def write(self, data: Buffer, /) -> int:
        if self.digest or self.aborted:
            raise WriterClosedError("cannot write: this writer has ended")
        self.pieces.append(bytes(data))
        return len(self.pieces[-1])

    def close(self) -> B3Digest:
        if self.aborted:
            raise WriterClosedError("cannot close: this writer was aborted")
        if self.digest is None:
            self.digest = self.service.store(self.pieces)
        return self.digest

    def abort(self) -> None:
        self.aborted = not self.digest


Sound.writer = SoundWriter

BROKEN: list[tuple[type[Sound], tuple[str, ...]]] = []


def caught_by(*names: str) -> Callable[[type[Sound]], type[Sound]]:
    """Enter a broken service into the table."""

    def add(cls: type[Sound]) -> type[Sound]:
        BROKEN.append((cls, names))
        return cls

    return add


def caught_reader(*names: str) -> Callable[[type[BlobReader]], type[BlobReader]]:
    """Enter a service whose readers are broken."""

    def add(cls: Any) -> type[BlobReader]:
        BROKEN.append((type(cls.__name__, (Sound,), {"reader": cls}), names))
        return cls  # type: ignore[no-any-return]

    return add


def caught_writer(*names: str) -> Callable[[type[SoundWriter]], type[SoundWriter]]:
    """Enter a service whose writers are broken."""

    def add(cls: type[SoundWriter]) -> type[SoundWriter]:
        BROKEN.append((type(cls.__name__, (Sound,), {"writer": cls}), names))
        return cls

    return add


# -- storing --


@caught_by("absent-has-false")
class HasEverything(Sound):
    def has(self, digest: B3Digest) -> bool:
        return True


@caught_by("absent-chunks-none")
class AbsentHasNoChunks(Sound):
    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return super().chunks(digest) or ()


@caught_by("absent-open-read-none")
class AbsentIsEmpty(Sound):
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return super().open_read(digest) or BytesReader(b"")


@caught_by("absent-read-raises")
class PlainKeyError(Sound):
    def read(self, digest: B3Digest) -> bytes:
        if not self.has(digest):
            raise KeyError(digest)
        return super().read(digest)


@caught_by("put-then-get")
class LosesTheEnd(Sound):
    def keep(self, digest: B3Digest, parts: Sequence[bytes]) -> None:
        super().keep(digest, [*parts[:-1], parts[-1][:-1]] if len(parts) > 20 else parts)


@caught_by("put-then-get")
class AnotherHash(Sound):
    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        return B3Digest(hashlib.sha256(b"".join(pieces)).digest())


@caught_by("put-twice")
class RefusesTwice(Sound):
    def keep(self, digest: B3Digest, parts: Sequence[bytes]) -> None:
        if digest in self.indexes:
            raise FileExistsError(str(digest))
        super().keep(digest, parts)


@caught_by("empty-blob")
class ForgetsEmpty(Sound):
    def keep(self, digest: B3Digest, parts: Sequence[bytes]) -> None:
        if parts:
            super().keep(digest, parts)


@caught_by("many-blobs")
class ByTheirBeginning(Sound):
    def keep(self, digest: B3Digest, parts: Sequence[bytes]) -> None:
        for other, data in self.parts.items():
            if parts and data[:16] == parts[0][:16]:
                self.parts[other] = parts[0]
        super().keep(digest, parts)


@caught_by("digest-is-a-value")
class ByIdentity(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.known: list[B3Digest] = []

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        self.known.append(super().store(pieces))
        return self.known[-1]

    def has(self, digest: B3Digest) -> bool:
        return any(digest is known for known in self.known)


@caught_by("missing-tells-the-absent")
class MissingIsAList(Sound):
    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return [digest for digest in digests if not self.has(digest)]  # type: ignore[return-value]


@caught_by("close-twice")
class ClosesOnce(Sound):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise ValueError("closed already")
        self.closed = True


# -- reading --


@caught_reader("reader-is-a-binary-file")
class NotSeekable(BytesReader):
    def seekable(self) -> bool:
        return False


@caught_reader("reader-knows-size")
class SizeOfTheRest(BytesReader):
    @property
    def size(self) -> int:
        return len(self._view) if self._position < len(self._view) else 0


@caught_reader("read-in-parts")
class NoneIsNoSize(BytesReader):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size + 0)  # type: ignore[operator]


@caught_reader("read-past-the-end")
class PadsTheEnd(BytesReader):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        return data.ljust(size or 0, b"\0") if data else data


@caught_reader("readinto-fills-the-buffer")
class FillsHalf(BytesReader):
    def readinto(self, buffer: Any, /) -> int:
        return super().readinto(memoryview(buffer)[:65_536])


@caught_reader("read1-gives-some")
class GivesTooMuch(BytesReader):
    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1()


@caught_reader("read-view-gives-the-bytes")
class ViewsStandStill(BytesReader):
    def read_view(self, size: int = -1, /) -> memoryview:
        return self.piece_at(self._position)[: None if size < 0 else size]


@caught_reader("read-view-gives-the-bytes")
class ViewsAreLong(BytesReader):
    def read_view(self, size: int = -1, /) -> memoryview:
        return super().read_view()


@caught_reader("seek-and-read")
class SeekSaysNothing(BytesReader):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        super().seek(offset, whence)
        return None  # type: ignore[return-value]


@caught_reader("seek-before-the-start")
class StopsAtTheStart(BytesReader):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        bases = (0, self._position, self.size)
        return super().seek(max(bases[whence] + offset, 0))


@caught_reader("seek-beyond-the-end")
class ComesRound(BytesReader):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return super().seek(offset % (self.size + 1) if not whence else offset, whence)


@caught_reader("text-and-lines")
class LongLines(BytesReader):
    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline()


@caught_reader("reader-closes")
class NeverCloses(BytesReader):
    def _require_open(self) -> None:
        pass


@caught_by("readers-are-independent")
class OneReader(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.shared: dict[B3Digest, BlobReader] = {}

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        reader = self.shared.get(digest)
        if reader is None or reader.closed:
            reader = super().open_read(digest)
            if reader is not None:
                self.shared[digest] = reader
        return reader


@caught_by("large-blob")
class FourMegabytes(Sound):
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        reader = super().open_read(digest)
        return None if reader is None else BytesReader(reader.read(4 << 20))


# -- writing --


@caught_writer("write-takes-all")
class TakesSome(SoundWriter):
    def write(self, data: Buffer, /) -> int:
        return super().write(memoryview(data).cast("B")[:65_536])


@caught_writer("write-takes-any-buffer")
class CountsItems(SoundWriter):
    def write(self, data: Buffer, /) -> int:
        super().write(data)
        return len(data) if isinstance(data, array.array) else memoryview(data).nbytes


@caught_writer("pieces-make-no-difference")
class KeepsLastPiece(SoundWriter):
    def write(self, data: Buffer, /) -> int:
        self.pieces.clear()
        return super().write(data)


@caught_writer("buffer-may-be-reused")
class KeepsTheBuffer(SoundWriter):
    def write(self, data: Buffer, /) -> int:
        count = super().write(data)
        self.pieces[-1] = data  # type: ignore[call-overload]
        return count


@caught_writer("fill-takes-what-is-put-in")
class FillsOnlyFull(SoundWriter):
    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        buffer = memoryview(bytearray(100_000))
        if readinto(buffer) < len(buffer):
            return 0
        return self.write(buffer)


@caught_writer("fill-takes-what-is-put-in")
class FillsTwice(SoundWriter):
    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        return super().fill(readinto) + super().fill(readinto)


@caught_writer("invisible-before-close", "put-file-that-breaks")
class ShowsItEarly(SoundWriter):
    def write(self, data: Buffer, /) -> int:
        count = super().write(data)
        self.service.store(self.pieces)
        return count


@caught_writer("with-block-closes")
class LeavesItOpen(SoundWriter):
    def __exit__(self, *_: object) -> None:
        pass


@caught_writer("close-is-idempotent")
class ClosesAnew(SoundWriter):
    def close(self) -> B3Digest:
        self.digest = None
        digest = super().close()
        self.pieces.clear()
        return digest


@caught_writer("abort-leaves-nothing")
class AbortCloses(SoundWriter):
    def abort(self) -> None:
        self.close()


@caught_writer("exception-aborts", "put-file-that-breaks")
class AlwaysCloses(SoundWriter):
    def __exit__(self, *_: object) -> None:
        self.close()


@caught_writer("abort-after-close-does-nothing")
class AbortTakesBack(SoundWriter):
    def abort(self) -> None:
        if self.digest is not None:
            self.service.delete(self.digest)
        super().abort()


@caught_writer("write-after-the-end-raises")
class IgnoresTheEnd(SoundWriter):
    def write(self, data: Buffer, /) -> int:
        return memoryview(data).nbytes if self.digest else super().write(data)


@caught_by("writers-are-independent")
class OneWriter(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def open_write(self) -> BlobWriter:
        writer = SoundWriter(self)
        writer.pieces = self.pieces
        return writer

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        digest = super().store(pieces)
        self.pieces.clear()
        return digest


# -- sources --


@caught_by("put-file-by-path")
class PathsOnly(Sound):
    def put_file(self, source: Any, **kwargs: Any) -> B3Digest:
        return super().put_file(source if hasattr(source, "read") else source.absolute(), **kwargs)


@caught_by("put-file-from-a-stream")
class Rewinds(Sound):
    def put_file(self, source: Any, **kwargs: Any) -> B3Digest:
        if hasattr(source, "seek"):
            source.seek(0)
        return super().put_file(source, **kwargs)


@caught_by("put-file-that-is-not-there")
class BareOSError(Sound):
    def put_file(self, source: Any, **kwargs: Any) -> B3Digest:
        try:
            return super().put_file(source, **kwargs)
        except SourceError as error:
            raise error.__cause__ or error from None


@caught_by("put-source-stores-what-is-open")
class KnowsItWithoutProgress(Sound):
    """Says nothing of the file that it has found to be there."""

    def put_source(self, source: Any, progress: Any = None) -> B3Digest:
        if source.size is None:
            return super().put_source(source, progress)
        data = memoryview(bytearray(source.size + 1))
        digest = B3Digest.of(data[: source.fill(data)])
        source.rewind()
        return digest if self.has(digest) else super().put_source(source, progress)


@caught_by("put-files-in-order")
class StopsAtTheUnreadable(Sound):
    def put_files(self, paths: Any, **kwargs: Any) -> Iterator[B3Digest | SourceError]:
        return (self.put_file(path, **kwargs) for path in paths)


@caught_by("put-files-in-order")
class SmallFilesFirst(Sound):
    def put_files(self, paths: Any, **kwargs: Any) -> Iterator[B3Digest | SourceError]:
        return super().put_files(sorted(paths, key=lambda path: path.name), **kwargs)


# -- chunking --


@caught_by("chunks-none-or-several")
class ListsItself(Sound):
    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        found = super().chunks(digest)
        return [ChunkMeta(digest, len(self.parts[digest]))] if found == () else found


@caught_by("chunks-make-up-the-blob")
class SortsChunks(Sound):
    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        found = super().chunks(digest)
        return found and sorted(found, key=lambda meta: meta.digest)


@caught_by("chunks-can-be-read")
class HidesChunks(Sound):
    def has(self, digest: B3Digest) -> bool:
        return digest in self.indexes


# -- threads --


@caught_by(
    "threads-write-one-blob",
    "threads-write-many-blobs",
    "threads-read-one-blob",
    "threads-read-what-others-write",
)
class OneThread(Sound):
    """As a connection of sqlite3: only for the thread that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = threading.get_ident()

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        assert threading.get_ident() == self.owner
        return super().open_read(digest)

    def open_write(self) -> BlobWriter:
        assert threading.get_ident() == self.owner
        return super().open_write()


# -- capabilities --


@caught_by("capabilities-are-real")
class SaysYes(Sound):
    def capability(self, kind: Any) -> Any:
        return True


@caught_by(*(clause.name for clause in CLAUSES if clause.name.startswith("without-")))
class DeniesAll(Sound):
    def capability(self, kind: Any) -> Any:
        return None


@caught_by("list-has-each-blob-once")
class ListsEachPut(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.puts: list[B3Digest] = []

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        self.puts.append(super().store(pieces))
        return self.puts[-1]

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from self.puts


@caught_by("list-without-aborted")
class ListsDrafts(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.writers: list[SoundWriter] = []

    def open_write(self) -> BlobWriter:
        self.writers.append(SoundWriter(self))
        return self.writers[-1]

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from {B3Digest.of(b"".join(writer.pieces)) for writer in self.writers}


@caught_by("delete-removes")
class DeletesNothing(Sound):
    def delete(self, digest: B3Digest) -> bool:
        return digest in self.indexes


@caught_by("delete-removes")
class DeletesSharedChunks(Sound):
    def delete(self, digest: B3Digest) -> bool:
        for meta in self.indexes.get(digest, ()):
            self.parts.pop(meta.digest, None)
        return super().delete(digest)


@caught_by("chunk-source-reads-chunks")
class UnsizedOnly(Sound):
    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        return super().get_chunk(digest) if size is None else None


@caught_by("chunk-source-knows-absence")
class RaisesForAbsent(Sound):
    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        return super().get_chunk(digest, size) if digest in self.parts else self.parts[digest]


@caught_by("chunk-source-checks-sizes")
class AnySize(Sound):
    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        return super().get_chunk(digest)


@caught_by("chunk-store-keeps-chunks")
class KeepsTheChunkBuffer(Sound):
    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        self.parts[digest] = memoryview(data)  # type: ignore[assignment]

    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        data = super().get_chunk(digest, size)
        return None if data is None else bytes(data)


@caught_by("chunk-store-shows-a-blob-by-its-index")
class IndexIsASet(Sound):
    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        super().put_index(digest, list(dict.fromkeys(chunks)))


@caught_by("chunk-store-keeps-the-first-index")
class TakesTheLastIndex(Sound):
    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        self.indexes[digest] = tuple(chunks)


@caught_by("chunk-store-takes-many-indexes")
class TakesTheFirstOfMany(Sound):
    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        super().put_indexes(blobs[:1])


@caught_by("chunk-store-takes-many-chunks")
class KeepsTheFirstOfMany(Sound):
    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        super().put_chunks(dict([*chunks.items()][:1]))


@caught_by("chunk-store-takes-many-chunks")
class ClaimsAllOfMany(Sound):
    def claim_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set(digests)


@caught_by("chunk-store-takes-small-blobs")
class NeedsTwoChunks(Sound):
    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        if len(chunks) > 1:
            super().put_index(digest, chunks)


@caught_by("batch-missing-agrees")
class FirstHundred(Sound):
    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return super().missing(list(digests)[:100])


@caught_by("eviction-events-can-be-ended")
class NoWayToEnd(Sound):
    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        return None  # type: ignore[return-value]


@caught_by("durability-is-stated")
class VeryDurable(Sound):
    @property
    def durability(self) -> Literal["process", "full"]:
        return "very"  # type: ignore[return-value]


# -- keeping --


@caught_by("frames-are-read")
class BareFrames(Sound):
    def get_frame(self, digest: B3Digest) -> bytes | None:
        return self.parts.get(digest)


@caught_by("frames-are-read")
class EmptyFrames(Sound):
    def get_frame(self, digest: B3Digest) -> bytes | None:
        return super().get_frame(digest) or b""


@caught_by("frame-put-is-the-chunk", "frame-mends-a-chunk")
class DropsFrames(Sound):
    def put_frame(self, digest: B3Digest, frame: bytes) -> None:
        pass


@caught_by("frame-put-is-the-chunk")
class PacksFramesAgain(Sound):
    def put_frame(self, digest: B3Digest, frame: bytes) -> None:
        self.put_chunk(digest, frame)


@caught_by("claim-tells-what-is-there")
class ClaimsEverything(Sound):
    def claim_chunk(self, digest: B3Digest) -> bool:
        return True


@caught_by("claim-tells-what-is-there")
class ClaimsNothing(Sound):
    def claim_chunk(self, digest: B3Digest) -> bool:
        return False


@caught_by("claim-tells-what-is-there")
class TakesChunksForBlobs(Sound):
    def claim_blob(self, digest: B3Digest) -> bool:
        return self.has(digest)


@caught_by("claim-of-indexes-tells-what-is-there")
class ClaimsAllIndexes(Sound):
    def claim_indexes(self, blobs: Any) -> set[B3Digest]:
        return {digest for digest, _ in blobs}


@caught_by("claimed-is-young-again")
class ForgetsClaimedIndexes(Sound):
    def claim_indexes(self, blobs: Any) -> set[B3Digest]:
        return {digest for digest, _ in blobs if digest in self.indexes}


@caught_by("hold-lets-writers-write")
class SwallowsErrors(Sound):
    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        with contextlib.suppress(Exception), super().hold():
            yield


@caught_by("hold-lets-writers-write")
class OneHolder(Sound):
    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        assert not self.held
        with super().hold():
            yield


@caught_by("claims-see-what-is-gone")
class ClaimsBlobsByTheirIndexes(Sound):
    def claim_blob(self, digest: B3Digest) -> bool:
        return digest in self.indexes


@caught_by("items-are-each-listed-once")
class ListsItemsTwice(Sound):
    def list_items(self) -> Iterator[StoredItem]:
        for item in super().list_items():
            yield from (item, item)


@caught_by("items-are-each-listed-once")
class ListsNoChunks(Sound):
    def list_items(self) -> Iterator[StoredItem]:
        return (item for item in super().list_items() if item.kind != "chunk")


@caught_by("items-are-each-listed-once")
class ListsChunksAsBlobs(Sound):
    def list_items(self) -> Iterator[StoredItem]:
        for digest in self.parts.keys() | self.indexes.keys():
            yield self.item("index", digest)
        yield from (item for item in super().list_items() if item.kind == "chunk")


@caught_by("items-say-what-they-are")
class ListsChunksFirst(Sound):
    def list_items(self) -> Iterator[StoredItem]:
        return iter(sorted(super().list_items(), key=lambda item: item.kind))


@caught_by("items-say-what-they-are")
class ListsNoDigests(Sound):
    def list_items(self) -> Iterator[StoredItem]:
        return (StoredItem(item.kind, item.key) for item in super().list_items())


@caught_by("set-aside-is-absent", "claims-see-what-is-gone", "frame-mends-a-chunk")
class CopiesAside(Sound):
    def set_aside(self, item: StoredItem) -> str:
        self.aside.append(item)
        return f"aside {len(self.aside)}"


@caught_by("set-aside-is-absent")
class SetsAllAside(Sound):
    def set_aside(self, item: StoredItem) -> str:
        self.indexes.clear()
        self.parts.clear()
        return super().set_aside(item)


@caught_by("set-aside-replaces-nothing")
class OnePlaceAside(Sound):
    def set_aside(self, item: StoredItem) -> str:
        super().set_aside(item)
        return f"aside {item.key}"


@caught_by("sweep-leaves-the-young")
class SweepsYoungAndOld(Sound):
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        return (item for item in items if self.take_out(item))


@caught_by("sweep-removes-what-it-is-given")
class SweepsSilently(Sound):
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        list(super().sweep(items, older_than=older_than))
        return iter(())


@caught_by("sweep-removes-what-it-is-given")
class SweepsAllThatIsOld(Sound):
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        asked = {item.key for item in items}
        for item in super().sweep(list(self.list_items()), older_than=older_than):
            if item.key in asked:
                yield item


@caught_by("sweep-removes-what-it-is-given")
class PretendsToSweep(Sound):
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        return (item for item in items if self.times[item.key] < older_than)


@caught_by("claimed-is-young-again")
class ForgetsClaims(Sound):
    def claim_chunk(self, digest: B3Digest) -> bool:
        return digest in self.parts


@caught_by("claimed-is-young-again")
class BelievesTheList(Sound):
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        for item in items:
            if (item.modified or 0) < older_than and self.take_out(item):
                yield item


@caught_by("claimed-is-young-again")
class KeepsFirstTimes(Sound):
    """A chunk that is put again stays as old as it was."""

    def keep(self, digest: B3Digest, parts: Sequence[bytes]) -> None:
        times = dict(self.times)
        super().keep(digest, parts)
        self.times |= times


@caught_by("held-since-the-first")
class HeldForever(Sound):
    def held_since(self) -> float | None:
        return super().held_since() or 0.0


@caught_by("held-since-the-first")
class NeverHeld(Sound):
    def held_since(self) -> float | None:
        return None


@caught_by("held-since-the-first")
class HeldSinceTheLast(Sound):
    def held_since(self) -> float | None:
        return max(self.held, default=None)


@caught_by("held-since-the-first")
class HeldSinceTheBeginning(Sound):
    def held_since(self) -> float | None:
        return 0.0 if self.held else None


# -- keeping it within bounds --


@caught_by("evictable-tells-sizes")
class TellsNoSizes(Sound):
    def item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem:
        return StoredItem(kind, f"{kind} {digest}", digest, modified=self.times.get(f"{kind} {digest}"))


@caught_by("evictable-tells-sizes")
class FindsWhatIsAbsent(Sound):
    def find_item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem | None:
        return super().find_item(kind, digest) or StoredItem(kind, f"{kind} {digest}", digest, 0)


@caught_by("evictable-tells-sizes")
class TakesMoreThanItsBound(Sound):
    def chunk_bound(self, size: int) -> int:
        return size // 2


@caught_by("evictable-removes")
class RemovesNoIndex(Sound):
    def remove(self, items: Iterable[StoredItem]) -> None:
        super().remove(item for item in items if item.kind == "chunk")


@caught_by("evictable-removes")
class RemovesAll(Sound):
    def remove(self, items: Iterable[StoredItem]) -> None:
        self.parts.clear()
        self.indexes.clear()


@caught_by("evictable-removes")
class RemovesOnce(Sound):
    def remove(self, items: Iterable[StoredItem]) -> None:
        for item in items:
            if not self.take_out(item):
                raise KeyError(item.key)


@caught_by("evictable-writes-to-another")
class WritesToItself(Sound):
    def open_write_to(self, store: ChunkStore) -> BlobWriter:
        return self.open_write()


@caught_by("evictable-writes-to-another")
class WritesToBoth(Sound):
    def open_write_to(self, store: ChunkStore) -> BlobWriter:
        writer = super().open_write_to(store)
        write = writer.write
        writer.write = lambda data: self.keep(B3Digest.of(data), [bytes(data)]) or write(data)  # type: ignore[method-assign, func-returns-value]
        return writer


@caught_by("pinning-may-come-first")
class PinsOnlyWhatIsThere(Sound):
    @contextlib.contextmanager
    def pin(self, digest: B3Digest) -> Iterator[None]:
        if not self.has(digest):
            raise KeyError(digest)
        yield


@caught_by("pinning-may-come-first")
class ForgetsWhenUnpinned(Sound):
    @contextlib.contextmanager
    def pin(self, digest: B3Digest) -> Iterator[None]:
        yield
        self.delete(digest)


# -- the tests --


class Smallest(BlobService):
    """The smallest service: three methods, no chunks, no capabilities."""

    def __init__(self) -> None:
        self._behind = Sound()

    def has(self, digest: B3Digest) -> bool:
        return self._behind.has(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return self._behind.open_read(digest)

    def open_write(self) -> BlobWriter:
        return self._behind.open_write()


def verdicts(make: Callable[[], BlobService], clauses: Iterable[Clause] = CLAUSES) -> dict[str, str]:
    return {outcome.clause.name: outcome.verdict for outcome in run_contract(make, clauses)}


def named(name: str) -> Clause:
    return next(clause for clause in CLAUSES if clause.name == name)


@pytest.mark.parametrize(
    ("broken", "name"),
    [pytest.param(cls, name, id=f"{cls.__name__}-{name}") for cls, names in BROKEN for name in names],
)
def test_a_broken_service_is_caught(broken: type[Sound], name: str) -> None:
    """Each service that is broken on purpose fails the clause that is about it."""
    assert verdicts(broken, [named(name)]) == {name: "FAIL"}


def test_each_clause_catches_something() -> None:
    """There is no clause that all services keep, however broken."""
    caught = {name for _, names in BROKEN for name in names}
    assert {clause.name for clause in CLAUSES} - caught == set()


def test_a_sound_service_with_all_powers_passes() -> None:
    """Nothing fails, and only the clauses for services without a capability are skipped."""
    found = verdicts(Sound)
    assert [name for name, verdict in found.items() if verdict == "FAIL"] == []
    assert {name for name, verdict in found.items() if verdict == "skip"} == {
        name for name in found if name.startswith("without-")
    }


def test_the_smallest_service_passes() -> None:
    """Three methods are enough; each clause about a capability is skipped, and its negative one is not."""
    found = verdicts(Smallest)
    assert [name for name, verdict in found.items() if verdict == "FAIL"] == []
    skipped = {name for name, verdict in found.items() if verdict == "skip"}
    assert skipped == {clause.name for clause in CLAUSES if clause.needs}
    assert len([name for name in found if name.startswith("without-")]) == len(POWERS)


def test_a_power_without_the_one_that_extends_it() -> None:
    """Who only reads chunks, or only lists items, has some methods of a capability that it lacks, and may."""

    class Part(Smallest, ChunkSource, Inventory):
        def has_chunk(self, digest: B3Digest) -> bool:
            return self._behind.has_chunk(digest)

        def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
            return self._behind.get_chunk(digest, size)

        def list_items(self) -> Iterator[StoredItem]:
            return self._behind.list_items()

        def set_aside(self, item: StoredItem) -> str:
            return self._behind.set_aside(item)

    class Further(Part):
        def held_since(self) -> None:
            pass

    assert [name for name, verdict in verdicts(Part).items() if verdict == "FAIL"] == []
    assert [name for name, verdict in verdicts(Further).items() if verdict == "FAIL"] == ["without-sweepable"]


def test_clauses_may_share_a_service_that_is_not_empty() -> None:
    """The clauses, run twice over one service, pass: a bucket need not be emptied in between."""
    service = Sound()
    assert set(verdicts(lambda: service).values()) == {"ok", "skip"}
    assert set(verdicts(lambda: service).values()) == {"ok", "skip"}


def test_faulty_service_without_faults_is_no_different() -> None:
    """A `FaultyService` passes on everything, capabilities included, until it is told to fail."""
    assert verdicts(lambda: FaultyService(Sound())) == verdicts(Sound)
    assert verdicts(lambda: FaultyService(Sound(), capabilities=False)) == verdicts(Smallest)
