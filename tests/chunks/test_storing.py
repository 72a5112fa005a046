"""Storing files: known ones are only hashed, small ones go together, and nothing is left of a failure."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta, SourceError, UnavailableError
from castore.chunks import pipeline, storing
from castore.contract.capabilities import ChunkStore
from castore.contract.chunk_list import ChunkList
from castore.contract.inputs import InputFile
from castore.errors import BatchError
from castore.format.chunking import Chunker, FastCdc2020
from castore.streams.writers import GuardedWriter
from castore.threads.pool import Pool
from castore_memory.service import MemoryBlobService

if TYPE_CHECKING:
    from typing_extensions import Buffer

MIB = 1 << 20
PIECE = 16 << 10
CHUNKER = FastCdc2020(4 << 10)
RANDOM = random.Random(11).randbytes(3 * MIB)


@pytest.fixture(params=[0, 1, 3], ids=lambda size: f"{size} threads")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Pools of several sizes."""
    pool = Pool(request.param)
    yield pool
    pool.close()


# -- known content --


class File(io.BytesIO):
    """Reads some bytes at a time, after a call of *before*; counts reads, and those that have not ended."""

    reads = under_way = 0

    def before(self, position: int) -> None:
        """May fail."""

    def readinto(self, buffer: Any, /) -> int:
        self.reads += 1
        self.under_way += 1
        try:
            self.before(self.tell())
            return super().readinto(buffer[:5000])
        finally:
            self.under_way -= 1


def put_counted(store: Any, file: CountedFile) -> B3Digest:
    return storing._store_open_file(
        store, store, InputFile(file, "the file", size=len(file.getvalue())), None
    )


