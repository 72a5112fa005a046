"""`castore plugins`: what is installed, and what a composition can say to it."""

from __future__ import annotations

import json


def test_shows_types_with_their_fields(place):
    """With who brought them, what they take, the default, and the words of the class."""
    run = place.run("plugins")

    output = run.stdout.decode()
    assert run.returncode == 0
    assert "cache  blob service, from castore " in output
    assert '  write          "near" or "far" or "both" or "behind"; default "near"\n' in output
    assert "  near           reference to a blob service; required\n" in output
    assert 'size from 512 to 2097153 bytes; default "256 KiB"' in output
    assert "The average size of new chunks" in output
    assert "fastcdc-2016" in output


def test_json_has_the_same(castore):
    """For programs, such as a form that writes compositions."""
    document = json.loads(castore("plugins", "--json").stdout)

    types = {entry["tag"]: entry for entry in document["types"]}
    fields = {field["name"]: field for field in types["objectstore"]["fields"]}
    assert {"cache", "memory", "objectstore"} <= set(types)
    assert types["cache"]["formerly"] == ["combined"]
    assert (types["cache"]["url_form"], types["memory"]["url_form"]) == (False, True)
    assert types["memory"]["plugin"] == "memory"
    assert types["memory"]["distribution"].startswith("castore ")
    assert fields["object_store_url"]["required"] is True
    assert (fields["compression_level"]["default"], fields["avg_chunk_size"]["toml"]) == (3, '"256 KiB"')
    assert {entry["tag"] for entry in document["chunkers"]} >= {"fastcdc-2020", "fastcdc-2016"}
    assert document["broken"] == []


def test_shows_those_of_strangers_and_those_that_do_not_load(stranger):
    """One broken plugin hides no other, and the exit code is 0: nothing that was asked for failed."""
    run = stranger.run("plugins")
    document = json.loads(stranger.run("--json", "plugins").stdout)

    assert run.returncode == 0
    assert "odd  blob service, from stranger 1.2\n  Does what its mode says.\n" in run.stdout.decode()
    (broken,) = document["broken"]
    assert (broken["plugin"], broken["distribution"]) == ("broken", "stranger 1.2")
    assert "stranger_that_is_not_there" in broken["reason"]
    assert broken["reason"] in run.stdout.decode()


def test_needs_no_composition(castore, place):
    """A wrong one does not matter."""
    place.compose("wrong")

    assert castore("plugins").exit_code == castore("schema").exit_code == 0
