"""A store that lies in what is stored does not swallow itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

COMPOSITION = """
[blobservices.root]
type = "cache"
near = "&near"
far = "&far"
write = "behind"
queue = "./state/queue"

[blobservices.near]
type = "lru"
inner = "&disk"
max_bytes = "1 GB"

[blobservices.disk]
type = "objectstore"
object_store_url = "file:./stores/disk"

[blobservices.far]
type = "sqlite"
path = "./state/far.sqlite"

[blobservices.bounded]
type = "lru"
inner = "&far"
max_bytes = "1 GB"
"""


@pytest.fixture
def files(place: Any) -> dict[str, str]:
    """Files beside the stores, of which some have names like theirs."""
    place.compose(COMPOSITION)
    (place.folder / "state").mkdir()
    names = ("a", "stores/b", "state/far.sqlite.bak", "state/far.sqlite-notes", "state/mine/queue", "disk/c")
    return {name: place.file(name, name.encode()) for name in names}


def stored(lines: str) -> dict[str, str]:
    return {line.split(maxsplit=1)[1].removeprefix("./"): line.split()[0] for line in lines.splitlines()}


@pytest.mark.parametrize("what", [".", "..", "state stores a disk"])
def test_it_is_left_out(castore: Any, place: Any, files: dict[str, str], what: str) -> None:
    """However often everything is stored, it is the same; each place is named, with what it belongs to."""
    for _ in range(2):
        found = castore("put", *what.split())
        assert found.exit_code == 0, found.stderr
        names = {name.removeprefix("../place/").removeprefix("../") for name in stored(found.stdout)}
        assert files.keys() <= names
        assert names - files.keys() <= {"composition.toml"}
        castore("--service", "bounded", "put", "a")
    assert "where `disk` keeps what it has" in found.stderr
    assert "where `far` keeps what it has" in found.stderr
    assert "where `root` keeps what it has" in found.stderr


def test_what_is_named_itself(castore: Any, place: Any, files: dict[str, str]) -> None:
    """A store, or a folder in one, is left out as well; a single file of one is stored as any other."""
    castore("put", "a")
    (place.folder / "link").symlink_to("stores/disk")
    for path in ("stores/disk", "stores/disk/chunks", "link", "state/far.sqlite"):
        found = castore("put", path)
        assert (found.exit_code, found.stdout) == (0, "")
        assert "keeps what it has" in found.stderr
    chunk = next(found for found in (place.folder / "stores/disk/chunks").rglob("*") if found.is_file())
    assert castore("put", str(chunk)).stdout.endswith(f"{chunk}\n")


def test_json_has_it_among_what_was_skipped(castore: Any, place: Any, files: dict[str, str]) -> None:
    castore("put", "a")
    found = json.loads(castore("put", "--json", ".").stdout)
    assert {entry["path"] for entry in found["skipped"]} >= {
        "./stores/disk",
        "./state/far.sqlite",
        "./state/queue",
    }


OTHERS = {
    "sqlite": 'type = "sqlite"\npath = "./{}.sqlite"',
    "objectstore": 'type = "objectstore"\nobject_store_url = "file:./{}.sqlite"',
}


@pytest.mark.parametrize("type_", OTHERS)
def test_places_of_directories_and_refs_are_left_out_as_well(castore: Any, place: Any, type_: str) -> None:
    """Each import sets a ref, and is the same as the one before."""
    tables = "\n".join(
        f"[{kind}.root]\n{OTHERS[type_].format(kind)}" for kind in ("directoryservices", "refservices")
    )
    blobs = f"[blobservices.root]\n{OTHERS['objectstore'].format('blobs')}"
    place.compose(f"{blobs}\n{tables}")
    place.file("a", b"a")
    roots = {castore("import", ".", "--ref", f"r{number}").stdout for number in range(3)}
    assert len(roots) == 1
    found = castore("import", ".", "--ref", "main")
    assert found.stderr.count("left out './directoryservices.sqlite'") == 1
    assert found.stderr.count("left out './refservices.sqlite'") == 1
    assert castore("check").stderr == ""


def test_trees_are_without_it(castore: Any, place: Any, files: dict[str, str]) -> None:
    """The root of a folder is the same, whatever was stored in between."""
    place.compose(COMPOSITION.replace('write = "behind"\nqueue = "./state/queue"', 'write = "both"'))
    roots = {castore("import", ".").stdout for _ in range(3)}
    found = castore("import", ".")
    assert len(roots | {found.stdout}) == 1
    assert "left out './stores/disk'" in found.stderr
    assert castore("import", "stores/disk").exit_code == 1
