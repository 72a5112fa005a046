"""`castore plugins`: what is installed, and what a composition can say to it."""

from __future__ import annotations

import json


def test_shows_a_line_for_each_type(castore):
    """Which fits on a screen; more is to be had by its name."""
    output = castore("plugins").stdout

    rows = output.splitlines()
    assert len(rows) < 50
    assert rows[0].startswith("blob services  from castore ")
    assert "  memory       Blobs in memory. URL form: `memory:`." in rows
    assert [row.split()[0] for row in rows[1:5]] == ["breaker", "cache", "error", "fallback"]
    assert "write" not in output
    assert rows[-2:] == [
        "chunkers: fastcdc-2020, fastcdc-2016",
        "`castore plugins NAME` shows the fields of one.",
    ]


def test_shows_a_type_with_its_fields(castore):
    """With who brought it, what it takes, the default, and the words of the class."""
    output = castore("plugins", "cache", "objectstore", "fastcdc-2016").stdout

    assert "cache  blob service, from castore " in output
    assert '  write          "near" or "far" or "both" or "behind"; default "near"\n' in output
    assert "  near           reference to a blob service; required\n" in output
    assert 'size from 512 to 2097153 bytes; default "256 KiB"' in output
    assert "The average size of new chunks" in output
    assert "fastcdc-2016" in output
    assert "fastcdc-2020  FastCDC" not in output
    assert "\nmemory" not in output
    document = json.loads(castore("plugins", "cache", "--json").stdout)
    assert [entry["kind"] for entry in document["types"]] == ["blob service", "directory service"]
    assert ({entry["tag"] for entry in document["types"]}, document["chunkers"]) == ({"cache"}, [])


def test_what_is_not_there_is_wrong_usage(castore):
    run = castore("plugins", "cahce")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "No type or chunker is named `cahce`. did you mean `cache`?" in run.stderr


def test_json_has_the_same(castore):
    """For programs, such as a form that writes compositions."""
    document = json.loads(castore("plugins", "--json").stdout)

    types = {entry["tag"]: entry for entry in document["types"] if entry["kind"] == "blob service"}
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
    assert "  odd          Does what its mode says. [stranger 1.2]\n" in run.stdout.decode()
    details = stranger.run("plugins", "odd").stdout.decode()
    assert "odd  blob service, from stranger 1.2\n  Does what its mode says.\n" in details
    (broken,) = document["broken"]
    assert (broken["plugin"], broken["distribution"]) == ("broken", "stranger 1.2")
    assert "stranger_that_is_not_there" in broken["reason"]
    assert broken["reason"] in run.stdout.decode()


def test_needs_no_composition(castore, place):
    """A wrong one does not matter."""
    place.compose("wrong")

    assert castore("plugins").exit_code == castore("schema").exit_code == 0
