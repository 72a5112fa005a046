"""Directories: byte for byte those of the reference, and nothing is believed that cannot be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.digest import EMPTY, B3Digest
from castore.errors import CorruptDirectoryError, DirectorySizeError, InvalidDirectoryError
from castore.format.directories import Directory, check_edge, decode_checked
from castore.format.nodes import MOST_SIZE, DirectoryNode, FileNode, SymlinkNode, SymlinkTarget
from castore.format.proto import castore_pb2
from tests.format.test_nodes import NAMES, NODES

GOLDEN = json.loads((Path(__file__).parents[1] / "testdata/reference/directories.json").read_text())

LINK: Final = SymlinkNode(SymlinkTarget(b"/nix/store/somewhereelse"))

A = Directory()
B = Directory({b"a": A.node})
C = Directory({b"a": A.node, b"a'": A.node})
D = Directory({b"a": A.node, b"b": B.node})
E = Directory({b"d": D.node})
WITH_KEEP = Directory({b".keep": FileNode(EMPTY, 0)})
COMPLICATED = Directory({b"keep": WITH_KEEP.node, b".keep": FileNode(EMPTY, 0), b"aa": LINK})

DIRECTORIES = st.dictionaries(NAMES, NODES, max_size=5).filter(
    lambda nodes: (
        sum(node.size for node in nodes.values() if isinstance(node, DirectoryNode)) < MOST_SIZE - 10
    )
)


@pytest.mark.parametrize(
    ("directory", "size", "digest"),
    [
        (A, 0, EMPTY.hex()),
        (B, 2, "8701f4722d8dae7f2c40fa003331b8437a3825f9e1bfd3a77998c64cc226b9cc"),
        (C, 4, "78eb200ae0cc95d4ea954655fbcf91e285013a261310e161927f2401d2bca803"),
        (D, 6, "76cd8b55b37333961c1778ba997e57df92e219926ae5a66c414b810331a77603"),
        (E, 8, "333c798237cae53a66655761fa232338cc20d1ac45a08e519204eec0bc739103"),
        (WITH_KEEP, 2, "8b5b5d642b646bb8ed504b0862c39413e87e57491497de7bd075953f7b83810e"),
        (COMPLICATED, 8, "424a7f6ce08d805d15b428062faae96299a1675d708c3a39261afe38cdd04feb"),
    ],
)
def test_vectors(directory: Directory, size: int, digest: str) -> None:
    assert (directory.size, str(directory.digest)) == (size, digest)
    assert Directory.decode(directory.encoded) == directory


@pytest.mark.parametrize(
    ("nodes", "digest"),
    [
        (
            {b"a": A.node, b"b": DirectoryNode(B.digest, 1)},
            "99922a5c1801805287a647af73bca0ed7352a5f7f373e54992795bcc4a235213",
        ),
        (
            {b"keep": DirectoryNode(WITH_KEEP.digest, 1), b".keep": FileNode(EMPTY, 0), b"aa": LINK},
            "3f951a15afd586fb3121ef4d13d582e811ce0e5a7f21c0497fd87490e9e2355a",
        ),
    ],
)
def test_vectors_of_the_other_rule(nodes: dict[bytes, Any], digest: str) -> None:
    """Sizes that were written by the reference's texts stay as they are."""
    directory = Directory(nodes)
    assert str(directory.digest) == digest
    assert Directory.decode(directory.encoded).encoded == directory.encoded


@pytest.mark.parametrize("entry", GOLDEN["directories"], ids=lambda entry: entry["digest"][:8])
def test_what_the_reference_has_written(entry: dict[str, str]) -> None:
    encoding = bytes.fromhex(entry["encoding"])
    directory = Directory.decode(encoding)
    assert str(directory.digest) == entry["digest"]
    assert Directory(dict(directory)).encoded == encoding


