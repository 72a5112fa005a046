"""What a verification of trees finds, and what a repair makes of it."""

from __future__ import annotations

import random
import sqlite3
import tracemalloc
from collections import Counter
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from castore import B3Digest, Composition, UnavailableError
from castore.contract.capabilities import ChunkSource
from castore.digest import EMPTY
from castore.directories.in_blobs import BlobsDirectoryService
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, SymlinkNode, TreePath
from castore.threads.pool import Pool
from castore.trees.importing import import_tree
from castore.trees.naming import directories_of
from castore.upkeep import TreeDonor, TreeRoot, TreeVerification, repair_trees, verify_trees
from castore.wrapping.wrapper import WrapperService
from castore_memory.directories import MemoryDirectoryService
from castore_memory.service import MemoryBlobService

LARGE = random.Random(16).randbytes(2_500_000)
"""Of several chunks."""

STORE = {"type": "objectstore", "object_store_url": "file:./NAME", "durability": "process"}
KINDS = {
    "blobs": None,
    "sqlite": {"type": "sqlite", "path": "NAME-directories.db"},
    "objectstore": {"type": "objectstore", "object_store_url": "file:./NAME-trees"},
}


@attrs.frozen
class Kept:
    """A tree in two stores, `root` and `spare`; what is damaged is the first one."""

    folder: Path
    stores: Composition
    root: B3Digest

    def verify(self, *, read=False):
        return verify_trees([TreeRoot("www", self.root)], *self.services("root"), read=read, pool=Pool(0))

    def services(self, name):
        return directories_of(self.stores, name), self.stores.blobs(name)

    def repair(self, *, read=False):
        directories, blobs = self.services("root")
        donor, donor_blobs = self.services("spare")
        check = TreeVerification(directories, blobs, read=read, pool=Pool(0), donor=donor)
        findings = list(check.run([TreeRoot("www", self.root)]))
        source = TreeDonor("`spare`", donor_blobs, check.donated)
        return list(repair_trees(directories, blobs, findings, source))

    def objects(self):
        return sorted(path for path in (self.folder / "root").rglob("*") if path.is_file())

    def object(self, top, data):
        (found,) = self.folder.glob(f"root/{top}/b3/*/{B3Digest.of(data).hex()}")
        return found

    def opened_anew(self):
        """The same without anything that was read before."""
        self.stores.close()
        return attrs.evolve(self, stores=Composition.from_toml(self.folder / "composition.toml"))


def tables(kind):
    rows = []
    for name in ("root", "spare"):
        for section, options in (("blobservices", STORE), ("directoryservices", KINDS[kind])):
            if options is not None:
                rows.append(f"[{section}.{name}]")
                rows += [f"{key} = {value.replace('NAME', name)!r}" for key, value in options.items()]
    return "\n".join(rows)


@pytest.fixture
def make_kept(tmp_path):
    made = []

    def make(kind="blobs"):
        folder = tmp_path / "www"
        (folder / "docs/deep").mkdir(parents=True)
        (folder / "docs/deep/x").write_bytes(b"x")
        (folder / "docs/a.txt").write_bytes(b"first")
        (folder / "again").mkdir()
        (folder / "again/a.txt").write_bytes(b"first")
        (folder / "empty").touch()
        (folder / "nothing").mkdir()
        (folder / "large").write_bytes(LARGE)
        (folder / "link").symlink_to("large")
        (tmp_path / "composition.toml").write_text(tables(kind))
        stores = Composition.from_toml(tmp_path / "composition.toml")
        made.append(stores)
        for name in ("root", "spare"):
            done = import_tree(folder, stores.blobs(name), directories_of(stores, name))
        return Kept(tmp_path, stores, done.node.digest)

    yield make
    for stores in made:
        stores.close()


def said(findings):
    return {(each.what, str(each.path), each.code) for each in findings}


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_tree(make_kept, kind, read):
    report = make_kept(kind).verify(read=read)
    assert report.ok
    tally = report.tally
    assert (tally.directories, tally.files, tally.rule) == (5, 5, "snix")
    # What is a single chunk is read in any case, the same blob once.
    assert tally.bytes == (len(LARGE) + 6 if read else 6)


def encoded(kept, path):
    directories = kept.services("root")[0]
    directory = directories.get(kept.root)
    for name in TreePath.parse(path):
        directory = directories.get_many([directory[name].digest], within=kept.root)[directory[name].digest]
    return directory.encoded


def largest_chunk(kept):
    return max(kept.folder.glob("root/chunks/b3/*/*"), key=lambda path: path.stat().st_size)


