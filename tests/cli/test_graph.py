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
