"""Trees as a file system of fsspec: what it lists, reads, refuses and writes."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import fsspec
import pytest

import castore
from castore.access.fsspec import CastoreFileSystem
from castore.contract.capabilities import BlobLister, ChunkSource
from castore.contract.refs import NamedRoot
from castore.digest import EMPTY, B3Digest
from castore.errors import BlobNotFoundError
from castore.trees import import_tree
from castore.trees.naming import directories_of

NAMES = [b"a file", b"#?%@", b"\xff\xfe", "ä".encode(), b"line\nbreak"]


@attrs.frozen
class Stored:
    """A composition with a tree, and where it was imported from."""

    stores: castore.Composition
    fs: CastoreFileSystem
    root: str
    folder: Path


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    folder = tmp_path / "folder"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "sub/text.txt").write_text("one\ntwo\n")
    (folder / "sub/deep/data").write_bytes(bytes(range(256)) * 8)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("sub/text.txt")
    (folder / "dirlink").symlink_to("sub")
    (folder / "out").symlink_to("../..")
    (folder / "passwd").symlink_to("/etc/passwd")
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(b"in " + name)
    (tmp_path / "c.toml").write_text(
        '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
        '[refservices.root]\ntype = "sqlite"\npath = "./refs.sqlite"\n'
    )
    with castore.open(tmp_path / "c.toml") as stores:
        imported = import_tree(folder, stores.blobs(), stores.directories())
        assert imported.node is not None
        root = str(imported.node.digest)
        yield Stored(stores, CastoreFileSystem(composition=tmp_path / "c.toml"), root, folder)


def test_what_is_listed_can_be_opened(stored: Stored) -> None:
    """Names without protocol, directly usable in the next call, whatever bytes they have."""
    fs, root = stored.fs, stored.root
    names = fs.ls(root, detail=False)
    assert set(names) == {f"{root}/{os.fsdecode(name.name)}" for name in stored.folder.iterdir()}
    for name in NAMES:
        assert fs.cat_file(f"castore://{root}/{os.fsdecode(name)}") == b"in " + name
    for entry in fs.ls(root):
        assert fs.exists(entry["name"])


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("", {"type": "directory"}),
        ("/sub", {"type": "directory"}),
        ("/sub/", {"type": "directory"}),
        ("//sub/./text.txt", {"type": "file", "size": 8}),
        ("/run.sh", {"type": "file", "mode": 0o100555}),
        ("/link", {"type": "file", "size": 8, "islink": True, "destination": "sub/text.txt"}),
        ("/dirlink", {"type": "directory", "islink": True, "destination": "sub"}),
        ("/dirlink/text.txt", {"type": "file", "size": 8}),
        ("/passwd", {"type": "link", "destination": "/etc/passwd"}),
    ],
)
def test_info(stored: Stored, path: str, facts: dict[str, Any]) -> None:
    info = stored.fs.info(f"castore://{stored.root}{path}")
    assert {key: info[key] for key in facts} == facts


@pytest.mark.parametrize(
    "path", ["/nothing", "/sub/nothing", "/run.sh/below", "/out/x", "/sub/../../x", "/" + "n" * 300]
)
def test_what_is_not_there_is_not_found(stored: Stored, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        stored.fs.info(stored.root + path)
    assert not stored.fs.exists(stored.root + path)


@pytest.mark.parametrize("first", ["0" * 64, "no-such-ref", "..", "0" * 63, ":", "@latest"])
def test_a_root_that_is_not_there(stored: Stored, first: str) -> None:
    with pytest.raises(FileNotFoundError, match="no tree, ref or blob"):
        stored.fs.ls(first)


def test_a_link_out_of_the_tree_is_not_opened(stored: Stored) -> None:
    for name in ("passwd", "out"):
        with pytest.raises(FileNotFoundError, match="leads out of the tree"):
            stored.fs.open(f"{stored.root}/{name}")


def test_a_directory_is_no_file(stored: Stored) -> None:
    with pytest.raises(IsADirectoryError):
        stored.fs.open(f"{stored.root}/sub")


def test_a_blob_by_itself(stored: Stored) -> None:
    """Also one that begins as the encoding of a directory does."""
    for data in (b"a lone blob", b"\n\x05hello", b"\x12"):
        digest = str(stored.stores.blobs().write(data))
        assert stored.fs.info(digest) == {**stored.fs.info(digest), "type": "file", "size": len(data)}
        assert stored.fs.cat_file(f"castore://{digest}") == data
        with pytest.raises(FileNotFoundError):
            stored.fs.info(f"{digest}/below")


def test_a_missing_file_is_not_an_absent_path(stored: Stored) -> None:
    """Its name is there: that its blob is gone is an error of the store."""
    digest = B3Digest.of(b"one\ntwo\n")
    for path in (stored.folder.parent / "store").rglob(f"{digest.hex()}*"):
        path.unlink()
    with pytest.raises(BlobNotFoundError):
        stored.fs.cat_file(f"{stored.root}/sub/text.txt")


def test_find_takes_one_closure(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a call for each directory, and the same as a walk."""
    fs = CastoreFileSystem.of(stored.stores)
    walked = sorted(
        f"{path}/{name}" for path, _, files in fs.walk(stored.root) for name in files
    )  # a walk lists each directory
    calls: list[B3Digest] = []
    service = directories_of(stored.stores)
    original = type(service).closure
    monkeypatch.setattr(
        type(service), "closure", lambda self, root: calls.append(root) or original(self, root)
    )
    monkeypatch.setattr(fs, "ls", None)
    assert fs.find(stored.root) == walked
    assert len(calls) == 1
    assert f"{stored.root}/sub" in fs.find(stored.root, withdirs=True)
    assert fs.find(f"{stored.root}/run.sh") == [f"{stored.root}/run.sh"]
    assert fs.find(f"{stored.root}/sub", detail=True)[f"{stored.root}/sub/text.txt"]["size"] == 8


