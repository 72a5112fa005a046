"""Storing bytes, a file and many files in any service.

Through a `ChunkStore`, where the service has one, so that every service is as fast as its parts: a large blob
goes through a pipeline, a known one is only hashed, and small ones go together, in few calls and with few
flushes. A service that keeps no chunks is written to by its own writers.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
from blake3 import blake3

from castore.buffers import byte_view, new_buffer
from castore.chunks.writer import ChunkedWriter, put_uncut
from castore.contract.batches import CALLS_AT_ONCE, MOST_BYTES, MOST_ITEMS, batches
from castore.contract.blobs import BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import ChunkStore
from castore.contract.chunk_list import ChunkList
from castore.contract.inputs import (
    READINGS,
    InputBytes,
    InputFile,
    Interruptible,
    Storable,
    open_input,
    read_beginning,
)
from castore.digest import B3Digest
from castore.errors import CorruptBlobError, SourceChangedError, SourceError
from castore.format.blob_index import same_list, size_of
from castore.format.chunking import Chunker, settled_cuts
from castore.threads import forks
from castore.threads.pool import Pool, Task, process_pool
from castore.threads.waiting import Bell

if TYPE_CHECKING:
    from typing_extensions import Buffer

Path: TypeAlias = "str | os.PathLike[str]"
Progress: TypeAlias = "Callable[[int], object] | None"

_PIECE: Final = 4 << 20
"""How many bytes are hashed at a time: enough for all cores, and no more than their caches hold."""

_FILES_TOGETHER: Final = 256
"""A call for each file would cost more than the file; with many more, threads would wait for each other."""

_FEW_FILES: Final = 32
"""So few have their indexes before anything could be taken for garbage."""

_CALLS_UNDER_WAY: Final = 2

_MOST_PROVED: Final = 64 << 20
"""Up to so many bytes all chunks of a known file are compared with it."""

_CHUNKS_PROVED: Final = 62
"""So many of a larger one are, beside the first and the last."""


def store_bytes(service: BlobService, data: Buffer) -> B3Digest:
    """Store *data* as one blob; return its digest."""
    view = byte_view(data)
    store = service.capability(ChunkStore)
    if store is None:
        # As a file, which a writer can read again if it has to begin anew.
        return _write(service.open_write(), InputBytes(view), None)
    chunker = store.new_chunker()
    if len(view) <= chunker.min_size:
        return put_uncut(store, view)
    with ChunkedWriter(store, chunker) as writer:
        writer.write(view)
        return writer.close()


def store_each(service: BlobService, blobs: Mapping[B3Digest, bytes]) -> None:
    """Store small blobs, given by their digests: together, in calls as few as for many small files.

    What is there already is claimed, and lasts as if it had just been stored.
    """
    store = service.capability(ChunkStore)
    if store is None:
        write = partial(store_bytes, service)
        values = blobs.values()
        at_once = service.high_latency
        written = (
            process_pool().io_pool.map(write, values, most=CALLS_AT_ONCE) if at_once else map(write, values)
        )
        deque(written, maxlen=0)
        return
    limit = store.new_chunker().min_size
    small = {digest: data for digest, data in blobs.items() if len(data) <= limit}
    with store.lease(brief=True) as leased:
        for batch in batches(small, lambda digest: len(small[digest])):
            known = leased.claim_blobs(dict.fromkeys(batch, ()))
            others = set(batch) - known
            there = leased.claim(others) if others else set()
            if lacking := {digest: small[digest] for digest in others - there if small[digest]}:
                leased.put_chunks(lacking)
            # Of none as well: what was claimed lasts from here on.
            leased.put_indexes(dict.fromkeys(others, ()))
    for digest, data in blobs.items():
        if digest not in small:
            store_bytes(service, data)


def store_file(service: BlobService, source: Storable, progress: Progress = None) -> B3Digest:
    """Store a file as `BlobService.put_file`; one that is there already is hashed, and little more."""
    store = service.capability(ChunkStore)
    with open_input(source, _check_of(service)) as file:
        for left in reversed(range(READINGS)):
            told = _Told(progress)
            try:
                return _store_open_file(service, store, file, told.note)
            except SourceChangedError:
                told.take_back()
                if not left:
                    raise
                file.rewind()
        raise AssertionError("the last reading returns or raises")


class _Told:
    """What a caller was told of bytes that are done, which may turn out not to be."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._count = 0

    def note(self, count: int) -> None:
        self._count += count
        if self._progress is not None:
            self._progress(count)

    def take_back(self) -> None:
        if self._progress is not None and self._count:
            self._progress(-self._count)


