"""What is on the disk, byte for byte, and in which order it gets there: the reference's layout."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard

from castore import B3Digest, BlobService, Composition, UnavailableError
from castore.contract.capabilities import BlobLister
from castore.testing import BLOB_A, BLOB_B, CHUNKS, EMPTY, HELLO, P3M, ZEROS_1M
from castore_objectstore.local import LocalObjectStore

BLOB_B_HEAD = "79445f0f1420045f8be59af5f7915cfd9182c978ece11a21913641e457fa9794"
BLOB_B_TAIL = "832c7fbdbe9a537273cfe0299195a09ba7d08b6da842ab25fea373d739e9c5ac"
BLOB_B_INDEX = f"12260a20{BLOB_B_HEAD}10808020" + f"12260a20{BLOB_B_TAIL}1080e01f"
ZEROS_CHUNK = "934d6b7aea5a339a9e858430cca7ac455d3537e70fd2b302931cc93b25e1df9a"
P3M_SIZES = [486450, 524288, 241210, 314451, 417161, 524288, 524288, 113592]
P3M_STARTS = ["0e1707f8", "b0e75a92", "ee28b02f", "90d917ae", "701c3a02", "adc68184", "9a1e901b", "387fd1e1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def blobs(tmp_path: Path) -> Any:
    with Composition.from_mapping(
        {
            "blobservices": {
                "root": {"type": "objectstore", "object_store_url": "file:./store"},
                "small": {"type": "objectstore", "object_store_url": "file:./store", "avg_chunk_size": 1024},
            }
        },
        base=tmp_path,
    ) as stores:
        yield stores.blobs


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(frame: bytes) -> bytes:
    """Unpack one frame, which must be all there is."""
    decompressor = zstandard.ZstdDecompressor().decompressobj(read_across_frames=False)
    data = decompressor.decompress(frame)
    assert decompressor.eof
    assert decompressor.unused_data == b""
    return data


class TestTree:
    def test_small_blob(self, blobs: Any, folder: Path, key_of: Any) -> None:
        """A blob of one chunk is the chunk and an index of no bytes, in folders of four hex digits."""
        blobs().write(BLOB_A.data)
        found = tree(folder)
        assert sorted(found) == [
            "blobs/b3/7b70/7b7015bb92cf0b318037702a6cdd81dee41224f734684c2c122cd6359cb1ee63",
            "chunks/b3/7b70/7b7015bb92cf0b318037702a6cdd81dee41224f734684c2c122cd6359cb1ee63",
        ]
        assert found[key_of("blobs", BLOB_A.digest)] == b""
        assert unpacked(found[key_of("chunks", BLOB_A.digest)]) == BLOB_A.data

    def test_empty_blob(self, blobs: Any, folder: Path) -> None:
        """The empty blob is an index of no bytes, and no chunk."""
        blobs().write(b"")
        assert tree(folder) == {
            "blobs/b3/af13/af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262": b""
        }

    def test_hello_world(self, blobs: Any, folder: Path) -> None:
        """The reference's own example lies where the reference puts it."""
        blobs().write(b"Hello World")
        name = "41f8394111eb713a22165c46c90ab8f0fd9399c92028fd6d288944b23ff5bf76"
        assert sorted(tree(folder)) == [f"blobs/b3/41f8/{name}", f"chunks/b3/41f8/{name}"]

    def test_chunked_blobs(self, blobs: Any, folder: Path, key_of: Any) -> None:
        """All four vectors in one store: exactly these files, with these bytes, and nothing else."""
        for blob in (BLOB_A, BLOB_B, EMPTY, P3M):
            assert blobs().write(blob.data) == blob.digest
        found = tree(folder)
        assert found.pop(key_of("blobs", BLOB_A.digest)) == b""
        assert found.pop(key_of("blobs", EMPTY.digest)) == b""
        assert found.pop(key_of("blobs", BLOB_B.digest)).hex() == BLOB_B_INDEX
        index = found.pop(key_of("blobs", P3M.digest))
        assert len(index) == 320
        sha256 = "38f7a9a1d42e40f22d9bc98a009a8f0d2c7f7af45a079e5c90e661dc59ff98d7"
        assert hashlib.sha256(index).hexdigest() == sha256
        parts = [BLOB_A.data, BLOB_B.data[:524288], BLOB_B.data[524288:]]
        start = 0
        for size in P3M_SIZES:
            parts.append(P3M.data[start : start + size])
            start += size
        starts = [B3Digest.of(part).hex()[:8] for part in parts[3:]]
        assert starts == P3M_STARTS
        for part in parts:
            assert unpacked(found.pop(key_of("chunks", B3Digest.of(part)))) == part
        assert found == {}

    def test_repeated_chunks_are_stored_once_and_listed_each_time(self, blobs: Any, folder: Path) -> None:
        """A blob of equal chunks is one chunk file, and an index that lists it twice."""
        blobs().write(ZEROS_1M.data)
        found = tree(folder)
        assert [name for name in found if name.startswith("chunks/")] == [f"chunks/b3/934d/{ZEROS_CHUNK}"]
        index = next(data for name, data in found.items() if name.startswith("blobs/"))
        assert B3Digest.of(index).hex() == "1e44b324f989214d7e5dac21d6eb812ff01ea55a697826a7672aa075e21597f2"

    def test_many_small_chunks(self, blobs: Any, folder: Path, key_of: Any) -> None:
        """At an average of 1 KiB the vector has 820 chunks, of which three differ."""
        blobs("small").write(BLOB_B.data)
        index = tree(folder)[key_of("blobs", BLOB_B.digest)]
        assert len(index) == 31980
        assert B3Digest.of(index).hex() == "f0f62c95cc199aad523b236045d34161544a28e1be4e9dba39c59de1ca0e15cf"
        chunks = blobs("small").chunks(BLOB_B.digest)
        assert [chunk.size for chunk in chunks] == [1130, *[1275] * 818, 400]
        assert sorted(path.name for path in (folder / "chunks").rglob("*") if path.is_file()) == [
            "00d7d8c60c21348feaa8a9ecf506f689b9eb5212ebb3f2aeece0567ed3cdb07c",
            "0abfc39ca21da1f566395b17434064716c0df63d6fe93c961bc2e1718af7f5b3",
            "6e046c25f016f4fe86a1663c5bff6f97cd8617411ca9a65024e220fcc1bb0592",
        ]
        assert blobs("small").read(BLOB_B.digest) == BLOB_B.data

    @pytest.mark.parametrize(
        ("size", "sizes"),
        [(131072, []), (131073, []), (524288, [486450, 37838]), (524289, [486450, 37839])],
    )
    def test_where_blobs_begin_to_be_cut(self, blobs: Any, size: int, sizes: list[int]) -> None:
        """Prefixes of a vector are cut where the reference cuts them."""
        chunks = blobs().chunks(blobs().write(P3M.data[:size]))
        assert [chunk.size for chunk in chunks] == sizes

    def test_frames_have_neither_size_nor_checksum(self, blobs: Any, folder: Path) -> None:
        """A frame's header gives no content size, no checksum and no dictionary, as the reference's."""
        for blob in (BLOB_A, BLOB_B, P3M):
            blobs().write(blob.data)
        chunks = [path for path in (folder / "chunks").rglob("*") if path.is_file()]
        assert len(chunks) == 11
        for chunk in chunks:
            frame = chunk.read_bytes()
            parameters = zstandard.get_frame_parameters(frame)
            assert frame.startswith(bytes.fromhex("28b52ffd00"))
            assert parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN
            assert not parameters.has_checksum
            assert parameters.dict_id == 0

    def test_the_last_index_counts(self, blobs: Any, folder: Path, key_of: Any) -> None:
        """Stored again with chunks of another size, a blob has another index; and the first one again."""
        blobs().write(BLOB_B.data)
        blobs("small").write(BLOB_B.data)
        assert len(blobs().chunks(BLOB_B.digest)) > 2
        assert blobs().read(BLOB_B.digest) == BLOB_B.data
        blobs().write(BLOB_B.data)
        assert tree(folder)[key_of("blobs", BLOB_B.digest)].hex() == BLOB_B_INDEX

    @pytest.mark.parametrize("kept", [0, -1])
    def test_an_index_that_cannot_be_right_is_replaced(
        self, blobs: Any, folder: Path, key_of: Any, kept: int
    ) -> None:
        """Whether it is as long as the right one, or cut short."""
        blobs().write(BLOB_B.data)
        index = folder / key_of("blobs", BLOB_B.digest)
        data = index.read_bytes()
        index.write_bytes(data[:kept] if kept else bytes(len(data)))
        blobs().write(BLOB_B.data)
        assert index.read_bytes().hex() == BLOB_B_INDEX

    def test_an_aborted_blob_has_no_index(self, blobs: Any, folder: Path) -> None:
        """After an abort no index and no temporary file is left; chunks may be."""
        service = blobs()
        writer = service.open_write()
        for _ in range(8):
            writer.write(P3M.data)
        writer.abort()
        service.close()
        assert [name for name in tree(folder) if not name.startswith("chunks/")] == []
        assert [name for name in tree(folder) if "#" in name] == []


