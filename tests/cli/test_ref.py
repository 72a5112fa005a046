"""`castore ref`, names as roots, and `castore import --ref` and `--snapshot`."""

from __future__ import annotations

import json
import os

import pytest

from castore import B3Digest
from castore.trees import ref_names

STORE = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
durability = "process"
"""


@pytest.fixture
def www(castore, place):
    """A folder of two versions, each a snapshot; the second is also `www`."""
    (place.folder / "composition.toml").write_text(STORE)
    (place.folder / "www/docs").mkdir(parents=True)
    (place.folder / "www/docs/a.txt").write_text("first")
    (place.folder / "www/run").write_text("#!/bin/sh\n")
    first = castore("import", "www", "--snapshot", "www", "-m", "the first\none").stdout.split()[0]
    (place.folder / "www/docs/a.txt").write_text("second")
    second = castore("import", "www", "--snapshot", "www", "--ref", "www").stdout.split()[0]
    return first, second


def test_names_stand_for_roots(castore, place, www):
    first, second = www
    assert castore("cat", "www:docs/a.txt", "www@latest:docs/a.txt").stdout == "secondsecond"
    assert castore("ls", "www").stdout == castore("ls", second).stdout == "docs/\nrun\n"
    assert castore("get", "www:run").stdout == "#!/bin/sh\n"
    listed = castore("ref", "list").stdout.splitlines()
    names = [line.split("  ")[0] for line in listed]
    assert names[0] == "www"
    assert [line.split("  ")[1] for line in listed] == [second, first, second]
    assert listed[1].endswith("Z  the first ...")
    assert castore("diff", names[1], "www").stdout == "M  docs/a.txt\n"
    assert castore("export", names[1], "restored").exit_code == 0
    assert (place.folder / "restored/docs/a.txt").read_text() == "first"


def test_several_are_exported_under_the_last_parts_of_their_names(castore, place, www):
    castore("ref", "set", "sites/main", "www")
    castore("ref", "set", "old/sites/pages", "www:docs")
    assert castore("export", "sites/main", "old/sites/pages", "www", "out").exit_code == 0
    assert sorted(path.name for path in (place.folder / "out").iterdir()) == ["main", "pages", "www"]
    assert [path.name for path in (place.folder / "out/pages").iterdir()] == ["a.txt"]
    castore("ref", "set", "other/main", "www")
    done = castore("export", "sites/main", "other/main", "two")
    assert (done.exit_code, "Two roots would be 'main'" in done.stderr) == (2, True)


def test_set_get_and_delete(castore, www):
    _, second = www
    line = castore("ref", "set", "docs", "www:docs", "-m", "a part").stdout
    assert line.startswith("docs  ")
    assert line.endswith("  a part\n")
    assert castore("ref", "get", "docs", "www").stdout.splitlines()[0] == line.strip()
    assert castore("ls", "docs").stdout == "a.txt\n"
    assert castore("ref", "set", "script", second + ":run").exit_code == 0
    assert castore("cat", "script:").stdout == "#!/bin/sh\n"
    assert castore("ref", "delete", "docs", "script").exit_code == 0
    gone = castore("ref", "delete", "docs")
    assert (gone.exit_code, gone.stderr) == (1, "castore: no ref is named `docs`\n")
    assert [line.split()[0] for line in castore("ref", "list", "docs").stdout.splitlines()] == []


def test_json(castore, place, www):
    document = json.loads(castore("ref", "get", "www", "--json").stdout)["refs"][0]
    assert document["name"] == "www"
    assert document["source"] == str(place.folder / "www")
    assert (document["comment"], document["metadata"]) == ("", None)
    rows = json.loads(castore("ref", "list", "--json").stdout)["refs"]
    assert rows[0] == document
    assert len(rows) == 3
    assert json.loads(castore("ref", "set", "b", "www", "--json").stdout)["node"] == document["node"]
    assert json.loads(castore("ref", "delete", "b", "nope", "--json").stdout) == {"deleted": ["b"]}
    imported = json.loads(castore("import", "www", "--ref", "again", "--json").stdout)["trees"][0]
    assert (imported["ref"], imported["node"]) == ("again", document["node"])


def test_what_is_expected(castore, www):
    first, second = www
    assert castore("ref", "set", "www", first, "--expect", first).exit_code == 1
    refused = castore("ref", "set", "www", first, "--new")
    assert (refused.exit_code, refused.stderr[:33]) == (1, "castore: `www` is there already: ")
    assert castore("ref", "set", "www", first, "--expect", "www@latest").exit_code == 0
    wrong = castore("ref", "delete", "www", "--expect", second)
    assert wrong.exit_code == 1
    assert f"but for {first}" in wrong.stderr
    assert castore("ref", "delete", "www", "--expect", first).exit_code == 0
    assert castore("ref", "set", "www", second, "--new").exit_code == 0


def test_a_tree_that_is_not_complete_gets_no_name(castore, place, www):
    """Unless that is what is wanted."""
    for path in [*(place.folder / "store/blobs").rglob("*"), *(place.folder / "store/chunks").rglob("*")]:
        if path.is_file() and path.name.startswith(B3Digest.of(b"#!/bin/sh\n").hex()):
            path.unlink()
    refused = castore("ref", "set", "copy", "www")
    assert refused.exit_code == 1
    assert "not complete: the file 'run', of the blob" in refused.stderr
    assert castore("ref", "get", "copy").exit_code == 1
    assert castore("ref", "set", "copy", "www", "--unchecked").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ls", "nope"], 1, "no ref is named `nope`: `castore ref list` shows"),
        (["ls", "nope@latest"], 1, "has no snapshots: `castore import --snapshot nope"),
        (["ls", "www@{2001-01-01}"], 1, "no snapshot of `www` is that old: the first one is `www/2"),
        (["ls", "www@{soon}"], 2, "'soon' is no time of a snapshot"),
        (["ls", "www@later"], 2, "after `@` comes `latest`, or a time in braces"),
        (["ref", "set", "a..b/..", "www"], 2, "begins with a dot"),
        (["ref", "set", "deadbeef", "www"], 2, "could be read as a digest"),
        (["ref", "get", "nope"], 1, "no ref is named `nope`"),
        (["ref", "list", "a b"], 2, "cannot be the name of a ref"),
        (["ref", "set", "a", "www", "--new", "--snapshot"], 2, "Only one of"),
        (["ref", "set", "a", "www", "--metadata", "0" * 64], 1, "the metadata 0000"),
        (["ref", "set", "a", "0" * 64], 1, "no directory 0000"),
        (["ref"], 2, "Commands:"),
        (["ref", "remove", "www"], 2, "No such command"),
        (["import", "www", "www/docs", "--ref", "a"], 2, "are for one SOURCE"),
        (["import", "www", "-m", "text"], 2, "give --ref NAME or --snapshot NAME"),
        (["import", "www", "--ref", "../x"], 2, "begins with a dot"),
    ],
)
def test_mistakes(castore, www, arguments, code, words):
    """One message each, and nothing is named."""
    before = castore("ref", "list").stdout
    done = castore(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert castore("ref", "list").stdout == before


def test_a_folder_that_is_not_whole_gets_no_name(castore, place, www):
    (place.folder / "www/none").symlink_to("nowhere")
    os.mkfifo(place.folder / "www/pipe")
    assert castore("import", "www", "--ref", "partly").exit_code == 1
    assert castore("ref", "get", "partly").exit_code == 1
    assert castore("import", "www", "--ref", "partly", "--skip-unreadable").exit_code == 3
    assert castore("ref", "get", "partly").exit_code == 0


def test_where_refs_cannot_be(castore, place, www):
    """What to write is said, before anything is imported."""
    (place.folder / "composition.toml").write_text(
        '[blobservices.root]\ntype = "fallback"\nservices = ["&a", "memory:"]\n' + STORE.replace("root", "a")
    )
    refused = castore("import", "www", "--ref", "a")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "[refservices.root]" in refused.stderr


@pytest.mark.parametrize("stack", ["objectstore", "retry", "cache"])
def test_a_part_of_a_tree_can_be_had_by_itself(castore, place, www, stack):
    """Where trees are kept as wholes, too: what gets a name, or is printed as a root, is stored as one."""
    around = {
        "objectstore": "",
        "retry": '[directoryservices.root]\ntype = "retry"\ninner = "&trees"\n',
        "cache": '[directoryservices.root]\ntype = "cache"\nnear = "&near"\nfar = "&trees"\n'
        '[directoryservices.near]\ntype = "sqlite"\npath = "./near"\n',
    }[stack]
    name = "trees" if around else "root"
    table = f'[directoryservices.{name}]\ntype = "objectstore"\nobject_store_url = "file:./trees"\n'
    (place.folder / "composition.toml").write_text(STORE + table + around)

    def cold():
        for path in place.folder.glob("near*"):
            path.unlink()

    (place.folder / "www/docs/deep").mkdir()
    (place.folder / "www/docs/deep/b.txt").write_text("b")
    assert castore("import", "www", "--ref", "tree").exit_code == 0
    (place.folder / "one").mkdir()
    (place.folder / "www/docs").rename(place.folder / "one/docs")
    assert castore("import", "one", "--ref", "one").exit_code == 0
    for number, arguments in enumerate(
        (
            ["ref", "set", "part", "tree:docs"],
            ["merge", "tree:docs/deep", "tree:docs/deep"],
            ["merge", "tree:docs", "one:docs/deep"],
            ["filter", "tree:docs"],
            ["filter", "tree:docs", "--exclude", "nothing"],
            ["filter", "one", "--strip", "1"],
            ["filter", "tree:docs", "--prefix", "x"],
        )
    ):
        for root in (place.folder / "trees").rglob("*"):
            # No part is a root yet.
            if root.is_file() and root.name not in kept(castore):
                root.unlink()
        cold()
        done = castore(*arguments)
        assert done.exit_code == 0, done.stderr
        root = "part" if arguments[0] == "ref" else done.stdout.strip()
        cold()
        listed = castore("ls", "-R", root)
        assert "b.txt" in listed.stdout, (number, arguments, listed.stderr)
        if root == "part":
            castore("ref", "delete", root)


def kept(castore):
    return [castore("ref", "get", name).stdout.split()[1] for name in ("tree", "one")]


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "-R"], ["tree"], ["find"], ["du"]])
def test_a_name_is_looked_up_once(castore, www, monkeypatch, arguments):
    """So what is shown is one tree, whoever sets the name meanwhile."""
    asked = []
    original = ref_names.find_ref

    def find_ref(refs, ref):
        asked.append(ref)
        return original(refs, ref)

    monkeypatch.setattr("castore.trees.naming.find_ref", find_ref)
    assert castore(*arguments, "www:docs").exit_code == 0
    assert castore("diff", "www:docs", "www@latest:docs").exit_code == 0
    assert [str(each) for each in asked] == ["www", "www", "www@latest"]


@pytest.mark.parametrize(
    "command", [["ref", "list"], ["ls", "www"], ["graph", "--connect"], ["import", "www"]]
)
def test_a_service_that_is_nowhere_is_not_passed_over(castore, place, www, command):
    """Nor where refs have a table of their own, and no blob is asked for."""
    with (place.folder / "composition.toml").open("a") as file:
        file.write('[refservices.names]\ntype = "objectstore"\nobject_store_url = "file:./store"\n')
        file.write('[refservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n')
    found = castore(*command, "--service", "bogus")
    assert found.exit_code == 2
    assert "no blob service is named `bogus`" in found.stderr
    assert castore("ref", "list", "--service", "names").exit_code == 0
