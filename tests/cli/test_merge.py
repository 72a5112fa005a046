"""`castore merge` and `filter`: new roots of others."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def roots(castore, place):
    place.file("one/a.jpg", b"a")
    place.file("one/docs/readme.md", b"Hello World!")
    place.file("other/docs/more.md", b"more")
    place.file("other/b.txt", b"b")
    return [castore("import", name).stdout[:64] for name in ("one", "other")]


def listed(castore, done):
    assert (done.exit_code, done.stderr) == (0, "")
    return castore("ls", "-R", done.stdout.strip()).stdout.split()


def test_merge(castore, roots):
    done = castore("merge", *roots)
    assert listed(castore, done) == ["a.jpg", "b.txt", "docs/", "docs/more.md", "docs/readme.md"]
    assert castore("merge", roots[0], f"{roots[0]}:").stdout == f"{roots[0]}\n"
    document = json.loads(castore("merge", "--json", *roots).stdout)
    assert document["type"] == "directory"
    assert castore("cat", f"{done.stdout.strip()}:docs/readme.md").stdout == "Hello World!"


def test_conflicts(castore, place, roots):
    place.file("one/b.txt", b"another")
    place.file("one/docs/more.md", b"another")
    root = castore("import", "one").stdout[:64]
    done = castore("merge", root, roots[1])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith("different things at 'b.txt', 'docs/more.md'\n")
    for conflict, content in (("first", "another"), ("last", "b")):
        merged = castore("merge", "--conflict", conflict, root, roots[1]).stdout.strip()
        assert castore("cat", f"{merged}:b.txt").stdout == content


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ([], ["a.jpg", "b.txt", "docs/", "docs/more.md", "docs/readme.md"]),
        (["--exclude", "*.md"], ["a.jpg", "b.txt", "docs/"]),
        (["--exclude", "*.md", "--include", "more.*"], ["a.jpg", "b.txt", "docs/", "docs/more.md"]),
        (["--exclude", "*", "--include", "*/", "--include", "*.jpg"], ["a.jpg", "docs/"]),
        (["--exclude", "*", "--include", "*/", "--include", "*.jpg", "--no-empty"], ["a.jpg"]),
        (["--exclude", "/*", "--include", "docs/"], ["docs/", "docs/more.md", "docs/readme.md"]),
        (["--exclude-larger-than", "8", "--strip", "1"], ["more.md"]),
        (
            ["--exclude-if-present", "more.md", "--prefix", "/x/"],
            ["x/", "x/a.jpg", "x/b.txt", "x/docs/", "x/docs/more.md"],
        ),
    ],
    ids=" ".join,
)
def test_filter(castore, place, roots, arguments, left):
    """What is left is what `export` and `import` take by the same rules."""
    whole = castore("merge", *roots).stdout.strip()
    rules = [each for each in arguments if each not in ("--strip", "1", "--prefix", "/x/", "--no-empty")]
    if rules == arguments:
        assert castore("export", whole, "out", *rules).exit_code == 0
        assert castore("import", "out").stdout[:64] == castore("filter", whole, *rules).stdout.strip()
    assert listed(castore, castore("filter", whole, *arguments)) == left
    assert listed(castore, castore("filter", *arguments, whole)) == left


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["filter", "ROOT", "--include", "*.none"],
            2,
            "takes in again what was left out, and nothing is before",
        ),
        (["filter", "ROOT", "--exclude", "*", "--no-empty"], 1, "nothing of"),
        (["filter", "ROOT", "--strip", "7"], 1, "nothing of"),
        (["filter", "ROOT", "--prefix", "../x"], 2, "leads out of the tree"),
        (["filter", "ROOT:nope"], 1, "has nothing at 'nope'"),
        (["merge", "ROOT", "0" * 64], 1, "no directory 0000"),
        (["merge"], 2, "Missing argument"),
        (["merge", "ROOT", "--conflict", "mine"], 2, "Invalid value"),
    ],
)
def test_mistakes(castore, roots, arguments, code, words):
    done = castore(*(word.replace("ROOT", roots[0]) for word in arguments))
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr
