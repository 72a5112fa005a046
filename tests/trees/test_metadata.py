"""What a tree does not have is kept beside it, and comes back; in a text that others read."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.format.directories import Directory
from castore.format.nodes import FileNode, Node, TreePath
from castore.trees.exporting import export_tree
from castore.trees.exports import Exported, ExportOptions
from castore.trees.importing import import_tree
from castore.trees.metadata import (
    EntryMetadata,
    MetadataError,
    format_metadata,
    metadata_lines,
    metadata_of,
    parse_metadata,
)
from castore.trees.placing import copy_file
from castore.trees.preserving import Preserving
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService
from tests.format.test_nodes import NAMES

MOST = (1 << 63) - 1
NUMBERS = st.none() | st.integers(0, MOST)
TEXTS = st.none() | st.binary(max_size=20)
ENTRIES = st.builds(
    EntryMetadata,
    st.lists(NAMES, max_size=4).map(TreePath),
    st.sampled_from(["dir", "file", "link"]),
    mode=st.none() | st.integers(0, 0o7777),
    uid=NUMBERS,
    gid=NUMBERS,
    uname=TEXTS,
    gname=TEXTS,
    time=st.none() | st.integers(-(1 << 63), MOST),
    nlink=NUMBERS,
    link_group=NUMBERS,
    xattrs=st.dictionaries(st.binary(max_size=20), st.binary(max_size=300), max_size=3),
)


@given(st.lists(ENTRIES, max_size=5), st.integers(1, 100))
def test_what_is_written_is_read(entries: list[EntryMetadata], size: int) -> None:
    """However its bytes come in pieces."""
    text = b"".join(format_metadata(entries))
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert list(parse_metadata(metadata_lines(pieces))) == entries


@given(st.binary(max_size=100) | st.text("#mtre\n./ ype=dirmo7\\1", max_size=60).map(str.encode))
def test_any_bytes(text: bytes) -> None:
    """They are metadata, or one error."""
    try:
        list(parse_metadata(metadata_lines([b"#mtree\n" + text])))
    except MetadataError as error:
        assert "line" in error.message  # noqa: PT017 - or there is none
    except ValueError as error:  # a name that no tree has
        assert type(error).__name__ == "InvalidDirectoryError"  # noqa: PT017


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"x type=dir", "a path begins with a dot"),
        (b"./a", "no type that a tree has: ''"),
        (b"./a type=fifo", "no type that a tree has: 'fifo'"),
        (b"./a\\9 type=file", "three octal digits"),
        (b"./a type=file mode=77777", "no number"),
        (b"./a type=file uid=-1", "no number"),
        (b"./a type=file time=1.", "no time"),
        (b"./a type=file xattr.x=%%%", "base64"),
        (b"./.. type=file", "it stands for the folder above"),
        (b"./a\\057b type=file", "it has a slash"),
    ],
)
def test_what_is_none(line: bytes, words: str) -> None:
    with pytest.raises(MetadataError, match=f"line 2: .*{words}"):
        list(parse_metadata([b"#mtree\n", line]))
    with pytest.raises(MetadataError, match="line 1: it does not begin with `#mtree`"):
        list(parse_metadata([line]))


def test_what_others_write() -> None:
    """Comments, empty lines and words that castore does not know are passed over."""
    lines = [b"#mtree", b"# x", b"", b". type=dir size=3 optional", b"./a type=file mode=644 time=5.0"]
    assert list(parse_metadata(lines)) == [
        EntryMetadata(TreePath(), "dir"),
        EntryMetadata(TreePath([b"a"]), "file", mode=0o644, time=5_000_000_000),
    ]


class Kept:
    """A folder in a store, with its metadata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = MemoryBlobService()
        self.directories = MemoryDirectoryService()
        node = import_tree(folder, self.blobs, self.directories).node
        assert node is not None
        self.node: Node = node
        self.text = b"".join(format_metadata(metadata_of(folder, self.directories, node)))

    def export(self, target: Path, *aspects: str, text: bytes | None = None, **options: Any) -> Exported:
        entries = parse_metadata(metadata_lines([self.text if text is None else text]))
        preserving = Preserving(entries, frozenset(aspects))
        how = ExportOptions(preserving=preserving, **options)
        return export_tree(self.node, target, self.blobs, self.directories, how)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with all that a tree does not have."""
    folder = tmp_path / "folder"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "sub/f").write_bytes(b"data")
    (folder / "sub/deep/again").hardlink_to(folder / "sub/f")
    (folder / "other").write_bytes(b"data")
    (folder / "a b#\n\\=").write_bytes(b"odd")
    (folder / "caf").symlink_to("nowhere")
    os.rename(folder / "caf", os.fsencode(folder) + b"/caf\xe9")
    (folder / "x").write_bytes(b"run")
    os.setxattr(folder / "x", "user.note", b"\0odd\n")
    os.setxattr(folder / "sub", "user.of folder", b"1")
    for number, (name, mode) in enumerate(
        [("sub/f", 0o640), ("x", 0o4755), ("other", 0o400), ("sub/deep", 0o2711)]
    ):
        os.chmod(folder / name, mode)
        os.utime(folder / name, ns=(0, 1_600_000_000_123_456_789 + number))
    os.utime(os.fsencode(folder) + b"/caf\xe9", ns=(0, 5), follow_symlinks=False)
    os.utime(folder / "sub", ns=(0, -1_500_000_000))
    os.chmod(folder, 0o750)
    os.utime(folder, ns=(0, 7))
    return folder


def facts(folder: Path, *names: str) -> dict[bytes, Any]:
    found = {}
    base = os.fsencode(folder)
    for where, folders, files in os.walk(base):
        for name in [b".", *folders, *files] if where == base else [*folders, *files]:
            path = os.path.join(where, name)
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            facts = {
                "mode": None if is_link else stat.S_IMODE(status.st_mode),
                "times": status.st_mtime_ns,
                "owner": (status.st_uid, status.st_gid),
                "links": 1 if stat.S_ISDIR(status.st_mode) else status.st_nlink,
                "xattrs": {} if is_link else {key: os.getxattr(path, key) for key in os.listxattr(path)},
            }
            found[os.path.relpath(path, base)] = [facts[name] for name in names]
    return found


ALL = ("mode", "times", "owner", "xattrs", "links")


@pytest.mark.parametrize("aspects", [ALL, *[(each,) for each in ALL]])
def test_it_comes_back(folder: Path, tmp_path: Path, aspects: tuple[str, ...]) -> None:
    """All of it, or what was asked for; a second run changes nothing, and reads the same of it."""
    if os.geteuid() == 0:
        os.chown(folder / "other", 12345, 54321)
        os.chown(os.fsencode(folder) + b"/caf\xe9", 12345, 54321, follow_symlinks=False)
    kept = Kept(folder)
    out = tmp_path / "out"
    assert kept.export(out, *aspects).notes == ()
    assert facts(out, *aspects) == facts(folder, *aspects)
    before = {path: path.lstat().st_ctime_ns for path in out.rglob("*") if path.is_file()}
    assert kept.export(out, *aspects, update=True).written == 0
    assert facts(out, *aspects) == facts(folder, *aspects)
    assert before == {path: path.lstat().st_ctime_ns for path in out.rglob("*") if path.is_file()}
    if aspects == ALL:
        assert Kept(out).text == kept.text


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    os.utime(tmp_path / "f", ns=(0, 9))
    kept = Kept(tmp_path / "f")
    kept.export(tmp_path / "out", "times")
    assert (tmp_path / "out").stat().st_mtime_ns == 9


@pytest.mark.parametrize("aspects", [ALL, *[(each,) for each in ALL]])
def test_other_names_of_a_file_are_left_alone(folder: Path, tmp_path: Path, aspects: tuple[str, ...]) -> None:
    """Nothing of them changes, files or links; and it comes back all the same."""
    if os.geteuid() == 0:
        os.chown(folder / "other", 12345, 54321)
        os.chown(os.fsencode(folder) + b"/caf\xe9", 12345, 54321, follow_symlinks=False)
    kept = Kept(folder)
    out, farm = os.fsencode(tmp_path / "out"), os.fsencode(tmp_path / "farm")
    kept.export(tmp_path / "out")
    os.mkdir(farm)
    for number, name in enumerate((b"x", b"other", b"sub/f", b"caf\xe9")):
        os.link(os.path.join(out, name), os.path.join(farm, b"%d" % number), follow_symlinks=False)
    before = facts(tmp_path / "farm", *(each for each in ALL if each != "links"))
    for _ in range(2):
        assert kept.export(tmp_path / "out", *aspects, update=True).notes == ()
        assert facts(tmp_path / "farm", *(each for each in ALL if each != "links")) == before
        same = [each for each in aspects if each != "links"]
        assert facts(tmp_path / "out", *same) == facts(folder, *same)
    assert (tmp_path / "out/x").read_bytes() == b"run"
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.parametrize("parts", [[], [(0, 5)], [(1 << 20, 3)], [(0, 9), (3 << 20, 4)], [(5, 3 << 20)]])
def test_a_copy_of_a_file(tmp_path: Path, parts: list[tuple[int, int]]) -> None:
    """Its bytes, its holes, its times and its mode, but never the right to run as its owner."""
    with (tmp_path / "f").open("wb") as file:
        for at, count in parts:
            file.seek(at)
            file.write(b"x" * count)
        file.truncate(4 << 20)
    (tmp_path / "f").chmod(0o4755)
    os.utime(tmp_path / "f", ns=(3, 9))
    with (tmp_path / "f").open("rb") as source, (tmp_path / "g").open("wb") as target:
        copy_file(source.fileno(), target.fileno())
    one, other = (tmp_path / "f").stat(), (tmp_path / "g").stat()
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()
    assert (other.st_mtime_ns, stat.S_IMODE(other.st_mode)) == (9, 0o755)
    assert other.st_blocks <= one.st_blocks + 8


def test_lines_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    """They are told, and the others are obeyed."""
    kept = Kept(folder)
    lines = kept.text.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(b"./other "))
    lines[at] = lines[at].replace(b"type=file", b"type=dir")
    lines[at:at] = [b"./nothing type=file mode=0777\n", b"./nothing/at type=file\n"]
    lines += [b"./z%d type=file\n" % number for number in range(10, 22)]
    done = kept.export(tmp_path / "out", "mode", text=b"".join(lines))
    (note,) = done.notes
    assert "'nothing' (the tree has no such entry), 'nothing/at'" in note
    assert "'other' (it is a dir there, and a file in the tree)" in note
    assert note.endswith("and 5 more")
    assert stat.S_IMODE((tmp_path / "out/x").stat().st_mode) == 0o4755


def test_a_part_of_the_tree(folder: Path, tmp_path: Path) -> None:
    kept = Kept(folder)
    entries = parse_metadata(metadata_lines([kept.text]))
    sub = kept.directories.get(kept.node.digest)[b"sub"]  # type: ignore[union-attr, index]
    preserving = Preserving(entries, frozenset(ALL), TreePath([b"sub"]))
    done = export_tree(
        sub, tmp_path / "out", kept.blobs, kept.directories, ExportOptions(preserving=preserving)
    )
    assert done.notes == ()
    assert facts(tmp_path / "out", "mode", "times") == facts(folder / "sub", "mode", "times")


def test_an_owner_that_is_not_allowed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One note for all of it."""
    kept = Kept(folder)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    text = kept.text.replace(b"uid=%d" % os.getuid(), b"uid=4242").replace(b"uname=", b"uname=no-such-user-")
    done = kept.export(tmp_path / "out", *ALL, text=text)
    assert done.notes == ("owner: not allowed here for 8 entries",)
    assert facts(tmp_path / "out", "mode", "times") == facts(folder, "mode", "times")


