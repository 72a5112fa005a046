"""The frame around the commands: options, help, errors, exit codes, secrets, and what starting costs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from fsspec.registry import _registry

import castore.cli
from castore.cli.app import COMMANDS, app

ABSENT = "00" * 32


def command_of(name: str) -> click.Command:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    return command


def test_the_list_of_commands_is_that_of_the_design():
    """And each has a module."""
    assert list(COMMANDS) == [
        *(
            "put",
            "get",
            "has",
            "stat",
            "list",
            "import",
            "ingest",
            "export",
            "ls",
            "tree",
            "find",
            "du",
            "cat",
            "diff",
            "merge",
            "filter",
            "ref",
            "locate",
            "explain",
            "copy",
            "verify",
            "gc",
        ),
        "serve",
        "http",
        "mount",
        "umount",
        *("check", "graph", "plugins", "schema", "help"),
    ]
    assert {command_of(name).name for name in COMMANDS} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_an_example_and_no_line_too_long(castore, name, option):
    """For each command, in 80 columns."""
    result = castore(name, option)

    assert result.exit_code == 0
    assert f"Usage: castore {name} " in result.stdout
    assert f"\n    castore {name}" in result.stdout or f"| castore {name}" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_help_names_all_commands_and_the_ways_to_complete(castore):
    """As does `castore` alone, which is wrong usage."""
    shown = castore("--help")
    bare = castore()

    assert (shown.exit_code, bare.exit_code, bare.stdout) == (0, 2, "")
    assert bare.stderr == shown.stdout
    for words in (*COMMANDS.values(), "_CASTORE_COMPLETE=bash_source castore", "Exit codes"):
        assert words in shown.stdout


def test_version_is_that_of_the_distribution(place):
    """As `castore VERSION`."""
    assert place.run("--version").stdout == f"castore {version('castore')}\n".encode()


def test_the_entry_point_is_the_same_program(place):
    """`castore` and `python -m castore` differ in no byte."""
    program = Path(sys.executable).with_name("castore")
    if not program.exists():
        pytest.skip("castore is not installed here")

    run = subprocess.run([program, "--help"], capture_output=True, check=False, env=place.environment)

    assert run.stdout == place.run("--help").stdout


# -- shared options --


def arguments_with(order: str, options: list[str], *command: str) -> list[str]:
    return [*options, *command] if order == "before" else [*command, *options]


def test_shared_options_stand_before_or_after_the_command(castore, place, order):
    """With the same effect."""
    place.compose('[blobservices.root]\ntype = "memory"\n[blobservices.b]\ntype = "memory"', "other.toml")
    options = ["--composition", "other.toml", "--service", "b", "--json"]

    result = castore(*arguments_with(order, options, "check"))

    assert [row["name"] for row in json.loads(result.stdout)["instances"]] == ["b"]


def test_an_option_after_the_command_wins(castore, place):
    """It is nearer to what it is about."""
    assert castore("--service", "nowhere", "has", ABSENT, "--service", "near").exit_code == 1


def test_the_environment_names_a_composition(castore, place, monkeypatch):
    """Unless an option does."""
    place.compose('[blobservices.root]\ntype = "memory"', "other.toml")
    monkeypatch.setenv("CASTORE_COMPOSITION", "other.toml")

    assert castore("graph").stdout == "root  memory\n"
    assert castore("graph", "--composition", "composition.toml").stdout != "root  memory\n"


# -- errors --


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frob"], "There is no command 'frob'."),
        (["chek"], "Did you mean `check`?"),
        (["--frob"], "No such option"),
        (["put"], "Missing argument 'PATH...'"),
        (["has"], "Missing argument 'DIGEST...'"),
        (["check", "a", "b"], "unexpected extra argument"),
        (["stat", "x"], "'x' is not a digest"),
        (["graph", "--format", "png"], "png"),
        (["--composition", "nowhere", "list"], "cannot read the composition"),
        (["--service", "nera", "list"], "did you mean `near`?"),
    ],
)
def test_wrong_usage_has_exit_code_2_and_one_message(castore, order, arguments, words):
    """With `--json` it is JSON on stderr, wherever the option stands."""
    plain = castore(*arguments)
    machine = castore(*arguments_with(order, ["--json"], *arguments))

    for result in (plain, machine):
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr
    assert plain.stderr.startswith("castore: ")
    assert words in plain.stderr
    error = json.loads(machine.stderr)["error"]
    assert words in error["message"]
    assert error["code"] in {"usage", "composition"}


def test_json_after_two_dashes_is_a_name(castore, place):
    """Errors stay text then."""
    assert castore("put", "--", "--json").stderr.startswith("castore: cannot read '--json'")


def test_an_error_in_json_has_the_code_of_its_class(castore):
    """And, if it is about a composition, its problems."""
    absent = json.loads(castore("--json", "get", ABSENT).stderr)
    wrong = json.loads(castore("--json", "list", "--composition", "nowhere").stderr)

    assert absent == {"error": {"code": "blob-not-found", "message": f"no blob {ABSENT} in `root`"}}
    assert [problem["code"] for problem in wrong["error"]["problems"]] == ["composition"]


def test_debug_shows_the_traceback(castore, order):
    """After the message, and nowhere else."""
    shown = castore(*arguments_with(order, ["--debug"], "get", ABSENT))

    assert shown.exit_code == 1
    assert shown.stderr.startswith(f"castore: no blob {ABSENT}")
    assert "Traceback (most recent call last)" in shown.stderr


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        (
            "bug",
            1,
            "castore: ZeroDivisionError: a mistake\nThis is a mistake in castore or in a plugin; `--debug`",
        ),
        ("down", 1, "castore: `odd` is unavailable"),
        ("unbuildable", 2, "castore: cannot build `root`: "),
        ("interrupted", 130, ""),
        ("fine", 1, f"castore: no blob {ABSENT} in `root`\n"),
    ],
)
def test_each_failure_has_its_exit_code_and_no_traceback(odd, mode, code, words):
    """0 done, 1 failed, 2 wrong, 130 interrupted."""
    run = odd(mode).run("get", ABSENT)

    assert (run.returncode, run.stdout) == (code, b"")
    assert words in run.stderr.decode()
    assert b"Traceback" not in run.stderr
    assert bool(words) or run.stderr == b""


def test_a_driver_that_is_not_installed_is_a_matter_of_config(castore, place, monkeypatch):
    """The message says what to install, and the exit code is 2."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    # Another test may have had it loaded.
    monkeypatch.delitem(_registry, "s3", raising=False)
    place.compose(
        '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "s3://bucket"\ndriver = "fsspec"'
    )

    result = castore("has", ABSENT)

    assert result.exit_code == 2
    assert "pip install 'castore[s3]'" in result.stderr


