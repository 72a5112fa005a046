"""`castore explain` and `castore locate`, word for word.

`CASTORE_RENEW_GOLDEN=1 pytest tests/cli/test_explain.py` writes the golden files anew; read the difference.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest
from castore import open as open_composition

FOLDER = Path(__file__).parents[1] / "testdata" / "explain"
RENEW = bool(os.environ.get("CASTORE_RENEW_GOLDEN"))

DATA = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(400))
"""12.5 KiB, with the same chunk boundaries each time."""

NOWHERE = "00" * 32


@pytest.fixture
def seven(place: Any) -> str:
    """The graph of seven, with a blob that `cold` has and `local` has a part of; returns its digest."""
    shutil.copy(FOLDER / "seven.toml", place.folder / "composition.toml")
    with open_composition("composition.toml") as stores:
        stores.blobs("cold").write(DATA)
        stores.blobs("local").write(DATA[: len(DATA) // 2])
    return str(B3Digest.of(DATA))


def check_golden(name: str, found: str) -> None:
    golden = FOLDER / name
    if RENEW:
        golden.write_text(found, "utf-8")
    assert found == golden.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("seven.explain", ["explain"]),
        ("seven.explain.json", ["explain", "--json", "--op", "get"]),
        ("seven.locate", ["locate"]),
        ("seven.locate.json", ["locate", "--json"]),
        ("seven.verify", ["locate", "--verify"]),
    ],
)
def test_a_graph_of_seven_is_explained_word_for_word(
    name: str, arguments: list[str], seven: str, castore: Any
) -> None:
    result = castore(*arguments, seven)

    assert (result.exit_code, result.stderr) == (0, "")
    check_golden(name, result.stdout)


def test_a_graph_with_a_store_that_is_down(seven: str, castore: Any, place: Any) -> None:
    """What is in the place of a file that it needs is named; the others answer."""
    (place.folder / "remote.sqlite").mkdir()

    check_golden("down.explain", castore("explain", seven).stdout.replace(str(place.folder), "..."))
    check_golden("down.locate", castore("locate", seven).stdout.replace(str(place.folder), "..."))


def test_one_operation_can_be_chosen(seven: str, castore: Any) -> None:
    for operation in ("has", "get", "put"):
        lines = castore("explain", seven, "--op", operation).stdout.splitlines()
        assert lines[0] == operation
        assert not {"has", "get", "put"} & set(lines[1:])
    assert castore("explain", seven, "--op", "list").exit_code == 2


def test_a_service_can_be_chosen(seven: str, castore: Any) -> None:
    """Then only that and what it needs."""
    assert castore("--service", "cold", "explain", seven, "--op", "has").stdout.splitlines()[1:] == [
        "cold  objectstore: has it: 10 chunks, 12.5 KiB"
    ]
    rows = castore("--service", "archive", "locate", seven).stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["instance", "archive", "cold"]
    for command in ("explain", "locate"):
        result = castore("--service", "cool", command, seven)
        assert result.exit_code == 2
        assert "did you mean `cold`?" in result.stderr


def test_what_nobody_has_is_exit_code_1_of_locate(seven: str, castore: Any) -> None:
    result = castore("locate", NOWHERE)
    assert result.exit_code == 1
    assert {row.split()[-1] for row in result.stdout.splitlines()[1:]} == {"nothing"}
    assert castore("locate", NOWHERE, "--json").exit_code == 1
    assert castore("explain", NOWHERE).exit_code == 0


def test_a_part_is_not_enough(seven: str, castore: Any, place: Any) -> None:
    """That `local` has some chunks does not make it the one who has the blob."""
    assert castore("--service", "local", "locate", seven).exit_code == 1
    shutil.rmtree(place.folder / "cold")
    assert castore("locate", seven).exit_code == 1


def test_what_is_damaged_is_found_by_verifying(seven: str, castore: Any, place: Any) -> None:
    """Without reading it looks whole; then the exit code tells."""
    chunk = next(path for path in sorted((place.folder / "cold/chunks").rglob("*")) if path.is_file())
    chunk.write_bytes(b"rubbish")

    assert castore("locate", seven).exit_code == 0
    result = castore("locate", seven, "--verify", "--json")

    assert result.exit_code == 1
    (cold,) = (row for row in json.loads(result.stdout)["instances"] if row["instance"] == "cold")
    assert (cold["state"], cold["verified"]) == ("corrupt", False)
    assert "is corrupt" in cold["cause"] or "frame" in cold["cause"]


def test_a_digest_and_a_time_are_checked(seven: str, castore: Any) -> None:
    for command in ("explain", "locate"):
        assert castore(command, "0000").exit_code == 2
        assert castore(command, seven, "--timeout", "soon").exit_code == 2


def test_no_secret_is_shown(castore: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the cause of what is unavailable either."""
    monkeypatch.setenv("HIDDEN", "hunter2")
    Path("hunter2").write_text("no folder")
    Path("composition.toml").write_text(
        '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./${HIDDEN}/blobs"\n'
    )
    for arguments in (["explain", NOWHERE], ["locate", NOWHERE], ["locate", NOWHERE, "--json"]):
        result = castore(*arguments)
        assert "unavailable" in result.stdout
        assert "hunter2" not in result.stdout + result.stderr
