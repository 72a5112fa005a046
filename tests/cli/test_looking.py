"""`castore ls`, `tree` and `find`: what is in a tree, without that a blob is read."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def root(castore, place):
    """A small tree, whose directories are not among the blobs."""
    text = (place.folder / "composition.toml").read_text()
    place.compose(
        text + '[directoryservices.root]\ntype = "objectstore"\nobject_store_url = "file:../trees"\n'
    )
    place.file("docs/readme.md", b"Hello World!")
    place.file("docs/sub/a\nb", b"odd")
    place.file("docs/sub/deep/large.bin", b"x" * 2000)
    place.file("docs/sub/deep/caf\xe9.md", b"")
    place.file(b"docs/sub/\xff\xfe", b"y")
    (place.folder / "docs/empty").mkdir()
    (place.folder / "docs/link").symlink_to("readme.md")
    (place.folder / "docs/run").write_bytes(b"#!/bin/sh\n")
    (place.folder / "docs/run").chmod(0o755)
    return castore("import", "docs").stdout[:64]


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_tree(castore, root):
    assert castore("tree", f"{root}:sub").stdout.splitlines()[1:] == [
        '├── "a\\nb"',
        "├── deep/",
        "│   ├── café.md",
        "│   └── large.bin",
        "└── \ufffd\ufffd",
        "",
        "1 directory, 4 files of 2.0 KiB",
    ]
    assert castore("tree", "-L", "1", root).stdout == (
        f"{root}\n├── empty/\n├── link -> readme.md\n├── readme.md\n├── run\n└── sub/\n"
        "\n2 directories, 2 files of 22 bytes, 1 link\n"
    )


def test_tree_of_a_file(castore, root):
    assert castore("tree", f"{root}:readme.md").stdout.startswith(
        f"{root}:readme.md\n\n0 directories, 0 files"
    )


@pytest.mark.parametrize(("levels", "count"), [("1", 5), ("2", 8), ("3", 10), ("9", 10)])
def test_levels(castore, root, levels, count):
    assert len(rows(castore("tree", "--json", "-L", levels, root).stdout)) == count


FOUND = [
    ([], ["empty/", "link", "readme.md", "run", "sub/", '"sub/a\\nb"', "sub/deep/", "sub/deep/café.md",
          "sub/deep/large.bin", "sub/\ufffd\ufffd"]),
    (["sub"], ['"sub/a\\nb"', "sub/deep/", "sub/deep/café.md", "sub/deep/large.bin", "sub/\ufffd\ufffd"]),
    (["sub/deep/", "--type", "f"], ["sub/deep/café.md", "sub/deep/large.bin"]),
    (["readme.md"], ["readme.md"]),
    (["--name", "*.md"], ["readme.md", "sub/deep/café.md"]),
    (["--name", "caf?.md"], ["sub/deep/café.md"]),
    (["--name", "[lr]*", "--name", "empty"], ["empty/", "link", "readme.md", "run", "sub/deep/large.bin"]),
    (["--name", "*.md", "--type", "d"], []),
    (["--type", "d"], ["empty/", "sub/", "sub/deep/"]),
    (["--type", "l", "--type", "x"], ["link", "run"]),
    (["--size", "+12"], ["sub/deep/large.bin"]),
    (["--size", "+1", "--size", "-12"], ["run", '"sub/a\\nb"']),
    (["--size", "12"], ["readme.md"]),
    (["--size", "-1"], ["sub/deep/café.md"]),
    (["--size", "+1KiB"], ["sub/deep/large.bin"]),
    (["--digest", "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c"], ["readme.md"]),
    (["--digest", "5ca7815a", "--digest", "0" * 64], ["readme.md"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "found"), FOUND, ids=lambda each: " ".join(each) or "all")
def test_find(castore, root, arguments, found):
    done = castore("find", root, *arguments)
    assert (done.exit_code, done.stdout.splitlines()) == (0, found)
    named = rows(castore("find", "--json", root, *arguments).stdout)
    assert len(named) == len(found)
    assert castore("find", f"{root}:", *arguments).stdout == done.stdout


def test_find_below_a_path(castore, root):
    assert castore("find", f"{root}:sub", "deep", "--name", "l*").stdout == "sub/deep/large.bin\n"


def test_names_for_programs(place, root):
    """As they are, with a zero byte at the end of each."""
    done = place.run("find", "-0", root, "sub", "--type", "f", "--size", "-4")
    assert done.stdout == b"sub/a\nb\0sub/deep/caf\xc3\xa9.md\0sub/\xff\xfe\0"


def test_long_lines_are_those_of_ls(castore, root):
    assert castore("find", "-l", root).stdout == castore("ls", "-lR", root).stdout


def test_one_object_on_each_line(castore, root):
    listed = rows(castore("ls", "-R", "--json", root).stdout)
    assert (
        listed == rows(castore("find", "--json", root).stdout) == rows(castore("tree", "--json", root).stdout)
    )
    assert listed[1] == {"path": "link", "type": "symlink", "target": "readme.md"}
    assert listed[3]["executable"] is True
    assert listed[-1]["path"] == "sub/\udcff\udcfe"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["find", "ROOT", "nope"], 1, "has nothing at 'nope'"),
        (["find", "ROOT", "../x"], 2, "leads out of the tree"),
        (["find", "ROOT", "--size", "much"], 2, "Invalid value for '--size'"),
        (["find", "ROOT", "--size", "-0"], 2, "no file has less than 0 bytes"),
        (["find", "ROOT", "--size", ""], 2, "Invalid value for '--size'"),
        (["find", "ROOT", "--digest", "12"], 2, "Invalid value for '--digest'"),
        (["find", "ROOT", "--type", "z"], 2, "Invalid value for '--type'"),
        (["tree", "ROOT", "-L", "0"], 2, "Invalid value for '-L'"),
        (["tree", "0" * 64], 1, "no directory 0000"),
    ],
)
def test_mistakes(castore, root, arguments, code, words):
    done = castore(*(word.replace("ROOT", root) for word in arguments))
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr


@pytest.mark.parametrize("command", [["ls", "-lR"], ["tree"], ["find", "--name", "*.md"]], ids=" ".join)
def test_no_blob_is_read(castore, root, command):
    """The service of blobs is not asked for anything."""
    done = castore(*command, "--stats", "--json", root)
    assert done.exit_code == 0
    stats = json.loads(done.stderr.splitlines()[-1])["stats"]["instances"]
    assert [each["name"] for each in stats if each["operations"] and each["kind"] == "blobservices"] == []


class TestDu:
    def test_sizes(self, castore, root):
        assert castore("du", root).stdout == (
            f"files     size  distinct  tree\n    6  2.0 KiB   2.0 KiB  {root}\n"
        )
        lines = castore("du", "-d", "1", root, f"{root}:sub").stdout.splitlines()
        assert [line.split()[-1] for line in lines] == [
            "tree",
            "empty/",
            "sub/",
            root,
            "sub/deep/",
            f"{root}:sub",
            "total",
        ]

    def test_as_json(self, castore, root):
        found = rows(castore("du", "--json", root, root).stdout)
        numbers = {"files": 6, "directories": 3, "links": 1, "size": 2026, "distinct": 2026}
        assert found[0] == {"root": root, "path": "", **numbers}
        assert found[-1] == {"total": {**numbers, "files": 12, "directories": 6, "links": 2, "size": 4052}}

    def test_what_is_only_here(self, castore, place, root):
        place.file("docs/new", b"12345")
        after = castore("import", "docs").stdout[:64]
        (row, total) = rows(castore("du", "--json", after, "--not-in", root).stdout)
        assert (row["files"], row["size"], row["distinct"]) == (1, 5, 5)
        assert total["total"]["size"] == 5

    def test_chunks_and_what_is_stored(self, castore, root):
        """Where the service tells: a cache does not."""
        (row, _) = rows(castore("du", "--json", "--chunks", root).stdout)
        assert (row["chunks"], row["stored"]) == (2026, None)
        (row, _) = rows(castore("du", "--json", "--chunks", "--service", "near", root).stdout)
        assert row["chunks"] == 2026
        assert 0 < row["stored"] < 2026
        assert castore("du", "--chunks", root).stdout.split()[:5] == [
            "files",
            "size",
            "distinct",
            "chunks",
            "tree",
        ]
        head = castore("du", "--chunks", "--service", "near", root).stdout.split()[:6]
        assert head == ["files", "size", "distinct", "chunks", "stored", "tree"]

    def test_no_blob_is_asked_for(self, castore, root):
        done = castore("du", "-d", "2", root, "--stats", "--json")
        stats = json.loads(done.stderr.splitlines()[-1])["stats"]["instances"]
        assert [each["name"] for each in stats if each["operations"] and each["kind"] == "blobservices"] == []
