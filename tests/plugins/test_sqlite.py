"""The `sqlite` type: its config and URL, what is in the file, claims, sweeps, and errors with a way out."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import castore
import castore_sqlite.config
from castore import B3Digest, ChunkMeta, Composition, CompositionError, MissingChunkError, UnavailableError
from castore.contract.capabilities import BlobDeleter
from castore.contract.upkeep import StoredItem
from castore.format.chunking import FastCdc2016
from castore.testing import BLOB_B, CHUNKS, EMPTY, HELLO, P3M
from castore.threads.pool import Pool
from castore_sqlite.config import SqliteConfig
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService

WHOLE = B3Digest.of(bytes(range(16)))


@pytest.fixture
def service_on() -> Iterator[Callable[..., SqliteBlobService]]:
    """Make services over files, which are closed in the end."""
    made: list[SqliteBlobService] = []

    def make(path: Path, **options: Any) -> SqliteBlobService:
        database = Database(path, instance="root", durability=options.pop("durability", "process"), **options)
        made.append(SqliteBlobService(database, avg_chunk_size=1024, pool=Pool(0)))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blobs.sqlite"


@pytest.fixture
def blobs(service_on: Any, path: Path) -> SqliteBlobService:
    service: SqliteBlobService = service_on(path)
    return service


def root(**table: Any) -> dict[str, Any]:
    return {"blobservices": {"root": {"type": "sqlite", **table}}}


def ask(path: Path, statement: str, *parameters: object) -> list[Any]:
    """Look into a file, or change it, as any program can."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def grow_old(path: Path, seconds: float) -> None:
    for table in ("chunks", "indexes"):
        ask(path, f"UPDATE {table} SET modified = modified - ?", int(seconds * 1000))


class TestConfig:
    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:/folder/blobs.sqlite", "/folder/blobs.sqlite"),
            ("sqlite:blobs.sqlite", "blobs.sqlite"),
            ("sqlite:./a/b", "a/b"),
            ("sqlite:../x", "../x"),
            ("SQLITE:x", "x"),
            ("sqlite:a%20b%3Fc", "a b?c"),
        ],
    )
    def test_url(self, url: str, path: str) -> None:
        """Behind the colon there is a path, percent-decoded."""
        assert SqliteConfig.from_url(url) == SqliteConfig(Path(path))

    def test_fields_in_a_url(self) -> None:
        """The query has the other fields, as TOML would."""
        query = (
            "durability=process&busy_timeout=250%20ms&journal_size_limit=1+MiB&avg_chunk_size=65536"
            "&chunker=fastcdc-2016&compression_level=-3"
        )
        assert SqliteConfig.from_url(f"sqlite:x?{query}") == SqliteConfig(
            Path("x"),
            "process",
            0.25,
            1 << 20,
            avg_chunk_size=65536,
            chunker=FastCdc2016,
            compression_level=-3,
        )

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("sqlite:", "the path is missing"),
            ("sqlite:?durability=full", "the path is missing"),
            ("sqlite://host/path", "no host, and no `//`; write `sqlite:/folder/blobs.sqlite`"),
            ("sqlite:///path", "no host, and no `//`"),
            ("sqlite+file:/path", "no second scheme"),
            ("sqlite:/", "a file is needed"),
            ("sqlite:.", "a file is needed"),
            ("sqlite:a%00b", "NUL"),
            ("sqlite::memory:", '`type = "memory"`'),
            ("sqlite:x#y", "`#`"),
            ("sqlite:x?durability", "without `=`"),
            ("sqlite:x?durability=half", "durability"),
            ("sqlite:x?durabilty=full", "did you mean `durability`"),
            ("sqlite:x?path=y", "`path` is not for the query"),
            ("sqlite:x?durability=full&durability=process", "`durability` is given twice"),
            ("sqlite:x?compression_level=high", "compression_level"),
            ("sqlite:x?compression_level=23", "-7 to 22"),
            ("sqlite:x?avg_chunk_size=1", "avg_chunk_size"),
            ("sqlite:x?busy_timeout=-1", "negative"),
            ("sqlite:x?chunker=rabin", "rabin"),
        ],
    )
    def test_refused_urls(self, url: str, why: str) -> None:
        """What is wrong with a URL is a problem of the config, with a way out."""
        with pytest.raises(CompositionError) as caught:
            castore.from_url(url)
        problem = caught.value.problems[0]
        assert why in f"{problem.message}; {problem.hint}"

    @pytest.mark.parametrize(
        "table",
        [
            {},
            {"path": ""},
            {"path": "x", "durability": "some"},
            {"path": "x", "busy_timeout": "2 days"},
            {"path": "x", "timeout": 5},
        ],
    )
    def test_refused_tables(self, table: dict[str, Any]) -> None:
        """A value that cannot be, or a key that is none."""
        with pytest.raises(CompositionError, match=r"blobservices\.root"):
            Composition.from_mapping(root(**table))

    def test_a_relative_path_starts_at_the_composition(self, tmp_path: Path) -> None:
        """Wherever the program is; and the folders are made with the first blob, not before."""
        with Composition.from_mapping(root(path="a/b.db"), base=tmp_path) as stores:
            assert stores.blobs().has(HELLO.digest) is False
            assert stores.blobs().open_read(HELLO.digest) is None
            assert not (tmp_path / "a").exists()
            stores.blobs().write(HELLO.data)
        assert names_in(tmp_path / "a") == ["b.db"]
        with castore.from_url(f"sqlite:{tmp_path}/a/b.db") as blobs:
            assert blobs.read(HELLO.digest) == HELLO.data

    def test_the_example_in_the_documentation_loads(self, tmp_path: Path) -> None:
        """The TOML at the head of the module is a composition, with the defaults."""
        text = textwrap.dedent((castore_sqlite.config.__doc__ or "").partition("::\n")[2])
        (tmp_path / "composition.toml").write_text(text)
        with Composition.from_toml(tmp_path / "composition.toml") as stores:
            assert isinstance(stores.blobs(), SqliteBlobService)
            assert stores.blobs().durability == "full"  # type: ignore[attr-defined]


