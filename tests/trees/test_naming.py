"""What a person writes for something in a tree, and what is found there."""

from __future__ import annotations

import pytest

from castore import (
    B3Digest,
    BlobNotFoundError,
    Composition,
    InvalidDigestError,
    InvalidDirectoryError,
    InvalidRefError,
    MissingDirectoryError,
    NodeNotFoundError,
    UnsupportedError,
)
from castore.contract.short_digests import ShortDigest
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, SymlinkNode, SymlinkTarget, TreePath
from castore.trees import find_node, open_path
from castore.trees.naming import TreeLookup, TreePlace
from castore.trees.reading_ahead import RecentDirectories
from castore.trees.walking import MOST_LINKS, resolve
from tests.trees.test_walking import Rows

DIGEST = B3Digest.of(b"some root")
HEX = str(DIGEST)
OLD = "b3:" + DIGEST.sri.removeprefix("blake3-")


class TestReading:
    @pytest.mark.parametrize("root", [HEX, HEX.upper(), DIGEST.sri, OLD, OLD.rstrip("=")])
    @pytest.mark.parametrize(
        ("rest", "path", "in_tree"),
        [
            ("", b"", False),
            (":", b"", True),
            (":/", b"", True),
            (":a", b"a", True),
            (":/a//b/./c/", b"a/b/c", True),
            (":a/../b", b"b", True),
            (":a:b", b"a:b", True),
            (":@{x}", b"@{x}", True),
            (":caf\udce9", b"caf\xe9", True),
            (":\N{SNOWMAN}\n", "\N{SNOWMAN}\n".encode(), True),
        ],
    )
    def test_each_form_with_each_path(self, root: str, rest: str, path: bytes, in_tree: bool) -> None:
        place = TreePlace.parse(root + rest)
        assert (place.root, bytes(place.path), place.in_tree) == (DIGEST, path, in_tree)
        assert TreePlace.parse(str(place)) == place

    def test_first_digits(self) -> None:
        assert TreePlace.parse("ABCDEF12:x") == TreePlace(ShortDigest("abcdef12"), TreePath((b"x",)), True)

    @pytest.mark.parametrize("text", ["", ":", ":a", "b3:abc", "b3:", f"{HEX}0:a", " " + HEX, "a" * 10**5])
    def test_what_is_no_root(self, text: str) -> None:
        with pytest.raises((InvalidDigestError, InvalidRefError)):
            TreePlace.parse(text)

    @pytest.mark.parametrize("path", ["..", "a/../..", "a\0", "n" * 256])
    def test_what_is_no_path(self, path: str) -> None:
        with pytest.raises(InvalidDirectoryError):
            TreePlace.parse(f"{HEX}:{path}")


def link(target: bytes) -> SymlinkNode:
    return SymlinkNode(SymlinkTarget(target))


FILE = FileNode(B3Digest.of(b"x"), 1)
DEEP = Directory({b"file": FILE, b"up": link(b"../../top"), b"out": link(b"../../../x"), b"here": link(b".")})
SUB = Directory({b"deep": DEEP.node, b"beside": link(b"deep/./file"), b"self": link(b"self")})
TOP = Directory(
    {
        b"top": FILE,
        b"sub": SUB.node,
        b"to-sub": link(b"sub//"),
        b"to-file": link(b"to-sub/beside"),
        b"absolute": link(b"/top"),
        b"dangling": link(b"sub/nothing"),
        b"through-file": link(b"top/x"),
        b"file-as-folder": link(b"top/"),
        **{b"%d" % number: link(b"%d" % (number + 1)) for number in range(MOST_LINKS + 1)},
        b"%d" % (MOST_LINKS + 1): FILE,
    }
)
TREE = Rows(DEEP, SUB, TOP)


