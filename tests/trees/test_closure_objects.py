"""Trees as the reference stores them: its objects are read, and nothing less than a whole one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest
import zstandard

from castore import B3Digest, Composition, CorruptDirectoryError, MissingDirectoryError
from castore.contract.directories import AnyDirectory, Complete, DirectoryLister, DirectoryService
from castore.digest import EMPTY
from castore.format import closures
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode
from castore.trees.exporting import export_tree
from castore.trees.importing import import_tree
from castore_objectstore.directories import ClosureDirectoryService
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.object_store import ObjectStore
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


class Requests:
    """Counts what an object store is asked."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name in ("get", "get_tail", "get_range", "list", "exists", "put"):
            self.made.append(name)
        return found


def indexed(folder: Path) -> tuple[ClosureDirectoryService, Requests]:
    """The same store with an index, of which nothing is at hand, and what it asks for."""
    requests = Requests(LocalObjectStore(folder, instance="root", durability="process"))
    return ClosureDirectoryService(cast("ObjectStore", requests), index=True), requests


def tree(number: int) -> list[Directory]:
    """Some directories that only this tree has, the leaves first."""
    leaf = Directory({b"leaf-%d" % number: FileNode(EMPTY, number)})
    middle = Directory({b"leaf": leaf.node})
    return [leaf, middle, Directory({b"middle": middle.node, b"a": A.node}), A]


class TestIndex:
    @pytest.mark.parametrize("ours", [True, False], ids=["with an index", "of the reference"])
    def test_any_directory_is_found(self, folder: Path, ours: bool) -> None:
        """Cold with a request for each tree and three more, then with one; its tree is at hand then."""
        writer: DirectoryService = indexed(folder)[0] if ours else anew(folder)
        for number in range(5):
            leaf, middle, root, a = tree(number)
            writer.put_closure([leaf, middle, a, root])
        service, requests = indexed(folder)
        assert service.capability(AnyDirectory) is not None
        leaf, middle, root, _ = tree(3)
        assert service.get(middle.digest) == middle
        # Whether it is a root comes first.
        assert sorted(requests.made) == ["get", "get", *["get_tail"] * 5, "list"]
        requests.made.clear()
        assert service.get(leaf.digest) == leaf
        assert list(service.closure(middle.digest) or ()) == [middle, leaf]
        assert requests.made == ["get"]
        requests.made.clear()
        other = tree(1)[0]
        assert service.get(other.digest) == other
        assert requests.made == ["get", "get"]
        assert service.missing([other.digest, EMPTY, B3Digest.of(b"nobody")]) >= {B3Digest.of(b"nobody")}

    def test_what_others_write_meanwhile(self, folder: Path) -> None:
        service, _ = indexed(folder)
        leaf, middle, root, a = tree(1)
        assert service.get(leaf.digest) is None
        anew(folder).put_closure([leaf, middle, a, root])
        assert service.get(leaf.digest) == leaf
        (path,) = (folder / "dirs").rglob(str(root.digest))
        path.unlink()
        cold, _ = indexed(folder)
        assert cold.missing([leaf.digest, middle.digest]) == {leaf.digest, middle.digest}

    def test_a_part_of_another_tree_is_grafted(self, folder: Path) -> None:
        leaf, middle, root, a = tree(1)
        anew(folder).put_closure([leaf, middle, a, root])
        service, _ = indexed(folder)
        new = Directory({b"again": middle.node})
        service.put(new)
        assert list(anew(folder).closure(new.digest) or ()) == [new, middle, leaf]

    def test_it_is_skipped_by_others(self, folder: Path) -> None:
        """The first frame is what it was; what follows is a frame that says it may be skipped."""
        leaf, middle, root, a = tree(1)
        indexed(folder)[0].put_closure([leaf, middle, a, root])
        (path,) = (folder / "dirs").rglob(str(root.digest))
        data = path.read_bytes()
        plain = closures.encode([root, A, middle, leaf])
        assert data.startswith(plain)
        assert data[len(plain) :][:4] == bytes.fromhex("5c2a4d18")
        assert data.endswith(b"CASDIRX1")
        payload = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
        assert payload == zstandard.ZstdDecompressor().stream_reader(plain).read()

    def test_an_index_that_is_damaged(self, folder: Path) -> None:
        """Cut or changed at each byte, it is passed over, or leads nowhere else."""
        leaf, middle, root, a = tree(1)
        indexed(folder)[0].put_closure([leaf, middle, a, root])
        (path,) = (folder / "dirs").rglob(str(root.digest))
        data = path.read_bytes()
        begin = len(closures.encode([root, A, middle, leaf]))
        for position in range(begin, len(data)):
            for damaged in (
                data[:position],
                data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :],
            ):
                path.write_bytes(damaged)
                service, _ = indexed(folder)
                assert service.get(root.digest) == root
                assert service.get(leaf.digest) in (leaf, None)
                if len(damaged) < len(data):
                    assert service.get(leaf.digest) == leaf

    def test_a_tree_that_is_damaged_is_no_absence(self, folder: Path) -> None:
        """What is in no other one may have been in that; what is, is found."""
        leaf, middle, root, a = tree(1)
        writer = anew(folder)
        writer.put_closure([leaf, middle, a, root])
        place(folder, E.digest, packed(E, D))
        service, _ = indexed(folder)
        assert service.get(leaf.digest) == leaf
        with pytest.raises(CorruptDirectoryError, match="cut short"):
            service.get(B3Digest.of(b"nobody"))
        with pytest.raises(CorruptDirectoryError, match="cut short"):
            service.missing([B3Digest.of(b"nobody")])

    def test_an_index_of_more_than_is_read_first(self, folder: Path) -> None:
        leaves = [Directory({b"%d" % number: FileNode(EMPTY, number)}) for number in range(6000)]
        root = Directory({b"%d" % number: leaf.node for number, leaf in enumerate(leaves)})
        indexed(folder)[0].put_closure([*leaves, root])
        service, requests = indexed(folder)
        assert service.get(leaves[-1].digest) == leaves[-1]
        assert requests.made.count("get_tail") == 2
        assert set(service.list_directories()) == {root.digest, *(leaf.digest for leaf in leaves)}