class TestFile:
    def test_what_is_in_it(self, blobs: SqliteBlobService, path: Path, service_on: Any) -> None:
        """Chunks as zstd frames and indexes as others have them, by their digests; all in one file."""
        digest = blobs.write(P3M.data)
        blobs.write(HELLO.data)
        blobs.close()
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        assert ask(path, "PRAGMA application_id") == [(int.from_bytes(b"b3cs", "big"),)]
        assert ask(path, "PRAGMA user_version") == [(2,)]
        assert ask(path, "PRAGMA integrity_check") == [("ok",)]
        ((frame,),) = ask(path, "SELECT frame FROM chunks WHERE digest = ?", bytes(HELLO.digest))
        assert frame == castore.format.frames.compress(HELLO.data)
        assert ask(path, "SELECT chunks FROM indexes WHERE digest = ?", bytes(HELLO.digest)) == [(b"",)]
        ((index,),) = ask(path, "SELECT chunks FROM indexes WHERE digest = ?", bytes(digest))
        assert castore.format.blob_index.decode(index, digest) == tuple(service_on(path).chunks(digest))

    def test_paths_with_odd_characters(self, service_on: Any, tmp_path: Path) -> None:
        """A name means nothing to SQLite but a file."""
        name = "a?mode=memory&b#c%41 'é\udcff.sqlite"
        service_on(tmp_path / name).write(HELLO.data)
        assert service_on(tmp_path / name).read(HELLO.digest) == HELLO.data
        assert name in names_in(tmp_path)

    def test_the_empty_blob_must_be_put(self, blobs: SqliteBlobService, path: Path) -> None:
        """It is an index and no chunk."""
        blobs.write(HELLO.data)
        assert blobs.open_read(EMPTY.digest) is None
        assert blobs.write(b"") == EMPTY.digest
        assert blobs.read(EMPTY.digest) == b""
        assert blobs.claim_blob(EMPTY.digest)
        assert ask(path, "SELECT count(*) FROM chunks") == [(1,)]

    def test_it_cannot_delete(self, blobs: SqliteBlobService) -> None:
        """`has` would still be true for the chunk of a small blob."""
        assert blobs.capability(BlobDeleter) is None

    def test_settings_are_those_of_new_chunks(self, path: Path, service_on: Any) -> None:
        """A file may be opened with others at any time, and all of it read."""
        large = SqliteBlobService(Database(path, instance="root"), pool=Pool(0))
        digest = large.write(BLOB_B.data)
        assert service_on(path).read(digest) == BLOB_B.data
        assert len(service_on(path).chunks(digest)) == len(large.chunks(digest) or ())
        large.close()


