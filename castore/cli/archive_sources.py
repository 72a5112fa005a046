"""Archives as sources of `castore import`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import click

from castore.cli.options import as_size
from castore.errors import SourceError
from castore.trees.packing import ArchiveFormat, format_of
from castore.trees.selecting import ALL, Selection
from castore.trees.unpacking import UnpackOptions

F = TypeVar("F", bound=Callable[..., Any])

STDIN: Final = "-"

_OF_FOLDERS: Final = (
    *("ignore_file", "exclude_caches", "exclude_if_present", "one_file_system", "exclude_nodump"),
    *("files_from", "metadata", "dry_run"),
)
"""Options for which a folder has to be looked into, which an archive cannot be before it is read."""


def archive_options(command: F) -> F:
    """Add the options that tell what is an archive, and what it may ask for; `archive_of` reads them."""
    for option in reversed(
        (
            click.option(
                "--format",
                "kind",
                type=click.Choice(["tar", "zip", "file"]),
                help="Take each SOURCE for an archive, or for a file though its name ends like one's.",
            ),
            click.option(
                "--max-files",
                metavar="NUMBER",
                type=click.IntRange(min=0),
                help="Refuse an archive that has more entries.",
            ),
            click.option(
                "--max-size",
                metavar="SIZE",
                type=as_size,
                help="Refuse an archive whose files have more bytes together, unpacked.",
            ),
        )
    ):
        command = option(command)
    return command


def archive_of(source: str, options: Mapping[str, Any], selection: Selection) -> UnpackOptions | None:
    """Return how a source is unpacked; `None` if it is no archive. Raises `click.UsageError`."""
    kind: ArchiveFormat | None
    if options["kind"] == "file":
        if source == STDIN:
            raise click.UsageError("`-` is stdin, which is an archive: --format tar.")
        return None
    if options["kind"] is not None:
        kind = options["kind"]
    elif source == STDIN:
        raise click.UsageError(
            "`-` is stdin, which is an archive: --format tar. `castore put -` takes a file."
        )
    else:
        found = format_of(source)
        kind = found[0] if found is not None and Path(source).is_file() else None
    if kind is None:
        return None
    if source == STDIN and kind == "zip":
        raise click.UsageError("A zip is read from its end, which stdin has not: name a file.")
    for name in _OF_FOLDERS:
        if options.get(name):
            raise click.UsageError(
                f"--{name.replace('_', '-')} is for folders, and {source!r} is an archive."
            )
    return UnpackOptions(
        kind,
        selection if selection.patterns or selection.larger_than is not None else ALL,
        skip_unreadable=options["skip_unreadable"],
        skip_special=options["special"] == "skip",
        most_files=options["max_files"],
        most_bytes=options["max_size"],
    )


@contextlib.contextmanager
def opened_archive(source: str) -> Iterator[BinaryIO]:
    """Give the bytes of an archive; raise `SourceError` if it cannot be opened."""
    if source == STDIN:
        if sys.stdin is None:
            raise SourceError("cannot read stdin: it is closed")
        if sys.stdin.isatty():
            raise SourceError("cannot read stdin: it is a terminal, and should be an archive")
        yield sys.stdin.buffer
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - it is closed below
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {source!r}: {getattr(error, 'strerror', None) or error}") from error
    with file:
        yield file
