"""`castore has`: which blobs are there, for people and for `if`."""

from __future__ import annotations

import json

ABSENT = "00" * 32


def test_says_for_each_digest_whether_it_is_there(place):
    """In the order of the arguments; the exit code is 1 unless all are there."""
    digest = place.file("file")
    place.run("put", "file")

    both = place.run("has", digest, ABSENT)
    one = place.run("has", digest.upper())

    assert (both.returncode, both.stdout.decode()) == (1, f"{digest}  present\n{ABSENT}  absent\n")
    assert (one.returncode, one.stdout.decode()) == (0, f"{digest}  present\n")


def test_json_has_a_row_for_each_digest(castore, place):
    """And the same exit code."""
    result = castore("has", ABSENT, "--json")

    assert json.loads(result.stdout) == {"blobs": [{"digest": ABSENT, "present": False}]}
    assert result.exit_code == 1


def test_a_store_that_is_down_is_neither_present_nor_absent(odd):
    """An error on stderr, nothing on stdout."""
    run = odd("down").run("has", ABSENT)

    assert (run.returncode, run.stdout) == (1, b"")
    assert run.stderr == b"castore: `odd` is unavailable: refused with ***\n"


def test_asks_the_service_that_is_named(castore, place):
    """`near` has what was put there alone."""
    digest = place.file("file")
    castore("put", "file", "--service", "near")

    assert castore("has", digest, "--service", "near").exit_code == 0
    assert castore("--service", "far", "has", digest).exit_code == 1