def _store_open_file(
    service: BlobService, store: ChunkStore | None, file: InputFile, progress: Progress
) -> B3Digest:
    if store is None:
        return _write(service.open_write(), file, progress)
    chunker = store.new_chunker()
    known = _find_known(service, store, chunker, file)
    if known is None:
        return _write(ChunkedWriter(store, chunker), file, progress)
    digest, size = known
    if progress is not None:
        progress(size)
    return digest


def _check_of(service: BlobService) -> Callable[[], None] | None:
    """Return what raises if the work was given up, where it can be."""
    interruptible = service.capability(Interruptible)
    return None if interruptible is None else interruptible.check


def _write(writer: BlobWriter, file: InputFile, progress: Progress) -> B3Digest:
    with writer:
        while count := writer.fill(file):
            if progress is not None:
                progress(count)
        file.require_unchanged()
        digest = writer.close()
    # Some writers read it once more when their store has failed.
    file.require_unchanged()
    return digest


def store_files(
    service: BlobService, paths: Iterable[Path], progress: Progress = None
) -> Iterator[B3Digest | SourceError]:
    """Store many files; see `BlobService.put_files`."""
    store = service.capability(ChunkStore)
    if store is not None and store.round > 1:
        yield from _SmallFiles(service, store).put(paths, progress)
    elif store is None and service.high_latency:
        yield from _store_at_once(service, paths, progress)
    else:
        for path in paths:
            yield _store_one(service, path, progress)


def _store_one(service: BlobService, path: Path, progress: Progress) -> B3Digest | SourceError:
    try:
        return store_file(service, path, progress)
    except SourceError as error:
        return error


def _store_at_once(
    service: BlobService, paths: Iterable[Path], progress: Progress
) -> Iterator[B3Digest | SourceError]:
    def store(path: Path) -> tuple[B3Digest | SourceError, int]:
        sizes: list[int] = []
        return _store_one(service, path, sizes.append), sum(sizes)

    for outcome, size in process_pool().io_pool.map(store, paths, most=CALLS_AT_ONCE):
        # By the thread that asks: it need not be prepared for others.
        if progress is not None and size:
            progress(size)
        yield outcome


# -- known content --


def _find_known(
    service: BlobService, store: ChunkStore, chunker: Chunker, file: InputFile
) -> tuple[B3Digest, int] | None:
    """Return the digest and size of a file whose blob is in *store*; `None` if it has to be stored.

    A file is only worth hashing first if it is probably known. That its first chunk is there says so, and
    costs one look-up; a new file is then stored without having been read for nothing, and stands at its start
    again. Files smaller than a chunk can be are not worth the question.

    That the store lists chunks for the digest does not say that they make up the file. So a small one is cut
    while it is hashed, and if that list is another one it is read again by the list of the store, which may
    have been cut by somebody else. In a large one some chunks are looked for, as to read all of it once more
    would cost as much as to hash it.
    """
    if file.size is None or file.size < chunker.max_size:
        return None
    # In front there is space for what a piece cannot settle.
    memory = new_buffer(chunker.max_size + max(_PIECE, chunker.max_size))
    buffer = memory[chunker.max_size :]
    head = buffer[: chunker.max_size]
    known = None
    if file.fill(head) == len(head):
        with store.lease(brief=True) as leased:
            first = B3Digest.of(head[: next(chunker.cut(head))])
            if first in leased.claim((first,)):
                count = len(head) + file.fill(buffer[len(head) :])
                hashing = _FileHash(file, chunker if file.size <= _MOST_PROVED else None, chunker.max_size)
                _hash(hashing, memory, count, store.pool)
                file.require_unchanged()
                digest = hashing.digest()
                chunks = _list_of(service, digest)
                if (
                    chunks is not None
                    and (
                        same_list(chunks, hashing.chunks)
                        or _makes_up(chunks, file, hashing.size, buffer, store.pool)
                    )
                    and digest in leased.claim_blobs({digest: chunks})
                ):
                    known = digest, hashing.size
                    leased.put_indexes({})  # what was claimed lasts from here on
    if known is None:
        file.rewind()
    return known


