"""The parts of a mount, without FUSE: readers that are kept, trees, refs, mount points, attributes."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import B3Digest, UnavailableError
from castore.access.mount import points
from castore.access.mount.attributes import Attributes, inode
from castore.access.mount.points import MountError, MountPoint, end, prepare, resolved
from castore.access.mount.readers import KeptReaders
from castore.access.mount.refs import LASTING, MountedRefs
from castore.access.mount.trees import FolderOfNames, MountedTree, Stores
from castore.contract.directories import DirectoryService
from castore.contract.refs import NamedRoot
from castore.directories.in_blobs import BlobsDirectoryService
from castore.errors import CorruptBlobError, MissingDirectoryError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, SymlinkNode, SymlinkTarget, TreePath
from castore.trees.metadata import EntryMetadata


class CountingBlobs(castore.BlobService):
    """Blobs in memory; each reader that is opened is remembered."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {B3Digest.of(each): each for each in contents}
        self.opened: list[Any] = []

    def has(self, digest):
        return digest in self.contents

    def open_read(self, digest):
        from castore.streams.readers import BytesReader  # noqa: PLC0415

        if digest not in self.contents:
            return None
        self.opened.append(BytesReader(self.contents[digest]))
        return self.opened[-1]

    def open_write(self):
        raise NotImplementedError


def node_of(data: bytes) -> FileNode:
    return FileNode(B3Digest.of(data), len(data))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


# -- readers --


