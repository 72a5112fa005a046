"""`castore get`: all of it or nothing, a part of it, and never a wrong byte."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from castore import B3Digest
from castore.format import blob_index

ABSENT = "00" * 32


@pytest.fixture(scope="module")
def data() -> bytes:
    """Three MiB, some ten chunks."""
    return random.Random(1).randbytes(3 << 20)


@pytest.fixture
def digest(castore, place, data) -> str:
    """The digest of *data*, which is in the store."""
    digest = place.file("source", data)
    assert castore("put", "source").exit_code == 0
    Path("source").unlink()
    return digest


def test_writes_to_stdout(place, digest, data):
    """Byte for byte, and not a word more."""
    got = place.run("get", digest)

    assert (got.returncode, got.stdout == data, got.stderr) == (0, True, b"")


def test_writes_to_a_file_and_leaves_nothing_else(castore, place, digest, data):
    """The temporary file took its place."""
    assert castore("get", digest, "-o", "out").exit_code == 0

    assert Path("out").read_bytes() == data
    assert place.names == {"composition.toml", "out"}


def test_replaces_a_file(castore, digest, data):
    """Whole, even if it was longer."""
    Path("out").write_bytes(bytes(5 << 20))

    castore("get", digest, "-o", "out")

    assert Path("out").read_bytes() == data


def test_the_umask_says_who_may_read_the_file(castore, digest):
    """As for any new file, and not as for a temporary one."""
    before = os.umask(0o027)
    try:
        castore("get", digest, "-o", "out")
    finally:
        os.umask(before)

    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o640


def test_follows_a_link_to_the_file_that_is_meant(castore, digest, data):
    """The link stays one."""
    Path("d").mkdir()
    Path("link").symlink_to("d/target")

    castore("get", digest, "-o", "link")

    assert Path("link").is_symlink()
    assert Path("d/target").read_bytes() == data


def test_a_device_or_pipe_is_written_to_and_not_replaced(place, digest, data):
    """`-o /dev/null` as root must not be the end of it."""
    os.mkfifo("pipe")
    process = place.start("get", digest, "-o", "pipe")

    assert Path("pipe").read_bytes() == data
    assert process.wait(60) == 0
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "link"])
def test_a_name_of_stdout_is_stdout(place, digest, data, name, options):
    """What stands in the file already stays there, and no file of another name comes of it."""
    Path("link").symlink_to("/dev/stdout")
    with Path("log").open("ab") as log:
        log.write(b"first\n")
        log.flush()
        process = place.start("get", digest, "-o", name, *options, stdout=log)
        assert process.wait(60) == 0

    assert Path("log").read_bytes() == b"first\n" + data
    assert place.names == {"composition.toml", "link", "log"}


def test_a_name_of_stdout_has_its_errors(place, digest):
    """The reader is gone, as behind a pipe."""
    process = place.start("get", digest, "-o", "/dev/stdout", stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 0), (0, 1), (1, None), (1 << 20, 100), (262_143, 524_290), (3 << 20, None), (3 << 20, 5),
        ((3 << 20) - 1, 100), (0, 4 << 20),
    ],
)  # fmt: skip
def test_gives_the_part_that_is_asked_for(castore, digest, data, offset, length):
    """A length beyond the end means: to the end."""
    options = ["--offset", str(offset)] + (["--length", str(length)] if length is not None else [])

    result = castore("get", digest, *options)

    assert result.exit_code == 0
    assert result.stdout_bytes == data[offset : None if length is None else offset + length]


def test_sizes_may_have_units(castore, digest, data):
    """As in a composition."""
    result = castore("get", digest, "--offset", "1 MiB", "--length", "2kB")

    assert result.stdout_bytes == data[1 << 20 :][:2000]


def test_an_offset_beyond_the_end_is_an_error_and_makes_no_file(castore, place, digest):
    """It names the size."""
    result = castore("get", digest, "--offset", str((3 << 20) + 1), "-o", "out")

    assert result.exit_code == 1
    assert f"the offset 3145729 is beyond the end of blob {digest}, which has 3145728 bytes" in result.stderr
    assert "out" not in place.names


@pytest.mark.parametrize("option", ["--offset", "--length"])
@pytest.mark.parametrize("value", ["-1", "x", "1.5", "1 XiB", ""])
def test_a_size_that_is_none_is_wrong_usage(castore, digest, option, value):
    """Negative ones, too."""
    result = castore("get", digest, option, value)

    assert result.exit_code == 2
    assert option in result.stderr


@pytest.mark.parametrize("form", ["hex", "upper", "sri"])
def test_takes_a_digest_in_each_form(castore, digest, data, form):
    """64 hex digits or `blake3-` and base64."""
    text = {"hex": digest, "upper": digest.upper(), "sri": B3Digest.parse(digest).sri}[form]

    assert castore("get", text).stdout_bytes == data


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "sha256-abc", f" {ABSENT}"])
def test_what_is_no_digest_is_wrong_usage(castore, text):
    """The message says what is wrong with it."""
    result = castore("get", text)

    assert result.exit_code == 2
    assert "is not a digest" in result.stderr


def test_an_absent_blob_is_an_error_and_makes_no_file(castore, place):
    """And leaves a file that was there alone."""
    Path("out").write_bytes(b"before")

    result = castore("get", ABSENT, "-o", "out")

    assert (result.exit_code, result.stderr) == (1, f"castore: no blob {ABSENT} in `root`\n")
    assert Path("out").read_bytes() == b"before"


@pytest.mark.parametrize("target", ["out", None])
def test_a_corrupt_blob_is_an_error_that_names_it_and_makes_no_file(castore, place, digest, target):
    """Also where what is corrupt is one chunk of many. No byte that was not checked comes out."""
    chunk = max((place.folder.parent / "stores").glob("*/chunks/b3/*/*"), key=lambda path: path.name)
    for name in ("near", "far"):
        for path in (place.folder.parent / "stores" / name / "chunks").rglob(chunk.name):
            path.write_bytes(b"rubbish")

    result = castore("get", digest, *(["-o", target] if target else []))

    assert result.exit_code == 1
    assert digest in result.stderr
    assert chunk.name in result.stderr
    assert len(result.stdout_bytes) < 3 << 20
    assert place.names == {"composition.toml"}


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (
            "nowhere/out",
            1,
            "'nowhere/out': no file can be made in the folder 'nowhere': No such file or directory",
        ),
        ("composition.toml/out", 1, "cannot write 'composition.toml/out': Not a directory"),
        ("x" * 300, 1, "File name too long"),
        ("/dev/full", 1, "cannot write '/dev/full': No space left on device"),
    ],
)
def test_a_place_that_cannot_be_written_is_an_error(castore, place, digest, output, code, words):
    """With the place and the reason."""
    result = castore("get", digest, "-o", output)

    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
    assert place.names == {"composition.toml"}


def test_a_full_disk_behind_stdout_is_an_error(place, digest):
    """Nobody must take half a blob for a whole one."""
    with Path("/dev/full").open("wb") as full:
        process = place.start("get", digest, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert errors == b"castore: cannot write the output: No space left on device\n"


def test_a_reader_who_has_enough_ends_it_quietly(place, digest, data):
    """As in `castore get DIGEST | head -c 1`; the code is that of SIGPIPE, so that scripts can tell."""
    process = place.start("get", digest, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(1) == data[:1]
    process.stdout.close()

    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_who_interrupts_it_finds_nothing_left_behind(odd, number, code):
    """Neither a half file nor a temporary one, nor a word."""
    place = odd("stalled")
    (place.folder / "out").write_bytes(b"before")
    process = place.start("get", ABSENT, "-o", "out", stderr=subprocess.PIPE)
    while "stalled" not in place.names:
        assert process.poll() is None
        time.sleep(0.01)
    assert len(place.names) == 4, "the temporary file is there"

    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (code, b"")
    assert place.names == {"composition.toml", "out", "stalled"}
    assert Path("out").read_bytes() == b"before"


def test_json_says_what_was_written(castore, digest):
    """With `-o`; the bytes are in the file."""
    result = castore("get", digest, "-o", "out", "--offset", "5", "--length", "7", "--json")

    part = {"digest": digest, "path": "out", "offset": 5, "size": 7, "verified": False}
    assert json.loads(result.stdout) == part
    assert json.loads(castore("get", digest, "-o", "out", "--json").stdout)["verified"] is True


def test_without_a_file_json_is_for_errors_alone(castore, digest, data):
    """Stdout is the blob's."""
    assert castore("--json", "get", digest).stdout_bytes == data


