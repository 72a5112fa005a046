"""What a person at a terminal sees, and what in a pipe nobody does. The terminals are pseudo-terminals."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ABSENT = "00" * 32
LARGE = 64 << 20


class Screen:
    """A pseudo-terminal, and everything that was written to it."""

    def __init__(self, columns: int = 100) -> None:
        self._main, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.seen = b""

    def watch(self, process: subprocess.Popen[bytes], until: bytes | None = None) -> str:
        """Return what has appeared when the process ends, or when *until* has."""
        deadline = time.monotonic() + 60
        while until is None or until not in self.seen:
            ended = process.poll() is not None
            if not self.look(0.02) and ended:
                break
            assert time.monotonic() < deadline, self.seen[-1000:]
        return self.text

    def look(self, seconds: float = 0) -> bool:
        """Take what has appeared, or appears within this time; return whether that is anything."""
        found = bool(select.select([self._main], [], [], seconds)[0])
        if found:
            self.seen += os.read(self._main, 1 << 16)
        return found

    @property
    def text(self) -> str:
        return self.seen.decode("utf-8", "replace").replace("\r\n", "\n")

    def rows(self) -> list[str]:
        """What is left to see at the end, on a terminal that knows the few controls that castore uses."""
        rows, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", self.text, re.DOTALL):
            if token == "\n":
                row, column = row + 1, 0
                rows += [""] * (row == len(rows))
            elif token == "\r":
                column = 0
            elif token == "\x1b[2K":
                rows[row] = ""
            elif token == "\x1b[K":
                rows[row] = rows[row][:column]
            elif token.startswith("\x1b"):
                assert re.fullmatch(r"\x1b\[[0-9;]*m", token), token
            else:
                rows[row] = rows[row][:column].ljust(column) + token + rows[row][column + 1 :]
                column += 1
        return rows

    def close(self) -> None:
        for end in (self._main, self.end):
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


@pytest.fixture
def home(place):
    """The place, with the environment of a terminal."""
    return attrs.evolve(place, environment=place.environment | {"TERM": "xterm-256color"})


@pytest.fixture
def large(place) -> str:
    """A file that is worth a bar."""
    return place.file("large", random.Random(1).randbytes(1 << 20) * (LARGE >> 20))


def test_a_bar_shows_how_far_a_large_file_is(home, screen, large):
    """On stderr, with bytes and rate; at the end there is a line of what was done, and stdout has its own."""
    process = home.start("put", "large", stdout=subprocess.PIPE, stderr=screen.end)

    text = screen.watch(process)

    assert re.search(r"─ +\d+%  [\d.]+ [KM]iB of 64\.0 MiB  .*  large", text.replace("\x1b[0m", ""))
    assert "\x1b[31m" not in text
    assert process.stdout.read() == f"{large}  large\n".encode()
    process.stdout.close()
    (row,) = filter(None, screen.rows())
    assert re.fullmatch(r"stored 1 file, 64\.0 MiB in [\d.:]+( s)? \([\d.]+ .iB/s\)", row)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_there_is_no_bar_in_a_pipe_nor_on_a_terminal_that_cannot_draw(home, screen, large, term):
    """Not a byte on stderr."""
    home.environment["TERM"] = term
    process = home.start(
        "put", "large", stdout=subprocess.PIPE, stderr=screen.end if term == "dumb" else subprocess.PIPE
    )

    text = screen.watch(process)

    assert text == ""
    assert process.communicate()[1] in {b"", None}
    assert process.returncode == 0


def test_a_stream_of_unknown_length_has_a_bar_once_it_lasts(home, screen):
    """With what has come so far."""
    process = home.start("put", "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=screen.end)
    for _ in range(4):
        process.stdin.write(bytes(1 << 20))
        process.stdin.flush()
        time.sleep(0.2)
    process.stdin.close()

    text = screen.watch(process)

    assert re.search(r"[34]\.0 MiB ", text)
    assert "%" not in text
    (row,) = filter(None, screen.rows())
    assert row.startswith("stored 1 file, 4.0 MiB in ")


def test_lines_and_the_bar_do_not_mix_on_one_terminal(home, screen, large, place):
    """What is left to read is what a pipe would have got."""
    place.file("nothing", b"")
    Path("d").mkdir()
    Path("d/link").symlink_to("../nothing")
    process = home.start(
        "put", "nothing", "large", "d", "nowhere", "large", stdout=screen.end, stderr=screen.end
    )

    text = screen.watch(process)

    assert re.search(r"\d/4 files", text)
    rows = screen.rows()
    assert [row for row in rows[1:] if row] == [
        f"{large}  large",
        "castore: skipped 'd/link': it is a symbolic link",
        "castore: cannot read 'nowhere': No such file or directory",
        f"{large}  large",
        rows[-2],
    ]
    assert rows[-2].startswith("stored 3 files, 128.0 MiB in ")
    assert rows[0].endswith("  nothing")


def test_get_has_a_bar_unless_the_blob_goes_to_the_same_terminal(home, screen, large):
    """A bar in the middle of the bytes would help nobody."""
    home.run("put", "large")
    to_file = home.start("get", large, "-o", "out", stdout=screen.end, stderr=screen.end)

    assert "─" in screen.watch(to_file)
    (row,) = filter(None, screen.rows())
    assert row.startswith("got 1 blob, 64.0 MiB in ")

    screen.seen = b""
    to_pipe = home.start("get", large, stdout=subprocess.DEVNULL, stderr=screen.end)
    assert "─" in screen.watch(to_pipe)

    screen.seen = b""
    to_terminal = home.start(
        "get", large, "--length", "4200000", "-o", "-", stdout=screen.end, stderr=screen.end
    )
    screen.watch(to_terminal)
    assert len(screen.seen) >= 4_200_000
    assert "━".encode() not in screen.seen
    assert b"\x1b[2K" not in screen.seen


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_gets_what_is_no_text_only_if_it_is_asked_for(home, screen, term):
    """A blob may have anything in it, that a terminal obeys."""
    home.environment["TERM"] = term
    digest = home.file("blob", b"a title: \x1b]0;mine\x07")
    home.run("put", "blob")
    refused = home.start("get", digest, stdout=screen.end, stderr=subprocess.PIPE)
    screen.watch(refused)
    errors = refused.stderr.read().decode()
    refused.stderr.close()
    before = screen.seen
    screen.watch(home.start("get", digest, "-o", "-", stdout=screen.end))

    assert (refused.returncode, before) == (1, b"")
    assert "it is no text, and stdout is a terminal; `-o FILE` writes it to a file, `-o -` to the" in errors
    assert screen.seen == b"a title: \x1b]0;mine\x07"


def test_who_has_no_composition_is_told_where_blobs_go(home, screen):
    """On a terminal, and unless it is to be quiet; the output is as ever."""
    (home.folder / "composition.toml").unlink()
    environment = home.environment | {"XDG_DATA_HOME": "/nowhere/data"}
    words = "no composition.toml here or above: blobs are kept in /nowhere/data/castore/blobs\n"

    def run(*arguments):
        shown = len(screen.text)
        process = subprocess.run(home.command(*arguments), cwd=home.folder, env=environment, check=False,
                                 stdout=subprocess.PIPE, stderr=screen.end)  # fmt: skip
        screen.look()
        return process.stdout, screen.text[shown:]

    output, said = run("list")
    assert (output, said.startswith(words)) == (b"", True)
    assert words not in run("-q", "list")[1]
    (home.folder / "composition.toml").write_text('[blobservices.root]\ntype = "memory"\n')
    assert run("list") == (b"", "")


def test_who_interrupts_gets_an_empty_line(home, screen):
    """And not a word; the cursor was never hidden."""
    process = home.start("put", "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=screen.end)
    for _ in range(3):
        process.stdin.write(bytes(1 << 20))
        process.stdin.flush()
        time.sleep(0.2)
    screen.watch(process, until="━".encode())

    process.send_signal(signal.SIGINT)
    screen.watch(process)
    process.stdin.close()

    assert process.wait() == 130
    assert "\x1b[?25l" not in screen.text
    assert not any(screen.rows())


BAR = b"iB"

SLOW = """
    [blobservices.root]
    type = "limit"
    inner = "&store"
    bytes_per_second = "4 MB"
    [blobservices.store]
    type = "objectstore"
    object_store_url = "file:../stores/far"
    [blobservices.other]
    type = "memory"
