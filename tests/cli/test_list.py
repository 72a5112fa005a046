"""`castore list`: what a service has."""

from __future__ import annotations

import json


def test_prints_each_digest_once(place):
    """One per line, in any order."""
    digests = {place.file(name, name.encode()) for name in ("a", "b", "c")}
    place.run("put", "a", "b", "c", "a")

    run = place.run("list")

    lines = run.stdout.decode().splitlines()
    assert (run.returncode, set(lines), len(lines)) == (0, digests, 3)


def test_json_has_all_digests(castore, place):
    """An empty service has an empty list."""
    assert json.loads(castore("list", "--json").stdout) == {"digests": []}
    digest = place.file("a")
    castore("put", "a")

    assert json.loads(castore("list", "--json").stdout) == {"digests": [digest]}


def test_a_service_that_cannot_list_says_so(stranger):
    """Also that its parts may; it is not an empty list."""
    stranger.compose(
        """
        [blobservices.root]
        type = "cache"
        near = "&odd"
        far = "&far"

        [blobservices.odd]
        type = "odd"

        [blobservices.far]
        type = "memory"
        """
    )

    run = stranger.run("list")

    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr.decode() == (
        "castore: `root`, a `cache`, cannot list its blobs;"
        " of its parts, try `--service NAME` with `far`, `odd`\n"
    )
    assert stranger.run("list", "--service", "far").returncode == 0
