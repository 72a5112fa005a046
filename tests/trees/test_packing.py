"""Trees into archives: the same bytes each time, and the same tree again for everybody who unpacks them."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, Composition, TargetError
from castore.format.directories import Directory
from castore.format.nodes import FileNode, Node, SymlinkNode, SymlinkTarget
from castore.trees.exporting import export_tree
from castore.trees.exports import ExportOptions
from castore.trees.importing import import_tree
from castore.trees.packing import PackOptions, format_of, pack_tree
from castore.trees.preserving import Preserving
from castore.trees.selecting import ALL, Pattern, Selection
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService

Snapshot = Callable[[Path], dict[bytes, object]]


@pytest.fixture
def root(golden: Path, stores: Composition) -> Node:
    node = import_tree(golden, stores.blobs(), stores.directories()).node
    assert node is not None
    return node


@pytest.fixture
def packed(stores: Composition, root: Node) -> Callable[..., bytes]:
    def packed(node: Any = None, **options: Any) -> bytes:
        file = io.BytesIO()
        done = pack_tree(node or root, file, stores.blobs(), stores.directories(), PackOptions(**options))
        assert done.lost == ()
        return file.getvalue()

    return packed


def run(*command: str | os.PathLike[str], data: bytes = b"") -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(
        command, input=data, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert (done.returncode, done.stderr) == (0, b"")


UNPACKERS: dict[str, tuple[dict[str, str], list[str]]] = {
    "tar": ({}, ["tar", "-xpf", "-"]),
    "tar.gz": ({"compression": "gz"}, ["tar", "-xpzf", "-"]),
    "tar.zst": ({"compression": "zst"}, ["tar", "--zstd", "-xpf", "-"]),
    "tar.xz": ({"compression": "xz"}, ["tar", "-xpJf", "-"]),
    "tar.bz2": ({"compression": "bz2"}, ["tar", "-xpjf", "-"]),
    "bsdtar": ({}, ["bsdtar", "-xpf", "-"]),
    "bsdtar-gz": ({"compression": "gz"}, ["bsdtar", "-xpf", "-"]),
}


@pytest.mark.parametrize("name", UNPACKERS)
def test_a_tar_is_unpacked_to_the_same_tree(
    packed: Any, root: Node, golden: Path, stores: Composition, tmp_path: Path, snapshot: Snapshot, name: str
) -> None:
    """Names, targets and contents are there to the byte; a second import gives the same root."""
    options, command = UNPACKERS[name]
    before = os.umask(0o022)
    try:
        run(*command, "-C", str(tmp_path), data=packed(**options))
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["root"]
    assert snapshot(tmp_path / "root") == snapshot(golden)
    assert import_tree(tmp_path / "root", stores.blobs(), stores.directories()).node == root


@pytest.mark.parametrize("program", ["unzip", "bsdtar", "python"])
def test_a_zip_is_unpacked_to_the_same_tree(
    packed: Any, golden: Path, stores: Composition, tmp_path: Path, snapshot: Snapshot, program: str
) -> None:
    """It has no name that is no UTF-8; `unzip` drops control codes from names unless it is told not to."""
    whole = stores.directories().get(import_tree(golden, stores.blobs(), stores.directories()).node.digest)  # type: ignore[union-attr]
    assert whole is not None
    data = packed({name: node for name, node in whole.items() if name != b"caf\xe9"}, format="zip")
    archive = tmp_path / "a.zip"
    archive.write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    if program == "python":
        with zipfile.ZipFile(archive) as file:
            assert file.testzip() is None
            assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        return
    run(
        *(
            ["unzip", "-q", "-^", str(archive), "-d"]
            if program == "unzip"
            else ["bsdtar", "-xpf", str(archive), "-C"]
        ),
        str(out),
    )
    expected = snapshot(golden)
    del expected[b"caf\xe9"]
    assert snapshot(out / "root") == expected


def test_a_zip_has_text_for_names(root: Node, stores: Composition) -> None:
    with pytest.raises(TargetError, match=r"cannot have the name 'root/caf\\\\xe9'"):
        pack_tree(root, io.BytesIO(), stores.blobs(), stores.directories(), PackOptions("zip"))


def test_what_is_in_a_tar(packed: Any, golden: Path) -> None:
    """In the order of the tree, and nothing that the tree does not say."""
    with tarfile.open(fileobj=io.BytesIO(packed(prefix=b"photos")), errors="surrogateescape") as tar:
        members = tar.getmembers()
    names = [member.name.encode("utf-8", "surrogateescape") for member in members]
    assert names[0] == b"photos"
    assert names == sorted(names, key=lambda name: name.split(b"/"))
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(1, 0, 0, "", "")}
    assert {m.mode for m in members if m.isdir()} == {0o755}
    assert {m.mode for m in members if m.isfile()} == {0o644, 0o755}


@pytest.mark.parametrize("compression", ["", "gz", "zst", "xz", "bz2"])
def test_the_same_bytes_each_time(packed: Any, monkeypatch: pytest.MonkeyPatch, compression: Any) -> None:
    first = packed(compression=compression)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert packed(compression=compression) == first


def test_the_bytes_of_a_tar(packed: Any) -> None:
    """They are part of what others rely on: a tree has one tar."""
    data = packed()
    assert len(data) % 10_240 == 0
    assert str(B3Digest.of(data)) == "c1a8630af7a54585dc99edce9e6c1d8c7f2069d0ba39e1a1c096e174466e3ef1"


def test_files_and_links(packed: Any, stores: Composition) -> None:
    """A root that is no directory is one entry, by the name of the prefix."""
    file = FileNode(stores.blobs().write(b"data"), 4, executable=True)
    with tarfile.open(fileobj=io.BytesIO(packed(file, prefix=b"run"))) as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        assert (member.name, member.mode, content.read()) == ("run", 0o755, b"data")
    with tarfile.open(fileobj=io.BytesIO(packed(SymlinkNode(SymlinkTarget(b"t" * 4095))))) as tar:
        assert tar.getmembers()[0].linkname == "t" * 4095


def names_in(file: io.BytesIO, kind: str) -> list[str]:
    if kind == "tar":
        with tarfile.open(fileobj=file) as tar:
            return tar.getnames()
    with zipfile.ZipFile(file) as archive:
        return [name.rstrip("/") for name in archive.namelist()]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_selection(packed: Any, kind: Any) -> None:
    """Of a directory that is left out nothing is taken."""
    rules = Selection(
        [Pattern(b"/*", "x"), Pattern(b"!/deep/", "x"), Pattern(b"b/", "x"), Pattern(b"/deep/d*", "x")]
    )
    names = names_in(io.BytesIO(packed(selection=rules, format=kind)), kind)
    assert names == [
        "root",
        "root/deep",
        "root/deep/a",
        "root/deep/a/two",
        "root/deep/longest",
        "root/deep/one",
    ]


class Memory:
    def __init__(self) -> None:
        self.blobs = MemoryBlobService()
        self.directories = MemoryDirectoryService()

    def pack(self, nodes: dict[bytes, Node], file: Any, **options: Any) -> Any:
        return pack_tree(nodes, file, self.blobs, self.directories, PackOptions(**options))


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("size", [100, 3 << 20])
def test_a_blob_that_is_gone(kind: Any, size: int) -> None:
    """The archive has the others if that is allowed, else no end."""
    memory = Memory()
    there = FileNode(memory.blobs.write(b"there"), 5)
    nodes: dict[bytes, Node] = {
        b"gone": FileNode(B3Digest.of(b"gone"), size),
        b"there": there,
        b"wrong": FileNode(there.digest, 4),
    }
    file = io.BytesIO()
    done = memory.pack(nodes, file, format=kind, skip_unreadable=True)
    assert [str(each.path) for each in done.lost] == ["gone", "wrong"]
    file.seek(0)
    assert names_in(file, kind) == ["root", "root/there"]
    size_of_whole = len(file.getvalue())
    cut = io.BytesIO()
    assert len(memory.pack(nodes, cut, format=kind).lost) == 2
    assert len(cut.getvalue()) < size_of_whole


class Nowhere(io.RawIOBase):
    size = 0

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_is_held(kind: Any) -> None:
    """Neither a large file nor many small ones."""
    memory = Memory()
    large = os.urandom(40 << 20)
    nodes: dict[bytes, Node] = {b"large": FileNode(memory.blobs.write(large), len(large))}
    for number in range(60):
        data = os.urandom(900_000)
        nodes[b"%d" % number] = FileNode(memory.blobs.write(data), len(data))
    del large, data
    file = Nowhere()
    tracemalloc.start()
    try:
        memory.pack(nodes, file, format=kind)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.size > 90 << 20
    assert peak < 30 << 20


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.tar", ("tar", "")),
        ("A.TAR", ("tar", "")),
        ("a.tgz", ("tar", "gz")),
        ("a.tar.zst", ("tar", "zst")),
        ("a.zip", ("zip", "")),
        ("tar", None),
        ("a.gz", None),
        ("folder", None),
    ],
)
def test_names_of_archives(name: str, found: object) -> None:
    assert format_of(name) == found


def test_a_gzip_says_no_name(packed: Any) -> None:
    data = packed(compression="gz")
    assert data[3:8] == bytes(5)  # no flags, and no time
    assert gzip.decompress(data) == packed()


@pytest.mark.parametrize("select", [ALL, Selection([Pattern(b"*.o", "--exclude")])], ids=["all", "some"])
@pytest.mark.parametrize("how", ["packed", "exported"])
def test_what_many_directories_cost(tmp_path: Path, select: Selection, how: str) -> None:
    """One call for each level of the tree; what else is given to a folder asks once more."""
    calls: list[int] = []

    class Counting(MemoryDirectoryService):
        def get_many(self, digests: Any, *, within: Any = None) -> Any:
            wanted = list(digests)
            calls.append(len(wanted))
            return super().get_many(wanted, within=within)

    blobs, directories = MemoryBlobService(), Counting()

    def put(nodes: dict[bytes, Node]) -> Node:
        directory = Directory(nodes)
        directories.put(directory)
        return directory.node

    file = FileNode(blobs.write(b"x"), 1)
    root = put(
        {b"%d" % n: put({b"%d" % m: put({b"%d.%d" % (n, m): file}) for m in range(20)}) for n in range(20)}
    )
    calls.clear()
    if how == "packed":
        pack_tree(root, io.BytesIO(), blobs, directories, PackOptions(selection=select))
        assert calls == [1, 20, 400]
    else:
        options = ExportOptions(selection=select, preserving=Preserving([]))
        export_tree(root, tmp_path / "out", blobs, directories, options)
        assert calls == [1, 20, 400] * 2
