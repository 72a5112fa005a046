"""Damaged stores: each kind of damage has an error of its own, that names the digest and the place.

Nothing here may crash, hang, use up the memory, or return a byte that is not the blob's.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castore import (
    B3Digest,
    BadFrameError,
    BadIndexError,
    BlobService,
    Composition,
    CorruptBlobError,
    CorruptChunkError,
    MissingChunkError,
    OversizedFrameError,
    UnavailableError,
)
from castore.contract.capabilities import BlobLister
from castore.testing import BLOB_A, BLOB_B, CHUNKS, EMPTY, HELLO, P3M
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

SIXTEEN = bytes(range(16))
WHOLE = B3Digest.of(SIXTEEN)


@pytest.fixture
def blobs(blobs_of: Any, store: Any) -> BlobService:
    return blobs_of(store)  # type: ignore[no-any-return]


@pytest.fixture
def check(blobs: BlobService) -> Callable[..., Any]:
    """Check that a blob cannot be read because of an error of this type, which names digest and place."""

    def check(blob: B3Digest, error: type[CorruptBlobError], *, digest: B3Digest, key: str) -> Any:
        with pytest.raises(CorruptBlobError) as caught:
            blobs.read(blob)
        assert type(caught.value) is error
        assert caught.value.expected == digest
        assert caught.value.key == key
        assert str(digest) in str(caught.value)
        assert key in str(caught.value)
        return caught.value

    return check


@pytest.fixture
def five(blobs: BlobService, store: Any, key_of: Any, frame_of: Any) -> Callable[[bytes], str]:
    """Store the five fixture chunks, and an index for them; return the key of the index."""

    def make(index: bytes) -> str:
        for chunk in CHUNKS:
            store.objects[key_of("chunks", chunk.digest)] = frame_of(chunk.data)
        key: str = key_of("blobs", WHOLE)
        store.objects[key] = index
        return key

    return make


def rle_bomb(size: int) -> bytes:
    """A valid frame that unpacks to *size* zeros: blocks of 128 KiB that repeat one byte."""
    block = 128 << 10
    blocks = []
    for start in range(0, size, block):
        last = start + block >= size
        blocks.append((min(block, size - start) << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0")
    return bytes.fromhex("28b52ffd0058") + b"".join(blocks)


class TestChunks:
    def test_every_flipped_bit(self, blobs: BlobService, store: Any, key_of: Any) -> None:
        """Whichever bit of a stored chunk flips: the right bytes, or an error of corruption; never others."""
        blobs.write(HELLO.data)
        key = key_of("chunks", HELLO.digest)
        frame = store.objects[key]
        kinds = set()
        for bit in range(8 * len(frame)):
            damaged = bytearray(frame)
            damaged[bit // 8] ^= 1 << bit % 8
            store.objects[key] = bytes(damaged)
            try:
                assert blobs.read(HELLO.digest) == HELLO.data
            except CorruptBlobError as error:
                kinds.add((type(error), error.key, error.expected))
        assert {(error, key, HELLO.digest) for error in (BadFrameError, CorruptChunkError)} <= kinds
        assert {(place, digest) for _, place, digest in kinds} == {(key, HELLO.digest)}

    def test_every_truncation(self, blobs: BlobService, store: Any, key_of: Any, check: Any) -> None:
        """A chunk that is cut short anywhere is a bad frame, also one of no bytes at all."""
        blobs.write(HELLO.data)
        key = key_of("chunks", HELLO.digest)
        frame = store.objects[key]
        for size in range(len(frame)):
            store.objects[key] = frame[:size]
            check(HELLO.digest, BadFrameError, digest=HELLO.digest, key=key)

    def test_truncation_of_a_large_chunk(
        self, blobs: BlobService, store: Any, key_of: Any, check: Any
    ) -> None:
        """Also where the cut is at the end of a block, which a decompressor takes for more to come."""
        blobs.write(P3M.data[:100_000] + bytes(400_000))
        key = next(key for key in store.objects if key.startswith("chunks/"))
        frame = store.objects[key]
        digest = B3Digest.parse(key.rpartition("/")[2])
        cuts = {*range(1, len(frame), 997), len(frame) - 3, len(frame) - 4, len(frame) - 7}
        for size in cuts:
            store.objects[key] = frame[:size]
            check(digest, BadFrameError, digest=digest, key=key)

    @pytest.mark.parametrize("tail", [b"\0", b"garbage", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18\xff\0\0\0"])
    def test_something_behind(
        self, blobs: BlobService, store: Any, key_of: Any, check: Any, tail: bytes
    ) -> None:
        """What follows a frame must be a whole frame, too."""
        blobs.write(HELLO.data)
        key = key_of("chunks", HELLO.digest)
        store.objects[key] += tail
        check(HELLO.digest, BadFrameError, digest=HELLO.digest, key=key)

    def test_more_behind(
        self, blobs: BlobService, store: Any, key_of: Any, check: Any, frame_of: Any
    ) -> None:
        """A whole frame that does not belong there makes other bytes."""
        blobs.write(HELLO.data)
        key = key_of("chunks", HELLO.digest)
        store.objects[key] += frame_of(b"!")
        error = check(HELLO.digest, CorruptChunkError, digest=HELLO.digest, key=key)
        assert error.found == B3Digest.of(b"Hello World!!")

    def test_not_compressed(self, blobs: BlobService, store: Any, key_of: Any, check: Any) -> None:
        """A chunk that somebody put there as it is, is no frame."""
        blobs.write(HELLO.data)
        key = key_of("chunks", HELLO.digest)
        store.objects[key] = HELLO.data
        check(HELLO.digest, BadFrameError, digest=HELLO.digest, key=key)

    def test_the_chunk_of_another(self, blobs: BlobService, store: Any, key_of: Any, check: Any) -> None:
        """A good frame of other bytes is told by the digest that was found."""
        blobs.write(HELLO.data)
        blobs.write(BLOB_A.data)
        key = key_of("chunks", HELLO.digest)
        store.objects[key] = store.objects[key_of("chunks", BLOB_A.digest)]
        error = check(HELLO.digest, CorruptChunkError, digest=HELLO.digest, key=key)
        assert error.found == BLOB_A.digest

    def test_damage_in_the_middle_of_a_blob(self, blobs: BlobService, store: Any, key_of: Any) -> None:
        """What is before the damaged chunk reads, and what is after it; the chunk itself does not."""
        blobs.write(P3M.data)
        chunks = blobs.chunks(P3M.digest) or ()
        key = key_of("chunks", chunks[3].digest)
        store.objects[key] = store.objects[key][:-1]
        start = sum(chunk.size for chunk in chunks[:3])
        with blobs.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            assert reader.read(start) == P3M.data[:start]
            for _ in range(2):
                with pytest.raises(BadFrameError, match=key):
                    reader.read(1)
                assert reader.tell() == start
            end = reader.seek(start + chunks[3].size)
            assert reader.read(100) == P3M.data[end : end + 100]


class TestIndexes:
    @pytest.mark.parametrize(
        "index",
        [b"\xff", b"not an index", b"\x12\x26\x0a\x20abc", b"\x12", b"\x12\xff\xff\xff\xff\x0f"],
    )
    def test_not_protobuf(self, check: Any, five: Any, blobs: BlobService, index: bytes) -> None:
        """Bytes that are no message are a bad index, for `chunks` and for reading."""
        key = five(index)
        check(WHOLE, BadIndexError, digest=WHOLE, key=key)
        with pytest.raises(BadIndexError, match=key):
            blobs.chunks(WHOLE)

    def test_a_message_without_chunks(self, check: Any, five: Any) -> None:
        """A message that lists nothing is no index: one of no chunks has no bytes."""
        key = five(b"\x1a\x03bao")
        check(WHOLE, BadIndexError, digest=WHOLE, key=key)

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_digest_of_another_length(self, check: Any, five: Any, index_of: Any, length: int) -> None:
        """A digest that has not 32 bytes is told with its number and length."""
        key = five(index_of((CHUNKS[0].digest, 2), (b"x" * length, 14)))
        error = check(WHOLE, BadIndexError, digest=WHOLE, key=key)
        assert f"gives chunk #1 a digest of {length} bytes" in str(error)

    @pytest.mark.parametrize("size", [0, (16 << 20) + 1, 1 << 62, (1 << 64) - 1])
    def test_impossible_sizes(self, check: Any, five: Any, index_of: Any, size: int) -> None:
        """A size that no chunk can have is a bad index, before anything is read."""
        key = five(index_of((CHUNKS[0].digest, 2), (CHUNKS[1].digest, size)))
        error = check(WHOLE, BadIndexError, digest=WHOLE, key=key)
        assert f"gives chunk #1 a size of {size} bytes" in str(error)

    def test_a_single_chunk_of_another_digest(self, check: Any, five: Any, index_of: Any) -> None:
        """A list of one chunk, which is not the blob itself, cannot be right."""
        key = five(index_of((CHUNKS[0].digest, 2)))
        error = check(WHOLE, BadIndexError, digest=WHOLE, key=key)
        assert error.found == CHUNKS[0].digest

    @pytest.mark.parametrize(("number", "by", "error"), [
        (1, -1, OversizedFrameError), (1, 1, CorruptChunkError), (1, 10_000_000, CorruptChunkError),
        (0, -1, OversizedFrameError), (4, -1, OversizedFrameError), (4, 1, CorruptChunkError),
    ])  # fmt: skip
    def test_wrong_sizes(
        self, check: Any, five: Any, index_of: Any, key_of: Any, number: int, by: int, error: Any
    ) -> None:
        """A size that a chunk has not is told when the chunk is read; no byte is at a wrong place."""
        sizes = [chunk.size for chunk in CHUNKS]
        sizes[number] += by
        five(index_of(*zip([chunk.digest for chunk in CHUNKS], sizes, strict=True)))
        digest = CHUNKS[number].digest
        check(WHOLE, error, digest=digest, key=key_of("chunks", digest))

    def test_wrong_sizes_that_add_up(self, blobs: BlobService, five: Any, index_of: Any, key_of: Any) -> None:
        """Where the total is right, reads of the wrong sizes fail, and those behind are right."""
        sizes = [chunk.size for chunk in CHUNKS]
        sizes[0] += 1
        sizes[1] -= 1
        five(index_of(*zip([chunk.digest for chunk in CHUNKS], sizes, strict=True)))
        with blobs.open_read(WHOLE) as reader:  # type: ignore[union-attr]
            for position in range(6):
                reader.seek(position)
                with pytest.raises(CorruptBlobError):
                    reader.read(1)
            reader.seek(6)
            assert reader.read() == SIXTEEN[6:]

    def test_missing_chunk(
        self, blobs: BlobService, store: Any, five: Any, index_of: Any, key_of: Any
    ) -> None:
        """A chunk that is gone is told with blob, chunk and key; what lies before it reads."""
        five(index_of(*((chunk.digest, chunk.size) for chunk in CHUNKS)))
        key = key_of("chunks", CHUNKS[2].digest)
        del store.objects[key]
        with blobs.open_read(WHOLE) as reader:  # type: ignore[union-attr]
            assert reader.read(6) == SIXTEEN[:6]
            with pytest.raises(MissingChunkError) as caught:
                reader.read(1)
            reader.seek(7)
            assert reader.read() == SIXTEEN[7:]
        assert (caught.value.blob, caught.value.expected) == (WHOLE, CHUNKS[2].digest)
        assert caught.value.key == key
        assert key in str(caught.value)
        assert str(WHOLE) in str(caught.value)

    def test_swapped_chunks(self, check: Any, five: Any, index_of: Any) -> None:
        """Good chunks in the wrong order are another blob; reading it to its end tells so."""
        order = (1, 0, 2, 3, 4)
        key = five(index_of(*((CHUNKS[at].digest, CHUNKS[at].size) for at in order)))
        error = check(WHOLE, CorruptBlobError, digest=WHOLE, key=key)
        assert error.found == B3Digest.of(b"".join(CHUNKS[at].data for at in order))

    def test_the_end_is_held_back(self, blobs: BlobService, five: Any, index_of: Any) -> None:
        """Of a forged list, the last chunk never comes out: not even when it is asked for again."""
        five(index_of(*((CHUNKS[at].digest, CHUNKS[at].size) for at in (1, 0, 2, 3, 4))))
        with blobs.open_read(WHOLE) as reader:  # type: ignore[union-attr]
            reader.read(9)
            for _ in range(2):
                with pytest.raises(CorruptBlobError):
                    reader.read(1)

    def test_one_chunk_too_many_or_too_few(self, check: Any, five: Any, index_of: Any) -> None:
        """A list that goes on, or stops early, is another blob."""
        metas = [(chunk.digest, chunk.size) for chunk in CHUNKS]
        for chunks in ([*metas, metas[0]], metas[:-1]):
            key = five(index_of(*chunks))
            check(WHOLE, CorruptBlobError, digest=WHOLE, key=key)

    def test_a_list_of_itself(self, check: Any, five: Any, index_of: Any, key_of: Any) -> None:
        """A blob that lists itself as its chunk does not read for ever."""
        five(index_of((WHOLE, 8), (WHOLE, 8)))
        check(WHOLE, MissingChunkError, digest=WHOLE, key=key_of("chunks", WHOLE))

    def test_an_empty_index_whose_chunk_is_gone(
        self, blobs: BlobService, store: Any, check: Any, key_of: Any
    ) -> None:
        """The blob is said to be there, but its one chunk is not: that is neither absence nor a crash."""
        blobs.write(HELLO.data)
        key = key_of("chunks", HELLO.digest)
        del store.objects[key]
        assert blobs.has(HELLO.digest) is True
        assert blobs.chunks(HELLO.digest) == ()
        error = check(HELLO.digest, MissingChunkError, digest=HELLO.digest, key=key)
        assert error.blob == HELLO.digest

    def test_an_index_for_the_empty_blob(self, blobs: BlobService, store: Any, key_of: Any) -> None:
        """The empty blob is read without asking, whatever is stored in its place."""
        store.objects[key_of("blobs", EMPTY.digest)] = b"\xff"
        store.objects[key_of("chunks", EMPTY.digest)] = b"\xff"
        assert blobs.read(EMPTY.digest) == b""


class TestBombs:
    """Small frames that unpack to more than the memory."""

    @pytest.mark.parametrize(
        "bomb",
        [
            rle_bomb(4 << 30),
            rle_bomb((16 << 20) + 1),
            rle_bomb(8 << 20) * 3,
            bytes.fromhex("28b52ffdc058") + (1 << 60).to_bytes(8, "little") + b"\1\0\0",
            bytes.fromhex("28b52ffde0") + (1 << 34).to_bytes(8, "little") + b"\1\0\0",
        ],
        ids=["4-GiB", "a-byte-too-much", "in-three-frames", "claims-2**60", "claims-16-GiB"],
    )
    def test_single_chunk(self, blobs: BlobService, store: Any, key_of: Any, check: Any, bomb: bytes) -> None:
        """A blob of one chunk is never unpacked beyond the size of the largest chunk there can be."""
        key = key_of("chunks", HELLO.digest)
        store.objects[key] = bomb
        error = check(HELLO.digest, OversizedFrameError, digest=HELLO.digest, key=key)
        assert "16777216" in str(error)

    def test_the_largest_chunk_is_allowed(self, blobs: BlobService, store: Any, key_of: Any) -> None:
        """16 MiB, which the largest setting of the reference can make, still read."""
        data = bytes(16 << 20)
        store.objects[key_of("chunks", B3Digest.of(data))] = rle_bomb(len(data))
        assert blobs.read(B3Digest.of(data)) == data

    def test_listed_chunk(self, store: Any, key_of: Any, check: Any, five: Any, index_of: Any) -> None:
        """A listed chunk is never unpacked beyond the size that its index gives."""
        five(index_of(*((chunk.digest, chunk.size) for chunk in CHUNKS)))
        key = key_of("chunks", CHUNKS[3].digest)
        store.objects[key] = rle_bomb(4 << 30)
        error = check(WHOLE, OversizedFrameError, digest=CHUNKS[3].digest, key=key)
        assert "the 2 bytes that its index allows" in str(error)

    def test_a_window_larger_than_memory(
        self, blobs: BlobService, store: Any, key_of: Any, check: Any
    ) -> None:
        """A frame that asks for a window of terabytes is refused."""
        key = key_of("chunks", HELLO.digest)
        store.objects[key] = bytes.fromhex("28b52ffd00f8") + b"\1\0\0"
        check(HELLO.digest, BadFrameError, digest=HELLO.digest, key=key)

    def test_memory_is_bounded(self, tmp_path: Path, key_of: Any, index_of: Any) -> None:
        """With 100 MiB to spare, both kinds of bomb are an error of their type, not one of memory."""
        files = {
            key_of("chunks", HELLO.digest): rle_bomb(4 << 30),
            key_of("chunks", CHUNKS[1].digest): rle_bomb(4 << 30),
            key_of("blobs", WHOLE): index_of((CHUNKS[1].digest, 4), (CHUNKS[1].digest, 4)),
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_bytes(content)
        program = f"""
