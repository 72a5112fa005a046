"""`ROOT:PATH` stands wherever a digest does, for the file that is there."""

from __future__ import annotations

import pytest

HELLO = "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c"


@pytest.fixture
def root(castore, place):
    place.file("docs/sub/readme.md", b"Hello World!")
    place.file(b"docs/caf\xe9", b"odd")
    (place.folder / "docs/link").symlink_to("sub/readme.md")
    (place.folder / "docs/out").symlink_to("../x")
    return castore("import", "docs").stdout[:64]


COMMANDS = [
    ("get", "BLOB"),
    ("get", "BLOB", "--offset", "2", "--length", "3"),
    ("get", "BLOB", "BLOB"),
    ("has", "BLOB"),
    ("stat", "BLOB"),
    ("stat", "BLOB", "BLOB"),
    ("locate", "BLOB"),
    ("locate", "BLOB", "--service", "near"),
    ("explain", "BLOB", "--op", "has"),
    ("copy", "--from", "near", "--to", "far", "BLOB"),
    ("gc", "BLOB", "--service", "near", "--dry-run"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("path", ["sub/readme.md", "link"])
def test_every_command_takes_it(castore, root, arguments, path):
    """And does with it what it does with the digest of the file; links are followed."""
    blob = castore(*(HELLO if word == "BLOB" else word for word in arguments))
    found = castore(*(f"{root[:12]}:{path}" if word == "BLOB" else word for word in arguments))
    assert blob.exit_code == 0
    assert (found.exit_code, found.stdout) == (0, blob.stdout)


@pytest.mark.parametrize("arguments", [each for each in COMMANDS if each[0] != "has"], ids=" ".join)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("ROOT:nope", "has nothing at 'nope'"),
        ("ROOT:sub", "is no file but a directory"),
        ("ROOT:", "is no file but a directory"),
        ("ROOT:out", "leads out of the tree"),
        ("0" * 64 + ":a", "no directory 0000"),
    ],
)
def test_what_is_no_file(castore, root, arguments, wrong, words):
    """One message, and the exit code for what is not there."""
    done = castore(*(wrong.replace("ROOT", root) if word == "BLOB" else word for word in arguments))
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_has_tells_of_directories_too(castore, root):
    """What is not there is shown as it was written."""
    done = castore("has", f"{root}:sub", f"{root}:link", f"{root}:out", f"{root}:no", "0" * 64 + ":a")
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    assert [row[1] for row in rows] == ["present", "present", "absent", "absent", "absent"]
    assert rows[1][0] == HELLO
    assert rows[3][0] == f"{root}:no"
    assert done.exit_code == 1


def test_a_name_that_is_no_text(place, root):
    assert place.run("get", root.encode() + b":caf\xe9").stdout == b"odd"
    assert place.run("cat", root.encode() + b":caf\xe9").stdout == b"odd"


def test_trees_and_parts_of_them(castore, place, root):
    """Whatever takes a root takes what is below one."""
    assert castore("ls", f"{root}:sub").stdout == "sub/readme.md\n"
    assert castore("ls", f"{root}:link").stdout == "link\n"
    assert castore("cat", f"{root}:link").stdout == "Hello World!"
    assert castore("diff", f"{root}:sub", f"{root}:sub").exit_code == 0
    assert castore("export", f"{root}:sub", "sub").exit_code == 0
    assert castore("gc", "--tree", f"{root}:sub", "--service", "near", "--dry-run").exit_code == 0


@pytest.mark.parametrize("name", ["get", "has", "stat", "locate", "explain", "ls", "cat"])
@pytest.mark.parametrize("wrong", ["abc:x", "b3:abc", "b3:abc:x", ":x", "0" * 64 + ":../x"])
def test_wrong_usage(castore, place, name, wrong):
    done = castore(name, wrong)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Invalid value" in done.stderr
