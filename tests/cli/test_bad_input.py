"""Whatever is given to the command line: one clear error with its exit code, and no traceback."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

ABSENT = "0" * 64
HUGE = "9" * 5000

COMPOSITIONS = [
    ("nowhere.toml", "cannot read the composition 'nowhere.toml': No such file or directory"),
    ("folder", "cannot read the composition 'folder': Is a directory"),
    ("file/x", "cannot read the composition 'file/x': Not a directory"),
    ("loop", "cannot read the composition 'loop': Too many levels of symbolic links"),
    ("dangling", "cannot read the composition 'dangling': No such file or directory"),
    ("x" * 300, "File name too long"),
    ("\udcff\udcfe", "cannot read the composition '\\udcff\\udcfe': No such file or directory"),
    ("/dev/null", "no services are declared"),
    ("file", "file:1:1: "),
    ("binary", "binary:1:1: "),
]


@pytest.fixture
def odd_place(place):
    """The place with things in it that are not what they should be."""
    place.file("file")
    place.file("binary", bytes(range(256)))
    (place.folder / "folder").mkdir()
    (place.folder / "loop").symlink_to("loop")
    (place.folder / "dangling").symlink_to("nowhere")
    return place


@pytest.mark.parametrize(("path", "words"), COMPOSITIONS, ids=range(len(COMPOSITIONS)))
@pytest.mark.parametrize("way", ["option", "variable", "argument"])
def test_what_is_no_composition(castore, odd_place, monkeypatch, path, words, way):
    if way == "variable":
        monkeypatch.setenv("CASTORE_COMPOSITION", path)
        result = castore("has", ABSENT)
    elif way == "option":
        result = castore("--composition", path, "has", ABSENT)
    else:
        result = castore("check", path)

    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def limited():
    """Not so much memory that this machine would suffer if there were no end to the reading."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


@pytest.mark.parametrize("way", ["composition", "secret"])
def test_a_device_without_end_is_no_file_to_read(place, way):
    """Neither as a composition nor as a secret; it would fill the memory."""
    place.compose('[blobservices.root]\ntype = "objectstore"\nobject_store_url = { file = "/dev/zero" }\n')
    path = {"composition": "/dev/zero", "secret": "composition.toml"}[way]
    result = place.run("check", path, preexec_fn=limited)

    assert result.returncode == 2
    assert b"is larger than " in result.stderr
    assert b"Traceback" not in result.stderr


def test_a_composition_that_is_too_large(castore, place):
    place.file("large.toml", b"#" * (5 << 20))
    result = castore("check", "large.toml")

    assert result.exit_code == 2
    assert result.stderr == "castore: cannot read the composition 'large.toml': it is larger than 4 MiB\n"


def test_the_current_folder_may_be_gone(place):
    """Then relative paths mean nothing, and that is said; what has an absolute path still works."""
    gone = place.folder / "gone"
    program = (
        "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )

    def run(*arguments):
        gone.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-c", program, "-m", "castore", *arguments],
            cwd=gone,
            env=place.environment,
            capture_output=True,
            check=False,
        )

    relative = run("--composition", "../composition.toml", "has", ABSENT)
    assert relative.returncode == 1
    assert b"Relative paths start from the current folder, which cannot be found" in relative.stderr
    assert relative.stderr.count(b"\n") == 1
    absolute = run("--composition", str(place.folder / "composition.toml"), "has", ABSENT)
    assert (absolute.returncode, absolute.stdout) == (1, f"{ABSENT}  absent\n".encode())


