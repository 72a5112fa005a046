"""What is to be stored: files and streams of all kinds, and what goes wrong with them."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castore import SourceChangedError, SourceError
from castore.contract.inputs import InputFile, open_input, read_beginning


def up_to(most: int, source: InputFile) -> bytes:
    """Read *most* bytes, fewer only at the end."""
    buffer = memoryview(bytearray(most))
    return bytes(buffer[: source.fill(buffer)])


def test_a_regular_file_has_a_size_and_can_be_read_again(tmp_path: Path) -> None:
    """A path gives a source that knows its size, starts anew after a rewind, and is closed in the end."""
    (tmp_path / "file").write_bytes(b"content")
    with open_input(tmp_path / "file") as source:
        assert source.size == 7
        assert up_to(100, source) == b"content"
        source.rewind()
        assert up_to(3, source) == b"con"
        assert up_to(3, source) == b"ten"
    with pytest.raises(SourceError, match="closed file"):
        up_to(1, source)


def test_what_is_no_regular_file_has_no_size(tmp_path: Path) -> None:
    """A pipe has none, nor has a stream, wherever it stands; streams stay open."""
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    with open_input(f"/dev/fd/{reading}") as source:
        assert source.size is None
        assert up_to(100, source) == b"through a pipe"
    os.close(reading)
    stream = io.BytesIO(b"stream")
    stream.seek(3)
    with open_input(stream) as source:
        assert source.size is None
        assert up_to(100, source) == b"eam"
    assert not stream.closed


def test_a_file_that_grows_is_not_read_without_end(tmp_path: Path) -> None:
    """Once there is more of it than there was it has changed, however much may follow."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with open_input(path) as source:
        with path.open("ab") as file:
            file.write(bytes(100_000))
        with pytest.raises(SourceChangedError):
            up_to(50_000, source)
        source.rewind()
        assert len(up_to(1_000_000, source)) == 100_005


def test_a_file_that_says_it_has_no_size() -> None:
    """It has what it gives, and has not changed."""
    with open_input("/proc/self/status") as source:
        assert source.size == 0
        assert b"Name:" in up_to(10_000, source)
        source.require_unchanged()


class Dribble(io.RawIOBase):
    """Gives a byte at a time."""

    def __init__(self) -> None:
        self.left = list(b"slowly")

    def readinto(self, buffer: Any) -> int:
        if not self.left:
            return 0
        buffer[0] = self.left.pop(0)
        return 1


def test_short_reads() -> None:
    """A source that gives little at a time is read until there is enough."""
    with open_input(Dribble()) as source:  # type: ignore[arg-type]
        assert up_to(4, source) == b"slow"
        assert up_to(4, source) == b"ly"
        assert up_to(4, source) == b""


def test_a_rewind_that_fails() -> None:
    """The error names the source."""
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as file, pytest.raises(SourceError, match="'the pipe'"):
        InputFile(file, "the pipe").rewind()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_the_beginning_of_a_file_is_read(tmp_path: Path, size: int) -> None:
    """As much as is asked for, or all there is."""
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    for most in (1, 65_536, 65_537, 131_073, 1 << 20):
        assert read_beginning(path, most) == data[:most]


@pytest.mark.parametrize(
    ("name", "reason"), [("none", "No such file"), ("", "Is a directory"), ("a\0b", "embedded null")]
)
def test_a_file_that_cannot_be_begun_is_named(tmp_path: Path, name: str, reason: str) -> None:
    """Also what is no file at all."""
    path = f"{tmp_path}/{name}"
    with pytest.raises(SourceError, match=reason) as caught:
        read_beginning(path, 10)
    assert repr(path) in str(caught.value)


def test_who_is_waited_for_may_be_given_up() -> None:
    """While a pipe has no data it is looked again and again whether they are still wanted."""

    class GivenUp(BaseException):
        pass

    looks = iter([None, None, None])

    def check() -> None:
        if next(looks, "last") == "last":
            raise GivenUp

    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as stream, open_input(stream, check) as source:  # noqa: PTH123
        with pytest.raises(GivenUp):
            up_to(1, source)
        os.close(writing)


# -- holes --

BLOCK = 64 << 10
"""What a hole is made of at least, on all file systems."""


def write_sparsely(path: Path, runs: list[tuple[bool, int, int]]) -> bytes:
    """Write runs of data or holes, of so many blocks and bytes; return what is in the file."""
    content = b""
    with path.open("wb", buffering=0) as file:
        for number, (is_hole, blocks, rest) in enumerate(runs):
            size = blocks * BLOCK + rest
            run = bytes(size) if is_hole else blake3(b"%d" % number).digest(length=size)
            file.seek(len(content))
            if not is_hole:
                file.write(run)
            content += run
        file.truncate(len(content))
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return content


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets how many bytes each read has read."""
    counts: list[int] = []
    read = InputFile._read

    def counted(file: InputFile, buffer: memoryview) -> int | None:
        count = read(file, buffer)
        counts.append(count or 0)
        return count

    monkeypatch.setattr(InputFile, "_read", counted)
    return counts


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from((0, 0, 1, 4095))), min_size=1, max_size=6
    ),
    most=st.sampled_from((1000, BLOCK, 5 * BLOCK + 1)),
)
def test_a_sparse_file_has_all_its_bytes(
    tmp_path: Path, runs: list[tuple[bool, int, int]], most: int
) -> None:
    """Wherever its holes are, and again after a rewind."""
    content = write_sparsely(tmp_path / "file", runs)
    with open_input(tmp_path / "file") as source:
        for _ in range(2):
            parts = []
            while part := up_to(most, source):
                parts.append(part)
            assert b"".join(parts) == content
            source.rewind()
        source.require_unchanged()


def test_holes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large they are: of 128 MiB only what was written."""
    with (tmp_path / "file").open("wb") as file:
        for place in (0, 30 << 20, 70 << 20):
            file.seek(place)
            file.write(b"x" * BLOCK)
        file.truncate(128 << 20)
    os.utime(tmp_path / "file", (1000, 1000))
    if (tmp_path / "file").stat().st_blocks * 512 == 128 << 20:
        pytest.skip("this file system has no holes")
    counts = count_reads(monkeypatch)
    buffer = memoryview(bytearray(8 << 20))
    zeros, size, written = bytes(8 << 20), 0, 0
    with open_input(tmp_path / "file") as source:
        while count := source.readinto(buffer):
            size += count
            written += 0 if buffer[:count] == zeros[:count] else count
    assert size == 128 << 20
    assert sum(counts) == written == 3 * BLOCK


def test_holes_of_a_file_that_was_just_written_are_read(tmp_path: Path) -> None:
    """Some systems tell of holes where they have not written out the data yet."""
    write_sparsely(tmp_path / "file", [(False, 1, 0), (True, 20, 0)])
    os.utime(tmp_path / "file")
    with open_input(tmp_path / "file") as source:
        assert source._sparse is None


def test_a_hole_at_the_end_that_grows_ends_the_reading(tmp_path: Path) -> None:
    """As other files do that grow; it would be read for as long as numbers go."""
    write_sparsely(tmp_path / "file", [(False, 1, 0), (True, 20, 0)])
    buffer = memoryview(bytearray(BLOCK))
    with open_input(tmp_path / "file") as source:
        source.readinto(buffer)
        os.truncate(tmp_path / "file", 1 << 40)
        with pytest.raises(SourceChangedError):
            up_to(40 * BLOCK, source)


def test_a_file_without_holes_is_not_asked_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as before: one call to the system for each read."""
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(3 * BLOCK))
        file.flush()
        os.fsync(file.fileno())  # Until then it may seem to have no blocks.
    asked: list[int] = []
    seek = os.lseek

    def counted(descriptor: int, position: int, whence: int) -> int:
        asked.append(whence)
        return seek(descriptor, position, whence)

    monkeypatch.setattr("castore.contract.inputs.os.lseek", counted)
    with open_input(tmp_path / "file") as source:
        assert len(up_to(4 * BLOCK, source)) == 3 * BLOCK
    assert asked == []


def test_what_is_written_into_a_hole_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Also where that was passed over already."""
    write_sparsely(tmp_path / "file", [(False, 1, 0), (True, 20, 0), (False, 1, 0)])
    os.utime(tmp_path / "file", (1000, 1000))
    with open_input(tmp_path / "file") as source:
        assert len(up_to(10 * BLOCK, source)) == 10 * BLOCK
        with (tmp_path / "file").open("r+b") as file:
            file.seek(5 * BLOCK)
            file.write(b"new")
        while up_to(BLOCK, source):
            pass
        with pytest.raises(SourceChangedError):
            source.require_unchanged()


def test_a_file_system_that_does_not_tell_of_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is read then, and none is left out."""
    content = write_sparsely(tmp_path / "file", [(True, 3, 5), (False, 1, 0), (True, 2, 0)])
    seek = os.lseek

    def seek_only(descriptor: int, position: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return seek(descriptor, position, whence)

    monkeypatch.setattr("castore.contract.inputs.os.lseek", seek_only)
    counts = count_reads(monkeypatch)
    with open_input(tmp_path / "file") as source:
        assert up_to(len(content) + 1, source) == content
    assert sum(counts) == len(content)