# -- secrets --

CANARY = "hunter2-and-more"


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "--connect"],
        ["check", "--json"],
        *(["graph", "--format", name] for name in ("tree", "mermaid", "dot", "svg", "json")),
        ["plugins"],
        ["schema"],
        ["list", "--debug"],
        ["put", "composition.toml", "--debug"],
        ["get", ABSENT, "--debug"],
        ["has", ABSENT, "--json"],
        ["put", "composition.toml", "--json"],
    ],
)
@pytest.mark.parametrize("mode", ["down", "unbuildable", "fine"])
def test_secrets_are_never_shown(castore, odd, mode, arguments):
    """Even if a plugin puts them in its errors, and even in a traceback."""
    place = odd(mode)
    place.compose(
        (place.folder / "composition.toml").read_text()
        + """
        [blobservices.store]
        type = "objectstore"
        object_store_url = "memory:"
        object_store_options = { key = "${CANARY}", nested = { token = "Bearer ${CANARY}" } }
        """.replace("        ", "")
    )

    result = castore(*arguments)

    assert CANARY not in result.output
    assert result.output or result.exit_code == 0


# -- what starting costs --


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"rich", "cattrs", "tomli", "castore.composition", "castore.drawing"}),
        (["put", "--help"], {"rich", "cattrs", "tomli", "castore.composition", "castore.cli.get"}),
        (
            ["has", ABSENT],
            {"rich", "castore.drawing", "castore.cli.get", "fsspec", "pyfastcdc", "castore_mirror.config"},
        ),
        (["put", "file"], {"rich", "castore.drawing", "google.protobuf"}),
        (["stat", ABSENT], {"rich"}),
        (["check", "--connect"], {"rich"}),
    ],
)
def test_a_command_imports_only_what_it_needs(place, arguments, unwanted):
    """rich, above all, takes longer than most commands."""
    place.file("file")
    program = (
        "import sys\nfrom castore.cli.app import app\n"
        f"try: app.main({arguments!r})\nexcept SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=place.environment
    )

    assert not unwanted & set(run.stderr.split())
    assert "castore.cli.app" in run.stderr


