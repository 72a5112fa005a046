"""`castore copy`: from one instance of a composition to another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blake3 import blake3

ABSENT = "00" * 32


@pytest.fixture
def digests(castore, place) -> list[str]:
    """Three blobs in near."""
    place.compose(Path("composition.toml").read_text().replace('"both"', '"near"'))
    digests = [place.file(f"files/{number}", b"%d" % number * 1000) for number in range(3)]
    assert castore("put", "files").exit_code == 0
    return digests


def test_all_blobs_and_again(castore, digests):
    """The second run copies nothing."""
    first = castore("copy", "--from", "near", "--to", "far", "--all")
    second = castore("copy", "--from", "near", "--to", "far", "--all")

    assert [line.split() for line in first.stdout.splitlines()] == [
        ["blobs", "chunks", "bytes"],
        ["copied", "3", "3", "2.9", "KiB"],
        ["skipped", "0", "0", "0", "bytes"],
    ]
    assert [line.split()[:3] for line in second.stdout.splitlines()[1:]] == [
        ["copied", "0", "0"],
        ["skipped", "3", "0"],
    ]
    assert castore("has", *digests, "--service", "far").exit_code == 0


def test_an_interrupted_one_tells_in_json_what_is_copied(castore, digests, monkeypatch):
    """Ctrl-C comes after the first bytes."""

    def interrupt(self, count):
        raise KeyboardInterrupt

    monkeypatch.setattr("castore.cli.progress.ProgressMeter.item_done", interrupt)
    run = castore("copy", "--from", "near", "--to", "far", "--all", "--json")

    assert run.exit_code == 130
    assert set(json.loads(run.stdout)) == {"blobs", "chunks", "bytes", "errors"}


def test_some_blobs(castore, digests):
    castore("copy", "--from", "near", "--to", "far", digests[1])

    assert castore("list", "--service", "far").stdout.split() == [digests[1]]


def test_one_that_is_absent_does_not_keep_the_others(castore, digests):
    """It is named, and the exit code is 1."""
    result = castore("copy", "--from", "near", "--to", "far", ABSENT, *digests)

    assert (result.exit_code, result.stderr) == (1, f"castore: no blob {ABSENT}\n")
    assert result.stdout.splitlines()[-1].split() == ["failed", "1"]
    assert castore("has", *digests, "--service", "far").exit_code == 0


def test_json(castore, place, digests):
    """Numbers, and what went wrong."""
    name = digests[0]
    (place.folder.parent / "stores" / "near" / "chunks" / "b3" / name[:4] / name).write_bytes(b"rubbish")

    result = castore("copy", "--from", "near", "--to", "far", "--all", "--json", "--workers", "3")

    document = json.loads(result.stdout)
    (error,) = document.pop("errors")
    assert document == {
        "blobs": {"copied": 2, "skipped": 0, "failed": 1},
        "chunks": {"copied": 2, "skipped": 0, "repeated": 0},
        "bytes": {"copied": 2000, "skipped": 0, "repeated": 0},
    }
    assert (result.exit_code, error["digest"], error["code"]) == (1, name, "bad-frame")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "near", "--to", "far"], "either digests, or --all"),
        (["--from", "near", "--to", "far", "--all", ABSENT], "either digests, or --all"),
        (["--from", "near", "--to", "near", "--all"], "are both `near`"),
        (["--from", "near", "--all"], "--to"),
        (["--from", "naer", "--to", "far", "--all"], "did you mean `near`?"),
        (["--from", "near", "--to", "far", "0000"], "not a digest"),
    ],
)
def test_wrong_usage(castore, digests, arguments, words):
    result = castore("copy", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_a_source_that_cannot_list_is_wrong_usage(odd):
    """Name the blobs instead."""
    place = odd("many")
    with (place.folder / "composition.toml").open("a") as file:
        file.write('[blobservices.goal]\ntype = "memory"\n')

    result = place.run("copy", "--from", "root", "--to", "goal", "--all")

    assert result.returncode == 2
    assert b"`root`, a `odd`, cannot list its blobs" in result.stderr


def test_a_service_belongs_to_other_commands(castore):
    """Nothing is copied to or from it, so it is no option to be passed over."""
    for arguments in (["copy", "--service", "bogus"], ["--service", "near", "copy"]):
        run = castore(*arguments, "--from", "near", "--to", "far", "--all")
        assert run.exit_code == 2
        assert "`copy` takes --from NAME and --to NAME, and no --service." in run.stderr


TWO = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
durability = "process"

[blobservices.spare]
type = "objectstore"
object_store_url = "file:./spare"
durability = "process"
"""


class TestTrees:
    @pytest.fixture
    def root(self, castore, place):
        place.compose(TWO)
        for name in ("a", "docs/b", "docs/c"):
            place.file(f"www/{name}", name.encode() * 500)
        return castore("import", "--ref", "www", "www").stdout[:64]

    def test_by_name_and_by_digest(self, castore, place, root):
        """With what is left over, in words and in JSON."""
        done = castore("copy", "--from", "root", "--to", "spare", "--trees", "www:docs")
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (
            0,
            "trees  1, with 1 directories copied and 0 there already",
        )
        done = castore("copy", "--from", "root", "--to", "spare", "--trees", "--json", root)
        document = json.loads(done.stdout)
        assert (document["trees"], document["directories"]) == (1, {"copied": 1, "skipped": 1})
        assert document["blobs"] == {"copied": 1, "skipped": 2, "failed": 0}
        assert castore("verify", "--service", "spare", "--read", root).exit_code == 0
        assert castore("export", "--service", "spare", root, "out").exit_code == 0
        assert castore("import", "out").stdout[:64] == root

    def test_a_blob_that_is_gone(self, castore, place, root):
        for path in place.folder.glob("store/**/*"):
            if path.is_file() and path.name == blake3(b"a" * 500).hexdigest():
                path.unlink()
        done = castore("copy", "--from", "root", "--to", "spare", "--trees", "www")
        assert done.exit_code == 1
        assert castore("ls", "--service", "spare", root).exit_code == 1

    @pytest.mark.parametrize(
        "arguments", [["--trees"], ["--trees", "--all"], ["--trees", "x", "--all"], ["--trees", "no root@@"]]
    )
    def test_mistakes(self, castore, place, root, arguments):
        assert castore("copy", "--from", "root", "--to", "spare", *arguments).exit_code == 2
