"""Trees that somebody made to do harm: one clear error each, whatever is done with them, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import zstandard

from castore import B3Digest
from castore.format import closures
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode

BLOBS = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
durability = "process"
"""
OBJECTS = (
    BLOBS
    + """
[directoryservices.root]
type = "objectstore"
object_store_url = "file:./store"
"""
)

COMMANDS = (
    ["ls", "-R", "ROOT"],
    ["tree", "ROOT"],
    ["find", "ROOT", "--name", "x"],
    ["du", "ROOT"],
    ["cat", "ROOT:d/x"],
    ["diff", "ROOT", "./other"],
    ["export", "ROOT", "out"],
    ["export", "ROOT", "out.tar"],
    ["filter", "ROOT", "--exclude", "x"],
    ["merge", "ROOT", "OTHER"],
    ["ref", "set", "name", "ROOT"],
    ["gc", "--tree", "ROOT", "--dry-run"],
    ["verify", "ROOT"],
)


def entry_of(name: bytes, kind: int) -> bytes:
    """A directory with one entry, a folder or a file or a link, of any name."""

    def field(number: int, data: bytes) -> bytes:
        length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
        return bytes([number << 3 | 2]) + length + data

    target = b"/etc/passwd" if kind == 3 else bytes(B3Digest.of(b""))
    return field(kind, field(1, name) + field(2, target))


def put(place, encoding: bytes, below: bytes = b"") -> str:
    """Have it as a root, as a blob and as an object; return its digest."""
    digest = str(B3Digest.of(encoding))
    for folder in ("blobs", "chunks"):
        path = place.folder / f"store/{folder}/b3/{digest[:4]}/{digest}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if folder == "blobs" else zstandard.compress(encoding))
    path = place.folder / f"store/dirs/b3/{digest[:4]}/{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(len(encoding).to_bytes(4, "big") + encoding + below))
    return digest


def attempted(castore, place, root: str, other: str) -> Iterator[str]:
    """Do with it what can be done; yield what each said."""
    (place.folder / "other").mkdir(exist_ok=True)
    before = sorted(place.folder.iterdir())
    for command in COMMANDS:
        done = castore(*(word.replace("ROOT", root).replace("OTHER", other) for word in command))
        assert done.exit_code == 1, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 2, (command, done.stderr)
        yield done.stdout + done.stderr
    assert sorted(place.folder.iterdir()) == before


@pytest.fixture
def other(castore, place):
    (place.folder / "composition.toml").write_text(BLOBS)
    place.file("some/d/x", b"x")
    return castore("import", "some").stdout[:64]


@pytest.mark.parametrize(
    ("name", "table"),
    [(b"..", BLOBS), (b"a/b", OBJECTS), (b"a\0b", BLOBS), (b"n" * 256, OBJECTS)],
    ids=["up", "slash", "null", "long"],
)
def test_names_that_lead_elsewhere(castore, place, other, name, table):
    root = put(place, entry_of(name, 1 + len(name) % 3))
    if table == OBJECTS:
        (place.folder / "composition.toml").write_text(table)
        castore("import", "some")
    for said in attempted(castore, place, root, other):
        assert "is no name" in said or "corrupt" in said, said


@pytest.mark.parametrize("table", [BLOBS, OBJECTS], ids=["blobs", "objects"])
def test_a_directory_that_lists_itself(castore, place, other, table):
    """By a digest that it does not have: what has another one is not believed."""
    (place.folder / "composition.toml").write_text(table)
    if table == OBJECTS:
        castore("import", "some")
    digest = B3Digest.of(b"itself")
    itself = Directory({b"d": DirectoryNode(digest, 2)})
    forged = put(place, itself.encoded)
    for path in (place.folder / "store").rglob(forged):
        new = path.parents[1] / str(digest)[: len(path.parent.name)] / str(digest)
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    for said in attempted(castore, place, str(digest), other):
        assert "corrupt" in said, said


PROGRAM = """
import sys
from pathlib import Path
from castore.cli.app import app
for line in sys.stdin.read().splitlines():
    try:
        app(line.split())
    except SystemExit as end:
        print("exit", end.code, file=sys.stderr)
status = Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""


def run(place, commands: list[list[str]]) -> tuple[str, int]:
    """Run commands, all of which fail; return what they said, and how many MiB were taken."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="\n".join(map(" ".join, commands)),
        capture_output=True,
        text=True,
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert done.stderr.count("exit 1\n") == len(commands), done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr, int(done.stdout.split()[-1]) >> 10


def repeated(root: Directory) -> Iterator[bytes]:
    part = b"".join(closures.encode_frames([root, Directory()] * 8192))
    return (part for _ in range((1 << 28) // len(part)))


def deep(levels: int) -> list[Directory]:
    tree = [Directory()]
    for _ in range(levels):
        tree.append(Directory({b"d": tree[-1].node}))
    return tree[::-1]


SHAPES = {
    "zeros": ("it has", 128),
    "repeats": ("the same directories over and over", 128),
    "deep": ("more than 4096 levels", 160),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_lot_in_a_small_object(place, shape):
    """Nothing is unpacked that is not looked at; a program takes what it takes for any tree."""
    words, most = SHAPES[shape]
    (place.folder / "composition.toml").write_text(OBJECTS)
    root = Directory({b"d": Directory().node})
    pieces: Iterator[bytes] = iter(bytes(1 << 20) for _ in range(1 << 10))
    if shape == "repeats":
        pieces = repeated(root)
    elif shape == "deep":
        tree = deep(5_000)
        root, pieces = tree[0], closures.encode_frames(tree)
    path = place.folder / f"store/dirs/b3/{str(root.digest)[:4]}/{root.digest}"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
        for piece in pieces:
            writer.write(piece)
    commands = [
        ["ls", "-R", "ROOT"],
        ["export", "ROOT", "out"],
        ["ref", "set", "name", "ROOT"],
        ["gc", "--tree", "ROOT", "--dry-run"],
        ["verify", "ROOT"],
    ]
    said, peak = run(place, [[word.replace("ROOT", str(root.digest)) for word in each] for each in commands])
    assert said.count(words) + said.count("corrupt-directory") >= len(commands), said
    assert peak < most
    assert not (place.folder / "out").exists()


@pytest.mark.long
def test_a_gigabyte_of_what_is_right_but_for_its_size(place):
    """What is looked at is held in part; it ends where no object may have more. It takes a minute."""
    (place.folder / "composition.toml").write_text(OBJECTS)
    file = FileNode(B3Digest.of(b""), 0)
    names = {b"%06d" % number: file for number in range(250_000)}
    folders = [Directory({**names, b"x%d" % number: file}) for number in range(5)]
    root = Directory({b"%d" % number: each.node for number, each in enumerate(folders)})
    path = place.folder / f"store/dirs/b3/{str(root.digest)[:4]}/{root.digest}"
    path.parent.mkdir(parents=True)
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as writer:
        for piece in closures.encode_frames([root, *folders]):
            writer.write(piece)
        for piece in closures.encode_frames(folders * 20):
            writer.write(piece)
    said, peak = run(place, [["ls", str(root.digest)], ["gc", "--tree", str(root.digest), "--dry-run"]])
    assert said.count("over and over") + said.count("unpacks to more than 512 MiB") == 2, said
    assert peak < 400