class TestStoresOfOthers:
    """A store that another program wrote reads the same."""

    @pytest.mark.parametrize("sized", [False, True])
    @pytest.mark.parametrize("checksum", [False, True])
    def test_frames_of_any_header(
        self, blobs: Any, folder: Path, key_of: Any, frame_of: Any, index_of: Any, sized: bool, checksum: bool
    ) -> None:
        """Frames with and without a content size or checksum are read, alone and in a list."""
        files = {
            key_of("chunks", chunk.digest): frame_of(chunk.data, sized=sized, checksum=checksum)
            for chunk in CHUNKS
        }
        data = b"".join(chunk.data for chunk in CHUNKS)
        whole = B3Digest.of(data)
        files[key_of("blobs", whole)] = index_of(*((chunk.digest, chunk.size) for chunk in CHUNKS))
        files[key_of("blobs", CHUNKS[1].digest)] = b""
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        assert blobs().read(whole) == data
        assert blobs().read(CHUNKS[1].digest) == CHUNKS[1].data
        assert blobs().chunks(whole) == tuple(chunk.meta for chunk in CHUNKS)
        assert blobs().chunks(CHUNKS[1].digest) == ()
        assert set(blobs().capability(BlobLister).list_blobs()) == {whole, CHUNKS[1].digest}

    def test_a_chunk_of_several_frames(self, blobs_of: Any, store: Any, key_of: Any, frame_of: Any) -> None:
        """A chunk may be any number of frames, one after the other, skippable ones included."""
        skippable = bytes.fromhex("502a4d18") + (3).to_bytes(4, "little") + b"abc"
        parts = [frame_of(b"Hello "), skippable, frame_of(b"", sized=True), frame_of(b"World!", sized=True)]
        store.objects[key_of("chunks", HELLO.digest)] = b"".join(parts)
        assert blobs_of(store).read(HELLO.digest) == HELLO.data

    def test_the_frame_of_the_reference(self, blobs_of: Any, store: Any, key_of: Any) -> None:
        """The very bytes that the reference writes for its smallest fixture."""
        store.objects[key_of("chunks", BLOB_A.digest)] = bytes.fromhex("28b52ffd00581100000001")
        assert blobs_of(store).read(BLOB_A.digest) == BLOB_A.data

    def test_an_index_with_unknown_fields(
        self, blobs_of: Any, store: Any, key_of: Any, frame_of: Any, index_of: Any
    ) -> None:
        """Fields that castore does not know, as `bao`, are passed over."""
        for chunk in CHUNKS[:2]:
            store.objects[key_of("chunks", chunk.digest)] = frame_of(chunk.data)
        data = CHUNKS[0].data + CHUNKS[1].data
        index = index_of(*((chunk.digest, chunk.size) for chunk in CHUNKS[:2])) + b"\x1a\x03bao"
        store.objects[key_of("blobs", B3Digest.of(data))] = index
        assert blobs_of(store).read(B3Digest.of(data)) == data

    def test_an_index_may_be_written_with_one_entry(
        self, blobs_of: Any, store: Any, key_of: Any, frame_of: Any, index_of: Any
    ) -> None:
        """A list of one chunk, the blob itself, is as good as none."""
        store.objects[key_of("chunks", HELLO.digest)] = frame_of(HELLO.data)
        store.objects[key_of("blobs", HELLO.digest)] = index_of((HELLO.digest, 12))
        blobs = blobs_of(store)
        assert blobs.chunks(HELLO.digest) == ()
        assert blobs.read(HELLO.digest) == HELLO.data


