"""Reading lists of digests: what `castore put`, `castore list` and b3sum print, or a person has written."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from castore.digest import B3Digest
from castore.errors import InvalidDigestError, SourceError


def read_digests(path: str) -> Iterator[B3Digest]:
    """Yield the digest that each line of a file begins with; `-` is stdin.

    What follows it in the line, empty lines, and lines that begin with `#` are passed over. A line with
    anything else is wrong usage: it may be a digest that was cut short.
    """
    with _opened(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            # b3sum marks a line with a backslash if the name in it is escaped.
            words = line.decode("utf-8", "replace").removeprefix("\\").split(maxsplit=1)
            if words and not words[0].startswith("#"):
                try:
                    yield B3Digest.parse(words[0])
                except InvalidDigestError as error:
                    raise click.UsageError(f"{path}:{number}: {error}.") from None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        if sys.stdin is None:
            raise SourceError("cannot read stdin: it is closed")
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: PTH123, SIM115 - the user's string; closed below
    except OSError as error:
        raise SourceError(f"cannot read {path!r}: {error.strerror}") from error
    with file:
        yield file


def _lines(file: BinaryIO, path: str) -> Iterator[bytes]:
    try:
        yield from file
    except OSError as error:
        raise SourceError(f"cannot read {path!r}: {error.strerror}") from error
