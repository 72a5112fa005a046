"""`castore check`: is a composition right, and does it answer?"""

from __future__ import annotations

import json
import os

import pytest

WRONG = """\
[blobservices.root]
type = "cache"
near = "&locl"
far = "&root"
wrote = "both"

[blobservices.local]
type = "memry"
"""


def test_a_right_composition_is_summed_up(place):
    """By kind; nothing is opened or made."""
    run = place.run("check")

    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.decode() == (
        "composition.toml: ok\n  3 blob services: root (cache), near (objectstore), far (objectstore)\n"
    )
    assert not (place.folder.parent / "stores").exists()


def test_takes_a_file_as_an_argument_or_an_option(castore, place):
    """The argument comes first."""
    place.compose('[blobservices.root]\ntype = "memory"', "other.toml")

    for arguments in (["check", "other.toml"], ["--composition", "other.toml", "check"]):
        assert castore(*arguments).stdout == "other.toml: ok\n  1 blob service: root (memory)\n"
    assert castore("--composition", "nowhere.toml", "check", "other.toml").exit_code == 0


def test_without_a_file_the_built_in_composition_is_checked(castore, place):
    """That which other commands would use."""
    (place.folder / "composition.toml").unlink()

    assert castore("check").stdout == "<default>: ok\n  1 blob service: root (objectstore)\n"


def test_all_problems_are_said_with_their_places(place):
    """On stderr, as they are, with exit code 2."""
    (place.folder / "wrong.toml").write_text(WRONG)

    run = place.run("check", "wrong.toml")

    assert (run.returncode, run.stdout) == (2, b"")
    lines = run.stderr.decode().splitlines()
    places = [line.split(": ")[0] for line in lines if line.startswith("wrong.toml:")]
    assert [place.split(":")[1] for place in places] == ["3", "4", "5", "8"]
    assert not any("castore:" in line or "\x1b" in line for line in lines)


def test_json_has_the_problems_on_stdout(castore, place):
    """They are what was asked for; the exit code is the same."""
    (place.folder / "wrong.toml").write_text(WRONG)

    result = castore("check", "wrong.toml", "--json")

    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (2, "")
    assert (document["composition"], document["ok"], document["instances"]) == ("wrong.toml", False, [])
    assert {problem["line"] for problem in document["problems"]} == {3, 4, 5, 8}
    assert all(
        problem["message"] and problem["path"] and problem["column"] for problem in document["problems"]
    )


@pytest.mark.parametrize("arguments", [["check"], ["list"]])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the composition"),
        (b"\xff", "is not UTF-8"),
        (b"a = ", "wrong.toml:1:"),
        (b"", "no services"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem_of_config(castore, place, arguments, content, words):
    """Of any command that uses it: exit code 2."""
    if content is not None:
        (place.folder / "wrong.toml").write_bytes(content)

    result = castore("--composition", "wrong.toml", *arguments)
    document = json.loads(castore("--composition", "wrong.toml", "check", "--json").stdout)

    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert document["ok"] is False
    assert any(words.removeprefix("wrong.toml:1:") in problem["message"] for problem in document["problems"])


def test_connect_asks_each_instance(place):
    """A row each, with how long the answer took."""
    run = place.run("check", "--connect")

    lines = run.stdout.decode().splitlines()
    assert run.returncode == 0
    assert lines[0].split() == ["instance", "type", "latency", "result"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["root", "cache"],
        ["near", "objectstore"],
        ["far", "objectstore"],
    ]
    assert all(line.split()[2:] == [line.split()[2], "ms", "ok"] for line in lines[1:])


def test_connect_asks_only_what_a_service_needs(castore):
    """If one is named."""
    result = castore("check", "--connect", "--service", "near", "--json")

    assert [row["name"] for row in json.loads(result.stdout)["instances"]] == ["near"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("down", "`odd` is unavailable: refused with ***"),
        ("unbuildable", "cannot build `broken`: CastoreError: ValueError: cannot use ***"),
        ("liar", "claims to have a blob that nobody can have"),
    ],
)
def test_one_instance_that_fails_is_enough_and_hides_no_other(stranger, mode, words):
    """The exit code is 1, the reason is in the row, and secrets are not."""
    stranger.environment["CANARY"] = "hunter2-and-more"
    stranger.compose(
        f"""
        [blobservices.root]
        type = "memory"
        [blobservices.broken]
        type = "odd"
        mode = "{mode}"
        secret = "${{CANARY}}"
        [blobservices.last]
        type = "memory"
        """
    )

    run = stranger.run("check", "--connect")
    document = json.loads(stranger.run("check", "--connect", "--json").stdout)

    rows = [line.split(maxsplit=4) for line in run.stdout.decode().splitlines()[1:]]
    assert run.returncode == 1
    assert [row[0] for row in rows] == ["root", "broken", "last"]
    assert words.removeprefix("cannot build `broken`: CastoreError: ") in run.stdout.decode()
    assert b"hunter2" not in run.stdout + run.stderr
    assert [row["ok"] for row in document["instances"]] == [True, False, True]
    assert document["ok"] is False


def test_names_cannot_reach_the_terminal_as_control_codes(castore, place):
    """They are written out."""
    place.compose('[blobservices.root]\ntype = "memory"\n[blobservices."a\\u001b[31m"]\ntype = "memory"')

    for arguments in (["check"], ["check", "--connect"]):
        output = castore(*arguments).stdout
        assert "\x1b" not in output
        assert "a\\x1b[31m" in output