"""


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("put", marks=pytest.mark.long),
        "put to it",
        "get",
        "verify",
        pytest.param("copy", marks=pytest.mark.long),
    ],
)
def test_the_work_goes_on_when_the_terminal_is_gone(home, screen, tmp_path, command):
    """With SIGHUP ignored, as by `nohup`. Two seconds each, for something has to be under way."""
    data = random.Random(1).randbytes(6 << 20)
    digest = home.file("blob", data)
    os.mkfifo(home.folder / "out")
    if not command.startswith("put"):
        home.run("put", "blob")
    home.compose(SLOW, "slow.toml")
    arguments = {
        "put": ["put", "-"],
        "put to it": ["put", "-", "blob"],
        "get": ["get", digest, "-o", "out"],
        "verify": ["--composition", "slow.toml", "verify"],
        "copy": ["--composition", "slow.toml", "copy", "--from", "root", "--to", "other", digest],
    }[command]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            home.command(*arguments),
            cwd=home.folder,
            env=home.environment,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509 - takes no lock
            stdin=subprocess.PIPE,
            stdout=screen.end if command == "put to it" else said,
            stderr=screen.end,
        )
    got = b""
    left = memoryview(data)
    if command == "get":
        out = (home.folder / "out").open("rb")
        got = out.read(2 << 20)
    while command.startswith("put") and BAR not in screen.seen and left:
        process.stdin.write(left[:100_000])
        process.stdin.flush()
        left = left[100_000:]
        time.sleep(0.1)
        screen.look()
    screen.watch(process, until=BAR)

    screen.close()
    if command == "get":
        with out:
            got += out.read()
    if command.startswith("put"):
        process.stdin.write(left)
    process.stdin.close()

    assert process.wait(60) == (1 if command == "put to it" else 0)
    output = (tmp_path / "said").read_bytes()
    if command.startswith("put"):
        assert home.run("has", digest).returncode == 0
    expected = {"put": f"{digest}  -\n".encode(), "put to it": b"", "get": b""}
    assert got == (data if command == "get" else b"")
    assert output == expected.get(command, output)
    assert output or command not in {"verify", "copy"}


@pytest.mark.parametrize("stderr", ["full", "closed", "gone"])
def test_messages_that_nobody_can_take_change_nothing(home, stderr):
    """Neither the result nor the exit code: those of `--stats`, warnings of a cache, errors of files."""
    digest = home.file("file")
    home.compose(
        """
        [blobservices.root]
        type = "cache"
        near = "&down"
        far = "&far"
        write = "far"
        [blobservices.down]
        type = "error"
        [blobservices.far]
        type = "objectstore"
        object_store_url = "file:../stores/far"
        """
    )
    with Path("/dev/full").open("wb") as full:
        reading, gone = os.pipe()
        os.close(reading)
        options = {"stderr": full if stderr == "full" else gone}
        if stderr == "closed":
            options = {"preexec_fn": lambda: os.close(2)}
        results = [
            subprocess.run(
                home.command(*arguments),
                cwd=home.folder,
                env=home.environment,
                stdout=subprocess.PIPE,
                check=False,
                **options,
            )
            for arguments in (["put", "--stats", "file", "nowhere"], ["get", "--stats", digest])
        ]
        os.close(gone)

    assert [result.returncode for result in results] == [1, 0]
    assert [result.stdout for result in results] == [f"{digest}  file\n".encode(), b"Hello World!"]


@pytest.mark.parametrize("columns", [10, 40, 200])
def test_the_bar_is_one_line_on_any_terminal(home, large, columns):
    """Else it could not be erased."""
    screen = Screen(columns)
    process = home.start("put", "large", stdout=subprocess.DEVNULL, stderr=screen.end)

    text = screen.watch(process)
    screen.close()

    assert "MiB" in text or columns == 10
    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part) for part in re.split(r"[\r\n]", text)]
    assert shown[-2].startswith("stored 1 file")
    assert max(map(len, shown[:-2])) <= max(columns, 20)
    assert "\x1b[2A" not in text


def test_a_long_list_of_chunks_is_shortened_on_a_terminal(odd, screen):
    """Both ends are shown, and how to see the rest; `--all` shows it."""
    place = odd("many")
    place.environment["TERM"] = "xterm"
    process = place.start("stat", ABSENT, stdout=screen.end)
    screen.watch(process)
    rows = screen.rows()

    screen.seen = b""
    process = place.start("stat", ABSENT, "--all", stdout=screen.end)
    screen.watch(process)

    assert rows[5].startswith("     0    10  ")
    assert rows[15] == "... 17 more; `--all` lists them"
    assert rows[16].startswith("   270    10  ")
    assert len(rows) == 5 + 10 + 1 + 3 + 1
    assert len(screen.rows()) == 5 + 30 + 1


def test_errors_have_colour_on_a_terminal_alone(home, screen, place):
    """And not even there if the user does not want it."""
    (place.folder / "wrong.toml").write_text('[blobservices.root]\ntype = "memry"\n')
    process = home.start("list", "--composition", "wrong.toml", stderr=screen.end)
    coloured = screen.watch(process)
    plain = home.run("list", "--composition", "wrong.toml").stderr.decode()
    screen.seen = b""
    home.environment["NO_COLOR"] = "1"
    screen.watch(home.start("list", "--composition", "wrong.toml", stderr=screen.end))

    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain == screen.text


NASTY = ["\x1b]0;title\x07", "\x1b[31mred", "two\nlines", "back\rspace", "c1\x9b2J", "turned\u202eround"]


def test_names_of_files_cannot_reach_the_terminal(home, screen):
    """Neither by stdout nor in a message; in a pipe they are escaped as b3sum does it."""
    home.environment["TERM"] = "dumb"  # Neither a bar nor colours.
    for name in NASTY:
        home.file(name, name.encode())
        (home.folder / f"link to {name}").symlink_to(name)
    screen.watch(home.start("put", ".", "nowhere\x1b[2J", stdout=screen.end, stderr=screen.end))
    piped = home.run("put", *NASTY).stdout

    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", screen.text)
    for shown in ("\\x1b]0;title\\x07", "\\x1b[31mred", "two\\nlines", "back\\rspace", "turned\\u202eround"):
        assert f"  ./{shown}\n" in screen.text
    assert b"\x1b[31mred\n" in piped
    assert b"two\\nlines\n" in piped


def test_names_in_log_lines_cannot_reach_the_terminal(home, screen):
    """What a library has to say comes as a message of castore's does."""
    (home.folder / "noisy.py").write_text(
        "import logging, sys\nfrom castore.cli import main\nimport castore.cli.has as has\n"
        "logging.getLogger('x').warning('before')\nbefore = has.find\n"
        "def find(*arguments):\n"
        "    logging.getLogger('x').warning('a name: %s', '\\x1b]0;title\\x07')\n"
        "    return before(*arguments)\n"
        "has.find = find\nsys.argv[1:] = ['has', '0' * 64]\nmain()\n"
    )
    process = subprocess.Popen(
        [home.command()[0], "noisy.py"], cwd=home.folder, env=home.environment, stderr=screen.end
    )
    text = screen.watch(process)

    assert "a name: \\x1b]0;title\\x07" in text
    assert "\x07" not in text


