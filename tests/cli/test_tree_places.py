"""`ROOT:PATH` stands wherever a digest does, for the file that is there."""

from __future__ import annotations

import json

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
    if (arguments[0], wrong) == ("gc", "ROOT:"):
        pytest.skip("gc keeps a whole tree as well")
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
@pytest.mark.parametrize("wrong", ["a b:x", "b3:abc", "b3:abc:x", ":x", "0" * 64 + ":../x"])
def test_wrong_usage(castore, place, name, wrong):
    done = castore(name, wrong)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Invalid value" in done.stderr


class TestIntoAFolder:
    def test_files_of_trees_have_their_names(self, place, root):
        """Others are named by their digests; the same file may be there twice."""
        paths = (b":caf\xe9", b":link", b":sub/readme.md")
        done = place.run("get", *(root.encode() + path for path in paths), HELLO, "-o", "out/")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        written = {path.name: path.read_bytes() for path in (place.folder / "out").iterdir()}
        hello = b"Hello World!"
        assert written == {"caf\udce9": b"odd", "link": hello, "readme.md": hello, HELLO: hello}

    def test_one_alone(self, castore, place, root):
        (place.folder / "out").mkdir()
        assert castore("get", f"{root}:sub/readme.md", "-o", "out").exit_code == 0
        assert castore("get", f"{root}:sub/readme.md", "-o", "copy.md").exit_code == 0
        assert (place.folder / "out/readme.md").read_bytes() == (place.folder / "copy.md").read_bytes()

    def test_two_of_one_name(self, castore, place, root):
        """An error, before anything is written; but one file given twice is none."""
        place.file("docs/readme.md", b"another")
        other = castore("import", "docs").stdout[:64]
        done = castore("get", f"{root}:sub/readme.md", f"{other}:readme.md", "-o", "out/")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "would both be named 'readme.md'" in done.stderr
        assert list((place.folder / "out").iterdir()) == []
        assert castore("get", f"{root}:sub/readme.md", f"{other}:sub/readme.md", "-o", "out/").exit_code == 0

    def test_a_large_file_by_two_names(self, castore, place, root):
        data = bytes(range(256)) * (1 << 13)
        place.file("docs/large", data)
        (place.folder / "docs/again").symlink_to("large")
        after = castore("import", "docs").stdout[:64]
        assert castore("get", f"{after}:large", f"{after}:again", "-o", "out/").exit_code == 0
        for name in ("large", "again"):
            assert (place.folder / "out" / name).read_bytes() == data

    def test_few_calls(self, castore, place, root):
        """The small ones come together, and each directory on the way is read once."""
        for number in range(300):
            place.file(f"docs/many/deep/{number}", b"%d" % number)
        after = castore("import", "docs").stdout[:64]
        places = [f"{after}:many/deep/{number}" for number in range(300)]
        done = castore("get", *places, "-o", "out/", "--service", "near", "--stats", "--json")
        assert done.exit_code == 0
        assert len(list((place.folder / "out").iterdir())) == 300
        instances = json.loads(done.stderr.splitlines()[-1])["stats"]["instances"]
        (near,) = [each for each in instances if each["operations"]]
        calls = {name: each["calls"] for name, each in near["operations"].items()}
        # 3 directories; of blobs whose sizes it does not know a call is for 16.
        assert calls == {"get_chunks": 3 + 300 // 16 + 1}