def read(readers: KeptReaders, node: FileNode, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    count = readers.read_into(node, offset, memoryview(buffer))
    return bytes(buffer[:count])


def test_the_next_read_goes_on_in_the_reader_of_the_one_before():
    """Wherever it is."""
    data = bytes(range(256)) * 16
    blobs = CountingBlobs(data)
    readers = KeptReaders(lambda: blobs)
    for offset in (0, 100, 3000, 10, 4000):
        assert read(readers, node_of(data), offset, 100) == data[offset : offset + 100]
    assert len(blobs.opened) == len(readers) == 1
    assert read(readers, node_of(data), 4090, 100) == data[4090:]
    assert read(readers, node_of(data), 5000, 100) == b""
    readers.close()
    assert blobs.opened[0].closed


def test_of_two_readers_the_nearer_one_is_taken():
    """Two programs that read one file in order do not take each other's."""
    data = bytes(range(256)) * 16
    blobs = CountingBlobs(data)
    readers = KeptReaders(lambda: blobs)
    node = node_of(data)
    first, second = (blobs.open_read(node.digest) for _ in range(2))
    assert readers._keep(node.digest, first, 100)
    assert readers._keep(node.digest, second, 3000)
    for offset in (3100, 200, 3200, 300):
        assert read(readers, node, offset, 50) == data[offset : offset + 50]
    assert (first.tell(), second.tell(), len(blobs.opened)) == (350, 3250, 2)
    readers.close()


def test_what_one_read_has_is_not_kept():
    """The kernel has it from then on."""
    blobs = CountingBlobs(b"small")
    readers = KeptReaders(lambda: blobs)
    assert read(readers, node_of(b"small"), 0, 4096) == b"small"
    assert (len(readers), blobs.opened[0].closed) == (0, True)


def test_no_more_are_kept_than_a_bound_and_none_for_ever():
    """The one goes that was not used for longest; after ten seconds each does."""
    contents = [b"%03d" % number * 10 for number in range(40)]
    blobs, clock = CountingBlobs(*contents), Clock()
    readers = KeptReaders(lambda: blobs, now=clock)
    for data in contents:
        read(readers, node_of(data), 0, 5)
    assert len(readers) == 32
    assert [each.closed for each in blobs.opened] == [True] * 8 + [False] * 32
    clock.now += 11
    ends = time.monotonic() + 30
    while len(readers):
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert all(each.closed for each in blobs.opened)


def test_what_was_closed_keeps_nothing():
    """A read that is late closes its reader."""
    data = b"something long"
    blobs = CountingBlobs(data)
    readers = KeptReaders(lambda: blobs)
    readers.close()
    assert read(readers, node_of(data), 0, 4) == b"some"
    assert blobs.opened[0].closed


@pytest.mark.parametrize("size", [3, 5])
def test_a_file_of_another_size_than_its_entry_says_is_corrupt(size):
    """Zeros that nobody has written, or an end too early, would be taken for the file."""
    blobs = CountingBlobs(b"four")
    with pytest.raises(CorruptBlobError, match="has 4 bytes"):
        read(KeptReaders(lambda: blobs), FileNode(B3Digest.of(b"four"), size), 0, 10)
    assert blobs.opened[0].closed


# -- reading ahead --


def stores_over(*contents: bytes) -> tuple[CountingBlobs, Stores]:
    blobs = CountingBlobs(*contents)
    return blobs, Stores(blobs, BlobsDirectoryService(blobs), 30)


def lent(stores: Stores, node: FileNode, offset: int, size: int) -> bytes:
    with stores.reading(node, offset, size) as view:
        return bytes(view)


def test_of_what_is_read_in_order_the_next_part_is_read_meanwhile():
    """From the second part on; a part may be asked for that is smaller, or larger, than that."""
    data = bytes(range(256)) * 100
    blobs, stores = stores_over(data)
    node = node_of(data)
    assert lent(stores, node, 0, 1000) == data[:1000]
    assert not stores._ahead
    assert lent(stores, node, 1000, 1000) == data[1000:2000]
    assert set(stores._ahead) == {(node.digest, 2000)}
    assert lent(stores, node, 2000, 500) == data[2000:2500]
    assert lent(stores, node, 2500, 4000) == data[2500:6500]
    assert lent(stores, node, 6500, 5000) == data[6500:11500]
    for offset in range(11500, len(data), 1000):
        assert lent(stores, node, offset, 1000) == data[offset : offset + 1000]
    assert not stores._ahead
    assert len(blobs.opened) <= 3
    stores.close()


def test_reads_here_and_there_read_nothing_ahead():
    data = bytes(range(256)) * 100
    _, stores = stores_over(data)
    for offset in (5000, 100, 9000, 0, 20000):
        assert lent(stores, node_of(data), offset, 100) == data[offset : offset + 100]
    assert not stores._ahead
    stores.close()


def test_what_is_read_ahead_has_a_bound():
    """Of many files that nobody goes on with only the last parts are held."""
    contents = [bytes([number]) * 5000 for number in range(20)]
    _, stores = stores_over(*contents)
    for data in contents:
        for offset in (0, 1000):
            assert lent(stores, node_of(data), offset, 1000) == data[:1000]
    assert len(stores._ahead) == 4
    assert len(stores._buffers) <= 16
    stores.close()


def test_an_error_ahead_is_that_of_who_asks_for_the_part():
    """And not that of the part before."""
    data = bytes(range(256)) * 100
    blobs, stores = stores_over(data)
    node = node_of(data)
    lent(stores, node, 0, 1000)
    for reader in blobs.opened:
        piece_at = reader.piece_at
        reader.piece_at = lambda position, piece_at=piece_at: (
            piece_at(position)[: 2000 - position] if position < 2000 else damaged()
        )
    assert lent(stores, node, 1000, 1000) == data[1000:2000]
    with pytest.raises(CorruptBlobError, match="damaged"):
        lent(stores, node, 2000, 1000)
    stores.close()


def damaged() -> memoryview:
    raise CorruptBlobError("it is damaged", expected=B3Digest(bytes(32)))


# -- trees --


class CountingDirectories(DirectoryService):
    """Directories in memory; each call is remembered."""

    def __init__(self, directories: list[Directory]) -> None:
        self.directories = {each.digest: each for each in directories}
        self.calls: list[int] = []

    def get_many(self, digests, *, within=None):
        wanted = list(digests)
        self.calls.append(len(wanted))
        return {each: self.directories[each] for each in wanted if each in self.directories}

    def put_many(self, directories):
        raise NotImplementedError


def stores_of(directories: DirectoryService, seconds: float = 30) -> Stores:
    return Stores(CountingBlobs(), directories, seconds)


def wide(count: int) -> tuple[CountingDirectories, MountedTree]:
    """A folder `all` with many folders, each with a file."""
    leaves = [Directory({b"file": FileNode(B3Digest.of(b"%d" % number), 1)}) for number in range(count)]
    holder = Directory({b"%05d" % number: leaf.node for number, leaf in enumerate(leaves)})
    root = Directory({b"all": holder.node, b"link": SymlinkNode(SymlinkTarget(b"all"))})
    service = CountingDirectories([root, holder, *leaves])
    return service, MountedTree(stores_of(service), root.node)


def test_who_goes_through_a_folder_has_many_directories_with_one_call():
    """But who looks at one of them pays for one."""
    service, tree = wide(1000)
    assert tree.node("all/00500/file").size == 1
    assert service.calls == [1, 1, 1]
    for number in range(1000):
        assert tree.node(f"all/{number:05}/file")
    assert len(service.calls) < 15
    assert sum(service.calls) <= 1002


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nothing", FileNotFoundError),
        ("all/nothing/below", FileNotFoundError),
        ("link/00000", NotADirectoryError),
        ("all/00000/file/below", NotADirectoryError),
    ],
)
def test_what_is_not_there_is_told_as_a_system_tells_it(path, error):
    _, tree = wide(3)
    with pytest.raises(error):
        tree.node(path)