def _list_of(service: BlobService, digest: B3Digest) -> Sequence[ChunkMeta] | None:
    """Return the chunks of a blob, `None` if it is absent, or its index cannot be right."""
    try:
        return service.chunks(digest)
    except CorruptBlobError:
        return None


def _makes_up(
    chunks: Sequence[ChunkMeta], file: InputFile, size: int, buffer: memoryview, pool: Pool
) -> bool:
    """Tell whether a file has these chunks in this order; none are one chunk, whose digest is the file's."""
    if not chunks:
        return True
    if size_of(chunks) != size:
        return False
    if size > _MOST_PROVED:
        return _has_some(chunks, file)
    file.rewind()
    for some in batches(chunks, lambda meta: meta.size, most_bytes=len(buffer)):
        count = sum(meta.size for meta in some)
        # One chunk may be larger than what this store cuts.
        read = buffer[:count] if count <= len(buffer) else new_buffer(count)
        if file.fill(read) < count:
            return False
        ends = list(accumulate(meta.size for meta in some))
        parts = [(meta, read[end - meta.size : end]) for meta, end in zip(some, ends, strict=True)]
        if not all(pool.map(_is_chunk, parts)):
            return False
    return True


def _has_some(chunks: Sequence[ChunkMeta], file: InputFile) -> bool:
    """Tell whether a file has the first and the last of its chunks, and some others, where they should be."""
    others = random.sample(range(1, len(chunks) - 1), min(_CHUNKS_PROVED, len(chunks) - 2))
    wanted = {0, len(chunks) - 1, *others}
    position = 0
    for number, meta in enumerate(chunks):
        if number in wanted and B3Digest.of(file.read_at(position, meta.size)) != meta.digest:
            return False
        position += meta.size
    return True


def _is_chunk(part: tuple[ChunkMeta, memoryview]) -> bool:
    return B3Digest.of(part[1]) == part[0].digest


def _hash(hashing: _FileHash, memory: memoryview, count: int, pool: Pool) -> None:
    """Hash what is in the buffer, and all that follows."""
    hashing.take_first(memory, count)
    if hashing.ended:
        return
    helper = pool.submit(lambda: hashing.take_part(new_buffer(len(memory))))
    try:
        hashing.take_part(memory)
        helper.result()
    except BaseException:
        hashing.stop()
        helper.drop()
        raise


class _FileHash:
    """The digest of a file, made by two threads that each read a piece and then hash it, in turn.

    So one reads while the other hashes, and what is hashed is in the caches of the core that has read it. It
    makes no difference to the result if one of them comes late, or not at all.

    Arguments:
        file: It is read to its end.
        chunker: Cuts it as well, if that is to be known.
        reserve: How many bytes of each buffer are for what the piece before could not settle.
    """

    def __init__(self, file: InputFile, chunker: Chunker | None, reserve: int) -> None:
        self._file = file
        self._chunker = chunker
        self._reserve = reserve
        self._reading = forks.new_lock()
        self.ended = False
        """Whether the file has been read to its end, or nothing more is to be read."""
        self._pieces = 0
        self._hasher = blake3()
        self._rest = b""
        self.size = 0
        # All that follows is changed under this one.
        self._lock = forks.new_lock()
        self._changed = Bell(self._lock)
        self._hashed = 0
        self._stopped = False
        self._cut: dict[int, list[ChunkMeta]] = {}
        self._listed = 0
        self.chunks = ChunkList()
        """What it was cut into."""

    def take_first(self, memory: memoryview, count: int) -> None:
        """Hash a piece that was read already, of so many bytes; it is the last one if there is space left."""
        self.ended = count < len(memory) - self._reserve
        self._pieces = 1
        self._take(0, memory, count, final=self.ended)

    def take_part(self, memory: memoryview) -> None:
        """Read and hash pieces until none is left; raises `SourceError`."""
        while self._take_piece(memory):
            pass

    def _take_piece(self, memory: memoryview) -> bool:
        with self._reading:
            if self.ended:
                return False
            self.ended = True  # if this fails
            count = self._file.fill(memory[self._reserve :])
            self.ended = final = count < len(memory) - self._reserve
            number = self._pieces
            self._pieces += 1
        # The next one reads while this one hashes, in the order in which they were read.
        self._changed.wait_for(lambda: self._hashed == number or self._stopped)
        if self._stopped:
            return False
        self._take(number, memory, count, final=final)
        return True

    def _take(self, number: int, memory: memoryview, count: int, *, final: bool) -> None:
        """Hash a piece whose turn it is; its chunks after that, when it is the turn of the next one."""
        self._hasher.update(memory[self._reserve : self._reserve + count])
        self.size += count
        parts = self._cut_piece(memory, count, final=final) if self._chunker is not None else []
        with self._lock:
            self._hashed += 1
            self._changed.ring()
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        with self._lock:
            self._cut[number] = metas
            while (some := self._cut.pop(self._listed, None)) is not None:
                self.chunks.add([meta.digest for meta in some], [meta.size for meta in some])
                self._listed += 1

    def _cut_piece(self, memory: memoryview, count: int, *, final: bool) -> list[memoryview]:
        """Return the chunks that begin in what was left, or in this piece, and are settled."""
        assert self._chunker is not None
        start = self._reserve - len(self._rest)
        memory[start : self._reserve] = self._rest
        view = memory[start : self._reserve + count]
        ends = list(accumulate(settled_cuts(self._chunker, view, final=final)))
        self._rest = bytes(view[ends[-1] if ends else 0 :])
        return [view[begin:end] for begin, end in zip((0, *ends), ends, strict=False)]

    def stop(self) -> None:
        """Let nobody begin another piece; when it returns nobody uses the file."""
        with self._reading:
            self.ended = True
        with self._lock:
            self._stopped = True
            self._changed.ring()

    def digest(self) -> B3Digest:
        return B3Digest(self._hasher.digest())


