"""`castore umount`."""

from __future__ import annotations

import click

from castore.cli.options import shared_options
from castore.cli.output import emit_json
from castore.cli.settings import Settings

_EPILOG = """\b
Examples:
  castore umount /mnt/photos
  castore umount /mnt/photos --lazy    also while files in it are open

\b
With --json:
  {"unmounted", "source"}
"""


@click.command("umount", epilog=_EPILOG)
@click.argument("folder", metavar="FOLDER", type=click.Path())
@click.option(
    "--lazy", is_flag=True, help="Take it away at once, and let it end when the last file in it is closed."
)
@shared_options
@click.pass_obj
def command(settings: Settings, /, folder: str, lazy: bool) -> None:
    """End what `castore mount` has mounted at FOLDER.

    It is ended also where the program behind it is gone. What something else has mounted is left alone.
    """
    from castore.access.mount.points import end, resolved  # noqa: PLC0415 - help needs none

    ended = end(folder, lazy=lazy)
    if settings.json:
        emit_json({"unmounted": resolved(folder), "source": ended.source})