DAMAGE = {
    "a directory that is gone": (
        lambda kept: [kept.object(top, encoded(kept, "docs")) for top in ("blobs", "chunks")],
        "remove",
        {("directory", "docs", "missing-directory")},
    ),
    "a directory of other bytes": (
        lambda kept: [kept.object("chunks", encoded(kept, "docs"))],
        "spoil",
        {("directory", "docs", "corrupt-directory")},
    ),
    "the root": (
        lambda kept: [kept.object(top, encoded(kept, "")) for top in ("blobs", "chunks")],
        "remove",
        {("directory", "", "missing-directory")},
    ),
    "a file that is there twice": (
        lambda kept: [kept.object(top, b"first") for top in ("blobs", "chunks")],
        "remove",
        {("file", "again/a.txt", "missing-blob")},
    ),
    "a small file of other bytes": (
        lambda kept: [kept.object("chunks", b"x")],
        "spoil",
        {("file", "docs/deep/x", "bad-frame")},
    ),
    "an index": (lambda kept: [kept.object("blobs", LARGE)], "spoil", {("file", "large", "bad-index")}),
    "a blob in chunks": (
        lambda kept: [kept.object("blobs", LARGE)],
        "remove",
        {("file", "large", "missing-blob")},
    ),
    "a chunk": (lambda kept: [largest_chunk(kept)], "remove", {("file", "large", "missing-chunk")}),
}


def damage(paths, how):
    for path in paths:
        path.chmod(0o644)
        path.write_bytes(b"not this") if how == "spoil" else path.unlink()


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_and_mended(make_kept, case):
    kept = make_kept()
    paths, how, expected = DAMAGE[case]
    damage(paths(kept), how)
    assert said(kept.verify().findings) == expected
    assert said(kept.verify(read=True).findings) == expected
    mendings = kept.repair()
    assert [each.mended for each in mendings] == [True]
    assert "`spare`" in mendings[0].message
    assert kept.verify(read=True).ok


def test_a_wrong_byte_in_one_of_many_chunks_is_found_when_it_is_read(make_kept):
    kept = make_kept()
    damage([largest_chunk(kept)], "spoil")
    assert kept.verify().ok
    assert said(kept.verify(read=True).findings) == {("file", "large", "bad-frame")}
    (mending,) = kept.repair(read=True)
    assert mending.mended
    assert mending.quarantine is not None
    assert kept.verify(read=True).ok


@pytest.mark.parametrize("how", ["remove", "spoil"])
def test_no_object_is_passed_over(make_kept, how):
    """Whatever is damaged of what a reader needs, it is found, has a path, and can be mended."""
    kept = make_kept()
    passed_over = set()
    for path in kept.objects():
        before = path.read_bytes()
        damage([path], how)
        findings = kept.verify(read=True).findings
        if findings:
            assert all(each.root == "www" and each.path is not None for each in findings), path
            assert [each.message for each in kept.repair(read=True) if not each.mended] == [], path
            assert kept.verify(read=True).ok, path
        else:
            passed_over.add(path.relative_to(kept.folder / "root").parts[0])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(before)
    # The index of a blob that is one chunk is not needed to read it.
    assert passed_over <= {"blobs"}


def lose_a_row(kept):
    with closing(sqlite3.connect(kept.folder / "root-directories.db")) as database, database:
        docs = bytes(B3Digest.of(encoded(kept, "docs")))
        assert database.execute("DELETE FROM directories WHERE digest = ?", (docs,)).rowcount == 1


def lose_the_object(kept):
    (tree,) = kept.folder.glob("root-trees/dirs/b3/*/*")
    tree.unlink()


@pytest.mark.parametrize(
    ("kind", "lose", "path"), [("sqlite", lose_a_row, "docs"), ("objectstore", lose_the_object, "")]
)
def test_directories_are_mended_wherever_they_are_kept(make_kept, kind, lose, path):
    kept = make_kept(kind)
    lose(kept)
    kept = kept.opened_anew()
    with kept.stores:
        assert said(kept.verify().findings) == {("directory", path, "missing-directory")}
        assert {(each.mended, each.message) for each in kept.repair()} == {(True, "fetched from `spare`")}
        assert kept.verify(read=True).ok


def test_a_tree_that_is_cut_short_is_corrupt(make_kept):
    kept = make_kept("objectstore")
    (tree,) = kept.folder.glob("root-trees/dirs/b3/*/*")
    tree.chmod(0o644)
    tree.write_bytes(tree.read_bytes()[:-3])
    kept = kept.opened_anew()
    with kept.stores:
        assert said(kept.verify().findings) == {("directory", "", "corrupt-directory")}
        # The object is in the way of another one, and nothing here can set it aside.
        found = {(each.mended, each.message.partition(":")[0]) for each in kept.repair()}
        assert found == {(False, "it is still not right after it was put")}


