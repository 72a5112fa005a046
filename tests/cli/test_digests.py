"""Lists of digests: one reader, for all commands that take one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from castore import B3Digest

ABSENT = "00" * 32
ONE = blake3(b"one").hexdigest()
TWO = blake3(b"two").hexdigest()


@pytest.fixture
def stored(place, castore):
    """Two blobs in `near` and `far`."""
    place.file("one", b"one")
    place.file("two", b"two")
    assert castore("put", "one", "two").exit_code == 0
    return place


LINES = {
    "digests": f"{ONE}\n{TWO}\n",
    "b3sum": f"{ONE}  one\n{TWO}  a name with spaces\n",
    "escaped": f"\\{ONE}  back\\\\slash\n\\{TWO}  new\\nline\n",
    "tagged": f"BLAKE3 (one) = {ONE}\nBLAKE3 (a) = b) = {TWO}\n",
    "tagged and escaped": f"\\BLAKE3 (back\\\\slash) = {ONE}\nBLAKE3 (two) = {TWO}\n",
    "CRLF": f"{ONE}\r\n{TWO}  two\r\n",
    "comments and empty lines": f"# mine\n\n   \n{ONE}  # the first\n  # more\n\n{TWO}\n\n",
    "other forms": f"{B3Digest.parse(ONE).sri}\nb3:{B3Digest.parse(TWO).sri.partition('-')[2]} two\n",
    "upper case, no end": f"{ONE.upper()}\n{TWO.upper()}",
    "a mark of the encoding": f"\ufeff{ONE}\n{TWO}\n",
    "present, as `has` says it": f"{ONE}  present\n{TWO}  absent\n",
    "a long line": f"{ONE}  {'x' * 200_000}\n{TWO}\n",
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_a_list_is_read_in_every_form(castore, stored, lines):
    stored.file("list", lines.encode())
    result = castore("has", "--digests", "list")

    assert (result.exit_code, result.stdout) == (0, f"{ONE}  present\n{TWO}  present\n")


COMMANDS = {
    "has": ["has", "--digests"],
    "stat": ["stat", "--digests"],
    "get": ["get", "-o", "folder/", "--digests"],
    "copy": ["copy", "--from", "near", "--to", "far", "--digests"],
    "verify": ["--service", "near", "verify", "--expect"],
    "gc": ["--service", "near", "gc", "--roots"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_takes_what_put_prints(place, castore, command):
    """Of names as no one should have them; from a file and from stdin."""
    names = ["back\\slash", "new\nline", "plain"]
    for name in names:
        place.file(name, name.encode())
    said = castore("put", *names).stdout
    place.file("list", said.encode())

    assert castore(*command, "list").exit_code == 0
    assert castore(*command, "-", stdin=said.encode()).exit_code == 0


WRONG = [
    ("list", f"{ONE}\nwhat?\n", 2, "list:2: 'what?' is not a digest"),
    ("list", f"{ONE[:63]}\n", 2, "list:1: "),
    ("list", "BLAKE3 (one) = \n", 2, "list:1: "),
    ("-", "x\n", 2, "stdin:1: 'x' is not a digest"),
    ("nowhere", "", 1, "cannot read 'nowhere': No such file or directory"),
    ("folder", "", 1, "cannot read 'folder': Is a directory"),
]


@pytest.mark.parametrize(
    ("command", "path", "lines", "code", "words"),
    [(COMMANDS["has"], *wrong) for wrong in WRONG] + [(words, *WRONG[0]) for words in COMMANDS.values()],
)
def test_what_is_wrong_with_a_list_is_said(castore, stored, command, path, lines, code, words):
    """A digest that was cut short is not passed over: what it meant would be missing."""
    stored.file("list", lines.encode())
    Path("folder").mkdir()
    result = castore(*command, path, stdin=lines.encode())

    if path == "folder":
        assert result.exit_code in {1, 2}
        assert "folder' is a directory" in result.stderr or words in result.stderr
    else:
        assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [["has"], ["get"]])
def test_neither_digests_nor_a_list_is_wrong_usage(castore, command):
    result = castore(*command)

    assert result.exit_code == 2
    assert "Missing argument 'DIGEST...', or --digests FILE" in result.stderr
    assert "Try `castore" in result.stderr


def test_a_list_from_a_pipe_without_data_yet_is_waited_for(stored):
    """Taken for its end it would be a shorter list: `gc --roots -` would remove what comes later."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, f"{ONE}\n".encode())
    process = stored.start("has", "--digests", "-", stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    timer = threading.Timer(0.7, lambda: (os.write(writing, f"{TWO}\n".encode()), os.close(writing)))
    timer.start()
    output = process.communicate(timeout=60)[0]
    timer.join()

    assert output.decode() == f"{ONE}  present\n{TWO}  present\n"


def test_a_list_may_be_longer_than_the_memory(stored):
    """A hundred thousand digests, and a line without end, in as much memory as a few need."""
    place = stored
    place.compose('[blobservices.root]\ntype = "memory"\n')
    with (place.folder / "list").open("wb") as file:
        for number in range(100_000):
            file.write(f"{number:064x}  a name\n".encode())
        file.write(ONE.encode() + b"  " + bytes(200 << 20))
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (130 << 20, 130 << 20));"
        "from castore.cli import main; main()"
    )
    run = subprocess.run(
        [place.command()[0], "-c", program, "has", "--digests", "list"],
        capture_output=True,
        check=False,
        env=place.environment | {"MALLOC_ARENA_MAX": "2"},
        cwd=place.folder,
    )

    assert (run.returncode, run.stderr) == (1, b"")
    assert len(run.stdout.splitlines()) == 100_001
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 130 << 20


