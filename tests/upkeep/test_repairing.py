"""Repair: what is mended, what is not, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from castore import B3Digest, BlobService, UnavailableError, UnsupportedError
from castore.contract.capabilities import FoundChunks
from castore.contract.upkeep import StoredItem
from castore.errors import BatchError
from castore.format import blob_index, frames
from castore.testing import EMPTY, HELLO
from castore.threads.pool import Pool
from castore.upkeep import Finding, Mending, copy, repair, verify
from castore_memory.service import MemoryBlobService
from castore_objectstore.service import ObjectStoreBlobService

RUBBISH = b"rubbish"


def mend(place: Any, other: BlobService, **options: Any) -> list[Mending]:
    findings = verify(place.service, pool=Pool(0), **options).findings
    assert findings
    return list(repair(place.service, other, findings, name="`other`"))


def is_sound(place: Any, *blobs: B3Digest) -> bool:
    return verify(place.service, expected=blobs, pool=Pool(0)).ok


class Watched(ObjectStoreBlobService):
    """Notes what is done to it."""

    calls: list[str]

    def set_aside(self, item: StoredItem) -> str:
        self.__dict__.setdefault("calls", []).append(f"set aside {item.kind}")
        return super().set_aside(item)

    def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
        self.__dict__.setdefault("calls", []).extend(["put chunk"] * len(chunks))
        super().put_chunks(chunks)


class TestChunks:
    @pytest.mark.parametrize("frame", [RUBBISH, b"", frames.compress(b"other bytes"), None])
    def test_a_damaged_or_missing_chunk_is_fetched(
        self, make_place: Any, make_local: Any, long: bytes, frame: bytes | None
    ) -> None:
        """What was there is in quarantine then, as it was."""
        place, other = make_place(), make_local("there")
        blob = place.service.write(long)
        copy(place.service, other.service)
        chunk = place.service.chunks(blob)[1].digest
        if frame is None:
            place.remove("chunks", chunk)
        else:
            place.put("chunks", chunk, frame)

        mendings = mend(place, other.service)

        assert all(mending.mended for mending in mendings)
        assert place.service.read(blob) == long
        assert is_sound(place, blob)
        moved = [mending.quarantine for mending in mendings if mending.finding.what == "chunk"]
        assert [key and place.objects.get(key) for key in moved] == [frame]

    def test_the_other_side_may_cut_otherwise(self, make_place: Any, make_local: Any, long: bytes) -> None:
        """The chunk is then a stretch of the blob there."""
        place, other = make_place(), make_local("there", avg=4096)
        blob = place.service.write(long)
        other.service.write(long)
        before = place.service.chunks(blob)
        for meta in before[1:4]:
            place.put("chunks", meta.digest, RUBBISH)

        assert all(mending.mended for mending in mend(place, other.service))
        assert place.service.chunks(blob) == before
        assert is_sound(place, blob)

    @pytest.mark.parametrize("chunked", [True, False])
    def test_the_other_side_may_keep_no_chunks(
        self, make_place: Any, long: bytes, smallest: Any, chunked: bool
    ) -> None:
        place = make_place()
        other = MemoryBlobService() if chunked else smallest
        blob = place.service.write(long)
        other.write(long)
        place.put("chunks", place.service.chunks(blob)[-1].digest, RUBBISH)

        assert all(mending.mended for mending in mend(place, other))
        assert is_sound(place, blob)

    def test_what_the_other_side_lacks_stays_and_is_named(self, make_place: Any, long: bytes) -> None:
        place = make_place()
        blob = place.service.write(long)
        place.service.write(HELLO.data)
        place.put("chunks", HELLO.digest, RUBBISH)
        place.put("chunks", place.service.chunks(blob)[0].digest, RUBBISH)
        other = MemoryBlobService()
        other.write(HELLO.data)

        outcome = {mending.finding.digest: mending for mending in mend(place, other)}

        assert {digest for digest, mending in outcome.items() if mending.mended} == {HELLO.digest}
        assert "`other` does not have" in outcome[blob].message
        assert place.service.read(HELLO.digest) == HELLO.data
        assert place.get("chunks", place.service.chunks(blob)[0].digest) == RUBBISH

    def test_nothing_is_moved_for_what_is_wrong_there_too(self, make_place: Any, make_local: Any) -> None:
        """It is checked before anything is touched."""
        place, other = make_place(cls=Watched), make_local("there")
        for either in (place, other):
            either.service.write(HELLO.data)
            either.put("chunks", HELLO.digest, RUBBISH)
        place.service.calls.clear()

        assert not any(mending.mended for mending in mend(place, other.service))
        assert place.service.calls == []
        assert place.get("chunks", HELLO.digest) == RUBBISH

    def test_first_fetched_then_set_aside_then_put(self, make_place: Any, make_local: Any) -> None:
        """So that a reader never finds less than before."""
        place = make_place(cls=Watched)
        calls = vars(place.service).setdefault("calls", [])

        class Other(ObjectStoreBlobService):
            def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
                calls.extend(["fetch"] * len(sizes))
                return super().get_chunks(sizes)

        other = make_local("there", cls=Other)
        for either in (place, other):
            either.service.write(HELLO.data)
        place.put("chunks", HELLO.digest, RUBBISH)
        findings = verify(place.service).findings
        calls.clear()

        list(repair(place.service, other.service, findings))

        assert calls == ["fetch", "set aside chunk", "put chunk"]

    def test_what_is_right_again_is_left_alone(self, make_place: Any) -> None:
        """A writer of the same blob was faster."""
        place = make_place(cls=Watched)
        place.service.write(HELLO.data)
        findings = [Finding("chunk", HELLO.digest, "bad-frame", "it was torn")]

        (mending,) = repair(place.service, MemoryBlobService(), findings)

        assert (mending.mended, mending.message, mending.quarantine) == (True, "it is right again", None)

    def test_what_could_not_be_read_is_left_alone(self, make_place: Any) -> None:
        """It may be right."""
        place = make_place(cls=Watched)
        place.service.write(HELLO.data)
        place.put("chunks", HELLO.digest, RUBBISH)
        findings = [Finding("chunk", HELLO.digest, "unavailable", "a disk that makes noises")]
        other = MemoryBlobService()
        other.write(HELLO.data)

        (mending,) = repair(place.service, other, findings)

        assert not mending.mended
        assert place.get("chunks", HELLO.digest) == RUBBISH

    @pytest.mark.parametrize("in_part", [True, False])
    def test_one_that_cannot_be_put_does_not_keep_the_others(self, make_local: Any, in_part: bool) -> None:
        """Whether it is told which one that is, or nothing is known of any."""

        class Full(ObjectStoreBlobService):
            def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
                fitting = {digest: chunks[digest] for digest in chunks if digest != HELLO.digest}
                super().put_chunks(fitting if vars(self).get("full") else chunks)
                if vars(self).get("full") and len(fitting) < len(chunks):
                    error = UnavailableError("here", "No space left on device")
                    raise BatchError("here", {HELLO.digest: error}, done=fitting) if in_part else error

        place, other = make_local(cls=Full), MemoryBlobService()
        for data in (HELLO.data, b"a"):
            place.put("chunks", place.service.write(data), RUBBISH)
            other.write(data)
        place.service.full = True

        outcome = {mending.finding.digest: mending for mending in mend(place, other)}

        assert outcome[B3Digest.of(b"a")].mended
        assert not outcome[HELLO.digest].mended


class TestIndexes:
    @pytest.mark.parametrize("kind", ["rubbish", "reordered", "short", "phantom"])
    def test_a_damaged_index_is_rebuilt(
        self, make_place: Any, make_local: Any, long: bytes, kind: str
    ) -> None:
        """With the same list of chunks, and the damaged one in quarantine."""
        place, other = make_place(), make_local("there")
        blob = place.service.write(long)
        copy(place.service, other.service)
        before = list(place.service.chunks(blob))
        phantom = type(before[0])(B3Digest(bytes(32)), before[1].size)
        damaged = {
            "rubbish": RUBBISH,
            "reordered": blob_index.encode(before[::-1]),
            "short": blob_index.encode(before[:-1]),
            "phantom": blob_index.encode([before[0], phantom, *before[2:]]),
        }[kind]
        place.put("blobs", blob, damaged)

        mendings = mend(place, other.service)

        assert all(mending.mended for mending in mendings), mendings
        assert list(place.service.chunks(blob)) == before
        assert place.service.read(blob) == long
        assert place.objects.get(f"quarantine/{place.key('blobs', blob)}") == damaged
        assert is_sound(place, blob)

    def test_also_if_the_other_side_keeps_the_blob_whole(self, make_place: Any, long: bytes) -> None:
        """It is written anew, and cut as it is cut here."""
        place, other = make_place(), MemoryBlobService()
        blobs = [place.service.write(data) for data in (long, HELLO.data)]
        before = [place.service.chunks(blob) for blob in blobs]
        for blob, data in zip(blobs, (long, HELLO.data), strict=True):
            other.write(data)
            place.put("blobs", blob, RUBBISH)

        assert all(mending.mended for mending in mend(place, other))
        assert [place.service.chunks(blob) for blob in blobs] == before
        assert is_sound(place, *blobs)

    def test_a_wrong_index_is_not_replaced_by_a_wrong_one(
        self, make_place: Any, make_local: Any, long: bytes
    ) -> None:
        place, other = make_place(), make_local("there")
        blob = place.service.write(long)
        copy(place.service, other.service)
        wrong = blob_index.encode(list(place.service.chunks(blob))[:-1])
        other.put("blobs", blob, wrong)
        place.put("blobs", blob, RUBBISH)

        (mending,) = mend(place, other.service)

        assert not mending.mended
        assert "the index that `other` has is wrong, too" in mending.message
        assert place.get("blobs", blob) == RUBBISH

    def test_what_was_expected_comes_back(self, make_place: Any, make_local: Any, long: bytes) -> None:
        """Blobs that are gone as a whole, and indexes of which only the chunk is left."""
        place, other = make_place(), make_local("there")
        for data in (long, HELLO.data, EMPTY.data):
            other.service.write(data)
        place.service.write(HELLO.data)
        place.remove("blobs", HELLO.digest)
        blobs = [B3Digest.of(long), HELLO.digest, EMPTY.digest]

        assert all(mending.mended for mending in mend(place, other.service, expected=blobs))
        assert is_sound(place, *blobs)
        assert set(place.service.list_blobs()) == set(blobs)


def test_a_service_without_quarantine_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="cannot be repaired"):
        list(repair(MemoryBlobService(), MemoryBlobService(), []))


def test_what_was_mended_is_kept_from_collectors_until_it_is_whole(make_local: Any, long: bytes) -> None:
    """A lease is held while chunks are put that no index has yet."""
    since = []

    class Watching(ObjectStoreBlobService):
        def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
            since.append(self.leased_since())
            super().put_chunks(chunks)

    place, other = make_local(cls=Watching), MemoryBlobService()
    blob = other.write(long)
    findings = verify(place.service, expected=[blob]).findings

    list(repair(place.service, other, findings))

    assert since
    assert None not in since
    assert place.service.leased_since() is None
