"""`castore help`."""

from __future__ import annotations

import click

from castore.cli.app import COMMANDS, no_command
from castore.cli.options import shared_options_without_composition
from castore.cli.output import emit_text, with_headings

_EPILOG = """\b
Examples:
  castore help
  castore help put
"""


@click.command("help", epilog=_EPILOG)
@click.argument("name", metavar="[COMMAND]", required=False)
@shared_options_without_composition
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """Show what `castore --help` does, or `castore COMMAND --help`."""
    above = ctx.parent
    assert above is not None
    assert isinstance(above.command, click.Group)
    if name is None:
        emit_text(with_headings(above.get_help()) + "\n")
        return
    shown = above.command.get_command(above, name) if name in COMMANDS else None
    if shown is None:
        above.fail(no_command(name))
    with click.Context(shown, info_name=name, parent=above, **shown.context_settings) as inner:
        emit_text(with_headings(shown.get_help(inner)) + "\n")