def test_garbage_is_collected_once_a_command_has_started(place):
    """A long `verify` or `gc` must not grow; only while it starts nobody looks."""
    place.file("file")
    program = (
        "import gc, sys\nfrom castore.cli import main\nsys.argv[1:] = ['put', 'file']\n"
        "try: main()\nexcept SystemExit: print(gc.isenabled(), gc.get_freeze_count() > 1000)"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=place.environment
    )

    assert run.stderr.endswith("True True\n")


def test_importing_the_entry_point_imports_no_command():
    """`castore.cli.main` is found without click."""
    program = "import sys, castore.cli; assert callable(castore.cli.main); sys.exit('click' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert callable(castore.cli.main)


# -- completion --


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_to_complete_with(place, shell):
    """It calls castore back."""
    run = place.run(environment={"_CASTORE_COMPLETE": f"{shell}_source"})

    assert (run.returncode, b"_CASTORE_COMPLETE" in run.stdout) == (0, True)


def completions(place, line: str, word: str) -> list[str]:
    words = line.split()
    environment = {
        "_CASTORE_COMPLETE": "bash_complete",
        "COMP_WORDS": f"{line} {word}",
        "COMP_CWORD": str(len(words)),
    }
    run = place.run(environment=environment)
    assert run.stderr == b""
    return [row.partition(",")[2] for row in run.stdout.decode().splitlines() if row]


def test_commands_options_and_services_are_completed(place):
    """The services are those of the composition that the line names, even if it is not right."""
    (place.folder / "half.toml").write_text('[blobservices.archive]\ntype = "obj\n[blobservices.attic]\n')

    assert completions(place, "castore", "p") == ["put", "plugins"]
    assert completions(place, "castore has", "--s") == ["--service", "--stats"]
    assert completions(place, "castore --service", "") == ["root", "near", "far"]
    assert completions(place, "castore has --service", "n") == ["near"]
    assert completions(place, "castore --composition half.toml list --service", "a") == ["archive", "attic"]
    assert completions(place, "castore --composition nowhere.toml list --service", "") == []
    assert completions(place, "castore copy --from", "n") == ["near"]
    assert completions(place, "castore copy --from near --to", "") == ["root", "near", "far"]
    assert completions(place, "castore verify --repair-from", "f") == ["far"]
    assert completions(place, "castore plugins", "mem") == ["memory"]
    assert completions(place, "castore graph --format", "m") == ["mermaid"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_too_little_memory_is_no_mistake_in_castore(castore, monkeypatch, options):
    """It says what to do; the exit code is that of any failure."""

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("castore.cli.has.find", fail)
    result = castore("has", ABSENT, *options)

    assert result.exit_code == 1
    assert "there is not enough memory" in result.stderr
    assert "mistake" not in result.stderr
    assert not options or json.loads(result.stderr)["error"]["code"] == "memory"