class TestWaiting:
    def test_a_chunk_waits_and_is_found(self, blobs: SqliteBlobService, path: Path, service_on: Any) -> None:
        """Chunks are not committed one by one; this service has them, others when an index is put."""
        other = service_on(path)
        blobs.write(b"")
        for chunk in CHUNKS:
            blobs.put_chunk(chunk.digest, chunk.data)
        assert ask(path, "SELECT count(*) FROM chunks") == [(0,)]
        for chunk in CHUNKS:
            assert blobs.has(chunk.digest)
            assert blobs.has_chunk(chunk.digest)
            assert blobs.claim_chunk(chunk.digest)
            assert blobs.get_chunk(chunk.digest) == chunk.data
            assert blobs.missing([chunk.digest]) == set()
            assert blobs.chunks(chunk.digest) == ()
            assert not other.has(chunk.digest)
        blobs.put_index(WHOLE, [chunk.meta for chunk in CHUNKS])
        assert other.read(WHOLE) == bytes(range(16))

    @pytest.mark.parametrize(("size", "count"), [(0, 2048), (1 << 20, 8)])
    def test_no_more_wait_than_memory_allows(
        self, blobs: SqliteBlobService, path: Path, size: int, count: int
    ) -> None:
        """By their number and by their bytes: the one that is too many commits those before it."""
        source = random.Random(1)
        datas = [source.randbytes(size + 8) for _ in range(count + 1)]
        blobs.write(b"")
        for data in datas[:-1]:
            blobs.put_chunk(B3Digest.of(data), data)
        assert ask(path, "SELECT count(*) FROM chunks") == [(0,)]
        blobs.put_chunk(B3Digest.of(datas[-1]), datas[-1])
        assert ask(path, "SELECT count(*) FROM chunks") == [(count,)]

    def test_close_commits(self, blobs: SqliteBlobService, path: Path) -> None:
        """What waits is in the file when the service is closed."""
        blobs.put_chunk(HELLO.digest, HELLO.data)
        blobs.put_frames({CHUNKS[0].digest: castore.format.frames.compress(CHUNKS[0].data)})
        blobs.close()
        assert ask(path, "SELECT count(*) FROM chunks") == [(2,)]

    @pytest.mark.parametrize("count", [1, 500])
    def test_many_files_take_one_transaction(
        self, service_on: Any, path: Path, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Chunks and indexes of all of them go into the file together."""
        blobs = service_on(path, durability="full")
        (path.parent / "files").mkdir()
        files = [path.parent / "files" / str(number) for number in range(count)]
        for file in files:
            file.write_bytes(file.name.encode() * 50)
        found = list(blobs.put_files(files))
        assert found == [B3Digest.of(file.read_bytes()) for file in files]
        # Each lasting transaction leaves its mark.
        assert ask(path, "SELECT number FROM flushes") == [(1,)]


class TestClaims:
    def test_a_claim_renews_what_is_old(self, blobs: SqliteBlobService, path: Path) -> None:
        """Of chunks and of whole blobs; a time that is recent stays."""
        digest = blobs.write(P3M.data)
        before = ask(path, "SELECT digest, modified FROM chunks ORDER BY id")
        chunk = B3Digest(before[0][0])
        assert blobs.claim_chunk(chunk)
        assert ask(path, "SELECT digest, modified FROM chunks ORDER BY id") == before
        grow_old(path, 1000)
        assert blobs.claim_chunk(chunk)
        times = [modified for _, modified in ask(path, "SELECT digest, modified FROM chunks ORDER BY id")]
        assert times[0] >= before[0][1] > times[1]
        assert blobs.claim_blob(digest)
        oldest = ask(path, "SELECT min(modified) FROM (SELECT * FROM (SELECT modified FROM chunks) UNION "
                     "SELECT modified FROM indexes)")  # fmt: skip
        assert oldest[0][0] >= before[0][1]

    def test_several_claims_renew_what_is_old(self, blobs: SqliteBlobService, path: Path) -> None:
        """All that are there, and no others; absent ones are not claimed."""
        parts = {B3Digest.of(part): part for part in (b"a", b"b", b"c")}
        blobs.put_chunks(parts)
        blobs.put_index(B3Digest.of(b"a"), ())
        grow_old(path, 1000)
        start = int((time.time() - 1) * 1000)
        waiting = B3Digest.of(b"waits")
        blobs.put_chunk(waiting, b"waits")
        some = {*list(parts)[:2], waiting}
        assert blobs.claim([*some, B3Digest.of(b"absent")]) == some
        times = dict(ask(path, "SELECT digest, modified FROM chunks"))
        assert {digest for digest, time_ in times.items() if time_ > start} == some - {waiting}

    @pytest.mark.parametrize("age", [0, 1000], ids=["recent", "old"])
    def test_many_blobs_are_claimed_with_few_statements(
        self, blobs: SqliteBlobService, path: Path, monkeypatch: pytest.MonkeyPatch, age: int
    ) -> None:
        """400 with one query; their times are renewed with two in all, if that is needed."""
        digests = dict.fromkeys((blobs.write(b"%d" % number) for number in range(800)), ())
        grow_old(path, age)
        start = int((time.time() - 1) * 1000)
        queries: list[str] = []
        fetch = blobs._database.fetch

        def counted(statement: str, parameters: Any = ()) -> Any:
            queries.append(statement)
            return fetch(statement, parameters)

        monkeypatch.setattr(blobs._database, "fetch", counted)
        assert blobs.claim_blobs({**digests, B3Digest.of(b"absent"): ()}) == set(digests)
        assert len(queries) == (3 if not age else 5)
        times = ask(path, "SELECT modified FROM chunks UNION ALL SELECT modified FROM indexes")
        assert len(times) == 1600
        assert not age or all(time_ > start for (time_,) in times)

    @pytest.mark.parametrize("table", ["chunks", "indexes"])
    def test_blobs_swept_while_many_are_claimed(
        self, blobs: SqliteBlobService, path: Path, monkeypatch: pytest.MonkeyPatch, table: str
    ) -> None:
        """Those that are gone when their times are to be renewed are not claimed, the others are."""
        digests = [blobs.write(b"%d" % number) for number in range(50)]
        grow_old(path, 1000)
        writing = blobs._database.writing

        def write_late(*, lasting: bool) -> Any:
            ask(path, f"DELETE FROM {table} WHERE digest = x'{digests[7]}'")
            return writing(lasting=lasting)

        monkeypatch.setattr(blobs._database, "writing", write_late)
        assert blobs.claim_blobs(dict.fromkeys(digests, ())) == {*digests} - {digests[7]}

    def test_a_blob_is_claimed_whole_or_not(self, blobs: SqliteBlobService, path: Path) -> None:
        """Without its index, with a damaged one, or without a chunk it has to be written again."""
        assert blobs.claim_blob(P3M.digest) is False
        digest = blobs.write(P3M.data)
        assert blobs.claim_blob(digest)
        ask(path, "DELETE FROM chunks WHERE id = 5")
        assert blobs.claim_blob(digest) is False
        assert blobs.write(P3M.data) == digest
        assert blobs.claim_blob(digest)
        ask(path, "UPDATE indexes SET chunks = x'ff'")
        assert blobs.claim_blob(digest) is False

    def test_an_index_with_another_list_is_replaced(self, blobs: SqliteBlobService, path: Path) -> None:
        """Storing a blob again heals its index, whatever is wrong with it."""
        digest = blobs.write(P3M.data)
        chunks = list(blobs.chunks(digest) or ())
        halves = [P3M.data[: 1 << 20], P3M.data[1 << 20 :]]
        for half in halves:
            blobs.put_chunk(B3Digest.of(half), half)
        other = [ChunkMeta(B3Digest.of(half), len(half)) for half in halves]
        blobs.put_index(digest, other)
        assert list(blobs.chunks(digest) or ()) == other
        absent = [ChunkMeta(B3Digest(bytes(32)), len(P3M.data) - 5), ChunkMeta(B3Digest(bytes(32)), 5)]
        for wrong in (
            castore.format.blob_index.encode(absent),
            b"\xff",
            castore.format.blob_index.encode(other[:1] * 2),
            castore.format.blob_index.encode(chunks[1:]),
            castore.format.blob_index.encode(chunks[::-1]),
        ):
            ask(path, "UPDATE indexes SET chunks = ?", wrong)
            assert blobs.write(P3M.data) == digest
            assert list(blobs.chunks(digest) or ()) == chunks

    def test_known_blobs_are_put_again(self, blobs: SqliteBlobService, path: Path) -> None:
        """And count as just put."""
        digests = [blobs.write(data) for data in (b"", HELLO.data, P3M.data)]
        grow_old(path, 1000)
        start = int((time.time() - 1) * 1000)
        assert [blobs.write(data) for data in (b"", HELLO.data, P3M.data)] == digests
        assert ask(path, "SELECT min(modified) FROM chunks")[0][0] > start
        assert ask(path, "SELECT min(modified) FROM indexes")[0][0] > start


class TestKeeping:
    def test_every_row_is_listed(self, blobs: SqliteBlobService, path: Path) -> None:
        """Indexes first, then chunks, with sizes and times, over more than one page; also what waits."""
        data = [str(number).encode() for number in range(1200)]
        for entry in data:
            blobs.put_chunk(B3Digest.of(entry), entry)
        blobs.put_indexes({B3Digest.of(entry): () for entry in data})
        blobs.put_chunk(HELLO.digest, HELLO.data)
        items = list(blobs.list_items())
        digests = {B3Digest.of(entry) for entry in data}
        assert [item.kind for item in items] == ["index"] * 1200 + ["chunk"] * 1201
        assert {item.digest for item in items[:1200]} == digests == set(blobs.list_blobs())
        assert {item.digest for item in items[1200:]} == digests | {HELLO.digest}
        last = items[-1]
        assert last.key == f"chunks/{HELLO.digest}"
        assert last.size == len(blobs.get_frames([HELLO.digest])[HELLO.digest])
        assert abs((last.modified or 0) - time.time()) < 60

    def test_rows_that_are_none_are_residue(self, blobs: SqliteBlobService, path: Path) -> None:
        """Whoever put them there; they can be set aside."""
        blobs.write(HELLO.data)
        ask(path, "INSERT INTO chunks (digest, modified, frame) VALUES (x'00', 'yesterday', 5)")
        ask(path, "INSERT INTO indexes VALUES (x'01', 0, x'')")
        residue = [item for item in blobs.list_items() if item.kind == "residue"]
        assert [item.key for item in residue] == ["indexes/01", "chunks/00"]
        for item in residue:
            blobs.set_aside(item)
        assert {item.digest for item in blobs.list_items()} == {HELLO.digest}
        assert list(blobs.list_blobs()) == [HELLO.digest]

    def test_set_aside(self, blobs: SqliteBlobService, path: Path) -> None:
        """The row is in quarantine with its bytes, beside one of the same key, and absent for readers."""
        for number in (1, 2):
            blobs.write(HELLO.data)
            index, chunk = blobs.list_items()
            assert blobs.set_aside(chunk) == f"quarantine/{2 * number - 1}/chunks/{HELLO.digest}"
            assert not blobs.has_chunk(HELLO.digest)
            with pytest.raises(MissingChunkError, match=re.escape(str(path))):
                blobs.read(HELLO.digest)
            assert blobs.set_aside(index) == f"quarantine/{2 * number}/indexes/{HELLO.digest}"
            assert not blobs.has(HELLO.digest)
        with pytest.raises(UnavailableError, match=r"is not in .* any more"):
            blobs.set_aside(index)
        frame = castore.format.frames.compress(HELLO.data)
        assert (
            ask(path, "SELECT digest, data FROM quarantine WHERE kind = 'chunks'")
            == [(bytes(HELLO.digest), frame)] * 2
        )

    def test_a_sweep_removes_what_is_old_and_not_claimed(
        self, blobs: SqliteBlobService, path: Path, service_on: Any
    ) -> None:
        """The age is that of the moment of removal, and a claim in between renews it."""
        for number in range(500):
            blobs.put_chunk(B3Digest.of(b"%d" % number), b"%d" % number)
        blobs.put_indexes([(B3Digest.of(b"%d" % number), ()) for number in range(500)])
        items = list(blobs.list_items())
        assert list(blobs.sweep(items, older_than=time.time())) == []
        grow_old(path, 1000)
        claimed = B3Digest.of(b"7")
        assert service_on(path).claim_chunk(claimed)
        again = B3Digest.of(b"8")
        blobs.put_chunk(again, b"8")
        gone = list(blobs.sweep(items, older_than=time.time() - 500))
        assert len(gone) == 999
        assert not any(item.digest == claimed and item.kind == "chunk" for item in gone)
        assert list(blobs.list_blobs()) == []
        assert {item.digest for item in blobs.list_items()} == {claimed, again}
        assert list(blobs.sweep(gone[:3], older_than=time.time())) == []

    def test_a_claim_of_what_is_swept_in_that_moment(
        self, blobs: SqliteBlobService, path: Path, monkeypatch: pytest.MonkeyPatch, service_on: Any
    ) -> None:
        """Comes after it, and says that the chunk is gone."""
        blobs.write(HELLO.data)
        grow_old(path, 1000)
        fetch = blobs._database.fetch

        def fetch_and_be_late(statement: str, parameters: Any = ()) -> Any:
            found = fetch(statement, parameters)
            assert len(list(other.sweep(items, older_than=time.time() - 500))) == 1
            return found

        other = service_on(path)
        items = [StoredItem("chunk", f"chunks/{HELLO.digest}", HELLO.digest)]
        monkeypatch.setattr(blobs._database, "fetch", fetch_and_be_late)
        assert blobs.claim_chunk(HELLO.digest) is False

    def test_leases(self, blobs: SqliteBlobService, path: Path, service_on: Any) -> None:
        """The oldest counts, those of the dead do not; afterwards nothing is left beside the file."""
        other = service_on(path)
        assert other.leased_since() is None
        start = time.time() - 1
        with blobs.lease(), blobs.lease():
            held = other.leased_since()
            assert held is not None
            assert start < held < time.time() + 1
        assert other.leased_since() is None
        dead = path.with_name(f"{path.name}-lease-{uuid.uuid4()}")
        dead.touch()
        assert other.leased_since() is None
        (mark,) = (item for item in other.list_items() if item.kind == "residue")
        assert list(other.sweep([mark], older_than=time.time())) == []
        os.utime(dead, (1000, 1000))
        assert list(other.sweep([mark], older_than=time.time())) == [mark]
        assert not dead.exists()
        blobs.close()
        assert names_in(path.parent) in ([], [path.name])


def test_a_reader_that_comes_back_after_close_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next query is answered: the file is where it was."""
    database = Database(path, instance="root", durability="process")
    with database.writing(lasting=False):
        pass
    put_back, brought = database._put_back, []

    def closed_meanwhile(connection: sqlite3.Connection, readers: list[sqlite3.Connection]) -> None:
        monkeypatch.undo()
        database.close()
        brought.append(connection)
        put_back(connection, readers)

    monkeypatch.setattr(database, "_put_back", closed_meanwhile)
    for _ in range(3):
        assert database.fetch("SELECT 1") == [(1,)]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        brought[0].execute("SELECT 1")
    database.close()
