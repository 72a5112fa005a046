"""`castore verify`: what is wrong with a service, and mending it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from castore.cli.progress import ProgressMeter
from castore.upkeep import Ledger, Scope

ABSENT = "00" * 32


@pytest.fixture
def stores(place) -> Path:
    return place.folder.parent / "stores"


@pytest.fixture
def digest(castore, place) -> str:
    """A blob of several chunks, in near and far."""
    digest = place.file("source", random.Random(1).randbytes(2 << 20))
    assert castore("put", "source").exit_code == 0
    return digest


@pytest.fixture
def chunk(castore, stores, digest) -> Path:
    """The file of its second chunk in near."""
    chunks = json.loads(castore("stat", digest, "--json", "--service", "near").stdout)["chunks"]
    name = chunks[1]["digest"]
    return stores / "near" / "chunks" / "b3" / name[:4] / name


def test_a_sound_service(castore, digest):
    """Says how much was checked, and ends with 0."""
    result = castore("verify", "--service", "near")

    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("checked  1 blob, ")
    assert " chunks, 2.0 MiB in " in first
    assert second == "wrong    nothing"


def test_damage_is_shown_in_a_table_and_ends_with_1(castore, chunk, digest):
    chunk.write_bytes(b"rubbish")

    result = castore("verify", "--service", "near")

    assert result.exit_code == 1
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["wrong", "1", "chunk,", "1", "blob", "that", "cannot", "be", "read"]
    assert lines[3:] == [
        ["what", "digest", "problem"],
        ["chunk", chunk.name, "bad-frame"],
        ["blob", digest, "bad-frame"],
    ]


def test_json_says_all_of_it(castore, chunk, digest, stores):
    """With keys, messages, and what belongs together."""
    chunk.unlink()
    (stores / "near" / "chunks" / "b3" / "note").write_text("?")

    result = castore("verify", "--service", "near", "--json", "--seed", "5")

    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], document["service"], document["seed"]) == (1, False, "near", 5)
    assert document["checked"]["blobs"] == 0
    missing, blob = document["findings"]
    assert (missing["what"], missing["digest"], missing["code"]) == ("chunk", chunk.name, "missing-chunk")
    assert (missing["blob"], blob["digest"], blob["chunk"]) == (digest, digest, chunk.name)
    assert missing["key"].startswith("chunks/b3/")
    assert [(entry["key"], entry["size"]) for entry in document["residue"]] == [("chunks/b3/note", 1)]


def test_repair_from_another_instance(castore, chunk, stores):
    """It ends with 0, as nothing is wrong any more; what was damaged is in quarantine."""
    chunk.write_bytes(b"rubbish")

    result = castore("verify", "--service", "near", "--repair-from", "far")

    assert result.exit_code == 0
    assert "mended   2 of 2\n" in result.stdout
    assert "mended: fetched from `far`" in result.stdout
    quarantined = stores / "near" / "quarantine" / "chunks" / "b3" / chunk.name[:4] / chunk.name
    assert quarantined.read_bytes() == b"rubbish"
    assert castore("verify", "--service", "near").exit_code == 0


def test_what_cannot_be_mended_is_named(castore, chunk, stores):
    """It ends with 1."""
    chunk.write_bytes(b"rubbish")
    for path in [*(stores / "far" / "blobs").rglob("*"), *(stores / "far" / "chunks").rglob("*")]:
        if path.is_file():
            path.unlink()

    result = castore("verify", "--service", "near", "--repair-from", "far", "--json")

    assert result.exit_code == 1
    rows = json.loads(result.stdout)["findings"]
    assert [row["mended"] for row in rows] == [False, False]
    assert {row["repair"] for row in rows} <= {"`far` does not have it", "`far` does not have the blob"}
    assert chunk.read_bytes() == b"rubbish"


def test_a_composite_service_is_refused_with_the_names_of_its_parts(castore, digest):
    """A cache would hide which of the two is damaged."""
    result = castore("verify")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "castore: `root`, a `cache`, cannot be verified as a whole;"
        " of its parts, try `--service NAME` with `far`, `near`\n"
    )


def test_a_service_that_only_lists_its_blobs_has_them_read(castore, place):
    """There is nothing in it at the start of a process."""
    place.compose('[blobservices.root]\ntype = "memory"\n')

    result = castore("verify")

    assert result.exit_code == 0
    assert result.stdout.startswith("checked  0 blobs, 0 bytes in ")


def test_a_sample_can_be_had_again_by_its_seed(castore, place):
    for number in range(200):
        place.file(f"files/{number}", b"%d" % number)
    castore("put", "files")

    def blobs(*options: str) -> int:
        document = json.loads(castore("verify", "--service", "near", "--json", *options).stdout)
        return int(document["checked"]["blobs"])

    assert blobs() == 200
    assert blobs("--sample", "10%", "--seed", "1") == blobs("--sample", "0.1", "--seed", "1") < 60
    assert len({blobs("--sample", "10%", "--seed", str(seed)) for seed in range(8)}) > 1
    assert "chosen by --seed 3" in castore("verify", "--service", "near", "--sample=5%", "--seed=3").stdout


@pytest.mark.parametrize(
    ("since", "blobs"), [("1h", 1), ("2100-01-01", 0), ("2100-01-01T12:00+01:00", 0), ("1999-12-31", 1)]
)
def test_since_a_time(castore, digest, since, blobs):
    """How long ago, or a date."""
    document = json.loads(castore("verify", "--service", "near", "--since", since, "--json").stdout)

    assert document["checked"]["blobs"] == blobs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sample", "0%"], "not above 0"),
        (["--sample", "120%"], "not above 0"),
        (["--sample", "some"], "not a share"),
        (["--since", "yesterday"], "not a time"),
        (["--workers", "-1"], "range"),
        (["--repair-from", "near"], "what is checked"),
        (["--repair-from", "fra"], "did you mean `far`?"),
        (["--resume", "source"], "cannot be used as a state file"),
    ],
)
def test_wrong_usage(castore, digest, arguments, words):
    """Each is told, and ends with 2."""
    result = castore("verify", "--service", "near", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_expected_blobs_that_are_gone(castore, place, digest):
    """A file of digests, as `list` or `put` print them."""
    place.file("expected", f"{digest}  source\n\n{ABSENT}\n".encode())

    result = castore("verify", "--service", "near", "--expect", "expected")

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].split() == ["blob", ABSENT, "blob-not-found"]
    place.file("expected", b"what?\n")
    assert "expected:1: 'what?' is not a digest" in castore("verify", "--expect", "expected").stderr


def test_after_an_interruption_it_goes_on(castore, place, monkeypatch):
    """Ctrl-C leaves a state file that says what was found right, and a run to the end removes it."""
    for number in range(30):
        place.file(f"files/{number}", b"%d" % number)
    castore("put", "files")
    command = ["verify", "--service", "near", "--workers", "0", "--resume", "state"]
    calls = []

    def advance(self, count):
        calls.append(count)
        if len(calls) == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProgressMeter, "advance", advance)
        result = castore(*command)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "castore: interrupted; the next `verify --resume state` goes on from here\n"

    result = castore(*command, "--json")
    checked = json.loads(result.stdout)["checked"]
    # Nine blobs and their chunks, and the chunk of the tenth.
    assert (checked["skipped"], checked["blobs"], len(calls)) == (19, 21, 10)
    assert not (place.folder / "state").exists()


def test_a_state_file_of_another_verification_is_refused(castore, place, digest, stores):
    """Of another service, or another sample; without the options it goes on with the old ones."""
    name = f"near of {place.folder / 'composition.toml'}"
    Ledger("state", service=name, scope=Scope(0.5, 7)).close()

    other = castore("verify", "--service", "far", "--resume", "state")
    assert (other.exit_code, "it is about `near of " in other.stderr) == (2, True)
    for options in (["--sample", "20%"], ["--seed", "8"]):
        result = castore("verify", "--service", "near", "--resume", "state", *options)
        assert (result.exit_code, "another --sample or --seed" in result.stderr) == (2, True)
    result = castore("verify", "--service", "near", "--resume", "state")
    assert (result.exit_code, "50% of all, chosen by --seed 7" in result.stdout) == (0, True)
