"""`castore stat`: the size of a blob and where its chunks begin."""

from __future__ import annotations

import json
import random

import pytest

ABSENT = "00" * 32


@pytest.fixture
def digest(castore, place) -> str:
    """A blob of several chunks."""
    digest = place.file("source", random.Random(1).randbytes(2 << 20))
    castore("put", "source")
    return digest


def test_json_has_chunks_that_make_up_the_blob(place, digest):
    """Each at the end of the one before, as many bytes as the blob has, with digests that can be got."""
    document = json.loads(place.run("stat", digest, "--json").stdout)

    offset = 0
    for chunk in document["chunks"]:
        assert chunk["offset"] == offset
        offset += chunk["size"]
    assert (document["digest"], document["size"], offset) == (digest, 2 << 20, 2 << 20)
    assert len(document["chunks"]) > 2
    got = place.run("get", document["chunks"][1]["digest"])
    assert len(got.stdout) == document["chunks"][1]["size"]


def test_text_is_the_same_in_aligned_columns_without_boxes(castore, digest):
    """Plain ASCII, with every digest in full."""
    document = json.loads(castore("stat", digest, "--json").stdout)

    lines = castore("stat", digest).stdout.splitlines()

    assert lines[:4] == [
        f"digest  {digest}",
        "size    2097152 bytes (2.0 MiB)",
        f"chunks  {len(document['chunks'])}",
        "",
    ]
    assert lines[4].split() == ["offset", "size", "digest"]
    rows = [line.split() for line in lines[5:]]
    assert rows == [[str(c["offset"]), str(c["size"]), c["digest"]] for c in document["chunks"]]
    assert len({len(line) for line in lines[5:]}) == 1
    assert "".join(lines).isascii()


@pytest.mark.parametrize(("data", "size"), [(b"", "0 bytes"), (b"a", "1 byte"), (b"ab", "2 bytes")])
def test_a_small_blob_has_no_finer_chunks(castore, place, data, size):
    """It is kept whole."""
    digest = place.file("file", data)
    castore("put", "file")

    assert castore("stat", digest).stdout.splitlines()[1:] == [
        f"size    {size}",
        "chunks  none: it is kept whole",
    ]
    assert json.loads(castore("stat", digest, "--json").stdout)["chunks"] == []


def test_an_absent_blob_is_an_error(castore):
    """With the digest and the service."""
    result = castore("stat", ABSENT, "--service", "near")

    assert (result.exit_code, result.stderr) == (1, f"castore: no blob {ABSENT} in `near`\n")


def test_in_a_pipe_the_list_is_whole_and_repeated_chunks_are_counted(odd):
    """30 chunks of which 20 are different."""
    lines = odd("many").run("stat", ABSENT).stdout.decode().splitlines()

    assert lines[2] == "chunks  30 (20 different)"
    assert len(lines) == 5 + 30