def test_what_hangs_is_waited_for_no_longer_than_said(stranger):
    """And keeps neither the others from their answers nor the process from its end."""
    stranger.compose(
        """
        [blobservices.root]
        type = "memory"
        [blobservices.stuck]
        type = "odd"
        mode = "hanging"
        """
    )

    run = stranger.run("check", "--connect", "--timeout", "1500 ms", "--json")

    rows = {row["name"]: row for row in json.loads(run.stdout)["instances"]}
    assert run.returncode == 1
    assert rows["root"]["ok"]
    assert rows["stuck"] | {"type": "odd"} == {
        "kind": "blob service",
        "name": "stuck",
        "type": "odd",
        "ok": False,
        "result": "no answer within 1.5 s",
        "route": "",
        "seconds": None,
    }


def test_a_folder_that_can_never_be_made(castore, place, monkeypatch):
    """Is no empty store, though everything is absent in it; one that can be made is, and it is not made."""
    locked = place.folder.parent / "locked"
    locked.mkdir()
    place.compose(
        """
        [blobservices.root]
        type = "objectstore"
        object_store_url = "file:../locked/a"
        [blobservices.other]
        type = "objectstore"
        object_store_url = "file:../stores/a"
        """
    )
    access = os.access
    refused = str(locked.resolve())
    monkeypatch.setattr(os, "access", lambda p, mode: os.path.realpath(p) != refused and access(p, mode))

    result = castore("check", "--connect", "--json")

    rows = {row["name"]: row["result"] for row in json.loads(result.stdout)["instances"]}
    assert (result.exit_code, rows["other"]) == (1, "ok")
    assert rows["root"].startswith("`root` is unavailable: The folder cannot be made: /")
    assert rows["root"].endswith("/locked/a")
    assert not (place.folder.parent / "stores").exists()
    assert list(locked.iterdir()) == []


def test_a_folder_that_is_there_may_be_for_reading_only(castore, place, monkeypatch):
    """Whether it can be written to is not asked."""
    (place.folder / "kept").mkdir()
    place.compose('[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:kept"\n')
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert castore("check", "--connect").exit_code == 0


ODD = """\
[blobservices.root]
type = "cache"
near = "&down"
far = "memory:"

[blobservices.down]
type = "error"
"""


def test_what_looks_wrong_is_a_warning_and_no_failure(place):
    """On stderr, with its place; the composition is summed up as if nothing were."""
    (place.folder / "odd.toml").write_text(ODD)

    run = place.run("check", "odd.toml")

    assert run.returncode == 0
    assert run.stdout.startswith(b"odd.toml: ok\n")
    lines = run.stderr.decode().splitlines()
    assert lines[0].startswith("odd.toml:3:8: warning: blobservices.root.near: `down` cannot be written")
    assert lines[1:3] == ['  3 | near = "&down"', "    |        ^^^^^^^"]


def test_a_strict_check_fails_on_a_warning(castore, place):
    """With exit code 1; without warnings it is as any other."""
    (place.folder / "odd.toml").write_text(ODD)

    assert castore("check", "odd.toml", "--strict").exit_code == 1
    assert castore("check", "--strict").exit_code == 0


def test_json_has_the_warnings(castore, place):
    """As it has problems, and nothing on stderr."""
    (place.folder / "odd.toml").write_text(ODD)

    result = castore("check", "odd.toml", "--json", "--strict")

    (warning,) = json.loads(result.stdout)["warnings"]
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout)["problems"] == []
    assert (warning["code"], warning["path"]) == ("near-not-writable", "blobservices.root.near")
    assert (warning["line"], warning["column"]) == (3, 8)


def test_other_commands_do_not_show_warnings(place):
    """They would at every one of them."""
    (place.folder / "odd.toml").write_text(ODD.replace("far = ", 'write = "far"\nfar = '))

    for arguments in (["graph"], ["has", "00" * 32]):
        assert b"cannot be written" not in place.run("--composition", "odd.toml", *arguments).stderr


def test_what_a_reload_would_change(castore, place):
    """Each instance, what becomes of it, and why: no value, which may be secret."""
    place.compose(
        '[blobservices.root]\ntype = "cache"\nnear = "&near"\nfar = "memory:"\n'
        '[blobservices.near]\ntype = "memory"\n',
        "old.toml",
    )
    place.compose(
        '[blobservices.root]\ntype = "cache"\nnear = "&near"\nfar = "memory:"\n'
        '[blobservices.near]\ntype = "objectstore"\nobject_store_url = "file:./secret"\n',
        "new.toml",
    )

    run = castore("check", "new.toml", "--against", "old.toml")

    assert run.exit_code == 0
    rows = [line.split("  ") for line in run.stdout.splitlines() if line.startswith("blobservices.")]
    assert sorted([cell.strip() for cell in row if cell.strip()] for row in rows) == [
        ["blobservices.near", "built anew", "the type was `memory`"],
        ["blobservices.root", "built anew", "`near` is built anew"],
        ["blobservices.root.far", "kept"],
    ]
    assert "secret" not in run.stdout
    found = json.loads(castore("check", "new.toml", "--against", "old.toml", "--json").stdout)
    assert {row["id"]: row["fate"] for row in found["reload"]} == {
        "blobservices.root": "changed",
        "blobservices.root.far": "kept",
        "blobservices.near": "changed",
    }
    assert castore("check", "new.toml", "--against", "nowhere.toml").exit_code == 2
