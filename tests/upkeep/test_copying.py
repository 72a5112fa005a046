"""Copying between services of any kind."""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobNotFoundError,
    BlobService,
    ChunkMeta,
    CorruptBlobError,
    CorruptChunkError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import BlobLister, FoundChunks
from castore.errors import BatchError
from castore.format import blob_index, frames
from castore.testing import EMPTY, HELLO, P3M
from castore.threads.pool import Pool
from castore.upkeep import Copier, CopyCounts, collect, copy, verify
from castore_memory.service import MemoryBlobService
from castore_objectstore.service import ObjectStoreBlobService

NOBODY = B3Digest(bytes(32))


class Counting(ObjectStoreBlobService):
    """Counts the calls and what is written, and refuses after `room` chunks."""

    room = 1 << 30

    @property
    def log(self) -> list[Any]:
        """The chunks and frames that were put, and how many indexes at a time."""
        return vars(self).setdefault("_log", [])  # type: ignore[no-any-return]

    @property
    def calls(self) -> Counter[str]:
        return vars(self).setdefault("_calls", Counter())  # type: ignore[no-any-return]

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        self.calls["find_chunks"] += 1
        return super().find_chunks(digests)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        self.calls["missing"] += 1
        return super().missing(digests)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        self.calls["chunks"] += 1
        return super().chunks(digest)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        self.calls["get_chunks"] += 1
        return super().get_chunks(sizes)

    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        self.calls["get_frames"] += 1
        return super().get_frames(digests)

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        self.calls["claim"] += 1
        return super().claim(digests)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        self.calls["claim_blobs"] += 1
        return super().claim_blobs(blobs)

    def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
        self.calls["put_chunks"] += 1
        self._put("chunk", chunks, super().put_chunks)

    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        self.calls["put_frames"] += 1
        self._put("frame", frames, super().put_frames)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self.calls["put_indexes"] += 1
        if blobs:
            self.log.append(len(blobs))
        super().put_indexes(blobs)

    def _put(self, word: str, items: Mapping[B3Digest, Any], put: Callable[[Any], None]) -> None:
        if self.leased_since() is None:
            self.log.append("not leased")
        room = self.room - sum(entry in {"chunk", "frame"} for entry in self.log)
        fitting = dict(islice(items.items(), room))
        put(fitting)
        self.log.extend([word] * len(fitting))
        if len(fitting) < len(items):
            full = UnavailableError("there", "No space left on device")
            raise BatchError("there", dict.fromkeys(items.keys() - fitting.keys(), full), done=fitting)


class Unpacked(Counting):
    """Keeps no frames that another one could take."""

    frame_format = "other"


def contents(service: BlobService) -> set[B3Digest]:
    lister = service.capability(BlobLister)
    assert lister is not None
    return set(lister.list_blobs())


