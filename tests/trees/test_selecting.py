"""What is taken of a folder: gitignore's rules as git itself has them, and the others."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobNotFoundError, Composition, SourceError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, TreePath
from castore.trees.folders import Folder
from castore.trees.importing import Imported, import_tree
from castore.trees.selecting import (
    CACHE_SIGNATURE,
    DirectoryView,
    Pattern,
    SelectedFolder,
    Selection,
    patterns_in,
)
from castore.trees.walking import walk

NAMES = [
    b"a", b"b", b"ab", b"a.b", b"x\ny", b"c\xc3\xa9", b"\xa0", b"a ", b"[a]", b"a-b", b"A", b"#a", b"!b",
    b"a\\b", b"*", b"]", b"^", b"a\t",
]  # fmt: skip
PARTS = [
    b"a", b"b", b"*", b"**", b"/", b"?", b"[ab]", b"[!a]", b"[^b]", b"[]a]", b"[a-c]", b"[[:alpha:]]",
    b"[[:upper:]a]", b"[[:punct:]]", b"[[:foo:]]", b"[", b"]", b"\\", b" ", b"!", b"#", b".", b"\xc3\xa9",
    b"\xa0", b"-", b"[z-a]", b"[\\]]", b"[a-]", b"***", b"**/", b"/**/", b"\t", b"[!/]", b"[^", b"\\ ",
    b"\\/",
]  # fmt: skip


def paths(seed: random.Random) -> dict[bytes, bool]:
    """Paths, and whether each is a folder."""
    found: dict[bytes, bool] = {}
    for _ in range(120):
        names = [seed.choice(NAMES) for _ in range(seed.randint(1, 4))]
        above = [b"/".join(names[:count]) for count in range(1, len(names))]
        if all(found.get(folder, True) for folder in above):
            found.update(dict.fromkeys(above, True))
            found.setdefault(b"/".join(names), False)
    return found


def dropped(selection: Selection, tree: dict[bytes, bool]) -> set[bytes]:
    """What a selection does not take of a tree."""
    found: set[bytes] = set()
    levels = {b"": selection.at_root()}
    for path in sorted(tree, key=lambda path: path.split(b"/")):
        folder, _, name = path.rpartition(b"/")
        if folder in found or levels[folder].reason_against(name, is_folder=tree[path]) is not None:
            found.add(path)
        elif tree[path]:
            levels[path] = levels[folder].enter(name)
    return found


def compare_with_git(place: Path, rounds: int) -> None:
    seed = random.Random(rounds)
    tree = paths(seed)
    for path, is_folder in tree.items():
        full = os.path.join(os.fsencode(place), path)
        os.makedirs(full if is_folder else os.path.dirname(full), exist_ok=True)
        if not is_folder:
            with open(full, "xb"):
                pass
    subprocess.run(["git", "init", "-q", place], check=True)
    ask = ["git", "-C", place, "-c", "core.excludesFile=", "check-ignore", "--stdin", "-z", "--no-index"]
    for _ in range(rounds):
        lines = [b"".join(seed.choices(PARTS, k=seed.randint(1, 5))) for _ in range(seed.randint(1, 4))]
        if any(b"**/" in line.strip(b"*") for line in lines):
            continue  # Git takes the asterisks in `a**/b` for a part of their own, against what it says.
        text = b"\n".join(lines) + b"\n"
        (place / ".git/info/exclude").write_bytes(text)
        answer = subprocess.run(ask, input=b"\0".join(tree), capture_output=True, check=False).stdout
        assert dropped(Selection(patterns_in(text, "rules")), tree) == set(answer.split(b"\0")) - {b""}, lines


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_rules_are_those_of_git(tmp_path: Path) -> None:
    """Random rules, and names that have what is special in rules: git is asked about each of them."""
    compare_with_git(tmp_path, 60)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_many_rules_are_those_of_git(tmp_path: Path) -> None:
    compare_with_git(tmp_path, 5000)


@pytest.mark.parametrize(
    ("lines", "gone"),
    [
        (b"*.o", "m.o d/m.o"),
        (b"/*.o", "m.o"),
        (b"d/", "d d/m.o d/e d/e/f"),
        (b"e/", "d/e d/e/f"),
        (b"d/*\n!d/e", "d/m.o"),
        (b"d/\n!d/e", "d d/m.o d/e d/e/f"),  # What lies in a folder that is dropped is not asked about.
        (b"*\n!*/\n!*.o", "d/e/f f"),
        (b"d/**", "d/m.o d/e d/e/f"),
        (b"**/f", "d/e/f f"),
        (b"d/**/f", "d/e/f"),
        (b"# m.o\n\n  \n", ""),
        (b"m.o\r\n", "m.o d/m.o"),
        (b"\xef\xbb\xbfm.o", "m.o d/m.o"),
    ],
)
def test_some_rules(lines: bytes, gone: str) -> None:
    tree = {b"m.o": False, b"f": False, b"d": True, b"d/m.o": False, b"d/e": True, b"d/e/f": False}
    assert dropped(Selection(patterns_in(lines, "rules")), tree) == set(gone.encode().split())


def test_a_reason_names_the_rule_and_its_place() -> None:
    level = Selection([Pattern(b"*.o", "--exclude"), *patterns_in(b"#\nx*\n!xy", "rules")]).at_root()
    assert level.reason_against(b"m.o", is_folder=False) == "--exclude '*.o'"
    assert level.reason_against(b"xx", is_folder=False) == "rules:2 'x*'"
    assert level.reason_against(b"xy", is_folder=False) is None


# -- of folders --


@pytest.fixture
def place(tmp_path: Path) -> Path:
    files = {
        "docs/a.txt": b"a",
        "docs/.gitignore": b"*.tmp\n!keep.tmp\n/only-here\n",
        "docs/x.tmp": b"",
        "docs/keep.tmp": b"",
        "docs/only-here": b"",
        "docs/sub/only-here": b"",
        "docs/sub/y.tmp": b"",
        "docs/sub/.gitignore": b"!y.tmp\n",
        "y.tmp": b"",
        "cache/CACHEDIR.TAG": CACHE_SIGNATURE + b"\n# and more",
        "cache/much": b"much",
        "no-cache/CACHEDIR.TAG": b"Signature: of something else, which is as long as that one",
        "no-cache/little": b"little",
        "work/.nobackup": b"",
        "work/much": b"much",
        "large": bytes(2000),
    }
    for name, data in files.items():
        path = tmp_path / "place" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "place"


@pytest.fixture
def taken(stores: Composition) -> Any:
    """Import a folder; return what is not in the tree, and why."""

    def taken(source: Path, select: Selection, **options: Any) -> tuple[dict[str, str], Imported]:
        reasons: dict[str, str] = {}
        done = import_tree(
            source,
            stores.blobs(),
            stores.directories(),
            select=select,
            dropped=lambda path, reason: reasons.update({path.decode(): reason}),
            **options,
        )
        assert done.node is not None
        below = {str(path) for path, _ in walk(stores.directories(), done.node)}
        there = {str(path.relative_to(source)) for path in source.rglob("*")}
        assert not below & {path for path, reason in reasons.items() if reason != "--one-file-system"}
        # What is not there was dropped, or is in a folder that was.
        there -= {str(path.relative_to(source)) for path in source.rglob("*") if path.is_fifo()}
        for path in there - below:
            assert any(path == reason or path.startswith(f"{reason}/") for reason in reasons), path
        return reasons, done

    return taken


@pytest.mark.parametrize(
    ("select", "reasons"),
    [
        (Selection(), {}),
        (
            Selection(ignore_files=[b".gitignore"]),
            {"docs/x.tmp": "docs/.gitignore:1 '*.tmp'", "docs/only-here": "docs/.gitignore:3 '/only-here'"},
        ),
        (
            # What was given decides before any file does.
            Selection([Pattern(b"y.tmp", "--exclude")], ignore_files=[b".gitignore"]),
            {
                "docs/x.tmp": "docs/.gitignore:1 '*.tmp'",
                "docs/only-here": "docs/.gitignore:3 '/only-here'",
                "docs/sub/y.tmp": "--exclude 'y.tmp'",
                "y.tmp": "--exclude 'y.tmp'",
            },
        ),
        (Selection(exclude_caches=True), {"cache/much": "--exclude-caches"}),
        (Selection(if_present=[b".nobackup"]), {"work/much": "--exclude-if-present '.nobackup'"}),
        (Selection(larger_than=1999), {"large": "--exclude-larger-than"}),
        (Selection(larger_than=2000), {}),
        (
            Selection(only=[b"docs/sub/y.tmp", b"work", b"large"]),
            dict.fromkeys(
                [
                    *("cache", "no-cache", "y.tmp", "work/.nobackup", "work/much", "docs/sub/only-here"),
                    *("docs/sub/.gitignore", "docs/a.txt", "docs/.gitignore", "docs/x.tmp", "docs/keep.tmp"),
                    "docs/only-here",
                ],
                "--files-from",
            ),
        ),
        (Selection(one_file_system=True), {}),
    ],
    ids=lambda each: None if isinstance(each, dict) else repr(each)[:60],
)
def test_what_is_dropped(place: Path, taken: Any, select: Selection, reasons: dict[str, str]) -> None:
    assert taken(place, select)[0] == reasons


def test_a_folder_that_is_dropped_is_not_entered(place: Path, taken: Any) -> None:
    """So it makes no difference whether it can be read, or has anything odd in it."""
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(place / "work/odd"))
        reasons, done = taken(place, Selection([Pattern(b"work/", "--exclude")]))
    assert reasons == {"work": "--exclude 'work/'"}
    assert done.problems == ()


def test_rules_that_cannot_be_read_are_a_problem(
    place: Path, stores: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what they drop would be taken without a word."""
    monkeypatch.setattr("castore.trees.selecting.MOST_RULES", 8)
    done = import_tree(
        place, stores.blobs(), stores.directories(), select=Selection(ignore_files=[b".gitignore"])
    )
    assert done.node is None
    assert [(each.path, each.kind) for each in done.problems] == [(b"docs", "unreadable")]
    assert "docs/.gitignore" in done.problems[0].message


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_rules_are_read_from_files_only(place: Path, taken: Any, kind: str) -> None:
    """As by git; nobody waits for a pipe."""
    rules = place / ".gitignore"
    if kind == "link":
        rules.symlink_to("docs/.gitignore")
    elif kind == "folder":
        rules.mkdir()
    else:
        os.mkfifo(rules)
    only = [b".gitignore"] if kind == "pipe" else []
    select = Selection(
        [Pattern(each, "--exclude") for each in (b"/" + name for name in only)], [b".gitignore"]
    )
    reasons, _ = taken(place, select)
    assert "y.tmp" not in reasons