# -- many small files --


@attrs.frozen
class _Small:
    """A file that is stored but for its index."""

    digest: B3Digest
    size: int


@attrs.frozen
class _Special:
    """A pipe, or what else can be read only once: it is stored."""

    digest: B3Digest


_Large: TypeAlias = None
_Outcome: TypeAlias = "_Small | _Special | SourceError | _Large"


class _Round:
    """Files that become visible together, and the store that keeps their chunks meanwhile."""

    def __init__(self, paths: Sequence[Path], store: ChunkStore) -> None:
        self.paths = paths
        self.outcomes: list[_Outcome] = []
        self.known: set[B3Digest] = set()
        """The digests of blobs that need no index any more."""
        self._lease = ExitStack()
        self.store = self._lease.enter_context(store.lease(brief=len(paths) <= _FEW_FILES))
        self.read = False
        """Whether all of them were read, and what stores their chunks has begun."""
        self.indexing: Task[None] | None = None

    def put_indexes(self) -> None:
        """Make all small files visible; their chunks are stored."""
        small = {outcome.digest for outcome in self.outcomes if isinstance(outcome, _Small)}
        if small:
            self.store.put_indexes(dict.fromkeys(small - self.known, ()))

    def end(self) -> None:
        """Drop what is not done, and give the lease back."""
        try:
            if self.indexing is not None:
                self.indexing.drop()
        finally:
            self._lease.close()