def test_names_in_errors_cannot_reach_the_terminal(home, screen):
    """Neither those of files nor those in a composition."""
    home.compose('[blobservices.root]\ntype = "a\\u001b]0;title\\u0007"\n', "wrong.toml")
    process = home.start("check", "wrong.toml", "--composition", "x\x1b[2J", stderr=screen.end)
    text = screen.watch(process)
    screen.seen = b""
    text += screen.watch(home.start("put", "\x1b]0;title\x07", stderr=screen.end))

    assert "\x1b]0;" not in text
    assert "\x07" not in text


def test_types_are_wrapped_to_the_width_of_the_terminal(home):
    """In a pipe they are not."""
    screen = Screen(60)
    text = screen.watch(home.start("plugins", "cache", stdout=screen.end))
    rows = screen.rows()
    screen.close()
    piped = home.run("plugins", "cache").stdout.decode().splitlines()

    assert max(map(len, rows)) <= 60
    assert max(map(len, piped)) > 60
    assert " ".join(" ".join(rows).split()) == " ".join(" ".join(piped).split())
    assert "\x1b[1m" in text


def test_a_terminal_shows_the_first_digits_of_digests_and_a_pipe_all(home, screen, place):
    """So that a table fits into 60 columns; what `put` prints is for b3sum, and whole everywhere."""
    digest = place.file("large", random.Random(2).randbytes(1 << 20))
    put = home.start("put", "large", "-q", stdout=screen.end, stderr=screen.end)
    assert screen.watch(put) == f"{digest}  large\n"
    for arguments, row, piped in [
        (("list",), digest[:16], digest),
        (("list", "--full"), digest, digest),
        (("has", digest[:8]), f"{digest[:16]}  present", f"{digest}  present"),
    ]:
        screen.seen = b""
        assert screen.watch(home.start(*arguments, stdout=screen.end)) == f"{row}\n"
        assert home.run(*arguments).stdout.decode() == f"{piped}\n"

    screen.seen = b""
    screen.watch(home.start("stat", digest, stdout=screen.end))
    chunks = json.loads(home.run("stat", digest, "--json").stdout)["chunks"]
    assert [row.split()[-1] for row in screen.rows()[5:] if row] == [c["digest"][:16] for c in chunks]

    damaged = place.folder.parent / "stores/near/chunks/b3" / chunks[1]["digest"][:4] / chunks[1]["digest"]
    damaged.write_bytes(b"nothing of zstd")
    narrow = Screen(60)
    narrow.watch(home.start("verify", "--service", "near", stdout=narrow.end))
    rows = narrow.rows()
    narrow.close()
    assert f"chunk  {chunks[1]['digest'][:16]}  bad-frame" in rows
    assert max(map(len, rows)) <= 60
    assert chunks[1]["digest"] in home.run("verify", "--service", "near").stdout.decode()