def test_names_are_in_order() -> None:
    """Bytewise, over all three lists."""
    assert list(COMPLICATED) == [b".keep", b"aa", b"keep"]
    assert list(Directory.decode(COMPLICATED.encoded)) == list(COMPLICATED)


@given(DIRECTORIES)
def test_decoding_leads_back(nodes: dict[bytes, Any]) -> None:
    directory = Directory(nodes)
    found = Directory.decode(directory.encoded)
    assert found == directory
    assert dict(found) == nodes
    assert list(found) == sorted(nodes)
    assert found.digest == directory.digest == B3Digest.of(Directory(dict(found)).encoded)
    assert pickle.loads(pickle.dumps(found)) == directory


@given(DIRECTORIES)
def test_protobuf_writes_the_same(nodes: dict[bytes, Any]) -> None:
    """Another encoder, given the same lists."""
    message = castore_pb2.Directory()
    for name in sorted(nodes):
        node = nodes[name]
        match node:
            case DirectoryNode():
                message.directories.add(name=name, digest=node.digest, size=node.size)
            case FileNode():
                message.files.add(name=name, digest=node.digest, size=node.size, executable=node.executable)
            case SymlinkNode():
                message.symlinks.add(name=name, target=node.target)
    assert message.SerializeToString(deterministic=True) == Directory(nodes).encoded


@given(st.binary(max_size=200))
def test_any_bytes_are_a_directory_or_an_error(data: bytes) -> None:
    try:
        found = Directory.decode(data)
    except InvalidDirectoryError:
        return
    assert found.encoded == data
    assert Directory(dict(found)).encoded == data


@given(DIRECTORIES.map(Directory), st.data())
def test_damage_is_an_error_or_another_directory(directory: Directory, data: st.DataObject) -> None:
    """Whatever is decoded is what it says, and has its own digest."""
    encoding = bytearray(directory.encoded)
    if encoding:
        at = data.draw(st.integers(0, len(encoding) - 1))
        encoding[at] ^= data.draw(st.integers(1, 255))
    for canonical in (True, False):
        try:
            found = Directory.decode(bytes(encoding), canonical=canonical)
        except InvalidDirectoryError:
            continue
        assert Directory(dict(found)) == found
        if canonical:
            assert found.encoded == bytes(encoding)


@given(DIRECTORIES.map(Directory), st.integers(0, 1000))
def test_what_is_cut_short_is_an_error_or_less(directory: Directory, cut: int) -> None:
    """Between two entries nobody can tell: there the digest is another one."""
    data = directory.encoded[:cut]
    try:
        found = Directory.decode(data)
    except InvalidDirectoryError:
        return
    assert found.encoded == data


def entry(number: int, **facts: Any) -> bytes:
    """Encode one entry as protobuf does."""
    kinds = {1: castore_pb2.DirectoryEntry, 2: castore_pb2.FileEntry, 3: castore_pb2.SymlinkEntry}
    data: bytes = kinds[number](**facts).SerializeToString()
    return bytes([number << 3 | 2, len(data)]) + data


def folder(name: bytes, size: int = 0) -> bytes:
    return entry(1, name=name, digest=EMPTY, size=size)


