"""What newcomers type: words of other programs, and `castore help`."""

from __future__ import annotations

import json
import re

import click
import pytest

from castore.cli.app import COMMANDS, app
from castore.cli.hints import HINTS


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("rm", "castore gc --roots"),
        ("delete", "castore gc --roots"),
        ("prune", "castore gc --roots"),
        ("restore", "castore export ROOT"),
        ("show", "castore get DIGEST"),
        ("add", "castore put"),
        ("backup", "castore import FOLDER"),
        ("dir", "castore list"),
        ("df", "castore stat"),
        ("push", "castore copy"),
        ("pull", "castore copy"),
        ("sync", "castore copy"),
        ("fsck", "castore verify"),
        ("repair", "castore verify"),
        ("where", "castore locate"),
        ("init", "nothing to set up"),
        ("config", "composition.toml"),
        ("unmount", "castore umount FOLDER"),
        ("daemon", "castore serve"),
        ("unlock", "nothing to unlock"),
        ("encrypt", "does not encrypt"),
        ("upgrade", "need no upgrade"),
        ("version", "castore --version"),
        ("lru", "castore plugins lru"),
        ("objectstore", "castore plugins objectstore"),
        ("RM", "castore gc --roots"),
        ("delet", "castore gc --roots"),
        ("vrfy", "Did you mean `verify`?"),
        ("lists", "Did you mean `list`?"),
    ],
)
@pytest.mark.parametrize("asked", [(), ("help",)], ids=["run", "help"])
def test_a_word_that_is_no_command_leads_to_one(castore, asked, word, hint):
    """Or to what there is instead, on a line of its own."""
    result = castore(*asked, word)

    assert (result.exit_code, result.stdout) == (2, "")
    first, *rest = result.stderr.splitlines()
    assert first.startswith(f"castore: There is no command '{word}'.")
    assert hint in "\n".join([first, *rest])
    assert rest[-1] == "Try `castore --help`."


def test_a_word_that_nobody_knows_has_no_hint(castore):
    """It is only said that there is no such command."""
    assert castore("xyzzy").stderr == "castore: There is no command 'xyzzy'.\nTry `castore --help`.\n"


def test_programs_get_the_hint_in_the_message(castore):
    """With `--json`."""
    error = json.loads(castore("rm", "--json").stderr)["error"]

    assert error["code"] == "usage"
    assert "castore gc --roots" in error["message"]


def test_no_command_has_a_hint():
    """Nobody would see it; and each word has one."""
    assert not HINTS.keys() & COMMANDS.keys()


@pytest.mark.parametrize("hint", sorted(set(HINTS.values())))
def test_what_a_hint_names_is_there(hint):
    """Each command of castore, and each of its options."""
    with click.Context(app) as context:
        for words in re.findall(r"`castore ([^`]+)`", hint):
            name, *rest = words.split()
            if name.startswith("-"):
                assert name in {"--version", "--help"}
                continue
            command = app.get_command(context, name)
            assert command is not None, words
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_as_a_command(castore, command):
    """Shows what `--help` does."""
    words = [command] if command else []
    result = castore("help", *words)

    assert result.exit_code == 0
    assert result.stdout == castore(*words, "--help").stdout
    assert result.stdout.startswith("Usage: castore " + (command or "[OPTIONS]"))


def test_help_is_in_sections(castore):
    """Of which each command is in one."""
    shown = castore("--help").stdout

    for command, words in COMMANDS.items():
        assert len(re.findall(rf"^  {command} +{re.escape(words)}$", shown, re.MULTILINE)) == 1
    assert castore("-V").stdout == castore("--version").stdout
