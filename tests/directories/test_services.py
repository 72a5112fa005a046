"""What each service of directories promises, over all types of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from castore import (
    B3Digest,
    BlobService,
    CastoreError,
    Composition,
    CorruptDirectoryError,
    DirectoryOrderError,
    DirectorySizeError,
    MissingDirectoryError,
    UnavailableError,
    WriterClosedError,
)
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    FoundDirectories,
)
from castore.digest import EMPTY
from castore.directories.in_blobs import BlobsDirectoryService
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService
from tests.format.test_directories import COMPLICATED, WITH_KEEP, A, B, C, D, E

REFERENCE: Final = [
    Directory.decode(bytes.fromhex(entry["encoding"]))
    for entry in json.loads((Path(__file__).parents[1] / "testdata/reference/directories.json").read_text())[
        "directories"
    ]
]
"""A tree that the reference has written, root first."""


class Rows(DirectoryService):
    """A stranger's service, with the two methods that it must have."""

    def __init__(self) -> None:
        self.rows: dict[B3Digest, bytes] = {}
        self.calls: list[int] = []
        self.fault: CastoreError | None = None

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        wanted = list(digests)
        self.calls.append(len(wanted))
        return {digest: Directory.decode(self.rows[digest]) for digest in wanted if digest in self.rows}

    def put_many(self, directories: Collection[Directory]) -> None:
        self.calls.append(len(directories))
        if self.fault is not None:
            raise self.fault
        self.rows.update({directory.digest: directory.encoded for directory in directories})


class Whole(BlobService):
    """A service of blobs that keeps no chunks."""

    def __init__(self) -> None:
        self.blobs: dict[B3Digest, bytes] = {}

    def has(self, digest: B3Digest) -> bool:
        return digest in self.blobs

    def open_read(self, digest: B3Digest) -> Any:
        return BytesReader(self.blobs[digest]) if digest in self.blobs else None

    def open_write(self) -> Any:
        return SpooledWriter(lambda digest, file: self.blobs.setdefault(digest, file.read()))


def waiting() -> Whole:
    service = Whole()
    service.high_latency = True
    return service


def composed(tables: dict[str, Any]) -> Callable[[Path], DirectoryService]:
    def build(folder: Path) -> DirectoryService:
        return Composition.from_mapping(tables, base=folder).directories()

    return build


STORE: Final = {"type": "objectstore", "object_store_url": "file:./store", "durability": "process"}

SERVICES: Final[dict[str, Callable[[Path], DirectoryService]]] = {
    "memory": composed({"blobservices": {"root": STORE}, "directoryservices": {"root": {"type": "memory"}}}),
    "memory with a bound": lambda _: MemoryDirectoryService(1 << 20),
    "blobs": composed(
        {
            "blobservices": {"root": {"type": "memory"}, "store": STORE},
            "directoryservices": {"root": {"type": "blobs", "blobs": "&store"}},
        }
    ),
    "objectstore": composed(
        {
            "blobservices": {"root": {"type": "memory"}},
            "directoryservices": {"root": {**STORE, "object_store_url": "file:./trees"}},
        }
    ),
    "sqlite": composed(
        {
            "blobservices": {"root": {"type": "memory"}},
            "directoryservices": {"root": {"type": "sqlite", "path": "d.sqlite", "durability": "process"}},
        }
    ),
    "sqlite, in the file of blobs": composed(
        {
            "blobservices": {"root": {"type": "sqlite", "path": "b.sqlite"}},
            "directoryservices": {"root": {"type": "sqlite", "path": "b.sqlite"}},
        }
    ),
    "none declared": composed({"blobservices": {"root": {"type": "sqlite", "path": "b.sqlite"}}}),
    "in blobs of no chunks": lambda _: BlobsDirectoryService(Whole()),
    "in blobs that wait": lambda _: BlobsDirectoryService(waiting()),
    "a stranger's": lambda _: Rows(),
}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DirectoryService]:
    with SERVICES[request.param](tmp_path) as service:
        yield service


def leaves_first(directories: Iterable[Directory]) -> list[Directory]:
    """Order the directories of a tree so that each comes after those within it."""
    known = {directory.digest: directory for directory in directories}
    done: dict[B3Digest, Directory] = {}

    def visit(directory: Directory) -> None:
        for _, node in directory.directories:
            visit(known[node.digest])
        done.setdefault(directory.digest, directory)

    for directory in known.values():
        visit(directory)
    return list(done.values())


def raises_at_the_end(service: DirectoryService, directory: Directory, graft: DirectoryNode) -> Any:
    """Write a directory over a graft; return the error that comes with it or with the end."""
    writer = service.open_write()
    with pytest.raises(CastoreError) as caught:  # noqa: PT012 - either of them may raise it
        writer.graft(graft)
        writer.put(directory)
        writer.close()
    with pytest.raises(WriterClosedError):
        writer.close()
    return caught.value


