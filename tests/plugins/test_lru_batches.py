"""The `lru` type and calls for many: how few turns they take, what they pin, and how they find room."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService, ChunkMeta, UnavailableError, UnsupportedError
from castore.chunks.backend import ChunkBackend
from castore.contract.capabilities import ChunkSource, ChunkStore, FoundChunks, FrameStore
from castore.contract.upkeep import Evictable, ItemKind, StoredItem
from castore.digest import EMPTY
from castore.errors import BatchError
from castore.faults.service import FaultyService
from castore.threads.pool import Pool
from castore_lru import accounts
from castore_lru.bounds import Amount, Bounds
from castore_lru.journal import Journal
from castore_lru.service import LruBlobService
from castore_memory.service import MemoryBlobService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService


def folder_in(folder: Path, durability: Any = "process") -> ObjectStoreBlobService:
    store = LocalObjectStore(folder / "store", instance="store", durability=durability)
    return ObjectStoreBlobService(store, avg_chunk_size=512, pool=Pool(0))


def sqlite_in(folder: Path) -> SqliteBlobService:
    database = Database(folder / "blobs.sqlite", instance="rows", durability="process")
    return SqliteBlobService(database, avg_chunk_size=512, pool=Pool(0))


CHILDREN: dict[str, Callable[[Path], BlobService]] = {
    "memory": lambda _: MemoryBlobService(),
    "folder": folder_in,
    "folder that defers": lambda folder: folder_in(folder, "full"),
    "sqlite": sqlite_in,
}


@pytest.fixture(params=CHILDREN)
def child(request: pytest.FixtureRequest, tmp_path: Path) -> BlobService:
    return CHILDREN[request.param](tmp_path)


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def several(count: int, size: int = 200, *, seed: int = 0) -> dict[B3Digest, bytes]:
    """Chunks, which are blobs as well."""
    return {B3Digest.of(data): data for data in (noise(size, seed + number) for number in range(count))}


def bounded(child: BlobService, **bounds: Any) -> LruBlobService:
    return LruBlobService(child, Bounds(**bounds), name="near")


def store_of(service: BlobService) -> ChunkStore:
    store = service.capability(ChunkStore)
    assert store is not None
    return store


def evictable_of(service: BlobService) -> Evictable:
    evictable = service.capability(Evictable)
    assert evictable is not None
    return evictable


def bytes_of(service: BlobService) -> int:
    return sum(item.size or 0 for item in evictable_of(service).stored_items() if not item.foreign)


def fill(service: BlobService, count: int = 30, size: int = 900) -> None:
    """Write blobs that push out all else that may go."""
    for seed in range(count):
        service.write(noise(size, 10_000 + seed))


def write_files(folder: Path, contents: Iterable[bytes]) -> list[Path]:
    folder.mkdir()
    paths = []
    for number, data in enumerate(contents):
        paths.append(folder / str(number))
        paths[-1].write_bytes(data)
    return paths


class Turns:
    """Counts the turns at a journal, and its transactions and statements."""

    def __init__(self, service: LruBlobService, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns = 0
        self.statements: list[str] = []
        locked = Journal.locked

        @contextlib.contextmanager
        def counting(journal: Journal) -> Iterator[Any]:
            self.turns += 1
            with locked(journal) as db:
                yield db

        def execute(connection: sqlite3.Connection, statement: str, *args: Any) -> sqlite3.Cursor:
            if connection is own:
                self.statements.append(statement)
            return sqlite3.Connection.execute(connection, statement, *args)

        def execute_many(connection: sqlite3.Connection, statement: str, rows: Any) -> sqlite3.Cursor:
            rows = list(rows)
            if connection is own:
                self.statements += [statement] * len(rows)
            return sqlite3.Connection.executemany(connection, statement, rows)

        service.evict()
        own = service._space._journal.connection
        monkeypatch.setattr(Journal, "locked", counting)
        monkeypatch.setattr(type(own), "execute", execute)
        monkeypatch.setattr(type(own), "executemany", execute_many)

    @property
    def transactions(self) -> int:
        return sum(statement.startswith("BEGIN") for statement in self.statements)

    def begin(self) -> None:
        self.turns = 0
        self.statements.clear()


def kept_by(service: LruBlobService) -> tuple[int, int]:
    """Return how many digests are pinned one by one, and how many leases keep otherwise."""
    db = service._space._journal.connection
    return (
        db.execute("SELECT count(*) FROM pinned").fetchone()[0],
        db.execute("SELECT count(*) FROM held WHERE kind IS NOT NULL AND tag IS NOT NULL").fetchone()[0],
    )


class TestTurns:
    """However many items there are in a batch."""

    @pytest.mark.parametrize("calls", [10, 100])
    def test_of_a_blob_that_was_put_by_many_calls(
        self, child: BlobService, calls: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What they have put is told at once, when the blob has its index."""
        chunks = several(4 * calls)
        metas = [ChunkMeta(digest, len(data)) for digest, data in chunks.items()]
        with bounded(child, max_bytes=1 << 30) as service:
            turns = Turns(service, monkeypatch)
            with store_of(service).lease() as leased:
                for start in range(0, len(metas), 4):
                    leased.put_chunks({meta.digest: chunks[meta.digest] for meta in metas[start : start + 4]})
                turns.begin()
                leased.put_indexes({B3Digest.of(b"".join(chunks.values())): metas})
            assert len(turns.statements) <= 40

    @pytest.mark.parametrize("count", [20, 500])
    def test_of_each_call(self, child: BlobService, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        chunks = several(count)
        lists: dict[B3Digest, Sequence[ChunkMeta]] = dict.fromkeys(chunks, ())
        with bounded(child, max_bytes=1 << 30) as service:
            turns = Turns(service, monkeypatch)
            with store_of(service).lease() as leased:
                # With how many turns at most, and how many transactions.
                calls: list[tuple[Callable[[], object], int, int]] = [
                    (lambda: leased.claim(chunks), 0, 0),
                    (lambda: leased.claim_blobs(lists), 0, 0),
                    (lambda: leased.put_chunks(chunks), 1, 1),
                    (lambda: leased.put_indexes(lists), 2, 2),
                    (lambda: leased.claim(chunks), 1, 2),
                    (lambda: leased.claim_blobs(lists), 1, 1),
                ]
                for call, most_turns, most_transactions in calls:
                    turns.begin()
                    call()
                    assert turns.turns <= most_turns
                    assert turns.transactions <= most_transactions
                    assert len(turns.statements) <= 25
                # That is what goes quickly: so little is looked through by who evicts.
                assert kept_by(service) == (0, 4 * count)
                turns.begin()
            assert turns.turns == 1

    @pytest.mark.parametrize("name", CHILDREN)
    def test_small_files(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No call of the store within, no turn and no statement is for a single file."""
        found: dict[int, Counter[str]] = {}
        for count in (300, 900):
            inner = FaultyService(CHILDREN[name](tmp_path / str(count)))
            paths = write_files(tmp_path / f"files {count}", several(count, seed=count).values())
            with bounded(inner, max_bytes=1 << 30) as service:
                turns = Turns(service, monkeypatch)
                inner.calls.clear()
                for times in ("new", "again"):
                    turns.begin()
                    assert len(list(service.put_files(paths))) == count
                    # A batch of 256 files is claimed and put; a round has its indexes put, and ends.
                    batches = -(-count // 256)
                    assert turns.turns <= 2 * batches + 3, times
                    assert turns.transactions <= 2 * turns.turns
                found[count] = Counter(inner.calls)
                service.gauges()
            inner.close()
        # Only with the number of batches.
        few, many = found[300], found[900]
        assert {call for call in many if many[call] > 2 * few[call]} == set()
        assert max(many.values()) <= 20

    def test_reads(self, child: BlobService, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are noted later, all of them together."""
        chunks = several(300)
        with bounded(child, max_bytes=1 << 30) as service:
            store = store_of(service)
            store.put_chunks(chunks)
            store.put_indexes(dict.fromkeys(chunks, ()))
            service.gauges()
            turns = Turns(service, monkeypatch)
            turns.begin()
            source = service.capability(ChunkSource)
            assert source is not None
            assert source.get_chunks(dict.fromkeys(chunks)) == chunks
            assert turns.turns == 0
            service.evict()
            assert len(turns.statements) <= 30


class TestLeases:
    @pytest.mark.parametrize("brief", [False, True])
    def test_only_what_goes_through_it_is_pinned(self, child: BlobService, brief: bool) -> None:
        """And that until it ends; what is put beside it is evicted."""
        through, beside, claimed = several(3, 500), several(3, 500, seed=10), several(3, 500, seed=20)
        with bounded(child, max_bytes=20_000) as service:
            store = store_of(service)
            with store.lease(brief=brief) as leased:
                leased.put_chunks(through)
                store.put_chunks(beside)
                store.put_chunks(claimed)
                assert leased.claim(claimed) == claimed.keys()
                fill(service)
                assert service.missing([*through, *claimed]) == set()
                assert service.missing(beside) == beside.keys()
                assert leased.find_chunks([*through, *beside]) == through.keys()
            fill(service)
            assert service.missing([*through, *claimed]) == {*through, *claimed}
            assert service.gauges()["pinned"] == 0

    def test_what_is_claimed_through_another_one(self, child: BlobService) -> None:
        """Each lets go of its own: what two have claimed stays until both have ended."""
        chunks = several(4, 500)
        with bounded(child, max_bytes=20_000) as service:
            with store_of(service).lease() as first:
                first.put_chunks(chunks)
                with store_of(service).lease() as second:
                    assert second.claim(list(chunks)[:2]) == set(list(chunks)[:2])
                    with second.lease() as third:
                        assert third.claim(list(chunks)[2:3]) == set(list(chunks)[2:3])
                    fill(service)
                    assert not service.missing(chunks)
            fill(service)
            assert service.missing(chunks) == chunks.keys()

    def test_claimed_blobs_stay_with_their_chunks(self, child: BlobService) -> None:
        data, small = noise(5000, 1), noise(300, 2)
        with bounded(child, max_bytes=20_000) as service:
            digests = [service.write(data), service.write(small)]
            metas = service.chunks(digests[0])
            with store_of(service).lease() as leased:
                assert leased.claim_blobs({digests[0]: metas, digests[1]: (), B3Digest.of(b"no"): None}) == {
                    *digests
                }
                leased.put_indexes({})
                fill(service)
                assert service.read(digests[0]) == data
                assert service.read(digests[1]) == small
            fill(service)
            assert service.missing(digests) == {*digests}

    def test_of_very_many(self, child: BlobService, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are pinned one by one then, and let go all the same."""
        monkeypatch.setattr(accounts, "_MOST_LEASED", 5)
        with bounded(child, max_bytes=30_000) as service:
            with store_of(service).lease() as leased:
                for seed in range(0, 20, 4):
                    leased.put_chunks(several(4, 300, seed=seed))
                    assert len(leased.claim(several(4, 300, seed=seed))) == 4
                fill(service, 40)
                everything = several(20, 300)
                assert not service.missing(everything)
                leased.put_indexes(dict.fromkeys(everything, ()))
                fill(service, 40)
                assert not service.missing(everything)
                pinned, leased_otherwise = kept_by(service)
                assert pinned >= 35
                assert leased_otherwise <= 5
            fill(service, 40)
            assert service.missing(everything) == everything.keys()
            assert service.gauges()["pinned"] == 0
            assert service.gauges()["bytes"] == bytes_of(child)

    def test_what_comes_after_its_end_is_not_pinned(self, child: BlobService) -> None:
        """A call that was under way when the lease was given up pins nothing for good."""
        chunks = several(4, 500)
        with bounded(child, max_bytes=20_000) as service:
            with store_of(service).lease() as leased:
                pass
            leased.put_chunks(chunks)
            assert leased.claim(chunks) == chunks.keys()
            fill(service)
            assert service.missing(chunks) == chunks.keys()
            assert service.gauges()["pinned"] == 0

    def test_one_that_ends_while_something_is_put(self, tmp_path: Path) -> None:
        inner = folder_in(tmp_path)
        chunks = several(4, 500)
        put = inner.put_chunks
        with bounded(inner, max_bytes=20_000) as service, contextlib.ExitStack() as lease:
            leased = lease.enter_context(store_of(service).lease())

            def putting(items: Any) -> None:
                lease.close()
                put(items)

            inner.put_chunks = putting  # type: ignore[method-assign]
            leased.put_chunks(chunks)
            inner.put_chunks = put  # type: ignore[method-assign]
            assert not service.missing(chunks)
            assert service.gauges()["pinned"] == 0
            fill(service)
            assert service.missing(chunks) == chunks.keys()

    def test_what_is_claimed_and_evicted_at_once_is_not_there(self, tmp_path: Path) -> None:
        """A claim says what stays, not what was there when the store was asked."""
        inner = folder_in(tmp_path)
        chunks = several(4, 500)
        with bounded(inner, max_bytes=20_000) as service, bounded(folder_in(tmp_path), max_bytes=1) as other:
            for blobs in (False, True):
                store_of(service).put_chunks(chunks)
                store_of(service).put_indexes(dict.fromkeys(chunks, ()))
                service.gauges()
                with store_of(service).lease() as leased:
                    for method in ("claim", "claim_blobs"):
                        claim = getattr(inner, method)

                        def claiming(items: Any, claim: Any = claim) -> set[B3Digest]:
                            found: set[B3Digest] = claim(items)
                            other.evict()
                            return found

                        setattr(inner, method, claiming)
                    found = leased.claim_blobs(dict.fromkeys(chunks, ())) if blobs else leased.claim(chunks)
                    assert found == set()
                    del inner.claim, inner.claim_blobs


class TestRoom:
    def test_a_batch_that_does_not_fit_at_once_goes_in_parts(self, child: BlobService) -> None:
        """As single puts would have: what comes last is there."""
        chunks = several(40, 500)
        with bounded(child, max_bytes=6000) as service:
            store = store_of(service)
            store.put_chunks(chunks)
            assert bytes_of(child) <= 6000
            there = store.find_chunks(chunks)
            assert list(chunks)[-1] in there
            assert service.gauges()["bytes"] == bytes_of(child)

    def test_many_indexes_go_in_parts(self, child: BlobService) -> None:
        chunks = several(9, 300)
        with bounded(child, max_entries=20) as service:
            store = store_of(service)
            with store.lease() as leased:
                leased.put_chunks(chunks)
                leased.put_indexes(dict.fromkeys(chunks, ()))
            with store.lease() as leased:
                others = several(9, 300, seed=50)
                leased.put_chunks(others)
                leased.put_indexes(dict.fromkeys(others, ()))
            assert not service.missing(others)

    def test_beside_what_is_pinned_as_much_is_put_as_fits(self, child: BlobService) -> None:
        """The others are faults, each by its digest; all is accounted for."""
        chunks = several(16, 500)
        with bounded(child, max_bytes=8000) as service:
            store = store_of(service)
            with store.lease() as leased:
                leased.put_chunks(several(7, 600, seed=100))
                with pytest.raises(BatchError, match="no room for") as caught, store.lease() as second:
                    second.put_chunks(chunks)
            error = caught.value
            assert error.done
            assert error.faults
            assert error.done | error.faults.keys() == chunks.keys()
            assert not error.done & error.faults.keys()
            assert service.gauges()["bytes"] == bytes_of(child) <= 8000

    def test_one_that_can_never_fit(self, child: BlobService) -> None:
        """It is refused with all that comes beside it, and names the bound."""
        chunks = {**several(3, 100), **several(1, 5000, seed=7)}
        with bounded(child, max_bytes=4000) as service:
            with pytest.raises(UnsupportedError, match="can never fit within max_bytes = 4000"):
                store_of(service).put_chunks(chunks)
            assert service.missing(chunks) == chunks.keys()
            assert service.gauges()["bytes"] == 0

    def test_more_through_a_lease_than_can_ever_stay(self, child: BlobService) -> None:
        with bounded(child, max_bytes=4000) as service:
            with store_of(service).lease() as leased, pytest.raises(UnsupportedError, match="can never fit"):
                leased.put_chunks(several(40, 500))
            assert service.gauges()["pinned"] == 0
            service.write(noise(1000, 1))
            assert bytes_of(child) <= 4000

    @pytest.mark.parametrize("most", [2000, 20_000])
    def test_files_of_more_bytes_than_there_is_room_for(
        self, child: BlobService, tmp_path: Path, most: int
    ) -> None:
        """Many are stored that one by one would be; those that came last are there."""
        contents = several(60, 250)
        paths = write_files(tmp_path / "files", contents.values())
        with bounded(child, max_bytes=most) as service:
            assert list(service.put_files(paths)) == list(contents)
            assert bytes_of(child) <= most
            last = list(contents)[-1]
            assert service.read(last) == contents[last]

    def test_a_blob_whose_chunk_is_gone_does_not_keep_the_others_out(self, child: BlobService) -> None:
        chunks = several(4, 300)
        lost = B3Digest.of(b"lost")
        with bounded(child, max_bytes=1 << 20) as service:
            store = store_of(service)
            store.put_chunks(chunks)
            with pytest.raises(BatchError) as caught:
                store.put_indexes(dict.fromkeys([*chunks, lost], ()))
            assert caught.value.done == chunks.keys()
            assert list(caught.value.faults) == [lost]
            assert "was evicted before blob" in str(caught.value.faults[lost])
            assert not service.missing(chunks)

    def test_what_the_store_says_of_a_batch_is_passed_on(self, tmp_path: Path) -> None:
        """Some are stored and some are not: whatever it is, it is counted."""
        inner = folder_in(tmp_path)
        chunks = several(6, 300)
        put = inner.put_chunks

        def in_part(items: Mapping[B3Digest, bytes]) -> None:
            first = dict(list(items.items())[:3])
            put(first)
            error = UnavailableError("store", "full")
            raise BatchError("store", dict.fromkeys(items.keys() - first.keys(), error), done=first)

        inner.put_chunks = in_part  # type: ignore[method-assign, assignment]
        with bounded(inner, max_bytes=1 << 20) as service:
            with pytest.raises(BatchError) as caught:
                store_of(service).put_chunks(chunks)
            assert caught.value.done == set(list(chunks)[:3])
            assert service.gauges()["entries"] == 3
            assert service.gauges()["bytes"] == bytes_of(inner)

    @pytest.mark.parametrize("leases", [False, True])
    def test_a_blob_whose_chunk_could_not_be_put(self, child: BlobService, leases: bool) -> None:
        """It gets no index, though its chunk was to be written."""
        inner = FaultyService(child, {"put_chunks"})
        chunks = several(3, 300)
        with bounded(inner, max_bytes=1 << 20) as service:
            store = store_of(service)
            with store.lease() if leases else contextlib.nullcontext(store) as into:
                with pytest.raises(UnavailableError, match="told to fail"):
                    into.put_chunks(chunks)
                with pytest.raises(BatchError, match="was evicted before blob") as caught:
                    into.put_indexes(dict.fromkeys(chunks, ()))
                assert caught.value.faults.keys() == chunks.keys()
            inner.failing.clear()
            # With the next flush it is certain that nothing has come of them.
            service.write(b"another one")
            assert service.gauges()["entries"] == 2

    def test_frames_in_parts(self, tmp_path: Path) -> None:
        inner = folder_in(tmp_path)
        chunks = several(20, 500)
        with folder_in(tmp_path / "other") as source:
            source.put_chunks(chunks)
            taken = source.get_frames(chunks)
        with bounded(inner, max_bytes=4000) as service:
            frames = service.capability(FrameStore)
            assert frames is not None
            frames.put_frames({digest: frame for digest, frame in taken.items() if isinstance(frame, bytes)})
            assert 0 < bytes_of(inner) <= 4000
            assert service.gauges()["bytes"] == bytes_of(inner)


class TestSizes:
    def test_nothing_goes_for_bytes_that_are_not_there(self, tmp_path: Path) -> None:
        """Much is reserved for chunks that take little: before anything is evicted that is looked up."""
        inner = folder_in(tmp_path)
        contents = {B3Digest.of(data): data for data in (bytes([n]) * 1000 for n in range(200))}
        with bounded(inner, max_bytes=20_000) as service:
            store = store_of(service)
            for start in range(0, 200, 10):
                some = dict(list(contents.items())[start : start + 10])
                store.put_chunks(some)
                store.put_indexes(dict.fromkeys(some, ()))
            assert service.gauges()["evictions"] == 0
            assert not service.missing(contents)
            assert service.gauges()["bytes"] == bytes_of(inner) < 20_000

    def test_a_lease_of_much_that_takes_little(self, tmp_path: Path) -> None:
        inner = folder_in(tmp_path)
        contents = {B3Digest.of(data): data for data in (bytes([n]) * 1000 for n in range(200))}
        with bounded(inner, max_bytes=20_000) as service, store_of(service).lease() as leased:
            for digest, data in contents.items():
                leased.put_chunks({digest: data})
            leased.put_indexes(dict.fromkeys(contents, ()))
            assert service.gauges()["evictions"] == 0
            assert not service.missing(contents)

    def test_some_chunks_are_blobs(self, child: BlobService) -> None:
        """Through one lease, with one call for all chunks: only those count twice that get indexes."""
        chunks = several(10, 300)
        with bounded(child, max_bytes=1 << 20) as service:
            with store_of(service).lease() as leased:
                leased.put_chunks(chunks)
                leased.put_indexes(dict.fromkeys(list(chunks)[:4], ()))
            assert service.gauges()["entries"] == 14

    def test_another_index_that_is_replaced(self, tmp_path: Path) -> None:
        """A blob that was cut, and is put again as one chunk: what it was made of may go without it."""
        inner = folder_in(tmp_path)
        data = noise(3000, 1)
        with bounded(inner, max_bytes=1 << 20) as service:
            digest = service.write(data)
            store = store_of(service)
            store.put_chunks({digest: data})
            store.put_indexes({digest: ()})
            assert inner.chunks(digest) == ()
            assert service.gauges()["bytes"] == bytes_of(inner)
            assert service.gauges()["entries"] == len(list(inner.stored_items()))
            # None of the old chunks takes the blob with it.
            place = tmp_path / "store" / "lru" / "journal.sqlite"
            with contextlib.closing(sqlite3.connect(place)) as journal:
                assert journal.execute("SELECT count(*) FROM parts").fetchone() == (0,)

    def test_a_store_that_keeps_no_index_of_a_single_chunk(self) -> None:
        """Only what it keeps is counted, and claimed."""

        class Plain(ChunkBackend, Evictable):
            def __init__(self) -> None:
                self.parts: dict[B3Digest, bytes] = {}
                self.lists: dict[B3Digest, Sequence[ChunkMeta]] = {}

            def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                return self.parts.keys() & set(digests)

            def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
                return {digest: self.parts[digest] for digest in sizes if digest in self.parts}

            def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
                self.parts |= {digest: bytes(data) for digest, data in chunks.items()}

            def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
                self.lists |= {digest: chunks for digest, chunks in blobs.items() if chunks}
                self.parts |= {digest: b"" for digest in blobs if digest == EMPTY}

            def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
                return self.lists.get(digest, () if digest in self.parts else None)

            def stored_items(self) -> Iterator[StoredItem]:
                yield from self.find_items("index", list(self.lists)).values()
                yield from self.find_items("chunk", list(self.parts)).values()

            def find_items(
                self, kind: ItemKind, digests: Iterable[B3Digest]
            ) -> Mapping[B3Digest, StoredItem]:
                if kind == "index":
                    return {d: StoredItem(kind, str(d), d, 1) for d in digests if d in self.lists}
                return {
                    d: StoredItem(kind, str(d), d, len(self.parts[d])) for d in digests if d in self.parts
                }

            def remove(self, items: Iterable[StoredItem]) -> None:
                for item in items:
                    assert item.digest is not None
                    (self.lists if item.kind == "index" else self.parts).pop(item.digest, None)

        inner = Plain()
        large = noise(2_000_000, 1)
        with bounded(inner, max_bytes=4_000_000) as service:
            chunks = several(10, 300)
            for _ in range(2):
                with store_of(service).lease() as leased:
                    leased.put_chunks(chunks)
                    leased.put_indexes(dict.fromkeys(chunks, ()))
                    assert leased.claim_blobs(dict.fromkeys(chunks, ())) == chunks.keys()
                assert service.gauges()["entries"] == 10
            service.write(b"")
            digest = service.write(large)
            assert service.gauges()["entries"] == len(inner.parts) + len(inner.lists)
            service.write(noise(2_100_000, 2))
            assert not service.has(digest)
            assert service.gauges()["bytes"] == bytes_of(inner) <= 4_000_000


def test_how_many_files_fit_together() -> None:
    assert Bounds(max_bytes=100).most(Amount(30, 2)) == 3
    assert Bounds(max_bytes=100, max_entries=5).most(Amount(30, 2)) == 2
    assert Bounds(max_entries=5).most(Amount(30, 0)) > 1 << 40
    assert Bounds(max_age=5).most(Amount(30, 2)) > 1 << 40