def test_globs(stored: Stored) -> None:
    assert stored.fs.glob(f"castore://{stored.root}/**/*.txt") == [f"{stored.root}/sub/text.txt"]


def test_the_key_is_the_digest(stored: Stored) -> None:
    path = f"{stored.root}/link"
    digest = str(B3Digest.of(b"one\ntwo\n"))
    assert stored.fs.ukey(path) == stored.fs.checksum(path) == digest
    assert stored.fs.modified(path).timestamp() == 1


def test_text_lines_and_ends(stored: Stored) -> None:
    url = f"castore://{stored.root}/sub/text.txt"
    options = stored.fs.storage_options
    with fsspec.open(url, "rt", **options) as file:
        assert file.readlines() == ["one\n", "two\n"]
    with stored.fs.open(url) as file:
        assert (file.size, file.mode, file.seekable()) == (8, "rb", True)
        assert file.seek(100) == 8
        assert file.read() == b""
    assert stored.fs.cat_file(url, -4) == b"two\n"
    assert stored.fs.cat_file(url, 2, 100) == b"e\ntwo\n"
    assert stored.fs.cat_file(url, 5, 2) == b""
    assert stored.fs.head(url, 3) == b"one"


# -- many ranges --


class CountingMemory:
    """Counts the chunks that a service is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stores: castore.Composition) -> None:
        self.asked: list[B3Digest] = []
        blobs = stores.blobs()
        source = blobs.capability(ChunkSource)
        assert source is not None
        original = source.get_chunks

        def get_chunks(sizes: Any) -> Any:
            self.asked += sizes
            return original(sizes)

        monkeypatch.setattr(type(source), "get_chunks", lambda _, sizes: get_chunks(sizes))


@pytest.fixture
def large(tmp_path: Path) -> Iterator[tuple[castore.Composition, str, bytes]]:
    table = {
        "blobservices": {
            "root": {"type": "objectstore", "object_store_url": "file:./s", "avg_chunk_size": 4096}
        }
    }
    data = random.Random(7).randbytes(1 << 20)
    with castore.Composition.from_mapping(table, base=tmp_path, metrics=False) as stores:
        yield stores, str(stores.blobs().write(data)), data


def test_a_thousand_ranges_read_each_chunk_once(
    large: tuple[castore.Composition, str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, digest, data = large
    fs = CastoreFileSystem.of(stores)
    fs.info(digest)
    counted = CountingMemory(monkeypatch, stores)
    starts = [(number * 7919) % len(data) for number in range(1000)]
    ends = [start + 500 for start in starts]
    found = fs.cat_ranges([digest] * 1000, starts, ends)
    assert found == [data[start:end] for start, end in zip(starts, ends, strict=True)]
    assert len(counted.asked) == len(set(counted.asked))


def test_only_chunks_that_are_touched_are_read(
    large: tuple[castore.Composition, str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, digest, data = large
    fs = CastoreFileSystem.of(stores)
    fs.info(digest)
    counted = CountingMemory(monkeypatch, stores)
    assert fs.cat_ranges([digest, digest], [10, 20], [30, 25]) == [data[10:30], data[20:25]]
    assert len(counted.asked) == 1


def test_ranges_that_cannot_be_had_are_errors_in_their_place(stored: Stored) -> None:
    root = stored.root
    found = stored.fs.cat_ranges([f"{root}/nothing", f"{root}/run.sh"], 0, 3)
    assert isinstance(found[0], FileNotFoundError)
    assert found[1] == b"#!/"
    with pytest.raises(FileNotFoundError):
        stored.fs.cat_ranges([f"{root}/nothing"], [0], [3], on_error="raise")


def test_ranges_of_a_damaged_chunk_name_it(
    large: tuple[castore.Composition, str, bytes], tmp_path: Path
) -> None:
    stores, digest, data = large
    fs = CastoreFileSystem.of(stores)
    assert fs.isfile(digest)  # which is known from here on
    chunks = stores.blobs().chunks(B3Digest.parse(digest))
    assert chunks
    (path,) = (tmp_path / "s").rglob(f"{chunks[0].digest.hex()}*")
    path.write_bytes(b"damaged")
    found = fs.cat_ranges([digest, digest], [0, 0], [5, 6])
    assert all(isinstance(each, castore.CorruptBlobError) for each in found)
    last = len(data) - 5
    assert fs.cat_ranges([digest], [last], [None]) == [data[last:]]


# -- other processes --


def test_it_pickles_and_is_equal_elsewhere(stored: Stored) -> None:
    """Also in a process of its own, in another folder; its token is the same, and no secret is in it."""
    program = (
        "import pickle, sys\n"
        "fs = pickle.load(sys.stdin.buffer)\n"
        f"print(fs._fs_token, fs.cat_file('{stored.root}/run.sh'))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(stored.fs),
        capture_output=True,
        cwd="/",
        check=True,
    )
    assert run.stdout.decode() == f"{stored.fs._fs_token} b'#!/bin/sh\\n'\n"
    again = pickle.loads(pickle.dumps(stored.fs))
    assert again == stored.fs
    assert hash(again) == hash(stored.fs)
    assert CastoreFileSystem.from_json(stored.fs.to_json()) == stored.fs


def test_a_composition_that_is_open_pickles_as_its_tables(stored: Stored) -> None:
    fs = CastoreFileSystem.of(stored.stores)
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    assert again != CastoreFileSystem.of(stored.stores)
    assert again.cat_file(f"{stored.root}/run.sh") == b"#!/bin/sh\n"


def test_the_composition_is_found_where_the_file_system_is_made(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gets it elsewhere has the same one, wherever they are."""
    monkeypatch.setenv("CASTORE_COMPOSITION", str(stored.folder.parent / "c.toml"))
    fs = CastoreFileSystem(skip_instance_cache=True)
    assert fs.storage_options["composition"] == str(stored.folder.parent / "c.toml")
    assert fs == stored.fs
    assert json.loads(fs.to_json())["composition"] == str(stored.folder.parent / "c.toml")