import resource
import castore
blobs = castore.from_url("objectstore+file:{tmp_path}")
blobs.write(bytes(100_000))
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for digest in ("{HELLO.digest}", "{WHOLE}"):
    try:
        blobs.read(castore.B3Digest.parse(digest))
    except castore.CastoreError as error:
        print(error.code)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "oversized-frame\noversized-frame\n"


class TestFaultyDisks:
    """What the operating system refuses is `UnavailableError`, naming instance and file; never absence."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Any:  # type: ignore[override]
        tables = {"blobservices": {"root": {"type": "objectstore", "object_store_url": "file:store"}}}
        with Composition.from_mapping(tables, base=tmp_path) as stores:
            yield stores.blobs()

    def check(self, what: str, reason: str, call: Callable[[], object]) -> None:
        with pytest.raises(UnavailableError) as caught:
            call()
        assert str(caught.value).startswith("`root` is unavailable: ")
        assert reason in str(caught.value)
        assert what in str(caught.value)
        assert caught.value.instance == "root"

    def check_all(self, blobs: BlobService, what: str, reason: str) -> None:
        lister = blobs.capability(BlobLister)
        assert lister is not None
        self.check(what, reason, lambda: blobs.has(HELLO.digest))
        self.check(what, reason, lambda: blobs.open_read(HELLO.digest))
        self.check(what, reason, lambda: blobs.chunks(HELLO.digest))
        self.check(what, reason, lambda: blobs.missing([HELLO.digest]))
        self.check(what, reason, lambda: blobs.write(HELLO.data))
        self.check(what, reason, lambda: list(lister.list_blobs()))

    def test_the_root_is_a_file(self, blobs: Any, folder: Path) -> None:
        """A file where the folder should be."""
        folder.write_bytes(b"")
        self.check_all(blobs, str(folder), "Not a directory")

    def test_a_loop_of_links(self, blobs: Any, folder: Path) -> None:
        """A link that leads to itself."""
        folder.symlink_to(folder)
        self.check_all(blobs, str(folder), "Too many levels of symbolic links")

    def test_a_name_too_long(self, tmp_path: Path) -> None:
        """A path that no file system takes."""
        tables = {"blobservices": {"root": {"type": "objectstore", "object_store_url": f"file:{'x' * 300}"}}}
        with Composition.from_mapping(tables, base=tmp_path) as stores:
            self.check_all(stores.blobs(), "xxx", "File name too long")

    def test_a_folder_for_a_chunk(self, blobs: Any, folder: Path, key_of: Any) -> None:
        """A folder in the place of an object is there, and not right."""
        for kind in ("chunks", "blobs"):
            (folder / key_of(kind, HELLO.digest)).mkdir(parents=True)
        with pytest.raises(BadFrameError, match="there is a folder where chunk") as caught:
            blobs.open_read(HELLO.digest)
        assert caught.value.key == key_of("chunks", HELLO.digest)
        with pytest.raises(BadIndexError, match="there is a folder where the index") as other:
            blobs.chunks(HELLO.digest)
        assert other.value.key == key_of("blobs", HELLO.digest)

    def test_a_folder_for_a_chunk_of_a_list(self, blobs: Any, folder: Path, key_of: Any) -> None:
        """In the middle of a blob as well."""
        blobs.write(BLOB_B.data)
        chunk = (blobs.chunks(BLOB_B.digest) or ())[1]
        path = folder / key_of("chunks", chunk.digest)
        path.unlink()
        path.mkdir()
        with blobs.open_read(BLOB_B.digest) as reader:
            assert reader.read(524288) == BLOB_B.data[:524288]
            with pytest.raises(BadFrameError, match="there is a folder"):
                reader.read()
            assert reader.tell() == 524288

    def test_a_file_for_a_folder_of_keys(self, blobs: Any, folder: Path) -> None:
        """A file in the place of the folder of some digests."""
        for kind in ("blobs", "chunks"):
            (folder / kind / "b3").mkdir(parents=True)
            (folder / kind / "b3" / HELLO.digest.hex()[:4]).touch()
        for call in (blobs.has, blobs.open_read, blobs.chunks):
            self.check(HELLO.digest.hex()[:4], "Not a directory", lambda call=call: call(HELLO.digest))
        self.check(HELLO.digest.hex()[:4], "Not a directory", lambda: blobs.write(HELLO.data))
        assert blobs.has(BLOB_A.digest) is False

    def test_a_full_disk(self, blobs: Any, tmp_path: Path) -> None:
        """A write that the disk does not take is an error, and leaves no file, whole or half."""
        program = f"""
