"""`castore put`: every file once, in order, as b3sum says it; what cannot be read keeps nothing else back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

DIGEST = "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c"


def test_prints_the_digest_and_the_name_and_stores_the_bytes(place):
    """The line is b3sum's; what was put can be got again, in another process."""
    place.file("file")

    put = place.run("put", "file")
    got = place.run("get", DIGEST)

    assert (put.returncode, put.stdout, put.stderr) == (0, f"{DIGEST}  file\n".encode(), b"")
    assert (got.returncode, got.stdout) == (0, b"Hello World!")


def test_takes_stdin_for_a_dash(place):
    """`-` is the name that is printed, too."""
    put = place.run("put", "-", input=b"Hello World!")

    assert put.stdout == f"{DIGEST}  -\n".encode()


def test_a_file_named_dash_is_reached_by_its_path(castore, place):
    """As with any program that reads stdin for `-`."""
    place.file("-", b"a")

    assert castore("put", "./-").stdout == f"{blake3(b'a').hexdigest()}  ./-\n"


def test_walks_folders_in_the_order_of_the_bytes_of_paths(castore, place):
    """A line per file; the paths begin as the argument does, and are sorted as `LC_ALL=C sort` does it."""
    for name in ("d/b", "d/a/z", "d/a.txt", "d/a/b/c", "d/B", "d/ä"):
        place.file(name, name.encode())

    lines = castore("put", "d").stdout.splitlines()

    paths = [line[66:] for line in lines]
    assert paths == ["d/B", "d/a.txt", "d/a/b/c", "d/a/z", "d/b", "d/ä"]
    assert [line[:64] for line in lines] == [blake3(path.encode()).hexdigest() for path in paths]


def test_arguments_keep_their_order(castore, place):
    """Only what is inside of folders is sorted."""
    for name in ("b", "a"):
        place.file(name)

    assert [line[66:] for line in castore("put", "b", "a", "b").stdout.splitlines()] == ["b", "a", "b"]


@pytest.fixture
def nested(place) -> Iterator[Callable[[str, int], None]]:
    """Make folders of one name in one another; they are gone afterwards, for pytest could not remove them."""

    def make(name: str, depth: int) -> None:
        for _ in range(depth):
            Path(name).mkdir()
            os.chdir(name)
        Path("x").write_bytes(b"deep")
        os.chdir(place.folder)

    yield make
    subprocess.run(["rm", "-rf", place.folder / "d"], check=True)


def test_folders_may_be_nested_deeper_than_calls(castore, nested):
    """1200 folders in one another are more than Python's recursion allows."""
    nested("d", 1200)

    result = castore("put", "d")

    assert result.exit_code == 0
    assert result.stdout.endswith("/d/x\n")


@pytest.fixture
def odd_names(place) -> list[bytes]:
    """Names that a line of text cannot just hold."""
    names = [b"a\\b", b"n\nl", b"c\rr", b"\\", b" two  spaces ", "ünï".encode(), b"u\xffv\n"]
    for name in names:
        place.file(name, name)
    return names


def test_names_are_escaped_as_b3sum_does(place, odd_names):
    r"""Backslash, newline and CR become two characters, and `\` begins such a line; other bytes stay."""
    lines = place.run("put", *odd_names).stdout.splitlines()

    escaped = [rb"a\\b", rb"n\nl", rb"c\rr", b"\\\\", b" two  spaces ", "ünï".encode(), b"u\xffv\\n"]
    marks = [b"\\", b"\\", b"\\", b"\\", b"", b"", b"\\"]
    assert lines == [
        mark + blake3(name).hexdigest().encode() + b"  " + shown
        for mark, name, shown in zip(marks, odd_names, escaped, strict=True)
    ]