class TestReadingAndWriting:
    def test_what_is_absent(self, service: DirectoryService) -> None:
        assert service.get(B.digest) is None
        assert not service.has(B.digest)
        assert service.closure(B.digest) is None
        assert service.get_many([B.digest, C.digest]) == {}
        assert service.missing({B.digest, C.digest}) == {B.digest, C.digest}

    def test_one_directory(self, service: DirectoryService) -> None:
        assert service.put(WITH_KEEP) == WITH_KEEP.digest
        assert service.get(WITH_KEEP.digest) == WITH_KEEP
        assert list(service.closure(WITH_KEEP.digest) or ()) == [WITH_KEEP]

    def test_the_empty_directory(self, service: DirectoryService) -> None:
        assert service.put(A) == EMPTY
        assert service.has(EMPTY)
        assert list(service.closure(EMPTY) or ()) == [A]

    @pytest.mark.parametrize("order", [[A, C], [A, A, C], [A, B, D, E], [WITH_KEEP, COMPLICATED]])
    def test_a_tree(self, service: DirectoryService, order: list[Directory]) -> None:
        root = service.put_closure(order)
        assert root == order[-1].digest
        found = list(service.closure(root) or ())
        assert found[0] == order[-1]
        assert len(found) == len(set(found)) == len(set(order))
        assert set(found) == set(order)

    def test_the_order_is_that_of_the_levels(self, service: DirectoryService) -> None:
        """Each level in the order of names, as the reference streams it."""
        root = service.put_closure(leaves_first(REFERENCE))
        assert list(service.closure(root) or ()) == REFERENCE
        for directory in REFERENCE:
            assert service.get(directory.digest) == directory

    def test_an_entry_of_the_other_rule(self, service: DirectoryService) -> None:
        """It stays as it is."""
        root = Directory({b"b": DirectoryNode(B.digest, 1)})
        assert service.put_closure([A, B, root]) == root.digest
        assert list(service.closure(root.digest) or ()) == [root, B, A]

    @pytest.mark.parametrize(
        ("order", "error"),
        [
            ([], DirectoryOrderError),
            ([A, C, B], DirectoryOrderError),
            ([B], DirectoryOrderError),
            ([A, Directory({b"foo": DirectoryNode(A.digest, 42)})], DirectorySizeError),
        ],
    )
    def test_what_is_no_tree(
        self, service: DirectoryService, order: list[Directory], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            service.put_closure(order)
        assert service.missing([B.digest, C.digest]) == {B.digest, C.digest}


class TestWriters:
    def test_closing_again(self, service: DirectoryService) -> None:
        writer = service.open_write()
        writer.put(A)
        assert writer.close() == writer.close() == EMPTY
        with pytest.raises(WriterClosedError):
            writer.put(B)

    def test_an_exception_aborts(self, service: DirectoryService) -> None:
        writer = service.open_write()

        def fail() -> None:
            with writer:
                writer.put(WITH_KEEP)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with pytest.raises(WriterClosedError):
            writer.close()
        assert service.get(WITH_KEEP.digest) is None

    def test_a_graft(self, service: DirectoryService) -> None:
        """What is there already need not be sent again."""
        service.put_closure([A, B, D])
        with service.open_write() as writer:
            writer.graft(D.node)
            writer.put(E)
        assert list(service.closure(E.digest) or ()) == [E, D, A, B]

    def test_a_graft_alone(self, service: DirectoryService) -> None:
        service.put(WITH_KEEP)
        writer = service.open_write()
        writer.graft(WITH_KEEP.node)
        assert writer.close() == WITH_KEEP.digest

    def test_a_graft_that_is_not_there(self, service: DirectoryService) -> None:
        error = raises_at_the_end(service, E, D.node)
        assert isinstance(error, MissingDirectoryError)
        assert error.expected == D.digest
        assert service.get(E.digest) is None

    def test_a_graft_of_another_size(self, service: DirectoryService) -> None:
        service.put_closure([A, B, D])
        writer = service.open_write()
        writer.graft(DirectoryNode(D.digest, 5))
        with pytest.raises(DirectorySizeError):
            writer.put(E)
        writer.abort()


def test_capabilities() -> None:
    for service, known in [
        (MemoryDirectoryService(), {AnyDirectory, Complete, DirectoryLister}),
        (MemoryDirectoryService(10), {AnyDirectory, DirectoryLister}),
        (BlobsDirectoryService(Whole()), {AnyDirectory}),
    ]:
        kinds = {AnyDirectory, Complete, DirectoryLister}
        assert {kind for kind in kinds if service.capability(kind) is not None} == known


def test_memory_lists_what_it_has() -> None:
    service = MemoryDirectoryService()
    service.put_closure([A, B, D])
    assert set(service.list_directories()) == {A.digest, B.digest, D.digest}


def test_memory_refuses_what_lacks_a_child() -> None:
    service = MemoryDirectoryService()
    with pytest.raises(MissingDirectoryError) as caught:
        service.put_many([D, B])
    assert (caught.value.expected, caught.value.path) == (EMPTY, b"a")
    assert set(service.list_directories()) == set()


def test_a_bound_in_memory() -> None:
    """Those go that were not asked for longest."""
    files = [Directory({b"%d" % number: FileNode(EMPTY, number)}) for number in range(10)]
    size = len(files[1].encoded)
    service = MemoryDirectoryService(size * 3)
    service.put_many(files[:3])
    assert service.has(files[0].digest)
    assert service.get(files[0].digest) is not None
    service.put_many([files[3]])
    assert service.missing(each.digest for each in files) == {each.digest for each in [files[1], *files[4:]]}


class TestDamage:
    """Of a directory below the root."""

    @pytest.fixture
    def rows(self) -> Rows:
        rows = Rows()
        rows.put_closure([A, B, D, E])
        return rows

    def test_a_directory_that_is_gone(self, rows: Rows) -> None:
        """It ends a tree with an error that says where it is, and never a shorter tree."""
        del rows.rows[B.digest]
        found = rows.closure(E.digest)
        assert found is not None
        assert [next(found), next(found), next(found)] == [E, D, A]
        with pytest.raises(MissingDirectoryError) as caught:
            next(found)
        assert (caught.value.expected, caught.value.path) == (B.digest, b"d/b")

    def test_another_directory_in_its_place(self, rows: Rows) -> None:
        rows.rows[B.digest] = C.encoded
        with pytest.raises(CorruptDirectoryError):
            list(rows.closure(E.digest) or ())

    def test_an_entry_with_a_wrong_size(self, rows: Rows) -> None:
        wrong = Directory({b"d": DirectoryNode(D.digest, 42)})
        rows.rows[wrong.digest] = wrong.encoded
        with pytest.raises(DirectorySizeError, match="42"):
            list(rows.closure(wrong.digest) or ())

    @pytest.mark.parametrize("data", [b"no directory", b"\x0a", b"x" * 5_000_000])
    def test_a_blob_that_is_no_directory(self, data: bytes) -> None:
        """Each is an error in its place, beside those that can be read."""
        blobs = MemoryBlobService()
        service = BlobsDirectoryService(blobs)
        service.put(WITH_KEEP)
        digest = blobs.write(data)
        found = service.get_many([digest, WITH_KEEP.digest, B.digest])
        assert found.keys() == {digest, WITH_KEEP.digest}
        assert found[WITH_KEEP.digest] == WITH_KEEP
        assert isinstance(found[digest], CorruptDirectoryError)
        with pytest.raises(CorruptDirectoryError):
            service.get(digest)

    def test_a_blob_that_is_far_too_large(self) -> None:
        """It is not read."""
        blobs = MemoryBlobService()
        digest = blobs.write(bytes(17 << 20))
        with pytest.raises(CorruptDirectoryError, match="17825792 bytes"):
            BlobsDirectoryService(blobs).get(digest)

    def test_a_write_that_fails(self, rows: Rows) -> None:
        """The writer has failed: that what comes later succeeds does not make the tree whole."""
        rows.fault = UnavailableError("rows", "down")
        writer = rows.open_write()
        writer.put(WITH_KEEP)
        with pytest.raises(UnavailableError):
            writer.close()
        rows.fault = None
        with pytest.raises(WriterClosedError):
            writer.close()

    def test_a_graft_of_which_something_is_gone(self, rows: Rows) -> None:
        """Where a service says not that its trees are whole, they are looked through."""
        del rows.rows[B.digest]
        error = raises_at_the_end(rows, E, D.node)
        assert isinstance(error, MissingDirectoryError)
        assert error.expected == B.digest


def test_calls_are_for_many() -> None:
    """One for each level of a tree, and one for all that is put."""
    rows = Rows()
    leaves = [Directory({b"%03d" % number: FileNode(EMPTY, number)}) for number in range(200)]
    root = Directory({b"%03d" % number: leaf.node for number, leaf in enumerate(leaves)})
    rows.put_closure([*leaves, root])
    assert rows.calls == [201]
    rows.calls.clear()
    assert len(list(rows.closure(root.digest) or ())) == 201
    assert rows.calls == [1, 200]
