"""The `verify` type: no wrong byte comes out, whatever is within; what is wrong is reported or set aside."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BuildError,
    ChunkMeta,
    Composition,
    CompositionError,
    CorruptBlobError,
    CorruptChunkError,
    MissingChunkError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import ChunkSource, FoundChunks, FrameStore
from castore.contract.operations import Operation
from castore.contract.upkeep import Inventory, StoredItem
from castore.errors import OversizedFrameError
from castore.format import frames
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore.testing import CHUNKS, EMPTY, HELLO, P3M
from castore.threads.pool import Pool
from castore_memory.service import MemoryBlobService
from castore_wrappers.verify.service import VerifyService

LONG = P3M.data * 2
"""More than what is checked in memory."""
LONG_DIGEST = B3Digest.of(LONG)
WHOLE = bytes(range(16))
WHOLE_DIGEST = B3Digest.of(WHOLE)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def kind(service: BlobService, which: Callable[..., Any]) -> Any:
    found = service.capability(which)
    assert found is not None
    return found


class Smallest(BlobService):
    """Three methods, and a dictionary that may be spoilt."""

    def __init__(self) -> None:
        self.blobs: dict[B3Digest, bytes] = {}

    def has(self, digest: B3Digest) -> bool:
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return BytesReader(self.blobs[digest]) if digest in self.blobs else None

    def open_write(self) -> Any:
        return SpooledWriter(lambda digest, file: self.blobs.setdefault(digest, file.read()))


class Trusting(MemoryBlobService):
    """Hands out whatever it has, unchecked, and blobs of chunks as such."""

    def spoil(self, digest: B3Digest, data: bytes) -> None:
        self._chunks[digest] = data

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return {digest: self._chunks[digest] for digest in sizes if digest in self._chunks}


@pytest.fixture
def chunked() -> Trusting:
    """A service with one blob, of the five chunks."""
    service = Trusting()
    for chunk in CHUNKS:
        service.put_chunk(chunk.digest, chunk.data)
    service.put_index(WHOLE_DIGEST, [chunk.meta for chunk in CHUNKS])
    return service


class TestBlobsInOnePiece:
    """They are read to their end before the first byte of them is handed out."""

    @pytest.mark.parametrize("at", [0, -1, 1000])
    @pytest.mark.parametrize("data", [P3M.data, LONG], ids=["short", "long"])
    def test_a_wrong_byte(self, smallest: Any, data: bytes, at: int) -> None:
        """Wherever it is, opening the blob raises, with both digests."""
        within = smallest()
        digest = within.write(data)
        within.blobs[digest] = flipped(data, at % len(data))
        with pytest.raises(CorruptBlobError) as caught:
            VerifyService(within).open_read(digest)
        assert (caught.value.expected, caught.value.found) == (digest, B3Digest.of(within.blobs[digest]))

    @pytest.mark.parametrize("wrong", [LONG[:-1], LONG + b"x", b""], ids=["shorter", "longer", "empty"])
    def test_another_length(self, smallest: Any, wrong: bytes) -> None:
        within = smallest()
        within.write(LONG)
        within.blobs[LONG_DIGEST] = wrong
        with pytest.raises(CorruptBlobError):
            VerifyService(within).open_read(LONG_DIGEST)

    def test_bytes_in_memory(self) -> None:
        """They stay where they are, checked."""
        within = Trusting()
        within.write(HELLO.data)
        reader: Any = VerifyService(within).open_read(HELLO.digest)
        assert reader.read_view().obj is within._chunks[HELLO.digest]
        within.spoil(HELLO.digest, flipped(HELLO.data, 7))
        with pytest.raises(CorruptBlobError):
            VerifyService(within).open_read(HELLO.digest)

    def test_what_changes_later_is_not_seen(self, smallest: Any) -> None:
        """What is handed out is what was checked, and not what the service would say when asked again."""
        within = smallest()
        handed: list[Any] = []

        class Changing(BytesReader):
            def piece_at(self, position: int) -> memoryview:
                return super().piece_at(position)[:50_000]

        def open_read(digest: B3Digest) -> BlobReader:
            handed.append(Changing(within.blobs[digest]))
            return handed[-1]

        within.open_read = open_read
        within.write(LONG)
        with VerifyService(within).open_read(LONG_DIGEST) as reader:  # type: ignore[union-attr]
            assert handed[-1].closed
            within.blobs[LONG_DIGEST] = flipped(LONG, 7)
            reader.seek(5 << 20)
            assert reader.read(10) == LONG[5 << 20 :][:10]
            reader.seek(0)
            assert reader.read() == LONG

    def test_no_room_for_a_copy(self, smallest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """That is no fault of the blob: it could not be checked."""
        within = smallest()
        within.write(LONG)

        def full() -> Any:
            return os.fdopen(os.open("/dev/full", os.O_RDWR), "r+b", buffering=0)

        monkeypatch.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(UnavailableError, match=r"temporary folder.*No space left"):
            VerifyService(within).open_read(LONG_DIGEST)

    @pytest.mark.parametrize("blob", [EMPTY, HELLO, P3M], ids=str)
    def test_right_ones(self, smallest: Any, blob: Any) -> None:
        """They are read as if nothing stood before them; absent ones are absent."""
        within = smallest()
        service = VerifyService(within)
        assert service.open_read(blob.digest) is None
        service.write(blob.data)
        assert service.read(blob.digest) == blob.data


class TestBlobsOfChunks:
    def test_a_wrong_chunk(self, chunked: Trusting) -> None:
        """All before it is read; none of it is, in whatever way one comes to it."""
        chunked.spoil(CHUNKS[3].digest, b"\x07\x09")
        with VerifyService(chunked).open_read(WHOLE_DIGEST) as reader:  # type: ignore[union-attr]
            assert reader.read(7) == WHOLE[:7]
            for start in (7, 8):
                reader.seek(start)
                with pytest.raises(CorruptChunkError) as caught:
                    reader.read(1)
                assert caught.value.expected == CHUNKS[3].digest
            reader.seek(9)
            assert reader.read() == WHOLE[9:]

    def test_a_part_costs_a_part(self, chunked: Trusting) -> None:
        """A chunk that nobody reads is not looked at."""
        chunked.spoil(CHUNKS[0].digest, b"??")
        with VerifyService(chunked).open_read(WHOLE_DIGEST) as reader:  # type: ignore[union-attr]
            reader.seek(3)
            assert reader.read() == WHOLE[3:]

    def test_a_wrong_index(self, chunked: Trusting) -> None:
        """Right chunks of another blob: read to the end it is found out, before the last of them."""
        chunked._indexes[WHOLE_DIGEST] = tuple(chunk.meta for chunk in reversed(CHUNKS))
        with VerifyService(chunked).open_read(WHOLE_DIGEST) as reader:  # type: ignore[union-attr]
            reader.read(14)
            with pytest.raises(CorruptBlobError, match="make up"):
                reader.read(1)

    def test_chunks_by_themselves(self, chunked: Trusting) -> None:
        """Also by the capability to read chunks, and as blobs of their own."""
        service = VerifyService(chunked)
        source = kind(service, ChunkSource)
        assert source.get_chunk(CHUNKS[1].digest) == CHUNKS[1].data
        chunked.spoil(CHUNKS[1].digest, b"????")
        with pytest.raises(CorruptChunkError):
            source.get_chunk(CHUNKS[1].digest, 4)
        with pytest.raises(CorruptBlobError):
            service.read(CHUNKS[1].digest)
        assert source.get_chunk(HELLO.digest) is None

    @pytest.mark.parametrize("workers", [0, 2])
    def test_right_ones(self, store: Any, blobs_of: Any, workers: int) -> None:
        """They are read as if nothing stood before them, ahead if there is somebody to do it."""
        within = blobs_of(store)
        service = VerifyService(within, pool=Pool(workers))
        assert service.write(P3M.data) == P3M.digest
        assert service.read(P3M.digest) == P3M.data
        assert service.chunks(P3M.digest) == within.chunks(P3M.digest)

    def test_children_without_the_power_to_read_chunks(self, smallest: Any) -> None:
        """Their chunks are read as blobs, and checked alike."""
        within = smallest()
        for chunk in CHUNKS:
            within.write(chunk.data)
        metas = [chunk.meta for chunk in CHUNKS]
        within.chunks = lambda digest: metas if digest == WHOLE_DIGEST else ()
        assert VerifyService(within).read(WHOLE_DIGEST) == WHOLE
        within.blobs[CHUNKS[2].digest] = b"?"
        with pytest.raises(CorruptChunkError):
            VerifyService(within).read(WHOLE_DIGEST)


class TestManyBlobs:
    """Each is checked by itself; what is wrong with one is its value, and ends nothing."""

    WANTED = (HELLO, EMPTY, P3M)

    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_wrong_one(self, smallest: Any, chunked: bool, caplog: Any) -> None:
        within = Trusting() if chunked else smallest()
        for blob in self.WANTED:
            within.write(blob.data)
        if chunked:
            within.spoil(HELLO.digest, b"something else")
        else:
            within.blobs[HELLO.digest] = b"something else"
        wanted = [blob.digest for blob in self.WANTED]
        answers: dict[B3Digest, Any] = {}
        for digest, answer in VerifyService(within).read_many([*wanted, B3Digest.of(b"absent")]):
            answers[digest] = answer
            if isinstance(answer, BlobReader):
                with answer:
                    answers[digest] = answer.read()
        assert list(answers) == [*wanted, B3Digest.of(b"absent")]
        assert answers.pop(B3Digest.of(b"absent")) is None
        assert isinstance(answers.pop(HELLO.digest), CorruptBlobError)
        assert answers == {blob.digest: blob.data for blob in self.WANTED[1:]}
        assert all(str(HELLO.digest) in record.getMessage() for record in caplog.records)
        assert caplog.records

    @pytest.mark.parametrize("wrong", [False, True])
    def test_that_are_small_come_as_they_are(self, wrong: bool) -> None:
        """A service may give bytes itself, which are looked at as well."""

        class Giving(Smallest):
            def read_many(self, digests: Any) -> Any:
                return ((digest, self.blobs[digest]) for digest in digests)

        within = Giving()
        within.write(HELLO.data)
        if wrong:
            within.blobs[HELLO.digest] = b"something else"
        ((_, answer),) = VerifyService(within).read_many([HELLO.digest])
        assert isinstance(answer, CorruptBlobError) if wrong else answer == HELLO.data


class TestFrames:
    def test_are_looked_into(self, store: Any, blobs_of: Any, key_of: Any) -> None:
        """A frame of another chunk, or none at all, is not handed out."""
        within = blobs_of(store)
        within.write(HELLO.data)
        service = kind(VerifyService(within), FrameStore)
        within.write(b"another")
        other = B3Digest.of(b"another")
        found = service.get_frames([HELLO.digest, P3M.digest])
        assert list(found) == [HELLO.digest]
        assert frames.decode_chunk(found[HELLO.digest], HELLO.digest) == HELLO.data
        for wrong in (frames.compress(b"something else"), b"no frame"):
            store.objects[key_of("chunks", HELLO.digest)] = wrong
            found = service.get_frames([HELLO.digest, other])
            assert isinstance(found.pop(HELLO.digest), CorruptBlobError)
            assert frames.decode_chunk(found.pop(other), other) == b"another"

    def test_of_large_chunks_are_looked_into(self, store: Any, blobs_of: Any) -> None:
        """Of all that a chunk may have, whatever is unpacked elsewhere without knowing the size."""
        within = blobs_of(store, avg_chunk_size=2 << 20)
        within.write(P3M.data)
        (meta, *_) = within.chunks(P3M.digest) or [P3M.meta]
        assert meta.size > 1 << 20
        found = kind(VerifyService(within), FrameStore).get_frames([meta.digest])
        assert isinstance(found[meta.digest], bytes)

    def test_of_another_format_are_denied(self) -> None:
        """What cannot be looked into is not handed out."""

        class Packed(MemoryBlobService, FrameStore):
            frame_format = "lz4"

            def get_frames(self, digests: Any) -> FoundChunks:
                return dict.fromkeys(digests, b"?")

            def put_frames(self, frames: Any) -> None: ...

        assert Packed().capability(FrameStore) is not None
        assert VerifyService(Packed()).capability(FrameStore) is None


class Framed(Trusting, FrameStore):
    """Gives chunks as frames, too, each of which may be spoilt or kept back, and counts what is unpacked."""

    frame_format = "zstd"

    def __init__(self) -> None:
        super().__init__()
        self.spoilt: dict[B3Digest, bytes | None] = {}
        self.asked: list[B3Digest] = []

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        self.asked += sizes
        return super().get_chunks(sizes)

    def get_frames(self, digests: Any) -> FoundChunks:
        found = {
            digest: frames.compress(self._chunks[digest]) for digest in digests if digest in self._chunks
        }
        return {
            digest: frame for digest in found if (frame := self.spoilt.get(digest, found[digest])) is not None
        }

    def put_frames(self, frames: Any) -> None: ...


class TestUnpacking:
    """Where there are frames their bytes are unpacked and hashed once, by `verify`."""

    @pytest.fixture
    def framed(self) -> Framed:
        service = Framed()
        for chunk in CHUNKS:
            service.put_chunk(chunk.digest, chunk.data)
        service.put_index(WHOLE_DIGEST, [chunk.meta for chunk in CHUNKS])
        return service

    def test_the_service_unpacks_nothing(self, framed: Framed) -> None:
        assert VerifyService(framed).read(WHOLE_DIGEST) == WHOLE
        assert framed.asked == []

    @pytest.mark.parametrize(
        "frame",
        [b"", b"no frame", frames.compress(b"else"), frames.compress(bytes(1 << 20))],
        ids=["empty", "not a frame", "other bytes", "too many bytes"],
    )
    def test_a_wrong_frame(self, framed: Framed, frame: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """It is told of, and the chunk comes from a reader, if that has it right."""
        chunk = CHUNKS[1]
        framed.spoilt[chunk.digest] = frame
        assert VerifyService(framed).read(WHOLE_DIGEST) == WHOLE
        assert str(chunk.digest) in caplog.records[0].getMessage()
        framed.spoil(chunk.digest, flipped(chunk.data, 0))
        with pytest.raises(CorruptBlobError) as caught:
            VerifyService(framed).read(WHOLE_DIGEST)
        assert caught.value.expected == chunk.digest

    def test_what_there_is_no_frame_of(self, framed: Framed) -> None:
        """The service is asked for it as a chunk, and not believed."""
        chunk = CHUNKS[1]
        framed.spoilt[chunk.digest] = None
        assert VerifyService(framed).read(WHOLE_DIGEST) == WHOLE
        assert framed.asked == [chunk.digest]
        framed.spoil(chunk.digest, flipped(chunk.data, 0))
        with pytest.raises(CorruptChunkError):
            VerifyService(framed).read(WHOLE_DIGEST)


def test_a_stranger_whose_bytes_cannot_be_checked_is_denied() -> None:
    """By what its rows say; one that receives none goes through."""

    class Previews(ABC):
        OPERATIONS = (Operation("preview", receives=True),)

        @abstractmethod
        def preview(self, digest: B3Digest) -> bytes: ...

    class Counts(ABC):
        OPERATIONS = (Operation("count", question=True),)

        @abstractmethod
        def count(self) -> int: ...

    class Album(MemoryBlobService, Previews, Counts):
        def preview(self, digest: B3Digest) -> bytes:
            return b"?"

        def count(self) -> int:
            return 7

    service = VerifyService(Album())
    assert Album().capability(Previews) is not None
    assert service.capability(Previews) is None
    assert kind(service, Counts).count() == 7


class TestReport:
    def test_it_is_logged_and_left(
        self, store: Any, blobs_of: Any, key_of: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With the name of the instance and the place; nothing is moved."""
        within = blobs_of(store)
        within.write(HELLO.data)
        key = key_of("chunks", HELLO.digest)
        store.objects[key] = b"spoilt"
        with pytest.raises(CorruptBlobError):
            VerifyService(within, name="guard").read(HELLO.digest)
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("castore_wrappers.verify", "ERROR")
        assert record.getMessage().startswith("`guard`: ")
        assert key in record.getMessage()
        assert "MOVE" not in [verb for verb, _ in store.requests]


