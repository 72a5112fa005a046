"""`castore schema`: the command; what is in it is tested with the module that makes it."""

from __future__ import annotations

import json


def test_prints_the_schema_of_the_installed_types(stranger):
    """With those of strangers."""
    run = stranger.run("schema")

    document = json.loads(run.stdout)
    assert run.returncode == 0
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"blobservices.cache", "blobservices.odd"} <= set(document["$defs"])


def test_of_a_file_it_knows_the_names(castore, place):
    """Also if it is half written; what cannot be read is wrong usage."""
    (place.folder / "half.toml").write_text(
        '[blobservices.root]\ntype = "cache"\nnear = "&lo\n[blobservices.local]\n'
    )
    document = json.loads(castore("schema", "half.toml").stdout)
    near = document["$defs"]["blobservices.cache"]["properties"]["near"]
    assert near["anyOf"][0]["enum"] == ["&root", "&local"]
    run = castore("schema", "nowhere.toml")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "Cannot read nowhere.toml: No such file or directory." in run.stderr


def test_json_is_what_it_prints_anyway(castore):
    """`--json` changes nothing."""
    assert castore("schema", "--json").stdout == castore("schema").stdout