def test_what_nobody_has_is_not_mended(make_kept):
    kept = make_kept()
    gone = {"root": (b"x", encoded(kept, "again")), "spare": (b"x",)}
    for name, all_data in gone.items():
        for data in all_data:
            for path in kept.folder.glob(f"{name}/*/b3/*/{B3Digest.of(data).hex()}"):
                path.unlink()
    done = {str(each.finding.path): each for each in kept.repair()}
    assert (done["docs/deep/x"].mended, done["again"].mended) == (False, True)
    assert done["docs/deep/x"].message == "`spare` does not have the blob"


# -- trees that say something wrong --


@pytest.fixture
def blobs():
    service = MemoryBlobService()
    service.write(b"five!")
    service.write(LARGE)
    return service


class Forged(MemoryDirectoryService):
    """Has directories that it would not take."""

    def __init__(self, *directories):
        super().__init__()
        self._directories.update({each.digest: each for each in directories})


FIVE, MANY = B3Digest.of(b"five!"), B3Digest.of(LARGE)
LEAF = Directory({b"f": FileNode(FIVE, 5), b"l": SymlinkNode(b"f")})

SAYINGS = {
    "right": ({b"d": LEAF.node}, set(), "snix"),
    "by the texts": ({b"d": DirectoryNode(LEAF.digest, 2)}, set(), "spec"),
    "both ways": ({b"d": LEAF.node, b"e": DirectoryNode(LEAF.digest, 2)}, set(), "mixed"),
    "nothing to tell by": ({b"d": DirectoryNode(EMPTY, 0)}, set(), None),
    "a directory": ({b"d": DirectoryNode(LEAF.digest, 3)}, {("directory", "d", "wrong-size")}, None),
    "one of two entries": (
        {b"d": LEAF.node, b"e": DirectoryNode(LEAF.digest, 9)},
        {("directory", "e", "wrong-size")},
        "snix",
    ),
    "a small file": ({b"f": FileNode(FIVE, 6)}, {("file", "f", "wrong-size")}, None),
    "a large file": ({b"f": FileNode(MANY, 6)}, {("file", "f", "wrong-size")}, None),
    "as large as can be": ({b"f": FileNode(FIVE, (1 << 64) - 2)}, {("file", "f", "wrong-size")}, None),
    "two files of one blob": (
        {b"e": FileNode(FIVE, 5), b"f": FileNode(FIVE, 4)},
        {("file", "f", "wrong-size")},
        None,
    ),
    "an empty file": ({b"f": FileNode(EMPTY, 1)}, {("file", "f", "wrong-size")}, None),
    "a directory that is absent": (
        {b"d": DirectoryNode(FIVE, 1)},
        {("directory", "d", "missing-directory")},
        None,
    ),
}


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("case", SAYINGS)
def test_sizes_and_their_rule(blobs, case, read):
    nodes, expected, rule = SAYINGS[case]
    root = Directory(nodes)
    directories = Forged(root, LEAF, Directory())
    report = verify_trees([TreeRoot("www", root.digest)], directories, blobs, read=read, pool=Pool(0))
    assert said(report.findings) == expected
    assert report.tally.rule == rule


def test_a_wrong_size_cannot_be_mended(blobs):
    root = Directory({b"f": FileNode(FIVE, 6)})
    directories = Forged(root)
    findings = verify_trees([TreeRoot("www", root.digest)], directories, blobs).findings
    (mending,) = repair_trees(directories, blobs, findings, TreeDonor("spare", blobs, {}))
    assert (mending.mended, mending.message) == (False, "the tree itself says so, wherever it is")


def test_a_blob_that_is_no_encoding_as_castore_writes_them(blobs):
    """It has the digest that an entry says, and is no directory all the same."""
    digest = blobs.write(LEAF.encoded + b"\x30\x01")
    directories = BlobsDirectoryService(blobs)
    root = Directory({b"d": DirectoryNode(digest, 4)})
    directories.put_many([root])
    report = verify_trees([TreeRoot("www", root.digest)], directories, blobs)
    assert said(report.findings) == {("directory", "d", "corrupt-directory")}


