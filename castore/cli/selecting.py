"""Options that say what of a folder, or of a tree, is taken."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from castore.cli.options import as_size
from castore.places import absolute
from castore.trees.selecting import MOST_RULES, Pattern, Selection, patterns_in

F = TypeVar("F", bound=Callable[..., Any])

_ORDERED: Final = "castore.cli.selecting"
"""The key for what the options that have an order were given, in that order."""

_READ: Final = "castore.cli.selecting.read"
"""The key for files that were read: what can be read once, as stdin, holds for each source."""

_MOST_LISTED: Final = 1 << 30
"""How many bytes a list of files may have."""


class SelectingCommand(click.Command):
    """A command whose `--exclude`, `--include` and `--exclude-from` are known in the order given.

    Of the rules that fit, the last one decides.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as others do, and keep the order."""
        if not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(list(args))
            met: Counter[str] = Counter()
            ordered: list[tuple[str, str]] = []
            for param in order:
                name = str(param.name)
                if name in ("exclude", "include", "exclude_from"):
                    ordered.append((name, values[name][met[name]]))
                    met[name] += 1
            ctx.meta[_ORDERED] = ordered
        return super().parse_args(ctx, args)


_OF_ALL: Final = (
    click.option(
        "--exclude",
        metavar="PATTERN",
        multiple=True,
        help="Leave out what fits a pattern of gitignore's; a leading `/` is the top.",
    ),
    click.option(
        "--include",
        metavar="PATTERN",
        multiple=True,
        help="Take in again what an --exclude before it leaves out, as gitignore's `!`.",
    ),
    click.option(
        "--exclude-from",
        metavar="FILE",
        multiple=True,
        help="Read patterns from a file, as --exclude for each line.",
    ),
    click.option(
        "--ignore-file",
        metavar="NAME",
        multiple=True,
        help="Obey files of this name in each folder, as git does `.gitignore`.",
    ),
    click.option(
        "--exclude-caches",
        is_flag=True,
        help="Of folders with a CACHEDIR.TAG take that file only.",
    ),
    click.option(
        "--exclude-if-present",
        metavar="NAME",
        multiple=True,
        help="Of folders that have a file of this name take that file only.",
    ),
    click.option("--exclude-larger-than", metavar="SIZE", type=as_size, help="Leave out larger files."),
)

_OF_FOLDERS: Final = (
    click.option(
        "--one-file-system",
        "-x",
        is_flag=True,
        help="Of where another file system is mounted take an empty folder.",
    ),
    click.option(
        "--exclude-nodump", is_flag=True, help="Leave out what has the attribute `d` (`chattr +d`)."
    ),
    click.option(
        "--files-from",
        metavar="FILE",
        help="Take what a file (or `-`, stdin) lists, a path from SOURCE on in each line.",
    ),
    click.option(
        "-0",
        "--null",
        is_flag=True,
        help="With --files-from: the paths end with a NUL, as those of `find -print0`.",
    ),
)


def tree_selection_options(command: F) -> F:
    """Add the options that trees have; `as_selection` reads them."""
    for option in reversed(_OF_ALL):
        command = option(command)
    return command


def folder_selection_options(command: F) -> F:
    """Add the same, and those that only folders of the file system have."""
    for option in reversed(_OF_FOLDERS):
        command = option(command)
    return tree_selection_options(command)


def selection_of(ctx: click.Context, options: Mapping[str, Any], source: str | None = None) -> Selection:
    """Return what a `SelectingCommand` was told to take.

    Arguments:
        ctx: That of the command.
        options: The values of its options by their names, of which it takes its own.
        source: The folder, for paths of a list that are absolute.
    """
    listed = options.get("files_from")
    files = ctx.meta.setdefault(_READ, _Files())
    return Selection(
        patterns=list(_patterns(ctx.meta.get(_ORDERED, ()), files, obeys_files=bool(options["ignore_file"]))),
        ignore_files=[_as_name(name, "--ignore-file") for name in options["ignore_file"]],
        exclude_caches=options["exclude_caches"],
        if_present=[_as_name(name, "--exclude-if-present") for name in options["exclude_if_present"]],
        larger_than=options["exclude_larger_than"],
        only=None if listed is None else list(_listed(listed, files, source, null=options["null"])),
        one_file_system=options.get("one_file_system", False),
        exclude_nodump=options.get("exclude_nodump", False),
    )


class _Files:
    """Files of rules and lists, each of which is read once."""

    def __init__(self) -> None:
        self._read: dict[str, bytes] = {}
        self._stdin_is_for: str | None = None

    def read(self, path: str, most: int, option: str) -> bytes:
        """Return the bytes of a file, `-` for stdin; raise `click.UsageError`."""
        if path == "-" and self._stdin_is_for not in (None, option):
            raise click.UsageError(
                f"{self._stdin_is_for} and {option} cannot both be read from stdin; name a file for one"
            )
        if path not in self._read:
            self._read[path] = _read(path, most, option)
            if path == "-":
                self._stdin_is_for = option
        return self._read[path]


def _patterns(ordered: list[tuple[str, str]], files: _Files, *, obeys_files: bool) -> Iterator[Pattern]:
    some = obeys_files
    for option, value in ordered:
        if option == "exclude":
            some = True
            yield Pattern(os.fsencode(value), "--exclude")
        elif option == "include":
            if not some:
                raise click.UsageError(
                    f"`--include {value}` takes in again what was left out, and nothing is before it. For"
                    " nothing but some, leave out all first: --exclude '/*' --include '/docs/'"
                )
            yield Pattern(b"!" + os.fsencode(value), "--include")
        else:
            some = True
            yield from patterns_in(files.read(value, MOST_RULES, "--exclude-from"), value)


def _as_name(text: str, option: str) -> bytes:
    if "/" in text or text in ("", ".", ".."):
        raise click.UsageError(f"{option} takes the name of a file in a folder, and no path: {text!r}")
    return os.fsencode(text)


def _read(path: str, most: int, option: str) -> bytes:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.UsageError(f"{option}: cannot read {path!r}: {reason}") from None
    if len(data) > most:
        raise click.UsageError(f"{option}: {path!r} has more than {most >> 20} MiB")
    return data


def _listed(path: str, files: _Files, source: str | None, *, null: bool) -> Iterator[bytes]:
    """Yield the paths of a list, from the source on."""
    top = None if source is None else absolute(os.fsencode(source))
    for line in files.read(path, _MOST_LISTED, "--files-from").split(b"\0" if null else b"\n"):
        text = line if null else line.removesuffix(b"\r")
        if not text:
            continue
        parts = [part for part in text.split(b"/") if part not in (b"", b".")]
        if text.startswith(b"/"):
            if top is None or not (text + b"/").startswith(top.rstrip(b"/") + b"/"):
                raise click.UsageError(f"--files-from: {os.fsdecode(text)!r} is not in the source")
            parts = parts[len([part for part in top.split(b"/") if part]) :]
        if b".." in parts:
            raise click.UsageError(f"--files-from: {os.fsdecode(text)!r} may lead out of the source")
        if parts:
            yield b"/".join(parts)
