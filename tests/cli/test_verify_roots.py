"""`castore verify ROOT...`: what is wrong with trees, and mending them."""

from __future__ import annotations

import json

import pytest

from castore import B3Digest

STORES = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
durability = "process"

[blobservices.spare]
type = "objectstore"
object_store_url = "file:./spare"
durability = "process"
"""


@pytest.fixture
def www(castore, place):
    """A tree that is called `www`, and is in `spare` as well."""
    (place.folder / "composition.toml").write_text(STORES)
    (place.folder / "www/docs").mkdir(parents=True)
    (place.folder / "www/docs/a.txt").write_text("first")
    (place.folder / "www/docs/a\nb").write_text("other")
    (place.folder / "www/run").write_text("#!/bin/sh\n")
    castore("import", "www", "--service", "spare")
    return castore("import", "www", "--metadata", "--ref", "www").stdout.split()[0]


@pytest.fixture
def remove(place):
    def remove(digest):
        paths = list(place.folder.glob(f"store/*/b3/*/{B3Digest.parse(digest).hex()}"))
        assert paths
        for path in paths:
            path.unlink()

    return remove


def digest_of(castore, place):
    """The digest of something in the tree `www`."""
    parent, _, name = place.rpartition("/")
    rows = castore("ls", f"www:{parent}", "--json").stdout.splitlines()
    (found,) = [row["digest"] for row in map(json.loads, rows) if row["path"].rpartition("/")[2] == name]
    return B3Digest.parse(found).hex()


def test_a_whole_tree(castore, www):
    result = castore("verify", "www")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("checked  2 directories, 3 files, ")
    assert second == "wrong    nothing"


@pytest.mark.parametrize(
    ("roots", "directories", "files"),
    [
        (["ROOT"], 2, 3),
        (["www", "ROOT"], 2, 3),
        (["www:docs"], 1, 2),
        (["www:run"], 0, 1),
        (["FIRST:docs/a.txt", "www:docs"], 1, 3),
    ],
)
def test_what_a_root_may_be(castore, www, roots, directories, files):
    """A name of a ref, digits, a part of a tree; each directory is looked at once."""
    named = [root.replace("ROOT", www).replace("FIRST", www[:12]) for root in roots]
    document = json.loads(castore("verify", "--json", *named).stdout)
    assert document["ok"] is True
    checked = document["checked"]
    assert (checked["roots"], checked["directories"], checked["files"]) == (len(roots), directories, files)
    assert document["sizes"] == ("snix" if directories else None)


def test_a_snapshot(castore, www):
    castore("ref", "set", "daily/2026-11-30T14-05-00Z", www)
    assert castore("verify", "daily@latest").exit_code == 0


def test_what_is_wrong_has_a_place(castore, www, remove):
    docs, run, odd = (digest_of(castore, path) for path in ("docs", "run", "docs/a\nb"))
    remove(odd)
    result = castore("verify", "www")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].split() == ["file", odd, 'www:"docs/a\\nb"', "missing-blob"]
    remove(docs)
    remove(run)
    result = castore("verify", "www", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["ok"], document["service"]) == (False, "root")
    assert [(row["what"], row["root"], row["path"], row["code"]) for row in document["findings"]] == [
        ("directory", "www", "docs", "missing-directory"),
        ("file", "www", "run", "missing-blob"),
    ]


def test_repair_fetches_directories_and_what_is_below(castore, www, remove):
    """What is in a directory that was missing is looked at as well."""
    for path in ("docs/a.txt", "docs"):
        remove(digest_of(castore, path))
    result = castore("verify", "www", "--repair-from", "spare")
    assert (result.exit_code, "mended   2 of 2" in result.stdout) == (0, True)
    assert castore("verify", "www", "--read").exit_code == 0
    assert castore("cat", "www:docs/a.txt").stdout == "first"


def test_what_cannot_be_mended(castore, www, remove):
    """The metadata are with the ref, and only here."""
    metadata = json.loads(castore("ref", "get", "www", "--json").stdout)["refs"][0]["metadata"]
    remove(metadata)
    result = castore("verify", "www", "--repair-from", "spare", "--json")
    (row,) = json.loads(result.stdout)["findings"]
    assert (result.exit_code, row["what"], row["code"]) == (1, "metadata", "missing-blob")
    assert (row["mended"], row["repair"]) == (False, "`spare` does not have the blob")


def test_a_root_that_is_fetched(castore, www, remove):
    remove(www)
    assert castore("verify", www).exit_code == 1
    assert castore("verify", www, "--repair-from", "spare").exit_code == 0
    assert castore("ls", www).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["www", "--sample", "5%"], 2, "--sample is for a whole service"),
        (["www", "--resume", "state"], 2, "--resume is for a whole service"),
        (["www", "--expect", "list"], 2, "--expect is for a whole service"),
        (["--read"], 2, "--read is for a ROOT"),
        (["no name"], 2, "no name"),
        (["nobody"], 1, "no ref is named `nobody`"),
        (["www:absent"], 1, "has nothing at 'absent'"),
        (["www", "--repair-from", "root"], 2, "which is what is checked"),
        (["www", "--repair-from", "spear"], 2, "did you mean `spare`?"),
    ],
)
def test_wrong_usage(castore, www, arguments, code, words):
    result = castore("verify", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