class _SmallFiles:
    """Stores the files of a list that cannot be cut together, and others one by one.

    The thread that asks reads the files, hashes them and looks which of them the store has; the pool
    compresses and writes those that are new. Of a small file there is more Python than there are bytes, and
    threads that each did all of it would mostly wait for each other. A store of high latency is asked by the
    pool as well.
    """

    def __init__(self, service: BlobService, store: ChunkStore) -> None:
        self._service = service
        self._store = store
        self._pool = store.pool
        self._check = _check_of(service)
        self._limit = store.new_chunker().min_size
        self._together = MOST_ITEMS if store.high_latency else _FILES_TOGETHER
        self._ended = False
        self._rounds: deque[_Round] = deque()
        """Two at most: while the indexes of one are put, the files of the next are stored."""
        self._calls: deque[tuple[_Round, Task[None]]] = deque()
        """The calls that store chunks of their files. No thread but the one that asks waits for these."""

    def put(self, paths: Iterable[Path], progress: Progress) -> Iterator[B3Digest | SourceError]:
        """Yield the digest of each file in order, or the error of one that cannot be read."""
        remaining = iter(paths)
        size = max(min(self._store.round, MOST_ITEMS), 1)
        try:
            while True:
                some = list(islice(remaining, size))
                if some:
                    self._rounds.append(_Round(some, self._store))
                    self._store_files(self._rounds[-1], progress)
                if len(self._rounds) > bool(some):
                    yield from self._finish_first(progress)
                if not some:
                    return
        finally:
            self._end()

    def _finish_first(self, progress: Progress) -> Iterator[B3Digest | SourceError]:
        """Wait until the files of the oldest round are visible; yield their digests."""
        done = self._rounds[0]
        while done.indexing is None:
            self._wait_for_call()
        done.indexing.result()
        self._rounds.popleft().end()
        for path, outcome in zip(done.paths, done.outcomes, strict=True):
            yield self._finish(path, outcome, progress)

    def _end(self) -> None:
        """Drop all that is under way; a task that has begun makes no further call to the store."""
        self._ended = True
        with ExitStack() as stack:
            for round_ in self._rounds:
                stack.callback(round_.end)
            # First: what they store is to be kept until they have ended.
            for _, task in self._calls:
                stack.callback(task.drop)
            self._calls.clear()

    # -- calls for many --

    def _begin_call(self, round_: _Round, call: Callable[[], None]) -> None:
        """Let the pool make a call, as soon as one fewer than may be is under way."""
        while len(self._calls) >= _CALLS_UNDER_WAY:
            self._wait_for_call()
        self._calls.append((round_, self._pool.submit(call)))

    def _wait_for_call(self) -> None:
        """Wait for the oldest call, after whose end the indexes of its round may be put."""
        round_, task = self._calls[0]
        task.result()
        self._calls.popleft()
        self._begin_indexing(round_)

    def _begin_indexing(self, round_: _Round) -> None:
        """Let the indexes of a round be put, if the chunks of all its files are stored."""
        if round_.read and all(other is not round_ for other, _ in self._calls):
            round_.indexing = self._pool.submit(round_.put_indexes)

    # -- the files of a round --

    def _store_files(self, round_: _Round, progress: Progress) -> None:
        """Read the files, and let those that are new be stored."""
        found: dict[B3Digest, bytes] = {}
        size = 0
        for path in round_.paths:
            outcome, data = self._read(path, progress)
            if data and (size + len(data) > MOST_BYTES or len(found) == self._together):
                self._store_together(round_, found)
                found, size = {}, 0
            round_.outcomes.append(outcome)
            if isinstance(outcome, _Small) and data:
                found[outcome.digest] = data
                size += len(data)
        if found:
            self._store_together(round_, found)
        round_.read = True
        self._begin_indexing(round_)

    def _read(self, path: Path, progress: Progress) -> tuple[_Outcome, bytes]:
        """Return what a file is, and its bytes if it is small."""
        if self._check is not None:
            self._check()
        try:
            data = read_beginning(path, self._limit + 1)
            if not isinstance(data, bytes):
                with data:
                    return _Special(store_file(self._service, data, progress)), b""
        except SourceError as error:
            return error, b""
        if len(data) > self._limit:
            return None, b""
        return _Small(B3Digest.of(data), len(data)), data

    def _store_together(self, round_: _Round, found: dict[B3Digest, bytes]) -> None:
        if self._store.high_latency:
            self._begin_call(round_, partial(self._store_lacking, round_, found))
        elif lacking := self._lacking(round_, found):
            self._begin_call(round_, partial(round_.store.put_chunks, lacking))

    def _store_lacking(self, round_: _Round, found: dict[B3Digest, bytes]) -> None:
        lacking = self._lacking(round_, found)
        if lacking and not self._ended:
            round_.store.put_chunks(lacking)

    def _lacking(self, round_: _Round, found: dict[B3Digest, bytes]) -> dict[B3Digest, bytes]:
        """Return those files of which the store has no chunk; take note of those that need no index."""
        known = round_.store.claim_blobs(dict.fromkeys(found, ()))
        round_.known |= known
        others = found.keys() - known
        there = known | (round_.store.claim(others) if others and not self._ended else set())
        return {digest: data for digest, data in found.items() if digest not in there}

    def _finish(self, path: Path, outcome: _Outcome, progress: Progress) -> B3Digest | SourceError:
        if outcome is None:
            return _store_one(self._service, path, progress)
        if isinstance(outcome, SourceError):
            return outcome
        if isinstance(outcome, _Special):
            return outcome.digest
        if progress is not None:
            progress(outcome.size)
        return outcome.digest
