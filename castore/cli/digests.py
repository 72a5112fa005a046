"""Lists of digests: what `castore put`, `castore list` and b3sum print, or a person has written.

Every command that takes a list reads it here. A list may be longer than the memory is large: it is gone
through once, and of a line no more is kept than a digest and a name need.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast

import click

from castore.contract.inputs import InputFile, open_input
from castore.digest import B3Digest
from castore.errors import InvalidDigestError, SourceError

if TYPE_CHECKING:
    from typing_extensions import Buffer

F = TypeVar("F", bound=Callable[..., Any])
D = TypeVar("D")

STDIN: Final = "-"

_LONGEST: Final = 64 << 10
"""How many bytes of a line are looked at: with the longest name of a file there are 16 KiB."""

_BOM: Final = b"\xef\xbb\xbf"

_TAG: Final = "BLAKE3 ("


def digests_option(command: F) -> F:
    """Add `--digests`."""
    option = click.option(
        "--digests",
        "files",
        metavar="FILE",
        multiple=True,
        type=click.Path(dir_okay=False, allow_dash=True),
        help="Also those in FILE, at the start of its lines, as `castore list` prints them; `-` is stdin.",
    )
    return option(command)


def read_all_digests(paths: Iterable[str]) -> Iterator[B3Digest]:
    """Yield the digests in some files, one after the other."""
    return chain.from_iterable(map(read_digests, paths))


def require_digests(digests: Sequence[object], files: Sequence[str]) -> None:
    """Fail, as wrong usage, if neither digests nor lists of them are given."""
    if not digests and not files:
        click.get_current_context().fail("Missing argument 'DIGEST...', or --digests FILE.")


def read_digests(path: str) -> Iterator[B3Digest]:
    """Yield the digest that each line of a file begins with; `-` is stdin.

    What follows it in the line, empty lines, and lines that begin with `#` are passed over. Names may be
    escaped as b3sum does it, and lines may have the form of its `--tag`. A line with anything else is wrong
    usage: it may be a digest that was cut short.
    """
    return read_list(path, B3Digest.parse)


def read_list(path: str, parse: Callable[[str], D]) -> Iterator[D]:
    """Yield the same of what *parse* reads in the place of a digest; it raises `InvalidDigestError`."""
    with _opened(path) as source:
        for number, line in enumerate(_lines(source), 1):
            try:
                digest = _digest_of(line.removeprefix(_BOM) if number == 1 else line, parse)
            except InvalidDigestError as error:
                name = "stdin" if path == STDIN else path
                raise click.UsageError(f"{name}:{number}: {error}.") from None
            if digest is not None:
                yield digest


def _digest_of(line: bytes, parse: Callable[[str], D]) -> D | None:
    """Return the digest in a line, `None` if it says nothing."""
    # b3sum marks a line with a backslash if the name in it is escaped.
    text = line.decode("utf-8", "replace").removeprefix("\\")
    if text.startswith(_TAG):
        return parse(text.rpartition(") = ")[2].strip())
    words = text.split(maxsplit=1)
    if not words or words[0].startswith("#"):
        return None
    return parse(words[0])


@contextlib.contextmanager
def _opened(path: str) -> Iterator[InputFile]:
    if path != STDIN:
        with open_input(path) as source:
            yield source
    elif sys.stdin is None:
        raise SourceError("cannot read stdin: it is closed")
    else:
        yield InputFile(sys.stdin.buffer, "stdin")


class _Raw(io.RawIOBase):
    """A source as a raw stream, which waits where Python's own would take a pipe without data for its end."""

    def __init__(self, source: InputFile) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        return self._source.readinto(memoryview(buffer).cast("B"))


def _lines(source: InputFile) -> Iterator[bytes]:
    """Yield the lines of a source; of a long one the beginning."""
    stream = cast("BinaryIO", io.BufferedReader(_Raw(source), _LONGEST))
    while line := stream.readline(_LONGEST):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(_LONGEST)
        yield line