def test_a_directory_that_is_missing_is_no_absence():
    service, tree = wide(3)
    service.directories.popitem()
    with pytest.raises(MissingDirectoryError, match="all/00002"):
        tree.node("all/00002/file")


def test_after_one_call_that_took_too_long_others_have_less_time():
    """Until one is answered: a store that is dead costs the deadline once, and not once for each file."""
    service, tree = wide(3)
    hanging = threading.Event()
    get_many = service.get_many

    def hang(digests, *, within=None):
        hanging.wait(60)
        return get_many(digests, within=within)

    service.get_many = hang
    stores = tree._stores
    stores._seconds = 0.05
    with pytest.raises(UnavailableError, match="no answer within 0"):
        tree.node("all")
    assert stores._suspected_until > time.monotonic() - 1
    service.get_many = get_many
    stores._seconds = 30
    assert tree.node("all/00001/file")
    assert stores._suspected_until == 0
    hanging.set()
    stores.close()


# -- refs --


@pytest.fixture
def refs(tmp_path):
    """Refs of a store, the clock of the mount, what is mounted, and two trees."""
    with castore.from_url(f"objectstore+file:{tmp_path}/store") as blobs:
        from castore.contract.refs import RefService  # noqa: PLC0415

        directories = BlobsDirectoryService(blobs)
        roots = []
        for name in (b"one", b"two"):
            directory = Directory({name: node_of(name), b"same": node_of(b"x")})
            directories.put(directory)
            roots.append(directory.node)
        service, clock = blobs.capability(RefService), Clock()
        stores = stores_of(directories)
        yield service, clock, MountedRefs(stores, service, clock), roots
        stores.close()


def names(mounted: MountedRefs, path: str = "") -> list[str]:
    folder = mounted.find(path).node
    assert isinstance(folder, FolderOfNames)
    return [each.decode() for each in folder.entries]


def test_names_of_refs_are_folders(refs):
    """Those below the name of a ref are in a folder with `@`; `latest` leads to the newest snapshot."""
    service, _, mounted, (one, _) = refs
    for name in ("www", "www/2026-11-30T14-05-00Z", "www/2026-12-01T00-00-00Z-2", "a/b/c", "a/b", "a/x"):
        service.set(name, NamedRoot(one))
    assert names(mounted) == ["a", "www", "www@"]
    assert names(mounted, "a") == ["b", "b@", "x"]
    assert names(mounted, "a/b@") == ["c"]
    assert names(mounted, "www@") == ["2026-11-30T14-05-00Z", "2026-12-01T00-00-00Z-2", "latest"]
    assert mounted.find("www@/latest").node == SymlinkNode(SymlinkTarget(b"2026-12-01T00-00-00Z-2"))
    assert mounted.find("a/b@/c/one").node == node_of(b"one")
    assert mounted.find("www/one").ref == "www"
    for path in ("b", "a/c", "a@", "a/x@", "www/two", "a/latest", "www@/latest/x"):
        with pytest.raises(FileNotFoundError):
            mounted.find(path)


def test_a_ref_moves_on_when_it_is_not_in_use(refs):
    """And what the kernel has of its files is not right then."""
    service, clock, mounted, (one, two) = refs
    service.set("www", NamedRoot(one))
    found = mounted.find("www/one")
    assert mounted.open(found)
    assert mounted.open(found)
    service.set("www", NamedRoot(two))
    clock.now += LASTING
    mounted.release("www")
    assert mounted.find("www/one").node == node_of(b"one")
    mounted.release("www")
    assert mounted.find("www/two").node == node_of(b"two")
    assert not mounted.open(mounted.find("www/two"))
    mounted.release("www")
    service.delete("www")
    clock.now += LASTING
    with pytest.raises(FileNotFoundError):
        mounted.find("www")


