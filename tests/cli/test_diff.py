"""`castore diff`: of trees, and of folders on disk."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def roots(castore, place):
    place.file("docs/readme.md", b"Hello World!")
    place.file("docs/old/name", b"something")
    place.file("docs/gone", b"x")
    before = castore("import", "docs").stdout[:64]
    place.file("docs/readme.md", b"Hello!")
    (place.folder / "docs/old").rename(place.folder / "docs/new")
    (place.folder / "docs/gone").unlink()
    place.file("docs/more", b"more")
    return before, castore("import", "docs").stdout[:64]


PLAIN = "D  gone\nA  more\nA  new/\nA  new/name\nD  old/\nD  old/name\nM  readme.md\n"


def test_letters_and_paths(castore, roots):
    assert castore("diff", *roots).stdout == castore("diff", "--name-status", *roots).stdout == PLAIN


def test_renames(castore, roots):
    done = castore("diff", "--renames", *roots)
    assert (done.exit_code, done.stdout) == (1, "D  gone\nA  more\nR  old -> new/\nM  readme.md\n")


def test_sizes(castore, roots):
    assert castore("diff", "--stat", "--renames", *roots).stdout == (
        "D  gone  1 byte\nA  more  4 bytes\nR  old -> new/\nM  readme.md  12 bytes -> 6 bytes\n"
        "4 changes: 1 added, 1 deleted, 1 with other contents, 1 renamed; 13 bytes are 10 bytes now\n"
    )
    done = castore("diff", "--stat", roots[0], roots[0])
    assert (done.exit_code, done.stdout) == (0, "0 changes\n")


def test_as_json(castore, roots):
    done = castore("diff", "--json", "--renames", *roots)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["change"] for row in rows[:-1]] == ["D", "A", "R", "M"]
    assert (rows[2]["from"], rows[2]["path"]) == ("old", "new")
    assert "from" not in rows[0]
    changes = {"D": 1, "A": 1, "R": 1, "M": 1}
    assert rows[-1] == {"total": {"changes": changes, "size_before": 13, "size_after": 10}}
    done = castore("diff", "--json", roots[0], roots[0])
    assert (done.exit_code, json.loads(done.stdout)["total"]["changes"]) == (0, {})


class TestFolders:
    @pytest.mark.parametrize("folder", ["./docs", "./docs/", "../place/docs", "FOLDER/docs"])
    def test_a_folder_is_a_side(self, castore, place, roots, folder):
        folder = folder.replace("FOLDER", str(place.folder))
        assert castore("diff", roots[0], folder).stdout == PLAIN
        assert castore("diff", folder, roots[1]).exit_code == 0
        assert castore("diff", folder, folder).exit_code == 0

    def test_a_file_is_one_too(self, castore, roots):
        assert castore("diff", f"{roots[1]}:readme.md", "./docs/readme.md").exit_code == 0
        assert castore("diff", f"{roots[0]}:readme.md", "./docs/readme.md").exit_code == 1

    def test_nothing_is_stored(self, castore, place, roots):
        place.file("docs/later", b"a new blob")
        before = castore("list").stdout
        assert castore("diff", roots[1], "./docs").stdout == "A  later\n"
        assert sorted(castore("list").stdout.split()) == sorted(before.split())

    def test_the_store_itself_is_left_out(self, castore, place, roots):
        """As `import` does."""
        place.compose('[blobservices.root]\ntype = "sqlite"\npath = "docs/blobs.sqlite"\n')
        root = castore("import", "docs").stdout[:64]
        assert castore("diff", root, "./docs").exit_code == 0

    def test_what_cannot_be_read(self, castore, place, roots):
        done = castore("diff", roots[0], "./none")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "No such file" in done.stderr
        __import__("os").mkfifo(place.folder / "docs/pipe")
        done = castore("diff", roots[0], "./docs")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "'pipe' is a pipe" in done.stderr
        assert "cannot be compared" in done.stderr

    def test_without_the_dot_it_is_a_root(self, castore, roots):
        assert castore("diff", roots[0], "docs").exit_code == 1


def test_only_one_way_to_show_it(castore, roots):
    assert castore("diff", "--stat", "--name-status", *roots).exit_code == 2