def test_memory_does_not_grow_with_the_blob(place):
    """200 MiB come out through 130 MiB of memory."""
    with Path("large").open("wb") as file:
        file.truncate(200 << 20)
    place.compose('[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:../store"\n')
    digest = place.run("put", "large").stdout[:64]
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (130 << 20, 130 << 20));"
        "from castore.cli import main; main()"
    )

    run = subprocess.run(
        [place.command()[0], "-c", program, "get", digest, "-o", "/dev/null"],
        capture_output=True,
        check=False,
        env=place.environment | {"MALLOC_ARENA_MAX": "2"},
    )

    assert run.returncode == 0, run.stderr


@pytest.fixture
def wrong_near(castore, place, data) -> str:
    """A blob that near and far have in other pieces; near has a wrong index of it, of chunks that it has."""
    Path("composition.toml").write_text(
        """
        [blobservices.root]
        type = "cache"
        near = "&near"
        far = "&far"
        write = "both"

        [blobservices.near]
        type = "objectstore"
        object_store_url = "file:./near"
        avg_chunk_size = "64 KiB"

        [blobservices.far]
        type = "objectstore"
        object_store_url = "file:./far"
        """
    )
    place.file("source", data)
    for service in ("near", "far"):
        digest = castore("--service", service, "put", "source").stdout.split()[0]
    (index,) = Path("near/blobs").rglob(digest)
    chunks = blob_index.decode(index.read_bytes(), B3Digest.parse(digest))
    index.write_bytes(blob_index.encode([chunks[1], chunks[0], *chunks[2:]]))
    return digest


def test_to_a_file_a_wrong_index_is_passed_over(castore, wrong_near, data):
    """The file is written anew, and near is right afterwards."""
    assert castore("get", wrong_near, "-o", "out").exit_code == 0
    assert Path("out").read_bytes() == data
    assert castore("--service", "near", "get", wrong_near, "-o", "out").exit_code == 0
    assert Path("out").read_bytes() == data


def test_what_went_to_stdout_is_not_written_twice(castore, place, wrong_near, data):
    """It is an error, and right the next time."""
    got = place.run("get", wrong_near)
    assert got.returncode == 1
    assert b"open the blob again" in got.stderr
    assert len(got.stdout) < len(data)
    assert place.run("get", wrong_near).stdout == data


def test_a_chunk_of_near_is_lost(castore, place, wrong_near, data):
    """Far has it in other pieces: it comes by its position, and is there again."""
    castore("--service", "near", "put", "source")
    lost = sorted(Path("near/chunks").rglob("?" * 64))[3]
    lost.unlink()
    got = place.run("get", wrong_near)
    assert (got.returncode, got.stdout == data) == (0, True)
    assert lost.exists()
