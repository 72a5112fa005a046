"""Archives into trees: the roots that the reference has for them, and an error for each that is not right."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, CastoreError, Composition, SourceError
from castore.format.nodes import DirectoryNode, FileNode, Node
from castore.trees.importing import Imported, import_tree
from castore.trees.packing import PackOptions, pack_tree
from castore.trees.selecting import Pattern, Selection
from castore.trees.unpacking import UnpackOptions, unpack_tree
from castore.trees.walking import walk

Entry = tuple[str, str, Any]
"""Name, kind, and content or target."""

KINDS: Final = {
    "dir": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "run": tarfile.REGTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
}


def tar_of(entries: list[Entry], **options: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=options.pop("format", tarfile.PAX_FORMAT)) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = KINDS[kind]
            info.mode = 0o755 if kind == "run" else 0o644
            is_link = kind in ("symlink", "hardlink")
            info.linkname = content if is_link else ""
            data = b"" if is_link or content is None else content
            data = data.encode() if isinstance(data, str) else data
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


class Archives:
    def __init__(self, stores: Composition) -> None:
        self.blobs, self.directories = stores.blobs(), stores.directories()

    def take(self, data: bytes, **options: Any) -> Imported:
        return unpack_tree(io.BytesIO(data), "a.tar", self.blobs, self.directories, UnpackOptions(**options))

    def take_tar(self, entries: list[Entry], **options: Any) -> Imported:
        return self.take(tar_of(entries), **options)

    def tree(self, done: Imported) -> dict[str, Any]:
        """Return the files and links, with what is in them, and empty directories."""
        assert done.node is not None
        found: dict[str, Any] = {}
        for path, node in walk(self.directories, done.node):
            if isinstance(node, FileNode):
                found[str(path)] = self.blobs.read(node.digest)
            elif not isinstance(node, DirectoryNode):
                found[str(path)] = node.target.decode()
            elif not node.size:
                found[str(path)] = {}
        return found


@pytest.fixture
def archives(stores: Composition) -> Archives:
    return Archives(stores)


LONG: Final = "r/" + "d" * 120 + "/" + "f" * 200

AS_RECORDED: dict[str, tuple[list[Entry], str]] = {
    "one folder": (
        [("r", "dir", None), ("r/a", "file", "A"), ("r/x", "run", "X")],
        "blake3-GiBSu5ANrkMKyzMR+K1g6GntuT7l8IBslLugO+5o4QA=",
    ),
    "folder implied": ([("r/s/a", "file", "A")], "blake3-naT5RPZ3gpuIWeGMrwthsQU9RgfByFU/9jq0GcULlfk="),
    "symlink": (
        [("r", "dir", None), ("r/l", "symlink", "a")],
        "blake3-OMmSh6H/rNG88aJyIibWc2HX+b2YVtCuL+gkJh45kaw=",
    ),
    "long name": (
        [("r", "dir", None), (LONG, "file", "A")],
        "blake3-eHocdeAvAwub07QKk51VqOl0D5UM+LFENZenz9LNghQ=",
    ),
}


@pytest.mark.parametrize(("entries", "digest"), AS_RECORDED.values(), ids=AS_RECORDED)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_roots_are_those_of_the_reference(
    archives: Archives, entries: list[Entry], digest: str, form: int
) -> None:
    done = archives.take(tar_of(entries, format=form))
    assert done.node is not None
    assert done.node.digest == B3Digest.parse(digest)  # type: ignore[union-attr] - it is a directory
    assert (done.problems, done.notes) == ((), ())


TREES: dict[str, tuple[list[Entry], dict[str, Any]]] = {
    "dot slash": (
        [("./", "dir", None), ("./a", "file", "A"), ("./s/b", "file", "B")],
        {"a": b"A", "s/b": b"B"},
    ),
    "two tops": ([("a", "file", "A"), ("b", "file", "B")], {"a": b"A", "b": b"B"}),
    "single file": ([("a", "file", "A")], {"a": b"A"}),
    "two folders": ([("a/x", "file", "A"), ("b", "dir", None)], {"a/x": b"A", "b": {}}),
    "one folder after a dot": ([("./r/a", "file", "A")], {"a": b"A"}),
    "nothing": ([], {}),
    "hard link": ([("r/a", "file", "A"), ("r/h", "hardlink", "r/a")], {"a": b"A", "h": b"A"}),
    "hard link to what is replaced later": (
        [("r/a", "file", "A"), ("r/h", "hardlink", "r/a"), ("r/a", "file", "B")],
        {"a": b"B", "h": b"A"},
    ),
    "hard link to a link": (
        [("r/l", "symlink", "x"), ("r/h", "hardlink", "r/l")],
        {"l": "x", "h": "x"},
    ),
    "twice": ([("r/a", "file", "old"), ("r/a", "file", "new")], {"a": b"new"}),
    "file, then link": ([("r/a", "file", "old"), ("r/a", "symlink", "x")], {"a": "x"}),
    "folder twice": (
        [("r/s/a", "file", "A"), ("r/s", "dir", None), ("r/s/b", "file", "B")],
        {"s/a": b"A", "s/b": b"B"},
    ),
    "slashes": ([("r//a", "file", "A"), ("r/./b/", "dir", None)], {"a": b"A", "b": {}}),
    "no file": ([("r/empty", "file", "")], {"empty": b""}),
    "large": ([("r/large", "file", "x" * 2_500_000)], {"large": b"x" * 2_500_000}),
}


@pytest.mark.parametrize(("entries", "tree"), TREES.values(), ids=TREES)
def test_trees(archives: Archives, entries: list[Entry], tree: dict[str, Any]) -> None:
    done = archives.take_tar(entries)
    assert archives.tree(done) == tree
    files = sum(isinstance(each, bytes) for each in tree.values())
    assert (done.files, done.links) == (files, sum(isinstance(each, str) for each in tree.values()))
    assert done.size == sum(len(each) for each in tree.values() if isinstance(each, bytes))


def test_more_than_one_top_is_told(archives: Archives) -> None:
    assert "more than one folder at its top" in archives.take_tar([("a", "file", "A")]).notes[0]
    assert archives.take_tar([("r/a", "file", "A")]).notes == ()


REFUSED: dict[str, tuple[list[Entry], str]] = {
    "dotdot": ([("r/../../evil", "file", "E")], "'r/../../evil', which may lead out"),
    "dotdot within": ([("r/s/../a", "file", "E")], "may lead out"),
    "absolute": ([("/r/a", "file", "A")], "'/r/a', which may lead out"),
    "hard link out": ([("r/h", "hardlink", "../../etc/passwd")], "may lead out"),
    "below a file": (
        [("r/a", "file", "A"), ("r/a/b", "file", "B")],
        "both a folder and something else called 'r/a'",
    ),
    "below a link": ([("r/s", "symlink", "/etc"), ("r/s/b", "file", "B")], "both a folder and something"),
    "file where a folder is": ([("r/a/b", "file", "B"), ("r/a", "file", "A")], "both a folder and something"),
    "folder where a file is": ([("r/a", "file", "B"), ("r/a", "dir", None)], "both a folder and something"),
    "file for all": ([("./", "file", "A")], "is no folder"),
    "too deep": ([("d/" * 5000 + "x", "file", "A")], "levels"),
}


@pytest.mark.parametrize(("entries", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(archives: Archives, entries: list[Entry], words: str) -> None:
    with pytest.raises(SourceError, match=r"'a[.]tar'") as info:
        archives.take_tar(entries)
    assert words in info.value.message


PROBLEMS: dict[str, tuple[list[Entry], str, str]] = {
    "pipe": ([("r/p", "fifo", None)], "special", "'r/p' is a pipe"),
    "device": ([("r/p", "device", None)], "special", "'r/p' is a pipe or a device"),
    "hard link to nothing": ([("r/h", "hardlink", "r/a")], "unreadable", "which is not there before it"),
    "long name": ([("r/" + "n" * 256, "file", "A")], "unreadable", "nnn"),
    "long target": ([("r/l", "symlink", "t" * 4096)], "unreadable", "'r/l'"),
}


@pytest.mark.parametrize(("entries", "kind", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_problems(archives: Archives, entries: list[Entry], kind: str, words: str) -> None:
    """There is no root then, unless it may lack something."""
    both = [("r/good", "file", "A"), *entries]
    done = archives.take_tar(both)
    assert (done.node, [each.kind for each in done.problems]) == (None, [kind])
    assert words in done.problems[0].message
    done = archives.take_tar(both, skip_unreadable=True)
    assert archives.tree(done) == {"good": b"A"}
    if kind == "special":
        assert archives.take_tar(both, skip_special=True).problems == ()


@pytest.mark.parametrize("how", ["", "gz", "zst", "xz", "bz2", "zip"])
def test_what_was_packed_comes_back(golden: Path, archives: Archives, how: str) -> None:
    """Whatever it is called: how it is compressed is told by how it begins."""
    node = import_tree(golden, archives.blobs, archives.directories).node
    assert node is not None
    if how == "zip":
        # A zip has no names that are no UTF-8.
        without = golden_without_bytes(golden, archives)
        node = without
    file = io.BytesIO()
    form = "zip" if how == "zip" else "tar"
    options = PackOptions(form, "" if how == "zip" else how)  # type: ignore[arg-type]
    pack_tree(node, file, archives.blobs, archives.directories, options)
    done = archives.take(file.getvalue(), format=form)
    assert (done.node, done.problems, done.notes) == (node, (), ())


def golden_without_bytes(golden: Path, archives: Archives) -> Node:
    def is_text(path: bytes) -> bool:
        try:
            path.decode()
        except UnicodeDecodeError:
            return False
        return True

    done = import_tree(golden, archives.blobs, archives.directories, leave_out=lambda path: not is_text(path))
    assert done.node is not None
    return done.node


@pytest.mark.parametrize("how", ["", "gz", "zst", "xz", "bz2"])
def test_none_that_is_cut_short_is_a_shorter_tree(archives: Archives, how: str) -> None:
    """Wherever it is cut; but for what is behind the mark of the end, which is of no use."""
    node = archives.take_tar([(f"r/{n}", "file", str(n) * 300) for n in range(4)]).node
    assert node is not None
    file = io.BytesIO()
    options = PackOptions(compression=how)  # type: ignore[arg-type]
    pack_tree(node, file, archives.blobs, archives.directories, options)
    data = file.getvalue()
    end = 4608 + 512 if not how else len(data)
    for size in range(0, len(data), 1 if how else 37):
        if size < end:
            with pytest.raises(SourceError, match="damaged, or cut short"):
                archives.take(data[:size])
        else:
            assert archives.take(data[:size]).node == node


def test_a_header_that_is_damaged_is_not_the_end(archives: Archives) -> None:
    data = bytearray(tar_of([("r/a", "file", "A"), ("r/b", "file", "B")], format=tarfile.GNU_FORMAT))
    data[1024 + 10] ^= 0xFF
    with pytest.raises(SourceError, match="damaged"):
        archives.take(bytes(data))


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100, b"\x1f\x8b\x08 no gzip", bytes(100)])
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_what_is_no_archive(archives: Archives, data: bytes, form: str) -> None:
    with pytest.raises(SourceError, match=r"cannot read 'a[.]tar'"):
        archives.take(data, format=form)


@pytest.mark.parametrize("kind", ["gnu", "0.0", "0.1", "1.0"])
def test_holes(archives: Archives, tmp_path: Path, kind: str) -> None:
    """A file with holes is all of its bytes, whichever way a tar says so."""
    if shutil.which("tar") is None:
        pytest.skip("needs tar")
    (tmp_path / "r").mkdir()
    with (tmp_path / "r/holes").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    options = ["--format=gnu"] if kind == "gnu" else ["--format=pax", f"--sparse-version={kind}"]
    made = subprocess.run(["tar", "-cS", *options, "r"], cwd=tmp_path, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("needs GNU tar")
    assert len(made.stdout) < 1 << 20
    done = archives.take(made.stdout)
    assert archives.tree(done) == {"holes": (tmp_path / "r/holes").read_bytes()}


def test_names_are_bytes(archives: Archives, tmp_path: Path) -> None:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        name = b"r/caf\xe9".decode("utf-8", "surrogateescape")
        done = archives.take(tar_of([(name, "file", "A")], format=form))
        assert done.node is not None
        directory = archives.directories.get(done.node.digest)  # type: ignore[union-attr]
        assert directory is not None
        assert list(directory) == [b"caf\xe9"]


class TestSelection:
    ENTRIES: Final[list[Entry]] = [
        ("r/a.o", "file", "o"),
        ("r/a", "file", "a"),
        ("r/build/x", "file", "x"),
        ("r/large", "file", "x" * 100),
    ]

    def test_what_is_dropped_is_not_stored(self, archives: Archives) -> None:
        """Patterns begin at the top of the archive, as what is the root is known in the end only."""
        reasons: dict[bytes, str] = {}
        rules = Selection([Pattern(b"*.o", "--exclude"), Pattern(b"build/", "--exclude")], larger_than=50)
        data = tar_of(self.ENTRIES)
        done = unpack_tree(
            io.BytesIO(data),
            "a.tar",
            archives.blobs,
            archives.directories,
            UnpackOptions(selection=rules),
            dropped=lambda path, rule: reasons.update({path: rule}),
        )
        assert archives.tree(done) == {"a": b"a"}
        assert set(reasons) == {b"r/a.o", b"r/build", b"r/large"}
        assert archives.blobs.missing({B3Digest.of(b"o"), B3Digest.of(b"x")}) == {
            B3Digest.of(b"o"),
            B3Digest.of(b"x"),
        }


class TestBounds:
    def test_entries(self, archives: Archives) -> None:
        entries: list[Entry] = [(f"r/{n}", "file", "") for n in range(10)]
        assert archives.take_tar(entries, most_files=10).files == 10
        with pytest.raises(SourceError, match="more than 9 entries"):
            archives.take_tar(entries, most_files=9)

    @pytest.mark.parametrize("form", ["tar", "zip"])
    def test_bytes(self, archives: Archives, form: str) -> None:
        """Before any of the file that is too much is read."""
        if form == "zip":
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("r/a", bytes(5_000_000))
            data = file.getvalue()
        else:
            data = tar_of([("r/a", "file", bytes(5_000_000))])
        assert archives.take(data, format=form, most_bytes=5_000_000).size == 5_000_000
        with pytest.raises(SourceError, match="more than 4999999 bytes"):
            archives.take(data, format=form, most_bytes=4_999_999)

    def test_a_header_without_end(self, archives: Archives) -> None:
        """A name may say that it has gigabytes; no more is read than any has."""
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4 << 30

        class Endless(io.RawIOBase):
            begin = info.tobuf(tarfile.GNU_FORMAT)
            given = 0

            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                data, self.begin = self.begin[: len(buffer)], self.begin[len(buffer) :]
                buffer[: len(data)] = data
                count = len(data) or len(buffer)
                self.given += count
                return count

        stream = Endless()
        with pytest.raises(SourceError, match="more bytes than any name"):
            unpack_tree(stream, "a.tar", archives.blobs, archives.directories)  # type: ignore[arg-type]
        assert stream.given < 1 << 22

    def test_contents_are_not_held(self, archives: Archives, tmp_path: Path) -> None:
        """Of 64 MiB in one file, and 40 MiB in small ones, some are."""
        place = tmp_path / "a.tar"
        with tarfile.open(place, "w") as tar:
            for number, size in enumerate([64 << 20, *[400_000] * 100]):
                info = tarfile.TarInfo(f"r/{number}")
                info.size = size
                tar.addfile(info, io.BytesIO(number.to_bytes(4, "big") * (size // 4)))
        with Composition.from_mapping(
            {"blobservices": {"root": {"type": "objectstore", "object_store_url": "file:./s"}}}, base=tmp_path
        ) as stores:
            tracemalloc.start()
            try:
                with place.open("rb") as file:
                    done = unpack_tree(file, "a", stores.blobs(), stores.directories())
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert done.files == 101
        assert peak < 60 << 20


class TestZips:
    def zip_of(self, *entries: tuple[Any, bytes, int], flags: int = 0) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, data, mode in entries:
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, mode << 16
                archive.writestr(info, data)
        data = bytearray(file.getvalue())
        if flags:
            data[6] |= flags
            data[data.index(b"PK\x01\x02") + 8] |= flags
        return bytes(data)

    def test_links_and_modes(self, archives: Archives) -> None:
        data = self.zip_of(
            ("r/", b"", stat.S_IFDIR | 0o755),
            ("r/run", b"#!", stat.S_IFREG | 0o755),
            ("r/plain", b"p", 0),
            ("r/link", b"run", stat.S_IFLNK | 0o777),
            ("r/empty/", b"", stat.S_IFDIR | 0o755),
        )
        done = archives.take(data, format="zip")
        assert archives.tree(done) == {"run": b"#!", "plain": b"p", "link": "run", "empty": {}}
        nodes = {str(path): node for path, node in walk(archives.directories, done.node)}  # type: ignore[arg-type]
        assert [nodes[name].executable for name in ("run", "plain")] == [True, False]  # type: ignore[union-attr]

    def test_one_that_is_encrypted(self, archives: Archives) -> None:
        with pytest.raises(SourceError, match="'r/a' is encrypted"):
            archives.take(self.zip_of(("r/a", b"A", 0), flags=1), format="zip")

    @pytest.mark.parametrize(
        ("raw", "is_text", "name"),
        [
            ("caf\xe9".encode(), True, "caf\xe9".encode()),
            ("caf\xe9".encode(), False, "caf\xe9".encode()),
            (b"caf\x82", False, "caf\xe9".encode()),
        ],
        ids=["marked", "not marked", "CP437"],
    )
    def test_names(self, archives: Archives, raw: bytes, is_text: bool, name: bytes) -> None:
        stand_in = "n" * len(raw)
        data = self.zip_of((f"r/{stand_in}", b"A", 0)).replace(stand_in.encode(), raw)
        if is_text:
            data = data[:7] + b"\x08" + data[8:]
            at = data.index(b"PK\x01\x02") + 9
            data = data[:at] + b"\x08" + data[at + 1 :]
        done = archives.take(data, format="zip")
        assert done.node is not None
        directory = archives.directories.get(done.node.digest)  # type: ignore[union-attr]
        assert directory is not None
        assert list(directory) == [name]

    def test_damage(self, archives: Archives) -> None:
        """Bytes that are others than were written, and an end that is not there."""
        data = self.zip_of(("r/a", b"AAAA", stat.S_IFREG | 0o644))
        at = data.index(b"AAAA")
        with pytest.raises(SourceError, match="CRC"):
            archives.take(data[:at] + b"AXAA" + data[at + 4 :], format="zip")
        for size in range(len(data)):
            with pytest.raises(CastoreError):
                archives.take(data[:size], format="zip")

    @pytest.mark.parametrize("name", ["/abs", "../up", "r/../../up"])
    def test_names_that_lead_out(self, archives: Archives, name: str) -> None:
        with pytest.raises(SourceError, match="may lead out"):
            archives.take(self.zip_of((name, b"A", 0)), format="zip")


def test_other_programs(archives: Archives, golden: Path, tmp_path: Path) -> None:
    """What tar and zip make of a folder has the root of that folder."""
    expected = import_tree(golden, archives.blobs, archives.directories).node
    made: Callable[..., Any] = subprocess.run
    for program in ("tar", "bsdtar"):
        if shutil.which(program):
            for form in ("pax", "gnutar" if program == "bsdtar" else "gnu"):
                out = made(
                    [program, f"--format={form}", "-cf", "-", golden.name],
                    cwd=golden.parent,
                    capture_output=True,
                    env={**os.environ, "LC_ALL": "C.UTF-8"},
                    check=False,
                )
                if out.returncode == 0:
                    assert archives.take(out.stdout).node == expected, (program, form)
