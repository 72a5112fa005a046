"""What the reference has recorded, on each type: its tree, and what it says to what is no tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from castore import (
    B3Digest,
    CastoreError,
    Composition,
    CorruptDirectoryError,
    DirectoryOrderError,
    DirectorySizeError,
    InvalidDirectoryError,
)
from castore.directories.copying import leaves_first
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode
from tests.directories.test_conformance import FILES, IN_BLOBS, MEMORY, ROWS, opened
from tests.format.test_directories import WITH_KEEP, A, B, C

RECORDED: Final = json.loads((Path(__file__).parents[1] / "testdata/reference/directories.json").read_text())[
    "directories"
]

STACKS: Final[dict[str, dict[str, Any]]] = {
    "memory": {"root": MEMORY},
    "sqlite": {"root": ROWS},
    "blobs": {"root": IN_BLOBS},
    "objectstore": {"root": FILES},
    "cache": {
        "root": {"type": "cache", "near": "&near", "far": "&far"},
        "near": {**ROWS, "complete": False},
        "far": FILES,
    },
}


@pytest.mark.parametrize("name", STACKS)
def test_the_recorded_tree(name: str, tmp_path: Path) -> None:
    """Each directory has the recorded encoding and digest, and the tree comes as the reference streams it."""
    tree = [Directory.decode(bytes.fromhex(entry["encoding"])) for entry in RECORDED]
    root = tree[0].digest
    with opened(STACKS[name], tmp_path) as service:
        assert service.put_closure(leaves_first(tree)) == root
    with opened(STACKS[name], tmp_path) as service:
        if name in {"memory", "blobs"}:
            service.put_closure(leaves_first(tree))
        assert [each.encoded.hex() for each in service.closure(root) or ()] == [
            entry["encoding"] for entry in RECORDED
        ]
        found = service.get_many([each.digest for each in tree], within=root)
        assert {digest: each.encoded for digest, each in found.items() if isinstance(each, Directory)} == {
            each.digest: each.encoded for each in tree
        }


@pytest.mark.parametrize("name", STACKS)
def test_errors_of_put(name: str, tmp_path: Path) -> None:
    """Where the reference refuses a tree, so does each type; and nothing of it is there."""
    wrong_size = Directory({b"foo": DirectoryNode(A.digest, 42)})
    cases: list[tuple[list[Directory], type[CastoreError]]] = [
        ([], DirectoryOrderError),
        ([B], DirectoryOrderError),
        ([A, C, B], DirectoryOrderError),
        ([A, wrong_size], DirectorySizeError),
    ]
    with opened(STACKS[name], tmp_path) as service:
        for order, error in cases:
            with pytest.raises(error):
                service.put_closure(order)
        assert service.missing([C.digest, wrong_size.digest]) == {C.digest, wrong_size.digest}


def forged(digest: B3Digest, encoding: bytes) -> Directory:
    """A directory that says it has another digest than it has."""
    directory = Directory.decode(encoding)
    directory.__dict__["digest"] = digest
    return directory


@pytest.mark.parametrize("name", STACKS)
def test_a_directory_that_lists_itself(name: str, tmp_path: Path) -> None:
    """By a forged digest: one clear error, and no end without it."""
    digest = B3Digest.of(b"forged")
    itself = forged(digest, Directory({b"d": DirectoryNode(digest, 2)}).encoded)
    with opened(STACKS[name], tmp_path) as service:
        with pytest.raises(CastoreError):
            service.put_closure([itself])
        assert service.get(digest) is None


@pytest.mark.parametrize("entry", [b"..", b".", b"a/b", b"a\0b", b"x" * 256, b""])
def test_names_that_lead_elsewhere(entry: bytes) -> None:
    name = b"\x0a" + (bytes([len(entry)]) if len(entry) < 128 else b"\x80\x02") + entry
    body = name + b"\x12\x01t"
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    encoding = b"\x1a" + length + body
    with pytest.raises(InvalidDirectoryError):
        Directory.decode(encoding)


URLS: Final = [
    # (URL, whether it is right here, in words of the error where it is not)
    ("http://foo.example/test", "http"),
    ("memory:", ""),
    ("memory://", ""),
    ("memory://foo", "no address"),
    ("memory:///", "no address"),
    ("memory:///foo", "no address"),
    *[(url, "daemon") for url in ("redb:", "redb://", "redb:///", "redb://foo.example", "redb:/tmp/foo")],
    *[(url, "daemon") for url in ("redb+memory:", "redb+memory:/foo/bar", "redb+memory://")],
    ("bigtable://instance-1", "daemon"),
    ("bigtable://instance-1?project_id=project-1&table_name=table-1&family_name=cf1", "daemon"),
    (
        "bigtable://instance-1?project_id=project-1&table_name=table-1&family_name=cf1&channel_size=10",
        "daemon",
    ),
    ("cache://?near=memory://&far=memory://", ""),
    ("cache:?near=memory%3A&far=memory%3A", ""),
    ("cache:?near=redb%2bmemory:&far=redb%2bmemory:", "daemon"),
    ("cache:?near=memory:", "far"),
    ("cache://host?near=memory:&far=memory:", "no address"),
    ("objectstore+memory:", ""),
    ("objectstore+memory:///", ""),
    ("objectstore+file:///foo/bar", ""),
    ("sqlite:/tmp/directories.sqlite", ""),
    ("grpc+http://[::1]:12345", ""),
    ("grpc+http://localhost", ""),
    ("grpc+https://localhost", ""),
    ("grpc+unix:/path/to/somewhere", ""),
    ("grpc+unix:///path/to/somewhere", ""),
    ("grpc+unix://host.example/path/to/somewhere", "host"),
    ("grpc+http://localhost/some-path", "path"),
]


@pytest.mark.parametrize(("url", "words"), URLS)
def test_urls(url: str, words: str) -> None:
    """Of both versions of the reference; what only it can read names the way."""
    tables: Any = {
        "blobservices": {"root": {"type": "memory"}},
        "directoryservices": {"root": {"type": "read_only", "inner": url}},
    }
    if not words:
        Composition.from_mapping(tables).close()
        return
    with pytest.raises(CastoreError) as caught:
        Composition.from_mapping(tables)
    assert words in str(caught.value)


def test_any_damage_to_a_closure_object(tmp_path: Path) -> None:
    """Cut at each byte, or with a byte changed: an error, never absent and never a shorter tree."""
    tree = [A, B, WITH_KEEP, Directory({b"b": B.node, b"k": WITH_KEEP.node})]
    root = tree[-1].digest
    with opened({"root": FILES}, tmp_path) as service:
        service.put_closure(tree)
        whole = set(service.closure(root) or ())
    (path,) = [each for each in (tmp_path / "trees/dirs").rglob("*") if each.is_file()]
    data = path.read_bytes()
    damages = [data[:end] for end in range(len(data))]
    damages += [data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :] for at in range(len(data))]
    for damage in damages:
        path.write_bytes(damage)
        with opened({"root": FILES}, tmp_path) as service:
            try:
                found = set(service.closure(root) or ())
            except CorruptDirectoryError:
                with pytest.raises(CorruptDirectoryError):
                    service.get(root)
            else:
                assert found == whole  # of a bit that means nothing, such as one of a frame's header