def test_commands_that_take_paths_name_the_current_folder_that_is_gone(castore, place):
    """Not only that there is no such file. They run in one process of their own."""
    place.file("folder/file", b"x")
    root = castore("import", "folder").stdout.split()[0]
    digest = castore("put", "folder/file").stdout.split()[0]
    commands = [
        ["import", "."],
        ["import", "--dry-run", "."],
        ["export", root, "new"],
        ["diff", root, "."],
        ["get", digest, "-o", "new"],
        ["get", digest, "-o", "new/"],
        ["mount", root, "new"],
        ["umount", "new"],
        ["serve", "--listen", "unix:socket"],
    ]
    program = (
        "import json, os, sys\n"
        "from click.testing import CliRunner\n"
        "from castore.cli.app import app\n"
        "os.rmdir(os.getcwd())\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, command, prog_name='castore')\n"
        "    print(json.dumps([done.exit_code, done.stderr]))\n"
    )
    gone = place.folder / "gone"
    gone.mkdir()
    top = ["--composition", str(place.folder / "composition.toml")]
    done = subprocess.run(
        # Without the current folder among those of modules, which Python 3.13.0 cannot do without then.
        [sys.executable, "-P", "-c", program, json.dumps([[*top, *command] for command in commands])],
        cwd=gone,
        env=place.environment,
        capture_output=True,
        check=True,
    )
    for command, line in zip(commands, done.stdout.splitlines(), strict=True):
        code, said = json.loads(line)
        assert "Relative paths start from the current folder, which cannot be found" in said, command
        assert (code, said.count("\n")) == (1, 1), command


DIGESTS = [
    "", " ", "0", "zz", "0" * 7, "0" * 65, "b3:", "blake3-=", "sha256-" + "A" * 43, "-", "\udcff", "é" * 64,
    "٣" * 64, HUGE,
]  # fmt: skip


@pytest.mark.parametrize("text", DIGESTS, ids=range(len(DIGESTS)))
@pytest.mark.parametrize("command", ["get", "has", "stat"])
def test_what_is_no_digest(castore, command, text):
    """Is wrong usage, and is not shown at length."""
    result = castore(command, "--", text)

    assert result.exit_code == 2
    assert " is not a digest: " in result.stderr
    assert len(result.stderr) < 400


NUMBERS = [
    "-1",
    "-1KiB",
    HUGE,
    "1" * 19 + "TiB",
    "9223372036854775808",
    "1e3",
    "0x1",
    "1.5",
    "nan",
    "inf",
    "",
    "٣",
    "\udcff",
    "1 parsec",
]


@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
@pytest.mark.parametrize("option", ["--offset", "--length"])
def test_what_is_no_number_of_bytes(castore, place, option, number):
    result = castore("get", ABSENT, f"{option}={number}")

    assert result.exit_code == 2
    assert f"Invalid value for '{option}': " in result.stderr
    assert len(result.stderr) < 6000


