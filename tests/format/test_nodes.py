"""Names, targets, nodes and paths: what the reference takes is taken, and nothing else."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.digest import B3Digest
from castore.errors import InvalidDirectoryError
from castore.format.nodes import (
    MOST_SIZE,
    DirectoryNode,
    FileNode,
    Node,
    PathComponent,
    SymlinkNode,
    SymlinkTarget,
    TreePath,
    node_from_json,
    node_to_json,
)

HELLO = B3Digest.of(b"Hello World!")

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in (b".", b"..") and b"\0" not in name and b"/" not in name
)
TARGETS = st.binary(min_size=1, max_size=4095).filter(lambda target: b"\0" not in target)
DIGESTS = st.binary(min_size=32, max_size=32).map(B3Digest)
SIZES = st.integers(0, MOST_SIZE)
NODES = st.one_of(
    st.builds(FileNode, DIGESTS, SIZES, st.booleans()),
    st.builds(DirectoryNode, DIGESTS, SIZES),
    st.builds(SymlinkNode, TARGETS.map(SymlinkTarget)),
)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (b"", "empty"),
        (b"..", "dot-dot"),
        (b".", "dot"),
        (b"X" * 256, "too-long"),
        (b"X" * 500 + b"\0/", "too-long"),
        (b"foo\0", "null"),
        (b"a\0/b", "null"),
        (b"a/b", "slash"),
        (b"/", "slash"),
    ],
)
def test_what_is_no_name(name: bytes, rule: str) -> None:
    """The first rule that it breaks is the one of the reference."""
    with pytest.raises(InvalidDirectoryError) as caught:
        PathComponent(name)
    assert (caught.value.rule, caught.value.name) == (rule, name)


@pytest.mark.parametrize("name", [b"aa", b"...", b"a b", b"\xff\xfe", b"a\nb", b"n" * 255, b" "])
def test_what_is_a_name(name: bytes) -> None:
    assert PathComponent(name) == name


@pytest.mark.parametrize(
    ("target", "rule"),
    [(b"", "empty"), (b"foo\0", "null"), (b"X" * 5000, "too-long"), (b"t" * 4096, "too-long")],
)
def test_what_is_no_target(target: bytes, rule: str) -> None:
    with pytest.raises(InvalidDirectoryError) as caught:
        SymlinkNode(SymlinkTarget(target))
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    "target", [b"aa", b".", b"./..", b"..", b"a/b", b"/a/b", bytes.fromhex("c5c4d6"), b"t" * 4095]
)
def test_what_is_a_target(target: bytes) -> None:
    assert SymlinkNode(SymlinkTarget(target)).target == target


@pytest.mark.parametrize("size", [-1, MOST_SIZE + 1])
@pytest.mark.parametrize("kind", [FileNode, DirectoryNode])
def test_a_size_has_64_bits(kind: Any, size: int) -> None:
    with pytest.raises(InvalidDirectoryError):
        kind(HELLO, size)


@pytest.mark.parametrize(
    ("node", "data"),
    [
        (FileNode(HELLO, 12), {"type": "file", "digest": HELLO.sri, "size": 12, "executable": False}),
        (DirectoryNode(HELLO, 4), {"type": "directory", "digest": HELLO.sri, "size": 4}),
        (SymlinkNode(SymlinkTarget(b"a/b")), {"type": "symlink", "target": "a/b"}),
    ],
)
def test_json_is_that_of_the_reference(node: Node, data: dict[str, Any]) -> None:
    assert node_to_json(node) == data
    assert node_from_json(data) == node


@given(NODES)
def test_json_leads_back(node: Node) -> None:
    assert node_from_json(json.loads(json.dumps(node_to_json(node)))) == node


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "file"},
        {"type": "socket", "target": "x"},
        {"type": "file", "digest": "blake3-", "size": 1, "executable": False},
        {"type": "file", "digest": HELLO.sri, "size": -1, "executable": False},
        {"type": "file", "digest": HELLO.sri, "size": "1", "executable": False},
        {"type": "directory", "digest": HELLO.sri, "size": 1, "executable": False},
        {"type": "symlink", "target": ""},
        {"type": "symlink", "target": "\ud8ff"},
    ],
)
def test_what_is_no_node(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidDirectoryError):
        node_from_json(data)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("a", (b"a",)),
        ("a/b", (b"a", b"b")),
        ("a/b/c", (b"a", b"b", b"c")),
        ("C:\\a/b", (b"C:\\a", b"b")),
        ("\\\\snix-store", (b"\\\\snix-store",)),
    ],
)
def test_paths(text: str, names: tuple[bytes, ...]) -> None:
    path = TreePath.parse(text)
    assert path == names
    assert str(path) == text
    assert pickle.loads(pickle.dumps(path)) == path


@pytest.mark.parametrize(
    "text",
    [
        "/a/b",
        "//a/b",
        "a/b//c/d",
        "a/b/",
        ".",
        "..",
        "./a",
        "../a",
        "a/./b",
        "a/../b",
        "a/b/.",
        "a/b/..",
        "fo\x00o",
    ],
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(InvalidDirectoryError):
        TreePath.parse(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("a//b", "a/b"),
        (".", ""),
        ("./a/b", "a/b"),
        ("a/./b", "a/b"),
        ("a/b/.", "a/b"),
        ("a/b/", "a/b"),
        ("a/..", ""),
        ("a/../b", "b"),
    ],
)
def test_paths_as_people_write_them(text: str, path: str) -> None:
    assert str(TreePath.parse_loosely(text)) == path


@pytest.mark.parametrize("text", ["/", "/a", "..", "a/../..", "foo/bar\0"])
def test_what_no_person_may_write(text: str) -> None:
    with pytest.raises(InvalidDirectoryError):
        TreePath.parse_loosely(text)


@given(st.lists(NAMES))
def test_a_path_leads_back(names: list[bytes]) -> None:
    path = TreePath(names)
    assert TreePath.parse(bytes(path)) == TreePath.parse(str(path)) == path
    assert [*path.parents] == [TreePath(names[:length]) for length in reversed(range(len(names)))]
    assert path.join(b"x")[:-1] == path