def test_a_service_that_gives_another_directory(blobs):
    directories = Forged()
    directories._directories[FIVE] = LEAF
    report = verify_trees([TreeRoot("www", FIVE)], directories, blobs)
    assert said(report.findings) == {("directory", "", "corrupt-directory")}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (FileNode(FIVE, 5), set()),
        (FileNode(FIVE, 4), {("file", "", "wrong-size")}),
        (FileNode(LEAF.digest, 4), {("file", "", "missing-blob")}),
        (SymlinkNode(b"anywhere"), set()),
        (LEAF.node, set()),
        (DirectoryNode(LEAF.digest, 7), {("directory", "", "wrong-size")}),
    ],
)
def test_roots_of_any_kind(blobs, node, expected):
    assert said(verify_trees([TreeRoot("www", node)], Forged(LEAF), blobs).findings) == expected


def test_the_metadata_of_a_ref(blobs):
    root = TreeRoot("www", LEAF.node, metadata=FIVE)
    assert verify_trees([root], Forged(LEAF), blobs).ok
    gone = attrs.evolve(root, metadata=LEAF.digest)
    assert said(verify_trees([gone], Forged(LEAF), blobs).findings) == {("metadata", "", "missing-blob")}


def test_paths_of_a_part_begin_at_the_root(blobs):
    below = Directory({b"x": FileNode(B3Digest.of(b"gone"), 4)})
    root = Directory({b"docs": below.node})
    part = TreeRoot("www", below.node, within=root.digest, path=TreePath((b"docs",)))
    (finding,) = verify_trees([part], Forged(root, below), blobs).findings
    assert (finding.root, str(finding.path)) == ("www", "docs/x")


def test_damage_that_two_trees_have_is_said_of_both(blobs):
    """Each by its own path, and of each once."""
    bad = Directory({b"x": FileNode(B3Digest.of(b"gone"), 4), b"f": FileNode(FIVE, 5)})
    first = Directory({b"a": bad.node, b"b": bad.node})
    second = Directory({b"c": bad.node, b"d": DirectoryNode(B3Digest.of(b"no"), 2)})
    third = Directory({b"e": LEAF.node})
    roots = [TreeRoot(name, each.digest) for name, each in zip("123", (first, second, third), strict=True)]
    report = verify_trees(roots, Forged(first, second, third, bad, LEAF), blobs)
    assert [(each.root, str(each.path), each.code) for each in report.findings] == [
        ("1", "a/x", "missing-blob"),
        ("2", "d", "missing-directory"),
        ("2", "c/x", "missing-blob"),
    ]


def test_a_tree_deeper_than_any_folder_ends(blobs):
    """What names millions of levels in a few bytes is not followed."""
    chain = [LEAF]
    for _ in range(4_200):
        chain.append(Directory({b"d": chain[-1].node}))
    report = verify_trees([TreeRoot("www", chain[-1].digest)], Forged(*chain), blobs)
    assert said(report.findings) == {("directory", "", "invalid-directory")}
    assert report.tally.directories == 4096


class Down(MemoryBlobService):
    """Does not answer."""

    def capability(self, kind):
        return None

    def chunks(self, digest):
        raise UnavailableError("down", "no answer")


def test_a_service_that_does_not_answer_ends_it():
    few = Directory({b"%02d" % number: FileNode(B3Digest.of(b"%d" % number), 1) for number in range(15)})
    report = verify_trees([TreeRoot("www", few.digest)], Forged(few), Down(), pool=Pool(0))
    assert [each.code for each in report.findings] == ["unavailable"] * 15
    (first, *_) = repair_trees(Forged(few), Down(), report.findings, TreeDonor("spare", Down(), {}))
    assert (first.mended, first.message) == (False, "it may be right: it could not be read")
    many = few.replace(b"x", FileNode(FIVE, 5)).replace(b"y", FileNode(MANY, 5))
    with pytest.raises(UnavailableError, match="no answer"):
        verify_trees([TreeRoot("www", many.digest)], Forged(many), Down(), pool=Pool(0))


# -- how much is asked, and held --


class Counting(WrapperService):
    """Counts the calls."""

    def __init__(self, inner, calls):
        super().__init__(inner)
        self.calls = calls

    def around(self, operation, call, /, *args, **kwargs):
        self.calls[str(operation)] += 1
        return call(*args, **kwargs)


class CountingDirectories(MemoryDirectoryService):
    """Counts the calls, and what they ask for."""

    def __init__(self):
        super().__init__()
        self.asked: Counter[B3Digest] = Counter()
        self.calls = 0

    def get_many(self, digests, *, within=None):
        wanted = list(digests)
        self.asked.update(wanted)
        self.calls += 1
        return super().get_many(wanted, within=within)