def test_chains(stored: Stored, tmp_path: Path) -> None:
    """A member of an archive; a copy that is kept on this machine."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(stored.folder / "run.sh", "run.sh")
    digest = stored.stores.blobs().write(packed.getvalue())
    options = {"castore": stored.fs.storage_options}
    with fsspec.open(f"tar://run.sh::castore://{digest}", **options) as file:
        assert file.read() == b"#!/bin/sh\n"
    for kind in ("simplecache", "filecache"):
        cache = {kind: {"cache_storage": str(tmp_path / kind)}}
        with fsspec.open(f"{kind}::castore://{stored.root}/run.sh", **options, **cache) as file:
            assert file.read() == b"#!/bin/sh\n"


def test_archives_read_from_a_file_of_it(stored: Stored) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("name", "content")
    digest = stored.stores.blobs().write(packed.getvalue())
    with stored.fs.open(str(digest)) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("name") == b"content"


# -- writing --


@pytest.mark.parametrize(
    "write",
    [
        lambda fs, root: fs.pipe_file(f"{root}/new", b"x"),
        lambda fs, root: fs.open(f"{root}/new", "wb"),
        lambda fs, root: fs.mkdir(f"{root}/new"),
        lambda fs, root: fs.makedirs(f"{root}/new", exist_ok=True),
        lambda fs, root: fs.rm(f"{root}/run.sh"),
        lambda fs, root: fs.rmdir(f"{root}/empty"),
        lambda fs, root: fs.mv(f"{root}/run.sh", f"{root}/other"),
        lambda fs, root: fs.cp_file(f"{root}/run.sh", f"{root}/other"),
        lambda fs, root: fs.touch(f"{root}/new"),
    ],
)
def test_trees_do_not_change(stored: Stored, write: Any) -> None:
    with pytest.raises(OSError, match="in a transaction") as raised:
        write(stored.fs, stored.root)
    assert raised.value.errno == errno.EROFS


def test_a_transaction_gives_the_root_that_an_import_gives(stored: Stored) -> None:
    """With the marks of programs, the empty folders, and without links, which `put` follows."""
    for link in ("link", "dirlink", "out", "passwd"):
        (stored.folder / link).unlink()
    expected = import_tree(stored.folder, stored.stores.blobs(), stored.stores.directories()).node
    assert expected is not None
    with stored.fs.transaction as new:
        stored.fs.put(f"{stored.folder}/", f"castore://{EMPTY}/", recursive=True)
    assert new.root == str(expected.digest)
    assert stored.fs.cat_file(f"{new.root}/sub/text.txt") == b"one\ntwo\n"


def test_a_transaction_over_a_tree_leaves_the_tree_alone(stored: Stored) -> None:
    fs, root = stored.fs, stored.root
    with fs.transaction as new:
        with fs.open(f"{root}/sub/new.txt", "wt") as file:
            file.write("new")
        assert fs.cat_file(f"{root}/sub/new.txt") == b"new"
        fs.mv(f"{root}/run.sh", f"{root}/sub/moved.sh")
        fs.rm(f"{root}/dirlink")
        fs.rm(f"{root}/sub/deep", recursive=True)
        with fs.open(f"{root}/sub/text.txt", "ab") as file:
            file.write(b"three\n")
    assert fs.cat_file(f"{root}/run.sh") == b"#!/bin/sh\n"
    assert not fs.exists(f"{root}/sub/new.txt")
    assert new.root is not None
    assert {name.rpartition("/")[2] for name in fs.ls(f"{new.root}/sub", detail=False)} == {
        "moved.sh",
        "new.txt",
        "text.txt",
    }
    assert fs.info(f"{new.root}/sub/moved.sh")["mode"] == 0o100555
    assert fs.cat_file(f"{new.root}/sub/text.txt") == b"one\ntwo\nthree\n"
    assert fs.info(f"{new.root}/out")["destination"] == "../.."


def test_a_tree_of_a_service_that_keeps_trees_whole(tmp_path: Path) -> None:
    """What was not changed is written again: no part of another tree can be referred to."""
    place = {"type": "objectstore", "object_store_url": "file:./s"}
    table = {"blobservices": {"root": place}, "directoryservices": {"root": place}}
    with castore.Composition.from_mapping(table, base=tmp_path) as stores:
        fs = CastoreFileSystem.of(stores)
        with fs.transaction as first:
            fs.pipe_file(f"{EMPTY}/a/b/file", b"content")
            fs.pipe_file(f"{EMPTY}/c/file", b"content")
    # Another program, which has nothing of the tree at hand.
    with castore.Composition.from_mapping(table, base=tmp_path) as stores:
        fs = CastoreFileSystem.of(stores)
        with fs.transaction as second:
            fs.pipe_file(f"{first.root}/a/other", b"other")
    with castore.Composition.from_mapping(table, base=tmp_path) as stores:
        fs = CastoreFileSystem.of(stores)
        assert fs.find(second.root) == [f"{second.root}/{name}" for name in ("a/b/file", "a/other", "c/file")]
        assert fs.find(f"{second.root}/a") == [f"{second.root}/{name}" for name in ("a/b/file", "a/other")]


def test_what_fails_leaves_no_tree(stored: Stored) -> None:
    fs = stored.fs
    before = set(stored.stores.blobs().capability(BlobLister).list_blobs())  # type: ignore[union-attr]
    with pytest.raises(ZeroDivisionError), fs.transaction as new:  # noqa: PT012
        fs.pipe_file(f"{stored.root}/new", b"kept by nobody")
        raise ZeroDivisionError
    assert new.root is None
    after = set(stored.stores.blobs().capability(BlobLister).list_blobs())  # type: ignore[union-attr]
    assert after - before == {B3Digest.of(b"kept by nobody")}
    with pytest.raises(OSError, match="in a transaction"):
        fs.pipe_file(f"{stored.root}/new", b"")


def test_a_file_whose_block_fails_is_not_written(stored: Stored) -> None:
    fs, root = stored.fs, stored.root
    with fs.transaction:
        with pytest.raises(ZeroDivisionError), fs.open(f"{root}/half", "wb") as file:  # noqa: PT012
            file.write(b"half")
            raise ZeroDivisionError
        assert not fs.exists(f"{root}/half")


# -- refs --


def test_refs_are_folders(stored: Stored) -> None:
    node = stored.fs._find(stored.root)[0]
    stored.stores.refs().set("www", NamedRoot(node))
    stored.stores.refs().set("team/site", NamedRoot(node))
    fs = stored.fs
    assert fs.ls("", detail=False) == ["team/site", "www"]
    assert fs.cat_file("castore://www/run.sh") == b"#!/bin/sh\n"
    assert fs.cat_file("castore://team/site/run.sh") == b"#!/bin/sh\n"
    assert fs.info("castore://www")["digest"] == stored.root


def test_a_transaction_sets_a_ref(stored: Stored) -> None:
    fs = stored.fs
    with fs.transaction as new:
        fs.pipe_file("castore://results/day1/a.csv", b"1")
        assert stored.stores.refs().get("results") is None
    found = stored.stores.refs().get("results")
    assert found is not None
    assert str(found.node.digest) == new.root  # type: ignore[union-attr]
    with fs.transaction:
        fs.pipe_file("castore://results/day2/a.csv", b"2")
    assert fs.find("results") == ["results/day1/a.csv", "results/day2/a.csv"]


def test_a_ref_that_somebody_else_sets_is_not_overwritten(stored: Stored) -> None:
    fs = stored.fs
    with fs.transaction:
        fs.pipe_file("castore://results/a", b"1")
    with pytest.raises(OSError, match="was changed by somebody else"), fs.transaction as new:  # noqa: PT012
        fs.pipe_file("castore://results/b", b"2")
        node = fs._find(stored.root)[0]
        stored.stores.refs().set("results", NamedRoot(node))
    assert fs.info("results")["digest"] == stored.root
    assert fs.cat_file(f"{new.roots['results']}/b") == b"2"


def test_options_that_are_none() -> None:
    with pytest.raises(TypeError, match="composition is a path or tables"):
        CastoreFileSystem(composition=3)


def test_a_draft_has_no_place_for_two(stored: Stored) -> None:
    """What stands in the way of a path is told as a file system does."""
    fs, root = stored.fs, stored.root
    with fs.transaction:
        with pytest.raises(NotADirectoryError):
            fs.pipe_file(f"{root}/run.sh/below", b"")
        with pytest.raises(IsADirectoryError):
            fs.pipe_file(f"{root}/sub", b"")
        with pytest.raises(OSError, match="not empty"):
            fs.rmdir(f"{root}/sub")
        with pytest.raises(FileExistsError):
            fs.mkdir(f"{root}/sub")
        with pytest.raises(ValueError, match="no mode"):
            fs.open(f"{root}/run.sh", "r+b")


def test_a_ref_is_read_once_and_directories_by_one_thread_for_all(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts a path has: the name of a ref in a URL has 16 at most."""
    node = stored.stores.directories().get(B3Digest.parse(stored.root))
    assert node is not None
    stored.stores.refs().set("www", NamedRoot(node.node))
    fs = CastoreFileSystem.of(stored.stores)
    names: list[list[str]] = []
    directories: list[B3Digest] = []
    refs, trees = type(stored.stores.refs()), type(fs.directories)
    get_refs, get_directories = refs.get_many, trees.get_many

    def noting(self: Any, wanted: Any) -> Any:
        names.append(list(wanted))
        return get_refs(self, names[-1])

    def noting_directories(self: Any, wanted: Any, **options: Any) -> Any:
        wanted = list(wanted)
        directories.extend(wanted)
        return get_directories(self, wanted, **options)

    monkeypatch.setattr(refs, "get_many", noting)
    monkeypatch.setattr(trees, "get_many", noting_directories)
    uses: list[Callable[[], object]] = [
        lambda: fs.cat_file("www/sub/text.txt"),
        lambda: fs.info("www/sub/deep/data"),
        lambda: fs.ls("www/sub"),
        lambda: fs.exists("www/nothing"),
        lambda: fs.find("www"),
        lambda: fs.get_file("www/sub/text.txt", io.BytesIO()),
        lambda: fs.cat_ranges(["www/sub/text.txt"] * 5, 0, 3),
    ]
    for use in uses:
        names.clear()
        use()
        assert names == [["www"]]
    names.clear()
    assert not fs.exists("nobody/" + "x/" * 200)
    assert [len(each) for each in names] == [1, 15]
    fresh = CastoreFileSystem.of(stored.stores)
    fresh.cat_file("www/sub/text.txt")
    directories.clear()
    thread = threading.Thread(target=fresh.cat_file, args=("www/sub/text.txt",))
    thread.start()
    thread.join()
    assert not directories
