"""Trees as the reference stores them: its objects are read, and nothing less than a whole one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import zstandard

from castore import B3Digest, Composition, CorruptDirectoryError, MissingDirectoryError
from castore.contract.directories import Complete, DirectoryLister, DirectoryService
from castore.format import closures
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode
from castore.trees.exporting import export_tree
from castore.trees.importing import import_tree
from tests.directories.test_services import REFERENCE, leaves_first
from tests.format.test_directories import COMPLICATED, WITH_KEEP, A, B, C, D, E
from tests.trees.conftest import ROOT

OBJECT: Final = (Path(__file__).parents[1] / "testdata/reference/closure.zst").read_bytes()
"""The object that the reference has written for its tree."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def stores(folder: Path) -> Iterator[Composition]:
    """Blobs and trees in one folder, as the reference has them."""
    table = {"type": "objectstore", "object_store_url": f"file:{folder}", "durability": "process"}
    with Composition.from_mapping(
        {"blobservices": {"root": table}, "directoryservices": {"root": table}}
    ) as stores:
        yield stores


@pytest.fixture
def service(stores: Composition) -> DirectoryService:
    return stores.directories()


def anew(folder: Path) -> DirectoryService:
    """The same store, of which nothing is at hand."""
    table = {"type": "objectstore", "object_store_url": f"file:{folder}", "durability": "process"}
    return Composition.from_mapping(
        {"blobservices": {"root": {"type": "memory"}}, "directoryservices": {"root": table}}
    ).directories()