def test_the_largest_numbers_are_no_problem(castore, place):
    digest = place.file("file")
    castore("put", "file")

    assert castore("get", digest, "--length", str(2**63 - 1)).stdout == "Hello World!"
    result = castore("get", digest, "--offset", str(2**63 - 1))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"the offset {2**63 - 1} is beyond the end" in result.stderr


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere", "No such file or directory"),
        ("", "No such file or directory"),
        ("file/x", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("dangling", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("x/" * 3000, "File name too long"),
        ("\udcff\n", "No such file or directory"),
        ("/proc/self/mem", "Input/output error"),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_cannot_be_put(castore, odd_place, path, reason):
    """Does not keep the next file from being stored."""
    result = castore("put", path, "file")

    assert result.exit_code == 1
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout.endswith("  file\n")


@pytest.mark.parametrize("name", ["", " ", "nobody", "\udcff", "a\nb", "../root", "x" * 10_000], ids=range(7))
def test_what_is_no_service(castore, place, name):
    result = castore(f"--service={name}", "has", ABSENT)

    if name == "":
        # As if the option were not there: `--service "$NAME"` with a variable that is not set.
        assert (result.exit_code, result.stdout) == (1, f"{ABSENT}  absent\n")
        return
    assert result.exit_code == 2
    assert "no blob service is named" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [["graph", "--format", "gif"], ["list", "x"], ["put"], ["has"], ["nope"], ["--nope"], ["get"]],
    ids=" ".join,
)
def test_wrong_usage(castore, place, command):
    result = castore(*command)

    assert result.exit_code == 2
    assert result.stderr.startswith("castore: ")
    assert "Try `castore" in result.stderr


def test_an_error_in_json_is_json_whatever_the_bytes(castore, place):
    """A name that is no UTF-8 comes out as JSON can say it."""
    result = castore("--json", "--composition", "\udcff\n", "check")
    problems = castore("--json", "put", "\udcff\n")

    assert json.loads(result.stdout)["composition"] == "\udcff\n"
    assert json.loads(problems.stdout)["errors"][0]["path"] == "\udcff\n"


# -- what one may not do --


@pytest.fixture
def humble(place):
    """Run castore without the capabilities of root, who may read and write everything."""
    prefix = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        if not shutil.which("setpriv") or subprocess.run([*prefix, "true"], check=False).returncode:
            pytest.skip("root cannot give up its capabilities here")

    def run(*arguments):
        return subprocess.run(
            [*prefix, *place.command(*arguments)],
            cwd=place.folder,
            env=place.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def stored(place, castore):
    """A file in a store of its own; its digest."""
    place.compose('[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n')
    digest = place.file("file")
    assert castore("put", "file").exit_code == 0
    return digest


def check(result, code, *words):
    assert result.returncode == code, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_file_that_one_may_not_read(humble, place, stored):
    """Does not keep the next one from being stored."""
    place.file("next")
    (place.folder / "file").chmod(0)
    result = humble("put", "file", "next")
    check(result, 1, "cannot read 'file': Permission denied")
    assert result.stdout.endswith("  next\n")


def test_a_file_that_one_may_not_read_can_be_replaced(humble, place, stored):
    """Who may write to it may; who may not has to remove it first, though he may write to the folder."""
    place.file("old")
    (place.folder / "old").chmod(0o200)
    assert humble("get", stored, "-o", "old").returncode == 0
    (place.folder / "old").chmod(0o444)
    check(humble("get", stored, "-o", "old"), 1, "cannot write 'old': it is there, and may not be written to")
    assert (place.folder / "old").read_bytes() == b"Hello World!"


def test_a_folder_that_one_may_not_list(humble, place, stored):
    (place.folder / "folder").mkdir(mode=0)
    check(humble("put", "folder"), 1, "cannot read 'folder': Permission denied")


@pytest.mark.parametrize(
    "arguments", [["has", ABSENT], ["check", "composition.toml"], ["graph", "composition.toml"]]
)
def test_a_composition_that_one_may_not_read(humble, place, stored, arguments):
    (place.folder / "composition.toml").chmod(0)
    check(humble(*arguments), 2, "cannot read the composition 'composition.toml': Permission denied")
    named = humble("--composition", "composition.toml", "has", ABSENT)
    check(named, 2, "cannot read the composition 'composition.toml': Permission denied")


def test_a_secret_that_one_may_not_read(humble, place, stored):
    place.compose('[blobservices.root]\ntype = "objectstore"\nobject_store_url = { file = "file" }\n')
    (place.folder / "file").chmod(0)
    result = humble("has", ABSENT)
    assert result.returncode == 2
    assert (
        'composition.toml:3:20: blobservices.root.object_store_url: cannot read the secret file "file"'
        in result.stderr
    )


def test_a_folder_that_one_may_not_write_to(humble, place, stored):
    (place.folder / "out").mkdir(mode=0o500)
    words = "cannot write 'out/copy': no file can be made in the folder 'out': Permission denied"
    check(humble("get", stored, "-o", "out/copy"), 1, words)
    assert list((place.folder / "out").iterdir()) == []


def test_a_store_that_one_may_only_read(humble, place, stored):
    """Reads as ever; what it has needs no writing; what is new is refused, with the place."""
    for folder, _, _ in os.walk(place.folder / "store"):
        os.chmod(folder, 0o500)  # noqa: PTH101 - os.walk gives strings
    place.file("new", b"new")
    read = humble("get", stored)
    assert (read.returncode, read.stdout) == (0, "Hello World!")
    check(humble("put", "new"), 1, "`root` is unavailable: Permission denied", "/store/")
    for folder, _, _ in os.walk(place.folder / "store"):
        os.chmod(folder, 0o700)  # noqa: PTH101 - as above


@pytest.mark.parametrize("command", [["get"], ["has"], ["stat"]], ids=str)
def test_a_store_that_one_may_not_enter(humble, place, stored, command):
    """Is unavailable; nothing in it is called absent."""
    (place.folder / "store").chmod(0)
    check(humble(*command, stored), 1, "`root` is unavailable: Permission denied", "/store/")
    (place.folder / "store").chmod(0o700)


def test_a_chunk_that_one_may_not_read(humble, place, stored):
    (chunk,) = [path for path in (place.folder / "store" / "chunks").rglob("*") if path.is_file()]
    chunk.chmod(0)
    check(humble("get", stored), 1, "`root` is unavailable: Permission denied", str(chunk))