class TestPlaces:
    """Where the folder of a `file:` URL is."""

    @pytest.mark.parametrize(
        ("url", "place"),
        [
            ("file:./stores/near", "conf/stores/near"),
            ("file:stores/near", "conf/stores/near"),
            ("file:../near", "near"),
            ("file:near/", "conf/near"),
            ("file:with%20space%23%3F%25", "conf/with space#?%"),
            ("file:{base}/abs", "abs"),
            ("file://{base}/abs", "abs"),
            ("file://{base}/f%C3%BCr", "für"),
            ("FILE:near", "conf/near"),
        ],
    )
    def test_url_forms(self, tmp_path: Path, monkeypatch: Any, url: str, place: str) -> None:
        """Paths are decoded; relative ones start at the folder of the composition's file."""
        config, elsewhere = tmp_path / "conf" / "stack.toml", tmp_path / "elsewhere"
        config.parent.mkdir()
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        config.write_text(
            f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "{url.format(base=tmp_path)}"\n'
        )
        with Composition.from_toml(config) as stores:
            stores.blobs().write(BLOB_A.data)
        assert sorted(tree(tmp_path / place)) == [
            f"{kind}/b3/7b70/{BLOB_A.digest}" for kind in ("blobs", "chunks")
        ]
        assert list(elsewhere.iterdir()) == []

    def test_nothing_is_made_before_the_first_write(self, blobs: Any, folder: Path) -> None:
        """Building, asking and reading leave no folder behind."""
        assert blobs().has(BLOB_A.digest) is False
        assert blobs().open_read(BLOB_A.digest) is None
        assert list(blobs().capability(BlobLister).list_blobs()) == []
        assert not folder.exists()

    def test_two_services_share_a_folder(self, tmp_path: Path) -> None:
        """Two compositions over one folder see what the other wrote."""
        mapping = {"blobservices": {"root": {"type": "objectstore", "object_store_url": "file:shared"}}}
        with (
            Composition.from_mapping(mapping, base=tmp_path) as one,
            Composition.from_mapping(mapping, base=tmp_path) as other,
        ):
            digest = one.blobs().write(P3M.data)
            assert other.blobs().read(digest) == P3M.data