# -- what the commands do with many --


def test_has_tells_of_each_in_order(castore, stored):
    """Arguments first, then the lists, each as often as it is named."""
    stored.file("list", f"{ABSENT}\n{ONE}\n{ONE}\n".encode())
    result = castore("has", TWO, "--digests", "list", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "blobs": [
            {"digest": digest, "present": present}
            for digest, present in [(TWO, True), (ABSENT, False), (ONE, True), (ONE, True)]
        ]
    }


def test_stat_of_many_is_a_line_for_each(castore, stored, place):
    """One that is not there keeps no other away."""
    large = place.file("large", bytes(range(256)) * 10_000)
    castore("put", "large")
    text = castore("stat", ONE, ABSENT, large)
    result = castore("stat", "--digests", "-", "--json", stdin=f"{ONE}\n{ABSENT}\n{large}\n".encode())

    rows = [line.split() for line in text.stdout.splitlines()]
    assert [(row[0], row[1]) for row in rows] == [(ONE, "3"), (large, "2560000")]
    assert int(rows[1][2]) > 1
    assert (text.exit_code, text.stderr) == (1, f"castore: no blob {ABSENT} in `root`\n")
    document = json.loads(result.stdout)
    assert [blob["size"] for blob in document["blobs"]] == [3, 2_560_000]
    assert [error["digest"] for error in document["errors"]] == [ABSENT]
    assert result.exit_code == 1


def test_copy_takes_a_list(castore, place):
    """And no more than that is copied."""
    place.file("one", b"one")
    place.file("two", b"two")
    castore("--service", "near", "put", "one", "two")

    assert (
        castore(
            "copy", "--from", "near", "--to", "far", "--digests", "-", stdin=f"{ONE}\n".encode()
        ).exit_code
        == 0
    )
    assert castore("--service", "far", "list").stdout == f"{ONE}\n"
    assert castore("copy", "--from", "near", "--to", "far", "--all", "--digests", "x").exit_code == 2


def test_get_puts_many_into_a_folder(castore, stored):
    """Under their digests; the folder is made, and what is absent or corrupt keeps no other away."""
    chunks = list((stored.folder.parent / "stores").glob(f"*/chunks/b3/*/{TWO}"))
    for chunk in chunks:
        chunk.write_bytes(b"rubbish")
    result = castore(
        "get", ONE, ABSENT, "--digests", "-", "-o", "new/folder/", stdin=f"{TWO}\n{ONE}\n".encode()
    )
    again = castore("get", ONE, ABSENT, TWO, "-o", "new/folder", "--json")

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert f"castore: no blob {ABSENT} in `root`\n" in result.stderr
    assert TWO in result.stderr
    assert [path.name for path in Path("new/folder").iterdir()] == [ONE]
    assert Path("new/folder", ONE).read_bytes() == b"one"
    document = json.loads(again.stdout)
    assert document["files"] == [{"digest": ONE, "path": f"new/folder/{ONE}", "size": 3}]
    assert [error["digest"] for error in document["errors"]] == [ABSENT, TWO]


def test_get_writes_many_to_stdout_in_order(castore, stored):
    """As `cat` does, each as often as it is named; the first that cannot be had ends it."""
    assert castore("get", TWO, ONE, TWO).stdout == "twoonetwo"
    broken = castore("get", TWO, ABSENT, ONE)
    assert (broken.exit_code, broken.stdout) == (1, "two")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [ONE, TWO, "-o", "file"],
            "Several blobs go into a folder, which 'file' is not; `-o file/` makes one.",
        ),
        ([ONE, TWO, "--offset", "1"], "are for one blob"),
        ([ONE, "-o", "folder/", "--length", "1"], "are for one blob"),
    ],
)
def test_wrong_usage_of_get(castore, stored, arguments, words):
    result = castore("get", *arguments)

    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert "file" not in stored.names