def test_quiet_has_no_bar_and_no_line_in_the_end(home, screen, large):
    """The result is on stdout as ever."""
    process = home.start("put", "large", "-q", stdout=subprocess.PIPE, stderr=screen.end)

    assert screen.watch(process) == ""
    assert process.communicate()[0] == f"{large}  large\n".encode()


def test_quiet_leaves_errors(home, place):
    """And takes remarks away."""
    (place.folder / "d").mkdir()
    (place.folder / "d/link").symlink_to("nowhere")
    run = home.run("put", "d", "nowhere", "--quiet")

    assert run.stderr == b"castore: cannot read 'nowhere': No such file or directory\n"


def test_on_a_narrow_terminal_rows_are_broken_at_words(home):
    """Of messages, trees and lists; what goes on is indented, and the words are those of a pipe."""
    digest = home.run("put", "composition.toml").stdout.decode()[:64]
    for arguments in (
        ("explain", digest, "--op", "put"),
        ("check",),
        ("graph",),
        ("gc",),
        ("get", "nix"),
        ("rm",),
    ):
        screen = Screen(40)
        screen.watch(home.start(*arguments, stdout=screen.end, stderr=screen.end))
        rows = screen.rows()
        screen.close()
        run = home.run(*arguments)
        piped = (run.stdout + run.stderr).decode()

        assert max(map(len, rows)) <= 40, rows
        assert max(map(len, piped.splitlines())) > 40
        unbranched = [re.sub(r"[│├└─]+", " ", text).split() for text in ("\n".join(rows), piped)]
        assert unbranched[0] == unbranched[1]