@pytest.mark.skipif(shutil.which("b3sum") is None, reason="b3sum is not installed")
def test_b3sum_says_the_same_and_can_check_it(place):
    """Byte for byte, for names that all versions of b3sum can say."""
    names = ["plain", "a\\b", "n\nl", "ünï", "-x", "d/e/f"]
    for name in names:
        place.file(name, name.encode())

    put = place.run("put", "--", *names)
    said = subprocess.run(["b3sum", "--", *names], capture_output=True, check=True)
    checked = subprocess.run(["b3sum", "--check"], input=put.stdout, capture_output=True, check=False)

    assert put.stdout == said.stdout
    assert checked.returncode == 0, checked.stderr


def test_one_missing_file_does_not_stop_the_others(place):
    """The error names it, and the exit code is 1."""
    place.file("a", b"a")
    place.file("b", b"b")

    put = place.run("put", "a", "nowhere", "b")

    assert [line[66:] for line in put.stdout.decode().splitlines()] == ["a", "b"]
    assert put.stderr == b"castore: cannot read 'nowhere': No such file or directory\n"
    assert put.returncode == 1
    assert place.run("has", blake3(b"b").hexdigest()).returncode == 0


def test_a_folder_that_cannot_be_listed_is_an_error(castore, place, nested):
    """It is not taken for an empty one: this one's path is longer than the system takes."""
    place.file("a")
    nested("d", 2100)

    result = castore("put", "d", "a")

    assert [line[66:] for line in result.stdout.splitlines()] == ["a"]
    assert result.stderr.endswith("File name too long\n")
    assert result.exit_code == 1


