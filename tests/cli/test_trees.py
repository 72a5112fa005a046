"""`castore import`, `export`, `ls` and `cat`: a folder goes in under one digest, and comes back."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

HELLO = "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c"


@pytest.fixture
def folder(place):
    """A small folder."""
    place.file("docs/readme.md", b"Hello World!")
    place.file("docs/sub/a\nb", b"odd")
    (place.folder / "docs/link").symlink_to("readme.md")
    (place.folder / "docs/run").write_bytes(b"#!/bin/sh\n")
    (place.folder / "docs/run").chmod(0o755)
    return place.folder / "docs"


@pytest.fixture
def root(castore, folder):
    return castore("import", "docs").stdout[:64]


@pytest.mark.parametrize("name", ["import", "ingest"])
def test_in_and_out(castore, place, folder, name):
    """The line is as that of `put`; in another folder it is all there again."""
    done = castore(name, "docs")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{done.stdout[:64]}  docs\n"
    again = castore("export", done.stdout[:64], "out")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")
    assert (place.folder / "out/docs").exists() is False
    assert (place.folder / "out/readme.md").read_bytes() == b"Hello World!"
    assert (place.folder / "out/link").readlink().name == "readme.md"
    assert castore("import", "out").stdout[:64] == done.stdout[:64]


def test_listing(castore, root):
    assert castore("ls", root).stdout == "link\nreadme.md\nrun\nsub/\n"
    assert castore("ls", "-R", root).stdout == 'link\nreadme.md\nrun\nsub/\n"sub/a\\nb"\n'
    assert castore("ls", f"{root}:sub").stdout == '"sub/a\\nb"\n'
    rows = castore("ls", "-l", root).stdout.splitlines()
    assert [row[0] for row in rows] == ["l", "-", "x", "d"]
    assert rows[0].endswith("  link -> readme.md")
    assert rows[1].split()[1:] == [
        "12",
        "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c",
        "readme.md",
    ]
    entries = [json.loads(row) for row in castore("ls", "-R", "--json", root).stdout.splitlines()]
    assert entries[0] == {"path": "link", "type": "symlink", "target": "readme.md"}
    assert [each["path"] for each in entries][-1] == "sub/a\nb"


def test_a_few_digits_are_enough(castore, root):
    assert castore("ls", f"{root[:10]}:sub").stdout == '"sub/a\\nb"\n'


def test_contents(castore, root):
    assert castore("cat", f"{root}:readme.md", f"{root}:run").stdout == "Hello World!#!/bin/sh\n"


def test_a_part(castore, place, root):
    assert castore("export", f"{root}:sub", "sub").exit_code == 0
    assert (place.folder / "sub/a\nb").read_bytes() == b"odd"
    assert castore("export", f"{root}:/readme.md", "r.md").exit_code == 0
    assert (place.folder / "r.md").read_bytes() == b"Hello World!"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ls", "ROOT:nope"], 1, "has nothing at 'nope'"),
        (["cat", "ROOT:sub"], 1, "is no file"),
        (["cat", "ROOT:nope"], 1, "has nothing at 'nope'"),
        (["ls", "0" * 64], 1, "no directory 0000"),
        (["ls", "123"], 1, "no ref is named `123`"),
        (["ls", "ROOT:../x"], 2, "leads out of the tree"),
        (["export", "ROOT", "docs"], 1, "it is there already"),
        (["export", "ROOT", "none/out"], 1, "No such file or directory"),
        (["import", "none"], 1, "cannot read"),
        (["import"], 2, "Missing argument"),
    ],
)
def test_mistakes(castore, root, arguments, code, words):
    """One message each, and no traceback."""
    done = castore(*(argument.replace("ROOT", root) for argument in arguments))
    assert done.exit_code == code
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


class TestProblems:
    @pytest.fixture
    def odd(self, place, folder):
        os.mkfifo(folder / "pipe")
        return folder

    def test_no_root(self, castore, odd):
        done = castore("import", "docs")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "'pipe' is a pipe" in done.stderr
        assert "--skip-unreadable" in done.stderr

    def test_a_root_all_the_same(self, castore, odd):
        done = castore("import", "--skip-unreadable", "docs")
        assert done.exit_code == 3
        assert len(done.stdout) == 64 + 2 + len("docs\n")
        assert castore("import", "--special", "skip", "docs").exit_code == 0

    def test_as_json(self, castore, odd):
        done = castore("import", "--json", "docs", "none")
        document = json.loads(done.stdout)
        assert done.exit_code == 1
        assert document["trees"][0]["node"] is None
        assert document["trees"][0]["problems"][0]["kind"] == "special"
        assert [each["code"] for each in document["errors"]] == ["source"]

    def test_the_others_are_imported(self, castore, place, odd):
        """One that fails keeps none back."""
        place.file("more/file", b"x")
        done = castore("import", "docs", "none", "more")
        assert done.exit_code == 1
        assert done.stdout.endswith("  more\n")

    def test_a_blob_that_is_gone(self, castore, place, root):
        for path in place.folder.parent.rglob(HELLO):
            path.unlink()
        done = castore("export", root, "out")
        assert (done.exit_code, (place.folder / "out").exists()) == (1, False)
        assert "cannot write 'readme.md'" in done.stderr
        done = castore("export", "--skip-unreadable", root, "out")
        assert (done.exit_code, (place.folder / "out/run").exists()) == (3, True)


class TestCollecting:
    @pytest.fixture
    def gc(self, castore, place):
        """Collect a store in which all is old."""

        def gc(*arguments):
            for path in place.folder.parent.joinpath("stores/far").rglob("*"):
                if path.is_file():
                    os.utime(path, (1e9, 1e9))
            return castore("--service", "far", "gc", *arguments)

        return gc

    def test_a_tree_stays(self, castore, gc, place, root):
        """All of it, and nothing else."""
        other = castore("import", "docs/sub").stdout[:64]
        place.file("more/file", b"of another tree")
        gone = castore("import", "more").stdout[:64]
        done = gc("--tree", root)
        assert done.exit_code == 0
        assert castore("--service", "far", "export", root, "out").exit_code == 0
        assert castore("--service", "far", "ls", other).exit_code == 0  # it is in the first one
        assert castore("--service", "far", "ls", gone).exit_code == 1

    def test_a_tree_that_is_not_there(self, castore, gc, root):
        """Nothing goes."""
        for wrong in ("0" * 64, HELLO):
            done = gc("--tree", root, "--tree", wrong)
            assert done.exit_code == 1
            assert castore("--service", "far", "export", root, f"out-{wrong[:4]}").exit_code == 0

    def test_a_directory_that_is_gone(self, castore, gc, place, root):
        """The collection ends before anything is removed."""
        sub = castore("import", "docs/sub").stdout[:64]
        for path in place.folder.parent.rglob(sub):
            path.unlink()
        before = sorted(path.name for path in place.folder.parent.rglob("*"))
        done = gc("--tree", root)
        assert done.exit_code == 1
        assert "'sub'" in done.stderr
        assert sorted(path.name for path in place.folder.parent.rglob("*")) == before


def test_comparing(castore, place, root):
    assert castore("diff", root, root).exit_code == 0
    place.file("docs/readme.md", b"other")
    place.file("docs/more/new", b"new")
    (place.folder / "docs/run").chmod(0o644)
    (place.folder / "docs/link").unlink()
    after = castore("import", "docs").stdout[:64]
    done = castore("diff", root, after)
    assert (done.exit_code, done.stdout) == (1, "D  link\nA  more/\nA  more/new\nM  readme.md\nX  run\n")
    assert castore("diff", f"{root}:sub", f"{after}:sub").exit_code == 0
    rows = [json.loads(row) for row in castore("diff", "--json", root, after).stdout.splitlines()]
    assert [(row["change"], row["path"]) for row in rows[:2]] == [("D", "link"), ("A", "more")]
    assert rows[0]["after"] is None
    assert rows[0]["before"] == {"type": "symlink", "target": "readme.md"}


class TestExportedFolders:
    def test_bringing_up_to_date(self, castore, place, root):
        castore("export", root, "out")
        place.file("out/readme.md", b"other")
        place.file("out/mine", b"mine")
        done = castore("export", "--update", "--delete", "--dry-run", root, "out")
        assert (done.exit_code, done.stdout) == (0, "M  readme.md\nD  mine\n")
        assert (place.folder / "out/mine").exists()
        done = castore("export", "--update", "--delete", "--json", root, "out")
        document = json.loads(done.stdout)
        assert document["root"] == root
        assert {name: document[name] for name in ("written", "kept", "deleted", "bytes")} == {
            "written": 1,
            "kept": 3,
            "deleted": 1,
            "bytes": 12,
        }
        assert castore("import", "out").stdout[:64] == root

    @pytest.mark.parametrize(("mode", "seen"), [("mtime,size", 0), ("ctime,mtime,size,inode", 1), ("off", 1)])
    def test_known_files(self, castore, place, root, mode, seen):
        """What was written is not read again, as long as what is compared is as it was."""
        castore("export", root, "out")
        file = place.folder / "out/readme.md"
        status = file.stat()
        file.write_bytes(b"x" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        done = castore("export", "--update", "--json", f"--known-files={mode}", root, "out")
        assert json.loads(done.stdout)["written"] == seen

    def test_several(self, castore, place, root):
        assert castore("export", f"{root}:sub", f"{root}:readme.md", root, "out").exit_code == 0
        names = {path.name for path in (place.folder / "out").iterdir()}
        assert names == {"sub", "readme.md", root}
        done = castore("export", f"{root}:sub", f"{root}:sub", "two")
        assert (done.exit_code, "Two roots would be 'sub'" in done.stderr) == (2, True)

    def test_selection(self, castore, place, root):
        """The last rule that fits decides; what is excluded is not removed either."""
        assert castore("export", "--exclude", "/*", "--include", "/r*", root, "out").exit_code == 0
        assert {path.name for path in (place.folder / "out").iterdir()} == {"readme.md", "run"}
        place.file("out/keep.o", b"mine")
        place.file("out/go", b"mine")
        rules = ("--exclude", "*.o", "--exclude", "/sub")
        assert castore("export", "--update", "--delete", *rules, root, "out").exit_code == 0
        names = {path.name for path in (place.folder / "out").iterdir()}
        assert names == {"readme.md", "run", "link", "keep.o"}
        assert castore("export", *rules, root, "a.tar").exit_code == 0
        names = subprocess.run(
            ["tar", "-tf", "a.tar"], cwd=place.folder, check=True, capture_output=True
        ).stdout
        assert names == b"root/\nroot/link\nroot/readme.md\nroot/run\n"
        done = castore("export", "--include", "x", root, "more")
        assert (done.exit_code, "leave out all first" in done.stderr) == (2, True)

    def test_where_blobs_are_kept(self, castore, place, root):
        """Nothing is deleted around them, and nothing written into them."""
        done = castore("export", "--update", "--delete", root, "..")
        assert (done.exit_code, "--delete is not for that" in done.stderr) == (1, True)
        done = castore("export", root, "../stores/far/out")
        assert (done.exit_code, "where `far` keeps" in done.stderr) == (1, True)


class TestArchives:
    @pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.zst", "a.tar.xz", "a.tar.bz2"])
    def test_a_tar_comes_back(self, castore, place, root, name):
        done = castore("export", root, name)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        subprocess.run(["tar", "-xpf", name], cwd=place.folder, check=True)
        assert castore("import", "root").stdout[:64] == root
        assert not [each for each in place.names if "castore-" in each]

    def test_a_zip_comes_back(self, castore, place, root):
        assert castore("export", "--prefix", "docs2", root, "a.zip").exit_code == 0
        subprocess.run(["unzip", "-q", "-^", "a.zip"], cwd=place.folder, check=True)
        assert castore("import", "docs2").stdout[:64] == root

    def test_stdout(self, castore, place, root):
        castore("export", root, "a.tar")
        done = place.run("export", "--format", "tar", root, "-")
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == (place.folder / "a.tar").read_bytes()

    def test_what_is_there_stays(self, castore, place, root):
        place.file("a.tar", b"mine")
        done = castore("export", root, "a.tar")
        assert (done.exit_code, "it is there already" in done.stderr) == (1, True)
        assert (place.folder / "a.tar").read_bytes() == b"mine"

    def test_a_blob_that_is_gone(self, castore, place, root):
        """There is no archive, unless it may be left out."""
        for path in place.folder.parent.rglob(HELLO):
            path.unlink()
        done = castore("export", root, "a.tar")
        assert (done.exit_code, "a.tar" in place.names) == (1, False)
        assert "cannot write 'readme.md'" in done.stderr
        assert castore("export", "--skip-unreadable", root, "a.tar").exit_code == 3
        names = subprocess.run(
            ["tar", "-tf", "a.tar"], cwd=place.folder, check=True, capture_output=True
        ).stdout
        assert (b"root/run\n" in names, b"readme" in names) == (True, False)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["ROOT", "-"], "takes an archive"),
            (["--update", "ROOT", "a.tar"], "--update is for folders"),
            (["--read-only", "ROOT", "a.zip"], "--read-only is for folders"),
            (["--on-collision=rename", "ROOT", "a.zip"], "--on-collision is for folders"),
            (["--prefix", "a/b", "ROOT", "a.tar"], "is no name"),
            (["--prefix", "a", "ROOT", "a"], "--prefix is for archives"),
            (["--format", "tar", "--json", "ROOT", "-"], "in the midst of the archive"),
            (["--delete", "ROOT", "out"], "--delete is for --update"),
        ],
    )
    def test_wrong_usage(self, castore, place, root, arguments, words):
        done = castore("export", *(argument.replace("ROOT", root) for argument in arguments))
        assert (done.exit_code, words in done.stderr, done.stdout) == (2, True, "")
        assert not place.names & {"a.tar", "a.zip", "a", "out"}

    def test_a_folder_that_is_called_so(self, castore, place, root):
        assert castore("export", "--format", "dir", root, "a.tar").exit_code == 0
        assert castore("export", "--update", root, "a.tar").exit_code == 0
        assert (place.folder / "a.tar/run").exists()


class TestMetadata:
    @pytest.fixture
    def kept(self, castore, place, folder):
        """A folder that was imported with its metadata: its root, and their digest."""
        (folder / "readme.md").chmod(0o640)
        os.utime(folder / "readme.md", (5, 5))
        tree = json.loads(castore("import", "--json", "--metadata", "docs").stdout)["trees"][0]
        shown = castore("import", "--metadata", "docs")
        assert shown.stderr.startswith("castore: the metadata of 'docs' are ")
        return shown.stdout[:64], tree["metadata"]

    def test_they_come_back(self, castore, place, kept):
        root, metadata = kept
        done = castore("export", "--preserve", "all", "--metadata", metadata, root, "out")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        status = (place.folder / "out/readme.md").stat()
        assert (status.st_mode & 0o777, status.st_mtime) == (0o640, 5)
        castore("export", "--preserve", "times", "--metadata", metadata, f"{root}:readme.md", "file")
        status = (place.folder / "file").stat()
        assert (status.st_mode & 0o777, status.st_mtime) == (0o644, 5)

    def test_without_a_ref_that_has_them(self, castore, place, root):
        done = castore("export", "--preserve", "all", root, "out")
        assert (done.exit_code, "needs --metadata DIGEST" in done.stderr) == (2, True)

    def test_those_of_a_ref(self, castore, place, folder):
        place.compose(
            """
            [blobservices.root]
            type = "objectstore"
            object_store_url = "file:../stores/near"
            """
        )
        (folder / "readme.md").chmod(0o600)
        assert castore("import", "--metadata", "--ref", "www", "docs").exit_code == 0
        assert castore("export", "--preserve", "mode", "www", "out").exit_code == 0
        assert (place.folder / "out/readme.md").stat().st_mode & 0o777 == 0o600
        castore("import", "--ref", "bare", "docs")
        done = castore("export", "--preserve", "mode", "bare", "more")
        assert (done.exit_code, "`bare` has no metadata" in done.stderr) == (2, True)
        assert castore("export", "www", "www.tar").exit_code == 0
        names = subprocess.run(
            ["tar", "-tf", "www.tar"], cwd=place.folder, check=True, capture_output=True
        ).stdout
        assert names.startswith(b"www/\n")

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["--preserve", "colour", "ROOT", "out"], 2, "nor some of"),
            (["--metadata", HELLO, "ROOT", "out"], 2, "is for --preserve"),
            (["--preserve", "all", "--metadata", HELLO, "--read-only", "ROOT", "out"], 2, "different things"),
            (["--preserve", "all", "--metadata", HELLO, "ROOT", "ROOT", "out"], 2, "is for one root"),
            (
                ["--preserve", "times", "--metadata", HELLO, "--hardlink", "ROOT", "out"],
                2,
                "names of one file",
            ),
            (["--preserve", "all", "--metadata", "0" * 64, "ROOT", "out"], 1, "no blob 000"),
            (["--preserve", "all", "--metadata", HELLO, "ROOT", "out"], 1, "no metadata of a tree: line 1"),
        ],
    )
    def test_mistakes(self, castore, place, root, arguments, code, words):
        done = castore("export", *(argument.replace("ROOT", root) for argument in arguments))
        assert (done.exit_code, words in done.stderr, "out" in place.names) == (code, True, False)


class TestArchivesAsSources:
    @pytest.fixture
    def archive(self, castore, place, root):
        assert castore("export", "--prefix", "docs", root, "docs.tar.gz").exit_code == 0
        assert castore("export", "--prefix", "docs", root, "docs.zip").exit_code == 0

    def test_it_is_the_tree(self, castore, place, root, archive):
        done = castore("import", "docs.tar.gz", "docs.zip")
        assert done.stdout == f"{root}  docs.tar.gz\n{root}  docs.zip\n"
        data = (place.folder / "docs.tar.gz").read_bytes()
        done = castore("import", "--format", "tar", "-", stdin=data)
        assert (done.stdout, done.stderr) == (f"{root}  -\n", "")

    def test_it_is_a_file(self, castore, place, root, archive):
        done = castore("import", "--format", "file", "docs.zip")
        assert castore("get", done.stdout[:64]).stdout_bytes == (place.folder / "docs.zip").read_bytes()
        (place.folder / "docs.tar").mkdir()
        place.file("docs.tar/x")
        done = castore("import", "docs.tar")
        assert castore("ls", done.stdout[:64]).stdout == "x\n"

    def test_more_than_one_folder_at_its_top(self, castore, place, root, archive):
        subprocess.run(["tar", "-cf", "../two.tar", "run", "sub"], cwd=place.folder / "docs", check=True)
        done = castore("import", "two.tar")
        assert "more than one folder at its top" in done.stderr
        assert castore("ls", done.stdout[:64]).stdout == "run\nsub/\n"

    def test_what_is_dropped(self, castore, place, root, archive):
        done = castore("import", "--json", "--exclude", "*.md", "docs.tar.gz")
        (tree,) = json.loads(done.stdout)["trees"]
        assert tree["dropped"] == [{"path": "docs/readme.md", "rule": "--exclude '*.md'"}]
        assert tree["notes"] == []
        assert castore("ls", tree["node"]["digest"]).stdout == "link\nrun\nsub/\n"

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["-"], 2, "--format tar"),
            (["--format", "file", "-"], 2, "--format tar"),
            (["--format", "zip", "-"], 2, "name a file"),
            (["--metadata", "docs.zip"], 2, "--metadata is for folders"),
            (["--ignore-file", "x", "docs", "docs.zip"], 2, "--ignore-file is for folders"),
            (["--dry-run", "docs.zip"], 2, "--dry-run is for folders"),
            (["--format", "tar", "none.tar"], 1, "No such file"),
            (["--format", "tar", "docs"], 1, "Is a directory"),
            (["--max-files", "2", "docs.zip"], 1, "more than 2 entries"),
            (["--max-size", "5", "docs.zip"], 1, "more than 5 bytes"),
            (["cut.tar.gz"], 1, "cut short"),
        ],
    )
    def test_mistakes(self, castore, place, archive, arguments, code, words):
        place.file("cut.tar.gz", (place.folder / "docs.tar.gz").read_bytes()[:100])
        done = castore("import", *arguments)
        assert (done.exit_code, done.stdout) == (code, "")
        assert words in done.stderr


class TestMerging:
    def test_several_are_one_tree(self, castore, place, root):
        place.file("more/sub/new", b"new")
        done = castore("import", "--merge", "docs", "more")
        assert done.stdout[64:] == "  docs more\n"
        assert castore("ls", "-R", done.stdout[:64]).stdout.split("\n") == [
            *("link", "readme.md", "run", "sub/", '"sub/a\\nb"', "sub/new", "")
        ]
        other = castore("import", "more").stdout[:64]
        assert castore("merge", root, other).stdout[:64] == done.stdout[:64]
        document = json.loads(castore("import", "--merge", "--json", "docs", "more").stdout)
        assert document["merged"]["node"]["digest"]
        assert [tree["ref"] for tree in document["trees"]] == [None, None]

    def test_what_differs(self, castore, place, root):
        place.file("more/run", b"another")
        done = castore("import", "--merge", "docs", "more")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "run" in done.stderr

    def test_one_that_cannot_be_read(self, castore, place, root):
        done = castore("import", "--merge", "docs", "none")
        assert (done.exit_code, done.stdout) == (1, "")
        done = castore("import", "--merge", "--metadata", "docs")
        assert (done.exit_code, "--merge goes with neither" in done.stderr) == (2, True)


class TestSelecting:
    def test_the_last_rule_that_fits_decides(self, castore, folder):
        """In the order given, whichever options they are."""
        one = castore("import", "--dry-run", "--exclude", "r*", "--include", "run", "docs")
        other = castore(
            "import", "--dry-run", "--exclude", "x", "--include", "run", "--exclude", "r*", "docs"
        )
        assert one.stdout == "- readme.md  (--exclude 'r*')\n+ link\n+ run\n+ sub\n" + '+ "sub/a\\nb"\n'
        assert "- run  (--exclude 'r*')\n" in other.stdout
        assert (one.exit_code, other.exit_code) == (0, 0)

    def test_a_dry_run_stores_nothing(self, castore, place, folder):
        castore("import", "-n", "docs")
        assert not list(place.folder.parent.rglob(HELLO))

    def test_files_of_rules_and_lists(self, castore, place, folder):
        place.file("rules", b"# all\n*.md\n")
        place.file("list", b"./sub/a\nb\0run\0")
        place.file("docs/.gitignore", b"run\n")
        done = castore("import", "--exclude-from", "rules", "--ignore-file", ".gitignore", "docs")
        assert castore("ls", done.stdout[:64]).stdout == ".gitignore\nlink\nsub/\n"
        listed = castore("import", "-0", "--files-from", "list", "docs")
        assert castore("ls", "-R", listed.stdout[:64]).stdout == 'run\nsub/\n"sub/a\\nb"\n'

    @pytest.mark.parametrize("option", ["--exclude-from", "--files-from"])
    @pytest.mark.parametrize("kind", ["stdin", "pipe"])
    def test_what_can_be_read_once_holds_for_each_source(self, castore, place, folder, option, kind):
        """A second source without the rules would store what nobody was to see."""
        place.file("other/run", b"another")
        place.file("other/secret", b"secret")
        place.file("docs/secret", b"secret")
        rules = b"secret\n" if option == "--exclude-from" else b"run\n"
        if kind == "stdin":
            done = castore("import", option, "-", "docs", "other", stdin=rules)
        else:
            os.mkfifo(place.folder / "pipe")
            process = place.start("import", option, "pipe", "docs", "other", stdout=subprocess.PIPE)
            with (place.folder / "pipe").open("wb") as pipe:
                pipe.write(rules)
            done = place.run("ls", process.communicate(timeout=60)[0].splitlines()[1][:64])
            assert done.stdout == b"run\n"
            return
        assert done.exit_code == 0
        listed = [castore("ls", line[:64]).stdout.split() for line in done.stdout.splitlines()]
        assert listed[1] == ["run"]
        assert "secret" not in listed[0]

    def test_stdin_is_for_one_option(self, castore, folder):
        done = castore("import", "--exclude-from", "-", "--files-from", "-", "docs", stdin=b"run\n")
        assert (done.exit_code, "cannot both be read from stdin" in done.stderr) == (2, True)

    def test_what_is_listed_and_left_out_is_no_problem(self, castore, place, folder):
        """Nor is what lies in a folder that is left out."""
        place.file("list", b"run\nreadme.md\nsub/a\n")
        place.file("docs/sub/a")
        rules = ("--exclude", "*.md", "--exclude", "sub")
        done = castore("import", "--files-from", "list", *rules, "docs")
        assert (done.exit_code, done.stderr) == (0, "")
        assert castore("ls", done.stdout[:64]).stdout == "run\n"

    def test_what_files_of_rules_leave_out_is_taken_in_again(self, castore, place, folder):
        place.file("docs/.gitignore", b"run\n*.md\n")
        root = castore("import", "docs").stdout[:64]
        rules = ("--ignore-file", ".gitignore", "--include", "run")
        done = castore("import", *rules, "docs")
        assert castore("ls", done.stdout[:64]).stdout == ".gitignore\nlink\nrun\nsub/\n"
        assert castore("export", *rules, root, "out").exit_code == 0
        assert castore("import", "out").stdout[:64] == done.stdout[:64]

    def test_a_list_that_names_what_is_not_there(self, castore, place, folder):
        place.file("list", b"run\nnone\n")
        done = castore("import", "--files-from", "list", "docs")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "'none' is listed" in done.stderr
        assert castore("import", "--skip-unreadable", "--files-from", "list", "docs").exit_code == 3

    def test_as_json(self, castore, folder):
        done = castore("import", "--json", "--exclude", "run", "docs")
        (tree,) = json.loads(done.stdout)["trees"]
        assert tree["dropped"] == [{"path": "run", "rule": "--exclude 'run'"}]
        dry = castore("import", "--json", "-n", "--exclude", "run", "docs")
        (tree,) = json.loads(dry.stdout)["trees"]
        assert tree["taken"] == ["link", "readme.md", "sub", "sub/a\nb"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--include", "x"], "leave out all first"),
            (["--exclude-from", "none"], "cannot read 'none'"),
            (["--ignore-file", "a/b"], "no path"),
            (["--files-from", "bad"], "may lead out"),
            (["--exclude-larger-than", "much"], "much"),
        ],
    )
    def test_mistakes(self, castore, place, folder, arguments, words):
        place.file("bad", b"../x\n")
        done = castore("import", *arguments, "docs")
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr

    def test_known_files(self, castore, folder):
        """What was just written is not remembered, and `off` reads all; the root is the same."""
        found = [
            json.loads(castore("import", "--json", "--known-files", mode, "docs").stdout)["trees"][0]
            for mode in ("mtime,size", "mtime,size", "off")
        ]
        assert [each["known"] for each in found] == [0, 0, 0]
        assert found[0]["node"] == found[1]["node"] == found[2]["node"]