def flushed(store: LocalObjectStore, key: str, data: bytes) -> None:
    store.put(key, data)
    store.flush()


@pytest.mark.parametrize("durability", ["process", "full"])
class TestFiles:
    """How one object gets to its place."""

    def test_temporary_names(self, tmp_path: Path, monkeypatch: Any, durability: Any) -> None:
        """An object is written to `<name>#<n>`, n from 1 on, beside its place, and renamed."""
        moves: list[tuple[str, str]] = []
        replace = os.replace

        def spy(source: str, target: str) -> None:
            moves.append((str(Path(source).relative_to(tmp_path)), str(Path(target).relative_to(tmp_path))))
            replace(source, target)

        monkeypatch.setattr(os, "replace", spy)
        store = LocalObjectStore(tmp_path, instance="files", durability=durability)
        store.put("a/b/name", b"1")
        store.flush()
        (tmp_path / "a/b/name#1").write_bytes(b"left by somebody who died")
        (tmp_path / "a/b/name#2").write_bytes(b"and by another")
        store.put("a/b/name", b"2")
        store.flush()
        assert moves == [("a/b/name#1", "a/b/name"), ("a/b/name#3", "a/b/name")]
        assert (tmp_path / "a/b/name").read_bytes() == b"2"

    def test_leftovers_are_passed_over(self, blobs: Any, folder: Path, key_of: Any, durability: Any) -> None:
        """Temporary files of writers that died are neither blobs nor chunks, nor in the way."""
        for kind in ("blobs", "chunks"):
            path = folder / f"{key_of(kind, HELLO.digest)}#1"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half of something")
        service: BlobService = blobs()
        assert service.has(HELLO.digest) is False
        assert service.open_read(HELLO.digest) is None
        assert service.chunks(HELLO.digest) is None
        assert list(blobs().capability(BlobLister).list_blobs()) == []
        service.write(HELLO.data)
        assert service.read(HELLO.digest) == HELLO.data
        assert list(blobs().capability(BlobLister).list_blobs()) == [HELLO.digest]

    def test_a_failed_put_leaves_no_temporary_file(self, tmp_path: Path, durability: Any) -> None:
        """Where the object cannot be moved to its place, what was written beside it is removed."""
        (tmp_path / "a/name").mkdir(parents=True)
        (tmp_path / "a/name/child").touch()
        (tmp_path / "quarantine").touch()  # The folder in its place cannot go there.
        store = LocalObjectStore(tmp_path, instance="files", durability=durability)
        put = store.put if durability == "process" else lambda key, data: flushed(store, key, data)
        with pytest.raises(UnavailableError, match=r"`files` is unavailable: .*quarantine"):
            put("a/name", b"data")
        names = sorted(path.name for path in tmp_path.rglob("*"))
        assert names == ["a", "castore.lock", "child", "name", "quarantine"]

    def test_a_folder_in_the_place_of_an_object_is_set_aside(self, tmp_path: Path, durability: Any) -> None:
        """Nothing of what is in it is lost; the object can be had."""
        (tmp_path / "a/name").mkdir(parents=True)
        (tmp_path / "a/name/child").write_bytes(b"mine")
        store = LocalObjectStore(tmp_path, instance="files", durability=durability)
        assert not store.claim("a/name", lambda read_at, size: True)
        flushed(store, "a/name", b"data")
        assert store.get("a/name") == b"data"
        assert (tmp_path / "quarantine/a/name/child").read_bytes() == b"mine"

    def test_readers_see_whole_objects(self, tmp_path: Path, durability: Any) -> None:
        """While an object is replaced again and again, readers see one version or the other, whole."""
        store = LocalObjectStore(tmp_path, instance="files", durability=durability)
        versions = [bytes([number]) * (100_000 + number) for number in range(2)]
        done = threading.Event()
        seen: list[bytes | None] = []

        def watch() -> None:
            while not done.is_set():
                data = store.get("folder/name")
                if data not in (None, *versions):
                    seen.append(data)

        watchers = [threading.Thread(target=watch) for _ in range(2)]
        for watcher in watchers:
            watcher.start()
        for number in range(150):
            store.put("folder/name", versions[number % 2])
        done.set()
        for watcher in watchers:
            watcher.join()
        store.flush()
        assert seen == []
        assert [path.name for path in (tmp_path / "folder").iterdir()] == ["name"]

    def test_writers_of_one_object_do_not_disturb_each_other(self, tmp_path: Path, durability: Any) -> None:
        """Many threads put the same object at once: each succeeds, and one file is left."""
        store = LocalObjectStore(tmp_path, instance="files", durability=durability)
        data = P3M.data[:300_000]
        barrier = threading.Barrier(8)
        errors: list[Exception] = []

        def put() -> None:
            barrier.wait()
            try:
                for _ in range(20):
                    store.put("folder/name", data)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=put) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.flush()
        assert errors == []
        assert store.get("folder/name") == data
        assert [path.name for path in (tmp_path / "folder").iterdir()] == ["name"]


