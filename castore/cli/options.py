"""Options and arguments that several commands share."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from castore.cli.output import emit_text, with_headings
from castore.cli.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def shared_options(command: F) -> F:
    """Add the options that may stand before and after the command word; they end up in `Settings`."""
    for option in reversed(_options(hidden=False)):
        command = option(command)
    return command


def shared_options_without_composition(command: F) -> F:
    """Add the same options to a command that uses no composition; those for it are accepted, not shown."""
    for option in reversed(_options(hidden=True)):
        command = option(command)
    return command


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value not in {None, False}:
        setattr(ctx.ensure_object(Settings), str(param.name), value)


def _show_help(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        emit_text(with_headings(ctx.get_help()) + "\n")
        ctx.exit()


def complete_service(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names in the composition, which may be half written and need not be right."""
    # Shells ask for completions far more seldom than for anything else.
    from castore.opening import FILE, VARIABLE, nearest_file  # noqa: PLC0415

    settings = ctx.find_object(Settings) or Settings()
    path = settings.composition or os.environ.get(VARIABLE) or nearest_file() or FILE
    try:
        entries = tables_in(path).get("blobservices")
    except click.UsageError:
        return []
    if not isinstance(entries, dict):
        return []
    return [
        CompletionItem(name, help=str(table.get("type", "")) if isinstance(table, dict) else "")
        for name, table in entries.items()
        if name.startswith(incomplete)
    ]


def tables_in(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return what can be read in a composition, as it is written; raise `UsageError` if nothing can."""
    from castore.composition.source import MOST_BYTES  # noqa: PLC0415 - help needs none of these
    from castore.composition.toml.document import parse  # noqa: PLC0415 - as above
    from castore.places import read_small  # noqa: PLC0415 - as above

    try:
        return parse(read_small(Path(path), MOST_BYTES).decode("utf-8")).tables
    except (OSError, ValueError) as error:
        raise click.UsageError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None


def _options(*, hidden: bool) -> list[Callable[[F], F]]:
    """Return the shared options; *hidden*: help does not show those about the composition."""
    return [
        click.option(
            "--composition",
            metavar="FILE",
            type=click.Path(readable=False),
            help="The composition to use.",
            callback=_remember,
            expose_value=False,
            hidden=hidden,
        ),
        click.option(
            "--service",
            metavar="NAME",
            help="The blob service in it to use, if not `root`.",
            callback=_remember,
            expose_value=False,
            shell_complete=complete_service,
            hidden=hidden,
        ),
        click.option(
            "--json",
            is_flag=True,
            help="Print JSON, for programs.",
            callback=_remember,
            expose_value=False,
        ),
        click.option(
            "--stats",
            is_flag=True,
            help="Show on stderr what each instance was asked.",
            callback=_remember,
            expose_value=False,
            hidden=hidden,
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            help="Show neither progress nor remarks, but errors.",
            callback=_remember,
            expose_value=False,
        ),
        click.option(
            "--debug",
            is_flag=True,
            help="Show the traceback of an error.",
            callback=_remember,
            expose_value=False,
        ),
        # click's own prints by itself.
        click.help_option("-h", "--help", callback=_show_help),
    ]


def workers_option(command: F) -> F:
    """Add `--workers`."""
    option = click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(0, 1024),
        help="How many threads to use; by default one per core, or for a network more.",
    )
    return option(command)


def timeout_option(command: F) -> F:
    """Add `--timeout`, for `--connect`."""
    option = click.option(
        "--timeout",
        metavar="TIME",
        type=as_seconds,
        default="10 s",
        show_default=True,
        help="With --connect: how long to wait for an answer.",
    )
    return option(command)


def as_size(text: str | int) -> int:
    """Read an argument as a number of bytes, plain or with a unit; what is none is wrong usage."""
    from castore.composition.config.values import parse_size  # noqa: PLC0415 - only who gives a size needs it

    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def as_share(text: str) -> float:
    """Read an argument as a part of a whole, as `5%` or `0.05`; what is none is wrong usage."""
    number = text.removesuffix("%")
    try:
        share = float(number) / (100 if number != text else 1)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share, such as `5%` or `0.05`") from None
    if not 0 < share <= 1:
        raise click.BadParameter(f"{text!r} is not above 0 and up to 1, or 100%")
    return share


def as_time(text: str) -> float:
    """Read an argument as a time, in seconds since 1970: how long ago, or a date that may have a time."""
    from castore.composition.config.values import parse_duration  # noqa: PLC0415 - only who gives a time needs it

    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time: expected how long ago, such as `7d` or `12 h`, or a date, such as"
            " `2030-01-31` or `2030-01-31T12:00+01:00`"
        ) from None


def as_seconds(text: str | float) -> float:
    """Read an argument as a number of seconds, plain or with a unit; what is none is wrong usage."""
    from castore.composition.config.values import parse_duration  # noqa: PLC0415 - as above

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def as_time_with_unit(text: str) -> float:
    """Read an argument as a number of seconds; without a unit it is wrong usage, unless it is 0."""
    seconds = as_seconds(text)
    if seconds and not text.rstrip()[-1].isalpha():
        raise click.BadParameter(
            f'{text!r} has no unit; write "{text.strip()} d" for days, or `h`, `min`, `s`'
        )
    return seconds