def test_links_of_a_tree_that_differs(tmp_path: Path) -> None:
    """Names of one file that have other contents now are not joined."""
    blobs, directories = MemoryBlobService(), MemoryDirectoryService()
    top = Directory({name: FileNode(blobs.write(name), 1) for name in (b"a", b"b")})
    directories.put(top)
    text = [b"#mtree", b"./a type=file link-group=1", b"./b type=file link-group=1"]
    options = ExportOptions(preserving=Preserving(parse_metadata(text)))
    export_tree(top.node, tmp_path / "out", blobs, directories, options)
    assert ((tmp_path / "out/a").read_bytes(), (tmp_path / "out/b").read_bytes()) == (b"a", b"b")


def test_bsdtar_reads_it(folder: Path, tmp_path: Path) -> None:
    """Names, modes, owners and times are the same to a program that has the format from elsewhere."""
    if shutil.which("bsdtar") is None:
        pytest.skip("needs bsdtar")
    kept = Kept(folder)
    # Of other words it says that it does not know them.
    text = re.sub(rb" (?:xattr\.|link-group)[^ \n]*", b"", kept.text)
    lines = text.splitlines(keepends=True)
    (tmp_path / "text").write_bytes(b"".join(lines))
    command = ["bsdtar", "-cf", "-", "--format=gnutar", f"@{tmp_path / 'text'}"]
    done = subprocess.run(
        command, capture_output=True, check=False, cwd=folder, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout), errors="surrogateescape") as tar:
        members = {os.fsencode(m.name): m for m in tar.getmembers()}
    entries = list(parse_metadata(lines))
    assert len(entries) >= 6
    for entry in entries:
        member = members[b"/".join((b".", *entry.path))]
        assert member.mode == entry.mode
        assert (member.uid, member.gid) == (entry.uid, entry.gid)
        assert entry.time is not None
        assert member.mtime == max(entry.time // 1_000_000_000, 0)  # none before 1970 in that tar


def test_what_is_not_known(folder: Path, tmp_path: Path) -> None:
    """Lines without facts change nothing."""
    kept = Kept(folder)
    bare = [
        attrs.evolve(EntryMetadata(each.path, each.type))
        for each in parse_metadata(metadata_lines([kept.text]))
    ]
    done = kept.export(tmp_path / "out", *ALL, text=b"".join(format_metadata(bare)))
    assert done.notes == ()
