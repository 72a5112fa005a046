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
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest

from castore.chunks.backend import ChunkBackend
from castore.contract.batches import MOST_UNKNOWN
from castore.contract.blobs import Answer, BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FoundChunks,
    FrameStore,
    SharedPlace,
)
from castore.contract.inputs import InputFile
from castore.contract.upkeep import (
    DigestRange,
    Evictable,
    Inventory,
    ItemKind,
    Pinning,
    StoredItem,
    Sweepable,
)
from castore.digest import EMPTY, B3Digest
from castore.errors import CorruptBlobError, OversizedFrameError, SourceError, WriterClosedError
from castore.format.blob_index import same_list
from castore.format.checks import check_size
from castore.format.chunking import Chunker, FastCdc2020
from castore.format.frames import compress, decode_chunk
from castore.streams.readers import BytesReader
from castore.testing import CLAUSES, Clause, FaultyService, Hides, run_contract
from castore.threads.pool import Pool
from castore.wrapping.wrapper import SelectiveService, WrapperService

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Whole(BlobService, BlobLister, BlobDeleter):
    """Keeps blobs whole, and every clause. Broken services without chunks differ from it in one thing."""

    reader: Callable[[bytes], BlobReader] = BytesReader
    writer: Callable[[Whole], BlobWriter]

    def __init__(self) -> None:
        self.blobs: dict[B3Digest, bytes] = {}

    def has(self, digest: B3Digest) -> bool:
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return type(self).reader(self.blobs[digest]) if digest in self.blobs else None

    def open_write(self) -> BlobWriter:
        return type(self).writer(self)

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        """Keep what a writer gathered."""
        data = b"".join(pieces)
        self.keep(B3Digest.of(data), data)
        return B3Digest.of(data)

    def keep(self, digest: B3Digest, data: bytes) -> None:
        self.blobs[digest] = data

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from list(self.blobs)

    def delete(self, digest: B3Digest) -> bool:
        return self.blobs.pop(digest, None) is not None


class WholeWriter(BlobWriter):
    def __init__(self, service: Whole) -> None:
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


Whole.writer = WholeWriter