def test_what_is_no_file_in_a_folder_is_skipped_with_a_word(castore, place):
    """Links, sockets and pipes; a link that is itself an argument is followed."""
    place.file("d/file")
    Path("d/link").symlink_to("file")
    Path("way").symlink_to("d")
    os.mkfifo("d/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("d/socket")

    result = castore("put", "way")

    assert result.stdout == f"{DIGEST}  way/file\n"
    assert result.stderr.splitlines() == [
        "castore: skipped 'way/link': it is a symbolic link",
        "castore: skipped 'way/pipe': it is a named pipe",
        "castore: skipped 'way/socket': it is a socket",
    ]
    assert result.exit_code == 0


def test_a_pipe_that_is_an_argument_is_read(place):
    """As in `castore put <(command)`."""
    reader, writer = os.pipe()
    os.write(writer, b"Hello World!")
    os.close(writer)

    put = place.run("put", f"/dev/fd/{reader}", pass_fds=[reader])

    assert put.stdout == f"{DIGEST}  /dev/fd/{reader}\n".encode()


def test_an_empty_folder_has_nothing_to_store(castore, place):
    """That is no error."""
    Path("d").mkdir()

    assert (castore("put", "d").stdout, castore("put", "d").exit_code) == ("", 0)


def test_json_lists_files_what_was_skipped_and_errors(castore, place):
    """One object on stdout, nothing on stderr."""
    place.file("d/file")
    Path("d/link").symlink_to("file")

    result = castore("--json", "put", "d", "nowhere")

    assert json.loads(result.stdout) == {
        "files": [{"digest": DIGEST, "path": "d/file", "size": 12}],
        "skipped": [{"path": "d/link", "reason": "a symbolic link"}],
        "errors": [
            {
                "path": "nowhere",
                "code": "source",
                "message": "cannot read 'nowhere': No such file or directory",
            }
        ],
    }
    assert (result.stderr, result.exit_code) == ("", 1)


def test_json_has_every_byte_of_a_name(place):
    """A byte that is no UTF-8 is a lone surrogate, as Python reads it back."""
    place.file(b"u\xffv")

    (file,) = json.loads(place.run("--json", "put", b"u\xffv").stdout)["files"]

    assert os.fsencode(file["path"]) == b"u\xffv"


def test_a_line_appears_as_soon_as_its_file_is_stored(place):
    """While the next one is still being read."""
    place.file("file")
    reader, writer = os.pipe()
    process = place.start("put", "file", "-", stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)

    assert process.stdout.readline() == f"{DIGEST}  file\n".encode()
    assert process.poll() is None
    os.close(writer)
    assert process.stdout.read().endswith(b"  -\n")
    process.stdout.close()
    assert process.wait(60) == 0


def test_many_files_in_a_store_that_answers_slowly_come_out_in_order(odd):
    """They are stored several at a time, which nobody can tell from the output."""
    place = odd("slow")
    names = [f"d/{number:03}" for number in range(60)]
    digests = [place.file(name, name.encode()) for name in names]

    put = place.run("put", "d", "nowhere")

    expected = [f"{digest}  {name}" for digest, name in zip(digests, names, strict=True)]
    assert put.stdout.decode().splitlines() == expected
    assert put.returncode == 1


def test_a_store_that_is_down_ends_it_at_once(odd):
    """It is not the file's fault: the error is said once, not for each file."""
    place = odd("down")
    place.file("a")
    place.file("b")

    put = place.run("put", "a", "b")

    assert (put.stdout, put.returncode) == (b"", 1)
    assert put.stderr == b"castore: `odd` is unavailable: refused with ***\n"


def test_a_service_that_fails_before_any_file_is_said_so(odd):
    """There is no file yet that it could be about."""
    place = odd("mute")
    place.file("a")

    put = place.run("put", "a")

    assert (put.stdout, put.returncode) == (b"", 1)
    assert put.stderr == b"castore: `odd` is unavailable: cannot say what it can do\n"


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_a_full_disk_behind_stdout_is_no_fault_of_a_file(place, names):
    """One message, whether other files wait for their lines or not."""
    for name in names:
        place.file(name, name.encode())

    with Path("/dev/full").open("wb") as full:
        process = place.start("put", *names, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (
        1,
        b"castore: cannot write the output: No space left on device\n",
    )


def test_a_file_that_changes_each_time_it_is_read_is_an_error(castore, place, monkeypatch):
    """It keeps nothing else from being stored, and no digest is printed for it."""
    place.file("log", bytes(3 << 20))
    place.file("file")

    def advance(self, count):
        if count > 1000:
            with Path("log").open("ab") as file:
                file.write(b"a line")

    monkeypatch.setattr("castore.cli.progress.ProgressMeter.advance", advance)
    result = castore("put", "log", "file")
    (error,) = json.loads(castore("put", "--json", "log").stdout)["errors"]

    assert (result.exit_code, result.stdout) == (1, f"{DIGEST}  file\n")
    words = "cannot store 'log': it changes while it is read; store a copy of it, or a snapshot"
    assert result.stderr == f"castore: {words}\n"
    assert error == {"path": "log", "code": "source-changed", "message": words}


def test_an_interrupted_put_says_in_json_what_it_has_stored(place):
    """The next file never ends; the document is whole all the same."""
    place.file("file")
    place.file("skipped/other")
    Path("skipped/link").symlink_to("other")
    reading, writing = os.pipe()
    process = place.start("put", "--json", "skipped", "file", "-", stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    os.write(writing, bytes(100))
    while place.run("has", DIGEST).returncode:
        assert process.poll() is None
    time.sleep(0.2)  # Until it is at the next file.
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    os.close(writing)

    assert process.returncode == 130
    document = json.loads(output)
    assert [row["path"] for row in document["files"]] == ["skipped/other", "file"]
    assert document["skipped"] == [{"path": "skipped/link", "reason": "a symbolic link"}]
    assert document["errors"] == []


def test_memory_does_not_grow_with_the_file(place):
    """200 MiB of holes fit through 130 MiB of memory."""
    with Path("large").open("wb") as file:
        file.truncate(200 << 20)
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (130 << 20, 130 << 20));"
        "from castore.cli import main; main()"
    )
    place.compose('[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:../store"\n')

    run = subprocess.run(
        [place.command()[0], "-c", program, "put", "large"],
        capture_output=True,
        check=False,
        env=place.environment | {"MALLOC_ARENA_MAX": "2"},
    )

    assert run.returncode == 0, run.stderr