def test_refs_are_looked_up_anew_after_a_second_and_many_with_one_call(refs):
    service, clock, mounted, (one, two) = refs
    for number in range(20):
        service.set(f"r{number:02}", NamedRoot(one))
    assert len(names(mounted)) == 20
    service.set("new", NamedRoot(two))
    calls = []
    get_many = service.get_many
    service.get_many = lambda wanted: calls.append(len(wanted)) or get_many(wanted)
    assert "new" not in names(mounted)
    clock.now += LASTING
    assert "new" in names(mounted)
    assert calls == [21]


def test_a_ref_may_be_of_a_file(refs):
    service, _, mounted, _ = refs
    service.set("file", NamedRoot(node_of(b"x")))
    assert mounted.find("file").node == node_of(b"x")
    with pytest.raises(FileNotFoundError):
        mounted.find("file/below")


# -- mount points --


def test_lines_of_the_kernel_are_read_with_all_that_may_be_in_them(monkeypatch):
    """Names with spaces, and bytes that are no UTF-8; fields that may be there or not."""
    lines = (
        b"36 35 98:0 / /mnt/a\\040b\\134c\xff rw shared:1 master:2 - fuse.castore castore:x\\040y"
        b" ro,user_id=7\n"
        b"37 35 0:53 / / rw - ext4 /dev/sda1 rw\n"
    )
    monkeypatch.setattr(Path, "read_bytes", lambda _: lines)
    assert points.mount_points() == [
        MountPoint("/mnt/a b\\c\udcff", "fuse.castore", "castore:x y", "98:0", 7),
        MountPoint("/", "ext4", "/dev/sda1", "0:53"),
    ]


def test_a_folder_is_found_through_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolved(tmp_path / "link") == os.path.realpath(tmp_path / "real")
    assert prepare(tmp_path / "link") == (os.path.realpath(tmp_path / "real"), False)


def test_what_is_below_a_mount_is_no_mount(tmp_path, monkeypatch):
    """It says which one it is in."""
    (tmp_path / "in").mkdir()
    there = MountPoint(os.path.realpath(tmp_path), "fuse.castore", "castore:x", "0:1", 0)
    monkeypatch.setattr(points, "mount_points", lambda: [there])
    with pytest.raises(MountError, match="in which it is"):
        end(tmp_path / "in")


def test_what_another_user_has_mounted_is_left(tmp_path, monkeypatch):
    """Even if it is dead."""
    there = MountPoint(os.path.realpath(tmp_path), "fuse.castore", "castore:x", "0:1", os.geteuid() + 1)
    monkeypatch.setattr(points, "mount_points", lambda: [there])
    monkeypatch.setattr(MountPoint, "is_dead", True)
    with pytest.raises(MountError, match="already"):
        prepare(tmp_path)


# -- attributes --


def test_numbers_of_files():
    """Equal files share one, but for the right to execute; folders do not."""
    file, program = FileNode(B3Digest.of(b"x"), 1), FileNode(B3Digest.of(b"x"), 1, executable=True)
    folder = DirectoryNode(B3Digest.of(b""), 0)
    assert inode(file, "a") == inode(file, "b") != inode(program, "a")
    assert inode(folder, "a") != inode(folder, "b")
    assert inode(FolderOfNames("a", {}), "a") != inode(folder, "a")
    assert inode(FileNode(B3Digest(bytes(32)), 0), "a") == 2
    assert Attributes().status(folder, "")["st_ino"] == 1


@pytest.mark.parametrize(
    ("aspects", "mode", "mtime", "uid", "colour"),
    [
        (set(), 0o444, 10**9, os.getuid(), None),
        ({"mode"}, 0o640, 10**9, os.getuid(), None),
        ({"times"}, 0o444, 5, os.getuid(), None),
        ({"owner"}, 0o444, 10**9, 77, None),
        ({"xattrs"}, 0o444, 10**9, os.getuid(), b"blue"),
    ],
)
def test_metadata_say_what_is_asked_of_them(aspects, mode, mtime, uid, colour):
    """Of the part of the tree that is mounted."""
    entry = EntryMetadata(
        TreePath.parse("top/file"), "file", mode=0o640, uid=77, time=5, xattrs={b"user.colour": b"blue"}
    )
    attributes = Attributes([entry], frozenset(aspects), TreePath.parse("top"))
    node = node_of(b"x")
    status = attributes.status(node, "file")
    assert (stat.S_IMODE(status["st_mode"]), status["st_mtime"], status["st_uid"]) == (mode, mtime, uid)
    assert attributes.xattrs(node, "file").get("user.colour") == colour
    assert stat.S_IMODE(attributes.status(node, "other")["st_mode"]) == 0o444