import resource, signal
import castore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    castore.from_url("objectstore+file:{tmp_path}/full").put_file("{tmp_path}/source")
except castore.UnavailableError as error:
    print(error)
"""
        (tmp_path / "source").write_bytes(P3M.data)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("`root` is unavailable: File too large: ")
        assert f"{tmp_path}/full/chunks/b3/" in done.stdout
        assert [path for path in (tmp_path / "full").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("damage", ["missing chunk", "torn chunk", "torn index", "missing index"])
def test_a_known_file_whose_blob_is_not_whole_is_stored_again(tmp_path: Path, damage: str) -> None:
    """Whatever is missing, putting the file again mends it."""
    file, folder = tmp_path / "file", tmp_path / "store"
    file.write_bytes(P3M.data)

    def service() -> BlobService:
        return ObjectStoreBlobService(LocalObjectStore(folder, instance="files"))

    assert service().put_file(file) == P3M.digest
    chunks = service().chunks(P3M.digest) or ()
    kind = "blobs" if "index" in damage else "chunks"
    name = P3M.digest.hex() if "index" in damage else chunks[5].digest.hex()
    path = folder / kind / "b3" / name[:4] / name
    if "missing" in damage:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    assert service().put_file(file) == P3M.digest
    assert service().read(P3M.digest) == P3M.data