def place(folder: Path, digest: B3Digest, data: bytes) -> Path:
    path = folder / "dirs/b3" / str(digest)[:4] / str(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def packed(*directories: Directory) -> bytes:
    return closures.encode(directories)


def test_where_a_tree_is(service: DirectoryService, folder: Path) -> None:
    """One object for all of it, whose name is the root."""
    service.put_closure([A, C])
    (path,) = [path for path in folder.rglob("*") if path.is_file() and "dirs" in path.parts]
    assert path == folder / "dirs/b3/78eb/78eb200ae0cc95d4ea954655fbcf91e285013a261310e161927f2401d2bca803"
    payload = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    assert payload == bytes.fromhex("0000004f") + C.encoded + bytes(4)


def test_what_the_reference_has_written(service: DirectoryService, folder: Path) -> None:
    """Whatever the order of directories beside each other."""
    place(folder, B3Digest.parse(ROOT), OBJECT)
    found = list(service.closure(B3Digest.parse(ROOT)) or ())
    assert found[0] == REFERENCE[0]
    assert set(found) == set(REFERENCE)
    for directory in REFERENCE:
        assert anew(folder).get_many([directory.digest], within=found[0].digest) == {
            directory.digest: directory
        }


def test_a_tree_of_the_reference_comes_out(
    stores: Composition,
    folder: Path,
    golden: Path,
    snapshot: object,
    tmp_path: Path,
) -> None:
    """Of its directories and the blobs that both store alike."""
    import_tree(golden, stores.blobs(), anew(tmp_path / "other"))
    place(folder, B3Digest.parse(ROOT), OBJECT)
    root = REFERENCE[0].node
    export_tree(root, tmp_path / "out", stores.blobs(), anew(folder))
    assert snapshot(tmp_path / "out") == snapshot(golden)


def test_the_same_tree_is_not_written_again(service: DirectoryService, folder: Path) -> None:
    path = place(folder, REFERENCE[0].digest, OBJECT)
    service.put_closure(leaves_first(REFERENCE))
    assert path.read_bytes() == OBJECT


def test_what_can_be_had_by_itself(service: DirectoryService, folder: Path) -> None:
    """A root; another directory only of a tree that is named, or was read lately."""
    service.put_closure([A, B, D, E])
    cold = anew(folder)
    assert cold.get(D.digest) is None
    assert cold.missing([D.digest, E.digest]) == {D.digest}
    assert cold.get_many([D.digest, B.digest], within=E.digest) == {D.digest: D, B.digest: B}
    assert cold.get(D.digest) == D
    assert list(cold.closure(D.digest) or ()) == [D, A, B]


def test_a_graft_brings_its_tree_along(service: DirectoryService, folder: Path) -> None:
    """The new object has all directories, as each must."""
    service.put_closure([A, B, D])
    with service.open_write() as writer:
        writer.graft(D.node)
        writer.put(E)
    assert list(anew(folder).closure(E.digest) or ()) == [E, D, A, B]


def test_roots_are_listed(service: DirectoryService, folder: Path) -> None:
    service.put_closure([A, B, D])
    service.put(WITH_KEEP)
    (folder / "dirs/b3/notes.txt").write_bytes(b"a stranger's")
    lister = service.capability(DirectoryLister)
    assert lister is not None
    assert set(lister.list_directories()) == {D.digest, WITH_KEEP.digest}
    assert service.capability(Complete) is not None


class TestDamage:
    def test_cut_at_every_byte(self) -> None:
        """An error, and never a smaller tree."""
        for length in range(len(OBJECT)):
            with pytest.raises(CorruptDirectoryError):
                list(closures.decode(OBJECT[:length], REFERENCE[0].digest))

    @pytest.mark.parametrize("length", [0, 1, 500, len(OBJECT) - 1])
    def test_cut(self, folder: Path, length: int) -> None:
        """Nor is it absent."""
        root = REFERENCE[0].digest
        place(folder, root, OBJECT[:length])
        cold = anew(folder)
        with pytest.raises(CorruptDirectoryError):
            list(cold.closure(root) or ())
        with pytest.raises(CorruptDirectoryError):
            cold.get(root)

    def test_each_byte_changed(self) -> None:
        """An error, or nothing of what was said has changed."""
        for at in range(len(OBJECT)):
            data = OBJECT[:at] + bytes([OBJECT[at] ^ 0x55]) + OBJECT[at + 1 :]
            try:
                found = set(closures.decode(data, REFERENCE[0].digest))
            except CorruptDirectoryError:
                continue
            assert found == set(REFERENCE)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            packed(),
            packed(E),
            packed(E, D),
            packed(E, D, A),
            packed(D, E, A, B),
            packed(E, D, A, B, WITH_KEEP),
            packed(E, A, D, B),
            packed(D, A, B),
            packed(E, D, A, B)[:-3],
            zstandard.compress(b"\x3e\x80\x00\x00"),
            zstandard.compress(b"\x00\x00\x00\x02xy"),
            b"\x50\x2a\x4d\x18\x04\x00\x00\x00tail",
        ],
    )
    def test_what_is_no_whole_tree(self, folder: Path, data: bytes) -> None:
        place(folder, E.digest, data)
        with pytest.raises(CorruptDirectoryError) as caught:
            list(anew(folder).closure(E.digest) or ())
        assert caught.value.expected == E.digest
        assert "dirs/b3/" in str(caught.value)

    def test_repeats_and_what_follows(self, folder: Path) -> None:
        """A directory that comes again is passed over; a tail that others add is left alone."""
        tail = b"\x5c\x2a\x4d\x18\x04\x00\x00\x00tail"
        place(folder, E.digest, packed(E, D, D, A, B, A) + tail)
        assert list(anew(folder).closure(E.digest) or ()) == [E, D, A, B]

    def test_an_entry_of_a_wrong_size(self, folder: Path) -> None:
        wrong = Directory({b"a": DirectoryNode(A.digest, 42)})
        place(folder, wrong.digest, packed(wrong, A))
        with pytest.raises(CorruptDirectoryError, match="42"):
            list(anew(folder).closure(wrong.digest) or ())

    def test_a_bomb(self, folder: Path) -> None:
        """A directory of a gigabyte in a few bytes is refused when it is announced."""
        payload = (1 << 30).to_bytes(4, "big") + bytes(1 << 24)
        place(folder, E.digest, zstandard.compress(payload))
        with pytest.raises(CorruptDirectoryError, match="is announced"):
            list(anew(folder).closure(E.digest) or ())

    def test_a_child_that_is_nowhere(self, service: DirectoryService) -> None:
        with pytest.raises(MissingDirectoryError) as caught:
            service.put_many([COMPLICATED])
        assert caught.value.path == b"keep"
