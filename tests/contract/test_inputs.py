"""What is to be stored: files and streams of all kinds, and what goes wrong with them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

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
