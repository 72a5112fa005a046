"""What comes with the five methods of a chunk store: blobs, claims, and calls made of single ones."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from castore import B3Digest, BlobNotFoundError, ChunkMeta
from castore.contract.capabilities import BlobLister, ChunkStore, FoundChunks, FrameStore
from castore.errors import (
    BadIndexError,
    BatchError,
    CastoreError,
    CorruptBlobError,
    MissingChunkError,
    OversizedFrameError,
    UnavailableError,
    UnsupportedError,
)
from castore.format import frames
from castore.format.chunking import FastCdc2020
from castore.testing import BlobServiceContract
from castore.threads.pool import Pool, process_pool

MIB = 1 << 20
RANDOM = random.Random(3).randbytes(3 * MIB)
EMPTY = B3Digest.of(b"")


@pytest.fixture(params=[False, True], ids=["at hand", "far"])
def store(request: pytest.FixtureRequest, bare: Any) -> Any:
    return bare(high_latency=request.param)


class TestContract(BlobServiceContract):
    """It keeps the contract without having written any of it."""

    capabilities = (ChunkStore,)

    @pytest.fixture
    def service(self, store: Any) -> Any:
        return store


class TestBlobs:
    @pytest.mark.parametrize("size", [0, 1, 131_072, 131_073, MIB, 3 * MIB])
    def test_what_is_written_is_read(self, store: Any, size: int) -> None:
        """However it is written; as the chunks of the reference."""
        data = RANDOM[:size]
        digest = B3Digest.of(data)
        assert not store.has(digest)
        assert store.open_read(digest) is None
        assert store.write(data) == digest
        assert store.has(digest)
        assert store.read(digest) == data
        lengths = list(FastCdc2020().cut(memoryview(data)))
        assert [meta.size for meta in store.chunks(digest)] == (lengths if len(lengths) > 1 else [])
        other = type(store)(high_latency=store.high_latency)
        with other.open_write() as writer:
            writer.write(data[: size // 3])
            writer.write(data[size // 3 :])
        assert (other.kept, other.lists) == (store.kept, store.lists)

    def test_a_chunk_is_opened_as_a_blob(self, store: Any) -> None:
        digest = store.write(RANDOM)
        for meta in store.chunks(digest):
            assert store.has(meta.digest)
            assert store.chunks(meta.digest) == ()
            assert store.read(meta.digest) == store.kept[meta.digest]

    def test_a_known_blob_is_read_in_few_calls(self, store: Any) -> None:
        """One for a small one; for a large one its list, and its chunks together."""
        small, large = store.write(b"small"), store.write(RANDOM)
        store.calls.clear()
        store.read(small)
        assert [name for name, _ in store.calls] == ["get_chunks"]
        store.calls.clear()
        store.read(large)
        assert [name for name, _ in store.calls[:3]] == ["get_chunks", "chunks", "get_chunks"]
        assert store.count("get_chunks") <= 2 + 4

    def test_one_whose_only_chunk_is_gone_is_incomplete(self, store: Any) -> None:
        """It is not absent."""
        digest = store.write(b"small")
        del store.kept[digest]
        with pytest.raises(MissingChunkError):
            store.read(digest)

    def test_absent_ones(self, store: Any) -> None:
        absent = B3Digest.of(b"absent")
        with pytest.raises(BlobNotFoundError):
            store.read(absent)
        present = store.write(b"small")
        assert store.missing([present, absent, EMPTY, absent]) == {absent, EMPTY}

    def test_a_corrupt_list_is_there(self, store: Any) -> None:
        """Whatever is asked; reading it says what is wrong."""
        digest = store.write(RANDOM)

        def corrupt(asked: B3Digest) -> Any:
            raise BadIndexError("no list", expected=asked)

        store.chunks = corrupt
        assert store.has(digest)
        assert store.missing([digest]) == set()
        assert store.claim_blobs({digest: None}) == set()
        with pytest.raises(BadIndexError):
            store.read(digest)

    def test_an_error_is_no_absence(self, store: Any) -> None:
        def fail(name: str, digests: list[B3Digest]) -> None:
            raise UnavailableError("far", "down")

        store.before = fail
        digest = B3Digest.of(b"absent")
        for call in (store.has, store.open_read, store.read, lambda digest: store.missing([digest])):
            with pytest.raises(UnavailableError):
                call(digest)

    def test_text_is_no_digest(self, store: Any) -> None:
        with pytest.raises(TypeError, match="a B3Digest is needed"):
            store.has(str(EMPTY))

    def test_a_large_chunk_that_cannot_be_had_is_an_error(self, bare: Any) -> None:
        """A store that cuts such must say how they are read."""
        data = bytes(MIB + 1)
        digest = B3Digest.of(data)
        store = bare()
        store.put_chunk(digest, data)
        with pytest.raises(OversizedFrameError):
            store.open_read(digest)

        class Large(bare):  # type: ignore[misc]
            def get_large_chunk(self, digest: B3Digest) -> bytes | None:
                data: bytes | None = self.kept.get(digest)
                return data

        store = Large()
        store.put_chunk(digest, data)
        assert store.read(digest) == data

    def test_a_store_of_frames_reads_chunks_of_any_size(self, bare: Any) -> None:
        """Also those that are larger than it cuts: they came from another one."""

        class Frames(bare, FrameStore):  # type: ignore[misc]
            frame_format = "zstd"

            def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
                if down:
                    return dict.fromkeys(digests, UnavailableError("far", "down"))
                return {digest: frames.compress(self.kept[digest]) for digest in digests}

            def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
                raise NotImplementedError

        down = False
        store = Frames()
        data = bytes(2 * MIB)
        digest = B3Digest.of(data)
        store.put_chunk(digest, data)
        assert store.read(digest) == data
        down = True
        with pytest.raises(UnavailableError):
            store.read(digest)


# What there is of a blob of two chunks, or of one, and whether it can be claimed: by a store that tells blobs
# from chunks, and by one that does not.
STATES = {
    "two: all of it": (True, True),
    "two: a chunk is missing": (False, False),
    "two: only the chunks": (False, False),
    "one: all of it": (False, True),
    "one: its chunk is missing": (False, False),
    "one: only the chunk": (False, True),
    "none: the empty blob": (False, True),
    "nothing": (False, False),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_a_blob_is_claimed_if_all_of_it_is_there(bare: Any, state: str, tells: bool, known: bool) -> None:
    """Whether its list was given or not. One of one chunk looks like that chunk: who tells puts it again."""

    class Lister(bare, BlobLister):  # type: ignore[misc]
        def list_blobs(self) -> Iterator[B3Digest]:
            return iter(list(self.lists))

    store = (Lister if tells else bare)()
    parts = {"two": [b"one", b"two"], "none": []}.get(state.partition(":")[0], [b"one"])
    metas = [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]
    digest = B3Digest.of(b"".join(parts))
    if state != "nothing":
        store.put_chunks({B3Digest.of(part): part for part in parts})
        store.put_index(digest, metas)
    if "missing" in state:
        del store.kept[metas[-1].digest]
    elif "only" in state:
        store.lists.clear()
    claimed = store.claim_blobs({digest: metas if known else None, B3Digest.of(b"absent"): None})
    assert claimed == ({digest} if STATES[state][not tells] else set())


def test_claims_ask_for_no_more_than_a_batch(store: Any) -> None:
    """A blob may have any number of chunks, and somebody may ask for any number of blobs."""
    metas = [ChunkMeta(B3Digest.of(b"%d" % number), 1) for number in range(3000)]
    digest = B3Digest.of(b"blob")
    store.put_index(digest, metas)
    store.kept.update({meta.digest: b"" for meta in metas})
    store.calls.clear()
    assert store.claim_blob(digest)
    assert [len(digests) for name, digests in store.calls if name == "find_chunks"] == [1024, 1024, 952]
    assert set(store.digests("find_chunks")) == {meta.digest for meta in metas}
    store.calls.clear()
    absent = {B3Digest.of(b"absent %d" % number) for number in range(1500)}
    assert store.missing([*absent, *(meta.digest for meta in metas)]) == absent
    assert {len(digests) for name, digests in store.calls if name == "find_chunks"} == {1024, 4500 - 4 * 1024}


class TestHowItWorks:
    def test_it_has_the_pool_of_the_process(self, bare: Any) -> None:
        """The wide one if its requests mostly wait."""
        assert bare().pool is process_pool()
        assert bare(high_latency=True).pool is process_pool().io_pool

    def test_it_cuts_as_the_reference(self, bare: Any) -> None:
        chunker = bare().new_chunker()
        assert (type(chunker), chunker.avg_size) == (FastCdc2020, 256 << 10)

    def test_a_lease_gives_the_store_itself(self, bare: Any) -> None:
        store = bare()
        for brief in (False, True):
            with store.lease(brief=brief) as leased:
                assert leased is store

    def test_no_constructor_need_be_called(self) -> None:
        """Nor anything be written but the five methods."""
        from castore.chunks.backend import ChunkBackend  # noqa: PLC0415 - as a stranger would

        class Shelf(ChunkBackend):
            kept: dict[B3Digest, bytes] = {}  # noqa: RUF012 - there is one shelf
            lists: dict[B3Digest, Sequence[ChunkMeta]] = {}  # noqa: RUF012 - as above

            def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                return self.kept.keys() & set(digests)

            def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
                return {digest: self.kept[digest] for digest in sizes if digest in self.kept}

            def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
                self.kept.update({digest: bytes(data) for digest, data in chunks.items()})

            def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
                self.lists.update(blobs)

            def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
                return self.lists.get(digest)

        shelf = Shelf()
        assert shelf.read(shelf.write(RANDOM)) == RANDOM
        assert shelf.capability(ChunkStore) is shelf


DIGESTS = [B3Digest.of(bytes([number])) for number in range(6)]


class TestCallsForMany:
    """Those that are made of single ones, for stores that have nothing better."""

    def test_they_are_made_at_once_where_they_mostly_wait(self, bare: Any) -> None:
        """In order otherwise. Each digest once, however often it is asked for."""
        meeting = threading.Barrier(len(DIGESTS), timeout=30)
        pool = Pool(len(DIGESTS))
        store = bare(pool, high_latency=True)
        wanted = [*DIGESTS, *DIGESTS]
        assert store._find_each(lambda digest: meeting.wait() >= 0, wanted) == set(DIGESTS)
        assert store._get_each(lambda digest: bytes([meeting.wait() >= 0]), wanted).keys() == set(DIGESTS)
        store._put_each(lambda digest: meeting.wait(), wanted)
        pool.close()
        seen: list[B3Digest] = []
        bare()._put_each(seen.append, wanted)
        assert seen == DIGESTS

    def test_what_is_absent_is_left_out_and_an_error_has_its_place(self, store: Any) -> None:
        error = CorruptBlobError("wrong", expected=DIGESTS[1])

        def get(digest: B3Digest) -> bytes | None:
            if digest == DIGESTS[1]:
                raise error
            return None if digest == DIGESTS[2] else bytes(digest)

        found = store._get_each(get, DIGESTS[:4])
        assert found == {DIGESTS[0]: bytes(DIGESTS[0]), DIGESTS[1]: error, DIGESTS[3]: bytes(DIGESTS[3])}

    @pytest.mark.parametrize("failing", [{0}, {2}, {5}, {1, 4}, set(range(6))])
    def test_a_put_in_part_tells_what_was_done(self, store: Any, failing: set[int]) -> None:
        """Every digest is among what was done or among the faults. What is at hand is not tried any more."""
        made: list[B3Digest] = []

        def put(digest: B3Digest) -> None:
            made.append(digest)
            if DIGESTS.index(digest) in failing:
                raise UnavailableError("far", f"no way to {DIGESTS.index(digest)}")

        with pytest.raises(BatchError) as caught:
            store._put_each(put, DIGESTS)
        first = min(failing)
        faults = failing if store.high_latency else set(range(first, 6))
        assert caught.value.faults.keys() == {DIGESTS[number] for number in faults}
        assert caught.value.done == set(DIGESTS) - caught.value.faults.keys()
        assert len(made) == (6 if store.high_latency else first + 1)
        assert caught.value.instance == "far"
        assert f"no way to {first}" in str(caught.value)

    @pytest.mark.parametrize("error", [UnavailableError("far", "down"), UnsupportedError("never")])
    def test_what_fails_alone_fails_with_its_own_error(self, store: Any, error: CastoreError) -> None:
        """And what can never be done is said as it is."""

        def put(digest: B3Digest) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            store._put_each(put, DIGESTS[:1])
        assert caught.value is error
        with pytest.raises(BatchError if isinstance(error, UnavailableError) else UnsupportedError):
            store._put_each(put, DIGESTS)
