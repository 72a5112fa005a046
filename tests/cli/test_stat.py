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


def test_without_a_digest_it_counts_all_that_there_is(castore, place, digest):
    """The blobs, what they are made of, what that takes, and the ratios."""
    place.file("text", b"a line that says little\n" * 1000)
    castore("put", "text")

    document = json.loads(castore("stat", "--service", "near", "--json").stdout)
    rows = castore("stat", "--service", "near").stdout.splitlines()

    assert document["service"] == "near"
    assert document["blobs"] == {"count": 2, "bytes": (2 << 20) + 24_000, "unreadable": 0}
    assert document["stored"]["loose_chunks"] == 0
    assert document["compression"] > 1.0
    assert document["deduplication"] == 1.0
    assert [row.split()[0] for row in rows] == ["count", "blobs", "chunks", "compressed", "stored"]
    assert rows[1].split() == ["blobs", "2", "2.0", "MiB"]
    assert rows[2].endswith("  1.00 x by de-duplication")
    assert rows[4].endswith(" x in all")


def test_of_what_is_made_of_others_the_blobs_are_counted(castore, digest):
    """And the parts are named that tell what they store."""
    document = json.loads(castore("stat", "--json").stdout)
    text = castore("stat").stdout

    assert document["blobs"] == {"count": 1, "bytes": 2 << 20, "unreadable": 0}
    assert document["stored"] == dict.fromkeys(("bytes", "used", "loose", "indexes", "other", "loose_chunks"))
    assert document["compression"] is None
    assert text.endswith(
        "`root` does not tell what it stores; `castore stat --service NAME` does with `far`, `near`\n"
    )


def test_loose_chunks_and_unreadable_blobs_have_a_line(castore, place, digest):
    """A blob whose index is gone, and one whose index is none."""
    place.file("small", b"small")
    castore("put", "small")
    blobs = place.folder.parent / "stores/near/blobs/b3"
    (blobs / digest[:4] / digest).write_bytes(b"no index")

    rows = castore("stat", "--service", "near").stdout.splitlines()

    assert rows[4].split()[0] == "loose"
    assert rows[4].endswith("chunks that no blob is made of")
    assert rows[-1] == "1 more blob cannot be read: `castore verify` says why"


def test_a_service_that_does_not_list_cannot_be_counted(odd):
    """Which is said as it is of `list`."""
    result = odd("fine").run("stat")

    assert result.returncode == 2
    assert result.stderr == b"castore: `root`, a `odd`, cannot list its blobs\n"