class TestQuarantine:
    @pytest.fixture
    def within(self, store: Any, blobs_of: Any) -> Any:
        within = blobs_of(store)
        within.write(HELLO.data)
        within.write(P3M.data)
        return within

    @pytest.fixture
    def service(self, within: Any) -> VerifyService:
        return VerifyService(within, on_corrupt="quarantine", name="guard")

    @pytest.mark.parametrize(
        "damage", [lambda frame: frame[:-1], lambda frame: b"", lambda frame: frames.compress(b"other")]
    )
    def test_a_chunk(
        self, service: VerifyService, within: Any, store: Any, key_of: Any, damage: Any, caplog: Any
    ) -> None:
        """It is moved aside when it is met, and can be written anew; the read raises all the same."""
        digest = within.chunks(P3M.digest)[3].digest
        key = key_of("chunks", digest)
        wrong = store.objects[key] = damage(store.objects[key])
        with pytest.raises(CorruptBlobError) as caught:
            service.read(P3M.digest)
        assert caught.value.expected == digest
        assert key not in store.objects
        assert store.objects[f"quarantine/{key}"] == wrong
        assert f"`guard`: {key} was corrupt and is now quarantine/{key}" in caplog.text
        with pytest.raises(MissingChunkError):
            service.read(P3M.digest)
        assert service.write(P3M.data) == P3M.digest
        assert service.read(P3M.digest) == P3M.data

    def test_a_blob_of_one_chunk(self, service: VerifyService, store: Any, key_of: Any) -> None:
        """Its chunk is the one to be moved."""
        key = key_of("chunks", HELLO.digest)
        store.objects[key] = frames.compress(b"other")
        with pytest.raises(CorruptBlobError):
            service.read(HELLO.digest)
        assert key not in store.objects
        assert key_of("blobs", HELLO.digest) in store.objects

    @pytest.mark.parametrize("wrong", ["undecodable", "of another blob"])
    def test_an_index(
        self, service: VerifyService, within: Any, store: Any, key_of: Any, index_of: Any, wrong: str
    ) -> None:
        """One that cannot be right, and one that is found out by what its chunks make up."""
        key = key_of("blobs", P3M.digest)
        metas: list[ChunkMeta] = list(within.chunks(P3M.digest))
        forged = [(meta.digest, meta.size) for meta in reversed(metas)]
        store.objects[key] = b"no index" if wrong == "undecodable" else index_of(*forged)
        with pytest.raises(CorruptBlobError):
            service.read(P3M.digest)
        assert key not in store.objects
        assert f"quarantine/{key}" in store.objects
        assert service.open_read(P3M.digest) is None
        assert service.write(P3M.data) == P3M.digest
        assert service.read(P3M.digest) == P3M.data

    def test_what_is_right_when_it_is_read_once_more_stays(
        self, service: VerifyService, store: Any, key_of: Any
    ) -> None:
        """Damage on the way here is no damage there."""
        key = key_of("chunks", HELLO.digest)
        good = store.objects[key]
        store.objects[key] = b"spoilt"
        get = store.get

        def get_once(asked: str, *most: int) -> Any:
            data = get(asked, *most)
            if asked == key:
                store.objects[key] = good
            return data

        store.get = get_once
        with pytest.raises(CorruptBlobError):
            service.read(HELLO.digest)
        assert store.objects[key] == good
        assert service.read(HELLO.digest) == HELLO.data

    def test_a_large_chunk_that_is_right_stays(self, store: Any, blobs_of: Any, caplog: Any) -> None:
        """Also one that is more than anybody unpacks without knowing its size, and was damaged on its way."""
        within = blobs_of(store, avg_chunk_size=2 << 20)
        service = VerifyService(within, on_corrupt="quarantine")
        service.write(P3M.data)
        (meta, *_) = within.chunks(P3M.digest) or [P3M.meta]
        assert meta.size > 1 << 20
        source = kind(service, ChunkSource)
        assert isinstance(source.get_chunks({meta.digest: None})[meta.digest], OversizedFrameError)
        assert caplog.records == []
        get = store.get

        def damaged_once(key: str, *most: int) -> Any:
            store.get = get
            return b"damaged"

        store.get = damaged_once
        assert isinstance(source.get_chunks({meta.digest: meta.size})[meta.digest], CorruptBlobError)
        assert caplog.records != []
        assert source.get_chunk(meta.digest, meta.size) == P3M.data[: meta.size]

    def test_of_a_batch_all_that_are_wrong(
        self, service: VerifyService, within: Any, store: Any, key_of: Any
    ) -> None:
        """Each is moved aside; the others are handed out."""
        metas = within.chunks(P3M.digest)
        wrong = [metas[1].digest, metas[4].digest]
        for digest in wrong:
            store.objects[key_of("chunks", digest)] = b"spoilt"
        found = kind(service, ChunkSource).get_chunks({meta.digest: meta.size for meta in metas})
        assert len(found) == len(metas)
        assert [digest for digest, data in found.items() if isinstance(data, CorruptBlobError)] == wrong
        assert all(f"quarantine/{key_of('chunks', digest)}" in store.objects for digest in wrong)

    def test_that_fails_does_not_hide_what_was_found(
        self, service: VerifyService, store: Any, key_of: Any, caplog: Any
    ) -> None:
        """The error is that the blob is corrupt; that it could not be moved is only logged."""
        store.objects[key_of("chunks", HELLO.digest)] = b"spoilt"
        store.failing = lambda verb, key: verb == "MOVE"
        with pytest.raises(CorruptBlobError):
            service.read(HELLO.digest)
        assert "`guard`: cannot set aside what is corrupt: `recording` is unavailable" in caplog.text

    def test_a_missing_chunk_is_nothing_to_be_moved(
        self, service: VerifyService, within: Any, store: Any, key_of: Any
    ) -> None:
        key = key_of("chunks", within.chunks(P3M.digest)[3].digest)
        del store.objects[key]
        with pytest.raises(MissingChunkError):
            service.read(P3M.digest)
        assert "MOVE" not in [verb for verb, _ in store.requests]

    def test_is_refused_where_nothing_can_be_moved(self) -> None:
        """When the composition is built, with the way out, and not when the first blob is corrupt."""
        with pytest.raises(UnsupportedError, match=r'`root` cannot set aside.*`on_corrupt = "report"`'):
            VerifyService(MemoryBlobService(), on_corrupt="quarantine", name="root")
        table = {"type": "verify", "inner": "memory:", "on_corrupt": "quarantine"}
        with (
            Composition.from_mapping({"blobservices": {"root": table}}) as stores,
            pytest.raises(BuildError, match=r"cannot build `root`.*no inventory"),
        ):
            stores.blobs()

    def test_of_a_service_with_items_of_its_own(self) -> None:
        """One that keeps no chunks has its blobs moved, found by their digests."""

        class Shelf(Smallest, Inventory):
            aside: Any = None

            def list_items(self) -> Any:
                for digest in list(self.blobs):
                    yield StoredItem("index", f"shelf/{digest}", digest)

            def set_aside(self, item: Any) -> str:
                self.aside = (item.key, self.blobs.pop(item.digest))
                return "away"

        shelf = Shelf()
        shelf.write(HELLO.data)
        shelf.blobs[HELLO.digest] = b"spoilt"
        service = VerifyService(shelf, on_corrupt="quarantine")
        with pytest.raises(CorruptBlobError):
            service.read(HELLO.digest)
        assert shelf.aside == (f"shelf/{HELLO.digest}", b"spoilt")
        assert service.open_read(HELLO.digest) is None


@pytest.mark.parametrize("table", [{"inner": "memory:", "on_corrupt": "heal"}, {}])
def test_config_is_checked(table: dict[str, Any]) -> None:
    with pytest.raises(CompositionError, match="on_corrupt" if table else "inner"):
        Composition.from_mapping({"blobservices": {"root": {"type": "verify", **table}}})
