"""`castore graph`: the composition as a drawing, to look at or to work with."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest


def test_draws_a_tree(place):
    """Unless told otherwise."""
    run = place.run("graph")

    assert run.returncode == 0
    assert [line.split()[-1] for line in run.stdout.decode().splitlines()] == [
        "cache",
        "file:../stores/near",
        "file:../stores/far",
    ]
    assert not (place.folder.parent / "stores").exists()


@pytest.mark.parametrize("format_", ["tree", "mermaid", "dot", "svg", "json"])
def test_draws_in_each_format(castore, format_):
    """All have all names."""
    output = castore("graph", "--format", format_).stdout

    assert output.endswith("\n")
    assert all(name in output for name in ("root", "near", "far"))


def test_json_is_a_format(castore):
    """`--json` means the same."""
    assert castore("graph", "--json").stdout == castore("graph", "--format", "json").stdout
    assert {node["name"] for node in json.loads(castore("--json", "graph").stdout)["nodes"]} == {
        "root",
        "near",
        "far",
    }


def test_json_and_another_format_are_wrong_usage(castore):
    """One of the two must be a mistake."""
    assert castore("graph", "--json", "--format", "svg").exit_code == 2


def test_writes_a_file_in_the_format_of_its_ending(castore, place):
    """Whole or not at all, as `get` does; `--format` comes first."""
    assert castore("graph", "-o", "a.svg").stdout == ""
    castore("graph", "-o", "a.txt")
    castore("graph", "-o", "a.json", "--format", "dot")
    refused = castore("graph", "-o", "nowhere/a.svg")

    assert ET.parse("a.svg").getroot().tag.endswith("svg")
    assert Path("a.txt").read_text() == castore("graph").stdout
    assert Path("a.json").read_text() == castore("graph", "--format", "dot").stdout
    assert (refused.exit_code, "cannot write" in refused.stderr) == (1, True)
    assert place.names == {"composition.toml", "a.svg", "a.txt", "a.json"}


def test_draws_only_what_a_service_needs(castore):
    """If one is named; it is the root of the drawing."""
    document = json.loads(castore("graph", "--service", "near", "--json").stdout)

    assert [node["name"] for node in document["nodes"]] == ["near"]
    assert document["roots"] == ["blobservices.near"]


def test_takes_a_file(castore, place):
    """As `check` does; a wrong one has exit code 2."""
    place.compose('[blobservices.root]\ntype = "memory"', "other.toml")
    place.compose('[blobservices.root]\ntype = "memry"', "wrong.toml")

    assert castore("graph", "other.toml").stdout == "root  memory\n"
    assert castore("graph", "wrong.toml").exit_code == 2
    assert castore("graph", "--service", "nowhere").exit_code == 2


def test_text_goes_through_where_its_letters_do_not(place):
    """A terminal of another age gets question marks, not an error."""
    run = place.run("graph", environment={"PYTHONIOENCODING": "ascii"})

    assert (run.returncode, b"? near" in run.stdout) == (0, True)


LIVE = """
[blobservices.root]
type = "fallback"
services = ["&fine", "&down", "memory:"]
[blobservices.fine]
type = "odd"
[blobservices.down]
type = "odd"
mode = "down"
secret = "${CANARY}"
"""


@pytest.fixture
def live(stranger, monkeypatch):
    monkeypatch.setenv("CANARY", "hunter2-and-more")
    stranger.compose(LIVE)
    return stranger


def test_connect_draws_how_each_instance_is(live, castore):
    """Whether it answers, what it tells of itself, and its error; also one that is made by a URL."""
    result = castore("graph", "--connect")

    # A service that cannot answer makes the answer of those before it unknown.
    root, *lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert root.startswith("root  fallback  [unavailable: ")
    assert lines == [
        "├── services[0] → fine  odd  [healthy: full, to_send 3]",
        "├── services[1] → down  odd  [unavailable: to_send 3, `odd` is unavailable: refused with ***]",
        "└── services[2] → memory  [healthy]",
    ]
    assert "hunter2" not in result.output


@pytest.mark.parametrize("format_", ["mermaid", "dot", "svg", "json"])
def test_connect_draws_so_in_each_format(live, castore, format_):
    """In SVG what is too long for a card is in its tooltip."""
    output = castore("graph", "--connect", "--format", format_).stdout

    for word in ("healthy", "unavailable", "full"):
        assert word in output
    assert ("refused with ***" in output) == (format_ != "mermaid")
    assert ("refused with #42;#42;#42;" in output) == (format_ == "mermaid")


def test_json_has_the_numbers(live, castore):
    """All of them, also those that are 0."""
    nodes = {
        node["name"]: node for node in json.loads(castore("graph", "--connect", "--json").stdout)["nodes"]
    }

    assert nodes["fine"]["gauges"] == {"is_full": 1, "to_send": 3, "failed": 0}
    assert (nodes["fine"]["state"], nodes["fine"]["note"]) == ("healthy", "full, to_send 3")
    assert nodes[""]["gauges"] == {}


def test_connect_waits_no_longer_than_said(stranger):
    """For one that hangs; the process ends all the same."""
    stranger.compose('[blobservices.root]\ntype = "odd"\nmode = "hanging"\n')

    run = stranger.run("graph", "--connect", "--timeout", "100ms")

    assert run.stdout.decode() == "root  odd  [unavailable: to_send 3, no answer within 0.1 s]\n"
    assert run.returncode == 0


def test_connect_asks_only_what_a_service_needs(castore, place):
    """If one is named; and no store is made by it."""
    place.compose(
        """
        [blobservices.root]
        type = "objectstore"
        object_store_url = "sftp://nowhere.invalid/x"
        [blobservices.near]
        type = "objectstore"
        object_store_url = "file:../stores/near"
        """
    )
    output = castore("graph", "--connect", "--service", "near").stdout

    assert output == "near  objectstore  file:../stores/near  [healthy]\n"
    assert not (place.folder.parent / "stores").exists()