def test_ten_thousand_files_take_few_calls_and_little_memory():
    """Three versions of a tree: each directory is read once, and each file is looked up once."""
    blobs, directories = MemoryBlobService(), CountingDirectories()
    data = {B3Digest.of(b"%d" % number): b"%d" % number for number in range(10_000)}
    blobs.capability(ChunkSource).put_chunks(data)
    blobs.put_indexes(dict.fromkeys(data, ()))
    files = [(digest.hex().encode(), FileNode(digest, len(data[digest]))) for digest in data]
    folders = [Directory(dict(files[start : start + 100])) for start in range(0, 10_000, 100)]
    rows = [(b"%d" % number, folder.node) for number, folder in enumerate(folders)]
    versions = [Directory(dict(rows[:count])) for count in (98, 99, 100)]
    directories.put_many(folders)
    directories.put_many(versions)
    calls: Counter[str] = Counter()
    roots = [TreeRoot(str(number), each.digest) for number, each in enumerate(versions)]
    tracemalloc.start()
    try:
        report = verify_trees(roots, directories, Counting(blobs, calls), pool=Pool(0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.ok
    assert (report.tally.directories, report.tally.files) == (103, 10_000)
    assert set(directories.asked.values()) == {1}
    assert directories.calls <= 6
    assert sum(calls.values()) <= 2 * (10_000 // 256 + 4), calls
    # Some 200,000 bytes, with 100,000 files as well; a list of all files would take some MB.
    assert peak < 700_000


def test_a_blob_that_many_directories_have_is_looked_up_once():
    blobs, directories = MemoryBlobService(), MemoryDirectoryService()
    digest = blobs.write(b"again")
    folders = [Directory({b"%d" % number: FileNode(digest, 5)}) for number in range(2_000)]
    root = Directory({b"%d" % number: folder.node for number, folder in enumerate(folders)})
    directories.put_many([*folders, root])
    report = verify_trees([TreeRoot("www", root.digest)], directories, blobs, read=True, pool=Pool(0))
    assert (report.ok, report.tally.files) == (True, 2_000)
    # Those of the call that is under way do not know of each other.
    assert report.tally.bytes <= 5 * 2


class Strict(MemoryDirectoryService):
    """Takes directories from the leaves to the root, and whole trees only if it is one of those services."""

    def put_many(self, directories):
        given = []
        for each in directories:
            below = {node.digest for _, node in each.directories}
            there = set() if self.whole_trees else set(self._directories)
            assert below <= {other.digest for other in given} | there
            given.append(each)
        super().put_many(given)


@pytest.mark.parametrize("whole_trees", [False, True])
def test_directories_are_put_from_the_leaves_to_the_root(blobs, whole_trees):
    """To a service of whole trees those that are there already are given as well."""
    inner = Directory({b"leaf": LEAF.node})
    middle = Directory({b"inner": inner.node, b"leaf": LEAF.node})
    root = Directory({b"inner": inner.node, b"middle": middle.node})
    everything = Forged(root, middle, inner, LEAF)
    here = Strict()
    here.whole_trees = whole_trees
    here._directories[LEAF.digest] = LEAF
    check = TreeVerification(here, blobs, pool=Pool(0), donor=everything)
    findings = list(check.run([TreeRoot("www", root.digest)]))
    assert {str(each.path) for each in findings} == {"", "inner", "middle"}
    mendings = list(repair_trees(here, blobs, findings, TreeDonor("spare", blobs, check.donated)))
    assert [each.message for each in mendings] == ["fetched from spare"] * 3
    assert verify_trees([TreeRoot("www", root.digest)], here, blobs).ok


class Portioned(Forged):
    """Takes note of how many entries it gives with one call."""

    def __init__(self, *directories):
        super().__init__(*directories)
        self.given = []

    def get_many(self, digests, *, within=None):
        found = super().get_many(digests, within=within)
        self.given.append(sum(len(each) for each in found.values()))
        return found


def test_large_directories_are_read_some_at_a_time(blobs, monkeypatch):
    """So many that their entries have a bound, however many folders of them there are."""
    monkeypatch.setattr("castore.directories.reading._MOST_SIZE", 2000)
    node = FileNode(blobs.write(b"content"), 7)
    folders = [Directory({b"%d-%d" % (folder, name): node for name in range(100)}) for folder in range(30)]
    root = Directory({b"%d" % number: each.node for number, each in enumerate(folders)})
    directories = Portioned(root, *folders)
    report = verify_trees([TreeRoot("www", root.digest)], directories, blobs, pool=Pool(0))
    assert report.ok
    assert sum(directories.given) == 30 + 30 * 100
    assert max(directories.given) == 1000