def test_the_columns_of_the_environment_count(home, screen):
    """As they do for other programs."""
    home.environment["COLUMNS"] = "40"
    screen.watch(home.start("gc", stderr=screen.end))

    assert max(map(len, screen.rows())) <= 40


def test_help_has_bold_headings_on_a_terminal_alone(home, screen):
    """And the same words as in a pipe."""
    text = screen.watch(home.start("--help", stdout=screen.end))
    piped = home.run("--help").stdout.decode()

    assert {"Usage:", "Options:", "Looking after services:"} <= set(re.findall(r"\x1b\[1m(.*?)\x1b", text))
    assert "\x1b" not in piped
    assert re.sub(r"\x1b\[\d*m", "", text).split() == piped.split()


def test_the_last_column_of_a_table_goes_on_below(home):
    """Where a cause is longer than the terminal is wide; in a pipe it is one row."""
    (home.folder.parent / "stores").mkdir()
    (home.folder.parent / "stores/far").write_bytes(b"")
    piped = home.run("locate", ABSENT).stdout.decode()
    screen = Screen(70)
    screen.watch(home.start("locate", ABSENT, stdout=screen.end))
    rows = screen.rows()
    screen.close()

    assert max(map(len, piped.splitlines())) > 70
    # A path is not broken: somebody may copy it.
    assert max(len(row) for row in rows if "/" not in row) <= 70
    assert len(rows) > len(piped.splitlines()) + 1
    assert " ".join(rows).split() == piped.split()
    begin = rows[0].index("holds")
    assert all(row[:begin].strip() == "" or row[begin - 1] == " " for row in rows)