def test_other_file_systems(place: Path, taken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the mount point is there, as an empty folder."""
    work = (place / "work").stat().st_ino
    monkeypatch.setattr(Folder, "device", property(lambda folder: folder._identity[1] == work))
    reasons, _ = taken(place, Selection(one_file_system=True))
    assert reasons == {"work": "--one-file-system"}


@pytest.mark.skipif(shutil.which("chattr") is None, reason="chattr is not installed")
def test_files_that_are_not_to_be_dumped(place: Path, taken: Any) -> None:
    marked = [place / "docs/a.txt", place / "work"]
    if any(
        subprocess.run(["chattr", "+d", path], capture_output=True, check=False).returncode for path in marked
    ):
        pytest.skip("the file system has no such attribute")
    reasons, _ = taken(place, Selection(exclude_nodump=True))
    assert reasons == {"docs/a.txt": "--exclude-nodump", "work": "--exclude-nodump"}


# -- of trees --


def test_a_tree_is_selected_as_a_folder_is(place: Path, stores: Composition) -> None:
    """By the same rules, with files of rules and tags that are in the tree."""
    blobs, directories = stores.blobs(), stores.directories()
    root = import_tree(place, blobs, directories).node
    assert isinstance(root, DirectoryNode)
    selection = Selection([Pattern(b"large", "")], ignore_files=[b".gitignore"], exclude_caches=True)

    def taken(level: SelectedFolder, directory: Directory, path: TreePath) -> Iterator[TreePath]:
        for name, node in directory.items():
            is_folder = isinstance(node, DirectoryNode)
            if level.reason_against(name, is_folder=is_folder) is None:
                yield path.join(name)
                if isinstance(node, DirectoryNode):
                    below = directories.get(node.digest)
                    assert below is not None
                    yield from taken(level.enter(name, DirectoryView(below, blobs)), below, path.join(name))

    top = directories.get(root.digest)
    assert top is not None
    found = list(taken(selection.at_root(DirectoryView(top, blobs)), top, TreePath()))
    again = import_tree(place, blobs, directories, select=selection).node
    assert again is not None
    assert found == [path for path, _ in walk(directories, again)]


def test_rules_in_a_tree_whose_blob_is_gone(stores: Composition) -> None:
    view = DirectoryView(
        Directory({b".gitignore": FileNode(B3Digest.of(b"gone"), 4)}),  # type: ignore[dict-item]
        stores.blobs(),
    )
    with pytest.raises(BlobNotFoundError):
        Selection(ignore_files=[b".gitignore"]).at_root(view)


def test_a_file_of_rules_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def head(self, name: bytes, most: int) -> bytes:
            return bytes(most)

    monkeypatch.setattr("castore.trees.selecting.MOST_RULES", 1000)
    with pytest.raises(SourceError, match="rules"):
        Selection(ignore_files=[b"rules"]).at_root(Endless())