class TestRequests:
    """What is asked of the object store, in order: the index last, and nothing twice."""

    def test_small_blob(self, blobs_of: Any, store: Any, key_of: Any) -> None:
        """A new small blob takes four requests; the same again no PUT, but its index is read: may it stay?"""
        blobs = blobs_of(store)
        blobs.write(BLOB_A.data)
        chunk, index = key_of("chunks", BLOB_A.digest), key_of("blobs", BLOB_A.digest)
        assert store.requests == [("HEAD", chunk), ("PUT", chunk), ("HEAD", index), ("PUT", index)]
        store.take_requests()
        blobs.write(BLOB_A.data)
        assert store.take_requests() == ["HEAD chunks", "HEAD blobs", "GET blobs"]

    def test_empty_blob(self, blobs_of: Any, store: Any) -> None:
        """The empty blob takes two requests to store, and none to read."""
        blobs = blobs_of(store)
        blobs.write(b"")
        assert store.take_requests() == ["HEAD blobs", "PUT blobs"]
        assert blobs.read(EMPTY.digest) == b""
        assert store.take_requests() == []

    def test_chunked_blob(self, blobs_of: Any, store: Any) -> None:
        """Chunks are asked for and put, some MiB of them at a time; then the index."""
        blobs = blobs_of(store)
        blobs.write(P3M.data)
        chunks = [f"{verb} chunks" for count in (3, 3, 2) for verb in ("HEAD", "PUT") for _ in range(count)]
        assert store.take_requests() == [*chunks, "HEAD blobs", "PUT blobs"]
        blobs.write(P3M.data)
        assert store.take_requests() == ["HEAD chunks"] * 8 + ["HEAD blobs", "GET blobs"]

    def test_repeated_chunk(self, blobs_of: Any, store: Any) -> None:
        """A chunk that occurs twice is put once."""
        blobs_of(store).write(ZEROS_1M.data)
        assert store.take_requests() == ["HEAD chunks", "PUT chunks", "HEAD blobs", "PUT blobs"]

    def test_a_known_file(self, blobs_of: Any, store: Any, tmp_path: Path) -> None:
        """Its first chunk, its index, twice, and its chunks are asked for; nothing is sent."""
        blobs = blobs_of(store)
        (tmp_path / "file").write_bytes(P3M.data)
        blobs.put_file(tmp_path / "file")
        new = store.take_requests()
        assert blobs.put_file(tmp_path / "file") == P3M.digest
        index = ["GET blobs", "HEAD blobs", "GET blobs"]
        assert store.take_requests() == ["HEAD chunks", *index, *["HEAD chunks"] * 8]
        # Before it is stored a new one is asked for one thing more than a stream: its first chunk.
        store.objects.clear()
        with (tmp_path / "file").open("rb") as stream:
            blobs.put_file(stream)
        assert ["HEAD chunks", *store.take_requests()] == new

    def test_many_small_files(self, blobs_of: Any, store: Any, tmp_path: Path) -> None:
        """New ones take five requests each, known ones three."""
        blobs = blobs_of(store)
        paths = [tmp_path / str(number) for number in range(40)]
        for path in paths:
            path.write_bytes(path.name.encode())
        for _ in blobs.put_files(paths):
            pass
        each = ["HEAD blobs", "HEAD chunks", "PUT chunks", "HEAD blobs", "PUT blobs"]
        assert Counter(store.take_requests()) == Counter(each * 40)
        for _ in blobs.put_files(paths):
            pass
        assert Counter(store.take_requests()) == Counter(
            {"HEAD blobs": 40, "GET blobs": 40, "HEAD chunks": 40}
        )

    def test_the_index_is_last_with_threads_too(self, blobs_of: Any, store: Any) -> None:
        """However many threads put the chunks, the index comes after them all."""
        blobs = blobs_of(store, pool=4, avg_chunk_size=2048)
        blobs.write(P3M.data)
        requests = store.take_requests()
        assert requests[-2:] == ["HEAD blobs", "PUT blobs"]
        assert set(requests[:-2]) == {"HEAD chunks", "PUT chunks"}

    @pytest.mark.parametrize("pool", [0, 3])
    def test_no_index_without_its_chunks(self, blobs_of: Any, store: Any, pool: int) -> None:
        """If a chunk cannot be put, the write fails and no index is."""
        last = B3Digest.of(P3M.data[-113592:]).hex()
        store.failing = lambda verb, key: verb == "PUT" and key.endswith(last)
        with pytest.raises(UnavailableError, match=last):
            blobs_of(store, pool=pool).write(P3M.data)
        assert [key for key in store.objects if key.startswith("blobs/")] == []

    def test_has(self, blobs_of: Any, store: Any) -> None:
        """`has` asks for the index, then for the chunk."""
        blobs = blobs_of(store)
        assert blobs.has(HELLO.digest) is False
        assert store.take_requests() == ["HEAD blobs", "HEAD chunks"]
        blobs.write(HELLO.data)
        store.take_requests()
        assert blobs.has(HELLO.digest) is True
        assert store.take_requests() == ["HEAD blobs"]

    def test_open_read(self, blobs_of: Any, store: Any) -> None:
        """`open_read` gets the chunk; without one the index; without one the chunk is asked for again."""
        blobs = blobs_of(store)
        assert blobs.open_read(P3M.digest) is None
        assert store.take_requests() == ["GET chunks", "GET blobs", "HEAD chunks"]
        blobs.write(HELLO.data)
        blobs.write(P3M.data)
        store.take_requests()
        assert blobs.read(HELLO.digest) == HELLO.data
        assert store.take_requests() == ["GET chunks"]
        with blobs.open_read(P3M.digest) as reader:
            assert store.take_requests() == ["GET chunks", "GET blobs"]
            reader.seek(500_000)
            reader.read(1)
            assert store.take_requests() == ["GET chunks"]
            reader.read(1000)
            reader.seek(490_000)
            reader.read(1000)
            assert store.take_requests() == []

    def test_chunks(self, blobs_of: Any, store: Any) -> None:
        """`chunks` gets the index; without one it asks for the chunk."""
        blobs = blobs_of(store)
        assert blobs.chunks(P3M.digest) is None
        assert store.take_requests() == ["GET blobs", "HEAD chunks"]
        blobs.write(P3M.data)
        store.take_requests()
        chunks = blobs.chunks(P3M.digest)
        assert store.take_requests() == ["GET blobs"]
        assert blobs.chunks(chunks[0].digest) == ()
        assert store.take_requests() == ["GET blobs", "HEAD chunks"]