class Sound(  # type: ignore[misc]
    ChunkBackend,
    BlobLister,
    BlobDeleter,
    FrameStore,
    Sweepable,
    Evictable,
    Pinning,
    SharedPlace,
    EvictionEvents,
    Durable,
):
    """A service with every capability, and keeps each clause. Broken ones differ from it in one thing."""

    most: int | None = None
    """How many chunks it keeps before it evicts some."""

    def __init__(self) -> None:
        self.parts: dict[B3Digest, bytes] = {}
        self.indexes: dict[B3Digest, tuple[ChunkMeta, ...]] = {}
        self.times: dict[str, float] = {}
        self.aside: list[StoredItem] = []
        self.leases: list[float] = []
        self.kept: Counter[B3Digest] = Counter()
        """What is leased or pinned, and how often."""
        self.places: set[B3Digest] = set()
        self.callbacks: list[Callable[[B3Digest], None]] = []
        # A clock of its own, by which much time goes by between any two things.
        self.clock = itertools.count(1_000_000_000)

    # -- chunks --

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self.parts.keys() & set(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return {digest: self.checked(digest, sizes[digest]) for digest in sizes if digest in self.parts}

    def checked(self, digest: B3Digest, size: int | None) -> bytes | CorruptBlobError:
        data = self.parts[digest]
        try:
            check_size(digest, len(data), size)
        except CorruptBlobError as error:
            return error
        if size is None and len(data) > MOST_UNKNOWN:
            return OversizedFrameError("too large", expected=digest)
        return data

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        for digest, data in chunks.items():
            self.parts[digest] = bytes(data)
            self.renew("chunk", digest)
        self.evict()

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        for digest, chunks in blobs.items():
            if digest == EMPTY:
                self.parts[digest] = b""
            self.indexes[digest] = tuple(chunks) if len(chunks) > 1 else ()
            self.renew("index", digest)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return self.indexes.get(digest, () if digest in self.parts else None)

    def renew(self, kind: str, digest: B3Digest) -> None:
        """Note that something was put or claimed now."""
        self.times[f"{kind} {digest}"] = float(next(self.clock))

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        found = self.find_chunks(digests)
        for digest in found:
            self.renew("chunk", digest)
        return found

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return {digest for digest, chunks in blobs.items() if self.claim_whole(digest, chunks)}

    def claim_whole(self, digest: B3Digest, chunks: Sequence[ChunkMeta] | None = None) -> bool:
        found = self.indexes.get(digest)
        if found is None or not (chunks is None or same_list(found, chunks)):
            return False
        self.renew("index", digest)
        needed = self.needs(digest)
        return needed <= self.claim(needed)

    def needs(self, digest: B3Digest) -> set[B3Digest]:
        return {meta.digest for meta in self.indexes.get(digest, ())} or {digest}

    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        since = float(next(self.clock))
        self.leases.append(since)
        leased = Leased(self)
        try:
            yield leased
        finally:
            self.leases.remove(since)
            self.kept -= leased.kept

    def leased_since(self) -> float | None:
        return min(self.leases, default=None)

    # -- blobs --

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from list(self.indexes)

    def delete(self, digest: B3Digest) -> bool:
        self.parts.pop(digest, None)
        return self.indexes.pop(digest, None) is not None

    # -- frames --

    @property
    def frame_format(self) -> str:
        return "zstd"

    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        return {digest: compress(self.parts[digest]) for digest in self.find_chunks(digests)}

    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        self.put_chunks({digest: decode_chunk(frame, digest) for digest, frame in frames.items()})

    # -- upkeep --

    def list_items(self) -> Iterator[StoredItem]:
        for digest in list(self.indexes):
            yield self.item("index", digest)
        for digest in list(self.parts):
            yield self.item("chunk", digest)

    def item(self, kind: ItemKind, digest: B3Digest) -> StoredItem:
        key = f"{kind} {digest}"
        size = 40 * len(self.indexes[digest]) if kind == "index" else len(self.parts[digest])
        return StoredItem(kind, key, digest, size, modified=self.times.get(key))

    def take_out(self, item: StoredItem) -> bool:
        place: dict[Any, Any] = self.indexes if item.kind == "index" else self.parts
        return place.pop(item.digest, None) is not None

    def set_aside(self, item: StoredItem) -> str:
        self.take_out(item)
        self.aside.append(item)
        return f"aside {len(self.aside)} {item.key}"

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        for item in items:
            if self.times[item.key] < older_than and self.take_out(item):
                yield item

    def stored_items(self) -> Iterator[StoredItem]:
        return self.list_items()

    def find_items(self, kind: ItemKind, digests: Iterable[B3Digest]) -> Mapping[B3Digest, StoredItem]:
        place: Mapping[B3Digest, Any] = self.indexes if kind == "index" else self.parts
        return {digest: self.item(kind, digest) for digest in digests if digest in place}

    def remove(self, items: Iterable[StoredItem]) -> None:
        for item in items:
            self.take_out(item)

    # -- evicting --

    def evict(self) -> None:
        while self.most is not None and len(self.parts) > self.most:
            victim = next((digest for digest in self.parts if not self.kept[digest]), None)
            if victim is None:
                return
            del self.parts[victim]
            for digest in [blob for blob in self.indexes if victim in self.needs(blob)]:
                del self.indexes[digest]
            for callback in self.callbacks:
                callback(victim)

    @contextlib.contextmanager
    def pin(self, digests: Collection[B3Digest]) -> Iterator[None]:
        pinned = Counter(digests)
        self.kept += pinned
        yield
        self.kept -= pinned

    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback) if callback in self.callbacks else None

    # -- beside other processes --

    @contextlib.contextmanager
    def try_alone(self, digests: Collection[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        alone = frozenset(digests) - self.places
        self.places |= alone
        yield alone
        self.places -= alone

    @property
    def durability(self) -> Literal["process", "full"]:
        return "process"


class Leased(ChunkStore):
    """A lease of a `Sound` store: keeps what goes through it from being evicted."""

    def __init__(self, service: Sound) -> None:
        self.service = service
        self.kept: Counter[B3Digest] = Counter()

    def keep(self, digests: Iterable[B3Digest]) -> None:
        more = Counter(set(digests))
        self.kept += more
        self.service.kept += more

    @property
    def pool(self) -> Pool:
        return self.service.pool

    def new_chunker(self) -> Chunker:
        return self.service.new_chunker()

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self.service.find_chunks(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return self.service.get_chunks(sizes)

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        found = self.service.claim(digests)
        self.keep(found)
        return found

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        found = self.service.claim_blobs(blobs)
        self.keep(chunk for digest in found for chunk in self.service.needs(digest))
        return found

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        self.keep(chunks)
        self.service.put_chunks(chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self.service.put_indexes(blobs)

    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        return self.service.lease(brief=brief)


class Bounded(Sound):
    """Keeps few chunks, beside those that are leased or pinned."""

    most = 30


BROKEN: list[tuple[Callable[[], BlobService], tuple[str, ...]]] = []


def caught_by(*names: str) -> Callable[[type[BlobService]], type[BlobService]]:
    """Enter a broken service into the table."""

    def add(cls: type[BlobService]) -> type[BlobService]:
        BROKEN.append((cls, names))
        return cls

    return add


def caught_reader(*names: str) -> Callable[[type[BlobReader]], type[BlobReader]]:
    """Enter a service whose readers are broken."""

    def add(cls: Any) -> type[BlobReader]:
        BROKEN.append((type(cls.__name__, (Whole,), {"reader": cls}), names))
        return cls  # type: ignore[no-any-return]

    return add


def caught_writer(*names: str) -> Callable[[type[WholeWriter]], type[WholeWriter]]:
    """Enter a service whose writers are broken."""

    def add(cls: type[WholeWriter]) -> type[WholeWriter]:
        BROKEN.append((type(cls.__name__, (Whole,), {"writer": cls}), names))
        return cls

    return add


# -- storing --


@caught_by("absent-has-false")
class HasEverything(Whole):
    def has(self, digest: B3Digest) -> bool:
        return True


@caught_by("absent-chunks-none")
class AbsentHasNoChunks(Whole):
    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return ()


@caught_by("absent-open-read-none")
class AbsentIsEmpty(Whole):
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return super().open_read(digest) or BytesReader(b"")


@caught_by("absent-read-raises")
class PlainKeyError(Whole):
    def read(self, digest: B3Digest) -> bytes:
        return self.blobs[digest]


@caught_by("absent-open-raises")
class OpensNothing(Whole):
    def open(self, digest: B3Digest) -> BlobReader:
        return self.open_read(digest)


@caught_by("put-then-get")
class LosesTheEnd(Whole):
    def keep(self, digest: B3Digest, data: bytes) -> None:
        super().keep(digest, data[: 2 << 20])


@caught_by("put-then-get")
class LosesTheLastChunk(Sound):
    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        super().put_indexes({digest: chunks[:-1] for digest, chunks in blobs.items()})


@caught_by("put-then-get")
class AnotherHash(Whole):
    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        return B3Digest(hashlib.sha256(b"".join(pieces)).digest())


@caught_by("put-twice")
class RefusesTwice(Whole):
    def keep(self, digest: B3Digest, data: bytes) -> None:
        if digest in self.blobs:
            raise FileExistsError(str(digest))
        super().keep(digest, data)


@caught_by("empty-blob")
class ForgetsEmpty(Whole):
    def keep(self, digest: B3Digest, data: bytes) -> None:
        if data:
            super().keep(digest, data)


@caught_by("many-blobs")
class ByTheirBeginning(Whole):
    def keep(self, digest: B3Digest, data: bytes) -> None:
        for other, known in self.blobs.items():
            if data[:16] == known[:16]:
                self.blobs[other] = data
        super().keep(digest, data)


@caught_by("digest-is-a-value")
class ByIdentity(Whole):
    def __init__(self) -> None:
        super().__init__()
        self.known: list[B3Digest] = []

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        self.known.append(super().store(pieces))
        return self.known[-1]

    def has(self, digest: B3Digest) -> bool:
        return any(digest is known for known in self.known)


@caught_by("missing-tells-the-absent")
class MissingIsAList(Whole):
    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return [digest for digest in digests if not self.has(digest)]


@caught_by("missing-tells-the-absent")
class MissesTheFirstHundred(Whole):
    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return super().missing(list(digests)[:100])


@caught_by("missing-agrees-with-has")
class MissesChunks(Sound):
    """Has chunks, but says that they are missing."""

    def has(self, digest: B3Digest) -> bool:
        return digest in self.parts or digest in self.indexes

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return {digest for digest in digests if digest not in self.indexes}


@caught_by("read-many-gives-each-once")
class ReadsManyTwice(Whole):
    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        return ((digest, self.open_read(digest)) for digest in digests)


@caught_by("read-many-gives-each-once")
class ReadsManyWithoutTheAbsent(Whole):
    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        return (found for found in super().read_many(digests) if found[1] is not None)


@caught_by("read-many-gives-each-once")
class ReadsManyInTheEnd(Whole):
    """Closes a reader before it can be read."""

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        for digest, answer in super().read_many(digests):
            if isinstance(answer, BlobReader):
                answer.close()
            yield digest, answer


@caught_by("read-many-gives-small-blobs-as-bytes")
class ReadsManyByReaders(Sound):
    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        return ((digest, self.open_read(digest)) for digest in dict.fromkeys(digests))


@caught_by("close-twice")
class ClosesOnce(Whole):
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
class OneReader(Whole):
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
class FourMegabytes(Whole):
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        reader = super().open_read(digest)
        return None if reader is None else BytesReader(reader.read(4 << 20))


# -- writing --


@caught_writer("write-takes-all")
class TakesSome(WholeWriter):
    def write(self, data: Buffer, /) -> int:
        return super().write(memoryview(data).cast("B")[:65_536])


@caught_writer("write-takes-any-buffer")
class CountsItems(WholeWriter):
    def write(self, data: Buffer, /) -> int:
        super().write(data)
        return len(data) if isinstance(data, array.array) else memoryview(data).nbytes


@caught_writer("pieces-make-no-difference")
class KeepsLastPiece(WholeWriter):
    def write(self, data: Buffer, /) -> int:
        self.pieces.clear()
        return super().write(data)


@caught_writer("buffer-may-be-reused")
class KeepsTheBuffer(WholeWriter):
    def write(self, data: Buffer, /) -> int:
        count = super().write(data)
        self.pieces[-1] = data  # type: ignore[call-overload]
        return count


@caught_writer("fill-takes-what-it-reads")
class FillsOnlyFull(WholeWriter):
    def fill(self, source: InputFile) -> int:
        buffer = memoryview(bytearray(100_000))
        return self.write(buffer) if source.readinto(buffer) == len(buffer) else 0


@caught_writer("fill-takes-what-it-reads")
class CountsTheRest(WholeWriter):
    def fill(self, source: InputFile) -> int:
        return min(super().fill(source), 50_000)


@caught_writer("fill-takes-what-it-reads")
class FillsAfterTheEnd(WholeWriter):
    def fill(self, source: InputFile) -> int:
        return 0 if self.digest else super().fill(source)


@caught_writer("invisible-before-close", "put-file-that-breaks")
class ShowsItEarly(WholeWriter):
    def write(self, data: Buffer, /) -> int:
        count = super().write(data)
        self.service.store(self.pieces)
        return count


@caught_writer("with-block-closes")
class LeavesItOpen(WholeWriter):
    def __exit__(self, *_: object) -> None:
        pass


@caught_writer("close-is-idempotent")
class ClosesAnew(WholeWriter):
    def close(self) -> B3Digest:
        self.digest = None
        digest = super().close()
        self.pieces.clear()
        return digest


@caught_writer("abort-leaves-nothing")
class AbortCloses(WholeWriter):
    def abort(self) -> None:
        self.close()


@caught_writer("exception-aborts", "put-file-that-breaks")
class AlwaysCloses(WholeWriter):
    def __exit__(self, *_: object) -> None:
        self.close()


@caught_writer("abort-after-close-does-nothing")
class AbortTakesBack(WholeWriter):
    def abort(self) -> None:
        if self.digest is not None:
            self.service.delete(self.digest)
        super().abort()


@caught_writer("write-after-the-end-raises")
class IgnoresTheEnd(WholeWriter):
    def write(self, data: Buffer, /) -> int:
        return memoryview(data).nbytes if self.digest else super().write(data)


@caught_by("writers-are-independent")
class OneWriter(Whole):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def open_write(self) -> BlobWriter:
        writer = WholeWriter(self)
        writer.pieces = self.pieces
        return writer

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        digest = super().store(pieces)
        self.pieces.clear()
        return digest


# -- sources --


@caught_by("put-file-by-path")
class PathsOnly(Whole):
    def put_file(self, source: Any, **kwargs: Any) -> B3Digest:
        return super().put_file(source if hasattr(source, "read") else source.absolute(), **kwargs)


@caught_by("put-file-from-a-stream")
class Rewinds(Whole):
    def put_file(self, source: Any, **kwargs: Any) -> B3Digest:
        if hasattr(source, "seek"):
            source.seek(0)
        return super().put_file(source, **kwargs)


@caught_by("put-file-that-is-not-there")
class BareOSError(Whole):
    def put_file(self, source: Any, **kwargs: Any) -> B3Digest:
        try:
            return super().put_file(source, **kwargs)
        except SourceError as error:
            raise error.__cause__ or error from None


@caught_by("put-file-that-is-known")
class KnowsItWithoutProgress(Whole):
    """Says nothing of a file that it has found to be there."""

    def put_file(self, source: Any, *, progress: Any = None) -> B3Digest:
        data = source.read() if hasattr(source, "read") else source.read_bytes()
        return super().put_file(io.BytesIO(data), progress=None if self.has(B3Digest.of(data)) else progress)


@caught_by("put-files-in-order")
class StopsAtTheUnreadable(Whole):
    def put_files(self, paths: Any, **kwargs: Any) -> Iterator[B3Digest | SourceError]:
        return (self.put_file(path, **kwargs) for path in paths)


@caught_by("put-files-in-order")
class SmallFilesFirst(Whole):
    def put_files(self, paths: Any, **kwargs: Any) -> Iterator[B3Digest | SourceError]:
        return super().put_files(sorted(paths, key=lambda path: path.name), **kwargs)


@caught_by("put-files-new-and-known")
class ClaimsAllBlobs(Sound):
    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return set(blobs)


@caught_by("put-files-in-order")
class PutsFilesOnce(Whole):
    def put_files(self, paths: Any, **kwargs: Any) -> Iterator[B3Digest | SourceError]:
        return iter(dict.fromkeys(super().put_files(paths, **kwargs)))


@caught_by("files-go-through-the-chunk-store")
class FindsOnlySmallChunks(Sound):
    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return {digest for digest in super().find_chunks(digests) if len(self.parts[digest]) < 100_000}


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
    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set(digests) - self.indexes.keys()


# -- threads --


@caught_by(
    "threads-write-one-blob",
    "threads-write-many-blobs",
    "threads-read-one-blob",
    "threads-read-what-others-write",
)
class OneThread(Whole):
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


# -- hiding --


@caught_by("absent-through-every-door")
class ClaimsWhatItLacks(Sound):
    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return {digest for digest, chunks in blobs.items() if chunks is None or self.claim_whole(digest)}


@caught_by("absent-through-every-door")
class HasFramesOfAll(Sound):
    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        return {digest: compress(self.parts.get(digest, b"")) for digest in digests}


@caught_by("unfinished-through-every-door", "list-without-aborted")
class ListsDrafts(Whole):
    def __init__(self) -> None:
        super().__init__()
        self.writers: list[WholeWriter] = []

    def open_write(self) -> BlobWriter:
        self.writers.append(WholeWriter(self))
        return self.writers[-1]

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from {B3Digest.of(b"".join(writer.pieces)) for writer in self.writers}


@caught_by("deleted-through-every-door")
class DeletesOnlyIndexes(Sound):
    """Has it no more, and gives its chunk all the same."""

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        needed = {chunk for blob in self.indexes for chunk in self.needs(blob)}
        return set(digests) - needed - self.indexes.keys()

    def delete(self, digest: B3Digest) -> bool:
        return self.indexes.pop(digest, None) is not None


@caught_by("hidden-through-every-door", "listed-is-there", "items-are-there", "evictable-items-are-there")
class HidesWithoutThought(WrapperService, Hides):
    """Overrides what it knows of, and passes on capabilities through which all of it comes out."""

    def __init__(self) -> None:
        super().__init__(Sound())
        self.hidden = {self.inner.write(b"a secret")}

    def hidden_blobs(self) -> Iterable[B3Digest]:
        return self.hidden

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        wanted = set(digests)
        return super().missing(wanted) | (wanted & self.hidden)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return None if digest in self.hidden else super().open_read(digest)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        return None if digest in self.hidden else super().chunks(digest)


# -- capabilities --


@caught_by("capabilities-are-real")
class SaysYes(Whole):
    def capability(self, kind: Any) -> Any:
        return True


@caught_by("denied-capabilities-are-not-there")
class DeniesAll(Sound):
    def capability(self, kind: Any) -> Any:
        return None


@caught_by("denied-capabilities-are-not-there")
class HasAMethodTooMuch(Whole):
    def on_evict(self, callback: Any) -> None:
        pass


@caught_by("list-has-each-blob-once")
class ListsEachPut(Whole):
    def __init__(self) -> None:
        super().__init__()
        self.puts: list[B3Digest] = []

    def store(self, pieces: Sequence[bytes]) -> B3Digest:
        self.puts.append(super().store(pieces))
        return self.puts[-1]

    def list_blobs(self) -> Iterator[B3Digest]:
        yield from self.puts


@caught_by("complete-finds-what-begins-so")
class CompletesWithAll(Whole):
    def complete(self, digits: str) -> Iterator[B3Digest]:
        return self.list_blobs()


@caught_by("complete-finds-what-begins-so")
class CompletesWholeDigestsAlone(Whole):
    def complete(self, digits: str) -> Iterator[B3Digest]:
        return (digest for digest in self.list_blobs() if digest.hex() == digits)


@caught_by("delete-removes")
class DeletesNothing(Whole):
    def delete(self, digest: B3Digest) -> bool:
        return digest in self.blobs


@caught_by("delete-removes")
class DeletesSharedChunks(Sound):
    def delete(self, digest: B3Digest) -> bool:
        for meta in self.indexes.get(digest, ()):
            self.parts.pop(meta.digest, None)
        return super().delete(digest)


@caught_by("eviction-events-can-be-ended")
class NoWayToEnd(Sound):
    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        return None


@caught_by("shared-place-lets-one-alone")
class NobodyIsAlone(Sound):
    def try_alone(self, digests: Collection[B3Digest]) -> Any:
        return contextlib.nullcontext(frozenset())


@caught_by("shared-place-lets-one-alone")
class EverybodyIsAlone(Sound):
    def try_alone(self, digests: Collection[B3Digest]) -> Any:
        return contextlib.nullcontext(frozenset(digests))


@caught_by("shared-place-lets-one-alone")
class AllOrNothing(Sound):
    @contextlib.contextmanager
    def try_alone(self, digests: Collection[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        with super().try_alone(digests) as alone:
            yield alone if len(alone) == len(digests) else frozenset()


@caught_by("durability-is-stated")
class VeryDurable(Sound):
    @property
    def durability(self) -> Literal["process", "full"]:
        return "very"


# -- chunks --


@caught_by("chunk-source-reads-chunks")
class UnsizedOnly(Sound):
    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return super().get_chunks({digest: size for digest, size in sizes.items() if size is None})


@caught_by("chunk-source-leaves-out-the-absent")
class RaisesForAbsent(Sound):
    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return {digest: self.checked(digest, size) for digest, size in sizes.items()}


@caught_by("chunk-source-leaves-out-the-absent")
class NoneForAbsent(Sound):
    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return {**dict.fromkeys(sizes), **super().get_chunks(sizes)}


@caught_by("chunk-source-leaves-out-the-absent")
class TakesSizesOfOneKind(Sound):
    """Gives those whose sizes are known, and the others only if there are none of these."""

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        known = {digest: size for digest, size in sizes.items() if size is not None}
        return super().get_chunks(known or sizes)


@caught_by("chunk-source-gives-wrong-sizes-as-errors")
class AnySize(Sound):
    def checked(self, digest: B3Digest, size: int | None) -> bytes | CorruptBlobError:
        return self.parts[digest]


@caught_by("chunk-source-gives-wrong-sizes-as-errors")
class RaisesTheFirstError(Sound):
    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        found = super().get_chunks(sizes)
        for data in found.values():
            if isinstance(data, CorruptBlobError):
                raise data
        return found


@caught_by("chunk-source-bounds-what-it-does-not-know")
class TakesAnySize(Sound):
    def checked(self, digest: B3Digest, size: int | None) -> bytes | CorruptBlobError:
        return self.parts[digest] if size is None else super().checked(digest, size)


@caught_by("chunk-store-keeps-chunks")
class KeepsTheChunkBuffer(Sound):
    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        self.parts |= {digest: memoryview(data) for digest, data in chunks.items()}

    def checked(self, digest: B3Digest, size: int | None) -> bytes | CorruptBlobError:
        return bytes(super().checked(digest, size))


@caught_by("chunk-store-shows-a-blob-by-its-index")
class IndexIsASet(Sound):
    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        super().put_indexes({digest: list(dict.fromkeys(chunks)) for digest, chunks in blobs.items()})


@caught_by("chunk-store-takes-no-index-for-a-chunk")
class FindsIndexes(Sound):
    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return {digest for digest in digests if digest in self.parts or digest in self.indexes}


@caught_by("chunk-store-takes-no-index-for-a-chunk")
class GivesBlobsAsChunks(Sound):
    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        blobs = {digest: self.read(digest) for digest in sizes if self.indexes.get(digest)}
        return {**super().get_chunks(sizes), **blobs}


@caught_by("chunk-store-takes-the-last-index")
class KeepsTheFirstIndex(Sound):
    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        super().put_indexes(
            {digest: chunks for digest, chunks in blobs.items() if digest not in self.indexes}
        )


@caught_by("chunk-store-takes-the-last-index")
class ClaimsByTheChunksAlone(Sound):
    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return super().claim_blobs(dict.fromkeys(blobs))


@caught_by("chunk-store-takes-many-indexes")
class TakesTheFirstOfMany(Sound):
    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        super().put_indexes(dict(itertools.islice(blobs.items(), 1)))


@caught_by("chunk-store-takes-full-batches")
class HasRoomForAThousand(Sound):
    """As a database that takes so many values in a statement."""

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return super().find_chunks(itertools.islice(digests, 1000))


@caught_by("chunk-store-takes-full-batches")
class KeepsTheFirstOfMany(Sound):
    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        super().put_chunks(dict(itertools.islice(chunks.items(), 1000)))


@caught_by("chunk-store-takes-small-blobs")
class NeedsTwoChunks(Sound):
    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        super().put_indexes({digest: chunks for digest, chunks in blobs.items() if len(chunks) > 1})


@caught_by("chunk-store-takes-small-blobs", "chunk-store-may-be-told-again")
class TakesNothingTwice(Sound):
    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        assert EMPTY not in blobs
        assert not blobs.keys() & self.indexes.keys()
        super().put_indexes(blobs)


@caught_by("chunk-store-may-be-told-again")
class ClaimsOnce(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.claimed: set[B3Digest] = set()

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        found = super().claim(digests) - self.claimed
        self.claimed |= found
        return found


@caught_by("chunk-source-takes-empty-batches", "chunk-store-takes-empty-batches")
class NeedsAnItem(Sound):
    """As SQL, where `IN ()` is an error."""

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        wanted = list(digests)
        assert wanted
        return super().find_chunks(wanted)


@caught_by("chunk-store-takes-empty-batches")
class NeedsAChunk(Sound):
    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        assert chunks
        super().put_chunks(chunks)


@caught_by("single-chunks-agree-with-many")
class HasOneChunkOfAll(Sound):
    def has_chunk(self, digest: B3Digest) -> bool:
        return True


@caught_by("single-writes-agree-with-many")
class ClaimsOneOfAll(Sound):
    def claim_chunk(self, digest: B3Digest) -> bool:
        return True


@caught_by("chunk-store-says-how-it-works")
class SaysItCutsSmaller(Sound):
    """Cuts what it stores in another way than it says."""

    asked = 0

    def new_chunker(self) -> Chunker:
        self.asked += 1
        return FastCdc2020(4096) if self.asked == 1 else super().new_chunker()


@caught_by("chunk-store-says-how-it-works")
class TakesRoundsOfNone(Sound):
    round = 0


# -- keeping --


@caught_by("frames-are-read")
class BareFrames(Sound):
    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        return {digest: self.parts[digest] for digest in self.find_chunks(digests)}


@caught_by("frames-are-read")
class EmptyFrames(Sound):
    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        wanted = list(digests)
        return {**dict.fromkeys(wanted, b""), **super().get_frames(wanted)}


@caught_by("frames-put-are-chunks", "frames-mend-chunks")
class DropsFrames(Sound):
    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        pass


@caught_by("frames-put-are-chunks")
class PacksFramesAgain(Sound):
    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        self.put_chunks(frames)


@caught_by("claim-tells-what-is-there")
class ClaimsEverything(Sound):
    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set(digests)


@caught_by("claim-tells-what-is-there")
class ClaimsNothing(Sound):
    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return set()


@caught_by("claim-tells-what-is-there")
class ClaimsWhatHasItsChunks(Sound):
    """Takes a blob for there if its chunks are, though nobody has put an index."""

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        known = {digest: {meta.digest for meta in chunks or ()} for digest, chunks in blobs.items()}
        whole = {digest for digest, needed in known.items() if needed and needed <= self.claim(needed)}
        return whole | super().claim_blobs(blobs)


@caught_by("claim-of-blobs-tells-what-is-there")
class ClaimsWhatIsBesideIt(Sound):
    """Takes the whole batch for there if one of it is."""

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return set(blobs) if super().claim_blobs(blobs) else set()


@caught_by("claim-of-blobs-tells-blobs-from-chunks")
class TakesChunksForBlobs(Sound):
    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return super().claim_blobs(blobs) | self.claim(blobs)


@caught_by("claims-see-what-is-gone")
class ClaimsBlobsByTheirIndexes(Sound):
    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return blobs.keys() & self.indexes.keys()


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
            self.indexes.setdefault(digest, ())
            yield self.item("index", digest)
        yield from (item for item in super().list_items() if item.kind == "chunk")


@caught_by("parts-have-each-item-once")
class ListsPartsThatOverlap(Sound):
    def list_items_in(self, part: DigestRange) -> Iterator[StoredItem]:
        return super().list_items_in(DigestRange(part.first))


@caught_by("parts-have-each-item-once")
class ListsOnlyChunksOfAPart(Sound):
    def list_items_in(self, part: DigestRange) -> Iterator[StoredItem]:
        return (item for item in super().list_items_in(part) if item.kind == "chunk")


@caught_by("items-say-what-they-are")
class ListsChunksFirst(Sound):
    def list_items(self) -> Iterator[StoredItem]:
        return iter(sorted(super().list_items(), key=lambda item: item.kind))


@caught_by("items-say-what-they-are")
class ListsNoDigests(Sound):
    def list_items(self) -> Iterator[StoredItem]:
        return (StoredItem(item.kind, item.key) for item in super().list_items())


@caught_by("set-aside-is-absent", "claims-see-what-is-gone", "frames-mend-chunks")
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


@caught_by("sweep-leaves-the-young", "leased-stays")
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


# -- leases --


@caught_by("lease-gives-a-store")
class LeaseOfNothing(Sound):
    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        return contextlib.nullcontext()


@caught_by("lease-gives-a-store")
class LeaseOfAnother(Sound):
    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        return contextlib.nullcontext(Sound())


@caught_by("lease-gives-a-store")
class OneLease(Sound):
    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        assert not self.leases
        with super().lease() as leased:
            yield leased


@caught_by("lease-lets-errors-through")
class SwallowsErrors(Sound):
    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        with contextlib.suppress(Exception), super().lease() as leased:
            yield leased


@caught_by("lease-lets-errors-through")
class TakesBackAfterErrors(Sound):
    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        before = dict(self.parts)
        try:
            with super().lease() as leased:
                yield leased
        except Exception:
            self.parts = before
            raise


@caught_by("claimed-is-young-again", "leased-stays")
class ForgetsClaims(Sound):
    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self.find_chunks(digests)


@caught_by("claimed-is-young-again", "leased-stays")
class ForgetsClaimedBlobs(Sound):
    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return blobs.keys() & self.indexes.keys()


@caught_by("claimed-is-young-again")
class BelievesTheList(Sound):
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        for item in items:
            if (item.modified or 0) < older_than and self.take_out(item):
                yield item


@caught_by("leased-stays")
class LeasesSinceNow(Sound):
    """Says that a lease began when it is asked."""

    def leased_since(self) -> float | None:
        return float(next(self.clock) + 100) if self.leases else None


@caught_by("leased-since-the-first")
class LeasedForever(Sound):
    def leased_since(self) -> float | None:
        return super().leased_since() or 0.0


@caught_by("leased-since-the-first", "leased-stays")
class NeverLeased(Sound):
    def leased_since(self) -> float | None:
        return None


@caught_by("leased-since-the-first")
class LeasedSinceTheLast(Sound):
    def leased_since(self) -> float | None:
        return max(self.leases, default=None)


@caught_by("leased-since-the-first")
class LeasedSinceTheBeginning(Sound):
    def leased_since(self) -> float | None:
        return 0.0 if self.leases else None


# -- keeping it within bounds --


@caught_by("evictable-tells-sizes")
class TellsNoSizes(Sound):
    def item(self, kind: ItemKind, digest: B3Digest) -> StoredItem:
        return StoredItem(kind, f"{kind} {digest}", digest, modified=self.times.get(f"{kind} {digest}"))


@caught_by("evictable-tells-sizes")
class FindsWhatIsAbsent(Sound):
    def find_items(self, kind: ItemKind, digests: Iterable[B3Digest]) -> Mapping[B3Digest, StoredItem]:
        wanted = list(digests)
        made = {digest: StoredItem(kind, f"{kind} {digest}", digest, 0) for digest in wanted}
        return {**made, **super().find_items(kind, wanted)}


@caught_by("evictable-tells-sizes")
class FindsTheFirst(Sound):
    def find_items(self, kind: ItemKind, digests: Iterable[B3Digest]) -> Mapping[B3Digest, StoredItem]:
        return dict(list(super().find_items(kind, digests).items())[:1])


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


@caught_by("pinning-may-come-first")
class PinsOnlyWhatIsThere(Sound):
    @contextlib.contextmanager
    def pin(self, digests: Collection[B3Digest]) -> Iterator[None]:
        if self.missing(digests):
            raise KeyError(digests)
        yield


@caught_by("pinning-may-come-first")
class ForgetsWhenUnpinned(Sound):
    @contextlib.contextmanager
    def pin(self, digests: Collection[B3Digest]) -> Iterator[None]:
        yield
        for digest in digests:
            self.delete(digest)


@caught_by("pinned-is-not-evicted")
class PinsTheFirst(Bounded):
    def pin(self, digests: Collection[B3Digest]) -> contextlib.AbstractContextManager[None]:
        return super().pin(list(digests)[:1])


@caught_by("leased-is-not-evicted")
class EvictsWhatIsPut(Bounded):
    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        return contextlib.nullcontext(self)


@caught_by("leased-is-not-evicted")
class EvictsWhatIsClaimed(Bounded):
    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        with super().lease() as leased:
            leased.claim = self.claim
            yield leased


# -- hiding on purpose --

FOUND = {"find_chunks", "claim", "claim_blobs"}
GIVEN = {"get_chunks", "get_frames", "find_items", "find_unflushed"}
LISTED = {"list_blobs", "complete", "list_items", "list_items_in", "stored_items"}
DENIED = {"chunks": None, "open_read": None, "delete": False}


class Vault(Sound):
    def find_unflushed(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, bytes]:
        return {digest: self.parts[digest] for digest in sizes if digest in self.parts}


class Tenant(Vault, Hides):
    """Hides two blobs, through every door but the one that `leaks`."""

    leaks: str | None = None

    def __init__(self) -> None:
        super().__init__()
        # The same blobs, with nothing hidden.
        self.vault = Vault.__new__(Vault)
        self.vault.__dict__ = self.__dict__
        self.hidden = {self.vault.write(b"a secret"), self.vault.write(bytes(range(251)) * 3000)}

    def hidden_blobs(self) -> Iterable[B3Digest]:
        return self.hidden

    def __getattribute__(self, name: str) -> Any:
        if name not in {*FOUND, *GIVEN, *LISTED, *DENIED}:
            return super().__getattribute__(name)
        method = getattr(self.vault, name)
        return method if name == self.leaks else hiding(name, method, self.hidden)

    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        return self.vault.lease(brief=brief) if self.leaks == "lease" else super().lease(brief=brief)


def hiding(name: str, method: Callable[..., Any], hidden: set[B3Digest]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if name in DENIED:
            return DENIED[name] if args[0] in hidden else method(*args)
        answer = method(*args)
        if name in FOUND:
            return answer - hidden
        if name in GIVEN:
            return {digest: each for digest, each in answer.items() if digest not in hidden}
        return (each for each in answer if getattr(each, "digest", each) not in hidden)

    return call


class Selective(SelectiveService, Hides):
    """Hides a blob of a service with every capability, and lists a capability that it can answer for."""

    def __init__(self) -> None:
        super().__init__(Sound())
        self.hidden = {self.inner.write(b"a secret")}

    def hidden_blobs(self) -> Iterable[B3Digest]:
        return self.hidden

    def listed(self) -> Mapping[type, Callable[[], Any]]:
        return {BlobLister: lambda: Listing(self)}

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        wanted = set(digests)
        return self.inner.missing(wanted) | (wanted & self.hidden)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return None if digest in self.hidden else self.inner.open_read(digest)

    def open_write(self) -> BlobWriter:
        return self.inner.open_write()


class Listing(BlobLister):
    def __init__(self, service: Selective) -> None:
        self.service = service

    def list_blobs(self) -> Iterator[B3Digest]:
        return (digest for digest in self.service.inner.list_blobs() if digest not in self.service.hidden)


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


def those(found: Mapping[str, str], verdict: str) -> set[str]:
    return {name for name, each in found.items() if each == verdict}


def named(*names: str) -> list[Clause]:
    return [clause for clause in CLAUSES if clause.name in names]


@pytest.mark.parametrize(
    ("broken", "name"),
    [pytest.param(cls, name, id=f"{cls.__name__}-{name}") for cls, names in BROKEN for name in names],
)
def test_a_broken_service_is_caught(broken: type[BlobService], name: str) -> None:
    """Each service that is broken on purpose fails the clause that is about it."""
    assert verdicts(broken, named(name)) == {name: "FAIL"}


def test_each_clause_catches_something() -> None:
    """There is no clause that all services keep, however broken."""
    caught = {name for _, names in BROKEN for name in names}
    assert {clause.name for clause in CLAUSES} - caught == set()


def test_sound_services_pass() -> None:
    """With every capability or with hardly any nothing fails; only what needs a capability is skipped."""
    everything = verdicts(Sound)
    assert those(everything, "FAIL") == set()
    assert those(everything, "skip") == {"hidden-through-every-door"}
    whole = verdicts(Whole)
    assert those(whole, "FAIL") == set()
    assert those(whole, "skip") == {
        clause.name for clause in CLAUSES if set(clause.needs) - {BlobLister, BlobDeleter}
    }
    smallest = verdicts(Smallest)
    assert those(smallest, "FAIL") == set()
    assert those(smallest, "skip") == {clause.name for clause in CLAUSES if clause.needs}


def test_services_that_evict_pass() -> None:
    """What is leased or pinned stays in a service that keeps little else, and some is evicted indeed."""
    clauses = named("pinned-is-not-evicted", "leased-is-not-evicted", "eviction-events-can-be-ended")
    evicted: list[B3Digest] = []

    class Telling(Bounded):
        def __init__(self) -> None:
            super().__init__()
            self.on_evict(evicted.append)

    assert set(verdicts(Telling, clauses).values()) == {"ok"}
    assert evicted


@pytest.mark.parametrize("leaks", ["lease", *sorted({*FOUND, *GIVEN, *LISTED, *DENIED})])
def test_one_door_is_enough_to_leak(leaks: str) -> None:
    """A service that hides a blob by every door but one gives it out by that, and is caught."""
    leaking = type("Leaking", (Tenant,), {"leaks": leaks})
    assert verdicts(leaking, named("hidden-through-every-door")) == {"hidden-through-every-door": "FAIL"}


@pytest.mark.parametrize("hiding", [Tenant, Selective])
def test_services_that_hide_pass(hiding: type[BlobService]) -> None:
    """Whatever is hidden, by every door that there is, no clause takes offence."""
    found = verdicts(hiding)
    assert those(found, "FAIL") == set()
    assert found["hidden-through-every-door"] == "ok"


def test_a_capability_without_the_one_that_extends_it() -> None:
    """Who only reads chunks, or only lists items, has some methods of a capability that it lacks, and may."""

    class Part(Smallest, ChunkSource, Inventory):
        def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
            return self._behind.find_chunks(digests)

        def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
            return self._behind.get_chunks(sizes)

        def list_items(self) -> Iterator[StoredItem]:
            return self._behind.list_items()

        def set_aside(self, item: StoredItem) -> str:
            return self._behind.set_aside(item)

    class Further(Part):
        def leased_since(self) -> None:
            pass

    assert those(verdicts(Part), "FAIL") == set()
    assert those(verdicts(Further), "FAIL") == {"denied-capabilities-are-not-there"}


def test_clauses_may_share_a_service_that_is_not_empty() -> None:
    """The clauses, run twice over one service, pass: a bucket need not be emptied in between."""
    service = Sound()
    assert set(verdicts(lambda: service).values()) == {"ok", "skip"}
    assert set(verdicts(lambda: service).values()) == {"ok", "skip"}


def test_faulty_service_without_faults_is_no_different() -> None:
    """A `FaultyService` passes on everything, capabilities included, until it is told to fail."""
    assert verdicts(lambda: FaultyService(Sound())) == verdicts(Sound)
    assert verdicts(lambda: FaultyService(Sound(), capabilities=False)) == verdicts(Smallest)