WRONG = {
    "names descend": (folder(b"b") + folder(b"a"), "sorting"),
    "a name twice": (folder(b"a") + folder(b"a"), "duplicate"),
    "a name in two lists": (folder(b"a") + entry(3, name=b"a", target=b"t"), "duplicate"),
    "no name": (folder(b""), "sorting"),
    "a name of dots": (folder(b".."), "dot-dot"),
    "a name with a slash": (entry(2, name=b"a/b", digest=EMPTY), "slash"),
    "a name with a zero": (entry(3, name=b"\0", target=b"t"), "null"),
    "a short digest": (entry(1, name=b"a", digest=b"xy"), "digest"),
    "no digest": (entry(2, name=b"a"), "digest"),
    "no target": (entry(3, name=b"a"), "empty"),
    "a target with a zero": (entry(3, name=b"a", target=b"foo\0"), "null"),
    "sizes that overflow": (folder(b"a", MOST_SIZE), "overflow"),
    "sizes that overflow together": (folder(b"a", MOST_SIZE // 2) + folder(b"b", MOST_SIZE // 2), "overflow"),
    "a field that is not known": (folder(b"a") + b"\x20\x01", "canonical"),
    "a known field in an entry twice": (b"\x0a\x06\x0a\x01b\x0a\x01a", "digest"),
    "a zero that is written": (b"\x0a\x27" + folder(b"a")[2:] + b"\x18\x00", "canonical"),
    "a number longer than it need be": (b"\x0a\x28" + folder(b"a")[2:] + b"\x18\x81\x00", "canonical"),
    "lists in another order": (entry(2, name=b"a", digest=EMPTY) + folder(b"b"), "canonical"),
    "an entry that is a number": (b"\x08\x01", "encoding"),
    "a number that does not end": (b"\xff" * 20, "encoding"),
    "a length beyond the end": (b"\x0a\x7f\x0a", "encoding"),
    "a field without a number": (b"\x02\x00", "encoding"),
    "a kind of field that there is none of": (b"\x0f\x00", "encoding"),
    "a group that does not end": (b"\x2b", "encoding"),
    "groups without end": (b"\x2b" * 10_000, "encoding"),
    "a group that ends": (b"\x2b\x2c", "canonical"),
}


@pytest.mark.parametrize(("data", "rule"), WRONG.values(), ids=WRONG)
def test_what_is_no_encoding(data: bytes, rule: str) -> None:
    with pytest.raises(InvalidDirectoryError) as caught:
        Directory.decode(data)
    assert caught.value.rule == rule


@pytest.mark.parametrize("name", [name for name, (_, rule) in WRONG.items() if rule == "canonical"])
def test_what_others_may_write(name: str) -> None:
    """It is read if that is asked for; its digest is that of castore's own encoding."""
    found = Directory.decode(WRONG[name][0], canonical=False)
    assert found.digest == Directory(dict(found)).digest != B3Digest.of(WRONG[name][0])


def test_sizes_may_be_as_large_as_fits() -> None:
    assert Directory.decode(folder(b"a", MOST_SIZE - 1)).possible_sizes[1] == MOST_SIZE
    with pytest.raises(InvalidDirectoryError):
        _ = Directory.decode(folder(b"a", MOST_SIZE - 1)).node


@pytest.mark.parametrize(("size", "right"), [(4, True), (8, True), (0, False), (42, False)])
def test_either_rule_of_sizes(size: int, right: bool) -> None:
    directory = Directory(dict.fromkeys((b"a", b"b", b"c", b"d"), LINK))
    node = DirectoryNode(directory.digest, size)
    if right:
        check_edge(b"x", node, directory)
    else:
        with pytest.raises(DirectorySizeError) as caught:
            check_edge(b"x", node, directory)
        assert (caught.value.name, caught.value.specified, caught.value.possible) == (b"x", size, (8, 4))


def test_replacing() -> None:
    assert B.replace(b"a'", A.node) == C
    assert C.replace(b"a'", None) == B
    assert B.replace(b"none", None) == B
    with pytest.raises(InvalidDirectoryError):
        B.replace(b"a/b", A.node)


def test_checked() -> None:
    assert decode_checked(COMPLICATED.encoded, COMPLICATED.digest) == COMPLICATED
    with pytest.raises(CorruptDirectoryError) as caught:
        decode_checked(B.encoded, COMPLICATED.digest, key="dirs/x")
    assert (caught.value.expected, caught.value.found) == (COMPLICATED.digest, B.digest)
    assert "dirs/x" in str(caught.value)
    data = folder(b"b") + folder(b"a")
    with pytest.raises(CorruptDirectoryError, match="not in order"):
        decode_checked(data, B3Digest.of(data))