class TestStores:
    """From object store to object store."""

    @pytest.mark.parametrize("size", [0, 1, 4])
    def test_everything_is_copied_and_the_second_run_copies_nothing(
        self, make_place: Any, make_local: Any, long: bytes, size: int
    ) -> None:
        source, target = make_place(), make_local("there", cls=Counting)
        blobs = {source.service.write(data): data for data in (long, long + b"!", HELLO.data, b"")}
        workers = Pool(size)
        seen: list[int] = []

        tally, failed = copy(source.service, target.service, pool=workers, progress=seen.append)

        assert failed == []
        assert contents(target.service) == set(blobs)
        assert verify(target.service).ok
        assert {digest: target.service.read(digest) for digest in blobs} == blobs
        counted = tally.bytes_copied + tally.bytes_skipped + tally.bytes_repeated
        assert sum(seen) == counted == sum(map(len, blobs.values()))
        assert (tally.blobs_copied, tally.blobs_skipped) == (4, 0)

        target.service.log.clear()
        again, failed = copy(source.service, target.service, pool=workers)
        workers.close()
        assert (again, failed, target.service.log) == (CopyCounts(blobs_skipped=4), [], [])

    def test_boundaries_and_frames_are_kept(self, make_place: Any, make_local: Any, long: bytes) -> None:
        """Whatever the target would do itself: nothing is cut or compressed again."""
        source, target = make_place(), make_local("there", avg=4096, cls=Counting)
        blob = source.service.write(long)
        for meta in source.service.chunks(blob):
            data = source.service.get_chunk(meta.digest)
            source.put("chunks", meta.digest, frames.compress(data, 19))
        source.put("chunks", source.service.write(HELLO.data), frames.compress(HELLO.data, -7))

        copy(source.service, target.service)

        assert target.service.chunks(blob) == source.service.chunks(blob)
        for chunk in (*(meta.digest for meta in source.service.chunks(blob)), HELLO.digest):
            assert target.get("chunks", chunk) == source.get("chunks", chunk)
        assert "chunk" not in target.service.log

    def test_chunks_that_are_there_are_not_sent(self, make_place: Any, make_local: Any, long: bytes) -> None:
        source, target = make_place(), make_local("there", cls=Counting)
        first = source.service.write(long)
        copy(source.service, target.service, [first])
        second = source.service.write(long + b"and more")
        target.service.log.clear()

        tally, _ = copy(source.service, target.service, [second])

        new = {meta.digest for meta in source.service.chunks(second)}
        new -= {meta.digest for meta in source.service.chunks(first)}
        assert target.service.log == ["frame"] * len(new) + [1]
        assert tally.chunks_copied == len(new)
        assert tally.chunks_skipped == len(source.service.chunks(second)) - len(new)

    def test_what_blobs_have_in_common_is_not_skipped(
        self, make_place: Any, make_local: Any, long: bytes
    ) -> None:
        """Only what was there before is; the rest counts once, and is repeated from then on."""
        source, target = make_place(), make_local("there")
        blobs = [source.service.write(data) for data in (long, long + b"and more", bytes(1 << 20))]
        lists = [source.service.chunks(blob) for blob in blobs]
        sizes = {meta.digest: meta.size for metas in lists for meta in metas}
        target.service.put_chunk(lists[0][0].digest, source.service.get_chunk(lists[0][0].digest))

        tally, _ = copy(source.service, target.service)

        there, total = lists[0][0].size, sum(map(len, lists))
        repeated = sum(meta.size for metas in lists for meta in metas) - sum(sizes.values())
        assert (tally.chunks_skipped, tally.bytes_skipped) == (1, there)
        assert (tally.chunks_copied, tally.bytes_copied) == (len(sizes) - 1, sum(sizes.values()) - there)
        assert (tally.chunks_repeated, tally.bytes_repeated) == (total - len(sizes), repeated)

    def test_a_torn_chunk_there_is_sent_again(self, make_place: Any, make_local: Any, long: bytes) -> None:
        source, target = make_place(), make_local("there")
        blob = source.service.write(long)
        target.put("chunks", source.service.chunks(blob)[2].digest, b"")

        copy(source.service, target.service)

        assert target.service.read(blob) == long

    def test_small_blobs_appear_many_at_a_time(self, make_local: Any) -> None:
        """One flush serves for all of them; and collectors of garbage are kept away meanwhile."""
        source, target = make_local(), make_local("there", cls=Counting)
        for number in range(600):
            source.service.write(b"%d" % number)

        copy(source.service, target.service, pool=Pool(0))

        assert [entry for entry in target.service.log if isinstance(entry, int)] == [256, 256, 88]
        assert "not leased" not in target.service.log
        assert target.service.leased_since() is None

    @pytest.mark.parametrize("cls", [Counting, Unpacked])
    def test_a_call_is_for_many(self, make_local: Any, cls: Any) -> None:
        """Of small blobs no sizes are known: so many are read by one call as could have 1 MiB each."""
        source, target = make_local(cls=cls), make_local("there", cls=Counting)
        count = 1024
        for number in range(count):
            source.service.write(b"%d" % number)
        source.service.calls.clear()

        copy(source.service, target.service, pool=Pool(0))

        how = "frames" if cls is Counting else "chunks"
        assert source.service.calls == {"find_chunks": 1, f"get_{how}": count // 16}
        puts = count // 256
        assert target.service.calls == {"claim": puts, f"put_{how}": puts, "put_indexes": puts}

        target.service.calls.clear()
        copy(source.service, target.service, pool=Pool(0))
        # What it asks of itself is its own affair.
        outside = target.service.calls.keys() - {"chunks", "claim"}
        assert {name: target.service.calls[name] for name in outside} == {"claim_blobs": 1, "put_indexes": 1}

    @pytest.mark.parametrize("cls", [Counting, Unpacked])
    def test_chunks_of_a_large_blob_go_many_by_one_call(self, make_local: Any, cls: Any) -> None:
        """Their sizes are in the index."""
        source, target = make_local(cls=cls), make_local("there", cls=Counting)
        blob = source.service.write(random.Random(1).randbytes(300_000))
        chunks = source.service.chunks(blob)
        assert len(chunks) > 200
        source.service.calls.clear()

        copy(source.service, target.service, pool=Pool(0))

        assert target.service.chunks(blob) == chunks
        assert sum(source.service.calls.values()) <= 4
        assert sum(target.service.calls.values()) <= 8

    def test_what_is_there_is_claimed_by_the_leased_store_also_after_frames(
        self, make_local: Any, long: bytes
    ) -> None:
        """Frames do not go through it, and what does not is not kept from an evictor."""
        claimed: set[B3Digest] = set()

        class Leased(MemoryBlobService):
            """Stands for the store within, and loses the first frame that it is asked for."""

            def __init__(self, inner: ObjectStoreBlobService) -> None:
                super().__init__()
                self.inner = inner

            def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
                found = self.inner.claim(digests)
                claimed.update(found)
                return found - lost

            def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
                assert set(chunks) == lost
                self.inner.put_chunks(chunks)

            def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
                self.inner.put_indexes(blobs)

        class Leasing(Counting):
            def lease(self, *, brief: bool = False) -> Any:
                return contextlib.nullcontext(Leased(self))

        source, target = make_local(), make_local("there", cls=Leasing)
        blob = source.service.write(long)
        chunks = {meta.digest for meta in source.service.chunks(blob)}
        lost = {min(chunks)}

        copy(source.service, target.service)

        assert claimed == chunks
        assert target.service.read(blob) == long

    def test_a_blob_that_is_there_only_as_a_chunk_is_made_one(
        self, make_place: Any, make_local: Any, long: bytes
    ) -> None:
        """Else nobody would keep the chunk once the other blob is gone."""
        source, target = make_place(), make_local("there")
        blob = target.service.write(long)
        chunk = target.service.chunks(blob)[0].digest
        source.service.write(target.service.read(chunk))

        tally, _ = copy(source.service, target.service)

        assert (tally.chunks_copied, tally.chunks_skipped) == (0, 1)
        assert contents(target.service) == {blob, chunk}

    @pytest.mark.parametrize("named", [False, True])
    def test_what_was_there_already_is_no_garbage_after_it(
        self, make_local: Any, tmp_path: Path, long: bytes, named: bool
    ) -> None:
        """However old it is, and though no root reaches it: it is as young as if it had just been copied."""
        source, target = make_local(), make_local("there")
        blobs = [source.service.write(data) for data in (long, HELLO.data, b"")]
        copy(source.service, target.service)
        files = [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
        for path in files:
            os.utime(path, (0, 0))

        tally, failed = copy(source.service, target.service, blobs if named else None)

        assert (tally, failed) == (CopyCounts(blobs_skipped=3), [])
        collected = collect(target.service, [], no_roots=True, grace_seconds=3600)
        assert {kind: amount.count for kind, amount in collected.gone.items() if amount.count} == {}
        assert verify(target.service, expected=blobs).ok

    @pytest.mark.parametrize("named", [False, True])
    def test_a_blob_that_lacks_a_chunk_is_copied(
        self, make_place: Any, make_local: Any, long: bytes, named: bool
    ) -> None:
        """That its index is there is not enough."""
        source, target = make_place(), make_local("there")
        blob = source.service.write(long)
        copy(source.service, target.service)
        target.remove("chunks", source.service.chunks(blob)[3].digest)

        tally, failed = copy(source.service, target.service, [blob] if named else None)

        assert (tally.blobs_copied, tally.blobs_skipped, tally.chunks_copied, failed) == (1, 0, 1, [])
        assert target.service.read(blob) == long


class TestFaults:
    """What goes wrong on the way."""

    def test_absent_and_corrupt_ones_are_named_and_the_others_copied(
        self, make_place: Any, make_local: Any, long: bytes
    ) -> None:
        source, target = make_place(), make_local("there")
        torn, wrong = source.service.write(long), source.service.write(long[::-1])
        right = source.service.write(b"right")
        source.put("chunks", source.service.chunks(torn)[3].digest, frames.compress(b"something else"))
        source.put("blobs", wrong, b"rubbish")

        tally, failed = copy(source.service, target.service, [torn, NOBODY, wrong, right])

        errors = {copied.digest: type(copied.error).__name__ for copied in failed}
        assert errors == {torn: "CorruptChunkError", NOBODY: "BlobNotFoundError", wrong: "BadIndexError"}
        assert (tally.blobs_copied, tally.blobs_failed) == (1, 3)
        assert contents(target.service) == {right}

    def test_a_forged_index_is_not_copied(self, make_place: Any, make_local: Any, long: bytes) -> None:
        """Each of its chunks is right, but not the blob that they make up."""
        source, target = make_place(), make_local("there")
        blob = source.service.write(long)
        source.put("blobs", blob, blob_index.encode(list(source.service.chunks(blob))[::-1]))

        _, (failed,) = copy(source.service, target.service)

        assert isinstance(failed.error, CorruptBlobError)
        assert contents(target.service) == set()

    def test_what_was_interrupted_is_gone_on_with(self, make_place: Any, make_local: Any) -> None:
        """What had arrived is there, and is not sent again."""
        source, target = make_place(), make_local("there", cls=Counting)
        rng = random.Random(1)
        blobs = {source.service.write(rng.randbytes(5000)) for _ in range(40)}
        count = 0

        def progress(size: int) -> None:
            nonlocal count
            count += size
            if count > 100_000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copy(source.service, target.service, pool=Pool(2), progress=progress)
        first = contents(target.service)
        assert 10 < len(first) < 40
        tally, _ = copy(source.service, target.service, pool=Pool(2))

        assert contents(target.service) == blobs
        assert tally.blobs_skipped == len(first)
        assert target.service.log.count("frame") == len(target.keys("chunks/"))

    def test_a_target_that_fails_ends_it(self, make_place: Any, make_local: Any) -> None:
        """Its error is raised, not taken for one of a blob; what had arrived before is there."""
        source, target = make_place(), make_local("there", cls=Counting)
        for number in range(20):
            source.service.write(b"%d" % number)
        target.service.room = 12

        with pytest.raises(UnavailableError, match="No space left"):
            copy(source.service, target.service, pool=Pool(0))
        assert len(contents(target.service)) == 12

    def test_a_source_that_does_not_answer_ends_it(self, make_local: Any) -> None:
        """After some blobs that could not be read: not each of a million is tried."""

        class Down(ObjectStoreBlobService):
            def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
                raise UnavailableError("here", "no route")

        source, target = make_local(cls=Down), make_local("there")
        for number in range(40):
            source.service.write(b"%d" % number)
        outcomes = []

        def run() -> None:
            for copied in Copier(source.service, target.service, Pool(0)).run():
                outcomes.append(copied)

        with pytest.raises(UnavailableError, match="no route"):
            run()
        assert all(isinstance(copied.error, UnavailableError) for copied in outcomes)
        assert 0 < len(outcomes) < 40

    def test_a_source_that_cannot_list_needs_names(self, smallest: BlobService) -> None:
        with pytest.raises(UnsupportedError, match="name those"):
            copy(smallest, MemoryBlobService())


class TestOtherServices:
    """Services that keep no chunks, or nothing but blobs."""

    @pytest.fixture(params=["memory", "smallest"])
    def other(self, request: pytest.FixtureRequest) -> BlobService:
        if request.param == "memory":
            return MemoryBlobService()
        smallest: BlobService = request.getfixturevalue("smallest")
        return smallest

    def test_from_a_store_and_back(self, make_place: Any, make_local: Any, other: BlobService) -> None:
        """A large blob is cut anew where the boundaries were lost; all is right in any case."""
        source, target = make_place(avg=262_144), make_local("there")
        blobs = [source.service.write(blob.data) for blob in (P3M, HELLO, EMPTY)]

        tally, failed = copy(source.service, other, blobs)
        assert (tally.blobs_copied, failed) == (3, [])
        again, failed = copy(source.service, other, blobs)
        assert (again, failed) == (CopyCounts(blobs_skipped=3), [])
        tally, failed = copy(other, target.service, blobs)
        assert (tally.blobs_copied, failed) == (3, [])

        assert target.service.read(P3M.digest) == P3M.data
        assert verify(target.service, expected=blobs).ok

    def test_absent_and_corrupt_ones_are_named(self, make_local: Any, smallest: Any) -> None:
        """Also on the way through a reader and a writer: nothing becomes visible."""
        target = make_local("there")
        smallest.behind.put_chunk(HELLO.digest, b"something else")
        smallest.behind.put_chunk(P3M.digest, P3M.data[:-1])

        _, failed = copy(smallest, target.service, [HELLO.digest, P3M.digest, NOBODY])

        assert {copied.digest: type(copied.error) for copied in failed} == {
            HELLO.digest: CorruptBlobError,
            P3M.digest: CorruptBlobError,
            NOBODY: BlobNotFoundError,
        }
        assert contents(target.service) == set()

    def test_wrong_bytes_of_a_chunk_source_are_found(self, make_local: Any) -> None:
        """A service that does not check what it keeps."""
        source, target = MemoryBlobService(), make_local("there")
        source.put_chunk(HELLO.digest, b"something else")
        source.put_index(HELLO.digest, ())

        _, (failed,) = copy(source, target.service)

        assert isinstance(failed.error, CorruptBlobError | CorruptChunkError)
        assert contents(target.service) == set()


def test_names_may_come_from_anywhere_and_twice(make_place: Any) -> None:
    """Any iterable, however long: it is taken in batches."""
    source, target = make_place(), MemoryBlobService()
    digest = source.service.write(HELLO.data)

    def names() -> Iterator[B3Digest]:
        for _ in range(3000):
            yield digest

    tally, _ = copy(source.service, target, names())

    assert tally.blobs_copied == 1
