"""What a verification finds, and what it does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService, ChunkMeta, UnavailableError, UnsupportedError
from castore.contract.capabilities import FoundChunks
from castore.format import blob_index, frames
from castore.testing import EMPTY, HELLO, P3M
from castore.threads.pool import Pool
from castore.upkeep import Finding, Ledger, Scope, Verification, verify
from castore_memory.service import MemoryBlobService
from castore_objectstore.service import ObjectStoreBlobService

NOBODY = B3Digest(bytes(32))


def check(service: BlobService, **options: Any) -> list[Finding]:
    return verify(service, pool=Pool(0), **options).findings


def outline(findings: Sequence[Finding]) -> set[tuple[str, B3Digest, str]]:
    return {(finding.what, finding.digest, finding.code) for finding in findings}


class Counting(ObjectStoreBlobService):
    """Counts what is read of it, and cannot read what is in `failing`."""

    reads: list[B3Digest]
    calls = 0
    failing: frozenset[B3Digest] = frozenset()
    fails_always = False

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        self.__dict__.setdefault("reads", []).extend(sizes)
        self.calls += 1
        error = UnavailableError("here", "the disk makes noises")
        if self.fails_always:
            raise error
        found = super().get_chunks(sizes)
        return {digest: error if digest in self.failing else data for digest, data in found.items()}


class TestStores:
    """Services with an inventory."""

    @pytest.mark.parametrize("size", [0, 1, 4])
    def test_a_sound_store(self, make_place: Any, long: bytes, size: int) -> None:
        """Blobs, different chunks, and the bytes of all blobs are counted, at any size of the pool."""
        place = make_place()
        for data in (long, long + b"!", HELLO.data, b""):
            place.service.write(data)
        workers = Pool(size)
        seen: list[int] = []

        report = verify(place.service, pool=workers, progress=seen.append)

        workers.close()
        assert (report.findings, report.residue, report.ok) == ([], [], True)
        assert report.tally.blobs == 4
        assert report.tally.chunks == len(place.keys("chunks/"))
        assert report.tally.bytes == sum(seen) == 2 * len(long) + 1 + 12

    def test_an_empty_store(self, make_place: Any) -> None:
        assert verify(make_place().service).ok

    def test_a_damaged_chunk_is_found_once_and_so_are_the_blobs_that_need_it(
        self, make_place: Any, long: bytes
    ) -> None:
        place = make_place()
        blobs = {place.service.write(long), place.service.write(long + b"!")}
        shared = place.service.chunks(min(blobs))[2].digest
        place.put("chunks", shared, frames.compress(b"something else"))

        findings = check(place.service)

        assert outline(findings) == {
            ("chunk", shared, "corrupt-chunk"),
            *(("blob", blob, "corrupt-chunk") for blob in blobs),
        }
        (chunk,) = (finding for finding in findings if finding.what == "chunk")
        assert (chunk.key, chunk.blob in blobs) == (place.key("chunks", shared), True)
        assert {finding.chunk for finding in findings if finding.what == "blob"} == {shared}

    def test_a_missing_chunk(self, make_place: Any, long: bytes) -> None:
        place = make_place()
        blob = place.service.write(long)
        chunk = place.service.chunks(blob)[3].digest
        place.remove("chunks", chunk)

        assert outline(check(place.service)) == {
            ("chunk", chunk, "missing-chunk"),
            ("blob", blob, "missing-chunk"),
        }

    @pytest.mark.parametrize("frame", [b"", b"rubbish", None])
    def test_a_blob_of_one_chunk(self, make_place: Any, frame: bytes | None) -> None:
        place = make_place()
        place.service.write(HELLO.data)
        if frame is None:
            place.remove("chunks", HELLO.digest)
        else:
            place.put("chunks", HELLO.digest, frame)

        code = "missing-chunk" if frame is None else "bad-frame"
        assert outline(check(place.service)) == {("chunk", HELLO.digest, code), ("blob", HELLO.digest, code)}

    def test_a_chunk_that_no_blob_needs(self, make_place: Any) -> None:
        place = make_place()
        place.put("chunks", HELLO.digest, b"rubbish")

        assert outline(check(place.service)) == {("chunk", HELLO.digest, "bad-frame")}

    def test_an_index_that_is_none(self, make_place: Any, long: bytes) -> None:
        """Also that of a blob of one chunk, which can be read without."""
        place = make_place()
        for digest in (place.service.write(long), place.service.write(HELLO.data)):
            place.put("blobs", digest, b"rubbish")
            assert ("index", digest, "bad-index") in outline(check(place.service))

    def test_an_index_with_a_wrong_size_is_to_blame_and_not_the_chunk(
        self, make_place: Any, long: bytes
    ) -> None:
        place = make_place()
        blob = place.service.write(long)
        chunks = list(place.service.chunks(blob))
        chunks[1] = ChunkMeta(chunks[1].digest, chunks[1].size - 1)
        place.put("blobs", blob, blob_index.encode(chunks))

        (finding,) = check(place.service)

        assert outline([finding]) == {("index", blob, "bad-index")}
        assert f"chunk #1 a size of {chunks[1].size} bytes, but it has" in finding.message

    @pytest.mark.parametrize("edit", [lambda c: c[::-1], lambda c: c[:-1], lambda c: [*c, c[0]]])
    def test_an_index_of_right_chunks_that_are_not_the_blob(
        self, make_place: Any, long: bytes, edit: Callable[[Any], Any]
    ) -> None:
        """Only reading the blob from start to end can tell."""
        place = make_place()
        blob = place.service.write(long)
        place.put("blobs", blob, blob_index.encode(edit(list(place.service.chunks(blob)))))

        (finding,) = check(place.service)

        assert outline([finding]) == {("index", blob, "bad-index")}
        assert "its chunks make up" in finding.message
        assert finding.key == place.key("blobs", blob)

    def test_residue_is_not_wrong(self, make_place: Any, make_local: Any) -> None:
        """A temporary file, a foreign file, an object in the wrong place."""
        place = make_place()
        place.service.write(HELLO.data)
        for key in ("chunks/b3/5ca7/notes.txt", f"blobs/b3/ffff/{HELLO.digest.hex()}"):
            place.objects.put(key, b"?")
        place.objects.put(place.key("chunks", HELLO.digest) + "#1", b"?")

        report = verify(place.service)

        assert report.ok
        assert {item.key.rpartition("/")[2] for item in report.residue} == {
            "notes.txt",
            HELLO.digest.hex(),
            f"{HELLO.digest.hex()}#1",
        }

    def test_what_was_removed_is_missed_if_it_was_expected(self, make_place: Any, long: bytes) -> None:
        """Without a trace, or but for its chunk."""
        place = make_place()
        for data in (long, HELLO.data, EMPTY.data):
            place.service.write(data)
        place.remove("blobs", B3Digest.of(long))
        place.remove("blobs", HELLO.digest)
        expected = [B3Digest.of(long), HELLO.digest, EMPTY.digest]

        assert check(place.service) == []
        assert outline(check(place.service, expected=expected)) == {
            ("blob", B3Digest.of(long), "blob-not-found"),
            ("index", HELLO.digest, "missing-index"),
        }

    def test_what_is_removed_meanwhile_is_not_wrong(self, make_place: Any, long: bytes) -> None:
        """As by a collector of garbage: it is gone when its index has been read."""

        class Fleeting(ObjectStoreBlobService):
            def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
                found = super().chunks(digest)
                for top in ("blobs", "chunks"):
                    for key in place.keys(f"{top}/"):
                        place.remove(top, B3Digest.parse(key.rpartition("/")[2]))
                return found

        place = make_place(cls=Fleeting)
        place.service.write(long)

        report = verify(place.service, pool=Pool(0))

        assert (report.findings, report.tally.blobs) == ([], 0)

    def test_a_chunk_that_cannot_be_read_is_not_called_damaged(self, make_place: Any, long: bytes) -> None:
        place = make_place(cls=Counting)
        blob = place.service.write(long)
        chunk = place.service.chunks(blob)[0].digest
        place.service.failing = frozenset((chunk,))

        assert outline(check(place.service)) == {
            ("chunk", chunk, "unavailable"),
            ("blob", blob, "unavailable"),
        }

    def test_a_store_that_does_not_answer_ends_it(self, make_place: Any) -> None:
        """Not each of a million items is asked for in vain."""
        place = make_place(cls=Counting)
        for number in range(100):
            place.service.write(b"%d" % number)
        place.service.fails_always = True
        place.service.reads = []

        with pytest.raises(UnavailableError, match="noises"):
            check(place.service)
        assert len(place.service.reads) < 50

    def test_many_chunks_are_read_by_one_call(self, make_place: Any) -> None:
        """By the sizes that the index says; of a blob of one chunk that is not known, so those are 16."""
        place = make_place(cls=Counting)
        place.service.write(random.Random(1).randbytes(300_000))
        place.service.calls = 0
        assert check(place.service) == []
        assert len(place.service.reads) > 200
        assert place.service.calls <= 2

        for number in range(160):
            place.service.write(b"%d" % number)
        place.service.calls = 0
        assert check(place.service) == []
        assert place.service.calls <= 2 + 10

    def test_chunks_are_read_once_per_blob_and_no_more(self, make_place: Any, long: bytes) -> None:
        place = make_place(cls=Counting)
        blob = place.service.write(long)
        place.service.write(HELLO.data)
        place.service.reads = []

        check(place.service)

        expected = [meta.digest for meta in place.service.chunks(blob)]
        assert sorted(place.service.reads) == sorted(
            [*expected, HELLO.digest, blob, blob][: len(expected) + 1]
        )


class TestScope:
    """Which items are checked."""

    def test_a_sample_is_the_same_for_the_same_seed(self) -> None:
        rng = random.Random(1)
        digests = [B3Digest(rng.randbytes(32)) for _ in range(2000)]

        def taken(share: float, seed: int) -> set[B3Digest]:
            return {digest for digest in digests if Scope(share, seed).takes(digest, None)}

        assert taken(0.05, 1) == taken(0.05, 1)
        assert taken(0.05, 1) != taken(0.05, 2)
        assert taken(0.05, 1) < taken(0.5, 1) < taken(1.0, 1) == set(digests)
        assert 60 < len(taken(0.05, 1)) < 140

    def test_items_since_a_time_or_of_unknown_age(self) -> None:
        scope = Scope(since=100.0)
        assert [scope.takes(NOBODY, modified) for modified in (99.0, 100.0, None)] == [False, True, True]

    def test_a_blob_in_the_sample_is_checked_from_start_to_end(self, make_local: Any, long: bytes) -> None:
        """By item: the chunks of a blob that is chosen are read though they are not chosen themselves."""
        place = make_local()
        blob = place.service.write(long)
        seed = next(seed for seed in range(1000) if Scope(0.01, seed).takes(blob, None))
        place.remove("chunks", place.service.chunks(blob)[-1].digest)

        report = verify(place.service, scope=Scope(0.01, seed))

        assert {finding.what for finding in report.findings} == {"chunk", "blob"}


class TestListers:
    """Services that only list their blobs."""

    def test_each_blob_is_read(self) -> None:
        service = MemoryBlobService()
        for blob in (HELLO, P3M, EMPTY):
            service.write(blob.data)

        report = verify(service)

        assert (report.ok, report.tally.blobs, report.tally.bytes) == (True, 3, P3M.size + HELLO.size)

    def test_wrong_bytes_and_missing_blobs_are_found(self) -> None:
        service = MemoryBlobService()
        service.write(P3M.data)
        service.put_chunk(HELLO.digest, b"something else")
        service.put_index(HELLO.digest, ())

        assert outline(check(service, expected=[NOBODY, P3M.digest])) == {
            ("blob", HELLO.digest, "corrupt-blob"),
            ("blob", NOBODY, "blob-not-found"),
        }

    def test_a_service_that_lists_nothing_cannot_be_verified(self, smallest: BlobService) -> None:
        with pytest.raises(UnsupportedError):
            verify(smallest)


class TestResuming:
    """A verification that was interrupted."""

    def run(self, service: BlobService, path: Path, count: int | None = None) -> list[Finding]:
        """Run it to its end, or until *count* bytes or more were checked."""
        seen = 0

        def progress(size: int) -> None:
            nonlocal seen
            seen += size
            if count is not None and seen >= count:
                raise KeyboardInterrupt

        ledger = Ledger(path)
        findings = []
        try:
            for finding in Verification(service, ledger, pool=Pool(0), progress=progress).run():
                findings.append(finding)
        except KeyboardInterrupt:
            pass
        finally:
            ledger.close()
        return findings

    def test_what_was_found_right_is_not_read_again(self, make_local: Any, tmp_path: Path) -> None:
        place = make_local(cls=Counting)
        blobs = {place.service.write(b"%02d" % number) for number in range(50)}
        place.service.reads = []

        self.run(place.service, tmp_path / "state", 40)
        first, place.service.reads = place.service.reads, []
        self.run(place.service, tmp_path / "state")

        # Some had been read by the same call, and could not be noted any more.
        assert len(first) == 32
        assert len(set(first) & set(place.service.reads)) == 12 + 1
        assert set(first) | set(place.service.reads) == blobs

    def test_what_was_found_wrong_is_found_again(self, make_local: Any, tmp_path: Path) -> None:
        """So that the report of the last run has everything."""
        place = make_local()
        blobs = sorted(place.service.write(b"%02d" % number) for number in range(50))
        for blob in blobs:
            place.put("chunks", blob, b"")
        right = place.service.write(b"sound")

        first = self.run(place.service, tmp_path / "state", 1)
        second = self.run(place.service, tmp_path / "state")

        assert {finding.digest for finding in second} == set(blobs)
        assert right not in {finding.digest for finding in (*first, *second)}
