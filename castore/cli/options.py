"""Options and arguments that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from castore.cli.settings import Settings

if TYPE_CHECKING:
    from castore.digest import B3Digest

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


def _complete_service(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names in the composition, which may be half written and need not be right."""
    # Shells ask for completions far more seldom than for anything else.
    from castore.composition.document import parse  # noqa: PLC0415
    from castore.opening import FILE, VARIABLE  # noqa: PLC0415

    settings = ctx.find_object(Settings) or Settings()
    path = settings.composition or os.environ.get(VARIABLE) or FILE
    try:
        tables = parse(Path(path).read_text("utf-8")).tables
    except (OSError, ValueError):
        return []
    entries = tables.get("blobservices")
    if not isinstance(entries, dict):
        return []
    return [
        CompletionItem(name, help=str(table.get("type", "")) if isinstance(table, dict) else "")
        for name, table in entries.items()
        if name.startswith(incomplete)
    ]


def _options(*, hidden: bool) -> list[Callable[[F], F]]:
    """Return the shared options; *hidden*: help does not show those about the composition."""
    return [
        click.option(
            "--composition",
            metavar="FILE",
            type=click.Path(),
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
            shell_complete=_complete_service,
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
            "--debug",
            is_flag=True,
            help="Show the traceback of an error.",
            callback=_remember,
            expose_value=False,
        ),
    ]


def as_digest(text: str) -> B3Digest:
    """Read an argument as a digest in any of its forms; what is none is wrong usage."""
    # Help needs no BLAKE3.
    from castore.digest import B3Digest  # noqa: PLC0415
    from castore.errors import InvalidDigestError  # noqa: PLC0415

    try:
        return B3Digest.parse(text)
    except InvalidDigestError as error:
        raise click.BadParameter(str(error)) from None


def as_size(text: str | int) -> int:
    """Read an argument as a number of bytes, plain or with a unit; what is none is wrong usage."""
    from castore.composition.values import parse_size  # noqa: PLC0415 - only who gives a size needs it

    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def as_seconds(text: str | float) -> float:
    """Read an argument as a number of seconds, plain or with a unit; what is none is wrong usage."""
    from castore.composition.values import parse_duration  # noqa: PLC0415 - as above

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