class CountedFile(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def readinto(self, buffer: Any, /) -> int:
        found = super().readinto(buffer)
        self.count += found
        return found


class TestKnownContent:
    """A file is hashed by two threads in turn: the digest is right, and an error ends both, with any pool."""

    @pytest.fixture(autouse=True)
    def _small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storing, "_PIECE", PIECE)

    @pytest.fixture
    def find(self, bare: Any) -> Callable[..., tuple[B3Digest, int] | None]:
        """Look for a file, all of which can be read, where all chunks are, and some blobs."""

        class Store(bare):  # type: ignore[misc]
            def find_chunks(self, digests: Any) -> set[B3Digest]:
                return set(self._note("find_chunks", digests))

            def chunks(self, digest: B3Digest) -> Any:
                return self.lists.get(digest)

            def claim_blobs(self, blobs: Mapping[B3Digest, Any]) -> set[B3Digest]:
                assert all(chunks is self.lists[digest] for digest, chunks in blobs.items())
                return set(blobs)

        def find(file: File, pool: Pool, *blobs: bytes) -> tuple[B3Digest, int] | None:
            self.store = Store(pool)
            self.store.put_indexes({B3Digest.of(blob): () for blob in blobs})
            self.store.calls.clear()
            source = InputFile(file, "the file", size=len(file.getvalue()))
            return storing._find_known(self.store, self.store, CHUNKER, source)

        return find

    @pytest.mark.parametrize("size", [PIECE, PIECE + 1, 5 * PIECE - 1, 5 * PIECE, 40 * PIECE + 77])
    def test_the_digest_is_that_of_the_file(self, find: Any, pool: Pool, size: int) -> None:
        """However many pieces there are, and whoever takes them. What is claimed lasts."""
        data = random.Random(size).randbytes(size)
        assert find(File(data), pool, data) == (B3Digest.of(data), size)
        assert self.store.calls[-1] == ("put_indexes", [])

    def test_another_file_is_not_known(self, find: Any, pool: Pool) -> None:
        """It has been read to its end, and is at its start again."""
        data = random.Random(1).randbytes(9 * PIECE)
        file = File(data)
        assert find(file, pool, data + b"!") is None
        assert file.tell() == 0
        assert self.store.count("put_indexes") == 0

    @pytest.mark.parametrize("failing_at", [PIECE, 2 * PIECE, 2 * PIECE + 5000, 8 * PIECE])
    def test_a_file_that_cannot_be_read(self, find: Any, pool: Pool, failing_at: int) -> None:
        """The error comes out, whoever has met it, and nobody reads on."""

        def fail(position: int) -> None:
            if position >= failing_at:
                raise OSError(5, "Input/output error")

        data = random.Random(2).randbytes(9 * PIECE)
        file = File(data)
        file.before = fail  # type: ignore[method-assign]
        with pytest.raises(SourceError, match="cannot read 'the file': Input/output error"):
            find(file, pool, data)
        reads = file.reads
        pool.close()
        assert file.reads == reads

    def test_what_one_cannot_read_the_other_does_not_try(self, find: Any) -> None:
        """Beyond it there is nothing of use."""
        failed = threading.Event()

        def fail(position: int) -> None:
            if position >= 3 * PIECE:
                if threading.current_thread() is not threading.main_thread():
                    failed.set()
                    raise OSError(5, "Input/output error")
                if position < 6 * PIECE:
                    failed.wait(0.01)  # Let the other one come to it.

        data = random.Random(3).randbytes(400 * PIECE)
        file = File(data)
        file.before = fail  # type: ignore[method-assign]
        pool = Pool(1)
        with pytest.raises(SourceError):
            find(file, pool, data)
        pool.close()
        assert file.tell() < len(data)

    def test_the_thread_that_asks_is_interrupted(
        self, find: Any, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other one ends soon, not only with the file; and before the file may be closed."""

        class Interrupted:
            """A hasher that the thread of the tests cannot use, as if Ctrl-C were pressed."""

            AUTO = -1

            def __init__(self, *_: Any, **__: Any) -> None:
                pass

            def update(self, view: memoryview) -> None:
                if threading.current_thread() is threading.main_thread():
                    raise KeyboardInterrupt

        monkeypatch.setattr(storing, "blake3", Interrupted)
        data = random.Random(4).randbytes(400 * PIECE)
        file = File(data)
        file.before = lambda position: time.sleep(0.001)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            find(file, pool, data)
        assert not file.under_way
        assert file.tell() < len(data)
        reads = file.reads
        pool.close()
        assert file.reads == reads

    def test_while_the_other_one_hashes(self, find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The interrupted thread waits until the other one has ended."""
        begun, ended = threading.Event(), threading.Event()

        class Hasher:
            AUTO = -1

            def __init__(self, *_: Any, **__: Any) -> None:
                pass

            def update(self, view: memoryview) -> None:
                if threading.current_thread() is not threading.main_thread():
                    begun.set()
                    time.sleep(0.1)
                    ended.set()

        def interrupt(position: int) -> None:
            if (
                threading.current_thread() is threading.main_thread()
                and position >= PIECE
                and begun.wait(0.05)
            ):
                raise KeyboardInterrupt

        monkeypatch.setattr(storing, "blake3", Hasher)
        data = random.Random(4).randbytes(400 * PIECE)
        file = File(data)
        file.before = interrupt  # type: ignore[method-assign]
        pool = Pool(1)
        with pytest.raises(KeyboardInterrupt):
            find(file, pool, data)
        assert ended.is_set()
        pool.close()

    def test_a_pool_that_is_busy_is_not_waited_for(self, find: Any) -> None:
        """The thread that asks does all of it alone."""
        data = random.Random(4).randbytes(9 * PIECE)
        pool, going_on = Pool(1), threading.Event()
        busy = pool.submit(going_on.wait)
        try:
            assert find(File(data), pool, data) == (B3Digest.of(data), len(data))
        finally:
            going_on.set()
            busy.result()
            pool.close()

    def test_small_files_are_not_asked_for(self, find: Any) -> None:
        """Those that could be one chunk."""
        data = b"x" * (CHUNKER.max_size - 1)
        file = File(data)
        assert find(file, Pool(0), data) is None
        assert not file.reads
        assert self.store.calls == []

    def test_a_file_whose_first_chunk_is_new_is_not_hashed(self) -> None:
        """Only its beginning has been read."""
        data = random.Random(5).randbytes(9 * PIECE)
        file, store = File(data), MemoryBlobService()
        assert storing._find_known(store, store, CHUNKER, InputFile(file, "it", size=len(data))) is None
        assert file.reads == -(-CHUNKER.max_size // 5000)
        assert file.tell() == 0


class TestOneFile:
    @pytest.fixture(params=[False, True], ids=["at hand", "far"])
    def store(self, request: pytest.FixtureRequest, bare: Any) -> Any:
        return bare(high_latency=request.param)

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A file of several chunks."""
        path = tmp_path / "file"
        path.write_bytes(RANDOM)
        return path

    def test_a_known_file_is_hashed_and_no_more(self, store: Any, file: Path) -> None:
        """Its first chunk, its list, twice, and its chunks are asked for; nothing is sent."""
        digest = store.put_file(file)
        store.calls.clear()
        assert store.put_file(file) == digest == B3Digest.of(RANDOM)
        assert [(name, len(digests)) for name, digests in store.calls] == [
            ("find_chunks", 1),
            ("chunks", 1),
            ("chunks", 1),
            ("find_chunks", len(store.lists[digest])),
            ("put_indexes", 0),
        ]

    @pytest.mark.parametrize("size", [600 << 10, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB])
    @pytest.mark.parametrize("threads", [0, 2])
    def test_a_known_file_is_read_once(self, size: int, threads: int) -> None:
        """It is cut while it is hashed, and its chunks are those that the store lists."""
        data = random.Random(size).randbytes(size)
        pool = Pool(threads)
        store = MemoryBlobService()
        # A new one is read from its start again after the look at its first chunk.
        for first in (512 << 10, 0):
            file = CountedFile(data)
            assert put_counted(store, file) == B3Digest.of(data)
            assert file.count == size + first
        pool.close()

    @pytest.mark.parametrize("threads", [0, 2])
    def test_one_that_somebody_else_has_cut_is_read_twice(self, threads: int, bare: Any) -> None:
        """Its chunks are looked for where the list says; with a wrong list it is not known."""
        pool = Pool(threads)
        store = bare(pool)
        data = RANDOM
        digest = store.write(data)
        begins = [0, *range(store.lists[digest][0].size, len(data), 100_000)]
        parts = [data[begin:end] for begin, end in itertools.pairwise([*begins, len(data)])]
        metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
        store.put_chunks({meta.digest: part for meta, part in zip(metas, parts, strict=True)})
        for wrong in (False, True):
            store.lists[digest] = ChunkList([*reversed(metas)] if wrong else metas)
            store.calls.clear()
            file = CountedFile(data)
            assert put_counted(store, file) == digest
            assert store.digests("put_indexes") == ([digest] if wrong else [])
            assert file.count >= len(data) + (metas[-1].size if wrong else len(data))
        pool.close()

    def test_a_new_file_costs_one_question_more(self, store: Any, file: Path) -> None:
        """That for its first chunk."""
        digest = store.put_file(file)
        assert store.calls[0] == ("find_chunks", [store.lists[digest][0].digest])
        assert store.calls[1][0] == "find_chunks"
        puts = store.count("put_chunks")
        assert store.count("find_chunks") == 1 + puts
        assert puts == (1 if store.high_latency else 3)
        assert store.calls[-1] == ("put_indexes", [digest])

    def test_a_small_file_costs_three_calls(self, store: Any, file: Path) -> None:
        """One that could not be cut is not asked for before."""
        file.write_bytes(RANDOM[:1000])
        digest = store.put_file(file)
        assert store.calls == [
            ("find_chunks", [digest]),
            ("put_chunks", [digest]),
            ("put_indexes", [digest]),
        ]
        store.calls.clear()
        store.write(RANDOM[:1000])
        assert [name for name, _ in store.calls] == ["find_chunks", "put_indexes"]

    def test_a_file_that_begins_like_a_known_one(self, store: Any, file: Path) -> None:
        """Its first chunk is there, its blob is not: it is stored from its start."""
        store.put_file(file)
        other = RANDOM[:-1] + b"!"
        file.write_bytes(other)
        seen: list[int] = []
        assert store.put_file(file, progress=seen.append) == B3Digest.of(other)
        assert store.read(B3Digest.of(other)) == other
        assert sum(seen) == len(other)
        seen.clear()
        store.put_file(file, progress=seen.append)
        assert seen == [len(other)]

    def test_a_blob_of_which_a_chunk_is_gone_is_stored_again(self, store: Any, file: Path) -> None:
        digest = store.put_file(file)
        gone = store.lists[digest][4].digest
        del store.kept[gone]
        store.calls.clear()
        assert store.put_file(file) == digest
        assert store.digests("put_chunks") == [gone]
        assert store.read(digest) == RANDOM


# -- no call has more than a batch --


@pytest.mark.parametrize("high_latency", [False, True])
class TestBatches:
    def check(self, store: Any, *, items: int) -> None:
        assert max(len(digests) for _, digests in store.calls) == items
        assert store.largest <= 16 * MIB

    def test_tiny_chunks(self, bare: Any, high_latency: bool, tmp_path: Path) -> None:
        """There are 8,000 of them in 4 MiB."""

        class Tiny(bare):  # type: ignore[misc]
            def new_chunker(self) -> Chunker:
                return FastCdc2020(512)

        pool = Pool(2)
        store = Tiny(pool, high_latency=high_latency)
        data = RANDOM + RANDOM[::-1][:MIB]
        (tmp_path / "file").write_bytes(data)
        digest = store.put_file(tmp_path / "file")
        assert store.most_under_way <= 2
        self.check(store, items=1024)
        store.calls.clear()
        assert store.put_file(tmp_path / "file") == digest
        self.check(store, items=1024)
        assert store.read(digest) == data
        self.check(store, items=1024)
        pool.close()

    def test_a_long_stream(self, bare: Any, high_latency: bool) -> None:
        """Of 42 MB: more than two batches."""
        pool = Pool(2)
        store = bare(pool, high_latency=high_latency)
        with store.open_write() as writer:
            for number in range(14):
                writer.write(random.Random(number).randbytes(3 * MIB))
        assert store.most_under_way <= 2
        assert store.largest >= (15 * MIB if high_latency else MIB)
        self.check(store, items=max(len(digests) for _, digests in store.calls))
        with store.open_read(writer.close()) as reader:
            while reader.read(5 * MIB):
                pass
        pool.close()

    def test_many_files(self, bare: Any, high_latency: bool, tmp_path: Path) -> None:
        pool = Pool(4)
        store = bare(pool, high_latency=high_latency)
        paths = list(small_files(tmp_path, 1100))
        assert list(store.put_files(paths)) == [B3Digest.of(path.read_bytes()) for path in paths]
        self.check(store, items=1024)
        pool.close()

    def test_files_of_many_bytes(
        self, bare: Any, high_latency: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storing, "MOST_BYTES", 30_000)
        pool = Pool(4)
        store = bare(pool, high_latency=high_latency)
        paths = list(small_files(tmp_path, 300, size=1000))
        assert list(store.put_files(paths)) == [B3Digest.of(path.read_bytes()) for path in paths]
        assert 29_000 < store.largest <= 30_000
        assert store.count("put_chunks") == 10
        pool.close()


def small_files(folder: Path, count: int, size: int = 0) -> Iterator[Path]:
    """Files that are all different, each of *size* bytes at least."""
    for number in range(count):
        path = folder / f"small {number}"
        path.write_bytes(b"%d" % number + bytes(size - 3 if size else 0))
        yield path


# -- many small files --


def files_in(folder: Path, count: int) -> list[Path]:
    """Files of all sizes, some alike, some larger than a chunk."""
    source = random.Random(5)
    folder.mkdir()
    paths = []
    for number in range(count):
        paths.append(folder / str(number))
        size = source.choice([0, 1, 400, 511, 512, 513, 3000]) if number % 50 else 200_000
        paths[-1].write_bytes(random.Random(number % 40).randbytes(size))
    return paths


class Recording(MemoryBlobService):
    """Tells blobs from chunks; notes what was put, and takes nothing but through a lease that goes on."""

    def __init__(self, pool: Pool, *, high_latency: bool = False, avg_size: int = 1024) -> None:
        super().__init__()
        self._pool = pool
        self._avg_size = avg_size
        self.high_latency = high_latency
        self.chunks_put: list[list[B3Digest]] = []
        self.indexes_put: list[list[B3Digest]] = []
        self.leases: list[Recording] = []
        self.brief: list[bool] = []
        self.at_work: list[str] = []

    @property
    def pool(self) -> Pool:
        return self._pool

    def new_chunker(self) -> Chunker:
        return FastCdc2020(self._avg_size)

    def before(self, name: str) -> None:
        pass

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        with self._working("put_chunks"):
            self.chunks_put.append(list(chunks))
            super().put_chunks(chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        with self._working("put_indexes"):
            self.indexes_put.append(list(blobs))
            super().put_indexes(blobs)

    @contextlib.contextmanager
    def _working(self, name: str) -> Iterator[None]:
        assert any(leased is self for leased in self.leases)
        self.at_work.append(name)
        try:
            self.before(name)
            yield
            assert any(leased is self for leased in self.leases)
        finally:
            self.at_work.remove(name)

    @contextlib.contextmanager
    def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
        self.brief.append(brief)
        leased = copy.copy(self)
        self.leases.append(leased)
        try:
            yield leased
        finally:
            self.leases[:] = [other for other in self.leases if other is not leased]


class TestSmallFiles:
    @pytest.mark.parametrize("high_latency", [False, True])
    def test_each_is_stored_and_reported_in_order(
        self, tmp_path: Path, pool: Pool, high_latency: bool
    ) -> None:
        """The digests are those of the files, and each blob is there when its digest comes."""
        paths = files_in(tmp_path / "files", 450)
        store = Recording(pool, high_latency=high_latency)
        store.round = 200
        sizes: list[int] = []
        for path, digest in zip(paths, store.put_files(paths, progress=sizes.append), strict=True):
            assert digest == B3Digest.of(path.read_bytes())
            assert digest in set(store.list_blobs())
        assert sum(sizes) == sum(path.stat().st_size for path in paths)
        assert store.leases == []

    def test_few_calls_are_made(self, tmp_path: Path, pool: Pool, bare: Any) -> None:
        """256 files at hand are stored at a time, in rounds; what is known is not sent again."""
        store = bare(pool)
        store.round = 300
        paths = list(small_files(tmp_path, 400))
        digests = [B3Digest.of(path.read_bytes()) for path in paths]
        for send in (True, False):
            store.calls.clear()
            assert list(store.put_files(paths)) == digests
            # Once for blobs that are there as a whole, and once more for chunks of those that are not.
            times = 2 if send else 1
            asked = [len(some) for name, some in store.calls if name == "find_chunks"]
            assert asked == [count for count in (256, 44, 100) for _ in range(times)]
            assert store.count("put_chunks") == (3 if send else 0)
            assert [len(some) for name, some in store.calls if name == "put_indexes"] == (
                [300, 100] if send else [0, 0]
            )
            assert store.digests("chunks") == ([] if send else digests)  # one call for each

    def test_fewer_are_made_where_requests_mostly_wait(self, tmp_path: Path, bare: Any) -> None:
        """A round is claimed, stored and made visible with one call each."""
        pool = Pool(4)
        store = bare(pool, high_latency=True)
        store.round = 300
        paths = list(small_files(tmp_path, 400))
        assert len(list(store.put_files(paths))) == 400
        for name, times in {"find_chunks": 2, "chunks": 0, "put_chunks": 1, "put_indexes": 1}.items():
            assert sorted(len(some) for called, some in store.calls if called == name) == sorted(
                [100, 300] * times
            )
        pool.close()

    @pytest.mark.parametrize("high_latency", [False, True])
    def test_two_calls_put_chunks_at_once_and_no_more(
        self, tmp_path: Path, bare: Any, high_latency: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many threads there are, and also across rounds."""
        monkeypatch.setattr(storing, "_FILES_TOGETHER", 10)
        monkeypatch.setattr(storing, "MOST_ITEMS", 10 if high_latency else 25)
        pool = Pool(8)
        store = bare(pool, high_latency=high_latency)
        store.before = lambda name, digests: time.sleep(0.005) if name == "put_chunks" else None
        paths = list(small_files(tmp_path, 200))
        assert len(list(store.put_files(paths))) == 200
        assert store.most_under_way == 2
        pool.close()

    @pytest.mark.parametrize("high_latency", [False, True])
    @pytest.mark.parametrize("together", [3, 256])
    def test_what_is_there_is_not_put_again(
        self, tmp_path: Path, pool: Pool, high_latency: bool, together: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A chunk that is there needs its index, and an index whose chunk is gone needs its chunk."""
        monkeypatch.setattr(storing, "_FILES_TOGETHER", together)
        monkeypatch.setattr(storing, "MOST_ITEMS", 1024 if together > 3 else 3)
        store = Recording(pool, high_latency=high_latency)
        states = ["new", "known", "chunk", "index", "empty"]
        groups: dict[str, set[B3Digest]] = {state: set() for state in states}
        paths = []
        for number in range(25):
            state = states[number % 5]
            data = b"" if state == "empty" else b"%d" % number
            digest = B3Digest.of(data)
            groups[state].add(digest)
            paths += [tmp_path / str(number), tmp_path / str(number)]  # each of them twice
            paths[-1].write_bytes(data)
            if state in ("known", "chunk"):
                store._chunks[digest] = data
            if state in ("known", "index"):
                store._indexes[digest] = ()
        digests = [B3Digest.of(path.read_bytes()) for path in paths]

        assert list(store.put_files(paths)) == digests

        assert {digest for some in store.chunks_put for digest in some} == groups["new"] | groups["index"]
        put = {digest for some in store.indexes_put for digest in some}
        assert put == groups["new"] | groups["chunk"] | groups["index"] | groups["empty"]
        assert store.missing(digests) == set()
        assert all(store.read(digest) is not None for digest in digests)

    @pytest.mark.parametrize(("count", "brief"), [(32, [True]), (33, [False]), (1025, [False, True])])
    def test_a_few_need_no_lasting_lease(self, tmp_path: Path, count: int, brief: list[bool]) -> None:
        """They have their indexes before anything could be taken for garbage."""
        store = Recording(Pool(0))
        assert len(list(store.put_files(small_files(tmp_path, count)))) == count
        assert store.brief == brief

    def test_a_file_that_cannot_be_read_does_not_keep_the_others(self, tmp_path: Path, pool: Pool) -> None:
        """Its error takes the place of its digest."""
        store = Recording(pool)
        (tmp_path / "a").write_bytes(b"a")
        (tmp_path / "b").write_bytes(b"b")
        found = list(store.put_files([tmp_path / "a", tmp_path / "none", tmp_path, tmp_path / "b"]))
        assert [type(entry) for entry in found] == [B3Digest, SourceError, SourceError, B3Digest]
        assert store.read(B3Digest.of(b"b")) == b"b"

    def test_of_no_file_nothing_is_asked(self, tmp_path: Path, bare: Any) -> None:
        """Nor of those that cannot be read."""
        store = bare()
        assert list(store.put_files([])) == []
        assert [type(entry) for entry in store.put_files([tmp_path / "none"] * 3)] == [SourceError] * 3
        assert store.calls == []

    def test_only_so_much_waits_to_be_stored(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: Pool
    ) -> None:
        """A thousand small files may be 128 MiB."""
        store = Recording(pool, avg_size=4096)
        waiting: list[int] = [0]
        most: list[int] = []
        read_beginning = storing.read_beginning

        def counting(path: Any, limit: int) -> bytes:
            data = read_beginning(path, limit)
            waiting.append(len(data))
            most.append(sum(waiting))
            return data

        put_chunks = Recording.put_chunks

        def stored(leased: Recording, chunks: Mapping[B3Digest, Buffer]) -> None:
            put_chunks(leased, chunks)
            waiting.append(-sum(len(memoryview(data)) for data in chunks.values()))

        monkeypatch.setattr(storing, "MOST_BYTES", 50_000)
        monkeypatch.setattr(storing, "read_beginning", counting)
        monkeypatch.setattr(Recording, "put_chunks", stored)
        paths = [tmp_path / str(number) for number in range(640)]
        for number, path in enumerate(paths):
            path.write_bytes(random.Random(number).randbytes(1000))
        assert list(store.put_files(paths)) == [B3Digest.of(path.read_bytes()) for path in paths]
        # Two calls under way, and what is gathered for the next.
        assert max(most) <= 3 * 50_000 + 1000
        assert sum(waiting) == 0


@pytest.mark.parametrize("high_latency", [False, True])
class TestFailures:
    """Whatever ends it: no lease is left, nothing runs on, and nothing more becomes visible."""

    def check(self, store: Recording, pool: Pool) -> None:
        done = (list(store.chunks_put), list(store.indexes_put))
        assert store.leases == store.at_work == []
        pool.close()
        assert (store.chunks_put, store.indexes_put) == done

    @pytest.mark.parametrize("failing", ["put_chunks", "put_indexes", "lease"])
    @pytest.mark.parametrize("batch", [False, True])
    def test_a_store_that_fails(
        self, tmp_path: Path, pool: Pool, high_latency: bool, failing: str, batch: bool
    ) -> None:
        """At any of several calls: its error comes out."""
        paths = list(small_files(tmp_path, 60))
        error: UnavailableError = UnavailableError("far", "down")
        if batch:
            digest = B3Digest.of(b"one")
            error = BatchError("far", {digest: error})
        for good in range(3):
            store = Recording(pool, high_latency=high_latency)
            store.round = 20
            left = iter([False] * good)
            lease = store.lease

            def fail(name: str, left: Iterator[bool] = left) -> None:
                if name == failing and next(left, True):
                    raise error

            def fail_lease(*, brief: bool = False, fail: Any = fail, lease: Any = lease) -> Any:
                fail("lease")
                return lease(brief=brief)

            store.before = fail  # type: ignore[method-assign]
            store.lease = fail_lease  # type: ignore[method-assign]
            with pytest.raises(UnavailableError) as caught:
                list(store.put_files(paths))
            assert caught.value is error
            assert len(set(store.list_blobs())) <= 20 * good
            self.check(store, pool)

    def test_a_caller_that_stops_asking(self, tmp_path: Path, pool: Pool, high_latency: bool) -> None:
        """What was yielded is there; what was not may be."""
        store = Recording(pool, high_latency=high_latency)
        store.round = 20
        files = store.put_files(small_files(tmp_path, 1000))
        digests = [next(files), next(files)]
        files.close()  # type: ignore[attr-defined]
        assert store.missing(digests) == set()  # type: ignore[arg-type]
        self.check(store, pool)

    def test_paths_that_fail(self, tmp_path: Path, pool: Pool, high_latency: bool) -> None:
        """A generator of the caller's: its own error comes out."""

        def paths() -> Iterator[Path]:
            yield from small_files(tmp_path, 45)
            raise ZeroDivisionError

        store = Recording(pool, high_latency=high_latency)
        store.round = 20
        with pytest.raises(ZeroDivisionError):
            list(store.put_files(paths()))
        self.check(store, pool)

    @pytest.mark.parametrize("during", ["put_chunks", "put_indexes"])
    def test_an_interrupted_caller(self, tmp_path: Path, high_latency: bool, during: str) -> None:
        """While the pool stores: what runs is waited for."""
        pool = Pool(3)
        store = Recording(pool, high_latency=high_latency)
        store.round = 20
        main = threading.main_thread()
        interrupted: list[int] = []

        def interrupt(name: str) -> None:
            if name == during and not interrupted:
                interrupted.append(1)
                time.sleep(0.02)
                signal.pthread_kill(main.ident or 0, signal.SIGINT)
            time.sleep(0.02)

        store.before = interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            list(store.put_files(small_files(tmp_path, 1000)))
        self.check(store, pool)
        assert len(store.chunks_put) < 40

    def test_an_interrupt_while_files_are_claimed(
        self, tmp_path: Path, high_latency: bool, bare: Any
    ) -> None:
        """Nothing is put then."""
        pool = Pool(3)
        store = bare(pool, high_latency=high_latency)
        main = threading.main_thread()

        def interrupt(name: str, digests: list[B3Digest]) -> None:
            if name == "find_chunks" and store.count(name) == 1:
                time.sleep(0.02)
                signal.pthread_kill(main.ident or 0, signal.SIGINT)
                time.sleep(0.05)

        store.before = interrupt
        with pytest.raises(KeyboardInterrupt):
            list(store.put_files(small_files(tmp_path, 1000)))
        pool.close()
        assert store.count("put_chunks") == store.count("put_indexes") == 0

    def test_a_large_file_fails(
        self, tmp_path: Path, pool: Pool, high_latency: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some of its chunks may be there: it has no index."""
        monkeypatch.setattr(pipeline, "_JOB_SIZE", 1)
        (tmp_path / "file").write_bytes(RANDOM[:200_000])
        store = Recording(pool, high_latency=high_latency)

        def fail(name: str) -> None:
            if name == "put_chunks" and (len(store.chunks_put) == 3 or high_latency):
                raise UnavailableError("far", "down")

        store.before = fail  # type: ignore[method-assign]
        for put in (store.put_file, lambda path: list(store.put_files([path]))):
            with pytest.raises(UnavailableError):
                put(tmp_path / "file")  # type: ignore[operator]
            assert list(store.list_blobs()) == []
        self.check(store, pool)


# -- services that keep no chunks --


class Whole(BlobService):
    """Three methods. Each blob takes some time to be stored; counts how many are at once."""

    def __init__(self, *, high_latency: bool) -> None:
        self.high_latency = high_latency
        self.held: dict[B3Digest, bytes] = {}
        self.under_way = self.most_under_way = self.aborted = 0
        self.meanwhile: Callable[[], object] = lambda: time.sleep(0.01)
        self._lock = threading.Lock()

    def has(self, digest: B3Digest) -> bool:
        return digest in self.held

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        raise NotImplementedError

    def open_write(self) -> BlobWriter:
        service = self

        class Writer(GuardedWriter):
            def __init__(self) -> None:
                self.data = b""

            def _take(self, view: memoryview) -> None:
                self.data += view

            def _finish(self) -> B3Digest:
                with service._lock:
                    service.under_way += 1
                    service.most_under_way = max(service.most_under_way, service.under_way)
                try:
                    service.meanwhile()
                    digest = B3Digest.of(self.data)
                    service.held[digest] = self.data
                    return digest
                finally:
                    with service._lock:
                        service.under_way -= 1

            def _discard(self) -> None:
                service.aborted += 1

        return Writer()


class TestWholeBlobs:
    @pytest.mark.parametrize(("high_latency", "most"), [(False, 1), (True, 16)])
    def test_sixteen_are_stored_at_once_where_requests_mostly_wait(
        self, tmp_path: Path, high_latency: bool, most: int
    ) -> None:
        """And never more; they come in order, and progress is told by the thread that asks."""
        service = Whole(high_latency=high_latency)
        paths = list(small_files(tmp_path, 60))
        paths[7] = tmp_path / "none"
        seen: list[tuple[int, bool]] = []
        main = threading.current_thread()
        found = list(
            service.put_files(
                paths, progress=lambda size: seen.append((size, threading.current_thread() is main))
            )
        )
        assert isinstance(found.pop(7), SourceError)
        del paths[7]
        contents = [path.read_bytes() for path in paths]
        assert found == [B3Digest.of(data) for data in contents]
        assert seen == [(len(data), True) for data in contents]
        assert service.most_under_way == most

    def test_behind_a_busy_pool_the_thread_that_waits_stores(self, tmp_path: Path) -> None:
        """Inside tasks of the very pool, as many as there are threads, nobody waits for ever."""
        service = Whole(high_latency=True)
        paths = list(small_files(tmp_path, 5))
        pool = storing.process_pool().io_pool
        tasks = [pool.submit(lambda: list(service.put_files(paths))) for _ in range(pool.size + 5)]
        expected = [B3Digest.of(path.read_bytes()) for path in paths]
        assert all(task.result() == expected for task in tasks)

    @pytest.mark.parametrize("end", ["a blob fails", "nobody asks", "interrupted"])
    def test_an_end_leaves_nothing_running(self, tmp_path: Path, end: str) -> None:
        """What has begun is waited for, and nothing more begins."""
        service = Whole(high_latency=True)
        main = threading.main_thread()
        calls: list[int] = []
        numbers = itertools.count(1)

        def meanwhile() -> None:
            number = next(numbers)
            calls.append(number)
            time.sleep(0.01)
            if number == 20 and end == "a blob fails":
                raise UnavailableError("far", "down")
            if number == 20 and end == "interrupted":
                signal.pthread_kill(main.ident or 0, signal.SIGINT)
            time.sleep(0.01)

        service.meanwhile = meanwhile
        files = service.put_files(small_files(tmp_path, 500))
        if end == "nobody asks":
            for _ in range(3):
                next(files)
            files.close()  # type: ignore[attr-defined]
        else:
            error = UnavailableError if end == "a blob fails" else KeyboardInterrupt
            with pytest.raises(error):
                list(files)
        del files
        gc.collect()
        assert service.under_way == 0
        begun = len(calls)
        time.sleep(0.05)
        assert len(calls) == begun < 60


MANY = {B3Digest.of(data): data for data in [b"", *(b"blob %d" % number for number in range(300))]}
LONG = bytes(range(256)) * 64


class TestEach:
    """Small blobs whose digests are known are stored together."""

    def test_calls(self, pool: Pool) -> None:
        """Of what is there already nothing is put, and still what was claimed is made lasting."""
        service = Recording(pool)
        storing.store_each(service, MANY)
        assert [len(some) for some in service.chunks_put] == [len(MANY) - 1]
        assert [len(some) for some in service.indexes_put] == [len(MANY)]
        assert {digest: service.read(digest) for digest in MANY} == MANY
        storing.store_each(service, MANY)
        assert len(service.chunks_put) == 1
        assert service.indexes_put[1:] == [[]]
        assert service.brief == [True, True]

    def test_what_can_be_cut_is_cut(self, pool: Pool) -> None:
        service = Recording(pool)
        digest = B3Digest.of(LONG)
        storing.store_each(service, {digest: LONG, **MANY})
        assert service.read(digest) == LONG
        assert len(service.chunks(digest) or ()) > 1

    @pytest.mark.parametrize("high_latency", [False, True])
    def test_without_chunks(self, high_latency: bool) -> None:
        service = Whole(high_latency=high_latency)
        storing.store_each(service, MANY)
        assert service.held == MANY
        assert service.most_under_way == (16 if high_latency else 1)


class TestListsThatAreCompared:
    """That a blob is listed does not say that the list is right."""

    SIZE = (64 << 20) + 5

    @pytest.mark.parametrize("size", [2 << 20, SIZE])
    @pytest.mark.parametrize("wrong", ["reversed", "turned", "of another size"])
    def test_a_wrong_list_is_replaced(self, tmp_path: Path, size: int, wrong: str) -> None:
        """Of a large file it is found out as well, though not all of its chunks are looked at."""
        path = tmp_path / "file"
        path.write_bytes(random.Random(size).randbytes(1 << 20) * (size >> 20) + bytes(size & 0xFFFFF))
        service = MemoryBlobService()
        digest = service.put_file(path)
        right = service.chunks(digest) or ()
        lists = {
            "reversed": right[::-1],
            "turned": [*right[1:], right[0]],
            "of another size": [*right, right[0]],
        }
        service._indexes[digest] = ChunkList(lists[wrong])
        assert service.put_file(path) == digest
        assert service.chunks(digest) == right

    def test_a_right_list_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And a large known file is read once, and a little."""
        path = tmp_path / "file"
        path.write_bytes(random.Random(1).randbytes(1 << 20) * 65)
        service = MemoryBlobService()
        service.put_file(path)
        taken: list[int] = []
        read_at = InputFile.read_at

        def noted(file: InputFile, position: int, count: int) -> bytes:
            taken.append(count)
            return read_at(file, position, count)

        monkeypatch.setattr(InputFile, "read_at", noted)
        monkeypatch.setattr(InputFile, "rewind", lambda _: pytest.fail("it is read again"))
        service.put_file(path)
        assert 2 < len(taken) <= 64