class TestResolving:
    @pytest.mark.parametrize(
        ("path", "followed", "not_followed"),
        [
            ("", TOP.node, TOP.node),
            ("top", FILE, FILE),
            ("sub/deep", DEEP.node, DEEP.node),
            ("to-sub", SUB.node, link(b"sub//")),
            ("to-sub/deep/file", FILE, FILE),
            ("to-file", FILE, link(b"to-sub/beside")),
            ("to-sub/beside", FILE, link(b"deep/./file")),
            ("to-sub/deep/here/here/up", FILE, link(b"../../top")),
            ("dangling", None, link(b"sub/nothing")),
            ("through-file", None, link(b"top/x")),
            ("file-as-folder", None, link(b"top/")),
            ("top/x", None, None),
            ("nothing", None, None),
            ("2", FILE, link(b"3")),
        ],
    )
    def test_paths(self, path: str, followed: object, not_followed: object) -> None:
        assert resolve(TREE, TOP.node, TreePath.parse(path)) == followed
        assert resolve(TREE, TOP.node, TreePath.parse(path), follow=False) == not_followed

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("sub/self", "more than 40 links lead on from 'sub/self'"),
            ("0", "more than 40 links"),
            ("absolute", "the link 'absolute' leads out of the tree, to '/top'"),
            ("absolute/x", "leads out of the tree"),
            ("to-sub/deep/out", "the link 'sub/deep/out' leads out of the tree, to '../../../x'"),
        ],
    )
    def test_links_that_lead_nowhere(self, path: str, words: str) -> None:
        with pytest.raises(NodeNotFoundError, match=words):
            resolve(TREE, TOP.node, TreePath.parse(path))

    def test_a_root_that_is_a_file_or_a_link(self) -> None:
        assert resolve(TREE, FILE, TreePath()) == FILE
        assert resolve(TREE, FILE, TreePath.parse("x")) is None
        assert resolve(TREE, link(b"x"), TreePath(), follow=False) == link(b"x")
        with pytest.raises(NodeNotFoundError):
            resolve(TREE, link(b"x"), TreePath())

    def test_a_directory_that_is_gone(self) -> None:
        with pytest.raises(MissingDirectoryError) as caught:
            resolve(Rows(TOP, SUB), TOP.node, TreePath.parse("to-sub/deep/file"))
        assert caught.value.path == b"sub/deep"

    def test_what_was_read_is_not_read_again(self) -> None:
        rows = Rows(DEEP, SUB, TOP)
        recent = RecentDirectories(rows)
        for _ in range(2):
            assert resolve(recent, TOP.node, TreePath.parse("sub/deep/up")) == FILE
        assert rows.calls == [1, 1, 1]


class TestStores:
    @pytest.fixture
    def root(self, stores: Composition) -> Directory:
        digest = stores.blobs().write(b"Hello World!")
        gone = FileNode(B3Digest.of(b"gone"), 4)
        root = Directory({b"hello": FileNode(digest, 12), b"hi": link(b"hello"), b"gone": gone})
        stores.directories().put(root)
        return root

    def test_a_file_is_opened(self, stores: Composition, root: Directory) -> None:
        for place in (
            f"{root.digest}:hello",
            f"{root.digest.hex()[:8]}:hi",
            TreePlace.parse(f"{root.digest}:hi"),
        ):
            with open_path(stores, place) as reader:
                assert reader.read() == b"Hello World!"

    def test_nodes(self, stores: Composition, root: Directory) -> None:
        assert find_node(stores, f"{root.digest}:") == root.node
        assert find_node(stores, f"{root.digest}:hi") == link(b"hello")
        assert TreeLookup(stores).find(TreePlace.parse(f"{root.digest}:none")) is None

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("ROOT:none", "has nothing at 'none'"),
            ("ROOT:", "is no file but a directory"),
            (f"{HEX}:hello", f"no directory {HEX} in `root`"),
            ("00000000:hello", "no directory in `root` begins with 00000000"),
        ],
    )
    def test_no_file(self, stores: Composition, root: Directory, path: str, words: str) -> None:
        with pytest.raises(NodeNotFoundError, match=words):
            open_path(stores, path.replace("ROOT", str(root.digest)))

    def test_a_blob_that_is_gone(self, stores: Composition, root: Directory) -> None:
        with pytest.raises(BlobNotFoundError):
            open_path(stores, f"{root.digest}:gone")

    def test_the_service_is_that_which_is_named(self) -> None:
        """Or the directory service of that name, where those are declared, and else `root`."""
        blobs = {"root": {"type": "memory"}, "other": {"type": "memory"}}
        with Composition.from_mapping({"blobservices": blobs}) as stores:
            other = TreeLookup(stores, "other")
            digest = other.directories.put(TOP.replace(b"sub", None))
            assert isinstance(other.root(digest), DirectoryNode)
            with pytest.raises(NodeNotFoundError):
                find_node(stores, str(digest))
        with Composition.from_mapping(
            {"blobservices": blobs, "directoryservices": {"root": {"type": "memory"}}}
        ) as stores:
            digest = stores.directories().put(Directory({b"a": FILE}))
            assert find_node(stores, f"{str(digest)[:9]}:a", service="other") == FILE

    def test_first_digits_where_nothing_is_listed(self, stores: Composition) -> None:
        with pytest.raises(UnsupportedError, match="all 64 digits will do"):
            find_node(_Unlisted(stores), "00000000:a")  # type: ignore[arg-type]


class _Unlisted:
    """A composition whose blobs list nothing."""

    def __init__(self, stores: Composition) -> None:
        self.graph = stores.graph
        self._stores = stores

    def blobs(self, name: str) -> object:
        service = self._stores.blobs(name)
        service.capability = lambda kind: None  # type: ignore[method-assign]
        return service
